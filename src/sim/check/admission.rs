//! A write is refused exactly when it may be.
//!
//! # Invariants
//! * A node that may not write refuses everything; one that may refuses only what needs room, and only over its budget.
//! * A refused write is not numbered.

use super::{Invariant, Violation};
use crate::error::WriteError;
use crate::sim::oracle::{History, Mutation};
use crate::store::{Gate, Store};

/// Checks how a write was answered, by what its keyspace took before.
pub(in crate::sim) fn admitted(
    gate: Gate,
    (used, budget): (u64, u64),
    mutation: &Mutation,
    refused: Option<&WriteError>,
) -> Result<(), Violation> {
    let full = mutation.room().is_some() && used > budget;
    let right = match (gate, refused) {
        (Gate::Open, None) => !full,
        (Gate::Open, Some(WriteError::OverCapacity { .. })) => full,
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
