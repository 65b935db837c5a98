//! How whole clusters in virtual time come to know where everybody is and what part each plays: found through others, moved,
//! parted for long, standing in for each other, and meshes of up to fifty.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;

use driftless::Event;
use driftless::config::StandbyConfig;
use driftless::id::Role;
use driftless::membership::Reach;
use driftless::sim::{Action, SimCluster, SimConfig, Weather};
use simulated::ms;

/// Hosts that each know the one before, and the first the second.
fn chain(nodes: usize) -> SimConfig {
    let weather = Weather { delay_min: ms(70), delay_max: ms(80), loss: 0.0, ..Weather::default() };
    SimConfig {
        nodes,
        seeds: (0..nodes).map(|at| 1 << at.saturating_sub(1)).collect(),
        weather,
        ..SimConfig::default()
    }
}

fn is_mesh(c: &SimCluster) -> bool {
    let nodes = || (0..c.len()).filter_map(|at| c.node(at));
    nodes().all(|one| nodes().all(|other| one.me() == other.me() || one.is_linked(other.me().replica)))
}

fn formed(seed: u64, config: SimConfig) -> SimCluster {
    let mut cluster = SimCluster::new(seed, config).unwrap();
    assert!(cluster.run_until(ms(20_000), is_mesh).is_some(), "seed {seed}: all find each other");
    cluster.run_for(ms(2_000));
    (0..cluster.len()).for_each(|at| drop(cluster.take_events(at)));
    cluster
}

#[test]
fn a_chain_of_seeds_comes_to_be_a_full_mesh_of_three_to_sixteen() {
    for nodes in [3, 5, 9, 16] {
        let mut cluster = SimCluster::new(1, chain(nodes)).unwrap();
        let took = cluster.run_until(ms(20_000), is_mesh);
        assert!(took.is_some_and(|took| took < ms(10_000)), "{nodes} nodes: {took:?}");
        let known = |c: &SimCluster| (0..nodes).all(|at| c.node(at).unwrap().members().live().count() == nodes);
        assert!(cluster.run_until(ms(5_000), known).is_some(), "{nodes} nodes are one cluster");
    }
}

#[test]
fn a_host_that_moves_is_found_by_those_that_only_know_where_it_was() {
    let mut cluster = formed(2, SimConfig { seeds: Vec::new(), ..chain(4) });
    for round in 0..3 {
        assert!(cluster.perform(Action::Move { at: 3 }));
        cluster.run_for(ms(100));
        assert!(cluster.run_until(ms(10_000), is_mesh).is_some(), "round {round}");
    }
}

/// Every link of so many nodes ends at once, and for half a minute none comes up. Each has 31 others to dial, again a quarter
/// of a second after each failure; it begins 32 dials at once, and sixteen a second.
#[test]
fn a_storm_of_reconnects_is_bounded_and_ends_soon() {
    const NODES: usize = 32;
    const A_SECOND: u64 = 32 * 16;
    let mut cluster = formed(5, SimConfig { nodes: NODES, seeds: vec![0b11; NODES], ..chain(2) });
    (0..NODES).for_each(|at| cluster.isolate(at));
    cluster.run_for(ms(20_000));
    for second in 20..30 {
        cluster.take_delivered();
        cluster.run_for(ms(1_000));
        let tried = cluster.take_delivered().failed_dials;
        assert!((A_SECOND / 2..=A_SECOND + 32).contains(&tried), "second {second}: {tried}");
    }
    cluster.heal();
    let took = cluster.run_until(ms(10_000), is_mesh);
    assert!(took.is_some_and(|took| took < ms(4_000)), "{took:?}");
    let delivered = cluster.take_delivered();
    assert!(delivered.ups / 2 + delivered.failed_dials <= 4 * A_SECOND, "{delivered}");
}

/// For longer than anybody waits for the other to dial, and again and again.
#[test]
fn strangers_that_were_parted_find_each_other_within_a_second() {
    let mut cluster = formed(3, chain(3));
    for away in [5_000, 60_000] {
        cluster.cut_one_way(0, 2);
        cluster.cut_one_way(2, 0);
        cluster.run_for(ms(away));
        cluster.heal();
        let took = cluster.run_until(ms(10_000), is_mesh);
        assert!(took.is_some_and(|took| took < ms(1_900)), "after {away} ms: {took:?}");
    }
}

/// What it dials in an hour in which nobody answers is what it dials in sixty minutes.
#[test]
fn a_node_that_is_alone_goes_on_looking_for_all_it_knew_and_comes_back() {
    let mut cluster = formed(4, chain(5));
    cluster.isolate(4);
    cluster.run_for(ms(30_000));
    drop(cluster.take_events(4));
    cluster.run_for(ms(60_000));
    let failed = |e: &&Event| matches!(e, Event::DialFailed { .. });
    let dials = cluster.take_events(4).iter().filter(failed).count();
    assert!((150..=300).contains(&dials), "four addresses, each tried every second and a quarter: {dials}");
    cluster.heal();
    let took = cluster.run_until(ms(10_000), is_mesh);
    assert!(took.is_some_and(|took| took < ms(1_900)), "{took:?}");
}

