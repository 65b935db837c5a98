//! The store: partitions behind locks, the one structure shared between the caller's threads and
//! the driver.
//!
//! A local read or write runs on the caller's thread: one hash, one partition's lock, no task hop.
//! A write marks its partition dirty; the first mark since the driver last looked asks the caller
//! to wake it. [`Partition`] itself is a plain struct that a single-threaded simulation drives.
//!
//! # Invariants
//! * A partition's context, log and entries change under its own lock; no other
//!   partition's is held meanwhile, only the keyspace table's, which never waits for a partition.
//! * Nothing blocks a local write because of a peer.

pub mod apply;
pub mod capture;
pub mod compare;
mod dirty;
pub mod entry;
mod epoch;
pub mod fingerprint;
pub mod fragment;
mod history;
pub mod keyspace;
pub mod log;
pub mod partition;
pub mod reissue;
pub mod restore;
pub mod stability;
pub mod tally;
mod verified;
pub mod warm;
pub mod write;

pub use apply::Around;
pub use capture::{Budget, Captured};
pub use compare::{Frozen, Listed};
use dirty::Dirty;
pub use entry::{Body, Entry};
pub use epoch::Selector;
pub use fragment::{Applied, Batch, Fragment, Full, Misapplied, Refused, Rejected};
pub use history::{Hold, Unready};
pub use keyspace::{Family, KEYSPACES_MAX, Keyspace, Keyspaces};
pub use partition::{KeyRef, Partition};
pub use reissue::{Estate, Reissued, Unsent};
pub use restore::Restored;
pub use tally::{Tallied, Tally};
pub use verified::Compared;
pub use warm::Warm;
pub use write::{ENTRY_BYTES_MAX, FIELDS_MAX, Tick, Written};

use crate::clock::HlcClock;
use crate::error::WriteError;
use crate::id::{KeyspaceId, PartitionId, ReplicaId};
use crate::probe::sometimes;
use crate::sync::{AtomicU8, AtomicU64, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Most partitions a cluster may have: the dirty marks and reports of an idle link follow it.
pub const PARTITIONS_MAX: usize = 4_096;

/// The sizes a store is built with.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Partitions, a power of two; the same in every process of the cluster.
    pub partitions: usize,
    /// The cluster's key for placing keys.
    pub hash_key: [u8; 16],
    /// Log records kept over all partitions; past it peers that lack them are synchronised in full.
    pub log_records_max: usize,
    /// Bytes a keyspace may take unless it is given another budget.
    pub keyspace_bytes: u64,
    /// Longest key in bytes.
    pub key_bytes_max: usize,
    /// Largest value in bytes.
    pub value_bytes_max: usize,
    /// It is of an edge: which keys are read is noted, and the others may be given back.
    pub is_edge: bool,
}

/// Whether local writes are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Not joined yet.
    Joining,
    /// Open.
    Open,
    /// A majority of peers refuses this node's clock.
    ClockRefused,
    /// This replica was removed.
    Removed,
    /// This replica hands over what it has, to end or to leave.
    Draining,
    /// This replica stands by: others write.
    Standby,
    /// The cache was shut down, or its driver has ended: nobody is left to send a write. Final.
    Stopped,
}

impl Gate {
    fn code(self) -> u8 {
        match self {
            Self::Joining => 0,
            Self::Open => 1,
            Self::ClockRefused => 2,
            Self::Removed => 3,
            Self::Stopped => 4,
            Self::Draining => 5,
            Self::Standby => 6,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Open,
            2 => Self::ClockRefused,
            3 => Self::Removed,
            4 => Self::Stopped,
            5 => Self::Draining,
            6 => Self::Standby,
            _ => Self::Joining,
        }
    }
}

/// What one write needs besides its key.
#[derive(Clone, Copy, Debug)]
pub struct Intent {
    /// The wall clock in Unix milliseconds.
    pub wall_ms: u64,
    /// Bytes of the new value; `None` for a mutation that frees room and is always admitted.
    pub value_len: Option<usize>,
}

/// What an invalidation did in one partition.
#[derive(Clone, Debug)]
pub struct Cleared {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch's event.
    pub written: Written,
    /// The keys cleared here, if the keyspace is watched.
    pub keys: Vec<(KeyspaceId, bytes::Bytes)>,
}

/// All partitions of one replica.
#[derive(Debug)]
pub struct Store {
    /// The replica that writes here.
    me: AtomicU64,
    config: StoreConfig,
    clock: HlcClock,
    spaces: Keyspaces,
    partitions: Box<[RwLock<Partition>]>,
    dirty: Dirty,
    gate: AtomicU8,
    /// Invalidations under way.
    invalidating: AtomicU64,
    skew_ms: AtomicU64,
    shift: u32,
    /// What was read lately, at an edge.
    warm: Option<Warm>,
}

