//! What is written again must be owed, and what is owed must be written again.
//!
//! # Invariants
//! * Nothing is written again but what was left, as it was, of each key the last, and nothing over what is newer and was
//!   seen.
//! * What nobody had received, and of which nothing newer was seen or may have been forgotten, is written again.

use super::Watcher;
use crate::crdt::{Cell, Ctx, Payload};
use crate::id::PartitionId;
use crate::sim::check::{Invariant, Violation, at_host};
use crate::sim::cluster::SimCluster;
use crate::sim::oracle::{Event, Key, Record};
use crate::sim::returns::{Again, Left};
use crate::sim::workload::REGISTERS;

/// A write made again.
struct Rewritten {
    partition: PartitionId,
    key: Key,
    now: Left,
}

impl Watcher {
    /// Takes in what was folded and what replicas have written again since the last time.
    pub(super) fn heed(&mut self, cluster: &SimCluster) -> Result<(), Violation> {
        cluster.all_folded_alike()?;
        if cluster.folded.folds.len() != self.history.folds() {
            self.history.learn(&cluster.folded.folds);
        }
        let all = cluster.returns.again.get(self.heeded..).unwrap_or_default();
        self.heeded += all.len();
        for again in all.iter().filter(|again| cluster.is_honest(again.at)) {
            self.take_again(cluster, again).map_err(at_host(again.at))?;
        }
        Ok(())
    }

    fn take_again(&mut self, cluster: &SimCluster, again: &Again) -> Result<(), Violation> {
        let mut rewritten: Vec<Rewritten> = again.own.iter().filter_map(|own| self.unknown(own)).collect();
        rewritten.sort_by_key(|r| r.now.cell.stamp());
        let is_of = |one: &Left, other: &Left| one.space == other.space && one.key == other.key;
        let is_it = |left: &Left, r: &Rewritten| {
            let what = |cell: &Cell| (cell.payload().clone(), cell.deadline);
            left.key == r.now.key && what(&left.cell) == what(&r.now.cell)
        };
        for r in &rewritten {
            if !again.left.iter().any(|left| is_it(left, r)) {
                let what = format!("{:?} is written again, and was not left: {:?}", r.key, r.now.cell);
                return Err(Violation::new(Invariant::Invented, what));
            }
        }
        for left in again.left.iter().filter(|left| left.space == REGISTERS.name) {
            let Some(id) = self.place(left) else { continue };
            let done = rewritten.iter().any(|r| is_it(left, r));
            let is_later = |other: &&Left| is_of(other, left) && other.cell.stamp() > left.cell.stamp();
            if let Some(later) = again.left.iter().find(is_later) {
                if done && !rewritten.iter().any(|r| is_it(later, r)) {
                    let what = format!("{:?} is written again instead of {:?}", left.cell, later.cell);
                    return Err(Violation::new(Invariant::Resurrection, what));
                }
                continue;
            }
            let first = rewritten.iter().filter(|r| r.partition == id).map(|r| r.now.cell.dot().seq).min();
            self.judge_again(cluster, again, left, (id, &again.before(id, first)), done)?;
        }
        for Rewritten { partition, key, now: Left { cell, .. } } in rewritten {
            let (dot, stamp) = (cell.dot(), cell.stamp());
            let past = again.before(partition, Some(dot.seq));
            self.writers.insert(dot.replica);
            self.stamps.note(stamp)?;
            let event = match cell.payload() {
                Payload::Value(value) => {
                    Event::Set { value: value.clone(), tags: cell.tags().to_vec(), deadline: cell.deadline }
                }
                Payload::Tombstone | Payload::Absent => Event::Delete,
            };
            self.history.add(Record { partition, dot, stamp, past, key, event });
        }
        Ok(())
    }

    /// Returns a write of the replica's own that nobody asked it for.
    fn unknown(&self, own: &Left) -> Option<Rewritten> {
        let partition = self.place(own).filter(|_| own.space == REGISTERS.name)?;
        let known = self.history.subject(partition, own.cell.dot()).is_some();
        let key = Key { space: REGISTERS, name: own.key.clone() };
        (!known).then(|| Rewritten { partition, key, now: own.clone() })
    }

    /// Returns the partition of a key.
    fn place(&self, left: &Left) -> Option<PartitionId> {
        let key = Key { space: REGISTERS, name: left.key.clone() };
        self.history.of(&key).next().map(|record| record.partition)
    }

    fn judge_again(
        &self,
        cluster: &SimCluster,
        again: &Again,
        left: &Left,
        (id, before): (PartitionId, &Ctx),
        done: bool,
    ) -> Result<(), Violation> {
        let key = Key { space: REGISTERS, name: left.key.clone() };
        let (dot, stamp) = (left.cell.dot(), left.cell.stamp());
        let latest_ms = self.latest_ms.max(again.now_ms);
        let seen = self.history.resolved(id, before);
        let view = self.history.view(id, &seen, latest_ms).of(&key);
        let newer = view.last_stamp().is_some_and(|last| last > stamp) || view.is_invalidated(stamp, left.cell.tags());
        if done && (newer || seen.has(dot)) {
            let what = format!("{key:?} of {stamp:?} is written again over {:?}", view.last_stamp());
            return Err(Violation::new(Invariant::Resurrection, what));
        }
        let shows = view.register().is_some();
        let outlived_all = shows && view.has_tags(left.cell.tags());
        let may_be_forgotten = !outlived_all && again.forgotten(id) >= stamp.hlc;
        let nothing_to_do = match left.cell.payload() {
            Payload::Value(_) => left.cell.deadline <= latest_ms || again.full.contains(&left.space),
            Payload::Tombstone | Payload::Absent => !shows,
        };
        let excused = again.excused || newer || may_be_forgotten || nothing_to_do || seen.has(dot);
        let has = |ctx: &Ctx| ctx.has(dot);
        let others = (0..cluster.host_count()).filter(|at| *at != again.at).filter_map(|at| cluster.store(at));
        let received = || {
            others.into_iter().any(|store| store.read(id).is_some_and(|p| has(p.ctx())))
                || self
                    .contexts()
                    .into_iter()
                    .filter(|(replica, _)| *replica != dot.replica)
                    .any(|(_, seen)| seen.get(id.index()).is_some_and(has))
        };
        if done || excused || self.may_miss(&key, None) || received() || cluster.departed_with(id, dot) {
            return Ok(());
        }
        let what = format!("{key:?} of {stamp:?} was received by nobody, and is not written again");
        Err(Violation::new(Invariant::Survival, what))
    }
}

impl Again {
    fn forgotten(&self, id: PartitionId) -> crate::clock::Hlc {
        self.seen.get(id.index()).map(|(_, forgotten)| *forgotten).unwrap_or_default()
    }

    /// Returns what the replica had seen of a partition before its own event of this number, or all of it.
    fn before(&self, id: PartitionId, own: Option<u64>) -> Ctx {
        let mut past = Ctx::default();
        for (replica, seen) in self.seen.get(id.index()).into_iter().flat_map(|(ctx, _)| ctx.iter()) {
            match own.filter(|_| replica == self.replica) {
                Some(own) => past.add_range(replica, 1, own - 1),
                None => past.add_seen(replica, seen),
            }
        }
        past
    }
}
