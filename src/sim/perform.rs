//! What can happen to a cluster, done: the actions of a plan, and the heal at its end.

use std::time::Duration;

use super::cluster::SimCluster;
use super::host::Host;
use super::plan::Action;
use super::workload;
use crate::clock::Hlc;
use crate::crdt::custom::encode;
use crate::id::ReplicaId;
use crate::node::{Gauges, Input, Node};
use crate::probe::sometimes;
use crate::store::{Family, KeyRef};

/// How long after it has joined a node's donor still counts as one.
const JUST_JOINED: Duration = Duration::from_secs(2);
/// How long a process that is stopped may flush what it sent: the shell waits 2 s for the peers and 1 s for the socket.
const LEAVE: Duration = Duration::from_secs(3);
/// Most clones in one run.
const CLONES_MAX: usize = 8;
/// How far a burst has counted: two events more and the counter carries.
const COUNTED: u64 = 0xfffe;
/// So many drift bounds ahead a clock is hopeless: others close the link instead of waiting.
const HOPELESS: u64 = 10;

impl SimCluster {
    /// Returns the host a plan means by a number.
    pub(super) fn place(&self, at: impl Into<usize>) -> usize {
        at.into() % self.host_count().max(1)
    }

    /// Tells whether clients can come to a host: its process runs, its machine does not stand still, and it does not lie.
    pub(super) fn has_clients(&self, at: usize) -> bool {
        self.is_running(at) && !self.is_paused(at) && self.is_honest(at)
    }

