//! How a node is told what it is: plain nested structs, checked once.
//!
//! Every field says what it means, its unit, its default, and what too small and too big do.
//! Nothing here reads the environment; channel lengths and retry counts are constants beside
//! their users.

mod roles;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use roles::{EdgeConfig, StandbyConfig, StandsInFor};

use crate::crdt::custom::MergeState;
use crate::error::ConfigError;
use crate::id::{NodeId, RegionId};
use crate::store::keyspace::CUSTOM_KEYSPACES_MAX;
use crate::store::{PARTITIONS_MAX, StoreConfig};

/// Where a certificate or key comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A PEM file.
    File(PathBuf),
    /// PEM text.
    Text(Vec<u8>),
}

/// Never shows the text: it may be a private key.
impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

/// The node's certificate chain, its private key and the cluster's CAs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityConfig {
    /// The node's certificate, which names its region and node, then any intermediates.
    pub certificate: Pem,
    /// The private key of that certificate.
    pub key: Pem,
    /// The certificates of the CAs whose nodes may join; several while a CA is replaced.
    pub authorities: Pem,
}

impl IdentityConfig {
    /// Names `node.pem`, `node.key` and `ca.pem` in a directory.
    #[must_use]
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            certificate: Pem::File(dir.join("node.pem")),
            key: Pem::File(dir.join("node.key")),
            authorities: Pem::File(dir.join("ca.pem")),
        }
    }
}

/// Who this node is and whom it knows.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Name of the cluster, at most 256 bytes; nodes of another name are refused. Default `driftless`.
    pub cluster: String,
    /// The region this node is in, at most 256 bytes. Must be the one its certificate names.
    pub region: RegionId,
    /// The node's stable identity; `None` takes it from the certificate, which is the default.
    pub node: Option<NodeId>,
    /// UDP address to listen on and dial from, `host:port`; port 0 picks a free one.
    pub listen: String,
    /// Addresses of other nodes, `host:port`: of all, or of some through whom the others are found; then say how many there
    /// are in [`expected_nodes`](MembershipConfig::expected_nodes). They need not be up, and one that leads to this node
    /// itself does no harm. Names are resolved at every dial, and each address behind one is tried in its turn. Whoever is
    /// started must be found from whoever else is, by some chain of these. Collection of deleted keys waits until each was
    /// met once, so remove the ones that will never come.
    pub peers: Vec<String>,
    /// Where others can dial this node, `host:port`, at most 4 of at most 256 bytes, the best first. Members tell each other,
    /// so that those find it that are not configured with its address. Default `None`: the address it listens on, unless that
    /// is unspecified (`0.0.0.0`, `[::]`). Of a node that says nothing, also with an empty list, only those find it that have
    /// its address, and those that it dials itself: right where each of the others has another way to it.
    pub advertise: Option<Vec<String>>,
    /// Start as a standby, which has everything, takes no writes and takes over when nobody active can be reached. Default
    /// `None`: active, as all nodes of an active-active cluster are.
    pub standby: Option<StandbyConfig>,
    /// Start as an edge, which takes reads and few writes near its clients, keeps of registers only what is read there, and
    /// fetches the others from the nearest node that holds everything. It needs `peers`, founds no cluster, and counts
    /// towards no level that a write has to reach. Default `None`: this node holds everything. Not together with `standby`.
    pub edge: Option<EdgeConfig>,
    /// Certificate, key and CAs; required.
    pub identity: Option<IdentityConfig>,
}

