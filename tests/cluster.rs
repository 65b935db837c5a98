//! Whole nodes over real QUIC on loopback, through the public handle only.
//!
//! Every wait is for an event: a receipt, a token, a change, an event of the cluster. The only
//! timeout is a guard against waiting for ever. Everything listens on ports the system chooses.
#![cfg(feature = "net")]

#[path = "support/world.rs"]
mod world;

use std::fs;
use std::future::{Future, IntoFuture, poll_fn};
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crdts::{CmRDT, PNCounter};
use driftless::cache::Change;
use driftless::config::{EdgeConfig, IdentityConfig};
use driftless::crdt::custom::Erased;
use driftless::error::{ConfigError, FetchError, OpenError, PeerFault, StartError, WriteError};
use driftless::id::RegionId;
use driftless::{Cache, Config, Event, Level, Origin, RepairReport, Role, RoleError, Token, Touched, Ttl, WatchError};
use world::{GUARD, World, event, everywhere, guard, open, refused, settled};

#[tokio::test]
async fn what_one_node_writes_the_other_reads() {
    let (us, eu) = World::new().pair().await;
    let here = us.registers::<String, Vec<u32>>("scores").unwrap();
    let there = eu.registers::<String, Vec<u32>>("scores").unwrap();

    let receipt = here.set("alice", &vec![1, 2, 3], Ttl::minutes(1)).unwrap();
    assert_eq!(here.get("alice").unwrap(), Some(vec![1, 2, 3]), "a write is read at once where it was made");
    everywhere(&receipt).await;
    assert_eq!(there.get("alice").unwrap(), Some(vec![1, 2, 3]));

    everywhere(&there.delete("alice").unwrap()).await;
    assert_eq!(here.get("alice").unwrap(), None);
    assert!(matches!(here.touch("alice", Ttl::minutes(1)), Ok(None)), "nothing to touch");
    let stats = us.stats().await;
    let scores = stats.keyspace("scores").unwrap();
    assert_eq!((scores.hits, scores.misses, scores.writes), (1, 1, 1));
    assert_eq!((stats.node.cluster.members.len(), stats.node.peers.len()), (2, 1));
}

#[tokio::test]
async fn every_family_of_types_crosses() {
    let (us, eu) = World::new().pair().await;
    let (cart, cart_there) =
        (us.maps::<u32, String, u32>("carts").unwrap(), eu.maps::<u32, String, u32>("carts").unwrap());
    cart.put(&1, "apple", &2).unwrap();
    cart.put_ttl(&1, "pear", &1, Ttl::minutes(1)).unwrap();
    cart.remove(&1, "pear").unwrap().unwrap();
    cart.add(&1, "tags", "gift").unwrap();
    cart.add(&1, "tags", "sale").unwrap();
    cart.discard(&1, "tags", "sale").unwrap().unwrap();
    cart.increment(&1, "views", 5).unwrap();
    everywhere(&cart.increment(&1, "views", -2).unwrap()).await;
    assert_eq!(cart_there.entries().unwrap(), [(1, "apple".to_owned(), 2)]);
    assert_eq!(cart_there.get_all(&1).unwrap().len(), 1);
    assert_eq!(cart_there.siblings(&1, "apple").unwrap(), [2]);
    assert!(cart_there.members::<String, _, _>(&1, "tags").unwrap().contains("gift"));
    assert!(!cart_there.contains(&1, "tags", "sale").unwrap());
    assert_eq!(cart_there.count(&1, "views").unwrap(), 3);

    let (hits, hits_there) = (us.counters::<String>("hits").unwrap(), eu.counters::<String>("hits").unwrap());
    everywhere(&hits.add("home", 7, Ttl::minutes(1)).unwrap()).await;
    everywhere(&hits_there.add("home", 1, Ttl::minutes(1)).unwrap()).await;
    assert_eq!(hits.entries().unwrap(), [("home".to_owned(), 8)]);
    everywhere(&hits.reset("home").unwrap().unwrap()).await;
    assert_eq!(hits_there.value("home").unwrap(), 0);

    let (tags, tags_there) = (us.sets::<String, u8>("tags").unwrap(), eu.sets::<String, u8>("tags").unwrap());
    tags.add("a", &1, Ttl::NEVER).unwrap();
    everywhere(&tags.add("a", &2, Ttl::NEVER).unwrap()).await;
    everywhere(&tags_there.remove("a", &1).unwrap().unwrap()).await;
    assert_eq!(tags.members("a").unwrap().into_iter().collect::<Vec<_>>(), [2]);
    everywhere(&tags.clear("a").unwrap().unwrap()).await;
    assert!(tags_there.entries().unwrap().is_empty());
}

