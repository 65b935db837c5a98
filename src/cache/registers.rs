//! Registers: one value per key, the last writer wins.
//!
//! "Last" is by stamp (hybrid logical clock, then replica), so every region picks the same winner
//! without asking. A delete is a write: it beats every older value, also one still on its way.
//!
//! # Invariants
//! * A read decodes what one replica wrote whole: never a mixture of two values.

use std::borrow::Borrow;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crdt::{Cell, Payload};
use crate::error::{FetchError, ReadError, WriteError};
use crate::node::Level;
use crate::store::{Body, Entry, Selector};

use super::encoded::{Encoded, decode};
use super::reading::Reading;
use super::receipt::Receipt;
use super::space::{Space, handle_impls, keyspace_methods};
use super::ttl::Ttl;

/// A keyspace of registers; made by [`Cache::registers`](super::Cache::registers).
///
/// A key may be given borrowed (`&str` for `String`, `&[T]` for `Vec<T>`): the borrowed form must
/// serialise as the owned one does, as all of the standard library's do.
pub struct Registers<K, V> {
    space: Space,
    types: PhantomData<fn() -> (K, V)>,
}

handle_impls!(Registers<K, V>);

/// Most tags of one value: each costs its length plus 32 bytes in memory and on the wire.
pub const TAGS_MAX: usize = 16;
/// Longest tag in bytes.
pub const TAG_BYTES_MAX: usize = 256;

/// What [`Registers::touch_if_half`] did.
#[derive(Clone, Debug)]
pub enum Touched {
    /// The life was extended.
    Extended(Receipt),
    /// More than half of it was left: nothing was written.
    Fresh,
    /// There is no such value.
    Missing,
}

impl<K: Serialize, V> Registers<K, V> {
    /// Sets a value.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is exceeded or writes are not accepted; nothing was written.
    pub fn set<Q>(&self, key: &Q, value: &V, ttl: Ttl) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        V: Serialize,
    {
        let key = Encoded::name("key", key)?;
        let value = Encoded::value(value)?;
        self.space.write(key.as_slice(), Some(value.len()), |m| {
            let deadline = m.deadline(ttl)?;
            Ok(m.partition.set(m.at, value.to_bytes(), deadline, m.tick))
        })
    }

