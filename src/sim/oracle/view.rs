//! What somebody who has seen certain events must see: the definitions of `docs/semantics.md`, by brute force.
//!
//! There is no order of arrival here, no log, no collection and no memory: only which events were seen, what each
//! event's author had seen, and the time. Whatever a store does on its way must lead to these answers.
//!
//! # Invariants
//! * An answer depends on the events seen and on the time, and on nothing else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::event::{Event, Key, Life, Record};
use super::history::{About, History};
use crate::clock::Stamp;
use crate::crdt::{Ctx, Dot, Path};
use crate::id::{PartitionId, ReplicaId};
use crate::store::Selector;

/// A value that shows, or would if no other did.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Live {
    /// Its order.
    pub stamp: Stamp,
    /// When it ends.
    pub deadline: u64,
    /// The event that put it there.
    pub dot: Dot,
    /// The value.
    pub value: Bytes,
}

/// The state of a custom entry that shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noted {
    /// The stamp of the event that began this life of the entry.
    pub generation: Stamp,
    /// Every item noted since.
    pub items: BTreeSet<u64>,
    /// When it ends.
    pub deadline: u64,
}

/// What one origin adds to a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which of its lives.
    pub birth: u64,
    /// How much; never zero.
    pub sum: i128,
    /// When it ends.
    pub deadline: u64,
}

/// A partition as somebody sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    history: &'a History,
    partition: PartitionId,
    ctx: &'a Ctx,
    now_ms: u64,
}

/// A key as somebody sees it.
#[derive(Debug)]
pub struct KeyView<'a> {
    view: View<'a>,
    key: &'a Key,
    about: Option<&'a About>,
    seen: Vec<&'a Record>,
}

impl<'a> View<'a> {
    pub(super) fn new(history: &'a History, partition: PartitionId, ctx: &'a Ctx, now_ms: u64) -> Self {
        Self { history, partition, ctx, now_ms }
    }

    /// Looks at one key.
    #[must_use]
    pub fn of(self, key: &'a Key) -> KeyView<'a> {
        let about = self.history.keys.get(key);
        let records = about.map_or(&[][..], |about| &about.records);
        let seen = records.iter().filter(|r| self.ctx.has(r.dot)).collect();
        KeyView { view: self, key, about, seen }
    }
}

impl KeyView<'_> {
    /// Returns the key looked at.
    #[must_use]
    pub fn key(&self) -> &Key {
        self.key
    }

    /// Tells whether an event wrote this value here, whoever has seen it.
    #[must_use]
    pub fn ever_wrote(&self, dot: Dot, wrote: &Bytes) -> bool {
        self.all().any(|r| {
            r.dot == dot && matches!(&r.event, Event::Set { value, .. } | Event::Put { value, .. } if value == wrote)
        })
    }

    /// Tells whether an item was ever noted here, whoever has seen it.
    #[must_use]
    pub fn ever_noted(&self, noted: u64) -> bool {
        self.all().any(|r| matches!(r.event, Event::Note { item, .. } if item == noted))
    }

    /// Tells whether a value would show if it were not for its deadline.
    #[must_use]
    pub fn ended_by_time(&self, live: &Live) -> bool {
        let timeless = Self { view: View { now_ms: 0, ..self.view }, seen: self.seen.clone(), ..*self };
        let ends = |l: &Live| l.dot == live.dot && l.deadline <= self.view.now_ms;
        timeless.register().iter().any(ends) || self.paths().any(|path| timeless.siblings(path).iter().any(ends))
    }

    fn all(&self) -> impl Iterator<Item = &Record> {
        self.about.into_iter().flat_map(|about| &about.records)
    }

