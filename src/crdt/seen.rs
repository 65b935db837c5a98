//! What is seen of one replica: a contiguous base, and ranges beyond the first gap; or a mark, which has everything.
//!
//! # Invariants
//! * Ranges are sorted, disjoint, non-adjacent and lie above `base + 1`.
//! * A mark names no event, only the sum of what it stands for.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::id::ReplicaId;
use crate::probe::planted;

/// What is seen of one replica: everything up to `base`, and the ranges `above`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    base: u64,
    above: Vec<(u64, u64)>,
    /// Of a mark: what it stands for, summed up.
    sum: u64,
}

/// The base of a mark: beyond every number.
const MARK: u64 = u64::MAX;

impl Seen {
    /// Builds from a base and ranges in any order, overlapping or not.
    #[must_use]
    pub fn new(base: u64, ranges: &[(u64, u64)]) -> Self {
        let mut seen = Self { base, above: Vec::new(), sum: 0 };
        seen.add_ranges(ranges);
        seen
    }

    /// Builds a mark, which has every number: the events it stands for sum up to `sum`.
    #[must_use]
    pub fn mark(sum: u64) -> Self {
        Self { base: MARK, above: Vec::new(), sum }
    }

    /// Tells whether this is a mark.
    #[must_use]
    pub fn is_mark(&self) -> bool {
        self.base == MARK
    }

    /// Returns a number for what this is of `replica`; those of several replicas add up to one for all.
    #[must_use]
    pub fn sum(&self, replica: ReplicaId) -> u64 {
        if self.is_mark() {
            return self.sum;
        }
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        [replica.0, self.base].into_iter().for_each(|n| hasher.write_u64(n));
        self.above.iter().flat_map(|(from, to)| [*from, *to]).for_each(|n| hasher.write_u64(n));
        hasher.finish()
    }

    /// Returns the end of the contiguous part.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Returns the inclusive ranges beyond the first gap, in order.
    #[must_use]
    pub fn above(&self) -> &[(u64, u64)] {
        &self.above
    }

    /// Returns the largest number seen.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.above.last().map_or(self.base, |r| r.1)
    }

    /// Tells whether event `seq` was seen.
    #[must_use]
    pub fn has(&self, seq: u64) -> bool {
        seq <= self.base || self.range_from(seq).is_some_and(|(_, to)| seq <= to)
    }

    /// Returns the last range that begins at or below `seq`.
    fn range_from(&self, seq: u64) -> Option<(u64, u64)> {
        let behind = self.above.partition_point(|&(from, _)| from <= seq);
        behind.checked_sub(1).and_then(|at| self.above.get(at).copied())
    }

    fn has_range(&self, from: u64, to: u64) -> bool {
        if to <= self.base {
            return true;
        }
        let from = from.max(self.base.saturating_add(1));
        from > to || self.range_from(from).is_some_and(|(_, end)| to <= end)
    }

    /// Adds the inclusive range `from..=to`; an empty or zero range adds nothing.
    pub fn add_range(&mut self, from: u64, to: u64) {
        let from = from.max(1);
        if to <= self.base || from > to {
            return;
        }
        if from <= self.base.saturating_add(1) || (planted!(GapJumped) && from == self.base.saturating_add(2)) {
            self.base = to;
        } else {
            let (mut from, mut to) = (from, to);
            self.above.retain(|&(a, b)| {
                let apart = b.saturating_add(1) < from || to.saturating_add(1) < a;
                if !apart {
                    from = from.min(a);
                    to = to.max(b);
                }
                apart
            });
            let at = self.above.partition_point(|&(a, _)| a < from);
            self.above.insert(at, (from, to));
        }
        self.close();
    }

    fn close(&mut self) {
        let mut base = self.base;
        self.above.retain(|&(a, b)| {
            let beyond = a > base.saturating_add(1);
            if !beyond {
                base = base.max(b);
            }
            beyond
        });
        self.base = base;
    }

    /// Adds many inclusive ranges, in any order, in about linear time: a peer may send thousands.
    fn add_ranges(&mut self, ranges: &[(u64, u64)]) {
        self.above.extend(ranges.iter().map(|&(from, to)| (from.max(1), to)).filter(|(from, to)| from <= to));
        self.above.sort_unstable();
        let mut apart: Vec<(u64, u64)> = Vec::with_capacity(self.above.len());
        for &(from, to) in &self.above {
            match apart.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                Some(_) | None => apart.push((from, to)),
            }
        }
        self.above = apart;
        self.close();
    }

    /// Adds everything `other` has.
    pub fn join(&mut self, other: &Self) {
        if self.is_mark() || other.is_mark() {
            *self = Self::mark(self.sum.max(other.sum));
            return;
        }
        self.add_range(1, other.base);
        match other.above.as_slice() {
            [] => {}
            &[(from, to)] => self.add_range(from, to),
            many => self.add_ranges(many),
        }
    }

    /// Tells whether everything in `other` is in here.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        self.has_range(1, other.base) && other.above.iter().all(|&(a, b)| self.has_range(a, b))
    }

    /// Returns how many events were seen; of a mark that is not known, and none are counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        if self.is_mark() {
            return 0;
        }
        self.above.iter().fold(self.base, |sum, (from, to)| sum.saturating_add(to - from + 1))
    }

    /// Returns how many separate ranges this takes to write down.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.above.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_many_ranges_is_adding_each_of_them() {
        let mut rng = fastrand::Rng::with_seed(8);
        for _ in 0..if cfg!(miri) { 4 } else { 2_000 } {
            let mut ranges = || (0..rng.usize(0..6)).map(|_| (rng.u64(0..30), rng.u64(0..30))).collect::<Vec<_>>();
            let (mine, theirs) = (ranges(), ranges());
            let (mut joined, other) = (Seen::new(2, &mine), Seen::new(3, &theirs));
            joined.join(&other);
            let mut added = Seen { base: 3, above: Vec::new(), sum: 0 };
            mine.iter().chain(&theirs).for_each(|&(from, to)| added.add_range(from, to));
            assert_eq!(joined, added);
        }
    }
}
