//! Faults of membership: who joins late or from a donor that dies, is copied, is removed, or founded a cluster of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use driftless::error::WriteError;
use driftless::node::{Event, Mark};
use driftless::sim::{Action, Setting, SimCluster, Weather};

use crate::{calm, converged, formed, has, heals, joined, ms, set};

#[test]
fn a_spare_joins_and_goes_on_after_the_heal() {
    let mut cluster = formed(11, &Setting { spare: 1, ..calm() });
    set(&mut cluster, 0, "k", b"v").unwrap();
    assert!(!cluster.is_running(3) && !cluster.may_collect());
    assert!(cluster.perform(Action::Start { at: 3 }));
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    heals(&mut cluster, ms(5_000));
    assert!(cluster.run_until(ms(5_000), SimCluster::may_collect).is_some() && cluster.is_running(3));
    cluster.run_for(ms(15_000));
    assert!((0..4).all(|at| cluster.node(at).unwrap().stats().log_records == 0));
}

#[test]
fn a_joiner_whose_donor_dies_copies_another() {
    let mut crashed = 0;
    for seed in 0..10 {
        let mut cluster = formed(seed, &calm());
        (0..50).for_each(|n| drop(set(&mut cluster, n % 3, &format!("k{n}"), &[3; 3_000])));
        cluster.run_for(ms(1_000));
        assert!(!cluster.perform(Action::CrashDonor { of: 2 }), "it joined long ago");
        cluster.perform(Action::Crash { at: 2 });
        cluster.perform(Action::Start { at: 2 });
        while !cluster.perform(Action::CrashDonor { of: 2 }) {
            cluster.run_for(ms(1));
        }
        crashed += (0..2).filter(|at| !cluster.is_running(*at)).count();
        assert!(cluster.run_until(ms(10_000), converged).is_some(), "seed {seed}");
        heals(&mut cluster, ms(10_000));
    }
    assert_eq!(crashed, 10);
}

/// Returns whether the donor of a restarted node dies when it has given so many frames, and how many bytes everybody sends
/// until that node has everything again.
fn joined_by(donor_gives: u64) -> (bool, u64) {
    let mut cluster = formed(1, &Setting { partitions: 8, ..calm() });
    (0..80).for_each(|n| drop(set(&mut cluster, n % 3, &format!("k{n}"), &[3; 12_000])));
    cluster.run_for(ms(2_000));
    cluster.perform(Action::Crash { at: 2 });
    cluster.perform(Action::Start { at: 2 });
    cluster.perform(Action::Slow { at: 2, bytes_per_ms: 400 });
    cluster.take_delivered();
    let (mut frames, mut bytes) = (0, 0);
    while frames < donor_gives && !joined(&cluster) {
        cluster.run_for(ms(1));
        let more = cluster.take_delivered();
        (frames, bytes) = (frames + more.frames, bytes + more.bytes);
    }
    let dies = !joined(&cluster) && cluster.perform(Action::CrashDonor { of: 2 });
    assert!(cluster.run_until(ms(20_000), converged).is_some(), "after {donor_gives} frames");
    bytes += cluster.take_delivered().bytes;
    heals(&mut cluster, ms(10_000));
    (dies, bytes)
}

#[test]
fn a_donor_that_dies_after_any_of_its_frames_costs_the_partition_under_way() {
    let (_, undisturbed) = joined_by(u64::MAX);
    let deaths: Vec<u64> = (1..60).map(joined_by).take_while(|(dies, _)| *dies).map(|(_, bytes)| bytes).collect();
    assert!(deaths.len() > 12, "{deaths:?}");
    assert!(deaths.iter().all(|bytes| *bytes < undisturbed * 5 / 4), "{undisturbed}: {deaths:?}");
}

#[test]
fn a_clone_takes_the_place_of_the_older_process() {
    let mut cluster = formed(12, &calm());
    set(&mut cluster, 1, "k", b"v").unwrap();
    cluster.run_for(ms(1_000));
    let older = cluster.replica(1).unwrap();
    assert!(cluster.perform(Action::Clone { of: 1 }) && !cluster.perform(Action::Clone { of: 1 }));
    assert!(cluster.is_clone(3) && !cluster.perform(Action::Clone { of: 3 }));
    assert!(cluster.run_until(ms(10_000), |c| c.is_removed(1)).is_some());
    cluster.run_for(ms(2_000));
    let clone = cluster.replica(3).unwrap();
    let (told, told_clone) = (cluster.take_events(1), cluster.take_events(3));
    assert!(told.contains(&Event::Removed), "the older one is told");
    assert!(told.contains(&Event::Twin { replica: clone }), "and of whom there is instead");
    let twins = told_clone.iter().filter(|event| **event == Event::Twin { replica: older }).count();
    assert_eq!(twins, 1, "the clone is told that it is one, once");
    assert_eq!(set(&mut cluster, 1, "k", b"v"), Err(WriteError::Removed));
    assert!(set(&mut cluster, 3, "k", b"v").is_ok(), "the clone is the node now");
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    assert_eq!(cluster.doomed(), [1, 3]);
    heals(&mut cluster, ms(10_000));
    assert!(!cluster.is_running(3) && cluster.node(0).unwrap().members().is_removed(older));
    let live: BTreeSet<_> = cluster.node(0).unwrap().members().live().map(|(replica, _)| replica).collect();
    assert_eq!(live, (0..3).map(|at| cluster.replica(at).unwrap()).collect());
}

