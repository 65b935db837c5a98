//! The one place where a region process touches the cache.
//!
//! Operations of the workload become calls of the public handle, and what the handle returns
//! becomes the record the demo's judge reads. Nothing here looks behind the handle.
//!
//! # Invariants
//! * `apply` is synchronous, and its record is complete when it returns.
//! * `dump` reads through the ordinary read path, key by key of the workload, as a user would.
//! * Nobody else writes through this cache, so what was seen around a write differs by its own
//!   event, or other regions' events slipped in and the record says so.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use driftless::config::IdentityConfig;
use driftless::crdt::Ctx;
use driftless::error::ReadError;
use driftless::id::PartitionId;
use driftless::{Cache, Config, Counters, Level, Maps, Receipt, Registers, Ttl};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::protocol::{Cell, Context, Contexts, Dot, Kind, Record, Stamp, Stats};
use crate::support::wall_ms;
use crate::support::workload::{Action, Family, Op};

/// Writes whose way to a quorum is followed at once: half a minute of the demo's traffic. One beyond
/// is not followed and counts as not acknowledged.
const FOLLOWED_MAX: usize = 16_384;

/// Longer than any cut; a write that has not reached a quorum by then is not followed any more.
const FOLLOWED_FOR: Duration = Duration::from_secs(120);

/// What a replica is started from.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) region: String,
    pub(crate) listen: SocketAddr,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) identity: PathBuf,
    pub(crate) transport: Transport,
    /// The whole workload: keys are dumped as it names them.
    pub(crate) ops: Arc<[Op]>,
}

/// What may be turned off to see what it is worth.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Transport {
    /// Send every frame on the one ordered stream, so that a lost packet delays all behind it.
    #[arg(long)]
    pub(crate) no_express: bool,
    /// Take every lost packet for congestion, as one must on links shared with others.
    #[arg(long)]
    pub(crate) no_loss_tolerance: bool,
    /// Do not compress.
    #[arg(long)]
    pub(crate) no_compression: bool,
}

/// What an operation came to.
#[derive(Debug)]
pub(crate) enum Applied {
    Written(Box<Record>),
    Read(Option<Value>),
    /// A touch, remove, clear or reset that found nothing to act on: no event happened.
    NoEffect,
}

/// An opened key space.
#[derive(Clone, Debug)]
enum Space {
    Register(Registers<String, Value>),
    Map(Maps<String, String, Value>),
    Counter(Counters<String>),
}

/// What calling the cache came to.
enum Called {
    Read(Option<Value>),
    Write(Option<Receipt>),
}

/// One running replica.
#[derive(Debug)]
pub(crate) struct Replica {
    setup: Setup,
    cache: Cache,
    spaces: BTreeMap<String, Space>,
    followed: JoinSet<Option<Dot>>,
}

impl Replica {
    /// Opens the cache and returns once it has joined or founded the cluster.
    pub(crate) async fn start(setup: Setup) -> Result<Self, Box<dyn Error>> {
        if setup.peers.contains(&setup.listen) {
            return Err(format!("{} is this region's own address", setup.listen).into());
        }
        let mut config = Config::wan(&setup.region, &setup.listen.to_string())
            .identity(IdentityConfig::in_dir(&setup.identity))
            .peers(setup.peers.iter().map(SocketAddr::to_string))
            // All are given, and in the demo each pair has a path of its own: nobody may find another beside it.
            .advertise(Vec::<String>::new());
        // The demo's relay is nobody else's: a dedicated link, on which a lost packet is bad luck
        // and not a sign that somebody wants a share.
        config.replication.loss_tolerant = !setup.transport.no_loss_tolerance;
        config.replication.express = !setup.transport.no_express;
        config.replication.compress = !setup.transport.no_compression;
        let cache = Cache::open(config).await?;
        Ok(Self { setup, cache, spaces: BTreeMap::new(), followed: JoinSet::new() })
    }

    /// Returns the identity this replica was given at its start.
    pub(crate) fn id(&self) -> u64 {
        self.cache.replica().0
    }

