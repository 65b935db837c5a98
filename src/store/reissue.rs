//! A store that goes on as another replica: what it had is gone, but for what it wrote and nobody else may have.
//!
//! A replica that was removed can never speak again, so what it wrote last and nobody received can only come back as new
//! writes of another replica. They get new stamps, which win over everything: so a write is written again only if what
//! there is now is older than the write once was. Whether something newer was there and is forgotten by now, or an
//! invalidation of one of its tags, is told by the newest stamp whose grave was collected ([`Partition::forgotten`]).
//!
//! # Invariants
//! * Nothing is written again over something newer that the new replica has seen, or that may be forgotten where it copied.
//! * What the new replica's context names is not written again: its fate is decided. What a mark stands for is not named:
//!   another process of the node may have taken its place while this one was away with the write.
//! * What is kept is bounded in bytes; the oldest are lost, and counted.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::Store;
use super::entry::{Body, Entry, cell_bytes};
use super::keyspace::{Family, Keyspaces};
use super::partition::{KeyRef, Partition};
use super::write::{Tick, Written};
use crate::crdt::{Cell, Dot, Payload};
use crate::id::{KeyspaceId, PartitionId, ReplicaId};
use crate::probe::{planted, sometimes};
use crate::sync::Ordering;

/// What one write takes beyond its key and value while it is kept.
const WRITE_BYTES: usize = 128;

/// A write of a register that nobody else may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsent {
    keyspace: KeyspaceId,
    key: Bytes,
    cell: Cell,
}

/// What is left of a replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Estate {
    /// Its unsent writes, oldest first.
    pub writes: Vec<Unsent>,
    /// How many more there were than may be kept.
    pub lost: u64,
    /// The keys of watched keyspaces that were there.
    pub keys: Vec<(KeyspaceId, Bytes)>,
}

/// What came of writing something again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reissued {
    /// It was written.
    Written(Written),
    /// It had come through, is over, or something newer is there or may have been.
    Outdated,
    /// The keyspace is full.
    NoRoom,
}

impl Unsent {
    /// Returns whose value it is.
    #[must_use]
    pub fn place(&self) -> (KeyspaceId, &Bytes) {
        (self.keyspace, &self.key)
    }

    fn bytes(&self) -> usize {
        WRITE_BYTES + self.key.len() + cell_bytes(&self.cell)
    }
}

impl Estate {
    /// Adds what is left of a later replica, within `bytes_max`. Of one key only the last is to be written again.
    pub fn add(&mut self, later: Self, bytes_max: usize) {
        self.lost += later.lost;
        self.keys.extend(later.keys);
        self.writes.extend(later.writes);
        self.writes.sort_by_key(|write| Reverse(write.cell.stamp()));
        let mut named = BTreeSet::new();
        self.writes.retain(|write| named.insert((write.keyspace, write.key.clone())));
        let mut left = bytes_max;
        let fits = |write: &&Unsent| left.checked_sub(write.bytes()).map(|rest| left = rest).is_some();
        let kept = self.writes.iter().take_while(fits).count();
        sometimes!(UnsentOverLimit, if kept < self.writes.len());
        self.lost += u64::try_from(self.writes.len() - kept).unwrap_or(u64::MAX);
        self.writes.truncate(kept);
        self.writes.reverse();
    }
}

impl Store {
    /// Empties the store, which goes on as replica `me` and accepts no writes until it is opened. Returns what the former
    /// replica wrote and nobody else may have, and is not over. What it wrote after `newest_ms`, when its clock was ahead,
    /// is lost: it would count as newer than everything written since.
    ///
    /// The gate must be shut and no invalidation be under way ([`Store::is_invalidating`]).
    pub fn begin_anew(&self, me: ReplicaId, wall_ms: u64, newest_ms: u64) -> Estate {
        debug_assert!(!self.is_invalidating(), "it would write on as a replica that has not joined");
        self.me.store(me.0, Ordering::Relaxed);
        let mut estate = Estate::default();
        for id in self.partition_ids() {
            let Some(mut partition) = self.lock(id) else { continue };
            partition.bequeath(&self.spaces, wall_ms, &mut estate);
            let verified = partition.verified.anew();
            *partition = Partition { verified, ..Partition::new(id, me, partition.log_records_max) };
        }
        self.clock.restart();
        self.dirty.take();
        let kept = estate.writes.len();
        estate.writes.retain(|write| write.cell.stamp().hlc.ms() <= newest_ms);
        sometimes!(UnsentOfTheFuture, if estate.writes.len() < kept);
        estate.lost += u64::try_from(kept - estate.writes.len()).unwrap_or(u64::MAX);
        estate
    }

