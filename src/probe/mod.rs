//! How a test looks inside: events that are rare on purpose, and faults that are planted on purpose.
//!
//! [`Sometimes`] names things that must happen *now and then* in simulation, or what was simulated proves little: a
//! "sometimes" assertion is the counterpart of an invariant, which must hold always. `sometimes!(Name)` marks the
//! place; without the feature `sim` it is nothing at all.
//!
//! [`Fault`] names single mistakes a maintainer could make. `planted!(Name)` is `false`, a constant, unless the crate is
//! compiled with `--cfg planted`; then it asks whether the fault was planted on this thread. A suite of checks that
//! does not see each of them is not worth its run time.
//!
//! # Invariants
//! * Neither changes what the library does in a build without `sim` and `--cfg planted`.
//! * Both are per thread: runs on different threads do not see each other.

mod faults;
#[cfg(feature = "sim")]
mod hits;
mod rare;

pub use faults::Fault;
#[cfg(planted)]
pub use faults::{is_planted, plant};
#[cfg(feature = "sim")]
pub use hits::{Hits, hit, take};
pub use rare::Sometimes;

/// Marks a place that must be reached now and then: `sometimes!(Name)`, or `sometimes!(Name, if condition)`.
///
/// As with `debug_assert!`, the condition is compiled in every build and evaluated in simulation only.
macro_rules! sometimes {
    ($event:ident) => {
        #[cfg(feature = "sim")]
        $crate::probe::hit($crate::probe::Sometimes::$event);
    };
    ($event:ident, if $condition:expr) => {
        if cfg!(feature = "sim") && $condition {
            #[cfg(feature = "sim")]
            $crate::probe::hit($crate::probe::Sometimes::$event);
        }
    };
}

/// Whether a fault is planted here: a constant `false` unless compiled with `--cfg planted`.
#[cfg(not(planted))]
macro_rules! planted {
    ($fault:ident) => {
        false
    };
}

/// Whether a fault is planted here.
#[cfg(planted)]
macro_rules! planted {
    ($fault:ident) => {
        $crate::probe::is_planted($crate::probe::Fault::$fault)
    };
}

pub(crate) use {planted, sometimes};
