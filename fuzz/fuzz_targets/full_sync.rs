//! Two replicas that synchronise in full, in pieces of any size, show what history says of what both have seen, and
//! nothing that was gone comes back, not even by mail that was under way meanwhile.
//!
//! The first two bytes say what may be forgotten and where the pieces are cut; four bytes each are an action.

#![no_main]

use driftless_fuzz::world::{May, World};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[how, cut, more, rest], story)) = input.split_first_chunk::<4>() else { return };
    let mut world = World::new(2, May { collect: how & 1 == 1, forget: how & 3 == 3 });
    let (before, after) = story.split_at(story.len() / 2 / 4 * 4);
    world.play(before);
    let (from, to) = if how & 4 == 0 { (0, 1) } else { (1, 0) };
    let full = world.replicas[from].full(&[cut % 8, more % 8]);
    // It is captured now and arrives when more has happened.
    world.play(if how & 8 == 0 { &[] } else { after });
    if world.replicas[to].deliver(&full).is_ok() {
        world.judge(to);
        let (seen, sent) = (world.replicas[to].ctx(), world.replicas[from].ctx());
        assert!(how & 8 != 0 || seen.includes(&sent), "all that was sent is seen");
    }
    let back = world.replicas[to].full(&[rest % 8]);
    if world.replicas[from].deliver(&back).is_ok() && how & 8 == 0 {
        assert_eq!(world.replicas[from].ctx(), world.replicas[to].ctx());
        assert!(
            how & 3 != 0 || world.replicas[from].state() == world.replicas[to].state(),
            "equal contexts, equal states"
        );
    }
    world.judge(from);
    world.play(if how & 8 == 0 { after } else { &[] });
    world.quiesce();
});
