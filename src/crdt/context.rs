//! The causal context: exactly which events a partition has seen.
//!
//! A version vector with exceptions *above* the base (Malkhi and Terry, *Concise Version Vectors
//! in `WinFS`*, DISC 2005): per replica a contiguous base and ranges beyond the first gap.
//!
//! Of what a node was before, one *mark* may stand for everything: every event of every replica of its tag up to the one the
//! mark is at, whatever they were. Who made it knew what they were, and so does whoever holds it: a mark carries their sum.
//!
//! # Invariants
//! * Below a mark no replica of its tag is named.
//! * Replicas are sorted and none has an empty entry, so equal sets of dots are equal values.

use std::collections::BTreeMap;

use crdts::{CmRDT, CvRDT, ResetRemove, VClock};
use serde::{Deserialize, Serialize};

use crate::crdt::seen::Seen;
use crate::id::{ReplicaId, Tag};
use crate::probe::planted;

/// Most bytes of a context that is kept of what somebody else says it has seen: more than a message within the limits
/// of the wire can say at once. What grows beyond it, message by message, is forgotten, which is always safe: less is
/// stable, and more is sent again.
pub const CLAIM_BYTES_MAX: usize = 1 << 20;

/// The identity of one event in one partition. Sequence numbers start at 1 and are contiguous per
/// replica and partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Dot {
    /// Where the event happened.
    pub replica: ReplicaId,
    /// Its number there.
    pub seq: u64,
}

impl From<Dot> for crdts::Dot<ReplicaId> {
    fn from(dot: Dot) -> Self {
        Self::new(dot.replica, dot.seq)
    }
}

/// The set of dots a partition has seen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ctx {
    seen: Vec<(ReplicaId, Seen)>,
}

impl Ctx {
    /// Returns what is seen of `replica`, if anything: a mark, if it is below one.
    #[must_use]
    pub fn of(&self, replica: ReplicaId) -> Option<&Seen> {
        match self.position(replica) {
            Ok(at) => self.seen.get(at).map(|(_, seen)| seen),
            Err(at) => self.mark_at(at, replica),
        }
    }

    /// Returns the mark that stands at a position, if `replica`, whose place that would be, is below it.
    fn mark_at(&self, at: usize, replica: ReplicaId) -> Option<&Seen> {
        let (next, seen) = self.seen.get(at)?;
        (seen.is_mark() && next.tag() == replica.tag()).then_some(seen)
    }

    /// Returns what is seen of the replicas of a tag up to one of them.
    fn upto(&self, last: ReplicaId) -> &[(ReplicaId, Seen)] {
        let from = self.seen.partition_point(|(replica, _)| replica < last.tag().ids().start());
        let to = self.seen.partition_point(|(replica, _)| *replica <= last);
        self.seen.get(from..to).unwrap_or_default()
    }

    /// Returns what is named of the replicas of a tag up to one of them.
    #[must_use]
    pub fn named_upto(&self, last: ReplicaId) -> Self {
        Self { seen: self.upto(last).iter().filter(|(_, seen)| !seen.is_mark()).cloned().collect() }
    }

    /// Returns a number for everything seen of the replicas of a tag up to one of them, the same whether any of it is folded
    /// or not; `None` if a mark stands for more than that.
    #[must_use]
    pub fn sum_upto(&self, last: ReplicaId) -> Option<u64> {
        let beyond = self.position(last).err().and_then(|at| self.mark_at(at, last));
        let sums = self.upto(last).iter().map(|(replica, seen)| seen.sum(*replica));
        beyond.is_none().then(|| sums.fold(0, u64::wrapping_add))
    }

    /// Returns those of `floors` below or at which anything but the mark at the floor itself is named.
    #[must_use]
    pub fn foldable(&self, floors: &BTreeMap<Tag, ReplicaId>) -> Vec<ReplicaId> {
        let folded = |floor: &ReplicaId| match self.upto(*floor) {
            [] => true,
            [(at, seen)] => seen.is_mark() && at == floor,
            _ => false,
        };
        floors.values().copied().filter(|floor| !folded(floor)).collect()
    }

