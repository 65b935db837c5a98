//! Each check of the watcher sees what it is for.
//!
//! A small cluster is written to and watched, then something is broken behind the watcher's back: in a store, or by what
//! the watcher is not told. The violation must be the one of that name, not just any. Checks of values the cluster never
//! produces are tested beside their code in `src/sim/check/`.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use driftless::clock::Hlc;
use driftless::crdt::{Cell, Ctx, Dot, NEVER, Path, Payload, Scope};
use driftless::id::{PartitionId, ReplicaId};
use driftless::sim::check::{Invariant, Violation};
use driftless::sim::workload::{self, MAPS, REGISTERS, SPACES};
use driftless::sim::{Ack, Action, Op, OpKind, Setting, SimCluster, Watcher, Weather};
use driftless::store::{Around, Batch, Body, Fragment, Intent, KeyRef, Partition};

const LONG: Duration = Duration::from_secs(30);

/// A cluster, and who watches it.
struct Scene {
    cluster: SimCluster,
    watcher: Watcher,
}

fn op(kind: OpKind, key: u8) -> Op {
    Op { kind, key, name: 0, ttl: 0 }
}

impl Scene {
    fn with(setting: &Setting) -> Self {
        let cluster = SimCluster::from_setting(7, setting).unwrap();
        let mut scene = Self { cluster, watcher: Watcher::new(setting) };
        scene.settle();
        scene
    }

    /// Two nodes that have joined, one partition.
    fn new() -> Self {
        let weather = Weather { loss: 0.0, ..Weather::default() };
        Self::with(&Setting { nodes: 2, partitions: 1, weather, ..Setting::default() })
    }

    fn settle(&mut self) {
        let watcher = &self.watcher;
        assert!(self.cluster.run_until(LONG, |c| watcher.has_converged(c)).is_some(), "it converges");
        self.watcher.after_step(&mut self.cluster).unwrap();
    }

    fn write(&mut self, at: usize, op: Op) {
        self.watcher.write(&mut self.cluster, at, op, None).unwrap();
        self.watcher.after_step(&mut self.cluster).unwrap();
    }

    fn pass(&mut self, time: Duration) -> Result<(), Violation> {
        self.cluster.run_for(time);
        self.watcher.after_step(&mut self.cluster)
    }

    fn partition<R>(&self, at: usize, f: impl FnOnce(&mut Partition) -> R) -> R {
        f(&mut self.cluster.store(at).unwrap().lock(PartitionId(0)).unwrap())
    }

    /// Joins a register state in at one host, as if a batch had brought it that covers only what is known.
    fn join(&self, at: usize, key: u8, cell: Cell, covers: &[Dot]) {
        let store = self.cluster.store(at).unwrap();
        let space = store.spaces().open(REGISTERS.name, REGISTERS.family).unwrap();
        let scope = Scope::Path(Path::Register);
        let mut fragment = Fragment::empty(space.id(), workload::key_name(key), scope.clone());
        fragment.cell = Some(cell);
        fragment.covers = covers.iter().map(|dot| (*dot, scope.clone())).collect();
        self.partition(at, |p| {
            let batch = Batch { partition: p.id(), ctx: p.ctx().clone(), fragments: vec![fragment] };
            p.apply(ReplicaId(1), &batch, &Around { spaces: store.spaces(), collect_before_ms: 0 }).unwrap();
        });
    }

    fn cell(&self, at: usize, key: u8) -> Cell {
        let store = self.cluster.store(at).unwrap();
        let space = store.spaces().find(REGISTERS.name).unwrap();
        store.with_entry(&KeyRef::new(&space, &workload::key_name(key)), |entry| match &entry.unwrap().body {
            Body::Register(cell) => cell.clone().unwrap(),
            Body::Tree(_) | Body::Custom(_) => unreachable!("it is a register"),
        })
    }

    fn agree(&mut self) -> Result<(), Violation> {
        self.watcher.converged(&mut self.cluster)
    }
}

#[track_caller]
fn assert_breaks(invariant: Invariant, found: Result<(), Violation>) {
    assert_eq!(found.as_ref().map_err(|found| found.invariant), Err(invariant), "{found:?}");
}

