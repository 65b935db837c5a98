//! The set: a map of members, each at its own path, so adds win over concurrent removes
//! (an observed-remove set: Shapiro et al., *A Comprehensive Study of Convergent and Commutative
//! Replicated Data Types*, INRIA RR-7506).
//!
//! A member is an element with an empty value at [`Path::Member`]; everything else is
//! [`super::tree`]'s.

use bytes::Bytes;

use super::tree::{Path, Tree, winner};

/// Iterates over the members of `set` visible at `now_ms`, in order.
pub fn members<'a>(tree: &'a Tree, set: &'a [u8], now_ms: u64) -> impl Iterator<Item = &'a Bytes> {
    tree.elems().filter_map(move |(path, siblings)| match path {
        Path::Member(name, member) if name.as_ref() == set => winner(siblings, now_ms).map(|_| member),
        Path::Member(..) | Path::Ttl | Path::Field(_) | Path::Register | Path::Counter(_) | Path::Custom => None,
    })
}
