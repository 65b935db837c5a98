//! What is sent: fragments of everything a peer lacks, captured with the context under one lock.
//!
//! Push, relay and catch-up are the same function with another idea of what is lacking.
//!
//! # Invariants
//! * R-COVER: a fragment covers all unstable dots of its scope, also those the peer has. With a register's stub go the
//!   epochs that may have made it.
//! * A key touched many times is captured once, in its present state.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Body;
use super::fragment::{Batch, Fragment, Full};
use super::partition::{KeyRef, Partition};
use crate::crdt::{Ctx, Dot, Path, Scope};
use crate::id::ReplicaId;
use crate::probe::{planted, sometimes};

/// A captured batch and how far it got.
#[derive(Debug)]
pub struct Captured {
    /// The batch; it may be empty.
    pub batch: Batch,
    /// Number of the last event looked at, for [`Partition::capture_own`].
    pub upto: u64,
    /// The budget ended before the lacking dots did.
    pub more: bool,
}

/// How much one capture may take.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Fragments.
    pub fragments: usize,
    /// Bytes, as [`Fragment::weight`] estimates them; at least one fragment is always taken.
    pub bytes: usize,
}

impl Partition {
    /// Captures my events after number `after`.
    #[must_use]
    pub fn capture_own(&self, after: u64, budget: Budget) -> Captured {
        let captured = self.capture(self.log.from(self.me, after + 1), after, budget);
        covering(captured, |dot| dot.replica == self.me && dot.seq > after)
    }

    /// Captures the events a peer lacks, by what is known of its context.
    #[must_use]
    pub fn capture_lacking(&self, known: &Ctx, budget: Budget) -> Captured {
        let lacking = self.log.origins().flat_map(|origin| self.lacking_of(origin, known));
        covering(self.capture(lacking, 0, budget), |dot| !known.has(dot))
    }

    /// Captures the events of one origin that a peer lacks.
    #[must_use]
    pub fn capture_lacking_of(&self, origin: ReplicaId, known: &Ctx, budget: Budget) -> Captured {
        self.capture(self.lacking_of(origin, known), 0, budget)
    }

    fn lacking_of<'a>(&'a self, origin: ReplicaId, known: &'a Ctx) -> impl Iterator<Item = (Dot, u32)> + 'a {
        let from = known.of(origin).map_or(0, crate::crdt::Seen::base).saturating_add(1);
        self.log.from(origin, from).filter(move |(dot, _)| !known.has(*dot))
    }

    fn capture(&self, dots: impl Iterator<Item = (Dot, u32)>, after: u64, budget: Budget) -> Captured {
        let (mut wanted, mut upto, mut more) = (Wanted::default(), after, false);
        for (dot, slot) in dots {
            let Some(scope) = self.slot(slot).and_then(|s| s.entry.fragment_scope(dot)) else { continue };
            if !wanted.take(self, slot, scope, budget) {
                more = true;
                break;
            }
            upto = dot.seq;
        }
        wanted.add_epochs(self);
        let fragments = wanted.fragments(self);
        Captured { batch: Batch { partition: self.id, ctx: self.ctx.clone(), fragments }, upto, more }
    }

    /// Captures a register for somebody who does not keep everything, whether it has seen its events or not; `None` when
    /// there is nothing of it.
    #[must_use]
    pub fn capture_key(&self, at: &KeyRef<'_>) -> Option<Batch> {
        let mut wanted = Wanted::default();
        wanted.add(self.find(at)?);
        wanted.add_epochs(self);
        Some(Batch { partition: self.id, ctx: self.ctx.clone(), fragments: wanted.fragments(self) })
    }

    /// Captures a register for somebody who reads it at a level and has seen what is `known`, with every invalidation of its
    /// keyspace that may be beyond that: where there is nothing of the register, one of them may be why.
    #[must_use]
    pub fn capture_answer(&self, at: &KeyRef<'_>, known: &Ctx) -> Batch {
        let mut wanted = Wanted::default();
        self.find(at).into_iter().chain(self.epochs_lacked(at.space.id(), known)).for_each(|slot| wanted.add(slot));
        Batch { partition: self.id, ctx: self.ctx.clone(), fragments: wanted.fragments(self) }
    }

    /// Captures that there is nothing of a keyspace that was never heard of.
    #[must_use]
    pub fn capture_nothing(&self) -> Batch {
        Batch { partition: self.id, ctx: self.ctx.clone(), fragments: Vec::new() }
    }

    /// Captures everything, for a joiner or a peer behind a dropped log.
    #[must_use]
    pub fn capture_full(&self) -> Full {
        self.capture_entries(false)
    }

