//! One hash slice of the key space: the locked unit.
//!
//! A plain, deterministic struct: entries in slots, an index by hash, one causal context, one log.
//! The neighbouring files add to it: [`super::write`] the local mutations, [`super::capture`] what
//! is sent, [`super::apply`] what arrives, [`super::stability`] what may be forgotten.
//!
//! # Invariants
//! * A write's dot goes to the context, the log and the entry under one lock.
//! * The context advances only through `covers` and full synchronisation (see the rules in
//!   `docs/design.md`), never by adopting a sender's context.
//! * Own sequence numbers are contiguous from 1.
//! * Iteration over slots is in slot order; the hash index serves point lookups only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::Bytes;
use hashbrown::HashTable;

use super::entry::Entry;
use super::epoch::Epochs;
use super::fingerprint::{Print, Table, of_path};
use super::history::{History, Place, Record};
use super::keyspace::{Family, Keyspace};
use super::log::Log;
use super::verified::Verified;
use crate::clock::Hlc;
use crate::crdt::{Ctx, Dot, NEVER, Scope, Seen};
use crate::id::{KeyspaceId, PartitionId, ReplicaId};

/// Replicas of one node of which it is remembered what was folded: a client's token outlives a few restarts.
const FOLDED_MAX: usize = 4;

/// A key as the store looks it up: its keyspace, bytes and keyed hash.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    /// The keyspace.
    pub space: &'a Keyspace,
    /// The key's bytes.
    pub key: &'a [u8],
    /// The keyed hash of both; its high bits chose the partition.
    pub hash: u64,
}

impl<'a> KeyRef<'a> {
    /// Looks a key up in a keyspace.
    #[must_use]
    pub fn new(space: &'a Keyspace, key: &'a [u8]) -> Self {
        Self { space, key, hash: space.hash(key) }
    }
}

/// An entry and where it hangs.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) keyspace: KeyspaceId,
    pub(super) key: Bytes,
    pub(super) hash: u64,
    pub(super) entry: Entry,
    /// The deadline this slot is registered under in the expiry queue.
    pub(super) timer: u64,
}

/// The state of one partition.
#[derive(Debug)]
pub struct Partition {
    pub(super) id: PartitionId,
    pub(super) me: ReplicaId,
    /// Number of my latest event here.
    pub(super) seq: u64,
    pub(super) ctx: Ctx,
    /// Everything ever found stable.
    pub(super) frontier: Ctx,
    /// That, and the dots whose log records were dropped for lack of room.
    pub(super) floor: Ctx,
    pub(super) log: Log,
    pub(super) log_records_max: usize,
    pub(super) slots: Vec<Option<Slot>>,
    pub(super) free: Vec<u32>,
    pub(super) index: HashTable<u32>,
    /// The latest context each other member reported.
    pub(super) reports: BTreeMap<ReplicaId, Ctx>,
    /// `(deadline, slot)`, earliest first; entries may be out of date and are checked when due.
    pub(super) expiry: BinaryHeap<Reverse<(u64, u32)>>,
    /// `(millisecond of the stamp, slot)` of settled graves waiting to be old enough (R-AGE).
    pub(super) graves: BinaryHeap<Reverse<(u64, u32)>>,
    /// Every entry counts as truncated until all members have the floor.
    pub(super) floor_inherited: bool,
    /// What was seen of the last few replicas of each node that were folded here: for tokens, which name their events.
    pub(super) folded: BTreeMap<ReplicaId, Seen>,
    pub(super) truncated: Vec<u32>,
    pub(super) epochs: Epochs,
    /// The largest stamp of a register's grave that was collected here, or where this partition was copied.
    pub(super) forgotten: Hlc,
    /// What the entries sum up to.
    pub(super) table: Table,
    /// What the latest events changed of that.
    pub(super) history: History,
    /// What comparisons have found equal.
    pub(super) verified: Verified,
    /// What the present event has changed of its key's sum so far.
    pub(super) moved: Print,
    /// Entries that hold something expired which had to stay.
    pub(super) overdue: BTreeSet<u32>,
}

impl Partition {
    /// Builds an empty partition that keeps at most `log_records_max` log records.
    #[must_use]
    pub fn new(id: PartitionId, me: ReplicaId, log_records_max: usize) -> Self {
        Self {
            id,
            me,
            seq: 0,
            ctx: Ctx::default(),
            frontier: Ctx::default(),
            floor: Ctx::default(),
            log: Log::default(),
            log_records_max,
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            reports: BTreeMap::new(),
            expiry: BinaryHeap::new(),
            graves: BinaryHeap::new(),
            floor_inherited: false,
            folded: BTreeMap::new(),
            truncated: Vec::new(),
            epochs: Epochs::default(),
            forgotten: Hlc::default(),
            table: Table::default(),
            history: History::default(),
            verified: Verified::default(),
            moved: Print::default(),
            overdue: BTreeSet::new(),
        }
    }

