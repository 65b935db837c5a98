//! Stories of paths: cuts, bridges, clogs, slow hosts.

use crate::sim::plan::Action;
use crate::sim::swarm::{Class, Draw, log_uniform};

pub(super) fn one_way(draw: &mut Draw, from: u64) {
    let a = draw.node();
    let b = draw.other(a);
    draw.at(from, Action::Cut { from: a, to: b });
    let end = from + draw.while_ms();
    draw.heal(end);
}

pub(super) fn alone(draw: &mut Draw, from: u64) {
    let at = draw.host();
    draw.at(from, Action::Isolate { at });
    let end = from + draw.while_ms();
    draw.writes(from, at, 3, end - from);
    draw.heal(end);
}

pub(super) fn halves(draw: &mut Draw, from: u64) {
    let at = draw.rng.u8(1..=draw.hosts());
    draw.at(from, Action::Split { at });
    let end = from + draw.while_ms();
    draw.heal(end);
}

/// A host is cut off, stands still or is down for about as long as the others wait for it, while everybody writes.
pub(super) fn gone_for_long(draw: &mut Draw, from: u64) {
    let at = draw.node();
    let by = draw.other(at);
    let gone = u64::from(draw.setting.forget_after_ms) + draw.rng.u64(..4_000);
    draw.writes(from, by, 3, 300);
    let begins = from + draw.rng.u64(..500);
    let action = match draw.rng.u8(..4) {
        0 if draw.is_on(Class::Crash) => Action::Crash { at },
        1 if draw.is_on(Class::Pause) => Action::Pause { at, ms: u32::try_from(gone).unwrap_or(u32::MAX) },
        _ => Action::Isolate { at },
    };
    draw.at(begins, action);
    draw.writes(begins, at, 3, gone);
    draw.deletes(begins, by, 3, gone);
    draw.at(begins + gone, Action::Heal);
    let back = begins + gone + draw.soon_ms();
    draw.at(back, Action::Start { at });
}

/// Two parts of about the same size, for about as long as one would wait for the other.
pub(super) fn halves_for_long(draw: &mut Draw, from: u64) {
    let at = (draw.nodes() / 2).max(1);
    draw.at(from, Action::Split { at });
    let end = from + u64::from(draw.setting.forget_after_ms) + draw.rng.u64(..4_000);
    let (here, there) = (draw.rng.u8(..at), draw.rng.u8(at..draw.nodes().max(at + 1)));
    draw.writes(from, here, 3, end - from);
    draw.deletes(from, there, 3, end - from);
    draw.heal(end);
}

/// Two groups that only one host connects.
pub(super) fn bridge(draw: &mut Draw, from: u64) {
    let middle = draw.node();
    let sides: Vec<bool> = (0..draw.hosts()).map(|_| draw.rng.bool()).collect();
    let side = |host: u8| sides.get(usize::from(host)).copied();
    for a in (0..draw.hosts()).filter(|a| *a != middle) {
        for b in (0..draw.hosts()).filter(|b| *b != middle && side(*b) != side(a)) {
            draw.at(from, Action::Cut { from: a, to: b });
        }
    }
    let end = from + draw.while_ms();
    draw.heal(end);
}

pub(super) fn flapping(draw: &mut Draw, from: u64) {
    let (at, mut ms) = (draw.node(), from);
    for _ in 0..draw.rng.u8(2..6) {
        draw.at(ms, Action::Isolate { at });
        ms += log_uniform(&mut draw.rng, 50, 4_000);
        draw.at(ms, Action::Heal);
        ms += log_uniform(&mut draw.rng, 50, 4_000);
    }
}

/// One is cut off, the others delete, their logs forget it, the one comes back, perhaps empty.
pub(super) fn deletes_behind_a_cut(draw: &mut Draw, from: u64) {
    let away = draw.node();
    let by = draw.other(away);
    draw.writes(from, by, 4, 300);
    let cut = from + draw.rng.u64(300..1_500);
    draw.at(cut, Action::Isolate { at: away });
    draw.writes(cut, away, 3, 1_000);
    let count = draw.rng.usize(2..8);
    draw.deletes(cut, by, count, 1_000);
    if draw.is_on(Class::Truncate) {
        for at in 0..draw.nodes() {
            let (ms, keep) = (cut + 1_000 + draw.soon_ms(), draw.rng.u8(..4));
            draw.at(ms, Action::Truncate { at, keep });
        }
    }
    if draw.is_on(Class::Evict) {
        let (key, map) = (draw.rng.u8(..draw.keys), draw.rng.bool());
        draw.at(cut + 2_500, Action::Evict { at: by, key, map });
    }
    let end = cut + 2_500 + draw.while_ms();
    if draw.is_on(Class::Crash) && draw.rng.bool() {
        let restarted = draw.node();
        draw.at(end - 1_000, Action::Crash { at: restarted });
        let back = end + draw.rng.u64(..2_000);
        draw.at(back, Action::Start { at: restarted });
    }
    draw.heal(end);
}

/// Links clog and clear in random order.
pub(super) fn swizzle(draw: &mut Draw, from: u64) {
    for a in 0..draw.hosts() {
        for b in (0..draw.hosts()).filter(|b| *b != a) {
            if draw.rng.bool() {
                let (at, ms) = (from + draw.rng.u64(..3_000), draw.rng.u16(100..=5_000));
                draw.at(at, Action::Clog { from: a, to: b, ms });
            }
        }
    }
}

pub(super) fn slow(draw: &mut Draw, from: u64) {
    let (at, rate) = (draw.node(), log_uniform(&mut draw.rng, 1, 200));
    draw.at(from, Action::Slow { at, bytes_per_ms: u16::try_from(rate).unwrap_or(1) });
    let end = from + draw.while_ms();
    draw.at(end, Action::Slow { at, bytes_per_ms: 0 });
}
