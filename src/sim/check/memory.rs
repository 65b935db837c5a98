//! Memory and queues are bounded, and memory is accounted for.
//!
//! # Invariants
//! * The bytes a keyspace says it takes are those of its entries and their names.
//! * Each writer adds at most its budget, a tenth, and one entry to what a keyspace takes: what others wrote is never
//!   refused. What it puts again with another deadline may be there twice.
//! * No gauge is beyond its bound.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::id::KeyspaceId;
use crate::node::{Gauges, Node};
use crate::store::Store;

/// What a deletion of a key never seen leaves behind, which no budget refuses: a grave and its name.
const GRAVE_BYTES: u64 = 256;

/// Compares the accounted bytes of every keyspace with a walk over its entries.
pub(in crate::sim) fn accounted(store: &Store) -> Result<(), Violation> {
    let taken = taken(store);
    for space in store.spaces().snapshot() {
        let (used, walked) = (space.used(), taken.get(&space.id()).map_or(0, |(bytes, _)| *bytes));
        if used != walked {
            let what = format!("{:?} says it takes {used} bytes, its entries take {walked}", space.name());
            return Err(Violation::new(Invariant::Memory, what));
        }
    }
    Ok(())
}

/// Checks the bytes of every keyspace against its budget, when `writers` replicas have written and the largest write
/// took `write_bytes`.
pub(in crate::sim) fn within_budget(store: &Store, writers: u64, write_bytes: u64) -> Result<(), Violation> {
    for space in store.spaces().snapshot() {
        let (used, budget) = (space.used(), space.budget());
        if used <= budget {
            continue;
        }
        let keys = taken(store).get(&space.id()).map_or(0, |(_, keys)| *keys);
        let share = budget.saturating_add(budget / 10).saturating_add(write_bytes);
        let bound = share.saturating_mul(2 * writers.max(1)).saturating_add(keys * GRAVE_BYTES);
        if used > bound {
            let what = format!("{:?} takes {used} bytes of {budget}, with {writers} writers", space.name());
            return Err(Violation::new(Invariant::Memory, what));
        }
    }
    Ok(())
}

/// Returns the bytes and keys of each keyspace, by a walk.
fn taken(store: &Store) -> BTreeMap<KeyspaceId, (u64, u64)> {
    let mut taken: BTreeMap<KeyspaceId, (u64, u64)> = BTreeMap::new();
    for partition in store.partition_ids().filter_map(|id| store.read(id)) {
        for (space, key, entry) in partition.entries() {
            let (bytes, keys) = taken.entry(space).or_default();
            *bytes += u64::try_from(entry.bytes() + key.len()).unwrap_or(u64::MAX);
            *keys += 1;
        }
    }
    taken
}

/// Checks every size of a node against its bound.
pub(in crate::sim) fn bounded(gauges: &Gauges) -> Result<(), Violation> {
    let Some(over) = gauges.over() else { return Ok(()) };
    let what = format!("{}: {} where at most {} are allowed", over.name, over.size, over.max);
    Err(Violation::new(Invariant::Bounds, what))
}

/// Checks what a node keeps per member or per replica, which a member that is gone must not hold up.
pub(in crate::sim) fn forgets_removed(node: &Node) -> Result<(), Violation> {
    let store = node.store();
    for partition in store.partition_ids().filter_map(|id| store.read(id)) {
        let gone = |replica: &crate::id::ReplicaId| node.members().was_removed(*replica);
        if let Some(replica) = partition.reporters().find(gone) {
            let what = format!("{}: the report of the removed {replica} is kept", partition.id());
            return Err(Violation::new(Invariant::Quiescence, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Mono, Now};
    use crate::config::Config;
    use crate::id::{NodeId, RegionId, ReplicaId};
    use crate::node::{Input, Me};
    use std::sync::Arc;

    #[test]
    fn a_queue_beyond_its_bound_is_seen() {
        let config = Config::wan("r0", "sim:0").peers(["sim:1"]);
        let me = Me { node: NodeId(uuid::Uuid::from_u128(1)), region: RegionId::new("r0"), replica: ReplicaId(1) };
        let store = Arc::new(Store::new(me.replica, config.store()));
        let mut node = Node::new(me, config, store, 1).unwrap();
        assert_eq!(bounded(&node.gauges()), Ok(()));
        node.handle(Now { mono: Mono(1), wall_ms: 1 }, Input::Deadline);
        let found = bounded(&node.gauges()).map_err(|found| found.invariant);
        assert_eq!(found, Err(Invariant::Bounds), "nobody has drained what it said");
    }
}
