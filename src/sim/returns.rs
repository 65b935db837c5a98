//! What processes whose replica was removed leave behind, and what they write again as other replicas.
//!
//! # Invariants
//! * What a replica leaves is taken from its store when it learns that it was removed, before anything of it is given up.
//! * Facts only: what should have been written again is judged by the watcher, from history.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use crate::clock::Hlc;
use crate::crdt::{Cell, Ctx, Payload};
use crate::id::{PartitionId, ReplicaId};
use crate::node::Event;
use crate::sim::oracle::cell;
use crate::store::{Family, Store};

/// A register write that some member may not have received when its author learnt that it was removed.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) space: String,
    pub(super) key: Bytes,
    pub(super) cell: Cell,
}

/// What a write that is kept takes at most, beyond its key and value.
const LEFT_BYTES: usize = 256;

impl Left {
    fn bytes(&self) -> usize {
        let value = if let Payload::Value(value) = self.cell.payload() { value.len() } else { 0 };
        value + self.cell.tags().iter().map(|tag| tag.len() + LEFT_BYTES).sum::<usize>()
    }
}

/// A replica has written again what its process had left.
#[derive(Clone, Debug)]
pub(super) struct Again {
    pub(super) at: usize,
    pub(super) replica: ReplicaId,
    /// What was left.
    pub(super) left: Vec<Left>,
    /// Its own registers.
    pub(super) own: Vec<Left>,
    /// What it has seen of each partition, and the newest it may not know of any more.
    pub(super) seen: Vec<(Ctx, Hlc)>,
    /// It has founded a cluster, so that nobody could tell it anything, or there was more than is kept.
    pub(super) excused: bool,
    /// The latest instant by which any process decided then what is over.
    pub(super) now_ms: u64,
    /// Keyspaces with little room.
    pub(super) full: BTreeSet<String>,
}

/// Who came back, and what of.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// What removed replicas left, and then what the replicas that follow them have to write again.
    left: BTreeMap<ReplicaId, Vec<Left>>,
    /// What each process has been before, since it was started or told that it may come back.
    formers: BTreeMap<ReplicaId, Vec<ReplicaId>>,
    /// Removed replicas whose process was told that it may come back.
    pub(super) called: BTreeSet<ReplicaId>,
    /// Removed replicas that knew that an operator had removed them.
    knew: BTreeSet<ReplicaId>,
    pub(super) again: Vec<Again>,
    rash: Option<Violation>,
}

impl SimCluster {
    /// Checks that nobody came back who knew that an operator had removed it, and whom nobody told to; nor stays who hears
    /// of that later.
    ///
    /// # Errors
    /// [`Violation`] of the first.
    pub fn all_returned_rightly(&self) -> Result<(), Violation> {
        for at in (0..self.host_count()).filter(|at| self.is_honest(*at)) {
            let Some(node) = self.node(at) else { continue };
            let (me, members) = (node.me().replica, node.members());
            let formers = self.returns.formers.get(&me).into_iter().flatten();
            if let Some(former) = formers.into_iter().find(|former| members.expelled.contains(former))
                && !members.is_removed(me)
            {
                let what = format!("r{at} was {former}, whom an operator removed as it knows, and stays as {me}");
                return Err(Violation::new(Invariant::Admission, what));
            }
            let was_ordered = |replica: &ReplicaId| self.ordered.contains(replica);
            let formers = self.returns.formers.get(&me).into_iter().flatten();
            if members.expelled.contains(&me) && !formers.chain([&me]).any(was_ordered) {
                let what = format!("r{at} takes {me} for removed by an operator, which nobody ordered");
                return Err(Violation::new(Invariant::Admission, what));
            }
        }
        self.returns.rash.clone().map_or(Ok(()), Err)
    }

    /// Says which processes run as replicas that were removed.
    pub(super) fn absentees(&self) -> String {
        let removed = |at: &usize| self.is_running(*at) && self.is_honest(*at) && self.is_removed(*at);
        (0..self.host_count()).filter(removed).map(|at| format!("r{at} was removed and has not come back; ")).collect()
    }

