//! The conversation of one link by which both copies of each partition are compared, in both roles.
//!
//! # Invariants
//! * What a peer says is compared with what is kept here, and changes nothing but this conversation.
//! * A key is given only while it is as it was when its partition was frozen.
//! * Whatever is not finished within [`OPEN_FOR`] is forgotten; the next comparison begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Mono;
use crate::crdt::Ctx;
use crate::id::PartitionId;
use crate::probe::{planted, sometimes};
use crate::repair::digest::{
    BUCKETS, LEAVES_LISTED_MAX, apart, byte, differing, fold, halved, id as short_id, leaves_of, of_ctx, root, scaled,
    spared,
};
use crate::store::{Compared, Fragment, Frozen, Hold, Listed, Partition, Store, Unready};
use crate::wire::{Repair, Restore, Snapshot};

/// Most partitions of a link compared in detail at once, in each role: a table of sums is kept of each.
pub const OPEN_MAX: usize = 64;
/// How long one of them may take: several round trips of a slow path, and what it differs in.
pub const OPEN_FOR: Duration = Duration::from_secs(8);
/// How far the horizon lies ahead, in milliseconds: beyond the clocks of both sides until the comparison is over.
pub const HORIZON_MS: u64 = 15_000;
/// Partitions one message speaks for: nine bytes each.
const PARTITIONS_AT_ONCE: usize = 512;
/// How often the asker may want a snapshot in another form.
const ASKS_MAX: u32 = 3;
/// Keys given at once, and bytes of a frame that gives them.
const GIVEN_AT_ONCE: (usize, usize) = (32, 64 << 10);

/// What a comparison came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Both copies are equal, all 64 bits of all sums.
    Verified(PartitionId),
    /// Nothing differs, but some keys were changed so often, or evicted, that nothing can be said of them.
    Spared(PartitionId),
    /// One side has seen too much that the other has not.
    Lagging(PartitionId),
    /// So many keys differ.
    Differs(PartitionId, u64),
    /// Something differs, and it was not found this time.
    Elusive(PartitionId),
}

impl Found {
    /// Returns the partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Verified(id) | Self::Spared(id) | Self::Lagging(id) | Self::Differs(id, _) | Self::Elusive(id) => *id,
        }
    }
}

/// What a step leads to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// What to send.
    pub send: Vec<Repair>,
    /// What was found.
    pub found: Vec<Found>,
    /// What comparisons that came to their end have found equal, of which partition.
    pub compared: Vec<(PartitionId, Compared)>,
}

impl Step {
    /// A comparison that this side asked for is over; the other side is told.
    fn end(&mut self, id: PartitionId, found: Found, compared: Compared) {
        let leaves = u32::try_from(compared.leaves).unwrap_or(u32::MAX);
        self.send.push(Repair::Done { partition: id, leaves, without: compared.without.clone() });
        self.compared.push((id, compared));
        self.found.push(found);
    }
}

/// The instants a step needs: the timer's, and the one that decides what is visible.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// For timers.
    pub mono: Mono,
    /// In Unix milliseconds.
    pub visible_ms: u64,
    /// The copies here.
    pub store: &'a Store,
}

/// A partition compared in detail.
#[derive(Debug)]
struct Open {
    since: Mono,
    salt: u64,
    /// What has changed since is known.
    _hold: Hold,
    /// The sums here, once they are known.
    frozen: Option<Frozen>,
    /// What the teller said last; of the asker.
    snapshot: Option<Snapshot>,
    asks: u32,
    /// Leaves left out besides, and how many leaves there are; of the teller.
    told: (usize, BTreeSet<u32>),
    /// The keys that were listed, in order; of the teller.
    listed: Vec<u64>,
    /// Keys to give.
    owed: BTreeSet<u64>,
    /// What differs was listed.
    is_listed: bool,
}

impl Open {
    fn new(since: Mono, salt: u64, hold: Hold) -> Self {
        let (frozen, snapshot, listed, owed) = (None, None, Vec::new(), BTreeSet::new());
        let told = (0, BTreeSet::new());
        Self { since, salt, _hold: hold, frozen, snapshot, asks: 0, told, listed, owed, is_listed: false }
    }
}