    /// Sets a value and files it under tags, any of which an invalidation may name: at most
    /// [`TAGS_MAX`] of [`TAG_BYTES_MAX`] bytes each.
    ///
    /// # Errors
    /// As [`Registers::set`], and [`WriteError::TooManyTags`]; nothing was written.
    pub fn set_tagged<Q>(&self, key: &Q, value: &V, ttl: Ttl, tags: &[&str]) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        V: Serialize,
    {
        if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.len() > TAG_BYTES_MAX) {
            return Err(WriteError::TooManyTags { max: TAGS_MAX, bytes_max: TAG_BYTES_MAX });
        }
        let (key, value) = (Encoded::name("key", key)?, Encoded::value(value)?);
        let tags: Vec<Bytes> = tags.iter().map(|tag| Bytes::copy_from_slice(tag.as_bytes())).collect();
        self.space.write(key.as_slice(), Some(value.len()), |m| {
            let deadline = m.deadline(ttl)?;
            Ok(m.partition.set_tagged(m.at, (value.to_bytes(), tags), deadline, m.tick))
        })
    }

    /// Clears every value a selector matches that was written before now: here at once, in every
    /// other region as the invalidation arrives, whatever was on its way meanwhile. What is written
    /// afterwards lives on. One small event per partition goes out, however many keys it clears.
    ///
    /// It has come as far as every one of the receipts has.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was cleared.
    pub fn invalidate(&self, selector: &Selector) -> Result<Vec<Receipt>, WriteError> {
        self.space.invalidate(selector)
    }

    /// Returns the value, if there is one that has not expired.
    ///
    /// # Errors
    /// [`ReadError`] when the key does not encode or the stored bytes are no `V`.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        self.space.value(Encoded::name("key", key)?.as_slice())
    }

    /// Returns the value wherever it is: what is here, or at an edge that has not kept it what the nearest node that holds
    /// everything has, which stays here as long as it is read. Any other node holds everything and asks nobody, nor does an
    /// edge that knows a value to be deleted or over. Callers that miss one key at the same time share one request.
    ///
    /// # Errors
    /// [`FetchError`] when it cannot be told whether there is a value: nobody could be asked, or nobody answered within
    /// [`fetch_timeout`](crate::config::EdgeConfig::fetch_timeout).
    ///
    /// # Cancel safety
    /// Cancel safe: what comes is kept all the same.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn profile(cache: &driftless::Cache) -> Result<(), driftless::Error> {
    /// let profiles = cache.registers::<String, String>("profiles")?;
    /// match profiles.fetch("alice").await {
    ///     Ok(Some(profile)) => println!("{profile}"),
    ///     Ok(None) => println!("there is none"),
    ///     Err(error) if error.is_retryable() => println!("not known here: ask the database"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn fetch<Q>(&self, key: &Q) -> Result<Option<V>, FetchError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        V: DeserializeOwned,
    {
        let encoded = Encoded::name("key", key).map_err(ReadError::from)?;
        if let Some(value) = self.get(key)? {
            return Ok(Some(value));
        }
        let none_can_be = encoded.as_slice().len() > self.space.store().key_bytes_max();
        if none_can_be || self.space.store().warm().is_none() || self.space.look(encoded.as_slice(), is_known_gone) {
            return Ok(None);
        }
        self.space.fetch(encoded.as_slice()).await?;
        Ok(self.get(key)?)
    }

    /// Begins a read that asks the others: at [`Level::Quorum`] it shows every write of this key, deletion or invalidation
    /// that had reached [`Level::Quorum`] before it began, wherever that was made. Await it as it is to ask for as long as
    /// it takes, or [`Reading::within`] a time.
    ///
    /// Everybody who holds everything is asked, what they answer is kept here, and who answers with less than is here then is
    /// given that. The value is what this process holds at the end, whether enough have answered or not. It is not
    /// linearizable: what has reached fewer nodes may show in one read and not in the next one elsewhere.
    ///
    /// # Errors
    /// Awaiting it returns [`ReadError`] when the key does not encode or the stored bytes are no `V`.
    ///
    /// # Cancel safety
    /// Cancel safe: what comes is kept all the same.
    ///
    /// # Examples
    /// ```no_run
    /// # use std::time::Duration;
    /// # use driftless::Level;
    /// # async fn balance(cache: &driftless::Cache) -> Result<(), driftless::Error> {
    /// let limits = cache.registers::<String, u64>("limits")?;
    /// let read = limits.read("alice", Level::Quorum).within(Duration::from_millis(500)).await?;
    /// if !read.outcome.reached {
    ///     println!("{:?} is what is known here; {:?} have not answered", read.value, read.outcome.missing);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn read<Q>(&self, key: &Q, level: Level) -> Reading<V>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key).map(|key| key.to_bytes()).map_err(ReadError::from);
        Reading::new(self.space.clone(), key, level)
    }

    /// Deletes a value, also one this process has not seen: the deletion beats every older write
    /// that is still on its way.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn delete<Q>(&self, key: &Q) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let key = Encoded::name("key", key)?;
        self.space.write(key.as_slice(), None, |m| Ok(m.partition.delete(m.at, m.tick)))
    }

    /// Extends a value's life to `ttl` from now, if it is visible and that is later than its
    /// present end. Returns `None` when there is nothing visible.
    ///
    /// Every call is an event that is replicated; for a sliding time to live on every read use
    /// [`Registers::touch_if_half`].
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
            Ok(m.partition.touch(m.at, deadline, m.tick))
        })
    }

    /// Extends a value's life only if less than half of `ttl` is left: a sliding time to live that
    /// costs at most two events per `ttl`, however often it is read.
    ///
    /// # Errors
    /// As [`Registers::touch`].
    pub fn touch_if_half<Q>(&self, key: &Q, ttl: Ttl) -> Result<Touched, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        let encoded = Encoded::name("key", key)?;
        let left = self.space.read(encoded.as_slice(), |entry, now_ms| {
            let cell = cell(entry)?;
            cell.visible(now_ms).map(|_| ttl.is_half_gone(now_ms, cell.deadline))
        });
        match left {
            None => Ok(Touched::Missing),
            Some(false) => Ok(Touched::Fresh),
            Some(true) => Ok(self.touch(key, ttl)?.map_or(Touched::Missing, Touched::Extended)),
        }
    }

    /// Returns every visible key and value, in no particular order. It visits every entry of the
    /// process, under one partition's shared lock at a time, so it is no snapshot of one instant.
    ///
    /// # Errors
    /// [`ReadError`] when a key or value is none of the types asked for.
    pub fn entries(&self) -> Result<Vec<(K, V)>, ReadError>
    where
        K: DeserializeOwned,
        V: DeserializeOwned,
    {
        let visible = |key: &Bytes, entry: &Entry, now_ms| Some((key.clone(), cell(entry)?.visible(now_ms)?.clone()));
        let found = self.space.visit(visible);
        found.iter().map(|(key, value)| Ok((decode("key", key)?, decode("value", value)?))).collect()
    }

    keyspace_methods!();
}

/// Tells whether an entry says that there is no value, and not only that it is not here.
fn is_known_gone(entry: &Entry, now_ms: u64) -> bool {
    cell(entry).is_some_and(|cell| *cell.payload() == Payload::Tombstone || cell.deadline <= now_ms)
}

pub(super) fn cell(entry: &Entry) -> Option<&Cell> {
    match &entry.body {
        Body::Register(cell) => cell.as_ref(),
        Body::Tree(_) | Body::Custom(_) => None,
    }
}
