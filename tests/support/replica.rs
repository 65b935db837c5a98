//! A replica without a network: one store of one partition, and just enough membership around it
//! to exchange batches, as a node does.
//!
//! The clock is a field the test sets, mail is a value the test delivers when (and as often as) it
//! likes. Everything about the data model is the real store's.
//!
//! # Invariants
//! * Mail of a removed member is refused for ever (R-FENCE).
//! * An incremental batch goes only to a peer whose known context has the floor (R-TRUNC).

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "each test file uses its own part of this, and stops where an assumption fails"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use crdts::{CmRDT, GSet};
use driftless::clock::Hlc;
use driftless::crdt::custom::{Erased, decode, encode};
use driftless::crdt::tree::winner;
use driftless::crdt::{Cell, Counter, Ctx, Custom, Dot, NEVER, Path, Tree};
use driftless::id::{KeyspaceId, PartitionId, ReplicaId};
use driftless::store::{
    Applied, Around, Batch, Body, Budget, Entry, Family, Full, Gate, Intent, KeyRef, Keyspace, Partition, Refused,
    Selector, Store, StoreConfig, Tick, Written,
};

/// A grave is collected only when it is older than this: more than twice the clocks' skew.
pub(crate) const COLLECT_AFTER_MS: u64 = 140;
/// No limit on what one capture takes.
pub(crate) const ALL: Budget = Budget { fragments: usize::MAX, bytes: usize::MAX };
/// Long enough for everything stable to go.
pub(crate) const LONG: u64 = 10 * COLLECT_AFTER_MS;
/// The only partition.
pub(crate) const PART: PartitionId = PartitionId(0);

/// What travels with every mail besides the partition's state.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) from: ReplicaId,
    pub(crate) hlc: Hlc,
    pub(crate) members: BTreeSet<ReplicaId>,
    pub(crate) removed: BTreeSet<ReplicaId>,
}

/// What replicas send each other.
#[derive(Clone, Debug)]
pub(crate) enum Mail {
    Batch(Head, Batch),
    Full(Head, Full),
}

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) store: Store,
    pub(crate) clock_ms: u64,
    pub(crate) members: BTreeSet<ReplicaId>,
    pub(crate) removed: BTreeSet<ReplicaId>,
    pub(crate) regs: Arc<Keyspace>,
    pub(crate) maps: Arc<Keyspace>,
    pub(crate) customs: Arc<Keyspace>,
}

/// The custom type of the tests: a grow-only set, whose merge shows every lost update.
pub(crate) type Notes = GSet<u64>;

/// Returns a name or value of a test.
pub(crate) fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Returns a map's field.
pub(crate) fn field(name: &str) -> Path {
    Path::Field(b(name))
}

/// Returns a member of the set `s`.
pub(crate) fn member(name: &str) -> Path {
    Path::Member(b("s"), b(name))
}

impl Replica {
    pub(crate) fn new(id: u64, members: &[u64]) -> Self {
        Self::with_log(id, members, 1 << 20)
    }

    pub(crate) fn with_log(id: u64, members: &[u64], log_records_max: usize) -> Self {
        let config = StoreConfig {
            partitions: 1,
            hash_key: [7; 16],
            log_records_max,
            keyspace_bytes: 1 << 30,
            key_bytes_max: 1_024,
            value_bytes_max: 1 << 20,
            is_edge: false,
        };
        let store = Store::new(ReplicaId(id), config);
        store.set_gate(Gate::Open);
        let regs = store.spaces().open("regs", Family::Register).unwrap();
        let maps = store.spaces().open("maps", Family::Map).unwrap();
        let customs = store.spaces().open_custom("customs", Arc::new(Erased::<Notes>::default())).unwrap();
        // Fragments here name keyspaces by number, which frames do not.
        store.spaces().open_epochs(&regs).unwrap();
        let members = members.iter().map(|m| ReplicaId(*m)).collect();
        Self { id: ReplicaId(id), store, clock_ms: 0, members, removed: BTreeSet::new(), regs, maps, customs }
    }

    // ---- local writes

    pub(crate) fn write<R>(
        &self,
        space: &Keyspace,
        key: &str,
        f: impl FnOnce(&mut Partition, &KeyRef<'_>, &Tick<'_>) -> R,
    ) -> R {
        let at = KeyRef::new(space, key.as_bytes());
        let intent = Intent { wall_ms: self.clock_ms, value_len: None };
        self.store.write(&at, intent, |p, tick| f(p, &at, tick)).unwrap().0
    }

