//! A real node among peers that say anything, as a fuzzer's bytes tell: some with manners, so that it gets somewhere.
//!
//! The part of the shell is played as the shell plays it: links are unique, nothing of a link follows its end, and
//! every dial is answered once.
//!
//! # Invariants
//! * What is checked after each input is what no peer may change: see [`Siege::check`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Result as Made, Unstructured};
use bytes::Bytes;
use driftless::clock::{Hlc, Mono, Now};
use driftless::config::Config;
use driftless::crdt::custom::Erased;
use driftless::crdt::{Dot, MemberSet, NEVER, Seen};
use driftless::id::{NodeId, PartitionId, RegionId, ReplicaId};
use driftless::node::{
    CloseCode, DialError, Event, Input, Level, LinkEnd, LinkId, Mark, Me, Node, Output, PeerIdentity, PeerSlot, WaitId,
};
use driftless::store::{Intent, KeyRef, Keyspaces, Store};
use driftless::wire::{Control, Decoder, Encoder, Frame, Hello, Limits};

use crate::messages::{self, CLOCK};
use crate::spaces::spaces;

const ME: ReplicaId = ReplicaId(2);
/// Most links at one time.
const LINKS_MAX: usize = 4;
/// The drift bound of the configuration.
const DRIFT_MS: u64 = 1_000;

fn identity(node: NodeId) -> PeerIdentity {
    PeerIdentity { node, region: RegionId::new("eu-central"), expires_ms: NEVER }
}

/// A link as the shell knows it.
#[derive(Debug)]
struct Open {
    peer: PeerIdentity,
    replica: ReplicaId,
    queued: usize,
}

/// The node and everything around it.
#[derive(Debug)]
pub struct Siege {
    node: Node,
    store: Arc<Store>,
    now: Now,
    wall_max_ms: u64,
    links: BTreeMap<LinkId, Open>,
    made: u64,
    dials: Vec<PeerSlot>,
    ours: Option<Hello>,
    spaces: Keyspaces,
    encoder: Encoder,
    decoder: Decoder,
}

impl Siege {
    /// Builds a node that has founded a cluster, or one that looks for two others.
    ///
    /// # Panics
    /// Never: the configuration is good.
    #[must_use]
    pub fn new(alone: bool) -> Self {
        let merge = Arc::new(Erased::<crdts::PNCounter<u64>>::default());
        let mut config = Config::wan("eu-central", "unused:0").custom("docs", "counter:1", merge.clone());
        config.limits.partitions = 4;
        config.node.peers = if alone { Vec::new() } else { vec!["a:1".to_owned(), "b:1".to_owned()] };
        let me = Me { node: NodeId(uuid::Uuid::from_u128(1)), region: RegionId::new("eu-central"), replica: ME };
        let store = Arc::new(Store::new(ME, config.store()));
        assert!(store.spaces().open_custom("docs", merge).is_ok());
        let node = Node::new(me, config, Arc::clone(&store), 7).expect("it is a good configuration");
        let now = Now { mono: Mono(1), wall_ms: CLOCK.ms() };
        let (links, dials, ours) = (BTreeMap::new(), Vec::new(), None);
        let (spaces, encoder, decoder) = (spaces(), Encoder::default(), Decoder::default());
        let wall_max_ms = now.wall_ms;
        let mut siege = Self { node, store, now, wall_max_ms, links, made: 0, dials, ours, spaces, encoder, decoder };
        siege.input(None, Input::Deadline);
        siege
    }

    /// Does what the next bytes say.
    ///
    /// # Errors
    /// When they are used up.
    pub fn deed(&mut self, u: &mut Unstructured<'_>) -> Made<()> {
        match u.int_in_range(0..=15)? {
            0..=2 => self.meet(u),
            3 => self.hello(u),
            4..=6 => {
                let message = messages::control(u)?;
                self.say(u, |siege, link| {
                    Some(Input::Control { link, bytes: siege.encoder.encode_control(&message).ok()? })
                })
            }
            7 => {
                let bytes = Bytes::copy_from_slice(u.arbitrary()?);
                let log = bool::arbitrary(u)?;
                self.say(u, |_, link| {
                    Some(if log { Input::Log { link, bytes } } else { Input::Control { link, bytes } })
                })
            }
            8..=10 => self.frame(u),
            11 => {
                let beat = messages::beat(u)?;
                self.say(u, |siege, link| Some(Input::Beat { link, bytes: siege.encoder.encode_beat(&beat) }))
            }
            12 => self.pass(u),
            13 => self.write(u),
            14 => self.shell(u),
            _ => self.say(u, |siege, link| {
                siege.links.remove(&link);
                Some(Input::LinkDown { link, reason: LinkEnd::TimedOut })
            }),
        }
    }

