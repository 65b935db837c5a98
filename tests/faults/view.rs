//! What a node's view shows of a peer beyond whether it is heard.

use std::time::Duration;

use driftless::clock::{Hlc, Now};
use driftless::crdt::{Member, MemberSet, Profile, Seen};
use driftless::id::{PartitionId, RegionId, ReplicaId};
use driftless::membership::{Reach, Status};
use driftless::node::{Belonging, Input, LinkEnd, Output};
use driftless::wire::{Beat, Control, Decoder, Hello, LOAD_MAX, Limits};

use crate::bench::{BAD, Bench, GOOD, WALL_MS, node_id, now, seen};
use crate::joining::full;

/// The good peer is a member, and says what it has written of a partition.
fn says(bench: &mut Bench, upto: u64) {
    let mut members = MemberSet::default();
    members.add(ReplicaId(20), &Member::new(node_id(2), RegionId::new("eu-central"), 7, None));
    let changed = vec![(PartitionId(0), vec![(ReplicaId(20), Seen::new(upto, &[]))])];
    bench.control(GOOD, &Control::Report { hlc: Hlc(1), changed, members: Some(members) });
}

/// Its lag and load as seen so many seconds after the beginning.
fn shown(bench: &mut Bench, seconds: u64) -> (Option<u64>, Option<u8>) {
    let mono = now().mono.plus(Duration::from_secs(seconds));
    bench.node.handle(Now { mono, wall_ms: WALL_MS + seconds * 1_000 }, Input::Deadline);
    std::iter::from_fn(|| bench.node.poll()).for_each(drop);
    let view = bench.node.cluster();
    view.member(ReplicaId(20)).map(|member| (member.lag_ms, member.load)).unwrap()
}

/// Its beats and reports come, so it is well; its log stands still.
#[test]
fn a_peer_whose_writes_do_not_come_lags_by_the_time_they_are_missing() {
    let mut bench = Bench::new();
    says(&mut bench, 3);
    assert_eq!(shown(&mut bench, 2).0, Some(0), "it has just said so");
    says(&mut bench, 4);
    assert_eq!([4, 7].map(|at| shown(&mut bench, at).0), [Some(2_000), Some(5_000)]);
    let arrives = |upto| full(PartitionId(0), &seen(20, upto));
    bench.frame(GOOD, 20, vec![arrives(3)]);
    assert_eq!(shown(&mut bench, 8).0, Some(0), "the fourth is awaited from now on");
    bench.frame(GOOD, 20, vec![arrives(4)]);
    assert_eq!([9, 20].map(|at| shown(&mut bench, at).0), [Some(0), Some(0)], "nothing is missing");
    bench.handle(Input::LinkDown { link: GOOD, reason: LinkEnd::TimedOut });
    assert_eq!(shown(&mut bench, 21).0, None, "nobody knows");
}

#[test]
fn a_load_is_told_with_each_beat_and_shown_until_it_is_told_no_longer() {
    let mut bench = Bench::new();
    says(&mut bench, 0);
    let mut beat = Beat {
        replica: ReplicaId(20),
        seq: 0,
        hlc: Hlc(1),
        sent_ns: 1,
        echo: None,
        wall_ms: WALL_MS,
        load: None,
        suspects: [].into(),
        gives_up: [].into(),
    };
    for load in [None, Some(93), None] {
        (beat.seq, beat.load) = (beat.seq + 1, load);
        let bytes = bench.encoder.encode_beat(&beat);
        bench.handle(Input::Beat { link: GOOD, bytes });
        assert_eq!(shown(&mut bench, 0).1, load);
    }
    bench.handle(Input::Load { percent: Some(250) });
    let later = Now { mono: now().mono.plus(Duration::from_secs(1)), wall_ms: WALL_MS + 1_000 };
    bench.node.handle(later, Input::Deadline);
    let told: Vec<Option<u8>> = std::iter::from_fn(|| bench.node.poll())
        .filter_map(|output| if let Output::Beat { bytes, .. } = output { Some(bytes) } else { None })
        .map(|bytes| Decoder::default().decode_beat(&bytes, &Limits::default()).unwrap().load)
        .collect();
    assert_eq!(told, [Some(LOAD_MAX)]);
}

/// The donor has counted it as a member, and tells of a third one.
#[test]
fn who_has_not_joined_takes_no_writes_and_goes_by_its_links() {
    let mut bench = Bench::joiner();
    let hello = Hello { joined: true, ..bench.hello() };
    bench.control(BAD, &Control::Hello(hello));
    let mut members = MemberSet::default();
    for (replica, node, region) in [(10, 1, "us-east"), (20, 2, "eu-central"), (30, 3, "ap-southeast")] {
        let profile = Profile { version: 1, addresses: vec![format!("{region}:7400")], ..Profile::default() };
        let member = Member::new(node_id(node), RegionId::new(region), WALL_MS, None);
        members.add(ReplicaId(replica), &Member { profile, ..member });
    }
    let changed = Vec::new();
    bench.control(BAD, &Control::Report { hlc: Hlc(1), changed, members: Some(members) });
    let view = bench.node.cluster();
    let shown: Vec<_> = view.members.iter().map(|m| (m.reach, m.takes_writes, m.status())).collect();
    let me = (Reach::Up, false, Status::Degraded);
    assert_eq!(shown, [me, (Reach::Suspected, true, Status::Degraded), (Reach::Up, true, Status::Well)]);
    assert_eq!((view.belonging, view.isolated), (Belonging::Outside, false));
    assert_eq!(view.members[1].addresses, ["eu-central:7400"]);
}
