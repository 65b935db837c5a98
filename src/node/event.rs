//! What users and logs are told: changes of view, and changes of data in watched keyspaces.

use bytes::Bytes;

use crate::error::PeerFault;
use crate::id::{KeyspaceId, NodeId, PartitionId, RegionId, ReplicaId};
use crate::node::input::PeerSlot;
use crate::wire::Unsendable;

/// Something an operator may want to know. Every change of view is one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// This node has joined and accepts writes.
    Joined {
        /// No cluster was found, so this node began one.
        founded: bool,
    },
    /// A peer finished its hello, or a member that was silent is heard again.
    Up {
        /// The peer's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
    },
    /// A member is silent here. Whether others hear it is not known yet.
    Suspect {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
    },
    /// A member is silent here, and at least half of those that can be heard agree. Where they were sooner, nothing was said
    /// of a suspicion before.
    Unreachable {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
    },
    /// A member is silent here and heard elsewhere: the path is cut, and writes go through the others.
    LinkDown {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
    },
    /// No member is heard, so none is declared unreachable: it is this node that is cut off.
    Isolated,
    /// A member is heard again.
    NotIsolated,
    /// A replica joined the cluster.
    MemberJoined {
        /// The replica.
        replica: ReplicaId,
    },
    /// A replica was removed, or succeeded by its node's next running copy.
    MemberRemoved {
        /// The replica.
        replica: ReplicaId,
    },
    /// A member was unreachable for `forget_after` to a majority of all members, which removes it.
    GivenUp {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
    },
    /// A peer's message was refused and its link closed.
    Refused {
        /// The peer's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// What was wrong.
        fault: PeerFault,
    },
    /// A configured address does not answer.
    DialFailed {
        /// Which one.
        slot: PeerSlot,
        /// Why.
        why: String,
    },
    /// A majority of peers refuses this node's clock: it stops accepting writes.
    ClockRefused {
        /// Estimated distance in milliseconds.
        skew_ms: u64,
    },
    /// The peers accept this node's clock again: it accepts writes again.
    ClockAccepted,
    /// This replica was removed, or found that its history does not fit that of the others: it must start again under a new
    /// id, and what it accepted and no peer has received is lost.
    Removed,
    /// This node's certificate expires soon: told 30 days, 7 days and a day before, and when it has. Links that are up stay;
    /// the next handshake with an expired one is refused.
    CertificateExpires {
        /// At most so many days are left; 0 says that it has expired.
        days: u64,
    },
    /// This node has handed over all it has, as it was told to drain; it accepts no writes.
    Drained,
    /// This node has handed over all it had and is no member any more, as it was told to leave.
    Left,
    /// Two values under one stamp: a replica id is in use twice.
    DuplicateReplica {
        /// The id.
        replica: ReplicaId,
    },
    /// A message exceeds what any receiver takes: what it carried stays missing elsewhere.
    Unsendable {
        /// What is too large.
        unsendable: Unsendable,
    },
    /// This node's copy and a peer's differ although both have seen the same: one of them lost something, or there is a
    /// bug. What either lacks is given back.
    Differs {
        /// The peer's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// The partition.
        partition: PartitionId,
        /// How many keys differ.
        keys: u64,
    },
    /// What this node's copy had lost or held in an older version was given back by a peer.
    Restored {
        /// The peer's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// The partition.
        partition: PartitionId,
        /// How many keys were changed here.
        keys: u64,
    },
    /// State that could not be joined was skipped; its dots stay missing.
    Quarantined {
        /// How many fragments.
        fragments: u64,
    },
}

/// A remote change of one entry in a watched keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The key's bytes.
    pub key: Bytes,
}
