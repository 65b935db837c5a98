//! What the run came to: a table for people, and the same figures as JSON.
//!
//! # Invariants
//! * Both are made from [`Figures`] and nothing else, so they cannot disagree.
//! * A figure that was not measured is shown as `-` and written as `null`, never as 0.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::oracle::Findings;
use crate::support::protocol::{Histogram, Record, Stats};
use crate::support::topology::{REGIONS, one_way};
use crate::{DemoArgs, Network};

/// Reasons listed in the JSON; a broken run can have one per write.
const REASONS_MAX: usize = 20;

/// One region in the steady phase.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    pub(crate) writes: u64,
    /// Sent into both of its links, headers included.
    pub(crate) bytes: Option<u64>,
    pub(crate) lag: BTreeMap<String, Histogram>,
}

/// Everything measured in a run.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) network: Network,
    pub(crate) seed: u64,
    pub(crate) cut_s: f64,
    pub(crate) join: Duration,
    pub(crate) steady: Vec<Steady>,
    pub(crate) heal: Option<Duration>,
    pub(crate) restart: Option<Duration>,
    pub(crate) drain: Option<Duration>,
    /// Per region, over all its processes and the whole run.
    pub(crate) stats: Vec<Stats>,
    pub(crate) writes: Vec<u64>,
    pub(crate) refused: Vec<String>,
    pub(crate) findings: Findings,
    complaints: Vec<String>,
}

