//! One message of every kind, pinned byte by byte in `tests/golden`.
//!
//! # Invariants
//! * A sample never changes: what is new gets a new name.
//! * The keyspaces of the samples are opened in the order of [`spaces`].
#![allow(dead_code, clippy::allow_attributes, reason = "the test and the writer use different parts")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use driftless::clock::{Hlc, Stamp};
use driftless::crdt::custom::Erased;
use driftless::crdt::member::{Member, Profile};
use driftless::crdt::members::MemberSet;
use driftless::crdt::{Cell, Contribution, Ctx, Custom, Dot, Elem, NEVER, Path, Payload, Reset, Scope, Seen};
use driftless::id::{KeyspaceId, NodeId, PartitionId, RegionId, ReplicaId, Role};
use driftless::store::{Batch, Family, Fragment, Keyspaces};
use driftless::wire::{Answer, Beat, Control, Frame, FullChunk, Hello, Part, Repair, Restore, Snapshot};

const A: ReplicaId = ReplicaId(0x1111_2222_3333_4444);
const B: ReplicaId = ReplicaId(0x9999_aaaa_bbbb_cccc);
const MS: u64 = 1_750_000_000_000;
const CLOCK: Hlc = Hlc(MS << 16 | 3);

/// A message of any channel.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Message {
    Frame(Frame),
    Control(Control),
    Beat(Beat),
}

/// One keyspace of each family.
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

/// Where a sample's bytes are kept.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name).with_extension("bin")
}

