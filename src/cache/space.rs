//! A keyspace as its handles see it: the way from a typed call to the store, on the caller's thread.
//!
//! # Invariants
//! * No read or write waits for a task, a peer or a lock other than its partition's.
//! * Nothing is decoded, encoded or told under a partition's lock, but for a custom type's update,
//!   which must see the state it replaces.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::crdt::Ctx;
use crate::error::{FetchError, ReadError, WriteError};
use crate::id::PartitionId;
use crate::node::{Level, Mark, Outcome};
use crate::runtime::{KeyChange, Line, wall_ms};
use crate::store::{Entry, Intent, KeyRef, Keyspace, Partition, Selector, Store, Tick, Written};

use super::encoded::decode;
use super::receipt::Receipt;
use super::registers::cell;
use super::ttl::Ttl;

/// A keyspace, the store it is in and the line to the driver.
#[derive(Debug)]
pub(super) struct Space {
    store: Arc<Store>,
    keyspace: Arc<Keyspace>,
    line: Arc<Line>,
}

/// Every clone has a line of its own: receipts count references to it, and threads that write
/// through clones of their own do not contend for one count.
impl Clone for Space {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.store), Arc::clone(&self.keyspace), &self.line)
    }
}

/// A mutation under way: the locked partition, the key and the clock.
#[derive(Debug)]
pub(super) struct Mutation<'a> {
    pub(super) partition: &'a mut Partition,
    pub(super) at: &'a KeyRef<'a>,
    pub(super) tick: &'a Tick<'a>,
}

impl Mutation<'_> {
    /// Returns the deadline of something written now.
    pub(super) fn deadline(&self, ttl: Ttl) -> Result<u64, WriteError> {
        ttl.deadline(self.tick.visible_ms())
    }
}

impl Space {
    pub(super) fn new(store: Arc<Store>, keyspace: Arc<Keyspace>, line: &Line) -> Self {
        Self { store, keyspace, line: Arc::new(line.clone()) }
    }

    /// Returns the store.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the keyspace.
    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Reads from a key's entry at the present time; `None` counts as a miss.
    pub(super) fn read<R>(&self, key: &[u8], f: impl FnOnce(&Entry, u64) -> Option<R>) -> Option<R> {
        let at = KeyRef::new(&self.keyspace, key);
        let now_ms = self.now_ms();
        let found = self.store.with_entry(&at, |entry| f(entry?, now_ms));
        self.keyspace.tally().read(at.hash, found.is_some());
        found
    }

    /// Looks at a key's entry at the present time without counting that as a read; false if there is none.
    pub(super) fn look(&self, key: &[u8], f: impl FnOnce(&Entry, u64) -> bool) -> bool {
        let (at, now_ms) = (KeyRef::new(&self.keyspace, key), self.now_ms());
        self.store.with_entry(&at, |entry| entry.is_some_and(|entry| f(entry, now_ms)))
    }

    /// Returns a register's value, if there is one that has not expired.
    pub(super) fn value<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<V>, ReadError> {
        // The clone counts a reference; decoding runs the caller's code, so not under the lock.
        let found = self.read(key, |entry, now_ms| cell(entry)?.visible(now_ms).cloned());
        found.map(|bytes| decode("value", &bytes)).transpose()
    }

    /// Asks for a register until as many have answered as a level takes; `None` when the driver has ended.
    pub(super) async fn read_at(&self, key: &Bytes, level: Level, within: Option<Duration>) -> Option<Outcome> {
        self.line.read(self.keyspace.id(), key.clone(), level, within).await
    }

    /// Gets a register from elsewhere.
    pub(super) async fn fetch(&self, key: &[u8]) -> Result<(), FetchError> {
        self.line.fetch(self.keyspace.id(), Bytes::copy_from_slice(key)).await
    }

