//! A client that moves between hosts with a token never sees anything older than what it saw.
//!
//! # Invariants
//! * Only a host whose contexts include the token is held to it; a client waits, or goes elsewhere, until one does.
//! * A register never goes back to an older write. An element or item that the client saw removed stays removed.
//! * What memory or time took away is a miss, not a removal.

use std::collections::{BTreeMap, BTreeSet};

use super::agreement::siblings;
use super::{Invariant, Violation};
use crate::clock::Stamp;
use crate::crdt::custom::decode;
use crate::crdt::{Ctx, Dot, Tree};
use crate::id::PartitionId;
use crate::sim::oracle::{Key, Notes, cell, custom, tree};
use crate::store::Entry;

/// What a client carries, and what it remembers.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Client {
    token: BTreeMap<PartitionId, Ctx>,
    keys: BTreeMap<Key, Memory>,
}

/// What a client saw of a key.
#[derive(Clone, Debug, Default)]
struct Memory {
    register: Option<Stamp>,
    /// Elements and their deadlines.
    elements: BTreeMap<Dot, u64>,
    removed: BTreeSet<Dot>,
    life: Option<(Stamp, BTreeSet<u64>)>,
}

/// When a read happens: by the reader's own clock, and the latest instant any clock has shown.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Moment {
    pub(in crate::sim) now_ms: u64,
    pub(in crate::sim) latest_ms: u64,
}

impl Client {
    /// Tells whether a host that has seen `ctx` of each partition shows this client nothing older than it saw.
    pub(in crate::sim) fn is_covered(&self, ctx: impl Fn(PartitionId) -> Option<Ctx>) -> bool {
        self.token.iter().all(|(id, token)| ctx(*id).is_some_and(|ctx| ctx.includes(token)))
    }

    /// Reads a key at a host that covers the token; `seen` is what it has seen of the key's partition.
    pub(in crate::sim) fn read(
        &mut self,
        key: &Key,
        entry: Option<&Entry>,
        (partition, seen): (PartitionId, &Ctx),
        when: Moment,
    ) -> Result<(), Violation> {
        let memory = self.keys.entry(key.clone()).or_default();
        let older = memory.register(entry, when).or_else(|| memory.tree(tree(entry), when));
        if let Some(older) = older.or_else(|| memory.custom(entry, when)) {
            return Err(Violation::new(Invariant::Session, format!("{} {:?}: {older}", key.space.name, key.name)));
        }
        self.token.entry(partition).or_default().join(seen);
        Ok(())
    }
}

impl Memory {
    fn register(&mut self, entry: Option<&Entry>, when: Moment) -> Option<String> {
        let cell = entry.and_then(cell)?;
        let (stamp, before) = (cell.stamp(), self.register);
        if cell.visible(when.now_ms).is_some() && before.is_some_and(|before| stamp < before) {
            return Some(format!("shows the write {stamp:?} after {before:?} was seen"));
        }
        self.register = before.max(Some(stamp));
        None
    }

    fn tree(&mut self, tree: Option<&Tree>, when: Moment) -> Option<String> {
        let shown = tree.into_iter().flat_map(|t| t.elems().flat_map(|(path, _)| siblings(tree, path, when.now_ms)));
        let shown: BTreeMap<Dot, u64> = shown.map(|live| (live.dot, live.deadline)).collect();
        if let Some(back) = shown.keys().find(|dot| self.removed.contains(dot)) {
            return Some(format!("shows the element {back:?} again, which was seen removed"));
        }
        if !tree.is_some_and(Tree::is_hole) {
            let held: BTreeSet<Dot> =
                tree.into_iter().flat_map(Tree::elems).flat_map(|(_, s)| s).map(|elem| elem.dot).collect();
            let gone = |(dot, deadline): &(&Dot, &u64)| !held.contains(dot) && **deadline > when.latest_ms;
            self.removed.extend(self.elements.iter().filter(gone).map(|(dot, _)| *dot));
        }
        self.elements.extend(shown);
        None
    }

    fn custom(&mut self, entry: Option<&Entry>, when: Moment) -> Option<String> {
        let state = entry.and_then(custom)?;
        let notes: Notes = decode(state.visible(when.now_ms)?).ok()?;
        let (items, life) = (notes.read(), state.generation);
        if let Some((before, seen)) = &self.life
            && (life < *before || (life == *before && !items.is_superset(seen)))
        {
            return Some(format!("shows {items:?} of {life:?} after {seen:?} of {before:?} was seen"));
        }
        self.life = Some((life, items));
        None
    }
}
