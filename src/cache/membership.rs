//! Who belongs to the cluster, as its users ask and decide.

use std::time::Duration;

use super::Cache;
use crate::config::IdentityConfig;
use crate::error::{DrainError, RemoveError, RenewError, RoleError};
use crate::id::{ReplicaId, Role};
use crate::node::{ClusterView, RepairReport};
use crate::runtime::Identity;
use crate::store::Gate;

impl Cache {
    /// Returns the cluster as this node sees it: members, regions, who can be reached and how far away. Empty after a
    /// shutdown. [`Cache::events`] tells of every change.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Examples
    /// Whether a load balancer should send anybody to this node:
    /// ```no_run
    /// # use driftless::{Cache, Role, Status};
    /// async fn is_fit(cache: &Cache) -> bool {
    ///     let view = cache.cluster().await;
    ///     let me = view.members.iter().find(|member| member.is_me);
    ///     me.is_some_and(|me| me.status() == Status::Well && me.role != Role::Draining)
    /// }
    /// ```
    /// Which regions a zone should name: told to it whenever that changes, by any node that can judge it.
    /// ```no_run
    /// # use std::{collections::BTreeSet, time::Duration};
    /// # use driftless::{Belonging, Cache, RegionView, Status, WatchError, id::RegionId};
    /// # async fn update_zone(_: &BTreeSet<RegionId>) {}
    /// async fn keep_zone(cache: &Cache) {
    ///     let (mut events, mut told) = (cache.events(), BTreeSet::new());
    ///     loop {
    ///         let view = cache.cluster().await;
    ///         let stable = |r: &RegionView| r.recovery.is_none_or(|was| was.well_for(view.at) >= Duration::from_secs(30));
    ///         let serves = |r: &RegionView| r.status != Status::Failed && r.takes_writes && stable(r);
    ///         let named: BTreeSet<_> = view.regions().into_iter().filter(serves).map(|r| r.region).collect();
    ///         let can_judge = view.belonging == Belonging::Member && !view.isolated;
    ///         if can_judge && !named.is_empty() && named != told {
    ///             update_zone(&named).await;
    ///             told = named;
    ///         }
    ///         // `Unreachable`, `Up` and every other change wake it; that a region is stable is no event.
    ///         match tokio::time::timeout(Duration::from_secs(5), events.recv()).await {
    ///             Ok(Err(WatchError::Closed)) => return,
    ///             Ok(Ok(_) | Err(_)) | Err(_) => {}
    ///         }
    ///     }
    /// }
    /// ```
    pub async fn cluster(&self) -> ClusterView {
        self.line.stats().await.unwrap_or_default().cluster
    }

    /// Removes a member that will not come back, for ever and for everybody.
    ///
    /// Until then every other member remembers what it has deleted, since the one that is silent might not have heard of
    /// it. The writes it made and somebody received stay. Should it run after all, it is told and accepts no further writes
    /// until [`Cache::rejoin`] there, or a restart; with a restart, what only it had is lost. A node that restarts takes
    /// the place of its former self without this.
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

