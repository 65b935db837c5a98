//! What part this node plays: active, or standing by until nobody active can be reached. An edge is one as long as it runs.
//!
//! # Invariants
//! * Only the node itself changes its role; members hear of it in what it says of itself ([`Profile`](crate::crdt::Profile)).
//! * A standby takes over by itself only while every active member it stands in for is unreachable by the verdict of all
//!   that can be heard, or while nobody can be heard at all: whoever is behind a cut takes over nothing.
//!
//! Two that are active at the same time do no harm: what both write converges as anywhere else. So who hears nobody need not
//! know whether all others are gone or it is cut off itself.

use crate::clock::{Mono, Now};
use crate::config::StandsInFor;
use crate::crdt::Member;
use crate::error::RoleError;
use crate::id::{ReplicaId, Role};
use crate::membership::Reach;
use crate::node::Node;
use crate::node::leave::Drain;
use crate::probe::{planted, sometimes};

/// Whether this node stands by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    stands_by: bool,
    /// Since when no active member can be reached.
    orphaned_since: Option<Mono>,
}

impl Part {
    pub(super) fn new(stands_by: bool) -> Self {
        Self { stands_by, orphaned_since: None }
    }

    /// Forgives a time in which nothing could be heard.
    pub(super) fn forgive(&mut self, late: std::time::Duration) {
        self.orphaned_since = self.orphaned_since.map(|since| since.plus(late));
    }
}

impl Node {
    /// Returns what part this node plays.
    #[must_use]
    pub fn role(&self) -> Role {
        if self.drain != Drain::No {
            Role::Draining
        } else if self.is_edge() {
            Role::Edge
        } else if self.part.stands_by {
            Role::Standby
        } else {
            Role::Active
        }
    }

    /// Returns why this node is not to become active, or a standby: no role is left to it, or it would go on refusing writes as
    /// an active one.
    #[must_use]
    pub fn refuses_to_assume(&self, stands_by: bool) -> Option<RoleError> {
        if self.is_removed() || self.has_heir() {
            Some(RoleError::Removed)
        } else if self.is_edge() {
            Some(RoleError::Edge)
        } else if stands_by {
            None
        } else if self.drain != Drain::No {
            Some(RoleError::Draining)
        } else if self.clock_refused {
            Some(RoleError::ClockRefused)
        } else if !self.join.is_joined() {
            Some(RoleError::NotJoined)
        } else {
            None
        }
    }

    /// Becomes active, or a standby. An edge stays what it is: it does not hold what either has to.
    pub(super) fn assume(&mut self, stands_by: bool) {
        if self.is_edge() {
            return;
        }
        self.part = Part::new(stands_by);
        self.set_gate();
        self.untended = true;
    }

    /// Takes over if every active member has been unreachable for long enough.
    pub(super) fn look_after_the_active(&mut self, now: Now) {
        let after = self.config.node.standby.as_ref().and_then(|standby| standby.take_over_after);
        let may = self.role() == Role::Standby && self.join.is_joined() && !self.is_removed() && !self.clock_refused;
        let Some(after) = after.filter(|_| may && !planted!(NeverTakesOver)) else { return };
        if self.members.live().any(|(replica, member)| self.is_served_by(replica, member)) {
            self.part.orphaned_since = None;
            return;
        }
        let since = *self.part.orphaned_since.get_or_insert(now.mono);
        if now.mono.since(since) >= after {
            sometimes!(TookOver);
            self.assume(false);
            self.tend(now);
        }
    }

    /// Tells whether a member does, for all that is known, what this node would have to do in its place.
    fn is_served_by(&self, replica: ReplicaId, member: &Member) -> bool {
        let whom = self.config.node.standby.as_ref().map(|standby| standby.stands_in_for).unwrap_or_default();
        let concerns = match whom {
            StandsInFor::Cluster => true,
            StandsInFor::Region => member.region == self.me.region,
        };
        let worst = if planted!(TakesOverFromSuspects) { Reach::Up } else { Reach::Cut };
        let reach = self.reach(replica).unwrap_or_default();
        let is_there = reach <= worst && (reach == Reach::Up || !self.is_isolated());
        replica != self.me.replica && concerns && member.profile.role == Role::Active && is_there
    }
}
