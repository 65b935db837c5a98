//! A certificate that is about to expire: it is told in time, once a stage, and cuts nobody off.

use std::time::Duration;

use driftless::clock::Now;
use driftless::node::{Event, Input, Output};

use crate::bench::{Bench, WALL_MS, node_id, now};

const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Returns within how many days the certificate is said to expire, so many seconds and days later.
fn told(bench: &mut Bench, days: u64, seconds: u64) -> Vec<u64> {
    let mono = now().mono.plus(Duration::from_secs(seconds));
    bench.node.handle(Now { mono, wall_ms: WALL_MS + days * DAY_MS }, Input::Deadline);
    let days = |output| {
        let Output::Event(Event::CertificateExpires { days }) = output else { return None };
        Some(days)
    };
    std::iter::from_fn(|| bench.node.poll()).filter_map(days).collect()
}

#[test]
fn an_expiry_is_told_in_time_and_cuts_nobody_off() {
    let mut bench = Bench::new();
    bench.handle(Input::Certified { expires_ms: WALL_MS + 40 * DAY_MS });
    let own = bench.node.cluster().members.iter().find(|member| member.is_me).and_then(|me| me.certificate_expires_ms);
    assert_eq!(own, Some(WALL_MS + 40 * DAY_MS));
    assert_eq!(told(&mut bench, 0, 1), []);
    assert!(bench.node.stats().peers.iter().any(|peer| peer.node == node_id(2)));
    assert_eq!([told(&mut bench, 12, 2), told(&mut bench, 13, 3)], [vec![30], vec![]], "once");
    bench.handle(Input::Certified { expires_ms: WALL_MS + 400 * DAY_MS });
    assert_eq!(told(&mut bench, 39, 4), [], "it was renewed");
    assert_eq!(told(&mut bench, 401, 5), [0]);
}
