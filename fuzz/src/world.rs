//! A few replicas, the mail between them and what really happened; all of it told by a fuzzer's bytes.
//!
//! # Invariants
//! * Four bytes are one action, so a mutation of the input is a mutation of the story, not another story.
//! * At any moment a replica shows what history says of what it has seen.

use std::collections::BTreeSet;

use driftless::clock::Stamp;
use driftless::crdt::Ctx;
use driftless::sim::check::{Licence, agree};
use driftless::sim::oracle::History;
use driftless::sim::workload::{MAPS, REGISTERS, Workload, key};
use driftless::sim::{Op, OpKind, Setting};
use driftless::store::Budget;

use crate::replica::{ALL, COLLECT_AFTER_MS, Mail, PART, Replica};

/// How far the replicas' clocks are ahead of the first one's.
const SKEWS_MS: [u64; 3] = [0, 20, 60];
/// Longest time to live.
const TTL_MS: u64 = 120;
/// Most actions of a story: what comes later can be told in a shorter one.
const ACTIONS_MAX: usize = 96;
/// Most mail under way.
const MAIL_MAX: usize = 16;

/// What may happen besides writes and exchanges.
#[derive(Clone, Copy, Debug)]
pub struct May {
    /// What is stable or over is dropped.
    pub collect: bool,
    /// Memory is given back and log records are dropped.
    pub forget: bool,
}

/// The replicas and what happened to them.
#[derive(Debug)]
pub struct World {
    /// The replicas.
    pub replicas: Vec<Replica>,
    history: History,
    workload: Workload,
    mail: Vec<(usize, Mail)>,
    now_ms: u64,
    may: May,
    /// The writes whose value somebody gave back.
    evicted: BTreeSet<Stamp>,
}

impl World {
    /// Builds some replicas, at most three, that know each other.
    #[must_use]
    pub fn new(count: usize, may: May) -> Self {
        let ids = [1, 2, 3];
        let replicas = ids.iter().take(count).map(|id| Replica::new(*id, &ids[..count])).collect();
        let (history, workload) =
            (History::default(), Workload::new(&Setting { ttl_ms_max: TTL_MS, ..Setting::default() }));
        Self { replicas, history, workload, mail: Vec::new(), now_ms: 1_000, may, evicted: BTreeSet::new() }
    }

    /// Plays a story, and holds every replica it touches to history.
    pub fn play(&mut self, story: &[u8]) {
        for &[what, places, subject, amount] in story.as_chunks().0.iter().take(ACTIONS_MAX) {
            let count = self.replicas.len();
            let (at, other) = (usize::from(places & 3) % count, usize::from(places >> 2 & 3) % count);
            self.set_clocks();
            match (OpKind::ALL.get(usize::from(what % 32)), what % 32) {
                (Some(kind), _) => self.write(at, *kind, subject, amount),
                (None, 20..=22) => self.send(at, other, subject, amount),
                (None, 23..=25) => self.receive(usize::from(subject), amount & 1 == 1),
                (None, 26) => self.exchange(at, other),
                (None, 27) if self.may.collect => self.replicas[at].collect(),
                (None, 28) if self.may.collect => self.replicas[at].expire(),
                (None, 29) if self.may.forget => self.evict(at, subject),
                (None, 30) if self.may.forget => self.replicas[at].truncate(usize::from(amount % 4)),
                (None, _) => self.now_ms += u64::from(amount),
            }
            self.judge(at);
        }
    }

    fn set_clocks(&mut self) {
        for (replica, skew) in self.replicas.iter_mut().zip(SKEWS_MS) {
            replica.clock_ms = self.now_ms + skew;
        }
    }

    fn write(&mut self, at: usize, kind: OpKind, subject: u8, ttl: u8) {
        let op = Op { kind, key: subject & 3, name: subject >> 2 & 3, ttl };
        let replica = &mut self.replicas[at];
        let (key, mutation) = self.workload.mutation(op, replica.store.clock().visible_ms(replica.clock_ms));
        self.history.perform(replica, &key, &mutation).expect("nothing is full here");
    }

