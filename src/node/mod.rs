//! The node: every protocol of one replica as one state machine, without a clock, a socket or a task.
//!
//! # The drain rule
//! The caller (the driver in `runtime`, the simulator, or a program of your own) repeats:
//! 1. [`Node::handle`] with the present instant and one [`Input`];
//! 2. [`Node::poll`] until it returns `None`, carrying out every [`Output`];
//! 3. wait for the next input, or until [`Node::next_deadline`], which is [`Input::Deadline`].
//!
//! # Invariants
//! * The same inputs at the same instants give the same outputs: the only randomness is the seeded
//!   generator given to [`Node::new`].
//! * Work per input is bounded by what it carries and by the waits and entries of the partitions it
//!   touches; what a flush or sweep leaves over is due at once.
//! * Nothing a peer sends changes another peer's data, and no peer delays a local write.
//!
//! This file only routes: what an input means is in the file named after it.

pub mod dial;
mod edge;
mod ends;
pub mod event;
mod expiry;
pub mod fetch;
mod fold;
mod forgery;
mod gate;
pub mod gauges;
mod hello;
pub mod input;
mod join;
mod leave;
pub mod levels;
pub mod link;
mod members;
mod missing;
pub mod output;
mod pen;
mod profile;
pub mod quarantine;
mod reach;
pub mod read;
mod receive;
mod rejoin;
mod repair;
mod role;
mod send;
pub mod stats;
mod tick;
mod twins;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use event::{Change, Departure, Event};
pub use fetch::{EdgeStats, FetchId};
pub use gauges::{Gauge, Gauges};
pub use input::{Input, LinkId, PeerIdentity, PeerSlot};
pub use levels::{Level, Mark, Missing, Outcome, WaitId};
pub use output::{CloseCode, DialError, LinkEnd, Output, Party, TlsFault};
pub use quarantine::Poison;
pub use repair::{RepairId, RepairReport, RepairStats};
pub use stats::{PeerStats, Stats};
pub use view::{Belonging, ClusterView, MemberView, RegionView};

pub use crate::membership::{Reach, Recovery, Status};

use crate::clock::{Mono, Now};
use crate::config::Config;
use crate::crdt::{Ctx, MemberSet};
use crate::error::ConfigError;
use crate::id::{NodeId, PartitionId, RegionId, ReplicaId};
use crate::membership::{Liveness, Outages};
use crate::probe::sometimes;
use crate::replication::Outbox;
use crate::store::{Gate, Store};
use crate::wire::{Control, Decoder, Encoder, LOAD_MAX, Limits, Unsendable};
use dial::Slots;
use edge::Keeping;
use expiry::Expiry;
use fetch::Fetches;
use join::Join;
use leave::Drain;
use levels::Waits;
use link::{Link, Session};
use pen::Pen;
use quarantine::Quarantine;
use read::Reads;
use rejoin::Past;
use repair::Repairs;
use role::Part;
use tick::Timers;
use twins::Twins;

/// Who this node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Me {
    /// The stable identity.
    pub node: NodeId,
    /// The region.
    pub region: RegionId,
    /// The identity of this running copy.
    pub replica: ReplicaId,
}

/// One replica's protocols. Dropping it stops its store.
#[derive(Debug)]
pub struct Node {
    me: Me,
    config: Config,
    store: Arc<Store>,
    rng: fastrand::Rng,
    members: MemberSet,
    /// What others than the donor say of members, until this node has joined.
    hearsay: MemberSet,
    /// Replicas that were members here at some time, this one included: no more than `members` names, and one of each node
    /// below its floor.
    lived: BTreeSet<ReplicaId>,
    /// Orphans that were found to have seen all that is stable here.
    cleared: BTreeSet<ReplicaId>,
    /// Grows with every change of `members`.
    members_version: u64,
    links: BTreeMap<LinkId, Link>,
    /// Who can be reached.
    liveness: Liveness,
    /// Which regions could not be.
    outages: Outages,
    slots: Slots,
    /// Members, or who was met, have changed since what follows from them was last looked at.
    untended: bool,
    /// Somebody was met wherever somebody is expected.
    met: bool,
    join: Join,
    /// The last member of whom this node took state before it joined.
    copied_from: Option<ReplicaId>,
    /// Former replicas of this process, and what is left of them.
    past: Past,
    outbox: Outbox,
    waits: Waits,
    pen: Pen,
    twins: Twins,
    quarantine: Quarantine,
    /// Partitions to collect at the next report.
    touched: BTreeSet<PartitionId>,
    /// Frame bytes received since the last report.
    received_bytes: usize,
    /// Batches and full synchronisations joined in since the start.
    news: u64,
    /// How often something was folded.
    folds: u64,
    /// What was seen one relay interval ago.
    seen_before: Vec<(PartitionId, Ctx)>,
    timers: Timers,
    encoder: Encoder,
    decoder: Decoder,
    limits: Limits,
    stats: Stats,
    clock_refused: bool,
    drain: Drain,
    part: Part,
    /// What an edge keeps.
    keeping: Keeping,
    /// What it is fetching.
    fetches: Fetches,
    /// What is read at a level.
    reads: Reads,
    /// The comparisons of copies.
    repairs: Repairs,
    /// Of this node's certificate, once the shell has said so.
    expiry: Option<Expiry>,
    /// How busy the service around this node is, in percent, if it has said so.
    load: Option<u8>,
    stopping: bool,
    /// The instant of the last input.
    last: Mono,
    out: VecDeque<Output>,
}

