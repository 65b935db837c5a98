//! Local mutations: each one, removals included, ticks the clock and mints a dot.
//!
//! # Invariants
//! * Stamps of one partition grow with their sequence numbers: the tick happens under the lock.
//! * A mutation with nothing to change (a touch of nothing, a removal of nothing) mints nothing.

use bytes::Bytes;

use super::entry::{Body, Entry};
use super::fingerprint::Print;
use super::partition::{KeyRef, Partition};
use crate::clock::{Hlc, HlcClock, Stamp};
use crate::crdt::custom::BadState;
use crate::crdt::register::tombstone;
use crate::crdt::tree::winner;
use crate::crdt::{Cell, Custom, Dot, Elem, Path, Payload, Scope, Tree};
use crate::error::WriteError;
use crate::probe::{planted, sometimes};

/// Most fields, members and counters of one map that local writes may reach.
pub const FIELDS_MAX: usize = 65_536;
/// Most bytes of one map that local writes may reach: a sixteenth of what a frame carries, so that
/// sixteen nodes growing it at the same time still leave it sendable.
pub const ENTRY_BYTES_MAX: usize = 256 << 10;

/// Where a mutation takes its time from.
#[derive(Clone, Copy, Debug)]
pub struct Tick<'a> {
    /// The replica's clock.
    pub clock: &'a HlcClock,
    /// The wall clock in Unix milliseconds.
    pub wall_ms: u64,
}

impl Tick<'_> {
    fn next(&self) -> Hlc {
        self.clock.tick(self.wall_ms)
    }

    /// Returns the time that decides what is visible.
    #[must_use]
    pub fn visible_ms(&self) -> u64 {
        self.clock.visible_ms(self.wall_ms)
    }
}

/// What a mutation left behind: its dot and its place in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The event.
    pub dot: Dot,
    /// Its stamp.
    pub stamp: Stamp,
}

impl Partition {
    /// Mints the event of a mutation and applies it to the entry.
    fn event(
        &mut self,
        at: &KeyRef<'_>,
        scope: Scope,
        tick: &Tick<'_>,
        f: impl FnOnce(&mut Entry, Hlc, Dot),
    ) -> Written {
        let slot = self.find_or_make(at);
        let hlc = tick.next();
        let dot = self.mint(slot, scope.clone());
        self.moved = Print::default();
        self.change(slot, at.space, Some(&scope), |entry| f(entry, hlc, dot));
        self.remember(slot, &scope, at.space.family(), std::iter::once(dot));
        self.bound_log(slot);
        Written { dot, stamp: Stamp { hlc, replica: dot.replica } }
    }

    /// Sets a register.
    pub fn set(&mut self, at: &KeyRef<'_>, value: Bytes, deadline: u64, tick: &Tick<'_>) -> Written {
        self.event(at, Scope::Path(Path::Register), tick, |entry, hlc, dot| {
            entry.body = Body::Register(Some(Cell::new(Payload::Value(value), hlc, dot, deadline)));
        })
    }

    /// Sets a register and files the value under tags that an epoch may name.
    pub fn set_tagged(
        &mut self,
        at: &KeyRef<'_>,
        (value, tags): (Bytes, Vec<Bytes>),
        deadline: u64,
        tick: &Tick<'_>,
    ) -> Written {
        self.event(at, Scope::Path(Path::Register), tick, |entry, hlc, dot| {
            let cell = Cell::new(Payload::Value(value), hlc, dot, deadline).with_tags(tags);
            entry.body = Body::Register(Some(cell));
        })
    }

    /// Deletes a register, also one never seen here: the tombstone beats an older write in flight.
    pub fn delete(&mut self, at: &KeyRef<'_>, tick: &Tick<'_>) -> Written {
        sometimes!(UnseenKeyDeleted, if self.find(at).is_none());
        self.event(at, Scope::Path(Path::Register), tick, |entry, hlc, dot| {
            entry.body = Body::Register(Some(tombstone(hlc, dot)));
        })
    }

    /// Extends a register's life; nothing happens when it is not visible.
    pub fn touch(&mut self, at: &KeyRef<'_>, deadline: u64, tick: &Tick<'_>) -> Option<Written> {
        let now_ms = tick.visible_ms();
        match &self.entry(at)?.body {
            Body::Register(Some(cell)) if cell.visible(now_ms).is_some() => {}
            Body::Register(cell) => {
                sometimes!(TouchMetExpired, if cell.as_ref().is_some_and(|c| matches!(c.payload(), Payload::Value(_))));
                return None;
            }
            Body::Tree(_) | Body::Custom(_) => return None,
        }
        Some(self.event(at, Scope::Path(Path::Register), tick, |entry, hlc, dot| {
            if let Body::Register(Some(cell)) = &mut entry.body {
                if planted!(TouchRestamps) {
                    let tags = cell.tags().to_vec();
                    *cell = Cell::new(cell.payload().clone(), hlc, dot, cell.deadline).with_tags(tags);
                }
                cell.extend(dot, deadline);
            }
        }))
    }

