//! What is under way between hosts, in order of arrival.
//!
//! # Invariants
//! * One lane delivers in order; everything else overtakes freely.
//! * What runs into a cut is held until the heal, like data that QUIC repeats; what is perishable is lost there, and so is
//!   what a process sent that has ended since.
//! * A host that stands still is told of nothing before it wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Mono;
use crate::node::LinkId;
use crate::sim::network::{Conditions, Fate};

/// How long a host may stand still and still find what perishes elsewhere: about a socket's buffer.
const NAP: Duration = Duration::from_secs(1);

/// The streams of a link that keep an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stream {
    Control,
    Log,
}

/// An ordered lane: a stream of a link in one direction, by its receiver.
type Lane = (LinkId, usize, Stream);

/// Something under way.
#[derive(Clone, Debug)]
pub(super) struct Parcel<T> {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) link: LinkId,
    pub(super) stream: Option<Stream>,
    /// What it takes of the way to a slow host; 0 passes by everything else.
    pub(super) bytes: usize,
    /// It is not sent again when a cut or a sleeping host swallows it.
    pub(super) perishable: bool,
    /// A cut held it.
    pub(super) held: bool,
    /// Its sender is gone: nobody sends it again.
    pub(super) orphaned: bool,
    /// It came to a host that stood still.
    pub(super) overslept: bool,
    /// Its place among everything that was ever sent, once it was.
    pub(super) order: u64,
    pub(super) item: T,
}

impl<T> Parcel<T> {
    /// Addresses something that arrives whatever happens.
    pub(super) fn new(from: usize, to: usize, link: LinkId, item: T) -> Self {
        let (held, orphaned, overslept) = (false, false, false);
        Self { from, to, link, stream: None, bytes: 0, perishable: false, held, orphaned, overslept, order: 0, item }
    }

    /// Addresses something that may be swallowed.
    pub(super) fn perishable(from: usize, to: usize, link: LinkId, item: T) -> Self {
        Self { perishable: true, ..Self::new(from, to, link, item) }
    }

    /// Puts it on an ordered stream of its link.
    pub(super) fn on(self, stream: Stream) -> Self {
        Self { stream: Some(stream), ..self }
    }

    /// Says how large it is.
    pub(super) fn sized(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// Tells whether it is sent again when a cut or a sleeping host swallows it.
    fn is_repeated(&self) -> bool {
        !self.perishable && !self.orphaned
    }

    fn lane(&self) -> Option<Lane> {
        Some((self.link, self.to, self.stream?))
    }
}

/// Everything under way.
#[derive(Debug)]
pub(super) struct Flight<T> {
    pub(super) conditions: Conditions,
    queue: BTreeMap<(Mono, u64), Parcel<T>>,
    held: Vec<Parcel<T>>,
    last: BTreeMap<Lane, Mono>,
    sent: u64,
}

impl<T: Clone> Flight<T> {
    pub(super) fn new(conditions: Conditions) -> Self {
        Self { conditions, queue: BTreeMap::new(), held: Vec::new(), last: BTreeMap::new(), sent: 0 }
    }

