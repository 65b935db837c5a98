//! One peer's progress: what it has, what was sent to it, what it still needs.
//!
//! # Invariants
//! * `known` is what the peer itself reported; `sent` includes it and what is under way.
//! * While a full synchronisation of a partition is under way nothing else of it is sent.
//! * `sent` falls back to `known` when the peer makes no progress for [`RESEND_AFTER`]; of one that joins, when nothing else
//!   is left to give and the link is empty: it reports nothing before it has everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Mono;
use crate::crdt::{Ctx, Dot};
use crate::id::{PartitionId, ReplicaId};
use crate::probe::{planted, sometimes};
use crate::replication::outbox::Reach;
use crate::replication::pace::Pace;
use crate::store::{Batch, Budget, Full, Store};
use crate::wire::{FullChunk, Part};

/// How long sent dots may stay unreported before they are sent again: several times the longest
/// path plus a retransmission.
pub const RESEND_AFTER: Duration = Duration::from_secs(5);
/// How often the time after which a full synchronisation is sent again doubles while nothing is reported: QUIC holds back
/// what a slow path has not taken yet, and who joins over one is silent for that long.
const DOUBLINGS_MAX: u32 = 5;
/// One catch-up frame.
const BUDGET: Budget = Budget { fragments: 1_024, bytes: 64 * 1024 };

/// Which events of a partition a peer is to be given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Want {
    /// My own: others send theirs themselves.
    Own,
    /// Everything it lacks: nobody else has sent it in time.
    All,
}

#[derive(Debug)]
struct Lane {
    known: Ctx,
    sent: Ctx,
    /// What `sent` and `known` were when progress was last checked.
    mark: (Ctx, Ctx),
    /// What `known` was when it was last asked whether the peer is left behind.
    before: Ctx,
    /// The context of a full synchronisation that the peer has not reported yet.
    full: Option<Ctx>,
}

impl Lane {
    /// Tells whether increments may go to the peer: it has everything my log no longer names (R-TRUNC).
    fn has_floor(&self, floor: &Ctx) -> bool {
        self.known.includes(floor) || planted!(IncrementsBelowFloor)
    }
}

/// Progress of one replica.
#[derive(Debug)]
pub struct Peer {
    lanes: Vec<Lane>,
    wanted: BTreeMap<PartitionId, Want>,
    /// Whose turn it is among them.
    turn: PartitionId,
    fulls: BTreeSet<PartitionId>,
    chunks: VecDeque<FullChunk>,
    sessions: u64,
    marked_at: Mono,
    /// When something was last seen to wait here.
    busy_at: Mono,
    /// How often full synchronisations were sent again since the peer last reported anything.
    rounds: u32,
    /// Bytes handed to the link and not taken by QUIC yet.
    in_flight: usize,
    pace: Pace,
}

impl Peer {
    /// Builds the progress of a peer that said in its hello what it has.
    #[must_use]
    pub fn new(ctxs: Vec<Ctx>, now: Mono) -> Self {
        let lane = |known: Ctx| {
            let (sent, mark, before) = (known.clone(), (known.clone(), known.clone()), known.clone());
            Lane { sent, mark, before, known, full: None }
        };
        Self {
            lanes: ctxs.into_iter().map(lane).collect(),
            wanted: BTreeMap::new(),
            turn: PartitionId(0),
            fulls: BTreeSet::new(),
            chunks: VecDeque::new(),
            sessions: 0,
            marked_at: now,
            busy_at: now,
            rounds: 0,
            in_flight: 0,
            pace: Pace::new(now),
        }
    }

    /// Returns what the peer reported of a partition.
    #[must_use]
    pub fn known(&self, partition: PartitionId) -> Option<&Ctx> {
        self.lanes.get(partition.index()).map(|lane| &lane.known)
    }

    /// Notes what the peer reported.
    pub fn report(&mut self, partition: PartitionId, ctx: &Ctx) {
        let Some(lane) = self.lanes.get_mut(partition.index()) else { return };
        self.rounds = 0;
        lane.known.join_claim(ctx);
        lane.sent.join_claim(ctx);
        if lane.full.as_ref().is_some_and(|full| lane.known.includes(full)) {
            sometimes!(FullReported);
            lane.full = None;
            self.wanted.insert(partition, Want::Own);
        }
    }

