//! The register: last writer wins, with deletion, expiry and touch.
//!
//! The core is [`crdts::LWWReg`] with a [`Stamp`] as marker. Around it: a deadline that joins by
//! maximum among equal stamps, and the *stub* of a value dropped locally, which loses to the value.
//!
//! # Invariants
//! * Equal stamps mean equal values; anything else is a duplicated [`ReplicaId`] and is reported.
//! * A touch moves only the deadline: the value's stamp stays, so a touch never revives an
//!   overwritten value.

use std::cmp::Ordering;

use bytes::Bytes;
use crdts::{CmRDT, CvRDT, LWWReg};

use super::NEVER;
use super::context::Dot;
use crate::clock::{Hlc, Stamp};
use crate::id::ReplicaId;
use crate::probe::{planted, sometimes};

/// What a register holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// A value.
    Value(Bytes),
    /// A deletion, which beats every older write, also of a key never seen here.
    Tombstone,
    /// A value that expired or was evicted *here*: only its stamp is left.
    Absent,
}

/// A register's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    reg: LWWReg<Payload, Stamp>,
    /// What else the value is filed under, in order; part of the value.
    tags: Option<Box<[Bytes]>>,
    /// Number of the event that wrote the value; its replica is the stamp's.
    seq: u64,
    /// The event that set the deadline.
    pub touch: Dot,
    /// Absolute Unix milliseconds at which the value stops being visible.
    pub deadline: u64,
}

/// Two different values under one stamp: some [`ReplicaId`] is in use twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "two different values carry the stamp of replica {replica}: the id is in use twice; both values were kept where they are"
)]
pub struct DuplicateReplica {
    /// The id in use twice.
    pub replica: ReplicaId,
}

impl Cell {
    /// Builds the state a write leaves behind.
    #[must_use]
    pub fn new(payload: Payload, hlc: Hlc, dot: Dot, deadline: u64) -> Self {
        let marker = Stamp { hlc, replica: dot.replica };
        Self { reg: LWWReg { val: payload, marker }, tags: None, seq: dot.seq, touch: dot, deadline }
    }

    /// Files the value under tags.
    #[must_use]
    pub fn with_tags(self, mut tags: Vec<Bytes>) -> Self {
        tags.sort();
        tags.dedup();
        let tags = (!tags.is_empty()).then(|| tags.into_boxed_slice());
        Self { tags, ..self }
    }

    /// Returns what the value is filed under, in order.
    #[must_use]
    pub fn tags(&self) -> &[Bytes] {
        self.tags.as_deref().unwrap_or_default()
    }

