//! What happens, in order: join, warm up, replay, cut and heal, kill and restart, drain, compare.
//!
//! # Invariants
//! * Traffic never stops for a fault: the cut, the heal, the kill and the restart happen while
//!   every region that runs keeps writing.
//! * Lag and bytes are measured in the steady phase only, where nothing is broken.
//! * The dumps are taken at a moment when no value is about to expire, so "visible" means the same
//!   everywhere.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::DemoArgs;
use crate::fleet::Fleet;
use crate::oracle::{self, Evidence};
use crate::report::{Figures, Steady};
use crate::support::protocol::{Dump, Stats};
use crate::support::topology::REGIONS;
use crate::support::{wall_ms, workload};

/// The region that is cut off: the most distant one.
const CUT: usize = 2;
/// The region that is killed.
const KILLED: usize = 1;
/// Operations of the short form.
const SHORT_OPS: usize = 4_000;
/// Nothing may expire from this long before the dumps begin until this long after. It covers three
/// dumps on a busy machine; if it does not, they are taken again.
const QUIET_MS: (u64, u64) = (20, 1_000);
/// Attempts at finding such a moment before giving up.
const DUMPS_MAX: usize = 10;

/// How the operations and the seconds are divided.
#[derive(Debug)]
struct Plan {
    /// Where the warm-up, steady, cut, heal, kill and last phases end, in operations.
    ends: [usize; 6],
    steady_s: f64,
    cut_s: f64,
    heal_s: f64,
    kill_s: f64,
    last_s: f64,
}

impl Plan {
    fn new(args: &DemoArgs, ops: usize) -> Self {
        let part = |percent: usize| ops.saturating_mul(percent) / 100;
        let (steady_s, cut_s) = if args.short { (4.0, 2.0) } else { (10.0, 4.0) };
        Self {
            ends: [part(3), part(53), part(73), part(80), part(93), ops],
            steady_s,
            cut_s: args.cut_seconds.unwrap_or(cut_s).max(0.1),
            heal_s: steady_s / 5.0,
            kill_s: steady_s / 4.0,
            last_s: steady_s / 8.0,
        }
    }
}

/// Plays everything and judges it.
pub(crate) async fn play(args: &DemoArgs, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let path = &args.workload;
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut ops = workload::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if args.short {
        ops.truncate(SHORT_OPS);
    }
    let plan = Plan::new(args, ops.len());
    figures.cut_s = plan.cut_s;
    let begun = Instant::now();
    let mut fleet = Fleet::start(args, ops).await?;
    figures.join = Some(begun.elapsed());
    let [warm, steady, cut, heal, kill, last] = plan.ends;
    warm_up(&mut fleet, (0, warm)).await?;
    run_steady(&mut fleet, figures, (warm, steady), plan.steady_s).await?;
    cut_and_heal(&mut fleet, figures, (steady, cut, heal), &plan).await?;
    let resume = kill_and_restart(&mut fleet, figures, (heal, kill), &plan).await?;
    finish(&mut fleet, (resume, kill, last), plan.last_s).await?;
    drain(&mut fleet, figures).await?;
    let dumps = dump_in_silence(&mut fleet).await?;
    for (site, stats) in fleet.sites().zip(&mut figures.stats) {
        add_stats(stats, &fleet.stats(site).await?);
    }
    conclude(fleet, figures, dumps).await
}

const ALL: [usize; 3] = [0, 1, 2];
const SURVIVORS: [usize; 2] = [0, 2];

/// A replay may take longer than planned when the machine is busy; past this it is stuck.
fn within(fleet: &Fleet, seconds: f64) -> Duration {
    fleet.patience() + Duration::try_from_secs_f64(seconds * 4.0).unwrap_or_default()
}

async fn warm_up(fleet: &mut Fleet, range: (usize, usize)) -> Result<(), Box<dyn Error>> {
    fleet.progress.phase("all regions have joined; warming up");
    fleet.run(&ALL, range, 0.5).await?;
    fleet.finish_run(&ALL, range.1, within(fleet, 0.5)).await?;
    let target = fleet.union().await?;
    match fleet.reach(&ALL, &target).await? {
        Some(_) => Ok(()),
        None => Err("the regions joined but never converged; nothing was judged".into()),
    }
}

