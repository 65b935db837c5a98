//! The first message on a link: who are you, do we fit, and what do you have?
//!
//! # Invariants
//! * A peer speaks only for itself: its hello must name what its certificate names.
//! * Nothing but the hello is taken from a link before it passed; frames that overtake it wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Now;
use crate::crdt::Ctx;
use crate::error::PeerFault;
use crate::id::PartitionId;
use crate::membership::Beats;
use crate::node::Node;
use crate::node::event::Event;
use crate::node::fetch::Asked;
use crate::node::input::{LinkId, PeerIdentity, PeerSlot};
use crate::node::link::{Early, Link, Session, Staging, spread};
use crate::node::missing::Missing;
use crate::node::output::{CloseCode, Output};
use crate::node::read::Questions;
use crate::node::repair::first_due;
use crate::node::stats::{LagHistogram, RecentLag, Traffic};
use crate::probe::{planted, sometimes};
use crate::replication::{Peer, ReportLog};
use crate::wire::version::{MIN_VERSION, OURS, VERSION, Versions, negotiate};
use crate::wire::{Control, Hello};

/// What this version compresses frames with.
const COMPRESSION: &str = "zstd";
/// Links of one node that have not said hello: each may keep frames. An honest node has two at most, and a few more whose
/// process is gone.
const GREETINGS_MAX: usize = 8;

impl Node {
    /// `after` is how long the peer may have held the link for up already.
    pub(super) fn on_link_up(
        &mut self,
        now: Now,
        link: LinkId,
        identity: PeerIdentity,
        (dialled, after): (Option<PeerSlot>, Duration),
    ) {
        if let Some(slot) = dialled {
            self.slots.up(slot, link);
        }
        let greeting = self.links.values().filter(|l| l.session.is_none() && l.identity.node == identity.node).count();
        if greeting >= GREETINGS_MAX {
            return self.close(link, CloseCode::Overloaded, "too many links of this node have not said hello");
        }
        let told = spread(self.store.partition_count(), self.contexts());
        let told_joined = self.join.is_joined();
        self.links.insert(
            link,
            Link {
                identity,
                dialled,
                since: now.mono,
                after,
                hello_ms: 0,
                told_joined,
                told,
                early: Early::default(),
                session: None,
            },
        );
        let hello = Control::Hello(self.hello(now));
        self.send_control(link, &hello);
    }

    fn hello(&self, now: Now) -> Hello {
        Hello {
            version: VERSION,
            min_version: MIN_VERSION,
            cluster: self.config.node.cluster.clone(),
            node: self.me.node,
            region: self.me.region.clone(),
            replica: self.me.replica,
            wall_ms: now.wall_ms,
            hlc: self.store.clock().last(),
            joined: self.join.is_joined(),
            partitions: u32::try_from(self.store.partition_count()).unwrap_or(u32::MAX),
            hash_check: self.hash_check(),
            custom: self.config.custom.iter().map(|c| (c.keyspace.clone(), c.type_name.clone())).collect(),
            members: self.members.clone(),
            ctxs: self.contexts(),
            compression: vec![COMPRESSION.to_owned()],
            edge: self.is_edge(),
        }
    }

    /// Returns a digest of the key that places keys, so that it never leaves the process itself.
    fn hash_check(&self) -> u64 {
        use siphasher::sip::SipHasher13;
        use std::hash::Hasher;
        let mut hasher = SipHasher13::new_with_key(&self.store.config().hash_key);
        hasher.write(b"which partition is this?");
        hasher.finish()
    }

    /// Returns this replica's context of every partition that has seen anything.
    pub(super) fn contexts(&self) -> Vec<(PartitionId, Ctx)> {
        let ctx = |id| self.store.read(id).map(|p| (id, p.ctx().clone()));
        self.store.partition_ids().filter_map(ctx).filter(|(_, ctx)| !ctx.is_empty()).collect()
    }

