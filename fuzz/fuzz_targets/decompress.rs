//! A compressed frame means what its plain bytes mean, or is refused without having cost anything.
//!
//! Made from bytes: a block that zstd compressed (then damaged, or given another length), or a block of any bytes.

#![no_main]

use arbitrary::Arbitrary;
use driftless::error::PeerFault;
use driftless::wire::{Decoder, Limits};
use driftless_fuzz::allocations::{Counting, most_held};
use driftless_fuzz::spaces::spaces;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Arbitrary, Debug)]
enum Block<'a> {
    Any { length: u32, block: &'a [u8] },
    Made { level: u8, times: u8, damage: Option<(u16, u8)>, longer: i8, plain: &'a [u8] },
}

/// Returns the length that is declared, the block, and what it is known to hold.
fn build(block: Block<'_>) -> (u32, Vec<u8>, Option<Vec<u8>>) {
    match block {
        Block::Any { length, block } => (length, block.to_vec(), None),
        Block::Made { level, times, damage, longer, plain } => {
            let plain = plain.repeat(usize::from(times) + 1);
            let mut packed = zstd::bulk::compress(&plain, i32::from(level % 4) - 1).unwrap();
            let length = u32::try_from(plain.len()).unwrap().saturating_add_signed(i32::from(longer));
            if let Some((at, with)) = damage {
                let at = usize::from(at) % packed.len();
                packed[at] ^= with;
            }
            (length, packed, (damage.is_none_or(|(_, with)| with == 0) && longer == 0).then_some(plain))
        }
    }
}

fuzz_target!(|block: Block<'_>| {
    let (limits, mut decoder, spaces) = (Limits { covers: 16, ..Limits::default() }, Decoder::default(), spaces());
    let (length, packed, known) = build(block);
    let message = [&[1, 1], &length.to_be_bytes()[..], &packed].concat();
    let (result, most) = most_held(|| decoder.decode_frame(&message, &spaces, &limits));
    let length = u64::from(length);
    let too_long = length > limits.plain_bytes || length > limits.ratio * u64::try_from(packed.len()).unwrap();
    if too_long {
        assert!(matches!(result, Err(PeerFault::OverLimit { .. })) && most < 1 << 10, "{result:?} took {most} bytes");
    } else if let Some(plain) = known.or_else(|| zstd::bulk::decompress(&packed, usize::try_from(length).ok()?).ok()) {
        // zstd decompresses what is more, or less, or followed by more blocks than declared; we do not.
        let as_plain = decoder.decode_frame(&[&[1, 0], &plain[..]].concat(), &spaces, &limits);
        let compressed = matches!(&result, Err(PeerFault::Malformed { why }) if why.contains("compressed block"));
        let windowed = matches!(&result, Err(PeerFault::OverLimit { what: "compression window", .. }));
        assert!(result == as_plain || compressed || windowed, "{result:?} but {as_plain:?}");
    } else {
        assert!(result.is_err(), "what zstd does not decompress is no frame");
    }
});
