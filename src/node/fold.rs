//! Old incarnations: what a node was before it was started again is folded away, so that restarts leave nothing behind.
//!
//! # Invariants
//! * A floor is below every live replica of its tag, and of the last replica of a node that has no other it says nothing.
//! * While more of a node's replicas are named than may be, none is let in that is not above them.

use std::collections::BTreeSet;

use crate::clock::Now;
use crate::crdt::INCARNATIONS_MAX;
use crate::id::ReplicaId;
use crate::node::Node;
use crate::node::input::LinkId;
use crate::node::output::CloseCode;
use crate::probe::{planted, sometimes};

/// How far above the lowest it may be an id is drawn at most, in milliseconds. A process that is restarted so soon after it
/// came back may begin below its floor, and comes back once more.
const AHEAD_MAX: u64 = 1 << 14;

impl Node {
    /// Folds away the removed replicas that came before the live ones of their nodes.
    pub(super) fn raise_floors(&mut self) {
        let raised = self.join.is_joined() && self.members.raise_floors();
        sometimes!(FloorRaised, if raised);
    }

    /// Forgets what is kept of replicas below a floor. Of those that were members here the first of each node is enough to
    /// tell that it was.
    pub(super) fn forget_the_folded(&mut self) {
        let (me, members) = (self.me.replica, &self.members);
        let mut tags = BTreeSet::new();
        self.lived.retain(|replica| tags.insert(replica.tag()) || *replica == me || !members.is_folded(*replica));
        self.cleared.retain(|replica| !members.is_folded(*replica));
        for id in self.store.partition_ids() {
            if let Some(mut partition) = self.store.lock(id) {
                partition.forget_reports(|replica| members.is_folded(replica));
            }
        }
    }

    /// Sends away a joiner of whose node more former replicas are named than may be, because its clock goes back again and
    /// again: it comes back above all of them, and they can be folded. Returns whether it does.
    pub(super) fn sends_back(&mut self, link: LinkId) -> bool {
        let Some(session) = self.session_mut(link) else { return false };
        let replica = session.replica;
        if self.members.unfolded_beside(replica) <= INCARNATIONS_MAX {
            return false;
        }
        self.close(
            link,
            CloseCode::Removed,
            "too many former replicas of this node are named; it must go on above them",
        );
        true
    }

    /// Returns an id above all that are known of this node, whatever its clock says, and by how much is drawn: its twin may
    /// know the same, and come back in the same millisecond.
    pub(super) fn next_replica(&mut self, now: Now) -> ReplicaId {
        let fresh = ReplicaId::new(self.me.node, now.wall_ms);
        let known = [&self.members, &self.hearsay].into_iter().filter_map(|set| set.latest(fresh.tag()));
        let mine = Some(self.me.replica).filter(|me| me.tag() == fresh.tag());
        let latest = known.chain(mine).max();
        sometimes!(CameBackAboveItsClock, if latest.is_some_and(|latest| latest >= fresh));
        let latest = latest.unwrap_or(fresh);
        let ahead = self.rng.u64(if planted!(TwinsAlike) { 0..1 } else { 0..AHEAD_MAX });
        latest.after(now.wall_ms).ahead(ahead)
    }
}
