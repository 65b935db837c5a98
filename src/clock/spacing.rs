//! Events that are spaced out: the generic cell rate algorithm (ITU-T I.371), which keeps one instant.

use std::time::Duration;

use super::Mono;

/// Lets events pass, some at once after a pause and one every so often in the long run.
#[derive(Clone, Copy, Debug)]
pub struct Spacing {
    each: Duration,
    taken_until: Mono,
}

impl Spacing {
    /// Builds one of which each event takes up so much time.
    #[must_use]
    pub fn new(each: Duration) -> Self {
        Self { each, taken_until: Mono::default() }
    }

    /// Returns how much `count` events take up, the room in which they pass at once.
    #[must_use]
    pub fn room_for(&self, count: u32) -> Duration {
        self.each.saturating_mul(count.max(1))
    }

    /// Returns when the next event passes if what was taken up may be `room` ahead of the time.
    #[must_use]
    pub fn next_at(&self, room: Duration) -> Mono {
        let ahead = room.saturating_sub(self.each);
        Mono(self.taken_until.0.saturating_sub(u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Lets an event pass.
    ///
    /// # Errors
    /// After how long it may be tried again. Nothing was taken up.
    pub fn take(&mut self, now: Mono, room: Duration) -> Result<(), Duration> {
        let next_at = self.next_at(room);
        if next_at > now {
            return Err(next_at.since(now));
        }
        self.taken_until = self.taken_until.max(now).plus(self.each);
        Ok(())
    }
}
