//! Sums cut short, and what differs between two runs of them. Pure functions.
//!
//! Whatever is cut short is mixed with the salt of the comparison first, so that two sums that look alike in one
//! comparison do not in the next.

use std::collections::BTreeSet;

use crate::crdt::{Ctx, Dot};
use crate::store::Listed;
use crate::store::fingerprint::mix;

/// Buckets a table is folded to in a snapshot: with a thousand differences among a million keys one in eight differs.
pub const BUCKETS: usize = 128;
/// Most leaves one listing names; what differs beyond them is found by the next comparison.
pub const LEAVES_LISTED_MAX: usize = 1_024;

/// Folds sums to so many: each is the sum of those whose place is the same in the smaller table.
#[must_use]
pub fn fold(sums: &[u64], len: usize) -> Vec<u64> {
    let len = len.max(1);
    let mut folded = vec![0_u64; len.min(sums.len())];
    for chunk in sums.chunks(len) {
        for (all, sum) in folded.iter_mut().zip(chunk) {
            *all = all.wrapping_add(*sum);
        }
    }
    folded
}

/// Returns the leaves of a table that some leaves of a larger or smaller one fall into, or come from.
#[must_use]
pub fn scaled(leaves: &BTreeSet<u32>, from: usize, to: usize) -> BTreeSet<u32> {
    let (from, to) = (u32::try_from(from).unwrap_or(1).max(1), u32::try_from(to).unwrap_or(1).max(1));
    let times = (to / from).max(1);
    leaves.iter().flat_map(|leaf| (0..times).map(move |n| (leaf % to) + n * from)).collect()
}

/// Returns the sums without some leaves.
#[must_use]
pub fn spared(sums: &[u64], without: &BTreeSet<u32>) -> Vec<u64> {
    let kept = |(at, sum): (u32, &u64)| if without.contains(&at) { 0 } else { *sum };
    (0..).zip(sums).map(kept).collect()
}

/// Returns the sum of sums.
#[must_use]
pub fn root(sums: &[u64]) -> u64 {
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

/// Returns a sum of a context: equal sets of dots have equal ones.
#[must_use]
pub fn of_ctx(ctx: &Ctx) -> u64 {
    let range = |sum: u64, replica, from, to| {
        let bound = |seq| Dot { replica, seq };
        let [from, to] = [bound(from), bound(to)].map(|dot| mix(dot.replica.0 ^ FIRST, dot.seq ^ SECOND));
        mix(sum ^ from, to ^ FIRST)
    };
    ctx.iter().fold(SECOND, |sum, (replica, seen)| {
        seen.above().iter().fold(range(sum, replica, 1, seen.base()), |sum, (from, to)| range(sum, replica, *from, *to))
    })
}

const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const SECOND: u64 = 0xd1b5_4a32_d192_ed03;

/// Cuts sums to two bytes each.
#[must_use]
pub fn halved(sums: &[u64], salt: u64) -> Vec<u8> {
    sums.iter().flat_map(|sum| short(*sum, salt).to_le_bytes()).collect()
}

/// Cuts a sum to a byte.
#[must_use]
pub fn byte(sum: u64, salt: u64) -> u8 {
    u8::try_from(short(sum, salt) & 0xff).unwrap_or(0)
}

/// Cuts what a key holds to two bytes.
#[must_use]
pub fn id(listed: &Listed, salt: u64) -> u16 {
    short(mix(listed.hash ^ FIRST, listed.sum), salt)
}

fn short(sum: u64, salt: u64) -> u16 {
    u16::try_from(mix(sum ^ salt, FIRST ^ salt.rotate_left(17)) >> 48).unwrap_or(0)
}

/// Returns where two runs of short sums differ; `None` when they are of different lengths.
#[must_use]
pub fn differing(mine: &[u8], theirs: &[u8], width: usize) -> Option<Vec<bool>> {
    (mine.len() == theirs.len()).then(|| mine.chunks(width).zip(theirs.chunks(width)).map(|(a, b)| a != b).collect())
}

/// Returns the leaves of the buckets named, in order of bucket and leaf.
#[must_use]
pub fn leaves_of(buckets: &[bool], leaves: usize) -> Vec<u32> {
    let count = buckets.len().max(1);
    let named = (0..count).zip(buckets).filter(|(_, named)| **named).map(|(at, _)| at);
    named.flat_map(|bucket| (bucket..leaves).step_by(count)).filter_map(|leaf| u32::try_from(leaf).ok()).collect()
}

/// What two listings of one leaf do not have in common.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Apart {
    /// Keys that only I hold so.
    pub mine: Vec<u64>,
    /// For each of theirs, in order, whether I do not hold it so.
    pub theirs: Vec<bool>,
}