async fn run_steady(
    fleet: &mut Fleet,
    figures: &mut Figures,
    range: (usize, usize),
    seconds: f64,
) -> Result<(), Box<dyn Error>> {
    fleet.progress.phase("all regions write the same keys");
    fleet.mark().await?;
    let before: Vec<_> = ALL.map(|site| fleet.sent_by(site)).to_vec();
    let (begun, writes_before) = (Instant::now(), fleet.journal.open().records.len());
    fleet.run(&ALL, range, seconds).await?;
    fleet.finish_run(&ALL, range.1, within(fleet, seconds)).await?;
    figures.steady_took = Some(begun.elapsed());
    let target = fleet.union().await?;
    fleet.reach(&ALL, &target).await?;
    for (site, before) in fleet.sites().zip(before) {
        let bytes = fleet.sent_by(site).zip(before).map(|(after, before)| after.saturating_sub(before));
        let name = REGIONS.get(site).copied().unwrap_or_default();
        let writes =
            fleet.journal.open().records.iter().skip(writes_before).filter(|r| r.region == name).map(|_| 1).sum();
        figures.steady.push(Steady { writes, bytes, lag: fleet.stats(site).await?.lag });
    }
    Ok(())
}

async fn cut_and_heal(
    fleet: &mut Fleet,
    figures: &mut Figures,
    (from, cut, heal): (usize, usize, usize),
    plan: &Plan,
) -> Result<(), Box<dyn Error>> {
    let name = REGIONS.get(CUT).copied().unwrap_or_default();
    if let Some(wan) = &fleet.wan {
        wan.cut(CUT);
        fleet.progress.phase(&format!("{name} is cut off for {} s; all keep writing", plan.cut_s));
    }
    fleet.run(&ALL, (from, cut), plan.cut_s).await?;
    fleet.finish_run(&ALL, cut, within(fleet, plan.cut_s)).await?;
    // What there was to catch up with when the path came back.
    let target = fleet.union().await?;
    fleet.run(&ALL, (cut, heal), plan.heal_s).await?;
    let healed = fleet.wan.as_ref().map(|wan| wan.heal(CUT));
    if healed.is_some() {
        fleet.progress.phase(&format!("{name} is back; all keep writing"));
    }
    let took = fleet.reach(&ALL, &target).await?;
    if healed.is_some() {
        figures.heal = took;
        figures.complain_unless(took.is_some(), "did not converge after the heal");
    }
    fleet.finish_run(&ALL, heal, within(fleet, plan.heal_s)).await
}

/// Returns where the killed region's share goes on.
async fn kill_and_restart(
    fleet: &mut Fleet,
    figures: &mut Figures,
    (from, kill): (usize, usize),
    plan: &Plan,
) -> Result<usize, Box<dyn Error>> {
    let name = REGIONS.get(KILLED).copied().unwrap_or_default();
    fleet.run(&ALL, (from, kill), plan.kill_s).await?;
    sleep(Duration::from_secs_f64(plan.kill_s / 3.0)).await;
    // What it counted dies with it, so it is asked just before.
    let stats = fleet.stats(KILLED).await?;
    if let Some(sum) = figures.stats.get_mut(KILLED) {
        add_stats(sum, &stats);
    }
    fleet.progress.phase(&format!("{name} is killed; the others keep writing"));
    let resume = fleet.kill(KILLED, kill).await?.max(from);
    sleep(Duration::from_secs_f64(plan.kill_s / 3.0)).await;
    fleet.progress.phase(&format!("{name} is started again"));
    let target = fleet.union().await?;
    let begun = Instant::now();
    fleet.spawn(KILLED)?;
    fleet.joined(KILLED).await?;
    let reached = fleet.reach(&[KILLED], &target).await?;
    figures.restart = reached.map(|_| begun.elapsed());
    figures.complain_unless(reached.is_some(), "did not converge after the restart");
    fleet.finish_run(&SURVIVORS, kill, within(fleet, plan.kill_s)).await?;
    Ok(resume)
}

