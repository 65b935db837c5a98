//! What several threads may do to one store at once, and what holds all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless::clock::{Hlc, HlcClock, Mono};
use driftless::crdt::{Ctx, NEVER, Path};
use driftless::error::OpenError;
use driftless::id::{KeyspaceId, PartitionId, ReplicaId};
use driftless::replication::{Outbox, Peer};
use driftless::store::{Around, Batch, Body, Family, Full, Gate, Intent, KeyRef, Keyspace, Partition, Selector};
use driftless::store::{Store, Tick};
use driftless::wire::{FullChunk, Part};
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::scope;

use crate::{WALL_MS, explore, keys, open_store, registers, set};

const ME: ReplicaId = ReplicaId(1);
const OTHER: ReplicaId = ReplicaId(2);
const ONLY: PartitionId = PartitionId(0);

/// Runs a mutation that is always admitted.
fn change<R>(
    store: &Store,
    space: &Keyspace,
    key: &str,
    f: impl FnOnce(&mut Partition, &KeyRef<'_>, &Tick<'_>) -> R,
) -> R {
    let at = KeyRef::new(space, key.as_bytes());
    store.write(&at, Intent { wall_ms: WALL_MS, value_len: None }, |p, tick| f(p, &at, tick)).unwrap().0
}

fn put(store: &Store, space: &Keyspace, key: &str, field: &'static str) {
    let path = Path::Field(Bytes::from_static(field.as_bytes()));
    change(store, space, key, |p, at, tick| p.put(at, path, Bytes::from_static(b"v"), NEVER, tick));
}

/// What one partition has seen and holds.
type Contents = (Ctx, BTreeSet<(KeyspaceId, Bytes, String)>);

fn contents(store: &Store) -> Vec<Contents> {
    let held = |p: &Partition| p.entries().map(|(id, key, e)| (id, key.clone(), format!("{:?}", e.body))).collect();
    store.partition_ids().filter_map(|id| store.read(id)).map(|p| (p.ctx().clone(), held(&p))).collect()
}

/// A replica that takes in what another captures.
struct Mirror(Store);

impl Mirror {
    /// Builds an empty one with the same keyspaces.
    fn of(store: &Store) -> Self {
        let mirror = open_store(OTHER, store.partition_count());
        for space in store.spaces().snapshot() {
            mirror.spaces().open(space.name(), space.family()).unwrap();
        }
        Self(mirror)
    }

    /// Joins a batch in. Afterwards exactly what its context says has been seen: had the context been taken earlier
    /// than the fragments there would be more, had it been taken later there would be less.
    fn take(&self, batch: &Batch) {
        let around = Around { spaces: self.0.spaces(), collect_before_ms: 0 };
        let mut partition = self.0.lock(batch.partition).unwrap();
        partition.apply(ME, batch, &around).unwrap();
        assert_eq!(*partition.ctx(), batch.ctx, "the context is that of the fragments");
        for cell in batch.fragments.iter().filter_map(|f| f.cell.as_ref()) {
            assert_eq!(cell.visible(WALL_MS).unwrap().as_ref(), cell.dot().seq.to_be_bytes(), "a value of its event");
        }
    }

    fn take_full(&self, chunk: FullChunk) {
        assert!(chunk.last, "so little fits one piece");
        let batch = Batch { partition: chunk.partition, ctx: chunk.ctx, fragments: chunk.fragments };
        let covered = batch.fragments.iter().flat_map(|f| &f.covers).map(|(dot, _)| dot.seq);
        assert_eq!(covered.max().unwrap_or(0), batch.ctx.of(ME).map_or(0, |seen| seen.max()), "fragments and context");
        let around = Around { spaces: self.0.spaces(), collect_before_ms: 0 };
        let FullChunk { frontier, floor, forgotten, is_rest, .. } = chunk;
        let full = Full { batch, frontier, floor, forgotten, is_rest, is_part: false };
        self.0.lock(full.batch.partition).unwrap().apply_full(ME, &full, &around).unwrap();
    }

    fn ctx(&self) -> Ctx {
        self.0.read(ONLY).unwrap().ctx().clone()
    }
}

