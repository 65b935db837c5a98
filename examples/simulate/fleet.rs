//! Threads that take one seed after the other.
//!
//! # Invariants
//! * A thread's probes and planted fault are its own: runs do not see each other.
//! * When it stops at a number of failures, every seed below the last failing one that counts was run.

#![expect(clippy::disallowed_methods, reason = "how fast it is, and when to stop, is measured in real time")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use driftless::probe::{Fault, Hits};
use driftless::sim::{Failure, Limit, Profile, run_checked};

/// How many seeds, and when to stop before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) from: u64,
    pub(crate) seeds: u64,
    pub(crate) minutes: Option<f64>,
    /// Failures after which no further seed is begun.
    pub(crate) failures: usize,
}

/// What became of one seed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) failure: Option<Failure>,
    pub(crate) excused: Option<(Limit, Failure)>,
    pub(crate) hits: Hits,
    pub(crate) virtual_time: Duration,
    pub(crate) converged_in: Option<Duration>,
    /// It was run twice and compared.
    pub(crate) replayed: bool,
    /// Processor time it took.
    pub(crate) busy: Duration,
}

/// What is run, on how many threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) profile: Profile,
    pub(crate) threads: usize,
    pub(crate) fault: Option<Fault>,
}

/// Every so many seeds one is run twice: a run that is not a function of its seed cannot be replayed.
const REPLAY_EVERY: u64 = 50;

impl Fleet {
    /// Runs seeds and hands over each outcome, in whatever order they come.
    pub(crate) fn run(&self, limits: Limits, mut each: impl FnMut(Outcome)) {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let end = limits.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
        std::thread::scope(|scope| {
            let (to, outcomes) = mpsc::sync_channel(self.threads * 4);
            for _ in 0..self.threads {
                let (to, next, stop) = (to.clone(), &next, &stop);
                let more = move || !stop.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end);
                let taken = move || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < limits.seeds && more());
                scope.spawn(move || self.work(taken, limits.from, &to));
            }
            drop(to);
            let mut failures = 0;
            for outcome in outcomes {
                failures += usize::from(outcome.failure.is_some());
                if failures >= limits.failures {
                    stop.store(true, Ordering::Relaxed);
                }
                each(outcome);
            }
        });
    }

    /// Runs seeds as long as there are any and somebody listens.
    fn work(&self, taken: impl Fn() -> Option<u64>, from: u64, to: &mpsc::SyncSender<Outcome>) {
        plant(self.fault);
        while let Some(n) = taken() {
            if to.send(self.outcome(from.wrapping_add(n))).is_err() {
                return;
            }
        }
    }

    fn outcome(&self, seed: u64) -> Outcome {
        let (began, clock) = (busy(), Instant::now());
        let replayed = seed.is_multiple_of(REPLAY_EVERY);
        let report = run_checked(&self.profile.plan(seed), replayed);
        let busy = match (began, busy()) {
            (Some(began), Some(now)) => now.saturating_sub(began),
            _ => clock.elapsed(),
        };
        Outcome {
            seed,
            failure: report.failure,
            excused: report.excused,
            hits: report.hits,
            virtual_time: report.virtual_time,
            converged_in: report.converged_in,
            replayed,
            busy: if replayed { busy / 2 } else { busy },
        }
    }
}

/// Returns the processor time this thread has had, where the system tells: other work on the machine does not make the
/// simulation slow.
fn busy() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Plants a fault on this thread.
#[cfg(planted)]
pub(crate) fn plant(fault: Option<Fault>) {
    driftless::probe::plant(fault);
}

/// Without `--cfg planted` there is nothing to plant.
#[cfg(not(planted))]
pub(crate) fn plant(_: Option<Fault>) {}

/// A panic inside a run is a failure of that run, told with it; its text on standard error would only break the bar.
pub(crate) fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() == Some("main") && std::env::var_os("RUST_BACKTRACE").is_some() {
            loud(info);
        }
    }));
}