/// How writes travel.
#[derive(Clone, Debug)]
pub struct ReplicationConfig {
    /// How long a write may wait for others to share its frame. Default 2 ms. Zero sends each write
    /// alone (about three times the packets at 1,000 writes/s); more adds its whole length to the lag.
    pub linger: Duration,
    /// How often received writes are acknowledged. Default 20 ms. Less costs packets, more delays
    /// receipts.
    pub report_every: Duration,
    /// Bytes handed to a link and not yet taken by QUIC before further writes to it are coalesced
    /// by key. Default 256 KiB. More lets stale values queue up on a slow link.
    pub link_window_bytes: usize,
    /// Age at which a tombstone known to every member may be collected, once copies were compared ([`RepairConfig`]).
    /// Default 10 s; must be more than twice `max_drift`, or a joiner may write below it.
    pub collect_after: Duration,
    /// Send frames of one packet on streams of their own, so that a lost packet delays only its own
    /// writes. Default on. Off puts all
    /// frames on one ordered stream, where each waits for a lost one before it.
    pub express: bool,
    /// Compress frames. Default on; off is faster inside one data centre.
    pub compress: bool,
    /// Ignore random loss while the queue is short. Default off: it is unfair to other traffic on
    /// shared links, and right on dedicated ones.
    pub loss_tolerant: bool,
}

/// How copies are compared.
#[derive(Clone, Debug)]
pub struct RepairConfig {
    /// How often the copies of each pair of members are compared, give or take a tenth. Default 10 s; a pair that is equal
    /// costs about 600 bytes each time. Less finds silent loss sooner, and lets tombstones go sooner; `None` compares only
    /// when it is asked for, and tombstones wait for no comparison.
    pub every: Option<Duration>,
    /// Bytes a second one node sends to restore what differs, to all its peers together and in the long run: what was sent is
    /// paid for before more is. Default 1 MiB, at least 1,000. More repairs sooner; much more than a tenth of a path delays the
    /// writes on it.
    pub bytes_per_second: u64,
}

/// How nodes watch each other.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// How often a heartbeat is sent on every link. Default 100 ms.
    pub beat_every: Duration,
    /// Silence after which a member is suspected; it counts as unreachable once half of those that can be heard agree.
    /// Default 500 ms. Less raises false alarms on lossy links.
    pub suspect_after: Duration,
    /// Silence after which a link is given up and dialled again. Default 1.5 s.
    pub give_up_after: Duration,
    /// How far a peer's clock may be ahead. Default 1 s.
    pub max_drift: Duration,
    /// How long a member must be unreachable to a majority of all members, without a break, for them to remove it. Until
    /// then nothing that it has not seen is forgotten: deleted and expired keys keep their names and about 160 bytes each.
    /// Who is removed begins again, see `comes_back`. Half of the members remove nobody, so of two
    /// neither is ever removed. Default six hours; `None` leaves it to operators.
    pub forget_after: Option<Duration>,
    /// How many nodes the cluster has at least once all were started, this one included and edges left out. Default 0: as many
    /// as there are `peers`, and this one; set it where `peers` names some of the others only. A quorum is a majority of so many, however
    /// few have been met; who is connected to fewer founds a cluster only after `solo_after`; and nothing that was deleted is
    /// forgotten before so many nodes have joined. Too small, and what was deleted in one part of a cluster that began in two
    /// may show again when they meet; too large, and no quorum is reached and nothing forgotten.
    pub expected_nodes: usize,
    /// Whether a node whose replica was removed comes back by itself, empty and as another replica, unless an operator
    /// removed it or another copy of it has its place; then, or with `false`, it waits for
    /// [`Cache::rejoin`](crate::Cache::rejoin) or a restart. Default true.
    pub comes_back: bool,
    /// Bytes of register writes and deletions that a node whose replica was removed keeps to write them again as its next
    /// replica, if nobody else had received them and nothing has been written in their place since. 0 writes nothing again.
    /// Default 16 MiB; of more the oldest are lost.
    pub reissue_bytes: usize,
    /// How long a node looks for a cluster to join before it founds one alone. Default 2 s. Less
    /// may found two clusters when all nodes start at once.
    pub solo_after: Duration,
}

