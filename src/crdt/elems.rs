//! The elements of a map by path, with two running figures: what they weigh and when the first of
//! them may expire. Both are asked after every write, so neither may cost a walk over the map.
//!
//! # Invariants
//! * No path has an empty list.
//! * `bytes` is exact; `soonest` is never later than the earliest deadline, and exact after
//!   [`Elems::retain`].
//! * Two with the same elements are equal, however they came to them.

use std::collections::BTreeMap;

use super::NEVER;
use super::tree::{Elem, Path};
use crate::probe::sometimes;

/// Bytes an element costs beyond its value and the name of its path.
const ELEM_BYTES: usize = 96;

/// Live siblings by path.
#[derive(Clone, Debug)]
pub(super) struct Elems {
    map: BTreeMap<Path, Vec<Elem>>,
    bytes: usize,
    soonest: u64,
}

impl Default for Elems {
    fn default() -> Self {
        Self { map: BTreeMap::new(), bytes: 0, soonest: NEVER }
    }
}

impl PartialEq for Elems {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl Eq for Elems {}

impl Elems {
    pub(super) fn map(&self) -> &BTreeMap<Path, Vec<Elem>> {
        &self.map
    }

    /// Returns what the elements weigh.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the earliest deadline later than `after`, or an instant between the two.
    pub(super) fn soonest(&self, after: u64) -> u64 {
        if self.soonest > after {
            return self.soonest;
        }
        self.map.values().flatten().map(|e| e.deadline).filter(|d| *d > after).min().unwrap_or(NEVER)
    }

    /// Replaces what is at a path; an empty list leaves nothing there.
    pub(super) fn insert(&mut self, path: Path, siblings: Vec<Elem>) {
        self.remove(&path);
        if siblings.is_empty() {
            return;
        }
        self.bytes += weight(&path, &siblings);
        self.soonest = siblings.iter().map(|e| e.deadline).fold(self.soonest, u64::min);
        self.map.insert(path, siblings);
    }

    /// Takes away what is at a path.
    pub(super) fn remove(&mut self, path: &Path) -> Vec<Elem> {
        let siblings = self.map.remove(path).unwrap_or_default();
        if !siblings.is_empty() {
            self.bytes -= weight(path, &siblings);
        }
        siblings
    }

    /// Takes everything away.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps the elements that pass; returns whether any went. Visits all of them.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Path, &Elem) -> bool) -> bool {
        let (mut gone, mut bytes, mut soonest) = (false, 0, NEVER);
        self.map.retain(|path, siblings| {
            let before = siblings.len();
            siblings.retain(|e| keep(path, e));
            gone |= siblings.len() != before;
            sometimes!(SiblingOutlived, if (1..before).contains(&siblings.len()));
            if !siblings.is_empty() {
                bytes += weight(path, siblings);
                soonest = siblings.iter().map(|e| e.deadline).fold(soonest, u64::min);
            }
            !siblings.is_empty()
        });
        (self.bytes, self.soonest) = (bytes, soonest);
        gone
    }
}

fn weight(path: &Path, siblings: &[Elem]) -> usize {
    let name = match path {
        Path::Register | Path::Custom | Path::Ttl => 0,
        Path::Field(name) | Path::Counter(name) => name.len(),
        Path::Member(set, member) => set.len() + member.len(),
    };
    name + siblings.iter().map(|e| ELEM_BYTES + e.value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::crdt::Dot;
    use bytes::Bytes;

    #[test]
    fn the_running_figures_agree_with_a_walk() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut elems = Elems::default();
        for step in 0..if cfg!(miri) { 40 } else { 5_000 } {
            let path = Path::Field(Bytes::from(vec![rng.u8(..8); rng.usize(1..4)]));
            let elem = |rng: &mut fastrand::Rng| Elem {
                dot: Dot::default(),
                stamp: Stamp::default(),
                deadline: if rng.bool() { NEVER } else { rng.u64(..9_000) },
                value: Bytes::from(vec![0; rng.usize(..9)]),
            };
            match rng.u8(..10) {
                0..6 => {
                    let siblings = (0..rng.usize(..3)).map(|_| elem(&mut rng)).collect();
                    elems.insert(path, siblings);
                }
                6 | 7 => drop(elems.remove(&path)),
                8 => {
                    let due = elems.map().values().flatten().any(|e| e.deadline <= step);
                    assert_eq!(elems.retain(|_, e| e.deadline > step), due);
                    let deadlines = elems.map().values().flatten().map(|e| e.deadline);
                    assert_eq!(elems.soonest(0), deadlines.min().unwrap_or(NEVER), "exact after a walk");
                }
                _ if step % 97 == 0 => elems.clear(),
                _ => {}
            }
            let walked: usize = elems.map().iter().map(|(path, siblings)| weight(path, siblings)).sum();
            assert_eq!(elems.bytes(), walked);
            assert!(elems.map().values().all(|s| !s.is_empty()));
            let after = rng.u64(..9_000);
            let deadlines = elems.map().values().flatten().map(|e| e.deadline);
            let earliest = deadlines.filter(|d| *d > after).min().unwrap_or(NEVER);
            assert!((after + 1..=earliest).contains(&elems.soonest(after)));
        }
    }

    fn one(path: Path, len: usize) -> Elems {
        let value = Bytes::from(vec![0; len]);
        let mut elems = Elems::default();
        elems.insert(path, vec![Elem { dot: Dot::default(), stamp: Stamp::default(), deadline: NEVER, value }]);
        elems
    }

    #[test]
    fn an_element_takes_its_value_its_names_and_something_for_itself() {
        let name = |len| Bytes::from(vec![0; len]);
        let least = one(Path::Ttl, 0).bytes();
        assert!((size_of::<Elem>()..200).contains(&least), "{least}");
        for path in [Path::Field(name(300)), Path::Member(name(100), name(200)), Path::Counter(name(300))] {
            assert_eq!(one(path, 1_000).bytes(), least + 1_300);
        }
    }

    #[test]
    fn what_was_there_before_makes_no_difference() {
        let (mut a, b) = (one(Path::Ttl, 3), one(Path::Ttl, 3));
        let other = Path::Field(Bytes::from_static(b"f"));
        a.insert(other.clone(), vec![Elem { deadline: 5, ..b.map()[&Path::Ttl][0].clone() }]);
        assert_ne!(a, b);
        assert_eq!(a.remove(&other).len(), 1);
        assert_eq!(a, b);
        assert_ne!(a, one(Path::Ttl, 4));
    }
}
