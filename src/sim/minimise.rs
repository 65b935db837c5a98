//! Makes a failing plan small enough to be read: delta debugging.
//!
//! Steps go first, in halves, quarters and so on down to single ones (Zeller and Hildebrandt, *Simplifying and Isolating
//! Failure-Inducing Input*, 2002), each piece once with the time it took kept and once without. Then what is left is made
//! plain: fewer nodes, no loss, no compression, shorter waits. A shorter plan draws other delays, so a candidate that
//! passes is tried again under two more seeds before it counts as passing.
//!
//! # Invariants
//! * What is returned fails in the same way; if nothing smaller does, it is the plan that was given.
//! * At most as many runs as asked for.

use super::plan::{Action, Plan, Step};
use super::run::Run;
use super::setting::Setting;

/// Returns a plan as small as could be found within `runs_max` runs that violates the same invariant.
#[must_use]
pub fn minimise(plan: &Plan, invariant: &str, runs_max: usize) -> Plan {
    let fails = |plan: &Plan| Run::new(plan).go().failure.is_some_and(|failure| failure.invariant == invariant);
    minimise_by(plan, runs_max, fails)
}

/// Returns a plan as small as could be found within `runs_max` runs for which `fails` holds.
pub fn minimise_by(plan: &Plan, runs_max: usize, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search { best: plan.clone(), runs_left: runs_max, fails };
    loop {
        let before = search.best.clone();
        search.steps();
        search.setting();
        search.waits();
        search.actions();
        if search.best == before || search.runs_left == 0 {
            return search.best;
        }
    }
}

struct Search<F> {
    best: Plan,
    runs_left: usize,
    fails: F,
}

/// Seeds a candidate is tried under.
const SEEDS: u64 = 3;

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Tries a candidate and keeps it if it fails, too.
    fn keep(&mut self, candidate: &Plan) -> bool {
        if *candidate == self.best {
            return false;
        }
        for n in 0..SEEDS {
            if self.runs_left == 0 {
                return false;
            }
            self.runs_left -= 1;
            let candidate = Plan { seed: candidate.seed.wrapping_add(n), ..candidate.clone() };
            if (self.fails)(&candidate) {
                self.best = candidate;
                return true;
            }
        }
        false
    }

    fn steps(&mut self) {
        let mut size = self.best.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.steps.len() {
                let kept = [false, true].into_iter().any(|waits| {
                    let candidate = without(&self.best, at, size, waits);
                    self.keep(&candidate)
                });
                if !kept {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn setting(&mut self) {
        let plain = Setting::default();
        let simpler: [fn(&mut Setting, &Setting); 18] = [
            |s, _| s.weather.loss = 0.0,
            |s, _| s.weather.duplicate = 0.0,
            |s, _| s.weather.corrupt = 0.0,
            |s, plain| (s.weather.delay_min, s.weather.delay_max) = (plain.weather.delay_min, plain.weather.delay_max),
            |s, _| s.liars = 0,
            |s, _| s.newer = 0,
            |s, _| s.seeds.clear(),
            |s, _| (s.standbys, s.take_over_ms) = (0, 0),
            |s, _| s.edges = 0,
            |s, _| s.compress = false,
            |s, _| s.express = false,
            |s, _| s.ttl_ms_max = 0,
            |s, _| s.value_bytes = 0,
            |s, plain| s.log_records_max = plain.log_records_max,
            |s, plain| s.keyspace_bytes = plain.keyspace_bytes,
            |s, _| s.partitions = 1,
            |s, _| s.spare = s.spare.saturating_sub(1),
            |s, _| s.nodes = s.nodes.saturating_sub(1).max(1),
        ];
        for simplify in simpler {
            let mut candidate = self.best.clone();
            simplify(&mut candidate.setting, &plain);
            self.keep(&candidate);
        }
    }

    /// Makes the waits between steps short and round.
    fn waits(&mut self) {
        for at in 0..self.best.steps.len() {
            for shorter in [|_: u32| 0, |ms: u32| ms / 1_000 * 1_000, |ms: u32| ms / 100 * 100, |ms: u32| ms / 2] {
                if self.change(at, |step| step.after_ms = shorter(step.after_ms)) {
                    break;
                }
            }
        }
    }

    /// Makes single actions plain.
    fn actions(&mut self) {
        for at in 0..self.best.steps.len() {
            self.change(at, |step| {
                if let Action::Write { ack, .. } = &mut step.action {
                    *ack = None;
                }
            });
            self.change(at, |step| {
                if let Action::Write { op, .. } = &mut step.action {
                    op.ttl = 0;
                }
            });
            self.change(at, |step| {
                if let Action::Write { op, .. } = &mut step.action {
                    (op.key, op.name) = (0, 0);
                }
            });
        }
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Step)) -> bool {
        let mut candidate = self.best.clone();
        candidate.steps.get_mut(at).map(change);
        self.keep(&candidate)
    }
}

/// Leaves out `size` steps from `at` on; with `waits` the time they took is spent before the next one.
fn without(plan: &Plan, at: usize, size: usize, waits: bool) -> Plan {
    let mut steps = plan.steps.clone();
    let gone: Vec<Step> = steps.drain(at..(at + size).min(steps.len())).collect();
    let took = gone.iter().fold(0_u32, |sum, step| sum.saturating_add(step.after_ms));
    if waits {
        match steps.get_mut(at) {
            Some(next) => next.after_ms = next.after_ms.saturating_add(took),
            None => steps.push(Step { after_ms: took, action: Action::Rest }),
        }
    }
    Plan { steps, ..plan.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(at: u8) -> Step {
        Step { after_ms: 130, action: Action::Crash { at } }
    }

    #[test]
    fn of_a_hundred_steps_the_two_that_matter_are_left() {
        let plan = Plan { seed: 1, setting: Setting::default(), steps: (0..100).map(crash).collect() };
        let holds = |plan: &Plan| [17, 71].iter().all(|n| plan.steps.iter().any(|s| s.action == crash(*n).action));
        let small = minimise_by(&plan, 2_000, holds);
        assert_eq!(small.steps.iter().map(|s| s.action).collect::<Vec<_>>(), [crash(17).action, crash(71).action]);
        assert!(small.steps.iter().all(|s| s.after_ms == 0));
        assert_eq!((small.setting.nodes, small.setting.compress), (1, false));
    }

    #[test]
    fn time_that_matters_is_kept_and_the_number_of_runs_is_bounded() {
        let plan = Plan { seed: 1, setting: Setting::default(), steps: (0..100).map(crash).collect() };
        let took = |plan: &Plan| plan.steps.iter().map(|s| s.after_ms).sum::<u32>();
        let small = minimise_by(&plan, 2_000, |plan| took(plan) >= 13_000);
        assert!(small.steps.len() <= 2 && took(&small) >= 13_000, "{small:?}");
        let mut runs = 0;
        let same = minimise_by(&plan, 7, |_| {
            runs += 1;
            false
        });
        assert_eq!((same, runs), (plan, 7));
    }
}