/// What is refused, and what is bounded.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Hash slices of the key space: a power of two up to 4,096, the same in every node. Default
    /// 64. More means less lock contention and longer reports.
    pub partitions: usize,
    /// Longest key in bytes. Default and most 64 KiB.
    pub key_bytes_max: usize,
    /// Largest value in bytes. Default and most 512 KiB.
    pub value_bytes_max: usize,
    /// Log records kept over all partitions. Default 4 Mi (16 MiB). Peers behind a dropped record
    /// receive whole partitions instead of single writes.
    pub log_records_max: usize,
    /// Bytes a keyspace may take unless given its own budget. Default 1 GiB. Past it writes that
    /// need room are refused; writes of others still arrive.
    pub keyspace_bytes: u64,
}

/// A custom type declared for a keyspace.
#[derive(Clone, Debug)]
pub struct CustomType {
    /// The keyspace. Each may be declared once.
    pub keyspace: String,
    /// Name and version of the type, at most 256 bytes; peers with another one are refused.
    pub type_name: String,
    /// How two states merge.
    pub merge: Arc<dyn MergeState>,
}

/// Everything a node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this node is and whom it knows.
    pub node: NodeConfig,
    /// How writes travel.
    pub replication: ReplicationConfig,
    /// How copies are compared.
    pub repair: RepairConfig,
    /// How nodes watch each other.
    pub membership: MembershipConfig,
    /// What is refused, and what is bounded.
    pub limits: Limits,
    /// Custom types, by keyspace.
    pub custom: Vec<CustomType>,
}

impl NodeConfig {
    /// Returns where others are told to dial this node.
    pub(crate) fn advertised(&self) -> &[String] {
        self.advertise.as_deref().unwrap_or_default()
    }
}

impl Config {
    /// Returns the settings for regions apart: the defaults of every field.
    #[must_use]
    pub fn wan(region: &str, listen: &str) -> Self {
        let node = NodeConfig {
            cluster: "driftless".to_owned(),
            region: RegionId::new(region),
            node: None,
            listen: listen.to_owned(),
            peers: Vec::new(),
            advertise: None,
            standby: None,
            edge: None,
            identity: None,
        };
        Self {
            node,
            replication: ReplicationConfig::default(),
            repair: RepairConfig::default(),
            membership: MembershipConfig::default(),
            limits: Limits::default(),
            custom: Vec::new(),
        }
    }

    /// Returns settings for a laptop: as [`Config::wan`], but a node found alone starts after
    /// 300 ms, and nothing is compressed.
    #[must_use]
    pub fn dev(region: &str, listen: &str) -> Self {
        let mut config = Self::wan(region, listen);
        config.membership.solo_after = Duration::from_millis(300);
        config.replication.compress = false;
        config
    }

    /// Names the other nodes.
    #[must_use]
    pub fn peers<S: Into<String>>(mut self, peers: impl IntoIterator<Item = S>) -> Self {
        self.node.peers = peers.into_iter().map(Into::into).collect();
        self
    }

    /// Says where others can dial this node.
    #[must_use]
    pub fn advertise<S: Into<String>>(mut self, addresses: impl IntoIterator<Item = S>) -> Self {
        self.node.advertise = Some(addresses.into_iter().map(Into::into).collect());
        self
    }

    /// Starts as a standby.
    #[must_use]
    pub fn standby(mut self, standby: StandbyConfig) -> Self {
        self.node.standby = Some(standby);
        self
    }

    /// Starts as an edge.
    #[must_use]
    pub fn edge(mut self, edge: EdgeConfig) -> Self {
        self.node.edge = Some(edge);
        self
    }

    /// Says where certificate, key and CAs are.
    #[must_use]
    pub fn identity(mut self, identity: IdentityConfig) -> Self {
        self.node.identity = Some(identity);
        self
    }

