//! A driver's loop around two real nodes while other threads write, wait and shut down.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use driftless::clock::{Mono, Now};
use driftless::config::Config;
use driftless::id::{NodeId, RegionId, ReplicaId};
use driftless::node::{Input, Level, LinkId, Mark, Me, Node, Outcome, Output, PeerIdentity, PeerSlot, WaitId};
use driftless::store::Store;
use shuttle::future::block_on;
use shuttle::thread::scope;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{WALL_MS, explore, keys, registers, set};

const LINK: LinkId = LinkId(1);
/// Deadlines of the nodes after which a wait that could end has ended: a report is due after 20 ms, beats and sweeps
/// come every 100 ms.
const DEADLINES: u32 = 64;

/// Two nodes that have joined, and a perfect network between them.
struct Pair {
    nodes: [Node; 2],
    now: Now,
    resolved: Vec<(WaitId, Outcome)>,
}

impl Pair {
    fn joined() -> Self {
        let [a, b] = [1, 2].map(|n: u8| {
            let mut config = Config::dev(&format!("r{n}"), "unused:0");
            config.limits.partitions = 2;
            config.replication.linger = Duration::ZERO;
            let config = if n == 1 { config.peers(["unused:1"]) } else { config };
            let node = NodeId(uuid::Uuid::from_u128(u128::from(n)));
            let me = Me { node, region: RegionId::new(&format!("r{n}")), replica: ReplicaId(u64::from(n)) };
            let store = Arc::new(Store::new(me.replica, config.store()));
            Node::new(me, config, store, u64::from(n)).unwrap()
        });
        let identity =
            |n: &Node| PeerIdentity { node: n.me().node, region: n.me().region.clone(), expires_ms: u64::MAX };
        let (us, them) = (identity(&a), identity(&b));
        let now = Now { mono: Mono(1), wall_ms: WALL_MS };
        let mut pair = Self { nodes: [a, b], now, resolved: Vec::new() };
        // The second has nobody to dial and founds; the first joins it.
        pair.handle(1, Input::Deadline);
        let up = |peer, dialled| Input::LinkUp { link: LINK, peer, dialled, after: Duration::ZERO };
        let ups = VecDeque::from([(0, up(them, Some(PeerSlot(0)))), (1, up(us, None))]);
        pair.deliver(ups);
        let met =
            |pair: &Self| pair.nodes.iter().all(|node| node.stats().joined && node.stats().cluster.members.len() == 2);
        while !met(&pair) {
            pair.deadline();
        }
        pair
    }

    /// Gives a node an input, and everything it says to the other, until both are silent.
    fn handle(&mut self, at: usize, input: Input) {
        self.deliver(VecDeque::from([(at, input)]));
    }

    fn deliver(&mut self, mut inputs: VecDeque<(usize, Input)>) {
        while let Some((at, input)) = inputs.pop_front() {
            self.nodes[at].handle(self.now, input);
            while let Some(output) = self.nodes[at].poll() {
                match output {
                    Output::Control { link, bytes } => inputs.push_back((1 - at, Input::Control { link, bytes })),
                    Output::Log { link, bytes, .. } => {
                        inputs.push_back((at, Input::Drained { link, bytes: bytes.len() }));
                        inputs.push_back((1 - at, Input::Log { link, bytes }));
                    }
                    Output::Beat { link, bytes } => inputs.push_back((1 - at, Input::Beat { link, bytes })),
                    Output::Resolved { id, outcome } => self.resolved.push((id, outcome)),
                    Output::Dial { .. }
                    | Output::Close { .. }
                    | Output::Event(_)
                    | Output::Changed(_)
                    | Output::Repaired { .. }
                    | Output::Fetched { .. } => {}
                }
            }
        }
    }

    /// Lets time pass until one of the nodes wants something.
    fn deadline(&mut self) {
        let at = self.nodes.iter().filter_map(Node::next_deadline).min().unwrap();
        self.now.mono = self.now.mono.max(at);
        self.handle(0, Input::Deadline);
        self.handle(1, Input::Deadline);
    }

    fn store(&self, at: usize) -> Arc<Store> {
        Arc::clone(self.nodes[at].store())
    }
}

/// What the threads ask of the driver, as the real line's commands.
enum Command {
    Written,
    Wait(Mark, oneshot::Sender<Outcome>),
    Cancel(Mark),
    Shutdown,
}

/// The way to the driver: the channels of the real line, of which each call is one step to shuttle.
#[derive(Clone)]
struct Line {
    commands: mpsc::Sender<Command>,
    wake: Arc<Notify>,
}

impl Line {
    /// So few commands may wait that a caller finds the queue full.
    const COMMANDS: usize = 1;

    fn new() -> (Self, Inbox) {
        let (commands, inbox) = mpsc::channel(Self::COMMANDS);
        let wake = Arc::new(Notify::new());
        (Self { commands, wake: Arc::clone(&wake) }, Inbox { commands: inbox, wake })
    }

    /// Writes a key and wakes the driver when told to; returns the event, if the write was accepted.
    fn write(&self, store: &Store, key: &str) -> Option<Mark> {
        let space = registers(store);
        let (written, wake) = set(store, &space, key).ok()?;
        if wake {
            self.wake.notify_one();
        }
        Some(Mark { partition: store.place(space.hash(key.as_bytes())), dot: written.dot })
    }

