//! Moving writes to peers: what to send, to whom, and how far each has got.
//!
//! * [`outbox`] sweeps dirty partitions into frames that all caught-up peers share.
//! * [`peer`] is one peer's progress: what it has, what was sent, what it must be given in full.
//! * [`reports`] is the acknowledgement: which contexts changed since the last report on a link.
//!
//! # Invariants
//! * R-TRUNC: increments go only to a peer whose context includes my floor; any other receives the
//!   partition in full first.
//! * A slow or dead peer costs contexts and at most one captured partition, never a queue of writes.
//! * Frames are self-contained, so lost, repeated and reordered frames do no harm.

pub mod outbox;
mod pace;
pub mod peer;
pub mod reports;

pub use outbox::Outbox;
pub use peer::Peer;
pub use reports::ReportLog;
