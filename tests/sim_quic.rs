//! Whole clusters over QUIC in virtual time: real handshakes, streams and packets, with faults per packet. Every
//! failure prints the seed that replays it.
#![cfg(all(feature = "sim", feature = "net"))]

#[path = "support/simulated.rs"]
mod simulated;

use driftless::Event;
use driftless::error::PeerFault;
use driftless::id::NodeId;
use driftless::node::PeerIdentity;
use driftless::sim::{Action, Carrier, SimCluster, SimConfig, Weather};
use simulated::{converged, formed_within, get, joined, ms};

fn config(weather: Weather) -> SimConfig {
    SimConfig { carrier: Carrier::Quic, weather, ..SimConfig::default() }
}

fn clear() -> Weather {
    Weather { delay_min: ms(40), delay_max: ms(40), loss: 0.0, ..Weather::default() }
}

fn formed(seed: u64, config: SimConfig) -> SimCluster {
    formed_within(seed, config, ms(20_000))
}

fn set(cluster: &mut SimCluster, at: usize, key: &str, value: &str) {
    assert!(tries_to_set(cluster, at, key, value), "node {at} accepts writes");
}

fn tries_to_set(cluster: &mut SimCluster, at: usize, key: &str, value: &str) -> bool {
    simulated::set(cluster, at, key, value).is_ok()
}

#[test]
fn a_cluster_forms_and_replicates() {
    let mut cluster = formed(1, config(clear()));
    cluster.run_for(ms(1_000));
    set(&mut cluster, 0, "a", "1");
    let took = cluster.run_until(ms(1_000), |c| (0..3).all(|at| get(c, at, "a").is_some()));
    assert!(took.is_some_and(|took| took <= ms(60)), "{took:?}: 40 ms of path, 2 ms of linger, looked at every 10 ms");
    cluster.run_for(ms(10_000));
    assert!(converged(&cluster));
    assert_eq!(cluster.node(0).unwrap().stats().peers.len(), 2);
}

#[test]
fn a_node_that_crashed_and_starts_again_gets_its_state_back() {
    for (seed, away) in [(1, 50), (2, 700), (3, 4_000), (4, 15_000)] {
        let mut cluster = formed(seed, config(Weather::default()));
        set(&mut cluster, 1, "k", "before");
        assert!(cluster.run_until(ms(5_000), converged).is_some());
        cluster.crash(1);
        cluster.run_for(ms(away));
        set(&mut cluster, 0, "meanwhile", "v");
        cluster.start(1).unwrap();
        let back = cluster.run_until(ms(5_000), |c| joined(c) && converged(c));
        assert!(back.is_some_and(|took| took < ms(2_500)), "away {away} ms, back after {back:?}");
        assert!(get(&cluster, 1, "k").is_some() && get(&cluster, 1, "meanwhile").is_some());
        cluster.run_for(ms(25_000));
        assert_eq!(cluster.node(0).unwrap().members().live().count(), 3, "the old replica is gone");
    }
}

/// The node gives a link up after 1.5 s of silence; what is shorter QUIC has to bridge by itself.
#[test]
fn a_cut_heals_whether_the_links_outlive_it_or_not() {
    for (seed, cut) in [(1, 400), (2, 1_000), (3, 1_400), (4, 1_600), (5, 3_000), (6, 30_000)] {
        let mut cluster = formed(seed, config(clear()));
        cluster.run_for(ms(1_000));
        (0..3).for_each(|at| drop(cluster.take_events(at)));
        cluster.isolate(2);
        cluster.run_for(ms(cut));
        set(&mut cluster, 2, "k", "v");
        cluster.heal();
        let took = cluster.run_until(ms(20_000), converged);
        assert!(took.is_some_and(|took| took < ms(2_000)), "a cut of {cut} ms healed after {took:?}");
        let down = cluster.take_events(0).iter().any(|event| matches!(event, Event::DialFailed { .. }));
        assert_eq!(down, cut > 2_000, "a cut of {cut} ms: dials failed");
    }
}

