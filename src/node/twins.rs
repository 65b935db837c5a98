//! Two processes of one node: both are told.
//!
//! When one of them joins, the other's replica is removed. Whether a process is left behind that replica nobody can tell
//! from its silence, nor from what it had sent before: most often it is the one that was restarted. So a link of a removed
//! replica whose node has another one is not closed at once, by neither side: it *parts*. The removed one says its last
//! words, that it was removed, which only a process that lives can say. If they name the other one, and that one is heard
//! after this link came up, both lived at the same time, and both are told.
//!
//! The two may find each other, and nobody else. Then the newer one copies the older, which writes nothing more from then on
//! that the other has joined, and makes way when that has everything.
//!
//! # Invariants
//! * Nothing but last words, and the answer, is taken from a link that parts (R-FENCE), and it parts for a few seconds at
//!   most.
//! * Who was restarted is told of no twin.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Mono, Now};
use crate::crdt::{Ctx, MemberSet};
use crate::id::{NodeId, ReplicaId};
use crate::node::Node;
use crate::node::event::Event;
use crate::node::input::LinkId;
use crate::node::link::Session;
use crate::node::members::COPIES_AFTER;
use crate::node::output::{CloseCode, Output};
use crate::probe::{planted, sometimes};
use crate::wire::Control;

/// How long a link parts: several round trips of a slow path.
const PARTING_MAX: Duration = Duration::from_secs(3);
/// How long a process that has joined is given to take in all that the older one of its node has.
const HEIR_AFTER: Duration = Duration::from_secs(30);
/// How long a process that was being let in by the older one of its node may be away before it counts as gone. It may have
/// joined through somebody else meanwhile, and would lose its place.
const LET_IN_FOR: Duration = Duration::from_secs(60);
/// Links that part at the same time. Further ones are closed at once.
const PARTINGS_MAX: usize = 64;
/// Twins that were told of: of further ones nothing is said.
const TWINS_MAX: usize = 256;

/// A link whose one side was removed while its node has another replica.
#[derive(Debug)]
struct Parting {
    node: NodeId,
    /// The peer's replica.
    replica: ReplicaId,
    since: Mono,
    until: Mono,
    /// The replicas of its node that are named in the peer's last words.
    said: Option<BTreeSet<ReplicaId>>,
}

impl Parting {
    /// Tells whether the last words name a replica of the same node.
    fn names(&self, replica: ReplicaId) -> bool {
        self.said.as_ref().is_some_and(|said| said.contains(&replica))
    }
}

/// Another process of this node that has joined, which takes its place.
#[derive(Debug)]
struct Heir {
    replica: ReplicaId,
    /// When it was last linked.
    linked: Mono,
    /// When it is left with what it has.
    until: Mono,
}

/// Another process of this node that is a member and may be gone.
#[derive(Debug)]
struct Watched {
    replica: ReplicaId,
    /// When it was last linked.
    linked: Mono,
    /// How long it is waited for without a link.
    patience: Duration,
}

/// What is known of other processes with the identity of a node.
#[derive(Debug, Default)]
pub(super) struct Twins {
    heir: Option<Heir>,
    watched: Option<Watched>,
    partings: BTreeMap<LinkId, Parting>,
    /// Those of this node that were told of.
    known: BTreeSet<ReplicaId>,
}

impl Node {
    /// Another process of this node has joined. If that was later than this one, it takes its place once it has everything:
    /// nothing more is written here.
    pub(super) fn meet_twin(&mut self, now: Now, replica: ReplicaId) {
        if self.twins.heir.is_none() && self.latest_of(self.me.node) == Some(replica) {
            sometimes!(HeirMet);
            self.twins.heir = Some(Heir { replica, linked: now.mono, until: now.mono.plus(HEIR_AFTER) });
            self.set_gate();
        }
    }

