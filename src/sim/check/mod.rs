//! What must hold in every run, one small function each.
//!
//! # Invariants
//! * A check is told nothing by the code under test but its state: what must hold comes from the history, from the
//!   contexts, and from the clock nobody's is off from.
//! * A check that runs at every step costs what changed, not what there is.

mod acks;
mod admission;
mod agreement;
mod clocks;
mod convergence;
mod effect;
mod memory;
mod profiles;
mod rest;
mod seat;
mod session;

use std::fmt;

pub(super) use acks::{Pending, Reached, Witnesses};
pub(super) use admission::{admitted, nothing_unknown};
pub(super) use agreement::agree_between;
pub use agreement::{Licence, agree};
pub(super) use clocks::{Stamps, decides_ms, later_than_seen, numbered};
pub(super) use convergence::{is_reached, members, reached, same_state};
pub(super) use effect::Author;
pub(super) use memory::{accounted, bounded, within_budget};
pub(super) use profiles::{agreed, somebody_active};
pub(super) use rest::{all_folded, at_ease, nothing_left};
pub(super) use seat::{News, Seat, stable_everywhere};
pub(super) use session::{Client, Moment};

/// Declares the invariants once: the enum, all of them, their names.
macro_rules! invariants {
    ($($(#[doc = $doc:literal])+ $invariant:ident,)+) => {
        /// What a run is held to. The numbers in brackets are those of the design's list of invariants.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Invariant {
            $($(#[doc = $doc])+ $invariant,)+
        }

        impl Invariant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$invariant,)+];

            /// Returns the name, the same in every version.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$invariant => stringify!($invariant),)+
                }
            }

            /// Returns the invariant of a name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|invariant| invariant.name() == name)
            }
        }
    };
}

invariants! {
    /// Within a stated time after everything healed all hosts have seen the same (I1, I11).
    Convergence,
    /// Hosts that have seen the same show the same and hold the same (I1).
    EqualState,
    /// A host shows exactly what history says of the events it has seen (I8).
    History,
    /// A level that was reached was reached: so many members really have the write (I2).
    Acknowledged,
    /// What a host that survived had seen at the heal, everybody has seen at the end (I2).
    Survival,
    /// What was deleted, cleared, reset, invalidated or overwritten does not show again (I3).
    Resurrection,
    /// Nothing shows, and no event is named, that nobody wrote (I4).
    Invented,
    /// A client with a token never sees anything older than what it saw (I5).
    Session,
    /// Events of a replica are numbered from one without gaps, and no number is used twice (I6).
    Dots,
    /// A replica's stamps grow, and are never ahead of its own clock by more than the drift bound (I6).
    Clock,
    /// Frontier within floor within context, and none of them ever shrinks.
    Nesting,
    /// What a replica calls stable every member it knows has seen.
    Stability,
    /// Once quiet nothing is left that may be forgotten: log records, tombstones, stubs, epochs, holes nobody made (I9).
    Quiescence,
    /// The bytes a keyspace is accounted for are those its entries take, and stay near its budget (I9).
    Memory,
    /// No queue is longer than its bound (I9).
    Bounds,
    /// A write is refused exactly when it may be, and a refused write leaves no trace.
    Admission,
    /// A mutation does what its author's view calls for, no more and no less (I5, I8).
    Effect,
    /// Nothing ends earlier or later than its deadline by more than the clocks are off (I14).
    Expiry,
    /// Nobody is called unreachable by a node that hears nobody, nor if nobody agrees; once healed everybody is heard.
    Liveness,
    /// Members agree on what each says of itself, no earlier word of one replaces a later, every two find each other, and no
    /// standby takes over while somebody active may be there. Who is told of a twin has one.
    Membership,
    /// What one copy lost silently is given back, and in health nothing is found to differ (I1).
    Repair,
    /// Whoever folds away what a node was before has seen the same of it, all of it stable, and at rest nothing else is left.
    Folding,
    /// A wait ends when its deadline passes (I11).
    Waits,
    /// The same plan gives the same trace (I13).
    Determinism,
    /// Nothing panics, whatever arrives (I12).
    Panic,
}

/// The name.
impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An invariant that did not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Where, and what was found instead.
    pub detail: String,
}

impl Violation {
    /// Says what did not hold, and how.
    #[must_use]
    pub fn new(invariant: Invariant, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// Says at which host something does not hold.
pub(super) fn at_host(at: usize) -> impl Fn(Violation) -> Violation {
    move |found| Violation { detail: format!("r{at}: {}", found.detail), ..found }
}
