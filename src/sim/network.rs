//! The conditions of the network: for everything that is sent, when it arrives, how often, and whether at all.
//!
//! The carriers (messages, QUIC) ask here for each parcel they send; what a parcel is, and what happens to one that does
//! not arrive, is theirs to know.
//!
//! # Invariants
//! * All randomness of the network is drawn here, in the order in which parcels are sent.
//! * A clog delays what is sent while it lasts and lets all of it through at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Mono;

/// Longest time after which a repeated parcel comes again.
const REPLAY_MAX: Duration = Duration::from_secs(180);
/// Longest queue in front of a slow host that does not drop packets.
const QUEUE_MAX: Duration = Duration::from_millis(300);

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
    /// Bad periods, of each direction of each path on its own. The plan of a run has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bursts: Option<Bursts>,
}

/// Loss that comes in periods (Gilbert, *Capacity of a Burst-Noise Channel*, 1960). How long one lasts, and how long it is
/// until the next, is drawn evenly from nothing to twice the mean.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bursts {
    /// How long a bad period lasts in the mean.
    pub lasts: Duration,
    /// How long it is until the next, in the mean.
    pub every: Duration,
    /// The share of packets lost while one lasts.
    pub loss: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(5),
            delay_max: Duration::from_millis(60),
            loss: 0.01,
            duplicate: 0.0,
            corrupt: 0.0,
            bursts: None,
        }
    }
}

/// A period of a path, and when it ends.
#[derive(Clone, Copy, Debug)]
struct Period {
    bad: bool,
    until: Mono,
}

/// A host that takes in only so much.
#[derive(Debug)]
struct Slow {
    bytes_per_ms: u64,
    /// When it has taken in everything that is under way to it.
    free_at: Mono,
}

/// A host that stands still.
#[derive(Clone, Copy, Debug)]
struct Pause {
    since: Mono,
    until: Mono,
    /// Its monotonic clock stands still as well.
    suspended: bool,
}

impl Pause {
    /// Returns how long the host's monotonic clock has stood still by `now`.
    fn missed(&self, now: Mono) -> Duration {
        if self.suspended { now.min(self.until).since(self.since) } else { Duration::ZERO }
    }
}

/// What becomes of a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Its way is cut.
    Cut,
    /// It vanishes.
    Lost,
    /// It arrives, perhaps twice.
    Arrives { at: Mono, again: Option<Mono> },
}

/// The network between all hosts.
#[derive(Debug)]
pub(super) struct Conditions {
    weather: Weather,
    rng: fastrand::Rng,
    cuts: BTreeSet<(usize, usize)>,
    clogs: BTreeMap<(usize, usize), Mono>,
    slow: BTreeMap<usize, Slow>,
    /// Hosts that stand still.
    asleep: BTreeMap<usize, Pause>,
    /// How long a host's monotonic clock has stood still before.
    slept: BTreeMap<usize, Duration>,
    /// Where each path is between its bursts.
    periods: BTreeMap<(usize, usize), Period>,
}

impl Conditions {
    pub(super) fn new(weather: Weather, seed: u64) -> Self {
        let (cuts, clogs, slow) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let (asleep, slept, periods) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { weather, rng: fastrand::Rng::with_seed(seed), cuts, clogs, slow, asleep, slept, periods }
    }

