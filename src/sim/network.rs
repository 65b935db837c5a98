//! The virtual network: what is under way, and when it arrives.
//!
//! # Invariants
//! * One stream of one link delivers in order; different streams overtake each other freely.
//! * What was sent into a cut stays under way until the cut heals, like a retransmission.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Mono;

/// How the network behaves.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Weather {
    /// Shortest one-way delay.
    pub delay_min: Duration,
    /// Longest one-way delay.
    pub delay_max: Duration,
    /// Share of packets lost, 0 to 1: datagrams vanish, stream data comes a round trip later.
    pub loss: f64,
    /// Share of datagrams and unordered frames that come twice, the second time up to minutes later.
    pub duplicate: f64,
    /// Share of messages whose bytes are changed on the way. What an authenticated transport would not let through is
    /// lost; what is left is what a decoder has to refuse.
    pub corrupt: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(5),
            delay_max: Duration::from_millis(60),
            loss: 0.01,
            duplicate: 0.0,
            corrupt: 0.0,
        }
    }
}

/// An ordered channel of one link in one direction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Channel {
    pub(super) link: u64,
    pub(super) to: usize,
    pub(super) stream: u8,
}

/// Something under way.
#[derive(Debug)]
struct Parcel<T> {
    from: usize,
    to: usize,
    channel: Option<Channel>,
    item: T,
}

/// Things under way, in order of arrival.
#[derive(Debug)]
pub(super) struct Network<T> {
    pub(super) weather: Weather,
    rng: fastrand::Rng,
    queue: BTreeMap<(Mono, u64), Parcel<T>>,
    held: Vec<Parcel<T>>,
    last: BTreeMap<Channel, Mono>,
    cuts: BTreeSet<(usize, usize)>,
    sent: u64,
}

impl<T> Network<T> {
    pub(super) fn new(weather: Weather, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let (queue, held, last) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { weather, rng, queue, held, last, cuts: BTreeSet::new(), sent: 0 }
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Heals every cut; what was held goes on its way, and what was sent behind it on the same
    /// stream stays behind it.
    pub(super) fn heal(&mut self, now: Mono) {
        self.cuts.clear();
        let mut late = std::mem::take(&mut self.held);
        let channels: BTreeSet<Channel> = late.iter().filter_map(|p| p.channel).collect();
        for (at, parcel) in std::mem::take(&mut self.queue) {
            if parcel.channel.is_some_and(|c| channels.contains(&c)) {
                late.push(parcel);
            } else {
                self.queue.insert(at, parcel);
            }
        }
        channels.iter().for_each(|channel| {
            self.last.remove(channel);
        });
        for parcel in late {
            self.send(now, (parcel.from, parcel.to), parcel.channel, parcel.item);
        }
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn delay(&mut self) -> Duration {
        let (min, max) = (self.weather.delay_min.as_micros(), self.weather.delay_max.as_micros());
        let (min, max) = (u64::try_from(min).unwrap_or(0), u64::try_from(max).unwrap_or(0));
        Duration::from_micros(self.rng.u64(min..=max.max(min)))
    }

    /// Sends on an ordered stream, or on one of its own when there is no `channel`.
    pub(super) fn send(&mut self, now: Mono, (from, to): (usize, usize), channel: Option<Channel>, item: T) {
        let mut at = now.plus(self.delay());
        if self.rng.f64() < self.weather.loss {
            at = at.plus(self.weather.delay_max * 2);
        }
        if let Some(channel) = channel {
            let last = self.last.entry(channel).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.sent += 1;
        self.queue.insert((at, self.sent), Parcel { from, to, channel, item });
    }

    /// Sends a datagram, or loses it.
    pub(super) fn send_unreliable(&mut self, now: Mono, from: usize, to: usize, item: T) {
        if self.rng.f64() >= self.weather.loss && !self.is_cut(from, to) {
            let at = now.plus(self.delay());
            self.sent += 1;
            self.queue.insert((at, self.sent), Parcel { from, to, channel: None, item });
        }
    }

    pub(super) fn next_at(&self) -> Option<Mono> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Returns what has arrived by `now`; what runs into a cut is held back.
    pub(super) fn pop(&mut self, now: Mono) -> Option<(usize, T)> {
        loop {
            let first = self.queue.first_entry().filter(|e| e.key().0 <= now)?;
            let parcel = first.remove();
            if !self.is_cut(parcel.from, parcel.to) {
                return Some((parcel.to, parcel.item));
            }
            self.held.push(parcel);
        }
    }
}
