//! What happened: one record per event, as its author made it.
//!
//! # Invariants
//! * A record is what a mutation *means*, in the words of `docs/semantics.md`; nothing in it says how a store keeps it.

use bytes::Bytes;

use crate::clock::Stamp;
use crate::crdt::{Ctx, Dot, Path};
use crate::id::{PartitionId, ReplicaId};
use crate::store::{Family, Selector};

/// A keyspace a workload writes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Space {
    /// Its name.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
}

/// A key of a keyspace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The keyspace.
    pub space: Space,
    /// The key's bytes.
    pub name: Bytes,
}

/// One life of one origin's contribution to a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Life {
    /// Who counts.
    pub origin: ReplicaId,
    /// Number of the event that began it.
    pub birth: u64,
    /// When it ends, as its author knew.
    pub deadline: u64,
}

/// What an event did. Deadlines are absolute milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A register was set.
    Set {
        /// The value.
        value: Bytes,
        /// What it is filed under.
        tags: Vec<Bytes>,
        /// When it ends.
        deadline: u64,
    },
    /// A register was deleted.
    Delete,
    /// A register's life was extended.
    Touch {
        /// The stamp of the write whose value that was.
        base: Stamp,
        /// When it is to end at the earliest.
        deadline: u64,
    },
    /// An element was put at a path, or put again with another deadline.
    Put {
        /// The path.
        path: Path,
        /// The value.
        value: Bytes,
        /// The order of the value: older than the event when it was put again.
        stamp: Stamp,
        /// When it ends.
        deadline: u64,
    },
    /// What was seen at a path was removed.
    Remove {
        /// The path.
        path: Path,
    },
    /// What was seen of a whole map was removed.
    Clear {
        /// Every contribution its author knew, of any counter.
        lives: Vec<(Bytes, Life)>,
    },
    /// Something was counted.
    Increment {
        /// The counter.
        name: Bytes,
        /// How much; negative counts down.
        by: i64,
        /// The life it belongs to.
        life: Life,
    },
    /// What was seen of a counter was erased.
    Reset {
        /// The counter.
        name: Bytes,
        /// Every contribution its author knew.
        lives: Vec<Life>,
    },
    /// The life of what was seen of a counter was extended.
    Extend {
        /// The counter.
        name: Bytes,
        /// Every contribution its author knew, with the deadline it has now.
        lives: Vec<Life>,
    },
    /// A custom entry was updated.
    Note {
        /// The stamp of the event that began this life of the entry.
        generation: Stamp,
        /// What was noted.
        item: u64,
        /// When the entry is to end at the earliest.
        deadline: u64,
    },
    /// A custom entry was deleted.
    DeleteCustom,
    /// Every register of a keyspace that a selector matches and that was written before was cleared; one such event
    /// per partition.
    Invalidate {
        /// The selector.
        selector: Selector,
    },
}

/// An event and its place in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The partition it happened in.
    pub partition: PartitionId,
    /// The event.
    pub dot: Dot,
    /// Its order among all.
    pub stamp: Stamp,
    /// What its author had seen of the partition just before.
    pub past: Ctx,
    /// What it is about; for [`Event::Invalidate`] only the keyspace counts.
    pub key: Key,
    /// What it did.
    pub event: Event,
}
