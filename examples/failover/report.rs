//! What the run came to: the figures, and how they are written as JSON; `table.rs` shows them.
//!
//! # Invariants
//! * Both are made from [`Figures`] and nothing else, so they cannot disagree.
//! * A figure that was not measured, or that there is not, is shown as `-` and written as `null`, never as 0.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::DemoArgs;
use crate::alarms::{Alarms, alarms, undue_ms};
use crate::counters::Repaired;
use crate::duty::unfulfilled;
use crate::incident::{Incident, Kind};
use crate::ledger::{Findings, GAP_MS_MAX, Lost, Pages};
use crate::support::protocol::Histogram;
use crate::support::wall_ms;
use crate::world::World;
pub(crate) use table::table;

/// Reasons listed in the JSON; a broken run can have one per write.
const REASONS_MAX: usize = 20;

/// What is said of a run in which all is as it must be.
const CLEAN: &str = "clean";

/// What one incident came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) region: usize,
    pub(crate) healed_ms: u64,
    pub(crate) detect_ms: Option<u64>,
    pub(crate) agree_ms: Option<u64>,
    /// Of each client of the region, sorted.
    pub(crate) reroutes_ms: Vec<u64>,
    /// When the last router had stopped sending the region's clients there.
    pub(crate) routed_ms: Option<u64>,
    /// When who was cut off had said so.
    pub(crate) cut_off_ms: Option<u64>,
    /// When each of two twins was told.
    pub(crate) older_told_ms: Option<u64>,
    pub(crate) newer_told_ms: Option<u64>,
    pub(crate) served: usize,
    pub(crate) failed: usize,
    pub(crate) unserved: usize,
    /// Sessions that a region told it lacks something of.
    pub(crate) behind: usize,
    pub(crate) lost: Lost,
    pub(crate) converge: Option<Duration>,
    /// Copies found equal after it, of so many.
    pub(crate) compared: Option<(usize, usize)>,
    /// From its beginning until all copies had been compared.
    pub(crate) repaired: Repaired,
}

impl Outcome {
    /// Computes what the ledger knows of an incident; losses and repair are filled in by who asks the nodes.
    pub(crate) fn new(incident: &Incident, pages: &Pages, (healed_ms, converge): (u64, Option<Duration>)) -> Self {
        let during = |at_ms: u64| (incident.from_ms..=incident.until_ms).contains(&at_ms);
        let failed = || pages.failed.iter().filter(|one| during(one.at_ms));
        let (older_told_ms, newer_told_ms) = incident.twins_told(&pages.saws);
        Self {
            name: incident.kind.name(),
            region: incident.region,
            healed_ms,
            detect_ms: incident.detected(&pages.saws).map(|(ms, _)| ms),
            agree_ms: incident.agreed(&pages.saws),
            reroutes_ms: incident.rerouted(&pages.served),
            routed_ms: incident.routed_around(&pages.sent),
            cut_off_ms: incident.cut_off(&pages.saws),
            older_told_ms,
            newer_told_ms,
            served: pages.served.iter().filter(|one| during(one.at_ms)).count(),
            failed: failed().count(),
            unserved: failed().filter(|one| one.for_good).count(),
            behind: pages.behind.iter().filter(|at_ms| during(**at_ms)).count(),
            lost: Lost::default(),
            converge,
            compared: None,
            repaired: Repaired::default(),
        }
    }
}

/// Everything measured in a run; what was not reached is missing.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) seed: u64,
    /// Whether it is judged how long things took.
    timed: bool,
    pub(crate) loss: f64,
    pub(crate) world: World,
    pub(crate) join: Option<Duration>,
    /// When the nodes were started, and when clients came and went.
    pub(crate) began_ms: u64,
    pub(crate) opened_ms: u64,
    pub(crate) closed_ms: Option<u64>,
    /// Which site each node's identity belongs to.
    pub(crate) sites: BTreeMap<String, usize>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) outcomes: Vec<Outcome>,
    /// Writes that were lost after the last incident.
    pub(crate) lost_after: Lost,
    /// What repair counted in the whole run.
    pub(crate) repaired: Repaired,
    pub(crate) findings: Option<Findings>,
    pub(crate) alarms: Alarms,
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    pub(crate) unserved: usize,
    pub(crate) longest_gap_ms: Option<u64>,
    pub(crate) longest_pause_ms: u64,
    complaints: Vec<String>,
}

