//! What an incident owes: who must have noticed, how soon, where clients must go, and that all copies are compared after it.
//!
//! # Invariants
//! * What is owed is judged by figures that are reported, too.
//! * A time is late only by more than the machine stood still meanwhile.

use crate::incident::{Incident, Kind};
use crate::ledger::Pages;
use crate::report::Outcome;

/// Returns what did not happen in time, or not at all. Times are judged if `timed`.
pub(crate) fn unfulfilled(incident: &Incident, outcome: &Outcome, pages: &Pages, timed: bool) -> Vec<String> {
    let (kind, name) = (incident.kind, incident.kind.name());
    let missing = [
        (outcome.converge.is_none(), "did not converge after"),
        (kind.is_to_be_noticed() && outcome.agree_ms.is_none(), "not all whom it concerned noticed"),
        (kind.cuts_off() && outcome.cut_off_ms.is_none(), "who was cut off did not say so in"),
        (kind.is_to_be_routed_around() && outcome.routed_ms.is_none(), "not all routers turned away in"),
        (
            kind == Kind::ClonedIdentity && outcome.newer_told_ms.is_none(),
            "the newer process was not told that there is another in",
        ),
        (outcome.compared.is_none_or(|(equal, of)| of == 0 || equal < of), "not all copies were found equal after"),
    ];
    let mut all: Vec<String> =
        missing.iter().filter(|(is_missing, _)| *is_missing).map(|(_, what)| format!("{what} {name}")).collect();
    if let Some(bound_ms) = kind.in_time_ms().filter(|_| timed) {
        for (took, what) in [(outcome.agree_ms, "all agreed on"), (outcome.routed_ms, "all routers turned away in")] {
            if let Some(took_ms) =
                took.filter(|took_ms| *took_ms > bound_ms + stood_still_ms(incident, pages, *took_ms))
            {
                all.push(format!("{took_ms} ms until {what} {name}"));
            }
        }
    }
    all
}

fn stood_still_ms(incident: &Incident, pages: &Pages, took_ms: u64) -> u64 {
    pages.stood_still_ms((incident.quiet_ms, incident.quiet_ms.saturating_add(took_ms)))
}
