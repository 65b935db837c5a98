//! What a copy of a partition sums up to: a flat table of 64-bit sums, and the hash of each thing that counts.
//!
//! Two copies with equal contexts hold the same live things, so the sums over them are equal; where a copy lost or
//! missed something silently they are not, which is what repair looks for (`docs/design.md` 3.14). The idea is the
//! `TicTac` tree of Riak (`kv_index_tictactree`) with 64-bit keyed sums and without stored inner nodes.
//!
//! What counts, each with a print of its own: a register's value by its stamp, deadline and latest touch; an element of
//! a map by its path and dot; a contribution that is left to count, by all it says; a custom state by its generation
//! and the events merged in. Graves do not count, nor contributions that were reset: every copy collects them when it
//! may. So a value here and a grave there differ, and a grave here and nothing there do not. What expires does not
//! count in a comparison from its *horizon* on, so it does not matter who has swept it.
//!
//! # Invariants
//! * Prints are summed, not combined by exclusive or: the same thing twice does not cancel.
//! * A print is keyed by its key's hash, which no client can predict.
//! * The table changes under its partition's lock with the entry: it equals the one computed anew.
//! * A leaf in which something was evicted is *partial* and says nothing from then on.

use std::collections::BTreeSet;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::entry::{Body, Entry};
use crate::crdt::{Cell, Contribution, Custom, Dot, NEVER, Path, Payload, Scope, Tree};
use crate::id::ReplicaId;

/// Leaves of an empty table, as a power of two: 128 bytes a partition.
const BITS_MIN: u32 = 4;
/// Most leaves of a partition, as a power of two: 512 KiB.
pub const BITS_MAX: u32 = 16;
/// Keys a leaf has on average before the table doubles: listing a leaf costs three bytes for each.
const KEYS_PER_LEAF: usize = 8;

/// The sum of some prints, and when the first of the things summed stops being visible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Print {
    /// The wrapping sum; 0 of nothing.
    pub sum: u64,
    /// The earliest deadline; [`NEVER`] of none.
    pub soonest: u64,
}

impl Default for Print {
    fn default() -> Self {
        Self { sum: 0, soonest: NEVER }
    }
}

impl Print {
    fn add(&mut self, deadline: u64, horizon_ms: u64, print: impl FnOnce() -> u64) {
        if deadline > horizon_ms {
            self.sum = self.sum.wrapping_add(print());
            self.soonest = self.soonest.min(deadline);
        }
    }
}

/// The sums of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    leaves: Vec<u64>,
    root: u64,
    /// Leaves of the largest table in which something was evicted.
    partial: BTreeSet<u32>,
}

impl Default for Table {
    fn default() -> Self {
        Self { leaves: vec![0; 1 << BITS_MIN], root: 0, partial: BTreeSet::new() }
    }
}

impl Table {
    /// Returns the sum of everything.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Returns the sums, in order of leaf; how many there are is a power of two.
    #[must_use]
    pub fn leaves(&self) -> &[u64] {
        &self.leaves
    }

    /// Returns the leaves that say nothing.
    #[must_use]
    pub fn partial(&self) -> BTreeSet<u32> {
        self.partial.iter().map(|at| at % width(self.leaves.len())).collect()
    }

    pub(super) fn add(&mut self, hash: u64, delta: u64) {
        self.root = self.root.wrapping_add(delta);
        let at = leaf_of(hash, self.leaves.len());
        if let Some(leaf) = self.leaves.get_mut(at) {
            *leaf = leaf.wrapping_add(delta);
        }
    }

    /// Something of this key is gone here alone.
    pub(super) fn mark_partial(&mut self, hash: u64) {
        self.partial.insert(u32::try_from(leaf_of(hash, 1 << BITS_MAX)).unwrap_or(0));
    }

    /// Tells whether so many keys are better spread over more leaves.
    pub(super) fn is_crowded(&self, keys: usize) -> bool {
        keys > self.leaves.len() * KEYS_PER_LEAF && self.leaves.len() < 1 << BITS_MAX
    }

