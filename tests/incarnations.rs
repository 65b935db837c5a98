//! Nodes that are started again and again: what they were before piles up nowhere.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;

use std::collections::BTreeSet;

use driftless::crdt::Ctx;
use driftless::id::ReplicaId;
use driftless::sim::{SimCluster, SimConfig, Weather};
use driftless::wire::{Control, Encoder};
use driftless::{Departure, Event};
use simulated::{joined, ms, set};

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

/// What every node has seen, the same everywhere.
fn seen(cluster: &SimCluster) -> Option<Vec<Ctx>> {
    let of = |at: usize| {
        let store = cluster.store(at).unwrap();
        store.partition_ids().map(|id| store.read(id).unwrap().ctx().clone()).collect::<Vec<_>>()
    };
    (0..cluster.len()).all(|at| of(at) == of(0)).then(|| of(0))
}

/// How many replicas a node names: in its member set, and in a context.
fn named(cluster: &SimCluster, at: usize) -> (usize, usize) {
    let (node, store) = (cluster.node(at).unwrap(), cluster.store(at).unwrap());
    let of = |id| {
        let p = store.read(id).unwrap();
        [p.ctx(), p.floor(), p.frontier()].map(Ctx::len).into_iter().max().unwrap()
    };
    let members: BTreeSet<ReplicaId> = node.members().replicas().collect();
    (members.len(), store.partition_ids().map(of).max().unwrap())
}

/// Bytes of what a node says of members and contexts when it says hello.
fn said(cluster: &SimCluster, at: usize) -> usize {
    let (node, store) = (cluster.node(at).unwrap(), cluster.store(at).unwrap());
    let ctxs = store.partition_ids().map(|id| (id, store.read(id).unwrap().ctx().clone())).collect();
    let ready = Control::Ready { members: node.members().clone(), ctxs };
    Encoder::default().without_compression().encode_control(&ready).unwrap().len()
}

/// Ten thousand in a release build.
#[test]
fn restarts_without_end_leave_a_floor_and_a_mark_of_each_node_behind() {
    let rounds = if cfg!(debug_assertions) { 500 } else { 10_000 };
    let mut cluster = formed(1);
    let (mut most, mut longest) = ((0, 0), 0);
    for round in 0..rounds {
        restart(&mut cluster, round % 3);
        set(&mut cluster, round % 3, &format!("k{}", round % 40), "v").unwrap();
        cluster.run_for(ms(100));
        for at in 0..cluster.len() {
            let (members, context) = named(&cluster, at);
            most = (members.max(most.0), context.max(most.1));
            longest = said(&cluster, at).max(longest);
        }
        (0..cluster.len()).for_each(|at| drop(cluster.take_events(at)));
    }
    assert!(most.0 <= 9 && most.1 <= 12 && longest <= 1_500, "{most:?} replicas named, {longest} bytes said");
    let mut folded = |c: &SimCluster| {
        seen(c).is_some_and(|ctxs| ctxs.iter().all(|ctx| ctx.foldable(&c.node(0).unwrap().members().floors).is_empty()))
    };
    assert!(cluster.run_until(ms(30_000), &mut folded).is_some(), "all have seen the same");
    cluster.run_for(ms(5_000));
    for at in 0..cluster.len() {
        let members = cluster.node(at).unwrap().members();
        assert_eq!((members.members.len(), members.removed.len(), members.floors.len()), (3, 0, 3));
        assert!(named(&cluster, at).1 <= 6, "a mark and the live one of each node");
    }
}

#[test]
fn nothing_is_folded_while_a_member_is_out_of_reach_and_all_of_it_when_it_is_back() {
    let mut cluster = formed(4);
    for at in 0..cluster.len() {
        set(&mut cluster, at, &format!("of r{at}"), "v").unwrap();
    }
    cluster.run_for(ms(500));
    let former = replica(&cluster, AWAY);
    cluster.isolate(0);
    cluster.start(AWAY).unwrap();
    cluster.run_for(ms(20_000));
    let is_marked = |c: &SimCluster, at: usize| {
        let store = c.store(at).unwrap();
        store.partition_ids().any(|id| store.read(id).unwrap().ctx().iter().any(|(_, seen)| seen.is_mark()))
    };
    assert!(cluster.node(1).unwrap().members().is_removed(former), "it was succeeded");
    assert!((0..3).all(|at| !is_marked(&cluster, at)), "r0 may have seen what nobody else has");
    cluster.heal();
    assert!(cluster.run_until(ms(10_000), |c| (0..3).all(|at| is_marked(c, at))).is_some());
    assert!(cluster.run_until(ms(10_000), |c| seen(c).is_some()).is_some());
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
        let told = removals.iter().filter(|event| matches!(event, Event::MemberRemoved { replica, how: Departure::Succeeded, .. } if *replica == former)).count();
        assert_eq!(told, 1, "seed {seed}: whoever goes is told of once");
    }
}
