//! Whole clusters in virtual time: real nodes, stores and wire bytes under cuts, crashes, restarts
//! and skewed clocks. Every failure prints the seed that replays it.
//!
//! First drawn runs, few here and thousands in `examples/simulate`, and what once failed, from `tests/seeds`; then random
//! runs of this file's own. Directed stories are in `sim/stories.rs`.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "support/simulated.rs"]
mod simulated;
#[path = "sim/stories.rs"]
mod stories;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use driftless::crdt::{NEVER, Path};
use driftless::sim::{Ack, Checker, Failure, Op, Plan, Profile, Run, SimCluster, SimConfig, Workload, run_checked};
use driftless::store::{Body, Family, KeyRef, Selector, Store};
use simulated::{contexts, converged, formed, ms};

/// Seeds of each profile; the profile `quic` has a test of its own.
const SWARM: u64 = 40;
/// Seeds of the random runs; each takes a few milliseconds.
const SEEDS: u64 = 300;
/// Seeds that fail without one rule each: a link that opened while this node was joining is told
/// when it is done (130), a new link reports at once (141), of two copies of one node let in by
/// donors apart the later stays (1677), a shared frame goes to nobody behind the floor (1702).
const REGRESSIONS: [u64; 4] = [130, 141, 1677, 1702];

fn visible(store: &Store, now_ms: u64) -> BTreeMap<(String, Bytes), String> {
    let mut all = BTreeMap::new();
    for id in store.partition_ids() {
        for (space, key, entry) in store.read(id).unwrap().entries() {
            let shown = match &entry.body {
                Body::Register(cell) => format!("{:?}", cell.as_ref().and_then(|c| c.visible(now_ms))),
                Body::Tree(tree) => {
                    let elems: Vec<_> = tree.elems().collect();
                    let counts: Vec<_> =
                        tree.counters().map(|(n, c)| (n, c.value(now_ms))).filter(|c| c.1 != 0).collect();
                    if elems.is_empty() && counts.is_empty() {
                        "None".to_owned()
                    } else {
                        format!("{elems:?} {counts:?}")
                    }
                }
                Body::Custom(custom) => format!("{custom:?}"),
            };
            if shown != "None" {
                all.insert((store.spaces().get(space).unwrap().name().to_owned(), key.clone()), shown);
            }
        }
    }
    all
}

fn agree(cluster: &SimCluster, seed: u64) {
    let stores: Vec<Arc<Store>> = (0..cluster.len()).filter_map(|at| cluster.store(at)).collect();
    for pair in stores.windows(2) {
        let now_ms = cluster.now(0).wall_ms;
        assert_eq!(visible(&pair[0], now_ms), visible(&pair[1], now_ms), "seed {seed}: equal contexts show equal data");
    }
}

/// One random mutation at one node.
fn mutate(cluster: &mut SimCluster, rng: &mut fastrand::Rng, at: usize, step: u64) {
    let Some(store) = cluster.store(at) else { return };
    let registers = store.spaces().open("registers", Family::Register).unwrap();
    let maps = store.spaces().open("maps", Family::Map).unwrap();
    let name = format!("k{}", rng.u8(..6));
    let (reg, map) = (KeyRef::new(&registers, name.as_bytes()), KeyRef::new(&maps, name.as_bytes()));
    let (field, counter) = (Path::Field(Bytes::from(format!("f{}", rng.u8(..3)))), Bytes::from_static(b"c"));
    let value = Bytes::from(format!("{at}.{step}"));
    let deadline = if rng.bool() { NEVER } else { cluster.now(at).wall_ms + rng.u64(1..4_000) };
    let tags = if step % 2 == 1 { vec![Bytes::from_static(b"odd")] } else { Vec::new() };
    let op = rng.u8(..10);
    if step % 25 == 24 {
        let selector = if step & 1 == 0 { Selector::All } else { Selector::Tag("odd".to_owned()) };
        return cluster.invalidate(at, &registers, &selector);
    }
    let written = match op {
        0..3 => cluster.write(at, &reg, Some(4), |p, t| {
            p.set_tagged(&reg, (value, tags), deadline, t);
        }),
        3 => cluster.write(at, &reg, None, |p, t| {
            p.delete(&reg, t);
        }),
        4 => cluster.write(at, &reg, None, |p, t| {
            p.touch(&reg, deadline, t);
        }),
        5 | 6 => cluster.write(at, &map, Some(4), |p, t| {
            p.put(&map, field, value, deadline, t);
        }),
        7 => cluster.write(at, &map, None, |p, t| {
            p.remove(&map, &field, t);
        }),
        8 => cluster.write(at, &map, Some(4), |p, t| {
            p.increment(&map, &counter, 1, deadline, t);
        }),
        _ => cluster.write(at, &map, None, |p, t| {
            p.clear(&map, t);
        }),
    };
    drop(written);
}

