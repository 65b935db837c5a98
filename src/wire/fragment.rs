//! Fragments: one head of flags, then what the flags and the keyspace's family announce.
//!
//! ```text
//! fragment  = head [space] key state [covers]
//! register  = [mark seq [touch] [n tag*] value | nothing]
//! custom    = [mark n (replica seq)* state | nothing]
//! whole map = n (path siblings)* n (name contributions)*
//! one path  = path (siblings | contributions)
//! siblings  = n (head mark [replica] seq value)*
//! ```
//!
//! # Invariants
//! * The family decides which body follows, so a register keyspace carries cells and nothing else.
//! * What a map lists ascends, lies inside the scope and is not empty; siblings ascend.

use std::collections::BTreeMap;

use super::limits::{Counted, Unsendable};
use super::mark::{REPLICA, Run, TTL, put_deadline, put_dot, put_seq, take_deadline, take_dot, take_seq};
use super::pack::{Pen, Reader, malformed, width};
use super::scope::{covers_own, own_covers, put_covers, put_path, take_covers, take_path, usual_scope};
use super::spaces::{SpacesIn, SpacesOut};
use crate::crdt::tree::Branch;
use crate::crdt::{Cell, Contribution, Ctx, Custom, Dot, Elem, Path, Payload, Reset, Scope};
use crate::error::PeerFault;
use crate::id::{KeyspaceId, ReplicaId};
use crate::probe::sometimes;
use crate::store::{Family, Fragment};

// Flags of a fragment's head. The first seven fit in one byte and are the common ones; `REPLICA`
// and `TTL` are 1 << 1 and 1 << 2.
/// Another keyspace than the fragment's before: it follows.
const SPACE: u64 = 1;
/// The register was touched by another event than the one that wrote it: that one follows.
const TOUCH: u64 = 1 << 3;
/// It covers exactly the events whose outcome it carries.
const COVERS_OWN: u64 = 1 << 4;
/// What it covers is listed.
const COVERS_LIST: u64 = 1 << 5;
/// The scope is the whole key.
const WHOLE: u64 = 1 << 6;
/// A tombstone instead of a value.
const TOMBSTONE: u64 = 1 << 7;
/// A stub instead of a value.
const ABSENT: u64 = 1 << 8;
/// No state at all.
const EMPTY: u64 = 1 << 9;
/// An evicted map.
const HOLE: u64 = 1 << 10;
/// The value is filed under tags.
const TAGS: u64 = 1 << 11;
/// In an element's head: its event is of another replica than its stamp.
const OTHER: u64 = 1 << 3;
/// In a contribution's head: it was reset; what was erased and the event follow.
const RESET: u64 = 1;
/// In a contribution's head: a touch moved its deadline; the event follows it.
const TOUCHED: u64 = 1 << 1;

const SHARED: u64 = SPACE | COVERS_OWN | COVERS_LIST | WHOLE;
const STATE: u64 = REPLICA | TTL | TOMBSTONE | ABSENT | EMPTY;

/// Writes fragments of one frame.
#[derive(Debug)]
pub(super) struct FragmentsOut<'a> {
    pub(super) run: Run,
    spaces: SpacesOut<'a>,
    last_space: Option<KeyspaceId>,
}

impl<'a> FragmentsOut<'a> {
    pub(super) fn new(run: Run, spaces: SpacesOut<'a>) -> Self {
        Self { run, spaces, last_space: None }
    }

