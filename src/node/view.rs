//! The cluster as one node sees it: members, whether they can be reached, and their regions.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Mono;
use crate::crdt::Member;
use crate::id::{NodeId, RegionId, ReplicaId, Role};
use crate::membership::status::{BUSY_OVER, LATE_OVER};
use crate::membership::{Reach, Recovery, Status};
use crate::node::Node;
use crate::node::expiry::Expiry;
use crate::node::link::{Link, Session};
use crate::node::missing::Here;
use crate::store::Gate;

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
    /// Where it says it can be dialled, as `host:port`, the best first; nothing if it has not said so.
    pub addresses: Vec<String>,
    /// It is this node.
    pub is_me: bool,
    /// Whether it can be reached. This node always can; every other one is suspected where this node has not joined and has
    /// no link to it, or was removed ([`ClusterView::belonging`]).
    pub reach: Reach,
    /// What part it plays, as it has said last.
    pub role: Role,
    /// It takes writes. Of another member this is what its role says. This node knows better of itself: it takes none
    /// before it has joined, and while a majority of its peers refuses its clock.
    pub takes_writes: bool,
    /// It is this node, and hears none of several other members.
    pub isolated: bool,
    /// Smoothed round trip, once measured on a link that is up.
    pub rtt: Option<Duration>,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: Option<i64>,
    /// The most milliseconds one of its writes took to get here in the last ten to twenty seconds; or for how long something
    /// has been looked for that it says it has written, if that is longer; 0 if neither is known of, as of this node. What
    /// is in quarantine counts as come. `None` without a link: then nothing is known.
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
    /// One of those that are up takes writes; if none is up, one of those that are not unreachable.
    pub takes_writes: bool,
    /// Nobody in it is up but this node, which is isolated.
    pub isolated: bool,
    /// Round trip to the nearest of them.
    pub rtt: Option<Duration>,
    /// The least of the lags of those that are up and play that part, in milliseconds, as far as any is known.
    pub lag_ms: Option<u64>,
    /// The least of the loads of those that are up and play that part, in percent: one of them has room.
    pub load: Option<u8>,
    /// How well its best member serves.
    pub status: Status,
    /// What it has been since it was out, if it ever was as far as this node remembers: all its members behind a cut or
    /// unreachable, or without any.
    pub recovery: Option<Recovery>,
}

/// Whether this node belongs to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Belonging {
    /// Not yet: it is about to join, or to join again as another replica. So it is after a shutdown.
    #[default]
    Outside,
    /// It is a member.
    Member,
    /// No longer: its replica was removed, or has left. It hears nobody, so who can be reached is not known here.
    Removed,
}

/// The cluster as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ClusterView {
    /// When it was so, by this node's monotonic clock.
    pub at: Mono,
    /// Whether this node belongs to it.
    pub belonging: Belonging,
    /// None of several other members is heard: those that were heard until then are suspected, and nothing else is known.
    pub isolated: bool,
    /// All members, in order of replica id.
    pub members: Vec<MemberView>,
    /// The regions that were out at some time, present or not, and what each has been since.
    pub recoveries: BTreeMap<RegionId, Recovery>,
}

