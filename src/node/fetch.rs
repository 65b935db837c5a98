//! Fetching: an edge asks for a register that it has not kept, and whoever holds everything answers.
//!
//! The answer is a batch like any other, captured with the context it was captured at, so the rules for batches hold for
//! it: it may come late, twice or never. One that predates something stable here is refused (R-STALE), so what was deleted
//! and forgotten does not come back; what is not stable here yet is still here, and wins.
//!
//! # Invariants
//! * Of a key that several callers wait for one request is under way.
//! * An answer brings no effect without its event: it is given only to who has all that is stable where it is captured.
//! * At most [`FETCHES_MAX`] callers wait, and as many requests of a peer; more are refused, or dropped and asked again.
//! * Of one peer no more is asked at a time than its link takes in one turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Mono, Now};
use crate::crdt::Ctx;
use crate::error::FetchError;
use crate::id::{KeyspaceId, PartitionId};
use crate::node::input::LinkId;
use crate::node::output::Output;
use crate::node::{Node, Session};
use crate::probe::{planted, sometimes};
use crate::store::{Batch, Family, Fragment, KeyRef};
use crate::wire::{Answer, Control, Part};

/// Most callers that wait for fetches, and most requests of one peer that wait for its link.
pub const FETCHES_MAX: usize = 1_024;
/// Most bytes of keys that wait for one peer's link.
const ASKED_BYTES_MAX: usize = 1 << 20;
/// Most requests of one peer that are under way: half of the control messages its link takes at once.
const ASKING_MAX: usize = 128;
/// How soon another one is asked, at least; of a slow path two round trips.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Names a fetch. The caller makes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub u64);

/// Counters of an edge since the start; all zero at any other node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EdgeStats {
    /// Registers given back because nobody read them here.
    pub evicted: u64,
    /// Fetches that were not answered from what was here.
    pub fetches: u64,
    /// Those after which there was something.
    pub fetched: u64,
    /// Those that found that there is nothing.
    pub missing: u64,
    /// Those that failed.
    pub failed: u64,
}

type Place = (KeyspaceId, Bytes);

/// A register that somebody waits for.
#[derive(Debug, Default)]
struct Wanted {
    callers: Vec<(FetchId, Mono)>,
    /// Who was asked last, and when the next one is.
    asked: Option<(LinkId, Mono)>,
    /// Who was asked, and how often.
    tried: BTreeMap<LinkId, u32>,
}

/// What is being fetched.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    wanted: BTreeMap<Place, Wanted>,
    callers: usize,
}

impl Fetches {
    pub(super) fn len(&self) -> usize {
        self.callers
    }

    /// Counts the requests under way by whom they are of.
    fn asking(&self, now: Mono) -> BTreeMap<LinkId, usize> {
        let mut asking = BTreeMap::new();
        let under_way = self.wanted.values().filter_map(|wanted| wanted.asked).filter(|(_, until)| now < *until);
        under_way.for_each(|(link, _)| *asking.entry(link).or_default() += 1);
        asking
    }

    fn end(&mut self, place: &Place) -> Vec<FetchId> {
        let ended = self.wanted.remove(place).map(|wanted| wanted.callers).unwrap_or_default();
        self.callers -= ended.len();
        ended.into_iter().map(|(id, _)| id).collect()
    }
}

/// A register that a peer is to be given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    partition: PartitionId,
    /// Its keyspace, if anybody here has heard of it.
    keyspace: Option<KeyspaceId>,
    key: Bytes,
    /// The question it answers, if it is one.
    question: Option<u64>,
}

/// What a peer has asked for, or lacks of what was read here, and was not given yet.
#[derive(Debug, Default)]
pub struct Asked {
    requests: VecDeque<Request>,
    bytes: usize,
}

impl Asked {
    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn add(&mut self, request: Request) {
        let bytes = self.bytes + request.key.len();
        let has_room = self.requests.len() < FETCHES_MAX && bytes <= ASKED_BYTES_MAX;
        if has_room && !self.requests.contains(&request) {
            self.bytes = bytes;
            self.requests.push_back(request);
        }
    }

