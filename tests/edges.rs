//! Edges in virtual time: what they give back and fetch, who lets whom in, and what counts.

#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/simulated.rs"]
mod simulated;

use std::time::Duration;

use bytes::Bytes;
use driftless::config::EdgeConfig;
use driftless::crdt::NEVER;
use driftless::error::FetchError;
use driftless::id::Role;
use driftless::node::{Level, Mark};
use driftless::sim::oracle::Key;
use driftless::sim::workload::{REGISTERS, key};
use driftless::sim::{SimCluster, SimConfig};
use driftless::store::{Body, KeyRef};
use simulated::ms;

/// Some nodes, of which those named by bit are edges that keep what is read for four seconds.
fn cluster(seed: u64, nodes: usize, edges: u64) -> SimCluster {
    let edge = EdgeConfig { keep_for: ms(4_000), fetch_timeout: ms(2_000) };
    let of_edges = usize::try_from(edges.count_ones()).unwrap();
    let mut cluster = SimCluster::new(seed, SimConfig { nodes, edges: (edges, edge), ..SimConfig::default() }).unwrap();
    let formed = |c: &SimCluster| {
        let knows_all = |at: usize| {
            c.node(at).is_some_and(|node| {
                let edges = node.members().live().filter(|(_, member)| member.profile.is_edge).count();
                let known = node.members().live().count();
                node.stats().joined && (known, edges) == (nodes, of_edges)
            })
        };
        (0..nodes).all(knows_all)
    };
    assert!(cluster.run_until(ms(20_000), formed).is_some());
    cluster
}

fn set(cluster: &mut SimCluster, at: usize, key: &Key, value: &'static [u8]) -> Mark {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().open(key.space.name, key.space.family).unwrap();
    let name = KeyRef::new(&space, &key.name);
    let done =
        cluster.write(at, &name, Some(1), |p, tick| p.set(&name, Bytes::from_static(value), NEVER, tick)).unwrap();
    Mark { partition: store.place(name.hash), dot: done.dot }
}

fn delete(cluster: &mut SimCluster, at: usize, key: &Key) {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().open(key.space.name, key.space.family).unwrap();
    let name = KeyRef::new(&space, &key.name);
    cluster.write(at, &name, None, |p, tick| p.delete(&name, tick)).unwrap();
}

/// What a host holds of a register, without reading it.
fn held(cluster: &SimCluster, at: usize, key: &Key) -> Option<Bytes> {
    let store = cluster.store(at)?;
    let space = store.spaces().find(key.space.name)?;
    let name = KeyRef::new(&space, &key.name);
    let partition = store.read(store.place(name.hash))?;
    match &partition.entry(&name)?.body {
        Body::Register(cell) => cell.as_ref()?.visible(cluster.now(at).wall_ms).cloned(),
        Body::Tree(_) | Body::Custom(_) => None,
    }
}

fn fetch(cluster: &mut SimCluster, at: usize, key: &Key) -> Result<(), FetchError> {
    let Some(id) = cluster.fetch(at, key) else { return Ok(()) };
    cluster.run_until(ms(5_000), |c| c.fetched(at, id).is_some()).unwrap();
    cluster.fetched(at, id).unwrap().clone()
}

/// A cluster where nobody has read for long the register that its first host wrote.
fn gone_cold(seed: u64, nodes: usize, edges: u64) -> (SimCluster, Key) {
    let mut cluster = cluster(seed, nodes, edges);
    let wanted = key(REGISTERS, 0);
    set(&mut cluster, 0, &wanted, b"a");
    cluster.run_for(COLD);
    (cluster, wanted)
}

const COLD: Duration = Duration::from_secs(20);

#[test]
fn an_edge_gives_back_what_nobody_reads_there_and_fetches_it_again() {
    let mut cluster = cluster(1, 3, 0b100);
    assert_eq!(cluster.node(2).unwrap().role(), Role::Edge);
    let (read, cold, never) = (key(REGISTERS, 0), key(REGISTERS, 1), key(REGISTERS, 2));
    set(&mut cluster, 0, &read, b"a");
    set(&mut cluster, 1, &cold, b"b");
    for _ in 0..COLD.as_secs() {
        cluster.run_for(ms(1_000));
        assert_eq!(fetch(&mut cluster, 2, &read), Ok(()));
    }
    assert_eq!(held(&cluster, 2, &read).unwrap(), b"a"[..]);
    assert_eq!((held(&cluster, 2, &cold), held(&cluster, 1, &cold).is_some()), (None, true));
    assert_eq!(fetch(&mut cluster, 2, &cold), Ok(()));
    assert_eq!(held(&cluster, 2, &cold).unwrap(), b"b"[..]);
    assert_eq!((fetch(&mut cluster, 2, &never), held(&cluster, 2, &never)), (Ok(()), None));
    let stats = cluster.node(2).unwrap().stats().edge;
    assert!(stats.evicted > 0 && (stats.fetched, stats.missing, stats.failed) == (1, 1, 0), "{stats:?}");
    assert_eq!(cluster.node(0).unwrap().stats().repair.differences, 0, "what was given back is no loss");

    set(&mut cluster, 0, &read, b"c");
    delete(&mut cluster, 1, &cold);
    cluster.run_for(ms(1_000));
    assert_eq!(held(&cluster, 2, &read).unwrap(), b"c"[..], "an update is there without a fetch");
    assert_eq!((held(&cluster, 2, &cold), cluster.fetch(2, &cold)), (None, None), "so is a deletion");
}