    pub(super) fn on_hello(&mut self, now: Now, link: LinkId, hello: Hello) {
        if self.is_removed() {
            // Our hello names the removed, so the peer knows why.
            return self.close(link, CloseCode::Goodbye, "this replica was removed from the cluster");
        }
        if self.is_me(link, &hello) {
            if let Some(slot) = self.slots.of_link(link) {
                self.slots.met_self(slot);
                self.untended = true;
            }
            return self.close(link, CloseCode::Superseded, "this is the node itself");
        }
        if let Err(fault) = self.check_hello(now, link, &hello) {
            if let (PeerFault::ClockDrift { .. }, true, Some(slot)) = (&fault, hello.joined, self.slots.of_link(link)) {
                self.slots.member_is_apart(slot, hello.node);
            }
            self.fault(link, fault);
            return;
        }
        if !self.join.is_joined() && hello.members.was_removed(hello.replica) {
            // It gives nothing, and nobody has to wait for it before founding. It may know of those who have more.
            self.untended |= self.hearsay.join(&hello.members);
            return self.close(link, CloseCode::Goodbye, "this replica was removed from its cluster");
        }
        if self.members.is_removed(hello.replica) {
            sometimes!(RemovedRefused);
            sometimes!(BelowFloorRefused, if self.members.is_folded(hello.replica));
            if hello.members.was_removed(self.me.replica) && self.me.replica < hello.replica {
                // Each was removed by the other, and refuses what it says.
                sometimes!(GaveWayToOneRemoved);
                let is_barred = hello.members.bars(self.me.replica, self.me.node, self.join.is_joined());
                return self.heed(now, if is_barred { CloseCode::Expelled } else { CloseCode::Removed });
            }
            let code = self.refusal_of(link, hello.replica, hello.joined);
            let fault = PeerFault::Removed { replica: hello.replica };
            self.refused(link, fault.clone());
            if !(hello.joined && self.part(now, link, hello.replica)) {
                self.close(link, code, &fault.to_string());
            }
            return;
        }
        if self.check_clock(self.peers_now(now, link, &hello), now.wall_ms).is_err() {
            // The peer sees us as ahead and is about to close the link for it.
            sometimes!(OwnClockSeenAhead);
            if let Some(slot) = self.slots.of_link(link) {
                self.slots.clock_refused(slot);
                if hello.joined {
                    self.slots.member_is_apart(slot, hello.node);
                }
            }
            self.check_own_clock();
            return;
        }
        let same_node = |id| self.links.get(&id).is_some_and(|l| l.identity.node == hello.node);
        let rival = self.sessions().any(|(id, session)| session.replica != hello.replica && same_node(id));
        if !self.settle_duplicate(link, &hello) {
            self.close(link, CloseCode::Superseded, "there is another link to the same replica");
            return;
        }
        self.open_session(now, link, hello, rival);
    }

    /// Tells whether this very process is at the other end. Nobody else has both its certificate and its replica id.
    fn is_me(&self, link: LinkId, hello: &Hello) -> bool {
        let proven = self.links.get(&link).map(|l| l.identity.node);
        hello.replica == self.me.replica && proven == Some(self.me.node)
    }

    /// Returns what a peer's clock shows now at the latest: its hello may have been under way for as long as the link is
    /// up on its side, and what is late is not behind.
    fn peers_now(&self, now: Now, link: LinkId, hello: &Hello) -> Now {
        let age = self.links.get(&link).map_or(Duration::ZERO, |l| now.mono.since(l.since) + l.after);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Now { wall_ms: hello.wall_ms.saturating_add(age_ms), ..now }
    }

