//! What a host that joins was given by its donor.
//!
//! # Invariants
//! * It is looked at in the very instant in which the host joins: what comes later comes all the same, and then nobody
//!   can tell.

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use crate::node::Node;

impl SimCluster {
    /// Checks that every host had what its donor called stable when it joined: nobody waits for that any more.
    ///
    /// # Errors
    /// [`Violation`] of the first that had not.
    pub fn all_given(&self) -> Result<(), Violation> {
        self.short.clone().map_or(Ok(()), Err)
    }

    /// A host has joined through a donor.
    pub(super) fn note_given(&mut self, at: usize) {
        let short = self.donor_at(at).and_then(|donor| short(self.node(at)?, self.node(donor)?));
        let found = short.map(|what| Violation::new(Invariant::Stability, format!("r{at} joined without {what}")));
        self.short = self.short.take().or(found);
    }

    /// Returns the one process that can have been the donor of a host, where it counts that as a member.
    fn donor_at(&self, at: usize) -> Option<usize> {
        let (joiner, donor) = (self.replica(at)?, self.hosts.get(at)?.donor?);
        let is = |other: &usize| self.hosts.get(*other).is_some_and(|h| h.node.is_some() && h.identity.node == donor);
        let mut all = (0..self.host_count()).filter(is);
        let only = all.next().filter(|_| all.next().is_none())?;
        let counts = self.node(only)?.members().live().any(|(replica, _)| replica == joiner);
        (counts && self.is_honest(at) && self.is_honest(only)).then_some(only)
    }
}

/// Says what a donor calls stable and its joiner has not seen.
fn short(joiner: &Node, donor: &Node) -> Option<String> {
    let lacks = |id| {
        let (mine, theirs) = (joiner.store().read(id)?, donor.store().read(id)?);
        let (seen, stable) = (mine.ctx(), theirs.frontier());
        (!seen.includes(stable)).then(|| format!("{stable:?} of {id}, which its donor called stable: it had {seen:?}"))
    };
    joiner.store().partition_ids().find_map(lacks)
}
