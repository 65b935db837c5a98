//! Generators of everything a store can put on the wire, for the round trips and the laws.
//!
//! # Invariants
//! * No generated stamp lies above [`CLOCK`], and the keyspaces are those of [`spaces`].
//! * Collections are in the form the store keeps them in: sorted, without duplicates, not empty.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of the generators")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use driftless::clock::{Hlc, Stamp};
use driftless::crdt::custom::Erased;
use driftless::crdt::member::{Member, Profile};
use driftless::crdt::members::MemberSet;
use driftless::crdt::tree::Branch;
use driftless::crdt::{Cell, Contribution, Ctx, Custom, Dot, Elem, NEVER, Path, Payload, Reset, Scope, Seen};
use driftless::id::{KeyspaceId, NodeId, PartitionId, RegionId, ReplicaId, Role};
use driftless::store::{Batch, Family, Fragment, Keyspaces};
use driftless::wire::{Answer, Beat, Control, Frame, FullChunk, Hello, Part, Repair, Restore, Snapshot};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

/// The clock of every generated frame.
pub(crate) const CLOCK: Hlc = Hlc(1_750_000_000_000 << 16 | 40);

/// The five families, one keyspace each, numbered in the order of [`Family::code`].
pub(crate) fn spaces() -> Keyspaces {
    let spaces = Keyspaces::new(1 << 30, [7; 16]);
    for (name, family) in
        [("sessions", Family::Register), ("carts", Family::Map), ("hits", Family::Counter), ("tags", Family::Set)]
    {
        spaces.open(name, family).unwrap();
    }
    spaces.open_custom("docs", Arc::new(Erased::<crdts::PNCounter<u64>>::default())).unwrap();
    spaces
}

pub(crate) fn keyspace(family: Family) -> KeyspaceId {
    KeyspaceId(u16::from(family.code()))
}

pub(crate) fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), len).prop_map(Bytes::from)
}

/// Few replicas, so that values meet; one of them with a large id.
pub(crate) fn replica() -> impl Strategy<Value = ReplicaId> {
    prop_oneof![3 => 1..4_u64, 1 => Just(u64::MAX - 5)].prop_map(ReplicaId)
}

pub(crate) fn seq() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1..40_u64, 1 => 1..1_u64 << 40]
}

pub(crate) fn dot() -> impl Strategy<Value = Dot> {
    (replica(), seq()).prop_map(|(replica, seq)| Dot { replica, seq })
}

/// Stamps of the last two milliseconds, and of long ago.
pub(crate) fn hlc() -> impl Strategy<Value = Hlc> {
    prop_oneof![3 => 0..100_000_u64, 1 => 0..CLOCK.0].prop_map(|below| Hlc(CLOCK.0 - below))
}

pub(crate) fn stamp() -> impl Strategy<Value = Stamp> {
    (hlc(), replica()).prop_map(|(hlc, replica)| Stamp { hlc, replica })
}

pub(crate) fn deadline() -> impl Strategy<Value = u64> {
    let later = (1_u64..100_000_000).prop_map(|ttl| CLOCK.ms() + ttl);
    prop_oneof![2 => Just(NEVER), 3 => Just(CLOCK.ms() + 1_800_000), 2 => later, 1 => any::<u64>()]
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![4 => bytes(0..300).prop_map(Payload::Value), 1 => Just(Payload::Tombstone), 1 => Just(Payload::Absent)]
}

pub(crate) fn cell() -> impl Strategy<Value = Cell> {
    let tags = vec(bytes(1..9), 0..3);
    (payload(), hlc(), dot(), deadline(), proptest::option::of(dot()), tags).prop_map(
        |(payload, hlc, dot, deadline, touch, tags)| {
            let tags = if matches!(payload, Payload::Value(_)) { tags } else { Vec::new() };
            let mut cell = Cell::new(payload, hlc, dot, deadline).with_tags(tags);
            cell.touch = touch.unwrap_or(dot);
            cell
        },
    )
}

pub(crate) fn elem() -> impl Strategy<Value = Elem> {
    (dot(), stamp(), any::<bool>(), deadline(), bytes(0..60)).prop_map(|(dot, mut stamp, own, deadline, value)| {
        if own {
            stamp.replica = dot.replica;
        }
        Elem { dot, stamp, deadline, value }
    })
}

