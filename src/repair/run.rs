//! A comparison of all partitions with all peers that somebody asked for: what of it is done, and when it is over.
//!
//! # Invariants
//! * A partition counts as verified only by a comparison that began after somebody asked.
//! * Whose link has ended is not compared; if it links again in time, it is gone on with.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::id::{PartitionId, ReplicaId};
use crate::repair::Found;

/// So many comparisons in a row that can say nothing of something in a partition are enough: what is written to at the moment is
/// compared the next time, what was given back to memory is not.
const TRIES: u32 = 3;

/// What somebody asked for.
#[derive(Debug)]
pub struct Run {
    until: Mono,
    of: usize,
    peers: BTreeMap<ReplicaId, Left>,
}

/// What is left of one peer.
#[derive(Debug)]
struct Left {
    /// A comparison has begun since.
    begun: bool,
    /// What was not found equal, and of how many comparisons in a row a part of it was left out.
    open: BTreeMap<PartitionId, u32>,
}

impl Left {
    fn expected(&self) -> usize {
        self.open.values().filter(|tries| **tries < TRIES).count()
    }
}

/// How far it has come, in pairs of a partition and a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Found equal.
    pub verified: usize,
    /// Left out in part or as a whole, and nothing else differed.
    pub spared: usize,
    /// Not found equal, and the peer has no link.
    pub parted: usize,
    /// Of so many.
    pub of: usize,
}

impl Run {
    /// Everything is to be compared by `until`.
    pub fn new(until: Mono, peers: impl Iterator<Item = ReplicaId>, all: impl Iterator<Item = PartitionId>) -> Self {
        let open: BTreeMap<PartitionId, u32> = all.map(|id| (id, 0)).collect();
        let peers: BTreeMap<ReplicaId, Left> =
            peers.map(|peer| (peer, Left { begun: false, open: open.clone() })).collect();
        Self { until, of: peers.len() * open.len(), peers }
    }

    /// Returns when it is over at the latest.
    #[must_use]
    pub fn until(&self) -> Mono {
        self.until
    }

    /// Tells whether a peer is still to be compared with.
    #[must_use]
    pub fn expects(&self, peer: ReplicaId) -> bool {
        self.peers.get(&peer).is_some_and(|left| left.expected() > 0)
    }

    /// A comparison of everything with a peer begins.
    pub fn begin(&mut self, peer: ReplicaId) {
        if let Some(left) = self.peers.get_mut(&peer) {
            left.begun = true;
        }
    }

    /// Notes what was found.
    pub fn note(&mut self, peer: ReplicaId, found: Found) {
        let Some(left) = self.peers.get_mut(&peer).filter(|left| left.begun) else { return };
        let Some(tries) = left.open.get_mut(&found.partition()) else { return };
        match found {
            Found::Verified(id) => drop(left.open.remove(&id)),
            Found::Spared(_) => *tries += 1,
            Found::Differs(..) | Found::Elusive(_) => *tries = 0,
            Found::Lagging(_) => {}
        }
    }

    /// Returns how far it has come; `is_linked` says who has a link.
    #[must_use]
    pub fn progress(&self, is_linked: impl Fn(ReplicaId) -> bool) -> Progress {
        let open: usize = self.peers.values().map(|left| left.open.len()).sum();
        let expected: usize = self.peers.values().map(Left::expected).sum();
        let parted = self.peers.iter().filter(|(peer, _)| !is_linked(**peer)).map(|(_, left)| left.expected()).sum();
        Progress { verified: self.of - open, spared: open - expected, parted, of: self.of }
    }

    /// Tells whether it is over: its time, or everything that can be compared; `may_come` says who has a link or may have one.
    #[must_use]
    pub fn is_over(&self, now: Mono, may_come: impl Fn(ReplicaId) -> bool) -> bool {
        self.until <= now || !self.peers.iter().any(|(peer, left)| left.expected() > 0 && may_come(*peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERS: [ReplicaId; 2] = [ReplicaId(1), ReplicaId(2)];

    fn run() -> Run {
        let mut run = Run::new(Mono(9), PEERS.into_iter(), (0..4).map(PartitionId));
        PEERS.into_iter().for_each(|peer| run.begin(peer));
        run
    }

    #[test]
    fn what_was_found_before_it_began_does_not_count() {
        let mut run = Run::new(Mono(9), PEERS.into_iter(), (0..1).map(PartitionId));
        run.begin(PEERS[0]);
        PEERS.into_iter().for_each(|peer| run.note(peer, Found::Verified(PartitionId(0))));
        assert_eq!(run.progress(|_| true), Progress { verified: 1, of: 2, ..Progress::default() });
        assert_eq!(PEERS.map(|peer| run.expects(peer)), [false, true]);
    }

    #[test]
    fn it_is_over_when_its_time_is_or_all_that_can_be_compared_was() {
        let mut run = run();
        assert!(!run.is_over(Mono(8), |_| true) && run.is_over(Mono(9), |_| true));
        assert!(run.is_over(Mono(0), |_| false), "nobody may come");
        (0..4).for_each(|id| run.note(PEERS[0], Found::Verified(PartitionId(id))));
        assert!(!run.is_over(Mono(0), |peer| peer == PEERS[1]) && run.is_over(Mono(0), |peer| peer == PEERS[0]));
        assert_eq!(run.progress(|peer| peer == PEERS[0]), Progress { verified: 4, spared: 0, parted: 4, of: 8 });
    }

    #[test]
    fn of_what_nothing_can_be_said_three_times_in_a_row_is_not_awaited_until_something_differs() {
        let mut run = run();
        (0..3).for_each(|id| run.note(PEERS[0], Found::Verified(PartitionId(id))));
        let last = PartitionId(3);
        (0..2).for_each(|_| run.note(PEERS[0], Found::Spared(last)));
        run.note(PEERS[0], Found::Lagging(last));
        assert!(run.expects(PEERS[0]));
        run.note(PEERS[0], Found::Spared(last));
        assert_eq!((run.expects(PEERS[0]), run.progress(|_| true).spared), (false, 1));
        run.note(PEERS[0], Found::Differs(last, 1));
        assert_eq!((run.expects(PEERS[0]), run.progress(|_| true).spared), (true, 0));
        run.note(PEERS[0], Found::Verified(last));
        assert_eq!(run.progress(|_| true), Progress { verified: 4, of: 8, ..Progress::default() });
    }
}
