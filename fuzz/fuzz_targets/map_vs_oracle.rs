//! Whatever three replicas do to registers, maps, members, counters and custom entries, with deadlines, and however
//! their mail travels: at every moment each shows what history says of what it has seen, and in the end all agree and
//! nothing is left over.
//!
//! The first byte says how many replicas there are and what they may forget; four bytes each are an action.

#![no_main]

use driftless_fuzz::world::{May, World};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((how, story)) = input.split_first() else { return };
    let may = May { collect: how & 1 == 1, forget: how & 3 == 3 };
    let mut world = World::new(2 + usize::from(how >> 2 & 1), may);
    world.play(story);
    world.quiesce();
});
