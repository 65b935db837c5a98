//! Doing a mutation and noting what it did.
//!
//! What was asked for is noted from the mutation itself; what only its author's state can tell (which contributions it
//! knew, which element it put again, which deadline it inherited) is read from the author, just before or just after.
//!
//! # Invariants
//! * A mutation that was refused, or had nothing to change, leaves no record.

use bytes::Bytes;

use super::event::{Event, Key, Life, Record, Space};
use super::history::History;
use crate::crdt::custom::{BadState, decode, encode};
use crate::crdt::{Custom, Path, Tree};
use crate::error::WriteError;
use crate::id::PartitionId;
use crate::store::partition::KeyRef;
use crate::store::write::Written;
use crate::store::{Body, Cleared, Entry, Keyspace, Partition, Selector, Store, Tick};

/// The custom type of the histories: a grow-only set, whose merge shows every lost update.
pub type Notes = crdts::GSet<u64>;

/// Bytes the budget is asked for before a counter or custom entry grows.
const GROWTH_BYTES: usize = 96;

/// Where a mutation is made: a store, and the way its callers go.
pub trait Site {
    /// Returns the store, if there is one.
    fn store(&self) -> Option<&Store>;

    /// Runs a local mutation, as [`Store::write`] does.
    ///
    /// # Errors
    /// [`WriteError`] when it is refused; nothing was written.
    fn write<R>(
        &mut self,
        at: &KeyRef<'_>,
        value_len: Option<usize>,
        f: impl FnOnce(&mut Partition, &Tick<'_>) -> R,
    ) -> Result<R, WriteError>;

    /// Clears what a selector matches, as [`Store::invalidate`] does.
    ///
    /// # Errors
    /// [`WriteError`] when it is refused; nothing was cleared.
    fn invalidate(&mut self, space: &Keyspace, selector: &Selector) -> Result<Vec<Cleared>, WriteError>;
}

/// A local mutation. Deadlines are absolute milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each is the store's mutation of the same name, with its parameters")]
pub enum Mutation {
    Set { value: Bytes, tags: Vec<Bytes>, deadline: u64 },
    Delete,
    Touch { deadline: u64 },
    Put { path: Path, value: Bytes, deadline: u64 },
    Remove { path: Path },
    TouchPath { path: Path, deadline: u64 },
    ExpireKey { deadline: u64 },
    Clear,
    Increment { name: Bytes, by: i64, deadline: u64 },
    TouchCounter { name: Bytes, deadline: u64 },
    Reset { name: Bytes },
    Note { item: u64, deadline: u64 },
    DeleteCustom,
    Invalidate { selector: Selector },
}

impl History {
    /// Makes a mutation at a site and notes what it did. Returns its events, none if there was nothing to change.
    ///
    /// # Errors
    /// [`WriteError`] when it was refused; nothing was written or noted.
    pub fn perform(
        &mut self,
        site: &mut impl Site,
        key: &Key,
        mutation: &Mutation,
    ) -> Result<Vec<(PartitionId, Written)>, WriteError> {
        let store = site.store().ok_or(WriteError::NotJoined)?;
        let space = open(store, key.space)?;
        if let Mutation::Invalidate { selector } = mutation {
            return self.invalidate(site, &space, key, selector);
        }
        let at = KeyRef::new(&space, &key.name);
        let partition = store.place(at.hash);
        let past = store.read(partition).map(|p| p.ctx().clone()).unwrap_or_default();
        let before = store.with_entry(&at, |entry| entry.cloned());
        let written = site.write(&at, mutation.room(), |p, tick| apply(p, &at, mutation, tick))??;
        let store = site.store().ok_or(WriteError::NotJoined)?;
        let after = store.with_entry(&at, |entry| entry.cloned());
        let known = Known { before: before.as_ref(), after: after.as_ref() };
        for (written, event) in written.iter().zip(known.events(mutation, &written)) {
            let (past, key) = (past.clone(), key.clone());
            self.add(Record { partition, dot: written.dot, stamp: written.stamp, past, key, event });
        }
        Ok(written.into_iter().map(|written| (partition, written)).collect())
    }

