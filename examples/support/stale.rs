//! A steady load of writes at one node of a cluster in virtual time, and how late another one shows them.
//!
//! Real QUIC. A key is *stale* at the other node from the instant its value there was overwritten at the writer; a value's
//! *age* is how old it was when it arrived there.
//!
//! # Invariants
//! * A figure follows from the seed and the options.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use driftless::crdt::NEVER;
use driftless::sim::{Action, Carrier, SimCluster, SimConfig, Weather};
use driftless::store::{Body, Family, KeyRef, Keyspace};
use indicatif::ProgressBar;

/// The node that writes, and the one that is looked at.
pub(crate) const WRITER: usize = 0;
pub(crate) const BEHIND: usize = 1;
/// How often writes are made, and how often staleness is looked at.
pub(crate) const STEP: Duration = Duration::from_millis(1);
pub(crate) const LOOK_EVERY: u32 = 5;
/// How long a cluster may take to form.
const FORMS_WITHIN: Duration = Duration::from_secs(10);

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Writes a second.
    pub(crate) writes: u64,
    /// Keys they are spread over.
    pub(crate) keys: u64,
    /// Bytes of a value, all random.
    pub(crate) value: usize,
}

/// How stale keys were at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The median and the 99th percentile over all keys.
    pub(crate) stale: (Duration, Duration),
    /// How old each value was that had come since the last look.
    pub(crate) ages: Vec<Duration>,
}

/// A cluster and what was written to it.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) cluster: SimCluster,
    rng: fastrand::Rng,
    pub(crate) space: [Arc<Keyspace>; 2],
    /// Of each key, when each of its values was written.
    written: Vec<Vec<Duration>>,
    /// Of each key, how many of them had been written when the one was that came last.
    came: Vec<u32>,
    rate: Rate,
    /// The most bytes that were ever queued for a link of the writer.
    pub(crate) queued: u64,
    /// Writes due, in thousandths.
    due: u64,
}

impl Load {
    pub(crate) fn new(rate: Rate, rtt: Duration, mut config: SimConfig, seed: u64) -> Result<Self, Box<dyn Error>> {
        config.weather = Weather { delay_min: rtt / 2, delay_max: rtt / 2, loss: 0.0, ..Weather::default() };
        config.carrier = Carrier::Quic;
        let mut cluster = SimCluster::new(seed, config)?;
        let joined = |c: &SimCluster| (0..c.len()).all(|at| c.node(at).is_some_and(|node| node.stats().joined));
        cluster.run_until(FORMS_WITHIN, joined).ok_or("the cluster does not form")?;
        let open = |cluster: &SimCluster, at| {
            let store = cluster.store(at).ok_or("a node is missing")?;
            store.spaces().open("keys", Family::Register).map_err(|error| error.to_string())
        };
        let space = [open(&cluster, WRITER)?, open(&cluster, BEHIND)?];
        let (rng, keys) = (fastrand::Rng::with_seed(seed), usize::try_from(rate.keys)?);
        let (written, came) = (vec![Vec::new(); keys], vec![0; keys]);
        Ok(Self { cluster, rng, space, written, came, rate, queued: 0, due: 0 })
    }

    /// Writes for a while to a node whose link is so wide, and looks at it now and then.
    pub(crate) fn phase(&mut self, lasts: Duration, mbit: u16, bar: &ProgressBar) -> Result<Vec<Look>, Box<dyn Error>> {
        let (at, bytes_per_ms) = (u8::try_from(BEHIND)?, mbit.saturating_mul(125));
        self.cluster.perform(Action::Slow { at, bytes_per_ms });
        let mut looks = Vec::new();
        for step in 1..=u32::try_from(lasts.as_millis() / STEP.as_millis())? {
            self.due += self.rate.writes;
            while self.due >= 1_000 {
                self.due -= 1_000;
                self.write()?;
            }
            self.cluster.run_for(STEP);
            if step.is_multiple_of(LOOK_EVERY) {
                looks.push(self.look());
            }
            if step.is_multiple_of(1_000) {
                bar.inc(1);
            }
        }
        Ok(looks)
    }

    fn write(&mut self) -> Result<(), Box<dyn Error>> {
        let key = self.rng.usize(..self.written.len());
        let versions = self.written.get_mut(key).ok_or("a key is missing")?;
        versions.push(self.cluster.elapsed());
        let mut value = u32::try_from(versions.len())?.to_be_bytes().to_vec();
        value.resize_with(self.rate.value.max(4), || self.rng.u8(..));
        let (space, name, value) = (&self.space[WRITER], key.to_be_bytes(), Bytes::from(value));
        let key = KeyRef::new(space, &name);
        self.cluster.write(WRITER, &key, Some(value.len()), |p, tick| p.set(&key, value, NEVER, tick))?;
        Ok(())
    }

    fn look(&mut self) -> Look {
        let queued = self.cluster.gauges(WRITER).and_then(|gauges| gauges.of("queued bytes of a link"));
        self.queued = self.queued.max(queued.map_or(0, |gauge| gauge.size));
        let now = self.cluster.elapsed();
        let (mut stale, mut ages) = (Vec::with_capacity(self.written.len()), Vec::new());
        let shown: Vec<u32> = (0..self.written.len()).map(|key| self.shown(key)).collect();
        for ((versions, came), shown) in self.written.iter().zip(&mut self.came).zip(shown) {
            let at = |nth: u32| versions.get(usize::try_from(nth).unwrap_or(usize::MAX)).map(|at| now - *at);
            stale.push(at(shown).unwrap_or_default());
            if shown > *came {
                ages.extend(at(shown - 1));
                *came = shown;
            }
        }
        Look { stale: quantiles(stale), ages }
    }

    /// The number of the value a key has behind the link; 0 if it has none there.
    fn shown(&self, key: usize) -> u32 {
        let (space, name) = (&self.space[BEHIND], key.to_be_bytes());
        let value = self.cluster.store(BEHIND).and_then(|store| {
            store.with_entry(&KeyRef::new(space, &name), |entry| match &entry?.body {
                Body::Register(cell) => cell.as_ref()?.visible(0).cloned(),
                Body::Tree(_) | Body::Custom(_) => None,
            })
        });
        value.and_then(|value| value.first_chunk().copied()).map_or(0, u32::from_be_bytes)
    }
}

/// The median over time of the median key, and the worst moment's 99th percentile.
pub(crate) fn stale(looks: &[Look]) -> (Duration, Duration) {
    let median = quantiles(looks.iter().map(|look| look.stale.0).collect()).0;
    (median, looks.iter().map(|look| look.stale.1).max().unwrap_or_default())
}

pub(crate) fn ages(looks: &[Look]) -> (Duration, Duration) {
    quantiles(looks.iter().flat_map(|look| &look.ages).copied().collect())
}

/// Returns the median and the 99th percentile.
fn quantiles(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    let at = |percent: usize| all.get(all.len() * percent / 100).copied().unwrap_or_default();
    (at(50), at(99))
}
