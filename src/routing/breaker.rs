//! A circuit breaker: who fails several times in a row is left alone for a while, then tried once (Nygard, *Release It!*,
//! 2007).

use std::time::Duration;

use crate::clock::Mono;

/// How many times a breaker that opens again stays open twice as long.
const DOUBLINGS: u32 = 4;

/// The breaker of one region.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    /// Failures in a row.
    failures: u32,
    /// How often it opened without a success since.
    opened: u32,
    /// When one request may try, if it is open.
    until: Option<Mono>,
    /// One is trying.
    tries: bool,
}

impl Breaker {
    /// Tells whether the last request failed.
    pub(super) fn has_failures(&self) -> bool {
        self.failures > 0
    }

    /// Tells whether a request may go through.
    pub(super) fn lets_through(&self, now: Mono) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Notes that a request is sent: through an open breaker no other one may follow until it was reported, or as long
    /// again has passed.
    pub(super) fn sent(&mut self, now: Mono, open_for: Duration) {
        if self.until.is_some() {
            self.tries = true;
            self.until = Some(now.plus(self.lasts(open_for)));
        }
    }

    /// Notes how a request ended. Of an open breaker only the one that tries counts as a failure: the others were under way
    /// when it opened.
    pub(super) fn report(&mut self, now: Mono, ok: bool, failures: u32, open_for: Duration) {
        if ok {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let opens = if self.until.is_some() { self.tries } else { self.failures >= failures.max(1) };
        if opens {
            self.tries = false;
            self.opened = (self.opened + 1).min(DOUBLINGS + 1);
            self.until = Some(now.plus(self.lasts(open_for)));
        }
    }

    fn lasts(&self, open_for: Duration) -> Duration {
        open_for.saturating_mul(1 << self.opened.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOR: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_request_try() {
        let mut breaker = Breaker::default();
        [true, false, false, true, false, false].into_iter().for_each(|ok| breaker.report(at(0), ok, 3, FOR));
        assert!(breaker.lets_through(at(0)), "never three in a row");
        breaker.report(at(0), false, 3, FOR);
        assert!(!breaker.lets_through(at(999)) && breaker.lets_through(at(1_000)));
        breaker.sent(at(1_000), FOR);
        assert!(!breaker.lets_through(at(1_999)), "one only");
        breaker.report(at(1_100), true, 3, FOR);
        assert!(breaker.lets_through(at(1_100)));
    }

    #[test]
    fn it_stays_open_longer_each_time_up_to_sixteen_times() {
        let mut breaker = Breaker::default();
        let mut now = at(0);
        for lasts in [1, 2, 4, 8, 16, 16] {
            breaker.sent(now, FOR);
            (0..20).for_each(|_| breaker.report(now, false, 1, FOR));
            assert!(!breaker.lets_through(now.plus(FOR * lasts - Duration::from_millis(1))), "{lasts}");
            now = now.plus(FOR * lasts);
            assert!(breaker.lets_through(now), "{lasts}");
        }
    }
}