    pub(super) fn put(&mut self, pen: &mut Pen<'_>, ctx: &Ctx, fragment: &Fragment) -> Result<(), Unsendable> {
        pen.tally.add(Counted::Fragments, 1)?;
        pen.tally.add(Counted::Covers, width(fragment.covers.len()))?;
        let family = self.spaces.family(fragment.keyspace)?;
        let usual = usual_scope(family, &fragment.scope);
        let space = if self.last_space == Some(fragment.keyspace) { 0 } else { SPACE };
        let covers = match fragment.covers.as_slice() {
            [] => 0,
            [_, ..] if covers_own(fragment, &usual) => COVERS_OWN,
            [_, ..] => COVERS_LIST,
        };
        let whole = if fragment.scope == Scope::Key { WHOLE } else { 0 };
        pen.uint(space | covers | whole | self.state_flags(family, fragment));
        if space != 0 {
            self.spaces.put(pen, fragment.keyspace)?;
            self.last_space = Some(fragment.keyspace);
        }
        pen.name(&fragment.key)?;
        match family {
            Family::Register | Family::Epoch => self.put_cell(pen, ctx, fragment.cell.as_ref())?,
            Family::Custom => self.put_custom(pen, ctx, fragment.custom.as_ref())?,
            Family::Map | Family::Counter | Family::Set => self.put_branch(pen, ctx, fragment)?,
        }
        if covers == COVERS_LIST {
            put_covers(pen, ctx, fragment, &usual)?;
        }
        Ok(())
    }

    fn state_flags(&self, family: Family, fragment: &Fragment) -> u64 {
        match family {
            Family::Register | Family::Epoch => fragment.cell.as_ref().map_or(EMPTY, |cell| {
                let touch = if cell.touch == cell.dot() { 0 } else { TOUCH };
                let tags = if cell.tags().is_empty() { 0 } else { TAGS };
                touch | tags | payload_flag(cell.payload()) | self.run.flags(cell.stamp(), cell.deadline)
            }),
            Family::Custom => fragment
                .custom
                .as_ref()
                .map_or(EMPTY, |c| payload_flag(&c.state) | self.run.flags(c.generation, c.deadline)),
            Family::Map | Family::Counter | Family::Set => {
                if fragment.branch.hole {
                    HOLE
                } else {
                    0
                }
            }
        }
    }

    fn put_cell(&mut self, pen: &mut Pen<'_>, ctx: &Ctx, cell: Option<&Cell>) -> Result<(), Unsendable> {
        let Some(cell) = cell else { return Ok(()) };
        self.run.put(pen, cell.stamp(), cell.deadline)?;
        put_seq(pen, ctx, cell.dot())?;
        if cell.touch != cell.dot() {
            put_dot(pen, ctx, cell.touch)?;
        }
        if !cell.tags().is_empty() {
            pen.tally.add(Counted::Elems, width(cell.tags().len()))?;
            pen.count(cell.tags().len());
            cell.tags().iter().try_for_each(|tag| pen.name(tag))?;
        }
        put_payload(pen, cell.payload())
    }

    fn put_custom(&mut self, pen: &mut Pen<'_>, ctx: &Ctx, custom: Option<&Custom>) -> Result<(), Unsendable> {
        let Some(custom) = custom else { return Ok(()) };
        self.run.put(pen, custom.generation, custom.deadline)?;
        pen.tally.add(Counted::Elems, width(custom.merged.len()))?;
        pen.count(custom.merged.len());
        for (&replica, &seq) in &custom.merged {
            put_dot(pen, ctx, Dot { replica, seq })?;
        }
        put_payload(pen, &custom.state)
    }

    fn put_branch(&mut self, pen: &mut Pen<'_>, ctx: &Ctx, fragment: &Fragment) -> Result<(), Unsendable> {
        let branch = &fragment.branch;
        match &fragment.scope {
            Scope::Path(path @ Path::Counter(_)) => {
                put_path(pen, path)?;
                self.put_contributions(pen, ctx, branch.counters.first().map_or(&[], |(_, c)| c))
            }
            Scope::Path(path) => {
                put_path(pen, path)?;
                self.put_siblings(pen, ctx, branch.elems.first().map_or(&[], |(_, s)| s))
            }
            Scope::Key => {
                pen.count(branch.elems.len());
                for (path, siblings) in &branch.elems {
                    put_path(pen, path)?;
                    self.put_siblings(pen, ctx, siblings)?;
                }
                pen.count(branch.counters.len());
                for (name, contributions) in &branch.counters {
                    pen.name(name)?;
                    self.put_contributions(pen, ctx, contributions)?;
                }
                Ok(())
            }
        }
    }