pub(crate) fn siblings() -> impl Strategy<Value = Vec<Elem>> {
    vec(elem(), 1..4).prop_map(|mut siblings| {
        siblings.sort_by_key(|e| e.dot);
        siblings.dedup_by_key(|e| e.dot);
        siblings
    })
}

/// A path that holds elements.
pub(crate) fn elem_path() -> impl Strategy<Value = Path> {
    prop_oneof![
        3 => bytes(0..5).prop_map(Path::Field),
        2 => (bytes(0..3), bytes(0..5)).prop_map(|(set, member)| Path::Member(set, member)),
        1 => Just(Path::Ttl),
    ]
}

pub(crate) fn contribution() -> impl Strategy<Value = Contribution> {
    let reset = (0..9_u64, dot()).prop_map(|(n, by)| Reset { p: 7, n, by });
    let events = (proptest::option::of(reset), proptest::option::of(dot()));
    (seq(), 0..9_u64, any::<u64>(), 0..9_u64, deadline(), events).prop_map(|(seq, life, p, n, deadline, events)| {
        let (birth, (reset, touch)) = (seq.saturating_sub(life).max(1), events);
        Contribution { birth, seq, p, n, reset, deadline, touch }
    })
}

pub(crate) fn contributions() -> impl Strategy<Value = Vec<(ReplicaId, Contribution)>> {
    btree_map(replica(), contribution(), 1..4).prop_map(|all| all.into_iter().collect())
}

pub(crate) fn branch() -> impl Strategy<Value = Branch> {
    let elems = btree_map(elem_path(), siblings(), 0..5);
    let counters = btree_map(bytes(0..4), contributions(), 0..3);
    (elems, counters, proptest::bool::weighted(0.1)).prop_map(|(elems, counters, hole)| Branch {
        elems: elems.into_iter().collect(),
        counters: counters.into_iter().collect(),
        hole,
    })
}

pub(crate) fn custom() -> impl Strategy<Value = Custom> {
    (stamp(), btree_map(replica(), seq(), 1..4), deadline(), payload())
        .prop_map(|(generation, merged, deadline, state)| Custom { generation, merged, deadline, state })
}

fn dots() -> impl Strategy<Value = BTreeSet<Dot>> {
    prop_oneof![2 => Just(BTreeSet::new()), 2 => btree_set(dot(), 1..6)]
}

fn covered(dots: BTreeSet<Dot>, scope: &Scope) -> Vec<(Dot, Scope)> {
    dots.into_iter().map(|dot| (dot, scope.clone())).collect()
}

/// A fragment of a register keyspace.
pub(crate) fn register_fragment() -> impl Strategy<Value = Fragment> {
    (bytes(0..20), proptest::option::weighted(0.9, cell()), any::<bool>(), any::<bool>(), dots()).prop_map(
        |(key, cell, whole, own, dots)| {
            let register = Scope::Path(Path::Register);
            let scope = if whole { Scope::Key } else { register.clone() };
            let mut fragment = Fragment::empty(keyspace(Family::Register), key, scope);
            let dots = match &cell {
                Some(cell) if own => BTreeSet::from([cell.dot(), cell.touch]),
                Some(_) | None => dots,
            };
            fragment.covers = covered(dots, &register);
            fragment.cell = cell;
            fragment
        },
    )
}

/// A fragment of a custom keyspace.
pub(crate) fn custom_fragment() -> impl Strategy<Value = Fragment> {
    (bytes(0..20), proptest::option::weighted(0.9, custom()), any::<bool>(), dots()).prop_map(
        |(key, custom, whole, dots)| {
            let path = Scope::Path(Path::Custom);
            let scope = if whole { Scope::Key } else { path.clone() };
            let mut fragment = Fragment::empty(keyspace(Family::Custom), key, scope);
            fragment.custom = custom;
            fragment.covers = covered(dots, &path);
            fragment
        },
    )
}

