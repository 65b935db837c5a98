//! Contexts: per replica a base and the ranges beyond its first gap, as distances.
//!
//! # Invariants
//! * What is read is in the one form a context has: ranges ascend, do not touch, and lie beyond
//!   the base; replicas ascend; none is empty. Distances leave no way to say anything else.

use super::limits::{Counted, SEQ_MAX, Unsendable, within};
use super::pack::{Pen, Reader, malformed, width};
use crate::crdt::{Ctx, Seen};
use crate::error::PeerFault;
use crate::id::{PartitionId, ReplicaId};
use crate::probe::{planted, sometimes};

/// Writes what is seen of one replica: `base << 1 | gaps`, then the number of ranges and for each
/// the distance to the one before and its length, both less what they are at least. A mark is 0 and its sum.
pub(super) fn put_seen(pen: &mut Pen<'_>, seen: &Seen) -> Result<(), Unsendable> {
    pen.tally.add(Counted::Seen, 1)?;
    if seen.is_mark() {
        pen.uint(0);
        pen.uint(seen.sum(ReplicaId::default()));
        return Ok(());
    }
    within("sequence number", seen.max(), SEQ_MAX)?;
    pen.uint(seen.base() << 1 | u64::from(seen.gaps() > 0));
    if seen.gaps() == 0 {
        return Ok(());
    }
    within("number of gaps of one replica", width(seen.gaps()), pen.tally.limits.gaps)?;
    pen.tally.add(Counted::Gaps, width(seen.gaps()))?;
    pen.count(seen.gaps());
    let mut end = seen.base();
    for &(from, to) in seen.above() {
        pen.uint(from.saturating_sub(end).saturating_sub(2));
        pen.uint(to.saturating_sub(from));
        end = to;
    }
    Ok(())
}

pub(super) fn take_seen(reader: &mut Reader<'_>) -> Result<Seen, PeerFault> {
    reader.tally.add(Counted::Seen, 1)?;
    let head = reader.uint()?;
    if head == 0 {
        return Ok(Seen::mark(reader.uint()?));
    }
    let base = head >> 1;
    within("sequence number", base, SEQ_MAX)?;
    if head & 1 == 0 {
        return Ok(Seen::new(base, &[]));
    }
    let count = reader.uint()?;
    within("number of gaps of one replica", count, reader.tally.limits.gaps)?;
    reader.tally.add(Counted::Gaps, count)?;
    if count == 0 {
        return Err(malformed("a context announces gaps and has none"));
    }
    let (mut ranges, mut end) = (Vec::new(), base);
    for _ in 0..count {
        let least = if planted!(RangeOffByOne) { 1 } else { 2 };
        let from = end.saturating_add(least).saturating_add(reader.uint()?);
        let to = from.saturating_add(reader.uint()?);
        within("sequence number", to, SEQ_MAX)?;
        ranges.push((from, to));
        end = to;
    }
    sometimes!(GapsRead);
    Ok(Seen::new(base, &ranges))
}

pub(super) fn put_ctx(pen: &mut Pen<'_>, ctx: &Ctx) -> Result<(), Unsendable> {
    pen.count(ctx.len());
    for (replica, seen) in ctx.iter() {
        pen.replica(replica)?;
        put_seen(pen, seen)?;
    }
    Ok(())
}

pub(super) fn take_ctx(reader: &mut Reader<'_>) -> Result<Ctx, PeerFault> {
    let (mut ctx, mut last) = (Ctx::default(), None);
    for _ in 0..reader.uint()? {
        let (replica, seen) = take_of_replica(reader)?;
        let named = ctx.len();
        ctx.add_seen(replica, &seen);
        if last >= Some(replica) || ctx.len() != named + 1 {
            return Err(malformed("the replicas of a context do not ascend or one is below a mark"));
        }
        last = Some(replica);
    }
    Ok(ctx)
}

fn take_of_replica(reader: &mut Reader<'_>) -> Result<(ReplicaId, Seen), PeerFault> {
    let (replica, seen): (ReplicaId, Seen) = (reader.replica()?, take_seen(reader)?);
    if seen.is_mark() && !replica.tag().is_ordered() {
        return Err(malformed("a mark is of no node"));
    }
    Ok((replica, seen))
}

pub(super) fn put_ctxs(pen: &mut Pen<'_>, ctxs: &[(PartitionId, Ctx)]) -> Result<(), Unsendable> {
    pen.tally.add(Counted::Parts, width(ctxs.len()))?;
    pen.count(ctxs.len());
    for (partition, ctx) in ctxs {
        pen.uint(u64::from(partition.0));
        put_ctx(pen, ctx)?;
    }
    Ok(())
}

pub(super) fn take_ctxs(reader: &mut Reader<'_>) -> Result<Vec<(PartitionId, Ctx)>, PeerFault> {
    let mut ctxs = Vec::new();
    for _ in 0..reader.uint()? {
        reader.tally.add(Counted::Parts, 1)?;
        ctxs.push((take_partition(reader)?, take_ctx(reader)?));
    }
    Ok(ctxs)
}

/// What changed of some partitions: the replicas, each with all that is seen of it.
pub(super) type Changed = Vec<(PartitionId, Vec<(ReplicaId, Seen)>)>;

pub(super) fn put_changed(pen: &mut Pen<'_>, changed: &Changed) -> Result<(), Unsendable> {
    pen.tally.add(Counted::Parts, width(changed.len()))?;
    pen.count(changed.len());
    for (partition, replicas) in changed {
        pen.uint(u64::from(partition.0));
        // Of whom nothing was seen nothing is said.
        let seen = || replicas.iter().filter(|(_, seen)| seen.max() > 0);
        pen.count(seen().count());
        for (replica, seen) in seen() {
            pen.replica(*replica)?;
            put_seen(pen, seen)?;
        }
    }
    Ok(())
}

pub(super) fn take_changed(reader: &mut Reader<'_>) -> Result<Changed, PeerFault> {
    let mut changed = Vec::new();
    for _ in 0..reader.uint()? {
        reader.tally.add(Counted::Parts, 1)?;
        let (partition, mut replicas) = (take_partition(reader)?, Vec::new());
        for _ in 0..reader.uint()? {
            replicas.push(take_of_replica(reader)?);
        }
        changed.push((partition, replicas));
    }
    Ok(changed)
}

pub(super) fn take_partition(reader: &mut Reader<'_>) -> Result<PartitionId, PeerFault> {
    partition(reader.uint()?)
}

pub(super) fn partition(number: u64) -> Result<PartitionId, PeerFault> {
    let max = u64::from(u16::MAX);
    within("partition number", number, max)?;
    Ok(PartitionId(u16::try_from(number).unwrap_or(u16::MAX)))
}
