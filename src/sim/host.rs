//! A host: a machine with a clock of its own, and the process that runs on it or does not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::{Mono, Now};
use crate::id::ReplicaId;
use crate::node::{Event, Input, Node, Outcome, PeerIdentity, WaitId};

/// Wall clock of every host at virtual time zero.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;

/// Returns the wall clock nobody's is off from.
pub(super) fn true_ms(now: Mono) -> u64 {
    EPOCH_MS.saturating_add(now.0 / 1_000_000)
}

/// A machine.
#[derive(Debug)]
pub(super) struct Host {
    /// What its certificate says.
    pub(super) identity: PeerIdentity,
    /// The configured host whose place it has: its own, unless it is a clone.
    pub(super) place: usize,
    /// Its process, if one runs.
    pub(super) node: Option<Node>,
    /// The replica that runs, or ran last.
    pub(super) replica: Option<ReplicaId>,
    /// Milliseconds its wall clock is ahead.
    pub(super) skew_ms: i64,
    /// How long its monotonic clock has stood still.
    pub(super) slept: Duration,
    /// What it was told while it stood still.
    pub(super) inbox: VecDeque<Input>,
    /// When its node's timer is due, in the cluster's time.
    pub(super) due: Option<Mono>,
    pub(super) events: Vec<Event>,
    pub(super) outcomes: BTreeMap<WaitId, Outcome>,
}

impl Host {
    pub(super) fn new(identity: PeerIdentity, place: usize) -> Self {
        Self {
            identity,
            place,
            node: None,
            replica: None,
            skew_ms: 0,
            slept: Duration::ZERO,
            inbox: VecDeque::new(),
            due: None,
            events: Vec::new(),
            outcomes: BTreeMap::new(),
        }
    }

    /// Returns what this host's clocks show.
    pub(super) fn now(&self, now: Mono) -> Now {
        let slept = u64::try_from(self.slept.as_nanos()).unwrap_or(u64::MAX);
        let mono = Mono(now.0.saturating_sub(slept).max(1));
        Now { mono, wall_ms: true_ms(now).saturating_add_signed(self.skew_ms) }
    }

    /// Returns when the node's timer is due in the cluster's time.
    pub(super) fn deadline(&self) -> Option<Mono> {
        Some(self.node.as_ref()?.next_deadline()?.plus(self.slept))
    }
}