    /// Returns the number of this partition.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Returns the number of my latest event here.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns everything seen here.
    #[must_use]
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Returns what was found stable here.
    #[must_use]
    pub fn frontier(&self) -> &Ctx {
        &self.frontier
    }

    /// Returns the dots whose log records are gone.
    #[must_use]
    pub fn floor(&self) -> &Ctx {
        &self.floor
    }

    /// Returns the floor while it says more than stability does: some member may lack part of it,
    /// and then takes this partition in full or not at all (R-TRUNC).
    #[must_use]
    pub fn binding_floor(&self) -> Option<&Ctx> {
        (self.floor_inherited || !self.truncated.is_empty()).then_some(&self.floor)
    }

    /// Returns the largest stamp of a register's grave that was collected here, or where this partition was copied. Of a
    /// key that is not here nobody can tell what happened to it until then.
    #[must_use]
    pub fn forgotten(&self) -> Hlc {
        self.forgotten
    }

    /// Returns the latest context a member reported.
    #[must_use]
    pub fn report_of(&self, member: ReplicaId) -> Option<&Ctx> {
        self.reports.get(&member)
    }

    /// Tells whether an event is known to have been seen here: of what is folded, only what is remembered.
    #[must_use]
    pub fn has_seen(&self, dot: Dot) -> bool {
        self.ctx.names(dot)
            || (self.ctx.has(dot) && self.folded.get(&dot.replica).is_some_and(|seen| seen.has(dot.seq)))
    }

    /// Tells whether a member is known to have seen an event that was seen here: a mark it reported counts if it stands for
    /// what is known here.
    #[must_use]
    pub fn has_reported(&self, member: ReplicaId, dot: Dot) -> bool {
        let fits = |report: &Ctx| self.has_seen(dot) && report.fitting(&self.ctx).has(dot);
        self.reports.get(&member).is_some_and(|report| report.names(dot) || (report.has(dot) && fits(report)))
    }

    /// Lets a mark stand for everything seen of the replicas of a node up to `floor`. All of it must be stable, and no member
    /// may ever see anything else of them.
    pub fn fold(&mut self, floor: ReplicaId) {
        self.remember_folded(floor);
        self.ctx.fold(floor);
    }

    /// Remembers what is named up to a mark that is about to stand for it.
    pub(super) fn remember_folded(&mut self, floor: ReplicaId) {
        self.folded.extend(self.ctx.named_upto(floor).iter().map(|(replica, seen)| (replica, seen.clone())));
        while self.folded.range(floor.tag().ids()).count() > FOLDED_MAX
            && let Some(oldest) = self.folded.range(floor.tag().ids()).next().map(|(replica, _)| *replica)
        {
            self.folded.remove(&oldest);
        }
    }

    /// Tells whether everything a token names was seen here. Of what is folded, and no longer remembered, it is presumed.
    #[must_use]
    pub fn covers(&self, token: &Ctx) -> bool {
        let has = |replica: ReplicaId, named: &Seen| match self.ctx.of(replica) {
            Some(seen) if seen.is_mark() => self.folded.get(&replica).is_none_or(|seen| seen.includes(named)),
            Some(seen) => seen.includes(named),
            None => named.max() == 0,
        };
        token.iter().all(|(replica, named)| has(replica, named))
    }

    /// Iterates over those of whom a report is kept.
    pub fn reporters(&self) -> impl Iterator<Item = ReplicaId> {
        self.reports.keys().copied()
    }

    /// Returns how many log records there are.
    #[must_use]
    pub fn log_len(&self) -> usize {
        self.log.count()
    }

    /// Returns how many keys have an entry, visible or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Tells whether no key has an entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a key's entry.
    #[must_use]
    pub fn entry(&self, at: &KeyRef<'_>) -> Option<&Entry> {
        self.slot(self.find(at)?).map(|s| &s.entry)
    }

    /// Iterates over all entries in slot order.
    pub fn entries(&self) -> impl Iterator<Item = (KeyspaceId, &Bytes, &Entry)> {
        self.slots.iter().flatten().map(|s| (s.keyspace, &s.key, &s.entry))
    }

