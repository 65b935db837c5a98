//! A rate limit that keeps some room for requests that must not be shed.

use std::time::Duration;

use super::Rate;
use crate::clock::{Mono, Spacing};

/// The share of a burst that is kept for requests that must not be shed, as one of so many parts.
const RESERVED: u32 = 5;

/// The limit of one region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limiter {
    requests: Spacing,
    /// How far ahead requests may be.
    burst: Duration,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        let requests = Spacing::new(Duration::from_secs(1) / rate.per_second.max(1));
        Self { requests, burst: requests.room_for(rate.burst) }
    }

    /// Takes a request in, or returns after how long it may be tried again. One that may be shed leaves a fifth of the
    /// burst to those that may not.
    pub(super) fn take(&mut self, now: Mono, may_be_shed: bool) -> Result<(), Duration> {
        let room = if may_be_shed { self.burst - self.burst / RESERVED } else { self.burst };
        self.requests.take(now, room.max(self.requests.room_for(1)))
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
