//! Nodes, links and time.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use super::network::{Channel, Network, Weather};
use crate::clock::{Mono, Now};
use crate::config::Config;
use crate::error::{ConfigError, WriteError};
use crate::id::{NodeId, ReplicaId};
use crate::node::{
    CloseCode, DialError, Event, Input, LinkEnd, LinkId, Me, Node, Outcome, Output, PeerIdentity, PeerSlot, WaitId,
};
use crate::store::{Intent, KeyRef, Keyspace, Partition, Selector, Store, Tick};

/// Wall clock of every node at virtual time zero.
const EPOCH_MS: u64 = 1_700_000_000_000;
const CONTROL: u8 = 0;
const LOG: u8 = 1;

/// What a cluster is built from.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Nodes; node `i` is in region `r<i>` and knows all others.
    pub nodes: usize,
    /// The network.
    pub weather: Weather,
    /// The configuration of every node; peers and region are filled in.
    pub node: Config,
}

impl Default for SimConfig {
    fn default() -> Self {
        let mut node = Config::wan("r0", "sim:0");
        node.limits.partitions = 4;
        Self { nodes: 3, weather: Weather::default(), node }
    }
}

/// Something on its way to a node.
#[derive(Clone, Debug)]
enum Item {
    Dialled { link: LinkId, from: usize, slot: PeerSlot },
    Accepted { link: LinkId, from: usize, slot: PeerSlot },
    Message { link: LinkId, stream: Option<u8>, bytes: Bytes },
    Closed { link: LinkId, code: CloseCode },
    Refused { slot: PeerSlot },
}

#[derive(Debug)]
struct Host {
    identity: PeerIdentity,
    node: Option<Node>,
    /// Milliseconds this node's wall clock is off.
    skew_ms: i64,
    /// Links up here, and the host at the other end.
    links: BTreeMap<LinkId, usize>,
    events: Vec<Event>,
    outcomes: BTreeMap<WaitId, Outcome>,
    incarnation: u64,
}

/// A cluster in virtual time.
#[derive(Debug)]
pub struct SimCluster {
    config: SimConfig,
    rng: fastrand::Rng,
    network: Network<Item>,
    hosts: Vec<Host>,
    now: Mono,
    links: u64,
    trace: SipHasher13,
}

