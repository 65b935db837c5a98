//! The figures as people read them.
//!
//! # Invariants
//! * The last line of a run is its verdict.

use driftless::probe::{Fault, Sometimes};
use driftless::sim::Profile;

use crate::fleet::Limits;
use crate::planted::PlantedResult;
use crate::tally::Tally;

/// How long a detail may be in a table.
const DETAIL_MAX: usize = 110;

/// What many seeds came to.
pub(crate) fn seeds(tally: &Tally, profile: Profile, limits: Limits) -> String {
    let mut out = String::new();
    if !tally.failures.is_empty() {
        line(&mut out, "\nfailures\n                seed  invariant");
        for failed in &tally.failures {
            line(&mut out, &format!("{:>20}  {}", failed.seed, failed.failure.invariant));
            line(&mut out, &format!("{:>20}  {}", "", cut(&failed.failure.detail)));
        }
    }
    events(&mut out, tally);
    let rate = tally.seeds_per_second_per_core().unwrap_or(0.0);
    line(&mut out, &format!("\nseeds          {} of {profile}, from {}", tally.seeds, limits.from));
    line(&mut out, &format!("speed          {rate:.1} seeds a second a core"));
    line(&mut out, &format!("virtual time   {:.1} hours", tally.virtual_hours()));
    line(&mut out, &format!("excused        {} seeds that went beyond a limit of the design", tally.excused.len()));
    line(&mut out, &format!("run twice      {} seeds, compared by the hash of everything delivered", tally.replayed));
    if let (Some(p50), Some(p99), Some(max)) = tally.convergence_ms() {
        line(&mut out, &format!("convergence    {p50} ms after the heal (median), {p99} ms (p99), {max} ms (longest)"));
    }
    out
}

fn events(out: &mut String, tally: &Tally) {
    line(out, "\nrare events, and the share of seeds in which each happened");
    let mut events: Vec<Sometimes> = Sometimes::ALL.to_vec();
    events.sort_by(|a, b| tally.share(*a).total_cmp(&tally.share(*b)).then(a.name().cmp(b.name())));
    for event in events {
        let share = tally.share(event) * 100.0;
        let shown = if share == 0.0 { "   never".to_owned() } else { format!("{share:>6.2} %") };
        line(out, &format!("{shown}  {}", event.name()));
    }
}

/// The last line.
pub(crate) fn verdict(tally: &Tally, holds: bool, judged: bool) -> String {
    let never = tally.never();
    let mut out =
        format!("verdict        {}: {} failures", if holds { "holds" } else { "FAILS" }, tally.failures.len());
    if tally.excuses_too_much() {
        out += &format!(", more excused than is rare: {} of {} seeds", tally.excused.len(), tally.seeds);
    }
    if judged && !never.is_empty() {
        out += &format!(", events that never happened: {}", never.join(", "));
    }
    out + "\n"
}

/// One fault, as soon as it is done.
pub(crate) fn planted_row(result: &PlantedResult) -> String {
    let name = result.fault.name();
    match &result.caught {
        Some(failed) => format!(
            "caught    {name:<34} after {:>6} seeds  {} (seed {}): {}\n",
            result.seeds,
            failed.failure.invariant,
            failed.seed,
            cut(&failed.failure.detail)
        ),
        None => format!("NOT SEEN  {name:<34} in    {:>6} seeds\n", result.seeds),
    }
}

/// All faults.
pub(crate) fn planted(results: &[PlantedResult]) -> String {
    let caught = results.iter().filter(|result| result.caught.is_some()).count();
    let most = results.iter().map(|result| result.seeds).max().unwrap_or(0);
    let verdict = if caught == results.len() { "holds" } else { "FAILS" };
    format!("verdict   {verdict}: {caught} of {} planted faults caught, within {most} seeds each\n", results.len())
}

/// Everything that has a name.
pub(crate) fn list() -> String {
    let mut out = String::from("configurations\n");
    for profile in Profile::all() {
        line(&mut out, &format!("  {:<10} {}", profile.name(), profile.about()));
    }
    line(&mut out, "\nrare events");
    Sometimes::ALL.iter().for_each(|event| line(&mut out, &format!("  {}", event.name())));
    line(&mut out, "\nfaults that can be planted");
    Fault::ALL.iter().for_each(|fault| line(&mut out, &format!("  {}", fault.name())));
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(DETAIL_MAX).map(|c| if c == '\n' { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
