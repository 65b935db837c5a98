//! Measures what a brown-out does: a region's link shrinks to a fraction while another one writes faster than it carries.
//!
//! Real QUIC in virtual time. One node writes at a steady rate over a fixed number of keys, in values nobody can compress;
//! the link of another narrows, and widens again.

#[path = "support/progress.rs"]
mod progress;
#[path = "support/stale.rs"]
mod stale;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use driftless::sim::SimConfig;
use progress::progress;
use serde_json::json;
use stale::{LOOK_EVERY, Load, Look, Rate, STEP, ages, stale};

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
    let bar = progress(cli.seconds + HEALTHY.as_secs() * 2, "virtual seconds");
    let rate = Rate { writes: cli.writes, keys: cli.keys, value: cli.value };
    let mut config = SimConfig { nodes: cli.nodes, ..SimConfig::default() };
    config.node.replication.express = !cli.no_express;
    let mut load = Load::new(rate, Duration::from_millis(cli.rtt_ms), config, cli.seed)?;
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
