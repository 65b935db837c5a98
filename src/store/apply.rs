//! What arrives: batches, reports and full synchronisation.
//!
//! # Invariants
//! * R-STALE: a batch whose context lacks something stable here is dropped whole.
//! * The context advances only by the dots a joined fragment covers, or by a full synchronisation.
//! * R-ABSENCE: after a full synchronisation nothing is left of a register value or contribution
//!   of mine that the sender had seen and no longer holds: at most a miss. Of registers an edge does not hold that means
//!   nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::entry::{Body, Entry, Misfit};
use super::fingerprint::Print;
use super::fragment::{Applied, Batch, Fragment, Full, Misapplied, Refused};
use super::keyspace::{Family, Keyspaces};
use super::partition::{KeyRef, Partition};
use crate::crdt::{Ctx, Dot, Path, Payload, Scope};
use crate::id::{KeyspaceId, ReplicaId};
use crate::probe::{planted, sometimes};

/// What applying needs to know besides the batch.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The keyspaces of this process.
    pub spaces: &'a Keyspaces,
    /// Graves with an older millisecond may be collected (R-AGE).
    pub collect_before_ms: u64,
}

/// Most gaps of a partition's context, and of one replica in it: half of what a message may name.
const GAPS_MAX: (usize, usize) = (8_192, 2_048);

impl Partition {
    /// Notes what a member says it has seen. Contexts only grow, so any order will do.
    pub fn report(&mut self, from: ReplicaId, ctx: &Ctx) {
        self.reports.entry(from).or_default().join_claim(ctx);
    }

    /// Forgets what a removed member reported.
    pub fn forget_report(&mut self, member: ReplicaId) {
        sometimes!(RemovedHeldUpCollection, if self.reports.get(&member).is_some_and(|seen| !seen.includes(&self.ctx)));
        self.reports.remove(&member);
    }

    /// Forgets what replicas reported that are no members any more.
    pub fn forget_reports(&mut self, is_gone: impl Fn(ReplicaId) -> bool) {
        self.reports.retain(|replica, _| !is_gone(*replica));
    }

    /// Joins a batch in.
    ///
    /// # Errors
    /// [`Refused::Stale`] (R-STALE), [`Refused::Scattered`]; nothing was applied and the report was not noted.
    pub fn apply(&mut self, from: ReplicaId, batch: &Batch, around: &Around<'_>) -> Result<Applied, Refused> {
        if !batch.ctx.includes(&self.frontier) && !planted!(StaleBatchAccepted) {
            sometimes!(StaleBatchDropped);
            return Err(Refused::Stale);
        }
        let covers = || batch.fragments.iter().flat_map(|f| &f.covers).map(|(dot, _)| *dot);
        if self.scatters(covers().count(), |ctx| covers().for_each(|dot| ctx.add(dot))) {
            return Err(Refused::Scattered);
        }
        let mut applied = Applied::default();
        for fragment in &batch.fragments {
            self.join_fragment(fragment, &batch.ctx, around, &mut applied);
        }
        if planted!(ContextAdopted) {
            self.ctx.join(&batch.ctx);
        }
        if planted!(RelayedCountsAsReported) {
            let authors: BTreeSet<_> = batch.fragments.iter().flat_map(|f| &f.covers).map(|(d, _)| d.replica).collect();
            authors.into_iter().for_each(|author| self.report(author, &batch.ctx));
        }
        self.report(from, &batch.ctx);
        Ok(applied)
    }

    /// Tells whether taking in what leaves at most so many gaps would leave too many. A gap that closes never does.
    fn scatters(&self, gaps: usize, take_in: impl FnOnce(&mut Ctx)) -> bool {
        let (before, before_most) = self.ctx.gaps();
        if before + gaps <= GAPS_MAX.0 && before_most + gaps <= GAPS_MAX.1 {
            return false;
        }
        let mut ctx = self.ctx.clone();
        take_in(&mut ctx);
        let (all, most) = ctx.gaps();
        (all > GAPS_MAX.0 && all > before) || (most > GAPS_MAX.1 && most > before_most)
    }

