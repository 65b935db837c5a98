//! Stories of who is there: crashes, restarts, joins, leaves, removals, zombies, clones.

use crate::sim::plan::{Action, OpKind};
use crate::sim::swarm::{Class, Draw};

pub(super) fn crash(draw: &mut Draw, from: u64) {
    let at = draw.host();
    draw.at(from, Action::Crash { at });
    if draw.rng.u8(..8) > 0 {
        let back = from + draw.while_ms();
        draw.at(back, Action::Start { at });
    }
}

/// A process ends while its last writes are on their way.
pub(super) fn crash_after_write(draw: &mut Draw, from: u64) {
    let at = draw.node();
    draw.writes(from, at, 4, 60);
    let end = from + draw.rng.u64(1..400);
    draw.at(end, Action::Crash { at });
    let back = end + draw.while_ms();
    draw.at(back, Action::Start { at });
}

/// All but one end and come back, one after the other or at once.
pub(super) fn all_but_one(draw: &mut Draw, from: u64) {
    let survivor = draw.node();
    for at in (0..draw.nodes()).filter(|at| *at != survivor) {
        let end = from + draw.rng.u64(..1_000);
        draw.end(end, at);
        let back = end + 1 + draw.rng.u64(..4_000);
        draw.at(back, Action::Start { at });
    }
    draw.writes(from, survivor, 3, 3_000);
}

pub(super) fn stop(draw: &mut Draw, from: u64) {
    let at = draw.host();
    draw.writes(from, at, 3, 50);
    draw.at(from + 50, Action::Stop { at });
    if draw.rng.bool() {
        let back = from + 50 + draw.while_ms();
        draw.at(back, Action::Start { at });
    }
}

/// A host hands over in the midst of writes and leaves or ends, perhaps while it cannot be heard by some, and comes back
/// as another.
pub(super) fn leave(draw: &mut Draw, from: u64) {
    let at = draw.host();
    draw.writes(from, at, 4, 60);
    if draw.is_on(Class::Cuts) && draw.rng.bool() {
        let to = draw.other(at);
        draw.at(from, Action::Cut { from: at, to });
    }
    let leave = draw.rng.bool();
    draw.at(from + 60, Action::Drain { at, leave });
    let by = draw.other(at);
    draw.deletes(from, by, 2, 2_000);
    if draw.rng.bool() {
        let back = from + 60 + draw.while_ms();
        draw.at(back, Action::Start { at });
    }
}

/// Every node is restarted, one after the other, as for an upgrade.
pub(super) fn rolling(draw: &mut Draw, from: u64) {
    let (gap, mut ms) = (draw.rng.u64(300..6_000), from);
    for at in 0..draw.nodes() {
        draw.end(ms, at);
        let down = draw.rng.u64(20..2_000);
        draw.at(ms + down, Action::Start { at });
        ms += down + gap;
    }
}

/// A host is started again and again, perhaps before it has joined, and perhaps with a clock that goes back.
pub(super) fn again_and_again(draw: &mut Draw, from: u64) {
    let (at, mut ms) = (draw.node(), from);
    for _ in 0..draw.rng.u8(3..10) {
        draw.writes(ms, at, 2, 200);
        let end = ms + draw.rng.u64(200..3_000);
        draw.end(end, at);
        if draw.is_on(Class::Skew) && draw.rng.bool() {
            let off = draw.rng.i64(-950..=0);
            draw.at(end, Action::Skew { at, ms: off });
        }
        let back = end + draw.rng.u64(20..600);
        draw.at(back, Action::Start { at });
        ms = back + draw.rng.u64(0..2_500);
    }
}

/// A host joins again, and its donor dies about when the snapshot is through.
pub(super) fn donor_dies(draw: &mut Draw, from: u64) {
    let at = draw.node();
    draw.end(from, at);
    let start = from + draw.rng.u64(1..3_000);
    draw.at(start, Action::Start { at });
    donor_dies_of(draw, start, at);
}

/// The same with a host that was never there before.
pub(super) fn donor_of_a_spare_dies(draw: &mut Draw, from: u64) {
    let at = spare(draw);
    draw.at(from, Action::Start { at });
    donor_dies_of(draw, from, at);
}

