//! Hosts that have seen the same show the same and hold the same.
//!
//! # Invariants
//! * What is compared does not depend on slots, on what was collected already, nor on what expired but was not swept.
//! * Internals are compared as well as answers: a deadline, a birth or a floor that differs will be seen one day.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Invariant, Licence, Violation};
use crate::clock::Stamp;
use crate::crdt::{Contribution, Ctx, Custom, Dot, Elem, Path};
use crate::id::ReplicaId;
use crate::node::Node;
use crate::sim::oracle::{cell, custom, tree};
use crate::store::{Body, Entry, Gate, Store};

/// Tells whether nodes have joined one cluster and have seen the same.
pub(in crate::sim) fn is_reached(nodes: &[(usize, &Node)]) -> bool {
    let Some(((_, first), others)) = nodes.split_first() else { return true };
    let mine = members(first);
    let is_in =
        |node: &Node| matches!(node.store().gate(), Gate::Open | Gate::Standby) && mine.contains(&node.me().replica);
    let same = |node: &Node| members(node) == mine && same_contexts(first.store(), node.store()).is_none();
    nodes.iter().all(|(_, node)| is_in(node)) && others.iter().all(|(_, node)| same(node))
}

/// Returns the members a node knows that were not removed, in order.
pub(in crate::sim) fn members(node: &Node) -> Vec<ReplicaId> {
    node.members().live().map(|(replica, _)| replica).collect()
}

/// Returns the first partition of which two stores have not seen the same, and what each lacks there.
fn same_contexts(a: &Store, b: &Store) -> Option<(Ctx, Ctx)> {
    a.partition_ids().find_map(|id| {
        let (a, b) = (a.read(id)?, b.read(id)?);
        (a.ctx() != b.ctx()).then(|| (a.ctx().clone(), b.ctx().clone()))
    })
}

/// Checks that nodes have joined one cluster and have seen the same.
pub(in crate::sim) fn reached(nodes: &[(usize, &Node)]) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new(Invariant::Convergence, what));
    let Some(((one, first), others)) = nodes.split_first() else { return Ok(()) };
    for (at, node) in nodes {
        if !matches!(node.store().gate(), Gate::Open | Gate::Standby) {
            return broken(format!("r{at} is {:?}", node.store().gate()));
        }
        if !members(first).contains(&node.me().replica) {
            return broken(format!("r{one} does not count r{at} ({}) as a member", node.me().replica));
        }
    }
    for (at, node) in others {
        if members(first) != members(node) {
            return broken(format!("members at r{one}: {:?}, at r{at}: {:?}", members(first), members(node)));
        }
        if let Some((mine, theirs)) = same_contexts(first.store(), node.store()) {
            return broken(format!("r{one} has seen {mine:?}, r{at} {theirs:?}"));
        }
    }
    Ok(())
}

/// What is left of an entry when everything is taken away that time or collection takes away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Essence {
    Register { stamp: Stamp, dot: Dot, touch: Dot, deadline: u64, tags: Vec<Bytes>, value: Bytes },
    Tree { elems: Vec<(Path, Vec<Elem>)>, counters: Vec<(Bytes, ReplicaId, Contribution)> },
    Hole,
    Custom(Custom),
}

/// Returns the essence of every entry at `now_ms`, by keyspace and key.
pub(in crate::sim) fn essences(store: &Store, now_ms: u64) -> BTreeMap<(String, Bytes), Essence> {
    let mut all = BTreeMap::new();
    for partition in store.partition_ids().filter_map(|id| store.read(id)) {
        for (space, key, entry) in partition.entries() {
            let Some(space) = store.spaces().get(space) else { continue };
            if let Some(essence) = essence(entry, now_ms) {
                all.insert((space.name().to_owned(), key.clone()), essence);
            }
        }
    }
    all
}

fn essence(entry: &Entry, now_ms: u64) -> Option<Essence> {
    match &entry.body {
        Body::Register(_) => {
            let c = cell(entry)?;
            let value = c.visible(now_ms)?.clone();
            let (stamp, dot, tags) = (c.stamp(), c.dot(), c.tags().to_vec());
            Some(Essence::Register { stamp, dot, touch: c.touch, deadline: c.deadline, tags, value })
        }
        Body::Custom(_) => custom(entry).filter(|c| c.visible(now_ms).is_some()).cloned().map(Essence::Custom),
        Body::Tree(_) => {
            let tree = tree(Some(entry))?;
            if tree.is_hole() {
                return Some(Essence::Hole);
            }
            let live = |s: &[Elem]| s.iter().filter(|e| now_ms < e.deadline).cloned().collect::<Vec<_>>();
            let elems = tree.elems().map(|(path, s)| (path.clone(), live(s))).filter(|(_, s)| !s.is_empty());
            let parts = tree.counters().flat_map(|(name, c)| c.0.iter().map(move |(o, c)| (name.clone(), *o, *c)));
            let counters: Vec<_> = parts.filter(|(_, _, c)| c.visible(now_ms) != 0).collect();
            let elems: Vec<_> = elems.collect();
            (!elems.is_empty() || !counters.is_empty()).then_some(Essence::Tree { elems, counters })
        }
    }
}

/// Compares what two hosts hold, but for what a licence excuses.
pub(in crate::sim) fn same_state(
    (one, a): (usize, &Store),
    (other, b): (usize, &Store),
    now_ms: u64,
    licence: impl Fn(&str, &Bytes) -> Licence,
) -> Result<(), Violation> {
    let (here, there) = (essences(a, now_ms), essences(b, now_ms));
    let keys: std::collections::BTreeSet<_> = here.keys().chain(there.keys()).collect();
    for (space, key) in keys {
        let place = (space.clone(), key.clone());
        let (mine, theirs) = (here.get(&place), there.get(&place));
        let missed = |store: &Store, here: Option<&Essence>, there: Option<&Essence>| {
            store.warm().is_some() && here.is_none() && matches!(there, Some(Essence::Register { .. }))
        };
        let at_edge = missed(a, mine, theirs) || missed(b, theirs, mine);
        if mine == theirs || at_edge || excuses(&licence(space, key), mine, theirs) {
            continue;
        }
        let what = format!("{space} {key:?}: r{one} holds {mine:?}, r{other} holds {theirs:?}");
        return Err(Violation::new(Invariant::EqualState, what));
    }
    Ok(())
}

/// A value one of them gave back is a miss there, and a map one of them gave back is a hole there.
fn excuses(licence: &Licence, mine: Option<&Essence>, theirs: Option<&Essence>) -> bool {
    let hole = |e: Option<&Essence>| matches!(e, Some(Essence::Hole));
    match (mine, theirs) {
        (Some(Essence::Register { stamp, .. }), None) | (None, Some(Essence::Register { stamp, .. })) => {
            licence.stamps.contains(stamp)
        }
        _ => licence.hole && (hole(mine) || hole(theirs)),
    }
}
