//! Which partitions were written since the driver last looked, and whether it must be woken.
//!
//! # Invariants
//! * A mark is taken by the next look, or somebody who marked after that look was told to wake the driver.
//! * Whoever is told to wake must do so; until then nobody else is told.
//!
//! Why no mark is lost: a look first says that nobody was told, then takes the marks. A mark that it misses comes after
//! it in the order of that word's changes, and as both of them release and acquire, the marker sees that nobody was
//! told, or that somebody else has been told since. A file of its own so that `tests/loom.rs` can try every order.

use crate::id::PartitionId;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// The marks of all partitions.
#[derive(Debug)]
pub(super) struct Dirty {
    /// A bit per partition.
    words: Box<[AtomicU64]>,
    /// Somebody was told to wake the driver, and it has not looked since.
    told: AtomicBool,
}

impl Dirty {
    /// Builds the marks of so many partitions, none of them set.
    #[must_use]
    pub(super) fn new(partitions: usize) -> Self {
        let words = (0..partitions.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { words, told: AtomicBool::new(false) }
    }

    /// Marks a partition. Returns true when the driver sleeps, and the caller must wake it.
    pub(super) fn mark(&self, id: PartitionId) -> bool {
        if let Some(word) = self.words.get(id.index() / 64) {
            word.fetch_or(1 << (id.index() % 64), Ordering::AcqRel);
        }
        !self.told.load(Ordering::Acquire) && !self.told.swap(true, Ordering::AcqRel)
    }

    /// Takes all marks. The next one wakes the driver again.
    pub(super) fn take(&self) -> Vec<PartitionId> {
        self.told.store(false, Ordering::Release);
        let mut taken = Vec::new();
        for (at, word) in self.words.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let index = at * 64 + usize::try_from(bit).unwrap_or(0);
                taken.extend(u16::try_from(index).ok().map(PartitionId));
            }
        }
        taken
    }
}
