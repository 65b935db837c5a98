//! When copies are compared, and with whom; what is done with what is found.
//!
//! Of each pair the lower replica asks: a second after the link is up, then every `repair.every`, a second after a
//! comparison that was not finished, and whenever a caller wants all of it compared now.
//!
//! # Invariants
//! * What is given is paid for at `repair.bytes_per_second` before more is given, and stays within the link's window, so writes
//!   do not wait behind it. Answers go at once, as a peer waits for them, and are paid for like anything else.
//! * Who asks for a comparison is told within the time it named, and nothing as compared that was not compared since it asked.
//! * In health nothing is found: whatever is, is an event and is counted.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now};
use crate::id::ReplicaId;
use crate::node::Node;
use crate::node::event::Event;
use crate::node::input::LinkId;
use crate::node::link::Session as NodeSession;
use crate::node::output::Output;
use crate::probe::sometimes;
use crate::repair::run::Progress;
use crate::repair::session::{At, Step};
use crate::repair::{Budget, Found, Run, Session};
use crate::store::Around;
use crate::wire::{Control, Part, Repair, Restore};

/// How soon partitions are compared again that could not be, or that differed: a round trip and what it takes to join in.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How soon after a link came up.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// How many comparisons that somebody asked for go on at once: each keeps a note of every partition and peer. Who asks for a
/// further one is told at once that nothing was compared.
const RUNS_MAX: usize = 16;

/// Counters of comparisons since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepairStats {
    /// Comparisons of all partitions with one peer that this node began.
    pub comparisons: u64,
    /// Partitions found equal to a peer's, both sides' comparisons counted.
    pub verified: u64,
    /// Partitions of which nothing could be said, because one side had seen too much more, or keys changed meanwhile.
    pub unverified: u64,
    /// Keys found to differ although the contexts were equal. Zero in health.
    pub differences: u64,
    /// Keys restored here from a peer. Zero in health.
    pub restored: u64,
    /// Bytes sent to compare.
    pub overhead_bytes: u64,
    /// Bytes of frames sent to restore.
    pub payload_bytes: u64,
}

/// Names a comparison that somebody asked for. The caller makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RepairId(pub u64);

/// How far a comparison that somebody asked for has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Partitions found equal, once for each peer.
    pub verified: usize,
    /// Partitions that cannot be compared as a whole, as three comparisons in a row have shown: an edge has given something of
    /// them back, or something of them is written to without pause. Nothing else in them differed the last time.
    pub spared: usize,
    /// Partitions that were not found equal because the link to the peer has ended. They are gone on with if the same peer
    /// links again in time.
    pub parted: usize,
    /// Of so many.
    pub of: usize,
    /// Keys found to differ.
    pub differences: u64,
    /// Bytes sent for it, to compare and to restore.
    pub bytes: u64,
}

impl RepairReport {
    /// Tells whether all partitions were found equal to those of all peers that had a link, of which there was one at least, as
    /// far as they can be compared: [`RepairReport::spared`] counts those of which a part was left out. Where that is zero,
    /// everything was found equal.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.of > 0 && self.verified + self.spared == self.of
    }
}

/// A comparison that somebody asked for.
#[derive(Debug)]
struct Asked {
    id: RepairId,
    run: Run,
    before: RepairStats,
}

/// What this node compares.
#[derive(Debug)]
pub(super) struct Repairs {
    rng: fastrand::Rng,
    budget: Budget,
    /// When the budget has room for who waits for more.
    room_at: Option<Mono>,
    /// Who was given something last: the next one is another.
    given: LinkId,
    /// In the order in which they were asked for.
    asked: Vec<Asked>,
}

impl Repairs {
    pub(super) fn new(seed: u64, bytes_per_second: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed.rotate_left(32));
        Self { rng, budget: Budget::new(bytes_per_second), room_at: None, given: LinkId(0), asked: Vec::new() }
    }

    /// Returns when something is to be given, or somebody is to be told, whatever happens meanwhile.
    pub(super) fn due(&self) -> Option<Mono> {
        self.asked.iter().map(|asked| asked.run.until()).chain(self.room_at).min()
    }
}

/// Returns when the copies of a link that is up now are first compared.
pub(super) fn first_due(now: Mono) -> Mono {
    now.plus(FIRST_AFTER)
}

impl Node {
    /// Returns how far the comparison that was asked for last has come, as long as it goes on.
    #[must_use]
    pub fn repair_progress(&self) -> Option<RepairReport> {
        self.repairs.asked.last().map(|asked| self.report_of(asked))
    }

