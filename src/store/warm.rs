//! Which keys were read or written here lately: what an edge keeps.
//!
//! Of each partition two generations of a bitmap over the keys' hashes. A read sets its bit in the younger one; now and
//! then the older one is emptied and becomes the younger. Two keys of one bit are kept for each other's sake.
//!
//! # Invariants
//! * A read takes no lock for it and allocates nothing; where the bit is set already it only looks.
//! * A mark lasts for one whole turn at least. It may get lost if its generation is emptied in that very moment.

use crate::id::PartitionId;
use crate::sync::{AtomicU64, Ordering};

/// Words of a generation: 65,536 bits, so a partition costs 16 KiB and tells tens of thousands of keys apart.
const WORDS: usize = 1 << 10;

/// What was read lately, by partition.
#[derive(Debug)]
pub struct Warm {
    partitions: Box<[Generations]>,
    /// How often a generation was emptied.
    turns: AtomicU64,
}

#[derive(Debug)]
struct Generations([Box<[AtomicU64]>; 2]);

impl Generations {
    fn new() -> Self {
        let empty = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self([empty(), empty()])
    }

    fn of(&self, turn: u64) -> &[AtomicU64] {
        let [even, odd] = &self.0;
        if turn.is_multiple_of(2) { even } else { odd }
    }
}

impl Warm {
    /// Builds one for so many partitions that knows of nothing.
    #[must_use]
    pub fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Generations::new()).collect(), turns: AtomicU64::new(0) }
    }

    /// Notes that a key is read or written.
    pub fn note(&self, partition: PartitionId, hash: u64) {
        let turn = self.turns.load(Ordering::Relaxed);
        let (at, bit) = place(hash);
        let word = self.partitions.get(partition.index()).and_then(|generations| generations.of(turn).get(at));
        if let Some(word) = word.filter(|word| word.load(Ordering::Relaxed) & bit == 0) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Tells whether a key was noted lately.
    #[must_use]
    pub fn has(&self, partition: PartitionId, hash: u64) -> bool {
        let (at, bit) = place(hash);
        let is_set = |of: &[AtomicU64]| of.get(at).is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0);
        self.partitions.get(partition.index()).is_some_and(|Generations(both)| both.iter().any(|of| is_set(of)))
    }

    /// Forgets what was noted before the last turn.
    pub fn turn(&self) {
        let next = self.turns.load(Ordering::Relaxed).wrapping_add(1);
        for generations in &self.partitions {
            generations.of(next).iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        self.turns.store(next, Ordering::Relaxed);
    }
}

/// The word and the bit of a key: its low bits, for the high ones chose the partition.
fn place(hash: u64) -> (usize, u64) {
    let word = usize::try_from((hash >> 6) & 0xffff_ffff).unwrap_or(0) % WORDS;
    (word, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PartitionId = PartitionId(1);

    #[test]
    fn what_is_read_stays_warm_for_a_whole_turn_and_not_for_two() {
        let warm = Warm::new(2);
        warm.note(ONE, 7);
        assert!(warm.has(ONE, 7) && !warm.has(ONE, 8) && !warm.has(PartitionId(0), 7));
        warm.turn();
        warm.note(ONE, 8);
        assert!(warm.has(ONE, 7) && warm.has(ONE, 8));
        warm.turn();
        assert!(!warm.has(ONE, 7) && warm.has(ONE, 8));
        warm.note(ONE, 8);
        warm.turn();
        assert!(warm.has(ONE, 8), "it was read again");
    }

    #[test]
    fn a_partition_there_is_none_of_is_never_warm() {
        let warm = Warm::new(1);
        warm.note(ONE, 7);
        assert!(!warm.has(ONE, 7));
    }
}