    /// Captures everything that a peer may lack that has seen all of `known`. Of an entry whose events are all stable here it
    /// has seen every one, if it has what is stable here: that is left out, unless nothing is known to be stable because a floor
    /// was inherited.
    #[must_use]
    pub fn capture_full_for(&self, known: &Ctx) -> Full {
        let knows_its_own = !self.floor_inherited || planted!(InheritedTakenForSettled);
        self.capture_entries(knows_its_own && known.includes(&self.frontier))
    }

    fn capture_entries(&self, is_rest: bool) -> Full {
        let slots = (0..).zip(&self.slots).filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
        let fragments: Vec<Fragment> = slots
            .filter(|(_, s)| !is_rest || !s.entry.is_settled())
            .flat_map(|(at, _): (u32, _)| self.full_fragments(at))
            .collect();
        sometimes!(SettledLeftOut, if is_rest && fragments.len() < self.len());
        let batch = Batch { partition: self.id, ctx: self.ctx.clone(), fragments };
        let (frontier, floor) = (self.frontier.clone(), self.floor.clone());
        Full { batch, frontier, floor, forgotten: self.forgotten, is_rest, is_part: false }
    }

    /// An evicted map answers for the paths it knows and admits the hole.
    fn full_fragments(&self, slot: u32) -> Vec<Fragment> {
        let Some(s) = self.slot(slot) else { return Vec::new() };
        let restrict = |scope| s.entry.restrict(s.keyspace, &s.key, &scope);
        let whole = restrict(Scope::Key);
        let Body::Tree(tree) = &s.entry.body else { return vec![whole] };
        let known = tree.known_paths().into_iter().flatten();
        let mut all: Vec<Fragment> = known.map(|path| restrict(Scope::Path(path.clone()))).collect();
        let hole = whole.branch.hole;
        sometimes!(HoleAdmitted, if hole);
        all.push(if hole { Fragment { branch: tree.admission(), ..whole } } else { whole });
        all
    }
}

/// Returns what was captured as it is. The mistake is to leave out what it was not captured for.
fn covering(mut captured: Captured, asked: impl Fn(Dot) -> bool) -> Captured {
    if planted!(CoversOnlyAsked) {
        captured.batch.fragments.iter_mut().for_each(|f| f.covers.retain(|(dot, _)| asked(*dot)));
    }
    captured
}

/// The (slot, scope) pairs a capture will restrict to; a whole key swallows its parts.
#[derive(Debug, Default)]
struct Wanted {
    scopes: BTreeMap<u32, BTreeSet<Scope>>,
    fragments: usize,
    bytes: usize,
}

impl Wanted {
    /// Adds a pair; returns false when it is new and the budget has no room for it.
    fn take(&mut self, partition: &Partition, slot: u32, scope: Scope, budget: Budget) -> bool {
        let known = self.scopes.get(&slot).is_some_and(|set| set.contains(&Scope::Key) || set.contains(&scope));
        if known {
            sometimes!(CapturedOnce);
            return true;
        }
        if self.fragments > 0 && (self.fragments >= budget.fragments || self.bytes >= budget.bytes) {
            return false;
        }
        self.fragments += 1;
        self.bytes += partition.slot(slot).map_or(0, |s| match &scope {
            Scope::Path(Path::Register | Path::Custom) | Scope::Key => s.entry.bytes() + s.key.len(),
            Scope::Path(Path::Ttl | Path::Field(_) | Path::Member(..) | Path::Counter(_)) => {
                s.entry.restrict(s.keyspace, &s.key, &scope).weight()
            }
        });
        self.scopes.entry(slot).or_default().insert(scope);
        true
    }

    /// Adds a register, whatever the budget says.
    fn add(&mut self, slot: u32) {
        self.scopes.entry(slot).or_default().insert(Scope::Path(Path::Register));
    }

    /// Adds the epochs behind the stubs among the slots, whatever the budget says.
    fn add_epochs(&mut self, partition: &Partition) {
        let behind: Vec<u32> = self.scopes.keys().flat_map(|slot| partition.epochs_behind(*slot)).collect();
        behind.into_iter().for_each(|slot| self.add(slot));
    }

    fn fragments(self, partition: &Partition) -> Vec<Fragment> {
        let mut all = Vec::with_capacity(self.fragments);
        for (slot, scopes) in self.scopes {
            let Some(s) = partition.slot(slot) else { continue };
            if scopes.contains(&Scope::Key) {
                all.push(s.entry.restrict(s.keyspace, &s.key, &Scope::Key));
            } else {
                all.extend(scopes.iter().map(|scope| s.entry.restrict(s.keyspace, &s.key, scope)));
            }
        }
        all
    }
}
