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

/// Runs seeds with a fault planted until one sees it. A seed that fails without the fault sees something else: it is named
/// and passed over.
pub(crate) fn hunt(cli: &Cli, profile: Profile, fault: Fault) -> PlantedResult {
    let whole = Limits { from: cli.from, seeds: cli.seeds(), minutes: cli.minutes, failures: 1 };
    let (bar, mut rest) = (Progress::new(whole, fault.name()), whole);
    loop {
        let mut tally = Tally::default();
        Fleet { profile, threads: cli.threads(), fault: Some(fault) }.run(rest, |outcome| {
            tally.add(outcome);
            bar.show(&tally);
        });
        let tried = |seed: u64| seed.wrapping_sub(whole.from) + 1;
        let Some(failed) = tally.failures.into_iter().min_by_key(|failed| tried(failed.seed)) else {
            bar.finish();
            return PlantedResult { fault, caught: None, seeds: rest.from.wrapping_sub(whole.from) + tally.seeds };
        };
        let seeds = tried(failed.seed);
        if !fails_anyway(profile, failed.seed) {
            bar.finish();
            return PlantedResult { fault, caught: Some(failed), seeds };
        }
        eprintln!("seed {} fails without {}, too: {}", failed.seed, fault.name(), failed.failure);
        rest = Limits { from: failed.seed.wrapping_add(1), seeds: whole.seeds.saturating_sub(seeds), ..whole };
    }
}

fn fails_anyway(profile: Profile, seed: u64) -> bool {
    let mut tally = Tally::default();
    let one = Limits { from: seed, seeds: 1, minutes: None, failures: 1 };
    Fleet { profile, threads: 1, fault: None }.run(one, |outcome| tally.add(outcome));
    !tally.failures.is_empty()
}
