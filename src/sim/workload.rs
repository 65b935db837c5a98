//! What a plan's operations do: real mutations of real keyspaces, of every type there is.
//!
//! # Invariants
//! * Every value is written once, so what shows says who wrote it.
//! * An operation means the same mutation wherever it stands in a plan, but for the value and the instant.

use std::sync::Arc;

use bytes::Bytes;

use super::cluster::SimCluster;
use super::oracle::{Key, Mutation, Notes, Site, Space};
use super::plan::{Op, OpKind};
use super::setting::Setting;
use crate::config::Config;
use crate::crdt::custom::{Erased, encode};
use crate::crdt::{NEVER, Path};
use crate::error::WriteError;
use crate::node::Input;
use crate::store::{Cleared, Family, KeyRef, Keyspace, Keyspaces, Partition, Selector, Store, Tick};

/// Last-writer-wins registers.
pub const REGISTERS: Space = Space { name: "registers", family: Family::Register };
/// Maps with fields, a set and counters.
pub const MAPS: Space = Space { name: "maps", family: Family::Map };
/// Counters.
pub const COUNTERS: Space = Space { name: "counters", family: Family::Counter };
/// Sets.
pub const SETS: Space = Space { name: "sets", family: Family::Set };
/// Grow-only sets as a custom type.
pub const CUSTOMS: Space = Space { name: "customs", family: Family::Custom };
/// All keyspaces.
pub const SPACES: [Space; 5] = [REGISTERS, MAPS, COUNTERS, SETS, CUSTOMS];

/// Name and version of the custom type.
const CUSTOM_TYPE: &str = "notes-1";
/// One in so many values is larger than a frame that may go on a stream of its own.
const LONG_EVERY: u64 = 16;
const LONG_BYTES: usize = 1_300;
/// One in so many is as large as the setting says, where it says anything.
const LARGE_EVERY: u64 = 4;

/// Declares the workload's custom type in a node's configuration.
#[must_use]
pub fn declare(config: Config) -> Config {
    config.custom(CUSTOMS.name, CUSTOM_TYPE, Arc::new(Erased::<Notes>::default()))
}

/// Returns a table of keyspaces in which every frame of the workload can be decoded.
#[must_use]
pub fn keyspaces() -> Keyspaces {
    let spaces = Keyspaces::new(0, [0; 16]);
    let declared = spaces.open_custom(CUSTOMS.name, Arc::new(Erased::<Notes>::default()));
    debug_assert!(declared.is_ok(), "the table is empty");
    spaces
}

/// Returns the name of a key: half of them begin with another letter, for invalidations by prefix.
#[must_use]
pub fn key_name(n: u8) -> Bytes {
    let letter = if n.is_multiple_of(2) { 'a' } else { 'b' };
    encode(&format!("{letter}{n}")).unwrap_or_default()
}

/// Returns a key of a keyspace.
#[must_use]
pub fn key(space: Space, n: u8) -> Key {
    Key { space, name: key_name(n) }
}

/// Turns operations into mutations.
#[derive(Clone, Debug)]
pub struct Workload {
    ttl_ms_max: u64,
    value_bytes: usize,
    values: u64,
}

impl Workload {
    /// Builds one whose deadlines and values are what a setting allows.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self { ttl_ms_max: setting.ttl_ms_max, value_bytes: setting.value_bytes, values: 0 }
    }

    /// Returns what an operation does to which key, at a host whose visible time is `now_ms`.
    pub fn mutation(&mut self, op: Op, now_ms: u64) -> (Key, Mutation) {
        let deadline = self.deadline(op.ttl, now_ms);
        let n = op.name;
        let mutation = match op.kind {
            OpKind::Set => Mutation::Set { value: self.value(), tags: Vec::new(), deadline },
            OpKind::SetTagged => Mutation::Set { value: self.value(), tags: tags(n), deadline },
            OpKind::Delete => Mutation::Delete,
            OpKind::Touch => Mutation::Touch { deadline },
            OpKind::Put => Mutation::Put { path: field(n), value: self.value(), deadline },
            OpKind::Remove => Mutation::Remove { path: field(n) },
            OpKind::TouchField => Mutation::TouchPath { path: field(n), deadline },
            OpKind::AddMember => Mutation::Put { path: member(op), value: Bytes::new(), deadline },
            OpKind::RemoveMember => Mutation::Remove { path: member(op) },
            OpKind::Increment => Mutation::Increment { name: counter(op), by: self.amount(), deadline },
            OpKind::Decrement => Mutation::Increment { name: counter(op), by: -self.amount(), deadline },
            OpKind::Reset => Mutation::Reset { name: counter(op) },
            OpKind::TouchCounter => Mutation::TouchCounter { name: counter(op), deadline },
            OpKind::ExpireKey => Mutation::ExpireKey { deadline },
            OpKind::Clear => Mutation::Clear,
            OpKind::UpdateCustom => Mutation::Note { item: self.next(), deadline },
            OpKind::DeleteCustom => Mutation::DeleteCustom,
            OpKind::InvalidateAll => Mutation::Invalidate { selector: Selector::All },
            OpKind::InvalidateTag => Mutation::Invalidate { selector: Selector::Tag(format!("t{}", n % 3)) },
            OpKind::InvalidatePrefix => Mutation::Invalidate { selector: prefix(op) },
        };
        (key(space(op), op.key), mutation)
    }

    fn next(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// A value that begins with its number. Of the longer ones half cannot be compressed.
    fn value(&mut self) -> Bytes {
        let n = self.next();
        let head = n.to_be_bytes();
        let large = if n.is_multiple_of(LARGE_EVERY) { self.value_bytes >> (n / LARGE_EVERY % 3) } else { 0 };
        let long = if n.is_multiple_of(LONG_EVERY) { LONG_BYTES } else { 0 };
        let mut value = vec![0; large.max(long).max(head.len())];
        if (n / LONG_EVERY).is_multiple_of(2) {
            fastrand::Rng::with_seed(n).fill(&mut value);
        }
        if let Some(begin) = value.first_chunk_mut() {
            *begin = head;
        }
        value.into()
    }

    /// Sums of different amounts differ.
    fn amount(&mut self) -> i64 {
        1_i64 << (self.next() % 40)
    }

    fn deadline(&self, share: u8, now_ms: u64) -> u64 {
        if share == 0 || self.ttl_ms_max == 0 {
            return NEVER;
        }
        let ttl = self.ttl_ms_max.saturating_mul(u64::from(share)) / 255;
        now_ms.saturating_add(ttl.max(1))
    }
}

