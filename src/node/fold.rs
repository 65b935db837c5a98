//! Old incarnations: what a node was before it was started again is folded away, so that restarts leave nothing behind.
//!
//! # Invariants
//! * What stands for folded events stands for the same ones at everybody.
//! * A floor is below every live replica of its tag, and of the last replica of a node that has no other it says nothing.
//! * While more of a node's replicas are named than may be, none is let in that is not above them.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Now;
use crate::crdt::{Ctx, INCARNATIONS_MAX};
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;
use crate::node::input::LinkId;
use crate::node::link::Session;
use crate::node::output::CloseCode;
use crate::probe::{planted, sometimes};

/// How far above the lowest it may be an id is drawn at most, in milliseconds. A process that is restarted so soon after it
/// came back may begin below its floor, and comes back once more.
const AHEAD_MAX: u64 = 1 << 14;

impl Node {
    /// Returns a number that grows whenever something is folded here.
    #[must_use]
    pub fn folds(&self) -> u64 {
        self.folds
    }

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

    /// A peer has reported everything and knows these members. If they are those known here, what waited for it may go.
    pub(super) fn on_told(&mut self, now: Now, link: LinkId, digest: u64) {
        let Some(session) = self.session_mut(link) else { return };
        session.hears = digest;
        let floors = &self.members.floors;
        if digest == self.members.digest() {
            let is_foldable =
                |id: &PartitionId| self.store.read(*id).is_some_and(|p| !p.ctx().foldable(floors).is_empty());
            self.touched.extend(self.store.partition_ids().filter(is_foldable));
            self.timers.start_report(now.mono, self.config.replication.report_every);
        }
    }

    /// Folds what a partition has seen of removed replicas, once nobody can ever see anything else of them: every member is
    /// linked, knows the same members, has told everything it had seen when it came to know them, and that is the same of
    /// these replicas as here; and all of it is stable.
    pub(super) fn fold(&mut self, now: Now, id: PartitionId) {
        let floors = self.foldable(id);
        if floors.is_empty() {
            return;
        }
        let (me, digest) = (self.me.replica, self.members.digest());
        let told = |replica: ReplicaId| {
            let mut sessions = self.sessions().map(|(_, session)| session);
            sessions.find(|s| s.replica == replica && s.joined && s.hears == digest)?.peer.known(id)
        };
        let others: Option<Vec<&Ctx>> =
            self.members.live().map(|(replica, _)| replica).filter(|replica| *replica != me).map(told).collect();
        let Some(mut partition) = self.store.lock(id) else { return };
        let mut folded = false;
        for floor in floors {
            let mine = partition.ctx().sum_upto(floor);
            let agrees = |ctx: &Ctx| ctx.sum_upto(floor) == mine;
            let all = mine.is_some() && others.as_ref().is_some_and(|others| others.iter().all(|ctx| agrees(ctx)));
            if (all && agrees(partition.frontier())) || planted!(FoldsEarly) {
                sometimes!(Folded);
                partition.fold(floor);
                folded = true;
            }
        }
        drop(partition);
        if folded {
            self.has_folded(now, id);
        }
    }

    fn foldable(&self, id: PartitionId) -> Vec<ReplicaId> {
        self.store.read(id).map(|p| p.ctx().foldable(&self.members.floors)).unwrap_or_default()
    }

    /// Takes over the marks of a partition that members have made, where the same is folded there as was seen here: nobody
    /// can ever see anything else of it, whoever may be out of reach of this node. It is stable, for it was where the mark was
    /// made. One that founded apart may lack it all the same: a peer that does is given it first.
    pub(super) fn adopt_marks(&mut self, now: Now, id: PartitionId) {
        if self.foldable(id).is_empty() {
            return;
        }
        let members = self.sessions().filter(|(_, s)| s.joined && self.members.get(s.replica).is_some());
        let known: Vec<&Ctx> = members.filter_map(|(_, s)| s.peer.known(id)).collect();
        let marks =
            known.iter().flat_map(|ctx| ctx.iter()).filter(|(at, seen)| seen.is_mark() && self.members.is_folded(*at));
        let marks: BTreeMap<ReplicaId, u64> = marks.map(|(at, seen)| (at, seen.sum(at))).collect();
        let before_ms = self.collect_before_ms(now);
        let Some(mut partition) = self.store.lock(id) else { return };
        let mut adopted = false;
        for (at, sum) in marks {
            let is_news = !partition.ctx().foldable(&BTreeMap::from([(at.tag(), at)])).is_empty();
            let all_have = || known.iter().all(|ctx| ctx.sum_upto(at).is_none_or(|has| has == sum));
            if is_news && partition.ctx().sum_upto(at) == Some(sum) && all_have() {
                sometimes!(MarkAdopted);
                partition.adopt(at, self.store.spaces(), before_ms);
                adopted = true;
            }
        }
        drop(partition);
        if adopted {
            self.has_folded(now, id);
        }
    }

    fn has_folded(&mut self, now: Now, id: PartitionId) {
        self.folds += 1;
        self.links.values_mut().filter_map(|l| l.session.as_deref_mut()).for_each(|s| s.reports.mark(id));
        self.timers.start_report(now.mono, self.config.replication.report_every);
    }

    /// Tells whether a peer has seen nothing of replicas that are folded here that nobody here has: nobody could take it. What
    /// may be folded counts as well: others may have, since this node told them what it has. Where the peer has folded
    /// and this node has not, it is the peer that judges.
    pub(super) fn fits_what_is_folded(&self, session: &Session) -> bool {
        let floors = &self.members.floors;
        let fits = |known: &Ctx, mine: &Ctx| {
            known.fits_marks_of(mine) && floors.values().all(|floor| mine.includes(&known.named_upto(*floor)))
        };
        let is_known =
            |id| session.peer.known(id).zip(self.store.read(id)).is_some_and(|(known, p)| fits(known, p.ctx()));
        self.store.partition_ids().all(is_known)
    }

    /// Removes a joiner that a former donor has given events of removed replicas which nobody here may have and take any
    /// more; tells whether it did. It has written nothing yet and begins again.
    pub(super) fn refuses_history(&mut self, now: Now, link: LinkId, ctxs: &[(PartitionId, Ctx)]) -> bool {
        let is_known = |(id, theirs): &(PartitionId, Ctx)| {
            self.store
                .read(*id)
                .is_some_and(|p| self.members.floors.values().all(|floor| p.ctx().has_all_of(theirs, *floor)))
        };
        let joiner = self.sessions().find(|(id, _)| *id == link).map(|(_, session)| session.replica);
        let Some(joiner) = joiner.filter(|_| !ctxs.iter().all(is_known)) else { return false };
        sometimes!(JoinerBroughtFolded);
        self.remove(now, joiner);
        true
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
        latest.after(now.wall_ms).ahead(self.rng.u64(0..AHEAD_MAX))
    }
}
