//! Stories of what a host holds and of what it claims: budgets, evictions, short logs, lies.

use crate::sim::plan::{Action, Lie, OpKind};
use crate::sim::swarm::{Class, Draw};

/// More is written than the budget takes.
pub(super) fn pressure(draw: &mut Draw, from: u64) {
    for _ in 0..draw.rng.u8(5..20) {
        let (at, ms) = (draw.node(), from + draw.rng.u64(..1_000));
        let kind = draw.rng.choice(&[OpKind::Set, OpKind::Put, OpKind::AddMember]).copied().unwrap_or(OpKind::Set);
        draw.write(ms, at, kind);
    }
}

/// More is written at once than a frame takes, perhaps by a host whose clock is ahead or for one that reads slowly.
pub(super) fn bulk(draw: &mut Draw, from: u64) {
    if draw.setting.value_bytes == 0 {
        return;
    }
    let at = draw.node();
    let other = draw.other(at);
    if draw.is_on(Class::Skew) && draw.rng.bool() {
        let ms = i64::from(draw.rng.u16(1_000..9_000));
        draw.at(from, Action::Skew { at, ms });
        draw.at(from + 12_000, Action::Skew { at, ms: 0 });
    }
    if draw.is_on(Class::Slow) && draw.rng.bool() {
        let bytes_per_ms = draw.rng.u16(50..500);
        draw.at(from, Action::Slow { at: other, bytes_per_ms });
        draw.at(from + 8_000, Action::Slow { at: other, bytes_per_ms: 0 });
    }
    large_writes(draw, from, at);
}

/// So many within a tenth of a second that several are large.
fn large_writes(draw: &mut Draw, from: u64, at: u8) {
    let within = draw.rng.u64(..100);
    for _ in 0..draw.rng.u8(8..40) {
        let ms = from + draw.rng.u64(..=within);
        let kind = if draw.rng.u8(..4) == 0 { OpKind::Put } else { OpKind::Set };
        draw.write(ms, at, kind);
    }
}

/// A host joins again, perhaps reading slowly, while the clocks of all others run ahead by about what is tolerated: some
/// pieces of what it is given wait for the clock and others do not.
pub(super) fn ahead_of_a_joiner(draw: &mut Draw, from: u64) {
    if draw.setting.value_bytes == 0 || !draw.is_on(Class::Skew) || !draw.is_on(Class::Crash) {
        return bulk(draw, from);
    }
    let joiner = draw.node();
    let by = draw.other(joiner);
    large_writes(draw, from, by);
    draw.end(from + 200, joiner);
    let start = from + 300 + draw.soon_ms();
    draw.at(start, Action::Start { at: joiner });
    if draw.is_on(Class::Slow) {
        let bytes_per_ms = draw.rng.u16(50..1_000);
        draw.at(start, Action::Slow { at: joiner, bytes_per_ms });
        draw.at(start + 4_000, Action::Slow { at: joiner, bytes_per_ms: 0 });
    }
    let (ahead, ms) = (start + draw.rng.u64(..600), i64::from(draw.rng.u16(950..1_400)));
    for at in (0..draw.nodes()).filter(|at| *at != joiner) {
        draw.at(ahead, Action::Skew { at, ms });
        draw.at(start + 6_000, Action::Skew { at, ms: 0 });
        draw.writes(ahead, at, 6, 1_000);
    }
}

pub(super) fn evictions(draw: &mut Draw, from: u64) {
    for _ in 0..draw.rng.u8(3..12) {
        let (at, key, map) = (draw.host(), draw.rng.u8(..draw.keys), draw.rng.bool());
        let ms = from + draw.rng.u64(..8_000);
        draw.at(ms, Action::Evict { at, key, map });
    }
}

/// Entries settle, and the first host loses some of them. It is always the same one: what all have lost is gone.
pub(super) fn damage(draw: &mut Draw, from: u64) {
    let by = draw.other(0);
    for key in 0..draw.keys {
        draw.write_key(from, by, OpKind::Set, key);
    }
    let settled = from + draw.rng.u64(500..6_000);
    for _ in 0..draw.rng.u8(1..8) {
        let (key, ms) = (draw.rng.u8(..draw.keys), settled + draw.soon_ms());
        draw.at(ms, Action::Damage { at: 0, key });
    }
}

