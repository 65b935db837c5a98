//! What the run came to: the figures, and how they are written as JSON; `table.rs` shows them.
//!
//! # Invariants
//! * Both are made from [`Figures`] and nothing else, so they cannot disagree.
//! * A figure that was not measured is shown as `-` and written as `null`, never as 0.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::oracle::{Findings, Place};
use crate::support::protocol::{Histogram, Record, Stats};
use crate::support::topology::{REGIONS, one_way};
use crate::{DemoArgs, Network};
pub(crate) use table::table;

/// Reasons listed in the JSON; a broken run can have one per write.
const REASONS_MAX: usize = 20;

/// One region in the steady phase.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    pub(crate) writes: u64,
    /// Sent into both of its links, headers included.
    pub(crate) bytes: Option<u64>,
    /// Per region of origin.
    pub(crate) lag: BTreeMap<String, Histogram>,
}

/// Everything measured in a run; what was not reached is missing.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) network: Network,
    pub(crate) loss: f64,
    pub(crate) seed: u64,
    pub(crate) cut_s: f64,
    pub(crate) join: Option<Duration>,
    pub(crate) steady_took: Option<Duration>,
    pub(crate) steady: Vec<Steady>,
    pub(crate) heal: Option<Duration>,
    pub(crate) restart: Option<Duration>,
    pub(crate) drain: Option<Duration>,
    /// Per region, over all its processes and the whole run.
    pub(crate) stats: Vec<Stats>,
    pub(crate) writes: Vec<u64>,
    pub(crate) refused: Vec<String>,
    /// Visible values that were compared.
    pub(crate) compared: Option<usize>,
    /// Missing when the run did not come so far.
    pub(crate) findings: Option<Findings>,
    complaints: Vec<String>,
}

impl Figures {
    pub(crate) fn new(args: &DemoArgs) -> Self {
        Self {
            network: args.wan,
            loss: args.loss,
            seed: args.seed,
            cut_s: 0.0,
            join: None,
            steady_took: None,
            steady: Vec::new(),
            heal: None,
            restart: None,
            drain: None,
            stats: vec![Stats::default(); REGIONS.len()],
            writes: Vec::new(),
            refused: Vec::new(),
            compared: None,
            findings: None,
            complaints: Vec::new(),
        }
    }

    /// Notes that something did not happen which must.
    pub(crate) fn complain_unless(&mut self, good: bool, what: &str) {
        if !good {
            self.complaints.push(what.to_owned());
        }
    }

    /// Counts the writes of each region.
    pub(crate) fn count_writes(&mut self, records: &[Record]) {
        let count = |name: &&str| records.iter().filter(|r| r.region == **name).map(|_| 1).sum();
        self.writes = REGIONS.iter().map(count).collect();
    }

    /// Tells whether all is as it must be.
    pub(crate) fn is_good(&self) -> bool {
        self.verdict() == CONVERGED
    }

    pub(super) fn verdict(&self) -> String {
        let found = self.findings.as_ref().map(Findings::verdict).filter(|found| found != CONVERGED);
        let wrong: Vec<String> = self.complaints.iter().cloned().chain(found).collect();
        match (wrong.is_empty(), &self.findings) {
            (true, Some(_)) => CONVERGED.to_owned(),
            (true, None) => "nothing was judged".to_owned(),
            (false, _) => wrong.join(", "),
        }
    }

    fn steady_of(&self, at: Option<usize>) -> impl Iterator<Item = (usize, &Steady)> {
        self.steady.iter().enumerate().filter(move |(site, _)| at.is_none_or(|at| at == *site))
    }

    /// Returns the lag of what arrived at a region, or anywhere.
    pub(super) fn lag(&self, at: Option<usize>) -> Lag {
        let mut lag = Lag::default();
        for (site, steady) in self.steady_of(at) {
            let here = REGIONS.get(site).copied().unwrap_or_default();
            for (from, histogram) in &steady.lag {
                let path = if self.network == Network::Relay { one_way(from, here) } else { Duration::ZERO };
                lag.add(histogram, path);
            }
        }
        lag
    }

    /// Returns bytes per write per link, of one region or of all.
    pub(super) fn bytes_per_write(&self, at: Option<usize>) -> Option<f64> {
        let bytes: Option<u64> = self.steady_of(at).map(|(_, s)| s.bytes).sum();
        let writes: u64 = self.steady_of(at).map(|(_, s)| s.writes).sum();
        // Every write goes to every other region.
        ratio(bytes?, writes.saturating_mul(2))
    }

