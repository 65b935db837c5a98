//! Writes the certificates the simulated hosts prove themselves with over QUIC.
//!
//! `cargo run --example sim_certificates` replaces `src/sim/carrier/quic/certificates`: a CA, one certificate with its
//! key for each of the first sixteen hosts, and one of another CA. The files are committed, so that every run of a
//! seed sends the same bytes; this needs to run again only when a name in them changes or 2120 comes near.
//!
//! # Invariants
//! * All keys are Ed25519: its signatures are deterministic and of one size.
//! * The keys are public by being committed. Nothing but a simulation may trust them.

use std::error::Error;
use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};

/// Hosts with a certificate.
const HOSTS: u128 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim/carrier/quic/certificates");
    fs::create_dir_all(&dir)?;
    let ca = authority()?;
    fs::write(dir.join("ca.pem"), ca.pem())?;
    for host in 0..HOSTS {
        fs::write(dir.join(format!("{host:02}.pem")), leaf(&ca, host)?)?;
    }
    let other = authority()?;
    fs::write(dir.join("stranger_ca.pem"), other.pem())?;
    fs::write(dir.join("stranger.pem"), leaf(&other, 0)?)?;
    Ok(())
}

/// Makes a CA. All have one name, so that only their keys tell them apart.
fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "Driftless simulation CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ED25519)?)
}

/// Issues the certificate of a host; returns it and its key.
fn leaf(ca: &CertifiedIssuer<'static, KeyPair>, host: u128) -> Result<String, rcgen::Error> {
    let node = uuid::Uuid::from_u128(host + 1);
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::new(vec!["driftless".to_owned()])?;
    params.subject_alt_names.push(SanType::URI(format!("driftless://r{host}/{node}").try_into()?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    Ok(params.signed_by(&key, ca)?.pem() + &key.serialize_pem())
}
