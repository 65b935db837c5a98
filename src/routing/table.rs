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
use crate::membership::Reach;

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

/// What the cluster knows of a region at this moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegionState {
    /// The region.
    pub region: RegionId,
    /// The best that is known of its members.
    pub reach: Reach,
    /// The best part that any of them plays.
    pub role: Role,
    /// Round trip from here.
    pub rtt: Option<Duration>,
    /// How long its writes take to get here.
    pub lag: Option<Duration>,
    /// How busy it is, in percent, if it says so.
    pub load: Option<u8>,
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
    /// It lags, is too busy, or was unreachable a while ago.
    Strained,
    /// It is suspected.
    Doubtful,
}

/// What is known of a region.
#[derive(Clone, Debug)]
struct Place {
    profile: RegionProfile,
    state: Option<RegionState>,
    /// It could not be reached, and has not been well for long enough since.
    was_gone: bool,
    /// Since when it is heard again without a break, if it was gone.
    back_since: Option<Mono>,
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
        let places = config.regions.iter().map(|profile| (profile.region.clone(), Place::new(profile.clone())));
        Self { places: places.collect(), config, draining: BTreeSet::new() }
    }

    /// Takes in what the cluster knows now. Regions that are not among it are known to nobody any more.
    pub fn update(&mut self, now: Mono, states: &[RegionState]) {
        for place in self.places.values_mut() {
            if !states.iter().any(|state| state.region == place.profile.region) {
                place.state = None;
            }
        }
        for state in states {
            let new = || Place::new(RegionProfile::new(state.region.as_str()));
            self.places.entry(state.region.clone()).or_insert_with(new).update(now, state.clone(), &self.config);
        }
        let configured = |region: &RegionId| self.config.regions.iter().any(|profile| profile.region == *region);
        self.places.retain(|region, place| place.state.is_some() || configured(region));
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
        let mut retry_after = Duration::MAX;
        while let Some(region) = ranking.next() {
            match self.admit(now, client, &region) {
                Ok(()) => return Ok(Route { region, fallbacks: ranking.collect() }),
                Err(RouteError::Overloaded { retry_after: wait }) => retry_after = retry_after.min(wait),
                Err(_) => {}
            }
        }
        Err(match self.places.len() {
            0 => RouteError::NoRegions,
            _ if retry_after < Duration::MAX => RouteError::Overloaded { retry_after },
            known => RouteError::NoHealthyRegions { known },
        })
    }

    /// Counts a client's request at one region, provided that it may go there now.
    ///
    /// # Errors
    /// [`RouteError`] when it may not: the region cannot be used, or has as many requests as it takes.
    pub fn admit(&mut self, now: Mono, client: &Client, region: &RegionId) -> Result<(), RouteError> {
        let known = self.places.len();
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
        let is_stable = |since: Mono| now.since(since) >= self.config.stable_for;
        let is_new = place.was_gone && !place.back_since.is_some_and(is_stable);
        let lags = state.lag.is_some_and(|lag| lag > self.config.lag_max);
        let health = match state.reach {
            Reach::Suspected | Reach::Cut | Reach::Unreachable => Health::Doubtful,
            Reach::Up if is_new || lags || place.is_busy => Health::Strained,
            Reach::Up => Health::Well,
        };
        // An edge is where its clients are: what it does not keep it fetches over the path they would have to take.
        let role = if state.role == Role::Edge { Role::Active } else { state.role };
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
    fn new(profile: RegionProfile) -> Self {
        let limiter = profile.rate.map(Limiter::new);
        Self {
            profile,
            state: None,
            was_gone: false,
            back_since: None,
            is_busy: false,
            breaker: Breaker::default(),
            limiter,
        }
    }

    fn update(&mut self, now: Mono, state: RegionState, config: &RouterConfig) {
        let busy_from = if self.is_busy { config.load_max.saturating_sub(EASED) } else { config.load_max };
        self.is_busy = state.load.is_some_and(|load| load > busy_from);
        match state.reach {
            Reach::Up => {
                let since = *self.back_since.get_or_insert(now);
                self.was_gone &= now.since(since) < config.stable_for;
            }
            Reach::Suspected => self.back_since = None,
            Reach::Cut | Reach::Unreachable => (self.was_gone, self.back_since) = (true, None),
        }
        self.state = Some(state);
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
