//! The observed-remove map: fields, set members and counters under one key.
//!
//! A dot store (arXiv 1603.01529) without a clock of its own: the partition's context says which
//! dots were seen, so a removal leaves nothing behind but context. A path holds its *live
//! siblings*: one, unless puts were concurrent. Losers stay, because a remover who never saw the
//! loser must not remove it together with the winner.
//!
//! # Invariants
//! * Siblings are sorted by dot; no path has an empty list.
//! * A *hole* (an evicted map) knows only the listed paths; any other path answers nothing. What it *holds* for such a
//!   path is live, but there may be more: it is passed on and not shown.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crdts::{ResetRemove, VClock};

use super::context::{Ctx, Dot};
use super::counter::{Contribution, Counter};
use super::elems::Elems;
use crate::clock::Stamp;
use crate::id::ReplicaId;
use crate::probe::{planted, sometimes};

/// A place inside an entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Path {
    /// The register of a register keyspace.
    Register,
    /// The custom state of a custom keyspace.
    Custom,
    /// The deadline that later puts into this map inherit.
    Ttl,
    /// A map's field.
    Field(Bytes),
    /// A named counter of a map.
    Counter(Bytes),
    /// A member of a named set of a map.
    Member(Bytes, Bytes),
}

/// What an event or a fragment is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// One path.
    Path(Path),
    /// The whole entry.
    Key,
}

impl Scope {
    /// Tells whether an event of scope `other` lies inside.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        matches!(self, Self::Key) || self == other
    }

    /// Tells whether `path` lies inside.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        match self {
            Self::Key => true,
            Self::Path(p) => p == path,
        }
    }
}

/// One put: a value at a path that nobody who saw it has overwritten or removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elem {
    /// The event; a touch mints a new one.
    pub dot: Dot,
    /// The order of the value; a touch keeps it.
    pub stamp: Stamp,
    /// Absolute Unix milliseconds at which it stops being visible.
    pub deadline: u64,
    /// The value; empty for a set member.
    pub value: Bytes,
}

/// Returns the sibling a read shows: the largest stamp among the *unexpired* ones.
#[must_use]
pub fn winner(siblings: &[Elem], now_ms: u64) -> Option<&Elem> {
    if planted!(ExpiredHidesLive) {
        return siblings.iter().max_by_key(|e| (e.stamp, e.deadline, e.dot)).filter(|e| now_ms < e.deadline);
    }
    siblings.iter().filter(|e| now_ms < e.deadline).max_by_key(|e| (e.stamp, e.deadline, e.dot))
}

/// The elements and counters a fragment carries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Branch {
    /// Live siblings per path, in order of path.
    pub elems: Vec<(Path, Vec<Elem>)>,
    /// Contributions per counter, in order of name and origin.
    pub counters: Vec<(Bytes, Vec<(ReplicaId, Contribution)>)>,
    /// The sender evicted the map: what is listed is live, and about everything else nothing is said.
    pub hole: bool,
}

/// The state of a map entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    elems: Elems,
    counters: BTreeMap<Bytes, Counter>,
    hole: Option<Hole>,
}

/// What an evicted map still is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Hole {
    known: BTreeSet<Path>,
    held: Elems,
}

impl Tree {
    /// Iterates over paths and their siblings, in order.
    pub fn elems(&self) -> impl Iterator<Item = (&Path, &[Elem])> {
        self.elems.map().iter().map(|(path, siblings)| (path, siblings.as_slice()))
    }

    /// Returns the live siblings at a path.
    #[must_use]
    pub fn siblings(&self, path: &Path) -> &[Elem] {
        self.elems.map().get(path).map_or(&[], Vec::as_slice)
    }

    /// Iterates over the counters, in order of name.
    pub fn counters(&self) -> impl Iterator<Item = (&Bytes, &Counter)> {
        self.counters.iter()
    }

