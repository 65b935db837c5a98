//! Handing over: a node that is about to end, or to leave for good, accepts no writes and sees to it that the others have
//! everything it has.
//!
//! # Invariants
//! * Who drains accepts no writes, so what has to be handed over does not grow by its own hand.
//! * It is done when every member it can reach has all that this node had when it began, its own last events, and what it has
//!   of members it cannot hear. What others go on writing meanwhile they hand over themselves.
//! * Only who leaves gives up its place: who drains is a member that is expected back. Who was told both leaves, in whichever
//!   order.

use crate::clock::Now;
use crate::crdt::Ctx;
use crate::id::{PartitionId, ReplicaId};
use crate::membership::Reach;
use crate::node::Node;
use crate::node::event::Event;
use crate::node::input::LinkId;
use crate::node::link::Session;
use crate::probe::{planted, sometimes};
use crate::wire::Control;

/// How far a node is with handing over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Drain {
    /// It does not.
    No,
    /// It has begun.
    Begun {
        /// It gives up its place at the end.
        leaves: bool,
        /// What it had seen of each partition then.
        had: Vec<(PartitionId, Ctx)>,
    },
    /// The others have everything.
    Done,
    /// And this node is no member any more.
    Left,
}

impl Node {
    pub(super) fn on_drain(&mut self, now: Now, leaves: bool) {
        if self.is_removed() {
            return;
        }
        let leaves = leaves || matches!(self.drain, Drain::Begun { leaves: true, .. });
        self.drain = Drain::Begun { leaves, had: Vec::new() };
        self.untended = true;
        self.set_gate();
        // After the gate was shut: whoever writes later is refused.
        let unfolded = |(id, ctx): (PartitionId, Ctx)| (id, ctx.without_marks());
        self.drain = Drain::Begun { leaves, had: self.contexts().into_iter().map(unfolded).collect() };
        // All of them: a write that was accepted just now may not have marked its partition yet.
        self.outbox.mark(self.store.partition_ids());
        self.flush(now);
        let links: Vec<LinkId> = self.sessions().map(|(link, _)| link).collect();
        for link in links {
            self.send_control(link, &Control::ReportNow);
        }
    }

    pub(super) fn on_resume(&mut self) {
        if self.drain != Drain::Left {
            self.drain = Drain::No;
            self.untended = true;
        }
        self.set_gate();
    }

    /// Tells whether this node has handed everything over and given up its place.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.drain == Drain::Left
    }

    /// Tells whether there is no other member that could be left with everything: an edge keeps only some of it.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.join.is_joined() && self.heirs().next().is_none()
    }

    fn heirs(&self) -> impl Iterator<Item = ReplicaId> {
        let others = self.members.live().filter(|(replica, _)| *replica != self.me.replica);
        others.filter(|(_, member)| !member.profile.is_edge || planted!(LeavesToEdge)).map(|(replica, _)| replica)
    }

    /// Returns the members that lack something this node has to hand over, of those that count: all that can be reached, or
    /// all.
    #[must_use]
    pub fn behind(&self) -> Vec<ReplicaId> {
        let reached = |replica: &ReplicaId| self.reach(*replica).is_none_or(|reach| reach < Reach::Cut);
        let (near, far): (Vec<ReplicaId>, Vec<ReplicaId>) = self.heirs().partition(reached);
        let owed = self.owed();
        let has_all = |session: &Session| {
            let has = |(id, ctx): &(PartitionId, Ctx)| session.peer.known(*id).is_some_and(|known| known.includes(ctx));
            session.joined && owed.iter().all(has)
        };
        let lacks = |replica: &ReplicaId| !self.sessions().any(|(_, s)| s.replica == *replica && has_all(s));
        let count = if near.is_empty() { far } else { near };
        count.into_iter().filter(lacks).collect()
    }

    /// What has to be handed over of each partition.
    fn owed(&self) -> Vec<(PartitionId, Ctx)> {
        let had = |id| match &self.drain {
            Drain::Begun { had, .. } => had.iter().find(|(of, _)| *of == id).map(|(_, ctx)| ctx.clone()),
            Drain::No | Drain::Done | Drain::Left => None,
        };
        let is_silent = |origin: ReplicaId| origin == self.me.replica || self.reach(origin) != Some(Reach::Up);
        let owed = |(id, ctx): (PartitionId, Ctx)| {
            let mut owed = had(id).unwrap_or_default();
            let ctx = ctx.without_marks();
            ctx.iter().filter(|(origin, _)| is_silent(*origin)).for_each(|(origin, seen)| owed.add_seen(origin, seen));
            (id, owed)
        };
        self.contexts().into_iter().map(owed).collect()
    }

    /// Ends the handing over once the others have everything. An invalidation that is under way writes on although the gate
    /// is shut, so it is waited for.
    pub(super) fn end_drain(&mut self, now: Now) {
        let Drain::Begun { leaves, .. } = self.drain else { return };
        if self.is_removed() || !self.join.is_joined() || self.store.is_invalidating() {
            return;
        }
        let waits = self.is_alone() || !self.behind().is_empty();
        sometimes!(LeaverAwaitsReport, if waits && !self.is_alone());
        if waits && !planted!(LeavesAtOnce) {
            return;
        }
        if !leaves {
            sometimes!(DrainedInOrder);
            self.drain = Drain::Done;
            return self.event(Event::Drained);
        }
        sometimes!(LeftInOrder);
        self.drain = Drain::Left;
        self.set_gate();
        self.event(Event::Left);
        self.publish(now);
        self.remove(now, self.me.replica);
    }
}