    fn check_hello(&self, now: Now, link: LinkId, hello: &Hello) -> Result<(), PeerFault> {
        negotiate(OURS, Versions { version: hello.version, min_version: hello.min_version })?;
        sometimes!(NewerPeerGreeted, if hello.version > VERSION);
        let differs = |what, theirs: &str, ours: &str| {
            let (theirs, ours) = (theirs.to_owned(), ours.to_owned());
            if theirs == ours { Ok(()) } else { Err(PeerFault::Incompatible { what, theirs, ours }) }
        };
        differs("the cluster's name", &hello.cluster, &self.config.node.cluster)?;
        let ours = self.store.partition_count().to_string();
        differs("the number of partitions", &hello.partitions.to_string(), &ours)?;
        differs("the digest of the hash key", &hello.hash_check.to_string(), &self.hash_check().to_string())?;
        for custom in &self.config.custom {
            let theirs = hello.custom.iter().find(|(name, _)| *name == custom.keyspace).map_or("undeclared", |c| &c.1);
            differs("the type of a custom keyspace", theirs, &custom.type_name)?;
        }
        if let Some((name, theirs)) =
            hello.custom.iter().find(|(n, _)| !self.config.custom.iter().any(|c| c.keyspace == *n))
        {
            return differs("the type of a custom keyspace", &format!("{name}: {theirs}"), "undeclared");
        }
        if self.config.replication.compress && !hello.compression.iter().any(|c| c == COMPRESSION) {
            return differs("the compression", &hello.compression.join(", "), COMPRESSION);
        }
        self.check_identity(link, hello)?;
        self.check_members(&hello.members)?;
        // Whoever has removed this replica may have folded its events.
        if !hello.members.was_removed(self.me.replica) {
            self.check_ctxs(&hello.ctxs)?;
        }
        let clock = self.check_clock(now, hello.wall_ms.max(hello.hlc.ms()));
        sometimes!(HelloRefusedForClock, if clock.is_err());
        clock
    }

    fn check_identity(&self, link: LinkId, hello: &Hello) -> Result<(), PeerFault> {
        let Some(proven) = self.links.get(&link).map(|l| &l.identity) else { return Ok(()) };
        if proven.node != hello.node || proven.region != hello.region {
            let claimed = format!("{} in {}", hello.node, hello.region);
            return Err(PeerFault::Identity { claimed, proven: format!("{} in {}", proven.node, proven.region) });
        }
        let taken = self.members.members.get(&hello.replica).filter(|m| m.node != hello.node).map(|m| m.node);
        let taken = if hello.replica == self.me.replica { Some(self.me.node) } else { taken };
        match taken {
            Some(other) => Err(PeerFault::DuplicateReplica { replica: hello.replica, other }),
            None => Ok(()),
        }
    }

    /// A clock that is ahead of ours by more than the bound; one that is behind will refuse us.
    pub(super) fn check_clock(&self, now: Now, peer_ms: u64) -> Result<(), PeerFault> {
        let max_ms = self.max_drift_ms();
        let ahead_ms = peer_ms.saturating_sub(now.wall_ms);
        if ahead_ms > max_ms && !planted!(DriftUnchecked) {
            Err(PeerFault::ClockDrift { ahead_ms, max_ms })
        } else {
            Ok(())
        }
    }

    /// Of two links between the same replicas the one dialled by the lower id is kept; returns
    /// whether that is the new one. A link to an earlier copy of the same node is closed.
    fn settle_duplicate(&mut self, link: LinkId, hello: &Hello) -> bool {
        let ours = |l: &Link| l.dialled.is_some() == (self.me.replica < hello.replica);
        let same_node: Vec<(LinkId, bool)> = self
            .links
            .iter()
            .filter(|(id, l)| **id != link && l.identity.node == hello.node)
            .filter_map(|(id, l)| l.session.as_ref().map(|s| (*id, s.replica == hello.replica && ours(l))))
            .collect();
        let new_is_ours = self.links.get(&link).is_some_and(ours);
        if same_node.iter().any(|(_, kept)| *kept) && !new_is_ours {
            sometimes!(NewLinkGaveWay);
            if let Some(slot) = self.links.get(&link).and_then(|l| l.dialled) {
                self.slots.met(slot, hello.node, hello.replica);
                self.untended = true;
            }
            return false;
        }
        for (old, _) in same_node {
            sometimes!(OldLinkGaveWay, if self.sessions().any(|(id, s)| id == old && s.replica == hello.replica));
            sometimes!(EarlierCopyHungUp, if self.sessions().any(|(id, s)| id == old && s.replica != hello.replica));
            self.close(old, CloseCode::Superseded, "there is a newer link to the same node");
        }
        true
    }

