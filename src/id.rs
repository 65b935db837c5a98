//! Who and where: the identities every other module speaks of.
//!
//! # Invariants
//! * A [`NodeId`] and a [`RegionId`] outlive a process; a [`ReplicaId`] never does: it is fresh at
//!   every process start, so a dot of a lost memory can never be issued twice.
//! * The replicas of one node follow each other in order, as long as its clock does not go back: so of all that ever were
//!   the last one that is gone says enough.
//! * Ids are made from the shell's clock; nothing here draws a random number or reads one.

use std::fmt;
use std::hash::Hasher;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The stable, operator-visible identity of a node. It is named by the node's certificate and
/// survives restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub Uuid);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bits of a replica's id that say when it began: milliseconds until 2248.
const INCARNATION_BITS: u32 = 43;
const INCARNATION_MAX: u64 = (1 << INCARNATION_BITS) - 1;

impl NodeId {
    /// Returns the tag of its replicas.
    #[must_use]
    pub fn tag(self) -> Tag {
        let mut hasher = siphasher::sip::SipHasher13::new_with_keys(0, 0);
        hasher.write(self.0.as_bytes());
        Tag((hasher.finish() >> INCARNATION_BITS).max(1))
    }
}

/// What the ids of all replicas of a node begin with: a hash of the node's id, so two nodes may share one by chance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(u64);

impl Tag {
    /// Returns the ids that begin with it.
    #[must_use]
    pub fn ids(self) -> RangeInclusive<ReplicaId> {
        let first = self.0 << INCARNATION_BITS;
        ReplicaId(first)..=ReplicaId(first | INCARNATION_MAX)
    }

    /// Tells whether ids of it follow each other in order. Those made by hand, below 2^43, need not.
    #[must_use]
    pub fn is_ordered(self) -> bool {
        self.0 > 0
    }
}

/// The identity of one running copy, fresh at every process start.
///
/// It is the actor of every [`Dot`](crate::crdt::Dot) and breaks ties between stamps. Its high 21 bits are the [`Tag`] of its
/// node, the others say when it began, so later replicas of a node have larger ids.
///
/// ```
/// use driftless::id::{NodeId, ReplicaId};
///
/// let node = NodeId(uuid::Uuid::from_u128(7));
/// let first = ReplicaId::new(node, 1_700_000_000_000);
/// assert_eq!(first.tag(), node.tag());
/// // The clock went back; the order does not.
/// assert!(first.after(1_600_000_000_000) > first);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// Makes the id of a replica of `node` that begins now, in Unix milliseconds.
    #[must_use]
    pub fn new(node: NodeId, wall_ms: u64) -> Self {
        Self::of(node.tag(), wall_ms)
    }

    fn of(tag: Tag, incarnation: u64) -> Self {
        Self(tag.0 << INCARNATION_BITS | incarnation.min(INCARNATION_MAX))
    }

    /// Returns the tag of its node.
    #[must_use]
    pub fn tag(self) -> Tag {
        Tag(self.0 >> INCARNATION_BITS)
    }

    /// Makes the id of a replica of the same node that begins now, and after this one whatever the clock says.
    #[must_use]
    pub fn after(self, wall_ms: u64) -> Self {
        Self::of(self.tag(), wall_ms.max((self.0 & INCARNATION_MAX).saturating_add(1)))
    }

    /// Returns a later id of the same node.
    #[must_use]
    pub fn ahead(self, by: u64) -> Self {
        Self::of(self.tag(), (self.0 & INCARNATION_MAX).saturating_add(by))
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What part a node plays. Only the node itself changes its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Role {
    /// It takes reads and writes.
    #[default]
    Active,
    /// It takes reads and few writes, and keeps of registers only what is read there; the others it fetches.
    Edge,
    /// It has everything and takes no writes, until it takes over.
    Standby,
    /// It takes no writes any more and hands over what it has, to end or to leave.
    Draining,
}

/// The name of a region, for instance `eu-central`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RegionId(Arc<str>);

impl RegionId {
    /// Names a region.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for RegionId {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// One hash slice of the key space: one lock, one causal context, one log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// Returns the position of this partition in a table of all partitions.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

/// A keyspace as this process numbers it. The number never leaves the process: frames carry names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyspaceId(pub u16);

impl KeyspaceId {
    /// Returns the position of this keyspace in a table of all keyspaces.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_of_a_node_follow_each_other_whatever_the_clock_says() {
        let node = NodeId(Uuid::from_u128(9));
        let (early, late) = (ReplicaId::new(node, 5), ReplicaId::new(node, 6));
        assert!(early < late && early.after(6) == late && late.after(1) == ReplicaId::new(node, 7));
        let other = NodeId(Uuid::from_u128(10));
        assert_ne!(node.tag(), other.tag());
        for replica in [early, late.after(0), ReplicaId::new(node, u64::MAX), ReplicaId::new(node, 0)] {
            assert!(replica.tag() == node.tag() && node.tag().ids().contains(&replica) && replica.0 > 0);
            assert!(!other.tag().ids().contains(&replica));
        }
        assert!(node.tag().is_ordered() && !ReplicaId(7).tag().is_ordered());
    }
}
