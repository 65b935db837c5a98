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

use bytes::Bytes;

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
    /// What a comparison found to differ.
    Restore(Restore),
    /// What there is of a register that was asked for.
    Answer(Answer),
}

/// What a node holds of a register that somebody reads at a level, captured after it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Which question it answers.
    pub question: u64,
    /// The register and the invalidations of its keyspace that somebody may lack; without a fragment of the register there
    /// is nothing of it.
    pub batch: Batch,
}

/// Present versions of keys that two copies hold differently at the meet of their contexts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restore {
    /// The partition.
    pub partition: PartitionId,
    /// It answers one of the receiver's, and is not answered.
    pub is_answer: bool,
    /// The whole keys, without dots.
    pub fragments: Vec<Fragment>,
}

impl Part {
    /// Returns the partition it is about.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Batch(batch) => batch.partition,
            Self::FullChunk(chunk) => chunk.partition,
            Self::Restore(restore) => restore.partition,
            Self::Answer(answer) => answer.batch.partition,
        }
    }

    /// Returns the fragments it carries.
    #[must_use]
    pub fn fragments(&self) -> &[Fragment] {
        match self {
            Self::Batch(batch) => &batch.fragments,
            Self::FullChunk(chunk) => &chunk.fragments,
            Self::Restore(restore) => &restore.fragments,
            Self::Answer(answer) => &answer.batch.fragments,
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
    /// What is stable at the sender and untouched since is left out. Only in piece 0.
    pub is_rest: bool,
    /// The state.
    pub fragments: Vec<Fragment>,
}

impl FullChunk {
    /// Builds a piece that says nothing yet, and is not the last.
    #[must_use]
    pub fn piece(partition: PartitionId, session: u64, index: u32) -> Self {
        Self {
            partition,
            session,
            index,
            last: false,
            ctx: Ctx::default(),
            frontier: Ctx::default(),
            floor: Ctx::default(),
            forgotten: Hlc::default(),
            is_rest: false,
            fragments: Vec::new(),
        }
    }
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
    Join {
        /// What a former donor, which went away, has given of each partition.
        ctxs: Vec<(PartitionId, Ctx)>,
    },
    /// The donor has sent every partition in full, or what was missing of it.
    JoinDone {
        /// The donor's clock; the joiner observes it before it writes.
        hlc: Hlc,
        /// Partitions of which only what was missing was sent, and what the joiner has seen when it has come.
        resumed: Vec<(PartitionId, Ctx)>,
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
    /// I have reported all I have seen until now, and know these members.
    Told {
        /// What they come to ([`MemberSet::digest`]).
        digest: u64,
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
    /// A step of a comparison of both copies.
    Repair(Repair),
    /// I am an edge and do not keep this register: a batch of it, please, whether I have seen its events or not.
    Fetch {
        /// The keyspace, by its name.
        keyspace: String,
        /// The key.
        key: Bytes,
    },
    /// Somebody reads this register here at a level: what you hold of it from now on, please, also if that is nothing.
    Ask {
        /// Names the question in the answer.
        question: u64,
        /// The keyspace, by its name.
        keyspace: String,
        /// The key.
        key: Bytes,
    },
    /// There is nothing of a register I was asked for.
    Missing {
        /// The keyspace, by its name.
        keyspace: String,
        /// The key.
        key: Bytes,
    },
    /// Another process with your identity lives, or did until now: this is its replica, which was removed.
    Twin {
        /// The replica.
        replica: ReplicaId,
    },
}

/// A step of a comparison. Whoever begins it is the *asker*, the other the *teller*.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repair {
    /// The asker's sums of some partitions, one after the other.
    Verify {
        /// What is not visible after this instant does not count, in Unix milliseconds.
        horizon_ms: u64,
        /// Makes what is cut short differ from one comparison to the next.
        salt: u64,
        /// The first partition.
        first: PartitionId,
        /// Of each partition a check of its context, and the sum of that and of all that counts.
        sums: Vec<(u8, u64)>,
    },
    /// Which of these sums the teller has as well. Of the others a snapshot follows, of a few at a time.
    Answer {
        /// As it was asked with, so that no answer is taken for one to a later question.
        salt: u64,
        /// The first partition.
        first: PartitionId,
        /// For each partition whether it is equal.
        equal: Vec<bool>,
    },
    /// The teller's copy of a partition.
    Snapshot(Snapshot),
    /// The asker wants the snapshot again, with fewer leaves or with more detail.
    Ask {
        /// The partition.
        partition: PartitionId,
        /// How many leaves the table is to be folded to at most.
        leaves: u32,
        /// Leaves of that table to be left out.
        without: BTreeSet<u32>,
        /// With the sums of buckets.
        detail: bool,
    },
    /// The asker's leaves of the buckets that differ.
    Leaves {
        /// The partition.
        partition: PartitionId,
        /// How many leaves the table is folded to.
        leaves: u32,
        /// Which buckets differ.
        buckets: Vec<bool>,
        /// The sums of their leaves, a byte each.
        sums: Vec<u8>,
    },
    /// The keys the teller holds in the leaves that differ.
    List {
        /// The partition.
        partition: PartitionId,
        /// How many leaves the table is folded to.
        leaves: u32,
        /// By leaf, a short id of each key and what it holds.
        listed: Vec<(u32, Vec<u16>)>,
    },
    /// Which of the listed keys the asker does not hold so.
    Want {
        /// The partition.
        partition: PartitionId,
        /// For each listed key, in order.
        ids: Vec<bool>,
    },
    /// The comparison is over, and what was found equal.
    Done {
        /// The partition.
        partition: PartitionId,
        /// Of how many leaves; of none if nothing could be said.
        leaves: u32,
        /// Those of which nothing could be said.
        without: BTreeSet<u32>,
    },
}

impl Repair {
    /// Returns the partition it is about, the last one of several.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        let last = |first: &PartitionId, count: usize| {
            PartitionId(first.0.saturating_add(u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX)))
        };
        match self {
            Self::Verify { first, sums, .. } => last(first, sums.len()),
            Self::Answer { first, equal, .. } => last(first, equal.len()),
            Self::Snapshot(snapshot) => snapshot.partition,
            Self::Ask { partition, .. }
            | Self::Leaves { partition, .. }
            | Self::List { partition, .. }
            | Self::Want { partition, .. }
            | Self::Done { partition, .. } => *partition,
        }
    }
}

/// What a partition sums up to at a context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The partition.
    pub partition: PartitionId,
    /// What is not visible after this instant does not count, in Unix milliseconds.
    pub horizon_ms: u64,
    /// Everything that was seen.
    pub ctx: Ctx,
    /// How many leaves the table has.
    pub leaves: u32,
    /// Leaves that are left out.
    pub without: BTreeSet<u32>,
    /// The sum of all others.
    pub root: u64,
    /// The sums of buckets of leaves, two bytes each; none if they were not asked for.
    pub buckets: Vec<u8>,
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
    /// The sender is an edge: it does not hold everything.
    pub edge: bool,
}

/// Members a beat names as suspected at most, so that it fits a datagram: where more are silent, hardly anybody is left to
/// agree with.
pub const SUSPECTS_MAX: usize = 32;

/// The highest load a beat may say, in percent.
pub const LOAD_MAX: u8 = 100;

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
    /// How busy the service around the sender is, in percent, if it says so.
    pub load: Option<u8>,
    /// Members the sender does not hear, at most [`SUSPECTS_MAX`].
    pub suspects: BTreeSet<ReplicaId>,
    /// Members the sender votes to remove, at most [`SUSPECTS_MAX`].
    pub gives_up: BTreeSet<ReplicaId>,
}