impl Figures {
    pub(crate) fn new(args: &DemoArgs, cut_s: f64) -> Self {
        Self {
            network: args.wan,
            seed: args.seed,
            cut_s,
            join: Duration::ZERO,
            steady: Vec::new(),
            heal: None,
            restart: None,
            drain: None,
            stats: vec![Stats::default(); REGIONS.len()],
            writes: Vec::new(),
            refused: Vec::new(),
            findings: Findings::default(),
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
        self.verdict() == "converged"
    }

    fn verdict(&self) -> String {
        let found = self.findings.verdict();
        match (self.complaints.is_empty(), found.as_str()) {
            (true, _) => found,
            (false, "converged") => self.complaints.join(", "),
            (false, _) => format!("{}, {found}", self.complaints.join(", ")),
        }
    }

    /// Returns the lag of what arrived at a region, in the order of [`REGIONS`], or at all.
    fn lag(&self, at: Option<usize>) -> Lag {
        let mut lag = Lag::default();
        let sites = self.steady.iter().enumerate().filter(|(site, _)| at.is_none_or(|at| at == *site));
        for (site, steady) in sites {
            let here = REGIONS.get(site).copied().unwrap_or_default();
            for (from, histogram) in &steady.lag {
                let path = if self.network == Network::Relay { one_way(from, here) } else { Duration::ZERO };
                lag.add(histogram, path);
            }
        }
        lag
    }

    /// Returns bytes per write per link, of one region or of all.
    fn bytes_per_write(&self, at: Option<usize>) -> Option<f64> {
        let sites = || self.steady.iter().enumerate().filter(|(site, _)| at.is_none_or(|at| at == *site));
        let bytes: Option<u64> = sites().map(|(_, s)| s.bytes).sum();
        let writes: u64 = sites().map(|(_, s)| s.writes).sum();
        // Every write goes to every other region.
        ratio(bytes?, writes.saturating_mul(2))
    }

    fn compression(&self, at: Option<usize>) -> Option<f64> {
        let sites = || self.stats.iter().enumerate().filter(|(site, _)| at.is_none_or(|at| at == *site));
        ratio(sites().map(|(_, s)| s.frame_bytes_raw).sum(), sites().map(|(_, s)| s.frame_bytes_sent).sum())
    }

    fn conflicts(&self) -> u64 {
        self.findings.conflicts.values().sum()
    }
}

/// Delays and how often each was seen, in microseconds.
#[derive(Debug, Default)]
struct Lag {
    total: BTreeMap<u64, u64>,
    added: BTreeMap<u64, u64>,
}

impl Lag {
    fn add(&mut self, histogram: &Histogram, path: Duration) {
        let path_us = u64::try_from(path.as_micros()).unwrap_or(u64::MAX);
        for (step, count) in &histogram.0 {
            let us = step.saturating_mul(Histogram::STEP_US);
            *self.total.entry(us).or_default() += count;
            *self.added.entry(us.saturating_sub(path_us)).or_default() += count;
        }
    }
}

/// Returns the smallest delay that `percent` of all do not exceed, in milliseconds.
fn quantile_ms(delays: &BTreeMap<u64, u64>, percent: u64) -> Option<f64> {
    let all: u64 = delays.values().sum();
    let rank = all.saturating_mul(percent).div_ceil(100);
    let mut passed = 0;
    delays.iter().find_map(|(us, count)| {
        passed += count;
        (passed >= rank).then(|| float(*us) / 1_000.0)
    })
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
    let (findings, lag) = (&figures.findings, figures.lag(None));
    let percentiles = |delays| json!({ "p50": quantile_ms(delays, 50), "p99": quantile_ms(delays, 99) });
    let regions: Vec<Value> = REGIONS.iter().enumerate().map(|(site, name)| region_json(figures, site, name)).collect();
    let keys = |keys: Vec<String>| keys.into_iter().take(REASONS_MAX).collect::<Vec<_>>();
    json!({
        "verdict": figures.verdict(),
        "diverged_keys": findings.diverged.len(),
        "lost_writes": findings.lost.len(),
        "lost_local_on_kill": { "count": findings.lost_local, "oldest_ms": findings.lost_local_oldest_ms },
        "resurrected_keys": findings.resurrected.len(),
        "heal_ms": ms(figures.heal),
        "restart_ms": ms(figures.restart),
        "lag_added_ms": percentiles(&lag.added),
        "lag_total_ms": percentiles(&lag.total),
        "bytes_per_write_per_link": rounded(figures.bytes_per_write(None)),
        "compression_ratio": rounded(figures.compression(None)),
        "writes": figures.writes.iter().sum::<u64>(),
        "conflicts": figures.conflicts(),
        "join_ms": ms(Some(figures.join)),
        "drain_ms": ms(figures.drain),
        "cut_seconds": (figures.network == Network::Relay).then_some(figures.cut_s),
        "seed": figures.seed,
        "ambiguous_places": findings.ambiguous,
        "unjudged_keys": findings.unjudged.len(),
        "refused_operations": figures.refused.len(),
        "regions": regions,
        "what_went_wrong": {
            "diverged": keys(findings.diverged.iter().map(|k| format!("{}/{}", k.keyspace, k.key)).collect()),
            "lost": keys(findings.lost.clone()),
            "resurrected": keys(findings.resurrected.iter().map(|(k, path)| {
                format!("{}/{} {}", k.keyspace, k.key, path.as_deref().unwrap_or_default())
            }).collect()),
            "refused": keys(figures.refused.clone()),
        },
    })
}

fn region_json(figures: &Figures, site: usize, name: &str) -> Value {
    let lag = figures.lag(Some(site));
    let stats = figures.stats.get(site).cloned().unwrap_or_default();
    json!({
        "region": name,
        "reads": stats.reads,
        "writes": figures.writes.get(site),
        "hit_rate": rounded(ratio(stats.hits, stats.reads)),
        "lag_added_ms": { "p50": quantile_ms(&lag.added, 50), "p99": quantile_ms(&lag.added, 99) },
        "lag_total_ms": { "p50": quantile_ms(&lag.total, 50), "p99": quantile_ms(&lag.total, 99) },
        "bytes_per_write_per_link": rounded(figures.bytes_per_write(Some(site))),
        "compression_ratio": rounded(figures.compression(Some(site))),
        "conflicts": figures.findings.conflicts.get(name).copied().unwrap_or(0),
    })
}

/// Returns the table.
pub(crate) fn table(figures: &Figures) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    write_table(&mut out, figures)?;
    Ok(out)
}

