//! The test of the tests: each mistake is planted and must be seen.

use std::error::Error;

use driftless::probe::Fault;
use driftless::sim::Profile;
use serde_json::{Value, json};

use crate::args::Cli;
use crate::fleet::{Fleet, Limits};
use crate::progress::Progress;
use crate::tally::{Failed, Tally};

/// How the hunt for one fault ended.
#[derive(Debug)]
pub(crate) struct PlantedResult {
    pub(crate) fault: Fault,
    /// The first seed that saw it.
    pub(crate) caught: Option<Failed>,
    /// How many seeds that took; all of them if none saw it.
    pub(crate) seeds: u64,
}

impl PlantedResult {
    pub(crate) fn json(&self) -> Value {
        let caught = self.caught.as_ref();
        json!({
            "name": self.fault.name(),
            "caught": caught.is_some(),
            "seeds": self.seeds,
            "seed": caught.map(|failed| failed.seed),
            "invariant": caught.map(|failed| &failed.failure.invariant),
        })
    }
}

/// Returns the faults of a list of names.
pub(crate) fn faults(names: &str) -> Result<Vec<Fault>, Box<dyn Error>> {
    if !cfg!(planted) {
        return Err(NO_FAULTS.into());
    }
    if names == "all" {
        return Ok(Fault::ALL.to_vec());
    }
    let named = |name| Fault::from_name(name).ok_or_else(|| format!("there is no fault {name}; --list shows all"));
    Ok(names.split(',').map(str::trim).map(named).collect::<Result<_, _>>()?)
}

const NO_FAULTS: &str = "\
This build has no faults in it: they are compiled in by a flag of their own, so that no other build can hold one.

  RUSTFLAGS=\"--cfg planted\" CARGO_TARGET_DIR=target/planted \\
  cargo run --release --no-default-features --features sim --example simulate -- --planted all";

/// Runs seeds with a fault planted until one sees it.
pub(crate) fn hunt(cli: &Cli, profile: Profile, fault: Fault) -> PlantedResult {
    let limits = Limits { from: cli.from, seeds: cli.seeds(), minutes: cli.minutes, failures: 1 };
    let bar = Progress::new(limits, fault.name());
    let mut tally = Tally::default();
    Fleet { profile, threads: cli.threads(), fault: Some(fault) }.run(limits, |outcome| {
        tally.add(outcome);
        bar.show(&tally);
    });
    bar.finish();
    let caught = tally.failures.into_iter().min_by_key(|failed| failed.seed.wrapping_sub(limits.from));
    let seeds = caught.as_ref().map_or(tally.seeds, |failed| failed.seed.wrapping_sub(limits.from) + 1);
    PlantedResult { fault, caught, seeds }
}