fn standing_by(seed: u64, nodes: usize, standbys: u64) -> SimCluster {
    let standby = StandbyConfig { take_over_after: Some(ms(2_000)), ..StandbyConfig::default() };
    formed(seed, SimConfig { standbys: (standbys, standby), seeds: Vec::new(), ..chain(nodes) })
}

fn role(cluster: &SimCluster, at: usize) -> Role {
    cluster.node(at).unwrap().role()
}

#[test]
fn a_standby_takes_over_from_the_dead_and_not_from_those_that_others_hear() {
    let mut cluster = standing_by(5, 5, 0b11000);
    assert_eq!((role(&cluster, 3), role(&cluster, 4)), (Role::Standby, Role::Standby));
    for at in [0, 1, 2] {
        cluster.cut_one_way(at, 3);
        cluster.cut_one_way(3, at);
    }
    cluster.run_for(ms(20_000));
    assert_eq!(role(&cluster, 3), Role::Standby, "the other standby hears them");
    cluster.heal();
    assert!(cluster.run_until(ms(10_000), is_mesh).is_some());
    [0, 1].into_iter().for_each(|at| cluster.crash(at));
    cluster.run_for(ms(10_000));
    assert_eq!((role(&cluster, 3), role(&cluster, 4)), (Role::Standby, Role::Standby), "one is left");
    cluster.crash(2);
    let took = cluster.run_until(ms(10_000), |c| [3, 4].iter().any(|at| role(c, *at) == Role::Active)).unwrap();
    assert!((ms(2_500)..ms(4_000)).contains(&took), "{took:?}");
    let active = if role(&cluster, 3) == Role::Active { 3 } else { 4 };
    cluster.start(0).unwrap();
    let me = cluster.replica(active).unwrap();
    let heard = |c: &SimCluster| c.node(0).unwrap().members().get(me).is_some_and(|m| m.profile.role == Role::Active);
    assert!(cluster.run_until(ms(10_000), heard).is_some());
    cluster.run_for(ms(10_000));
    assert_eq!(role(&cluster, active), Role::Active, "it stays so until an operator says otherwise");
    for at in [3, 4] {
        assert!(cluster.perform(Action::Demote { at }));
    }
    cluster.run_for(ms(10_000));
    assert_eq!((role(&cluster, 3), role(&cluster, 4)), (Role::Standby, Role::Standby));
}

#[test]
fn a_standby_that_hears_nobody_takes_over_whether_all_are_gone_or_it_is_alone() {
    for gone in [true, false] {
        let mut cluster = standing_by(5, 3, 0b100);
        if gone {
            [0, 1].into_iter().for_each(|at| cluster.crash(at));
        } else {
            cluster.isolate(2);
        }
        let took = cluster.run_until(ms(10_000), |c| role(c, 2) == Role::Active);
        assert!(took.is_some_and(|took| (ms(2_300)..ms(4_000)).contains(&took)), "gone: {gone}, {took:?}");
    }
}

#[test]
fn of_two_nodes_the_standby_takes_over_and_of_two_standbys_one_does_if_the_other_waits_longer() {
    let mut pair = standing_by(6, 2, 0b10);
    pair.crash(0);
    assert!(pair.run_until(ms(10_000), |c| role(c, 1) == Role::Active).is_some());
    let mut three = standing_by(7, 3, 0b110);
    three.crash(0);
    three.run_for(ms(10_000));
    let active = [1, 2].into_iter().filter(|at| role(&three, *at) == Role::Active).count();
    assert!(active >= 1, "with equal patience both may");
    let all_heard = |c: &SimCluster| {
        let reach = |of: usize, by: usize| c.node(by).unwrap().reach(c.replica(of).unwrap());
        reach(1, 2) == Some(Reach::Up) && reach(2, 1) == Some(Reach::Up)
    };
    assert!(all_heard(&three));
}

#[test]
fn a_role_is_told_once_to_everybody_and_the_last_word_counts() {
    let mut cluster = formed(8, chain(3));
    for at in [Action::Demote { at: 1 }, Action::Promote { at: 1 }, Action::Demote { at: 1 }] {
        assert!(cluster.perform(at));
    }
    cluster.run_for(ms(2_000));
    let me = cluster.replica(1).unwrap();
    for at in 0..3 {
        let told: Vec<Role> = cluster
            .take_events(at)
            .into_iter()
            .filter_map(|e| if let Event::RoleChanged { replica, role, .. } = e { Some((replica, role)) } else { None })
            .filter_map(|(replica, role)| (replica == me).then_some(role))
            .collect();
        assert_eq!(told.last(), Some(&Role::Standby), "r{at}: {told:?}");
        assert_eq!(cluster.node(at).unwrap().cluster().member(me).map(|m| m.role), Some(Role::Standby));
    }
}
