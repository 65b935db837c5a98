//! What is known of each region, and the choice.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::breaker::Breaker;
use super::limiter::Limiter;
use super::{Location, Policy, RegionProfile, RouteError, RouterConfig};
use crate::clock::Mono;
use crate::id::{RegionId, Role};
use crate::membership::{Reach, Recovery};

/// Who asks.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Client {
    /// The region it is in or near.
    pub region: Option<RegionId>,
    /// Where it is.
    pub location: Option<Location>,
    /// What names it, for [`Policy::Weighted`]: a session, a user.
    pub key: u64,
    /// Its request may be refused first when there are too many.
    pub may_be_shed: bool,
}

impl Client {
    /// Returns a client in or near a region.
    #[must_use]
    pub fn in_region(region: &str) -> Self {
        Self { region: Some(RegionId::new(region)), ..Self::default() }
    }

    /// Returns a client at a place, in degrees.
    #[must_use]
    pub fn at(latitude: f64, longitude: f64) -> Self {
        Self { location: Some(Location { latitude, longitude }), ..Self::default() }
    }
}

/// How many percent less busy a region must be to have room again: the clients that it gets back make it busier.
const EASED: u8 = 10;
/// Regions that are not known any more and whose breakers are kept: more than any cluster has.
const LEFT_MAX: usize = 64;

/// What the cluster knows of a region at this moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegionState {
    /// The region.
    pub region: RegionId,
    /// The best that is known of its members.
    pub reach: Reach,
    /// The best part that any of them plays.
    pub role: Role,
    /// One of them takes writes.
    pub takes_writes: bool,
    /// Nobody there is heard but this node itself, which hears none of several others.
    pub isolated: bool,
    /// Round trip from here.
    pub rtt: Option<Duration>,
    /// How long its writes take to get here.
    pub lag: Option<Duration>,
    /// How busy it is, in percent, if it says so.
    pub load: Option<u8>,
    /// What it has been since it was out, if it was.
    pub recovery: Option<Recovery>,
}

/// Where a client goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The region that takes the request.
    pub region: RegionId,
    /// Where to go if it fails, in order.
    pub fallbacks: Vec<RegionId>,
}

/// How well a region serves, from best to worst of those that can be used: what takes no writes comes after what does.
type Standing = (Role, Health);

/// How well a region is, from best to worst of those that can be used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Health {
    Well,
    /// It lags, is too busy, is alone, or was unreachable a while ago.
    Strained,
    /// It is suspected.
    Doubtful,
}

/// What is known of a region.
#[derive(Clone, Debug)]
struct Place {
    profile: RegionProfile,
    is_configured: bool,
    state: Option<RegionState>,
    /// Since when it is not known any more.
    left_at: Option<Mono>,
    /// It was busier than it may be, and is not less so by [`EASED`] since.
    is_busy: bool,
    breaker: Breaker,
    limiter: Option<Limiter>,
}

/// What is known of all regions.
#[derive(Clone, Debug)]
pub struct Table {
    config: RouterConfig,
    places: BTreeMap<RegionId, Place>,
    /// Regions that take no further clients, known or not.
    draining: BTreeSet<RegionId>,
}

impl Table {
    /// Builds a table that knows the configured regions by name only.
    #[must_use]
    pub fn new(config: RouterConfig) -> Self {
        let places = config.regions.iter().map(|profile| (profile.region.clone(), Place::new(profile.clone(), true)));
        Self { places: places.collect(), config, draining: BTreeSet::new() }
    }

    /// Takes in what the cluster knows now. Regions that are not among it are known to nobody any more; of those that failed,
    /// that is remembered.
    pub fn update(&mut self, now: Mono, states: &[RegionState]) {
        for place in self.places.values_mut() {
            if !states.iter().any(|state| state.region == place.profile.region) {
                place.state = None;
                place.left_at.get_or_insert(now);
            }
        }
        for state in states {
            let new = || Place::new(RegionProfile::new(state.region.as_str()), false);
            self.places.entry(state.region.clone()).or_insert_with(new).update(state.clone(), &self.config);
        }
        self.forget();
    }