/// Compares what I hold of a leaf with the short ids of what they hold. The same id twice stands for two keys.
#[must_use]
pub fn apart(mine: &[Listed], theirs: &[u16], salt: u64) -> Apart {
    let mut left: Vec<(u16, u64)> = mine.iter().map(|listed| (id(listed, salt), listed.hash)).collect();
    let unknown = |theirs: &u16| match left.iter().position(|(id, _)| id == theirs) {
        Some(at) => {
            left.remove(at);
            false
        }
        None => true,
    };
    let theirs = theirs.iter().map(unknown).collect();
    Apart { mine: left.into_iter().map(|(_, hash)| hash).collect(), theirs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReplicaId;

    #[test]
    fn a_fold_keeps_the_root_and_what_is_scaled_up_is_scaled_down_to_the_same() {
        let mut rng = fastrand::Rng::with_seed(3);
        let sums: Vec<u64> = (0..64).map(|_| rng.u64(..)).collect();
        for len in [64, 32, 16] {
            assert_eq!((fold(&sums, len).len(), root(&fold(&sums, len))), (len, root(&sums)));
        }
        assert_eq!(fold(&fold(&sums, 32), 16), fold(&sums, 16));
        assert_eq!(fold(&sums, 128), sums, "nothing becomes more than it is");
        let few = BTreeSet::from([3, 17]);
        assert_eq!(scaled(&few, 32, 64), BTreeSet::from([3, 35, 17, 49]));
        assert_eq!(scaled(&scaled(&few, 32, 64), 64, 32), few);
        assert_eq!(scaled(&few, 32, 16), BTreeSet::from([3, 1]));
    }

    #[test]
    fn the_leaves_of_a_bucket_are_those_that_fold_to_it() {
        assert_eq!(leaves_of(&[false, true, false, true], 12), [1, 5, 9, 3, 7, 11]);
        assert!(leaves_of(&[], 12).is_empty());
    }

    #[test]
    fn contexts_have_the_same_sum_exactly_when_they_are_equal() {
        let ctx = |ranges: &[(u64, u64, u64)]| {
            let mut ctx = Ctx::default();
            ranges.iter().for_each(|(replica, from, to)| ctx.add_range(ReplicaId(*replica), *from, *to));
            ctx
        };
        let all = [ctx(&[]), ctx(&[(1, 1, 5)]), ctx(&[(2, 1, 5)]), ctx(&[(1, 1, 6)]), ctx(&[(1, 1, 5), (1, 7, 8)])];
        assert_eq!(all.iter().map(of_ctx).collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(of_ctx(&ctx(&[(1, 1, 3), (1, 2, 5)])), of_ctx(&all[1]));
    }

    #[test]
    fn what_both_list_is_in_common_and_nothing_else() {
        let listed = |hash, sum| Listed { hash, sum };
        let mine = [listed(1, 10), listed(2, 20), listed(3, 30)];
        let theirs = [listed(1, 10), listed(2, 21), listed(4, 40)];
        let ids: Vec<u16> = theirs.iter().map(|l| id(l, 77)).collect();
        assert_eq!(apart(&mine, &ids, 77), Apart { mine: vec![2, 3], theirs: vec![false, true, true] });
        assert_ne!(id(&mine[0], 77), id(&mine[0], 78), "the salt decides");
        assert_eq!(differing(&[1, 2, 3, 4], &[1, 2, 9, 4], 2), Some(vec![false, true]));
        assert_eq!(differing(&[1, 2], &[1], 1), None);
    }
}