    /// Something comes on one of the links.
    fn say(&mut self, u: &mut Unstructured<'_>, what: impl FnOnce(&mut Self, LinkId) -> Option<Input>) -> Made<()> {
        if self.links.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(self.links.len())?;
        let link = self.links.keys().copied().nth(at);
        if let Some(link) = link
            && let Some(input) = what(self, link)
        {
            self.input(Some(link), input);
        }
        Ok(())
    }

    /// A peer comes, and mostly says hello as it should.
    fn meet(&mut self, u: &mut Unstructured<'_>) -> Made<()> {
        if self.links.len() == LINKS_MAX {
            return Ok(());
        }
        let (peer, replica) = (identity(messages::node(u)?), messages::replica(u)?);
        let dialled = if bool::arbitrary(u)? { self.dials.pop() } else { None };
        self.made += 1;
        let link = LinkId(self.made);
        self.links.insert(link, Open { peer: peer.clone(), replica, queued: 0 });
        self.input(Some(link), Input::LinkUp { link, peer, dialled, after: Duration::ZERO });
        if u.ratio(7, 8)? { self.hello(u) } else { Ok(()) }
    }

    /// The peer of the latest link says hello, with something wrong or not.
    fn hello(&mut self, u: &mut Unstructured<'_>) -> Made<()> {
        let Some((link, open)) = self.links.last_key_value() else { return Ok(()) };
        let (link, Some(ours)) = (*link, self.ours.clone()) else { return Ok(()) };
        let (node, region) = (open.peer.node, open.peer.region.clone());
        let mut hello = Hello { node, region, replica: open.replica, joined: u.arbitrary()?, ..ours };
        hello.members = if bool::arbitrary(u)? { MemberSet::default() } else { self.node.members().clone() };
        (hello.wall_ms, hello.hlc) = (self.now.wall_ms, Hlc::from_ms(self.now.wall_ms));
        match u.int_in_range(0..=31)? {
            0 => hello.version = u.arbitrary()?,
            1 => hello.min_version = u.arbitrary()?,
            2 => hello.cluster.push('x'),
            3 => hello.node = messages::node(u)?,
            4 => hello.region = RegionId::new("us-east"),
            5 => hello.replica = messages::replica(u)?,
            6 => hello.wall_ms = u.arbitrary()?,
            7 => hello.hlc = Hlc(u.arbitrary()?),
            8 => hello.partitions = u.arbitrary()?,
            9 => hello.hash_check = u.arbitrary()?,
            10 => hello.custom.clear(),
            11 => hello.compression.clear(),
            12..=15 => hello.ctxs = vec![(PartitionId(u.int_in_range(0..=5)?), messages::ctx(u)?)],
            16 => hello.wall_ms = self.now.wall_ms.saturating_add_signed(i64::from(i16::arbitrary(u)?)),
            _ => {}
        }
        if let Ok(bytes) = self.encoder.encode_control(&Control::Hello(hello)) {
            self.input(Some(link), Input::Control { link, bytes });
        }
        Ok(())
    }

    fn frame(&mut self, u: &mut Unstructured<'_>) -> Made<()> {
        let (frame, own) = (messages::frame(u)?, u.ratio(15, 16)?);
        let late = u64::from(u16::arbitrary(u)?);
        self.say(u, |siege, link| {
            let from = siege.links.get(&link).filter(|_| own).map_or(frame.from, |open| open.replica);
            let hlc = Hlc(frame.hlc.0 + (late << 16));
            let bytes = siege.encoder.encode_frame(&Frame { from, hlc, ..frame }, &siege.spaces).ok()?;
            Some(Input::Log { link, bytes })
        })
    }

    /// Time passes; the wall clock may step.
    fn pass(&mut self, u: &mut Unstructured<'_>) -> Made<()> {
        let (ms, step) = (u.arbitrary::<u16>()?, if u.ratio(1, 4)? { i16::arbitrary(u)? } else { 0 });
        self.now.mono = self.now.mono.plus(Duration::from_millis(ms.into()));
        self.now.wall_ms = (self.now.wall_ms + u64::from(ms)).saturating_add_signed(step.into());
        self.wall_max_ms = self.wall_max_ms.max(self.now.wall_ms);
        self.input(None, Input::Deadline);
        Ok(())
    }

