//! What a full mesh costs: clusters of real nodes in virtual time, idle but for their beats, that know one or two of the
//! others at the start.
//!
//! # Invariants
//! * All but the processor time follows from the seed and the options.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use clap::Parser;
use driftless::sim::{SimCluster, SimConfig, Weather};

/// Measures how soon a cluster is a full mesh, how soon one more is part of it, and what being one costs.
#[derive(Parser, Debug)]
#[command(name = "mesh", after_help = TEACH)]
struct Cli {
    /// Sizes of clusters, each node in a region of its own.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [3, 5, 9, 16, 50])]
    nodes: Vec<usize>,
    /// The round trip between any two of them, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 150)]
    rtt_ms: u64,
    /// Packets lost, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    loss: f64,
    /// Virtual seconds over which the cost is measured.
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// Where the random numbers begin.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

const TEACH: &str = "\
A beginner's round:
  cargo run --release --features sim --example mesh
      Three to fifty nodes; the last takes some minutes.";

/// How much a packet may be earlier or later than the mean.
const JITTER: Duration = Duration::from_millis(5);
/// Longest time a mesh may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let mut out = std::io::stdout();
    writeln!(out, "{} ms there and back, {} % loss; each node knows the first two\n", cli.rtt_ms, cli.loss)?;
    writeln!(out, "nodes  mesh after  one more after  beats/s/node  bytes/s/node  dials failed  CPU of an hour")?;
    for nodes in &cli.nodes {
        writeln!(out, "{}", row(&cli, *nodes)?)?;
    }
    Ok(())
}

fn row(cli: &Cli, nodes: usize) -> Result<String, Box<dyn Error>> {
    let one_way = Duration::from_millis(cli.rtt_ms) / 2;
    let weather = Weather {
        delay_min: one_way.saturating_sub(JITTER),
        delay_max: one_way + JITTER,
        loss: cli.loss / 100.0,
        ..Weather::default()
    };
    let config = SimConfig { nodes, spare: 1, seeds: vec![0b11; nodes + 1], weather, ..SimConfig::default() };
    let mut cluster = SimCluster::new(cli.seed, config)?;
    let formed = cluster.run_until(PATIENCE, |c| is_mesh(c, nodes)).ok_or("no mesh came to be")?;
    cluster.run_for(Duration::from_secs(5));
    cluster.take_delivered();
    let began = busy();
    cluster.run_for(Duration::from_secs(cli.seconds));
    let took = busy().zip(began).map(|(now, began)| now.saturating_sub(began));
    let delivered = cluster.take_delivered();
    cluster.start(nodes)?;
    let joined = cluster.run_until(PATIENCE, |c| is_mesh(c, nodes + 1)).ok_or("nobody finds the last")?;
    let share = u64::try_from(nodes)?.saturating_mul(cli.seconds).max(1);
    let hour = |took: Duration| took.mul_f64(3_600.0 / Duration::from_secs(cli.seconds.max(1)).as_secs_f64());
    let hour = took.map_or_else(|| "unknown".to_owned(), |took| format!("{:.0} s", hour(took).as_secs_f64()));
    Ok(format!(
        "{nodes:>5}{:>10.2} s{:>14.2} s{:>14}{:>14}{:>14}{hour:>16}",
        formed.as_secs_f64(),
        joined.as_secs_f64(),
        delivered.beats / share,
        delivered.bytes / share,
        delivered.failed_dials,
    ))
}

/// Returns the processor time this thread has had, where the system tells.
fn busy() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Tells whether the first so many nodes have joined one cluster and every two of them are linked.
fn is_mesh(cluster: &SimCluster, nodes: usize) -> bool {
    let all = || (0..nodes).filter_map(|at| cluster.node(at));
    all().count() == nodes
        && all().all(|one| {
            let knows_all = one.stats().joined && one.members().live().count() == nodes;
            knows_all && all().all(|other| one.me() == other.me() || one.is_linked(other.me().replica))
        })
}
