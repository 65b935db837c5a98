//! Real QUIC on loopback: what crosses a link, how it ends, and who is not let in.
//!
//! Two endpoints, or one and a raw quinn client or server that misbehaves. Every wait is for an
//! event; the only timeout is a guard against waiting for ever.
#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "an input that is not expected fails the test, whichever it is")]

#[path = "../examples/support/dev_ca.rs"]
mod dev_ca;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dev_ca::{DevCa, Leaf, Pem};
use driftless::error::StartError;
use driftless::id::{NodeId, RegionId};
use driftless::node::{CloseCode, DialError, Input, LinkEnd, LinkId, Output, Party, PeerSlot, TlsFault};
use driftless::runtime::{ALPN, CONTROL_BYTES_MAX, Endpoint, EndpointConfig, Identity, LOG_BYTES_MAX, uri_of};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use uuid::Uuid;

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

/// A guard against a test that would wait for ever; no test is about its length.
async fn guard<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap()
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
        let Input::LinkUp { link, peer, dialled } = input else { panic!("{side:?}: {input:?}") };
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

// -- who is not let in ------------------------------------------------------------------------------

#[tokio::test]
async fn a_server_of_another_ca_is_refused_by_the_dialler_and_both_know_why() {
    let (ours, other) = (DevCa::new().unwrap(), DevCa::new().unwrap());
    let mut pair = Pair::dialling(&US.identity(&ours), &EU.identity(&other));
    let (a, b) = pair.verdicts().await;
    let tls = |by| DialError::Tls { by, fault: TlsFault::OtherCa };
    assert_eq!(a, Input::DialFailed { slot: PeerSlot(0), reason: tls(Party::Us) });
    assert!(matches!(&b, Input::AcceptFailed { reason, .. } if *reason == tls(Party::Peer)), "{b:?}");
}

#[tokio::test]
async fn a_dialler_of_another_ca_is_refused_by_the_server_and_both_know_why() {
    let (ours, other) = (DevCa::new().unwrap(), DevCa::new().unwrap());
    // It trusts both CAs, so only the server has a reason to refuse.
    let mut pem = other.issue(&US.leaf()).unwrap();
    pem.ca += &ours.issue(&US.leaf()).unwrap().ca;
    let mut pair = Pair::dialling(&load(&pem).unwrap(), &EU.identity(&ours));
    let (a, b) = pair.verdicts().await;
    assert_eq!(down(&a), Some(&LinkEnd::Tls { by: Party::Peer, fault: TlsFault::OtherCa }), "{a:?}");
    let tls = DialError::Tls { by: Party::Us, fault: TlsFault::OtherCa };
    assert!(matches!(&b, Input::AcceptFailed { reason, .. } if *reason == tls), "{b:?}");
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

fn key(pem: &Pem) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap()
}

/// A client that does what no endpoint of ours does: it shows the certificate it is given, or none.
fn raw_client(pem: &Pem, shows: bool, alpn: &[u8]) -> quinn::Endpoint {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&pem.ca));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = if shows {
        tls.with_client_auth_cert(certificates(&pem.certificate), key(pem)).unwrap()
    } else {
        tls.with_no_client_auth()
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let mut client = quinn::Endpoint::client(any_port()).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    client
}

/// Lets a raw client dial an endpoint and returns why the server did not let it in, and what the
/// client was told: a QUIC transport code or an application code.
async fn refused(server: &Identity, client: quinn::Endpoint) -> (DialError, u64) {
    let mut server = bind(server);
    let address = server.local_addr().unwrap();
    let dial = async {
        let error = match client.connect(address, "driftless").unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        match error {
            quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("{other:?}"),
        }
    };
    let (input, code) = guard(async { tokio::join!(server.next(), dial) }).await;
    let Input::AcceptFailed { reason, .. } = input else { panic!("{input:?}") };
    (reason, code)
}

/// The QUIC code of a TLS alert.
fn alert(number: u64) -> u64 {
    0x100 | number
}

#[tokio::test]
async fn a_dialler_without_a_certificate_is_refused_and_told() {
    let ca = DevCa::new().unwrap();
    let client = raw_client(&ca.issue(&US.leaf()).unwrap(), false, ALPN);
    let (reason, code) = refused(&EU.identity(&ca), client).await;
    assert_eq!(reason, DialError::Tls { by: Party::Us, fault: TlsFault::NoCertificate });
    assert_eq!(code, alert(116));
}

