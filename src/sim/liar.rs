//! A byzantine peer: a real node with a valid certificate, whose host sends forged messages beside the real ones.
//!
//! What it forges is what an honest node can tell from the truth, or can take without harm to others' data; what a member
//! may do to a cluster that trusts it is in the assumptions of `docs/design.md`.
//!
//! # Invariants
//! * What it sends never decodes to a value nobody wrote: garbled messages are garbled until they do not decode.

use bytes::Bytes;

use super::cluster::SimCluster;
use super::plan::Lie;
use crate::clock::Hlc;
use crate::crdt::{Cell, Ctx, Dot, NEVER, Path, Payload, Scope, Seen};
use crate::id::{PartitionId, ReplicaId};
use crate::node::LinkId;
use crate::store::{Batch, Family, Fragment, Store};
use crate::wire::{Control, Decoder, Encoder, Frame, FullChunk, Limits, Part};

/// Replicas nobody ever heard of, in a huge context.
const STRANGERS: u64 = 2_000;
/// Gaps of one replica in a huge context.
const GAPS: u64 = 3_000;
/// More of them than a receiver takes.
const TOO_MANY_GAPS: u64 = 5_000;
/// Messages in a flood.
const FLOOD: usize = 200;
/// How often a message is garbled until it does not decode.
const TRIES: usize = 64;

/// Something forged, ready to be sent.
enum Forged {
    Control(Bytes),
    Log(Bytes),
    Beat(Bytes),
}

/// Who lies to whom.
struct Forger<'a> {
    store: &'a Store,
    me: ReplicaId,
    victim: ReplicaId,
    /// Everybody else.
    others: Vec<ReplicaId>,
    rng: &'a mut fastrand::Rng,
    encoder: Encoder,
}

impl SimCluster {
    /// A liar sends something forged on all its links; returns whether it did.
    pub(super) fn forge(&mut self, at: usize, lie: Lie) -> bool {
        if self.is_honest(at) || self.is_paused(at) {
            return false;
        }
        let Some(store) = self.store(at) else { return false };
        let (mut rng, true_ms) = (self.rng.fork(), self.true_ms());
        let mut sent = false;
        for (link, victim) in self.victims(at) {
            let others = self.hosts.iter().filter_map(|h| h.replica).filter(|r| *r != victim).collect();
            let encoder = Encoder::new(Limits { gaps: TOO_MANY_GAPS, ..Limits::default() });
            let mut forger = Forger { store: &store, me: store.me(), victim, others, rng: &mut rng, encoder };
            let forged = match lie {
                Lie::Report => forger.report(),
                Lie::Origin => forger.origin(),
                Lie::Events => forger.events(),
                Lie::HugeContext => forger.huge_context(GAPS),
                Lie::TornContext => forger.huge_context(TOO_MANY_GAPS),
                Lie::Piece => forger.piece(),
                Lie::Noise => forger.noise(),
                Lie::Garbled => self.garbled(at, &mut forger),
                Lie::Hello => self.second_hello(at, link),
                Lie::Flood => forger.flood(),
                Lie::Clock => forger.clock(true_ms),
            };
            sent |= !forged.is_empty();
            for message in forged {
                match message {
                    Forged::Control(bytes) => self.carriage.control(self.now, at, link, bytes),
                    Forged::Log(bytes) => self.carriage.log(self.now, at, link, bytes, false),
                    Forged::Beat(bytes) => self.carriage.beat(self.now, at, link, bytes),
                }
            }
        }
        sent
    }

    /// Returns the links of a host and the replicas that run at their other ends.
    fn victims(&self, at: usize) -> Vec<(LinkId, ReplicaId)> {
        let victim = |link: LinkId| {
            let end = self.hosts.get(self.carriage.other_end(at, link)?)?;
            Some((link, end.replica.filter(|_| end.node.is_some())?))
        };
        self.hosts.get(at).map_or(Vec::new(), |host| host.links.keys().copied().filter_map(victim).collect())
    }

    fn garbled(&self, at: usize, forger: &mut Forger<'_>) -> Vec<Forged> {
        let Some(host) = self.hosts.get(at) else { return Vec::new() };
        let frame = host.last_frame.as_ref().and_then(|bytes| forger.garble(bytes, false)).map(Forged::Log);
        let hello = host.links.values().find_map(|note| note.hello.as_ref());
        let control = hello.and_then(|bytes| forger.garble(bytes, true)).map(Forged::Control);
        if forger.rng.bool() { frame.or(control) } else { control }.into_iter().collect()
    }

