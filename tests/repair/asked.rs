//! Stories of whole clusters whose copies are compared because somebody asked: what is reported, when, and how fast is given
//! back what was lost.

use std::time::Duration;

use driftless::sim::{SimCluster, SimConfig};
use driftless::store::KeyRef;

use crate::simulated::{converged, formed, get, ms, set};

fn pair(seed: u64) -> SimCluster {
    let mut cluster = formed(seed, SimConfig { nodes: 2, ..SimConfig::default() });
    cluster.run_for(ms(2_000));
    cluster
}

#[test]
fn what_was_not_compared_because_its_peer_went_is_not_reported_as_equal() {
    let mut cluster = pair(1);
    cluster.isolate(1);
    let id = cluster.repair(0, ms(5_000));
    cluster.run_for(ms(4_900));
    assert_eq!(cluster.repaired(0, id), None, "it may link again");
    cluster.run_for(ms(101));
    let report = cluster.repaired(0, id).unwrap();
    assert_eq!((report.is_complete(), report.verified, report.parted), (false, 0, report.of), "{report:?}");
    assert!(report.of > 0);
}

#[test]
fn who_links_again_in_time_is_compared_to_the_end() {
    let mut cluster = pair(2);
    cluster.isolate(1);
    let id = cluster.repair(0, ms(30_000));
    cluster.run_for(ms(3_000));
    assert!(cluster.node(0).unwrap().stats().peers.is_empty(), "the link has ended");
    assert_eq!(cluster.repaired(0, id), None);
    cluster.heal();
    cluster.run_until(ms(20_000), |c| c.repaired(0, id).is_some()).unwrap();
    let report = cluster.repaired(0, id).unwrap();
    assert_eq!((report.is_complete(), report.verified, report.parted), (true, report.of, 0), "{report:?}");
}

#[test]
fn who_will_not_come_back_is_not_waited_for() {
    let mut cluster = pair(3);
    cluster.crash(1);
    let id = cluster.repair(0, ms(60_000));
    cluster.run_for(ms(2_000));
    assert_eq!(cluster.repaired(0, id), None);
    cluster.start(1).unwrap();
    cluster.run_until(ms(20_000), |c| c.repaired(0, id).is_some()).unwrap();
    let report = cluster.repaired(0, id).unwrap();
    assert_eq!((report.is_complete(), report.parted), (false, report.of), "another replica has its place: {report:?}");
}

#[test]
fn who_has_not_joined_compares_nothing_and_says_so_at_once() {
    let mut cluster = SimCluster::new(4, SimConfig::default()).unwrap();
    cluster.set_skew_ms(2, 3_600_000);
    cluster.run_for(ms(8_000));
    assert!(!cluster.node(2).unwrap().stats().joined, "its clock is refused");
    let id = cluster.repair(2, ms(1_000));
    cluster.run_for(ms(1));
    let report = cluster.repaired(2, id).unwrap();
    assert_eq!((report.of, report.is_complete()), (0, false));
}

#[test]
fn of_several_who_ask_each_has_a_time_and_a_report_of_its_own() {
    for (first, second) in [(1_000, 30_000), (30_000, 1_000)] {
        let mut cluster = pair(5);
        cluster.isolate(1);
        let (first, second) = (cluster.repair(0, ms(first)), cluster.repair(0, ms(second)));
        cluster.run_for(ms(1_001));
        let mut reports = [first, second].map(|id| cluster.repaired(0, id));
        reports.sort_by_key(Option::is_none);
        let [Some(short), None] = reports else { panic!("{reports:?}") };
        assert_eq!((short.is_complete(), short.verified), (false, 0), "{short:?}");
        cluster.heal();
        let reports = |c: &SimCluster| [first, second].map(|id| c.repaired(0, id));
        cluster.run_until(ms(20_000), |c| reports(c).iter().all(Option::is_some)).unwrap();
        let complete = reports(&cluster).iter().flatten().filter(|report| report.is_complete()).count();
        assert_eq!(complete, 1, "whoever had the time");
    }
}

