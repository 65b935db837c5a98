//! The one place where a region process touches the cache.
//!
//! **Placeholder**: until the library's handle exists this keeps everything in one local map and
//! talks to nobody. Replace the bodies, keep the signatures; nothing else in the examples changes.
//!
//! # Invariants
//! * `apply` is synchronous, and its record is complete when it returns.
//! * `dump` reads through the ordinary read path, key by key of the workload, as a user would.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::support::protocol::{Cell, Context, Contexts, Dot, Kind, Record, Stamp, Stats};
use crate::support::wall_ms;
use crate::support::workload::{Action, Op};

/// What a replica is started from.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) region: String,
    pub(crate) listen: SocketAddr,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) identity: PathBuf,
    /// The whole workload: key spaces are opened, and keys are dumped, as it names them.
    pub(crate) ops: Arc<[Op]>,
}

/// What an operation came to.
#[derive(Debug)]
pub(crate) enum Applied {
    Written(Box<Record>),
    Read(Option<Value>),
    /// A touch, remove, clear or reset that found nothing to act on: no event happened.
    NoEffect,
}

/// Where a value lives: key space, key, field.
type Place = (String, String, Option<String>);

/// One running replica.
#[derive(Debug)]
pub(crate) struct Replica {
    setup: Setup,
    id: u64,
    seq: u64,
    hlc: u64,
    cells: BTreeMap<Place, (Value, u64)>,
}

impl Replica {
    /// Opens the cache and returns once it has joined or founded the cluster.
    #[expect(clippy::unused_async, reason = "the cache joins asynchronously")]
    pub(crate) async fn start(setup: Setup) -> Result<Self, Box<dyn Error>> {
        if setup.peers.contains(&setup.listen) {
            return Err(format!("{} is this region's own address", setup.listen).into());
        }
        if !setup.identity.is_dir() {
            return Err(format!("{}: no such directory", setup.identity.display()).into());
        }
        let id = fastrand::u64(1..);
        Ok(Self { setup, id, seq: 0, hlc: 0, cells: BTreeMap::new() })
    }

    /// Returns the identity this replica was given at its start.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns where it listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.setup.listen
    }

    /// Runs one operation.
    pub(crate) fn apply(&mut self, index: usize, op: &Op) -> Result<Applied, Box<dyn Error>> {
        let now = wall_ms();
        let place = |field: Option<&String>| (op.keyspace.clone(), op.key.clone(), field.cloned());
        let live = |cells: &BTreeMap<Place, (Value, u64)>, place: &Place| {
            cells.get(place).filter(|(_, deadline)| now < *deadline).map(|(value, _)| value.clone())
        };
        let end = |ttl_ms: Option<u64>| ttl_ms.map_or(u64::MAX, |ttl| now.saturating_add(ttl));
        let (kind, field, value, ttl_ms) = match &op.action {
            Action::Get | Action::Count => return Ok(Applied::Read(live(&self.cells, &place(None)))),
            Action::GetField { field } => return Ok(Applied::Read(live(&self.cells, &place(Some(field))))),
            Action::Set { value, ttl_ms } => (Kind::Set, None, Some(value.clone()), *ttl_ms),
            Action::Put { field, value, ttl_ms } => (Kind::Put, Some(field), Some(value.clone()), *ttl_ms),
            Action::Touch { ttl_ms } => match live(&self.cells, &place(None)) {
                Some(value) => (Kind::Touch, None, Some(value), Some(*ttl_ms)),
                None => return Ok(Applied::NoEffect),
            },
            Action::Incr { by, ttl_ms } => {
                let had = live(&self.cells, &place(None)).and_then(|v| v.as_i64()).unwrap_or(0);
                (Kind::Incr, None, Some(Value::from(had.saturating_add(*by))), *ttl_ms)
            }
            Action::Delete => (Kind::Delete, None, None, None),
            Action::Remove { field } => (Kind::Remove, Some(field), None, None),
            Action::Clear => (Kind::Clear, None, None, None),
            Action::Reset => (Kind::Reset, None, None, None),
        };
        if kind == Kind::Clear {
            self.cells.retain(|(keyspace, key, _), _| (keyspace, key) != (&op.keyspace, &op.key));
        }
        match value.clone() {
            Some(value) => self.cells.insert(place(field), (value, end(ttl_ms))),
            None => self.cells.remove(&place(field)),
        };
        let record = self.record(index, op, kind);
        let value = if matches!(kind, Kind::Set | Kind::Put) { value } else { None };
        Ok(Applied::Written(Box::new(Record { path: field.cloned(), value, ttl_ms, ..record })))
    }

    fn record(&mut self, index: usize, op: &Op, kind: Kind) -> Record {
        let before = self.context();
        self.seq = self.seq.saturating_add(1);
        self.hlc = self.hlc.saturating_add(1).max(wall_ms() << 16);
        Record {
            index,
            region: self.setup.region.clone(),
            keyspace: op.keyspace.clone(),
            key: op.key.clone(),
            path: None,
            kind,
            value: None,
            by: if let Action::Incr { by, .. } = op.action { by } else { 0 },
            dot: Dot { partition: 0, replica: self.id, seq: self.seq },
            stamp: Stamp { hlc: self.hlc, replica: self.id },
            ttl_ms: None,
            deadline_ms: None,
            before,
            after: None,
            issued_ms: wall_ms(),
        }
    }

    /// Waits for the next write to be acknowledged by a quorum. Cancel safe.
    pub(crate) async fn acked(&mut self) -> Dot {
        std::future::pending().await
    }

    /// Forgets the lag measured so far.
    pub(crate) fn mark(&mut self) {}

    /// Fills in what only the cache knows: lag, compression, transport bytes.
    pub(crate) fn measure(&self, _stats: &mut Stats) {}

    fn context(&self) -> Context {
        let mut context = Context::default();
        if self.seq > 0 {
            context.add(self.id, (1, self.seq));
        }
        context
    }

    /// Returns what each partition has seen.
    pub(crate) fn contexts(&self) -> Contexts {
        Contexts(BTreeMap::from([(0, self.context())]))
    }

    /// Returns everything visible at the keys the workload names.
    pub(crate) fn dump(&self) -> Vec<Cell> {
        let now = wall_ms();
        let named: BTreeSet<(&String, &String)> = self.setup.ops.iter().map(|op| (&op.keyspace, &op.key)).collect();
        let shown = self.cells.iter().filter(|((keyspace, key, _), (value, deadline))| {
            named.contains(&(keyspace, key)) && now < *deadline && value.as_i64() != Some(0)
        });
        shown
            .map(|((keyspace, key, path), (value, _))| Cell {
                keyspace: keyspace.clone(),
                key: key.clone(),
                path: path.clone(),
                value: value.clone(),
            })
            .collect()
    }

    /// Says goodbye to the peers and closes.
    #[expect(clippy::unused_async, reason = "the cache closes asynchronously")]
    pub(crate) async fn shutdown(self) -> Result<(), Box<dyn Error>> {
        Ok(())
    }
}
