//! Is the peer there, how far away is it, and what does its clock say?
//!
//! Liveness is direct: a heartbeat on every link, and any authenticated frame counts as one.
//! Silence for `suspect_after` makes a peer *down*; that costs a detour, never data. Round trip
//! and clock skew come from the echo in each beat (Cristian, *Probabilistic Clock
//! Synchronization*, 1989).
//!
//! # Invariants
//! * A beat that is older than one already heard changes nothing.
//! * When our own tick was late nobody is suspected: it was us who did not listen.

use std::time::Duration;

use crate::clock::Mono;
use crate::probe::sometimes;

/// How far an uneven link raises the silence that makes a peer suspected.
const UNEVEN_MAX: Duration = Duration::from_secs(2);

/// What the silence of a peer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Heard of lately.
    Up,
    /// Silent for `suspect_after`.
    Down,
    /// Silent for so long that the link is not worth keeping.
    GiveUp,
}

/// The heartbeats of one link.
#[derive(Clone, Debug)]
pub struct Beats {
    sent: u64,
    heard_seq: u64,
    heard_at: Mono,
    /// The peer's send time of its latest beat and when it came.
    echo: Option<(u64, Mono)>,
    rtt: Option<Duration>,
    rtt_min: Option<Duration>,
    /// Smoothed deviation of the round trip.
    jitter: Duration,
    skew_ms: Option<i64>,
    /// When this node last went on after it had stood still.
    resumed_at: Mono,
}

