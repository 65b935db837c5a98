//! Comparing: a partition as it was at a context that both sides have seen, and what differs there.
//!
//! A comparison works on a [`Frozen`] table: the sums of a partition at the *meet* of two contexts, as they will be at a
//! *horizon*, an instant that neither side's clock has reached. What expires until then counts on neither side, so it
//! does not matter which of them has swept it.
//!
//! # Invariants
//! * Freezing, listing and capturing change nothing.
//! * A key that an event has changed since the table was frozen, or of which an event was undone, is neither listed nor
//!   given: only what both sides hold at the meet is compared.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Body, Entry};
use super::fingerprint::{Print, Table, leaf_of};
use super::fragment::Fragment;
use super::history::{Hold, Unready};
#[cfg(any(feature = "sim", planted))]
use super::keyspace::Keyspaces;
use super::partition::{Partition, Slot};
use crate::crdt::{Ctx, NEVER, Payload, Scope};
use crate::probe::{planted, sometimes};

/// The sums of a partition at a context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frozen {
    /// The context.
    pub ctx: Ctx,
    /// What is not visible after this instant does not count, in Unix milliseconds.
    pub horizon_ms: u64,
    /// The sums.
    pub leaves: Vec<u64>,
    /// Leaves that say nothing: something in them is busy, or was evicted.
    pub without: BTreeSet<u32>,
    /// The position in the history at which it was made.
    at: u64,
    /// Keys of which something was undone.
    undone: BTreeSet<u64>,
}

/// A key that counts: its hash and its sum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// The keyed hash of the key.
    pub hash: u64,
    /// The sum of what counts of it.
    pub sum: u64,
}

impl Partition {
    /// Returns the sums as they are kept.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Sums all entries up anew: the same as [`Partition::table`], or something is wrong.
    #[must_use]
    pub fn summed_up(&self) -> Table {
        let prints = self.slots.iter().flatten().map(|s| (s.hash, s.entry.print(s.hash, &Scope::Key, 0).sum));
        self.table.rebuilt(self.len(), prints)
    }

    /// Returns the sum of everything that is visible after `horizon_ms`.
    #[must_use]
    pub fn root_at(&self, horizon_ms: u64) -> u64 {
        let gone = self.ending(horizon_ms).into_values().map(|(_, sum)| sum);
        gone.fold(self.table.root(), u64::wrapping_sub)
    }