    /// Lets this node, whose replica was removed, go on as another replica: empty, joining the cluster again, and then
    /// writing again what it had written and nobody else had received ([`Event::Reissued`](crate::Event::Reissued)).
    /// Returns whether its replica was removed; if not, nothing happens.
    ///
    /// A node does this by itself ([`comes_back`](crate::config::MembershipConfig::comes_back)), unless an operator removed
    /// it or another process with its identity that joined later has its place: two such processes would remove each other
    /// for ever.
    ///
    /// What is written again is registers and their deletions, nothing else. Each becomes a new write, which wins over what
    /// others write at the same time and this node has not seen yet. So a value is written again only if there is nothing
    /// newer than it once was: no later write, deletion or invalidation of its key that the member this node copies knows
    /// of, and if the key is not there, no key of its partition that was deleted, or had expired, later and is forgotten.
    /// A deletion is made again only if what it deleted is still there. Receipts of former writes are never reached, and
    /// tokens that name them never covered.
    ///
    /// # Cancel safety
    /// Once asked for it is done, whether anybody waits for it or not.
    pub async fn rejoin(&self) -> bool {
        self.line.rejoin().await.unwrap_or(false)
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
    /// If it takes longer than `within`, or there is nobody to hand anything to, the node accepts writes again. If it is told to
    /// leave at the same time ([`Cache::leave`]), everything is handed over as well, and it is no member any more.
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
    /// The report says what was compared since the call, and of what was not, why. It comes at `within` if a peer whose link has
    /// ended does not link again, and at once if there is nobody to compare with. Several calls may go on at a time, each with
    /// its own report; of more than sixteen the further ones are told at once that nothing was compared.
    ///
    /// In health nothing differs. What does is an [`Event`](crate::Event) as well: a bug, or memory that failed. What an edge
    /// has given back cannot be compared ([`RepairReport::spared`]) and differs from nothing.
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

    /// Accepts writes from now on: a standby takes over by hand. Nobody else changes its role by it, and several active nodes
    /// at a time do no harm: what they write converges. All hear of it ([`Event::RoleChanged`](crate::Event::RoleChanged)).
    ///
    /// # Errors
    /// [`RoleError`]; the role was not changed. An edge is not promoted (`Edge`), nor is a replica that was removed (`Removed`).
    /// Nor is a node that would go on refusing writes, whatever its role: while it drains (`Draining`), while a majority refuses
    /// its clock (`ClockRefused`) and before it has joined (`NotJoined`). After a shutdown it is `Stopped`.
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn take_over(cache: &driftless::Cache) -> Result<(), driftless::RoleError> {
    /// if cache.role().await == Some(driftless::Role::Standby) {
    ///     cache.promote().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn promote(&self) -> Result<(), RoleError> {
        self.line.assume(false).await.unwrap_or(Err(RoleError::Stopped))
    }

    /// Accepts no writes from now on and stands by: what it has it keeps, and what others write it takes in. It takes over
    /// by itself only if it is configured to ([`NodeConfig::standby`](crate::config::NodeConfig::standby)).
    ///
    /// # Errors
    /// [`RoleError`]; the role was not changed: `Edge`, `Removed` or `Stopped`, as of [`Cache::promote`].
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    pub async fn demote(&self) -> Result<(), RoleError> {
        self.line.assume(true).await.unwrap_or(Err(RoleError::Stopped))
    }

    /// Tells all members how busy the service around this cache is, in percent (more than 100 counts as 100), or with `None`
    /// that it says so no longer. It is heard with the next beat, known to routers about a second later, and shown in
    /// [`MemberView::load`](crate::MemberView::load); a [`Router`](crate::Router) sends clients of a region that is busier than
    /// [`load_max`](crate::routing::RouterConfig::load_max) to others while these have room. What counts as busy is the
    /// service's to say: processor, memory, or the length of its queue.
    ///
    /// # Cancel safety
    /// Cancel safe: it is said or not.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn every_second(cache: &driftless::Cache, queued: usize, room: usize) {
    /// let percent = u8::try_from(queued * 100 / room).unwrap_or(100);
    /// cache.set_load(Some(percent)).await;
    /// # }
    /// ```
    pub async fn set_load(&self, percent: Option<u8>) {
        self.line.set_load(percent).await;
    }

    /// Returns what part this node plays; nothing after a shutdown, or before it is a member.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn role(&self) -> Option<Role> {
        self.cluster().await.members.iter().find(|member| member.is_me).map(|me| me.role)
    }

    /// Leaves the cluster for good: drains, gives up its place so that nobody waits for this node any more, and shuts down.
    ///
    /// If it takes longer than `within`, or there is nobody to hand anything to, the node stays: it accepts writes again,
    /// and [`Cache::shutdown`] ends it as a member that is expected back. A [`Cache::drain`] at the same time does not keep it
    /// from leaving, a [`Cache::resume`], or a call whose time is over, does.
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
                Gate::Open | Gate::Joining | Gate::ClockRefused | Gate::Draining | Gate::Standby => DrainError::Resumed,
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
