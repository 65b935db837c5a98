//! What a single partition promises about limits and budgets: captures, growth, sweeps, the log's bound.

use bytes::Bytes;

use super::super::apply::Around;
use super::super::write::Tick;
use super::super::{
    Applied, Batch, Budget, ENTRY_BYTES_MAX, Entry, FIELDS_MAX, Family, Fragment, Full, KeyRef, Keyspace, Keyspaces,
    Partition, Refused, Warm,
};
use crate::clock::{Hlc, HlcClock, Stamp};
use crate::crdt::{Ctx, Custom, Dot, NEVER, Path, Payload, Scope};
use crate::error::WriteError;
use crate::id::{KeyspaceId, NodeId, PartitionId, ReplicaId};

const ME: ReplicaId = ReplicaId(1);
const PEER: ReplicaId = ReplicaId(2);
const WALL_MS: u64 = 1_000;

struct One {
    partition: Partition,
    spaces: Keyspaces,
    clock: HlcClock,
}

impl One {
    fn new(me: ReplicaId, log_records_max: usize) -> Self {
        let spaces = Keyspaces::new(u64::MAX, [7; 16]);
        spaces.open("regs", Family::Register).unwrap();
        spaces.open("maps", Family::Map).unwrap();
        Self { partition: Partition::new(PartitionId(0), me, log_records_max), spaces, clock: HlcClock::default() }
    }

    fn write<R>(&mut self, space: &str, key: &str, f: impl FnOnce(&mut Partition, &KeyRef<'_>, &Tick<'_>) -> R) -> R {
        let space = self.spaces.find(space).unwrap();
        let tick = Tick { clock: &self.clock, wall_ms: WALL_MS };
        f(&mut self.partition, &KeyRef::new(&space, key.as_bytes()), &tick)
    }

    fn set(&mut self, key: &str, len: usize, deadline: u64) {
        self.write("regs", key, |p, at, t| p.set(at, Bytes::from(vec![1; len]), deadline, t));
    }

    fn put(&mut self, key: &str, field: &str, len: usize) {
        let path = Path::Field(Bytes::copy_from_slice(field.as_bytes()));
        self.write("maps", key, |p, at, t| p.put(at, path, Bytes::from(vec![1; len]), NEVER, t));
    }

    fn apply(&mut self, from: ReplicaId, batch: &Batch) -> Applied {
        let around = Around { spaces: &self.spaces, collect_before_ms: 0 };
        self.partition.apply(from, batch, &around).unwrap()
    }

    fn space(&self, name: &str) -> std::sync::Arc<Keyspace> {
        self.spaces.find(name).unwrap()
    }
}

fn keys(batch: &Batch) -> Vec<&str> {
    batch.fragments.iter().map(|f| std::str::from_utf8(&f.key).unwrap()).collect()
}

const ALL: Budget = Budget { fragments: usize::MAX, bytes: usize::MAX };

#[test]
fn a_capture_ends_where_its_fragments_do_and_the_next_goes_on_from_there() {
    let mut one = One::new(ME, 1 << 10);
    for key in ["a", "b", "a", "c", "d"] {
        one.set(key, 9, NEVER);
    }
    let two = Budget { fragments: 2, ..ALL };
    let first = one.partition.capture_own(0, two);
    assert_eq!((keys(&first.batch), first.upto, first.more), (vec!["a", "b"], 3, true), "a second write of a is in");
    let rest = one.partition.capture_own(first.upto, two);
    assert_eq!((keys(&rest.batch), rest.upto, rest.more), (vec!["c", "d"], 5, false));
    let none = one.partition.capture_own(rest.upto, two);
    assert_eq!((keys(&none.batch), none.upto, none.more), (vec![], 5, false));
    assert_eq!(&none.batch.ctx, one.partition.ctx());
}