    /// Forgets regions that are not known any more, but of those that failed the last [`LEFT_MAX`] that left.
    fn forget(&mut self) {
        self.places.retain(|_, place| place.is_known() || place.breaker.has_failures());
        let left = |(region, place): (&RegionId, &Place)| Some((place.left_at?, region.clone()));
        let mut left: Vec<(Mono, RegionId)> =
            self.places.iter().filter(|(_, place)| !place.is_known()).filter_map(left).collect();
        let over = left.len().saturating_sub(LEFT_MAX);
        left.sort_unstable();
        for (_, region) in left.into_iter().take(over) {
            self.places.remove(&region);
        }
    }

    /// Sends no further clients to a region, or sends them again. It holds for a region that is not known yet, and while it
    /// is gone.
    pub fn drain(&mut self, region: &RegionId, draining: bool) {
        if draining {
            self.draining.insert(region.clone());
        } else {
            self.draining.remove(region);
        }
    }

    /// Notes how a request to a region ended.
    pub fn report(&mut self, now: Mono, region: &RegionId, ok: bool) {
        let (failures, open_for) = (self.config.failures, self.config.open_for);
        if let Some(place) = self.places.get_mut(region) {
            place.breaker.report(now, ok, failures, open_for);
        }
    }

    /// Returns the regions a client may go to, the best first.
    #[must_use]
    pub fn ranking(&self, now: Mono, client: &Client) -> Vec<RegionId> {
        let standing = |place: &Place| self.standing(now, place);
        let mut usable: Vec<(Standing, &Place)> =
            self.places.values().filter_map(|p| Some((standing(p)?, p))).collect();
        usable.sort_by(|(a, one), (b, other)| {
            let by_name = || one.profile.region.cmp(&other.profile.region);
            a.cmp(b).then_with(|| self.compare(client, one, other)).then_with(by_name)
        });
        usable.into_iter().map(|(_, place)| place.profile.region.clone()).collect()
    }

    /// Chooses where a client's request goes, and counts it there.
    ///
    /// # Errors
    /// [`RouteError`] when it can go nowhere.
    pub fn route(&mut self, now: Mono, client: &Client) -> Result<Route, RouteError> {
        let mut ranking = self.ranking(now, client).into_iter();
        let mut soonest: Option<Duration> = None;
        while let Some(region) = ranking.next() {
            match self.admit(now, client, &region) {
                Ok(()) => return Ok(Route { region, fallbacks: ranking.collect() }),
                Err(error) => soonest = soonest.into_iter().chain(error.retry_after()).min(),
            }
        }
        Err(self.nowhere(soonest))
    }

    /// Says why a request can go nowhere; `retry_after` is the soonest that a region takes one again that could be used.
    pub(crate) fn nowhere(&self, retry_after: Option<Duration>) -> RouteError {
        match (retry_after, self.known()) {
            (Some(retry_after), _) => RouteError::Overloaded { retry_after },
            (None, 0) => RouteError::NoRegions,
            (None, known) => RouteError::NoHealthyRegions { known },
        }
    }

    fn known(&self) -> usize {
        self.places.values().filter(|place| place.is_known()).count()
    }

    /// Counts a client's request at one region, provided that it may go there now.
    ///
    /// # Errors
    /// [`RouteError`] when it may not: the region cannot be used, or has as many requests as it takes.
    pub fn admit(&mut self, now: Mono, client: &Client, region: &RegionId) -> Result<(), RouteError> {
        let known = self.known();
        let usable = self.places.get(region).is_some_and(|place| self.standing(now, place).is_some());
        let Some(place) = self.places.get_mut(region).filter(|_| usable) else {
            return Err(RouteError::NoHealthyRegions { known });
        };
        if let Some(limiter) = &mut place.limiter {
            let taken = limiter.take(now, client.may_be_shed);
            taken.map_err(|retry_after| RouteError::Overloaded { retry_after })?;
        }
        place.breaker.sent(now, self.config.open_for);
        Ok(())
    }