    fn put_siblings(&mut self, pen: &mut Pen<'_>, ctx: &Ctx, siblings: &[Elem]) -> Result<(), Unsendable> {
        pen.tally.add(Counted::Elems, width(siblings.len()))?;
        pen.count(siblings.len());
        for elem in siblings {
            let other = if elem.dot.replica == elem.stamp.replica { 0 } else { OTHER };
            pen.uint(other | self.run.flags(elem.stamp, elem.deadline));
            self.run.put(pen, elem.stamp, elem.deadline)?;
            if other != 0 {
                pen.replica(elem.dot.replica)?;
            }
            put_seq(pen, ctx, elem.dot)?;
            pen.value(&elem.value)?;
        }
        Ok(())
    }

    fn put_contributions(
        &self,
        pen: &mut Pen<'_>,
        ctx: &Ctx,
        all: &[(ReplicaId, Contribution)],
    ) -> Result<(), Unsendable> {
        pen.tally.add(Counted::Elems, width(all.len()))?;
        pen.count(all.len());
        for &(replica, c) in all {
            let touched = if c.touch.is_some() { TOUCHED } else { 0 };
            pen.uint(touched | if c.reset.is_some() { RESET } else { 0 });
            put_dot(pen, ctx, Dot { replica, seq: c.seq })?;
            pen.uint(c.seq.saturating_sub(c.birth));
            pen.uint(c.p);
            pen.uint(c.n);
            if let Some(reset) = c.reset {
                pen.uint(reset.p);
                pen.uint(reset.n);
                put_dot(pen, ctx, reset.by)?;
            }
            put_deadline(pen, &self.run, c.deadline);
            if let Some(touch) = c.touch {
                put_dot(pen, ctx, touch)?;
            }
        }
        Ok(())
    }
}

fn payload_flag(payload: &Payload) -> u64 {
    match payload {
        Payload::Value(_) => 0,
        Payload::Tombstone => TOMBSTONE,
        Payload::Absent => ABSENT,
    }
}

fn put_payload(pen: &mut Pen<'_>, payload: &Payload) -> Result<(), Unsendable> {
    match payload {
        Payload::Value(value) => pen.value(value),
        Payload::Tombstone | Payload::Absent => Ok(()),
    }
}

/// Reads fragments of one frame.
#[derive(Debug)]
pub(super) struct FragmentsIn<'a> {
    pub(super) run: Run,
    spaces: SpacesIn<'a>,
    last_space: Option<(KeyspaceId, Family)>,
}

impl<'a> FragmentsIn<'a> {
    pub(super) fn new(run: Run, spaces: SpacesIn<'a>) -> Self {
        Self { run, spaces, last_space: None }
    }

    /// See [`SpacesIn::open`].
    pub(super) fn open_spaces(&self) -> Result<BTreeMap<KeyspaceId, KeyspaceId>, PeerFault> {
        self.spaces.open()
    }

    pub(super) fn take(&mut self, reader: &mut Reader<'_>, ctx: &Ctx) -> Result<Fragment, PeerFault> {
        reader.tally.add(Counted::Fragments, 1)?;
        let head = reader.uint()?;
        if head & SPACE != 0 {
            self.last_space = Some(self.spaces.take(reader)?);
        }
        let (keyspace, family) = self.last_space.ok_or(malformed("the first fragment names no keyspace"))?;
        let key = reader.name()?;
        let mut fragment = Fragment::empty(keyspace, key, usual_scope(family, &Scope::Key));
        if head & WHOLE != 0 {
            fragment.scope = Scope::Key;
        }
        let known = match family {
            Family::Register | Family::Epoch => {
                fragment.cell = self.take_cell(reader, ctx, head)?;
                SHARED | STATE | TOUCH | TAGS
            }
            Family::Custom => {
                fragment.custom = self.take_custom(reader, ctx, head)?;
                SHARED | STATE
            }
            Family::Map | Family::Counter | Family::Set => {
                self.take_branch(reader, ctx, head, &mut fragment)?;
                SHARED | HOLE
            }
        };
        if head & !known != 0 {
            return Err(malformed("a fragment has a flag that its family does not"));
        }
        fragment.covers = self.take_covers_of(reader, ctx, head, &fragment)?;
        Ok(fragment)
    }

