//! Which graves comparisons have shown to be graves everywhere (R-AGE).
//!
//! A grave proves that something was deleted or is over. It may go once every member has its event, it is old, and a
//! comparison with each other member has found both copies to hold the same in its leaf, at a context that has the event:
//! what a copy lost silently is found while it can still be told from what was never deleted.
//!
//! # Invariants
//! * Only comparisons whose context has the grave's event count.
//! * A leaf that says nothing [`TRIES`] times in a row (something in it was evicted, or is written to without pause) holds
//!   nothing up, nor does anything for longer than [`WAITS_MS`].
//! * Nothing waits for the copy of an edge.
//! * An invalidation waits until all leaves were found equal: what it cleared may be in any.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::entry::{Body, Entry};
use super::fingerprint::leaf_of;
use super::keyspace::{Family, Keyspace, Keyspaces};
use super::partition::Partition;
use crate::crdt::{Ctx, Dot};
use crate::id::ReplicaId;
use crate::probe::sometimes;

/// Comparisons with one member that are remembered; so many that said nothing of a leaf are enough.
const TRIES: usize = 3;
/// How long a grave that is old enough waits at most, in milliseconds: long enough for anything that goes wrong once.
const WAITS_MS: u64 = 600_000;

/// What a comparison that came to its end has found equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// The events both copies have seen: what was compared.
    pub ctx: Ctx,
    /// Of how many leaves; of none if nothing could be said.
    pub leaves: usize,
    /// Those of which nothing could be said.
    pub without: BTreeSet<u32>,
}

impl Compared {
    /// A comparison that came to nothing.
    #[must_use]
    pub fn nothing(ctx: Ctx) -> Self {
        Self { ctx, leaves: 0, without: BTreeSet::new() }
    }

    /// A comparison that found everything equal.
    #[must_use]
    pub fn everything(ctx: Ctx) -> Self {
        Self { ctx, leaves: 1, without: BTreeSet::new() }
    }

    /// Tells whether it found equal what a grave depends on: its leaf, or everything.
    fn speaks_for(&self, hash: u64, all: bool) -> bool {
        let leaf = |leaves| u32::try_from(leaf_of(hash, leaves)).unwrap_or(u32::MAX);
        self.leaves > 0 && if all { self.without.is_empty() } else { !self.without.contains(&leaf(self.leaves)) }
    }
}

/// What is known of a partition's copies, and what waits for more.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// Graves wait for comparisons.
    waits: bool,
    /// Members whose copies prove nothing, because they do not hold everything.
    excused: Vec<ReplicaId>,
    /// The latest comparisons with each member.
    latest: BTreeMap<ReplicaId, VecDeque<Compared>>,
    /// `(millisecond of the stamp, slot)` of graves that are old enough.
    waiting: BTreeSet<(u64, u32)>,
    /// Something was compared since those were last looked at.
    is_news: bool,
}

impl Verified {
    /// As at the start, with graves waiting or not as here.
    pub(super) fn anew(&self) -> Self {
        Self { waits: self.waits, ..Self::default() }
    }

    pub(super) fn is_waiting_for_comparisons(&self) -> bool {
        self.waits
    }

    fn covers(&self, others: &[ReplicaId], grave: &Entry, (hash, all): (u64, bool)) -> bool {
        let counts = |other: &&ReplicaId| !self.excused.contains(other);
        others.iter().filter(counts).all(|other| {
            let of = self.latest.get(other).into_iter().flatten().filter(|compared| grave.is_known_in(&compared.ctx));
            let (mut tries, mut found) = (0, false);
            of.for_each(|compared| {
                tries += 1;
                found |= compared.speaks_for(hash, all);
            });
            sometimes!(GraveNeverCompared, if !found && tries >= TRIES);
            found || tries >= TRIES
        })
    }
}

impl Entry {
    /// Tells whether a context has what a grave is of.
    fn is_known_in(&self, ctx: &Ctx) -> bool {
        match &self.body {
            Body::Register(cell) => cell.as_ref().is_none_or(|cell| ctx.has(cell.dot())),
            Body::Custom(custom) => custom
                .as_ref()
                .as_ref()
                .is_none_or(|custom| custom.merged.iter().all(|(&replica, &seq)| ctx.has(Dot { replica, seq }))),
            Body::Tree(_) => true,
        }
    }
}

impl Partition {
    /// From now on a grave goes only when comparisons with all other members have found its leaf equal.
    pub fn wait_for_comparisons(&mut self) {
        self.verified.waits = true;
    }

    /// From now on no grave waits for comparisons with these members: an edge may have given back what is missing there.
    pub fn excuse(&mut self, edges: &[ReplicaId]) {
        if self.verified.excused != edges {
            self.verified.excused = edges.to_vec();
            self.verified.is_news = true;
        }
    }

    /// Notes what a comparison with a member came to.
    pub fn note_compared(&mut self, with: ReplicaId, compared: Compared) {
        let latest = self.verified.latest.entry(with).or_default();
        latest.push_back(compared);
        if latest.len() > TRIES {
            latest.pop_front();
        }
        self.verified.is_news = true;
    }

    /// Returns how many graves are old enough and wait for a comparison.
    #[must_use]
    pub fn graves_waiting(&self) -> usize {
        self.verified.waiting.len()
    }

    /// Lets go of the graves that are old enough and that every other member's copy was compared with.
    pub(super) fn collect_graves(&mut self, others: &[ReplicaId], spaces: &Keyspaces, collect_before_ms: u64) {
        while let Some(Reverse((ms, slot))) = self.graves.peek().copied() {
            if ms > collect_before_ms {
                break;
            }
            self.graves.pop();
            self.collect_grave(others, spaces, (ms, slot), collect_before_ms);
        }
        let all = std::mem::take(&mut self.verified.is_news) || others.is_empty();
        if all {
            self.verified.latest.retain(|member, _| others.contains(member));
        }
        let late = collect_before_ms.saturating_sub(WAITS_MS);
        let due: Vec<(u64, u32)> =
            self.verified.waiting.iter().take_while(|(ms, _)| all || *ms <= late).copied().collect();
        for (ms, slot) in due {
            self.verified.waiting.remove(&(ms, slot));
            self.collect_grave(others, spaces, (ms, slot), collect_before_ms);
        }
    }

    fn collect_grave(&mut self, others: &[ReplicaId], spaces: &Keyspaces, at: (u64, u32), collect_before_ms: u64) {
        let (ms, slot) = at;
        let still = self.slot(slot).filter(|s| s.entry.grave_ms() == Some(ms));
        sometimes!(GraveOverwritten, if still.is_none());
        let Some(s) = still else { return };
        let Some(space) = spaces.get(s.keyspace) else { return };
        if !self.verified.waits {
            return self.settle(slot, &space, collect_before_ms);
        }
        let late = ms.saturating_add(WAITS_MS) <= collect_before_ms;
        let covered = late || self.verified.covers(others, &s.entry, (s.hash, space.family() == Family::Epoch));
        if covered {
            self.bury(slot, &space);
        } else {
            sometimes!(GraveAwaitedComparison);
            self.verified.waiting.insert(at);
        }
    }

    /// Drops a grave, if everybody has all there is of it.
    pub(super) fn bury(&mut self, slot: u32, space: &Keyspace) {
        if self.floor_inherited {
            return;
        }
        let gone = self.change(slot, space, None, |entry| entry.settle(u64::MAX)).flatten();
        self.forgotten = self.forgotten.max(gone.unwrap_or_default());
        self.drop_if_empty(slot, space);
    }
}
