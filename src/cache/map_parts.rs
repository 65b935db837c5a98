//! The sets and counters inside a map.
//!
//! # Invariants
//! * They share the map's life: [`Maps::expire`] and [`Maps::clear`] hold for them, too.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ReadError, WriteError};

use super::encoded::Encoded;
use super::maps::Maps;
use super::receipt::Receipt;
use super::ttl::Ttl;
use super::{counters, sets};

impl<K: Serialize, F: Serialize, V> Maps<K, F, V> {
    /// Adds a member to the map's set of this name.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is exceeded or writes are not accepted; nothing was written.
    pub fn add<Q, G, M>(&self, key: &Q, set: &G, member: &M) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        M: Serialize + ?Sized,
    {
        let (key, set) = (Encoded::name("key", key)?, Encoded::name("field", set)?);
        sets::add(&self.space, &key, set.to_bytes(), &Encoded::name("member", member)?, Ttl::NEVER)
    }

    /// Removes a member from the map's set of this name; one added concurrently elsewhere stays.
    /// Returns `None` when there was nothing to remove.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn discard<Q, G, M>(&self, key: &Q, set: &G, member: &M) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        M: Serialize + ?Sized,
    {
        let (key, set) = (Encoded::name("key", key)?, Encoded::name("field", set)?);
        sets::remove(&self.space, &key, set.to_bytes(), &Encoded::name("member", member)?)
    }

    /// Tells whether the map's set of this name has a member.
    ///
    /// # Errors
    /// [`ReadError`] when a part does not encode.
    pub fn contains<Q, G, M>(&self, key: &Q, set: &G, member: &M) -> Result<bool, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        M: Serialize + ?Sized,
    {
        let (key, set) = (Encoded::name("key", key)?, Encoded::name("field", set)?);
        Ok(sets::contains(&self.space, &key, set.to_bytes(), &Encoded::name("member", member)?))
    }

    /// Returns the members of the map's set of this name.
    ///
    /// # Errors
    /// [`ReadError`] when key or set do not encode or a member is no `M`.
    pub fn members<M, Q, G>(&self, key: &Q, set: &G) -> Result<BTreeSet<M>, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
        M: DeserializeOwned + Ord,
    {
        let (key, set) = (Encoded::name("key", key)?, Encoded::name("field", set)?);
        sets::members(&self.space, &key, set.as_slice())
    }

    /// Adds to the map's counter of this name; a negative number subtracts.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is exceeded or writes are not accepted; nothing was written.
    pub fn increment<Q, G>(&self, key: &Q, counter: &G, by: i64) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
    {
        let (key, name) = (Encoded::name("key", key)?, Encoded::name("field", counter)?);
        counters::add(&self.space, &key, &name.to_bytes(), by, Ttl::NEVER)
    }

    /// Returns the value of the map's counter of this name; zero if nothing was counted.
    ///
    /// # Errors
    /// [`ReadError`] when key or counter do not encode.
    pub fn count<Q, G>(&self, key: &Q, counter: &G) -> Result<i64, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
    {
        let (key, name) = (Encoded::name("key", key)?, Encoded::name("field", counter)?);
        Ok(counters::value(&self.space, &key, name.as_slice()))
    }

    /// Erases every increment observed by the map's counter of this name. Returns `None` when
    /// nothing was ever counted.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn reset<Q, G>(&self, key: &Q, counter: &G) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        F: Borrow<G>,
        G: Serialize + ?Sized,
    {
        let (key, name) = (Encoded::name("key", key)?, Encoded::name("field", counter)?);
        counters::reset(&self.space, &key, &name.to_bytes())
    }
}
