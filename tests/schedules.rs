//! Random schedules over the real store against a history oracle.
//!
//! Three replicas and up to three joiners write, exchange, lose, repeat, collect, expire, evict,
//! truncate, join, leave and come back in a random order. Then everybody exchanges everything,
//! stale mail arrives once more after the collection, and what each replica shows must be what the
//! *history* says: for a register the largest stamp, for a path the largest stamp among the puts
//! nobody who saw them has overwritten, for a counter the sum of the increments no reset observed,
//! for a custom entry every update of its last generation. Nothing may be left to collect.
//!
//! The oracle is the one of `driftless::sim`, which judges whole clusters as well.
//!
//! A failure prints its seed; it then becomes a line of `regressions`.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a schedule stops where an assumption of its own fails"
)]

#[path = "support/replica.rs"]
mod replica;
#[path = "schedules/verdict.rs"]
mod verdict;
#[path = "schedules/world.rs"]
mod world;

use driftless::sim::oracle::Space;
use driftless::store::Family;
use world::World;

/// Schedules per configuration in one test run. Rare failures need 100,000 and a release build:
/// set `SCHEDULES` when compiling.
const SCHEDULES: u64 = match option_env!("SCHEDULES") {
    Some(text) => parse(text),
    None => 2_000,
};

#[expect(clippy::panic, reason = "this is the compiler's message for a bad count")]
const fn parse(text: &str) -> u64 {
    match u64::from_str_radix(text, 10) {
        Ok(n) => n,
        Err(_) => panic!("SCHEDULES is a number"),
    }
}

/// Largest difference between two clocks.
const SKEW_MS: u64 = 60;
const REGS: [&str; 2] = ["r0", "r1"];
const MAPS: [&str; 2] = ["m0", "m1"];
const NAMES: [&str; 2] = ["a", "b"];
const COUNTER: &str = "c";
const CUSTOM: &str = "x";
const REGISTERS: Space = Space { name: "regs", family: Family::Register };
const TREES: Space = Space { name: "maps", family: Family::Map };
const CUSTOMS: Space = Space { name: "customs", family: Family::Custom };

/// What may happen in a schedule.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    steps: u64,
    ttl: bool,
    evict: bool,
    membership: bool,
    truncate: bool,
    epochs: bool,
}

const PLAIN: Setting =
    Setting { name: "plain", steps: 90, ttl: false, evict: false, membership: false, truncate: false, epochs: false };
const TTL: Setting = Setting { name: "ttl", ttl: true, ..PLAIN };
const EVICT: Setting = Setting { name: "evict", steps: 110, evict: true, ..PLAIN };
const MEMBER: Setting = Setting { name: "member", steps: 140, membership: true, ..PLAIN };
const TRUNC: Setting = Setting { name: "trunc", steps: 110, evict: true, truncate: true, ..PLAIN };
const EVERYTHING: Setting =
    Setting { name: "all", steps: 160, ttl: true, evict: true, membership: true, truncate: true, epochs: false };
const EPOCHS: Setting = Setting { name: "epochs", steps: 140, epochs: true, membership: true, ..PLAIN };
pub(crate) const SETTINGS: [Setting; 7] = [PLAIN, TTL, EVICT, MEMBER, TRUNC, EVERYTHING, EPOCHS];

#[test]
fn plain_schedules_end_as_history_says() {
    check(PLAIN);
}

#[test]
fn schedules_with_time_to_live_end_as_history_says() {
    check(TTL);
}

#[test]
fn schedules_with_eviction_end_as_history_says_or_miss() {
    check(EVICT);
}

#[test]
fn schedules_with_joins_removals_and_successions_end_as_history_says() {
    check(MEMBER);
}

#[test]
fn schedules_with_truncated_logs_end_as_history_says_or_miss() {
    check(TRUNC);
}

#[test]
fn schedules_with_everything_end_as_history_says_or_miss() {
    check(EVERYTHING);
}

#[test]
fn schedules_with_invalidations_end_as_history_says() {
    check(EPOCHS);
}

/// Seeds that once failed, each with the rule it was missing.
#[test]
fn seeds_that_once_failed_stay_fixed() {
    let regressions = [
        ("ttl", 7),        // contributions that expired while a reset was unstable
        ("plain", 66),     // touches that move nothing, reset contributions beside live ones
        ("member", 1_911), // a clear's effect in a fragment of one path, without the clear's dot
        ("all", 148),      // holes a joiner did not inherit
        ("all", 1_247),    // custom states that expired while an update was unstable
        ("trunc", 19_885), // floors collected while a full synchronisation was being joined
        ("all", 33_935),   // a contribution dropped for absence although its touch was unseen, its record dropped
    ];
    for (name, seed) in regressions {
        let setting = SETTINGS.into_iter().find(|s| s.name == name).unwrap();
        assert_eq!(run(seed, setting), Ok(()), "{name} seed {seed}");
    }
}

fn check(setting: Setting) {
    let failed = |seed| run(seed, setting).err().map(|why| format!("seed {seed}: {why}"));
    let failures: Vec<String> = (1..=SCHEDULES).filter_map(failed).collect();
    let first: Vec<&String> = failures.iter().take(3).collect();
    assert!(failures.is_empty(), "{:?}: {} of {SCHEDULES} schedules: {first:#?}", setting.name, failures.len());
}

pub(crate) fn run(seed: u64, setting: Setting) -> Result<(), String> {
    let mut world = World::new(seed, setting);
    for step in 0..setting.steps {
        world.now += world.rng.u64(..4);
        if step == setting.steps / 2 && world.rng.bool() {
            world.meet_halfway();
        }
        world.step();
        if (step + seed).is_multiple_of(8) {
            world.judge_everybody()?;
            world.compare_at_the_meets()?;
        }
    }
    let last = world.quiesce();
    world.judge(&last)?;
    world.nothing_is_left(&last)
}
