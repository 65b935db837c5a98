//! What the present design does not promise: after it, history may be broken and nothing else.
//!
//! # Invariants
//! * A limit excuses what a host shows and what it loses, never that hosts differ, that a bound is passed, or a panic.
//! * Once a run is beyond a limit it stays beyond it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::Invariant;
use super::cluster::SimCluster;
use crate::clock::Mono;
use crate::id::ReplicaId;

/// Why what a run shows may be older than history calls for (section 6 of `docs/design.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// Of two processes of one node, one founded a cluster of its own.
    FoundedTwice,
    /// A host founded where it saw nobody, with a clock further behind than members accept of each other.
    FoundedBehind,
}

impl Limit {
    /// Returns the name, the same in every version.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FoundedTwice => "FoundedTwice",
            Self::FoundedBehind => "FoundedBehind",
        }
    }

    /// Tells whether it explains that an invariant does not hold.
    #[must_use]
    pub fn excuses(self, invariant: &str) -> bool {
        let excused = [Invariant::History, Invariant::Resurrection, Invariant::Survival, Invariant::Effect];
        excused.iter().any(|excused| excused.name() == invariant)
    }
}

/// Where the members of a run come from.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Who has founded a cluster.
    founders: BTreeSet<ReplicaId>,
    /// When two processes of a node first lived in clusters of their own.
    twin_founded: Option<Mono>,
    /// When, by its own clock, the first founded whose clock was too far behind.
    founded_behind: Option<Mono>,
}

impl SimCluster {
    /// Returns the limit this run went beyond, if it did. Founders are beyond it when they have been there for as long as
    /// the others remember at least what they delete (R-AGE).
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        let old = |since: &Mono| self.now.since(*since) >= self.config.node.replication.collect_after;
        let Lineage { founders: _, twin_founded, founded_behind } = &self.lineage;
        let beyond = [(twin_founded, Limit::FoundedTwice), (founded_behind, Limit::FoundedBehind)];
        beyond.into_iter().find_map(|(since, limit)| since.as_ref().is_some_and(old).then_some(limit))
    }

    /// A host has joined, or founded.
    pub(super) fn note_joined(&mut self, at: usize, founded: bool) {
        let Some(host) = self.hosts.get(at) else { return };
        let (node, behind) = (host.identity.node, Duration::from_millis(host.skew_ms.min(0).unsigned_abs()));
        if founded && behind > self.config.node.membership.max_drift {
            let by_its_clock = u64::try_from(behind.as_nanos()).map_or(0, |behind| self.now.0.saturating_sub(behind));
            self.lineage.founded_behind.get_or_insert(Mono(by_its_clock));
        }
        if let Some(me) = self.node(at).map(|node| node.me().replica).filter(|_| founded) {
            self.lineage.founders.insert(me);
        }
        let is_twin = |other: &usize| self.hosts.get(*other).is_some_and(|h| h.identity.node == node);
        let mut twins = (0..self.hosts.len()).filter(|other| *other != at && self.is_running(*other)).filter(is_twin);
        if twins.any(|twin| founded || self.founded_apart_from(at, twin)) {
            self.lineage.twin_founded.get_or_insert(self.now);
        }
    }

    /// Tells whether a host runs in a cluster that it founded, and of which another has not heard.
    fn founded_apart_from(&self, at: usize, other: usize) -> bool {
        let (Some(node), Some(other)) = (self.node(at), self.node(other).map(|node| node.me().replica)) else {
            return false;
        };
        self.lineage.founders.contains(&other) && !node.members().knows(other)
    }
}
