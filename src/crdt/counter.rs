//! The counter: increments, decrements, and a reset that erases exactly what it observed.
//!
//! Per origin a contribution of cumulative totals and, once reset, *floors*; the value is what lies
//! above the floors. A reset raises every floor to the total it saw, so a concurrent increment
//! survives alone. `birth` numbers an origin's lives: an origin whose contribution was collected starts
//! again above its own old maximum instead of losing to it.
//!
//! # Invariants
//! * A contribution joins by `(birth, maximum of each field)`; only its origin raises `p` and `n`, so
//!   the totals that resets saw are a chain.
//! * A contribution names the events it is made of: the origin's latest, the reset's, the touch's.
//! * An expired contribution is invisible; its origin starts a new life instead of adding to it.

use std::collections::BTreeMap;

use crdts::{CmRDT, CvRDT, ResetRemove, VClock};

use super::context::{Ctx, Dot};
use crate::id::ReplicaId;
use crate::probe::{planted, sometimes};

/// What one origin added to a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contribution {
    /// Number of the event that began this life.
    pub birth: u64,
    /// Number of the origin's latest event on this counter.
    pub seq: u64,
    /// Sum of increments in this life.
    pub p: u64,
    /// Sum of decrements in this life.
    pub n: u64,
    /// What was erased of both.
    pub reset: Option<Reset>,
    /// Absolute Unix milliseconds at which it stops counting.
    pub deadline: u64,
    /// The event that moved the deadline; none if it is as it was at birth.
    pub touch: Option<Dot>,
}

/// The latest reset of a contribution, in the order of what each saw.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reset {
    /// The part of `p` that was reset.
    pub p: u64,
    /// The part of `n` that was reset.
    pub n: u64,
    /// The event.
    pub by: Dot,
}

impl Contribution {
    /// Begins a life with event `seq`.
    #[must_use]
    pub fn born(seq: u64, deadline: u64) -> Self {
        Self { birth: seq, seq, p: 0, n: 0, reset: None, deadline, touch: None }
    }

    /// Adds `by` as event `seq` of the origin. Totals stop at `u64::MAX`.
    pub fn add(&mut self, seq: u64, by: i64) {
        self.seq = seq;
        let side = if by < 0 { &mut self.n } else { &mut self.p };
        *side = side.saturating_add(by.unsigned_abs());
    }

    /// Erases what is counted so far, by the event `by`.
    pub fn reset(&mut self, by: Dot) {
        if self.is_live() {
            self.reset = Some(Reset { p: self.p, n: self.n, by });
        }
    }

    /// Moves the deadline to the later of the two, by the event `by`.
    pub fn extend(&mut self, deadline: u64, by: Dot) {
        if deadline > self.deadline {
            (self.deadline, self.touch) = (deadline, Some(by));
        }
    }

    fn floors(&self) -> (u64, u64) {
        self.reset.map_or((0, 0), |reset| (reset.p, reset.n))
    }

    /// Tells whether anything is left to count, expired or not.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let (p, n) = self.floors();
        self.p > p || self.n > n
    }

    /// Returns what it adds to the value at `now_ms`.
    #[must_use]
    pub fn visible(&self, now_ms: u64) -> i128 {
        if now_ms >= self.deadline {
            return 0;
        }
        let (p, n) = self.floors();
        i128::from(self.p.saturating_sub(p)) - i128::from(self.n.saturating_sub(n))
    }

    /// Tells whether `ctx` has every event this is made of; `origin` is whose it is.
    #[must_use]
    pub fn within(&self, origin: ReplicaId, ctx: &Ctx) -> bool {
        let later = self.touch.into_iter().chain(self.reset.map(|reset| reset.by));
        ctx.has(Dot { replica: origin, seq: self.seq }) && later.into_iter().all(|dot| ctx.has(dot))
    }

    /// Joins another state of the same origin in; returns whether anything changed.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = *self;
        sometimes!(OlderLifeMet, if other.birth < self.birth);
        sometimes!(NewerLifeMet, if other.birth > self.birth);
        if other.birth > self.birth && !planted!(BirthIgnored) {
            *self = *other;
        } else if other.birth == self.birth || planted!(BirthIgnored) {
            self.seq = self.seq.max(other.seq);
            self.p = self.p.max(other.p);
            self.n = self.n.max(other.n);
            self.reset = self.reset.max(other.reset);
            (self.deadline, self.touch) = (self.deadline, self.touch).max((other.deadline, other.touch));
        }
        *self != before
    }
}

/// A counter: the contributions of every origin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counter(pub BTreeMap<ReplicaId, Contribution>);

impl Counter {
    /// Adds `by` as event `seq` of `origin`; a dead or expired contribution begins a new life.
    pub fn add(&mut self, origin: ReplicaId, seq: u64, by: i64, deadline: u64, now_ms: u64) {
        let slot = self.0.entry(origin).or_insert_with(|| Contribution::born(seq, deadline));
        if now_ms >= slot.deadline {
            sometimes!(CounterBegunAgain);
            *slot = Contribution::born(seq, deadline);
        }
        slot.add(seq, by);
    }

    /// Erases every increment and decrement observed here, by the event `by`.
    pub fn reset(&mut self, by: Dot) {
        self.0.values_mut().for_each(|c| c.reset(by));
    }

    /// Moves every deadline to the later of the two, by the event `by`.
    pub fn extend(&mut self, deadline: u64, by: Dot) {
        self.0.values_mut().for_each(|c| c.extend(deadline, by));
    }

