//! What a key shows, given all writes to it.
//!
//! * A **register** shows the value with the largest stamp among all sets and deletes, until the
//!   latest of its own deadline and those of the touches that saw that value.
//! * A **field** shows the put with the largest stamp among the unexpired ones that no later put,
//!   remove or clear had seen.
//! * A **counter** shows the sum of the unexpired increments that no reset had seen. The deadline
//!   belongs to the origin: it is set by the increment that began the origin's present life, and
//!   an increment after that deadline begins a new life.
//!
//! # Invariants
//! * "Had seen" is the record's context and nothing else. Where a record gives a range (`before`
//!   and `after`), each outcome in between is accepted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::protocol::{Context, Dot, Kind, Record};

/// The outcomes the records allow; `None` is "shows nothing".
pub(crate) type Accepted = Vec<Option<Value>>;

/// More doubtful increments than this at one key are not tried in every combination.
const DOUBTFUL_MAX: usize = 12;

/// Returns what each path of one key may show at `at_ms`.
pub(crate) fn expect(records: &[&Record], at_ms: u64) -> BTreeMap<Option<String>, Accepted> {
    match records.first().map(|r| r.kind) {
        None => BTreeMap::new(),
        Some(Kind::Set | Kind::Delete | Kind::Touch) => BTreeMap::from([(None, register(records, at_ms))]),
        Some(Kind::Incr | Kind::Reset) => BTreeMap::from([(None, counter(records, at_ms))]),
        Some(Kind::Put | Kind::Remove | Kind::Clear) => {
            let paths: BTreeSet<_> = records.iter().filter_map(|r| r.path.clone()).collect();
            paths.into_iter().map(|path| (Some(path.clone()), field(records, &path, at_ms))).collect()
        }
    }
}

/// Returns when each write stops being visible, for choosing a moment at which nothing expires.
pub(crate) fn deadlines(records: &[Record]) -> Vec<u64> {
    let mut all: Vec<u64> = records.iter().filter_map(end_of).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Returns the end of a write's life as its writer set it; nothing when it has none.
fn end_of(record: &Record) -> Option<u64> {
    record.deadline_ms.or_else(|| Some(record.stamp.ms().saturating_add(record.ttl_ms?)))
}

fn lives(record: &Record, at_ms: u64) -> bool {
    end_of(record).is_none_or(|end| at_ms < end)
}

/// Whether a write had seen an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Saw {
    No,
    Maybe,
    Yes,
}

fn saw(later: &Record, event: &Record) -> Saw {
    if later.dot.partition != event.dot.partition || later.dot == event.dot {
        return Saw::No;
    }
    let has = |ctx: &Context| ctx.has(event.dot.replica, event.dot.seq);
    match &later.after {
        _ if has(&later.before) => Saw::Yes,
        Some(after) if has(after) => Saw::Maybe,
        Some(_) | None => Saw::No,
    }
}

fn push(accepted: &mut Accepted, outcome: Option<Value>) {
    if !accepted.contains(&outcome) {
        accepted.push(outcome);
    }
}

// --- registers ---------------------------------------------------------------------------------

fn register(records: &[&Record], at_ms: u64) -> Accepted {
    let writes = records.iter().filter(|r| matches!(r.kind, Kind::Set | Kind::Delete));
    let Some(winner) = writes.max_by_key(|r| r.stamp).filter(|r| r.kind == Kind::Set) else {
        return vec![None];
    };
    // The winner is the newest of all, so whoever had seen it when touching touched it.
    let touches = records.iter().filter(|r| r.kind == Kind::Touch && lives(r, at_ms));
    let extended = touches.map(|touch| saw(touch, winner)).max().unwrap_or(Saw::No);
    match (lives(winner, at_ms), extended) {
        (true, _) | (false, Saw::Yes) => vec![winner.value.clone()],
        (false, Saw::Maybe) => vec![winner.value.clone(), None],
        (false, Saw::No) => vec![None],
    }
}

// --- fields ------------------------------------------------------------------------------------

