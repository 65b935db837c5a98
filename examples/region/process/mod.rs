//! A region process: its arguments, its start and its three ways of being driven.
//!
//! `--control` is for the demo (JSON lines, `control.rs`), `--interactive` for people
//! (`interactive.rs`), and with neither it replays its workload file once and serves until it is
//! interrupted. The cache itself is behind `replica.rs` and nowhere else.
//!
//! # Invariants
//! * The process ends when its standard input does, so no region outlives the demo that began it.

mod control;
mod interactive;
mod replica;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::support::workload::{self, Op};
use replica::{Replica, Setup};

pub(crate) use replica::Transport;

/// How a region is started.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RegionArgs {
    /// The name of this region.
    #[arg(long)]
    pub(crate) region: String,
    /// The UDP address to listen on; port 0 takes any that is free.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// The UDP address of another region; give one for each.
    #[arg(long = "peer", value_name = "ADDR")]
    pub(crate) peers: Vec<SocketAddr>,
    /// A directory with `node.pem`, `node.key` and `ca.pem`; the certificate names region and node.
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: PathBuf,
    /// Operations to replay: JSON lines, see `examples/README.md`.
    #[arg(long, value_name = "FILE")]
    pub(crate) workload: Option<PathBuf>,
    /// Which operations without a region are this one's: number I of N.
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = parse_turn)]
    pub(crate) share: (usize, usize),
    /// Operations a second when replaying on its own.
    #[arg(long, default_value_t = 500.0)]
    pub(crate) rate: f64,
    /// Read commands for people from standard input; `help` lists them.
    #[arg(long, conflicts_with = "control")]
    pub(crate) interactive: bool,
    /// Speak JSON lines with the demo on standard input and output.
    #[arg(long)]
    pub(crate) control: bool,
    #[command(flatten)]
    pub(crate) transport: Transport,
}

fn parse_turn(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((i, n)) if i < n => Ok((i, n)),
        Some(_) | None => Err("expected I/N with I below N, for instance 0/3".to_owned()),
    }
}

/// Runs a region until it is told to stop.
pub(crate) fn run(args: RegionArgs) -> ExitCode {
    init_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&args.region, &error),
    };
    let region = args.region.clone();
    let outcome = runtime.block_on(serve(args));
    // A thread may still be waiting for a line of standard input; there is nothing to wait for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&region, error.as_ref()),
    }
}

fn complain(region: &str, error: &dyn Error) -> ExitCode {
    // Where standard error is closed there is nobody left to tell.
    drop(writeln!(std::io::stderr(), "{region}: {error}"));
    ExitCode::FAILURE
}

fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

async fn serve(args: RegionArgs) -> Result<(), Box<dyn Error>> {
    let ops = load(args.workload.as_deref())?;
    let setup = Setup {
        region: args.region.clone(),
        listen: args.listen,
        peers: args.peers.clone(),
        identity: args.identity.clone(),
        transport: args.transport,
        ops: Arc::clone(&ops),
    };
    let replica = if args.control { control::start(setup).await? } else { Replica::start(setup).await? };
    let place = control::Place { region: args.region, turn: args.share };
    if args.interactive {
        interactive::serve(replica).await
    } else if args.control {
        control::Control::new(replica, ops, place).serve().await
    } else {
        control::Control::new(replica, ops, place).replay(args.rate).await
    }
}

fn load(path: Option<&std::path::Path>) -> Result<Arc<[Op]>, Box<dyn Error>> {
    let Some(path) = path else { return Ok(Arc::from([])) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let ops = workload::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Arc::from(ops))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_place_below_a_count() {
        assert_eq!(parse_turn("2/3"), Ok((2, 3)));
        for wrong in ["3/3", "x", "1", "1/0", "-1/2"] {
            assert!(parse_turn(wrong).is_err(), "{wrong}");
        }
    }
}