    /// Joins a whole partition in and inherits what the sender found stable or dropped.
    ///
    /// # Errors
    /// [`Refused::Stale`] (R-STALE), [`Refused::Scattered`], [`Refused::Part`]; nothing was applied.
    pub fn apply_full(&mut self, from: ReplicaId, full: &Full, around: &Around<'_>) -> Result<Applied, Refused> {
        let batch = &full.batch;
        if !batch.ctx.includes(&self.frontier) && !planted!(StaleFullAccepted) {
            sometimes!(StaleFullDropped);
            return Err(Refused::Stale);
        }
        if self.scatters(batch.ctx.gaps().0, |ctx| ctx.join(&batch.ctx)) {
            return Err(Refused::Scattered);
        }
        let behind = !self.ctx.includes(&full.frontier);
        if (full.is_part || full.is_rest) && behind && !planted!(AbsentAtEdge) {
            sometimes!(EdgeKnewMore, if full.is_part);
            return Err(Refused::Part);
        }
        sometimes!(GivenInFullByEdge, if full.is_part);
        let mut applied = Applied::default();
        sometimes!(FrontierInherited, if behind);
        sometimes!(FloorInherited, if !self.floor.includes(&full.floor) && !full.frontier.includes(&full.floor));
        // What the sender's log no longer names must not be collected while it is being joined.
        self.floor_inherited |= !planted!(CollectsWhileJoining);
        if !full.is_rest || planted!(AbsentFromRest) {
            self.join_absent_trees(batch, around, &mut applied);
            if !planted!(AbsenceIgnored) {
                self.drop_absent(batch, !full.is_part || planted!(AbsentAtEdge), around, &mut applied);
            }
        }
        for fragment in &batch.fragments {
            self.join_fragment(fragment, &batch.ctx, around, &mut applied);
        }
        if behind && !planted!(HoleNotInherited) {
            self.inherit_holes(batch, around);
        }
        self.floor_inherited = true;
        self.forgotten = self.forgotten.max(full.forgotten);
        if applied.quarantined == 0 {
            let marks = batch.ctx.iter().filter(|(_, seen)| seen.is_mark());
            marks.for_each(|(floor, _)| self.remember_folded(floor));
            self.ctx.join(&batch.ctx);
            if !planted!(FrontierNotInherited) {
                self.frontier.join(&full.frontier);
            }
            if !planted!(FloorNotInherited) {
                self.floor.join(&full.floor);
                full.floor.iter().for_each(|(replica, _)| self.smooth_floor(replica));
            }
        }
        // What was taken in here has no records.
        self.history.clear();
        self.report(from, &batch.ctx);
        Ok(applied)
    }

    pub(super) fn join_fragment(
        &mut self,
        fragment: &Fragment,
        theirs: &Ctx,
        around: &Around<'_>,
        applied: &mut Applied,
    ) {
        let Some(space) = around.spaces.get(fragment.keyspace) else {
            return applied.reject(fragment, Misapplied::Unknown);
        };
        let slot = self.find_or_make(&KeyRef::new(&space, &fragment.key));
        let mine = std::mem::take(&mut self.ctx);
        self.moved = Print::default();
        let touched = fragment.touched();
        let joined = self.change(slot, &space, Some(touched), |e| e.join(fragment, &mine, theirs, space.merge()));
        self.ctx = mine;
        let mut news = Vec::new();
        match joined {
            Some(Ok(joined)) => {
                news = self.note_covers(slot, fragment);
                applied.news += u64::try_from(news.len()).unwrap_or(0);
                applied.conflicts += u64::from(joined.conflict);
                if joined.changed && space.is_watched() {
                    applied.changed.push((space.id(), fragment.key.clone()));
                }
            }
            Some(Err(Misfit::Duplicate(found))) => applied.duplicates.push(found.replica),
            Some(Err(Misfit::State(_))) | None => {
                let is_known = space.merge().is_some();
                applied.reject(fragment, if is_known { Misapplied::Unreadable } else { Misapplied::Unknown });
            }
        }
        match space.family() {
            Family::Epoch => {
                let cleared = self.on_epoch(&space, &fragment.key, around.spaces, around.collect_before_ms);
                applied.changed.extend(cleared);
            }
            Family::Register if planted!(EpochForgotten) => {}
            Family::Register => {
                let cleared = self.enforce_epochs(slot, &space, around.collect_before_ms);
                sometimes!(WriteOlderThanEpoch, if cleared.is_some());
            }
            Family::Map | Family::Counter | Family::Set | Family::Custom => {}
        }
        self.remember(slot, touched, space.family(), news.into_iter());
        self.settle(slot, &space, around.collect_before_ms);
        self.bound_log(slot);
    }

    /// Notes the events a fragment covers; returns those that are new.
    fn note_covers(&mut self, slot: u32, fragment: &Fragment) -> Vec<Dot> {
        let mut news = Vec::new();
        for (dot, scope) in &fragment.covers {
            if self.ctx.has(*dot) {
                continue;
            }
            self.ctx.add(*dot);
            sometimes!(GapOpened, if self.ctx.of(dot.replica).is_some_and(|seen| seen.base() < dot.seq));
            sometimes!(GapClosed, if self.ctx.of(dot.replica).is_some_and(|seen| seen.base() > dot.seq));
            self.log.insert(*dot, slot);
            if let Some(s) = self.slot_mut(slot) {
                s.entry.mark(*dot, scope.clone());
            }
            news.push(*dot);
        }
        news
    }

