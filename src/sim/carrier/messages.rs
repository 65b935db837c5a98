//! The fast carrier: whole messages, with faults per message.
//!
//! A link has what QUIC gives one: an ordered control stream, an ordered log stream, express frames that overtake,
//! datagrams that get lost, a send window, a handshake of a round trip and a half, and a close that does or does not
//! flush.
//!
//! # Invariants
//! * A stream never loses a message without losing its link; what is lost comes later.
//! * At most a send window of each link is under way; beyond it nothing is drained, so the node coalesces.
//! * What the decoder would accept after its bytes were changed counts as lost: an authenticated transport would not
//!   have let it through.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::flight::{Flight, Parcel, Stream};
use crate::clock::Mono;
use crate::node::{CloseCode, DialError, Input, LinkEnd, LinkId, PeerIdentity, PeerSlot};
use crate::sim::network::Conditions;
use crate::wire::{Decoder, Limits};

/// How long a dial takes that nobody answers, as in the shell.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an accepted handshake may take, as in the shell.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a goodbye waits for what was sent before it, as in the shell.
const FLUSH: Duration = Duration::from_secs(2);
/// Control messages that may wait for one link, as in the shell.
const CONTROL_QUEUE: usize = 256;
/// Bytes under way on a link.
const SEND_WINDOW: usize = 4 << 20;
/// The same to a slow host: there the shell's window follows the delay down.
const SLOW_WINDOW: usize = 2 << 10;

/// Something on its way to a host.
#[derive(Clone, Debug)]
enum Item {
    Dialled(PeerIdentity),
    Accepted(PeerIdentity),
    Confirmed,
    Control(Bytes),
    Log(Bytes),
    Beat(Bytes),
    Closed(CloseCode, String),
    /// Alarms a host set itself.
    DialExpired,
    FlushExpired,
}

/// A message that waits for room in the send window.
#[derive(Debug)]
struct Waiting {
    bytes: Bytes,
    /// It is lost once and repeated.
    late: bool,
    express: bool,
}

/// One end of a link.
#[derive(Debug)]
struct End {
    to: usize,
    control: VecDeque<Waiting>,
    log: VecDeque<Waiting>,
    under_way: usize,
    /// It ends when everything was delivered.
    closing: Option<(CloseCode, String)>,
}

impl End {
    fn new(to: usize) -> Self {
        Self { to, control: VecDeque::new(), log: VecDeque::new(), under_way: 0, closing: None }
    }

    fn is_flushed(&self) -> bool {
        self.control.is_empty() && self.log.is_empty() && self.under_way == 0
    }
}

/// A process on a host.
#[derive(Debug)]
struct Process {
    identity: PeerIdentity,
    links: BTreeMap<LinkId, End>,
    /// Dials under way.
    dials: BTreeMap<LinkId, PeerSlot>,
    /// Handshakes accepted and not confirmed yet.
    half: BTreeMap<LinkId, Half>,
}

/// A handshake that waits for the dialler's last word.
#[derive(Debug)]
struct Half {
    from: usize,
    peer: PeerIdentity,
    since: Mono,
}

/// Hosts, their links, and what is under way between them.
#[derive(Debug)]
pub(in crate::sim) struct Messages {
    flight: Flight<Item>,
    processes: BTreeMap<usize, Process>,
    /// What hosts are to be told at once.
    ready: VecDeque<(usize, Input)>,
    links: u64,
    decoder: Decoder,
}

impl Messages {
    pub(super) fn new(conditions: Conditions) -> Self {
        let (flight, decoder) = (Flight::new(conditions), Decoder::default());
        Self { flight, processes: BTreeMap::new(), ready: VecDeque::new(), links: 0, decoder }
    }

    pub(super) fn conditions(&mut self) -> &mut Conditions {
        &mut self.flight.conditions
    }

    pub(super) fn heal(&mut self, now: Mono) {
        self.flight.heal(now);
    }

    pub(super) fn calm(&mut self, now: Mono) {
        self.flight.calm(now);
    }

    pub(super) fn hasten(&mut self, now: Mono) {
        self.flight.hasten(now);
    }

    pub(super) fn start(&mut self, host: usize, identity: &PeerIdentity) {
        let (links, dials, half) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.processes.insert(host, Process { identity: identity.clone(), links, dials, half });
    }

    pub(super) fn crash(&mut self, host: usize) {
        self.processes.remove(&host);
        self.flight.forget_host(host);
        self.ready.retain(|(at, _)| *at != host);
    }

    pub(super) fn dial(&mut self, now: Mono, from: usize, to: usize, slot: PeerSlot) {
        self.links += 1;
        let link = LinkId(self.links);
        let Some(process) = self.processes.get_mut(&from) else { return };
        process.dials.insert(link, slot);
        let item = Item::Dialled(process.identity.clone());
        self.flight.send(now, Parcel::perishable(from, to, link, item));
        self.flight.arrive(now.plus(DIAL_TIMEOUT), Parcel::new(from, from, link, Item::DialExpired));
    }

