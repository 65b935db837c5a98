//! Plans drawn from a seed: swarm testing.
//!
//! A run in which everything goes wrong at once looks like every other such run. So each seed first switches every
//! class of fault on or off with even chances, and then draws how much of each there is (Groce et al., *Swarm Testing*,
//! ISSTA 2012). What chance alone would reach too rarely is drawn on purpose, as short stories: see `stories`.
//!
//! # Invariants
//! * A seed of a profile means one plan, in every build.
//! * Stories overlap with each other and with the traffic. None relies on another.
//!
//! Rates are drawn from these ranges: loss 0 to 30 %, duplicates 0 to 50 %, corruption 0 to 2 %, one-way delay 0 to
//! 300 ms, clogs up to 5 s, clocks up to 10 s off or, far ahead, from an hour to ten years, pauses from a second to ten
//! minutes with most of them short. A run has 2 to 5 nodes, one in forty up to nine, up to two spares, 1 to 4 partitions
//! and 100 to 300 steps on 6 to 10 keys, so that things collide.

mod stories;
mod traffic;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::network::Weather;
use super::plan::{Action, Op, OpKind, Plan, Step};
use super::setting::{Carrier, HOSTS_MAX, Setting};

/// Declares the classes once: the enum and all of them.
macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $class:ident,)+) => {
        /// A class of things that go wrong, or that make a difference when something does.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Class {
            $($(#[doc = $doc])+ $class,)+
        }

        impl Class {
            /// All classes.
            pub const ALL: &[Self] = &[$(Self::$class,)+];
        }
    };
}

classes! {
    /// Packets are lost.
    Loss,
    /// Packets come twice.
    Duplicate,
    /// Messages are changed on their way.
    Corrupt,
    /// Paths are long and of uneven length, so messages overtake each other.
    Delay,
    /// One-way and two-way cuts.
    Cuts,
    /// Directions are held for up to five seconds and then come at once.
    Clogs,
    /// Hosts that read slowly.
    Slow,
    /// Clocks off by up to ten seconds, and jumps both ways.
    Skew,
    /// A clock from an hour to ten years ahead.
    FarFuture,
    /// Hosts that stand still.
    Pause,
    /// Processes that end without a word, and start again.
    Crash,
    /// Processes that end in order.
    Stop,
    /// Hosts that join later than the others.
    Join,
    /// Replicas an operator removes, and zombies.
    Remove,
    /// Hosts that are gone for so long that the others give them up.
    Absence,
    /// Two processes with one identity.
    Clone,
    /// Nodes that are configured with some of the others only.
    Sparse,
    /// A host whose address changes.
    Move,
    /// Nodes that stand by, and operators that promote and demote.
    Roles,
    /// A small budget of memory.
    Memory,
    /// Values so large that everything with a limit meets it, in some of the seeds.
    Large,
    /// Entries whose memory is given back.
    Evict,
    /// Logs that are too short.
    Truncate,
    /// Nodes of a later version.
    Newer,
    /// A node with a valid certificate that lies.
    Liars,
    /// Entries with deadlines.
    Ttl,
    /// Writers who wait for a level.
    Acks,
    /// Clients that move between nodes with a token.
    Reads,
    /// Clients that read at a level. Of a profile of its own.
    Asks,
    /// Nodes that keep of registers only what is read there, and fetch. On in one of a few seeds, whatever else is.
    Edges,
    /// A host that loses part of what it holds and does not notice. Of a class of its own, with faults beside it that
    /// spread no loss: a join or a full synchronisation believes its donor.
    Damage,
}

/// A named way to draw plans.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    name: &'static str,
    about: &'static str,
    /// Always on.
    always: &'static [Class],
    /// On with even chances.
    maybe: &'static [Class],
    carrier: Carrier,
}

/// Every class but the last three, which few seeds have.
const USUAL: &[Class] = match Class::ALL {
    [usual @ .., Class::Asks, Class::Edges, Class::Damage] => usual,
    _ => &[],
};

/// One in so many seeds of a profile of everything has edges.
const EDGES_ONE_IN: u64 = 4;

/// One in so many seeds of a profile of everything has damage.
const DAMAGED_ONE_IN: u64 = 64;

/// What every profile may have beside its faults.
const CALM: &[Class] = &[Class::Ttl, Class::Acks, Class::Reads];

const DAMAGE: Profile = Profile {
    name: "damage",
    about: "a host that loses part of what it holds, on a network that loses, delays and is cut",
    always: &[Class::Damage],
    maybe: &[
        Class::Loss,
        Class::Duplicate,
        Class::Delay,
        Class::Cuts,
        Class::Clogs,
        Class::Slow,
        Class::Ttl,
        Class::Acks,
        Class::Reads,
    ],
    carrier: Carrier::Messages,
};