    fn take_covers_of(
        &self,
        reader: &mut Reader<'_>,
        ctx: &Ctx,
        head: u64,
        fragment: &Fragment,
    ) -> Result<Vec<(Dot, Scope)>, PeerFault> {
        let Some((_, family)) = self.last_space else { return Ok(Vec::new()) };
        let usual = usual_scope(family, &fragment.scope);
        match (head & COVERS_OWN != 0, head & COVERS_LIST != 0) {
            (false, false) => Ok(Vec::new()),
            (true, false) => {
                let covers = own_covers(fragment, &usual);
                reader.tally.add(Counted::Covers, width(covers.len()))?;
                Ok(covers)
            }
            (false, true) => take_covers(reader, ctx, fragment, &usual),
            (true, true) => Err(malformed("a fragment says twice what it covers")),
        }
    }

    fn take_cell(&mut self, reader: &mut Reader<'_>, ctx: &Ctx, head: u64) -> Result<Option<Cell>, PeerFault> {
        if head & EMPTY != 0 {
            return Ok(None);
        }
        let (stamp, deadline) = self.run.take(reader, head)?;
        let dot = Dot { replica: stamp.replica, seq: take_seq(reader, ctx, stamp.replica)? };
        let touch = if head & TOUCH == 0 { dot } else { take_dot(reader, ctx)? };
        let mut tags = Vec::new();
        if head & TAGS != 0 {
            for _ in 0..reader.uint()? {
                reader.tally.add(Counted::Elems, 1)?;
                let tag = reader.name()?;
                if tags.last().is_some_and(|last| *last >= tag) {
                    return Err(malformed("the tags do not ascend"));
                }
                tags.push(tag);
            }
            if tags.is_empty() || head & (TOMBSTONE | ABSENT) != 0 {
                return Err(malformed("only a value has tags, and at least one"));
            }
        }
        sometimes!(StubRead, if head & ABSENT != 0);
        sometimes!(TouchRead, if touch != dot);
        let mut cell = Cell::new(take_payload(reader, head)?, stamp.hlc, dot, deadline).with_tags(tags);
        cell.touch = touch;
        Ok(Some(cell))
    }

    fn take_custom(&mut self, reader: &mut Reader<'_>, ctx: &Ctx, head: u64) -> Result<Option<Custom>, PeerFault> {
        if head & EMPTY != 0 {
            return Ok(None);
        }
        let (generation, deadline) = self.run.take(reader, head)?;
        let mut merged = BTreeMap::new();
        for _ in 0..reader.uint()? {
            reader.tally.add(Counted::Elems, 1)?;
            let dot = take_dot(reader, ctx)?;
            if merged.last_key_value().is_some_and(|(last, _)| *last >= dot.replica) {
                return Err(malformed("the events merged into a custom state do not ascend"));
            }
            merged.insert(dot.replica, dot.seq);
        }
        if merged.is_empty() {
            return Err(malformed("a custom state comes from no event"));
        }
        Ok(Some(Custom { generation, merged, deadline, state: take_payload(reader, head)? }))
    }

    fn take_branch(
        &mut self,
        reader: &mut Reader<'_>,
        ctx: &Ctx,
        head: u64,
        fragment: &mut Fragment,
    ) -> Result<(), PeerFault> {
        fragment.branch.hole = head & HOLE != 0;
        if head & WHOLE != 0 {
            return self.take_whole(reader, ctx, &mut fragment.branch);
        }
        let path = take_path(reader)?;
        match &path {
            Path::Register | Path::Custom => return Err(malformed("a map has no such path")),
            Path::Counter(_) if fragment.branch.hole => return Err(malformed("no counter was ever evicted")),
            Path::Counter(name) => {
                let all = self.take_contributions(reader, ctx)?;
                if !all.is_empty() {
                    fragment.branch.counters.push((name.clone(), all));
                }
            }
            Path::Ttl | Path::Field(_) | Path::Member(..) => {
                let siblings = self.take_siblings(reader, ctx)?;
                if !siblings.is_empty() {
                    fragment.branch.elems.push((path.clone(), siblings));
                }
            }
        }
        fragment.scope = Scope::Path(path);
        Ok(())
    }