    /// Tells whether everything `theirs` has of the replicas of a tag up to `last` is known to be in here.
    #[must_use]
    pub fn has_all_of(&self, theirs: &Self, last: ReplicaId) -> bool {
        let (mine, theirs) = (self.upto(last), theirs.upto(last));
        let is_plain = |seen: &[(ReplicaId, Seen)]| !seen.iter().any(|(_, seen)| seen.is_mark());
        let sum = |seen: &[(ReplicaId, Seen)]| seen.iter().map(|(r, seen)| seen.sum(*r)).fold(0, u64::wrapping_add);
        let plainly = is_plain(mine) && is_plain(theirs);
        theirs.is_empty()
            || sum(mine) == sum(theirs)
            || (plainly && theirs.iter().all(|(r, theirs)| self.of(*r).is_some_and(|seen| seen.includes(theirs))))
    }

    /// Returns this without those of its marks that stand for something else than what `mine` has there: of that nobody can
    /// tell what is in them.
    #[must_use]
    pub fn fitting(&self, mine: &Self) -> Self {
        let fits = |at: ReplicaId, seen: &Seen| mine.sum_upto(at).is_none_or(|sum| sum == seen.sum(at));
        let seen = self.seen.iter().filter(|(at, seen)| !seen.is_mark() || fits(*at, seen));
        Self { seen: seen.cloned().collect() }
    }

    /// Tells whether nothing in here is other than what a mark of `mine` stands for.
    #[must_use]
    pub fn fits_marks_of(&self, mine: &Self) -> bool {
        let marks = mine.iter().filter(|(_, seen)| seen.is_mark());
        marks.into_iter().all(|(at, seen)| self.sum_upto(at).is_none_or(|sum| sum == seen.sum(at)))
    }

    /// Lets one mark stand for everything seen of the replicas of a tag up to `floor`.
    pub fn fold(&mut self, floor: ReplicaId) {
        if let Some(sum) = self.sum_upto(floor) {
            self.add_seen(floor, &Seen::mark(sum));
        }
    }

    /// Returns the same without its marks: what they stand for every member had seen when they were made.
    #[must_use]
    pub fn without_marks(&self) -> Self {
        Self { seen: self.seen.iter().filter(|(_, seen)| !seen.is_mark()).cloned().collect() }
    }

