//! Directed stories of whole clusters: one thing that can happen each, and how soon or with what all come through it.

use bytes::Bytes;
use driftless::crdt::{Dot, NEVER, Path};
use driftless::error::RoleError;
use driftless::id::PartitionId;
use driftless::node::{Input, Level, Mark, WaitId};
use driftless::sim::{Action, SimCluster, SimConfig, Weather};
use driftless::store::write::Tick;
use driftless::store::{Family, Intent, KeyRef, Partition, Selector};

use crate::agree;
use crate::simulated::{contexts, converged, formed, get, joined, ms, set};

#[test]
fn a_write_is_seen_everywhere_within_the_path_and_the_linger() {
    let mut cluster = formed(1, SimConfig::default());
    cluster.run_for(ms(1_000));
    set(&mut cluster, 0, "k", "v").unwrap();
    let took = cluster.run_until(ms(1_000), |c| get(c, 1, "k").is_some() && get(c, 2, "k").is_some()).unwrap();
    assert!(took <= ms(200), "took {took:?}: 60 ms of path, 120 ms of one retransmission, 2 ms of linger");
}

#[test]
fn a_quorum_is_reached_with_one_of_three_gone_and_all_is_not() {
    let mut cluster = formed(2, SimConfig::default());
    cluster.run_for(ms(1_000));
    cluster.isolate(2);
    let mark = set(&mut cluster, 0, "k", "v").unwrap();
    let deadline = Some(cluster.now(0).mono.plus(ms(1_000)));
    cluster.input(0, Input::Wait { id: WaitId(1), mark, level: Level::Quorum, deadline });
    cluster.input(0, Input::Wait { id: WaitId(2), mark, level: Level::All, deadline });
    cluster.run_for(ms(1_500));
    let (quorum, all) = (cluster.outcome(0, WaitId(1)).unwrap(), cluster.outcome(0, WaitId(2)).unwrap());
    assert!(quorum.reached && quorum.acked >= 2 && quorum.needed == 2);
    assert!(!all.reached && all.acked == 2 && all.needed == 3 && all.missing.len() == 1);
}

#[test]
fn a_restarted_node_succeeds_its_old_id_while_one_region_is_cut_off() {
    let mut cluster = formed(4, SimConfig::default());
    set(&mut cluster, 0, "k", "before").unwrap();
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    cluster.isolate(2);
    cluster.crash(1);
    cluster.run_for(ms(2_000));
    cluster.start(1).unwrap();
    assert!(cluster.run_until(ms(5_000), |c| c.node(1).unwrap().stats().joined).is_some(), "joins without the third");
    assert_eq!(get(&cluster, 1, "k").as_deref(), Some(&b"before"[..]));
    set(&mut cluster, 1, "k", "after").expect("it writes at once");
    cluster.heal();
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    assert_eq!(get(&cluster, 2, "k").as_deref(), Some(&b"after"[..]));
    assert_eq!(cluster.node(2).unwrap().members().live().count(), 3, "the old id is gone");
    cluster.run_for(ms(15_000));
    assert_eq!(cluster.node(0).unwrap().stats().log_records, 0, "collection goes on");
}

#[test]
fn a_clock_an_hour_ahead_is_refused_by_all_and_harms_nobody() {
    let mut cluster = SimCluster::new(5, SimConfig::default()).unwrap();
    cluster.set_skew_ms(2, 3_600_000);
    cluster.run_for(ms(8_000));
    assert!(cluster.node(0).unwrap().stats().joined && cluster.node(1).unwrap().stats().joined);
    assert!(set(&mut cluster, 2, "k", "from the future").is_err(), "it accepts no writes");
    set(&mut cluster, 0, "k", "now").unwrap();
    cluster.run_for(ms(1_000));
    assert_eq!(get(&cluster, 1, "k").as_deref(), Some(&b"now"[..]));
    cluster.set_skew_ms(2, 0);
    assert!(cluster.run_until(ms(10_000), |c| joined(c) && get(c, 2, "k").is_some()).is_some(), "it joins once set");
}