impl Figures {
    pub(crate) fn new(args: &DemoArgs) -> Self {
        Self {
            seed: args.seed,
            timed: !args.short,
            loss: args.loss,
            world: args.world(),
            join: None,
            began_ms: 0,
            opened_ms: 0,
            closed_ms: None,
            sites: BTreeMap::new(),
            incidents: Vec::new(),
            outcomes: Vec::new(),
            lost_after: Lost::default(),
            repaired: Repaired::default(),
            findings: None,
            alarms: Alarms::default(),
            requests: 0,
            failed: 0,
            unserved: 0,
            longest_gap_ms: None,
            longest_pause_ms: 0,
            complaints: Vec::new(),
        }
    }

    /// Notes that something did not happen which must.
    pub(crate) fn complain_unless(&mut self, good: bool, what: &str) {
        if !good {
            self.complaints.push(what.to_owned());
        }
    }

    /// Notes what an incident came to, and what of it is not as it must be.
    pub(crate) fn note(&mut self, incident: &Incident, outcome: Outcome, pages: &Pages) {
        self.complaints.extend(unfulfilled(incident, &outcome, pages, self.timed));
        self.outcomes.push(outcome);
    }

    /// Computes what only the end of the run shows, and notes what is not as it must be.
    pub(crate) fn conclude(&mut self, pages: &Pages) {
        // When nodes end because the run does, the others notice, too.
        let closed_ms = self.closed_ms.unwrap_or(u64::MAX);
        let until = pages.saws.iter().filter(|(_, saw)| saw.at_ms <= closed_ms).cloned().collect::<Vec<_>>();
        self.alarms = alarms(&until, &pages.pauses, &self.incidents, &self.sites);
        self.requests = pages.served.len();
        self.failed = pages.failed.len();
        self.unserved = pages.failed.iter().filter(|one| one.for_good).count();
        self.longest_pause_ms = pages.pauses.iter().map(|pause| undue_ms(pause, &self.incidents)).max().unwrap_or(0);
        let gaps = pages.gaps_ms(self.closed_ms.unwrap_or_else(wall_ms));
        self.longest_gap_ms = gaps.values().max().copied();
        let counted = |n: usize, what: &str| (n > 0).then(|| format!("{n} {what}"));
        let hungry = gaps.values().filter(|gap| **gap > GAP_MS_MAX).count();
        let forgotten = pages.forgotten.first().map(|first| format!("a session was forgotten: {first}"));
        let Repaired { differences, keys, .. } = self.repaired;
        let repaired = (differences + keys > 0).then(|| {
            format!("repair found {differences} differences and gave back {keys} keys though nothing was lost")
        });
        let findings = self.findings.clone().unwrap_or_default();
        let wrong = [
            counted(findings.diverged.len(), "keys diverged"),
            counted(findings.resurrected.len(), "keys resurrected"),
            counted(findings.wrong.len(), "keys show what they must not"),
            counted(self.lost_at_quorum(), "writes lost although a quorum had them"),
            repaired,
            counted(self.alarms.false_ones.len(), "false alarms"),
            counted(pages.refused_by_all(), "requests were served by nobody"),
            counted(hungry, "clients were served by nobody for more than a second"),
            counted(pages.unreadable.saturating_sub(self.kills()), "lines that are no reports"),
            forgotten,
        ];
        self.complaints.extend(wrong.into_iter().flatten());
    }

    /// Each process that is killed may leave half a line.
    fn kills(&self) -> usize {
        self.incidents.iter().map(|incident| incident.targets.len()).sum()
    }

