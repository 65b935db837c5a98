//! A write is refused exactly when it may be.
//!
//! # Invariants
//! * A node that may not write refuses everything; one that may refuses only what needs room: over its keyspace's budget,
//!   or in a map that would grow past what a map may hold.
//! * A refused write is not numbered.

use super::{Invariant, Violation};
use crate::error::WriteError;
use crate::sim::oracle::{History, Mutation};
use crate::store::{ENTRY_BYTES_MAX, Gate, Store};

/// Checks how a write was answered, by what its keyspace and its entry took before.
pub(in crate::sim) fn admitted(
    gate: Gate,
    (used, budget): (u64, u64),
    entry_bytes: Option<usize>,
    mutation: &Mutation,
    refused: Option<&WriteError>,
) -> Result<(), Violation> {
    let full = mutation.room().is_some() && used > budget;
    let grown = entry_bytes.zip(mutation.growth()).map(|(bytes, more)| bytes + more);
    let large = grown.is_some_and(|bytes| bytes > ENTRY_BYTES_MAX);
    let right = match (gate, refused) {
        (Gate::Open, None) => !full && !large,
        (Gate::Open, Some(WriteError::OverCapacity { .. })) => full,
        (Gate::Open, Some(WriteError::EntryTooLarge { .. })) => large && !full,
        (Gate::Joining, Some(WriteError::NotJoined))
        | (Gate::ClockRefused, Some(WriteError::ClockRefused { .. }))
        | (Gate::Removed, Some(WriteError::Removed))
        | (Gate::Stopped, Some(WriteError::Stopped)) => true,
        (Gate::Open | Gate::Joining | Gate::ClockRefused | Gate::Removed | Gate::Stopped, _) => false,
    };
    if right {
        return Ok(());
    }
    let what = format!("{mutation:?} at {gate:?} with {used} of {budget} bytes: {refused:?}");
    Err(Violation::new(Invariant::Admission, what))
}

/// Checks that a process has made no event that nobody knows of.
pub(in crate::sim) fn nothing_unknown(store: &Store, history: &History) -> Result<(), Violation> {
    for p in store.partition_ids().filter_map(|id| store.read(id)) {
        let made = history.made(p.id(), store.me());
        if p.seq() != made {
            let what = format!("{}: {} has made {} events, {made} of them asked for", p.id(), store.me(), p.seq());
            return Err(Violation::new(Invariant::Admission, what));
        }
    }
    Ok(())
}
