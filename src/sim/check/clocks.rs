//! Stamps grow, and are never far ahead of the clock of the process that made or took them.
//!
//! # Invariants
//! * A replica's stamps grow over all its partitions, whatever its wall clock does.
//! * No hybrid clock is ahead of the largest wall clock its process ever had by more than the drift bound, but for the
//!   carry of the counter: what is further ahead is not taken in.
//! * A write's stamp is above that of everything its author had seen of the key.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::clock::{Hlc, Stamp};
use crate::config::MembershipConfig;
use crate::crdt::{Ctx, Dot};
use crate::id::{PartitionId, ReplicaId};
use crate::sim::oracle::{History, Key};
use crate::store::{Store, Written};

/// Returns the instant that decides what is visible in a store: the later of its wall clock and its hybrid clock.
pub(in crate::sim) fn decides_ms(store: &Store, wall_ms: u64) -> u64 {
    wall_ms.max(store.clock().last().ms())
}

/// The last stamp of each replica.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Stamps {
    last: BTreeMap<ReplicaId, Hlc>,
    ticks: u64,
}

impl Stamps {
    /// Takes in an event of a replica.
    pub(in crate::sim) fn note(&mut self, stamp: Stamp) -> Result<(), Violation> {
        self.ticks += 1;
        let last = self.last.entry(stamp.replica).or_default();
        if stamp.hlc <= *last {
            let what = format!("{} made {} after {}", stamp.replica, stamp.hlc, last);
            return Err(Violation::new(Invariant::Clock, what));
        }
        *last = stamp.hlc;
        Ok(())
    }

    /// Checks a hybrid clock against the largest wall clock of its process.
    pub(in crate::sim) fn near(&self, hlc: Hlc, wall_ms_max: u64) -> Result<(), Violation> {
        let drift_ms = u64::try_from(MembershipConfig::default().max_drift.as_millis()).unwrap_or(u64::MAX);
        let carry_ms = 1 + (self.ticks >> 16);
        let bound_ms = wall_ms_max.saturating_add(drift_ms).saturating_add(carry_ms);
        if hlc.ms() <= bound_ms {
            return Ok(());
        }
        let what = format!("the clock is at {hlc}, and no wall clock here was ever beyond {wall_ms_max}");
        Err(Violation::new(Invariant::Clock, what))
    }
}

/// Checks that a write is later than everything its author had seen of the key.
pub(in crate::sim) fn later_than_seen(history: &History, key: &Key, past: &Ctx, stamp: Stamp) -> Result<(), Violation> {
    let seen = history.of(key).filter(|r| past.has(r.dot)).map(|r| r.stamp).max();
    if seen.is_none_or(|seen| seen < stamp) {
        return Ok(());
    }
    Err(Violation::new(Invariant::Clock, format!("{stamp:?} was made by somebody who had seen {seen:?}")))
}

/// Checks that a process numbers its events in a partition one after the other, under its own name.
pub(in crate::sim) fn numbered(
    partition: PartitionId,
    made: u64,
    replica: ReplicaId,
    written: &[Written],
) -> Result<(), Violation> {
    for (seq, w) in (made + 1..).zip(written) {
        let called_for = Dot { replica, seq };
        if w.dot != called_for || w.stamp.replica != replica {
            let what = format!("{partition}: {:?} under {:?}, where {called_for:?} was due", w.dot, w.stamp);
            return Err(Violation::new(Invariant::Dots, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(found: Result<(), Violation>) -> Option<Invariant> {
        found.err().map(|found| found.invariant)
    }

    fn stamp(hlc: u64, replica: u64) -> Stamp {
        Stamp { hlc: Hlc(hlc), replica: ReplicaId(replica) }
    }

    #[test]
    fn stamps_of_a_replica_must_grow() {
        let mut stamps = Stamps::default();
        for (hlc, replica) in [(5, 1), (3, 2), (6, 1)] {
            assert_eq!(stamps.note(stamp(hlc, replica)), Ok(()));
        }
        assert_eq!(broken(stamps.note(stamp(6, 1))), Some(Invariant::Clock));
    }

    #[test]
    fn a_clock_may_be_ahead_by_the_drift_bound_and_the_carry() {
        let stamps = Stamps::default();
        assert_eq!(stamps.near(Hlc::from_ms(2_001), 1_000), Ok(()));
        assert_eq!(broken(stamps.near(Hlc::from_ms(2_002), 1_000)), Some(Invariant::Clock));
    }

    #[test]
    fn events_are_numbered_one_after_the_other_by_their_own_replica() {
        let written =
            |replica, seq| Written { dot: Dot { replica: ReplicaId(replica), seq }, stamp: stamp(1, replica) };
        let check = |made, all: &[Written]| broken(numbered(PartitionId(0), made, ReplicaId(1), all));
        assert_eq!(check(4, &[written(1, 5), written(1, 6)]), None);
        for wrong in [vec![written(1, 4)], vec![written(1, 6)], vec![written(2, 5)], vec![written(1, 5), written(1, 5)]]
        {
            assert_eq!(check(4, &wrong), Some(Invariant::Dots), "{wrong:?}");
        }
    }
}