    pub(crate) fn set(&self, key: &str, value: &Bytes, deadline: u64) -> Written {
        self.write(&self.regs, key, |p, at, t| p.set(at, value.clone(), deadline, t))
    }

    pub(crate) fn delete(&self, key: &str) -> Written {
        self.write(&self.regs, key, |p, at, t| p.delete(at, t))
    }

    pub(crate) fn touch(&self, key: &str, deadline: u64) -> Option<Written> {
        self.write(&self.regs, key, |p, at, t| p.touch(at, deadline, t))
    }

    pub(crate) fn invalidate(&self, selector: &Selector) {
        self.store.invalidate(&self.regs, selector, self.clock_ms).unwrap();
    }

    pub(crate) fn put(&self, key: &str, path: Path, value: &Bytes, deadline: u64) -> Written {
        self.write(&self.maps, key, |p, at, t| p.put(at, path, value.clone(), deadline, t))
    }

    pub(crate) fn remove(&self, key: &str, path: &Path) -> Option<Written> {
        self.write(&self.maps, key, |p, at, t| p.remove(at, path, t))
    }

    pub(crate) fn touch_path(&self, key: &str, path: &Path, deadline: u64) -> Option<Written> {
        self.write(&self.maps, key, |p, at, t| p.touch_path(at, path, deadline, t))
    }

    pub(crate) fn expire_key(&self, key: &str, deadline: u64) -> Vec<Written> {
        self.write(&self.maps, key, |p, at, t| p.expire_key(at, deadline, t))
    }

    pub(crate) fn clear(&self, key: &str) -> Option<Written> {
        self.write(&self.maps, key, |p, at, t| p.clear(at, t))
    }

    pub(crate) fn increment(&self, key: &str, name: &str, by: i64, deadline: u64) -> Written {
        self.write(&self.maps, key, |p, at, t| p.increment(at, &b(name), by, deadline, t))
    }

    pub(crate) fn touch_counter(&self, key: &str, name: &str, deadline: u64) -> Option<Written> {
        self.write(&self.maps, key, |p, at, t| p.touch_counter(at, &b(name), deadline, t))
    }

    pub(crate) fn reset(&self, key: &str, name: &str) -> Option<Written> {
        self.write(&self.maps, key, |p, at, t| p.reset(at, &b(name), t))
    }

    /// Adds `item` to a custom entry, beginning a new generation when none is visible.
    pub(crate) fn note(&self, key: &str, item: u64, deadline: u64) -> Written {
        self.write(&self.customs, key, |p, at, t| {
            p.update_custom(at, deadline, t, |seen| {
                let mut set = seen.map_or_else(|| Ok(Notes::new()), |bytes| decode(bytes))?;
                set.apply(item);
                encode(&set)
            })
            .unwrap()
        })
    }

    pub(crate) fn delete_custom(&self, key: &str) -> Written {
        self.write(&self.customs, key, |p, at, t| p.delete_custom(at, t))
    }

    // ---- reads

    pub(crate) fn entry<R>(&self, space: &Keyspace, key: &str, f: impl FnOnce(Option<&Entry>) -> R) -> R {
        self.store.with_entry(&KeyRef::new(space, key.as_bytes()), f)
    }

    pub(crate) fn cell(&self, key: &str) -> Option<Cell> {
        self.entry(&self.regs, key, |e| match e.map(|e| &e.body) {
            Some(Body::Register(cell)) => cell.clone(),
            _ => None,
        })
    }

    pub(crate) fn tree(&self, key: &str) -> Tree {
        self.entry(&self.maps, key, |e| match e.map(|e| &e.body) {
            Some(Body::Tree(tree)) => (**tree).clone(),
            _ => Tree::default(),
        })
    }

    pub(crate) fn custom(&self, key: &str) -> Option<Custom> {
        self.entry(&self.customs, key, |e| match e.map(|e| &e.body) {
            Some(Body::Custom(custom)) => (**custom).clone(),
            _ => None,
        })
    }

    pub(crate) fn get(&self, key: &str, now_ms: u64) -> Option<Bytes> {
        self.cell(key)?.visible(now_ms).cloned()
    }

    pub(crate) fn read(&self, key: &str, path: &Path, now_ms: u64) -> Option<Bytes> {
        winner(self.tree(key).siblings(path), now_ms).map(|e| e.value.clone())
    }

    pub(crate) fn count(&self, key: &str, name: &str, now_ms: u64) -> i64 {
        self.tree(key).counter(name.as_bytes()).map_or(0, |c: &Counter| c.value(now_ms))
    }

