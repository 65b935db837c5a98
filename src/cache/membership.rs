//! Who belongs to the cluster, as its users ask and decide.

use std::time::Duration;

use super::Cache;
use crate::config::IdentityConfig;
use crate::error::{DrainError, RemoveError, RenewError};
use crate::id::ReplicaId;
use crate::node::{ClusterView, RepairReport};
use crate::runtime::Identity;
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

    /// Proves itself by another certificate, and trusts other CAs, from the next handshake on. Links that are up stay, so
    /// nothing is interrupted. To change the CA, first give all nodes the old and the new one together as authorities, then
    /// certificates of the new one, then the new one alone. [`Event::CertificateExpires`](crate::Event::CertificateExpires)
    /// says in time when.
    ///
    /// Files are read here, on the caller's thread.
    ///
    /// # Errors
    /// [`RenewError`]; the old ones stay in use. A certificate that names another node or region is refused.
    ///
    /// # Cancel safety
    /// Once asked for it is done, whether anybody waits for it or not.
    pub async fn renew(&self, identity: &IdentityConfig) -> Result<(), RenewError> {
        let identity = Identity::load(identity)?;
        identity.must_name(&self.me.region, Some(self.me.node))?;
        match self.line.present(identity).await {
            Some(done) => Ok(done?),
            None => Err(RenewError::Stopped),
        }
    }

    /// Refuses further writes and waits until every member that can be reached has everything this node has: after it a
    /// [`Cache::shutdown`] loses nothing. The node stays a member that is expected back, for instance after an upgrade, and
    /// goes on taking in what others write. Do it when clients go elsewhere already ([`Router::drain`](crate::Router::drain)).
    ///
    /// If it takes longer than `within`, or there is nobody to hand anything to, the node accepts writes again.
    ///
    /// # Errors
    /// [`DrainError`] says who lacks something.
    ///
    /// # Cancel safety
    /// Dropping the future undoes nothing: the node goes on draining and refuses writes until [`Cache::resume`].
    pub async fn drain(&self, within: Duration) -> Result<(), DrainError> {
        self.hand_over(within, false).await
    }

    /// Compares all partitions with those of all peers that are linked now, until they are equal or `within` has passed, and
    /// gives back what either side lost. It also happens by itself, as `RepairConfig` says; [`Cache::stats`] counts it and
    /// shows how far this has come. `None` when the cache was shut down.
    ///
    /// In health nothing differs. What does is an [`Event`](crate::Event) as well: a bug, or memory that failed.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(cache: driftless::Cache) {
    /// let report = cache.repair(std::time::Duration::from_secs(30)).await;
    /// assert!(report.is_some_and(|report| report.is_complete() && report.differences == 0));
    /// # }
    /// ```
    pub async fn repair(&self, within: Duration) -> Option<RepairReport> {
        self.line.repair(within).await
    }

    /// Accepts writes again after [`Cache::drain`].
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    pub async fn resume(&self) {
        if self.line.resume().await.is_none() {
            tracing::debug!("no writes are accepted again: the driver has ended");
        }
    }

    /// Leaves the cluster for good: drains, gives up its place so that nobody waits for this node any more, and shuts down.
    ///
    /// If it takes longer than `within`, or there is nobody to hand anything to, the node stays: it accepts writes again,
    /// and [`Cache::shutdown`] ends it as a member that is expected back.
    ///
    /// # Errors
    /// [`DrainError`] says whether the node still is a member, and who lacks something.
    ///
    /// # Cancel safety
    /// As [`Cache::drain`]; a node that has left all the same refuses writes until it is shut down.
    pub async fn leave(&self, within: Duration) -> Result<(), DrainError> {
        self.hand_over(within, true).await?;
        self.shutdown().await;
        Ok(())
    }

    async fn hand_over(&self, within: Duration, leave: bool) -> Result<(), DrainError> {
        match tokio::time::timeout(within, self.line.drain(leave)).await {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(DrainError::NotHandedOver { behind: Vec::new() }),
            Ok(None) => Err(match self.store.gate() {
                Gate::Removed => DrainError::Removed,
                Gate::Stopped => DrainError::Stopped,
                Gate::Open | Gate::Joining | Gate::ClockRefused | Gate::Draining => DrainError::Resumed,
            }),
            Err(_elapsed) => match self.line.resume().await {
                Some(Some(behind)) => Err(DrainError::NotHandedOver { behind }),
                // It has left in that very moment.
                Some(None) => Ok(()),
                None => Err(DrainError::Stopped),
            },
        }
    }
}
