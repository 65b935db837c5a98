//! Taking in what another copy holds at the meet of both contexts, where this one differs.
//!
//! # Invariants
//! * Nothing is removed because the other copy does not hold it: under equal contexts absence has another explanation,
//!   which is silent loss. What is present is taken.
//! * No dot is minted, no context advances, no report is noted.
//! * A key that an event has changed since the comparison began is left as it is.

use std::collections::BTreeSet;

use super::apply::Around;
use super::compare::Frozen;
use super::entry::Entry;
use super::fragment::{Applied, Fragment};
use super::keyspace::Family;
use super::partition::{KeyRef, Partition};
use crate::crdt::{Ctx, Scope};
use crate::probe::sometimes;

/// What taking in did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// As of any batch. No dot was new.
    pub applied: Applied,
    /// Keys that were changed here.
    pub keys: u64,
    /// Fragments of keys of which this copy holds more than the sender: it is to be told.
    pub answers: Vec<Fragment>,
}

impl Partition {
    /// Joins in what another copy holds of keys that differ.
    pub fn restore(&mut self, frozen: &Frozen, fragments: &[Fragment], around: &Around<'_>) -> Restored {
        let mut restored = Restored::default();
        let mut more = BTreeSet::new();
        for fragment in fragments {
            let Some(space) = around.spaces.get(fragment.keyspace) else { continue };
            let at = KeyRef::new(&space, &fragment.key);
            let hole = fragment.branch.hole || self.entry(&at).is_some_and(Entry::is_hole);
            if hole || fragment.scope != Scope::Key || !self.is_still(frozen, at.hash) {
                sometimes!(RestoreSparedBusyKey);
                continue;
            }
            let news = self.restore_fragment(fragment, around, &mut restored.applied);
            let epoch = space.family() == Family::Epoch;
            restored.keys += u64::from(news && !epoch);
            if self.has_more_than(&at, fragment) && !epoch {
                more.insert(at.hash);
            }
        }
        restored.answers = self.give(frozen, &more);
        restored
    }

    fn restore_fragment(&mut self, fragment: &Fragment, around: &Around<'_>, applied: &mut Applied) -> bool {
        let before = self.table.root();
        let bare = Fragment { covers: Vec::new(), ..fragment.clone() };
        let mine = std::mem::take(&mut self.ctx);
        self.join_fragment(&bare, &Ctx::default(), around, applied);
        self.ctx = mine;
        self.table.root() != before
    }

    fn has_more_than(&self, at: &KeyRef<'_>, fragment: &Fragment) -> bool {
        self.entry(at).is_some_and(|entry| {
            let mine = entry.restrict(fragment.keyspace, &fragment.key, &Scope::Key);
            (&mine.cell, &mine.branch, &mine.custom) != (&fragment.cell, &fragment.branch, &fragment.custom)
        })
    }
}