    pub(crate) fn noted(&self, key: &str, now_ms: u64) -> Option<BTreeSet<u64>> {
        self.custom(key)?.visible(now_ms).map(|bytes| decode::<Notes>(bytes).unwrap().read())
    }

    pub(crate) fn is_hole(&self, key: &str) -> bool {
        self.tree(key).is_hole()
    }

    pub(crate) fn ctx(&self) -> Ctx {
        self.store.read(PART).unwrap().ctx().clone()
    }

    pub(crate) fn frontier(&self) -> Ctx {
        self.store.read(PART).unwrap().frontier().clone()
    }

    pub(crate) fn floor(&self) -> Ctx {
        self.store.read(PART).unwrap().floor().clone()
    }

    pub(crate) fn log_len(&self) -> usize {
        self.store.read(PART).unwrap().log_len()
    }

    /// Returns all entries, in an order that does not depend on slots.
    pub(crate) fn entries(&self) -> Vec<(KeyspaceId, Bytes, Entry)> {
        let partition = self.store.read(PART).unwrap();
        let mut all: Vec<_> = partition.entries().map(|(id, key, e)| (id, key.clone(), e.clone())).collect();
        all.sort_by(|a, b| (a.0.0, &a.1).cmp(&(b.0.0, &b.1)));
        all
    }

    // ---- mail

    fn head(&self) -> Head {
        let hlc = self.store.clock().last();
        Head { from: self.id, hlc, members: self.members.clone(), removed: self.removed.clone() }
    }

    /// Captures what `known` lacks.
    pub(crate) fn batch(&self, known: &Ctx) -> Mail {
        self.batch_within(known, ALL)
    }

    pub(crate) fn batch_within(&self, known: &Ctx, budget: Budget) -> Mail {
        Mail::Batch(self.head(), self.store.read(PART).unwrap().capture_lacking(known, budget).batch)
    }

    /// Captures only my own events that `known` lacks.
    pub(crate) fn own_batch(&self, known: &Ctx, budget: Budget) -> Mail {
        let after = known.of(self.id).map_or(0, driftless::crdt::Seen::base);
        Mail::Batch(self.head(), self.store.read(PART).unwrap().capture_own(after, budget).batch)
    }

    pub(crate) fn full(&self) -> Mail {
        Mail::Full(self.head(), self.store.read(PART).unwrap().capture_full())
    }

    pub(crate) fn full_for(&self, known: &Ctx) -> Mail {
        Mail::Full(self.head(), self.store.read(PART).unwrap().capture_full_for(known))
    }

    pub(crate) fn can_increment(&self, known: &Ctx) -> bool {
        known.includes(&self.floor())
    }

    /// Returns what a peer with this context is to be sent.
    pub(crate) fn mail_for(&self, known: &Ctx) -> Mail {
        if self.can_increment(known) { self.batch(known) } else { self.full_for(known) }
    }

