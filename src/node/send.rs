//! Sending: shared frames for peers that are level, their own for those that are not, reports.

use bytes::Bytes;

use crate::clock::Now;
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;
use crate::node::input::LinkId;
use crate::node::output::Output;
use crate::probe::{planted, sometimes};
use crate::replication::outbox::Flush;
use crate::store::Batch;
use crate::wire::{Control, Frame, Part, Restore};

/// Frames one flush may take, so that one turn of the driver stays within a few milliseconds.
const FLUSH_FRAMES: usize = 16;
/// Largest frame sent on a stream of its own: it must fit one packet of the smallest QUIC path
/// (1,200 bytes) with its headers.
const EXPRESS_BYTES: usize = 1_100;
/// Partitions in one report, so that a control message stays far below its limit.
const REPORT_PARTITIONS: usize = 512;

/// A frame as it leaves, shared by all links it goes to.
struct Encoded {
    bytes: Bytes,
    /// Bytes before compression.
    plain: usize,
    fragments: usize,
}

impl Node {
    /// Captures what was written since the last flush and sends it to every peer that takes it.
    pub(super) fn flush(&mut self, now: Now) {
        if !self.sessions().any(|(_, s)| s.joined) {
            self.outbox.skip(&self.store);
            return;
        }
        for _ in 0..FLUSH_FRAMES {
            let Some(flush) = self.outbox.flush(now.mono, &self.store) else { return };
            self.share(flush);
        }
    }

    fn share(&mut self, mut flush: Flush) {
        let window = self.config.replication.link_window_bytes;
        let me = self.me.replica;
        if planted!(ContextReadEarlier) {
            for batch in &mut flush.batches {
                let before = self.seen_before.iter().find(|(id, _)| *id == batch.partition);
                batch.ctx = before.map_or_else(Default::default, |(_, ctx)| ctx.clone());
            }
        }
        let (mut takers, mut behind) = (Vec::new(), Vec::new());
        for (id, link) in &mut self.links {
            let Some(session) = link.session.as_deref_mut().filter(|s| s.joined) else { continue };
            if session.peer.takes(&flush.reach, window) {
                takers.push((*id, !session.peer.is_synchronising()));
            } else {
                sometimes!(SharedFrameRefused);
                flush.reach.iter().for_each(|r| session.peer.catch_up(r.partition, &self.store, false));
                behind.push(*id);
            }
        }
        if !takers.is_empty() {
            let parts = std::mem::take(&mut flush.batches).into_iter().map(Part::Batch).collect();
            let frame = self.encode(parts).ok();
            let small = self.config.replication.express
                && frame.as_ref().is_some_and(|frame| frame.bytes.len() <= EXPRESS_BYTES);
            for (link, free) in takers {
                let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { continue };
                if let Some(frame) = &frame {
                    flush.reach.iter().for_each(|r| session.peer.sent_own(me, r.partition, r.from, r.to));
                    self.send_frame(link, frame, small && free);
                } else {
                    flush.reach.iter().for_each(|r| session.peer.catch_up(r.partition, &self.store, false));
                    behind.push(link);
                }
            }
        }
        behind.into_iter().for_each(|link| self.pump(link));
    }

    /// Encodes a frame, or says what is too large and gives the parts back.
    fn encode(&mut self, parts: Vec<Part>) -> Result<Encoded, Vec<Part>> {
        let fragments = parts.iter().map(|p| p.fragments().len()).sum();
        let frame = Frame { from: self.me.replica, hlc: self.store.clock().last(), parts };
        match self.encoder.encode_frame(&frame, self.store.spaces()) {
            Ok(bytes) => Ok(Encoded { bytes, plain: self.encoder.plain_len(), fragments }),
            Err(unsendable) => {
                self.unsendable(unsendable);
                Err(frame.parts)
            }
        }
    }