#[test]
fn packets_may_get_lost_come_twice_late_and_changed() {
    for seed in 0..6 {
        let weather = Weather { loss: 0.25, duplicate: 0.5, corrupt: 0.1, ..Weather::default() };
        let mut cluster = formed(seed, config(weather));
        for step in 0..100 {
            set(&mut cluster, step % 3, &format!("k{step}"), "v");
            cluster.run_for(ms(20));
        }
        let took = cluster.run_until(ms(30_000), converged);
        assert!(took.is_some(), "seed {seed}: it converges");
        for at in 0..3 {
            assert!((0..100).all(|step| get(&cluster, at, &format!("k{step}")).is_some()), "seed {seed}: node {at}");
            let refused = cluster.take_events(at).into_iter().any(|event| matches!(event, Event::Refused { .. }));
            assert!(!refused, "seed {seed}: nothing that was changed on the way passes for what a peer said");
        }
    }
}

fn somebody(node: u128, region: &str) -> PeerIdentity {
    PeerIdentity { node: NodeId(uuid::Uuid::from_u128(node)), region: region.into(), expires_ms: 0 }
}

#[test]
fn a_certificate_of_another_ca_lets_nobody_in_and_says_so() {
    let mut cluster = formed(1, config(clear()));
    set(&mut cluster, 0, "k", "v");
    cluster.crash(2);
    cluster.certify(2, Some(somebody(u128::MAX, "r2")));
    cluster.start(2).unwrap();
    cluster.run_for(ms(3_000));
    // It founds a cluster of its own, as a node does whose peers do not answer.
    assert!(cluster.node(2).unwrap().stats().peers.is_empty());
    assert_eq!(get(&cluster, 2, "k"), None);
    let said = |event: &Event| matches!(event, Event::DialFailed { why, .. } if why.contains("another CA"));
    assert!(cluster.take_events(2).iter().any(said));
    cluster.crash(2);
    cluster.certify(2, None);
    cluster.start(2).unwrap();
    assert!(cluster.run_until(ms(5_000), converged).is_some());
}

#[test]
fn a_hello_that_names_somebody_else_than_the_certificate_is_refused() {
    let mut cluster = formed(1, config(clear()));
    cluster.crash(2);
    cluster.certify(2, Some(somebody(8, "r7")));
    cluster.start(2).unwrap();
    cluster.run_for(ms(3_000));
    assert!(!cluster.node(2).unwrap().stats().joined);
    for at in 0..2 {
        let is_named = |event: &Event| matches!(event, Event::Refused { fault: PeerFault::Identity { .. }, .. });
        assert!(cluster.take_events(at).iter().any(is_named), "node {at} says so");
    }
}

/// A host reads 4 KB a second, so windows close and queues fill on the way to it; nobody else is held up.
#[test]
fn a_slow_peer_slows_nobody_else_down_and_gets_everything_in_the_end() {
    let mut cluster = formed(1, config(clear()));
    cluster.run_for(ms(1_000));
    assert!(cluster.perform(Action::Slow { at: 2, bytes_per_ms: 4 }));
    let mut rng = fastrand::Rng::with_seed(1);
    for step in 0..300 {
        set(&mut cluster, 0, &format!("k{step}"), &noise(&mut rng, 4_000));
        cluster.run_for(ms(10));
    }
    let level = cluster.run_until(ms(2_000), |c| (0..300).all(|step| get(c, 1, &format!("k{step}")).is_some()));
    assert!(level.is_some_and(|took| took < ms(200)), "{level:?}");
    assert!(get(&cluster, 2, "k299").is_none(), "1.2 MB have not come through");
    assert!(cluster.perform(Action::Slow { at: 2, bytes_per_ms: 0 }));
    assert!(cluster.run_until(ms(20_000), converged).is_some());
}

/// A random run with everything that can happen to packets and hosts.
fn random_run(seed: u64) -> SimCluster {
    let mut rng = fastrand::Rng::with_seed(seed);
    let weather = Weather { loss: 0.1, duplicate: 0.2, corrupt: 0.05, ..Weather::default() };
    let mut cluster = formed(seed, config(weather));
    for step in 0..60 {
        let (at, other) = (rng.u8(..3), rng.u8(..3));
        tries_to_set(&mut cluster, usize::from(at), &format!("k{step}"), &noise(&mut rng, 200));
        cluster.perform(match rng.u8(..10) {
            0 => Action::Isolate { at },
            1 => Action::Cut { from: at, to: other },
            2 | 3 => Action::Heal,
            4 => Action::Crash { at },
            5 => Action::Start { at },
            6 => Action::Pause { at, ms: rng.u32(10..3_000) },
            7 => Action::Clog { from: at, to: other, ms: rng.u16(10..3_000) },
            8 => Action::Slow { at, bytes_per_ms: rng.u16(..50) },
            _ => Action::Rest,
        });
        cluster.run_for(ms(rng.u64(..300)));
    }
    cluster
}

