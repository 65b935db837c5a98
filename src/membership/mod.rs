//! Who is alive, and how far away.
//!
//! The replicated part, the set of members, is [`crate::crdt::MemberSet`]. Liveness is local: the
//! detector measures each link, and what all of them suspect together is judged next to it. A false
//! suspicion never changes membership.

pub mod detector;
pub mod liveness;
pub mod outages;
pub mod status;

pub use detector::{Beats, Verdict};
pub use liveness::{Change, Heard, Liveness, Reach};
pub use outages::{Outages, Recovery};
pub use status::Status;
