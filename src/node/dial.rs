//! When to dial which configured address.
//!
//! Between two replicas the one with the lower id dials; the other waits `YIELD` for it first.
//! An address nobody has been met at is dialled at once. Failures back off with jitter
//! (AWS Architecture Blog, *Exponential Backoff And Jitter*, 2015) up to `BACKOFF_MAX`, so a
//! region that heals is back within half a second and a dead one costs a few packets a second.
//!
//! # Invariants
//! * At most one dial is under way per address.

use std::time::Duration;

use crate::clock::Mono;
use crate::id::{NodeId, ReplicaId};
use crate::node::input::{LinkId, PeerSlot};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// How long the higher replica waits for the lower one to dial.
const YIELD: Duration = Duration::from_secs(3);
/// How often an address that is connected the other way round is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle { at: Mono },
    Dialling,
    Up(LinkId),
}

/// One configured address.
#[derive(Clone, Debug)]
struct Slot {
    state: State,
    backoff: Duration,
    peer: Option<(NodeId, ReplicaId)>,
    /// The peer refuses our clock.
    clock_refused: bool,
    /// The member that answers and from which only the clocks keep us apart.
    apart: Option<NodeId>,
}

/// All configured addresses.
#[derive(Clone, Debug)]
pub struct Slots(Vec<Slot>);

