//! Who is alive, and how far away.
//!
//! The replicated part, the set of members, is [`crate::crdt::MemberSet`]. Liveness is local and
//! lives in the failure detector; a false suspicion never changes membership.

pub mod detector;

pub use detector::{Beats, Verdict};
