//! Real QUIC on loopback: what crosses a link, how it ends, and who is not let in.
//!
//! Two endpoints, or one and a raw quinn client or server that misbehaves. Every wait is for an
//! event; the only timeout is a guard against waiting for ever.
#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "an input that is not expected fails the test, whichever it is")]

#[path = "quic/refusals.rs"]
mod refusals;
#[path = "quic/starting.rs"]
mod starting;
#[path = "support/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use driftless::error::StartError;
use driftless::id::{NodeId, RegionId};
use driftless::node::{CloseCode, Input, LinkEnd, LinkId, Output, PeerSlot};
use driftless::runtime::{CONTROL_BYTES_MAX, Endpoint, EndpointConfig, Identity, LOG_BYTES_MAX, uri_of};
use uuid::Uuid;
use world::dev_ca::Pem;
use world::{DevCa, Leaf, guard};

const US: Node = Node { region: "us-east", id: 1 };
const EU: Node = Node { region: "eu-central", id: 2 };

#[derive(Clone, Copy)]
struct Node {
    region: &'static str,
    id: u128,
}

impl Node {
    fn node_id(self) -> NodeId {
        NodeId(Uuid::from_u128(self.id))
    }

    fn region_id(self) -> RegionId {
        RegionId::new(self.region)
    }

    fn leaf(self) -> Leaf {
        Leaf::new(uri_of(&self.region_id(), self.node_id()))
    }

    fn identity(self, ca: &DevCa) -> Identity {
        load(&ca.issue(&self.leaf()).unwrap()).unwrap()
    }
}

