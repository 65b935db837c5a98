//! The five regions of the demo, where they are, and how far apart.
//!
//! # Invariants
//! * Distances are symmetric, and zero from a region to itself.
//! * A site is a process's place in the network. Those of one region follow each other; the last site of all is kept for
//!   the clone.

use std::time::Duration;

use driftless::routing::RegionProfile;

/// How many regions there are.
pub(crate) const COUNT: usize = 5;

/// The regions, in the order in which every table shows them, with latitude and longitude.
const REGIONS: [(&str, f64, f64); COUNT] = [
    ("us-east", 38.9, -77.4),
    ("us-west", 45.8, -119.7),
    ("eu-central", 50.1, 8.7),
    ("ap-southeast", 1.4, 103.8),
    ("sa-east", -23.5, -46.6),
];

/// One way between two regions in milliseconds, as cables run: the rows and columns of [`REGIONS`].
const ONE_WAY_MS: [[u64; COUNT]; COUNT] =
    [[0, 32, 44, 108, 57], [32, 0, 70, 84, 88], [44, 70, 0, 80, 100], [108, 84, 80, 0, 160], [57, 88, 100, 160, 0]];

/// From a client to its own region: the last mile.
const LAST_MILE: Duration = Duration::from_millis(5);

/// Between two processes of one region: across a building.
const INSIDE: Duration = Duration::from_micros(500);

/// Returns the name of a region.
pub(crate) fn name(region: usize) -> &'static str {
    REGIONS.get(region).map_or("nowhere", |(name, ..)| *name)
}

/// Returns the region of a name.
pub(crate) fn region(name: &str) -> Option<usize> {
    REGIONS.iter().position(|(known, ..)| *known == name)
}

/// Returns what the routers are told of the regions.
pub(crate) fn profiles() -> Vec<RegionProfile> {
    REGIONS.iter().map(|(name, latitude, longitude)| RegionProfile::new(name).at(*latitude, *longitude)).collect()
}

/// Returns the one-way delay between two regions.
pub(crate) fn one_way(from: usize, to: usize) -> Duration {
    let ms = ONE_WAY_MS.get(from).and_then(|row| row.get(to)).copied();
    Duration::from_millis(ms.unwrap_or_default())
}

/// Returns the one-way delay from a client near one region to another.
pub(crate) fn from_client(home: usize, to: usize) -> Duration {
    one_way(home, to) + LAST_MILE
}

/// Returns all regions, the nearest to one first; that is itself.
pub(crate) fn by_distance(from: usize) -> Vec<usize> {
    let mut regions: Vec<usize> = (0..COUNT).collect();
    regions.sort_by_key(|to| one_way(from, *to));
    regions
}

/// How processes are spread over the regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct World {
    /// Processes in each region.
    pub(crate) nodes: usize,
    /// The region whose node is cloned.
    pub(crate) cloned: usize,
}

impl World {
    /// Returns how many sites there are, the clone's included.
    pub(crate) fn sites(self) -> usize {
        self.clone_site() + 1
    }

    /// Returns the sites of a region's own processes.
    pub(crate) fn sites_of(self, region: usize) -> std::ops::Range<usize> {
        region * self.nodes..(region + 1) * self.nodes
    }

    /// Returns where the clone runs.
    pub(crate) fn clone_site(self) -> usize {
        COUNT * self.nodes
    }

    /// Returns the region of a site.
    pub(crate) fn region_of(self, site: usize) -> usize {
        if site == self.clone_site() { self.cloned } else { site / self.nodes.max(1) }
    }

    /// Returns the name of a site: its region's, with a number where that has several processes.
    pub(crate) fn name_of(self, site: usize) -> String {
        let region = name(self.region_of(site));
        match site {
            site if site == self.clone_site() => format!("{region}'s clone"),
            _ if self.nodes == 1 => region.to_owned(),
            _ => format!("{region}-{}", site % self.nodes + 1),
        }
    }

    /// Returns the one-way delay between two sites.
    pub(crate) fn delay(self, from: usize, to: usize) -> Duration {
        one_way(self.region_of(from), self.region_of(to)).max(INSIDE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_symmetric_and_only_home_is_at_zero() {
        for a in 0..COUNT {
            assert_eq!(by_distance(a)[0], a);
            for b in 0..COUNT {
                assert_eq!(one_way(a, b), one_way(b, a));
                assert_eq!(one_way(a, b).is_zero(), a == b);
            }
        }
    }

    #[test]
    fn sites_belong_to_regions_and_the_last_one_is_the_clones() {
        let world = World { nodes: 2, cloned: 3 };
        assert_eq!(world.sites(), 11);
        assert!(world.sites_of(2).all(|site| world.region_of(site) == 2));
        assert_eq!((world.region_of(10), world.name_of(10).as_str()), (3, "ap-southeast's clone"));
        assert_eq!(world.name_of(3), "us-west-2");
        assert_eq!(region(name(4)), Some(4));
    }
}
