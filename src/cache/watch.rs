//! Hearing of changes and of events, without ever holding anybody up.
//!
//! # Invariants
//! * Both streams are bounded: a receiver that is too slow is told how many it missed, and goes on
//!   with the oldest that is left.
//! * A change is a hint to read: it carries no value, several changes may be told as one, the order
//!   between local and remote ones is not promised, and expiry is told to nobody.

use std::fmt;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::node::Event;
use crate::runtime::{KeyChange, Origin};

use super::encoded::decode;

/// A key that was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change<K> {
    /// The key. Read it to see what it holds now.
    pub key: K,
    /// Whether this process or another replica changed it.
    pub origin: Origin,
}

/// Why a stream did not return the next item.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The receiver was too slow. The next call returns the oldest item that is left.
    #[error("{missed} were missed because they came faster than they were received; read the state anew")]
    Lagged {
        /// How many.
        missed: u64,
    },
    /// A key that is none of the watcher's type was changed, by a process that uses another one.
    #[error("a key that is no value of the type asked for was changed; it was skipped")]
    Undecodable,
    /// The cache was shut down: nothing follows.
    #[error("the cache was shut down; nothing follows")]
    Closed,
}

impl From<RecvError> for WatchError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Lagged(missed) => Self::Lagged { missed },
            RecvError::Closed => Self::Closed,
        }
    }
}

/// The changes of one keyspace, from the moment it was made.
pub struct Watch<K> {
    changes: Receiver<KeyChange>,
    key: PhantomData<fn() -> K>,
}

impl<K: DeserializeOwned> Watch<K> {
    pub(super) fn new(changes: Receiver<KeyChange>) -> Self {
        Self { changes, key: PhantomData }
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// [`WatchError`] when changes were missed (1,024 are kept), a key did not decode, or the cache
    /// was shut down. The data is unaffected.
    ///
    /// # Cancel safety
    /// Cancel safe: no change is lost.
    pub async fn recv(&mut self) -> Result<Change<K>, WatchError> {
        let KeyChange { key, origin } = self.changes.recv().await?;
        let key = decode("key", &key).map_err(|_why| WatchError::Undecodable)?;
        Ok(Change { key, origin })
    }
}

impl<K> fmt::Debug for Watch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("waiting", &self.changes.len()).finish_non_exhaustive()
    }
}

/// What happens to the cluster as this node sees it, from the moment it was made.
#[derive(Debug)]
pub struct Events(Receiver<Event>);

impl Events {
    pub(super) fn new(events: Receiver<Event>) -> Self {
        Self(events)
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// [`WatchError`] when events were missed (256 are kept) or the cache was shut down.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    pub async fn recv(&mut self) -> Result<Event, WatchError> {
        Ok(self.0.recv().await?)
    }
}
