//! State that could not be joined in, told of once and remembered by its digest, so that the rest of the stream goes on.
//!
//! What cannot be joined is skipped and its events stay missing, so its sender sends it again every few seconds. It is
//! tried each time: a later state of the same entry may be sound, or the fault was here. An operator sees it in
//! [`Stats`](super::Stats) until its events have come in some other form.
//!
//! # Invariants
//! * One state from one sender or many is one entry, however often it comes.
//! * At most [`QUARANTINE_MAX`] are kept, each with at most [`KEY_BYTES_KEPT`] of its key; of more those go that have not
//!   come for longest.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::clock::Now;
use crate::crdt::Dot;
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;
use crate::node::event::Event;
use crate::store::{Misapplied, Rejected};

/// Most states kept in quarantine: more than a person reads.
pub const QUARANTINE_MAX: usize = 256;
/// Most bytes kept of a key.
pub const KEY_BYTES_KEPT: usize = 256;

/// A state that could not be joined in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poison {
    /// The keyspace; empty if nobody here knows it.
    pub keyspace: String,
    /// The beginning of the key.
    pub key: Bytes,
    /// The digest of key and state, the same wherever it comes from.
    pub digest: u64,
    /// Who sent it last.
    pub from: ReplicaId,
    /// Why it could not be joined in.
    pub why: Misapplied,
    /// How often it came.
    pub times: u64,
    /// When it came first, in Unix milliseconds.
    pub first_ms: u64,
    /// When it came last, in Unix milliseconds.
    pub last_ms: u64,
}

/// What is in quarantine, by digest.
#[derive(Debug, Default)]
pub(super) struct Quarantine(BTreeMap<u64, (PartitionId, Vec<Dot>, Poison)>);

impl Quarantine {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Iterates in order of digest.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Poison> {
        self.0.values().map(|(_, _, poison)| poison)
    }

    /// Tells whether something of a partition is in here.
    pub(super) fn holds(&self, partition: PartitionId) -> bool {
        self.0.values().any(|(of, ..)| *of == partition)
    }

    /// Takes a state in; returns it if it is news.
    fn keep(&mut self, partition: PartitionId, dots: Vec<Dot>, poison: Poison) -> Option<Poison> {
        if let Some((_, _, known)) = self.0.get_mut(&poison.digest) {
            known.times += 1;
            (known.last_ms, known.from) = (poison.last_ms, poison.from);
            return None;
        }
        if self.0.len() >= QUARANTINE_MAX {
            let oldest = self.0.values().map(|(_, _, poison)| (poison.last_ms, poison.digest)).min();
            oldest.map(|(_, digest)| self.0.remove(&digest));
        }
        self.0.insert(poison.digest, (partition, dots, poison.clone()));
        Some(poison)
    }

    /// Forgets whose events have all come.
    fn release(&mut self, has: impl Fn(PartitionId, Dot) -> bool) {
        self.0.retain(|_, (partition, dots, _)| dots.is_empty() || !dots.iter().all(|dot| has(*partition, *dot)));
    }
}

impl Node {
    /// Keeps what could not be joined in, and tells of what is new.
    pub(super) fn quarantine(&mut self, now: Now, from: ReplicaId, partition: PartitionId, rejected: Vec<Rejected>) {
        for Rejected { keyspace, key, digest, dots, why } in rejected {
            let keyspace = self.store.spaces().get(keyspace).map(|space| space.name().to_owned()).unwrap_or_default();
            let key = Bytes::copy_from_slice(key.get(..KEY_BYTES_KEPT).unwrap_or(&key));
            let (first_ms, last_ms) = (now.wall_ms, now.wall_ms);
            let poison = Poison { keyspace, key, digest, from, why, times: 1, first_ms, last_ms };
            if let Some(poison) = self.quarantine.keep(partition, dots, poison) {
                self.event(Event::Quarantined { poison });
            }
        }
    }

    /// Forgets what has come in another form since.
    pub(super) fn release_quarantine(&mut self) {
        let store = &self.store;
        self.quarantine.release(|id, dot| store.read(id).is_some_and(|p| p.ctx().has(dot)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: PartitionId = PartitionId(0);

    fn poison(digest: u64, at_ms: u64) -> Poison {
        Poison {
            keyspace: "docs".to_owned(),
            key: Bytes::new(),
            digest,
            from: ReplicaId(at_ms),
            why: Misapplied::Unreadable,
            times: 1,
            first_ms: at_ms,
            last_ms: at_ms,
        }
    }

    #[test]
    fn one_state_is_told_of_once_however_often_it_comes() {
        let mut quarantine = Quarantine::default();
        assert!(quarantine.keep(PART, Vec::new(), poison(7, 1)).is_some());
        assert!(quarantine.keep(PART, Vec::new(), poison(7, 9)).is_none());
        let Poison { from, times, first_ms, last_ms, .. } = quarantine.iter().next().unwrap();
        assert_eq!((*from, *times, *first_ms, *last_ms), (ReplicaId(9), 2, 1, 9));
    }

    #[test]
    fn of_too_many_the_one_goes_that_has_not_come_for_longest() {
        let mut quarantine = Quarantine::default();
        (0..=QUARANTINE_MAX).zip(0..).for_each(|(_, n)| drop(quarantine.keep(PART, Vec::new(), poison(n, n + 1))));
        assert_eq!(quarantine.len(), QUARANTINE_MAX);
        assert!(quarantine.iter().all(|poison| poison.digest > 0));
    }

    #[test]
    fn what_has_come_in_another_form_is_forgotten_and_what_has_no_events_stays() {
        let mut quarantine = Quarantine::default();
        let dot = |seq| Dot { replica: ReplicaId(1), seq };
        for (digest, dots) in [(1, vec![dot(1), dot(2)]), (2, vec![dot(1)]), (3, Vec::new())] {
            quarantine.keep(PART, dots, poison(digest, 1));
        }
        quarantine.release(|_, of| of == dot(1));
        assert_eq!(quarantine.iter().map(|poison| poison.digest).collect::<Vec<_>>(), [1, 3]);
    }
}
