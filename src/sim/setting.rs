//! What a cluster of a plan is built of.
//!
//! # Invariants
//! * [`Setting::bounded`] changes nothing in a setting that is within the bounds, and every setting it returns is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::network::Weather;

/// What a cluster is built of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Setting {
    /// Nodes that are started at once. Node `i` is in region `r<i>`.
    pub nodes: usize,
    /// Further nodes, started by [`Action::Start`](super::Action::Start) or never.
    pub spare: usize,
    /// Whom each host is configured with, by bit; empty means all others. Each knows enough of them to be found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u16>,
    /// Partitions of the key space.
    pub partitions: usize,
    /// Log records a store keeps over all partitions.
    pub log_records_max: usize,
    /// Bytes a keyspace may take.
    pub keyspace_bytes: u64,
    /// Frames are compressed.
    pub compress: bool,
    /// Frames of one packet may overtake others.
    pub express: bool,
    /// Writes have deadlines of at most so many milliseconds; 0 means none.
    pub ttl_ms_max: u64,
    /// Every fourth value has up to so many bytes instead of a few; 0 means none has. Frames, synchronisations, maps,
    /// windows and pens then meet their limits.
    pub value_bytes: usize,
    /// Members unreachable for so many milliseconds are given up; 0 means after hours.
    #[serde(skip_serializing_if = "is_none")]
    pub forget_after_ms: u32,
    /// Nodes, by bit, that start as standbys.
    #[serde(skip_serializing_if = "is_nobody")]
    pub standbys: u64,
    /// How long nobody active must be reachable before standbys take over; 0 means that they never do by themselves.
    #[serde(skip_serializing_if = "is_none")]
    pub take_over_ms: u32,
    /// Nodes, by bit, that are edges; the first one never is.
    #[serde(skip_serializing_if = "is_nobody")]
    pub edges: u64,
    /// How links behave.
    pub weather: Weather,
    /// What carries links.
    pub carrier: Carrier,
    /// Nodes, by bit, that speak a later version of the wire format: a larger version number and fields nobody knows.
    pub newer: u64,
    /// Nodes, by bit, that hold a valid certificate and lie: see [`Action::Forge`](super::Action::Forge). They write nothing.
    pub liars: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            nodes: 3,
            spare: 0,
            seeds: Vec::new(),
            partitions: 2,
            log_records_max: 1 << 16,
            keyspace_bytes: 1 << 30,
            compress: true,
            express: true,
            ttl_ms_max: 0,
            value_bytes: 0,
            forget_after_ms: 0,
            standbys: 0,
            take_over_ms: 0,
            edges: 0,
            weather: Weather::default(),
            carrier: Carrier::Messages,
            newer: 0,
            liars: 0,
        }
    }
}

/// What carries links.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Carrier {
    /// Messages on ordered streams, with faults per message: fast.
    #[default]
    Messages,
    /// `quinn-proto`, with faults per packet: handshakes, flow control, resets. Needs the feature `net`.
    Quic,
}

impl Setting {
    pub(super) fn bounded(&self) -> Self {
        let nodes = self.nodes.clamp(1, HOSTS_MAX);
        let weather = self.weather;
        let delay_max = weather.delay_max.min(DELAY_MAX);
        Self {
            nodes,
            spare: self.spare.min(HOSTS_MAX - nodes),
            seeds: self.seeds.iter().copied().take(HOSTS_MAX).collect(),
            partitions: self.partitions.clamp(1, PARTITIONS_MAX).next_power_of_two(),
            log_records_max: self.log_records_max.max(1),
            take_over_ms: self.take_over_ms.min(TAKE_OVER_MS_MAX),
            edges: self.edges & !self.standbys & !1,
            value_bytes: self.value_bytes.min(VALUE_BYTES_MAX),
            weather: Weather {
                delay_min: weather.delay_min.min(delay_max),
                delay_max,
                loss: rate(weather.loss),
                duplicate: rate(weather.duplicate),
                corrupt: rate(weather.corrupt),
                bursts: None,
            },
            carrier: if cfg!(feature = "net") { self.carrier } else { Carrier::Messages },
            ..self.clone()
        }
    }
}

fn rate(rate: f64) -> f64 {
    if rate.is_nan() { 0.0 } else { rate.clamp(0.0, RATE_MAX) }
}

/// Nodes and spares together.
pub const HOSTS_MAX: usize = 9;
/// More partitions than this make runs slow and nothing collide.
const PARTITIONS_MAX: usize = 16;
/// What a map may hold: four regions that each fill one keep it within a frame.
const VALUE_BYTES_MAX: usize = 256 << 10;
/// Well within the time after which nothing may be left to do.
const TAKE_OVER_MS_MAX: u32 = 5_000;
const DELAY_MAX: Duration = Duration::from_secs(10);
/// A network that loses everything converges never.
const RATE_MAX: f64 = 0.9;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(ms: &u32) -> bool {
    *ms == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_nobody(bits: &u64) -> bool {
    *bits == 0
}
