//! Nodes of three regions in this process, over real QUIC on loopback, through the public handle only.
//!
//! Every wait is for an event: a receipt, a token, a change, an event of the cluster. The only timeout is a guard against
//! waiting for ever. Everything listens on ports the system chooses.
#![allow(dead_code, reason = "each test program uses its part")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

#[path = "../../examples/support/dev_ca.rs"]
pub(crate) mod dev_ca;

use std::future::Future;
use std::time::Duration;

use driftless::config::{IdentityConfig, Pem};
use driftless::error::StartError;
use driftless::id::{NodeId, RegionId};
use driftless::runtime::uri_of;
use driftless::{Cache, Config, Event, Events, Level, Receipt, Token};
use uuid::Uuid;

pub(crate) use dev_ca::{DevCa, Leaf};

/// A guard against a test that would wait for ever; no test is about its length.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) async fn guard<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, wait).await.unwrap()
}

/// The regions of a test and the CA that all of them trust.
pub(crate) struct World {
    pub(crate) ca: DevCa,
}

pub(crate) const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];

impl World {
    pub(crate) fn new() -> Self {
        Self { ca: DevCa::new().unwrap() }
    }

    pub(crate) fn certify(&self, at: usize) -> dev_ca::Pem {
        let node = NodeId(Uuid::from_u128(u128::try_from(at).unwrap() + 1));
        self.ca.issue(&Leaf::new(uri_of(&RegionId::new(REGIONS[at]), node))).unwrap()
    }

    pub(crate) fn identity(&self, at: usize) -> IdentityConfig {
        let pem = self.certify(at);
        let text = |pem: String| Pem::Text(pem.into_bytes());
        IdentityConfig { certificate: text(pem.certificate), key: text(pem.key), authorities: text(pem.ca) }
    }

    /// As [`World::identity`], but others of other worlds are trusted as well, or instead.
    pub(crate) fn identity_trusting(&self, at: usize, worlds: &[&Self]) -> IdentityConfig {
        let authorities: String = worlds.iter().map(|world| world.certify(at).ca).collect();
        IdentityConfig { authorities: Pem::Text(authorities.into_bytes()), ..self.identity(at) }
    }

    pub(crate) fn config(&self, at: usize, peers: &[&Cache]) -> Config {
        let addresses = peers.iter().map(|cache| cache.local_addr().to_string());
        Config::dev(REGIONS[at], "127.0.0.1:0").identity(self.identity(at)).peers(addresses)
    }

    /// Opens region `at`, which dials `peers`.
    pub(crate) async fn open(&self, at: usize, peers: &[&Cache]) -> Cache {
        open(self.config(at, peers)).await
    }

    pub(crate) async fn pair(&self) -> (Cache, Cache) {
        let us = self.open(0, &[]).await;
        let eu = self.open(1, &[&us]).await;
        (us, eu)
    }

    pub(crate) async fn three(&self) -> [Cache; 3] {
        let us = self.open(0, &[]).await;
        let eu = self.open(1, &[&us]).await;
        let ap = self.open(2, &[&us, &eu]).await;
        [us, eu, ap]
    }
}

pub(crate) async fn open(config: Config) -> Cache {
    guard(Cache::open(config)).await.unwrap()
}

/// Opens nothing: the reason.
pub(crate) async fn refused(config: Config) -> StartError {
    guard(Cache::open(config)).await.unwrap_err()
}

pub(crate) async fn everywhere(receipt: &Receipt) {
    let outcome = receipt.reached(Level::All).within(GUARD).await;
    assert!(outcome.reached, "{outcome:?}");
}

/// Waits until every cache has applied what every other has.
pub(crate) async fn settled(caches: &[&Cache], receipts: &[Receipt]) {
    let mut token = Token::new();
    receipts.iter().for_each(|receipt| token.observe(receipt));
    for cache in caches {
        assert!(cache.caught_up(&token, GUARD).await);
    }
    assert!(caches.iter().all(|cache| cache.digest() == caches[0].digest()));
}

/// Waits for the first event that `pick` wants.
pub(crate) async fn event<T>(events: &mut Events, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    guard(async {
        loop {
            if let Some(found) = pick(events.recv().await.unwrap()) {
                return found;
            }
        }
    })
    .await
}
