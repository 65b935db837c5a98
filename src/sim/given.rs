//! What a host that joins was given by its donor, and what a host that leaves gives the others.
//!
//! # Invariants
//! * It is looked at in the very instant in which the host joins: what comes later comes all the same, and then nobody
//!   can tell.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use crate::crdt::{Ctx, Dot};
use crate::id::{PartitionId, ReplicaId};
use crate::membership::Reach;
use crate::node::Node;

/// What donors owe, and what was found wanting.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// What a donor called stable when it counted its joiner as a member, by joiner: from then on it waits for that.
    owed: BTreeMap<ReplicaId, Owed>,
    short: Option<Violation>,
    /// What those that left in order, or learnt that they were removed, had seen when they did.
    departed: BTreeMap<ReplicaId, Vec<Ctx>>,
}

#[derive(Debug)]
struct Owed {
    donor: ReplicaId,
    stable: Vec<(PartitionId, Ctx)>,
}

impl SimCluster {
    /// Checks that every host had what its donor called stable when it joined, since nobody waits for that any more, and
    /// that somebody had all that was with a host that left.
    ///
    /// # Errors
    /// [`Violation`] of the first that fell short.
    pub fn all_given(&self) -> Result<(), Violation> {
        self.given.short.clone().map_or(Ok(()), Err)
    }

    /// Returns the replicas of those that run and have not joined.
    pub(super) fn joining(&self) -> BTreeSet<ReplicaId> {
        let nodes = (0..self.host_count()).filter_map(|at| self.node(at));
        nodes.filter(|node| !node.stats().joined).map(|node| node.me().replica).collect()
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
        let short = self.not_counted(at).or_else(|| self.not_given(at));
        self.given.short = self.given.short.take().or(short);
    }

    /// The donor counts its joiner from before the first thing it gives: else it forgets what the joiner has not seen.
    fn not_counted(&self, at: usize) -> Option<Violation> {
        let joiner = self.node(at)?;
        let me = joiner.me().replica;
        let sponsor = sponsor_of(joiner, me)?;
        let is_sponsor = |other: &usize| self.node(*other).is_some_and(|node| node.me().replica == sponsor);
        let donor = (0..self.host_count()).find(is_sponsor).filter(|other| self.is_honest(*other))?;
        let knows = self.node(donor)?.members().knows(me);
        let what = || format!("r{at} joined through r{donor}, which does not count it as a member");
        (!knows).then(|| Violation::new(Invariant::Stability, what()))
    }

    fn not_given(&self, at: usize) -> Option<Violation> {
        let joiner = self.node(at)?;
        let me = joiner.me().replica;
        let owed = self.given.owed.get(&me).filter(|owed| sponsor_of(joiner, me) == Some(owed.donor))?;
        let has = |id: PartitionId, stable: &Ctx| joiner.store().read(id).is_none_or(|p| p.ctx().includes(stable));
        let (id, stable) = owed.stable.iter().find(|(id, stable)| !has(*id, stable))?;
        let what = format!("r{at} joined without {stable:?} of {id}, which its donor called stable");
        Some(Violation::new(Invariant::Stability, what))
    }

    /// A host has handed everything over: its process ends.
    pub(super) fn go(&mut self, at: usize) {
        self.given.short = self.given.short.take().or_else(|| self.leaves_with_something(at));
        if let Some(node) = self.node(at) {
            let (me, store) = (node.me().replica, node.store());
            let contexts = store.partition_ids().filter_map(|id| Some(store.read(id)?.ctx().clone())).collect();
            self.note_departed(me, contexts);
        }
        self.stop(at);
    }

    /// A replica has ended, and this is what it had seen.
    pub(super) fn note_departed(&mut self, replica: ReplicaId, contexts: Vec<Ctx>) {
        self.given.departed.insert(replica, contexts);
    }

    /// Returns what a replica that has left in order, or was removed, had seen by then.
    pub(super) fn departed(&self, replica: ReplicaId) -> Option<&Vec<Ctx>> {
        self.given.departed.get(&replica)
    }

    /// Tells whether a replica that was removed had seen an event when it heard of that, and was not the one that made it.
    pub(super) fn departed_with(&self, id: PartitionId, dot: Dot) -> bool {
        let mut departed = self.given.departed.iter().filter(|(replica, _)| **replica != dot.replica);
        departed.any(|(_, contexts)| contexts.get(id.index()).is_some_and(|ctx| ctx.has(dot)))
    }

    /// Everybody the leaver hears must have what it wrote, and somebody there must be that holds everything. Who has just ended
    /// had it, and liars are not believed anyway.
    fn leaves_with_something(&self, at: usize) -> Option<Violation> {
        let leaver = self.node(at).filter(|_| self.hosts.iter().all(|host| !host.lies))?;
        let me = leaver.me().replica;
        let has_all = |other: &Node| {
            leaver.store().partition_ids().all(|id| match (other.store().read(id), leaver.store().read(id)) {
                (Some(theirs), Some(mine)) => match (mine.ctx().of(me), theirs.ctx().of(me)) {
                    (Some(made), Some(seen)) => seen.includes(made),
                    (Some(_), None) => false,
                    (None, _) => true,
                },
                _ => true,
            })
        };
        let hears = |other: &&Node| {
            let replica = other.me().replica;
            leaver.members().get(replica).is_some() && leaver.reach(replica) == Some(Reach::Up)
        };
        if !leaver.members().live().any(|(replica, member)| replica != me && !member.profile.is_edge) {
            let what = format!("r{at} ends although only edges are left");
            return Some(Violation::new(Invariant::Acknowledged, what));
        }
        let mut others = (0..self.host_count())
            .filter(|other| *other != at && !self.is_edge(*other))
            .filter_map(|other| self.node(other));
        let lacks = others.find(|other| hears(other) && !has_all(other))?;
        let what = format!("r{at} ends with something that {} lacks, which it hears", lacks.me().replica);
        Some(Violation::new(Invariant::Acknowledged, what))
    }
}

fn sponsor_of(node: &Node, member: ReplicaId) -> Option<ReplicaId> {
    node.members().get(member)?.sponsor
}
