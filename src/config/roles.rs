//! What nodes are set to that are not simply active.

use std::time::Duration;

/// Whom a standby stands in for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StandsInFor {
    /// All active nodes: it takes over when none of them can be reached.
    #[default]
    Cluster,
    /// Those of its own region.
    Region,
}

/// When a standby takes over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandbyConfig {
    /// Whom it stands in for. Default all active nodes.
    pub stands_in_for: StandsInFor,
    /// How long none of them must be reachable, as all agree who can be heard, or nobody at all be heard, before it takes
    /// over by itself; `None` leaves it to `Cache::promote`. Default 5 s. Less takes over where a restart would have done; of several standbys the one with
    /// the shortest goes first, so give them different ones, some seconds apart.
    pub take_over_after: Option<Duration>,
}

impl Default for StandbyConfig {
    fn default() -> Self {
        Self { stands_in_for: StandsInFor::Cluster, take_over_after: Some(Duration::from_secs(5)) }
    }
}

/// What an edge keeps, and how it gets the rest. Where all that hold everything have gone and one of them comes back empty, an
/// edge gives up its copy and begins anew; with `comes_back` off it then waits for an operator, as anybody who was removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EdgeConfig {
    /// How long a register stays that is neither read nor written here: from half of it to all of it. Default 10 min; not
    /// zero. Less holds less memory and fetches more often; more holds what nobody reads any more.
    pub keep_for: Duration,
    /// How long [`Registers::fetch`](crate::Registers::fetch) waits for another node's answer. Default 2 s; not zero. Less
    /// fails where a slow path would have answered, more lets callers hang on a node that does not.
    pub fetch_timeout: Duration,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self { keep_for: Duration::from_secs(600), fetch_timeout: Duration::from_secs(2) }
    }
}
