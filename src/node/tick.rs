//! Timers: a table per node, pulled through `next_deadline`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::{Mono, Now};
use crate::crdt::Ctx;
use crate::id::ReplicaId;
use crate::membership::{Reach, Verdict};
use crate::node::Node;
use crate::node::dial::Due;
use crate::node::input::LinkId;
use crate::node::missing::{Here, Missing};
use crate::node::output::{CloseCode, Output};
use crate::probe::{planted, sometimes};
use crate::wire::Beat;

/// How often expired entries are swept: a tenth of a second late is never visible, reads check.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// How long a write of a third party may be missing at a peer before it is relayed: longer than a
/// slow path plus a retransmission plus the report that acknowledges it.
const RELAY_AFTER: Duration = Duration::from_secs(1);
/// How long a link may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// When what is due next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    pub(super) report: Option<Mono>,
    beat: Mono,
    sweep: Mono,
    relay: Mono,
}

impl Timers {
    pub(super) fn start_report(&mut self, now: Mono, every: Duration) {
        self.report.get_or_insert_with(|| now.plus(every));
    }

    fn next(&self) -> Mono {
        let fixed = self.beat.min(self.sweep).min(self.relay);
        self.report.map_or(fixed, |at| at.min(fixed))
    }
}

impl Node {
    /// Returns when [`Input::Deadline`](crate::node::Input::Deadline) is to be handled next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let dials = self.slots.next_deadline().filter(|_| self.dials());
        let solo = self.solo_deadline().filter(|at| *at > self.last);
        let waits = [self.waits.next_deadline(), self.reads.next_deadline(), self.repairs.due()];
        let dynamic = [self.outbox.due(), dials, solo, self.past.due()].into_iter().chain(waits);
        dynamic.flatten().chain([self.timers.next()]).min()
    }

    /// Does what is due. Runs after every input, so that a late deadline input delays nothing.
    pub(super) fn run_due(&mut self, now: Now) {
        if self.outbox.due().is_some_and(|at| at <= now.mono) {
            self.flush(now);
        }
        if self.timers.report.is_some_and(|at| at <= now.mono) {
            self.report(now);
        }
        if self.past.due().is_some_and(|at| at <= now.mono) {
            self.come_back(now);
        }
        if self.timers.beat <= now.mono {
            self.beat(now);
        }
        if self.timers.sweep <= now.mono {
            self.timers.sweep = now.mono.plus(SWEEP_EVERY);
            self.sweep(now);
            self.release(now);
            self.repair(now);
            self.look_after_fetches(now);
            self.look_after_reads(now);
            self.keep_warm(now);
        }
        if self.repairs.due().is_some_and(|at| at <= now.mono) {
            self.repair(now);
        }
        if self.timers.relay <= now.mono {
            self.timers.relay = now.mono.plus(RELAY_AFTER);
            self.relay(now);
            self.make_way(now);
            self.look_at_certificate(now);
        }
        if self.waits.next_deadline().is_some_and(|at| at <= now.mono) {
            let done = self.waits.expire(now.mono, &self.store, &self.members, self.expected());
            sometimes!(WaitTimedOut, if !done.is_empty());
            self.resolve(done);
        }
        if self.reads.next_deadline().is_some_and(|at| at <= now.mono) {
            self.expire_reads(now);
        }
        if self.solo_deadline().is_some_and(|at| at <= now.mono) {
            self.seek(now);
        }
        if self.slots.next_deadline().is_some_and(|at| at <= now.mono) {
            self.dial(now);
        }
    }

    fn dials(&self) -> bool {
        !self.stopping && !self.is_removed()
    }

    fn dial(&mut self, now: Now) {
        let links = &self.links;
        let connected = |node| links.values().any(|l| l.session.is_some() && l.identity.node == node);
        let due = if self.dials() { self.slots.due(now.mono, connected) } else { Vec::new() };
        let dial = |Due { slot, address, attempt }| Output::Dial { slot, address, attempt };
        self.out.extend(due.into_iter().map(dial));
    }

    /// Forgives everybody's silence while this node itself stood still, before anything else is taken in: what is heard now
    /// is heard now, and what anybody suspected before is no news any more.
    pub(super) fn forgive_lateness(&mut self, now: Now) {
        let late = now.mono.since(self.timers.beat);
        if self.timers.beat == Mono::default() || late <= self.config.membership.beat_every * 2 {
            return;
        }
        self.timers.beat = now.mono;
        for session in self.links.values_mut().filter_map(|link| link.session.as_deref_mut()) {
            session.beats.forgive(now.mono, late);
            session.suspects = None;
        }
        self.liveness.forgive(late);
        self.outages.forgive(late);
        self.part.forgive(late);
    }

    fn beat(&mut self, now: Now) {
        self.timers.beat = now.mono.plus(self.config.membership.beat_every);
        // What is suspected now is said at once.
        self.judge_silences(now);
        self.judge_members(now);
        self.look_after_the_active(now);
        let (suspects, gives_up) = (self.liveness.suspects(), self.given_up(now));
        let (replica, hlc, load) = (self.me.replica, self.store.clock().last(), self.load);
        let mut beats = Vec::new();
        for (id, link) in &mut self.links {
            let Some(session) = link.session.as_deref_mut() else { continue };
            let (seq, echo) = (session.beats.next_seq(), session.beats.echo(now.mono));
            let (suspects, gives_up) = (suspects.clone(), gives_up.clone());
            let (sent_ns, wall_ms) = (now.mono.0, now.wall_ms);
            let beat = Beat { replica, seq, hlc, sent_ns, echo, wall_ms, load, suspects, gives_up };
            beats.push(Output::Beat { link: *id, bytes: self.encoder.encode_beat(&beat) });
        }
        self.out.extend(beats);
    }

    fn judge_silences(&mut self, now: Now) {
        let m = &self.config.membership;
        let mut lost: Vec<LinkId> = Vec::new();
        for (id, link) in &mut self.links {
            let Some(session) = link.session.as_deref_mut() else {
                if now.mono.since(link.since) > HELLO_WITHIN {
                    sometimes!(HelloNeverCame);
                    lost.push(*id);
                }
                continue;
            };
            let patience = session.beats.patience(m.suspect_after, m.beat_every);
            let verdict = session.beats.verdict(now.mono, patience, m.give_up_after.max(patience));
            session.up = verdict == Verdict::Up;
            if verdict == Verdict::GiveUp {
                sometimes!(PeerGivenUp);
                lost.push(*id);
            }
        }
        self.judge_partings(now);
        for link in lost {
            self.close(link, CloseCode::Silent, "silent for too long");
        }
    }

    fn sweep(&mut self, now: Now) {
        let now_ms = self.store.clock().visible_ms(now.wall_ms);
        let before_ms = self.collect_before_ms(now);
        for id in self.store.partition_ids() {
            let due = self.store.read(id).and_then(|p| p.next_expiry()).is_some_and(|at| at <= now_ms);
            if due
                && let Some(mut partition) = self.store.lock(id)
                && partition.sweep(now_ms, self.store.spaces(), before_ms)
            {
                self.timers.sweep = now.mono;
            }
        }
    }

    /// Gives peers what they have lacked for [`RELAY_AFTER`] and nobody else gives them, whoever wrote it, sends again what
    /// was sent and never reported, and collects what grew old while nothing happened.
    fn relay(&mut self, now: Now) {
        let seen: Vec<_> = self
            .store
            .partition_ids()
            .filter_map(|id| self.store.read(id).map(|p| (id, p.ctx().without_marks())))
            .collect();
        let before = std::mem::replace(&mut self.seen_before, seen);
        // Whoever is heard here and there as well serves its own writes.
        let is_up = |replica: &ReplicaId| self.reach(*replica) == Some(Reach::Up);
        let up: BTreeSet<ReplicaId> = self.members.live().map(|(replica, _)| replica).filter(is_up).collect();
        let mut behind = Vec::new();
        for (id, link) in &mut self.links {
            let Some(session) = link.session.as_deref_mut().filter(|s| s.receives()) else { continue };
            Missing::look(now.mono, session, &Here { store: &self.store, quarantine: &self.quarantine });
            let has = |id, ctx: &Ctx| self.store.read(id).is_some_and(|p| p.ctx().includes(ctx));
            session.staging.forget_stalled(now.mono, |id, ctx| self.join.is_joined() && has(id, ctx));
            session.peer.check_progress(now.mono, &self.store, !session.joined);
            if !self.join.is_joined() {
                session.asked_again.clear();
            }
            if !session.joined {
                behind.push(*id);
                continue;
            }
            let suspects = session.suspects.as_ref();
            let hears = |origin| up.contains(&origin) && suspects.is_some_and(|suspects| !suspects.contains(&origin));
            for (partition, ctx) in &before {
                if session.peer.is_left_behind(*partition, ctx, hears) && !planted!(NeverRelays) {
                    session.peer.catch_up(*partition, &self.store, true);
                }
            }
            behind.push(*id);
        }
        behind.into_iter().for_each(|link| self.pump(link));
        self.forget_silent_copies(now);
        self.reissue(now, false);
        self.release_quarantine();
        self.collect(now, self.store.partition_ids());
    }
}
