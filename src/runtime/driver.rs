//! The loop: the one task that owns the node and the network.
//!
//! It waits for whichever comes first of a closed set (an input from the network, a command of the
//! handle, a local write to send, the node's deadline), gives it to the node and carries out what
//! the node wants: the drain rule of [`crate::node`].
//!
//! # Invariants
//! * One input or command per turn, then every output of it; the node bounds the work of one input.
//! * Nothing here waits but the `select!`: outputs are queued, answers nobody awaits are dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep_until;

use crate::clock::Mono;
use crate::error::{FetchError, RemoveError};
use crate::id::ReplicaId;
use crate::node::{Event, FetchId, Input, Node, Output, RepairId, RepairReport};
use crate::runtime::clock::SystemClock;
use crate::runtime::endpoint::Endpoint;
use crate::runtime::journal::Journal;
use crate::runtime::line::{Command, DriverEnd, Line};
use crate::runtime::waits::Waits;
use crate::runtime::watches::Origin;

/// How old round trips and lags in a view may be.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// The owner of the node and the network.
#[derive(Debug)]
pub struct Driver {
    node: Node,
    endpoint: Endpoint,
    clock: SystemClock,
    end: DriverEnd,
    waits: Waits,
    /// Who waits for a fetch, and how many there were. The node bounds them, and ends each in time.
    fetchers: BTreeMap<FetchId, oneshot::Sender<Result<(), FetchError>>>,
    fetched: u64,
    /// Who waits for everything to be handed over, and whether for the node to have left as well.
    drainers: Vec<(bool, oneshot::Sender<bool>)>,
    /// Who waits for all copies to be compared, and how many there were. The node ends each in time.
    repairers: BTreeMap<RepairId, oneshot::Sender<RepairReport>>,
    repaired: u64,
    journal: Journal,
    /// When the own certificate expires, in Unix milliseconds.
    expires_ms: u64,
    /// When the view was last shown.
    shown_at: Mono,
}

impl Driver {
    /// Takes the node and the network over. The own certificate expires at `expires_ms`.
    #[must_use]
    pub fn new(node: Node, endpoint: Endpoint, expires_ms: u64) -> (Self, Line) {
        let clock = SystemClock::start();
        let (line, end) = Line::new(clock);
        let driver = Self {
            node,
            endpoint,
            clock,
            end,
            waits: Waits::default(),
            fetchers: BTreeMap::new(),
            fetched: 0,
            drainers: Vec::new(),
            repairers: BTreeMap::new(),
            repaired: 0,
            journal: Journal::default(),
            expires_ms,
            shown_at: Mono::default(),
        };
        (driver, line)
    }

    /// Drives until it is told to shut down or every handle is gone.
    ///
    /// # Cancel safety
    /// Dropping the future ends everything at once: peers are not told, waits end unanswered.
    pub async fn run(mut self) {
        self.take(Input::Certified { expires_ms: self.expires_ms });
        let reply = loop {
            let due = self.clock.instant(self.node.next_deadline().unwrap_or(Mono(u64::MAX)));
            tokio::select! {
                input = self.endpoint.next() => self.take(input),
                command = self.end.commands.recv() => match command {
                    Some(Command::Shutdown { reply }) => break Some(reply),
                    Some(command) => self.obey(command),
                    None => break None,
                },
                () = self.end.signals.wake.notified() => self.take(Input::Written),
                () = sleep_until(due) => self.take(Input::Deadline),
            }
        };
        self.take(Input::Shutdown);
        let Self { endpoint, mut end, .. } = self;
        end.commands.close();
        endpoint.shutdown().await;
        drop(end);
        if reply.is_some_and(|reply| reply.send(()).is_err()) {
            tracing::debug!("shut down, and nobody waited for it");
        }
    }

    fn take(&mut self, input: Input) {
        let news = self.node.news();
        self.node.handle(self.clock.now(), input);
        while let Some(output) = self.node.poll() {
            if let Some(told) = self.endpoint.apply(output) {
                self.tell(told);
            }
        }
        if self.node.news() != news {
            self.end.signals.applied.notify_waiters();
        }
        if self.clock.now().mono.since(self.shown_at) >= SHOW_EVERY {
            self.show_view();
        }
    }

    /// Shows the cluster to whoever routes by it.
    fn show_view(&mut self) {
        self.shown_at = self.clock.now().mono;
        self.end.views.send_replace(self.node.cluster());
    }

