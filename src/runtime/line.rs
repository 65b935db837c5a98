//! The line between the public handle and the driver: commands one way, answers and events back.
//!
//! # Invariants
//! * A local write never waits here: waking the driver stores a permit and returns.
//! * Commands wait in a bounded queue; a caller that finds it full waits in its own task.
//! * An answer nobody waits for any more is dropped, so dropping any future here is safe.
//! * However the driver's end goes, watchers, waiters and senders of commands learn that it has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::clock::Mono;
use crate::error::{FetchError, RemoveError, RoleError, StartError};
use crate::id::{KeyspaceId, ReplicaId};
use crate::node::{ClusterView, Event, Level, Mark, Outcome, RepairReport, Stats};
use crate::runtime::clock::SystemClock;
use crate::runtime::tls::Identity;
use crate::runtime::watches::{KeyChange, Origin, Watches};

/// Commands that may wait for the driver. It takes them one by one within microseconds, so this is
/// only for the burst of a thousand tasks that all await a receipt at once.
const COMMANDS: usize = 1_024;

/// Events kept for a subscriber that is slow: minutes of a flapping link. Past it the subscriber is
/// told how many it missed.
const EVENTS: usize = 256;

/// What the handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// Tell when a write has come so far.
    Wait {
        /// The write.
        mark: Mark,
        /// How far.
        level: Level,
        /// When to give up.
        deadline: Option<Mono>,
        /// Where to tell it.
        reply: oneshot::Sender<Outcome>,
    },
    /// Get a register that an edge has not kept.
    Fetch {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The key.
        key: Bytes,
        /// Told when what there is of it is here.
        reply: oneshot::Sender<Result<(), FetchError>>,
    },
    /// Read a register at a level.
    Read {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The key.
        key: Bytes,
        /// Who must have answered.
        level: Level,
        /// When to give up.
        deadline: Option<Mono>,
        /// Told when they have.
        reply: oneshot::Sender<Outcome>,
    },
    /// Tell what was counted.
    Stats {
        /// Where to tell it.
        reply: oneshot::Sender<Stats>,
    },
    /// Forget the lag measured so far.
    ResetLag,
    /// Say how busy the service around the node is.
    Load {
        /// In percent, if it is said.
        percent: Option<u8>,
    },
    /// Remove a member for ever.
    Remove {
        /// The member.
        replica: ReplicaId,
        /// Told what came of it.
        reply: oneshot::Sender<Result<(), RemoveError>>,
    },
    /// Go on as another replica, if this one was removed.
    Rejoin {
        /// Told whether this replica was removed.
        reply: oneshot::Sender<bool>,
    },
    /// Use another certificate, key and CAs from the next handshake on.
    Present {
        /// Them.
        identity: Box<Identity>,
        /// Told what came of it.
        reply: oneshot::Sender<Result<(), StartError>>,
    },
    /// Accept no writes and hand everything over.
    Drain {
        /// Give up this node's place at the end.
        leave: bool,
        /// Told that it is done, or at once that there is nobody to hand anything to.
        reply: oneshot::Sender<bool>,
    },
    /// Compare all partitions with all peers.
    Repair {
        /// For how long at most.
        within: Duration,
        /// Told what came of it.
        reply: oneshot::Sender<RepairReport>,
    },
    /// Accept writes again.
    Resume {
        /// Told who lacks something, or nothing if this node has left already.
        reply: oneshot::Sender<Option<Vec<ReplicaId>>>,
    },
    /// Be active, or a standby.
    Assume {
        /// A standby.
        stands_by: bool,
        /// Told what came of it.
        reply: oneshot::Sender<Result<(), RoleError>>,
    },
    /// Say goodbye and end.
    Shutdown {
        /// Told when everything has ended.
        reply: oneshot::Sender<()>,
    },
}

/// What is signalled without a message.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Local writes wait to be sent.
    pub(crate) wake: Notify,
    /// Something was applied, or the driver has ended.
    pub(crate) applied: Notify,
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct DriverEnd {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) views: watch::Sender<ClusterView>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) watches: Arc<Watches>,
}

