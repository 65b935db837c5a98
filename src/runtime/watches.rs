//! Who hears of changed keys: one bounded broadcast per watched keyspace.
//!
//! Shared between the threads that write and the driver that applies remote writes, because both
//! are sources of changes. A keyspace nobody watches never comes here.
//!
//! # Invariants
//! * Telling never waits: a watcher that is behind loses the oldest changes and is told how many.
//! * After [`Watches::close`] every watcher hears that it is over, and new ones at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::id::KeyspaceId;
use crate::sync::RwLock;

/// Changes kept for a watcher that is slow: 50 ms of 20,000 changes a second, in 64 KiB. One that
/// is further behind does better to read the state again than to catch up.
pub(super) const CHANGES: usize = 1_024;

/// Who made a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A write of this process.
    Local,
    /// A write that came from another replica.
    Remote,
}

/// A key that was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyChange {
    /// The encoded key.
    pub key: Bytes,
    /// Who changed it.
    pub origin: Origin,
}

/// The watched keyspaces; `None` once it is over.
#[derive(Debug)]
pub struct Watches {
    open: RwLock<Option<BTreeMap<KeyspaceId, broadcast::Sender<KeyChange>>>>,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self { open: RwLock::new(Some(BTreeMap::new())) }
    }

    /// Returns what hears of every change from now on.
    #[must_use]
    pub fn subscribe(&self, keyspace: KeyspaceId) -> broadcast::Receiver<KeyChange> {
        match self.open.write().as_mut() {
            Some(open) => open.entry(keyspace).or_insert_with(|| broadcast::Sender::new(CHANGES)).subscribe(),
            // The sender is gone at once, so the receiver says that it is over.
            None => broadcast::Sender::new(1).subscribe(),
        }
    }

    /// Tells the watchers of a keyspace, if there are any.
    pub fn tell(&self, keyspace: KeyspaceId, key: Bytes, origin: Origin) {
        let open = self.open.read();
        if let Some(sender) = open.as_ref().and_then(|open| open.get(&keyspace)) {
            // An error says that the last watcher has gone, which is fine.
            drop(sender.send(KeyChange { key, origin }));
        }
    }

    pub(super) fn close(&self) {
        *self.open.write() = None;
    }
}