    pub(super) fn weather(&self) -> &Weather {
        &self.weather
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Heals every cut. A carrier that holds things back asks again for each of them.
    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Holds what is sent from one host to another until then.
    pub(super) fn clog(&mut self, from: usize, to: usize, until: Mono) {
        let end = self.clogs.entry((from, to)).or_default();
        *end = (*end).max(until);
    }

    /// Makes a host slow; 0 ends it.
    pub(super) fn slow(&mut self, host: usize, bytes_per_ms: u64) {
        if bytes_per_ms == 0 {
            self.slow.remove(&host);
        } else {
            let free_at = self.slow.get(&host).map_or_else(Mono::default, |s| s.free_at);
            self.slow.insert(host, Slow { bytes_per_ms, free_at });
        }
    }

    /// Tells whether a host is slow.
    pub(super) fn is_slow(&self, host: usize) -> bool {
        self.slow.contains_key(&host)
    }

    /// Makes a host stand still until then, and its monotonic clock with it if the machine is suspended.
    pub(super) fn stand_still(&mut self, now: Mono, host: usize, until: Mono, suspended: bool) {
        self.wake(now, host);
        self.asleep.insert(host, Pause { since: now, until, suspended });
    }

    /// Wakes a host, or makes its place ready for another process.
    pub(super) fn wake(&mut self, now: Mono, host: usize) {
        if let Some(pause) = self.asleep.remove(&host) {
            *self.slept.entry(host).or_default() += pause.missed(now);
        }
    }

    /// Returns how long a host's monotonic clock has stood still.
    #[cfg(feature = "net")]
    pub(super) fn slept(&self, host: usize, now: Mono) -> Duration {
        let now_asleep = self.asleep.get(&host).map_or(Duration::ZERO, |pause| pause.missed(now));
        self.slept.get(&host).copied().unwrap_or_default() + now_asleep
    }

    /// Ends the corruption of messages for good.
    pub(super) fn stop_corrupting(&mut self) {
        self.weather.corrupt = 0.0;
    }

    /// Returns until when a host stands still, if it does.
    pub(super) fn asleep_until(&self, host: usize, now: Mono) -> Option<Mono> {
        self.asleep.get(&host).map(|pause| pause.until).filter(|until| *until > now)
    }

    /// Clogs, slowness and sleep end; what is under way comes as it was to come.
    pub(super) fn calm(&mut self, now: Mono) {
        self.clogs.clear();
        self.slow.clear();
        while let Some(host) = self.asleep.keys().next().copied() {
            self.wake(now, host);
        }
    }

    /// What becomes of a packet that nobody sends again: it may be lost, and may come twice. One of 0 bytes passes by
    /// the queue of a slow host.
    pub(super) fn packet(&mut self, now: Mono, from: usize, to: usize, bytes: usize) -> Fate {
        if self.is_cut(from, to) {
            return Fate::Cut;
        }
        let loss = self.loss(now, from, to);
        if self.draw(loss) || self.overflows(now, to, bytes) {
            return Fate::Lost;
        }
        let at = self.transit(now, from, to, bytes);
        Fate::Arrives { at, again: self.again(at) }
    }

    /// What becomes of stream data: what is lost comes again later, and nothing comes twice.
    pub(super) fn stream(&mut self, now: Mono, from: usize, to: usize, bytes: usize) -> Fate {
        if self.is_cut(from, to) {
            return Fate::Cut;
        }
        let mut sent = now;
        let loss = self.loss(now, from, to);
        if self.draw(loss) {
            sent = sent.plus(self.weather.delay_max * 2);
        }
        Fate::Arrives { at: self.transit(sent, from, to, bytes), again: None }
    }

    /// When something repeated comes again, if it is: soon or minutes after it came first.
    pub(super) fn again(&mut self, at: Mono) -> Option<Mono> {
        if !self.draw(self.weather.duplicate) {
            return None;
        }
        let most = if self.rng.bool() { self.weather.delay_max } else { REPLAY_MAX };
        Some(at.plus(self.between(Duration::ZERO, most)))
    }

    /// Tells whether the bytes of a message are changed.
    pub(super) fn corrupts(&mut self) -> bool {
        self.draw(self.weather.corrupt)
    }

    /// Changes bytes: some flip, some go missing at the end, some are added.
    pub(super) fn garble(&mut self, bytes: &Bytes) -> Bytes {
        let mut garbled = bytes.to_vec();
        match self.rng.u8(..8) {
            0 => garbled.truncate(self.rng.usize(..garbled.len().max(1))),
            1 => garbled.extend((0..self.rng.usize(1..16)).map(|_| self.rng.u8(..))),
            _ => {}
        }
        for _ in 0..self.rng.usize(1..4) {
            let at = self.rng.usize(..garbled.len().max(1));
            if let Some(byte) = garbled.get_mut(at) {
                *byte ^= self.rng.u8(1..);
            }
        }
        garbled.into()
    }

    /// Tells whether the queue in front of a slow host has no room for a packet.
    fn overflows(&self, now: Mono, to: usize, bytes: usize) -> bool {
        bytes > 0 && self.slow.get(&to).is_some_and(|slow| slow.free_at.since(now) > QUEUE_MAX)
    }

    /// Returns the share of packets that a path loses at this moment.
    fn loss(&mut self, now: Mono, from: usize, to: usize) -> f64 {
        let Some(bursts) = self.weather.bursts else { return self.weather.loss };
        let mut period = self.periods.get(&(from, to)).copied().unwrap_or(Period { bad: true, until: now });
        while period.until <= now {
            let mean = if period.bad { bursts.every } else { bursts.lasts };
            let lasts = self.between(Duration::from_micros(1), mean * 2);
            period = Period { bad: !period.bad, until: period.until.plus(lasts) };
        }
        self.periods.insert((from, to), period);
        if period.bad { bursts.loss } else { self.weather.loss }
    }

    fn draw(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.f64() < share
    }

    fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let (min, max) = (u64::try_from(min.as_micros()).unwrap_or(0), u64::try_from(max.as_micros()).unwrap_or(0));
        Duration::from_micros(self.rng.u64(min..=max.max(min)))
    }

