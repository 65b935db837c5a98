//! Coming back after a removal: who does, when, and what of its last writes comes back with it.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;

use driftless::config::MembershipConfig;
use driftless::error::WriteError;
use driftless::id::{PartitionId, ReplicaId};
use driftless::node::{Event, Input};
use driftless::sim::{Action, Setting, SimCluster, SimConfig, Weather};
use driftless::store::{Body, Family, KeyRef, Selector};
use simulated::{formed_from, honest_joined as joined, ms};

const AWAY: usize = 2;

fn formed(seed: u64, nodes: usize, forget_after_ms: u32) -> SimCluster {
    let weather = Weather { loss: 0.0, ..Weather::default() };
    let setting = Setting { nodes, forget_after_ms, weather, partitions: 1, ..Setting::default() };
    formed_from(seed, &setting)
}

fn set(cluster: &mut SimCluster, at: usize, key: &str, value: &str) -> Result<(), WriteError> {
    simulated::set(cluster, at, key, value).map(drop)
}

fn delete(cluster: &mut SimCluster, at: usize, key: &str) {
    let space = cluster.store(at).unwrap().spaces().open("registers", Family::Register).unwrap();
    let key = KeyRef::new(&space, key.as_bytes());
    cluster.write(at, &key, None, |p, tick| p.delete(&key, tick)).unwrap();
}

fn get(cluster: &SimCluster, at: usize, key: &str) -> Option<String> {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().open("registers", Family::Register).unwrap();
    let now_ms = cluster.now(at).wall_ms;
    store.with_entry(&KeyRef::new(&space, key.as_bytes()), |entry| match &entry?.body {
        Body::Register(cell) => Some(String::from_utf8(cell.as_ref()?.visible(now_ms)?.to_vec()).unwrap()),
        Body::Tree(_) | Body::Custom(_) => None,
    })
}

/// What every node shows of a key.
fn shown(cluster: &SimCluster, key: &str) -> Option<String> {
    let all: Vec<_> = cluster.honest().map(|at| get(cluster, at, key)).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{key}: {all:?}");
    all[0].clone()
}

