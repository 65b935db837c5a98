//! Paths and scopes, and the dots a fragment covers.
//!
//! Nearly always a fragment covers exactly the events of the state it carries, or none: both are a
//! flag. Otherwise the dots are runs of consecutive numbers with one scope each.
//!
//! # Invariants
//! * Covered dots ascend and lie inside the fragment's scope.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::{Counted, SEQ_MAX, Unsendable, within};
use super::mark::{put_dot, take_dot};
use super::pack::{Pen, Reader, malformed};
use crate::crdt::{Ctx, Dot, Path, Scope};
use crate::error::PeerFault;
use crate::probe::planted;
use crate::store::{Family, Fragment};

const REGISTER: u64 = 0;
const CUSTOM: u64 = 1;
const TTL: u64 = 2;
const FIELD: u64 = 3;
const COUNTER: u64 = 4;
const MEMBER: u64 = 5;
const KEY: u64 = 6;
/// The scope that events of this fragment have unless told otherwise.
const USUAL: u64 = 7;
/// Numbers from here on name a path the fragment's branch lists.
const LISTED: u64 = 8;

pub(super) fn put_path(pen: &mut Pen<'_>, path: &Path) -> Result<(), Unsendable> {
    match path {
        Path::Register => pen.uint(REGISTER),
        Path::Custom => pen.uint(CUSTOM),
        Path::Ttl => pen.uint(TTL),
        Path::Field(name) => {
            pen.uint(FIELD);
            pen.name(name)?;
        }
        Path::Counter(name) => {
            pen.uint(COUNTER);
            pen.name(name)?;
        }
        Path::Member(set, member) => {
            pen.uint(MEMBER);
            pen.name(set)?;
            pen.name(member)?;
        }
    }
    Ok(())
}

pub(super) fn take_path(reader: &mut Reader<'_>) -> Result<Path, PeerFault> {
    let code = reader.uint()?;
    path_of(reader, code)
}

fn path_of(reader: &mut Reader<'_>, code: u64) -> Result<Path, PeerFault> {
    match code {
        REGISTER => Ok(Path::Register),
        CUSTOM => Ok(Path::Custom),
        TTL => Ok(Path::Ttl),
        FIELD => Ok(Path::Field(reader.name()?)),
        COUNTER => Ok(Path::Counter(reader.name()?)),
        MEMBER => Ok(Path::Member(reader.name()?, reader.name()?)),
        _ => Err(malformed("a path is of no known kind")),
    }
}

/// Returns the scope that a fragment's events have unless told otherwise.
pub(super) fn usual_scope(family: Family, scope: &Scope) -> Scope {
    match family {
        Family::Register | Family::Epoch => Scope::Path(Path::Register),
        Family::Custom => Scope::Path(Path::Custom),
        Family::Map | Family::Counter | Family::Set => scope.clone(),
    }
}

/// Returns the dots of the events whose outcome a fragment carries.
fn own_dots(fragment: &Fragment) -> BTreeSet<Dot> {
    let mut dots = BTreeSet::new();
    if let Some(cell) = &fragment.cell {
        dots.extend([cell.dot(), cell.touch]);
    }
    if let Some(custom) = &fragment.custom {
        dots.extend(custom.merged.iter().map(|(&replica, &seq)| Dot { replica, seq }));
    }
    dots.extend(fragment.branch.elems.iter().flat_map(|(_, siblings)| siblings).map(|e| e.dot));
    let contributions = fragment.branch.counters.iter().flat_map(|(_, c)| c);
    dots.extend(contributions.map(|&(replica, c)| Dot { replica, seq: c.seq }));
    dots
}

/// Tells whether a fragment covers exactly the events whose outcome it carries.
pub(super) fn covers_own(fragment: &Fragment, usual: &Scope) -> bool {
    if let (Some(cell), [(dot, scope)]) = (&fragment.cell, fragment.covers.as_slice()) {
        return *dot == cell.dot() && cell.touch == *dot && scope == usual;
    }
    let own = own_dots(fragment);
    own.len() == fragment.covers.len() && own.iter().zip(&fragment.covers).all(|(d, (c, s))| d == c && s == usual)
}

