//! Stories of hosts that do not hold everything.

use crate::sim::plan::{Action, OpKind};
use crate::sim::swarm::Draw;

/// How old a register must be before an edge gives it back.
const COLD_AFTER: u64 = 10_000;

fn edge(draw: &mut Draw) -> u8 {
    let edges = draw.setting.edges;
    let all: Vec<u8> = (0..draw.hosts()).filter(|at| edges & (1 << at) != 0).collect();
    draw.rng.choice(all).unwrap_or(0)
}

fn whole(draw: &mut Draw) -> u8 {
    let edges = draw.setting.edges;
    let all: Vec<u8> = (0..draw.nodes()).filter(|at| edges & (1 << at) == 0).collect();
    draw.rng.choice(all).unwrap_or(0)
}

/// Registers are written and grow cold, then clients of an edge want them, some at the same time.
pub(super) fn fetches(draw: &mut Draw, from: u64) {
    let (at, by) = (edge(draw), whole(draw));
    for key in 0..draw.keys {
        draw.write_key(from, by, OpKind::Set, key);
    }
    let cold = from + COLD_AFTER + draw.while_ms();
    for _ in 0..draw.rng.u8(4..16) {
        let (key, ms) = (draw.rng.u8(..draw.keys), cold + draw.rng.u64(..3_000));
        draw.at(ms, Action::Fetch { at, key });
        if draw.rng.bool() {
            draw.at(ms, Action::Fetch { at, key });
        }
    }
    draw.writes(cold, by, 3, 3_000);
}

/// Somebody deletes where nobody hears it; when all hear of it at once, clients of an edge are fetching just that.
pub(super) fn deleted_while_fetched(draw: &mut Draw, from: u64) {
    let (at, by, key) = (edge(draw), whole(draw), draw.rng.u8(..draw.keys));
    draw.write_key(from, by, OpKind::Set, key);
    let cold = from + COLD_AFTER + draw.soon_ms();
    draw.at(cold, Action::Isolate { at: by });
    draw.write_key(cold + 10, by, OpKind::Delete, key);
    let heal = cold + COLD_AFTER + draw.while_ms();
    draw.at(heal, Action::Heal);
    let (first, gap) = (heal + draw.rng.u64(..1_000), draw.rng.u64(10..60));
    (0..20).for_each(|n| draw.at(first + n * gap, Action::Fetch { at, key }));
}

/// An edge that has given much back writes more than its log holds while nobody hears it, so that it has to give everything
/// it has.
pub(super) fn edge_gives_in_full(draw: &mut Draw, from: u64) {
    let (at, by) = (edge(draw), whole(draw));
    for key in 0..draw.keys {
        draw.write_key(from, by, OpKind::Set, key);
    }
    let cold = from + COLD_AFTER + draw.soon_ms() * 4;
    draw.at(cold, Action::Isolate { at });
    draw.writes(cold + 10, at, 4, 200);
    let keep = draw.rng.u8(..2);
    draw.at(cold + 300, Action::Truncate { at, keep });
    if draw.rng.bool() {
        draw.deletes(cold, by, 3, 2_000);
    }
    let end = cold + 400 + draw.while_ms();
    draw.at(end, Action::Heal);
}

/// All that hold everything end, and come back to find nobody but an edge; or one does, and finds an edge first.
pub(super) fn edge_left_alone(draw: &mut Draw, from: u64) {
    let (edges, one) = (draw.setting.edges, whole(draw));
    draw.writes(from, one, 4, 500);
    let (end, all) = (from + COLD_AFTER + draw.while_ms(), draw.rng.bool());
    for at in (0..draw.nodes()).filter(|at| edges & (1 << at) == 0 && (all || *at == one)) {
        let end = end + draw.rng.u64(..300);
        draw.end(end, at);
        let back = end + 1 + draw.rng.u64(..3_000);
        draw.at(back, Action::Start { at });
        draw.writes(back + 3_000, at, 2, 3_000);
    }
    let (at, ms) = (edge(draw), end + draw.soon_ms());
    draw.writes(ms, at, 2, 1_000);
}
