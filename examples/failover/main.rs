//! Failover, to be seen: regions are cut off, killed, slowed down, isolated, restarted and cloned, and clients go on.
//!
//! Five regions of operating system processes on this machine replicate over QUIC with mutual TLS, through a relay in
//! user space that gives them the distances of five continents' coasts. Clients near each region make requests all the
//! time; the library's routers say where they go. What is noticed, agreed, rerouted, lost and repaired is measured per
//! incident, and in the end every node must show what the clients' answered requests demand.
//!
//! # Invariants
//! * No process outlives the demo: each is ended by its handle when the demo ends, however it ends, and ends by itself
//!   when its standard input closes.
//! * Exit status 0 means that nothing diverged or came back, nothing acknowledged by a quorum was lost, repair found nothing,
//!   all whom it concerned noticed in time, nobody raised a false alarm, and every client was served, none having waited for
//!   more than a second; anything else is 1.

mod alarms;
mod child;
mod client;
mod counters;
#[path = "../support/dev_ca.rs"]
mod dev_ca;
mod duty;
mod fleet;
#[path = "../support/identity.rs"]
#[expect(dead_code, reason = "the three regions keep a file there")]
mod identity;
mod incident;
mod ledger;
mod marks;
mod node;
mod play;
mod plot;
mod protocol;
mod report;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the three regions replay a workload")]
mod support;
mod timeline;
#[path = "../support/wan/mod.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the three regions count bytes"))]
mod wan;
mod world;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use incident::Kind;
use ledger::Ledger;
use play::Plan;
use report::Figures;
use world::World;

/// Five regions that fail one after the other, over real QUIC on one machine.
#[derive(Parser, Debug)]
#[command(name = "failover", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    demo: DemoArgs,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this executable is: the demo, or one of the nodes it starts.
#[derive(Subcommand, Debug)]
enum Role {
    /// One node. The demo starts itself this way, so that one build is enough.
    #[command(hide = true)]
    Node(node::NodeArgs),
}

/// How the demo runs.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Writes the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws the requests per region over time, as SVG. Without it the picture lies beside the JSON.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// What happens, in order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::value_variants().iter().copied())]
    events: Vec<Kind>,
    /// Processes in each region.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_nodes)]
    nodes: usize,
    /// Everything takes half as long, for continuous integration.
    #[arg(long)]
    short: bool,
    /// Decides which datagrams are lost, how late the others are, what clients do, and which regions are hit.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Datagrams the relay loses between regions, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = parse_percent)]
    loss: f64,
    /// How long a node may take to join or to catch up before that is a failure.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_seconds: u64,
}

fn parse_nodes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(nodes) if (1..=5).contains(&nodes) => Ok(nodes),
        Ok(_) | Err(_) => Err("expected a number from 1 to 5".to_owned()),
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=20.0).contains(&percent) => Ok(percent),
        Ok(_) | Err(_) => Err("expected a percentage from 0 to 20".to_owned()),
    }
}

impl DemoArgs {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    fn plan(&self) -> Plan {
        let seconds = |long: f64| Duration::from_secs_f64(if self.short { long / 2.0 } else { long });
        Plan { steady: seconds(4.0), hold: seconds(5.0), stable: seconds(2.0), rest: seconds(2.0) }
    }

    fn world(&self) -> World {
        World { nodes: self.nodes, cloned: Kind::ClonedIdentity.happens_to(self.seed).0 }
    }

    /// Returns where the picture goes.
    fn picture(&self) -> Option<PathBuf> {
        self.plot.clone().or_else(|| Some(self.json.as_ref()?.with_extension("svg")))
    }
}

/// The executable that is started for each node: this one.
#[derive(Clone, Debug)]
pub(crate) struct Program(PathBuf);

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Role::Node(args)) = cli.role {
        return node::run(&args);
    }
    match demo(&cli.demo) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Where standard error is closed there is nobody left to tell.
            drop(writeln!(std::io::stderr(), "failover: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; true if everything is as it must be. The figures are written in any case.
fn demo(args: &DemoArgs) -> Result<bool, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut figures, ledger) = (Figures::new(args), Ledger::default());
    let program = Program(std::env::current_exe()?);
    let played = runtime.block_on(async {
        tokio::select! {
            played = play::play(args, program, &mut figures, &ledger) => played,
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                Err("interrupted; all nodes were ended".into())
            }
        }
    });
    // What was measured until then is shown and written all the same; the verdict says why no more.
    figures.complain_unless(played.is_ok(), &played.err().map(|e| e.to_string()).unwrap_or_default());
    figures.conclude(&ledger.open());
    write!(std::io::stdout(), "{}", report::table(&figures)?)?;
    let write =
        |path: &PathBuf, text: String| std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
    if let Some(path) = &args.json {
        write(path, serde_json::to_string_pretty(&report::json(&figures))? + "\n")?;
    }
    if let Some(path) = &args.picture() {
        write(path, plot::svg(&figures, &ledger.open())?)?;
    }
    Ok(figures.is_good())
}
