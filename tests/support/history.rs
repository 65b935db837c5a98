//! What really happened, and what a reader must therefore see.
//!
//! Knows nothing of the store: an event is its dot, its stamp, what its author had seen, and what
//! it did. The answers follow from the definitions in `docs/design.md`, by brute force.

#![expect(clippy::wildcard_enum_match_arm, reason = "each question is about one or two kinds of event")]

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless::clock::Stamp;
use driftless::crdt::{Ctx, Dot, Path};
use driftless::id::ReplicaId;

/// One life of one origin's contribution to a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    pub(crate) origin: ReplicaId,
    pub(crate) birth: u64,
    pub(crate) deadline: u64,
}

/// What an event did. Deadlines are those the author's own state had afterwards.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Set { value: Bytes, deadline: u64 },
    Delete,
    Touch { base: Stamp, deadline: u64 },
    Put { path: Path, value: Bytes, stamp: Stamp, deadline: u64 },
    Remove { path: Path },
    Clear { lives: Vec<Life> },
    Increment { by: i64, life: Life },
    Reset { lives: Vec<Life> },
    Extend { lives: Vec<Life> },
    Note { generation: Stamp, item: u64, deadline: u64 },
    DeleteCustom,
}

/// An event and its place in time.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) dot: Dot,
    pub(crate) stamp: Stamp,
    /// What its author had seen just before.
    pub(crate) past: Ctx,
    pub(crate) key: &'static str,
    pub(crate) event: Event,
}

/// All events.
#[derive(Default, Debug)]
pub(crate) struct History(Vec<Record>);

impl History {
    pub(crate) fn add(&mut self, record: Record) {
        self.0.push(record);
    }

    /// Returns the events a context holds; the others died with their only author.
    pub(crate) fn within(&self, ctx: &Ctx) -> Vec<&Record> {
        self.0.iter().filter(|r| ctx.has(r.dot)).collect()
    }
}

fn of<'a>(seen: &'a [&Record], key: &'a str) -> impl Iterator<Item = &'a Record> + Clone {
    seen.iter().copied().filter(move |r| r.key == key)
}

/// The largest stamp, alive until the latest deadline anybody gave that very write.
pub(crate) fn register(seen: &[&Record], key: &str, t: u64) -> Option<Bytes> {
    let writes = of(seen, key).filter(|r| matches!(r.event, Event::Set { .. } | Event::Delete));
    let last = writes.max_by_key(|r| r.stamp)?;
    let Event::Set { value, deadline } = &last.event else { return None };
    let touched = of(seen, key).filter_map(|r| match r.event {
        Event::Touch { base, deadline } if base == last.stamp => Some(deadline),
        _ => None,
    });
    let deadline = touched.fold(*deadline, u64::max);
    (t < deadline).then(|| value.clone())
}

/// The largest stamp among the unexpired puts that no later event at that path has observed.
pub(crate) fn path(seen: &[&Record], key: &str, path: &Path, t: u64) -> Option<Bytes> {
    let ends = of(seen, key).filter(|r| match &r.event {
        Event::Put { path: p, .. } | Event::Remove { path: p } => p == path,
        Event::Clear { .. } => true,
        _ => false,
    });
    let live = of(seen, key).filter_map(|r| match &r.event {
        Event::Put { path: p, value, stamp, deadline } if p == path && t < *deadline => {
            let gone = ends.clone().any(|end| end.past.has(r.dot));
            (!gone).then_some((*stamp, *deadline, r.dot, value))
        }
        _ => None,
    });
    live.max().map(|(.., value)| value.clone())
}

/// Per origin, what its last life added and no reset that knew this life has observed.
pub(crate) fn counter(seen: &[&Record], key: &str, t: u64) -> i64 {
    let origins: BTreeSet<ReplicaId> = of(seen, key).map(|r| r.dot.replica).collect();
    origins.into_iter().map(|origin| contribution(seen, key, origin, t)).sum()
}

fn contribution(seen: &[&Record], key: &str, origin: ReplicaId, t: u64) -> i64 {
    let added = of(seen, key).filter_map(|r| match &r.event {
        Event::Increment { by, life } if life.origin == origin => Some((r.dot, *by, *life)),
        _ => None,
    });
    let Some(birth) = added.clone().map(|(_, _, life)| life.birth).max() else { return 0 };
    let this = |life: &Life| life.origin == origin && life.birth == birth;
    let extended = of(seen, key).filter_map(|r| match &r.event {
        Event::Extend { lives } => lives.iter().find(|l| this(l)).map(|l| l.deadline),
        _ => None,
    });
    let deadline = added.clone().filter(|(_, _, l)| this(l)).map(|(_, _, l)| l.deadline).chain(extended).max();
    if deadline.is_none_or(|d| d <= t) {
        return 0;
    }
    let erased = |dot: Dot| {
        of(seen, key).any(|r| match &r.event {
            Event::Reset { lives } | Event::Clear { lives } => r.past.has(dot) && lives.iter().any(this),
            _ => false,
        })
    };
    added.filter(|(dot, _, life)| this(life) && !erased(*dot)).map(|(_, by, _)| by).sum()
}

/// Every item noted in the last generation, unless that is a deletion or over.
pub(crate) fn custom(seen: &[&Record], key: &str, t: u64) -> Option<BTreeSet<u64>> {
    let generation = |r: &Record| match r.event {
        Event::Note { generation, .. } => Some(generation),
        Event::DeleteCustom => Some(r.stamp),
        _ => None,
    };
    let last = of(seen, key).filter_map(generation).max()?;
    let notes: Vec<(u64, u64)> = of(seen, key)
        .filter_map(|r| match r.event {
            Event::Note { generation, item, deadline } if generation == last => Some((item, deadline)),
            _ => None,
        })
        .collect();
    let deadline = notes.iter().map(|(_, deadline)| *deadline).max()?;
    (t < deadline).then(|| notes.into_iter().map(|(item, _)| item).collect())
}