    fn next(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.bytes -= request.key.len();
        Some(request)
    }
}

impl Node {
    // -- who asks ----------------------------------------------------------------------------------

    /// Somebody wants a register that is not here.
    pub(super) fn on_fetch(&mut self, now: Now, id: FetchId, keyspace: KeyspaceId, key: Bytes) {
        let Some(edge) = self.config.node.edge.as_ref() else { return self.end_fetch(id, Ok(())) };
        let until = now.mono.plus(edge.fetch_timeout);
        self.stats.edge.fetches += 1;
        if !self.join.is_joined() || self.is_removed() || self.stopping {
            return self.end_fetch(id, Err(FetchError::NotJoined));
        }
        if self.fetches.callers >= FETCHES_MAX {
            return self.end_fetch(id, Err(FetchError::TooMany { max: FETCHES_MAX }));
        }
        let place = (keyspace, key);
        let wanted = self.fetches.wanted.entry(place.clone()).or_default();
        sometimes!(FetchShared, if !wanted.callers.is_empty());
        wanted.callers.push((id, until));
        self.fetches.callers += 1;
        let is_first = wanted.callers.len() == 1;
        let mut asking = self.fetches.asking(now.mono);
        if is_first && !self.ask(now, &place, &mut asking) {
            sometimes!(NobodyToAsk);
            self.end_fetches(&place, &Err(FetchError::Unreachable));
        }
    }

    /// Asks the nearest that was not asked yet and is not asked too much as it is; returns whether there is anybody at all.
    fn ask(&mut self, now: Now, place: &Place, asking: &mut BTreeMap<LinkId, usize>) -> bool {
        let Some(wanted) = self.fetches.wanted.get(place) else { return true };
        let holders = self.sessions().filter(|(_, s)| s.joined && s.up && (!s.is_edge || planted!(EdgeIsDonor)));
        let rank = |(link, session): (LinkId, &Session)| {
            let times = wanted.tried.get(&link).copied().unwrap_or(0);
            (times, session.beats.rtt().unwrap_or(Duration::MAX), link)
        };
        let ranked: BTreeSet<_> = holders.map(rank).collect();
        let has_room = |link| asking.get(&link).is_none_or(|count| *count < ASKING_MAX);
        let Some((times, rtt, link)) = ranked.iter().find(|(_, _, link)| has_room(*link)).copied() else {
            return !ranked.is_empty();
        };
        let Some(space) = self.store.spaces().get(place.0) else { return false };
        let message = Control::Fetch { keyspace: space.name().to_owned(), key: place.1.clone() };
        if let Some(wanted) = self.fetches.wanted.get_mut(place) {
            sometimes!(AskedSomebodyElse, if !wanted.tried.is_empty() && times == 0);
            wanted.tried.insert(link, times.saturating_add(1));
            let patience =
                if rtt == Duration::MAX { ASK_AGAIN_AFTER } else { ASK_AGAIN_AFTER.max(rtt.saturating_mul(2)) };
            wanted.asked = Some((link, now.mono.plus(patience)));
        }
        *asking.entry(link).or_default() += 1;
        self.send_control(link, &message);
        true
    }

