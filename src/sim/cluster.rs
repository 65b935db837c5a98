//! Nodes, links and time.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::carrier::Carriage;
use super::check::Violation;
use super::config::SimConfig;
use super::folds::Folded;
use super::given::Given;
use super::host::{Host, LinkNote, true_ms};
use super::limit::Lineage;
use super::network::Conditions;
use super::returns::Returns;
use super::seeds::has_bit;
use super::setting::{Carrier, Setting};
use super::suspicion::Suspicions;
use super::tale::Delivered;
use crate::clock::{Mono, Now};
use crate::error::{ConfigError, WriteError};
use crate::id::{NodeId, ReplicaId};
use crate::node::{CloseCode, Event, Input, Level, Mark, Me, Node, Outcome, Output, PeerIdentity, WaitId};
use crate::probe::planted;
use crate::store::{Intent, KeyRef, Keyspace, Partition, Selector, Store, Tick};

/// Virtual time at the start.
const START: Mono = Mono(1);

/// A cluster in virtual time.
#[derive(Debug)]
pub struct SimCluster {
    pub(super) config: SimConfig,
    pub(super) rng: fastrand::Rng,
    pub(super) carriage: Carriage,
    pub(super) hosts: Vec<Host>,
    pub(super) now: Mono,
    /// When which host has to be looked after.
    timers: BTreeSet<(Mono, usize)>,
    pub(super) next_wait: u64,
    /// Replicas an operator ordered removed.
    pub(super) ordered: BTreeSet<ReplicaId>,
    /// An operator looks after the cluster: who learns that it was removed is started again.
    pub(super) tended: bool,
    pub(super) lineage: Lineage,
    pub(super) given: Given,
    pub(super) folded: Folded,
    pub(super) suspicions: Suspicions,
    pub(super) returns: Returns,
    /// How far a clock has been ahead at most.
    pub(super) ahead_ms: i64,
    /// Who took over without a reason.
    pub(super) usurped: Option<Violation>,
    pub(super) trace: SipHasher13,
    pub(super) delivered: Delivered,
}

