//! What may be forgotten: causal stability, age, expiry and the bound of the log.
//!
//! A dot is *stable* when it is in the latest report of every member. Then its log record goes,
//! and with the last unstable dot of an entry the tombstones, stubs and reset counters, once they
//! are older than `collect_after` (R-AGE). Age alone never collects anything.
//!
//! # Invariants
//! * `frontier ⊆ floor ⊆ ctx`, and none ever shrinks.
//! * Collection and expiry never change what is visible.
//! * The log never exceeds its limit, and of one entry it never has more than a message covers; what it drops is in the
//!   floor (R-TRUNC), and its entries stay until every member has the floor.

use std::cmp::Reverse;

use super::entry::Body;
use super::keyspace::{Family, Keyspace, Keyspaces};
use super::partition::{KeyRef, Partition, Slot};
use super::warm::Warm;
use crate::crdt::{Ctx, Dot, NEVER, Scope, Seen};
use crate::id::ReplicaId;
use crate::probe::{planted, sometimes};

/// Most entries one call of [`Partition::sweep`] looks at under the lock: about 50 µs of work.
const SWEEP_MAX: usize = 256;

/// Slots one call of [`Partition::evict_cold`] looks at.
const COLD_MAX: u32 = 256;

/// Most gaps of one replica in the floor, a quarter of what a message may name.
const FLOOR_GAPS_MAX: usize = 1_024;

/// Deadlines out of date that are kept whatever the number of entries.
const DEADLINES_SPARE: usize = 64;

impl Partition {
    /// Collects what is stable for `others`, the live members besides me. Without all of their
    /// reports nothing is.
    pub fn collect(&mut self, others: &[ReplicaId], spaces: &Keyspaces, collect_before_ms: u64) {
        if let Some(reports) = self.reports_of(others) {
            let stable = stable_part(&self.ctx, &reports);
            let inherited = self.floor.includes(&self.frontier) && floor_reached(&self.floor, &self.ctx, &reports);
            self.drop_stable(&stable, spaces, collect_before_ms);
            if inherited {
                self.release_truncated(spaces, collect_before_ms);
            }
        } else {
            sometimes!(ReportAwaited);
        }
        self.collect_graves(others, spaces, collect_before_ms);
    }

    fn reports_of(&self, others: &[ReplicaId]) -> Option<Vec<Ctx>> {
        if planted!(OwnReportSuffices) {
            return Some(Vec::new());
        }
        // Who was removed where a mark was made writes on until it hears of that: the mark does not stand for those events.
        others.iter().map(|member| Some(self.reports.get(member)?.fitting(&self.ctx))).collect()
    }

    fn drop_stable(&mut self, stable: &Ctx, spaces: &Keyspaces, collect_before_ms: u64) {
        // An inherited frontier may be ahead of my log, which has to be drained all the same.
        if self.frontier.includes(stable) && (!self.floor_inherited || planted!(InheritedFrontierNotDrained)) {
            return;
        }
        sometimes!(StableBeyondGap, if stable.iter().any(|(_, seen)| seen.gaps() > 0));
        let origins = self.log.origins().filter_map(|origin| Some((origin, stable.of(origin)?)));
        let done: Vec<(Dot, u32)> = origins
            .flat_map(|(origin, seen)| self.log.from(origin, 1).take_while(|(d, _)| d.seq <= seen.max()))
            .filter(|(dot, _)| stable.has(*dot))
            .collect();
        sometimes!(LogDrainedBehindFrontier, if self.frontier.includes(stable) && !done.is_empty());
        self.frontier.join(stable);
        self.floor.join(stable);
        self.history.forget(&self.frontier);
        for (dot, slot) in done {
            self.log.remove(dot);
            let Some(s) = self.slot_mut(slot) else { continue };
            let (settled, id) = (s.entry.unmark(dot), s.keyspace);
            if settled && let Some(space) = spaces.get(id) {
                self.settle(slot, &space, collect_before_ms);
            }
        }
    }

    /// Lets a mark that a member has made stand for the same here: what it covers was stable there, and so it is here.
    pub fn adopt(&mut self, floor: ReplicaId, spaces: &Keyspaces, collect_before_ms: u64) {
        let stable = self.ctx.named_upto(floor);
        self.drop_stable(&stable, spaces, collect_before_ms);
        self.fold(floor);
    }

