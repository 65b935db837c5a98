//! Counters: every increment of every region counts exactly once.
//!
//! # Invariants
//! * A reset erases exactly the increments its region had seen; a concurrent one survives.

use std::borrow::Borrow;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crdt::Path;
use crate::error::{ReadError, WriteError};

use super::encoded::{Encoded, decode};
use super::maps::tree;
use super::receipt::Receipt;
use super::space::{Space, handle_impls, keyspace_methods};
use super::ttl::Ttl;

/// A keyspace of counters; made by [`Cache::counters`](super::Cache::counters).
pub struct Counters<K> {
    space: Space,
    types: PhantomData<fn() -> K>,
}

handle_impls!(Counters<K>);

/// The one counter of an entry of a counter keyspace.
const ONLY: &[u8] = b"";

impl<K: Serialize> Counters<K> {
    /// Adds to a counter; a negative number subtracts. `ttl` holds for what this process counts
    /// from its first increment on: a counter of requests per minute is one with a key per minute.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is exceeded or writes are not accepted; nothing was written.
    pub fn add<Q>(&self, key: &Q, by: i64, ttl: Ttl) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        add(&self.space, &Encoded::name("key", key)?, &Bytes::from_static(ONLY), by, ttl)
    }

    /// Returns the value; zero if nothing was counted. It stops at the bounds of an `i64`.
    ///
    /// # Errors
    /// [`ReadError`] when the key does not encode.
    pub fn value<Q>(&self, key: &Q) -> Result<i64, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        Ok(value(&self.space, &Encoded::name("key", key)?, ONLY))
    }

    /// Extends the life of everything counted to `ttl` from now. Returns `None` when nothing was
    /// ever counted.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted or `ttl` is zero; nothing was written.
    pub fn touch<Q>(&self, key: &Q, ttl: Ttl) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key)?;
        self.space.write_if(key.as_slice(), None, |m| {
            let deadline = m.deadline(ttl)?;
            Ok(m.partition.touch_counter(m.at, &Bytes::from_static(ONLY), deadline, m.tick))
        })
    }

    /// Erases every increment observed here. Returns `None` when nothing was ever counted.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn reset<Q>(&self, key: &Q) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        reset(&self.space, &Encoded::name("key", key)?, &Bytes::from_static(ONLY))
    }

    /// Returns every key whose value is not zero, in no particular order. It visits every entry of
    /// the process, under one partition's shared lock at a time.
    ///
    /// # Errors
    /// [`ReadError`] when a key is no `K`.
    pub fn entries(&self) -> Result<Vec<(K, i64)>, ReadError>
    where
        K: DeserializeOwned,
    {
        let found = self.space.visit(|key, entry, now_ms| {
            let value = tree(entry)?.counter(ONLY)?.value(now_ms);
            (value != 0).then(|| (key.clone(), value))
        });
        found.iter().map(|(key, value)| Ok((decode("key", key)?, *value))).collect()
    }

    keyspace_methods!();
}

/// Bytes a new contribution may take, for the byte budget.
const CONTRIBUTION_BYTES: usize = 96;

pub(super) fn add(space: &Space, key: &Encoded, name: &Bytes, by: i64, ttl: Ttl) -> Result<Receipt, WriteError> {
    space.write(key.as_slice(), Some(CONTRIBUTION_BYTES), |m| {
        let deadline = m.deadline(ttl)?;
        m.partition.admit_growth(m.at, &Path::Counter(name.clone()), CONTRIBUTION_BYTES)?;
        Ok(m.partition.increment(m.at, name, by, deadline, m.tick))
    })
}

pub(super) fn value(space: &Space, key: &Encoded, name: &[u8]) -> i64 {
    let read = space.read(key.as_slice(), |entry, now_ms| Some(tree(entry)?.counter(name)?.value(now_ms)));
    read.unwrap_or(0)
}

pub(super) fn reset(space: &Space, key: &Encoded, name: &Bytes) -> Result<Option<Receipt>, WriteError> {
    space.write_if(key.as_slice(), None, |m| Ok(m.partition.reset(m.at, name, m.tick)))
}