    /// Runs a mutation that always happens. `value_len` are the bytes it adds; `None` is always
    /// admitted, because it frees room.
    pub(super) fn write(
        &self,
        key: &[u8],
        value_len: Option<usize>,
        f: impl FnOnce(Mutation<'_>) -> Result<Written, WriteError>,
    ) -> Result<Receipt, WriteError> {
        let (partition, written) = self.run(key, value_len, f, |_| true)?;
        Ok(self.receipt(partition, written))
    }

    /// Runs a mutation that happens only if there is something to change.
    pub(super) fn write_if(
        &self,
        key: &[u8],
        value_len: Option<usize>,
        f: impl FnOnce(Mutation<'_>) -> Result<Option<Written>, WriteError>,
    ) -> Result<Option<Receipt>, WriteError> {
        let (partition, written) = self.run(key, value_len, f, Option::is_some)?;
        Ok(written.map(|written| self.receipt(partition, written)))
    }

    fn run<R>(
        &self,
        key: &[u8],
        value_len: Option<usize>,
        f: impl FnOnce(Mutation<'_>) -> Result<R, WriteError>,
        happened: impl FnOnce(&R) -> bool,
    ) -> Result<(PartitionId, R), WriteError> {
        let at = KeyRef::new(&self.keyspace, key);
        let intent = Intent { wall_ms: wall_ms(), value_len };
        let (result, wake) =
            self.store.write(&at, intent, |partition, tick| f(Mutation { partition, at: &at, tick }))?;
        if wake {
            self.line.wake();
        }
        let result = result?;
        if happened(&result) {
            self.keyspace.tally().wrote(at.hash);
            if self.keyspace.is_watched() {
                self.line.changed(self.keyspace.id(), key);
            }
        }
        Ok((self.store.place(at.hash), result))
    }

    /// Clears what a selector matches, in every partition.
    pub(super) fn invalidate(&self, selector: &Selector) -> Result<Vec<Receipt>, WriteError> {
        let (all, wake) = self.store.invalidate(&self.keyspace, selector, wall_ms())?;
        if wake {
            self.line.wake();
        }
        for (space, key) in all.iter().flat_map(|cleared| &cleared.keys) {
            self.line.changed(*space, key);
        }
        Ok(all.iter().map(|cleared| self.receipt(cleared.partition, cleared.written)).collect())
    }

    fn receipt(&self, partition: PartitionId, written: Written) -> Receipt {
        Receipt::new(Mark { partition, dot: written.dot }, written.stamp, Arc::clone(&self.line))
    }

    /// Returns the time that decides what is visible.
    fn now_ms(&self) -> u64 {
        self.store.clock().visible_ms(wall_ms())
    }

    /// Returns the partition of a key and everything seen there.
    pub(super) fn context(&self, key: &[u8]) -> (PartitionId, Ctx) {
        let partition = self.store.place(self.keyspace.hash(key));
        let ctx = self.store.read(partition).map(|p| p.ctx().clone());
        (partition, ctx.unwrap_or_default())
    }

    /// Visits every entry of the keyspace, under one partition's shared lock at a time.
    pub(super) fn visit<R>(&self, mut f: impl FnMut(&Bytes, &Entry, u64) -> Option<R>) -> Vec<R> {
        let now_ms = self.now_ms();
        let id = self.keyspace.id();
        let mut found = Vec::new();
        for partition in self.store.partition_ids().filter_map(|id| self.store.read(id)) {
            let own = partition.entries().filter(|(space, _, _)| *space == id);
            found.extend(own.filter_map(|(_, key, entry)| f(key, entry, now_ms)));
        }
        found
    }

    /// Returns what hears of every change from now on.
    pub(super) fn watch(&self) -> tokio::sync::broadcast::Receiver<KeyChange> {
        let changes = self.line.watch(self.keyspace.id());
        self.keyspace.watch();
        changes
    }
}

/// The methods every typed handle has.
macro_rules! keyspace_methods {
    () => {
        /// Returns the keyspace's name.
        #[must_use]
        pub fn name(&self) -> &str {
            self.space.keyspace().name()
        }

        /// Sets how many bytes the keyspace may take in this process. Past it writes that need room
        /// are refused; deletions, and what others wrote, still arrive.
        pub fn set_budget(&self, bytes: u64) {
            self.space.keyspace().set_budget(bytes);
        }

        /// Returns a token of everything seen in the key's partition: a region that covers it shows
        /// nothing older than what was read here.
        ///
        /// # Errors
        /// [`ReadError::Unencodable`](crate::error::ReadError::Unencodable) when the key has no
        /// MessagePack form.
        pub fn token<Q>(&self, key: &Q) -> Result<super::Token, crate::error::ReadError>
        where
            K: std::borrow::Borrow<Q>,
            Q: serde::Serialize + ?Sized,
        {
            let (partition, ctx) = self.context(key)?;
            Ok(super::Token::of(partition, &ctx))
        }

        /// Returns the key's partition and exactly which events were seen there.
        ///
        /// # Errors
        /// As [`Self::token`].
        pub fn context<Q>(&self, key: &Q) -> Result<(crate::id::PartitionId, crate::crdt::Ctx), crate::error::ReadError>
        where
            K: std::borrow::Borrow<Q>,
            Q: serde::Serialize + ?Sized,
        {
            let key = super::encoded::Encoded::name("key", key)?;
            Ok(self.space.context(key.as_slice()))
        }

        /// Returns a stream of the keys that change from now on, here or elsewhere.
        #[must_use]
        pub fn watch(&self) -> super::Watch<K>
        where
            K: serde::de::DeserializeOwned,
        {
            super::Watch::new(self.space.watch())
        }
    };
}

/// A handle is a [`Space`] and its types, which it neither owns nor shares.
macro_rules! handle_impls {
    ($name:ident < $($param:ident),+ >) => {
        impl<$($param),+> $name<$($param),+> {
            pub(super) fn new(space: super::space::Space) -> Self {
                Self { space, types: std::marker::PhantomData }
            }
        }

        /// Clones are cheap, and threads that write much do best with one each.
        impl<$($param),+> Clone for $name<$($param),+> {
            fn clone(&self) -> Self {
                Self::new(self.space.clone())
            }
        }

        impl<$($param),+> std::fmt::Debug for $name<$($param),+> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.space.keyspace().name()).finish()
            }
        }
    };
}

pub(super) use {handle_impls, keyspace_methods};
