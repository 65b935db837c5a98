//! Driftless: an embeddable, active-active replicated cache.

pub mod clock;
pub mod crdt;
pub mod error;
pub mod id;
pub mod membership;
pub mod node;
pub mod store;
pub mod wire;
