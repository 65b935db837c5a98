//! A read at a level: who holds everything is asked, and what they answer is here before it is looked at.
//!
//! # Invariants
//! * What is returned is what this process holds when it is told how many have answered, whether the level was reached or not.
//! * Nobody is asked before it is awaited.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::error::ReadError;
use crate::node::{Level, Outcome};

use super::space::Space;

/// What a read at a level found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read<V> {
    /// The value that is here now, if there is one that has not expired. Where the level was not reached there may be a later
    /// one elsewhere.
    pub value: Option<V>,
    /// Who has answered.
    pub outcome: Outcome,
}

/// A read at a level; made by [`Registers::read`](super::Registers::read), begun by awaiting it.
#[must_use = "a read does nothing until it is awaited"]
pub struct Reading<V> {
    space: Space,
    key: Result<Bytes, ReadError>,
    level: Level,
    within: Option<Duration>,
    types: PhantomData<fn() -> V>,
}

impl<V> Reading<V> {
    pub(super) fn new(space: Space, key: Result<Bytes, ReadError>, level: Level) -> Self {
        Self { space, key, level, within: None, types: PhantomData }
    }

    /// Gives up after a time, counted from when it is awaited. Giving up is an [`Outcome`], not an error: what is here is
    /// returned.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }
}

impl<V: DeserializeOwned> Reading<V> {
    async fn read(self) -> Result<Read<V>, ReadError> {
        let key = self.key?;
        let here = Outcome { reached: true, acked: 1, needed: 1, missing: Vec::new() };
        let none_can_be = key.len() > self.space.store().key_bytes_max();
        if self.level == Level::Local || none_can_be {
            return Ok(Read { value: self.space.value(&key)?, outcome: here });
        }
        // An edge keeps what is asked for.
        self.space.look(&key, |_, _| true);
        // Without a driver nobody is asked any more.
        let alone = Outcome { reached: false, needed: 2, ..here };
        let outcome = self.space.read_at(&key, self.level, self.within).await.unwrap_or(alone);
        Ok(Read { value: self.space.value(&key)?, outcome })
    }
}

/// Resolves to the value and who has answered. [`Level::Local`] resolves at once; after
/// [`Cache::shutdown`](super::Cache::shutdown) every other is not reached.
impl<V: DeserializeOwned + 'static> IntoFuture for Reading<V> {
    type Output = Result<Read<V>, ReadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<V> Clone for Reading<V> {
    fn clone(&self) -> Self {
        Self { space: self.space.clone(), key: self.key.clone(), types: PhantomData, ..*self }
    }
}

impl<V> fmt::Debug for Reading<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.space.keyspace().name();
        f.debug_struct("Reading").field("keyspace", &name).field("level", &self.level).finish_non_exhaustive()
    }
}
