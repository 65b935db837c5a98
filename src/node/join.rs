//! Becoming a member: through one live donor, or alone when nobody is in reach.
//!
//! A joiner takes every partition in full from one member and then writes; it never waits for a
//! region that is cut off. The donor counts the joiner as a member *before* it captures the first
//! partition, and in the same report removes the earlier replica of the joiner's node, so a
//! rolling restart leaves nothing behind that blocks collection (succession).
//!
//! # Invariants
//! * Before it has joined a node originates nothing and takes in nothing but its donor's state.
//! * Of several nodes that find only each other, the lowest replica id founds. An edge does not, and nobody does who finds
//!   a member, if only an edge, which is no donor.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::{Hlc, Mono, Now};
use crate::crdt::{Ctx, Member, MemberSet};
use crate::id::{NodeId, PartitionId, ReplicaId, Role};
use crate::node::Node;
use crate::node::event::Event;
use crate::node::input::LinkId;
use crate::node::link::{Session, spread};
use crate::probe::{planted, sometimes};
use crate::store::Full;
use crate::wire::Control;

/// Returns that lengthen the search for a donor: with the default of 2 s it takes 16 s at most, several times what a member
/// that dials late takes.
const RETURNS_MAX: u32 = 7;

/// How far a node has come in joining.
#[derive(Debug)]
pub(super) enum Join {
    /// Looking for a donor since then.
    Seeking { since: Option<Mono> },
    /// Receiving from a donor.
    Receiving { donor: LinkId, sponsor: ReplicaId, got: BTreeSet<PartitionId>, resumed: Resumed, done: bool },
    /// Joined.
    Joined,
}

/// What is not copied again from a second donor.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// Partitions a former donor had given.
    had: BTreeSet<PartitionId>,
    /// What is to be seen of those of which the present one sends what is missing.
    until: Vec<(PartitionId, Ctx)>,
}

impl Join {
    /// Tells whether what is missing of a partition may come bit by bit: it was copied before.
    pub(super) fn resumes(&self, partition: PartitionId) -> bool {
        matches!(self, Self::Receiving { resumed, .. } if resumed.had.contains(&partition))
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self, Self::Joined)
    }

    pub(super) fn is_donor(&self, link: LinkId) -> bool {
        matches!(self, Self::Receiving { donor, .. } if *donor == link)
    }
}

impl Node {
    /// Looks for a donor, or founds; called whenever the answer may have changed.
    pub(super) fn seek(&mut self, now: Now) {
        if self.is_removed() {
            return;
        }
        let since = match &mut self.join {
            Join::Joined => return,
            Join::Receiving { donor, .. } if self.links.contains_key(donor) => return,
            Join::Receiving { .. } => {
                sometimes!(DonorLost);
                self.hearsay.join(&std::mem::take(&mut self.members));
                self.untended = true;
                now.mono
            }
            Join::Seeking { since } => *since.get_or_insert(now.mono),
        };
        self.join = Join::Seeking { since: Some(since) };
        let waited = now.mono.since(since) >= self.founds_after();
        let (own, other) = (self.donor_that(true), self.donor_that(false));
        if let Some((donor, sponsor)) = other.or_else(|| own.filter(|_| waited)) {
            sometimes!(OriginalIsDonor, if other.is_none());
            let ctxs = self.contexts();
            let resumed = Resumed { had: ctxs.iter().map(|(id, _)| *id).collect(), until: Vec::new() };
            self.join = Join::Receiving { donor, sponsor, got: BTreeSet::new(), resumed, done: false };
            self.send_control(donor, &Control::Join { ctxs });
            return;
        }
        let edges_only = self.sessions().any(|(_, s)| s.joined) && !planted!(FoundsBesideEdge);
        sometimes!(EdgeIsNoDonor, if edges_only);
        if edges_only || own.is_some() || (self.is_edge() && !planted!(EdgeFounds)) {
            return;
        }
        let lowest = self.sessions().filter(|(_, s)| !s.is_edge).all(|(_, s)| self.me.replica < s.replica);
        let enough = self.sessions().filter(|(_, s)| !s.is_edge).count() + 1 >= self.config.membership.expected_nodes;
        let complete = enough && self.slots.all_met(|node| self.is_connected(node));
        sometimes!(LowerLeftToFound, if waited && !lowest);
        let clock_is_off = self.slots.majority_refuses() || self.slots.is_kept_out();
        sometimes!(FoundingRefusedForClock, if waited && lowest && clock_is_off);
        if lowest && (complete || waited) && !clock_is_off {
            sometimes!(FoundedAlone, if !self.slots.is_empty() && self.sessions().next().is_none());
            sometimes!(FoundedOfSome, if !complete && self.sessions().next().is_some());
            sometimes!(FoundedOfAll, if complete && !self.slots.is_empty());
            self.finish_join(now, true);
        }
    }