    /// Another process of this node copies this one, which counts it as a member from now on.
    pub(super) fn let_twin_in(&mut self, now: Now, replica: ReplicaId) {
        self.twins.watched = Some(Watched { replica, linked: now.mono, patience: LET_IN_FOR });
    }

    /// This node has joined. Another process of it that it copied may have ended meanwhile.
    pub(super) fn watch_older_twin(&mut self, now: Now) {
        let older = self.members.of_node(self.me.node).find(|replica| *replica != self.me.replica);
        let watched = |replica| Watched { replica, linked: now.mono, patience: COPIES_AFTER };
        self.twins.watched = older.map(watched);
    }

    /// Removes a process of this node that was copied, or let in, and has gone: with two copies a node counts for no level.
    fn forget_lost_twin(&mut self, now: Now) {
        let Some(watched) = &self.twins.watched else { return };
        let (replica, linked, patience) = (watched.replica, watched.linked, watched.patience);
        if self.members.get(replica).is_none() || self.is_removed() {
            self.twins.watched = None;
        } else if self.is_linked(replica) {
            self.twins.watched = Some(Watched { replica, linked: now.mono, patience });
        } else if now.mono.since(linked) >= patience {
            self.twins.watched = None;
            self.remove(now, replica);
        }
    }

    /// Tells whether another process takes the place of this one.
    pub(super) fn has_heir(&self) -> bool {
        self.twins.heir.is_some()
    }

    /// Makes way for another process of this node that has everything now, or whose time is up; if it is gone, this one goes on.
    fn yield_to_heir(&mut self, now: Now) {
        let Some(heir) = &self.twins.heir else { return };
        let (replica, linked, is_over) = (heir.replica, heir.linked, heir.until <= now.mono);
        let session = self.sessions().find(|(_, s)| s.replica == replica).map(|(_, session)| session);
        let has_all = |session: &Session| {
            let has = |(id, ctx): &(_, Ctx)| session.peer.known(*id).is_some_and(|known| known.includes(ctx));
            self.contexts().iter().all(has)
        };
        let (is_here, has_all) = (session.is_some(), session.is_some_and(has_all));
        if is_here && (has_all || is_over) {
            self.remove(now, self.me.replica);
        }
        if self.is_removed() || now.mono.since(linked) >= PARTING_MAX {
            self.twins.heir = None;
            self.set_gate();
        } else if let Some(heir) = self.twins.heir.as_mut().filter(|_| is_here) {
            heir.linked = now.mono;
        }
    }

    /// Tells a removed replica that its node has another one, and waits for its last words. Returns whether it does: if not,
    /// the link is to be closed.
    pub(super) fn part(&mut self, now: Now, link: LinkId, replica: ReplicaId) -> bool {
        let Some(node) = self.links.get(&link).map(|l| l.identity.node) else { return false };
        let has_another = self.members.of_node(node).any(|other| other != replica);
        if !has_another || self.twins.partings.len() >= PARTINGS_MAX {
            return false;
        }
        let (hlc, members) = (self.store.clock().last(), Some(self.members.clone()));
        self.send_control(link, &Control::Report { hlc, changed: Vec::new(), members });
        self.put_aside(now, link, replica);
        true
    }

    /// This replica was removed: leaves its links open for a moment if its node has another one.
    pub(super) fn part_from_all(&mut self, now: Now) {
        let has_another = self.members.of_node(self.me.node).any(|other| other != self.me.replica);
        if has_another {
            let peers: Vec<_> = self.sessions().map(|(link, session)| (link, session.replica)).collect();
            peers.into_iter().take(PARTINGS_MAX).for_each(|(link, replica)| self.put_aside(now, link, replica));
        }
    }

    fn put_aside(&mut self, now: Now, link: LinkId, replica: ReplicaId) {
        let Some((node, since)) = self.links.get(&link).map(|l| (l.identity.node, l.since)) else { return };
        self.drop_link(link);
        let until = now.mono.plus(PARTING_MAX);
        self.twins.partings.insert(link, Parting { node, replica, since, until, said: None });
    }

