//! The main job, to be seen: three regions write the same keys at the same time and converge.
//!
//! Three operating system processes on this machine replicate over QUIC with mutual TLS, through a
//! relay in user space that gives them the distances of three continents. A workload is replayed
//! through all three at once; one region is cut off and healed, another is killed and started
//! again. In the end every region's visible state is compared with the others' and with what the
//! operations issued demand.
//!
//! # Invariants
//! * No process outlives the demo: each is ended by its handle when the demo ends, however it ends,
//!   and ends by itself when its standard input closes.
//! * Exit status 0 means converged, nothing lost, nothing resurrected; anything else is 1.

#[path = "../support/dev_ca.rs"]
mod dev_ca;
mod fleet;
#[path = "../support/identity.rs"]
mod identity;
mod oracle;
mod phases;
#[path = "../region/process/mod.rs"]
mod process;
mod progress;
mod region_process;
mod report;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wan/mod.rs"]
mod wan;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use report::Figures;

/// Three regions, active-active, over real QUIC on one machine.
#[derive(Parser, Debug)]
#[command(name = "three_regions", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    demo: DemoArgs,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this executable is: the demo, or one of the regions it starts.
#[derive(Subcommand, Debug)]
enum Role {
    /// One region, exactly like the `region` example. The demo starts itself this way, so that one
    /// build is enough.
    #[command(hide = true)]
    Region(process::RegionArgs),
}

/// How the demo runs.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Operations to replay: JSON lines, see `examples/README.md`.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/workload.jsonl"))]
    workload: PathBuf,
    /// Writes the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long one region is cut off.
    #[arg(long, value_name = "N")]
    cut_seconds: Option<f64>,
    /// Fewer operations and a cut of 2 s, for continuous integration.
    #[arg(long)]
    short: bool,
    /// Decides which datagrams are lost and how late the others are.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The network between the regions.
    #[arg(long, value_enum, default_value_t = Network::Relay)]
    wan: Network,
    /// Datagrams the relay loses, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = parse_percent)]
    loss: f64,
    #[command(flatten)]
    transport: process::Transport,
    /// How long a region may take to join or to catch up before that is a failure.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_seconds: u64,
}

/// The network between the regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Network {
    /// 40, 75 and 110 ms one way, up to 4 ms of jitter, and `--loss`.
    Relay,
    /// Raw loopback. Without the relay nobody can be cut off, so that part is left out.
    None,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=50.0).contains(&percent) => Ok(percent),
        Ok(_) | Err(_) => Err("expected a percentage from 0 to 50".to_owned()),
    }
}

impl DemoArgs {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Role::Region(args)) = cli.role {
        return process::run(args);
    }
    match demo(&cli.demo) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Where standard error is closed there is nobody left to tell.
            drop(writeln!(std::io::stderr(), "three_regions: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; true if everything is as it must be. The figures are written in any case.
fn demo(args: &DemoArgs) -> Result<bool, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = Figures::new(args);
    let played = runtime.block_on(async {
        tokio::select! {
            played = phases::play(args, &mut figures) => played,
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                Err("interrupted; all regions were ended".into())
            }
        }
    });
    // What was measured until then is shown and written all the same; the verdict says why no more.
    figures.complain_unless(played.is_ok(), &played.err().map(|e| e.to_string()).unwrap_or_default());
    write!(std::io::stdout(), "{}", report::table(&figures)?)?;
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report::json(&figures))?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(figures.is_good())
}
