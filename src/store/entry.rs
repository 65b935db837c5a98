//! One key's state and the dots of it that are not stable yet.
//!
//! # Invariants
//! * A dot in `unstable` has a log record naming this entry's slot, so the entry outlives it.
//! * A *truncated* entry lost log records before they were stable: nothing of it is collected
//!   until every member has the floor.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::fragment::Fragment;
use super::keyspace::Family;
use crate::clock::Hlc;
use crate::crdt::custom::{BadState, MergeState};
use crate::crdt::register::DuplicateReplica;
use crate::crdt::{Cell, Ctx, Custom, Dot, NEVER, Path, Payload, Scope, Tree};
use crate::id::KeyspaceId;
use crate::probe::{planted, sometimes};

/// Bytes an entry costs beyond its key and values: slot, index, cell and allocator slack.
const ENTRY_BYTES: usize = 160;
/// Bytes a contribution costs, and a counter beyond its name.
const CONTRIBUTION_BYTES: usize = 168;
/// Bytes a tag costs beyond its text.
const TAG_BYTES: usize = 32;

/// The state of a key, by family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A register.
    Register(Option<Cell>),
    /// A map, set or counter.
    Tree(Box<Tree>),
    /// A custom state.
    Custom(Box<Option<Custom>>),
}

impl Body {
    fn new(family: Family) -> Self {
        match family {
            Family::Register | Family::Epoch => Self::Register(None),
            Family::Map | Family::Counter | Family::Set => Self::Tree(Box::default()),
            Family::Custom => Self::Custom(Box::new(None)),
        }
    }
}

/// Most dots that some member may not have seen an entry keeps: half of what one message may cover, because a fragment
/// covers all of them at once (R-COVER). As many as a partition's log has records by default.
pub const UNSTABLE_MAX: usize = 65_536;

/// The dots of an entry that some member may not have seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Unstable {
    /// None.
    #[default]
    None,
    /// One, about the whole register or custom state: by far the most common case.
    One(Dot),
    /// Several about the whole register or custom state.
    Many(Box<BTreeSet<Dot>>),
    /// Dots about parts of a tree.
    Scoped(Box<Scoped>),
}

/// Unstable dots and what each is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scoped {
    dots: BTreeMap<Dot, Scope>,
    /// How many of them are about the whole key.
    whole: usize,
}

impl Scoped {
    fn insert(&mut self, dot: Dot, scope: Scope) {
        self.whole += usize::from(scope == Scope::Key);
        let before = self.dots.insert(dot, scope);
        self.whole -= usize::from(before == Some(Scope::Key));
    }

    fn remove(&mut self, dot: Dot) {
        let before = self.dots.remove(&dot);
        self.whole -= usize::from(before == Some(Scope::Key));
    }
}

/// One key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The state.
    pub body: Body,
    /// The dots some member may lack.
    pub unstable: Unstable,
    /// Some dots were dropped from the log before they were stable.
    pub truncated: bool,
}

/// What joining a fragment did to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Joined {
    /// Something changed.
    pub changed: bool,
    /// Two concurrent writes met and one lost.
    pub conflict: bool,
}

/// A fragment that does not fit the entry. The entry is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// A replica id is in use twice.
    Duplicate(DuplicateReplica),
    /// A custom state that does not merge.
    State(BadState),
}

