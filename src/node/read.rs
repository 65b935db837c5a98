//! Reading a register at a level: everybody who holds everything is asked for it, what they answer is joined in, and the
//! read ends when as many have answered as the level takes.
//!
//! An answer is a batch of the register, captured after the question came, so whoever had reported a write before it was
//! asked answers with that write or what came over it. It is joined by the rules for batches, which is what mends this copy.
//! Whoever answered with less than is here when the read ends is given that in return, as an ordinary batch.
//!
//! # Invariants
//! * An answer counts if it came on the link of which it was asked, of the register it was asked for, and was joined whole: not
//!   one that predates something stable here (R-STALE), and none of which anything is in quarantine.
//! * That there is nothing of the register counts only of who knew this node to have all that is forgotten there, and with
//!   every invalidation that some member may lack.
//! * Who is counted, and how, is what `levels::count` says, at the time when the read ends.
//! * At most [`READS_MAX`] reads are under way; one more ends at once as not reached.
//! * Of one peer no more than [`ASKING_MAX`] are asked at a time, and each is mended at most once by a read.
//! * What is kept for a peer ends with its link, but for who has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Mono, Now, Stamp};
use crate::crdt::{Cell, Payload};
use crate::id::{KeyspaceId, PartitionId, ReplicaId};
use crate::node::input::LinkId;
use crate::node::levels::{self, Level, Outcome, WaitId};
use crate::node::output::Output;
use crate::node::{Node, Session};
use crate::store::{Batch, Body, Entry, KeyRef};
use crate::wire::Control;

/// Most reads at a level that are under way: the key of each is kept.
pub const READS_MAX: usize = 1_024;
/// Most questions that one peer has not answered: a quarter of the control messages its link takes at once.
pub const ASKING_MAX: usize = 64;
/// How soon a peer is asked again, at least; on a slow path after two round trips. It may not have known what this node has.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A read under way.
#[derive(Debug)]
struct Read {
    partition: PartitionId,
    keyspace: KeyspaceId,
    key: Bytes,
    level: Level,
    deadline: Option<Mono>,
    /// Who has answered, and with what.
    answered: BTreeMap<ReplicaId, Option<Held>>,
}

/// What of a register tells which of two states is the later one.
#[derive(Clone, Copy, Debug)]
struct Held {
    stamp: Stamp,
    deadline: u64,
    is_stub: bool,
}

impl Held {
    fn of(cell: &Cell) -> Self {
        let is_stub = *cell.payload() == Payload::Absent;
        Self { stamp: cell.stamp(), deadline: cell.deadline, is_stub }
    }

    /// Tells whether a peer that held `theirs` lacks something of `mine`.
    fn is_behind(theirs: Option<Self>, mine: &Cell, now_ms: u64) -> bool {
        let shows = mine.visible(now_ms).is_some();
        let here = Self::of(mine);
        !here.is_stub
            && theirs.map_or(shows, |theirs| {
                let order = |held: Self| (held.stamp, held.deadline);
                order(theirs) < order(here) || (theirs.is_stub && theirs.stamp == here.stamp && shows)
            })
    }
}

/// The reads under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    reads: BTreeMap<WaitId, Read>,
    by_deadline: BTreeSet<(Mono, WaitId)>,
    /// The members they were all judged by, and whether this node was one.
    judged: (u64, bool),
}

impl Reads {
    pub(super) fn len(&self) -> usize {
        self.reads.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.by_deadline.first().map(|(at, _)| *at)
    }

    fn add(&mut self, id: WaitId, read: Read) {
        self.by_deadline.extend(read.deadline.map(|at| (at, id)));
        self.reads.insert(id, read);
    }

    fn take(&mut self, id: WaitId) -> Option<Read> {
        let read = self.reads.remove(&id)?;
        if let Some(at) = read.deadline {
            self.by_deadline.remove(&(at, id));
        }
        Some(read)
    }

