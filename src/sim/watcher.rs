//! Who watches a run: makes its writes and reads, remembers what happened, and checks after every step.
//!
//! The runner tells it of each action before it is performed ([`Watcher::before`]), has it write and read
//! ([`Watcher::write`], [`Watcher::read`]), lets it look after each step ([`Watcher::after_step`]), and tells it when
//! everything has healed ([`Watcher::healed`]). At the end it says whether the hosts agree ([`Watcher::has_converged`],
//! cheap), checks that what they agree on is what history says ([`Watcher::converged`]), and once time has passed that
//! nothing is left ([`Watcher::at_rest`]).
//!
//! # Invariants
//! * It changes nothing but by writes and waits, as a caller would; what it looks at it only reads.
//! * Liars are not looked at: what a node with a mind of its own shows is its own affair.

mod returns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::check::{
    self, Author, Client, Invariant, Licence, Moment, News, Pending, Reached, Seat, Stamps, Violation, Witnesses,
    at_host,
};
use super::cluster::SimCluster;
use super::oracle::{History, Key, Mutation, Record, Subject, cell, open, tree};
use super::plan::{Ack, Action, Op};
use super::setting::Setting;
use super::workload::{self, AtHost, COUNTERS, MAPS, REGISTERS, SETS, SPACES, Workload};
use crate::crdt::{Cell, Ctx, Tree};
use crate::id::{PartitionId, ReplicaId};
use crate::node::{Level, Mark, Node};
use crate::store::{Entry, KeyRef, Store, Written};

/// Watches a run.
#[derive(Debug)]
pub struct Watcher {
    setting: Setting,
    workload: Workload,
    history: History,
    stamps: Stamps,
    /// What was last seen at each host that runs.
    seats: BTreeMap<usize, Seat>,
    /// What each process that ended had seen.
    ended: BTreeMap<ReplicaId, Vec<Ctx>>,
    /// How many processes ended some time after the last look, so that they may have seen more.
    ended_unseen: usize,
    looked_at: Duration,
    /// What each host has newly seen and was not judged by yet.
    fresh: BTreeMap<usize, BTreeSet<Key>>,
    /// The latest instant by which anybody may have decided that something is over.
    pub(super) latest_ms: u64,
    pub(super) licences: BTreeMap<Key, Licence>,
    /// What some host has lost.
    pub(super) damaged: BTreeSet<Key>,
    pending: Vec<Pending>,
    reached: Vec<Reached>,
    clients: BTreeMap<u8, Client>,
    writers: BTreeSet<ReplicaId>,
    largest_write: u64,
    /// What hosts had seen when everything healed.
    held: BTreeMap<ReplicaId, Vec<Ctx>>,
    looks: usize,
    /// How many returns were looked at.
    heeded: usize,
}

/// A mutation under way.
#[derive(Debug)]
struct Call {
    key: Key,
    mutation: Mutation,
    /// What its author held just before.
    before: Option<Entry>,
    /// What it had seen of each partition, and how many events it had made there.
    pasts: Vec<(PartitionId, Ctx, u64)>,
    now_ms: u64,
}

