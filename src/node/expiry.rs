//! A certificate that is about to expire, said in time and once per stage.
//!
//! # Invariants
//! * A stage is told once for each certificate; a renewed one begins anew.
//! * No link ends because a certificate expires: the next handshake is refused.
//! * Of its own certificate each node tells itself. What peers showed when their links came up may have been renewed since.

use crate::clock::Now;
use crate::node::Node;
use crate::node::event::Event;

/// Days before the end at which it is told, and the end itself.
const STAGES: [u64; 4] = [30, 7, 1, 0];
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// A certificate, and what was told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    at_ms: u64,
    told: Option<u64>,
}

impl Expiry {
    pub(super) fn new(at_ms: u64) -> Self {
        Self { at_ms, told: None }
    }

    /// Returns when it expires, in Unix milliseconds.
    pub(super) fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Returns the days of the stage that is to be told now.
    fn stage(&mut self, wall_ms: u64) -> Option<u64> {
        let left_ms = self.at_ms.saturating_sub(wall_ms);
        let stage = STAGES.into_iter().rev().find(|days| left_ms <= days * DAY_MS)?;
        let is_news = self.told.is_none_or(|told| stage < told);
        is_news.then(|| *self.told.insert(stage))
    }
}

impl Node {
    /// Tells that this node's certificate is about to expire.
    pub(super) fn look_at_certificate(&mut self, now: Now) {
        if let Some(days) = self.expiry.as_mut().and_then(|expiry| expiry.stage(now.wall_ms)) {
            self.event(Event::CertificateExpires { days });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_told_once() {
        let mut expiry = Expiry::new(100 * DAY_MS);
        let mut at = |day: u64| expiry.stage(day * DAY_MS);
        assert_eq!([69, 70, 71, 92].map(&mut at), [None, Some(30), None, None]);
        assert_eq!([93, 99, 99, 100, 200].map(&mut at), [Some(7), Some(1), None, Some(0), None]);
        assert_eq!(at(71), None, "a clock that is set back begins nothing anew");
        assert_eq!(Expiry::new(100 * DAY_MS).stage(99 * DAY_MS), Some(1), "a late look tells how late it is");
    }
}