impl Entry {
    /// Builds an entry nobody has written yet.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self { body: Body::new(family), unstable: Unstable::None, truncated: false }
    }

    /// Notes an event.
    pub fn mark(&mut self, dot: Dot, scope: Scope) {
        let whole = matches!(self.body, Body::Register(_) | Body::Custom(_));
        match &mut self.unstable {
            Unstable::None if whole => self.unstable = Unstable::One(dot),
            Unstable::None => {
                let mut dots = Box::<Scoped>::default();
                dots.insert(dot, scope);
                self.unstable = Unstable::Scoped(dots);
            }
            Unstable::One(first) => self.unstable = Unstable::Many(Box::new(BTreeSet::from([*first, dot]))),
            Unstable::Many(dots) => {
                dots.insert(dot);
            }
            Unstable::Scoped(dots) => {
                dots.insert(dot, scope);
            }
        }
    }

    /// Forgets a dot; returns whether none is left.
    pub fn unmark(&mut self, dot: Dot) -> bool {
        let empty = match &mut self.unstable {
            Unstable::None => true,
            Unstable::One(only) => *only == dot,
            Unstable::Many(dots) => {
                dots.remove(&dot);
                dots.is_empty()
            }
            Unstable::Scoped(dots) => {
                dots.remove(dot);
                dots.dots.is_empty()
            }
        };
        let empty = empty || planted!(OneStableSettlesAll);
        if empty {
            self.unstable = Unstable::None;
        }
        empty
    }

    /// Returns the dots to be dropped from the log so that a fragment of this entry can be sent: none, or a share of
    /// them, so that this is rare.
    #[must_use]
    pub(super) fn too_many(&self) -> Vec<Dot> {
        let share = UNSTABLE_MAX / 16;
        match &self.unstable {
            Unstable::Many(dots) if dots.len() > UNSTABLE_MAX => dots.iter().take(share).copied().collect(),
            Unstable::Scoped(dots) if dots.dots.len() > UNSTABLE_MAX => dots.dots.keys().take(share).copied().collect(),
            Unstable::None | Unstable::One(_) | Unstable::Many(_) | Unstable::Scoped(_) => Vec::new(),
        }
    }

    /// Tells whether an unstable event of this is not among those named in a context.
    pub(super) fn is_beyond(&self, known: &Ctx) -> bool {
        match &self.unstable {
            Unstable::None => false,
            Unstable::One(dot) => !known.names(*dot),
            Unstable::Many(dots) => dots.iter().any(|dot| !known.names(*dot)),
            Unstable::Scoped(dots) => dots.dots.keys().any(|dot| !known.names(*dot)),
        }
    }

    /// Returns the scope of the fragment that may carry an unstable dot: the whole key as soon as
    /// any event of the whole key is unstable, because every path shows that event's effect, and an
    /// effect must never arrive without its dot (R-COVER).
    #[must_use]
    pub fn fragment_scope(&self, dot: Dot) -> Option<Scope> {
        match &self.unstable {
            Unstable::None => None,
            Unstable::One(only) => (*only == dot).then(|| self.whole_scope()),
            Unstable::Many(dots) => dots.contains(&dot).then(|| self.whole_scope()),
            Unstable::Scoped(dots) => {
                let own = dots.dots.get(&dot)?;
                sometimes!(WholeKeyForPart, if dots.whole > 0 && *own != Scope::Key);
                Some(if dots.whole > 0 && !planted!(EffectWithoutDot) { Scope::Key } else { own.clone() })
            }
        }
    }

    fn whole_scope(&self) -> Scope {
        match self.body {
            Body::Register(_) => Scope::Path(Path::Register),
            Body::Custom(_) => Scope::Path(Path::Custom),
            Body::Tree(_) => Scope::Key,
        }
    }

    fn covers(&self, scope: &Scope) -> Vec<(Dot, Scope)> {
        let whole = |dots: &mut dyn Iterator<Item = Dot>| dots.map(|d| (d, self.whole_scope())).collect();
        match &self.unstable {
            Unstable::None => Vec::new(),
            Unstable::One(dot) => whole(&mut std::iter::once(*dot)),
            Unstable::Many(dots) => whole(&mut dots.iter().copied()),
            Unstable::Scoped(dots) => {
                dots.dots.iter().filter(|(_, s)| scope.covers(s)).map(|(d, s)| (*d, s.clone())).collect()
            }
        }
    }

    /// Returns the state restricted to a scope, with all of the scope's unstable dots.
    #[must_use]
    pub fn restrict(&self, keyspace: KeyspaceId, key: &Bytes, scope: &Scope) -> Fragment {
        let mut fragment = Fragment::empty(keyspace, key.clone(), scope.clone());
        match &self.body {
            Body::Register(cell) => fragment.cell.clone_from(cell),
            Body::Tree(tree) => fragment.branch = tree.restrict(scope),
            Body::Custom(custom) => fragment.custom.clone_from(custom),
        }
        fragment.covers = self.covers(scope);
        fragment
    }

    /// Joins a fragment's state in, given my context and the sender's.
    ///
    /// # Errors
    /// [`Misfit`] when the fragment cannot be joined. The entry is unchanged.
    pub fn join(
        &mut self,
        fragment: &Fragment,
        mine: &Ctx,
        theirs: &Ctx,
        merge: Option<&dyn MergeState>,
    ) -> Result<Joined, Misfit> {
        match &mut self.body {
            Body::Register(cell) => join_cell(cell, fragment.cell.as_ref(), mine, theirs).map_err(Misfit::Duplicate),
            Body::Custom(custom) => join_custom(custom, fragment.custom.as_ref(), merge).map_err(Misfit::State),
            Body::Tree(tree) => {
                let before = siblings_beyond_one(tree, &fragment.scope);
                let changed = tree.join(&fragment.branch, &fragment.scope, mine, theirs);
                let conflict = siblings_beyond_one(tree, &fragment.scope) > before;
                sometimes!(SiblingsMet, if conflict);
                Ok(Joined { changed, conflict })
            }
        }
    }

    /// Drops what is no longer visible; returns whether anything was. What joins piece by piece
    /// (contributions, custom states) goes only from an entry that is settled and not `held`.
    pub fn expire(&mut self, now_ms: u64, held: bool) -> bool {
        let settled = self.is_settled() && !held;
        match &mut self.body {
            Body::Register(Some(cell)) if cell.deadline <= now_ms && !cell.is_grave() => {
                sometimes!(UnstableExpired, if self.unstable != Unstable::None);
                cell.forget();
                true
            }
            Body::Custom(custom) => match custom.as_mut() {
                Some(c) if (settled || planted!(CustomExpiresUnsettled)) && c.deadline <= now_ms && !c.is_grave() => {
                    c.forget();
                    true
                }
                Some(_) | None => false,
            },
            Body::Tree(tree) => tree.expire(now_ms, settled),
            Body::Register(_) => false,
        }
    }

    /// Returns the earliest deadline after `after` of anything that would expire.
    #[must_use]
    pub fn next_deadline(&self, after: u64) -> Option<u64> {
        let deadline = match &self.body {
            Body::Register(cell) => cell.as_ref().filter(|c| !c.is_grave()).map(|c| c.deadline),
            Body::Tree(tree) => tree.next_deadline(after),
            Body::Custom(custom) => custom.as_ref().as_ref().filter(|c| !c.is_grave()).map(|c| c.deadline),
        };
        deadline.filter(|d| *d != NEVER && *d > after)
    }

    /// Returns the stamp's millisecond of a tombstone or stub, the only thing left to collect.
    #[must_use]
    pub fn grave_ms(&self) -> Option<u64> {
        match &self.body {
            Body::Register(cell) => cell.as_ref().filter(|c| c.is_grave()).map(|c| c.stamp().hlc.ms()),
            Body::Custom(custom) => custom.as_ref().as_ref().filter(|c| c.is_grave()).map(|c| c.generation.hlc.ms()),
            Body::Tree(_) => None,
        }
    }

    /// Tells whether something of this was given back, or ended: it is known that something was written, not what.
    pub(super) fn is_mute(&self) -> bool {
        match &self.body {
            Body::Register(cell) => cell.as_ref().is_some_and(|c| *c.payload() == Payload::Absent),
            Body::Custom(custom) => custom.as_ref().as_ref().is_some_and(|c| c.state == Payload::Absent),
            Body::Tree(tree) => tree.is_hole(),
        }
    }

    /// Tells whether this is an evicted map that was not refilled as a whole.
    pub(super) fn is_hole(&self) -> bool {
        matches!(&self.body, Body::Tree(tree) if tree.is_hole())
    }

    /// Tells whether every event of this entry is known to every member.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_stable() && (!self.truncated || planted!(TruncationForgotten))
    }

    /// Tells whether every event of this entry is stable or gone from the log.
    fn is_stable(&self) -> bool {
        matches!(self.unstable, Unstable::None)
    }

    /// Drops what only a settled entry may drop: reset counters, and a grave older than
    /// `collect_before_ms` (R-AGE). Does nothing while a dot is unstable. Returns the clock value of a register's grave that
    /// went.
    pub fn settle(&mut self, collect_before_ms: u64) -> Option<Hlc> {
        if !self.is_settled() {
            return None;
        }
        if let Body::Tree(tree) = &mut self.body {
            tree.settle();
        }
        if self.grave_ms().is_some_and(|ms| ms <= collect_before_ms || planted!(AgeIgnored)) {
            match &mut self.body {
                Body::Register(cell) => {
                    sometimes!(StubCollected, if cell.as_ref().is_some_and(|c| *c.payload() == Payload::Absent));
                    sometimes!(TombstoneCollected, if cell.as_ref().is_some_and(|c| *c.payload() == Payload::Tombstone));
                    return cell.take().map(|cell| cell.stamp().hlc);
                }
                Body::Custom(custom) => {
                    sometimes!(CustomGraveCollected);
                    **custom = None;
                }
                Body::Tree(_) => {}
            }
        }
        None
    }

    /// Gives memory back, locally and silently: a register's value goes and its stamp stays, a
    /// settled map without counters becomes a hole, unless it is `held` for members that lack the
    /// floor. Returns whether anything was given back.
    pub fn evict(&mut self, held: bool) -> bool {
        let stable = self.is_stable() || planted!(UnstableMapEvicted);
        let settled = stable && ((!self.truncated && !held) || planted!(TruncatedMapEvicted));
        match &mut self.body {
            Body::Register(Some(cell)) if !cell.is_grave() => {
                sometimes!(UnstableEvicted, if self.unstable != Unstable::None);
                if planted!(EvictionForgetsStamp) {
                    self.body = Body::Register(None);
                    return true;
                }
                cell.forget();
                true
            }
            Body::Tree(tree) if settled && tree.counters().next().is_none() && tree.elems().next().is_some() => {
                sometimes!(MapEvicted);
                tree.evict();
                true
            }
            Body::Tree(tree) => {
                sometimes!(EvictionRefused, if !settled && tree.elems().next().is_some());
                false
            }
            Body::Register(_) | Body::Custom(_) => false,
        }
    }

    /// Tells whether nothing is left of this key. An empty entry that is truncated stays: were it
    /// made anew it could be evicted, and the hole would answer for dots some member still lacks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let gone = match &self.body {
            Body::Register(cell) => cell.is_none(),
            Body::Tree(tree) => tree.is_empty(),
            Body::Custom(custom) => custom.is_none(),
        };
        sometimes!(EmptyTruncatedKept, if gone && self.truncated);
        gone && self.is_settled()
    }

    /// Returns the bytes this entry is accounted for, without its key.
    #[must_use]
    pub fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match &self.body {
                Body::Register(cell) => cell.as_ref().map_or(0, cell_bytes),
                Body::Tree(tree) => tree_bytes(tree),
                Body::Custom(custom) => custom.as_ref().as_ref().map_or(0, |c| payload_bytes(&c.state)),
            }
    }
}

