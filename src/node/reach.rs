//! Who can be reached, as the node puts it together from its links.
//!
//! # Invariants
//! * Only a node that has joined judges: before that it does not know the members, and after its removal it hears nobody.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Now;
use crate::id::{RegionId, ReplicaId};
use crate::membership::{Change, Heard, Liveness, Reach};
use crate::node::Node;
use crate::node::event::Event;
use crate::node::link::Session;
use crate::probe::{planted, sometimes};

/// How much longer, as a part of the time itself, it may take until all who agree that a member is gone for too long do so:
/// not everybody lost it at the same moment.
const UNDECIDED: u32 = 8;

impl Node {
    /// Returns what is known of whether a member can be reached; `None` for one that is no member, for this node, and at a
    /// node that has not joined or was removed.
    #[must_use]
    pub fn reach(&self, replica: ReplicaId) -> Option<Reach> {
        self.liveness.of(replica)
    }

    /// Tells whether there is a link to a replica, on which both have said hello.
    #[must_use]
    pub fn is_linked(&self, replica: ReplicaId) -> bool {
        self.sessions().any(|(_, session)| session.replica == replica)
    }

    /// Tells whether none of several other members is heard.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.liveness.is_isolated()
    }

    /// Judges who can be reached, and tells of every change.
    pub(super) fn judge_members(&mut self, now: Now) {
        if self.is_removed() {
            self.liveness = Liveness::default();
            self.outages.interrupt(now.mono);
            return;
        }
        if !self.join.is_joined() {
            return;
        }
        let m = &self.config.membership;
        let members: BTreeSet<ReplicaId> =
            self.members.live().map(|(replica, _)| replica).filter(|replica| *replica != self.me.replica).collect();
        let sessions = self.links.values().filter_map(|link| link.session.as_deref());
        let heard: Vec<Heard<'_>> = sessions
            .map(|session| Heard {
                replica: session.replica,
                at: session.beats.heard_at(),
                patience: session.beats.patience(m.suspect_after, m.beat_every),
                suspects: session.suspects.as_ref().filter(|_| session.joined),
            })
            .collect();
        let changes = self.liveness.judge(now.mono, &members, &heard, m.suspect_after);
        for change in changes {
            self.tell(change);
        }
        self.remove_the_given_up(now);
        self.note_outages(now);
    }

    /// Notes which regions are out, so that whoever looks later can tell.
    fn note_outages(&mut self, now: Now) {
        let mut regions: BTreeMap<&RegionId, Reach> = BTreeMap::new();
        for (replica, member) in self.members.live() {
            let reach = self.liveness.of(replica).unwrap_or_default();
            regions.entry(&member.region).and_modify(|best| *best = reach.min(*best)).or_insert(reach);
        }
        self.outages.note(now.mono, &regions);
    }

    /// Returns the members that this node votes to remove.
    pub(super) fn given_up(&self, now: Now) -> BTreeSet<ReplicaId> {
        let after = self.config.membership.forget_after.filter(|_| self.join.is_joined());
        let after = if planted!(GivesUpAtOnce) { after.map(|after| after / 4) } else { after };
        after.map(|after| self.liveness.gone_for(now.mono, after)).unwrap_or_default()
    }

    /// Removes whom a majority votes to remove, this node among them, of all that were members when it went, itself
    /// included. Half is not enough, and newcomers do not count: both parts of a cluster that is split in two would remove
    /// each other.
    fn remove_the_given_up(&mut self, now: Now) {
        let patience = self.config.membership.forget_after.map(|after| after.saturating_add(after / UNDECIDED));
        let long_gone = patience.map(|long| self.liveness.gone_for(now.mono, long)).unwrap_or_default();
        for replica in self.given_up(now) {
            let electorate = self.liveness.electorate(replica);
            let agrees = |session: &&Session| {
                let may_vote = electorate.contains(&session.replica) && self.reach(session.replica) == Some(Reach::Up);
                may_vote && session.gives_up.contains(&replica)
            };
            let votes = 1 + self.sessions().map(|(_, session)| session).filter(agrees).count();
            let members = 1 + electorate.len();
            let enough = votes * 2 > members || (planted!(HalfGivesUp) && votes * 2 == members);
            let Some(member) = self.members.get(replica) else { continue };
            let (node, region) = (member.node, member.region.clone());
            if !enough {
                sometimes!(VotedInVain);
                if long_gone.contains(&replica) && self.liveness.tell_once(replica) {
                    self.event(Event::NotGivenUp { node, region, replica, votes, of: members });
                }
                continue;
            }
            sometimes!(GivenUp);
            self.event(Event::GivenUp { node, region, replica });
            self.remove(now, replica);
        }
    }

    fn tell(&mut self, change: Change) {
        let event = match change {
            Change::Isolated(true) => Event::Isolated,
            Change::Isolated(false) => Event::NotIsolated,
            Change::Reach(replica, reach) => {
                let Some(member) = self.members.get(replica) else { return };
                let (node, region) = (member.node, member.region.clone());
                match reach {
                    Reach::Up => Event::Up { node, region, replica },
                    Reach::Suspected => Event::Suspect { node, region, replica },
                    Reach::Cut => Event::LinkDown { node, region, replica },
                    Reach::Unreachable => Event::Unreachable { node, region, replica },
                }
            }
        };
        self.event(event);
    }
}
