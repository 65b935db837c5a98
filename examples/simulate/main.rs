//! Runs the simulator: thousands of seeds, planted faults, or one run told line by line.
//!
//! Every seed is a whole cluster in virtual time under faults drawn from the seed, checked against history; see
//! `driftless::sim` and `docs/verification.md`.
//!
//! # Invariants
//! * What a seed means depends on nothing but the seed and the configuration's name: not on threads, order or machine.
//! * Exit status 0 means that everything that was asked for was run and holds; anything else is 1.

mod args;
mod fleet;
mod planted;
mod progress;
mod tables;
mod tally;
mod telling;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use driftless::sim::Profile;
use serde_json::{Value, json};

use args::Cli;
use fleet::{Fleet, Limits};
use tally::Tally;

/// Below this an event that did not happen may be bad luck; from here on it is a part of the code nobody tests.
const EVENTS_JUDGED_FROM: u64 = 20_000;
/// The configuration in which every event must happen.
const ALL_EVENTS: &str = "swarm";

fn main() -> ExitCode {
    let cli = Cli::parse();
    fleet::quiet_panics();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let profile = Profile::named(&cli.config).ok_or_else(|| args::no_such_config(&cli.config))?;
    if cli.list {
        return print(&tables::list()).map(|()| true);
    }
    if let Some(file) = &cli.plan {
        return telling::plans(file, cli.trace);
    }
    if let Some(seed) = cli.seed {
        return telling::seed(profile, seed, cli);
    }
    match &cli.planted {
        Some(names) => planted(cli, profile, names),
        None => seeds(cli, profile),
    }
}

/// Runs many seeds.
fn seeds(cli: &Cli, profile: Profile) -> Result<bool, Box<dyn Error>> {
    let limits = Limits { from: cli.from, seeds: cli.seeds(), minutes: cli.minutes, failures: cli.failures_max };
    let fleet = Fleet { profile, threads: cli.threads(), fault: None };
    let bar = progress::Progress::new(limits, &format!("seeds of {profile}"));
    let mut tally = Tally::default();
    fleet.run(limits, |outcome| {
        tally.add(outcome);
        bar.show(&tally);
    });
    bar.finish();
    for failure in tally.failures.iter().take(cli.explain) {
        print(&telling::failure(profile, failure, cli.minimise_runs))?;
    }
    print(&tables::seeds(&tally, profile, limits))?;
    let never = tally.never();
    write_json(cli, &report(&tally, profile, &json!([])))?;
    let judged = tally.seeds >= EVENTS_JUDGED_FROM && profile.name() == ALL_EVENTS;
    let clean = tally.failures.is_empty() && !tally.excuses_too_much();
    let holds = clean && tally.seeds > 0 && (!judged || never.is_empty());
    print(&tables::verdict(&tally, holds, judged))?;
    Ok(holds)
}

/// Plants faults, one after the other, and wants each to be seen.
fn planted(cli: &Cli, profile: Profile, names: &str) -> Result<bool, Box<dyn Error>> {
    let faults = planted::faults(names)?;
    let mut results = Vec::new();
    for fault in faults {
        let result = planted::hunt(cli, profile, fault);
        print(&tables::planted_row(&result))?;
        results.push(result);
    }
    let rows: Vec<Value> = results.iter().map(planted::PlantedResult::json).collect();
    write_json(cli, &report(&Tally::default(), profile, &json!(rows)))?;
    print(&tables::planted(&results))?;
    Ok(results.iter().all(|result| result.caught.is_some()))
}

fn report(tally: &Tally, profile: Profile, planted: &Value) -> Value {
    let failures: Vec<Value> = tally.failures.iter().map(tally::Failed::json).collect();
    let excused: Vec<Value> = tally.excused.iter().map(tally::Excused::json).collect();
    let (p50, p99, max) = tally.convergence_ms();
    json!({
        "config": profile.name(),
        "seeds": tally.seeds,
        "failures": failures,
        "excused": excused,
        "seeds_per_second_per_core": tally.seeds_per_second_per_core(),
        "virtual_hours": tally.virtual_hours(),
        "convergence_ms": { "p50": p50, "p99": p99, "max": max },
        "replayed_seeds": tally.replayed,
        "events": tally.shares(),
        "events_never_hit": tally.never(),
        "planted": planted,
    })
}

fn write_json(cli: &Cli, report: &Value) -> Result<(), Box<dyn Error>> {
    if let Some(file) = &cli.json {
        std::fs::write(file, format!("{report:#}\n")).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

/// Prints to standard output; nobody reading it is no reason to stop counting.
fn print(text: &str) -> Result<(), Box<dyn Error>> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