    fn send_frame(&mut self, link: LinkId, frame: &Encoded, express: bool) {
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return };
        session.peer.queued(frame.bytes.len(), self.config.replication.link_window_bytes);
        let (bytes, plain) = (u64::try_from(frame.bytes.len()).unwrap_or(0), u64::try_from(frame.plain).unwrap_or(0));
        let t = &mut session.traffic;
        t.frames_out += 1;
        t.fragments_out += u64::try_from(frame.fragments).unwrap_or(0);
        t.bytes_out += bytes;
        t.raw_bytes_out += plain;
        self.stats.bytes_out += bytes;
        self.stats.raw_bytes_out += plain;
        self.out.push_back(Output::Log { link, bytes: frame.bytes.clone(), express });
    }

    /// Sends what a peer still needs, as far as its link has room.
    pub(super) fn pump(&mut self, link: LinkId) {
        self.pump_within(link, self.config.replication.link_window_bytes);
    }

    /// Sends what a peer still needs until so many bytes wait for QUIC.
    pub(super) fn pump_within(&mut self, link: LinkId, window: usize) {
        loop {
            let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return };
            if !session.receives() || !session.peer.has_room(window) {
                return;
            }
            let Some(part) = session.peer.next_part(&self.store) else { return };
            self.send_part(link, part);
        }
    }

    /// Sends a part now.
    pub(super) fn send_part(&mut self, link: LinkId, part: Part) {
        match self.encode(vec![part]) {
            Ok(frame) => self.send_frame(link, &frame, false),
            Err(parts) => self.send_apart(link, parts),
        }
    }

    /// Sends the fragments of a batch that no receiver would take one by one, so that only the one
    /// at fault stays behind. A piece of a full synchronisation stays as a whole: its receiver would take what is left out
    /// for deleted.
    fn send_apart(&mut self, link: LinkId, parts: Vec<Part>) {
        for part in parts {
            let alone: Vec<Part> = match part {
                Part::Batch(Batch { partition, ctx, fragments }) if fragments.len() > 1 => {
                    let batch = |fragment| Batch { partition, ctx: ctx.clone(), fragments: vec![fragment] };
                    fragments.into_iter().map(|fragment| Part::Batch(batch(fragment))).collect()
                }
                Part::Restore(Restore { partition, is_answer, fragments }) if fragments.len() > 1 => {
                    let restore = |fragment| Restore { partition, is_answer, fragments: vec![fragment] };
                    fragments.into_iter().map(|fragment| Part::Restore(restore(fragment))).collect()
                }
                Part::Batch(_) | Part::Restore(_) | Part::FullChunk(_) | Part::Answer(_) => Vec::new(),
            };
            for part in alone {
                if let Ok(frame) = self.encode(vec![part]) {
                    self.send_frame(link, &frame, false);
                }
            }
        }
    }

    /// Tells every peer what was seen since the last report, and collects what became stable.
    pub(super) fn report(&mut self, now: Now) {
        self.timers.report = None;
        self.received_bytes = 0;
        let touched = std::mem::take(&mut self.touched);
        self.collect(now, touched.iter().copied());
        let hlc = self.store.clock().last();
        let (version, digest) = (self.members_version, self.members.digest());
        let mut messages = Vec::new();
        for (id, link) in &mut self.links {
            let Some(session) = link.session.as_deref_mut().filter(|_| self.join.is_joined()) else { continue };
            session.urgent = false;
            session.asked_again.clear();
            let members = (session.members_told != version).then(|| self.members.clone());
            session.members_told = version;
            let changed = session.reports.take(&self.store, REPORT_PARTITIONS);
            if !changed.is_empty() || members.is_some() {
                messages.push((*id, Control::Report { hlc, changed, members }));
            }
            if session.reports.is_pending() {
                self.timers.start_report(now.mono, self.config.replication.report_every);
            } else if std::mem::replace(&mut session.told, digest) != digest {
                messages.push((*id, Control::Told { digest }));
            }
        }
        for (link, message) in messages {
            self.send_control(link, &message);
        }
    }

    /// Forgets what every member has. Nothing is stable before a member was met at every
    /// configured address: one that was never heard of, or founded apart, might hold older writes.
    pub(super) fn collect(&mut self, now: Now, partitions: impl Iterator<Item = PartitionId>) {
        let partitions: Vec<PartitionId> = partitions.filter(|_| self.join.is_joined()).collect();
        partitions.iter().for_each(|id| self.adopt_marks(now, *id));
        if !self.join.is_joined() || !(self.has_met_everybody() || planted!(CollectsBeforeMeeting)) {
            sometimes!(NotAllMetYet, if self.join.is_joined());
            return;
        }
        let me = self.me.replica;
        let counts = |r: &ReplicaId| !planted!(AbsentNotAwaited) || self.sessions().any(|(_, s)| s.replica == *r);
        let others: Vec<_> = self.members.live().map(|(r, _)| r).filter(|r| *r != me && counts(r)).collect();
        let before_ms = self.collect_before_ms(now);
        let edges: Vec<_> = self.members.live().filter(|(_, m)| m.profile.is_edge).map(|(r, _)| r).collect();
        for id in partitions {
            if let Some(mut partition) = self.store.lock(id) {
                partition.excuse(&edges);
                partition.collect(&others, self.store.spaces(), before_ms);
            }
            self.fold(now, id);
        }
    }
}
