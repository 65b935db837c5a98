//! What this node says of itself, and whom it dials by what others say of themselves.
//!
//! # Invariants
//! * Nobody but this node says what it is: if others have heard something else, it says so again, as something newer.
//! * Nothing is stable here before as many nodes were met as are expected, so of two parts of a cluster that were founded
//!   apart neither has forgotten anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Now;
use crate::crdt::{Member, MemberSet, Profile};
use crate::id::{NodeId, ReplicaId};
use crate::node::Node;
use crate::node::dial::Aim;
use crate::node::leave::Drain;
use crate::probe::planted;

impl Node {
    /// Brings what follows from the members, and from who was met, up to them.
    pub(super) fn tend(&mut self, now: Now) {
        if !std::mem::take(&mut self.untended) {
            return;
        }
        let aims = self.aims();
        self.slots.aim(now.mono, &aims, self.me.replica, !self.config.node.advertised().is_empty());
        self.met = self.meets_all();
        self.publish(now);
    }

    /// Whom to look for: members, and before this node has joined whoever it has heard of as one.
    fn aims(&self) -> BTreeMap<NodeId, Aim> {
        let mut latest: BTreeMap<NodeId, (u64, ReplicaId, &Member)> = BTreeMap::new();
        let known = self.members.live().chain(self.hearsay.live());
        for (replica, member) in known.filter(|(_, m)| m.node != self.me.node && !m.profile.addresses.is_empty()) {
            let one = (member.since_ms, replica, member);
            let place = latest.entry(member.node).or_insert(one);
            *place = (*place).max(one);
        }
        let aim =
            |(replica, member): (ReplicaId, &Member)| Aim { replica, addresses: member.profile.addresses.clone() };
        latest.into_iter().map(|(node, (_, replica, member))| (node, aim((replica, member)))).collect()
    }

    /// Says what this node is, unless that is known.
    pub(super) fn publish(&mut self, now: Now) {
        if !self.join.is_joined() || self.is_removed() {
            return;
        }
        let Some(known) = self.members.get(self.me.replica) else { return };
        let profile = self.profile(known.profile.version);
        if profile == known.profile {
            return;
        }
        let profile = Profile { version: known.profile.version.saturating_add(1), ..profile };
        let mut news = MemberSet::default();
        news.add(self.me.replica, &Member { profile, ..known.clone() });
        self.on_members(now, &news);
    }

    pub(super) fn profile(&self, version: u64) -> Profile {
        let addresses = self.config.node.advertised().to_vec();
        Profile { version, addresses, role: self.role(), is_edge: self.is_edge(), left: self.drain == Drain::Left }
    }

    /// Tells whether a member was met at every configured address, by this node or, where a member says that this is its
    /// address, by the others, and as many nodes as are expected. Before that nothing is collected: one that was met and has
    /// not joined here, or that was never met, may found a cluster of its own.
    #[must_use]
    pub fn has_met_everybody(&self) -> bool {
        self.met
    }

    fn meets_all(&self) -> bool {
        let nodes: BTreeSet<NodeId> = self.members.members.values().map(|member| member.node).collect();
        let addresses = || self.members.live().flat_map(|(_, member)| &member.profile.addresses);
        let was_met = |address: &str| addresses().any(|known| known == address);
        let whole = nodes.iter().filter(|node| self.members.is_whole(**node)).count();
        let enough = whole >= self.config.membership.expected_nodes || planted!(ExpectedNotAwaited);
        enough
            && self
                .slots
                .seeds()
                .all(|(address, met)| met.is_some_and(|node| nodes.contains(&node)) || was_met(address))
    }
}