    /// Sums up anew, over as many leaves as so many keys are to have.
    pub(super) fn rebuilt(&self, keys: usize, prints: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut len = self.leaves.len();
        while keys > len * KEYS_PER_LEAF && len < 1 << BITS_MAX {
            len *= 2;
        }
        let mut table = Self { leaves: vec![0; len], root: 0, partial: self.partial.clone() };
        prints.for_each(|(hash, print)| table.add(hash, print));
        table
    }
}

/// Returns the leaf a key belongs to among so many: the low bits of its hash, so that a table of half the size is the
/// sum of its halves.
#[must_use]
pub fn leaf_of(hash: u64, leaves: usize) -> usize {
    usize::try_from(hash & (u64::try_from(leaves).unwrap_or(1) - 1)).unwrap_or(0)
}

fn width(leaves: usize) -> u32 {
    u32::try_from(leaves).unwrap_or(u32::MAX)
}

impl Entry {
    /// Sums up what counts of a scope and is visible after `horizon_ms`.
    #[must_use]
    pub(super) fn print(&self, hash: u64, scope: &Scope, horizon_ms: u64) -> Print {
        let mut print = Print::default();
        match &self.body {
            Body::Register(Some(cell)) if !cell.is_grave() => {
                print.add(cell.deadline, horizon_ms, || of_cell(hash, cell));
            }
            Body::Register(_) => {}
            Body::Custom(custom) => {
                if let Some(custom) = custom.as_ref().as_ref().filter(|c| matches!(c.state, Payload::Value(_))) {
                    print.add(custom.deadline, horizon_ms, || of_custom(hash, custom));
                }
            }
            Body::Tree(tree) => add_tree(&mut print, hash, tree, scope, horizon_ms),
        }
        print
    }
}

fn add_tree(print: &mut Print, hash: u64, tree: &Tree, scope: &Scope, horizon_ms: u64) {
    let mut add = |path: &Path| {
        let at = of_path(hash, path);
        if let Path::Counter(name) = path {
            for (origin, c) in tree.counter(name).iter().flat_map(|counter| &counter.0).filter(|(_, c)| c.is_live()) {
                print.add(c.deadline, horizon_ms, || of_contribution(at, *origin, c));
            }
        }
        for elem in tree.siblings(path) {
            print.add(elem.deadline, horizon_ms, || of_dot(at, elem.dot));
        }
    };
    match scope {
        Scope::Path(path) => add(path),
        Scope::Key => {
            tree.elems().for_each(|(path, _)| add(path));
            tree.counters().for_each(|(name, _)| add(&Path::Counter(name.clone())));
        }
    }
}

fn of_cell(hash: u64, cell: &Cell) -> u64 {
    let stamp = cell.stamp();
    let value = mix(mix(hash ^ KEYS[0], stamp.hlc.0 ^ KEYS[1]) ^ stamp.replica.0, cell.deadline ^ KEYS[2]);
    // The stamp says which event it was, so an untouched one needs no dot.
    if cell.touch == cell.dot() { value } else { of_dot(value, cell.touch) }
}

fn of_custom(hash: u64, custom: &Custom) -> u64 {
    let stamp = custom.generation;
    let generation = mix(mix(hash ^ KEYS[1], stamp.hlc.0 ^ KEYS[0]) ^ stamp.replica.0, KEYS[3]);
    let merged = custom.merged.iter().map(|(&replica, &seq)| Dot { replica, seq });
    merged.fold(generation, of_dot)
}

fn of_contribution(at: u64, origin: ReplicaId, c: &Contribution) -> u64 {
    let own = mix(of_dot(at, Dot { replica: origin, seq: c.seq }) ^ c.birth, c.deadline ^ KEYS[1]);
    let sums = mix(mix(own ^ KEYS[2], c.p ^ KEYS[0]), c.n ^ KEYS[3]);
    let reset = c.reset.map_or(sums, |reset| of_dot(mix(sums ^ reset.p, reset.n ^ KEYS[0]), reset.by));
    c.touch.map_or(reset, |touch| of_dot(reset ^ KEYS[1], touch))
}

