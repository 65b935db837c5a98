//! Whole messages on byte streams: a big-endian `u32` length, then as many bytes.
//!
//! # Invariants
//! * The length is compared with the limit before anything is allocated for it, and the buffer
//!   grows with the bytes that have arrived, not with the length that was announced.
//! * [`Splitter`] is pure: it is the same on any stream and in any test.

use bytes::{Bytes, BytesMut};

/// The largest message on the control stream in bytes. A hello with the contexts of some
/// hundreds of replicas in 64 partitions stays below it.
pub const CONTROL_BYTES_MAX: usize = 256 * 1024;

/// The largest frame on a log stream in bytes.
pub const LOG_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the length prefix.
const PREFIX: usize = 4;

/// A frame announced more bytes than the limit allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OverLimit {
    pub(crate) len: usize,
    pub(crate) max: usize,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    max: usize,
}

impl Splitter {
    pub(crate) fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), max }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, if it has arrived.
    pub(crate) fn pull(&mut self) -> Result<Option<Bytes>, OverLimit> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        // A length that does not fit a `usize` is over every limit.
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > self.max {
            return Err(OverLimit { len, max: self.max });
        }
        if self.buffer.len() < PREFIX + len {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(PREFIX + len);
        Ok(Some(frame.split_off(PREFIX).freeze()))
    }

    /// Tells whether the stream may end here.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Returns the length prefix of a frame. A frame beyond 4 GiB gets a prefix every peer refuses.
pub(crate) fn prefix(frame: &Bytes) -> Bytes {
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    Bytes::copy_from_slice(&len.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[&'static [u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            out.extend_from_slice(&prefix(&Bytes::from_static(frame)));
            out.extend_from_slice(frame);
        }
        out
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let frames: [&[u8]; 4] = [b"one", b"", b"three", b"x"];
        let stream = framed(&frames);
        for step in 1..=stream.len() {
            let mut splitter = Splitter::new(16);
            let mut seen = Vec::new();
            for part in stream.chunks(step) {
                splitter.push(part);
                while let Some(frame) = splitter.pull().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "in steps of {step}");
            assert!(splitter.is_between_frames());
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_arrive() {
        let mut splitter = Splitter::new(8);
        splitter.push(&u32::MAX.to_be_bytes());
        assert_eq!(splitter.pull(), Err(OverLimit { len: 4_294_967_295, max: 8 }));
        let mut splitter = Splitter::new(8);
        splitter.push(&9_u32.to_be_bytes());
        assert_eq!(splitter.pull(), Err(OverLimit { len: 9, max: 8 }));
        assert!(splitter.buffer.capacity() < 1_024);
    }

    #[test]
    fn a_frame_of_exactly_the_limit_passes() {
        let mut splitter = Splitter::new(8);
        splitter.push(&framed(&[b"12345678"]));
        assert_eq!(splitter.pull(), Ok(Some(Bytes::from_static(b"12345678"))));
    }

    #[test]
    fn a_torn_frame_is_not_an_end() {
        let mut splitter = Splitter::new(8);
        splitter.push(&[0, 0]);
        assert_eq!(splitter.pull(), Ok(None));
        assert!(!splitter.is_between_frames());
    }
}
