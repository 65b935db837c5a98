//! Handles, watchers and waits under thousands of schedules of their threads: see `tests/shuttle.rs`.
//!
//! The driver is a model, because the real one needs a socket. The line to it and its table of waits are the real ones,
//! and tokio's channels in them are single steps to shuttle: what happens inside of these is not tried here.

#[path = "../../../tests/shuttle/explore.rs"]
mod explore;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;
use shuttle::future::block_on;
use shuttle::thread::scope;
use tokio::task::JoinSet;

use crate::cache::{Cache, Registers, Token, Ttl, WatchError};
use crate::clock::Stamp;
use crate::config::Config;
use crate::id::{NodeId, ReplicaId};
use crate::node::{Level, Me, Outcome};
use crate::runtime::{Command, DriverEnd, Line, Origin, SystemClock, Waits};
use crate::store::{Around, Batch, Budget, Family, Gate, Store};
use explore::explore;

/// A cache without a driver, and the driver's end of its line.
fn open(replica: u64) -> (Cache, DriverEnd) {
    let mut config = Config::dev("here", "unused:0");
    config.limits.partitions = 2;
    let me = Me { node: NodeId(uuid::Uuid::nil()), region: config.node.region.clone(), replica: ReplicaId(replica) };
    let store = Arc::new(Store::new(me.replica, config.store()));
    store.set_gate(Gate::Open);
    let (line, end) = Line::new(SystemClock::start());
    let local_addr = ([127, 0, 0, 1], 0).into();
    // The first of each process, so that its number is the same in both.
    store.spaces().open("numbers", Family::Register).unwrap();
    (Cache { store, me, local_addr, line, tasks: Mutex::new(JoinSet::new()) }, end)
}

fn numbers(cache: &Cache) -> Registers<u32, u32> {
    cache.registers("numbers").unwrap()
}

/// What another replica wrote: the key 3, and what covers it.
fn remote() -> (Batch, Token) {
    let (cache, _end) = open(2);
    let receipt = numbers(&cache).set(&3, &2, Ttl::NEVER).unwrap();
    let budget = Budget { fragments: 9, bytes: 9_999 };
    (cache.store.read(receipt.partition()).unwrap().capture_own(0, budget).batch, receipt.token())
}

/// Joins a batch in and tells what changed, as the node and the driver do.
fn apply(store: &Store, end: &DriverEnd, batch: &Batch) {
    let around = Around { spaces: store.spaces(), collect_before_ms: 0 };
    let applied = store.lock(batch.partition).unwrap().apply(ReplicaId(2), batch, &around).unwrap();
    assert_eq!((applied.news, applied.quarantined), (1, 0));
    for (keyspace, key) in applied.changed {
        end.watches.tell(keyspace, key, Origin::Remote);
    }
    end.signals.applied.notify_waiters();
}

#[test]
fn who_watches_and_then_reads_ends_with_what_was_written_last() {
    explore(|| {
        let ((cache, end), (batch, _)) = (open(1), remote());
        let numbers = numbers(&cache);
        let write = |key: u32| [1, 2].iter().for_each(|n| drop(numbers.set(&key, n, Ttl::NEVER).unwrap()));
        scope(|s| {
            s.spawn(|| write(1));
            s.spawn(|| write(2));
            s.spawn(|| apply(&cache.store, &end, &batch));
            s.spawn(|| {
                let mut watch = numbers.watch();
                // Were the last change of a key not told, this would wait for ever.
                while [1, 2, 3].iter().any(|key| numbers.get(key).unwrap() != Some(2)) {
                    block_on(watch.recv()).unwrap();
                }
            });
        });
    });
}

#[test]
fn when_the_driver_ends_everybody_who_listens_hears_it() {
    explore(|| {
        let ((cache, end), (batch, token)) = (open(1), remote());
        let numbers = numbers(&cache);
        scope(|s| {
            s.spawn(|| numbers.set(&1, &1, Ttl::NEVER).unwrap());
            s.spawn(|| {
                let mut watch = numbers.watch();
                while block_on(watch.recv()) != Err(WatchError::Closed) {}
            });
            s.spawn(|| {
                let mut events = cache.events();
                while block_on(events.recv()) != Err(WatchError::Closed) {}
            });
            s.spawn(|| {
                let covered = block_on(cache.cover(&token));
                assert_eq!(covered, cache.covers(&token));
            });
            s.spawn(|| {
                apply(&cache.store, &end, &batch);
                drop(end);
            });
        });
    });
}

#[test]
fn who_waits_for_a_token_wakes_when_it_is_covered() {
    explore(|| {
        let ((cache, end), (batch, token)) = (open(1), remote());
        scope(|s| {
            s.spawn(|| assert!(block_on(cache.cover(&token))));
            s.spawn(|| assert!(block_on(cache.cover(&token))));
            s.spawn(|| apply(&cache.store, &end, &batch));
        });
    });
}

/// A driver that resolves waits two at a time, the later first, and is aborted after some commands.
fn drive(mut end: DriverEnd, commands: usize) {
    let (mut waits, mut begun) = (Waits::default(), Vec::new());
    for _ in 0..commands {
        match block_on(end.commands.recv()) {
            Some(Command::Wait { mark, reply, .. }) => begun.push((waits.begin(reply), mark)),
            Some(
                Command::Stats { .. }
                | Command::ResetLag
                | Command::Load { .. }
                | Command::Remove { .. }
                | Command::Rejoin { .. }
                | Command::Present { .. }
                | Command::Drain { .. }
                | Command::Resume { .. }
                | Command::Assume { .. }
                | Command::Repair { .. }
                | Command::Fetch { .. }
                | Command::Read { .. }
                | Command::Shutdown { .. },
            ) => {}
            None => return,
        }
        if begun.len() == 2 {
            for (id, mark) in begun.drain(..).rev() {
                let acked = usize::try_from(mark.dot.seq).unwrap();
                let outcome = Outcome { reached: true, acked, needed: 1, missing: Vec::new() };
                waits.tell(id, outcome.clone());
                waits.tell(id, Outcome { acked: 0, ..outcome });
            }
        }
    }
}

#[test]
fn every_wait_ends_with_its_own_outcome_or_with_the_driver() {
    explore(|| {
        let (cache, end) = open(1);
        let numbers = numbers(&cache);
        let wait = |key: u32| -> Stamp {
            let receipt = numbers.set(&key, &1, Ttl::NEVER).unwrap();
            let outcome = block_on(receipt.reached(Level::All).into_future());
            let own = usize::try_from(receipt.dot().seq).unwrap();
            assert_eq!(outcome.acked, if outcome.reached { own } else { 1 });
            receipt.stamp()
        };
        scope(|s| {
            s.spawn(|| wait(1));
            s.spawn(|| wait(2));
            s.spawn(|| {
                let receipt = numbers.set(&3, &1, Ttl::NEVER).unwrap();
                let mut given_up = pin!(receipt.reached(Level::All).into_future());
                drop(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())));
            });
            s.spawn(|| wait(3));
            s.spawn(|| drive(end, 3));
        });
    });
}