impl Store {
    /// From now on graves go only when comparisons with all other members have found their leaves equal.
    pub fn wait_for_comparisons(&self) {
        for id in self.partition_ids() {
            if let Some(mut partition) = self.lock(id) {
                partition.wait_for_comparisons();
            }
        }
    }

    /// Returns the most bytes of a key.
    #[must_use]
    pub fn key_bytes_max(&self) -> usize {
        self.config.key_bytes_max
    }

    /// Builds an empty store that accepts no writes until [`Store::set_gate`] opens it.
    #[must_use]
    pub fn new(me: ReplicaId, config: StoreConfig) -> Self {
        let count = config.partitions.clamp(1, PARTITIONS_MAX).next_power_of_two();
        let records = (config.log_records_max / count).max(16);
        let ids = (0..count).filter_map(|p| u16::try_from(p).ok()).map(PartitionId);
        Self {
            me: AtomicU64::new(me.0),
            clock: HlcClock::default(),
            spaces: Keyspaces::new(config.keyspace_bytes, config.hash_key),
            partitions: ids.map(|id| RwLock::new(Partition::new(id, me, records))).collect(),
            dirty: Dirty::new(count),
            gate: AtomicU8::new(Gate::Joining.code()),
            invalidating: AtomicU64::new(0),
            skew_ms: AtomicU64::new(0),
            shift: 64 - count.trailing_zeros(),
            warm: config.is_edge.then(|| Warm::new(count)),
            config,
        }
    }

    /// Returns the id of the replica that writes here: another one after [`Store::begin_anew`].
    #[must_use]
    pub fn me(&self) -> ReplicaId {
        ReplicaId(self.me.load(Ordering::Relaxed))
    }

    /// Returns the sizes.
    #[must_use]
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Returns this replica's clock.
    #[must_use]
    pub fn clock(&self) -> &HlcClock {
        &self.clock
    }

    /// Returns the keyspaces.
    #[must_use]
    pub fn spaces(&self) -> &Keyspaces {
        &self.spaces
    }