    /// Asks for everything the peer lacks, now or when its link has room: my own events, and those
    /// of others if `all`. Partitions behind my floor are given in full.
    pub fn catch_up(&mut self, partition: PartitionId, store: &Store, all: bool) {
        let Some(lane) = self.lanes.get(partition.index()) else { return };
        if lane.full.is_some() {
            sometimes!(CaughtUpByFull);
            return;
        }
        let Some(p) = store.read(partition) else { return };
        if lane.has_floor(p.floor()) {
            let want = if all { Want::All } else { Want::Own };
            let slot = self.wanted.entry(partition).or_insert(want);
            *slot = (*slot).max(want);
        } else {
            sometimes!(IncrementRefused);
            self.fulls.insert(partition);
        }
    }

    /// Asks for everything the peer has not reported of a partition, from the log, whatever the floor.
    pub fn resume(&mut self, partition: PartitionId) {
        if let Some(lane) = self.lanes.get_mut(partition.index()) {
            lane.sent = lane.known.clone();
            self.wanted.insert(partition, Want::All);
        }
    }

    /// Asks for a full synchronisation of a partition, unless one is under way.
    pub fn synchronise(&mut self, partition: PartitionId) {
        if self.lanes.get(partition.index()).is_some_and(|lane| lane.full.is_none()) {
            self.fulls.insert(partition);
        }
    }

    /// Begins a full synchronisation again: the peer has lost a piece of the one under way.
    pub fn restart(&mut self, partition: PartitionId) {
        if let Some(lane) = self.lanes.get_mut(partition.index()) {
            sometimes!(FullRestarted);
            lane.full = None;
            self.chunks.retain(|chunk| chunk.partition != partition);
            self.fulls.insert(partition);
        }
    }

    /// Takes everything the peer has not reported as not sent: until it had joined it took nothing
    /// but full synchronisations.
    pub fn begin(&mut self) {
        for lane in &mut self.lanes {
            lane.sent = lane.known.clone();
        }
    }

    /// Asks for all my events the peer has not reported, those that are under way as well: what it cannot take of them it
    /// will have nobody to ask for.
    pub fn insist(&mut self, store: &Store) {
        self.begin();
        store.partition_ids().for_each(|partition| self.catch_up(partition, store, false));
    }

    /// Sends again what the peer has not reported of a partition, because it says that it could not
    /// take it: from the log, or in full when that no longer names it.
    pub fn resend(&mut self, partition: PartitionId, store: &Store) {
        let Some(lane) = self.lanes.get_mut(partition.index()) else { return };
        if lane.full.take().is_some() {
            sometimes!(FullAskedAgain);
            self.fulls.insert(partition);
            return;
        }
        lane.sent = lane.known.clone();
        self.catch_up(partition, store, true);
    }

    /// Tells whether a frame shared by all peers may go to this one: its link has room and none of
    /// the partitions is behind or under synchronisation.
    #[must_use]
    pub fn takes(&self, reach: &[Reach], window: usize) -> bool {
        let has = |lane: &Lane, floor: &Option<Ctx>| floor.as_ref().is_none_or(|floor| lane.has_floor(floor));
        sometimes!(LinkFull, if !self.has_room(window));
        self.has_room(window)
            && reach.iter().all(|r| {
                let lane = self.lanes.get(r.partition.index()).filter(|lane| lane.full.is_none());
                lane.is_some_and(|lane| has(lane, &r.floor))
                    && !self.fulls.contains(&r.partition)
                    && !self.wanted.contains_key(&r.partition)
            })
    }

    /// Notes that my events `from..=to` went out in a shared frame.
    pub fn sent_own(&mut self, me: ReplicaId, partition: PartitionId, from: u64, to: u64) {
        if let Some(lane) = self.lanes.get_mut(partition.index()) {
            lane.sent.add_range(me, from, to);
        }
    }

    /// Notes bytes handed to the link, of whose window so much may be used.
    pub fn queued(&mut self, bytes: usize, window: usize) {
        self.in_flight = self.in_flight.saturating_add(bytes);
        self.pace.waiting(self.in_flight, window);
    }

    /// Notes bytes that left the link.
    pub fn drained(&mut self, now: Mono, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.pace.took(now, bytes);
    }

