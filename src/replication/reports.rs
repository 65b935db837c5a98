//! Reports: the acknowledgement, the heartbeat of stability and the resume point in one.
//!
//! A report says what this replica has seen. On a link it is a difference against the last one
//! sent there: changed replicas of changed partitions, as absolute values, so a repeated report
//! does no harm.
//!
//! # Invariants
//! * What was reported is never more than what is in the store.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::crdt::{Ctx, Seen};
use crate::id::{PartitionId, ReplicaId};
use crate::store::Store;

/// One partition's changed part of a report.
pub type Changed = (PartitionId, Vec<(ReplicaId, Seen)>);

/// What one link was last told.
#[derive(Debug)]
pub struct ReportLog {
    told: Vec<Ctx>,
    pending: BTreeSet<PartitionId>,
    /// The partition told of last: the next call goes on behind it, so that each has its turn.
    last: Option<PartitionId>,
}

impl ReportLog {
    /// Builds the log of a link whose hello carried `told`.
    #[must_use]
    pub fn new(told: Vec<Ctx>) -> Self {
        let pending = (0..told.len()).filter_map(|p| u16::try_from(p).ok()).map(PartitionId).collect();
        Self { told, pending, last: None }
    }

    /// Notes that a partition's context changed.
    pub fn mark(&mut self, partition: PartitionId) {
        self.pending.insert(partition);
    }

    /// Tells whether there may be something to say.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns what changed since the last call, at most `limit` partitions.
    pub fn take(&mut self, store: &Store, limit: usize) -> Vec<Changed> {
        let mut changed = Vec::new();
        while changed.len() < limit
            && let Some(id) = self.next()
        {
            let (Some(told), Some(partition)) = (self.told.get_mut(id.index()), store.read(id)) else { continue };
            let news: Vec<(ReplicaId, Seen)> = partition
                .ctx()
                .iter()
                .filter(|(replica, seen)| told.of(*replica) != Some(*seen))
                .map(|(replica, seen)| (replica, seen.clone()))
                .collect();
            for (replica, seen) in &news {
                told.add_seen(*replica, seen);
            }
            if !news.is_empty() {
                changed.push((id, news));
            }
        }
        changed
    }

    fn next(&mut self) -> Option<PartitionId> {
        let behind = self.last.and_then(|last| self.pending.range((Bound::Excluded(last), Bound::Unbounded)).next());
        self.last = behind.or_else(|| self.pending.first()).copied();
        self.last.filter(|id| self.pending.remove(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_turn_although_the_first_ones_change_again_and_again() {
        let mut log = ReportLog::new(vec![Ctx::default(); 8]);
        let turns: Vec<u16> = (0..12)
            .filter_map(|_| {
                log.mark(PartitionId(0));
                log.mark(PartitionId(1));
                log.next().map(|id| id.0)
            })
            .collect();
        assert_eq!(turns, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 0, 1]);
    }
}