#[test]
fn who_asks_while_many_others_do_is_told_at_once_that_nothing_was_compared() {
    let mut cluster = pair(7);
    cluster.isolate(1);
    let ids: Vec<_> = (0..17).map(|_| cluster.repair(0, ms(1_000))).collect();
    let told = |c: &SimCluster| ids.iter().filter_map(|id| c.repaired(0, *id)).collect::<Vec<_>>();
    assert!(matches!(told(&cluster)[..], [report] if report.of > 0 && report.verified == 0), "{:?}", told(&cluster));
    cluster.run_for(ms(1_000));
    assert_eq!(told(&cluster).len(), 17);
}

#[test]
fn two_who_ask_at_once_do_not_hold_each_other_up() {
    let mut cluster = pair(8);
    set(&mut cluster, 0, "k", b"v").unwrap();
    cluster.run_for(ms(1_000));
    lose(&cluster, 1, "k");
    let ids = [0, 1].map(|at| (at, cluster.repair(at, ms(60_000))));
    let told = |c: &SimCluster| ids.iter().all(|(at, id)| c.repaired(*at, *id).is_some());
    assert!(cluster.run_until(ms(4_000), told).is_some(), "a comparison nobody answers takes 8 s");
    assert_eq!(get(&cluster, 1, "k"), get(&cluster, 0, "k"));
}

/// Values that do not compress.
fn values(count: usize, bytes: usize) -> Vec<(String, Vec<u8>)> {
    let mut rng = fastrand::Rng::with_seed(1);
    let value = |n| (format!("k{n}"), std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect());
    (0..count).map(value).collect()
}

fn lose(cluster: &SimCluster, at: usize, key: &str) {
    let store = cluster.store(at).unwrap();
    let space = store.spaces().find("registers").unwrap();
    let key = KeyRef::new(&space, key.as_bytes());
    store.lock(store.place(key.hash)).unwrap().lose(key.hash, store.spaces());
}

/// How long it takes until the second node of a pair, which lost all of so many values, has them back, and how much more than
/// the budget allows had been given at any time.
fn given_back(rate: u64, (count, bytes): (usize, usize)) -> (Duration, u64) {
    let mut config = SimConfig { nodes: 2, ..SimConfig::default() };
    config.node.repair.bytes_per_second = rate;
    let mut cluster = formed(6, config);
    let values = values(count, bytes);
    for (key, value) in &values {
        set(&mut cluster, 0, key, value).unwrap();
        cluster.run_for(ms(20));
    }
    cluster.run_until(ms(60_000), converged).unwrap();
    cluster.run_for(ms(1_000));
    values.iter().for_each(|(key, _)| lose(&cluster, 1, key));
    let given = |c: &SimCluster| c.node(0).unwrap().stats().repair.payload_bytes;
    let (began, mut over) = (cluster.elapsed(), 0);
    let mut first = None;
    while values.iter().any(|(key, _)| get(&cluster, 1, key).is_none()) {
        cluster.run_for(ms(100));
        if given(&cluster) > 0 {
            let since = *first.get_or_insert_with(|| cluster.elapsed() - ms(100));
            let may = u64::try_from((cluster.elapsed() - since).as_millis()).unwrap() * rate / 1_000;
            over = over.max(given(&cluster).saturating_sub(may));
        }
        assert!(cluster.elapsed() - began < ms(600_000), "it stalls: {} bytes were given", given(&cluster));
    }
    (cluster.elapsed() - first.unwrap(), over)
}

#[test]
fn no_more_is_given_back_than_the_budget_says_and_not_much_less() {
    // Less than two frames, or as many as the budget of a tenth of a second and one more.
    for (rate, values, over_max) in
        [(20_000, (20, 60_000), 190_000), (1_999, (3, 4_000), 14_000), (1 << 20, (160, 50_000), 230_000)]
    {
        let (took, over) = given_back(rate, values);
        assert!(over <= over_max, "{over} bytes more than {rate} B/s");
        let all = u64::try_from(values.0 * values.1).unwrap();
        let least = Duration::from_millis(all.saturating_sub(over_max) * 1_000 / rate);
        assert!(took >= least, "{took:?} at {rate} B/s");
        let most = Duration::from_millis(all * 1_300 / rate) + ms(3_000);
        assert!(took <= most, "{took:?} at {rate} B/s, {least:?} at least");
    }
}
