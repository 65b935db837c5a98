//! The cluster as one node sees it: members, whether they can be reached, and their regions.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{NodeId, RegionId, ReplicaId, Role};
use crate::membership::Reach;
use crate::node::Node;
use crate::node::expiry::Expiry;
use crate::node::link::Session;
use crate::node::missing::Here;

/// A member as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemberView {
    /// Its node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// Its running copy.
    pub replica: ReplicaId,
    /// It is this node.
    pub is_me: bool,
    /// Whether it can be reached; this node always can.
    pub reach: Reach,
    /// What part it plays, as it has said last.
    pub role: Role,
    /// Smoothed round trip, once measured on a link that is up.
    pub rtt: Option<Duration>,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: Option<i64>,
    /// The most milliseconds one of its writes took to get here in the last ten to twenty seconds, if any came; or for how
    /// long something has been looked for that it says it has written, if that is longer. What is in quarantine counts as come.
    pub lag_ms: Option<u64>,
    /// How busy the service around it is, in percent, if it has said so.
    pub load: Option<u8>,
    /// When the certificate it showed when its link came up expires, in Unix milliseconds; of this node, its own of now.
    pub certificate_expires_ms: Option<u64>,
}

/// A region as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RegionView {
    /// Its name.
    pub region: RegionId,
    /// Members in it.
    pub members: usize,
    /// Members of it that can be reached directly.
    pub up: usize,
    /// The best that is known of any of its members: a region is unreachable when all of them are.
    pub reach: Reach,
    /// The best part that any of those plays that are not unreachable, or if all are, any at all.
    pub role: Role,
    /// Round trip to the nearest of them.
    pub rtt: Option<Duration>,
    /// The least of their lags, in milliseconds.
    pub lag_ms: Option<u64>,
    /// The least of the loads of those that are up and play that part, in percent: one of them has room.
    pub load: Option<u8>,
}

/// The cluster as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ClusterView {
    /// None of several other members is heard: those that were heard until then are suspected, and nothing else is known.
    pub isolated: bool,
    /// All members, in order of replica id.
    pub members: Vec<MemberView>,
}

impl ClusterView {
    /// Returns the member of a replica id.
    #[must_use]
    pub fn member(&self, replica: ReplicaId) -> Option<&MemberView> {
        self.members.iter().find(|member| member.replica == replica)
    }

    /// Returns the regions, in order of their names.
    #[must_use]
    pub fn regions(&self) -> Vec<RegionView> {
        let mut regions: BTreeMap<&RegionId, RegionView> = BTreeMap::new();
        for member in &self.members {
            let region = regions.entry(&member.region).or_insert_with(|| RegionView {
                region: member.region.clone(),
                members: 0,
                up: 0,
                reach: Reach::Unreachable,
                role: Role::Draining,
                rtt: None,
                lag_ms: None,
                load: None,
            });
            region.members += 1;
            region.up += usize::from(member.reach == Reach::Up);
            let known = (region.reach == Reach::Unreachable, region.role);
            let (_, role) = known.min((member.reach == Reach::Unreachable, member.role));
            region.role = role;
            region.reach = region.reach.min(member.reach);
            let own = member.is_me.then_some(Duration::ZERO);
            region.rtt = region.rtt.into_iter().chain(own).chain(member.rtt).min();
            region.lag_ms = region.lag_ms.into_iter().chain(member.lag_ms).min();
        }
        let mut regions: Vec<RegionView> = regions.into_values().collect();
        for region in &mut regions {
            let serves = |m: &&MemberView| m.region == region.region && m.role == region.role && m.reach == Reach::Up;
            region.load = self.members.iter().filter(serves).filter_map(|member| member.load).min();
        }
        regions
    }
}

impl Node {
    /// Returns the cluster as this node sees it.
    #[must_use]
    pub fn cluster(&self) -> ClusterView {
        let session = |replica| {
            let mut links = self.links.values().filter_map(|link| Some((link, link.session.as_deref()?)));
            links.find(|(_, session)| session.replica == replica)
        };
        let own_expiry = self.expiry.as_ref().map(Expiry::at_ms);
        let view = |(replica, member): (ReplicaId, &crate::crdt::Member)| {
            let is_me = replica == self.me.replica;
            let linked = session(replica);
            MemberView {
                node: member.node,
                region: member.region.clone(),
                replica,
                is_me,
                reach: if is_me { Reach::Up } else { self.reach(replica).unwrap_or_default() },
                role: member.profile.role,
                rtt: linked.and_then(|(_, session)| session.beats.rtt()),
                skew_ms: linked.and_then(|(_, session)| session.beats.skew_ms()),
                lag_ms: linked.and_then(|(_, session)| self.lag_of(session)),
                load: if is_me { self.load } else { linked.and_then(|(_, session)| session.load) },
                certificate_expires_ms: if is_me {
                    own_expiry
                } else {
                    linked.map(|(link, _)| link.identity.expires_ms)
                },
            }
        };
        ClusterView { isolated: self.is_isolated(), members: self.members.live().map(view).collect() }
    }

