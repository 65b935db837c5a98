//! Bad peers, at the node: each fault closes its own link with a precise reason, changes nothing
//! here, and leaves the other peers as they were.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "faults/bench.rs"]
mod bench;
#[path = "faults/certificates.rs"]
mod certificates;
#[path = "faults/edges.rs"]
mod edges;
#[path = "faults/joining.rs"]
mod joining;
#[path = "faults/reads.rs"]
mod reads;
#[path = "faults/view.rs"]
mod view;

use std::sync::Arc;
use std::time::Duration;

use bench::{BAD, Bench, GOOD, WALL_MS, identity, node_id, now, only_piece, seen};
use bytes::Bytes;
use driftless::clock::{Hlc, Mono, Now};
use driftless::crdt::custom::Erased;
use driftless::crdt::{Contribution, Ctx, Dot, Member, MemberSet, NEVER, Path, Profile, Scope, Seen};
use driftless::error::PeerFault;
use driftless::id::{PartitionId, RegionId, ReplicaId, Role};
use driftless::node::{CloseCode, Event, Input, LinkEnd, LinkId, Output, PeerSlot};
use driftless::store::{Batch, Family, Fragment, Intent, KeyRef, Store};
use driftless::wire::{Control, Decoder, Frame, FullChunk, Hello, Limits, Part};

#[test]
fn a_peer_of_a_later_protocol_is_told_both_versions() {
    let fault = Bench::new().refused(|h| (h.version, h.min_version) = (9, 8));
    assert!(
        matches!(fault, PeerFault::Incompatible { theirs, ours, .. } if theirs.contains('8') && ours.contains('1'))
    );
}

#[test]
fn a_peer_of_another_cluster_is_refused() {
    let fault = Bench::new().refused(|h| h.cluster = "other".to_owned());
    assert!(matches!(fault, PeerFault::Incompatible { what: "the cluster's name", .. }));
}

#[test]
fn a_peer_with_another_partition_count_is_refused() {
    let fault = Bench::new().refused(|h| h.partitions = 128);
    let (theirs, ours) = ("128".to_owned(), "64".to_owned());
    assert_eq!(fault, PeerFault::Incompatible { what: "the number of partitions", theirs, ours });
}

#[test]
fn a_peer_that_places_keys_otherwise_is_refused() {
    let fault = Bench::new().refused(|h| h.hash_check ^= 1);
    assert!(matches!(fault, PeerFault::Incompatible { what: "the digest of the hash key", .. }));
}

#[test]
fn a_peer_without_our_custom_type_is_refused() {
    let fault = Bench::new().refused(|h| h.custom.clear());
    assert!(matches!(fault, PeerFault::Incompatible { theirs, .. } if theirs == "undeclared"));
    let fault = Bench::new().refused(|h| h.custom.push(("more".to_owned(), "set:1".to_owned())));
    assert!(matches!(fault, PeerFault::Incompatible { ours, .. } if ours == "undeclared"));
}

#[test]
fn a_peer_that_claims_another_region_than_its_certificate_is_refused() {
    let fault = Bench::new().refused(|h| h.region = RegionId::new("us-east"));
    assert!(
        matches!(fault, PeerFault::Identity { claimed, proven } if claimed.contains("us-east") && proven.contains("ap-southeast"))
    );
}

#[test]
fn a_replica_id_in_use_is_refused_whoever_has_it() {
    let fault = Bench::new().refused(|h| h.replica = ReplicaId(10));
    assert_eq!(fault, PeerFault::DuplicateReplica { replica: ReplicaId(10), other: node_id(1) });
    let mut bench = Bench::new();
    let member = Member::new(node_id(2), RegionId::new("eu-central"), 1, None);
    let mut members = MemberSet::default();
    members.add(ReplicaId(20), &member);
    bench.control(GOOD, &Control::Report { hlc: Hlc(1), changed: Vec::new(), members: Some(members) });
    let fault = bench.refused(|h| h.replica = ReplicaId(20));
    assert_eq!(fault, PeerFault::DuplicateReplica { replica: ReplicaId(20), other: node_id(2) });
}

#[test]
fn a_removed_replica_is_refused_for_ever() {
    let mut bench = Bench::new();
    let mut members = MemberSet::default();
    members.remove(ReplicaId(30));
    bench.control(GOOD, &Control::Report { hlc: Hlc(1), changed: Vec::new(), members: Some(members) });
    assert_eq!(bench.refused(|_| {}), PeerFault::Removed { replica: ReplicaId(30) });
}