    /// Maps the sender does not have at all: an empty fragment of the whole key.
    fn join_absent_trees(&mut self, batch: &Batch, around: &Around<'_>, applied: &mut Applied) {
        let held: BTreeSet<(KeyspaceId, &Bytes)> = batch.fragments.iter().map(|f| (f.keyspace, &f.key)).collect();
        let gone: Vec<(KeyspaceId, Bytes)> = self
            .entries()
            .filter(|(id, key, e)| matches!(e.body, Body::Tree(_)) && !held.contains(&(*id, *key)))
            .map(|(id, key, _)| (id, key.clone()))
            .collect();
        for (id, key) in gone {
            sometimes!(MapAbsentAtDonor);
            self.join_fragment(&Fragment::empty(id, key, Scope::Key), &batch.ctx, around, applied);
        }
    }

    /// Maps the sender evicted after dots I lack: they are holes here too.
    fn inherit_holes(&mut self, batch: &Batch, around: &Around<'_>) {
        let mut answered: BTreeMap<(KeyspaceId, &Bytes), BTreeSet<Path>> = BTreeMap::new();
        for fragment in &batch.fragments {
            let paths = answered.entry((fragment.keyspace, &fragment.key)).or_default();
            if let Scope::Path(path) = &fragment.scope {
                paths.insert(path.clone());
            }
        }
        let dots = |fragment: &Fragment| fragment.branch.elems.iter().flat_map(|(_, s)| s).map(|e| e.dot).collect();
        for fragment in batch.fragments.iter().filter(|f| f.branch.hole) {
            let Some(space) = around.spaces.get(fragment.keyspace) else { continue };
            let slot = self.find_or_make(&KeyRef::new(&space, &fragment.key));
            let paths = answered.remove(&(fragment.keyspace, &fragment.key)).unwrap_or_default();
            self.change(slot, &space, Some(&Scope::Key), |entry| {
                if let Body::Tree(tree) = &mut entry.body {
                    tree.inherit_hole(paths, &dots(fragment), &batch.ctx);
                }
            });
        }
    }

    /// What the sender has seen and does not hold: of registers only if it keeps all of them.
    fn drop_absent(&mut self, batch: &Batch, registers: bool, around: &Around<'_>, applied: &mut Applied) {
        let mut theirs: BTreeMap<(KeyspaceId, &Bytes), Vec<&Fragment>> = BTreeMap::new();
        for fragment in &batch.fragments {
            theirs.entry((fragment.keyspace, &fragment.key)).or_default().push(fragment);
        }
        for slot in 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX) {
            let Some((id, key)) = self.slot(slot).map(|s| (s.keyspace, s.key.clone())) else { continue };
            let Some(space) = around.spaces.get(id) else { continue };
            if space.family() == Family::Register && !registers {
                continue;
            }
            let held = theirs.get(&(id, &key)).map_or(&[][..], Vec::as_slice);
            let changed =
                self.change(slot, &space, Some(&Scope::Key), |entry| drop_absent_from(entry, held, &batch.ctx));
            if changed == Some(true) && space.is_watched() {
                applied.changed.push((id, key));
            }
            self.settle(slot, &space, around.collect_before_ms);
        }
    }
}

fn drop_absent_from(entry: &mut Entry, held: &[&Fragment], theirs: &Ctx) -> bool {
    match &mut entry.body {
        Body::Register(Some(cell)) => {
            let absent = !held.iter().any(|f| f.cell.is_some());
            let drop = absent && !cell.is_grave() && theirs.has(cell.dot()) && theirs.has(cell.touch);
            sometimes!(AbsentRegisterDropped, if drop);
            sometimes!(AbsentRegisterSpared, if absent && !cell.is_grave() && !drop);
            if drop {
                cell.forget();
            }
            drop
        }
        Body::Custom(custom) => match custom.as_mut() {
            Some(c) if matches!(c.state, Payload::Value(_)) => {
                let absent = !held.iter().any(|f| f.custom.is_some());
                let drop = absent && c.within(theirs);
                sometimes!(AbsentCustomDropped, if drop);
                sometimes!(AbsentCustomSpared, if absent && !drop);
                if drop {
                    c.forget();
                }
                drop
            }
            Some(_) | None => false,
        },
        Body::Tree(tree) => {
            let holds = |name: &Bytes, origin| {
                let counters = held.iter().flat_map(|f| &f.branch.counters);
                counters.filter(|(n, _)| n == name).flat_map(|(_, all)| all).any(|(o, _)| *o == origin)
            };
            let dropped = tree.drop_absent(&holds, theirs);
            sometimes!(AbsentContributionDropped, if dropped);
            dropped
        }
        Body::Register(None) => false,
    }
}
