//! Clusters in virtual time: how one forms, a write and a read at one of its nodes, and whether all have seen the same.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part of this")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless::crdt::{Ctx, NEVER};
use driftless::error::WriteError;
use driftless::node::Mark;
use driftless::sim::{Setting, SimCluster, SimConfig};
use driftless::store::{Body, Family, KeyRef, Store};

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// All nodes that run have joined.
pub(crate) fn joined(cluster: &SimCluster) -> bool {
    (0..cluster.len()).all(|at| cluster.node(at).is_none_or(|n| n.stats().joined))
}

/// All nodes that run, do not lie and are members have joined.
pub(crate) fn honest_joined(cluster: &SimCluster) -> bool {
    cluster.honest().all(|at| cluster.node(at).unwrap().stats().joined)
}

pub(crate) fn formed(seed: u64, config: SimConfig) -> SimCluster {
    formed_within(seed, config, ms(10_000))
}

pub(crate) fn formed_within(seed: u64, config: SimConfig, within: Duration) -> SimCluster {
    let mut cluster = SimCluster::new(seed, config).unwrap();
    assert!(cluster.run_until(within, joined).is_some(), "seed {seed}: the cluster forms");
    cluster
}

/// A cluster of a setting, a second after all have joined; what they told until then is forgotten.
pub(crate) fn formed_from(seed: u64, setting: &Setting) -> SimCluster {
    let mut cluster = SimCluster::from_setting(seed, setting).unwrap();
    assert!(cluster.run_until(ms(10_000), honest_joined).is_some(), "seed {seed}: the cluster forms");
    cluster.run_for(ms(1_000));
    (0..cluster.host_count()).for_each(|at| drop(cluster.take_events(at)));
    cluster
}

pub(crate) fn contexts(store: &Store) -> Vec<Ctx> {
    store.partition_ids().map(|id| store.read(id).unwrap().ctx().clone()).collect()
}

/// All nodes that run have joined and have seen the same.
pub(crate) fn converged(cluster: &SimCluster) -> bool {
    let stores: Vec<Arc<Store>> = (0..cluster.len()).filter_map(|at| cluster.store(at)).collect();
    joined(cluster) && stores.windows(2).all(|pair| contexts(&pair[0]) == contexts(&pair[1]))
}

pub(crate) fn set(
    cluster: &mut SimCluster,
    at: usize,
    key: &str,
    value: &(impl AsRef<[u8]> + ?Sized),
) -> Result<Mark, WriteError> {
    let Some(store) = cluster.store(at) else { return Err(WriteError::NotJoined) };
    let space = store.spaces().open("registers", Family::Register).unwrap();
    let (key, value) = (KeyRef::new(&space, key.as_bytes()), Bytes::copy_from_slice(value.as_ref()));
    let partition = store.place(key.hash);
    let written = cluster.write(at, &key, Some(value.len()), |p, tick| p.set(&key, value, NEVER, tick))?;
    Ok(Mark { partition, dot: written.dot })
}

pub(crate) fn get(cluster: &SimCluster, at: usize, key: &str) -> Option<Bytes> {
    let store = cluster.store(at)?;
    let space = store.spaces().open("registers", Family::Register).unwrap();
    store.with_entry(&KeyRef::new(&space, key.as_bytes()), |entry| match &entry?.body {
        Body::Register(cell) => cell.as_ref()?.visible(0).cloned(),
        Body::Tree(_) | Body::Custom(_) => None,
    })
}
