//! A development CA: certificates for nodes on one machine, as PEM in memory or in a directory.
//!
//! Include it with `#[path = "support/dev_ca.rs"] mod dev_ca;`. The library does not contain it:
//! in production the cluster's CA is somebody else's, and only its PEM files are read.
//!
//! # Invariants
//! * Every [`DevCa::new`] is another CA: certificates of one are refused by nodes of another.
//! * Keys are fresh and live in memory until [`Pem::write`] is called.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Year, month and day.
pub(crate) type Date = (i32, u8, u8);

/// A CA whose key exists only in this process.
#[derive(Debug)]
pub(crate) struct DevCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a node's certificate shall say. Change the fields to make a bad one.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// The DNS name: the same for all nodes.
    pub(crate) dns: String,
    /// The URI that names region and node.
    pub(crate) uri: String,
    /// The first day it is valid.
    pub(crate) from: Date,
    /// The first day it is not valid any more.
    pub(crate) until: Date,
}

/// A certificate, its key and the CA, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pem {
    /// The certificate chain: one certificate.
    pub(crate) certificate: String,
    /// The private key.
    pub(crate) key: String,
    /// The CA's certificate.
    pub(crate) ca: String,
}

impl DevCa {
    /// Makes a CA.
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "Driftless development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, key)? })
    }

    /// Issues a certificate with a fresh key.
    pub(crate) fn issue(&self, leaf: &Leaf) -> Result<Pem, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![leaf.dns.clone()])?;
        params.distinguished_name.push(DnType::CommonName, leaf.uri.clone());
        params.subject_alt_names.push(SanType::URI(leaf.uri.clone().try_into()?));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node dials and accepts with the same certificate.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = rcgen::date_time_ymd(leaf.from.0, leaf.from.1, leaf.from.2);
        params.not_after = rcgen::date_time_ymd(leaf.until.0, leaf.until.1, leaf.until.2);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem(), ca: self.issuer.pem() })
    }
}

impl Leaf {
    /// Describes a good certificate: `uri` is what `driftless::runtime::uri_of` makes of region and node.
    pub(crate) fn new(uri: String) -> Self {
        Self { dns: "driftless".to_owned(), uri, from: (2025, 1, 1), until: (2125, 1, 1) }
    }
}

impl Pem {
    /// Writes the three files where `Identity::from_pem_files` looks for them, and makes the directory.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("node.pem"), &self.certificate)?;
        fs::write(dir.join("node.key"), &self.key)?;
        fs::write(dir.join("ca.pem"), &self.ca)
    }
}