    fn report_of(&self, asked: &Asked) -> RepairReport {
        let Progress { verified, spared, parted, of } = asked.run.progress(|peer| self.compares_with(peer));
        let (now, before) = (&self.stats.repair, &asked.before);
        let bytes = |stats: &RepairStats| stats.overhead_bytes + stats.payload_bytes;
        let differences = now.differences - before.differences;
        RepairReport { verified, spared, parted, of, differences, bytes: bytes(now) - bytes(before) }
    }

    /// The links over which copies are compared: none before this node has joined, and none with who has not.
    fn compared(&self) -> impl Iterator<Item = (LinkId, &NodeSession)> {
        let compares = self.join.is_joined() && !self.stopping;
        self.sessions().filter(move |(_, session)| compares && session.joined)
    }

    fn compares_with(&self, peer: ReplicaId) -> bool {
        self.compared().any(|(_, session)| session.replica == peer)
    }

    /// Compares all partitions with all peers, until they are equal or `within` has passed.
    pub(super) fn on_repair(&mut self, now: Now, id: RepairId, within: Duration) {
        let (links, peers): (Vec<LinkId>, Vec<ReplicaId>) = self.compared().map(|(link, s)| (link, s.replica)).unzip();
        let run = Run::new(now.mono.plus(within), peers.into_iter(), self.store.partition_ids());
        let asked = Asked { id, run, before: self.stats.repair };
        if self.repairs.asked.len() >= RUNS_MAX {
            let report = self.report_of(&asked);
            return self.out.push_back(Output::Repaired { id, report });
        }
        self.repairs.asked.push(asked);
        links.into_iter().for_each(|link| self.compare_again(link, now.mono));
        self.repair(now);
    }

    fn compare_again(&mut self, link: LinkId, at: Mono) {
        if let Some(session) = self.session_mut(link) {
            session.repair_due = session.repair_due.min(at);
        }
    }

    /// Begins what is due, goes on with what waited, and ends what took too long.
    pub(super) fn repair(&mut self, now: Now) {
        let links: Vec<LinkId> = self.compared().map(|(link, _)| link).collect();
        for link in links {
            if let Some(step) = self.converse(now, link, |session, at| session.tick(at)) {
                self.carry_out(now, link, step);
            }
            self.begin_comparison(now, link);
        }
        self.give(now);
        self.end_asked(now);
    }

    /// Tells those who asked what came of it.
    fn end_asked(&mut self, now: Now) {
        let may_come = |peer| self.compares_with(peer) || self.members.get(peer).is_some();
        let is_over = |asked: &Asked| asked.run.is_over(now.mono, may_come);
        let over: Vec<RepairId> = self.repairs.asked.iter().filter(|a| is_over(a)).map(|a| a.id).collect();
        let tell = |asked: &Asked| Output::Repaired { id: asked.id, report: self.report_of(asked) };
        let told: Vec<Output> = self.repairs.asked.iter().filter(|a| over.contains(&a.id)).map(tell).collect();
        self.repairs.asked.retain(|asked| !over.contains(&asked.id));
        self.out.extend(told);
    }

    fn begin_comparison(&mut self, now: Now, link: LinkId) {
        let is_due = |s: &&mut NodeSession| s.repair_due <= now.mono && !s.repair.is_asking();
        let Some(peer) = self.session_mut(link).filter(is_due).map(|session| session.replica) else { return };
        let wanted = self.repairs.asked.iter().any(|asked| asked.run.expects(peer));
        let next = if wanted { Some(AGAIN_AFTER) } else { self.config.repair.every };
        let Some(next) = next.filter(|_| wanted || self.me.replica < peer) else { return };
        let jitter = next.mul_f64(0.9 + 0.2 * self.repairs.rng.f64());
        let salt = self.repairs.rng.u64(..);
        if let Some(session) = self.session_mut(link) {
            session.repair_due = now.mono.plus(jitter);
        }
        self.stats.repair.comparisons += 1;
        self.repairs.asked.iter_mut().for_each(|asked| asked.run.begin(peer));
        let send = self.converse(now, link, |session, at| session.verify(at, salt)).unwrap_or_default();
        self.carry_out(now, link, Step { send, ..Step::default() });
    }

    /// Takes a message of a peer's in.
    pub(super) fn on_repair_message(&mut self, now: Now, link: LinkId, message: Repair) {
        let joined = self.join.is_joined() && self.session_mut(link).is_some_and(|s| s.joined);
        if !joined {
            return;
        }
        if let Some(step) = self.converse(now, link, |session, at| session.on(at, message)) {
            self.carry_out(now, link, step);
        }
        self.give(now);
    }

