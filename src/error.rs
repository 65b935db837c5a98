//! What can go wrong, by who must act: one small enum per operation.
//!
//! * The **caller**: [`WriteError`], [`OpenError`], [`StartError`], [`ConfigError`]. Nothing was written.
//! * A **peer**: [`PeerFault`]. Its link closes with a code; the state and the other peers are unaffected.
//! * **Us**: an assertion. Partial success is not an error but a value (see `Outcome`).

mod fetch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use fetch::FetchError;

use crate::id::{NodeId, PartitionId, RegionId, ReplicaId};

/// A local write was refused. Nothing was written anywhere.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is longer than the limit.
    #[error("the key has {len} bytes, the limit is {max}; nothing was written")]
    KeyTooLong {
        /// Bytes of the encoded key.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The value is larger than the limit.
    #[error("the value has {len} bytes, the limit is {max}; nothing was written")]
    ValueTooLarge {
        /// Bytes of the encoded value.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A time to live of zero would expire before anybody could read it.
    #[error("a time to live of zero expires before it can be read; nothing was written, delete the key instead")]
    ZeroTtl,
    /// The keyspace has used its byte budget.
    #[error("the keyspace holds {used} of {budget} bytes; nothing was written, raise the budget or let entries expire")]
    OverCapacity {
        /// Bytes in use.
        used: u64,
        /// The budget in bytes.
        budget: u64,
    },
    /// This node's clock is refused by a majority of its peers, so its stamps would be too.
    #[error(
        "a majority of peers refuses this node's clock ({skew_ms} ms apart); reads go on, nothing was written, set the clock"
    )]
    ClockRefused {
        /// Estimated distance to the peers' clocks in milliseconds.
        skew_ms: u64,
    },
    /// This replica was removed from the cluster and must start again under a new id.
    #[error("this replica was removed from the cluster; nothing was written, restart the node to join again")]
    Removed,
    /// This replica has not joined yet.
    #[error("this node has not joined the cluster yet; nothing was written, wait for `Cache::open` to finish")]
    NotJoined,
    /// This replica hands over what it has, to end or to leave the cluster.
    #[error("this node is draining; nothing was written, write at another one")]
    Draining,
    /// This node stands by: it has everything and takes no writes.
    #[error("this node is a standby; nothing was written, write at an active one, or promote it (`Cache::promote`)")]
    Standby,
    /// The cache was shut down, so a write would reach nobody.
    #[error("this cache was shut down; nothing was written, open it again")]
    Stopped,
    /// A key, field or value has no MessagePack form.
    #[error("the {what} cannot be encoded as MessagePack; nothing was written")]
    Unencodable {
        /// Which part: key, field, member, value or state.
        what: &'static str,
    },
    /// The stored state, which the write was to change, is no value of the type asked for.
    #[error("the stored {what} is no value of the type asked for; nothing was written")]
    Undecodable {
        /// Which part.
        what: &'static str,
    },
    /// The entry would grow past what one frame carries.
    #[error("the entry would take {len} bytes, the limit is {max}; nothing was written, spread it over several keys")]
    EntryTooLarge {
        /// Bytes it would take.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The value has more tags than the limit, or one is too long.
    #[error("a value has at most {max} tags of at most {bytes_max} bytes each; nothing was written")]
    TooManyTags {
        /// The limit.
        max: usize,
        /// The limit of one tag in bytes.
        bytes_max: usize,
    },
    /// Earlier invalidations of the keyspace wait to be known everywhere.
    #[error(
        "{max} invalidations of this keyspace wait until every member has them; nothing was cleared, use a prefix or `All`"
    )]
    TooManyEpochs {
        /// The limit.
        max: usize,
    },
    /// There is no room for the keyspace that an invalidation needs.
    #[error("no further keyspace can be opened, and an invalidation needs one; nothing was cleared")]
    TooManyKeyspaces,
    /// The entry holds as many fields as the limit allows.
    #[error("the entry holds {len} fields, the limit is {max}; nothing was written")]
    TooManyFields {
        /// Fields in the entry.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl WriteError {
    /// Tells whether the same write may succeed later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::OverCapacity { .. }
            | Self::ClockRefused { .. }
            | Self::NotJoined
            | Self::Draining
            | Self::Standby
            | Self::TooManyEpochs { .. } => true,
            Self::KeyTooLong { .. }
            | Self::ValueTooLarge { .. }
            | Self::ZeroTtl
            | Self::Removed
            | Self::Stopped
            | Self::Unencodable { .. }
            | Self::Undecodable { .. }
            | Self::EntryTooLarge { .. }
            | Self::TooManyTags { .. }
            | Self::TooManyKeyspaces
            | Self::TooManyFields { .. } => false,
        }
    }
}

