//! Stories of nodes that were not configured with each other, that move, and that stand in for each other.

use crate::sim::plan::{Action, OpKind};
use crate::sim::swarm::Draw;

/// Two that found each other through a third lose each other for longer than anybody waits to be dialled.
pub(super) fn strangers_part(draw: &mut Draw, from: u64) {
    let one = draw.node();
    let other = draw.other(one);
    for (a, b) in [(one, other), (other, one)] {
        draw.at(from, Action::Cut { from: a, to: b });
    }
    draw.writes(from, one, 3, 4_000);
    let end = from + 3_000 + draw.while_ms();
    draw.heal(end);
}

/// All begin anew in two parts that cannot hear of each other, write, delete, and would forget if they took themselves for
/// all there are.
pub(super) fn founded_apart(draw: &mut Draw, from: u64) {
    let nodes = draw.nodes();
    let at = draw.rng.u8(1..nodes.max(2));
    draw.at(from, Action::Split { at });
    for at in 0..nodes {
        draw.at(from, Action::Crash { at });
        let start = from + 1 + draw.rng.u64(..500);
        draw.at(start, Action::Start { at });
    }
    let key = draw.rng.u8(..draw.keys);
    for by in 0..nodes {
        for kind in [OpKind::Set, OpKind::Put, OpKind::Increment, OpKind::UpdateCustom] {
            let ms = from + 4_000 + draw.rng.u64(..1_000);
            draw.write_key(ms, by, kind, key);
        }
    }
    let by = draw.node();
    for kind in [OpKind::Delete, OpKind::Clear, OpKind::Reset, OpKind::DeleteCustom] {
        let ms = from + 5_500 + draw.rng.u64(..500);
        draw.write_key(ms, by, kind, key);
    }
    let end = from + 18_000 + draw.soon_ms();
    draw.at(end, Action::Heal);
}

/// The last host moves, perhaps while some cannot hear of it, and perhaps twice.
pub(super) fn moves(draw: &mut Draw, from: u64) {
    let at = draw.nodes().saturating_sub(1);
    let other = draw.other(at);
    if draw.rng.bool() {
        draw.at(from, Action::Cut { from: at, to: other });
        draw.at(from, Action::Cut { from: other, to: at });
        let end = from + draw.while_ms();
        draw.heal(end);
    }
    draw.writes(from, other, 3, 2_000);
    draw.at(from + 20, Action::Move { at });
    if draw.rng.bool() {
        let again = from + 1_000 + draw.while_ms();
        draw.at(again, Action::Move { at });
    }
}

/// Operators promote and demote while it is told to some later than to others.
pub(super) fn roles_change(draw: &mut Draw, from: u64) {
    let at = draw.node();
    if draw.rng.bool() {
        let away = draw.other(at);
        draw.at(from, Action::Isolate { at: away });
        let end = from + 500 + draw.soon_ms();
        draw.heal(end);
    }
    let mut ms = from;
    for _ in 0..draw.rng.u8(2..6) {
        let action = if draw.rng.bool() { Action::Promote { at } } else { Action::Demote { at } };
        draw.at(ms, action);
        draw.writes(ms, at, 1, 300);
        ms += draw.rng.u64(..800);
    }
    if draw.rng.bool() {
        let by = draw.host();
        draw.at(ms, Action::Start { at: by });
    }
}

/// Those that do not stand by end, or can be heard by some only, and come back after somebody could have taken over.
pub(super) fn the_active_die(draw: &mut Draw, from: u64) {
    let standbys = draw.setting.standbys;
    let active: Vec<u8> = (0..draw.nodes()).filter(|at| standbys & (1 << at) == 0).collect();
    let cuts = draw.rng.bool();
    for at in active {
        let ms = from + draw.rng.u64(..400);
        if cuts {
            draw.at(ms, Action::Isolate { at });
        } else {
            draw.end(ms, at);
            let back = ms + 2_000 + draw.while_ms();
            draw.at(back, Action::Start { at });
        }
    }
    for at in 0..draw.nodes() {
        draw.writes(from + 1_000, at, 2, 6_000);
    }
    let end = from + 2_000 + draw.while_ms();
    draw.heal(end);
}