    /// Returns the bytes handed to the link that have not left it.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Tells whether there is room for another frame: within the window, and of a slow link within what it takes in a
    /// moment.
    #[must_use]
    pub fn has_room(&self, window: usize) -> bool {
        self.in_flight < self.pace.room(window)
    }

    /// Tells whether nothing is left to catch up with, nor under way in full.
    #[must_use]
    pub fn is_level(&self) -> bool {
        self.wanted.is_empty() && self.fulls.is_empty() && self.chunks.is_empty()
    }

    /// Tells whether a full synchronisation waits or is under way.
    #[must_use]
    pub fn is_synchronising(&self) -> bool {
        !self.fulls.is_empty() || !self.chunks.is_empty() || self.lanes.iter().any(|lane| lane.full.is_some())
    }

    /// Returns the next thing to send, if any.
    pub fn next_part(&mut self, store: &Store) -> Option<Part> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(Part::FullChunk(chunk));
        }
        if let Some(partition) = self.fulls.pop_first() {
            self.wanted.remove(&partition);
            self.start_full(partition, store);
            return self.chunks.pop_front().map(Part::FullChunk);
        }
        while let Some((partition, want)) = self.next_wanted() {
            self.turn = PartitionId(partition.0.wrapping_add(1));
            if let Some(batch) = self.lacking(partition, want, store) {
                return Some(Part::Batch(batch));
            }
            if self.fulls.contains(&partition) {
                return self.next_part(store);
            }
        }
        None
    }

    /// Returns the partition to go on with. They take turns: one that is written without pause would keep the link from all
    /// others.
    fn next_wanted(&self) -> Option<(PartitionId, Want)> {
        let from_here = self.wanted.range(self.turn..).next();
        from_here.or_else(|| self.wanted.first_key_value()).map(|(partition, want)| (*partition, *want))
    }

    fn lacking(&mut self, partition: PartitionId, want: Want, store: &Store) -> Option<Batch> {
        let (Some(lane), Some(p)) = (self.lanes.get_mut(partition.index()), store.read(partition)) else {
            self.wanted.remove(&partition);
            return None;
        };
        if p.binding_floor().is_some_and(|floor| !lane.has_floor(floor)) {
            sometimes!(FloorRoseMeanwhile);
            self.wanted.remove(&partition);
            self.fulls.insert(partition);
            return None;
        }
        let captured = match want {
            Want::All => p.capture_lacking(&lane.sent, BUDGET),
            Want::Own => p.capture_lacking_of(store.me(), &lane.sent, BUDGET),
        };
        sometimes!(CatchUpSplit, if captured.more);
        for (dot, _) in captured.batch.fragments.iter().flat_map(|f| &f.covers) {
            sometimes!(ThirdPartyRelayed, if dot.replica != store.me() && !lane.sent.has(*dot));
            lane.sent.add(*dot);
        }
        if !captured.more {
            self.wanted.remove(&partition);
        }
        Some(captured.batch).filter(|b| !b.fragments.is_empty())
    }

    fn start_full(&mut self, partition: PartitionId, store: &Store) {
        let Some(lane) = self.lanes.get_mut(partition.index()) else { return };
        let Some(full) = store.read(partition).map(|p| p.capture_full_for(&lane.known)) else { return };
        lane.sent.join(&full.batch.ctx);
        lane.full = (!lane.known.includes(&full.batch.ctx)).then(|| full.batch.ctx.clone());
        self.sessions += 1;
        self.chunks.extend(cut(full, self.sessions));
    }

    /// Sends again what the peer should have reported by now. Returns whether anything is. Who `joins` takes nothing but full
    /// synchronisations, and reports none before it has all.
    pub fn check_progress(&mut self, now: Mono, store: &Store, joins: bool) -> bool {
        if !self.chunks.is_empty() || !self.fulls.is_empty() || self.in_flight > 0 {
            self.busy_at = now;
        }
        let silence = RESEND_AFTER * 2_u32.pow(self.rounds.min(DOUBLINGS_MAX));
        let gave_long_ago = now.since(self.busy_at) >= silence;
        if now.since(self.marked_at) < RESEND_AFTER || !self.chunks.is_empty() || planted!(NeverResends) {
            return false;
        }
        self.marked_at = now;
        let mut stuck = Vec::new();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let (sent, known) = &lane.mark;
            let waits = joins && lane.full.is_some() && !gave_long_ago;
            if !waits && !lane.known.includes(sent) && lane.known == *known {
                lane.sent = lane.known.clone();
                stuck.extend(u16::try_from(at).ok().map(|at| (PartitionId(at), lane.full.take().is_some())));
            }
            lane.mark = (lane.sent.clone(), lane.known.clone());
        }
        self.rounds += u32::from(stuck.iter().any(|(_, full)| *full));
        for (partition, full) in &stuck {
            sometimes!(ResentAfterSilence, if !full);
            sometimes!(FullResentAfterSilence, if *full);
            if *full {
                self.fulls.insert(*partition);
            } else {
                self.catch_up(*partition, store, true);
            }
        }
        !stuck.is_empty()
    }

    /// Tells whether the peer lacks something of `seen` that nobody gives it: it was neither sent nor reported, and the peer
    /// does not hear who made it, or has got nothing of the partition since this was last asked. To one that is only slow
    /// its origins send themselves; whoever helps takes room on its link from them.
    pub fn is_left_behind(&mut self, partition: PartitionId, seen: &Ctx, hears: impl Fn(ReplicaId) -> bool) -> bool {
        let Some(lane) = self.lanes.get_mut(partition.index()) else { return false };
        let moves = lane.known != lane.before;
        lane.before.clone_from(&lane.known);
        if lane.sent.includes(seen) {
            return false;
        }
        let mut lacked =
            seen.iter().filter(|(origin, seen)| lane.sent.of(*origin).is_none_or(|has| !has.includes(seen)));
        let waits = moves && lacked.all(|(origin, _)| hears(origin));
        sometimes!(SlowButServed, if waits);
        !waits
    }

    /// Tells whether the peer reported a dot by name.
    #[must_use]
    pub fn names(&self, partition: PartitionId, dot: Dot) -> bool {
        self.known(partition).is_some_and(|ctx| ctx.names(dot))
    }
}

