//! The fast carrier: whole messages, with faults per message.
//!
//! # Invariants
//! * One stream of one link delivers in order; different streams overtake each other freely.
//! * What was sent into a cut stays under way until the cut heals, like a retransmission; datagrams are lost there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Mono;
use crate::node::{CloseCode, DialError, Input, LinkEnd, LinkId, PeerIdentity, PeerSlot};
use crate::sim::network::{Conditions, Fate};

/// How long a dial takes that nobody answers.
const DIAL_TIMEOUT: Duration = Duration::from_millis(900);

/// The streams of a link that keep an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stream {
    Control,
    Log,
}

/// An ordered channel of one link in one direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Channel {
    link: LinkId,
    to: usize,
    stream: Stream,
}

/// Something on its way to a host.
#[derive(Clone, Debug)]
enum Item {
    Dialled { link: LinkId, slot: PeerSlot },
    Accepted { link: LinkId, slot: PeerSlot },
    Refused { slot: PeerSlot },
    Control { link: LinkId, bytes: Bytes },
    Log { link: LinkId, bytes: Bytes },
    Beat { link: LinkId, bytes: Bytes },
    Closed { link: LinkId, code: CloseCode, reason: String },
}

/// Something under way.
#[derive(Debug)]
struct Parcel {
    from: usize,
    to: usize,
    channel: Option<Channel>,
    item: Item,
}

/// A process on a host.
#[derive(Debug)]
struct Process {
    identity: PeerIdentity,
    /// Links up here, and the host at the other end.
    links: BTreeMap<LinkId, usize>,
}

/// Hosts and what is under way between them.
#[derive(Debug)]
pub(in crate::sim) struct Messages {
    pub(super) conditions: Conditions,
    processes: BTreeMap<usize, Process>,
    queue: BTreeMap<(Mono, u64), Parcel>,
    held: Vec<Parcel>,
    last: BTreeMap<Channel, Mono>,
    /// What hosts are to be told at once.
    ready: VecDeque<(usize, Input)>,
    sent: u64,
    links: u64,
}