impl Beats {
    /// Begins with a link that was heard of right now.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self {
            sent: 0,
            heard_seq: 0,
            heard_at: now,
            echo: None,
            rtt: None,
            rtt_min: None,
            jitter: Duration::ZERO,
            skew_ms: None,
            resumed_at: Mono::default(),
        }
    }

    /// Returns the number of the next beat.
    pub fn next_seq(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Returns the echo for the next beat: the peer's send time and how long it was held.
    #[must_use]
    pub fn echo(&self, now: Mono) -> Option<(u64, u64)> {
        self.echo.map(|(sent_ns, at)| (sent_ns, now.0.saturating_sub(at.0)))
    }

    /// Notes any frame of the peer.
    pub fn heard(&mut self, now: Mono) {
        self.heard_at = self.heard_at.max(now);
    }

    /// Notes a beat: its number, the peer's send time and its echo of ours. Tells whether what else it says is news: not
    /// if a later one came before it, nor if it may have waited while this node stood still.
    pub fn on_beat(&mut self, now: Mono, seq: u64, sent_ns: u64, echo: Option<(u64, u64)>) -> bool {
        self.heard(now);
        if seq <= self.heard_seq {
            sometimes!(BeatOvertaken);
            return false;
        }
        self.heard_seq = seq;
        self.echo = Some((sent_ns, now));
        let resumed = self.resumed_at.0;
        if resumed > 0 && echo.is_none_or(|(mine, _)| mine < resumed) {
            sometimes!(BeatFromBefore);
            return false;
        }
        if let Some((mine, held)) = echo {
            self.measure(Duration::from_nanos(now.0.saturating_sub(mine).saturating_sub(held)));
        }
        true
    }

    fn measure(&mut self, sample: Duration) {
        self.rtt_min = Some(self.rtt_min.map_or(sample, |min| min.min(sample)));
        self.jitter = self.rtt.map_or(sample / 2, |smooth| (self.jitter * 3 + smooth.abs_diff(sample)) / 4);
        self.rtt = Some(self.rtt.map_or(sample, |smooth| (smooth * 7 + sample) / 8));
    }

    /// Notes the peer's wall clock, as a beat that just came says it.
    pub fn on_clock(&mut self, peer_wall_ms: u64, wall_ms: u64) {
        let half = u64::try_from(self.rtt.unwrap_or_default().as_millis() / 2).unwrap_or(0);
        let there = i64::try_from(peer_wall_ms.saturating_add(half)).unwrap_or(i64::MAX);
        let here = i64::try_from(wall_ms).unwrap_or(i64::MAX);
        self.skew_ms = Some(there.saturating_sub(here));
    }

    /// Returns the smoothed round trip, once measured.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Returns the shortest round trip measured.
    #[must_use]
    pub fn rtt_min(&self) -> Option<Duration> {
        self.rtt_min
    }

    /// Returns how far the peer's clock is ahead, in milliseconds.
    #[must_use]
    pub fn skew_ms(&self) -> Option<i64> {
        self.skew_ms
    }

    /// Returns when the peer was last heard of.
    #[must_use]
    pub fn heard_at(&self) -> Mono {
        self.heard_at
    }

    /// Forgives a silence that was ours: nothing could be heard while our own tick was late.
    pub fn forgive(&mut self, now: Mono, late: Duration) {
        sometimes!(LatenessForgiven);
        self.heard_at = self.heard_at.plus(late);
        self.resumed_at = now;
    }

    /// Returns the silence after which the peer is suspected: what is configured, and more on a link whose beats come
    /// unevenly, four beats and four deviations of the round trip (Jacobson, *Congestion Avoidance and Control*, 1988),
    /// up to two seconds.
    #[must_use]
    pub fn patience(&self, suspect_after: Duration, beat_every: Duration) -> Duration {
        let uneven = beat_every.saturating_add(self.jitter).saturating_mul(4).min(UNEVEN_MAX);
        suspect_after.max(uneven)
    }

    /// Judges the silence.
    #[must_use]
    pub fn verdict(&self, now: Mono, suspect_after: Duration, give_up_after: Duration) -> Verdict {
        let silence = now.since(self.heard_at);
        if silence >= give_up_after {
            Verdict::GiveUp
        } else if silence >= suspect_after {
            Verdict::Down
        } else {
            Verdict::Up
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn an_echo_measures_the_round_trip_without_the_time_it_was_held() {
        let mut beats = Beats::new(Mono(0));
        assert!(beats.on_beat(Mono(200 * MS), 1, 7, Some((100 * MS, 20 * MS))));
        assert_eq!(beats.rtt(), Some(Duration::from_millis(80)));
        beats.on_clock(1_000, 1_100);
        assert_eq!(beats.skew_ms(), Some(-60));
        assert_eq!(beats.echo(Mono(205 * MS)), Some((7, 5 * MS)));
    }

    #[test]
    fn an_overtaken_beat_changes_nothing_but_shows_life() {
        let mut beats = Beats::new(Mono(0));
        assert!(beats.on_beat(Mono(MS), 2, 5, None));
        assert!(!beats.on_beat(Mono(2 * MS), 1, 4, None));
        assert_eq!(beats.echo(Mono(2 * MS)), Some((5, MS)));
    }

    #[test]
    fn a_peer_whose_beats_come_unevenly_may_be_silent_for_longer_up_to_a_bound() {
        let (suspect, every) = (Duration::from_millis(500), Duration::from_millis(100));
        let patience = |delays: [u64; 2]| {
            let mut beats = Beats::new(Mono(0));
            for seq in 1..200 {
                let sent = seq * 100 * MS;
                let delay = delays[usize::from(seq % 2 == 0)];
                beats.on_beat(Mono(sent + delay * MS), seq, sent, Some((sent, 0)));
            }
            beats.patience(suspect, every)
        };
        assert_eq!(patience([80, 80]), suspect, "an even path");
        assert_eq!(patience([70, 90]), suspect, "the usual noise");
        let uneven = patience([50, 350]);
        assert!(uneven > suspect * 2 && uneven < UNEVEN_MAX, "{uneven:?}");
        assert_eq!(patience([50, 5_000]), UNEVEN_MAX);
    }

    #[test]
    fn silence_is_judged_by_its_length_and_our_own_lateness_is_forgiven() {
        let (suspect, give_up) = (Duration::from_millis(500), Duration::from_secs(2));
        let mut beats = Beats::new(Mono(0));
        assert_eq!(beats.verdict(Mono(499 * MS), suspect, give_up), Verdict::Up);
        assert_eq!(beats.verdict(Mono(500 * MS), suspect, give_up), Verdict::Down);
        assert_eq!(beats.verdict(Mono(2_000 * MS), suspect, give_up), Verdict::GiveUp);
        beats.forgive(Mono(1_600 * MS), Duration::from_millis(1_600));
        assert_eq!(beats.verdict(Mono(2_000 * MS), suspect, give_up), Verdict::Up);
    }

    #[test]
    fn what_was_said_before_we_went_on_is_no_news_and_measures_nothing() {
        let mut beats = Beats::new(Mono(0));
        assert!(beats.on_beat(Mono(200 * MS), 1, 7, Some((100 * MS, 0))));
        beats.forgive(Mono(60_000 * MS), Duration::from_secs(59));
        for (seq, echo) in [(2, Some((200 * MS, 0))), (3, None)] {
            assert!(!beats.on_beat(Mono(60_010 * MS), seq, 8, echo), "it waited here");
        }
        assert_eq!(beats.rtt(), Some(Duration::from_millis(100)));
        assert_eq!(beats.heard_at(), Mono(60_010 * MS), "but somebody was there");
        assert!(beats.on_beat(Mono(60_150 * MS), 4, 9, Some((60_050 * MS, 0))), "it answers what we said since");
    }
}