#[tokio::test]
async fn a_custom_type_is_merged_by_its_own_rules() {
    let world = World::new();
    let declare =
        |config: Config| config.custom("votes", "pn-counter/1", Arc::new(Erased::<PNCounter<u64>>::default()));
    let us = open(declare(world.config(0, &[]))).await;
    let eu = open(declare(world.config(1, &[&us]))).await;
    let vote = |cache: &Cache| {
        let votes = cache.custom::<String, PNCounter<u64>>("votes").unwrap();
        votes.update("cat", Ttl::NEVER, |state, actor| state.apply(state.inc(actor))).unwrap().1
    };
    everywhere(&vote(&us)).await;
    let both = [vote(&us), vote(&eu)];
    settled(&[&us, &eu], &both).await;
    for cache in [&us, &eu] {
        let votes = cache.custom::<String, PNCounter<u64>>("votes").unwrap();
        assert_eq!(votes.get("cat").unwrap().unwrap().read(), 3.into());
    }
    let undeclared = us.custom::<String, PNCounter<u64>>("likes").unwrap_err();
    assert_eq!(undeclared, OpenError::UndeclaredCustom { name: "likes".to_owned() });
}

#[tokio::test]
async fn copies_that_are_compared_on_demand_are_equal_and_it_costs_little() {
    let caches = World::new().three().await;
    let mut receipts = Vec::new();
    for (at, cache) in caches.iter().enumerate() {
        let there = cache.registers::<usize, usize>("n").unwrap();
        receipts.extend((0..50).map(|key| there.set(&(key * 3 + at), &at, Ttl::NEVER).unwrap()));
    }
    settled(&caches.iter().collect::<Vec<_>>(), &receipts).await;
    for cache in &caches {
        let report = guard(cache.repair(GUARD / 2)).await.unwrap();
        assert!(report.is_complete() && report.of == 2 * 64, "{report:?}");
        assert!(
            !RepairReport::default().is_complete(),
            "where there is nobody to compare with nothing was found equal"
        );
        assert_eq!(report.differences, 0);
        let stats = cache.stats().await;
        assert_eq!((stats.node.repair.differences, stats.node.repair.restored, stats.node.repairing), (0, 0, None));
    }
}

#[tokio::test]
async fn three_nodes_that_write_the_same_keys_at_once_converge() {
    let caches = World::new().three().await;
    let mut receipts = Vec::new();
    for round in 0..50_u32 {
        for (at, cache) in caches.iter().enumerate() {
            let users = cache.registers::<u32, String>("users").unwrap();
            receipts.push(users.set(&(round % 7), &format!("{at}/{round}"), Ttl::NEVER).unwrap());
            receipts.push(cache.counters::<u32>("hits").unwrap().add(&(round % 3), 1, Ttl::NEVER).unwrap());
        }
    }
    let last = receipts.last().unwrap();
    for level in [Level::Local, Level::Quorum, Level::EachRegion, Level::All] {
        assert!(guard(last.reached(level).into_future()).await.reached, "{level:?}");
    }
    settled(&caches.each_ref(), &receipts).await;
    let dump = |cache: &Cache| {
        let mut users = cache.registers::<u32, String>("users").unwrap().entries().unwrap();
        let mut hits = cache.counters::<u32>("hits").unwrap().entries().unwrap();
        users.sort();
        hits.sort_unstable();
        (users, hits)
    };
    let first = dump(&caches[0]);
    assert_eq!(first.1.iter().map(|(_, n)| n).sum::<i64>(), 150, "every increment counts once");
    assert!(caches.iter().all(|cache| dump(cache) == first));
    assert!(!caches[1].contexts().is_empty());
    for cache in caches {
        guard(cache.shutdown()).await;
    }
}

