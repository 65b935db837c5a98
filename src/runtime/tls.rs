//! Who this node is and who a peer is: certificates, keys and the two rustls configurations.
//!
//! A node's certificate is issued by a CA of the cluster and carries two subject alternative
//! names: the URI `driftless://<region>/<node-uuid>`, which says who the node is, and the DNS name
//! [`SERVER_NAME`], the same for all nodes, so that the standard verifier has a name to verify.
//! A region in a certificate is 1 to 64 characters of `a-z A-Z 0-9 . _ -`.
//!
//! # Invariants
//! * TLS 1.3 only, both sides present a certificate, and `ring` is passed explicitly: a process
//!   that also links another provider does not change what this one does.
//! * No 0-RTT (it can be replayed) and no resumption: every connection verifies both certificates
//!   again, so an expired one lives at most as long as its last link.
//! * An [`Identity`] was checked exactly as its peers will check it, at the time it was loaded.
//!
//! * Randomness and the time enter by [`Means`], so that the simulator can bring its own of both.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, RootCertStore};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::config::{IdentityConfig, Pem};
use crate::error::StartError;
use crate::id::{NodeId, RegionId};
use crate::node::{PeerIdentity, TlsFault};
use crate::runtime::clock::wall_ms;

/// The DNS name every node's certificate carries. It identifies nobody.
pub const SERVER_NAME: &str = "driftless";

/// The protocol and its major version, as TLS negotiates it.
pub const ALPN: &[u8] = b"driftless/1";

const URI_SCHEME: &str = "driftless://";
const REGION_BYTES_MAX: usize = 64;

const OWN_CERTIFICATE: &str = "own certificate";
const OWN_KEY: &str = "private key";
const CLUSTER_CA: &str = "cluster CA";

/// What cryptography works with.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    /// The algorithms and where they take randomness from.
    pub(crate) provider: Arc<CryptoProvider>,
    /// The time at which certificates are judged.
    pub(crate) time: Arc<dyn TimeProvider>,
}

impl Means {
    /// What everybody but the simulator uses.
    fn of_the_system() -> Self {
        Self { provider: Arc::new(rustls::crypto::ring::default_provider()), time: Arc::new(SystemTime) }
    }

    fn now(&self) -> Result<UnixTime, StartError> {
        self.time.current_time().ok_or_else(|| bad(OWN_CERTIFICATE, "nobody knows what time it is"))
    }
}

/// The system's wall clock.
#[derive(Debug)]
struct SystemTime;

impl TimeProvider for SystemTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(wall_ms())))
    }
}

/// What a node proves itself with and recognises its peers by.
pub struct Identity {
    means: Means,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    name: PeerIdentity,
}

impl Identity {
    /// Loads the three parts from wherever the configuration says they are.
    ///
    /// # Errors
    /// [`StartError::Unreadable`] names the file that cannot be read; otherwise as
    /// [`Identity::from_pem`].
    pub fn load(config: &IdentityConfig) -> Result<Self, StartError> {
        Self::from_pem(&read(&config.certificate)?, &read(&config.key)?, &read(&config.authorities)?)
    }

