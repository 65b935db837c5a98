//! When to dial which address.
//!
//! Two kinds are dialled: the configured ones, the *seeds*, and those by which members say they can be found to whom no seed
//! leads. Between two replicas the one with the lower id dials; the other waits `YIELD` for it first. A seed at which nobody
//! has been met is dialled at once. Failures back off with jitter (AWS Architecture Blog, *Exponential Backoff And Jitter*,
//! 2015) up to `BACKOFF_MAX`, for ever, so a region that heals is back within half a second and a dead one costs a few
//! packets a second. However many there are, a node begins only so many dials a second (`DIAL_EVERY`).
//!
//! # Invariants
//! * At most one dial is under way per address.
//! * There are as many places as seeds and members at the same time, and a few more while what is under way there ends.
//! * A place that is given up is used again only when nothing is under way there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::{Mono, Spacing};
use crate::id::{NodeId, ReplicaId};
use crate::node::input::{LinkId, PeerSlot};
use crate::probe::{planted, sometimes};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(250);
/// How long the higher replica waits for the lower one to dial.
const YIELD: Duration = Duration::from_secs(3);
/// How often an address that is connected the other way round is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often an address is tried again that led to this very node, or to somebody else than who said it could be found
/// there: a name may lead to others as well, and who has moved says so.
const ASTRAY_AGAIN: Duration = Duration::from_secs(30);
/// Dials begun at once after a pause: a node of a large cluster that starts must not wait.
const DIALS_AT_ONCE: u32 = 32;
/// And in the long run: sixteen a second, so that a storm of reconnects costs each node a few percent of a core.
const DIAL_EVERY: Duration = Duration::from_micros(62_500);

/// A member that may have to be dialled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aim {
    /// Its running copy.
    pub replica: ReplicaId,
    /// Where it says it can be found.
    pub addresses: Vec<String>,
}

/// A dial that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Due {
    /// The place.
    pub slot: PeerSlot,
    /// What to dial.
    pub address: String,
    /// How many dials of this place came before.
    pub attempt: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle { at: Mono },
    Dialling,
    Up(LinkId),
}

/// Whom a place is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    /// Whoever answers at a configured address.
    Seed { address: String },
    /// A member to whom no seed leads.
    Member { node: NodeId, addresses: Vec<String> },
    /// Nobody any more.
    Nobody,
}

/// One place.
#[derive(Clone, Debug)]
struct Slot {
    target: Target,
    state: State,
    backoff: Duration,
    attempts: usize,
    /// The last dial came to nothing.
    fails: bool,
    /// This node itself answered last, or somebody else than the member that is meant.
    astray: bool,
    peer: Option<(NodeId, ReplicaId)>,
    /// The peer refuses our clock.
    clock_refused: bool,
    /// The member that answers and from which only the clocks keep us apart.
    apart: Option<NodeId>,
}

impl Slot {
    fn new(target: Target, at: Mono) -> Self {
        Self {
            target,
            state: State::Idle { at },
            backoff: BACKOFF_MIN,
            attempts: 0,
            fails: false,
            astray: false,
            peer: None,
            clock_refused: false,
            apart: None,
        }
    }

    fn due_at(&self) -> Option<Mono> {
        match (&self.target, self.state) {
            (Target::Seed { .. } | Target::Member { .. }, State::Idle { at }) => Some(at),
            (Target::Nobody, _) | (_, State::Dialling | State::Up(_)) => None,
        }
    }

    /// The configured address, unless it leads to this node.
    fn seed(&self) -> Option<&str> {
        match &self.target {
            Target::Seed { address } if !self.astray => Some(address),
            Target::Seed { .. } | Target::Member { .. } | Target::Nobody => None,
        }
    }

    fn is_member(&self) -> bool {
        matches!(self.target, Target::Member { .. })
    }

    /// Somebody else is to be found there.
    fn counts(&self) -> bool {
        self.seed().is_some() || self.is_member()
    }

    fn address(&self) -> Option<&str> {
        match &self.target {
            Target::Seed { address } => Some(address),
            Target::Member { addresses, .. } => {
                addresses.get(self.attempts % addresses.len().max(1)).map(String::as_str)
            }
            Target::Nobody => None,
        }
    }

