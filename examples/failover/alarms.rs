//! Verdicts that nothing explains: about who is well, or by who has no right to one.
//!
//! # Invariants
//! * A verdict about who is not concerned is a false alarm, also while something else is going on.
//! * Who is cut off may say so, and nothing of the others: it cannot tell which side is.
//! * What the demo has told a process to do excuses nobody.

use std::collections::{BTreeMap, BTreeSet};

use crate::incident::{Incident, Kind, STOPPED_MS};
use crate::ledger::Pause;
use crate::protocol::{Saw, What};

/// A silence may be noticed and told so long after the pause that caused it, in milliseconds.
const ECHO_MS: u64 = 2_500;
/// A pause that makes a silence: three beats, so that one of five may follow.
const SILENT_MS: u64 = 300;
/// The same where the demo had stopped the process for 250 ms of it: so much that it takes the machine's part, too, to make
/// the silence that is suspected, 500 ms, with a beat before it.
const SILENT_MS_IF_STOPPED: u64 = 400;

/// Verdicts that nothing explains.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Alarms {
    /// What was said, by whom, when.
    pub(crate) false_ones: Vec<(usize, Saw)>,
    /// The same, where one concerned or the demo itself stood still: then there was silence indeed.
    pub(crate) of_pauses: usize,
    /// Suspicions that nothing explains. They are no alarms: nobody acts on one alone but to ask others first.
    pub(crate) suspicions: usize,
}

/// Returns the verdicts that none of the incidents explains.
pub(crate) fn alarms(
    saws: &[(usize, Saw)],
    pauses: &[Pause],
    incidents: &[Incident],
    sites: &BTreeMap<String, usize>,
) -> Alarms {
    let mut alarms = Alarms::default();
    let silences: Vec<&Pause> = pauses.iter().filter(|pause| is_silence(pause, incidents)).collect();
    for heard in saws {
        let is_alarm = match heard.1.what {
            What::Unreachable | What::LinkDown | What::Isolated | What::Fenced => true,
            What::Suspect => false,
            What::Up | What::NotIsolated | What::MemberJoined | What::MemberRemoved | What::Twin => continue,
        };
        if incidents.iter().any(|incident| incident.explains(heard)) {
            continue;
        }
        let about = heard.1.node.as_ref().and_then(|node| sites.get(node)).copied();
        let at = heard.1.at_ms;
        let paused = silences.iter().any(|pause| {
            let concerned = pause.site.is_none_or(|site| site == heard.0 || Some(site) == about);
            concerned && (pause.from_ms..=pause.to_ms + ECHO_MS).contains(&at)
        });
        match (is_alarm, paused) {
            (false, _) => alarms.suspicions += 1,
            (true, true) => alarms.of_pauses += 1,
            (true, false) => alarms.false_ones.push(heard.clone()),
        }
    }
    alarms
}

/// Returns for how long a process stood still without having been told to, in milliseconds.
pub(crate) fn undue_ms(pause: &Pause, incidents: &[Incident]) -> u64 {
    let told = incidents.iter().map(|incident| incident.told_to_stop_ms(pause)).max();
    pause.ms().saturating_sub(told.unwrap_or(0))
}

fn is_silence(pause: &Pause, incidents: &[Incident]) -> bool {
    let was_told = incidents.iter().any(|incident| incident.told_to_stop_ms(pause) > 0);
    pause.ms() >= if was_told { SILENT_MS_IF_STOPPED } else { SILENT_MS }
}

impl Incident {
    /// Returns for how much of a pause the demo had stopped the process.
    fn told_to_stop_ms(&self, pause: &Pause) -> u64 {
        let meanwhile = pause.to_ms >= self.from_ms && pause.from_ms <= self.until_ms;
        let is_target = pause.site.is_some_and(|site| self.targets.contains(&site));
        if self.kind == Kind::SlowRegion && meanwhile && is_target { STOPPED_MS } else { 0 }
    }

    /// Tells whether a verdict is to be expected of who had it.
    fn explains(&self, (site, saw): &(usize, Saw)) -> bool {
        let in_time = (self.from_ms..=self.until_ms).contains(&saw.at_ms);
        let by_target = self.targets.contains(site);
        let by_witness = self.witnesses.contains(site);
        let about = |sites: &BTreeSet<usize>| self.about(saw).is_some_and(|it| sites.contains(&it));
        let (of_target, of_witness) = (about(&self.targets), about(&self.witnesses));
        let no_link = saw.what == What::LinkDown || saw.what == What::Suspect;
        in_time
            && match self.kind {
                Kind::SlowRegion => false,
                Kind::OneWayCut => no_link && ((by_witness && of_target) || (by_target && of_witness)),
                Kind::Cut | Kind::Isolation if by_target => self.may_say_cut_off(saw, of_witness),
                Kind::Cut | Kind::Isolation => of_target,
                // Who has just been started has not yet a link to everybody, and hears others that have.
                Kind::Kill | Kind::Restart => of_target || (by_target && no_link),
                Kind::ClonedIdentity => {
                    let begins = by_target || self.newcomer == Some(*site);
                    of_target || (begins && no_link) || (by_target && saw.what == What::Fenced)
                }
            }
    }

