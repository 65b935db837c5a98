//! One attempt to reach one address or name.
//!
//! # Invariants
//! * An attempt ends within a known time: one timeout for the name and one for each of at most
//!   [`ADDRESSES_MAX`] addresses behind it.
//! * A dead address costs its own task and nothing else.
//! * Of the addresses behind a name each comes first in one attempt of as many as there are.
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

/// Addresses of one name that are tried in one attempt, in the resolver's order.
const ADDRESSES_MAX: usize = 4;
/// Addresses of one name that are looked at: more nodes than this have no name in common.
const FOUND_MAX: usize = 64;

/// Resolves `host:port` and connects to the first address that answers, beginning with another one at each `attempt`;
/// `within` bounds each step.
///
/// # Errors
/// What the last address tried came to; [`DialError::Unresolvable`] if there was none to try.
///
/// # Cancel safety
/// Dropping the future gives the attempt up; the peer may see a handshake that ends.
pub(crate) async fn dial(
    endpoint: &quinn::Endpoint,
    host: &str,
    attempt: usize,
    within: Duration,
) -> Result<Connection, DialError> {
    let unresolvable = |why: &str| DialError::Unresolvable { host: host.to_owned(), why: why.to_owned() };
    let found = match timeout(within, lookup_host(host)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(unresolvable(&error.to_string())),
        Err(_) => return Err(unresolvable("the resolver did not answer in time")),
    };
    let mut last = unresolvable("it has no addresses");
    for address in in_turn(found, attempt) {
        match connect(endpoint, address, within).await {
            Ok(connection) => return Ok(connection),
            Err(Attempt::Unusable(why)) => last = unresolvable(&why),
            Err(Attempt::Failed(error)) => last = error,
        }
    }
    Err(last)
}

/// Returns the addresses to try in one attempt. Their order may differ from one answer of a resolver to the next.
fn in_turn(found: impl Iterator<Item = SocketAddr>, attempt: usize) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = found.take(FOUND_MAX).collect();
    let first = attempt % all.len().max(1);
    all.rotate_left(first);
    all.truncate(ADDRESSES_MAX);
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_behind_a_name_comes_first_in_its_turn() {
        let all: Vec<SocketAddr> = (1..=6).map(|n| SocketAddr::from(([10, 0, 0, n], 7400))).collect();
        for attempt in 0..12 {
            let tried = in_turn(all.iter().copied(), attempt);
            assert_eq!(tried.len(), ADDRESSES_MAX);
            assert_eq!(tried.first(), all.get(attempt % 6));
            assert_eq!(tried.get(1), all.get((attempt + 1) % 6));
        }
        assert!(in_turn(std::iter::empty(), 3).is_empty());
        assert_eq!(in_turn(all.iter().copied().take(1), 3), all[..1]);
    }
}
