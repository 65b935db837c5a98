//! What is sent is what arrives, for messages of every kind; and what arrives, from whatever bytes, has one form.
//!
//! The first byte is that of a whole message, or the rest is made into one.

#![no_main]

use std::cell::RefCell;

use arbitrary::Unstructured;
use driftless::store::Keyspaces;
use driftless::wire::version::FORMAT;
use driftless::wire::{Decoder, Encoder};
use driftless_fuzz::messages::Message;
use driftless_fuzz::spaces::with_spaces;
use libfuzzer_sys::fuzz_target;

/// Whatever they have encoded and decoded before must not matter.
struct Used {
    encoder: Encoder,
    plain: Encoder,
    decoder: Decoder,
}

thread_local! {
    static USED: RefCell<Used> = RefCell::new(Used {
        encoder: Encoder::default(),
        plain: Encoder::default().without_compression(),
        decoder: Decoder::default(),
    });
}

/// A message comes back as it was, and the bytes it has are the only ones an encoder gives it.
fn goes_round(used: &mut Used, message: &Message, spaces: &Keyspaces) {
    // What came compressed may be too large to send plain, and the other way round.
    if let Ok(bytes) = message.encode(&mut used.encoder, spaces) {
        assert_eq!(Message::decode(&mut used.decoder, &bytes, spaces).as_ref(), Some(message));
        assert_eq!(message.encode(&mut used.encoder, spaces), Ok(bytes), "a second round gives the same bytes");
    }
    if let Ok(plain) = message.encode(&mut used.plain, spaces) {
        assert_eq!(Message::decode(&mut used.decoder, &plain, spaces).as_ref(), Some(message));
    }
}

fn any(used: &mut Used, input: &[u8], spaces: &Keyspaces) {
    let raw = input.first() == Some(&FORMAT);
    let made = || Unstructured::new(input.get(1..)?).arbitrary().ok();
    let message = if raw { Message::decode(&mut used.decoder, input, spaces) } else { made() };
    if let Some(message) = message {
        assert!(raw || message.encode(&mut used.plain, spaces).is_ok(), "what is made here fits");
        goes_round(used, &message, spaces);
    }
}

fuzz_target!(|input: &[u8]| USED.with_borrow_mut(|used| with_spaces(|spaces| any(used, input, spaces))));
