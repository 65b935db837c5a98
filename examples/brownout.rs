//! Measures what a brown-out does: a region's link shrinks to a fraction while another one writes faster than it carries.
//!
//! Real QUIC in virtual time. One node writes at a steady rate over a fixed number of keys, in values nobody can compress;
//! the link of another narrows, and widens again. A key is *stale* at the other node from the instant its value there was
//! overwritten at the writer; a value's *age* is how old it was when it arrived there.
//!
//! # Invariants
//! * A figure follows from the seed and the options.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use driftless::crdt::NEVER;
use driftless::sim::{Action, Carrier, SimCluster, SimConfig, Weather};
use driftless::store::{Body, Family, KeyRef, Keyspace};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

/// Measures how stale a region becomes behind a link that is too narrow for a while, and how soon it is up to date again.
#[derive(Parser, Debug)]
#[command(name = "brownout", after_help = TEACH)]
struct Cli {
    /// Writes a second, at one node.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    writes: u64,
    /// Keys they are spread over.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    keys: u64,
    /// Bytes of a value, all random.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    value: usize,
    /// How wide the link is in health, in Mbit/s.
    #[arg(long, value_name = "MBIT", default_value_t = 100)]
    wide: u16,
    /// How wide it is in the brown-out, in Mbit/s.
    #[arg(long, value_name = "MBIT", default_value_t = 2)]
    narrow: u16,
    /// How long that lasts.
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
    /// The round trip, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 150)]
    rtt_ms: u64,
    /// Nodes; the second one's link narrows.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Sends all frames on one stream.
    #[arg(long)]
    no_express: bool,
    /// Where the random numbers begin.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Writes the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const TEACH: &str = "\
A beginner's round:
  cargo run --release --features sim --example brownout
      100 Mbit/s become 2 for half a minute, at 5,000 writes a second.
  cargo run --release --features sim --example brownout -- --narrow 1 --seconds 60
      Less, and for longer.";

/// The node that writes, and the one whose link narrows.
const WRITER: usize = 0;
const BEHIND: usize = 1;
/// How often writes are made, and how often staleness is looked at.
const STEP: Duration = Duration::from_millis(1);
const LOOK_EVERY: u32 = 20;
/// What counts as up to date again.
const UP_TO_DATE: Duration = Duration::from_millis(300);
/// How long the link is healthy before and after.
const HEALTHY: Duration = Duration::from_secs(10);

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
    let brownout = Duration::from_secs(cli.seconds);
    let bar = progress(cli.seconds + HEALTHY.as_secs() * 2);
    let mut load = Load::new(cli)?;
    let before = load.phase(HEALTHY, cli.wide, &bar)?;
    let during = load.phase(brownout, cli.narrow, &bar)?;
    let after = load.phase(HEALTHY, cli.wide, &bar)?;
    bar.finish_and_clear();
    let back = after.iter().rposition(|look| look.stale.1 >= UP_TO_DATE).map_or(0, |last| last + 1);
    let back = (back < after.len()).then(|| STEP * LOOK_EVERY * u32::try_from(back).unwrap_or(u32::MAX));
    let queued = load.queued;
    if let Some(file) = &cli.json {
        let ms = |time: Duration| u64::try_from(time.as_millis()).ok();
        let of = |(p50, p99)| json!({ "p50": ms(p50), "p99": ms(p99) });
        let phase = |looks: &[Look]| json!({ "stale_ms": of(stale(looks)), "age_ms": of(ages(looks)) });
        let figures = json!({
            "before": phase(&before),
            "during": phase(&during),
            "after": phase(&after),
            "back_ms": back.and_then(ms),
            "queued_bytes": queued,
            "seed": cli.seed,
        });
        std::fs::write(file, figures.to_string())?;
    }
    let row = |name: &str, looks: &[Look]| {
        let shown = |time: Duration| format!("{:>9.0} ms", time.as_secs_f64() * 1_000.0);
        let (stale, age) = (stale(looks), ages(looks));
        format!("  {name:<18}{}{}{}{}\n", shown(stale.0), shown(stale.1), shown(age.0), shown(age.1))
    };
    let back = back.map_or_else(|| "not in time".to_owned(), |back| format!("{:.2} s", back.as_secs_f64()));
    Ok(write!(
        std::io::stdout(),
        "{} writes/s over {} keys, {} Mbit/s become {} for {} s, {} ms there and back\n\n{:<20}{:>24}{:>24}\n{:<20}{:>12}{:>12}{:>12}{:>12}\n{}{}{}\nEvery key is less than {} ms stale {back} after the heal; at most {queued} bytes were queued for a link.\n",
        cli.writes,
        cli.keys,
        cli.wide,
        cli.narrow,
        cli.seconds,
        cli.rtt_ms,
        "",
        "a key is stale by",
        "a value that comes is",
        "",
        "median",
        "p99",
        "median",
        "p99",
        row("before", &before),
        row("in the brown-out", &during),
        row("after", &after),
        UP_TO_DATE.as_millis(),
    )?)
}

/// How stale keys were at one moment.
#[derive(Clone, Debug)]
struct Look {
    /// The median and the 99th percentile over all keys.
    stale: (Duration, Duration),
    /// How old each value was that had come since the last look.
    ages: Vec<Duration>,
}

/// A cluster and what was written to it.
#[derive(Debug)]
struct Load {
    cluster: SimCluster,
    rng: fastrand::Rng,
    space: [Arc<Keyspace>; 2],
    /// Of each key, when each of its values was written.
    written: Vec<Vec<Duration>>,
    /// Of each key, how many of them had been written when the one was that came last.
    came: Vec<u32>,
    writes: u64,
    value: usize,
    /// The most bytes that were ever queued for a link of the writer.
    queued: u64,
    /// Writes due, in thousandths.
    due: u64,
}