    /// Every member has the floor: what was truncated is stable now.
    fn release_truncated(&mut self, spaces: &Keyspaces, collect_before_ms: u64) {
        if !self.floor_inherited && self.truncated.is_empty() {
            return;
        }
        self.frontier.join(&self.floor.clone());
        let slots: Vec<u32> = if std::mem::take(&mut self.floor_inherited) {
            sometimes!(InheritedFloorReached);
            self.truncated.clear();
            (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).collect()
        } else {
            sometimes!(TruncatedReleased);
            std::mem::take(&mut self.truncated)
        };
        for slot in slots {
            let Some(s) = self.slot_mut(slot) else { continue };
            s.entry.truncated = false;
            let id = s.keyspace;
            if let Some(space) = spaces.get(id) {
                self.settle(slot, &space, collect_before_ms);
            }
        }
    }

    /// Drops from an entry what is settled and old; a grave that is still young is queued.
    pub(super) fn settle(&mut self, slot: u32, space: &Keyspace, collect_before_ms: u64) {
        let held = self.floor_inherited;
        let Some(s) = self.slot_mut(slot) else { return };
        sometimes!(SettledHeldForFloor, if held && s.entry.is_settled());
        if !held && s.entry.is_settled() {
            let before_ms = if self.verified.is_waiting_for_comparisons() { 0 } else { collect_before_ms };
            let Some(s) = self.slot(slot) else { return };
            let grave = s.entry.grave_ms().filter(|ms| *ms > before_ms);
            let gone = self.change(slot, space, None, |entry| entry.settle(before_ms)).flatten();
            self.forgotten = self.forgotten.max(gone.unwrap_or_default());
            if let Some(ms) = grave {
                sometimes!(YoungGraveKept);
                self.graves.push(Reverse((ms, slot)));
            }
        }
        self.drop_if_empty(slot, space);
    }

    /// Drops what expired by `now_ms`, a bounded amount per call; returns whether more is due.
    pub fn sweep(&mut self, now_ms: u64, spaces: &Keyspaces, collect_before_ms: u64) -> bool {
        for _ in 0..SWEEP_MAX {
            match self.expiry.peek() {
                Some(Reverse((deadline, _))) if *deadline <= now_ms => {}
                Some(_) | None => return false,
            }
            let Some(Reverse((deadline, slot))) = self.expiry.pop() else { return false };
            let Some(id) = self.slot(slot).filter(|s| s.timer == deadline).map(|s| s.keyspace) else { continue };
            let Some(space) = spaces.get(id) else { continue };
            let held = self.floor_inherited;
            let counted = (!planted!(FingerprintMissesExpiry)).then_some(&Scope::Key);
            self.change(slot, &space, counted, |entry| entry.expire(now_ms, held));
            self.rearm(slot, now_ms);
            self.settle(slot, &space, collect_before_ms);
        }
        true
    }

    /// Queues an entry for its next deadline. What is due and had to stay is queued again by
    /// [`Partition::change`] when the entry settles.
    fn rearm(&mut self, slot: u32, now_ms: u64) {
        let Some(s) = self.slot_mut(slot) else { return };
        let timer = s.entry.next_deadline(now_ms).unwrap_or(NEVER);
        if timer != NEVER || !planted!(SweptEntryStays) {
            s.timer = timer;
        }
        let had_to_stay = s.entry.next_deadline(0).is_some_and(|deadline| deadline <= now_ms);
        if had_to_stay {
            self.overdue.insert(slot);
        } else {
            self.overdue.remove(&slot);
        }
        if timer != NEVER {
            self.queue_deadline(timer, slot);
        }
    }

    /// Queues the deadline a slot's timer is set to. The slot's former one is out of date then; it goes when it has
    /// passed, or with all others of its kind when they are the most.
    pub(super) fn queue_deadline(&mut self, deadline: u64, slot: u32) {
        self.expiry.push(Reverse((deadline, slot)));
        if self.expiry.len() > 2 * self.slots.len() + DEADLINES_SPARE {
            let mut queued = std::mem::take(&mut self.expiry);
            queued.retain(|Reverse((deadline, slot))| self.slot(*slot).is_some_and(|s| s.timer == *deadline));
            self.expiry = queued;
        }
    }

    /// Returns the earliest deadline the expiry queue knows of.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiry.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Returns how many deadlines the expiry queue holds, those out of date included.
    #[must_use]
    pub fn queued_deadlines(&self) -> usize {
        self.expiry.len()
    }