    fn invalidate(
        &mut self,
        site: &mut impl Site,
        space: &Keyspace,
        key: &Key,
        selector: &Selector,
    ) -> Result<Vec<(PartitionId, Written)>, WriteError> {
        let store = site.store().ok_or(WriteError::NotJoined)?;
        let pasts: Vec<_> = store.partition_ids().filter_map(|id| Some((id, store.read(id)?.ctx().clone()))).collect();
        let cleared = site.invalidate(space, selector)?;
        for c in &cleared {
            let past = pasts.iter().find(|(id, _)| *id == c.partition).map(|(_, ctx)| ctx.clone()).unwrap_or_default();
            let (Written { dot, stamp }, key) = (c.written, key.clone());
            let event = Event::Invalidate { selector: selector.clone() };
            self.add(Record { partition: c.partition, dot, stamp, past, key, event });
        }
        Ok(cleared.into_iter().map(|c| (c.partition, c.written)).collect())
    }
}

/// Returns a keyspace of a store, opened now if nobody has.
///
/// # Errors
/// [`WriteError::TooManyKeyspaces`] when it cannot be opened.
pub fn open(store: &Store, space: Space) -> Result<std::sync::Arc<Keyspace>, WriteError> {
    match store.spaces().find(space.name) {
        Some(found) => Ok(found),
        None => store.spaces().open(space.name, space.family).map_err(|_refused| WriteError::TooManyKeyspaces),
    }
}

impl Mutation {
    /// Returns the bytes it asks the budget for; `None` for one that is always admitted.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        match self {
            Self::Set { value, .. } | Self::Put { value, .. } => Some(value.len()),
            Self::Increment { .. } | Self::Note { .. } => Some(GROWTH_BYTES),
            Self::Delete
            | Self::Touch { .. }
            | Self::Remove { .. }
            | Self::TouchPath { .. }
            | Self::ExpireKey { .. }
            | Self::Clear
            | Self::TouchCounter { .. }
            | Self::Reset { .. }
            | Self::DeleteCustom
            | Self::Invalidate { .. } => None,
        }
    }

    /// Returns by how many bytes it may make a map larger that is there already; `None` for one that makes none larger.
    #[must_use]
    pub fn growth(&self) -> Option<usize> {
        self.room().filter(|_| matches!(self, Self::Put { .. } | Self::Increment { .. }))
    }
}

fn apply(p: &mut Partition, at: &KeyRef<'_>, mutation: &Mutation, tick: &Tick<'_>) -> Result<Vec<Written>, WriteError> {
    Ok(match mutation {
        Mutation::Set { value, tags, deadline } if tags.is_empty() => vec![p.set(at, value.clone(), *deadline, tick)],
        Mutation::Set { value, tags, deadline } => {
            vec![p.set_tagged(at, (value.clone(), tags.clone()), *deadline, tick)]
        }
        Mutation::Delete => vec![p.delete(at, tick)],
        Mutation::Touch { deadline } => p.touch(at, *deadline, tick).into_iter().collect(),
        Mutation::Put { path, value, deadline } => {
            p.admit_growth(at, path, value.len())?;
            vec![p.put(at, path.clone(), value.clone(), *deadline, tick)]
        }
        Mutation::Remove { path } => p.remove(at, path, tick).into_iter().collect(),
        Mutation::TouchPath { path, deadline } => p.touch_path(at, path, *deadline, tick).into_iter().collect(),
        Mutation::ExpireKey { deadline } => p.expire_key(at, *deadline, tick),
        Mutation::Clear => p.clear(at, tick).into_iter().collect(),
        Mutation::Increment { name, by, deadline } => {
            p.admit_growth(at, &Path::Counter(name.clone()), GROWTH_BYTES)?;
            vec![p.increment(at, name, *by, *deadline, tick)]
        }
        Mutation::TouchCounter { name, deadline } => p.touch_counter(at, name, *deadline, tick).into_iter().collect(),
        Mutation::Reset { name } => p.reset(at, name, tick).into_iter().collect(),
        Mutation::Note { item, deadline } => vec![note(p, at, *item, *deadline, tick)?],
        Mutation::DeleteCustom => vec![p.delete_custom(at, tick)],
        Mutation::Invalidate { .. } => Vec::new(),
    })
}

/// Adds an item to a custom entry, beginning a new life when none is visible.
fn note(p: &mut Partition, at: &KeyRef<'_>, item: u64, deadline: u64, tick: &Tick<'_>) -> Result<Written, WriteError> {
    let add = |seen: Option<&Bytes>| {
        let mut notes: Notes = seen.map_or_else(|| Ok(Notes::new()), |bytes| decode(bytes))?;
        crdts::CmRDT::apply(&mut notes, item);
        encode(&notes)
    };
    p.update_custom(at, deadline, tick, add)
        .map_err(|_state: BadState| WriteError::Undecodable { what: "custom state" })
}

/// What the author's state was around a mutation.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    before: Option<&'a Entry>,
    after: Option<&'a Entry>,
}