    fn transit(&mut self, now: Mono, from: usize, to: usize, bytes: usize) -> Mono {
        let delay = self.between(self.weather.delay_min, self.weather.delay_max);
        let mut at = now.plus(delay);
        if let Some(until) = self.clogs.get(&(from, to)) {
            at = at.max(*until);
        }
        if let Some(slow) = self.slow.get_mut(&to).filter(|_| bytes > 0) {
            let nanos = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / slow.bytes_per_ms;
            slow.free_at = slow.free_at.max(at).plus(Duration::from_nanos(nanos));
            at = slow.free_at;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(5_000_000_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn network(weather: Weather) -> Conditions {
        Conditions::new(weather, 7)
    }

    fn still() -> Weather {
        Weather { delay_min: ms(10), delay_max: ms(20), loss: 0.0, duplicate: 0.0, corrupt: 0.0, bursts: None }
    }

    fn fates(mut network: Conditions, stream: bool) -> Vec<Fate> {
        let one = |_| if stream { network.stream(NOW, 0, 1, 100) } else { network.packet(NOW, 0, 1, 100) };
        (0..4_000).map(one).collect()
    }

    fn arrival(fate: Fate) -> Mono {
        if let Fate::Arrives { at, .. } = fate { at } else { panic!("{fate:?}") }
    }

    #[test]
    fn packets_are_lost_and_repeated_at_their_rates_and_stream_data_only_comes_later() {
        let weather = Weather { loss: 0.3, duplicate: 0.5, ..still() };
        let packets = fates(network(weather), false);
        let lost = packets.iter().filter(|fate| **fate == Fate::Lost).count();
        let twice: Vec<Duration> = packets
            .iter()
            .filter_map(
                |fate| if let Fate::Arrives { at, again } = fate { Some(again.as_ref()?.since(*at)) } else { None },
            )
            .collect();
        assert!((1_100..1_300).contains(&lost) && (1_250..1_550).contains(&twice.len()), "{lost} {}", twice.len());
        assert!(twice.iter().any(|gap| *gap > ms(60_000)) && twice.iter().filter(|gap| **gap <= ms(20)).count() > 500);
        let stream = fates(network(weather), true);
        let late = stream.iter().filter(|fate| arrival(**fate).since(NOW) >= ms(50)).count();
        assert!((1_100..1_300).contains(&late), "{late}");
        assert!(stream.iter().all(|fate| matches!(fate, Fate::Arrives { again: None, .. })));
        assert_eq!(packets, fates(network(weather), false), "the same seed gives the same network");
    }

    #[test]
    fn bursts_come_as_often_and_last_as_long_as_they_should() {
        let bursts = Bursts { lasts: ms(300), every: ms(2_700), loss: 1.0 };
        let mut network = network(Weather { bursts: Some(bursts), ..still() });
        let lost: Vec<bool> =
            (0..100_000).map(|n| network.packet(NOW.plus(ms(n * 10)), 0, 1, 1) == Fate::Lost).collect();
        let bad = lost.iter().filter(|lost| **lost).count();
        let begun = lost.windows(2).filter(|pair| matches!(pair, [false, true])).count();
        assert!((9_000..11_000).contains(&bad) && (280..390).contains(&begun), "{bad} of 100000 in {begun} bursts");
        let end = NOW.plus(ms(1_000_000));
        let paths: BTreeSet<bool> =
            (0..20).map(|to| matches!(network.packet(end, 2, to, 1), Fate::Arrives { .. })).collect();
        assert_eq!(paths, BTreeSet::from([true]), "a path nobody has used yet begins well");
    }

    #[test]
    fn delays_keep_to_their_bounds_and_packets_overtake_each_other() {
        let arrivals: Vec<Mono> = fates(network(still()), false).into_iter().map(arrival).collect();
        assert!(arrivals.iter().all(|at| (ms(10)..=ms(20)).contains(&at.since(NOW))));
        assert!(!arrivals.is_sorted());
    }

    #[test]
    fn a_cut_is_one_way_until_the_heal() {
        let mut network = network(still());
        network.cut(0, 1);
        assert_eq!((network.packet(NOW, 0, 1, 1), network.stream(NOW, 0, 1, 1)), (Fate::Cut, Fate::Cut));
        assert_ne!(network.packet(NOW, 1, 0, 1), Fate::Cut);
        network.heal();
        assert_ne!(network.packet(NOW, 0, 1, 1), Fate::Cut);
    }

    #[test]
    fn a_clog_ends_for_all_at_one_instant_and_the_longer_one_counts() {
        let mut network = network(still());
        let until = NOW.plus(ms(700));
        network.clog(0, 1, until);
        network.clog(0, 1, NOW.plus(ms(30)));
        assert!((0..50).all(|_| arrival(network.stream(NOW, 0, 1, 1)) == until));
        assert!(arrival(network.stream(NOW, 1, 0, 1)) < until && arrival(network.stream(until, 0, 1, 1)) > until);
        network.calm(NOW);
        assert!(arrival(network.stream(NOW, 0, 1, 1)) < until);
    }

    #[test]
    fn a_slow_host_takes_in_so_much_at_a_time_and_its_queue_overflows() {
        let mut network = network(still());
        network.slow(1, 2);
        let arrivals: Vec<Mono> = (0..100).map(|_| arrival(network.stream(NOW, 0, 1, 100))).collect();
        assert!(arrivals.windows(2).all(|pair| matches!(pair, [a, b] if b.since(*a) == ms(50))));
        assert!(arrival(network.stream(NOW, 0, 1, 0)).since(NOW) <= ms(20), "what has no size passes by");
        assert_eq!(network.packet(NOW, 0, 1, 100), Fate::Lost);
        assert!(arrival(network.stream(NOW, 0, 2, 100)).since(NOW) <= ms(20), "others are not slow");
        network.slow(1, 0);
        assert!(arrival(network.packet(NOW, 0, 1, 100)).since(NOW) <= ms(20));
    }

    #[test]
    fn garbled_bytes_differ_and_corruption_can_be_stopped() {
        let mut network = network(Weather { corrupt: 1.0, ..still() });
        let bytes = Bytes::from_static(b"some message of some length");
        assert!((0..500).all(|_| network.garble(&bytes) != bytes) && network.corrupts());
        network.garble(&Bytes::new());
        network.stop_corrupting();
        assert!(!network.corrupts());
    }

    #[test]
    fn a_host_that_stands_still_does_so_until_its_time_or_its_wake() {
        let mut network = network(still());
        network.stand_still(NOW, 1, NOW.plus(ms(5)), false);
        assert_eq!(network.asleep_until(1, NOW), Some(NOW.plus(ms(5))));
        assert_eq!((network.asleep_until(1, NOW.plus(ms(5))), network.asleep_until(0, NOW)), (None, None));
        network.wake(NOW, 1);
        assert_eq!(network.asleep_until(1, NOW), None);
    }
}