/// A fragment of a whole map, with covered events of the map and of its parts.
pub(crate) fn map_fragment() -> impl Strategy<Value = Fragment> {
    let extra = btree_map(dot(), prop_oneof![elem_path(), bytes(0..4).prop_map(Path::Counter)], 0..5);
    (bytes(0..20), branch(), dots(), extra).prop_map(|(key, branch, dots, extra)| {
        let mut fragment = Fragment::empty(keyspace(Family::Map), key, Scope::Key);
        let mut covers: BTreeMap<Dot, Scope> = covered(dots, &Scope::Key).into_iter().collect();
        let own = branch.elems.iter().flat_map(|(path, siblings)| siblings.iter().map(move |e| (e.dot, path)));
        covers.extend(own.map(|(dot, path)| (dot, Scope::Path(path.clone()))));
        covers.extend(extra.into_iter().map(|(dot, path)| (dot, Scope::Path(path))));
        fragment.covers = covers.into_iter().collect();
        fragment.branch = branch;
        fragment
    })
}

/// A fragment of one path, present or removed.
pub(crate) fn path_fragment() -> impl Strategy<Value = Fragment> {
    let hole = proptest::bool::weighted(0.1);
    (bytes(0..20), elem_path(), proptest::option::of(siblings()), any::<bool>(), dots(), hole).prop_map(
        |(key, path, siblings, own, dots, hole)| {
            let family = if matches!(path, Path::Member(..)) { Family::Set } else { Family::Map };
            let scope = Scope::Path(path.clone());
            let mut fragment = Fragment::empty(keyspace(family), key, scope.clone());
            let dots = match &siblings {
                Some(siblings) if own => siblings.iter().map(|e| e.dot).collect(),
                Some(_) | None => dots,
            };
            fragment.branch.elems = siblings.into_iter().map(|s| (path.clone(), s)).collect();
            fragment.branch.hole = hole;
            fragment.covers = covered(dots, &scope);
            fragment
        },
    )
}

/// A fragment of one counter.
pub(crate) fn counter_fragment() -> impl Strategy<Value = Fragment> {
    (bytes(0..20), bytes(0..4), proptest::option::of(contributions()), dots()).prop_map(|(key, name, all, dots)| {
        let scope = Scope::Path(Path::Counter(name.clone()));
        let mut fragment = Fragment::empty(keyspace(Family::Counter), key, scope.clone());
        fragment.branch.counters = all.into_iter().map(|c| (name.clone(), c)).collect();
        fragment.covers = covered(dots, &scope);
        fragment
    })
}

pub(crate) fn fragment() -> impl Strategy<Value = Fragment> {
    prop_oneof![
        4 => register_fragment(),
        2 => map_fragment(),
        2 => path_fragment(),
        1 => counter_fragment(),
        1 => custom_fragment(),
    ]
}

pub(crate) fn seen() -> impl Strategy<Value = Seen> {
    (0..50_u64, vec((1..400_u64, 0..6_u64), 0..5)).prop_map(|(base, ranges)| {
        let ranges: Vec<(u64, u64)> = ranges.into_iter().map(|(from, more)| (from, from + more)).collect();
        Seen::new(base, &ranges)
    })
}

pub(crate) fn ctx() -> impl Strategy<Value = Ctx> {
    let mark = (ordered(), any::<u64>()).prop_map(|(replica, sum)| (replica, Seen::mark(sum)));
    let plain = (prop_oneof![3 => replica(), 1 => ordered()], seen());
    vec(prop_oneof![4 => plain, 1 => mark], 0..5).prop_map(|all| {
        let mut ctx = Ctx::default();
        for (replica, seen) in &all {
            ctx.add_seen(*replica, seen);
        }
        ctx
    })
}

pub(crate) fn partition() -> impl Strategy<Value = PartitionId> {
    (0..4_096_u16).prop_map(PartitionId)
}

pub(crate) fn batch() -> impl Strategy<Value = Batch> {
    (partition(), ctx(), vec(fragment(), 0..12)).prop_map(|(partition, ctx, fragments)| Batch {
        partition,
        ctx,
        fragments,
    })
}