    /// The peer has hung up because it keeps another link to us, perhaps before its hello had left: who answers at the
    /// address that was dialled is who the other link leads to.
    pub(super) fn note_other_link(&mut self, link: LinkId) {
        let node = self.links.get(&link).map(|l| l.identity.node);
        let other = self.links.values().find(|l| l.session.is_some() && Some(l.identity.node) == node);
        if let (Some(slot), Some(node), Some(session)) =
            (self.slots.of_link(link), node, other.and_then(|l| l.session.as_deref()))
        {
            self.slots.met(slot, node, session.replica);
            self.untended = true;
        }
    }

    fn open_session(&mut self, now: Now, link: LinkId, hello: Hello, rival: bool) {
        let count = self.store.partition_count();
        let Some(place) = self.links.get_mut(&link) else { return };
        let session = Session {
            replica: hello.replica,
            joined: hello.joined,
            is_edge: hello.edge,
            donated: false,
            told: 0,
            hears: 0,
            up: true,
            peer: Peer::new(spread(count, hello.ctxs), now.mono),
            reports: ReportLog::new(std::mem::take(&mut place.told)),
            members_told: 0,
            urgent: false,
            asked: false,
            asked_again: BTreeSet::new(),
            beats: Beats::new(now.mono),
            suspects: None,
            load: None,
            gives_up: BTreeSet::new(),
            repair: crate::repair::Session::default(),
            repair_due: first_due(now.mono),
            asked_for: Asked::default(),
            questions: Questions::default(),
            staging: Staging::default(),
            stale_fulls: BTreeMap::new(),
            traffic: Traffic::default(),
            lag: LagHistogram::default(),
            recent_lag: RecentLag::default(),
            missing: Missing::default(),
        };
        place.hello_ms = hello.wall_ms;
        place.session = Some(Box::new(session));
        self.untended = true;
        match place.dialled {
            Some(slot) => self.slots.met(slot, hello.node, hello.replica),
            None => self.slots.heard_from(hello.node, hello.replica),
        }
        let joined_since = !place.told_joined && self.join.is_joined();
        self.liveness.up(hello.replica, now.mono);
        self.event(Event::Up { node: hello.node, region: hello.region, replica: hello.replica });
        self.timers.start_report(now.mono, self.config.replication.report_every);
        if joined_since {
            sometimes!(JoinedWhileGreeting);
            let ready = self.ready();
            self.send_control(link, &ready);
        }
        if hello.joined {
            self.hear(now, link, &hello.members);
            if self.join.is_joined() {
                self.meet(now, link, hello.replica, rival);
            }
        }
        self.check_own_clock();
        self.seek(now);
        let early = self.links.get_mut(&link).map(|l| l.early.take()).unwrap_or_default();
        sometimes!(EarlyFrameTaken, if !early.is_empty());
        early.iter().for_each(|frame| self.on_frame(now, link, frame));
    }

    /// Both sides have joined: send what the peer lacks and note what it has.
    pub(super) fn start_session(&mut self, now: Now, link: LinkId) {
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return };
        let replica = session.replica;
        for id in self.store.partition_ids() {
            if let (Some(mut partition), Some(known)) = (self.store.lock(id), session.peer.known(id)) {
                partition.report(replica, known);
            }
            session.peer.catch_up(id, &self.store, false);
        }
        if !self.fence_orphans(now, link) {
            self.pump(link);
        }
    }

    pub(super) fn send_control(&mut self, link: LinkId, message: &Control) -> usize {
        match self.encoder.encode_control(message) {
            Ok(bytes) => {
                let len = bytes.len();
                self.out.push_back(Output::Control { link, bytes });
                len
            }
            Err(unsendable) => {
                self.unsendable(unsendable);
                0
            }
        }
    }
}
