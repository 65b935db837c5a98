//! The members of the cluster: a two-phase set of replicas (Shapiro et al., *A Comprehensive Study
//! of Convergent and Commutative Replicated Data Types*, INRIA RR-7506).
//!
//! A replica is added once and removed once; its id is never used again, so removal may win for
//! ever. A restarted node's new replica *succeeds* the old one: both changes are in one value and
//! travel in one message, so nobody ever waits for a report of the old id.
//!
//! # Invariants
//! * Both parts only grow; [`MemberSet::join`] is associative, commutative and idempotent.
//! * A removed id stays removed (R-FENCE), whether its addition was ever heard of or not.
//!
//! What is *not* here: whether a member is alive, and who may remove whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeId, RegionId, ReplicaId};
use crate::probe::{planted, sometimes};

/// Whose running copy a replica is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Member {
    /// The node that runs it.
    pub node: NodeId,
    /// The node's region.
    pub region: RegionId,
    /// When it joined by its own wall clock, in Unix milliseconds: of two live copies of one node
    /// the later one is meant.
    pub since_ms: u64,
}

/// Every replica that ever joined, and those of them that were removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberSet {
    /// Every replica heard of.
    pub members: BTreeMap<ReplicaId, Member>,
    /// The replicas that were removed, for ever.
    pub removed: BTreeSet<ReplicaId>,
}

impl MemberSet {
    /// Adds a replica; returns whether that was news.
    ///
    /// One id under two members is a duplicated id, which the hello refuses; here the larger
    /// member is kept so that all copies agree.
    pub fn add(&mut self, replica: ReplicaId, member: &Member) -> bool {
        match self.members.get_mut(&replica) {
            Some(known) if &*known >= member => false,
            Some(known) => {
                known.clone_from(member);
                true
            }
            None => self.members.insert(replica, member.clone()).is_none(),
        }
    }

    /// Removes a replica for ever; returns whether that was news.
    pub fn remove(&mut self, replica: ReplicaId) -> bool {
        self.removed.insert(replica)
    }

    /// Adds what `other` knows; returns whether anything changed.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (replica, member) in &other.members {
            changed |= self.add(*replica, member);
        }
        for replica in &other.removed {
            changed |= self.remove(*replica);
        }
        changed
    }

    /// Removes every copy of a node but its latest; returns whether there was one. Two donors that
    /// could not hear of each other may each have let in another copy of a node.
    pub fn supersede(&mut self) -> bool {
        if planted!(CopiesOfOneNodeStay) {
            return false;
        }
        let mut latest: BTreeMap<NodeId, (u64, ReplicaId)> = BTreeMap::new();
        for (replica, member) in self.live() {
            let best = latest.entry(member.node).or_default();
            *best = (*best).max((member.since_ms, replica));
        }
        let old: Vec<ReplicaId> = self
            .live()
            .filter(|(replica, member)| latest.get(&member.node).is_some_and(|(_, best)| best != replica))
            .map(|(replica, _)| replica)
            .collect();
        sometimes!(MemberSuperseded, if !old.is_empty());
        self.removed.extend(&old);
        !old.is_empty()
    }

    /// Iterates over the members not removed, in order of replica id.
    pub fn live(&self) -> impl Iterator<Item = (ReplicaId, &Member)> {
        self.members.iter().map(|(replica, member)| (*replica, member)).filter(|(r, _)| !self.removed.contains(r))
    }

    /// Returns a member that was not removed.
    #[must_use]
    pub fn get(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.get(&replica).filter(|_| !self.removed.contains(&replica))
    }

    /// Tells whether a replica was removed.
    #[must_use]
    pub fn is_removed(&self, replica: ReplicaId) -> bool {
        self.removed.contains(&replica) && !planted!(ZombieAccepted)
    }

    /// Returns the live replicas of a node, in order.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = ReplicaId> {
        self.live().filter(move |(_, member)| member.node == node).map(|(replica, _)| replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u128, region: &str) -> Member {
        Member { node: NodeId(uuid::Uuid::from_u128(node)), region: RegionId::new(region), since_ms: 7 }
    }

    fn set(members: &[(u64, u128)], removed: &[u64]) -> MemberSet {
        MemberSet {
            members: members.iter().map(|&(r, n)| (ReplicaId(r), member(n, "eu"))).collect(),
            removed: removed.iter().map(|&r| ReplicaId(r)).collect(),
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
    fn either_part_alone_is_news() {
        let mut here = set(&[(1, 1)], &[]);
        assert!(here.join(&set(&[], &[5])), "a removal");
        assert!(here.join(&set(&[(2, 1)], &[5])), "a member next to a known removal");
        assert!(!here.join(&set(&[(2, 1)], &[5])));
    }

    #[test]
    fn a_removed_replica_never_comes_back() {
        let mut here = set(&[(1, 1)], &[5]);
        here.join(&set(&[(5, 1)], &[]));
        assert_eq!(live(&here), [1]);
        assert!(here.is_removed(ReplicaId(5)) && here.get(ReplicaId(5)).is_none());
    }

    #[test]
    fn of_two_copies_of_one_node_the_later_stays_whoever_let_them_in() {
        let mut here = set(&[(8, 1), (4, 2)], &[]);
        here.add(ReplicaId(2), &Member { since_ms: 9, ..member(1, "eu") });
        assert!(here.supersede() && !here.supersede());
        assert_eq!(live(&here), [2, 4]);
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

    #[test]
    fn the_live_copies_of_a_node_are_its_own_and_not_removed() {
        let here = set(&[(1, 1), (2, 2), (3, 1), (4, 1)], &[3]);
        let of_node = |node| here.of_node(NodeId(uuid::Uuid::from_u128(node))).map(|r| r.0).collect::<Vec<_>>();
        assert_eq!((of_node(1), of_node(2), of_node(3)), (vec![1, 4], vec![2], vec![]));
        assert!(!here.is_removed(ReplicaId(1)) && here.is_removed(ReplicaId(3)));
    }
}
