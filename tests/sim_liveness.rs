//! Who can be reached, judged by whole clusters in virtual time: what each node says when others crash, when paths are
//! cut one way or both, when it is alone, and that nobody is declared gone who is not.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;

use std::time::Duration;

use driftless::Event;
use driftless::config::MembershipConfig;
use driftless::id::{ReplicaId, Role};
use driftless::membership::{Reach, Status};
use driftless::node::{Belonging, ClusterView, Input, MemberView, RegionView};
use driftless::sim::{Action, SimCluster, SimConfig, Weather};
use simulated::{ms, set};

/// A cluster that has formed, of regions 150 ms apart there and back.
fn formed(seed: u64, nodes: usize, loss: f64) -> SimCluster {
    let weather = Weather { delay_min: ms(70), delay_max: ms(80), loss, ..Weather::default() };
    formed_of(seed, SimConfig { nodes, weather, ..SimConfig::default() })
}

fn formed_of(seed: u64, config: SimConfig) -> SimCluster {
    let nodes = config.nodes;
    let mut cluster = SimCluster::new(seed, config).unwrap();
    let linked = |c: &SimCluster| (0..nodes).all(|at| c.node(at).unwrap().stats().peers.len() == nodes - 1);
    assert!(cluster.run_until(ms(20_000), linked).is_some(), "seed {seed}: the cluster forms");
    cluster.run_for(ms(3_000 + seed * 7));
    (0..nodes).for_each(|at| drop(cluster.take_events(at)));
    cluster
}

fn replica(cluster: &SimCluster, at: usize) -> ReplicaId {
    cluster.replica(at).unwrap()
}

/// What `at` knows of whether `of` can be reached.
fn reach(cluster: &SimCluster, at: usize, of: ReplicaId) -> Option<Reach> {
    cluster.node(at).unwrap().reach(of)
}

fn declared(cluster: &mut SimCluster, at: usize) -> usize {
    cluster.take_events(at).iter().filter(|event| matches!(event, Event::Unreachable { .. })).count()
}

#[test]
fn all_survivors_agree_within_a_second_that_a_node_is_gone() {
    let mut took: Vec<Duration> = Vec::new();
    for seed in 0..40 {
        let mut cluster = formed(seed, 5, 0.01);
        let gone = replica(&cluster, 4);
        cluster.crash(4);
        let agree = |c: &SimCluster| (0..4).all(|at| reach(c, at, gone) == Some(Reach::Unreachable));
        took.push(cluster.run_until(ms(5_000), agree).unwrap_or(Duration::MAX));
        assert!((0..4).all(|at| declared(&mut cluster, at) == 1), "seed {seed}: each says so once, and of nobody else");
        cluster.start(4).unwrap();
        let back = cluster.run_until(ms(20_000), |c| {
            let again = replica(c, 4);
            (0..4).all(|at| reach(c, at, again) == Some(Reach::Up) && reach(c, at, gone).is_none())
        });
        assert!(back.is_some(), "seed {seed}: its next copy takes its place");
    }
    took.sort_unstable();
    assert!(took[20] <= ms(650) && took[39] <= ms(750), "{took:?}");
}

/// How long all survivors of five take to agree that a node is gone, 150 ms apart there and back, with each preset.
#[test]
fn every_preset_notices_a_death_when_it_says() {
    let presets = [
        (MembershipConfig::fast(), 350, 600),
        (MembershipConfig::lan(), 150, 500),
        (MembershipConfig::relaxed(), 15_000, 20_500),
        (MembershipConfig::slow(), 30_000, 40_500),
    ];
    for (membership, least, most) in presets {
        for seed in 0..10 {
            let weather = Weather { delay_min: ms(70), delay_max: ms(80), loss: 0.0, ..Weather::default() };
            let mut config = SimConfig { nodes: 5, weather, ..SimConfig::default() };
            config.node.membership = membership.clone();
            let mut cluster = formed_of(seed, config);
            let gone = replica(&cluster, 4);
            cluster.crash(4);
            let agree = |c: &SimCluster| (0..4).all(|at| reach(c, at, gone) == Some(Reach::Unreachable));
            let took = cluster.run_until(ms(60_000), agree).unwrap();
            let beat = membership.beat_every;
            assert!(took + beat >= ms(least) && took <= ms(most), "{membership:?}, seed {seed}: {took:?}");
        }
    }
}

