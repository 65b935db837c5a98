//! The shell: the only place that knows quinn and rustls, and where the loop around the node is.
//!
//! [`Endpoint`] is one UDP socket that dials and accepts. It turns QUIC into `Input`s and
//! `Output`s into QUIC and decides nothing itself. [`Driver`] is the loop around it and the node,
//! and [`Line`] is what the public handle keeps of the driver:
//!
//! ```text
//! loop {
//!     let input = select! {
//!         input = endpoint.next() => input,                       // cancel safe
//!         () = sleep_until(clock.instant(deadline)) => Input::Deadline,
//!         ...                                                     // the handle's commands
//!     };
//!     node.handle(clock.now(), input);
//!     while let Some(output) = node.poll() {
//!         if let Some(other) = endpoint.apply(output) { ... }     // not for the network
//!     }
//! }
//! endpoint.shutdown().await;
//! ```
//!
//! # Invariants
//! * One owner: the driver owns the [`Endpoint`], which owns every task (a `JoinSet`); nothing of
//!   it is shared but the queue its tasks report through.
//! * [`Endpoint::apply`] never waits. A queue that is full closes its link, it never stalls others.
//! * A slow driver is felt by the peers, not by the memory: inbound bytes wait in QUIC's windows.
//! * Every link proved its peer's identity before anything it says reaches the node.
//!
//! What is *not* here: when to dial again, whom to close, and what any message means. That is
//! [`crate::node`].

mod clock;
pub(crate) mod closing;
pub(crate) mod congestion;
mod dial;
mod driver;
mod endpoint;
pub(crate) mod framing;
mod journal;
mod line;
pub(crate) mod link;
pub(crate) mod tls;
pub(crate) mod transport;
mod waits;
mod watches;

pub use clock::{SystemClock, fresh_node, fresh_replica, fresh_seed, wall_ms};
pub use driver::Driver;
pub use endpoint::{Endpoint, EndpointConfig};
pub use framing::{CONTROL_BYTES_MAX, LOG_BYTES_MAX};
pub use line::Line;
#[cfg(all(test, shuttle))]
pub(crate) use line::{Command, DriverEnd};
pub use tls::{ALPN, Identity, SERVER_NAME, peer_identity, uri_of};
#[cfg(all(test, shuttle))]
pub(crate) use waits::Waits;
pub use watches::{KeyChange, Origin, Watches};
