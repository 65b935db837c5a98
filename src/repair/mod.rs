//! Repair: two copies are compared, and what one of them lost silently is given back (anti-entropy).
//!
//! Live batches, the log and full synchronisation carry what contexts say is missing. Repair looks for what contexts
//! cannot say: state that was lost, or is older, although its events were seen. In health it finds nothing, and what
//! it finds is a fault that somebody must be told of.
//!
//! * [`digest`] cuts sums short and compares them: pure functions.
//! * [`session`] is the conversation of one link, in both roles.
//! * [`run`] is what somebody asked for: all partitions, with all peers.
//! * [`budget`] says when more may be given.
//!
//! ```text
//! asker                                   teller
//!   verify: a sum per partition     -->     equal: verified, nine bytes each
//!                                   <--   answer; of the others a snapshot: context, root, buckets
//!   undoes what the snapshot has not seen; roots equal: verified
//!   leaves of the buckets that differ -->   compares
//!                                   <--   list: two bytes for each key of the leaves that differ
//!   want, and its own versions      -->     joins them in
//!                                   <--   the versions wanted
//! ```
//!
//! # Invariants
//! * A partition counts as verified only when all 64 bits of its sums are equal, at one context; what is cut short only
//!   says where to look.
//! * Absence decides nothing: what is present is offered, nothing is removed.
//! * No dot is minted, and no context advances.
//! * What is open is bounded: [`session::OPEN_MAX`] partitions a link, [`digest::LEAVES_LISTED_MAX`] leaves of each.
//!
//! What is not here: when to compare and with whom (`node`), and what a copy sums up to (`store::fingerprint`).

pub mod budget;
pub mod digest;
pub mod run;
pub mod session;

pub use budget::Budget;
pub use run::Run;
pub use session::{Found, Session, Step};