#[tokio::test]
async fn a_level_that_needs_a_node_that_is_gone_times_out_as_a_value_and_the_write_stands() {
    let caches = World::new().three().await;
    let [us, eu, ap] = &caches;
    let mut events = us.events();
    guard(ap.shutdown()).await;
    event(&mut events, |e| matches!(e, Event::Suspect { .. } | Event::Unreachable { .. }).then_some(())).await;

    let receipt = us.registers::<u32, u32>("n").unwrap().set(&1, &2, Ttl::NEVER).unwrap();
    assert!(receipt.reached(Level::Quorum).within(GUARD).await.reached);
    let outcome = receipt.reached(Level::All).within(Duration::from_millis(1)).await;
    assert_eq!((outcome.reached, outcome.acked, outcome.needed), (false, 2, 3));
    assert_eq!(outcome.missing[0].region, RegionId::new("ap-southeast"));
    let regions = receipt.reached(Level::EachRegion).within(Duration::ZERO).await;
    assert_eq!((regions.reached, regions.acked, regions.needed), (false, 2, 3));
    assert_eq!(eu.registers::<u32, u32>("n").unwrap().get(&1).unwrap(), Some(2));

    // A wait that nobody bounded ends with the cache, and one that is dropped is forgotten.
    tokio::select! {
        biased;
        outcome = receipt.reached(Level::All) => assert!(!outcome.reached),
        () = std::future::ready(()) => {}
    }
    let (ended, ()) = guard(async { tokio::join!(receipt.reached(Level::All).into_future(), us.shutdown()) }).await;
    assert_eq!((ended.reached, ended.acked, ended.needed), (false, 2, 3));
    assert!(!guard(receipt.reached(Level::Quorum).into_future()).await.reached, "nobody is asked after a shutdown");
    assert!(guard(receipt.reached(Level::Local).into_future()).await.reached);
}

#[tokio::test]
async fn a_watcher_hears_of_remote_and_local_changes_and_of_what_it_missed() {
    let (us, eu) = World::new().pair().await;
    let (here, there) = (us.registers::<u32, u32>("n").unwrap(), eu.registers::<u32, u32>("n").unwrap());
    let mut watch = there.watch();
    here.set(&1, &10, Ttl::NEVER).unwrap();
    assert_eq!(guard(watch.recv()).await, Ok(Change { key: 1, origin: Origin::Remote }));
    assert_eq!(there.get(&1).unwrap(), Some(10), "the value is there when the change is told");
    there.set(&2, &20, Ttl::NEVER).unwrap();
    assert_eq!(guard(watch.recv()).await, Ok(Change { key: 2, origin: Origin::Local }));

    for n in 0..1_030 {
        there.set(&n, &n, Ttl::NEVER).unwrap();
    }
    assert_eq!(guard(watch.recv()).await, Err(WatchError::Lagged { missed: 6 }));
    assert_eq!(guard(watch.recv()).await, Ok(Change { key: 6, origin: Origin::Local }));

    guard(eu.shutdown()).await;
    let over = guard(async {
        loop {
            if let Err(error) = watch.recv().await {
                return error;
            }
        }
    });
    assert_eq!(over.await, WatchError::Closed);
    assert_eq!(guard(there.watch().recv()).await, Err(WatchError::Closed));
}