    /// Nobody but this node can ever be found there: it is an address and no name, which may lead to others as well.
    fn is_own_for_good(&self) -> bool {
        matches!(&self.target, Target::Seed { address } if self.astray && address.parse::<SocketAddr>().is_ok())
    }

    /// How long to wait after a dial that led astray. A name is tried again soon while `seeks`: others may be behind it.
    fn again(&self, seeks: bool, rng: &mut fastrand::Rng) -> Duration {
        let has_more = matches!(&self.target, Target::Member { addresses, .. } if addresses.len() > 1);
        if self.is_own_for_good() {
            Duration::MAX
        } else if seeks || has_more {
            jittered(BACKOFF_MAX, rng)
        } else {
            ASTRAY_AGAIN
        }
    }

    fn leads_to(&self, node: NodeId) -> bool {
        self.seed().is_some() && !self.fails && self.peer.is_some_and(|(known, _)| known == node)
    }
}

/// All places.
#[derive(Clone, Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    pace: Spacing,
}

impl Slots {
    /// Builds one for each configured address, all to be dialled at once.
    #[must_use]
    pub fn new(seeds: &[String]) -> Self {
        let seed = |address: &String| Slot::new(Target::Seed { address: address.clone() }, Mono::default());
        Self { slots: seeds.iter().map(seed).collect(), pace: Spacing::new(DIAL_EVERY) }
    }

    /// Iterates over the configured addresses that do not lead to this node, and the node met at each.
    pub fn seeds(&self) -> impl Iterator<Item = (&str, Option<NodeId>)> {
        self.slots.iter().filter_map(|s| Some((s.seed()?, s.peer.map(|(node, _)| node))))
    }

    /// Takes in who the members are: those to whom no seed leads get a place, others give theirs up. `waits` tells that the
    /// lower replica is left to dial, which knows where to find this one.
    pub fn aim(&mut self, now: Mono, members: &BTreeMap<NodeId, Aim>, me: ReplicaId, waits: bool) {
        for slot in &mut self.slots {
            if let Target::Member { node, .. } = &slot.target
                && !members.contains_key(node)
            {
                slot.target = Target::Nobody;
            }
        }
        for (node, aim) in members.iter().filter(|_| !planted!(MembersNotDialled)) {
            let of_node = |s: &Slot| matches!(&s.target, Target::Member { node: of, .. } if of == node);
            let found = self.slots.iter().position(of_node);
            if self.seeds_lead_to(*node, aim) {
                if let Some(slot) = found.and_then(|at| self.slots.get_mut(at)) {
                    slot.target = Target::Nobody;
                }
                continue;
            }
            if let Some(slot) = found.and_then(|at| self.slots.get_mut(at)) {
                let moved = slot.retarget(*node, aim);
                sometimes!(MemberMoved, if moved);
                if moved && matches!(slot.state, State::Idle { .. }) {
                    slot.state = State::Idle { at: now };
                }
                continue;
            }
            sometimes!(MemberToBeDialled);
            let at = if waits && aim.replica < me { now.plus(YIELD) } else { now };
            self.place(*node, aim, at);
        }
    }

    fn seeds_lead_to(&self, node: NodeId, aim: &Aim) -> bool {
        let is_seed = |address: &String| self.slots.iter().any(|s| s.seed() == Some(address));
        self.slots.iter().any(|s| s.leads_to(node)) || aim.addresses.iter().all(is_seed)
    }

    fn place(&mut self, node: NodeId, aim: &Aim, at: Mono) {
        let target = Target::Member { node, addresses: aim.addresses.clone() };
        let new = Slot { peer: Some((node, aim.replica)), ..Slot::new(target, at) };
        let free = |s: &Slot| s.target == Target::Nobody && matches!(s.state, State::Idle { .. });
        match self.slots.iter_mut().find(|s| free(s)) {
            Some(slot) => *slot = new,
            None => self.slots.push(new),
        }
    }