/// Two threads that change the same keys, while `capture` runs.
fn write_and(store: &Store, capture: impl FnOnce() + Send) {
    let (space, maps) = (registers(store), store.spaces().open("maps", Family::Map).unwrap());
    let key = &keys(store, &space)[0];
    let (space, maps) = (&space, &maps);
    scope(|s| {
        s.spawn(move || {
            set(store, space, key).unwrap();
            put(store, maps, key, "a");
            set(store, space, "other").unwrap();
        });
        s.spawn(move || {
            put(store, maps, key, "b");
            set(store, space, key).unwrap();
            change(store, maps, key, |p, at, tick| p.clear(at, tick));
        });
        s.spawn(capture);
    });
}

#[test]
fn what_is_captured_for_everybody_shows_what_its_context_says() {
    explore(|| {
        let store = open_store(ME, 1);
        store.spaces().open("registers", Family::Register).unwrap();
        store.spaces().open("maps", Family::Map).unwrap();
        let (mirror, outbox) = (Mirror::of(&store), Mutex::new(Outbox::new(1, Duration::ZERO)));
        let position = AtomicU64::new(0);
        let capture = || {
            let mut outbox = outbox.lock().unwrap();
            outbox.mark(store.take_dirty());
            let Some(flush) = outbox.flush(Mono(1), &store) else { return };
            let (reach, batch) = (&flush.reach[0], &flush.batches[0]);
            assert_eq!(reach.from, position.load(Ordering::SeqCst) + 1, "no event between two captures");
            assert_eq!(Some(reach.to), batch.ctx.of(ME).map(|seen| seen.max()), "nor after them");
            position.store(reach.to, Ordering::SeqCst);
            mirror.take(batch);
        };
        write_and(&store, || (0..3).for_each(|_| capture()));
        capture();
        assert_eq!(contents(&mirror.0), contents(&store));
    });
}

#[test]
fn what_is_captured_for_one_peer_shows_what_its_context_says() {
    explore(|| {
        let store = open_store(ME, 1);
        store.spaces().open("registers", Family::Register).unwrap();
        store.spaces().open("maps", Family::Map).unwrap();
        let mirror = Mirror::of(&store);
        let capture = |full| {
            let mut peer = Peer::new(vec![mirror.ctx()], Mono(0));
            if full {
                peer.synchronise(ONLY);
            } else {
                peer.catch_up(ONLY, &store, true);
            }
            match peer.next_part(&store) {
                Some(Part::Batch(batch)) => mirror.take(&batch),
                Some(Part::FullChunk(chunk)) => mirror.take_full(chunk),
                Some(Part::Restore(_) | Part::Answer(_)) | None => {}
            }
        };
        write_and(&store, || [false, true, false].into_iter().for_each(capture));
        capture(false);
        assert_eq!(contents(&mirror.0), contents(&store));
    });
}

/// What the driver sleeps on: a permit that is kept, as that of `tokio::sync::Notify`.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ringing: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.ringing.notify_one();
    }

    /// Sleeps until it is rung.
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !std::mem::take(&mut *rung) {
            rung = self.ringing.wait(rung).unwrap();
        }
    }

    fn is_rung(&self) -> bool {
        *self.rung.lock().unwrap()
    }
}

/// Sets each key `times` times and wakes the driver when told to.
fn write_all(store: &Store, keys: &[String], times: usize, bell: &Bell) {
    let space = registers(store);
    for key in keys.iter().cycle().take(keys.len() * times) {
        if set(store, &space, key).unwrap().1 {
            bell.ring();
        }
    }
}

/// The driver's loop with nothing to wake it but writes: were it to sleep on one, nothing would ever happen again.
#[test]
fn a_driver_that_sleeps_until_it_is_woken_sees_every_write() {
    explore(|| {
        let (store, bell) = (open_store(ME, 2), Bell::default());
        let keys = keys(&store, &registers(&store));
        scope(|s| {
            s.spawn(|| write_all(&store, &keys, 2, &bell));
            s.spawn(|| write_all(&store, &keys, 2, &bell));
            s.spawn(|| {
                let mut seen = vec![0; store.partition_count()];
                while seen.iter().sum::<u64>() < 8 {
                    bell.wait();
                    for id in store.take_dirty() {
                        seen[usize::from(id.0)] = store.read(id).unwrap().seq();
                    }
                }
            });
        });
    });
}

