//! What happened, as the demo heard it: requests, writes, verdicts of the nodes, pauses; and what must hold of it.
//!
//! # Invariants
//! * Entries are only added, by whoever hears of them first, and each carries the moment it happened.
//! * What is right is computed from what the clients were answered; no code of the library is used for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::{Report, Saw};
use crate::support::protocol::{Contexts, Dot, Stamp};
use crate::world;

/// A client served by nobody for longer has waited too long, in milliseconds.
pub(crate) const GAP_MS_MAX: u64 = 1_000;
/// A client that asks all regions in vain needs about so long, in milliseconds.
const ALL_REGIONS_MS: u64 = 2_500;

/// A request that was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ServedAt {
    pub(crate) at_ms: u64,
    pub(crate) client: usize,
    /// The region the client is near.
    pub(crate) home: usize,
    /// The region that served it.
    pub(crate) by: usize,
}

/// A request that the region it went to did not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FailedAt {
    pub(crate) at_ms: u64,
    pub(crate) home: usize,
    /// No other region answered it either.
    pub(crate) for_good: bool,
}

/// A write that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    pub(crate) at_ms: u64,
    pub(crate) key: String,
    /// Nothing is a delete.
    pub(crate) value: Option<u64>,
    pub(crate) dot: Dot,
    pub(crate) stamp: Stamp,
}

/// A router that sends the clients of a region to another one than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SentTo {
    /// The node the router is in.
    pub(crate) site: usize,
    pub(crate) home: usize,
    /// Nothing while there is nowhere to go.
    pub(crate) to: Option<usize>,
    pub(crate) at_ms: u64,
}

/// A process that stood still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pause {
    /// Nothing is the demo itself, with all paths.
    pub(crate) site: Option<usize>,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

impl Pause {
    /// Returns how long it was, in milliseconds.
    pub(crate) fn ms(&self) -> u64 {
        self.to_ms.saturating_sub(self.from_ms)
    }
}

/// Everything heard.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// What each site saw of the others, in the order in which it was heard.
    pub(crate) saws: Vec<(usize, Saw)>,
    pub(crate) pauses: Vec<Pause>,
    pub(crate) sent: Vec<SentTo>,
    pub(crate) acked: BTreeSet<Dot>,
    pub(crate) writes: Vec<Written>,
    /// Writes whose client was not answered: they happened or not.
    pub(crate) unanswered: BTreeSet<(String, Option<u64>)>,
    /// When each client made its first request.
    pub(crate) came: BTreeMap<usize, u64>,
    pub(crate) served: Vec<ServedAt>,
    pub(crate) failed: Vec<FailedAt>,
    /// When a region told a client that it lacks what that one had written or seen.
    pub(crate) behind: Vec<u64>,
    /// What a session should have held and did not.
    pub(crate) forgotten: Vec<String>,
    /// Lines that are no report. A killed process may leave one, its last.
    pub(crate) unreadable: usize,
}

/// The ledger; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Pages>>);

impl Ledger {
    /// Returns the pages. Not to be held across an await.
    pub(crate) fn open(&self) -> MutexGuard<'_, Pages> {
        // Entries are pushed whole, so a poisoned ledger is a complete one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a node told without being asked.
    pub(crate) fn hear(&self, site: usize, report: Report) {
        let mut pages = self.open();
        match report {
            Report::Saw(saw) => pages.saws.push((site, saw)),
            Report::Acked { dot } => {
                pages.acked.insert(dot);
            }
            Report::Paused { ms, at_ms } => {
                pages.pauses.push(Pause { site: Some(site), from_ms: at_ms.saturating_sub(ms), to_ms: at_ms });
            }
            Report::Sends { home, to, at_ms } => {
                if let Some(home) = world::region(&home) {
                    let to = to.and_then(|name| world::region(&name));
                    pages.sent.push(SentTo { site, home, to, at_ms });
                }
            }
            Report::Answer { .. } => {}
        }
    }
}

/// Writes that are nowhere any more, by how far they had come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lost {
    /// Acknowledged by a quorum. Must be none.
    pub(crate) at_quorum: Vec<Dot>,
    /// Only known where they were made.
    pub(crate) at_local: usize,
}

/// What all nodes show in the end, against what was written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Findings {
    /// Keys at which two nodes show different things.
    pub(crate) diverged: BTreeSet<String>,
    /// Keys that show a value although the last write deleted them.
    pub(crate) resurrected: BTreeSet<String>,
    /// Keys that show another value than the last one written, or none.
    pub(crate) wrong: BTreeSet<String>,
    /// Keys that were compared.
    pub(crate) compared: usize,
}