    /// Returns what a register shows: the write with the largest stamp, alive until the latest deadline anybody gave
    /// that very write, unless an invalidation with a larger stamp matches it.
    #[must_use]
    pub fn register(&self) -> Option<Live> {
        let last = self.last_write()?;
        let Event::Set { value, tags, deadline } = &last.event else { return None };
        let touched = self.seen.iter().filter_map(|r| match_touch(r, last.stamp));
        let deadline = touched.fold(*deadline, u64::max);
        let live = self.view.now_ms < deadline && !self.is_invalidated(last.stamp, tags);
        live.then(|| Live { stamp: last.stamp, deadline, dot: last.dot, value: value.clone() })
    }

    /// Tells whether the last write to the register has all of these tags.
    #[must_use]
    pub fn has_tags(&self, tags: &[Bytes]) -> bool {
        match self.last_write().map(|r| &r.event) {
            Some(Event::Set { tags: has, .. }) => tags.iter().all(|tag| has.contains(tag)),
            Some(_) | None => tags.is_empty(),
        }
    }

    /// Returns the largest stamp of a write to the register, whatever it wrote.
    #[must_use]
    pub fn last_stamp(&self) -> Option<Stamp> {
        self.last_write().map(|r| r.stamp)
    }

    fn last_write(&self) -> Option<&Record> {
        let writes = self.seen.iter().filter(|r| matches!(r.event, Event::Set { .. } | Event::Delete));
        writes.max_by_key(|r| r.stamp).copied()
    }

    /// Tells whether an invalidation with a larger stamp than a write's matches it.
    #[must_use]
    pub fn is_invalidated(&self, stamp: Stamp, tags: &[Bytes]) -> bool {
        let place = (self.view.partition, self.key.space);
        let epochs = self.view.history.epochs.get(&place).into_iter().flatten();
        epochs
            .filter(|r| self.view.ctx.has(r.dot) && stamp < r.stamp)
            .any(|r| matches!(&r.event, Event::Invalidate { selector } if selects(selector, &self.key.name, tags)))
    }

    /// Returns the live siblings at a path in order of dot: every unexpired put that no later event there has seen.
    #[must_use]
    pub fn siblings(&self, path: &Path) -> Vec<Live> {
        self.live_puts(path, self.view.now_ms)
    }

    /// Returns the puts at a path that no later event there has seen and that end after `after_ms`.
    fn live_puts(&self, path: &Path, after_ms: u64) -> Vec<Live> {
        let ends: Vec<&Record> = self.seen.iter().copied().filter(|r| ends_at(r, path)).collect();
        let put = |r: &&Record| {
            let Event::Put { path: at, value, stamp, deadline } = &r.event else { return None };
            let gone = || ends.iter().any(|end| end.past.has(r.dot));
            let live = at == path && after_ms < *deadline && !gone();
            live.then(|| Live { stamp: *stamp, deadline: *deadline, dot: r.dot, value: value.clone() })
        };
        let mut live: Vec<Live> = self.seen.iter().filter_map(put).collect();
        live.sort_by_key(|l| l.dot);
        live
    }

    /// Tells whether anything put at a path is still there, expired or not.
    #[must_use]
    pub fn holds_anything(&self, path: &Path) -> bool {
        !self.live_puts(path, 0).is_empty()
    }

    /// Returns what a read of a path shows: the sibling with the largest stamp.
    #[must_use]
    pub fn winner(&self, path: &Path) -> Option<Live> {
        self.siblings(path).into_iter().max_by_key(|l| (l.stamp, l.deadline, l.dot))
    }