/// Whoever says so, and however late it comes.
#[test]
fn a_member_that_hears_of_itself_what_it_has_not_said_says_it_again() {
    let mut bench = Bench::new();
    let own = |bench: &Bench| bench.node.members().get(ReplicaId(10)).unwrap().clone();
    let said = own(&bench);
    let profile = Profile {
        version: 9,
        addresses: vec!["elsewhere:1".to_owned()],
        role: Role::Draining,
        is_edge: false,
        left: false,
    };
    let mut members = MemberSet::default();
    members.add(ReplicaId(10), &Member { profile, ..said.clone() });
    bench.control(GOOD, &Control::Report { hlc: Hlc(1), changed: Vec::new(), members: Some(members) });
    assert_eq!(own(&bench).profile, Profile { version: 10, ..said.profile });
}

#[test]
fn a_clock_an_hour_ahead_is_refused_by_name_and_number() {
    let fault = Bench::new().refused(|h| h.wall_ms += 3_600_000);
    assert_eq!(fault, PeerFault::ClockDrift { ahead_ms: 3_600_000, max_ms: 1_000 });
}

/// Who dials holds a link for up first, and says hello then: what is as old as the handshake at most is late, not behind.
#[test]
fn a_hello_from_before_the_link_was_up_here_is_no_clock_that_is_behind() {
    for (after_ms, old_ms, greeted) in [(0, 1_000, true), (0, 1_001, false), (700, 1_700, true), (700, 1_701, false)] {
        let mut bench = Bench::new();
        let hello = bench.hello();
        bench.handle(Input::LinkDown { link: BAD, reason: LinkEnd::TimedOut });
        let (peer, after) = (identity(3, "ap-southeast"), Duration::from_millis(after_ms));
        bench.handle(Input::LinkUp { link: BAD, peer, dialled: None, after });
        bench.control(BAD, &Control::Hello(Hello { wall_ms: WALL_MS - old_ms, ..hello }));
        assert_eq!(bench.node.stats().peers.len() == 2, greeted, "{old_ms} ms old after {after_ms} ms of handshake");
    }
}

#[test]
fn bytes_that_are_no_message_close_their_link_only() {
    let mut bench = Bench::new();
    bench.hello();
    let outputs = bench.handle(Input::Control { link: BAD, bytes: Bytes::from_static(b"\x01\x40garbage") });
    assert!(matches!(bench.fault_in(&outputs), PeerFault::Malformed { .. }));
}

#[test]
fn a_second_hello_is_a_fault() {
    let mut bench = Bench::new();
    bench.session();
    let hello = Hello { ..bench.hello() };
    let outputs = bench.control(BAD, &Control::Hello(hello.clone()));
    drop(outputs);
    let outputs = bench.control(BAD, &Control::Hello(hello));
    assert!(matches!(bench.fault_in(&outputs), PeerFault::Malformed { why: "a second hello" }));
}

fn frame(bench: &mut Bench, from: u64, hlc: Hlc) -> Bytes {
    let space = bench.store.spaces().open("registers", Family::Register).unwrap();
    let scope = Scope::Key;
    let fragment = Fragment::empty(space.id(), Bytes::from_static(b"k"), scope);
    let batch = Batch { partition: PartitionId(0), ctx: Ctx::default(), fragments: vec![fragment] };
    let frame = Frame { from: ReplicaId(from), hlc, parts: vec![Part::Batch(batch)] };
    bench.encoder.encode_frame(&frame, bench.store.spaces()).unwrap()
}

#[test]
fn a_frame_in_another_replicas_name_is_refused() {
    let mut bench = Bench::new();
    bench.session();
    let bytes = frame(&mut bench, 20, Hlc::from_ms(WALL_MS));
    let outputs = bench.handle(Input::Log { link: BAD, bytes });
    assert!(matches!(bench.fault_in(&outputs), PeerFault::Identity { .. }));
}

