//! What a node keeps per connection.
//!
//! # Invariants
//! * A link is *greeting* until its hello passed; only then does it have a [`Session`].
//! * At most one session per replica: a duplicate link is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Mono;
use crate::crdt::Ctx;
use crate::id::{PartitionId, ReplicaId};
use crate::membership::Beats;
use crate::node::fetch::Asked;
use crate::node::input::{PeerIdentity, PeerSlot};
use crate::node::missing::Missing;
use crate::node::read::Questions;
use crate::node::stats::{LagHistogram, PeerStats, RecentLag, Traffic};
use crate::probe::sometimes;
use crate::repair;
use crate::replication::{Peer, ReportLog};
use crate::store::{Batch, Fragment, Full};
use crate::wire::FullChunk;

/// Most bytes of unfinished full synchronisations staged per link: half of a keyspace's default
/// budget in one partition. Past it the link is closed: use more partitions.
pub const STAGED_BYTES_MAX: usize = 512 << 20;

/// How long the next piece of a synchronisation may take before it counts as not coming: twice what a sender waits at least
/// before it begins again.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub struct Link {
    /// Who the certificate says the peer is.
    pub identity: PeerIdentity,
    /// The address that was dialled.
    pub dialled: Option<PeerSlot>,
    /// When it came up.
    pub since: Mono,
    /// How long the peer may have held it for up by then.
    pub after: Duration,
    /// The peer's wall clock in its hello.
    pub hello_ms: u64,
    /// This node's hello said that it has joined.
    pub told_joined: bool,
    /// The contexts this node's hello carried.
    pub told: Vec<Ctx>,
    /// Frames that overtook the hello.
    pub early: Early,
    /// What is known once the hello passed.
    pub session: Option<Box<Session>>,
}

/// Frames that came before the hello: streams do not wait for each other, and a peer that has our
/// hello sends at once.
#[derive(Debug, Default)]
pub struct Early {
    frames: Vec<Bytes>,
    bytes: usize,
}

/// Most bytes kept of a peer that has not said hello; more is dropped and sent again later.
pub const EARLY_BYTES_MAX: usize = 4 << 20;
/// What a frame that waits costs beyond its bytes: many small ones are no cheaper than a large one.
pub const FRAME_COST: usize = 64;

impl Early {
    /// Keeps a copy of a frame if there is room: the buffer it came in may be much larger.
    pub fn keep(&mut self, frame: &Bytes) {
        let with = self.bytes + frame.len() + FRAME_COST;
        if with <= EARLY_BYTES_MAX {
            sometimes!(FrameBeforeHello);
            self.bytes = with;
            self.frames.push(Bytes::copy_from_slice(frame));
        }
    }

    /// Returns how many bytes are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives the frames out, in the order in which they came.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }
}

impl Link {
    /// Returns what is known of the peer, once its hello passed.
    #[must_use]
    pub fn stats(&self) -> Option<PeerStats> {
        let session = self.session.as_deref()?;
        Some(PeerStats {
            node: self.identity.node,
            region: self.identity.region.clone(),
            replica: session.replica,
            joined: session.joined,
            up: session.up,
            level: session.peer.is_level(),
            rtt: session.beats.rtt(),
            skew_ms: session.beats.skew_ms(),
            certificate_expires_ms: self.identity.expires_ms,
            traffic: session.traffic,
            lag: session.lag.clone(),
        })
    }
}

