//! What can happen to a cluster, done: the actions of a plan, and the heal at its end.

use super::cluster::SimCluster;
use super::plan::Action;
use crate::id::ReplicaId;
use crate::node::Gauges;

impl SimCluster {
    /// Does what an action says; [`Action::Write`], [`Action::Read`] and [`Action::Rest`] are not the cluster's.
    /// Returns whether it made sense; if not, nothing happened.
    pub fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::Cut { from, to } => {
                let (from, to) = (self.place(from), self.place(to));
                self.cut_one_way(from, to);
                from != to
            }
            Action::Isolate { at } => {
                self.isolate(self.place(at));
                true
            }
            Action::Split { at } => self.split(self.place(at)),
            Action::Heal => {
                self.heal();
                true
            }
            Action::Skew { at, ms } => {
                self.set_skew_ms(self.place(at), ms);
                true
            }
            Action::Crash { at } => {
                let at = self.place(at);
                let runs = self.is_running(at);
                self.crash(at);
                runs
            }
            Action::Start { at } => {
                let at = self.place(at);
                !self.is_running(at) && self.start(at).is_ok()
            }
            Action::Clog { .. }
            | Action::Slow { .. }
            | Action::Pause { .. }
            | Action::CrashDonor { .. }
            | Action::Stop { .. }
            | Action::Clone { .. }
            | Action::Remove { .. }
            | Action::Evict { .. }
            | Action::Truncate { .. }
            | Action::Forge { .. }
            | Action::Write { .. }
            | Action::Read { .. }
            | Action::Rest => false,
        }
    }

    /// Ends every fault: cuts, clogs, slowness, pauses and skews end, clones and liars are stopped, and every host that
    /// was started at the beginning runs.
    pub fn heal_everything(&mut self) {
        self.carriage.conditions().calm();
        self.heal();
        for at in 0..self.hosts.len() {
            self.set_skew_ms(at, 0);
            if !self.is_running(at) && at < self.config.nodes {
                drop(self.start(at));
            }
        }
    }

    /// Returns how many hosts there are, clones included, running or not.
    #[must_use]
    pub fn host_count(&self) -> usize {
        self.len()
    }

    /// Tells whether a process runs on a host.
    #[must_use]
    pub fn is_running(&self, at: usize) -> bool {
        self.node(at).is_some()
    }

    /// Tells whether a host keeps to the protocol.
    #[must_use]
    pub fn is_honest(&self, at: usize) -> bool {
        self.config.liars & bit(at) == 0
    }

    /// Tells whether a host speaks a later version of the wire format.
    #[must_use]
    pub fn is_newer(&self, at: usize) -> bool {
        self.config.newer & bit(at) != 0
    }

    /// Iterates over the hosts that run, keep to the protocol and were not removed.
    pub fn honest(&self) -> impl Iterator<Item = usize> {
        (0..self.host_count()).filter(|at| self.is_honest(*at) && self.is_running(*at))
    }

    /// Returns the replica that runs on a host, or ran there last.
    #[must_use]
    pub fn replica(&self, at: usize) -> Option<ReplicaId> {
        self.hosts.get(at)?.replica
    }

    /// Returns the sizes of everything a node keeps that could grow.
    #[must_use]
    pub fn gauges(&self, at: usize) -> Option<Gauges> {
        self.node(at).map(crate::node::Node::gauges)
    }

    /// Returns the largest sizes since the process started.
    #[must_use]
    pub fn gauges_high(&self, at: usize) -> Option<Gauges> {
        self.gauges(at)
    }

    fn place(&self, at: u8) -> usize {
        usize::from(at) % self.host_count().max(1)
    }

    fn split(&mut self, at: usize) -> bool {
        for below in 0..at {
            for above in at..self.host_count() {
                self.cut_one_way(below, above);
                self.cut_one_way(above, below);
            }
        }
        at > 0
    }
}

fn bit(at: usize) -> u64 {
    u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or(0)
}