    /// Writes again what a former replica wrote, whatever the gate says, unless `is_known` tells that somebody has received
    /// it. Returns what came of it, and where.
    pub fn reissue(
        &self,
        write: &Unsent,
        wall_ms: u64,
        is_known: impl FnOnce(PartitionId, Dot) -> bool,
    ) -> (PartitionId, Reissued) {
        let Some(space) = self.spaces.get(write.keyspace) else { return (PartitionId(0), Reissued::Outdated) };
        let at = KeyRef::new(&space, &write.key);
        let id = self.place(at.hash);
        let grows = matches!(write.cell.payload(), Payload::Value(_));
        let Some(mut partition) = self.lock(id) else { return (id, Reissued::Outdated) };
        let tick = Tick { clock: &self.clock, wall_ms };
        let has_come_through = is_known(id, write.cell.dot()) || partition.ctx.names(write.cell.dot());
        sometimes!(UnsentHadComeThrough, if has_come_through);
        if has_come_through || !partition.is_owed(&at, &write.cell, tick.visible_ms()) {
            return (id, Reissued::Outdated);
        }
        if grows && space.used() > space.budget() {
            return (id, Reissued::NoRoom);
        }
        sometimes!(WrittenAgain, if grows);
        sometimes!(DeletedAgain, if !grows);
        let written = match write.cell.payload() {
            Payload::Value(value) => {
                let tagged = (value.clone(), write.cell.tags().to_vec());
                partition.set_tagged(&at, tagged, write.cell.deadline, &tick)
            }
            Payload::Tombstone | Payload::Absent => partition.delete(&at, &tick),
        };
        (id, Reissued::Written(written))
    }
}

impl Partition {
    /// Adds to an estate what is here of my own that some member may lack, and gives its memory back.
    fn bequeath(&self, spaces: &Keyspaces, now_ms: u64, estate: &mut Estate) {
        for (id, key, entry) in self.entries() {
            let Some(space) = spaces.get(id) else { continue };
            space.account(entry.bytes() + key.len(), 0);
            if space.is_watched() {
                estate.keys.push((id, key.clone()));
            }
            let unsent =
                own_cell(entry, self.me).filter(|cell| !self.frontier.has(cell.dot()) && now_ms < cell.deadline);
            if let Some(cell) = unsent.filter(|_| space.family() == Family::Register) {
                estate.writes.push(Unsent { keyspace: id, key: key.clone(), cell: cell.clone() });
            }
        }
    }

    /// Tells whether a write of a former replica that nobody has received is to be written again.
    fn is_owed(&self, at: &KeyRef<'_>, write: &Cell, now_ms: u64) -> bool {
        let here = match self.entry(at).map(|entry| &entry.body) {
            Some(Body::Register(cell)) => cell.as_ref(),
            Some(Body::Tree(_) | Body::Custom(_)) | None => None,
        };
        let is_older = here.is_some_and(|cell| write.stamp() <= cell.stamp()) && !planted!(ReissueOverwritesNewer);
        // What is here, if it is more than a stub, outlived all that is forgotten, but for invalidations of tags it has not.
        let value = here.filter(|cell| *cell.payload() != Payload::Absent);
        let outlived_all = value.is_some_and(|cell| write.tags().iter().all(|tag| cell.tags().contains(tag)));
        let may_be_older = !outlived_all && write.stamp().hlc <= self.forgotten && !planted!(ReissueRevives);
        sometimes!(UnsentOutdated, if is_older);
        sometimes!(UnsentMayBeOutdated, if may_be_older);
        if is_older || may_be_older || self.epochs.clears(at.space.id(), at.key, write) {
            return false;
        }
        match write.payload() {
            Payload::Value(_) => now_ms < write.deadline,
            Payload::Tombstone => here.is_some_and(|cell| cell.visible(now_ms).is_some()),
            Payload::Absent => false,
        }
    }
}

