//! The figures as people read them: a row per incident, what the columns mean, the verdict.
//!
//! # Invariants
//! * No line is longer than 80 columns, but for the reasons of a verdict.
//! * The last line is the verdict.

use std::fmt::{self, Write};

use super::{Figures, Outcome};

/// Returns the table.
pub(crate) fn table(figures: &Figures) -> Result<String, fmt::Error> {
    let mut out = String::from("\n");
    if !figures.outcomes.is_empty() {
        row(&mut out, ["", "noticed", "agreed", "routers", "first", "failed", "lost by", "whole", "repaired"])?;
        row(&mut out, ["what happened", "ms", "ms", "ms", "client", "requests", "level", "ms", "n / B"])?;
        figures.outcomes.iter().try_for_each(|outcome| incident(&mut out, outcome))?;
        legend(&mut out)?;
    }
    story(&mut out, figures)?;
    writeln!(out, "{:<10} {}", "verdict", figures.verdict())?;
    Ok(out)
}

fn incident(out: &mut String, outcome: &Outcome) -> fmt::Result {
    let shown = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
    let converge = outcome.converge.and_then(|took| u64::try_from(took.as_millis()).ok());
    let cells = [
        outcome.name.to_owned(),
        shown(outcome.detect_ms),
        shown(outcome.agree_ms),
        shown(outcome.routed_ms),
        shown(outcome.reroutes_ms.first().copied()),
        outcome.failed.to_string(),
        format!("{} / {}", outcome.lost.at_quorum.len(), outcome.lost.at_local),
        shown(converge),
        format!("{} / {}", outcome.repaired.keys, outcome.repaired.bytes),
    ];
    row(out, cells.each_ref().map(String::as_str))
}

fn row(out: &mut String, [a, b, c, d, e, f, g, h, i]: [&str; 9]) -> fmt::Result {
    let line = format!("{a:<16}{b:>7}{c:>7}{d:>8}{e:>7}{f:>9}{g:>9}{h:>7}{i:>10}");
    writeln!(out, "{}", line.trim_end())
}

fn legend(out: &mut String) -> fmt::Result {
    writeln!(out)?;
    writeln!(out, "  noticed   the first node suspects one that is concerned")?;
    writeln!(out, "  agreed    the last survivor calls it unreachable; of a one-way cut, the link")?;
    writeln!(out, "            down; of a clone, all know that the older process is fenced")?;
    writeln!(out, "  routers   the last one stops sending clients of the region there")?;
    writeln!(out, "  first     client of the region that another one serves, in ms")?;
    writeln!(out, "  failed    requests that the region they went to did not answer")?;
    writeln!(out, "  lost      writes that a quorum had / that only their region had")?;
    writeln!(out, "  whole     from the heal, or the start, until every node has caught up")?;
    writeln!(out, "  repaired  keys that repair gave back / its bytes, until copies were compared\n")
}

fn story(out: &mut String, figures: &Figures) -> fmt::Result {
    if let Some(join) = figures.join {
        writeln!(out, "{:<10} all nodes after {:.2} s", "joined", join.as_secs_f64())?;
    }
    let (served, failed, unserved) = (figures.requests, figures.failed, figures.unserved);
    writeln!(out, "{:<10} {served} served, {failed} tried elsewhere, {unserved} served by nobody", "requests")?;
    if let Some(gap) = figures.longest_gap_ms {
        writeln!(out, "{:<10} the longest that a client was served by nobody: {gap} ms", "")?;
    }
    let reroutes = figures.reroutes();
    if let (Some(p50), Some(p99)) = (reroutes.quantile(50), reroutes.quantile(99)) {
        writeln!(out, "{:<10} each client of a region that failed: {p50} / {p99} ms, p50 / p99", "rerouted")?;
    }
    let (alarms, of_pauses) = (figures.alarms.false_ones.len(), figures.alarms.of_pauses);
    writeln!(out, "{:<10} {alarms} false, {} suspicions that nobody shared", "alarms", figures.alarms.suspicions)?;
    if figures.longest_pause_ms > 0 {
        let longest = figures.longest_pause_ms;
        writeln!(out, "{:<10} {of_pauses} because this machine stood still, {longest} ms at most", "")?;
    }
    for (site, saw) in &figures.alarms.false_ones {
        let about = saw.node.as_ref().and_then(|node| figures.sites.get(node));
        let name = |site: usize| figures.world.name_of(site);
        let about = about.map_or_else(String::new, |site| name(*site));
        let after = (saw.at_ms.saturating_sub(figures.began_ms)) / 1_000;
        writeln!(out, "{:<10} {} said {:?} {about} after {after} s", "", name(*site), saw.what)?;
    }
    if let Some(found) = &figures.findings {
        let (compared, diverged) = (found.compared, found.diverged.len());
        let (back, wrong) = (found.resurrected.len(), found.wrong.len());
        writeln!(out, "{:<10} {compared} keys: {diverged} diverged, {back} resurrected, {wrong} wrong", "compared")?;
    }
    Ok(())
}
