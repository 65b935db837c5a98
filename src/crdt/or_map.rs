//! A map that stands alone: a [`Tree`] next to the context that makes it a semilattice.
//!
//! The store keeps one context for a whole partition; this type keeps its own, so the map can be
//! used, tested and reasoned about as an ordinary CRDT. Every mutator returns its *delta*, which is
//! a small map again: an operation is a state, and applying it is merging it (arXiv 1603.01529).
//!
//! # Invariants
//! * The dot of every element is in the context.
//! * For a mutator `m` and its delta `d`: `m(x) = x ⊔ d`.
//!
//! What is *not* here: eviction. A map with a hole knows only a part and is no semilattice.

use bytes::Bytes;
use crdts::{CmRDT, CvRDT, ResetRemove, VClock};

use super::context::{Ctx, Dot};
use super::counter::Contribution;
use super::tree::{Elem, Path, Scope, Tree};
use crate::id::ReplicaId;

/// An observed-remove map with its causal context.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OrMap {
    ctx: Ctx,
    tree: Tree,
}

impl OrMap {
    /// Returns what this map has seen.
    #[must_use]
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Returns the elements and counters.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Puts an element at a path, replacing what is observed there.
    pub fn put(&mut self, path: Path, elem: Elem) -> Self {
        let mut delta = self.observed_at(&path, elem.dot);
        delta.tree.put(path, elem);
        self.join(&delta);
        delta
    }

    /// Erases what is observed at a path; `dot` is the event.
    pub fn remove(&mut self, path: &Path, dot: Dot) -> Self {
        let delta = self.observed_at(path, dot);
        self.join(&delta);
        delta
    }

    /// Erases everything observed; `dot` is the event.
    pub fn clear(&mut self, dot: Dot) -> Self {
        let mut delta = Self::default();
        delta.ctx.add(dot);
        self.tree.elems().flat_map(|(_, siblings)| siblings).for_each(|e| delta.ctx.add(e.dot));
        for (name, counter) in self.tree.counters() {
            *delta.tree.counter_mut(name) = counter.clone();
        }
        delta.tree.clear(dot);
        self.join(&delta);
        delta
    }

    /// Adds to a counter; `dot` is the event, `deadline` holds for a contribution that
    /// begins with it.
    pub fn increment(&mut self, name: &Bytes, dot: Dot, by: i64, deadline: u64) -> Self {
        let known = self.tree.counter(name).and_then(|c| c.0.get(&dot.replica)).copied();
        let mut contribution = known.unwrap_or_else(|| Contribution::born(dot.seq, deadline));
        contribution.add(dot.seq, by);
        let mut delta = Self::default();
        delta.ctx.add(dot);
        delta.tree.counter_mut(name).0.insert(dot.replica, contribution);
        self.join(&delta);
        delta
    }

    /// Erases every increment observed; `dot` is the event.
    pub fn reset(&mut self, name: &Bytes, dot: Dot) -> Self {
        let mut delta = Self::default();
        delta.ctx.add(dot);
        if let Some(counter) = self.tree.counter(name) {
            let floored = delta.tree.counter_mut(name);
            floored.clone_from(counter);
            floored.reset(dot);
        }
        self.join(&delta);
        delta
    }

    fn observed_at(&self, path: &Path, dot: Dot) -> Self {
        let mut observed = Self::default();
        observed.ctx.add(dot);
        self.tree.siblings(path).iter().for_each(|e| observed.ctx.add(e.dot));
        observed
    }

    /// Joins another state or delta in; returns whether anything visible changed.
    pub fn join(&mut self, other: &Self) -> bool {
        let changed = self.tree.join(&other.tree.restrict(&Scope::Key), &Scope::Key, &self.ctx, &other.ctx);
        self.ctx.join(&other.ctx);
        changed
    }
}

impl CvRDT for OrMap {
    type Validation = std::convert::Infallible;

    fn validate_merge(&self, _other: &Self) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.join(&other);
    }
}

/// The operation is a delta, so lost order and repetition do no harm.
impl CmRDT for OrMap {
    type Op = Self;
    type Validation = std::convert::Infallible;

    fn validate_op(&self, _op: &Self::Op) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn apply(&mut self, op: Self::Op) {
        self.merge(op);
    }
}

/// Erases the elements and contributions the clock covers.
impl ResetRemove<ReplicaId> for OrMap {
    fn reset_remove(&mut self, clock: &VClock<ReplicaId>) {
        self.tree.reset_remove(clock);
        self.ctx.reset_remove(clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Hlc, Stamp};
    use crate::crdt::NEVER;

    fn dot(replica: u64, seq: u64) -> Dot {
        Dot { replica: ReplicaId(replica), seq }
    }

    #[test]
    fn a_delta_joined_elsewhere_changes_the_map_once_and_shows_there_what_it_did_here() {
        let (name, path) = (Bytes::from_static(b"n"), Path::Field(Bytes::from_static(b"f")));
        let (mut here, mut there) = (OrMap::default(), OrMap::default());
        let stamp = Stamp { hlc: Hlc::from_ms(1), replica: ReplicaId(1) };
        let elem = Elem { dot: dot(1, 1), stamp, deadline: NEVER, value: Bytes::from_static(b"v") };
        for delta in [
            here.put(path.clone(), elem),
            here.increment(&name, dot(1, 2), 5, NEVER),
            here.remove(&path, dot(1, 3)),
            here.reset(&name, dot(1, 4)),
        ] {
            assert!(there.join(&delta) && !there.join(&delta), "{delta:?}");
        }
        assert_eq!(there, here);
        assert!(there.tree().siblings(&path).is_empty() && there.tree().counter(&name).is_some_and(|c| !c.is_live()));
        assert_eq!(there.ctx().of(ReplicaId(1)).map(|seen| seen.base()), Some(4));
        let again = here.increment(&name, dot(1, 5), 2, NEVER);
        let cleared = here.clear(dot(1, 6));
        assert!(there.join(&cleared) && there.tree().elems().next().is_none());
        assert_eq!(there.tree().counter(&name).map(|c| c.value(0)), Some(0), "what a clear saw stays erased");
        assert!(!there.join(&again));
    }
}
