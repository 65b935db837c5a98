//! Reads at a level, and what each of them must have seen when it is reached.
//!
//! # Invariants
//! * When so many have answered, at least so many hosts held nothing of the register, when the read began, that its reader has
//!   not seen by now. Of a host of which another process ran meanwhile, or that lies, nobody knows what it answered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Invariant, Violation, at_host};
use super::cluster::SimCluster;
use super::oracle::{Key, cell};
use super::plan::Ack;
use super::workload::{self, REGISTERS};
use crate::crdt::Ctx;
use crate::id::{KeyspaceId, PartitionId, ReplicaId};
use crate::node::{Input, Level, Outcome, WaitId};
use crate::store::{Entry, KeyRef, Store};

/// A read under way.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    level: Level,
    partition: PartitionId,
    /// Which process ran at each host when it began, and the events of what was held there.
    held: BTreeMap<usize, (ReplicaId, Ctx)>,
}

/// The reads of a host.
#[derive(Debug, Default)]
pub(super) struct Reads {
    asking: BTreeMap<WaitId, Asking>,
    /// The first that showed less than it should.
    broken: Option<Violation>,
    /// How many were reached.
    pub(super) reached: u64,
}

impl SimCluster {
    /// Begins a read at a level; its outcome comes under this name.
    pub fn read(&mut self, at: usize, key: &Key, level: Level, within: Duration) -> Option<WaitId> {
        let store = self.store(at)?;
        let space = store.spaces().open(key.space.name, key.space.family).ok()?;
        self.next_wait += 1;
        let id = WaitId(self.next_wait);
        let partition = store.place(space.hash(&key.name));
        let held = |at: usize| Some((at, (self.node(at)?.me().replica, events(&*self.store(at)?, partition, key))));
        let held = (0..self.host_count()).filter(|at| self.is_honest(*at)).filter_map(held).collect();
        if let Some(host) = self.hosts.get_mut(at) {
            host.reads.asking.insert(id, Asking { level, partition, held });
        }
        let deadline = Some(self.now(at).mono.plus(within));
        self.input(at, Input::Read { id, keyspace: space.id(), key: key.name.clone(), level, deadline });
        Some(id)
    }

    pub(super) fn ask(&mut self, at: usize, key: u8, ack: Ack) -> bool {
        let level = if ack.all { Level::All } else { Level::Quorum };
        let within = Duration::from_millis(u64::from(ack.within_ms));
        self.has_clients(at) && self.read(at, &workload::key(REGISTERS, key), level, within).is_some()
    }

    /// Returns how many reads at a level were reached.
    #[must_use]
    pub fn reads_reached(&self) -> u64 {
        self.hosts.iter().map(|host| host.reads.reached).sum()
    }

    /// Checks that every read that was reached so far has shown what it should.
    pub(super) fn all_read_rightly(&self) -> Result<(), Violation> {
        let broken = self.hosts.iter().enumerate().find_map(|(at, host)| Some((at, host.reads.broken.clone()?)));
        broken.map_or(Ok(()), |(at, violation)| Err(at_host(at)(violation)))
    }

    /// A wait or a read of a host has ended.
    pub(super) fn note_outcome(&mut self, at: usize, id: WaitId, outcome: Outcome) {
        let asking = self.hosts.get_mut(at).and_then(|host| host.reads.asking.remove(&id));
        let judged = asking.filter(|_| outcome.reached).map(|asking| self.judge_read(at, &asking, &outcome));
        let Some(host) = self.hosts.get_mut(at) else { return };
        host.reads.reached += u64::from(judged.is_some());
        if let Some(Err(violation)) = judged {
            host.reads.broken.get_or_insert(violation);
        }
        host.outcomes.insert(id, outcome);
    }

    fn judge_read(&self, at: usize, asking: &Asking, outcome: &Outcome) -> Result<(), Violation> {
        let Some(store) = self.store(at) else { return Ok(()) };
        let Some(reader) = store.read(asking.partition) else { return Ok(()) };
        let runs = |at: usize| self.node(at).map(|node| node.me().replica);
        let has_all_of = |at: &usize| {
            let known = asking.held.get(at).filter(|(replica, _)| runs(*at) == Some(*replica));
            known.is_none_or(|(_, held)| reader.covers(held))
        };
        let whole: Vec<usize> = (0..self.host_count()).filter(|at| !self.is_edge(*at)).collect();
        let answered = whole.iter().filter(|at| has_all_of(at)).count();
        let configured = (0..self.config.nodes + self.config.spare).filter(|at| !self.is_edge(*at)).count();
        let least = if asking.level == Level::All { configured } else { configured / 2 + 1 };
        if outcome.acked <= answered && outcome.needed >= least {
            return Ok(());
        }
        let what =
            format!("{outcome:?}, where {least} are needed, and it has all of what {answered} held of {asking:?}");
        Err(Violation::new(Invariant::Acknowledged, what))
    }
}

/// Returns the events of a register, and of the invalidations of its keyspace.
fn events(store: &Store, partition: PartitionId, key: &Key) -> Ctx {
    let mut ctx = Ctx::default();
    let Some(space) = store.spaces().find(key.space.name) else { return ctx };
    let Some(partition) = store.read(partition) else { return ctx };
    let clears = |id: KeyspaceId| store.spaces().get(id).is_some_and(|other| other.target() == Some(space.id()));
    let epochs = partition.entries().filter(|(id, _, _)| clears(*id)).map(|(_, _, entry)| entry);
    for cell in epochs.chain(partition.entry(&KeyRef::new(&space, &key.name))).filter_map(|entry: &Entry| cell(entry)) {
        ctx.add(cell.dot());
        ctx.add(cell.touch);
    }
    ctx
}