#[tokio::test]
async fn a_token_carries_what_a_client_wrote_to_another_region() {
    let (us, eu) = World::new().pair().await;
    let (here, there) = (us.registers::<u32, u32>("n").unwrap(), eu.registers::<u32, u32>("n").unwrap());
    let mut token = here.set(&1, &10, Ttl::NEVER).unwrap().token();
    token.merge(&here.set(&2, &20, Ttl::NEVER).unwrap().token());
    token.merge(&here.token(&1).unwrap());
    assert!(us.covers(&token) && eu.caught_up(&token, GUARD).await && eu.covers(&token));
    assert_eq!((there.get(&1).unwrap(), there.get(&2).unwrap()), (Some(10), Some(20)));

    guard(us.shutdown()).await;
    let unsent = Token::new();
    assert!(eu.covers(&unsent), "an empty token asks for nothing");
    let lonely = there.set(&3, &30, Ttl::NEVER).unwrap().token();
    assert!(!us.caught_up(&lonely, Duration::ZERO).await && !guard(us.caught_up(&lonely, GUARD)).await);
}

#[tokio::test]
async fn a_node_that_starts_again_gets_its_state_back_and_succeeds_its_old_id() {
    let world = World::new();
    let (us, eu) = world.pair().await;
    let receipt = eu.registers::<u32, u32>("n").unwrap().set(&1, &10, Ttl::NEVER).unwrap();
    everywhere(&receipt).await;
    let (old, mut events) = (eu.replica(), us.events());
    guard(eu.shutdown()).await;
    drop(eu);

    let eu = world.open(1, &[&us]).await;
    assert_ne!(eu.replica(), old);
    assert_eq!(eu.registers::<u32, u32>("n").unwrap().get(&1).unwrap(), Some(10), "there as soon as it is open");
    event(&mut events, |e| matches!(e, Event::MemberRemoved { replica, .. } if replica == old).then_some(())).await;
    let receipt = us.registers::<u32, u32>("n").unwrap().set(&1, &11, Ttl::NEVER).unwrap();
    everywhere(&receipt).await;
    assert_eq!(us.stats().await.node.cluster.members.len(), 2);
}

#[tokio::test]
async fn shutting_down_joins_everything_and_later_writes_are_refused() {
    let cache = World::new().open(0, &[]).await;
    let numbers = cache.registers::<u32, u32>("n").unwrap();
    numbers.set(&1, &1, Ttl::NEVER).unwrap();
    let (mut events, address) = (cache.events(), cache.local_addr());
    guard(cache.shutdown()).await;
    guard(cache.shutdown()).await;
    assert_eq!(guard(events.recv()).await, Err(WatchError::Closed));
    assert_eq!(numbers.set(&1, &2, Ttl::NEVER).unwrap_err(), WriteError::Stopped);
    assert_eq!(numbers.get(&1).unwrap(), Some(1), "reads go on");
    assert_eq!(cache.stats().await.node.cluster.members.len(), 0);
    drop(UdpSocket::bind(address).unwrap());
}

/// Nobody sends what is written once the driver was aborted, so it must not be accepted.
#[tokio::test]
async fn a_shutdown_that_is_given_up_refuses_later_writes_too() {
    let cache = World::new().open(0, &[]).await;
    let numbers = cache.registers::<u32, u32>("n").unwrap();
    let mut shutdown = Box::pin(cache.shutdown());
    assert!(poll_fn(|cx| Poll::Ready(shutdown.as_mut().poll(cx).is_pending())).await, "the driver had no turn yet");
    drop(shutdown);
    assert_eq!(numbers.set(&1, &1, Ttl::NEVER).unwrap_err(), WriteError::Stopped);
}