    /// Returns what keeps the history that comparisons need for as long as it lives, as far as there is room.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.history.hold()
    }

    /// Returns the sums at `meet`, which this partition must have seen.
    ///
    /// # Errors
    /// [`Unready`] when they are not known.
    pub fn freeze(&self, meet: &Ctx, horizon_ms: u64) -> Result<Frozen, Unready> {
        let mut undone = match self.history.undo(&self.ctx, meet, horizon_ms) {
            Err(Unready::Lagging) if planted!(RepairWithoutContext) => super::history::Undone::default(),
            other => other?,
        };
        if planted!(RepairWithoutContext) {
            undone = super::history::Undone::default();
        }
        sometimes!(ComparisonUndid, if !undone.keys.is_empty());
        sometimes!(ComparisonMetBusyKey, if !undone.busy.is_empty());
        let mut leaves = self.table.leaves().to_vec();
        let mut less = |hash: u64, sum: u64| {
            if let Some(leaf) = leaves.get_mut(leaf_of(hash, self.table.leaves().len())) {
                *leaf = leaf.wrapping_sub(sum);
            }
        };
        self.ending(horizon_ms).into_values().for_each(|(hash, sum)| less(hash, sum));
        undone.keys.iter().for_each(|(hash, sum)| less(*hash, *sum));
        let mut without = self.table.partial();
        without.extend(self.mute(horizon_ms).filter_map(|hash| u32::try_from(leaf_of(hash, leaves.len())).ok()));
        let busy = undone.busy.iter().map(|hash| leaf_of(*hash, leaves.len()));
        without.extend(busy.filter_map(|leaf| u32::try_from(leaf).ok()));
        let undone = undone.keys.into_keys().chain(undone.busy).collect();
        Ok(Frozen { ctx: meet.clone(), horizon_ms, leaves, without, at: self.history.end(), undone })
    }

    /// Returns the keys of which something was given back, here or where it came from: a stub whose time has not come and
    /// that no epoch explains.
    fn mute(&self, horizon_ms: u64) -> impl Iterator<Item = u64> {
        let ends = |entry: &Entry| match &entry.body {
            Body::Register(cell) => cell.as_ref().map_or(NEVER, |c| c.deadline),
            Body::Custom(custom) => custom.as_ref().as_ref().map_or(NEVER, |c| c.deadline),
            Body::Tree(_) => NEVER,
        };
        let stub = move |s: &Slot| s.entry.is_mute() && ends(&s.entry) > horizon_ms;
        let mute = (0..).zip(&self.slots).filter_map(|(at, s)| Some((at, s.as_ref()?)));
        mute.filter(move |(at, s)| stub(s) && self.epochs_above(*at).is_empty()).map(|(_, s)| s.hash)
    }

    /// Returns what counts now and not any more after `horizon_ms`: by slot, the key's hash and the sum.
    fn ending(&self, horizon_ms: u64) -> BTreeMap<u32, (u64, u64)> {
        let due = self.expiry.iter().filter(|due| due.0.0 <= horizon_ms).map(|due| due.0.1);
        let mut ending = BTreeMap::new();
        for slot in due.chain(self.overdue.iter().copied()) {
            let Some(s) = self.slot(slot) else { continue };
            let print = |horizon_ms| s.entry.print(s.hash, &Scope::Key, horizon_ms).sum;
            ending.insert(slot, (s.hash, print(0).wrapping_sub(print(horizon_ms))));
        }
        ending
    }

    /// Lists the keys of some leaves, of so many, that are as they were when the table was frozen; `None` when that is
    /// not known any more.
    #[must_use]
    pub fn list(&self, frozen: &Frozen, width: usize, leaves: &BTreeSet<u32>) -> Option<BTreeMap<u32, Vec<Listed>>> {
        let moved = self.history.since(frozen.at)?;
        let mut all: BTreeMap<u32, Vec<Listed>> = leaves.iter().map(|leaf| (*leaf, Vec::new())).collect();
        for s in self.slots.iter().flatten() {
            let leaf = u32::try_from(leaf_of(s.hash, width)).unwrap_or(u32::MAX);
            let Some(listed) = all.get_mut(&leaf) else { continue };
            if moved.contains(&s.hash) || frozen.undone.contains(&s.hash) {
                sometimes!(ListingSparedBusyKey);
                continue;
            }
            let Print { sum, .. } = s.entry.print(s.hash, &Scope::Key, frozen.horizon_ms);
            if sum != 0 {
                listed.push(Listed { hash: s.hash, sum });
            }
        }
        all.values_mut().for_each(|listed| listed.sort_unstable());
        Some(all)
    }

    /// Captures the present versions of keys that are as they were when the table was frozen, with the epochs
    /// behind them.
    #[must_use]
    pub fn give(&self, frozen: &Frozen, hashes: &BTreeSet<u64>) -> Vec<Fragment> {
        let Some(moved) = self.history.since(frozen.at) else { return Vec::new() };
        let still = |hash: &u64| !moved.contains(hash) && !frozen.undone.contains(hash);
        let wanted: Vec<u32> =
            hashes.iter().filter(|hash| still(hash)).filter_map(|hash| self.at_hash(*hash)).collect();
        let behind: BTreeSet<u32> = wanted.iter().flat_map(|slot| self.epochs_above(*slot)).collect();
        let own = wanted.iter().chain(behind.iter().filter(|slot| !wanted.contains(slot)));
        own.filter_map(|slot| self.slot(*slot))
            .filter_map(|s| whole(&s.entry, |e| e.restrict(s.keyspace, &s.key, &Scope::Key)))
            .collect()
    }

    /// Loses what is held of a key, without an event, as memory that fails does. The sums follow.
    #[cfg(any(feature = "sim", planted))]
    pub fn lose(&mut self, hash: u64, spaces: &Keyspaces) {
        let Some(slot) = self.at_hash(hash) else { return };
        let Some(space) = self.slot(slot).and_then(|s| spaces.get(s.keyspace)) else { return };
        let lost = Entry::new(space.family()).body;
        self.change(slot, &space, Some(&Scope::Key), |entry| entry.body = lost);
        self.drop_if_empty(slot, &space);
    }

    fn at_hash(&self, hash: u64) -> Option<u32> {
        self.index.find(hash, |slot| self.slot(*slot).is_some_and(|s| s.hash == hash)).copied()
    }

    /// Tells whether a key is as it was when the table was frozen.
    pub(super) fn is_still(&self, frozen: &Frozen, hash: u64) -> bool {
        !frozen.undone.contains(&hash) && self.history.since(frozen.at).is_some_and(|moved| !moved.contains(&hash))
    }
}

/// Restricts an entry that can speak for all of its key: an evicted map cannot, nor can what was evicted of a register.
fn whole(entry: &Entry, restrict: impl FnOnce(&Entry) -> Fragment) -> Option<Fragment> {
    let speaks = match &entry.body {
        Body::Register(cell) => cell.is_some(),
        Body::Custom(custom) => custom.as_ref().as_ref().is_some_and(|c| c.state != Payload::Absent),
        Body::Tree(tree) => !tree.is_hole(),
    };
    speaks.then(|| Fragment { covers: Vec::new(), ..restrict(entry) })
}
