//! Nodes that are started again and again: what they were before piles up nowhere.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;

use driftless::Event;
use driftless::id::ReplicaId;
use driftless::sim::{SimCluster, SimConfig, Weather};
use simulated::{joined, ms};

const AWAY: usize = 2;

/// Everybody knows the same live members.
fn agreed(cluster: &SimCluster) -> bool {
    let live = |at| cluster.node(at).unwrap().members().live().map(|(replica, _)| replica).collect::<Vec<_>>();
    joined(cluster) && (0..cluster.len()).all(|at| live(at).len() == cluster.len() && live(at) == live(0))
}

fn formed(seed: u64) -> SimCluster {
    let weather = Weather { delay_min: ms(1), delay_max: ms(3), loss: 0.0, ..Weather::default() };
    let mut config = SimConfig { weather, ..SimConfig::default() };
    config.node.membership.max_drift = ms(3_600_000);
    config.node.replication.collect_after = ms(3 * 3_600_000);
    let mut cluster = SimCluster::new(seed, config).unwrap();
    assert!(cluster.run_until(ms(10_000), agreed).is_some(), "seed {seed}: the cluster forms");
    cluster
}

fn replica(cluster: &SimCluster, at: usize) -> ReplicaId {
    cluster.node(at).unwrap().me().replica
}

fn restart(cluster: &mut SimCluster, at: usize) {
    cluster.start(at).unwrap();
    assert!(cluster.run_until(ms(10_000), agreed).is_some(), "it joins again");
}

#[test]
fn restarts_leave_one_floor_behind() {
    let mut cluster = formed(1);
    for round in 0..60 {
        restart(&mut cluster, round % 3);
    }
    for at in 0..cluster.len() {
        let members = cluster.node(at).unwrap().members();
        assert_eq!((members.members.len(), members.removed.len(), members.floors.len()), (3, 0, 3));
    }
}

#[test]
fn a_process_whose_clock_went_back_is_told_of_its_floor_and_comes_back_above_it() {
    for seed in 0..8 {
        let mut cluster = formed(seed);
        for _ in 0..3 {
            restart(&mut cluster, AWAY);
        }
        let floor = *cluster.node(0).unwrap().members().floors.values().next().unwrap();
        let former = replica(&cluster, AWAY);
        cluster.set_skew_ms(AWAY, -1_800_000);
        cluster.start(AWAY).unwrap();
        let behind = replica(&cluster, AWAY);
        assert!(behind < floor && behind.tag() == floor.tag(), "seed {seed}: its clock has gone back");
        assert!(cluster.run_until(ms(10_000), agreed).is_some(), "seed {seed}: it comes back by itself");
        let events = cluster.take_events(AWAY);
        let returns = events.iter().filter(|event| matches!(event, Event::CameBack { .. })).count();
        assert!(returns <= 2 && replica(&cluster, AWAY) > former, "seed {seed}: {returns} returns");
        let removals = cluster.take_events(0);
        let told = removals.iter().filter(|event| **event == Event::MemberRemoved { replica: former }).count();
        assert_eq!(told, 1, "seed {seed}: whoever goes is told of once");
    }
}