    /// Declares the custom type of a keyspace. `type_name` is compared with the peers'.
    #[must_use]
    pub fn custom(mut self, keyspace: &str, type_name: &str, merge: Arc<dyn MergeState>) -> Self {
        let (keyspace, type_name) = (keyspace.to_owned(), type_name.to_owned());
        self.custom.push(CustomType { keyspace, type_name, merge });
        self
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that cannot work. Nothing was started.
    pub fn check(&self) -> Result<(), ConfigError> {
        let partitions = self.limits.partitions;
        if !partitions.is_power_of_two() || partitions > PARTITIONS_MAX {
            return Err(ConfigError::Partitions { partitions });
        }
        for (at, peer) in self.node.peers.iter().enumerate() {
            if self.node.peers.iter().skip(at + 1).any(|other| other == peer) {
                return Err(ConfigError::DuplicatePeer { peer: peer.clone() });
            }
        }
        let m = &self.membership;
        // What cannot be doubled is more than anything can be.
        let over_twice = |long: Duration, short: Duration| short.checked_mul(2).is_some_and(|twice| long > twice);
        let is_name = |text: &str| (1..=NAME_BYTES_MAX).contains(&text.len());
        let twice = |(at, c): (usize, &CustomType)| self.custom.iter().skip(at + 1).any(|o| o.keyspace == c.keyspace);
        let edge = self.node.edge.as_ref();
        let rules: [(bool, &'static str, &'static str); 21] = [
            (is_name(&self.node.cluster), "node.cluster", "must have from 1 to 256 bytes"),
            (is_name(self.node.region.as_str()), "node.region", "must have from 1 to 256 bytes"),
            (edge.is_none() || self.node.standby.is_none(), "node.edge", "must not be set together with node.standby"),
            (edge.is_none() || !self.node.peers.is_empty(), "node.edge", "needs peers: an edge founds no cluster"),
            (edge.is_none_or(|edge| !edge.keep_for.is_zero()), "node.edge.keep_for", "must not be zero"),
            (edge.is_none_or(|edge| !edge.fetch_timeout.is_zero()), "node.edge.fetch_timeout", "must not be zero"),
            (self.node.advertised().len() <= ADDRESSES_MAX, "node.advertise", "must be at most 4"),
            (self.node.advertised().iter().all(|a| is_name(a)), "node.advertise", "must have from 1 to 256 bytes"),
            (self.custom.iter().all(|c| is_name(&c.type_name)), "custom.type_name", "must have from 1 to 256 bytes"),
            (!self.custom.iter().enumerate().any(twice), "custom.keyspace", "must not be declared twice"),
            (self.custom.len() <= CUSTOM_KEYSPACES_MAX, "custom", "must be at most 512"),
            (
                over_twice(self.replication.collect_after, m.max_drift),
                "replication.collect_after",
                "must be more than twice membership.max_drift",
            ),
            (self.replication.link_window_bytes >= 1024, "replication.link_window_bytes", "must be at least 1024"),
            (self.repair.every.is_none_or(|every| !every.is_zero()), "repair.every", "must not be zero"),
            (self.repair.bytes_per_second >= 1_000, "repair.bytes_per_second", "must be at least 1000"),
            (!m.beat_every.is_zero(), "membership.beat_every", "must not be zero"),
            (over_twice(m.suspect_after, m.beat_every), "membership.suspect_after", "must be more than two beats"),
            (m.give_up_after >= m.suspect_after, "membership.give_up_after", "must not be below suspect_after"),
            (
                m.forget_after.is_none_or(|after| after >= m.give_up_after),
                "membership.forget_after",
                "must not be below give_up_after",
            ),
            (
                (1..=KEY_BYTES_MAX).contains(&self.limits.key_bytes_max),
                "limits.key_bytes_max",
                "must be from 1 to 65536",
            ),
            (
                (1..=VALUE_BYTES_MAX).contains(&self.limits.value_bytes_max),
                "limits.value_bytes_max",
                "must be from 1 to 524288",
            ),
        ];
        match rules.into_iter().find(|(holds, _, _)| !holds) {
            Some((_, field, why)) => Err(ConfigError::Field { field, why }),
            None => Ok(()),
        }
    }

    /// Returns the sizes of the store.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        StoreConfig {
            partitions: self.limits.partitions,
            hash_key: cluster_key(&self.node.cluster),
            log_records_max: self.limits.log_records_max,
            keyspace_bytes: self.limits.keyspace_bytes,
            key_bytes_max: self.limits.key_bytes_max,
            value_bytes_max: self.limits.value_bytes_max,
            is_edge: self.node.edge.is_some(),
        }
    }
}

