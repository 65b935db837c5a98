//! Dials that come to nothing, and what keeps an endpoint from starting.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use driftless::error::StartError;
use driftless::node::{DialError, Input, PeerSlot};
use driftless::runtime::{Endpoint, EndpointConfig, Identity, uri_of};

use crate::world::dev_ca::Pem;
use crate::world::{DevCa, Leaf, guard};
use crate::{EU, US, any_port, dial, load};

// -- dials that come to nothing ---------------------------------------------------------------------

async fn failed_dial(peer: String) -> DialError {
    let mut config = EndpointConfig::new(any_port());
    config.dial_timeout = Duration::from_millis(100);
    let mut endpoint = Endpoint::bind(config, &US.identity(&DevCa::new().unwrap())).unwrap();
    endpoint.apply(dial(peer));
    match guard(endpoint.next()).await {
        Input::DialFailed { slot: PeerSlot(0), reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_times_out() {
    let silent = UdpSocket::bind(any_port()).unwrap();
    assert_eq!(failed_dial(silent.local_addr().unwrap().to_string()).await, DialError::TimedOut);
}

#[tokio::test]
async fn an_address_that_is_none_is_unresolvable() {
    let reason = failed_dial("no port here".to_owned()).await;
    assert!(matches!(&reason, DialError::Unresolvable { host, .. } if host == "no port here"), "{reason:?}");
    let reason = failed_dial("[2001:db8::1]:443".to_owned()).await;
    assert!(matches!(reason, DialError::Unresolvable { .. }), "an IPv4 socket cannot reach IPv6: {reason:?}");
}

// -- what keeps an endpoint from starting -----------------------------------------------------------

#[tokio::test]
async fn a_port_in_use_is_named() {
    let holder = UdpSocket::bind(any_port()).unwrap();
    let address = holder.local_addr().unwrap();
    let identity = US.identity(&DevCa::new().unwrap());
    let error = Endpoint::bind(EndpointConfig::new(address), &identity).unwrap_err();
    assert!(matches!(&error, StartError::Bind { addr, .. } if *addr == address), "{error}");
}

#[test]
fn an_unreadable_key_file_is_named() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("unreadable-key-{}", std::process::id()));
    DevCa::new().unwrap().issue(&US.leaf()).unwrap().write(&dir).unwrap();
    let identity = Identity::from_pem_files(&dir).unwrap();
    assert_eq!((identity.name().node, &identity.name().region), (US.node_id(), &US.region_id()));
    assert_eq!(identity.name().expires_ms, 4_891_363_200_000, "the first of January 2125");
    // A directory in its place is unreadable for every user, root included.
    std::fs::remove_file(dir.join("node.key")).unwrap();
    std::fs::create_dir(dir.join("node.key")).unwrap();
    let error = Identity::from_pem_files(&dir).unwrap_err();
    assert!(matches!(&error, StartError::Unreadable { path, .. } if path.ends_with("node.key")), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// Loads a bad identity and returns which part is wrong, and why.
fn wrong(pem: &Pem) -> (&'static str, String) {
    match load(pem).unwrap_err() {
        StartError::Certificate { what, why } => (what, why),
        other => panic!("{other}"),
    }
}

#[test]
fn a_wrong_certificate_key_or_ca_is_named_with_its_reason() {
    let ca = DevCa::new().unwrap();
    let good = ca.issue(&US.leaf()).unwrap();
    let another = ca.issue(&US.leaf()).unwrap();
    let no_pem = "no PEM".to_owned();
    assert_eq!(wrong(&Pem { key: another.key, ..good.clone() }).0, "private key");
    assert_eq!(wrong(&Pem { key: good.certificate.clone(), ..good.clone() }).0, "private key");
    assert_eq!(wrong(&Pem { ca: no_pem.clone(), ..good.clone() }).0, "cluster CA");
    assert_eq!(wrong(&Pem { certificate: no_pem, ..good.clone() }).0, "own certificate");

    let reason = |pem: &Pem| {
        let (what, why) = wrong(pem);
        assert_eq!(what, "own certificate");
        why
    };
    let other = DevCa::new().unwrap().issue(&US.leaf()).unwrap();
    assert_eq!(reason(&Pem { ca: other.ca, ..good }), "it was issued by no CA of the cluster");
    let expired = Leaf { from: (2020, 1, 1), until: (2021, 1, 1), ..US.leaf() };
    assert_eq!(reason(&ca.issue(&expired).unwrap()), "it has expired");
    let nobody = Leaf { uri: "https://example.org/".to_owned(), ..US.leaf() };
    assert!(reason(&ca.issue(&nobody).unwrap()).contains("driftless://"));
    let elsewhere = Leaf { dns: "example.org".to_owned(), ..US.leaf() };
    assert!(reason(&ca.issue(&elsewhere).unwrap()).contains("driftless"));
}

#[test]
fn a_certificate_of_another_region_or_node_than_configured_is_named_with_both() {
    let identity = US.identity(&DevCa::new().unwrap());
    identity.must_name(&US.region_id(), None).unwrap();
    identity.must_name(&US.region_id(), Some(US.node_id())).unwrap();
    for (region, node) in [(EU.region_id(), None), (US.region_id(), Some(EU.node_id()))] {
        let error = identity.must_name(&region, node).unwrap_err();
        let StartError::OtherIdentity { certificate, config } = error else { panic!("{error}") };
        assert_eq!(certificate, uri_of(&US.region_id(), US.node_id()));
        assert_eq!(config, uri_of(&region, node.unwrap_or_else(|| US.node_id())));
    }
}