#[test]
fn a_frame_far_ahead_of_the_wall_clock_closes_the_link_and_a_little_ahead_waits() {
    let mut bench = Bench::new();
    bench.session();
    let bytes = frame(&mut bench, 30, Hlc::from_ms(WALL_MS + 4_000));
    assert!(!bench.handle(Input::Log { link: BAD, bytes }).iter().any(|o| matches!(o, Output::Close { .. })));
    assert_eq!(bench.node.stats().penned_frames, 1);
    let bytes = frame(&mut bench, 30, Hlc::from_ms(WALL_MS + 3_600_000));
    let outputs = bench.handle(Input::Log { link: BAD, bytes });
    assert_eq!(bench.fault_in(&outputs), PeerFault::ClockDrift { ahead_ms: 3_600_000, max_ms: 1_000 });
}

#[test]
fn a_frame_before_any_hello_changes_nothing() {
    let mut bench = Bench::new();
    bench.hello();
    let bytes = frame(&mut bench, 30, Hlc::from_ms(WALL_MS));
    assert!(bench.handle(Input::Log { link: BAD, bytes }).is_empty());
}

/// Whoever waits for a token is woken by news, so it must not matter which input let them in.
#[test]
fn what_waited_for_a_hello_or_for_the_clock_is_news_when_it_is_joined_in() {
    let mut bench = Bench::new();
    let hello = bench.hello();
    let early = frame(&mut bench, 30, Hlc::from_ms(WALL_MS));
    bench.handle(Input::Log { link: BAD, bytes: early });
    assert_eq!(bench.node.news(), 0);
    bench.control(BAD, &Control::Hello(hello));
    assert_eq!(bench.node.news(), 1, "the hello let it in");
    let ahead = frame(&mut bench, 30, Hlc::from_ms(WALL_MS + 1_500));
    bench.handle(Input::Log { link: BAD, bytes: ahead });
    assert_eq!(bench.node.news(), 1);
    let near = Now { mono: Mono(600_000_000), wall_ms: WALL_MS + 600 };
    bench.node.handle(near, Input::Written);
    assert_eq!(bench.node.news(), 2, "the clock let it in, and a local write made the node look at it");
}

#[test]
fn a_history_that_cannot_be_taken_in_is_refused_and_not_retried_for_ever() {
    let (bench, outputs) = strange_histories(9, &Ctx::default());
    let fault = bench.fault_in(&outputs);
    assert!(matches!(fault, PeerFault::SplitHistory { region, .. } if region == RegionId::new("ap-southeast")));
}

/// Where neither can take in the other's, the lower replica gives way, and everybody is told.
#[test]
fn of_two_histories_that_exclude_each_other_the_one_of_the_lower_replica_ends() {
    let (bench, outputs) = strange_histories(2, &seen(30, 1));
    assert!(outputs.contains(&Output::Event(Event::Removed)) && bench.node.members().is_removed(ReplicaId(10)));
    assert!(!bench.node.members().is_removed(ReplicaId(30)));
}

/// A member sends so many synchronisations that predate what is stable here, and call this stable themselves.
fn strange_histories(count: u64, frontier: &Ctx) -> (Bench, Vec<Output>) {
    let mut bench = Bench::new();
    bench.session();
    let space = bench.store.spaces().open("registers", Family::Register).unwrap();
    let key = KeyRef::new(&space, b"k");
    let intent = Intent { wall_ms: WALL_MS, value_len: None };
    bench.store.write(&key, intent, |p, tick| p.delete(&key, tick)).unwrap();
    bench.keys = 1;
    let partition = bench.store.place(key.hash);
    bench.handle(Input::Written);
    let later = |after_ms: u64| Now { mono: Mono(1_000 + after_ms * 1_000_000), wall_ms: WALL_MS };
    bench.node.handle(later(2_000), Input::Deadline);
    while bench.node.poll().is_some() {}
    assert_eq!(bench.node.stats().log_records, 0, "its only member has seen it, so it is stable");
    let mut theirs = Ctx::default();
    theirs.add_range(ReplicaId(30), 1, 1);
    let chunk = |session| FullChunk { session, ..only_piece(partition, [&theirs, frontier, frontier]) };
    let outputs = (1..=count)
        .flat_map(|session| {
            let frame =
                Frame { from: ReplicaId(30), hlc: Hlc::from_ms(WALL_MS), parts: vec![Part::FullChunk(chunk(session))] };
            let bytes = bench.encoder.encode_frame(&frame, bench.store.spaces()).unwrap();
            bench.node.handle(later(2_000), Input::Log { link: BAD, bytes });
            std::iter::from_fn(|| bench.node.poll()).collect::<Vec<_>>()
        })
        .filter(|o| matches!(o, Output::Close { .. } | Output::Event(_)))
        .collect();
    (bench, outputs)
}