    pub(super) fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(widen(at))?.as_ref()
    }

    pub(super) fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(widen(at))?.as_mut()
    }

    pub(super) fn find(&self, at: &KeyRef<'_>) -> Option<u32> {
        let (id, slots) = (at.space.id(), &self.slots);
        let same = |slot: &u32| {
            slots
                .get(widen(*slot))
                .and_then(Option::as_ref)
                .is_some_and(|s| s.hash == at.hash && s.keyspace == id && s.key.as_ref() == at.key)
        };
        self.index.find(at.hash, same).copied()
    }

    /// Returns the slot of a key, making an empty entry if there is none.
    pub(super) fn find_or_make(&mut self, at: &KeyRef<'_>) -> u32 {
        if let Some(slot) = self.find(at) {
            return slot;
        }
        let entry = Entry::new(at.space.family());
        let key = Bytes::copy_from_slice(at.key);
        at.space.account(0, entry.bytes() + key.len());
        let made = Some(Slot { keyspace: at.space.id(), key, hash: at.hash, entry, timer: NEVER });
        let slot = if let Some(slot) = self.free.pop() {
            if let Some(place) = self.slots.get_mut(widen(slot)) {
                *place = made;
            }
            slot
        } else {
            self.slots.push(made);
            narrow(self.slots.len() - 1)
        };
        let slots = &self.slots;
        let rehash = |s: &u32| slots.get(widen(*s)).and_then(Option::as_ref).map_or(0, |s| s.hash);
        self.index.insert_unique(at.hash, slot, rehash);
        if self.table.is_crowded(self.len()) {
            self.table = self.summed_up();
        }
        slot
    }

    /// Changes a scope of an entry, or nothing that counts, and keeps accounting, sums and expiry in order.
    pub(super) fn change<R>(
        &mut self,
        slot: u32,
        space: &Keyspace,
        scope: Option<&Scope>,
        f: impl FnOnce(&mut Entry) -> R,
    ) -> Option<R> {
        let s = self.slots.get_mut(widen(slot))?.as_mut()?;
        let counted = |entry: &Entry| scope.map_or_else(Print::default, |scope| entry.print(s.hash, scope, 0));
        let (before, print) = (s.entry.bytes(), counted(&s.entry));
        let mute = s.entry.is_mute();
        let result = f(&mut s.entry);
        let (after, now) = (s.entry.bytes(), counted(&s.entry));
        let delta = now.sum.wrapping_sub(print.sum);
        if delta != 0 {
            self.table.add(s.hash, delta);
        }
        self.moved.sum = self.moved.sum.wrapping_add(delta);
        self.moved.soonest = if mute { 0 } else { self.moved.soonest.min(print.soonest).min(now.soonest) };
        if s.entry.is_hole() {
            self.table.mark_partial(s.hash);
        }
        if before != after {
            space.account(before, after);
        }
        let deadline = s.entry.next_deadline(0).unwrap_or(NEVER);
        if deadline < s.timer {
            s.timer = deadline;
            self.queue_deadline(deadline, slot);
        }
        Some(result)
    }

    /// Mints the dot of an event of mine and notes it in context, log and entry.
    pub(super) fn mint(&mut self, slot: u32, scope: Scope) -> Dot {
        self.seq += 1;
        let dot = Dot { replica: self.me, seq: self.seq };
        self.ctx.add(dot);
        self.log.insert(dot, slot);
        if let Some(s) = self.slot_mut(slot) {
            s.entry.mark(dot, scope);
        }
        dot
    }

    /// Notes what the events of one step did to the sums.
    pub(super) fn remember(&mut self, slot: u32, scope: &Scope, family: Family, dots: impl Iterator<Item = Dot>) {
        let Some(hash) = self.slot(slot).map(|s| s.hash) else { return };
        let place = match (family, scope) {
            (Family::Epoch, _) => Place::Beyond,
            (_, Scope::Key) => Place::Key,
            (_, Scope::Path(path)) => Place::At(of_path(hash, path)),
        };
        let Print { sum: mut delta, soonest } = std::mem::take(&mut self.moved);
        let step = self.history.next_step();
        for dot in dots {
            self.history.push(Record { dot, hash, place, step, delta, soonest });
            delta = 0;
        }
    }

    /// Drops an entry of which nothing is left.
    pub(super) fn drop_if_empty(&mut self, slot: u32, space: &Keyspace) {
        let Some(place) = self.slots.get_mut(widen(slot)) else { return };
        let Some(s) = place.take_if(|s| s.entry.is_empty()) else { return };
        space.account(s.entry.bytes() + s.key.len(), 0);
        if let Ok(found) = self.index.find_entry(s.hash, |other| *other == slot) {
            found.remove();
        }
        self.free.push(slot);
        self.overdue.remove(&slot);
        self.drop_epoch(space, &s.key);
    }
}

/// A slot number as a position.
pub(super) fn widen(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

/// A position as a slot number; a partition never has 2^32 entries (limits refuse them first).
fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