/// The key that places keys, from the cluster's name: the same in every node without a secret to
/// hand out. Somebody who knows the name can aim keys at one partition; certificates decide who may.
fn cluster_key(cluster: &str) -> [u8; 16] {
    use siphasher::sip128::{Hasher128, SipHasher13};
    use std::hash::Hasher;
    let mut hasher = SipHasher13::new_with_keys(0x6472_6966_746c_6573, 0x7300_0000_0000_0001);
    hasher.write(cluster.as_bytes());
    hasher.finish128().as_bytes()
}

/// Longest name of a cluster, region or custom type that a hello carries.
pub const NAME_BYTES_MAX: usize = 256;
/// Most addresses of one node that members tell each other.
pub const ADDRESSES_MAX: usize = 4;
/// Longest key a frame carries.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Largest value a frame carries.
pub const VALUE_BYTES_MAX: usize = crate::crdt::custom::STATE_BYTES_MAX;

impl Default for RepairConfig {
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(10)), bytes_per_second: 1 << 20 }
    }
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(2),
            report_every: Duration::from_millis(20),
            link_window_bytes: 256 * 1024,
            collect_after: Duration::from_secs(10),
            express: true,
            compress: true,
            loss_tolerant: false,
        }
    }
}

/// How soon a silent member is given up. Everybody in a cluster should have the same: who beats seldom is suspected by who
/// is impatient. The defaults, [`MembershipConfig::wan`], are for regions an ocean apart.
impl MembershipConfig {
    /// Regions apart: a beat every 100 ms, suspected after 500 ms. All agree within a second; 5 % of loss alarms nobody.
    #[must_use]
    pub fn wan() -> Self {
        Self {
            beat_every: Duration::from_millis(100),
            suspect_after: Duration::from_millis(500),
            give_up_after: Duration::from_millis(1_500),
            max_drift: Duration::from_secs(1),
            forget_after: Some(Duration::from_secs(6 * 3_600)),
            expected_nodes: 0,
            comes_back: true,
            reissue_bytes: 16 << 20,
            solo_after: Duration::from_secs(2),
        }
    }

    /// Good paths, and a quarter of a second sooner: a beat every 50 ms, suspected after 350 ms. A gap of 300 ms in the
    /// network is an alarm now and then.
    #[must_use]
    pub fn fast() -> Self {
        Self::watching(50, 350, 1_050)
    }

    /// One building: a beat every 20 ms, suspected after 150 ms. Not for paths of more than a few milliseconds, nor for
    /// machines that are now and then busy for longer.
    #[must_use]
    pub fn lan() -> Self {
        Self::watching(20, 150, 600)
    }

    /// Three checks of five seconds: suspected after 15 s. For who routes by something else and wants no noise.
    #[must_use]
    pub fn relaxed() -> Self {
        Self::watching(5_000, 15_000, 45_000)
    }

    /// Half a minute of silence: a beat every 10 s, suspected after 30 s.
    #[must_use]
    pub fn slow() -> Self {
        Self::watching(10_000, 30_000, 60_000)
    }

    fn watching(beat_ms: u64, suspect_ms: u64, give_up_ms: u64) -> Self {
        let [beat_every, suspect_after, give_up_after] = [beat_ms, suspect_ms, give_up_ms].map(Duration::from_millis);
        Self { beat_every, suspect_after, give_up_after, ..Self::wan() }
    }
}

