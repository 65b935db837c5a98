//! The choice of a region, history by history.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::clock::Mono;
use crate::id::Role;
use crate::membership::{Reach, Recovery};

fn at(ms: u64) -> Mono {
    Mono(1_000_000_000 + ms * 1_000_000)
}

fn region(name: &str) -> RegionId {
    RegionId::new(name)
}

fn state(name: &str, reach: Reach, rtt_ms: u64) -> RegionState {
    let rtt = Some(Duration::from_millis(rtt_ms));
    RegionState {
        region: region(name),
        reach,
        role: Role::Active,
        takes_writes: true,
        isolated: false,
        rtt,
        lag: None,
        load: None,
        recovery: None,
    }
}

/// Three regions as us-east sees them.
fn three(eu: Reach) -> [RegionState; 3] {
    [state("us-east", Reach::Up, 0), state("eu-central", eu, 90), state("ap-southeast", Reach::Up, 220)]
}

fn profiles() -> Vec<RegionProfile> {
    vec![
        RegionProfile { priority: 3, ..RegionProfile::new("us-east").at(38.9, -77.4) },
        RegionProfile { priority: 1, ..RegionProfile::new("eu-central").at(50.1, 8.7) },
        RegionProfile { priority: 2, ..RegionProfile::new("ap-southeast").at(1.35, 103.8) },
    ]
}

fn table(policy: Policy) -> Table {
    let mut table = Table::new(RouterConfig { policy, regions: profiles(), ..RouterConfig::default() });
    table.update(at(0), &three(Reach::Up));
    table
}

/// Three regions that each take no more than that.
fn limited(rate: Rate, eu: Reach) -> Table {
    let regions = profiles().into_iter().map(|profile| RegionProfile { rate: Some(rate), ..profile }).collect();
    let mut table = Table::new(RouterConfig { regions, ..RouterConfig::default() });
    table.update(at(0), &three(eu));
    table
}

fn names(ranking: &[RegionId]) -> Vec<&str> {
    ranking.iter().map(RegionId::as_str).collect()
}

#[test]
fn who_takes_no_writes_comes_after_everybody_who_does() {
    let [us, eu, ap] = three(Reach::Up);
    let role = |state: &RegionState, role| RegionState { role, ..state.clone() };
    let client = Client::in_region("eu-central");
    let mut table = table(Policy::Latency);
    table.update(
        at(1),
        &[role(&us, Role::Draining), role(&eu, Role::Standby), state("ap-southeast", Reach::Suspected, 9)],
    );
    assert_eq!(names(&table.ranking(at(1), &client)), ["ap-southeast", "eu-central", "us-east"]);
    table.update(at(2), &[role(&us, Role::Draining), eu, ap]);
    assert_eq!(names(&table.ranking(at(2), &client)), ["eu-central", "ap-southeast", "us-east"], "it has taken over");
}

#[test]
fn an_edge_is_chosen_by_what_the_policy_says_like_who_holds_everything() {
    let [us, eu, ap] = three(Reach::Up);
    let mut table = table(Policy::Latency);
    table.update(at(1), &[us, RegionState { role: Role::Edge, ..eu }, ap]);
    assert_eq!(names(&table.ranking(at(1), &Client::in_region("eu-central"))).first(), Some(&"eu-central"));
    assert_eq!(names(&table.ranking(at(1), &Client::in_region("us-east"))).first(), Some(&"us-east"));
}

