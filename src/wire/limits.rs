//! How much a message may hold, on both sides of a link.
//!
//! Every length a peer declares is checked here before anything is reserved for it. The sender
//! keeps to the same limits, so that a message it makes is never one the receiver refuses.
//!
//! # Invariants
//! * Nothing is reserved by a declared length: collections grow as their elements arrive, and
//!   bytes are copied out of an input that was already there.
//! * What one message can make a receiver hold is bounded by the counts below, whatever its size.

use crate::error::PeerFault;
use crate::id::KeyspaceId;
use crate::probe::sometimes;

/// Largest sequence number in a message: arithmetic on dots below it cannot overflow, and no
/// replica counts that far.
pub const SEQ_MAX: u64 = 1 << 56;
/// Deepest nesting of any value in a message.
pub const DEPTH_MAX: u64 = 16;
/// Most addresses of one member: one for each kind of network it is on.
pub const ADDRESSES_MAX: u64 = 4;

/// The bounds of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a frame as it travels: one that compression makes no smaller is within the limit, too, so that what may grow
    /// may be sent. Frames are cut at 64 KiB but where one entry is larger.
    pub frame_bytes: u64,
    /// Bytes of a frame after decompression.
    pub plain_bytes: u64,
    /// Decompressed bytes per compressed byte. Honest frames stay below 20.
    pub ratio: u64,
    /// Bytes of a control message, decompressed or not.
    pub control_bytes: u64,
    /// Bytes of a heartbeat: it must fit in one datagram on any path.
    pub beat_bytes: u64,
    /// Bytes of a key, or of the name of a field, set, member or counter.
    pub key_bytes: u64,
    /// Bytes of a value or custom state.
    pub value_bytes: u64,
    /// Bytes of a region's, cluster's or type's name.
    pub name_bytes: u64,
    /// Replicas named in one message.
    pub replicas: u64,
    /// Ranges beyond the first gap, of one replica in one context. Joining them is quadratic.
    pub gaps: u64,
    /// The same, in one message.
    pub gaps_all: u64,
    /// Replicas over all contexts of one message.
    pub seen: u64,
    /// Partitions in one message.
    pub parts: u64,
    /// Fragments in one frame.
    pub fragments: u64,
    /// Elements, contributions and merged events in one frame.
    pub elems: u64,
    /// Covered dots in one frame, after their runs are expanded.
    pub covers: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: (4 << 20) + (4 << 10),
            plain_bytes: 4 << 20,
            ratio: 64,
            control_bytes: 256 << 10,
            beat_bytes: 1_200,
            key_bytes: 64 << 10,
            value_bytes: u64::try_from(crate::crdt::custom::STATE_BYTES_MAX).unwrap_or(u64::MAX),
            name_bytes: 256,
            replicas: 16_384,
            gaps: 4_096,
            gaps_all: 16_384,
            seen: 131_072,
            parts: 4_096,
            fragments: 32_768,
            elems: 131_072,
            covers: 131_072,
        }
    }
}

/// Something exceeds a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Over {
    pub(super) what: &'static str,
    pub(super) len: u64,
    pub(super) max: u64,
}

impl From<Over> for PeerFault {
    fn from(over: Over) -> Self {
        sometimes!(CountRefused, if over.what.starts_with("number of"));
        sometimes!(LengthRefused, if over.what.starts_with("length of"));
        sometimes!(NumberRefused, if over.what.ends_with("number"));
        sometimes!(SizeRefused, if over.what.ends_with("size"));
        Self::OverLimit { what: over.what, len: over.len, max: over.max }
    }
}

impl From<Over> for Unsendable {
    fn from(over: Over) -> Self {
        Self::OverLimit { what: over.what, len: over.len, max: over.max }
    }
}

/// A message that every receiver would refuse. Nothing was encoded and nothing may count as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// It exceeds a limit.
    #[error("{what} of {len} exceeds the limit of {max} in a message; nothing was encoded, send less at a time")]
    OverLimit {
        /// What is too large.
        what: &'static str,
        /// Its size.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A fragment names a keyspace this process does not have.
    #[error("no keyspace has number {}; nothing was encoded", id.0)]
    UnknownKeyspace {
        /// The number.
        id: KeyspaceId,
    },
}

/// Checks one size.
pub(super) fn within(what: &'static str, len: u64, max: u64) -> Result<(), Over> {
    if len > max { Err(Over { what, len, max }) } else { Ok(()) }
}

/// What is counted over a whole message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counted {
    Replicas,
    Gaps,
    Seen,
    Parts,
    Fragments,
    Elems,
    Covers,
}

/// What a message holds so far.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) limits: Limits,
    replicas: u64,
    gaps: u64,
    seen: u64,
    parts: u64,
    fragments: u64,
    elems: u64,
    covers: u64,
}

impl Tally {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, replicas: 0, gaps: 0, seen: 0, parts: 0, fragments: 0, elems: 0, covers: 0 }
    }

    /// Counts `n` more, or says by how much they are too many.
    pub(super) fn add(&mut self, counted: Counted, n: u64) -> Result<(), Over> {
        let limits = &self.limits;
        let (what, have, max) = match counted {
            Counted::Replicas => ("number of replicas", &mut self.replicas, limits.replicas),
            Counted::Gaps => ("number of gaps", &mut self.gaps, limits.gaps_all),
            Counted::Seen => ("number of replicas in all contexts", &mut self.seen, limits.seen),
            Counted::Parts => ("number of partitions", &mut self.parts, limits.parts),
            Counted::Fragments => ("number of fragments", &mut self.fragments, limits.fragments),
            Counted::Elems => ("number of elements", &mut self.elems, limits.elems),
            Counted::Covers => ("number of covered dots", &mut self.covers, limits.covers),
        };
        *have = have.saturating_add(n);
        within(what, *have, max)
    }
}