    /// Iterates over the paths anything was ever put at.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.about.into_iter().flat_map(|about| &about.paths)
    }

    /// Iterates over the counters anything was ever counted in.
    pub fn counters(&self) -> impl Iterator<Item = &Bytes> {
        self.about.into_iter().flat_map(|about| &about.counters)
    }

    /// Returns what a counter shows.
    #[must_use]
    pub fn count(&self, name: &[u8]) -> i64 {
        let sum: i128 = self.parts(name).values().map(|part| part.sum).sum();
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    /// Returns what each origin adds to a counter: what its last life added, and no reset that knew this life has seen.
    #[must_use]
    pub fn parts(&self, name: &[u8]) -> BTreeMap<ReplicaId, Part> {
        let mut births: BTreeMap<ReplicaId, u64> = BTreeMap::new();
        for r in &self.seen {
            if let Event::Increment { name: at, life, .. } = &r.event
                && at == name
            {
                let birth = births.entry(life.origin).or_default();
                *birth = (*birth).max(life.birth);
            }
        }
        let part = |(origin, birth)| Some((origin, self.part(name, origin, birth)?));
        births.into_iter().filter_map(part).collect()
    }

    fn part(&self, name: &[u8], origin: ReplicaId, birth: u64) -> Option<Part> {
        let this = |life: &Life| life.origin == origin && life.birth == birth;
        let mut deadline = 0;
        let (mut added, mut erasers) = (Vec::new(), Vec::new());
        for &r in &self.seen {
            if let Event::Increment { name: at, by, life } = &r.event {
                if at == name && this(life) {
                    deadline = deadline.max(life.deadline);
                    added.push((r.dot, *by));
                }
            } else if let Event::Extend { name: at, lives } = &r.event {
                let own = lives.iter().filter(|life| at == name && this(life));
                deadline = own.fold(deadline, |deadline, life| deadline.max(life.deadline));
            } else if let Event::Reset { name: at, lives } = &r.event {
                erasers.extend((at == name && lives.iter().any(this)).then_some(r));
            } else if let Event::Clear { lives } = &r.event {
                erasers.extend(lives.iter().any(|(at, life)| at == name && this(life)).then_some(r));
            }
        }
        let counts = |dot: &Dot| !erasers.iter().any(|eraser| eraser.past.has(*dot));
        let sum: i128 = added.iter().filter(|(dot, _)| counts(dot)).map(|(_, by)| i128::from(*by)).sum();
        (sum != 0 && self.view.now_ms < deadline).then_some(Part { birth, sum, deadline })
    }

    /// Returns what a custom entry shows: every item of the last life, unless that is a deletion or over.
    #[must_use]
    pub fn noted(&self) -> Option<Noted> {
        let last = self.seen.iter().filter_map(|r| generation(r)).max()?;
        let mut noted = Noted { generation: last, items: BTreeSet::new(), deadline: 0 };
        for r in &self.seen {
            if let Event::Note { generation, item, deadline } = r.event
                && generation == last
            {
                noted.items.insert(item);
                noted.deadline = noted.deadline.max(deadline);
            }
        }
        (self.view.now_ms < noted.deadline).then_some(noted)
    }
}

/// Returns the deadline an event asked for, if it is a touch of the write with this stamp.
fn match_touch(record: &Record, write: Stamp) -> Option<u64> {
    if let Event::Touch { base, deadline } = record.event
        && base == write
    {
        return Some(deadline);
    }
    None
}

/// Tells whether an event ends what its author had seen at a path.
fn ends_at(record: &Record, path: &Path) -> bool {
    if let Event::Put { path: at, .. } | Event::Remove { path: at } = &record.event {
        return at == path;
    }
    matches!(record.event, Event::Clear { .. })
}

/// Returns the life of a custom entry that an event belongs to.
fn generation(record: &Record) -> Option<Stamp> {
    if let Event::Note { generation, .. } = record.event {
        return Some(generation);
    }
    (record.event == Event::DeleteCustom).then_some(record.stamp)
}

/// Tells whether an invalidation is about a register with these tags. A prefix is one of the text that a key is.
fn selects(selector: &Selector, key: &[u8], tags: &[Bytes]) -> bool {
    match selector {
        Selector::All => true,
        Selector::Prefix(prefix) => {
            rmp_serde::from_slice::<String>(key).is_ok_and(|text| text.starts_with(prefix.as_str()))
        }
        Selector::Tag(tag) => tags.iter().any(|t| t.as_ref() == tag.as_bytes()),
    }
}
