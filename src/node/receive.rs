//! Receiving: control messages, frames and heartbeats of peers whose hello passed.
//!
//! # Invariants
//! * A faulty message is dropped whole and closes its own link only.
//! * A frame whose stamps are ahead of the wall clock waits in a bounded pen, or is dropped and
//!   stays missing until it is sent again; it is never clamped or re-stamped.
//! * Every applied stamp is observed, so a later local write wins over anything it could see.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Hlc, Now};
use crate::crdt::{Ctx, Dot, Seen};
use crate::error::PeerFault;
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;
use crate::node::event::{Change, Event};
use crate::node::input::LinkId;
use crate::node::link::Staged;
use crate::node::output::Output;
use crate::probe::{planted, sometimes};
use crate::store::{Applied, Around, Batch, Fragment, Full, Refused};
use crate::wire::{Answer, Beat, Control, Frame, FullChunk, Part, Repair};

/// Received bytes after which a report goes at once.
const REPORT_BYTES: usize = 256 * 1024;
/// Full synchronisations refused in a row before the histories count as unrelated.
const STALE_FULLS_MAX: u32 = 8;
/// The same if the sender calls stable what is unknown here: then neither will ever be able to take the other's.
const MUTUAL_FULLS_MAX: u32 = 1;

impl Node {
    /// Returns a number that grows with everything of others that is joined in, whichever input let it: frames may
    /// have waited for a hello or for the clock.
    #[must_use]
    pub fn news(&self) -> u64 {
        self.news
    }

    pub(super) fn on_control(&mut self, now: Now, link: LinkId, bytes: &Bytes) {
        if self.is_parting(now, link, bytes) {
            return;
        }
        let message = match self.decoder.decode_control(bytes, &self.limits) {
            Ok(message) => message,
            Err(fault) => return self.fault(link, fault),
        };
        let greeted = self.session_mut(link).map(|s| s.beats.heard(now.mono)).is_some();
        if greeted {
            self.note_consent(link);
        }
        if let Err(fault) = self.check_control(&message, greeted) {
            return self.fault(link, fault);
        }
        match (message, greeted) {
            (Control::Hello(hello), false) if self.links.contains_key(&link) => self.on_hello(now, link, hello),
            (Control::Hello(_), true) => {
                sometimes!(SecondHelloRefused);
                self.fault(link, PeerFault::Malformed { why: "a second hello" });
            }
            (_, false) => {}
            (Control::Join { ctxs }, true) => self.on_join(now, link, ctxs),
            (Control::JoinDone { hlc, resumed }, true) => self.on_join_done(now, link, hlc, resumed),
            (Control::Ready { members, ctxs }, true) => self.on_ready(now, link, &members, ctxs),
            (Control::Report { hlc: _, changed, members }, true) => {
                if let Some(members) = members {
                    self.hear(now, link, &members);
                    self.hear_last_words(now, link, &members);
                    if planted!(ReportDropped) {
                        return;
                    }
                }
                self.on_report(now, link, changed);
            }
            (Control::Told { digest }, true) => self.on_told(now, link, digest),
            (Control::ReportNow, true) => {
                if let Some(session) = self.session_mut(link) {
                    session.urgent = true;
                }
            }
            (Control::NeedFull { partition }, true) => {
                let store = Arc::clone(&self.store);
                match self.session_mut(link) {
                    Some(session) if session.joined => session.peer.resend(partition, &store),
                    Some(session) => session.peer.restart(partition),
                    None => {}
                }
                self.pump(link);
            }
            (Control::Repair(message), true) => self.on_repair_message(now, link, message),
            (Control::Fetch { keyspace, key }, true) => self.on_asked(link, keyspace, key),
            (Control::Missing { keyspace, key }, true) => self.on_missing(link, &keyspace, key),
            (Control::Ask { question, keyspace, key }, true) => self.on_question(link, question, &keyspace, key),
            (Control::Goodbye, true) => {}
            (Control::Twin { replica }, true) => self.on_twin(replica),
        }
    }