    /// Asks again where nobody has answered, and ends what has waited long enough.
    pub(super) fn look_after_fetches(&mut self, now: Now) {
        let is_member = self.join.is_joined() && !self.is_removed();
        let links: BTreeSet<LinkId> = self.sessions().filter(|(_, s)| s.up).map(|(link, _)| link).collect();
        let places: Vec<Place> = self.fetches.wanted.keys().cloned().collect();
        let mut asking = self.fetches.asking(now.mono);
        for place in places {
            if !is_member {
                self.end_fetches(&place, &Err(FetchError::NotJoined));
                continue;
            }
            let Some(wanted) = self.fetches.wanted.get_mut(&place) else { continue };
            let late: Vec<FetchId> =
                wanted.callers.iter().filter(|(_, at)| *at <= now.mono).map(|(id, _)| *id).collect();
            wanted.callers.retain(|(_, until)| *until > now.mono);
            let is_over = wanted.callers.is_empty();
            let waits = |(link, until): (LinkId, Mono)| links.contains(&link) && now.mono < until;
            let again = !is_over && !wanted.asked.is_some_and(waits);
            self.fetches.callers -= late.len();
            sometimes!(FetchTimedOut, if !late.is_empty());
            late.into_iter().for_each(|id| self.end_fetch(id, Err(FetchError::TimedOut)));
            if is_over {
                self.fetches.wanted.remove(&place);
            } else if again {
                self.ask(now, &place, &mut asking);
            }
        }
        let asking: Vec<LinkId> = self.sessions().filter(|(_, s)| !s.asked_for.is_empty()).map(|(id, _)| id).collect();
        asking.into_iter().for_each(|link| self.serve(link));
    }

    /// Tells whether somebody waits for a key of a batch.
    pub(super) fn is_fetching(&self, batch: &Batch) -> bool {
        let wants = |of: &Fragment| self.fetches.wanted.contains_key(&(of.keyspace, of.key.clone()));
        batch.fragments.iter().any(wants)
    }

    /// A batch as if its sender had seen all that is stable here: what a planted fault takes it for.
    pub(super) fn antedated(&self, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        if let Some(partition) = self.store.read(batch.partition) {
            batch.ctx.join(partition.frontier());
        }
        batch
    }

    /// Ends what waits for keys of a batch that was joined in.
    pub(super) fn note_fetched(&mut self, batch: &Batch) {
        if self.fetches.wanted.is_empty() {
            return;
        }
        for fragment in &batch.fragments {
            self.end_fetches(&(fragment.keyspace, fragment.key.clone()), &Ok(()));
        }
    }

    /// Ends what waits for anything of a partition that was taken in as a whole.
    pub(super) fn note_fetched_with(&mut self, partition: PartitionId) {
        let spaces = self.store.spaces();
        let is_of = |(space, key): &&Place| {
            spaces.get(*space).is_some_and(|space| self.store.place(KeyRef::new(&space, key).hash) == partition)
        };
        let places: Vec<Place> = self.fetches.wanted.keys().filter(is_of).cloned().collect();
        places.iter().for_each(|place| self.end_fetches(place, &Ok(())));
    }

    /// There is nothing where it was asked for.
    pub(super) fn on_missing(&mut self, link: LinkId, keyspace: &str, key: Bytes) {
        let Some(space) = self.store.spaces().find(keyspace) else { return };
        let place = (space.id(), key);
        let at = self.store.place(KeyRef::new(&space, &place.1).hash);
        let known = self.links.get(&link).and_then(|l| l.session.as_deref()).and_then(|session| session.peer.known(at));
        let includes = |known: &Ctx| self.store.read(at).is_some_and(|p| known.includes(p.frontier()));
        if !known.is_some_and(includes) {
            return;
        }
        if self.fetches.wanted.get(&place).is_some_and(|wanted| wanted.tried.contains_key(&link)) {
            sometimes!(FetchedNothing);
            self.end_fetches(&place, &Ok(()));
        }
    }

    pub(super) fn end_all_fetches(&mut self) {
        let places: Vec<Place> = self.fetches.wanted.keys().cloned().collect();
        places.iter().for_each(|place| self.end_fetches(place, &Err(FetchError::Stopped)));
    }

    fn end_fetches(&mut self, place: &Place, end: &Result<(), FetchError>) {
        let ended = self.fetches.end(place);
        if ended.is_empty() {
            return;
        }
        let found = end.is_ok() && self.holds(place);
        sometimes!(Fetched, if found);
        let count = u64::try_from(ended.len()).unwrap_or(0);
        self.stats.edge.fetched += if found { count } else { 0 };
        self.stats.edge.missing += if end.is_ok() && !found { count } else { 0 };
        ended.into_iter().for_each(|id| self.end_fetch(id, end.clone()));
    }

