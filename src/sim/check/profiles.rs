//! Members agree on what each of them says of itself, find each other, and somebody writes.
//!
//! # Invariants
//! * What a member says of itself counts, not what others take it for.

use super::{Invariant, Violation};
use crate::id::Role;
use crate::node::Node;
use crate::store::Gate;

/// Loss beyond which a link is down now and then.
const LINKS_HOLD: f64 = 0.05;

/// Checks that nodes know of each other what each says of itself, that each does what its role calls for, and that every
/// two of them are linked, whoever was configured with whose address.
pub(in crate::sim) fn agreed(nodes: &[(usize, &Node)], loss: f64) -> Result<(), Violation> {
    let broken = |what: String| Err(Violation::new(Invariant::Membership, what));
    for (at, node) in nodes {
        let own = node.members().get(node.me().replica).map(|member| &member.profile);
        let role = node.role();
        let gate = if role == Role::Standby { Gate::Standby } else { Gate::Open };
        if own.map(|own| own.role) != Some(role) || node.store().gate() != gate {
            return broken(format!("r{at} is {role:?} and {:?}, and says {own:?}", node.store().gate()));
        }
        for (other, peer) in nodes.iter().filter(|(other, _)| other != at) {
            let known = peer.members().get(node.me().replica).map(|member| &member.profile);
            if known != own {
                return broken(format!("r{at} says {own:?}, and r{other} has heard {known:?}"));
            }
            if loss <= LINKS_HOLD && !node.is_linked(peer.me().replica) {
                return broken(format!("r{at} has no link to r{other}"));
            }
        }
    }
    Ok(())
}

/// Checks that a standby which takes over by itself does so when nobody is active.
pub(in crate::sim) fn somebody_active(
    nodes: &[(usize, &Node)],
    takes_over: impl Fn(usize) -> bool,
) -> Result<(), Violation> {
    if nodes.iter().any(|(_, node)| node.role() == Role::Active) {
        return Ok(());
    }
    let idle = nodes.iter().find(|(at, node)| node.role() == Role::Standby && takes_over(*at));
    idle.map_or(Ok(()), |(at, _)| {
        Err(Violation::new(Invariant::Membership, format!("nobody is active, and r{at} does not take over")))
    })
}