fn join_cell(
    cell: &mut Option<Cell>,
    other: Option<&Cell>,
    mine: &Ctx,
    theirs: &Ctx,
) -> Result<Joined, DuplicateReplica> {
    match (cell, other) {
        (_, None) => Ok(Joined::default()),
        (slot @ None, Some(other)) => {
            *slot = Some(other.clone());
            Ok(Joined { changed: true, conflict: false })
        }
        (Some(cell), Some(other)) => {
            let conflict = cell.stamp() != other.stamp() && !theirs.has(cell.dot()) && !mine.has(other.dot());
            sometimes!(ConcurrentWrites, if conflict);
            Ok(Joined { changed: cell.join(other)?, conflict })
        }
    }
}

fn join_custom(
    custom: &mut Option<Custom>,
    other: Option<&Custom>,
    merge: Option<&dyn MergeState>,
) -> Result<Joined, BadState> {
    let changed = match (custom, other) {
        (_, None) => false,
        (slot @ None, Some(other)) => {
            *slot = Some(other.clone());
            true
        }
        (Some(custom), Some(other)) => custom.join(other, merge)?,
    };
    Ok(Joined { changed, conflict: false })
}

fn siblings_beyond_one(tree: &Tree, scope: &Scope) -> usize {
    match scope {
        Scope::Path(path) => tree.siblings(path).len().saturating_sub(1),
        Scope::Key => tree.elems().map(|(_, s)| s.len().saturating_sub(1)).sum(),
    }
}

