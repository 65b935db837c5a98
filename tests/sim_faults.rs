//! Every fault a simulated cluster can have, one by one: that it happens as it is described, and that the nodes come
//! through it. Then all of them together.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

#[path = "sim_faults/members.rs"]
mod members;
#[path = "support/simulated.rs"]
mod simulated;

use std::collections::BTreeSet;
use std::time::Duration;

use driftless::error::{PeerFault, WriteError};
use driftless::node::{CloseCode, Event, Level, Mark};
use driftless::sim::{Action, Lie, Setting, SimCluster, Weather};
use driftless::store::KeyRef;
use simulated::{contexts, formed_from as formed, honest_joined as joined, ms, set};

/// All honest nodes have joined, know of the same members, and have seen the same.
fn converged(cluster: &SimCluster) -> bool {
    let known = |at| cluster.node(at).unwrap().members().live().map(|(replica, _)| replica).collect::<Vec<_>>();
    let seen: Vec<_> = cluster.honest().map(|at| (known(at), contexts(&cluster.store(at).unwrap()))).collect();
    joined(cluster) && seen.windows(2).all(|pair| pair[0] == pair[1])
}

fn calm() -> Setting {
    let weather = Weather { loss: 0.0, ..Weather::default() };
    Setting { weather, ..Setting::default() }
}

fn has(cluster: &SimCluster, at: usize, mark: Mark) -> bool {
    cluster.store(at).is_some_and(|store| store.read(mark.partition).unwrap().ctx().has(mark.dot))
}

fn refusals(cluster: &mut SimCluster, at: usize) -> Vec<PeerFault> {
    let fault = |event| if let Event::Refused { fault, .. } = event { Some(fault) } else { None };
    cluster.take_events(at).into_iter().filter_map(fault).collect()
}

/// Everything is well after the heal, within a time nobody may exceed.
fn heals(cluster: &mut SimCluster, within: Duration) {
    cluster.heal_everything();
    let took = cluster.run_until(within, converged);
    assert!(took.is_some(), "not converged {within:?} after the heal");
}

#[test]
fn a_clog_holds_what_is_sent_and_then_lets_all_of_it_through_at_once() {
    let mut cluster = formed(1, &Setting { nodes: 2, ..calm() });
    assert!(cluster.perform(Action::Clog { from: 0, to: 1, ms: 1_000 }));
    let marks: Vec<Mark> = (0..20)
        .map(|n| {
            cluster.run_for(ms(20));
            set(&mut cluster, 0, &format!("k{n}"), b"v").unwrap()
        })
        .collect();
    let back = set(&mut cluster, 1, "back", b"v").unwrap();
    cluster.run_for(ms(590));
    assert!(marks.iter().all(|mark| !has(&cluster, 1, *mark)) && has(&cluster, 0, back), "one way only");
    cluster.run_for(ms(20));
    assert!(marks.iter().all(|mark| has(&cluster, 1, *mark)), "all at once");
}

#[test]
fn frames_come_twice_and_do_no_harm_however_late_the_copy_is() {
    let weather = Weather { duplicate: 0.5, ..calm().weather };
    let mut cluster = formed(2, &Setting { nodes: 2, weather, compress: false, ..calm() });
    for n in 0..200 {
        set(&mut cluster, 0, &format!("k{}", n % 7), b"v").unwrap();
        cluster.run_for(ms(50));
    }
    cluster.run_for(ms(200_000));
    let traffic = |at: usize| cluster.node(at).unwrap().stats().peers[0].traffic;
    let (sent, came) = (traffic(0).frames_out, traffic(1).frames_in);
    assert!(came > sent + sent / 4 && came < sent * 2, "{sent} sent, {came} came");
    assert!(converged(&cluster));
    assert_eq!(cluster.node(1).unwrap().stats().log_records, 0, "nothing came back");
}