#[test]
fn a_partition_that_was_written_was_taken_or_somebody_was_told() {
    explore(|| {
        let (store, bell) = (open_store(ME, 2), Bell::default());
        let keys = keys(&store, &registers(&store));
        let taken = Mutex::new(BTreeSet::new());
        scope(|s| {
            s.spawn(|| write_all(&store, &keys[..1], 2, &bell));
            s.spawn(|| write_all(&store, &keys[1..], 2, &bell));
            s.spawn(|| {
                for _ in 0..3 {
                    *bell.rung.lock().unwrap() = false;
                    let look = store.take_dirty().into_iter().map(|id| (id, store.read(id).unwrap().seq()));
                    taken.lock().unwrap().extend(look);
                }
            });
        });
        let told = bell.is_rung();
        let left = store.take_dirty();
        assert!(left.is_empty() || told, "{left:?} would wait for the next write");
        let seen = |id: &PartitionId| left.contains(id) || taken.lock().unwrap().contains(&(*id, 2));
        assert!(store.partition_ids().all(|id| seen(&id)), "the last write of each partition is seen");
    });
}

#[test]
fn no_two_ticks_are_equal_and_none_is_below_what_was_known_before_it() {
    explore(|| {
        let (clock, ticks, known) = (HlcClock::default(), Mutex::new(Vec::new()), AtomicU64::new(0));
        let tick = |wall_ms| {
            let before = known.load(Ordering::SeqCst);
            let tick = clock.tick(wall_ms);
            assert!(tick.0 > before, "above everything that was finished when it began");
            known.fetch_max(tick.0, Ordering::SeqCst);
            ticks.lock().unwrap().push(tick);
        };
        scope(|s| {
            s.spawn(|| [5, 3, 5].into_iter().for_each(tick));
            s.spawn(|| [4, 6, 4].into_iter().for_each(tick));
            s.spawn(|| {
                let seen = Hlc(Hlc::from_ms(5).0 | 0xffff);
                clock.observe(seen);
                known.fetch_max(seen.0, Ordering::SeqCst);
                assert!(clock.visible_ms(0) >= 5);
            });
        });
        let ticks = ticks.into_inner().unwrap();
        assert_eq!(ticks.iter().collect::<BTreeSet<_>>().len(), ticks.len());
        assert!(ticks.iter().all(|tick| *tick <= clock.last()));
    });
}

#[test]
fn a_keyspace_opened_by_two_threads_is_one() {
    explore(|| {
        let store = open_store(ME, 1);
        let open = |names: [&str; 2]| names.map(|name| store.spaces().open(name, Family::Register).unwrap());
        let (ours, theirs, epochs, families) = scope(|s| {
            let ours = s.spawn(|| open(["a", "b"]));
            let theirs = s.spawn(|| open(["b", "a"]));
            let epochs = s.spawn(|| {
                let maps = store.spaces().open("c", Family::Map);
                let a = store.spaces().open("a", Family::Register).unwrap();
                (store.spaces().open_epochs(&a).unwrap(), maps)
            });
            let sets = store.spaces().open("c", Family::Set);
            let (epochs, maps) = epochs.join().unwrap();
            (ours.join().unwrap(), theirs.join().unwrap(), epochs, [maps, sets])
        });
        let refused = |family: &Result<_, OpenError>| matches!(family, Err(OpenError::OtherFamily { .. }));
        assert_eq!(families.iter().filter(|family| refused(family)).count(), 1, "one family gets the name");
        assert!(Arc::ptr_eq(&ours[0], &theirs[1]) && Arc::ptr_eq(&ours[1], &theirs[0]));
        assert_eq!(epochs.target(), Some(ours[0].id()));
        let all = store.spaces().snapshot();
        assert_eq!(all.len(), 4);
        let numbered = all.iter().zip(0..).all(|(space, n)| space.id() == KeyspaceId(n));
        assert!(numbered && all.iter().all(|space| Arc::ptr_eq(space, &store.spaces().get(space.id()).unwrap())));
    });
}

