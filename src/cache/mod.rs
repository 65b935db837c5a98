//! The public handle: open a node, get typed keyspaces, write, read, wait, watch, shut down.
//!
//! Every local operation runs on the caller's thread straight on the store: no task, no queue, no
//! await. Only waiting for others is asynchronous. The types here are a thin typed face over bytes;
//! see [`Registers`], [`Maps`], [`Counters`], [`Sets`] and [`Customs`], and [`Receipt`] for how
//! consistent a write shall be.
//!
//! # Invariants
//! * A write is accepted or refused at once; accepted means applied here and on its way.
//! * One task drives the node. [`Cache::shutdown`] joins it; dropping the [`Cache`] aborts it. However it ends, later
//!   writes through handles that are still around fail with `WriteError::Stopped`; reads go on.
//!
//! Not here: signing tokens.

mod counters;
mod customs;
mod encoded;
mod map_parts;
mod maps;
mod membership;
mod reading;
mod receipt;
mod registers;
mod router;
mod sets;
mod space;
mod stats;
mod token;
mod ttl;
mod watch;

use std::fmt;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crdts::CvRDT;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use siphasher::sip::SipHasher13;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

pub use counters::Counters;
pub use customs::Customs;
pub use maps::Maps;
pub use reading::{Read, Reading};
pub use receipt::{Reached, Receipt};
pub use registers::{Registers, TAG_BYTES_MAX, TAGS_MAX, Touched};
pub use router::Router;
pub use sets::Sets;
pub use stats::{CacheStats, KeyspaceStats};
pub use token::Token;
pub use ttl::Ttl;
pub use watch::{Change, Events, Watch, WatchError};

pub use crate::node::{
    Belonging, ClusterView, Event, Level, MemberView, Missing, Outcome, Reach, Recovery, RegionView, Stats, Status,
};
pub use crate::runtime::Origin;

use crate::config::Config;
use crate::crdt::Ctx;
use crate::error::{OpenError, StartError};
use crate::id::{PartitionId, RegionId, ReplicaId};
use crate::node::{Me, Node};
use crate::runtime::{Driver, Endpoint, EndpointConfig, Identity, Line, fresh_replica, fresh_seed};
use crate::store::{Family, Gate, Keyspace, Store};

use space::Space;

/// One node of an active-active cache: a full replica in this process.
///
/// ```
/// use std::time::Duration;
/// use driftless::config::{IdentityConfig, Pem};
/// use driftless::{Cache, Config, Level, Ttl};
/// # use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
/// # fn identity(ca: &CertifiedIssuer<'_, KeyPair>, uri: &str) -> Result<IdentityConfig, rcgen::Error> {
/// #     let key = KeyPair::generate()?;
/// #     let mut params = CertificateParams::new(vec!["driftless".to_owned()])?;
/// #     params.subject_alt_names.push(SanType::URI(uri.try_into()?));
/// #     let text = |pem: String| Pem::Text(pem.into_bytes());
/// #     let certificate = text(params.signed_by(&key, ca)?.pem());
/// #     Ok(IdentityConfig { certificate, key: text(key.serialize_pem()), authorities: text(ca.pem()) })
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut params = CertificateParams::new(Vec::new())?;
/// # params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
/// # let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
/// // Two nodes on one machine. A certificate says which node of which region its owner is.
/// let us = identity(&ca, "driftless://us-east/0192d3b4-7a10-7c3e-9d55-0a1b2c3d4e5f")?;
/// let eu = identity(&ca, "driftless://eu-central/0192d3b4-7a10-7c3e-9d55-0a1b2c3d4e60")?;
/// let us = Cache::open(Config::dev("us-east", "127.0.0.1:0").identity(us)).await?;
/// let peer = us.local_addr().to_string();
/// let eu = Cache::open(Config::dev("eu-central", "127.0.0.1:0").identity(eu).peers([peer])).await?;
///
/// // Write in one region; the write is local and immediate.
/// let here = us.registers::<String, u32>("visits")?;
/// let receipt = here.set("alice", &7, Ttl::minutes(30))?;
///
/// // How consistent it must be is how long its writer waits.
/// let outcome = receipt.reached(Level::All).within(Duration::from_secs(10)).await;
/// assert!(outcome.reached);
///
/// // Read it in the other region.
/// let there = eu.registers::<String, u32>("visits")?;
/// assert_eq!(there.get("alice")?, Some(7));
/// # eu.shutdown().await;
/// # us.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Cache {
    store: Arc<Store>,
    me: Me,
    local_addr: SocketAddr,
    line: Line,
    /// The driver; empty once it was joined.
    tasks: Mutex<JoinSet<()>>,
}

