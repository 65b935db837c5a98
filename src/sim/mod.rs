//! A deterministic cluster: real stores and nodes, real wire bytes, virtual time and network.
//!
//! Everything follows from one seed: the network's delays, losses and reordering, the replica ids,
//! every node's own randomness. A run that fails is replayed by its seed. The cluster drives
//! [`Node`](crate::node::Node) by the same drain rule as the real driver; nothing of it is mocked.
//!
//! # Invariants
//! * The same seed and the same calls give the same trace, whose hash is [`SimCluster::trace`].
//! * Virtual time only moves in [`SimCluster::run_for`] and [`SimCluster::run_until`].
//!
//! What it leaves out: TLS and QUIC themselves. A link here is reliable and ordered per stream,
//! like QUIC's; datagrams get lost; a cut stops both until it heals or a node gives the link up.

mod carrier;
pub mod check;
mod cluster;
mod config;
mod host;
mod liar;
mod network;
mod newer;
pub mod oracle;
mod perform;
mod plan;
mod watcher;
pub mod workload;

pub use cluster::SimCluster;
pub use config::SimConfig;
pub use network::Weather;
pub use plan::{Ack, Action, Carrier, Lie, Op, OpKind, Plan, Setting, Step};
pub use watcher::Watcher;