impl Drop for DriverEnd {
    fn drop(&mut self) {
        // First, so that whoever is woken finds that it is down.
        self.commands.close();
        self.watches.close();
        self.signals.applied.notify_waiters();
    }
}

/// A handle's end of the line to the driver.
#[derive(Clone, Debug)]
pub struct Line {
    commands: mpsc::Sender<Command>,
    signals: Arc<Signals>,
    watches: Arc<Watches>,
    events: broadcast::WeakSender<Event>,
    views: watch::Receiver<ClusterView>,
    clock: SystemClock,
}

impl Line {
    /// Makes both ends.
    pub(crate) fn new(clock: SystemClock) -> (Self, DriverEnd) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let events = broadcast::Sender::new(EVENTS);
        let (views_to, views) = watch::channel(ClusterView::default());
        let (signals, watches) = (Arc::new(Signals::default()), Arc::new(Watches::new()));
        let line = Self {
            commands: sender,
            signals: Arc::clone(&signals),
            watches: Arc::clone(&watches),
            events: events.downgrade(),
            views,
            clock,
        };
        (line, DriverEnd { commands, events, views: views_to, signals, watches })
    }

    /// Says that local writes wait to be sent.
    pub fn wake(&self) {
        self.signals.wake.notify_one();
    }

    /// Waits until a write has come as far as `level`, at most `within`. Returns `None` when the
    /// driver has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future ends the wait and nothing else.
    pub async fn wait(&self, mark: Mark, level: Level, within: Option<Duration>) -> Option<Outcome> {
        let deadline = within.map(|d| self.clock.now().mono.plus(d));
        let (reply, outcome) = oneshot::channel();
        self.commands.send(Command::Wait { mark, level, deadline, reply }).await.ok()?;
        outcome.await.ok()
    }

    /// Gets a register that an edge has not kept: what there is of it is here then, as long as it is warm.
    ///
    /// # Errors
    /// [`FetchError`]; nothing was changed.
    ///
    /// # Cancel safety
    /// Cancel safe: what comes is taken in all the same.
    pub async fn fetch(&self, keyspace: KeyspaceId, key: Bytes) -> Result<(), FetchError> {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Fetch { keyspace, key, reply }).await.is_err() {
            return Err(FetchError::Stopped);
        }
        done.await.unwrap_or(Err(FetchError::Stopped))
    }

    /// Asks for a register until as many have answered as `level` takes, at most `within`. Returns `None` when the driver has
    /// ended.
    ///
    /// # Cancel safety
    /// Cancel safe: what comes is taken in all the same.
    pub async fn read(
        &self,
        keyspace: KeyspaceId,
        key: Bytes,
        level: Level,
        within: Option<Duration>,
    ) -> Option<Outcome> {
        let deadline = within.map(|d| self.clock.now().mono.plus(d));
        let (reply, outcome) = oneshot::channel();
        self.commands.send(Command::Read { keyspace, key, level, deadline, reply }).await.ok()?;
        outcome.await.ok()
    }

    /// Returns what the node counted; `None` when the driver has ended.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stats(&self) -> Option<Stats> {
        let (reply, stats) = oneshot::channel();
        self.commands.send(Command::Stats { reply }).await.ok()?;
        stats.await.ok()
    }

    /// Says how busy the service around the node is, in percent, or that it says so no longer.
    ///
    /// # Cancel safety
    /// Cancel safe: it is said or not.
    pub async fn set_load(&self, percent: Option<u8>) {
        if self.commands.send(Command::Load { percent }).await.is_err() {
            tracing::debug!("nobody was told of the load: the driver has ended");
        }
    }

    /// Forgets the lag measured so far.
    ///
    /// # Cancel safety
    /// Cancel safe: it is forgotten or not.
    pub async fn reset_lag(&self) {
        if self.commands.send(Command::ResetLag).await.is_err() {
            tracing::debug!("the lag was not reset: the driver has ended");
        }
    }

    /// Removes a member for ever; `None` when the driver has ended.
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    pub async fn remove(&self, replica: ReplicaId) -> Option<Result<(), RemoveError>> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Remove { replica, reply }).await.ok()?;
        done.await.ok()
    }

    /// Lets a node whose replica was removed go on as another one; returns whether it was. `None` when the driver has ended.
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    pub async fn rejoin(&self) -> Option<bool> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Rejoin { reply }).await.ok()?;
        done.await.ok()
    }

    /// Makes the endpoint use another identity from the next handshake on; `None` when the driver has ended.
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    pub async fn present(&self, identity: Identity) -> Option<Result<(), StartError>> {
        let (reply, done) = oneshot::channel();
        let identity = Box::new(identity);
        self.commands.send(Command::Present { identity, reply }).await.ok()?;
        done.await.ok()
    }

    /// Makes the node hand everything over, and leave if told so; returns whether it has, or has nobody to hand it to.
    /// `None` when it was removed, called back or shut down before.
    ///
    /// # Cancel safety
    /// Once asked for it goes on until [`Line::resume`].
    pub async fn drain(&self, leave: bool) -> Option<bool> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Drain { leave, reply }).await.ok()?;
        done.await.ok()
    }

    /// Makes the node compare all partitions with all peers; returns what came of it, `None` when the driver has ended.
    ///
    /// # Cancel safety
    /// Once asked for it goes on.
    pub async fn repair(&self, within: Duration) -> Option<RepairReport> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Repair { within, reply }).await.ok()?;
        done.await.ok()
    }

    /// Makes the node accept writes again, unless it has left already; returns who lacks something then. `None` when the
    /// driver has ended.
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    pub async fn resume(&self) -> Option<Option<Vec<ReplicaId>>> {
        let (reply, behind) = oneshot::channel();
        self.commands.send(Command::Resume { reply }).await.ok()?;
        behind.await.ok()
    }

    /// Makes the node active, or a standby. `None` when the driver has ended.
    ///
    /// # Cancel safety
    /// Once asked for it is done.
    pub async fn assume(&self, stands_by: bool) -> Option<Result<(), RoleError>> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Assume { stands_by, reply }).await.ok()?;
        done.await.ok()
    }

    /// Makes the driver flush, say goodbye to every peer and end; returns when it has.
    ///
    /// # Cancel safety
    /// Once begun the driver ends, whether anybody waits for it or not.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Shutdown { reply }).await.is_err() || done.await.is_err() {
            tracing::debug!("the driver had ended before it was asked to");
        }
    }

    /// Returns what hears every event from now on; `None` when the driver has ended.
    #[must_use]
    pub fn events(&self) -> Option<broadcast::Receiver<Event>> {
        self.events.upgrade().map(|sender| sender.subscribe())
    }

    /// Returns the cluster as the node sees it, whenever that changes and every second; the last view stays when the driver
    /// has ended.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<ClusterView> {
        self.views.clone()
    }

    /// Returns the clock of the node.
    #[must_use]
    pub fn clock(&self) -> SystemClock {
        self.clock
    }

    /// Returns what hears every change of a keyspace from now on.
    #[must_use]
    pub fn watch(&self, keyspace: KeyspaceId) -> broadcast::Receiver<KeyChange> {
        self.watches.subscribe(keyspace)
    }

    /// Tells the watchers of a keyspace that this process changed a key.
    pub fn changed(&self, keyspace: KeyspaceId, key: &[u8]) {
        self.watches.tell(keyspace, Bytes::copy_from_slice(key), Origin::Local);
    }

    /// Returns what is ready when remote writes were applied, or the driver has ended.
    /// Make it, then look, then await it: nothing is missed from when it was made.
    pub fn applied(&self) -> Notified<'_> {
        self.signals.applied.notified()
    }

    /// Tells whether the driver has ended.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.commands.is_closed()
    }
}
