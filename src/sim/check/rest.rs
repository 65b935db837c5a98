//! Once quiet, nothing is left that may be forgotten.
//!
//! # Invariants
//! * With every configured host there, nothing waits for anybody: no log record, no dot that is not stable, no
//!   tombstone, stub, reset or expired contribution, shell or epoch; and a hole only where somebody evicted.
//! * Nothing waits to be sent, staged, applied or answered.

use super::memory::forgets_removed;
use super::{Invariant, Violation};
use crate::crdt::{Cell, Custom, Tree};
use crate::membership::Reach;
use crate::node::Node;
use crate::store::{Body, Entry, Family, Partition, Store};

/// How long after its deadline something may still be there: sweeps come every tenth of a second.
const SWEPT_AFTER_MS: u64 = 2_000;
/// What must be empty when nothing happens any more.
const QUEUES: [&str; 6] = [
    "bytes in the pen of a link",
    "bytes that overtook a hello",
    "staged bytes of a link",
    "queued bytes of a link",
    "waits",
    "dirty partitions",
];

/// Loss beyond which five beats in a row get lost now and then.
const BEATS_ARRIVE: f64 = 0.05;

/// Checks that nothing waits at a node, that it keeps nothing of the removed, and that it hears everybody.
pub(in crate::sim) fn at_ease(node: &Node, loss: f64) -> Result<(), Violation> {
    queues_empty(node)?;
    forgets_removed(node)?;
    if loss <= BEATS_ARRIVE { suspects_nobody(node) } else { Ok(()) }
}

/// Checks that of what nodes were before nothing is named but the last of each, and nothing in a context but a mark.
pub(in crate::sim) fn all_folded(node: &Node) -> Result<(), Violation> {
    let (members, store) = (node.members(), node.store());
    if members.clone().raise_floors() {
        return Err(Violation::new(Invariant::Folding, format!("floors may be raised: {members:?}")));
    }
    for p in store.partition_ids().filter_map(|id| store.read(id)) {
        let left = [p.ctx(), p.frontier(), p.floor()].map(|ctx| ctx.foldable(&members.floors)).concat();
        if let Some(floor) = left.first() {
            let what = format!("{}: something is left below {floor}: {:?}, stable {:?}", p.id(), p.ctx(), p.frontier());
            return Err(Violation::new(Invariant::Folding, what));
        }
    }
    Ok(())
}

/// Checks that a node suspects nobody any more.
fn suspects_nobody(node: &Node) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new(Invariant::Liveness, what));
    if node.is_isolated() {
        return broken("it still takes itself for isolated".to_owned());
    }
    let others = node.members().live().map(|(replica, _)| replica).filter(|replica| *replica != node.me().replica);
    for replica in others {
        let reach = node.reach(replica);
        if reach != Some(Reach::Up) {
            return broken(format!("{replica} is {reach:?} although everything has healed"));
        }
    }
    Ok(())
}

/// Checks that nothing waits at a node.
fn queues_empty(node: &Node) -> Result<(), Violation> {
    let gauges = node.gauges();
    for name in QUEUES {
        let size = gauges.of(name).map(|gauge| gauge.size);
        if size != Some(0) {
            return Err(Violation::new(Invariant::Quiescence, format!("{name}: {size:?}")));
        }
    }
    Ok(())
}

/// Checks that nothing is left in a store at `now_ms` that may be forgotten. `may_be_hole` tells which maps somebody
/// evicted.
pub(in crate::sim) fn nothing_left(
    store: &Store,
    now_ms: u64,
    may_be_hole: impl Fn(&str, &[u8]) -> bool,
) -> Result<(), Violation> {
    for partition in store.partition_ids().filter_map(|id| store.read(id)) {
        settled(&partition)?;
        for (space, key, entry) in partition.entries() {
            let Some(space) = store.spaces().get(space) else { continue };
            let left = if space.family() == Family::Epoch {
                Some("an epoch")
            } else {
                leftover(entry, now_ms, may_be_hole(space.name(), key))
            };
            if let Some(left) = left {
                let what = format!("{left} is left of {:?} {key:?}: {entry:?}", space.name());
                return Err(Violation::new(Invariant::Quiescence, what));
            }
        }
    }
    Ok(())
}

fn settled(p: &Partition) -> Result<(), Violation> {
    let left = if p.log_len() > 0 {
        format!("{} log records", p.log_len())
    } else if p.frontier() != p.ctx() || p.floor() != p.ctx() {
        format!("seen {:?}, dropped {:?}, stable {:?}", p.ctx(), p.floor(), p.frontier())
    } else if p.binding_floor().is_some() {
        "a floor that binds".to_owned()
    } else if p.epoch_count() > 0 {
        format!("{} epochs", p.epoch_count())
    } else {
        return Ok(());
    };
    Err(Violation::new(Invariant::Quiescence, format!("{}: {left}", p.id())))
}

