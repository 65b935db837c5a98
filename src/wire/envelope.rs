//! The envelope of every message: format version, flags, payload.
//!
//! ```text
//! message = version flags payload                        (plain)
//!         | version flags length:u32 zstd-frame          (compressed; length of the plain payload)
//! flags   = kind << 6 | compressed        (bits 1 to 5 are zero: later formats name a dictionary)
//! ```
//!
//! # Invariants
//! * Sizes are checked before anything is reserved or decompressed: the message against its limit,
//!   the declared length against its limit and the ratio, and zstd's own header against both.
//! * The first byte changes only when the envelope does.

use super::compress::{Packer, Unpacker};
use super::limits::{Limits, Unsendable, within};
use super::pack::{malformed, width};
use super::version::FORMAT;
use crate::error::PeerFault;

const COMPRESSED: u8 = 1;
const KIND_SHIFT: u32 = 6;
/// Bytes in front of a plain payload.
pub(super) const PLAIN_HEAD: usize = 2;
/// Bytes in front of a compressed payload.
const PACKED_HEAD: usize = 6;

/// Which channel a message belongs to; one on the wrong channel is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Frame,
    Control,
    Beat,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Frame => 0,
            Self::Control => 1,
            Self::Beat => 2,
        }
    }

    /// Returns the largest message and the largest payload of this kind.
    fn sizes(self, limits: &Limits) -> (u64, u64) {
        match self {
            Self::Frame => (limits.frame_bytes, limits.plain_bytes),
            Self::Control => (limits.control_bytes, limits.control_bytes),
            Self::Beat => (limits.beat_bytes, limits.beat_bytes),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Frame => "frame size",
            Self::Control => "control message size",
            Self::Beat => "heartbeat size",
        }
    }
}

/// Begins a message; the plain payload is to be appended.
pub(super) fn begin(out: &mut Vec<u8>, kind: Kind) {
    out.clear();
    out.extend([FORMAT, kind.code() << KIND_SHIFT]);
}

/// Ends a message begun with [`begin`]: returns it as it is, or compressed where that pays.
pub(super) fn finish<'a>(
    plain: &'a [u8],
    kind: Kind,
    packer: &'a mut Packer,
    limits: &Limits,
) -> Result<&'a [u8], Unsendable> {
    let (message_max, payload_max) = kind.sizes(limits);
    let payload = plain.get(PLAIN_HEAD..).unwrap_or_default();
    let length = width(payload.len());
    within("payload size", length, payload_max)?;
    let worth = kind != Kind::Beat && packer.pack(payload, PACKED_HEAD, limits.ratio);
    let Some((head, packed)) = packer.packed().split_first_chunk_mut::<PACKED_HEAD>().filter(|_| worth) else {
        within(kind.what(), width(plain.len()), message_max)?;
        return Ok(plain);
    };
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    *head = [FORMAT, kind.code() << KIND_SHIFT | COMPRESSED, a, b, c, d];
    within(kind.what(), width(packed.len().saturating_add(PACKED_HEAD)), message_max)?;
    Ok(packer.packed())
}

/// Opens a message and returns its plain payload.
pub(super) fn open<'a>(
    message: &'a [u8],
    kind: Kind,
    unpacker: &'a mut Unpacker,
    limits: &Limits,
) -> Result<&'a [u8], PeerFault> {
    let (message_max, payload_max) = kind.sizes(limits);
    within(kind.what(), width(message.len()), message_max)?;
    let (&[version, flags], payload) =
        message.split_first_chunk::<PLAIN_HEAD>().ok_or(malformed("it is shorter than its envelope"))?;
    if version != FORMAT {
        let (theirs, ours) = (version.to_string(), FORMAT.to_string());
        return Err(PeerFault::Incompatible { what: "message format", theirs, ours });
    }
    if flags >> KIND_SHIFT != kind.code() {
        return Err(malformed("it belongs to another channel"));
    }
    match flags & ((1 << KIND_SHIFT) - 1) {
        0 => {
            within("payload size", width(payload.len()), payload_max)?;
            Ok(payload)
        }
        COMPRESSED => {
            let (length, packed) =
                payload.split_first_chunk::<4>().ok_or(malformed("it is shorter than its envelope"))?;
            let length = u64::from(u32::from_be_bytes(*length));
            within("payload size", length, payload_max)?;
            within("decompressed size", length, width(packed.len()).saturating_mul(limits.ratio))?;
            unpacker.unpack(packed, length)
        }
        other => {
            let (theirs, ours) = (format!("{other:#04x}"), "0x00 or 0x01".to_owned());
            Err(PeerFault::Incompatible { what: "message flags", theirs, ours })
        }
    }
}
