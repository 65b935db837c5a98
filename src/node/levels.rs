//! Consistency levels: how long a caller waits on a receipt.
//!
//! A write is local and immediate; a level is reached when enough members have *reported* its dot.
//! A deadline that passes is an outcome, not an error: the write stands and goes on replicating.
//! A read at a level counts the same members, by who has answered (see `read.rs`).
//!
//! # Invariants
//! * Only a member's own report counts; a relayed dot says nothing about third parties.
//! * An edge counts for nothing, neither as one that has a write nor as one that should: it gives registers back.
//! * At most [`WAITS_MAX`] waits are kept; one more resolves at once as not reached.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Mono;
use crate::crdt::Dot;
use crate::crdt::{Member, MemberSet};
use crate::id::{NodeId, PartitionId, RegionId, ReplicaId};
use crate::probe::planted;
use crate::store::Store;

/// Most receipts waited on at one time: about 100 bytes each.
pub const WAITS_MAX: usize = 65_536;

/// How far a write must have come, or who must have answered a read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Level {
    /// Applied here: true as soon as there is a receipt. A read shows what is here.
    Local,
    /// Seen by a majority of the members, or of the configured nodes if those are more; edges do not count, this one
    /// does unless it is one.
    Quorum,
    /// Seen by at least one member of every region.
    EachRegion,
    /// Seen by every member and configured node. Not linearizable, and not available while one is down.
    All,
}

/// Names a wait. The caller makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WaitId(pub u64);

/// The event a wait is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// Its partition.
    pub partition: PartitionId,
    /// The event.
    pub dot: Dot,
}

/// A member that has not reported a write, or not answered a read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Missing {
    /// The node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
}

/// How far a write came by the time the caller stopped waiting, which stands in any case, or how many have answered a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Whether the level was reached.
    pub reached: bool,
    /// Members (for [`Level::EachRegion`]: regions) that have reported or answered it, this one included.
    pub acked: usize,
    /// How many are needed.
    pub needed: usize,
    /// The members that have not.
    pub missing: Vec<Missing>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    mark: Mark,
    level: Level,
    deadline: Option<Mono>,
}

/// The waits under way.
#[derive(Debug, Default)]
pub struct Waits {
    waits: BTreeMap<WaitId, Wait>,
    by_partition: BTreeMap<PartitionId, BTreeSet<WaitId>>,
    by_deadline: BTreeSet<(Mono, WaitId)>,
}

impl Waits {
    /// Returns the earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.by_deadline.first().map(|(at, _)| *at)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Begins a wait; returns false when there are too many.
    pub fn add(&mut self, id: WaitId, mark: Mark, level: Level, deadline: Option<Mono>) -> bool {
        if self.waits.len() >= WAITS_MAX {
            return false;
        }
        self.waits.insert(id, Wait { mark, level, deadline });
        self.by_partition.entry(mark.partition).or_default().insert(id);
        self.by_deadline.extend(deadline.map(|at| (at, id)));
        true
    }

    /// Ends a wait nobody is interested in any more.
    pub fn remove(&mut self, id: WaitId) {
        let Some(wait) = self.waits.remove(&id) else { return };
        if let Some(set) = self.by_partition.get_mut(&wait.mark.partition) {
            set.remove(&id);
            if set.is_empty() {
                self.by_partition.remove(&wait.mark.partition);
            }
        }
        if let Some(at) = wait.deadline {
            self.by_deadline.remove(&(at, id));
        }
    }

    /// Ends and returns the waits of a partition that are reached.
    pub fn check(
        &mut self,
        partition: PartitionId,
        store: &Store,
        members: &MemberSet,
        expected: usize,
    ) -> Vec<(WaitId, Outcome)> {
        let Some(ids) = self.by_partition.get(&partition) else { return Vec::new() };
        let judged = ids
            .iter()
            .filter_map(|id| self.waits.get(id).map(|w| (*id, judge(w.mark, w.level, store, members, expected))));
        let done: Vec<(WaitId, Outcome)> = judged.filter(|(_, outcome)| outcome.reached).collect();
        done.iter().for_each(|(id, _)| self.remove(*id));
        done
    }

    /// Ends and returns every wait that is reached, after the members changed.
    pub fn check_all(&mut self, store: &Store, members: &MemberSet, expected: usize) -> Vec<(WaitId, Outcome)> {
        let partitions: Vec<PartitionId> = self.by_partition.keys().copied().collect();
        partitions.into_iter().flat_map(|p| self.check(p, store, members, expected)).collect()
    }

    /// Ends and returns every wait, reached or not, because nobody will be asked any more.
    pub fn end_all(&mut self, store: &Store, members: &MemberSet, expected: usize) -> Vec<(WaitId, Outcome)> {
        let all = std::mem::take(self);
        all.waits.into_iter().map(|(id, w)| (id, judge(w.mark, w.level, store, members, expected))).collect()
    }

