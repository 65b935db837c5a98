//! Coming and going of whole nodes over real QUIC on loopback: who leaves in order, and who is removed.
#![cfg(feature = "net")]

#[path = "support/world.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use driftless::error::{DrainError, RemoveError, RenewError, StartError, WriteError};
use driftless::id::{RegionId, ReplicaId};
use driftless::routing::{Client, RouteError, RouterConfig};
use driftless::{Departure, Event, Registers, Ttl};
use tokio::task::JoinSet;
use world::{GUARD, World, event, everywhere, guard};

#[tokio::test]
async fn who_leaves_hands_everything_over_and_nobody_waits_for_it() {
    let [us, eu, ap] = World::new().three().await;
    let (mut events, gone) = (us.events(), ap.replica());
    let numbers = ap.registers::<u32, u32>("n").unwrap();
    for n in 0..100 {
        numbers.set(&n, &(n * 2), Ttl::NEVER).unwrap();
    }
    everywhere(&numbers.set(&100, &200, Ttl::NEVER).unwrap()).await;
    ap.leave(GUARD).await.unwrap();
    assert_eq!(numbers.set(&1, &3, Ttl::NEVER).unwrap_err(), WriteError::Stopped);

    let told =
        |e| if let Event::MemberRemoved { replica, how, .. } = e { (replica == gone).then_some(how) } else { None };
    assert_eq!(event(&mut events, told).await, Departure::Left);
    for cache in [&us, &eu] {
        let there = cache.registers::<u32, u32>("n").unwrap();
        assert!(
            (0..100).all(|n| there.get(&n).unwrap() == Some(n * 2)),
            "all of it, although nobody waited for receipts"
        );
    }
    everywhere(&us.registers::<u32, u32>("n").unwrap().set(&1, &1, Ttl::NEVER).unwrap()).await;
    assert_eq!(us.cluster().await.members.len(), 2);
    assert_eq!(guard(ap.leave(GUARD)).await, Err(DrainError::Stopped), "once is enough");
}

