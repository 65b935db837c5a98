//! Sets: members under one key; an add wins over a concurrent remove.
//!
//! # Invariants
//! * A removal erases the additions its region had seen and nothing else.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::crdt::tree::winner;
use crate::crdt::{self, Path};
use crate::error::{ReadError, WriteError};
use crate::store::Entry;

use super::encoded::{Encoded, decode};
use super::maps::tree;
use super::receipt::Receipt;
use super::space::{Space, handle_impls, keyspace_methods};
use super::ttl::Ttl;

/// A keyspace of sets with members `M`; made by [`Cache::sets`](super::Cache::sets).
pub struct Sets<K, M> {
    space: Space,
    types: PhantomData<fn() -> (K, M)>,
}

handle_impls!(Sets<K, M>);

/// The one set of an entry of a set keyspace.
const ONLY: Bytes = Bytes::from_static(b"");

impl<K: Serialize, M: Serialize> Sets<K, M> {
    /// Adds a member for a time. Adding it again replaces its time.
    ///
    /// # Errors
    /// [`WriteError`] when a limit is exceeded or writes are not accepted; nothing was written.
    pub fn add<Q, N>(&self, key: &Q, member: &N, ttl: Ttl) -> Result<Receipt, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        M: Borrow<N>,
        N: Serialize + ?Sized,
    {
        add(&self.space, &Encoded::name("key", key)?, ONLY, &Encoded::name("member", member)?, ttl)
    }

    /// Removes a member; one added concurrently elsewhere stays. Returns `None` when there was
    /// nothing to remove.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted; nothing was written.
    pub fn remove<Q, N>(&self, key: &Q, member: &N) -> Result<Option<Receipt>, WriteError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        M: Borrow<N>,
        N: Serialize + ?Sized,
    {
        remove(&self.space, &Encoded::name("key", key)?, ONLY, &Encoded::name("member", member)?)
    }

    /// Tells whether a set has a member.
    ///
    /// # Errors
    /// [`ReadError`] when key or member do not encode.
    pub fn contains<Q, N>(&self, key: &Q, member: &N) -> Result<bool, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        M: Borrow<N>,
        N: Serialize + ?Sized,
    {
        Ok(contains(&self.space, &Encoded::name("key", key)?, ONLY, &Encoded::name("member", member)?))
    }

    /// Returns the members.
    ///
    /// # Errors
    /// [`ReadError`] when the key does not encode or a member is no `M`.
    pub fn members<Q>(&self, key: &Q) -> Result<BTreeSet<M>, ReadError>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        M: DeserializeOwned + Ord,
    {
        members(&self.space, &Encoded::name("key", key)?, &ONLY)
    }

    /// Erases every member observed here; one added concurrently elsewhere stays. Returns `None`
    /// when there was nothing.
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

    /// Returns every set that has members, in no particular order. It visits every entry of the
    /// process, under one partition's shared lock at a time.
    ///
    /// # Errors
    /// [`ReadError`] when a key is no `K` or a member no `M`.
    pub fn entries(&self) -> Result<Vec<(K, BTreeSet<M>)>, ReadError>
    where
        K: DeserializeOwned,
        M: DeserializeOwned + Ord,
    {
        let found = self.space.visit(|key, entry, now_ms| Some((key.clone(), listed(entry, &ONLY, now_ms)?)));
        let typed = |(key, members): &(Bytes, Vec<Bytes>)| {
            let members = members.iter().map(|m| decode("member", m));
            Ok((decode("key", key)?, members.collect::<Result<_, ReadError>>()?))
        };
        found.iter().map(typed).collect()
    }

    keyspace_methods!();
}

pub(super) fn add(space: &Space, key: &Encoded, set: Bytes, member: &Encoded, ttl: Ttl) -> Result<Receipt, WriteError> {
    let path = Path::Member(set, member.to_bytes());
    space.write(key.as_slice(), Some(member.len()), |m| {
        let deadline = m.deadline(ttl)?;
        m.partition.admit_growth(m.at, &path, member.len())?;
        Ok(m.partition.put(m.at, path, Bytes::new(), deadline, m.tick))
    })
}

pub(super) fn remove(
    space: &Space,
    key: &Encoded,
    set: Bytes,
    member: &Encoded,
) -> Result<Option<Receipt>, WriteError> {
    let path = Path::Member(set, member.to_bytes());
    space.write_if(key.as_slice(), None, |m| Ok(m.partition.remove(m.at, &path, m.tick)))
}

pub(super) fn contains(space: &Space, key: &Encoded, set: Bytes, member: &Encoded) -> bool {
    let path = Path::Member(set, member.to_bytes());
    let found = |entry: &Entry, now_ms| winner(tree(entry)?.siblings(&path), now_ms).map(|_| ());
    space.read(key.as_slice(), found).is_some()
}

pub(super) fn members<M: DeserializeOwned + Ord>(
    space: &Space,
    key: &Encoded,
    set: &[u8],
) -> Result<BTreeSet<M>, ReadError> {
    let found = space.read(key.as_slice(), |entry, now_ms| listed(entry, set, now_ms));
    found.unwrap_or_default().iter().map(|m| decode("member", m)).collect()
}

/// Returns the visible members; `None` if there is none.
fn listed(entry: &Entry, set: &[u8], now_ms: u64) -> Option<Vec<Bytes>> {
    let members: Vec<Bytes> = crdt::members(tree(entry)?, set, now_ms).cloned().collect();
    Some(members).filter(|members| !members.is_empty())
}