/// A connection whose hello passed.
#[derive(Debug)]
pub struct Session {
    /// The peer's running copy.
    pub replica: ReplicaId,
    /// The peer has joined.
    pub joined: bool,
    /// The peer is an edge.
    pub is_edge: bool,
    /// This node is the peer's donor.
    pub donated: bool,
    /// The members the peer was told are known here, when it had been told everything.
    pub told: u64,
    /// The members the peer has said it knows.
    pub hears: u64,
    /// The peer was heard of lately.
    pub up: bool,
    /// Progress.
    pub peer: Peer,
    /// What the peer was told.
    pub reports: ReportLog,
    /// The version of the member set the peer was told.
    pub members_told: u64,
    /// The peer waits for a report.
    pub urgent: bool,
    /// The peer was asked for a report and has not sent one since.
    pub asked: bool,
    /// Partitions the peer was asked to send again since the last report.
    pub asked_again: BTreeSet<PartitionId>,
    /// Liveness.
    pub beats: Beats,
    /// Whom the peer does not hear, once it has said so.
    pub suspects: Option<BTreeSet<ReplicaId>>,
    /// How busy the peer says it is, in percent.
    pub load: Option<u8>,
    /// Whom the peer votes to remove.
    pub gives_up: BTreeSet<ReplicaId>,
    /// The comparison of both copies.
    pub repair: repair::Session,
    /// When this side compares them next.
    pub repair_due: Mono,
    /// What the peer asked for.
    pub asked_for: Asked,
    /// What it is asked.
    pub questions: Questions,
    /// Unfinished full synchronisations.
    pub staging: Staging,
    /// Full synchronisations in a row that predated what is stable here, by partition.
    pub stale_fulls: BTreeMap<PartitionId, u32>,
    /// Counters.
    pub traffic: Traffic,
    /// Lag of the peer's own writes.
    pub lag: LagHistogram,
    /// The same of the last seconds.
    pub recent_lag: RecentLag,
    /// Writes of the peer's own that it has reported and that are not here.
    pub(super) missing: Missing,
}

impl Session {
    /// Tells whether anything is sent to this peer: writes once it has joined, and before that full
    /// synchronisations if this node is its donor.
    #[must_use]
    pub fn receives(&self) -> bool {
        self.joined || self.donated
    }
}

/// The pieces of full synchronisations that wait for their last one.
#[derive(Debug, Default)]
pub struct Staging {
    open: BTreeMap<PartitionId, Open>,
    bytes: usize,
}

#[derive(Debug)]
struct Open {
    session: u64,
    /// When the last piece came.
    at: Mono,
    next: u32,
    bytes: usize,
    full: Full,
}

/// What a piece completes.
#[derive(Debug)]
pub enum Staged {
    /// More pieces follow.
    Waiting,
    /// The whole partition.
    Whole(Box<Full>),
    /// A piece before this one is missing: the partition must be sent again.
    Broken,
    /// More is staged than may be.
    Full,
}

impl Staging {
    /// Returns how many bytes wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a piece.
    pub fn add(&mut self, now: Mono, chunk: FullChunk) -> Staged {
        let fragments: usize = chunk.fragments.iter().map(Fragment::held_bytes).sum();
        let bytes = fragments + [&chunk.ctx, &chunk.frontier, &chunk.floor].map(Ctx::weight).iter().sum::<usize>();
        if self.bytes + bytes > STAGED_BYTES_MAX {
            return Staged::Full;
        }
        let id = chunk.partition;
        if chunk.index == 0 {
            self.forget(id);
            let batch = Batch { partition: id, ctx: chunk.ctx, fragments: Vec::new() };
            let FullChunk { frontier, floor, forgotten, is_rest, .. } = chunk;
            let full = Full { batch, frontier, floor, forgotten, is_rest, is_part: false };
            self.open.insert(id, Open { session: chunk.session, at: now, next: 0, bytes: 0, full });
        }
        let Some(open) = self.open.get_mut(&id).filter(|o| o.session == chunk.session && o.next == chunk.index) else {
            self.forget(id);
            return Staged::Broken;
        };
        open.next += 1;
        open.at = now;
        open.bytes += bytes;
        self.bytes += bytes;
        open.full.batch.fragments.extend(chunk.fragments);
        if !chunk.last {
            return Staged::Waiting;
        }
        self.take(id).map_or(Staged::Broken, |full| Staged::Whole(Box::new(full)))
    }

    fn take(&mut self, id: PartitionId) -> Option<Full> {
        let open = self.open.remove(&id)?;
        self.bytes -= open.bytes;
        Some(open.full)
    }

    /// Forgets what nobody goes on with: no piece came for long, and `has` tells that I have seen all of it by now, so the
    /// sender will not begin again.
    pub fn forget_stalled(&mut self, now: Mono, has: impl Fn(PartitionId, &Ctx) -> bool) {
        let stalled = |open: &Open| now.since(open.at) >= STALLED_AFTER;
        let gone = self.open.iter().filter(|(id, open)| stalled(open) && has(**id, &open.full.batch.ctx));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: PartitionId) {
        self.take(id);
    }
}