/// A local read failed. The state is unchanged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The key or field has no MessagePack form.
    #[error("the {what} cannot be encoded as MessagePack")]
    Unencodable {
        /// Which part: key, field or member.
        what: &'static str,
    },
    /// The stored bytes are no value of the type asked for.
    #[error("the stored {what} is no value of the type asked for; the entry is unchanged")]
    Undecodable {
        /// Which part: key, field, member, value or state.
        what: &'static str,
    },
}

/// A keyspace could not be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The keyspace exists with another family of types.
    #[error("keyspace {name:?} holds {existing}, not {wanted}; it was not opened")]
    OtherFamily {
        /// The keyspace.
        name: String,
        /// What it holds.
        existing: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The name is empty or longer than the limit.
    #[error("a keyspace name has 1 to {max} bytes, this one has {len}; it was not opened")]
    BadName {
        /// Bytes of the name.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// There are already as many keyspaces as the limit allows.
    #[error("{max} keyspaces are open, which is the limit; this one was not opened")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A custom keyspace must be declared in the configuration, so that peers can compare types.
    #[error("custom keyspace {name:?} is not declared with this type in the configuration; it was not opened")]
    UndeclaredCustom {
        /// The keyspace.
        name: String,
    },
}

/// A configuration that cannot work. Nothing was started.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The partition count is not a power of two from 1 to 4,096.
    #[error("{partitions} partitions: it must be a power of two from 1 to 4096; nothing was started")]
    Partitions {
        /// The configured count.
        partitions: usize,
    },
    /// A field holds a value outside its range.
    #[error("{field}: {why}; nothing was started")]
    Field {
        /// The path of the field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A peer is listed twice.
    #[error("peer {peer} is listed twice; nothing was started")]
    DuplicatePeer {
        /// The address.
        peer: String,
    },
}

/// The cache could not be started. Nothing runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The listening address could not be bound.
    #[error("cannot listen on UDP {addr}: {source}; nothing was started, is another process using the port?")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key file could not be read.
    #[error("cannot read {path}: {source}; nothing was started")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("{what}: {why}; nothing was started")]
    Certificate {
        /// Which one: own certificate, private key or cluster CA.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The node's own certificate names another region or node than the configuration.
    #[error("the certificate names {certificate}, the configuration {config}; nothing was started")]
    OtherIdentity {
        /// What the certificate names.
        certificate: String,
        /// What the configuration names.
        config: String,
    },
    /// The configuration names no certificate, key and CA.
    #[error("no certificate, key and CA are configured (`Config::identity`); nothing was started")]
    NoIdentity,
    /// A keyspace of a declared custom type could not be opened.
    #[error("a declared custom keyspace: {0}; nothing was started")]
    Keyspace(#[from] OpenError),
    /// The node was shut down before it had joined.
    #[error("the node was shut down before it had joined")]
    Stopped,
}

/// A certificate was not replaced: the old one, its key and its CAs stay in use, and every link stays up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The new one cannot be used, for the reason that would have kept the node from starting with it.
    #[error("the certificate in use stays: {0}")]
    Unusable(#[from] StartError),
    /// The cache was shut down.
    #[error("this cache was shut down")]
    Stopped,
}

/// This node's role was not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// This replica was removed from the cluster.
    #[error("this replica was removed from the cluster and plays no part; restart the node to join again")]
    Removed,
    /// This node is an edge, which does not hold what an active node or a standby has to.
    #[error("this node is an edge and stays one until it is started otherwise; its role was not changed")]
    Edge,
    /// This node refuses writes because it hands over what it has, and would go on refusing them.
    #[error("this node hands over what it has and refuses writes; its role was not changed, use `Cache::resume` first")]
    Draining,
    /// This node refuses writes because a majority of its peers refuses its clock, and would go on refusing them.
    #[error(
        "a majority of the peers refuses this node's clock, so it refuses writes; its role was not changed, set the clock"
    )]
    ClockRefused,
    /// This node is no member yet and refuses writes until it is one.
    #[error("this node has not joined the cluster and refuses writes; its role was not changed, try again when it has")]
    NotJoined,
    /// The cache was shut down.
    #[error("this cache was shut down; its role was not changed")]
    Stopped,
}

/// A member was not removed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No member has this replica id: it never had, or was removed before.
    #[error("replica {replica} is no member; nobody was removed")]
    NotAMember {
        /// The replica.
        replica: ReplicaId,
    },
    /// It is this node itself.
    #[error("a node does not remove itself; nobody was removed, use `Cache::leave`")]
    Myself,
    /// The cache was shut down.
    #[error("this cache was shut down; nobody was removed, ask another node")]
    Stopped,
}

/// A node has not handed everything over.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// Members lack something this node has, or there are none.
    #[error(
        "{} members lack something of this node, which stays a member and accepts writes again; try again when they can be \
         reached, or shut down",
        behind.len()
    )]
    NotHandedOver {
        /// The members; none if this node is the only one.
        behind: Vec<ReplicaId>,
    },
    /// Another call made the node accept writes again, or ran out of time, before everything was handed over.
    #[error("the node was told to accept writes again before it had handed everything over; it stays a member")]
    Resumed,
    /// It was removed before it had handed everything over.
    #[error("this replica was removed before it had handed everything over; what no peer has received is lost")]
    Removed,
    /// The cache was shut down.
    #[error("this cache was shut down before it had handed everything over; it may still count as a member")]
    Stopped,
}

