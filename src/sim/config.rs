//! What a cluster is built from.

use std::time::Duration;

use super::edges::{FETCH_TIMEOUT, KEEP_FOR};
use super::network::Weather;
use super::setting::{Carrier, Setting};
use crate::config::{Config, EdgeConfig, StandbyConfig};

/// Bytes that wait for a link of a plan's cluster: the few writes of a plan must be able to fill it.
const LINK_WINDOW: usize = 8 << 10;

/// How often copies are compared: a plan is over within seconds.
const REPAIR_EVERY: Duration = Duration::from_secs(2);

/// What a cluster is built from.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Nodes that start at once; node `i` is in region `r<i>`.
    pub nodes: usize,
    /// Further nodes that are started by hand.
    pub spare: usize,
    /// Whom each node is configured with, by bit; those that have none here know all others.
    pub seeds: Vec<u16>,
    /// Nodes, by bit, that start as standbys, and what they are told then.
    pub standbys: (u64, StandbyConfig),
    /// Nodes, by bit, that are edges, and what they are told then.
    pub edges: (u64, EdgeConfig),
    /// The network.
    pub weather: Weather,
    /// The configuration of every node; peers and region are filled in.
    pub node: Config,
    /// What carries links.
    pub carrier: Carrier,
    /// Nodes, by bit, that speak a later version of the wire format.
    pub newer: u64,
    /// Nodes, by bit, that hold a valid certificate and lie.
    pub liars: u64,
}

impl Default for SimConfig {
    fn default() -> Self {
        let mut node = Config::wan("r0", "sim:0");
        node.limits.partitions = 4;
        Self {
            nodes: 3,
            spare: 0,
            seeds: Vec::new(),
            standbys: (0, StandbyConfig::default()),
            edges: (0, EdgeConfig::default()),
            weather: Weather::default(),
            node,
            carrier: Carrier::default(),
            newer: 0,
            liars: 0,
        }
    }
}

impl From<&Setting> for SimConfig {
    fn from(setting: &Setting) -> Self {
        let mut node = Config::wan("r0", "sim:0");
        node.limits.partitions = setting.partitions;
        node.limits.log_records_max = setting.log_records_max;
        node.limits.keyspace_bytes = setting.keyspace_bytes;
        // A small budget is one for everything.
        let sixteenth = usize::try_from(setting.keyspace_bytes / 16).unwrap_or(usize::MAX);
        node.membership.reissue_bytes = node.membership.reissue_bytes.min(sixteenth);
        node.replication.compress = setting.compress;
        node.replication.express = setting.express;
        node.replication.link_window_bytes = LINK_WINDOW;
        node.repair.every = Some(REPAIR_EVERY);
        if setting.forget_after_ms > 0 {
            let least = node.membership.give_up_after;
            node.membership.forget_after = Some(least.max(Duration::from_millis(setting.forget_after_ms.into())));
        }
        let node = super::workload::declare(node);
        let take_over_after =
            Some(setting.take_over_ms).filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms.into()));
        Self {
            nodes: setting.nodes,
            spare: setting.spare,
            seeds: setting.seeds.clone(),
            standbys: (setting.standbys, StandbyConfig { take_over_after, ..StandbyConfig::default() }),
            edges: (setting.edges, EdgeConfig { keep_for: KEEP_FOR, fetch_timeout: FETCH_TIMEOUT }),
            weather: setting.weather,
            node,
            carrier: setting.carrier,
            newer: setting.newer,
            liars: setting.liars,
        }
    }
}
