//! Stories of single keys: what several hosts do to one of them at about the same time.

use crate::sim::plan::{Action, Op, OpKind};
use crate::sim::swarm::{Class, Draw};

/// Per type, the write that begins a life and those that extend, end or replace it.
const LIVES: &[(OpKind, &[OpKind])] = &[
    (OpKind::Set, &[OpKind::Touch, OpKind::Touch, OpKind::Set, OpKind::Delete]),
    (OpKind::Put, &[OpKind::TouchField, OpKind::Put, OpKind::Remove, OpKind::ExpireKey, OpKind::Clear]),
    (OpKind::AddMember, &[OpKind::AddMember, OpKind::RemoveMember, OpKind::ExpireKey]),
    (OpKind::Increment, &[OpKind::TouchCounter, OpKind::TouchCounter, OpKind::Reset, OpKind::Increment, OpKind::Clear]),
    (OpKind::UpdateCustom, &[OpKind::UpdateCustom, OpKind::UpdateCustom, OpKind::DeleteCustom]),
];

/// Per type, the write that begins a life, those that change it where it ends, and the one that extends it elsewhere.
const EXTENDED: &[(OpKind, &[OpKind], OpKind)] = &[
    (OpKind::Set, &[OpKind::Touch], OpKind::Touch),
    (OpKind::Put, &[OpKind::TouchField, OpKind::Remove, OpKind::ExpireKey], OpKind::TouchField),
    (OpKind::Increment, &[OpKind::Reset, OpKind::Clear, OpKind::TouchCounter, OpKind::Increment], OpKind::TouchCounter),
    (OpKind::UpdateCustom, &[OpKind::UpdateCustom], OpKind::UpdateCustom),
];

impl Draw {
    fn op(&mut self, ms: u64, at: u8, op: Op) {
        let ack = self.ack();
        self.at(ms, Action::Write { at, op, ack });
    }

    /// Returns how long a mutation with this share of the longest time to live lives.
    fn lives_ms(&self, ttl: u8) -> u64 {
        (self.setting.ttl_ms_max.saturating_mul(u64::from(ttl)) / 255).max(1)
    }
}

/// A life ends while hosts that cannot hear each other extend, end and replace it; logs and memory may be short, too.
pub(super) fn ended_apart(draw: &mut Draw, from: u64) {
    let Some((begin, others)) = draw.rng.choice(LIVES).copied() else { return };
    let (key, name) = (draw.rng.u8(..draw.keys), draw.rng.u8(..2));
    let (a, ttl) = (draw.node(), draw.rng.u8(1..));
    let end = from + draw.lives_ms(ttl).min(20_000);
    let (first, mut ms) = (Op { kind: begin, key, name, ttl }, from);
    for at in 0..draw.rng.u8(1..=draw.nodes()) {
        draw.op(ms, (a + at) % draw.nodes(), first);
        ms += draw.rng.u64(..100);
    }
    let apart = from + draw.rng.u64(..=(end - from).min(2_000));
    if draw.is_on(Class::Cuts) {
        let away = draw.node();
        draw.at(apart, Action::Isolate { at: away });
    }
    let until = end + draw.rng.u64(..3_000);
    for _ in 0..draw.rng.u8(2..8) {
        let (at, ms) = (draw.node(), draw.rng.u64(apart..=until));
        let kind = draw.rng.choice(others).copied().unwrap_or(begin);
        let ttl = if draw.rng.bool() { draw.rng.u8(..) } else { ttl };
        draw.op(ms, at, Op { kind, key, name, ttl });
    }
    if draw.is_on(Class::Truncate) {
        for _ in 0..draw.rng.u8(..3) {
            let (at, ms, keep) = (draw.node(), draw.rng.u64(apart..=until), draw.rng.u8(..3));
            draw.at(ms, Action::Truncate { at, keep });
        }
    }
    let healed = until + draw.soon_ms();
    draw.heal(healed);
}

/// Returns a time to live of some seconds, and of a third of the longest at most: it can be extended.
fn soon_over(draw: &Draw) -> u8 {
    u8::try_from((4_000 * 255 / draw.setting.ttl_ms_max.max(1)).clamp(1, 85)).unwrap_or(85)
}

/// One host changes a value and sees its life end, while another one, which cannot hear it, has extended it.
pub(super) fn extended_apart(draw: &mut Draw, from: u64) {
    if !draw.is_on(Class::Cuts) {
        return ended_apart(draw, from);
    }
    let Some((begin, changes, extend)) = draw.rng.choice(EXTENDED).copied() else { return };
    let (key, name, away) = (draw.rng.u8(..draw.keys), draw.rng.u8(..2), draw.node());
    let (by, first) = (draw.other(away), draw.node());
    let ttl = soon_over(draw);
    let op = |kind, ttl| Op { kind, key, name, ttl };
    draw.op(from, first, op(begin, ttl));
    let end = from + draw.lives_ms(ttl);
    let apart = from + draw.rng.u64(..=(end - from).min(600));
    draw.at(apart, Action::Isolate { at: away });
    let (changed, extended) = (apart + draw.rng.u64(..=end - apart), apart + draw.rng.u64(..=end - apart));
    if let Some(change) = draw.rng.choice(changes).copied() {
        draw.op(changed, away, op(change, ttl));
    }
    draw.op(extended, by, op(extend, 255));
    let healed = end + draw.lives_ms(ttl) + draw.rng.u64(200..2_000);
    draw.heal(healed);
}

