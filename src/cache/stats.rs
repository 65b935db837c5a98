//! What a cache counts.

use crate::node::Stats;
use crate::store::{Keyspace, Tallied};

/// The view and the counters of a node and its keyspaces.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CacheStats {
    /// The node: members, peers, links, lag, conflicts.
    pub node: Stats,
    /// Every keyspace opened here or heard of from a peer.
    pub keyspaces: Vec<KeyspaceStats>,
}

impl CacheStats {
    /// Returns the counters of a keyspace.
    #[must_use]
    pub fn keyspace(&self, name: &str) -> Option<&KeyspaceStats> {
        self.keyspaces.iter().find(|k| k.name == name)
    }
}

/// The counters of one keyspace in this process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeyspaceStats {
    /// Its name.
    pub name: String,
    /// The family of types it holds.
    pub family: &'static str,
    /// Bytes its entries take.
    pub used_bytes: u64,
    /// Bytes it may take.
    pub budget_bytes: u64,
    /// Local reads that found something visible.
    pub hits: u64,
    /// Local reads that did not.
    pub misses: u64,
    /// Local writes.
    pub writes: u64,
}

impl KeyspaceStats {
    /// Returns how many local reads there were.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.hits + self.misses
    }

    pub(super) fn of(space: &Keyspace) -> Self {
        let Tallied { hits, misses, writes } = space.tally().sum();
        Self {
            name: space.name().to_owned(),
            family: space.family().name(),
            used_bytes: space.used(),
            budget_bytes: space.budget(),
            hits,
            misses,
            writes,
        }
    }
}