impl SimCluster {
    /// Builds and starts a cluster; everything in it follows from `seed`.
    ///
    /// # Errors
    /// [`ConfigError`] when the node configuration cannot work.
    pub fn new(seed: u64, config: SimConfig) -> Result<Self, ConfigError> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let conditions = Conditions::new(config.weather, rng.u64(..));
        let carriage = match config.carrier {
            Carrier::Messages => Carriage::messages(conditions),
            #[cfg(feature = "net")]
            Carrier::Quic => Carriage::quic(conditions, rng.u64(..), config.node.replication.loss_tolerant),
            #[cfg(not(feature = "net"))]
            Carrier::Quic => {
                return Err(ConfigError::Field { field: "setting.carrier", why: "needs the feature `net`" });
            }
        };
        let mut cluster = Self {
            hosts: Vec::new(),
            now: START,
            timers: BTreeSet::new(),
            next_wait: 1 << 32,
            ordered: BTreeSet::new(),
            tended: false,
            lineage: Lineage::default(),
            given: Given::default(),
            folded: Folded::default(),
            suspicions: Suspicions::default(),
            ahead_ms: 0,
            usurped: None,
            returns: Returns::default(),
            trace: SipHasher13::new_with_keys(seed, 1),
            delivered: Delivered::default(),
            carriage,
            rng,
            config,
        };
        for at in 0..cluster.configured() {
            let node = NodeId(uuid::Uuid::from_u128(u128::try_from(at).unwrap_or(0) + 1));
            let region = format!("r{at}").as_str().into();
            let mut host = Host::new(PeerIdentity { node, region, expires_ms: u64::MAX }, at);
            host.lies = has_bit(cluster.config.liars, at);
            host.newer = has_bit(cluster.config.newer, at);
            cluster.hosts.push(host);
        }
        for at in 0..cluster.config.nodes {
            cluster.start(at)?;
        }
        Ok(cluster)
    }

    /// Returns how many hosts there are from the start, and further ones that may be started.
    pub(super) fn configured(&self) -> usize {
        self.config.nodes + self.config.spare
    }

    /// Builds and starts the cluster of a plan.
    ///
    /// # Errors
    /// [`ConfigError`] when the setting cannot work.
    pub fn from_setting(seed: u64, setting: &Setting) -> Result<Self, ConfigError> {
        Self::new(seed, SimConfig::from(setting))
    }

    /// Starts a node that is not running, empty and under a fresh replica id.
    ///
    /// # Errors
    /// [`ConfigError`] when the node configuration cannot work.
    pub fn start(&mut self, at: usize) -> Result<(), ConfigError> {
        self.crash(at);
        let (replica, seed) = (self.fresh_replica(at), self.rng.u64(..));
        let (peers, advertise) = self.addresses(at);
        let expected_nodes = (0..self.configured()).filter(|at| !self.is_edge(*at)).count();
        let Some(host) = self.hosts.get_mut(at) else { return Ok(()) };
        let replica = host.replica.filter(|_| planted!(ReplicaIdReused)).unwrap_or(replica);
        let mut config = self.config.node.clone();
        config.node.region = host.identity.region.clone();
        (config.node.peers, config.node.advertise) = (peers, Some(advertise));
        config.membership.expected_nodes = expected_nodes;
        let (standbys, standby) = &self.config.standbys;
        config.node.standby = Some(standby.clone()).filter(|_| has_bit(*standbys, host.place));
        let (edges, edge) = &self.config.edges;
        config.node.edge = Some(edge.clone()).filter(|_| has_bit(*edges, host.place));
        let me = Me { node: host.identity.node, region: host.identity.region.clone(), replica };
        let store = Arc::new(Store::new(replica, config.store()));
        for custom in &config.custom {
            let opened = store.spaces().open_custom(&custom.keyspace, Arc::clone(&custom.merge));
            opened.map_err(|_full| ConfigError::Field { field: "custom", why: "must be keyspaces of their own" })?;
        }
        host.begin(Node::new(me, config, store, seed)?);
        self.carriage.start(at, host.certificate.as_ref().unwrap_or(&host.identity));
        self.input(at, Input::Deadline);
        Ok(())
    }

    /// Makes the id of a process that starts now. No process starts in the millisecond in which another one of its node did.
    fn fresh_replica(&self, at: usize) -> ReplicaId {
        let node = self.hosts.get(at).map_or(NodeId(uuid::Uuid::nil()), |host| host.identity.node);
        let of_node = self.hosts.iter().filter(|host| host.identity.node == node);
        let used: BTreeSet<ReplicaId> =
            of_node.flat_map(|host| host.earlier.iter().chain(&host.replica)).copied().collect();
        let wall_ms = self.now(at).wall_ms;
        let mut replica = ReplicaId::new(node, wall_ms);
        while used.contains(&replica) {
            replica = replica.after(wall_ms);
        }
        replica
    }

    /// Kills a node: its memory is gone, its peers notice by its silence or a reset.
    pub fn crash(&mut self, at: usize) {
        let Some(host) = self.hosts.get_mut(at).filter(|h| h.node.is_some() || h.leaving.is_some()) else { return };
        host.wake(self.now);
        host.end();
        self.carriage.conditions().wake(self.now, at);
        self.carriage.crash(at);
        self.set_timer(at);
    }

    /// Cuts one direction between two nodes.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.carriage.conditions().cut(from, to);
    }

    /// Cuts a node off from all others.
    pub fn isolate(&mut self, at: usize) {
        for other in (0..self.hosts.len()).filter(|o| *o != at) {
            self.carriage.conditions().cut(at, other);
            self.carriage.conditions().cut(other, at);
        }
    }

    /// Heals every cut.
    pub fn heal(&mut self) {
        self.carriage.heal(self.now);
    }

    /// Gives a node a certificate that says somebody else, or `None` for its own again, from its next start on. Over QUIC
    /// a certificate that names none of the first sixteen nodes is one of another CA.
    pub fn certify(&mut self, at: usize, certificate: Option<PeerIdentity>) {
        if let Some(host) = self.hosts.get_mut(at) {
            host.certificate = certificate;
        }
    }

    /// Moves a node's wall clock.
    pub fn set_skew_ms(&mut self, at: usize, skew_ms: i64) {
        self.ahead_ms = self.ahead_ms.max(skew_ms);
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
        self.now.since(START)
    }

    /// Returns what a node's clocks show.
    #[must_use]
    pub fn now(&self, at: usize) -> Now {
        self.hosts.get(at).map_or_else(|| Now { mono: self.now, wall_ms: self.true_ms() }, |h| h.now(self.now))
    }

    /// Returns the wall clock that no node's is off from, in Unix milliseconds.
    #[must_use]
    pub fn true_ms(&self) -> u64 {
        true_ms(self.now)
    }

    /// Returns the latest instant by which any process decides now what is over.
    #[must_use]
    pub fn decides_ms(&self) -> u64 {
        let decides = |at| self.node(at).map(|node| node.store().clock().last().ms().max(self.now(at).wall_ms));
        (0..self.host_count()).filter_map(decides).max().unwrap_or(0)
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
        self.trace.finish() ^ self.carriage.trace()
    }

    /// Runs a local mutation at a node, as its own threads would.
    ///
    /// # Errors
    /// [`WriteError`] as the store says, [`WriteError::NotJoined`] when the node is not running or stands still.
    pub fn write<R>(
        &mut self,
        at: usize,
        key: &KeyRef<'_>,
        value_len: Option<usize>,
        f: impl FnOnce(&mut Partition, &Tick<'_>) -> R,
    ) -> Result<R, WriteError> {
        let store = self.store(at).filter(|_| !self.is_paused(at)).ok_or(WriteError::NotJoined)?;
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
        let done =
            self.store(at).filter(|_| !self.is_paused(at)).map(|store| store.invalidate(space, selector, wall_ms));
        if let Some(Ok((_, true))) = done {
            self.input(at, Input::Written);
        }
    }

    /// Waits at a node for a write to reach a level; the id is for [`SimCluster::outcome`].
    pub fn wait(&mut self, at: usize, mark: Mark, level: Level, within: Duration) -> WaitId {
        self.next_wait += 1;
        let id = WaitId(self.next_wait);
        let deadline = Some(self.now(at).mono.plus(within));
        self.input(at, Input::Wait { id, mark, level, deadline });
        id
    }

    /// Gives a node an input right now, for instance a wait. A host that stands still hears of it when it goes on.
    pub fn input(&mut self, at: usize, input: Input) {
        let Some(host) = self.hosts.get_mut(at) else { return };
        if host.pause.is_some() {
            host.inbox.push_back(input);
        } else if host.node.is_some() {
            self.take(at, input);
        } else if host.leaving.is_some() {
            self.take_while_leaving(at, &input);
        }
    }

    /// What the driver does with an input: the node takes it, then every output is carried out.
    fn take(&mut self, at: usize, input: Input) {
        let bytes = self.note(at, &input);
        let Some(host) = self.hosts.get_mut(at) else { return };
        let now = host.now(self.now);
        if let Input::LinkUp { link, peer, .. } = &input {
            host.links.insert(*link, LinkNote { peer: peer.node, hello: None });
        }
        if let Input::LinkDown { link, .. } = &input {
            host.links.remove(link);
        }
        let Some(node) = host.node.as_mut() else { return };
        node.handle(now, input);
        self.note_folds(at);
        while let Some(output) = self.hosts.get_mut(at).and_then(|h| h.node.as_mut()).and_then(Node::poll) {
            self.output(at, output);
        }
        self.set_timer(at);
        let Some(host) = self.hosts.get_mut(at) else { return };
        host.look(bytes);
        if std::mem::take(&mut host.left) {
            self.go(at);
        } else if std::mem::take(&mut host.told_removed) && self.tended && !self.is_coming_back(at) {
            drop(self.start(at));
        }
    }

    /// A process that is about to end waits for its links to end, and lets nobody in.
    fn take_while_leaving(&mut self, at: usize, input: &Input) {
        self.note(at, input);
        if let Input::LinkUp { link, .. } = input {
            self.carriage.close(self.now, at, *link, CloseCode::Goodbye, "shutting down");
        }
        let Some(host) = self.hosts.get_mut(at) else { return };
        if let Input::LinkDown { link, .. } = input
            && host.links.remove(link).is_some()
            && host.links.is_empty()
        {
            self.crash(at);
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
        let timer = self.timers.first().copied();
        let next = timer.map(|(at, _)| at).into_iter().chain(self.carriage.next_at()).min();
        let Some(at) = next.filter(|at| *at <= end) else { return false };
        self.now = self.now.max(at);
        if let Some((host, input)) = self.carriage.poll(self.now) {
            self.input(host, input);
        } else if let Some((due, host)) = timer
            && due <= self.now
        {
            self.look_after(host);
        }
        true
    }

    /// A host's time has come: its node's deadline, the end of its pause or of its process.
    fn look_after(&mut self, at: usize) {
        let Some(host) = self.hosts.get(at) else { return };
        if host.pause.is_some() {
            self.wake(at);
        } else if host.leaving.is_some() {
            self.crash(at);
        } else {
            self.take(at, Input::Deadline);
        }
    }

    /// A host goes on, hears what it was told and finds its timers late.
    pub(super) fn wake(&mut self, at: usize) {
        let Some(host) = self.hosts.get_mut(at).filter(|h| h.pause.is_some()) else { return };
        let told = host.wake(self.now);
        self.carriage.conditions().wake(self.now, at);
        for input in told.into_iter().chain([Input::Deadline]) {
            self.input(at, input);
        }
        self.set_timer(at);
    }

    /// Registers when a host's timer is due.
    pub(super) fn set_timer(&mut self, at: usize) {
        let Some(host) = self.hosts.get_mut(at) else { return };
        let due = host.next_due();
        let before = std::mem::replace(&mut host.due, due);
        if before != due {
            before.map(|due| self.timers.remove(&(due, at)));
            self.timers.extend(due.map(|due| (due, at)));
        }
    }

    fn output(&mut self, at: usize, output: Output) {
        let Some(host) = self.hosts.get_mut(at) else { return };
        match output {
            Output::Dial { slot, address, .. } => self.dial(at, slot, &address),
            Output::Control { link, bytes } => {
                let bytes = host.first_message(link, bytes);
                self.carriage.control(self.now, at, link, bytes);
            }
            Output::Log { link, bytes, express } => {
                if host.lies {
                    host.last_frame = Some(bytes.clone());
                }
                self.carriage.log(self.now, at, link, bytes, express);
            }
            Output::Beat { link, bytes } => self.carriage.beat(self.now, at, link, bytes),
            Output::Close { link, code, reason } => self.carriage.close(self.now, at, link, code, &reason),
            Output::Resolved { id, outcome } => self.note_outcome(at, id, outcome),
            Output::Fetched { id, end } => {
                host.fetched.insert(id, end);
            }
            Output::Event(event) => {
                host.told_removed |= event == Event::Removed;
                host.left |= matches!(event, Event::Left | Event::Drained);
                host.events.push(event.clone());
                if let Event::Joined { founded } = event {
                    host.joined_at = Some(self.now);
                    self.note_joined(at, founded);
                    if !founded {
                        self.note_given(at);
                    }
                } else if let Event::MemberJoined { replica, .. } = event {
                    self.note_counted(at, replica);
                }
                self.note_suspicion(at, &event);
                self.note_role(at, &event);
                self.note_return(at, &event);
            }
            Output::Repaired { id, report } => {
                host.repaired.insert(id, report);
            }
            Output::Changed(_) => {}
        }
    }
}