impl Cache {
    /// Opens a node and joins its cluster, or founds one if nobody answers for
    /// [`solo_after`](crate::config::MembershipConfig::solo_after).
    ///
    /// It also returns when a majority of the configured peers refuses this machine's clock: reads
    /// then answer from what is here and writes are refused with `WriteError::ClockRefused` until
    /// the clock is set, after which the node joins by itself.
    ///
    /// # Errors
    /// [`StartError`] names what is wrong: the configuration, a certificate, key or CA, or the
    /// address to listen on. Nothing was started.
    ///
    /// # Cancel safety
    /// Dropping the future stops what was started.
    pub async fn open(mut config: Config) -> Result<Self, StartError> {
        config.check()?;
        let identity = Identity::load(config.node.identity.as_ref().ok_or(StartError::NoIdentity)?)?;
        identity.must_name(&config.node.region, config.node.node)?;
        let name = identity.name();
        let me = Me { node: name.node, region: name.region.clone(), replica: fresh_replica(name.node) };

        let store = Arc::new(Store::new(me.replica, config.store()));
        for custom in &config.custom {
            store.spaces().open_custom(&custom.keyspace, Arc::clone(&custom.merge))?;
        }
        let network = EndpointConfig::of(&config)?;
        let listen = network.listen;
        let endpoint = Endpoint::bind(network, &identity)?;
        let local_addr = endpoint.local_addr().map_err(|source| StartError::Bind { addr: listen, source })?;
        advertise(&mut config, local_addr);
        let node = Node::new(me.clone(), config, Arc::clone(&store), fresh_seed())?;

        let (driver, line) = Driver::new(node, endpoint, name.expires_ms);
        let events = line.events();
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        let cache = Self { store, me, local_addr, line, tasks: Mutex::new(tasks) };
        match events {
            Some(events) => joined(events, &cache.store).await?,
            None => return Err(StartError::Stopped),
        }
        Ok(cache)
    }

    /// Returns a keyspace of registers: one value per key, the last writer wins.
    ///
    /// # Errors
    /// [`OpenError`] when the name is bad or in use for another family of types.
    pub fn registers<K, V>(&self, name: &str) -> Result<Registers<K, V>, OpenError> {
        Ok(Registers::new(self.space(name, Family::Register)?))
    }

    /// Returns a keyspace of maps.
    ///
    /// # Errors
    /// As [`Cache::registers`].
    pub fn maps<K, F, V>(&self, name: &str) -> Result<Maps<K, F, V>, OpenError> {
        Ok(Maps::new(self.space(name, Family::Map)?))
    }

    /// Returns a keyspace of counters.
    ///
    /// # Errors
    /// As [`Cache::registers`].
    pub fn counters<K>(&self, name: &str) -> Result<Counters<K>, OpenError> {
        Ok(Counters::new(self.space(name, Family::Counter)?))
    }

    /// Returns a keyspace of sets.
    ///
    /// # Errors
    /// As [`Cache::registers`].
    pub fn sets<K, M>(&self, name: &str) -> Result<Sets<K, M>, OpenError> {
        Ok(Sets::new(self.space(name, Family::Set)?))
    }

    /// Returns a keyspace of a custom type that the configuration declares.
    ///
    /// # Errors
    /// [`OpenError::UndeclaredCustom`] when it does not; otherwise as [`Cache::registers`].
    pub fn custom<K, T>(&self, name: &str) -> Result<Customs<K, T>, OpenError>
    where
        T: CvRDT + Serialize + DeserializeOwned + Default,
    {
        let declared = self.store.spaces().find(name).filter(|space| space.merge().is_some());
        if declared.is_none() && self.store.spaces().find(name).is_none_or(|s| s.family() == Family::Custom) {
            return Err(OpenError::UndeclaredCustom { name: name.to_owned() });
        }
        Ok(Customs::new(self.space(name, Family::Custom)?))
    }

    fn space(&self, name: &str, family: Family) -> Result<Space, OpenError> {
        let keyspace = self.store.spaces().open(name, family)?;
        Ok(Space::new(Arc::clone(&self.store), keyspace, &self.line))
    }

    /// Tells whether everything a token names has been applied here, so that its bearer may read.
    #[must_use]
    pub fn covers(&self, token: &Token) -> bool {
        token.is_covered_by(&self.store)
    }