    /// Sends stream data; returns when it will arrive unless a cut holds it.
    pub(super) fn send(&mut self, now: Mono, mut parcel: Parcel<T>) -> Option<Mono> {
        if parcel.order == 0 {
            self.sent += 1;
            parcel.order = self.sent;
        }
        let Fate::Arrives { mut at, .. } = self.conditions.stream(now, parcel.from, parcel.to, parcel.bytes) else {
            self.hold(parcel);
            return None;
        };
        if let Some(lane) = parcel.lane() {
            let last = self.last.entry(lane).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.arrive(at, parcel);
        Some(at)
    }

    /// Sends a datagram: it may be lost, and may come twice.
    pub(super) fn send_datagram(&mut self, now: Mono, parcel: Parcel<T>) {
        if let Fate::Arrives { at, again } = self.conditions.packet(now, parcel.from, parcel.to, parcel.bytes) {
            if let Some(again) = again {
                self.arrive(again, parcel.clone());
            }
            self.arrive(at, parcel);
        }
    }

    /// Makes something arrive at an instant.
    pub(super) fn arrive(&mut self, at: Mono, parcel: Parcel<T>) {
        self.sent += 1;
        self.queue.insert((at, self.sent), parcel);
    }

    fn hold(&mut self, mut parcel: Parcel<T>) {
        if parcel.is_repeated() {
            parcel.held = true;
            self.held.push(parcel);
        }
    }

    /// All cuts heal, and what they held goes on its way.
    pub(super) fn heal(&mut self, now: Mono) {
        self.conditions.heal();
        let held = std::mem::take(&mut self.held);
        let lanes = held.iter().filter_map(Parcel::lane).collect();
        self.send_again(now, held, &lanes);
    }

    /// Clogs, slowness and sleep end, and nothing that they delayed is late any more.
    pub(super) fn calm(&mut self, now: Mono) {
        self.conditions.calm(now);
        self.hasten(now);
    }

    /// What comes later than the way alone explains goes on its way again.
    pub(super) fn hasten(&mut self, now: Mono) {
        let soon = now.plus(self.conditions.weather().delay_max * 3);
        let may = |p: &Parcel<T>| !p.perishable && (p.from != p.to || p.overslept);
        let delayed = |((at, _), p): &(&(Mono, u64), &Parcel<T>)| *at > soon && may(p);
        let late: Vec<(Mono, u64)> = self.queue.iter().filter(delayed).map(|(key, _)| *key).collect();
        let late: Vec<Parcel<T>> = late.into_iter().filter_map(|key| self.queue.remove(&key)).collect();
        let lanes = late.iter().filter_map(Parcel::lane).collect();
        self.send_again(now, late, &lanes);
    }

    /// Sends what was delayed, and behind it what was sent after it on the same lanes.
    fn send_again(&mut self, now: Mono, mut late: Vec<Parcel<T>>, lanes: &BTreeSet<Lane>) {
        let behind: Vec<(Mono, u64)> = self
            .queue
            .iter()
            .filter(|(_, p)| p.lane().is_some_and(|c| lanes.contains(&c)))
            .map(|(key, _)| *key)
            .collect();
        late.extend(behind.into_iter().filter_map(|key| self.queue.remove(&key)));
        lanes.iter().for_each(|lane| {
            self.last.remove(lane);
        });
        late.sort_by_key(|p| p.order);
        for parcel in late {
            self.send(now, parcel);
        }
    }

    /// Forgets what a host had to repeat on a link that it has closed.
    pub(super) fn forget_link(&mut self, from: usize, link: LinkId) {
        self.held.retain(|p| p.from != from || p.link != link);
        self.last.retain(|(of, to, _), _| *of != link || *to == from);
    }

    /// Forgets what a host had to repeat: its process is gone. What is on its way arrives, unless something swallows it.
    pub(super) fn forget_host(&mut self, from: usize) {
        self.held.retain(|p| p.from != from);
        self.queue.values_mut().filter(|p| p.from == from).for_each(|p| p.orphaned = true);
    }

    /// Returns when something arrives next.
    pub(super) fn next_at(&self) -> Option<Mono> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns what has arrived by `now`.
    pub(super) fn pop(&mut self, now: Mono) -> Option<Parcel<T>> {
        loop {
            let mut parcel = self.queue.first_entry().filter(|e| e.key().0 <= now)?.remove();
            if self.conditions.is_cut(parcel.from, parcel.to) {
                self.hold(parcel);
                continue;
            }
            let Some(until) = self.conditions.asleep_until(parcel.to, now) else { return Some(parcel) };
            if parcel.is_repeated() || until.since(now) < NAP {
                parcel.overslept = true;
                self.arrive(until, parcel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::network::Weather;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn flight(loss: f64) -> Flight<u32> {
        let weather = Weather { delay_min: ms(1), delay_max: ms(50), loss, ..Weather::default() };
        Flight::new(Conditions::new(weather, 3))
    }

    fn drain(flight: &mut Flight<u32>, until: Mono) -> Vec<u32> {
        std::iter::from_fn(|| flight.pop(until)).map(|parcel| parcel.item).collect()
    }

    fn ordered(n: u32) -> Parcel<u32> {
        Parcel::new(0, 1, LinkId(1), n).on(Stream::Log)
    }

    #[test]
    fn a_stream_keeps_its_order_through_loss_cuts_and_pauses() {
        let (mut flight, mut now, all) = (flight(0.3), Mono(0), Mono(u64::MAX));
        let mut came = Vec::new();
        for n in 0..300 {
            now = now.plus(ms(10));
            match n {
                50 | 200 => flight.conditions.cut(0, 1),
                80 | 230 => flight.heal(now),
                100 => flight.conditions.stand_still(now, 1, now.plus(ms(400)), false),
                _ => {}
            }
            flight.send(now, ordered(n));
            came.extend(drain(&mut flight, now));
        }
        assert!(came.len() > 200 && !came.contains(&299));
        came.extend(drain(&mut flight, all));
        assert_eq!(came, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_perishable_is_lost_in_a_cut_and_asleep_and_the_rest_is_kept() {
        let (mut flight, later) = (flight(0.0), Mono(0).plus(ms(100)));
        let both = |flight: &mut Flight<u32>| {
            flight.send(Mono(0), Parcel::perishable(0, 1, LinkId(1), 1));
            flight.send(Mono(0), Parcel::new(0, 1, LinkId(1), 2));
        };
        both(&mut flight);
        flight.conditions.cut(0, 1);
        assert!(drain(&mut flight, later).is_empty());
        flight.heal(later);
        assert_eq!(drain(&mut flight, later.plus(ms(100))), [2]);
        flight.conditions.stand_still(Mono(0), 1, Mono(0).plus(ms(60_000)), true);
        both(&mut flight);
        assert!(drain(&mut flight, later).is_empty());
        assert_eq!(drain(&mut flight, Mono(u64::MAX)), [2]);
    }

    #[test]
    fn after_a_calm_nothing_is_later_than_the_way_takes() {
        let mut flight = flight(0.0);
        flight.conditions.slow(1, 1);
        for n in 0..50 {
            flight.send(Mono(0), ordered(n).sized(1_000));
        }
        flight.conditions.clog(0, 2, Mono(0).plus(ms(5_000)));
        flight.send(Mono(0), Parcel::new(0, 2, LinkId(2), 99));
        flight.calm(Mono(0).plus(ms(60)));
        let came = drain(&mut flight, Mono(0).plus(ms(400)));
        assert_eq!(came.iter().filter(|n| **n != 99).copied().collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
        assert!(came.contains(&99));
    }

    #[test]
    fn after_a_calm_nobody_waits_for_what_it_has_missed() {
        let (mut flight, wake) = (flight(0.0), Mono(0).plus(ms(60_000)));
        flight.conditions.stand_still(Mono(0), 1, wake, true);
        flight.arrive(Mono(0).plus(ms(10)), Parcel::new(1, 1, LinkId(1), 1));
        flight.arrive(Mono(0).plus(ms(30_000)), Parcel::new(1, 1, LinkId(1), 2));
        assert!(drain(&mut flight, Mono(0).plus(ms(20))).is_empty());
        flight.calm(Mono(0).plus(ms(20)));
        assert_eq!(drain(&mut flight, Mono(0).plus(ms(200))), [1], "a timer that has not run out goes on");
    }

    #[test]
    fn what_a_host_would_have_to_repeat_dies_with_its_link_or_its_process() {
        let mut flight = flight(0.0);
        flight.conditions.cut(0, 1);
        for link in 1..=3 {
            flight.send(Mono(0), Parcel::new(0, 1, LinkId(link), 7));
        }
        flight.forget_link(0, LinkId(2));
        flight.forget_link(1, LinkId(3));
        flight.heal(Mono(0));
        assert_eq!(drain(&mut flight, Mono(u64::MAX)).len(), 2);
        flight.conditions.cut(0, 1);
        flight.send(Mono(0), Parcel::new(0, 1, LinkId(1), 7));
        flight.forget_host(0);
        flight.heal(Mono(0));
        assert!(drain(&mut flight, Mono(u64::MAX)).is_empty());

        let later = Mono(0).plus(ms(100));
        flight.send(Mono(0), Parcel::new(0, 1, LinkId(1), 8));
        flight.forget_host(0);
        assert_eq!(drain(&mut flight, later), [8], "what is on its way arrives");
        flight.send(Mono(0), Parcel::new(0, 1, LinkId(1), 9));
        flight.forget_host(0);
        flight.conditions.cut(0, 1);
        assert!(drain(&mut flight, later).is_empty());
        flight.heal(later);
        assert!(drain(&mut flight, Mono(u64::MAX)).is_empty(), "what meets a cut is not sent again");
    }
}
