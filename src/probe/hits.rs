//! How often each event that is rare on purpose happened on this thread.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::Sometimes;

/// How often each event happened.
pub type Hits = BTreeMap<Sometimes, u64>;

thread_local! {
    /// In place: whoever measures what the library allocates must not find this.
    static HITS: [Cell<u64>; Sometimes::ALL.len()] = const { [const { Cell::new(0) }; Sometimes::ALL.len()] };
}

/// Counts an event on this thread.
#[expect(clippy::as_conversions, reason = "the discriminant of a field-less enum is its place in ALL")]
pub fn hit(event: Sometimes) {
    HITS.with(|hits| hits.get(event as usize).map(|count| count.set(count.get() + 1)));
}

/// Returns what happened on this thread since the last call.
#[must_use]
pub fn take() -> Hits {
    HITS.with(|hits| {
        let counts = hits.iter().map(Cell::take);
        Sometimes::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    })
}
