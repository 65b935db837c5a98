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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::tests::{incident, saw};
    use crate::ledger::{Pause, SentTo};
    use crate::protocol::What;
    use std::time::Duration;

    fn outcome(incident: &Incident, pages: &Pages) -> Outcome {
        let healed = (6_000, Some(Duration::from_millis(300)));
        Outcome { compared: Some((40, 40)), ..Outcome::new(incident, pages, healed) }
    }

    fn cut_agreed_at(at_ms: u64) -> Pages {
        let isolated = saw(3, What::Isolated, None, 1_520);
        Pages {
            saws: vec![isolated, saw(0, What::Unreachable, Some(3), at_ms)],
            sent: vec![SentTo { site: 0, home: 3, to: Some(1), at_ms: 1_600 }],
            ..Pages::default()
        }
    }

    #[test]
    fn what_nobody_said_and_what_nobody_did_is_owed() {
        let cut = incident(Kind::Cut, &[3], &[0]);
        let all = cut_agreed_at(1_700);
        assert!(unfulfilled(&cut, &outcome(&cut, &all), &all, true).is_empty());
        let none = Pages::default();
        let owed = unfulfilled(&cut, &outcome(&cut, &none), &none, true);
        let expected = [
            "not all whom it concerned noticed cut",
            "who was cut off did not say so in cut",
            "not all routers turned away in cut",
        ];
        assert_eq!(owed, expected);
        for compared in [None, Some((0, 0)), Some((39, 40))] {
            let outcome = Outcome { compared, ..outcome(&cut, &all) };
            assert_eq!(unfulfilled(&cut, &outcome, &all, true), ["not all copies were found equal after cut"]);
        }
    }

    #[test]
    fn both_twins_are_to_be_told() {
        let clone = Incident { newcomer: Some(5), ..incident(Kind::ClonedIdentity, &[3], &[0]) };
        let removed =
            |site| (site, crate::protocol::Saw { node: None, ..saw(site, What::MemberRemoved, Some(3), 1_200).1 });
        let mut pages = Pages { saws: vec![removed(0), saw(3, What::Fenced, None, 1_300)], ..Pages::default() };
        let owed = |pages: &Pages| unfulfilled(&clone, &outcome(&clone, pages), pages, true);
        assert_eq!(owed(&pages), ["the newer process was not told that there is another in cloned_identity"]);
        pages.saws.push(saw(5, What::Twin, None, 1_400));
        assert!(owed(&pages).is_empty());
    }

    #[test]
    fn what_took_too_long_is_owed_unless_the_machine_stood_still_for_as_long() {
        let cut = incident(Kind::Cut, &[3], &[0]);
        let mut pages = cut_agreed_at(2_200);
        let owed = |pages: &Pages, timed| unfulfilled(&cut, &outcome(&cut, pages), pages, timed);
        assert_eq!(owed(&pages, true), ["1200 ms until all agreed on cut"]);
        assert!(owed(&pages, false).is_empty());
        pages.pauses.push(Pause { site: Some(0), from_ms: 1_500, to_ms: 1_650 });
        assert_eq!(owed(&pages, true).len(), 1);
        pages.pauses.push(Pause { site: None, from_ms: 1_600, to_ms: 1_710 });
        assert!(owed(&pages, true).is_empty());
    }
}