/// The keys of the registers in the frames that were sent to a peer, and whether any frame held a custom state.
fn carried(bench: &Bench, outputs: &[Output]) -> (Vec<Bytes>, bool) {
    let frames = outputs.iter().filter_map(|o| if let Output::Log { bytes, .. } = o { Some(bytes) } else { None });
    let frames =
        frames.map(|bytes| Decoder::default().decode_frame(bytes, bench.store.spaces(), &Limits::default()).unwrap());
    let fragments: Vec<Fragment> = frames.flat_map(|f| f.parts).flat_map(|part| part.fragments().to_vec()).collect();
    let custom = fragments.iter().any(|f| f.custom.is_some());
    (fragments.into_iter().filter(|f| f.cell.is_some()).map(|f| f.key).collect(), custom)
}

#[test]
fn a_state_no_receiver_takes_stays_behind_alone_and_loudly() {
    let mut bench = Bench::new();
    let spaces = bench.store.spaces();
    let (registers, docs) = (
        spaces.open("registers", Family::Register).unwrap(),
        spaces.open_custom("docs", Arc::new(Erased::<crdts::PNCounter<u64>>::default())).unwrap(),
    );
    let intent = Intent { wall_ms: WALL_MS, value_len: None };
    let too_large = KeyRef::new(&docs, b"a merge of many states");
    let home = bench.store.place(too_large.hash);
    let names: Vec<[u8; 1]> = (0..=255).map(|n| [n]).collect();
    let neighbours: Vec<KeyRef<'_>> =
        names.iter().map(|n| KeyRef::new(&registers, n)).filter(|at| bench.store.place(at.hash) == home).collect();
    assert!(neighbours.len() > 1, "there are others in the same partition");
    for at in &neighbours {
        bench.store.write(at, intent, |p, t| p.set(at, Bytes::from_static(b"v"), NEVER, t)).unwrap();
    }
    let state = Bytes::from(vec![7; 600 << 10]);
    bench
        .store
        .write(&too_large, intent, |p, t| p.update_custom(&too_large, NEVER, t, |_| Ok(state)))
        .unwrap()
        .0
        .unwrap();
    bench.node.handle(Now { mono: Mono(1_000_000_000), ..now() }, Input::Written);
    let outputs: Vec<Output> = std::iter::from_fn(|| bench.node.poll()).collect();
    let (mut keys, custom) = carried(&bench, &outputs);
    let mut expected: Vec<Bytes> = neighbours.iter().map(|at| Bytes::copy_from_slice(at.key)).collect();
    keys.sort();
    keys.dedup();
    expected.sort();
    assert_eq!(keys, expected, "everything else of the partition goes");
    assert!(!custom);
    let told = outputs.iter().filter(|o| matches!(o, Output::Event(Event::Unsendable { .. }))).count();
    assert!(told > 0, "and an operator hears of it");
}

/// Sends a message of a peer in good standing and returns the fault it was refused for.
fn refused_control(message: &Control) -> PeerFault {
    let mut bench = Bench::new();
    bench.session();
    let outputs = bench.control(BAD, message);
    bench.fault_in(&outputs)
}

fn refused_part(part: impl FnOnce(&Store, Ctx) -> Part) -> PeerFault {
    let mut bench = Bench::new();
    bench.session();
    let part = part(&bench.store, ours(1));
    let frame = Frame { from: ReplicaId(30), hlc: Hlc::from_ms(WALL_MS), parts: vec![part] };
    let bytes = bench.encoder.encode_frame(&frame, bench.store.spaces()).unwrap();
    let outputs = bench.handle(Input::Log { link: BAD, bytes });
    bench.fault_in(&outputs)
}

/// A context with so many events of the node under test, which made none.
fn ours(events: u64) -> Ctx {
    let mut ctx = Ctx::default();
    ctx.add_range(ReplicaId(10), 1, events);
    ctx
}

fn forged() -> PeerFault {
    PeerFault::Forged { partition: PartitionId(0), claimed: 1, made: 0 }
}