/// What is under way on one link.
#[derive(Debug, Default)]
pub struct Session {
    /// The salt of the sums this side asked about last, and the partitions not answered yet, each with its context then.
    asked: (u64, BTreeMap<PartitionId, Ctx>),
    asking: BTreeMap<PartitionId, Open>,
    telling: BTreeMap<PartitionId, Open>,
}

impl Session {
    /// Begins to compare all partitions.
    pub fn verify(&mut self, at: At<'_>, salt: u64) -> Vec<Repair> {
        self.asking.clear();
        self.asked = (salt, BTreeMap::new());
        let horizon_ms = at.visible_ms.saturating_add(HORIZON_MS);
        let ids: Vec<PartitionId> = at.store.partition_ids().collect();
        let mut of = |id: &PartitionId| {
            let Some(partition) = at.store.read(*id) else { return (0, 0) };
            self.asked.1.insert(*id, partition.ctx().clone());
            sum_of(&partition, horizon_ms)
        };
        let message = |ids: &[PartitionId]| {
            let first = ids.first().copied()?;
            Some(Repair::Verify { horizon_ms, salt, first, sums: ids.iter().map(&mut of).collect() })
        };
        ids.chunks(PARTITIONS_AT_ONCE).filter_map(message).collect()
    }

    /// Takes a message of the peer in.
    pub fn on(&mut self, at: At<'_>, message: Repair) -> Step {
        let mut step = Step::default();
        match message {
            Repair::Verify { horizon_ms, salt, first, sums } => {
                self.on_verify(at, (horizon_ms, salt, first), &sums, &mut step);
            }
            Repair::Answer { salt, first, equal } if salt == self.asked.0 => {
                self.on_answer(at, first, &equal, &mut step);
            }
            Repair::Answer { .. } => {}
            Repair::Snapshot(snapshot) => {
                let id = snapshot.partition;
                if let Some(open) = self.asking.get_mut(&id) {
                    open.snapshot = Some(snapshot);
                    self.compare(at, id, &mut step);
                }
            }
            Repair::Ask { partition, leaves, without, detail } => {
                if let Some(open) = self.telling.get_mut(&partition) {
                    step.send.extend(retell(open, partition, (leaves, without, detail)));
                }
            }
            Repair::Leaves { partition, leaves, buckets, sums } => {
                if let Some(open) = self.telling.get_mut(&partition) {
                    step.send.extend(list(at.store, open, partition, leaves, (&buckets, &sums)));
                }
            }
            Repair::List { partition, leaves, listed } => self.on_list(at, partition, leaves, &listed, &mut step),
            Repair::Done { partition, leaves, without } => {
                if let Some(ctx) = self.telling.get(&partition).and_then(|open| open.frozen.as_ref()).map(|f| &f.ctx) {
                    let leaves = usize::try_from(leaves).unwrap_or(0);
                    step.compared.push((partition, Compared { ctx: ctx.clone(), leaves, without }));
                    self.telling.remove(&partition);
                }
            }
            Repair::Want { partition, ids } => {
                if let Some(open) = self.telling.get_mut(&partition) {
                    open.owed.extend(open.listed.iter().zip(ids).filter(|(_, wanted)| *wanted).map(|(hash, _)| *hash));
                }
            }
        }
        step
    }