    /// Iterates in order of replica id.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Seen)> {
        self.seen.iter().map(|(replica, seen)| (*replica, seen))
    }

    /// Tells whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Returns how many replicas have something seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns how many dots this is.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.seen.iter().fold(0, |sum, (_, seen)| sum.saturating_add(seen.count()))
    }

    /// Returns how many bytes of memory this takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let ranges: usize = self.seen.iter().map(|(_, seen)| seen.gaps()).sum();
        size_of_val(self.seen.as_slice()) + ranges * size_of::<(u64, u64)>()
    }

    /// Returns how many separate ranges this takes to write down: of all replicas, and of the one with the most.
    #[must_use]
    pub fn gaps(&self) -> (usize, usize) {
        self.seen.iter().map(|(_, seen)| seen.gaps()).fold((0, 0), |(all, most), gaps| (all + gaps, most.max(gaps)))
    }

    /// Tells whether `dot` was seen.
    #[must_use]
    pub fn has(&self, dot: Dot) -> bool {
        self.of(dot.replica).is_some_and(|seen| seen.has(dot.seq))
    }

    /// Tells whether `dot` was seen and is named: of what a mark stands for nobody knows whether it is in it.
    #[must_use]
    pub fn names(&self, dot: Dot) -> bool {
        self.of(dot.replica).is_some_and(|seen| !seen.is_mark() && seen.has(dot.seq))
    }

    /// Adds one dot.
    pub fn add(&mut self, dot: Dot) {
        self.add_range(dot.replica, dot.seq, dot.seq);
    }

    /// Adds the inclusive range `from..=to` of one replica.
    pub fn add_range(&mut self, replica: ReplicaId, from: u64, to: u64) {
        if from.max(1) > to {
            return;
        }
        match self.position(replica) {
            Ok(at) => {
                if let Some((_, seen)) = self.seen.get_mut(at) {
                    seen.add_range(from, to);
                }
            }
            Err(at) if self.mark_at(at, replica).is_some() => {}
            Err(at) => {
                let mut seen = Seen::default();
                seen.add_range(from, to);
                self.seen.insert(at, (replica, seen));
            }
        }
    }

    /// Adds everything seen of one replica elsewhere.
    pub fn add_seen(&mut self, replica: ReplicaId, other: &Seen) {
        if other.is_mark() && !planted!(FoldNotJoined) {
            let below = |named: &ReplicaId| *named < replica && named.tag() == replica.tag();
            self.seen.retain(|(named, _)| !below(named));
        }
        match self.position(replica) {
            Ok(at) => {
                if let Some((_, seen)) = self.seen.get_mut(at) {
                    seen.join(other);
                }
            }
            Err(at) if self.mark_at(at, replica).is_some() => {}
            Err(at) if other.max() > 0 => self.seen.insert(at, (replica, other.clone())),
            Err(_) => {}
        }
    }

    /// Adds what somebody says it has seen, or forgets all of that when it is too much.
    pub fn join_claim(&mut self, claim: &Self) {
        self.join(claim);
        if self.weight() > CLAIM_BYTES_MAX {
            *self = Self::default();
        }
    }

    /// Adds everything `other` has.
    pub fn join(&mut self, other: &Self) {
        for (replica, seen) in other.iter() {
            self.add_seen(replica, seen);
        }
    }

    /// Tells whether every dot of `other` is in here.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.iter().all(|(replica, theirs)| match self.of(replica) {
            Some(mine) => mine.includes(theirs),
            None => theirs.max() == 0,
        })
    }

    /// Returns the contiguous part, which is an ordinary version vector.
    #[must_use]
    pub fn to_vclock(&self) -> VClock<ReplicaId> {
        self.iter().map(|(replica, seen)| crdts::Dot::new(replica, seen.base())).collect()
    }

    fn position(&self, replica: ReplicaId) -> Result<usize, usize> {
        self.seen.binary_search_by_key(&replica, |(r, _)| *r)
    }
}

/// A context joins with any other; there is nothing to refuse.
impl CvRDT for Ctx {
    type Validation = std::convert::Infallible;

    fn validate_merge(&self, _other: &Self) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        self.join(&other);
    }
}

impl CmRDT for Ctx {
    type Op = Dot;
    type Validation = std::convert::Infallible;

    fn validate_op(&self, _op: &Self::Op) -> Result<(), Self::Validation> {
        Ok(())
    }

    fn apply(&mut self, op: Self::Op) {
        self.add(op);
    }
}

/// Forgets what the clock covers: a replica whose base it dominates disappears.
impl ResetRemove<ReplicaId> for Ctx {
    fn reset_remove(&mut self, clock: &VClock<ReplicaId>) {
        self.seen.retain(|(replica, seen)| seen.max() > clock.get(replica));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_plain_set_of_dots() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..if cfg!(miri) { 4 } else { 2_000 } {
            let (mut ctx, mut set) = (Ctx::default(), BTreeSet::new());
            for _ in 0..rng.usize(1..20) {
                let (replica, from) = (ReplicaId(rng.u64(1..3)), rng.u64(1..14));
                let to = from + rng.u64(0..3);
                ctx.add_range(replica, from, to);
                set.extend((from..=to).map(|seq| Dot { replica, seq }));
            }
            for replica in [ReplicaId(1), ReplicaId(2)] {
                for seq in 1..20 {
                    let dot = Dot { replica, seq };
                    assert_eq!(ctx.has(dot), set.contains(&dot));
                }
            }
            let rebuilt = set.iter().rev().fold(Ctx::default(), |mut c, d| {
                c.add(*d);
                c
            });
            assert_eq!(rebuilt, ctx, "equal sets are equal values");
        }
    }

