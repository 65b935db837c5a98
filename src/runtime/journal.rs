//! What the logs say about each event: for a person at three in the morning.
//!
//! The levels follow one rule: `warn` is worth waking somebody for, `info` is a change of view,
//! `debug` repeats what was said. Values are fields, so that they can be searched.
//!
//! # Invariants
//! * A peer that stays away is warned of once, not at every attempt to dial it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};

use crate::error::PeerFault;
use crate::id::{NodeId, RegionId};
use crate::node::{Event, Poison};

/// Addresses of which it is remembered that they do not answer: past it each is warned of once more.
const SILENT_MAX: usize = 1_024;

/// What was already said.
#[derive(Debug, Default)]
pub(super) struct Journal {
    silent: BTreeSet<String>,
    refused: BTreeMap<NodeId, Discriminant<PeerFault>>,
}

impl Journal {
    /// Writes an event down.
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Joined { founded: true } => tracing::info!("no cluster found: founded one"),
            Event::Joined { founded: false } => tracing::info!("joined the cluster"),
            Event::Up { node, region, replica } => {
                self.silent.clear();
                self.refused.remove(node);
                tracing::info!(%node, %region, %replica, "peer is up");
            }
            Event::Suspect { .. }
            | Event::Unreachable { .. }
            | Event::LinkDown { .. }
            | Event::GivenUp { .. }
            | Event::NotGivenUp { .. } => note_absence(event),
            Event::Isolated => {
                tracing::error!("no member is heard: this node is cut off; local reads and writes go on");
            }
            Event::NotIsolated => tracing::info!("a member is heard again"),
            Event::MemberJoined { node, region, replica } => {
                tracing::info!(%node, %region, %replica, "a member joined");
            }
            Event::MemberRemoved { node, region, replica, how } => {
                tracing::info!(%node, %region, %replica, ?how, "a member is none any more");
            }
            Event::RoleChanged { node, region, replica, role } => {
                tracing::info!(%node, %region, %replica, ?role, "a member plays another part");
            }
            Event::Refused { node, region, fault } => self.note_refused(*node, region, fault),
            Event::DialFailed { address, why } => self.note_silent(address, why),
            Event::ClockRefused { skew_ms } => {
                tracing::error!(skew_ms, "a majority of peers refuses this clock: writes are refused, set the clock");
            }
            Event::ClockAccepted => tracing::info!("peers accept this clock again: writes are accepted"),
            Event::Removed => {
                tracing::error!(
                    "this replica was removed, or its history does not fit that of the others: writes are refused"
                );
            }
            Event::Twin { replica } => {
                tracing::error!(%replica, "another process has this node's identity: end one of them");
            }
            Event::CameBack { former, replica, kept, lost } => {
                tracing::warn!(%former, %replica, kept, lost, "this process goes on as another replica, and joins again");
            }
            Event::Reissued { written, outdated, lost } => note_reissued(*written, *outdated, *lost),
            Event::CertificateExpires { days } => note_expiry(*days),
            Event::Drained => tracing::info!("everything is handed over: this node may end"),
            Event::Left => tracing::info!("everything is handed over: this node is no member any more"),
            Event::DuplicateReplica { replica } => {
                tracing::error!(%replica, "two values under one stamp: this replica id is in use twice");
            }
            Event::Unsendable { unsendable } => {
                tracing::error!(%unsendable, "a message is too large to be sent; what it carried stays missing elsewhere");
            }
            Event::Differs { node, region, partition, keys } => {
                tracing::error!(%node, %region, %partition, keys, "two copies differ although both have seen the same: what either lost is given back");
            }
            Event::Restored { node, region, partition, keys } => {
                tracing::error!(%node, %region, %partition, keys, "what this copy had lost silently was given back by a peer");
            }
            Event::Quarantined { poison } => {
                let Poison { keyspace, key, digest, from, why, .. } = poison;
                tracing::error!(%keyspace, ?key, digest, %from, %why, "received state could not be joined and is skipped");
            }
        }
    }

    fn note_refused(&mut self, node: NodeId, region: &RegionId, fault: &PeerFault) {
        let kind = discriminant(fault);
        if self.refused.insert(node, kind) == Some(kind) {
            tracing::debug!(%node, %region, %fault, "peer is still refused");
        } else {
            tracing::warn!(%node, %region, %fault, "peer is refused");
        }
    }

    fn note_silent(&mut self, address: &str, why: &str) {
        if self.silent.len() >= SILENT_MAX {
            self.silent.clear();
        }
        if self.silent.insert(address.to_owned()) {
            tracing::warn!(address, why, "a peer does not answer; dialling goes on");
        } else {
            tracing::debug!(address, why, "a peer still does not answer");
        }
    }
}

fn note_expiry(days: u64) {
    if days == 0 {
        tracing::error!("the certificate has expired: links that are up stay, new ones are refused");
    } else {
        tracing::warn!(days, "the certificate expires soon: renew it and load it");
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others are noted by who calls")]
fn note_absence(event: &Event) {
    match event {
        Event::Suspect { node, region, replica } => {
            tracing::info!(%node, %region, %replica, "a member is silent");
        }
        Event::Unreachable { node, region, replica } => {
            tracing::warn!(%node, %region, %replica, "a member is unreachable; writes reach it when it is back");
        }
        Event::LinkDown { node, region, replica } => {
            tracing::warn!(%node, %region, %replica, "the path to a member is cut; writes go through the others");
        }
        Event::GivenUp { node, region, replica } => {
            tracing::warn!(%node, %region, %replica, "a member was gone for too long: a majority removes it");
        }
        Event::NotGivenUp { node, region, replica, votes, of } => {
            tracing::warn!(%node, %region, %replica, votes, of, "a member is gone for too long, but too few agree to give it up: what is deleted is kept for it; remove it, if it does not come back");
        }
        _ => {}
    }
}

fn note_reissued(written: u64, outdated: u64, lost: u64) {
    if lost == 0 {
        tracing::info!(written, outdated, "what nobody had received is written again");
    } else {
        tracing::error!(written, outdated, lost, "what nobody had received is written again, and some of it is lost");
    }
}
