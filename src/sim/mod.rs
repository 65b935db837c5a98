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
//! Links are carried in one of two ways ([`Carrier`]). By messages, which is fast: a link is reliable and ordered per
//! stream, like QUIC's; datagrams get lost; a cut stops both until it heals or a node gives the link up. Or by QUIC
//! itself (feature `net`), with faults per packet.
//!
//! What it leaves out: sockets, tasks and the system's clocks.

mod carrier;
pub mod check;
mod cluster;
mod config;
mod edges;
mod folds;
mod given;
mod host;
mod liar;
mod limit;
mod mended;
mod minimise;
mod network;
mod newer;
pub mod oracle;
mod perform;
mod plan;
mod reads;
mod returns;
mod run;
mod seeds;
mod setting;
mod standing;
mod suspicion;
mod swarm;
mod tale;
mod watcher;
pub mod workload;

pub use cluster::SimCluster;
pub use config::SimConfig;
pub use folds::Folds;
pub use limit::Limit;
pub use minimise::{minimise, minimise_by};
pub use network::{Bursts, Weather};
pub use plan::{Ack, Action, Lie, Op, OpKind, Plan, Step};
pub use run::{Checker, Failure, Report, Run, Workload, converges_within, rests_within, run_checked};
pub use setting::{Carrier, HOSTS_MAX, Setting};
pub use swarm::{Class, Profile};
pub use tale::Delivered;
pub use watcher::Watcher;
