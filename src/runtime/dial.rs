//! One attempt to reach one configured address.
//!
//! # Invariants
//! * An attempt ends within a known time: one timeout for the name and one for each of at most
//!   [`ADDRESSES_MAX`] addresses behind it.
//! * A dead address costs its own task and nothing else.
//!
//! What is *not* here: the back-off between attempts, which the node decides, and who the peer
//! should be, which the node compares with what its certificate says.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectError, Connection};
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::node::DialError;
use crate::runtime::closing::{end_of, failure_of};
use crate::runtime::tls::SERVER_NAME;

/// Addresses of one name that are tried, in the resolver's order.
const ADDRESSES_MAX: usize = 4;

/// Resolves `host:port` and connects to the first address that answers; `within` bounds each step.
///
/// # Errors
/// What the last address tried came to; [`DialError::Unresolvable`] if there was none to try.
///
/// # Cancel safety
/// Dropping the future gives the attempt up; the peer may see a handshake that ends.
pub(crate) async fn dial(endpoint: &quinn::Endpoint, host: &str, within: Duration) -> Result<Connection, DialError> {
    let unresolvable = |why: &str| DialError::Unresolvable { host: host.to_owned(), why: why.to_owned() };
    let found = match timeout(within, lookup_host(host)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(unresolvable(&error.to_string())),
        Err(_) => return Err(unresolvable("the resolver did not answer in time")),
    };
    let mut last = unresolvable("it has no addresses");
    for address in found.take(ADDRESSES_MAX) {
        match connect(endpoint, address, within).await {
            Ok(connection) => return Ok(connection),
            Err(Attempt::Unusable(why)) => last = unresolvable(&why),
            Err(Attempt::Failed(error)) => last = error,
        }
    }
    Err(last)
}

enum Attempt {
    /// This socket cannot send there.
    Unusable(String),
    Failed(DialError),
}

async fn connect(endpoint: &quinn::Endpoint, address: SocketAddr, within: Duration) -> Result<Connection, Attempt> {
    let connecting = match endpoint.connect(address, SERVER_NAME) {
        Ok(connecting) => connecting,
        Err(ConnectError::EndpointStopping) => return Err(Attempt::Failed(DialError::Stopped)),
        Err(error) => return Err(Attempt::Unusable(error.to_string())),
    };
    match timeout(within, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Attempt::Failed(failure_of(end_of(error)))),
        Err(_) => Err(Attempt::Failed(DialError::TimedOut)),
    }
}