    /// Loads `node.pem`, `node.key` and `ca.pem` from a directory.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn from_pem_files(dir: &Path) -> Result<Self, StartError> {
        Self::load(&IdentityConfig::in_dir(dir))
    }

    /// Takes the node's certificate chain, its key and the cluster's CAs as PEM.
    ///
    /// # Errors
    /// [`StartError::Certificate`] says which of the three is wrong: not PEM, a key of another
    /// certificate, expired, of another CA, for another purpose, or naming nobody.
    pub fn from_pem(certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, StartError> {
        Self::from_pem_with(Means::of_the_system(), certificate, key, ca)
    }

    /// As [`Identity::from_pem`], by other means.
    pub(crate) fn from_pem_with(means: Means, certificate: &[u8], key: &[u8], ca: &[u8]) -> Result<Self, StartError> {
        let chain = certificates(OWN_CERTIFICATE, certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|why| bad(OWN_KEY, why))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(CLUSTER_CA, ca)? {
            roots.add(root).map_err(|why| bad(CLUSTER_CA, why))?;
        }
        let leaf = chain.first().ok_or_else(|| bad(OWN_CERTIFICATE, "there is none in the PEM"))?;
        let name = names(leaf).map_err(|why| bad(OWN_CERTIFICATE, why))?;
        let identity = Self { means, chain, key, roots: Arc::new(roots), name };
        identity.verify_as_a_peer_would()?;
        // Building both configurations once finds a key that does not belong to the certificate.
        identity.server()?;
        identity.client()?;
        Ok(identity)
    }

    /// Returns what the own certificate names, and until when.
    #[must_use]
    pub fn name(&self) -> &PeerIdentity {
        &self.name
    }

    /// Checks that the certificate names what the configuration says.
    ///
    /// # Errors
    /// [`StartError::OtherIdentity`] tells both.
    pub fn must_name(&self, region: &RegionId, node: Option<NodeId>) -> Result<(), StartError> {
        let node = node.unwrap_or(self.name.node);
        if *region == self.name.region && node == self.name.node {
            return Ok(());
        }
        Err(StartError::OtherIdentity {
            certificate: uri_of(&self.name.region, self.name.node),
            config: uri_of(region, node),
        })
    }

    /// Builds what this node accepts connections with.
    pub(crate) fn server(&self) -> Result<QuicServerConfig, StartError> {
        let mut tls = rustls::ServerConfig::builder_with_details(self.provider(), Arc::clone(&self.means.time))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|why| bad(OWN_CERTIFICATE, why))?
            .with_client_cert_verifier(self.client_verifier()?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|why| bad(OWN_KEY, why))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.max_early_data_size = 0;
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        QuicServerConfig::try_from(tls).map_err(|why| bad(OWN_CERTIFICATE, why))
    }

    /// Builds what this node dials with.
    pub(crate) fn client(&self) -> Result<QuicClientConfig, StartError> {
        let mut tls = rustls::ClientConfig::builder_with_details(self.provider(), Arc::clone(&self.means.time))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|why| bad(OWN_CERTIFICATE, why))?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|why| bad(OWN_KEY, why))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.enable_early_data = false;
        tls.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(tls).map_err(|why| bad(OWN_CERTIFICATE, why))
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.means.provider)
    }

    fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), self.provider())
            .build()
            .map_err(|why| bad(CLUSTER_CA, why))
    }

    /// Runs both verifiers on the own certificate, so that what every peer would refuse is refused
    /// here, once, with the reason.
    fn verify_as_a_peer_would(&self) -> Result<(), StartError> {
        let Some((leaf, between)) = self.chain.split_first() else {
            return Err(bad(OWN_CERTIFICATE, "there is none in the PEM"));
        };
        let now = self.means.now()?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|why| bad(OWN_CERTIFICATE, why))?;
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), self.provider())
            .build()
            .map_err(|why| bad(CLUSTER_CA, why))?
            .verify_server_cert(leaf, between, &name, &[], now)
            .map_err(|why| bad(OWN_CERTIFICATE, explain(&why)))?;
        self.client_verifier()?
            .verify_client_cert(leaf, between, now)
            .map_err(|why| bad(OWN_CERTIFICATE, explain(&why)))?;
        Ok(())
    }
}

impl fmt::Debug for Identity {
    /// Shows whom the certificate names and nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Returns the URI a node's certificate names it with.
#[must_use]
pub fn uri_of(region: &RegionId, node: NodeId) -> String {
    format!("{URI_SCHEME}{region}/{node}")
}

/// Reads who the peer is from the certificate that TLS has verified.
///
/// # Errors
/// [`TlsFault::NoCertificate`] before the handshake is over, [`TlsFault::Unnamed`] when the
/// certificate names nobody. Nothing is changed: closing the connection is the caller's business.
pub fn peer_identity(connection: &quinn::Connection) -> Result<PeerIdentity, TlsFault> {
    identity_in(connection.peer_identity())
}

/// As [`peer_identity`], of what the TLS session of a connection hands out.
pub(crate) fn identity_in(proven: Option<Box<dyn Any>>) -> Result<PeerIdentity, TlsFault> {
    let chain = proven.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first()).ok_or(TlsFault::NoCertificate)?;
    names(leaf).map_err(|why| TlsFault::Unnamed { why })
}