#[test]
fn a_path_that_is_cut_is_told_from_a_node_that_is_gone() {
    for one_way in [true, false] {
        let mut cluster = formed(1, 3, 0.0);
        cluster.cut_one_way(1, 0);
        if !one_way {
            cluster.cut_one_way(0, 1);
        }
        cluster.run_for(ms(1_400));
        let (zero, one) = (replica(&cluster, 0), replica(&cluster, 1));
        assert_eq!(reach(&cluster, 0, one), Some(Reach::Cut), "one way: {one_way}");
        assert_eq!(reach(&cluster, 1, zero), Some(if one_way { Reach::Up } else { Reach::Cut }));
        assert!((0..3).all(|at| declared(&mut cluster, at) == 0), "2 hears both");
        cluster.heal();
        let healed = |c: &SimCluster| reach(c, 0, one) == Some(Reach::Up) && reach(c, 1, zero) == Some(Reach::Up);
        assert!(cluster.run_until(ms(10_000), healed).is_some());
    }
}

#[test]
fn a_node_that_is_alone_says_so_and_declares_nobody() {
    let mut cluster = formed(2, 4, 0.0);
    let alone = replica(&cluster, 0);
    cluster.isolate(0);
    cluster.run_for(ms(60_000));
    assert!(cluster.node(0).unwrap().is_isolated());
    let events = cluster.take_events(0);
    assert!(events.contains(&Event::Isolated) && !events.iter().any(|e| matches!(e, Event::Unreachable { .. })));
    for at in 1..4 {
        assert_eq!(declared(&mut cluster, at), 1);
        assert_eq!(reach(&cluster, at, alone), Some(Reach::Unreachable));
    }
    cluster.heal();
    let back =
        |c: &SimCluster| !c.node(0).unwrap().is_isolated() && (1..4).all(|at| reach(c, at, alone) == Some(Reach::Up));
    assert!(cluster.run_until(ms(10_000), back).is_some());
    assert!(cluster.take_events(0).contains(&Event::NotIsolated));
}

fn view(cluster: &SimCluster, at: usize) -> ClusterView {
    cluster.node(at).unwrap().cluster()
}

/// What a node says of itself, and of its region.
fn itself(cluster: &SimCluster, at: usize) -> (MemberView, RegionView) {
    let view = view(cluster, at);
    let me = view.members.iter().find(|member| member.is_me).unwrap();
    let region = view.regions().into_iter().find(|region| region.region == me.region).unwrap();
    (me.clone(), region)
}

#[test]
fn a_node_that_is_alone_shows_that_of_itself() {
    let mut cluster = formed(2, 4, 0.0);
    let (me, region) = itself(&cluster, 0);
    assert!(me.takes_writes && !me.isolated && !region.isolated && region.takes_writes);
    assert_eq!((me.status(), region.status), (Status::Well, Status::Well));
    cluster.isolate(0);
    cluster.run_for(ms(2_000));
    let (me, region) = itself(&cluster, 0);
    assert!(me.isolated && region.isolated && region.takes_writes, "it still writes");
    assert_eq!((me.reach, me.status(), region.status), (Reach::Up, Status::Degraded, Status::Degraded));
    cluster.heal();
    assert!(cluster.run_until(ms(10_000), |c| itself(c, 0).0.status() == Status::Well).is_some());
}

#[test]
fn a_node_whose_clock_is_refused_shows_that_it_takes_no_writes() {
    let mut cluster = formed(2, 3, 0.0);
    cluster.set_skew_ms(0, 3_600_000);
    drop(set(&mut cluster, 0, "k", b"from the future"));
    cluster.run_for(ms(5_000));
    assert!(cluster.take_events(0).iter().any(|event| matches!(event, Event::ClockRefused { .. })));
    let (me, region) = itself(&cluster, 0);
    assert!(!me.takes_writes && !region.takes_writes);
    assert_eq!((me.role, me.status()), (Role::Active, Status::Degraded), "its part is the same");
}

