//! One process' endpoint: it dials, accepts, and owns its connections, as the shell's does.
//!
//! # Invariants
//! * A touched connection is driven until it has nothing more to say: no event, no packet, no frame is left inside.
//! * Every dial is answered by one `LinkUp` or one `DialFailed`; every `LinkUp` is followed by one `LinkDown`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    AcceptError, ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, EcnCodepoint,
    EndpointConfig, Event, Incoming, ServerConfig, TimeSource, Transmit, TransportConfig,
};

use super::chance::{OwnIds, OwnKey, first_ids};
use super::link::Link;
use crate::error::StartError;
use crate::node::{CloseCode, DialError, Input, LinkEnd, LinkId, Party, PeerSlot};
use crate::runtime::closing::{Closing, end_of, failure_of, varint};
use crate::runtime::tls::{Identity, SERVER_NAME, identity_in};
use crate::runtime::transport::{DIAL_TIMEOUT, HANDSHAKE, HANDSHAKES, HANDSHAKES_FREE_MIN, bound_strangers};

/// Packets QUIC may put into one transmission, as with segmentation offload.
const SEGMENTS: usize = 10;

/// A datagram on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: Bytes,
}

/// What a connection is to the node.
#[derive(Debug)]
enum Stage {
    /// Nothing before its handshake is over.
    Dialling { slot: PeerSlot, until: Instant },
    /// Nothing before its handshake is over.
    Accepting { from: SocketAddr, since: Instant },
    /// A link.
    Up(Box<Link>),
    /// Nothing any more; QUIC waits until the last packets have drained.
    Over,
}

#[derive(Debug)]
struct Attached {
    quic: Connection,
    stage: Stage,
    /// When it is to be touched though nothing happens.
    due: Option<Instant>,
}

impl Attached {
    fn next_at(&mut self) -> Option<Instant> {
        let own = match &self.stage {
            Stage::Dialling { until, .. } => Some(*until),
            Stage::Accepting { since, .. } => Some(*since + HANDSHAKE),
            Stage::Up(link) => link.next_at(),
            Stage::Over => None,
        };
        self.quic.poll_timeout().into_iter().chain(own).min()
    }
}

/// The time retry tokens are judged at: they outlive every handshake.
#[derive(Debug)]
struct OneMoment;

impl TimeSource for OneMoment {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1)
    }
}

/// One process' endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    quic: quinn_proto::Endpoint,
    dialling: ClientConfig,
    connections: BTreeMap<ConnectionHandle, Attached>,
    links: BTreeMap<LinkId, ConnectionHandle>,
    next_link: u64,
    handshakes: usize,
    rng: fastrand::Rng,
    due: BTreeSet<(Instant, ConnectionHandle)>,
    touched: BTreeSet<ConnectionHandle>,
    buffer: Vec<u8>,
    /// What is to be sent.
    pub(super) packets: Vec<Outgoing>,
    /// What the node is to be told.
    pub(super) told: VecDeque<Input>,
}

impl Endpoint {
    /// Makes the endpoint of a process that has just started.
    pub(super) fn new(
        identity: &Identity,
        transport: Arc<TransportConfig>,
        mut rng: fastrand::Rng,
    ) -> Result<Self, StartError> {
        let key = OwnKey(rng.u64(..));
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        let mut config = EndpointConfig::new(Arc::new(key));
        config.rng_seed(Some(seed)).cid_generator(move || Box::new(OwnIds(key)));
        let mut server = ServerConfig::new(Arc::new(identity.server()?), Arc::new(key));
        bound_strangers(&mut server, Arc::clone(&transport));
        server.time_source(Arc::new(OneMoment));
        let mut dialling = ClientConfig::new(Arc::new(identity.client()?));
        dialling.transport_config(transport).initial_dst_cid_provider(first_ids());
        Ok(Self {
            quic: quinn_proto::Endpoint::new(Arc::new(config), Some(Arc::new(server)), true, None),
            dialling,
            connections: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 1,
            handshakes: 0,
            rng,
            due: BTreeSet::new(),
            touched: BTreeSet::new(),
            buffer: Vec::new(),
            packets: Vec::new(),
            told: VecDeque::new(),
        })
    }

