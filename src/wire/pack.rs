//! Single MessagePack values in and out: numbers, bytes, text.
//!
//! A message is a flat run of MessagePack values, which is the array form taken to its end: counts
//! and flags say what follows, so nothing is nested, nothing recurses and no intermediate tree is
//! built. A replica id and a keyspace's name are written in full where they are first used and are
//! an index from then on.
//!
//! # Invariants
//! * Numbers take their shortest form, so equal messages have equal bytes.
//! * Reading never reserves by a declared length: bytes are borrowed from the input.

use std::collections::BTreeMap;

use rmp_serde::decode::{Error, ReadRefReader};
use rmp_serde::{Deserializer, Serializer};
use serde::{Deserialize, Serialize};

use super::limits::{Counted, DEPTH_MAX, Limits, Tally, Unsendable, within};
use crate::error::PeerFault;
use crate::id::ReplicaId;

/// Writes values.
#[derive(Debug)]
pub(super) struct Pen<'a> {
    out: &'a mut Vec<u8>,
    replicas: BTreeMap<ReplicaId, u64>,
    pub(super) tally: Tally,
}

impl<'a> Pen<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, limits: Limits) -> Self {
        Self { out, replicas: BTreeMap::new(), tally: Tally::new(limits) }
    }

    fn put(&mut self, value: impl Serialize) {
        let written = value.serialize(&mut Serializer::new(&mut *self.out));
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }

    /// Writes a struct as a map that names its fields.
    pub(super) fn map(&mut self, value: &impl Serialize) {
        let written = value.serialize(&mut Serializer::new(&mut *self.out).with_struct_map());
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }

    pub(super) fn uint(&mut self, value: u64) {
        self.put(value);
    }

    pub(super) fn int(&mut self, value: i64) {
        self.put(value);
    }

    pub(super) fn int_or_nil(&mut self, value: Option<i64>) {
        self.put(value);
    }

    pub(super) fn count(&mut self, n: usize) {
        self.put(u64::try_from(n).unwrap_or(u64::MAX));
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.put(value);
    }

    pub(super) fn bytes(&mut self, what: &'static str, value: &[u8], max: u64) -> Result<(), Unsendable> {
        within(what, width(value.len()), max)?;
        self.put(serde_bytes::Bytes::new(value));
        Ok(())
    }

    pub(super) fn name(&mut self, value: &[u8]) -> Result<(), Unsendable> {
        self.bytes("length of a key", value, self.tally.limits.key_bytes)
    }

    pub(super) fn value(&mut self, value: &[u8]) -> Result<(), Unsendable> {
        self.bytes("length of a value", value, self.tally.limits.value_bytes)
    }

    pub(super) fn text(&mut self, value: &str) -> Result<(), Unsendable> {
        within("length of a name", width(value.len()), self.tally.limits.name_bytes)?;
        self.put(value);
        Ok(())
    }

    /// Writes a replica: its number in this message, and its id where it is new.
    pub(super) fn replica(&mut self, id: ReplicaId) -> Result<(), Unsendable> {
        if let Some(&index) = self.replicas.get(&id) {
            self.put(index);
            return Ok(());
        }
        self.tally.add(Counted::Replicas, 1)?;
        let index = width(self.replicas.len());
        self.replicas.insert(id, index);
        self.put(index);
        self.put(id.0);
        Ok(())
    }
}

/// Reads values.
#[derive(Debug)]
pub(super) struct Reader<'de> {
    de: Deserializer<ReadRefReader<'de, [u8]>>,
    replicas: Vec<ReplicaId>,
    pub(super) tally: Tally,
}

impl<'de> Reader<'de> {
    pub(super) fn new(input: &'de [u8], limits: Limits) -> Self {
        let mut de = Deserializer::from_read_ref(input);
        de.set_max_depth(usize::try_from(DEPTH_MAX).unwrap_or(usize::MAX));
        Self { de, replicas: Vec::new(), tally: Tally::new(limits) }
    }

    pub(super) fn take<T: Deserialize<'de>>(&mut self) -> Result<T, PeerFault> {
        T::deserialize(&mut self.de).map_err(|why| fault(&why))
    }

    pub(super) fn uint(&mut self) -> Result<u64, PeerFault> {
        self.take()
    }

    pub(super) fn int(&mut self) -> Result<i64, PeerFault> {
        self.take()
    }

    pub(super) fn int_or_nil(&mut self) -> Result<Option<i64>, PeerFault> {
        self.take()
    }

    pub(super) fn flag(&mut self) -> Result<bool, PeerFault> {
        self.take()
    }

    pub(super) fn bytes(&mut self, what: &'static str, max: u64) -> Result<&'de [u8], PeerFault> {
        let bytes: &'de serde_bytes::Bytes = self.take()?;
        within(what, width(bytes.len()), max)?;
        Ok(bytes)
    }

    pub(super) fn name(&mut self) -> Result<bytes::Bytes, PeerFault> {
        let name = self.bytes("length of a key", self.tally.limits.key_bytes)?;
        Ok(bytes::Bytes::copy_from_slice(name))
    }

    pub(super) fn value(&mut self) -> Result<bytes::Bytes, PeerFault> {
        let value = self.bytes("length of a value", self.tally.limits.value_bytes)?;
        Ok(bytes::Bytes::copy_from_slice(value))
    }

    pub(super) fn text(&mut self) -> Result<&'de str, PeerFault> {
        let text: &'de str = self.take()?;
        within("length of a name", width(text.len()), self.tally.limits.name_bytes)?;
        Ok(text)
    }

    pub(super) fn replica(&mut self) -> Result<ReplicaId, PeerFault> {
        let index = self.uint()?;
        let known = usize::try_from(index).ok().and_then(|at| self.replicas.get(at));
        if let Some(&id) = known {
            return Ok(id);
        }
        if index != width(self.replicas.len()) {
            return Err(malformed("a replica has a number that was not given out"));
        }
        self.tally.add(Counted::Replicas, 1)?;
        let id = ReplicaId(self.uint()?);
        self.replicas.push(id);
        Ok(id)
    }

    /// Makes sure that nothing follows: one more value has no first byte. A truth value is asked for
    /// because nothing inside of an array is read for it.
    pub(super) fn end(mut self) -> Result<(), PeerFault> {
        match bool::deserialize(&mut self.de) {
            Err(Error::InvalidMarkerRead(_)) => Ok(()),
            Ok(_) | Err(_) => Err(malformed("bytes follow its end")),
        }
    }
}

fn fault(why: &Error) -> PeerFault {
    match why {
        Error::InvalidMarkerRead(_) | Error::InvalidDataRead(_) => malformed("it ends in the middle of a value"),
        Error::Utf8Error(_) => malformed("a name is not UTF-8"),
        Error::DepthLimitExceeded => PeerFault::OverLimit { what: "nesting depth", len: DEPTH_MAX + 1, max: DEPTH_MAX },
        Error::TypeMismatch(_)
        | Error::OutOfRange
        | Error::LengthMismatch(_)
        | Error::Uncategorized(_)
        | Error::Syntax(_) => malformed("a value has another type than its place"),
    }
}

pub(super) const fn malformed(why: &'static str) -> PeerFault {
    PeerFault::Malformed { why }
}

pub(super) fn width(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
