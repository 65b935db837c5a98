//! Certificates that are about to expire: who is told, and that nobody is cut off for it.

use std::time::Duration;

use driftless::clock::Now;
use driftless::id::RegionId;
use driftless::node::{Event, Input, Output, PeerIdentity};

use crate::bench::{BAD, Bench, WALL_MS, identity, node_id, now};

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Returns whose certificates are said to expire within how many days, some seconds and days later.
fn told(bench: &mut Bench, days: u64, seconds: u64) -> Vec<(RegionId, u64)> {
    let mono = now().mono.plus(Duration::from_secs(seconds));
    bench.node.handle(Now { mono, wall_ms: WALL_MS + days * DAY_MS }, Input::Deadline);
    let event = |output| {
        let Output::Event(Event::CertificateExpires { region, days, .. }) = output else { return None };
        Some((region, days))
    };
    std::iter::from_fn(|| bench.node.poll()).filter_map(event).collect()
}

#[test]
fn an_expiry_is_told_in_time_for_this_node_and_its_peers_and_cuts_nobody_off() {
    let mut bench = Bench::new();
    let (mine, theirs) = (RegionId::new("us-east"), RegionId::new("ap-southeast"));
    bench.handle(Input::Certified { expires_ms: WALL_MS + 40 * DAY_MS });
    let peer = PeerIdentity { expires_ms: WALL_MS + 3 * DAY_MS, ..identity(3, "ap-southeast") };
    bench.link_up(BAD, peer);
    assert_eq!(told(&mut bench, 0, 1), [(theirs.clone(), 7)]);
    assert_eq!(told(&mut bench, 0, 2), [], "once");
    assert_eq!(told(&mut bench, 12, 3), [(mine, 30), (theirs, 0)]);
    bench.handle(Input::Certified { expires_ms: WALL_MS + 400 * DAY_MS });
    assert_eq!(told(&mut bench, 39, 4), [], "it was renewed");
    assert!(bench.node.stats().peers.iter().any(|peer| peer.node == node_id(2)));
}