#[test]
fn each_policy_has_its_own_order() {
    let paris = Client::at(48.9, 2.4);
    let by = |policy, client: &Client| {
        let ranking = table(policy).ranking(at(0), client);
        names(&ranking).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(by(Policy::Latency, &paris), ["eu-central", "us-east", "ap-southeast"]);
    assert_eq!(by(Policy::Distance, &Client::at(-33.9, 151.2)), ["ap-southeast", "us-east", "eu-central"]);
    assert_eq!(by(Policy::Priority, &Client::in_region("us-east")), ["eu-central", "ap-southeast", "us-east"]);
    assert_eq!(by(Policy::Latency, &Client::in_region("ap-southeast")), ["ap-southeast", "eu-central", "us-east"]);
    let nowhere = by(Policy::Latency, &Client::default());
    assert_eq!(nowhere, ["us-east", "eu-central", "ap-southeast"], "by the round trip from here");
}

#[test]
fn weights_are_shares_and_a_client_stays_where_it_is() {
    let mut regions = profiles();
    [50, 30, 20].into_iter().zip(&mut regions).for_each(|(weight, profile)| profile.weight = weight);
    let config = RouterConfig { policy: Policy::Weighted, regions, ..RouterConfig::default() };
    let mut table = Table::new(config);
    table.update(at(0), &three(Reach::Up));
    let first = |table: &Table, key| table.ranking(at(0), &Client { key, ..Client::default() }).first().cloned();
    let before: Vec<_> = (0..10_000).map(|key| first(&table, key)).collect();
    let share = |name: &str| before.iter().filter(|to| **to == Some(region(name))).count();
    let shares = ["us-east", "eu-central", "ap-southeast"].map(share);
    let wanted = [5_000, 3_000, 2_000];
    assert!(shares.iter().zip(wanted).all(|(got, wanted)| got.abs_diff(wanted) < 200), "{shares:?}");

    table.update(at(0), &three(Reach::Unreachable));
    for (key, before) in (0..).zip(&before) {
        let after = first(&table, key);
        assert!(after == *before || *before == Some(region("eu-central")), "only who was there moves");
    }
}

#[test]
fn a_region_that_is_gone_is_left_at_once_and_gone_back_to_when_it_is_stable() {
    let mut table = table(Policy::Latency);
    let client = Client::in_region("eu-central");
    assert_eq!(names(&table.ranking(at(0), &client)), ["eu-central", "us-east", "ap-southeast"]);
    table.update(at(0), &three(Reach::Suspected));
    assert_eq!(names(&table.ranking(at(0), &client)), ["us-east", "ap-southeast", "eu-central"], "a last resort");
    table.update(at(0), &three(Reach::Up));
    assert_eq!(names(&table.ranking(at(0), &client))[0], "eu-central", "a suspicion leaves nothing behind");
    table.update(at(0), &three(Reach::Unreachable));
    assert_eq!(names(&table.ranking(at(0), &client)), ["us-east", "ap-southeast"]);
    table.update(at(1_000), &back(Some(1_000), 0));
    assert_eq!(names(&table.ranking(at(30_999), &client)), ["us-east", "ap-southeast", "eu-central"]);
    assert_eq!(names(&table.ranking(at(31_000), &client)), ["eu-central", "us-east", "ap-southeast"]);
    table.update(at(65_000), &back(Some(65_000), 29_999));
    assert_eq!(names(&table.ranking(at(94_999), &client))[0], "us-east", "without a break");
    assert_eq!(names(&table.ranking(at(95_000), &client))[0], "eu-central");
    table.update(at(96_000), &back(None, 30_000));
    assert_eq!(names(&table.ranking(at(96_000), &client))[0], "eu-central", "it was stable before that");
}

/// Three regions of which one is heard since then, and was before for so long.
fn back(since_ms: Option<u64>, longest_ms: u64) -> [RegionState; 3] {
    let recovery = Recovery { since: since_ms.map(at), longest: Duration::from_millis(longest_ms) };
    three(Reach::Up).map(|state| {
        let recovery = (state.region == region("eu-central")).then_some(recovery);
        RegionState { recovery, ..state }
    })
}

/// Nobody asked while it was out, and it was not even known for a while.
#[test]
fn an_outage_that_nobody_saw_counts() {
    let mut table = table(Policy::Latency);
    let client = Client::in_region("eu-central");
    table.update(at(5_000), &back(Some(4_000), 0));
    assert_eq!(names(&table.ranking(at(5_000), &client)), ["us-east", "ap-southeast", "eu-central"]);
    let mut unconfigured = Table::new(RouterConfig::default());
    unconfigured.update(at(5_000), &back(Some(4_000), 0));
    assert_eq!(names(&unconfigured.ranking(at(33_999), &client)).last(), Some(&"eu-central"));
    assert_eq!(names(&unconfigured.ranking(at(34_000), &client)).first(), Some(&"eu-central"));
}

#[test]
fn a_breaker_stays_open_while_its_region_is_not_known_and_few_are_remembered() {
    let mut table = Table::new(RouterConfig { failures: 1, ..RouterConfig::default() });
    let client = Client::in_region("eu-central");
    table.update(at(0), &three(Reach::Up));
    table.report(at(0), &region("eu-central"), false);
    table.update(at(1), &three(Reach::Up)[..1]);
    assert_eq!(table.route(at(1), &client).unwrap().fallbacks, [], "it is not named");
    table.update(at(2), &three(Reach::Up));
    assert!(!names(&table.ranking(at(999), &client)).contains(&"eu-central"));
    assert_eq!(names(&table.ranking(at(1_000), &client))[0], "eu-central");

    let many: Vec<RegionState> = (0..200).map(|n| state(&format!("r{n:03}"), Reach::Up, n)).collect();
    for (ms, one) in (2_000..).zip(&many) {
        table.update(at(ms), std::slice::from_ref(one));
        table.report(at(ms), &one.region, false);
    }
    table.update(at(2_500), &[]);
    assert_eq!(table.route(at(2_500), &client), Err(RouteError::NoRegions), "what is remembered is not known");
    table.update(at(2_500), &many);
    let named = table.ranking(at(2_500), &client);
    assert_eq!((named.len(), names(&named).last()), (136, Some(&"r135")), "the last 64 are behind open breakers");
}

#[test]
fn a_region_with_nobody_but_a_node_that_is_alone_comes_after_the_well_and_before_the_suspected() {
    let mut table = table(Policy::Latency);
    let [us, eu, ap] = three(Reach::Up);
    let client = Client::in_region("us-east");
    let alone = RegionState { isolated: true, ..us };
    let suspected = |state: &RegionState| RegionState { reach: Reach::Suspected, ..state.clone() };
    table.update(at(0), &[alone.clone(), suspected(&eu), ap.clone()]);
    assert_eq!(names(&table.ranking(at(0), &client)), ["ap-southeast", "us-east", "eu-central"]);
    table.update(at(0), &[alone, suspected(&eu), suspected(&ap)]);
    assert_eq!(names(&table.ranking(at(0), &client))[0], "us-east", "it serves, and nobody else is known to");
}

#[test]
fn a_region_that_refuses_the_writes_its_role_takes_comes_after_all_that_take_some() {
    let mut table = table(Policy::Latency);
    let [us, eu, ap] = three(Reach::Up);
    let refusing = RegionState { takes_writes: false, ..us };
    let [eu, ap] = [(eu, Reach::Suspected), (ap, Reach::Unreachable)].map(|(s, reach)| RegionState { reach, ..s });
    table.update(at(0), &[refusing, eu, ap]);
    assert_eq!(names(&table.ranking(at(0), &Client::in_region("us-east"))), ["eu-central", "us-east"]);
}

#[test]
fn a_region_that_lags_comes_after_those_in_time() {
    let mut table = table(Policy::Latency);
    let mut states = three(Reach::Up);
    states[1].lag = Some(Duration::from_secs(3));
    table.update(at(0), &states);
    let ranking = table.ranking(at(0), &Client::in_region("eu-central"));
    assert_eq!(names(&ranking), ["us-east", "ap-southeast", "eu-central"]);
}

#[test]
fn a_region_that_is_too_busy_comes_after_those_with_room_until_it_has_room_again() {
    let mut table = table(Policy::Latency);
    let mut first = |load: [Option<u8>; 3]| {
        let mut states = three(Reach::Up);
        states.iter_mut().zip(load).for_each(|(state, load)| state.load = load);
        table.update(at(0), &states);
        table.ranking(at(0), &Client::in_region("eu-central"))[0].as_str().to_owned()
    };
    assert_eq!(first([None, Some(90), None]), "eu-central");
    assert_eq!(first([None, Some(91), None]), "us-east");
    assert_eq!(first([None, Some(81), None]), "us-east", "its clients would make it too busy again");
    assert_eq!(first([None, Some(80), None]), "eu-central");
    assert_eq!(first([None, Some(90), None]), "eu-central");
    assert_eq!(first([Some(99), Some(99), Some(99)]), "eu-central", "nobody has room");
    assert_eq!(first([None, None, None]), "eu-central");
}

#[test]
fn a_region_that_drains_or_fails_is_not_named_and_tried_again_once() {
    let mut table = table(Policy::Latency);
    let client = Client::in_region("eu-central");
    table.drain(&region("eu-central"), true);
    assert_eq!(table.route(at(0), &client).unwrap().region, region("us-east"));
    table.update(at(0), &three(Reach::Up)[..1]);
    table.update(at(0), &three(Reach::Up));
    assert_eq!(table.route(at(0), &client).unwrap().region, region("us-east"), "also when it was gone meanwhile");
    table.drain(&region("eu-central"), false);
    (0..5).for_each(|_| table.report(at(0), &region("eu-central"), false));
    let route = table.route(at(999), &client).unwrap();
    assert_eq!((route.region.as_str(), names(&route.fallbacks)), ("us-east", vec!["ap-southeast"]));
    let tried = [1_000, 1_000, 1_999].map(|ms| table.route(at(ms), &client).unwrap().region);
    assert_eq!(names(&tried), ["eu-central", "us-east", "us-east"], "one request tries");
    table.report(at(2_000), &region("eu-central"), true);
    assert_eq!(table.route(at(2_000), &client).unwrap().region, region("eu-central"));
}

#[test]
fn what_a_region_does_not_take_goes_to_the_next_and_then_nowhere() {
    let mut table = limited(Rate { per_second: 10, burst: 5 }, Reach::Up);
    let client = Client::in_region("us-east");
    let cheap = Client { may_be_shed: true, ..client.clone() };
    let taken: Vec<RegionId> = (0..12).map(|_| table.route(at(0), &cheap).unwrap().region).collect();
    assert_eq!(taken.iter().filter(|to| **to == region("us-east")).count(), 4);
    assert!(matches!(table.route(at(0), &cheap), Err(RouteError::Overloaded { .. })), "a fifth is kept");
    assert!((0..3).all(|_| table.route(at(0), &client).is_ok()));
    let retry_after = Duration::from_millis(100);
    assert_eq!(table.route(at(0), &client), Err(RouteError::Overloaded { retry_after }));
    assert_eq!(table.route(at(100), &client).unwrap().region, region("us-east"));
}

/// Ten thousand sessions of one region make a request at the same instant, and again when they are told to.
#[test]
fn a_herd_is_let_in_as_fast_as_each_region_takes_it_and_nobody_waits_long() {
    let mut table = limited(Rate { per_second: 6_000, burst: 2_000 }, Reach::Unreachable);
    let (mut waiting, mut taken) = (vec![at(0); 10_000], Vec::new());
    for ms in 0..2_000 {
        let (mut here, mut later) = (BTreeMap::<RegionId, u32>::new(), Vec::new());
        for due in waiting {
            if due > at(ms) {
                later.push(due);
                continue;
            }
            match table.route(at(ms), &Client::in_region("eu-central")) {
                Ok(route) => *here.entry(route.region).or_default() += 1,
                Err(RouteError::Overloaded { retry_after }) => later.push(at(ms).plus(retry_after)),
                Err(other) => unreachable!("{other}"),
            }
        }
        waiting = later;
        taken.push(here);
        if waiting.is_empty() {
            break;
        }
    }
    assert!(waiting.is_empty() && taken.len() < 1_000, "{} wait after {} ms", waiting.len(), taken.len());
    for region in ["us-east", "ap-southeast"] {
        let mut all = 0;
        for (ms, here) in (0..).zip(&taken) {
            all += here.get(&self::region(region)).unwrap_or(&0);
            assert!(all <= 2_000 + 6 * ms + 6, "{region}: {all} after {ms} ms");
        }
        assert!(all > 4_000, "{region}: {all}");
    }
}

#[test]
fn nowhere_to_go_is_said_precisely() {
    let mut none = Table::new(RouterConfig::default());
    assert_eq!(none.route(at(0), &Client::default()), Err(RouteError::NoRegions));
    none.update(at(0), &[state("us-east", Reach::Unreachable, 0)]);
    assert_eq!(none.route(at(0), &Client::default()), Err(RouteError::NoHealthyRegions { known: 1 }));
    none.update(at(0), &[]);
    assert_eq!(none.route(at(0), &Client::default()), Err(RouteError::NoRegions), "who is not configured is forgotten");
    let mut configured = Table::new(RouterConfig { regions: profiles(), ..RouterConfig::default() });
    assert_eq!(configured.route(at(0), &Client::default()), Err(RouteError::NoHealthyRegions { known: 3 }));
}

#[test]
fn who_was_not_tried_is_said() {
    let tried = vec![region("us-east")];
    let failed = |limited: Vec<RegionId>, retry_after| RouteError::AllFailed {
        tried: tried.clone(),
        limited,
        retry_after,
        last: "down".to_owned(),
    };
    let all = failed(Vec::new(), None);
    assert_eq!((all.to_string().as_str(), all.retry_after()), ("1 regions failed; the last said: down", None));
    let wait = Duration::from_millis(40);
    let some = failed(vec![region("eu-central"), region("ap-southeast")], Some(wait));
    let says = "1 regions failed, 2 more have as many requests as they take; try again in 40 ms; the last said: down";
    assert_eq!((some.to_string().as_str(), some.retry_after()), (says, Some(wait)));
}

/// A step in the life of a table.
#[derive(Clone, Debug)]
enum Step {
    Update(Vec<(u8, u8, u16)>),
    Drain(u8, bool),
    Report(u8, bool),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let update = proptest::collection::vec((0..5_u8, 0..4_u8, any::<u16>()), 0..5).prop_map(Step::Update);
    let drain = (0..5_u8, any::<bool>()).prop_map(|(at, on)| Step::Drain(at, on));
    let report = (0..5_u8, any::<bool>()).prop_map(|(at, ok)| Step::Report(at, ok));
    let wait = (0..5_000_u16).prop_map(Step::Wait);
    proptest::collection::vec(prop_oneof![update, drain, report, wait], 0..40)
}

fn reach(n: u8) -> Reach {
    [Reach::Up, Reach::Suspected, Reach::Cut, Reach::Unreachable][usize::from(n % 4)]
}

proptest! {
    /// Whatever happened: who is named can be used, nobody twice, and those left out have a reason.
    #[test]
    fn only_usable_regions_are_named_each_once(steps in steps(), key in any::<u64>(), policy in 0..4_usize) {
        let policy = [Policy::Latency, Policy::Distance, Policy::Priority, Policy::Weighted][policy];
        let mut table = Table::new(RouterConfig { policy, failures: 2, ..RouterConfig::default() });
        let name = |n: u8| format!("r{n}");
        let (mut now, mut known, mut drained) = (at(0), Vec::new(), std::collections::BTreeSet::new());
        let mut failing = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Update(states) => {
                    let mut seen: BTreeMap<u8, (u8, u16)> = BTreeMap::new();
                    seen.extend(states.iter().map(|(n, r, rtt)| (*n, (*r, *rtt))));
                    known = seen.iter().map(|(n, (r, rtt))| state(&name(*n), reach(*r), u64::from(*rtt))).collect();
                    table.update(now, &known);
                }
                Step::Drain(n, on) => {
                    table.drain(&region(&name(n)), on);
                    if on { drained.insert(n); } else { drained.remove(&n); }
                }
                Step::Report(n, ok) => {
                    table.report(now, &region(&name(n)), ok);
                    if ok { failing.remove(&n); } else { failing.insert(n); }
                }
                Step::Wait(ms) => now = now.plus(Duration::from_millis(u64::from(ms))),
            }
            let ranking = table.ranking(now, &Client { key, ..Client::default() });
            let unique: std::collections::BTreeSet<_> = ranking.iter().collect();
            prop_assert_eq!(unique.len(), ranking.len());
            for n in 0..5 {
                let state = known.iter().find(|state| state.region == region(&name(n)));
                let may = state.is_some_and(|state| state.reach != Reach::Unreachable) && !drained.contains(&n);
                let is_named = ranking.contains(&region(&name(n)));
                prop_assert!(!is_named || may, "r{} is named", n);
                prop_assert!(is_named || !may || failing.contains(&n), "r{} is left out", n);
            }
            prop_assert_eq!(table.clone().route(now, &Client { key, ..Client::default() }).ok().map(|r| r.region), ranking.first().cloned());
        }
    }
}
