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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Hlc, Stamp};
    use crate::crdt::{Dot, Elem, NEVER};
    use crate::id::ReplicaId;

    #[test]
    fn a_set_has_the_visible_members_of_its_own_name_and_nothing_else() {
        let b = Bytes::from_static;
        let mut tree = Tree::default();
        let paths = [
            (Path::Member(b(b"s"), b(b"late")), 50),
            (Path::Member(b(b"s"), b(b"b")), NEVER),
            (Path::Member(b(b"s"), b(b"a")), NEVER),
            (Path::Member(b(b"t"), b(b"other")), NEVER),
            (Path::Field(b(b"s")), NEVER),
        ];
        for (seq, (path, deadline)) in (1..).zip(paths) {
            let dot = Dot { replica: ReplicaId(1), seq };
            let stamp = Stamp { hlc: Hlc::from_ms(seq), replica: dot.replica };
            tree.put(path, Elem { dot, stamp, deadline, value: Bytes::new() });
        }
        assert_eq!(members(&tree, b"s", 49).collect::<Vec<_>>(), ["a", "b", "late"]);
        assert_eq!(members(&tree, b"s", 50).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(members(&tree, b"u", 0).count(), 0);
    }
}
