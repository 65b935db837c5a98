//! The history oracle: what really happened, and what a reader must therefore see.
//!
//! Knows nothing of a store: an event is its dot, its stamp, what its author had seen, and what it did
//! ([`Record`]). The answers follow from the definitions in `docs/semantics.md` by brute force ([`View`]): for a register
//! the largest stamp, for a path the puts that nobody who saw them has overwritten, for a counter the sum of the
//! increments no reset observed, for a custom entry every update of its last life. Which events somebody has seen is said
//! by a context, so the same history answers for every replica at every moment: events that died with the only hosts that
//! had them are in no surviving context.
//!
//! What a store may do on top is *miss* what was evicted, and *be early* by as much as some clock is ahead: those
//! licences are the checks', not the oracle's.

mod event;
mod history;
mod recorder;
mod view;

pub use event::{Event, Key, Life, Record, Space};
pub use history::{History, Subject};
pub use recorder::{Mutation, Notes, Site, open};
pub(in crate::sim) use recorder::{cell, custom, tree};
pub use view::{KeyView, Live, Noted, Part, View};
