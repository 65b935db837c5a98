//! What replicas exchange: state restricted to a scope, and what the sender has seen.
//!
//! # Invariants
//! * `covers` of a captured fragment lists *all* unstable dots of its scope (R-COVER).
//! * A batch's context was taken under the same lock as its fragments.

use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use crate::clock::Hlc;
use crate::crdt::tree::Branch;
use crate::crdt::{Cell, Contribution, Ctx, Custom, Dot, Elem, Path, Payload, Scope};
use crate::id::{KeyspaceId, PartitionId, ReplicaId};

/// What a place of a map takes in memory beside what is there, and a merged event of a custom state.
const PLACE_BYTES: usize = 64;

/// The state of one key restricted to a scope, plus every unstable dot of that scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The key's bytes.
    pub key: Bytes,
    /// What part of the entry this speaks for.
    pub scope: Scope,
    /// The register, when the scope has one.
    pub cell: Option<Cell>,
    /// Elements and counters inside the scope.
    pub branch: Branch,
    /// The custom state, when the scope has one.
    pub custom: Option<Custom>,
    /// Unstable dots of the scope, in order.
    pub covers: Vec<(Dot, Scope)>,
}

impl Fragment {
    /// Returns a fragment that says "nothing is here".
    #[must_use]
    pub fn empty(keyspace: KeyspaceId, key: Bytes, scope: Scope) -> Self {
        Self { keyspace, key, scope, cell: None, branch: Branch::default(), custom: None, covers: Vec::new() }
    }

    /// Returns what of an entry joining it can change: its scope, or the whole key where it carries more than that.
    #[must_use]
    pub(super) fn touched(&self) -> &Scope {
        let elems = self.branch.elems.iter().all(|(path, _)| self.scope.has(path));
        let counters = self.branch.counters.iter().all(|(name, _)| match &self.scope {
            Scope::Path(Path::Counter(own)) => own == name,
            Scope::Path(_) => false,
            Scope::Key => true,
        });
        if elems && counters { &self.scope } else { &Scope::Key }
    }

    /// Returns roughly how many bytes it takes on the wire, for cutting batches.
    #[must_use]
    pub fn weight(&self) -> usize {
        let cell = self.cell.as_ref().map_or(0, |c| 24 + super::entry::cell_bytes(c));
        let elems: usize = self.branch.elems.iter().flat_map(|(_, s)| s).map(|e| 40 + e.value.len()).sum();
        let counters: usize = self.branch.counters.iter().map(|(n, c)| n.len() + 40 * c.len()).sum();
        let custom = self.custom.as_ref().map_or(0, |c| 32 + super::entry::payload_bytes(&c.state));
        16 + self.key.len() + cell + elems + counters + custom + 4 * self.covers.len()
    }

    /// Returns roughly how many bytes of memory it takes, which small ones do many times of what they are on the wire.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let siblings: usize = self.branch.elems.iter().map(|(_, s)| PLACE_BYTES + s.len() * size_of::<Elem>()).sum();
        let counts =
            |c: &Vec<(ReplicaId, Contribution)>| PLACE_BYTES + c.len() * size_of::<(ReplicaId, Contribution)>();
        let counters: usize = self.branch.counters.iter().map(|(_, c)| counts(c)).sum();
        let merged = self.custom.as_ref().map_or(0, |c| c.merged.len() * PLACE_BYTES);
        let covers = self.covers.len() * size_of::<(Dot, Scope)>();
        size_of::<Self>() + self.weight() + siblings + counters + merged + covers
    }

    /// Returns the last event of a replica that is named anywhere inside.
    #[must_use]
    pub fn reach_of(&self, replica: ReplicaId) -> u64 {
        let covers = self.covers.iter().map(|(dot, _)| *dot);
        let cell = self.cell.iter().flat_map(|c| [c.dot(), c.touch]);
        let elems = self.branch.elems.iter().flat_map(|(_, s)| s).map(|e| e.dot);
        let counts = self.branch.counters.iter().flat_map(|(_, c)| c).map(|(r, c)| Dot { replica: *r, seq: c.seq });
        let custom = self.custom.iter().flat_map(|c| c.merged.iter().map(|(r, seq)| Dot { replica: *r, seq: *seq }));
        let all = covers.chain(cell).chain(elems).chain(counts).chain(custom);
        all.filter(|dot| dot.replica == replica).map(|dot| dot.seq).max().unwrap_or(0)
    }

    /// Returns a digest of the key and a custom state: equal for equal ones, and different otherwise but for one in 2^64.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.key);
        if let Some(custom) = &self.custom {
            hasher.write_u64(custom.generation.hlc.0);
            hasher.write_u64(custom.generation.replica.0);
            if let Payload::Value(state) = &custom.state {
                hasher.write(state);
            }
        }
        hasher.finish()
    }

    /// Returns the largest clock value inside.
    #[must_use]
    pub fn newest(&self) -> Hlc {
        let cell = self.cell.iter().map(|c| c.stamp().hlc);
        let elems = self.branch.elems.iter().flat_map(|(_, s)| s).map(|e| e.stamp.hlc);
        let custom = self.custom.iter().map(|c| c.generation.hlc);
        cell.chain(elems).chain(custom).max().unwrap_or_default()
    }
}

