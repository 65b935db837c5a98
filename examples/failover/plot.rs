//! The picture of a run: requests served per second, a strip per region, with everything that happened marked.
//!
//! It is an SVG with its own colours for light and for dark, and no script.
//!
//! # Invariants
//! * All strips have the same scale, so that what one region loses can be seen to go to others.

use std::fmt::{self, Write};

use crate::ledger::Pages;
use crate::report::Figures;
use crate::world;

/// Requests are counted over so many milliseconds: one incident is ten to twenty of them.
const BIN_MS: u64 = 500;
const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 104.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 112.0;
const STRIP: f64 = 74.0;
const BETWEEN: f64 = 20.0;

const STYLE: &str = "\
:root{--page:#fff;--ink:#1f2328;--faint:#656d76;--line:#d0d7de;--own:#4a7fb5;--guest:#e08a2c;--bad:#cf222e;\
--band:#8250df;color-scheme:light dark}\
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--ink:#e6edf3;--faint:#9198a1;--line:#30363d;--own:#5f9bd6;\
--guest:#f0a04b;--bad:#ff7b72;--band:#b083f0}}\
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}\
.faint{fill:var(--faint);font-size:11px}.title{font-size:15px;font-weight:600}.page{fill:var(--page)}\
.own{fill:var(--own)}.guest{fill:var(--guest)}.bad{fill:var(--bad)}.band{fill:var(--band);fill-opacity:.12}\
.mark{stroke:var(--band);stroke-width:1.2}.heal{stroke:var(--band);stroke-width:1;stroke-dasharray:3 3}\
.axis{stroke:var(--line);stroke-width:1}.kind{font-size:11px;font-weight:600}";

/// Requests of one bin in one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bin {
    /// Served to clients near the region.
    own: u32,
    /// Served to clients of other regions.
    guests: u32,
    /// Of clients near the region, not answered where they went.
    failed: u32,
}

/// The time that is drawn, and where.
#[derive(Clone, Copy, Debug)]
struct Scale {
    from_ms: u64,
    to_ms: u64,
    /// Requests of one bin that fill a strip.
    full: u32,
}

impl Scale {
    fn x(self, at_ms: u64) -> f64 {
        let span = float(self.to_ms.saturating_sub(self.from_ms).max(1));
        LEFT + (WIDTH - LEFT - RIGHT) * (float(at_ms.clamp(self.from_ms, self.to_ms) - self.from_ms) / span)
    }

    fn height(self, count: u32) -> f64 {
        STRIP * f64::from(count) / f64::from(self.full.max(1))
    }
}

fn bottom(region: usize) -> f64 {
    let above = u32::try_from(region).map_or(0.0, f64::from);
    TOP + STRIP + (STRIP + BETWEEN) * above
}

#[expect(clippy::as_conversions, reason = "milliseconds of a run are far below 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}

/// Draws a run.
pub(crate) fn svg(figures: &Figures, pages: &Pages) -> Result<String, fmt::Error> {
    let last = pages.served.iter().map(|one| one.at_ms).max().unwrap_or(figures.opened_ms);
    let bins = bins(pages, figures.opened_ms, last);
    let full = bins.iter().flatten().map(|bin| bin.own + bin.guests).max().unwrap_or(1);
    let scale = Scale { from_ms: figures.opened_ms, to_ms: last.max(figures.opened_ms + 1), full };
    let height = bottom(world::COUNT - 1) + 60.0;
    let mut out = String::new();
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Requests served per second in each region\">\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>"
    )?;
    heading(&mut out)?;
    marks(&mut out, figures, scale)?;
    for (region, bins) in bins.iter().enumerate() {
        strip(&mut out, (region, bins), scale)?;
    }
    seconds(&mut out, scale)?;
    writeln!(out, "</svg>")?;
    Ok(out)
}

/// Counts the requests of each region in each bin.
fn bins(pages: &Pages, from_ms: u64, to_ms: u64) -> Vec<Vec<Bin>> {
    let bin_of = |at_ms: u64| usize::try_from(at_ms.saturating_sub(from_ms) / BIN_MS).unwrap_or(usize::MAX);
    let mut bins = vec![vec![Bin::default(); bin_of(to_ms) + 1]; world::COUNT];
    for one in &pages.served {
        if let Some(bin) = bins.get_mut(one.by).and_then(|bins| bins.get_mut(bin_of(one.at_ms))) {
            let count = if one.home == one.by { &mut bin.own } else { &mut bin.guests };
            *count += 1;
        }
    }
    for one in &pages.failed {
        if let Some(bin) = bins.get_mut(one.home).and_then(|bins| bins.get_mut(bin_of(one.at_ms))) {
            bin.failed += 1;
        }
    }
    bins
}

fn heading(out: &mut String) -> fmt::Result {
    writeln!(out, "<text class=\"title\" x=\"16\" y=\"26\">Requests served per second in each region</text>")?;
    let mut x = 16.0;
    for (class, text, width) in [
        ("own", "clients near the region", 168.0),
        ("guest", "clients of other regions, rerouted", 236.0),
        ("bad", "requests of its clients that were not answered where they went", 0.0),
    ] {
        let at = x + 15.0;
        writeln!(out, "<rect class=\"{class}\" x=\"{x}\" y=\"38\" width=\"10\" height=\"10\" rx=\"2\"/>")?;
        writeln!(out, "<text class=\"faint\" x=\"{at}\" y=\"47\">{text}</text>")?;
        x += width;
    }
    Ok(())
}