    pub(super) fn other_end(&self, host: usize, link: LinkId) -> Option<usize> {
        Some(self.processes.get(&host)?.links.get(&link)?.to)
    }

    pub(super) fn control(&mut self, now: Mono, from: usize, link: LinkId, bytes: &Bytes) {
        let (bytes, late) =
            self.spoil(bytes, |decoder, bytes| decoder.decode_control(bytes, &Limits::default()).is_ok());
        let Some(end) = self.open_end(from, link) else { return };
        end.control.push_back(Waiting { bytes, late, express: false });
        let full = end.control.len() > CONTROL_QUEUE;
        self.pump(now, from, link);
        if full {
            self.close(now, from, link, CloseCode::Overloaded, "too much waits to be sent");
        }
    }

    pub(super) fn log(&mut self, now: Mono, from: usize, link: LinkId, bytes: &Bytes, express: bool) {
        let (bytes, late) = self.spoil(bytes, |decoder, bytes| {
            decoder.decode_frame(bytes, &crate::sim::workload::keyspaces(), &Limits::default()).is_ok()
        });
        let Some(end) = self.open_end(from, link) else { return };
        end.log.push_back(Waiting { bytes, late, express });
        self.pump(now, from, link);
    }

    pub(super) fn beat(&mut self, now: Mono, from: usize, link: LinkId, bytes: &Bytes) {
        let (bytes, lost) = self.spoil(bytes, |decoder, bytes| decoder.decode_beat(bytes, &Limits::default()).is_ok());
        let Some(to) = self.open_end(from, link).map(|end| end.to).filter(|_| !lost) else { return };
        self.flight.send_datagram(now, Parcel::perishable(from, to, link, Item::Beat(bytes)));
    }

    /// Changes the bytes of a message now and then; the second value says that it counts as lost instead.
    fn spoil(&mut self, bytes: &Bytes, decodes: impl FnOnce(&mut Decoder, &[u8]) -> bool) -> (Bytes, bool) {
        if !self.flight.conditions.corrupts() {
            return (bytes.clone(), false);
        }
        let garbled = self.flight.conditions.garble(bytes);
        if decodes(&mut self.decoder, &garbled) { (bytes.clone(), true) } else { (garbled, false) }
    }

    /// Returns the end of a link that is up here and not closing.
    fn open_end(&mut self, host: usize, link: LinkId) -> Option<&mut End> {
        self.processes.get_mut(&host)?.links.get_mut(&link).filter(|end| end.closing.is_none())
    }

    /// Sends what waits on a link as far as its window has room, control messages first.
    fn pump(&mut self, now: Mono, from: usize, link: LinkId) {
        loop {
            let Some(end) = self.processes.get_mut(&from).and_then(|p| p.links.get_mut(&link)) else { return };
            let window = if self.flight.conditions.is_slow(end.to) { SLOW_WINDOW } else { SEND_WINDOW };
            if end.under_way >= window {
                return;
            }
            let to = end.to;
            let (stream, next) = match (end.control.pop_front(), &mut end.log) {
                (Some(next), _) => (Stream::Control, Some(next)),
                (None, log) => (Stream::Log, log.pop_front()),
            };
            let Some(Waiting { bytes, late, express }) = next else { break };
            end.under_way += bytes.len();
            let size = bytes.len();
            let item = match stream {
                Stream::Control => Item::Control(bytes),
                Stream::Log => {
                    self.ready.push_back((from, Input::Drained { link, bytes: size }));
                    Item::Log(bytes)
                }
            };
            let sent = if late { now.plus(self.flight.conditions.weather().delay_max * 2) } else { now };
            let parcel = Parcel::new(from, to, link, item).sized(size);
            let parcel = if express { parcel } else { parcel.on(stream) };
            let repeated = express.then(|| Parcel { perishable: true, ..parcel.clone() });
            let at = self.flight.send(sent, parcel);
            if let (Some(repeated), Some(at)) = (repeated, at)
                && let Some(again) = self.flight.conditions.again(at)
            {
                self.flight.arrive(again, repeated);
            }
        }
        self.finish_goodbye(now, from, link, false);
    }

    pub(super) fn close(&mut self, now: Mono, from: usize, link: LinkId, code: CloseCode, reason: &str) {
        let Some(end) = self.open_end(from, link) else { return };
        end.closing = Some((code, reason.to_owned()));
        let flushes = code.flushes();
        if flushes {
            self.flight.arrive(now.plus(FLUSH), Parcel::new(from, from, link, Item::FlushExpired));
        }
        self.finish_goodbye(now, from, link, !flushes);
    }