#[test]
fn whole_runs_of_every_mutation_hold() {
    let mut written = BTreeSet::new();
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let setting = Setting {
            nodes: rng.usize(2..4),
            ttl_ms_max: if rng.bool() { 3_000 } else { 0 },
            partitions: 1 << rng.u8(..2),
            keyspace_bytes: if rng.bool() { 3_000 } else { 1 << 30 },
            ..Setting::default()
        };
        let mut scene = Scene::with(&setting);
        for _ in 0..150 {
            let kind = *rng.choice(OpKind::ALL).unwrap();
            let op = Op { kind, key: rng.u8(..4), name: rng.u8(..4), ttl: if rng.bool() { rng.u8(1..) } else { 0 } };
            let ack = (rng.u8(..5) == 0).then(|| Ack { all: rng.bool(), within_ms: rng.u16(10..2_000) });
            let at = rng.usize(..setting.nodes);
            scene.watcher.write(&mut scene.cluster, at, op, ack).unwrap();
            let at = rng.usize(..setting.nodes);
            scene.watcher.read(&mut scene.cluster, rng.u8(..2), at, rng.u8(..4)).unwrap();
            scene.pass(Duration::from_millis(rng.u64(..60))).unwrap();
        }
        scene.settle();
        scene.agree().unwrap();
        scene.pass(LONG).unwrap();
        scene.watcher.at_rest(&mut scene.cluster).unwrap();
        written.extend(scene.watcher.history().keys().map(|key| key.space));
    }
    assert_eq!(written, BTreeSet::from(SPACES));
}

#[test]
fn a_value_that_is_missing_is_seen() {
    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Set, 1));
    scene.settle();
    let store = scene.cluster.store(1).unwrap();
    let space = store.spaces().find(REGISTERS.name).unwrap();
    let name = workload::key_name(1);
    assert!(scene.partition(1, |p| p.evict(&KeyRef::new(&space, &name), 0)));
    assert_breaks(Invariant::EqualState, scene.agree());
}

#[test]
fn an_eviction_the_watcher_was_told_of_is_a_miss_and_no_loss() {
    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Set, 1));
    scene.write(0, op(OpKind::Put, 1));
    scene.pass(LONG).unwrap();
    for map in [false, true] {
        let action = Action::Evict { at: 1, key: 1, map };
        scene.watcher.before(&scene.cluster, &action).unwrap();
        assert!(scene.cluster.perform(action));
    }
    scene.agree().unwrap();
    scene.watcher.at_rest(&mut scene.cluster).unwrap();
}

#[test]
fn a_hole_nobody_made_is_seen() {
    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Put, 1));
    scene.pass(LONG).unwrap();
    for at in 0..2 {
        let store = scene.cluster.store(at).unwrap();
        let space = store.spaces().find(MAPS.name).unwrap();
        let name = workload::key_name(1);
        assert!(scene.partition(at, |p| p.evict(&KeyRef::new(&space, &name), 0)));
    }
    assert_breaks(Invariant::History, scene.agree());
}

#[test]
fn a_deleted_value_that_comes_back_is_seen() {
    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Set, 1));
    let old = scene.cell(0, 1);
    scene.pass(LONG).unwrap();
    scene.write(1, op(OpKind::Delete, 1));
    scene.pass(LONG).unwrap();
    for at in 0..2 {
        scene.join(at, 1, old.clone(), &[]);
    }
    assert_breaks(Invariant::Resurrection, scene.agree());
}

#[test]
fn an_event_nobody_made_and_a_value_nobody_wrote_are_seen() {
    let mut scene = Scene::new();
    let dot = Dot { replica: ReplicaId(99), seq: 1 };
    let forged = Cell::new(Payload::Value(Bytes::from_static(b"forged")), Hlc(1), dot, NEVER);
    scene.join(0, 1, forged.clone(), &[dot]);
    assert_breaks(Invariant::Invented, scene.watcher.after_step(&mut scene.cluster));

    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Set, 2));
    scene.settle();
    for at in 0..2 {
        scene.join(at, 2, Cell::new(Payload::Value(Bytes::from_static(b"forged")), Hlc(u64::MAX), dot, NEVER), &[]);
    }
    assert_breaks(Invariant::Invented, scene.agree());

    let mut scene = Scene::new();
    for at in 0..2 {
        scene.join(at, 3, forged.clone(), &[]);
    }
    assert_breaks(Invariant::Invented, scene.agree());
}

