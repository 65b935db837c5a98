//! Reads at a level in virtual time: what they show, what they mend, and who counts.

#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;

use std::time::Duration;

use bytes::Bytes;
use driftless::config::EdgeConfig;
use driftless::crdt::NEVER;
use driftless::node::{Level, Mark, Outcome, WaitId};
use driftless::sim::oracle::Key;
use driftless::sim::workload::{REGISTERS, key};
use driftless::sim::{Action, Profile, SimCluster, SimConfig, run_checked};
use driftless::store::{Body, KeyRef, Selector};
use simulated::{formed, ms};

/// Some nodes that compare no copies by themselves.
fn cluster(seed: u64, nodes: usize) -> SimCluster {
    cluster_with(seed, nodes, 0)
}

/// The same, of which those named by bit are edges that keep what is read for four seconds.
fn cluster_with(seed: u64, nodes: usize, edges: u64) -> SimCluster {
    let edge = EdgeConfig { keep_for: ms(4_000), fetch_timeout: ms(2_000) };
    let mut config = SimConfig { nodes, edges: (edges, edge), ..SimConfig::default() };
    config.node.repair.every = None;
    let mut cluster = formed(seed, config);
    let knows_all = |c: &SimCluster| (0..nodes).all(|at| c.node(at).unwrap().members().live().count() == nodes);
    cluster.run_until(ms(10_000), knows_all).unwrap();
    cluster
}

fn set(cluster: &mut SimCluster, at: usize, key: &Key, value: &str) -> Mark {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().open(key.space.name, key.space.family).unwrap();
    let (name, value) = (KeyRef::new(&space, &key.name), Bytes::copy_from_slice(value.as_bytes()));
    let done = cluster.write(at, &name, Some(value.len()), |p, tick| p.set(&name, value, NEVER, tick)).unwrap();
    Mark { partition: store.place(name.hash), dot: done.dot }
}

fn delete(cluster: &mut SimCluster, at: usize, key: &Key) -> Mark {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().open(key.space.name, key.space.family).unwrap();
    let name = KeyRef::new(&space, &key.name);
    let done = cluster.write(at, &name, None, |p, tick| p.delete(&name, tick)).unwrap();
    Mark { partition: store.place(name.hash), dot: done.dot }
}

/// What a host holds of a register, without reading it.
fn held(cluster: &SimCluster, at: usize, key: &Key) -> Option<String> {
    let store = cluster.store(at)?;
    let space = store.spaces().find(key.space.name)?;
    let name = KeyRef::new(&space, &key.name);
    let partition = store.read(store.place(name.hash))?;
    match &partition.entry(&name)?.body {
        Body::Register(cell) => {
            let value = cell.as_ref()?.visible(cluster.now(at).wall_ms)?;
            Some(String::from_utf8(value.to_vec()).unwrap())
        }
        Body::Tree(_) | Body::Custom(_) => None,
    }
}

fn has_entry(cluster: &SimCluster, at: usize, key: &Key) -> bool {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().find(key.space.name).unwrap();
    store.with_entry(&KeyRef::new(&space, &key.name), |entry| entry.is_some())
}

fn has_seen(cluster: &SimCluster, at: usize, mark: Mark) -> bool {
    cluster.store(at).unwrap().read(mark.partition).unwrap().has_seen(mark.dot)
}

fn ended(cluster: &mut SimCluster, at: usize, id: WaitId) -> Outcome {
    cluster.run_until(ms(30_000), |c| c.outcome(at, id).is_some()).unwrap();
    cluster.outcome(at, id).unwrap().clone()
}

/// Waits until a write has reached a quorum.
fn reached(cluster: &mut SimCluster, at: usize, mark: Mark) {
    let id = cluster.wait(at, mark, Level::Quorum, ms(2_000));
    assert!(ended(cluster, at, id).reached);
}

fn read(cluster: &mut SimCluster, at: usize, key: &Key, level: Level) -> Outcome {
    let id = cluster.read(at, key, level, ms(1_000)).unwrap();
    ended(cluster, at, id)
}

fn cut(cluster: &mut SimCluster, one: usize, other: usize) {
    cluster.cut_one_way(one, other);
    cluster.cut_one_way(other, one);
}