#[test]
fn a_runtime_that_ends_under_a_cache_ends_its_writes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cache = runtime.block_on(World::new().open(0, &[]));
    let numbers = cache.registers::<u32, u32>("n").unwrap();
    numbers.set(&1, &1, Ttl::NEVER).unwrap();
    drop(runtime);
    assert_eq!(numbers.set(&1, &2, Ttl::NEVER).unwrap_err(), WriteError::Stopped);
    assert_eq!(numbers.get(&1).unwrap(), Some(1), "reads go on");
}

#[tokio::test]
async fn dropping_a_cache_frees_its_port_and_stops_writes() {
    let cache = World::new().open(0, &[]).await;
    let (numbers, mut events) = (cache.registers::<u32, u32>("n").unwrap(), cache.events());
    drop(cache);
    assert_eq!(guard(events.recv()).await, Err(WatchError::Closed));
    assert_eq!(numbers.set(&1, &2, Ttl::NEVER).unwrap_err(), WriteError::Stopped);
}

#[tokio::test]
async fn a_write_over_a_limit_is_refused_and_changes_nothing() {
    let world = World::new();
    let mut config = world.config(0, &[]);
    config.limits.value_bytes_max = 100;
    config.limits.key_bytes_max = 10;
    let cache = open(config).await;
    let texts = cache.registers::<String, String>("texts").unwrap();
    texts.set("k", &"old".to_owned(), Ttl::NEVER).unwrap();
    let before = cache.digest();

    let long = texts.set("k", &"x".repeat(99), Ttl::NEVER).unwrap_err();
    assert_eq!(long, WriteError::ValueTooLarge { len: 101, max: 100 });
    let key = texts.set("0123456789", &String::new(), Ttl::NEVER).unwrap_err();
    assert_eq!(key, WriteError::KeyTooLong { len: 11, max: 10 });
    assert_eq!(texts.set("k", &String::new(), Ttl::seconds(0)).unwrap_err(), WriteError::ZeroTtl);
    assert_eq!(texts.touch("k", Ttl::from(Duration::ZERO)).unwrap_err(), WriteError::ZeroTtl);
    texts.set_budget(1);
    let full = texts.set("k2", &String::new(), Ttl::NEVER).unwrap_err();
    assert!(matches!(full, WriteError::OverCapacity { budget: 1, .. }) && full.is_retryable(), "{full}");
    assert_eq!((cache.digest(), texts.get("k").unwrap()), (before, Some("old".to_owned())));

    let other = cache.maps::<String, String, String>("texts").unwrap_err();
    assert_eq!(other, OpenError::OtherFamily { name: "texts".to_owned(), existing: "registers", wanted: "maps" });
}

#[tokio::test]
async fn a_map_is_refused_to_outgrow_a_frame() {
    let cache = World::new().open(0, &[]).await;
    let maps = cache.maps::<u8, u32, String>("maps").unwrap();
    let value = "x".repeat(100_000);
    let grown = (0..10).find_map(|field| maps.put(&1, &field, &value).err());
    assert!(matches!(grown, Some(WriteError::EntryTooLarge { max: 262_144, .. })), "{grown:?}");
    assert!(maps.remove(&1, &0).unwrap().is_some(), "what frees room is always admitted");
}

#[tokio::test]
async fn a_sliding_life_is_extended_only_when_half_of_it_is_gone() {
    let cache = World::new().open(0, &[]).await;
    let sessions = cache.registers::<String, u32>("sessions").unwrap();
    let (half_hour, minute) = (Ttl::minutes(30), Ttl::minutes(1));
    assert!(matches!(sessions.touch_if_half("a", half_hour), Ok(Touched::Missing)));
    sessions.set("a", &1, minute).unwrap();
    let before = cache.digest();
    assert!(matches!(sessions.touch_if_half("a", minute), Ok(Touched::Fresh)));
    assert_eq!(cache.digest(), before, "nothing was minted");
    assert!(matches!(sessions.touch_if_half("a", half_hour), Ok(Touched::Extended(_))));
    assert_ne!(cache.digest(), before);
}