    /// Returns a counter, if anything was ever counted.
    #[must_use]
    pub fn counter(&self, name: &[u8]) -> Option<&Counter> {
        self.counters.get(name)
    }

    /// Returns how many paths and counters hold anything.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elems.map().len() + self.counters.len()
    }

    /// Returns the bytes the elements are accounted for, without a walk over them.
    #[must_use]
    pub fn elem_bytes(&self) -> usize {
        self.elems.bytes() + self.hole.as_ref().map_or(0, |hole| hole.held.bytes())
    }

    /// Tells whether this map was evicted and not refilled as a whole.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        self.hole.is_some()
    }

    /// Returns the paths an evicted map knows again.
    #[must_use]
    pub fn known_paths(&self) -> Option<&BTreeSet<Path>> {
        self.hole.as_ref().map(|hole| &hole.known)
    }

    /// Tells whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elems.map().is_empty() && self.counters.is_empty() && self.hole.is_none()
    }

    /// Puts one element at a path, replacing the siblings observed there.
    pub fn put(&mut self, path: Path, elem: Elem) {
        self.learn(&path);
        self.elems.insert(path, vec![elem]);
    }

    /// Erases what is observed at a path.
    pub fn remove(&mut self, path: &Path) {
        self.learn(path);
        self.elems.remove(path);
    }

    /// Erases every element observed and resets every counter, by the event `by`.
    pub fn clear(&mut self, by: Dot) {
        self.elems.clear();
        self.hole = None;
        self.counters.values_mut().for_each(|counter| counter.reset(by));
    }

    /// Returns the counter of this name, to change it.
    pub fn counter_mut(&mut self, name: &Bytes) -> &mut Counter {
        self.counters.entry(name.clone()).or_default()
    }

    fn learn(&mut self, path: &Path) {
        if let Some(hole) = self.hole.as_mut() {
            hole.held.remove(path);
            hole.known.insert(path.clone());
        }
    }

    fn knows(&self, path: &Path) -> bool {
        self.hole.as_ref().is_none_or(|hole| hole.known.contains(path))
    }

    /// Drops what is no longer visible; returns whether anything was. Contributions go only from a
    /// `settled` entry: until then a touch by a member that missed a reset may bring one back, and
    /// its floors must still be here.
    pub fn expire(&mut self, now_ms: u64, settled: bool) -> bool {
        let mut dropped = self.elems.retain(|_, e| now_ms < e.deadline);
        if let Some(hole) = self.hole.as_mut() {
            hole.held.retain(|_, e| now_ms < e.deadline);
        }
        if (settled || planted!(ContributionsExpireUnsettled)) && self.retain_contributions(|_, c| now_ms < c.deadline)
        {
            sometimes!(ExpiredContributionCollected);
            dropped = true;
        }
        sometimes!(ExpiredContributionKept, if self.counters.values().any(|c| c.0.values().any(|c| c.deadline <= now_ms)));
        dropped
    }

    /// Drops contributions that are entirely reset. Only for an entry without unstable dots.
    pub fn settle(&mut self) {
        if planted!(ResetContributionsPileUp) {
            return self.counters.retain(|_, counter| counter.is_live());
        }
        let gone = self.retain_contributions(|_, c| c.is_live());
        sometimes!(ResetCollected, if gone);
    }

    /// Returns whether any contribution went.
    fn retain_contributions(&mut self, keep: impl Fn((&Bytes, ReplicaId), &Contribution) -> bool) -> bool {
        let mut dropped = false;
        self.counters.retain(|name, counter| {
            let before = counter.0.len();
            counter.0.retain(|origin, c| keep((name, *origin), c));
            dropped |= counter.0.len() != before;
            !counter.0.is_empty()
        });
        dropped
    }

    /// Evicts the elements and leaves a hole. Only for a settled map without counters.
    pub fn evict(&mut self) {
        self.elems.clear();
        self.hole = Some(Hole::default());
    }

    /// Returns the earliest deadline of anything inside that is later than `after`, or an instant
    /// between the two.
    #[must_use]
    pub fn next_deadline(&self, after: u64) -> Option<u64> {
        let counters = self.counters.values().flat_map(|c| c.0.values()).map(|c| c.deadline).filter(|d| *d > after);
        let held = self.hole.iter().map(|hole| hole.held.soonest(after));
        counters.chain(held).chain([self.elems.soonest(after)]).min().filter(|d| *d != super::NEVER)
    }

    /// Returns the state restricted to a scope.
    #[must_use]
    pub fn restrict(&self, scope: &Scope) -> Branch {
        let contributions = |(name, c): (&Bytes, &Counter)| (name.clone(), c.0.iter().map(|(o, x)| (*o, *x)).collect());
        let siblings = |(path, s): (&Path, &Vec<Elem>)| (path.clone(), s.clone());
        let held = |path| self.hole.as_ref().and_then(|hole| hole.held.map().get_key_value(path));
        match scope {
            Scope::Key => {
                let mut elems: Vec<_> = self.elems.map().iter().chain(self.held()).map(siblings).collect();
                if self.is_hole() {
                    elems.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                let counters = self.counters.iter().map(contributions).collect();
                Branch { elems, counters, hole: self.is_hole() && !planted!(HoleAnswersEmpty) }
            }
            Scope::Path(Path::Counter(name)) => Branch {
                counters: self.counters.get_key_value(name).map(contributions).into_iter().collect(),
                ..Branch::default()
            },
            Scope::Path(path) => Branch {
                elems: held(path).or_else(|| self.elems.map().get_key_value(path)).map(siblings).into_iter().collect(),
                hole: !self.knows(path) && !planted!(HoleAnswersEmpty),
                ..Branch::default()
            },
        }
    }

    /// Returns the fragment of the whole key by which a hole is admitted: what it knows is listed elsewhere.
    #[must_use]
    pub fn admission(&self) -> Branch {
        let mut admission = self.restrict(&Scope::Key);
        admission.elems.retain(|(path, _)| !self.knows(path));
        admission
    }

    /// Returns what a hole holds of paths it does not know.
    fn held(&self) -> impl Iterator<Item = (&Path, &Vec<Elem>)> {
        self.hole.iter().flat_map(|hole| hole.held.map())
    }

    /// Joins a fragment's branch in; returns whether anything changed.
    ///
    /// An element of mine stays unless the sender's context has its dot and the fragment has not
    /// (R-FILTER); an element of theirs is added unless my context has its dot.
    pub fn join(&mut self, branch: &Branch, scope: &Scope, mine: &Ctx, theirs: &Ctx) -> bool {
        let mut changed = false;
        for (name, contributions) in &branch.counters {
            let counter = self.counters.entry(name.clone()).or_default();
            changed |= counter.join(contributions.iter().map(|(o, c)| (o, c)));
        }
        if branch.hole {
            sometimes!(HoleSaidNothing, if branch.elems.is_empty());
            return self.join_held(branch, mine) || changed;
        }
        let theirs_at: BTreeMap<&Path, &Vec<Elem>> = branch.elems.iter().map(|(p, s)| (p, s)).collect();
        for path in self.paths_to_join(branch, scope) {
            let incoming = theirs_at.get(&path).map_or(&[][..], |s| s.as_slice());
            changed |= self.join_path(path, incoming, mine, theirs);
        }
        if matches!(scope, Scope::Key) {
            sometimes!(HoleFilled, if self.is_hole());
            changed |= self.hole.take().is_some();
        }
        changed
    }

    fn paths_to_join(&self, branch: &Branch, scope: &Scope) -> BTreeSet<Path> {
        let mut paths: BTreeSet<Path> = branch.elems.iter().map(|(p, _)| p.clone()).collect();
        match scope {
            Scope::Key => paths.extend(self.elems.map().keys().chain(self.held().map(|(path, _)| path)).cloned()),
            Scope::Path(Path::Counter(_) | Path::Register | Path::Custom) => {}
            Scope::Path(path @ (Path::Ttl | Path::Field(_) | Path::Member(..))) => {
                paths.insert(path.clone());
            }
        }
        paths
    }

    /// What a hole lists is live: it is added. What it does not list may have been evicted there.
    fn join_held(&mut self, branch: &Branch, mine: &Ctx) -> bool {
        let mut changed = false;
        for (path, incoming) in &branch.elems {
            let known = self.knows(path);
            let elems = match self.hole.as_mut().filter(|_| !known) {
                Some(hole) => &mut hole.held,
                None => &mut self.elems,
            };
            let own = elems.remove(path);
            let news = incoming.iter().filter(|e| !mine.has(e.dot) && !own.iter().any(|o| o.dot == e.dot));
            let mut out: Vec<Elem> = own.iter().chain(news).cloned().collect();
            out.sort_by_key(|e| e.dot);
            sometimes!(HeldPassedOn, if out.len() > own.len());
            changed |= known && out.len() > own.len();
            elems.insert(path.clone(), out);
        }
        changed
    }

    fn join_path(&mut self, path: Path, incoming: &[Elem], mine: &Ctx, theirs: &Ctx) -> bool {
        let unknown = !self.knows(&path) && !planted!(HoleJoinsAsEmpty);
        let own = match self.hole.as_mut() {
            Some(hole) if unknown => hole.held.remove(&path),
            Some(_) | None => self.elems.remove(&path),
        };
        let seen = |dot| match planted!(RemovalIgnored) {
            true => false,
            false => theirs.has(dot) || planted!(UnseenCountsAsRemoved),
        };
        let mut out: Vec<Elem> =
            own.iter().filter(|e| incoming.iter().any(|i| i.dot == e.dot) || !seen(e.dot)).cloned().collect();
        for elem in incoming {
            if (unknown || !mine.has(elem.dot)) && !out.iter().any(|e| e.dot == elem.dot) {
                out.push(elem.clone());
            }
        }
        if planted!(LosersDropped) {
            let last = out.iter().map(|e| e.stamp).max();
            out.retain(|e| Some(e.stamp) == last);
        }
        sometimes!(ThreeSiblings, if out.len() > 2);
        sometimes!(HoleLearnedPath, if unknown);
        sometimes!(RemovedStayedAway, if incoming.iter().any(|i| !out.iter().any(|e| e.dot == i.dot)));
        sometimes!(UnseenPutSurvived, if out.iter().any(|e| !theirs.has(e.dot)));
        out.sort_by_key(|e| e.dot);
        let changed = out != own || unknown;
        self.learn(&path);
        self.elems.insert(path, out);
        changed
    }

    /// Drops contributions of which the sender has seen every event and which it no longer holds
    /// (R-ABSENCE); returns whether there were any. `holds` tells what it holds.
    pub fn drop_absent(&mut self, holds: &dyn Fn(&Bytes, ReplicaId) -> bool, theirs: &Ctx) -> bool {
        self.retain_contributions(|(name, replica), c| {
            let seen = theirs.has(Dot { replica, seq: c.seq });
            let all_seen = c.within(replica, theirs) || (seen && planted!(AbsenceTakesTouched));
            let absent = !holds(name, replica);
            sometimes!(AbsentContributionSpared, if absent && seen && !all_seen);
            !absent || !all_seen
        })
    }

    /// Takes over a hole of a sender that has seen more than I: what it evicted I may never have
    /// had. I know what it answered for. Elsewhere I hold what it held and what it has not seen; both
    /// may be losers to what was evicted, so reading there is a miss.
    pub fn inherit_hole(&mut self, known: BTreeSet<Path>, listed: &BTreeSet<Dot>, theirs: &Ctx) {
        let mut held = self.hole.take().map(|hole| hole.held).unwrap_or_default();
        held.retain(|path, _| !known.contains(path));
        let unknown: Vec<Path> = self.elems.map().keys().filter(|path| !known.contains(path)).cloned().collect();
        for path in unknown {
            let siblings = self.elems.remove(&path);
            held.insert(path, siblings);
        }
        held.retain(|_, e| listed.contains(&e.dot) || !theirs.has(e.dot));
        sometimes!(HoleInherited);
        sometimes!(HoleSparedUnseen, if !held.map().is_empty());
        self.hole = Some(Hole { known, held });
    }
}