    /// Returns a member that gives everything, and that is, or is not, another process of this very node.
    fn donor_that(&self, is_own: bool) -> Option<(LinkId, ReplicaId)> {
        let is_whole = |s: &Session| !s.is_edge || planted!(EdgeIsDonor);
        let is_it = |id: &LinkId| self.links.get(id).is_some_and(|l| (l.identity.node == self.me.node) == is_own);
        let mut donors = self.sessions().filter(|(_, s)| s.joined && is_whole(s)).map(|(id, s)| (id, s.replica));
        donors.find(|(id, _)| is_it(id))
    }

    /// Returns the link to the member this node is copying.
    #[must_use]
    pub fn donor(&self) -> Option<LinkId> {
        match &self.join {
            Join::Receiving { donor, .. } => Some(*donor),
            Join::Seeking { .. } | Join::Joined => None,
        }
    }

    /// Returns when this node stops waiting for a donor.
    pub(super) fn solo_deadline(&self) -> Option<Mono> {
        match &self.join {
            Join::Seeking { since } => since.map(|at| at.plus(self.founds_after())),
            Join::Receiving { .. } | Join::Joined => None,
        }
    }

    /// Returns how long a donor is looked for. Who comes back was removed by somebody: there is a cluster, and a member that
    /// dials late must not find one that has founded again.
    fn founds_after(&self) -> Duration {
        self.config.membership.solo_after.saturating_mul(1 + self.past.returns().min(RETURNS_MAX))
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.links.values().any(|l| l.session.is_some() && l.identity.node == node)
    }

    /// A peer asks this node to be its donor.
    pub(super) fn on_join(&mut self, now: Now, link: LinkId, ctxs: Vec<(PartitionId, Ctx)>) {
        let is_edge = self.is_edge() && !planted!(EdgeIsDonor);
        if !self.join.is_joined() || is_edge || self.sends_back(link) || self.refuses_history(now, link, &ctxs) {
            return;
        }
        let Some(l) = self.links.get_mut(&link) else { return };
        let mut member = Member::new(l.identity.node, l.identity.region.clone(), l.hello_ms, Some(self.me.replica));
        let Some(session) = l.session.as_deref_mut() else { return };
        if session.is_edge {
            // Before it says so itself: its copy counts for nothing from the first.
            (member.profile.role, member.profile.is_edge) = (Role::Edge, true);
        }
        session.donated = true;
        let joiner = session.replica;
        let mut news = MemberSet::default();
        news.add(joiner, &member);
        // Its own original gives everything first, and makes way when that has come.
        let stays = |r: &ReplicaId| *r == joiner || *r == self.me.replica;
        let old: Vec<ReplicaId> = self.members.of_node(member.node).filter(|r| !stays(r)).collect();
        sometimes!(Succession, if !old.is_empty());
        sometimes!(TwoJoinersAtOnce, if self.sessions().filter(|(_, s)| s.donated && !s.joined).count() > 1);
        old.into_iter().for_each(|r| {
            news.remove(r);
        });
        if !planted!(JoinerCountedLate) {
            self.on_members(now, &news);
        }
        if member.node == self.me.node {
            self.let_twin_in(now, joiner);
        }
        let resumed = self.give_all(link, ctxs);
        self.pump(link);
        self.report(now);
        let hlc = self.store.clock().last();
        self.send_control(link, &Control::JoinDone { hlc, resumed });
    }