impl MemberView {
    /// Returns how it serves, in one word.
    #[must_use]
    pub fn status(&self) -> Status {
        let is_late = self.lag_ms.is_some_and(|ms| Duration::from_millis(ms) > LATE_OVER);
        let is_busy = self.load.is_some_and(|load| load > BUSY_OVER);
        let refuses = match self.role {
            Role::Active | Role::Edge => !self.takes_writes,
            Role::Standby | Role::Draining => false,
        };
        match self.reach {
            Reach::Up if is_late || is_busy || refuses || self.isolated => Status::Degraded,
            Reach::Up => Status::Well,
            Reach::Suspected | Reach::Cut => Status::Degraded,
            Reach::Unreachable => Status::Failed,
        }
    }
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
        let mut regions: BTreeMap<&RegionId, Vec<&MemberView>> = BTreeMap::new();
        for member in &self.members {
            regions.entry(&member.region).or_default().push(member);
        }
        regions.into_iter().map(|(region, members)| self.region(region, &members)).collect()
    }

    fn region(&self, region: &RegionId, members: &[&MemberView]) -> RegionView {
        let all = || members.iter().copied();
        let reach = all().map(|member| member.reach).min().unwrap_or(Reach::Unreachable);
        let best = all().map(|member| (member.reach == Reach::Unreachable, member.role)).min();
        let role = best.map_or(Role::Draining, |(_, role)| role);
        let up = || all().filter(|member| member.reach == Reach::Up);
        let serving = || up().filter(|member| member.role == role);
        let counts = |member: &&MemberView| {
            let is_up = member.reach == Reach::Up;
            if reach == Reach::Up { is_up } else { member.reach != Reach::Unreachable }
        };
        RegionView {
            region: region.clone(),
            members: members.len(),
            up: up().count(),
            reach,
            role,
            takes_writes: all().filter(counts).any(|member| member.takes_writes),
            isolated: reach == Reach::Up && up().all(|member| member.isolated),
            rtt: all().filter_map(|member| if member.is_me { Some(Duration::ZERO) } else { member.rtt }).min(),
            lag_ms: serving().filter_map(|member| member.lag_ms).min(),
            load: serving().filter_map(|member| member.load).min(),
            status: all().map(MemberView::status).min().unwrap_or(Status::Failed),
            recovery: self.recoveries.get(region).copied(),
        }
    }
}

impl Node {
    /// Returns the cluster as this node sees it.
    #[must_use]
    pub fn cluster(&self) -> ClusterView {
        let belonging = self.belonging();
        ClusterView {
            at: self.last,
            belonging,
            isolated: belonging == Belonging::Member && self.is_isolated(),
            members: self.members.live().map(|(replica, member)| self.view_of(replica, member)).collect(),
            recoveries: self.outages.recoveries(),
        }
    }

    fn belonging(&self) -> Belonging {
        if self.is_removed() {
            Belonging::Removed
        } else if self.join.is_joined() {
            Belonging::Member
        } else {
            Belonging::Outside
        }
    }

    fn view_of(&self, replica: ReplicaId, member: &Member) -> MemberView {
        let is_me = replica == self.me.replica;
        let mut links = self.links.values().filter_map(|link| Some((link, link.session.as_deref()?)));
        let linked = links.find(|(_, session)| session.replica == replica);
        let own_expiry = self.expiry.as_ref().map(Expiry::at_ms);
        let by_role = match member.profile.role {
            Role::Active | Role::Edge => true,
            Role::Standby | Role::Draining => false,
        };
        MemberView {
            node: member.node,
            region: member.region.clone(),
            replica,
            addresses: member.profile.addresses.clone(),
            is_me,
            reach: if is_me { Reach::Up } else { self.shown_reach(replica, linked) },
            role: member.profile.role,
            takes_writes: if is_me { self.store.gate() == Gate::Open } else { by_role },
            isolated: is_me && self.is_isolated(),
            rtt: linked.and_then(|(_, session)| session.beats.rtt()),
            skew_ms: linked.and_then(|(_, session)| session.beats.skew_ms()),
            lag_ms: if is_me { Some(0) } else { linked.map(|(_, session)| self.lag_of(session)) },
            load: if is_me { self.load } else { linked.and_then(|(_, session)| session.load) },
            certificate_expires_ms: if is_me { own_expiry } else { linked.map(|(link, _)| link.identity.expires_ms) },
        }
    }

    /// Who is no member judges nobody: before it has joined it goes by its links, and after it was removed it has none.
    fn shown_reach(&self, replica: ReplicaId, linked: Option<(&Link, &Session)>) -> Reach {
        match self.belonging() {
            Belonging::Member => self.reach(replica).unwrap_or_default(),
            Belonging::Outside if linked.is_some_and(|(_, session)| session.up) => Reach::Up,
            Belonging::Outside | Belonging::Removed => Reach::Suspected,
        }
    }