/// Marks what happened: a band from its beginning until nothing of it was left, a dashed line at its heal.
fn marks(out: &mut String, figures: &Figures, scale: Scale) -> fmt::Result {
    let (top, end) = (TOP - 6.0, bottom(world::COUNT - 1));
    let height = end - top;
    for (at, incident) in figures.incidents.iter().enumerate() {
        let (from, until) = (scale.x(incident.from_ms), scale.x(incident.until_ms));
        let width = until - from;
        writeln!(
            out,
            "<rect class=\"band\" x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\"/>\
             <line class=\"mark\" x1=\"{from:.1}\" x2=\"{from:.1}\" y1=\"{top}\" y2=\"{end}\"/>"
        )?;
        if let Some(outcome) = figures.outcomes.get(at) {
            let heal = scale.x(outcome.healed_ms);
            writeln!(out, "<line class=\"heal\" x1=\"{heal:.1}\" x2=\"{heal:.1}\" y1=\"{top}\" y2=\"{end}\"/>")?;
        }
        let (kind, region) = (incident.kind.name(), world::name(incident.region));
        let (first, second) = (top - 20.0, top - 6.0);
        writeln!(
            out,
            "<text class=\"kind\" x=\"{from:.1}\" y=\"{first}\">{kind}</text>\
             <text class=\"faint\" x=\"{from:.1}\" y=\"{second}\">{region}</text>"
        )?;
    }
    Ok(())
}

fn strip(out: &mut String, (region, bins): (usize, &[Bin]), scale: Scale) -> fmt::Result {
    let (base, name) = (bottom(region), world::name(region));
    let (top, right) = (base - STRIP, WIDTH - RIGHT);
    let per_second = u64::from(scale.full) * 1_000 / BIN_MS;
    writeln!(out, "<text x=\"16\" y=\"{:.1}\">{name}</text>", base - STRIP / 2.0 + 4.0)?;
    for (y, label) in [(top, per_second), (base, 0)] {
        writeln!(out, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>")?;
        let (x, y) = (LEFT - 4.0, y + 4.0);
        writeln!(out, "<text class=\"faint\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{label}</text>")?;
    }
    let end = |bin: u64| scale.x(scale.from_ms + bin * BIN_MS);
    for (bin, counts) in (0..).zip(bins) {
        // The last bin is not full; half a bar would look like half the requests.
        if scale.from_ms + (bin + 1) * BIN_MS > scale.to_ms {
            break;
        }
        let (x, width) = (end(bin), end(bin + 1) - end(bin) - 0.5);
        let (own, guests) = (scale.height(counts.own), scale.height(counts.guests));
        for (class, y, height) in [("own", base - own, own), ("guest", base - own - guests, guests)] {
            if height > 0.0 {
                writeln!(
                    out,
                    "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
                )?;
            }
        }
        if counts.failed > 0 {
            let y = base + 2.0;
            writeln!(out, "<rect class=\"bad\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"4\"/>")?;
        }
    }
    Ok(())
}

fn seconds(out: &mut String, scale: Scale) -> fmt::Result {
    let y = bottom(world::COUNT - 1) + 24.0;
    let span = scale.to_ms.saturating_sub(scale.from_ms) / 1_000;
    for second in (0..=span).step_by(if span > 40 { 10 } else { 5 }) {
        let x = scale.x(scale.from_ms + second * 1_000);
        writeln!(out, "<text class=\"faint\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{second} s</text>")?;
    }
    let note = "shaded until all nodes see each other again and have caught up; dashed: the heal";
    writeln!(out, "<text class=\"faint\" x=\"{LEFT}\" y=\"{:.1}\">{note}</text>", y + 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{FailedAt, ServedAt};
    use clap::Parser;

    #[test]
    fn requests_are_counted_where_they_were_served_and_failures_where_the_client_is() {
        let served = |at_ms, home, by| ServedAt { at_ms, client: home, home, by };
        let failed = FailedAt { at_ms: 1_600, home: 2, for_good: false };
        let pages = Pages {
            served: vec![served(1_000, 2, 2), served(1_499, 2, 2), served(1_700, 2, 0)],
            failed: vec![failed],
            ..Pages::default()
        };
        let bins = bins(&pages, 1_000, 1_700);
        assert_eq!(bins[2], [Bin { own: 2, guests: 0, failed: 0 }, Bin { own: 0, guests: 0, failed: 1 }]);
        assert_eq!(bins[0][1], Bin { own: 0, guests: 1, failed: 0 });
    }

    #[test]
    fn a_run_without_any_request_is_drawn_all_the_same() {
        let figures = Figures::new(&crate::Cli::parse_from(["failover"]).demo);
        let text = svg(&figures, &Pages::default()).unwrap();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n") && !text.contains("NaN"));
        assert!((0..world::COUNT).all(|region| text.contains(world::name(region))));
    }
}