/// One list of addresses for all nodes is usual, so a clone may find its original, and nobody else.
#[test]
fn a_clone_that_finds_only_its_original_is_given_everything_before_it_takes_its_place() {
    let mut cluster = formed(21, &Setting { nodes: 1, seeds: vec![1], ..calm() });
    let mut marks: Vec<Mark> = (0..100).map(|n| set(&mut cluster, 0, &format!("k{n}"), b"v").unwrap()).collect();
    let older = cluster.replica(0).unwrap();
    assert!(cluster.perform(Action::Clone { of: 0 }));
    while let Ok(mark) = set(&mut cluster, 0, &format!("k{}", marks.len()), b"v") {
        marks.push(mark);
        cluster.run_for(ms(10));
        assert!(marks.len() < 5_000, "the older one goes on for ever");
    }
    assert!(cluster.run_until(ms(5_000), |c| c.is_removed(0)).is_some());
    cluster.run_for(ms(2_000));
    let clone = cluster.replica(1).unwrap();
    assert!(marks.iter().all(|mark| has(&cluster, 1, *mark)), "nothing that was accepted is lost");
    let (told, told_clone) = (cluster.take_events(0), cluster.take_events(1));
    assert!(told.contains(&Event::Removed) && told.contains(&Event::Twin { replica: clone }));
    assert_eq!(told_clone.iter().filter(|event| **event == Event::Twin { replica: older }).count(), 1);
    assert!(!told_clone.contains(&Event::Joined { founded: true }) && set(&mut cluster, 1, "k", b"v").is_ok());
}

#[test]
fn a_clone_that_ends_while_its_original_lets_it_in_is_forgotten() {
    let setting = Setting { nodes: 1, seeds: vec![1], ..calm() };
    let mut cluster = formed(22, &setting);
    set(&mut cluster, 0, "k", b"v").unwrap();
    assert!(cluster.perform(Action::Clone { of: 0 }));
    let members = |c: &SimCluster| c.node(0).unwrap().members().live().count();
    assert!(cluster.run_until(ms(10_000), |c| members(c) == 2).is_some());
    assert!(!cluster.node(1).unwrap().stats().joined && cluster.perform(Action::Crash { at: 1 }));
    assert!(set(&mut cluster, 0, "k", b"v").is_ok(), "nobody has its place yet");
    assert!(cluster.run_until(ms(70_000), |c| members(c) == 1).is_some(), "no level counts it any more");
    assert!(set(&mut cluster, 0, "k", b"v").is_ok());
}

#[test]
fn an_original_that_ends_before_it_makes_way_is_forgotten() {
    let mut cluster = formed(23, &Setting { nodes: 1, seeds: vec![1], ..calm() });
    let mark = set(&mut cluster, 0, "k", b"v").unwrap();
    assert!(cluster.perform(Action::Clone { of: 0 }));
    assert!(cluster.run_until(ms(10_000), |c| c.node(1).unwrap().stats().joined).is_some());
    let members = |c: &SimCluster| c.node(1).unwrap().members().live().count();
    assert_eq!(members(&cluster), 2);
    assert!(cluster.perform(Action::Crash { at: 0 }) && has(&cluster, 1, mark));
    assert!(cluster.run_until(ms(20_000), |c| members(c) == 1).is_some(), "no level counts it any more");
}