#[test]
fn what_an_edge_gave_back_cannot_be_compared_and_is_not_waited_for() {
    let (mut cluster, wanted) = gone_cold(7, 3, 0b100);
    assert_eq!(held(&cluster, 2, &wanted), None);
    for at in [0, 2] {
        let id = cluster.repair(at, ms(60_000));
        cluster.run_until(ms(10_000), |c| c.repaired(at, id).is_some()).unwrap();
        let report = cluster.repaired(at, id).unwrap();
        assert_eq!((report.is_complete(), report.differences, report.parted), (true, 0, 0), "{report:?}");
        assert_eq!((report.verified + report.spared, report.spared > 0), (report.of, true), "{report:?}");
    }
}

#[test]
fn a_fetch_goes_to_whoever_answers_and_says_so_if_nobody_does() {
    let (mut cluster, wanted) = gone_cold(2, 4, 0b1100);
    assert_eq!(held(&cluster, 3, &wanted), None);
    cluster.isolate(0);
    assert_eq!(fetch(&mut cluster, 3, &wanted), Ok(()));
    assert_eq!(held(&cluster, 3, &wanted).unwrap(), b"a"[..]);
    cluster.run_for(COLD);
    assert_eq!(held(&cluster, 3, &wanted), None);
    cluster.isolate(1);
    let ends = [FetchError::TimedOut, FetchError::Unreachable];
    assert_eq!(fetch(&mut cluster, 3, &wanted), Err(ends[0].clone()), "they were heard a moment ago");
    cluster.run_for(ms(5_000));
    assert_eq!(fetch(&mut cluster, 3, &wanted), Err(ends[1].clone()), "the other edge is not asked");
}

#[test]
fn an_edge_counts_for_no_level_but_its_own_writes_do() {
    let mut cluster = cluster(3, 3, 0b100);
    let wanted = key(REGISTERS, 0);
    cluster.isolate(2);
    let mark = set(&mut cluster, 0, &wanted, b"a");
    for level in [Level::Quorum, Level::All, Level::EachRegion] {
        let id = cluster.wait(0, mark, level, ms(2_000));
        cluster.run_for(ms(2_100));
        let outcome = cluster.outcome(0, id).unwrap();
        assert_eq!((outcome.reached, outcome.acked, outcome.needed), (true, 2, 2), "{level:?}: {outcome:?}");
    }
    cluster.heal();
    cluster.run_for(ms(5_000));
    cluster.isolate(1);
    let mark = set(&mut cluster, 2, &wanted, b"b");
    let id = cluster.wait(2, mark, Level::Quorum, ms(2_000));
    cluster.run_for(ms(2_100));
    let outcome = cluster.outcome(2, id).unwrap();
    assert_eq!((outcome.reached, outcome.acked, outcome.needed), (false, 1, 2), "{outcome:?}");
}

#[test]
fn a_node_that_finds_only_an_edge_waits_for_one_that_holds_everything() {
    let (mut cluster, wanted) = gone_cold(4, 3, 0b100);
    // The first hears the edge and not the second, which the edge hears.
    cluster.crash(0);
    cluster.cut_one_way(0, 1);
    cluster.cut_one_way(1, 0);
    cluster.start(0).unwrap();
    cluster.run_for(ms(10_000));
    assert!(!cluster.node(0).unwrap().stats().joined, "it neither joins through an edge nor founds beside one");
    cluster.heal();
    cluster.run_until(ms(10_000), |c| c.node(0).is_some_and(|node| node.stats().joined)).unwrap();
    assert_eq!(held(&cluster, 0, &wanted).unwrap(), b"a"[..]);
    assert_eq!(held(&cluster, 2, &wanted), None);
}

#[test]
fn an_edge_makes_way_where_everything_it_was_an_edge_of_is_gone() {
    let (mut cluster, _) = gone_cold(5, 3, 0b100);
    let after = key(REGISTERS, 1);
    let edge = cluster.replica(2).unwrap();
    [0, 1].iter().for_each(|at| cluster.crash(*at));
    cluster.run_for(ms(3_000));
    [0, 1].iter().for_each(|at| cluster.start(*at).unwrap());
    let one_cluster = |c: &SimCluster| {
        (0..3).all(|at| c.node(at).is_some_and(|n| n.stats().joined && n.members().live().count() == 3))
    };
    let took = cluster.run_until(ms(20_000), one_cluster);
    assert!(took.is_some_and(|took| took < ms(9_000)), "{took:?}");
    assert_ne!(cluster.replica(2), Some(edge));
    set(&mut cluster, 2, &after, b"b");
    cluster.run_for(ms(1_000));
    assert_eq!(held(&cluster, 0, &after).unwrap(), b"b"[..]);
}

#[test]
fn an_edge_alone_founds_nothing_and_stays_what_it_is() {
    let edge = EdgeConfig::default();
    let mut cluster = SimCluster::new(6, SimConfig { nodes: 2, edges: (0b10, edge), ..SimConfig::default() }).unwrap();
    cluster.crash(0);
    cluster.run_for(ms(10_000));
    assert!(!cluster.node(1).unwrap().stats().joined);
    cluster.start(0).unwrap();
    cluster.run_until(ms(10_000), |c| c.node(1).is_some_and(|node| node.stats().joined)).unwrap();
    cluster.input(1, driftless::node::Input::Promote);
    assert_eq!(cluster.node(1).unwrap().role(), Role::Edge);
    cluster.input(1, driftless::node::Input::Drain { leave: false });
    cluster.run_for(ms(50));
    let me = cluster.replica(1).unwrap();
    let profile = cluster.node(0).unwrap().members().get(me).unwrap().profile.clone();
    assert!(profile.is_edge, "also while it drains: {profile:?}");
}