impl Pages {
    /// Returns the writes of `from_ms..to_ms` that are in nobody's context. `seen` is what all nodes had seen at a moment
    /// after that at which all paths were whole.
    pub(crate) fn lost(&self, (from_ms, to_ms): (u64, u64), seen: &Contexts) -> Lost {
        let mut lost = Lost::default();
        let then = self.writes.iter().filter(|write| (from_ms..to_ms).contains(&write.at_ms));
        for write in then.filter(|write| !seen.has(write.dot)) {
            if self.acked.contains(&write.dot) {
                lost.at_quorum.push(write.dot);
            } else {
                lost.at_local += 1;
            }
        }
        lost
    }

    /// Compares what the nodes show with each other and with the writes that are not lost.
    pub(crate) fn judge(&self, shown: &[BTreeMap<String, u64>], lost: &BTreeSet<Dot>) -> Findings {
        let mut last: BTreeMap<&str, &Written> = BTreeMap::new();
        for write in self.writes.iter().filter(|write| !lost.contains(&write.dot)) {
            let best = last.entry(&write.key).or_insert(write);
            if write.stamp > best.stamp {
                *best = write;
            }
        }
        let mut findings = Findings::default();
        let keys: BTreeSet<&str> =
            shown.iter().flat_map(|cells| cells.keys().map(String::as_str)).chain(last.keys().copied()).collect();
        findings.compared = keys.len();
        for key in keys {
            let values: BTreeSet<Option<u64>> = shown.iter().map(|cells| cells.get(key).copied()).collect();
            if values.len() > 1 {
                findings.diverged.insert(key.to_owned());
            }
            let owed = last.get(key).and_then(|write| write.value);
            let is_wrong = |v: &&Option<u64>| **v != owed && !self.unanswered.contains(&(key.to_owned(), **v));
            match (values.iter().find(is_wrong), owed) {
                (None, _) => {}
                (Some(Some(_)), None) => {
                    findings.resurrected.insert(key.to_owned());
                }
                (Some(_), _) => {
                    findings.wrong.insert(key.to_owned());
                }
            }
        }
        findings
    }

    /// Returns the longest time that each client was served by nobody, from its coming until `end_ms`, less what the demo
    /// itself stood still.
    pub(crate) fn gaps_ms(&self, end_ms: u64) -> BTreeMap<usize, u64> {
        let mut last = self.came.clone();
        let mut gaps: BTreeMap<usize, u64> = BTreeMap::new();
        let mut note = |client: usize, from: u64, to: u64| {
            let own = self.pauses.iter().filter(|pause| pause.site.is_none());
            let gap = to.saturating_sub(from).saturating_sub(union_ms(own, (from, to)));
            let longest = gaps.entry(client).or_default();
            *longest = gap.max(*longest);
        };
        for served in &self.served {
            if let Some(before) = last.insert(served.client, served.at_ms) {
                note(served.client, before, served.at_ms);
            }
        }
        last.iter().for_each(|(client, at)| note(*client, *at, end_ms));
        gaps
    }

    /// Returns the requests that nobody served although the demo, with all paths, did not stand still shortly before.
    pub(crate) fn refused_by_all(&self) -> usize {
        let excuses = |pause: &Pause, at_ms: u64| {
            pause.site.is_none() && (pause.from_ms..=pause.to_ms + ALL_REGIONS_MS).contains(&at_ms)
        };
        let for_good = self.failed.iter().filter(|one| one.for_good);
        for_good.filter(|one| !self.pauses.iter().any(|pause| excuses(pause, one.at_ms))).count()
    }

    /// Returns for how much of a span any process stood still, or the demo.
    pub(crate) fn stood_still_ms(&self, span: (u64, u64)) -> u64 {
        union_ms(self.pauses.iter(), span)
    }
}

