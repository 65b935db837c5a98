//! Any bytes decode to a fault, or to a message that can be sent again and then means the same.
//!
//! The first byte chooses the channel, so that the rest need not guess the envelope's kind; the
//! bytes are also tried as they are.

#![no_main]

use driftless::store::{Family, Keyspaces};
use driftless::wire::{Decoder, Encoder, Limits};
use libfuzzer_sys::fuzz_target;

fn spaces() -> Keyspaces {
    let spaces = Keyspaces::new(1 << 20, [7; 16]);
    for (name, family) in
        [("sessions", Family::Register), ("carts", Family::Map), ("hits", Family::Counter), ("tags", Family::Set)]
    {
        assert!(spaces.open(name, family).is_ok());
    }
    spaces
}

fn try_all(message: &[u8]) {
    let (mut encoder, mut decoder, limits, spaces) =
        (Encoder::default(), Decoder::default(), Limits::default(), spaces());
    if let Ok(frame) = decoder.decode_frame(message, &spaces, &limits) {
        // What was compressed may be too large to send plain, and the other way round.
        if let Ok(bytes) = encoder.encode_frame(&frame, &spaces) {
            assert_eq!(decoder.decode_frame(&bytes, &spaces, &limits), Ok(frame));
        }
    }
    if let Ok(control) = decoder.decode_control(message, &limits)
        && let Ok(bytes) = encoder.encode_control(&control)
    {
        assert_eq!(decoder.decode_control(&bytes, &limits), Ok(control));
    }
    if let Ok(beat) = decoder.decode_beat(message, &limits) {
        assert_eq!(decoder.decode_beat(&encoder.encode_beat(&beat), &limits), Ok(beat));
    }
}

fuzz_target!(|input: &[u8]| {
    try_all(input);
    if let Some((kind, payload)) = input.split_first() {
        try_all(&[&[1, kind % 3 << 6], payload].concat());
    }
});