    fn tell(&mut self, output: Output) {
        match output {
            Output::Resolved { id, outcome } => self.waits.tell(id, outcome),
            Output::Fetched { id, end } => {
                if self.fetchers.remove(&id).is_some_and(|reply| reply.send(end).is_err()) {
                    tracing::debug!("fetched, and nobody waited for it");
                }
            }
            Output::Event(event) => {
                self.journal.note(&event);
                // First, so that whoever hears of it finds it taken into account.
                self.show_view();
                self.tell_drainers(&event);
                drop(self.end.events.send(event));
            }
            Output::Changed(changes) => {
                for change in changes {
                    self.end.watches.tell(change.keyspace, change.key, Origin::Remote);
                }
            }
            Output::Repaired { id, report } => {
                if self.repairers.remove(&id).is_some_and(|reply| reply.send(report).is_err()) {
                    tracing::debug!(?report, "copies were compared, and nobody waited for it");
                }
            }
            Output::Dial { .. }
            | Output::Control { .. }
            | Output::Log { .. }
            | Output::Beat { .. }
            | Output::Close { .. } => {}
        }
    }

    fn tell_drainers(&mut self, event: &Event) {
        let has_left = *event == Event::Left;
        let is_done = has_left || *event == Event::Drained;
        if !is_done && *event != Event::Removed {
            return;
        }
        // Who wants the node to leave is not done while it is a member.
        let is_told = |(leave, _): &mut (bool, _)| !is_done || has_left || !*leave;
        for (_, reply) in self.drainers.extract_if(.., is_told).filter(|_| is_done) {
            if reply.send(true).is_err() {
                tracing::debug!("everything is handed over, and nobody waited for it");
            }
        }
    }

    /// Whoever asks a node that was removed is told by the end of `reply`, and one that is alone that it will not be done.
    fn drain(&mut self, leave: bool, reply: oneshot::Sender<bool>) {
        if self.node.members().is_removed(self.node.me().replica) {
            return;
        }
        if self.node.is_alone() {
            if reply.send(false).is_err() {
                tracing::debug!("nobody is there to hand anything to, and nobody waited to hear it");
            }
            return;
        }
        self.drainers.retain(|(_, reply)| !reply.is_closed());
        self.drainers.push((leave, reply));
        self.take(Input::Drain { leave });
    }

    fn forget_gone(&mut self) {
        for id in self.waits.forget_gone() {
            self.take(Input::CancelWait { id });
        }
    }

    fn refuses_to_remove(&self, replica: ReplicaId) -> Option<RemoveError> {
        if replica == self.node.me().replica {
            return Some(RemoveError::Myself);
        }
        let member = self.node.members().live().any(|(live, _)| live == replica);
        (!member).then_some(RemoveError::NotAMember { replica })
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Wait { mark, level, deadline, reply } => {
                // The write may still wait to be sent: its wake-up and this command race.
                self.take(Input::Written);
                let id = self.waits.begin(reply);
                self.take(Input::Wait { id, mark, level, deadline });
                self.forget_gone();
            }
            Command::Read { keyspace, key, level, deadline, reply } => {
                let id = self.waits.begin_read(reply);
                self.take(Input::Read { id, keyspace, key, level, deadline });
                self.forget_gone();
            }
            Command::Fetch { keyspace, key, reply } => {
                let id = FetchId(self.fetched);
                self.fetched += 1;
                self.fetchers.insert(id, reply);
                self.take(Input::Fetch { id, keyspace, key });
            }
            Command::Stats { reply } => drop(reply.send(self.node.stats())),
            Command::ResetLag => self.node.reset_lag(),
            Command::Load { percent } => self.take(Input::Load { percent }),
            Command::Remove { replica, reply } => {
                let refused = self.refuses_to_remove(replica);
                if refused.is_none() {
                    self.take(Input::Remove { replica });
                }
                drop(reply.send(refused.map_or(Ok(()), Err)));
            }
            Command::Rejoin { reply } => {
                let removed = self.node.members().is_removed(self.node.me().replica) && !self.node.has_left();
                self.take(Input::Rejoin);
                if reply.send(removed).is_err() {
                    tracing::debug!(removed, "told to come back, and nobody waited for it");
                }
            }
            Command::Present { identity, reply } => {
                let done = self.endpoint.present(&identity);
                if done.is_ok() {
                    self.take(Input::Certified { expires_ms: identity.name().expires_ms });
                }
                drop(reply.send(done));
            }
            Command::Drain { leave, reply } => self.drain(leave, reply),
            Command::Repair { within, reply } => {
                let id = RepairId(self.repaired);
                self.repaired += 1;
                self.repairers.insert(id, reply);
                self.take(Input::Repair { id, within });
            }
            Command::Resume { reply } => {
                let behind = (!self.node.has_left()).then(|| self.node.behind());
                self.drainers.clear();
                self.take(Input::Resume);
                drop(reply.send(behind));
            }
            Command::Assume { stands_by, reply } => {
                let refused = self.node.refuses_to_assume(stands_by);
                if refused.is_none() {
                    self.take(if stands_by { Input::Demote } else { Input::Promote });
                }
                drop(reply.send(refused.map_or(Ok(()), Err)));
            }
            // Taken by the loop.
            Command::Shutdown { .. } => {}
        }
    }
}
