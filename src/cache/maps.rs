//! Maps: fields, sets and counters under one key; adds win over concurrent removes.
//!
//! A field holds its *live siblings*: one value, unless several were put concurrently; reads return
//! the latest, [`Maps::siblings`] all of them. A removal erases what its writer had observed and
//! nothing else. A map may also hold named sets and counters; fields, sets and counters of one name
//! are different things.
//!
//! # Invariants
//! * Every mutation is one event of one key: two fields put by two calls may be seen apart.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crdt::tree::winner;
use crate::crdt::{Path, Tree};
use crate::error::{ReadError, WriteError};
use crate::store::{Body, Entry};

use super::encoded::{Encoded, decode};
use super::receipt::Receipt;
use super::space::{Space, handle_impls, keyspace_methods};
use super::ttl::Ttl;

/// A keyspace of maps from fields `F` to values `V`; made by [`Cache::maps`](super::Cache::maps).
pub struct Maps<K, F, V> {
    pub(super) space: Space,
    types: PhantomData<fn(K, F) -> V>,
}

handle_impls!(Maps<K, F, V>);

impl<K: Serialize, F: Serialize, V> Maps<K, F, V> {
    /// Puts a value at a field. It lives as long as the map: see [`Maps::expire`].
    ///
    /// # Errors
    /// [`WriteError`] when a limit is exceeded or writes are not accepted; nothing was written.
    pub fn put<Q, G>(&self, key: &Q, field: &G, value: &V) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        V: Serialize,
    {
        self.put_ttl(key, field, value, Ttl::NEVER)
    }

    /// Puts a value at a field for a time, or until the map itself expires if that is earlier.
    ///
    /// # Errors
    /// As [`Maps::put`].
    pub fn put_ttl<Q, G>(&self, key: &Q, field: &G, value: &V, ttl: Ttl) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        V: Serialize,
    {
        let (key, path) = (Encoded::name("key", key)?, field_path(field)?);
        let value = Encoded::value(value)?;
        self.space.write(key.as_slice(), Some(value.len()), |m| {
            let deadline = m.deadline(ttl)?;
            m.partition.admit_growth(m.at, &path, value.len())?;
            Ok(m.partition.put(m.at, path, value.to_bytes(), deadline, m.tick))
        })
    }

