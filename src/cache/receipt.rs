//! What a write returns: proof that it happened here, and the way to wait for it elsewhere.
//!
//! A write is local and immediate. How consistent it must be is how long its writer waits on the
//! receipt; the same write can be waited on at several levels, or not at all.
//!
//! # Invariants
//! * Waiting changes nothing: a wait that ends early leaves the write where it is, replicating.
//! * A wait that is dropped costs nothing but its entry in a table until that is swept.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Stamp;
use crate::crdt::Dot;
use crate::id::PartitionId;
use crate::node::{Level, Mark, Outcome};
use crate::runtime::Line;

use super::token::Token;

/// Proof of a local write.
#[derive(Clone)]
pub struct Receipt {
    mark: Mark,
    stamp: Stamp,
    line: Arc<Line>,
}

impl Receipt {
    pub(super) fn new(mark: Mark, stamp: Stamp, line: Arc<Line>) -> Self {
        Self { mark, stamp, line }
    }

    /// Begins a wait until the write has come as far as `level`. Await it as it is to wait for as
    /// long as it takes, or [`Reached::within`] a time.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use driftless::{Level, Registers, Ttl};
    /// # async fn f(users: Registers<u32, String>) -> Result<(), driftless::Error> {
    /// let receipt = users.set(&7, &"Ada".to_owned(), Ttl::NEVER)?;
    /// let outcome = receipt.reached(Level::Quorum).within(Duration::from_millis(500)).await;
    /// if !outcome.reached {
    ///     // The write stands and goes on replicating; these have not confirmed it yet.
    ///     println!("still missing: {:?}", outcome.missing);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the wait ends it and nothing else.
    pub fn reached(&self, level: Level) -> Reached {
        Reached { line: Arc::clone(&self.line), mark: self.mark, level, within: None }
    }

    /// Returns a token of just this write: a region that covers it shows the write to its writer.
    #[must_use]
    pub fn token(&self) -> Token {
        let mut token = Token::new();
        token.observe(self);
        token
    }

    /// Returns the identity of the event. Of a mutation that took several events
    /// ([`Maps::expire`](super::Maps::expire)) it is the last.
    #[must_use]
    pub fn dot(&self) -> Dot {
        self.mark.dot
    }

    /// Returns the place of the event among all writes.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Returns the partition the key is in.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.mark.partition
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("mark", &self.mark).field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

/// A wait on a receipt; made by [`Receipt::reached`], begun by awaiting it.
#[derive(Clone, Debug)]
#[must_use = "a wait does nothing until it is awaited"]
pub struct Reached {
    line: Arc<Line>,
    mark: Mark,
    level: Level,
    within: Option<Duration>,
}

impl Reached {
    /// Gives up after a time, counted from when it is awaited. Giving up is an [`Outcome`], not an
    /// error: the write stands.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    async fn wait(self) -> Outcome {
        let here = Outcome { reached: true, acked: 1, needed: 1, missing: Vec::new() };
        if self.level == Level::Local {
            return here;
        }
        // Without a driver nobody is asked any more: it is known to be here, one more would be needed.
        let alone = Outcome { reached: false, needed: 2, ..here };
        self.line.wait(self.mark, self.level, self.within).await.unwrap_or(alone)
    }
}

/// Resolves to how far the write came. [`Level::Local`] resolves at once, and so does any level
/// that was reached before; after [`Cache::shutdown`](super::Cache::shutdown) every other is not
/// reached.
impl IntoFuture for Reached {
    type Output = Outcome;
    type IntoFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
