//! What a peer can be caught lying about: events of this very replica, partitions that do not exist, histories that
//! contradict themselves, more members than there can be.
//!
//! A replica id is fresh for each process, so nobody can honestly know more of this process' events than it has made, nor
//! have folded them, unless it was removed.
//! What a member says of others' events cannot be told from what is true; see the assumptions in `docs/design.md`.
//!
//! # Invariants
//! * A message is checked before anything of it is taken in.

use std::collections::BTreeSet;

use crate::crdt::{Ctx, MemberSet, Seen};
use crate::error::PeerFault;
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;
use crate::probe::{planted, sometimes};
use crate::wire::{Frame, FullChunk, Part};

impl Node {
    /// Checks the contexts of a hello or of a peer that has joined.
    pub(super) fn check_ctxs(&self, ctxs: &[(PartitionId, Ctx)]) -> Result<(), PeerFault> {
        ctxs.iter()
            .try_for_each(|(partition, ctx)| self.check_own(*partition, ctx.of(self.me.replica).map_or(0, Seen::max)))
    }

    /// Checks a report.
    pub(super) fn check_changed(&self, changed: &[(PartitionId, Vec<(ReplicaId, Seen)>)]) -> Result<(), PeerFault> {
        changed.iter().try_for_each(|(partition, news)| {
            let mut claim = Ctx::default();
            news.iter().for_each(|(replica, seen)| claim.add_seen(*replica, seen));
            self.check_own(*partition, claim.of(self.me.replica).map_or(0, Seen::max))
        })
    }

    /// Checks everything a frame says.
    pub(super) fn check_frame(&self, frame: &Frame) -> Result<(), PeerFault> {
        frame.parts.iter().try_for_each(|part| {
            let me = self.me.replica;
            let nothing = Ctx::default();
            let ctx = match part {
                Part::Batch(batch) => &batch.ctx,
                Part::Answer(answer) => &answer.batch.ctx,
                Part::Restore(_) => &nothing,
                Part::FullChunk(chunk) => {
                    check_nested(chunk)?;
                    &chunk.ctx
                }
            };
            let inside = part.fragments().iter().map(|fragment| fragment.reach_of(me)).max().unwrap_or(0);
            self.check_own(part.partition(), inside.max(ctx.of(me).map_or(0, Seen::max)))
        })
    }

    /// Checks that all members together are no more than a message can name.
    pub(super) fn check_members(&self, news: &MemberSet) -> Result<(), PeerFault> {
        let named: BTreeSet<ReplicaId> =
            [&self.members, &self.hearsay, news].into_iter().flat_map(MemberSet::replicas).collect();
        let (len, max) = (u64::try_from(named.len()).unwrap_or(u64::MAX), self.limits.replicas);
        if len > max { Err(PeerFault::OverLimit { what: "number of members", len, max }) } else { Ok(()) }
    }

    /// Compares what a peer knows of my events in a partition with what I made there.
    fn check_own(&self, partition: PartitionId, claimed: u64) -> Result<(), PeerFault> {
        let Some(made) = self.store.read(partition).map(|p| p.seq()) else {
            return Err(PeerFault::Malformed { why: "it names a partition that does not exist" });
        };
        sometimes!(ForgedEventsRefused, if claimed > made);
        if claimed > made && !planted!(ForgedEventsAccepted) {
            Err(PeerFault::Forged { partition, claimed, made })
        } else {
            Ok(())
        }
    }
}

/// What is stable was seen, and so was everything whose records were dropped.
fn check_nested(chunk: &FullChunk) -> Result<(), PeerFault> {
    if chunk.ctx.includes(&chunk.floor) && chunk.floor.includes(&chunk.frontier) {
        Ok(())
    } else {
        sometimes!(ForgedFloorRefused);
        Err(PeerFault::Malformed { why: "a synchronisation dropped more than it has seen" })
    }
}
