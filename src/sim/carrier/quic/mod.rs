//! The thorough carrier: QUIC itself on the virtual clock, with faults per packet.
//!
//! Every process is a `quinn-proto` endpoint with the shell's configuration: real handshakes with certificates of both
//! sides, real streams, flow control, congestion control, resets and timeouts. What is replaced is the socket (packets
//! go through the cluster's [`Conditions`]), the clock (one base instant and virtual time), and every source of chance
//! ([`chance`]), so that a run sends the same bytes every time.
//!
//! # Invariants
//! * Towards the node this behaves as the shell does: same streams, limits, timeouts, close codes and errors.
//! * A packet that meets a cut is lost; one that meets a host standing still waits in that host's socket.
//!
//! What it leaves out: names (a dial goes to one address), a driver that is too busy to take inputs, addresses that
//! change.

mod certificates;
mod chance;
mod endpoint;
mod link;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{EcnCodepoint, TransportConfig};
use siphasher::sip::SipHasher13;

use self::endpoint::{Endpoint, Outgoing};
use crate::clock::Mono;
use crate::node::{CloseCode, Input, LinkId, PeerIdentity, PeerSlot};
use crate::runtime::closing::Closing;
use crate::runtime::transport::transport;
use crate::sim::network::{Conditions, Fate};

/// The port every host listens on.
const PORT: u16 = 4433;
/// Bytes of packets that wait for a host that stands still: what Linux keeps for a socket unless told otherwise.
const SOCKET_BYTES: usize = 208 * 1024;

/// A packet under way.
#[derive(Debug)]
struct Packet {
    from: usize,
    to: usize,
    ecn: Option<EcnCodepoint>,
    bytes: Bytes,
}

/// A process on a host.
#[derive(Debug)]
struct Process {
    endpoint: Endpoint,
    /// When it is to be looked at next, in the cluster's time.
    due: Option<Mono>,
    /// Packets nobody has taken out of its socket yet, and their bytes.
    socket: Vec<Packet>,
    socket_bytes: usize,
}

/// Hosts and the packets between them.
#[derive(Debug)]
pub(in crate::sim) struct Quic {
    pub(super) conditions: Conditions,
    /// The instant of virtual time zero.
    base: Instant,
    rng: fastrand::Rng,
    /// What everything in quinn and rustls draws from that cannot be given a seed.
    chance: fastrand::Rng,
    transport: Arc<TransportConfig>,
    processes: BTreeMap<usize, Process>,
    packets: BTreeMap<(Mono, u64), Packet>,
    sent: u64,
    /// Hosts that were given something to do.
    restless: BTreeSet<usize>,
    due: BTreeSet<(Mono, usize)>,
    /// What nodes are to be told at once.
    ready: VecDeque<(usize, Input)>,
    trace: SipHasher13,
}