    /// A node has told its users something of its replica.
    pub(super) fn note_return(&mut self, at: usize, event: &Event) {
        let Some((me, store)) = self.node(at).map(|node| (node.me().replica, node.store().clone())) else { return };
        if *event == Event::Removed {
            let contexts = store.partition_ids().filter_map(|id| Some(store.read(id)?.ctx().clone())).collect();
            self.note_departed(me, contexts);
            self.returns.left.entry(me).or_default().extend(unsent(&store));
            if self.node(at).is_some_and(|node| node.members().expelled.contains(&me)) {
                self.returns.knew.insert(me);
            }
        } else if let Event::CameBack { former, replica, .. } = event {
            self.came_back(at, *former, *replica);
        } else if let Event::Joined { founded: true } = event {
            // It may have copied from a donor that died, and has nobody to tell it all the same.
            self.returns.again.iter_mut().filter(|again| again.replica == me).for_each(|again| again.excused = true);
        } else if let Event::Reissued { lost, .. } = event {
            let left = self.returns.left.remove(&me).unwrap_or_default();
            let seen = store.partition_ids().filter_map(|id| store.read(id).map(|p| (p.ctx().clone(), p.forgotten())));
            let spaces = store.spaces().snapshot();
            // An edge that had no room may have given something back since.
            let had_no_room = self.is_edge(at) && *lost > 0;
            let full = spaces
                .iter()
                .filter(|s| had_no_room || s.used().saturating_mul(2) > s.budget())
                .map(|s| s.name().to_owned())
                .collect();
            let bytes: usize = left.iter().map(|left| left.key.len() + LEFT_BYTES + left.bytes()).sum();
            let excused = !self.has_sponsor(at) || bytes > self.config.node.membership.reissue_bytes;
            let (own, seen) = (own(&store), seen.collect());
            let now_ms = self.decides_ms();
            self.returns.again.push(Again { at, replica: me, left, own, seen, excused, now_ms, full });
        }
    }

    fn has_sponsor(&self, at: usize) -> bool {
        self.node(at).is_some_and(|node| node.members().get(node.me().replica).is_some_and(|me| me.sponsor.is_some()))
    }

    fn came_back(&mut self, at: usize, former: ReplicaId, replica: ReplicaId) {
        let drift_ms = u64::try_from(self.config.node.membership.max_drift.as_millis()).unwrap_or(u64::MAX);
        let newest_ms = self.now(at).wall_ms.saturating_add(drift_ms);
        let mut left = self.returns.left.remove(&former).unwrap_or_default();
        left.retain(|left| left.cell.stamp().hlc.ms() <= newest_ms);
        self.returns.left.insert(replica, left);
        let called = self.returns.called.contains(&former);
        let mut formers = self.returns.formers.remove(&former).unwrap_or_default();
        formers.push(former);
        self.returns.formers.insert(replica, if called { Vec::new() } else { formers });
        if self.returns.knew.contains(&former) && !called {
            let what = format!("r{at} was removed as {former} by an operator, and comes back as {replica}");
            self.returns.rash.get_or_insert_with(|| Violation::new(Invariant::Admission, what));
        }
        if self.hosts.iter().any(|host| host.was(replica)) {
            let what = format!("r{at} comes back as {replica}, which another process is or was");
            self.returns.rash.get_or_insert_with(|| Violation::new(Invariant::Admission, what));
        }
        if let Some(host) = self.hosts.get_mut(at) {
            host.go_on_as(replica);
        }
    }
}

/// Returns the registers that a store's own replica wrote and that are not stable.
fn unsent(store: &Store) -> Vec<Left> {
    let stable = |left: &Left| {
        let id = store.spaces().find(&left.space).map(|space| store.place(space.hash(&left.key)));
        id.and_then(|id| store.read(id)).is_some_and(|p| p.frontier().has(left.cell.dot()))
    };
    own(store).into_iter().filter(|left| !stable(left)).collect()
}

fn own(store: &Store) -> Vec<Left> {
    let mut all = Vec::new();
    for partition in store.partition_ids().filter_map(|id: PartitionId| store.read(id)) {
        for (space, key, entry) in partition.entries() {
            let Some(space) = store.spaces().get(space).filter(|space| space.family() == Family::Register) else {
                continue;
            };
            let own = cell(entry).filter(|c| c.dot().replica == store.me() && *c.payload() != Payload::Absent);
            let left = |cell: &Cell| Left { space: space.name().to_owned(), key: key.clone(), cell: cell.clone() };
            all.extend(own.map(left));
        }
    }
    all
}