#[test]
fn a_cut_holds_one_way_until_it_heals() {
    let mut cluster = formed(3, &calm());
    assert!(!cluster.perform(Action::Cut { from: 4, to: 1 }), "places are taken modulo the hosts");
    assert!(cluster.perform(Action::Cut { from: 0, to: 1 }) && cluster.perform(Action::Cut { from: 0, to: 2 }));
    let (there, back) = (set(&mut cluster, 0, "a", b"v").unwrap(), set(&mut cluster, 1, "b", b"v").unwrap());
    cluster.run_for(ms(1_000));
    assert!(has(&cluster, 0, back) && !has(&cluster, 1, there) && !has(&cluster, 2, there));
    cluster.run_for(ms(10_000));
    assert!(!has(&cluster, 1, there) && !has(&cluster, 2, there));
    assert!(cluster.perform(Action::Heal));
    assert!(cluster.run_until(ms(5_000), converged).is_some());
}

#[test]
fn halves_are_cut_both_ways() {
    let mut cluster = formed(4, &Setting { nodes: 4, ..calm() });
    assert!(!cluster.perform(Action::Split { at: 0 }) && cluster.perform(Action::Split { at: 2 }));
    let marks: Vec<Mark> = (0..4).map(|at| set(&mut cluster, at, "k", b"v").unwrap()).collect();
    cluster.run_for(ms(3_000));
    for at in 0..4 {
        let seen: Vec<bool> = marks.iter().map(|mark| has(&cluster, at, *mark)).collect();
        assert_eq!(seen, if at < 2 { [true, true, false, false] } else { [false, false, true, true] });
    }
    heals(&mut cluster, ms(5_000));
}

#[test]
fn a_slow_host_makes_its_peers_coalesce_instead_of_queueing() {
    let mut cluster = formed(5, &Setting { nodes: 2, compress: false, ..calm() });
    assert!(cluster.perform(Action::Slow { at: 1, bytes_per_ms: 4 }));
    let before = cluster.node(0).unwrap().stats().peers[0].traffic.frames_out;
    for n in 0..2_000_u32 {
        let _mark = set(&mut cluster, 0, "hot", &[7; 500]).unwrap();
        cluster.run_for(ms(5));
        let queued = cluster.gauges(0).unwrap().of("queued bytes of a link").unwrap();
        assert!(queued.size <= queued.max, "at write {n}: {queued:?}");
    }
    let high = cluster.gauges_high(0).unwrap().of("queued bytes of a link").unwrap();
    assert!(high.size > 4_000, "it is slow enough to matter: {high:?}");
    let frames = cluster.node(0).unwrap().stats().peers[0].traffic.frames_out - before;
    assert!(frames < 400, "{frames} frames for 2,000 writes of one key");
    assert!(cluster.node(1).unwrap().stats().joined && cluster.node(1).unwrap().stats().peers.len() == 1);
    assert!(cluster.perform(Action::Slow { at: 1, bytes_per_ms: 0 }));
    assert!(cluster.run_until(ms(2_000), converged).is_some());
}

#[test]
fn changed_bytes_are_refused_and_nothing_of_them_is_left() {
    let weather = Weather { corrupt: 0.02, ..calm().weather };
    let mut cluster = formed(6, &Setting { weather, ..calm() });
    let mut faults = Vec::new();
    for n in 0..600 {
        drop(set(&mut cluster, n % 3, &format!("k{}", n % 9), b"v"));
        cluster.run_for(ms(30));
        faults.extend((0..3).flat_map(|at| refusals(&mut cluster, at)).map(|fault| CloseCode::of(&fault)));
    }
    let kinds: BTreeSet<CloseCode> = faults.iter().copied().collect();
    assert!(kinds.contains(&CloseCode::Malformed) && kinds.len() > 1, "{kinds:?}");
    heals(&mut cluster, ms(5_000));
    for at in 0..3 {
        let spaces = cluster.store(at).unwrap().spaces().snapshot();
        assert_eq!(spaces.iter().map(|space| space.name()).collect::<Vec<_>>(), ["customs", "registers"]);
    }
}

