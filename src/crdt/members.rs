//! The members of the cluster: a two-phase set of replicas (Shapiro et al., *A Comprehensive Study
//! of Convergent and Commutative Replicated Data Types*, INRIA RR-7506).
//!
//! A replica is added once and removed once; its id is never used again, so removal may win for
//! ever. A restarted node's new replica *succeeds* the old one: both changes are in one value and
//! travel in one message, so nobody ever waits for a report of the old id.
//!
//! So that the replicas a node once was do not pile up, the set has *floors*: of each node's replicas, which follow each other
//! in order ([`ReplicaId`]), every one up to the floor is removed, and nothing else is said of it.
//!
//! What a member says of itself ([`Profile`](crate::crdt::member::Profile)) is a register that only it writes, so a
//! count of its changes orders them: the id is new with each process, and nobody else uses it.
//!
//! # Invariants
//! * What it says only grows; [`MemberSet::join`] is associative, commutative and idempotent.
//! * A removed id stays removed (R-FENCE), whether its addition was ever heard of or not.
//! * Of what is at or below a floor nothing is named but the last that an operator removed, and sponsors. It counts as one
//!   that was a member here and was removed.
//! * An orphan stays one; whether that matters is for each member to judge by what it has found stable (R-ORPHAN).
//!
//! What is *not* here: whether a member is alive, and who may remove whom.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::crdt::member::Member;
use crate::id::{NodeId, ReplicaId, Tag};
use crate::probe::planted;

/// Most removed replicas of one node that no floor covers when another replica of it is let in.
pub const INCARNATIONS_MAX: usize = 64;

/// Every replica that ever joined, and those of them that were removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberSet {
    /// Every replica heard of.
    pub members: BTreeMap<ReplicaId, Member>,
    /// The replicas that were removed, for ever.
    pub removed: BTreeSet<ReplicaId>,
    /// Members that somebody had heard of too late ([`MemberSet::orphans_in`]).
    pub orphans: BTreeSet<ReplicaId>,
    /// Those that an operator removed: their processes do not come back by themselves.
    pub expelled: BTreeSet<ReplicaId>,
    /// Every replica up to these of its node is removed.
    pub floors: BTreeMap<Tag, ReplicaId>,
}

impl MemberSet {
    /// Adds a replica; returns whether that was news.
    ///
    /// One id under two members is a duplicated id, which the hello refuses; here the larger
    /// member is kept so that all copies agree.
    pub fn add(&mut self, replica: ReplicaId, member: &Member) -> bool {
        if self.is_folded(replica) {
            return false;
        }
        let mut member = member.clone();
        if self.removed.contains(&replica) {
            member.profile = member.profile.of_removed();
        }
        match self.members.get_mut(&replica) {
            Some(known) => known.join(&member),
            None => self.members.insert(replica, member).is_none(),
        }
    }

    /// Removes a replica for ever; returns whether that was news.
    pub fn remove(&mut self, replica: ReplicaId) -> bool {
        if self.is_folded(replica) {
            return false;
        }
        if let Some(member) = self.members.get_mut(&replica) {
            member.profile = member.profile.of_removed();
        }
        self.removed.insert(replica)
    }