    /// Returns when the next dial is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let at = self.slots.iter().filter_map(Slot::due_at).min()?;
        Some(at.max(self.pace.next_at(self.pace.room_for(DIALS_AT_ONCE))))
    }

    /// Returns the dials that begin now, the longest due first. `connected` tells whether a node has a link already.
    pub fn due(&mut self, now: Mono, connected: impl Fn(NodeId) -> bool) -> Vec<Due> {
        let waits = |(at, slot): (usize, &Slot)| Some((slot.due_at().filter(|due| *due <= now)?, at));
        let mut waiting: Vec<(Mono, usize)> = self.slots.iter().enumerate().filter_map(waits).collect();
        waiting.sort_unstable();
        let mut due = Vec::new();
        for (_, at) in waiting {
            let Some(slot) = self.slots.get_mut(at) else { continue };
            if slot.peer.is_some_and(|(node, _)| connected(node)) {
                slot.state = State::Idle { at: now.plus(LOOK_AGAIN) };
            } else if self.pace.take(now, self.pace.room_for(DIALS_AT_ONCE)).is_err() {
                sometimes!(DialsPaced);
                break;
            } else if let Some(address) = slot.address().map(str::to_owned) {
                let attempt = slot.attempts;
                slot.state = State::Dialling;
                slot.attempts += 1;
                due.push(Due { slot: PeerSlot(at), address, attempt });
            }
        }
        due
    }

    fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut Slot> {
        self.slots.get_mut(slot.0)
    }

    /// Returns the address that was dialled last at a place.
    #[must_use]
    pub fn dialled(&self, slot: PeerSlot) -> Option<String> {
        let slot = self.slots.get(slot.0)?;
        let before = Slot { attempts: slot.attempts.saturating_sub(1), ..slot.clone() };
        before.address().map(str::to_owned)
    }

    /// Forgets who answers where and all members, and dials every seed at once.
    pub fn forget(&mut self) {
        for slot in &mut self.slots {
            let target = if slot.is_member() { Target::Nobody } else { slot.target.clone() };
            let state = if slot.state == State::Dialling { slot.state } else { State::Idle { at: Mono::default() } };
            *slot = Slot { state, ..Slot::new(target, Mono::default()) };
        }
    }

    /// Notes that a dial came up.
    pub fn up(&mut self, slot: PeerSlot, link: LinkId) {
        if let Some(slot) = self.get_mut(slot) {
            slot.state = State::Up(link);
        }
    }

    /// Notes who answers at an address. Whoever answers where a member said it could be found, the member is looked for on.
    pub fn met(&mut self, slot: PeerSlot, node: NodeId, replica: ReplicaId) {
        let Some(slot) = self.get_mut(slot) else { return };
        if matches!(&slot.target, Target::Member { node: of, .. } if *of != node) {
            slot.astray = true;
            return;
        }
        slot.peer = Some((node, replica));
        slot.backoff = BACKOFF_MIN;
        (slot.fails, slot.astray) = (false, false);
        slot.apart = None;
    }

    /// Notes that this node itself answers at an address.
    pub fn met_self(&mut self, slot: PeerSlot) {
        if let Some(slot) = self.get_mut(slot) {
            slot.astray = true;
        }
    }

    /// Notes that a node said hello on a link it dialled itself: no reason to wait for it.
    pub fn heard_from(&mut self, node: NodeId, replica: ReplicaId) {
        for slot in &mut self.slots {
            if slot.peer.is_some_and(|(known, _)| known == node) {
                slot.peer = Some((node, replica));
            }
            slot.apart = slot.apart.filter(|apart| *apart != node);
        }
    }

    /// Notes that a dial failed; the next one backs off.
    pub fn failed(&mut self, slot: PeerSlot, now: Mono, rng: &mut fastrand::Rng) {
        if let Some(slot) = self.get_mut(slot) {
            slot.fails = true;
            let wait =
                if slot.is_member() && planted!(AnnounceOff) { Duration::MAX } else { jittered(slot.backoff, rng) };
            slot.state = State::Idle { at: now.plus(wait) };
            slot.backoff = (slot.backoff * 2).min(BACKOFF_MAX);
            slot.apart = None;
        }
    }

    /// Notes that a link ended, if it was one of these. A lower replica dials again soon, a higher
    /// one gives the other side time to. `seeks` tells that this node looks for a cluster.
    pub fn down(&mut self, link: LinkId, me: ReplicaId, now: Mono, seeks: bool, rng: &mut fastrand::Rng) {
        for slot in self.slots.iter_mut().filter(|s| s.state == State::Up(link)) {
            let yields = slot.peer.is_some_and(|(_, replica)| replica < me);
            let wait = match (slot.astray, yields) {
                (true, _) => slot.again(seeks, rng),
                (false, true) => YIELD,
                (false, false) => jittered(slot.backoff, rng),
            };
            slot.state = State::Idle { at: now.plus(wait) };
            slot.backoff = (slot.backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Notes that a link of ours gave way to another one to the same node.
    pub fn superseded(&mut self, slot: PeerSlot) {
        if let Some(slot) = self.get_mut(slot) {
            slot.backoff = BACKOFF_MAX;
        }
    }

    /// Notes that a node takes what we send, so it accepts our clock; returns whether that is news.
    pub fn clock_accepted(&mut self, node: NodeId) -> bool {
        let mut news = false;
        for slot in self.slots.iter_mut().filter(|s| s.peer.is_some_and(|(known, _)| known == node)) {
            news |= std::mem::replace(&mut slot.clock_refused, false);
        }
        news
    }

    /// Notes that the peer at an address refuses our clock.
    pub fn clock_refused(&mut self, slot: PeerSlot) {
        if let Some(slot) = self.get_mut(slot) {
            slot.clock_refused = true;
        }
    }

    /// Notes that a member answers at an address whose clock we refuse, or who refuses ours.
    pub fn member_is_apart(&mut self, slot: PeerSlot, node: NodeId) {
        if let Some(slot) = self.get_mut(slot) {
            slot.apart = Some(node);
        }
    }

    /// Tells whether there is a cluster, and only the clocks keep this node out of it.
    #[must_use]
    pub fn is_kept_out(&self) -> bool {
        self.slots.iter().any(|s| s.apart.is_some())
    }

    /// Tells whether a majority of the places refuses our clock.
    #[must_use]
    pub fn majority_refuses(&self) -> bool {
        let (all, refusing) = (self.slots.iter().filter(|s| s.counts()), |s: &Slot| usize::from(s.clock_refused));
        let (all, refusing) = all.fold((0, 0), |(all, refuse), slot| (all + 1, refuse + refusing(slot)));
        refusing > 0 && refusing * 2 > all
    }

    /// Tells whether somebody was met at every place, and every such node passes `test`. At a name that has led to this node
    /// only there may be others.
    #[must_use]
    pub fn all_met(&self, test: impl Fn(NodeId) -> bool) -> bool {
        let met = |s: &Slot| match &s.target {
            Target::Seed { .. } if s.astray => s.is_own_for_good(),
            Target::Seed { .. } | Target::Member { .. } => s.peer.is_some_and(|(node, _)| test(node)),
            Target::Nobody => true,
        };
        self.slots.iter().all(met)
    }

    /// Returns how many places there are, those that are given up included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the place whose link this is.
    #[must_use]
    pub fn of_link(&self, link: LinkId) -> Option<PeerSlot> {
        self.slots.iter().position(|s| s.state == State::Up(link)).map(PeerSlot)
    }
}

impl Slot {
    /// Takes in where a member is now; returns whether it has moved.
    fn retarget(&mut self, node: NodeId, aim: &Aim) -> bool {
        let target = Target::Member { node, addresses: aim.addresses.clone() };
        let moved = self.target != target;
        if moved {
            self.target = target;
            (self.attempts, self.backoff, self.fails, self.astray) = (0, BACKOFF_MIN, false, false);
        }
        if self.peer != Some((node, aim.replica)) {
            self.peer = Some((node, aim.replica));
            self.clock_refused = false;
        }
        moved
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

    fn seeds(count: usize) -> Slots {
        Slots::new(&(0..count).map(|n| format!("sim:{n}")).collect::<Vec<_>>())
    }

    /// Members of which member `n` is replica `n` and found at `m:n`.
    fn members(all: std::ops::Range<u64>) -> BTreeMap<NodeId, Aim> {
        let aim = |n| Aim { replica: ReplicaId(n), addresses: vec![format!("m:{n}")] };
        all.map(|n| (node(n.into()), aim(n))).collect()
    }

    fn addresses(due: Vec<Due>) -> Vec<String> {
        due.into_iter().map(|due| due.address).collect()
    }

    const ME: ReplicaId = ReplicaId(5);

    #[test]
    fn members_to_whom_no_seed_leads_are_dialled_by_the_lower_of_two_first() {
        let mut slots = seeds(1);
        let now = Mono(1);
        assert_eq!(addresses(slots.due(now, |_| false)), ["sim:0"]);
        slots.up(PeerSlot(0), LinkId(1));
        slots.met(PeerSlot(0), node(7), ReplicaId(7));
        slots.aim(now, &members(3..9), ME, true);
        assert_eq!(addresses(slots.due(now, |_| false)), ["m:5", "m:6", "m:8"], "the seed leads to 7");
        let later = now.plus(YIELD);
        assert_eq!(addresses(slots.due(later, |n| n == node(3))), ["m:4"], "3 has dialled meanwhile");
        let mut alone = seeds(0);
        alone.aim(now, &members(3..5), ME, false);
        assert_eq!(alone.due(now, |_| false).len(), 2, "nobody knows where to find this one");
    }

    #[test]
    fn a_place_is_used_again_only_when_nothing_is_under_way_there() {
        let (mut slots, mut rng) = (seeds(0), fastrand::Rng::with_seed(1));
        slots.aim(Mono(1), &members(6..8), ME, true);
        assert_eq!(slots.due(Mono(1), |_| false).len(), 2);
        slots.aim(Mono(1), &members(8..10), ME, true);
        assert_eq!(slots.len(), 4);
        slots.failed(PeerSlot(0), Mono(1), &mut rng);
        slots.up(PeerSlot(1), LinkId(1));
        slots.aim(Mono(1), &members(8..12), ME, true);
        assert_eq!(slots.len(), 5, "one is free");
        slots.down(LinkId(1), ME, Mono(1), false, &mut rng);
        slots.aim(Mono(1), &members(8..13), ME, true);
        assert_eq!(slots.len(), 5);
        assert_eq!(addresses(slots.due(Mono(1), |_| false)), ["m:10", "m:12", "m:8", "m:9", "m:11"]);
    }

    #[test]
    fn who_has_moved_is_dialled_where_it_is_now_and_each_of_its_addresses_in_turn() {
        let (mut slots, mut rng) = (seeds(0), fastrand::Rng::with_seed(1));
        slots.aim(Mono(1), &members(6..7), ME, true);
        assert_eq!(addresses(slots.due(Mono(1), |_| false)), ["m:6"]);
        slots.failed(PeerSlot(0), Mono(1), &mut rng);
        let aim = Aim { replica: ReplicaId(9), addresses: vec!["n:6".to_owned(), "o:6".to_owned()] };
        let moved: BTreeMap<NodeId, Aim> = [(node(6), aim)].into();
        for address in ["n:6", "o:6", "n:6"] {
            slots.aim(Mono(2), &moved, ME, true);
            let now = slots.next_deadline().unwrap();
            assert_eq!(addresses(slots.due(now, |_| false)), [address]);
            assert_eq!(slots.dialled(PeerSlot(0)), Some(address.to_owned()));
            slots.failed(PeerSlot(0), now, &mut rng);
        }
    }

    #[test]
    fn where_somebody_else_answers_the_member_is_looked_for_seldom() {
        let (mut slots, mut rng) = (seeds(0), fastrand::Rng::with_seed(1));
        slots.aim(Mono(1), &members(6..7), ME, true);
        slots.due(Mono(1), |_| false);
        slots.up(PeerSlot(0), LinkId(1));
        slots.met(PeerSlot(0), node(1), ReplicaId(1));
        assert!(!slots.all_met(|n| n == node(1)), "it is not the one that is meant");
        slots.down(LinkId(1), ME, Mono(1), false, &mut rng);
        assert_eq!(slots.next_deadline(), Some(Mono(1).plus(ASTRAY_AGAIN)));
    }

    #[test]
    fn a_seed_that_fails_leads_to_nobody_until_it_answers_again() {
        let (mut slots, mut rng) = (seeds(1), fastrand::Rng::with_seed(1));
        slots.due(Mono(1), |_| false);
        slots.up(PeerSlot(0), LinkId(1));
        slots.met(PeerSlot(0), node(6), ReplicaId(6));
        slots.aim(Mono(1), &members(6..7), ME, true);
        assert_eq!(slots.len(), 1);
        slots.down(LinkId(1), ME, Mono(1), false, &mut rng);
        slots.failed(PeerSlot(0), Mono(1), &mut rng);
        slots.aim(Mono(1), &members(6..7), ME, true);
        assert_eq!(addresses(slots.due(Mono(1), |_| false)), ["m:6"]);
        slots.met(PeerSlot(0), node(6), ReplicaId(6));
        slots.aim(Mono(1), &members(6..7), ME, true);
        slots.failed(PeerSlot(1), Mono(1), &mut rng);
        assert_eq!(slots.due(Mono(1).plus(BACKOFF_MAX), |_| false).len(), 1, "its place is given up");
    }

    #[test]
    fn an_address_of_this_node_is_dialled_once_and_a_name_that_led_here_again() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (address, again) in [("127.0.0.1:0", false), ("cluster:0", true)] {
            let mut slots = Slots::new(&[address.to_owned()]);
            slots.due(Mono(1), |_| false);
            slots.up(PeerSlot(0), LinkId(1));
            slots.met_self(PeerSlot(0));
            slots.down(LinkId(1), ME, Mono(1), false, &mut rng);
            assert_eq!(slots.seeds().count(), 0, "it is no other node");
            assert_eq!(slots.all_met(|_| false), !again, "behind a name others may be");
            assert_eq!(slots.due(Mono(1).plus(ASTRAY_AGAIN), |_| false).len(), usize::from(again));
        }
    }

    /// Two hundred members, none of which answers.
    #[test]
    fn dials_are_bounded_in_number_and_everybody_has_its_turn() {
        let (mut slots, mut rng) = (seeds(0), fastrand::Rng::with_seed(1));
        slots.aim(Mono(1), &members(6..206), ME, true);
        let (mut now, mut begun) = (Mono(1), Vec::new());
        while now < Mono(1).plus(Duration::from_secs(60)) {
            for due in slots.due(now, |_| false) {
                begun.push((now, due.slot));
                slots.failed(due.slot, now, &mut rng);
            }
            let next = slots.next_deadline().unwrap();
            assert!(next > now, "nothing is awaited that is due");
            now = next;
        }
        let within = |from: Mono, to: Mono| begun.iter().filter(|(at, _)| (from..to).contains(at)).count();
        for second in 0..60 {
            let from = Mono(1).plus(Duration::from_secs(second));
            let most = if second == 0 { 32 + 16 } else { 17 };
            assert!(within(from, from.plus(Duration::from_secs(1))) <= most, "second {second}");
        }
        let of = |slot: PeerSlot| begun.iter().filter(|(_, s)| *s == slot).count();
        assert!((0..200).all(|n| (4..=6).contains(&of(PeerSlot(n)))));
    }

    #[test]
    fn failures_back_off_to_a_bound_and_one_dial_is_under_way_at_a_time() {
        let (mut slots, mut rng) = (seeds(1), fastrand::Rng::with_seed(1));
        let mut now = Mono(1);
        for attempt in 0..20 {
            let due = Due { slot: PeerSlot(0), address: "sim:0".to_owned(), attempt };
            assert_eq!(slots.due(now, |_| false), [due]);
            assert!(slots.due(now, |_| false).is_empty());
            slots.failed(PeerSlot(0), now, &mut rng);
            let at = slots.next_deadline().unwrap();
            assert!(at.since(now) <= BACKOFF_MAX);
            now = at;
        }
    }

    #[test]
    fn the_higher_replica_gives_the_lower_one_time_to_dial() {
        let (mut slots, mut rng) = (seeds(1), fastrand::Rng::with_seed(1));
        slots.due(Mono(1), |_| false);
        slots.up(PeerSlot(0), LinkId(4));
        slots.met(PeerSlot(0), node(1), ReplicaId(3));
        slots.down(LinkId(4), ReplicaId(9), Mono(1), false, &mut rng);
        assert_eq!(slots.next_deadline(), Some(Mono(1).plus(YIELD)));
        assert!(slots.due(Mono(1).plus(YIELD), |n| n == node(1)).is_empty(), "connected the other way round");
    }

    #[test]
    fn a_clock_is_refused_by_a_majority_only() {
        let mut slots = seeds(3);
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
        let (mut slots, mut rng) = (seeds(3), fastrand::Rng::with_seed(1));
        assert!(!slots.is_kept_out());
        [0, 1, 2].into_iter().zip(0..).for_each(|(at, n)| slots.member_is_apart(PeerSlot(at), node(n)));
        slots.met(PeerSlot(0), node(0), ReplicaId(1));
        slots.heard_from(node(2), ReplicaId(2));
        assert!(slots.is_kept_out(), "by the other one");
        slots.failed(PeerSlot(1), Mono(1), &mut rng);
        assert!(!slots.is_kept_out());
    }
}