/// One host sees counts end that another one, which it cannot hear, has extended. Its log forgets what it wrote meanwhile, so
/// it gives the others everything it has, and that is without these counts.
pub(super) fn extended_and_given_in_full(draw: &mut Draw, from: u64) {
    if !draw.is_on(Class::Ttl) {
        return truncated_one_way(draw, from);
    }
    let (key, name, away) = (draw.rng.u8(..draw.keys), draw.rng.u8(..2), draw.node());
    let (by, first) = (draw.other(away), draw.node());
    let ttl = soon_over(draw);
    let op = |kind, ttl| Op { kind, key, name, ttl };
    draw.op(from, first, op(OpKind::Increment, ttl));
    let end = from + draw.lives_ms(ttl);
    let apart = from + (end - from) / 2;
    draw.at(apart, Action::Isolate { at: away });
    let extended = apart + draw.rng.u64(..=end - apart);
    draw.op(extended, by, op(OpKind::TouchCounter, 255));
    // Sweeps come every tenth of a second.
    let swept = end + 500 + draw.soon_ms();
    draw.writes(apart + 1, away, 4, swept - apart);
    draw.at(swept + 1, Action::Truncate { at: away, keep: 0 });
    draw.at(swept + 2, Action::Heal);
}

/// The clock of a host steps back after values have ended by it, and they are asked for again.
pub(super) fn ended_before_a_step_back(draw: &mut Draw, from: u64) {
    if !draw.is_on(Class::Skew) {
        return many_at_once(draw, from);
    }
    let (at, ahead_ms, ttl) = (draw.node(), draw.rng.u16(1_000..9_000), draw.rng.u8(1..20));
    draw.at(from, Action::Skew { at, ms: i64::from(ahead_ms) });
    let (key, name) = (draw.rng.u8(..draw.keys), draw.rng.u8(..2));
    let op = |kind, ttl| Op { kind, key, name, ttl };
    for kind in [OpKind::Set, OpKind::Put, OpKind::Increment] {
        draw.op(from + 1, at, op(kind, ttl));
    }
    let end = from + 1 + draw.lives_ms(ttl).min(u64::from(ahead_ms));
    draw.op(end + 1, at, op(OpKind::AddMember, 0));
    draw.at(end + 2, Action::Skew { at, ms: 0 });
    for kind in [OpKind::Touch, OpKind::TouchField, OpKind::TouchCounter] {
        draw.op(end + 3, at, op(kind, 255));
    }
    if draw.is_on(Class::Reads) {
        let client = draw.rng.u8(..4);
        draw.at(end + 2, Action::Read { client, at, key });
    }
}

/// Several writes of one client at one instant, with one time to live for all.
pub(super) fn many_at_once(draw: &mut Draw, from: u64) {
    let mut ms = from;
    for _ in 0..draw.rng.u8(1..4) {
        let (at, ttl) = (draw.node(), draw.rng.u8(..));
        for key in 0..draw.keys {
            let kind = *draw.rng.choice(&[OpKind::Set, OpKind::Put, OpKind::AddMember]).unwrap_or(&OpKind::Set);
            draw.op(ms, at, Op { kind, key, name: key % 4, ttl });
        }
        ms += draw.rng.u64(..500);
    }
}

/// Two hosts write one key before they hear of each other, and one gives it back before the other's write arrives.
pub(super) fn evicted_at_once(draw: &mut Draw, from: u64) {
    let (key, a) = (draw.rng.u8(..draw.keys), draw.node());
    let b = draw.other(a);
    draw.write_key(from, a, OpKind::Set, key);
    let ms = from + draw.rng.u64(..4);
    draw.write_key(ms, b, OpKind::Set, key);
    let evicted = ms + draw.rng.u64(..10);
    draw.at(evicted, Action::Evict { at: b, key, map: false });
}

/// One host is heard and hears nobody. The others delete, their logs forget it, they take the one's writes on the same
/// keys, and give them back.
pub(super) fn truncated_one_way(draw: &mut Draw, from: u64) {
    let away = draw.node();
    let by = draw.other(away);
    let (key, name) = (draw.rng.u8(..draw.keys), draw.rng.u8(..2));
    let op = |kind| Op { kind, key, name, ttl: 0 };
    for kind in [OpKind::Put, OpKind::AddMember, OpKind::Increment] {
        draw.op(from, by, op(kind));
    }
    let cut = from + draw.rng.u64(200..1_500);
    for at in (0..draw.nodes()).filter(|at| *at != away) {
        draw.at(cut, Action::Cut { from: at, to: away });
    }
    for kind in [OpKind::Remove, OpKind::RemoveMember, OpKind::Clear, OpKind::Put, OpKind::Reset] {
        if draw.rng.bool() {
            let ms = cut + 1 + draw.rng.u64(..300);
            draw.op(ms, by, op(kind));
        }
    }
    for at in 0..draw.nodes() {
        let (ms, keep) = (cut + draw.rng.u64(300..900), draw.rng.u8(..2));
        draw.at(ms, Action::Truncate { at, keep });
    }
    for kind in [OpKind::Put, OpKind::AddMember] {
        let ms = cut + draw.rng.u64(..1_500);
        draw.op(ms, away, op(kind));
    }
    if draw.is_on(Class::Evict) {
        for at in 0..draw.nodes() {
            let ms = cut + draw.rng.u64(1_000..4_000);
            draw.at(ms, Action::Evict { at, key, map: true });
        }
    }
    let end = cut + 2_000 + draw.while_ms();
    draw.heal(end);
}