    /// Returns the order of the value among all writes of this register.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.reg.marker
    }

    /// Returns the event that wrote the value.
    #[must_use]
    pub fn dot(&self) -> Dot {
        Dot { replica: self.reg.marker.replica, seq: self.seq }
    }

    /// Returns the payload, visible or not.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.reg.val
    }

    /// Returns the value if it is visible at `now_ms`.
    #[must_use]
    pub fn visible(&self, now_ms: u64) -> Option<&Bytes> {
        match &self.reg.val {
            Payload::Value(value) if now_ms < self.deadline => Some(value),
            Payload::Value(_) | Payload::Tombstone | Payload::Absent => None,
        }
    }

    /// Moves the deadline to the later of the two; `dot` is the event that asked for it. A touch
    /// that moves nothing leaves the state as it is, as joining it elsewhere does.
    pub fn extend(&mut self, dot: Dot, deadline: u64) {
        sometimes!(TouchMovedNothing, if (deadline, dot) <= (self.deadline, self.touch));
        if (deadline, dot) > (self.deadline, self.touch) || planted!(IdleTouchMarks) {
            self.touch = dot;
            self.deadline = self.deadline.max(deadline);
        }
    }

    /// Drops the value and keeps its stamp, as expiry and eviction do. A tombstone stays one.
    pub fn forget(&mut self) {
        if matches!(self.reg.val, Payload::Value(_)) {
            self.reg.val = Payload::Absent;
            self.tags = None;
        }
    }

    /// Tells whether only a tombstone or stub is left.
    #[must_use]
    pub fn is_grave(&self) -> bool {
        !matches!(self.reg.val, Payload::Value(_))
    }

    /// Joins another state of the same register in; returns whether anything changed.
    ///
    /// # Errors
    /// [`DuplicateReplica`] when equal stamps carry different values. The state is unchanged.
    pub fn join(&mut self, other: &Self) -> Result<bool, DuplicateReplica> {
        if planted!(TieUnbroken) && other.stamp().hlc == self.stamp().hlc && other.stamp() != self.stamp() {
            return Ok(false);
        }
        match other.stamp().cmp(&self.stamp()) {
            Ordering::Less => {
                sometimes!(OlderWriteMetStub, if self.reg.val == Payload::Absent && !other.is_grave());
                sometimes!(OlderWriteMetTombstone, if self.reg.val == Payload::Tombstone && !other.is_grave());
                Ok(false)
            }
            Ordering::Greater => {
                *self = other.clone();
                Ok(true)
            }
            Ordering::Equal => self.join_equal(other),
        }
    }

    fn join_equal(&mut self, other: &Self) -> Result<bool, DuplicateReplica> {
        let refill =
            matches!((&self.reg.val, &other.reg.val), (Payload::Absent, Payload::Value(_) | Payload::Tombstone));
        let known = matches!(other.reg.val, Payload::Absent);
        if refill {
            sometimes!(StubRefilled);
            self.reg.val = other.reg.val.clone();
            self.tags.clone_from(&other.tags);
        } else if known && planted!(StubBeatsValue) {
            self.forget();
        } else if !known && self.reg.validate_merge(&other.reg).is_err() {
            return Err(DuplicateReplica { replica: self.stamp().replica });
        }
        let later = (other.deadline, other.touch) > (self.deadline, self.touch) && !planted!(TouchNotJoined);
        if later {
            sometimes!(LaterDeadlineUnderOneStamp);
            self.deadline = other.deadline;
            self.touch = other.touch;
        }
        Ok(refill || later)
    }
}

/// The state-based face: a join that keeps its own value on a duplicated id.
impl CvRDT for Cell {
    type Validation = DuplicateReplica;

    fn validate_merge(&self, other: &Self) -> Result<(), Self::Validation> {
        self.clone().join(other).map(|_| ())
    }

    fn merge(&mut self, other: Self) {
        let kept = self.join(&other);
        debug_assert!(kept.is_ok(), "validate_merge comes first");
    }
}

/// The operation-based face: a register's operation is its state.
impl CmRDT for Cell {
    type Op = Self;
    type Validation = DuplicateReplica;

    fn validate_op(&self, op: &Self::Op) -> Result<(), Self::Validation> {
        self.validate_merge(op)
    }

    fn apply(&mut self, op: Self::Op) {
        self.merge(op);
    }
}

