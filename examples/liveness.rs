//! Measures the failure detector: how soon a cluster agrees that a node is gone, and how often it is wrong.
//!
//! Clusters of real nodes in virtual time, idle but for their beats. What goes wrong is the network only; nobody but the
//! node that is killed on purpose is ever gone, so every other alarm is a false one.
//!
//! # Invariants
//! * A figure follows from the seed and the options, whatever the number of threads.

#[path = "support/progress.rs"]
mod progress;

use std::error::Error;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use driftless::Event;
use driftless::config::MembershipConfig;
use driftless::membership::Reach;
use driftless::sim::{Bursts, SimCluster, SimConfig, Weather};
use progress::progress;
use serde_json::json;

/// Measures how soon a dead region is noticed, and how often a living one is called dead.
///
/// All of it in virtual time: ten thousand hours take some tens of minutes.
#[derive(Parser, Debug)]
#[command(name = "liveness", after_help = TEACH)]
struct Cli {
    /// Virtual hours in which nobody dies.
    #[arg(long, value_name = "N", default_value_t = 100)]
    hours: u64,
    /// Nodes killed, one per cluster.
    #[arg(long, value_name = "N", default_value_t = 200)]
    crashes: u64,
    /// Nodes of a cluster, each in a region of its own.
    #[arg(long, value_name = "N", default_value_t = 5)]
    nodes: usize,
    /// The round trip between any two of them, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 150)]
    rtt_ms: u64,
    /// Packets lost, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    loss: f64,
    /// Loss comes in bursts of this mean length instead: 80 % of packets below a second, 50 % from there on, and as many
    /// in all as --loss says.
    #[arg(long, value_name = "MS")]
    bursts_ms: Option<u64>,
    /// How impatient the nodes are.
    #[arg(long, value_enum, default_value_t = Preset::Wan)]
    preset: Preset,
    /// Threads, each with a cluster of its own; one per core by default.
    #[arg(long, value_name = "T")]
    threads: Option<NonZeroUsize>,
    /// Where the random numbers begin.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Writes the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const TEACH: &str = "\
A beginner's round:
  cargo run --release --features sim --example liveness
      A hundred hours and two hundred deaths at 150 ms and 1 % loss.
  cargo run --release --features sim --example liveness -- --loss 5 --preset fast
      What impatience costs on a bad network.
  cargo run --release --features sim --example liveness -- --bursts-ms 300 --hours 1000
      The same loss, but all at once.";

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Preset {
    Wan,
    Fast,
    Lan,
}

/// What one cluster did.
#[derive(Clone, Copy, Debug)]
enum Trial {
    /// In an hour without a death.
    Hour(Alarms),
    /// After a death.
    Crash(Death),
}

/// When the first survivor suspected a node that was killed, and when the last one called it unreachable.
#[derive(Clone, Copy, Debug)]
struct Death {
    suspected: Duration,
    agreed: Duration,
}

/// Alarms about nodes that were there.
#[derive(Clone, Copy, Debug, Default)]
struct Alarms {
    suspicions: u64,
    cuts: u64,
    unreachable: u64,
    isolated: u64,
}

/// All trials together.
#[derive(Clone, Debug, Default)]
struct Found {
    alarms: Alarms,
    suspected: Vec<Duration>,
    agreed: Vec<Duration>,
}

/// How much a packet may be earlier or later than the mean.
const JITTER: Duration = Duration::from_millis(5);
/// The least share of packets that bursts lose in all.
const LEAST: f64 = 1e-6;
/// Longest time a death may go unnoticed.
const PATIENCE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let bar = progress(cli.hours + cli.crashes, "hours and deaths");
    let mut found = Found::default();
    trials(cli, |trial| {
        bar.inc(1);
        found.take(trial?);
        Ok::<(), String>(())
    })?;
    bar.finish_and_clear();
    found.suspected.sort_unstable();
    found.agreed.sort_unstable();
    if let Some(file) = &cli.json {
        std::fs::write(file, found.json(cli).to_string())?;
    }
    Ok(write!(std::io::stdout(), "{}", found.table(cli))?)
}

