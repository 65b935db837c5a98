//! Whether who is called unreachable was silent to others, too.
//!
//! # Invariants
//! * What others suspected is known from what their nodes said when they said it, not from what the accuser believes.
//! * Of two members neither has anybody to ask: there nothing is held against the accuser.

use std::collections::BTreeMap;
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

    /// A node has told its users what it knows of another.
    pub(super) fn note_suspicion(&mut self, at: usize, event: &Event) {
        let Some(observer) = self.node(at).map(|node| node.me().replica) else { return };
        if let Event::Up { replica, .. } = event {
            self.suspicions.ended.entry((observer, *replica)).and_modify(|ended| *ended = Some(self.now));
        } else if let Event::Suspect { replica, .. } | Event::LinkDown { replica, .. } = event {
            self.suspicions.ended.insert((observer, *replica), None);
        } else if let Event::Unreachable { replica, .. } = event {
            self.suspicions.ended.insert((observer, *replica), None);
            if self.is_honest(at) && self.suspicions.rash.is_none() {
                self.suspicions.rash = self.rashness(at, observer, *replica);
            }
        }
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