fn of_dot(at: u64, dot: Dot) -> u64 {
    mix(mix(at ^ KEYS[2], dot.replica.0 ^ KEYS[0]), dot.seq ^ KEYS[3])
}

/// Returns the hash of a place inside a key; the whole register or custom state is the place of the key itself.
pub(super) fn of_path(hash: u64, path: &Path) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(hash, KEYS[0]);
    let (kind, set, name): (u8, &[u8], &[u8]) = match path {
        Path::Register | Path::Custom => return hash,
        Path::Ttl => (0, &[], &[]),
        Path::Field(name) => (1, &[], name),
        Path::Counter(name) => (2, &[], name),
        Path::Member(set, name) => (3, set, name),
    };
    hasher.write_u8(kind);
    hasher.write_usize(set.len());
    hasher.write(set);
    hasher.write(name);
    hasher.finish()
}

/// Odd constants with as many ones as zeros, as of `wyhash`. They need not be secret: what they are mixed with is.
const KEYS: [u64; 4] = [0x2d35_8dcc_aa6c_78a5, 0x8bb8_4b93_962e_acc9, 0x4b33_a62e_d433_d4a3, 0x4d5a_2da5_1de1_aa47];

/// Folds the product of two words, and both of them, so that neither disappears where the other is zero.
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let low = u64::try_from(product & u128::from(u64::MAX)).unwrap_or(0);
    let high = u64::try_from(product >> 64).unwrap_or(0);
    low ^ high ^ a.rotate_left(32) ^ b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use bytes::Bytes;

    fn dot(replica: u64, seq: u64) -> Dot {
        Dot { replica: ReplicaId(replica), seq }
    }

    fn register(ms: u64, by: Dot, deadline: u64) -> Entry {
        let cell = Cell::new(Payload::Value(Bytes::from_static(b"v")), Hlc::from_ms(ms), by, deadline);
        Entry { body: Body::Register(Some(cell)), unstable: super::super::entry::Unstable::None, truncated: false }
    }

    #[test]
    fn whatever_tells_two_registers_apart_is_in_their_print() {
        let print = |hash, entry: &Entry| entry.print(hash, &Scope::Key, 0).sum;
        let all = [
            print(7, &register(1, dot(1, 1), 50)),
            print(8, &register(1, dot(1, 1), 50)),
            print(7, &register(2, dot(1, 1), 50)),
            print(7, &register(1, dot(2, 1), 50)),
            print(7, &register(1, dot(1, 1), 51)),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(print(7, &register(1, dot(1, 1), 50)), all[0]);
    }

    #[test]
    fn graves_and_what_ends_by_the_horizon_do_not_count() {
        let entry = register(1, dot(1, 1), 50);
        assert_eq!(entry.print(7, &Scope::Key, 49).soonest, 50);
        assert_eq!(entry.print(7, &Scope::Key, 50), Print::default());
        let mut stub = entry;
        stub.evict(false);
        assert_eq!(stub.print(7, &Scope::Key, 0), Print::default());
    }

    #[test]
    fn a_table_of_half_the_size_is_the_sum_of_its_halves() {
        let mut rng = fastrand::Rng::with_seed(5);
        let prints: Vec<(u64, u64)> = (0..400).map(|_| (rng.u64(..), rng.u64(..))).collect();
        let small = Table::default().rebuilt(100, prints.iter().copied());
        let large = small.rebuilt(400, prints.iter().copied());
        assert_eq!((small.leaves().len(), large.leaves().len()), (16, 64));
        let folded = |at: usize| large.leaves().iter().skip(at).step_by(16).fold(0_u64, |a, b| a.wrapping_add(*b));
        assert_eq!(small.leaves(), (0..16).map(folded).collect::<Vec<_>>());
        assert_eq!(small.root(), large.root());
    }

    #[test]
    fn a_leaf_stays_partial_when_the_table_grows() {
        let mut table = Table::default();
        table.mark_partial(0x15);
        assert_eq!(table.partial(), BTreeSet::from([5]));
        assert_eq!(table.rebuilt(400, std::iter::empty()).partial(), BTreeSet::from([0x15]));
        assert!(table.is_crowded(129) && !table.is_crowded(128));
    }
}
