//! What the latest events changed of the sums, so that a comparison can undo what the other side cannot have seen.
//!
//! Two copies that are written to never stand at the same context. They are compared at the meet of theirs: whoever has
//! seen more takes out of its sums what the other has not seen. Where events of both kinds changed one place in turn,
//! or came together in one fragment, what the place was at the meet is not known: it is *busy* and left out.
//!
//! # Invariants
//! * Records are in the order in which their events were joined in, and each event has one.
//! * A record goes when its event is stable (every member has seen it) and no comparison is under way, or when there are too
//!   many; a comparison that would need one that is gone is not made.
//! * The records of one step go together: one of them has what all of them changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::crdt::{Ctx, Dot};
use crate::probe::sometimes;

/// Most records of a partition: 64 B each, and at 1,500 events a second in every partition more than two seconds.
pub(super) const HISTORY_MAX: usize = 4_096;

/// What one event changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) dot: Dot,
    /// The keyed hash of the key.
    pub(super) hash: u64,
    /// What it can have changed.
    pub(super) place: Place,
    /// Events that were joined in together have the same number.
    pub(super) step: u64,
    /// What the sum of the key grew by; of several events of a step the first has it.
    pub(super) delta: u64,
    /// The earliest deadline of what was there before or after; 0 if something before had been given back.
    pub(super) soonest: u64,
}

/// What an event can have changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    /// One place inside the key.
    At(u64),
    /// All of the key.
    Key,
    /// Other keys of the partition: an invalidation.
    Beyond,
}

/// The latest events of a partition.
#[derive(Debug, Default)]
pub(super) struct History {
    records: VecDeque<Record>,
    /// Records that have gone.
    gone: u64,
    steps: u64,
    /// A step of more events than are kept: none of its records is.
    torn: u64,
    held: Arc<()>,
}

/// Keeps what has become stable in a partition's history for as long as it lives.
#[derive(Clone, Debug)]
pub struct Hold {
    _held: Arc<()>,
}

/// Why a comparison cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unready {
    /// Something the other side has seen has not come yet.
    Behind,
    /// The history does not reach back to the meet, or an invalidation came after an event to undo.
    Lagging,
}

/// What is undone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Undone {
    /// What each key's sum is less by.
    pub(super) keys: BTreeMap<u64, u64>,
    /// Keys of which it is not known.
    pub(super) busy: BTreeSet<u64>,
}

impl History {
    /// Returns the position behind the latest record: a later one has this number or a larger one.
    pub(super) fn end(&self) -> u64 {
        self.gone + u64::try_from(self.records.len()).unwrap_or(0)
    }

    pub(super) fn next_step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }

    pub(super) fn push(&mut self, record: Record) {
        if self.records.len() >= HISTORY_MAX && self.drop_oldest() == Some(record.step) {
            self.torn = record.step;
        }
        if record.step == self.torn {
            self.gone += 1;
            return;
        }
        self.records.push_back(record);
    }

    /// Drops the records of the oldest step, and returns it.
    fn drop_oldest(&mut self) -> Option<u64> {
        let oldest = self.records.front()?.step;
        while self.records.front().is_some_and(|record| record.step == oldest) {
            self.records.pop_front();
            self.gone += 1;
        }
        Some(oldest)
    }

    /// Returns what keeps records of stable events here: whoever compares still asks what has changed since it began.
    pub(super) fn hold(&self) -> Hold {
        Hold { _held: Arc::clone(&self.held) }
    }

    /// Drops the steps every member has seen all of, as far as they are the oldest and nobody holds them.
    pub(super) fn forget(&mut self, stable: &Ctx) {
        let is_stable = |record: &Record| stable.has(record.dot);
        if Arc::strong_count(&self.held) > 1 {
            sometimes!(HistoryHeld, if self.records.front().is_some_and(is_stable));
            return;
        }
        while let Some(oldest) = self.records.front().filter(|record| is_stable(record)).map(|record| record.step) {
            if !self.records.iter().take_while(|record| record.step == oldest).all(is_stable) {
                sometimes!(StepStableInPart);
                return;
            }
            self.drop_oldest();
        }
    }

    /// Drops everything: events were taken in that have no record. They count as one, so that nobody who asks from an earlier
    /// position takes the keys they changed for still.
    pub(super) fn clear(&mut self) {
        self.gone = self.end() + 1;
        self.records.clear();
    }

    /// Returns the keys changed since a position; `None` when that is no longer known.
    pub(super) fn since(&self, position: u64) -> Option<BTreeSet<u64>> {
        let skip = usize::try_from(position.checked_sub(self.gone)?).ok()?;
        Some(self.records.iter().skip(skip).map(|record| record.hash).collect())
    }

    /// Finds out what to undo so that the sums are those of `meet`, for a partition that has seen `mine`.
    pub(super) fn undo(&self, mine: &Ctx, meet: &Ctx, horizon_ms: u64) -> Result<Undone, Unready> {
        if !mine.includes(meet) {
            return Err(Unready::Behind);
        }
        if folded_otherwise(mine, meet) {
            return Err(Unready::Lagging);
        }
        let beyond = count_beyond(mine, meet);
        let mut undone = Undone::default();
        let mut found = 0_u64;
        let mut seen: BTreeMap<u64, Key> = BTreeMap::new();
        for record in self.records.iter().filter(|_| beyond > 0) {
            let uncovered = !meet.has(record.dot);
            found += u64::from(uncovered);
            if found > 0 && record.place == Place::Beyond {
                return Err(Unready::Lagging);
            }
            let key = seen.entry(record.hash).or_default();
            if !key.is_clear(record, uncovered) || (uncovered && record.soonest <= horizon_ms) {
                undone.busy.insert(record.hash);
            }
            if uncovered {
                let sum = undone.keys.entry(record.hash).or_default();
                *sum = sum.wrapping_add(record.delta);
            }
        }
        if found == beyond { Ok(undone) } else { Err(Unready::Lagging) }
    }
}