#[tokio::test]
async fn a_region_that_says_it_is_too_busy_is_spared_while_others_have_room() {
    let [us, eu, ap] = World::new().three().await;
    let router = us.router(RouterConfig::default());
    let first = || router.ranking(&Client::in_region("eu-central"))[0].clone();
    assert_eq!(first().as_str(), "eu-central");
    let becomes = async |spared: bool| {
        guard(async {
            while (first().as_str() != "eu-central") != spared {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    eu.set_load(Some(95)).await;
    becomes(true).await;
    assert_eq!(us.cluster().await.member(eu.replica()).unwrap().load, Some(95));
    eu.set_load(None).await;
    becomes(false).await;
    drop(ap);
}

#[tokio::test]
async fn who_drains_can_be_shut_down_and_loses_nothing_or_goes_on() {
    let (us, eu) = World::new().pair().await;
    let numbers = eu.registers::<u32, u32>("n").unwrap();
    for n in 0..100 {
        numbers.set(&n, &(n * 2), Ttl::NEVER).unwrap();
    }
    eu.drain(GUARD).await.unwrap();
    assert_eq!(numbers.set(&1, &3, Ttl::NEVER).unwrap_err(), WriteError::Draining);
    let there = us.registers::<u32, u32>("n").unwrap();
    assert!((0..100).all(|n| there.get(&n).unwrap() == Some(n * 2)));
    everywhere(&there.set(&1, &7, Ttl::NEVER).unwrap()).await;
    guard(eu.resume()).await;
    numbers.set(&1, &3, Ttl::NEVER).unwrap();
    eu.drain(GUARD).await.unwrap();
    guard(eu.shutdown()).await;
    assert_eq!(there.get(&1).unwrap(), Some(3));
    assert_eq!(us.cluster().await.members.len(), 2, "it is expected back");
}

#[tokio::test]
async fn who_leaves_and_drains_at_once_leaves_and_each_caller_is_told_what_it_asked() {
    for drains_first in [false, true] {
        let (us, eu) = World::new().pair().await;
        let (mut events, gone) = (us.events(), eu.replica());
        let numbers = eu.registers::<u32, u32>("n").unwrap();
        for n in 0..100 {
            numbers.set(&n, &n, Ttl::NEVER).unwrap();
        }
        let (left, drained) = if drains_first {
            let (drained, left) = tokio::join!(biased; eu.drain(GUARD), eu.leave(GUARD));
            (left, drained)
        } else {
            tokio::join!(biased; eu.leave(GUARD), eu.drain(GUARD))
        };
        assert_eq!((left, drained), (Ok(()), Ok(())));
        let told =
            |e| if let Event::MemberRemoved { replica, how, .. } = e { (replica == gone).then_some(how) } else { None };
        assert_eq!(event(&mut events, told).await, Departure::Left);
        assert_eq!(us.cluster().await.members.len(), 1);
    }
}

#[tokio::test]
async fn who_has_nobody_to_hand_anything_to_stays_and_goes_on() {
    let us = World::new().open(0, &[]).await;
    let numbers = us.registers::<u32, u32>("n").unwrap();
    numbers.set(&1, &1, Ttl::NEVER).unwrap();
    assert_eq!(us.leave(Duration::ZERO).await, Err(DrainError::NotHandedOver { behind: Vec::new() }));
    numbers.set(&1, &2, Ttl::NEVER).unwrap();
    assert_eq!(us.cluster().await.members.len(), 1);
}

#[tokio::test]
async fn an_operator_removes_who_will_not_come_back() {
    let [us, eu, ap] = World::new().three().await;
    let (gone, mut events) = (ap.replica(), us.events());
    guard(ap.shutdown()).await;
    event(&mut events, |e| matches!(e, Event::Suspect { .. } | Event::Unreachable { .. }).then_some(())).await;
    assert_eq!(eu.cluster().await.members.len(), 3, "a member that is silent stays one");

    assert_eq!(guard(us.remove(us.replica())).await, Err(RemoveError::Myself));
    assert_eq!(guard(us.remove(ReplicaId(7))).await, Err(RemoveError::NotAMember { replica: ReplicaId(7) }));
    guard(us.remove(gone)).await.unwrap();
    let told =
        |e| if let Event::MemberRemoved { replica, how, .. } = e { (replica == gone).then_some(how) } else { None };
    assert_eq!(event(&mut events, told).await, Departure::Removed);
    assert_eq!(guard(us.remove(gone)).await, Err(RemoveError::NotAMember { replica: gone }));
    everywhere(&us.registers::<u32, u32>("n").unwrap().set(&1, &1, Ttl::NEVER).unwrap()).await;
    assert_eq!(us.cluster().await.members.len(), 2);
    assert_eq!(guard(ap.remove(us.replica())).await, Err(RemoveError::Stopped));
}

#[tokio::test]
async fn clients_go_elsewhere_as_soon_as_a_region_is_called_unreachable() {
    let [us, eu, ap] = World::new().three().await;
    let (router, mut events, gone) = (us.router(RouterConfig::default()), us.events(), eu.replica());
    let client = Client::in_region("eu-central");
    assert_eq!(router.route(&client).unwrap().region, RegionId::new("eu-central"));
    guard(eu.shutdown()).await;
    event(&mut events, |e| matches!(e, Event::Unreachable { replica, .. } if replica == gone).then_some(())).await;
    let ranking: Vec<String> = router.ranking(&client).iter().map(|region| region.as_str().to_owned()).collect();
    assert_eq!(ranking.len(), 2);
    assert!(!ranking.contains(&"eu-central".to_owned()), "{ranking:?}");

    let mut asked = Vec::new();
    let answer = router
        .call(&Client::in_region("us-east"), async |region| {
            asked.push(region.clone());
            if asked.len() == 1 { Err("down for a moment") } else { Ok(7) }
        })
        .await;
    assert_eq!((answer, asked), (Ok(7), vec![RegionId::new("us-east"), RegionId::new("ap-southeast")]));
    let nobody = router.call(&client, async |_| Err::<(), _>("no")).await;
    assert!(matches!(nobody, Err(RouteError::AllFailed { tried, .. }) if tried.len() == 2));
    router.drain(&RegionId::new("us-east"), true);
    router.drain(&RegionId::new("ap-southeast"), true);
    assert_eq!(router.route(&client), Err(RouteError::NoHealthyRegions { known: 3 }));
    guard(ap.shutdown()).await;
}

/// Writes without pause, and waits for all members now and then; returns how often until a write failed or it was over.
async fn write_until(over: Arc<AtomicBool>, numbers: Registers<u32, u32>) -> Result<u32, WriteError> {
    let mut written = 0;
    while !over.load(Ordering::Relaxed) {
        let receipt = numbers.set(&(written % 100), &written, Ttl::NEVER)?;
        written += 1;
        if written.is_multiple_of(16) {
            everywhere(&receipt).await;
        }
    }
    Ok(written)
}

/// From one CA to the next and back, a hundred times: each time first both are trusted, then the new certificate is shown,
/// then the new CA alone is trusted.
#[tokio::test]
async fn certificates_and_cas_are_renewed_a_hundred_times_and_nothing_is_interrupted() {
    let (first, second) = (World::new(), World::new());
    let (us, eu) = first.pair().await;
    let (numbers, mut events) = (us.registers::<u32, u32>("n").unwrap(), us.events());
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for cache in [&us, &eu] {
        writers.spawn(write_until(Arc::clone(&over), cache.registers::<u32, u32>("load").unwrap()));
    }
    for round in 0..100 {
        let (old, new) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let stages = [(old, vec![old, new]), (new, vec![old, new]), (new, vec![new])];
        for (shown, trusted) in stages {
            for (at, cache) in [&us, &eu].into_iter().enumerate() {
                cache.renew(&shown.identity_trusting(at, &trusted)).await.unwrap();
            }
        }
        everywhere(&numbers.set(&round, &round, Ttl::NEVER).unwrap()).await;
    }
    over.store(true, Ordering::Relaxed);
    let written = guard(writers.join_all()).await;
    let went_on = |written: &Result<u32, WriteError>| written.as_ref().is_ok_and(|written| *written > 100);
    assert!(written.iter().all(went_on), "no write failed, and none waited for long: {written:?}");
    // Who only has a certificate of the CA that is trusted now can join, who has one of the other cannot.
    let ap = first.open(2, &[&us, &eu]).await;
    assert_eq!(ap.registers::<u32, u32>("n").unwrap().get(&99).unwrap(), Some(99));
    let joined = event(&mut events, |e| {
        let is_down = matches!(e, Event::Suspect { .. } | Event::Unreachable { .. } | Event::LinkDown { .. });
        let has_joined = matches!(e, Event::MemberJoined { replica, .. } if replica == ap.replica());
        (is_down || has_joined).then_some(if is_down { Err(e) } else { Ok(()) })
    });
    assert_eq!(joined.await, Ok(()), "no link went down meanwhile");

    let other = us.renew(&second.identity_trusting(1, &[&second])).await;
    assert!(matches!(other, Err(RenewError::Unusable(StartError::OtherIdentity { .. }))), "{other:?}");
}

#[tokio::test]
async fn who_was_removed_by_mistake_is_told_and_comes_back_when_it_may() {
    let [us, eu, ap] = World::new().three().await;
    let (former, mut events) = (ap.replica(), ap.events());
    let numbers = ap.registers::<u32, u32>("n").unwrap();
    everywhere(&numbers.set(&1, &1, Ttl::NEVER).unwrap()).await;
    assert!(!guard(ap.rejoin()).await, "it was not removed");
    guard(us.remove(former)).await.unwrap();
    event(&mut events, |e| (e == Event::Removed).then_some(())).await;
    assert_eq!(numbers.set(&1, &2, Ttl::NEVER).unwrap_err(), WriteError::Removed);
    assert_eq!(numbers.get(&1).unwrap(), Some(1));

    assert!(guard(ap.rejoin()).await);
    let became = |e| if let Event::CameBack { former, replica, .. } = e { Some((former, replica)) } else { None };
    let (was, is) = event(&mut events, became).await;
    assert_eq!((was, is), (former, ap.replica()));
    assert_ne!(is, former);
    event(&mut events, |e| matches!(e, Event::Joined { founded: false }).then_some(())).await;
    assert_eq!(numbers.get(&1).unwrap(), Some(1), "the same handle, and the cluster's state");
    everywhere(&numbers.set(&1, &3, Ttl::NEVER).unwrap()).await;
    for cache in [&us, &eu] {
        assert_eq!(cache.registers::<u32, u32>("n").unwrap().get(&1).unwrap(), Some(3));
        assert_eq!(cache.cluster().await.members.len(), 3);
    }
}