/// Cuts a full synchronisation into frames.
fn cut(full: Full, session: u64) -> Vec<FullChunk> {
    let Full { batch, frontier, floor, forgotten, is_rest, is_part: _ } = full;
    let chunk = |index: u32| FullChunk::piece(batch.partition, session, index);
    let mut chunks = Vec::new();
    let mut open = FullChunk { ctx: batch.ctx, frontier, floor, forgotten, is_rest, ..chunk(0) };
    let mut bytes = 0;
    for fragment in batch.fragments {
        let weight = fragment.weight();
        if !open.fragments.is_empty() && (open.fragments.len() >= BUDGET.fragments || bytes + weight > BUDGET.bytes) {
            sometimes!(FullCut);
            let next = chunk(open.index + 1);
            chunks.push(std::mem::replace(&mut open, next));
            bytes = 0;
        }
        bytes += weight;
        open.fragments.push(fragment);
    }
    chunks.push(FullChunk { last: true, ..open });
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::NEVER;
    use crate::store::{Family, Gate, Intent, KeyRef, StoreConfig};
    use bytes::Bytes;

    const ONLY: PartitionId = PartitionId(0);

    /// A store of one partition with so many keys, each of 50 KB.
    fn store(keys: u32) -> Store {
        parted(1, keys)
    }

    fn parted(partitions: usize, keys: u32) -> Store {
        let config = StoreConfig {
            partitions,
            hash_key: [0; 16],
            log_records_max: 1_024,
            keyspace_bytes: 1 << 30,
            key_bytes_max: 64,
            value_bytes_max: 1 << 16,
            is_edge: false,
        };
        let store = Store::new(ReplicaId(1), config);
        store.set_gate(Gate::Open);
        let space = store.spaces().open("registers", Family::Register).unwrap();
        for n in 0..keys {
            let (name, value) = (n.to_be_bytes(), Bytes::from(vec![1; 50_000]));
            let key = KeyRef::new(&space, &name);
            let intent = Intent { wall_ms: 1, value_len: None };
            store.write(&key, intent, |p, tick| p.set(&key, value, NEVER, tick)).unwrap();
        }
        store
    }

    fn chunk(part: Option<Part>) -> (u64, u32, bool) {
        match part {
            Some(Part::FullChunk(chunk)) => (chunk.session, chunk.index, chunk.last),
            other => panic!("a piece of a synchronisation, not {other:?}"),
        }
    }

    #[test]
    fn a_synchronisation_that_lost_a_piece_begins_again_from_the_first() {
        let store = store(4);
        let mut peer = Peer::new(vec![Ctx::default()], Mono(0));
        peer.synchronise(ONLY);
        assert_eq!(chunk(peer.next_part(&store)), (1, 0, false));
        peer.synchronise(ONLY);
        assert_eq!(chunk(peer.next_part(&store)), (1, 1, false), "one is under way");
        peer.restart(ONLY);
        assert_eq!(chunk(peer.next_part(&store)), (2, 0, false));
        while peer.next_part(&store).is_some() {}
        assert!(peer.is_synchronising(), "until the peer reports it");
        peer.report(ONLY, &store.read(ONLY).unwrap().ctx().clone());
        assert!(!peer.is_synchronising());
    }

    #[test]
    fn what_was_never_reported_is_sent_again_after_a_while() {
        let store = store(1);
        let mut peer = Peer::new(vec![Ctx::default()], Mono(0));
        peer.catch_up(ONLY, &store, false);
        assert!(matches!(peer.next_part(&store), Some(Part::Batch(_))));
        assert!(peer.next_part(&store).is_none(), "it was sent");
        let (once, twice) = (Mono(0).plus(RESEND_AFTER), Mono(0).plus(RESEND_AFTER * 2));
        assert!(!peer.check_progress(once, &store, false), "the first look only marks");
        assert!(peer.check_progress(twice, &store, false));
        assert!(matches!(peer.next_part(&store), Some(Part::Batch(_))));
    }

    /// A joiner reports nothing before it has everything, however long that takes.
    #[test]
    fn a_join_over_a_slow_path_is_given_everything_once_and_again_only_when_all_was_sent_for_long() {
        let store = parted(64, 64);
        let mut peer = Peer::new(vec![Ctx::default(); 64], Mono(0));
        store.partition_ids().for_each(|partition| peer.synchronise(partition));
        let (mut given, mut again) = (Vec::new(), 0);
        for second in 0..400 {
            again += u32::from(peer.check_progress(Mono(0).plus(Duration::from_secs(second)), &store, true));
            given.extend(peer.next_part(&store).map(|part| chunk(Some(part)).0));
            assert!(again == 0 || second > 64, "{second}");
        }
        let once = given.iter().take_while(|session| **session <= 64).count();
        assert!(once >= 64 && given.windows(2).all(|two| two[0] <= two[1]), "one after the other");
        assert!((2..=4).contains(&again), "{again} times, each after twice as long");
    }

    #[test]
    fn partitions_take_turns_though_one_is_written_without_pause() {
        let store = parted(4, 32);
        let mut peer = Peer::new(vec![Ctx::default(); 4], Mono(0));
        store.partition_ids().for_each(|partition| peer.catch_up(partition, &store, false));
        let mut given = Vec::new();
        for _ in 0..4 {
            // As a write to the first one would.
            peer.catch_up(ONLY, &store, false);
            match peer.next_part(&store) {
                Some(Part::Batch(batch)) => given.push(batch.partition),
                other => panic!("a batch, not {other:?}"),
            }
        }
        assert_eq!(given, store.partition_ids().collect::<Vec<_>>());
    }

    #[test]
    fn who_hears_the_origin_and_gets_on_is_slow_and_anybody_else_is_left_behind() {
        let (origin, other) = (ReplicaId(7), ReplicaId(8));
        let seen_of = |origin, last| {
            let mut ctx = Ctx::default();
            ctx.add_range(origin, 1, last);
            ctx
        };
        let seen = seen_of(origin, 9);
        let mut peer = Peer::new(vec![seen_of(origin, 3)], Mono(0));
        assert!(peer.is_left_behind(ONLY, &seen, |_| true), "it gets nothing");
        peer.report(ONLY, &seen_of(origin, 4));
        assert!(!peer.is_left_behind(ONLY, &seen, |of| of == origin), "it gets on");
        peer.report(ONLY, &seen_of(origin, 5));
        assert!(peer.is_left_behind(ONLY, &seen, |of| of == other), "it does not hear who made them");
        peer.report(ONLY, &seen);
        assert!(!peer.is_left_behind(ONLY, &seen, |_| false), "it lacks nothing");
    }
}
