//! Measures what repair costs the writes beside it: a copy loses many keys silently and is given them back while another
//! node goes on writing to it.
//!
//! Real QUIC in virtual time. What is lost are other keys than those written, so what is seen is what repair takes from
//! the link.

#[path = "support/progress.rs"]
mod progress;
#[path = "support/stale.rs"]
mod stale;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use driftless::crdt::NEVER;
use driftless::sim::SimConfig;
use driftless::store::{Family, KeyRef};
use progress::progress;
use serde_json::json;
use stale::{BEHIND, Load, Look, Rate, WRITER, ages, stale};

/// Measures how late writes come while a copy is given back what it lost.
#[derive(Parser, Debug)]
#[command(name = "repair", after_help = TEACH)]
struct Cli {
    /// Keys that are lost.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    lost: u32,
    /// Bytes of each one's value.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000)]
    lost_value: usize,
    /// Bytes a second a node may send to restore them; everything the link carries if it is large.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    budget: u64,
    /// Writes a second beside it.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    writes: u64,
    /// How wide the link is, in Mbit/s.
    #[arg(long, value_name = "MBIT", default_value_t = 100)]
    mbit: u16,
    /// The round trip, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 150)]
    rtt_ms: u64,
    /// Where the random numbers begin.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Writes the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const TEACH: &str = "\
A beginner's round:
  cargo run --release --features sim --example repair
      20 MB are lost and given back at the default megabyte a second.
  cargo run --release --features sim --example repair -- --budget 1000000000
      The same as fast as the link and its window let them through.";

/// How long writes are watched before anything is lost.
const HEALTHY: Duration = Duration::from_secs(5);
/// How often it is looked whether all is back, and how often that is done at most.
const SLICE: Duration = Duration::from_millis(500);
const SLICES_MAX: u32 = 600;

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
    let mut config = SimConfig { nodes: 2, ..SimConfig::default() };
    config.node.repair.bytes_per_second = cli.budget;
    config.node.repair.every = None;
    let rate = Rate { writes: cli.writes, keys: 2_000, value: 200 };
    let mut load = Load::new(rate, Duration::from_millis(cli.rtt_ms), config, cli.seed)?;
    let bulk = Bulk { keys: cli.lost, value: cli.lost_value };
    bulk.write(&mut load)?;
    let bar = progress(HEALTHY.as_secs(), "virtual seconds");
    load.phase(HEALTHY, cli.mbit, &bar)?;
    let before = load.phase(HEALTHY, cli.mbit, &bar)?;
    bar.finish_and_clear();
    bulk.lose(&load)?;
    let began = load.cluster.elapsed();
    let mut during = Vec::new();
    for _ in 0..SLICES_MAX {
        if load.cluster.node(WRITER).is_some_and(|node| node.repair_progress().is_none()) {
            load.cluster.repair(WRITER, SLICE * SLICES_MAX);
        }
        during.extend(load.phase(SLICE, cli.mbit, &bar)?);
        if bulk.held(&load)? == cli.lost {
            break;
        }
    }
    let took = load.cluster.elapsed() - began;
    let held = bulk.held(&load)?;
    if held < cli.lost {
        return Err(format!("only {held} of {} keys came back in {took:?}", cli.lost).into());
    }
    show(cli, took, (&before, &during))
}

fn show(cli: &Cli, took: Duration, (before, during): (&[Look], &[Look])) -> Result<(), Box<dyn Error>> {
    let (was, is) = (ages(before), ages(during));
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64().max(f64::EPSILON);
    let path = Duration::from_millis(cli.rtt_ms) / 2;
    if let Some(file) = &cli.json {
        let ms = |(p50, p99): (Duration, Duration)| json!({ "p50": u64::try_from(p50.as_millis()).ok(), "p99": u64::try_from(p99.as_millis()).ok() });
        let took_ms = u64::try_from(took.as_millis()).ok();
        let figures = json!({
            "before_ms": ms(was), "during_ms": ms(is), "took_ms": took_ms,
            "stale_ms": { "before": ms(stale(before)), "during": ms(stale(during)) },
            "ratio_to_path": { "p50": ratio(is.0, path), "p99": ratio(is.1, path) }, "seed": cli.seed,
        });
        std::fs::write(file, figures.to_string())?;
    }
    let row = |name: &str, (p50, p99): (Duration, Duration), worst: Duration| {
        let ms = |time: Duration| format!("{:>9.0} ms", time.as_secs_f64() * 1_000.0);
        let times = format!("{:>9.2}{:>9.2}", ratio(p50, path), ratio(p99, path));
        format!("  {name:<18}{}{}{times}{}\n", ms(p50), ms(p99), ms(worst))
    };
    Ok(write!(
        std::io::stdout(),
        "{} keys of {} B were lost and back after {:.1} s; {} writes/s beside it, {} Mbit/s, {} ms one way\n\n{:<20}{:>12}{:>12}{:>18}{:>12}\n{}{}",
        cli.lost,
        cli.lost_value,
        took.as_secs_f64(),
        cli.writes,
        cli.mbit,
        path.as_millis(),
        "a value that comes is",
        "median",
        "p99",
        "times the path",
        "stale, p99",
        row("before", was, stale(before).1),
        row("beside repair", is, stale(during).1),
    )?)
}

/// The keys that are lost.
#[derive(Clone, Copy, Debug)]
struct Bulk {
    keys: u32,
    value: usize,
}

impl Bulk {
    fn write(self, load: &mut Load) -> Result<(), Box<dyn Error>> {
        let mut rng = fastrand::Rng::with_seed(u64::from(self.keys));
        let space =
            load.cluster.store(WRITER).ok_or("the writer is missing")?.spaces().open("bulk", Family::Register)?;
        for key in 0..self.keys {
            let value: Bytes = std::iter::repeat_with(|| rng.u8(..)).take(self.value).collect();
            let name = key.to_be_bytes();
            let key = KeyRef::new(&space, &name);
            load.cluster.write(WRITER, &key, Some(value.len()), |p, tick| p.set(&key, value, NEVER, tick))?;
        }
        for _ in 0..SLICES_MAX {
            load.cluster.run_for(SLICE);
            if self.held(load)? == self.keys {
                return Ok(());
            }
        }
        Err("the keys do not arrive".into())
    }

    fn lose(self, load: &Load) -> Result<(), Box<dyn Error>> {
        let store = load.cluster.store(BEHIND).ok_or("the other node is missing")?;
        let space = store.spaces().find("bulk").ok_or("a keyspace is missing")?;
        for key in 0..self.keys {
            let name = key.to_be_bytes();
            let key = KeyRef::new(&space, &name);
            if let Some(mut partition) = store.lock(store.place(key.hash)) {
                partition.lose(key.hash, store.spaces());
            }
        }
        Ok(())
    }

    /// How many of the keys the other node has.
    fn held(self, load: &Load) -> Result<u32, Box<dyn Error>> {
        let store = load.cluster.store(BEHIND).ok_or("the other node is missing")?;
        let Some(space) = store.spaces().find("bulk") else { return Ok(0) };
        let has = |key: &u32| store.with_entry(&KeyRef::new(&space, &key.to_be_bytes()), |entry| entry.is_some());
        Ok(u32::try_from((0..self.keys).filter(has).count())?)
    }
}
