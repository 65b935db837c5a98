//! How links end: what this side says when it closes one, and what the end of a connection means.
//!
//! # Invariants
//! * Pure: the shell and the simulator give the same words and the same meanings.

use quinn::{ConnectionError, VarInt};

use crate::node::{CloseCode, DialError, LinkEnd, Party};
use crate::runtime::framing::OverLimit;
use crate::runtime::tls;

/// Why this side ends a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Closing {
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
}

impl Closing {
    /// The process ends in order.
    pub(crate) fn goodbye() -> Self {
        Self { code: CloseCode::Goodbye, reason: "shutting down".to_owned() }
    }

    /// A queue to the peer is full.
    pub(crate) fn overloaded() -> Self {
        Self { code: CloseCode::Overloaded, reason: "too much waits to be sent".to_owned() }
    }

    /// The peer uses its streams against the protocol.
    pub(crate) fn malformed(reason: &str) -> Self {
        Self { code: CloseCode::Malformed, reason: reason.to_owned() }
    }

    /// The peer took back what it had begun to send.
    pub(crate) fn reset() -> Self {
        Self::malformed("a stream was reset")
    }

    /// The peer does not want to read.
    pub(crate) fn stopped() -> Self {
        Self::malformed("a stream was stopped")
    }

    /// The peer ended a stream in the middle of a frame.
    pub(crate) fn torn() -> Self {
        Self::malformed("a stream ended within a frame")
    }

    /// The peer opened more than the control stream.
    pub(crate) fn second_stream() -> Self {
        Self::malformed("a second bidirectional stream was not agreed")
    }
}

impl From<OverLimit> for Closing {
    fn from(over: OverLimit) -> Self {
        let reason = format!("a frame of {} bytes exceeds the limit of {}", over.len, over.max);
        Self { code: CloseCode::OverLimit, reason }
    }
}

/// Returns the number of a code as QUIC carries it.
pub(crate) fn varint(code: CloseCode) -> VarInt {
    VarInt::from_u64(code.number()).unwrap_or(VarInt::MAX)
}

/// Says what the end of a connection means.
pub(crate) fn end_of(error: ConnectionError) -> LinkEnd {
    match error {
        ConnectionError::ApplicationClosed(close) => LinkEnd::Closed {
            code: CloseCode::from_number(close.error_code.into_inner()),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::ConnectionClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason).into_owned();
            quic_error(Party::Peer, u64::from(close.error_code), text)
        }
        ConnectionError::TransportError(error) => quic_error(Party::Us, u64::from(error.code), error.reason),
        ConnectionError::TimedOut => LinkEnd::TimedOut,
        ConnectionError::Reset => LinkEnd::Reset,
        ConnectionError::LocallyClosed => {
            LinkEnd::Local { code: CloseCode::Goodbye, reason: "the endpoint was closed".to_owned() }
        }
        ConnectionError::VersionMismatch => quic_error(Party::Peer, 0, "no common QUIC version".to_owned()),
        ConnectionError::CidsExhausted => quic_error(Party::Us, 0, "no connection ids are left".to_owned()),
    }
}

/// Tells TLS alerts, which QUIC carries as codes 0x100 to 0x1ff, from QUIC's own errors.
fn quic_error(by: Party, code: u64, text: String) -> LinkEnd {
    match code.checked_sub(0x100).map(u8::try_from) {
        Some(Ok(alert)) => LinkEnd::Tls { by, fault: tls::fault_of(alert, text) },
        Some(Err(_)) | None => LinkEnd::Transport { by, code, text },
    }
}

/// Says what the end of a connection means that had not begun yet.
pub(crate) fn failure_of(end: LinkEnd) -> DialError {
    match end {
        LinkEnd::Closed { code, reason } => DialError::Refused { code, reason },
        LinkEnd::Local { .. } => DialError::Stopped,
        LinkEnd::TimedOut => DialError::TimedOut,
        LinkEnd::Reset => DialError::Refused { code: CloseCode::Unknown(0), reason: "reset".to_owned() },
        LinkEnd::Tls { by, fault } => DialError::Tls { by, fault },
        LinkEnd::Transport { by, code, text } => DialError::Transport { by, code, text },
    }
}