    /// Returns where it listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.cache.local_addr()
    }

    /// Runs one operation.
    pub(crate) fn apply(&mut self, index: usize, op: &Op) -> Result<Applied, Box<dyn Error>> {
        let space = self.space(&op.keyspace, op.action.family())?;
        if op.action.is_read() {
            return match space.call(op)? {
                Called::Read(value) => Ok(Applied::Read(value)),
                Called::Write(_) => Err("a read that wrote".into()),
            };
        }
        let (_, before) = space.context(&op.key)?;
        let issued_ms = wall_ms();
        let Called::Write(Some(receipt)) = space.call(op)? else { return Ok(Applied::NoEffect) };
        let (_, after) = space.context(&op.key)?;
        self.follow(&receipt);
        let mut record = record(&self.setup.region, index, op, &receipt);
        let mut expected = before.clone();
        expected.add(receipt.dot());
        record.before = context(&before);
        record.after = (after != expected).then(|| context(&after));
        record.issued_ms = issued_ms;
        Ok(Applied::Written(Box::new(record)))
    }

    fn space(&mut self, name: &str, family: Family) -> Result<Space, Box<dyn Error>> {
        if let Some(space) = self.spaces.get(name) {
            return Ok(space.clone());
        }
        let space = match family {
            Family::Register => Space::Register(self.cache.registers(name)?),
            Family::Map => Space::Map(self.cache.maps(name)?),
            Family::Counter => Space::Counter(self.cache.counters(name)?),
        };
        self.spaces.insert(name.to_owned(), space.clone());
        Ok(space)
    }

    fn follow(&mut self, receipt: &Receipt) {
        if self.followed.len() < FOLLOWED_MAX {
            let reached = receipt.reached(Level::Quorum).within(FOLLOWED_FOR);
            let dot = dot(receipt);
            self.followed.spawn(async move { reached.await.reached.then_some(dot) });
        }
    }

    /// Waits for the next write to be acknowledged by a quorum. Cancel safe.
    pub(crate) async fn acked(&mut self) -> Dot {
        while let Some(done) = self.followed.join_next().await {
            if let Ok(Some(dot)) = done {
                return dot;
            }
        }
        std::future::pending().await
    }

    /// Forgets the lag measured so far.
    pub(crate) async fn mark(&self) {
        self.cache.reset_lag().await;
    }

    /// Fills in what only the cache knows: lag, conflicts, bytes before and after compression.
    pub(crate) async fn measure(&self, stats: &mut Stats) {
        let counted = self.cache.stats().await.node;
        for peer in counted.peers {
            let lag = stats.lag.entry(peer.region.to_string()).or_default();
            peer.lag.counts().for_each(|(ms, count)| lag.add(ms, count));
        }
        stats.conflicts = counted.conflicts;
        stats.frame_bytes_raw = counted.raw_bytes_out;
        stats.frame_bytes_sent = counted.bytes_out;
    }

    /// Returns what each partition has seen.
    pub(crate) fn contexts(&self) -> Contexts {
        Contexts(self.cache.contexts().iter().map(|(id, ctx)| (id.0, context(ctx))).collect())
    }

    /// Returns everything visible at the keys the workload names.
    pub(crate) fn dump(&mut self) -> Result<Vec<Cell>, Box<dyn Error>> {
        let ops = Arc::clone(&self.setup.ops);
        let named: BTreeSet<_> = ops.iter().map(|op| (&op.keyspace, &op.key, op.action.family())).collect();
        let mut cells = Vec::new();
        for (keyspace, key, family) in named {
            let shown = self.space(keyspace, family)?.visible(key)?;
            let cell = |(path, value)| Cell { keyspace: keyspace.clone(), key: key.clone(), path, value };
            cells.extend(shown.into_iter().map(cell));
        }
        Ok(cells)
    }

    /// Says goodbye to the peers and closes.
    pub(crate) async fn shutdown(self) {
        self.cache.shutdown().await;
    }
}

