//! The messages by which two copies are compared.
//!
//! ```text
//! repair   = kind fields
//! verify   = horizon salt first n*(check sum)       answer = first n bits
//! snapshot = partition horizon context leaves n*(leaf) root buckets
//! ask      = partition leaves n*(leaf) flag                leaves = partition leaves bits sums
//! list     = partition leaves n (leaf ids)*         want   = partition bits
//! done     = partition flag [leaves] n*(leaf)
//! ```
//!
//! # Invariants
//! * Sums travel as eight bytes, or cut short to one or two, in one run of bytes each.

use std::collections::BTreeSet;

use super::context::{put_ctx, take_ctx, take_partition};
use super::limits::{Counted, Unsendable, within};
use super::message::{Repair, Snapshot};
use super::pack::{Pen, Reader, malformed, width};
use crate::error::PeerFault;

const VERIFY: u64 = 0;
const ANSWER: u64 = 1;
const SNAPSHOT: u64 = 2;
const ASK: u64 = 3;
const LEAVES: u64 = 4;
const LIST: u64 = 5;
const WANT: u64 = 6;
const DONE: u64 = 7;

/// Most leaves one partition has.
const LEAVES_MAX: u64 = 1 << crate::store::fingerprint::BITS_MAX;
/// Bytes of one run: the sums of all leaves of a partition, cut short.
const RUN_MAX: u64 = LEAVES_MAX;
/// Bytes of a partition's sum and of the check of its context.
const SUM_BYTES: usize = 9;

pub(super) fn put_repair(pen: &mut Pen<'_>, repair: &Repair) -> Result<(), Unsendable> {
    match repair {
        Repair::Verify { horizon_ms, salt, first, sums } => {
            [VERIFY, *horizon_ms, *salt, u64::from(first.0)].into_iter().for_each(|n| pen.uint(n));
            let all: Vec<u8> =
                sums.iter().flat_map(|(check, sum)| [*check].into_iter().chain(sum.to_le_bytes())).collect();
            pen.bytes("length of a run of sums", &all, RUN_MAX)?;
        }
        Repair::Answer { salt, first, equal } => {
            [ANSWER, *salt, u64::from(first.0)].into_iter().for_each(|n| pen.uint(n));
            put_bits(pen, equal)?;
        }
        Repair::Snapshot(snapshot) => {
            [SNAPSHOT, u64::from(snapshot.partition.0), snapshot.horizon_ms].into_iter().for_each(|n| pen.uint(n));
            put_ctx(pen, &snapshot.ctx)?;
            pen.uint(u64::from(snapshot.leaves));
            put_leaves(pen, &snapshot.without)?;
            pen.uint(snapshot.root);
            pen.bytes("length of a run of sums", &snapshot.buckets, RUN_MAX)?;
        }
        Repair::Ask { partition, leaves, without, detail } => {
            [ASK, u64::from(partition.0), u64::from(*leaves)].into_iter().for_each(|n| pen.uint(n));
            put_leaves(pen, without)?;
            pen.flag(*detail);
        }
        Repair::Leaves { partition, leaves, buckets, sums } => {
            [LEAVES, u64::from(partition.0), u64::from(*leaves)].into_iter().for_each(|n| pen.uint(n));
            put_bits(pen, buckets)?;
            pen.bytes("length of a run of sums", sums, RUN_MAX)?;
        }
        Repair::List { partition, leaves, listed } => {
            [LIST, u64::from(partition.0), u64::from(*leaves)].into_iter().for_each(|n| pen.uint(n));
            pen.count(listed.len());
            for (leaf, ids) in listed {
                pen.uint(u64::from(*leaf));
                let run: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                pen.bytes("length of a run of ids", &run, RUN_MAX)?;
            }
        }
        Repair::Want { partition, ids } => {
            [WANT, u64::from(partition.0)].into_iter().for_each(|n| pen.uint(n));
            put_bits(pen, ids)?;
        }
        Repair::Done { partition, leaves, without } => {
            [DONE, u64::from(partition.0)].into_iter().for_each(|n| pen.uint(n));
            pen.flag(*leaves > 0);
            if *leaves > 0 {
                pen.uint(u64::from(*leaves));
            }
            put_leaves(pen, without)?;
        }
    }
    Ok(())
}

