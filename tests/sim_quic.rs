//! Whole clusters over QUIC in virtual time: real handshakes, streams and packets, with faults per packet. Every
//! failure prints the seed that replays it.
#![cfg(all(feature = "sim", feature = "net"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless::Event;
use driftless::crdt::{Ctx, NEVER};
use driftless::sim::{Action, Carrier, SimCluster, SimConfig, Weather};
use driftless::store::{Body, Family, KeyRef, Store};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn config(weather: Weather) -> SimConfig {
    SimConfig { carrier: Carrier::Quic, weather, ..SimConfig::default() }
}

fn clear() -> Weather {
    Weather { delay_min: ms(40), delay_max: ms(40), loss: 0.0, duplicate: 0.0, corrupt: 0.0 }
}

fn joined(cluster: &SimCluster) -> bool {
    (0..cluster.len()).all(|at| cluster.node(at).is_none_or(|n| n.stats().joined))
}

fn formed(seed: u64, config: SimConfig) -> SimCluster {
    let mut cluster = SimCluster::new(seed, config).unwrap();
    assert!(cluster.run_until(ms(20_000), joined).is_some(), "seed {seed}: the cluster forms");
    cluster
}

fn contexts(store: &Store) -> Vec<Ctx> {
    store.partition_ids().map(|id| store.read(id).unwrap().ctx().clone()).collect()
}

fn converged(cluster: &SimCluster) -> bool {
    let stores: Vec<Arc<Store>> = (0..cluster.len()).filter_map(|at| cluster.store(at)).collect();
    joined(cluster) && stores.windows(2).all(|pair| contexts(&pair[0]) == contexts(&pair[1]))
}

fn set(cluster: &mut SimCluster, at: usize, key: &str, value: &str) {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().open("registers", Family::Register).unwrap();
    let (key, value) = (KeyRef::new(&space, key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    cluster.write(at, &key, Some(value.len()), |p, tick| p.set(&key, value, NEVER, tick)).unwrap();
}

fn get(cluster: &SimCluster, at: usize, key: &str) -> Option<Bytes> {
    let store = cluster.store(at)?;
    let space = store.spaces().open("registers", Family::Register).unwrap();
    store.with_entry(&KeyRef::new(&space, key.as_bytes()), |entry| match &entry?.body {
        Body::Register(cell) => cell.as_ref()?.visible(0).cloned(),
        Body::Tree(_) | Body::Custom(_) => None,
    })
}

#[test]
fn a_cluster_forms_and_replicates() {
    let mut cluster = formed(1, config(clear()));
    set(&mut cluster, 0, "a", "1");
    assert!(cluster.run_until(ms(1_000), |c| (0..3).all(|at| get(c, at, "a").is_some())).is_some());
    cluster.run_for(ms(60_000));
    assert!(converged(&cluster));
}

/// Random bytes: what compresses well says little about a network.
fn noise(rng: &mut fastrand::Rng, len: usize) -> String {
    (0..len).map(|_| rng.alphanumeric()).collect()
}

/// The last writes of a node that is stopped are nowhere else. Its peers refuse frames that came late, and have nobody
/// to ask for them again.
#[test]
fn a_node_that_is_stopped_while_all_write_leaves_everything_it_wrote() {
    for seed in 8..16 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let delay = rng.u64(5..150);
        let weather = Weather { delay_min: ms(delay), delay_max: ms(delay + 1), loss: 0.02, ..clear() };
        let mut cluster = formed(seed, config(weather));
        cluster.run_for(ms(1_000));
        let (steps, size) = (rng.u64(50..300), rng.usize(20..300));
        for step in 0..steps {
            for at in 0..3 {
                set(&mut cluster, at, &format!("{at}.{step}"), &noise(&mut rng, size));
            }
            cluster.run_for(ms(5));
        }
        assert!(cluster.perform(Action::Stop { at: 0 }));
        for step in steps..steps + 300 {
            for at in 1..3 {
                set(&mut cluster, at, &format!("{at}.{step}"), &noise(&mut rng, size));
            }
            cluster.run_for(ms(5));
        }
        cluster.run_for(ms(3_000));
        for at in 1..3 {
            let lost = (0..steps).filter(|step| get(&cluster, at, &format!("0.{step}")).is_none()).count();
            assert_eq!(lost, 0, "seed {seed}: node {at} lacks {lost} of {steps} writes");
        }
    }
}

/// A hello that was under way for long shows an old time, which says nothing about this node's clock. A link is up
/// before its hellos are through, so a clog may come between.
#[test]
fn a_hello_that_comes_late_is_no_clock_that_is_behind() {
    for seed in 0..10 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut cluster = SimCluster::new(seed, config(clear())).unwrap();
        cluster.run_for(ms(rng.u64(80..130)));
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            assert!(cluster.perform(Action::Clog { from, to, ms: rng.u16(1_100..1_400) }));
        }
        assert!(cluster.run_until(ms(20_000), joined).is_some(), "seed {seed}: the cluster forms");
        for at in 0..3 {
            let refused = cluster.take_events(at).into_iter().any(|event| matches!(event, Event::ClockRefused { .. }));
            assert!(!refused, "seed {seed}: node {at}");
        }
    }
}