/// Tells whether a mark of `mine` stands for other events than `meet` has of its tag.
fn folded_otherwise(mine: &Ctx, meet: &Ctx) -> bool {
    mine.iter().any(|(floor, seen)| seen.is_mark() && meet.sum_upto(floor) != Some(seen.sum(floor)))
}

/// Returns how many events `mine` has and `meet`, which is within it, has not, if both have the same of what is folded.
fn count_beyond(mine: &Ctx, meet: &Ctx) -> u64 {
    let named = |ctx: &Ctx| -> u64 {
        let named = ctx.iter().filter(|(replica, _)| mine.of(*replica).is_some_and(|seen| !seen.is_mark()));
        named.map(|(_, seen)| seen.count()).fold(0, u64::wrapping_add)
    };
    named(mine).wrapping_sub(named(meet))
}

/// What was found of one key so far.
#[derive(Debug, Default)]
struct Key {
    /// Places with an event to undo, and the step of the latest.
    undone: BTreeMap<Place, u64>,
    /// Places with an event that stays, and the step of the latest.
    kept: BTreeMap<Place, u64>,
}

impl Key {
    /// Notes a record; tells whether what was there before the events to undo is still known.
    fn is_clear(&mut self, record: &Record, uncovered: bool) -> bool {
        let touches = |places: &BTreeMap<Place, u64>, same_step: bool| match record.place {
            Place::At(_) => [record.place, Place::Key]
                .iter()
                .any(|p| places.get(p).is_some_and(|step| !same_step || *step == record.step)),
            Place::Key | Place::Beyond => places.values().any(|step| !same_step || *step == record.step),
        };
        if uncovered {
            self.undone.insert(record.place, record.step);
            !touches(&self.kept, true)
        } else {
            self.kept.insert(record.place, record.step);
            !touches(&self.undone, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReplicaId;

    fn dot(seq: u64) -> Dot {
        Dot { replica: ReplicaId(1), seq }
    }

    fn ctx(seqs: impl IntoIterator<Item = u64>) -> Ctx {
        let mut ctx = Ctx::default();
        seqs.into_iter().for_each(|seq| ctx.add(dot(seq)));
        ctx
    }

    /// A step that changed one place of key 7: each has the first event's sum.
    fn push(history: &mut History, seqs: impl IntoIterator<Item = u64>) {
        let (step, mut delta) = (history.next_step(), 100);
        for seq in seqs {
            history.push(Record { dot: dot(seq), hash: 7, place: Place::At(1), step, delta, soonest: u64::MAX });
            delta = 0;
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
    fn contexts_of_more_events_than_can_be_counted_are_compared_all_the_same() {
        let mut mine = Ctx::default();
        (1..=300).for_each(|replica| mine.add_range(ReplicaId(replica), 1, 1 << 56));
        assert_eq!(History::default().undo(&mine, &mine, 0), Ok(Undone::default()));
        let mut beyond = mine.clone();
        beyond.add(Dot { replica: ReplicaId(1), seq: (1 << 56) + 1 });
        assert_eq!(History::default().undo(&beyond, &mine, 0), Err(Unready::Lagging));
    }

    #[test]
    fn what_changed_is_not_known_once_something_came_without_a_record() {
        let mut history = History::default();
        push(&mut history, [1]);
        let began = history.end();
        assert_eq!(history.since(began), Some(BTreeSet::new()));
        history.clear();
        assert_eq!(history.since(began), None);
        let again = history.end();
        push(&mut history, [2]);
        assert_eq!(history.since(again), Some(BTreeSet::from([7])));
    }

    #[test]
    fn of_events_that_came_together_none_is_forgotten_before_all_are_stable() {
        let mut history = History::default();
        push(&mut history, [1, 8]);
        history.forget(&ctx([1]));
        let undone = history.undo(&ctx([1, 8]), &ctx([1]), 0).expect("it has a record");
        assert!(undone.busy.contains(&7), "what the key was with the first of the two is not known: {undone:?}");
        history.forget(&ctx([1, 8]));
        assert_eq!(history.end(), 2);
        assert_eq!(history.undo(&ctx([1, 8]), &ctx([1]), 0), Err(Unready::Lagging));
    }

    #[test]
    fn a_step_that_does_not_fit_leaves_nothing_of_itself() {
        let max = u64::try_from(HISTORY_MAX).expect("small");
        let mut history = History::default();
        push(&mut history, [1, 2]);
        push(&mut history, 3..=max);
        push(&mut history, [max + 1]);
        let all = ctx(1..=max + 1);
        assert_eq!(history.undo(&all, &ctx([1]), 0), Err(Unready::Lagging), "the first step went as one");
        assert!(history.undo(&all, &ctx([1, 2]), 0).is_ok());
        push(&mut history, max + 2..=3 * max);
        assert_eq!(history.end(), 3 * max);
        let all = ctx(1..=3 * max);
        assert_eq!(history.undo(&all, &ctx(1..3 * max), 0), Err(Unready::Lagging), "larger than all there is room for");
        push(&mut history, [3 * max + 1]);
        assert!(history.undo(&ctx(1..=3 * max + 1), &all, 0).is_ok_and(|undone| undone.busy.is_empty()));
    }
}