/// Lets all regions finish the file, the restarted one from where it was killed.
async fn finish(
    fleet: &mut Fleet,
    (resume, kill, last): (usize, usize, usize),
    seconds: f64,
) -> Result<(), Box<dyn Error>> {
    fleet.progress.phase("all regions write again");
    fleet.run(&[KILLED], (resume, last), seconds).await?;
    fleet.run(&SURVIVORS, (kill, last), seconds).await?;
    fleet.finish_run(&ALL, last, within(fleet, seconds)).await
}

async fn drain(fleet: &mut Fleet, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    fleet.progress.phase("nobody writes; waiting for the last messages");
    let target = fleet.union().await?;
    figures.drain = fleet.reach(&ALL, &target).await?;
    let agreed = fleet.agree().await?;
    figures.complain_unless(figures.drain.is_some() && agreed, "did not converge in the end");
    Ok(())
}

/// Takes all dumps while nothing expires.
async fn dump_in_silence(fleet: &mut Fleet) -> Result<Vec<Dump>, Box<dyn Error>> {
    fleet.progress.phase("waiting for a moment at which nothing expires");
    let deadlines = oracle::deadlines(&fleet.journal.open().records);
    for _ in 0..DUMPS_MAX {
        let at_ms = next_silence(&deadlines, wall_ms());
        sleep(Duration::from_millis(at_ms.saturating_sub(wall_ms()))).await;
        fleet.progress.phase("comparing all that is visible in every region");
        let dumps = fleet.dumps().await?;
        let from = dumps.iter().map(|d| d.from_ms).min().unwrap_or(0).saturating_sub(1);
        let to = dumps.iter().map(|d| d.to_ms).max().unwrap_or(0).saturating_add(1);
        if !deadlines.iter().any(|deadline| (from..=to).contains(deadline)) {
            return Ok(dumps);
        }
    }
    Err(format!("values expired during each of {DUMPS_MAX} attempts to compare the regions").into())
}

/// Returns the first moment from `now_ms` on around which nothing expires.
fn next_silence(deadlines: &[u64], now_ms: u64) -> u64 {
    let (before, after) = QUIET_MS;
    let mut at = now_ms;
    for deadline in deadlines {
        if *deadline > at.saturating_add(after) {
            break;
        }
        if deadline.saturating_add(before) > at {
            at = deadline.saturating_add(before);
        }
    }
    at
}

async fn conclude(fleet: Fleet, figures: &mut Figures, dumps: Vec<Dump>) -> Result<(), Box<dyn Error>> {
    let evidence = {
        let mut journal = fleet.journal.open();
        if journal.unreadable > fleet.killed.len() {
            return Err("a region wrote lines that are no reports; nothing can be judged".into());
        }
        figures.refused = std::mem::take(&mut journal.refused);
        let records = std::mem::take(&mut journal.records);
        Evidence { records, acked: journal.acked.clone(), killed: fleet.killed.clone(), dumps }
    };
    fleet.quit().await?;
    figures.count_writes(&evidence.records);
    figures.compared = evidence.dumps.iter().map(|dump| dump.cells.len()).max();
    figures.findings = Some(oracle::judge(&evidence));
    Ok(())
}

fn add_stats(sum: &mut Stats, more: &Stats) {
    sum.reads += more.reads;
    sum.hits += more.hits;
    sum.writes += more.writes;
    sum.refused += more.refused;
    sum.conflicts += more.conflicts;
    sum.frame_bytes_raw += more.frame_bytes_raw;
    sum.frame_bytes_sent += more.frame_bytes_sent;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_after_the_last_of_a_cluster_of_deadlines() {
        let (before, after) = QUIET_MS;
        assert_eq!(next_silence(&[], 500), 500);
        assert_eq!(next_silence(&[500 + after + 1], 500), 500);
        let cluster = [500, 900, 900 + after, 900 + 2 * after + before + 9];
        assert_eq!(next_silence(&cluster, 600), 900 + after + before);
        assert_eq!(next_silence(&[100], 600), 600, "what has expired long ago does not matter");
    }

    #[test]
    fn the_phases_cover_the_file() {
        let args = <crate::Cli as clap::Parser>::parse_from(["three_regions", "--short"]).demo;
        let plan = Plan::new(&args, 1_000);
        assert!(plan.ends.is_sorted() && plan.ends.last() == Some(&1_000));
        assert!((plan.cut_s - 2.0).abs() < f64::EPSILON);
    }
}
