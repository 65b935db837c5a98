//! Custom entries: any state-based type, its own or one of the `crdts` crate, carried whole.
//!
//! The lattice is lexicographic: the generation's stamp first, then the type's own `merge` among
//! states of one generation. Deleting writes a generation that is a tombstone.
//!
//! # Invariants
//! * `merged` names exactly the events inside `state`: a state that covers another's contains it,
//!   and only states neither of which covers the other are merged.
//! * A stub (an expired state) says nothing about a state and loses to any of its generation; the
//!   store leaves one only where every member has all events of the entry.
//! * The state is opaque bytes; only the registered [`MergeState`] looks inside.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use crdts::CvRDT;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Ctx, Dot};
use super::register::Payload;
use crate::clock::Stamp;
use crate::id::ReplicaId;
use crate::probe::sometimes;

/// Most bytes of a state: what any receiver takes. A join that is larger is refused everywhere alike, so that it keeps
/// nobody from being given the rest.
pub const STATE_BYTES_MAX: usize = 512 << 10;

/// Bytes that are no state of the type registered for their keyspace, or states whose join is too large.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the bytes are no state of the custom type registered for this keyspace, or the join is larger than {STATE_BYTES_MAX} bytes; the entry is unchanged"
)]
pub struct BadState;

/// Joins two encoded states of one type.
pub trait MergeState: fmt::Debug + Send + Sync {
    /// Returns the join of `mine` and `theirs`.
    ///
    /// # Errors
    /// [`BadState`] when either does not decode, or the type refuses the merge.
    fn merge(&self, mine: &[u8], theirs: &[u8]) -> Result<Bytes, BadState>;
}

/// [`MergeState`] for any `CvRDT` with a serde form.
pub struct Erased<T>(PhantomData<fn() -> T>);

impl<T> Default for Erased<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> fmt::Debug for Erased<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Erased<{}>", std::any::type_name::<T>())
    }
}

impl<T: CvRDT + Serialize + DeserializeOwned + PartialEq> MergeState for Erased<T> {
    fn merge(&self, mine: &[u8], theirs: &[u8]) -> Result<Bytes, BadState> {
        let mut a: T = decode(mine)?;
        let b: T = decode(theirs)?;
        a.validate_merge(&b).map_err(|_refused| BadState)?;
        a.merge(b);
        encode(&a)
    }
}

/// Decodes a state.
///
/// # Errors
/// [`BadState`] when the bytes are no `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadState> {
    rmp_serde::from_slice(bytes).map_err(|_malformed| BadState)
}

/// Encodes a state.
///
/// # Errors
/// [`BadState`] when the type has no MessagePack form.
pub fn encode<T: Serialize>(state: &T) -> Result<Bytes, BadState> {
    rmp_serde::to_vec(state).map(Bytes::from).map_err(|_unencodable| BadState)
}

/// The state of a custom entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Custom {
    /// Which life of the entry this is: the stamp of the event that began it.
    pub generation: Stamp,
    /// The latest event of each origin that is merged in.
    pub merged: BTreeMap<ReplicaId, u64>,
    /// Absolute Unix milliseconds at which it stops being visible.
    pub deadline: u64,
    /// The encoded state, a tombstone, or the stub of an expired state.
    pub state: Payload,
}

impl Custom {
    /// Begins a generation.
    #[must_use]
    pub fn new(generation: Stamp, dot: Dot, state: Payload, deadline: u64) -> Self {
        Self { generation, merged: BTreeMap::from([(dot.replica, dot.seq)]), deadline, state }
    }

    /// Returns the encoded state if it is visible at `now_ms`.
    #[must_use]
    pub fn visible(&self, now_ms: u64) -> Option<&Bytes> {
        match &self.state {
            Payload::Value(state) if now_ms < self.deadline => Some(state),
            Payload::Value(_) | Payload::Tombstone | Payload::Absent => None,
        }
    }

    /// Drops the state of an expired entry and keeps its stamp.
    pub fn forget(&mut self) {
        if matches!(self.state, Payload::Value(_)) {
            self.state = Payload::Absent;
        }
    }

    /// Tells whether only a tombstone or stub is left.
    #[must_use]
    pub fn is_grave(&self) -> bool {
        !matches!(self.state, Payload::Value(_))
    }

    /// Tells whether every event merged in here is in `ctx`.
    #[must_use]
    pub fn within(&self, ctx: &Ctx) -> bool {
        self.merged.iter().all(|(&replica, &seq)| ctx.has(Dot { replica, seq }))
    }