#[tokio::test]
async fn a_dialler_with_an_expired_certificate_is_refused_and_told() {
    let ca = DevCa::new().unwrap();
    let expired = Leaf { from: (2020, 1, 1), until: (2021, 1, 1), ..US.leaf() };
    let client = raw_client(&ca.issue(&expired).unwrap(), true, ALPN);
    let (reason, code) = refused(&EU.identity(&ca), client).await;
    assert_eq!(reason, DialError::Tls { by: Party::Us, fault: TlsFault::Expired });
    assert_eq!(code, alert(45));
}

#[tokio::test]
async fn a_dialler_whose_certificate_names_nobody_is_refused_and_told() {
    let ca = DevCa::new().unwrap();
    let nobody = Leaf { uri: "https://example.org/".to_owned(), ..US.leaf() };
    let client = raw_client(&ca.issue(&nobody).unwrap(), true, ALPN);
    let (reason, code) = refused(&EU.identity(&ca), client).await;
    assert!(matches!(reason, DialError::Tls { by: Party::Us, fault: TlsFault::Unnamed { .. } }), "{reason:?}");
    assert_eq!(code, CloseCode::Identity.number());
}

#[tokio::test]
async fn a_dialler_of_another_protocol_version_is_refused_and_told() {
    let ca = DevCa::new().unwrap();
    let client = raw_client(&ca.issue(&US.leaf()).unwrap(), true, b"driftless/2");
    let (reason, code) = refused(&EU.identity(&ca), client).await;
    assert_eq!(reason, DialError::Tls { by: Party::Us, fault: TlsFault::OtherProtocol });
    assert_eq!(code, alert(120));
}

/// Breaks the protocol on a link that a raw client has, and returns how the endpoint ended it.
async fn ended_by<F: Future<Output = ()>>(misbehave: impl FnOnce(quinn::Connection) -> F) -> LinkEnd {
    let ca = DevCa::new().unwrap();
    let mut server = bind(&EU.identity(&ca));
    let address = server.local_addr().unwrap();
    let client = raw_client(&ca.issue(&US.leaf()).unwrap(), true, ALPN);
    let client = async {
        let connection = client.connect(address, "driftless").unwrap().await.unwrap();
        misbehave(connection.clone()).await;
        connection.closed().await
    };
    let server = async {
        loop {
            if let Input::LinkDown { reason, .. } = server.next().await {
                return reason;
            }
        }
    };
    guard(async { tokio::join!(server, client) }).await.0
}

#[tokio::test]
async fn a_peer_that_breaks_the_streams_protocol_is_closed_as_malformed() {
    let torn = ended_by(|connection| async move {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
        stream.finish().unwrap();
    });
    let reset = ended_by(|connection| async move {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
        stream.reset(7_u32.into()).unwrap();
    });
    let second_control = ended_by(|connection| async move {
        for _ in 0..2 {
            let (mut stream, _) = connection.open_bi().await.unwrap();
            stream.write_all(&[0, 0, 0, 1, 1]).await.unwrap();
        }
    });
    let malformed = |end: &LinkEnd| matches!(end, LinkEnd::Local { code: CloseCode::Malformed, .. });
    for end in [torn.await, reset.await, second_control.await] {
        assert!(malformed(&end), "{end:?}");
    }
}

#[tokio::test]
async fn a_server_with_an_expired_certificate_is_refused_by_the_dialler() {
    let ca = DevCa::new().unwrap();
    let expired = ca.issue(&Leaf { from: (2020, 1, 1), until: (2021, 1, 1), ..EU.leaf() }).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates(&expired.certificate), key(&expired))
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let server = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), any_port()).unwrap();
    let mut dialler = bind(&US.identity(&ca));
    dialler.apply(dial(server.local_addr().unwrap()));
    let accept = async { server.accept().await.unwrap().await.unwrap_err() };
    let (input, told) = guard(async { tokio::join!(dialler.next(), accept) }).await;
    let reason = DialError::Tls { by: Party::Us, fault: TlsFault::Expired };
    assert_eq!(input, Input::DialFailed { slot: PeerSlot(0), reason });
    let quinn::ConnectionError::ConnectionClosed(close) = told else { panic!("{told:?}") };
    assert_eq!(u64::from(close.error_code), alert(45));
}

// -- dials that come to nothing ---------------------------------------------------------------------

