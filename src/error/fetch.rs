//! Why a value was not fetched from another node.

use super::ReadError;

/// A value was not fetched. The state is unchanged; whether there is a value is not known here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The local read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// This node is no member at the moment.
    #[error(
        "this edge has not joined the cluster, or was removed from it; nothing was fetched, ask the source of the data"
    )]
    NotJoined,
    /// No node that holds everything can be reached.
    #[error(
        "no node that holds everything can be reached; nothing was fetched, ask the source of the data or try again"
    )]
    Unreachable,
    /// Nobody has answered in time.
    #[error("nobody answered in time; nothing was fetched, try again, or raise `node.edge.fetch_timeout`")]
    TimedOut,
    /// As many callers wait as may.
    #[error("{max} callers wait for fetches, which is the limit; nothing was fetched, try again later")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The cache was shut down.
    #[error("this cache was shut down; nothing was fetched, open it again")]
    Stopped,
}

impl FetchError {
    /// Tells whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotJoined | Self::Unreachable | Self::TimedOut | Self::TooMany { .. } => true,
            Self::Read(_) | Self::Stopped => false,
        }
    }
}
