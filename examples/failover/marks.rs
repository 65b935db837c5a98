//! Marks: what stands in a context for all that was seen of what a node was before.
//!
//! When a process has been started again, its former replicas are folded away: one range without an end, at the last of
//! them, stands for every event of all of them. So what was seen of them must be read before that, and who has the mark has
//! what the mark stands for.
//!
//! # Invariants
//! * A mark shows of no single write that it was seen: some may have been lost with their process.

use crate::support::protocol::{Context, Contexts};

/// What a mark names.
const MARK: (u64, u64) = (1, u64::MAX);
/// The bits of a replica's id that count what its node has been; those above name the node.
const INCARNATION_BITS: u32 = 43;

/// Returns what contexts name one by one.
pub(crate) fn without_marks(contexts: &Contexts) -> Contexts {
    let plain = |context: &Context| {
        Context(context.0.iter().filter(|(_, seen)| !is_mark(seen)).map(|(id, seen)| (*id, seen.clone())).collect())
    };
    Contexts(contexts.0.iter().map(|(partition, context)| (*partition, plain(context))).collect())
}

/// Tells whether all that `theirs` names one by one is named in `mine`, or covered by a mark there.
pub(crate) fn has_all(mine: &Contexts, theirs: &Contexts) -> bool {
    let nothing = Context::default();
    theirs.0.iter().all(|(partition, theirs)| {
        let mine = mine.0.get(partition).unwrap_or(&nothing);
        let named = |(replica, seen): &(&u64, &Vec<(u64, u64)>)| !is_covered(mine, **replica) && !is_mark(seen);
        let rest = theirs.0.iter().filter(named).map(|(replica, seen)| (*replica, seen.clone())).collect();
        mine.includes(&Context(rest))
    })
}

fn is_mark(seen: &[(u64, u64)]) -> bool {
    seen == [MARK]
}

fn is_covered(context: &Context, replica: u64) -> bool {
    let last = replica | ((1 << INCARNATION_BITS) - 1);
    context.0.range(replica..=last).any(|(_, seen)| is_mark(seen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn contexts(seen: &[(u64, (u64, u64))]) -> Contexts {
        let context = Context(seen.iter().map(|(replica, range)| (*replica, vec![*range])).collect());
        Contexts(BTreeMap::from([(3, context)]))
    }

    #[test]
    fn a_mark_covers_what_its_node_was_before_and_names_no_write() {
        let node = |number: u64, incarnation: u64| number << INCARNATION_BITS | incarnation;
        let named = contexts(&[(node(1, 5), (1, 9)), (node(2, 1), (1, 4))]);
        let folded = contexts(&[(node(1, 7), MARK), (node(2, 1), (1, 4))]);
        assert!(has_all(&folded, &named) && has_all(&named, &folded));
        assert!(!has_all(&contexts(&[(node(1, 4), MARK), (node(2, 1), (1, 4))]), &named), "it came later");
        assert!(!has_all(&contexts(&[(node(1, 7), MARK), (node(2, 1), (1, 3))]), &named), "another node");
        assert_eq!(without_marks(&folded), contexts(&[(node(2, 1), (1, 4))]));
    }
}