#[test]
fn who_would_go_on_refusing_writes_is_not_to_be_promoted() {
    let mut cluster = SimCluster::new(5, SimConfig::default()).unwrap();
    let refuses = |c: &SimCluster| c.node(2).unwrap().refuses_to_assume(false);
    assert_eq!(refuses(&cluster), Some(RoleError::NotJoined));
    cluster.set_skew_ms(2, 3_600_000);
    cluster.run_for(ms(8_000));
    assert_eq!(
        (refuses(&cluster), cluster.node(2).unwrap().refuses_to_assume(true)),
        (Some(RoleError::ClockRefused), None)
    );
    cluster.set_skew_ms(2, 0);
    assert!(cluster.run_until(ms(10_000), joined).is_some());
    assert_eq!(refuses(&cluster), None);
}

#[test]
fn a_clock_that_jumps_while_linked_delays_only_its_own_writes() {
    let mut cluster = formed(6, SimConfig::default());
    cluster.run_for(ms(1_000));
    cluster.set_skew_ms(1, 4_000);
    set(&mut cluster, 1, "k", "ahead").unwrap();
    cluster.run_for(ms(1_000));
    assert_eq!(get(&cluster, 0, "k"), None, "it waits in the pen");
    assert!(cluster.run_until(ms(9_000), |c| get(c, 0, "k").is_some() && get(c, 2, "k").is_some()).is_some());
}

#[test]
fn a_partition_of_the_log_that_was_dropped_is_given_in_full() {
    let mut config = SimConfig::default();
    config.node.limits.log_records_max = 64;
    let mut cluster = formed(7, config);
    cluster.run_for(ms(1_000));
    cluster.isolate(2);
    for n in 0..400 {
        set(&mut cluster, 0, &format!("k{n}"), "v").unwrap();
    }
    cluster.run_for(ms(3_000));
    cluster.heal();
    assert!(cluster.run_until(ms(10_000), converged).is_some());
    assert!(cluster.node(2).unwrap().stats().full_syncs > 0);
    agree(&cluster, 7);
}

/// What a member was known to have does not travel again.
#[test]
fn who_is_behind_a_dropped_log_costs_what_has_changed_and_not_what_there_is() {
    let mut config = SimConfig::default();
    config.node.limits.log_records_max = 64;
    let mut cluster = formed(7, config);
    let mut rng = fastrand::Rng::with_seed(7);
    for n in 0..2_000 {
        let value: [u8; 100] = std::array::from_fn(|_| rng.u8(..));
        set(&mut cluster, 0, &format!("old {n}"), &value).unwrap();
        cluster.run_for(ms(5));
    }
    assert!(cluster.run_until(ms(30_000), converged).is_some());
    cluster.run_for(ms(5_000));
    cluster.isolate(2);
    for n in 0..400 {
        set(&mut cluster, 0, &format!("old {n}"), "v").unwrap();
        cluster.run_for(ms(5));
    }
    cluster.run_for(ms(3_000));
    let sent = |c: &SimCluster| [0, 1].map(|at| c.node(at).unwrap().stats().raw_bytes_out).iter().sum::<u64>();
    let (before, syncs) = (sent(&cluster), cluster.node(2).unwrap().stats().full_syncs);
    cluster.heal();
    assert!(cluster.run_until(ms(10_000), converged).is_some());
    assert!(cluster.node(2).unwrap().stats().full_syncs > syncs);
    let took = sent(&cluster) - before;
    assert!(took < 100_000, "{took} bytes for 400 changes of a few, beside 200,000 of values that both sides hold");
}

