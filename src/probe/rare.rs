//! Events that must happen now and then.

/// Declares the events once: the enum, all of them, their names.
macro_rules! rare {
    ($($(#[doc = $doc:literal])+ $event:ident,)+) => {
        /// An event that must happen now and then in simulation.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Sometimes {
            $($(#[doc = $doc])+ $event,)+
        }

        impl Sometimes {
            /// All events.
            pub const ALL: &[Self] = &[$(Self::$event,)+];

            /// Returns the event's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$event => stringify!($event),)+
                }
            }
        }
    };
}

rare! {
    /// A batch that predates what is stable was dropped (R-STALE).
    StaleBatchDropped,
}

#[cfg(feature = "sim")]
pub use counting::{Hits, hit, take};

#[cfg(feature = "sim")]
mod counting {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::Sometimes;

    /// How often each event happened.
    pub type Hits = BTreeMap<Sometimes, u64>;

    thread_local! {
        static HITS: RefCell<Vec<u64>> = RefCell::new(vec![0; Sometimes::ALL.len()]);
    }

    /// Counts an event on this thread.
    #[expect(clippy::as_conversions, reason = "the discriminant of a field-less enum is its place in ALL")]
    pub fn hit(event: Sometimes) {
        HITS.with_borrow_mut(|hits| {
            if let Some(count) = hits.get_mut(event as usize) {
                *count += 1;
            }
        });
    }

    /// Returns what happened on this thread since the last call.
    #[must_use]
    pub fn take() -> Hits {
        HITS.with_borrow_mut(|hits| {
            let counts = hits.iter_mut().map(std::mem::take);
            Sometimes::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
        })
    }
}