#[test]
fn a_deadline_that_differs_is_seen() {
    let mut scene = Scene::with(&Setting { nodes: 2, partitions: 1, ttl_ms_max: 60_000, ..Setting::default() });
    scene.write(0, Op { ttl: 200, ..op(OpKind::Set, 1) });
    scene.settle();
    for at in 0..2 {
        let mut longer = scene.cell(at, 1);
        longer.deadline += 1_000;
        scene.join(at, 1, longer, &[]);
    }
    assert_breaks(Invariant::Expiry, scene.agree());
    let read = scene.watcher.read(&mut scene.cluster, 0, 0_usize, 1);
    assert_breaks(Invariant::Expiry, read);
}

#[test]
fn states_that_only_differ_inside_are_seen() {
    let mut scene = Scene::with(&Setting { nodes: 2, partitions: 1, ttl_ms_max: 60_000, ..Setting::default() });
    scene.write(0, Op { ttl: 200, ..op(OpKind::Set, 1) });
    scene.settle();
    let mut touched = scene.cell(1, 1);
    touched.touch = Dot { replica: ReplicaId(u64::MAX), seq: 1 };
    scene.join(1, 1, touched, &[]);
    assert_breaks(Invariant::EqualState, scene.agree());
}

#[test]
fn hosts_that_have_not_seen_the_same_have_not_converged() {
    let mut scene = Scene::new();
    scene.cluster.isolate(1);
    scene.write(0, op(OpKind::Set, 1));
    assert!(!scene.watcher.has_converged(&scene.cluster));
    assert_breaks(Invariant::Convergence, scene.agree());
}

#[test]
fn what_a_member_that_was_removed_after_the_heal_had_seen_must_not_get_lost() {
    let mut scene = Scene::new();
    scene.cluster.isolate(1);
    scene.write(1, op(OpKind::Set, 1));
    scene.watcher.healed(&mut scene.cluster).unwrap();
    assert!(scene.cluster.perform(Action::Remove { by: 0, at: 1 }));
    assert_breaks(Invariant::Survival, scene.agree());
}

#[test]
fn a_context_that_shrinks_is_seen() {
    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Set, 1));
    scene.settle();
    let (store, fresh) = (scene.cluster.store(1).unwrap(), Partition::new(PartitionId(0), ReplicaId(1), 16));
    *store.lock(PartitionId(0)).unwrap() = fresh;
    assert_breaks(Invariant::Nesting, scene.watcher.after_step(&mut scene.cluster));
}

#[test]
fn a_write_that_nobody_asked_for_is_seen() {
    let mut scene = Scene::new();
    let store = scene.cluster.store(0).unwrap();
    let space = store.spaces().open(REGISTERS.name, REGISTERS.family).unwrap();
    let (name, wall_ms) = (workload::key_name(1), scene.cluster.now(0).wall_ms);
    let key = KeyRef::new(&space, &name);
    let value = Bytes::from_static(b"unasked");
    store.write(&key, Intent { wall_ms, value_len: None }, |p, tick| p.set(&key, value, NEVER, tick)).unwrap();
    assert_breaks(Invariant::Invented, scene.watcher.after_step(&mut scene.cluster));
}

#[test]
fn a_number_used_twice_is_seen() {
    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Set, 1));
    let (me, store) = (scene.cluster.node(0).unwrap().me().replica, scene.cluster.store(0).unwrap());
    *store.lock(PartitionId(0)).unwrap() = Partition::new(PartitionId(0), me, 16);
    let again = scene.watcher.write(&mut scene.cluster, 0_usize, op(OpKind::Set, 1), None);
    assert_breaks(Invariant::Dots, again);
}

#[test]
fn a_clock_that_took_in_what_is_far_ahead_is_seen() {
    let mut scene = Scene::new();
    let far = Hlc::from_ms(scene.cluster.true_ms() + 5_000);
    scene.cluster.store(0).unwrap().clock().observe(far);
    assert_breaks(Invariant::Clock, scene.watcher.after_step(&mut scene.cluster));
}

#[test]
fn a_tombstone_that_stays_is_seen_and_so_is_an_epoch() {
    for kind in [OpKind::Delete, OpKind::InvalidateAll] {
        let mut scene = Scene::new();
        scene.write(0, op(kind, 1));
        scene.settle();
        assert_breaks(Invariant::Quiescence, scene.watcher.at_rest(&mut scene.cluster));
        scene.pass(LONG).unwrap();
        scene.watcher.at_rest(&mut scene.cluster).unwrap();
    }
}