    fn overdue(&self, now: Mono) -> Vec<WaitId> {
        self.by_deadline.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }
}

/// What one peer is asked.
#[derive(Debug, Default)]
pub struct Questions {
    /// Everything under way is asked or waits to be.
    is_open: bool,
    waiting: BTreeSet<WaitId>,
    /// What was asked and not answered, and when it is asked again.
    asked: BTreeMap<WaitId, Mono>,
}

impl Questions {
    /// Returns how many are not answered.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    fn forget(&mut self, id: WaitId) {
        self.waiting.remove(&id);
        self.asked.remove(&id);
    }

    /// Returns which are to be asked now, and notes that they are.
    fn next(&mut self, now: Mono, again: Mono) -> Vec<WaitId> {
        let mut due: Vec<WaitId> = self.asked.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        while self.asked.len() + due.len() < ASKING_MAX
            && let Some(id) = self.waiting.pop_first()
        {
            due.push(id);
        }
        self.asked.extend(due.iter().map(|id| (*id, again)));
        due
    }
}

impl Node {
    /// Somebody reads a register at a level.
    pub(super) fn on_read(
        &mut self,
        now: Now,
        id: WaitId,
        at: (KeyspaceId, Bytes),
        level: Level,
        deadline: Option<Mono>,
    ) {
        let (keyspace, key) = at;
        let Some(space) = self.store.spaces().get(keyspace) else {
            let outcome = levels::count(level, &self.members, self.expected(), |_| false);
            return self.out.push_back(Output::Resolved { id, outcome });
        };
        let partition = self.store.place(space.hash(&key));
        let read = Read { partition, keyspace, key, level, deadline, answered: BTreeMap::new() };
        let outcome = self.judge_read(&read);
        if outcome.reached || self.stopping || self.reads.len() >= READS_MAX {
            self.out.push_back(Output::Resolved { id, outcome });
            return;
        }
        self.reads.add(id, read);
        for session in self.links.values_mut().filter_map(|link| link.session.as_deref_mut()) {
            if session.questions.is_open {
                session.questions.waiting.insert(id);
            }
        }
        self.look_after_reads(now);
    }

    /// Nobody waits for a write to come so far any more, or reads.
    pub(super) fn on_cancel(&mut self, id: WaitId) {
        self.waits.remove(id);
        self.take_read(id);
    }