fn stores_are_empty(cluster: &SimCluster) -> bool {
    let is_empty =
        |at: usize| cluster.store(at).is_none_or(|s| s.partition_ids().all(|id| s.read(id).unwrap().is_empty()));
    (0..cluster.len()).all(is_empty)
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_quorum_read_shows_what_has_reached_a_quorum_that_never_spoke_to_the_reader() {
    let mut cluster = cluster(1, 3);
    let wanted = key(REGISTERS, 0);
    cut(&mut cluster, 0, 2);
    let mark = set(&mut cluster, 0, &wanted, "a");
    reached(&mut cluster, 0, mark);
    assert_eq!(held(&cluster, 2, &wanted), None, "nobody has relayed it yet");
    assert!(read(&mut cluster, 2, &wanted, Level::Local).reached);
    assert_eq!(held(&cluster, 2, &wanted), None);
    let outcome = read(&mut cluster, 2, &wanted, Level::Quorum);
    assert_eq!((outcome.reached, outcome.acked, outcome.needed, outcome.missing.len()), (true, 2, 2, 1), "{outcome:?}");
    assert_eq!(held(&cluster, 2, &wanted).unwrap(), "a");
    assert!(has_seen(&cluster, 2, mark));
}

#[test]
fn a_minority_reads_what_it_has_and_is_told_who_is_missing() {
    let mut cluster = cluster(2, 3);
    let wanted = key(REGISTERS, 0);
    let first = set(&mut cluster, 0, &wanted, "a");
    reached(&mut cluster, 0, first);
    cluster.run_for(ms(1_000));
    cluster.isolate(2);
    let mark = set(&mut cluster, 0, &wanted, "b");
    reached(&mut cluster, 0, mark);
    let outcome = read(&mut cluster, 2, &wanted, Level::Quorum);
    assert_eq!(
        (outcome.reached, outcome.acked, outcome.needed, outcome.missing.len()),
        (false, 1, 2, 2),
        "{outcome:?}"
    );
    assert_eq!(held(&cluster, 2, &wanted).unwrap(), "a");
    let gauges = cluster.node(2).unwrap().gauges();
    assert_eq!(gauges.of("reads at a level").unwrap().size, 0, "nothing is left of it");
    cluster.heal();
    cluster.run_for(ms(10_000));
    assert_eq!(held(&cluster, 2, &wanted).unwrap(), "b");
    assert_eq!(cluster.node(2).unwrap().gauges().of("questions of a link").unwrap().size, 0);
}

#[test]
fn an_answer_after_the_deadline_does_no_harm() {
    let mut cluster = cluster(3, 3);
    let wanted = key(REGISTERS, 0);
    cut(&mut cluster, 0, 2);
    let mark = set(&mut cluster, 0, &wanted, "a");
    reached(&mut cluster, 0, mark);
    assert!(cluster.perform(Action::Clog { from: 1, to: 2, ms: 400 }));
    let id = cluster.read(2, &wanted, Level::Quorum, ms(200)).unwrap();
    assert!(!ended(&mut cluster, 2, id).reached);
    let told = cluster.outcome(2, id).cloned();
    assert_eq!(held(&cluster, 2, &wanted), None);
    cluster.run_for(ms(500));
    assert_eq!(held(&cluster, 2, &wanted).unwrap(), "a", "the answer is a batch like any other");
    assert_eq!(cluster.outcome(2, id).cloned(), told);
}

#[test]
fn a_deletion_that_has_reached_a_quorum_is_read_and_stays() {
    let mut cluster = cluster(4, 3);
    let wanted = key(REGISTERS, 0);
    set(&mut cluster, 1, &wanted, "a");
    cluster.run_for(LONG);
    cut(&mut cluster, 0, 2);
    let mark = delete(&mut cluster, 0, &wanted);
    reached(&mut cluster, 0, mark);
    assert_eq!(held(&cluster, 2, &wanted).unwrap(), "a");
    assert!(read(&mut cluster, 2, &wanted, Level::Quorum).reached);
    assert_eq!(held(&cluster, 2, &wanted), None);
    cluster.heal();
    cluster.run_for(LONG);
    assert!((0..3).all(|at| held(&cluster, at, &wanted).is_none()));
    assert!(stores_are_empty(&cluster), "the deletion is forgotten");
}

#[test]
fn that_there_is_nothing_is_an_answer_wherever_it_was_forgotten_or_never_heard_of() {
    let mut cluster = cluster(5, 3);
    let wanted = key(REGISTERS, 0);
    assert!(read(&mut cluster, 2, &wanted, Level::All).reached, "nobody else has heard of the keyspace");
    set(&mut cluster, 0, &wanted, "a");
    cluster.run_for(ms(500));
    delete(&mut cluster, 1, &wanted);
    cluster.run_for(LONG);
    assert!(!has_entry(&cluster, 0, &wanted) && !has_entry(&cluster, 1, &wanted));
    let outcome = read(&mut cluster, 2, &wanted, Level::All);
    assert_eq!((outcome.reached, outcome.acked), (true, 3), "{outcome:?}");
    cluster.run_for(ms(1_000));
    assert!(stores_are_empty(&cluster), "asking leaves nothing behind");
}

#[test]
fn an_invalidation_that_has_reached_a_quorum_is_read() {
    let mut cluster = cluster(6, 3);
    let wanted = key(REGISTERS, 0);
    set(&mut cluster, 2, &wanted, "a");
    cluster.run_for(ms(1_000));
    cut(&mut cluster, 0, 2);
    let space = cluster.store(0).unwrap().spaces().find(REGISTERS.name).unwrap();
    cluster.invalidate(0, &space, &Selector::All);
    cluster.run_for(ms(300));
    assert_eq!((held(&cluster, 1, &wanted), held(&cluster, 2, &wanted).as_deref()), (None, Some("a")));
    assert!(read(&mut cluster, 2, &wanted, Level::Quorum).reached);
    assert_eq!(held(&cluster, 2, &wanted), None);
}

/// Nobody compares copies here, so it is the read that does it.
#[test]
fn a_read_mends_what_was_lost_here_and_what_was_lost_where_it_asked() {
    let mut cluster = cluster(7, 3);
    let wanted = key(REGISTERS, 0);
    set(&mut cluster, 0, &wanted, "a");
    cluster.run_for(LONG);
    assert!(cluster.perform(Action::Damage { at: 2, key: 0 }));
    assert_eq!(held(&cluster, 2, &wanted), None);
    assert!(read(&mut cluster, 2, &wanted, Level::Quorum).reached);
    assert_eq!(held(&cluster, 2, &wanted).unwrap(), "a");

    assert!(cluster.perform(Action::Damage { at: 1, key: 0 }));
    assert!(read(&mut cluster, 2, &wanted, Level::All).reached);
    cluster.run_for(ms(500));
    assert_eq!(held(&cluster, 1, &wanted).unwrap(), "a");
    let mended = |at| cluster.node(at).unwrap().stats().mended;
    assert_eq!((mended(0), mended(1), mended(2)), (0, 0, 1), "once, and only whoever lacked it");
}

#[test]
fn who_never_answers_is_missing_and_not_waited_for_where_others_do() {
    let mut cluster = cluster(8, 3);
    let wanted = key(REGISTERS, 0);
    let mark = set(&mut cluster, 0, &wanted, "a");
    reached(&mut cluster, 0, mark);
    let down = cluster.node(1).unwrap().me().node;
    cluster.crash(1);
    assert!(read(&mut cluster, 2, &wanted, Level::Quorum).reached);
    for (level, acked, needed) in [(Level::All, 2, 3), (Level::EachRegion, 2, 3)] {
        let outcome = read(&mut cluster, 2, &wanted, level);
        assert_eq!((outcome.reached, outcome.acked, outcome.needed), (false, acked, needed), "{level:?}: {outcome:?}");
        assert_eq!(outcome.missing.iter().map(|missing| missing.node).collect::<Vec<_>>(), [down]);
    }
    cluster.crash(0);
    assert!(!read(&mut cluster, 2, &wanted, Level::Quorum).reached);
}

#[test]
fn a_link_that_comes_up_is_asked_and_a_member_that_is_removed_is_not_waited_for() {
    let mut cluster = cluster(9, 3);
    let wanted = key(REGISTERS, 0);
    cluster.isolate(2);
    let mark = set(&mut cluster, 0, &wanted, "a");
    reached(&mut cluster, 0, mark);
    let id = cluster.read(2, &wanted, Level::Quorum, ms(30_000)).unwrap();
    cluster.run_for(ms(5_000));
    assert_eq!(cluster.outcome(2, id), None);
    cluster.heal();
    assert!(ended(&mut cluster, 2, id).reached);
    assert_eq!(held(&cluster, 2, &wanted).unwrap(), "a");

    cluster.run_for(ms(5_000));
    let down = cluster.node(1).unwrap().me().replica;
    cluster.crash(1);
    let id = cluster.read(2, &wanted, Level::EachRegion, ms(20_000)).unwrap();
    cluster.run_for(ms(1_000));
    assert_eq!(cluster.outcome(2, id), None);
    cluster.input(0, driftless::node::Input::Remove { replica: down });
    cluster.run_for(ms(1_000));
    let outcome = cluster.outcome(2, id).expect("it is judged anew");
    assert_eq!((outcome.reached, outcome.acked, outcome.needed), (true, 2, 2), "{outcome:?}");
}

#[test]
fn an_edge_reads_at_a_level_and_counts_for_none() {
    let mut cluster = cluster_with(10, 4, 0b1000);
    let wanted = key(REGISTERS, 0);
    set(&mut cluster, 0, &wanted, "a");
    cluster.run_for(LONG);
    assert_eq!(held(&cluster, 3, &wanted), None, "nobody has read it there for long");
    let outcome = read(&mut cluster, 3, &wanted, Level::Quorum);
    assert_eq!((outcome.reached, outcome.acked, outcome.needed), (true, 2, 2), "{outcome:?}");
    assert_eq!(held(&cluster, 3, &wanted).unwrap(), "a");

    [0, 1].iter().for_each(|full| cut(&mut cluster, *full, 3));
    cluster.run_for(ms(2_000));
    let outcome = read(&mut cluster, 3, &wanted, Level::Quorum);
    assert_eq!((outcome.reached, outcome.acked, outcome.needed), (false, 1, 2), "it is none of three: {outcome:?}");
    [0, 1].iter().for_each(|full| cut(&mut cluster, *full, 2));
    cluster.run_for(ms(2_000));
    let outcome = read(&mut cluster, 2, &wanted, Level::Quorum);
    assert_eq!((outcome.reached, outcome.acked, outcome.needed), (false, 1, 2), "the edge is not asked: {outcome:?}");
}

/// Clients of some hosts, what they wait for, and what came of it.
struct Clients {
    cluster: SimCluster,
    rng: fastrand::Rng,
    keys: [Key; 2],
    /// Of which key, where, and what somebody waits for.
    writes: Vec<(usize, usize, Mark, WaitId)>,
    /// Where, what had reached a quorum when it began, and what somebody waits for.
    reads: Vec<(usize, Vec<Mark>, WaitId)>,
    reached: usize,
    shown: usize,
}

impl Clients {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (cluster, keys) = (cluster(1_000 + seed, rng.usize(3..6)), [key(REGISTERS, 0), key(REGISTERS, 1)]);
        Self { cluster, rng, keys, writes: Vec::new(), reads: Vec::new(), reached: 0, shown: 0 }
    }

    fn do_something(&mut self) {
        let nodes = self.cluster.len();
        let (at, of) = (self.rng.usize(..nodes), self.rng.usize(..self.keys.len()));
        let key = self.keys[of].clone();
        match self.rng.u8(..10) {
            0..=3 => {
                let deletes = self.rng.u8(..4) == 0;
                let cluster = &mut self.cluster;
                let mark = if deletes { delete(cluster, at, &key) } else { set(cluster, at, &key, "v") };
                self.writes.push((of, at, mark, cluster.wait(at, mark, Level::Quorum, ms(3_000))));
            }
            4..=6 => {
                let is_reached = |at, id| self.cluster.outcome(at, id).is_some_and(|outcome| outcome.reached);
                let known = self.writes.iter().filter(|(about, by, _, id)| *about == of && is_reached(*by, *id));
                let known = known.map(|(_, _, mark, _)| *mark).collect();
                self.reads.push((at, known, self.cluster.read(at, &key, Level::Quorum, ms(1_500)).unwrap()));
            }
            7 | 8 => self.cluster.cut_one_way(at, (at + self.rng.usize(1..nodes)) % nodes),
            _ => self.cluster.heal(),
        }
    }

    /// Looks at the reads that have ended by now.
    fn look(&mut self) {
        let cluster = &self.cluster;
        let (ended, open) = self.reads.drain(..).partition(|(at, _, id)| cluster.outcome(*at, *id).is_some());
        self.reads = open;
        for (at, known, id) in ended {
            if self.cluster.outcome(at, id).unwrap().reached {
                let unseen: Vec<_> = known.iter().filter(|mark| !has_seen(&self.cluster, at, **mark)).collect();
                assert!(unseen.is_empty(), "{at} has not seen {unseen:?}");
                (self.reached, self.shown) = (self.reached + 1, self.shown + known.len());
            }
        }
    }
}

/// Whatever is cut and lost, as long as nobody ends.
#[test]
fn whatever_had_reached_a_quorum_is_seen_by_every_quorum_read_that_begins_later() {
    let (mut reached, mut shown) = (0, 0);
    for seed in 0..24 {
        let mut clients = Clients::new(seed);
        for _ in 0..60 {
            clients.do_something();
            for step in 0..clients.rng.u64(..40) {
                clients.cluster.run_for(ms(5 + step % 2));
                clients.look();
            }
        }
        (reached, shown) = (reached + clients.reached, shown + clients.shown);
    }
    assert!(reached > 100 && shown > 500, "{reached} reads of {shown} writes");
}

#[test]
fn in_every_run_a_read_has_seen_what_so_many_held_when_it_began() {
    let profile = Profile::named("reads").unwrap();
    for seed in 0..30 {
        let report = run_checked(&profile.plan(seed), false);
        assert_eq!(report.failure, None, "seed {seed}");
    }
}
