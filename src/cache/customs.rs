//! Custom entries: any state-based type of your own or of the `crdts` crate, carried whole.
//!
//! The type must be declared in the configuration, so that peers compare it before they exchange
//! states: see [`Config::custom`](crate::config::Config::custom).
//!
//! # Invariants
//! * Two regions that update a state at the same time end with the type's own merge of both.
//! * A state has one beginning: of two regions that *begin* one at the same time the later wins
//!   whole, as after a deletion. Begin it once, in one region, where that matters.
//! * A deletion begins a new life: an update of the old one that arrives later changes nothing.

use std::borrow::Borrow;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crdt::Custom;
use crate::crdt::custom::{self, BadState};
use crate::error::{ReadError, WriteError};
use crate::store::{Body, Entry};

use super::encoded::{Encoded, decode};
use super::receipt::Receipt;
use super::space::{Space, handle_impls, keyspace_methods};
use super::ttl::Ttl;

/// A keyspace of a custom type; made by [`Cache::custom`](super::Cache::custom).
pub struct Customs<K, T> {
    space: Space,
    types: PhantomData<fn() -> (K, T)>,
}

handle_impls!(Customs<K, T>);

impl<K: Serialize, T: Serialize + DeserializeOwned + Default> Customs<K, T> {
    /// Changes a state, or begins one from `T::default()`. `change` gets the state and the actor
    /// this process counts and dots as, and returns what the caller wants to know.
    ///
    /// `change` runs under the partition's lock: it must be quick and must not use the cache.
    ///
    /// # Errors
    /// [`WriteError`] when the state is too large or no `T`, or writes are not accepted; nothing was
    /// written.
    pub fn update<Q, R>(
        &self,
        key: &Q,
        ttl: Ttl,
        change: impl FnOnce(&mut T, u64) -> R,
    ) -> Result<(R, Receipt), WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key)?;
        let actor = self.space.store().me().0;
        let max = self.space.store().config().value_bytes_max;
        let mut result = None;
        let receipt = self.space.write(key.as_slice(), Some(0), |m| {
            let deadline = m.deadline(ttl)?;
            let mut refused = WriteError::Unencodable { what: "state" };
            let updated = m.partition.update_custom(m.at, deadline, m.tick, |seen| {
                let next = next_state(seen, max, |state| result = Some(change(state, actor)));
                next.map_err(|why| {
                    refused = why;
                    BadState
                })
            });
            updated.map_err(|BadState| refused)
        })?;
        // `change` ran, or the state would have been refused.
        result.map(|result| (result, receipt)).ok_or(WriteError::Unencodable { what: "state" })
    }

    /// Returns the state, if there is one that has not expired.
    ///
    /// # Errors
    /// [`ReadError`] when the key does not encode or the stored bytes are no `T`.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<T>, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key)?;
        let found = self.space.read(key.as_slice(), visible);
        found.map(|bytes| decode("state", &bytes)).transpose()
    }

    /// Deletes a state, also one this process has not seen.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn delete<Q>(&self, key: &Q) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key)?;
        self.space.write(key.as_slice(), None, |m| Ok(m.partition.delete_custom(m.at, m.tick)))
    }

    /// Returns every visible key and state, in no particular order. It visits every entry of the
    /// process, under one partition's shared lock at a time.
    ///
    /// # Errors
    /// [`ReadError`] when a key or state is none of the types asked for.
    pub fn entries(&self) -> Result<Vec<(K, T)>, ReadError>
    where
        K: DeserializeOwned,
    {
        let found = self.space.visit(|key, entry, now_ms| Some((key.clone(), visible(entry, now_ms)?)));
        found.iter().map(|(key, state)| Ok((decode("key", key)?, decode("state", state)?))).collect()
    }

    keyspace_methods!();
}

fn next_state<T: Serialize + DeserializeOwned + Default>(
    seen: Option<&Bytes>,
    max: usize,
    change: impl FnOnce(&mut T),
) -> Result<Bytes, WriteError> {
    let mut state: T = match seen {
        Some(bytes) => custom::decode(bytes).map_err(|BadState| WriteError::Undecodable { what: "state" })?,
        None => T::default(),
    };
    change(&mut state);
    let next = custom::encode(&state).map_err(|BadState| WriteError::Unencodable { what: "state" })?;
    if next.len() > max { Err(WriteError::ValueTooLarge { len: next.len(), max }) } else { Ok(next) }
}

fn visible(entry: &Entry, now_ms: u64) -> Option<Bytes> {
    let custom: &Custom = match &entry.body {
        Body::Custom(custom) => custom.as_ref().as_ref()?,
        Body::Register(_) | Body::Tree(_) => return None,
    };
    custom.visible(now_ms).cloned()
}