    /// Goes on with what waited for events to come, and forgets what takes too long.
    pub fn tick(&mut self, at: At<'_>) -> Step {
        let mut step = Step::default();
        let late = |open: &Open| at.mono.since(open.since) > OPEN_FOR;
        let behind = |open: &Open| open.frozen.is_none() && open.snapshot.is_some();
        for (asks, all) in [(true, &mut self.asking), (false, &mut self.telling)] {
            let ended: Vec<PartitionId> = all.iter().filter(|(_, open)| late(open)).map(|(id, _)| *id).collect();
            for (id, open) in ended.into_iter().filter_map(|id| Some((id, all.remove(&id)?))) {
                sometimes!(ComparisonTimedOut, if asks);
                step.found.extend((asks && behind(&open)).then_some(Found::Lagging(id)));
                let unlisted = open.frozen.filter(|_| !open.is_listed);
                step.compared.extend(unlisted.map(|frozen| (id, Compared::nothing(frozen.ctx))));
            }
        }
        let waiting: Vec<PartitionId> =
            self.asking.iter().filter(|(_, open)| behind(open)).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.compare(at, id, &mut step));
        step
    }

    /// Returns the sums a partition is compared by.
    #[must_use]
    pub fn frozen(&self, id: PartitionId) -> Option<&Frozen> {
        let of = |open: &'_ BTreeMap<PartitionId, Open>| open.get(&id).is_some_and(|open| open.frozen.is_some());
        let open = if of(&self.asking) { &self.asking } else { &self.telling };
        open.get(&id)?.frozen.as_ref()
    }

    /// Tells whether what this side asked for goes on.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.asking.values().any(|open| !open.is_listed || !open.owed.is_empty())
    }

    /// Tells whether the peer is to be given something.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.asking.values().chain(self.telling.values()).any(|open| !open.owed.is_empty())
    }

    /// Returns the next of what the peer is to be given.
    pub fn next_gift(&mut self, store: &Store) -> Option<Restore> {
        let mut open = self.asking.iter_mut().chain(&mut self.telling);
        let (id, open) = open.find(|(_, open)| !open.owed.is_empty())?;
        let frozen = open.frozen.as_ref()?;
        let (mut fragments, mut bytes) = (Vec::new(), 0);
        let partition = store.read(*id)?;
        for _ in 0..GIVEN_AT_ONCE.0 {
            let Some(hash) = open.owed.pop_first() else { break };
            let given = partition.give(frozen, &BTreeSet::from([hash]));
            bytes += given.iter().map(Fragment::weight).sum::<usize>();
            fragments.extend(given);
            if bytes > GIVEN_AT_ONCE.1 {
                break;
            }
        }
        Some(Restore { partition: *id, is_answer: false, fragments })
    }

    fn on_verify(
        &mut self,
        at: At<'_>,
        (horizon_ms, salt, first): (u64, u64, PartitionId),
        sums: &[(u8, u64)],
        step: &mut Step,
    ) {
        let (mut equal, mut snapshots) = (Vec::with_capacity(sums.len()), Vec::new());
        for (number, theirs) in (first.0..).zip(sums) {
            let id = PartitionId(number);
            let Some(partition) = at.store.read(id) else { continue };
            self.telling.remove(&id);
            let mine = sum_of(&partition, horizon_ms);
            let same = at.visible_ms <= horizon_ms && same(mine, *theirs);
            equal.push(same);
            if same {
                step.found.push(Found::Verified(id));
                step.compared.push((id, Compared::everything(partition.ctx().clone())));
            } else if self.telling.len() < OPEN_MAX && !goes_before(&self.asking, id, salt) {
                self.asking.remove(&id);
                let Ok(frozen) = partition.freeze(partition.ctx(), at.visible_ms.saturating_add(HORIZON_MS)) else {
                    continue;
                };
                let mut open = Open::new(at.mono, salt, partition.hold());
                open.told = (frozen.leaves.len(), frozen.without.clone());
                open.frozen = Some(frozen);
                snapshots.extend(tell(&open, id, mine.0 == theirs.0));
                self.telling.insert(id, open);
            }
        }
        step.send.push(Repair::Answer { salt, first, equal });
        step.send.extend(snapshots);
    }

    fn on_answer(&mut self, at: At<'_>, first: PartitionId, equal: &[bool], step: &mut Step) {
        for (number, equal) in (usize::from(first.0)..).zip(equal) {
            let Ok(id) = u16::try_from(number).map(PartitionId) else { return };
            let Some(ctx) = self.asked.1.remove(&id) else { continue };
            if *equal {
                step.found.push(Found::Verified(id));
                step.compared.push((id, Compared::everything(ctx)));
            } else if self.asking.len() < OPEN_MAX
                && !goes_before(&self.telling, id, self.asked.0)
                && let Some(hold) = at.store.read(id).map(|partition| partition.hold())
            {
                self.telling.remove(&id);
                self.asking.insert(id, Open::new(at.mono, self.asked.0, hold));
            }
        }
    }

    /// Compares a snapshot with what is here at its context.
    fn compare(&mut self, at: At<'_>, id: PartitionId, step: &mut Step) {
        let Some(open) = self.asking.get_mut(&id) else { return };
        let Some(snapshot) = open.snapshot.clone() else { return };
        if at.visible_ms > snapshot.horizon_ms {
            sometimes!(HorizonPassed);
            self.asking.remove(&id);
            return;
        }
        if open.frozen.as_ref().is_none_or(|frozen| frozen.ctx != snapshot.ctx) {
            let frozen = at.store.read(id).map(|p| p.freeze(&snapshot.ctx, snapshot.horizon_ms));
            match frozen {
                Some(Ok(frozen)) => open.frozen = Some(frozen),
                Some(Err(Unready::Behind)) => {
                    sometimes!(ComparisonAwaitedEvents);
                    return;
                }
                Some(Err(Unready::Lagging)) | None => {
                    sometimes!(ComparisonLagged);
                    self.asking.remove(&id);
                    return step.end(id, Found::Lagging(id), Compared::nothing(snapshot.ctx));
                }
            }
        }
        match judge(open, &snapshot) {
            Judged::Ended(found, leaves, without) => {
                self.asking.remove(&id);
                step.end(id, found, Compared { ctx: snapshot.ctx, leaves, without });
            }
            Judged::Say(message) => step.send.push(message),
        }
    }

    fn on_list(&mut self, at: At<'_>, id: PartitionId, leaves: u32, listed: &[(u32, Vec<u16>)], step: &mut Step) {
        let Some(open) = self.asking.get_mut(&id) else { return };
        let named: BTreeSet<u32> = listed.iter().map(|(leaf, _)| *leaf).collect();
        let here = open.frozen.as_ref().filter(|f| at.visible_ms <= f.horizon_ms).and_then(|frozen| {
            let width = usize::try_from(leaves).unwrap_or(1);
            at.store.read(id)?.list(frozen, width, &named)
        });
        let Some(here) = here else {
            self.asking.remove(&id);
            return step.found.push(Found::Lagging(id));
        };
        let mut wanted = Vec::new();
        for (leaf, theirs) in listed {
            let apart = apart(here.get(leaf).map_or(&[], Vec::as_slice), theirs, open.salt);
            open.owed.extend(apart.mine);
            wanted.extend(apart.theirs);
        }
        let (mine, theirs) = (open.owed.len(), wanted.iter().filter(|wanted| **wanted).count());
        sometimes!(DifferenceFound, if mine + theirs > 0);
        step.found.push(match u64::try_from(mine.max(theirs)).unwrap_or(u64::MAX) {
            0 => Found::Elusive(id),
            count => Found::Differs(id, count),
        });
        #[cfg(planted)]
        if planted!(RepairAbsenceDeletes)
            && let Some(mut partition) = at.store.lock(id)
        {
            std::mem::take(&mut open.owed).into_iter().for_each(|hash| partition.lose(hash, at.store.spaces()));
        }
        open.is_listed = true;
        step.send.push(Repair::Want { partition: id, ids: wanted });
    }
}

