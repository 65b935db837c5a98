//! Which regions were out, and how long each has been well since: worked out as it happens, for whoever looks only now and
//! then.
//!
//! A region is *out* while the best that is known of its members is that they are behind a cut or unreachable, and while a
//! region that was known has no member: it was given up, removed, or it left.
//!
//! # Invariants
//! * What is remembered does not depend on who asks, nor when: an outage between two looks is seen by the second.
//! * A suspicion ends the time for which a region was well. It is no outage.
//! * At most 64 regions without a member are remembered. The one that left first is forgotten first.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Mono;
use crate::id::RegionId;
use crate::membership::Reach;

/// Regions without a member that are remembered: more than any cluster has, and a few kilobytes.
const LEFT_MAX: usize = 64;

/// What a region has been since it was out the last time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Since when it is heard without a break, if it is.
    pub since: Option<Mono>,
    /// The longest time for which it was heard without a break before that.
    pub longest: Duration,
}

impl Recovery {
    /// Returns the longest time for which the region has been heard without a break since it was out; zero while it is out.
    #[must_use]
    pub fn well_for(&self, now: Mono) -> Duration {
        self.longest.max(self.since.map(|since| now.since(since)).unwrap_or_default())
    }

    fn breaks(&mut self, now: Mono) {
        *self = Self { since: None, longest: self.well_for(now) };
    }
}

/// What is remembered of a region.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// What it has been since it was out, if it ever was.
    recovery: Option<Recovery>,
    /// Since when it has no member, if it has none.
    left_at: Option<Mono>,
}

/// What is remembered of all regions.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    places: BTreeMap<RegionId, Place>,
}

impl Outages {
    /// Notes the best that is known of the members of each region that has any.
    pub fn note(&mut self, now: Mono, regions: &BTreeMap<&RegionId, Reach>) {
        for (region, reach) in regions {
            if let Some(place) = self.places.get_mut(*region) {
                place.note(now, *reach);
            } else {
                let mut place = Place::default();
                place.note(now, *reach);
                self.places.insert((*region).clone(), place);
            }
        }
        for (region, place) in &mut self.places {
            if !regions.contains_key(region) {
                place.recovery = Some(Recovery::default());
                place.left_at.get_or_insert(now);
            }
        }
        self.forget();
    }

    /// Returns what each region that was out has been since.
    #[must_use]
    pub fn recoveries(&self) -> BTreeMap<RegionId, Recovery> {
        self.places.iter().filter_map(|(region, place)| Some((region.clone(), place.recovery?))).collect()
    }

    /// Nobody is heard from now on, for a time in which nothing is noted.
    pub fn interrupt(&mut self, now: Mono) {
        self.places.values_mut().filter_map(|place| place.recovery.as_mut()).for_each(|recovery| recovery.breaks(now));
    }

    /// Counts for nobody a time in which nothing could be heard.
    pub fn forgive(&mut self, late: Duration) {
        for recovery in self.places.values_mut().filter_map(|place| place.recovery.as_mut()) {
            recovery.since = recovery.since.map(|since| since.plus(late));
        }
    }

    fn forget(&mut self) {
        let left = |(region, place): (&RegionId, &Place)| Some((place.left_at?, region.clone()));
        let mut left: Vec<(Mono, RegionId)> = self.places.iter().filter_map(left).collect();
        let over = left.len().saturating_sub(LEFT_MAX);
        left.sort_unstable();
        for (_, region) in left.into_iter().take(over) {
            self.places.remove(&region);
        }
    }
}

impl Place {
    fn note(&mut self, now: Mono, reach: Reach) {
        self.left_at = None;
        match (reach, &mut self.recovery) {
            (Reach::Up, Some(recovery)) => {
                recovery.since.get_or_insert(now);
            }
            (Reach::Suspected, Some(recovery)) => recovery.breaks(now),
            (Reach::Up | Reach::Suspected, None) => {}
            (Reach::Cut | Reach::Unreachable, _) => self.recovery = Some(Recovery::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono(s * 1_000_000_000)
    }

    fn note(outages: &mut Outages, s: u64, regions: &[(&str, Reach)]) {
        let regions: Vec<(RegionId, Reach)> =
            regions.iter().map(|(name, reach)| (RegionId::new(name), *reach)).collect();
        outages.note(at(s), &regions.iter().map(|(region, reach)| (region, *reach)).collect());
    }

    /// For how many seconds a region has been well since it was out.
    fn well_for(outages: &Outages, s: u64, region: &str) -> Option<u64> {
        let recoveries = outages.recoveries();
        recoveries.get(&RegionId::new(region)).map(|recovery| recovery.well_for(at(s)).as_secs())
    }

    #[test]
    fn the_time_counts_from_the_end_of_the_last_outage_and_a_suspicion_begins_it_anew() {
        let mut outages = Outages::default();
        note(&mut outages, 0, &[("eu", Reach::Up), ("us", Reach::Up)]);
        note(&mut outages, 1, &[("eu", Reach::Suspected), ("us", Reach::Up)]);
        note(&mut outages, 2, &[("eu", Reach::Up), ("us", Reach::Up)]);
        assert_eq!(well_for(&outages, 2, "eu"), None, "a suspicion is no outage");
        for (s, reach, well) in [
            (3, Reach::Unreachable, 0),
            (5, Reach::Up, 0),
            (12, Reach::Up, 7),
            (15, Reach::Suspected, 10),
            (16, Reach::Up, 10),
            (20, Reach::Up, 10),
            (30, Reach::Up, 14),
            (31, Reach::Cut, 0),
            (40, Reach::Suspected, 0),
            (41, Reach::Up, 0),
            (50, Reach::Up, 9),
        ] {
            note(&mut outages, s, &[("eu", reach), ("us", Reach::Up)]);
            assert_eq!(well_for(&outages, s, "eu"), Some(well), "{s}");
        }
        outages.forgive(Duration::from_secs(5));
        assert_eq!(well_for(&outages, 55, "eu"), Some(9), "nobody was heard meanwhile");
        assert_eq!(well_for(&outages, 55, "us"), None);
    }

    #[test]
    fn a_region_that_had_no_member_was_out() {
        let mut outages = Outages::default();
        note(&mut outages, 0, &[("eu", Reach::Up)]);
        note(&mut outages, 1, &[]);
        assert_eq!(well_for(&outages, 90_000, "eu"), Some(0), "however long ago");
        note(&mut outages, 90_000, &[("eu", Reach::Up)]);
        assert_eq!(well_for(&outages, 90_029, "eu"), Some(29));
    }

    #[test]
    fn of_the_regions_that_left_the_last_64_are_remembered() {
        let mut outages = Outages::default();
        let names: Vec<String> = (0..100).map(|n| format!("r{n:02}")).collect();
        for (s, name) in (0..).zip(&names) {
            note(&mut outages, s, &[("here", Reach::Up), (name, Reach::Up)]);
        }
        note(&mut outages, 100, &[("here", Reach::Up)]);
        assert_eq!(outages.places.len(), 1 + LEFT_MAX);
        assert_eq!((well_for(&outages, 100, "r35"), well_for(&outages, 100, "r36")), (None, Some(0)));
    }
}
