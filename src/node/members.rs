//! Who is a member: what peers say of that, whose copies of a node are meant, and who is removed.
//!
//! # Invariants
//! * A removed replica is neither waited for nor heard again (R-FENCE); a removed node says so as its last word.
//! * Nobody judges an orphan but by what is stable here (R-ORPHAN), and no edge does, nor does anybody go by its word.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Now;
use crate::crdt::{Member, MemberSet};
use crate::id::{NodeId, ReplicaId, Role};
use crate::node::Node;
use crate::node::event::{Departure, Event};
use crate::node::input::LinkId;
use crate::node::link::{Link, Session};
use crate::node::output::{CloseCode, Output};
use crate::probe::{planted, sometimes};

/// How long a link must be up before what it carries is no leftover of a process that has ended.
pub(super) const COPIES_AFTER: Duration = Duration::from_secs(5);

impl Node {
    /// Takes in what a peer says of members. What is stable here when this node has joined is what its donor found stable,
    /// with the members its donor knew of: whoever others name is heard of after that.
    pub(super) fn hear(&mut self, now: Now, link: LinkId, news: &MemberSet) {
        if !self.respects(now, news) {
            return;
        }
        let from_edge = self.links.get(&link).and_then(|l| l.session.as_deref()).is_some_and(|s| s.is_edge);
        if !from_edge && self.is_orphan_of(news) {
            return self.begin_again(now);
        }
        if self.join.is_joined() || self.join.is_donor(link) || news.was_removed(self.me.replica) {
            self.on_members(now, news);
        } else {
            self.untended |= self.hearsay.join(news);
        }
    }

    /// Takes in what is known of members: who joined, and who was removed for ever.
    pub(super) fn on_members(&mut self, now: Now, news: &MemberSet) {
        let before = self.members.clone();
        let judges = !self.is_edge();
        let late = if judges { self.members.orphans_in(news, &self.cleared) } else { BTreeSet::new() };
        if !self.members.join(news) {
            return;
        }
        sometimes!(OrphanMet, if !late.is_empty());
        self.members.doubt(late);
        self.raise_floors();
        self.members_version += 1;
        self.untended = true;
        let joined: Vec<ReplicaId> = self.members.live().map(|(r, _)| r).filter(|r| before.get(*r).is_none()).collect();
        for replica in joined {
            self.lived.insert(replica);
            if let Some(event) = self.arrival(replica) {
                self.tell_of(event);
            }
        }
        self.tell_roles(&before);
        for replica in self.newly_removed(&before) {
            if let Some(event) = self.departure(&before, replica) {
                self.tell_of(event);
            }
            self.on_removed(now, replica);
        }
        self.forget_the_folded();
        self.respects(now, news);
        let done = self.waits.check_all(&self.store, &self.members, self.expected());
        sometimes!(WaitReachedByRemoval, if !done.is_empty());
        self.resolve(done);
        self.timers.start_report(now.mono, self.config.replication.report_every);
    }

    /// Tells who the members are, which nobody is told before this node has joined: another donor may know of others.
    pub(super) fn tell_members(&mut self) {
        let told: Vec<Event> = self.members.live().filter_map(|(replica, _)| self.arrival(replica)).collect();
        told.into_iter().for_each(|event| self.event(event));
        self.tell_roles(&MemberSet::default());
    }

    fn tell_of(&mut self, event: Event) {
        if self.join.is_joined() {
            self.event(event);
        }
    }

    fn arrival(&self, replica: ReplicaId) -> Option<Event> {
        let member = self.members.get(replica)?;
        Some(Event::MemberJoined { node: member.node, region: member.region.clone(), replica })
    }