    /// Tells whether one that is cut off from all but its companions may say something. Alone it is isolated and declares
    /// nobody, until it hears one that hears the others.
    fn may_say_cut_off(&self, saw: &Saw, of_witness: bool) -> bool {
        match saw.what {
            What::Isolated => self.is_alone(),
            What::Unreachable => of_witness && !self.is_alone(),
            What::LinkDown => of_witness && saw.at_ms >= self.healing_ms,
            What::Suspect => of_witness,
            What::Fenced | What::Up | What::NotIsolated | What::MemberJoined | What::MemberRemoved | What::Twin => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::tests::{incident, saw};

    /// Returns how many of the verdicts are false alarms, and how many are excused.
    fn judge(saws: &[(usize, Saw)], pauses: &[Pause], incident: &Incident) -> (usize, usize) {
        let found = alarms(saws, pauses, std::slice::from_ref(incident), &incident.sites);
        (found.false_ones.len(), found.of_pauses)
    }

    #[test]
    fn a_verdict_that_nothing_explains_is_a_false_alarm_unless_there_was_silence() {
        let slow = incident(Kind::SlowRegion, &[3], &[0, 1, 2]);
        let saws = [
            saw(0, What::Unreachable, Some(3), 2_000),
            saw(1, What::Suspect, Some(3), 2_000),
            saw(2, What::Unreachable, Some(1), 5_000),
            saw(0, What::Up, Some(1), 5_100),
        ];
        let pauses = [Pause { site: Some(1), from_ms: 4_000, to_ms: 4_700 }];
        let found = alarms(&saws, &pauses, std::slice::from_ref(&slow), &slow.sites);
        assert_eq!(found, Alarms { false_ones: saws[..1].to_vec(), of_pauses: 1, suspicions: 1 });
        let kill = incident(Kind::Kill, &[3], &[0, 1, 2]);
        assert_eq!(alarms(&saws[..2], &[], std::slice::from_ref(&kill), &kill.sites), Alarms::default());
    }

    #[test]
    fn a_stop_that_the_demo_has_made_excuses_nobody_unless_the_machine_made_it_longer() {
        let slow = incident(Kind::SlowRegion, &[3], &[0, 1, 2]);
        let saws = [saw(0, What::Unreachable, Some(3), 2_500)];
        let pause = |site, ms: u64| [Pause { site: Some(site), from_ms: 2_000, to_ms: 2_000 + ms }];
        assert_eq!(judge(&saws, &pause(3, 310), &slow), (1, 0));
        assert_eq!(judge(&saws, &pause(3, 400), &slow), (0, 1));
        assert_eq!(judge(&saws, &pause(0, 310), &slow), (0, 1), "nobody had stopped that one");
        let of = std::slice::from_ref(&slow);
        assert_eq!((undue_ms(&pause(3, 310)[0], of), undue_ms(&pause(0, 310)[0], of)), (60, 310));
        assert_eq!(undue_ms(&pause(3, 200)[0], of), 0);
    }

    #[test]
    fn who_is_cut_off_alone_declares_nobody_until_it_hears_who_hears_the_others() {
        let cut = incident(Kind::Cut, &[3], &[0, 1]);
        let good = [saw(3, What::Suspect, Some(0), 1_500), saw(3, What::Isolated, None, 1_520)];
        assert_eq!(judge(&good, &[], &cut), (0, 0));
        for what in [What::Unreachable, What::LinkDown] {
            assert_eq!(judge(&[saw(3, what, Some(0), 2_000)], &[], &cut), (1, 0), "{what:?}");
        }
        assert_eq!(judge(&[saw(3, What::LinkDown, Some(0), 6_100)], &[], &cut), (0, 0));
        assert_eq!(judge(&[saw(3, What::Unreachable, Some(0), 6_100)], &[], &cut), (1, 0));
        let region = incident(Kind::Cut, &[3, 4], &[0, 1]);
        let said = |what, about| judge(&[saw(3, what, about, 2_000)], &[], &region);
        assert_eq!(said(What::Unreachable, Some(0)), (0, 0), "its companion agrees");
        assert_eq!((said(What::Unreachable, Some(4)), said(What::Isolated, None)), ((1, 0), (1, 0)));
    }

    #[test]
    fn of_each_incident_only_what_its_processes_can_know_is_expected() {
        let one_way = incident(Kind::OneWayCut, &[3], &[1]);
        let said = |incident: &Incident, site, what, about| judge(&[saw(site, what, about, 2_000)], &[], incident).0;
        assert_eq!(said(&one_way, 1, What::LinkDown, Some(3)), 0);
        assert_eq!(said(&one_way, 3, What::LinkDown, Some(1)), 0);
        assert_eq!(said(&one_way, 1, What::Unreachable, Some(3)), 1, "all others hear it");
        assert_eq!(said(&one_way, 0, What::LinkDown, Some(3)), 1);
        let kill = incident(Kind::Kill, &[3], &[0, 1]);
        assert_eq!(said(&kill, 3, What::LinkDown, Some(1)), 0, "it has only just begun");
        assert_eq!(said(&kill, 3, What::Unreachable, Some(1)), 1);
        assert_eq!((said(&kill, 0, What::Unreachable, Some(3)), said(&kill, 0, What::Unreachable, Some(1))), (0, 1));
        let clone = Incident { newcomer: Some(5), ..incident(Kind::ClonedIdentity, &[3], &[0, 1]) };
        assert_eq!((said(&clone, 3, What::Fenced, None), said(&clone, 5, What::Fenced, None)), (0, 1));
    }
}