#[test]
fn the_bytes_of_a_keyspace_are_those_of_its_entries() {
    explore(|| {
        let store = open_store(ME, 2);
        let (space, maps) = (registers(&store), store.spaces().open("maps", Family::Map).unwrap());
        let keys = keys(&store, &space);
        let (store, space, maps, keys) = (&store, &space, &maps, &keys);
        scope(|s| {
            s.spawn(move || {
                set(store, space, &keys[0]).unwrap();
                put(store, maps, &keys[0], "a field");
                change(store, space, &keys[0], |p, at, tick| p.delete(at, tick));
            });
            s.spawn(move || {
                set(store, space, &keys[1]).unwrap();
                put(store, maps, &keys[1], "another field");
                change(store, maps, &keys[1], |p, at, tick| p.clear(at, tick));
            });
            s.spawn(move || {
                for id in store.partition_ids() {
                    let mut partition = store.lock(id).unwrap();
                    partition.collect(&[], store.spaces(), u64::MAX);
                    partition.evict(&KeyRef::new(space, keys[1].as_bytes()), u64::MAX);
                }
            });
        });
        for space in [space, maps] {
            let bytes = |id| {
                let partition = store.read(id).unwrap();
                let own = partition.entries().filter(|(id, _, _)| *id == space.id());
                own.map(|(_, key, entry)| entry.bytes() + key.len()).sum::<usize>()
            };
            let held: usize = store.partition_ids().map(bytes).sum();
            assert_eq!(space.used(), u64::try_from(held).unwrap(), "{}", space.name());
        }
    });
}

#[test]
fn after_a_gate_is_shut_no_partition_changes_whose_lock_was_taken_since() {
    explore(|| {
        let store = open_store(ME, 2);
        let space = registers(&store);
        let keys = keys(&store, &space);
        let numbers = || -> Vec<u64> { store.partition_ids().map(|id| store.read(id).unwrap().seq()).collect() };
        let write = || {
            let written: Vec<_> = keys.iter().map(|key| set(&store, &space, key).is_ok()).collect();
            assert!(written[0] || !written[1], "what was refused once is refused from then on");
        };
        let seen = scope(|s| {
            s.spawn(write);
            s.spawn(write);
            let shut = s.spawn(|| {
                store.set_gate(Gate::Removed);
                numbers()
            });
            shut.join().unwrap()
        });
        assert_eq!(numbers(), seen);
    });
}

#[test]
fn a_store_that_was_stopped_stays_stopped() {
    explore(|| {
        let store = open_store(ME, 1);
        scope(|s| {
            s.spawn(|| store.set_gate(Gate::Stopped));
            s.spawn(|| store.set_gate(Gate::Open));
            s.spawn(|| store.set_gate(Gate::Removed));
        });
        assert_eq!(store.gate(), Gate::Stopped);
    });
}

#[test]
fn an_invalidation_clears_what_was_written_before_it_and_nothing_after() {
    explore(|| {
        let store = open_store(ME, 2);
        let space = registers(&store);
        space.watch();
        let keys = keys(&store, &space);
        assert!(keys.iter().all(|key| set(&store, &space, key).is_ok()));
        let (cleared, stamps) = scope(|s| {
            let invalidate = || store.invalidate(&space, &Selector::All, WALL_MS).unwrap().0;
            let one = s.spawn(invalidate);
            let two = s.spawn(invalidate);
            let stamps =
                s.spawn(|| keys.iter().map(|key| set(&store, &space, key).unwrap().0.stamp).collect::<Vec<_>>());
            let mut cleared = one.join().unwrap();
            cleared.extend(two.join().unwrap());
            (cleared, stamps.join().unwrap())
        });
        for (id, (key, stamp)) in store.partition_ids().zip(keys.iter().zip(stamps)) {
            let epoch = cleared.iter().filter(|c| c.partition == id).map(|c| c.written.stamp).max().unwrap();
            let shown = store.with_entry(&KeyRef::new(&space, key.as_bytes()), |entry| match &entry?.body {
                Body::Register(cell) => cell.as_ref()?.visible(WALL_MS).map(|_| ()),
                Body::Tree(_) | Body::Custom(_) => None,
            });
            assert_eq!(shown.is_some(), stamp > epoch, "{key}");
        }
        assert!(keys.iter().all(|key| cleared.iter().any(|c| c.keys.iter().any(|(_, k)| k == key.as_bytes()))));
    });
}
