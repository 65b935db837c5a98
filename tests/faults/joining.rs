//! Donors and orphans: what a node takes from whom while it joins, and whom it removes.

use std::time::Duration;

use driftless::clock::{Hlc, Now};
use driftless::config::MembershipConfig;
use driftless::crdt::{Ctx, Member, MemberSet};
use driftless::id::{PartitionId, RegionId, ReplicaId};
use driftless::node::{CloseCode, Input, LinkEnd, Output, PeerSlot};
use driftless::wire::{Control, Hello, Part};

use crate::bench::{BAD, Bench, GOOD, WALL_MS, identity, node_id, now, only_piece, seen};

/// All of a partition, without a value, and all of it stable.
pub(super) fn full(partition: PartitionId, ctx: &Ctx) -> Part {
    full_of(partition, ctx, ctx)
}

/// All of a partition, without a value, and only some of it stable.
fn full_of(partition: PartitionId, ctx: &Ctx, stable: &Ctx) -> Part {
    Part::FullChunk(only_piece(partition, [ctx, stable, stable]))
}

/// A joiner that has copied a partition from a donor which died, and now copies everything from the good node.
fn second_donor(first: &Ctx, second: &Ctx) -> Bench {
    second_donor_of(first, second, second)
}

/// The same, where not all that the good node has is stable there.
fn second_donor_of(first: &Ctx, second: &Ctx, stable: &Ctx) -> Bench {
    let mut bench = Bench::joiner();
    let hello = Hello { joined: true, ..bench.hello() };
    bench.control(BAD, &Control::Hello(hello.clone()));
    bench.frame(BAD, 30, vec![full(PartitionId(0), first)]);
    bench.handle(Input::LinkDown { link: BAD, reason: LinkEnd::TimedOut });
    bench.link_up(GOOD, identity(2, "eu-central"));
    let good = Hello { node: node_id(2), region: RegionId::new("eu-central"), replica: ReplicaId(20), ..hello };
    bench.control(GOOD, &Control::Hello(good));
    let ids = bench.store.partition_ids();
    ids.for_each(|id| bench.frame(GOOD, 20, vec![full_of(id, second, stable)]));
    bench.control(GOOD, &Control::JoinDone { hlc: Hlc::from_ms(WALL_MS), resumed: Vec::new() });
    bench
}

/// A former donor may have had more than the next one, and then it is the joiner who is ahead.
#[test]
fn a_joiner_that_has_more_than_its_second_donor_joins() {
    assert!(second_donor(&seen(30, 4), &Ctx::default()).node.stats().joined);
    assert!(second_donor(&seen(30, 4), &seen(30, 5)).node.stats().joined, "or the next one has more");
}

/// What the first donor knew may be what the cluster has deleted since, and forgotten without it.
#[test]
fn a_joiner_whose_donors_do_not_know_of_each_other_begins_again() {
    let bench = second_donor(&seen(30, 4), &seen(20, 1));
    assert!(!bench.node.stats().joined && bench.node.members().is_removed(ReplicaId(10)));
}

/// The first donor had forgotten what the next one has never heard of: what that one shows may be what the first deleted.
#[test]
fn a_joiner_whose_first_donor_had_forgotten_what_the_next_one_lacks_begins_again() {
    let mut second = seen(30, 2);
    second.join(&seen(20, 1));
    let bench = second_donor_of(&seen(30, 4), &second, &seen(30, 2));
    assert!(!bench.node.stats().joined && bench.node.members().is_removed(ReplicaId(10)));
}

