//! The locks and atomics several threads share: the real ones, or those of a checker.
//!
//! Compiled with `--cfg shuttle` they are shuttle's, which decides at each of them which thread goes on, so that
//! `tests/shuttle.rs` drives the *real* store through thousands of schedules. `tests/loom.rs` compiles the files that
//! depend on an order of atomics, and on nothing else from here, against loom's.
//!
//! # Invariants
//! * Without the flag these are plain re-exports; no checker is compiled.
//!
//! Not here: `Arc`, whose counts decide nothing (but for `store::history::Hold`, which only the driver makes and drops), and tokio's channels, which are atomic steps to a checker.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle_parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