    /// Sends what the other lacks, or is thought to lack, or everything; maybe not all at once.
    fn send(&mut self, at: usize, other: usize, known: u8, fragments: u8) {
        let known = match known % 3 {
            0 => Ctx::default(),
            1 => self.replicas[other].ctx(),
            _ => self.replicas[at].reported_by(&self.replicas[other]),
        };
        let budget = Budget { fragments: if fragments == 0 { usize::MAX } else { fragments.into() }, ..ALL };
        if self.mail.len() < MAIL_MAX && at != other {
            let mail = self.replicas[at].mail_for(&known, budget);
            self.mail.push((other, mail));
        }
    }

    /// Mail arrives in any order, and may arrive again.
    fn receive(&mut self, which: usize, again: bool) {
        let Some(at) = which.checked_rem(self.mail.len()) else { return };
        let (to, mail) = if again { self.mail[at].clone() } else { self.mail.swap_remove(at) };
        drop(self.replicas[to].deliver(&mail));
        self.judge(to);
    }

    /// Sends from one to the other what that lacks.
    pub fn exchange(&mut self, from: usize, to: usize) {
        if from != to {
            let mail = self.replicas[from].mail_for(&self.replicas[to].ctx(), ALL);
            drop(self.replicas[to].deliver(&mail));
            self.judge(to);
        }
    }

    fn evict(&mut self, at: usize, subject: u8) {
        let space = if subject & 4 == 0 { REGISTERS } else { MAPS };
        self.evicted.extend(self.replicas[at].evict(&key(space, subject & 3)));
    }

    /// Holds a replica to history, later than every clock that may have dropped something.
    ///
    /// # Panics
    /// If it shows anything else.
    pub fn judge(&self, at: usize) {
        let (replica, t) = (&self.replicas[at], self.now_ms + SKEWS_MS[2]);
        let ctx = replica.ctx();
        let view = self.history.view(PART, &ctx, t);
        let licence = Licence { stamps: self.evicted.clone(), hole: self.may.forget, misses: false };
        for key in self.history.keys() {
            let found = replica.entry(key, |entry| agree(&view.of(key), entry, t, &licence));
            assert!(found.is_ok(), "at {at}: {found:?}");
        }
        assert!(replica.is_nested(), "frontier, floor and context of {at}");
    }

    /// Everybody exchanges everything, and what is still under way arrives, before and after a collection. Then all
    /// have seen the same and show the same, and much later nothing is left to collect.
    ///
    /// # Panics
    /// If not.
    pub fn quiesce(&mut self) {
        let count = self.replicas.len();
        for round in 0..6 {
            self.set_clocks();
            (0..count * count).for_each(|pair| self.exchange(pair / count, pair % count));
            if round >= 2 && self.may.collect {
                self.replicas.iter().for_each(Replica::collect);
                self.replicas.iter().for_each(Replica::expire);
            }
            for (to, mail) in if round == 1 || round == 3 { self.mail.clone() } else { Vec::new() } {
                drop(self.replicas[to].deliver(&mail));
            }
        }
        assert!(self.replicas.windows(2).all(|pair| pair[0].ctx() == pair[1].ctx()), "all have seen the same");
        (0..count).for_each(|at| self.judge(at));
        self.now_ms += COLLECT_AFTER_MS + SKEWS_MS[2];
        self.set_clocks();
        for replica in self.replicas.iter().filter(|_| self.may.collect) {
            replica.expire();
            replica.collect();
            assert_eq!(replica.residue(), None, "nothing is left");
        }
        (0..count).for_each(|at| self.judge(at));
        let same = |pair: &[Replica]| pair[0].state() == pair[1].state();
        assert!(self.may.forget || self.replicas.windows(2).all(same), "all hold the same");
    }
}
