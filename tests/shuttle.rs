//! The real store, clock and node under thousands of schedules of their threads.
//!
//! Built with `--cfg shuttle` every lock and atomic of the store is shuttle's (`src/sync.rs`), which decides at each of
//! them which thread goes on. A scenario is run in thousands of random orders, and in as many that prefer few but
//! unlucky preemptions (PCT: Burckhardt et al., *A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs*,
//! ASPLOS 2010). A lost wake-up or resolution shows itself as a deadlock.
//!
//! ```text
//! bash .ci/run shuttle                       what CI runs
//! SHUTTLE_SCHEDULES=1000000 bash .ci/run shuttle
//! SHUTTLE_RANDOM_SEED=7 bash .ci/run shuttle other schedules; the default is always the same ones
//! ```
//! A failure prints the schedule that `shuttle::replay` takes.
//!
//! Not here: what orders of memory accesses weaker than one after the other would do. Shuttle knows only the latter;
//! `tests/loom.rs` has the two places that depend on it, and everything else is ordered by a lock.
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "shuttle/explore.rs"]
mod explore;
#[path = "shuttle/node.rs"]
mod node;
#[path = "shuttle/store.rs"]
mod store;

use std::sync::Arc;

use bytes::Bytes;
use driftless::crdt::NEVER;
use driftless::error::WriteError;
use driftless::id::{PartitionId, ReplicaId};
use driftless::store::{Family, Gate, Intent, KeyRef, Keyspace, Store, StoreConfig, Written};
use explore::explore;

/// The wall clock, which stands still.
const WALL_MS: u64 = 1_700_000_000_000;

/// An open store.
fn open_store(me: ReplicaId, partitions: usize) -> Store {
    let config = StoreConfig {
        partitions,
        hash_key: [7; 16],
        log_records_max: 1_024,
        keyspace_bytes: 1 << 20,
        key_bytes_max: 64,
        value_bytes_max: 1_024,
        is_edge: false,
    };
    let store = Store::new(me, config);
    store.set_gate(Gate::Open);
    store
}

fn registers(store: &Store) -> Arc<Keyspace> {
    store.spaces().open("registers", Family::Register).unwrap()
}

/// Returns a key in every partition, in order of partition.
fn keys(store: &Store, space: &Keyspace) -> Vec<String> {
    let hits = |id: PartitionId, key: &String| store.place(space.hash(key.as_bytes())) == id;
    store.partition_ids().map(|id| (0..).map(|n| format!("k{n}")).find(|key| hits(id, key)).unwrap()).collect()
}

/// Sets a register to the number of the event that does it. The second value says that the driver must be woken.
fn set(store: &Store, space: &Keyspace, key: &str) -> Result<(Written, bool), WriteError> {
    let at = KeyRef::new(space, key.as_bytes());
    let intent = Intent { wall_ms: WALL_MS, value_len: Some(8) };
    store.write(&at, intent, |p, tick| {
        let number = Bytes::copy_from_slice(&(p.seq() + 1).to_be_bytes());
        p.set(&at, number, NEVER, tick)
    })
}
