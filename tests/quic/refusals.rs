//! Who is not let in, on either side, and that both know why; and who is in and breaks the protocol.

use std::future::Future;
use std::sync::Arc;

use driftless::node::{CloseCode, DialError, Input, LinkEnd, Party, PeerSlot, TlsFault};
use driftless::runtime::{ALPN, Identity};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::world::dev_ca::Pem;
use crate::world::{DevCa, Leaf, guard};
use crate::{EU, Pair, US, any_port, bind, dial, down, load};

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