    pub(crate) fn around(&self) -> Around<'_> {
        Around { spaces: self.store.spaces(), collect_before_ms: self.collect_before_ms() }
    }

    fn collect_before_ms(&self) -> u64 {
        self.clock_ms.saturating_sub(COLLECT_AFTER_MS)
    }

    /// Delivers mail; `None` when its sender is fenced.
    pub(crate) fn deliver(&mut self, mail: &Mail) -> Option<Result<Applied, Refused>> {
        let (Mail::Batch(head, _) | Mail::Full(head, _)) = mail;
        if self.removed.contains(&head.from) {
            return None;
        }
        let result = {
            let mut partition = self.store.lock(PART).unwrap();
            match mail {
                Mail::Batch(_, batch) => partition.apply(head.from, batch, &self.around()),
                Mail::Full(_, full) => partition.apply_full(head.from, full, &self.around()),
            }
        };
        if let Ok(applied) = &result {
            assert_eq!((&applied.duplicates, applied.quarantined), (&vec![], 0), "nothing is malformed here");
            self.store.clock().observe(head.hlc);
            self.members.extend(&head.members);
            self.removed.extend(&head.removed);
        }
        Some(result)
    }

    // ---- membership

    pub(crate) fn others(&self) -> Vec<ReplicaId> {
        self.members.difference(&self.removed).copied().filter(|m| *m != self.id).collect()
    }

    /// Makes a new replica from a snapshot of this one.
    pub(crate) fn joined_by(&mut self, id: u64) -> Self {
        self.members.insert(ReplicaId(id));
        let mut joiner = Self::new(id, &[id]);
        joiner.clock_ms = self.clock_ms;
        joiner.deliver(&self.full()).unwrap().unwrap();
        joiner
    }

    /// Makes the replica a restarted node comes back as: the removal of the old id and the new
    /// member travel in one report.
    pub(crate) fn succeeded_by(&mut self, old: u64, id: u64) -> Self {
        self.remove_member(old);
        self.joined_by(id)
    }

    pub(crate) fn remove_member(&mut self, id: u64) {
        self.removed.insert(ReplicaId(id));
        self.store.lock(PART).unwrap().forget_report(ReplicaId(id));
    }

    // ---- housekeeping

    pub(crate) fn collect(&self) {
        let (others, before) = (self.others(), self.collect_before_ms());
        self.store.lock(PART).unwrap().collect(&others, self.store.spaces(), before);
    }

    pub(crate) fn expire(&self) {
        let now_ms = self.store.clock().visible_ms(self.clock_ms);
        let before = self.collect_before_ms();
        let mut partition = self.store.lock(PART).unwrap();
        for _ in 0..1_000 {
            if !partition.sweep(now_ms, self.store.spaces(), before) {
                return;
            }
        }
        assert!(partition.is_empty(), "a sweep that always has more to do");
    }

    pub(crate) fn evict(&self, space: &Keyspace, key: &str) -> bool {
        let at = KeyRef::new(space, key.as_bytes());
        self.store.lock(PART).unwrap().evict(&at, self.collect_before_ms())
    }

    pub(crate) fn drop_log(&self, records: usize) {
        let keep = self.log_len().saturating_sub(records);
        self.store.lock(PART).unwrap().shrink_log(keep);
    }
}

/// Sends from one to the other what the other lacks.
pub(crate) fn sync(from: &Replica, to: &mut Replica) {
    let mail = from.mail_for(&to.ctx());
    to.deliver(&mail);
}

/// Everybody sends everybody what they lack, `rounds` times.
pub(crate) fn sync_all(all: &mut [&mut Replica], rounds: usize) {
    for _ in 0..rounds {
        for i in 0..all.len() {
            for j in 0..all.len() {
                if i != j {
                    let mail = all[i].mail_for(&all[j].ctx());
                    all[j].deliver(&mail);
                }
            }
        }
    }
}

/// Lets time pass and everybody collect.
pub(crate) fn later(all: &mut [&mut Replica], ms: u64) {
    for replica in all.iter_mut() {
        replica.clock_ms += ms;
        replica.collect();
    }
}

/// Builds replicas that know each other, their clocks at 1,000 ms.
pub(crate) fn replicas<const N: usize>(ids: [u64; N]) -> [Replica; N] {
    ids.map(|id| {
        let mut r = Replica::new(id, &ids);
        r.clock_ms = 1_000;
        r
    })
}

/// Everybody exchanges everything, expires and collects much later, and nothing is left.
pub(crate) fn settle(all: &mut [&mut Replica]) {
    for _ in 0..2 {
        sync_all(all, 3);
        later(all, LONG);
        all.iter().for_each(|r| r.expire());
        later(all, LONG);
    }
    for r in all {
        assert_eq!(residue(r), None, "at {}", r.id);
    }
}

/// Tells whether nothing is left to collect: no log, no dot that is not stable, no grave, no shell.
pub(crate) fn residue(replica: &Replica) -> Option<String> {
    if replica.log_len() != 0 {
        return Some(format!("{} log records", replica.log_len()));
    }
    let epochs = replica.store.read(PART).unwrap().epoch_count();
    if epochs != 0 {
        return Some(format!("{epochs} epochs"));
    }
    for (_, key, entry) in replica.entries() {
        let dead = match &entry.body {
            Body::Register(cell) => cell.as_ref().is_none_or(Cell::is_grave),
            Body::Custom(custom) => custom.as_ref().as_ref().is_none_or(Custom::is_grave),
            Body::Tree(tree) => {
                tree.elems().next().is_none() && !tree.is_hole() && tree.counters().all(|(_, c)| !c.is_live())
            }
        };
        if dead || !entry.is_settled() {
            return Some(format!("{key:?} {entry:?}"));
        }
    }
    None
}

/// Number of an event, for messages.
pub(crate) fn dot(id: u64, seq: u64) -> Dot {
    Dot { replica: ReplicaId(id), seq }
}

/// A deadline that never comes.
pub(crate) const FOREVER: u64 = NEVER;