#[test]
fn a_capture_takes_one_fragment_whatever_it_weighs_and_ends_when_its_bytes_are_spent() {
    let mut one = One::new(ME, 1 << 10);
    for key in ["a", "b", "c", "d"] {
        one.set(key, 1_000, NEVER);
        one.put("m", key, 1_000);
    }
    let taken = |one: &One, bytes| {
        let captured = one.partition.capture_lacking(&Ctx::default(), Budget { bytes, ..ALL });
        (captured.batch.fragments.len(), captured.more)
    };
    assert_eq!(taken(&one, 0), (1, true));
    assert_eq!(taken(&one, 2_500), (3, true), "fields weigh what they hold, like registers");
    assert_eq!(taken(&one, 1 << 20), (8, false));
    let mut keys = One::new(ME, 1 << 10);
    ["a", "b", "c", "d"].into_iter().for_each(|key| keys.set(&key.repeat(1_000), 0, NEVER));
    assert_eq!(taken(&keys, 2_200), (2, true), "keys have a weight, too");
}

#[test]
fn what_one_origin_wrote_is_captured_alone_and_only_what_is_lacking() {
    let (mut one, mut peer) = (One::new(ME, 1 << 10), One::new(PEER, 1 << 10));
    for key in ["x", "y", "z"] {
        peer.set(key, 9, NEVER);
    }
    one.set("a", 9, NEVER);
    one.apply(PEER, &peer.partition.capture_own(0, ALL).batch);
    let mut known = Ctx::default();
    known.add(Dot { replica: PEER, seq: 1 });
    known.add(Dot { replica: PEER, seq: 3 });
    let of = |origin, known| keys(&one.partition.capture_lacking_of(origin, known, ALL).batch).join(" ");
    assert_eq!((of(PEER, &known), of(ME, &known)), ("y".to_owned(), "a".to_owned()));
    assert_eq!(keys(&one.partition.capture_lacking(&known, ALL).batch), ["a", "y"]);
    assert_eq!(of(PEER, &Ctx::default()), "x y z");
}

#[test]
fn a_map_takes_values_up_to_its_bytes_and_not_one_more() {
    let mut one = One::new(ME, 1 << 10);
    let path = |name: &str| Path::Field(Bytes::copy_from_slice(name.as_bytes()));
    let admit =
        |one: &mut One, name: &str, len| one.write("maps", "m", |p, at, _| p.admit_growth(at, &path(name), len));
    assert_eq!(admit(&mut one, "f", 1 << 30), Ok(()), "of a map that is not there nothing is known");
    one.put("m", "f", 1_000);
    let held = one.write("maps", "m", |p, at, _| p.entry(at).unwrap().bytes());
    let room = ENTRY_BYTES_MAX - held;
    assert_eq!(admit(&mut one, "f", room), Ok(()));
    let over = WriteError::EntryTooLarge { len: ENTRY_BYTES_MAX + 1, max: ENTRY_BYTES_MAX };
    assert_eq!((admit(&mut one, "f", room + 1), admit(&mut one, "g", room + 1)), (Err(over.clone()), Err(over)));
}

#[test]
#[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
fn a_map_of_very_many_fields_takes_no_other_and_says_why() {
    let mut one = One::new(ME, 1 << 10);
    for n in 1..FIELDS_MAX {
        one.put("m", &n.to_string(), 0);
    }
    let count = Path::Counter(Bytes::from_static(b"n"));
    let admit =
        |one: &mut One, path: &Path| one.write("maps", "m", |p, at, _| p.admit_growth(at, path, 0)).unwrap_err();
    assert!(matches!(admit(&mut one, &count), WriteError::EntryTooLarge { .. }), "one more is not too many");
    one.write("maps", "m", |p, at, t| p.increment(at, &Bytes::from_static(b"n"), 1, NEVER, t));
    let full = WriteError::TooManyFields { len: FIELDS_MAX, max: FIELDS_MAX };
    assert_eq!(admit(&mut one, &Path::Field(Bytes::from_static(b"new"))), full);
    assert_eq!(admit(&mut one, &Path::Counter(Bytes::from_static(b"new"))), full);
    for known in [Path::Field(Bytes::from_static(b"7")), count] {
        assert!(matches!(admit(&mut one, &known), WriteError::EntryTooLarge { .. }), "{known:?} is there already");
    }
}