/// Runs all trials on several threads and hands over each, in whatever order they come, until one cannot be had.
fn trials(cli: &Cli, mut each: impl FnMut(Result<Trial, String>) -> Result<(), String>) -> Result<(), String> {
    let threads = cli.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (to, results) = mpsc::sync_channel(threads);
        for _ in 0..threads {
            let (to, next) = (to.clone(), &next);
            scope.spawn(move || {
                let taken = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < cli.hours + cli.crashes);
                while taken().is_some_and(|n| to.send(trial(cli, n)).is_ok()) {}
            });
        }
        drop(to);
        results.into_iter().try_for_each(&mut each)
    })
}

fn trial(cli: &Cli, n: u64) -> Result<Trial, String> {
    let mut cluster = formed(cli, cli.seed.wrapping_add(n))?;
    if n < cli.hours { Ok(Trial::Hour(an_hour(&mut cluster))) } else { a_death(&mut cluster).map(Trial::Crash) }
}

/// Builds a cluster in which everybody hears everybody, at an instant that differs from seed to seed.
fn formed(cli: &Cli, seed: u64) -> Result<SimCluster, String> {
    let one_way = Duration::from_millis(cli.rtt_ms) / 2;
    let loss = cli.loss / 100.0;
    let weather = Weather {
        delay_min: one_way.saturating_sub(JITTER),
        delay_max: one_way + JITTER,
        loss: if cli.bursts_ms.is_some() { 0.0 } else { loss },
        bursts: cli.bursts_ms.map(|ms| bursts(Duration::from_millis(ms), loss)),
        ..Weather::default()
    };
    let mut config = SimConfig { nodes: cli.nodes, weather, ..SimConfig::default() };
    config.node.membership = match cli.preset {
        Preset::Wan => MembershipConfig::wan(),
        Preset::Fast => MembershipConfig::fast(),
        Preset::Lan => MembershipConfig::lan(),
    };
    let mut cluster = SimCluster::new(seed, config).map_err(|error| error.to_string())?;
    let linked = |c: &SimCluster| {
        (0..cli.nodes).all(|at| c.node(at).is_some_and(|node| node.stats().peers.len() == cli.nodes - 1))
    };
    cluster.run_until(PATIENCE, linked).ok_or_else(|| format!("seed {seed}: no cluster within {PATIENCE:?}"))?;
    cluster.run_for(Duration::from_secs(10) + Duration::from_millis(seed % 97));
    (0..cli.nodes).for_each(|at| drop(cluster.take_events(at)));
    Ok(cluster)
}

/// Returns bursts that lose as much in all as a loss that is spread evenly.
fn bursts(lasts: Duration, loss: f64) -> Bursts {
    let within = if lasts < Duration::from_secs(1) { 0.8 } else { 0.5 };
    Bursts { lasts, every: lasts.mul_f64((within / loss.max(LEAST) - 1.0).max(0.1)), loss: within }
}

fn an_hour(cluster: &mut SimCluster) -> Alarms {
    let mut alarms = Alarms::default();
    for _ in 0..60 {
        cluster.run_for(HOUR / 60);
        let events: Vec<Event> = (0..cluster.len()).flat_map(|at| cluster.take_events(at)).collect();
        let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).map(|_| 1).sum::<u64>();
        alarms.suspicions += count(|event| matches!(event, Event::Suspect { .. }));
        alarms.cuts += count(|event| matches!(event, Event::LinkDown { .. }));
        alarms.unreachable += count(|event| matches!(event, Event::Unreachable { .. }));
        alarms.isolated += count(|event| matches!(event, Event::Isolated));
    }
    alarms
}

