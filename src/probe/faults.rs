//! Mistakes that can be planted, one at a time.

/// Declares the faults once: the enum, all of them, their names.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $fault:ident,)+) => {
        /// A single mistake that can be planted in a build with `--cfg planted`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $fault,)+
        }

        impl Fault {
            /// All faults.
            pub const ALL: &[Self] = &[$(Self::$fault,)+];

            /// Returns the fault's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => stringify!($fault),)+
                }
            }

            /// Returns the fault of a name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|fault| fault.name() == name)
            }
        }
    };
}

faults! {
    // clock: stamps and what they decide
    /// The counter of the clock wraps within its millisecond instead of carrying into the next.
    CounterWraps,
    /// What is visible is decided by the wall clock alone, not by the later of it and the `Hlc`.
    ExpiryByWallClock,
    /// Of two writes of one instant each replica keeps its own: the replica does not break the tie.
    TieUnbroken,
    /// Stamps that arrive are not observed, so a later local write may be older than what it replaces.
    StampsNotObserved,
    /// A peer's clock is not looked at when it says hello.
    DriftUnchecked,
    /// A frame from the future is applied instead of waiting.
    FutureApplied,
    /// A frame from the future is applied, and its clock is observed only as far as it is allowed to be ahead.
    FutureClamped,
    /// Nothing leaves the pen again.
    PenNeverReleases,

    // crdt: what the values mean
    /// What floors say of former replicas is not taken over.
    FloorForgotten,
    /// A mark that comes stands beside what it covers.
    FoldNotJoined,
    /// What a node was before is folded although some member may have seen other events of it.
    FoldsEarly,
    /// A context takes the next event but one for the next and jumps the gap.
    GapJumped,
    /// A touch writes a new value instead of moving the deadline of the old one.
    TouchRestamps,
    /// A later deadline of the same value is not taken over.
    TouchNotJoined,
    /// A touch that moves nothing is noted as the last one all the same.
    IdleTouchMarks,
    /// The stub of a value takes the value away from those who have it.
    StubBeatsValue,
    /// Lives of a contribution are joined as if they were one.
    BirthIgnored,
    /// A contribution expires while an event of its counter is unstable.
    ContributionsExpireUnsettled,
    /// Contributions that were reset stay as long as another one of their counter lives.
    ResetContributionsPileUp,
    /// Of concurrent puts only the one with the largest stamp is kept.
    LosersDropped,
    /// A read takes the largest stamp first and finds it expired.
    ExpiredHidesLive,
    /// An element of mine that a fragment lacks stays, although its sender has seen it (R-FILTER).
    RemovalIgnored,
    /// An element of mine that a fragment lacks goes, although its sender has never seen it (R-FILTER).
    UnseenCountsAsRemoved,
    /// A custom state expires while an event of its entry is unstable.
    CustomExpiresUnsettled,

    // store: what is sent, joined and forgotten
    /// A removal mints no event.
    RemoveWithoutDot,
    /// A fragment covers only the events it was captured for (R-COVER).
    CoversOnlyAsked,
    /// A fragment of one path travels while an event of the whole key is unstable.
    EffectWithoutDot,
    /// The context of a batch is read before its fragments are captured.
    ContextReadEarlier,
    /// A receiver adopts the context of a batch.
    ContextAdopted,
    /// A batch that predates what is stable is accepted (R-STALE).
    StaleBatchAccepted,
    /// A full synchronisation that predates what is stable is accepted (R-STALE).
    StaleFullAccepted,
    /// After a full synchronisation everything the sender no longer holds stays (R-ABSENCE).
    AbsenceIgnored,
    /// R-ABSENCE takes a contribution with a touch or a reset that the sender has not seen.
    AbsenceTakesTouched,
    /// A full synchronisation does not hand over what its sender found stable.
    FrontierNotInherited,
    /// A full synchronisation does not hand over what its sender's log no longer names.
    FloorNotInherited,
    /// What an inherited frontier names as stable stays in the log.
    InheritedFrontierNotDrained,
    /// Entries are collected while a full synchronisation is being joined.
    CollectsWhileJoining,
    /// Events are stable as soon as they are seen here.
    OwnReportSuffices,
    /// Events are stable before as many nodes were met as are expected.
    ExpectedNotAwaited,
    /// Members to whom no configured address leads are not dialled.
    MembersNotDialled,
    /// A member that did not answer is not dialled again.
    AnnounceOff,
    /// What a member said of itself earlier replaces what it said later.
    ViewOrderIgnored,
    /// A standby accepts writes.
    StandbyWrites,
    /// A standby never takes over by itself.
    NeverTakesOver,
    /// A standby takes over from active members that are merely suspected.
    TakesOverFromSuspects,
    /// Members without a link are not waited for: what all others have seen is stable.
    AbsentNotAwaited,
    /// Events are stable before somebody was met at every configured address.
    CollectsBeforeMeeting,
    /// Graves are collected however young they are (R-AGE).
    AgeIgnored,
    /// An entry is settled when the first of its events is stable.
    OneStableSettlesAll,
    /// What had to stay when it expired stays for ever.
    SweptEntryStays,
    /// The log grows without bound.
    LogUnbounded,
    /// The oldest records of a full log are dropped and nobody remembers that they were (R-TRUNC).
    DroppedRecordsNotInFloor,
    /// An entry whose records were dropped counts as settled.
    TruncationForgotten,
    /// A map whose records were dropped is evicted.
    TruncatedMapEvicted,
    /// A map with unstable events is evicted.
    UnstableMapEvicted,
    /// An evicted register leaves nothing behind, not even its stamp.
    EvictionForgetsStamp,
    /// An evicted map answers that it is empty.
    HoleAnswersEmpty,
    /// An evicted map joins what arrives as if it were empty.
    HoleJoinsAsEmpty,
    /// A receiver does not take over what the sender of a full synchronisation has evicted.
    HoleNotInherited,
    /// An epoch clears what is here and not what arrives later.
    EpochForgotten,

    // wire: what the bytes say
    /// A range of a context is read one too low.
    RangeOffByOne,
    /// A run of covered events is read one too short.
    RunCutShort,
    /// A part of a frame is read with another dictionary of replicas and deadlines than it was written with.
    WrongDictionary,

    // replication, membership: who has what
    /// A report that comes together with members is dropped.
    ReportDropped,
    /// Who only receives never reports.
    IdleNeverReports,
    /// A report counts for every replica it names.
    ForgedReportCounts,
    /// A peer may know more of my events than I have made (R-SELF).
    ForgedEventsAccepted,
    /// What relays an author's event counts as the author's report.
    RelayedCountsAsReported,
    /// Half of the members are a majority.
    HalfIsQuorum,
    /// Increments go to a peer that lacks what the log no longer names (R-TRUNC).
    IncrementsBelowFloor,
    /// What a peer does not report is never sent again.
    NeverResends,
    /// Nobody passes on what others wrote.
    NeverRelays,
    /// A donor counts its joiner only when the joiner says that it is ready.
    JoinerCountedLate,
    /// A joiner is ready as soon as its donor has sent everything, received or not.
    JoinedHalfway,
    /// A joiner gets from its second donor what the log names, although the log no longer names all it lacks.
    ResumedBelowFloor,
    /// Two copies of one node that were let in apart both stay members.
    CopiesOfOneNodeStay,
    /// Who hands over ends before the others have what it has.
    LeavesAtOnce,
    /// Half of the members remove the other half.
    HalfGivesUp,
    /// Members are given up in a fourth of the time.
    GivesUpAtOnce,
    /// Who is silent here alone is called unreachable: nobody else is asked.
    QuorumOfOne,
    /// Who hears nobody calls everybody unreachable.
    IsolatedDeclares,
    /// Who was called unreachable stays so, though it is heard again.
    AccusedForGood,
    /// A removed replica is taken back (R-FENCE).
    ZombieAccepted,
    /// What a removed process had written and nobody received is written again over something newer.
    ReissueOverwritesNewer,
    /// It is written again although something newer may have been there and is forgotten.
    ReissueRevives,
    /// It is never written again.
    NotReissued,
    /// Who was restarted is told of its former self as of another process.
    TwinPresumed,
    /// A process that an operator removed comes back by itself.
    ExpelledComesBack,
    /// Members that were heard of too late are taken for any other (R-ORPHAN).
    OrphansTrusted,
    /// A restarted process goes on under its old replica id.
    ReplicaIdReused,

    // edges: who does not hold everything
    /// An edge lets others join, and answers for what it does not hold.
    EdgeIsDonor,
    /// A node founds beside members if they are edges.
    FoundsBesideEdge,
    /// An edge founds a cluster.
    EdgeFounds,
    /// An edge never makes way for a node that finds only edges.
    EdgeNeverMakesWay,
    /// What a full synchronisation leaves out as settled counts as gone.
    AbsentFromRest,
    /// What was taken in with somebody's floor counts as settled before all have that.
    InheritedTakenForSettled,
    /// Who goes leaves what it has to an edge.
    LeavesToEdge,
    /// That an edge has seen a write counts towards a level.
    EdgeCounts,
    /// What an edge does not hold is dropped where it gives a partition in full.
    AbsentAtEdge,
    /// An answer to a fetch is taken though it predates what is stable here.
    FetchedStale,
    /// An edge gives back what is read there.
    WarmEvicted,

    // repair: whether the copies are equal
    /// What expires stays in the sums.
    FingerprintMissesExpiry,
    /// Sums are compared as they are, without undoing what the other side cannot have seen.
    RepairWithoutContext,
    /// What the other side does not list is dropped here.
    RepairAbsenceDeletes,
    /// Copies count as verified when a few bits of their sums are equal.
    VerifiedOnTruncatedEquality,
}

#[cfg(planted)]
pub use switch::{is_planted, plant};

#[cfg(planted)]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault on this thread, or none.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// Tells whether a fault is planted on this thread.
    #[must_use]
    pub fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}
