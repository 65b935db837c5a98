//! What the node wants done, and the words both sides use for how a link ends.
//!
//! # Invariants
//! * A [`CloseCode`] keeps its number for ever: it travels in QUIC's close frame between versions.
//! * A code that this version does not know is kept as [`CloseCode::Unknown`], never guessed.

use std::fmt;

use bytes::Bytes;

use crate::error::{FetchError, PeerFault};
use crate::node::event::{Change, Event};
use crate::node::fetch::FetchId;
use crate::node::input::{LinkId, PeerSlot};
use crate::node::levels::{Outcome, WaitId};
use crate::node::repair::{RepairId, RepairReport};

/// Something the shell (or the simulator) must do for the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Dial an address once.
    Dial {
        /// Names the dial in what comes of it.
        slot: PeerSlot,
        /// What to dial, `host:port`.
        address: String,
        /// How many dials for this slot came before. Of several addresses behind a name another one comes first each time.
        attempt: usize,
    },
    /// Send one message on the control stream.
    Control {
        /// The link.
        link: LinkId,
        /// The message, without a length prefix.
        bytes: Bytes,
    },
    /// Send one frame on a log stream.
    Log {
        /// The link.
        link: LinkId,
        /// The frame, without a length prefix.
        bytes: Bytes,
        /// Let it overtake others on a short stream of its own, if the peer has credit for one.
        express: bool,
    },
    /// Send one heartbeat datagram, or lose it.
    Beat {
        /// The link.
        link: LinkId,
        /// The datagram.
        bytes: Bytes,
    },
    /// Close a link. [`CloseCode::Goodbye`] flushes what was sent before, every other code does not.
    Close {
        /// The link.
        link: LinkId,
        /// Why, for programs.
        code: CloseCode,
        /// Why, for people. The peer sees it too.
        reason: String,
    },
    /// A wait or a read at a level has ended.
    Resolved {
        /// Which one.
        id: WaitId,
        /// How far the write came, or who has answered.
        outcome: Outcome,
    },
    /// A fetch has ended: what there is of the register is here now, or it is not known.
    Fetched {
        /// Which one.
        id: FetchId,
        /// What came of it.
        end: Result<(), FetchError>,
    },
    /// A comparison that was asked for has ended.
    Repaired {
        /// Which one.
        id: RepairId,
        /// What came of it.
        report: RepairReport,
    },
    /// Something users and logs are told.
    Event(Event),
    /// Remote changes in watched keyspaces.
    Changed(Vec<Change>),
}

/// Why one side closed a link, as the other side is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseCode {
    /// The node shuts down in order. What was sent before is flushed first.
    Goodbye,
    /// There is another link to the same replica, which is kept.
    Superseded,
    /// A message did not decode, or a stream was used against the protocol.
    Malformed,
    /// A message or frame was over a limit.
    OverLimit,
    /// Version or configuration do not match.
    Incompatible,
    /// The clocks are too far apart.
    ClockDrift,
    /// The peer's certificate names nobody, or somebody else than the peer claims to be.
    Identity,
    /// The peer's replica id is in use.
    DuplicateReplica,
    /// The peer was removed from the cluster.
    Removed,
    /// The two sides were founded apart.
    SplitHistory,
    /// The peer was too slow to take what it must be told; it resumes from its hello.
    Overloaded,
    /// The peer was silent for too long.
    Silent,
    /// The peer said of this side's events what cannot be.
    Forged,
    /// The peer was removed from the cluster, and is not to come back by itself.
    Expelled,
    /// A code of a later version.
    Unknown(u64),
}

/// Every known code and its number, in the order of [`CloseCode`]. Zero is what QUIC libraries send
/// when a connection is merely dropped, so it names nothing here.
const CODES: [(CloseCode, u64); 14] = [
    (CloseCode::Goodbye, 1),
    (CloseCode::Superseded, 2),
    (CloseCode::Malformed, 3),
    (CloseCode::OverLimit, 4),
    (CloseCode::Incompatible, 5),
    (CloseCode::ClockDrift, 6),
    (CloseCode::Identity, 7),
    (CloseCode::DuplicateReplica, 8),
    (CloseCode::Removed, 9),
    (CloseCode::SplitHistory, 10),
    (CloseCode::Overloaded, 11),
    (CloseCode::Silent, 12),
    (CloseCode::Forged, 13),
    (CloseCode::Expelled, 14),
];

impl CloseCode {
    /// Tells whether what was sent before is flushed first: who is refused because it was removed must hear what its next
    /// id has to be above.
    #[must_use]
    pub fn flushes(self) -> bool {
        matches!(self, Self::Goodbye | Self::Removed | Self::Expelled)
    }

    /// Returns the number that travels.
    #[must_use]
    pub fn number(self) -> u64 {
        if let Self::Unknown(number) = self {
            return number;
        }
        CODES.iter().find(|(code, _)| *code == self).map_or(0, |(_, number)| *number)
    }