fn value(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// What a node told of its removal and what followed: whether it was removed, what it became, and what was written again.
fn told(cluster: &mut SimCluster, at: usize) -> (bool, Option<ReplicaId>, Option<(u64, u64, u64)>) {
    let events = cluster.take_events(at);
    let became = |event: &Event| if let Event::CameBack { replica, .. } = event { Some(*replica) } else { None };
    let again = |event: &Event| {
        if let Event::Reissued { written, outdated, lost } = *event { Some((written, outdated, lost)) } else { None }
    };
    (
        events.contains(&Event::Removed),
        events.iter().filter_map(became).next_back(),
        events.iter().filter_map(again).next_back(),
    )
}

/// One writes where nobody can hear it, the others remove it, and it hears of that.
fn given_up(cluster: &mut SimCluster, meanwhile: impl FnOnce(&mut SimCluster)) -> ReplicaId {
    let former = cluster.replica(AWAY).unwrap();
    cluster.isolate(AWAY);
    cluster.run_for(ms(1_000));
    meanwhile(cluster);
    assert!(cluster.run_until(ms(30_000), |c| c.node(0).unwrap().members().is_removed(former)).is_some());
    former
}

fn comes_back(cluster: &mut SimCluster, former: ReplicaId) {
    cluster.heal();
    let is_back = |c: &SimCluster| c.replica(AWAY) != Some(former) && joined(c) && !c.is_removed(AWAY);
    assert!(cluster.run_until(ms(10_000), is_back).is_some(), "it is a member again");
    cluster.run_for(ms(1_000));
}

#[test]
fn who_was_given_up_comes_back_by_itself_with_what_nobody_had_received() {
    let mut cluster = formed(1, 3, 5_000);
    for key in ["changed here", "changed here and then there", "deleted here", "deleted here and written there"] {
        set(&mut cluster, 0, key, "before").unwrap();
    }
    cluster.run_for(ms(1_000));
    let former = given_up(&mut cluster, |c| {
        set(c, AWAY, "new", "here").unwrap();
        set(c, AWAY, "changed here", "here").unwrap();
        set(c, AWAY, "changed here and then there", "here").unwrap();
        delete(c, AWAY, "deleted here");
        delete(c, AWAY, "deleted here and written there");
        delete(c, AWAY, "was never there");
        c.run_for(ms(500));
        set(c, 0, "changed here and then there", "there").unwrap();
        set(c, 1, "deleted here and written there", "there").unwrap();
    });
    comes_back(&mut cluster, former);
    let now = cluster.replica(AWAY).unwrap();
    assert_eq!(told(&mut cluster, AWAY), (true, Some(now), Some((3, 3, 0))));
    assert_eq!(shown(&cluster, "new"), value("here"));
    assert_eq!(shown(&cluster, "changed here"), value("here"));
    assert_eq!(shown(&cluster, "deleted here"), None);
    assert_eq!(shown(&cluster, "changed here and then there"), value("there"), "never over something newer");
    assert_eq!(shown(&cluster, "deleted here and written there"), value("there"));
    assert_eq!(cluster.node(0).unwrap().members().live().count(), 3);
    set(&mut cluster, AWAY, "new", "and it goes on").unwrap();
    cluster.run_for(ms(1_000));
    assert_eq!(shown(&cluster, "new"), value("and it goes on"));
}

#[test]
fn what_was_deleted_later_and_is_forgotten_since_does_not_come_back() {
    let mut cluster = formed(2, 3, 5_000);
    let former = given_up(&mut cluster, |c| {
        set(c, AWAY, "written here, and there, and deleted there", "here").unwrap();
        c.run_for(ms(500));
        set(c, 0, "written here, and there, and deleted there", "there").unwrap();
        c.run_for(ms(500));
        delete(c, 1, "written here, and there, and deleted there");
    });
    cluster.run_for(ms(15_000));
    let forgotten =
        cluster.store(0).unwrap().partition_ids().all(|id| cluster.store(0).unwrap().read(id).unwrap().is_empty());
    assert!(forgotten, "nothing is left of the deletion");
    set(&mut cluster, AWAY, "later than all that was forgotten", "here").unwrap();
    comes_back(&mut cluster, former);
    assert_eq!(shown(&cluster, "written here, and there, and deleted there"), None);
    assert_eq!(shown(&cluster, "later than all that was forgotten"), value("here"));
    assert_eq!(told(&mut cluster, AWAY).2, Some((1, 1, 0)));
}

#[test]
fn what_was_invalidated_later_does_not_come_back() {
    let mut cluster = formed(3, 3, 5_000);
    set(&mut cluster, 0, "a", "before").unwrap();
    cluster.run_for(ms(1_000));
    let former = given_up(&mut cluster, |c| {
        set(c, AWAY, "a", "here").unwrap();
        c.run_for(ms(500));
        let space = c.store(0).unwrap().spaces().open("registers", Family::Register).unwrap();
        c.invalidate(0, &space, &Selector::All);
    });
    comes_back(&mut cluster, former);
    assert_eq!((shown(&cluster, "a"), told(&mut cluster, AWAY).2), (None, Some((0, 1, 0))));
}

#[test]
fn whom_an_operator_removed_stays_away_until_it_is_told_to_come_back() {
    let mut cluster = formed(4, 3, 0);
    let former = cluster.replica(AWAY).unwrap();
    cluster.isolate(AWAY);
    set(&mut cluster, AWAY, "k", "here").unwrap();
    assert!(cluster.perform(Action::Remove { by: 0, at: 2 }));
    cluster.run_for(ms(1_000));
    assert!(!cluster.perform(Action::Rejoin { at: 2 }), "it is a member as far as it knows");
    cluster.heal();
    cluster.run_for(ms(60_000));
    assert_eq!((told(&mut cluster, AWAY), cluster.replica(AWAY)), ((true, None, None), Some(former)));
    assert_eq!(set(&mut cluster, AWAY, "k", "here"), Err(WriteError::Removed));
    assert_eq!(get(&cluster, AWAY, "k"), value("here"), "and goes on answering reads");

    assert!(cluster.perform(Action::Rejoin { at: 2 }));
    assert!(cluster.run_until(ms(10_000), |c| c.honest().count() == 3 && joined(c)).is_some());
    cluster.run_for(ms(1_000));
    assert_eq!(told(&mut cluster, AWAY).2, Some((1, 0, 0)));
    assert_eq!(shown(&cluster, "k"), value("here"));
}

/// It answers whoever dials it, and has nothing to give.
#[test]
fn who_stays_away_keeps_nobody_from_founding() {
    let mut cluster = formed(6, 3, 0);
    assert!(cluster.perform(Action::Remove { by: 0, at: 2 }));
    cluster.run_for(ms(1_000));
    [0, 1].iter().for_each(|at| cluster.crash(*at));
    [0, 1].iter().for_each(|at| cluster.start(*at).unwrap());
    let both = |c: &SimCluster| [0, 1].iter().all(|at| c.node(*at).unwrap().stats().joined);
    assert!(cluster.run_until(ms(20_000), both).is_some());
    assert!(cluster.node(AWAY).unwrap().members().is_removed(cluster.replica(AWAY).unwrap()), "and it stays away");
}

#[test]
fn an_order_to_remove_what_a_process_was_before_is_respected_when_it_is_heard_of() {
    let mut cluster = formed(5, 4, 5_000);
    let former = given_up(&mut cluster, |_| {});
    comes_back(&mut cluster, former);
    cluster.isolate(3);
    cluster.input(3, Input::Remove { replica: former });
    cluster.run_for(ms(500));
    let now = cluster.replica(AWAY).unwrap();
    assert!(!cluster.is_removed(AWAY), "nobody has heard of the order");
    cluster.heal();
    assert!(cluster.run_until(ms(10_000), |c| c.node(0).unwrap().members().is_removed(now)).is_some());
    cluster.run_for(ms(60_000));
    assert_eq!(cluster.replica(AWAY), Some(now), "and stays away");
}

#[test]
fn who_drains_does_not_come_back() {
    let mut cluster = formed(6, 3, 5_000);
    let former = given_up(&mut cluster, |c| {
        set(c, AWAY, "nobody has it", "here").unwrap();
        assert!(c.perform(Action::Drain { at: 2, leave: false }));
    });
    cluster.heal();
    cluster.run_for(ms(30_000));
    assert_eq!((told(&mut cluster, AWAY), cluster.replica(AWAY)), ((true, None, None), Some(former)));
}

/// A hole in what a dead origin wrote is in
/// `stories::members::a_crashed_origin_that_leaves_a_gap_for_ever_blocks_nothing`.
#[test]
fn of_a_removed_origin_all_survivors_come_to_have_the_same_whoever_had_it_and_nothing_waits_for_the_rest() {
    let (mut apart, mut nothing) = (0, 0);
    let ctx = |c: &SimCluster, at: usize| c.store(at).unwrap().read(PartitionId(0)).unwrap().ctx().clone();
    for seed in 1..=30 {
        let weather = Weather { loss: 0.0, delay_min: ms(1), delay_max: ms(250), ..Weather::default() };
        let setting = Setting { weather, partitions: 1, ..Setting::default() };
        let mut cluster = SimCluster::from_setting(seed, &setting).unwrap();
        assert!(cluster.run_until(ms(20_000), joined).is_some());
        cluster.run_for(ms(4_000));
        let gone = cluster.replica(AWAY).unwrap();
        if seed % 5 == 0 {
            cluster.isolate(AWAY);
        }
        for key in ["a", "b", "c", "d"] {
            set(&mut cluster, AWAY, key, "last words").unwrap();
            cluster.run_for(ms(8));
        }
        delete(&mut cluster, AWAY, "a");
        cluster.run_for(ms(seed * 10));
        cluster.crash(AWAY);
        cluster.run_for(ms(300));
        apart += u32::from(ctx(&cluster, 0) != ctx(&cluster, 1));
        cluster.input(0, Input::Remove { replica: gone });
        cluster.run_for(ms(5_000));
        assert_eq!(ctx(&cluster, 0), ctx(&cluster, 1), "seed {seed}: both have what one had");
        nothing += u32::from(ctx(&cluster, 0).of(gone).is_none());
        for key in ["a", "b", "c", "d"] {
            delete(&mut cluster, 1, key);
        }
        cluster.run_for(ms(15_000));
        for at in [0, 1] {
            let store = cluster.store(at).unwrap();
            let p = store.read(PartitionId(0)).unwrap();
            assert_eq!((p.log_len(), p.len()), (0, 0), "seed {seed}: nothing waits for what never comes");
            assert!(p.frontier() == p.ctx() && p.floor() == p.ctx(), "seed {seed}");
        }
    }
    assert!(apart > 0 && nothing > 0, "{apart} only at one, {nothing} at none");
}

fn configured(change: impl FnOnce(&mut MembershipConfig)) -> SimCluster {
    let weather = Weather { loss: 0.0, ..Weather::default() };
    let mut config = SimConfig { weather, ..SimConfig::default() };
    config.node.membership.forget_after = Some(ms(5_000));
    change(&mut config.node.membership);
    let mut cluster = SimCluster::new(7, config).unwrap();
    assert!(cluster.run_until(ms(10_000), joined).is_some());
    cluster.run_for(ms(1_000));
    cluster
}

#[test]
fn who_shall_not_come_back_by_itself_waits_to_be_told() {
    let mut cluster = configured(|membership| membership.comes_back = false);
    let former = given_up(&mut cluster, |c| set(c, AWAY, "k", "here").unwrap());
    cluster.heal();
    cluster.run_for(ms(30_000));
    assert_eq!((told(&mut cluster, AWAY), cluster.replica(AWAY)), ((true, None, None), Some(former)));
    assert!(cluster.perform(Action::Rejoin { at: 2 }));
    comes_back(&mut cluster, former);
    assert_eq!(shown(&cluster, "k"), value("here"));
}

#[test]
fn what_may_not_be_kept_is_lost_and_counted() {
    let mut cluster = configured(|membership| membership.reissue_bytes = 0);
    let former = given_up(&mut cluster, |c| set(c, AWAY, "k", "here").unwrap());
    comes_back(&mut cluster, former);
    assert_eq!((told(&mut cluster, AWAY).2, shown(&cluster, "k")), (Some((0, 0, 1)), None));
}