fn field(records: &[&Record], path: &str, at_ms: u64) -> Accepted {
    let about = |r: &&&Record| r.kind == Kind::Clear || r.path.as_deref() == Some(path);
    let mut puts: Vec<&Record> =
        records.iter().filter(about).filter(|r| r.kind == Kind::Put && lives(r, at_ms)).copied().collect();
    puts.sort_by_key(|put| std::cmp::Reverse(put.stamp));
    let mut accepted = Vec::new();
    for put in puts {
        match records.iter().filter(about).map(|later| saw(later, put)).max() {
            Some(Saw::Yes) => {}
            Some(Saw::Maybe) => push(&mut accepted, put.value.clone()),
            Some(Saw::No) | None => {
                push(&mut accepted, put.value.clone());
                return accepted;
            }
        }
    }
    push(&mut accepted, None);
    accepted
}

// --- counters ----------------------------------------------------------------------------------

fn counter(records: &[&Record], at_ms: u64) -> Accepted {
    let ends = lives_of_origins(records);
    let (mut sure, mut doubtful) = (0_i64, Vec::new());
    for incr in records.iter().filter(|r| r.kind == Kind::Incr) {
        if ends.get(&incr.dot).copied().flatten().is_some_and(|end| end <= at_ms) {
            continue;
        }
        match records.iter().filter(|r| r.kind == Kind::Reset).map(|reset| saw(reset, incr)).max() {
            Some(Saw::Yes) => {}
            Some(Saw::Maybe) => doubtful.push(incr.by),
            Some(Saw::No) | None => sure = sure.saturating_add(incr.by),
        }
    }
    let mut sums = vec![sure];
    // Combinations double with each doubtful one; past the bound the rest counts as sure, so that
    // the outcome can only be refused, never waved through.
    for (n, by) in doubtful.into_iter().enumerate() {
        if n < DOUBTFUL_MAX {
            let with: Vec<i64> = sums.iter().map(|sum| sum.saturating_add(by)).collect();
            sums.extend(with);
        } else {
            sums.iter_mut().for_each(|sum| *sum = sum.saturating_add(by));
        }
    }
    let mut accepted = Vec::new();
    for sum in sums {
        push(&mut accepted, (sum != 0).then(|| Value::from(sum)));
    }
    accepted
}

/// Returns when each increment stops counting.
fn lives_of_origins(records: &[&Record]) -> BTreeMap<Dot, Option<u64>> {
    let mut incrs: Vec<&Record> = records.iter().filter(|r| r.kind == Kind::Incr).copied().collect();
    incrs.sort_by_key(|r| (r.dot.replica, r.dot.seq));
    let mut ends = BTreeMap::new();
    let mut life: Option<(u64, Option<u64>)> = None;
    for incr in incrs {
        let goes_on =
            life.filter(|(origin, end)| *origin == incr.dot.replica && end.is_none_or(|end| incr.stamp.ms() < end));
        let end = match (incr.deadline_ms, goes_on) {
            (Some(told), _) => Some(told),
            (None, Some((_, end))) => end,
            (None, None) => end_of(incr),
        };
        life = Some((incr.dot.replica, end));
        ends.insert(incr.dot, end);
    }
    ends
}

// --- conflicts ---------------------------------------------------------------------------------

/// Counts, per region, the writes to one key that met a concurrent write of another replica at the
/// same place. Increments, resets and touches commute, so they never conflict.
pub(crate) fn conflicts(records: &[&Record]) -> BTreeMap<String, u64> {
    let decides = |r: &Record| matches!(r.kind, Kind::Set | Kind::Delete | Kind::Put | Kind::Remove | Kind::Clear);
    let overlap = |a: &Record, b: &Record| a.path == b.path || a.path.is_none() || b.path.is_none();
    let apart = |a: &Record, b: &Record| a.dot.replica != b.dot.replica && saw(a, b) == Saw::No && saw(b, a) == Saw::No;
    let mut counts = BTreeMap::new();
    for a in records.iter().filter(|r| decides(r)) {
        let met = records.iter().any(|b| decides(b) && overlap(a, b) && apart(a, b));
        if met {
            *counts.entry(a.region.clone()).or_default() += 1;
        }
    }
    counts
}