const PROFILES: &[Profile] = &[
    Profile {
        name: "swarm",
        about: "every class of fault, each on in half of the seeds",
        always: &[],
        maybe: USUAL,
        carrier: Carrier::Messages,
    },
    Profile {
        name: "calm",
        about: "traffic on a good network; what fails here needs no fault",
        always: &[],
        maybe: CALM,
        carrier: Carrier::Messages,
    },
    Profile {
        name: "network",
        about: "loss, duplicates, corruption, delays, cuts, clogs, slow hosts",
        always: CALM,
        maybe: &[
            Class::Loss,
            Class::Duplicate,
            Class::Corrupt,
            Class::Delay,
            Class::Cuts,
            Class::Clogs,
            Class::Slow,
            Class::Truncate,
        ],
        carrier: Carrier::Messages,
    },
    Profile {
        name: "clocks",
        about: "clocks that are off, that jump, that are years ahead; hosts that stand still; deadlines",
        always: &[Class::Ttl, Class::Acks],
        maybe: &[Class::Skew, Class::FarFuture, Class::Pause, Class::Delay, Class::Crash, Class::Reads],
        carrier: Carrier::Messages,
    },
    Profile {
        name: "members",
        about: "crashes, restarts, joins, leaves, removals, zombies, clones",
        always: &[Class::Acks],
        maybe: &[
            Class::Crash,
            Class::Stop,
            Class::Join,
            Class::Remove,
            Class::Clone,
            Class::Sparse,
            Class::Move,
            Class::Roles,
            Class::Cuts,
            Class::Pause,
            Class::Delay,
            Class::Ttl,
            Class::Reads,
        ],
        carrier: Carrier::Messages,
    },
    Profile {
        name: "memory",
        about: "small budgets, evictions, short logs, deadlines, with cuts and joins",
        always: &[Class::Ttl],
        maybe: &[
            Class::Memory,
            Class::Large,
            Class::Evict,
            Class::Truncate,
            Class::Cuts,
            Class::Crash,
            Class::Join,
            Class::Delay,
            Class::Reads,
        ],
        carrier: Carrier::Messages,
    },
    Profile {
        name: "liars",
        about: "a node with a valid certificate that lies, nodes of a later version, corrupted messages",
        always: &[Class::Liars],
        maybe: &[
            Class::Newer,
            Class::Corrupt,
            Class::Loss,
            Class::Cuts,
            Class::Crash,
            Class::Join,
            Class::Ttl,
            Class::Acks,
            Class::Reads,
        ],
        carrier: Carrier::Messages,
    },
    DAMAGE,
    Profile {
        name: "edges",
        about: "edges that give back and fetch, with cuts, crashes, joins, removals, short logs",
        always: &[Class::Edges],
        maybe: &[
            Class::Cuts,
            Class::Crash,
            Class::Stop,
            Class::Join,
            Class::Remove,
            Class::Roles,
            Class::Truncate,
            Class::Delay,
            Class::Loss,
            Class::Ttl,
            Class::Acks,
            Class::Reads,
        ],
        carrier: Carrier::Messages,
    },
    traffic::READS,
    #[cfg(feature = "net")]
    Profile {
        name: "quic",
        about: "every class of fault over quinn-proto instead of messages; slower",
        always: &[],
        maybe: USUAL,
        carrier: Carrier::Quic,
    },
];

impl Profile {
    /// Returns all profiles, `swarm` first. The profile `quic` needs the feature `net`.
    #[must_use]
    pub fn all() -> &'static [Self] {
        PROFILES
    }

    /// Returns the profile of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PROFILES.iter().copied().find(|profile| profile.name == name)
    }

    /// Returns the profile's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns in a line what the profile draws.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// Returns the plan of a seed.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        if self.maybe == USUAL && seed % DAMAGED_ONE_IN == DAMAGED_ONE_IN - 1 {
            return Self { carrier: self.carrier, ..DAMAGE }.plan(seed);
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let maybe = self.maybe.iter().copied().filter(|_| rng.bool());
        let mut on: BTreeSet<Class> = self.always.iter().copied().chain(maybe.collect::<Vec<_>>()).collect();
        if self.maybe == USUAL && seed % EDGES_ONE_IN == 1 {
            on.insert(Class::Edges);
        }
        let setting = setting(&mut rng, &on, self.carrier);
        let keys = rng.u8(6..=10);
        let mut draw = Draw { rng, on, setting, keys, timeline: Vec::new() };
        draw.fill();
        Plan { seed: draw.rng.u64(..), setting: draw.setting, steps: steps(draw.timeline) }
    }
}

/// The name.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A plan that is being drawn.
#[derive(Debug)]
struct Draw {
    rng: fastrand::Rng,
    on: BTreeSet<Class>,
    setting: Setting,
    keys: u8,
    /// What happens when, in milliseconds from the start, in no order.
    timeline: Vec<(u64, Action)>,
}

