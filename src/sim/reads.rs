//! Reads at a level.

use std::time::Duration;

use super::cluster::SimCluster;
use super::oracle::Key;
use crate::node::{Input, Level, WaitId};

impl SimCluster {
    /// Begins a read at a level; its outcome comes under this name.
    pub fn read(&mut self, at: usize, key: &Key, level: Level, within: Duration) -> Option<WaitId> {
        let store = self.store(at)?;
        let keyspace = store.spaces().open(key.space.name, key.space.family).ok()?.id();
        self.next_wait += 1;
        let id = WaitId(self.next_wait);
        let deadline = Some(self.now(at).mono.plus(within));
        self.input(at, Input::Read { id, keyspace, key: key.name.clone(), level, deadline });
        Some(id)
    }
}
