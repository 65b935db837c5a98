//! Whether who is called unreachable was silent to others, too, who is given up to a majority, for long enough, and who is
//! called a twin one.
//!
//! # Invariants
//! * What others suspected is known from what their nodes said when they said it, not from what the accuser believes.
//! * Of two members neither has anybody to ask: there nothing is held against the accuser.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use super::host::Host;
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
    /// From when to when an observer last called somebody unreachable, and whom it counted as members when it began to.
    gone: BTreeMap<(ReplicaId, ReplicaId), Gone>,
    /// Whom each observer counts as members.
    known: BTreeMap<ReplicaId, BTreeSet<ReplicaId>>,
    /// Who gave up whom.
    given_up: BTreeSet<(ReplicaId, ReplicaId)>,
    rash: Option<Violation>,
}

/// An absence as one observer saw it.
#[derive(Debug)]
struct Gone {
    since: Mono,
    until: Option<Mono>,
    known: BTreeSet<ReplicaId>,
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
        self.suspicions.given_up.iter().any(|(_, of)| *of == replica) || self.is_orphan(replica)
    }

    /// A node has told its users what it knows of another.
    pub(super) fn note_suspicion(&mut self, at: usize, event: &Event) {
        let Some(by) = self.node(at).map(|node| node.me().replica) else { return };
        let (now, seen) = (self.now, &mut self.suspicions);
        if let Event::Up { replica, .. } | Event::Suspect { replica, .. } | Event::LinkDown { replica, .. } = event {
            seen.gone.entry((by, *replica)).and_modify(|gone| gone.until = gone.until.or(Some(now)));
        }
        let found = if let Event::Up { replica, .. } = event {
            seen.ended.entry((by, *replica)).and_modify(|ended| *ended = Some(now));
            None
        } else if let Event::Suspect { replica, .. } | Event::LinkDown { replica, .. } = event {
            seen.ended.insert((by, *replica), None);
            None
        } else if let Event::Unreachable { replica, .. } = event {
            seen.ended.insert((by, *replica), None);
            let known = seen.known.get(&by).cloned().unwrap_or_default();
            seen.gone.insert((by, *replica), Gone { since: now, until: None, known });
            self.rashness(at, by, *replica)
        } else if let Event::GivenUp { replica, .. } = event {
            seen.given_up.insert((by, *replica));
            self.haste(at, by, *replica)
        } else if let Event::Twin { replica } = event {
            self.mistaken_twin(at, *replica)
        } else {
            let known = seen.known.entry(by).or_default();
            if let Event::MemberRemoved { replica, .. } = event {
                known.remove(replica);
            }
            let joined = if let Event::MemberJoined { replica, .. } = event { Some(*replica) } else { None };
            let twice = joined.filter(|replica| !known.insert(*replica));
            let what = |replica| format!("r{at} is told twice that {replica} joined");
            twice.map(|replica| Violation::new(Invariant::Membership, what(replica)))
        };
        let found = found.filter(|_| self.is_honest(at));
        self.suspicions.rash = self.suspicions.rash.take().or(found);
    }

    /// Who was given up must have been unreachable for long to a majority of those the observer counted as members when that
    /// began; and nobody who was given up gives others up.
    fn haste(&self, at: usize, by: ReplicaId, of: ReplicaId) -> Option<Violation> {
        let after = self.config.node.membership.forget_after?;
        let Suspicions { gone, given_up, .. } = &self.suspicions;
        let broken = |what: String| Some(Violation::new(Invariant::Liveness, what));
        if given_up.contains(&(of, by)) {
            return broken(format!("r{at} gives {of} up, which has given it up"));
        }
        let electorate = &gone.get(&(by, of))?.known;
        let long = |absence: &Gone| {
            let lately = absence.until.is_none_or(|until| self.now.since(until) <= LATELY);
            lately && absence.until.unwrap_or(self.now).since(absence.since) >= after
        };
        let votes = electorate.iter().filter(|voter| gone.get(&(**voter, of)).is_some_and(long)).count();
        if votes * 2 > electorate.len() {
            return None;
        }
        broken(format!(
            "r{at} gives {of} up, which {votes} of {} members had not heard for {after:?}",
            electorate.len()
        ))
    }

    /// Whoever is told of another process with its identity must have had one.
    fn mistaken_twin(&self, at: usize, twin: ReplicaId) -> Option<Violation> {
        let node = |host: &Host| host.identity.node;
        let me = node(self.hosts.get(at)?);
        let alone = self.hosts.iter().filter(|host| node(host) == me).count() == 1;
        let liar = self.hosts.iter().any(|host| host.lies);
        let what = || format!("r{at} is told that {twin} has its identity, and no other process ever had");
        (alone && !liar).then(|| Violation::new(Invariant::Membership, what()))
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
        // For who was suspended no time has passed: what it knows may be as old.
        let lately = LATELY + self.hosts.get(at).map(|host| host.slept).unwrap_or_default();
        let lately = |ended: &Option<Mono>| ended.is_none_or(|at| self.now.since(at) <= lately);
        let suspects = |by: ReplicaId| self.suspicions.ended.get(&(by, accused)).is_some_and(lately);
        let heard: Vec<ReplicaId> = others().filter(|other| node.reach(*other) == Some(Reach::Up)).collect();
        let agree = heard.iter().filter(|other| suspects(**other)).count();
        // Who has not said anything yet is not asked, so one must be enough here where several are heard.
        let liar = || self.hosts.iter().any(|host| host.lies);
        if agree == 0 && !liar() {
            return rash("although nobody it hears suspects it");
        }
        None
    }
}