    fn converse<R>(&mut self, now: Now, link: LinkId, f: impl FnOnce(&mut Session, At<'_>) -> R) -> Option<R> {
        let store = Arc::clone(&self.store);
        let visible_ms = store.clock().visible_ms(now.wall_ms);
        let session = self.session_mut(link)?;
        Some(f(&mut session.repair, At { mono: now.mono, visible_ms, store: &store }))
    }

    fn carry_out(&mut self, now: Now, link: LinkId, step: Step) {
        for message in step.send {
            let bytes = self.send_control(link, &Control::Repair(message));
            self.stats.repair.overhead_bytes += u64::try_from(bytes).unwrap_or(0);
        }
        if let Some(peer) = self.session_mut(link).map(|session| session.replica) {
            for (id, compared) in step.compared {
                if let Some(mut partition) = self.store.lock(id) {
                    partition.note_compared(peer, compared);
                }
            }
        }
        for found in step.found {
            self.note_found(now, link, found);
        }
    }

    fn note_found(&mut self, now: Now, link: LinkId, found: Found) {
        if let Some(peer) = self.session_mut(link).map(|session| session.replica) {
            self.repairs.asked.iter_mut().for_each(|asked| asked.run.note(peer, found));
        }
        let counters = &mut self.stats.repair;
        match found {
            Found::Verified(_) => counters.verified += 1,
            Found::Spared(_) | Found::Lagging(_) => counters.unverified += 1,
            Found::Elusive(_) => {
                counters.unverified += 1;
                self.compare_again(link, now.mono.plus(AGAIN_AFTER));
            }
            Found::Differs(partition, keys) => {
                counters.differences += keys;
                self.compare_again(link, now.mono.plus(AGAIN_AFTER));
                if let Some((node, region)) =
                    self.links.get(&link).map(|l| (l.identity.node, l.identity.region.clone()))
                {
                    self.event(Event::Differs { node, region, partition, keys });
                }
            }
        }
    }

    /// Gives peers what they were found to lack, as far as the budget and their links have room, each in its turn.
    fn give(&mut self, now: Now) {
        let (window, store) = (self.config.replication.link_window_bytes, Arc::clone(&self.store));
        let mut links: Vec<LinkId> = self.compared().filter(|(_, s)| s.repair.owes()).map(|(link, _)| link).collect();
        let next = links.partition_point(|link| *link <= self.repairs.given);
        links.rotate_left(next);
        for link in links {
            while self.repairs.budget.is_free(now.mono) {
                let Some(session) = self.session_mut(link).filter(|s| s.peer.has_room(window)) else { break };
                let Some(gift) = session.repair.next_gift(&store) else { break };
                self.restore_at(now, link, gift);
                self.repairs.given = link;
            }
        }
        let waits = !self.repairs.budget.is_free(now.mono) && self.compared().any(|(_, s)| s.repair.owes());
        self.repairs.room_at = waits.then_some(self.repairs.budget.paid_at());
    }

    fn restore_at(&mut self, now: Now, link: LinkId, gift: Restore) {
        if gift.fragments.is_empty() {
            return;
        }
        let before = self.stats.bytes_out;
        self.send_part(link, Part::Restore(gift));
        let bytes = self.stats.bytes_out - before;
        self.stats.repair.payload_bytes += bytes;
        self.repairs.budget.spend(now.mono, bytes);
    }

    /// Joins in what a comparison found a peer to hold.
    pub(super) fn on_restore(&mut self, now: Now, link: LinkId, restore: &Restore) {
        let around = Around { spaces: self.store.spaces(), collect_before_ms: self.collect_before_ms(now) };
        let visible_ms = self.store.clock().visible_ms(now.wall_ms);
        let id = restore.partition;
        let Some(session) = self.links.get(&link).and_then(|l| l.session.as_deref()) else { return };
        let frozen = session.repair.frozen(id).filter(|frozen| visible_ms <= frozen.horizon_ms);
        let (Some(frozen), Some(mut partition)) = (frozen, self.store.lock(id)) else { return };
        let from = session.replica;
        let restored = partition.restore(frozen, &restore.fragments, &around);
        drop(partition);
        sometimes!(CopyRestored, if restored.keys > 0);
        sometimes!(RestoreAnswered, if !restored.answers.is_empty() && !restore.is_answer);
        self.stats.repair.restored += restored.keys;
        self.applied(now, from, id, restored.applied);
        if restored.keys > 0
            && let Some((node, region)) = self.links.get(&link).map(|l| (l.identity.node, l.identity.region.clone()))
        {
            self.event(Event::Restored { node, region, partition: id, keys: restored.keys });
        }
        if !restore.is_answer {
            self.restore_at(now, link, Restore { partition: id, is_answer: true, fragments: restored.answers });
        }
    }
}