    fn take_whole(&mut self, reader: &mut Reader<'_>, ctx: &Ctx, branch: &mut Branch) -> Result<(), PeerFault> {
        for _ in 0..reader.uint()? {
            let path = take_path(reader)?;
            if matches!(path, Path::Register | Path::Custom | Path::Counter(_)) {
                return Err(malformed("a map has no such path"));
            }
            if branch.elems.last().is_some_and(|(last, _)| *last >= path) {
                return Err(malformed("the paths of a map do not ascend"));
            }
            let siblings = self.take_siblings(reader, ctx)?;
            if siblings.is_empty() {
                return Err(malformed("a listed path has no element"));
            }
            branch.elems.push((path, siblings));
        }
        for _ in 0..reader.uint()? {
            let name = reader.name()?;
            if branch.counters.last().is_some_and(|(last, _)| *last >= name) {
                return Err(malformed("the counters of a map do not ascend"));
            }
            let all = self.take_contributions(reader, ctx)?;
            if all.is_empty() {
                return Err(malformed("a listed counter has no contribution"));
            }
            branch.counters.push((name, all));
        }
        Ok(())
    }

    fn take_siblings(&mut self, reader: &mut Reader<'_>, ctx: &Ctx) -> Result<Vec<Elem>, PeerFault> {
        let mut siblings = Vec::<Elem>::new();
        for _ in 0..reader.uint()? {
            reader.tally.add(Counted::Elems, 1)?;
            let head = reader.uint()?;
            if head & !(REPLICA | TTL | OTHER) != 0 {
                return Err(malformed("an element has an unknown flag"));
            }
            let (stamp, deadline) = self.run.take(reader, head)?;
            let replica = if head & OTHER == 0 { stamp.replica } else { reader.replica()? };
            let dot = Dot { replica, seq: take_seq(reader, ctx, replica)? };
            if siblings.last().is_some_and(|last| last.dot >= dot) {
                return Err(malformed("siblings do not ascend"));
            }
            sometimes!(TouchedElementRead, if replica != stamp.replica);
            siblings.push(Elem { dot, stamp, deadline, value: reader.value()? });
        }
        Ok(siblings)
    }

    fn take_contributions(
        &self,
        reader: &mut Reader<'_>,
        ctx: &Ctx,
    ) -> Result<Vec<(ReplicaId, Contribution)>, PeerFault> {
        let mut all = Vec::<(ReplicaId, Contribution)>::new();
        for _ in 0..reader.uint()? {
            reader.tally.add(Counted::Elems, 1)?;
            let bits = reader.uint()?;
            if bits & !(RESET | TOUCHED) != 0 {
                return Err(malformed("a contribution has an unknown flag"));
            }
            let Dot { replica, seq } = take_dot(reader, ctx)?;
            if all.last().is_some_and(|(last, _)| *last >= replica) {
                return Err(malformed("the origins of a counter do not ascend"));
            }
            let birth = seq.checked_sub(reader.uint()?).filter(|birth| *birth > 0);
            let birth = birth.ok_or(malformed("a contribution was born before event 1"))?;
            let (p, n) = (reader.uint()?, reader.uint()?);
            let reset = match bits & RESET {
                0 => None,
                _ => Some(Reset { p: reader.uint()?, n: reader.uint()?, by: take_dot(reader, ctx)? }),
            };
            let deadline = take_deadline(reader, &self.run)?;
            let touch = if bits & TOUCHED == 0 { None } else { Some(take_dot(reader, ctx)?) };
            all.push((replica, Contribution { birth, seq, p, n, reset, deadline, touch }));
        }
        Ok(all)
    }
}

fn take_payload(reader: &mut Reader<'_>, head: u64) -> Result<Payload, PeerFault> {
    match (head & TOMBSTONE != 0, head & ABSENT != 0) {
        (false, false) => Ok(Payload::Value(reader.value()?)),
        (true, false) => Ok(Payload::Tombstone),
        (false, true) => Ok(Payload::Absent),
        (true, true) => Err(malformed("a state is a tombstone and a stub")),
    }
}
