//! Nodes that were not told of each other, over real QUIC on loopback: found through others, at a new address, at their own;
//! and what part each plays.
#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/world.rs"]
mod world;

use std::net::UdpSocket;
use std::time::Duration;

use driftless::cache::CacheStats;
use driftless::config::StandbyConfig;
use driftless::error::WriteError;
use driftless::id::RegionId;
use driftless::routing::{Client, RouterConfig};
use driftless::{Cache, Event, Level, Role, RoleError, Ttl};
use world::{World, event, everywhere, guard, open};

/// Waits until what a node counts and sees is as wanted. Every change is an event.
async fn until(cache: &Cache, holds: impl Fn(&CacheStats) -> bool) {
    let mut events = cache.events();
    guard(async {
        while !holds(&cache.stats().await) {
            events.recv().await.unwrap();
        }
    })
    .await;
}

async fn linked(one: &Cache, other: &Cache) {
    let replica = other.replica();
    until(one, |stats| stats.node.peers.iter().any(|peer| peer.replica == replica)).await;
}

#[tokio::test]
async fn a_chain_of_seeds_comes_to_be_a_full_mesh() {
    let world = World::new();
    let us = world.open(0, &[]).await;
    let eu = world.open(1, &[&us]).await;
    let ap = world.open(2, &[&eu]).await;
    for one in [&us, &eu, &ap] {
        for other in [&us, &eu, &ap].into_iter().filter(|other| other.replica() != one.replica()) {
            linked(one, other).await;
        }
    }
    guard(eu.shutdown()).await;
    let numbers = ap.registers::<u32, u32>("n").unwrap();
    let outcome = numbers.set(&1, &7, Ttl::NEVER).unwrap().reached(Level::Quorum).within(world::GUARD).await;
    assert!(outcome.reached, "{outcome:?}");
    assert_eq!(us.registers::<u32, u32>("n").unwrap().get(&1).unwrap(), Some(7), "without the one both knew");
}

#[tokio::test]
async fn a_node_whose_address_has_changed_is_found_again() {
    let world = World::new();
    let ap = world.open(2, &[]).await;
    let us = world.open(0, &[&ap]).await;
    let eu = world.open(1, &[&us]).await;
    let before = ap.local_addr();
    guard(ap.shutdown()).await;
    // Nobody can be where it was.
    let taken = UdpSocket::bind(before).unwrap();
    let ap = world.open(2, &[&eu]).await;
    assert_ne!(ap.local_addr(), before);
    linked(&us, &ap).await;
    linked(&ap, &us).await;
    everywhere(&us.registers::<u32, u32>("n").unwrap().set(&1, &1, Ttl::NEVER).unwrap()).await;
    drop(taken);
}

/// One list of addresses for all nodes is usual, and so is one name.
#[tokio::test]
async fn a_node_that_is_configured_with_itself_founds_and_is_found() {
    let world = World::new();
    for host in ["127.0.0.1", "localhost"] {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = world.config(0, &[]);
        (config.node.listen, config.node.peers) = (format!("127.0.0.1:{port}"), vec![format!("{host}:{port}")]);
        let us = open(config).await;
        let receipt = us.registers::<u32, u32>("n").unwrap().set(&1, &1, Ttl::NEVER).unwrap();
        until(&us, |stats| stats.node.peers.is_empty()).await;
        let quorum = guard(async { receipt.reached(Level::Quorum).within(Duration::ZERO).await }).await;
        assert_eq!((quorum.reached, quorum.needed), (true, 1), "{host}: it is no other node");
        let eu = world.open(1, &[&us]).await;
        linked(&us, &eu).await;
        guard(eu.shutdown()).await;
        guard(us.shutdown()).await;
    }
}

/// As while it is restarted and the old process takes its time.
#[tokio::test]
async fn a_process_that_finds_only_an_older_one_of_its_node_is_given_everything() {
    let world = World::new();
    let older = world.open(0, &[]).await;
    let (there, replica) = (older.registers::<u32, u32>("n").unwrap(), older.replica());
    (0..100).for_each(|n| drop(there.set(&n, &n, Ttl::NEVER).unwrap()));
    let newer = world.open(0, &[&older]).await;
    let here = newer.registers::<u32, u32>("n").unwrap();
    assert!((0..100).all(|n| here.get(&n).unwrap() == Some(n)));
    until(&newer, |stats| stats.node.cluster.member(replica).is_none()).await;
    assert_eq!(there.set(&1, &2, Ttl::NEVER).unwrap_err(), WriteError::Removed);
    here.set(&1, &2, Ttl::NEVER).unwrap();
    guard(newer.shutdown()).await;
    guard(older.shutdown()).await;
}