/// Tells whether a conversation about a partition, in which nothing was listed yet, is to go on although one of this salt begins. Where both sides ask at once
/// the lower salt counts, so that one of them tells.
fn goes_before(all: &BTreeMap<PartitionId, Open>, id: PartitionId, salt: u64) -> bool {
    all.get(&id).is_some_and(|open| !open.is_listed && open.salt < salt)
}

/// Returns a check of the context and a sum of it and all that counts.
fn sum_of(partition: &Partition, horizon_ms: u64) -> (u8, u64) {
    let ctx = of_ctx(partition.ctx());
    (byte(ctx, 0), partition.root_at(horizon_ms).wrapping_add(ctx))
}

fn same(mine: (u8, u64), theirs: (u8, u64)) -> bool {
    mine == theirs || (planted!(VerifiedOnTruncatedEquality) && mine.1 % 4 == theirs.1 % 4)
}

/// Tells of the copy here, as far as the asker can use it.
fn tell(open: &Open, partition: PartitionId, detail: bool) -> Option<Repair> {
    let frozen = open.frozen.as_ref()?;
    let sums = spared(&fold(&frozen.leaves, open.told.0), &open.told.1);
    Some(Repair::Snapshot(Snapshot {
        partition,
        horizon_ms: frozen.horizon_ms,
        ctx: frozen.ctx.clone(),
        leaves: u32::try_from(sums.len()).unwrap_or(u32::MAX),
        without: open.told.1.clone(),
        root: root(&sums),
        buckets: if detail { halved(&fold(&sums, BUCKETS), open.salt) } else { Vec::new() },
    }))
}

