//! Who waits on a receipt or reads at a level, by the name the node knows the wait under.
//!
//! # Invariants
//! * Whoever waits is told once, unless they have gone.
//! * Those who have gone are looked for as new ones come, at a constant cost for each of these, so they never fill the
//!   node's table for good.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::node::{Outcome, WaitId};

/// So many waits begin between two searches at least: fewer are not worth one.
const SEARCH_EVERY_MIN: usize = 1_024;
/// A wait that begins pays for looking at so many that are there.
const SEARCH_SHARE: usize = 8;
/// A read that begins counts as so many waits: the node has room for a 64th as many.
const READ_WEIGHT: usize = 16;

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    replies: BTreeMap<WaitId, oneshot::Sender<Outcome>>,
    next: u64,
    /// Waits begun since those who have gone were last looked for.
    begun: usize,
}

impl Waits {
    /// Takes somebody in and returns the name of their wait, which no other has.
    pub(crate) fn begin(&mut self, reply: oneshot::Sender<Outcome>) -> WaitId {
        let id = WaitId(self.next);
        self.next += 1;
        self.begun += 1;
        self.replies.insert(id, reply);
        id
    }

    /// Takes somebody in who reads at a level.
    pub(crate) fn begin_read(&mut self, reply: oneshot::Sender<Outcome>) -> WaitId {
        self.begun += READ_WEIGHT - 1;
        self.begin(reply)
    }

    /// Tells the one who waits, if they still do.
    pub(crate) fn tell(&mut self, id: WaitId, outcome: Outcome) {
        // A receiver that is gone has stopped waiting.
        drop(self.replies.remove(&id).map(|reply| reply.send(outcome)));
    }

    /// Forgets those who have gone, if it is time to look for them, and returns what they waited for.
    pub(crate) fn forget_gone(&mut self) -> Vec<WaitId> {
        if self.begun < SEARCH_EVERY_MIN.max(self.replies.len() / SEARCH_SHARE) {
            return Vec::new();
        }
        self.begun = 0;
        let mut gone = Vec::new();
        self.replies.retain(|id, reply| {
            if reply.is_closed() {
                gone.push(*id);
            }
            !reply.is_closed()
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::{PartitionId, ReplicaId};
    use crate::node::levels::WAITS_MAX;
    use crate::node::read::READS_MAX;
    use crate::node::{Level, Mark, levels};

    /// The shell's table and the node's, as the driver keeps them.
    #[derive(Default)]
    struct Tables {
        callers: Waits,
        node: levels::Waits,
    }

    impl Tables {
        /// Begins a wait that nothing ever resolves; `None` when the node has no room for it.
        fn begin(&mut self) -> Option<oneshot::Receiver<Outcome>> {
            let (reply, outcome) = oneshot::channel();
            let id = self.callers.begin(reply);
            let dot = crate::crdt::Dot { replica: ReplicaId(1), seq: 1 };
            let taken = self.node.add(id, Mark { partition: PartitionId(0), dot }, Level::All, None);
            if !taken {
                self.callers.tell(id, Outcome { reached: false, acked: 1, needed: 2, missing: Vec::new() });
            }
            self.callers.forget_gone().into_iter().for_each(|id| self.node.remove(id));
            taken.then_some(outcome)
        }
    }

    #[test]
    fn waits_that_were_given_up_make_room_however_many_were_there() {
        let mut tables = Tables::default();
        let mut patient = Vec::new();
        for n in 0..WAITS_MAX * 4 / 5 {
            let waiting = tables.begin().expect("there is room");
            // A few go early, so that searches do not fall on powers of two.
            patient.extend((n % 4 > 0 || n > 2_000).then_some(waiting));
        }
        drop(patient);
        // An application that gives every wait up: first there is no room for some, then there is again.
        let refused = (0..WAITS_MAX * 2).filter(|_| tables.begin().is_none()).count();
        assert!(refused <= WAITS_MAX / SEARCH_SHARE, "{refused} refused");
        assert!((0..SEARCH_EVERY_MIN).all(|_| tables.begin().is_some()));
    }

    #[test]
    fn reads_that_were_given_up_are_found_before_the_node_has_room_for_none() {
        let mut callers = Waits::default();
        let begin = |callers: &mut Waits| {
            let (reply, outcome) = oneshot::channel();
            (callers.begin(reply), outcome)
        };
        let patient: Vec<_> = (0..WAITS_MAX).map(|_| begin(&mut callers)).collect();
        let mut reads = BTreeSet::new();
        for _ in 0..READS_MAX * 4 {
            reads.insert(callers.begin_read(oneshot::channel().0));
            callers.forget_gone().iter().for_each(|id| assert!(reads.remove(id), "no wait was given up"));
            assert!(reads.len() <= READS_MAX * 3 / 4);
        }
        drop(patient);
    }

    #[test]
    fn nobody_who_still_waits_is_forgotten_and_each_is_told_once() {
        let mut tables = Tables::default();
        let mut patient: Vec<_> = (0..SEARCH_EVERY_MIN * 3).map(|_| tables.begin().expect("there is room")).collect();
        let outcome = |acked| Outcome { reached: true, acked, needed: 1, missing: Vec::new() };
        for n in 0..patient.len() {
            let id = WaitId(u64::try_from(n).unwrap());
            tables.callers.tell(id, outcome(n));
            tables.callers.tell(id, outcome(0));
        }
        assert!(patient.iter_mut().enumerate().all(|(n, told)| told.try_recv() == Ok(outcome(n))));
    }
}