/// There is a cluster, and only the clocks keep this node out of it, whichever of the two refuses the other's.
#[test]
fn a_node_does_not_found_beside_a_member_from_whom_only_the_clocks_keep_it_apart() {
    const HOUR_MS: u64 = 3_600_000;
    for (theirs, member, founds) in
        [(WALL_MS, false, true), (WALL_MS + HOUR_MS, true, false), (WALL_MS - HOUR_MS, true, false)]
    {
        let mut bench = Bench::joiner();
        let hello = Hello { joined: member, wall_ms: theirs, ..bench.hello() };
        bench.handle(Input::LinkDown { link: BAD, reason: LinkEnd::TimedOut });
        let (peer, dialled) = (identity(3, "ap-southeast"), Some(PeerSlot(0)));
        bench.handle(Input::LinkUp { link: BAD, peer, dialled, after: Duration::ZERO });
        bench.control(BAD, &Control::Hello(hello));
        let later = Now { mono: now().mono.plus(MembershipConfig::default().solo_after), ..now() };
        bench.node.handle(later, Input::Deadline);
        assert_eq!(bench.node.stats().joined, founds, "a member: {member}, clock off by {}", theirs.abs_diff(WALL_MS));
    }
}

/// The good node, which lives here, was removed elsewhere before anybody there had heard of this node.
#[test]
fn a_node_that_lived_with_one_whom_strangers_had_removed_begins_again() {
    for (removed, known, ends) in [(true, false, true), (true, true, false), (false, false, false)] {
        let mut bench = Bench::new();
        let region = RegionId::new("ap-southeast");
        let member = |node| Member::new(node_id(node), region.clone(), 1, None);
        let mut members = MemberSet::default();
        members.add(ReplicaId(20), &member(2));
        bench.control(GOOD, &Control::Ready { members, ctxs: Vec::new() });
        let (members, ctxs) = (MemberSet::default(), Vec::new());
        let mut hello = Hello { joined: true, members, ctxs, ..bench.hello() };
        hello.members.add(ReplicaId(30), &member(3));
        hello.members.add(ReplicaId(20), &member(2));
        if removed {
            hello.members.remove(ReplicaId(20));
        }
        if known {
            hello.members.add(ReplicaId(10), &member(1));
        }
        bench.control(BAD, &Control::Hello(hello));
        assert_eq!(bench.node.members().is_removed(ReplicaId(10)), ends, "removed {removed}, known {known}");
        assert_eq!(bench.node.members().orphans.contains(&ReplicaId(10)), ends);
    }
}

/// One that founded may have taken anything from whom it names as living and who was removed here.
#[test]
fn a_founder_that_lives_with_one_removed_here_is_an_orphan() {
    for (lives, fenced) in [(true, true), (false, false)] {
        let mut bench = Bench::new();
        let region = RegionId::new("ap-southeast");
        let member = |node| Member::new(node_id(node), region.clone(), 1, None);
        let mut members = MemberSet::default();
        members.add(ReplicaId(20), &member(2));
        members.add(ReplicaId(40), &member(4));
        members.remove(ReplicaId(40));
        let id = PartitionId(0);
        bench.control(GOOD, &Control::Ready { members, ctxs: vec![(id, seen(20, 1))] });
        bench.frame(GOOD, 20, vec![full(id, &seen(20, 1))]);
        let (members, ctxs) = (MemberSet::default(), Vec::new());
        let mut hello = Hello { joined: true, members, ctxs, ..bench.hello() };
        hello.members.add(ReplicaId(30), &member(3));
        hello.members.add(ReplicaId(40), &member(4));
        if !lives {
            hello.members.remove(ReplicaId(40));
        }
        bench.control(BAD, &Control::Hello(hello));
        assert_eq!(bench.node.members().is_removed(ReplicaId(30)), fenced, "{lives}");
    }
}