#[test]
fn a_peer_that_knows_more_of_our_events_than_we_made_is_refused_wherever_it_says_so() {
    let id = PartitionId(0);
    let ctxs = vec![(id, ours(1))];
    assert_eq!(Bench::new().refused(|h| h.ctxs = vec![(id, ours(1))]), forged());
    assert_eq!(refused_control(&Control::Ready { members: MemberSet::default(), ctxs }), forged());
    let changed = vec![(id, vec![(ReplicaId(10), Seen::new(1, &[]))])];
    assert_eq!(refused_control(&Control::Report { hlc: Hlc(1), changed, members: None }), forged());
    let batch = |ctx, fragments| Part::Batch(Batch { partition: id, ctx, fragments });
    assert_eq!(refused_part(|_, ctx| batch(ctx, Vec::new())), forged());
    let chunk = |ctx: Ctx, index, fragments| {
        Part::FullChunk(FullChunk { index, last: false, fragments, ..only_piece(id, [&ctx, &ctx, &ctx]) })
    };
    assert_eq!(refused_part(|_, ctx| chunk(ctx, 0, Vec::new())), forged());
    let dot = Dot { replica: ReplicaId(10), seq: 1 };
    let covers = |store: &Store| {
        let space = store.spaces().open("registers", Family::Register).unwrap();
        let scope = Scope::Path(Path::Register);
        let mut fragment = Fragment::empty(space.id(), Bytes::from_static(b"k"), scope.clone());
        fragment.covers.push((dot, scope));
        vec![fragment]
    };
    assert_eq!(refused_part(|store, _| batch(Ctx::default(), covers(store))), forged());
    assert_eq!(refused_part(|store, _| chunk(Ctx::default(), 1, covers(store))), forged());
    let carries = |store: &Store| {
        let space = store.spaces().open("counters", Family::Counter).unwrap();
        let mut fragment = Fragment::empty(space.id(), Bytes::from_static(b"k"), Scope::Key);
        let count = Contribution { birth: 1, seq: 1, p: 1_000, n: 0, reset: None, deadline: NEVER, touch: None };
        fragment.branch.counters.push((Bytes::from_static(b"c"), vec![(ReplicaId(10), count)]));
        vec![fragment]
    };
    assert_eq!(refused_part(|store, _| batch(Ctx::default(), carries(store))), forged());
}

#[test]
fn a_synchronisation_that_contradicts_itself_is_refused() {
    let mut floor = Ctx::default();
    floor.add_range(ReplicaId(20), 1, 5);
    for (frontier, floor) in [(floor.clone(), floor.clone()), (floor.clone(), Ctx::default())] {
        let piece = only_piece(PartitionId(0), [&Ctx::default(), &frontier, &floor]);
        let fault = refused_part(|_, _| Part::FullChunk(piece));
        assert!(matches!(fault, PeerFault::Malformed { why: "a synchronisation dropped more than it has seen" }));
    }
}

#[test]
fn a_partition_that_does_not_exist_is_a_fault_and_takes_no_memory() {
    let why = "it names a partition that does not exist";
    let partition = PartitionId(64);
    assert_eq!(refused_control(&Control::NeedFull { partition }), PeerFault::Malformed { why });
    let changed = vec![(partition, Vec::new())];
    let report = Control::Report { hlc: Hlc(1), changed, members: None };
    assert_eq!(refused_control(&report), PeerFault::Malformed { why });
    let none = Ctx::default();
    let piece = FullChunk { last: false, ..only_piece(partition, [&none, &none, &none]) };
    let fault = refused_part(|_, _| Part::FullChunk(piece));
    assert_eq!(fault, PeerFault::Malformed { why });
}

#[test]
fn more_members_than_a_message_can_name_are_refused() {
    let mut bench = Bench::new();
    bench.session();
    let removals = |from: u64| {
        let removed = (from..from + 9_000).map(ReplicaId).collect();
        let members = Some(MemberSet { removed, ..MemberSet::default() });
        Control::Report { hlc: Hlc(1), changed: Vec::new(), members }
    };
    assert!(!bench.control(BAD, &removals(1_000)).iter().any(|o| matches!(o, Output::Close { .. })));
    let outputs = bench.control(BAD, &removals(100_000));
    let fault = bench.fault_in(&outputs);
    assert_eq!(fault, PeerFault::OverLimit { what: "number of members", len: 18_001, max: 16_384 });
}