fn retell(
    open: &mut Open,
    id: PartitionId,
    (leaves, mut without, detail): (u32, BTreeSet<u32>, bool),
) -> Option<Repair> {
    let own = open.frozen.as_ref().map(|f| (f.leaves.len(), &f.without))?;
    let width = own.0.min(usize::try_from(leaves).unwrap_or(1).max(1));
    without.extend(scaled(own.1, own.0, width));
    open.told = (width, without);
    tell(open, id, detail)
}

/// Lists what the teller holds in the leaves that differ.
fn list(store: &Store, open: &mut Open, id: PartitionId, leaves: u32, theirs: (&[bool], &[u8])) -> Option<Repair> {
    let frozen = open.frozen.as_ref()?;
    let width = usize::try_from(leaves).ok().filter(|width| *width == open.told.0)?;
    let sums = spared(&fold(&frozen.leaves, width), &open.told.1);
    let named = leaves_of(theirs.0, width);
    let mine =
        named.iter().map(|leaf| byte(sums.get(usize::try_from(*leaf).unwrap_or(0)).copied().unwrap_or(0), open.salt));
    let differ = differing(&mine.collect::<Vec<u8>>(), theirs.1, 1)?;
    let mut apart: BTreeSet<u32> =
        named.iter().zip(&differ).filter(|(_, differs)| **differs).map(|(leaf, _)| *leaf).collect();
    if apart.is_empty() {
        sometimes!(LeavesLookedEqual);
        apart = named.into_iter().collect();
    }
    let apart = apart.difference(&open.told.1).copied().take(LEAVES_LISTED_MAX).collect();
    let listed = store.read(id)?.list(frozen, width, &apart)?;
    open.is_listed = true;
    open.listed = listed.values().flatten().map(|listed| listed.hash).collect();
    let ids = |(leaf, all): (u32, Vec<Listed>)| (leaf, all.iter().map(|l| short_id(l, open.salt)).collect());
    Some(Repair::List { partition: id, leaves, listed: listed.into_iter().map(ids).collect() })
}

/// What a snapshot leads to: the end, with as many leaves found equal as there are but for some, or another question.
enum Judged {
    Ended(Found, usize, BTreeSet<u32>),
    Say(Repair),
}

fn judge(open: &mut Open, snapshot: &Snapshot) -> Judged {
    let partition = snapshot.partition;
    let ended = |found| Judged::Ended(found, 0, BTreeSet::new());
    let Some(frozen) = open.frozen.as_ref() else { return ended(Found::Lagging(partition)) };
    let theirs = usize::try_from(snapshot.leaves).unwrap_or(1);
    let width = theirs.min(frozen.leaves.len());
    let mut without = scaled(&frozen.without, frozen.leaves.len(), width);
    without.extend(scaled(&snapshot.without, theirs, width));
    if without.len() >= width {
        return ended(Found::Spared(partition));
    }
    let sums = spared(&fold(&frozen.leaves, width), &without);
    let ask = |open: &mut Open, without: BTreeSet<u32>, detail: bool| {
        open.asks += 1;
        let leaves = u32::try_from(width).unwrap_or(u32::MAX);
        if open.asks > ASKS_MAX {
            return ended(Found::Elusive(partition));
        }
        Judged::Say(Repair::Ask { partition, leaves, without, detail })
    };
    if width < theirs || without != snapshot.without {
        sometimes!(SnapshotAskedAgain);
        return ask(open, without, !snapshot.buckets.is_empty());
    }
    if root(&sums) == snapshot.root {
        sometimes!(VerifiedInDetail, if without.is_empty());
        sometimes!(VerifiedInPart, if !without.is_empty());
        let found = if without.is_empty() { Found::Verified(partition) } else { Found::Spared(partition) };
        return Judged::Ended(found, width, without);
    }
    if snapshot.buckets.is_empty() {
        return ask(open, without, true);
    }
    let buckets = differing(&halved(&fold(&sums, BUCKETS), open.salt), &snapshot.buckets, 2);
    let Some(buckets) = buckets.filter(|buckets| buckets.contains(&true)) else {
        return ended(Found::Elusive(partition));
    };
    let of = |leaf: u32| sums.get(usize::try_from(leaf).unwrap_or(0)).copied().unwrap_or(0);
    let short = leaves_of(&buckets, width).into_iter().map(|leaf| byte(of(leaf), open.salt)).collect();
    Judged::Say(Repair::Leaves { partition, leaves: snapshot.leaves, buckets, sums: short })
}
