//! Cryptography and identifiers whose chance comes from the seed.
//!
//! quinn and rustls take their randomness from the system. Here each source is replaced: the TLS randoms, the key
//! exchange, connection ids, reset tokens and retry tokens. Signatures are Ed25519, which draws nothing; the rest
//! (certificates, key schedule, packet protection) is the real thing, so that a run sends the same bytes every time.
//!
//! # Invariants
//! * Whoever calls into quinn lends it a generator with [`lend`]; what is drawn outside of it is a constant.
//! * Nothing here is secret, and nothing in a simulation needs to be.

use std::cell::RefCell;
use std::hash::Hasher;
use std::sync::Arc;

use quinn_proto::crypto::{AeadKey, CryptoError, HandshakeTokenKey, HmacKey};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use siphasher::sip::SipHasher13;

thread_local! {
    /// rustls wants its randomness from something that lives for ever, so it cannot belong to a run.
    static LENT: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(0)) };
}

/// Runs something that draws its randomness from a generator without being given it.
pub(super) fn lend<R>(rng: &mut fastrand::Rng, run: impl FnOnce() -> R) -> R {
    LENT.with_borrow_mut(|lent| std::mem::swap(lent, rng));
    let result = run();
    LENT.with_borrow_mut(|lent| std::mem::swap(lent, rng));
    result
}

fn fill(bytes: &mut [u8]) {
    LENT.with_borrow_mut(|rng| rng.fill(bytes));
}

/// Returns ring's algorithms without its randomness.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { secure_random: &Lent, kx_groups: vec![&OpenExchange], ..rustls::crypto::ring::default_provider() }
}

/// The lent generator, as rustls wants it.
#[derive(Debug)]
struct Lent;

impl SecureRandom for Lent {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(bytes);
        Ok(())
    }
}

/// Bytes of a key share, as X25519 has them.
const SHARE: usize = 32;

/// A key exchange of the size of X25519 whose secret follows from what both sides send in the open: ring's own draws
/// its keys from the system.
#[derive(Debug)]
struct OpenExchange;

