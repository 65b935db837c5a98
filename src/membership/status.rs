//! How a member serves, in one word, and from when on it is too busy or too late to serve well.

use std::time::Duration;

/// The load from which on a member is no longer well, in percent: above it, requests begin to queue.
pub const BUSY_OVER: u8 = 90;
/// The lag from which on a member is no longer well: more than any path takes, so something stands in the way.
pub const LATE_OVER: Duration = Duration::from_secs(2);

/// How a member or a region serves, in one word, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Status {
    /// It is heard, in time, and has room: it is active, whatever part it plays.
    Well,
    /// It serves, but not as it should: it is busier than 90 % by its own word, its writes take longer than two seconds to get
    /// here, it is suspected or behind a cut, or it is this node, which is isolated or refuses the writes that its role takes.
    Degraded,
    /// It has failed: it is unreachable.
    Failed,
}