#[tokio::test]
async fn a_node_whose_peers_do_not_answer_opens_alone() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let world = World::new();
    let mut config = world.config(0, &[]);
    config.node.peers = vec![nobody.local_addr().unwrap().to_string()];
    let cache = open(config).await;
    let receipt = cache.registers::<u32, u32>("n").unwrap().set(&1, &1, Ttl::NEVER).unwrap();
    let outcome = receipt.reached(Level::Quorum).within(Duration::from_millis(1)).await;
    assert!(!outcome.reached && outcome.acked == 1 && outcome.needed == 2, "one of two configured nodes: {outcome:?}");
    guard(cache.shutdown()).await;
}

#[tokio::test]
async fn what_cannot_start_says_why_and_starts_nothing() {
    let world = World::new();
    let first = world.open(0, &[]).await;
    let mut taken = world.config(1, &[]);
    taken.node.listen = first.local_addr().to_string();
    assert!(matches!(refused(taken).await, StartError::Bind { addr, .. } if addr == first.local_addr()));

    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a-directory-without-a-key");
    world.certify(1).write(&dir).unwrap();
    fs::remove_file(dir.join("node.key")).unwrap();
    let unreadable = world.config(1, &[]).identity(IdentityConfig::in_dir(dir));
    let error = refused(unreadable).await;
    assert!(matches!(&error, StartError::Unreadable { path, .. } if path.ends_with("node.key")), "{error}");

    let mut elsewhere = world.config(1, &[]);
    elsewhere.node.region = RegionId::new("mars");
    let error = refused(elsewhere).await;
    assert!(
        matches!(&error, StartError::OtherIdentity { certificate, config }
            if certificate.contains("eu-central") && config.contains("mars")),
        "{error}"
    );
    let mut nobody = world.config(1, &[]);
    nobody.node.identity = None;
    assert!(matches!(refused(nobody).await, StartError::NoIdentity));
    let mut nowhere = world.config(1, &[]);
    nowhere.node.listen = "no port".to_owned();
    let error = refused(nowhere).await;
    assert!(matches!(&error, StartError::Config(ConfigError::Field { field: "node.listen", .. })), "{error}");
}

#[tokio::test]
async fn nodes_with_other_partition_counts_refuse_each_other_and_both_keep_serving() {
    let world = World::new();
    let us = world.open(0, &[]).await;
    let mut seen_here = us.events();
    let mut config = world.config(1, &[&us]);
    config.limits.partitions = 16;
    let eu = open(config).await;
    let mut seen_there = eu.events();

    let fault = |e| if let Event::Refused { fault, .. } = e { Some(fault) } else { None };
    let expected = |theirs: &str, ours: &str| PeerFault::Incompatible {
        what: "the number of partitions",
        theirs: theirs.to_owned(),
        ours: ours.to_owned(),
    };
    assert_eq!(event(&mut seen_here, fault).await, expected("16", "64"));
    assert_eq!(event(&mut seen_there, fault).await, expected("64", "16"));
    for cache in [&us, &eu] {
        let numbers = cache.registers::<u32, u32>("n").unwrap();
        numbers.set(&1, &1, Ttl::NEVER).unwrap();
        assert_eq!(numbers.get(&1).unwrap(), Some(1));
    }
}

/// An edge that keeps what is read for half a second.
fn edge_of(world: &World, at: usize, peers: &[&Cache]) -> Config {
    let edge = EdgeConfig { keep_for: Duration::from_millis(500), ..EdgeConfig::default() };
    let mut config = world.config(at, peers).edge(edge);
    config.membership.max_drift = Duration::from_millis(100);
    config.replication.collect_after = Duration::from_millis(250);
    config
}