#[test]
fn a_node_that_was_removed_knows_of_nobody_until_it_is_back() {
    let mut cluster = formed(4, 4, 0.0);
    let reaches = |c: &SimCluster| {
        let view = view(c, 3);
        (view.belonging, view.members.iter().map(|member| member.reach).collect::<Vec<_>>())
    };
    assert_eq!(reaches(&cluster), (Belonging::Member, vec![Reach::Up; 4]));
    assert!(cluster.perform(Action::Remove { by: 0, at: 3 }));
    let told = |c: &SimCluster| view(c, 3).belonging == Belonging::Removed;
    assert!(cluster.run_until(ms(2_000), told).is_some());
    assert_eq!(reaches(&cluster).1, [Reach::Suspected; 3], "at once");
    cluster.run_for(ms(600_000));
    assert_eq!(reaches(&cluster), (Belonging::Removed, vec![Reach::Suspected; 3]));
    assert_eq!(reach(&cluster, 3, replica(&cluster, 0)), None);
    assert!(cluster.perform(Action::Rejoin { at: 3 }));
    let back = (Belonging::Member, vec![Reach::Up; 4]);
    assert!(cluster.run_until(ms(20_000), |c| reaches(c) == back).is_some(), "{:?}", reaches(&cluster));
}

/// Nobody looks while it is out, nor while it is no member.
#[test]
fn a_region_that_was_given_up_and_is_back_under_another_id_shows_since_when() {
    let mut cluster = formed(5, 3, 0.0);
    let gone = replica(&cluster, 2);
    let region = itself(&cluster, 2).0.region;
    let shown = |c: &SimCluster| view(c, 0).regions().into_iter().find(|shown| shown.region == region);
    assert_eq!(shown(&cluster).unwrap().recovery, None);
    cluster.crash(2);
    cluster.run_for(ms(5_000));
    cluster.input(0, Input::Remove { replica: gone });
    cluster.run_for(ms(5_000));
    assert_eq!(shown(&cluster), None);
    cluster.start(2).unwrap();
    assert!(cluster.run_until(ms(20_000), |c| shown(c).is_some_and(|shown| shown.reach == Reach::Up)).is_some());
    let well_for = |c: &SimCluster| shown(c).unwrap().recovery.unwrap().well_for(view(c, 0).at);
    assert!(well_for(&cluster) < ms(1_000), "{:?}", well_for(&cluster));
    cluster.run_for(ms(30_200));
    assert!((ms(30_000)..ms(31_000)).contains(&well_for(&cluster)), "{:?}", well_for(&cluster));
    let others = view(&cluster, 0).regions().into_iter().filter(|other| other.region != region);
    assert!(others.into_iter().all(|other| other.recovery.is_none()));
}

#[test]
fn two_halves_declare_each_other_and_of_two_nodes_each_the_other() {
    let mut cluster = formed(3, 4, 0.0);
    let ids: Vec<ReplicaId> = (0..4).map(|at| replica(&cluster, at)).collect();
    assert!(cluster.perform(Action::Split { at: 2 }));
    cluster.run_for(ms(1_500));
    for (at, others) in [(0, [2, 3]), (1, [2, 3]), (2, [0, 1]), (3, [0, 1])] {
        assert!(others.iter().all(|other| reach(&cluster, at, ids[*other]) == Some(Reach::Unreachable)), "{at}");
    }
    let mut pair = formed(3, 2, 0.0);
    let other = replica(&pair, 1);
    pair.isolate(1);
    let took = pair.run_until(ms(5_000), |c| reach(c, 0, other) == Some(Reach::Unreachable)).unwrap();
    assert!((ms(600)..ms(900)).contains(&took), "{took:?}: longer than where there is somebody to ask");
    assert!(!pair.node(0).unwrap().is_isolated());
}

#[test]
fn loss_alone_makes_nobody_unreachable() {
    for (seed, loss) in [(1, 0.01), (2, 0.05), (3, 0.05)] {
        let mut cluster = formed(seed, 5, loss);
        cluster.run_for(ms(600_000));
        assert!((0..5).all(|at| declared(&mut cluster, at) == 0), "seed {seed}, {loss}");
    }
}