#[test]
#[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
fn a_sweep_is_bounded_and_says_whether_more_is_due() {
    let mut one = One::new(ME, 1 << 10);
    for n in 0..300 {
        one.set(&n.to_string(), 9, 2_000 + n);
    }
    assert_eq!(one.partition.next_expiry(), Some(2_000));
    assert!(!one.partition.sweep(1_999, &one.spaces, 0), "nothing is due");
    let used = one.space("regs").used();
    assert!(one.partition.sweep(2_300, &one.spaces, 0), "more than one call may look at");
    assert!(one.partition.next_expiry().is_some_and(|next| next > 2_000) && one.space("regs").used() < used);
    assert!(!one.partition.sweep(2_300, &one.spaces, 0));
    assert_eq!(one.partition.next_expiry(), None);
}

#[test]
fn of_what_had_to_outlive_its_deadline_nothing_is_left_once_it_has_gone() {
    let mut one = One::new(ME, 1 << 10);
    for key in ["a", "b"] {
        let name = Bytes::from_static(b"visits");
        one.write("maps", key, |p, at, t| p.increment(at, &name, 1, 2_000, t));
    }
    one.partition.sweep(3_000, &one.spaces, 0);
    assert_eq!(one.partition.overdue.len(), 2, "nobody else has seen them");
    one.partition.report(PEER, &one.partition.ctx().clone());
    one.partition.collect(&[PEER], &one.spaces, u64::MAX);
    one.partition.sweep(u64::MAX - 1, &one.spaces, u64::MAX);
    assert_eq!((one.partition.len(), one.partition.overdue.len()), (0, 0));
}

#[test]
fn the_log_gives_up_the_oldest_records_of_the_longest_origin() {
    let (mut one, mut peer) = (One::new(ME, 1 << 10), One::new(PEER, 1 << 10));
    for n in 0..3 {
        peer.set(&format!("p{n}"), 9, NEVER);
    }
    for n in 0..10 {
        one.set(&format!("o{n}"), 9, NEVER);
    }
    one.apply(PEER, &peer.partition.capture_own(0, ALL).batch);
    assert_eq!((one.partition.log_len(), one.partition.binding_floor()), (13, None));
    one.partition.shrink_log(9);
    assert_eq!(one.partition.log_len(), 9);
    let mut dropped = Ctx::default();
    dropped.add_range(ME, 1, 4);
    assert_eq!(one.partition.binding_floor(), Some(&dropped), "a peer that lacks it is synchronised in full");
    one.partition.shrink_log(100);
    assert_eq!(one.partition.log_len(), 9);
    one.partition.report(PEER, &dropped);
    assert_eq!(one.partition.report_of(PEER).map(|seen| seen.includes(&dropped)), Some(true));
    one.partition.collect(&[PEER], &one.spaces, 0);
    assert_eq!(one.partition.binding_floor(), None, "every member has it");
    one.partition.forget_report(PEER);
    assert_eq!(one.partition.report_of(PEER), None);
}

#[test]
fn entries_come_and_go_and_leave_their_room_behind() {
    let mut one = One::new(ME, 1 << 10);
    assert!(one.partition.is_empty() && one.partition.id() == PartitionId(0));
    for key in ["a", "b", "c"] {
        one.set(key, 100, NEVER);
    }
    let full = one.space("regs").used();
    one.write("regs", "b", |p, at, t| p.delete(at, t));
    assert_eq!((one.partition.len(), one.partition.seq()), (3, 4), "a tombstone is an entry");
    one.partition.collect(&[], &one.spaces, u64::MAX);
    assert_eq!((one.partition.len(), one.partition.is_empty()), (2, false));
    assert!(one.write("regs", "b", |p, at, _| p.entry(at).is_none()));
    assert_eq!(one.space("regs").used(), full / 3 * 2);
    one.set("d", 100, NEVER);
    assert_eq!((one.partition.len(), one.space("regs").used()), (3, full));
    assert_eq!(one.partition.entries().map(|(_, key, _)| key.as_ref()).collect::<Vec<_>>(), [b"a", b"d", b"c"]);
    assert_eq!(one.partition.index.len(), 3, "what is gone is not looked for either");
}

