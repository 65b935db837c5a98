//! Three clocks that hear of each other do what three plain numbers do: strictly up, carrying, never behind what was
//! heard, and no further ahead of every wall clock than the drift bound that decides what is heard.

#![no_main]

use arbitrary::Arbitrary;
use driftless::clock::{Hlc, HlcClock};
use libfuzzer_sys::fuzz_target;

/// Furthest a stamp may be ahead of the wall clock of who hears it.
const DRIFT_MS: u64 = 1_000;
/// Wall clocks are within so many milliseconds of this one.
const EPOCH_MS: u64 = 1_750_000_000_000;

#[derive(Arbitrary, Debug)]
enum Op {
    /// The wall clock steps, in either direction.
    Wall(i16),
    /// So many events happen.
    Tick(u8),
    /// The last stamp of another clock is heard of, and refused where it is too far ahead.
    Hear(u8),
    /// A stamp at the end of a millisecond is heard of.
    Brink(u8),
}

fuzz_target!(|ops: Vec<(u8, Op)>| {
    let clocks = [HlcClock::default(), HlcClock::default(), HlcClock::default()];
    let (mut model, mut wall, mut wall_max, mut ticks) = ([0_u64; 3], [EPOCH_MS; 3], EPOCH_MS, 0_u64);
    for (at, op) in ops {
        let at = usize::from(at) % 3;
        match op {
            Op::Wall(by) => wall[at] = wall[at].saturating_add_signed(i64::from(by)),
            Op::Tick(times) => {
                for _ in 0..=times {
                    let (before, now) = (clocks[at].last(), clocks[at].tick(wall[at]));
                    model[at] = (model[at] + 1).max(wall[at] << 16);
                    assert!(now > before && now == Hlc(model[at]) && now.ms() >= wall[at]);
                }
                ticks += u64::from(times) + 1;
            }
            Op::Hear(from) => {
                let heard = clocks[usize::from(from) % 3].last();
                if heard.ms() <= wall[at].saturating_add(DRIFT_MS) {
                    clocks[at].observe(heard);
                    model[at] = model[at].max(heard.0);
                }
            }
            Op::Brink(below) => {
                let heard = Hlc(Hlc::from_ms(wall[at] + 1).0 - 1 - u64::from(below % 4));
                clocks[at].observe(heard);
                model[at] = model[at].max(heard.0);
            }
        }
        wall_max = wall_max.max(wall[at]);
        assert_eq!(clocks[at].last(), Hlc(model[at]));
        assert_eq!(clocks[at].visible_ms(wall[at]), wall[at].max(model[at] >> 16));
        assert!(clocks[at].last() <= Hlc((wall_max << 16) + 0xffff + ticks), "ahead of all, but for counting");
    }
});
