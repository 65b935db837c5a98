//! The data types: pure values with a join, no keys, no log, no clock.
//!
//! Every type here is a join semilattice, or a dot store that becomes one next to a causal
//! context (Almeida, Shoker, Baquero, *Delta State Replicated Data Types*, arXiv 1603.01529).
//! `merge`-like functions are associative, commutative and idempotent; `tests/laws.rs` holds them
//! to it, and against the `crdts` crate, whose vocabulary ([`crdts::CvRDT`], [`crdts::CmRDT`],
//! [`crdts::ResetRemove`], [`crdts::LWWReg`], [`crdts::VClock`]) they implement or contain.
//!
//! # The contract
//! * A value's *deadline* is part of the value and joins by maximum; expiry needs no message.
//! * Absence says "removed" only for dots in the sender's context (see [`tree::Tree::join`]).
//! * Ordered collections only: equal states have equal bytes.

pub mod context;
pub mod counter;
pub mod custom;
mod elems;
pub mod member;
pub mod members;
pub mod or_map;
mod orphans;
pub mod register;
pub mod seen;
pub mod set;
pub mod tree;

pub use context::{Ctx, Dot};
pub use counter::{Contribution, Counter, Reset};
pub use custom::Custom;
pub use member::{Member, Profile};
pub use members::{INCARNATIONS_MAX, MemberSet};
pub use or_map::OrMap;
pub use register::{Cell, Payload};
pub use seen::Seen;
pub use set::members;
pub use tree::{Elem, Path, Scope, Tree};

/// The deadline of a value that never expires.
pub const NEVER: u64 = u64::MAX;
