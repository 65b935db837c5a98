//! A driver's loop around two real nodes while other threads write, wait and shut down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use driftless::clock::{Mono, Now};
use driftless::config::Config;
use driftless::id::{NodeId, RegionId, ReplicaId};
use driftless::node::{Input, Level, LinkId, Mark, Me, Node, Outcome, Output, PeerIdentity, PeerSlot, WaitId};
use driftless::store::Store;
use shuttle::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use shuttle::thread::scope;

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
        let up = |peer, dialled| Input::LinkUp { link: LINK, peer, dialled };
        let ups = VecDeque::from([(0, up(them, Some(PeerSlot(0)))), (1, up(us, None))]);
        pair.deliver(ups);
        let met = |pair: &Self| pair.nodes.iter().all(|node| node.stats().joined && node.stats().members == 2);
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
                    Output::Dial { .. } | Output::Close { .. } | Output::Event(_) | Output::Changed(_) => {}
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

/// What the threads ask of the driver: the real line's commands, and the wake-up.
enum Command {
    Wake,
    Wait(Mark, Sender<Outcome>),
    Cancel(Mark),
    Shutdown,
}

/// The driver's loop, with the nodes' timers in place of time. Returns when it is told to or nobody is left.
fn drive(pair: &mut Pair, commands: &Receiver<Command>) {
    let (mut waits, mut names) = (BTreeMap::new(), BTreeMap::new());
    let mut idle = 0;
    loop {
        let command = if waits.is_empty() { commands.recv().map_err(TryRecvError::from) } else { commands.try_recv() };
        let last = matches!(command, Ok(Command::Shutdown));
        match command {
            Ok(Command::Wake) => pair.handle(0, Input::Written),
            Ok(Command::Wait(mark, reply)) => {
                pair.handle(0, Input::Written);
                let id = WaitId(u64::try_from(names.len()).unwrap());
                names.insert(mark, id);
                waits.insert(id, reply);
                pair.handle(0, Input::Wait { id, mark, level: Level::All, deadline: None });
            }
            Ok(Command::Cancel(mark)) => {
                let id = names[&mark];
                waits.remove(&id);
                pair.handle(0, Input::CancelWait { id });
            }
            Ok(Command::Shutdown) => pair.handle(0, Input::Shutdown),
            Err(TryRecvError::Disconnected) if waits.is_empty() => return,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                idle += 1;
                assert!(idle < DEADLINES, "a wait that is never resolved: {:?}", waits.keys());
                pair.deadline();
            }
        }
        for (id, outcome) in pair.resolved.drain(..) {
            idle = 0;
            let reply: Option<Sender<Outcome>> = waits.remove(&id);
            drop(reply.expect("a wait is resolved once, and not after it was given up").send(outcome));
        }
        if last {
            assert!(waits.is_empty(), "a shutdown ends every wait");
            return;
        }
    }
}

/// Writes a key and wakes the driver when told to; returns the event, if the write was accepted.
fn write(store: &Store, key: &str, commands: &Sender<Command>) -> Option<Mark> {
    let space = registers(store);
    let (written, wake) = set(store, &space, key).ok()?;
    if wake {
        drop(commands.send(Command::Wake));
    }
    Some(Mark { partition: store.place(space.hash(key.as_bytes())), dot: written.dot })
}

/// Waits on a write; `None` when the driver has ended.
fn wait(mark: Mark, commands: &Sender<Command>) -> Option<Outcome> {
    let (reply, outcome) = channel();
    commands.send(Command::Wait(mark, reply)).ok()?;
    let first = outcome.recv().ok()?;
    assert!(outcome.recv().is_err(), "a wait is resolved once");
    Some(first)
}

#[test]
fn every_wait_on_a_write_that_arrives_is_resolved_once() {
    explore(|| {
        let mut pair = Pair::joined();
        let (store, (commands, inbox)) = (pair.store(0), channel());
        let keys = keys(&store, &registers(&store));
        let (ours, theirs) = (commands.clone(), commands);
        scope(|s| {
            s.spawn(|| {
                let commands = ours;
                write(&store, &keys[0], &commands);
                let mark = write(&store, &keys[1], &commands).unwrap();
                assert!(wait(mark, &commands).unwrap().reached);
            });
            s.spawn(|| {
                let commands = theirs;
                let [first, second] = [&keys[1], &keys[0]].map(|key| write(&store, key, &commands).unwrap());
                drop(commands.send(Command::Wait(first, channel().0)));
                drop(commands.send(Command::Cancel(first)));
                assert!(wait(second, &commands).unwrap().reached);
            });
            s.spawn(|| drive(&mut pair, &inbox));
        });
    });
}