impl SimCluster {
    /// Builds and starts a cluster; everything in it follows from `seed`.
    ///
    /// # Errors
    /// [`ConfigError`] when the node configuration cannot work.
    pub fn new(seed: u64, config: SimConfig) -> Result<Self, ConfigError> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let network = Network::new(config.weather, rng.u64(..));
        let mut cluster = Self {
            hosts: Vec::new(),
            now: Mono(1),
            links: 0,
            trace: SipHasher13::new_with_keys(seed, 1),
            network,
            rng,
            config,
        };
        for at in 0..cluster.config.nodes {
            let node = NodeId(uuid::Uuid::from_u128(u128::try_from(at).unwrap_or(0) + 1));
            let region = format!("r{at}").as_str().into();
            let identity = PeerIdentity { node, region, expires_ms: u64::MAX };
            let (links, outcomes) = (BTreeMap::new(), BTreeMap::new());
            let host = Host { identity, node: None, skew_ms: 0, links, events: Vec::new(), outcomes, incarnation: 0 };
            cluster.hosts.push(host);
        }
        for at in 0..cluster.config.nodes {
            cluster.start(at)?;
        }
        Ok(cluster)
    }

    /// Starts a node that is not running, empty and under a fresh replica id.
    ///
    /// # Errors
    /// [`ConfigError`] when the node configuration cannot work.
    pub fn start(&mut self, at: usize) -> Result<(), ConfigError> {
        let (replica, seed) = (ReplicaId(self.rng.u64(1..)), self.rng.u64(..));
        let Some(host) = self.hosts.get_mut(at) else { return Ok(()) };
        let mut config = self.config.node.clone();
        config.node.region = host.identity.region.clone();
        config.node.peers = (0..self.config.nodes).filter(|other| *other != at).map(|o| format!("sim:{o}")).collect();
        let me = Me { node: host.identity.node, region: host.identity.region.clone(), replica };
        let store = Arc::new(Store::new(replica, config.store()));
        for custom in &config.custom {
            let opened = store.spaces().open_custom(&custom.keyspace, Arc::clone(&custom.merge));
            debug_assert!(opened.is_ok(), "a fresh store has room for what is declared");
        }
        host.node = Some(Node::new(me, config, store, seed)?);
        host.incarnation += 1;
        self.input(at, Input::Deadline);
        Ok(())
    }

    /// Kills a node: its memory is gone, its peers notice by its silence or a reset.
    pub fn crash(&mut self, at: usize) {
        let Some(host) = self.hosts.get_mut(at) else { return };
        host.node = None;
        host.links.clear();
    }

    /// Cuts one direction between two nodes.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.network.cut(from, to);
    }

    /// Cuts a node off from all others.
    pub fn isolate(&mut self, at: usize) {
        for other in (0..self.hosts.len()).filter(|o| *o != at) {
            self.network.cut(at, other);
            self.network.cut(other, at);
        }
    }

    /// Heals every cut.
    pub fn heal(&mut self) {
        self.network.heal(self.now);
    }

    /// Moves a node's wall clock.
    pub fn set_skew_ms(&mut self, at: usize, skew_ms: i64) {
        if let Some(host) = self.hosts.get_mut(at) {
            host.skew_ms = skew_ms;
        }
    }

    /// Returns how many nodes there are, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Returns a running node.
    #[must_use]
    pub fn node(&self, at: usize) -> Option<&Node> {
        self.hosts.get(at)?.node.as_ref()
    }

    /// Returns a running node's store.
    #[must_use]
    pub fn store(&self, at: usize) -> Option<Arc<Store>> {
        self.node(at).map(|node| Arc::clone(node.store()))
    }

    /// Returns virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now.since(Mono(1))
    }

    /// Returns a node's present instant.
    #[must_use]
    pub fn now(&self, at: usize) -> Now {
        let ms = EPOCH_MS + self.now.0 / 1_000_000;
        let skew = self.hosts.get(at).map_or(0, |h| h.skew_ms);
        Now { mono: self.now, wall_ms: ms.saturating_add_signed(skew) }
    }

    /// Returns and forgets what a node told its users.
    pub fn take_events(&mut self, at: usize) -> Vec<Event> {
        self.hosts.get_mut(at).map(|h| std::mem::take(&mut h.events)).unwrap_or_default()
    }

    /// Returns how a wait ended.
    #[must_use]
    pub fn outcome(&self, at: usize, id: WaitId) -> Option<&Outcome> {
        self.hosts.get(at)?.outcomes.get(&id)
    }

    /// Returns a hash of everything that was delivered so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Runs a local mutation at a node, as its own threads would.
    ///
    /// # Errors
    /// [`WriteError`] as the store says, [`WriteError::NotJoined`] when the node is not running.
    pub fn write<R>(
        &mut self,
        at: usize,
        key: &KeyRef<'_>,
        value_len: Option<usize>,
        f: impl FnOnce(&mut Partition, &Tick<'_>) -> R,
    ) -> Result<R, WriteError> {
        let store = self.store(at).ok_or(WriteError::NotJoined)?;
        let wall_ms = self.now(at).wall_ms;
        let (result, wake) = store.write(key, Intent { wall_ms, value_len }, f)?;
        if wake {
            self.input(at, Input::Written);
        }
        Ok(result)
    }

    /// Clears what a selector matches, as a node's own threads would; nothing happens when the node
    /// does not accept writes.
    pub fn invalidate(&mut self, at: usize, space: &Keyspace, selector: &Selector) {
        let wall_ms = self.now(at).wall_ms;
        let done = self.store(at).map(|store| store.invalidate(space, selector, wall_ms));
        if let Some(Ok((_, true))) = done {
            self.input(at, Input::Written);
        }
    }

    /// Gives a node an input right now, for instance a wait.
    pub fn input(&mut self, at: usize, input: Input) {
        let now = self.now(at);
        let Some(node) = self.hosts.get_mut(at).and_then(|h| h.node.as_mut()) else { return };
        node.handle(now, input);
        while let Some(output) = self.hosts.get_mut(at).and_then(|h| h.node.as_mut()).and_then(Node::poll) {
            self.output(at, output);
        }
    }

    /// Lets virtual time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.step(end) {}
        self.now = end;
    }

    /// Lets virtual time pass until `done`, at most `time`; returns how long it took.
    pub fn run_until(&mut self, time: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now.plus(time));
        loop {
            if done(self) {
                return Some(self.now.since(start));
            }
            let next = self.now.plus(Duration::from_millis(10)).min(end);
            while self.step(next) {}
            self.now = next;
            if next >= end {
                return done(self).then(|| self.now.since(start));
            }
        }
    }

    /// Handles the next thing due by `end`; returns whether there was one.
    fn step(&mut self, end: Mono) -> bool {
        let timers = self.hosts.iter().enumerate().filter_map(|(at, h)| Some((h.node.as_ref()?.next_deadline()?, at)));
        let timer = timers.min();
        let arrival = self.network.next_at();
        let next = timer.map(|(at, _)| at).into_iter().chain(arrival).min();
        let Some(at) = next.filter(|at| *at <= end) else { return false };
        self.now = self.now.max(at);
        if let Some((host, item)) = self.network.pop(self.now) {
            self.deliver(host, item);
        } else if let Some((due, host)) = timer
            && due <= self.now
        {
            self.input(host, Input::Deadline);
        }
        true
    }

    fn output(&mut self, at: usize, output: Output) {
        match output {
            Output::Dial { slot } => self.dial(at, slot),
            Output::Control { link, bytes } => self.send(at, link, Some(CONTROL), bytes),
            Output::Log { link, bytes, express } => {
                let size = bytes.len();
                self.send(at, link, (!express).then_some(LOG), bytes);
                self.input(at, Input::Drained { link, bytes: size });
            }
            Output::Beat { link, bytes } => {
                if let Some(to) = self.peer_of(at, link) {
                    self.network.send_unreliable(self.now, at, to, Item::Message { link, stream: Some(2), bytes });
                }
            }
            Output::Close { link, code, .. } => self.close(at, link, code),
            Output::Resolved { id, outcome } => {
                if let Some(host) = self.hosts.get_mut(at) {
                    host.outcomes.insert(id, outcome);
                }
            }
            Output::Event(event) => {
                if let Some(host) = self.hosts.get_mut(at) {
                    host.events.push(event);
                }
            }
            Output::Changed(_) => {}
        }
    }

    fn peer_of(&self, at: usize, link: LinkId) -> Option<usize> {
        self.hosts.get(at)?.links.get(&link).copied()
    }

    fn dial(&mut self, at: usize, slot: PeerSlot) {
        let Some(to) = (0..self.hosts.len()).filter(|o| *o != at).nth(slot.0) else { return };
        self.links += 1;
        let link = LinkId(self.links);
        let up = self.hosts.get(to).is_some_and(|h| h.node.is_some());
        if up && !self.network.is_cut(at, to) && !self.network.is_cut(to, at) {
            self.network.send(self.now, (at, to), None, Item::Dialled { link, from: at, slot });
        } else {
            let later = self.now.plus(Duration::from_millis(900));
            self.network.send(later, (at, at), None, Item::Refused { slot });
        }
    }

    fn send(&mut self, at: usize, link: LinkId, stream: Option<u8>, bytes: Bytes) {
        let Some(to) = self.peer_of(at, link) else { return };
        let channel = stream.map(|stream| Channel { link: link.0, to, stream });
        self.network.send(self.now, (at, to), channel, Item::Message { link, stream, bytes });
    }

    fn close(&mut self, at: usize, link: LinkId, code: CloseCode) {
        let Some(host) = self.hosts.get_mut(at) else { return };
        let Some(to) = host.links.remove(&link) else { return };
        let channel = Channel { link: link.0, to, stream: CONTROL };
        // A goodbye comes after everything that was sent before it, whatever stream that took.
        let flushed = if code == CloseCode::Goodbye { self.config.weather.delay_max * 4 } else { Duration::ZERO };
        self.network.send(self.now.plus(flushed), (at, to), Some(channel), Item::Closed { link, code });
        let reason = LinkEnd::Local { code, reason: String::new() };
        self.input(at, Input::LinkDown { link, reason });
    }

    fn deliver(&mut self, at: usize, item: Item) {
        self.trace.write_u64(self.now.0);
        self.trace.write_usize(at);
        match item {
            Item::Dialled { link, from, slot } => {
                if self.hosts.get(at).is_some_and(|h| h.node.is_some()) {
                    self.network.send(self.now, (at, from), None, Item::Accepted { link, from: at, slot });
                } else {
                    self.network.send(self.now, (at, from), None, Item::Refused { slot });
                }
            }
            // A handshake takes a round trip; then the link is up on both sides at once.
            Item::Accepted { link, from, slot } => {
                self.link_up(from, link, at, None);
                self.link_up(at, link, from, Some(slot));
            }
            Item::Refused { slot } => self.input(at, Input::DialFailed { slot, reason: DialError::TimedOut }),
            Item::Closed { link, code } => {
                let known = self.hosts.get_mut(at).and_then(|h| h.links.remove(&link)).is_some();
                if known {
                    let reason = LinkEnd::Closed { code, reason: String::new() };
                    self.input(at, Input::LinkDown { link, reason });
                }
            }
            Item::Message { link, stream, bytes } => self.deliver_message(at, link, stream, bytes),
        }
    }

    fn deliver_message(&mut self, at: usize, link: LinkId, stream: Option<u8>, bytes: Bytes) {
        self.trace.write(&bytes);
        if self.peer_of(at, link).is_none() {
            return;
        }
        self.input(
            at,
            match stream {
                Some(CONTROL) => Input::Control { link, bytes },
                Some(LOG) | None => Input::Log { link, bytes },
                Some(_) => Input::Beat { link, bytes },
            },
        );
    }

    fn link_up(&mut self, at: usize, link: LinkId, from: usize, dialled: Option<PeerSlot>) {
        let Some(peer) = self.hosts.get(from).map(|h| h.identity.clone()) else { return };
        let Some(host) = self.hosts.get_mut(at).filter(|h| h.node.is_some()) else { return };
        host.links.insert(link, from);
        self.input(at, Input::LinkUp { link, peer, dialled });
    }
}