    /// Whoever has let our hello pass and talks to us accepts our clock. Nodes that have not joined have nothing to say
    /// but beats.
    fn note_consent(&mut self, link: LinkId) {
        if let Some(node) = self.links.get(&link).map(|l| l.identity.node)
            && self.slots.clock_accepted(node)
        {
            self.check_own_clock();
        }
    }

    /// Checks what a message says before anything of it is taken in; a hello is checked with the rest of it.
    fn check_control(&self, message: &Control, greeted: bool) -> Result<(), PeerFault> {
        match message {
            Control::Ready { members, ctxs } if greeted => {
                self.check_members(members)?;
                if members.was_removed(self.me.replica) { Ok(()) } else { self.check_ctxs(ctxs) }
            }
            Control::Report { changed, members, .. } if greeted => {
                members.as_ref().map_or(Ok(()), |members| self.check_members(members))?;
                let is_removed = members.as_ref().is_some_and(|members| members.was_removed(self.me.replica));
                if is_removed { Ok(()) } else { self.check_changed(changed) }
            }
            Control::NeedFull { partition } if partition.index() >= self.store.partition_count() => {
                Err(PeerFault::Malformed { why: "it names a partition that does not exist" })
            }
            Control::Repair(Repair::Snapshot(snapshot)) => {
                self.check_ctxs(&[(snapshot.partition, snapshot.ctx.clone())])
            }
            Control::Repair(repair) if repair.partition().index() >= self.store.partition_count() => {
                Err(PeerFault::Malformed { why: "it names a partition that does not exist" })
            }
            Control::Hello(_)
            | Control::Ready { .. }
            | Control::Join { .. }
            | Control::JoinDone { .. }
            | Control::Report { .. }
            | Control::Told { .. }
            | Control::ReportNow
            | Control::NeedFull { .. }
            | Control::Repair(_)
            | Control::Twin { .. }
            | Control::Fetch { .. }
            | Control::Missing { .. }
            | Control::Ask { .. }
            | Control::Goodbye => Ok(()),
        }
    }

    fn on_report(&mut self, now: Now, link: LinkId, changed: Vec<(PartitionId, Vec<(ReplicaId, Seen)>)>) {
        if let Some(session) = self.session_mut(link) {
            session.asked = false;
        }
        for (partition, news) in changed {
            let mut ctx = Ctx::default();
            news.iter().for_each(|(replica, seen)| ctx.add_seen(*replica, seen));
            self.note_report(link, partition, &ctx);
            self.touched.insert(partition);
        }
        self.timers.start_report(now.mono, self.config.replication.report_every);
        self.pump(link);
    }

