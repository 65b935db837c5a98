//! Orphans: members that are heard of too late, so that nobody here has waited for what they know (R-ORPHAN).
//!
//! # Invariants
//! * Who they are follows from what was known before and from what is said now: everybody who knew the same and is told the
//!   same names the same ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::crdt::member::Member;
use crate::crdt::members::MemberSet;
use crate::id::{NodeId, ReplicaId};

/// Whom each member let in.
struct LetIn(BTreeMap<ReplicaId, Vec<ReplicaId>>);

impl LetIn {
    fn of<'a>(members: impl Iterator<Item = (&'a ReplicaId, &'a Member)>) -> Self {
        let mut let_in: BTreeMap<ReplicaId, Vec<ReplicaId>> = BTreeMap::new();
        for (replica, member) in members {
            member.sponsor.into_iter().for_each(|by| let_in.entry(by).or_default().push(*replica));
        }
        Self(let_in)
    }

    /// Returns whom those let in, and whom these let in, and so on.
    fn after(&self, mut open: Vec<ReplicaId>) -> BTreeSet<ReplicaId> {
        let mut found = BTreeSet::new();
        while let Some(by) = open.pop() {
            let more = self.0.get(&by).into_iter().flatten().filter(|replica| found.insert(**replica));
            open.extend(more);
        }
        found
    }
}

impl MemberSet {
    /// Notes members that were heard of too late.
    pub fn doubt(&mut self, late: BTreeSet<ReplicaId>) {
        let named: Vec<ReplicaId> = late.into_iter().filter(|replica| !self.is_folded(*replica)).collect();
        self.orphans.extend(named);
    }

