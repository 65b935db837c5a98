//! The messages of the protocol, as the node works with them: owned, decoded, checked.
//!
//! Three kinds, each on its own channel of a link: [`Frame`]s carry state on the log streams,
//! [`Control`] messages steer on the ordered control stream, a [`Beat`] is a datagram. Their bytes
//! are the neighbouring files' business.
//!
//! # Invariants
//! * Frames are self-contained and may be applied in any order, each any number of times.
//! * Control messages are ordered; [`Control::Hello`] is the first one in both directions.
//! * No stamp in a frame is above the frame's clock.

use std::collections::BTreeSet;

use crate::clock::Hlc;
use crate::crdt::MemberSet;
use crate::crdt::{Ctx, Seen};
use crate::id::{NodeId, PartitionId, RegionId, ReplicaId};
use crate::store::{Batch, Fragment};

/// State of any number of partitions, captured by one sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The sender.
    pub from: ReplicaId,
    /// The sender's clock when the last part was captured.
    pub hlc: Hlc,
    /// The state, partition by partition.
    pub parts: Vec<Part>,
}

/// A piece of one partition's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// What the receiver lacks, with the sender's whole context.
    Batch(Batch),
    /// A piece of a full synchronisation.
    FullChunk(FullChunk),
}

impl Part {
    /// Returns the partition it is about.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Batch(batch) => batch.partition,
            Self::FullChunk(chunk) => chunk.partition,
        }
    }

    /// Returns the fragments it carries.
    #[must_use]
    pub fn fragments(&self) -> &[Fragment] {
        match self {
            Self::Batch(batch) => &batch.fragments,
            Self::FullChunk(chunk) => &chunk.fragments,
        }
    }
}

/// A piece of a [`Full`](crate::store::Full): the receiver stages the pieces of one session and
/// applies them together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FullChunk {
    /// The partition.
    pub partition: PartitionId,
    /// Which synchronisation of this sender it belongs to.
    pub session: u64,
    /// Its place, from 0.
    pub index: u32,
    /// No piece follows.
    pub last: bool,
    /// The sender's context. Only piece 0 carries it, it is empty elsewhere.
    pub ctx: Ctx,
    /// What the sender found stable. Only in piece 0.
    pub frontier: Ctx,
    /// That, and the dots whose log entries it dropped. Only in piece 0.
    pub floor: Ctx,
    /// The largest clock value of a register's grave that the sender has collected. Only in piece 0.
    pub forgotten: Hlc,
    /// The state.
    pub fragments: Vec<Fragment>,
}

/// A message of the control stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Control {
    /// Who I am, what I speak, what I have. The first message, both ways.
    Hello(Hello),
    /// I am joined now, and this is what I have.
    Ready {
        /// The members I know.
        members: MemberSet,
        /// My context of every partition that has seen anything.
        ctxs: Vec<(PartitionId, Ctx)>,
    },
    /// Please be my donor.
    Join,
    /// The donor has sent every partition in full.
    JoinDone {
        /// The donor's clock; the joiner observes it before it writes.
        hlc: Hlc,
    },
    /// What I have seen since my last report on this stream.
    Report {
        /// My clock.
        hlc: Hlc,
        /// For each partition that changed, the replicas that changed, each with all that is seen
        /// of it: lost or repeated reports do no harm.
        changed: Vec<(PartitionId, Vec<(ReplicaId, Seen)>)>,
        /// The members I know, when they changed.
        members: Option<MemberSet>,
    },
    /// Somebody waits for your report: send it now.
    ReportNow,
    /// A batch of yours came so late that it predates what is stable here, or I lost my staging:
    /// send what I have not reported of this partition again, in full if your log ends before.
    NeedFull {
        /// The partition.
        partition: PartitionId,
    },
    /// I am leaving on purpose.
    Goodbye,
}

/// The first message on a link. Its bytes name every field, so that later versions may add some.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The newest protocol version the sender speaks.
    pub version: u16,
    /// The oldest protocol version the sender speaks.
    pub min_version: u16,
    /// The cluster's name.
    pub cluster: String,
    /// The sender's node.
    pub node: NodeId,
    /// The sender's region.
    pub region: RegionId,
    /// The sender's replica.
    pub replica: ReplicaId,
    /// The sender's wall clock in Unix milliseconds.
    pub wall_ms: u64,
    /// The sender's clock.
    pub hlc: Hlc,
    /// Whether the sender has joined.
    pub joined: bool,
    /// How many partitions the cluster has.
    pub partitions: u32,
    /// Digest of the cluster's key for placing keys; never the key itself.
    pub hash_check: u64,
    /// The custom keyspaces the sender declares: name, and name and version of the type.
    pub custom: Vec<(String, String)>,
    /// The members the sender knows.
    pub members: MemberSet,
    /// The sender's context of every partition that has seen anything: the resume point.
    pub ctxs: Vec<(PartitionId, Ctx)>,
    /// Compressions the sender understands, best first.
    pub compression: Vec<String>,
}

/// Members a beat names as suspected at most, so that it fits a datagram: where more are silent, hardly anybody is left to
/// agree with.
pub const SUSPECTS_MAX: usize = 32;

/// A heartbeat. Any of them may get lost or overtaken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// The sender's replica.
    pub replica: ReplicaId,
    /// Counts the beats of this link.
    pub seq: u64,
    /// The sender's clock.
    pub hlc: Hlc,
    /// The sender's monotonic time in nanoseconds.
    pub sent_ns: u64,
    /// The `sent_ns` of the latest beat heard from the receiver, and for how many nanoseconds the
    /// sender has held it: together they measure the round trip.
    pub echo: Option<(u64, u64)>,
    /// The sender's wall clock in Unix milliseconds.
    pub wall_ms: u64,
    /// Members the sender does not hear, at most [`SUSPECTS_MAX`].
    pub suspects: BTreeSet<ReplicaId>,
    /// Members the sender votes to remove, at most [`SUSPECTS_MAX`].
    pub gives_up: BTreeSet<ReplicaId>,
}
