//! A host: a machine with clocks of its own, and the process that runs on it or does not.
//!
//! # Invariants
//! * Its monotonic clock never runs back; it stands still while the machine is suspended.
//! * What it is told while it stands still it hears when it goes on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::newer;
use super::reads::Reads;
use crate::clock::{Mono, Now};
use crate::error::FetchError;
use crate::id::{NodeId, ReplicaId, Role};
use crate::node::{Event, FetchId, Gauges, Input, LinkId, Node, Outcome, PeerIdentity, RepairId, RepairReport, WaitId};

/// Wall clock of every host at virtual time zero.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How often the sizes of a node are looked at without a reason: every so many inputs.
const LOOK_EVERY: u32 = 32;
/// An input of so many bytes is a reason.
const LOOK_BYTES: usize = 2 * 1024;

/// Returns the wall clock nobody's is off from.
pub(super) fn true_ms(now: Mono) -> u64 {
    EPOCH_MS.saturating_add(now.0 / 1_000_000)
}

/// A machine that stands still.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    since: Mono,
    pub(super) until: Mono,
    /// Its monotonic clock stands still as well: the machine is suspended, not only the process stopped.
    suspended: bool,
}

/// A link that is up.
#[derive(Debug)]
pub(super) struct LinkNote {
    /// Who is at the other end.
    pub(super) peer: NodeId,
    /// The first message this side sent: its hello.
    pub(super) hello: Option<Bytes>,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Host {
    /// Who it is, as its configuration and its certificate say.
    pub(super) identity: PeerIdentity,
    /// What its certificate says instead, if it is not its own.
    pub(super) certificate: Option<PeerIdentity>,
    /// The configured host whose place it has: its own, unless it is a clone.
    pub(super) place: usize,
    /// How often it got another address.
    pub(super) moved: u8,
    /// It is a second process of another host's node.
    pub(super) is_clone: bool,
    /// It lies.
    pub(super) lies: bool,
    /// It speaks a later version.
    pub(super) newer: bool,
    /// Its process, if one runs.
    pub(super) node: Option<Node>,
    /// Until when a process that was stopped in order may flush what it sent.
    pub(super) leaving: Option<Mono>,
    /// The replica that runs, or ran last.
    pub(super) replica: Option<ReplicaId>,
    /// Those that ran before.
    pub(super) earlier: Vec<ReplicaId>,
    /// When its process has joined.
    pub(super) joined_at: Option<Mono>,
    /// Who its process copied, or copies.
    pub(super) donor: Option<NodeId>,
    /// Its process has just learnt that it was removed.
    pub(super) told_removed: bool,
    /// Its process has just handed everything over.
    pub(super) left: bool,
    /// What part its process last said that it plays.
    pub(super) role: Role,
    /// It was made active by hand.
    pub(super) ordered: bool,
    pub(super) links: BTreeMap<LinkId, LinkNote>,
    /// The last frame it sent.
    pub(super) last_frame: Option<Bytes>,
    /// Milliseconds its wall clock is ahead.
    pub(super) skew_ms: i64,
    pub(super) pause: Option<Pause>,
    /// How long its monotonic clock has stood still.
    pub(super) slept: Duration,
    /// What it was told while it stands still.
    pub(super) inbox: VecDeque<Input>,
    /// When it has to be looked after, in the cluster's time.
    pub(super) due: Option<Mono>,
    pub(super) events: Vec<Event>,
    pub(super) outcomes: BTreeMap<WaitId, Outcome>,
    pub(super) reads: Reads,
    pub(super) fetched: BTreeMap<FetchId, Result<(), FetchError>>,
    pub(super) repaired: BTreeMap<RepairId, RepairReport>,
    /// The largest sizes of its node so far.
    pub(super) high: Option<Gauges>,
    looked: u32,
}

impl Host {
    pub(super) fn new(identity: PeerIdentity, place: usize) -> Self {
        Self {
            identity,
            certificate: None,
            place,
            moved: 0,
            is_clone: false,
            lies: false,
            newer: false,
            node: None,
            leaving: None,
            replica: None,
            earlier: Vec::new(),
            joined_at: None,
            donor: None,
            told_removed: false,
            left: false,
            role: Role::Active,
            ordered: false,
            links: BTreeMap::new(),
            last_frame: None,
            skew_ms: 0,
            pause: None,
            slept: Duration::ZERO,
            inbox: VecDeque::new(),
            due: None,
            events: Vec::new(),
            outcomes: BTreeMap::new(),
            reads: Reads::default(),
            fetched: BTreeMap::new(),
            repaired: BTreeMap::new(),
            high: None,
            looked: 0,
        }
    }