#[test]
fn concurrent_writes_are_conflicts_where_they_meet_and_writes_that_saw_each_other_are_not() {
    let writes: [fn(&mut One); 2] = [|one| one.set("k", 9, NEVER), |one| one.put("m", "f", 9)];
    for write in writes {
        let (mut one, mut peer) = (One::new(ME, 1 << 10), One::new(PEER, 1 << 10));
        write(&mut one);
        write(&mut peer);
        let theirs = peer.partition.capture_own(0, ALL).batch;
        let (first, again) = (one.apply(PEER, &theirs), one.apply(PEER, &theirs));
        assert_eq!([(first.conflicts, first.news), (again.conflicts, again.news)], [(1, 1), (0, 0)]);
        write(&mut one);
        let mine = one.partition.capture_own(0, ALL).batch;
        let seen = peer.apply(ME, &mine);
        assert_eq!((seen.conflicts, seen.news), (0, 2), "it saw what it replaces");
    }
}

/// Every second event of a replica, so many of them: as many gaps.
fn scattered(replica: ReplicaId, gaps: u64) -> impl Iterator<Item = Dot> {
    (1..=gaps).map(move |n| Dot { replica, seq: 2 * n })
}

fn taken(one: &mut One, dots: impl Iterator<Item = Dot>) -> Result<u64, Refused> {
    let mut fragment = Fragment::empty(one.space("regs").id(), Bytes::from_static(b"k"), Scope::Path(Path::Register));
    fragment.covers = dots.map(|dot| (dot, fragment.scope.clone())).collect();
    let batch = Batch { partition: PartitionId(0), ctx: Ctx::default(), fragments: vec![fragment] };
    let around = Around { spaces: &one.spaces, collect_before_ms: 0 };
    one.partition.apply(PEER, &batch, &around).map(|applied| applied.news)
}

#[test]
#[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
fn a_batch_that_would_leave_too_many_gaps_is_refused_and_one_that_closes_some_is_not() {
    let one_dot = |seq| std::iter::once(Dot { replica: PEER, seq });
    let mut one = One::new(ME, 1 << 20);
    let two = |replica| [9_000, 9_001].map(|seq| Dot { replica, seq }).into_iter();
    assert_eq!(taken(&mut one, scattered(PEER, 2_047)), Ok(2_047));
    assert_eq!(taken(&mut one, two(PEER)), Ok(2), "two events beyond one gap, the last");
    let before = one.partition.ctx().clone();
    assert_eq!(taken(&mut one, one_dot(5_000)), Err(Refused::Scattered), "too many of one replica");
    assert_eq!(one.partition.ctx(), &before);
    assert_eq!([one_dot(3), one_dot(5_000), one_dot(4_999)].map(|dots| taken(&mut one, dots)), [Ok(1), Ok(1), Ok(1)]);

    let mut one = One::new(ME, 1 << 20);
    for replica in 2..10 {
        assert_eq!(taken(&mut one, scattered(ReplicaId(replica), 1_000)), Ok(1_000));
    }
    assert_eq!(taken(&mut one, scattered(ReplicaId(10), 191)), Ok(191));
    assert_eq!(taken(&mut one, two(ReplicaId(10))), Ok(2));
    assert_eq!(taken(&mut one, scattered(ReplicaId(11), 1)), Err(Refused::Scattered), "too many of all together");
    let full = |dots: &mut dyn Iterator<Item = Dot>| {
        let mut batch = Batch { partition: PartitionId(0), ctx: Ctx::default(), fragments: Vec::new() };
        dots.for_each(|dot| batch.ctx.add(dot));
        Full {
            batch,
            frontier: Ctx::default(),
            floor: Ctx::default(),
            forgotten: Hlc::default(),
            is_rest: false,
            is_part: false,
        }
    };
    let around = Around { spaces: &one.spaces, collect_before_ms: 0 };
    let refused = one.partition.apply_full(PEER, &full(&mut scattered(ReplicaId(11), 1)), &around);
    assert_eq!(refused, Err(Refused::Scattered));
    let known = one.partition.apply_full(PEER, &full(&mut scattered(PEER, 1_000)), &around);
    assert_eq!(known, Ok(Applied::default()));
}