    /// Joins another state in; returns whether anything changed.
    ///
    /// # Errors
    /// [`BadState`] when two states of one generation cannot be merged. The entry is unchanged.
    pub fn join(&mut self, other: &Self, merge: Option<&dyn MergeState>) -> Result<bool, BadState> {
        let before = (self.generation, self.rank());
        match (other.generation, other.rank()).cmp(&before) {
            Ordering::Less if other.generation < self.generation => Ok(false),
            Ordering::Less => {
                sometimes!(CustomStubLost);
                Ok(self.extend(other.deadline))
            }
            Ordering::Greater => {
                let same = other.generation == self.generation;
                sometimes!(CustomStubRefilled, if same);
                sometimes!(CustomReplaced, if !same);
                let deadline = if same { self.deadline.max(other.deadline) } else { other.deadline };
                *self = Self { deadline, ..other.clone() };
                Ok(true)
            }
            Ordering::Equal => self.join_equal(other, merge),
        }
    }

    /// A stub says nothing about a state: it loses to any state of its generation, whole.
    fn rank(&self) -> u8 {
        match self.state {
            Payload::Absent => 0,
            Payload::Value(_) => 1,
            Payload::Tombstone => 2,
        }
    }

    fn extend(&mut self, deadline: u64) -> bool {
        let later = deadline > self.deadline;
        self.deadline = self.deadline.max(deadline);
        later
    }

    fn join_equal(&mut self, other: &Self, merge: Option<&dyn MergeState>) -> Result<bool, BadState> {
        if !self.covers(other) {
            match (&self.state, &other.state) {
                (Payload::Value(mine), Payload::Value(theirs)) if !other.covers(self) => {
                    sometimes!(CustomStatesMerged);
                    let joined = merge.ok_or(BadState)?.merge(mine, theirs)?;
                    if joined.len() > STATE_BYTES_MAX {
                        return Err(BadState);
                    }
                    self.state = Payload::Value(joined);
                }
                _ => self.state = other.state.clone(),
            }
            for (&origin, &seq) in &other.merged {
                let mine = self.merged.entry(origin).or_default();
                *mine = (*mine).max(seq);
            }
            self.extend(other.deadline);
            return Ok(true);
        }
        Ok(self.extend(other.deadline))
    }

