//! Which region serves a client: ranked by policy, health and lag.
//!
//! A [`Table`] holds what is known of each region and answers at once, without asking anybody. Every answer names the
//! region to go to and, in order, those to go to if that one fails. What the failure detector says of a region counts from
//! the moment it says it; what callers report of their requests opens a circuit breaker per region. How long a region has
//! been well since it was out is counted where that is noticed, so it does not matter how often a table is asked.
//!
//! # Invariants
//! * A region that is unreachable, drained by the router or behind an open breaker is never named; one none of whose members
//!   takes writes comes after every one that takes some.
//! * A breaker does not close because its region was not known for a while.
//! * The same table, client and instant give the same answer.
//! * No clock is read here: `now` is a parameter.

mod breaker;
mod geo;
mod limiter;
mod table;

use std::time::Duration;

pub use geo::Location;
pub use table::{Client, RegionState, Route, Table};

use crate::id::RegionId;
use crate::membership::status::{BUSY_OVER, LATE_OVER};

/// How regions are ranked among those that are equally well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The nearest in time: the client's own region, then by the distance between the places if both are known, otherwise
    /// by the round trip from here.
    #[default]
    Latency,
    /// The nearest in space. Places that are not known come last.
    Distance,
    /// The lowest [`RegionProfile::priority`]; of equal ones the nearest in time.
    Priority,
    /// Clients are spread by [`RegionProfile::weight`], the same client always to the same region while that is well
    /// (weighted rendezvous hashing; Thaler and Ravishankar, *Using Name-Based Mappings to Increase Hit Rates*, 1998).
    Weighted,
}

/// How many requests a region takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Requests per second in the long run, at least one.
    pub per_second: u32,
    /// Requests at once after a pause.
    pub burst: u32,
}

/// What an operator knows of a region.
#[derive(Clone, PartialEq, Debug)]
pub struct RegionProfile {
    /// The region.
    pub region: RegionId,
    /// Where it is.
    pub location: Option<Location>,
    /// For [`Policy::Priority`]: the lowest comes first. Default 100.
    pub priority: u32,
    /// For [`Policy::Weighted`]: its share among all. Default 100; 0 takes only what others cannot.
    pub weight: u32,
    /// What is sent there from here at most. Default: everything.
    pub rate: Option<Rate>,
}

impl RegionProfile {
    /// Returns the profile of a region of which nothing is known but its name.
    #[must_use]
    pub fn new(region: &str) -> Self {
        Self { region: RegionId::new(region), location: None, priority: 100, weight: 100, rate: None }
    }

    /// Says where it is, in degrees.
    #[must_use]
    pub fn at(mut self, latitude: f64, longitude: f64) -> Self {
        self.location = Some(Location { latitude, longitude });
        self
    }
}

/// How a router chooses.
#[derive(Clone, PartialEq, Debug)]
pub struct RouterConfig {
    /// How regions are ranked.
    pub policy: Policy,
    /// What is known of regions beforehand. Regions that are not named here are known from the cluster.
    pub regions: Vec<RegionProfile>,
    /// How long a region that was out must be heard again without a break before clients are sent back. It was out when none
    /// of its members could be reached, or when it had none. Default 30 s.
    pub stable_for: Duration,
    /// A region whose writes take longer than this to get here comes after those that are in time. Default 2 s.
    pub lag_max: Duration,
    /// A region that is busier than this, in percent, comes after those that have room, until it is 10 less or it says so no
    /// longer. It is as busy as the service there says ([`Cache::set_load`](crate::Cache::set_load)). Default 90.
    pub load_max: u8,
    /// Requests in a row that fail before a region's breaker opens. Default 5; at least 1.
    pub failures: u32,
    /// How long a breaker stays open before one request may try; twice as long each time that one fails, up to
    /// 16 times. Default 1 s.
    pub open_for: Duration,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            regions: Vec::new(),
            stable_for: Duration::from_secs(30),
            lag_max: LATE_OVER,
            load_max: BUSY_OVER,
            failures: 5,
            open_for: Duration::from_secs(1),
        }
    }
}

/// No region can be named, or none that was named answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// No region is known at all: this node has not joined, was removed, or is shut down.
    #[error("no region is known; is this node a member?")]
    NoRegions,
    /// Regions are known, and none of them can take a request.
    #[error("none of {known} regions can be used: each is unreachable, draining or failing; try again later")]
    NoHealthyRegions {
        /// How many regions are known.
        known: usize,
    },
    /// Every region that is well has as many requests as it takes.
    #[error("all regions that can be used have as many requests as they take; try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// When one of them takes a request again.
        retry_after: Duration,
    },
    /// Every region that could be used, and took the request, was tried.
    #[error("{} regions failed{}; the last said: {last}", tried.len(), others(limited, *retry_after))]
    AllFailed {
        /// Those that were tried, in order.
        tried: Vec<RegionId>,
        /// Those that could be used and were not tried, because they have as many requests as they take.
        limited: Vec<RegionId>,
        /// When the first of those takes a request again, if there are any.
        retry_after: Option<Duration>,
        /// What the last that was tried said.
        last: String,
    },
}

impl RouteError {
    /// Returns after how long a region takes a request again that can be used and has as many as it takes.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } => Some(*retry_after),
            Self::AllFailed { retry_after, .. } => *retry_after,
            Self::NoRegions | Self::NoHealthyRegions { .. } => None,
        }
    }
}

fn others(limited: &[RegionId], retry_after: Option<Duration>) -> String {
    let says = |wait: Duration| {
        format!(", {} more have as many requests as they take; try again in {} ms", limited.len(), wait.as_millis())
    };
    retry_after.map(says).unwrap_or_default()
}

#[cfg(test)]
mod tests;