/// A node whose sponsor was removed here before anybody heard of it, and one of which that is not so.
#[test]
fn an_orphan_that_has_not_seen_what_is_stable_here_is_removed() {
    for (sponsor, seen_by_it, fenced) in [
        (Some(ReplicaId(40)), Ctx::default(), true),
        (Some(ReplicaId(40)), seen(20, 1), false),
        (Some(ReplicaId(20)), Ctx::default(), false),
        (None, Ctx::default(), false),
    ] {
        let mut bench = Bench::new();
        let region = RegionId::new("ap-southeast");
        let member = |node, sponsor| Member::new(node_id(node), region.clone(), 1, sponsor);
        let mut members = MemberSet::default();
        members.add(ReplicaId(20), &member(2, None));
        members.add(ReplicaId(40), &member(4, None));
        members.remove(ReplicaId(40));
        let id = PartitionId(0);
        bench.control(GOOD, &Control::Ready { members, ctxs: vec![(id, seen(20, 1))] });
        bench.frame(GOOD, 20, vec![full(id, &seen(20, 1))]);
        let mut hello = bench.hello();
        (hello.joined, hello.ctxs) = (true, vec![(id, seen_by_it)]);
        hello.members.add(ReplicaId(30), &member(3, sponsor));
        bench.control(BAD, &Control::Hello(hello));
        assert_eq!(bench.node.members().is_removed(ReplicaId(30)), fenced, "{sponsor:?}");
    }
}

/// Whoever joins learns of orphans by its donor, and has noted no report of theirs when it first looks at them.
#[test]
fn a_joiner_judges_an_orphan_by_what_that_one_has_said() {
    for (seen_by_it, fenced) in [(Ctx::default(), true), (seen(20, 1), false)] {
        let mut bench = Bench::joiner();
        bench.link_up(GOOD, identity(2, "eu-central"));
        let orphan = bench.hello();
        let member = |node, region| Member::new(node_id(node), RegionId::new(region), 1, None);
        let mut members = MemberSet { orphans: [ReplicaId(30)].into(), ..MemberSet::default() };
        members.add(ReplicaId(20), &member(2, "eu-central"));
        members.add(ReplicaId(30), &member(3, "ap-southeast"));
        let donor = Hello {
            node: node_id(2),
            region: RegionId::new("eu-central"),
            replica: ReplicaId(20),
            joined: true,
            members,
            ..orphan.clone()
        };
        bench.control(GOOD, &Control::Hello(donor));
        bench.control(BAD, &Control::Hello(Hello { joined: true, ctxs: vec![(PartitionId(0), seen_by_it)], ..orphan }));
        let stable = |id: PartitionId| seen(20, u64::from(id.index() == 0));
        bench.store.partition_ids().for_each(|id| bench.frame(GOOD, 20, vec![full(id, &stable(id))]));
        bench.control(GOOD, &Control::JoinDone { hlc: Hlc::from_ms(WALL_MS), resumed: Vec::new() });
        assert!(bench.node.stats().joined);
        assert_eq!(bench.node.members().is_removed(ReplicaId(30)), fenced);
    }
}

/// Its clock goes back with each start, so nothing of what it was before comes before it.
#[test]
fn a_node_of_which_too_much_is_named_is_sent_back_to_begin_above_it() {
    let of_three = |ms| ReplicaId::new(node_id(3), ms);
    for (former, goes_back) in [(64, false), (65, true)] {
        let mut bench = Bench::new();
        let mut members = MemberSet::default();
        (0..former).for_each(|n| {
            members.remove(of_three(1_000 + n));
        });
        bench.control(GOOD, &Control::Ready { members, ctxs: Vec::new() });
        let hello = Hello { replica: of_three(7), joined: false, ..bench.hello() };
        bench.control(BAD, &Control::Hello(hello));
        let outputs = bench.control(BAD, &Control::Join { ctxs: Vec::new() });
        let sent = outputs.iter().any(|o| matches!(o, Output::Close { link: BAD, code: CloseCode::Removed, .. }));
        assert_eq!((sent, bench.node.members().get(of_three(7)).is_some()), (goes_back, !goes_back));
        assert_eq!(bench.node.stats().peers.len(), if goes_back { 1 } else { 2 }, "everybody else goes on");
    }
}