/// Turns the contexts of a hello, which leave out empty partitions, into one per partition.
#[must_use]
pub fn spread(count: usize, sparse: Vec<(PartitionId, Ctx)>) -> Vec<Ctx> {
    let mut all = vec![Ctx::default(); count];
    for (id, ctx) in sparse {
        if let Some(place) = all.get_mut(id.index()) {
            *place = ctx;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::{Dot, Path, Scope};
    use crate::id::KeyspaceId;

    fn chunk(session: u64, index: u32, last: bool) -> FullChunk {
        FullChunk { last, ..FullChunk::piece(PartitionId(3), session, index) }
    }

    #[test]
    fn a_partition_is_whole_only_with_every_piece_in_order() {
        let mut staging = Staging::default();
        let mut add = |session, index, last| staging.add(Mono(0), chunk(session, index, last));
        assert!(matches!(add(1, 0, false), Staged::Waiting));
        assert!(matches!(add(1, 2, true), Staged::Broken));
        assert!(matches!(add(1, 1, false), Staged::Broken));
        assert!(matches!(add(2, 0, false), Staged::Waiting));
        assert!(matches!(add(2, 1, true), Staged::Whole(_)));
    }

    #[test]
    fn what_nobody_goes_on_with_is_forgotten_once_it_is_known_from_elsewhere() {
        let mut staging = Staging::default();
        let mut ctx = Ctx::default();
        ctx.add_range(ReplicaId(1), 1, 9);
        let later = Mono(0).plus(STALLED_AFTER);
        assert!(matches!(staging.add(Mono(0), FullChunk { ctx, ..chunk(1, 0, false) }), Staged::Waiting));
        staging.forget_stalled(Mono(1), |_, _| true);
        staging.forget_stalled(later, |_, _| false);
        assert!(staging.bytes() > 0, "a slow link takes its time");
        staging.forget_stalled(later, |id, ctx| id == PartitionId(3) && ctx.has(Dot { replica: ReplicaId(1), seq: 9 }));
        assert_eq!(staging.bytes(), 0);
        assert!(matches!(staging.add(later, chunk(1, 1, true)), Staged::Broken), "and asked for again if it comes");
    }

    #[test]
    fn a_run_of_covered_events_counts_as_what_it_takes_here() {
        let scope = Scope::Path(Path::Register);
        let mut covering = Fragment::empty(KeyspaceId(0), Bytes::new(), scope.clone());
        covering.covers = (1..=10_000).map(|seq| (Dot { replica: ReplicaId(1), seq }, scope.clone())).collect();
        let mut staging = Staging::default();
        staging.add(Mono(0), FullChunk { fragments: vec![covering], ..chunk(1, 0, false) });
        assert!(staging.bytes() >= 10_000 * size_of::<(Dot, Scope)>());
    }

    #[test]
    fn contexts_count_as_staged_bytes_and_are_given_back() {
        let mut staging = Staging::default();
        let mut ctx = Ctx::default();
        (1..=1_000).for_each(|n| ctx.add_range(ReplicaId(n), 1, 9));
        assert!(matches!(staging.add(Mono(0), FullChunk { ctx: ctx.clone(), ..chunk(1, 0, false) }), Staged::Waiting));
        assert!(staging.bytes() >= 1_000 * size_of::<ReplicaId>());
        assert!(matches!(staging.add(Mono(0), FullChunk { ctx, ..chunk(2, 0, true) }), Staged::Whole(_)));
        assert_eq!(staging.bytes(), 0);
    }

    #[test]
    fn frames_that_overtake_a_hello_are_bounded_however_small_they_are() {
        let mut early = Early::default();
        (0..EARLY_BYTES_MAX).for_each(|_| early.keep(&Bytes::new()));
        assert!(early.frames.len() <= EARLY_BYTES_MAX / FRAME_COST && early.bytes() <= EARLY_BYTES_MAX);
        assert!(!early.take().is_empty() && early.bytes() == 0);
        let buffer = Bytes::from(vec![1; 64 * 1024]);
        early.keep(&buffer.slice(..8));
        assert!(buffer.is_unique(), "a copy is kept, not the buffer");
    }
}
