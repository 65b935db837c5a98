//! What many seeds come to.

use std::collections::BTreeMap;
use std::time::Duration;

use driftless::probe::Sometimes;
use driftless::sim::{Failure, Limit};
use serde_json::{Value, json};

use crate::fleet::Outcome;

/// The share of seeds that may be excused, beside the first two.
const EXCUSED_MAX: f64 = 0.001;

/// A seed that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) seed: u64,
    pub(crate) failure: Failure,
}

impl Failed {
    pub(crate) fn json(&self) -> Value {
        json!({ "seed": self.seed, "invariant": self.failure.invariant, "detail": self.failure.detail })
    }
}

/// A seed that went beyond a limit of the design, and what did not hold there.
#[derive(Clone, Debug)]
pub(crate) struct Excused {
    limit: Limit,
    failed: Failed,
}

impl Excused {
    pub(crate) fn json(&self) -> Value {
        json!({ "limit": self.limit.name(), "what": self.failed.json() })
    }
}

/// The sum of all outcomes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) seeds: u64,
    pub(crate) replayed: u64,
    pub(crate) failures: Vec<Failed>,
    pub(crate) excused: Vec<Excused>,
    virtual_time: Duration,
    busy: Duration,
    /// In how many seeds each event happened.
    events: BTreeMap<Sometimes, u64>,
    /// How many seeds converged within so many milliseconds of the heal.
    converged: BTreeMap<u128, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.replayed += u64::from(outcome.replayed);
        self.virtual_time += outcome.virtual_time;
        self.busy += outcome.busy;
        for event in outcome.hits.into_keys() {
            *self.events.entry(event).or_default() += 1;
        }
        if let Some(took) = outcome.converged_in {
            *self.converged.entry(took.as_millis()).or_default() += 1;
        }
        if let Some(failure) = outcome.failure {
            self.failures.push(Failed { seed: outcome.seed, failure });
        }
        if let Some((limit, failure)) = outcome.excused {
            self.excused.push(Excused { limit, failed: Failed { seed: outcome.seed, failure } });
        }
    }

    /// Tells whether more was excused than is rare.
    pub(crate) fn excuses_too_much(&self) -> bool {
        count(self.excused.len().try_into().unwrap_or(u64::MAX)) > 2.0 + EXCUSED_MAX * count(self.seeds)
    }

    /// Seeds a core does in a second of its own time.
    pub(crate) fn seeds_per_second_per_core(&self) -> Option<f64> {
        let rate = count(self.seeds) / self.busy.as_secs_f64();
        rate.is_finite().then_some(rate)
    }

    pub(crate) fn virtual_hours(&self) -> f64 {
        self.virtual_time.as_secs_f64() / 3_600.0
    }

    /// The share of seeds in which an event happened.
    pub(crate) fn share(&self, event: Sometimes) -> f64 {
        count(self.events.get(&event).copied().unwrap_or(0)) / count(self.seeds.max(1))
    }

    pub(crate) fn shares(&self) -> BTreeMap<&'static str, f64> {
        Sometimes::ALL.iter().map(|event| (event.name(), self.share(*event))).collect()
    }

    /// The events that never happened.
    pub(crate) fn never(&self) -> Vec<&'static str> {
        Sometimes::ALL.iter().filter(|event| !self.events.contains_key(event)).map(|event| event.name()).collect()
    }

    /// Median, 99th percentile and maximum of the time from heal to agreement.
    pub(crate) fn convergence_ms(&self) -> (Option<u64>, Option<u64>, Option<u64>) {
        let total: u64 = self.converged.values().sum();
        let quantile = |percent: u64| {
            let mut left = (total * percent).div_ceil(100);
            self.converged.iter().find_map(|(ms, seeds)| {
                left = left.saturating_sub(*seeds);
                (left == 0).then(|| u64::try_from(*ms).unwrap_or(u64::MAX))
            })
        };
        (quantile(50), quantile(99), quantile(100))
    }
}

/// A count as a number to divide by.
fn count(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_seeds_not_of_distinct_times() {
        let mut tally = Tally::default();
        for (ms, seeds) in [(10, 98), (500, 1), (900, 1)] {
            tally.converged.insert(ms, seeds);
        }
        assert_eq!(tally.convergence_ms(), (Some(10), Some(500), Some(900)));
        assert_eq!(Tally::default().convergence_ms(), (None, None, None));
    }
}