impl Watcher {
    /// Builds one for a run of this setting.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self {
            setting: setting.clone(),
            workload: Workload::new(setting),
            history: History::default(),
            stamps: Stamps::default(),
            seats: BTreeMap::new(),
            ended: BTreeMap::new(),
            ended_unseen: 0,
            looked_at: Duration::ZERO,
            fresh: BTreeMap::new(),
            latest_ms: 0,
            licences: BTreeMap::new(),
            damaged: BTreeSet::new(),
            pending: Vec::new(),
            reached: Vec::new(),
            clients: BTreeMap::new(),
            writers: BTreeSet::new(),
            largest_write: 0,
            held: BTreeMap::new(),
            looks: 0,
            heeded: 0,
        }
    }

    /// Returns everything that happened.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    // -- what clients do -----------------------------------------------------------------------------

    /// Makes a write at a host, and waits for a level if `ack` says so. Nothing happens where no process runs or the
    /// machine stands still, at a liar, and where the write is rightly refused.
    ///
    /// # Errors
    /// [`Violation`] when it did something else than it should, or was wrongly refused.
    pub fn write(
        &mut self,
        cluster: &mut SimCluster,
        at: impl Into<usize>,
        op: Op,
        ack: Option<Ack>,
    ) -> Result<(), Violation> {
        self.heed(cluster)?;
        let at = cluster.place(at);
        let Some(store) = cluster.store(at).filter(|_| cluster.has_clients(at)) else { return Ok(()) };
        let now_ms = check::decides_ms(&store, cluster.now(at).wall_ms);
        self.latest_ms = self.latest_ms.max(cluster.decides_ms());
        let (key, mutation) = self.workload.mutation(op, now_ms);
        let Ok(space) = open(&store, key.space) else { return Ok(()) };
        let before = store.with_entry(&KeyRef::new(&space, &key.name), |entry| entry.cloned());
        let seen = |id: PartitionId| Some(self.history.resolved(id, store.read(id)?.ctx()));
        let past = |id: PartitionId| Some((id, seen(id)?, self.history.made(id, store.me())));
        let pasts = store.partition_ids().filter_map(past).collect();
        let (gate, room) = (store.gate(), (space.used(), space.budget()));
        let done = self.history.perform(&mut AtHost { cluster, at }, &key, &mutation);
        let entry_bytes = before.as_ref().map(Entry::bytes);
        check::admitted(gate, room, entry_bytes, &mutation, done.as_ref().err()).map_err(at_host(at))?;
        let Ok(done) = done else { return check::nothing_unknown(&store, &self.history).map_err(at_host(at)) };
        self.largest_write = self.largest_write.max(space.used().saturating_sub(room.0));
        let call = Call { key, mutation, before, pasts, now_ms };
        self.judge(&store, &call, &done).map_err(at_host(at))?;
        if let (Some(ack), Some((partition, written))) = (ack, done.last()) {
            self.wait(cluster, at, Mark { partition: *partition, dot: written.dot }, ack);
        }
        Ok(())
    }

    /// Holds the events of a mutation against what its author had to see.
    fn judge(&mut self, store: &Store, call: &Call, done: &[(PartitionId, Written)]) -> Result<(), Violation> {
        for (_, written) in done {
            self.writers.insert(written.dot.replica);
            self.stamps.note(written.stamp)?;
        }
        for (id, _, made) in &call.pasts {
            let here: Vec<Written> = done.iter().filter(|(at, _)| at == id).map(|(_, written)| *written).collect();
            check::numbered(*id, *made, store.me(), &here)?;
        }
        let space = store.spaces().find(call.key.space.name);
        let partition = space.map(|space| store.place(space.hash(&call.key.name)));
        let Some((id, past, _)) = call.pasts.iter().find(|(id, _, _)| Some(*id) == partition) else { return Ok(()) };
        for (_, written) in done.iter().filter(|(at, _)| at == id) {
            check::later_than_seen(&self.history, &call.key, past, written.stamp)?;
        }
        let dots: BTreeSet<_> = done.iter().map(|(_, written)| written.dot).collect();
        let made = |r: &&Record| r.partition == *id && dots.contains(&r.dot);
        let records: Vec<&Record> = self.history.of(&call.key).filter(made).collect();
        let entry = call.before.as_ref();
        let gone = entry.and_then(cell).filter(|cell| cell.is_grave()).map(Cell::stamp);
        let author = Author {
            now: self.history.view(*id, past, call.now_ms).of(&call.key),
            late: self.history.view(*id, past, self.latest_ms).of(&call.key),
            holed: tree(entry).is_some_and(Tree::is_hole),
            evicted: store.warm().is_some() || self.may_miss(&call.key, gone),
            replica: store.me(),
        };
        author.judge(&call.mutation, &records)
    }

    /// Tells whether somebody evicted the value of a write, or of any if nothing is left of it here.
    fn may_miss(&self, key: &Key, stamp: Option<crate::clock::Stamp>) -> bool {
        let stamps = self.licences.get(key).map(|licence| &licence.stamps);
        stamps.is_some_and(|stamps| stamp.map_or(!stamps.is_empty(), |stamp| stamps.contains(&stamp)))
    }

    fn wait(&mut self, cluster: &mut SimCluster, at: usize, mark: Mark, ack: Ack) {
        let Some(replica) = cluster.node(at).map(|node| node.me().replica) else { return };
        let level = if ack.all { Level::All } else { Level::Quorum };
        let within = Duration::from_millis(u64::from(ack.within_ms));
        let deadline = cluster.now(at).mono.plus(within);
        let id = cluster.wait(at, mark, level, within);
        self.pending.push(Pending { at, replica, id, mark, level, deadline });
    }

    /// Has a client read a key of every type at a host, provided the host has seen what the client's token names.
    ///
    /// # Errors
    /// [`Violation`] when the client sees something older than it saw before, or what is over by the host's clock.
    pub fn read(
        &mut self,
        cluster: &mut SimCluster,
        client: u8,
        at: impl Into<usize>,
        key: u8,
    ) -> Result<(), Violation> {
        self.heed(cluster)?;
        let at = cluster.place(at);
        let Some(store) = cluster.store(at).filter(|_| cluster.has_clients(at)) else { return Ok(()) };
        let wall_ms = cluster.now(at).wall_ms;
        let (shown_at_ms, now_ms) = (store.clock().visible_ms(wall_ms), check::decides_ms(&store, wall_ms));
        self.latest_ms = self.latest_ms.max(cluster.decides_ms());
        let when = Moment { now_ms, latest_ms: self.latest_ms };
        let licences = SPACES.map(|space| self.licence_in(&store, &workload::key(space, key)));
        let client = self.clients.entry(client).or_default();
        if !client.is_covered(|id| Some(self.history.resolved(id, store.read(id)?.ctx()))) {
            return Ok(());
        }
        for (key, licence) in SPACES.map(|space| workload::key(space, key)).into_iter().zip(licences) {
            let Ok(space) = open(&store, key.space) else { continue };
            let name = KeyRef::new(&space, &key.name);
            let id = store.place(name.hash);
            let Some(partition) = store.read(id) else { continue };
            let (ctx, entry) = (&self.history.resolved(id, partition.ctx()), partition.entry(&name));
            client.read(&key, entry, (id, ctx), when).map_err(at_host(at))?;
            let view = |ms| self.history.view(id, ctx, ms).of(&key);
            if let Some(warm) = store.warm() {
                warm.note(id, name.hash);
            }
            check::agree_between((&view(now_ms), shown_at_ms), &view(when.latest_ms), entry, &licence)
                .map_err(at_host(at))?;
        }
        Ok(())
    }

    // -- what happens to the cluster -----------------------------------------------------------------

    /// Takes note of an action about to be performed.
    ///
    /// # Errors
    /// [`Violation`] when something does not hold just before it.
    pub fn before(&mut self, cluster: &SimCluster, action: &Action) -> Result<(), Violation> {
        if let Action::Evict { at, key, map } = *action {
            let spaces = if map { vec![MAPS, SETS, COUNTERS] } else { vec![REGISTERS] };
            spaces.into_iter().for_each(|space| self.licence(cluster, cluster.place(at), workload::key(space, key)));
        }
        self.note_damage(cluster, action);
        if action.ends_or_shifts() { self.look(cluster) } else { Ok(()) }
    }

    /// Looks at all hosts after a step.
    ///
    /// # Errors
    /// [`Violation`] with the first thing that does not hold.
    pub fn after_step(&mut self, cluster: &mut SimCluster) -> Result<(), Violation> {
        cluster.all_given()?;
        cluster.all_accused_rightly()?;
        cluster.all_took_over_rightly()?;
        cluster.all_returned_rightly()?;
        cluster.all_read_rightly()?;
        self.look(cluster)?;
        for (at, keys) in std::mem::take(&mut self.fresh) {
            keys.iter().try_for_each(|key| self.agrees(cluster, at, key))?;
        }
        self.looks += 1;
        self.probe(cluster)
    }

    /// Looks at one key of one host although nothing was heard of it, and at what that host keeps.
    fn probe(&self, cluster: &SimCluster) -> Result<(), Violation> {
        let Some(at) = self.seats.keys().copied().nth(self.looks % self.seats.len().max(1)) else { return Ok(()) };
        cluster.gauges_high(at).map_or(Ok(()), check::bounded).map_err(at_host(at))?;
        let Some(store) = cluster.store(at) else { return Ok(()) };
        check::accounted(&store).map_err(at_host(at))?;
        let writers = u64::try_from(self.writers.len()).unwrap_or(u64::MAX);
        check::within_budget(&store, writers, self.largest_write).map_err(at_host(at))?;
        let turn = self.looks % self.history.keys().count().max(1);
        self.history.keys().nth(turn).map_or(Ok(()), |key| self.agrees(cluster, at, key))
    }

    /// Looks at what every process has seen, and at the clocks, and takes in what waits have come to.
    fn look(&mut self, cluster: &SimCluster) -> Result<(), Violation> {
        self.heed(cluster)?;
        self.bury(cluster);
        self.looked_at = cluster.elapsed();
        self.latest_ms = self.latest_ms.max(cluster.decides_ms());
        let mut all = Vec::new();
        for at in 0..cluster.host_count() {
            let Some(node) = cluster.node(at).filter(|_| cluster.is_honest(at)) else { continue };
            let wall_ms = cluster.now(at).wall_ms;
            let seat = self.seats.entry(at).or_insert_with(|| Seat::new(node, wall_ms));
            let news = seat.look(node, wall_ms, &self.history).map_err(at_host(at))?;
            self.stamps.near(node.store().clock().last(), seat.wall_ms_max).map_err(at_host(at))?;
            self.note(at, node.store(), &news);
            all.push((at, news));
        }
        self.settle_waits(cluster)?;
        if !all.iter().any(|(_, news)| news.has_stable()) {
            return Ok(());
        }
        let (contexts, joining) = (self.contexts(), cluster.joining());
        let judge =
            |(at, news): &(usize, News)| check::stable_everywhere(news, &contexts, &joining).map_err(at_host(*at));
        all.iter().try_for_each(judge)
    }

    /// Remembers what processes that have ended had seen.
    fn bury(&mut self, cluster: &SimCluster) {
        let runs = |at: &usize, seat: &Seat| cluster.node(*at).is_some_and(|node| node.me().replica == seat.replica);
        let over: Vec<usize> = self.seats.iter().filter(|(at, seat)| !runs(at, seat)).map(|(at, _)| *at).collect();
        for at in over {
            self.fresh.remove(&at);
            if let Some(seat) = self.seats.remove(&at) {
                let resolved = |(n, ctx)| self.history.resolved(PartitionId(n), ctx);
                let departed = cluster.departed(seat.replica).map(|all| (0..).zip(all).map(resolved).collect());
                let contexts = departed.unwrap_or(seat.contexts);
                self.ended.insert(seat.replica, contexts);
                self.ended_unseen += usize::from(cluster.elapsed() != self.looked_at);
            }
        }
    }

    /// Remembers which keys a host is to be judged by.
    fn note(&mut self, at: usize, store: &Store, news: &News) {
        let keys = self.fresh.entry(at).or_default();
        for (id, dot) in &news.dots {
            match self.history.subject(*id, *dot) {
                Some(Subject::Key(key)) => {
                    keys.insert(key.clone());
                }
                Some(Subject::Space(space)) => {
                    let place = |key: &Key| Some(store.place(store.spaces().find(key.space.name)?.hash(&key.name)));
                    let here = |key: &&Key| place(key) == Some(*id);
                    keys.extend(self.history.keys_of(*space).filter(here).cloned());
                }
                None => {}
            }
        }
    }

    /// Returns what every process has seen, and what those that ended had.
    fn contexts(&self) -> BTreeMap<ReplicaId, &[Ctx]> {
        let ended = self.ended.iter().map(|(replica, contexts)| (*replica, contexts.as_slice()));
        ended.chain(self.seats.values().map(|seat| (seat.replica, seat.contexts.as_slice()))).collect()
    }

    fn settle_waits(&mut self, cluster: &SimCluster) -> Result<(), Violation> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|wait| self.seats.get(&wait.at).is_some_and(|seat| seat.replica == wait.replica));
        let mut contexts = self.contexts();
        contexts.retain(|replica, _| !cluster.was_edge(*replica));
        // A liar that is honest now may have spoken before it was installed anew.
        let liars = usize::try_from(self.setting.liars.count_ones()).unwrap_or(usize::MAX);
        let configured = (0..self.setting.nodes + self.setting.spare).filter(|at| !cluster.is_edge(*at)).count();
        let all = Witnesses { contexts: &contexts, unknown: liars + self.ended_unseen, configured };
        let (mut open, mut reached) = (Vec::new(), Vec::new());
        for wait in pending {
            match cluster.outcome(wait.at, wait.id) {
                Some(outcome) => reached.extend(wait.judge(outcome, &all).map_err(at_host(wait.at))?),
                None => open.push(wait),
            }
        }
        self.pending = open;
        self.reached.extend(reached);
        Ok(())
    }

    /// Holds a key at a host against history.
    fn agrees(&self, cluster: &SimCluster, at: usize, key: &Key) -> Result<(), Violation> {
        let Some(store) = cluster.store(at) else { return Ok(()) };
        self.agrees_but_for(cluster, (at, self.latest_ms), key, &self.licence_in(&store, key))
    }

    /// The same at another instant and with another licence.
    pub(super) fn agrees_but_for(
        &self,
        cluster: &SimCluster,
        (at, now_ms): (usize, u64),
        key: &Key,
        licence: &Licence,
    ) -> Result<(), Violation> {
        let Some(store) = cluster.store(at) else { return Ok(()) };
        let Some(space) = store.spaces().find(key.space.name) else { return Ok(()) };
        let name = KeyRef::new(&space, &key.name);
        let id = store.place(name.hash);
        let Some(partition) = store.read(id) else { return Ok(()) };
        let seen = self.history.resolved(id, partition.ctx());
        let view = self.history.view(id, &seen, now_ms).of(key);
        check::agree(&view, partition.entry(&name), now_ms, licence).map_err(at_host(at))
    }

    // -- the end -------------------------------------------------------------------------------------

    /// Takes note that everything has healed: what hosts have seen now must not get lost any more.
    ///
    /// # Errors
    /// [`Violation`] when something does not hold already.
    pub fn healed(&mut self, cluster: &mut SimCluster) -> Result<(), Violation> {
        self.after_step(cluster)?;
        let here: BTreeSet<usize> = cluster.honest().collect();
        let seats = self.seats.iter().filter(|(at, _)| here.contains(at));
        self.held = seats.map(|(_, seat)| (seat.replica, seat.contexts.clone())).collect();
        Ok(())
    }

    /// Tells whether all honest hosts have joined one cluster and have seen the same.
    #[must_use]
    pub fn has_converged(&self, cluster: &SimCluster) -> bool {
        let nodes: Vec<(usize, &Node)> = cluster.honest().filter_map(|at| Some((at, cluster.node(at)?))).collect();
        check::is_reached(&nodes)
            && check::agreed(&nodes, self.setting.weather.loss).is_ok()
            && self.mended(cluster).is_ok()
    }

    /// Checks that all honest hosts agree, on what history says, and that nothing got lost that must not.
    ///
    /// # Errors
    /// [`Violation`] with the first thing that does not hold.
    pub fn converged(&mut self, cluster: &mut SimCluster) -> Result<(), Violation> {
        self.after_step(cluster)?;
        let nodes: Vec<(usize, &Node)> = cluster.honest().filter_map(|at| Some((at, cluster.node(at)?))).collect();
        check::reached(&nodes)?;
        check::agreed(&nodes, self.setting.weather.loss)?;
        let Some(((one, first), others)) = nodes.split_first() else { return Ok(()) };
        for (at, node) in others {
            let (a, b): (&Store, &Store) = (first.store(), node.store());
            check::same_state((*one, a), (*at, b), self.latest_ms, |space, key| self.licence_of(space, key))?;
        }
        for (at, node) in &nodes {
            self.history.keys().try_for_each(|key| self.agrees(cluster, *at, key))?;
            self.nothing_invented(node.store()).map_err(at_host(*at))?;
            check::accounted(node.store()).map_err(at_host(*at))?;
        }
        self.mended(cluster)?;
        self.nothing_lost(cluster, &nodes)?;
        let patient = |wait: &&Pending| nodes.iter().any(|(at, _)| *at == wait.at);
        self.pending
            .iter()
            .filter(patient)
            .try_for_each(|wait| wait.has_time(cluster.now(wait.at).mono).map_err(at_host(wait.at)))
    }

    /// Every key there is was written by somebody.
    fn nothing_invented(&self, store: &Store) -> Result<(), Violation> {
        let known: BTreeSet<(&str, &Bytes)> = self.history.keys().map(|key| (key.space.name, &key.name)).collect();
        for partition in store.partition_ids().filter_map(|id| store.read(id)) {
            for (space, name, entry) in partition.entries() {
                let Some(space) = store.spaces().get(space) else { continue };
                if space.target().is_none() && !known.contains(&(space.name(), name)) {
                    let what = format!("{:?} {name:?} was never written: {entry:?}", space.name());
                    return Err(Violation::new(Invariant::Invented, what));
                }
            }
        }
        Ok(())
    }

    fn nothing_lost(&self, cluster: &SimCluster, nodes: &[(usize, &Node)]) -> Result<(), Violation> {
        let survivors: BTreeSet<ReplicaId> = nodes.iter().map(|(_, node)| node.me().replica).collect();
        let Some(last) = self.seats.values().find(|seat| survivors.contains(&seat.replica)) else { return Ok(()) };
        // One that was removed since, runs on, and is neither an orphan nor given up, was removed by mistake.
        let runs = |replica| self.seats.values().any(|seat| seat.replica == replica) && !cluster.may_be_lost(replica);
        for (replica, contexts) in self.held.iter().filter(|(replica, _)| runs(**replica)) {
            let mut kept = contexts.iter().zip(&last.contexts);
            if let Some((held, last)) = kept.find(|(held, last)| !last.includes(held)) {
                let what = format!("{replica} had seen {held:?} at the heal, and {last:?} is left of it");
                return Err(Violation::new(Invariant::Survival, what));
            }
        }
        self.reached.iter().try_for_each(|reached| reached.survives(&survivors, &last.contexts))
    }

    /// Checks that nothing is left that may be forgotten, once enough time has passed without a write.
    ///
    /// A node calls nothing stable before it has met somebody at every configured address; until then only the queues
    /// must be empty.
    ///
    /// # Errors
    /// [`Violation`] with the first thing that is left.
    pub fn at_rest(&mut self, cluster: &mut SimCluster) -> Result<(), Violation> {
        self.converged(cluster)?;
        self.nothing_differed(cluster)?;
        self.everything_is_fetched(cluster)?;
        let nodes: Vec<(usize, &Node)> = cluster.honest().filter_map(|at| Some((at, cluster.node(at)?))).collect();
        check::somebody_active(&nodes, |at| cluster.takes_over(at))?;
        for (at, node) in nodes {
            check::at_ease(node, self.setting.weather.loss).map_err(at_host(at))?;
            if cluster.may_collect() {
                self.nothing_left(cluster, at, node)?;
            }
        }
        Ok(())
    }
}
