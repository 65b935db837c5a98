//! Hosts that do not hold everything: what they fetch, and what may be missing there.
//!
//! # Invariants
//! * Any register may be missing at an edge, and nowhere else because of one. What it shows is what history says.
//! * Once everything is quiet, an edge fetches every register that there is.

use std::time::Duration;

use super::check::{Invariant, Licence, Violation, at_host};
use super::cluster::SimCluster;
use super::oracle::{Key, cell};
use super::seeds::has_bit;
use super::watcher::Watcher;
use super::workload::{self, REGISTERS};
use crate::crdt::Payload;
use crate::error::FetchError;
use crate::id::ReplicaId;
use crate::node::{FetchId, Input};
use crate::store::{KeyRef, Store};

/// How long the edges of a plan wait for an answer: some losses on a long path.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a fetch that must succeed in the end is tried, and how long after it failed.
const FETCH_TRIES: u32 = 8;
const FETCH_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long they keep what is read: plans are over within a minute.
pub(super) const KEEP_FOR: Duration = Duration::from_secs(4);

impl SimCluster {
    /// Tells whether a host is an edge.
    #[must_use]
    pub fn is_edge(&self, at: usize) -> bool {
        self.hosts.get(at).is_some_and(|host| has_bit(self.config.edges.0, host.place))
    }

    /// Tells whether a replica runs, or ran, on an edge.
    pub(super) fn was_edge(&self, replica: ReplicaId) -> bool {
        let ran = |at: &usize| self.hosts.get(*at).is_some_and(|host| host.was(replica));
        (0..self.host_count()).filter(|at| self.is_edge(*at)).any(|at| ran(&at))
    }

    /// Has somebody at an edge fetch a register unless it is there, or known to be gone, as the public handle does.
    pub fn fetch(&mut self, at: usize, key: &Key) -> Option<FetchId> {
        let store = self.store(at).filter(|_| self.is_edge(at) && !self.is_paused(at))?;
        let space = store.spaces().open(key.space.name, key.space.family).ok()?;
        let now_ms = store.clock().visible_ms(self.now(at).wall_ms);
        let is_known = store.with_entry(&KeyRef::new(&space, &key.name), |entry| {
            entry.and_then(cell).is_some_and(|cell| {
                cell.visible(now_ms).is_some() || *cell.payload() == Payload::Tombstone || cell.deadline <= now_ms
            })
        });
        if is_known {
            return None;
        }
        self.next_wait += 1;
        let id = FetchId(self.next_wait);
        self.input(at, Input::Fetch { id, keyspace: space.id(), key: key.name.clone() });
        Some(id)
    }

    /// Returns how a fetch ended.
    #[must_use]
    pub fn fetched(&self, at: usize, id: FetchId) -> Option<&Result<(), FetchError>> {
        self.hosts.get(at)?.fetched.get(&id)
    }

    pub(super) fn fetch_named(&mut self, at: usize, key: u8) -> bool {
        self.fetch(at, &workload::key(REGISTERS, key)).is_some()
    }
}

/// Fetches a register that is not there, again if it fails; returns how that ended.
fn fetch_at_last(cluster: &mut SimCluster, at: usize, key: &Key) -> Option<Result<(), FetchError>> {
    let mut end = None;
    for _ in 0..FETCH_TRIES {
        let Some(id) = cluster.fetch(at, key) else { return Some(Ok(())) };
        let ended = |cluster: &SimCluster| cluster.fetched(at, id).is_some();
        cluster.run_until(FETCH_TIMEOUT + Duration::from_secs(1), ended);
        end = cluster.fetched(at, id).cloned();
        if end == Some(Ok(())) {
            break;
        }
        cluster.run_for(FETCH_AGAIN_AFTER);
    }
    end
}

impl Watcher {
    /// What may be missing of a key in a store.
    pub(super) fn licence_in(&self, store: &Store, key: &Key) -> Licence {
        let licence = self.licences.get(key).cloned().unwrap_or_default();
        Licence { misses: store.warm().is_some(), ..licence }
    }

    /// Checks that an edge can fetch whatever there is, though not always at once: on a network that loses much nobody may be
    /// heard for a moment.
    pub(super) fn everything_is_fetched(&self, cluster: &mut SimCluster) -> Result<(), Violation> {
        let edges: Vec<usize> = cluster.honest().filter(|at| cluster.is_edge(*at)).collect();
        let keys: Vec<Key> = self.history().keys().filter(|key| key.space == REGISTERS).cloned().collect();
        let none = Licence::default();
        for (at, key) in edges.iter().flat_map(|at| keys.iter().map(move |key| (*at, key))) {
            let end = fetch_at_last(cluster, at, key);
            if end != Some(Ok(())) {
                let what = format!("a fetch of {:?} ended with {end:?}", key.name);
                return Err(at_host(at)(Violation::new(Invariant::Waits, what)));
            }
            let now_ms = self.latest_ms.max(cluster.decides_ms());
            let licence = self.licences.get(key).unwrap_or(&none);
            self.agrees_but_for(cluster, (at, now_ms), key, licence)?;
        }
        Ok(())
    }
}
