//! A level that was reached was reached.
//!
//! # Invariants
//! * At the moment a wait ends, at least as many members as it says have the write in their own contexts, or had it when
//!   they ended, edges left out. A liar may speak falsely for itself, and for nobody else.
//! * A quorum is a majority of the configured nodes at least, and everybody is all of them.
//! * A wait ends by its deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Invariant, Violation};
use crate::clock::Mono;
use crate::crdt::Ctx;
use crate::id::ReplicaId;
use crate::node::{Level, Mark, Outcome, WaitId};

/// How late a wait may be answered: what is due is done when the node is next given something.
const WAIT_SLACK: Duration = Duration::from_secs(1);

/// A wait nobody has an answer to yet.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Pending {
    pub(in crate::sim) at: usize,
    pub(in crate::sim) replica: ReplicaId,
    pub(in crate::sim) id: WaitId,
    pub(in crate::sim) mark: Mark,
    pub(in crate::sim) level: Level,
    pub(in crate::sim) deadline: Mono,
}

/// A level that was reached, and who had the write then.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Reached {
    pub(in crate::sim) mark: Mark,
    pub(in crate::sim) holders: BTreeSet<ReplicaId>,
}

/// Who could have reported, and what they had.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Witnesses<'a> {
    /// Contexts of processes but edges that run, and of those that ended as they were then.
    pub(in crate::sim) contexts: &'a BTreeMap<ReplicaId, &'a [Ctx]>,
    /// How many more there are of which nobody knows: liars, and processes that ended unseen.
    pub(in crate::sim) unknown: usize,
    /// Nodes the configuration names, edges left out.
    pub(in crate::sim) configured: usize,
}

impl Pending {
    /// Judges how the wait ended.
    pub(in crate::sim) fn judge(&self, outcome: &Outcome, all: &Witnesses<'_>) -> Result<Option<Reached>, Violation> {
        let place = self.mark.partition.index();
        let has = |parts: &[Ctx]| parts.get(place).is_some_and(|ctx| ctx.has(self.mark.dot));
        let holders: BTreeSet<ReplicaId> =
            all.contexts.iter().filter(|(_, parts)| has(parts)).map(|(replica, _)| *replica).collect();
        if outcome.acked > holders.len() + all.unknown {
            return Err(self.broken(&format!("{outcome:?}, but only {holders:?} have it")));
        }
        let least = match self.level {
            Level::Local | Level::EachRegion => 1,
            Level::Quorum => all.configured / 2 + 1,
            Level::All => all.configured,
        };
        if outcome.needed < least || outcome.reached != (outcome.acked >= outcome.needed) {
            return Err(self.broken(&format!("{outcome:?}, where at least {least} are needed")));
        }
        Ok(outcome.reached.then_some(Reached { mark: self.mark, holders }))
    }

    /// Checks that a wait without an answer still has time, or is hardly late.
    pub(in crate::sim) fn has_time(&self, now: Mono) -> Result<(), Violation> {
        if now <= self.deadline.plus(WAIT_SLACK) {
            return Ok(());
        }
        let what =
            format!("{:?} of {:?} had until {:?} and has no outcome at {now:?}", self.id, self.mark, self.deadline);
        Err(Violation::new(Invariant::Waits, what))
    }

    fn broken(&self, what: &str) -> Violation {
        Violation::new(Invariant::Acknowledged, format!("{:?} at {:?}: {what}", self.mark, self.level))
    }
}

impl Reached {
    /// Checks that a write somebody who survived had when its level was reached is there at the end.
    pub(in crate::sim) fn survives(&self, survivors: &BTreeSet<ReplicaId>, last: &[Ctx]) -> Result<(), Violation> {
        let kept = self.holders.iter().any(|replica| survivors.contains(replica));
        let here = last.get(self.mark.partition.index()).is_some_and(|ctx| ctx.has(self.mark.dot));
        if here || !kept {
            return Ok(());
        }
        let what = format!("{:?} was acknowledged by {:?}, and is lost", self.mark, self.holders);
        Err(Violation::new(Invariant::Acknowledged, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::Dot;
    use crate::id::PartitionId;

    const WRITER: ReplicaId = ReplicaId(1);

    fn pending(level: Level) -> Pending {
        let mark = Mark { partition: PartitionId(0), dot: Dot { replica: WRITER, seq: 1 } };
        Pending { at: 0, replica: WRITER, id: WaitId(1), mark, level, deadline: Mono(10) }
    }

    /// Judges an outcome where `holders` of three configured nodes have the write.
    fn judge(level: Level, (acked, needed, reached): (usize, usize, bool), holders: u64) -> Option<Invariant> {
        let mut seen = Ctx::default();
        seen.add(Dot { replica: WRITER, seq: 1 });
        let (has, lacks) = ([seen], [Ctx::default()]);
        let of = |n| (ReplicaId(n), if n <= holders { &has[..] } else { &lacks[..] });
        let contexts: BTreeMap<ReplicaId, &[Ctx]> = (1..=3).map(of).collect();
        let all = Witnesses { contexts: &contexts, unknown: 0, configured: 3 };
        let outcome = Outcome { reached, acked, needed, missing: Vec::new() };
        pending(level).judge(&outcome, &all).err().map(|found| found.invariant)
    }

    #[test]
    fn a_level_is_what_so_many_really_have() {
        let broken = Some(Invariant::Acknowledged);
        assert_eq!(judge(Level::Quorum, (2, 2, true), 2), None);
        assert_eq!(judge(Level::Quorum, (2, 2, true), 1), broken, "one of those counted does not have it");
        assert_eq!(judge(Level::Quorum, (1, 1, true), 1), broken, "one is no majority of three");
        assert_eq!(judge(Level::All, (2, 2, true), 2), broken, "two are not all of three");
        assert_eq!(judge(Level::All, (3, 3, true), 3), None);
        assert_eq!(judge(Level::All, (2, 3, true), 3), broken, "reached with less than is needed");
        assert_eq!(judge(Level::All, (3, 3, false), 3), broken, "not reached with what is needed");
        assert_eq!(judge(Level::All, (2, 3, false), 3), None, "a report may be on its way");
    }

    #[test]
    fn what_a_survivor_had_when_it_was_acknowledged_is_there_at_the_end() {
        let reached = Reached { mark: pending(Level::Quorum).mark, holders: BTreeSet::from([WRITER, ReplicaId(2)]) };
        let (mut kept, gone) = (Ctx::default(), [Ctx::default()]);
        kept.add(reached.mark.dot);
        assert_eq!(reached.survives(&BTreeSet::from([ReplicaId(2)]), &[kept]), Ok(()));
        assert_eq!(reached.survives(&BTreeSet::from([ReplicaId(3)]), &gone), Ok(()), "all who had it are gone");
        let lost = reached.survives(&BTreeSet::from([ReplicaId(2)]), &gone);
        assert_eq!(lost.map_err(|found| found.invariant), Err(Invariant::Acknowledged));
    }

    #[test]
    fn a_wait_without_an_outcome_after_its_deadline_is_seen() {
        let wait = pending(Level::Quorum);
        let late = Mono(10).plus(WAIT_SLACK);
        assert_eq!(wait.has_time(late), Ok(()));
        assert_eq!(wait.has_time(Mono(late.0 + 1)).map_err(|found| found.invariant), Err(Invariant::Waits));
    }
}