    /// Does what an action says; [`Action::Write`], [`Action::Read`] and [`Action::Rest`] are not the cluster's.
    /// Returns whether it made sense; if not, nothing happened.
    pub fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::Cut { from, to } => self.cut_between(self.place(from), self.place(to)),
            Action::Isolate { at } => {
                self.isolate(self.place(at));
                true
            }
            Action::Split { at } => self.split(self.place(at)),
            Action::Heal => {
                self.heal();
                true
            }
            Action::Clog { from, to, ms } => self.clog(self.place(from), self.place(to), ms),
            Action::Slow { at, bytes_per_ms } => {
                self.carriage.slow(self.now, self.place(at), u64::from(bytes_per_ms));
                true
            }
            Action::Skew { at, ms } => {
                self.set_skew_ms(self.place(at), ms);
                true
            }
            Action::Pause { at, ms } => self.pause(self.place(at), ms),
            Action::Crash { at } => {
                let (at, runs) = (self.place(at), self.is_running(self.place(at)));
                self.crash(at);
                runs
            }
            Action::CrashDonor { of } => self.crash_donor(self.place(of)),
            Action::Stop { at } => self.stop(self.place(at)),
            Action::Drain { at, leave } => self.drain(self.place(at), leave),
            Action::Move { at } => self.move_away(self.place(at)),
            Action::Promote { at } => self.assume(self.place(at), Input::Promote),
            Action::Demote { at } => self.assume(self.place(at), Input::Demote),
            Action::Start { at } => {
                let at = self.place(at);
                !self.is_running(at) && !self.is_clone(at) && self.start(at).is_ok()
            }
            Action::Clone { of } => self.clone_of(self.place(of)),
            Action::Remove { by, at } => self.remove(self.place(by), self.place(at)),
            Action::Rejoin { at } => self.rejoin(self.place(at)),
            Action::Evict { at, key, map } => self.evict_named(self.place(at), key, map),
            Action::Fetch { at, key } => self.fetch_named(self.place(at), key),
            Action::Ask { at, key, ack } => self.ask(self.place(at), key, ack),
            Action::Damage { at, key } => self.damage(self.place(at), key),
            Action::Truncate { at, keep } => self.truncate(self.place(at), keep),
            Action::Burst { at } => self.burst(self.place(at)),
            Action::Forge { at, lie } => self.forge(self.place(at), lie),
            Action::Write { .. } | Action::Read { .. } | Action::Rest => false,
        }
    }

    fn cut_between(&mut self, from: usize, to: usize) -> bool {
        if from != to {
            self.cut_one_way(from, to);
        }
        from != to
    }

    fn split(&mut self, at: usize) -> bool {
        for below in 0..at {
            for above in at..self.host_count() {
                self.cut_one_way(below, above);
                self.cut_one_way(above, below);
            }
        }
        at > 0
    }

    fn clog(&mut self, from: usize, to: usize, ms: u16) -> bool {
        let until = self.now.plus(Duration::from_millis(u64::from(ms)));
        if from != to {
            self.carriage.conditions().clog(from, to, until);
        }
        from != to
    }

    /// Half of the pauses are those of a suspended machine, whose monotonic clock stands still; the others those of a
    /// stopped process.
    fn pause(&mut self, at: usize, ms: u32) -> bool {
        let (now, until) = (self.now, self.now.plus(Duration::from_millis(u64::from(ms))));
        let Some(host) = self.hosts.get_mut(at).filter(|h| h.node.is_some() && h.pause.is_none()) else { return false };
        let suspended = ms.is_multiple_of(2);
        host.stand_still(now, until, suspended);
        self.carriage.conditions().stand_still(now, at, until, suspended);
        self.set_timer(at);
        true
    }

    fn crash_donor(&mut self, of: usize) -> bool {
        let now = self.now;
        let Some(host) = self.hosts.get(of).filter(|h| h.node.is_some()) else { return false };
        let fresh = host.joined_at.is_none_or(|at| now.since(at) <= JUST_JOINED);
        let Some(donor) = host.donor.filter(|_| fresh) else { return false };
        let found = (0..self.host_count()).find(|at| {
            *at != of && self.is_running(*at) && self.hosts.get(*at).is_some_and(|h| h.identity.node == donor)
        });
        found.map(|donor| self.crash(donor)).is_some()
    }

    fn drain(&mut self, at: usize, leave: bool) -> bool {
        let may = self.is_running(at) && !self.is_paused(at) && !self.is_clone(at);
        if may {
            self.input(at, Input::Drain { leave });
        }
        may
    }

    pub(super) fn stop(&mut self, at: usize) -> bool {
        if !self.is_running(at) || self.is_paused(at) {
            return false;
        }
        self.input(at, Input::Shutdown);
        self.carriage.leave(at);
        let until = self.now.plus(LEAVE);
        let Some(host) = self.hosts.get_mut(at) else { return false };
        host.node = None;
        host.leaving = Some(until);
        if host.links.is_empty() {
            self.crash(at);
        }
        self.set_timer(at);
        true
    }

    /// A clone is a further host. It dials whom the original dials, and nobody dials it.
    fn clone_of(&mut self, of: usize) -> bool {
        let clones = self.hosts.iter().filter(|h| h.is_clone);
        let refused = clones.clone().count() >= CLONES_MAX
            || self.is_clone(of)
            || !self.is_running(of)
            || clones.filter(|h| h.place == of).any(|h| h.node.is_some());
        let Some(original) = self.hosts.get(of).filter(|_| !refused) else { return false };
        let mut clone = Host::new(original.identity.clone(), original.place);
        clone.is_clone = true;
        clone.lies = original.lies;
        clone.newer = original.newer;
        clone.skew_ms = original.skew_ms;
        self.hosts.push(clone);
        self.start(self.host_count() - 1).is_ok()
    }

    fn remove(&mut self, by: usize, at: usize) -> bool {
        let Some(replica) = self.replica(at).filter(|_| by != at && self.is_honest(by) && !self.is_paused(by)) else {
            return false;
        };
        if self.node(by).is_none_or(|node| node.members().is_removed(replica)) {
            return false;
        }
        self.ordered.insert(replica);
        self.input(by, Input::Remove { replica });
        true
    }

    fn rejoin(&mut self, at: usize) -> bool {
        let removed = self.node(at).filter(|node| node.members().is_removed(node.me().replica) && !self.is_paused(at));
        let Some(me) = removed.map(|node| node.me().replica) else { return false };
        self.returns.called.insert(me);
        self.input(at, Input::Rejoin);
        true
    }

    /// Tells whether no operator has removed the replica of a host, so that its process comes back by itself when it hears
    /// that it was removed, or is about to.
    fn may_come_back(&self, at: usize) -> bool {
        let ordered = self.replica(at).is_none_or(|replica| self.ordered.contains(&replica));
        let stays = |node: &Node| node.members().is_removed(node.me().replica) && !node.is_coming_back();
        !ordered && !self.node(at).is_some_and(stays)
    }

    /// Tells whether the process of a host was removed and is about to come back by itself.
    pub(super) fn is_coming_back(&self, at: usize) -> bool {
        self.node(at).is_some_and(Node::is_coming_back)
    }

    fn evict_named(&mut self, at: usize, key: u8, map: bool) -> bool {
        let Some(store) = self.store(at).filter(|_| !self.is_paused(at)) else { return false };
        let (name, family) = if map { ("maps", Family::Map) } else { ("registers", Family::Register) };
        let Some(space) = store.spaces().find(name).filter(|space| space.family() == family) else { return false };
        let letter = if key.is_multiple_of(2) { 'a' } else { 'b' };
        let name = encode(&format!("{letter}{key}")).unwrap_or_default();
        self.evict(at, &KeyRef::new(&space, &name))
    }

    /// A register that every member has is gone from one host's memory; returns whether there was one.
    fn damage(&mut self, at: usize, key: u8) -> bool {
        let Some(store) = self.store(at).filter(|_| !self.is_paused(at)) else { return false };
        let key = workload::key(workload::REGISTERS, key);
        let Some(space) = store.spaces().find(key.space.name) else { return false };
        let named = KeyRef::new(&space, &key.name);
        let whole = store.with_entry(&named, |entry| entry.is_some_and(|e| e.is_settled() && e.grave_ms().is_none()));
        let Some(mut partition) = store.lock(store.place(named.hash)).filter(|_| whole) else { return false };
        sometimes!(CopyDamaged);
        partition.lose(named.hash, store.spaces());
        true
    }

    /// Gives an entry's memory back at a host; returns whether anything was given back.
    pub fn evict(&mut self, at: usize, key: &KeyRef<'_>) -> bool {
        let wall_ms = self.now(at).wall_ms;
        let age = self.config.node.replication.collect_after.as_millis();
        let before_ms = wall_ms.saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
        let Some(store) = self.store(at) else { return false };
        store.lock(store.place(key.hash)).is_some_and(|mut partition| partition.evict(key, before_ms))
    }

    fn truncate(&mut self, at: usize, keep: u8) -> bool {
        let Some(store) = self.store(at).filter(|_| !self.is_paused(at)) else { return false };
        let mut any = false;
        for id in store.partition_ids() {
            if let Some(mut partition) = store.lock(id) {
                any |= partition.log_len() > usize::from(keep);
                partition.shrink_log(usize::from(keep));
            }
        }
        any
    }

    fn burst(&mut self, at: usize) -> bool {
        let Some(store) = self.store(at).filter(|_| !self.is_paused(at)) else { return false };
        let hlc = store.clock().tick(self.now(at).wall_ms);
        store.clock().observe(Hlc(hlc.0 | COUNTED));
        true
    }

    /// Returns the hosts whose process [`SimCluster::heal_everything`] ends: clones, liars, replicas that an operator removed, and
    /// clocks so far ahead that nobody would wait for them.
    #[must_use]
    pub fn doomed(&self) -> Vec<usize> {
        let max = u64::try_from(self.config.node.membership.max_drift.as_millis()).unwrap_or(u64::MAX);
        let hopeless = self.true_ms().saturating_add(max.saturating_mul(HOPELESS));
        let is_ahead = |at| self.node(at).is_some_and(|n| n.store().clock().last().ms() > hopeless);
        let stays = |at| self.is_removed(at) && !self.may_come_back(at);
        let ends = |at: &usize| self.is_clone(*at) || !self.is_honest(*at) || stays(*at) || is_ahead(*at);
        (0..self.host_count()).filter(|at| self.is_running(*at)).filter(ends).collect()
    }

    /// Ends every fault as an operator would: cuts, clogs, slowness, pauses, skews and corruption end; the processes of
    /// [`SimCluster::doomed`] are ended; what will not come back is removed; and a process runs on every host that was
    /// started at the beginning, a fresh and honest one where a liar was. A spare that runs goes on. Loss, delay and
    /// repetition stay. From now on a process that learns that it was removed is started again.
    pub fn heal_everything(&mut self) {
        self.tended = true;
        self.carriage.conditions().stop_corrupting();
        self.carriage.calm(self.now);
        self.heal();
        for at in 0..self.host_count() {
            self.set_skew_ms(at, 0);
            self.wake(at);
            self.input(at, Input::Resume);
        }
        let liars: Vec<ReplicaId> =
            self.hosts.iter().filter(|h| h.lies && h.node.is_some()).filter_map(|h| h.replica).collect();
        for at in self.doomed() {
            self.crash(at);
            if !self.is_clone(at) {
                drop(self.start(at));
            }
        }
        self.hosts.iter_mut().for_each(|h| h.lies = false);
        let back = |at: usize| at < self.config.nodes || self.is_running(at);
        let gone = (0..self.host_count()).filter(|at| !back(*at)).flat_map(|at| self.copies(at));
        let gone: Vec<ReplicaId> = gone.chain(liars).collect();
        for at in 0..self.host_count() {
            // An operator gives no orders where nobody hears them.
            for replica in gone.iter().filter(|_| !self.is_removed(at)).collect::<Vec<_>>() {
                self.input(at, Input::Remove { replica: *replica });
            }
            if at < self.config.nodes && !self.is_running(at) {
                drop(self.start(at));
            }
        }
    }

    /// Returns the replica that ran last on a host, and every member that anybody takes for a copy of its node: the last
    /// one may have ended before it was a member.
    fn copies(&self, at: usize) -> Vec<ReplicaId> {
        let Some(host) = self.hosts.get(at) else { return Vec::new() };
        let nodes = (0..self.host_count()).filter(|_| !host.is_clone).filter_map(|other| self.node(other));
        nodes.flat_map(|node| node.members().of_node(host.identity.node)).chain(host.replica).collect()
    }

    /// Returns how many hosts there are, clones included, running or not.
    #[must_use]
    pub fn host_count(&self) -> usize {
        self.len()
    }

    /// Tells whether a process runs on a host, one that stands still included.
    #[must_use]
    pub fn is_running(&self, at: usize) -> bool {
        self.node(at).is_some()
    }

    /// Tells whether a host stands still.
    #[must_use]
    pub fn is_paused(&self, at: usize) -> bool {
        self.hosts.get(at).is_some_and(|h| h.pause.is_some())
    }

    /// Tells whether a host is a second one with the identity of another.
    #[must_use]
    pub fn is_clone(&self, at: usize) -> bool {
        self.hosts.get(at).is_some_and(|h| h.is_clone)
    }

    /// Tells whether a host keeps to the protocol.
    #[must_use]
    pub fn is_honest(&self, at: usize) -> bool {
        self.hosts.get(at).is_some_and(|h| !h.lies)
    }

    /// Tells whether a host speaks a later version of the wire format.
    #[must_use]
    pub fn is_newer(&self, at: usize) -> bool {
        self.hosts.get(at).is_some_and(|h| h.newer)
    }

    /// Tells whether the replica of a host was removed: on order, or as itself or any honest node knows.
    #[must_use]
    pub fn is_removed(&self, at: usize) -> bool {
        let Some(replica) = self.replica(at) else { return false };
        if self.ordered.contains(&replica) {
            return true;
        }
        let knows = |other: usize| self.node(other).is_some_and(|node| node.members().is_removed(replica));
        (0..self.host_count()).any(|other| (other == at || self.is_honest(other)) && knows(other))
    }

    /// Tells whether an honest node has heard of a member too late.
    #[must_use]
    pub fn is_orphan(&self, replica: ReplicaId) -> bool {
        self.honest().filter_map(|at| self.node(at)).any(|node| node.members().orphans.contains(&replica))
    }

    /// Iterates over the hosts that run, keep to the protocol and were not removed.
    pub fn honest(&self) -> impl Iterator<Item = usize> {
        (0..self.host_count()).filter(|at| self.is_running(*at) && self.is_honest(*at) && !self.is_removed(*at))
    }

    /// Tells whether every honest node has met somebody at every address it is configured with. Before that none
    /// collects anything.
    #[must_use]
    pub fn may_collect(&self) -> bool {
        self.honest().all(|at| self.node(at).is_some_and(Node::has_met_everybody))
    }

    /// Returns the replica that runs on a host, or ran there last.
    #[must_use]
    pub fn replica(&self, at: usize) -> Option<ReplicaId> {
        self.hosts.get(at)?.replica
    }

    /// Returns the sizes of everything a node keeps that could grow.
    #[must_use]
    pub fn gauges(&self, at: usize) -> Option<Gauges> {
        self.node(at).map(Node::gauges)
    }

    /// Returns the largest sizes that were seen of a host's process, which are looked at now and then.
    #[must_use]
    pub fn gauges_high(&self, at: usize) -> Option<&Gauges> {
        self.hosts.get(at)?.high.as_ref()
    }
}