fn spare(draw: &mut Draw) -> u8 {
    let spares = draw.spares();
    draw.rng.choice(spares).unwrap_or(0)
}

fn donor_dies_of(draw: &mut Draw, start: u64, joiner: u8) {
    let by = draw.other(joiner);
    draw.writes(start, by, 5, 800);
    let trip = u64::try_from(draw.setting.weather.delay_max.as_millis()).unwrap_or(300);
    let ms = start + draw.rng.u64(..=trip * 8 + 100);
    draw.at(ms, Action::CrashDonor { of: joiner });
    draw.writes(ms, joiner, 3, 1_500);
    for at in 0..draw.nodes() {
        let back = ms + 500 + draw.soon_ms();
        draw.at(back, Action::Start { at });
    }
}

pub(super) fn delete_then_restart(draw: &mut Draw, from: u64) {
    let at = draw.node();
    draw.end(from, at);
    delete_then_start(draw, from + 1_000, at);
}

pub(super) fn delete_then_join(draw: &mut Draw, from: u64) {
    let at = spare(draw);
    delete_then_start(draw, from, at);
}

/// Somebody deletes, and somebody joins through a donor that may not know of it yet.
fn delete_then_start(draw: &mut Draw, from: u64, joiner: u8) {
    let by = draw.other(joiner);
    let key = draw.rng.u8(..draw.keys);
    draw.write_key(from, by, OpKind::Set, key);
    draw.write_key(from, by, OpKind::Put, key);
    let deleted = from + draw.rng.u64(..1_500);
    draw.write_key(deleted, by, OpKind::Delete, key);
    draw.write_key(deleted, by, OpKind::Clear, key);
    let joined = (deleted + draw.rng.u64(..400)).saturating_sub(200).max(from);
    draw.at(joined, Action::Start { at: joiner });
    if draw.is_on(Class::Cuts) && draw.rng.bool() {
        draw.at(deleted + 5, Action::Isolate { at: by });
        let end = deleted + draw.while_ms();
        draw.heal(end);
    }
    if draw.rng.bool() {
        let again = joined + draw.rng.u64(200..3_000);
        draw.write_key(again, joiner, OpKind::Set, key);
    }
}

pub(super) fn join_under_writes(draw: &mut Draw, from: u64) {
    let at = spare(draw);
    draw.at(from, Action::Start { at });
    for by in 0..draw.nodes() {
        draw.writes(from, by, 4, 1_200);
    }
}

pub(super) fn all_spares(draw: &mut Draw, from: u64) {
    for at in draw.spares() {
        draw.at(from, Action::Start { at });
    }
}

pub(super) fn join_and_leave(draw: &mut Draw, from: u64) {
    let (at, mut ms) = (spare(draw), from);
    for _ in 0..draw.rng.u8(1..4) {
        draw.at(ms, Action::Start { at });
        ms += draw.rng.u64(200..5_000);
        draw.writes(ms, at, 2, 200);
        draw.end(ms + 200, at);
        ms += 200 + draw.rng.u64(200..3_000);
    }
}

/// An operator removes what will not come back, and perhaps it does.
pub(super) fn remove_the_dead(draw: &mut Draw, from: u64) {
    let at = draw.node();
    draw.at(from, Action::Crash { at });
    let (by, ms) = (draw.other(at), from + draw.while_ms());
    draw.at(ms, Action::Remove { by, at });
    if draw.rng.bool() {
        let back = ms + draw.while_ms();
        draw.at(back, Action::Start { at });
    }
}

/// One is removed while nobody can tell it, goes on writing, and comes back.
pub(super) fn zombie(draw: &mut Draw, from: u64) {
    let at = draw.node();
    let by = draw.other(at);
    draw.writes(from, at, 3, 500);
    draw.at(from + 500, Action::Isolate { at });
    draw.writes(from + 500, at, 2, 500);
    let removed = from + 1_000 + draw.soon_ms();
    draw.at(removed, Action::Remove { by, at });
    draw.deletes(removed, by, 3, 1_000);
    let end = removed + draw.while_ms();
    draw.writes(removed, at, 4, end - removed);
    draw.at(end, Action::Heal);
    draw.writes(end, at, 4, 1_500);
}