#[test]
#[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
fn a_context_that_has_too_many_gaps_already_takes_what_opens_no_other() {
    for replicas in [1, 5] {
        let mut one = One::new(ME, 1 << 20);
        for replica in 2..2 + replicas {
            scattered(ReplicaId(replica), 2_049).for_each(|dot| one.partition.ctx.add(dot));
        }
        let next = |seq| std::iter::once(Dot { replica: PEER, seq });
        assert_eq!(taken(&mut one, next(4_099)), Ok(1), "next to the last");
        assert_eq!(taken(&mut one, next(3)), Ok(1), "between the first two");
        assert_eq!(taken(&mut one, [4_101, 4_103].into_iter().flat_map(next)), Err(Refused::Scattered));
    }
}

#[test]
fn an_eviction_says_whether_it_gave_anything_back() {
    let mut one = One::new(ME, 1 << 10);
    let evict = |one: &mut One, key: &str| one.write("regs", key, |p, at, _| p.evict(at, 0));
    one.set("k", 100, NEVER);
    let full = one.space("regs").used();
    assert!(evict(&mut one, "k") && one.space("regs").used() == full - 100);
    assert!(!evict(&mut one, "k") && !evict(&mut one, "never written"));
    one.write("regs", "k", |p, at, t| p.delete(at, t));
    assert!(!evict(&mut one, "k"));
    one.put("m", "f", 100);
    let evict = |one: &mut One| one.write("maps", "m", |p, at, _| p.evict(at, 0));
    assert!(!evict(&mut one), "not before it is stable");
    one.partition.collect(&[], &one.spaces, 0);
    assert!(evict(&mut one) && !evict(&mut one));
}

#[test]
fn keys_whose_hashes_collide_are_different_keys_all_the_same() {
    let mut one = One::new(ME, 1 << 10);
    let (regs, maps) = (one.space("regs"), one.space("maps"));
    let tick = Tick { clock: &one.clock, wall_ms: WALL_MS };
    let at = |space, key| KeyRef { space, key, hash: 7 };
    one.partition.set(&at(&regs, b"a"), Bytes::from_static(b"a"), NEVER, &tick);
    assert!(one.partition.entry(&at(&regs, b"b")).is_none() && one.partition.entry(&at(&maps, b"a")).is_none());
    one.partition.set(&at(&regs, b"b"), Bytes::from_static(b"b"), NEVER, &tick);
    one.partition.put(&at(&maps, b"a"), Path::Field(Bytes::new()), Bytes::new(), NEVER, &tick);
    assert_eq!(one.partition.len(), 3);
    assert!(one.partition.entry(&KeyRef { hash: 8, ..at(&regs, b"a") }).is_none());
}

#[test]
fn what_a_batch_changed_is_told_of_watched_keyspaces_only() {
    let (mut one, mut peer) = (One::new(ME, 1 << 10), One::new(PEER, 1 << 10));
    let regs = one.space("regs");
    regs.watch();
    peer.set("k", 9, NEVER);
    peer.put("m", "f", 9);
    let batch = peer.partition.capture_own(0, ALL).batch;
    assert_eq!(one.apply(PEER, &batch).changed, [(regs.id(), Bytes::from_static(b"k"))]);
    assert_eq!(one.apply(PEER, &batch).changed, [], "it was known");
    let around = Around { spaces: &one.spaces, collect_before_ms: 0 };
    let mut gone = peer.partition.capture_full();
    gone.batch.fragments.clear();
    let applied = one.partition.apply_full(PEER, &gone, &around).unwrap();
    assert_eq!(applied.changed, [(regs.id(), Bytes::from_static(b"k"))], "a value that the sender has no more");
}

