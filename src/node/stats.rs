//! What a node counts: plain numbers, read by whoever asks the driver for them.

use std::time::Duration;

use crate::clock::Mono;
use crate::id::{NodeId, RegionId, ReplicaId};
use crate::node::{ClusterView, EdgeStats, Link, Node, Poison, RepairReport, RepairStats};

/// Lags up to this many milliseconds are counted exactly.
const LAG_MS_MAX: usize = 8_192;

/// How long a lag counts at least, and half of how long at most.
const LATELY: Duration = Duration::from_secs(10);

/// The longest lag of the last ten to twenty seconds: what a view shows, which an hour of good or bad lags must not outweigh.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecentLag {
    begun: Mono,
    now_ms: Option<u64>,
    before_ms: Option<u64>,
}

impl RecentLag {
    /// Takes a lag in.
    pub fn record(&mut self, now: Mono, ms: u64) {
        *self = self.turned(now);
        self.now_ms = self.now_ms.max(Some(ms));
    }

    /// Returns the longest lag in milliseconds, if anything came lately.
    #[must_use]
    pub fn longest_ms(&self, now: Mono) -> Option<u64> {
        let Self { now_ms, before_ms, .. } = self.turned(now);
        now_ms.max(before_ms)
    }

    fn turned(self, now: Mono) -> Self {
        match now.since(self.begun) {
            age if age < LATELY => self,
            age if age < LATELY * 2 => Self { begun: now, now_ms: None, before_ms: self.now_ms },
            _ => Self { begun: now, now_ms: None, before_ms: None },
        }
    }
}

/// Milliseconds from a write's stamp to its application here, counted exactly up to 8 s.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct LagHistogram {
    counts: Vec<u32>,
    total: u64,
}

impl std::fmt::Debug for LagHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LagHistogram(n {}, p50 {:?} ms, p99 {:?} ms)", self.total, self.quantile(0.5), self.quantile(0.99))
    }
}

impl LagHistogram {
    /// Counts one write.
    pub fn record(&mut self, ms: u64) {
        let at = usize::try_from(ms).unwrap_or(LAG_MS_MAX).min(LAG_MS_MAX);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_add(1);
            self.total += 1;
        }
    }

    /// Returns how many writes were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.total
    }

    /// Tells whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Returns each lag in milliseconds that occurred and how often it did, in order.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        (0..).zip(&self.counts).filter(|(_, count)| **count > 0).map(|(ms, count)| (ms, u64::from(*count)))
    }

    /// Returns the milliseconds that the share `q` of the writes did not exceed.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let mut left = self.rank(q)?;
        for (ms, count) in self.counts.iter().enumerate() {
            left = left.saturating_sub(u64::from(*count));
            if left == 0 {
                return u64::try_from(ms).ok();
            }
        }
        None
    }

    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rank within a count far below 2^53"
    )]
    fn rank(&self, q: f64) -> Option<u64> {
        (self.total > 0).then(|| ((self.total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, self.total))
    }
}

/// Counters of one link, both ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Frames sent.
    pub frames_out: u64,
    /// Fragments sent.
    pub fragments_out: u64,
    /// Bytes of those frames as they left.
    pub bytes_out: u64,
    /// Bytes of those frames before compression.
    pub raw_bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Fragments received.
    pub fragments_in: u64,
    /// Bytes of those frames as they came.
    pub bytes_in: u64,
    /// Dots that were new here.
    pub news_in: u64,
}

/// One peer as this node sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerStats {
    /// Its node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// Its running copy.
    pub replica: ReplicaId,
    /// Whether it has joined.
    pub joined: bool,
    /// Whether it was heard of lately.
    pub up: bool,
    /// Whether it has been sent everything there is.
    pub level: bool,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// How far its clock is ahead in milliseconds.
    pub skew_ms: Option<i64>,
    /// When its certificate expires, in Unix milliseconds.
    pub certificate_expires_ms: u64,
    /// What went over the link.
    pub traffic: Traffic,
    /// Lag of its writes here.
    pub lag: LagHistogram,
}

