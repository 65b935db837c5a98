//! zstd, level 1, one independent block per message, with contexts that are reused.
//!
//! Level 1 is the measured optimum for frames of 64 to 256 deltas; contexts that remember earlier
//! messages gained 7 % and would cost a megabyte per peer.
//!
//! # Invariants
//! * Decompression writes into room of the declared length and no further; its window is that room,
//!   so a large window costs nothing, and it is refused all the same.
//! * A message is compressed only when that saves at least one part in twenty.

use std::fmt;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{compress_bound, find_frame_compressed_size, get_frame_content_size};

use super::limits::within;
use super::pack::malformed;
use crate::error::PeerFault;
use crate::probe::sometimes;

/// Smaller payloads are sent as they are: their head costs more than is gained.
const WORTH_BYTES: usize = 512;
const LEVEL: i32 = 1;
const WINDOW_LOG_MAX: u64 = 20;

/// Compresses.
#[derive(Default)]
pub(super) struct Packer {
    zstd: Option<Compressor<'static>>,
    out: Vec<u8>,
    /// Nothing is compressed: right where the network is faster than zstd.
    off: bool,
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// Builds one that compresses nothing.
    pub(super) fn off() -> Self {
        Self { off: true, ..Self::default() }
    }

    /// Compresses `plain`, leaving `head` bytes of room in front; returns whether that was worth it.
    /// What would exceed the ratio a receiver allows is not.
    pub(super) fn pack(&mut self, plain: &[u8], head: usize, ratio: u64) -> bool {
        if self.off || plain.len() < WORTH_BYTES {
            return false;
        }
        self.out.clear();
        self.out.resize(head.saturating_add(compress_bound(plain.len())), 0);
        let Some(room) = self.out.get_mut(head..) else { return false };
        let packed = match &mut self.zstd {
            Some(zstd) => zstd.compress_to_buffer(plain, room),
            None => match Compressor::new(LEVEL) {
                Ok(zstd) => self.zstd.insert(zstd).compress_to_buffer(plain, room),
                Err(refused) => Err(refused),
            },
        };
        let Ok(packed) = packed else { return false };
        let message = packed.saturating_add(head);
        self.out.truncate(message);
        let gains = message <= plain.len() - plain.len() / 20;
        let honest = u64::try_from(plain.len() / packed.max(1)).is_ok_and(|r| r < ratio);
        sometimes!(Compressed, if gains && honest);
        sometimes!(NotWorthCompressing, if !gains);
        gains && honest
    }

    /// Returns what [`Packer::pack`] made, with the room in front.
    pub(super) fn packed(&mut self) -> &mut [u8] {
        &mut self.out
    }
}

/// Decompresses.
#[derive(Default)]
pub(super) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    out: Vec<u8>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Unpacker {
    /// Decompresses one block that claims to hold `length` bytes; the caller has checked `length`.
    pub(super) fn unpack(&mut self, packed: &[u8], length: u64) -> Result<&[u8], PeerFault> {
        check_header(packed, length)?;
        let room = usize::try_from(length).map_err(|_over| malformed("its compressed block does not decompress"))?;
        self.out.clear();
        self.out.resize(room, 0);
        let written = match &mut self.zstd {
            Some(zstd) => zstd.decompress_to_buffer(packed, self.out.as_mut_slice()),
            None => match Decompressor::new() {
                Ok(zstd) => self.zstd.insert(zstd).decompress_to_buffer(packed, self.out.as_mut_slice()),
                Err(refused) => Err(refused),
            },
        };
        match written {
            Ok(written) if written == room => Ok(&self.out),
            Ok(_) | Err(_) => Err(malformed("its compressed block does not decompress")),
        }
    }
}

/// Checks what zstd's own header says: one block, of the declared length, with a small window.
fn check_header(packed: &[u8], length: u64) -> Result<(), PeerFault> {
    let whole = find_frame_compressed_size(packed).is_ok_and(|size| size == packed.len());
    if !whole {
        return Err(malformed("its compressed block is cut or followed by more"));
    }
    if get_frame_content_size(packed).ok().flatten() != Some(length) {
        return Err(malformed("its compressed block has another length than declared"));
    }
    // RFC 8878, 3.1.1.1: magic number, frame header descriptor, window descriptor unless the block
    // is a single segment, whose window is its content.
    if let Some(&[_, _, _, _, descriptor, window]) = packed.first_chunk::<6>()
        && descriptor & 0x20 == 0
    {
        within("compression window", 10 + u64::from(window >> 3), WINDOW_LOG_MAX)?;
    }
    Ok(())
}