    /// Ends a link that is closing, when everything was delivered or nothing will wait for it.
    fn finish_goodbye(&mut self, now: Mono, from: usize, link: LinkId, at_once: bool) {
        let Some(process) = self.processes.get_mut(&from) else { return };
        let done = |end: &mut End| end.closing.is_some() && (at_once || end.is_flushed());
        if !process.links.get_mut(&link).is_some_and(done) {
            return;
        }
        let Some(End { to, closing: Some((code, reason)), .. }) = process.links.remove(&link) else { return };
        self.flight.forget_link(from, link);
        self.flight.send(now, Parcel::new(from, to, link, Item::Closed(code, reason.clone())));
        self.ready.push_back((from, Input::LinkDown { link, reason: LinkEnd::Local { code, reason } }));
    }

    pub(super) fn next_at(&self) -> Option<Mono> {
        if self.ready.is_empty() { self.flight.next_at() } else { Some(Mono::default()) }
    }

    pub(super) fn poll(&mut self, now: Mono) -> Option<(usize, Input)> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Some(told);
            }
            let parcel = self.flight.pop(now)?;
            self.deliver(now, parcel);
        }
    }

    fn deliver(&mut self, now: Mono, parcel: Parcel<Item>) {
        let Parcel { from, to, link, item, held, perishable, .. } = parcel;
        match item {
            Item::Dialled(peer) => self.accept(now, (from, to), link, peer),
            Item::Accepted(peer) => {
                let Some(slot) = self.processes.get_mut(&to).and_then(|p| p.dials.remove(&link)) else { return };
                self.link_up(to, link, (from, peer), (Some(slot), Duration::ZERO));
                self.flight.send(now, Parcel::new(to, from, link, Item::Confirmed).on(Stream::Control));
            }
            Item::Confirmed => self.confirm(now, to, link),
            Item::Control(bytes) => self.arrived(now, (from, to), bytes.len(), Input::Control { link, bytes }),
            Item::Log(bytes) => {
                let taken = if perishable { 0 } else { bytes.len() };
                self.arrived(now, (from, to), taken, Input::Log { link, bytes });
            }
            Item::Beat(bytes) => self.arrived(now, (from, to), 0, Input::Beat { link, bytes }),
            Item::Closed(code, reason) => {
                let end = if held { LinkEnd::Reset } else { LinkEnd::Closed { code, reason } };
                self.ended(to, link, end);
            }
            Item::DialExpired => {
                if let Some(slot) = self.processes.get_mut(&to).and_then(|p| p.dials.remove(&link)) {
                    self.ready.push_back((to, Input::DialFailed { slot, reason: DialError::TimedOut }));
                }
            }
            Item::FlushExpired => self.finish_goodbye(now, to, link, true),
        }
    }

    fn accept(&mut self, now: Mono, (from, to): (usize, usize), link: LinkId, peer: PeerIdentity) {
        let Some(process) = self.processes.get_mut(&to) else { return };
        process.half.retain(|_, half| now.since(half.since) < HANDSHAKE);
        process.half.insert(link, Half { from, peer, since: now });
        let item = Item::Accepted(process.identity.clone());
        self.flight.send(now, Parcel::perishable(to, from, link, item));
    }

    /// The dialler has finished the handshake: its link is up here as well.
    fn confirm(&mut self, now: Mono, host: usize, link: LinkId) {
        if let Some(half) = self.processes.get_mut(&host).and_then(|p| p.half.remove(&link)) {
            self.link_up(host, link, (half.from, half.peer), (None, now.since(half.since)));
        }
    }

    fn link_up(
        &mut self,
        host: usize,
        link: LinkId,
        (other, peer): (usize, PeerIdentity),
        (dialled, after): (Option<PeerSlot>, Duration),
    ) {
        if let Some(process) = self.processes.get_mut(&host) {
            process.links.insert(link, End::new(other));
            self.ready.push_back((host, Input::LinkUp { link, peer, dialled, after }));
        }
    }

    /// A message of a link has arrived, which gives `taken` bytes of the sender's window back.
    fn arrived(&mut self, now: Mono, (from, to): (usize, usize), taken: usize, input: Input) {
        let (Input::Control { link, .. } | Input::Log { link, .. } | Input::Beat { link, .. }) = input else { return };
        self.confirm(now, to, link);
        let Some(end) = self.processes.get(&to).and_then(|p| p.links.get(&link)) else { return };
        if end.closing.is_none() {
            self.ready.push_back((to, input));
        }
        if let Some(end) = self.processes.get_mut(&from).and_then(|p| p.links.get_mut(&link)) {
            end.under_way = end.under_way.saturating_sub(taken);
            self.pump(now, from, link);
        }
    }

    /// The other side has closed a link, or is gone.
    fn ended(&mut self, host: usize, link: LinkId, end: LinkEnd) {
        let Some(process) = self.processes.get_mut(&host) else { return };
        process.half.remove(&link);
        let Some(gone) = process.links.remove(&link) else { return };
        self.flight.forget_link(host, link);
        let reason = match gone.closing {
            Some((code, reason)) => LinkEnd::Local { code, reason },
            None => end,
        };
        self.ready.push_back((host, Input::LinkDown { link, reason }));
    }
}