/// A stranger with a certificate could come under another replica id every time.
#[test]
fn what_a_stranger_reports_is_kept_no_longer_than_its_link() {
    let mut bench = Bench::new();
    let hello = bench.hello();
    bench.control(BAD, &Control::Hello(Hello { joined: false, ..hello }));
    let mut members = MemberSet::default();
    members.add(ReplicaId(20), &Member::new(node_id(2), RegionId::new("eu-central"), 7, None));
    let changed = vec![(PartitionId(0), vec![(ReplicaId(30), Seen::new(1, &[]))])];
    bench.control(BAD, &Control::Report { hlc: Hlc(1), changed, members: Some(members) });
    let kept = |bench: &Bench, of| bench.store.read(PartitionId(0)).unwrap().report_of(ReplicaId(of)).is_some();
    assert!(kept(&bench, 30) && kept(&bench, 20));
    for link in [BAD, GOOD] {
        bench.handle(Input::LinkDown { link, reason: LinkEnd::TimedOut });
    }
    assert!(!kept(&bench, 30) && kept(&bench, 20), "that of a member stays");
}

/// Whoever covers every other event of its own must not keep us from saying what we have seen.
#[test]
fn scattered_events_are_taken_in_only_as_far_as_a_message_can_name_them() {
    let mut bench = Bench::new();
    bench.session();
    let id = PartitionId(0);
    let space = bench.store.spaces().open("registers", Family::Register).unwrap();
    let scope = Scope::Path(Path::Register);
    let send = |bench: &mut Bench, seqs: &mut dyn Iterator<Item = u64>| {
        let mut fragment = Fragment::empty(space.id(), Bytes::from_static(b"k"), scope.clone());
        fragment.covers = seqs.map(|seq| (Dot { replica: ReplicaId(30), seq }, scope.clone())).collect();
        let mut ctx = Ctx::default();
        fragment.covers.iter().for_each(|(dot, _)| ctx.add(*dot));
        bench.frame(BAD, 30, vec![Part::Batch(Batch { partition: id, ctx, fragments: vec![fragment] })]);
        bench.store.read(id).unwrap().ctx().gaps().1
    };
    let gaps: Vec<usize> =
        (0..5).map(|n| send(&mut bench, &mut (0..1_000).map(|m| 10 + (n * 1_000 + m) * 2))).collect();
    assert_eq!(gaps, [1_000, 2_000, 2_000, 2_000, 2_000]);
    assert_eq!(bench.store.read(id).unwrap().log_len(), 2_000);
    assert_eq!(send(&mut bench, &mut (1..2_000)), 1_004, "what closes gaps is welcome");
    bench.handle(Input::LinkDown { link: BAD, reason: LinkEnd::TimedOut });
    assert_eq!(bench.hello().ctxs.first().map(|(_, ctx)| ctx.gaps().1), Some(1_004), "a hello can still be said");
}

/// The peer may hang up before its hello has left: its certificate says who it is.
#[test]
fn a_dial_that_gave_way_to_another_link_tells_who_answers_there() {
    for (other, dials_again) in [(3, false), (2, true)] {
        let mut bench = Bench::joiner();
        let hello = bench.hello();
        bench.control(BAD, &Control::Hello(hello));
        let (link, peer, dialled) = (LinkId(5), identity(other, "ap-southeast"), Some(PeerSlot(0)));
        bench.handle(Input::LinkUp { link, peer, dialled, after: Duration::ZERO });
        let reason = LinkEnd::Closed { code: CloseCode::Superseded, reason: String::new() };
        bench.handle(Input::LinkDown { link, reason });
        bench.node.handle(Now { mono: Mono(400_000_000), ..now() }, Input::Deadline);
        let dialled =
            std::iter::from_fn(|| bench.node.poll()).any(|o| matches!(o, Output::Dial { slot: PeerSlot(0), .. }));
        assert_eq!(dialled, dials_again, "node {other}");
    }
}

#[test]
fn links_that_never_say_hello_are_bounded() {
    let mut bench = Bench::new();
    let refused = |outputs: Vec<Output>| outputs.iter().any(|o| matches!(o, Output::Close { .. }));
    let links: Vec<bool> = (10..30).map(|n| refused(bench.link_up(LinkId(n), identity(3, "ap-southeast")))).collect();
    assert_eq!(links.iter().filter(|refused| !**refused).count(), 8);
    assert!(!refused(bench.link_up(LinkId(30), identity(4, "sa-east"))), "others are not affected");
}