    /// Waits on a write; `None` when the driver has ended.
    fn wait(&self, mark: Mark) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.send(Command::Wait(mark, reply))?;
        block_on(outcome).ok()
    }

    fn send(&self, command: Command) -> Option<()> {
        block_on(self.commands.send(command)).ok()
    }
}

/// The driver's end.
struct Inbox {
    commands: mpsc::Receiver<Command>,
    wake: Arc<Notify>,
}

impl Inbox {
    /// Sleeps until there is something to do; `None` when nobody is left.
    async fn next(&mut self) -> Option<Command> {
        let mut woken = pin!(self.wake.notified());
        poll_fn(|cx| match woken.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Command::Written)),
            Poll::Pending => self.commands.poll_recv(cx),
        })
        .await
    }

    /// Looks, without sleeping, whether there is something to do.
    fn look(&mut self) -> Poll<Option<Command>> {
        pin!(self.next()).poll(&mut Context::from_waker(Waker::noop()))
    }
}

/// The driver's loop, with the nodes' timers in place of time. Returns when it is told to or nobody is left.
fn drive(pair: &mut Pair, mut inbox: Inbox) {
    let (mut waits, mut names, mut idle) = (BTreeMap::new(), BTreeMap::new(), 0);
    loop {
        let command = if waits.is_empty() { Poll::Ready(block_on(inbox.next())) } else { inbox.look() };
        let last = matches!(command, Poll::Ready(Some(Command::Shutdown)));
        match command {
            Poll::Ready(Some(Command::Written)) => pair.handle(0, Input::Written),
            Poll::Ready(Some(Command::Wait(mark, reply))) => {
                pair.handle(0, Input::Written);
                let id = WaitId(u64::try_from(names.len()).unwrap());
                names.insert(mark, id);
                waits.insert(id, reply);
                pair.handle(0, Input::Wait { id, mark, level: Level::All, deadline: None });
            }
            Poll::Ready(Some(Command::Cancel(mark))) => {
                let id = names[&mark];
                waits.remove(&id);
                pair.handle(0, Input::CancelWait { id });
            }
            Poll::Ready(Some(Command::Shutdown)) => pair.handle(0, Input::Shutdown),
            Poll::Ready(None) if waits.is_empty() => return,
            Poll::Ready(None) | Poll::Pending => {
                idle += 1;
                assert!(idle < DEADLINES, "a wait that is never resolved: {:?}", waits.keys());
                pair.deadline();
            }
        }
        for (id, outcome) in pair.resolved.drain(..) {
            idle = 0;
            let reply: Option<oneshot::Sender<Outcome>> = waits.remove(&id);
            drop(reply.expect("a wait is resolved once, and not after it was given up").send(outcome));
        }
        if last {
            assert!(waits.is_empty(), "a shutdown ends every wait");
            return;
        }
    }
}

#[test]
fn every_wait_on_a_write_that_arrives_is_resolved_once() {
    explore(|| {
        let mut pair = Pair::joined();
        let (store, (line, inbox)) = (pair.store(0), Line::new());
        let keys = keys(&store, &registers(&store));
        let (ours, theirs) = (line.clone(), line);
        scope(|s| {
            s.spawn(|| {
                let line = ours;
                line.write(&store, &keys[0]).unwrap();
                let mark = line.write(&store, &keys[1]).unwrap();
                assert!(line.wait(mark).unwrap().reached);
            });
            s.spawn(|| {
                let line = theirs;
                let [first, second] = [&keys[1], &keys[0]].map(|key| line.write(&store, key).unwrap());
                line.send(Command::Wait(first, oneshot::channel().0)).unwrap();
                line.send(Command::Cancel(first)).unwrap();
                assert!(line.wait(second).unwrap().reached);
            });
            s.spawn(|| drive(&mut pair, inbox));
        });
    });
}

#[test]
fn a_shutdown_sends_every_write_that_was_accepted_and_ends_every_wait() {
    explore(|| {
        let mut pair = Pair::joined();
        let (store, there, (line, inbox)) = (pair.store(0), pair.store(1), Line::new());
        let keys = keys(&store, &registers(&store));
        let accepted = scope(|s| {
            let ours = s.spawn(|| [0, 1].map(|at| line.write(&store, &keys[at])));
            let theirs = s.spawn(|| {
                let mark = line.write(&store, &keys[1]);
                let outcome = mark.and_then(|mark| line.wait(mark));
                assert!(outcome.is_none_or(|outcome| outcome.acked > 0));
                [mark, line.write(&store, &keys[0])]
            });
            s.spawn(|| line.send(Command::Shutdown));
            s.spawn(|| drive(&mut pair, inbox));
            [ours.join().unwrap(), theirs.join().unwrap()]
        });
        for mark in accepted.into_iter().flatten().flatten() {
            let arrived = there.read(mark.partition).unwrap().ctx().has(mark.dot);
            assert!(arrived, "{mark:?} was accepted and is nowhere else");
        }
    });
}