pub(super) fn take_repair(reader: &mut Reader<'_>) -> Result<Repair, PeerFault> {
    Ok(match reader.uint()? {
        VERIFY => Repair::Verify {
            horizon_ms: reader.uint()?,
            salt: reader.uint()?,
            first: take_partition(reader)?,
            sums: take_sums(reader)?,
        },
        ANSWER => Repair::Answer { salt: reader.uint()?, first: take_partition(reader)?, equal: take_bits(reader)? },
        SNAPSHOT => Repair::Snapshot(Snapshot {
            partition: take_partition(reader)?,
            horizon_ms: reader.uint()?,
            ctx: take_ctx(reader)?,
            leaves: take_width(reader)?,
            without: take_leaves(reader)?,
            root: reader.uint()?,
            buckets: take_run(reader)?,
        }),
        ASK => Repair::Ask {
            partition: take_partition(reader)?,
            leaves: take_width(reader)?,
            without: take_leaves(reader)?,
            detail: reader.flag()?,
        },
        LEAVES => Repair::Leaves {
            partition: take_partition(reader)?,
            leaves: take_width(reader)?,
            buckets: take_bits(reader)?,
            sums: take_run(reader)?,
        },
        LIST => Repair::List {
            partition: take_partition(reader)?,
            leaves: take_width(reader)?,
            listed: take_listed(reader)?,
        },
        WANT => Repair::Want { partition: take_partition(reader)?, ids: take_bits(reader)? },
        DONE => {
            let partition = take_partition(reader)?;
            let leaves = if reader.flag()? { take_width(reader)? } else { 0 };
            Repair::Done { partition, leaves, without: take_leaves(reader)? }
        }
        _ => return Err(malformed("a repair message is of no known kind")),
    })
}

fn take_run(reader: &mut Reader<'_>) -> Result<Vec<u8>, PeerFault> {
    reader.bytes("length of a run of sums", RUN_MAX).map(<[u8]>::to_vec)
}

fn take_sums(reader: &mut Reader<'_>) -> Result<Vec<(u8, u64)>, PeerFault> {
    let run = take_run(reader)?;
    let (sums, rest) = run.as_chunks::<SUM_BYTES>();
    if !rest.is_empty() {
        return Err(malformed("a run of sums ends within one"));
    }
    Ok(sums
        .iter()
        .map(|[check, a, b, c, d, e, f, g, h]| (*check, u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h])))
        .collect())
}

/// Bits in bytes, the first one lowest, and how many the last byte has.
fn put_bits(pen: &mut Pen<'_>, bits: &[bool]) -> Result<(), Unsendable> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
    pen.count(bits.len());
    pen.bytes("length of a run of bits", &bits.chunks(8).map(byte).collect::<Vec<_>>(), RUN_MAX)
}

fn take_bits(reader: &mut Reader<'_>) -> Result<Vec<bool>, PeerFault> {
    let count = reader.uint()?;
    within("number of bits", count, RUN_MAX * 8)?;
    let run = reader.bytes("length of a run of bits", RUN_MAX)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let bits: Vec<bool> = run.iter().flat_map(|byte| (0..8).map(move |at| byte >> at & 1 == 1)).collect();
    let fits = run.len() == count.div_ceil(8) && bits.iter().skip(count).all(|bit| !bit);
    if fits { Ok(bits.into_iter().take(count).collect()) } else { Err(malformed("a run of bits has another length")) }
}

fn put_leaves(pen: &mut Pen<'_>, leaves: &BTreeSet<u32>) -> Result<(), Unsendable> {
    within("number of leaves", width(leaves.len()), LEAVES_MAX)?;
    pen.count(leaves.len());
    leaves.iter().for_each(|leaf| pen.uint(u64::from(*leaf)));
    Ok(())
}

fn take_leaves(reader: &mut Reader<'_>) -> Result<BTreeSet<u32>, PeerFault> {
    let mut leaves = BTreeSet::new();
    for _ in 0..reader.uint()? {
        reader.tally.add(Counted::Elems, 1)?;
        let leaf = take_leaf(reader)?;
        if leaves.last().is_some_and(|last| *last >= leaf) {
            return Err(malformed("the leaves do not ascend"));
        }
        leaves.insert(leaf);
    }
    Ok(leaves)
}

fn take_leaf(reader: &mut Reader<'_>) -> Result<u32, PeerFault> {
    let leaf = reader.uint()?;
    within("leaf number", leaf, LEAVES_MAX - 1)?;
    Ok(u32::try_from(leaf).unwrap_or(u32::MAX))
}

/// How many leaves a table has.
fn take_width(reader: &mut Reader<'_>) -> Result<u32, PeerFault> {
    let leaves = reader.uint()?;
    within("number of leaves", leaves, LEAVES_MAX)?;
    if leaves.is_power_of_two() {
        Ok(u32::try_from(leaves).unwrap_or(u32::MAX))
    } else {
        Err(malformed("the number of leaves is no power of two"))
    }
}

fn take_listed(reader: &mut Reader<'_>) -> Result<Vec<(u32, Vec<u16>)>, PeerFault> {
    let mut listed: Vec<(u32, Vec<u16>)> = Vec::new();
    for _ in 0..reader.uint()? {
        reader.tally.add(Counted::Elems, 1)?;
        let leaf = take_leaf(reader)?;
        let (ids, rest) = reader.bytes("length of a run of ids", RUN_MAX)?.as_chunks::<2>();
        if !rest.is_empty() || listed.last().is_some_and(|(last, _)| *last >= leaf) {
            return Err(malformed("a listing does not ascend or ends within an id"));
        }
        listed.push((leaf, ids.iter().map(|id| u16::from_le_bytes(*id)).collect()));
    }
    Ok(listed)
}