    /// Returns how many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Iterates over the ids of all partitions.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partitions.len()).filter_map(|p| u16::try_from(p).ok()).map(PartitionId)
    }

    /// Returns the partition a hash belongs to: its high bits.
    #[must_use]
    pub fn place(&self, hash: u64) -> PartitionId {
        PartitionId(hash.checked_shr(self.shift).and_then(|p| u16::try_from(p).ok()).unwrap_or(0))
    }

    /// Locks a partition for reading; `None` when there is none of this number.
    #[must_use]
    pub fn read(&self, id: PartitionId) -> Option<RwLockReadGuard<'_, Partition>> {
        self.partitions.get(id.index()).map(RwLock::read)
    }

    /// Locks a partition for changing; `None` when there is none of this number.
    #[must_use]
    pub fn lock(&self, id: PartitionId) -> Option<RwLockWriteGuard<'_, Partition>> {
        self.partitions.get(id.index()).map(RwLock::write)
    }

    /// Reads an entry under its partition's shared lock.
    pub fn with_entry<R>(&self, at: &KeyRef<'_>, f: impl FnOnce(Option<&Entry>) -> R) -> R {
        let id = self.place(at.hash);
        self.note_use(id, at.hash);
        match self.read(id) {
            Some(partition) => f(partition.entry(at)),
            None => f(None),
        }
    }

    /// Returns what was read lately, at an edge.
    #[must_use]
    pub fn warm(&self) -> Option<&Warm> {
        self.warm.as_ref()
    }

    fn note_use(&self, partition: PartitionId, hash: u64) {
        if let Some(warm) = &self.warm {
            warm.note(partition, hash);
        }
    }

    /// Runs a local mutation on the caller's thread. The second value says that the driver sleeps
    /// and must be woken to send it.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted or a limit is exceeded; nothing was written.
    pub fn write<R>(
        &self,
        at: &KeyRef<'_>,
        intent: Intent,
        f: impl FnOnce(&mut Partition, &Tick<'_>) -> R,
    ) -> Result<(R, bool), WriteError> {
        let id = self.place(at.hash);
        self.note_use(id, at.hash);
        let Some(mut partition) = self.lock(id) else { return Err(WriteError::NotJoined) };
        self.admit(at, intent)?;
        let before = partition.seq();
        let result = f(&mut partition, &Tick { clock: &self.clock, wall_ms: intent.wall_ms });
        let wrote = partition.seq() != before;
        drop(partition);
        Ok((result, wrote && self.dirty.mark(id)))
    }

    /// Clears every register of a keyspace that a selector matches and that was written before now,
    /// here at once and elsewhere as the epoch arrives. One event per partition; the last value
    /// says that the driver sleeps and must be woken to send them.
    ///
    /// What is written meanwhile is cleared in some partitions and not in others. A gate that is shut meanwhile stops
    /// nothing: half of an invalidation would be worse than one that nobody is left to send.
    ///
    /// # Errors
    /// [`WriteError`] when writes are not accepted or a limit is exceeded; nothing was written.
    pub fn invalidate(
        &self,
        target: &Keyspace,
        selector: &Selector,
        wall_ms: u64,
    ) -> Result<(Vec<Cleared>, bool), WriteError> {
        self.invalidating.fetch_add(1, Ordering::SeqCst);
        // By writing it the gate is read as it is after that, not as it was a moment before.
        self.gate.fetch_add(0, Ordering::SeqCst);
        let done = self.clear(target, selector, wall_ms);
        self.invalidating.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// Tells whether an invalidation is under way that found the gate open and may write on.
    #[must_use]
    pub fn is_invalidating(&self) -> bool {
        self.invalidating.fetch_add(0, Ordering::SeqCst) > 0
    }

    fn clear(&self, target: &Keyspace, selector: &Selector, wall_ms: u64) -> Result<(Vec<Cleared>, bool), WriteError> {
        let epochs = self.spaces.open_epochs(target).map_err(|_full| WriteError::TooManyKeyspaces)?;
        let key = selector.to_key();
        let at = KeyRef::new(&epochs, &key);
        self.admit(&at, Intent { wall_ms, value_len: None })?;
        let full = |id| self.read(id).is_some_and(|p| !p.epochs.has_room(target.id(), selector));
        if self.partition_ids().any(full) {
            return Err(WriteError::TooManyEpochs { max: epoch::EPOCHS_MAX });
        }
        let (mut all, mut wake) = (Vec::new(), false);
        for id in self.partition_ids() {
            let Some(mut partition) = self.lock(id) else { continue };
            let (written, keys) = partition.invalidate(&at, &self.spaces, &Tick { clock: &self.clock, wall_ms });
            drop(partition);
            wake |= self.dirty.mark(id);
            all.push(Cleared { partition: id, written, keys });
        }
        Ok((all, wake))
    }

    fn admit(&self, at: &KeyRef<'_>, intent: Intent) -> Result<(), WriteError> {
        match self.gate() {
            Gate::Open => {}
            Gate::Joining => return Err(WriteError::NotJoined),
            Gate::ClockRefused => {
                sometimes!(WriteRefusedForClock);
                return Err(WriteError::ClockRefused { skew_ms: self.skew_ms.load(Ordering::Relaxed) });
            }
            Gate::Removed => {
                sometimes!(WriteRefusedAsRemoved);
                return Err(WriteError::Removed);
            }
            Gate::Draining => return Err(WriteError::Draining),
            Gate::Standby => return Err(WriteError::Standby),
            Gate::Stopped => return Err(WriteError::Stopped),
        }
        if at.key.len() > self.config.key_bytes_max {
            return Err(WriteError::KeyTooLong { len: at.key.len(), max: self.config.key_bytes_max });
        }
        let Some(len) = intent.value_len else { return Ok(()) };
        if len > self.config.value_bytes_max {
            return Err(WriteError::ValueTooLarge { len, max: self.config.value_bytes_max });
        }
        let (used, budget) = (at.space.used(), at.space.budget());
        if used > budget {
            sometimes!(WriteRefusedForRoom);
            return Err(WriteError::OverCapacity { used, budget });
        }
        Ok(())
    }

    /// Returns the partitions written since the last call. The next write wakes the driver again.
    pub fn take_dirty(&self) -> Vec<PartitionId> {
        self.dirty.take()
    }

    /// Returns whether local writes are accepted.
    #[must_use]
    pub fn gate(&self) -> Gate {
        Gate::from_code(self.gate.load(Ordering::Relaxed))
    }

    /// Says whether local writes are accepted. [`Gate::Stopped`] is final: a node that does not know yet that nobody is
    /// left to send cannot open it again.
    ///
    /// A write asks under its partition's lock. So whoever shuts the gate and then takes that lock sees every write
    /// this partition will ever have accepted, though a write under way may not have marked it dirty yet. An
    /// invalidation under way is no exception but goes on: it ends in every partition.
    pub fn set_gate(&self, gate: Gate) {
        let next = |now| (Gate::from_code(now) != Gate::Stopped).then(|| gate.code());
        let kept = self.gate.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next).is_err();
        debug_assert!(!kept || self.gate() == Gate::Stopped, "only a store that is stopped stays as it is");
    }

    /// Notes how far this clock is from the peers', for the error that refused writes carry.
    pub fn note_skew(&self, ms: u64) {
        self.skew_ms.store(ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