    pub(super) fn compression(&self, at: Option<usize>) -> Option<f64> {
        let sum = |pick: fn(&Stats) -> u64| self.stats_of(at).map(pick).sum();
        ratio(sum(|s| s.frame_bytes_raw), sum(|s| s.frame_bytes_sent))
    }

    /// Returns what one region, or all of them, issued: reads, writes and the rate of hits.
    pub(super) fn traffic(&self, at: Option<usize>) -> (u64, u64, Option<f64>) {
        let here = |(site, _): &(usize, &u64)| at.is_none_or(|at| at == *site);
        let writes = self.writes.iter().enumerate().filter(here).map(|(_, n)| n).sum();
        let reads = self.stats_of(at).map(|s| s.reads).sum();
        (reads, writes, ratio(self.stats_of(at).map(|s| s.hits).sum(), reads))
    }

    fn stats_of(&self, at: Option<usize>) -> impl Iterator<Item = &Stats> {
        let here = move |(site, _): &(usize, &Stats)| at.is_none_or(|at| at == *site);
        self.stats.iter().enumerate().filter(here).map(|(_, stats)| stats)
    }

    /// Returns the writes that met a concurrent one, of one region or of all.
    pub(super) fn conflicts(&self, at: Option<usize>) -> Option<u64> {
        let conflicts = &self.findings.as_ref()?.conflicts;
        let counts = |name: &str| conflicts.get(name).copied().unwrap_or(0);
        Some(match at {
            Some(site) => REGIONS.get(site).map_or(0, |name| counts(name)),
            None => conflicts.values().sum(),
        })
    }
}

/// The verdict of a good run.
const CONVERGED: &str = "converged";

/// From a write until another region shows it, and the part of it that is not the path's.
#[derive(Debug, Default)]
pub(super) struct Lag {
    pub(super) total: Histogram,
    pub(super) added: Histogram,
}

impl Lag {
    fn add(&mut self, histogram: &Histogram, path: Duration) {
        let path_ms = u64::try_from(path.as_millis()).unwrap_or(u64::MAX);
        for (ms, count) in &histogram.0 {
            self.total.add(*ms, *count);
            self.added.add(ms.saturating_sub(path_ms), *count);
        }
    }
}

#[expect(clippy::as_conversions, reason = "counts below 2^53 are exact, and larger ones are only shown")]
fn float(n: u64) -> f64 {
    n as f64
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| float(part) / float(whole))
}