#[test]
fn a_member_that_will_not_come_back_is_seen() {
    let mut scene = Scene::with(&Setting { nodes: 2, spare: 1, partitions: 1, ..Setting::default() });
    assert!(scene.cluster.perform(Action::Start { at: 2 }));
    scene.cluster.run_for(LONG);
    scene.settle();
    scene.watcher.before(&scene.cluster, &Action::Crash { at: 2 }).unwrap();
    scene.cluster.crash(2);
    scene.pass(LONG).unwrap();
    assert_breaks(Invariant::Liveness, scene.watcher.at_rest(&mut scene.cluster));
}

#[test]
fn bytes_that_are_not_accounted_for_are_seen() {
    let mut scene = Scene::new();
    scene.write(0, op(OpKind::Set, 1));
    scene.pass(LONG).unwrap();
    let store = scene.cluster.store(0).unwrap();
    let space = store.spaces().find(REGISTERS.name).unwrap();
    let (name, cell) = (workload::key_name(1), scene.cell(0, 1));
    // The entry is made again in a partition that does not know of the first one's bytes.
    let (ctx, seq) = scene.partition(0, |p| (p.ctx().clone(), p.seq()));
    let mut copy = Partition::new(PartitionId(0), store.me(), 16);
    let tick = driftless::store::Tick { clock: store.clock(), wall_ms: 0 };
    for _ in 0..seq {
        copy.set(&KeyRef::new(&space, &name), Bytes::new(), NEVER, &tick);
    }
    assert_eq!((copy.ctx(), cell.tags().len()), (&ctx, 0));
    *store.lock(PartitionId(0)).unwrap() = copy;
    let found = (0..4).try_for_each(|_| scene.watcher.after_step(&mut scene.cluster));
    assert!(matches!(found, Err(Violation { invariant: Invariant::Memory | Invariant::Nesting, .. })), "{found:?}");
}

#[test]
fn a_keyspace_far_over_its_budget_is_seen() {
    let mut scene = Scene::new();
    for n in 0..8 {
        scene.write(0, op(OpKind::Set, n));
    }
    scene.settle();
    let store = scene.cluster.store(1).unwrap();
    let space = store.spaces().find(REGISTERS.name).unwrap();
    space.set_budget(1);
    let found = scene.watcher.write(&mut scene.cluster, 1_usize, op(OpKind::Set, 9), None);
    assert_eq!(found, Ok(()), "refused, as it should be");
    for n in 0..200 {
        let key = Bytes::from(format!("stray {n}"));
        let dot = Dot { replica: ReplicaId(3), seq: 1 };
        let cell = Cell::new(Payload::Value(Bytes::from(vec![0; 4_000])), Hlc(1), dot, NEVER);
        let mut fragment = Fragment::empty(space.id(), key, Scope::Path(Path::Register));
        fragment.cell = Some(cell);
        scene.partition(1, |p| {
            let batch = Batch { partition: p.id(), ctx: p.ctx().clone(), fragments: vec![fragment] };
            p.apply(ReplicaId(1), &batch, &Around { spaces: store.spaces(), collect_before_ms: 0 }).unwrap();
        });
    }
    let found = (0..4).try_for_each(|_| scene.watcher.after_step(&mut scene.cluster));
    assert_breaks(Invariant::Memory, found);
}

#[test]
fn a_level_counted_by_a_member_that_has_not_seen_the_write_is_seen() {
    let mut scene = Scene::new();
    let ack = Ack { all: true, within_ms: 1_000 };
    scene.cluster.isolate(1);
    scene.watcher.write(&mut scene.cluster, 0_usize, op(OpKind::Set, 1), Some(ack)).unwrap();
    // Somebody reports in the other member's name what that member has never seen.
    let other = scene.cluster.node(1).unwrap().me().replica;
    let seen: Ctx = scene.partition(0, |p| p.ctx().clone());
    scene.partition(0, |p| p.report(other, &seen));
    assert_breaks(Invariant::Acknowledged, scene.pass(Duration::from_secs(2)));
}

#[test]
fn stability_that_one_member_does_not_know_of_is_seen() {
    let mut scene = Scene::new();
    scene.pass(Duration::from_secs(5)).unwrap();
    scene.cluster.isolate(1);
    scene.write(0, op(OpKind::Set, 1));
    let (other, store) = (scene.cluster.node(1).unwrap().me().replica, scene.cluster.store(0).unwrap());
    scene.partition(0, |p| {
        let seen = p.ctx().clone();
        p.report(other, &seen);
        p.collect(&[other], store.spaces(), 0);
    });
    assert_breaks(Invariant::Stability, scene.watcher.after_step(&mut scene.cluster));
}
