//! Who and where: the identities every other module speaks of.
//!
//! # Invariants
//! * A [`NodeId`] and a [`RegionId`] outlive a process; a [`ReplicaId`] never does: it is fresh at
//!   every process start, so a dot of a lost memory can never be issued twice.
//! * Ids are made in the shell and passed in; nothing here draws a random number.

use std::fmt;
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

/// The identity of one running copy, fresh at every process start.
///
/// It is the actor of every [`Dot`](crate::crdt::Dot) and breaks ties between stamps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

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