#[test]
fn a_clock_ten_years_ahead_is_refused_and_poisons_nobody() {
    let mut cluster = formed(7, &calm());
    cluster.perform(Action::Skew { at: 2, ms: 315_360_000_000 });
    drop(set(&mut cluster, 2, "k", b"from the future"));
    cluster.run_for(ms(5_000));
    for at in [0, 1] {
        assert!(set(&mut cluster, at, "k", b"now").is_ok());
        let ahead = cluster.store(at).unwrap().clock().last().ms().saturating_sub(cluster.true_ms());
        assert!(ahead <= 1_000, "{ahead} ms");
    }
    assert!(matches!(set(&mut cluster, 2, "k", b"v"), Err(WriteError::ClockRefused { .. })));
    assert_eq!(cluster.doomed(), [2]);
    heals(&mut cluster, ms(10_000));
    assert!(set(&mut cluster, 2, "k", b"v").is_ok());
}

#[test]
fn a_clock_that_jumps_back_goes_on_counting() {
    let mut cluster = formed(8, &calm());
    let stamp = |cluster: &SimCluster| cluster.store(0).unwrap().clock().last();
    for skew_ms in [9_000, -3_600_000, 500, -9_000] {
        let before = stamp(&cluster);
        cluster.perform(Action::Skew { at: 0, ms: skew_ms });
        drop(set(&mut cluster, 0, "k", b"v"));
        assert!(stamp(&cluster) > before, "{skew_ms}");
        cluster.run_for(ms(300));
    }
    heals(&mut cluster, ms(20_000));
}

#[test]
fn a_pause_of_ten_minutes_is_a_silence_and_costs_little() {
    for pause_ms in [600_000, 599_999] {
        let mut cluster = formed(9, &Setting { nodes: 4, ..calm() });
        assert!(cluster.perform(Action::Pause { at: 3, ms: pause_ms }));
        assert!(!cluster.perform(Action::Pause { at: 3, ms: 1 }) && !cluster.perform(Action::Stop { at: 3 }));
        assert_eq!(set(&mut cluster, 3, "k", b"v"), Err(WriteError::NotJoined));
        let mono = cluster.now(3).mono;
        cluster.run_for(ms(u64::from(pause_ms) - 1));
        let me = cluster.node(3).unwrap().me().clone();
        let down = Event::Unreachable { node: me.node, region: me.region, replica: me.replica };
        assert!(cluster.take_events(0).contains(&down) && cluster.take_events(3).is_empty());
        cluster.run_for(ms(1));
        let slept = cluster.now(3).mono.since(mono);
        assert!(!cluster.is_paused(3) && (slept < ms(10)) == pause_ms.is_multiple_of(2), "{slept:?}");
        assert_eq!(cluster.now(3).wall_ms, cluster.now(0).wall_ms, "its wall clock is right");
        assert!(set(&mut cluster, 3, "k", b"v").is_ok() && set(&mut cluster, 0, "k", b"v").is_ok());
        assert!(
            cluster.run_until(ms(10_000), |c| converged(c) && c.node(0).unwrap().stats().peers.len() == 3).is_some()
        );
    }
}

#[test]
fn a_process_that_is_stopped_flushes_what_was_written_and_is_gone() {
    let mut cluster = formed(10, &calm());
    let marks: Vec<Mark> = (0..300).map(|n| set(&mut cluster, 0, &format!("k{n}"), &[1; 2_000]).unwrap()).collect();
    assert!(cluster.perform(Action::Stop { at: 0 }) && !cluster.is_running(0));
    assert!(!cluster.perform(Action::Stop { at: 0 }) && !cluster.perform(Action::Crash { at: 0 }));
    cluster.run_for(ms(3_000));
    assert!(marks.iter().all(|mark| has(&cluster, 1, *mark) && has(&cluster, 2, *mark)));
    assert!(cluster.perform(Action::Start { at: 0 }));
    assert!(cluster.run_until(ms(10_000), converged).is_some(), "it comes back under a new id");
    assert_eq!(cluster.node(1).unwrap().members().live().count(), 3);
}

