//! The figures as people read them: a row per region, what the columns mean, what happened.
//!
//! # Invariants
//! * No line is longer than 100 columns.
//! * The last line is the verdict.

use std::fmt::{self, Write};
use std::time::Duration;

use super::Figures;
use crate::Network;
use crate::support::protocol::Histogram;
use crate::support::topology::REGIONS;

/// Returns the table.
pub(crate) fn table(figures: &Figures) -> Result<String, fmt::Error> {
    let mut out = String::from("\n");
    if !figures.steady.is_empty() {
        regions(&mut out, figures)?;
        legend(&mut out, figures)?;
    }
    story(&mut out, figures)?;
    verdict(&mut out, figures)?;
    Ok(out)
}

fn regions(out: &mut String, figures: &Figures) -> fmt::Result {
    row(out, ["", "", "", "hit", "lag, ms", "added, ms", "bytes a", "com-", ""])?;
    row(out, ["region", "reads", "writes", "rate", "p50 / p99", "p50 / p99", "write", "pressed", "conflicts"])?;
    for (site, name) in REGIONS.iter().enumerate() {
        region(out, figures, (name, Some(site)))?;
    }
    region(out, figures, ("all", None))
}

fn region(out: &mut String, figures: &Figures, (name, at): (&str, Option<usize>)) -> fmt::Result {
    let ((reads, writes, hits), lag) = (figures.traffic(at), figures.lag(at));
    let cells = [
        name.to_owned(),
        grouped(reads),
        grouped(writes),
        shown(hits.map(|r| r * 100.0), 0, " %"),
        pair(&lag.total),
        pair(&lag.added),
        shown(figures.bytes_per_write(at), 0, ""),
        shown(figures.compression(at), 2, " x"),
        figures.conflicts(at).map_or_else(|| "-".to_owned(), grouped),
    ];
    row(out, cells.each_ref().map(String::as_str))
}

fn row(out: &mut String, [a, b, c, d, e, f, g, h, i]: [&str; 9]) -> fmt::Result {
    let line = format!("{a:<13}{b:>7}{c:>8}{d:>7}{e:>13}{f:>13}{g:>9}{h:>10}{i:>11}");
    writeln!(out, "{}", line.trim_end())
}

fn legend(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out)?;
    writeln!(out, "  lag        from a write until another region shows it, to the millisecond")?;
    match figures.network {
        Network::Relay => {
            let loss = figures.loss;
            writeln!(out, "  added      lag without the distance (40, 75 or 110 ms); jitter of up to 4 ms and")?;
            writeln!(out, "             sending again what is lost ({loss} % of the datagrams) are part of it")?;
            writeln!(out, "  bytes      everything on a link: headers, acknowledgements and heartbeats, too")?;
        }
        Network::None => writeln!(out, "  added      the same, without a network in between")?,
    }
    writeln!(out, "  conflicts  writes that met a concurrent one of another region at the same place")?;
    writeln!(out, "  Lag and bytes are of the steady phase: during the cut and the kill writes wait for the")?;
    writeln!(out, "  path, and the heal and the restart below say for how long.\n")
}

fn story(out: &mut String, figures: &Figures) -> fmt::Result {
    let name = |site: usize| REGIONS.get(site).copied().unwrap_or_default();
    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    if let Some(join) = figures.join {
        writeln!(out, "{:<10} all three regions after {}", "joined", seconds(join))?;
    }
    if let Some(took) = figures.steady_took {
        let writes = figures.steady.iter().map(|s| s.writes).sum();
        writeln!(out, "{:<10} {} writes in {}", "steady", grouped(writes), seconds(took))?;
    }
    if let Some(heal) = figures.heal {
        let (cut, heal) = (figures.cut_s, seconds(heal));
        writeln!(out, "{:<10} {} for {cut} s; all had caught up {heal} after the heal", "cut off", name(2))?;
    }
    if let Some(restart) = figures.restart.map(seconds) {
        writeln!(out, "{:<10} {}; had joined and caught up {restart} after its start", "killed", name(1))?;
    }
    let Some(findings) = &figures.findings else { return Ok(()) };
    let (count, oldest) = (grouped(findings.lost_local), findings.lost_local_oldest_ms);
    match findings.lost_local {
        0 => writeln!(out, "{:<10} no write was lost with it", "")?,
        _ => writeln!(out, "{:<10} {count} writes that only it had were lost, the oldest {oldest} ms old", "")?,
    }
    let compared = figures.compared.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    writeln!(out, "{:<10} {} visible values in every region and in the oracle", "compared", grouped(compared))?;
    for (count, what) in [
        (findings.ambiguous, "places whose order the records leave open"),
        (u64::try_from(findings.unjudged.len()).unwrap_or(u64::MAX), "keys the killed region may have written"),
        (u64::try_from(figures.refused.len()).unwrap_or(u64::MAX), "operations refused"),
    ] {
        if count > 0 {
            writeln!(out, "{:<10} {} {what}", "", grouped(count))?;
        }
    }
    Ok(())
}

fn verdict(out: &mut String, figures: &Figures) -> fmt::Result {
    write!(out, "{:<10} {}", "verdict", figures.verdict())?;
    if let Some(findings) = &figures.findings {
        let (diverged, lost, back) = (findings.diverged.len(), findings.lost.len(), findings.resurrected.len());
        write!(out, ": {diverged} keys diverged, {lost} writes lost, {back} keys resurrected")?;
    }
    writeln!(out)
}

fn pair(delays: &Histogram) -> String {
    match (delays.quantile(50), delays.quantile(99)) {
        (Some(p50), Some(p99)) => format!("{p50} / {p99:>3}"),
        _ => "-".to_owned(),
    }
}

fn shown(figure: Option<f64>, digits: usize, unit: &str) -> String {
    figure.map_or_else(|| "-".to_owned(), |f| format!("{f:.digits$}{unit}"))
}

/// Returns a number with a comma between its thousands.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
