//! Stories of time: clocks that are off, jump or are years ahead, and hosts that stand still.

use crate::sim::plan::{Action, OpKind};
use crate::sim::swarm::{Class, Draw, log_uniform};

const HOUR_MS: u64 = 3_600_000;
const DECADE_MS: u64 = 10 * 365 * 24 * HOUR_MS;

/// One starts anew where it sees nobody, with a clock that is behind: what it writes carries a stamp from before what the
/// others have deleted. Its clock is put right, and they meet.
pub(super) fn behind_and_apart(draw: &mut Draw, from: u64) {
    if !draw.is_on(Class::Crash) || !draw.is_on(Class::Cuts) {
        return skew(draw, from);
    }
    let (away, key) = (draw.node(), draw.rng.u8(..draw.keys));
    let by = draw.other(away);
    let deleted = from + draw.rng.u64(300..1_500);
    for (kind, delete) in [(OpKind::Set, OpKind::Delete), (OpKind::UpdateCustom, OpKind::DeleteCustom)] {
        draw.write_key(from, by, kind, key);
        draw.write_key(deleted, by, delete, key);
    }
    let apart = deleted + draw.rng.u64(600..1_200);
    draw.at(apart, Action::Isolate { at: away });
    draw.at(apart + 10, Action::Crash { at: away });
    let off = draw.rng.i64(4_000..10_000);
    draw.at(apart + 15, Action::Skew { at: away, ms: -off });
    draw.at(apart + 20, Action::Start { at: away });
    let founded = apart + draw.rng.u64(2_200..3_000);
    draw.write_key(founded, away, OpKind::Set, key);
    draw.write_key(founded, away, OpKind::UpdateCustom, key);
    draw.at(founded + 50, Action::Skew { at: away, ms: 0 });
    let end = founded + draw.rng.u64(100..2_000);
    draw.at(end, Action::Heal);
}

/// Up to ten seconds, either way, small ones as likely as large ones.
fn skew_ms(draw: &mut Draw) -> i64 {
    let ms = i64::try_from(log_uniform(&mut draw.rng, 1, 10_000)).unwrap_or(0);
    if draw.rng.bool() { ms } else { -ms }
}

pub(super) fn skew(draw: &mut Draw, from: u64) {
    let (at, mut ms) = (draw.host(), from);
    for _ in 0..draw.rng.u8(1..4) {
        let off = skew_ms(draw);
        draw.at(ms, Action::Skew { at, ms: off });
        ms += draw.while_ms();
    }
    if draw.rng.bool() {
        draw.at(ms, Action::Skew { at, ms: 0 });
    }
}

/// A clock runs ahead, its host writes, the clock steps back, its host writes again.
pub(super) fn steps_back(draw: &mut Draw, from: u64) {
    let (at, off) = (draw.node(), skew_ms(draw).abs());
    draw.at(from, Action::Skew { at, ms: off });
    draw.writes(from, at, 4, 1_000);
    let back = from + 1_000 + draw.soon_ms();
    draw.at(back, Action::Skew { at, ms: -off });
    draw.writes(back, at, 4, 1_000);
}

/// A clock steps back after a burst of writes, so that its counter alone tells further ones apart, until it carries.
pub(super) fn burst(draw: &mut Draw, from: u64) {
    let (at, off) = (draw.node(), draw.rng.u64(50..2_000));
    draw.at(from, Action::Skew { at, ms: -off.cast_signed() });
    draw.at(from, Action::Burst { at });
    draw.writes(from, at, 6, off);
    if draw.rng.bool() {
        draw.at(from + off, Action::Skew { at, ms: 0 });
    }
}

/// Every clock is off a little, within what peers accept of each other.
pub(super) fn all_clocks(draw: &mut Draw, from: u64) {
    for at in 0..draw.hosts() {
        let off = skew_ms(draw) / 20;
        draw.at(from, Action::Skew { at, ms: off });
    }
}

fn future_ms(draw: &mut Draw) -> i64 {
    i64::try_from(log_uniform(&mut draw.rng, HOUR_MS, DECADE_MS)).unwrap_or(0)
}

/// A clock jumps far ahead while its host is linked, and is set right.
pub(super) fn far_future(draw: &mut Draw, from: u64) {
    let (at, off) = (draw.node(), future_ms(draw));
    draw.at(from, Action::Skew { at, ms: off });
    draw.writes(from, at, 4, 3_000);
    let end = from + draw.while_ms();
    draw.at(end, Action::Skew { at, ms: 0 });
    draw.writes(end, at, 3, 2_000);
}

/// A host starts with a clock far ahead, and it is set right.
pub(super) fn starts_in_the_future(draw: &mut Draw, from: u64) {
    let (at, off) = (draw.host(), future_ms(draw));
    draw.at(from, Action::Crash { at });
    draw.at(from + 10, Action::Skew { at, ms: off });
    draw.at(from + 20, Action::Start { at });
    let end = from + 20 + draw.while_ms();
    draw.at(end, Action::Skew { at, ms: 0 });
}

pub(super) fn pause(draw: &mut Draw, from: u64) {
    let (at, ms) = (draw.host(), log_uniform(&mut draw.rng, 1_000, 15_000));
    draw.at(from, Action::Pause { at, ms: u32::try_from(ms).unwrap_or(1_000) });
}

/// Up to a minute, one time in four up to ten; the run goes on until its end.
pub(super) fn long_pause(draw: &mut Draw, from: u64) {
    let max = if draw.rng.u8(..4) == 0 { 600_000 } else { 60_000 };
    let (at, ms) = (draw.host(), log_uniform(&mut draw.rng, 15_000, max));
    draw.at(from, Action::Pause { at, ms: u32::try_from(ms).unwrap_or(15_000) });
    draw.writes(from + ms, at, 4, 2_000);
}

/// One stands still while the others delete and forget, and writes as soon as it goes on.
pub(super) fn pause_across_a_collection(draw: &mut Draw, from: u64) {
    let at = draw.node();
    let by = draw.other(at);
    draw.writes(from, at, 3, 500);
    draw.deletes(from + 200, by, 4, 800);
    let (paused, ms) = (from + draw.rng.u64(200..1_500), draw.rng.u64(11_000..25_000));
    draw.at(paused, Action::Pause { at, ms: u32::try_from(ms).unwrap_or(11_000) });
    draw.deletes(paused, by, 3, 1_000);
    if draw.is_on(Class::Crash) {
        let other = draw.other(at);
        draw.end(paused + 500, other);
        draw.at(paused + 4_000, Action::Start { at: other });
    }
    draw.writes(paused + ms, at, 4, 300);
}
