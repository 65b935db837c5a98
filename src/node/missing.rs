//! Writes that a peer says it has made and that are not here: a log that stands still while beats and reports come has no
//! writes that could be measured when they come.
//!
//! # Invariants
//! * What is missing is what the peer had said at one instant; nothing it says later is added before all of that has come.

use crate::clock::Mono;
use crate::crdt::Seen;
use crate::id::{PartitionId, ReplicaId};
use crate::node::link::Session;
use crate::node::quarantine::Quarantine;
use crate::store::Store;

/// What a peer had said of its own writes, and when.
#[derive(Debug, Default)]
pub(super) struct Missing {
    since: Mono,
    of: ReplicaId,
    /// What was missing then, by partition.
    own: Vec<(PartitionId, Seen)>,
}

/// Where what a peer says is looked for.
pub(super) struct Here<'a> {
    pub(super) store: &'a Store,
    pub(super) quarantine: &'a Quarantine,
}

impl Here<'_> {
    /// Tells whether what an origin has written of a partition is here, as far as that can be told: of a state in quarantine
    /// the events stay missing, however soon it came.
    fn has(&self, partition: PartitionId, origin: ReplicaId, seen: &Seen) -> bool {
        let came = |mine: &Seen| mine.includes(seen);
        self.store.read(partition).is_none_or(|p| p.ctx().of(origin).is_some_and(came))
            || self.quarantine.holds(partition)
    }
}

impl Missing {
    /// Asks anew what is missing of the peer's writes, unless some of what was missing before still is.
    pub(super) fn look(now: Mono, session: &mut Session, here: &Here<'_>) {
        if session.missing.lacks(here) {
            return;
        }
        let of = session.replica;
        let said = |id| Some((id, session.peer.known(id)?.of(of)?.clone()));
        let own = here.store.partition_ids().filter_map(said).filter(|(id, seen)| !here.has(*id, of, seen)).collect();
        session.missing = Self { since: now, of, own };
    }

    /// Returns for how many milliseconds something has been missing.
    pub(super) fn lag_ms(&self, now: Mono, here: &Here<'_>) -> Option<u64> {
        let ms = || u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.lacks(here).then(ms)
    }

    fn lacks(&self, here: &Here<'_>) -> bool {
        self.own.iter().any(|(id, seen)| !here.has(*id, self.of, seen))
    }
}