#[test]
fn fragments_that_cannot_be_joined_are_counted_and_their_events_stay_missing() {
    let (mut one, mut peer) = (One::new(ME, 1 << 10), One::new(PEER, 1 << 10));
    ["a", "b", "c"].into_iter().for_each(|key| peer.set(key, 9, NEVER));
    let mut batch = peer.partition.capture_own(0, ALL).batch;
    batch.fragments.iter_mut().take(2).for_each(|f| f.keyspace = KeyspaceId(9));
    let applied = one.apply(PEER, &batch);
    assert_eq!((applied.quarantined, applied.news), (2, 1));
    let missing = [1, 2, 3].map(|seq| !one.partition.ctx().has(Dot { replica: PEER, seq }));
    assert_eq!(missing, [true, true, false]);
    let customs = one.spaces.open("custom", Family::Custom).unwrap();
    let states = ["x", "y"].map(|key| {
        let mut fragment = Fragment::empty(customs.id(), Bytes::from_static(key.as_bytes()), Scope::Path(Path::Custom));
        let state = Payload::Value(Bytes::from_static(b"s"));
        fragment.custom = Some(Custom::new(Stamp::default(), Dot { replica: PEER, seq: 9 }, state, NEVER));
        fragment
    });
    let mut unmergeable = Batch { fragments: states.to_vec(), ..batch };
    assert_eq!(one.apply(PEER, &unmergeable).quarantined, 0);
    for fragment in &mut unmergeable.fragments {
        fragment.custom.as_mut().unwrap().merged = [(ReplicaId(3), 1)].into();
    }
    assert_eq!(one.apply(PEER, &unmergeable).quarantined, 2, "nobody here knows how to merge");
}

/// Two partitions that have both seen one key, stable at the second.
fn seen_by_both() -> (One, One) {
    let (mut whole, mut edge) = (One::new(ME, 1 << 10), One::new(PEER, 1 << 10));
    whole.set("k", 9, NEVER);
    edge.apply(ME, &whole.partition.capture_own(0, ALL).batch);
    let ctx = whole.partition.ctx().clone();
    edge.partition.report(ME, &ctx);
    (whole, edge)
}

#[test]
fn only_registers_that_every_member_has_and_nobody_reads_are_given_back_and_only_once_they_are_old() {
    let (_, mut edge) = seen_by_both();
    edge.put("m", "f", 9);
    let (warm, spaces) = (Warm::new(1), &edge.spaces);
    let hash = spaces.find("regs").unwrap().hash(b"k");
    let evict = |partition: &mut Partition, before_ms| partition.evict_cold(0, &warm, spaces, before_ms);
    assert_eq!(evict(&mut edge.partition, WALL_MS), (0, None), "a member may lack it");
    edge.partition.collect(&[ME], spaces, 0);
    assert_eq!(evict(&mut edge.partition, WALL_MS - 1), (0, None), "it would leave a stub");
    warm.note(PartitionId(0), hash);
    assert_eq!(evict(&mut edge.partition, WALL_MS), (0, None), "it was read lately");
    warm.turn();
    warm.turn();
    assert_eq!(evict(&mut edge.partition, WALL_MS), (1, None));
    assert_eq!((edge.partition.len(), edge.partition.table().partial().len()), (1, 1), "the map stays");
}

#[test]
fn a_fetched_register_is_a_batch_which_brings_it_back_and_which_is_refused_once_it_is_stale() {
    let (mut whole, mut edge) = seen_by_both();
    edge.partition.collect(&[ME], &edge.spaces, 0);
    edge.partition.evict_cold(0, &Warm::new(1), &edge.spaces, u64::MAX);
    assert!(edge.partition.is_empty());
    let captured = whole.write("regs", "k", |p, at, _| p.capture_key(at)).unwrap();
    assert!(whole.write("regs", "never written", |p, at, _| p.capture_key(at)).is_none());
    let back = edge.apply(ME, &captured);
    assert_eq!((back.news, edge.partition.len()), (0, 1), "no event is new");

    let known = whole.partition.ctx().clone();
    whole.write("regs", "k", |p, at, t| p.delete(at, t));
    edge.apply(ME, &whole.partition.capture_own(1, ALL).batch);
    edge.apply(ME, &captured);
    let grave = edge.write("regs", "k", |p, at, _| p.entry(at).and_then(Entry::grave_ms));
    assert!(grave.is_some(), "what is not stable yet is here, and wins over what was captured before it");
    edge.partition.collect(&[ME], &edge.spaces, u64::MAX);
    assert!(edge.partition.is_empty() && !known.includes(edge.partition.frontier()));
    let around = Around { spaces: &edge.spaces, collect_before_ms: u64::MAX };
    assert_eq!(edge.partition.apply(ME, &captured, &around), Err(Refused::Stale), "it was deleted and forgotten");
}