    fn tree(&self, at: &KeyRef<'_>) -> Option<&Tree> {
        match &self.entry(at)?.body {
            Body::Tree(tree) => Some(tree),
            Body::Register(_) | Body::Custom(_) => None,
        }
    }

    fn tree_event(
        &mut self,
        at: &KeyRef<'_>,
        scope: Scope,
        tick: &Tick<'_>,
        f: impl FnOnce(&mut Tree, Hlc, Dot),
    ) -> Written {
        self.event(at, scope, tick, |entry, hlc, dot| {
            if let Body::Tree(tree) = &mut entry.body {
                f(tree, hlc, dot);
            }
        })
    }

    /// Puts an element at a path of a map, replacing what is observed there. The element inherits
    /// the map's own deadline when that is earlier.
    pub fn put(&mut self, at: &KeyRef<'_>, path: Path, value: Bytes, deadline: u64, tick: &Tick<'_>) -> Written {
        let inherited = self.inherited_deadline(at, tick.visible_ms());
        sometimes!(MapDeadlineInherited, if inherited < deadline);
        let deadline = deadline.min(inherited);
        self.tree_event(at, Scope::Path(path.clone()), tick, |tree, hlc, dot| {
            let stamp = Stamp { hlc, replica: dot.replica };
            tree.put(path, Elem { dot, stamp, deadline, value });
        })
    }

    /// Checks that a map may take one more value of `len` bytes at a path.
    ///
    /// # Errors
    /// [`WriteError`] when it would grow past a limit. Nothing was changed.
    pub fn admit_growth(&self, at: &KeyRef<'_>, path: &Path, len: usize) -> Result<(), WriteError> {
        let Some(entry) = self.entry(at) else { return Ok(()) };
        let Body::Tree(tree) = &entry.body else { return Ok(()) };
        let known = match path {
            Path::Counter(name) => tree.counter(name).is_some(),
            Path::Register | Path::Custom | Path::Ttl | Path::Field(_) | Path::Member(..) => {
                !tree.siblings(path).is_empty()
            }
        };
        if !known && tree.len() >= FIELDS_MAX {
            sometimes!(MapAtItsLimit);
            return Err(WriteError::TooManyFields { len: tree.len(), max: FIELDS_MAX });
        }
        let bytes = entry.bytes() + len;
        if bytes > ENTRY_BYTES_MAX {
            sometimes!(MapAtItsLimit);
            return Err(WriteError::EntryTooLarge { len: bytes, max: ENTRY_BYTES_MAX });
        }
        Ok(())
    }

    fn inherited_deadline(&self, at: &KeyRef<'_>, now_ms: u64) -> u64 {
        self.tree(at)
            .and_then(|tree| tree.siblings(&Path::Ttl).iter().map(|e| e.deadline).filter(|d| now_ms < *d).max())
            .unwrap_or(crate::crdt::NEVER)
    }

    /// Erases what is observed at a path; nothing happens when nothing is.
    pub fn remove(&mut self, at: &KeyRef<'_>, path: &Path, tick: &Tick<'_>) -> Option<Written> {
        let tree = self.tree(at)?;
        if tree.siblings(path).is_empty() && !tree.is_hole() {
            return None;
        }
        sometimes!(RemovedUnseenFromHole, if tree.siblings(path).is_empty());
        if planted!(RemoveWithoutDot) {
            let (slot, dot) = (self.find_or_make(at), Dot { replica: self.me, seq: self.seq });
            self.change(slot, at.space, Some(&Scope::Key), |entry| {
                if let Body::Tree(tree) = &mut entry.body {
                    tree.remove(path);
                }
            });
            return Some(Written { dot, stamp: Stamp { hlc: tick.next(), replica: dot.replica } });
        }
        Some(self.tree_event(at, Scope::Path(path.clone()), tick, |tree, _, _| tree.remove(path)))
    }

    /// Gives the visible element at a path a later deadline: a new event, the same value and stamp.
    pub fn touch_path(&mut self, at: &KeyRef<'_>, path: &Path, deadline: u64, tick: &Tick<'_>) -> Option<Written> {
        let seen = winner(self.tree(at)?.siblings(path), tick.visible_ms())?.clone();
        Some(self.tree_event(at, Scope::Path(path.clone()), tick, |tree, _, dot| {
            tree.put(path.clone(), Elem { dot, deadline: seen.deadline.max(deadline), ..seen });
        }))
    }