    /// Turns strangers away from here on.
    pub(super) fn refuse_strangers(&mut self) {
        self.quic.set_server_config(None);
    }

    /// Returns when something is due though nothing happens; the past when something is now.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn dial(&mut self, now: Instant, to: SocketAddr, slot: PeerSlot) {
        match self.quic.connect(now, self.dialling.clone(), to, SERVER_NAME) {
            Ok((handle, quic)) => {
                let stage = Stage::Dialling { slot, until: now + DIAL_TIMEOUT };
                self.connections.insert(handle, Attached { quic, stage, due: None });
                self.touched.insert(handle);
            }
            Err(error) => {
                let reason = DialError::Unresolvable { host: to.to_string(), why: error.to_string() };
                self.told.push_back(Input::DialFailed { slot, reason });
            }
        }
    }

    /// Takes a datagram in.
    pub(super) fn receive(&mut self, now: Instant, from: SocketAddr, ecn: Option<EcnCodepoint>, bytes: &Bytes) {
        self.buffer.clear();
        let data = BytesMut::from(bytes.as_ref());
        match self.quic.handle(now, from, None, ecn, data, &mut self.buffer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    if let Stage::Up(link) = &mut connection.stage {
                        link.follow_delay(now, &mut connection.quic);
                    }
                    connection.quic.handle_event(event);
                    self.touched.insert(handle);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, incoming),
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit),
            None => {}
        }
    }

    fn accept(&mut self, now: Instant, incoming: Incoming) {
        let from = incoming.remote_address();
        self.buffer.clear();
        if self.handshakes >= HANDSHAKES {
            let refusal = self.quic.refuse(incoming, &mut self.buffer);
            return self.respond(&refusal);
        }
        if HANDSHAKES - self.handshakes - 1 < HANDSHAKES_FREE_MIN && incoming.may_retry() {
            match self.quic.retry(incoming, &mut self.buffer) {
                Ok(retry) => self.respond(&retry),
                Err(error) => self.quic.ignore(error.into_incoming()),
            }
            return;
        }
        match self.quic.accept(incoming, now, &mut self.buffer, None) {
            Ok((handle, quic)) => {
                self.handshakes += 1;
                let stage = Stage::Accepting { from, since: now };
                self.connections.insert(handle, Attached { quic, stage, due: None });
                self.touched.insert(handle);
            }
            Err(AcceptError { cause, response }) => {
                if let Some(response) = response {
                    self.respond(&response);
                }
                self.told.push_back(Input::AcceptFailed { from, reason: failure_of(end_of(cause)) });
            }
        }
    }

    /// Returns where the other end of a link is.
    pub(super) fn other_end(&self, link: LinkId) -> Option<SocketAddr> {
        Some(self.connections.get(self.links.get(&link)?)?.quic.remote_address())
    }

    pub(super) fn control(&mut self, now: Instant, link: LinkId, bytes: Bytes) {
        self.queue(now, link, |link, _| link.control(bytes));
    }

    pub(super) fn log(&mut self, now: Instant, link: LinkId, bytes: Bytes, express: bool) {
        self.queue(now, link, |link, _| link.log(bytes, express));
    }

    pub(super) fn beat(&mut self, now: Instant, link: LinkId, bytes: Bytes) {
        self.queue(now, link, |_, quic| {
            // A beat that cannot be sent is lost, as in the shell.
            drop(quic.datagrams().send(bytes, true));
            Ok(())
        });
    }

    pub(super) fn close(&mut self, now: Instant, link: LinkId, closing: Closing) {
        let Some(handle) = self.links.get(&link).copied() else { return };
        let Some(mut connection) = self.connections.remove(&handle) else { return };
        self.end(now, &mut connection, closing);
        self.connections.insert(handle, connection);
        self.touched.insert(handle);
    }

    fn queue(
        &mut self,
        now: Instant,
        link: LinkId,
        put: impl FnOnce(&mut Link, &mut Connection) -> Result<(), Closing>,
    ) {
        let Some(handle) = self.links.get(&link).copied() else { return };
        let Some(connection) = self.connections.get_mut(&handle) else { return };
        let Stage::Up(up) = &mut connection.stage else { return };
        if up.is_flushing() {
            return;
        }
        let put = put(up, &mut connection.quic);
        self.touched.insert(handle);
        if let Err(closing) = put {
            self.close(now, link, closing);
        }
    }

    /// This side ends a link: a goodbye flushes first.
    fn end(&mut self, now: Instant, connection: &mut Attached, closing: Closing) {
        let Stage::Up(link) = &mut connection.stage else { return };
        if link.is_flushing() {
            return;
        }
        if closing.code.flushes() {
            link.flush(now, closing);
        } else {
            let id = link.id;
            self.over(now, connection, id, closing);
        }
    }

    fn over(&mut self, now: Instant, connection: &mut Attached, link: LinkId, closing: Closing) {
        let Closing { code, reason } = closing;
        connection.quic.close(now, varint(code), Bytes::from(reason.clone()));
        self.down(connection, link, LinkEnd::Local { code, reason });
    }

    fn down(&mut self, connection: &mut Attached, link: LinkId, reason: LinkEnd) {
        connection.stage = Stage::Over;
        self.links.remove(&link);
        self.told.push_back(Input::LinkDown { link, reason });
    }

    /// Does everything there is to do by now.
    pub(super) fn work(&mut self, now: Instant) {
        while let Some((_, handle)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_first();
            if let Some(connection) = self.connections.get_mut(&handle) {
                connection.due = None;
                if let Stage::Up(link) = &mut connection.stage {
                    link.follow_delay(now, &mut connection.quic);
                }
                connection.quic.handle_timeout(now);
                self.touched.insert(handle);
            }
        }
        while let Some(handle) = self.touched.pop_first() {
            if let Some(mut connection) = self.connections.remove(&handle) {
                self.drive(now, handle, &mut connection);
                let due = if connection.quic.is_drained() { None } else { connection.next_at() };
                if connection.due != due {
                    connection.due.map(|at| self.due.remove(&(at, handle)));
                    self.due.extend(due.map(|at| (at, handle)));
                    connection.due = due;
                }
                if !connection.quic.is_drained() {
                    self.connections.insert(handle, connection);
                }
            }
        }
    }

    /// Drives one connection until it is quiet.
    fn drive(&mut self, now: Instant, handle: ConnectionHandle, connection: &mut Attached) {
        loop {
            self.judge_deadlines(now, connection);
            let worked = match &mut connection.stage {
                Stage::Up(link) => {
                    link.follow_delay(now, &mut connection.quic);
                    link.work(&mut connection.quic, &mut self.rng, &mut self.told)
                }
                Stage::Dialling { .. } | Stage::Accepting { .. } | Stage::Over => Ok(()),
            };
            if let Err(fault) = worked {
                self.end(now, connection, fault);
            }
            self.transmit(now, &mut connection.quic);
            let mut quiet = true;
            while let Some(event) = connection.quic.poll_endpoint_events() {
                quiet = false;
                if let Some(answer) = self.quic.handle_event(handle, event) {
                    connection.quic.handle_event(answer);
                }
            }
            while let Some(event) = connection.quic.poll() {
                quiet = false;
                self.on_event(now, handle, connection, event);
            }
            if quiet {
                return;
            }
        }
    }

    /// Gives up what has taken too long.
    fn judge_deadlines(&mut self, now: Instant, connection: &mut Attached) {
        let timed_out = match &mut connection.stage {
            Stage::Dialling { slot, until } if *until <= now => {
                Input::DialFailed { slot: *slot, reason: DialError::TimedOut }
            }
            Stage::Accepting { from, since } if *since + HANDSHAKE <= now => {
                self.handshakes -= 1;
                Input::AcceptFailed { from: *from, reason: DialError::TimedOut }
            }
            Stage::Up(link) => {
                if let Some(closing) = link.flushed(now) {
                    let id = link.id;
                    self.over(now, connection, id, closing);
                }
                return;
            }
            Stage::Dialling { .. } | Stage::Accepting { .. } | Stage::Over => return,
        };
        // The shell drops the attempt, which closes it without a word.
        connection.quic.close(now, varint(CloseCode::Unknown(0)), Bytes::new());
        connection.stage = Stage::Over;
        self.told.push_back(timed_out);
    }

    fn on_event(&mut self, now: Instant, handle: ConnectionHandle, connection: &mut Attached, event: Event) {
        match event {
            Event::Connected => self.on_connected(now, handle, connection),
            Event::ConnectionLost { reason } => self.on_lost(connection, reason),
            Event::Stream(event) => {
                if let Stage::Up(link) = &mut connection.stage {
                    link.on_event(event);
                }
            }
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    /// A handshake is over: whoever is named becomes a link.
    fn on_connected(&mut self, now: Instant, handle: ConnectionHandle, connection: &mut Attached) {
        let (dialled, from, after) = match &connection.stage {
            Stage::Dialling { slot, .. } => (Some(*slot), connection.quic.remote_address(), Duration::ZERO),
            Stage::Accepting { from, since } => {
                self.handshakes -= 1;
                (None, *from, now - *since)
            }
            Stage::Up(_) | Stage::Over => return,
        };
        match identity_in(connection.quic.crypto_session().peer_identity()) {
            Ok(peer) => {
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.links.insert(link, handle);
                connection.stage = Stage::Up(Box::new(Link::new(link, dialled.is_some(), now)));
                self.told.push_back(Input::LinkUp { link, peer, dialled, after });
            }
            Err(fault) => {
                connection.quic.close(now, varint(CloseCode::Identity), Bytes::from(fault.to_string()));
                connection.stage = Stage::Over;
                let reason = DialError::Tls { by: Party::Us, fault };
                self.told.push_back(match dialled {
                    Some(slot) => Input::DialFailed { slot, reason },
                    None => Input::AcceptFailed { from, reason },
                });
            }
        }
    }

    fn on_lost(&mut self, connection: &mut Attached, error: ConnectionError) {
        let end = end_of(error);
        match &mut connection.stage {
            Stage::Dialling { slot, .. } => {
                let slot = *slot;
                self.told.push_back(Input::DialFailed { slot, reason: failure_of(end) });
                connection.stage = Stage::Over;
            }
            Stage::Accepting { from, .. } => {
                self.handshakes -= 1;
                self.told.push_back(Input::AcceptFailed { from: *from, reason: failure_of(end) });
                connection.stage = Stage::Over;
            }
            Stage::Up(link) => {
                let id = link.id;
                let end = match link.ends_flushing() {
                    Some(Closing { code, reason }) => LinkEnd::Local { code, reason },
                    None => {
                        // What the peer sent before it closed is delivered before the end is; a fault in it comes late.
                        drop(link.read(&mut connection.quic, &mut self.rng, &mut self.told));
                        end
                    }
                };
                self.down(connection, id, end);
            }
            Stage::Over => {}
        }
    }

    fn transmit(&mut self, now: Instant, quic: &mut Connection) {
        loop {
            self.buffer.clear();
            let Some(transmit) = quic.poll_transmit(now, SEGMENTS, &mut self.buffer) else { return };
            self.respond(&transmit);
        }
    }

    /// Sends what is in the buffer.
    fn respond(&mut self, transmit: &Transmit) {
        let bytes = self.buffer.get(..transmit.size).unwrap_or_default();
        for bytes in bytes.chunks(transmit.segment_size.unwrap_or(usize::MAX).max(1)) {
            let bytes = Bytes::copy_from_slice(bytes);
            self.packets.push(Outgoing { to: transmit.destination, ecn: transmit.ecn, bytes });
        }
    }
}
