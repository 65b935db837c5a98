//! Dirty partitions in, batches for everybody out.
//!
//! A write only marks its partition. The sweep captures each touched key once, in its present
//! state, so a hot key costs one fragment per flush however often it was written. The first write
//! after a silence goes at once; under load a flush waits until `linger` after the previous one.
//!
//! # Invariants
//! * `position` counts my own events; everything up to it was captured for the caught-up peers.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Mono;
use crate::crdt::Ctx;
use crate::id::PartitionId;
use crate::probe::sometimes;
use crate::store::{Batch, Budget, Partition, Store};

/// Bytes after which a frame is cut: QUIC saturates at 4 to 16 KiB and compression gains little
/// beyond 64 KiB.
const FRAME_BYTES: usize = 64 * 1024;
/// Fragments after which a frame is cut, so that one frame's decoding stays under a millisecond.
const FRAME_FRAGMENTS: usize = 1_024;

/// What of my own writes was captured for everybody.
#[derive(Debug)]
pub struct Outbox {
    linger: Duration,
    last_flush: Mono,
    dirty: BTreeSet<PartitionId>,
    position: Vec<u64>,
}

/// Which of my events a batch contains, and who may have it.
#[derive(Debug)]
pub struct Reach {
    /// The partition.
    pub partition: PartitionId,
    /// My first event in it.
    pub from: u64,
    /// My last event in it.
    pub to: u64,
    /// What a peer must have seen to take it (R-TRUNC).
    pub floor: Option<Ctx>,
}

/// The batches of one frame and, per partition, how far they reach.
#[derive(Debug, Default)]
pub struct Flush {
    /// The batches.
    pub batches: Vec<Batch>,
    /// What they contain.
    pub reach: Vec<Reach>,
}

impl Outbox {
    /// Builds an outbox for a store that has written nothing.
    #[must_use]
    pub fn new(partitions: usize, linger: Duration) -> Self {
        Self { linger, last_flush: Mono::default(), dirty: BTreeSet::new(), position: vec![0; partitions] }
    }

    /// Notes partitions that were written.
    pub fn mark(&mut self, partitions: impl IntoIterator<Item = PartitionId>) {
        self.dirty.extend(partitions);
    }

    /// Returns when the next flush is due, if anything is dirty.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        (!self.dirty.is_empty()).then(|| self.last_flush.plus(self.linger))
    }

    /// Returns the partitions with events that no frame has taken yet.
    pub fn dirty(&self) -> impl Iterator<Item = PartitionId> {
        self.dirty.iter().copied()
    }

    /// Captures one frame's worth; `None` when nothing is dirty.
    pub fn flush(&mut self, now: Mono, store: &Store) -> Option<Flush> {
        self.last_flush = now;
        let (mut flush, mut fragments, mut bytes) = (Flush::default(), FRAME_FRAGMENTS, FRAME_BYTES);
        while let Some(id) = self.dirty.first().copied() {
            if fragments == 0 || bytes == 0 {
                break;
            }
            let Some(position) = self.position.get_mut(id.index()) else {
                self.dirty.remove(&id);
                continue;
            };
            let capture =
                |p: &Partition| (p.capture_own(*position, Budget { fragments, bytes }), p.binding_floor().cloned());
            let Some((captured, floor)) = store.read(id).map(|p| capture(&p)) else {
                self.dirty.remove(&id);
                continue;
            };
            let weight: usize = captured.batch.fragments.iter().map(crate::store::Fragment::weight).sum();
            fragments = fragments.saturating_sub(captured.batch.fragments.len());
            bytes = bytes.saturating_sub(weight);
            if captured.upto > *position {
                flush.reach.push(Reach { partition: id, from: *position + 1, to: captured.upto, floor });
                *position = captured.upto;
                flush.batches.push(captured.batch);
            }
            if captured.more {
                sometimes!(FlushCut);
            } else {
                self.dirty.remove(&id);
            }
        }
        (!flush.batches.is_empty()).then_some(flush)
    }

    /// Gives up what nobody is there to receive: peers that come later catch up from the log.
    pub fn skip(&mut self, store: &Store) {
        sometimes!(NobodyToSendTo, if !self.dirty.is_empty());
        for id in std::mem::take(&mut self.dirty) {
            if let (Some(position), Some(partition)) = (self.position.get_mut(id.index()), store.read(id)) {
                *position = partition.seq();
            }
        }
    }
}
