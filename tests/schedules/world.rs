//! The replicas of a schedule, the mail between them, and what may happen to them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use driftless::clock::Stamp;
use driftless::crdt::{Ctx, Path};
use driftless::error::WriteError;
use driftless::sim::oracle::{History, Key, Mutation, Site, Space};
use driftless::store::{Budget, Cleared, Intent, KeyRef, Keyspace, Partition, Selector, Store, Tick};

use super::replica::{FOREVER, Mail, PART, Replica, field, member};
use super::{COUNTER, CUSTOM, CUSTOMS, MAPS, NAMES, REGISTERS, REGS, SKEW_MS, Setting, TREES};

/// All replicas, the mail between them and what really happened.
pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    pub(super) setting: Setting,
    pub(super) now: u64,
    next_id: u64,
    next_value: u64,
    pub(super) replicas: BTreeMap<u64, Replica>,
    skew: BTreeMap<u64, u64>,
    /// Crashed or retired: takes no more steps.
    dead: BTreeSet<u64>,
    /// Removed without knowing it yet.
    zombies: BTreeSet<u64>,
    net: Vec<(u64, Mail)>,
    pub(super) history: History,
    /// The writes whose value somebody gave back.
    pub(super) evicted: BTreeSet<Stamp>,
}

impl World {
    pub(super) fn new(seed: u64, setting: Setting) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ids = [11, 12, 13];
        let skew = ids.iter().map(|i| (*i, rng.u64(..SKEW_MS))).collect();
        Self {
            rng,
            setting,
            now: 1_000,
            next_id: 14,
            next_value: 0,
            replicas: ids.iter().map(|i| (*i, Replica::new(*i, &ids))).collect(),
            skew,
            dead: BTreeSet::new(),
            zombies: BTreeSet::new(),
            net: Vec::new(),
            history: History::default(),
            evicted: BTreeSet::new(),
        }
    }

    pub(super) fn live(&self) -> Vec<u64> {
        self.replicas.keys().copied().filter(|i| !self.dead.contains(i)).collect()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    pub(super) fn set_clock(&mut self, id: u64) {
        let clock_ms = self.now + self.skew[&id];
        self.replicas.get_mut(&id).unwrap().clock_ms = clock_ms;
    }

    fn deliver(&mut self, to: u64, mail: &Mail) {
        self.set_clock(to);
        let replica = self.replicas.get_mut(&to).unwrap();
        replica.deliver(mail);
        if replica.removed.contains(&replica.id) {
            self.dead.insert(to);
            self.zombies.remove(&to);
        }
    }

    /// In the middle of a run everybody alive exchanges everything, but only some collect.
    pub(super) fn meet_halfway(&mut self) {
        let removed = self.removed();
        let there: Vec<u64> = self.live().into_iter().filter(|i| !removed.contains(i)).collect();
        for _ in 0..3 {
            self.exchange(&there, true);
        }
        for i in there {
            if self.rng.bool() {
                self.replicas[&i].collect();
            }
        }
    }

    fn removed(&self) -> BTreeSet<u64> {
        self.replicas.values().flat_map(|r| r.removed.iter().map(|m| m.0)).collect()
    }

    fn exchange(&mut self, there: &[u64], keep_copies: bool) {
        for i in there {
            for j in there.iter().filter(|j| *j != i) {
                self.set_clock(*i);
                let mail = self.replicas[i].mail_for(&self.replicas[j].ctx());
                if keep_copies && self.rng.u8(..3) == 0 {
                    self.net.push((*j, mail.clone()));
                }
                self.deliver(*j, &mail);
            }
        }
    }

    pub(super) fn step(&mut self) {
        let live = self.live();
        let i = self.pick(&live);
        self.set_clock(i);
        match self.rng.u8(..32) {
            0..=2 => self.write_register(i),
            3..=9 => self.write_map(i),
            10..=12 => self.write_counter(i),
            13..=14 => self.write_custom(i),
            15..=18 => self.send(i, &live),
            19..=23 => self.receive(),
            24..=25 => self.replicas[&i].collect(),
            26 if self.setting.ttl => self.replicas[&i].expire(),
            27 if self.setting.evict => self.evict(i),
            28 if self.setting.truncate => self.replicas[&i].drop_log(self.rng.usize(1..4)),
            29..=30 if self.setting.membership => self.change_membership(i, &live),
            31 if self.setting.epochs => self.invalidate(i),
            _ => {}
        }
    }

    fn deadline(&mut self, i: u64) -> u64 {
        if self.setting.ttl && self.rng.bool() { self.replicas[&i].clock_ms + self.rng.u64(..80) } else { FOREVER }
    }

    fn value(&mut self) -> Bytes {
        self.next_value += 1;
        Bytes::copy_from_slice(&self.next_value.to_le_bytes())
    }

    fn write(&mut self, i: u64, space: Space, name: &'static str, mutation: &Mutation) {
        let key = Key { space, name: Bytes::from_static(name.as_bytes()) };
        self.history.perform(self.replicas.get_mut(&i).unwrap(), &key, mutation).unwrap();
    }

    fn write_register(&mut self, i: u64) {
        let (key, deadline) = (self.pick(&REGS), self.deadline(i));
        let value = self.value();
        let mutation = match self.rng.u8(..4) {
            0..=1 => Mutation::Set { value, tags: self.tags(), deadline },
            2 => Mutation::Delete,
            _ => Mutation::Touch { deadline },
        };
        self.write(i, REGISTERS, key, &mutation);
    }

    fn tags(&mut self) -> Vec<Bytes> {
        if self.setting.epochs { vec![Bytes::from_static(self.pick(&NAMES).as_bytes())] } else { Vec::new() }
    }

    fn invalidate(&mut self, i: u64) {
        let selector = if self.rng.bool() { Selector::All } else { Selector::Tag(self.pick(&NAMES).to_owned()) };
        self.write(i, REGISTERS, "", &Mutation::Invalidate { selector });
    }

    fn path(&mut self) -> Path {
        let name = self.pick(&NAMES);
        if self.rng.bool() { field(name) } else { member(name) }
    }

    fn write_map(&mut self, i: u64) {
        let (key, path, deadline) = (self.pick(&MAPS), self.path(), self.deadline(i));
        let value = self.value();
        let mutation = match self.rng.u8(..12) {
            0..=5 => Mutation::Put { path, value, deadline },
            6..=7 => Mutation::Remove { path },
            8 => Mutation::Clear,
            9..=10 => Mutation::TouchPath { path, deadline },
            _ if self.setting.ttl => Mutation::ExpireKey { deadline },
            _ => return,
        };
        self.write(i, TREES, key, &mutation);
    }

    fn write_counter(&mut self, i: u64) {
        let (key, deadline) = (self.pick(&MAPS), self.deadline(i));
        let (name, by) = (Bytes::from_static(COUNTER.as_bytes()), self.rng.i64(-3..6));
        let mutation = match self.rng.u8(..5) {
            0..=2 => Mutation::Increment { name, by, deadline },
            3 => Mutation::Reset { name },
            _ => Mutation::TouchCounter { name, deadline },
        };
        self.write(i, TREES, key, &mutation);
    }

    fn write_custom(&mut self, i: u64) {
        let deadline = self.deadline(i);
        if self.rng.u8(..4) == 0 {
            return self.write(i, CUSTOMS, CUSTOM, &Mutation::DeleteCustom);
        }
        self.next_value += 1;
        let item = self.next_value;
        self.write(i, CUSTOMS, CUSTOM, &Mutation::Note { item, deadline });
    }

    /// Push, catch-up or relay, with a random idea of what the peer has, whole or in part.
    fn send(&mut self, i: u64, live: &[u64]) {
        let j = self.pick(live);
        let (r, peer) = (&self.replicas[&i], &self.replicas[&j]);
        if i == j || r.removed.contains(&peer.id) || !r.members.contains(&peer.id) {
            return;
        }
        let known = match self.rng.u8(..3) {
            0 => r.store.read(PART).unwrap().report_of(peer.id).cloned().unwrap_or_default(),
            1 => peer.ctx(),
            _ => Ctx::default(),
        };
        let fragments = if self.rng.u8(..3) == 0 { self.rng.usize(1..3) } else { usize::MAX };
        let budget = Budget { fragments, bytes: usize::MAX };
        let mail = match (r.can_increment(&known), self.rng.u8(..4)) {
            (false, _) => r.full(),
            (true, 0) => r.own_batch(&known, budget),
            (true, _) => r.batch_within(&known, budget),
        };
        self.net.push((j, mail));
    }

    /// Mail arrives out of order; some twice, some never.
    fn receive(&mut self) {
        if self.net.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.net.len());
        let (to, mail) = if self.rng.u8(..5) == 0 { self.net[at].clone() } else { self.net.swap_remove(at) };
        if !self.dead.contains(&to) && self.rng.u8(..8) != 0 {
            self.deliver(to, &mail);
        }
    }

    fn evict(&mut self, i: u64) {
        let (reg, map) = (self.pick(&REGS), self.pick(&MAPS));
        let r = &self.replicas[&i];
        if self.rng.bool() {
            self.evicted.extend(r.cell(reg).map(|cell| cell.stamp()));
            r.evict(&r.regs, reg)
        } else {
            r.evict(&r.maps, map)
        };
    }

    fn change_membership(&mut self, i: u64, live: &[u64]) {
        if self.zombies.contains(&i) {
            return;
        }
        let j = self.pick(live);
        let room = self.replicas.len() < 6;
        match self.rng.u8(..8) {
            0..=1 if room => self.join(i, None),
            2 if room && live.len() > 2 && self.may_remove(i, j) => {
                self.dead.insert(j);
                self.join(i, Some(j));
            }
            3 if live.len() > 3 && self.zombies.is_empty() && self.may_remove(i, j) => {
                self.replicas.get_mut(&i).unwrap().remove_member(j);
                if self.rng.bool() {
                    self.dead.insert(j)
                } else {
                    self.zombies.insert(j)
                };
            }
            _ => {}
        }
    }

    fn may_remove(&self, i: u64, j: u64) -> bool {
        let (r, peer) = (&self.replicas[&i], &self.replicas[&j]);
        i != j && !self.zombies.contains(&j) && !r.removed.contains(&peer.id) && r.members.contains(&peer.id)
    }

    fn join(&mut self, donor: u64, old: Option<u64>) {
        let id = self.next_id;
        self.next_id += 1;
        let donor = self.replicas.get_mut(&donor).unwrap();
        let joiner = match old {
            Some(old) => donor.succeeded_by(old, id),
            None => donor.joined_by(id),
        };
        self.replicas.insert(id, joiner);
        self.skew.insert(id, self.rng.u64(..SKEW_MS));
    }

    /// The survivors exchange everything; stale mail arrives before and after the collection.
    pub(super) fn quiesce(&mut self) -> Vec<u64> {
        let removed = self.removed();
        let last: Vec<u64> = self.live().into_iter().filter(|i| !removed.contains(i)).collect();
        for i in &last {
            // An operator repeats the order when the node that took it died.
            removed.iter().for_each(|m| self.replicas.get_mut(i).unwrap().remove_member(*m));
        }
        self.now += self.rng.u64(..50);
        for round in 0..6 {
            self.exchange(&last, false);
            if round >= 2 {
                for i in &last {
                    self.replicas[i].collect();
                    self.expire(*i);
                }
            }
            if round == 1 || round == 3 {
                self.deliver_everything_in_flight(&last);
            }
        }
        last
    }

    fn deliver_everything_in_flight(&mut self, last: &[u64]) {
        for (to, mail) in self.net.clone() {
            if last.contains(&to) {
                self.deliver(to, &mail);
            }
        }
    }

    pub(super) fn expire(&self, i: u64) {
        if self.setting.ttl {
            self.replicas[&i].expire();
        }
    }
}

impl Site for Replica {
    fn store(&self) -> Option<&Store> {
        Some(&self.store)
    }

    fn write<R>(
        &mut self,
        at: &KeyRef<'_>,
        value_len: Option<usize>,
        f: impl FnOnce(&mut Partition, &Tick<'_>) -> R,
    ) -> Result<R, WriteError> {
        let intent = Intent { wall_ms: self.clock_ms, value_len };
        self.store.write(at, intent, f).map(|(result, _)| result)
    }

    fn invalidate(&mut self, space: &Keyspace, selector: &Selector) -> Result<Vec<Cleared>, WriteError> {
        self.store.invalidate(space, selector, self.clock_ms).map(|(cleared, _)| cleared)
    }
}
