//! Frames: the sender, its clock, and the parts, each with its context and fragments.
//!
//! ```text
//! frame = from clock n part*
//! part  = (partition << 2 | last << 1 | chunk) [session index] [context [frontier floor forgotten]] n fragment*
//!       | (partition << 2 | last << 1) answer n fragment*                     what is restored
//!       | (1 << 18 | partition << 2) question context n fragment*             what was asked for
//! ```
//!
//! # Invariants
//! * A frame is self-contained: its tables of replicas and keyspaces begin empty.
//! * Every stamp in it is at or below its clock.

use super::context::{partition, put_ctx, take_ctx};
use super::fragment::{FragmentsIn, FragmentsOut};
use super::limits::{Counted, Limits, Unsendable, within};
use super::mark::Run;
use super::message::{Answer, Frame, FullChunk, Part, Restore};
use super::pack::{Pen, Reader};
use super::spaces::{SpacesIn, SpacesOut};
use crate::clock::Hlc;
use crate::crdt::Ctx;
use crate::error::PeerFault;
use crate::probe::planted;
use crate::store::{Batch, Fragment, Keyspaces};

const CHUNK: u64 = 1;
const LAST: u64 = 1 << 1;
/// Above the largest partition.
const ANSWER: u64 = 1 << 18;

pub(super) fn put_frame(
    out: &mut Vec<u8>,
    frame: &Frame,
    spaces: &Keyspaces,
    limits: Limits,
) -> Result<(), Unsendable> {
    let newest = frame.parts.iter().flat_map(Part::fragments).map(Fragment::newest).max().unwrap_or_default();
    debug_assert!(newest <= frame.hlc, "the clock is read after the capture");
    let base = frame.hlc.max(newest);
    let mut pen = Pen::new(out, limits);
    pen.replica(frame.from)?;
    pen.uint(base.0);
    pen.count(frame.parts.len());
    let mut fragments = FragmentsOut::new(Run::new(frame.from, base), SpacesOut::new(spaces));
    for part in &frame.parts {
        pen.tally.add(Counted::Parts, 1)?;
        put_part(&mut pen, &mut fragments, part)?;
    }
    Ok(())
}

fn put_part(pen: &mut Pen<'_>, out: &mut FragmentsOut<'_>, part: &Part) -> Result<(), Unsendable> {
    let number = u64::from(part.partition().0) << 2;
    match part {
        Part::Batch(batch) => {
            pen.uint(number);
            put_ctx(pen, &batch.ctx)?;
            put_fragments(pen, out, &batch.ctx, &batch.fragments)
        }
        Part::FullChunk(chunk) => {
            pen.uint(number | CHUNK | if chunk.last { LAST } else { 0 });
            pen.uint(chunk.session);
            pen.uint(u64::from(chunk.index));
            if chunk.index == 0 {
                put_ctx(pen, &chunk.ctx)?;
                put_ctx(pen, &chunk.frontier)?;
                put_ctx(pen, &chunk.floor)?;
                pen.uint(chunk.forgotten.0);
                pen.flag(chunk.is_rest);
            }
            let known = if chunk.index == 0 { &chunk.ctx } else { &Ctx::default() };
            put_fragments(pen, out, known, &chunk.fragments)
        }
        Part::Restore(restore) => {
            pen.uint(number | LAST);
            pen.flag(restore.is_answer);
            put_fragments(pen, out, &Ctx::default(), &restore.fragments)
        }
        Part::Answer(Answer { question, batch }) => {
            pen.uint(number | ANSWER);
            pen.uint(*question);
            put_ctx(pen, &batch.ctx)?;
            put_fragments(pen, out, &batch.ctx, &batch.fragments)
        }
    }
}

fn put_fragments(
    pen: &mut Pen<'_>,
    out: &mut FragmentsOut<'_>,
    ctx: &Ctx,
    fragments: &[Fragment],
) -> Result<(), Unsendable> {
    pen.count(fragments.len());
    fragments.iter().try_for_each(|fragment| out.put(pen, ctx, fragment))
}

pub(super) fn take_frame(input: &[u8], spaces: &Keyspaces, limits: Limits) -> Result<Frame, PeerFault> {
    let mut reader = Reader::new(input, limits);
    let from = reader.replica()?;
    let hlc = Hlc(reader.uint()?);
    let mut fragments = FragmentsIn::new(Run::new(from, hlc), SpacesIn::new(spaces));
    let mut parts = Vec::new();
    for _ in 0..reader.uint()? {
        reader.tally.add(Counted::Parts, 1)?;
        if planted!(WrongDictionary) {
            fragments.run = Run::new(from, hlc);
        }
        parts.push(take_part(&mut reader, &mut fragments)?);
    }
    reader.end()?;
    let opened = fragments.open_spaces()?;
    if !opened.is_empty() {
        let fragments = parts.iter_mut().flat_map(|part| match part {
            Part::Batch(batch) => &mut batch.fragments,
            Part::FullChunk(chunk) => &mut chunk.fragments,
            Part::Restore(restore) => &mut restore.fragments,
            Part::Answer(answer) => &mut answer.batch.fragments,
        });
        for fragment in fragments {
            fragment.keyspace = opened.get(&fragment.keyspace).copied().unwrap_or(fragment.keyspace);
        }
    }
    Ok(Frame { from, hlc, parts })
}

fn take_part(reader: &mut Reader<'_>, fragments: &mut FragmentsIn<'_>) -> Result<Part, PeerFault> {
    let head = reader.uint()?;
    if head & (ANSWER | LAST | CHUNK) == ANSWER {
        let (partition, question) = (partition((head & !ANSWER) >> 2)?, reader.uint()?);
        let ctx = take_ctx(reader)?;
        let fragments = take_fragments(reader, fragments, &ctx)?;
        return Ok(Part::Answer(Answer { question, batch: Batch { partition, ctx, fragments } }));
    }
    let partition = partition(head >> 2)?;
    if head & CHUNK == 0 {
        if head & LAST != 0 {
            let is_answer = reader.flag()?;
            let fragments = take_fragments(reader, fragments, &Ctx::default())?;
            return Ok(Part::Restore(Restore { partition, is_answer, fragments }));
        }
        let ctx = take_ctx(reader)?;
        let fragments = take_fragments(reader, fragments, &ctx)?;
        return Ok(Part::Batch(Batch { partition, ctx, fragments }));
    }
    let (session, index) = (reader.uint()?, reader.uint()?);
    within("chunk number", index, u64::from(u32::MAX))?;
    let (mut ctx, mut frontier, mut floor) = (Ctx::default(), Ctx::default(), Ctx::default());
    let (mut forgotten, mut is_rest) = (Hlc(0), false);
    if index == 0 {
        ctx = take_ctx(reader)?;
        frontier = take_ctx(reader)?;
        floor = take_ctx(reader)?;
        forgotten = Hlc(reader.uint()?);
        is_rest = reader.flag()?;
    }
    Ok(Part::FullChunk(FullChunk {
        partition,
        session,
        index: u32::try_from(index).unwrap_or(u32::MAX),
        last: head & LAST != 0,
        fragments: take_fragments(reader, fragments, &ctx)?,
        ctx,
        frontier,
        floor,
        forgotten,
        is_rest,
    }))
}

fn take_fragments(
    reader: &mut Reader<'_>,
    fragments: &mut FragmentsIn<'_>,
    ctx: &Ctx,
) -> Result<Vec<Fragment>, PeerFault> {
    let mut all = Vec::new();
    for _ in 0..reader.uint()? {
        all.push(fragments.take(reader, ctx)?);
    }
    Ok(all)
}