#[tokio::test]
async fn an_edge_gives_back_what_is_not_read_and_fetches_it_on_a_miss() {
    let world = World::new();
    let (us, eu) = world.pair().await;
    let edge = open(edge_of(&world, 2, &[&us, &eu])).await;
    assert_eq!(edge.role().await, Some(Role::Edge));
    assert_eq!(edge.promote().await, Err(RoleError::Edge));
    let [here, there, at_edge] = [&us, &eu, &edge].map(|cache| cache.registers::<String, u32>("prices").unwrap());
    here.set("apple", &1, Ttl::NEVER).unwrap();
    settled(&[&us, &eu, &edge], &[here.set("pear", &2, Ttl::NEVER).unwrap()]).await;

    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let given_back = guard(async {
        loop {
            tick.tick().await;
            let warm = at_edge.get("apple").unwrap();
            let edge = edge.stats().await.node.edge;
            if edge.evicted > 0 {
                return (warm, edge);
            }
        }
    });
    let (warm, stats) = given_back.await;
    assert_eq!((warm, stats.evicted, stats.fetches), (Some(1), 1, 0), "apples are asked for all the time");
    assert_eq!((there.get("pear").unwrap(), at_edge.get("pear").unwrap()), (Some(2), None));

    let (one, other) = tokio::join!(at_edge.fetch("pear"), at_edge.fetch("pear"));
    assert_eq!((one, other, at_edge.get("pear").unwrap()), (Ok(Some(2)), Ok(Some(2)), Some(2)));
    assert_eq!(at_edge.fetch("plum").await, Ok(None), "there is none anywhere");
    assert_eq!(there.fetch("plum").await, Ok(None));
    let fetched = edge.stats().await.node.edge;
    assert_eq!((fetched.fetches, fetched.fetched, fetched.missing, fetched.failed), (3, 2, 1, 0));

    let updated = there.set("pear", &3, Ttl::NEVER).unwrap();
    settled(&[&us, &eu, &edge], &[updated, here.delete("apple").unwrap()]).await;
    assert_eq!((at_edge.get("pear").unwrap(), at_edge.get("apple").unwrap()), (Some(3), None));
    assert_eq!(at_edge.fetch("apple").await, Ok(None));
    assert_eq!(edge.stats().await.node.edge.fetches, 3, "updates and deletions come by themselves");
    edge.shutdown().await;
    assert_eq!(at_edge.fetch("plum").await, Err(FetchError::Stopped));
}

#[tokio::test]
async fn a_read_at_a_level_shows_what_had_reached_it_and_says_who_has_not_answered() {
    let [us, eu, ap] = World::new().three().await;
    let [here, there, last] = [&us, &eu, &ap].map(|cache| cache.registers::<String, u32>("limits").unwrap());
    let none = last.read("alice", Level::All).within(GUARD).await.unwrap();
    assert_eq!((none.value, none.outcome.reached, none.outcome.acked), (None, true, 3));
    for n in 0..50 {
        let receipt = here.set("alice", &n, Ttl::NEVER).unwrap();
        assert!(receipt.reached(Level::Quorum).within(GUARD).await.reached);
        let (one, other) = tokio::join!(there.read("alice", Level::Quorum), last.read("alice", Level::Quorum));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(one.outcome.reached && other.outcome.reached);
        assert_eq!((one.value, other.value), (Some(n), Some(n)));
    }
    assert!(last.read("alice", Level::Local).await.unwrap().outcome.reached);
    let long = "x".repeat(70_000);
    assert_eq!(last.read(long.as_str(), Level::All).await.unwrap().value, None, "no key is so long");

    us.shutdown().await;
    eu.shutdown().await;
    let alone = last.read("alice", Level::Quorum).within(Duration::from_millis(200)).await.unwrap();
    assert_eq!((alone.value, alone.outcome.reached), (Some(49), false));
    ap.shutdown().await;
    let stopped = last.read("alice", Level::Quorum).await.unwrap();
    assert_eq!((stopped.value, stopped.outcome.reached), (Some(49), false));
}
