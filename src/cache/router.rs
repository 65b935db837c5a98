//! The way from a request to the region that serves it.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Cache;
use crate::id::RegionId;
use crate::node::{ClusterView, RegionView};
use crate::routing::{Client, RegionState, Route, RouteError, RouterConfig, Table};
use crate::runtime::SystemClock;

/// Says which region a client's request goes to. Clones share what they know.
///
/// It answers on the caller's thread from what this node knows at that moment: a region that the failure detector calls
/// unreachable is not named from the next call on. What it cannot know it is told: how requests ended
/// ([`Router::report`]), and which region is about to be taken down ([`Router::drain`]). After a shutdown of the node it
/// knows of no region. How long a region is back is counted from when the router was first asked after that.
///
/// # Examples
/// ```no_run
/// # use driftless::{Cache, routing::{Client, RegionProfile, RouterConfig}};
/// # async fn serve(cache: &Cache) -> Result<(), Box<dyn std::error::Error>> {
/// let regions = vec![
///     RegionProfile::new("us-east").at(38.9, -77.4),
///     RegionProfile::new("eu-central").at(50.1, 8.7),
/// ];
/// let router = cache.router(RouterConfig { regions, ..RouterConfig::default() });
/// // A client in Paris, of whom nothing else is known: to eu-central, and to us-east if that fails.
/// let route = router.route(&Client::at(48.9, 2.4))?;
/// println!("{} first, then {:?}", route.region, route.fallbacks);
/// // Or all in one: try one after the other until one answers.
/// let answer: String = router.call(&Client::in_region("eu-central"), async |region| ask(region).await).await?;
/// # let _ = answer;
/// # Ok(())
/// # }
/// # async fn ask(_: &driftless::id::RegionId) -> Result<String, std::io::Error> { Ok(String::new()) }
/// ```
#[derive(Clone)]
pub struct Router {
    inner: Arc<Mutex<Inner>>,
    clock: SystemClock,
}

struct Inner {
    table: Table,
    views: watch::Receiver<ClusterView>,
}

impl Cache {
    /// Returns a router for clients of this node. Each has breakers, limits and drains of its own.
    #[must_use]
    pub fn router(&self, config: RouterConfig) -> Router {
        let mut views = self.line.views();
        views.mark_changed();
        let inner = Inner { table: Table::new(config), views };
        Router { inner: Arc::new(Mutex::new(inner)), clock: self.line.clock() }
    }
}

impl Router {
    /// Chooses where a client's request goes, and counts it against that region's rate.
    ///
    /// # Errors
    /// [`RouteError`] when it can go nowhere.
    pub fn route(&self, client: &Client) -> Result<Route, RouteError> {
        let now = self.clock.now().mono;
        self.current().table.route(now, client)
    }

    /// Counts a client's request at one region, provided that it may go there now: for a fallback that is about to be tried.
    ///
    /// # Errors
    /// [`RouteError`] when it may not: the region cannot be used, or has as many requests as it takes.
    pub fn admit(&self, client: &Client, region: &RegionId) -> Result<(), RouteError> {
        let now = self.clock.now().mono;
        self.current().table.admit(now, client, region)
    }

    /// Returns the regions a client may go to, the best first, and counts nothing.
    #[must_use]
    pub fn ranking(&self, client: &Client) -> Vec<RegionId> {
        let now = self.clock.now().mono;
        self.current().table.ranking(now, client)
    }

    /// Notes how a request to a region ended; several failures in a row open its breaker.
    pub fn report(&self, region: &RegionId, ok: bool) {
        let now = self.clock.now().mono;
        self.current().table.report(now, region, ok);
    }

    /// Sends no further clients to a region, as before its maintenance, or sends them again.
    pub fn drain(&self, region: &RegionId, draining: bool) {
        self.current().table.drain(region, draining);
    }

    /// Makes a request at the best region, and at the next ones that take it until one answers. Each outcome is reported.
    ///
    /// # Errors
    /// [`RouteError::AllFailed`] with what the last region said; otherwise as [`Router::route`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt under way, which counts neither as a success nor as a failure.
    pub async fn call<T, E: fmt::Display>(
        &self,
        client: &Client,
        mut attempt: impl AsyncFnMut(&RegionId) -> Result<T, E>,
    ) -> Result<T, RouteError> {
        let first = self.route(client)?;
        let (mut tried, mut last) = (Vec::new(), String::new());
        for region in std::iter::once(first.region).chain(first.fallbacks) {
            if !tried.is_empty() && self.admit(client, &region).is_err() {
                continue;
            }
            let answer = attempt(&region).await;
            self.report(&region, answer.is_ok());
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error.to_string(),
            }
            tried.push(region);
        }
        Err(RouteError::AllFailed { tried, last })
    }

    /// What is known, brought up to what the node last said.
    fn current(&self) -> parking_lot::MutexGuard<'_, Inner> {
        let mut guard = self.inner.lock();
        let Inner { table, views } = &mut *guard;
        let now = self.clock.now().mono;
        match views.has_changed() {
            Ok(false) => {}
            Ok(true) => {
                let states: Vec<RegionState> = views.borrow_and_update().regions().into_iter().map(state).collect();
                table.update(now, &states);
            }
            // The node has ended, so nobody knows.
            Err(_closed) => table.update(now, &[]),
        }
        guard
    }
}

fn state(view: RegionView) -> RegionState {
    let lag = view.lag_ms.map(std::time::Duration::from_millis);
    RegionState { region: view.region, reach: view.reach, role: view.role, rtt: view.rtt, lag, load: view.load }
}

/// What it knows is not shown.
impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}
