//! Messages to bytes and back: the wire's public face.
//!
//! An [`Encoder`] and a [`Decoder`] keep their buffers and compression contexts, so that a frame
//! costs one allocation to encode and one per key and value to decode.
//!
//! # Invariants
//! * Equal messages have equal bytes, and `decode(encode(m)) == m` for every message a store makes.
//! * Any bytes whatever decode to a message or to a [`PeerFault`]: no panic, no reservation by a
//!   declared length.
//! * A buffer keeps at most the largest payload the limits allow.

use bytes::Bytes;

use super::compress::{Packer, Unpacker};
use super::control::{put_beat, put_control, take_beat, take_control};
use super::envelope::{Kind, begin, finish, open};
use super::frame::{put_frame, take_frame};
use super::limits::{Limits, Unsendable};
use super::message::{Beat, Control, Frame};
use crate::error::PeerFault;
use crate::store::Keyspaces;

/// Encodes messages.
#[derive(Debug, Default)]
pub struct Encoder {
    limits: Limits,
    plain: Vec<u8>,
    packer: Packer,
}

impl Encoder {
    /// Builds an encoder that keeps to other limits than the usual ones.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Makes it send everything as it is: right inside one data centre.
    #[must_use]
    pub fn without_compression(self) -> Self {
        Self { packer: Packer::off(), ..self }
    }

    /// Encodes a frame for a log stream, compressed where that pays. The bytes may be shared by all
    /// links.
    ///
    /// # Errors
    /// [`Unsendable`] when every receiver would refuse it; nothing was encoded.
    pub fn encode_frame(&mut self, frame: &Frame, spaces: &Keyspaces) -> Result<Bytes, Unsendable> {
        begin(&mut self.plain, Kind::Frame);
        put_frame(&mut self.plain, frame, spaces, self.limits)?;
        finish(&self.plain, Kind::Frame, &mut self.packer, &self.limits).map(Bytes::copy_from_slice)
    }

    /// Returns how many bytes the last message had before compression.
    #[must_use]
    pub fn plain_len(&self) -> usize {
        self.plain.len()
    }

    /// Encodes a message for the control stream.
    ///
    /// # Errors
    /// As [`Encoder::encode_frame`].
    pub fn encode_control(&mut self, control: &Control) -> Result<Bytes, Unsendable> {
        begin(&mut self.plain, Kind::Control);
        put_control(&mut self.plain, control, self.limits)?;
        finish(&self.plain, Kind::Control, &mut self.packer, &self.limits).map(Bytes::copy_from_slice)
    }

    /// Encodes a heartbeat. It always fits in a datagram.
    pub fn encode_beat(&mut self, beat: &Beat) -> Bytes {
        begin(&mut self.plain, Kind::Beat);
        put_beat(&mut self.plain, beat, self.limits);
        Bytes::copy_from_slice(&self.plain)
    }
}

/// Decodes messages.
#[derive(Debug, Default)]
pub struct Decoder {
    unpacker: Unpacker,
}

impl Decoder {
    /// Decodes a frame. Keyspaces it names that nobody has opened here are opened once the whole of it was read.
    ///
    /// # Errors
    /// [`PeerFault`] when the frame is malformed, exceeds a limit or does not fit the keyspaces
    /// here; it is to be dropped whole, and no keyspace was opened for it unless there was room for some of them only.
    pub fn decode_frame(&mut self, message: &[u8], spaces: &Keyspaces, limits: &Limits) -> Result<Frame, PeerFault> {
        take_frame(open(message, Kind::Frame, &mut self.unpacker, limits)?, spaces, *limits)
    }

    /// Decodes a control message.
    ///
    /// # Errors
    /// [`PeerFault`] when the message is malformed or exceeds a limit.
    pub fn decode_control(&mut self, message: &[u8], limits: &Limits) -> Result<Control, PeerFault> {
        take_control(open(message, Kind::Control, &mut self.unpacker, limits)?, *limits)
    }

    /// Decodes a heartbeat.
    ///
    /// # Errors
    /// [`PeerFault`] when the message is malformed or exceeds a limit.
    pub fn decode_beat(&mut self, message: &[u8], limits: &Limits) -> Result<Beat, PeerFault> {
        take_beat(open(message, Kind::Beat, &mut self.unpacker, limits)?, *limits)
    }
}