    /// Gives a joiner everything: in full, or of what a former donor gave it what is missing, if the log still names that
    /// and everything it has is known here. Returns what it has then of the latter.
    fn give_all(&mut self, link: LinkId, ctxs: Vec<(PartitionId, Ctx)>) -> Vec<(PartitionId, Ctx)> {
        let (count, mut resumed) = (self.store.partition_count(), Vec::new());
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return resumed };
        for (id, theirs) in self.store.partition_ids().zip(spread(count, ctxs)) {
            let Some(mine) = self.store.read(id).filter(|p| {
                let has_floor = theirs.includes(p.floor()) || planted!(ResumedBelowFloor);
                theirs.iter().next().is_some() && has_floor && p.ctx().includes(&theirs)
            }) else {
                session.peer.synchronise(id);
                continue;
            };
            sometimes!(JoinResumed);
            let until = mine.ctx().without_marks();
            drop(mine);
            session.peer.report(id, &theirs);
            session.peer.resume(id);
            resumed.push((id, until));
        }
        resumed
    }

    pub(super) fn on_join_done(&mut self, now: Now, link: LinkId, hlc: Hlc, until: Vec<(PartitionId, Ctx)>) {
        if self.check_clock(now, hlc.ms()).is_ok() {
            self.store.clock().observe(hlc);
        }
        if let Join::Receiving { donor, sponsor, resumed, done, .. } = &mut self.join
            && *donor == link
        {
            *done = true;
            if !until.is_empty() {
                self.copied_from = Some(*sponsor);
                resumed.until = until;
            }
        }
        self.try_finish(now);
    }

    /// A partition came in full from the donor.
    pub(super) fn on_received(&mut self, now: Now, partition: PartitionId) {
        if let Join::Receiving { got, sponsor, .. } = &mut self.join {
            got.insert(partition);
            self.copied_from = Some(*sponsor);
        }
        self.try_finish(now);
    }

    pub(super) fn try_finish(&mut self, now: Now) {
        let Join::Receiving { got, resumed, done: true, .. } = &self.join else { return };
        let has = |(id, until): &&(PartitionId, Ctx)| self.store.read(*id).is_some_and(|p| p.ctx().includes(until));
        let level = resumed.until.iter().filter(|(id, _)| !got.contains(id)).filter(has).count();
        if got.len() + level == self.store.partition_count() || planted!(JoinedHalfway) {
            self.finish_join(now, false);
        }
    }

    /// Refuses a donor that has forgotten what a former donor of mine, which died, has never heard of: of what I copied
    /// there I cannot tell what was deleted since. So it is with one that has seen other events of a removed replica than
    /// those the other has folded. I have written nothing, so I begin again under another id.
    pub(super) fn mixes_donors(&mut self, now: Now, full: &Full) -> bool {
        let differ = |mine: &Ctx| {
            let theirs = &full.batch.ctx;
            let folded_otherwise = !(theirs.fits_marks_of(mine) && mine.fits_marks_of(theirs));
            let lacks = !mine.includes(&full.frontier) && !theirs.includes(mine);
            mine.iter().next().is_some() && (folded_otherwise || lacks)
        };
        let mixed = !self.join.is_joined() && self.store.read(full.batch.partition).is_some_and(|p| differ(p.ctx()));
        if mixed && !planted!(OrphansTrusted) {
            self.begin_again(now);
            return true;
        }
        false
    }

    /// Ends this replica: what it has may be what others deleted and forgot, and nobody can tell. Its node comes back under
    /// another id.
    pub(super) fn begin_again(&mut self, now: Now) {
        sometimes!(BeganAgain);
        let mut news = MemberSet::default();
        news.orphans.insert(self.me.replica);
        news.remove(self.me.replica);
        self.on_members(now, &news);
    }

    fn finish_join(&mut self, now: Now, founded: bool) {
        self.join = Join::Joined;
        self.tell_members();
        self.begin_keeping();
        let sponsor = self.copied_from;
        let mut own = MemberSet::default();
        let (node, region) = (self.me.node, self.me.region.clone());
        let profile = self.profile(1);
        own.add(self.me.replica, &Member { profile, ..Member::new(node, region, now.wall_ms, sponsor) });
        self.on_members(now, &own);
        let hearsay = std::mem::take(&mut self.hearsay);
        self.on_members(now, &hearsay);
        self.past.joined(now.mono);
        self.watch_older_twin(now);
        self.reissue(now, founded);
        self.set_gate();
        self.event(Event::Joined { founded });
        let ready = self.ready();
        let links: Vec<(LinkId, ReplicaId, bool)> = self.sessions().map(|(id, s)| (id, s.replica, s.joined)).collect();
        for (link, replica, joined) in links {
            self.send_control(link, &ready);
            if joined {
                self.meet(now, link, replica, false);
            }
        }
    }

    /// Both sides have joined.
    pub(super) fn meet(&mut self, now: Now, link: LinkId, replica: ReplicaId, rival: bool) {
        let Some(node) = self.links.get(&link).map(|l| l.identity.node) else { return };
        if node == self.me.node {
            self.meet_twin(now, replica);
        } else {
            self.settle_copies(now, node, replica, rival);
        }
        self.start_session(now, link);
    }

    /// Returns the message that tells a peer that this node has joined.
    pub(super) fn ready(&self) -> Control {
        Control::Ready { members: self.members.clone(), ctxs: self.contexts() }
    }

    /// A peer has joined.
    pub(super) fn on_ready(&mut self, now: Now, link: LinkId, members: &MemberSet, ctxs: Vec<(PartitionId, Ctx)>) {
        let count = self.store.partition_count();
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return };
        session.joined = true;
        for (id, ctx) in self.store.partition_ids().zip(spread(count, ctxs)) {
            session.peer.report(id, &ctx);
        }
        session.peer.begin();
        let replica = session.replica;
        self.hear(now, link, members);
        if self.join.is_joined() {
            self.meet(now, link, replica, false);
        }
        self.seek(now);
    }
}
