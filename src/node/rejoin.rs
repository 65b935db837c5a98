//! Coming back: what a process does whose replica was removed.
//!
//! A removed id is refused for ever, so the process goes on as another replica: it empties its store, joins like any other,
//! and writes again what it had written and nobody else has received. It does so by itself when a majority gave it up, or
//! when its history did not fit that of the others. Whom an operator removed, or whose place a copy of its node has that
//! joined later, waits for [`Input::Rejoin`](super::Input::Rejoin): two copies that both came back would remove each other for
//! ever.
//!
//! # Invariants
//! * Nobody comes back who drains, has left or is about to end.
//! * Who has to come back again and again waits longer each time, up to [`AGAIN_AFTER_MAX`].
//! * What was kept is written again once, by the first replica that joins a cluster. Who founds one has nobody to tell what
//!   was written meanwhile, and writes nothing again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{Mono, Now};
use crate::crdt::MemberSet;
use crate::id::ReplicaId;
use crate::membership::Liveness;
use crate::node::event::{Change, Event};
use crate::node::join::Join;
use crate::node::leave::Drain;
use crate::node::levels::Waits;
use crate::node::output::{CloseCode, Output};
use crate::node::pen::Pen;
use crate::node::quarantine::Quarantine;
use crate::node::{LinkId, Node};
use crate::probe::{planted, sometimes};
use crate::replication::Outbox;
use crate::store::{Estate, Reissued};

/// How long the first return waits: for the last words to leave.
const AGAIN_AFTER_MIN: Duration = Duration::from_millis(100);
/// And one after many in a row.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// Who has been a member for so long has come back for good.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// How long an invalidation that is under way is waited for between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Former replicas that an operator's order against is still respected; with what is waited between two returns, an hour's.
const FORMER_MAX: usize = 128;

/// What a process has been, and is about to be.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// What is to be written again.
    estate: Estate,
    former: VecDeque<ReplicaId>,
    /// When to come back.
    due: Option<Mono>,
    /// An operator has said so.
    ordered: bool,
    /// The present replica was told to stay away.
    barred: bool,
    /// Returns since it was last a member for long.
    returns: u32,
    joined_at: Option<Mono>,
}

impl Past {
    pub(super) fn due(&self) -> Option<Mono> {
        self.due
    }

    pub(super) fn joined(&mut self, now: Mono) {
        self.joined_at = Some(now);
    }

    /// Returns how often it has come back since it was last a member for long.
    pub(super) fn returns(&self) -> u32 {
        self.returns
    }

    fn wait(&mut self, now: Mono) -> Duration {
        if self.joined_at.take().is_some_and(|at| now.since(at) >= SETTLED_AFTER) {
            self.returns = 0;
        }
        let wait = AGAIN_AFTER_MIN.saturating_mul(1 << self.returns.min(16)).min(AGAIN_AFTER_MAX);
        self.returns = self.returns.saturating_add(1);
        wait
    }
}

impl Node {
    /// Tells whether this replica was removed and its process is about to go on as another one.
    #[must_use]
    pub fn is_coming_back(&self) -> bool {
        self.past.due.is_some()
    }

    /// An operator removes a replica: its process stays away until it is told otherwise.
    pub(super) fn expel(&mut self, now: Now, replica: ReplicaId) {
        let mut news = MemberSet::default();
        news.expelled.insert(replica);
        news.remove(replica);
        self.on_members(now, &news);
        if replica == self.me.replica {
            self.stay_away();
        }
    }

    /// A peer has closed a link, or refused one: perhaps because this replica was removed.
    pub(super) fn heed(&mut self, now: Now, code: CloseCode) {
        if code != CloseCode::Removed && code != CloseCode::Expelled {
            return;
        }
        self.past.barred |= code == CloseCode::Expelled;
        self.remove(now, self.me.replica);
        self.stay_away();
    }

    fn stay_away(&mut self) {
        if self.is_barred() && !self.past.ordered {
            self.past.due = None;
        }
    }

    fn is_barred(&self) -> bool {
        let me = self.me.replica;
        let is_barred = self.members.bars(me, self.me.node, self.lived.contains(&me));
        (self.past.barred || is_barred) && !planted!(ExpelledComesBack)
    }

    /// This replica was removed: its process comes back, unless it is to stay away.
    pub(super) fn plan_return(&mut self, now: Now) {
        let goes = self.stopping || self.drain != Drain::No;
        sometimes!(StaysAway, if self.is_barred());
        if goes || !self.config.membership.comes_back || self.is_barred() {
            return;
        }
        self.past.due = Some(now.mono.plus(self.past.wait(now.mono)));
    }

