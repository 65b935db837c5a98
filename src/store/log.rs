//! Which entry each unstable dot is about.
//!
//! Per origin, runs of consecutive sequence numbers, so a record costs four bytes and appending
//! one is a push. A record is dropped when its dot is stable, or when the log outgrows its limit
//! (the dot then joins the *floor*, and peers that lack it are synchronised in full: R-TRUNC).
//!
//! # Invariants
//! * Runs are disjoint and in order; memory follows the number of records, never the size of a gap or how many origins
//!   there have been.

use std::collections::{BTreeMap, VecDeque};

use crate::crdt::Dot;
use crate::id::ReplicaId;

/// A slot that holds no record.
const NONE: u32 = u32::MAX;

/// The records of one origin.
#[derive(Debug, Default)]
struct Origin {
    runs: BTreeMap<u64, VecDeque<u32>>,
    records: usize,
}

/// Records of every origin.
#[derive(Debug, Default)]
pub struct Log {
    origins: BTreeMap<ReplicaId, Origin>,
    records: usize,
}

impl Log {
    /// Returns how many records there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.records
    }

    /// Notes that `dot` is about the entry in `slot`.
    pub fn insert(&mut self, dot: Dot, slot: u32) {
        let origin = self.origins.entry(dot.replica).or_default();
        let before = origin.records;
        origin.insert(dot.seq, slot);
        self.records += origin.records - before;
    }

    /// Returns the slot a dot is about.
    #[must_use]
    pub fn get(&self, dot: Dot) -> Option<u32> {
        self.origins.get(&dot.replica)?.get(dot.seq)
    }

    /// Drops a record and returns its slot.
    pub fn remove(&mut self, dot: Dot) -> Option<u32> {
        let origin = self.origins.get_mut(&dot.replica)?;
        let slot = origin.remove(dot.seq)?;
        if origin.records == 0 {
            self.origins.remove(&dot.replica);
        }
        self.records -= 1;
        Some(slot)
    }

    /// Iterates over the origins that have records.
    pub fn origins(&self) -> impl Iterator<Item = ReplicaId> {
        self.origins.keys().copied()
    }

    /// Iterates over one origin's records from `seq` on, in order.
    pub fn from(&self, replica: ReplicaId, seq: u64) -> impl Iterator<Item = (Dot, u32)> {
        self.origins
            .get(&replica)
            .into_iter()
            .flat_map(move |o| o.from(seq))
            .map(move |(seq, slot)| (Dot { replica, seq }, slot))
    }

    /// Returns the origin with the most records.
    #[must_use]
    pub fn longest(&self) -> Option<ReplicaId> {
        self.origins.iter().max_by_key(|(_, o)| o.records).map(|(replica, _)| *replica)
    }
}

impl Origin {
    fn insert(&mut self, seq: u64, slot: u32) {
        if let Some((&first, run)) = self.runs.range_mut(..=seq).next_back() {
            let at = usize::try_from(seq - first).unwrap_or(usize::MAX);
            if at == run.len() {
                run.push_back(slot);
                self.records += 1;
                return;
            }
            if let Some(old) = run.get_mut(at) {
                self.records += usize::from(*old == NONE);
                *old = slot;
                return;
            }
        }
        self.runs.insert(seq, VecDeque::from([slot]));
        self.records += 1;
    }

    fn get(&self, seq: u64) -> Option<u32> {
        let (&first, run) = self.runs.range(..=seq).next_back()?;
        let at = usize::try_from(seq - first).ok()?;
        run.get(at).copied().filter(|slot| *slot != NONE)
    }

    fn remove(&mut self, seq: u64) -> Option<u32> {
        let (&first, run) = self.runs.range_mut(..=seq).next_back()?;
        let at = usize::try_from(seq - first).ok()?;
        let slot = run.get_mut(at).filter(|slot| **slot != NONE)?;
        let found = std::mem::replace(slot, NONE);
        self.records -= 1;
        self.trim(first);
        Some(found)
    }

    fn trim(&mut self, first: u64) {
        let Some(mut run) = self.runs.remove(&first) else { return };
        let mut first = first;
        while run.front() == Some(&NONE) {
            run.pop_front();
            first += 1;
        }
        if !run.is_empty() {
            self.runs.insert(first, run);
        }
    }

    fn from(&self, seq: u64) -> impl Iterator<Item = (u64, u32)> {
        let start = self.runs.range(..=seq).next_back().map_or(seq, |(first, _)| *first);
        self.runs.range(start..).flat_map(move |(&first, run)| {
            let skip = usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX).min(run.len());
            (first..).zip(run.iter().copied()).skip(skip).filter(|(_, slot)| *slot != NONE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_plain_ordered_map() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..if cfg!(miri) { 1 } else { 300 } {
            let (mut log, mut plain) = (Log::default(), BTreeMap::new());
            for _ in 0..if cfg!(miri) { 80 } else { 200 } {
                let dot = Dot { replica: ReplicaId(rng.u64(1..3)), seq: rng.u64(1..40) };
                if rng.u8(..3) == 0 {
                    assert_eq!(log.remove(dot), plain.remove(&dot));
                } else {
                    let slot = rng.u32(..9);
                    log.insert(dot, slot);
                    plain.insert(dot, slot);
                }
                assert_eq!(log.count(), plain.len());
                assert_eq!(log.get(dot), plain.get(&dot).copied());
                let of = |replica: ReplicaId| plain.keys().filter(|d| d.replica == replica).count();
                let longest = log.longest().map_or(0, of);
                assert_eq!(longest, of(ReplicaId(1)).max(of(ReplicaId(2))));
            }
            for replica in [ReplicaId(1), ReplicaId(2)] {
                let from = rng.u64(1..40);
                let want: Vec<_> = plain
                    .iter()
                    .filter(|(d, _)| d.replica == replica && d.seq >= from)
                    .map(|(d, s)| (*d, *s))
                    .collect();
                assert_eq!(log.from(replica, from).collect::<Vec<_>>(), want);
            }
        }
    }

    #[test]
    fn what_was_dropped_in_order_takes_no_memory_and_neither_does_an_origin_without_records() {
        let mut log = Log::default();
        let dot = |seq| Dot { replica: ReplicaId(1), seq };
        (1..=100).for_each(|seq| log.insert(dot(seq), 7));
        (1..100).for_each(|seq| assert_eq!(log.remove(dot(seq)), Some(7)));
        let kept: usize = log.origins.values().flat_map(|o| o.runs.values()).map(VecDeque::len).sum();
        assert_eq!((kept, log.origins().count()), (1, 1));
        assert_eq!(log.remove(dot(100)), Some(7));
        assert!(log.origins.is_empty() && log.longest().is_none());
    }

    #[test]
    fn a_huge_gap_costs_one_record() {
        let mut log = Log::default();
        log.insert(Dot { replica: ReplicaId(1), seq: 1 }, 7);
        log.insert(Dot { replica: ReplicaId(1), seq: u64::MAX }, 8);
        assert_eq!((log.count(), log.get(Dot { replica: ReplicaId(1), seq: u64::MAX })), (2, Some(8)));
    }
}