    fn lag_of(&self, session: &Session) -> Option<u64> {
        let here = Here { store: &self.store, quarantine: &self.quarantine };
        session.recent_lag.longest_ms(self.last).max(session.missing.lag_ms(self.last, &here))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u64, region: &str, reach: Reach, rtt_ms: Option<u64>) -> MemberView {
        MemberView {
            node: NodeId(uuid::Uuid::from_u128(n.into())),
            region: RegionId::new(region),
            replica: ReplicaId(n),
            is_me: n == 1,
            reach,
            role: Role::Active,
            rtt: rtt_ms.map(Duration::from_millis),
            skew_ms: None,
            lag_ms: None,
            load: None,
            certificate_expires_ms: None,
        }
    }

    #[test]
    fn a_region_is_as_reachable_and_as_near_as_its_best_member() {
        let members = vec![
            member(1, "us", Reach::Up, None),
            member(2, "eu", Reach::Unreachable, None),
            member(3, "eu", Reach::Up, Some(90)),
            member(4, "eu", Reach::Up, Some(80)),
            member(5, "ap", Reach::Unreachable, None),
            member(6, "ap", Reach::Cut, None),
            member(7, "sa", Reach::Unreachable, None),
        ];
        let view = ClusterView { isolated: false, members };
        let seen: Vec<_> = view
            .regions()
            .into_iter()
            .map(|r| (r.region.as_str().to_owned(), r.up, r.members, r.reach, r.rtt.map(|rtt| rtt.as_millis())))
            .collect();
        let region = |name: &str, up, members, reach, rtt| (name.to_owned(), up, members, reach, rtt);
        assert_eq!(
            seen,
            [
                region("ap", 0, 2, Reach::Cut, None),
                region("eu", 2, 3, Reach::Up, Some(80)),
                region("sa", 0, 1, Reach::Unreachable, None),
                region("us", 1, 1, Reach::Up, Some(0)),
            ]
        );
        assert_eq!(view.member(ReplicaId(6)).map(|m| m.reach), Some(Reach::Cut));
    }

    #[test]
    fn a_region_is_as_busy_as_the_least_busy_of_those_that_serve() {
        let with = |n, reach, role, load| MemberView { role, load, ..member(n, "eu", reach, None) };
        let load =
            |members: Vec<MemberView>| ClusterView { isolated: false, members }.regions().first().and_then(|r| r.load);
        let busy = with(1, Reach::Up, Role::Active, Some(95));
        let others = vec![
            with(2, Reach::Up, Role::Standby, Some(2)),
            with(3, Reach::Up, Role::Draining, Some(1)),
            with(4, Reach::Unreachable, Role::Active, Some(3)),
            with(5, Reach::Up, Role::Active, None),
        ];
        assert_eq!(load([vec![busy.clone()], others.clone()].concat()), Some(95));
        assert_eq!(load([vec![busy, with(6, Reach::Up, Role::Active, Some(40))], others].concat()), Some(40));
    }

    #[test]
    fn a_region_plays_the_best_part_of_those_that_can_be_reached() {
        let with = |n, reach, role| MemberView { role, ..member(n, "eu", reach, None) };
        let role =
            |members: Vec<MemberView>| ClusterView { isolated: false, members }.regions().first().map(|r| r.role);
        let gone = with(1, Reach::Unreachable, Role::Active);
        assert_eq!(role(vec![gone.clone(), with(2, Reach::Suspected, Role::Standby)]), Some(Role::Standby));
        assert_eq!(
            role(vec![with(2, Reach::Up, Role::Draining), with(3, Reach::Cut, Role::Active)]),
            Some(Role::Active)
        );
        assert_eq!(role(vec![with(2, Reach::Unreachable, Role::Standby), gone]), Some(Role::Active));
    }
}
