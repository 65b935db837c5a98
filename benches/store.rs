//! Local reads and writes at a million keys, one thread and two, with everything on: stamps, dots,
//! log, deadlines, byte accounting. Peers of the same run: a plain sharded map behind the same
//! locks, which is the limit the memory sets.
//!
//! `cargo bench --bench store`: medians of several rounds, in operations per second.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a benchmark reads the clock and prints"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use driftless::config::Config;
use driftless::crdt::Ctx;
use driftless::id::ReplicaId;
use driftless::store::{Body, Family, Gate, Intent, KeyRef, Keyspace, Store};
use parking_lot::RwLock;

const KEYS: u64 = 1_000_000;
const OPS: u64 = 2_000_000;
const ROUNDS: usize = 5;
const SHARDS: usize = 64;

type Plain = Vec<RwLock<std::collections::HashMap<[u8; 16], Bytes>>>;

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user:0000:000000";
    key[5..13].copy_from_slice(&n.to_be_bytes());
    key
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// Runs `op` over uniformly drawn keys on `threads` threads; returns the median rate per second.
fn measure(threads: usize, op: &(impl Fn(u64) + Sync), between: &dyn Fn()) -> f64 {
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            between();
            let start = Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    let seed = (round * 31 + thread) as u64;
                    scope.spawn(move || {
                        let mut rng = fastrand::Rng::with_seed(seed);
                        (0..OPS).for_each(|_| op(rng.u64(..KEYS)));
                    });
                }
            });
            (OPS * threads as u64) as f64 / start.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn set(store: &Store, space: &Keyspace, n: u64, value: &Bytes, ttl_ms: u64) {
    let (key, wall_ms) = (key(n), wall_ms());
    let at = KeyRef::new(space, &key);
    let intent = Intent { wall_ms, value_len: Some(value.len()) };
    let written = store.write(&at, intent, |p, tick| p.set(&at, value.clone(), wall_ms + ttl_ms, tick));
    assert!(written.is_ok(), "the bench stays within its limits");
}

fn get(store: &Store, space: &Keyspace, n: u64) -> Option<Bytes> {
    let key = key(n);
    let now_ms = store.clock().visible_ms(wall_ms());
    store.with_entry(&KeyRef::new(space, &key), |entry| match &entry?.body {
        Body::Register(cell) => cell.as_ref()?.visible(now_ms).cloned(),
        Body::Tree(_) | Body::Custom(_) => None,
    })
}

/// What every peer has seen is collected between the rounds, as reports do while running.
fn collect(store: &Store) {
    for id in store.partition_ids() {
        if let Some(mut p) = store.lock(id) {
            let seen: Ctx = p.ctx().clone();
            p.report(ReplicaId(2), &seen);
            p.collect(&[ReplicaId(2)], store.spaces(), 0);
        }
    }
    store.take_dirty();
}

fn row(name: &str, one: f64, two: f64, peer: (f64, f64)) {
    println!(
        "{name:<12}{:>10.2}{:>10.2}{:>12.2}{:>12.2}{:>9.2}{:>9.2}",
        one / 1e6,
        two / 1e6,
        peer.0 / 1e6,
        peer.1 / 1e6,
        one / peer.0,
        two / peer.1
    );
}

fn main() {
    let mut config = Config::wan("bench", "127.0.0.1:0").store();
    config.log_records_max = 64 << 20;
    let store = Arc::new(Store::new(ReplicaId(1), config));
    store.set_gate(Gate::Open);
    let Ok(space) = store.spaces().open("bench", Family::Register) else { return };
    let value = Bytes::from(vec![7_u8; 100]);
    (0..KEYS).for_each(|n| set(&store, &space, n, &value, 3_600_000));
    collect(&store);

    let plain: Plain = (0..SHARDS).map(|_| RwLock::default()).collect();
    let shard = |n: u64| plain.get(usize::try_from(n).unwrap_or(0) % SHARDS);
    let plain_set = |n: u64| drop(shard(n).map(|s| s.write().insert(key(n), value.clone())));
    let plain_get = |n: u64| drop(black_box(shard(n).and_then(|s| s.read().get(&key(n)).cloned())));
    (0..KEYS).for_each(plain_set);

    let ours_get = |n: u64| drop(black_box(get(&store, &space, n)));
    let ours_set = |n: u64| set(&store, &space, n, &value, 3_600_000);
    let (none, tidy) = (|| {}, || collect(&store));
    println!("1 M keys of 16 B + 100 B, uniform, million operations per second, median of {ROUNDS} rounds");
    println!("{:<12}{:>10}{:>10}{:>12}{:>12}{:>9}{:>9}", "", "1 thread", "2", "plain map 1", "2", "ratio 1", "2");
    let get_peer = (measure(1, &plain_get, &none), measure(2, &plain_get, &none));
    row("get", measure(1, &ours_get, &none), measure(2, &ours_get, &none), get_peer);
    let set_peer = (measure(1, &plain_set, &none), measure(2, &plain_set, &none));
    row("set", measure(1, &ours_set, &tidy), measure(2, &ours_set, &tidy), set_peer);
}