/// Returns how much of a span pauses cover.
fn union_ms<'a>(pauses: impl Iterator<Item = &'a Pause>, (from, to): (u64, u64)) -> u64 {
    let mut spans: Vec<(u64, u64)> =
        pauses.map(|pause| (pause.from_ms.max(from), pause.to_ms.min(to))).filter(|span| span.0 < span.1).collect();
    spans.sort_unstable();
    let (mut covered, mut until) = (0, from);
    for (begin, end) in spans {
        covered += end.saturating_sub(begin.max(until));
        until = until.max(end);
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::protocol::Context;

    fn write(seq: u64, key: &str, value: Option<u64>) -> Written {
        let (dot, stamp) = (Dot { partition: 0, replica: 1, seq }, Stamp { hlc: seq << 16, replica: 1 });
        Written { at_ms: seq, key: key.to_owned(), value, dot, stamp }
    }

    fn shows(cells: &[(&str, u64)]) -> BTreeMap<String, u64> {
        cells.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
    }

    fn keys(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn a_write_nobody_has_seen_is_lost_by_how_far_it_had_come() {
        let writes = (1..=4).map(|seq| write(seq, "k", Some(seq))).collect();
        let mut pages = Pages { writes, ..Pages::default() };
        pages.acked.insert(Dot { partition: 0, replica: 1, seq: 3 });
        let mut seen = Context::default();
        seen.add(1, (1, 1));
        let seen = Contexts(BTreeMap::from([(0, seen)]));
        let lost = pages.lost((1, 4), &seen);
        assert_eq!((lost.at_quorum.len(), lost.at_local), (1, 1), "the fourth came later");
        assert_eq!(pages.lost((1, 2), &seen), Lost::default());
    }

    #[test]
    fn every_node_must_show_the_last_write() {
        let writes = vec![write(1, "a", Some(1)), write(3, "a", Some(3)), write(2, "a", Some(2)), write(4, "b", None)];
        let pages = Pages { writes, ..Pages::default() };
        let none = BTreeSet::new();
        let good = pages.judge(&[shows(&[("a", 3)]), shows(&[("a", 3)])], &none);
        assert_eq!(good, Findings { compared: 2, ..Findings::default() });
        let bad = pages.judge(&[shows(&[("a", 3), ("b", 9)]), shows(&[("a", 2)])], &none);
        assert_eq!((bad.diverged, bad.resurrected, bad.wrong), (keys(&["a", "b"]), keys(&["b"]), keys(&["a"])));
        let missing = pages.judge(&[shows(&[])], &none);
        assert_eq!(missing.wrong, keys(&["a"]));
        let lost = BTreeSet::from([Dot { partition: 0, replica: 1, seq: 3 }]);
        assert_eq!(pages.judge(&[shows(&[("a", 2)])], &lost).wrong, keys(&[]), "a lost write is owed by nobody");
    }

    #[test]
    fn what_no_client_was_answered_may_have_happened_or_not() {
        let mut pages = Pages { writes: vec![write(1, "a", Some(1))], ..Pages::default() };
        pages.unanswered.insert(("a".to_owned(), None));
        for shown in [shows(&[("a", 1)]), shows(&[])] {
            assert_eq!(pages.judge(&[shown], &BTreeSet::new()).wrong, keys(&[]));
        }
        assert_eq!(pages.judge(&[shows(&[("a", 7)])], &BTreeSet::new()).wrong, keys(&["a"]));
    }

    #[test]
    fn a_gap_does_not_count_while_the_demo_itself_stood_still() {
        let served = |client, at_ms| ServedAt { at_ms, client, home: 0, by: 0 };
        let served = vec![served(1, 1_000), served(2, 1_100), served(1, 1_400), served(2, 3_000)];
        let mut pages = Pages { served, ..Pages::default() };
        assert_eq!(pages.gaps_ms(3_100), BTreeMap::from([(1, 1_700), (2, 1_900)]));
        pages.pauses.push(Pause { site: None, from_ms: 2_000, to_ms: 2_900 });
        pages.pauses.push(Pause { site: Some(3), from_ms: 1_500, to_ms: 2_900 });
        assert_eq!(pages.gaps_ms(3_100), BTreeMap::from([(1, 800), (2, 1_000)]));
    }

    #[test]
    fn a_client_that_nobody_ever_served_has_waited_since_it_came() {
        let served = vec![ServedAt { at_ms: 1_400, client: 1, home: 0, by: 0 }];
        let pages = Pages { served, came: BTreeMap::from([(1, 900), (2, 1_000)]), ..Pages::default() };
        assert_eq!(pages.gaps_ms(3_100), BTreeMap::from([(1, 1_700), (2, 2_100)]));
    }

    #[test]
    fn a_request_that_nobody_served_counts_unless_the_demo_had_stood_still() {
        let failed = |at_ms, for_good| FailedAt { at_ms, home: 0, for_good };
        let mut pages = Pages { failed: vec![failed(5_000, false), failed(6_000, true)], ..Pages::default() };
        assert_eq!(pages.refused_by_all(), 1);
        pages.pauses.push(Pause { site: Some(0), from_ms: 4_000, to_ms: 4_500 });
        assert_eq!(pages.refused_by_all(), 1);
        pages.pauses.push(Pause { site: None, from_ms: 4_000, to_ms: 4_500 });
        assert_eq!(pages.refused_by_all(), 0);
    }

    #[test]
    fn what_several_stood_still_at_the_same_time_counts_once() {
        let pause = |site, from_ms, to_ms| Pause { site, from_ms, to_ms };
        let pauses = vec![pause(Some(1), 500, 1_100), pause(None, 1_500, 1_700), pause(Some(2), 1_600, 1_800)];
        let pages = Pages { pauses, ..Pages::default() };
        assert_eq!((pages.stood_still_ms((1_000, 2_000)), pages.stood_still_ms((1_750, 1_760))), (400, 10));
    }
}
