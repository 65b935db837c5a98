//! How much may wait for a link: what it took lately.
//!
//! A write that waits here can still be overtaken by the next one to its key; once it is handed to the link it cannot. So
//! a link that has become slow is given little at a time, and what it brings is fresh.
//!
//! # Invariants
//! * A link that takes everything at once has the whole window.

use std::time::Duration;

use crate::clock::Mono;
use crate::probe::sometimes;

/// How much time's worth may wait.
const WORTH: Duration = Duration::from_millis(100);
/// What may always wait, so that a link which was slow shows what it can do: about a frame.
const ROOM_MIN: usize = 32 * 1024;

/// What one link took lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    room: usize,
    since: Mono,
    taken: usize,
    /// There was no room at some time since then.
    was_full: bool,
}

impl Pace {
    pub(super) fn new(now: Mono) -> Self {
        Self { room: usize::MAX, since: now, taken: 0, was_full: false }
    }

    /// Returns how many bytes may wait, of a window of so many.
    pub(super) fn room(&self, window: usize) -> usize {
        self.room.min(window)
    }

    /// Notes that so many bytes wait now.
    pub(super) fn waiting(&mut self, bytes: usize, window: usize) {
        self.was_full |= bytes >= self.room(window);
    }

    /// Notes that the link took so many bytes.
    pub(super) fn took(&mut self, now: Mono, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        let past = now.since(self.since);
        if past < WORTH {
            return;
        }
        let worth = u128::try_from(self.taken).unwrap_or(u128::MAX).saturating_mul(WORTH.as_nanos()) / past.as_nanos();
        let worth = usize::try_from(worth).unwrap_or(usize::MAX).max(ROOM_MIN);
        // Twice of what it took with less: how much more it can take is not known before it is tried.
        self.room = if self.was_full { worth.saturating_mul(2) } else { self.room.saturating_mul(2) };
        sometimes!(LinkTakesLittle, if self.was_full && worth == ROOM_MIN);
        (self.since, self.taken, self.was_full) = (now, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: usize = 256 * 1024;

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn a_link_that_is_never_full_has_the_whole_window() {
        let mut pace = Pace::new(at(0));
        for n in 1..100 {
            pace.waiting(1_000, WINDOW);
            pace.took(at(n * 50), 1_000);
            assert_eq!(pace.room(WINDOW), WINDOW);
        }
    }

    #[test]
    fn a_link_that_becomes_slow_is_given_what_it_takes_and_one_that_recovers_has_it_all_again() {
        let mut pace = Pace::new(at(0));
        pace.waiting(WINDOW, WINDOW);
        pace.took(at(400), 160 * 1024);
        assert_eq!(pace.room(WINDOW), 80 * 1024, "twice of 40 KiB in 100 ms");
        pace.waiting(80 * 1024, WINDOW);
        pace.took(at(500), 1_000);
        assert_eq!(pace.room(WINDOW), ROOM_MIN * 2, "and never less than that");
        for n in 6..9 {
            pace.waiting(pace.room(WINDOW), WINDOW);
            pace.took(at(n * 100), pace.room(WINDOW));
        }
        assert_eq!(pace.room(WINDOW), WINDOW);
    }

    #[test]
    fn little_is_a_matter_of_the_window_too() {
        assert_eq!(Pace::new(at(0)).room(8 << 10), 8 << 10);
    }
}
