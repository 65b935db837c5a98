//! What the present design does not promise: after it, history may be broken and nothing else.
//!
//! # Invariants
//! * A limit excuses what a host shows, never that hosts differ, that a bound is passed, or a panic.
//! * Once a run is beyond a limit it stays there.

use super::check::Invariant;
use super::cluster::SimCluster;

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

impl SimCluster {
    /// Returns the limit this run went beyond first, if it did.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        let removed = self.founders_before.iter().any(|earlier| self.ordered.contains(earlier));
        self.limit.or_else(|| removed.then_some(Limit::FoundedAfterRemoval))
    }

    /// A host has joined, or founded.
    pub(super) fn note_joined(&mut self, at: usize, founded: bool) {
        let Some(host) = self.hosts.get(at) else { return };
        let (node, donor) = (host.identity.node, host.donor);
        if founded {
            let earlier = self.hosts.iter().filter(|h| h.identity.node == node).flat_map(|h| &h.earlier);
            self.founders_before.extend(earlier);
        }
        let mut others = (0..self.hosts.len()).filter(|other| *other != at && self.is_running(*other));
        let is = |other: usize, node| self.hosts.get(other).is_some_and(|h| h.identity.node == node);
        let beyond = if founded {
            others.any(|other| is(other, node)).then_some(Limit::FoundedTwice)
        } else {
            let of_removed = others.any(|other| donor.is_some_and(|d| is(other, d)) && self.is_removed(other));
            of_removed.then_some(Limit::LetInByRemoved)
        };
        self.limit = self.limit.or(beyond);
    }
}
