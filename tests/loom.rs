//! Every order of the few atomics that no lock guards: the clock and the marks of dirty partitions.
//!
//! Loom runs a model once for every schedule and for every value that an access may return under the C11 memory model,
//! so a test that passes is a proof within its bounds. `tests/shuttle.rs` tries larger scenarios of the whole store, but
//! knows only accesses that happen one after the other.
//!
//! The files under test are compiled a second time, here, with loom's atomics where the library has its own. Both are in
//! one build, `--cfg shuttle`, because loom is needed nowhere else.
#![cfg(shuttle)]

/// The atomics of `src/sync.rs`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

/// The probes of `src/probe`, which see nothing here.
mod probe {
    macro_rules! planted {
        ($fault:ident) => {
            false
        };
    }
    macro_rules! sometimes {
        ($($anything:tt)*) => {};
    }
    pub(crate) use {planted, sometimes};
}

#[path = "../src/store/dirty.rs"]
mod dirty;
#[path = "../src/clock/hlc.rs"]
#[expect(unreachable_pub, reason = "it is public in the library")]
#[expect(dead_code, reason = "only a store begins anew")]
mod hlc;

use std::collections::BTreeSet;

use dirty::Dirty;
use driftless::{clock, id};
use hlc::HlcClock;
use loom::sync::atomic::Ordering::{AcqRel, Relaxed};
use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::sync::{Arc, Notify};
use loom::thread;

use clock::Hlc;
use id::PartitionId;

/// Preemptions a schedule may have. Without a bound two writers and a driver would take days.
const PREEMPTIONS: usize = 3;

fn every_order(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// Two threads write one partition each, in one word of the marks and in two. What they write is visible to who takes
/// the mark, and the driver, which sleeps until it is told, sees both.
fn nobody_sleeps_on_a_mark(partitions: [u16; 2]) {
    every_order(move || {
        let dirty = Arc::new(Dirty::new(128));
        let written = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let bell = Arc::new(Notify::new());
        for (at, id) in partitions.into_iter().enumerate() {
            let (dirty, written, bell) = (Arc::clone(&dirty), Arc::clone(&written), Arc::clone(&bell));
            thread::spawn(move || {
                written[at].store(1, Relaxed);
                if dirty.mark(PartitionId(id)) {
                    bell.notify();
                }
            });
        }
        let mut missing = BTreeSet::from(partitions);
        while !missing.is_empty() {
            bell.wait();
            for PartitionId(id) in dirty.take() {
                assert!(missing.remove(&id), "one mark is taken once");
                let at = partitions.iter().position(|partition| *partition == id).unwrap();
                assert_eq!(written[at].load(Relaxed), 1, "the write is visible to who takes its mark");
            }
        }
    });
}

#[test]
fn a_mark_wakes_a_driver_that_sleeps() {
    nobody_sleeps_on_a_mark([3, 5]);
}

#[test]
fn a_mark_in_another_word_wakes_it_too() {
    nobody_sleeps_on_a_mark([3, 100]);
}

/// A driver that looks at any moment, with or without a wake-up to take back, leaves no mark nobody was told of.
#[test]
fn what_a_look_leaves_behind_somebody_was_told_of() {
    every_order(|| {
        let dirty = Arc::new(Dirty::new(1));
        let told = Arc::new(AtomicBool::new(false));
        let writer = {
            let (dirty, told) = (Arc::clone(&dirty), Arc::clone(&told));
            thread::spawn(move || {
                for _ in 0..2 {
                    if dirty.mark(PartitionId(0)) {
                        told.swap(true, AcqRel);
                    }
                }
            })
        };
        told.swap(false, AcqRel);
        drop(dirty.take());
        writer.join().unwrap();
        assert!(told.load(Relaxed) || dirty.take().is_empty());
    });
}

#[test]
fn ticks_of_two_threads_differ_and_grow() {
    every_order(|| {
        let clock = Arc::new(HlcClock::default());
        let other = {
            let clock = Arc::clone(&clock);
            thread::spawn(move || [clock.tick(1), clock.tick(2)])
        };
        let ours = [clock.tick(2), clock.tick(1)];
        let theirs = other.join().unwrap();
        assert!(ours[0] < ours[1] && theirs[0] < theirs[1]);
        assert_eq!(BTreeSet::from([ours[0], ours[1], theirs[0], theirs[1]]).len(), 4);
        assert!(clock.tick(0) > ours[1].max(theirs[1]));
    });
}

/// What is handed over without any order of its own is ordered by the clock alone: who sees a tick ticks above it.
#[test]
fn who_has_seen_a_stamp_ticks_above_it() {
    every_order(|| {
        let clock = Arc::new(HlcClock::default());
        let board = Arc::new(AtomicU64::new(0));
        let other = {
            let (clock, board) = (Arc::clone(&clock), Arc::clone(&board));
            thread::spawn(move || {
                clock.observe(Hlc::from_ms(3));
                board.store(clock.tick(1).0, Relaxed);
            })
        };
        let seen = board.load(Relaxed);
        assert!(clock.tick(1).0 > seen);
        assert!(clock.visible_ms(0) >= Hlc(seen).ms());
        other.join().unwrap();
    });
}