#[test]
fn hosts_of_a_later_version_are_understood() {
    for newer in [0b001, 0b110, 0b111] {
        let mut cluster = formed(15, &Setting { newer, ..calm() });
        assert_eq!((0..3).map(|at| u64::from(cluster.is_newer(at)) << at).sum::<u64>(), newer);
        let marks: Vec<Mark> = (0..3).map(|at| set(&mut cluster, at, "k", b"v").unwrap()).collect();
        cluster.run_for(ms(1_000));
        assert!((0..3).all(|at| marks.iter().all(|mark| has(&cluster, at, *mark))));
        assert!((0..3).all(|at| refusals(&mut cluster, at).is_empty()));
    }
}

#[test]
fn a_log_that_is_cut_is_made_up_for_by_full_synchronisations() {
    let mut cluster = formed(16, &calm());
    cluster.perform(Action::Isolate { at: 2 });
    (0..40).for_each(|n| drop(set(&mut cluster, 0, &format!("k{n}"), b"v")));
    cluster.run_for(ms(3_000));
    assert!(
        cluster.perform(Action::Truncate { at: 0, keep: 3 }) && cluster.perform(Action::Truncate { at: 1, keep: 3 })
    );
    assert!(cluster.node(0).unwrap().stats().log_records <= 6 && !cluster.perform(Action::Truncate { at: 2, keep: 3 }));
    let before = cluster.node(2).unwrap().stats().full_syncs;
    heals(&mut cluster, ms(5_000));
    assert!(cluster.node(2).unwrap().stats().full_syncs > before);
}

#[test]
fn a_keyspace_has_its_budget_and_entries_give_memory_back() {
    let mut cluster = formed(17, &Setting { keyspace_bytes: 20_000, ..calm() });
    let full = (0..100).find_map(|n| set(&mut cluster, 0, &format!("k{n}"), &[5; 1_000]).err());
    assert!(matches!(full, Some(WriteError::OverCapacity { .. })));
    assert!(cluster.run_until(ms(5_000), converged).is_some(), "others take what one admitted");
    cluster.run_for(ms(15_000));
    let store = cluster.store(0).unwrap();
    let space = store.spaces().find("registers").unwrap();
    let used = space.used();
    for n in 0..20 {
        cluster.evict(0, &KeyRef::new(&space, format!("k{n}").as_bytes()));
    }
    assert!(space.used() < used / 4 && set(&mut cluster, 0, "new", b"v").is_ok());
}

#[test]
fn a_liar_is_refused_and_harms_nobody_honest() {
    for (lie, seed) in Lie::ALL.iter().copied().zip(17..) {
        let mut cluster = formed(seed, &Setting { nodes: 4, liars: 0b1000, ..calm() });
        assert!(!cluster.perform(Action::Forge { at: 0, lie }), "honest hosts do not lie");
        let mut faults = Vec::new();
        for n in 0..40 {
            set(&mut cluster, n % 3, &format!("k{}", n % 5), b"v").unwrap();
            cluster.perform(Action::Forge { at: 3, lie });
            cluster.run_for(ms(250));
            faults.extend((0..3).flat_map(|at| refusals(&mut cluster, at)));
            assert_eq!((0..3).find_map(|at| cluster.gauges(at)?.over()), None, "{lie:?}");
        }
        let expected = |fault: &PeerFault| match lie {
            Lie::Report => matches!(fault, PeerFault::Forged { .. }),
            Lie::Events => matches!(fault, PeerFault::Forged { .. } | PeerFault::Malformed { .. }),
            Lie::Origin => matches!(fault, PeerFault::Identity { .. }),
            Lie::Noise | Lie::Garbled | Lie::Hello => !matches!(fault, PeerFault::ClockDrift { .. }),
            Lie::Flood => matches!(fault, PeerFault::Malformed { .. }),
            Lie::TornContext => matches!(fault, PeerFault::OverLimit { .. }),
            Lie::HugeContext | Lie::Piece | Lie::Clock => false,
        };
        assert!(faults.iter().all(expected), "{lie:?}: {faults:?}");
        assert_eq!(faults.is_empty(), matches!(lie, Lie::HugeContext | Lie::Piece | Lie::Clock), "{lie:?}");
        assert_eq!(cluster.honest().collect::<Vec<_>>(), [0, 1, 2]);
        assert!(cluster.run_until(ms(5_000), converged).is_some(), "{lie:?}: the honest agree");
        let up = |at: usize| cluster.node(at).unwrap().stats().peers.iter().filter(|peer| peer.up).count();
        assert!((0..3).all(|at| up(at) >= 2), "{lie:?}: their links are untouched");
        heals(&mut cluster, ms(10_000));
        assert!(cluster.is_honest(3) && cluster.honest().count() == 4, "{lie:?}: its machine is installed anew");
    }
}

