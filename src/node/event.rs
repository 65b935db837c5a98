//! What users and logs are told: changes of view, and changes of data in watched keyspaces.

use bytes::Bytes;

use crate::error::PeerFault;
use crate::id::{KeyspaceId, NodeId, PartitionId, RegionId, ReplicaId, Role};
use crate::node::quarantine::Poison;
use crate::wire::Unsendable;

/// How a member went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It had handed over what it had.
    Left,
    /// Its node has another running copy.
    Succeeded,
    /// An operator removed it, a majority gave it up, or its history does not fit that of the others.
    Removed,
}

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
    /// A replica joined the cluster. When this node has joined it is told so of every member there is, itself included; before
    /// that nobody is told of any.
    MemberJoined {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
    },
    /// A replica is no member any more, for ever.
    MemberRemoved {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// What was its running copy.
        replica: ReplicaId,
        /// How it went, as far as was heard here.
        how: Departure,
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
    /// A member has been unreachable for `forget_after` and longer, and not enough of those that were members when it went
    /// agree to give it up: half of them do not hear the others, or were started again meanwhile and have no vote. What is
    /// deleted is kept for it, which takes memory, until it is back, or an operator removes it (`Cache::remove`). Told once.
    NotGivenUp {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
        /// How many agree, this node included.
        votes: usize,
        /// Of how many; more than half are needed.
        of: usize,
    },
    /// A member plays another part than before, or one that is new plays another than most; this node's own included.
    RoleChanged {
        /// The member's node.
        node: NodeId,
        /// Its region.
        region: RegionId,
        /// Its running copy.
        replica: ReplicaId,
        /// What part it plays now.
        role: Role,
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
    /// A configured address, or one by which a member says it can be found, does not answer.
    DialFailed {
        /// Which one.
        address: String,
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
    /// This replica was removed, or found that its history does not fit that of the others: it accepts no writes, hears
    /// nobody, and tells of nobody any more whether it can be reached. Its
    /// process goes on as another replica, which [`Event::CameBack`] tells, unless an operator removed it, a copy of its
    /// node that joined later has its place, or the configuration says otherwise.
    Removed,
    /// Another process runs with this node's identity, or ran until now: a cloned machine, or a copied certificate. The one
    /// that joined later is the node; the other one is told [`Event::Removed`] as well and stays away. End one of them, or give
    /// it an identity of its own.
    Twin {
        /// The other process' replica.
        replica: ReplicaId,
    },
    /// This process goes on as another replica, empty, and is about to join.
    CameBack {
        /// The replica that was removed.
        former: ReplicaId,
        /// The one it is now.
        replica: ReplicaId,
        /// Register writes that some member may not have received: they are written again once it has joined, unless they
        /// are outdated by then.
        kept: u64,
        /// More of them than may be kept.
        lost: u64,
    },
    /// Of what former replicas of this process had written and some member may not have received: what came of it.
    Reissued {
        /// Written again.
        written: u64,
        /// Received by others after all, over, or something newer is there or may have been.
        outdated: u64,
        /// Lost: more than may be kept, or without room here, or this node has founded a cluster, so that nobody can tell.
        lost: u64,
    },
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
    /// State that could not be joined was skipped; its events stay missing and it is tried again whenever it comes. Told
    /// once for each state.
    Quarantined {
        /// What it is.
        poison: Poison,
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