impl Node {
    /// Builds a node around a store; `seed` is its only randomness.
    ///
    /// # Errors
    /// [`ConfigError`] when the configuration cannot work. Nothing was started.
    pub fn new(me: Me, config: Config, store: Arc<Store>, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        // What is missing at an edge was given back, so its graves prove nothing.
        if config.repair.every.is_some() && config.node.edge.is_none() {
            store.wait_for_comparisons();
        }
        let outbox = Outbox::new(store.partition_count(), config.replication.linger);
        let limits = Limits::default();
        let encoder = Encoder::new(limits);
        Ok(Self {
            rng: fastrand::Rng::with_seed(seed),
            members: MemberSet::default(),
            hearsay: MemberSet::default(),
            lived: BTreeSet::new(),
            cleared: BTreeSet::new(),
            members_version: 1,
            links: BTreeMap::new(),
            liveness: Liveness::default(),
            outages: Outages::default(),
            slots: Slots::new(&config.node.peers),
            untended: true,
            met: false,
            join: Join::Seeking { since: None },
            copied_from: None,
            past: Past::default(),
            outbox,
            waits: Waits::default(),
            pen: Pen::default(),
            twins: Twins::default(),
            quarantine: Quarantine::default(),
            touched: BTreeSet::new(),
            received_bytes: 0,
            news: 0,
            folds: 0,
            seen_before: Vec::new(),
            timers: Timers::default(),
            encoder: if config.replication.compress { encoder } else { encoder.without_compression() },
            decoder: Decoder::default(),
            limits,
            stats: Stats::default(),
            clock_refused: false,
            drain: Drain::No,
            part: Part::new(config.node.standby.is_some()),
            keeping: Keeping::default(),
            fetches: Fetches::default(),
            reads: Reads::default(),
            repairs: Repairs::new(seed, config.repair.bytes_per_second),
            expiry: None,
            load: None,
            stopping: false,
            last: Mono::default(),
            out: VecDeque::new(),
            me,
            config,
            store,
        })
    }