fn a_death(cluster: &mut SimCluster) -> Result<Death, String> {
    let last = cluster.len() - 1;
    let gone = cluster.replica(last).ok_or("a cluster of nobody")?;
    cluster.crash(last);
    let reach = |c: &SimCluster, at| c.node(at).and_then(|node| node.reach(gone));
    let began = cluster.elapsed();
    cluster.run_until(PATIENCE, |c| (0..last).any(|at| reach(c, at) != Some(Reach::Up)));
    let suspected = cluster.elapsed() - began;
    let agreed = cluster.run_until(PATIENCE, |c| (0..last).all(|at| reach(c, at) == Some(Reach::Unreachable)));
    agreed.ok_or("a death went unnoticed")?;
    Ok(Death { suspected, agreed: cluster.elapsed() - began })
}

impl Found {
    fn take(&mut self, trial: Trial) {
        match trial {
            Trial::Hour(one) => {
                self.alarms.suspicions += one.suspicions;
                self.alarms.cuts += one.cuts;
                self.alarms.unreachable += one.unreachable;
                self.alarms.isolated += one.isolated;
            }
            Trial::Crash(death) => {
                self.suspected.push(death.suspected);
                self.agreed.push(death.agreed);
            }
        }
    }

    fn table(&self, cli: &Cli) -> String {
        let network = cli
            .bursts_ms
            .map_or_else(|| format!("{} % loss", cli.loss), |ms| format!("{} % loss in bursts of {ms} ms", cli.loss));
        let rows = [
            ("a link is suspected", self.alarms.suspicions),
            ("a path is called cut", self.alarms.cuts),
            ("a node is called unreachable", self.alarms.unreachable),
            ("a node takes itself for isolated", self.alarms.isolated),
        ];
        let hours = cli.hours.max(1);
        let rate = |n: u64| f64_of(n) * 10_000.0 / f64_of(hours);
        let rows: String = rows.iter().map(|(what, n)| format!("  {what:<34}{n:>9}{:>15.1}\n", rate(*n))).collect();
        let times = |label: &str, all: &[Duration]| {
            let at = |share| format!("{:>9.2} s", quantile(all, share).as_secs_f64());
            format!("  {label:<34}{}{}{}\n", at(0.5), at(0.99), at(1.0))
        };
        format!(
            "{} nodes, {} ms there and back, {network}, preset {:?}\n\n{:<36}{:>9}{:>15}\n{rows}\n{:<36}{:>11}{:>11}{:>11}\n{}{}",
            cli.nodes,
            cli.rtt_ms,
            cli.preset,
            "FALSE ALARMS",
            format!("{hours} h"),
            "in 10,000 h",
            format!("AFTER A DEATH ({})", self.agreed.len()),
            "median",
            "p99",
            "longest",
            times("somebody suspects it", &self.suspected),
            times("all survivors call it unreachable", &self.agreed),
        )
    }

    fn json(&self, cli: &Cli) -> serde_json::Value {
        let times = |all: &[Duration]| {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(all, share).as_millis());
            json!({ "p50": u64::try_from(p50).ok(), "p99": u64::try_from(p99).ok(), "max": u64::try_from(max).ok() })
        };
        json!({
            "nodes": cli.nodes,
            "rtt_ms": cli.rtt_ms,
            "loss_percent": cli.loss,
            "bursts_ms": cli.bursts_ms,
            "preset": format!("{:?}", cli.preset),
            "hours": cli.hours,
            "false_alarms": {
                "suspected": self.alarms.suspicions,
                "cut": self.alarms.cuts,
                "unreachable": self.alarms.unreachable,
                "isolated": self.alarms.isolated,
            },
            "crashes": self.agreed.len(),
            "suspected_ms": times(&self.suspected),
            "agreed_ms": times(&self.agreed),
        })
    }
}

fn f64_of(n: u64) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}

/// Returns the duration that so large a share of a sorted list does not exceed.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let count = |n: usize| f64_of(u64::try_from(n).unwrap_or(u64::MAX));
    let at = (0..sorted.len()).find(|at| count(at + 1) >= share * count(sorted.len()));
    at.and_then(|at| sorted.get(at)).copied().unwrap_or_default()
}