/// Five that hear nobody let one map grow to its limit each, by what no compression makes smaller.
#[test]
fn a_map_that_five_let_grow_to_the_limit_at_once_is_given_to_who_joins() {
    let mut config = SimConfig { nodes: 6, ..SimConfig::default() };
    config.weather.loss = 0.0;
    let mut cluster = formed(10, config);
    set(&mut cluster, 0, "beside", "v").unwrap();
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    (0..6).for_each(|at| cluster.isolate(at));
    let mut rng = fastrand::Rng::with_seed(10);
    for (at, n) in (0..5).flat_map(|at| (0..60).map(move |n| (at, n))) {
        let space = cluster.store(at).unwrap().spaces().open("maps", Family::Map).unwrap();
        let (key, path) = (KeyRef::new(&space, b"map"), Path::Field(format!("{at} {n}").into()));
        let value: Vec<u8> = (0..4_000).map(|_| rng.u8(..)).collect();
        let put = |p: &mut Partition, tick: &Tick<'_>| p.put(&key, path, value.into(), NEVER, tick);
        cluster.write(at, &key, Some(4_000), put).unwrap();
    }
    cluster.heal();
    assert!(cluster.run_until(ms(30_000), converged).is_some(), "each field goes by itself");
    cluster.crash(5);
    cluster.start(5).unwrap();
    assert!(cluster.run_until(ms(30_000), converged).is_some());
    assert_eq!(get(&cluster, 5, "beside").as_deref(), Some(&b"v"[..]));
    agree(&cluster, 10);
}

#[test]
fn contexts_name_every_event_once() {
    let mut cluster = formed(8, SimConfig::default());
    let marks: Vec<Mark> = (0..20).filter_map(|n| set(&mut cluster, n % 3, "same", "v").ok()).collect();
    let dots: std::collections::BTreeSet<(PartitionId, Dot)> = marks.iter().map(|m| (m.partition, m.dot)).collect();
    assert_eq!(dots.len(), marks.len());
}

#[test]
fn an_invalidation_beats_older_writes_still_on_their_way_and_spares_younger_ones() {
    let mut cluster = formed(9, SimConfig::default());
    set(&mut cluster, 0, "old", "v").unwrap();
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    cluster.isolate(2);
    set(&mut cluster, 2, "unseen", "v").unwrap();
    cluster.run_for(ms(100));
    let space = cluster.store(0).unwrap().spaces().open("registers", Family::Register).unwrap();
    cluster.invalidate(0, &space, &Selector::All);
    assert_eq!(get(&cluster, 0, "old"), None);
    cluster.run_for(ms(100));
    set(&mut cluster, 1, "young", "v").unwrap();
    cluster.heal();
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    for at in 0..3 {
        let shown = ["old", "unseen", "young"].map(|key| get(&cluster, at, key).is_some());
        assert_eq!(shown, [false, false, true], "at node {at}");
    }
    cluster.run_for(ms(25_000));
    assert_eq!(cluster.node(2).unwrap().stats().keys, 1, "the epochs and the stubs are collected");
}

#[test]
fn lag_is_told_of_new_writes_and_not_of_the_values_that_touches_carry() {
    let mut cluster = formed(7, SimConfig::default());
    // Of two links between one pair one is closed, and its counters with it.
    cluster.run_for(ms(1_000));
    set(&mut cluster, 0, "k", "v").unwrap();
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    cluster.run_for(ms(3_000));
    let store = cluster.store(0).unwrap();
    let space = store.spaces().open("registers", Family::Register).unwrap();
    let key = KeyRef::new(&space, b"k");
    let touched = cluster.write(0, &key, None, |p, tick| p.touch(&key, NEVER, tick)).unwrap();
    assert!(touched.is_some() && cluster.run_until(ms(5_000), converged).is_some());
    let peers = cluster.node(1).unwrap().stats().peers;
    let lags: Vec<_> = peers.iter().flat_map(|peer| peer.lag.counts()).collect();
    assert!(matches!(lags[..], [(lag, 1)] if lag < 1_000), "{lags:?}");
}

#[test]
fn two_halves_that_founded_apart_become_one_and_keep_what_both_wrote() {
    let mut cluster = SimCluster::new(11, SimConfig { nodes: 2, ..SimConfig::default() }).unwrap();
    cluster.isolate(0);
    assert!(cluster.run_until(ms(10_000), joined).is_some(), "each founds alone");
    for at in 0..2 {
        set(&mut cluster, at, &format!("of {at}"), "v").unwrap();
        let store = cluster.store(at).unwrap();
        let space = store.spaces().open("registers", Family::Register).unwrap();
        let gone = KeyRef::new(&space, b"gone");
        cluster.write(at, &gone, None, |p, t| p.delete(&gone, t)).unwrap();
    }
    cluster.run_for(ms(30_000));
    assert!(cluster.node(0).unwrap().stats().log_records > 0, "nothing is stable before the peer was met");
    cluster.heal();
    assert!(cluster.run_until(ms(10_000), converged).is_some());
    agree(&cluster, 11);
    assert!(get(&cluster, 0, "of 1").is_some() && get(&cluster, 1, "of 0").is_some());
}