pub(crate) fn chunk() -> impl Strategy<Value = FullChunk> {
    let place = (any::<u64>(), prop_oneof![Just(0), any::<u32>()], any::<bool>(), any::<bool>());
    (partition(), place, [ctx(), ctx(), ctx()], any::<u64>(), vec(fragment(), 0..8)).prop_map(
        |(partition, (session, index, last, is_rest), ctxs, hlc, fragments)| {
            let [ctx, frontier, floor] = if index == 0 { ctxs } else { Default::default() };
            let forgotten = Hlc(if index == 0 { hlc } else { 0 });
            FullChunk {
                partition,
                session,
                index,
                last,
                ctx,
                frontier,
                floor,
                forgotten,
                is_rest: is_rest && index == 0,
                fragments,
            }
        },
    )
}

pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let restore = (partition(), any::<bool>(), vec(fragment(), 0..8))
        .prop_map(|(partition, is_answer, fragments)| Restore { partition, is_answer, fragments });
    let part = prop_oneof![
        3 => batch().prop_map(Part::Batch),
        1 => chunk().prop_map(Part::FullChunk),
        1 => restore.prop_map(Part::Restore),
        1 => (any::<u64>(), batch()).prop_map(|(question, batch)| Part::Answer(Answer { question, batch })),
    ];
    (replica(), vec(part, 0..4)).prop_map(|(from, parts)| Frame { from, hlc: CLOCK, parts })
}

fn region() -> impl Strategy<Value = RegionId> {
    prop_oneof![Just("us-east"), Just("eu-central"), Just("ap-southeast")].prop_map(RegionId::new)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u128>().prop_map(|id| NodeId(uuid::Uuid::from_u128(id)))
}

fn profile() -> impl Strategy<Value = Profile> {
    let whole = [Role::Active, Role::Standby, Role::Draining].map(|role| (role, false));
    let edges = [Role::Edge, Role::Draining].map(|role| (role, true));
    let role = proptest::sample::select([&whole[..], &edges[..]].concat());
    let saying = (any::<u64>(), vec("[a-z]{1,8}:[0-9]{1,5}", 0..4), role, any::<bool>());
    saying.prop_map(|(version, addresses, (role, is_edge), left)| Profile {
        version,
        addresses,
        role,
        is_edge,
        left: left && role == Role::Draining,
    })
}

/// One of the few replicas that two nodes once were.
fn ordered() -> impl Strategy<Value = ReplicaId> {
    (1..3_u64, 1..6_u64).prop_map(|(tag, incarnation)| ReplicaId(tag << 43 | incarnation))
}

pub(crate) fn members() -> impl Strategy<Value = MemberSet> {
    let member = (node(), region(), any::<u64>(), proptest::option::of(replica()), profile()).prop_map(
        |(node, region, since, sponsor, profile)| Member { profile, ..Member::new(node, region, since, sponsor) },
    );
    let id = || prop_oneof![replica(), ordered()];
    let ids = move || btree_set(id(), 0..3);
    let named = (btree_map(id(), member, 0..4), ids(), ids(), ids());
    (named, btree_set(ordered(), 0..3)).prop_map(|((members, removed, orphans, expelled), floors)| {
        let mut set = MemberSet { members, orphans, expelled, ..MemberSet::default() };
        for replica in removed {
            set.remove(replica);
        }
        let floors = floors.into_iter().map(|floor| (floor.tag(), floor)).collect();
        set.join(&MemberSet { floors, ..MemberSet::default() });
        set
    })
}

pub(crate) fn ctxs() -> impl Strategy<Value = Vec<(PartitionId, Ctx)>> {
    vec((partition(), ctx()), 0..5)
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    let who = (node(), region(), replica(), any::<bool>(), any::<bool>());
    let custom = vec(("[a-z]{1,9}", "[a-z:]{1,20}"), 0..3);
    let times = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    (who, times, custom, members(), ctxs(), vec("[a-z0-9:]{1,12}", 0..3)).prop_map(
        |(
            (node, region, replica, joined, edge),
            (wall_ms, hlc, hash_check, partitions),
            custom,
            members,
            ctxs,
            compression,
        )| {
            let (version, min_version, cluster, hlc) = (1, 1, "shop".to_owned(), Hlc(hlc));
            Hello {
                version,
                min_version,
                cluster,
                node,
                region,
                replica,
                wall_ms,
                hlc,
                joined,
                partitions,
                hash_check,
                custom,
                members,
                ctxs,
                compression,
                edge,
            }
        },
    )
}