/// Any error of the cache, for callers that only pass it on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A write was refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A value was not fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A keyspace could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The cache could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A certificate was not replaced.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// This node's role was not changed.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// A member was not removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// This node has not handed everything over.
    #[error(transparent)]
    Drain(#[from] DrainError),
}

/// Why a peer's link was closed. Nothing it sent in the faulty message was applied; other peers
/// are unaffected. The link is dialled again with back-off.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// A message does not decode.
    #[error("malformed message: {why}; it was dropped whole")]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A message exceeds a limit.
    #[error("{what} of {len} exceeds the limit of {max}; the message was dropped whole")]
    OverLimit {
        /// What is too large.
        what: &'static str,
        /// Its size, as far as it was read.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The peer speaks another version or was configured differently.
    #[error("incompatible: {what} is {theirs} there and {ours} here; align the configuration or the versions")]
    Incompatible {
        /// What differs.
        what: &'static str,
        /// The peer's value.
        theirs: String,
        /// Our value.
        ours: String,
    },
    /// The peer's clock is too far from ours.
    #[error("clock drift: the peer is {ahead_ms} ms ahead, the limit is {max_ms} ms; nothing of it was applied")]
    ClockDrift {
        /// How far ahead in milliseconds.
        ahead_ms: u64,
        /// The limit in milliseconds.
        max_ms: u64,
    },
    /// The peer says it is something its certificate does not name.
    #[error("the peer claims {claimed}, its certificate names {proven}; the link was refused")]
    Identity {
        /// What the hello claims.
        claimed: String,
        /// What the certificate names.
        proven: String,
    },
    /// The peer's replica id is ours, or is in use by another node.
    #[error("replica id {replica} is in use by node {other}; the link was refused, the later one must restart")]
    DuplicateReplica {
        /// The id in use twice.
        replica: ReplicaId,
        /// Who has it.
        other: NodeId,
    },
    /// The peer was removed from the cluster.
    #[error("replica {replica} was removed from the cluster; it must join again under a new id")]
    Removed {
        /// The removed replica.
        replica: ReplicaId,
    },
    /// The peer knows of events of this process that it never made. Ids are fresh for each process, so that is made up,
    /// or the id is in use twice.
    #[error(
        "forged: partition {partition} has {made} events of ours, the peer claims {claimed}; nothing of it was applied"
    )]
    Forged {
        /// The partition.
        partition: PartitionId,
        /// The last event the peer claims.
        claimed: u64,
        /// The last event there is.
        made: u64,
    },
    /// The peer and we were founded apart, and its history cannot be taken in here. If ours cannot be taken in there
    /// either, the process with the lower replica id is removed as well, which is an event of its own.
    #[error(
        "partition {partition} has two unrelated histories, ours and that of region {region}; nothing of theirs was \
         applied and the link is closed. If one of the two processes is reported as removed, start that one again to take \
         over the other's; if neither is, stop the one whose data you give up and start it again"
    )]
    SplitHistory {
        /// The partition.
        partition: PartitionId,
        /// The peer's region.
        region: RegionId,
    },
}

#[cfg(test)]
mod tests {
    use super::WriteError::{self, *};
    use super::{FetchError, ReadError};

    #[test]
    fn a_fetch_is_worth_repeating_unless_the_caller_or_nobody_is_there() {
        let later =
            [FetchError::NotJoined, FetchError::Unreachable, FetchError::TimedOut, FetchError::TooMany { max: 1 }];
        assert!(later.iter().all(FetchError::is_retryable), "{later:?}");
        let never = [FetchError::Read(ReadError::Unencodable { what: "key" }), FetchError::Stopped];
        assert!(!never.iter().any(FetchError::is_retryable), "{never:?}");
    }

    #[test]
    fn a_write_is_worth_repeating_when_the_cluster_may_change_and_not_when_the_caller_must() {
        let later =
            [OverCapacity { used: 2, budget: 1 }, ClockRefused { skew_ms: 9 }, NotJoined, TooManyEpochs { max: 1 }];
        assert!(later.iter().all(WriteError::is_retryable), "{later:?}");
        let (len, max) = (2, 1);
        let never = [
            KeyTooLong { len, max },
            ValueTooLarge { len, max },
            ZeroTtl,
            Removed,
            Stopped,
            Unencodable { what: "key" },
            Undecodable { what: "value" },
            EntryTooLarge { len, max },
            TooManyTags { max, bytes_max: 1 },
            TooManyKeyspaces,
            TooManyFields { len, max },
        ];
        assert!(!never.iter().any(WriteError::is_retryable), "{never:?}");
    }
}