/// Two that the others cannot reach any more, a second after all have seen a key.
struct Apart {
    donor: u8,
    /// It is not running.
    joiner: u8,
    /// One of the others.
    by: u8,
    key: u8,
}

fn apart(draw: &mut Draw, from: u64) -> Option<Apart> {
    let donor = draw.node();
    let joiner = if draw.spares().is_empty() { draw.other(donor) } else { spare(draw) };
    let others: Vec<u8> = (0..draw.nodes()).filter(|at| *at != donor && *at != joiner).collect();
    let by = draw.rng.choice(&others).copied()?;
    let key = draw.rng.u8(..draw.keys);
    for kind in [OpKind::Set, OpKind::Put, OpKind::Increment, OpKind::UpdateCustom] {
        draw.write_key(from, by, kind, key);
    }
    draw.at(from + 800, Action::Crash { at: joiner });
    for at in others {
        for away in [donor, joiner] {
            draw.at(from + 1_000, Action::Cut { from: at, to: away });
            draw.at(from + 1_000, Action::Cut { from: away, to: at });
        }
    }
    Some(Apart { donor, joiner, by, key })
}

/// One joins, removed while it was down or never seen before, through a donor that dies before anybody else hears of it.
/// The others, none the wiser, remove the dead, delete what the joiner holds, and forget it.
pub(super) fn unheard_of(draw: &mut Draw, from: u64) {
    let Some(Apart { donor, joiner, by, key }) = apart(draw, from) else { return };
    if draw.rng.bool() {
        draw.at(from + 1_001, Action::Remove { by, at: joiner });
    }
    let joins = from + 1_010 + draw.rng.u64(..3_000);
    draw.at(joins, Action::Start { at: joiner });
    let trip = u64::try_from(draw.setting.weather.delay_max.as_millis()).unwrap_or(300);
    let dies = joins + if draw.rng.bool() { draw.rng.u64(..=trip * 8 + 100) } else { draw.rng.u64(500..4_000) };
    draw.at(dies, Action::Crash { at: donor });
    for kind in [OpKind::Set, OpKind::Put] {
        let ms = joins + draw.rng.u64(..5_000);
        draw.write_key(ms, joiner, kind, key);
    }
    let removed = dies + draw.soon_ms();
    draw.at(removed, Action::Remove { by, at: donor });
    for kind in [OpKind::Delete, OpKind::Clear, OpKind::Reset, OpKind::DeleteCustom] {
        let ms = joins + draw.rng.u64(..5_000);
        draw.write_key(ms, by, kind, key);
    }
    let end = removed + if draw.rng.bool() { draw.while_ms() } else { 16_000 + draw.soon_ms() };
    draw.at(end, Action::Heal);
    draw.at(end + 500, Action::Start { at: donor });
}

/// One that was removed lives on behind a cut with what the others have deleted and forgotten. A host copies it, it dies in
/// the middle of that, and the host turns to the others before it gives up looking for them. It must not have written
/// anything since, or whoever copied that begins again by itself; and a copy takes a few milliseconds unless it is slow.
pub(super) fn donor_behind_dies(draw: &mut Draw, from: u64) {
    let Some(Apart { donor, joiner, by, key }) = apart(draw, from) else { return };
    for at in [donor, joiner] {
        draw.at(from + 1_001, Action::Remove { by, at });
    }
    for kind in [OpKind::Delete, OpKind::Clear, OpKind::Reset, OpKind::DeleteCustom] {
        let ms = from + 1_100 + draw.soon_ms();
        draw.write_key(ms, by, kind, key);
    }
    let joins = from + 15_000 + draw.soon_ms();
    if draw.is_on(Class::Pause) {
        draw.at(from + 1_002, Action::Pause { at: donor, ms: 13_500 });
    }
    let trip = u64::try_from(draw.setting.weather.delay_max.as_millis()).unwrap_or(300);
    let mut takes = trip * 6 + 60;
    if draw.is_on(Class::Slow) {
        draw.at(joins, Action::Slow { at: joiner, bytes_per_ms: 1 });
        takes += 2_500;
    }
    draw.at(joins, Action::Start { at: joiner });
    let dies = joins + draw.rng.u64(..=takes);
    draw.at(dies, Action::Crash { at: donor });
    if draw.is_on(Class::Slow) {
        draw.at(dies, Action::Slow { at: joiner, bytes_per_ms: 0 });
    }
    let end = dies + draw.soon_ms();
    draw.at(end, Action::Heal);
    draw.at(end + 5_000, Action::Start { at: donor });
}

