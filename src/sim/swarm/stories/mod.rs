//! Short stories: faults in the order in which they hurt.
//!
//! Independent faults meet in one rule's weak spot once in a hundred thousand runs. A maintainer knows where those spots
//! are: what if the donor dies right after its snapshot? What if the one who missed the deletes comes back after the log
//! forgot them? Each such question is a story here, drawn with everything about it left to chance but its order.
//!
//! # Invariants
//! * A story belongs to a class and is only drawn where that class is on. Parts of another class are left out where
//!   that one is off.

mod clocks;
mod edges;
mod keys;
mod members;
mod network;
mod state;
mod strangers;

use super::{Class, Draw, log_uniform, small};
use crate::sim::plan::{Action, OpKind};
use clocks::{
    all_clocks, behind_and_apart, burst, far_future, long_pause, pause, pause_across_a_collection, skew,
    starts_in_the_future, steps_back,
};
use edges::{deleted_while_fetched, edge_gives_in_full, edge_left_alone, fetches};
use keys::{
    ended_apart, ended_before_a_step_back, evicted_at_once, extended_and_given_in_full, extended_apart, many_at_once,
    truncated_one_way,
};
use members::{
    again_and_again, all_but_one, all_spares, called_back, clone, clone_apart, crash, crash_after_write,
    delete_then_join, delete_then_restart, donor_behind_dies, donor_dies, donor_of_a_spare_dies, given_up_and_back,
    join_and_leave, join_under_writes, leave, remove_each_other, remove_the_dead, rolling, stop, unheard_of, zombie,
};
use network::{
    alone, bridge, deletes_behind_a_cut, flapping, gone_for_long, halves, halves_for_long, one_way, slow, swizzle,
};
use state::{
    ahead_of_a_joiner, bulk, damage, evict_and_join, evicted_apart, evictions, lies, lies_while_joining,
    lies_while_one_is_away, pressure, truncations,
};
use strangers::{founded_apart, moves, roles_change, strangers_part, the_active_die};

type Story = fn(&mut Draw, u64);

/// Mutations that leave something behind which must not be forgotten too early.
const DELETES: &[OpKind] = &[
    OpKind::Delete,
    OpKind::Remove,
    OpKind::RemoveMember,
    OpKind::Reset,
    OpKind::Clear,
    OpKind::DeleteCustom,
    OpKind::InvalidateAll,
];

/// The stories of a class.
fn stories(class: Class) -> &'static [Story] {
    match class {
        Class::Cuts => &[one_way, alone, alone, halves, bridge, flapping, deletes_behind_a_cut, deletes_behind_a_cut],
        Class::Clogs => &[swizzle],
        Class::Slow => &[slow],
        Class::Skew => &[skew, steps_back, all_clocks, burst, behind_and_apart],
        Class::FarFuture => &[far_future, starts_in_the_future],
        Class::Pause => &[pause, pause, pause_across_a_collection, long_pause],
        Class::Crash => &[
            crash,
            crash,
            crash_after_write,
            all_but_one,
            donor_dies,
            donor_dies,
            delete_then_restart,
            again_and_again,
            again_and_again,
        ],
        Class::Stop => &[stop, rolling, leave, leave],
        Class::Join => &[join_under_writes, donor_of_a_spare_dies, all_spares, delete_then_join, join_and_leave],
        Class::Remove => &[
            remove_the_dead,
            zombie,
            zombie,
            called_back,
            called_back,
            remove_each_other,
            unheard_of,
            donor_behind_dies,
            donor_behind_dies,
        ],
        Class::Absence => &[gone_for_long, halves_for_long, given_up_and_back, given_up_and_back],
        Class::Clone => &[clone, clone_apart],
        Class::Sparse => &[strangers_part, founded_apart],
        Class::Move => &[moves, moves],
        Class::Roles => &[roles_change, the_active_die],
        Class::Memory => &[pressure],
        Class::Large => &[bulk, ahead_of_a_joiner],
        Class::Evict => &[evictions, evict_and_join, evicted_at_once, evicted_apart],
        Class::Truncate => &[truncations, deletes_behind_a_cut, truncated_one_way, extended_and_given_in_full],
        Class::Ttl => {
            &[ended_apart, ended_apart, extended_apart, extended_apart, many_at_once, ended_before_a_step_back]
        }
        Class::Edges => &[fetches, fetches, deleted_while_fetched, edge_gives_in_full, edge_left_alone],
        Class::Damage => &[damage],
        Class::Liars => &[lies, lies_while_one_is_away, lies_while_joining],
        Class::Loss
        | Class::Duplicate
        | Class::Corrupt
        | Class::Delay
        | Class::Newer
        | Class::Acks
        | Class::Reads
        | Class::Asks => &[],
    }
}

impl Draw {
    /// Draws one story of the classes that are on, from about `from` on.
    pub(super) fn story(&mut self, from: u64) {
        let classes: Vec<Class> = self.on.iter().copied().filter(|class| !stories(*class).is_empty()).collect();
        if let Some(story) = self.rng.choice(classes).and_then(|class| self.rng.choice(stories(class))) {
            story(self, from);
        }
    }

    /// A time of most likely a second or two, at most half a minute.
    fn while_ms(&mut self) -> u64 {
        log_uniform(&mut self.rng, 100, 30_000)
    }

    fn soon_ms(&mut self) -> u64 {
        self.rng.u64(..1_500)
    }

    /// All hosts but clones.
    fn hosts(&self) -> u8 {
        small(self.setting.nodes + self.setting.spare)
    }

    fn nodes(&self) -> u8 {
        small(self.setting.nodes)
    }

    fn spares(&self) -> std::ops::Range<u8> {
        self.nodes()..self.hosts()
    }

    fn delete(&mut self) -> OpKind {
        self.rng.choice(DELETES).copied().unwrap_or(OpKind::Delete)
    }

    /// `count` writes at one host within `within` milliseconds.
    fn writes(&mut self, from: u64, at: u8, count: usize, within: u64) {
        for _ in 0..count {
            let ms = from + self.rng.u64(..=within);
            let kinds = [OpKind::Set, OpKind::Put, OpKind::AddMember, OpKind::Increment, OpKind::UpdateCustom];
            let kind =
                if self.rng.u8(..3) == 0 { self.delete() } else { *self.rng.choice(&kinds).unwrap_or(&OpKind::Set) };
            self.write(ms, at, kind);
        }
    }

    /// `count` deletions at one host within `within` milliseconds.
    fn deletes(&mut self, from: u64, at: u8, count: usize, within: u64) {
        for _ in 0..count {
            let (ms, kind) = (from + self.rng.u64(..=within), self.delete());
            self.write(ms, at, kind);
        }
    }

    fn heal(&mut self, ms: u64) {
        if self.rng.u8(..8) > 0 {
            self.at(ms, Action::Heal);
        }
    }

    /// A process ends, in either way.
    fn end(&mut self, ms: u64, at: u8) {
        let stops = self.is_on(Class::Stop) && self.rng.bool();
        self.at(ms, if stops { Action::Stop { at } } else { Action::Crash { at } });
    }
}