#[test]
fn a_mark_makes_nothing_stable_that_its_maker_has_not_seen() {
    let j = |ms| ReplicaId::new(NodeId(uuid::Uuid::from_u128(77 << 64)), ms);
    let (mut removed, mut one) = (One::new(j(1), 1 << 10), One::new(ME, 1 << 10));
    removed.set("k", 9, NEVER);
    one.apply(j(1), &removed.partition.capture_own(0, ALL).batch);
    let mut mark = one.partition.ctx().clone();
    mark.fold(j(1));
    one.partition.report(PEER, &mark);
    one.partition.collect(&[PEER], &one.spaces, 0);
    assert_eq!(one.partition.frontier(), one.partition.ctx(), "that is what is folded there");
    assert!(one.partition.has_reported(PEER, Dot { replica: j(1), seq: 1 }));

    removed.set("k", 8, NEVER);
    one.apply(j(1), &removed.partition.capture_own(1, ALL).batch);
    one.partition.collect(&[PEER], &one.spaces, 0);
    assert!(one.partition.ctx().has(Dot { replica: j(1), seq: 2 }), "nobody here knows that it was removed");
    assert!(!one.partition.frontier().has(Dot { replica: j(1), seq: 2 }), "it wrote this after it was folded there");
    assert!(!one.partition.has_reported(PEER, Dot { replica: j(1), seq: 2 }), "nor does that count towards a level");
}

#[test]
fn of_what_is_folded_only_what_is_remembered_counts_as_seen() {
    let j = |ms| ReplicaId::new(NodeId(uuid::Uuid::from_u128(77 << 64)), ms);
    let (mut former, mut one) = (One::new(j(1), 1 << 10), One::new(ME, 1 << 10));
    former.set("k", 9, NEVER);
    one.apply(j(1), &former.partition.capture_own(0, ALL).batch);
    one.partition.fold(j(2));
    let mark = one.partition.ctx().clone();
    one.partition.report(PEER, &mark);
    let counts = |replica, seq| {
        let dot = Dot { replica, seq };
        (one.partition.has_seen(dot), one.partition.has_reported(PEER, dot))
    };
    assert_eq!(counts(j(1), 1), (true, true));
    assert_eq!(counts(j(1), 2), (false, false), "it never came, and the mark has every number");
    assert_eq!(counts(j(2), 1), (false, false));
}

#[test]
fn a_fetched_register_brings_the_events_that_are_not_stable_where_it_is() {
    let (mut whole, mut edge) = seen_by_both();
    whole.set("k", 5, NEVER);
    let captured = whole.write("regs", "k", |p, at, _| p.capture_key(at)).unwrap();
    assert_eq!(edge.apply(ME, &captured).news, 1);
    assert_eq!(edge.partition.ctx(), whole.partition.ctx());
}

#[test]
fn what_an_edge_does_not_hold_stays_where_it_gives_everything_unless_it_knows_more() {
    let (mut whole, mut edge) = seen_by_both();
    edge.partition.collect(&[ME], &edge.spaces, 0);
    edge.partition.evict_cold(0, &Warm::new(1), &edge.spaces, u64::MAX);
    edge.set("other", 3, NEVER);
    let full = Full { is_part: true, ..edge.partition.capture_full() };
    let mut late = One::new(ReplicaId(3), 1 << 10);
    let refused = late.partition.apply_full(PEER, &full, &Around { spaces: &late.spaces, collect_before_ms: 0 });
    assert_eq!((refused, late.partition.len()), (Err(Refused::Part), 0), "it cannot be told what was deleted");
    let taken = whole.partition.apply_full(PEER, &full, &Around { spaces: &whole.spaces, collect_before_ms: 0 });
    let news = taken.map(|_| whole.partition.len());
    assert_eq!(news, Ok(2));
}

#[test]
fn no_grave_waits_for_a_comparison_with_an_edge() {
    for excused in [&[][..], &[PEER][..]] {
        let mut one = One::new(ME, 1 << 10);
        one.partition.wait_for_comparisons();
        one.write("regs", "k", |p, at, t| p.delete(at, t));
        let ctx = one.partition.ctx().clone();
        one.partition.report(PEER, &ctx);
        one.partition.excuse(excused);
        one.partition.collect(&[PEER], &one.spaces, WALL_MS);
        assert_eq!(one.partition.is_empty(), !excused.is_empty());
    }
}
