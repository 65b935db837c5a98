//! What the present design does not promise: after it, history may be broken and nothing else.
//!
//! # Invariants
//! * A limit excuses what a host shows, never that hosts differ, that a bound is passed, or a panic.
//! * Once a run is beyond a limit it stays beyond one.

use super::check::Invariant;
use super::cluster::SimCluster;
use crate::clock::Mono;
use crate::id::ReplicaId;

/// Why what a run shows may be older than history calls for (section 6 of `docs/design.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// A host was let in by one that others had removed already. What the others have forgotten together since then, it
    /// takes over as news.
    LetInByRemoved,
    /// Of two processes of one node, one founded a cluster of its own.
    FoundedTwice,
    /// A node whose earlier replica an operator had removed founded a cluster while others ran one: they no longer wait
    /// for it.
    FoundedAfterRemoval,
}

impl Limit {
    /// Returns the name, the same in every version.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LetInByRemoved => "LetInByRemoved",
            Self::FoundedTwice => "FoundedTwice",
            Self::FoundedAfterRemoval => "FoundedAfterRemoval",
        }
    }

    /// Tells whether it explains that an invariant does not hold.
    #[must_use]
    pub fn excuses(self, invariant: &str) -> bool {
        [Invariant::History, Invariant::Resurrection].iter().any(|excused| excused.name() == invariant)
    }
}

/// Where the members of a run come from.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    let_in_by_removed: bool,
    /// When one of two processes of a node first founded.
    twin_founded: Option<Mono>,
    /// The earlier replicas of nodes that founded, and when they did.
    founders_before: Vec<(ReplicaId, Mono)>,
}

impl SimCluster {
    /// Returns a limit this run went beyond, if it did. Founders are beyond one when they have been there for as long as
    /// the others remember at least what they delete (R-AGE).
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        let Lineage { let_in_by_removed, twin_founded, founders_before } = &self.lineage;
        let old = |since: &Mono| self.now.since(*since) >= self.config.node.replication.collect_after;
        let removed = founders_before.iter().any(|(earlier, since)| self.ordered.contains(earlier) && old(since));
        [
            (*let_in_by_removed, Limit::LetInByRemoved),
            (twin_founded.as_ref().is_some_and(old), Limit::FoundedTwice),
            (removed, Limit::FoundedAfterRemoval),
        ]
        .into_iter()
        .find_map(|(beyond, limit)| beyond.then_some(limit))
    }

    /// A host has joined, or founded.
    pub(super) fn note_joined(&mut self, at: usize, founded: bool) {
        let Some(host) = self.hosts.get(at) else { return };
        let (node, donor) = (host.identity.node, host.donor);
        let is = |other: usize, node| self.hosts.get(other).is_some_and(|h| h.identity.node == node);
        let mut others = (0..self.hosts.len()).filter(|other| *other != at && self.is_running(*other));
        if !founded {
            let of_removed = others.any(|other| donor.is_some_and(|d| is(other, d)) && self.is_removed(other));
            self.lineage.let_in_by_removed |= of_removed;
            return;
        }
        if others.any(|other| is(other, node)) {
            self.lineage.twin_founded.get_or_insert(self.now);
        }
        let earlier = self.hosts.iter().filter(|h| h.identity.node == node).flat_map(|h| &h.earlier);
        self.lineage.founders_before.extend(earlier.map(|replica| (*replica, self.now)));
    }
}