/// A host that stood still heard nobody, and that was its own fault.
#[test]
fn who_stood_still_accuses_nobody() {
    let mut cluster = formed(4, 4, 0.0);
    assert!(cluster.perform(Action::Pause { at: 3, ms: 5_000 }));
    cluster.run_for(ms(15_000));
    assert_eq!(declared(&mut cluster, 3), 0);
    assert!((0..3).all(|at| declared(&mut cluster, at) == 1));
    let slept = replica(&cluster, 3);
    assert!((0..3).all(|at| reach(&cluster, at, slept) == Some(Reach::Up)));
}

/// Hosts away for a quarter of a minute, where members are given up after ten seconds.
#[test]
fn a_majority_gives_up_who_is_gone_for_too_long_and_half_gives_up_nobody() {
    for (nodes, apart, gone) in [(3, 1, true), (5, 2, true), (4, 2, false), (2, 1, false)] {
        let weather = Weather { loss: 0.0, ..Weather::default() };
        let mut config = SimConfig { nodes, weather, ..SimConfig::default() };
        config.node.membership.forget_after = Some(ms(10_000));
        let mut cluster = formed_of(1, config);
        let away: Vec<ReplicaId> = (0..apart).map(|at| replica(&cluster, at)).collect();
        assert!(cluster.perform(Action::Split { at: u8::try_from(apart).unwrap() }));
        cluster.run_for(ms(10_000));
        let is_member = |c: &SimCluster, at: usize, of: ReplicaId| c.node(at).unwrap().members().get(of).is_some();
        assert!(
            (0..nodes).all(|at| away.iter().all(|of| is_member(&cluster, at, *of))),
            "{nodes}: not before the time"
        );
        cluster.run_for(ms(2_000));
        for at in apart..nodes {
            assert!(away.iter().all(|of| is_member(&cluster, at, *of) != gone), "{nodes}: seen by the larger part");
        }
        for at in 0..nodes {
            let told = cluster.take_events(at).iter().filter(|e| matches!(e, Event::NotGivenUp { .. })).count();
            let alone = at < apart && apart == 1 && nodes > 2;
            let other = if at < apart { nodes - apart } else { apart };
            let decided = alone || (at >= apart && gone);
            assert_eq!(
                told,
                if decided { 0 } else { other },
                "{at} of {nodes} tells once of each that it cannot give up"
            );
        }
        let here: Vec<ReplicaId> = (apart..nodes).map(|at| replica(&cluster, at)).collect();
        assert!((0..apart).all(|at| here.iter().all(|of| is_member(&cluster, at, *of))), "{nodes}: a minority waits");
        cluster.heal();
        cluster.run_for(ms(10_000));
        for at in 0..apart {
            assert_eq!(cluster.take_events(at).contains(&Event::Removed), gone, "{nodes}: who was given up is told");
        }
    }
}

/// Who was started again has no vote on one that it has never heard, and what it was before is missed.
#[test]
fn a_restart_meanwhile_leaves_an_absence_to_the_operator_who_is_told() {
    let mut config = SimConfig { nodes: 3, ..SimConfig::default() };
    config.weather.loss = 0.0;
    config.node.membership.forget_after = Some(ms(10_000));
    let mut cluster = formed_of(1, config);
    let gone = replica(&cluster, 2);
    cluster.crash(2);
    cluster.run_for(ms(3_000));
    cluster.crash(1);
    cluster.start(1).unwrap();
    cluster.run_for(ms(20_000));
    let told: Vec<Event> = (0..2).flat_map(|at| cluster.take_events(at)).collect();
    let undecided = |e: &&Event| matches!(e, Event::NotGivenUp { replica, votes: 1, of: 3, .. } if *replica == gone);
    assert_eq!(told.iter().filter(undecided).count(), 1, "by the one that has a vote");
    assert!(!told.iter().any(|e| matches!(e, Event::GivenUp { .. })));
    assert!((0..2).all(|at| cluster.node(at).unwrap().members().get(gone).is_some()));
}
