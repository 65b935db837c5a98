//! A joined node with a good peer and one that is about to misbehave.

use std::sync::Arc;
use std::time::Duration;

use driftless::clock::{Hlc, Mono, Now};
use driftless::config::Config;
use driftless::crdt::Ctx;
use driftless::crdt::custom::Erased;
use driftless::error::PeerFault;
use driftless::id::{NodeId, PartitionId, RegionId, ReplicaId};
use driftless::node::{CloseCode, Event, Input, LinkId, Me, Node, Output, PeerIdentity};
use driftless::store::Store;
use driftless::wire::{Control, Decoder, Encoder, Frame, FullChunk, Hello, Limits, Part};

pub(super) const GOOD: LinkId = LinkId(1);
pub(super) const BAD: LinkId = LinkId(2);
pub(super) const WALL_MS: u64 = 1_700_000_000_000;

pub(super) fn now() -> Now {
    Now { mono: Mono(1_000), wall_ms: WALL_MS }
}

pub(super) fn node_id(n: u128) -> NodeId {
    NodeId(uuid::Uuid::from_u128(n))
}

pub(super) fn identity(n: u128, region: &str) -> PeerIdentity {
    PeerIdentity { node: node_id(n), region: RegionId::new(region), expires_ms: u64::MAX }
}

/// A joined node with one good peer, and what it says.
pub(super) struct Bench {
    pub(super) node: Node,
    pub(super) store: Arc<Store>,
    pub(super) encoder: Encoder,
    /// Keys that a test wrote here itself.
    pub(super) keys: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        let config = Config::wan("us-east", "unused:0").custom(
            "docs",
            "counter:1",
            Arc::new(Erased::<crdts::PNCounter<u64>>::default()),
        );
        let me = Me { node: node_id(1), region: RegionId::new("us-east"), replica: ReplicaId(10) };
        let store = Arc::new(Store::new(me.replica, config.store()));
        let node = Node::new(me, config, Arc::clone(&store), 7).unwrap();
        let mut bench = Self { node, store, encoder: Encoder::default(), keys: 0 };
        bench.handle(Input::Deadline);
        assert!(bench.node.stats().joined, "without peers it founds");
        let outputs = bench.link_up(GOOD, identity(2, "eu-central"));
        let hello =
            outputs.iter().find_map(|o| if let Output::Control { bytes, .. } = o { Some(bytes.clone()) } else { None });
        let Control::Hello(ours) = Decoder::default().decode_control(&hello.unwrap(), &Limits::default()).unwrap()
        else {
            panic!("the first message is a hello")
        };
        let good = Hello { node: node_id(2), region: RegionId::new("eu-central"), replica: ReplicaId(20), ..ours };
        bench.control(GOOD, &Control::Hello(good));
        assert_eq!(bench.node.stats().peers.len(), 1);
        bench
    }

    /// A node that has met nobody yet.
    pub(super) fn joiner() -> Self {
        Self::joining(Config::wan("us-east", "unused:0").peers(["a:1", "b:1"]))
    }

    pub(super) fn joining(config: Config) -> Self {
        let me = Me { node: node_id(1), region: RegionId::new("us-east"), replica: ReplicaId(10) };
        let store = Arc::new(Store::new(me.replica, config.store()));
        let node = Node::new(me, config, Arc::clone(&store), 7).unwrap();
        let mut bench = Self { node, store, encoder: Encoder::default(), keys: 0 };
        bench.handle(Input::Deadline);
        bench
    }

    pub(super) fn handle(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(now(), input);
        std::iter::from_fn(|| self.node.poll()).collect()
    }

    pub(super) fn link_up(&mut self, link: LinkId, peer: PeerIdentity) -> Vec<Output> {
        self.handle(Input::LinkUp { link, peer, dialled: None, after: Duration::ZERO })
    }

    pub(super) fn frame(&mut self, link: LinkId, from: u64, parts: Vec<Part>) {
        self.says(link, from, parts);
    }

    /// The same; returns what comes of it.
    pub(super) fn says(&mut self, link: LinkId, from: u64, parts: Vec<Part>) -> Vec<Output> {
        let frame = Frame { from: ReplicaId(from), hlc: Hlc::from_ms(WALL_MS), parts };
        let bytes = self.encoder.encode_frame(&frame, self.store.spaces()).unwrap();
        self.handle(Input::Log { link, bytes })
    }

    pub(super) fn control(&mut self, link: LinkId, message: &Control) -> Vec<Output> {
        let bytes = self.encoder.encode_control(message).unwrap();
        self.handle(Input::Control { link, bytes })
    }

    /// What a well-behaved third node would say.
    pub(super) fn hello(&mut self) -> Hello {
        let outputs = self.link_up(BAD, identity(3, "ap-southeast"));
        let bytes =
            outputs.iter().find_map(|o| if let Output::Control { link: BAD, bytes } = o { Some(bytes) } else { None });
        let Control::Hello(ours) = Decoder::default().decode_control(bytes.unwrap(), &Limits::default()).unwrap()
        else {
            panic!("the first message is a hello")
        };
        Hello { node: node_id(3), region: RegionId::new("ap-southeast"), replica: ReplicaId(30), ..ours }
    }

    /// Sends a spoiled hello and returns the fault it was refused for.
    pub(super) fn refused(&mut self, spoil: impl FnOnce(&mut Hello)) -> PeerFault {
        let mut hello = self.hello();
        spoil(&mut hello);
        let outputs = self.control(BAD, &Control::Hello(hello));
        self.fault_in(&outputs)
    }

    /// Checks that only the bad link was closed, and returns why.
    pub(super) fn fault_in(&self, outputs: &[Output]) -> PeerFault {
        let closed: Vec<_> = outputs
            .iter()
            .filter_map(|o| if let Output::Close { link, code, .. } = o { Some((*link, *code)) } else { None })
            .collect();
        let fault = outputs
            .iter()
            .find_map(|o| if let Output::Event(Event::Refused { fault, .. }) = o { Some(fault.clone()) } else { None })
            .unwrap();
        assert_eq!(closed, [(BAD, CloseCode::of(&fault))]);
        let peers = self.node.stats().peers;
        assert!(peers.iter().any(|p| p.node == node_id(2) && p.up), "the good peer stays");
        assert_eq!(self.node.stats().keys, self.keys, "nothing was written");
        fault
    }

    /// Opens a good session on the link that is about to misbehave.
    pub(super) fn session(&mut self) {
        let hello = self.hello();
        self.control(BAD, &Control::Hello(hello));
        assert_eq!(self.node.stats().peers.len(), 2);
    }
}

/// A context with the first events of a replica.
pub(super) fn seen(replica: u64, upto: u64) -> Ctx {
    let mut ctx = Ctx::default();
    ctx.add_range(ReplicaId(replica), 1, upto);
    ctx
}

/// The only piece of a full synchronisation, without a value: its context, and what is stable and dropped at its sender.
pub(super) fn only_piece(partition: PartitionId, [ctx, frontier, floor]: [&Ctx; 3]) -> FullChunk {
    let [ctx, frontier, floor] = [ctx, frontier, floor].map(Ctx::clone);
    FullChunk { last: true, ctx, frontier, floor, ..FullChunk::piece(partition, 1, 0) }
}