impl Quic {
    #[expect(clippy::disallowed_methods, reason = "quinn takes instants, and one cannot be made otherwise")]
    pub(super) fn new(conditions: Conditions, seed: u64, loss_tolerant: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            conditions,
            base: Instant::now(),
            chance: rng.fork(),
            rng,
            transport: Arc::new(transport(true, loss_tolerant)),
            processes: BTreeMap::new(),
            packets: BTreeMap::new(),
            sent: 0,
            restless: BTreeSet::new(),
            due: BTreeSet::new(),
            ready: VecDeque::new(),
            trace: SipHasher13::new_with_keys(seed, 2),
        }
    }

    /// Returns a hash of every packet that arrived so far.
    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// All cuts heal. What they swallowed stays lost: QUIC sends it again.
    pub(super) fn heal(&mut self) {
        self.conditions.heal();
    }

    /// Clogs, slowness and sleep end.
    pub(super) fn calm(&mut self, now: Mono) {
        self.conditions.calm(now);
        self.restless.extend(self.processes.keys());
    }

    pub(super) fn start(&mut self, host: usize, identity: &PeerIdentity) {
        self.crash(host);
        let (rng, transport) = (self.rng.fork(), Arc::clone(&self.transport));
        let endpoint = chance::lend(&mut self.chance, || {
            certificates::identity_of(identity).and_then(|identity| Endpoint::new(&identity, transport, rng))
        });
        match endpoint {
            Ok(endpoint) => {
                self.processes.insert(host, Process { endpoint, due: None, socket: Vec::new(), socket_bytes: 0 });
            }
            Err(error) => tracing::error!(host, %error, "a simulated host has no endpoint"),
        }
    }

    pub(super) fn crash(&mut self, host: usize) {
        if let Some(due) = self.processes.remove(&host).and_then(|process| process.due) {
            self.due.remove(&(due, host));
        }
        self.restless.remove(&host);
        self.ready.retain(|(at, _)| *at != host);
    }

    pub(super) fn leave(&mut self, host: usize) {
        if let Some(process) = self.processes.get_mut(&host) {
            process.endpoint.refuse_strangers();
        }
    }

    pub(super) fn dial(&mut self, now: Mono, from: usize, to: usize, slot: PeerSlot) {
        self.with(now, from, |endpoint, at| endpoint.dial(at, address_of(to), slot));
    }

    pub(super) fn other_end(&self, host: usize, link: LinkId) -> Option<usize> {
        self.processes.get(&host)?.endpoint.other_end(link).and_then(host_of)
    }

    pub(super) fn control(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes) {
        self.with(now, from, |endpoint, at| endpoint.control(at, link, bytes));
    }

    pub(super) fn log(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes, express: bool) {
        self.with(now, from, |endpoint, at| endpoint.log(at, link, bytes, express));
    }

    pub(super) fn beat(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes) {
        self.with(now, from, |endpoint, at| endpoint.beat(at, link, bytes));
    }

    pub(super) fn close(&mut self, now: Mono, from: usize, link: LinkId, code: CloseCode, reason: &str) {
        let closing = Closing { code, reason: reason.to_owned() };
        self.with(now, from, |endpoint, at| endpoint.close(at, link, closing));
    }

    pub(super) fn next_at(&self) -> Option<Mono> {
        if !self.ready.is_empty() || !self.restless.is_empty() {
            return Some(Mono::default());
        }
        let packet = self.packets.first_key_value().map(|((at, _), _)| *at);
        packet.into_iter().chain(self.due.first().map(|(at, _)| *at)).min()
    }

    pub(super) fn poll(&mut self, now: Mono) -> Option<(usize, Input)> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Some(told);
            }
            if let Some(host) = self.restless.pop_first() {
                self.settle(now, host);
                continue;
            }
            let packet = self.packets.first_key_value().map(|((at, _), _)| *at);
            let timer = self.due.first().copied();
            if let Some((at, host)) = timer.filter(|(at, _)| *at <= now && packet.is_none_or(|packet| *at < packet)) {
                self.due.remove(&(at, host));
                if let Some(process) = self.processes.get_mut(&host) {
                    process.due = None;
                }
                self.settle(now, host);
            } else {
                let packet = self.packets.first_entry().filter(|first| first.key().0 <= now)?.remove();
                self.arrive(now, packet);
            }
        }
    }

    /// Returns what a host's clock shows at a moment of virtual time.
    fn instant(&self, now: Mono, host: usize) -> Instant {
        self.base + Duration::from_nanos(now.0).saturating_sub(self.conditions.slept(host, now))
    }

    /// Returns the moment of virtual time at which a host's clock will show something, if it does not stand still again.
    fn moment(&self, at: Instant, host: usize, now: Mono) -> Mono {
        let since = at.saturating_duration_since(self.base) + self.conditions.slept(host, now);
        Mono(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Does something at a process' endpoint, which is settled before anything else happens.
    fn with(&mut self, now: Mono, host: usize, run: impl FnOnce(&mut Endpoint, Instant)) {
        let at = self.instant(now, host);
        let Some(process) = self.processes.get_mut(&host) else { return };
        chance::lend(&mut self.chance, || run(&mut process.endpoint, at));
        self.restless.insert(host);
    }

    /// Lets a process do all it can do now, and takes what it has to say.
    fn settle(&mut self, now: Mono, host: usize) {
        if let Some(until) = self.conditions.asleep_until(host, now) {
            return self.set_due(host, Some(until));
        }
        let at = self.instant(now, host);
        let Some(process) = self.processes.get_mut(&host) else { return };
        process.socket_bytes = 0;
        let (socket, endpoint) = (std::mem::take(&mut process.socket), &mut process.endpoint);
        chance::lend(&mut self.chance, || {
            for packet in &socket {
                endpoint.receive(at, address_of(packet.from), packet.ecn, &packet.bytes);
            }
            endpoint.work(at);
        });
        let packets = std::mem::take(&mut endpoint.packets);
        let told = std::mem::take(&mut endpoint.told);
        let due = endpoint.next_at();
        self.ready.extend(told.into_iter().map(|input| (host, input)));
        let due = due.map(|at| self.moment(at, host, now));
        self.set_due(host, due);
        packets.into_iter().for_each(|packet| self.send(now, host, packet));
    }

    fn set_due(&mut self, host: usize, due: Option<Mono>) {
        let Some(process) = self.processes.get_mut(&host) else { return };
        let before = std::mem::replace(&mut process.due, due);
        if before != due {
            before.map(|at| self.due.remove(&(at, host)));
            self.due.extend(due.map(|at| (at, host)));
        }
    }

    fn send(&mut self, now: Mono, from: usize, packet: Outgoing) {
        let Outgoing { to, ecn, bytes } = packet;
        let Some(to) = host_of(to) else { return };
        let Fate::Arrives { at, again } = self.conditions.packet(now, from, to, bytes.len()) else { return };
        for at in std::iter::once(at).chain(again) {
            let bytes = if self.conditions.corrupts() { self.conditions.garble(&bytes) } else { bytes.clone() };
            self.put(at, Packet { from, to, ecn, bytes });
        }
    }

    fn put(&mut self, at: Mono, packet: Packet) {
        self.sent += 1;
        self.packets.insert((at, self.sent), packet);
    }

    fn arrive(&mut self, now: Mono, packet: Packet) {
        if self.conditions.is_cut(packet.from, packet.to) {
            return;
        }
        let Some(process) = self.processes.get_mut(&packet.to) else { return };
        self.trace.write_u64(now.0);
        self.trace.write_usize(packet.from);
        self.trace.write_usize(packet.to);
        self.trace.write(&packet.bytes);
        if self.conditions.asleep_until(packet.to, now).is_some()
            && process.socket_bytes + packet.bytes.len() > SOCKET_BYTES
        {
            return;
        }
        self.restless.insert(packet.to);
        process.socket_bytes += packet.bytes.len();
        process.socket.push(packet);
    }
}

/// Returns where a host is reached.
fn address_of(host: usize) -> SocketAddr {
    let host = u32::try_from(host).unwrap_or(u32::MAX >> 8);
    SocketAddr::from((Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 1]) + host), PORT))
}

fn host_of(address: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(address) = address else { return None };
    let host = address.ip().to_bits().checked_sub(u32::from_be_bytes([10, 0, 0, 1]))?;
    usize::try_from(host).ok()
}