/// [`MembershipConfig::wan`].
impl Default for MembershipConfig {
    fn default() -> Self {
        Self::wan()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            partitions: 64,
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            log_records_max: 4 << 20,
            keyspace_bytes: 1 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_pass_their_own_check() {
        assert_eq!(Config::wan("eu", "127.0.0.1:0").check(), Ok(()));
        assert_eq!(Config::dev("eu", "127.0.0.1:0").check(), Ok(()));
        use MembershipConfig as M;
        for membership in [M::wan(), M::fast(), M::lan(), M::relaxed(), M::slow()] {
            let config = Config { membership, ..Config::wan("eu", "127.0.0.1:0") };
            assert_eq!(config.check(), Ok(()), "{:?}", config.membership);
        }
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let mut config = Config::dev("eu", "127.0.0.1:0");
        config.limits.partitions = 48;
        assert_eq!(config.check(), Err(ConfigError::Partitions { partitions: 48 }));
        config.limits.partitions = 64;
        config.replication.collect_after = Duration::from_secs(2);
        let why = "must be more than twice membership.max_drift";
        assert_eq!(config.check(), Err(ConfigError::Field { field: "replication.collect_after", why }));
        let twice = Config::dev("eu", "127.0.0.1:0").peers(["a:1", "b:1", "a:1"]);
        assert_eq!(twice.check(), Err(ConfigError::DuplicatePeer { peer: "a:1".to_owned() }));
    }

    #[test]
    fn an_edge_needs_somebody_to_fetch_from_and_is_no_standby() {
        let edge = || Config::dev("eu", "127.0.0.1:0").edge(EdgeConfig::default());
        assert_eq!(edge().peers(["a:1"]).check(), Ok(()));
        let hasty = EdgeConfig { fetch_timeout: Duration::ZERO, ..EdgeConfig::default() };
        let forgetful = EdgeConfig { keep_for: Duration::ZERO, ..EdgeConfig::default() };
        for (config, field) in [
            (edge(), "node.edge"),
            (edge().peers(["a:1"]).standby(StandbyConfig::default()), "node.edge"),
            (edge().peers(["a:1"]).edge(hasty), "node.edge.fetch_timeout"),
            (edge().peers(["a:1"]).edge(forgetful), "node.edge.keep_for"),
        ] {
            let Err(ConfigError::Field { field: named, .. }) = config.check() else { panic!("{field} is refused") };
            assert_eq!(named, field);
        }
    }

    #[test]
    fn names_that_no_hello_could_carry_are_refused() {
        let dev = || Config::dev("eu", "127.0.0.1:0");
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let mut cluster = dev();
        cluster.node.cluster.clone_from(&long);
        let merge: Arc<dyn MergeState> = Arc::new(crate::crdt::custom::Erased::<crdts::PNCounter<u64>>::default());
        let region = Config::dev(&long, "127.0.0.1:0");
        let typed = dev().custom("docs", &long, Arc::clone(&merge));
        let twice = dev().custom("docs", "a:1", Arc::clone(&merge)).custom("docs", "b:1", merge);
        let why = "must have from 1 to 256 bytes";
        for (config, field, why) in [
            (cluster, "node.cluster", why),
            (region, "node.region", why),
            (typed, "custom.type_name", why),
            (twice, "custom.keyspace", "must not be declared twice"),
        ] {
            assert_eq!(config.check(), Err(ConfigError::Field { field, why }));
        }
    }

    #[test]
    fn durations_at_the_end_of_their_range_are_refused_and_not_multiplied() {
        let mut config = Config::dev("eu", "127.0.0.1:0");
        config.membership.max_drift = Duration::MAX;
        let refused = |config: &Config| match config.check() {
            Err(ConfigError::Field { field, .. }) => field,
            Ok(()) | Err(_) => "nothing",
        };
        assert_eq!(refused(&config), "replication.collect_after");
        config.membership.max_drift = Duration::ZERO;
        config.membership.beat_every = Duration::MAX;
        assert_eq!(refused(&config), "membership.suspect_after");
    }

    #[test]
    fn a_key_never_shows_in_debug_output() {
        let shown = format!("{:?}", Pem::Text(b"PRIVATE".to_vec()));
        assert!(!shown.contains("PRIVATE"));
    }
}
