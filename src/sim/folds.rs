//! What was folded away, and that it was the same wherever it was.
//!
//! # Invariants
//! * What a mark stands for is looked up in the very input in which it was made: later nobody can tell.
//! * A mark is told from another one at the same replica by its sum, so what a host has seen is never taken for what another
//!   one had.

use std::collections::BTreeMap;

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use crate::crdt::{Ctx, Seen};
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;

/// A mark: where it is, at which replica, and its sum.
type At = (PartitionId, ReplicaId, u64);

/// What marks stand for.
#[derive(Clone, Debug, Default)]
pub struct Folds(BTreeMap<At, Ctx>);

impl Folds {
    /// Returns a context with the events its marks stand for in their place.
    #[must_use]
    pub fn resolved(&self, partition: PartitionId, ctx: &Ctx) -> Ctx {
        let mut resolved = ctx.without_marks();
        for (floor, seen) in ctx.iter().filter(|(_, seen)| seen.is_mark()) {
            match self.0.get(&(partition, floor, seen.sum(floor))) {
                Some(events) => resolved.join(events),
                None => resolved.add_seen(floor, seen),
            }
        }
        resolved
    }

    /// Returns how many marks are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether nothing was ever folded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the marks of a context that are not known.
    fn unknown<'a>(&'a self, partition: PartitionId, ctx: &'a Ctx) -> impl Iterator<Item = (ReplicaId, &'a Seen)> {
        let is_new = move |floor: ReplicaId, seen: &Seen| !self.0.contains_key(&(partition, floor, seen.sum(floor)));
        ctx.iter().filter(move |(floor, seen)| seen.is_mark() && is_new(*floor, seen))
    }
}

/// What was folded by whom.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) folds: Folds,
    /// How often each replica had folded something when it was last looked at.
    looked: BTreeMap<ReplicaId, u64>,
    by: BTreeMap<(PartitionId, ReplicaId), BTreeMap<u64, ReplicaId>>,
    found: Option<Violation>,
}

impl SimCluster {
    /// Checks that everybody who folded had seen the same, all of it stable.
    ///
    /// # Errors
    /// [`Violation`] of the first that did not.
    pub fn all_folded_alike(&self) -> Result<(), Violation> {
        self.folded.found.clone().map_or(Ok(()), Err)
    }

    /// A host has taken an input: perhaps it has folded something.
    pub(super) fn note_folds(&mut self, at: usize) {
        let Some(node) = self.hosts.get(at).and_then(|host| host.node.as_ref()) else { return };
        let (me, folds) = (node.me().replica, node.folds());
        if self.folded.looked.insert(me, folds) == Some(folds) || folds == 0 {
            return;
        }
        let honest = self.is_honest(at);
        let mut found = None;
        for (id, floor, sum, events) in new_marks(&self.folded.folds, node) {
            if events.sum_upto(floor) == Some(sum) {
                let others = self.folded.by.entry((id, floor)).or_default();
                let other = others.iter().find(|(other, _)| **other != sum).map(|(_, by)| *by);
                let otherwise = other.filter(|other| node.members().get(*other).is_some());
                found = found
                    .or_else(|| otherwise.map(|other| format!("{id}: up to {floor} other events than {other} did")));
                others.entry(sum).or_insert(me);
                self.folded.folds.0.insert((id, floor, sum), events);
            } else {
                found = found
                    .or_else(|| Some(format!("{id}: up to {floor} more or less than {events:?}, which is stable")));
            }
        }
        if let Some(what) = found.filter(|_| honest) {
            let broken = Violation::new(Invariant::Folding, format!("r{at} folds in {what}"));
            self.folded.found.get_or_insert(broken);
        }
    }
}

/// Returns the marks a node has made and what is stable there of the replicas they stand for.
fn new_marks(known: &Folds, node: &Node) -> Vec<(PartitionId, ReplicaId, u64, Ctx)> {
    let mut marks = Vec::new();
    for p in node.store().partition_ids().filter_map(|id| node.store().read(id)) {
        for (floor, seen) in known.unknown(p.id(), p.ctx()) {
            let stable = known.resolved(p.id(), p.frontier());
            let mut events = Ctx::default();
            let below = |replica: &ReplicaId| replica.tag() == floor.tag() && *replica <= floor;
            stable.iter().filter(|(replica, _)| below(replica)).for_each(|(r, seen)| events.add_seen(r, seen));
            marks.push((p.id(), floor, seen.sum(floor), events));
        }
    }
    marks
}