    /// Takes one input in. Drain [`Node::poll`] afterwards.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.last = now.mono;
        self.forgive_lateness(now);
        match input {
            Input::LinkUp { link, peer, dialled, after } => self.on_link_up(now, link, peer, (dialled, after)),
            Input::Control { link, bytes } => self.on_control(now, link, &bytes),
            Input::Log { link, bytes } => self.on_frame(now, link, &bytes),
            Input::Beat { link, bytes } => self.on_beat(now, link, &bytes),
            Input::Drained { link, bytes } => self.on_drained(now, link, bytes),
            Input::LinkDown { link, reason } => self.on_link_down(now, link, &reason),
            Input::DialFailed { slot, reason } => self.on_dial_failed(now, slot, &reason),
            Input::AcceptFailed { .. } | Input::Deadline => {}
            Input::Written => self.outbox.mark(self.store.take_dirty()),
            Input::Wait { id, mark, level, deadline } => self.on_wait(now, id, mark, level, deadline),
            Input::CancelWait { id } => self.on_cancel(id),
            Input::Fetch { id, keyspace, key } => self.on_fetch(now, id, keyspace, key),
            Input::Read { id, keyspace, key, level, deadline } => {
                self.on_read(now, id, (keyspace, key), level, deadline);
            }
            Input::Remove { replica } => self.expel(now, replica),
            Input::Rejoin => self.on_rejoin(now),
            Input::Drain { leave } => self.on_drain(now, leave),
            Input::Repair { id, within } => self.on_repair(now, id, within),
            Input::Resume => self.on_resume(),
            Input::Promote => self.assume(false),
            Input::Demote => self.assume(true),
            Input::Load { percent } => self.load = percent.map(|percent| percent.min(LOAD_MAX)),
            Input::Certified { expires_ms } => self.expiry = Some(Expiry::new(expires_ms)),
            Input::Shutdown => self.on_shutdown(now),
        }
        self.seek(now);
        self.end_drain(now);
        self.tend(now);
        self.run_due(now);
    }

    /// Returns the next thing to do, or `None` when everything was said.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Returns who this node is.
    #[must_use]
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// Returns the members this node knows.
    #[must_use]
    pub fn members(&self) -> &MemberSet {
        &self.members
    }

    /// Returns the store this node replicates.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn sessions(&self) -> impl Iterator<Item = (LinkId, &Session)> {
        self.links.iter().filter_map(|(id, link)| link.session.as_deref().map(|s| (*id, s)))
    }

    fn session_mut(&mut self, link: LinkId) -> Option<&mut Session> {
        self.links.get_mut(&link)?.session.as_deref_mut()
    }

    fn on_drained(&mut self, now: Now, link: LinkId, bytes: usize) {
        if let Some(session) = self.session_mut(link) {
            session.peer.drained(now.mono, bytes);
        }
        self.serve(link);
        self.pump(link);
    }

    /// Somebody waits: what was written goes at once, and each peer is asked once for its report.
    fn on_wait(&mut self, now: Now, id: WaitId, mark: Mark, level: Level, deadline: Option<Mono>) {
        let outcome = levels::judge(mark, level, &self.store, &self.members, self.expected());
        if outcome.reached || !self.waits.add(id, mark, level, deadline) {
            self.out.push_back(Output::Resolved { id, outcome });
            return;
        }
        self.outbox.mark(self.store.take_dirty());
        self.flush(now);
        let fresh = |l: &mut Link| {
            let session = l.session.as_deref_mut().filter(|s| s.joined && !s.asked)?;
            session.asked = true;
            Some(())
        };
        let links: Vec<LinkId> = self.links.iter_mut().filter_map(|(id, l)| fresh(l).map(|()| *id)).collect();
        for link in links {
            self.send_control(link, &Control::ReportNow);
        }
    }

    /// Returns how many members the configuration speaks of, met or not: a node that was founded
    /// alone is no majority of them.
    fn expected(&self) -> usize {
        let is_edge = |node| self.members.of_node(node).next().is_some() && !self.members.is_whole(node);
        let seeds = self.slots.seeds().filter(|(_, met)| !met.is_some_and(is_edge)).count();
        self.config.membership.expected_nodes.max(seeds + usize::from(!self.is_edge()))
    }

    fn resolve(&mut self, done: Vec<(WaitId, Outcome)>) {
        self.out.extend(done.into_iter().map(|(id, outcome)| Output::Resolved { id, outcome }));
    }

    fn on_shutdown(&mut self, now: Now) {
        self.stopping = true;
        self.set_gate();
        // All of them: a write that was accepted just now may not have marked its partition yet.
        self.outbox.mark(self.store.partition_ids());
        while self.outbox.due().is_some() {
            self.flush(now);
        }
        self.end_partings();
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            if let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) {
                session.peer.insist(&self.store);
            }
            self.pump_within(link, usize::MAX);
            self.send_control(link, &Control::Goodbye);
            self.close(link, CloseCode::Goodbye, "this node is shutting down");
        }
        self.end_all_fetches();
        self.end_all_reads();
        let done = self.waits.end_all(&self.store, &self.members, self.expected());
        sometimes!(WaitEndedByShutdown, if !done.is_empty());
        self.resolve(done);
    }

    /// A message too large for any receiver stays here: its dots stay missing elsewhere, loudly.
    fn unsendable(&mut self, unsendable: Unsendable) {
        self.event(Event::Unsendable { unsendable });
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    fn max_drift_ms(&self) -> u64 {
        u64::try_from(self.config.membership.max_drift.as_millis()).unwrap_or(u64::MAX)
    }

    fn collect_before_ms(&self, now: Now) -> u64 {
        let age = u64::try_from(self.config.replication.collect_after.as_millis()).unwrap_or(u64::MAX);
        now.wall_ms.saturating_sub(age)
    }
}

/// Nobody sends what is written after this, whether the node was told to shut down or not.
impl Drop for Node {
    fn drop(&mut self) {
        self.store.set_gate(Gate::Stopped);
    }
}
