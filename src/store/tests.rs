//! What the store itself promises, besides what its partitions do: limits, gates, marks, invalidation.

mod partition;

use bytes::Bytes;

use super::{Family, Gate, Intent, KeyRef, Keyspace, Selector, Store, StoreConfig};
use crate::crdt::NEVER;
use crate::error::WriteError;
use crate::id::{PartitionId, ReplicaId};

const WALL_MS: u64 = 1_700_000_000_000;

fn store(partitions: usize) -> Store {
    let config = StoreConfig {
        partitions,
        hash_key: [7; 16],
        log_records_max: 1 << 16,
        keyspace_bytes: 1_000,
        key_bytes_max: 8,
        value_bytes_max: 64,
        is_edge: false,
    };
    let store = Store::new(ReplicaId(1), config);
    store.set_gate(Gate::Open);
    store
}

fn set(store: &Store, space: &Keyspace, key: &[u8], len: usize) -> Result<bool, WriteError> {
    let (at, value) = (KeyRef::new(space, key), Bytes::from(vec![1; len]));
    let intent = Intent { wall_ms: WALL_MS, value_len: Some(len) };
    store.write(&at, intent, |p, tick| p.set(&at, value, NEVER, tick)).map(|(_, wake)| wake)
}

fn is_there(store: &Store, space: &Keyspace, key: &[u8]) -> bool {
    store.with_entry(&KeyRef::new(space, key), |e| {
        e.is_some_and(|e| matches!(&e.body, super::Body::Register(Some(cell)) if cell.visible(WALL_MS).is_some()))
    })
}

#[test]
#[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
fn the_number_of_partitions_is_a_power_of_two_within_bounds() {
    for (asked, made) in [(0, 1), (1, 1), (3, 4), (64, 64), (1 << 20, super::PARTITIONS_MAX)] {
        let store = store(asked);
        assert_eq!((store.partition_count(), store.partition_ids().count()), (made, made));
        assert_eq!(store.partition_ids().last(), u16::try_from(made - 1).ok().map(PartitionId));
        let last = store.place(u64::MAX);
        assert!(store.read(last).is_some() && store.lock(last).is_some());
        assert!(store.read(PartitionId(u16::MAX)).is_none());
    }
}

#[test]
#[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
fn every_write_asks_for_a_wake_up_once_and_every_written_partition_is_taken_once() {
    let store = store(256);
    let space = store.spaces().open("r", Family::Register).unwrap();
    space.set_budget(1 << 30);
    let (mut wakes, mut written) = (0, std::collections::BTreeSet::new());
    for n in 0..400_u32 {
        let key = n.to_be_bytes();
        wakes += usize::from(set(&store, &space, &key, 4).unwrap());
        written.insert(store.place(space.hash(&key)));
    }
    assert_eq!(wakes, 1, "the driver is asked once until it looks");
    assert!(written.iter().any(|p| p.0 > 191) && written.len() > 64, "the marks fill several words");
    assert_eq!(store.take_dirty(), written.into_iter().collect::<Vec<_>>(), "in order, each once");
    assert_eq!(store.take_dirty(), []);
    assert!(set(&store, &space, b"again", 4).unwrap(), "whoever has looked is asked again");
    assert!(!set(&store, &space, b"again", 4).unwrap());
    assert_eq!(store.take_dirty(), [store.place(space.hash(b"again"))]);
}

#[test]
fn a_mutation_that_changes_nothing_marks_nothing() {
    let store = store(4);
    let space = store.spaces().open("r", Family::Register).unwrap();
    let at = KeyRef::new(&space, b"none");
    let intent = Intent { wall_ms: WALL_MS, value_len: None };
    let touched = store.write(&at, intent, |p, tick| p.touch(&at, NEVER, tick)).unwrap();
    assert_eq!(touched, (None, false));
    assert_eq!(store.take_dirty(), []);
}