impl SupportedKxGroup for OpenExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut share = [0; SHARE];
        fill(&mut share);
        Ok(Box::new(OpenShare(share)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[derive(Debug)]
struct OpenShare([u8; SHARE]);

impl ActiveKeyExchange for OpenShare {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let Ok(peer) = <[u8; SHARE]>::try_from(peer) else {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        };
        let mut secret = self.0;
        secret.iter_mut().zip(peer).for_each(|(ours, theirs)| *ours ^= theirs);
        Ok(SharedSecret::from(secret.as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// A key for everything a process signs for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnKey(pub(super) u64);

/// Bytes of a signature, as HMAC-SHA256 has them.
const SIGNATURE: usize = 32;
/// Bytes that make a connection id unique, and bytes that show whose it is: as quinn's own.
const NONCE: usize = 3;
const MARK: usize = 5;

impl OwnKey {
    fn signature(self, parts: [&[u8]; 3]) -> [u8; SIGNATURE] {
        let mut out = [0; SIGNATURE];
        for (at, word) in (0_u64..).zip(out.chunks_exact_mut(8)) {
            let mut hasher = SipHasher13::new_with_keys(self.0, at);
            for part in parts {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
            word.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        out
    }

    fn mark(self, nonce: &[u8]) -> impl Iterator<Item = u8> {
        self.signature([b"connection id", nonce, b""]).into_iter().take(MARK)
    }
}

/// Signs stateless reset tokens.
impl HmacKey for OwnKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let signature = self.signature([b"reset", data, b""]);
        out.iter_mut().zip(signature).for_each(|(out, byte)| *out = byte);
    }

    fn signature_len(&self) -> usize {
        SIGNATURE
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if self.signature([b"reset", data, b""]) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

impl HandshakeTokenKey for OwnKey {
    fn aead_from_hkdf(&self, random: &[u8]) -> Box<dyn AeadKey> {
        Box::new(TokenKey { own: *self, random: random.to_vec() })
    }
}

/// Signs a retry token and hides nothing.
#[derive(Debug)]
struct TokenKey {
    own: OwnKey,
    random: Vec<u8>,
}

impl AeadKey for TokenKey {
    fn seal(&self, data: &mut Vec<u8>, additional: &[u8]) -> Result<(), CryptoError> {
        let signature = self.own.signature([&self.random, data, additional]);
        data.extend_from_slice(&signature);
        Ok(())
    }

    fn open<'a>(&self, data: &'a mut [u8], additional: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let Some((token, signature)) = data.split_last_chunk_mut::<SIGNATURE>() else {
            return Err(CryptoError);
        };
        if self.own.signature([&self.random, token, additional]) == *signature { Ok(token) } else { Err(CryptoError) }
    }
}

/// Makes connection ids a process can tell for its own, as quinn's default does.
#[derive(Debug)]
pub(super) struct OwnIds(pub(super) OwnKey);

impl ConnectionIdGenerator for OwnIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE];
        fill(&mut nonce);
        let id: Vec<u8> = nonce.into_iter().chain(self.0.mark(&nonce)).collect();
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let Some((nonce, mark)) = id.split_first_chunk::<NONCE>() else {
            return Err(InvalidCid);
        };
        if self.0.mark(nonce).eq(mark.iter().copied()) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        NONCE + MARK
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Returns what a dialler addresses a stranger's first packet to.
pub(super) fn first_ids() -> Arc<dyn Fn() -> ConnectionId + Send + Sync> {
    Arc::new(|| {
        let mut id = [0; 20];
        fill(&mut id);
        ConnectionId::new(&id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_what_is_drawn_and_goes_on_where_it_stopped() {
        let draw = |rng: &mut fastrand::Rng| {
            lend(rng, || {
                let mut bytes = [0; 16];
                fill(&mut bytes);
                bytes
            })
        };
        let (mut a, mut b) = (fastrand::Rng::with_seed(3), fastrand::Rng::with_seed(3));
        let first = draw(&mut a);
        assert_eq!(first, draw(&mut b));
        let second = draw(&mut a);
        assert_ne!(first, second);
        assert_eq!(second, draw(&mut b));
    }

    #[test]
    fn both_sides_of_an_exchange_get_one_secret() {
        let (a, b) = (OpenExchange.start().unwrap(), OpenExchange.start().unwrap());
        let (to_a, to_b) = (b.pub_key().to_vec(), a.pub_key().to_vec());
        let (a, b) = (a.complete(&to_a).unwrap(), b.complete(&to_b).unwrap());
        assert_eq!(a.secret_bytes(), b.secret_bytes());
        assert!(OpenExchange.start().unwrap().complete(b"short").is_err());
    }

    #[test]
    fn a_process_knows_its_own_ids_resets_and_tokens() {
        let (ours, others) = (OwnKey(1), OwnKey(2));
        let id = OwnIds(ours).generate_cid();
        assert!(OwnIds(ours).validate(&id).is_ok());
        assert!(OwnIds(others).validate(&id).is_err());
        let mut token = [0; SIGNATURE];
        ours.sign(&id, &mut token);
        assert!(ours.verify(&id, &token).is_ok());
        assert!(others.verify(&id, &token).is_err());
        let mut sealed = b"address".to_vec();
        ours.aead_from_hkdf(b"r").seal(&mut sealed, b"more").unwrap();
        assert_eq!(ours.aead_from_hkdf(b"r").open(&mut sealed.clone(), b"more").unwrap(), b"address");
        assert!(ours.aead_from_hkdf(b"s").open(&mut sealed.clone(), b"more").is_err());
        assert!(others.aead_from_hkdf(b"r").open(&mut sealed, b"more").is_err());
    }
}