    /// Returns the members in `news` of whom I hear too late: who let them in was a member here and was removed, or is an
    /// orphan that is not `cleared` here, or they founded and all replicas of their node I know of were removed, or they
    /// founded and I hear of them together with such a one, or with one that was removed here and lives there. Nobody here
    /// has waited for what they know. Whom somebody let in who is folded away there and was never heard of here is judged
    /// as if it had founded. Who has copied somebody else since I heard of it is judged by that one.
    #[must_use]
    pub fn orphans_in(&self, news: &Self, cleared: &BTreeSet<ReplicaId>) -> BTreeSet<ReplicaId> {
        let copied_since =
            |replica, member: &Member| self.members.get(replica).is_some_and(|known| known.copied_from_other(member));
        let unknown = || news.members.iter().filter(|(r, member)| !self.knows(**r) || copied_since(*r, member));
        let doubted = |replica: &ReplicaId| {
            (self.orphans.contains(replica) || news.orphans.contains(replica)) && !cleared.contains(replica)
        };
        let stained = |replica: &ReplicaId| doubted(replica) || (self.knows(*replica) && self.was_removed(*replica));
        if unknown().next().is_none() {
            return BTreeSet::new();
        }
        let let_in = LetIn::of(unknown());
        let (lived, lives): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            (self.members.values().map(|m| m.node).collect(), self.live().map(|(_, m)| m.node).collect());
        let has_gone =
            |node: NodeId| (lived.contains(&node) || self.floors.contains_key(&node.tag())) && !lives.contains(&node);
        let unnamed = |by: &&ReplicaId| !self.knows(**by) && !news.members.contains_key(*by);
        let rootless = let_in.after(let_in.0.keys().filter(unnamed).copied().collect());
        let leads_nowhere =
            |(replica, member): &(&ReplicaId, &Member)| member.sponsor.is_none() || rootless.contains(*replica);
        let in_company = news.live().any(|(replica, _)| stained(&replica));
        let of_late = |one: &(&ReplicaId, &Member)| {
            let led_here = one.1.sponsor.is_some_and(|by| stained(&by));
            led_here || (leads_nowhere(one) && (in_company || has_gone(one.1.node)))
        };
        let mut late: BTreeSet<ReplicaId> = unknown().filter(of_late).map(|(replica, _)| *replica).collect();
        if !late.is_empty() {
            late.extend(unknown().filter(leads_nowhere).map(|(replica, _)| *replica));
            late.extend(let_in.after(late.iter().copied().collect()));
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::members::tests::{NODE, began, member, of_node, set};
    use crate::id::RegionId;

    fn let_in(by: u64, node: u128) -> Member {
        Member { sponsor: Some(ReplicaId(by)), ..member(node, "eu") }
    }

    fn late(here: &MemberSet, news: &[(u64, Member)]) -> Vec<u64> {
        let members = news.iter().map(|(r, m)| (ReplicaId(*r), m.clone())).collect();
        here.orphans_in(&MemberSet { members, ..MemberSet::default() }, &BTreeSet::new()).iter().map(|r| r.0).collect()
    }

    #[test]
    fn who_was_let_in_by_one_that_is_removed_here_is_an_orphan_and_so_is_whom_it_let_in() {
        let here = set(&[(1, 1), (2, 2)], &[2]);
        assert_eq!(late(&here, &[(5, let_in(2, 3)), (4, let_in(5, 4)), (6, let_in(1, 6))]), [4, 5]);
        let mut known = here;
        known.add(ReplicaId(5), &let_in(2, 3));
        assert_eq!(late(&known, &[(5, let_in(2, 3))]), [0; 0], "it was known before");
        assert_eq!(late(&set(&[(1, 1)], &[2]), &[(5, let_in(2, 3))]), [0; 0], "the sponsor never was a member here");
        let mut here = set(&[(1, 1), (2, 2)], &[]);
        let news = MemberSet { members: [(ReplicaId(5), let_in(2, 3))].into(), ..set(&[], &[2]) };
        assert!(here.orphans_in(&news, &BTreeSet::new()).is_empty(), "until now it was waited for");
        assert!(here.join(&news));
    }

    #[test]
    fn who_has_copied_somebody_else_since_is_judged_by_that_one() {
        let mut here = set(&[(1, 1), (2, 2)], &[2]);
        here.add(ReplicaId(5), &let_in(1, 3));
        let finished = |by| Member { since_ms: 8, ..let_in(by, 3) };
        assert_eq!(late(&here, &[(5, finished(2))]), [5], "its first donor had given it nothing");
        assert_eq!(late(&here, &[(5, finished(1))]), [0; 0]);
        assert_eq!(late(&here, &[(5, Member { since_ms: 6, ..let_in(2, 3) })]), [0; 0], "an older word");
    }

    #[test]
    fn whom_an_orphan_lets_in_is_one_until_the_orphan_is_cleared() {
        let here = MemberSet { orphans: [ReplicaId(5)].into(), ..set(&[(1, 1), (5, 3)], &[]) };
        assert_eq!(late(&here, &[(6, let_in(5, 4))]), [6]);
        let news = MemberSet { members: [(ReplicaId(6), let_in(5, 4))].into(), ..MemberSet::default() };
        assert!(here.orphans_in(&news, &[ReplicaId(5)].into()).is_empty());
        let told = MemberSet { orphans: [ReplicaId(7)].into(), members: [(ReplicaId(6), let_in(7, 4))].into(), ..news };
        assert_eq!(here.orphans_in(&told, &BTreeSet::new()), [ReplicaId(6)].into(), "others may know what I do not");
    }

    #[test]
    fn a_founder_is_an_orphan_when_it_is_heard_of_together_with_one() {
        let here = set(&[(1, 1), (2, 2), (3, 3)], &[2]);
        let founder = member(3, "eu");
        assert_eq!(late(&here, &[(6, founder.clone()), (7, let_in(6, 4))]), [0; 0]);
        assert_eq!(late(&here, &[(5, let_in(2, 5)), (6, founder.clone()), (7, let_in(6, 4))]), [5, 6, 7]);
        let mut known = MemberSet { orphans: [ReplicaId(5)].into(), ..set(&[(1, 1), (3, 3)], &[]) };
        known.add(ReplicaId(5), &let_in(2, 5));
        let mut news =
            MemberSet { members: [(ReplicaId(6), founder), (ReplicaId(5), let_in(2, 5))].into(), ..known.clone() };
        assert_eq!(known.orphans_in(&news, &BTreeSet::new()), [ReplicaId(6)].into());
        assert!(known.orphans_in(&news, &[ReplicaId(5)].into()).is_empty(), "it has seen what is stable here");
        news.remove(ReplicaId(5));
        assert!(known.orphans_in(&news, &BTreeSet::new()).is_empty(), "it is fenced where the founder was");
    }

    #[test]
    fn a_founder_is_an_orphan_when_its_node_was_given_up() {
        let founder = member(2, "eu");
        assert_eq!(late(&set(&[(1, 1), (2, 2)], &[2]), &[(5, founder.clone())]), [5]);
        assert_eq!(late(&set(&[(1, 1), (2, 2)], &[]), &[(5, founder.clone())]), [0; 0], "it succeeds");
        assert_eq!(late(&set(&[(1, 1)], &[]), &[(5, founder)]), [0; 0], "nobody was met there, so nothing is stable");
    }

    #[test]
    fn who_came_after_one_that_is_folded_away_is_judged_like_a_founder() {
        let j = |ms| ReplicaId::new(NodeId(uuid::Uuid::from_u128(77 << 64)), ms);
        let s = |ms| ReplicaId::new(NodeId(uuid::Uuid::from_u128(78 << 64)), ms);
        let member = |node: u128, by| Member { sponsor: Some(by), ..member(node << 64, "eu") };
        let mut here = set(&[(1, 1)], &[]);
        here.add(j(1), &member(77, ReplicaId(1)));
        here.add(s(1), &member(78, ReplicaId(1)));
        let (mut there, removed) = (here.clone(), [j(1), s(1)]);
        assert!(removed.into_iter().all(|replica| here.remove(replica)));
        for (replica, node, by, former) in [(s(2), 78, j(1), s(1)), (j(2), 77, s(2), j(1)), (s(3), 78, j(2), s(2))] {
            there.add(replica, &member(node, by));
            there.remove(former);
            there.raise_floors();
        }
        assert!(!there.members.contains_key(&s(2)), "it let j2 in, and is folded away");
        assert_eq!(here.orphans_in(&there, &BTreeSet::new()), [j(2), s(3)].into(), "both were given up here");
        let mut waits = set(&[(1, 1)], &[]);
        waits.add(j(1), &member(77, ReplicaId(1)));
        waits.add(s(1), &member(78, ReplicaId(1)));
        assert!(waits.orphans_in(&there, &BTreeSet::new()).is_empty(), "both were waited for until now");
        assert!(set(&[(1, 1)], &[]).orphans_in(&there, &BTreeSet::new()).is_empty(), "neither was ever met");
    }

    #[test]
    fn orphans_are_told_on_and_are_news() {
        let mut here = set(&[(1, 1)], &[]);
        let news = MemberSet { orphans: [ReplicaId(1)].into(), ..MemberSet::default() };
        assert!(here.join(&news) && !here.join(&news));
        assert_eq!(here.orphans, [ReplicaId(1)].into());
    }

    #[test]
    fn whom_one_below_a_floor_let_in_is_an_orphan() {
        let mut here = of_node(&[9], &[3]);
        here.raise_floors();
        let let_in = Member { sponsor: Some(began(2)), ..member(5, "eu") };
        assert_eq!(late(&here, &[(50, let_in)]), [50]);
        let founder = Member::new(NODE, RegionId::new("eu"), 7, None);
        let news = || MemberSet { members: [(began(20), founder.clone())].into(), ..MemberSet::default() };
        assert!(here.orphans_in(&news(), &BTreeSet::new()).is_empty(), "it succeeds");
        here.remove(began(9));
        assert_eq!(here.orphans_in(&news(), &BTreeSet::new()), [began(20)].into(), "its node was given up");
    }

    #[test]
    #[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
    fn a_chain_of_sponsors_of_whatever_length_and_order_is_followed_to_its_end() {
        let here = set(&[(1, 1), (2, 2)], &[2]);
        let down: Vec<(u64, Member)> = (3..5_000).rev().map(|n| (n, let_in(n - 1, n.into()))).collect();
        assert_eq!(late(&here, &down).len(), down.len());
    }
}