pub(super) fn own_covers(fragment: &Fragment, usual: &Scope) -> Vec<(Dot, Scope)> {
    own_dots(fragment).into_iter().map(|dot| (dot, usual.clone())).collect()
}

/// The paths a fragment's branch lists, in order: what numbers from [`LISTED`] stand for.
fn listed(fragment: &Fragment) -> Vec<Path> {
    let elems = fragment.branch.elems.iter().map(|(path, _)| path.clone());
    let counters = fragment.branch.counters.iter().map(|(name, _)| Path::Counter(name.clone()));
    elems.chain(counters).collect()
}

pub(super) fn put_covers(pen: &mut Pen<'_>, ctx: &Ctx, fragment: &Fragment, usual: &Scope) -> Result<(), Unsendable> {
    let follows = |a: &(Dot, Scope), b: &(Dot, Scope)| {
        a.0.replica == b.0.replica && a.0.seq.checked_add(1) == Some(b.0.seq) && a.1 == b.1
    };
    let listed: BTreeMap<Path, u64> = listed(fragment).into_iter().zip(LISTED..).collect();
    pen.count(fragment.covers.chunk_by(follows).count());
    for run in fragment.covers.chunk_by(follows) {
        let Some((first, scope)) = run.first() else { continue };
        put_scope(pen, scope, usual, &listed)?;
        put_dot(pen, ctx, *first)?;
        pen.count(run.len() - 1);
    }
    Ok(())
}

fn put_scope(pen: &mut Pen<'_>, scope: &Scope, usual: &Scope, listed: &BTreeMap<Path, u64>) -> Result<(), Unsendable> {
    if scope == usual {
        pen.uint(USUAL);
        return Ok(());
    }
    let path = match scope {
        Scope::Key => {
            pen.uint(KEY);
            return Ok(());
        }
        Scope::Path(path) => path,
    };
    match listed.get(path) {
        Some(&code) => pen.uint(code),
        None => put_path(pen, path)?,
    }
    Ok(())
}

pub(super) fn take_covers(
    reader: &mut Reader<'_>,
    ctx: &Ctx,
    fragment: &Fragment,
    usual: &Scope,
) -> Result<Vec<(Dot, Scope)>, PeerFault> {
    let (listed, mut covers) = (listed(fragment), Vec::<(Dot, Scope)>::new());
    for _ in 0..reader.uint()? {
        let scope = take_scope(reader, usual, &listed)?;
        if !is_inside(&scope, &fragment.scope, usual) {
            return Err(malformed("a covered event lies outside of the fragment"));
        }
        let first = take_dot(reader, ctx)?;
        if covers.last().is_some_and(|(last, _)| *last >= first) {
            return Err(malformed("covered events do not ascend"));
        }
        let more = reader.uint()?.saturating_sub(u64::from(planted!(RunCutShort)));
        reader.tally.add(Counted::Covers, more.saturating_add(1))?;
        let last = first.seq.saturating_add(more);
        within("sequence number", last, SEQ_MAX)?;
        covers.extend((first.seq..=last).map(|seq| (Dot { replica: first.replica, seq }, scope.clone())));
    }
    Ok(covers)
}

fn is_inside(scope: &Scope, outer: &Scope, usual: &Scope) -> bool {
    let flat = |s: &Scope| matches!(s, Scope::Path(Path::Register | Path::Custom));
    if flat(usual) { scope == usual } else { outer.covers(scope) && !flat(scope) }
}

fn take_scope(reader: &mut Reader<'_>, usual: &Scope, listed: &[Path]) -> Result<Scope, PeerFault> {
    match reader.uint()? {
        USUAL => Ok(usual.clone()),
        KEY => Ok(Scope::Key),
        code if code < LISTED => Ok(Scope::Path(path_of(reader, code)?)),
        code => usize::try_from(code - LISTED)
            .ok()
            .and_then(|at| listed.get(at))
            .map(|path| Scope::Path(path.clone()))
            .ok_or(malformed("a scope names a path the fragment does not list")),
    }
}