    /// Waits until everything a token names has been applied here, at most `within`; returns
    /// whether it was. Nothing is fetched: it comes by replication.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn caught_up(&self, token: &Token, within: Duration) -> bool {
        tokio::time::timeout(within, self.cover(token)).await.unwrap_or_else(|_| self.covers(token))
    }

    async fn cover(&self, token: &Token) -> bool {
        loop {
            let mut applied = std::pin::pin!(self.line.applied());
            applied.as_mut().enable();
            if self.covers(token) || self.line.is_down() {
                return self.covers(token);
            }
            applied.await;
        }
    }

    /// Returns a stream of what happens to the cluster from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        // Without a driver there is nobody to speak: the stream says that it is over.
        Events::new(self.line.events().unwrap_or_else(|| tokio::sync::broadcast::Sender::new(1).subscribe()))
    }

    /// Returns the address this node listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the region this node is in.
    #[must_use]
    pub fn region(&self) -> &RegionId {
        &self.me.region
    }

    /// Returns the identity of this running copy: another one at every start, and after [`Event::CameBack`].
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.store.me()
    }

    /// Returns exactly which events every partition has seen; partitions without any are left out.
    /// Two nodes with equal contexts have applied the same writes.
    #[must_use]
    pub fn contexts(&self) -> Vec<(PartitionId, Ctx)> {
        let ctx = |id| self.store.read(id).map(|p| (id, p.ctx().clone()));
        self.store.partition_ids().filter_map(ctx).filter(|(_, ctx)| !ctx.is_empty()).collect()
    }

    /// Returns a short digest of [`Cache::contexts`]: equal on two nodes that have applied the same
    /// writes, and different otherwise but for one in 2^64.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        for id in self.store.partition_ids() {
            let Some(partition) = self.store.read(id) else { continue };
            for (replica, seen) in partition.ctx().iter() {
                hasher.write_u16(id.0);
                hasher.write_u64(replica.0);
                hasher.write_u64(seen.base());
                hasher.write_usize(seen.above().len());
                for (from, to) in seen.above() {
                    hasher.write_u64(*from);
                    hasher.write_u64(*to);
                }
            }
        }
        hasher.finish()
    }

    /// Returns what this node counted; the part of the node is empty after a shutdown.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stats(&self) -> CacheStats {
        let node = self.line.stats().await.unwrap_or_default();
        let spaces: Vec<Arc<Keyspace>> = self.store.spaces().snapshot();
        CacheStats { node, keyspaces: spaces.iter().map(|space| KeyspaceStats::of(space)).collect() }
    }

    /// Forgets the lag measured so far: a phase of a measurement begins.
    ///
    /// # Cancel safety
    /// Cancel safe: it is forgotten or not.
    pub async fn reset_lag(&self) {
        self.line.reset_lag().await;
    }

    /// Refuses further writes, sends what still fits, says goodbye to the peers and joins every
    /// task. Waits under way end with how far their writes have come. A second call, or one that
    /// comes while the first is under way, returns at once.
    ///
    /// Writes made just before may not have left when a link is congested; wait on their receipts
    /// first if they must.
    ///
    /// # Cancel safety
    /// Dropping the future aborts what is left; peers then find out by silence.
    pub async fn shutdown(&self) {
        // At once and not by the driver's turn: the future may be dropped before it has one.
        self.store.set_gate(Gate::Stopped);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        if tasks.is_empty() {
            return;
        }
        self.line.shutdown().await;
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the driver failed");
            }
        }
    }
}

/// Nobody sends what is written after this, and the driver is aborted when its turn comes.
impl Drop for Cache {
    fn drop(&mut self) {
        self.store.set_gate(Gate::Stopped);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("me", &self.me)
            .field("replica", &self.replica())
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// Lets others know the address this node listens on, unless the configuration says what they are to dial.
fn advertise(config: &mut Config, local_addr: SocketAddr) {
    if config.node.advertise.is_some() {
        return;
    }
    if local_addr.ip().is_unspecified() {
        tracing::warn!(%local_addr, "only nodes configured with this node's address can dial it: set `node.advertise`");
    } else {
        config.node.advertise = Some(vec![local_addr.to_string()]);
    }
}

/// Waits until the node has joined, or may only read.
async fn joined(mut events: Receiver<Event>, store: &Store) -> Result<(), StartError> {
    loop {
        match events.recv().await {
            Ok(Event::Joined { .. } | Event::ClockRefused { .. }) => return Ok(()),
            Err(RecvError::Closed) => return Err(StartError::Stopped),
            Ok(_) => {}
            // What is waited for may be among what was missed, and comes only once; the gate is set before it is told.
            Err(RecvError::Lagged(_)) => match store.gate() {
                Gate::Open | Gate::ClockRefused | Gate::Removed | Gate::Draining | Gate::Standby => return Ok(()),
                Gate::Joining | Gate::Stopped => {}
            },
        }
    }
}

#[cfg(test)]
mod tests;
