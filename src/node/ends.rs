//! How links and dials end, and what follows from that.
//!
//! # Invariants
//! * Nothing of a link is kept when it has ended but when its peer was last heard of, and what a member reported.

use crate::clock::Now;
use crate::error::PeerFault;
use crate::node::Node;
use crate::node::event::Event;
use crate::node::input::{LinkId, PeerSlot};
use crate::node::output::{CloseCode, DialError, LinkEnd, Output};

impl Node {
    /// Closes a link.
    pub(super) fn close(&mut self, link: LinkId, code: CloseCode, reason: &str) {
        self.out.push_back(Output::Close { link, code, reason: reason.to_owned() });
        if let Some(slot) = self.slots.of_link(link)
            && code == CloseCode::Superseded
        {
            self.slots.superseded(slot);
        }
        self.drop_link(link);
    }

    /// A peer broke a rule: its message is dropped, its link closed, everybody else unaffected.
    pub(super) fn fault(&mut self, link: LinkId, fault: PeerFault) {
        let code = CloseCode::of(&fault);
        self.fault_with(link, fault, code);
    }

    /// The same, with a code of its own.
    pub(super) fn fault_with(&mut self, link: LinkId, fault: PeerFault, code: CloseCode) {
        let reason = fault.to_string();
        self.refused(link, fault);
        self.close(link, code, &reason);
    }

    /// Says what was wrong; the link stays.
    pub(super) fn refused(&mut self, link: LinkId, fault: PeerFault) {
        if let Some(l) = self.links.get(&link) {
            let (node, region) = (l.identity.node, l.identity.region.clone());
            self.event(Event::Refused { node, region, fault });
        }
    }

    pub(super) fn on_link_down(&mut self, now: Now, link: LinkId, reason: &LinkEnd) {
        let code = if let LinkEnd::Closed { code, .. } = reason { Some(*code) } else { None };
        if code == Some(CloseCode::ClockDrift)
            && let Some(slot) = self.slots.of_link(link)
        {
            self.slots.clock_refused(slot);
        }
        if code == Some(CloseCode::Superseded) {
            self.note_other_link(link);
        }
        let seeks = !self.join.is_joined();
        self.has_parted(link);
        self.slots.down(link, self.me.replica, now.mono, seeks, &mut self.rng);
        // A link of a former replica is none of this one.
        let code = code.filter(|_| self.links.contains_key(&link) || self.is_removed());
        self.drop_link(link);
        self.check_own_clock();
        if let Some(code) = code {
            self.heed(now, code);
        }
    }

    /// Forgets a link; what it was sent and did not report is sent again on the next one.
    pub(super) fn drop_link(&mut self, link: LinkId) {
        self.pen.forget(link);
        let Some(gone) = self.links.remove(&link) else { return };
        let Some(session) = gone.session else { return };
        self.liveness.heard(session.replica, session.beats.heard_at());
        let stays = self.members.get(session.replica).is_some();
        if !stays && !self.sessions().any(|(_, other)| other.replica == session.replica) {
            self.forget_reports_of(session.replica);
        }
    }

    pub(super) fn on_dial_failed(&mut self, now: Now, slot: PeerSlot, reason: &DialError) {
        if let DialError::Refused { code: CloseCode::ClockDrift, .. } = reason {
            self.slots.clock_refused(slot);
        }
        self.slots.failed(slot, now.mono, &mut self.rng);
        self.untended = true;
        let address = self.slots.dialled(slot).unwrap_or_default();
        self.event(Event::DialFailed { address, why: reason.to_string() });
        self.check_own_clock();
        if let DialError::Refused { code, .. } = reason {
            self.heed(now, *code);
        }
    }
}