    fn lag_of(&self, session: &Session) -> u64 {
        let here = Here { store: &self.store, quarantine: &self.quarantine };
        let recent = session.recent_lag.longest_ms(self.last);
        recent.max(session.missing.lag_ms(self.last, &here)).unwrap_or(0)
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
            addresses: Vec::new(),
            is_me: n == 1,
            reach,
            role: Role::Active,
            takes_writes: true,
            isolated: false,
            rtt: rtt_ms.map(Duration::from_millis),
            skew_ms: None,
            lag_ms: None,
            load: None,
            certificate_expires_ms: None,
        }
    }

    fn of(members: Vec<MemberView>) -> ClusterView {
        ClusterView { members, ..ClusterView::default() }
    }

    fn only(members: Vec<MemberView>) -> RegionView {
        of(members).regions().pop().unwrap()
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
        let view = of(members);
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
        let load = |members: Vec<MemberView>| of(members).regions().first().and_then(|r| r.load);
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
        let role = |members: Vec<MemberView>| of(members).regions().first().map(|r| r.role);
        let gone = with(1, Reach::Unreachable, Role::Active);
        assert_eq!(role(vec![gone.clone(), with(2, Reach::Suspected, Role::Standby)]), Some(Role::Standby));
        assert_eq!(
            role(vec![with(2, Reach::Up, Role::Draining), with(3, Reach::Cut, Role::Active)]),
            Some(Role::Active)
        );
        assert_eq!(role(vec![with(2, Reach::Unreachable, Role::Standby), gone]), Some(Role::Active));
    }

    #[test]
    fn a_region_lags_as_the_least_late_of_those_that_serve_and_are_known() {
        let with = |n, reach, role, lag_ms| MemberView { role, lag_ms, ..member(n, "eu", reach, None) };
        let stalled = with(2, Reach::Up, Role::Active, Some(5_000));
        let quiet = with(3, Reach::Up, Role::Active, Some(0));
        let unknown = with(4, Reach::Up, Role::Active, None);
        let silent = with(5, Reach::Suspected, Role::Active, Some(0));
        let standby = with(6, Reach::Up, Role::Standby, Some(0));
        assert_eq!(only(vec![stalled.clone(), unknown.clone(), silent, standby]).lag_ms, Some(5_000));
        assert_eq!(only(vec![stalled, quiet]).lag_ms, Some(0));
        assert_eq!(only(vec![unknown]).lag_ms, None);
    }

    #[test]
    fn a_region_takes_writes_if_one_that_is_up_does_and_is_alone_if_nobody_else_is_up() {
        let me = MemberView { takes_writes: false, isolated: true, ..member(1, "us", Reach::Up, None) };
        let with = |reach| member(2, "us", reach, None);
        let says = |members: Vec<MemberView>| {
            let region = only(members);
            (region.takes_writes, region.isolated, region.status)
        };
        assert_eq!(says(vec![me.clone(), with(Reach::Suspected)]), (false, true, Status::Degraded));
        assert_eq!(says(vec![me, with(Reach::Up)]), (true, false, Status::Well));
        assert_eq!(says(vec![with(Reach::Suspected)]), (true, false, Status::Degraded));
        assert_eq!(says(vec![with(Reach::Unreachable)]), (false, false, Status::Failed));
    }

    #[test]
    fn a_status_is_what_is_worst_of_a_member() {
        let well = member(2, "eu", Reach::Up, None);
        let status = |change: &dyn Fn(&mut MemberView)| {
            let mut member = well.clone();
            change(&mut member);
            member.status()
        };
        assert_eq!(status(&|m| (m.load, m.lag_ms) = (Some(90), Some(2_000))), Status::Well);
        assert_eq!(status(&|m| (m.role, m.takes_writes) = (Role::Standby, false)), Status::Well);
        assert_eq!(status(&|m| m.load = Some(91)), Status::Degraded);
        assert_eq!(status(&|m| m.lag_ms = Some(2_001)), Status::Degraded);
        assert_eq!(status(&|m| m.takes_writes = false), Status::Degraded);
        assert_eq!(status(&|m| m.isolated = true), Status::Degraded);
        assert_eq!(status(&|m| m.reach = Reach::Cut), Status::Degraded);
        assert_eq!(status(&|m| m.reach = Reach::Unreachable), Status::Failed);
    }
}
