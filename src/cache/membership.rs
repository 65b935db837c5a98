//! Who belongs to the cluster, as its users ask and decide.

use std::time::Duration;

use super::Cache;
use crate::error::{LeaveError, RemoveError};
use crate::id::ReplicaId;
use crate::node::ClusterView;
use crate::store::Gate;

impl Cache {
    /// Returns the cluster as this node sees it: members, regions, who can be reached and how far away. Empty after a
    /// shutdown. [`Cache::events`] tells of every change.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn cluster(&self) -> ClusterView {
        self.line.stats().await.unwrap_or_default().cluster
    }

    /// Removes a member that will not come back, for ever and for everybody.
    ///
    /// Until then every other member remembers what it has deleted, since the one that is silent might not have heard of
    /// it. What only the removed had is lost; the writes it made and somebody received stay. Should it run after all, it is
    /// told and accepts no further writes; its machine may join again as another replica. A node that restarts takes the
    /// place of its former self without this.
    ///
    /// # Errors
    /// [`RemoveError`]; nobody was removed.
    ///
    /// # Cancel safety
    /// Once asked for it is done, whether anybody waits for it or not.
    ///
    /// # Examples
    /// ```no_run
    /// # use driftless::{Cache, Reach};
    /// # async fn give_up(cache: &Cache) -> Result<(), driftless::RemoveError> {
    /// for member in cache.cluster().await.members {
    ///     if member.reach == Reach::Unreachable && member.region.as_str() == "ap-southeast" {
    ///         cache.remove(member.replica).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, replica: ReplicaId) -> Result<(), RemoveError> {
        self.line.remove(replica).await.unwrap_or(Err(RemoveError::Stopped))
    }

    /// Leaves the cluster in order: refuses further writes, waits until every member that can be reached has everything
    /// this node has, gives up its place, and shuts down. Nobody waits for this node afterwards.
    ///
    /// If that takes longer than `within`, or there is nobody to hand anything to, the node stays: it accepts writes again,
    /// and [`Cache::shutdown`] ends it as a member that is expected back.
    ///
    /// # Errors
    /// [`LeaveError`] says whether the node still is a member, and who lacks something.
    ///
    /// # Cancel safety
    /// Dropping the future does not call the node back: it goes on leaving, and refuses writes.
    pub async fn leave(&self, within: Duration) -> Result<(), LeaveError> {
        let left = match tokio::time::timeout(within, self.line.leave()).await {
            Ok(left) => left,
            Err(_elapsed) => match self.line.stay().await {
                Some(Some(behind)) => return Err(LeaveError::NotHandedOver { behind }),
                // It came to pass in that very moment.
                Some(None) => true,
                None => false,
            },
        };
        if left {
            self.shutdown().await;
            return Ok(());
        }
        Err(if self.store.gate() == Gate::Removed { LeaveError::Removed } else { LeaveError::Stopped })
    }
}