    /// Returns how one that was a member `before` went. Of whom nothing was known nothing is told.
    fn departure(&self, before: &MemberSet, replica: ReplicaId) -> Option<Event> {
        let member = before.get(replica)?;
        let (node, region) = (member.node, member.region.clone());
        let how = if self.members.of_node(node).next().is_some() {
            Departure::Succeeded
        } else if self.members.members.get(&replica).is_some_and(|member| member.profile.left) {
            Departure::Left
        } else {
            Departure::Removed
        };
        Some(Event::MemberRemoved { node, region, replica, how })
    }

    /// Tells who plays another part than `before`.
    fn tell_roles(&mut self, before: &MemberSet) {
        if !self.join.is_joined() {
            return;
        }
        let was = |replica| before.get(replica).map_or(Role::Active, |member| member.profile.role);
        let changed = self.members.live().filter(|(replica, member)| member.profile.role != was(*replica));
        let told = |(replica, member): (ReplicaId, &Member)| {
            let (node, region, role) = (member.node, member.region.clone(), member.profile.role);
            Output::Event(Event::RoleChanged { node, region, replica, role })
        };
        self.out.extend(changed.map(told));
    }

    /// R-ORPHAN: of members that were heard of too late, removes those that have not seen all that is stable here. What
    /// they bring may be what was deleted and forgotten here without them. Returns whether the peer on `link` is one. An edge
    /// removes nobody: it makes way.
    pub(super) fn fence_orphans(&mut self, now: Now, link: LinkId) -> bool {
        if self.members.orphans.is_empty() || self.is_edge() || planted!(OrphansTrusted) {
            return false;
        }
        // Who was cleared is a member like any other since, and nothing becomes stable without it.
        let is_open = |replica| self.members.orphans.contains(replica) && !self.cleared.contains(replica);
        let orphans = self.sessions().filter(|(_, s)| s.joined && is_open(&s.replica));
        let fits = |session: &Session| self.has_what_is_stable(session) && self.fits_what_is_folded(session);
        let (cleared, behind): (Vec<_>, Vec<_>) =
            orphans.map(|(id, s)| (id, s.replica, fits(s))).partition(|(_, _, fits)| *fits);
        self.cleared.extend(cleared.into_iter().map(|(_, replica, _)| replica));
        for (_, replica, _) in &behind {
            sometimes!(OrphanFenced);
            self.remove(now, *replica);
        }
        behind.iter().any(|(id, ..)| *id == link)
    }

    /// R-ORPHAN, of this node itself: tells whether a replica has been a member here which those who say so had removed
    /// before they heard of this node or of who let it in.
    fn is_orphan_of(&self, news: &MemberSet) -> bool {
        let unheard_of = |replica| !news.knows(replica);
        self.join.is_joined()
            && unheard_of(self.me.replica)
            && self.copied_from.is_none_or(unheard_of)
            && self.lived.iter().any(|replica| news.was_removed(*replica) && !unheard_of(*replica))
            && !planted!(OrphansTrusted)
    }

    /// Of the copies of a node that are members, the one that speaks is meant; if another one spoke as well just now, the
    /// one that joined later. Two donors that could not hear of each other may each have let one in, or one has founded.
    pub(super) fn settle_copies(&mut self, now: Now, node: NodeId, speaks: ReplicaId, rival: bool) {
        if planted!(CopiesOfOneNodeStay) {
            return;
        }
        let copies = || self.members.live().filter(|(_, member)| member.node == node);
        let keep = self.latest_of(node).filter(|_| rival || node == self.me.node).unwrap_or(speaks);
        let mut news = MemberSet::default();
        copies().filter(|(replica, _)| *replica != keep).for_each(|(replica, _)| {
            news.remove(replica);
        });
        if news.removed.is_empty() {
            return;
        }
        sometimes!(MemberSuperseded);
        self.on_members(now, &news);
    }

    /// Returns the copy of a node that joined last.
    pub(super) fn latest_of(&self, node: NodeId) -> Option<ReplicaId> {
        let copies = self.members.live().filter(|(_, member)| member.node == node);
        copies.map(|(replica, member)| (member.since_ms, replica)).max().map(|(_, replica)| replica)
    }

