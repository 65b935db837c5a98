//! What can be asked for.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;
use driftless::sim::Profile;

/// Runs clusters in virtual time under faults, checks them against history, and says which seed to replay.
///
/// A seed is a cluster of two to nine nodes, a network, a schedule of faults and traffic, and a verdict. The same seed
/// gives the same run, on any machine.
#[derive(Parser, Debug)]
#[command(name = "simulate", after_help = TEACH, after_long_help = TEACH)]
pub(crate) struct Cli {
    /// How many seeds to run; 1000 unless --minutes is given.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) from: u64,
    /// Which faults are drawn; --list shows all configurations.
    #[arg(long, value_name = "NAME", default_value = "swarm")]
    pub(crate) config: String,
    /// Threads, each running a seed of its own; one per core by default.
    #[arg(long, value_name = "T")]
    threads: Option<NonZeroUsize>,
    /// Writes the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Runs one seed only.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "minutes", "planted"])]
    pub(crate) seed: Option<u64>,
    /// Tells the run of --seed or --plan line by line: steps, what was delivered, what nodes said.
    #[arg(long)]
    pub(crate) trace: bool,
    /// Runs plans from a file, one per line, as in tests/seeds.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "planted"])]
    pub(crate) plan: Option<PathBuf>,
    /// Plants a fault and runs seeds until it is caught: all, or names separated by commas. Needs a build of its own.
    #[arg(long, value_name = "all|NAME,...")]
    pub(crate) planted: Option<String>,
    /// Stops after so many minutes, whatever was done by then.
    #[arg(long, value_name = "M")]
    pub(crate) minutes: Option<f64>,
    /// Stops after so many failures.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) failures_max: usize,
    /// Failures that are minimised and told in full.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) explain: usize,
    /// Runs spent on making a failing schedule smaller.
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub(crate) minimise_runs: usize,
    /// Lists configurations, rare events and planted faults.
    #[arg(long)]
    pub(crate) list: bool,
}

const TEACH: &str = "\
A beginner's round:
  cargo run --release --features sim --example simulate -- --seeds 1000
      A thousand seeds. A failure is minimised and told; its last lines say how to replay and how to keep it.
  cargo run --release --features sim --example simulate -- --seed 42 --trace
      What seed 42 is: every step, every event.
  cargo run --release --features sim --example simulate -- --config clocks --minutes 5
      Five minutes of clocks that are off.
  RUSTFLAGS=\"--cfg planted\" CARGO_TARGET_DIR=target/planted \\
  cargo run --release --no-default-features --features sim --example simulate -- --planted all
      Plants mistakes, one at a time, and wants each to be caught.

--no-default-features leaves QUIC out and builds faster; a seed means the same either way.";

/// Seeds of a run that names neither a number nor a time.
const SEEDS: u64 = 1_000;
/// Seeds within which a planted fault must be caught.
const PLANTED_SEEDS: u64 = 20_000;

impl Cli {
    /// How many seeds: without limit where only a time is given.
    pub(crate) fn seeds(&self) -> u64 {
        let default = match (&self.planted, self.minutes) {
            (Some(_), _) => PLANTED_SEEDS,
            (None, Some(_)) => u64::MAX,
            (None, None) => SEEDS,
        };
        self.seeds.unwrap_or(default)
    }

    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }
}

pub(crate) fn no_such_config(name: &str) -> String {
    let names: Vec<&str> = Profile::all().iter().map(Profile::name).collect();
    format!("there is no configuration {name}; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["simulate", "--minutes", "1"]);
        assert_eq!((cli.seeds(), cli.from), (u64::MAX, 1));
        assert_eq!(Cli::parse_from(["simulate"]).seeds(), SEEDS);
        assert_eq!(Cli::parse_from(["simulate", "--planted", "all"]).seeds(), PLANTED_SEEDS);
    }
}
