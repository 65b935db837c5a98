//! What the region process and the demo share: the world they live in and the words they exchange.
//!
//! # Invariants
//! * Nothing here depends on the library, so the demo's verdict shares no code with what it judges.

pub(crate) mod protocol;
pub(crate) mod topology;
pub(crate) mod workload;

use std::time::UNIX_EPOCH;

/// Returns the wall clock in Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "the processes of the demo live outside the core and have a real clock")]
pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
