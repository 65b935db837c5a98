//! The bytes of every released version decode to the same messages for ever, and today's encoder
//! still writes those of today's version. A failure here means that running clusters would not
//! understand each other: a changed byte is a reviewed decision, never a refreshed file.
#![expect(clippy::unwrap_used, reason = "test helpers")]

#[path = "support/samples.rs"]
mod samples;

use std::collections::BTreeSet;

use driftless::wire::{Decoder, Encoder, Limits};
use samples::Message;

fn decode(like: &Message, bytes: &[u8]) -> Message {
    let (mut decoder, limits) = (Decoder::default(), Limits::default());
    match like {
        Message::Frame(_) => Message::Frame(decoder.decode_frame(bytes, &samples::spaces(), &limits).unwrap()),
        Message::Control(_) => Message::Control(decoder.decode_control(bytes, &limits).unwrap()),
        Message::Beat(_) => Message::Beat(decoder.decode_beat(bytes, &limits).unwrap()),
    }
}

fn encode(message: &Message) -> Vec<u8> {
    let mut encoder = Encoder::default();
    match message {
        Message::Frame(frame) => encoder.encode_frame(frame, &samples::spaces()).unwrap().to_vec(),
        Message::Control(control) => encoder.encode_control(control).unwrap().to_vec(),
        Message::Beat(beat) => encoder.encode_beat(beat).to_vec(),
    }
}

/// Another zstd may choose other bytes for the same content.
fn is_compressed(bytes: &[u8]) -> bool {
    bytes[1] & 1 == 1
}

#[test]
fn golden_bytes_decode_to_what_they_meant() {
    for (name, expected) in samples::samples() {
        let bytes = std::fs::read(samples::path(name)).unwrap();
        assert_eq!(decode(&expected, &bytes), expected, "{name}");
    }
}

#[test]
fn the_encoder_writes_the_golden_bytes() {
    for (name, message) in samples::samples() {
        let golden = std::fs::read(samples::path(name)).unwrap();
        if !is_compressed(&golden) {
            assert_eq!(encode(&message), golden, "{name}");
        }
    }
}

#[test]
fn exactly_the_large_sample_is_compressed() {
    let compressed: Vec<&str> = samples::samples()
        .into_iter()
        .filter(|(name, _)| is_compressed(&std::fs::read(samples::path(name)).unwrap()))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(compressed, ["frame_compressed"]);
}

#[test]
fn every_golden_file_belongs_to_a_sample() {
    let known: BTreeSet<_> = samples::samples().into_iter().map(|(name, _)| samples::path(name)).collect();
    let folder = samples::path("any").parent().unwrap().to_owned();
    let found: BTreeSet<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found, known);
}