fn load(pem: &Pem) -> Result<Identity, StartError> {
    Identity::from_pem(pem.certificate.as_bytes(), pem.key.as_bytes(), pem.ca.as_bytes())
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn bind(identity: &Identity) -> Endpoint {
    Endpoint::bind(EndpointConfig::new(any_port()), identity).unwrap()
}

fn dial(to: impl ToString) -> Output {
    Output::Dial { slot: PeerSlot(0), address: to.to_string(), attempt: 0 }
}

/// Two endpoints; `a` is the one that dials.
struct Pair {
    a: Endpoint,
    b: Endpoint,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    A,
    B,
}

impl Pair {
    /// Binds both and dials from `a`; nothing has been waited for yet.
    fn dialling(a: &Identity, b: &Identity) -> Self {
        let (mut a, b) = (bind(a), bind(b));
        assert_eq!(a.apply(dial(b.local_addr().unwrap())), None);
        Self { a, b }
    }

    async fn next(&mut self) -> (Side, Input) {
        tokio::select! {
            input = self.a.next() => (Side::A, input),
            input = self.b.next() => (Side::B, input),
        }
    }

    /// Takes inputs until `enough` has seen what it needs.
    async fn until(&mut self, mut enough: impl FnMut(Side, &Input) -> bool) {
        guard(async {
            loop {
                let (side, input) = self.next().await;
                if enough(side, &input) {
                    return;
                }
            }
        })
        .await;
    }

    /// Returns the input of each side that tells the end of its link or attempt.
    async fn verdicts(&mut self) -> (Input, Input) {
        let (mut a, mut b) = (None, None);
        self.until(|side, input| {
            if matches!(input, Input::LinkDown { .. } | Input::DialFailed { .. } | Input::AcceptFailed { .. }) {
                let verdict = if side == Side::A { &mut a } else { &mut b };
                *verdict = Some(input.clone());
            }
            a.is_some() && b.is_some()
        })
        .await;
        (a.unwrap(), b.unwrap())
    }
}

/// Two endpoints with a link; returns what each side calls it.
async fn linked() -> (Pair, LinkId, LinkId) {
    let ca = DevCa::new().unwrap();
    let mut pair = Pair::dialling(&US.identity(&ca), &EU.identity(&ca));
    let (mut at_a, mut at_b) = (None, None);
    pair.until(|side, input| {
        let Input::LinkUp { link, peer, dialled, .. } = input else { panic!("{side:?}: {input:?}") };
        let (ours, them, slot) = match side {
            Side::A => (&mut at_a, EU, Some(PeerSlot(0))),
            Side::B => (&mut at_b, US, None),
        };
        assert_eq!((peer.node, peer.region.clone(), *dialled), (them.node_id(), them.region_id(), slot));
        *ours = Some(*link);
        at_a.is_some() && at_b.is_some()
    })
    .await;
    (pair, at_a.unwrap(), at_b.unwrap())
}

fn down(input: &Input) -> Option<&LinkEnd> {
    if let Input::LinkDown { reason, .. } = input { Some(reason) } else { None }
}

/// One output of every kind, each saying what it is and who says it.
fn one_of_each(link: LinkId, from: &str) -> [Output; 4] {
    let bytes = |kind: &str| Bytes::from(format!("{kind} from {from}"));
    [
        Output::Control { link, bytes: bytes("control") },
        Output::Log { link, bytes: bytes("log"), express: false },
        Output::Log { link, bytes: bytes("express"), express: true },
        Output::Beat { link, bytes: bytes("beat") },
    ]
}

#[tokio::test]
async fn control_log_express_and_beats_cross_in_both_directions() {
    let (mut pair, at_a, at_b) = linked().await;
    for output in one_of_each(at_a, "a") {
        assert_eq!(pair.a.apply(output), None);
    }
    for output in one_of_each(at_b, "b") {
        assert_eq!(pair.b.apply(output), None);
    }
    let (mut seen, mut drained) = (BTreeSet::new(), 0);
    pair.until(|side, input| {
        let (kind, link, bytes) = match input {
            Input::Control { link, bytes } => ("control", link, bytes),
            Input::Log { link, bytes } => ("log", link, bytes),
            Input::Beat { link, bytes } => ("beat", link, bytes),
            Input::Drained { bytes, .. } => {
                drained += bytes;
                return seen.len() == 8 && drained == 2 * ("log from a".len() + "express from a".len());
            }
            other => panic!("{side:?}: {other:?}"),
        };
        assert_eq!(*link, if side == Side::A { at_a } else { at_b });
        seen.insert((side == Side::A, kind, String::from_utf8(bytes.to_vec()).unwrap()));
        seen.len() == 8 && drained == 2 * ("log from a".len() + "express from a".len())
    })
    .await;
    for (to_a, from) in [(true, "b"), (false, "a")] {
        for (kind, text) in [("control", "control"), ("log", "log"), ("log", "express"), ("beat", "beat")] {
            assert!(seen.contains(&(to_a, kind, format!("{text} from {from}"))), "{seen:?}");
        }
    }
}

#[tokio::test]
async fn more_express_frames_than_streams_all_arrive_and_all_are_drained() {
    let (mut pair, at_a, _) = linked().await;
    for n in 0..1_000_u32 {
        let bytes = Bytes::copy_from_slice(&n.to_be_bytes());
        assert_eq!(pair.a.apply(Output::Log { link: at_a, bytes, express: true }), None);
    }
    let (mut seen, mut drained) = (BTreeSet::new(), 0);
    pair.until(|_, input| {
        match input {
            Input::Log { bytes, .. } => assert!(seen.insert(bytes.clone()), "{bytes:?} came twice"),
            Input::Drained { bytes, .. } => drained += bytes,
            other => panic!("{other:?}"),
        }
        seen.len() == 1_000 && drained == 4_000
    })
    .await;
}

#[tokio::test]
async fn frames_of_exactly_the_limit_cross() {
    let (mut pair, at_a, _) = linked().await;
    pair.a.apply(Output::Control { link: at_a, bytes: Bytes::from(vec![1; CONTROL_BYTES_MAX]) });
    pair.a.apply(Output::Log { link: at_a, bytes: Bytes::from(vec![2; LOG_BYTES_MAX]), express: false });
    let (mut control, mut log) = (0, 0);
    pair.until(|_, input| {
        match input {
            Input::Control { bytes, .. } => control = bytes.len(),
            Input::Log { bytes, .. } => log = bytes.len(),
            Input::Drained { .. } => {}
            other => panic!("{other:?}"),
        }
        (control, log) == (CONTROL_BYTES_MAX, LOG_BYTES_MAX)
    })
    .await;
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_with_its_code_on_both_sides() {
    for control in [true, false] {
        let (mut pair, link, _) = linked().await;
        pair.a.apply(if control {
            Output::Control { link, bytes: Bytes::from(vec![0; CONTROL_BYTES_MAX + 1]) }
        } else {
            Output::Log { link, bytes: Bytes::from(vec![0; LOG_BYTES_MAX + 1]), express: false }
        });
        let (a, b) = pair.verdicts().await;
        let (Some(LinkEnd::Closed { code, reason }), Some(LinkEnd::Local { code: local, .. })) = (down(&a), down(&b))
        else {
            panic!("{a:?} {b:?}")
        };
        assert_eq!((*code, *local), (CloseCode::OverLimit, CloseCode::OverLimit));
        assert!(reason.contains("exceeds the limit"), "{reason}");
    }
}

#[tokio::test]
async fn a_close_tells_the_peer_its_code_and_reason() {
    let (mut pair, _, at_b) = linked().await;
    let reason = "partition count is 64 there and 32 here".to_owned();
    pair.b.apply(Output::Close { link: at_b, code: CloseCode::Incompatible, reason: reason.clone() });
    let (a, b) = pair.verdicts().await;
    assert_eq!(down(&a), Some(&LinkEnd::Closed { code: CloseCode::Incompatible, reason: reason.clone() }));
    assert_eq!(down(&b), Some(&LinkEnd::Local { code: CloseCode::Incompatible, reason }));
}

#[tokio::test]
async fn a_goodbye_delivers_everything_that_was_queued_before_it() {
    let (mut pair, at_a, _) = linked().await;
    for n in 0..500_usize {
        pair.a.apply(Output::Log { link: at_a, bytes: Bytes::from(vec![0; n]), express: n % 3 == 0 });
    }
    // The acceptor answers on the control stream only once the dialler has used it.
    pair.a.apply(Output::Control { link: at_a, bytes: Bytes::from_static(b"last words") });
    pair.a.apply(Output::Close { link: at_a, code: CloseCode::Goodbye, reason: "bye".to_owned() });
    let (mut lengths, mut last_words, mut ended) = (BTreeSet::new(), false, 0);
    pair.until(|side, input| {
        match input {
            Input::Log { bytes, .. } => assert!(lengths.insert(bytes.len())),
            Input::Control { .. } => last_words = true,
            Input::LinkDown { reason, .. } => {
                let closed = LinkEnd::Closed { code: CloseCode::Goodbye, reason: "bye".to_owned() };
                assert!(side == Side::A || *reason == closed, "{reason:?}");
                ended += 1;
            }
            Input::Drained { .. } => {}
            other => panic!("{other:?}"),
        }
        ended == 2
    })
    .await;
    assert_eq!(lengths.len(), 500);
    assert!(last_words);
}

/// The dialler leaves with more to say than fits into one round trip, while the acceptor goes on writing to it.
#[tokio::test]
async fn a_goodbye_delivers_everything_to_a_peer_that_goes_on_writing() {
    const FRAMES: usize = 200;
    let (mut pair, at_a, at_b) = linked().await;
    pair.b.apply(Output::Log { link: at_b, bytes: Bytes::from_static(b"before"), express: false });
    pair.until(|side, input| side == Side::A && matches!(input, Input::Log { .. })).await;
    for n in 0..FRAMES {
        pair.a.apply(Output::Log { link: at_a, bytes: Bytes::from(vec![0; 20_000 + n]), express: false });
    }
    pair.a.apply(Output::Close { link: at_a, code: CloseCode::Goodbye, reason: "bye".to_owned() });
    let mut lengths = BTreeSet::new();
    let end = guard(async {
        loop {
            match pair.next().await {
                (Side::B, Input::Log { bytes, .. }) => {
                    lengths.insert(bytes.len());
                    pair.b.apply(Output::Log { link: at_b, bytes: Bytes::from_static(b"more"), express: false });
                }
                (Side::B, Input::LinkDown { reason, .. }) => return reason,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(lengths.len(), FRAMES, "delivered before {end:?}");
    assert_eq!(end, LinkEnd::Closed { code: CloseCode::Goodbye, reason: "bye".to_owned() });
}

#[tokio::test]
async fn shutdown_says_goodbye_and_joins_everything() {
    let (mut pair, at_a, at_b) = linked().await;
    pair.a.apply(Output::Control { link: at_a, bytes: Bytes::from_static(b"before") });
    let Pair { a, mut b } = pair;
    let peer = async {
        let mut before = false;
        loop {
            match b.next().await {
                Input::Control { .. } => before = true,
                Input::LinkDown { link, reason } => return (before, link, reason),
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), (before, link, reason)) = guard(async { tokio::join!(a.shutdown(), peer) }).await;
    assert!(before, "what was queued before the shutdown is delivered");
    assert_eq!(link, at_b);
    assert!(matches!(reason, LinkEnd::Closed { code: CloseCode::Goodbye, .. }), "{reason:?}");
}

#[tokio::test]
async fn a_queue_that_overflows_ends_its_link_and_no_other() {
    let (mut pair, at_a, _) = linked().await;
    // No task runs between these, so the queue of 4,096 must overflow.
    for _ in 0..5_000 {
        pair.a.apply(Output::Log { link: at_a, bytes: Bytes::from_static(b"x"), express: false });
    }
    let (a, b) = pair.verdicts().await;
    assert!(matches!(down(&a), Some(LinkEnd::Local { code: CloseCode::Overloaded, .. })), "{a:?}");
    assert!(matches!(down(&b), Some(LinkEnd::Closed { code: CloseCode::Overloaded, .. })), "{b:?}");
    pair.a.apply(dial(pair.b.local_addr().unwrap()));
    pair.until(|side, input| side == Side::B && matches!(input, Input::LinkUp { .. })).await;
}

#[tokio::test]
async fn nothing_of_a_link_follows_its_end() {
    let (mut pair, at_a, at_b) = linked().await;
    for _ in 0..100 {
        pair.a.apply(Output::Log { link: at_a, bytes: Bytes::from(vec![0; 10_000]), express: false });
    }
    pair.b.apply(Output::Close { link: at_b, code: CloseCode::Superseded, reason: String::new() });
    pair.verdicts().await;
    // A second link's inputs come after anything the first could still have said.
    pair.a.apply(dial(pair.b.local_addr().unwrap()));
    pair.until(|side, input| {
        assert!(matches!(input, Input::LinkUp { .. }), "{side:?}: {input:?}");
        side == Side::B
    })
    .await;
    // What is for a link that has ended is dropped.
    assert_eq!(pair.a.apply(Output::Beat { link: at_a, bytes: Bytes::new() }), None);
}

#[tokio::test]
async fn a_link_works_without_segmentation_offload_and_with_the_loss_tolerant_controller() {
    let ca = DevCa::new().unwrap();
    let b = bind(&EU.identity(&ca));
    let mut config = EndpointConfig::new(any_port());
    config.segmentation_offload = false;
    config.loss_tolerant = true;
    let mut pair = Pair { a: Endpoint::bind(config, &US.identity(&ca)).unwrap(), b };
    pair.a.apply(dial(pair.b.local_addr().unwrap()));
    let mut at_a = None;
    pair.until(|side, input| {
        if let (Side::A, Input::LinkUp { link, .. }) = (side, input) {
            at_a = Some(*link);
        }
        at_a.is_some()
    })
    .await;
    for _ in 0..8 {
        let bytes = Bytes::from(vec![7; LOG_BYTES_MAX]);
        pair.a.apply(Output::Log { link: at_a.unwrap(), bytes, express: false });
    }
    let mut arrived = 0;
    pair.until(|_, input| {
        if let Input::Log { bytes, .. } = input {
            assert!(bytes.iter().all(|byte| *byte == 7));
            arrived += bytes.len();
        }
        arrived == 8 * LOG_BYTES_MAX
    })
    .await;
}