async fn failed_dial(peer: String) -> DialError {
    let mut config = EndpointConfig::new(any_port());
    config.dial_timeout = Duration::from_millis(100);
    let mut endpoint = Endpoint::bind(config, &US.identity(&DevCa::new().unwrap())).unwrap();
    endpoint.apply(dial(peer));
    match guard(endpoint.next()).await {
        Input::DialFailed { slot: PeerSlot(0), reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_never_answers_times_out() {
    let silent = UdpSocket::bind(any_port()).unwrap();
    assert_eq!(failed_dial(silent.local_addr().unwrap().to_string()).await, DialError::TimedOut);
}

#[tokio::test]
async fn an_address_that_is_none_is_unresolvable() {
    let reason = failed_dial("no port here".to_owned()).await;
    assert!(matches!(&reason, DialError::Unresolvable { host, .. } if host == "no port here"), "{reason:?}");
    let reason = failed_dial("[2001:db8::1]:443".to_owned()).await;
    assert!(matches!(reason, DialError::Unresolvable { .. }), "an IPv4 socket cannot reach IPv6: {reason:?}");
}

// -- what keeps an endpoint from starting -----------------------------------------------------------

#[tokio::test]
async fn a_port_in_use_is_named() {
    let holder = UdpSocket::bind(any_port()).unwrap();
    let address = holder.local_addr().unwrap();
    let identity = US.identity(&DevCa::new().unwrap());
    let error = Endpoint::bind(EndpointConfig::new(address), &identity).unwrap_err();
    assert!(matches!(&error, StartError::Bind { addr, .. } if *addr == address), "{error}");
}

#[test]
fn an_unreadable_key_file_is_named() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("unreadable-key-{}", std::process::id()));
    DevCa::new().unwrap().issue(&US.leaf()).unwrap().write(&dir).unwrap();
    let identity = Identity::from_pem_files(&dir).unwrap();
    assert_eq!((identity.name().node, &identity.name().region), (US.node_id(), &US.region_id()));
    assert_eq!(identity.name().expires_ms, 4_891_363_200_000, "the first of January 2125");
    // A directory in its place is unreadable for every user, root included.
    std::fs::remove_file(dir.join("node.key")).unwrap();
    std::fs::create_dir(dir.join("node.key")).unwrap();
    let error = Identity::from_pem_files(&dir).unwrap_err();
    assert!(matches!(&error, StartError::Unreadable { path, .. } if path.ends_with("node.key")), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// Loads a bad identity and returns which part is wrong, and why.
fn wrong(pem: &Pem) -> (&'static str, String) {
    match load(pem).unwrap_err() {
        StartError::Certificate { what, why } => (what, why),
        other => panic!("{other}"),
    }
}

#[test]
fn a_wrong_certificate_key_or_ca_is_named_with_its_reason() {
    let ca = DevCa::new().unwrap();
    let good = ca.issue(&US.leaf()).unwrap();
    let another = ca.issue(&US.leaf()).unwrap();
    let no_pem = "no PEM".to_owned();
    assert_eq!(wrong(&Pem { key: another.key, ..good.clone() }).0, "private key");
    assert_eq!(wrong(&Pem { key: good.certificate.clone(), ..good.clone() }).0, "private key");
    assert_eq!(wrong(&Pem { ca: no_pem.clone(), ..good.clone() }).0, "cluster CA");
    assert_eq!(wrong(&Pem { certificate: no_pem, ..good.clone() }).0, "own certificate");

    let reason = |pem: &Pem| {
        let (what, why) = wrong(pem);
        assert_eq!(what, "own certificate");
        why
    };
    let other = DevCa::new().unwrap().issue(&US.leaf()).unwrap();
    assert_eq!(reason(&Pem { ca: other.ca, ..good }), "it was issued by no CA of the cluster");
    let expired = Leaf { from: (2020, 1, 1), until: (2021, 1, 1), ..US.leaf() };
    assert_eq!(reason(&ca.issue(&expired).unwrap()), "it has expired");
    let nobody = Leaf { uri: "https://example.org/".to_owned(), ..US.leaf() };
    assert!(reason(&ca.issue(&nobody).unwrap()).contains("driftless://"));
    let elsewhere = Leaf { dns: "example.org".to_owned(), ..US.leaf() };
    assert!(reason(&ca.issue(&elsewhere).unwrap()).contains("driftless"));
}

#[test]
fn a_certificate_of_another_region_or_node_than_configured_is_named_with_both() {
    let identity = US.identity(&DevCa::new().unwrap());
    identity.must_name(&US.region_id(), None).unwrap();
    identity.must_name(&US.region_id(), Some(US.node_id())).unwrap();
    for (region, node) in [(EU.region_id(), None), (US.region_id(), Some(EU.node_id()))] {
        let error = identity.must_name(&region, node).unwrap_err();
        let StartError::OtherIdentity { certificate, config } = error else { panic!("{error}") };
        assert_eq!(certificate, uri_of(&US.region_id(), US.node_id()));
        assert_eq!(config, uri_of(&region, node.unwrap_or_else(|| US.node_id())));
    }
}