pub(super) fn cell_bytes(cell: &Cell) -> usize {
    payload_bytes(cell.payload()) + cell.tags().iter().map(|tag| TAG_BYTES + tag.len()).sum::<usize>()
}

pub(super) fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Value(value) => value.len(),
        Payload::Tombstone | Payload::Absent => 0,
    }
}

fn tree_bytes(tree: &Tree) -> usize {
    let counters: usize = tree.counters().map(|(name, c)| name.len() + CONTRIBUTION_BYTES * (1 + c.0.len())).sum();
    tree.elem_bytes() + counters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::crdt::Contribution;
    use crate::id::ReplicaId;

    fn dot(seq: u64) -> Dot {
        Dot { replica: ReplicaId(1), seq }
    }

    fn field(name: &'static [u8]) -> Scope {
        Scope::Path(Path::Field(Bytes::from_static(name)))
    }

    /// Marks and unmarks at random, next to a plain map of what should be unstable.
    fn agrees_with_a_plain_map(family: Family, scopes: &[Scope], whole: &Scope) {
        let mut rng = fastrand::Rng::with_seed(13);
        for _ in 0..if cfg!(miri) { 1 } else { 300 } {
            let (mut entry, mut plain) = (Entry::new(family), BTreeMap::new());
            for _ in 0..30 {
                let (dot, scope) = (dot(rng.u64(1..6)), rng.choice(scopes).unwrap().clone());
                if rng.bool() {
                    entry.mark(dot, scope.clone());
                    plain.insert(dot, scope);
                } else {
                    plain.remove(&dot);
                    assert_eq!(entry.unmark(dot), plain.is_empty());
                }
                assert_eq!(entry.is_settled(), plain.is_empty());
                let all = plain.values().find(|s| *s == whole);
                for dot in (1..6).map(self::dot) {
                    let carried = plain.get(&dot).map(|own| all.unwrap_or(own).clone());
                    assert_eq!(entry.fragment_scope(dot), carried);
                }
                for scope in scopes {
                    let inside = plain.iter().filter(|(_, s)| scope.covers(s)).map(|(d, s)| (*d, s.clone()));
                    let covers = entry.restrict(KeyspaceId(0), &Bytes::new(), scope).covers;
                    assert_eq!(covers, inside.collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn the_unstable_dots_of_an_entry_are_those_marked_and_not_unmarked() {
        agrees_with_a_plain_map(Family::Map, &[Scope::Key, field(b"a"), field(b"b")], &Scope::Key);
        let register = Scope::Path(Path::Register);
        agrees_with_a_plain_map(Family::Register, std::slice::from_ref(&register), &register);
        let custom = Scope::Path(Path::Custom);
        agrees_with_a_plain_map(Family::Custom, std::slice::from_ref(&custom), &custom);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
    fn an_entry_with_more_unstable_dots_than_can_be_sent_gives_up_the_oldest() {
        for (family, scope) in [(Family::Register, Scope::Path(Path::Register)), (Family::Map, field(b"f"))] {
            let mut entry = Entry::new(family);
            let max = u64::try_from(UNSTABLE_MAX).unwrap();
            (1..=max).for_each(|seq| entry.mark(dot(seq), scope.clone()));
            assert_eq!(entry.too_many(), []);
            entry.mark(dot(max + 1), scope);
            assert_eq!(entry.too_many(), (1..=max / 16).map(dot).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_entry_takes_what_it_holds_and_something_for_itself() {
        let bytes = |body: Body| Entry { body, ..Entry::new(Family::Register) }.bytes();
        let kilo = Bytes::from(vec![7; 1_000]);
        let empty = bytes(Body::Register(None));
        assert_eq!((empty, bytes(Body::Custom(Box::new(None))), bytes(Body::Tree(Box::default()))), (160, 160, 160));
        let cell = Cell::new(Payload::Value(kilo.clone()), Hlc::default(), dot(1), NEVER);
        assert_eq!(bytes(Body::Register(Some(cell.clone()))), empty + 1_000);
        let tagged = bytes(Body::Register(Some(cell.with_tags(vec![kilo.slice(..300), kilo.slice(..500)]))));
        assert!((empty + 1_800..empty + 1_900).contains(&tagged), "{tagged}");
        let custom = Custom::new(Default::default(), dot(1), Payload::Value(kilo.clone()), NEVER);
        assert_eq!(bytes(Body::Custom(Box::new(Some(custom)))), empty + 1_000);
        let mut tree = Tree::default();
        tree.counter_mut(&kilo);
        let uncounted = bytes(Body::Tree(Box::new(tree.clone())));
        assert!(uncounted > empty + 1_000, "{uncounted}: a counter takes more than its name");
        for origin in 1..=10 {
            tree.counter_mut(&kilo).0.insert(ReplicaId(origin), Contribution::born(1, NEVER));
        }
        let counted = bytes(Body::Tree(Box::new(tree)));
        assert!((empty + 1_000 + 10 * size_of::<Contribution>()..empty + 4_000).contains(&counted), "{counted}");
    }
}
