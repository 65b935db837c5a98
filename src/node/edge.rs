//! What an edge gives back, and when it makes way for who holds everything.
//!
//! # Invariants
//! * Only registers are given back, that every member has, that are older than `collect_after`, and that nobody has read or
//!   written here for a while: none of them before that while has passed since this node joined.
//! * An edge founds no cluster and is no donor. Where a node that holds everything can only be let in by edges, those begin
//!   anew, so that it founds and they join it.

use crate::clock::{Mono, Now};
use crate::id::ReplicaId;
use crate::node::Node;
use crate::node::leave::Drain;
use crate::node::link::Session;
use crate::probe::{planted, sometimes};

/// What an edge keeps in mind.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// When the older half of what was read is forgotten.
    turn: Option<Mono>,
    /// How often it was, since this replica joined.
    turns: u32,
    /// Where the look at each partition goes on.
    at: Vec<u32>,
    /// Since when somebody who holds everything, or will, waits for this node to make way.
    called_since: Option<Mono>,
}

impl Node {
    /// Tells whether this node is an edge.
    #[must_use]
    pub fn is_edge(&self) -> bool {
        self.config.node.edge.is_some()
    }

    /// A replica has joined: what is read from now on is what it keeps.
    pub(super) fn begin_keeping(&mut self) {
        self.keeping = Keeping::default();
    }

    /// Gives back what is not read here, a little of each partition at a time.
    pub(super) fn keep_warm(&mut self, now: Now) {
        let Some(edge) = self.config.node.edge.as_ref().filter(|_| self.join.is_joined()) else { return };
        let Some(warm) = self.store.warm() else { return };
        let next = now.mono.plus(edge.keep_for / 2);
        if *self.keeping.turn.get_or_insert(next) <= now.mono {
            warm.turn();
            self.keeping.turn = Some(next);
            self.keeping.turns = self.keeping.turns.saturating_add(1);
        }
        if self.keeping.turns < 2 {
            return;
        }
        let before_ms = self.collect_before_ms(now);
        self.keeping.at.resize(self.store.partition_count(), 0);
        for (id, at) in self.store.partition_ids().zip(&mut self.keeping.at) {
            let Some(mut partition) = self.store.lock(id) else { continue };
            let (evicted, next) = partition.evict_cold(*at, warm, self.store.spaces(), before_ms);
            *at = next.unwrap_or(0);
            sometimes!(ColdEvicted, if evicted > 0);
            self.stats.edge.evicted += evicted;
        }
    }

    /// Begins anew where nobody who holds everything can be reached but somebody who waits for that: a node that has not
    /// joined and finds only edges, or one whose history does not have what is stable here.
    pub(super) fn make_way(&mut self, now: Now) {
        let ends = self.stopping || self.drain != Drain::No;
        if !self.is_edge() || !self.join.is_joined() || self.is_removed() || ends {
            return;
        }
        let whole = || self.sessions().map(|(_, session)| session).filter(|session| session.up && !session.is_edge);
        let fits = |session: &Session| session.joined && self.has_what_is_stable(session);
        let is_called = whole().next().is_some() && !whole().any(fits) && !self.is_served_from_afar();
        if !is_called || planted!(EdgeNeverMakesWay) {
            self.keeping.called_since = None;
            return;
        }
        let since = *self.keeping.called_since.get_or_insert(now.mono);
        if now.mono.since(since) >= self.config.membership.solo_after {
            sometimes!(EdgeMadeWay);
            self.keeping.called_since = None;
            self.begin_again(now);
        }
    }

    /// Tells whether a peer has reported all that is stable here.
    pub(super) fn has_what_is_stable(&self, session: &Session) -> bool {
        let has = |id| {
            let known = session.peer.known(id);
            self.store.read(id).is_some_and(|p| known.is_some_and(|known| known.includes(p.frontier())))
        };
        self.store.partition_ids().all(has)
    }

    /// Tells whether a member hears one that holds everything and that is not heard here. What this node makes of it
    /// itself does not matter: those that have not joined are heard as well, and have nothing to say about anybody.
    fn is_served_from_afar(&self) -> bool {
        let others = self.members.live().filter(|(replica, m)| *replica != self.me.replica && !m.profile.is_edge);
        let is_heard = |replica: &ReplicaId| self.sessions().any(|(_, s)| s.up && s.replica == *replica);
        let mut afar = others.map(|(replica, _)| replica).filter(|replica| !is_heard(replica));
        let hears = |session: &Session, replica| {
            session.joined && session.up && session.suspects.as_ref().is_some_and(|silent| !silent.contains(&replica))
        };
        afar.any(|replica| self.sessions().any(|(_, session)| hears(session, replica)))
    }
}
