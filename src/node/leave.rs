//! Leaving in order: a member that goes for good hands over what it has, then gives up its place.
//!
//! # Invariants
//! * Who leaves accepts no writes any more, so what has to be handed over only shrinks.
//! * It gives up its place when every member it can reach has everything it has, and at least one has.

use crate::clock::Now;
use crate::crdt::Ctx;
use crate::id::ReplicaId;
use crate::membership::Reach;
use crate::node::Node;
use crate::node::event::Event;
use crate::node::input::LinkId;
use crate::node::link::Session;
use crate::probe::{planted, sometimes};
use crate::wire::Control;

impl Node {
    pub(super) fn on_leave(&mut self, now: Now) {
        self.leaving = true;
        self.set_gate();
        // All of them: a write that was accepted just now may not have marked its partition yet.
        self.outbox.mark(self.store.partition_ids());
        self.flush(now);
        let links: Vec<LinkId> = self.sessions().map(|(link, _)| link).collect();
        for link in links {
            self.send_control(link, &Control::ReportNow);
        }
    }

    pub(super) fn on_stay(&mut self) {
        self.leaving &= self.stopping;
        self.set_gate();
    }

    /// Tells whether this node has handed everything over and given up its place.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.leaving && self.stopping
    }

    /// Returns the members that lack something this node has, of those that count: all that can be reached, or all.
    #[must_use]
    pub fn behind(&self) -> Vec<ReplicaId> {
        let others = self.members.live().map(|(replica, _)| replica).filter(|replica| *replica != self.me.replica);
        let reached = |replica: &ReplicaId| self.reach(*replica).is_none_or(|reach| reach < Reach::Cut);
        let (near, far): (Vec<ReplicaId>, Vec<ReplicaId>) = others.partition(reached);
        let lacks = |replica: &ReplicaId| !self.sessions().any(|(_, s)| s.replica == *replica && self.has_all(s));
        let count = if near.is_empty() { far } else { near };
        count.into_iter().filter(lacks).collect()
    }

    fn has_all(&self, session: &Session) -> bool {
        let knows = |id, ctx: &Ctx| session.peer.known(id).is_some_and(|known| known.includes(ctx));
        session.joined && self.store.partition_ids().all(|id| self.store.read(id).is_none_or(|p| knows(id, p.ctx())))
    }

    /// Gives up this node's place once everything is handed over.
    pub(super) fn go_if_handed_over(&mut self, now: Now) {
        if !self.leaving || self.is_removed() {
            return;
        }
        let alone = self.members.live().all(|(replica, _)| replica == self.me.replica);
        sometimes!(LeaverAwaitsReport, if !alone && !self.behind().is_empty());
        if self.join.is_joined() && (alone || !self.behind().is_empty()) && !planted!(LeavesAtOnce) {
            return;
        }
        sometimes!(LeftInOrder);
        self.stopping = true;
        self.event(Event::Left);
        self.remove(now, self.me.replica);
    }
}
