//! What a host that joins was given by its donor.
//!
//! # Invariants
//! * It is looked at in the very instant in which the host joins: what comes later comes all the same, and then nobody
//!   can tell.

use std::collections::BTreeMap;

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use crate::crdt::Ctx;
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;

/// What donors owe, and what was found wanting.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// What a donor called stable when it counted its joiner as a member, by joiner: from then on it waits for that.
    owed: BTreeMap<ReplicaId, Owed>,
    short: Option<Violation>,
}

#[derive(Debug)]
struct Owed {
    donor: ReplicaId,
    stable: Vec<(PartitionId, Ctx)>,
}

impl SimCluster {
    /// Checks that every host had what its donor called stable when it joined: nobody waits for that any more.
    ///
    /// # Errors
    /// [`Violation`] of the first that had not.
    pub fn all_given(&self) -> Result<(), Violation> {
        self.given.short.clone().map_or(Ok(()), Err)
    }

    /// A host counts a replica as a member from now on.
    pub(super) fn note_counted(&mut self, at: usize, joiner: ReplicaId) {
        let sponsors = |node: &&Node| sponsor_of(node, joiner) == Some(node.me().replica);
        let Some(donor) = self.node(at).filter(|_| self.is_honest(at)).filter(sponsors) else { return };
        let store = donor.store();
        let stable = store.partition_ids().filter_map(|id| Some((id, store.read(id)?.frontier().clone()))).collect();
        self.given.owed.insert(joiner, Owed { donor: donor.me().replica, stable });
    }

    /// A host has joined through a donor, perhaps not the one that counted it first.
    pub(super) fn note_given(&mut self, at: usize) {
        let Some(joiner) = self.node(at) else { return };
        let me = joiner.me().replica;
        let Some(owed) = self.given.owed.get(&me).filter(|owed| sponsor_of(joiner, me) == Some(owed.donor)) else {
            return;
        };
        let has = |id: PartitionId, stable: &Ctx| joiner.store().read(id).is_none_or(|p| p.ctx().includes(stable));
        let short = owed.stable.iter().find(|(id, stable)| !has(*id, stable)).map(|(id, stable)| {
            let what = format!("r{at} joined without {stable:?} of {id}, which its donor called stable");
            Violation::new(Invariant::Stability, what)
        });
        self.given.short = self.given.short.take().or(short);
    }
}

fn sponsor_of(node: &Node, member: ReplicaId) -> Option<ReplicaId> {
    node.members().get(member)?.sponsor
}