    /// Returns a field's value: the latest of its unexpired siblings.
    ///
    /// # Errors
    /// [`ReadError`] when key or field do not encode or the stored bytes are no `V`.
    pub fn get<Q, G>(&self, key: &Q, field: &G) -> Result<Option<V>, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        let (key, path) = (Encoded::name("key", key)?, field_path(field)?);
        let found = self.space.read(key.as_slice(), |entry, now_ms| {
            winner(tree(entry)?.siblings(&path), now_ms).map(|e| e.value.clone())
        });
        found.map(|bytes| decode("value", &bytes)).transpose()
    }

    /// Returns all unexpired siblings of a field, the latest first: more than one means that they
    /// were put concurrently, and nobody has put or removed since.
    ///
    /// # Errors
    /// As [`Maps::get`].
    pub fn siblings<Q, G>(&self, key: &Q, field: &G) -> Result<Vec<V>, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        let (key, path) = (Encoded::name("key", key)?, field_path(field)?);
        let found = self.space.read(key.as_slice(), |entry, now_ms| {
            let mut live: Vec<_> = tree(entry)?.siblings(&path).iter().filter(|e| now_ms < e.deadline).collect();
            live.sort_by_key(|e| std::cmp::Reverse((e.stamp, e.deadline, e.dot)));
            Some(live.into_iter().map(|e| e.value.clone()).collect::<Vec<_>>()).filter(|live| !live.is_empty())
        });
        found.unwrap_or_default().iter().map(|bytes| decode("value", bytes)).collect()
    }

    /// Returns every visible field and its value.
    ///
    /// # Errors
    /// [`ReadError`] when the key does not encode or something stored is none of the types asked for.
    pub fn get_all<Q>(&self, key: &Q) -> Result<BTreeMap<F, V>, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: DeserializeOwned + Ord,
        V: DeserializeOwned,
    {
        let key = Encoded::name("key", key)?;
        let found = self.space.read(key.as_slice(), fields);
        found.unwrap_or_default().iter().map(|(f, v)| Ok((decode("field", f)?, decode("value", v)?))).collect()
    }

    /// Removes a field: the values observed here go, one put concurrently elsewhere stays. Returns
    /// `None` when there was nothing to remove.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn remove<Q, G>(&self, key: &Q, field: &G) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
    {
        let (key, path) = (Encoded::name("key", key)?, field_path(field)?);
        self.space.write_if(key.as_slice(), None, |m| Ok(m.partition.remove(m.at, &path, m.tick)))
    }

    /// Extends a field's life to `ttl` from now, if it is visible.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted or `ttl` is zero; nothing was written.
    pub fn touch<Q, G>(&self, key: &Q, field: &G, ttl: Ttl) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
    {
        let (key, path) = (Encoded::name("key", key)?, field_path(field)?);
        self.space.write_if(key.as_slice(), None, |m| {
            let deadline = m.deadline(ttl)?;
            Ok(m.partition.touch_path(m.at, &path, deadline, m.tick))
        })
    }

    /// Erases everything observed in a map: fields, sets and counters. What is put concurrently
    /// stays. Returns `None` when there was nothing.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn clear<Q>(&self, key: &Q) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key)?;
        self.space.write_if(key.as_slice(), None, |m| Ok(m.partition.clear(m.at, m.tick)))
    }

    /// Gives a whole map a deadline: everything in it, and everything put later. Returns the receipt
    /// of the last of its events, one per field, or `None` when there is no such map.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted or `ttl` is zero; nothing was written.
    pub fn expire<Q>(&self, key: &Q, ttl: Ttl) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key)?;
        self.space.write_if(key.as_slice(), None, |m| {
            let deadline = m.deadline(ttl)?;
            Ok(m.partition.expire_key(m.at, deadline, m.tick).pop())
        })
    }

    /// Returns every visible field of every map with its key and value, in no particular order. It
    /// visits every entry of the process, under one partition's shared lock at a time.
    ///
    /// # Errors
    /// [`ReadError`] when something stored is none of the types asked for.
    pub fn entries(&self) -> Result<Vec<(K, F, V)>, ReadError>
    where
        K: DeserializeOwned,
        F: DeserializeOwned,
        V: DeserializeOwned,
    {
        let found = self.space.visit(|key, entry, now_ms| Some((key.clone(), fields(entry, now_ms)?)));
        let each = found.iter().flat_map(|(key, fields)| fields.iter().map(move |(f, v)| (key, f, v)));
        each.map(|(key, f, v)| Ok((decode("key", key)?, decode("field", f)?, decode("value", v)?))).collect()
    }

    keyspace_methods!();
}

pub(super) fn tree(entry: &Entry) -> Option<&Tree> {
    match &entry.body {
        Body::Tree(tree) => Some(tree),
        Body::Register(_) | Body::Custom(_) => None,
    }
}

fn field_path<G: Serialize + ?Sized>(field: &G) -> Result<Path, super::encoded::Unencodable> {
    Ok(Path::Field(Encoded::name("field", field)?.to_bytes()))
}

/// Returns the visible fields; `None` if there is none.
fn fields(entry: &Entry, now_ms: u64) -> Option<Vec<(Bytes, Bytes)>> {
    let visible = tree(entry)?.elems().filter_map(|(path, siblings)| match path {
        Path::Field(name) => Some((name.clone(), winner(siblings, now_ms)?.value.clone())),
        Path::Register | Path::Custom | Path::Ttl | Path::Counter(_) | Path::Member(..) => None,
    });
    Some(visible.collect::<Vec<_>>()).filter(|fields| !fields.is_empty())
}