fn write_table(out: &mut String, figures: &Figures) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<13}{:>7}{:>8}{:>7}{:>18}{:>18}{:>9}{:>7}{:>11}",
        "region", "reads", "writes", "hits", "lag p50/p99", "added p50/p99", "B/write", "zip", "conflicts"
    )?;
    for (site, name) in REGIONS.iter().enumerate() {
        let (lag, stats) = (figures.lag(Some(site)), figures.stats.get(site).cloned().unwrap_or_default());
        let hits = ratio(stats.hits, stats.reads).map(|r| r * 100.0);
        writeln!(
            out,
            "{:<13}{:>7}{:>8}{:>7}{:>18}{:>18}{:>9}{:>7}{:>11}",
            name,
            stats.reads,
            figures.writes.get(site).copied().unwrap_or(0),
            shown(hits, 0, " %"),
            pair(&lag.total),
            pair(&lag.added),
            shown(figures.bytes_per_write(Some(site)), 0, ""),
            shown(figures.compression(Some(site)), 2, "x"),
            figures.findings.conflicts.get(*name).copied().unwrap_or(0),
        )?;
    }
    writeln!(out, "lag: from a write until another region shows it; added: beyond the path's own delay")?;
    writeln!(out, "B/write: UDP bytes on each link for each write; conflicts: writes that met a concurrent one\n")?;
    write_story(out, figures)
}

fn write_story(out: &mut String, figures: &Figures) -> std::fmt::Result {
    let findings = &figures.findings;
    let name = |site: usize| REGIONS.get(site).copied().unwrap_or_default();
    let seconds = |duration: Option<Duration>| shown(duration.map(|d| d.as_secs_f64()), 2, " s");
    writeln!(out, "{:<10}all three regions after {}", "joined", seconds(Some(figures.join)))?;
    if figures.network == Network::Relay {
        let (cut, healed) = (figures.cut_s, seconds(figures.heal));
        writeln!(out, "{:<10}{} for {cut} s; converged {healed} after the heal", "cut off", name(2))?;
    }
    let restarted = seconds(figures.restart);
    writeln!(out, "{:<10}{}; back and caught up {restarted} after its restart", "killed", name(1))?;
    let (count, oldest) = (findings.lost_local, findings.lost_local_oldest_ms);
    writeln!(out, "{:<10}{count} writes that only it had were lost with it, the oldest {oldest} ms old", "")?;
    if findings.ambiguous > 0 || !findings.unjudged.is_empty() || !figures.refused.is_empty() {
        let (open, unjudged, refused) = (findings.ambiguous, findings.unjudged.len(), figures.refused.len());
        writeln!(
            out,
            "{:<10}{open} places with an open order, {unjudged} keys not judged, {refused} operations refused",
            ""
        )?;
    }
    let wrong = (findings.diverged.len(), findings.lost.len(), findings.resurrected.len());
    writeln!(
        out,
        "{:<10}{}: {} keys diverged, {} writes lost, {} keys resurrected",
        "verdict",
        figures.verdict(),
        wrong.0,
        wrong.1,
        wrong.2
    )
}

fn pair(delays: &BTreeMap<u64, u64>) -> String {
    match (quantile_ms(delays, 50), quantile_ms(delays, 99)) {
        (Some(p50), Some(p99)) => format!("{p50:.1}/{p99:.1} ms"),
        _ => "-".to_owned(),
    }
}

fn shown(figure: Option<f64>, digits: usize, unit: &str) -> String {
    figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.digits$}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn figures() -> Figures {
        let args = crate::Cli::parse_from(["three_regions"]).demo;
        let mut figures = Figures::new(&args, 4.0);
        let histogram = Histogram((0..100).map(|n| (400 + n, 1)).collect());
        let lag = BTreeMap::from([("eu-central".to_owned(), histogram)]);
        figures.steady = vec![Steady { writes: 10, bytes: Some(1_000), lag }];
        figures
    }

    #[test]
    fn added_lag_is_what_lies_beyond_the_path() {
        let lag = figures().lag(None);
        assert_eq!((quantile_ms(&lag.total, 50), quantile_ms(&lag.total, 99)), (Some(44.9), Some(49.8)));
        assert_eq!((quantile_ms(&lag.added, 50), quantile_ms(&lag.added, 99)), (Some(4.9), Some(9.8)));
        assert_eq!(quantile_ms(&BTreeMap::new(), 99), None);
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
        assert!(figures.is_good() && table(&figures).unwrap().contains("verdict   converged"));
        figures.complain_unless(false, "did not converge after the heal");
        assert!(!figures.is_good());
        figures.findings.lost.push("one".to_owned());
        assert_eq!(figures.verdict(), "did not converge after the heal, 1 writes lost");
    }
}