    fn holds(&self, (space, key): &Place) -> bool {
        let Some(space) = self.store.spaces().get(*space) else { return false };
        let at = KeyRef::new(&space, key);
        let partition = self.store.read(self.store.place(at.hash));
        partition.is_some_and(|p| p.entry(&at).is_some_and(|entry| entry.grave_ms().is_none()))
    }

    fn end_fetch(&mut self, id: FetchId, end: Result<(), FetchError>) {
        self.stats.edge.failed += u64::from(end.is_err());
        self.out.push_back(Output::Fetched { id, end });
    }

    // -- who is asked ------------------------------------------------------------------------------

    /// A peer asks for a register. An edge has nothing to say about what it does not hold.
    pub(super) fn on_asked(&mut self, link: LinkId, keyspace: String, key: Bytes) {
        let request = self.request(&keyspace, key.clone(), None);
        let Some(session) = self.asker(link) else { return };
        if let Some(request) = request.filter(|request| request.keyspace.is_some()) {
            session.asked_for.add(request);
            self.serve(link);
        } else {
            self.send_control(link, &Control::Missing { keyspace, key });
        }
    }

    /// A peer reads a register at a level. Of a keyspace that nobody here has heard of there is nothing.
    pub(super) fn on_question(&mut self, link: LinkId, question: u64, keyspace: &str, key: Bytes) {
        let request = self.request(keyspace, key, Some(question));
        if let Some((session, request)) = self.asker(link).zip(request) {
            session.asked_for.add(request);
            self.serve(link);
        }
    }

    fn asker(&mut self, link: LinkId) -> Option<&mut Session> {
        let may = self.join.is_joined() && (!self.is_edge() || planted!(EdgeIsDonor));
        self.session_mut(link).filter(|session| session.joined && may)
    }

    /// Returns what is to be captured; `None` if the keyspace is none of registers.
    pub(super) fn request(&self, keyspace: &str, key: Bytes, question: Option<u64>) -> Option<Request> {
        let spaces = self.store.spaces();
        let partition = self.store.place(spaces.hash(keyspace, &key));
        let known = spaces.find(keyspace);
        if known.as_ref().is_some_and(|space| space.family() != Family::Register) {
            return None;
        }
        Some(Request { partition, keyspace: known.map(|space| space.id()), key, question })
    }

    /// Gives a peer what it asked for, as far as its link has room.
    pub(super) fn serve(&mut self, link: LinkId) {
        let window = self.config.replication.link_window_bytes;
        while let Some(session) = self.session_mut(link).filter(|session| session.peer.has_room(window)) {
            let Some(request) = session.asked_for.next() else { return };
            let known = self.links.get(&link).and_then(|l| l.session.as_deref());
            let known = known.and_then(|session| session.peer.known(request.partition));
            let Some(partition) = self.store.read(request.partition) else { continue };
            let Some(known) = known.filter(|known| known.includes(partition.floor())) else {
                // Once it has what is stable here it asks again.
                sometimes!(AskerIsBehind);
                continue;
            };
            let space = request.keyspace.and_then(|id| self.store.spaces().get(id));
            let at = space.as_deref().map(|space| KeyRef::new(space, &request.key));
            let part = match (request.question, at) {
                (Some(question), None) => Some(Part::Answer(Answer { question, batch: partition.capture_nothing() })),
                (Some(question), Some(at)) => {
                    Some(Part::Answer(Answer { question, batch: partition.capture_answer(&at, known) }))
                }
                (None, at) => at.and_then(|at| partition.capture_key(&at)).map(Part::Batch),
            };
            drop(partition);
            if let Some(part) = part {
                self.send_part(link, part);
            } else if let Some(space) = space {
                let keyspace = space.name().to_owned();
                self.send_control(link, &Control::Missing { keyspace, key: request.key });
            }
        }
    }
}