fn ms(duration: Option<Duration>) -> Option<f64> {
    duration.map(|d| (d.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn rounded(figure: Option<f64>) -> Option<f64> {
    figure.map(|f| (f * 100.0).round() / 100.0)
}

/// Returns the figures as JSON; the keys are documented in `examples/README.md`.
pub(crate) fn json(figures: &Figures) -> Value {
    let (findings, lag) = (figures.findings.as_ref(), figures.lag(None));
    let regions: Vec<Value> = REGIONS.iter().enumerate().map(|(site, name)| region_json(figures, site, name)).collect();
    json!({
        "verdict": figures.verdict(),
        "diverged_keys": findings.map(|f| f.diverged.len()),
        "lost_writes": findings.map(|f| f.lost.len()),
        "lost_local_on_kill": {
            "count": findings.map(|f| f.lost_local),
            "oldest_ms": findings.map(|f| f.lost_local_oldest_ms),
        },
        "resurrected_keys": findings.map(|f| f.resurrected.len()),
        "heal_ms": ms(figures.heal),
        "restart_ms": ms(figures.restart),
        "lag_added_ms": percentiles(&lag.added),
        "lag_total_ms": percentiles(&lag.total),
        "bytes_per_write_per_link": rounded(figures.bytes_per_write(None)),
        "compression_ratio": rounded(figures.compression(None)),
        "writes": figures.writes.iter().sum::<u64>(),
        "conflicts": figures.conflicts(None),
        "join_ms": ms(figures.join),
        "drain_ms": ms(figures.drain),
        "cut_seconds": (figures.network == Network::Relay).then_some(figures.cut_s),
        "loss_percent": (figures.network == Network::Relay).then_some(figures.loss),
        "seed": figures.seed,
        "compared_values": figures.compared,
        "ambiguous_places": findings.map(|f| f.ambiguous),
        "unjudged_keys": findings.map(|f| f.unjudged.len()),
        "refused_operations": figures.refused.len(),
        "regions": regions,
        "what_went_wrong": findings.map(|f| reasons(f, &figures.refused)),
    })
}

fn percentiles(delays: &Histogram) -> Value {
    json!({ "p50": delays.quantile(50), "p99": delays.quantile(99) })
}

fn region_json(figures: &Figures, site: usize, name: &str) -> Value {
    let at = Some(site);
    let (lag, (reads, writes, hit_rate)) = (figures.lag(at), figures.traffic(at));
    json!({
        "region": name,
        "reads": reads,
        "writes": writes,
        "hit_rate": rounded(hit_rate),
        "lag_added_ms": percentiles(&lag.added),
        "lag_total_ms": percentiles(&lag.total),
        "bytes_per_write_per_link": rounded(figures.bytes_per_write(at)),
        "compression_ratio": rounded(figures.compression(at)),
        "conflicts": figures.conflicts(at),
        "conflicts_resolved_here": figures.stats.get(site).map(|stats| stats.conflicts),
    })
}

fn reasons(findings: &Findings, refused: &[String]) -> Value {
    let first = |all: Vec<String>| all.into_iter().take(REASONS_MAX).collect::<Vec<_>>();
    let place = |(key, path): &Place| format!("{}/{} {}", key.keyspace, key.key, path.as_deref().unwrap_or_default());
    json!({
        "diverged": first(findings.diverged.iter().map(|k| format!("{}/{}", k.keyspace, k.key)).collect()),
        "lost": first(findings.lost.clone()),
        "resurrected": first(findings.resurrected.iter().map(place).collect()),
        "refused": first(refused.to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn figures() -> Figures {
        let args = crate::Cli::parse_from(["three_regions"]).demo;
        let mut figures = Figures::new(&args);
        let histogram = Histogram((0..100).map(|n| (40 + n, 1)).collect());
        let lag = BTreeMap::from([("eu-central".to_owned(), histogram)]);
        figures.steady = vec![Steady { writes: 10, bytes: Some(1_000), lag }];
        figures.findings = Some(Findings::default());
        figures
    }

    #[test]
    fn added_lag_is_what_lies_beyond_the_path() {
        let lag = figures().lag(None);
        assert_eq!((lag.total.quantile(50), lag.total.quantile(99)), (Some(89), Some(138)));
        assert_eq!((lag.added.quantile(50), lag.added.quantile(99)), (Some(49), Some(98)));
        assert_eq!(Histogram::default().quantile(99), None);
    }

    #[test]
    fn the_json_has_every_promised_key_and_unmeasured_figures_are_null() {
        let report = json(&figures());
        for key in [
            "verdict",
            "diverged_keys",
            "lost_writes",
            "lost_local_on_kill",
            "resurrected_keys",
            "heal_ms",
            "restart_ms",
            "lag_added_ms",
            "bytes_per_write_per_link",
            "compression_ratio",
            "writes",
            "conflicts",
        ] {
            assert!(report.get(key).is_some(), "{key}");
        }
        assert_eq!(report["bytes_per_write_per_link"], 50.0);
        assert_eq!((&report["heal_ms"], &report["compression_ratio"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn what_did_not_happen_is_part_of_the_verdict() {
        let mut figures = figures();
        assert!(figures.is_good() && table(&figures).unwrap().contains(" converged: 0 keys diverged"));
        figures.complain_unless(false, "did not converge after the heal");
        assert!(!figures.is_good());
        figures.findings.as_mut().unwrap().lost.push("one".to_owned());
        assert_eq!(figures.verdict(), "did not converge after the heal, 1 writes lost");
    }

    #[test]
    fn a_run_that_ended_early_is_no_good_run_and_has_no_counts() {
        let mut figures = Figures { findings: None, ..figures() };
        assert!(!figures.is_good());
        figures.complain_unless(false, "the regions never converged");
        let report = json(&figures);
        assert_eq!(report["verdict"], "the regions never converged");
        assert_eq!((&report["lost_writes"], &report["what_went_wrong"]), (&Value::Null, &Value::Null));
        assert!(table(&figures).unwrap().ends_with("the regions never converged\n"));
    }
}