#[test]
fn a_removed_replica_is_told_refused_and_waited_for_no_more() {
    let mut cluster = formed(13, &calm());
    let mark = set(&mut cluster, 0, "k", b"v").unwrap();
    assert!(cluster.perform(Action::Isolate { at: 2 }));
    let lost = set(&mut cluster, 2, "lost", b"v").unwrap();
    cluster.run_for(ms(15_000));
    assert!(cluster.node(0).unwrap().stats().log_records > 0, "the third has to report it");
    assert!(!cluster.perform(Action::Remove { by: 2, at: 2 }) && cluster.perform(Action::Remove { by: 0, at: 2 }));
    assert!(!cluster.perform(Action::Remove { by: 0, at: 2 }), "once and for all");
    cluster.run_for(ms(15_000));
    for at in [0, 1] {
        assert_eq!(cluster.node(at).unwrap().members().live().count(), 2, "everybody hears it");
        assert_eq!(cluster.node(at).unwrap().stats().log_records, 0, "and waits no more");
    }
    assert!(set(&mut cluster, 2, "lost", b"zombie").is_ok(), "nobody could tell it yet");
    cluster.perform(Action::Heal);
    cluster.run_for(ms(5_000));
    assert!(cluster.take_events(2).contains(&Event::Removed));
    assert_eq!(set(&mut cluster, 2, "k", b"v"), Err(WriteError::Removed));
    assert!(has(&cluster, 0, mark) && !has(&cluster, 0, lost) && !has(&cluster, 1, lost));
    let dials = cluster.take_events(2).len();
    cluster.run_for(ms(10_000));
    assert_eq!((dials, cluster.take_events(2).len()), (0, 0), "it dials nobody any more");
    heals(&mut cluster, ms(10_000));
    assert_eq!(cluster.node(0).unwrap().members().live().count(), 3, "it is back under a new id");
}

#[test]
fn of_two_that_removed_each_other_the_lower_one_is_told_and_the_other_goes_on() {
    let mut cluster = formed(17, &Setting { nodes: 2, ..calm() });
    let lower = usize::from(cluster.replica(1) < cluster.replica(0));
    assert!(cluster.perform(Action::Isolate { at: 0 }));
    cluster.run_for(ms(3_000));
    assert!(cluster.perform(Action::Remove { by: 0, at: 1 }) && cluster.perform(Action::Remove { by: 1, at: 0 }));
    cluster.perform(Action::Heal);
    cluster.run_for(ms(5_000));
    assert!(cluster.take_events(lower).contains(&Event::Removed) && cluster.is_removed(lower));
    assert!(!cluster.take_events(1 - lower).contains(&Event::Removed));
    assert!(set(&mut cluster, 1 - lower, "k", b"v").is_ok());
}

#[test]
fn a_node_removed_by_its_own_operator_says_so_with_its_last_words() {
    let mut cluster = formed(14, &calm());
    let replica = cluster.replica(1).unwrap();
    cluster.input(1, driftless::node::Input::Remove { replica });
    cluster.run_for(ms(200));
    assert!([0, 2].iter().all(|at| cluster.node(*at).unwrap().members().is_removed(replica)));
    assert!(cluster.node(1).unwrap().stats().peers.is_empty());
}

#[test]
fn two_halves_that_had_met_before_each_founded_its_own_have_collected_nothing() {
    let delay = Duration::from_millis(100);
    let weather = Weather { delay_min: delay, delay_max: delay, ..calm().weather };
    let mut cluster = SimCluster::from_setting(19, &Setting { nodes: 2, weather, ..calm() }).unwrap();
    let one_joined = |c: &SimCluster| (0..2).any(|at| c.node(at).unwrap().stats().joined);
    assert!(cluster.run_until(ms(5_000), one_joined).is_some());
    assert!((0..2).all(|at| !cluster.node(at).unwrap().stats().peers.is_empty()), "they have met");
    cluster.perform(Action::Isolate { at: 0 });
    assert!(cluster.run_until(ms(10_000), joined).is_some(), "the other founds its own");
    let marks: Vec<Mark> = (0..2).map(|at| set(&mut cluster, at, &format!("of {at}"), b"v").unwrap()).collect();
    cluster.run_for(ms(20_000));
    cluster.perform(Action::Heal);
    assert!(cluster.run_until(ms(10_000), converged).is_some());
    assert!(marks.iter().all(|mark| has(&cluster, 0, *mark) && has(&cluster, 1, *mark)));
}

#[test]
fn nodes_that_never_joined_come_together_when_a_clock_is_right_again() {
    for seed in 20..30 {
        let mut cluster = SimCluster::from_setting(seed, &Setting { nodes: 2, ..calm() }).unwrap();
        cluster.perform(Action::Skew { at: u8::from(seed % 2 == 1), ms: 60_000 });
        cluster.run_for(ms(1_500));
        cluster.perform(Action::Skew { at: u8::from(seed % 2 == 1), ms: 0 });
        assert!(cluster.run_until(ms(20_000), joined).is_some(), "seed {seed}");
    }
}
