//! Random operations on three real replicas, in a form proptest can shrink.

#![expect(clippy::indexing_slicing, reason = "the steps name one of three replicas")]

use driftless::crdt::Path;
use proptest::prelude::*;

use crate::replica::{FOREVER, Replica, b, field, member, sync};

/// One operation of one replica.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    at: usize,
    op: u8,
    arg: u8,
    /// Milliseconds that pass before it.
    after: u64,
}

/// Generates a step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    (0..3_usize, 0..18_u8, 0..6_u8, 0..5_u64).prop_map(|(at, op, arg, after)| Step { at, op, arg, after })
}

/// Plays a script on three replicas that know each other.
pub(crate) fn play(steps: &[Step]) -> [Replica; 3] {
    let mut world = [1, 2, 3].map(|id| {
        let mut r = Replica::new(id, &[1, 2, 3, 9]);
        r.clock_ms = 1_000 + id;
        r
    });
    for (n, step) in (1..).zip(steps) {
        world.iter_mut().for_each(|r| r.clock_ms += step.after);
        if step.op < 4 {
            let from = usize::from(step.arg) % 3;
            if let Ok([from, to]) = world.get_disjoint_mut([from, step.at]) {
                sync(from, to);
            }
        } else {
            write(&world[step.at], step, n);
        }
    }
    world
}

fn write(r: &Replica, step: &Step, n: u64) {
    let value = b(&n.to_string());
    let deadline = if step.arg.is_multiple_of(2) { FOREVER } else { r.clock_ms + 4 * u64::from(step.arg) };
    let register = if step.arg < 3 { "r0" } else { "r1" };
    let path: Path = [field("a"), field("b"), member("a")][usize::from(step.arg) % 3].clone();
    match step.op {
        4..=5 => drop(r.set(register, &value, deadline)),
        6 => drop(r.delete(register)),
        7 => drop(r.touch(register, deadline)),
        8..=9 => drop(r.put("m", path, &value, deadline)),
        10 => drop(r.remove("m", &path)),
        11 => drop(r.touch_path("m", &path, deadline)),
        12 => drop(r.clear("m")),
        13 => drop(r.increment("m", "n", i64::from(step.arg) - 2, deadline)),
        14 => drop(r.reset("m", "n")),
        15 => drop(r.note("x", n, deadline)),
        16 => drop(r.delete_custom("x")),
        _ => drop(r.expire_key("m", deadline)),
    }
}