    /// A peer speaks only for itself: its report counts for its own replica.
    fn note_report(&mut self, link: LinkId, partition: PartitionId, ctx: &Ctx) {
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return };
        session.peer.report(partition, ctx);
        if let Some(mut p) = self.store.lock(partition) {
            p.report(session.replica, ctx);
            if planted!(ForgedReportCounts) {
                ctx.iter().for_each(|(replica, _)| p.report(replica, ctx));
            }
        }
        let done = self.waits.check(partition, &self.store, &self.members, self.expected());
        self.resolve(done);
    }

    pub(super) fn on_frame(&mut self, now: Now, link: LinkId, bytes: &Bytes) {
        let Some(place) = self.links.get_mut(&link) else { return };
        let Some(session) = place.session.as_deref_mut() else { return place.early.keep(bytes) };
        session.beats.heard(now.mono);
        session.traffic.frames_in += 1;
        session.traffic.bytes_in += u64::try_from(bytes.len()).unwrap_or(0);
        let replica = session.replica;
        let frame = match self.decoder.decode_frame(bytes, self.store.spaces(), &self.limits) {
            Ok(frame) => frame,
            Err(fault) => return self.fault(link, fault),
        };
        if frame.from != replica {
            sometimes!(ForgedOriginRefused);
            let (claimed, proven) = (frame.from.to_string(), replica.to_string());
            return self.fault(link, PeerFault::Identity { claimed, proven });
        }
        if let Err(fault) = self.check_frame(&frame) {
            return self.fault(link, fault);
        }
        self.received_bytes += bytes.len();
        let ahead_ms = frame.hlc.ms().saturating_sub(now.wall_ms);
        let max_ms = self.max_drift_ms();
        if ahead_ms > max_ms.saturating_mul(10) {
            sometimes!(FrameFarAheadRefused);
            return self.fault(link, PeerFault::ClockDrift { ahead_ms, max_ms });
        }
        if ahead_ms > max_ms && planted!(FutureApplied) {
            return self.apply(now, link, frame);
        }
        if ahead_ms > max_ms && planted!(FutureClamped) {
            return self.apply(now, link, Frame { hlc: Hlc::from_ms(now.wall_ms + max_ms), ..frame });
        }
        if ahead_ms > max_ms {
            self.stats.penned_frames += 1;
            self.pen.keep(frame.hlc.ms() - max_ms, link, bytes);
            return;
        }
        self.apply(now, link, frame);
    }

    /// Lets the frames out of the pen whose time has come.
    pub(super) fn release(&mut self, now: Now) {
        if planted!(PenNeverReleases) {
            return;
        }
        for (link, bytes) in self.pen.release(now.wall_ms) {
            self.on_frame(now, link, &bytes);
        }
    }

    fn apply(&mut self, now: Now, link: LinkId, frame: Frame) {
        let joined = self.join.is_joined();
        let urgent = self.session_mut(link).is_some_and(|s| s.urgent);
        if !joined && !self.join.is_donor(link) {
            return;
        }
        if !planted!(StampsNotObserved) {
            self.store.clock().observe(frame.hlc);
        }
        for part in frame.parts {
            match part {
                Part::Batch(batch) if joined || self.join.resumes(batch.partition) => {
                    self.apply_batch(now, link, &batch);
                }
                Part::Batch(_) => {}
                Part::Answer(Answer { question, batch }) if joined => {
                    if self.apply_batch(now, link, &batch) {
                        self.on_answer(now, link, question, &batch);
                    }
                }
                Part::Answer(_) => {}
                Part::Restore(restore) if joined => self.on_restore(now, link, &restore),
                Part::Restore(_) => {}
                Part::FullChunk(chunk) => self.stage(now, link, chunk),
            }
        }
        sometimes!(UrgentReport, if urgent);
        sometimes!(ReportForBytes, if self.received_bytes >= REPORT_BYTES);
        if urgent || self.received_bytes >= REPORT_BYTES {
            self.report(now);
        } else if !planted!(IdleNeverReports) {
            self.timers.start_report(now.mono, self.config.replication.report_every);
        }
    }

    /// Joins a batch in; returns whether all of it was.
    fn apply_batch(&mut self, now: Now, link: LinkId, batch: &Batch) -> bool {
        let antedated = (planted!(FetchedStale) && self.is_fetching(batch)).then(|| self.antedated(batch));
        let batch = antedated.as_ref().unwrap_or(batch);
        let around = Around { spaces: self.store.spaces(), collect_before_ms: self.collect_before_ms(now) };
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return false };
        let Some(mut partition) = self.store.lock(batch.partition) else { return false };
        let replica = session.replica;
        let lags = lags(session.replica, batch, partition.ctx(), now.wall_ms);
        sometimes!(FrameOvertaken, if session.peer.known(batch.partition).is_some_and(|known| !batch.ctx.includes(known)));
        let result = partition.apply(session.replica, batch, &around);
        let is_late = session.peer.known(batch.partition).is_some_and(|known| known.includes(partition.frontier()));
        drop(partition);
        match result {
            Ok(applied) => {
                for ms in lags {
                    session.lag.record(ms);
                    session.recent_lag.record(now.mono, ms);
                }
                session.traffic.fragments_in += u64::try_from(batch.fragments.len()).unwrap_or(0);
                session.traffic.news_in += applied.news;
                let is_whole = applied.is_whole();
                self.note_report(link, batch.partition, &batch.ctx);
                self.applied(now, replica, batch.partition, applied);
                self.note_fetched(batch);
                self.try_finish(now);
                return is_whole;
            }
            // The sender has long seen more: a lost packet delayed this batch until it was stale. It
            // must not wait for the sender to wonder why its writes are never reported.
            Err(Refused::Stale) if is_late || !self.join.is_joined() => {
                sometimes!(LateBatchAskedForAgain);
                self.stats.stale_batches += 1;
                self.ask_again(link, batch.partition);
            }
            Err(Refused::Stale) => {
                sometimes!(StaleSenderSynchronised);
                self.stats.stale_batches += 1;
                session.peer.synchronise(batch.partition);
                if !self.fence_orphans(now, link) {
                    self.pump(link);
                }
            }
            // What lies between comes again by itself, and then this.
            Err(Refused::Scattered | Refused::Part) => {}
        }
        false
    }

    fn stage(&mut self, now: Now, link: LinkId, chunk: FullChunk) {
        let partition = chunk.partition;
        let Some(session) = self.session_mut(link) else { return };
        let is_part = session.is_edge;
        match session.staging.add(now.mono, chunk) {
            Staged::Waiting => {}
            Staged::Whole(full) => self.apply_full(now, link, &Full { is_part, ..*full }),
            Staged::Broken => {
                sometimes!(ChunkMissing);
                self.ask_again(link, partition);
            }
            Staged::Full => {
                let max = u64::try_from(crate::node::link::STAGED_BYTES_MAX).unwrap_or(u64::MAX);
                self.fault(link, PeerFault::OverLimit { what: "a staged synchronisation", len: max, max });
            }
        }
    }

    fn apply_full(&mut self, now: Now, link: LinkId, full: &Full) {
        let partition = full.batch.partition;
        if self.mixes_donors(now, full) {
            return;
        }
        let around = Around { spaces: self.store.spaces(), collect_before_ms: self.collect_before_ms(now) };
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return };
        let Some(mut p) = self.store.lock(partition) else { return };
        let theirs = session.replica;
        let result = p.apply_full(session.replica, full, &around);
        let is_late = session.peer.known(partition).is_some_and(|known| known.includes(p.frontier()));
        let has_all = p.ctx().includes(&full.batch.ctx);
        let joins = !self.join.is_joined() && !planted!(OrphansTrusted);
        let mutual = !p.ctx().includes(&full.frontier);
        drop(p);
        match result {
            Ok(applied) => {
                session.stale_fulls.remove(&partition);
                self.stats.full_syncs += 1;
                self.note_report(link, partition, &full.batch.ctx);
                self.applied(now, theirs, partition, applied);
                if !full.is_part {
                    self.note_fetched_with(partition);
                }
                self.on_received(now, partition);
                self.fence_orphans(now, link);
            }
            // What the sender found stable here is not: it cannot know better until it hears it from this side.
            Err(Refused::Part) if full.is_rest => self.ask_again(link, partition),
            // Those that hold everything give it.
            Err(Refused::Scattered | Refused::Part) => {}
            Err(Refused::Stale) if is_late => {
                sometimes!(LateFullAskedForAgain);
                self.ask_again(link, partition);
            }
            // A joiner whose former donor had more than this one: it lacks nothing, and this one is given the rest.
            Err(Refused::Stale) if has_all => {
                session.peer.synchronise(partition);
                self.on_received(now, partition);
                self.pump(link);
            }
            // Or had deleted and forgotten what this one has: neither can tell.
            Err(Refused::Stale) if joins => self.begin_again(now),
            Err(Refused::Stale) => {
                let stale = session.stale_fulls.entry(partition).or_default();
                *stale += 1;
                let unrelated = *stale > if mutual { MUTUAL_FULLS_MAX } else { STALE_FULLS_MAX };
                session.peer.synchronise(partition);
                // It is the edge that gives way, whoever is the lower.
                if unrelated && self.is_edge() {
                    // Of two edges neither can tell: who holds everything settles it.
                    if !full.is_part {
                        self.begin_again(now);
                    }
                    return;
                }
                if unrelated && let Some(region) = self.links.get(&link).map(|l| l.identity.region.clone()) {
                    self.fault(link, PeerFault::SplitHistory { partition, region });
                    if mutual {
                        self.outlast(now, theirs);
                    }
                } else if !self.fence_orphans(now, link) {
                    self.pump(link);
                }
            }
        }
    }

    /// Asks a peer to send a partition again, once between two reports: every late frame of it would ask.
    fn ask_again(&mut self, link: LinkId, partition: PartitionId) {
        if self.session_mut(link).is_some_and(|s| s.asked_again.insert(partition)) {
            self.send_control(link, &Control::NeedFull { partition });
        } else {
            sometimes!(AskedOnlyOnce);
        }
    }

    pub(super) fn applied(&mut self, now: Now, from: ReplicaId, partition: PartitionId, applied: Applied) {
        self.news += 1;
        self.touched.insert(partition);
        for link in self.links.values_mut() {
            if let Some(session) = link.session.as_deref_mut() {
                session.reports.mark(partition);
            }
        }
        self.stats.conflicts += applied.conflicts;
        self.stats.quarantined += applied.quarantined;
        if !applied.changed.is_empty() {
            let change = |(keyspace, key)| Change { keyspace, key };
            self.out.push_back(Output::Changed(applied.changed.into_iter().map(change).collect()));
        }
        for replica in applied.duplicates {
            self.event(Event::DuplicateReplica { replica });
        }
        self.quarantine(now, from, partition, applied.rejected);
    }

    pub(super) fn on_beat(&mut self, now: Now, link: LinkId, bytes: &Bytes) {
        let beat: Beat = match self.decoder.decode_beat(bytes, &self.limits) {
            Ok(beat) => beat,
            Err(fault) => return self.fault(link, fault),
        };
        let Some(session) = self.session_mut(link).filter(|s| s.replica == beat.replica) else { return };
        let mut news = false;
        if session.beats.on_beat(now.mono, beat.seq, beat.sent_ns, beat.echo) {
            session.beats.on_clock(beat.wall_ms, now.wall_ms);
            news = session.suspects.as_ref() != Some(&beat.suspects) || session.gives_up != beat.gives_up;
            session.suspects = Some(beat.suspects);
            session.gives_up = beat.gives_up;
            session.load = beat.load;
        }
        self.note_consent(link);
        if news {
            self.judge_members(now);
        }
    }
}

/// Returns how many milliseconds each of the sender's own writes took to get here. Only what is new
/// here counts, and only what carries the stamp of its own event: a touch carries its value's.
fn lags(sender: ReplicaId, batch: &Batch, seen: &Ctx, wall_ms: u64) -> Vec<u64> {
    let written = |fragment: &Fragment| {
        let cell = fragment.cell.as_ref().map(|c| (c.dot(), c.stamp().hlc));
        let elems = fragment.branch.elems.iter().flat_map(|(_, siblings)| siblings).map(|e| (e.dot, e.stamp.hlc));
        let own = |(dot, _): &(Dot, Hlc)| dot.replica == sender && !seen.has(*dot);
        cell.into_iter().chain(elems).filter(own).map(|(_, hlc)| hlc.ms()).max()
    };
    batch.fragments.iter().filter_map(written).map(|ms| wall_ms.saturating_sub(ms)).collect()
}