impl Draw {
    fn fill(&mut self) {
        let target = self.rng.usize(100..=300);
        // Mostly the cluster has formed before anything happens to it; what happens while it forms matters too.
        let first = if self.rng.u8(..6) == 0 { 0 } else { self.rng.u64(1_000..5_000) };
        let stories = self.rng.usize(..=10);
        let share = if self.rng.u8(..8) == 0 { target / 4 } else { target / 2 };
        let end = self.traffic(first, share);
        for _ in 0..stories {
            let from = self.rng.u64(first / 2..=end);
            self.story(from);
        }
        let so_far = self.timeline.len();
        if so_far < target {
            let last = self.timeline.iter().map(|(at, _)| *at).max().unwrap_or(end);
            let from = self.rng.u64(first..=last.max(first));
            self.traffic(from, target - so_far);
        }
        self.everybody_comes();
    }

    /// Mostly the spares run in the end: a node collects nothing before it has met everybody it knows of.
    fn everybody_comes(&mut self) {
        let last = self.timeline.iter().map(|(at, _)| *at).max().unwrap_or(0);
        for at in small(self.setting.nodes)..small(self.setting.nodes + self.setting.spare) {
            if self.rng.u8(..8) > 0 {
                let ms = last + self.rng.u64(..500);
                self.at(ms, Action::Start { at });
            }
        }
    }

    fn is_on(&self, class: Class) -> bool {
        self.on.contains(&class)
    }

    fn at(&mut self, ms: u64, action: Action) {
        self.timeline.push((ms, action));
    }

    /// One of the nodes that are there from the start.
    fn node(&mut self) -> u8 {
        self.rng.u8(..small(self.setting.nodes).max(1))
    }

    /// A node other than this one, if there is any.
    fn other(&mut self, than: u8) -> u8 {
        let nodes = small(self.setting.nodes).max(1);
        if nodes == 1 { 0 } else { (than + self.rng.u8(1..nodes)) % nodes }
    }

    /// Any host, a spare or a clone included.
    fn host(&mut self) -> u8 {
        let clone = usize::from(self.is_on(Class::Clone));
        self.rng.u8(..small(self.setting.nodes + self.setting.spare + clone).max(1))
    }

    fn write(&mut self, ms: u64, at: u8, kind: OpKind) {
        let key = self.rng.u8(..self.keys);
        self.write_key(ms, at, kind, key);
    }

    fn write_key(&mut self, ms: u64, at: u8, kind: OpKind, key: u8) {
        let (op, ack) = (Op { kind, key, name: self.rng.u8(..4), ttl: 0 }, self.ack());
        self.at(ms, Action::Write { at, op, ack });
    }
}

/// Sorts what happens into steps; what happens at one instant keeps the order in which it was drawn.
fn steps(mut timeline: Vec<(u64, Action)>) -> Vec<Step> {
    timeline.sort_by_key(|(at, _)| *at);
    let mut before = 0;
    let step = |(at, action): (u64, Action)| {
        let after_ms = u32::try_from(at - before).unwrap_or(u32::MAX);
        before = at;
        Step { after_ms, action }
    };
    timeline.into_iter().map(step).collect()
}

fn setting(rng: &mut fastrand::Rng, on: &BTreeSet<Class>, carrier: Carrier) -> Setting {
    let liars = on.contains(&Class::Liars);
    let nodes = match rng.u8(..40) {
        0 => rng.usize(6..=9),
        1..8 if !liars => 2,
        1..24 => 3,
        24..34 => 4,
        _ => 5,
    };
    let spare = if on.contains(&Class::Join) { rng.usize(..=2).min(HOSTS_MAX - nodes) } else { 0 };
    let hosts = (1_u64 << (nodes + spare)) - 1;
    let roles = on.contains(&Class::Roles);
    let edges = if on.contains(&Class::Edges) { edges(rng, nodes + spare) } else { 0 };
    Setting {
        nodes,
        spare,
        seeds: if on.contains(&Class::Sparse) { seeds(rng, nodes + spare) } else { Vec::new() },
        partitions: 1 << rng.u8(..3),
        log_records_max: if on.contains(&Class::Truncate) && rng.bool() { rng.usize(4..128) } else { 1 << 16 },
        keyspace_bytes: if on.contains(&Class::Memory) { log_uniform(rng, 500, 20_000) } else { 1 << 30 },
        compress: rng.bool(),
        express: rng.bool(),
        ttl_ms_max: if on.contains(&Class::Ttl) { log_uniform(rng, 100, 60_000) } else { 0 },
        value_bytes: if on.contains(&Class::Large) && rng.u8(..4) == 0 { value_bytes(rng, carrier) } else { 0 },
        forget_after_ms: if on.contains(&Class::Absence) { rng.u32(2_000..20_000) } else { 0 },
        standbys: if roles && rng.bool() { rng.u64(..) & rng.u64(..) & hosts & !edges } else { 0 },
        take_over_ms: if roles { rng.u32(..5_000) } else { 0 },
        edges,
        weather: weather(rng, on),
        carrier,
        newer: if on.contains(&Class::Newer) { rng.u64(..) & hosts } else { 0 },
        liars: if liars { 1 << rng.usize(..nodes) } else { 0 },
    }
}