pub(crate) fn control() -> impl Strategy<Value = Control> {
    // Nothing is told of a replica of which nothing is seen.
    let some = seen().prop_filter("empty", |seen| seen.max() > 0);
    let seen = prop_oneof![4 => some, 1 => any::<u64>().prop_map(Seen::mark)];
    let changed = vec((partition(), vec((ordered(), seen), 0..4)), 0..4);
    prop_oneof![
        3 => hello().prop_map(Control::Hello),
        1 => (members(), ctxs()).prop_map(|(members, ctxs)| Control::Ready { members, ctxs }),
        3 => (hlc(), changed, proptest::option::of(members()))
            .prop_map(|(hlc, changed, members)| Control::Report { hlc, changed, members }),
        1 => (hlc(), ctxs()).prop_map(|(hlc, resumed)| Control::JoinDone { hlc, resumed }),
        1 => ctxs().prop_map(|ctxs| Control::Join { ctxs }),
        1 => partition().prop_map(|partition| Control::NeedFull { partition }),
        1 => any::<u64>().prop_map(|digest| Control::Told { digest }),
        1 => prop_oneof![Just(Control::ReportNow), Just(Control::Goodbye)],
        1 => replica().prop_map(|replica| Control::Twin { replica }),
        2 => repair().prop_map(Control::Repair),
        1 => ("[a-z]{0,9}", vec(any::<u8>(), 0..9), 0..3_u8, any::<u64>()).prop_map(|(keyspace, key, kind, question)| {
            let key = Bytes::from(key);
            match kind {
                0 => Control::Fetch { keyspace, key },
                1 => Control::Missing { keyspace, key },
                _ => Control::Ask { question, keyspace, key },
            }
        }),
    ]
}

fn repair() -> impl Strategy<Value = Repair> {
    let bits = || vec(any::<bool>(), 0..40);
    let run = || vec(any::<u8>(), 0..40);
    let leaves = || btree_set(0..1_u32 << 16, 0..6);
    let width = || (0..17_u32).prop_map(|bits| 1 << bits);
    let listed = vec(vec(any::<u16>(), 0..5), 0..6).prop_map(|all| (3..).step_by(7).zip(all).collect());
    let snapshot = (partition(), any::<u64>(), ctx(), width(), leaves(), any::<u64>(), run()).prop_map(
        |(partition, horizon_ms, ctx, leaves, without, root, buckets)| {
            Repair::Snapshot(Snapshot { partition, horizon_ms, ctx, leaves, without, root, buckets })
        },
    );
    prop_oneof![
        (any::<u64>(), any::<u64>(), partition(), vec(any::<(u8, u64)>(), 0..9))
            .prop_map(|(horizon_ms, salt, first, sums)| Repair::Verify { horizon_ms, salt, first, sums }),
        (any::<u64>(), partition(), bits()).prop_map(|(salt, first, equal)| Repair::Answer { salt, first, equal }),
        snapshot,
        (partition(), width(), leaves(), any::<bool>()).prop_map(|(partition, leaves, without, detail)| Repair::Ask {
            partition,
            leaves,
            without,
            detail
        }),
        (partition(), width(), bits(), run()).prop_map(|(partition, leaves, buckets, sums)| Repair::Leaves {
            partition,
            leaves,
            buckets,
            sums
        }),
        (partition(), width(), listed).prop_map(|(partition, leaves, listed)| Repair::List {
            partition,
            leaves,
            listed
        }),
        (partition(), bits()).prop_map(|(partition, ids)| Repair::Want { partition, ids }),
        (partition(), prop_oneof![Just(0), width()], leaves()).prop_map(|(partition, leaves, without)| Repair::Done {
            partition,
            leaves,
            without
        }),
    ]
}

pub(crate) fn beat() -> impl Strategy<Value = Beat> {
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    let echo = proptest::option::of((any::<u64>(), any::<u64>()));
    let silent = || btree_set(replica(), 0..4);
    let load = proptest::option::of(0..=100_u8);
    (replica(), any::<u64>(), times, echo, load, silent(), silent()).prop_map(
        |(replica, seq, (hlc, sent_ns, wall_ms), echo, load, suspects, gives_up)| {
            let hlc = Hlc(hlc);
            Beat { replica, seq, hlc, sent_ns, echo, wall_ms, load, suspects, gives_up }
        },
    )
}
