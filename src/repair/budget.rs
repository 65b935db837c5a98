//! How much may be given back now, kept as an instant: the one at which all that was given is paid for.
//!
//! # Invariants
//! * Nothing is given before that instant, so in any time no more is given than the rate says, a tenth of a second of it, and
//!   what was given last.
//! * What is given unasked, as answers are, moves the instant as well.
//! * The instant is never further ahead than [`DEBT_MAX`].

use std::time::Duration;

use crate::clock::Mono;

/// How long a budget that is not used is saved up: it makes up for timers that are late.
const SAVED_FOR: Duration = Duration::from_millis(100);
/// How long what was given may keep back the next gift: at the lowest rate, 1,000 B/s, as long as the largest gift takes, a
/// frame and the largest value.
pub const DEBT_MAX: Duration = Duration::from_secs(900);
/// Nanoseconds of a second.
const NANOS: u128 = 1_000_000_000;

/// What may be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    bytes_per_second: u64,
    paid_at: Mono,
}

impl Budget {
    /// A budget of which nothing was given.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mono::default() }
    }

    /// Tells whether something may be given now.
    #[must_use]
    pub fn is_free(&self, now: Mono) -> bool {
        self.paid_at <= now
    }

    /// Returns from when on something may be given.
    #[must_use]
    pub fn paid_at(&self) -> Mono {
        self.paid_at
    }

    /// So many bytes were given.
    pub fn spend(&mut self, now: Mono, bytes: u64) {
        let takes = (u128::from(bytes) * NANOS).div_ceil(u128::from(self.bytes_per_second));
        let takes = Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        let saved = Mono::default().plus(now.since(Mono::default().plus(SAVED_FOR)));
        self.paid_at = self.paid_at.max(saved).plus(takes).min(now.plus(DEBT_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Bytes given in so many seconds, in gifts of so many bytes, if it is looked so often whether one may be given.
    fn given(rate: u64, gift: u64, every: Duration) -> u64 {
        let (mut budget, mut now, mut given) = (Budget::new(rate), Mono(0), 0);
        while now.since(Mono(0)) < SECOND * 100 {
            if budget.is_free(now) {
                budget.spend(now, gift);
                given += gift;
            }
            now = now.plus(every);
        }
        given
    }

    #[test]
    fn as_much_is_given_as_the_rate_says_whatever_the_gifts_and_however_often_it_is_looked() {
        let late = Duration::from_millis(1);
        for rate in [1_000, 1_001, 1_999, 1 << 20] {
            for (gift, every) in [(100, Duration::from_micros(50)), (rate / 20, late), (rate * 3, late * 100)] {
                let (given, fair) = (given(rate, gift, every), rate * 100);
                assert!(given <= fair + rate / 10 + gift, "{given} of {fair} in {gift} B");
                // A gift takes whole nanoseconds.
                assert!(given + gift + fair / 100_000 >= fair, "{given} of {fair} in {gift} B");
            }
        }
    }

    #[test]
    fn what_was_given_is_paid_for_before_more_is_given_and_holds_nobody_up_for_ever() {
        let (mut budget, now) = (Budget::new(1_000), Mono(0).plus(SECOND));
        assert!(budget.is_free(now));
        budget.spend(now, 50);
        assert!(budget.is_free(now), "a tenth of a second was saved up");
        budget.spend(now, 64_050);
        assert_eq!(budget.paid_at(), now.plus(SECOND * 64));
        budget.spend(now, 1_000);
        assert_eq!(budget.paid_at(), now.plus(SECOND * 65), "an answer that could not wait");
        budget.spend(now, 1 << 40);
        assert_eq!(budget.paid_at(), now.plus(DEBT_MAX));
        assert!(!budget.is_free(now.plus(DEBT_MAX - SECOND)) && budget.is_free(now.plus(DEBT_MAX)));
        budget.spend(Mono(u64::MAX), u64::MAX);
        assert_eq!(budget.paid_at(), Mono(u64::MAX));
    }
}