impl Load {
    fn new(cli: &Cli) -> Result<Self, Box<dyn Error>> {
        let delay = Duration::from_millis(cli.rtt_ms) / 2;
        let weather = Weather { delay_min: delay, delay_max: delay, loss: 0.0, ..Weather::default() };
        let mut config = SimConfig { nodes: cli.nodes, carrier: Carrier::Quic, weather, ..SimConfig::default() };
        config.node.replication.express = !cli.no_express;
        let mut cluster = SimCluster::new(cli.seed, config)?;
        let joined = |c: &SimCluster| (0..c.len()).all(|at| c.node(at).is_some_and(|node| node.stats().joined));
        cluster.run_until(HEALTHY, joined).ok_or("the cluster does not form")?;
        let open = |cluster: &SimCluster, at| {
            let store = cluster.store(at).ok_or("a node is missing")?;
            store.spaces().open("keys", Family::Register).map_err(|error| error.to_string())
        };
        let space = [open(&cluster, WRITER)?, open(&cluster, BEHIND)?];
        let (rng, keys) = (fastrand::Rng::with_seed(cli.seed), usize::try_from(cli.keys)?);
        let (written, came) = (vec![Vec::new(); keys], vec![0; keys]);
        Ok(Self { cluster, rng, space, written, came, writes: cli.writes, value: cli.value, queued: 0, due: 0 })
    }

    /// Writes for a while behind a link so wide, and looks at it now and then.
    fn phase(&mut self, lasts: Duration, mbit: u16, bar: &ProgressBar) -> Result<Vec<Look>, Box<dyn Error>> {
        let (at, bytes_per_ms) = (u8::try_from(BEHIND)?, mbit.saturating_mul(125));
        self.cluster.perform(Action::Slow { at, bytes_per_ms });
        let mut looks = Vec::new();
        for step in 1..=u32::try_from(lasts.as_millis() / STEP.as_millis())? {
            self.due += self.writes;
            while self.due >= 1_000 {
                self.due -= 1_000;
                self.write()?;
            }
            self.cluster.run_for(STEP);
            if step.is_multiple_of(LOOK_EVERY) {
                looks.push(self.look());
            }
            if step.is_multiple_of(1_000) {
                bar.inc(1);
            }
        }
        Ok(looks)
    }

    fn write(&mut self) -> Result<(), Box<dyn Error>> {
        let key = self.rng.usize(..self.written.len());
        let versions = self.written.get_mut(key).ok_or("a key is missing")?;
        versions.push(self.cluster.elapsed());
        let mut value = u32::try_from(versions.len())?.to_be_bytes().to_vec();
        value.resize_with(self.value.max(4), || self.rng.u8(..));
        let (space, name, value) = (&self.space[WRITER], key.to_be_bytes(), Bytes::from(value));
        let key = KeyRef::new(space, &name);
        self.cluster.write(WRITER, &key, Some(value.len()), |p, tick| p.set(&key, value, NEVER, tick))?;
        Ok(())
    }

    fn look(&mut self) -> Look {
        let queued = self.cluster.gauges(WRITER).and_then(|gauges| gauges.of("queued bytes of a link"));
        self.queued = self.queued.max(queued.map_or(0, |gauge| gauge.size));
        let now = self.cluster.elapsed();
        let (mut stale, mut ages) = (Vec::with_capacity(self.written.len()), Vec::new());
        let shown: Vec<u32> = (0..self.written.len()).map(|key| self.shown(key)).collect();
        for ((versions, came), shown) in self.written.iter().zip(&mut self.came).zip(shown) {
            let at = |nth: u32| versions.get(usize::try_from(nth).unwrap_or(usize::MAX)).map(|at| now - *at);
            stale.push(at(shown).unwrap_or_default());
            if shown > *came {
                ages.extend(at(shown - 1));
                *came = shown;
            }
        }
        Look { stale: quantiles(stale), ages }
    }

    /// The number of the value a key has behind the link; 0 if it has none there.
    fn shown(&self, key: usize) -> u32 {
        let (space, name) = (&self.space[BEHIND], key.to_be_bytes());
        let value = self.cluster.store(BEHIND).and_then(|store| {
            store.with_entry(&KeyRef::new(space, &name), |entry| match &entry?.body {
                Body::Register(cell) => cell.as_ref()?.visible(0).cloned(),
                Body::Tree(_) | Body::Custom(_) => None,
            })
        });
        value.and_then(|value| value.first_chunk().copied()).map_or(0, u32::from_be_bytes)
    }
}

/// The median over time of the median key, and the worst moment's 99th percentile.
fn stale(looks: &[Look]) -> (Duration, Duration) {
    let median = quantiles(looks.iter().map(|look| look.stale.0).collect()).0;
    (median, looks.iter().map(|look| look.stale.1).max().unwrap_or_default())
}

fn ages(looks: &[Look]) -> (Duration, Duration) {
    quantiles(looks.iter().flat_map(|look| &look.ages).copied().collect())
}

/// Returns the median and the 99th percentile.
fn quantiles(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    let at = |percent: usize| all.get(all.len() * percent / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

fn progress(seconds: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seconds);
    let style = ProgressStyle::with_template("{elapsed:>4} {bar:24} {pos}/{len} virtual seconds, {eta} to go");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
