//! A run as data: what the cluster is, and what happens to it, step by step.
//!
//! Everything random about a run is in its plan or follows from the plan's seed, so a plan replays bit by bit, can be
//! written down, and can be shortened. It is written down as one line of JSON: a step is `[milliseconds, action]`, and what
//! a setting or an operation leaves out has its default. `tests/seeds/` keeps plans that once failed in this form.
//!
//! # Invariants
//! * Every plan can be run. A step that makes no sense where it stands (crashing what is not running, writing at a
//!   node that has not joined) does nothing, so leaving steps out of a plan gives a plan.
//! * Places are taken modulo the number of hosts, keys and clients, so any numbers will do.
//! * [`Plan::bounded`] changes nothing in a plan that is within the bounds, and every plan it returns is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::setting::Setting;

/// Declares an enum once, and the list of all it has.
macro_rules! listed {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$of:meta])* $variant:ident,)+ }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
        }
    };
}

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Of everything the steps do not say.
    pub seed: u64,
    /// What the cluster is.
    pub setting: Setting,
    /// What happens to it.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Returns the plan with every number within what a run can do in bounded time: at least one node and at most
    /// nine hosts, a power of two of partitions, rates between 0 and 1, waits and pauses of at most ten minutes.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let step = |step: &Step| {
            let mut step = *step;
            step.after_ms = step.after_ms.min(WAIT_MS_MAX);
            if let Action::Pause { ms, .. } = &mut step.action {
                *ms = (*ms).min(WAIT_MS_MAX);
            }
            step
        };
        let steps = self.steps.iter().take(STEPS_MAX).map(step).collect();
        Self { seed: self.seed, setting: self.setting.bounded(), steps }
    }
}

/// Ten minutes.
const WAIT_MS_MAX: u32 = 600_000;
const STEPS_MAX: usize = 10_000;

/// Something that happens, and how long after the step before.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(from = "(u32, Action)", into = "(u32, Action)")]
pub struct Step {
    /// Milliseconds after the step before.
    pub after_ms: u32,
    /// What happens.
    pub action: Action,
}

