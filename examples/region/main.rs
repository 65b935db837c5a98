//! One region of the demo as a process of its own; see `--help`, and `examples/README.md`.

mod process;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the demo uses what a region does not")]
mod support;

use std::process::ExitCode;

use clap::Parser;

/// One region of a replicated cache: a full replica that listens on one UDP port, dials its peers
/// and lets you, a workload file, or the `three_regions` demo read and write.
#[derive(Parser, Debug)]
#[command(name = "region")]
struct Cli {
    #[command(flatten)]
    args: process::RegionArgs,
}

fn main() -> ExitCode {
    process::run(Cli::parse().args)
}