/// A lost packet delays its frame until others have been reported, and what they reported is stable
/// at the receiver: the frame predates it and is refused. What was in it must not wait for the
/// seconds after which unreported writes are sent again by themselves.
#[test]
fn a_frame_that_came_too_late_is_asked_for_again_at_once() {
    let weather = Weather { loss: 0.05, ..Weather::default() };
    let mut late = 0;
    for seed in 0..8 {
        let mut cluster = formed(seed, SimConfig { weather, ..SimConfig::default() });
        for step in 0..600 {
            set(&mut cluster, step % 3, &format!("k{}", step % 50), "v").unwrap();
            cluster.run_for(ms(3));
        }
        let took = cluster.run_until(ms(20_000), converged);
        assert!(took.is_some_and(|took| took < ms(900)), "seed {seed}: {took:?}");
        agree(&cluster, seed);
        late += (0..3).map(|at| cluster.node(at).unwrap().stats().stale_batches).sum::<u64>();
    }
    assert!(late > 0, "no frame came late, so nothing was tested");
}

/// A new link's first frames may overtake the hello, and there is no third node here to relay what
/// would be dropped.
#[test]
fn frames_that_overtake_the_hello_are_not_lost() {
    let weather = Weather { loss: 0.1, ..Weather::default() };
    for seed in 0..60 {
        let mut cluster = formed(seed, SimConfig { nodes: 2, weather, ..SimConfig::default() });
        cluster.isolate(0);
        for step in 0..20 {
            set(&mut cluster, step % 2, &format!("k{step}"), "v").unwrap();
            cluster.run_for(ms(200));
        }
        cluster.heal();
        let took = cluster.run_until(ms(20_000), converged);
        assert!(took.is_some_and(|took| took < ms(4_000)), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_map_at_its_limit_travels_to_a_joiner_as_it_is() {
    let mut config = SimConfig::default();
    config.node.replication.compress = false;
    let mut cluster = formed(12, config);
    cluster.run_for(ms(1_000));
    cluster.crash(2);
    let (store, mut rng) = (cluster.store(0).unwrap(), fastrand::Rng::with_seed(1));
    let space = store.spaces().open("maps", Family::Map).unwrap();
    let key = KeyRef::new(&space, b"large");
    for field in 0..500_u32 {
        let value: Vec<u8> = (0..1_000).map(|_| rng.u8(..)).collect();
        let (path, full) = (Path::Field(Bytes::from(field.to_be_bytes().to_vec())), value.len());
        let put = cluster.write(0, &key, Some(full), |p, tick| {
            p.admit_growth(&key, &path, full).map(|()| p.put(&key, path, Bytes::from(value), NEVER, tick))
        });
        if put.unwrap().is_err() {
            break;
        }
        cluster.run_for(ms(5));
    }
    cluster.start(2).unwrap();
    assert!(cluster.run_until(ms(10_000), converged).is_some(), "the joiner has it too");
    agree(&cluster, 12);
}

#[test]
fn a_write_made_while_a_peer_joins_does_not_wait_for_a_resend() {
    for seed in 20..40 {
        let mut cluster = formed(seed, SimConfig::default());
        cluster.run_for(ms(1_000));
        cluster.crash(2);
        cluster.run_for(ms(2_500));
        cluster.start(2).unwrap();
        for step in 0..60 {
            set(&mut cluster, step % 2, &format!("k{step}"), "v").unwrap();
            cluster.run_for(ms(10));
        }
        let took = cluster.run_until(ms(20_000), converged);
        assert!(took.is_some_and(|took| took < ms(2_500)), "seed {seed}: {took:?}");
    }
}

#[test]
fn the_death_of_a_donor_costs_a_joiner_only_what_it_had_not_got_yet() {
    let mut config = SimConfig::default();
    config.node.limits.partitions = 16;
    let mut cluster = formed(16, config);
    for n in 0..200 {
        set(&mut cluster, 0, &format!("k{n}"), &"v".repeat(20_000)).unwrap();
    }
    assert!(cluster.run_until(ms(20_000), converged).is_some());
    cluster.crash(2);
    cluster.perform(Action::Slow { at: 2, bytes_per_ms: 400 });
    cluster.start(2).unwrap();
    let copied = |c: &SimCluster| c.node(2).unwrap().stats().full_syncs;
    assert!(cluster.run_until(ms(20_000), |c| copied(c) >= 6).is_some());
    assert!(cluster.perform(Action::CrashDonor { of: 2 }));
    set(&mut cluster, 1, "k7", "meanwhile").or_else(|_| set(&mut cluster, 0, "k7", "meanwhile")).unwrap();
    assert!(cluster.run_until(ms(60_000), |c| joined(c) && converged(c)).is_some());
    assert_eq!(copied(&cluster), 16, "each partition came in full once");
    assert_eq!(get(&cluster, 2, "k7").as_deref(), Some(&b"meanwhile"[..]));
}

#[test]
fn what_a_copy_lost_is_given_back_while_others_go_on_writing() {
    let mut config = SimConfig::default();
    config.node.repair.every = Some(ms(1_000));
    let mut cluster = formed(15, config);
    for n in 0..100 {
        set(&mut cluster, 0, &format!("lost{n}"), "v").unwrap();
    }
    assert!(cluster.run_until(ms(5_000), converged).is_some());
    let store = cluster.store(1).unwrap();
    let space = store.spaces().open("registers", Family::Register).unwrap();
    for n in 0..100 {
        let hash = space.hash(format!("lost{n}").as_bytes());
        store.lock(store.place(hash)).unwrap().lose(hash, store.spaces());
    }
    let back = (0..3_000).find(|n| {
        set(&mut cluster, 0, &format!("k{}", n % 500), "v").unwrap();
        cluster.run_for(ms(2));
        (0..100).all(|n| get(&cluster, 1, &format!("lost{n}")).is_some())
    });
    assert!(back.is_some(), "all of it is back within some comparisons");
}

#[test]
fn last_words_of_a_dead_process_are_relayed_however_fast_others_write() {
    let mut cluster = formed(14, SimConfig::default());
    cluster.run_for(ms(1_000));
    cluster.cut_one_way(0, 2);
    set(&mut cluster, 0, "last words", "v").unwrap();
    assert!(cluster.run_until(ms(500), |c| get(c, 1, "last words").is_some()).is_some());
    cluster.crash(0);
    cluster.start(0).unwrap();
    // Enough keys that every partition moves on between two looks.
    let told = (0..1_000).find(|n| {
        for k in 0..8 {
            set(&mut cluster, 1, &format!("k{n}-{k}"), "v").unwrap();
        }
        cluster.run_for(ms(5));
        get(&cluster, 2, "last words").is_some()
    });
    assert!(told.is_some(), "the third has it while the second writes");
}

#[test]
fn a_shutdown_sends_what_was_written_however_much_it_is() {
    let mut cluster = formed(13, SimConfig::default());
    cluster.run_for(ms(1_000));
    let (store, value) = (cluster.store(0).unwrap(), Bytes::from(vec![7; 400_000]));
    let space = store.spaces().open("registers", Family::Register).unwrap();
    for n in 0..40_u32 {
        let name = n.to_be_bytes();
        let key = KeyRef::new(&space, &name);
        let intent = Intent { wall_ms: cluster.now(0).wall_ms, value_len: Some(value.len()) };
        store.write(&key, intent, |p, tick| p.set(&key, value.clone(), NEVER, tick)).unwrap();
    }
    let wrote = contexts(&store);
    cluster.input(0, Input::Shutdown);
    cluster.run_for(ms(1_000));
    for at in [1, 2] {
        let seen = contexts(&cluster.store(at).unwrap());
        assert!(seen.iter().zip(&wrote).all(|(seen, wrote)| seen.includes(wrote)), "node {at} has all of it");
    }
}