    pub(super) fn lost_at_quorum(&self) -> usize {
        self.outcomes.iter().map(|outcome| outcome.lost.at_quorum.len()).sum::<usize>()
            + self.lost_after.at_quorum.len()
    }

    /// Tells whether all is as it must be.
    pub(crate) fn is_good(&self) -> bool {
        self.verdict() == CLEAN
    }

    pub(super) fn verdict(&self) -> String {
        match (self.complaints.is_empty(), &self.findings) {
            (true, Some(_)) => CLEAN.to_owned(),
            (true, None) => "nothing was judged".to_owned(),
            (false, _) => self.complaints.join(", "),
        }
    }

    /// Returns how long each client of a region that failed at once for all of them took to be served elsewhere.
    pub(super) fn reroutes(&self) -> Histogram {
        let mut all = Histogram::default();
        let failed = [Kind::Cut, Kind::Kill].map(Kind::name);
        let sudden = self.outcomes.iter().filter(|outcome| failed.contains(&outcome.name));
        sudden.flat_map(|outcome| &outcome.reroutes_ms).for_each(|ms| all.add(*ms, 1));
        all
    }
}

fn ms(duration: Option<Duration>) -> Option<f64> {
    duration.map(|d| (d.as_secs_f64() * 10_000.0).round() / 10.0)
}

/// Returns the figures as JSON; the keys are documented in `examples/README.md`.
pub(crate) fn json(figures: &Figures) -> Value {
    let findings = figures.findings.as_ref();
    let events: Vec<Value> = figures.outcomes.iter().map(|outcome| event(figures, outcome)).collect();
    let reroutes = figures.reroutes();
    let first = |keys: &std::collections::BTreeSet<String>| keys.iter().take(REASONS_MAX).cloned().collect::<Vec<_>>();
    let alarms: Vec<String> = figures.alarms.false_ones.iter().take(REASONS_MAX).map(|a| format!("{a:?}")).collect();
    json!({
        "verdict": figures.verdict(),
        "events": events,
        "false_alarms": figures.alarms.false_ones.len(),
        "reroute_ms": { "p50": reroutes.quantile(50), "p99": reroutes.quantile(99) },
        "diverged_keys": findings.map(|f| f.diverged.len()),
        "resurrected_keys": findings.map(|f| f.resurrected.len()),
        "wrong_keys": findings.map(|f| f.wrong.len()),
        "compared_keys": findings.map(|f| f.compared),
        "requests": figures.requests,
        "failed_requests": figures.failed,
        "unserved_requests": figures.unserved,
        "differences": figures.repaired.differences,
        "repaired": figures.repaired.keys,
        "repair_bytes": figures.repaired.bytes,
        "client_gap_ms_max": figures.longest_gap_ms,
        "suspicions": figures.alarms.suspicions,
        "alarms_of_pauses": figures.alarms.of_pauses,
        "longest_pause_ms": figures.longest_pause_ms,
        "join_ms": ms(figures.join),
        "nodes_per_region": figures.world.nodes,
        "loss_percent": figures.loss,
        "seed": figures.seed,
        "what_went_wrong": {
            "diverged": findings.map(|f| first(&f.diverged)),
            "resurrected": findings.map(|f| first(&f.resurrected)),
            "wrong": findings.map(|f| first(&f.wrong)),
            "false_alarms": alarms,
        },
    })
}