/// Fragments of one partition captured under its lock, with the sender's context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The partition.
    pub partition: PartitionId,
    /// Everything the sender had seen of this partition.
    pub ctx: Ctx,
    /// The state.
    pub fragments: Vec<Fragment>,
}

/// A partition's whole state: what a joiner, or a peer behind a dropped log, receives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Full {
    /// The state and the sender's context.
    pub batch: Batch,
    /// What the sender found stable.
    pub frontier: Ctx,
    /// That, and the dots whose log entries it dropped.
    pub floor: Ctx,
    /// The largest clock value of a register's grave that the sender has collected.
    pub forgotten: Hlc,
    /// Only entries some of whose events are not stable: who has all that is stable at the sender has the rest of it, and what
    /// is not here says nothing.
    pub is_rest: bool,
    /// The sender is an edge: that it does not hold a register says nothing. Known from its hello, not from the message.
    pub is_part: bool,
}

/// Why a batch was not applied. The partition is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The sender's context lacks something already found stable here (R-STALE).
    #[error("the batch predates what is stable here; it was dropped and the sender will be synchronised in full")]
    Stale,
    /// It would leave more gaps in this partition's context than a message can name, so that nothing of the partition
    /// could be sent to anybody any more.
    #[error("the batch would leave too many gaps; it was dropped until what lies between has come")]
    Scattered,
    /// It does not hold everything, because its sender is an edge or believes the rest to be here, and something was not seen
    /// here that is stable there: what it does not hold may have been deleted.
    #[error("it does not hold everything, and more is stable at its sender than was seen here; it was dropped")]
    Part,
}

/// Why a fragment could not be joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misapplied {
    /// Nobody here knows its keyspace, or how to merge its type.
    #[error("nobody here knows its keyspace or how to merge its type")]
    Unknown,
    /// Its type could not read its state or the one that is here.
    #[error("its type cannot merge its state with the one that is here")]
    Unreadable,
}

/// A fragment that could not be joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// Its keyspace.
    pub keyspace: KeyspaceId,
    /// Its key.
    pub key: Bytes,
    /// What [`Fragment::digest`] says of it.
    pub digest: u64,
    /// Its events, which stay missing.
    pub dots: Vec<Dot>,
    /// What was wrong.
    pub why: Misapplied,
}

/// What applying a batch did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Entries of watched keyspaces whose visible state may have changed.
    pub changed: Vec<(KeyspaceId, Bytes)>,
    /// Dots that were new here.
    pub news: u64,
    /// Pairs of concurrent writes of which one lost.
    pub conflicts: u64,
    /// Replica ids found in use twice.
    pub duplicates: Vec<ReplicaId>,
    /// Fragments that could not be joined and were skipped, with their dots left missing.
    pub quarantined: u64,
    /// Those, one by one.
    pub rejected: Vec<Rejected>,
}

impl Applied {
    /// Notes a fragment that could not be joined.
    pub(super) fn reject(&mut self, fragment: &Fragment, why: Misapplied) {
        self.quarantined += 1;
        let (keyspace, key, digest) = (fragment.keyspace, fragment.key.clone(), fragment.digest());
        let dots = fragment.covers.iter().map(|(dot, _)| *dot).collect();
        self.rejected.push(Rejected { keyspace, key, digest, dots, why });
    }

