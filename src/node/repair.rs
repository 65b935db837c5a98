//! When copies are compared, and with whom; what is done with what is found.
//!
//! Of each pair the lower replica asks: a second after the link is up, then every `repair.every`, a second after a
//! comparison that was not finished, and whenever a caller wants all of it compared now.
//!
//! # Invariants
//! * What is given back stays within `repair.bytes_per_second` and the link's window, so writes do not wait behind it.
//! * In health nothing is found: whatever is, is an event and is counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Now};
use crate::id::PartitionId;
use crate::node::Node;
use crate::node::event::Event;
use crate::node::input::LinkId;
use crate::node::output::Output;
use crate::probe::sometimes;
use crate::repair::session::{At, Step};
use crate::repair::{Found, Session};
use crate::store::Around;
use crate::wire::{Control, Part, Repair, Restore};

/// How soon partitions are compared again that could not be, or that differed: a round trip and what it takes to join in.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How soon after a link came up.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// Bytes that may be given at once, whatever the budget says: one frame.
const BURST_BYTES: u64 = 64 << 10;

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

/// How far a comparison that somebody asked for has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Partitions found equal, once for each peer.
    pub verified: usize,
    /// Of so many.
    pub of: usize,
    /// Keys found to differ.
    pub differences: u64,
    /// Bytes sent for it, to compare and to restore.
    pub bytes: u64,
}

impl RepairReport {
    /// Tells whether all partitions were found equal to those of all peers with a link, of which there was one at least.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.of > 0 && self.verified == self.of
    }
}

/// A comparison that somebody asked for.
#[derive(Debug)]
struct Run {
    open: BTreeSet<(LinkId, PartitionId)>,
    of: usize,
    before: RepairStats,
    until: Mono,
}

/// What this node compares.
#[derive(Debug)]
pub(super) struct Repairs {
    rng: fastrand::Rng,
    /// Bytes that may be given now, and when that was worked out.
    budget: (u64, Mono),
    run: Option<Run>,
}

impl Repairs {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed.rotate_left(32)), budget: (BURST_BYTES, Mono::default()), run: None }
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
        let run = self.repairs.run.as_ref()?;
        let (now, before) = (&self.stats.repair, &run.before);
        let bytes = |stats: &RepairStats| stats.overhead_bytes + stats.payload_bytes;
        Some(RepairReport {
            verified: run.of - run.open.len(),
            of: run.of,
            differences: now.differences - before.differences,
            bytes: bytes(now) - bytes(before),
        })
    }

    /// Compares all partitions with all peers, until they are equal or `within` has passed.
    pub(super) fn on_repair(&mut self, now: Now, within: Duration) {
        let links: Vec<LinkId> = self.sessions().filter(|(_, s)| s.joined).map(|(link, _)| link).collect();
        let all = links.iter().flat_map(|link| self.store.partition_ids().map(move |id| (*link, id)));
        let open: BTreeSet<(LinkId, PartitionId)> = all.collect();
        let until = now.mono.plus(within);
        let (of, before) = (open.len(), self.stats.repair);
        self.repairs.run = Some(Run { open, of, before, until });
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
        if !self.join.is_joined() || self.stopping {
            return;
        }
        let links: Vec<LinkId> = self.sessions().filter(|(_, s)| s.joined).map(|(link, _)| link).collect();
        for link in &links {
            if let Some(step) = self.converse(now, *link, |session, at| session.tick(at)) {
                self.carry_out(now, *link, step);
            }
            self.begin_comparison(now, *link);
            self.give(now, *link);
        }
        if let Some(run) = self.repairs.run.as_mut() {
            run.open.retain(|(link, _)| links.contains(link));
            if run.open.is_empty() || run.until <= now.mono {
                let report = self.repair_progress().unwrap_or_default();
                self.repairs.run = None;
                self.out.push_back(Output::Repaired(report));
            }
        }
    }

    fn begin_comparison(&mut self, now: Now, link: LinkId) {
        let wanted = self.repairs.run.as_ref().is_some_and(|run| run.open.iter().any(|(at, _)| *at == link));
        let (me, every) = (self.me.replica, self.config.repair.every);
        let Some(session) = self.session_mut(link).filter(|s| s.repair_due <= now.mono && !s.repair.is_asking()) else {
            return;
        };
        let next = if wanted { Some(AGAIN_AFTER) } else { every };
        let Some(next) = next.filter(|_| wanted || me < session.replica) else { return };
        let jitter = next.mul_f64(0.9 + 0.2 * self.repairs.rng.f64());
        let salt = self.repairs.rng.u64(..);
        if let Some(session) = self.session_mut(link) {
            session.repair_due = now.mono.plus(jitter);
        }
        self.stats.repair.comparisons += 1;
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
        self.give(now, link);
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
        let counters = &mut self.stats.repair;
        match found {
            Found::Verified(partition) => {
                counters.verified += 1;
                if let Some(run) = self.repairs.run.as_mut() {
                    run.open.remove(&(link, partition));
                }
            }
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

    /// Gives a peer what it was found to lack, as far as the budget and its link have room.
    fn give(&mut self, now: Now, link: LinkId) {
        let (window, store) = (self.config.replication.link_window_bytes, Arc::clone(&self.store));
        self.fill_budget(now.mono);
        while self.repairs.budget.0 > 0 {
            let Some(session) = self.session_mut(link).filter(|s| s.peer.has_room(window)) else { return };
            let Some(gift) = session.repair.next_gift(&store) else { return };
            self.restore_at(link, gift);
        }
    }

    fn fill_budget(&mut self, now: Mono) {
        let (left, since) = self.repairs.budget;
        let per_ms = self.config.repair.bytes_per_second / 1_000;
        let ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        if ms > 0 {
            self.repairs.budget =
                (left.saturating_add(ms.saturating_mul(per_ms)).min(BURST_BYTES.max(per_ms * 100)), now);
        }
    }

    fn restore_at(&mut self, link: LinkId, gift: Restore) {
        if gift.fragments.is_empty() {
            return;
        }
        let before = self.stats.bytes_out;
        self.send_part(link, Part::Restore(gift));
        let bytes = self.stats.bytes_out - before;
        self.stats.repair.payload_bytes += bytes;
        self.repairs.budget.0 = self.repairs.budget.0.saturating_sub(bytes);
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
            self.restore_at(link, Restore { partition: id, is_answer: true, fragments: restored.answers });
        }
    }
}