fn disturb(cluster: &mut SimCluster, rng: &mut fastrand::Rng) {
    let (at, other) = (rng.usize(..cluster.len()), rng.usize(..cluster.len()));
    match rng.u8(..8) {
        0 => cluster.isolate(at),
        1 if at != other => cluster.cut_one_way(at, other),
        2 | 3 => cluster.heal(),
        4 if (0..cluster.len()).filter(|n| cluster.node(*n).is_some()).count() > 2 => cluster.crash(at),
        5 if cluster.node(at).is_none() => cluster.start(at).unwrap(),
        6 => cluster.set_skew_ms(at, rng.i64(-400..400)),
        _ => {}
    }
}

fn random_run(seed: u64) -> SimCluster {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut config = SimConfig { nodes: rng.usize(2..5), ..SimConfig::default() };
    config.node.limits.log_records_max = if rng.u8(..4) == 0 { 64 } else { 1 << 16 };
    config.weather.loss = if rng.bool() { 0.0 } else { rng.f64() * 0.3 };
    let mut cluster = formed(seed, config);
    for step in 0..rng.u64(50..250) {
        let at = rng.usize(..cluster.len());
        mutate(&mut cluster, &mut rng, at, step);
        cluster.run_for(ms(rng.u64(..40)));
        if rng.u8(..12) == 0 {
            disturb(&mut cluster, &mut rng);
        }
    }
    cluster.heal();
    for at in 0..cluster.len() {
        cluster.set_skew_ms(at, 0);
        if cluster.node(at).is_none() {
            cluster.start(at).unwrap();
        }
    }
    cluster
}

fn profiles() -> impl Iterator<Item = &'static Profile> {
    Profile::all().iter().filter(|profile| profile.name() != "quic")
}

#[test]
fn every_profile_holds_for_its_first_seeds_and_every_tenth_run_twice_is_the_same() {
    for profile in profiles() {
        for seed in 1..=SWARM {
            let report = run_checked(&profile.plan(seed), seed % 10 == 0);
            assert_eq!(report.failure, None, "replay it: simulate --config {profile} --seed {seed} --trace");
        }
    }
}

/// Returns the plan of a line of `tests/seeds`, and why it is there.
fn regression(line: &str) -> (String, Plan) {
    let mut value: serde_json::Value = serde_json::from_str(line).expect(line);
    let why = value["why"].as_str().expect("a regression says why it is one").to_owned();
    let plan = match value["profile"].as_str() {
        Some(profile) => Profile::named(profile).expect(profile).plan(value["seed"].as_u64().expect("a seed")),
        None => serde_json::from_value(value["plan"].take()).expect(line),
    };
    (why, plan)
}

/// Fails, or panics, at the third write.
#[derive(Default)]
struct Third {
    writes: usize,
    panics: bool,
}

impl Checker for Third {}

