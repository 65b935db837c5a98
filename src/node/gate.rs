//! Whether writes are accepted here, and why not.

use crate::id::Role;
use crate::node::Node;
use crate::node::event::Event;
use crate::node::leave::Drain;
use crate::probe::{planted, sometimes};
use crate::store::Gate;

impl Node {
    /// A node whose clock a majority of its peers refuses stops originating writes, and says so.
    pub(super) fn check_own_clock(&mut self) {
        let refused = self.slots.majority_refuses();
        if refused == self.clock_refused {
            return;
        }
        sometimes!(ClockRefused, if refused);
        sometimes!(ClockAcceptedAgain, if !refused);
        self.clock_refused = refused;
        let skew = self.sessions().filter_map(|(_, s)| s.beats.skew_ms()).map(i64::unsigned_abs).max().unwrap_or(0);
        let skew_ms = skew.max(self.max_drift_ms());
        self.store.note_skew(skew_ms);
        self.set_gate();
        self.event(if refused { Event::ClockRefused { skew_ms } } else { Event::ClockAccepted });
    }

    /// Says to the store whether writes are accepted: the first reason against it counts.
    pub(super) fn set_gate(&self) {
        self.store.set_gate(if self.stopping || self.has_left() {
            Gate::Stopped
        } else if self.is_removed() || self.has_heir() {
            Gate::Removed
        } else if self.drain != Drain::No {
            Gate::Draining
        } else if self.clock_refused {
            Gate::ClockRefused
        } else if self.join.is_joined() && self.role() == Role::Standby && !planted!(StandbyWrites) {
            Gate::Standby
        } else if self.join.is_joined() {
            Gate::Open
        } else {
            Gate::Joining
        });
    }
}
