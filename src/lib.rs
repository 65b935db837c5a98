//! Driftless: an embeddable, active-active replicated cache.
//!
//! Every region holds the whole cache. Reads and writes are local: they run on the caller's thread
//! against memory, without waiting for a task, a peer or the network. Writes travel to the other
//! regions over QUIC with mutual TLS, and all copies converge whatever the order, the losses and
//! the cuts on the way. A write returns a [`Receipt`]; how consistent it must be is how long its
//! writer waits on it.
//!
//! # Quick start
//! ```no_run
//! use std::time::Duration;
//! use driftless::config::IdentityConfig;
//! use driftless::{Cache, Config, Level, Ttl};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), driftless::Error> {
//! let config = Config::wan("us-east", "0.0.0.0:7401")
//!     .peers(["eu.example.org:7401", "ap.example.org:7401"])
//!     .identity(IdentityConfig::in_dir("/etc/driftless"));
//! let cache = Cache::open(config).await?;
//!
//! let sessions = cache.registers::<String, String>("sessions")?;
//! let receipt = sessions.set("alice", &"logged in".to_owned(), Ttl::minutes(30))?;
//! let outcome = receipt.reached(Level::Quorum).within(Duration::from_millis(500)).await;
//! println!("{} members have it, {} are needed", outcome.acked, outcome.needed);
//!
//! let carts = cache.maps::<String, String, u32>("carts")?;
//! carts.put("u1", "sku-9", &2)?;
//! println!("{:?}", carts.get_all("u1")?);
//!
//! let mut changes = sessions.watch();
//! if let Ok(change) = changes.recv().await {
//!     println!("{} changed: {:?}", change.key, sessions.get(&change.key)?);
//! }
//! cache.shutdown().await;
//! # Ok(())
//! # }
//! ```
//! [`Cache`] has the same with two nodes, to run. For the price of local speed there is no
//! linearizability: [`Level::All`] says that every member has a write, not that nobody wrote since.
//!
//! # What happens to concurrent writes
//! | type | two regions write at once |
//! |---|---|
//! | [`Registers`] | the later stamp wins everywhere; a delete is a write |
//! | [`Maps`] | puts keep both as siblings and reads show the later; a put beats a remove |
//! | [`Counters`] | every increment counts; a reset erases the ones it had seen |
//! | [`Sets`] | an add beats a remove |
//! | [`Customs`] | your type's own merge |
//!
//! # The modules, in reading order
//! The core is pure: no IO, no task, no clock, no global randomness. It builds without the default
//! feature `net`.
//! * [`id`], [`clock`]: who and when. [`crdt`]: the values and their joins.
//! * [`store`]: partitions behind locks, the one shared structure. [`error`], [`config`].
//! * [`wire`]: what travels. [`replication`], [`repair`], [`membership`]: who has what, whether it is the same, and who is there.
//! * [`routing`]: which region serves a client.
//! * [`probe`]: rare events and planted faults, for tests of tests.
//! * [`node`]: all of it as one state machine. `sim` (feature `sim`): many of them in virtual time.
//! * `runtime` (feature `net`): the sockets, the certificates and the loop around the node.
//! * `cache` (feature `net`): the public handle.

#[cfg(feature = "net")]
pub mod cache;
pub mod clock;
pub mod config;
pub mod crdt;
pub mod error;
pub mod id;
pub mod membership;
pub mod node;
pub mod probe;
pub mod repair;
pub mod replication;
pub mod routing;
#[cfg(feature = "net")]
pub mod runtime;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
mod sync;
pub mod wire;

#[cfg(feature = "net")]
pub use cache::{
    Belonging, Cache, Change, ClusterView, Counters, Customs, Events, Maps, MemberView, Origin, Reach, Read, Reading,
    Receipt, Recovery, RegionView, Registers, Router, Sets, Status, Token, Touched, Ttl, Watch, WatchError,
};
pub use config::Config;
pub use error::{DrainError, Error, FetchError, RemoveError, RenewError, RoleError};
pub use id::Role;
pub use node::{Departure, Event, Level, Outcome, RepairReport};
pub use store::Selector;

/// The README, so that its quick start is compiled and run as a documentation test.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../README.md")]
struct Readme;