/// Names what a TLS alert means here. Both sides see the same alert, so both get the same answer.
pub(crate) fn fault_of(alert: u8, text: String) -> TlsFault {
    match alert {
        // unknown_ca; decrypt_error is what a CA of the same name with another key leads to.
        48 | 51 => TlsFault::OtherCa,
        45 => TlsFault::Expired,
        116 => TlsFault::NoCertificate,
        120 => TlsFault::OtherProtocol,
        _ => TlsFault::Other { alert, text },
    }
}

fn read(pem: &Pem) -> Result<Cow<'_, [u8]>, StartError> {
    match pem {
        Pem::Text(text) => Ok(Cow::Borrowed(text)),
        Pem::File(path) => {
            fs::read(path).map(Cow::Owned).map_err(|source| StartError::Unreadable { path: path.clone(), source })
        }
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|why| bad(what, why))?;
    if found.is_empty() {
        return Err(bad(what, "there is no certificate in the PEM"));
    }
    Ok(found)
}

fn bad(what: &'static str, why: impl fmt::Display) -> StartError {
    StartError::Certificate { what, why: why.to_string() }
}

/// Says in this project's words what the verifier found, where it has words of its own.
fn explain(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(problem) = error else {
        return error.to_string();
    };
    if matches!(problem, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        "it was issued by no CA of the cluster".to_owned()
    } else if matches!(problem, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "it has expired".to_owned()
    } else {
        problem.to_string()
    }
}

/// Reads node, region and expiry from a certificate.
fn names(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, &'static str> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate.as_ref()) else {
        return Err("it is no X.509 certificate");
    };
    let Ok(Some(alternatives)) = parsed.subject_alternative_name() else {
        return Err("it has no subject alternative names");
    };
    let uri_of = |name| if let &GeneralName::URI(uri) = name { Some(uri) } else { None };
    let named = alternatives.value.general_names.iter().filter_map(uri_of);
    let mut uris = named.filter_map(|uri: &str| uri.strip_prefix(URI_SCHEME));
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err("it must have exactly one URI driftless://<region>/<node-uuid>");
    };
    let (region, node) = split_name(uri)?;
    // A date before 1970 is long over, so it reads as expired.
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(PeerIdentity { node, region, expires_ms: seconds.saturating_mul(1_000) })
}

fn split_name(name: &str) -> Result<(RegionId, NodeId), &'static str> {
    let Some((region, node)) = name.split_once('/') else {
        return Err("its URI lacks a node");
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if region.is_empty() || region.len() > REGION_BYTES_MAX || !region.chars().all(legal) {
        return Err("its URI names no legal region");
    }
    let Ok(node) = Uuid::try_parse(node) else {
        return Err("its URI names no node as a UUID");
    };
    Ok((RegionId::new(region), NodeId(node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "0192d3b4-7a10-7c3e-9d55-0a1b2c3d4e5f";

    #[test]
    fn a_name_survives_its_uri() {
        let node = NodeId(Uuid::try_parse(NODE).unwrap());
        let uri = uri_of(&RegionId::new("eu-central"), node);
        assert_eq!(uri, format!("driftless://eu-central/{NODE}"));
        assert_eq!(split_name(uri.strip_prefix(URI_SCHEME).unwrap()), Ok((RegionId::new("eu-central"), node)));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for wrong in
            ["", "eu", "/", "eu/", "eu/x", &format!("/{NODE}"), &format!("e u/{NODE}"), &format!("eu/{NODE}/x")]
        {
            assert!(split_name(wrong).is_err(), "{wrong:?}");
        }
        assert!(split_name(&format!("{}/{NODE}", "e".repeat(65))).is_err());
    }

    #[test]
    fn pem_that_is_none_is_refused_by_name() {
        let error = Identity::from_pem(b"nonsense", b"", b"").unwrap_err();
        assert!(matches!(error, StartError::Certificate { what: OWN_CERTIFICATE, .. }), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Identity::from_pem_files(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(matches!(error, StartError::Unreadable { path, .. } if path.ends_with("node.pem")));
    }
}
