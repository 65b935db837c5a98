//! Stamps, dots and deadlines as distances from what a frame has already said.
//!
//! A stamp is its distance in milliseconds *below* the frame's clock and its counter; a sequence
//! number is its distance below what the sender's context holds of that replica; a deadline is its
//! distance from the stamp, which for one keyspace is mostly always the same and then left out.
//!
//! # Invariants
//! * Writer and reader go through the same values in the same order, so their [`Run`]s agree.
//! * A stamp that would lie above the frame's clock cannot be read.

use super::limits::{SEQ_MAX, Unsendable, within};
use super::pack::{Pen, Reader, malformed};
use crate::clock::{Hlc, Stamp};
use crate::crdt::{Ctx, Dot, NEVER};
use crate::error::PeerFault;
use crate::id::ReplicaId;

/// The stamp is of another replica than the one before: its replica follows.
pub(super) const REPLICA: u64 = 1 << 1;
/// The deadline has another distance than the one before: the distance follows, nil for never.
pub(super) const TTL: u64 = 1 << 2;

/// What a frame has said so far that later values refer to.
#[derive(Debug)]
pub(super) struct Run {
    base: Hlc,
    replica: ReplicaId,
    ttl: Option<i64>,
}

impl Run {
    pub(super) fn new(from: ReplicaId, base: Hlc) -> Self {
        Self { base, replica: from, ttl: None }
    }

    /// Returns which parts of a mark must be written.
    pub(super) fn flags(&self, stamp: Stamp, deadline: u64) -> u64 {
        let replica = if stamp.replica == self.replica { 0 } else { REPLICA };
        let ttl = if distance(stamp, deadline) == self.ttl { 0 } else { TTL };
        replica | ttl
    }

    pub(super) fn put(&mut self, pen: &mut Pen<'_>, stamp: Stamp, deadline: u64) -> Result<(), Unsendable> {
        let flags = self.flags(stamp, deadline);
        pen.uint(self.base.ms().saturating_sub(stamp.hlc.ms()));
        pen.uint(stamp.hlc.0 & 0xffff);
        if flags & REPLICA != 0 {
            pen.replica(stamp.replica)?;
            self.replica = stamp.replica;
        }
        if flags & TTL != 0 {
            self.ttl = distance(stamp, deadline);
            pen.int_or_nil(self.ttl);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, reader: &mut Reader<'_>, flags: u64) -> Result<(Stamp, u64), PeerFault> {
        let (below, counter) = (reader.uint()?, reader.uint()?);
        let ms = self.base.ms().checked_sub(below).ok_or(malformed("a stamp lies before the epoch"))?;
        let counter = u16::try_from(counter).map_err(|_over| malformed("a clock's counter has over 16 bits"))?;
        let hlc = Hlc(Hlc::from_ms(ms).0 | u64::from(counter));
        if hlc > self.base {
            return Err(malformed("a stamp lies above the frame's clock"));
        }
        if flags & REPLICA != 0 {
            self.replica = reader.replica()?;
        }
        if flags & TTL != 0 {
            self.ttl = reader.int_or_nil()?;
        }
        Ok((Stamp { hlc, replica: self.replica }, deadline(ms, self.ttl)))
    }
}

fn distance(stamp: Stamp, deadline: u64) -> Option<i64> {
    (deadline != NEVER).then(|| deadline.wrapping_sub(stamp.hlc.ms()).cast_signed())
}

fn deadline(ms: u64, ttl: Option<i64>) -> u64 {
    ttl.map_or(NEVER, |ttl| ms.wrapping_add_signed(ttl))
}

/// Writes a deadline by its distance from the frame's clock.
pub(super) fn put_deadline(pen: &mut Pen<'_>, run: &Run, at: u64) {
    pen.int_or_nil(distance(Stamp { hlc: run.base, replica: run.replica }, at));
}

pub(super) fn take_deadline(reader: &mut Reader<'_>, run: &Run) -> Result<u64, PeerFault> {
    Ok(deadline(run.base.ms(), reader.int_or_nil()?))
}

/// Writes a sequence number by its distance below what `ctx` holds of its replica.
pub(super) fn put_seq(pen: &mut Pen<'_>, ctx: &Ctx, dot: Dot) -> Result<(), Unsendable> {
    within("sequence number", dot.seq, SEQ_MAX)?;
    pen.int(top(ctx, dot.replica).wrapping_sub(dot.seq).cast_signed());
    Ok(())
}

pub(super) fn take_seq(reader: &mut Reader<'_>, ctx: &Ctx, replica: ReplicaId) -> Result<u64, PeerFault> {
    let below = reader.int()?;
    let seq = top(ctx, replica).wrapping_sub(below.cast_unsigned());
    if seq == 0 {
        return Err(malformed("an event has number 0"));
    }
    within("sequence number", seq, SEQ_MAX)?;
    Ok(seq)
}

pub(super) fn put_dot(pen: &mut Pen<'_>, ctx: &Ctx, dot: Dot) -> Result<(), Unsendable> {
    pen.replica(dot.replica)?;
    put_seq(pen, ctx, dot)
}

pub(super) fn take_dot(reader: &mut Reader<'_>, ctx: &Ctx) -> Result<Dot, PeerFault> {
    let replica = reader.replica()?;
    Ok(Dot { replica, seq: take_seq(reader, ctx, replica)? })
}

fn top(ctx: &Ctx, replica: ReplicaId) -> u64 {
    // Of what a mark stands for neither side knows the largest.
    ctx.of(replica).filter(|seen| !seen.is_mark()).map_or(0, crate::crdt::Seen::max)
}