    #[test]
    fn a_gap_is_never_jumped() {
        let mut ctx = Ctx::default();
        ctx.add(Dot { replica: ReplicaId(1), seq: 1 });
        ctx.add(Dot { replica: ReplicaId(1), seq: 3 });
        let seen = ctx.of(ReplicaId(1)).unwrap();
        assert_eq!((seen.base(), seen.above()), (1, &[(3, 3)][..]));
        ctx.add(Dot { replica: ReplicaId(1), seq: 2 });
        assert_eq!(ctx.of(ReplicaId(1)).unwrap().base(), 3);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
    fn claims_that_grow_message_by_message_are_forgotten_in_the_end() {
        let (mut kept, mut forgotten) = (Ctx::default(), 0);
        for message in 0..100 {
            let mut claim = Ctx::default();
            (0..1_000).for_each(|n| claim.add_range(ReplicaId(1 + message * 1_000 + n), 1, 9));
            kept.join_claim(&claim);
            forgotten += u32::from(kept.is_empty());
            assert!(kept.weight() <= CLAIM_BYTES_MAX);
        }
        assert_eq!(forgotten, 4);
    }

    #[test]
    fn includes_is_the_subset_relation() {
        let mut a = Ctx::default();
        a.add_range(ReplicaId(1), 1, 4);
        a.add_range(ReplicaId(1), 6, 9);
        let mut b = Ctx::default();
        b.add_range(ReplicaId(1), 7, 8);
        assert!(a.includes(&b) && !b.includes(&a));
        b.add_range(ReplicaId(1), 5, 5);
        assert!(!a.includes(&b));
    }

    #[test]
    fn a_context_takes_as_much_as_its_replicas_and_gaps_do() {
        let mut ctx = Ctx::default();
        assert_eq!((ctx.weight(), ctx.gaps(), ctx.len(), ctx.is_empty()), (0, (0, 0), 0, true));
        (1..=3).for_each(|replica| ctx.add_range(ReplicaId(replica), 1, 5));
        let replicas = 3 * size_of::<(ReplicaId, Seen)>();
        assert_eq!((ctx.weight(), ctx.gaps(), ctx.len(), ctx.is_empty()), (replicas, (0, 0), 3, false));
        [7, 9, 11].into_iter().for_each(|seq| ctx.add(Dot { replica: ReplicaId(1), seq }));
        [20, 30].into_iter().for_each(|seq| ctx.add(Dot { replica: ReplicaId(2), seq }));
        assert_eq!((ctx.weight(), ctx.gaps()), (replicas + 5 * size_of::<(u64, u64)>(), (5, 3)));
    }

    #[test]
    fn whoever_has_seen_nothing_of_a_replica_does_not_name_it() {
        let (mut ctx, replica) = (Ctx::default(), ReplicaId(1));
        ctx.add_seen(replica, &Seen::default());
        ctx.add_range(replica, 0, 0);
        ctx.add_range(replica, 5, 4);
        assert_eq!(ctx, Ctx::default());
        ctx.add_seen(replica, &Seen::new(0, &[(3, 4)]));
        assert_eq!(ctx.of(replica).map(|seen| (seen.base(), seen.max())), Some((0, 4)));
        assert!(ctx.to_vclock().is_empty(), "a version vector has only what is contiguous");
        ctx.add_range(replica, 1, 2);
        assert_eq!(ctx.to_vclock().get(&replica), 4);
    }

    #[test]
    fn an_operation_of_a_context_is_one_dot() {
        let (mut ctx, dot) = (Ctx::default(), Dot { replica: ReplicaId(1), seq: 1 });
        assert_eq!(ctx.validate_op(&dot), Ok(()));
        ctx.apply(dot);
        assert_eq!((ctx.has(dot), ctx.len()), (true, 1));
    }

    /// Replica `n` of a tag.
    fn of_tag(tag: u64, n: u64) -> ReplicaId {
        ReplicaId(tag << 43 | n)
    }

    fn ctx(seen: &[(u64, u64, u64)]) -> Ctx {
        let mut ctx = Ctx::default();
        seen.iter().for_each(|&(tag, n, upto)| ctx.add_range(of_tag(tag, n), 1, upto));
        ctx
    }

    #[test]
    fn a_mark_has_every_event_of_its_tag_up_to_where_it_is_and_names_no_other() {
        let mut folded = ctx(&[(1, 2, 5), (1, 4, 6), (1, 9, 3), (2, 3, 7)]);
        folded.fold(of_tag(1, 4));
        assert_eq!(
            folded.iter().map(|(replica, _)| replica).collect::<Vec<_>>(),
            [of_tag(1, 4), of_tag(1, 9), of_tag(2, 3)]
        );
        for n in 0..5 {
            assert!(folded.has(Dot { replica: of_tag(1, n), seq: 1 << 50 }), "{n}");
        }
        assert!(
            !folded.has(Dot { replica: of_tag(1, 5), seq: 1 }) && !folded.has(Dot { replica: of_tag(2, 2), seq: 1 })
        );
        let same = folded.clone();
        folded.add_range(of_tag(1, 3), 1, 9);
        folded.add_seen(of_tag(1, 4), &Seen::new(9, &[]));
        folded.join(&ctx(&[(1, 2, 9)]));
        assert_eq!(folded, same, "what is below a mark is no news");
        assert!(
            folded.includes(&ctx(&[(1, 1, 4), (1, 9, 3)]))
                && !ctx(&[(1, 2, 5), (1, 4, 6), (1, 9, 3), (2, 3, 7)]).includes(&folded)
        );
        assert_eq!((folded.count(), folded.without_marks()), (10, ctx(&[(1, 9, 3), (2, 3, 7)])));
    }

    #[test]
    fn what_was_folded_in_whichever_steps_sums_up_to_the_same() {
        let plain = ctx(&[(1, 2, 5), (1, 4, 6), (1, 6, 1), (1, 9, 3)]);
        let (mut once, mut twice) = (plain.clone(), plain.clone());
        once.fold(of_tag(1, 6));
        twice.fold(of_tag(1, 3));
        assert_eq!(twice.sum_upto(of_tag(1, 6)), plain.sum_upto(of_tag(1, 6)));
        twice.fold(of_tag(1, 6));
        assert_eq!(once, twice);
        assert_eq!((once.sum_upto(of_tag(1, 4)), once.sum_upto(of_tag(1, 9))), (None, plain.sum_upto(of_tag(1, 9))));
        assert_ne!(once.sum_upto(of_tag(1, 6)), ctx(&[(1, 2, 5), (1, 4, 5), (1, 6, 1)]).sum_upto(of_tag(1, 6)));
    }

    #[test]
    fn only_what_is_not_the_mark_itself_is_to_be_folded() {
        let floors: BTreeMap<Tag, ReplicaId> = [(of_tag(1, 0).tag(), of_tag(1, 4))].into();
        let foldable = |seen: &[(u64, u64, u64)]| ctx(seen).foldable(&floors);
        assert_eq!((foldable(&[(1, 5, 2), (2, 1, 1)]), foldable(&[(1, 4, 2)])), (vec![], vec![of_tag(1, 4)]));
        let mut older = ctx(&[(1, 2, 5), (1, 5, 2)]);
        older.fold(of_tag(1, 3));
        assert_eq!(older.foldable(&floors), [of_tag(1, 4)]);
        older.fold(of_tag(1, 4));
        assert!(older.foldable(&floors).is_empty());
    }
}