    /// Sets the deadline of a whole map: every visible element is put again with the value it has
    /// and its stamp, and later puts inherit it. Returns the events, the inherited deadline last.
    pub fn expire_key(&mut self, at: &KeyRef<'_>, deadline: u64, tick: &Tick<'_>) -> Vec<Written> {
        let now_ms = tick.visible_ms();
        let Some(tree) = self.tree(at).filter(|t| !t.is_empty()) else { return Vec::new() };
        let seen: Vec<(Path, Elem)> = tree
            .elems()
            .filter(|(path, _)| **path != Path::Ttl)
            .filter_map(|(path, siblings)| winner(siblings, now_ms).map(|e| (path.clone(), e.clone())))
            .collect();
        let counters: Vec<Bytes> = tree.counters().map(|(name, _)| name.clone()).collect();
        let mut events = Vec::with_capacity(seen.len() + counters.len() + 1);
        for (path, elem) in seen {
            events.push(self.tree_event(at, Scope::Path(path.clone()), tick, |tree, _, dot| {
                tree.put(path, Elem { dot, deadline, ..elem });
            }));
        }
        for name in counters {
            let scope = Scope::Path(Path::Counter(name.clone()));
            events.push(self.tree_event(at, scope, tick, |tree, _, dot| tree.counter_mut(&name).extend(deadline, dot)));
        }
        events.push(self.tree_event(at, Scope::Path(Path::Ttl), tick, |tree, hlc, dot| {
            let stamp = Stamp { hlc, replica: dot.replica };
            tree.put(Path::Ttl, Elem { dot, stamp, deadline, value: Bytes::new() });
        }));
        events
    }

    /// Erases everything observed in a map; nothing happens when nothing is.
    pub fn clear(&mut self, at: &KeyRef<'_>, tick: &Tick<'_>) -> Option<Written> {
        self.tree(at).filter(|tree| !tree.is_empty())?;
        Some(self.tree_event(at, Scope::Key, tick, |tree, _, dot| tree.clear(dot)))
    }

    /// Adds to a counter; `deadline` holds for a contribution that begins with this event.
    pub fn increment(&mut self, at: &KeyRef<'_>, name: &Bytes, by: i64, deadline: u64, tick: &Tick<'_>) -> Written {
        let now_ms = tick.visible_ms();
        let deadline = deadline.min(self.inherited_deadline(at, now_ms));
        self.tree_event(at, Scope::Path(Path::Counter(name.clone())), tick, |tree, _, dot| {
            tree.counter_mut(name).add(dot.replica, dot.seq, by, deadline, now_ms);
        })
    }

    /// Extends the life of every contribution to a counter.
    pub fn touch_counter(&mut self, at: &KeyRef<'_>, name: &Bytes, deadline: u64, tick: &Tick<'_>) -> Option<Written> {
        self.tree(at)?.counter(name)?;
        let scope = Scope::Path(Path::Counter(name.clone()));
        Some(self.tree_event(at, scope, tick, |tree, _, dot| tree.counter_mut(name).extend(deadline, dot)))
    }

    /// Erases every increment observed; nothing happens when nothing was ever counted.
    pub fn reset(&mut self, at: &KeyRef<'_>, name: &Bytes, tick: &Tick<'_>) -> Option<Written> {
        self.tree(at)?.counter(name)?;
        let scope = Scope::Path(Path::Counter(name.clone()));
        Some(self.tree_event(at, scope, tick, |tree, _, dot| tree.counter_mut(name).reset(dot)))
    }

    /// Updates a custom state: `f` gets the visible state, if any, and returns the next one.
    ///
    /// # Errors
    /// What `f` returns; nothing is minted then.
    pub fn update_custom(
        &mut self,
        at: &KeyRef<'_>,
        deadline: u64,
        tick: &Tick<'_>,
        f: impl FnOnce(Option<&Bytes>) -> Result<Bytes, BadState>,
    ) -> Result<Written, BadState> {
        let now_ms = tick.visible_ms();
        let seen = self.entry(at).and_then(|e| match &e.body {
            Body::Custom(custom) => custom.as_ref().as_ref().filter(|c| c.visible(now_ms).is_some()).cloned(),
            Body::Register(_) | Body::Tree(_) => None,
        });
        let state = Payload::Value(f(seen.as_ref().and_then(|c| c.visible(now_ms)))?);
        Ok(self.event(at, Scope::Path(Path::Custom), tick, |entry, hlc, dot| {
            let next = match seen {
                Some(mut custom) => {
                    custom.merged.insert(dot.replica, dot.seq);
                    custom.deadline = custom.deadline.max(deadline);
                    custom.state = state;
                    custom
                }
                None => {
                    sometimes!(CustomBegunAgain, if matches!(&entry.body, Body::Custom(custom) if custom.is_some()));
                    Custom::new(Stamp { hlc, replica: dot.replica }, dot, state, deadline)
                }
            };
            entry.body = Body::Custom(Box::new(Some(next)));
        }))
    }

    /// Deletes a custom entry by beginning a generation that is a tombstone.
    pub fn delete_custom(&mut self, at: &KeyRef<'_>, tick: &Tick<'_>) -> Written {
        self.event(at, Scope::Path(Path::Custom), tick, |entry, hlc, dot| {
            let stamp = Stamp { hlc, replica: dot.replica };
            let grave = Custom::new(stamp, dot, Payload::Tombstone, crate::crdt::NEVER);
            entry.body = Body::Custom(Box::new(Some(grave)));
        })
    }
}
