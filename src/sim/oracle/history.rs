//! All events, indexed by what is asked of them.
//!
//! # Invariants
//! * An event is here from the moment its author made it; whether anybody else has seen it is said by a context.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Event, Key, Record, Space};
use super::view::View;
use crate::crdt::{Ctx, Dot, Path};
use crate::id::{PartitionId, ReplicaId};
use crate::sim::folds::Folds;

/// Everything that happened.
#[derive(Default, Debug)]
pub struct History {
    pub(super) keys: BTreeMap<Key, About>,
    /// The invalidations of a keyspace, by partition.
    pub(super) epochs: BTreeMap<(PartitionId, Space), Vec<Record>>,
    /// What each event is about; of an invalidation the keyspace.
    dots: BTreeMap<PartitionId, BTreeMap<Dot, Subject>>,
    /// What marks stand for.
    folds: Folds,
    /// How many events each replica has made in each partition.
    made: BTreeMap<(PartitionId, ReplicaId), u64>,
}

/// What an event is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// One key.
    Key(Key),
    /// Every key of a keyspace.
    Space(Space),
}

/// The events of one key.
#[derive(Default, Debug)]
pub(super) struct About {
    pub(super) records: Vec<Record>,
    /// The paths anything was ever put at.
    pub(super) paths: BTreeSet<Path>,
    /// The counters anything was ever counted in.
    pub(super) counters: BTreeSet<bytes::Bytes>,
}

impl History {
    /// Takes note of what marks stand for.
    pub fn learn(&mut self, folds: &Folds) {
        self.folds.clone_from(folds);
    }

    /// Returns how many marks are known.
    #[must_use]
    pub fn folds(&self) -> usize {
        self.folds.len()
    }

    /// Returns a context with the events its marks stand for in their place.
    #[must_use]
    pub fn resolved(&self, partition: PartitionId, ctx: &Ctx) -> Ctx {
        self.folds.resolved(partition, ctx)
    }

    /// Notes an event; returns whether its dot was new.
    pub fn add(&mut self, mut record: Record) -> bool {
        record.past = self.resolved(record.partition, &record.past);
        let (partition, dot) = (record.partition, record.dot);
        let made = self.made.entry((partition, dot.replica)).or_default();
        *made = (*made).max(dot.seq);
        let invalidates = matches!(record.event, Event::Invalidate { .. });
        let subject = if invalidates { Subject::Space(record.key.space) } else { Subject::Key(record.key.clone()) };
        let new = self.dots.entry(partition).or_default().insert(dot, subject).is_none();
        if invalidates {
            self.epochs.entry((partition, record.key.space)).or_default().push(record);
        } else {
            self.keys.entry(record.key.clone()).or_default().add(record);
        }
        new
    }

    /// Returns what an event is about, if it ever happened.
    #[must_use]
    pub fn subject(&self, partition: PartitionId, dot: Dot) -> Option<&Subject> {
        self.dots.get(&partition)?.get(&dot)
    }

    /// Returns the number of a replica's latest event in a partition.
    #[must_use]
    pub fn made(&self, partition: PartitionId, replica: ReplicaId) -> u64 {
        self.made.get(&(partition, replica)).copied().unwrap_or(0)
    }

    /// Returns what somebody who has seen `ctx` of a partition must see there at `now_ms`.
    #[must_use]
    pub fn view<'a>(&'a self, partition: PartitionId, ctx: &'a Ctx, now_ms: u64) -> View<'a> {
        View::new(self, partition, ctx, now_ms)
    }

    /// Iterates over every key anything was ever done to, in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    /// Iterates over the events of a key, in the order in which they were made.
    pub fn of(&self, key: &Key) -> impl Iterator<Item = &Record> {
        self.keys.get(key).into_iter().flat_map(|about| &about.records)
    }

    /// Iterates over the keys of a keyspace.
    pub fn keys_of(&self, space: Space) -> impl Iterator<Item = &Key> {
        self.keys.keys().filter(move |key| key.space == space)
    }
}

impl About {
    fn add(&mut self, record: Record) {
        match &record.event {
            Event::Put { path, .. } => {
                self.paths.insert(path.clone());
            }
            Event::Increment { name, .. } => {
                self.counters.insert(name.clone());
            }
            Event::Set { .. }
            | Event::Delete
            | Event::Touch { .. }
            | Event::Remove { .. }
            | Event::Clear { .. }
            | Event::Reset { .. }
            | Event::Extend { .. }
            | Event::Note { .. }
            | Event::DeleteCustom
            | Event::Invalidate { .. } => {}
        }
        self.records.push(record);
    }
}
