//! One direction of one path: a delay line that loses and holds datagrams, without sockets.
//!
//! Time is a parameter (`Duration` since the relay started), so the line is tested without
//! waiting. Jitter is a slow wave, not a roll of the dice per datagram: independent delays would
//! reorder datagrams, and forcing them back into order would push every delay to the largest one.
//! A value drawn every [`WAVE`] and interpolated in between changes slower than time passes, so
//! order holds by itself and the mean delay is what it says.
//!
//! # Invariants
//! * Datagrams leave in the order in which they came in.
//! * At most [`BYTES_MAX`] are held; what does not fit is dropped and counted.
//!
//! What is *not* here: bandwidth. The line is as wide as the loopback.

use std::collections::VecDeque;
use std::time::Duration;

/// How often jitter draws a new value: longer than any jitter that is asked for.
const WAVE: Duration = Duration::from_millis(50);

/// Bytes one direction holds: 110 ms at 600 Mbit/s, more than the demo ever sends.
pub(crate) const BYTES_MAX: usize = 8 << 20;

/// What a lane does to datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    /// Added to the delay: between zero and this, half of it on average. At most [`WAVE`].
    pub(crate) jitter: Duration,
    /// Probability that a datagram is lost.
    pub(crate) loss: f64,
}

/// What became of a datagram that wanted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Held,
    Lost,
    Overflow,
}

/// The delay line.
#[derive(Debug)]
pub(crate) struct Lane {
    weather: Weather,
    rng: fastrand::Rng,
    held: VecDeque<(Duration, Vec<u8>)>,
    held_bytes: usize,
    wave: Wave,
}

impl Lane {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let wave = Wave { number: 0, from: rng.f64(), to: rng.f64() };
        let weather = Weather { jitter: weather.jitter.min(WAVE), ..weather };
        Self { weather, rng, held: VecDeque::new(), held_bytes: 0, wave }
    }

    /// Takes a datagram in at `now`.
    pub(crate) fn push(&mut self, now: Duration, bytes: &[u8]) -> Fate {
        if self.rng.f64() < self.weather.loss {
            return Fate::Lost;
        }
        if self.held_bytes.saturating_add(bytes.len()) > BYTES_MAX {
            return Fate::Overflow;
        }
        let due = now + self.weather.delay + self.weather.jitter.mul_f64(self.wave.at(now, &mut self.rng));
        let due = self.held.back().map_or(due, |last| due.max(last.0));
        self.held_bytes += bytes.len();
        self.held.push_back((due, bytes.to_vec()));
        Fate::Held
    }

    /// Returns when the next datagram is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.held.front().map(|(due, _)| *due)
    }

    /// Takes out the next datagram that is due at `now`.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        let (_, bytes) = self.held.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(bytes.len());
        Some(bytes)
    }

    /// Drops everything that is on its way; returns how many datagrams that were.
    pub(crate) fn sever(&mut self) -> usize {
        self.held_bytes = 0;
        self.held.drain(..).count()
    }
}

/// The slow wave of jitter, from 0 to 1.
#[derive(Debug)]
struct Wave {
    number: u128,
    from: f64,
    to: f64,
}

impl Wave {
    fn at(&mut self, now: Duration, rng: &mut fastrand::Rng) -> f64 {
        let number = now.as_nanos() / WAVE.as_nanos();
        if number != self.number {
            self.from = if number == self.number + 1 { self.to } else { rng.f64() };
            self.to = rng.f64();
            self.number = number;
        }
        let into = Duration::from_nanos(u64::try_from(now.as_nanos() % WAVE.as_nanos()).unwrap_or(0));
        self.from + (self.to - self.from) * into.div_duration_f64(WAVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Weather = Weather { delay: Duration::from_millis(40), jitter: Duration::ZERO, loss: 0.0 };

    fn micros(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn a_datagram_comes_out_after_exactly_the_delay() {
        let mut lane = Lane::new(CALM, 1);
        assert_eq!(lane.push(micros(500), b"a"), Fate::Held);
        assert_eq!(lane.next_due(), Some(micros(40_500)));
        assert_eq!(lane.pop(micros(40_499)), None);
        assert_eq!(lane.pop(micros(40_500)).unwrap(), b"a");
    }

    #[test]
    fn jitter_keeps_the_order_and_is_half_of_its_range_on_average() {
        let mut lane = Lane::new(Weather { jitter: Duration::from_millis(4), ..CALM }, 5);
        let (mut sum, mut last) = (Duration::ZERO, Duration::ZERO);
        let count = 200_000_u32;
        for n in 0..count {
            let now = micros(u64::from(n) * 97);
            lane.push(now, &n.to_le_bytes());
            let due = lane.next_due().unwrap();
            assert!(due >= last, "order");
            assert_eq!(lane.pop(due).unwrap(), n.to_le_bytes());
            sum += due - now - CALM.delay;
            last = due;
        }
        let mean = sum / count;
        assert!((micros(1_800)..micros(2_200)).contains(&mean), "{mean:?}");
    }

    #[test]
    fn loses_the_share_it_was_told_to_and_the_same_ones_for_the_same_seed() {
        let fates = |seed| {
            let mut lane = Lane::new(Weather { loss: 0.005, ..CALM }, seed);
            (0..100_000).map(|_| lane.push(Duration::ZERO, b"x")).collect::<Vec<_>>()
        };
        let lost = fates(3).iter().filter(|f| **f == Fate::Lost).count();
        assert!((400..600).contains(&lost), "{lost}");
        assert_eq!(fates(3), fates(3));
    }

    #[test]
    fn holds_no_more_than_its_bound() {
        let mut lane = Lane::new(CALM, 1);
        let datagram = vec![0; 1 << 20];
        let held = (0..20).filter(|_| lane.push(Duration::ZERO, &datagram) == Fate::Held).count();
        assert_eq!(held << 20, BYTES_MAX);
        assert_eq!(lane.push(Duration::ZERO, &datagram), Fate::Overflow);
        assert_eq!(lane.sever(), held);
        assert_eq!((lane.next_due(), lane.push(Duration::ZERO, &datagram)), (None, Fate::Held));
    }
}