/// Returns a register's state if a replica wrote it and it has not been given back.
fn own_cell(entry: &Entry, me: ReplicaId) -> Option<&Cell> {
    match &entry.body {
        Body::Register(Some(cell)) if cell.dot().replica == me && *cell.payload() != Payload::Absent => Some(cell),
        Body::Register(_) | Body::Tree(_) | Body::Custom(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::crdt::NEVER;

    fn unsent(ms: u64, value: &'static [u8]) -> Unsent {
        let dot = Dot { replica: ReplicaId(1), seq: ms };
        let cell = Cell::new(Payload::Value(Bytes::from_static(value)), Hlc::from_ms(ms), dot, NEVER);
        Unsent { keyspace: KeyspaceId(0), key: Bytes::from(format!("key{ms}")), cell }
    }

    fn of(writes: &[Unsent], lost: u64) -> Estate {
        Estate { writes: writes.to_vec(), lost, keys: Vec::new() }
    }

    #[test]
    fn of_too_much_the_newest_is_kept_and_the_rest_is_counted() {
        let (old, middle, new) = (unsent(1, b"value"), unsent(2, b"value"), unsent(3, b"value"));
        let room_for_two = 2 * new.bytes() + 1;
        let mut estate = Estate::default();
        estate.add(of(&[new.clone(), old.clone()], 0), room_for_two);
        assert_eq!(estate, of(&[old, new.clone()], 0), "oldest first");
        estate.add(of(std::slice::from_ref(&middle), 4), room_for_two);
        assert_eq!(estate, of(&[middle.clone(), new.clone()], 5));
        estate.add(Estate::default(), new.bytes());
        assert_eq!(estate, of(&[new], 6));
        estate.add(of(&[middle], 0), 0);
        assert_eq!(estate, of(&[], 8), "nothing is kept where nothing may be");
    }

    /// Written again one after the other, each with a new stamp, the older would end as the newer.
    #[test]
    fn of_two_writes_of_a_key_the_last_is_kept() {
        let (old, other) = (unsent(1, b"old"), unsent(2, b"other"));
        let new = Unsent { key: old.key.clone(), ..unsent(3, b"new") };
        let mut estate = Estate::default();
        estate.add(of(&[old, other.clone()], 0), 1 << 10);
        estate.add(of(std::slice::from_ref(&new), 0), 1 << 10);
        assert_eq!(estate, of(&[other, new], 0));
    }

    /// A store with a keyspace, and where in it a write belongs.
    fn store_for(write: Unsent) -> (Store, Unsent, PartitionId) {
        let store = Store::new(ReplicaId(2), crate::config::Config::wan("x", "127.0.0.1:0").store());
        let space = store.spaces().open("x", Family::Register).unwrap();
        let id = store.place(KeyRef::new(&space, &write.key).hash);
        (store, Unsent { keyspace: space.id(), ..write }, id)
    }

    #[test]
    fn over_what_is_here_a_write_is_owed_unless_its_tags_may_have_been_invalidated() {
        let tagged = |tags: &[&'static str]| {
            let write = unsent(7, b"value");
            let tags = tags.iter().map(|tag| Bytes::from_static(tag.as_bytes())).collect();
            Unsent { cell: write.cell.clone().with_tags(tags), ..write }
        };
        for (tags, owed) in [(vec![], true), (vec!["old"], true), (vec!["old", "new"], false)] {
            let (store, write, id) = store_for(tagged(&tags));
            let space = store.spaces().get(write.keyspace).unwrap();
            let tick = Tick { clock: &store.clock, wall_ms: 1 };
            let mut partition = store.lock(id).unwrap();
            let here = (Bytes::from_static(b"older"), vec![Bytes::from_static(b"old")]);
            partition.set_tagged(&KeyRef::new(&space, &write.key), here, NEVER, &tick);
            partition.forgotten = Hlc::from_ms(9);
            drop(partition);
            let done = store.reissue(&write, 10, |_, _| false).1;
            assert_eq!(matches!(done, Reissued::Written(_)), owed, "{tags:?}");
        }
    }

    #[test]
    fn what_a_mark_stands_for_may_never_have_come_through() {
        let (store, write, id) = store_for(unsent(1, b"value"));
        store.lock(id).unwrap().ctx.add_seen(ReplicaId(1), &crate::crdt::Seen::mark(7));
        assert!(matches!(store.reissue(&write, 2, |_, _| false), (_, Reissued::Written(_))));
        assert!(matches!(store.reissue(&write, 2, |_, _| false), (_, Reissued::Outdated)), "something newer is there");
    }
}