    /// Tells whether a link parts, and listens to what is said there.
    pub(super) fn is_parting(&mut self, now: Now, link: LinkId, bytes: &Bytes) -> bool {
        if !self.twins.partings.contains_key(&link) {
            return false;
        }
        match self.decoder.decode_control(bytes, &self.limits) {
            Ok(Control::Report { members: Some(members), .. }) => self.hear_last_words(now, link, &members),
            Ok(Control::Twin { replica }) => self.on_twin(replica),
            Ok(_) | Err(_) => {}
        }
        true
    }

    /// If a removed replica says itself that it was removed its process lives.
    pub(super) fn hear_last_words(&mut self, now: Now, link: LinkId, said: &MemberSet) {
        if let Some(parting) = self.twins.partings.get_mut(&link)
            && said.is_removed(parting.replica)
        {
            parting.said = Some(said.of_node(parting.node).collect());
            self.judge_partings(now);
        }
    }

    /// Tells two processes of each other that live at the same time, and closes links that have parted for long enough.
    pub(super) fn judge_partings(&mut self, now: Now) {
        self.forget_lost_twin(now);
        self.yield_to_heir(now);
        let links: Vec<LinkId> = self.twins.partings.keys().copied().collect();
        for link in links {
            let Some(parting) = self.twins.partings.get(&link) else { continue };
            let replica = parting.replica;
            let (has_said, is_over) = (parting.said.is_some(), parting.until <= now.mono);
            let is_mine = parting.names(self.me.replica);
            let other = self.other_alive(parting, is_over && planted!(TwinPresumed));
            if is_mine {
                self.send_control(link, &Control::Twin { replica: self.me.replica });
                self.on_twin(replica);
            } else if let Some((other_link, other)) = other {
                self.send_control(link, &Control::Twin { replica: other });
                self.send_control(other_link, &Control::Twin { replica });
            }
            if is_mine || other.is_some() || is_over {
                sometimes!(NoLastWords, if !has_said);
                self.end_parting(link);
            }
        }
    }

    /// Returns another replica of a node that this one named in its last words, and that was heard since the link to this one
    /// came up.
    fn other_alive(&self, parting: &Parting, presumed: bool) -> Option<(LinkId, ReplicaId)> {
        let others =
            self.sessions().filter(|(_, s)| self.members.get(s.replica).is_some_and(|m| m.node == parting.node));
        let mut heard = others.filter(|(_, s)| s.beats.heard_at() > parting.since);
        heard.find(|(_, s)| presumed || parting.names(s.replica)).map(|(id, s)| (id, s.replica))
    }

    /// Another process of this node lives.
    pub(super) fn on_twin(&mut self, replica: ReplicaId) {
        if replica != self.me.replica && self.twins.known.len() < TWINS_MAX && self.twins.known.insert(replica) {
            sometimes!(TwinTold);
            self.event(Event::Twin { replica });
        }
    }

    /// Closes all links that part.
    pub(super) fn end_partings(&mut self) {
        let links: Vec<LinkId> = self.twins.partings.keys().copied().collect();
        links.into_iter().for_each(|link| self.end_parting(link));
    }

    fn end_parting(&mut self, link: LinkId) {
        let Some(parting) = self.twins.partings.remove(&link) else { return };
        let code = if self.is_removed() {
            CloseCode::Goodbye
        } else if self.members.bars(parting.replica, parting.node, true) {
            CloseCode::Expelled
        } else {
            CloseCode::Removed
        };
        let reason = "a replica was removed from the cluster, and another process of its node is a member".to_owned();
        self.out.push_back(Output::Close { link, code, reason });
    }

    /// A link has ended that may have been about to part.
    pub(super) fn has_parted(&mut self, link: LinkId) {
        self.twins.partings.remove(&link);
    }
}
