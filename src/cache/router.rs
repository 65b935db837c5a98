//! The way from a request to the region that serves it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Cache;
use crate::id::RegionId;
use crate::node::{Belonging, ClusterView, RegionView};
use crate::routing::{Client, RegionState, Route, RouteError, RouterConfig, Table};
use crate::runtime::SystemClock;

/// Says which region a client's request goes to. Clones share what they know.
///
/// It answers on the caller's thread from what this node knows at that moment: a region that the failure detector calls
/// unreachable is not named from the next call on. What it cannot know it is told: how requests ended
/// ([`Router::report`]), and which region is about to be taken down ([`Router::drain`]). After a shutdown of the node, and
/// while it is removed from the cluster, it knows of no region. How long a region has been back is counted by the node, so an
/// outage counts however seldom the router is asked.
///
/// Of its own node it goes by what that knows of itself: a region with nobody but a node that hears none of several others
/// comes after those that are well, and one with nobody but a node whose clock a majority refuses, or that has not joined, comes
/// after all that take writes.
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
    /// [`RouteError::AllFailed`] with what the last region said, and with those that were not tried because they have as many
    /// requests as they take; otherwise as [`Router::route`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt under way, which counts neither as a success nor as a failure.
    pub async fn call<T, E: fmt::Display>(
        &self,
        client: &Client,
        mut attempt: impl AsyncFnMut(&RegionId) -> Result<T, E>,
    ) -> Result<T, RouteError> {
        let (mut tried, mut last) = (Vec::new(), String::new());
        let (mut limited, mut retry_after): (_, Option<Duration>) = (Vec::new(), None);
        for region in self.ranking(client) {
            if let Err(refused) = self.admit(client, &region) {
                if let Some(wait) = refused.retry_after() {
                    retry_after = retry_after.into_iter().chain([wait]).min();
                    limited.push(region);
                }
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
        if tried.is_empty() {
            return Err(self.current().table.nowhere(retry_after));
        }
        Err(RouteError::AllFailed { tried, limited, retry_after, last })
    }

    /// What is known, brought up to what the node last said.
    fn current(&self) -> parking_lot::MutexGuard<'_, Inner> {
        let mut guard = self.inner.lock();
        let Inner { table, views } = &mut *guard;
        let now = self.clock.now().mono;
        match views.has_changed() {
            Ok(false) => {}
            Ok(true) => {
                let states = states(&views.borrow_and_update());
                table.update(now, &states);
            }
            // The node has ended, so nobody knows.
            Err(_closed) => table.update(now, &[]),
        }
        guard
    }
}

fn states(view: &ClusterView) -> Vec<RegionState> {
    match view.belonging {
        Belonging::Outside | Belonging::Member => view.regions().into_iter().map(state).collect(),
        Belonging::Removed => Vec::new(),
    }
}

fn state(view: RegionView) -> RegionState {
    RegionState {
        region: view.region,
        reach: view.reach,
        role: view.role,
        takes_writes: view.takes_writes,
        isolated: view.isolated,
        rtt: view.rtt,
        lag: view.lag_ms.map(Duration::from_millis),
        load: view.load,
        recovery: view.recovery,
    }
}

/// What it knows is not shown.
impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::node::{Me, Node, Recovery};
    use crate::routing::{Rate, RegionProfile};
    use crate::store::Store;

    /// A router by what one node says of itself, and who says it.
    fn alone(regions: Vec<RegionProfile>) -> (Router, watch::Sender<ClusterView>, SystemClock) {
        let config = Config::wan("us-east", "unused:0");
        let me = Me {
            node: crate::id::NodeId(uuid::Uuid::from_u128(1)),
            region: RegionId::new("us-east"),
            replica: crate::id::ReplicaId(1),
        };
        let store = Arc::new(Store::new(me.replica, config.store()));
        let clock = SystemClock::start();
        let mut node = Node::new(me, config, store, 7).unwrap();
        node.handle(clock.now(), crate::node::Input::Deadline);
        let (views_to, views) = watch::channel(node.cluster());
        let mut views = views;
        views.mark_changed();
        let table = Table::new(RouterConfig { regions, ..RouterConfig::default() });
        (Router { inner: Arc::new(Mutex::new(Inner { table, views })), clock }, views_to, clock)
    }

    fn with_eu(view: &mut ClusterView) {
        let mut eu = view.members[0].clone();
        (eu.replica, eu.region, eu.is_me) = (crate::id::ReplicaId(2), RegionId::new("eu-central"), false);
        view.members.push(eu);
    }

    #[tokio::test]
    async fn a_node_that_was_removed_names_no_region() {
        let (router, views, _) = alone(Vec::new());
        assert!(router.route(&Client::default()).is_ok());
        views.send_modify(|view| {
            with_eu(view);
            view.belonging = Belonging::Removed;
        });
        assert_eq!(router.route(&Client::default()), Err(RouteError::NoRegions));
        views.send_modify(|view| view.belonging = Belonging::Member);
        assert!(router.route(&Client::default()).is_ok());
    }

    #[tokio::test]
    async fn an_outage_between_two_questions_is_seen() {
        let (router, views, clock) = alone(Vec::new());
        views.send_modify(with_eu);
        let client = Client::in_region("eu-central");
        assert_eq!(router.ranking(&client)[0], RegionId::new("eu-central"));
        let recovery = Recovery { since: Some(clock.now().mono), longest: Duration::ZERO };
        views.send_modify(|view| view.recoveries = [(RegionId::new("eu-central"), recovery)].into());
        assert_eq!(router.ranking(&client)[0], RegionId::new("us-east"));
    }

    #[tokio::test]
    async fn who_is_not_tried_for_its_rate_is_named_with_when_to_try_again() {
        let rate = Some(Rate { per_second: 1, burst: 1 });
        let (router, views, _) = alone(vec![RegionProfile { rate, ..RegionProfile::new("eu-central") }]);
        views.send_modify(with_eu);
        let (client, fails) = (Client::in_region("us-east"), async |_: &RegionId| Err::<(), _>("no"));
        let (us, eu) = (RegionId::new("us-east"), RegionId::new("eu-central"));
        let both = router.call(&client, fails).await.unwrap_err();
        let last = "no".to_owned();
        let (tried, limited) = (vec![us.clone(), eu.clone()], Vec::new());
        assert_eq!(both, RouteError::AllFailed { tried, limited, retry_after: None, last: last.clone() });
        let one = router.call(&client, fails).await.unwrap_err();
        let retry_after = one.retry_after();
        assert!(retry_after.is_some_and(|wait| wait > Duration::ZERO && wait <= Duration::from_secs(1)), "{one:?}");
        assert_eq!(
            one,
            RouteError::AllFailed { tried: vec![us.clone()], limited: vec![eu.clone()], retry_after, last }
        );
        let here = router.call(&Client::in_region("eu-central"), fails).await.unwrap_err();
        assert!(matches!(here, RouteError::AllFailed { limited, .. } if limited == [eu]), "it was the first choice");
        router.drain(&us, true);
        assert!(matches!(router.call(&client, fails).await, Err(RouteError::Overloaded { .. })), "none was tried");
    }
}
