//! Places, how far apart they are, and how long light takes.

use std::time::Duration;

/// Mean radius of the earth in kilometres.
const EARTH_KM: f64 = 6_371.0;
/// Kilometres of distance per millisecond of round trip: light in glass goes 200 km in a millisecond, there and back, and
/// cables take detours of about a half.
const KM_PER_MS: f64 = 67.0;

/// A place, in degrees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Location {
    /// North of the equator, -90 to 90.
    pub latitude: f64,
    /// East of Greenwich, -180 to 180.
    pub longitude: f64,
}

impl Location {
    /// Returns the distance over ground in kilometres (the haversine formula).
    #[must_use]
    pub fn km_to(&self, other: &Self) -> f64 {
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let (dy, dx) = (b - a, (other.longitude - self.longitude).to_radians());
        let h = (dy / 2.0).sin().powi(2) + a.cos() * b.cos() * (dx / 2.0).sin().powi(2);
        2.0 * EARTH_KM * h.clamp(0.0, 1.0).sqrt().asin()
    }

    /// Returns about how long a round trip takes.
    #[must_use]
    pub fn rtt_to(&self, other: &Self) -> Duration {
        Duration::try_from_secs_f64(self.km_to(other) / KM_PER_MS / 1_000.0).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIRGINIA: Location = Location { latitude: 38.9, longitude: -77.4 };
    const FRANKFURT: Location = Location { latitude: 50.1, longitude: 8.7 };
    const SINGAPORE: Location = Location { latitude: 1.35, longitude: 103.8 };

    #[test]
    fn distances_are_those_of_the_globe() {
        let about = |a: &Location, b: &Location, km: f64| (a.km_to(b) - km).abs() < km * 0.01;
        assert!(about(&VIRGINIA, &FRANKFURT, 6_540.0), "{}", VIRGINIA.km_to(&FRANKFURT));
        assert!(about(&FRANKFURT, &SINGAPORE, 10_260.0), "{}", FRANKFURT.km_to(&SINGAPORE));
        assert!(VIRGINIA.km_to(&VIRGINIA) < 1e-6);
        let (east, west) =
            (Location { latitude: 0.0, longitude: 179.5 }, Location { latitude: 0.0, longitude: -179.5 });
        assert!(about(&east, &west, 111.2), "over the date line");
    }

    #[test]
    fn round_trips_are_about_those_between_data_centres() {
        let ms = VIRGINIA.rtt_to(&FRANKFURT).as_millis();
        assert!((80..120).contains(&ms), "{ms}");
        let nowhere = Location { latitude: f64::NAN, longitude: 0.0 };
        assert_eq!(nowhere.rtt_to(&FRANKFURT), Duration::MAX);
    }
}
