//! Who belongs to the cluster and who is alive.
//!
//! [`members`] is the replicated part: a set that only grows. Liveness is local and lives in the
//! failure detector; a false suspicion never changes membership.

pub mod members;

pub use members::{Member, MemberSet};