/// Erases the elements and contributions whose events the clock covers.
impl ResetRemove<ReplicaId> for Tree {
    fn reset_remove(&mut self, clock: &VClock<ReplicaId>) {
        self.elems.retain(|_, e| e.dot.seq > clock.get(&e.dot.replica));
        self.counters.values_mut().for_each(|c| c.reset_remove(clock));
        self.counters.retain(|_, c| !c.0.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::crdt::NEVER;

    fn elem(replica: u64, seq: u64, ms: u64, deadline: u64) -> Elem {
        let replica = ReplicaId(replica);
        let stamp = Stamp { hlc: Hlc::from_ms(ms), replica };
        Elem { dot: Dot { replica, seq }, stamp, deadline, value: Bytes::from(vec![0]) }
    }

    #[test]
    fn an_expired_winner_uncovers_the_live_loser() {
        let siblings = [elem(1, 1, 9, 50), elem(2, 1, 3, NEVER)];
        assert_eq!(winner(&siblings, 49).map(|e| e.stamp.hlc.ms()), Some(9));
        assert_eq!(winner(&siblings, 50).map(|e| e.stamp.hlc.ms()), Some(3));
    }

    #[test]
    fn a_hole_learns_single_paths_and_forgets_that_it_is_one_with_the_whole_key() {
        let (field, e) = (Path::Field(Bytes::from_static(b"f")), elem(1, 1, 1, NEVER));
        let mut tree = Tree::default();
        tree.put(field.clone(), e);
        let (whole, mut ctx) = (tree.restrict(&Scope::Key), Ctx::default());
        ctx.add_range(ReplicaId(1), 1, 1);
        tree.evict();
        assert!(tree.siblings(&field).is_empty() && tree.is_hole());
        assert!(tree.join(&whole, &Scope::Key, &ctx, &ctx));
        assert!(!tree.is_hole() && tree.siblings(&field).len() == 1);
    }

    fn field(name: &'static str) -> Path {
        Path::Field(Bytes::from_static(name.as_bytes()))
    }

    fn tree(elems: &[(&'static str, u64, u64)]) -> Tree {
        let mut tree = Tree::default();
        elems.iter().for_each(|&(name, seq, deadline)| tree.put(field(name), elem(1, seq, seq, deadline)));
        tree
    }

    fn count(tree: &mut Tree, seq: u64, deadline: u64) {
        tree.counter_mut(&Bytes::from_static(b"n")).add(ReplicaId(1), seq, 5, deadline, 0);
    }

    fn upto(seq: u64) -> Ctx {
        let mut ctx = Ctx::default();
        ctx.add_range(ReplicaId(1), 1, seq);
        ctx
    }

    /// A hole that knows nothing and holds `g`, which the evicted map did not have.
    fn holding() -> Tree {
        let mut hole = tree(&[("g", 2, 60)]);
        hole.inherit_hole(BTreeSet::new(), &BTreeSet::new(), &upto(1));
        hole
    }

    #[test]
    fn a_scope_has_the_paths_and_covers_the_scopes_inside_it() {
        let (f, g) = (Scope::Path(field("f")), Scope::Path(field("g")));
        for (scope, has, covers) in
            [(&Scope::Key, [true, true], [true, true, true]), (&f, [true, false], [false, true, false])]
        {
            assert_eq!(["f", "g"].map(|name| scope.has(&field(name))), has);
            assert_eq!([&Scope::Key, &f, &g].map(|other| scope.covers(other)), covers);
        }
    }

    #[test]
    fn a_map_is_empty_when_it_shows_counts_and_holds_nothing() {
        let (shown, mut counted, mut evicted) =
            (tree(&[("f", 1, NEVER), ("g", 2, NEVER)]), Tree::default(), Tree::default());
        count(&mut counted, 1, NEVER);
        evicted.evict();
        assert!(Tree::default().is_empty() && [&shown, &counted, &evicted].iter().all(|tree| !tree.is_empty()));
        assert_eq!([&shown, &counted, &evicted].map(Tree::len), [2, 1, 0]);
        assert_eq!(counted.elem_bytes(), 0);
        let held = holding();
        assert!(held.siblings(&field("g")).is_empty() && held.elem_bytes() * 2 == shown.elem_bytes());
    }

    #[test]
    fn what_has_expired_goes_from_everywhere_and_the_next_deadline_is_told_before() {
        let mut all = holding();
        all.put(field("f"), elem(1, 3, 3, 50));
        count(&mut all, 4, 70);
        assert_eq!([0, 50, 60, 70].map(|after| all.next_deadline(after)), [Some(50), Some(60), Some(70), None]);
        assert!(!all.expire(49, true) && all.elems().next().is_some());
        assert!(all.expire(50, true) && all.elems().next().is_none());
        let holds = |tree: &Tree| tree.restrict(&Scope::Key).elems.len();
        assert!(!all.expire(59, true) && holds(&all) == 1);
        assert!(!all.expire(60, true) && holds(&all) == 0, "nobody was shown what a hole held");
        assert!(!all.expire(69, true) && !all.expire(70, false) && all.counter(b"n").is_some());
        assert!(all.expire(70, true) && all.counter(b"n").is_none());
        assert_eq!(tree(&[("f", 1, NEVER)]).next_deadline(0), None);
    }

    #[test]
    fn a_join_says_whether_anything_changed_whatever_it_was() {
        let (mut full, mut here) =
            (tree(&[("f", 1, NEVER), ("g", 2, NEVER)]), tree(&[("f", 1, NEVER), ("g", 2, NEVER)]));
        let join = |here: &mut Tree, other: &Tree, scope: &Scope, theirs| {
            here.join(&other.restrict(scope), scope, &upto(2), &theirs)
        };
        assert!(!join(&mut here, &full, &Scope::Key, upto(2)));
        count(&mut full, 3, NEVER);
        assert!(join(&mut here, &full, &Scope::Key, upto(3)), "a count, and the fields were known");
        full.put(field("e"), elem(1, 4, 4, NEVER));
        assert!(join(&mut here, &full, &Scope::Key, upto(4)), "the first of three fields");
        assert_eq!(here, full);
        let mut hole = full.clone();
        hole.evict();
        count(&mut hole, 5, NEVER);
        assert!(
            join(&mut here, &hole, &Scope::Key, upto(5)) && here.elems().count() == 3,
            "of the fields a hole says nothing"
        );
        assert!(
            join(&mut hole, &Tree::default(), &Scope::Key, upto(5)) && !hole.is_hole(),
            "a hole that is filled shows it"
        );
        assert!(
            join(&mut here, &Tree::default(), &Scope::Path(field("f")), upto(5))
                && here.siblings(&field("f")).is_empty()
        );
        assert!(!join(&mut here, &Tree::default(), &Scope::Path(field("f")), upto(5)));
    }

    #[test]
    fn what_a_hole_lists_is_added_and_takes_nothing_away() {
        let mut here = tree(&[("f", 1, NEVER)]);
        let list = holding().restrict(&Scope::Key);
        assert!(here.join(&list, &Scope::Key, &upto(1), &upto(2)) && here.elems().count() == 2);
        assert!(!here.join(&list, &Scope::Key, &upto(2), &upto(2)));
        assert!(!tree(&[]).join(&list, &Scope::Key, &upto(2), &upto(2)), "it was seen and is gone");
        let mut hole = tree(&[]);
        hole.evict();
        assert!(!hole.join(&list, &Scope::Key, &upto(1), &upto(2)), "what is only held is not shown");
        assert_eq!((hole.elems().count(), hole.restrict(&Scope::Key).elems.len()), (0, 1));
        assert_eq!(hole.restrict(&Scope::Path(field("g"))), list);
        assert_eq!(hole.admission(), list);
        hole.put(field("g"), elem(1, 3, 3, NEVER));
        assert_eq!(hole.admission().elems, [], "a path that is known is listed on its own");
        assert_eq!(hole.restrict(&Scope::Path(field("g"))).elems.len(), 1);
        assert!(!hole.restrict(&Scope::Path(field("g"))).hole, "it answers for what it knows");
        assert!(hole.restrict(&Scope::Path(field("h"))).hole, "and not for what it neither knows nor holds");
    }

    #[test]
    fn a_clock_erases_the_events_it_covers() {
        let mut all = tree(&[("f", 1, NEVER), ("g", 2, NEVER)]);
        count(&mut all, 3, NEVER);
        let mut upto_one = all.clone();
        upto_one.reset_remove(&upto(1).to_vclock());
        assert_eq!((upto_one.elems().count(), upto_one.counters().count()), (1, 1));
        upto_one.reset_remove(&upto(3).to_vclock());
        assert_eq!(upto_one, Tree::default());
    }

    #[test]
    fn a_path_that_a_hole_knows_again_joins_like_that_of_any_map() {
        let (mut hole, mut other, g) = (Tree::default(), Tree::default(), Scope::Path(field("g")));
        hole.evict();
        hole.put(field("g"), elem(1, 1, 1, NEVER));
        other.put(field("g"), elem(2, 1, 2, NEVER));
        let (mine, mut theirs) = (upto(1), Ctx::default());
        theirs.add_range(ReplicaId(2), 1, 1);
        assert!(hole.join(&other.restrict(&g), &g, &mine, &theirs));
        assert_eq!(hole.siblings(&field("g")).len(), 2, "neither saw the other");
        theirs.join(&mine);
        assert!(!hole.join(&hole.restrict(&g), &g, &theirs, &theirs));
        assert!(hole.join(&other.restrict(&g), &g, &theirs, &theirs));
        assert_eq!(hole.siblings(&field("g")).len(), 1, "one was removed elsewhere");
    }

    #[test]
    fn a_hole_that_inherits_another_holds_what_nobody_answers_for() {
        let mut hole = holding();
        hole.inherit_hole(BTreeSet::from([field("f")]), &BTreeSet::new(), &upto(1));
        assert_eq!(hole.admission().elems.len(), 1);
        hole.inherit_hole(BTreeSet::from([field("g")]), &BTreeSet::new(), &upto(1));
        assert_eq!((hole.admission().elems, hole.known_paths()), (vec![], Some(&BTreeSet::from([field("g")]))));
    }

    #[test]
    fn what_a_hole_holds_is_shown_next_to_what_makes_its_path_known() {
        let (mut hole, mut other, g) = (holding(), Tree::default(), Scope::Path(field("g")));
        other.put(field("g"), elem(2, 1, 2, NEVER));
        let mut theirs = Ctx::default();
        theirs.add_range(ReplicaId(2), 1, 1);
        assert!(hole.join(&other.restrict(&g), &g, &upto(2), &theirs));
        assert_eq!(hole.siblings(&field("g")).len(), 2);
        assert_eq!(hole.admission().elems, []);
    }
}