    /// An operator says that this process may go on as another replica.
    pub(super) fn on_rejoin(&mut self, now: Now) {
        if !self.is_removed() || self.stopping || self.has_left() {
            return;
        }
        sometimes!(RejoinedOnOrder);
        self.past.former.clear();
        self.past.ordered = true;
        self.past.due = Some(now.mono);
    }

    /// Stays away if an operator had removed one of this process' former replicas, of which it has not heard.
    pub(super) fn respects(&mut self, now: Now, news: &MemberSet) -> bool {
        let expelled = self.past.former.iter().any(|former| news.expelled.contains(former));
        if expelled && !self.is_removed() && !planted!(ExpelledComesBack) {
            sometimes!(FormerWasExpelled);
            self.expel(now, self.me.replica);
        }
        !self.is_removed()
    }

    /// Goes on as another replica.
    pub(super) fn come_back(&mut self, now: Now) {
        // It has found the gate open and writes on.
        if self.store.is_invalidating() {
            self.past.due = Some(now.mono.plus(LOOK_AGAIN));
            return;
        }
        sometimes!(CameBack);
        sometimes!(CameBackAgain, if self.past.returns > 1);
        self.end_partings();
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.close(link, CloseCode::Goodbye, "this process goes on as another replica");
        }
        let done = self.waits.end_all(&self.store, &self.members, self.expected());
        self.resolve(done);
        self.end_all_reads();
        let replica = self.next_replica(now);
        let former = std::mem::replace(&mut self.me.replica, replica);
        let newest_ms = now.wall_ms.saturating_add(self.max_drift_ms());
        let estate = self.store.begin_anew(self.me.replica, now.wall_ms, newest_ms);
        self.past.estate.add(estate, self.config.membership.reissue_bytes);
        if !self.past.ordered {
            self.past.former.push_back(former);
        }
        self.past.former.drain(..self.past.former.len().saturating_sub(FORMER_MAX));
        (self.past.due, self.past.ordered, self.past.barred) = (None, false, false);
        self.forget_everybody();
        self.set_gate();
        let keys = std::mem::take(&mut self.past.estate.keys);
        if !keys.is_empty() {
            let change = |(keyspace, key)| Change { keyspace, key };
            self.out.push_back(Output::Changed(keys.into_iter().map(change).collect()));
        }
        let kept = u64::try_from(self.past.estate.writes.len()).unwrap_or(u64::MAX);
        self.event(Event::CameBack { former, replica: self.me.replica, kept, lost: self.past.estate.lost });
    }

    /// Knows of nobody any more, as a process that starts.
    fn forget_everybody(&mut self) {
        self.members = MemberSet::default();
        self.hearsay = MemberSet::default();
        self.lived.clear();
        self.cleared.clear();
        self.members_version += 1;
        self.liveness = Liveness::default();
        self.slots.forget();
        (self.untended, self.met) = (true, false);
        self.join = Join::Seeking { since: None };
        self.copied_from = None;
        self.outbox = Outbox::new(self.store.partition_count(), self.config.replication.linger);
        self.waits = Waits::default();
        self.pen = Pen::default();
        self.quarantine = Quarantine::default();
        self.touched.clear();
        self.seen_before.clear();
        self.clock_refused = false;
    }

    /// Writes again what former replicas of this process had written and nobody has received.
    pub(super) fn reissue(&mut self, now: Now, founded: bool) {
        let is_empty = self.past.estate.writes.is_empty() && self.past.estate.lost == 0;
        if is_empty || !self.join.is_joined() || self.is_removed() || self.clock_refused {
            return;
        }
        let estate = std::mem::take(&mut self.past.estate);
        let (mut written, mut outdated, mut lost) = (0, 0, estate.lost);
        let mut changed = Vec::new();
        for write in &estate.writes {
            if founded || planted!(NotReissued) {
                lost += 1;
                continue;
            }
            let others = || self.sessions().map(|(_, session)| &session.peer);
            let (id, done) = self.store.reissue(write, now.wall_ms, |id, dot| others().any(|peer| peer.names(id, dot)));
            match done {
                Reissued::Written(_) => {
                    written += 1;
                    self.outbox.mark([id]);
                    let (keyspace, key) = write.place();
                    let is_watched = self.store.spaces().get(keyspace).is_some_and(|space| space.is_watched());
                    changed.extend(is_watched.then(|| Change { keyspace, key: key.clone() }));
                }
                Reissued::Outdated => outdated += 1,
                Reissued::NoRoom => lost += 1,
            }
        }
        if !changed.is_empty() {
            self.out.push_back(Output::Changed(changed));
        }
        self.event(Event::Reissued { written, outdated, lost });
    }
}
