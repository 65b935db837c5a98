//! This replica's hybrid logical clock: one atomic, shared by all threads that write.
//!
//! # Invariants
//! * No two ticks return the same value, and one that begins after another returned is greater.
//! * Whatever was observed is smaller than every later tick.
//! * Both hold for one replica: a process that goes on as another one begins anew.
//!
//! A file of its own so that `tests/loom.rs` can try every order of its atomics.

use crate::clock::Hlc;
use crate::probe::{planted, sometimes};
use crate::sync::{AtomicU64, Ordering};

/// This replica's hybrid logical clock: one atomic, shared by all partitions.
#[derive(Debug, Default)]
pub struct HlcClock(AtomicU64);

impl HlcClock {
    /// Returns a value above every earlier tick and everything observed, at `wall_ms` or later.
    pub fn tick(&self, wall_ms: u64) -> Hlc {
        let floor = Hlc::from_ms(wall_ms).0;
        let next = |last: u64| {
            let wraps = planted!(CounterWraps) && last & 0xffff == 0xffff;
            floor.max(if wraps { last & !0xffff } else { last.saturating_add(1) })
        };
        let mut last = self.0.load(Ordering::Relaxed);
        loop {
            match self.0.compare_exchange_weak(last, next(last), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    let ticked = Hlc(next(last));
                    sometimes!(WallClockBehind, if ticked.ms() > wall_ms);
                    sometimes!(CounterCarried, if ticked.ms() > wall_ms && ticked.ms() > Hlc(last).ms());
                    return ticked;
                }
                Err(seen) => last = seen,
            }
        }
    }

    /// Makes every later tick larger than `seen`.
    pub fn observe(&self, seen: Hlc) {
        self.0.fetch_max(seen.0, Ordering::AcqRel);
    }

    /// Forgets what was ticked and observed: another replica begins.
    pub fn restart(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// Returns the largest value ticked or observed so far.
    #[must_use]
    pub fn last(&self) -> Hlc {
        Hlc(self.0.load(Ordering::Acquire))
    }

    /// Returns the time that decides expiry: the wall clock, but never behind a stamp already seen.
    #[must_use]
    pub fn visible_ms(&self, wall_ms: u64) -> u64 {
        if planted!(ExpiryByWallClock) {
            return wall_ms;
        }
        wall_ms.max(self.last().ms())
    }
}
