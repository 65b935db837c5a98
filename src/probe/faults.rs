//! Mistakes that can be planted, one at a time.

/// Declares the faults once: the enum, all of them, their names.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $fault:ident,)+) => {
        /// A single mistake that can be planted in a build with `--cfg planted`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $fault,)+
        }

        impl Fault {
            /// All faults.
            pub const ALL: &[Self] = &[$(Self::$fault,)+];

            /// Returns the fault's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => stringify!($fault),)+
                }
            }

            /// Returns the fault of a name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|fault| fault.name() == name)
            }
        }
    };
}

faults! {
    /// Batches that predate what is stable are accepted (R-STALE).
    StaleBatchAccepted,
}

#[cfg(planted)]
pub use switch::{is_planted, plant};

#[cfg(planted)]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault on this thread, or none.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// Tells whether a fault is planted on this thread.
    #[must_use]
    pub fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}
