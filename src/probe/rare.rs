//! Events that must happen now and then.

/// Declares the events once: the enum, all of them, their names.
macro_rules! rare {
    ($($(#[doc = $doc:literal])+ $event:ident,)+) => {
        /// An event that must happen now and then in simulation.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum Sometimes {
            $($(#[doc = $doc])+ $event,)+
        }

        impl Sometimes {
            /// All events.
            pub const ALL: &[Self] = &[$(Self::$event,)+];

            /// Returns the event's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$event => stringify!($event),)+
                }
            }
        }
    };
}

rare! {
    // The clock.
    /// A local write was stamped ahead of the wall clock, because something later was seen.
    WallClockBehind,
    /// The counter of the clock was full and carried into the milliseconds.
    CounterCarried,

    // Values and their joins.
    /// An older write came to a register that had expired or was evicted here, and stayed away.
    OlderWriteMetStub,
    /// An older write came to a register that was deleted here, and stayed away.
    OlderWriteMetTombstone,
    /// The value of a stub's own stamp came from elsewhere and filled it again.
    StubRefilled,
    /// Two copies of one value met with different deadlines.
    LaterDeadlineUnderOneStamp,
    /// A touch asked for an earlier deadline than there was.
    TouchMovedNothing,
    /// Two concurrent writes of a register met and one lost.
    ConcurrentWrites,
    /// Two concurrent puts met and both stayed.
    SiblingsMet,
    /// Three concurrent puts met at one path.
    ThreeSiblings,
    /// One of several siblings went and another stayed.
    SiblingOutlived,
    /// A put stayed that the sender of a newer state of its path had not seen.
    UnseenPutSurvived,
    /// An element removed here came again in an older state and stayed away.
    RemovedStayedAway,
    /// An expired contribution began a new life.
    CounterBegunAgain,
    /// A contribution's earlier life came after its newer one.
    OlderLifeMet,
    /// A contribution's newer life, or a reset that saw it, replaced an earlier one.
    NewerLifeMet,
    /// An expired contribution stayed because its entry was not settled.
    ExpiredContributionKept,
    /// An expired contribution of a settled entry went.
    ExpiredContributionCollected,
    /// A contribution that was reset went from a settled entry.
    ResetCollected,
    /// Two states of one generation met, neither of which held the other.
    CustomStatesMerged,
    /// A newer generation of a custom state replaced an older one.
    CustomReplaced,
    /// A custom state that had expired or was deleted began a new generation.
    CustomBegunAgain,
    /// A custom stub came to the state it is the stub of.
    CustomStubLost,
    /// A custom stub was filled again with a state of its generation.
    CustomStubRefilled,
    /// A member was found to whom no configured address leads, and is to be dialled.
    MemberToBeDialled,
    /// A member is found at another address than before.
    MemberMoved,
    /// More dials were due than may begin at once.
    DialsPaced,
    /// A standby took over by itself.
    TookOver,
    /// Two donors had each let in another copy of a node, and the earlier one was removed.
    MemberSuperseded,

    // Holes.
    /// A map was evicted and became a hole.
    MapEvicted,
    /// A map was not evicted because some member may lack a part of it.
    EvictionRefused,
    /// The fragment of a hole came and said nothing about what it does not list.
    HoleSaidNothing,
    /// A hole took over one path of a peer.
    HoleLearnedPath,
    /// A hole took over the whole map of a peer.
    HoleFilled,
    /// A full synchronisation admitted a hole.
    HoleAdmitted,
    /// A full synchronisation made a hole here.
    HoleInherited,
    /// A hole was inherited and elements stayed that the sender had not seen.
    HoleSparedUnseen,
    /// An evicted map took what another one held of a path neither knows, or what a hole listed.
    HeldPassedOn,
    /// A path of a hole was removed without knowing what is there.
    RemovedUnseenFromHole,

    // What arrives at a partition.
    /// A batch that predates what is stable was dropped (R-STALE).
    StaleBatchDropped,
    /// A full synchronisation that predates what is stable was dropped (R-STALE).
    StaleFullDropped,
    /// A full synchronisation brought a frontier ahead of what was seen here.
    FrontierInherited,
    /// A full synchronisation brought a floor with dots that are not stable.
    FloorInherited,
    /// A dot came before an earlier one of its origin.
    GapOpened,
    /// The dot missing in front of others came.
    GapClosed,
    /// A map of which a full synchronisation says nothing was joined with nothing (R-ABSENCE).
    MapAbsentAtDonor,
    /// A value that the sender has seen and does not hold went (R-ABSENCE).
    AbsentRegisterDropped,
    /// A value the sender does not hold stayed because it has not seen it.
    AbsentRegisterSpared,
    /// A custom state that the sender has seen and does not hold went (R-ABSENCE).
    AbsentCustomDropped,
    /// A custom state the sender does not hold stayed because it has not seen all of it.
    AbsentCustomSpared,
    /// A contribution that the sender has seen and does not hold went (R-ABSENCE).
    AbsentContributionDropped,
    /// A contribution that the sender does not hold stayed: it had missed a touch or a reset of it.
    AbsentContributionSpared,
    /// An epoch came after a write that is younger and that it would match.
    EpochSparedYounger,
    /// A write came after the epoch that clears it.
    WriteOlderThanEpoch,

    // What is forgotten.
    /// Nothing was stable because a member had not reported yet.
    ReportAwaited,
    /// A member was removed that had not seen everything.
    RemovedHeldUpCollection,
    /// Dots beyond a gap became stable.
    StableBeyondGap,
    /// A tombstone went: stable and old.
    TombstoneCollected,
    /// A stub went: stable and old.
    StubCollected,
    /// The tombstone or stub of a custom state went.
    CustomGraveCollected,
    /// An epoch went: stable and old.
    EpochCollected,
    /// A settled grave was too young to go (R-AGE).
    YoungGraveKept,
    /// A grave that had waited to be old was no longer there.
    GraveOverwritten,
    /// A value expired that some member may lack, and its stamp stayed.
    UnstableExpired,
    /// A value was evicted that some member may lack, and its stamp stayed.
    UnstableEvicted,
    /// The log outgrew its limit and dropped its oldest records.
    LogBounded,
    /// An empty entry stayed because its log records were dropped early.
    EmptyTruncatedKept,
    /// A settled entry stayed because members lack the inherited floor.
    SettledHeldForFloor,
    /// Every member had the floor, and entries whose records were dropped were released.
    TruncatedReleased,
    /// Every member had the inherited floor, and all entries were released.
    InheritedFloorReached,
    /// Records were drained that an inherited frontier had long passed.
    LogDrainedBehindFrontier,

    // Local writes.
    /// A touch came to a value that had just expired.
    TouchMetExpired,
    /// A key was deleted of which nothing was known.
    UnseenKeyDeleted,
    /// A put inherited the earlier deadline of its map.
    MapDeadlineInherited,
    /// A map was refused a further element.
    MapAtItsLimit,
    /// A write was refused because its keyspace is full.
    WriteRefusedForRoom,
    /// A write was refused because the peers refuse this clock.
    WriteRefusedForClock,
    /// A write was refused because this replica was removed.
    WriteRefusedAsRemoved,

    // What is captured and sent.
    /// A key with several new events was captured once.
    CapturedOnce,
    /// A shared frame was full and the rest followed in the next.
    FlushCut,
    /// The whole key was sent for an event of a part, because an event of the whole is under way (R-COVER).
    WholeKeyForPart,
    /// There was something to send and no joined peer.
    NobodyToSendTo,
    /// A shared frame did not go to a peer that is behind.
    SharedFrameRefused,
    /// A link had no room for a shared frame.
    LinkFull,
    /// A slow link was given little at a time.
    LinkTakesLittle,
    /// A write of a third party was relayed.
    ThirdPartyRelayed,
    /// A peer lacked a third party's write for long, and nobody helped: its origin was at it.
    SlowButServed,
    /// A peer was so far behind that one frame did not do.
    CatchUpSplit,
    /// What was sent and never reported was sent again.
    ResentAfterSilence,
    /// A peer behind the floor was given a partition in full (R-TRUNC).
    IncrementRefused,
    /// A peer fell behind the floor while it waited to be sent the rest (R-TRUNC).
    FloorRoseMeanwhile,
    /// A full synchronisation took several frames.
    FullCut,
    /// A full synchronisation was reported.
    FullReported,
    /// A peer needed nothing more because a full synchronisation was under way.
    CaughtUpByFull,
    /// A joiner lacked a piece, and its donor began again.
    FullRestarted,
    /// A member could not take a full synchronisation, and it was sent again.
    FullAskedAgain,
    /// A full synchronisation that was never reported was sent again.
    FullResentAfterSilence,

    // Bytes.
    /// A payload was compressed.
    Compressed,
    /// A payload was sent as it is because compression gained too little.
    NotWorthCompressing,
    /// A context with gaps was read.
    GapsRead,
    /// A stub was read.
    StubRead,
    /// A register was read whose deadline is another event's than its value.
    TouchRead,
    /// An element was read whose event is of another replica than its stamp.
    TouchedElementRead,
    /// A message with too many of something was refused.
    CountRefused,
    /// A message with too long a name or value was refused.
    LengthRefused,
    /// A message with an impossible number was refused.
    NumberRefused,
    /// A message that is too large was refused.
    SizeRefused,

    // Links.
    /// A second link to the same replica was closed.
    NewLinkGaveWay,
    /// A link gave way to a second one to the same replica.
    OldLinkGaveWay,
    /// A link to an earlier copy of a node was closed when the next one came.
    EarlierCopyHungUp,
    /// A frame overtook the hello and was kept.
    FrameBeforeHello,
    /// A frame that overtook the hello was taken in after it.
    EarlyFrameTaken,
    /// A peer of a later version said hello.
    NewerPeerGreeted,
    /// A node that hands over waited for somebody's report.
    LeaverAwaitsReport,
    /// A node handed everything over and was about to end.
    DrainedInOrder,
    /// A node handed everything over and gave up its place.
    LeftInOrder,
    /// A node voted to remove a member, and too few others did.
    VotedInVain,
    /// A majority removed a member that was gone for too long.
    GivenUp,
    /// None of several members was heard.
    NobodyHeard,
    /// At least half of those that were heard suspected a member, too.
    SuspicionShared,
    /// A member that was silent here was heard elsewhere.
    SuspicionNotShared,
    /// A link was closed because nobody said hello.
    HelloNeverCame,
    /// A second hello was refused.
    SecondHelloRefused,
    /// A peer was refused because its clock is ahead.
    HelloRefusedForClock,
    /// A hello showed that this clock is ahead of the peer's.
    OwnClockSeenAhead,
    /// A frame in another's name was refused.
    ForgedOriginRefused,
    /// A peer claimed more of this process' events than there are.
    ForgedEventsRefused,
    /// A peer dropped or found stable what it has not seen.
    ForgedFloorRefused,
    /// A removed replica was refused (R-FENCE).
    RemovedRefused,
    /// A heartbeat came after a later one.
    BeatOvertaken,
    /// Nobody was suspected because this node itself had been late.
    LatenessForgiven,
    /// A beat that may have waited while this node stood still was no news.
    BeatFromBefore,
    /// A peer was silent for too long.
    PeerSuspected,
    /// A suspected peer was heard of again on the same link.
    PeerHeardOfAgain,
    /// The link to a silent peer was closed.
    PeerGivenUp,

    // Frames that come at the wrong time.
    /// A frame came after one its sender had sent later.
    FrameOvertaken,
    /// A batch came so late that it was stale, and its sender was asked to send again.
    LateBatchAskedForAgain,
    /// A sender that lacks something stable was synchronised in full.
    StaleSenderSynchronised,
    /// A full synchronisation came so late that it was stale, and was asked for again.
    LateFullAskedForAgain,
    /// A peer was not asked again for what it was just asked for.
    AskedOnlyOnce,
    /// A piece of a full synchronisation was missing.
    ChunkMissing,
    /// A frame ahead of the wall clock was kept in the pen.
    FramePenned,
    /// A frame was let out of the pen.
    PenReleased,
    /// The pen was full and a frame was dropped.
    PenFull,
    /// A link ended while frames of it were in the pen.
    PenEmptiedWithLink,
    /// A frame far ahead of the wall clock was refused.
    FrameFarAheadRefused,
    /// A report went at once because the peer waits for it.
    UrgentReport,
    /// A report went at once because much was received.
    ReportForBytes,

    // Members.
    /// A node founded a cluster and saw nobody.
    FoundedAlone,
    /// A node founded a cluster with some of its peers missing.
    FoundedOfSome,
    /// A node founded a cluster and saw all of its peers.
    FoundedOfAll,
    /// A node waited for one with a lower id to found.
    LowerLeftToFound,
    /// A node did not found because its clock is refused.
    FoundingRefusedForClock,
    /// A node joined between its hello and the peer's.
    JoinedWhileGreeting,
    /// The link to a donor ended before the joiner had everything.
    DonorLost,
    /// A member was heard of after who let it in had been removed here, or after its node had been given up.
    OrphanMet,
    /// Such a member had not seen all that was stable here, and was removed.
    OrphanFenced,
    /// A node found that it is one itself, or that its donors do not know of each other, and began again.
    BeganAgain,
    /// A donor served two joiners at once.
    TwoJoinersAtOnce,
    /// A node's next copy replaced its earlier one.
    Succession,
    /// Nothing was collected because nobody was met at some address yet.
    NotAllMetYet,
    /// A replica learnt that it was removed.
    ToldThatRemoved,
    /// A process whose replica was removed went on as another one.
    CameBack,
    /// One that had come back a moment before came back again.
    CameBackAgain,
    /// It took an id above what its clock says, which went back.
    CameBackAboveItsClock,
    /// What a node was before was folded away with all that came before it.
    FloorRaised,
    /// A replica was refused of which nothing is known but that it is below its node's floor.
    BelowFloorRefused,
    /// A partition's events of what a node was before were folded into a mark.
    Folded,
    /// A mark was taken over, because the same had been seen here.
    MarkAdopted,
    /// A joiner had events of removed replicas that its donor could not take any more.
    JoinerBroughtFolded,
    /// A process whose replica was removed stayed away, because an operator had removed it or a copy had its place.
    StaysAway,
    /// Of two that removed each other, neither of which takes the other's word, the lower one gave way.
    GaveWayToOneRemoved,
    /// A process was told that another one with its identity lives.
    TwinTold,
    /// A clone that found nobody else copied its original.
    OriginalIsDonor,
    /// A process met a later one of its node, which takes its place once it has everything.
    HeirMet,
    /// A removed replica whose node has another one said nothing any more: its process is gone.
    NoLastWords,
    /// A process that was to stay away came back when it was told to.
    RejoinedOnOrder,
    /// A process that had come back heard that an operator had removed what it was before.
    FormerWasExpelled,
    /// A write of a former replica that nobody had received was written again.
    WrittenAgain,
    /// A deletion of a former replica that nobody had received was made again.
    DeletedAgain,
    /// A write of a former replica had come through after all.
    UnsentHadComeThrough,
    /// A write of a former replica was not written again, because something newer is there.
    UnsentOutdated,
    /// A write of a former replica was not written again, because something newer may have been there and is forgotten.
    UnsentMayBeOutdated,
    /// A former replica had written with a clock that was ahead what is not kept for that.
    UnsentOfTheFuture,
    /// A former replica had written more that nobody had received than is kept.
    UnsentOverLimit,
    /// A majority of the peers refused this clock.
    ClockRefused,
    /// The peers accepted this clock again.
    ClockAcceptedAgain,
    /// A comparison undid events that the other side had not seen.
    ComparisonUndid,
    /// A joiner had a partition from a donor that went away, and got from the next one what was missing.
    JoinResumed,
    /// A grave that is old enough waited for a comparison.
    GraveAwaitedComparison,
    /// Comparisons said nothing of a grave's leaf so often that it was let go.
    GraveNeverCompared,
    /// Stable events stayed in the history because copies were being compared.
    HistoryHeld,
    /// A full synchronisation left out what its receiver was known to have.
    SettledLeftOut,
    /// Of events that came together some are stable and others are not.
    StepStableInPart,
    /// A comparison left a key out because events that count and others had changed it in turn.
    ComparisonMetBusyKey,
    /// A listing left a key out that had changed since the comparison began.
    ListingSparedBusyKey,
    /// What the other side gave of such a key was not taken.
    RestoreSparedBusyKey,
    /// A comparison waited for events that were still on their way.
    ComparisonAwaitedEvents,
    /// A comparison was not made because the history did not reach back to the meet.
    ComparisonLagged,
    /// A comparison was not finished in time.
    ComparisonTimedOut,
    /// A comparison was given up because its horizon had passed.
    HorizonPassed,
    /// A snapshot was asked for again with other leaves.
    SnapshotAskedAgain,
    /// Copies were equal once what one side could not have seen was undone.
    VerifiedInDetail,
    /// Copies were equal but for leaves that were left out.
    VerifiedInPart,
    /// A bucket differed whose leaves looked equal.
    LeavesLookedEqual,
    /// Two copies differed although their contexts said that they could not.
    DifferenceFound,
    /// What differed was restored here.
    CopyRestored,
    /// Who was given an older version answered with its own.
    RestoreAnswered,
    /// Part of a copy was lost silently.
    CopyDamaged,
    /// An edge gave back a register that nobody read there.
    ColdEvicted,
    /// An edge was fetched a register it had not kept.
    Fetched,
    /// What an edge fetched does not exist.
    FetchedNothing,
    /// Two callers waited for one fetch.
    FetchShared,
    /// The first that was asked did not answer, and another one was.
    AskedSomebodyElse,
    /// Nobody answered a fetch in time.
    FetchTimedOut,
    /// An edge could not reach anybody who holds everything.
    NobodyToAsk,
    /// Who asked had not seen what is stable where it asked.
    AskerIsBehind,
    /// A node found members, but only edges, and neither joined nor founded.
    EdgeIsNoDonor,
    /// An edge began anew so that a node which found only edges could found.
    EdgeMadeWay,
    /// An edge gave a partition in full, and what it did not hold stayed.
    GivenInFullByEdge,
    /// An edge gave a partition in full to a node that had not seen what was stable there.
    EdgeKnewMore,
    /// A wait was reached because the members changed.
    WaitReachedByRemoval,
    /// A wait ended at its deadline.
    WaitTimedOut,
    /// A wait ended because the node shut down.
    WaitEndedByShutdown,
}
