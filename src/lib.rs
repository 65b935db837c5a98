//! Driftless: an embeddable, active-active replicated cache.

pub mod clock;
pub mod config;
pub mod crdt;
pub mod error;
pub mod id;
pub mod membership;
pub mod node;
pub mod replication;
#[cfg(feature = "net")]
pub mod runtime;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod wire;