/// A tombstone never expires by itself; it is collected when it is stable and old.
#[must_use]
pub fn tombstone(hlc: Hlc, dot: Dot) -> Cell {
    Cell::new(Payload::Tombstone, hlc, dot, NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(replica: u64, seq: u64) -> Dot {
        Dot { replica: ReplicaId(replica), seq }
    }

    fn value(text: &'static str, ms: u64, replica: u64, deadline: u64) -> Cell {
        Cell::new(Payload::Value(Bytes::from_static(text.as_bytes())), Hlc::from_ms(ms), dot(replica, 1), deadline)
    }

    #[test]
    fn a_touch_never_revives_an_overwritten_value() {
        let old = value("old", 1, 1, 50);
        let mut touched = old;
        touched.extend(dot(2, 1), 900);
        let mut reg = value("new", 2, 3, 60);
        assert_eq!(reg.join(&touched), Ok(false));
        assert_eq!((reg.visible(55).map(Bytes::as_ref), reg.deadline), (Some(&b"new"[..]), 60));
    }

    #[test]
    fn a_stub_loses_to_the_value_of_its_own_stamp_and_to_nothing_older() {
        let full = value("v", 5, 1, 100);
        let mut stub = full.clone();
        stub.forget();
        let mut back = stub.clone();
        assert_eq!(back.join(&full), Ok(true));
        assert_eq!(back, full);
        assert_eq!(stub.join(&value("older", 4, 2, 999)), Ok(false));
        assert!(stub.visible(1).is_none());
    }

    #[test]
    fn equal_stamps_with_different_values_raise_the_alarm() {
        let mut a = value("a", 5, 1, 100);
        let before = a.clone();
        assert_eq!(a.join(&value("b", 5, 1, 100)), Err(DuplicateReplica { replica: ReplicaId(1) }));
        assert_eq!(a, before);
    }

    #[test]
    fn a_value_is_filed_under_each_tag_once_and_in_order_and_so_is_what_refills_its_stub() {
        let tags = ["b", "a", "b"].map(|tag| Bytes::from_static(tag.as_bytes()));
        let full = value("v", 5, 1, 100).with_tags(tags.to_vec());
        assert_eq!(full.tags(), ["a", "b"]);
        assert_eq!(value("v", 5, 1, 100).with_tags(Vec::new()), value("v", 5, 1, 100));
        let mut stub = full.clone();
        stub.forget();
        assert_eq!((stub.tags().len(), stub.is_grave(), stub.visible(0)), (0, true, None));
        assert_eq!(stub.join(&full), Ok(true));
        assert_eq!(stub.tags(), ["a", "b"]);
    }

    #[test]
    fn of_two_writes_in_one_instant_the_larger_replica_s_holds_everywhere() {
        let (small, large) = (value("small", 5, 1, 100), value("large", 5, 2, 50));
        let (mut a, mut b) = (small.clone(), large.clone());
        assert_eq!((a.join(&large), b.join(&small)), (Ok(true), Ok(false)));
        assert_eq!((&a, &b), (&large, &large));
        assert_eq!((a.visible(49).is_some(), a.visible(50)), (true, None));
        assert_eq!((a.dot(), a.stamp().hlc.ms()), (dot(2, 1), 5));
    }

    #[test]
    fn a_deletion_is_forever_and_stays_one_when_it_is_forgotten() {
        let mut grave = tombstone(Hlc::from_ms(6), dot(2, 3));
        grave.forget();
        assert_eq!((grave.payload(), grave.is_grave(), grave.deadline), (&Payload::Tombstone, true, NEVER));
        assert_eq!(grave.join(&value("older", 5, 1, NEVER)), Ok(false));
    }

    #[test]
    fn the_faces_of_a_register_refuse_and_keep_what_its_join_does() {
        let (mut a, clash) = (value("a", 5, 1, 100), value("b", 5, 1, 100));
        let refused = DuplicateReplica { replica: ReplicaId(1) };
        assert_eq!((a.validate_merge(&clash), a.validate_op(&clash)), (Err(refused), Err(refused)));
        let newer = value("c", 6, 1, 100);
        assert_eq!((a.validate_merge(&newer), a.validate_op(&newer)), (Ok(()), Ok(())));
        a.apply(newer.clone());
        assert_eq!(a, newer);
    }

    #[test]
    fn of_one_value_the_later_deadline_is_news_and_nothing_else_is() {
        let mut reg = value("v", 5, 1, 100);
        let (known, mut touched) = (reg.clone(), reg.clone());
        touched.extend(dot(2, 1), 200);
        assert_eq!((reg.join(&known), reg.join(&touched)), (Ok(false), Ok(true)));
        assert_eq!((reg.join(&touched), reg.join(&known)), (Ok(false), Ok(false)));
        assert_eq!((reg.deadline, reg.touch), (200, dot(2, 1)));
    }
}
