//! What is going on, while it goes on: a line for everything that happens, and on a terminal a bar below them.
//!
//! # Invariants
//! * The timeline goes to standard error, so standard output holds the result and nothing else.
//! * No line is longer than 80 columns with the names of the demo's regions.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// The timeline; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    bar: ProgressBar,
    terminal: bool,
    begun: Instant,
}

impl Timeline {
    /// Begins with so many steps ahead.
    pub(crate) fn new(steps: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        let bar = if terminal { ProgressBar::new(steps) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{elapsed:>7}  {bar:20} {pos}/{len}  {wide_msg}");
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, terminal, begun: Instant::now() }
    }

    /// Says what happens, under a heading or under the last one.
    pub(crate) fn say(&self, heading: &str, what: &str) {
        let line = line(self.begun.elapsed(), heading, what);
        if self.terminal {
            self.bar.println(line);
        } else {
            // Where standard error is closed there is nobody to be told.
            drop(writeln!(std::io::stderr(), "{line}"));
        }
    }

    /// Says what is being done, on the bar.
    pub(crate) fn now(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Notes that a step is done.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(after: Duration, heading: &str, what: &str) -> String {
    format!("{:6.1} s  {heading:<15} {what}", after.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{Incident, Kind};
    use crate::world::World;
    use clap::ValueEnum;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn whatever_happens_wherever_fits_eighty_columns() {
        let world = World { nodes: 1, cloned: 0 };
        for kind in Kind::value_variants() {
            for seed in 1..=5 {
                let (region, other) = kind.happens_to(seed);
                let incident = Incident {
                    kind: *kind,
                    region,
                    targets: BTreeSet::from([region]),
                    newcomer: None,
                    witnesses: other.into_iter().collect(),
                    replicas: BTreeSet::new(),
                    sites: BTreeMap::new(),
                    from_ms: 0,
                    quiet_ms: 0,
                    healing_ms: 0,
                    until_ms: 0,
                };
                let line = line(Duration::from_secs(999), kind.name(), &incident.text(world));
                assert!(line.len() <= 80, "{line}");
            }
        }
    }
}