/// What can happen.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Action {
    /// A local mutation; `ack` waits for a level and checks the outcome when it comes.
    Write {
        /// Where.
        at: u8,
        /// What.
        op: Op,
        /// How far its receipt must come.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ack: Option<Ack>,
    },
    /// A client with a token reads a key at a node, and from now on must never see anything older.
    Read {
        /// The client, which moves between nodes.
        client: u8,
        /// Where.
        at: u8,
        /// The key.
        key: u8,
    },
    /// A client at an edge wants a register, and it is fetched unless it is there; nothing happens at another host.
    Fetch {
        /// The edge.
        at: u8,
        /// The key.
        key: u8,
    },
    /// A client reads a register at a level, and must be shown what so many held that have answered.
    Ask {
        /// Where.
        at: u8,
        /// The key.
        key: u8,
        /// How many must answer, within how long.
        ack: Ack,
    },
    /// What is sent from one host to another waits until the heal.
    Cut {
        /// The sender.
        from: u8,
        /// The receiver.
        to: u8,
    },
    /// A host is cut off from all others, both ways.
    Isolate {
        /// The host.
        at: u8,
    },
    /// Hosts below `at` are cut off from the others, both ways.
    Split {
        /// The first host of the second half.
        at: u8,
    },
    /// All cuts heal.
    Heal,
    /// What is sent from one host to another is held for some time and then comes at once.
    Clog {
        /// The sender.
        from: u8,
        /// The receiver.
        to: u8,
        /// For how long.
        ms: u16,
    },
    /// A host takes in at most so many bytes per millisecond; 0 ends it.
    Slow {
        /// The host.
        at: u8,
        /// Bytes per millisecond.
        bytes_per_ms: u16,
    },
    /// A host's wall clock is off by so much from now on.
    Skew {
        /// The host.
        at: u8,
        /// Milliseconds, ahead if positive.
        ms: i64,
    },
    /// A host stands still, clock and all, like a suspended machine: its wall clock is right when it goes on.
    Pause {
        /// The host.
        at: u8,
        /// For how long.
        ms: u32,
    },
    /// A host's process ends without a word; its memory is gone.
    Crash {
        /// The host.
        at: u8,
    },
    /// The donor of a host that is just joining, or has just joined, crashes; nothing happens without one.
    CrashDonor {
        /// The joiner.
        of: u8,
    },
    /// A host's process ends in order.
    Stop {
        /// The host.
        at: u8,
    },
    /// A host's process accepts no writes, hands over what it has and ends; at the heal it goes on if it could not.
    Drain {
        /// The host.
        at: u8,
        /// It gives up its place as well.
        leave: bool,
    },
    /// The last host gets another address, and its process ends and starts again there.
    Move {
        /// The host; nothing happens at another than the last one that is there from the start.
        at: u8,
    },
    /// A host is made active by hand.
    Promote {
        /// The host.
        at: u8,
    },
    /// A host is made a standby by hand.
    Demote {
        /// The host.
        at: u8,
    },
    /// A process is started on a host that has none, empty and under a fresh replica id.
    Start {
        /// The host.
        at: u8,
    },
    /// A second process with the identity of a host is started; both run until the heal.
    Clone {
        /// The host.
        of: u8,
    },
    /// An operator at one host removes the replica that runs, or last ran, at another. The removed goes on as a zombie
    /// as long as nobody tells it.
    Remove {
        /// Where the order is given.
        by: u8,
        /// Who is removed.
        at: u8,
    },
    /// A process whose replica was removed is told that it may go on as another one.
    Rejoin {
        /// The host.
        at: u8,
    },
    /// A host gives an entry's memory back.
    Evict {
        /// The host.
        at: u8,
        /// The key.
        key: u8,
        /// The family of keyspace.
        map: bool,
    },
    /// A host's memory loses a register that all members have seen, and nobody notices.
    Damage {
        /// The host.
        at: u8,
        /// The key.
        key: u8,
    },
    /// A host's logs are cut to so many records each.
    Truncate {
        /// The host.
        at: u8,
        /// Records kept per partition.
        keep: u8,
    },
    /// A host's clock has counted nearly all events of its millisecond, as after a burst of 65,000 writes.
    Burst {
        /// The host.
        at: u8,
    },
    /// A liar sends something forged on all its links.
    Forge {
        /// The liar; nothing happens at an honest host.
        at: u8,
        /// What.
        lie: Lie,
    },
    /// Nothing, for as long as the step takes.
    Rest,
}

impl Action {
    /// Tells whether a process may end by it, or the time be another one after it: what can be seen now must be seen now.
    pub(super) fn ends_or_shifts(&self) -> bool {
        matches!(
            self,
            Self::Crash { .. }
                | Self::CrashDonor { .. }
                | Self::Stop { .. }
                | Self::Drain { .. }
                | Self::Clone { .. }
                | Self::Move { .. }
                | Self::Remove { .. }
                | Self::Skew { .. }
                | Self::Pause { .. }
        )
    }
}

/// A local mutation. Values are unique; deadlines are drawn from [`Setting::ttl_ms_max`] by `ttl`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Op {
    /// Which mutation.
    pub kind: OpKind,
    /// The key.
    pub key: u8,
    /// The field, member or counter, where the mutation has one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub name: u8,
    /// Share of the longest time to live in 255ths; 0 means for ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ttl: u8,
}

listed! {
    /// Local mutations.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[expect(missing_docs, reason = "each is the store's mutation of the same name")]
    pub enum OpKind {
        Set,
        SetTagged,
        Delete,
        Touch,
        Put,
        Remove,
        TouchField,
        AddMember,
        RemoveMember,
        Increment,
        Decrement,
        Reset,
        TouchCounter,
        ExpireKey,
        Clear,
        UpdateCustom,
        DeleteCustom,
        InvalidateAll,
        InvalidateTag,
        InvalidatePrefix,
    }
}

/// How far a receipt must come, within how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    /// All members instead of a majority.
    pub all: bool,
    /// When to give up.
    pub within_ms: u16,
}