#[test]
fn limits_hold_to_the_byte_and_refuse_without_a_trace() {
    let store = store(1);
    let space = store.spaces().open("r", Family::Register).unwrap();
    assert!(set(&store, &space, b"12345678", 64).is_ok(), "both exactly at their limits");
    assert_eq!(set(&store, &space, b"123456789", 4), Err(WriteError::KeyTooLong { len: 9, max: 8 }));
    assert_eq!(set(&store, &space, b"k", 65), Err(WriteError::ValueTooLarge { len: 65, max: 64 }));
    space.set_budget(space.used());
    assert!(set(&store, &space, b"at", 4).is_ok(), "the budget itself may be used up");
    let (used, budget) = (space.used(), space.budget());
    assert!(used > budget);
    assert_eq!(set(&store, &space, b"over", 4), Err(WriteError::OverCapacity { used, budget }));
    assert!(!is_there(&store, &space, b"over") && space.used() == used);
    let at = KeyRef::new(&space, b"at");
    let intent = Intent { wall_ms: WALL_MS, value_len: None };
    assert!(store.write(&at, intent, |p, tick| p.delete(&at, tick)).is_ok(), "what frees room is always admitted");
}

#[test]
fn each_gate_refuses_writes_for_its_own_reason() {
    let store = store(1);
    let space = store.spaces().open("r", Family::Register).unwrap();
    store.note_skew(77);
    let refuses = |reason: WriteError| {
        assert_eq!(set(&store, &space, b"k", 4), Err(reason.clone()));
        assert_eq!(store.invalidate(&space, &Selector::All, WALL_MS).unwrap_err(), reason);
    };
    for (gate, reason) in [
        (Gate::Joining, WriteError::NotJoined),
        (Gate::ClockRefused, WriteError::ClockRefused { skew_ms: 77 }),
        (Gate::Removed, WriteError::Removed),
        (Gate::Draining, WriteError::Draining),
        (Gate::Standby, WriteError::Standby),
    ] {
        store.set_gate(gate);
        assert_eq!(store.gate(), gate);
        refuses(reason);
    }
    store.set_gate(Gate::Open);
    assert!(store.gate() == Gate::Open && set(&store, &space, b"k", 4).is_ok());
    for gate in [Gate::Stopped, Gate::Open, Gate::Removed] {
        store.set_gate(gate);
        assert_eq!(store.gate(), Gate::Stopped, "nobody is left to send, whatever {gate:?} says");
        refuses(WriteError::Stopped);
    }
}

#[test]
fn an_invalidation_is_one_event_in_every_partition_and_wakes_once() {
    let store = store(4);
    let space = store.spaces().open("r", Family::Register).unwrap();
    space.watch();
    space.set_budget(1 << 30);
    let keys: Vec<[u8; 4]> = (0..20_u32).map(u32::to_be_bytes).collect();
    assert!(keys.iter().all(|key| set(&store, &space, key, 4).is_ok()));
    drop(store.take_dirty());
    let (cleared, wake) = store.invalidate(&space, &Selector::All, WALL_MS).unwrap();
    assert!(wake);
    assert_eq!(cleared.iter().map(|c| c.partition).collect::<Vec<_>>(), store.partition_ids().collect::<Vec<_>>());
    let told: usize = cleared.iter().map(|c| c.keys.len()).sum();
    assert_eq!(told, keys.len(), "a watched keyspace hears of every key");
    assert!(keys.iter().all(|key| !is_there(&store, &space, key)));
    assert!(!store.invalidate(&space, &Selector::All, WALL_MS).unwrap().1, "the driver was asked and has not looked");
    assert_eq!(store.take_dirty().len(), 4);
    assert!(set(&store, &space, &keys[0], 4).is_ok() && is_there(&store, &space, &keys[0]), "what comes later stays");
}

#[test]
#[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
fn invalidations_are_bounded_and_the_same_one_may_be_repeated() {
    let store = store(1);
    let spaces = ["r", "s"].map(|name| store.spaces().open(name, Family::Register).unwrap());
    let tag = |n: usize| Selector::Tag(format!("{n}"));
    for n in 0..super::epoch::EPOCHS_MAX {
        assert!(store.invalidate(&spaces[0], &tag(n), WALL_MS).is_ok(), "{n}");
    }
    let full = WriteError::TooManyEpochs { max: super::epoch::EPOCHS_MAX };
    assert_eq!(store.invalidate(&spaces[0], &tag(1 << 20), WALL_MS).unwrap_err(), full);
    assert!(store.invalidate(&spaces[0], &tag(3), WALL_MS).is_ok(), "known selectors take no room");
    assert!(store.invalidate(&spaces[1], &tag(1 << 20), WALL_MS).is_ok(), "each keyspace has its own");
}