    /// Gives an entry's memory back, locally and silently: an agreed value becomes a miss here and
    /// stays what it is everywhere else. Returns whether anything was given back.
    pub fn evict(&mut self, at: &KeyRef<'_>, collect_before_ms: u64) -> bool {
        let Some(slot) = self.find(at) else { return false };
        self.evict_slot(slot, (at.space, at.hash), collect_before_ms)
    }

    fn evict_slot(&mut self, slot: u32, (space, hash): (&Keyspace, u64), collect_before_ms: u64) -> bool {
        let held = self.floor_inherited;
        let evicted = self.change(slot, space, Some(&Scope::Key), |entry| entry.evict(held)).unwrap_or(false);
        if evicted {
            self.table.mark_partial(hash);
        }
        // What was given back here proves nothing: no comparison is to find it.
        let may_go = |s: &Slot| s.entry.is_settled() && s.entry.grave_ms().is_some_and(|ms| ms <= collect_before_ms);
        if evicted && self.slot(slot).is_some_and(may_go) {
            self.bury(slot, space);
        } else {
            self.settle(slot, space, collect_before_ms);
        }
        evicted
    }

    /// Gives registers back that every member has, that are old enough to leave no stub, and that are not `warm`, looking at
    /// the next few slots from `from` on. Returns how many, and where to go on.
    pub fn evict_cold(
        &mut self,
        from: u32,
        warm: &Warm,
        spaces: &Keyspaces,
        collect_before_ms: u64,
    ) -> (u64, Option<u32>) {
        let (mut evicted, id) = (0, self.id);
        let is_cold = |s: &Slot| match &s.entry.body {
            Body::Register(Some(cell)) => {
                let is_old = !cell.is_grave() && cell.stamp().hlc.ms() <= collect_before_ms;
                is_old && s.entry.is_settled() && (!warm.has(id, s.hash) || planted!(WarmEvicted))
            }
            Body::Register(None) | Body::Tree(_) | Body::Custom(_) => false,
        };
        let end = from.saturating_add(COLD_MAX);
        for slot in if self.floor_inherited { end..end } else { from..end } {
            let Some((id, hash)) = self.slot(slot).filter(|s| is_cold(s)).map(|s| (s.keyspace, s.hash)) else {
                continue;
            };
            let Some(space) = spaces.get(id).filter(|space| space.family() == Family::Register) else { continue };
            evicted += u64::from(self.evict_slot(slot, (&space, hash), collect_before_ms));
        }
        (evicted, Some(end).filter(|end| super::partition::widen(*end) < self.slots.len()))
    }

    /// Keeps the log within its limit, and what it has of the entry that was just changed within what can be sent.
    pub(super) fn bound_log(&mut self, slot: u32) {
        while let Some(dots) = self.slot(slot).map(|s| s.entry.too_many()).filter(|dots| !dots.is_empty()) {
            dots.into_iter().for_each(|dot| self.truncate(dot, slot));
        }
        sometimes!(LogBounded, if self.log.count() > self.log_records_max);
        if !planted!(LogUnbounded) {
            self.shrink_log(self.log_records_max);
        }
    }

    /// Drops the oldest records of the longest origin until at most `keep` are left. Peers that
    /// lack what was dropped are synchronised in full (R-TRUNC).
    pub fn shrink_log(&mut self, keep: usize) {
        while self.log.count() > keep {
            let Some(origin) = self.log.longest() else { return };
            let batch = (keep / 16).max(1);
            let oldest: Vec<(Dot, u32)> = self.log.from(origin, 1).take(batch).collect();
            for (dot, slot) in oldest {
                self.truncate(dot, slot);
            }
        }
    }

    fn truncate(&mut self, dot: Dot, slot: u32) {
        self.log.remove(dot);
        if !planted!(DroppedRecordsNotInFloor) {
            self.floor.add(dot);
            self.smooth_floor(dot.replica);
        }
        if let Some(s) = self.slot_mut(slot) {
            s.entry.unmark(dot);
            let first = !std::mem::replace(&mut s.entry.truncated, true);
            if first {
                self.truncated.push(slot);
            }
        }
    }
}

impl Partition {
    /// Fills the gaps of the floor when there are more of them than a message may name. What is in them the log still has;
    /// who lacks it is synchronised in full all the same, so this asks for more than is needed and for nothing wrong.
    pub(super) fn smooth_floor(&mut self, replica: ReplicaId) {
        let Some(floor) = self.floor.of(replica).filter(|floor| floor.gaps() > FLOOR_GAPS_MAX) else { return };
        let Some(seen) = self.ctx.of(replica) else { return };
        self.floor.add_range(replica, 1, floor.max().min(seen.base()));
    }
}