    /// Returns how well a region serves, or nothing if nobody may go there.
    fn standing(&self, now: Mono, place: &Place) -> Option<Standing> {
        let state = place.state.as_ref()?;
        let drains = self.draining.contains(&place.profile.region);
        if drains || state.reach == Reach::Unreachable || !place.breaker.lets_through(now) {
            return None;
        }
        let is_new = state.recovery.is_some_and(|recovery| recovery.well_for(now) < self.config.stable_for);
        let lags = state.lag.is_some_and(|lag| lag > self.config.lag_max);
        let health = match state.reach {
            Reach::Suspected | Reach::Cut | Reach::Unreachable => Health::Doubtful,
            Reach::Up if is_new || lags || place.is_busy || state.isolated => Health::Strained,
            Reach::Up => Health::Well,
        };
        // An edge is where its clients are: what it does not keep it fetches over the path they would have to take.
        let role = if state.role == Role::Edge { Role::Active } else { state.role };
        let role = if state.takes_writes { role } else { role.max(Role::Standby) };
        Some((role, health))
    }

    fn compare(&self, client: &Client, one: &Place, other: &Place) -> Ordering {
        let time = || self.rtt(client, one).cmp(&self.rtt(client, other));
        match self.config.policy {
            Policy::Latency => time(),
            Policy::Distance => self.km(client, one).total_cmp(&self.km(client, other)),
            Policy::Priority => one.profile.priority.cmp(&other.profile.priority).then_with(time),
            Policy::Weighted => share(client.key, &other.profile).total_cmp(&share(client.key, &one.profile)),
        }
    }

    /// Where a client is: what it says, or where its region is.
    fn location(&self, client: &Client) -> Option<Location> {
        let of_region = || self.places.get(client.region.as_ref()?)?.profile.location;
        client.location.or_else(of_region)
    }

    fn rtt(&self, client: &Client, place: &Place) -> Duration {
        if client.region.as_ref() == Some(&place.profile.region) {
            return Duration::ZERO;
        }
        let over_ground = self.location(client).zip(place.profile.location).map(|(from, to)| from.rtt_to(&to));
        let from_here = || place.state.as_ref().and_then(|state| state.rtt);
        over_ground.or_else(from_here).unwrap_or(Duration::MAX)
    }

    fn km(&self, client: &Client, place: &Place) -> f64 {
        if client.region.as_ref() == Some(&place.profile.region) {
            return 0.0;
        }
        let both = self.location(client).zip(place.profile.location);
        both.map_or(f64::INFINITY, |(from, to)| from.km_to(&to))
    }
}

impl Place {
    fn new(profile: RegionProfile, is_configured: bool) -> Self {
        let limiter = profile.rate.map(Limiter::new);
        let (state, left_at, is_busy, breaker) = (None, None, false, Breaker::default());
        Self { profile, is_configured, state, left_at, is_busy, breaker, limiter }
    }

    fn is_known(&self) -> bool {
        self.state.is_some() || self.is_configured
    }

    fn update(&mut self, state: RegionState, config: &RouterConfig) {
        let busy_from = if self.is_busy { config.load_max.saturating_sub(EASED) } else { config.load_max };
        self.is_busy = state.load.is_some_and(|load| load > busy_from);
        (self.state, self.left_at) = (Some(state), None);
    }
}

/// Returns a region's score for a client: the largest of all wins as often as its weight says.
fn share(key: u64, profile: &RegionProfile) -> f64 {
    let mut hasher = SipHasher13::new_with_keys(key, 0);
    hasher.write(profile.region.as_str().as_bytes());
    let hash = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
    let even = (f64::from(hash) + 0.5) / (f64::from(u32::MAX) + 1.0);
    f64::from(profile.weight) / -even.ln()
}