    /// A caller writes, and may wait for others to have it.
    fn write(&mut self, u: &mut Unstructured<'_>) -> Made<()> {
        let key = [u.int_in_range(0..=7)?];
        let Some(space) = self.store.spaces().find("sessions") else { return Ok(()) };
        let at = KeyRef::new(&space, &key);
        let intent = Intent { wall_ms: self.now.wall_ms, value_len: Some(1) };
        let Ok((written, wake)) = self.store.write(&at, intent, |p, t| p.set(&at, Bytes::from_static(b"v"), NEVER, t))
        else {
            return Ok(());
        };
        if wake {
            self.input(None, Input::Written);
        }
        let (partition, dot): (PartitionId, Dot) = (self.store.place(at.hash), written.dot);
        let level = *u.choose(&[Level::Quorum, Level::EachRegion, Level::All])?;
        self.made += 1;
        let deadline = Some(self.now.mono.plus(Duration::from_secs(1)));
        self.input(None, Input::Wait { id: WaitId(self.made), mark: Mark { partition, dot }, level, deadline });
        Ok(())
    }

    /// QUIC takes what is queued; a dial comes to nothing.
    fn shell(&mut self, u: &mut Unstructured<'_>) -> Made<()> {
        if bool::arbitrary(u)? {
            return self.say(u, |siege, link| {
                let bytes = std::mem::take(&mut siege.links.get_mut(&link)?.queued);
                Some(Input::Drained { link, bytes })
            });
        }
        if let Some(slot) = self.dials.pop() {
            let code = *u.choose(&[CloseCode::ClockDrift, CloseCode::Superseded, CloseCode::Unknown(99)])?;
            let reason = DialError::Refused { code, reason: String::new() };
            self.input(None, Input::DialFailed { slot, reason });
        }
        Ok(())
    }

    fn input(&mut self, cause: Option<LinkId>, input: Input) {
        self.node.handle(self.now, input);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.node.poll()).collect();
        self.check(cause, &outputs);
        for output in outputs {
            match output {
                Output::Dial { slot, .. } => self.dials.push(slot),
                Output::Log { link, bytes, .. } => {
                    if let Some(open) = self.links.get_mut(&link) {
                        open.queued += bytes.len();
                    }
                }
                Output::Close { link, code, reason } if self.links.remove(&link).is_some() => {
                    self.input(None, Input::LinkDown { link, reason: LinkEnd::Local { code, reason } });
                }
                Output::Control { .. }
                | Output::Beat { .. }
                | Output::Close { .. }
                | Output::Resolved { .. }
                | Output::Event(_)
                | Output::Changed(_)
                | Output::Repaired { .. }
                | Output::Fetched { .. } => {}
            }
        }
    }

    /// What no peer may change: a fault closes the link it came on and no other; what this node says can be read; no
    /// queue is over its bound; the clock stays near the wall's; nobody makes this node's own events.
    ///
    /// # Panics
    /// If anybody does.
    fn check(&mut self, cause: Option<LinkId>, outputs: &[Output]) {
        let limits = Limits::default();
        for output in outputs {
            match output {
                Output::Close { link, code, .. } => {
                    let own = cause.is_none_or(|cause| cause == *link);
                    let is_another = self.node.members().is_removed(ME) || self.node.me().replica != ME;
                    let kinds = [CloseCode::Superseded, CloseCode::Removed, CloseCode::Expelled, CloseCode::Silent];
                    let other = kinds.contains(code) || (*code == CloseCode::Goodbye && is_another);
                    assert!(own || other, "{code:?} on {link:?} because of {cause:?}");
                }
                Output::Control { bytes, .. } => {
                    let said = self.decoder.decode_control(bytes, &limits).expect("it says what can be read");
                    if let Control::Hello(hello) = said {
                        self.ours = Some(hello);
                    }
                }
                Output::Log { bytes, .. } => {
                    assert!(self.decoder.decode_frame(bytes, self.store.spaces(), &limits).is_ok());
                }
                Output::Beat { bytes, .. } => assert!(self.decoder.decode_beat(bytes, &limits).is_ok()),
                Output::Event(Event::Unsendable { unsendable }) => panic!("{unsendable}"),
                Output::Dial { .. }
                | Output::Resolved { .. }
                | Output::Event(_)
                | Output::Changed(_)
                | Output::Repaired { .. }
                | Output::Fetched { .. } => {}
            }
        }
        assert_eq!(self.node.gauges().over(), None);
        assert!(self.store.clock().last().ms() <= self.wall_max_ms + DRIFT_MS, "pushed ahead");
        let me = self.node.me().replica;
        for partition in self.store.partition_ids().filter_map(|id| self.store.read(id)) {
            assert!(partition.ctx().of(me).map_or(0, Seen::max) <= partition.seq(), "somebody made events of mine");
            assert!(partition.ctx().includes(partition.floor()) && partition.floor().includes(partition.frontier()));
        }
    }
}