fn event(figures: &Figures, outcome: &Outcome) -> Value {
    json!({
        "name": outcome.name,
        "region": crate::world::name(outcome.region),
        "healed_ms": outcome.healed_ms.saturating_sub(figures.opened_ms),
        "detect_ms": outcome.detect_ms,
        "agree_ms": outcome.agree_ms,
        "reroute_ms": outcome.reroutes_ms.first(),
        "reroute_last_ms": outcome.reroutes_ms.last(),
        "routed_around_ms": outcome.routed_ms,
        "cut_off_told_ms": outcome.cut_off_ms,
        "older_told_ms": outcome.older_told_ms,
        "newer_told_ms": outcome.newer_told_ms,
        "requests": outcome.served,
        "failed_requests": outcome.failed,
        "unserved_requests": outcome.unserved,
        "sessions_behind": outcome.behind,
        "lost_at_quorum": outcome.lost.at_quorum.len(),
        "lost_at_local": outcome.lost.at_local,
        "converge_ms": ms(outcome.converge),
        "compared_copies": outcome.compared.map(|(_, of)| of),
        "equal_copies": outcome.compared.map(|(equal, _)| equal),
        "differences": outcome.repaired.differences,
        "repaired": outcome.repaired.keys,
        "repair_bytes": outcome.repaired.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::ServedAt;
    use clap::Parser;

    fn outcome(name: &'static str, reroutes_ms: Vec<u64>) -> Outcome {
        Outcome {
            name,
            region: 3,
            healed_ms: 9_000,
            detect_ms: Some(512),
            agree_ms: Some(640),
            reroutes_ms,
            routed_ms: Some(630),
            cut_off_ms: Some(520),
            older_told_ms: None,
            newer_told_ms: None,
            served: 1_000,
            failed: 12,
            unserved: 0,
            behind: 1,
            lost: Lost::default(),
            converge: Some(Duration::from_micros(123_456)),
            compared: Some((40, 40)),
            repaired: Repaired::default(),
        }
    }

    fn figures() -> Figures {
        let args = crate::Cli::parse_from(["failover"]).demo;
        let outcomes = vec![outcome("cut", vec![600, 650, 700]), outcome("isolation", Vec::new())];
        Figures { outcomes, findings: Some(Findings::default()), ..Figures::new(&args) }
    }

    #[test]
    fn the_json_has_every_promised_key_and_what_there_is_not_is_null() {
        let report = json(&figures());
        for key in ["events", "false_alarms", "reroute_ms", "diverged_keys", "resurrected_keys"] {
            assert!(report.get(key).is_some(), "{key}");
        }
        for key in [
            "name",
            "detect_ms",
            "agree_ms",
            "reroute_ms",
            "failed_requests",
            "lost_at_quorum",
            "lost_at_local",
            "converge_ms",
            "repaired",
            "repair_bytes",
        ] {
            assert!(report["events"][0].get(key).is_some(), "{key}");
        }
        assert_eq!((&report["events"][0]["reroute_ms"], &report["reroute_ms"]["p99"]), (&json!(600), &json!(700)));
        assert_eq!((&report["events"][1]["reroute_ms"], &report["join_ms"]), (&Value::Null, &Value::Null));
        assert_eq!(report["events"][0]["converge_ms"], 123.5);
    }

    #[test]
    fn each_violation_is_part_of_the_verdict() {
        let mut good = figures();
        good.conclude(&Pages::default());
        assert!(good.is_good() && table(&good).unwrap().contains("verdict    clean"));
        let mut bad = figures();
        bad.findings.as_mut().unwrap().diverged.insert("k".to_owned());
        let served = |at_ms| ServedAt { at_ms, client: 1, home: 0, by: 0 };
        bad.closed_ms = Some(3_000);
        bad.conclude(&Pages { served: vec![served(1_000), served(2_500)], ..Pages::default() });
        assert_eq!(bad.verdict(), "1 keys diverged, 1 clients were served by nobody for more than a second");
        let repaired = Repaired { differences: 2, keys: 1, bytes: 90 };
        let mut mended = Figures { repaired, ..figures() };
        mended.conclude(&Pages::default());
        assert_eq!(mended.verdict(), "repair found 2 differences and gave back 1 keys though nothing was lost");
        let mut early = Figures { findings: None, ..figures() };
        assert!(!early.is_good());
        early.complain_unless(false, "interrupted");
        early.conclude(&Pages::default());
        assert_eq!(
            (json(&early)["verdict"].as_str(), &json(&early)["diverged_keys"]),
            (Some("interrupted"), &Value::Null)
        );
    }

    #[test]
    fn no_line_of_the_table_is_wider_than_eighty_columns() {
        let text = table(&figures()).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
