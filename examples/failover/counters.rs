//! What the nodes' repair has counted, over all processes that came and went.
//!
//! A node counts from its start, so what a process has counted must be read before it ends, and its successor begins at 0.
//!
//! # Invariants
//! * The sum never falls, and nothing is counted twice.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// What repair has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Repaired {
    /// Keys that were found to differ although both copies had seen the same.
    pub(crate) differences: u64,
    /// Keys that were given back to a copy that had lost something.
    pub(crate) keys: u64,
    /// Bytes sent to compare and to give back.
    pub(crate) bytes: u64,
}

impl AddAssign for Repaired {
    fn add_assign(&mut self, more: Self) {
        self.differences += more.differences;
        self.keys += more.keys;
        self.bytes += more.bytes;
    }
}

impl Sub for Repaired {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            differences: self.differences.saturating_sub(before.differences),
            keys: self.keys.saturating_sub(before.keys),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// The counters of all sites.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// What the process that runs at each site had counted when it was last read.
    running: BTreeMap<usize, Repaired>,
    sum: Repaired,
}

impl Counters {
    /// A process begins at a site, and counts from 0.
    pub(crate) fn begin(&mut self, site: usize) {
        self.running.insert(site, Repaired::default());
    }

    /// Notes what the process at a site has counted since it began.
    pub(crate) fn read(&mut self, site: usize, now: Repaired) {
        let before = self.running.insert(site, now).unwrap_or_default();
        self.sum += now - before;
    }

    /// Returns what all processes have counted, those that have ended included.
    pub(crate) fn sum(&self) -> Repaired {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_counts_from_zero_takes_nothing_from_what_the_one_before_had_counted() {
        let counted = |keys| Repaired { differences: 0, keys, bytes: 10 * keys };
        let mut counters = Counters::default();
        counters.begin(1);
        counters.read(1, counted(5));
        counters.read(1, counted(5));
        counters.begin(1);
        counters.read(1, counted(2));
        counters.read(1, counted(6));
        counters.read(2, counted(1));
        assert_eq!(counters.sum(), counted(12));
    }
}