/// Returns the keyspace an operation is about: members and counters of odd keys have keyspaces of their own.
#[must_use]
pub fn space(op: Op) -> Space {
    let own = |space| if op.key.is_multiple_of(2) { MAPS } else { space };
    match op.kind {
        OpKind::Set
        | OpKind::SetTagged
        | OpKind::Delete
        | OpKind::Touch
        | OpKind::InvalidateAll
        | OpKind::InvalidateTag
        | OpKind::InvalidatePrefix => REGISTERS,
        OpKind::Put | OpKind::Remove | OpKind::TouchField => MAPS,
        OpKind::AddMember | OpKind::RemoveMember => own(SETS),
        OpKind::Increment | OpKind::Decrement | OpKind::Reset | OpKind::TouchCounter => own(COUNTERS),
        OpKind::ExpireKey | OpKind::Clear if op.name == 3 => own(COUNTERS),
        OpKind::ExpireKey | OpKind::Clear if op.name == 2 => own(SETS),
        OpKind::ExpireKey | OpKind::Clear => MAPS,
        OpKind::UpdateCustom | OpKind::DeleteCustom => CUSTOMS,
    }
}

fn name(prefix: &str, n: u8) -> Bytes {
    encode(&format!("{prefix}{n}")).unwrap_or_default()
}

fn field(n: u8) -> Path {
    Path::Field(name("f", n % 4))
}

fn member(op: Op) -> Path {
    let set = if space(op) == SETS { Bytes::new() } else { name("s", 0) };
    Path::Member(set, name("m", op.name % 4))
}

fn counter(op: Op) -> Bytes {
    if space(op) == COUNTERS { Bytes::new() } else { name("c", op.name % 2) }
}

fn tags(n: u8) -> Vec<Bytes> {
    [n % 3, (n + n / 2) % 3].iter().map(|tag| Bytes::from(format!("t{tag}"))).collect()
}

/// Returns half of the keys, or one of them.
fn prefix(op: Op) -> Selector {
    let letter = if op.key.is_multiple_of(2) { 'a' } else { 'b' };
    Selector::Prefix(if op.name == 0 { format!("{letter}{}", op.key) } else { letter.to_string() })
}

/// A host of a cluster.
#[derive(Debug)]
pub struct AtHost<'a> {
    /// The cluster.
    pub cluster: &'a mut SimCluster,
    /// The host.
    pub at: usize,
}

impl Site for AtHost<'_> {
    fn store(&self) -> Option<&Store> {
        self.cluster.node(self.at).map(|node| node.store().as_ref())
    }

    fn write<R>(
        &mut self,
        at: &KeyRef<'_>,
        value_len: Option<usize>,
        f: impl FnOnce(&mut Partition, &Tick<'_>) -> R,
    ) -> Result<R, WriteError> {
        self.cluster.write(self.at, at, value_len, f)
    }

    fn invalidate(&mut self, space: &Keyspace, selector: &Selector) -> Result<Vec<Cleared>, WriteError> {
        let store = self.cluster.store(self.at).ok_or(WriteError::NotJoined)?;
        let (cleared, wake) = store.invalidate(space, selector, self.cluster.now(self.at).wall_ms)?;
        if wake {
            self.cluster.input(self.at, Input::Written);
        }
        Ok(cleared)
    }
}
