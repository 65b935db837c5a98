//! Whether who is called unreachable was silent to others, too, and who is given up to a majority, for long enough.
//!
//! # Invariants
//! * What others suspected is known from what their nodes said when they said it, not from what the accuser believes.
//! * Of two members neither has anybody to ask: there nothing is held against the accuser.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use crate::clock::Mono;
use crate::id::ReplicaId;
use crate::membership::Reach;
use crate::node::Event;

/// How long a suspicion that has ended may still be on its way to somebody, or be kept there.
const LATELY: Duration = Duration::from_secs(20);

/// Who suspects whom, and what was found wrong with that.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// When an observer last heard again of somebody it had suspected; nothing while it still does.
    ended: BTreeMap<(ReplicaId, ReplicaId), Option<Mono>>,
    /// From when to when an observer last called somebody unreachable.
    gone: BTreeMap<(ReplicaId, ReplicaId), (Mono, Option<Mono>)>,
    /// Whom each observer counts as members.
    known: BTreeMap<ReplicaId, BTreeSet<ReplicaId>>,
    /// Who was given up.
    given_up: BTreeSet<ReplicaId>,
    rash: Option<Violation>,
}

impl SimCluster {
    /// Checks that nobody was ever called unreachable by a node that hears nobody, or that nobody agreed with.
    ///
    /// # Errors
    /// [`Violation`] of the first.
    pub fn all_accused_rightly(&self) -> Result<(), Violation> {
        self.suspicions.rash.clone().map_or(Ok(()), Err)
    }

    /// Tells whether there is a good reason for a replica to be removed that nobody ordered removed.
    #[must_use]
    pub fn may_be_lost(&self, replica: ReplicaId) -> bool {
        self.suspicions.given_up.contains(&replica) || self.is_orphan(replica)
    }

    /// A node has told its users what it knows of another.
    pub(super) fn note_suspicion(&mut self, at: usize, event: &Event) {
        let Some(by) = self.node(at).map(|node| node.me().replica) else { return };
        let (now, seen) = (self.now, &mut self.suspicions);
        if let Event::Up { replica, .. } | Event::Suspect { replica, .. } | Event::LinkDown { replica, .. } = event {
            seen.gone.entry((by, *replica)).and_modify(|(_, end)| *end = end.or(Some(now)));
        }
        let found = if let Event::Up { replica, .. } = event {
            seen.ended.entry((by, *replica)).and_modify(|ended| *ended = Some(now));
            None
        } else if let Event::Suspect { replica, .. } | Event::LinkDown { replica, .. } = event {
            seen.ended.insert((by, *replica), None);
            None
        } else if let Event::Unreachable { replica, .. } = event {
            seen.ended.insert((by, *replica), None);
            seen.gone.insert((by, *replica), (now, None));
            self.rashness(at, by, *replica)
        } else if let Event::GivenUp { replica, .. } = event {
            seen.given_up.insert(*replica);
            self.haste(at, by, *replica)
        } else {
            if let Event::MemberJoined { replica } = event {
                seen.known.entry(by).or_default().insert(*replica);
            } else if let Event::MemberRemoved { replica } = event {
                seen.known.entry(by).or_default().remove(replica);
            }
            None
        };
        let found = found.filter(|_| self.is_honest(at));
        self.suspicions.rash = self.suspicions.rash.take().or(found);
    }

    /// Who was given up must have been unreachable for long to a majority of those the observer counts as members.
    fn haste(&self, at: usize, by: ReplicaId, of: ReplicaId) -> Option<Violation> {
        let after = self.config.node.membership.forget_after?;
        let known = self.suspicions.known.get(&by)?;
        let long = |(since, end): (Mono, Option<Mono>)| {
            let lately = end.is_none_or(|end| self.now.since(end) <= LATELY);
            lately && end.unwrap_or(self.now).since(since) >= after
        };
        let votes = known.iter().filter(|voter| self.suspicions.gone.get(&(**voter, of)).is_some_and(|one| long(*one)));
        let votes = votes.count();
        if votes * 2 > known.len() {
            return None;
        }
        let what = format!("r{at} gives {of} up, which {votes} of {} members had not heard for {after:?}", known.len());
        Some(Violation::new(Invariant::Liveness, what))
    }

    fn rashness(&self, at: usize, observer: ReplicaId, accused: ReplicaId) -> Option<Violation> {
        let node = self.node(at)?;
        let others = || node.members().live().map(|(replica, _)| replica).filter(|replica| *replica != observer);
        if others().count() < 2 {
            return None;
        }
        let rash = |why: &str| {
            let what = format!("r{at} calls {accused} unreachable {why}");
            Some(Violation::new(Invariant::Liveness, what))
        };
        if others().all(|other| node.reach(other) != Some(Reach::Up)) {
            return rash("and hears nobody");
        }
        let lately = |ended: &Option<Mono>| ended.is_none_or(|at| self.now.since(at) <= LATELY);
        let mut agree =
            self.suspicions.ended.iter().filter(|((by, of), ended)| *by != observer && *of == accused && lately(ended));
        let liar = || self.hosts.iter().any(|host| host.lies);
        if agree.next().is_none() && !liar() {
            return rash("although nobody else suspects it");
        }
        None
    }
}