    fn covers(&self, other: &Self) -> bool {
        other.merged.iter().all(|(origin, seq)| self.merged.get(origin).is_some_and(|mine| mine >= seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::crdt::NEVER;
    use crdts::{CmRDT, PNCounter};

    fn counter(actor: u64, steps: u64) -> PNCounter<u64> {
        let mut c = PNCounter::new();
        (0..steps).for_each(|_| c.apply(c.inc(actor)));
        c
    }

    fn entry(ms: u64, replica: u64, state: &PNCounter<u64>) -> Custom {
        let (hlc, replica) = (Hlc::from_ms(ms), ReplicaId(replica));
        Custom::new(
            Stamp { hlc, replica: ReplicaId(1) },
            Dot { replica, seq: 1 },
            Payload::Value(encode(state).unwrap()),
            NEVER,
        )
    }

    #[test]
    fn states_whose_join_is_larger_than_any_receiver_takes_are_not_joined() {
        #[derive(Debug)]
        struct Append;
        impl MergeState for Append {
            fn merge(&self, mine: &[u8], theirs: &[u8]) -> Result<Bytes, BadState> {
                Ok([mine, theirs].concat().into())
            }
        }
        let of = |replica, bytes: usize| {
            let (stamp, dot) = (Stamp { hlc: Hlc::from_ms(1), replica: ReplicaId(1) }, Dot { replica, seq: 1 });
            Custom {
                merged: [(dot.replica, 1)].into(),
                ..Custom::new(stamp, dot, Payload::Value(vec![0; bytes].into()), NEVER)
            }
        };
        let (half, rest) = (of(ReplicaId(1), STATE_BYTES_MAX / 2), of(ReplicaId(2), STATE_BYTES_MAX / 2 + 1));
        let mut joined = half.clone();
        assert_eq!(joined.join(&rest, Some(&Append)), Err(BadState));
        assert_eq!(joined, half, "both stay as they were, and are told of");
        assert_eq!(joined.join(&of(ReplicaId(2), STATE_BYTES_MAX / 2), Some(&Append)), Ok(true));
    }

    #[test]
    fn states_of_one_generation_merge_and_a_newer_generation_replaces() {
        let merge = Erased::<PNCounter<u64>>::default();
        let mut a = entry(1, 1, &counter(1, 2));
        assert_eq!(a.join(&entry(1, 2, &counter(2, 3)), Some(&merge)), Ok(true));
        let both: PNCounter<u64> = decode(a.visible(0).unwrap()).unwrap();
        assert_eq!(both.read(), 5.into());
        assert_eq!(a.join(&entry(2, 1, &counter(1, 1)), Some(&merge)), Ok(true));
        let fresh: PNCounter<u64> = decode(a.visible(0).unwrap()).unwrap();
        assert_eq!(fresh.read(), 1.into());
    }

    #[test]
    fn a_stub_claims_nothing_it_no_longer_holds() {
        let merge = Erased::<PNCounter<u64>>::default();
        let mut stub = entry(1, 1, &counter(1, 2));
        stub.forget();
        let mut state = entry(1, 2, &counter(2, 3));
        assert_eq!(state.join(&stub, Some(&merge)), Ok(false));
        assert_eq!(state.join(&entry(1, 1, &counter(1, 2)), Some(&merge)), Ok(true));
        let both: PNCounter<u64> = decode(state.visible(0).unwrap()).unwrap();
        assert_eq!(both.read(), 5.into());
    }

    #[test]
    fn what_cannot_be_merged_changes_nothing() {
        let merge = Erased::<PNCounter<u64>>::default();
        let mut a = entry(1, 1, &counter(1, 2));
        let (before, other) = (a.clone(), entry(1, 2, &counter(2, 1)));
        let garbage = Custom { state: Payload::Value(Bytes::from_static(&[0xc1])), ..other.clone() };
        assert_eq!(a.join(&garbage, Some(&merge)), Err(BadState));
        assert_eq!(a.join(&other, None), Err(BadState), "nobody here knows the type");
        assert_eq!(a, before);
    }

    #[test]
    fn a_state_lives_until_the_latest_deadline_its_generation_was_given() {
        let state = |deadline| Custom { deadline, ..entry(1, 1, &counter(1, 2)) };
        let stub = |deadline| {
            let mut stub = state(deadline);
            stub.forget();
            stub
        };
        let mut a = state(10);
        assert!(a.visible(9).is_some() && a.visible(10).is_none());
        for (other, changes, deadline) in [
            (state(20), true, 20),
            (state(20), false, 20),
            (state(5), false, 20),
            (stub(30), true, 30),
            (stub(30), false, 30),
        ] {
            assert_eq!((a.join(&other, None), a.deadline), (Ok(changes), deadline));
        }
        let mut refilled = stub(40);
        assert!(refilled.is_grave() && refilled.visible(0).is_none());
        assert_eq!((refilled.join(&a, None), refilled.deadline), (Ok(true), 40));
        assert!(!refilled.is_grave() && refilled.visible(39).is_some());
        let next = Custom { deadline: 3, ..entry(2, 1, &counter(1, 1)) };
        assert_eq!((a.join(&next, None), a.deadline), (Ok(true), 3), "another generation has its own");
        assert_eq!((a.join(&state(50), None), a.deadline), (Ok(false), 3));
    }

    #[test]
    fn a_deleted_entry_stays_deleted_when_it_is_forgotten() {
        let stamp = Stamp { hlc: Hlc::from_ms(1), replica: ReplicaId(1) };
        let mut grave = Custom::new(stamp, Dot { replica: ReplicaId(1), seq: 1 }, Payload::Tombstone, NEVER);
        grave.forget();
        assert_eq!(grave.state, Payload::Tombstone);
        assert!(grave.is_grave() && grave.visible(0).is_none());
    }

    #[test]
    fn a_state_is_within_a_context_that_has_every_event_merged_into_it() {
        let merge = Erased::<PNCounter<u64>>::default();
        let mut a = entry(1, 1, &counter(1, 2));
        a.join(&entry(1, 2, &counter(2, 3)), Some(&merge)).unwrap();
        let mut ctx = Ctx::default();
        ctx.add(Dot { replica: ReplicaId(1), seq: 1 });
        assert!(!a.within(&ctx));
        ctx.add(Dot { replica: ReplicaId(2), seq: 1 });
        assert!(a.within(&ctx));
    }

    #[test]
    fn a_state_that_contains_the_other_replaces_it_without_a_merge() {
        let merge = Erased::<PNCounter<u64>>::default();
        let (mut part, mut whole) = (entry(1, 1, &counter(1, 2)), entry(1, 1, &counter(1, 2)));
        whole.join(&entry(1, 2, &counter(2, 3)), Some(&merge)).unwrap();
        assert_eq!((whole.join(&part, None), part.join(&whole, None)), (Ok(false), Ok(true)));
        assert_eq!(part, whole);
    }
}