    fn second_hello(&self, at: usize, link: LinkId) -> Vec<Forged> {
        let hello = self.hosts.get(at).and_then(|h| h.links.get(&link)?.hello.clone());
        hello.map(Forged::Control).into_iter().collect()
    }
}

impl Forger<'_> {
    /// Claims to have seen what nobody wrote: of the receiver, which it can tell, or of others.
    fn report(&mut self) -> Vec<Forged> {
        let mut claimed = self.others.clone();
        if self.rng.bool() {
            claimed.push(self.victim);
        }
        let mut changed = Vec::new();
        for id in self.store.partition_ids() {
            let news = claimed.iter().map(|replica| (*replica, beyond(self.store, id, *replica, self.rng)));
            changed.push((id, news.collect()));
        }
        let report = Control::Report { hlc: self.hlc(), changed, members: None };
        self.control(&report)
    }

    /// Claims that what it sends is the receiver's own.
    fn origin(&mut self) -> Vec<Forged> {
        let id = self.partition();
        let parts = vec![Part::Batch(self.batch(id, Dot { replica: self.me, seq: 1 << 20 }, false))];
        self.frame(&Frame { from: self.victim, hlc: self.hlc(), parts })
    }

    /// Covers events that the receiver never made: in a batch's context, only in its fragments, or in a synchronisation.
    fn events(&mut self) -> Vec<Forged> {
        let id = self.partition();
        let top = beyond(self.store, id, self.victim, self.rng).max();
        let Batch { partition, ctx, fragments } = self.batch(id, Dot { replica: self.victim, seq: top }, true);
        let part = match self.rng.u8(..4) {
            0 => Part::Batch(Batch { partition, ctx, fragments: Vec::new() }),
            1 => Part::Batch(Batch { partition, ctx: self.seen(partition), fragments }),
            2 => Part::Batch(Batch { partition, ctx, fragments }),
            _ => {
                let mut floor = ctx.clone();
                if self.rng.bool() {
                    floor.add_range(self.me, 1, 1 << 20);
                }
                Part::FullChunk(FullChunk { ctx, floor, fragments, ..only_chunk(partition) })
            }
        };
        self.frame(&Frame { from: self.me, hlc: self.hlc(), parts: vec![part] })
    }

    /// Sends the second piece of what it has not begun.
    fn piece(&mut self) -> Vec<Forged> {
        let chunk = FullChunk { index: 1, ..only_chunk(self.partition()) };
        self.frame(&Frame { from: self.me, hlc: self.hlc(), parts: vec![Part::FullChunk(chunk)] })
    }

    /// Names many replicas and so many gaps, in a report and in a batch.
    fn huge_context(&mut self, gaps: u64) -> Vec<Forged> {
        let id = self.partition();
        let mut ctx = self.seen(id);
        let mut strangers: Vec<u64> = (0..STRANGERS).map(|_| self.rng.u64(1..)).collect();
        strangers.sort_unstable();
        for stranger in strangers {
            ctx.add_range(ReplicaId(stranger), 1, self.rng.u64(1..1 << 40));
        }
        let gaps: Vec<(u64, u64)> = (1..=gaps).map(|n| (n * 3, n * 3)).collect();
        ctx.add_seen(ReplicaId(self.rng.u64(1..)), &Seen::new(0, &gaps));
        let news = ctx.iter().map(|(replica, seen)| (replica, seen.clone())).collect();
        let mut forged = self.control(&Control::Report { hlc: self.hlc(), changed: vec![(id, news)], members: None });
        let parts = vec![Part::Batch(Batch { partition: id, ctx, fragments: Vec::new() })];
        forged.extend(self.frame(&Frame { from: self.me, hlc: self.hlc(), parts }));
        forged
    }

    fn noise(&mut self) -> Vec<Forged> {
        let len = self.rng.usize(0..2_000);
        vec![Forged::Control((0..len).map(|_| self.rng.u8(..)).collect())]
    }

    /// Sends what is small and makes work, or has to be kept.
    fn flood(&mut self) -> Vec<Forged> {
        let partition = self.partition();
        let kinds =
            [Control::ReportNow, Control::NeedFull { partition }, Control::Goodbye, Control::Join { ctxs: Vec::new() }];
        let mut forged = Vec::new();
        let kind = kinds.get(self.rng.usize(..kinds.len() + 1));
        for _ in 0..FLOOD {
            match kind {
                Some(kind) => forged.extend(self.control(kind)),
                None => forged.push(Forged::Beat(Bytes::from_static(b""))),
            }
        }
        forged
    }

    /// Says nothing but what time it is: so late that the receiver barely takes it, with a counter that is full.
    fn clock(&mut self, true_ms: u64) -> Vec<Forged> {
        let ahead_ms = self.rng.u64(..1_000);
        let hlc = Hlc(Hlc::from_ms(true_ms + ahead_ms).0 | 0xffff);
        self.frame(&Frame { from: self.me, hlc, parts: Vec::new() })
    }

    /// Changes bytes until nobody can read them.
    fn garble(&mut self, bytes: &Bytes, control: bool) -> Option<Bytes> {
        let (mut garbled, mut decoder, limits) = (bytes.to_vec(), Decoder::default(), Limits::default());
        for _ in 0..TRIES {
            let at = self.rng.usize(..garbled.len().max(1));
            *garbled.get_mut(at)? ^= self.rng.u8(1..);
            let decodes = if control {
                decoder.decode_control(&garbled, &limits).is_ok()
            } else {
                decoder.decode_frame(&garbled, &super::workload::keyspaces(), &limits).is_ok()
            };
            if !decodes {
                return Some(garbled.into());
            }
        }
        None
    }

    fn partition(&mut self) -> PartitionId {
        let count = u16::try_from(self.store.partition_count()).unwrap_or(u16::MAX);
        PartitionId(self.rng.u16(..count.max(1)))
    }

    fn hlc(&self) -> Hlc {
        self.store.clock().last()
    }

    /// Returns what the liar has really seen of a partition.
    fn seen(&self, id: PartitionId) -> Ctx {
        self.store.read(id).map(|p| p.ctx().clone()).unwrap_or_default()
    }

    /// Returns a batch that covers one event it made up.
    fn batch(&self, partition: PartitionId, dot: Dot, in_context: bool) -> Batch {
        let mut ctx = self.seen(partition);
        let mut fragments = Vec::new();
        if let Ok(space) = self.store.spaces().open("registers", Family::Register) {
            let scope = Scope::Path(Path::Register);
            let mut fragment = Fragment::empty(space.id(), Bytes::from_static(b"forged"), scope.clone());
            let value = Payload::Value(Bytes::from_static(b"forged"));
            fragment.cell = Some(Cell::new(value, self.hlc(), dot, NEVER));
            fragment.covers.push((dot, scope));
            fragments.push(fragment);
        }
        if in_context {
            ctx.add_range(dot.replica, 1, dot.seq);
        }
        Batch { partition, ctx, fragments }
    }

    fn control(&mut self, message: &Control) -> Vec<Forged> {
        self.encoder.encode_control(message).map(Forged::Control).into_iter().collect()
    }

    fn frame(&mut self, frame: &Frame) -> Vec<Forged> {
        self.encoder.encode_frame(frame, self.store.spaces()).map(Forged::Log).into_iter().collect()
    }
}

/// Returns a full synchronisation of nothing in one piece.
fn only_chunk(partition: PartitionId) -> FullChunk {
    let (ctx, frontier, floor) = (Ctx::default(), Ctx::default(), Ctx::default());
    let (index, last, forgotten, fragments) = (0, true, Hlc::default(), Vec::new());
    FullChunk { partition, session: 1 << 40, index, last, ctx, frontier, floor, forgotten, is_rest: false, fragments }
}

/// Returns what the liar has really seen of a replica, and events of it that nobody ever made. To claim what was made and
/// not seen would harm those who join through the liar, and nobody can tell.
fn beyond(store: &Store, id: PartitionId, replica: ReplicaId, rng: &mut fastrand::Rng) -> Seen {
    let seen =
        store.read(id).and_then(|p| p.ctx().of(replica).filter(|seen| !seen.is_mark()).cloned()).unwrap_or_default();
    let far = seen.max() + (1 << 20) + rng.u64(..1 << 30);
    let ranges: Vec<(u64, u64)> = seen.above().iter().copied().chain([(far, far + (1 << 20))]).collect();
    Seen::new(seen.base(), &ranges)
}
