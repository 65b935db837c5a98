//! A rate limit: the generic cell rate algorithm (ITU-T I.371), which keeps one instant.

use std::time::Duration;

use super::Rate;
use crate::clock::Mono;

/// The share of a burst that is kept for requests that must not be shed, as one of so many parts.
const RESERVED: u32 = 5;

/// The limit of one region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limiter {
    /// How long one request takes up.
    each: Duration,
    /// How far ahead requests may be.
    burst: Duration,
    /// Until when requests have taken it up.
    taken_until: Mono,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        let each = Duration::from_secs(1) / rate.per_second.max(1);
        Self { each, burst: each * rate.burst.max(1), taken_until: Mono::default() }
    }

    /// Takes a request in, or returns after how long it may be tried again. One that may be shed leaves a fifth of the
    /// burst to those that may not.
    pub(super) fn take(&mut self, now: Mono, may_be_shed: bool) -> Result<(), Duration> {
        let room = if may_be_shed { self.burst - self.burst / RESERVED } else { self.burst };
        let room = room.max(self.each);
        let next = self.taken_until.max(now).plus(self.each);
        let ahead = next.since(now);
        if ahead > room {
            return Err(ahead.saturating_sub(room));
        }
        self.taken_until = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_so_many_per_second_and_who_may_be_shed_goes_first() {
        let mut limiter = Limiter::new(Rate { per_second: 10, burst: 5 });
        let at = |ms: u64| Mono(1_000_000_000 + ms * 1_000_000);
        let mut taken = |ms: u64, shed: bool| (0..10).take_while(|_| limiter.take(at(ms), shed).is_ok()).count();
        assert_eq!((taken(0, true), taken(0, false), taken(0, false)), (4, 1, 0));
        assert_eq!((taken(100, true), taken(100, false)), (0, 1));
        assert_eq!(taken(1_100, false), 5, "not more than a burst after a pause");
        assert_eq!(limiter.take(at(1_100), false), Err(Duration::from_millis(100)));
    }
}