/// Entries settle, a host gives them back, and then has to serve a joiner or take a late update.
pub(super) fn evict_and_join(draw: &mut Draw, from: u64) {
    let at = draw.node();
    let by = draw.other(at);
    draw.writes(from, by, 6, 500);
    let settled = from + draw.rng.u64(1_000..15_000);
    for key in 0..draw.keys {
        let map = draw.rng.bool();
        draw.at(settled, Action::Evict { at, key, map });
    }
    if draw.is_on(Class::Crash) || draw.is_on(Class::Stop) {
        draw.end(settled + 50, by);
        draw.at(settled + 500, Action::Start { at: by });
    } else {
        draw.writes(settled, by, 4, 500);
    }
}

/// A map settles and everybody gives it back; meanwhile one starts anew where it sees nobody, founds a cluster of its own
/// and writes to the map; then the two meet.
pub(super) fn evicted_apart(draw: &mut Draw, from: u64) {
    if !draw.is_on(Class::Crash) || !draw.is_on(Class::Cuts) {
        return evict_and_join(draw, from);
    }
    let (away, key) = (draw.node(), draw.rng.u8(..draw.keys));
    let by = draw.other(away);
    for ms in [from, from + 5, from + 10] {
        draw.write_key(ms, by, OpKind::Put, key);
    }
    let apart = from + draw.rng.u64(1_000..4_000);
    draw.at(apart, Action::Isolate { at: away });
    draw.at(apart + 10, Action::Crash { at: away });
    draw.at(apart + 20, Action::Start { at: away });
    for at in (0..draw.nodes()).filter(|at| *at != away) {
        draw.at(apart + 500, Action::Evict { at, key, map: true });
    }
    let founded = apart + draw.rng.u64(2_200..4_000);
    draw.write_key(founded, away, OpKind::Put, key);
    let again = if draw.rng.bool() { OpKind::Put } else { OpKind::Remove };
    draw.write_key(founded + 10, away, again, key);
    let end = founded + draw.while_ms();
    draw.heal(end);
}

pub(super) fn truncations(draw: &mut Draw, from: u64) {
    for at in 0..draw.nodes() {
        let (ms, keep) = (from + draw.rng.u64(..3_000), draw.rng.u8(..8));
        draw.at(ms, Action::Truncate { at, keep });
    }
}

fn liar(draw: &Draw) -> u8 {
    u8::try_from(draw.setting.liars.trailing_zeros()).unwrap_or(0)
}

pub(super) fn lies(draw: &mut Draw, from: u64) {
    let at = liar(draw);
    for _ in 0..draw.rng.u8(1..8) {
        let (ms, lie) = (from + draw.rng.u64(..5_000), draw.rng.choice(Lie::ALL).copied().unwrap_or(Lie::Noise));
        draw.at(ms, Action::Forge { at, lie });
    }
}

/// The liar claims to have seen everything, for itself and for others, while one does not see anything.
pub(super) fn lies_while_one_is_away(draw: &mut Draw, from: u64) {
    let liar = liar(draw);
    let away = draw.other(liar);
    if draw.is_on(Class::Cuts) {
        draw.at(from, Action::Isolate { at: away });
    }
    for by in (0..draw.nodes()).filter(|by| *by != away && *by != liar) {
        draw.deletes(from, by, 2, 1_000);
    }
    for lie in [Lie::Report, Lie::Events, Lie::Origin] {
        let ms = from + draw.rng.u64(..2_000);
        draw.at(ms, Action::Forge { at: liar, lie });
    }
    let end = from + 2_000 + draw.while_ms();
    draw.heal(end);
}

/// The liar joins again, and lies to those who are about to give it a snapshot or to take it for a member.
pub(super) fn lies_while_joining(draw: &mut Draw, from: u64) {
    if !draw.is_on(Class::Crash) {
        return lies(draw, from);
    }
    let at = liar(draw);
    draw.end(from, at);
    let start = from + 1 + draw.soon_ms();
    draw.at(start, Action::Start { at });
    for _ in 0..draw.rng.u8(4..12) {
        let lie = draw.rng.choice(&[Lie::Flood, Lie::Flood, Lie::Piece, Lie::Report]).copied().unwrap_or(Lie::Flood);
        let ms = start + draw.rng.u64(..1_000);
        draw.at(ms, Action::Forge { at, lie });
    }
}