/// One or more of all hosts but the first.
fn edges(rng: &mut fastrand::Rng, hosts: usize) -> u64 {
    let mut bits = || rng.u64(..) & ((1 << hosts) - 1) & !1;
    let (some, other) = (bits(), bits());
    if some & other == 0 { some } else { some & other }
}

/// Each knows every fourth of the others, and whoever else it must for all to be found.
fn seeds(rng: &mut fastrand::Rng, hosts: usize) -> Vec<u16> {
    (0..hosts).map(|_| rng.u16(..) & rng.u16(..)).map(|bits| bits & 0x1ff).collect()
}

/// Over QUIC none: a link whose packets get lost, are changed or overtake each other carries less than bounds that know
/// nothing of volume allow for.
fn value_bytes(rng: &mut fastrand::Rng, carrier: Carrier) -> usize {
    let bytes = usize::try_from(log_uniform(rng, 8 << 10, 256 << 10)).unwrap_or(0);
    if carrier == Carrier::Quic { 0 } else { bytes }
}

fn weather(rng: &mut fastrand::Rng, on: &BTreeSet<Class>) -> Weather {
    let mut share = |class: Class, thousandths: u16| {
        if on.contains(&class) { f64::from(rng.u16(..=thousandths)) / 1_000.0 } else { 0.0 }
    };
    let (loss, duplicate, corrupt) = (share(Class::Loss, 300), share(Class::Duplicate, 500), share(Class::Corrupt, 20));
    let (delay_min, delay_max) = if on.contains(&Class::Delay) {
        let max = log_uniform(rng, 1, 300);
        (rng.u64(..=max), max)
    } else {
        (5, 60)
    };
    let (delay_min, delay_max) = (Duration::from_millis(delay_min), Duration::from_millis(delay_max));
    Weather { delay_min, delay_max, loss, duplicate, corrupt, bursts: None }
}

/// A number from `low` to `high`, each doubling as likely as every other.
fn log_uniform(rng: &mut fastrand::Rng, low: u64, high: u64) -> u64 {
    let octave = rng.u32(low.max(1).ilog2()..=high.max(1).ilog2());
    rng.u64(1 << octave..=(1 << octave) + ((1 << octave) - 1)).clamp(low, high)
}

fn small(n: usize) -> u8 {
    u8::try_from(n).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_of_every_profile_is_within_bounds_and_of_reasonable_length() {
        for profile in Profile::all() {
            for seed in 0..200 {
                let plan = profile.plan(seed);
                assert_eq!(plan.bounded(), plan, "{profile} {seed}");
                assert!((90..400).contains(&plan.steps.len()), "{profile} {seed}: {} steps", plan.steps.len());
            }
        }
    }

    #[test]
    fn every_class_is_on_in_about_half_of_the_seeds_and_every_action_is_drawn() {
        let plans: Vec<Plan> = (0..400).map(|seed| Profile::named("swarm").unwrap().plan(seed)).collect();
        let share = |holds: &dyn Fn(&Plan) -> bool| plans.iter().filter(|plan| holds(plan)).count();
        let faults: [&dyn Fn(&Plan) -> bool; 5] = [
            &|p| p.setting.weather.loss > 0.0,
            &|p| p.setting.weather.duplicate > 0.0,
            &|p| p.setting.ttl_ms_max > 0,
            &|p| p.setting.liars > 0,
            &|p| p.setting.keyspace_bytes < 1 << 30,
        ];
        for (at, fault) in faults.into_iter().enumerate() {
            assert!((120..280).contains(&share(fault)), "fault {at}: {}", share(fault));
        }
        let name = |action: &Action| format!("{action:?}").split([' ', '{']).next().unwrap().to_owned();
        let drawn: BTreeSet<String> = plans.iter().flat_map(|p| &p.steps).map(|s| name(&s.action)).collect();
        assert_eq!(drawn.len(), 27, "every action but rest: {drawn:?}");
    }

    #[test]
    fn the_same_seed_means_the_same_plan_and_another_one_another() {
        let profile = Profile::named("swarm").unwrap();
        assert_eq!(profile.plan(7), profile.plan(7));
        assert_ne!(profile.plan(7), profile.plan(8));
    }
}
