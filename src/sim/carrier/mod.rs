//! What carries links between hosts.
//!
//! A carrier is to the simulated cluster what the endpoint is to the driver: it carries out the outputs that concern the
//! network, and everything it has to say to a node is an [`Input`].
//!
//! # Invariants
//! * For one link at one host: exactly one `LinkUp`, then any number of others, then exactly one `LinkDown`.
//! * Every dial of a running host is answered by one `LinkUp` with its slot or one `DialFailed`.
//! * Nothing here reads a node; what a carrier knows of a host is that it runs, stands still or is gone.

mod flight;
mod messages;
#[cfg(feature = "net")]
mod quic;

use bytes::Bytes;

use self::messages::Messages;
use super::network::Conditions;
use crate::clock::Mono;
use crate::node::{CloseCode, Input, LinkId, PeerIdentity, PeerSlot};

/// A carrier of links.
#[derive(Debug)]
pub(super) enum Carriage {
    /// Messages on ordered streams.
    Messages(Box<Messages>),
    /// QUIC over packets.
    #[cfg(feature = "net")]
    Quic(Box<quic::Quic>),
}

impl Carriage {
    /// Builds a carrier of whole messages over a network.
    pub(super) fn messages(conditions: Conditions) -> Self {
        Self::Messages(Box::new(Messages::new(conditions)))
    }

    /// Builds a carrier of QUIC packets over a network.
    #[cfg(feature = "net")]
    pub(super) fn quic(conditions: Conditions, seed: u64, loss_tolerant: bool) -> Self {
        Self::Quic(Box::new(quic::Quic::new(conditions, seed, loss_tolerant)))
    }

    /// Returns the network under it.
    pub(super) fn conditions(&mut self) -> &mut Conditions {
        match self {
            Self::Messages(carrier) => carrier.conditions(),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => &mut carrier.conditions,
        }
    }

    /// Returns a hash of what arrived below what the hosts are told: packets.
    pub(super) fn trace(&self) -> u64 {
        match self {
            Self::Messages(_) => 0,
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.trace(),
        }
    }

    /// All cuts heal; what they held goes on its way.
    pub(super) fn heal(&mut self, now: Mono) {
        match self {
            Self::Messages(carrier) => carrier.heal(now),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.heal(),
        }
    }

    /// Clogs, slowness and sleep end, and nothing that they delayed is late any more.
    pub(super) fn calm(&mut self, now: Mono) {
        match self {
            Self::Messages(carrier) => carrier.calm(now),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.calm(now),
        }
    }

    /// A host takes in so many bytes per millisecond from now on; 0 ends that.
    pub(super) fn slow(&mut self, now: Mono, host: usize, bytes_per_ms: u64) {
        self.conditions().slow(host, bytes_per_ms);
        match self {
            Self::Messages(carrier) if bytes_per_ms == 0 => carrier.hasten(now),
            Self::Messages(_) => {}
            #[cfg(feature = "net")]
            Self::Quic(_) => {}
        }
    }

    /// A process starts on a host.
    pub(super) fn start(&mut self, host: usize, identity: &PeerIdentity) {
        match self {
            Self::Messages(carrier) => carrier.start(host, identity),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.start(host, identity),
        }
    }

    /// The process of a host ends in order: it lets nobody in any more.
    pub(super) fn leave(&mut self, host: usize) {
        match self {
            // Whoever comes in late is told goodbye at once.
            Self::Messages(_) => tracing::trace!(host, "a process leaves"),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.leave(host),
        }
    }

    /// The process of a host ends without a word.
    pub(super) fn crash(&mut self, host: usize) {
        match self {
            Self::Messages(carrier) => carrier.crash(host),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.crash(host),
        }
    }

    /// A host dials another, which its configuration has under `slot`.
    pub(super) fn dial(&mut self, now: Mono, from: usize, to: usize, slot: PeerSlot) {
        match self {
            Self::Messages(carrier) => carrier.dial(now, from, to, slot),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.dial(now, from, to, slot),
        }
    }

    /// Returns which host is at the other end of a link.
    pub(super) fn other_end(&self, host: usize, link: LinkId) -> Option<usize> {
        match self {
            Self::Messages(carrier) => carrier.other_end(host, link),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.other_end(host, link),
        }
    }

    /// A host sends a control message.
    pub(super) fn control(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes) {
        match self {
            Self::Messages(carrier) => carrier.control(now, from, link, &bytes),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.control(now, from, link, bytes),
        }
    }

    /// A host sends a frame.
    pub(super) fn log(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes, express: bool) {
        match self {
            Self::Messages(carrier) => carrier.log(now, from, link, &bytes, express),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.log(now, from, link, bytes, express),
        }
    }

    /// A host sends a heartbeat.
    pub(super) fn beat(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes) {
        match self {
            Self::Messages(carrier) => carrier.beat(now, from, link, &bytes),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.beat(now, from, link, bytes),
        }
    }

    /// A host closes a link.
    pub(super) fn close(&mut self, now: Mono, from: usize, link: LinkId, code: CloseCode, reason: &str) {
        match self {
            Self::Messages(carrier) => carrier.close(now, from, link, code, reason),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.close(now, from, link, code, reason),
        }
    }

    /// Returns when there is something to [`Carriage::poll`] next; the past when there is now.
    pub(super) fn next_at(&self) -> Option<Mono> {
        match self {
            Self::Messages(carrier) => carrier.next_at(),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.next_at(),
        }
    }

    /// Returns the next thing a host is to be told by `now`.
    pub(super) fn poll(&mut self, now: Mono) -> Option<(usize, Input)> {
        match self {
            Self::Messages(carrier) => carrier.poll(now),
            #[cfg(feature = "net")]
            Self::Quic(carrier) => carrier.poll(now),
        }
    }
}
