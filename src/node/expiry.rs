//! Certificates that are about to expire, said in time and once per stage.
//!
//! # Invariants
//! * A stage is told once for each certificate; a renewed one begins anew.
//! * No link ends because a certificate expires: the next handshake is refused.

use std::collections::BTreeMap;

use crate::clock::Now;
use crate::id::NodeId;
use crate::node::Node;
use crate::node::event::Event;

/// Days before the end at which it is told, and the end itself.
const STAGES: [u64; 4] = [30, 7, 1, 0];
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// What was told of each node's certificate.
#[derive(Clone, Debug, Default)]
pub(super) struct Expiries(BTreeMap<NodeId, (u64, u64)>);

impl Expiries {
    /// Returns the stage to be told of a certificate, if it has come to a new one.
    fn stage(&mut self, node: NodeId, expires_ms: u64, wall_ms: u64) -> Option<u64> {
        let left_ms = expires_ms.saturating_sub(wall_ms);
        let stage = STAGES.into_iter().rev().find(|days| left_ms <= days * DAY_MS)?;
        let told = self.0.get(&node).filter(|(of, _)| *of == expires_ms).map(|(_, stage)| *stage);
        if told.is_some_and(|told| told <= stage) {
            return None;
        }
        self.0.insert(node, (expires_ms, stage));
        Some(stage)
    }
}

impl Node {
    /// Tells whose certificates are about to expire: this node's, and those of its peers.
    pub(super) fn look_at_certificates(&mut self, now: Now) {
        let mine = self.certificate_ms.map(|ms| (self.me.node, self.me.region.clone(), ms));
        let peers = self.links.values().map(|l| (l.identity.node, l.identity.region.clone(), l.identity.expires_ms));
        let all: Vec<_> = mine.into_iter().chain(peers).collect();
        self.expiries.0.retain(|node, _| all.iter().any(|(known, ..)| known == node));
        for (node, region, expires_ms) in all {
            if let Some(days) = self.expiries.stage(node, expires_ms, now.wall_ms) {
                self.event(Event::CertificateExpires { node, region, days });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_told_once_and_a_renewed_certificate_begins_anew() {
        let (mut told, node, end) = (Expiries::default(), NodeId(uuid::Uuid::from_u128(1)), 100 * DAY_MS);
        let mut at = |day: u64, expires| told.stage(node, expires, day * DAY_MS);
        assert_eq!([69, 70, 71, 92].map(|day| at(day, end)), [None, Some(30), None, None]);
        assert_eq!([93, 99, 99, 100, 200].map(|day| at(day, end)), [Some(7), Some(1), None, Some(0), None]);
        assert_eq!([200, 371].map(|day| at(day, 400 * DAY_MS)), [None, Some(30)]);
        assert_eq!(Expiries::default().stage(node, end, 99 * DAY_MS), Some(1), "a late look tells how late it is");
    }
}