#[test]
fn waits_end_as_the_receipts_of_the_shell_do() {
    let mut cluster = formed(30, &calm());
    let mark = set(&mut cluster, 0, "k", b"v").unwrap();
    let all = cluster.wait(0, mark, Level::All, ms(1_000));
    assert!(cluster.run_until(ms(1_000), |c| c.outcome(0, all).is_some()).is_some());
    assert!(cluster.outcome(0, all).unwrap().reached);
}

/// A run with everything in it.
fn storm(seed: u64) -> SimCluster {
    let mut rng = fastrand::Rng::with_seed(seed);
    let weather = Weather { loss: 0.1, duplicate: 0.3, corrupt: 0.005, ..Weather::default() };
    let setting = Setting { nodes: 4, spare: 1, weather, newer: 0b10, liars: 0b1000, ..Setting::default() };
    let mut cluster = SimCluster::from_setting(seed, &setting).unwrap();
    cluster.run_for(ms(2_000));
    for step in 0..150 {
        let (at, to) = (rng.u8(..6), rng.u8(..6));
        if cluster.is_honest(usize::from(at)) {
            drop(set(&mut cluster, usize::from(at), &format!("k{}", rng.u8(..8)), &[at, step]));
        }
        cluster.run_for(ms(rng.u64(..60)));
        cluster.perform(match rng.u8(..60) {
            0 => Action::Cut { from: at, to },
            1 => Action::Isolate { at },
            2 => Action::Split { at },
            3 => Action::Heal,
            4 => Action::Clog { from: at, to, ms: rng.u16(..5_000) },
            5 => Action::Slow { at, bytes_per_ms: rng.u16(..100) },
            6 => Action::Skew { at, ms: rng.i64(-10_000..10_000) },
            7 => Action::Skew { at, ms: 3_600_000 * rng.i64(1..80_000) },
            8 => Action::Pause { at, ms: rng.u32(..20_000) },
            9 => Action::Crash { at },
            10 => Action::CrashDonor { of: at },
            11 => Action::Stop { at },
            12 | 13 => Action::Start { at },
            14 => Action::Clone { of: at },
            15 => Action::Remove { by: at, at: to },
            16 => Action::Truncate { at, keep: rng.u8(..20) },
            17..24 => Action::Forge { at: 3, lie: *rng.choice(Lie::ALL).unwrap() },
            _ => Action::Rest,
        });
        assert_eq!((0..cluster.host_count()).find_map(|at| cluster.gauges(at)?.over()), None, "seed {seed}");
    }
    cluster
}

#[test]
fn everything_together_heals() {
    for seed in 0..40 {
        let mut cluster = storm(seed);
        cluster.heal_everything();
        let healed = |c: &SimCluster| converged(c) && c.honest().filter(|at| *at < 4).count() == 4;
        assert!(cluster.run_until(ms(40_000), healed).is_some(), "seed {seed}");
    }
}

#[test]
fn everything_together_is_the_same_for_the_same_seed() {
    for seed in [1, 2, 3] {
        assert_eq!(storm(seed).trace(), storm(seed).trace());
    }
    assert_ne!(storm(1).trace(), storm(2).trace());
}
