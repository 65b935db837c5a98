//! The system's clocks and its randomness: where time and chance enter.
//!
//! # Invariants
//! * Nothing else in the library reads a clock or draws an unseeded random number.
//! * [`SystemClock::now`] never goes back in its monotonic part, whatever the wall clock does.
#![expect(clippy::disallowed_methods, reason = "the shell is where time and chance enter")]

use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::clock::{Mono, Now};
use crate::id::{NodeId, ReplicaId};

/// The system's clocks, monotonic time counted from the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts counting. Times of two clocks are not comparable: make one and copy it.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Returns the time now.
    #[must_use]
    pub fn now(&self) -> Now {
        let nanos = self.start.elapsed().as_nanos();
        Now { mono: Mono(u64::try_from(nanos).unwrap_or(u64::MAX)), wall_ms: wall_ms() }
    }

    /// Returns the instant to sleep until for a deadline of the node. A deadline beyond what the
    /// system can express becomes one in a year.
    #[must_use]
    pub fn instant(&self, deadline: Mono) -> tokio::time::Instant {
        let at = self.start.checked_add(Duration::from_nanos(deadline.0));
        at.unwrap_or_else(|| self.start + FAR).into()
    }
}

/// Longer than any timer of the node, and expressible on every system.
const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Returns the wall clock in Unix milliseconds; zero if it stands before 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Makes the id of this process' replica of `node`. It must be made once per process start and never kept.
#[must_use]
pub fn fresh_replica(node: NodeId) -> ReplicaId {
    ReplicaId::new(node, wall_ms())
}

/// Draws the seed of the node's random generator.
#[must_use]
pub fn fresh_seed() -> u64 {
    // A v4 UUID has six fixed bits; folding its halves covers those of one with free ones of the other.
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low
}

/// Makes a node id for a node that has none yet. It must be kept: it is what the certificate names.
#[must_use]
pub fn fresh_node() -> NodeId {
    NodeId(Uuid::now_v7())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_does_not_go_back() {
        let clock = SystemClock::start();
        let a = clock.now();
        let b = clock.now();
        assert!(b.mono >= a.mono);
    }

    #[tokio::test]
    async fn a_deadline_beyond_the_calendar_is_still_an_instant() {
        let clock = SystemClock::start();
        assert!(clock.instant(Mono(u64::MAX)) > clock.instant(Mono(0)));
    }

    #[test]
    fn fresh_ids_differ_and_replicas_are_of_their_node() {
        let (node, other) = (fresh_node(), fresh_node());
        assert_ne!(node, other);
        assert!(fresh_replica(node).tag() == node.tag() && fresh_replica(other).tag() == other.tag());
    }
}
