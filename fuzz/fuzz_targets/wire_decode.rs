//! Any bytes decode to a message or to a fault, which leaves nothing behind, and take little memory on the way.
//!
//! The first byte is that of a whole message, or chooses the channel and whether the rest is compressed, so that the
//! others need not guess the envelope. *Input* is what came and, where the limits allow it to be decompressed
//! at all, what it decompresses to: that many bytes were sent by somebody who paid for them with at least one 64th.
//!
//! * With [`FEW`] of everything that is counted, decoding takes at most 4 times the input and 64 KiB: whatever is not
//!   counted one by one is never reserved by a declared length, and the few that are counted fit in the 64 KiB.
//! * With the usual counts it takes at most [`PER_BYTE`] times the input and 64 KiB, because each thing counted takes
//!   some bytes to name. Runs of covered dots are the exception, and stay counted.

#![no_main]

use driftless::store::Keyspaces;
use driftless::wire::version::FORMAT;
use driftless::wire::{Decoder, Limits};
use driftless_fuzz::allocations::{Counting, most_held};
use driftless_fuzz::spaces::{COUNT, with_spaces};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FEW: u64 = 16;
/// A fragment has 384 bytes and is named in five; a vector that grows is there twice.
const PER_BYTE: usize = 256;

fn decode(message: &[u8], plain: usize, spaces: &Keyspaces, limits: &Limits, per_byte: usize) {
    let mut decoder = Decoder::default();
    let (frame, most) = most_held(|| {
        let frame = decoder.decode_frame(message, spaces, limits).is_ok();
        drop((decoder.decode_control(message, limits), decoder.decode_beat(message, limits)));
        frame
    });
    assert!(most <= per_byte * (message.len() + plain) + (64 << 10), "{most} bytes for {} and {plain}", message.len());
    let opened = spaces.snapshot().len() - COUNT;
    assert!(opened <= if frame { usize::try_from(limits.fragments).unwrap() } else { 0 }, "refused, {opened} opened");
}

fuzz_target!(|input: &[u8]| {
    let Some((how, payload)) = input.split_first() else { return };
    let envelope = [FORMAT, how % 3 << 6 | how >> 4 & 1];
    let message = if *how == FORMAT { input.to_vec() } else { [&envelope, payload].concat() };
    let (limits, packed) = (Limits::default(), u64::try_from(message.len()).unwrap());
    let declared = message.get(2..6).map_or(0, |l| u64::from(u32::from_be_bytes([l[0], l[1], l[2], l[3]])));
    let compressed = message.get(1).is_some_and(|flags| flags & 1 == 1);
    let allowed = compressed && declared <= (packed * limits.ratio).min(limits.plain_bytes);
    let plain = if allowed { usize::try_from(declared).unwrap() } else { 0 };
    let usual = Limits { covers: FEW, ..limits };
    with_spaces(|spaces| decode(&message, plain, spaces, &usual, PER_BYTE));
    let few = Limits { replicas: FEW, gaps: FEW, gaps_all: FEW, seen: FEW, parts: FEW, fragments: FEW, ..limits };
    let few = Limits { elems: FEW, covers: FEW, ..few };
    with_spaces(|spaces| decode(&message, plain, spaces, &few, 4));
});
