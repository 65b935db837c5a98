//! What hosts lost silently, or gave up: that it may be missing for a while, and what must be back, and gone, at the end.
//!
//! # Invariants
//! * Until it is given back, what was lost counts as given back to memory: it may be missing, nothing else may show.
//! * Where nothing was lost, evicted or made up, no comparison of copies finds anything, unless a clock was further ahead
//!   than comparisons look: that host has given up what was not over yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::check::{self, Invariant, Licence, Violation, at_host};
use super::cluster::SimCluster;
use super::oracle::{Key, cell};
use super::plan::Action;
use super::watcher::Watcher;
use super::workload::{self, REGISTERS};
use crate::crdt::Cell;
use crate::id::{PartitionId, ReplicaId};
use crate::node::{Input, Node, RepairId, RepairReport};
use crate::repair::session::HORIZON_MS;
use crate::store::{KeyRef, Store};

impl SimCluster {
    /// Has a node compare its copies with all its peers; the id is for [`SimCluster::repaired`].
    pub fn repair(&mut self, at: usize, within: Duration) -> RepairId {
        self.next_wait += 1;
        let id = RepairId(self.next_wait);
        self.input(at, Input::Repair { id, within });
        id
    }

    /// Returns what a comparison came to.
    #[must_use]
    pub fn repaired(&self, at: usize, id: RepairId) -> Option<RepairReport> {
        self.hosts.get(at)?.repaired.get(&id).copied()
    }
}

impl Watcher {
    /// A host is about to give a key's memory back: what it holds may be missing, there and wherever that goes.
    pub(super) fn licence(&mut self, cluster: &SimCluster, at: usize, key: Key) {
        let Some(store) = cluster.store(at) else { return };
        let Some(space) = store.spaces().find(key.space.name) else { return };
        let stamp = store.with_entry(&KeyRef::new(&space, &key.name), |e| e.and_then(cell).map(Cell::stamp));
        let licence = self.licences.entry(key).or_default();
        licence.hole = true;
        licence.stamps.extend(stamp);
    }

    /// A host is about to lose something.
    pub(super) fn note_damage(&mut self, cluster: &SimCluster, action: &Action) {
        if let Action::Damage { at, key } = *action {
            let key = workload::key(REGISTERS, key);
            self.licence(cluster, cluster.place(at), key.clone());
            self.damaged.insert(key);
        }
    }

    /// Checks that nothing is missing any more of what was lost.
    pub(super) fn mended(&self, cluster: &SimCluster) -> Result<(), Violation> {
        let (none, now_ms) = (Licence::default(), self.latest_ms.max(cluster.decides_ms()));
        let whole = || cluster.honest().filter(|at| !cluster.is_edge(*at));
        let all = self.damaged.iter().flat_map(|key| whole().map(move |at| (at, key)));
        let missing = |found: Violation| Violation::new(Invariant::Repair, format!("not given back: {}", found.detail));
        all.into_iter()
            .try_for_each(|(at, key)| self.agrees_but_for(cluster, (at, now_ms), key, &none).map_err(missing))
    }

    /// Checks that the sums are those of the entries, and that no comparison has found anything where nothing can be wrong.
    pub(super) fn nothing_differed(&self, cluster: &SimCluster) -> Result<(), Violation> {
        for (at, store) in cluster.honest().filter_map(|at| Some((at, cluster.store(at)?))) {
            let wrong = |id: &PartitionId| store.read(*id).is_some_and(|p| *p.table() != p.summed_up());
            if let Some(id) = store.partition_ids().find(wrong) {
                return Err(Violation::new(
                    Invariant::Repair,
                    format!("r{at}: the sums of {id} are not those of its entries"),
                ));
            }
        }
        let swept_early = cluster.ahead_ms > i64::try_from(HORIZON_MS).unwrap_or(i64::MAX);
        if !self.licences.is_empty() || cluster.limit().is_some() || swept_early {
            return Ok(());
        }
        for at in cluster.honest() {
            let found = cluster.node(at).map(Node::stats).map_or(0, |stats| stats.repair.differences);
            if found > 0 {
                return Err(Violation::new(Invariant::Repair, format!("r{at} found {found} keys to differ")));
            }
        }
        Ok(())
    }

    pub(super) fn licence_of(&self, space: &str, name: &Bytes) -> Licence {
        let found = self.licences.iter().find(|(key, _)| key.space.name == space && key.name == *name);
        found.map(|(_, licence)| licence.clone()).unwrap_or_default()
    }

    pub(super) fn nothing_left(&self, cluster: &SimCluster, at: usize, node: &Node) -> Result<(), Violation> {
        let running: BTreeSet<ReplicaId> =
            (0..cluster.host_count()).filter_map(|at| Some(cluster.node(at)?.me().replica)).collect();
        if let Some(gone) = check::members(node).iter().find(|replica| !running.contains(replica)) {
            let what = format!("r{at} counts {gone} as a member, which does not run");
            return Err(Violation::new(Invariant::Quiescence, what));
        }
        let store: &Arc<Store> = node.store();
        let now_ms = check::decides_ms(store, cluster.now(at).wall_ms);
        let may_be_hole = |space: &str, name: &[u8]| self.licence_of(space, &Bytes::copy_from_slice(name)).hole;
        check::nothing_left(store, now_ms, may_be_hole).map_err(at_host(at))?;
        check::all_folded(node).map_err(at_host(at))
    }
}