impl Space {
    /// Calls the cache as an operation says.
    fn call(&self, op: &Op) -> Result<Called, Box<dyn Error>> {
        let key = op.key.as_str();
        Ok(match (self, &op.action) {
            (Self::Register(s), Action::Get) => Called::Read(s.get(key)?),
            (Self::Register(s), Action::Set { value, ttl_ms }) => {
                Called::Write(Some(s.set(key, value, ttl(*ttl_ms))?))
            }
            (Self::Register(s), Action::Delete) => Called::Write(Some(s.delete(key)?)),
            (Self::Register(s), Action::Touch { ttl_ms }) => Called::Write(s.touch(key, Ttl::millis(*ttl_ms))?),
            (Self::Map(s), Action::GetField { field }) => Called::Read(s.get(key, field.as_str())?),
            (Self::Map(s), Action::Put { field, value, ttl_ms }) => {
                Called::Write(Some(s.put_ttl(key, field.as_str(), value, ttl(*ttl_ms))?))
            }
            (Self::Map(s), Action::Remove { field }) => Called::Write(s.remove(key, field.as_str())?),
            (Self::Map(s), Action::Clear) => Called::Write(s.clear(key)?),
            (Self::Counter(s), Action::Count) => Called::Read(counted(s.value(key)?)),
            (Self::Counter(s), Action::Incr { by, ttl_ms }) => Called::Write(Some(s.add(key, *by, ttl(*ttl_ms))?)),
            (Self::Counter(s), Action::Reset) => Called::Write(s.reset(key)?),
            (Self::Register(_) | Self::Map(_) | Self::Counter(_), _) => {
                return Err(format!("key space `{}` holds another kind of entry", op.keyspace).into());
            }
        })
    }

    fn context(&self, key: &str) -> Result<(PartitionId, Ctx), ReadError> {
        match self {
            Self::Register(s) => s.context(key),
            Self::Map(s) => s.context(key),
            Self::Counter(s) => s.context(key),
        }
    }

    /// Returns what a key shows, by field if it is a map.
    fn visible(&self, key: &str) -> Result<Vec<(Option<String>, Value)>, ReadError> {
        let alone = |value: Option<Value>| value.map(|value| (None, value)).into_iter().collect();
        Ok(match self {
            Self::Register(s) => alone(s.get(key)?),
            Self::Map(s) => s.get_all(key)?.into_iter().map(|(field, value)| (Some(field), value)).collect(),
            Self::Counter(s) => alone(counted(s.value(key)?)),
        })
    }
}

/// A counter that shows 0 cannot be told from one that never was.
fn counted(value: i64) -> Option<Value> {
    (value != 0).then(|| Value::from(value))
}

fn ttl(ttl_ms: Option<u64>) -> Ttl {
    ttl_ms.map_or(Ttl::NEVER, Ttl::millis)
}

fn dot(receipt: &Receipt) -> Dot {
    let dot = receipt.dot();
    Dot { partition: receipt.partition().0, replica: dot.replica.0, seq: dot.seq }
}

fn context(ctx: &Ctx) -> Context {
    let ranges = |seen: &driftless::crdt::Seen| {
        let contiguous = (seen.base() > 0).then(|| (1, seen.base()));
        contiguous.into_iter().chain(seen.above().iter().copied()).collect()
    };
    Context(ctx.iter().map(|(replica, seen)| (replica.0, ranges(seen))).collect())
}

fn record(region: &str, index: usize, op: &Op, receipt: &Receipt) -> Record {
    let stamp = receipt.stamp();
    let (kind, path, value, ttl_ms) = match &op.action {
        Action::Set { value, ttl_ms } => (Kind::Set, None, Some(value), *ttl_ms),
        Action::Put { field, value, ttl_ms } => (Kind::Put, Some(field), Some(value), *ttl_ms),
        Action::Touch { ttl_ms } => (Kind::Touch, None, None, Some(*ttl_ms)),
        Action::Incr { ttl_ms, .. } => (Kind::Incr, None, None, *ttl_ms),
        Action::Remove { field } => (Kind::Remove, Some(field), None, None),
        Action::Clear => (Kind::Clear, None, None, None),
        Action::Reset => (Kind::Reset, None, None, None),
        Action::Delete | Action::Get | Action::GetField { .. } | Action::Count => (Kind::Delete, None, None, None),
    };
    Record {
        index,
        region: region.to_owned(),
        keyspace: op.keyspace.clone(),
        key: op.key.clone(),
        path: path.cloned(),
        kind,
        value: value.cloned(),
        by: if let Action::Incr { by, .. } = op.action { by } else { 0 },
        dot: dot(receipt),
        stamp: Stamp { hlc: stamp.hlc.0, replica: stamp.replica.0 },
        ttl_ms,
        deadline_ms: None,
        before: Context::default(),
        after: None,
        issued_ms: 0,
    }
}
