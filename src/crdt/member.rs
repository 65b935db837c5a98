//! One member: whose running copy a replica is, and what it says of itself.
//!
//! # Invariants
//! * An older profile never replaces a later one. Of that of a removed replica is kept whether it was an edge, and whether it
//!   left by itself, which is the last it says.

use crate::id::{NodeId, RegionId, ReplicaId, Role};
use crate::probe::planted;

/// What a member says of itself, and may change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Profile {
    /// How often it has said something new; 0 while it has said nothing. The larger is the later.
    pub version: u64,
    /// Where it can be dialled, as `host:port`, the best first.
    pub addresses: Vec<String>,
    /// What part it plays.
    pub role: Role,
    /// It is an edge, also while it drains: it does not hold everything, so its copy counts for nothing.
    pub is_edge: bool,
    /// It has handed over what it had and left: its last word.
    pub left: bool,
}

impl Profile {
    /// Returns what is kept of it once its replica was removed.
    pub(super) fn of_removed(&self) -> Self {
        let role = match (self.left, self.is_edge) {
            (true, _) => Role::Draining,
            (false, true) => Role::Edge,
            (false, false) => Role::default(),
        };
        Self { role, is_edge: self.is_edge, left: self.left, ..Self::default() }
    }
}

/// Whose running copy a replica is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Member {
    /// The node that runs it.
    pub node: NodeId,
    /// The node's region.
    pub region: RegionId,
    /// When it joined by its own wall clock, in Unix milliseconds: of two copies of one node that both speak the later one
    /// is meant.
    pub since_ms: u64,
    /// The member it copied, last and perhaps not to the end, before it joined or founded.
    pub sponsor: Option<ReplicaId>,
    /// What it says of itself.
    pub profile: Profile,
}

impl Member {
    /// Builds one of which nothing is known but who it is.
    #[must_use]
    pub fn new(node: NodeId, region: RegionId, since_ms: u64, sponsor: Option<ReplicaId>) -> Self {
        Self { node, region, since_ms, sponsor, profile: Profile::default() }
    }

    /// What does not change.
    fn identity(&self) -> (NodeId, &RegionId, u64, Option<ReplicaId>) {
        (self.node, &self.region, self.since_ms, self.sponsor)
    }

    /// Tells whether `other` is the later word on the same replica, and names another one that it has copied.
    pub(super) fn copied_from_other(&self, other: &Self) -> bool {
        other.identity() > self.identity() && other.sponsor != self.sponsor
    }

    /// Takes in what somebody else has heard; returns whether anything changed.
    pub(super) fn join(&mut self, other: &Self) -> bool {
        let other_is_meant = other.identity() > self.identity();
        let is_later = other.profile > self.profile || (planted!(ViewOrderIgnored) && other.profile != self.profile);
        if other_is_meant {
            let profile = std::mem::take(&mut self.profile);
            *self = Self { profile, ..other.clone() };
        }
        if is_later {
            self.profile.clone_from(&other.profile);
        }
        other_is_meant || is_later
    }
}