    /// Asks whoever has come since, and those again who have not answered, and judges anew if the members have changed.
    pub(super) fn look_after_reads(&mut self, now: Now) {
        let members = (self.members_version, self.join.is_joined());
        if std::mem::replace(&mut self.reads.judged, members) != members {
            let all: Vec<WaitId> = self.reads.reads.keys().copied().collect();
            all.into_iter().for_each(|id| self.check_read(now, id));
        }
        if self.reads.len() > 0 {
            let links: Vec<LinkId> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.put_questions(now, link));
        }
    }

    fn put_questions(&mut self, now: Now, link: LinkId) {
        let may = self.join.is_joined() && !self.is_removed();
        let reads = &self.reads.reads;
        let session = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut());
        let Some(session) = session.filter(|s| may && s.joined && s.up && !s.is_edge) else { return };
        let Session { replica, questions, beats, .. } = session;
        if !std::mem::replace(&mut questions.is_open, true) {
            let open = reads.iter().filter(|(_, read)| !read.answered.contains_key(replica));
            questions.waiting = open.map(|(id, _)| *id).collect();
        }
        let patience = ASK_AGAIN_AFTER.max(beats.rtt().unwrap_or_default().saturating_mul(2));
        let due = questions.next(now.mono, now.mono.plus(patience));
        let asked: Vec<Control> = due
            .into_iter()
            .filter_map(|id| {
                let read = reads.get(&id)?;
                let keyspace = self.store.spaces().get(read.keyspace)?.name().to_owned();
                Some(Control::Ask { question: id.0, keyspace, key: read.key.clone() })
            })
            .collect();
        for message in asked {
            self.send_control(link, &message);
        }
    }

    /// An answer was joined in.
    pub(super) fn on_answer(&mut self, now: Now, link: LinkId, question: u64, batch: &Batch) {
        let id = WaitId(question);
        let Some(session) = self.links.get_mut(&link).and_then(|l| l.session.as_deref_mut()) else { return };
        let Some(read) = self.reads.reads.get_mut(&id) else { return };
        if batch.partition != read.partition || session.questions.asked.remove(&id).is_none() {
            return;
        }
        let of_it = batch.fragments.iter().find(|of| (of.keyspace, &of.key) == (read.keyspace, &read.key));
        read.answered.insert(session.replica, of_it.and_then(|of| of.cell.as_ref()).map(Held::of));
        self.check_read(now, id);
        self.put_questions(now, link);
    }

    fn check_read(&mut self, now: Now, id: WaitId) {
        let outcome = self.reads.reads.get(&id).map(|read| self.judge_read(read));
        if let Some(outcome) = outcome.filter(|outcome| outcome.reached) {
            self.end_read(now, id, outcome);
        }
    }

    /// Ends the reads whose deadline has passed.
    pub(super) fn expire_reads(&mut self, now: Now) {
        for id in self.reads.overdue(now.mono) {
            if let Some(outcome) = self.reads.reads.get(&id).map(|read| self.judge_read(read)) {
                self.end_read(now, id, outcome);
            }
        }
    }

    /// Ends every read, because nobody will be asked any more.
    pub(super) fn end_all_reads(&mut self) {
        let all = std::mem::take(&mut self.reads);
        for (id, read) in all.reads {
            let outcome = self.judge_read(&read);
            self.out.push_back(Output::Resolved { id, outcome });
        }
    }

    /// A node that has not joined may hold nothing yet of what it will have to answer for.
    fn judge_read(&self, read: &Read) -> Outcome {
        let me = self.me.replica;
        let has = |replica| if replica == me { self.join.is_joined() } else { read.answered.contains_key(&replica) };
        levels::count(read.level, &self.members, self.expected(), has)
    }

    fn end_read(&mut self, now: Now, id: WaitId, outcome: Outcome) {
        if let Some(read) = self.take_read(id) {
            self.mend(now, &read);
            self.out.push_back(Output::Resolved { id, outcome });
        }
    }

    fn take_read(&mut self, id: WaitId) -> Option<Read> {
        let read = self.reads.take(id)?;
        for session in self.links.values_mut().filter_map(|link| link.session.as_deref_mut()) {
            session.questions.forget(id);
        }
        Some(read)
    }

    /// Gives what is here to those who have answered with less. An edge leaves that to those who hold everything.
    fn mend(&mut self, now: Now, read: &Read) {
        let Some(space) = self.store.spaces().get(read.keyspace).filter(|_| !self.is_edge()) else { return };
        let now_ms = self.store.clock().visible_ms(now.wall_ms);
        let at = KeyRef::new(&space, &read.key);
        let behind = |entry: Option<&Entry>| -> BTreeSet<ReplicaId> {
            let Some(Body::Register(Some(mine))) = entry.map(|entry| &entry.body) else { return BTreeSet::new() };
            let all = read.answered.iter();
            all.filter(|(_, theirs)| Held::is_behind(**theirs, mine, now_ms)).map(|(replica, _)| *replica).collect()
        };
        let behind = self.store.read(read.partition).map(|partition| behind(partition.entry(&at))).unwrap_or_default();
        let Some(request) = self.request(space.name(), read.key.clone(), None) else { return };
        let links: Vec<LinkId> =
            self.sessions().filter(|(_, s)| s.joined && behind.contains(&s.replica)).map(|(link, _)| link).collect();
        for link in links {
            self.stats.mended += 1;
            if let Some(session) = self.session_mut(link) {
                session.asked_for.add(request.clone());
            }
            self.serve(link);
        }
    }
}
