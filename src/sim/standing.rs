//! Who is active and who stands by: what operators order, and whether who took over by itself had a reason to.
//!
//! # Invariants
//! * It is judged in the very instant in which a host says that it is active now, by what it knows then.

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use super::seeds::has_bit;
use crate::crdt::Member;
use crate::id::{ReplicaId, Role};
use crate::membership::Reach;
use crate::node::{Event, Input};

impl SimCluster {
    /// Checks that no standby took over while somebody active might have been there.
    ///
    /// # Errors
    /// [`Violation`] of the first that did.
    pub fn all_took_over_rightly(&self) -> Result<(), Violation> {
        self.usurped.clone().map_or(Ok(()), Err)
    }

    /// Tells whether a host takes over by itself when it stands by and nobody is active.
    #[must_use]
    pub fn takes_over(&self, at: usize) -> bool {
        let (standbys, standby) = &self.config.standbys;
        let place = self.hosts.get(at).map_or(at, |host| host.place);
        standby.take_over_after.is_some() && has_bit(*standbys, place)
    }

    pub(super) fn assume(&mut self, at: usize, input: Input) -> bool {
        let may = self.is_running(at) && !self.is_paused(at);
        if let Some(host) = self.hosts.get_mut(at).filter(|_| may) {
            host.ordered = input == Input::Promote;
            self.input(at, input);
        }
        may
    }

    /// A node has told its users of a role.
    pub(super) fn note_role(&mut self, at: usize, event: &Event) {
        let Event::RoleChanged { replica, role, .. } = event else { return };
        if self.replica(at) != Some(*replica) {
            return;
        }
        let Some(host) = self.hosts.get_mut(at) else { return };
        let was = std::mem::replace(&mut host.role, *role);
        let ordered = std::mem::take(&mut host.ordered);
        if was == Role::Standby && *role == Role::Active && !ordered && self.is_honest(at) {
            let usurped = self.stands_in_the_way(at);
            self.usurped = self.usurped.take().or(usurped);
        }
    }

    fn stands_in_the_way(&self, at: usize) -> Option<Violation> {
        let node = self.node(at)?;
        let is_there = |(replica, member): &(ReplicaId, &Member)| {
            let active = member.profile.role == Role::Active && *replica != node.me().replica;
            let reach = node.reach(*replica);
            active && reach != Some(Reach::Unreachable) && (reach == Some(Reach::Up) || !node.is_isolated())
        };
        let (replica, _) = node.members().live().find(is_there)?;
        let what = format!("r{at} takes over from {replica}, which is {:?}", node.reach(replica));
        Some(Violation::new(Invariant::Membership, what))
    }
}
