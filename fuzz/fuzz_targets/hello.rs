//! Whatever peers say, in whatever order, a node that has links up does not panic, closes only the link a fault came
//! on, keeps every queue within its bound and its clock near the wall's, and goes on saying what can be read.
//!
//! The first byte says whether the node has founded its cluster or looks for one; the rest are deeds of its peers.

#![no_main]

use arbitrary::Unstructured;
use driftless_fuzz::siege::Siege;
use libfuzzer_sys::fuzz_target;

/// Most deeds: what takes more can be found with fewer.
const DEEDS_MAX: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    let (mut siege, mut u) = (Siege::new(how & 1 == 1), Unstructured::new(rest));
    for _ in 0..DEEDS_MAX {
        if u.is_empty() || siege.deed(&mut u).is_err() {
            return;
        }
    }
});
