//! The three regions of the demo and the distances between them.
//!
//! # Invariants
//! * Distances are symmetric, and zero from a region to itself.

use std::time::Duration;

/// The regions, in the order in which every table shows them.
pub(crate) const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];

/// Returns the one-way delay between two regions; unknown names are next to each other.
pub(crate) fn one_way(from: &str, to: &str) -> Duration {
    let ms = match (from, to) {
        ("us-east", "eu-central") | ("eu-central", "us-east") => 40,
        ("us-east", "ap-southeast") | ("ap-southeast", "us-east") => 75,
        ("eu-central", "ap-southeast") | ("ap-southeast", "eu-central") => 110,
        _ => 0,
    };
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_symmetric_and_only_home_is_at_zero() {
        for a in REGIONS {
            for b in REGIONS {
                assert_eq!(one_way(a, b), one_way(b, a));
                assert_eq!(one_way(a, b).is_zero(), a == b);
            }
        }
    }
}