/// Every sample by name.
pub(crate) fn samples() -> Vec<(&'static str, Message)> {
    let mut all: Vec<(&'static str, Message)> = fragments()
        .into_iter()
        .map(|(name, fragments)| (name, Message::Frame(frame(vec![Part::Batch(batch(9, fragments))]))))
        .collect();
    all.extend(frames().into_iter().map(|(name, frame)| (name, Message::Frame(frame))));
    all.extend(controls().into_iter().map(|(name, control)| (name, Message::Control(control))));
    let beat = Beat {
        replica: A,
        seq: 7,
        hlc: CLOCK,
        sent_ns: 5_000_000_000,
        echo: None,
        wall_ms: MS,
        load: None,
        suspects: BTreeSet::new(),
        gives_up: BTreeSet::new(),
    };
    all.push(("beat", Message::Beat(beat.clone())));
    all.push(("beat_echo", Message::Beat(Beat { echo: Some((4_900_000_000, 12_345)), ..beat.clone() })));
    all.push(("beat_load", Message::Beat(Beat { load: Some(93), ..beat.clone() })));
    all.push(("beat_suspects", Message::Beat(Beat { suspects: [A, B].into(), gives_up: [B].into(), ..beat })));
    all
}

fn frame(parts: Vec<Part>) -> Frame {
    Frame { from: A, hlc: CLOCK, parts }
}

fn batch(partition: u16, fragments: Vec<Fragment>) -> Batch {
    Batch { partition: PartitionId(partition), ctx: ctx(), fragments }
}

fn ctx() -> Ctx {
    let mut ctx = Ctx::default();
    ctx.add_range(A, 1, 120);
    ctx.add_range(B, 1, 40);
    ctx.add_range(B, 43, 44);
    ctx.add_range(B, 50, 50);
    ctx
}

fn dot(replica: ReplicaId, seq: u64) -> Dot {
    Dot { replica, seq }
}

fn stamp(replica: ReplicaId, below_ms: u64) -> Stamp {
    Stamp { hlc: Hlc::from_ms(MS - below_ms), replica }
}

fn value(text: &'static str) -> Payload {
    Payload::Value(Bytes::from_static(text.as_bytes()))
}

fn elem(dot: Dot, below_ms: u64, deadline: u64, value: &'static str) -> Elem {
    Elem { dot, stamp: stamp(dot.replica, below_ms), deadline, value: Bytes::from_static(value.as_bytes()) }
}

fn named(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn fragment(family: Family, key: &'static str, scope: Scope) -> Fragment {
    Fragment::empty(KeyspaceId(u16::from(family.code())), named(key), scope)
}

fn register(key: &'static str, payload: Payload, dot: Dot, deadline: u64) -> Fragment {
    let scope = Scope::Path(Path::Register);
    let mut fragment = fragment(Family::Register, key, scope.clone());
    fragment.cell = Some(Cell::new(payload, stamp(dot.replica, 2).hlc, dot, deadline));
    fragment.covers = vec![(dot, scope)];
    fragment
}

fn path_fragment(family: Family, key: &'static str, path: Path, siblings: Vec<Elem>) -> Fragment {
    let scope = Scope::Path(path.clone());
    let mut fragment = fragment(family, key, scope.clone());
    fragment.covers = siblings.iter().map(|e| (e.dot, scope.clone())).collect();
    if !siblings.is_empty() {
        fragment.branch.elems.push((path, siblings));
    }
    fragment
}

fn contribution(seq: u64, p: u64, n: u64) -> Contribution {
    let reset = Some(Reset { p: 1, n: 0, by: dot(A, 117) });
    Contribution { birth: seq - 3, seq, p, n, reset, deadline: MS + 60_000, touch: None }
}

fn registers() -> Vec<(&'static str, Vec<Fragment>)> {
    let mut touched = register("alice", value("v1"), dot(A, 118), MS + 1_800_000);
    if let Some(cell) = &mut touched.cell {
        cell.extend(dot(B, 44), MS + 3_600_000);
    }
    touched.covers.push((dot(B, 44), Scope::Path(Path::Register)));
    let mut tagged = register("alice", value("v1"), dot(A, 118), MS + 1_800_000);
    let tags = vec![Bytes::from_static(b"route:7"), Bytes::from_static(b"user:alice")];
    tagged.cell = tagged.cell.map(|cell| cell.with_tags(tags));
    let mut settled = register("whole", value("v2"), dot(B, 40), NEVER);
    settled.scope = Scope::Key;
    settled.covers.clear();
    let mut many = register("hot", value("v3"), dot(A, 120), NEVER);
    many.covers = [110, 111, 112, 115, 120].map(|seq| (dot(A, seq), Scope::Path(Path::Register))).to_vec();
    let mut nothing = fragment(Family::Register, "gone", Scope::Path(Path::Register));
    nothing.covers = vec![(dot(A, 90), Scope::Path(Path::Register))];
    let two = vec![
        register("alice", value("{\"cart\":2}"), dot(A, 119), MS + 1_799_998),
        register("bob", value("{\"cart\":3}"), dot(A, 120), MS + 1_799_998),
    ];
    vec![
        ("register_value", two),
        ("register_tombstone", vec![register("alice", Payload::Tombstone, dot(A, 120), NEVER)]),
        ("register_absent", vec![register("alice", Payload::Absent, dot(B, 50), MS - 5)]),
        ("register_touched", vec![touched]),
        ("register_tagged", vec![tagged]),
        ("register_whole", vec![settled]),
        ("register_covers_runs", vec![many]),
        ("register_nothing", vec![nothing]),
    ]
}

fn fragments() -> Vec<(&'static str, Vec<Fragment>)> {
    let (sku, ttl) = (Path::Field(named("sku-9")), Path::Ttl);
    let siblings = vec![elem(dot(A, 119), 4, NEVER, "2"), elem(dot(B, 43), 3, MS + 500, "3")];
    let mut retouched = elem(dot(B, 44), 9, MS + 900, "4");
    retouched.stamp.replica = A;
    let mut hole = fragment(Family::Map, "u2", Scope::Key);
    hole.branch.hole = true;
    let mut held = path_fragment(Family::Map, "u2", sku.clone(), vec![elem(dot(A, 120), 0, NEVER, "1")]);
    held.branch.hole = true;
    let name = named("visits");
    let mut counter = fragment(Family::Counter, "page", Scope::Path(Path::Counter(name.clone())));
    let touch = Some(dot(B, 40));
    let contributions = vec![(A, contribution(120, 9, 0)), (B, Contribution { touch, ..contribution(44, 1, 2) })];
    counter.branch.counters = vec![(name.clone(), contributions.clone())];
    counter.covers = vec![(dot(A, 120), counter.scope.clone())];
    let mut whole = fragment(Family::Map, "u1", Scope::Key);
    whole.branch.elems = vec![(ttl.clone(), vec![elem(dot(A, 80), 90, MS, "")]), (sku.clone(), siblings.clone())];
    whole.branch.counters = vec![(name.clone(), contributions)];
    whole.covers = vec![
        (dot(A, 70), Scope::Key),
        (dot(A, 119), Scope::Path(sku.clone())),
        (dot(A, 120), Scope::Path(Path::Counter(name))),
        (dot(B, 43), Scope::Path(sku.clone())),
        (dot(B, 44), Scope::Path(Path::Field(named("removed")))),
    ];
    let member = |name| Path::Member(named(""), named(name));
    let mut removed = path_fragment(Family::Set, "t", member("old"), Vec::new());
    removed.covers = vec![(dot(A, 117), removed.scope.clone())];
    let mut custom = fragment(Family::Custom, "doc", Scope::Path(Path::Custom));
    let merged = BTreeMap::from([(A, 12), (B, 44)]);
    custom.custom = Some(Custom { generation: stamp(A, 700), merged, deadline: NEVER, state: value("state") });
    custom.covers = vec![(dot(B, 44), Scope::Path(Path::Custom))];
    let mut grave = custom.clone();
    grave.custom = Some(Custom::new(stamp(B, 1), dot(B, 44), Payload::Tombstone, NEVER));
    let mut all = registers();
    all.extend([
        ("map_field", vec![path_fragment(Family::Map, "u1", sku.clone(), vec![elem(dot(A, 120), 0, NEVER, "1")])]),
        ("map_siblings", vec![path_fragment(Family::Map, "u1", sku.clone(), siblings)]),
        ("map_touched", vec![path_fragment(Family::Map, "u1", sku, vec![retouched])]),
        ("map_ttl", vec![path_fragment(Family::Map, "u1", ttl, vec![elem(dot(A, 120), 1, MS + 10, "")])]),
        ("map_hole", vec![hole]),
        ("map_held", vec![held]),
        ("map_whole", vec![whole]),
        ("counter", vec![counter]),
        (
            "set_members",
            vec![path_fragment(Family::Set, "t", member("new"), vec![elem(dot(A, 120), 1, NEVER, "")]), removed],
        ),
        ("custom", vec![custom]),
        ("custom_tombstone", vec![grave]),
    ]);
    all
}

fn frames() -> Vec<(&'static str, Frame)> {
    let fragments = || vec![register("alice", value("v"), dot(A, 120), NEVER)];
    let chunk = |index, last, [ctx, frontier, floor]: [Ctx; 3]| FullChunk {
        partition: PartitionId(63),
        session: 77,
        index,
        last,
        ctx,
        frontier,
        floor,
        forgotten: Hlc(if index == 0 { 7 << 16 } else { 0 }),
        is_rest: index == 0,
        fragments: fragments(),
    };
    let mut stable = Ctx::default();
    stable.add_range(A, 1, 100);
    let parts = vec![Part::Batch(batch(0, fragments())), Part::Batch(batch(4_095, fragments()))];
    let many: Vec<Fragment> = (0..40)
        .map(|n| {
            let seq = 81 + n;
            let mut fragment = register("", value("{\"user\":\"alice\",\"cart\":[1,2,3]}"), dot(A, seq), MS + 60_000);
            fragment.key = Bytes::from(format!("session:{n:08}"));
            fragment
        })
        .collect();
    vec![
        ("frame_empty", frame(Vec::new())),
        ("frame_two_parts", frame(parts)),
        ("full_first", frame(vec![Part::FullChunk(chunk(0, false, [ctx(), stable.clone(), stable]))])),
        ("full_last", frame(vec![Part::FullChunk(chunk(1, true, Default::default()))])),
        ("frame_compressed", frame(vec![Part::Batch(batch(9, many))])),
        (
            "frame_restored",
            frame(vec![Part::Restore(Restore { partition: PartitionId(9), is_answer: true, fragments: bare() })]),
        ),
        ("frame_answer", frame(vec![Part::Answer(Answer { question: 300, batch: batch(4_095, fragments()) })])),
        ("frame_answer_nothing", frame(vec![Part::Answer(Answer { question: 7, batch: batch(9, Vec::new()) })])),
    ]
}

/// Some whole keys without dots.
fn bare() -> Vec<Fragment> {
    let whole = |fragment: Fragment| Fragment { scope: Scope::Key, covers: Vec::new(), ..fragment };
    fragments().into_iter().flat_map(|(_, all)| all).take(5).map(whole).collect()
}

/// Of a tag of its own.
const FLOOR: ReplicaId = ReplicaId(3 << 43 | 7);

fn members() -> MemberSet {
    let member =
        |node, region, sponsor| Member::new(NodeId(uuid::Uuid::from_u128(node)), RegionId::new(region), MS, sponsor);
    let literal = SocketAddr::from(([10, 0, 0, 2], 7_400)).to_string();
    let addresses = vec!["cache-2.eu.example:7400".to_owned(), literal];
    let profile = Profile { version: 3, addresses, role: Role::Standby, is_edge: false, left: false };
    let eu = Member { profile, ..member(2, "eu-central", Some(A)) };
    MemberSet {
        members: BTreeMap::from([(A, member(1, "us-east", None)), (B, eu)]),
        removed: BTreeSet::from([ReplicaId(5)]),
        orphans: BTreeSet::from([B]),
        expelled: BTreeSet::from([ReplicaId(5)]),
        floors: BTreeMap::from([(FLOOR.tag(), FLOOR)]),
    }
}

/// An edge, and one that drains.
fn edges() -> MemberSet {
    let member = |node, role| {
        let profile = Profile { version: 1, addresses: Vec::new(), role, is_edge: true, left: false };
        Member { profile, ..Member::new(NodeId(uuid::Uuid::from_u128(node)), RegionId::new("shop-7"), MS, Some(A)) }
    };
    let members = BTreeMap::from([(A, member(1, Role::Edge)), (B, member(2, Role::Draining))]);
    MemberSet { members, ..MemberSet::default() }
}

/// A member and an edge that left.
fn gone() -> MemberSet {
    let member = |(node, is_edge)| {
        let profile = Profile { role: Role::Draining, is_edge, left: true, ..Profile::default() };
        Member { profile, ..Member::new(NodeId(uuid::Uuid::from_u128(node)), RegionId::new("shop-7"), MS, Some(A)) }
    };
    let members = BTreeMap::from([(A, member((1, false))), (B, member((2, true)))]);
    MemberSet { members, removed: BTreeSet::from([A, B]), ..MemberSet::default() }
}

fn controls() -> Vec<(&'static str, Control)> {
    let ctxs = || vec![(PartitionId(0), ctx()), (PartitionId(63), ctx())];
    let changed = vec![(PartitionId(7), vec![(A, Seen::new(9, &[(12, 14)])), (B, Seen::new(3, &[]))])];
    let folded = vec![(PartitionId(7), vec![(A, Seen::new(9, &[])), (FLOOR, Seen::mark(0x1122_3344_5566_7788))])];
    let hello = Hello {
        version: 1,
        min_version: 1,
        cluster: "shop".to_owned(),
        node: NodeId(uuid::Uuid::from_u128(1)),
        region: RegionId::new("us-east"),
        replica: A,
        wall_ms: MS,
        hlc: CLOCK,
        joined: true,
        partitions: 64,
        hash_check: 0xfeed,
        custom: vec![("docs".to_owned(), "pn-counter:1".to_owned())],
        members: members(),
        ctxs: ctxs(),
        compression: vec!["zstd".to_owned()],
        edge: false,
    };
    let (keyspace, key) = ("users".to_owned(), Bytes::from_static(b"\xa5alice"));
    let mut all = vec![
        ("hello", Control::Hello(hello.clone())),
        ("hello_edge", Control::Hello(Hello { members: edges(), edge: true, ..hello })),
        ("ready", Control::Ready { members: members(), ctxs: ctxs() }),
        ("join", Control::Join { ctxs: Vec::new() }),
        ("ready_left", Control::Ready { members: gone(), ctxs: ctxs() }),
        ("join_again", Control::Join { ctxs: vec![(PartitionId(3), ctx())] }),
        ("join_done", Control::JoinDone { hlc: CLOCK, resumed: vec![(PartitionId(3), ctx())] }),
        ("report", Control::Report { hlc: CLOCK, changed: changed.clone(), members: None }),
        ("report_members", Control::Report { hlc: CLOCK, changed, members: Some(members()) }),
        ("report_folded", Control::Report { hlc: CLOCK, changed: folded, members: None }),
        ("told", Control::Told { digest: 0x1122_3344_5566_7788 }),
        ("report_now", Control::ReportNow),
        ("need_full", Control::NeedFull { partition: PartitionId(300) }),
        ("goodbye", Control::Goodbye),
        ("twin", Control::Twin { replica: ReplicaId(7) }),
        ("fetch", Control::Fetch { keyspace: keyspace.clone(), key: key.clone() }),
        ("ask", Control::Ask { question: 300, keyspace: keyspace.clone(), key: key.clone() }),
        ("missing", Control::Missing { keyspace, key }),
    ];
    all.extend(repairs().into_iter().map(|(name, repair)| (name, Control::Repair(repair))));
    all
}

fn repairs() -> Vec<(&'static str, Repair)> {
    let (partition, without) = (PartitionId(5), BTreeSet::from([1, 300]));
    let sums = vec![(7, 0x1122_3344_5566_7788), (0, 1)];
    let (horizon_ms, buckets) = (MS + 15_000, vec![false, true, true]);
    let snapshot = Snapshot {
        partition,
        horizon_ms,
        ctx: ctx(),
        leaves: 512,
        without: without.clone(),
        root: u64::MAX,
        buckets: vec![1, 2, 3, 4],
    };
    vec![
        ("repair_verify", Repair::Verify { horizon_ms, salt: 0xfeed, first: partition, sums }),
        ("repair_answer", Repair::Answer { salt: 77, first: partition, equal: vec![true; 9] }),
        ("repair_snapshot", Repair::Snapshot(snapshot)),
        ("repair_ask", Repair::Ask { partition, leaves: 512, without, detail: true }),
        ("repair_leaves", Repair::Leaves { partition, leaves: 512, buckets: buckets.clone(), sums: vec![9; 8] }),
        ("repair_list", Repair::List { partition, leaves: 16, listed: vec![(0, vec![1, 0xfffe]), (15, Vec::new())] }),
        ("repair_want", Repair::Want { partition, ids: buckets }),
        ("repair_done", Repair::Done { partition, leaves: 16, without: [3, 7].into() }),
    ]
}