    /// Returns the code of a number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        CODES.iter().find(|(_, known)| *known == number).map_or(Self::Unknown(number), |(code, _)| *code)
    }

    /// Returns the code a link is closed with after a fault of its peer.
    #[must_use]
    pub fn of(fault: &PeerFault) -> Self {
        match fault {
            PeerFault::Malformed { .. } => Self::Malformed,
            PeerFault::OverLimit { .. } => Self::OverLimit,
            PeerFault::Incompatible { .. } => Self::Incompatible,
            PeerFault::ClockDrift { .. } => Self::ClockDrift,
            PeerFault::Identity { .. } => Self::Identity,
            PeerFault::DuplicateReplica { .. } => Self::DuplicateReplica,
            PeerFault::Removed { .. } => Self::Removed,
            PeerFault::SplitHistory { .. } => Self::SplitHistory,
            PeerFault::Forged { .. } => Self::Forged,
        }
    }
}

/// One of the two sides of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// This node.
    Us,
    /// The peer.
    Peer,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Us => "this node",
            Self::Peer => "the peer",
        })
    }
}

/// What a TLS handshake was refused for. The certificate in question is the one of the side that
/// did *not* refuse.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The certificate was issued by no CA of the cluster.
    #[error("the certificate was issued by another CA")]
    OtherCa,
    /// The certificate has expired or is not valid yet: renew it, or set the clock.
    #[error("the certificate has expired or is not valid yet")]
    Expired,
    /// No certificate was presented.
    #[error("no certificate was presented")]
    NoCertificate,
    /// The certificate is of the cluster's CA but names no node and region.
    #[error("the certificate names no node and region: {why}")]
    Unnamed {
        /// What is wrong with the name.
        why: &'static str,
    },
    /// The other side speaks another major version of the protocol, or something else altogether.
    #[error("no common protocol version")]
    OtherProtocol,
    /// Anything else.
    #[error("TLS alert {alert}: {text}")]
    Other {
        /// The TLS alert.
        alert: u8,
        /// What the library says about it.
        text: String,
    },
}

/// Why a link ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The peer closed it.
    #[error("closed by the peer ({code:?}): {reason}")]
    Closed {
        /// Why, for programs.
        code: CloseCode,
        /// Why, for people: text from outside.
        reason: String,
    },
    /// This node closed it, by `Output::Close` or because a frame broke the protocol.
    #[error("closed by this node ({code:?}): {reason}")]
    Local {
        /// Why, for programs.
        code: CloseCode,
        /// Why, for people.
        reason: String,
    },
    /// Nothing was heard for the idle timeout.
    #[error("timed out")]
    TimedOut,
    /// The peer has no such connection any more: it restarted.
    #[error("reset by the peer, which has restarted")]
    Reset,
    /// The peer refused this node's certificate. In TLS 1.3 a dialler's link is up before the peer
    /// has seen its certificate, so this may follow `LinkUp`.
    #[error("{by} refused the handshake: {fault}")]
    Tls {
        /// Who refused.
        by: Party,
        /// What for.
        fault: TlsFault,
    },
    /// QUIC itself failed; dial again and resume.
    #[error("QUIC error {code:#x} found by {by}: {text}")]
    Transport {
        /// Who found it.
        by: Party,
        /// The QUIC transport error code.
        code: u64,
        /// What the library says about it.
        text: String,
    },
}

/// Why a connection did not come to be. Nothing but the attempt is lost.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address does not resolve to anything this node's socket can reach.
    #[error("{host} does not resolve to a usable address: {why}")]
    Unresolvable {
        /// The configured address.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// Nobody answered in time.
    #[error("no answer in time")]
    TimedOut,
    /// The other side answered and closed.
    #[error("refused by the peer ({code:?}): {reason}")]
    Refused {
        /// Why, for programs.
        code: CloseCode,
        /// Why, for people: text from outside.
        reason: String,
    },
    /// One side refused the other's certificate.
    #[error("{by} refused the handshake: {fault}")]
    Tls {
        /// Who refused.
        by: Party,
        /// What for.
        fault: TlsFault,
    },
    /// QUIC itself failed.
    #[error("QUIC error {code:#x} found by {by}: {text}")]
    Transport {
        /// Who found it.
        by: Party,
        /// The QUIC transport error code.
        code: u64,
        /// What the library says about it.
        text: String,
    },
    /// This node is shutting down.
    #[error("this node is shutting down")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_number() {
        for (code, number) in CODES {
            assert_eq!(code.number(), number);
            assert_eq!(CloseCode::from_number(number), code);
        }
        assert_eq!(CloseCode::from_number(4_711), CloseCode::Unknown(4_711));
        assert_eq!(CloseCode::Unknown(4_711).number(), 4_711);
    }
}
