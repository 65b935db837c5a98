//! What clients do: writes of all types, waits for levels, reads with tokens.
//!
//! Each seed draws which types it uses, how fast, from where and on how few keys, because a mistake may need a map that
//! is written from two sides twice a second and nothing else.
//!
//! # Invariants
//! * Traffic starts and ends on its own: stories only add to it.

use super::{Class, Draw, Profile, USUAL, log_uniform};
use crate::sim::plan::{Ack, Action, Op, OpKind};
use crate::sim::setting::Carrier;

/// The mutations of a type, each as often as it is drawn.
const REGISTERS: &[OpKind] = &[
    OpKind::Set,
    OpKind::Set,
    OpKind::Set,
    OpKind::Set,
    OpKind::SetTagged,
    OpKind::SetTagged,
    OpKind::Delete,
    OpKind::Delete,
    OpKind::Touch,
];
const FIELDS: &[OpKind] =
    &[OpKind::Put, OpKind::Put, OpKind::Put, OpKind::Put, OpKind::Remove, OpKind::Remove, OpKind::TouchField];
const MEMBERS: &[OpKind] =
    &[OpKind::AddMember, OpKind::AddMember, OpKind::AddMember, OpKind::RemoveMember, OpKind::RemoveMember];
const COUNTERS: &[OpKind] =
    &[OpKind::Increment, OpKind::Increment, OpKind::Increment, OpKind::Decrement, OpKind::Reset, OpKind::TouchCounter];
const CUSTOMS: &[OpKind] = &[OpKind::UpdateCustom, OpKind::UpdateCustom, OpKind::UpdateCustom, OpKind::DeleteCustom];
const WHOLE: &[OpKind] = &[OpKind::ExpireKey, OpKind::Clear, OpKind::Clear];
const MANY: &[OpKind] = &[OpKind::InvalidateAll, OpKind::InvalidateTag, OpKind::InvalidatePrefix];

/// What a profile of reads at a level draws.
pub(super) const READS: Profile = Profile {
    name: "reads",
    about: "clients that read at a level, with every class of fault",
    always: &[Class::Asks, Class::Acks],
    maybe: USUAL,
    carrier: Carrier::Messages,
};

/// One in so many mutations is of a whole map, or of many keys, where those are drawn at all.
const WHOLE_EVERY: u8 = 10;
const MANY_EVERY: u8 = 20;

/// What the traffic of a run is made of.
#[derive(Debug)]
struct Mix {
    kinds: Vec<OpKind>,
    whole: bool,
    many: bool,
    /// Milliseconds between two operations, on average.
    gap_ms: u64,
    /// Of 255, operations on the first key.
    hot: u8,
    /// Of 255, operations that are reads.
    reads: u8,
    /// Of 255, mutations that end by themselves.
    ttl: u8,
}

impl Draw {
    /// Draws `count` operations from `from` on; returns when the last one happens.
    pub(super) fn traffic(&mut self, from: u64, count: usize) -> u64 {
        let mix = self.mix();
        // Idle times let things settle and be collected between two bursts.
        let idle: Vec<usize> = (0..self.rng.usize(..3)).map(|_| self.rng.usize(..count.max(1))).collect();
        let mut at = from;
        for n in 0..count {
            at += self.rng.u64(..=mix.gap_ms * 2);
            if idle.contains(&n) {
                at += self.rng.u64(1_000..18_000);
            }
            self.operation(&mix, at);
        }
        at
    }

    fn mix(&mut self) -> Mix {
        let mut kinds = Vec::new();
        for kind in [REGISTERS, FIELDS, MEMBERS, COUNTERS, CUSTOMS] {
            if self.rng.bool() {
                kinds.extend(kind);
            }
        }
        if kinds.is_empty() {
            kinds.extend(REGISTERS);
        }
        Mix {
            kinds,
            whole: self.rng.bool(),
            many: self.rng.bool(),
            gap_ms: log_uniform(&mut self.rng, 1, 250),
            hot: if self.rng.bool() { self.rng.u8(..200) } else { 0 },
            reads: if self.is_on(Class::Reads) { self.rng.u8(..128) } else { 0 },
            ttl: if self.is_on(Class::Ttl) { self.rng.u8(..) } else { 0 },
        }
    }

    fn operation(&mut self, mix: &Mix, ms: u64) {
        let at = self.host();
        let key = if self.rng.u8(..) < mix.hot { 0 } else { self.rng.u8(..self.keys) };
        if self.rng.u8(..) < mix.reads {
            let client = self.rng.u8(..4);
            return self.at(ms, Action::Read { client, at, key });
        }
        if self.is_on(Class::Asks) && self.rng.u8(..4) == 0 {
            let ack = Ack { all: self.rng.u8(..4) == 0, within_ms: self.rng.u16(50..6_000) };
            return self.at(ms, Action::Ask { at, key, ack });
        }
        if self.is_on(Class::Edges) && self.rng.u8(..8) == 0 {
            return self.at(ms, Action::Fetch { at, key });
        }
        let kinds = match (self.rng.u8(..WHOLE_EVERY), self.rng.u8(..MANY_EVERY)) {
            (0, _) if mix.whole => WHOLE,
            (_, 0) if mix.many => MANY,
            _ => &mix.kinds,
        };
        let kind = kinds.get(self.rng.usize(..kinds.len())).copied().unwrap_or(OpKind::Set);
        let ttl = if self.rng.u8(..) < mix.ttl { self.rng.u8(1..) } else { 0 };
        let op = Op { kind, key, name: self.rng.u8(..4), ttl };
        let ack = self.ack();
        self.at(ms, Action::Write { at, op, ack });
    }

    /// One in four writers waits, where any does.
    pub(super) fn ack(&mut self) -> Option<Ack> {
        let waits = self.is_on(Class::Acks) && self.rng.u8(..4) == 0;
        waits.then(|| Ack { all: self.rng.u8(..4) == 0, within_ms: self.rng.u16(50..6_000) })
    }
}