#[tokio::test]
async fn where_more_nodes_are_expected_than_known_one_is_no_majority() {
    let world = World::new();
    let mut config = world.config(0, &[]);
    config.membership.expected_nodes = 3;
    let us = open(config).await;
    let receipt = us.registers::<u32, u32>("n").unwrap().set(&1, &1, Ttl::NEVER).unwrap();
    let outcome = receipt.reached(Level::Quorum).within(Duration::ZERO).await;
    assert_eq!((outcome.reached, outcome.acked, outcome.needed), (false, 1, 2));
}

#[tokio::test]
async fn a_standby_has_everything_and_writes_nothing_until_it_is_promoted() {
    let world = World::new();
    let us = world.open(0, &[]).await;
    let by_hand = StandbyConfig { take_over_after: None, ..StandbyConfig::default() };
    let eu = open(world.config(1, &[&us]).standby(by_hand)).await;
    let (here, there) = (us.registers::<u32, u32>("n").unwrap(), eu.registers::<u32, u32>("n").unwrap());
    everywhere(&here.set(&1, &1, Ttl::NEVER).unwrap()).await;
    assert_eq!(there.get(&1).unwrap(), Some(1));
    let refused = there.set(&1, &2, Ttl::NEVER).unwrap_err();
    assert!(refused == WriteError::Standby && refused.is_retryable(), "{refused}");
    let role = |role| {
        let standby = eu.replica();
        move |stats: &CacheStats| stats.node.cluster.member(standby).is_some_and(|member| member.role == role)
    };
    until(&us, role(Role::Standby)).await;
    assert_eq!(eu.role().await, Some(Role::Standby));
    let router = us.router(RouterConfig::default());
    let client = Client::in_region("eu-central");
    assert_eq!(router.route(&client).unwrap().region, RegionId::new("us-east"), "it takes no writes");

    eu.promote().await.unwrap();
    everywhere(&there.set(&1, &2, Ttl::NEVER).unwrap()).await;
    until(&us, role(Role::Active)).await;
    assert_eq!(router.route(&client).unwrap().region, RegionId::new("eu-central"));
    us.drain(world::GUARD).await.unwrap();
    let draining = us.replica();
    until(&eu, |stats| stats.node.cluster.member(draining).is_some_and(|m| m.role == Role::Draining)).await;
    guard(us.resume()).await;
    eu.demote().await.unwrap();
    assert_eq!(there.set(&1, &3, Ttl::NEVER).unwrap_err(), WriteError::Standby);
    until(&us, role(Role::Standby)).await;
    guard(eu.shutdown()).await;
    assert_eq!((eu.promote().await, eu.role().await), (Err(RoleError::Stopped), None));
}

#[tokio::test]
async fn who_would_go_on_refusing_writes_is_not_promoted_and_says_why() {
    let world = World::new();
    let us = world.open(0, &[]).await;
    let by_hand = StandbyConfig { take_over_after: None, ..StandbyConfig::default() };
    let eu = open(world.config(1, &[&us]).standby(by_hand)).await;
    let there = eu.registers::<u32, u32>("n").unwrap();
    eu.drain(world::GUARD).await.unwrap();
    assert_eq!(eu.promote().await, Err(RoleError::Draining));
    assert_eq!(there.set(&1, &1, Ttl::NEVER).unwrap_err(), WriteError::Draining);
    guard(eu.resume()).await;
    assert_eq!(there.set(&1, &1, Ttl::NEVER).unwrap_err(), WriteError::Standby, "its role was not changed");
    eu.promote().await.unwrap();
    there.set(&1, &1, Ttl::NEVER).unwrap();
    eu.drain(world::GUARD).await.unwrap();
    assert_eq!(eu.demote().await, Ok(()), "it accepts no writes, now or after");
    guard(eu.resume()).await;
    assert_eq!(there.set(&1, &1, Ttl::NEVER).unwrap_err(), WriteError::Standby);
}

#[tokio::test]
async fn a_standby_takes_over_when_nobody_active_can_be_reached() {
    let world = World::new();
    let us = world.open(0, &[]).await;
    let soon = StandbyConfig { take_over_after: Some(Duration::from_millis(300)), ..StandbyConfig::default() };
    let eu = open(world.config(1, &[&us]).standby(soon)).await;
    let (mut events, me) = (eu.events(), eu.replica());
    everywhere(&us.registers::<u32, u32>("n").unwrap().set(&1, &1, Ttl::NEVER).unwrap()).await;
    guard(us.shutdown()).await;
    let is_active =
        |e| matches!(e, Event::RoleChanged { replica, role: Role::Active, .. } if replica == me).then_some(());
    event(&mut events, is_active).await;
    eu.registers::<u32, u32>("n").unwrap().set(&1, &2, Ttl::NEVER).unwrap();
}