/// The node's view and counters.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Stats {
    /// Whether this node has joined.
    pub joined: bool,
    /// The members, whether they can be reached, and their regions.
    pub cluster: ClusterView,
    /// Peers with a link.
    pub peers: Vec<PeerStats>,
    /// Pairs of concurrent writes of which one lost.
    pub conflicts: u64,
    /// Batches dropped because they predate what is stable here.
    pub stale_batches: u64,
    /// Partitions received in full.
    pub full_syncs: u64,
    /// Fragments that could not be joined, as often as they came.
    pub quarantined: u64,
    /// Those whose events are still missing.
    pub poisons: Vec<Poison>,
    /// Frames that waited for the wall clock to come near their stamps.
    pub penned_frames: u64,
    /// Bytes of all frames sent over any link, also one that has ended, as they left.
    pub bytes_out: u64,
    /// Bytes of those frames before compression.
    pub raw_bytes_out: u64,
    /// Comparisons of copies.
    pub repair: RepairStats,
    /// How far the comparison has come that somebody waits for.
    pub repairing: Option<RepairReport>,
    /// How often a peer that answered a read at a level with less than was here was given that.
    pub mended: u64,
    /// What an edge has given back and fetched.
    pub edge: EdgeStats,
    /// Log records kept.
    pub log_records: u64,
    /// Keys with an entry, visible or not.
    pub keys: u64,
}

impl Node {
    /// Returns the view and counters of this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let partitions = || self.store.partition_ids().filter_map(|id| self.store.read(id));
        let sum = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Stats {
            joined: self.join.is_joined(),
            cluster: self.cluster(),
            peers: self.links.values().filter_map(Link::stats).collect(),
            poisons: self.quarantine.iter().cloned().collect(),
            log_records: partitions().map(|p| sum(p.log_len())).sum(),
            keys: partitions().map(|p| sum(p.len())).sum(),
            repairing: self.repair_progress(),
            ..self.stats.clone()
        }
    }

    /// Forgets the lag measured so far: a phase of a measurement begins.
    pub fn reset_lag(&mut self) {
        for session in self.links.values_mut().filter_map(|link| link.session.as_deref_mut()) {
            session.lag = LagHistogram::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recent_lag_is_forgotten_within_twenty_seconds() {
        let (at, mut lag) = (|s: u64| Mono(s * 1_000_000_000), RecentLag::default());
        [(100, 60_000), (101, 30), (109, 40)].into_iter().for_each(|(s, ms)| lag.record(at(s), ms));
        assert_eq!(lag.longest_ms(at(109)), Some(60_000));
        lag.record(at(111), 50);
        assert_eq!(lag.longest_ms(at(112)), Some(60_000));
        lag.record(at(122), 20);
        assert_eq!(lag.longest_ms(at(122)), Some(50));
        assert_eq!(lag.longest_ms(at(200)), None);
    }

    #[test]
    fn quantiles_are_the_smallest_value_that_covers_the_share() {
        let mut lag = LagHistogram::default();
        (1..=100).for_each(|ms| lag.record(ms));
        assert_eq!((lag.quantile(0.5), lag.quantile(0.99), lag.quantile(1.0)), (Some(50), Some(99), Some(100)));
        lag.record(u64::MAX);
        lag.record(7);
        assert_eq!(lag.quantile(1.0), Some(8_192));
        assert_eq!(
            lag.counts().filter(|(ms, n)| *n != 1 || *ms > 99).collect::<Vec<_>>(),
            [(7, 2), (100, 1), (8_192, 1)]
        );
        assert_eq!(LagHistogram::default().quantile(0.5), None);
    }

    #[test]
    fn an_empty_histogram_becomes_one_of_as_many_writes_as_were_counted() {
        let mut lag = LagHistogram::default();
        assert!(lag.is_empty());
        [3, 3, u64::MAX].into_iter().for_each(|ms| lag.record(ms));
        assert_eq!((lag.is_empty(), lag.len()), (false, 3));
        assert_eq!(format!("{lag:?}"), "LagHistogram(n 3, p50 Some(3) ms, p99 Some(8192) ms)");
    }
}