/// Two are apart, and each removes the other.
pub(super) fn remove_each_other(draw: &mut Draw, from: u64) {
    let a = draw.node();
    let b = draw.other(a);
    draw.at(from, Action::Isolate { at: a });
    let (first, second) = (from + draw.soon_ms(), from + draw.soon_ms());
    draw.at(first, Action::Remove { by: a, at: b });
    draw.at(second, Action::Remove { by: b, at: a });
    draw.writes(from + 1_500, a, 2, 500);
    draw.writes(from + 1_500, b, 2, 500);
    let end = from + 2_000 + draw.while_ms();
    draw.heal(end);
}

pub(super) fn clone(draw: &mut Draw, from: u64) {
    let of = draw.node();
    clone_of(draw, from, of);
}

/// A second process with one identity starts where the first cannot be reached.
pub(super) fn clone_apart(draw: &mut Draw, from: u64) {
    let of = draw.node();
    draw.at(from, Action::Isolate { at: of });
    clone_of(draw, from + 100, of);
    let end = from + 1_000 + draw.while_ms();
    draw.heal(end);
}

fn clone_of(draw: &mut Draw, from: u64, of: u8) {
    draw.at(from, Action::Clone { of });
    let copy = draw.hosts();
    draw.writes(from + 1_000, of, 3, 3_000);
    draw.writes(from + 1_000, copy, 3, 3_000);
}

/// Writes at one that is cut off, of which the others know nothing; they write and delete the same keys before or after.
fn writes_in_vain(draw: &mut Draw, from: u64, at: u8, until: u64) {
    let by = draw.other(at);
    for _ in 0..draw.rng.usize(1..4) {
        let key = draw.rng.u8(..draw.keys);
        let before = from.saturating_sub(draw.rng.u64(100..2_000));
        if draw.rng.bool() {
            draw.write_key(before, by, OpKind::Set, key);
        }
        let kind = if draw.rng.u8(..3) == 0 { OpKind::Delete } else { OpKind::Set };
        let ms = from + draw.rng.u64(..until.saturating_sub(from).max(1));
        draw.write_key(ms, at, kind, key);
        if draw.rng.u8(..3) == 0 {
            let kind = if draw.rng.bool() { OpKind::Delete } else { OpKind::Set };
            let ms = from + draw.rng.u64(..until.saturating_sub(from).max(1));
            draw.write_key(ms, by, kind, key);
        }
    }
}

/// One is removed while it is cut off and writes on, and is told that it may come back when it hears of that, or too
/// early, or twice.
pub(super) fn called_back(draw: &mut Draw, from: u64) {
    let at = draw.node();
    let by = draw.other(at);
    draw.at(from, Action::Isolate { at });
    let removed = from + 500 + draw.soon_ms();
    draw.at(removed, Action::Remove { by, at });
    let end = removed + if draw.rng.bool() { draw.soon_ms() } else { 11_000 + draw.while_ms() };
    writes_in_vain(draw, from + 100, at, end);
    draw.at(end, Action::Heal);
    for _ in 0..draw.rng.u8(1..4) {
        let ms = end + draw.rng.u64(..8_000);
        draw.at(ms, Action::Rejoin { at });
    }
    draw.writes(end + 8_000, at, 2, 2_000);
}

/// One is given up while it is cut off and writes on, and comes back by itself.
pub(super) fn given_up_and_back(draw: &mut Draw, from: u64) {
    let at = draw.node();
    let forget = u64::from(draw.setting.forget_after_ms.max(2_000));
    draw.at(from, Action::Isolate { at });
    let end = from + 2_000 + forget + if draw.rng.bool() { draw.soon_ms() } else { 11_000 + draw.while_ms() };
    writes_in_vain(draw, from + 100, at, end);
    draw.at(end, Action::Heal);
    if draw.rng.u8(..4) == 0 {
        let by = draw.other(at);
        let ms = end + draw.soon_ms();
        draw.at(ms, Action::Remove { by, at });
    }
    draw.writes(end + 2_000, at, 2, 4_000);
}