/// Packets are part of the trace, byte by byte: what is encrypted and signed as well.
#[test]
fn the_same_seed_sends_the_same_bytes() {
    for seed in 0..4 {
        let (a, b) = (random_run(seed), random_run(seed));
        assert_eq!((a.elapsed(), a.trace()), (b.elapsed(), b.trace()), "seed {seed}");
    }
    assert_ne!(random_run(0).trace(), random_run(1).trace());
}

/// Random bytes: what compresses well says little about a network.
fn noise(rng: &mut fastrand::Rng, len: usize) -> String {
    (0..len).map(|_| rng.alphanumeric()).collect()
}

/// The last writes of a node that is stopped are nowhere else. Its peers refuse frames that came late, and have nobody
/// to ask for them again.
#[test]
fn a_node_that_is_stopped_while_all_write_leaves_everything_it_wrote() {
    for seed in 8..16 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let delay = rng.u64(5..150);
        let weather = Weather { delay_min: ms(delay), delay_max: ms(delay + 1), loss: 0.02, ..clear() };
        let mut cluster = formed(seed, config(weather));
        cluster.run_for(ms(1_000));
        let (steps, size) = (rng.u64(50..300), rng.usize(20..300));
        for step in 0..steps {
            for at in 0..3 {
                set(&mut cluster, at, &format!("{at}.{step}"), &noise(&mut rng, size));
            }
            cluster.run_for(ms(5));
        }
        assert!(cluster.perform(Action::Stop { at: 0 }));
        for step in steps..steps + 300 {
            for at in 1..3 {
                set(&mut cluster, at, &format!("{at}.{step}"), &noise(&mut rng, size));
            }
            cluster.run_for(ms(5));
        }
        cluster.run_for(ms(3_000));
        for at in 1..3 {
            let lost = (0..steps).filter(|step| get(&cluster, at, &format!("0.{step}")).is_none()).count();
            assert_eq!(lost, 0, "seed {seed}: node {at} lacks {lost} of {steps} writes");
        }
    }
}

/// A hello that was under way for long shows an old time, which says nothing about this node's clock. A link is up
/// before its hellos are through, so a clog may come between.
#[test]
fn a_hello_that_comes_late_is_no_clock_that_is_behind() {
    for seed in 0..10 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut cluster = SimCluster::new(seed, config(clear())).unwrap();
        cluster.run_for(ms(rng.u64(80..130)));
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            assert!(cluster.perform(Action::Clog { from, to, ms: rng.u16(1_100..1_400) }));
        }
        assert!(cluster.run_until(ms(20_000), joined).is_some(), "seed {seed}: the cluster forms");
        for at in 0..3 {
            let refused = cluster.take_events(at).into_iter().any(|event| matches!(event, Event::ClockRefused { .. }));
            assert!(!refused, "seed {seed}: node {at}");
        }
    }
}

/// Who dials holds a link for up before the other side does, by a round trip for each loss of the packet that ends the
/// handshake, and its hello shows the time of then.
#[test]
fn a_hello_that_is_older_than_its_link_is_no_clock_that_is_behind() {
    for (seed, cut) in [(1, 700), (2, 800), (3, 900), (4, 1_000), (5, 1_100)] {
        let mut cluster = SimCluster::new(seed, config(clear())).unwrap();
        cluster.run_for(ms(100));
        // Diallers have been answered by now, and nobody hears more of them.
        (0..3).for_each(|at| cluster.isolate(at));
        cluster.run_for(ms(cut));
        cluster.heal();
        let took = cluster.run_until(ms(20_000), joined);
        assert!(took.is_some_and(|took| took < ms(1_500)), "after a cut of {cut} ms the cluster formed after {took:?}");
    }
}
