//! How long a value lives.
//!
//! # Invariants
//! * A time to live of zero is refused when it is used, not silently made something else.

use std::time::Duration;

use crate::crdt::NEVER;
use crate::error::WriteError;

/// How long a value lives, counted from the moment it is written.
///
/// The write turns it into an absolute deadline on the cluster's clock, which travels with the
/// value: it is gone everywhere at the same millisecond, without a message.
///
/// ```
/// use std::time::Duration;
/// use driftless::Ttl;
/// assert_eq!(Ttl::minutes(2), Ttl::from(Duration::from_secs(120)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ttl(u64);

impl Ttl {
    /// The value stays until it is deleted or overwritten.
    pub const NEVER: Self = Self(NEVER);

    /// Returns a number of milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns a number of seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// Returns a number of minutes.
    #[must_use]
    pub const fn minutes(minutes: u64) -> Self {
        Self::seconds(minutes.saturating_mul(60))
    }

    /// Returns a number of hours.
    #[must_use]
    pub const fn hours(hours: u64) -> Self {
        Self::minutes(hours.saturating_mul(60))
    }

    /// Returns the absolute deadline of a write at `now_ms`.
    pub(super) fn deadline(self, now_ms: u64) -> Result<u64, WriteError> {
        if self.0 == 0 { Err(WriteError::ZeroTtl) } else { Ok(now_ms.saturating_add(self.0)) }
    }

    /// Tells whether less than half of this would be left at `now_ms` before `deadline`.
    pub(super) fn is_half_gone(self, now_ms: u64, deadline: u64) -> bool {
        deadline.saturating_sub(now_ms) < self.0 / 2
    }
}

/// A duration; what is less than a millisecond and not zero counts as one.
impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        let ms = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(NEVER);
        Self(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_absolute_and_never_zero_or_wrapped() {
        assert_eq!(Ttl::seconds(2).deadline(500), Ok(2_500));
        assert_eq!(Ttl::NEVER.deadline(500), Ok(NEVER));
        assert_eq!(Ttl::hours(u64::MAX).deadline(500), Ok(NEVER));
        assert_eq!(Ttl::from(Duration::ZERO).deadline(500), Err(WriteError::ZeroTtl));
        assert_eq!(Ttl::from(Duration::from_nanos(1)).deadline(500), Ok(501));
    }

    #[test]
    fn sliding_begins_when_half_is_gone() {
        let ttl = Ttl::millis(100);
        assert!(!ttl.is_half_gone(50, 100) && ttl.is_half_gone(51, 100) && ttl.is_half_gone(300, 100));
        assert!(!Ttl::NEVER.is_half_gone(50, NEVER));
    }
}