    /// Ends and returns the waits whose deadline has passed.
    pub fn expire(&mut self, now: Mono, store: &Store, members: &MemberSet, expected: usize) -> Vec<(WaitId, Outcome)> {
        let mut done = Vec::new();
        while let Some((_, id)) = self.by_deadline.first().copied().filter(|(at, _)| *at <= now) {
            if let Some(wait) = self.waits.get(&id) {
                done.push((id, judge(wait.mark, wait.level, store, members, expected)));
            }
            self.remove(id);
        }
        done
    }
}

/// Says how far an event came, by the latest reports. `expected` nodes count even if they were never met. Of a node with
/// several copies that are members, as while it is restarted, all must have the event for it to count, once.
#[must_use]
pub fn judge(mark: Mark, level: Level, store: &Store, members: &MemberSet, expected: usize) -> Outcome {
    let partition = store.read(mark.partition);
    let has = |replica| {
        let known = |p: &crate::store::Partition| {
            if replica == store.me() { p.has_seen(mark.dot) } else { p.has_reported(replica, mark.dot) }
        };
        partition.as_deref().is_some_and(known)
    };
    count(level, members, expected, has)
}

/// Says how many of those who count for a level there are of whom `has` is true.
pub(super) fn count(level: Level, members: &MemberSet, expected: usize, has: impl Fn(ReplicaId) -> bool) -> Outcome {
    let counts = |member: &Member| !member.profile.is_edge || planted!(EdgeCounts);
    let mut nodes = BTreeMap::new();
    for (replica, member) in members.live().filter(|(_, member)| counts(member)) {
        let (_, all_have) = nodes.entry(member.node).or_insert((&member.region, true));
        *all_have &= has(replica);
    }
    let (mut acked, mut missing) = (0, Vec::new());
    let (mut regions, mut reached_regions) = (BTreeSet::new(), BTreeSet::new());
    for (node, (region, all_have)) in nodes {
        regions.insert(region);
        if all_have {
            acked += 1;
            reached_regions.insert(region);
        } else {
            missing.push(Missing { node, region: region.clone() });
        }
    }
    let all = (acked + missing.len()).max(expected).max(1);
    let (acked, needed) = match level {
        Level::Local => (acked.max(1), 1),
        Level::Quorum => (acked, if planted!(HalfIsQuorum) { all.div_ceil(2) } else { all / 2 + 1 }),
        Level::EachRegion => (reached_regions.len(), regions.len().max(1)),
        Level::All => (acked, all),
    };
    Outcome { reached: acked >= needed, acked, needed, missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::crdt::Ctx;
    use crate::id::Role;

    const MARK: Mark = Mark { partition: PartitionId(0), dot: Dot { replica: ReplicaId(1), seq: 1 } };

    /// Judges a write that those of `has` have reported, where each of `members` is a replica, its node, and whether it is an
    /// edge; the replica 1 is this one, and five nodes are configured.
    fn judged(members: &[(u64, u64, bool)], has: &[u64], level: Level) -> (usize, usize, usize) {
        let store = Store::new(ReplicaId(1), Config::dev("here", "unused:0").store());
        let mut ctx = Ctx::default();
        ctx.add(MARK.dot);
        let mut partition = store.lock(MARK.partition).expect("there is one");
        has.iter().for_each(|replica| partition.report(ReplicaId(*replica), &ctx));
        drop(partition);
        let mut set = MemberSet::default();
        for (replica, node, is_edge) in members {
            let region = RegionId::new(&format!("region-{node}"));
            let mut member = Member::new(NodeId(uuid::Uuid::from_u128(u128::from(*node))), region, 0, None);
            if *is_edge {
                (member.profile.role, member.profile.is_edge) = (Role::Edge, true);
            }
            set.add(ReplicaId(*replica), &member);
        }
        let outcome = judge(MARK, level, &store, &set, 5);
        (outcome.acked, outcome.needed, outcome.missing.len())
    }

    #[test]
    fn a_node_with_two_copies_counts_once_and_only_if_both_have_it() {
        let members = [(2, 20, false), (3, 20, false), (4, 40, false)];
        assert_eq!(judged(&members, &[2], Level::Quorum), (0, 3, 2));
        assert_eq!(judged(&members, &[2, 3], Level::Quorum), (1, 3, 1));
        assert_eq!(judged(&members, &[2, 3, 4], Level::All), (2, 5, 0), "five are configured");
        assert_eq!(judged(&members, &[3, 4], Level::EachRegion), (1, 2, 1));
    }

    #[test]
    fn an_edge_counts_for_nothing_and_takes_nothing_from_what_is_expected() {
        let members = [(2, 20, true), (3, 20, true), (4, 40, false)];
        assert_eq!(judged(&members, &[2, 3, 4], Level::All), (1, 5, 0));
        assert_eq!(judged(&members, &[2, 3, 4], Level::EachRegion), (1, 1, 0));
        assert_eq!(judged(&[(2, 20, true), (3, 20, false)], &[3], Level::All), (1, 5, 0), "it is none any more");
    }
}
