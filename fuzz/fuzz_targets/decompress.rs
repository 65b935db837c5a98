//! A compressed frame means what its plain bytes mean, or is refused without having cost anything.

#![no_main]

use std::cell::RefCell;

use driftless::error::PeerFault;
use driftless::store::Keyspaces;
use driftless::wire::{Decoder, Limits};
use driftless_fuzz::allocations::{Counting, most_held};
use driftless_fuzz::blocks::{Block, Packed};
use driftless_fuzz::spaces::with_spaces;
use libfuzzer_sys::fuzz_target;
use zstd::bulk::{Compressor, Decompressor};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whatever they have compressed and decompressed before must not matter.
#[derive(Default)]
struct Used {
    packer: Compressor<'static>,
    unpacker: Decompressor<'static>,
    decoder: Decoder,
}

thread_local! {
    static USED: RefCell<Used> = RefCell::default();
}

fn means_what_it_holds(used: &mut Used, block: Block<'_>, spaces: &Keyspaces) {
    let limits = Limits { covers: 16, ..Limits::default() };
    let Packed { length, block, known } = block.pack(&mut used.packer);
    let message = [&[1, 1], &length.to_be_bytes()[..], &block].concat();
    let (result, most) = most_held(|| used.decoder.decode_frame(&message, spaces, &limits));
    let room = usize::try_from(length).unwrap();
    let length = u64::from(length);
    let too_long = length > limits.plain_bytes || length > limits.ratio * u64::try_from(block.len()).unwrap();
    if too_long {
        assert!(matches!(result, Err(PeerFault::OverLimit { .. })) && most < 1 << 10, "{result:?} took {most} bytes");
    } else if let Some(plain) = known.or_else(|| used.unpacker.decompress(&block, room).ok()) {
        // zstd decompresses what is more, or less, or followed by more blocks than declared; we do not.
        let as_plain = used.decoder.decode_frame(&[&[1, 0], &plain[..]].concat(), spaces, &limits);
        let compressed = matches!(&result, Err(PeerFault::Malformed { why }) if why.contains("compressed block"));
        let windowed = matches!(&result, Err(PeerFault::OverLimit { what: "compression window", .. }));
        assert!(result == as_plain || compressed || windowed, "{result:?} but {as_plain:?}");
    } else {
        assert!(result.is_err(), "what zstd does not decompress is no frame");
    }
}

fuzz_target!(|block: Block<'_>| USED.with_borrow_mut(|used| {
    with_spaces(|spaces| means_what_it_holds(used, block, spaces));
}));