    /// Removes the copies of a node that were only heard of, while one of it is linked and speaks: they are gone, or twins;
    /// or one is being let in by the one that speaks.
    pub(super) fn forget_silent_copies(&mut self, now: Now) {
        let settled = |l: &&Link| now.mono.since(l.since) >= COPIES_AFTER && l.session.as_ref().is_some_and(|s| s.up);
        let joined = |l: &Link| Some((l.identity.node, l.session.as_ref().filter(|s| s.joined)?.replica));
        let speaking: Vec<_> = self.links.values().filter(settled).filter_map(joined).collect();
        for (node, replica) in speaking {
            let lets_in = self.members.live().any(|(_, m)| m.node == node && m.sponsor == Some(replica));
            if self.join.is_joined() && self.members.get(replica).is_some() && !lets_in {
                self.settle_copies(now, node, replica, false);
            }
        }
    }

    /// Removes a replica for ever, and lets everybody hear of it.
    pub(super) fn remove(&mut self, now: Now, replica: ReplicaId) {
        let mut news = MemberSet::default();
        news.remove(replica);
        self.on_members(now, &news);
    }

    /// Of two members whose histories do not fit the lower gives way: each calls something stable that the other has not
    /// seen, so neither can take in the other's state.
    pub(super) fn outlast(&mut self, now: Now, replica: ReplicaId) {
        self.remove(now, replica.min(self.me.replica));
    }

    /// Tells whether this replica was removed: it writes nothing, joins nobody and dials nobody any more.
    pub(super) fn is_removed(&self) -> bool {
        self.members.is_removed(self.me.replica)
    }

    fn on_removed(&mut self, now: Now, replica: ReplicaId) {
        self.forget_reports_of(replica);
        if replica == self.me.replica {
            return self.on_own_removal(now);
        }
        let linked = self.sessions().filter(|(_, session)| session.replica == replica);
        let links: Vec<(LinkId, bool)> = linked.map(|(id, session)| (id, session.joined)).collect();
        for (link, joined) in links {
            let code = self.refusal_of(link, replica, joined);
            if !(joined && self.part(now, link, replica)) {
                self.close(link, code, "the replica was removed from the cluster");
            }
        }
    }

    /// Forgets what is kept of a replica that is no member.
    pub(super) fn forget_reports_of(&self, replica: ReplicaId) {
        for id in self.store.partition_ids() {
            if let Some(mut partition) = self.store.lock(id) {
                partition.forget_report(replica);
            }
        }
    }

    /// The last words of a removed replica are that it was removed: its peers need not hear it from anybody else.
    fn on_own_removal(&mut self, now: Now) {
        sometimes!(ToldThatRemoved);
        self.set_gate();
        if !self.has_left() {
            self.event(Event::Removed);
        }
        self.end_partings();
        self.report(now);
        self.part_from_all(now);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.close(link, CloseCode::Goodbye, "this replica was removed from the cluster");
        }
        self.plan_return(now);
    }

    /// Returns the code that tells a removed replica whether its process may come back by itself.
    pub(super) fn refusal_of(&self, link: LinkId, replica: ReplicaId, joined: bool) -> CloseCode {
        let bars = |l: &Link| self.members.bars(replica, l.identity.node, joined);
        if self.links.get(&link).is_some_and(bars) { CloseCode::Expelled } else { CloseCode::Removed }
    }

    /// Returns whom the last change removed, by name or by a floor, as far as anything here is theirs.
    fn newly_removed(&self, before: &MemberSet) -> BTreeSet<ReplicaId> {
        let linked = self.sessions().map(|(_, session)| session.replica);
        let named = before.live().map(|(replica, _)| replica).chain(self.members.removed.iter().copied());
        let all = named.chain(linked).chain([self.me.replica]);
        all.filter(|replica| self.members.was_removed(*replica) && !before.was_removed(*replica)).collect()
    }
}