/// Says what of an entry should have been forgotten.
fn leftover(entry: &Entry, now_ms: u64, may_be_hole: bool) -> Option<&'static str> {
    if !entry.is_settled() {
        return Some("an unsettled entry");
    }
    let over = |deadline: u64| deadline.saturating_add(SWEPT_AFTER_MS) <= now_ms;
    match &entry.body {
        Body::Register(None) => Some("an empty register"),
        Body::Register(Some(cell)) => of_register(cell, over),
        Body::Custom(custom) => match custom.as_ref() {
            None => Some("an empty custom entry"),
            Some(custom) => of_custom(custom, over),
        },
        Body::Tree(tree) => of_tree(tree, over, may_be_hole),
    }
}

fn of_register(cell: &Cell, over: impl Fn(u64) -> bool) -> Option<&'static str> {
    if cell.is_grave() { Some("a grave") } else { over(cell.deadline).then_some("an expired value") }
}

fn of_custom(custom: &Custom, over: impl Fn(u64) -> bool) -> Option<&'static str> {
    if custom.is_grave() { Some("a grave") } else { over(custom.deadline).then_some("an expired state") }
}

fn of_tree(tree: &Tree, over: impl Fn(u64) -> bool, may_be_hole: bool) -> Option<&'static str> {
    if tree.is_empty() {
        return Some("an empty map");
    }
    if tree.is_hole() && !may_be_hole {
        return Some("a hole nobody made");
    }
    if tree.elems().flat_map(|(_, siblings)| siblings).any(|elem| over(elem.deadline)) {
        return Some("an expired element");
    }
    let mut parts = tree.counters().flat_map(|(_, counter)| counter.0.values());
    parts.find_map(|part| {
        if part.is_live() {
            over(part.deadline).then_some("an expired contribution")
        } else {
            Some("a reset contribution")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Hlc, Stamp};
    use crate::crdt::{Contribution, Dot, Elem, NEVER, Path, Payload, Reset, Scope};
    use crate::id::ReplicaId;
    use bytes::Bytes;

    const NOW_MS: u64 = 10_000;
    const DOT: Dot = Dot { replica: ReplicaId(1), seq: 1 };

    fn register(payload: Payload, deadline: u64) -> Entry {
        let cell = Cell::new(payload, Hlc(1), DOT, deadline);
        Entry { body: Body::Register(Some(cell)), ..Entry::new(Family::Register) }
    }

    fn custom(state: Payload, deadline: u64) -> Entry {
        let custom = Custom::new(Stamp::default(), DOT, state, deadline);
        Entry { body: Body::Custom(Box::new(Some(custom))), ..Entry::new(Family::Custom) }
    }

    fn map(change: impl FnOnce(&mut Tree)) -> Entry {
        let mut entry = Entry::new(Family::Map);
        if let Body::Tree(tree) = &mut entry.body {
            change(tree);
        }
        entry
    }

    fn elem(deadline: u64) -> Elem {
        Elem { dot: DOT, stamp: Stamp::default(), deadline, value: Bytes::new() }
    }

    #[test]
    fn whatever_may_be_forgotten_is_named() {
        let value = || Payload::Value(Bytes::new());
        let counted = |part: Contribution| map(|tree| tree.counter_mut(&Bytes::new()).0.extend([(DOT.replica, part)]));
        let live = |deadline| Contribution { p: 3, ..Contribution::born(1, deadline) };
        let kept = [
            register(value(), NEVER),
            register(value(), NOW_MS),
            custom(value(), NEVER),
            map(|tree| tree.put(Path::Ttl, elem(NEVER))),
            counted(live(NEVER)),
        ];
        for entry in kept {
            assert_eq!(leftover(&entry, NOW_MS, false), None, "{entry:?}");
        }
        let mut unstable = register(value(), NEVER);
        unstable.mark(DOT, Scope::Path(Path::Register));
        let truncated = Entry { truncated: true, ..register(value(), NEVER) };
        let left = [
            (unstable, "an unsettled entry"),
            (truncated, "an unsettled entry"),
            (register(Payload::Tombstone, NEVER), "a grave"),
            (register(Payload::Absent, NEVER), "a grave"),
            (register(value(), 1), "an expired value"),
            (Entry::new(Family::Register), "an empty register"),
            (custom(Payload::Tombstone, NEVER), "a grave"),
            (custom(value(), 1), "an expired state"),
            (Entry::new(Family::Custom), "an empty custom entry"),
            (map(|_| ()), "an empty map"),
            (map(Tree::evict), "a hole nobody made"),
            (map(|tree| tree.put(Path::Ttl, elem(1))), "an expired element"),
            (counted(live(1)), "an expired contribution"),
            (
                counted(Contribution { reset: Some(Reset { p: 3, n: 0, by: DOT }), ..live(NEVER) }),
                "a reset contribution",
            ),
        ];
        for (entry, what) in left {
            assert_eq!(leftover(&entry, NOW_MS, false), Some(what), "{entry:?}");
        }
        assert_eq!(leftover(&map(Tree::evict), NOW_MS, true), None, "somebody evicted it");
    }
}
