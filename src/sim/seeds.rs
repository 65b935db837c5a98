//! Where hosts are, whom each is configured with, and where a dial leads.
//!
//! A host's address is `sim:<host>`, and after it has moved `sim:<host>/<how often>`; where it was, nobody answers.
//!
//! # Invariants
//! * Whoever starts can be found from whoever else runs, also if only those run that are there from the start: each host
//!   knows one of those with a lower number, and the first knows another. Not the last, which may move.

use std::collections::BTreeSet;

use super::cluster::SimCluster;
use super::config::SimConfig;
use crate::node::PeerSlot;

/// A host that there is none of.
const NOWHERE: usize = 1 << 20;

/// Returns the hosts whose addresses one is configured with.
pub(super) fn known(config: &SimConfig, at: usize) -> BTreeSet<usize> {
    let hosts = config.nodes + config.spare;
    let others = (0..hosts).filter(|other| *other != at);
    let Some(bits) = config.seeds.get(at) else { return others.collect() };
    let mut known: BTreeSet<usize> = others.filter(|other| has_bit(u64::from(*bits), *other)).collect();
    let steady = if config.nodes > 2 { config.nodes - 1 } else { config.nodes };
    let needed = if at == 0 { 1..steady } else { 0..steady.min(at) };
    if !needed.clone().any(|other| known.contains(&other)) {
        known.extend(needed.start..needed.end.min(needed.start + 1));
    }
    known
}

pub(super) fn has_bit(bits: u64, at: usize) -> bool {
    u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)).is_some_and(|bit| bits & bit != 0)
}

/// Returns the address of a host that has moved so often.
pub(super) fn address(at: usize, moved: u8) -> String {
    if moved == 0 { format!("sim:{at}") } else { format!("sim:{at}/{moved}") }
}

impl SimCluster {
    /// Dials whoever is at an address.
    pub(super) fn dial(&mut self, at: usize, slot: PeerSlot, to: &str) {
        let is_there =
            |host: &usize| self.hosts.get(*host).is_some_and(|h| !h.is_clone && address(*host, h.moved) == to);
        let to = (0..self.hosts.len()).find(is_there).unwrap_or(NOWHERE);
        self.carriage.dial(self.now, at, to, slot);
    }

    /// Returns the addresses a host is configured with, and its own. A clone has those of its original, and where the list
    /// names the host itself finds that one there.
    pub(super) fn addresses(&self, at: usize) -> (Vec<String>, Vec<String>) {
        let Some(host) = self.hosts.get(at) else { return (Vec::new(), Vec::new()) };
        let moved = self.hosts.get(host.place).map_or(0, |place| place.moved);
        let lists_itself =
            host.is_clone && self.config.seeds.get(host.place).is_some_and(|b| has_bit(u64::from(*b), host.place));
        let original = lists_itself.then_some(host.place);
        let peers = known(&self.config, host.place).into_iter().chain(original).map(|at| address(at, 0)).collect();
        (peers, vec![address(host.place, moved)])
    }

    /// The machine of a host gets another address, and its process ends and starts again there.
    pub(super) fn move_away(&mut self, at: usize) -> bool {
        let may = self.config.nodes > 2 && at + 1 == self.config.nodes && self.is_running(at) && !self.is_paused(at);
        let Some(host) = self.hosts.get_mut(at).filter(|host| may && host.moved < u8::MAX) else { return false };
        host.moved += 1;
        self.start(at).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_drawn_everybody_can_be_found() {
        for (nodes, spare) in [(1, 0), (2, 0), (2, 1), (3, 2), (5, 2), (9, 0)] {
            for bits in 0..512_u16 {
                let config = SimConfig { nodes, spare, seeds: vec![bits; nodes + spare], ..SimConfig::default() };
                for at in 0..nodes + spare {
                    let known = known(&config, at);
                    assert!(!known.contains(&at));
                    assert!(
                        at == 0 || known.iter().any(|other| *other < at.min(nodes)),
                        "{nodes} {spare} {bits:b} {at}"
                    );
                    let stays = |other: &usize| *other < nodes && (nodes < 3 || *other + 1 < nodes);
                    assert!(nodes == 1 || known.iter().any(stays), "{nodes} {spare} {bits:b} {at}: {known:?}");
                }
            }
        }
    }

    #[test]
    fn without_seeds_everybody_knows_all_others() {
        let config = SimConfig { nodes: 3, spare: 1, ..SimConfig::default() };
        assert_eq!(known(&config, 1), [0, 2, 3].into());
    }
}