impl Workload for Third {
    fn write(&mut self, _: &mut SimCluster, at: usize, _: Op, _: Option<Ack>) -> Result<(), Failure> {
        self.writes += 1;
        assert!(!self.panics || self.writes < 3, "the third write panics");
        if self.writes < 3 { Ok(()) } else { Err(Failure::new("third", format!("at {at}"))) }
    }
}

#[test]
fn a_failure_and_a_panic_end_their_run_and_are_reported() {
    let plan = Profile::named("calm").unwrap().plan(1);
    let failed = Run::new(&plan).workload(Third::default()).go();
    assert_eq!(failed.failure.map(|f| f.invariant).as_deref(), Some("third"));
    let panicked = Run::new(&plan).workload(Third { panics: true, ..Third::default() }).go().failure.unwrap();
    assert_eq!((panicked.invariant.as_str(), panicked.detail.as_str()), ("Panic", "the third write panics"));
}

#[test]
fn a_run_that_is_told_is_the_same_run() {
    let plan = Profile::named("swarm").unwrap().plan(3);
    let (quiet, told) = (Run::new(&plan).go(), Run::new(&plan).lines(usize::MAX).go());
    assert_eq!((quiet.trace, &quiet.hits, quiet.steps), (told.trace, &told.hits, told.steps));
    assert!(quiet.lines.is_empty() && told.lines.len() > plan.steps.len());
    assert_eq!(Run::new(&plan).lines(5).go().lines, told.lines[told.lines.len() - 5..]);
}

/// The plans in a folder under `tests`, with the file's name and the reason.
fn plans_in(folder: &str) -> Vec<(String, String, Plan)> {
    let folder = format!("{}/tests/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    assert!(!files.is_empty(), "the plans are where they are looked for");
    let plans = |file: &std::path::PathBuf| {
        let (name, text) = (file.file_stem().unwrap().to_str().unwrap(), std::fs::read_to_string(file).unwrap());
        let plan = |line| (name.to_owned(), regression(line));
        text.lines().map(plan).map(|(name, (why, plan))| (name, why, plan)).collect::<Vec<_>>()
    };
    files.iter().flat_map(plans).collect()
}

#[test]
fn what_once_failed_holds() {
    for (name, why, plan) in plans_in("seeds") {
        let report = run_checked(&plan, true);
        assert_eq!((report.failure, report.excused), (None, None), "{name}: {why}");
    }
}

/// When the design no longer has the limit, its plan belongs to what once failed.
#[test]
fn beyond_a_limit_history_is_excused_and_by_that_limit() {
    for (name, why, plan) in plans_in("limits") {
        let report = run_checked(&plan, true);
        assert_eq!(report.failure, None, "{name}: {why}");
        assert_eq!(report.excused.map(|(limit, _)| limit.name().to_owned()), Some(name), "{why}");
    }
}

#[test]
fn any_schedule_converges_after_the_heal_and_then_forgets_everything_it_may() {
    for seed in REGRESSIONS.into_iter().chain(1..=SEEDS) {
        let mut cluster = random_run(seed);
        let took = cluster.run_until(ms(30_000), converged);
        if took.is_none() {
            for at in 0..cluster.len() {
                eprintln!(
                    "{at}: {:?}\n{:?}",
                    cluster.node(at).map(|n| n.stats()),
                    cluster.store(at).map(|s| contexts(&s))
                );
                eprintln!("{:?}", cluster.take_events(at).into_iter().rev().take(12).collect::<Vec<_>>());
            }
            panic!("seed {seed}: not converged 30 s after the heal");
        }
        cluster.run_for(ms(25_000));
        assert!(converged(&cluster), "seed {seed}: stays converged");
        agree(&cluster, seed);
        for at in 0..cluster.len() {
            let log = cluster.node(at).unwrap().stats().log_records;
            assert_eq!(log, 0, "seed {seed}: node {at} has collected its log");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 50, 100] {
        assert_eq!(random_run(seed).trace(), random_run(seed).trace());
    }
}