    /// Tells whether everything of the batch was joined in.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.quarantined == 0 && self.duplicates.is_empty()
    }

    /// Adds another batch's effects.
    pub fn add(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.news += other.news;
        self.conflicts += other.conflicts;
        self.duplicates.extend(other.duplicates);
        self.quarantined += other.quarantined;
        self.rejected.extend(other.rejected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::crdt::{Contribution, Elem, NEVER};

    const SELF: ReplicaId = ReplicaId(1);
    const OTHER: ReplicaId = ReplicaId(2);

    fn dot(replica: ReplicaId, seq: u64) -> Dot {
        Dot { replica, seq }
    }

    fn empty() -> Fragment {
        Fragment::empty(KeyspaceId(0), Bytes::from_static(b"key"), Scope::Key)
    }

    fn cell(dot: Dot, ms: u64) -> Cell {
        Cell::new(Payload::Value(Bytes::from_static(b"value")), Hlc::from_ms(ms), dot, NEVER)
    }

    fn with_elem(dot: Dot, ms: u64) -> Fragment {
        let stamp = Stamp { hlc: Hlc::from_ms(ms), replica: dot.replica };
        let mut fragment = empty();
        let elem = Elem { dot, stamp, deadline: NEVER, value: Bytes::from_static(b"value") };
        fragment.branch.elems.push((Path::Field(Bytes::from_static(b"f")), vec![elem]));
        fragment
    }

    fn with_count(dot: Dot) -> Fragment {
        let mut fragment = empty();
        let counts = vec![(dot.replica, Contribution::born(dot.seq, NEVER))];
        fragment.branch.counters.push((Bytes::from_static(b"n"), counts));
        fragment
    }

    fn with_custom(dot: Dot, ms: u64) -> Fragment {
        let stamp = Stamp { hlc: Hlc::from_ms(ms), replica: dot.replica };
        let state = Payload::Value(Bytes::from_static(b"state"));
        Fragment { custom: Some(Custom::new(stamp, dot, state, NEVER)), ..empty() }
    }

    #[test]
    fn an_event_named_anywhere_in_a_fragment_is_in_its_reach() {
        let touched = |by| {
            let mut cell = cell(dot(OTHER, 90), 1);
            cell.touch = by;
            Fragment { cell: Some(cell), ..empty() }
        };
        for fragment in [
            Fragment { covers: vec![(dot(SELF, 7), Scope::Key), (dot(OTHER, 90), Scope::Key)], ..empty() },
            Fragment { cell: Some(cell(dot(SELF, 7), 1)), ..empty() },
            touched(dot(SELF, 7)),
            with_elem(dot(SELF, 7), 1),
            with_count(dot(SELF, 7)),
            with_custom(dot(SELF, 7), 1),
        ] {
            assert_eq!(fragment.reach_of(SELF), 7, "{fragment:?}");
        }
        assert_eq!(touched(dot(OTHER, 91)).reach_of(SELF), 0);
    }

    #[test]
    fn the_newest_clock_value_in_a_fragment_is_found_wherever_it_stands() {
        let both = Fragment { cell: Some(cell(dot(SELF, 1), 9)), ..with_elem(dot(OTHER, 1), 4) };
        for (fragment, ms) in [
            (Fragment { cell: Some(cell(dot(SELF, 1), 9)), ..empty() }, 9),
            (with_elem(dot(SELF, 1), 9), 9),
            (with_custom(dot(SELF, 1), 9), 9),
            (both, 9),
            (empty(), 0),
        ] {
            assert_eq!(fragment.newest(), Hlc::from_ms(ms), "{fragment:?}");
        }
    }

    #[test]
    fn what_several_batches_did_adds_up() {
        let key = |name: &'static [u8]| (KeyspaceId(0), Bytes::from_static(name));
        let mut sum = Applied {
            changed: vec![key(b"a")],
            news: 1,
            conflicts: 2,
            duplicates: vec![SELF],
            quarantined: 3,
            ..Applied::default()
        };
        let other = Applied {
            changed: vec![key(b"b")],
            news: 5,
            conflicts: 6,
            duplicates: vec![OTHER],
            quarantined: 7,
            ..Applied::default()
        };
        sum.add(other);
        let both = Applied {
            changed: vec![key(b"a"), key(b"b")],
            news: 6,
            conflicts: 8,
            duplicates: vec![SELF, OTHER],
            quarantined: 10,
            ..Applied::default()
        };
        assert_eq!(sum, both);
    }

    #[test]
    fn every_part_of_a_fragment_weighs_about_what_it_holds() {
        let kilo = || Bytes::from(vec![7; 1_000]);
        let mut all = empty();
        all.key = kilo();
        all.covers = (1..=250).map(|seq| (dot(SELF, seq), Scope::Key)).collect();
        all.cell = Some(Cell::new(Payload::Value(kilo()), Hlc::default(), dot(SELF, 1), NEVER).with_tags(vec![kilo()]));
        all.custom = with_custom(dot(SELF, 1), 1).custom.map(|c| Custom { state: Payload::Value(kilo()), ..c });
        all.branch = with_elem(dot(SELF, 1), 1).branch;
        all.branch.elems[0].1[0].value = kilo();
        let counts = (1..=25).map(|origin| (ReplicaId(origin), Contribution::born(1, NEVER)));
        all.branch.counters.push((Bytes::from_static(b"nn"), counts.collect()));
        let only = |cut: fn(&mut Fragment)| {
            let mut part = all.clone();
            cut(&mut part);
            all.weight() - part.weight()
        };
        for (part, kilos) in [
            (only(|f| f.key.clear()), 1),
            (only(|f| f.covers.clear()), 1),
            (only(|f| f.cell = None), 2),
            (only(|f| f.custom = None), 1),
            (only(|f| f.branch.elems.clear()), 1),
            (only(|f| f.branch.counters.clear()), 1),
        ] {
            assert!((kilos * 1_000..kilos * 1_100).contains(&part), "{part}");
        }
        assert!((7_000..7_700).contains(&all.weight()));
    }
}