listed! {
    /// What a liar sends.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    pub enum Lie {
        /// A report that claims to have seen far more than there is.
        Report,
        /// A frame that claims to come from the receiver.
        Origin,
        /// A batch that covers events of the receiver which the receiver never made.
        Events,
        /// A context with as many replicas and gaps as fit.
        HugeContext,
        /// A context with more gaps than fit.
        TornContext,
        /// A piece of a full synchronisation whose earlier pieces were never sent.
        Piece,
        /// Bytes of no meaning on the control stream.
        Noise,
        /// A real message of its own with bytes changed.
        Garbled,
        /// A second hello.
        Hello,
        /// A flood of small control messages.
        Flood,
        /// A clock as far ahead as is accepted, its counter full.
        Clock,
    }
}

fn is_zero(n: &u8) -> bool {
    *n == 0
}

impl From<(u32, Action)> for Step {
    fn from((after_ms, action): (u32, Action)) -> Self {
        Self { after_ms, action }
    }
}

impl From<Step> for (u32, Action) {
    fn from(step: Step) -> Self {
        (step.after_ms, step.action)
    }
}

/// One readable line.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:>6} ms  {}", self.after_ms, self.action)
    }
}

/// What happens, host first.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { at, op, ack: None } => write!(f, "r{at} {op}"),
            Self::Write { at, op, ack: Some(ack) } => {
                let level = if ack.all { "all" } else { "a quorum" };
                write!(f, "r{at} {op}, waits {} ms for {level}", ack.within_ms)
            }
            Self::Read { client, at, key } => write!(f, "r{at} client {client} reads key {key}"),
            Self::Ask { at, key, ack } => {
                let level = if ack.all { "everybody" } else { "a quorum" };
                write!(f, "r{at} asks {level} for register {key} for {} ms", ack.within_ms)
            }
            Self::Fetch { at, key } => write!(f, "r{at} fetches register {key}"),
            Self::Cut { from, to } => write!(f, "r{from} cannot reach r{to}"),
            Self::Isolate { at } => write!(f, "r{at} is cut off"),
            Self::Split { at } => write!(f, "hosts below {at} and the others are cut apart"),
            Self::Heal => f.write_str("all cuts heal"),
            Self::Clog { from, to, ms } => write!(f, "r{from} to r{to} is clogged for {ms} ms"),
            Self::Slow { at, bytes_per_ms } => write!(f, "r{at} takes {bytes_per_ms} bytes/ms (0: all)"),
            Self::Skew { at, ms } => write!(f, "r{at}'s clock is off by {ms} ms"),
            Self::Pause { at, ms } => write!(f, "r{at} stands still for {ms} ms"),
            Self::Crash { at } => write!(f, "r{at} crashes"),
            Self::CrashDonor { of } => write!(f, "the donor of r{of} crashes"),
            Self::Stop { at } => write!(f, "r{at} shuts down"),
            Self::Drain { at, leave } => write!(f, "r{at} is to {}", if *leave { "leave" } else { "drain" }),
            Self::Move { at } => write!(f, "r{at} gets another address and starts again"),
            Self::Promote { at } => write!(f, "r{at} is made active"),
            Self::Demote { at } => write!(f, "r{at} is made a standby"),
            Self::Start { at } => write!(f, "r{at} starts"),
            Self::Clone { of } => write!(f, "a clone of r{of} starts"),
            Self::Remove { by, at } => write!(f, "r{by} removes r{at}"),
            Self::Rejoin { at } => write!(f, "r{at} may come back"),
            Self::Evict { at, key, map } => write!(f, "r{at} evicts {} {key}", if *map { "map" } else { "register" }),
            Self::Damage { at, key } => write!(f, "r{at} loses register {key}"),
            Self::Truncate { at, keep } => write!(f, "r{at} cuts its logs to {keep}"),
            Self::Burst { at } => write!(f, "r{at} has counted to the end of a millisecond"),
            Self::Forge { at, lie } => write!(f, "r{at} lies: {lie:?}"),
            Self::Rest => f.write_str("nothing"),
        }
    }
}

/// The mutation and what it is about.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} key {} name {}", self.kind, self.key, self.name)?;
        if self.ttl > 0 { write!(f, " ttl {}/255", self.ttl) } else { Ok(()) }
    }
}
