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
        | (Gate::Draining, Some(WriteError::Draining))
        | (Gate::Standby, Some(WriteError::Standby))
        | (Gate::Stopped, Some(WriteError::Stopped)) => true,
        (Gate::Open | Gate::Joining | Gate::ClockRefused | Gate::Removed, _)
        | (Gate::Draining | Gate::Standby | Gate::Stopped, _) => false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_write_is_refused_for_its_reason_and_for_no_other() {
        let (grows, frees) = (Mutation::Set { value: Bytes::new(), tags: Vec::new(), deadline: 1 }, Mutation::Delete);
        let full = WriteError::OverCapacity { used: 11, budget: 10 };
        let right: [(Gate, u64, &Mutation, Option<&WriteError>); 5] = [
            (Gate::Open, 10, &grows, None),
            (Gate::Open, 11, &grows, Some(&full)),
            (Gate::Open, 11, &frees, None),
            (Gate::Joining, 0, &grows, Some(&WriteError::NotJoined)),
            (Gate::Removed, 11, &grows, Some(&WriteError::Removed)),
        ];
        for (gate, used, mutation, refused) in right {
            assert_eq!(admitted(gate, (used, 10), None, mutation, refused), Ok(()));
        }
        let wrong: [(Gate, u64, &Mutation, Option<&WriteError>); 5] = [
            (Gate::Open, 11, &grows, None),
            (Gate::Open, 10, &grows, Some(&full)),
            (Gate::Open, 11, &frees, Some(&full)),
            (Gate::Removed, 0, &frees, None),
            (Gate::Stopped, 0, &grows, Some(&WriteError::NotJoined)),
        ];
        for (gate, used, mutation, refused) in wrong {
            let found = admitted(gate, (used, 10), None, mutation, refused).map_err(|found| found.invariant);
            assert_eq!(found, Err(Invariant::Admission), "{gate:?} {used} {mutation:?} {refused:?}");
        }
    }
}