impl Messages {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            processes: BTreeMap::new(),
            queue: BTreeMap::new(),
            held: Vec::new(),
            last: BTreeMap::new(),
            ready: VecDeque::new(),
            sent: 0,
            links: 0,
        }
    }

    pub(super) fn start(&mut self, _now: Mono, host: usize, identity: &PeerIdentity) {
        self.processes.insert(host, Process { identity: identity.clone(), links: BTreeMap::new() });
    }

    pub(super) fn crash(&mut self, _now: Mono, host: usize) {
        self.processes.remove(&host);
        self.ready.retain(|(at, _)| *at != host);
    }

    /// What was held goes on its way, and what was sent behind it on the same stream stays behind it.
    pub(super) fn heal(&mut self, now: Mono) {
        self.conditions.heal();
        let mut late = std::mem::take(&mut self.held);
        let channels: BTreeSet<Channel> = late.iter().filter_map(|p| p.channel).collect();
        for (at, parcel) in std::mem::take(&mut self.queue) {
            if parcel.channel.is_some_and(|c| channels.contains(&c)) {
                late.push(parcel);
            } else {
                self.queue.insert(at, parcel);
            }
        }
        channels.iter().for_each(|channel| {
            self.last.remove(channel);
        });
        late.into_iter().for_each(|parcel| self.send(now, parcel));
    }

    pub(super) fn dial(&mut self, now: Mono, from: usize, to: usize, slot: PeerSlot) {
        self.links += 1;
        let link = LinkId(self.links);
        let open = !self.conditions.is_cut(from, to) && !self.conditions.is_cut(to, from);
        if open && self.processes.contains_key(&to) {
            self.send(now, Parcel { from, to, channel: None, item: Item::Dialled { link, slot } });
        } else {
            let parcel = Parcel { from, to: from, channel: None, item: Item::Refused { slot } };
            self.send(now.plus(DIAL_TIMEOUT), parcel);
        }
    }

    pub(super) fn control(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes) {
        let Some(to) = self.peer_of(from, link) else { return };
        let channel = Some(Channel { link, to, stream: Stream::Control });
        self.send(now, Parcel { from, to, channel, item: Item::Control { link, bytes } });
    }

    pub(super) fn log(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes, express: bool) {
        let Some(to) = self.peer_of(from, link) else { return };
        let size = bytes.len();
        let channel = (!express).then_some(Channel { link, to, stream: Stream::Log });
        self.send(now, Parcel { from, to, channel, item: Item::Log { link, bytes } });
        self.ready.push_back((from, Input::Drained { link, bytes: size }));
    }

    pub(super) fn beat(&mut self, now: Mono, from: usize, link: LinkId, bytes: Bytes) {
        let Some(to) = self.peer_of(from, link) else { return };
        if let Fate::Arrives { at, again } = self.conditions.packet(now, from, to, bytes.len()) {
            for at in std::iter::once(at).chain(again) {
                let item = Item::Beat { link, bytes: bytes.clone() };
                self.arrive(at, Parcel { from, to, channel: None, item });
            }
        }
    }

    pub(super) fn close(&mut self, now: Mono, from: usize, link: LinkId, code: CloseCode, reason: &str) {
        let Some(to) = self.processes.get_mut(&from).and_then(|p| p.links.remove(&link)) else { return };
        let channel = Some(Channel { link, to, stream: Stream::Control });
        // A goodbye comes after everything that was sent before it, whatever stream that took.
        let flushed = if code == CloseCode::Goodbye { self.conditions.weather().delay_max * 4 } else { Duration::ZERO };
        let item = Item::Closed { link, code, reason: reason.to_owned() };
        self.send(now.plus(flushed), Parcel { from, to, channel, item });
        let reason = LinkEnd::Local { code, reason: reason.to_owned() };
        self.ready.push_back((from, Input::LinkDown { link, reason }));
    }

    pub(super) fn next_at(&self) -> Option<Mono> {
        if !self.ready.is_empty() {
            return Some(Mono::default());
        }
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn poll(&mut self, now: Mono) -> Option<(usize, Input)> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Some(told);
            }
            let parcel = self.queue.first_entry().filter(|e| e.key().0 <= now)?.remove();
            if self.conditions.is_cut(parcel.from, parcel.to) {
                if !matches!(parcel.item, Item::Beat { .. }) {
                    self.held.push(parcel);
                }
                continue;
            }
            if let Some(until) = self.conditions.asleep_until(parcel.to, now) {
                self.arrive(until, parcel);
                continue;
            }
            self.deliver(now, parcel);
        }
    }

    fn peer_of(&self, host: usize, link: LinkId) -> Option<usize> {
        self.processes.get(&host)?.links.get(&link).copied()
    }

    fn arrive(&mut self, at: Mono, parcel: Parcel) {
        self.sent += 1;
        self.queue.insert((at, self.sent), parcel);
    }

    /// Sends on an ordered stream, or on one of its own when there is no channel.
    fn send(&mut self, now: Mono, parcel: Parcel) {
        let bytes = match &parcel.item {
            Item::Control { bytes, .. } | Item::Log { bytes, .. } | Item::Beat { bytes, .. } => bytes.len(),
            Item::Dialled { .. } | Item::Accepted { .. } | Item::Refused { .. } | Item::Closed { .. } => 0,
        };
        let Fate::Arrives { mut at, .. } = self.conditions.stream(now, parcel.from, parcel.to, bytes) else {
            self.held.push(parcel);
            return;
        };
        if let Some(channel) = parcel.channel {
            let last = self.last.entry(channel).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.arrive(at, parcel);
    }

    fn deliver(&mut self, now: Mono, parcel: Parcel) {
        let Parcel { from, to, item, .. } = parcel;
        match item {
            Item::Dialled { link, slot } => {
                let item = if self.processes.contains_key(&to) {
                    Item::Accepted { link, slot }
                } else {
                    Item::Refused { slot }
                };
                self.send(now, Parcel { from: to, to: from, channel: None, item });
            }
            // A handshake takes a round trip; then the link is up on both sides at once.
            Item::Accepted { link, slot } => {
                self.link_up(from, link, to, None);
                self.link_up(to, link, from, Some(slot));
            }
            Item::Refused { slot } => self.tell(to, Input::DialFailed { slot, reason: DialError::TimedOut }),
            Item::Closed { link, code, reason } => {
                let known = self.processes.get_mut(&to).and_then(|p| p.links.remove(&link)).is_some();
                if known {
                    self.tell(to, Input::LinkDown { link, reason: LinkEnd::Closed { code, reason } });
                }
            }
            Item::Control { link, bytes } => self.tell_of(to, link, Input::Control { link, bytes }),
            Item::Log { link, bytes } => self.tell_of(to, link, Input::Log { link, bytes }),
            Item::Beat { link, bytes } => self.tell_of(to, link, Input::Beat { link, bytes }),
        }
    }

    fn tell(&mut self, host: usize, input: Input) {
        if self.processes.contains_key(&host) {
            self.ready.push_back((host, input));
        }
    }

    /// Tells a host of something on a link that is up there.
    fn tell_of(&mut self, host: usize, link: LinkId, input: Input) {
        if self.peer_of(host, link).is_some() {
            self.tell(host, input);
        }
    }

    fn link_up(&mut self, host: usize, link: LinkId, other: usize, dialled: Option<PeerSlot>) {
        let Some(peer) = self.processes.get(&other).map(|p| p.identity.clone()) else { return };
        let Some(process) = self.processes.get_mut(&host) else { return };
        process.links.insert(link, other);
        self.tell(host, Input::LinkUp { link, peer, dialled });
    }
}