    /// Returns the value at `now_ms`, held to the range of `i64`.
    #[must_use]
    pub fn value(&self, now_ms: u64) -> i64 {
        let sum: i128 = self.0.values().map(|c| c.visible(now_ms)).sum();
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    /// Tells whether any contribution is left to count, expired or not.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.0.values().any(Contribution::is_live)
    }

    /// Joins another state of the same counter in; returns whether anything changed.
    pub fn join<'a>(&mut self, other: impl IntoIterator<Item = (&'a ReplicaId, &'a Contribution)>) -> bool {
        let mut changed = false;
        for (origin, theirs) in other {
            match self.0.get_mut(origin) {
                Some(mine) => changed |= mine.join(theirs),
                None => {
                    self.0.insert(*origin, *theirs);
                    changed = true;
                }
            }
        }
        changed
    }
}

impl CvRDT for Counter {
    type Validation = std::convert::Infallible;

    fn validate_merge(&self, _other: &Self) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.join(&other.0);
    }
}

/// The operation is the origin's whole contribution, so lost and repeated operations do no harm.
impl CmRDT for Counter {
    type Op = (ReplicaId, Contribution);
    type Validation = std::convert::Infallible;

    fn validate_op(&self, _op: &Self::Op) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn apply(&mut self, (origin, contribution): Self::Op) {
        self.join([(&origin, &contribution)]);
    }
}

/// Erases the contributions whose latest event the clock covers.
impl ResetRemove<ReplicaId> for Counter {
    fn reset_remove(&mut self, clock: &VClock<ReplicaId>) {
        self.0.retain(|origin, c| c.seq > clock.get(origin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::NEVER;

    const A: ReplicaId = ReplicaId(1);
    const B: ReplicaId = ReplicaId(2);

    #[test]
    fn a_reset_erases_exactly_what_it_observed() {
        let mut here = Counter::default();
        here.add(A, 1, 5, NEVER, 0);
        let mut there = here.clone();
        there.add(B, 1, 7, NEVER, 0);
        here.reset(Dot { replica: A, seq: 2 });
        here.join(&there.0);
        assert_eq!(here.value(0), 7);
    }

    #[test]
    fn a_collected_origin_starts_above_its_old_maximum() {
        let mut old = Counter::default();
        old.add(A, 1, 100, NEVER, 0);
        let mut fresh = Counter::default();
        fresh.add(A, 9, 1, NEVER, 0);
        fresh.join(&old.0);
        assert_eq!(fresh.value(0), 1);
    }

    #[test]
    fn an_expired_contribution_begins_a_new_life() {
        let mut c = Counter::default();
        c.add(A, 1, 3, 100, 50);
        assert_eq!((c.value(99), c.value(100)), (3, 0));
        c.add(A, 2, 4, 300, 150);
        assert_eq!(c.value(150), 4);
    }

    #[test]
    fn a_counter_stops_at_the_ends_of_its_range() {
        for (by, end) in [(i64::MAX, i64::MAX), (i64::MIN, i64::MIN)] {
            let mut c = Counter::default();
            (1..=3).for_each(|seq| c.add(A, seq, by, NEVER, 0));
            c.add(B, 1, by, NEVER, 0);
            assert_eq!(c.value(0), end);
            c.reset(Dot { replica: A, seq: 4 });
            assert_eq!((c.value(0), c.is_live()), (0, false), "totals that stopped are erased all the same");
        }
    }

    #[test]
    fn a_contribution_is_within_a_context_that_has_all_it_is_made_of() {
        let mut made = Contribution::born(1, 10);
        made.add(3, -5);
        made.reset(Dot { replica: B, seq: 7 });
        made.extend(20, Dot { replica: B, seq: 9 });
        let needed = [(A, 3), (B, 7), (B, 9)].map(|(replica, seq)| Dot { replica, seq });
        let with = |dots: &[Dot]| {
            let mut ctx = Ctx::default();
            dots.iter().for_each(|dot| ctx.add(*dot));
            ctx
        };
        assert!(made.within(A, &with(&needed)));
        for lacking in 0..3 {
            let mut dots = needed.to_vec();
            dots.remove(lacking);
            assert!(!made.within(A, &with(&dots)), "{:?}", needed[lacking]);
        }
    }

    #[test]
    fn an_event_that_changes_nothing_is_no_part_of_a_contribution() {
        let (first, second) = (Dot { replica: B, seq: 1 }, Dot { replica: B, seq: 2 });
        let mut c = Contribution::born(1, 10);
        c.reset(first);
        c.extend(10, first);
        assert_eq!(c, Contribution::born(1, 10), "nothing was counted, and it lived as long before");
        c.add(2, -4);
        assert_eq!((c.is_live(), c.visible(9), c.visible(10)), (true, -4, 0));
        c.reset(first);
        c.reset(second);
        assert_eq!((c.reset.map(|reset| reset.by), c.is_live()), (Some(first), false));
        c.extend(30, first);
        c.extend(20, second);
        assert_eq!((c.deadline, c.touch), (30, Some(first)));
    }

    #[test]
    fn a_join_says_whether_it_changed_anything() {
        let (mut here, mut there) = (Counter::default(), Counter::default());
        there.add(A, 1, 5, NEVER, 0);
        assert!(here.join(&there.0) && !here.join(&there.0));
        there.add(A, 2, -3, NEVER, 0);
        assert!(here.join(&there.0) && !here.join(&there.0));
        there.reset(Dot { replica: B, seq: 1 });
        assert!(here.join(&there.0) && !here.join(&there.0));
        assert_eq!(here, there);
        let mut told = Counter::default();
        there.0.iter().for_each(|(origin, contribution)| told.apply((*origin, *contribution)));
        assert_eq!(told, there, "an operation is the origin's whole contribution");
    }
}
