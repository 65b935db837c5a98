//! One member that is slow, far behind, or sends what cannot be taken in must be felt by nobody else.
#![cfg(all(feature = "net", feature = "sim"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;
#[path = "support/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use driftless::crdt::NEVER;
use driftless::crdt::custom::{BadState, Erased, MergeState};
use driftless::sim::{Action, Setting, SimCluster, Weather};
use driftless::store::{Family, KeyRef};
use driftless::{Cache, Event, Ttl};
use simulated::{converged, ms};
use world::{World, event, everywhere, guard, open, settled};

type Notes = crdts::GSet<u64>;

/// Merges as the type does, unless it is told to refuse everything.
#[derive(Debug, Default)]
struct Picky(AtomicBool);

impl MergeState for Picky {
    fn merge(&self, mine: &[u8], theirs: &[u8]) -> Result<Bytes, BadState> {
        if self.0.load(Ordering::SeqCst) {
            return Err(BadState);
        }
        Erased::<Notes>::default().merge(mine, theirs)
    }
}

fn note(cache: &Cache, item: u64) -> driftless::Receipt {
    let notes = cache.custom::<String, Notes>("notes").unwrap();
    notes.update("poisoned", Ttl::NEVER, |state, _| state.insert(item)).unwrap().1
}

#[tokio::test]
async fn a_state_that_cannot_be_merged_is_told_of_once_and_everything_else_goes_on() {
    let (world, picky) = (World::new(), Arc::new(Picky::default()));
    let declare = |config: driftless::Config, merge: Arc<dyn MergeState>| config.custom("notes", "notes/1", merge);
    let us = open(declare(world.config(0, &[]), Arc::new(Erased::<Notes>::default()))).await;
    let eu = open(declare(world.config(1, &[&us]), Arc::<Picky>::clone(&picky))).await;
    everywhere(&note(&us, 1)).await;

    picky.0.store(true, Ordering::SeqCst);
    let mut events = eu.events();
    let concurrent = note(&eu, 2);
    let poison = note(&us, 3);
    let numbers = us.registers::<u32, u32>("n").unwrap();
    let receipts: Vec<_> = (0..500).map(|n| numbers.set(&n, &n, Ttl::NEVER).unwrap()).collect();
    for receipt in &receipts {
        everywhere(receipt).await;
    }
    assert!((0..500).all(|n| eu.registers::<u32, u32>("n").unwrap().get(&n).unwrap() == Some(n)), "the stream goes on");
    let told = event(&mut events, |e| if let Event::Quarantined { poison } = e { Some(poison) } else { None }).await;
    assert_eq!((told.keyspace.as_str(), told.from, told.times), ("notes", us.replica(), 1));
    let health = eu.stats().await.node;
    assert_eq!(health.poisons.iter().map(|poison| poison.digest).collect::<Vec<_>>(), [told.digest]);
    assert!(us.stats().await.node.poisons.is_empty(), "there it could be merged");

    picky.0.store(false, Ordering::SeqCst);
    settled(&[&us, &eu], &[concurrent, poison]).await;
    let noted = eu.custom::<String, Notes>("notes").unwrap().get("poisoned").unwrap().unwrap().read();
    assert_eq!(noted, [1, 2, 3].into(), "it comes again and is taken");
    guard(async {
        while !eu.stats().await.node.poisons.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn set(cluster: &mut SimCluster, at: usize, key: u32, value: &[u8]) {
    let space = cluster.store(at).unwrap().spaces().open("registers", Family::Register).unwrap();
    let key = key.to_be_bytes();
    let (key, value) = (KeyRef::new(&space, &key), Bytes::copy_from_slice(value));
    cluster.write(at, &key, Some(value.len()), |p, tick| p.set(&key, value, NEVER, tick)).unwrap();
}

/// Three nodes, of which the last is about to be a burden.
fn formed(seed: u64) -> SimCluster {
    let weather = Weather { loss: 0.0, ..Weather::default() };
    let setting = Setting { weather, log_records_max: 256, ..Setting::default() };
    let mut cluster = SimCluster::from_setting(seed, &setting).unwrap();
    assert!(cluster.run_until(ms(10_000), converged).is_some());
    cluster
}

fn within_bounds(cluster: &SimCluster) {
    for at in 0..2 {
        assert_eq!(cluster.gauges_high(at).unwrap().over(), None, "r{at}");
    }
}

#[test]
fn a_peer_at_a_thousandth_of_the_speed_delays_nobody_else_and_takes_no_memory() {
    let mut cluster = formed(1);
    assert!(cluster.perform(Action::Slow { at: 2, bytes_per_ms: 1 }));
    for n in 0..2_000 {
        set(&mut cluster, 0, n % 300, &[7; 300]);
        cluster.run_for(ms(5));
        if n % 100 == 99 {
            within_bounds(&cluster);
            let lag = cluster.node(1).unwrap().cluster().members.into_iter().filter_map(|m| m.lag_ms).max();
            assert!(lag.is_none_or(|lag| lag <= 200), "writes reach the other within {lag:?} ms");
        }
    }
    assert!(!converged(&cluster), "it is slow enough to matter");
    assert!(cluster.perform(Action::Slow { at: 2, bytes_per_ms: 0 }));
    assert!(cluster.run_until(ms(20_000), converged).is_some());
}

#[test]
fn a_peer_that_is_behind_for_long_costs_a_bounded_log_and_comes_back_with_everything() {
    let mut cluster = formed(2);
    cluster.isolate(2);
    for n in 0..3_000 {
        set(&mut cluster, 0, n % 500, &n.to_be_bytes());
        cluster.run_for(ms(200));
    }
    within_bounds(&cluster);
    let (records, keys) = (cluster.node(0).unwrap().stats().log_records, cluster.node(0).unwrap().stats().keys);
    assert!(records <= 256 && keys == 500, "{records} records, {keys} keys: the log was cut, and no key was lost");
    cluster.heal();
    assert!(cluster.run_until(ms(20_000), converged).is_some());
    assert!(cluster.node(2).unwrap().stats().full_syncs > 0, "what the log no longer names came in full");
    cluster.run_for(ms(30_000));
    assert!((0..3).all(|at| cluster.node(at).unwrap().stats().log_records == 0));
}
