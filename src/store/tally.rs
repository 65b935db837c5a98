//! Counters of one keyspace's local reads and writes.
//!
//! Striped by key hash over cache lines of their own, so that counting does not make threads that
//! read different keys wait for each other's line.
//!
//! # Invariants
//! * A count is exact once the threads that count are quiet; while they run it may be a little old.

use crate::sync::{AtomicU64, Ordering};

/// Lines to spread over: more than the cores that usually share one cache.
const STRIPES: usize = 8;

/// One cache line of counters.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe {
    hits: AtomicU64,
    misses: AtomicU64,
    writes: AtomicU64,
}

/// The counters of a keyspace.
#[derive(Debug, Default)]
pub struct Tally {
    stripes: [Stripe; STRIPES],
}

/// What a [`Tally`] had counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tallied {
    /// Local reads that found something visible.
    pub hits: u64,
    /// Local reads that did not.
    pub misses: u64,
    /// Local writes that were accepted and changed something.
    pub writes: u64,
}

impl Tally {
    fn stripe(&self, hash: u64) -> Option<&Stripe> {
        // The high bits chose the partition; the low ones are as good as random within it.
        self.stripes.get(usize::try_from(hash % 8).unwrap_or(0))
    }

    /// Counts a read of the key with this hash.
    pub fn read(&self, hash: u64, hit: bool) {
        if let Some(stripe) = self.stripe(hash) {
            let counter = if hit { &stripe.hits } else { &stripe.misses };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a write of the key with this hash.
    pub fn wrote(&self, hash: u64) {
        if let Some(stripe) = self.stripe(hash) {
            stripe.writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the sums.
    #[must_use]
    pub fn sum(&self) -> Tallied {
        let mut sum = Tallied::default();
        for stripe in &self.stripes {
            sum.hits += stripe.hits.load(Ordering::Relaxed);
            sum.misses += stripe.misses.load(Ordering::Relaxed);
            sum.writes += stripe.writes.load(Ordering::Relaxed);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stripe_is_counted() {
        let tally = Tally::default();
        (0..20).for_each(|hash| tally.read(hash, hash % 2 == 0));
        (0..3).for_each(|hash| tally.wrote(hash));
        assert_eq!(tally.sum(), Tallied { hits: 10, misses: 10, writes: 3 });
        for hash in [u64::MAX, 1 << 63, 1_000_003] {
            tally.read(hash, true);
            tally.wrote(hash);
        }
        assert_eq!(tally.sum(), Tallied { hits: 13, misses: 10, writes: 6 });
    }
}
