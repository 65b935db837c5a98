//! A later version of the wire format, as its hello would look: a larger version number that still speaks ours, and
//! fields nobody here knows.
//!
//! The change is made on the bytes that leave, so what reads them is the real decoder.

use bytes::Bytes;

use crate::wire::version::{MIN_VERSION, VERSION};
use crate::wire::{Control, Decoder, Encoder, Hello, Limits};

/// Bytes before the payload of a message that is not compressed.
const ENVELOPE: usize = 2;
/// The kind of a hello, and a map of fifteen fields.
const HEAD: [u8; 2] = [0x00, 0x8f];
/// The kind of a hello, and a map of seventeen.
const LARGER_HEAD: [u8; 4] = [0x00, 0xde, 0x00, 0x11];
/// `"checksums": [true, {"a": nil}]` and `"zone": "x"`.
const UNKNOWN: &[u8] = b"\xa9checksums\x92\xc3\x81\xa1a\xc0\xa4zone\xa1x";

/// Returns a hello as a later version would say it; `None` when it is no hello of ours.
pub(super) fn hello(bytes: &Bytes) -> Option<Bytes> {
    let Ok(Control::Hello(hello)) = Decoder::default().decode_control(bytes, &Limits::default()) else { return None };
    let later = Hello { version: VERSION + 6, min_version: MIN_VERSION, ..hello };
    let plain = Encoder::default().without_compression().encode_control(&Control::Hello(later)).ok()?;
    let (envelope, payload) = plain.split_at_checked(ENVELOPE)?;
    let fields = payload.strip_prefix(&HEAD)?;
    Some([envelope, &LARGER_HEAD, fields, UNKNOWN].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::crdt::MemberSet;
    use crate::id::{NodeId, ReplicaId};

    #[test]
    fn what_a_later_version_says_is_read_but_for_what_is_new() {
        let ours = Hello {
            version: VERSION,
            min_version: MIN_VERSION,
            cluster: "driftless".to_owned(),
            node: NodeId(uuid::Uuid::from_u128(7)),
            region: "r1".into(),
            replica: ReplicaId(9),
            wall_ms: 5,
            hlc: Hlc(6),
            joined: true,
            partitions: 2,
            hash_check: 8,
            custom: vec![("notes".to_owned(), "notes-1".to_owned())],
            members: MemberSet::default(),
            ctxs: Vec::new(),
            compression: vec!["zstd".to_owned()],
            edge: false,
        };
        let bytes = Encoder::default().encode_control(&Control::Hello(ours.clone())).unwrap();
        let later = hello(&bytes).unwrap();
        assert!(later.len() > bytes.len() && hello(&Bytes::from_static(b"\x01\x40\x07")).is_none());
        let read = Decoder::default().decode_control(&later, &Limits::default()).unwrap();
        assert_eq!(read, Control::Hello(Hello { version: VERSION + 6, ..ours }));
    }
}