impl Known<'_> {
    /// Returns what each of the events did.
    fn events(self, mutation: &Mutation, written: &[Written]) -> Vec<Event> {
        let one = |event: Event| vec![event; written.len()];
        match mutation {
            Mutation::Set { value, tags, deadline } => {
                one(Event::Set { value: value.clone(), tags: tags.clone(), deadline: *deadline })
            }
            Mutation::Delete => one(Event::Delete),
            Mutation::Touch { deadline } => {
                let base = self.before.and_then(cell).map(crate::crdt::Cell::stamp).unwrap_or_default();
                one(Event::Touch { base, deadline: *deadline })
            }
            Mutation::Put { .. } | Mutation::TouchPath { .. } | Mutation::ExpireKey { .. } => {
                self.puts(mutation, written)
            }
            Mutation::Remove { path } => one(Event::Remove { path: path.clone() }),
            Mutation::Clear => one(Event::Clear { lives: lives_of_all(self.before) }),
            Mutation::Increment { name, by, .. } => {
                let own = |life: &Life| written.first().is_some_and(|w| w.dot.replica == life.origin);
                let life = lives(self.after, name).into_iter().find(own);
                life.map(|life| Event::Increment { name: name.clone(), by: *by, life }).into_iter().collect()
            }
            Mutation::TouchCounter { name, deadline } => one(self.extension(name, *deadline)),
            Mutation::Reset { name } => one(Event::Reset { name: name.clone(), lives: lives(self.before, name) }),
            Mutation::Note { item, deadline } => {
                let generation = self.after.and_then(custom).map(|c| c.generation).unwrap_or_default();
                one(Event::Note { generation, item: *item, deadline: *deadline })
            }
            Mutation::DeleteCustom => one(Event::DeleteCustom),
            Mutation::Invalidate { .. } => Vec::new(),
        }
    }

    /// Events that put elements; those that are no element extended a counter, in order of name.
    fn puts(self, mutation: &Mutation, written: &[Written]) -> Vec<Event> {
        let deadline = if let Mutation::ExpireKey { deadline } = mutation { *deadline } else { 0 };
        let mut counters = tree(self.before).into_iter().flat_map(Tree::counters).map(|(name, _)| name);
        let mut event = |w: &Written| {
            let put = tree(self.after)?.elems().find_map(|(path, s)| Some((path, s.iter().find(|e| e.dot == w.dot)?)));
            if let Some((path, e)) = put {
                let (path, value) = (path.clone(), e.value.clone());
                return Some(Event::Put { path, value, stamp: e.stamp, deadline: e.deadline });
            }
            counters.next().map(|name| self.extension(name, deadline))
        };
        written.iter().filter_map(&mut event).collect()
    }

    fn extension(self, name: &Bytes, deadline: u64) -> Event {
        let lives = lives(self.before, name).into_iter().map(|life| Life { deadline, ..life }).collect();
        Event::Extend { name: name.clone(), lives }
    }
}

/// Returns the contributions to a counter that an entry holds, with their deadlines.
fn lives(entry: Option<&Entry>, name: &[u8]) -> Vec<Life> {
    let counter = tree(entry).and_then(|tree| tree.counter(name)).into_iter();
    let life = |(origin, c): (&crate::id::ReplicaId, &crate::crdt::Contribution)| Life {
        origin: *origin,
        birth: c.birth,
        deadline: c.deadline,
    };
    counter.flat_map(|counter| counter.0.iter().map(life)).collect()
}

fn lives_of_all(entry: Option<&Entry>) -> Vec<(Bytes, Life)> {
    let names = tree(entry).into_iter().flat_map(Tree::counters).map(|(name, _)| name);
    names.flat_map(|name| lives(entry, name).into_iter().map(|life| (name.clone(), life))).collect()
}

/// Returns the map, set or counter of an entry.
pub(in crate::sim) fn tree(entry: Option<&Entry>) -> Option<&Tree> {
    match &entry?.body {
        Body::Tree(tree) => Some(tree),
        Body::Register(_) | Body::Custom(_) => None,
    }
}

/// Returns the register of an entry.
pub(in crate::sim) fn cell(entry: &Entry) -> Option<&crate::crdt::Cell> {
    match &entry.body {
        Body::Register(cell) => cell.as_ref(),
        Body::Tree(_) | Body::Custom(_) => None,
    }
}

/// Returns the custom state of an entry.
pub(in crate::sim) fn custom(entry: &Entry) -> Option<&Custom> {
    match &entry.body {
        Body::Custom(custom) => custom.as_ref().as_ref(),
        Body::Register(_) | Body::Tree(_) => None,
    }
}
