//! Time as the core sees it: a parameter, never a call.
//!
//! [`Now`] is what the shell (or the simulator) hands in. [`Mono`] drives deadlines and timers,
//! the wall clock drives stamps and time to live. [`Hlc`] is a hybrid logical clock (Kulkarni et
//! al., *Logical Physical Clocks*, OPODIS 2014) packed in 64 bits: 48 bits of Unix milliseconds
//! above a 16-bit counter that carries into the milliseconds and never wraps.
//!
//! # Invariants
//! * Two ticks of one [`HlcClock`] are strictly increasing, whatever the wall clock does.
//! * Whatever was observed is smaller than every later tick.
//!
//! What is *not* here: reading a clock, and refusing a far-future stamp (see [`crate::node`]).

mod hlc;
mod spacing;

use std::fmt;
use std::time::Duration;

pub use hlc::HlcClock;
use serde::{Deserialize, Serialize};
pub use spacing::Spacing;

use crate::id::ReplicaId;

/// Monotonic time in nanoseconds since an arbitrary start of this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// Returns the instant `after` later, or the end of time.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(nanos(after)))
    }

    /// Returns how long ago `earlier` was; zero when it is in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// The instant an input happens at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic time, for deadlines.
    pub mono: Mono,
    /// Wall-clock time in Unix milliseconds, for stamps and time to live.
    pub wall_ms: u64,
}

/// A hybrid logical clock value: Unix milliseconds `<< 16 |` counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Hlc(pub u64);

/// Bits of the counter below the milliseconds.
const COUNTER_BITS: u32 = 16;

impl Hlc {
    /// Returns the smallest value of a millisecond.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << COUNTER_BITS)
    }

    /// Returns the millisecond this value lies in.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & 0xffff)
    }
}

/// The total order of last-writer-wins: the clock first, the replica as tie-break.
///
/// Unique per event, so two different values never carry equal stamps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// When the event happened.
    pub hlc: Hlc,
    /// Where it happened.
    pub replica: ReplicaId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_increase_when_the_wall_clock_steps_back() {
        let clock = HlcClock::default();
        let a = clock.tick(1_000);
        let b = clock.tick(10);
        assert!(b > a);
        assert_eq!(b.ms(), 1_000);
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds_and_never_wraps() {
        let clock = HlcClock::default();
        clock.observe(Hlc(Hlc::from_ms(5).0 | 0xffff));
        let next = clock.tick(5);
        assert_eq!(next, Hlc::from_ms(6));
    }

    #[test]
    fn more_than_65536_events_in_one_millisecond_stay_strictly_ordered() {
        // Miri takes a minute for all of them: there the counter is nearly full from the start.
        let left = if cfg!(miri) { 100 } else { 65_536 };
        let (clock, mut last) = (HlcClock::default(), Hlc(Hlc::from_ms(8).0 - left));
        clock.observe(last);
        for _ in 0..left + 100 {
            let next = clock.tick(7);
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.ms(), 8);
    }

    #[test]
    fn observing_puts_later_ticks_above() {
        let clock = HlcClock::default();
        clock.observe(Hlc::from_ms(90));
        assert!(clock.tick(10) > Hlc::from_ms(90));
        assert_eq!(clock.visible_ms(10), 90);
        assert_eq!(clock.visible_ms(100), 100);
    }
}