    /// Adds what `other` knows; returns whether anything changed.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut changed = !planted!(FloorForgotten) && self.fold(other.floors.values().copied());
        for replica in &other.removed {
            changed |= self.remove(*replica);
        }
        for (replica, member) in &other.members {
            changed |= self.add(*replica, member);
        }
        let (known, ordered) = (self.orphans.len(), self.expelled.clone());
        self.doubt(other.orphans.clone());
        self.expelled.extend(&other.expelled);
        self.forget_orders();
        changed || self.orphans.len() > known || self.expelled != ordered
    }

    /// Of the orders against replicas below a floor forgets all but the last: it counts for what the process is now.
    fn forget_orders(&mut self) {
        let last: BTreeMap<Tag, ReplicaId> =
            self.expelled.iter().filter(|r| self.is_folded(**r)).map(|r| (r.tag(), *r)).collect();
        self.expelled.retain(|r| last.get(&r.tag()).is_none_or(|last| r >= last));
    }

    /// Removes every replica up to each of `floors`; returns whether that was news.
    fn fold(&mut self, floors: impl Iterator<Item = ReplicaId>) -> bool {
        let mut raised = false;
        for floor in floors.filter(|floor| floor.tag().is_ordered()) {
            if self.floors.get(&floor.tag()).is_none_or(|known| floor > *known) {
                self.floors.insert(floor.tag(), floor);
                raised = true;
            }
        }
        if raised {
            let Self { members, removed, orphans, floors, .. } = self;
            let stays = |replica: &ReplicaId| floors.get(&replica.tag()).is_none_or(|floor| replica > floor);
            members.retain(|replica, _| stays(replica));
            [removed, orphans].into_iter().for_each(|ids| ids.retain(|replica| stays(replica)));
            self.forget_orders();
        }
        raised
    }

    /// Folds away what came before the lowest live replica of each tag, up to the last one that was removed; returns whether
    /// there was any. So the last replica of a node that has no other stays named, and what is known of it, and no live one is
    /// ever removed by this, whoever else has its tag.
    pub fn raise_floors(&mut self) -> bool {
        let mut below: BTreeMap<Tag, ReplicaId> = BTreeMap::new();
        let ordered = self.expelled.iter().filter(|replica| !self.is_succeeded(**replica)).copied();
        for replica in self.live().map(|(replica, _)| replica) {
            below.entry(replica.tag()).or_insert(replica);
        }
        for replica in ordered {
            below.entry(replica.tag()).and_modify(|below| *below = replica.min(*below));
        }
        let last =
            |(tag, below): (&Tag, &ReplicaId)| self.removed.range(*tag.ids().start()..*below).next_back().copied();
        let floors: Vec<ReplicaId> = below.iter().filter_map(last).collect();
        self.fold(floors.into_iter())
    }

    /// Tells whether a replica that is named has a live one of its node beside it.
    fn is_succeeded(&self, replica: ReplicaId) -> bool {
        self.members.get(&replica).is_some_and(|member| self.of_node(member.node).any(|other| other != replica))
    }

    /// Tells whether a replica is at or below the floor of its node.
    #[must_use]
    pub fn is_folded(&self, replica: ReplicaId) -> bool {
        self.floors.get(&replica.tag()).is_some_and(|floor| replica <= *floor)
    }

    /// Tells whether a replica was ever heard of as a member.
    #[must_use]
    pub fn knows(&self, replica: ReplicaId) -> bool {
        self.members.contains_key(&replica) || self.is_folded(replica)
    }

    /// Returns the latest replica of a tag that was heard of.
    #[must_use]
    pub fn latest(&self, tag: Tag) -> Option<ReplicaId> {
        let member = self.members.range(tag.ids()).next_back().map(|(replica, _)| *replica);
        let removed = self.removed.range(tag.ids()).next_back().copied();
        member.max(removed).max(self.floors.get(&tag).copied())
    }

    /// Returns a number for who is live and who was removed, the same wherever that is known alike.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        let (live, removed) = (self.live().map(|(replica, _)| replica), self.removed.iter().copied());
        let parts: [Vec<ReplicaId>; 3] = [live.collect(), removed.collect(), self.floors.values().copied().collect()];
        for part in parts {
            part.iter().for_each(|replica| hasher.write_u64(replica.0));
            hasher.write_u64(u64::try_from(part.len()).unwrap_or(u64::MAX));
        }
        // Zero says nothing.
        hasher.finish().max(1)
    }

    /// Returns how many removed replicas of its node would be named beside `joiner`.
    #[must_use]
    pub fn unfolded_beside(&self, joiner: ReplicaId) -> usize {
        let tag = joiner.tag();
        if tag.is_ordered() { self.removed.range(joiner..=*tag.ids().end()).count() } else { 0 }
    }

    /// Iterates over every replica that is named anywhere, some of them more than once.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> {
        let sponsors = self.members.values().filter_map(|member| member.sponsor);
        let named = self
            .members
            .keys()
            .chain(&self.removed)
            .chain(&self.orphans)
            .chain(&self.expelled)
            .chain(self.floors.values());
        named.copied().chain(sponsors)
    }

    /// Iterates over the members not removed, in order of replica id.
    pub fn live(&self) -> impl Iterator<Item = (ReplicaId, &Member)> {
        self.members.iter().map(|(replica, member)| (*replica, member)).filter(|(r, _)| !self.was_removed(*r))
    }

    /// Returns a member that was not removed.
    #[must_use]
    pub fn get(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.get(&replica).filter(|_| !self.was_removed(replica))
    }

    /// Tells whether a replica was removed, and is refused.
    #[must_use]
    pub fn is_removed(&self, replica: ReplicaId) -> bool {
        self.was_removed(replica) && !planted!(ZombieAccepted)
    }

    /// Tells whether a replica is named among the removed or below a floor.
    #[must_use]
    pub fn was_removed(&self, replica: ReplicaId) -> bool {
        self.removed.contains(&replica) || self.is_folded(replica)
    }

    /// Tells whether the process of a replica that was removed is to stay away: an operator removed it, or a copy of its node
    /// that joined later has its place. Of one below a floor no more is known than the last order.
    #[must_use]
    pub fn is_barred(&self, replica: ReplicaId) -> bool {
        self.expelled.contains(&replica) || self.is_replaced(replica)
    }

    fn is_replaced(&self, replica: ReplicaId) -> bool {
        let Some(mine) = self.members.get(&replica) else { return false };
        let later = |other, member: &Member| (member.since_ms, other) > (mine.since_ms, replica);
        self.live().any(|(other, member)| member.node == mine.node && later(other, member))
    }

    /// Tells the same of one that is perhaps below a floor, of which it is not known when it joined: then any live copy is its
    /// successor if it had `joined`, and else it has only begun, with a clock that went back.
    #[must_use]
    pub fn bars(&self, replica: ReplicaId, node: NodeId, joined: bool) -> bool {
        let has_successor = joined && self.is_folded(replica) && self.of_node(node).next().is_some();
        has_successor || self.is_barred(replica)
    }

    /// Tells whether a node holds everything, as far as is known: one of its live replicas does, or none lives and one did.
    #[must_use]
    pub fn is_whole(&self, node: NodeId) -> bool {
        let lives = self.of_node(node).next().is_some();
        let mut whole = self.members.iter().filter(|(_, member)| member.node == node && !member.profile.is_edge);
        whole.any(|(replica, _)| !lives || !self.was_removed(*replica))
    }

    /// Returns the live replicas of a node, in order.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = ReplicaId> {
        self.live().filter(move |(_, member)| member.node == node).map(|(replica, _)| replica)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::crdt::Profile;
    use crate::id::{RegionId, Role};

    pub(in crate::crdt) fn member(node: u128, region: &str) -> Member {
        Member::new(NodeId(uuid::Uuid::from_u128(node)), RegionId::new(region), 7, None)
    }

    pub(in crate::crdt) fn set(members: &[(u64, u128)], removed: &[u64]) -> MemberSet {
        MemberSet {
            members: members.iter().map(|&(r, n)| (ReplicaId(r), member(n, "eu"))).collect(),
            removed: removed.iter().map(|&r| ReplicaId(r)).collect(),
            ..MemberSet::default()
        }
    }

    fn live(set: &MemberSet) -> Vec<u64> {
        set.live().map(|(replica, _)| replica.0).collect()
    }

    #[test]
    fn joins_in_any_order_agree_and_tell_when_nothing_is_new() {
        let all = [set(&[(3, 1), (1, 1)], &[]), set(&[(1, 2)], &[3]), set(&[(2, 7)], &[9])];
        let (mut forth, mut back) = (MemberSet::default(), MemberSet::default());
        assert!(all.iter().all(|other| forth.join(other)));
        assert!(all.iter().rev().all(|other| back.join(other)));
        assert_eq!(forth, back);
        assert!(all.iter().all(|other| !forth.join(other)));
        assert_eq!(live(&forth), [1, 2]);
    }

    #[test]
    fn whoever_is_named_anywhere_counts_against_the_limit() {
        let mut all = set(&[(1, 1)], &[2]);
        all.orphans.insert(ReplicaId(3));
        all.expelled.insert(ReplicaId(5));
        all.members.values_mut().for_each(|member| member.sponsor = Some(ReplicaId(4)));
        assert_eq!(all.replicas().collect::<BTreeSet<_>>(), [1, 2, 3, 4, 5].map(ReplicaId).into());
    }

    #[test]
    fn either_part_alone_is_news() {
        let mut here = set(&[(1, 1)], &[]);
        assert!(here.join(&set(&[], &[5])), "a removal");
        assert!(here.join(&set(&[(2, 1)], &[5])), "a member next to a known removal");
        assert!(!here.join(&set(&[(2, 1)], &[5])));
    }

    #[test]
    fn who_was_expelled_or_has_a_live_copy_is_to_stay_away() {
        let mut here = set(&[(1, 1), (2, 2), (3, 2), (4, 3)], &[1, 2, 4]);
        assert!(!here.is_barred(ReplicaId(1)) && here.is_barred(ReplicaId(2)) && !here.is_barred(ReplicaId(4)));
        let order = MemberSet { expelled: [ReplicaId(4)].into(), ..MemberSet::default() };
        assert!(here.join(&order) && here.is_barred(ReplicaId(4)));
        assert!(!here.join(&order), "an order that is known is no news");
    }

    #[test]
    fn no_copy_that_is_older_has_the_place_of_a_replica() {
        let here = set(&[(2, 2), (3, 2)], &[3]);
        assert!(!here.is_barred(ReplicaId(3)), "it came after the other one");
        let mut later = here;
        later.add(ReplicaId(1), &Member { since_ms: 8, ..member(2, "eu") });
        assert!(later.is_barred(ReplicaId(3)), "joined last, whatever its id");
    }

    #[test]
    fn a_removed_replica_never_comes_back() {
        let mut here = set(&[(1, 1)], &[5]);
        here.join(&set(&[(5, 1)], &[]));
        assert_eq!(live(&here), [1]);
        assert!(here.is_removed(ReplicaId(5)) && here.get(ReplicaId(5)).is_none());
    }

    #[test]
    fn one_id_under_two_members_ends_as_the_larger_of_them_whoever_is_heard_first() {
        let (small, large) = (member(1, "eu"), member(2, "eu"));
        let mut here = MemberSet::default();
        assert!(here.add(ReplicaId(4), &small) && !here.add(ReplicaId(4), &small));
        assert!(here.add(ReplicaId(4), &large) && !here.add(ReplicaId(4), &small));
        assert_eq!(here.get(ReplicaId(4)), Some(&large));
        assert!(here.remove(ReplicaId(4)) && !here.remove(ReplicaId(4)));
        assert_eq!((here.get(ReplicaId(4)), here.get(ReplicaId(5))), (None, None));
    }

    fn says(version: u64, address: &str) -> Profile {
        Profile { version, addresses: vec![address.to_owned()], ..Profile::default() }
    }

    #[test]
    fn of_what_a_member_says_of_itself_the_latest_stays_whatever_is_heard_in_which_order() {
        let with = |profile: Profile, since_ms| Member { profile, since_ms, ..member(1, "eu") };
        let said = [with(says(1, "a:1"), 9), with(says(2, "b:1"), 7), with(Profile::default(), 8)];
        for turn in 0..said.len() {
            let mut here = MemberSet::default();
            for member in said.iter().cycle().skip(turn).take(said.len()) {
                here.add(ReplicaId(4), member);
            }
            assert_eq!(here.get(ReplicaId(4)), Some(&with(says(2, "b:1"), 9)), "from {turn} on");
            assert!(said.iter().all(|member| !here.add(ReplicaId(4), member)));
        }
    }

    #[test]
    fn of_the_removed_nothing_is_kept_that_they_said_of_themselves() {
        let talkative = Member { profile: says(3, "a:1"), ..member(1, "eu") };
        let (mut first, mut last) = (MemberSet::default(), MemberSet::default());
        assert!(first.add(ReplicaId(4), &talkative) && first.remove(ReplicaId(4)));
        assert!(last.remove(ReplicaId(4)) && last.add(ReplicaId(4), &talkative));
        assert_eq!(first, last);
        assert_eq!(first.members.get(&ReplicaId(4)), Some(&member(1, "eu")));
        let other = MemberSet { members: [(ReplicaId(4), talkative)].into(), ..MemberSet::default() };
        assert!(!first.join(&other));
    }

    #[test]
    fn whether_a_member_left_by_itself_is_kept_in_whatever_order_it_is_heard() {
        let mut there = set(&[(1, 1), (2, 2)], &[]);
        let profile = |left| Profile { version: 4, role: Role::Draining, left, ..Profile::default() };
        there.add(ReplicaId(2), &Member { profile: profile(true), ..member(2, "eu") });
        there.remove(ReplicaId(2));
        let mut drains = set(&[(1, 1)], &[]);
        drains.add(ReplicaId(2), &Member { profile: profile(false), ..member(2, "eu") });
        for mut here in [MemberSet::default(), set(&[(1, 1), (2, 2)], &[]), set(&[(2, 2)], &[2]), drains.clone()] {
            assert!(here.join(&there) && !here.join(&there));
            assert_eq!(here, there);
        }
        drains.remove(ReplicaId(2));
        assert!(!drains.members[&ReplicaId(2)].profile.left, "it drained, and others removed it");
    }

    #[test]
    fn the_live_copies_of_a_node_are_its_own_and_not_removed() {
        let here = set(&[(1, 1), (2, 2), (3, 1), (4, 1)], &[3]);
        let of_node = |node| here.of_node(NodeId(uuid::Uuid::from_u128(node))).map(|r| r.0).collect::<Vec<_>>();
        assert_eq!((of_node(1), of_node(2), of_node(3)), (vec![1, 4], vec![2], vec![]));
        assert!(!here.is_removed(ReplicaId(1)) && here.is_removed(ReplicaId(3)));
    }

    pub(in crate::crdt) const NODE: NodeId = NodeId(uuid::Uuid::from_u128(77));

    pub(in crate::crdt) fn began(ms: u64) -> ReplicaId {
        ReplicaId::new(NODE, ms)
    }

    pub(in crate::crdt) fn of_node(live: &[u64], removed: &[u64]) -> MemberSet {
        let member = Member::new(NODE, RegionId::new("eu"), 7, None);
        let members = live.iter().chain(removed).map(|ms| (began(*ms), member.clone())).collect();
        MemberSet { members, removed: removed.iter().map(|ms| began(*ms)).collect(), ..MemberSet::default() }
    }

    #[test]
    fn what_came_before_the_live_replica_of_a_node_is_folded_away_and_stays_removed() {
        let mut here = of_node(&[9], &[3, 5, 7]);
        assert!(here.raise_floors() && !here.raise_floors());
        assert_eq!(here, MemberSet { floors: [(NODE.tag(), began(7))].into(), ..of_node(&[9], &[]) });
        for ms in [1, 3, 4, 7] {
            let replica = began(ms);
            assert!(here.is_removed(replica) && here.knows(replica) && here.get(replica).is_none(), "{ms}");
            assert!(!here.add(replica, &member(77, "eu")) && !here.remove(replica), "it is no news");
        }
        assert!(!here.is_removed(began(9)) && !here.is_removed(began(8)) && !here.knows(began(8)));
        assert!(!here.join(&of_node(&[3, 5], &[3, 7])) && here.join(&of_node(&[8], &[])));
        assert_eq!(here.latest(NODE.tag()), Some(began(9)));
    }

    #[test]
    fn the_last_replica_of_a_node_and_an_order_against_it_stay_named() {
        let mut here = of_node(&[], &[3, 5]);
        assert!(!here.raise_floors(), "nobody has succeeded it");
        let stranger = Member::new(NodeId(uuid::Uuid::from_u128(78)), RegionId::new("eu"), 7, None);
        here.add(began(9), &stranger);
        here.expelled.insert(began(5));
        assert!(here.raise_floors() && here.floors == [(NODE.tag(), began(3))].into(), "who shares its tag is not it");
        assert!(here.is_barred(began(5)));
        here.join(&of_node(&[11], &[]));
        assert!(here.raise_floors() && here.floors == [(NODE.tag(), began(5))].into());
        assert_eq!((here.expelled.clone(), here.live().count()), ([began(5)].into(), 2), "it may still be heard of");
        let order = |ms| MemberSet { expelled: [began(ms)].into(), ..MemberSet::default() };
        assert!(!here.join(&order(4)) && here.expelled.len() == 1, "an older one is no news");
    }

    #[test]
    fn a_floor_is_below_every_live_replica_and_those_above_are_counted() {
        let mut here = of_node(&[4, 9], &[3, 5, 7]);
        assert!(here.raise_floors() && here.floors == [(NODE.tag(), began(3))].into());
        assert_eq!(
            (here.unfolded_beside(began(4)), here.unfolded_beside(began(6)), here.unfolded_beside(began(9))),
            (2, 1, 0)
        );
        let mut by_hand = set(&[(1, 1), (3, 1)], &[1]);
        assert!(!by_hand.raise_floors() && by_hand.unfolded_beside(ReplicaId(0)) == 0);
    }

    #[test]
    fn a_node_holds_everything_if_what_lives_of_it_does_and_what_it_was_counts_only_if_nothing_does() {
        let edge =
            Profile { version: 3, addresses: vec!["a:1".to_owned()], role: Role::Edge, is_edge: true, left: false };
        let node = |n| NodeId(uuid::Uuid::from_u128(n));
        let mut here = MemberSet::default();
        here.add(ReplicaId(1), &Member { profile: edge.clone(), ..member(1, "eu") });
        here.add(ReplicaId(2), &member(2, "eu"));
        assert_eq!([1, 2, 3].map(|n| here.is_whole(node(n))), [false, true, false]);
        here.remove(ReplicaId(1));
        here.remove(ReplicaId(2));
        assert_eq!([1, 2].map(|n| here.is_whole(node(n))), [false, true], "as it was known");
        here.add(ReplicaId(3), &Member { profile: edge, ..member(2, "eu") });
        assert!(!here.is_whole(node(2)), "it is an edge now");
    }
}