impl Slots {
    /// Builds `count` addresses, all to be dialled at once.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let state = State::Idle { at: Mono::default() };
        let slot = Slot { state, backoff: BACKOFF_MIN, peer: None, clock_refused: false, apart: None };
        Self(vec![slot; count])
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns when the next dial is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.0.iter().filter_map(|s| if let State::Idle { at } = s.state { Some(at) } else { None }).min()
    }

    /// Returns the addresses to dial now. `connected` tells whether a node has a link already.
    pub fn due(&mut self, now: Mono, connected: impl Fn(NodeId) -> bool) -> Vec<PeerSlot> {
        let mut due = Vec::new();
        for (at, slot) in self.0.iter_mut().enumerate() {
            if !matches!(slot.state, State::Idle { at } if at <= now) {
                continue;
            }
            if slot.peer.is_some_and(|(node, _)| connected(node)) {
                slot.state = State::Idle { at: now.plus(LOOK_AGAIN) };
            } else {
                slot.state = State::Dialling;
                due.push(PeerSlot(at));
            }
        }
        due
    }

    /// Forgets who answers where, and dials everybody at once.
    pub fn forget(&mut self) {
        for slot in &mut self.0 {
            let state = if slot.state == State::Dialling { slot.state } else { State::Idle { at: Mono::default() } };
            *slot = Slot { state, backoff: BACKOFF_MIN, peer: None, clock_refused: false, apart: None };
        }
    }

    /// Notes that a dial came up.
    pub fn up(&mut self, slot: PeerSlot, link: LinkId) {
        if let Some(slot) = self.0.get_mut(slot.0) {
            slot.state = State::Up(link);
        }
    }

    /// Notes who answers at an address.
    pub fn met(&mut self, slot: PeerSlot, node: NodeId, replica: ReplicaId) {
        if let Some(slot) = self.0.get_mut(slot.0) {
            slot.peer = Some((node, replica));
            slot.backoff = BACKOFF_MIN;
            slot.apart = None;
        }
    }

    /// Notes that a node said hello on a link it dialled itself: no reason to wait for it.
    pub fn heard_from(&mut self, node: NodeId, replica: ReplicaId) {
        for slot in &mut self.0 {
            if slot.peer.is_some_and(|(known, _)| known == node) {
                slot.peer = Some((node, replica));
            }
            slot.apart = slot.apart.filter(|apart| *apart != node);
        }
    }

    /// Notes that a dial failed; the next one backs off.
    pub fn failed(&mut self, slot: PeerSlot, now: Mono, rng: &mut fastrand::Rng) {
        if let Some(slot) = self.0.get_mut(slot.0) {
            slot.state = State::Idle { at: now.plus(jittered(slot.backoff, rng)) };
            slot.backoff = (slot.backoff * 2).min(BACKOFF_MAX);
            slot.apart = None;
        }
    }

    /// Notes that a link ended, if it was one of these. A lower replica dials again soon, a higher
    /// one gives the other side time to.
    pub fn down(&mut self, link: LinkId, me: ReplicaId, now: Mono, rng: &mut fastrand::Rng) {
        for slot in self.0.iter_mut().filter(|s| s.state == State::Up(link)) {
            let yields = slot.peer.is_some_and(|(_, replica)| replica < me);
            let wait = if yields { YIELD } else { jittered(slot.backoff, rng) };
            slot.state = State::Idle { at: now.plus(wait) };
            slot.backoff = (slot.backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Notes that a link of ours gave way to another one to the same node.
    pub fn superseded(&mut self, slot: PeerSlot) {
        if let Some(slot) = self.0.get_mut(slot.0) {
            slot.backoff = BACKOFF_MAX;
        }
    }

    /// Notes that a node takes what we send, so it accepts our clock; returns whether that is news.
    pub fn clock_accepted(&mut self, node: NodeId) -> bool {
        let mut news = false;
        for slot in self.0.iter_mut().filter(|s| s.peer.is_some_and(|(known, _)| known == node)) {
            news |= std::mem::replace(&mut slot.clock_refused, false);
        }
        news
    }

    /// Notes that the peer at an address refuses our clock.
    pub fn clock_refused(&mut self, slot: PeerSlot) {
        if let Some(slot) = self.0.get_mut(slot.0) {
            slot.clock_refused = true;
        }
    }

    /// Notes that a member answers at an address whose clock we refuse, or who refuses ours.
    pub fn member_is_apart(&mut self, slot: PeerSlot, node: NodeId) {
        if let Some(slot) = self.0.get_mut(slot.0) {
            slot.apart = Some(node);
        }
    }

    /// Tells whether there is a cluster, and only the clocks keep this node out of it.
    #[must_use]
    pub fn is_kept_out(&self) -> bool {
        self.0.iter().any(|s| s.apart.is_some())
    }

    /// Tells whether a majority of the addresses refuses our clock.
    #[must_use]
    pub fn majority_refuses(&self) -> bool {
        let refusing = self.0.iter().filter(|s| s.clock_refused).count();
        refusing > 0 && refusing * 2 > self.0.len()
    }

    /// Tells whether somebody was met at every address, and every such node passes `test`.
    #[must_use]
    pub fn all_met(&self, test: impl Fn(NodeId) -> bool) -> bool {
        self.0.iter().all(|s| s.peer.is_some_and(|(node, _)| test(node)))
    }

    /// Returns the address whose link this is.
    #[must_use]
    pub fn of_link(&self, link: LinkId) -> Option<PeerSlot> {
        self.0.iter().position(|s| s.state == State::Up(link)).map(PeerSlot)
    }
}

fn jittered(backoff: Duration, rng: &mut fastrand::Rng) -> Duration {
    let micros = u64::try_from(backoff.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.u64(micros / 2..=micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn failures_back_off_to_a_bound_and_one_dial_is_under_way_at_a_time() {
        let (mut slots, mut rng) = (Slots::new(1), fastrand::Rng::with_seed(1));
        let mut now = Mono(1);
        for _ in 0..20 {
            assert_eq!(slots.due(now, |_| false), [PeerSlot(0)]);
            assert!(slots.due(now, |_| false).is_empty());
            slots.failed(PeerSlot(0), now, &mut rng);
            let at = slots.next_deadline().unwrap();
            assert!(at.since(now) <= BACKOFF_MAX);
            now = at;
        }
    }

    #[test]
    fn the_higher_replica_gives_the_lower_one_time_to_dial() {
        let (mut slots, mut rng) = (Slots::new(1), fastrand::Rng::with_seed(1));
        slots.due(Mono(1), |_| false);
        slots.up(PeerSlot(0), LinkId(4));
        slots.met(PeerSlot(0), node(1), ReplicaId(3));
        slots.down(LinkId(4), ReplicaId(9), Mono(1), &mut rng);
        assert_eq!(slots.next_deadline(), Some(Mono(1).plus(YIELD)));
        assert!(slots.due(Mono(1).plus(YIELD), |n| n == node(1)).is_empty(), "connected the other way round");
    }

    #[test]
    fn a_clock_is_refused_by_a_majority_only() {
        let mut slots = Slots::new(3);
        slots.clock_refused(PeerSlot(0));
        assert!(!slots.majority_refuses());
        slots.clock_refused(PeerSlot(2));
        assert!(slots.majority_refuses());
        slots.met(PeerSlot(0), node(1), ReplicaId(1));
        assert!(slots.majority_refuses(), "a hello is no consent");
        assert!(slots.clock_accepted(node(1)) && !slots.clock_accepted(node(1)));
        assert!(!slots.majority_refuses());
    }

    #[test]
    fn a_clock_keeps_a_node_out_until_it_is_put_right_or_nobody_answers() {
        let (mut slots, mut rng) = (Slots::new(3), fastrand::Rng::with_seed(1));
        assert!(!slots.is_kept_out());
        [0, 1, 2].into_iter().zip(0..).for_each(|(at, n)| slots.member_is_apart(PeerSlot(at), node(n)));
        slots.met(PeerSlot(0), node(0), ReplicaId(1));
        slots.heard_from(node(2), ReplicaId(2));
        assert!(slots.is_kept_out(), "by the other one");
        slots.failed(PeerSlot(1), Mono(1), &mut rng);
        assert!(!slots.is_kept_out());
    }
}
