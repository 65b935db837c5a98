//! What simulated hosts prove themselves with: certificates that are part of the source.
//!
//! They name the first sixteen hosts as the cluster does (`r0` and node 1, `r1` and node 2, …), are issued by one CA,
//! and are valid until 2120. `examples/sim_certificates.rs` wrote them.
//!
//! # Invariants
//! * They are judged at the beginning of virtual time, whenever the run takes place.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use super::chance;
use crate::clock::Mono;
use crate::error::StartError;
use crate::node::PeerIdentity;
use crate::runtime::tls::{Identity, Means};
use crate::sim::host::true_ms;

const CA: &str = include_str!("certificates/ca.pem");
const OTHER_CA: &str = include_str!("certificates/stranger_ca.pem");
const STRANGER: &str = include_str!("certificates/stranger.pem");
const HOSTS: [&str; 16] = [
    include_str!("certificates/00.pem"),
    include_str!("certificates/01.pem"),
    include_str!("certificates/02.pem"),
    include_str!("certificates/03.pem"),
    include_str!("certificates/04.pem"),
    include_str!("certificates/05.pem"),
    include_str!("certificates/06.pem"),
    include_str!("certificates/07.pem"),
    include_str!("certificates/08.pem"),
    include_str!("certificates/09.pem"),
    include_str!("certificates/10.pem"),
    include_str!("certificates/11.pem"),
    include_str!("certificates/12.pem"),
    include_str!("certificates/13.pem"),
    include_str!("certificates/14.pem"),
    include_str!("certificates/15.pem"),
];

/// The time at which certificates are judged.
#[derive(Debug)]
struct Epoch;

impl TimeProvider for Epoch {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(true_ms(Mono::default()))))
    }
}

fn means() -> Means {
    Means { provider: Arc::new(chance::provider()), time: Arc::new(Epoch) }
}

/// Loads the identity of a host. A host that none of the certificates names gets that of a stranger, which nobody lets
/// in.
///
/// # Errors
/// [`StartError::Certificate`] if a certificate in the source is unusable.
pub(super) fn identity_of(named: &PeerIdentity) -> Result<Identity, StartError> {
    let number = named.node.0.as_u128().checked_sub(1).and_then(|n| usize::try_from(n).ok());
    match number.and_then(|n| HOSTS.get(n)) {
        Some(pem) => Identity::from_pem_with(means(), pem.as_bytes(), pem.as_bytes(), CA.as_bytes()),
        None => Identity::from_pem_with(means(), STRANGER.as_bytes(), STRANGER.as_bytes(), OTHER_CA.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn every_certificate_names_its_host_and_is_good() {
        for host in 0..HOSTS.len() {
            let node = NodeId(uuid::Uuid::from_u128(u128::try_from(host).unwrap() + 1));
            let named = PeerIdentity { node, region: format!("r{host}").as_str().into(), expires_ms: 0 };
            let identity = identity_of(&named).unwrap();
            assert_eq!((identity.name().node, &identity.name().region), (named.node, &named.region));
        }
    }

    #[test]
    fn a_host_without_a_certificate_is_a_stranger_of_the_same_name() {
        let node = NodeId(uuid::Uuid::from_u128(u128::MAX));
        let identity = identity_of(&PeerIdentity { node, region: "r0".into(), expires_ms: 0 }).unwrap();
        assert_eq!(identity.name().region, "r0".into());
    }
}