    /// Returns what this host's clocks show.
    pub(super) fn now(&self, now: Mono) -> Now {
        let running = self.pause.filter(|pause| pause.suspended).map_or(now, |pause| pause.since);
        let slept = u64::try_from(self.slept.as_nanos()).unwrap_or(u64::MAX);
        let wall_ms = true_ms(now).saturating_add_signed(self.skew_ms);
        Now { mono: Mono(running.0.saturating_sub(slept)), wall_ms }
    }

    /// Returns when it has to be looked after next, in the cluster's time.
    pub(super) fn next_due(&self) -> Option<Mono> {
        if let Some(pause) = self.pause {
            return Some(pause.until);
        }
        if self.leaving.is_some() {
            return self.leaving;
        }
        Some(self.node.as_ref()?.next_deadline()?.plus(self.slept))
    }

    /// Tells whether a process here is or was a replica.
    pub(super) fn was(&self, replica: ReplicaId) -> bool {
        self.earlier.iter().chain(&self.replica).any(|was| *was == replica)
    }

    /// A process starts here.
    pub(super) fn begin(&mut self, node: Node) {
        self.earlier.extend(self.replica.replace(node.me().replica));
        self.node = Some(node);
        self.high = None;
    }

    /// The process here goes on as another replica.
    pub(super) fn go_on_as(&mut self, replica: ReplicaId) {
        self.earlier.extend(self.replica.replace(replica));
        self.joined_at = None;
        self.donor = None;
    }

    /// The process here is gone, and so is everything that was its own.
    pub(super) fn end(&mut self) {
        self.left = false;
        (self.role, self.ordered) = (Role::Active, false);
        self.node = None;
        self.leaving = None;
        self.joined_at = None;
        self.donor = None;
        self.links.clear();
        self.last_frame = None;
        self.inbox.clear();
    }

    /// The machine stands still.
    pub(super) fn stand_still(&mut self, now: Mono, until: Mono, suspended: bool) {
        self.pause = Some(Pause { since: now, until, suspended });
    }

    /// The machine goes on; returns what it was told meanwhile.
    pub(super) fn wake(&mut self, now: Mono) -> VecDeque<Input> {
        if let Some(pause) = self.pause.take()
            && pause.suspended
        {
            self.slept += now.since(pause.since);
        }
        std::mem::take(&mut self.inbox)
    }

    /// The first message of a link is its hello: what a later version would add to it is added here.
    pub(super) fn first_message(&mut self, link: LinkId, bytes: Bytes) -> Bytes {
        let Some(note) = self.links.get_mut(&link).filter(|note| note.hello.is_none()) else { return bytes };
        let hello = if self.newer { newer::hello(&bytes).unwrap_or(bytes) } else { bytes };
        note.hello = Some(hello.clone());
        hello
    }

    /// Looks at whom the node copies, and at its sizes now and then, and when much came in.
    pub(super) fn look(&mut self, bytes: usize) {
        if self.joined_at.is_none()
            && let Some(donor) = self.node.as_ref().and_then(Node::donor).and_then(|link| self.links.get(&link))
        {
            self.donor = Some(donor.peer);
        }
        self.looked += 1;
        if self.looked >= LOOK_EVERY || bytes >= LOOK_BYTES {
            self.look_now();
        }
    }

    /// Looks at the node's sizes.
    pub(super) fn look_now(&mut self) {
        self.looked = 0;
        let Some(gauges) = self.node.as_ref().map(Node::gauges) else { return };
        match &mut self.high {
            Some(high) => high.raise(&gauges),
            None => self.high = Some(gauges),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        let node = NodeId(uuid::Uuid::from_u128(1));
        Host::new(PeerIdentity { node, region: "r0".into(), expires_ms: u64::MAX }, 0)
    }

    #[test]
    fn a_suspended_machine_has_lost_no_time_by_its_monotonic_clock_and_all_of_it_by_the_wall() {
        let (start, end) = (Mono(1_000_000), Mono(601_000_000));
        for (suspended, mono) in [(true, start), (false, end)] {
            let mut host = host();
            host.stand_still(start, end, suspended);
            assert_eq!(host.now(Mono(300_000_000)).mono, if suspended { start } else { Mono(300_000_000) });
            assert_eq!(host.next_due(), Some(end));
            host.wake(end);
            assert_eq!(host.now(end), Now { mono, wall_ms: EPOCH_MS + 601 });
            assert_eq!(host.now(Mono(602_000_000)).mono.since(mono), Duration::from_millis(1));
        }
    }
}