/// The dots every report has, and I have.
fn stable_part(mine: &Ctx, reports: &[Ctx]) -> Ctx {
    let mut stable = Ctx::default();
    for (origin, seen) in mine.iter() {
        let theirs: Option<Vec<&Seen>> = reports.iter().map(|r| r.of(origin)).collect();
        let Some(theirs) = theirs else { continue };
        if seen.is_mark() {
            if theirs.iter().all(|seen| seen.is_mark()) {
                stable.add_seen(origin, seen);
            }
            continue;
        }
        let base = theirs.iter().map(|s| s.base()).chain([seen.base()]).min().unwrap_or(0);
        stable.add_range(origin, 1, base);
        let gapless = seen.gaps() == 0 && theirs.iter().all(|s| s.gaps() == 0);
        if !gapless {
            add_beyond(&mut stable, origin, seen, &theirs);
        }
    }
    stable
}

/// Beyond the first gap: the intersection of everybody's ranges.
fn add_beyond(stable: &mut Ctx, origin: ReplicaId, mine: &Seen, theirs: &[&Seen]) {
    let ranges = |s: &Seen| -> Vec<(u64, u64)> {
        std::iter::once((1, s.base())).chain(s.above().iter().copied()).filter(|(a, b)| a <= b).collect()
    };
    let common = theirs.iter().fold(ranges(mine), |acc, s| {
        let other = ranges(s);
        acc.iter()
            .flat_map(|&(a, b)| other.iter().map(move |&(c, d)| (a.max(c), b.min(d))))
            .filter(|(from, to)| from <= to)
            .collect()
    });
    for (from, to) in common {
        stable.add_range(origin, from, to);
    }
}

fn floor_reached(floor: &Ctx, mine: &Ctx, reports: &[Ctx]) -> bool {
    mine.includes(floor) && reports.iter().all(|r| r.includes(floor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PartitionId;
    use std::collections::BTreeSet;

    #[test]
    #[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
    fn a_floor_of_many_gaps_is_filled_up_to_the_last_that_it_names() {
        let me = ReplicaId(1);
        let mut p = Partition::new(PartitionId(0), me, 1 << 20);
        p.ctx.add_range(me, 1, 9_000);
        let odd = |last: u64| (1..=last).step_by(2).map(|seq| Dot { replica: me, seq });
        odd(2_001).for_each(|dot| p.truncate(dot, 0));
        assert_eq!(p.floor.gaps().1, 1_000, "as they were");
        odd(7_001).for_each(|dot| p.truncate(dot, 0));
        assert!(p.floor.gaps().1 <= FLOOR_GAPS_MAX && p.ctx.includes(&p.floor));
        assert_eq!(p.floor.of(me).map(Seen::max), Some(7_001), "whoever lacks what is newer is given that alone");
    }

    #[test]
    fn stable_is_exactly_what_everybody_has() {
        let mut rng = fastrand::Rng::with_seed(11);
        let dots = |ctx: &Ctx| -> BTreeSet<Dot> {
            let all = (1..4).flat_map(|r| (1..20).map(move |seq| Dot { replica: ReplicaId(r), seq }));
            all.filter(|dot| ctx.has(*dot)).collect()
        };
        for _ in 0..if cfg!(miri) { 2 } else { 3_000 } {
            let mut ctx = || {
                let mut ctx = Ctx::default();
                for _ in 0..rng.usize(1..9) {
                    let (replica, from) = (ReplicaId(rng.u64(1..4)), rng.u64(1..14));
                    ctx.add_range(replica, from, from + rng.u64(0..5));
                }
                ctx
            };
            let (mine, reports) = (ctx(), [ctx(), ctx()]);
            let common = reports.iter().fold(dots(&mine), |acc, r| acc.intersection(&dots(r)).copied().collect());
            assert_eq!(dots(&stable_part(&mine, &reports)), common);
            assert_eq!(dots(&stable_part(&mine, &[])), dots(&mine), "whoever is alone waits for nobody");
            let floor = ctx();
            let has_it = |all: &Ctx| dots(&floor).is_subset(&dots(all));
            assert_eq!(floor_reached(&floor, &mine, &reports), has_it(&mine) && reports.iter().all(has_it));
        }
    }
}
