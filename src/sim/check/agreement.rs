//! What a host shows is what history says of the events it has seen.
//!
//! # Invariants
//! * Siblings, deadlines and contributions are compared, not only what a read returns: a difference that will show later
//!   is one now.
//! * The instant compared at is later than every clock that may have decided to drop something.
//! * Only three things excuse a difference: a register's very write was evicted by somebody, the copy is an edge's, or the
//!   map is a hole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;

use super::{Invariant, Violation};
use crate::clock::Stamp;
use crate::crdt::custom::decode;
use crate::crdt::tree::winner;
use crate::crdt::{Cell, Dot, NEVER, Path, Tree};
use crate::id::ReplicaId;
use crate::sim::oracle::{KeyView, Live, Noted, Notes, Part, cell, custom, tree};
use crate::store::{Body, Entry};

/// What may be missing because memory was given back.
#[derive(Clone, Debug, Default)]
pub struct Licence {
    /// The writes whose value somebody evicted.
    pub stamps: BTreeSet<Stamp>,
    /// The map may be a hole.
    pub hole: bool,
    /// It is the copy of an edge: any register may be missing.
    pub misses: bool,
}

impl Licence {
    /// Tells whether the value of a write may be missing.
    fn may_miss(&self, stamp: &Stamp) -> bool {
        self.misses || self.stamps.contains(stamp)
    }
}

/// Compares an entry with what history says of it at `now_ms`, the instant of the view.
///
/// # Errors
/// [`Violation`] with the first difference.
pub fn agree(view: &KeyView<'_>, entry: Option<&Entry>, now_ms: u64, licence: &Licence) -> Result<(), Violation> {
    match entry.map(|e| &e.body) {
        Some(Body::Custom(_)) => agree_custom(view, entry, now_ms),
        Some(Body::Tree(_)) => agree_tree(view, tree(entry), now_ms, licence),
        Some(Body::Register(_)) => agree_register(view, entry, now_ms, licence),
        None => {
            agree_register(view, None, now_ms, licence)?;
            agree_tree(view, None, now_ms, licence)?;
            agree_custom(view, None, now_ms)
        }
    }
}

fn agree_register(view: &KeyView<'_>, entry: Option<&Entry>, now_ms: u64, licence: &Licence) -> Result<(), Violation> {
    let shown = entry.and_then(cell).and_then(|cell| live(cell, now_ms));
    let called_for = view.register();
    let excused = |live: &Live| shown.is_none() && licence.may_miss(&live.stamp);
    if shown == called_for || called_for.as_ref().is_some_and(excused) {
        return Ok(());
    }
    Err(differs(view, "the register", shown.as_slice(), called_for.as_slice()))
}

fn agree_tree(view: &KeyView<'_>, tree: Option<&Tree>, now_ms: u64, licence: &Licence) -> Result<(), Violation> {
    let hole = tree.is_some_and(Tree::is_hole);
    if hole && !licence.hole {
        return Err(Violation::new(Invariant::History, format!("{:?} is a hole nobody made", view.key())));
    }
    let here = tree.into_iter().flat_map(Tree::elems).map(|(path, _)| path);
    let paths: BTreeSet<&Path> = view.paths().chain(here).collect();
    for path in paths {
        let known = tree.and_then(Tree::known_paths).is_none_or(|known| known.contains(path));
        let shown = siblings(tree, path, now_ms);
        if !known && shown.is_empty() {
            continue;
        }
        let called_for = view.siblings(path);
        if shown != called_for {
            return Err(differs(view, &format!("{path:?}"), &shown, &called_for));
        }
        agree_winner(view, tree, path, now_ms)?;
    }
    let here = tree.into_iter().flat_map(Tree::counters).map(|(name, _)| name);
    let names: BTreeSet<&Bytes> = view.counters().chain(here).collect();
    for name in names {
        agree_counter(view, tree, name, now_ms)?;
    }
    Ok(())
}

/// Compares what a read of a path returns, expired siblings or not.
fn agree_winner(view: &KeyView<'_>, tree: Option<&Tree>, path: &Path, now_ms: u64) -> Result<(), Violation> {
    let shown = winner(tree.map_or(&[], |tree| tree.siblings(path)), now_ms).map(|elem| elem.dot);
    let called_for = view.winner(path).map(|live| live.dot);
    if shown == called_for {
        return Ok(());
    }
    Err(mismatch(view, Invariant::History, &format!("a read of {path:?}"), &shown, &called_for))
}

fn live(cell: &Cell, now_ms: u64) -> Option<Live> {
    let value = cell.visible(now_ms)?.clone();
    Some(Live { stamp: cell.stamp(), deadline: cell.deadline, dot: cell.dot(), value })
}

/// Returns the unexpired siblings at a path, in order of dot.
pub(in crate::sim) fn siblings(tree: Option<&Tree>, path: &Path, now_ms: u64) -> Vec<Live> {
    let all = tree.map_or(&[][..], |tree| tree.siblings(path)).iter().filter(|e| now_ms < e.deadline);
    all.map(|e| Live { stamp: e.stamp, deadline: e.deadline, dot: e.dot, value: e.value.clone() }).collect()
}

fn agree_counter(view: &KeyView<'_>, tree: Option<&Tree>, name: &Bytes, now_ms: u64) -> Result<(), Violation> {
    let mut shown: BTreeMap<ReplicaId, Part> = BTreeMap::new();
    for (origin, c) in tree.and_then(|tree| tree.counter(name)).into_iter().flat_map(|counter| &counter.0) {
        let sum = c.visible(now_ms);
        if sum != 0 {
            shown.insert(*origin, Part { birth: c.birth, sum, deadline: c.deadline });
        }
    }
    let called_for = view.parts(name);
    if shown == called_for {
        return Ok(());
    }
    let late = |origin: &ReplicaId| {
        let (a, b) = (shown.get(origin), called_for.get(origin));
        a.zip(b).is_some_and(|(a, b)| a.deadline != b.deadline && a.sum == b.sum)
    };
    let expiry = shown.keys().all(|origin| late(origin) || shown.get(origin) == called_for.get(origin));
    let more = shown.keys().any(|origin| !called_for.contains_key(origin));
    let invariant = match (more, expiry && shown.len() == called_for.len()) {
        (true, _) => Invariant::Resurrection,
        (false, true) => Invariant::Expiry,
        (false, false) => Invariant::History,
    };
    Err(mismatch(view, invariant, &format!("the counter {name:?}"), &shown, &called_for))
}

fn agree_custom(view: &KeyView<'_>, entry: Option<&Entry>, now_ms: u64) -> Result<(), Violation> {
    let state = entry.and_then(custom).filter(|c| c.visible(now_ms).is_some());
    let shown = state.and_then(|c| {
        let notes: Notes = decode(c.visible(now_ms)?).ok()?;
        Some(Noted { generation: c.generation, items: notes.read(), deadline: c.deadline })
    });
    let called_for = view.noted();
    if shown == called_for {
        return Ok(());
    }
    let foreign = shown.iter().flat_map(|noted| &noted.items).any(|item| !view.ever_noted(*item));
    let invariant = match (&shown, &called_for) {
        _ if foreign => Invariant::Invented,
        (Some(_), None) => Invariant::Resurrection,
        (Some(a), Some(b)) if a.items == b.items && a.generation == b.generation => Invariant::Expiry,
        (None | Some(_), Some(_)) | (None, None) => Invariant::History,
    };
    Err(mismatch(view, invariant, "the custom entry", &shown, &called_for))
}

/// Compares what a read shows by the reader's own clock: nothing that is over by that clock, and everything that is not
/// over by any. `now` and `late` are the views at those two instants.
///
/// # Errors
/// [`Violation`] with the first difference.
pub(in crate::sim) fn agree_between(
    (now, now_ms): (&KeyView<'_>, u64),
    late: &KeyView<'_>,
    entry: Option<&Entry>,
    licence: &Licence,
) -> Result<(), Violation> {
    let shown: Vec<Live> = entry.and_then(cell).and_then(|cell| live(cell, now_ms)).into_iter().collect();
    let may_miss =
        |live: &Live, lives: &[Live]| licence.stamps.contains(&live.stamp) || (licence.misses && lives.is_empty());
    let missing = |lives: &[Live]| late.register().filter(|l| !lives.contains(l) && !may_miss(l, lives));
    within(now, "the register", &shown, now.register().as_slice(), missing(&shown).as_slice())?;
    let tree = tree(entry);
    let here = tree.into_iter().flat_map(Tree::elems).map(|(path, _)| path);
    for path in now.paths().chain(here).collect::<BTreeSet<&Path>>() {
        let shown = siblings(tree, path, now_ms);
        let known = tree.and_then(Tree::known_paths).is_none_or(|known| known.contains(path));
        let missing: Vec<Live> = late.siblings(path).into_iter().filter(|l| known && !shown.contains(l)).collect();
        within(now, &format!("{path:?}"), &shown, &now.siblings(path), &missing)?;
    }
    Ok(())
}

fn within(
    view: &KeyView<'_>,
    place: &str,
    shown: &[Live],
    possible: &[Live],
    missing: &[Live],
) -> Result<(), Violation> {
    if let Some(over) = shown.iter().find(|live| !possible.contains(live)) {
        return Err(mismatch(view, Invariant::Expiry, place, over, &possible));
    }
    missing.first().map_or(Ok(()), |early| Err(mismatch(view, Invariant::Expiry, place, &shown, early)))
}

/// Says which promise a difference breaks.
fn differs(view: &KeyView<'_>, place: &str, shown: &[Live], called_for: &[Live]) -> Violation {
    let dots = |lives: &[Live]| -> BTreeSet<Dot> { lives.iter().map(|live| live.dot).collect() };
    let (here, there) = (dots(shown), dots(called_for));
    let extra = || shown.iter().filter(|live| !there.contains(&live.dot));
    let invariant = if shown.iter().any(|live| !view.ever_wrote(live.dot, &live.value)) {
        Invariant::Invented
    } else if extra().any(|live| live.deadline != NEVER && view.ended_by_time(live)) {
        Invariant::Expiry
    } else if extra().next().is_some() {
        Invariant::Resurrection
    } else if here == there {
        Invariant::Expiry
    } else {
        Invariant::History
    };
    mismatch(view, invariant, place, &shown, &called_for)
}

fn mismatch(
    view: &KeyView<'_>,
    invariant: Invariant,
    place: &str,
    shown: &impl Debug,
    called_for: &impl Debug,
) -> Violation {
    let key = view.key();
    let what = format!("{} {:?}, {place}: shows {shown:?}, history calls for {called_for:?}", key.space.name, key.name);
    Violation::new(invariant, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::crdt::custom::encode;
    use crate::crdt::{Contribution, Ctx, Custom, Elem, Payload, Reset};
    use crate::id::PartitionId;
    use crate::sim::oracle::{Event, History, Key, Life, Record};
    use crate::sim::workload::{CUSTOMS, MAPS, REGISTERS, key};

    const ME: ReplicaId = ReplicaId(1);
    const NOW_MS: u64 = 100;

    fn stamp(seq: u64) -> Stamp {
        Stamp { hlc: Hlc::from_ms(seq), replica: ME }
    }

    fn dot(seq: u64) -> Dot {
        Dot { replica: ME, seq }
    }

    fn value(n: u64) -> Bytes {
        Bytes::from(n.to_string())
    }

    /// Compares an entry with what these events of one author call for.
    fn found(key: &Key, events: &[Event], entry: &Entry, licence: &Licence) -> Option<Invariant> {
        let (mut history, mut ctx) = (History::default(), Ctx::default());
        for (seq, event) in (1..).zip(events) {
            let (partition, key, event) = (PartitionId(0), key.clone(), event.clone());
            history.add(Record { partition, dot: dot(seq), stamp: stamp(seq), past: ctx.clone(), key, event });
            ctx.add(dot(seq));
        }
        let view = history.view(PartitionId(0), &ctx, NOW_MS).of(key);
        agree(&view, Some(entry), NOW_MS, licence).err().map(|found| found.invariant)
    }

    fn register(seq: u64, deadline: u64) -> Entry {
        let cell = Cell::new(Payload::Value(value(seq)), Hlc::from_ms(seq), dot(seq), deadline);
        Entry { body: Body::Register(Some(cell)), ..Entry::new(REGISTERS.family) }
    }

    #[test]
    fn a_register_shows_the_last_write_until_its_deadline() {
        let key = key(REGISTERS, 0);
        let set = |n, deadline| Event::Set { value: value(n), tags: Vec::new(), deadline };
        let none = Licence::default();
        let check = |events: &[Event], entry| found(&key, events, &entry, &none);
        assert_eq!(check(&[set(1, NEVER), set(2, NEVER)], register(2, NEVER)), None);
        assert_eq!(check(&[set(1, NEVER), set(2, NEVER)], register(1, NEVER)), Some(Invariant::Resurrection));
        assert_eq!(check(&[set(1, NEVER), Event::Delete], register(1, NEVER)), Some(Invariant::Resurrection));
        assert_eq!(check(&[set(1, NEVER)], register(1, 900)), Some(Invariant::Expiry));
        assert_eq!(check(&[set(1, 50)], register(1, 900)), Some(Invariant::Expiry));
        assert_eq!(check(&[set(7, NEVER)], register(1, NEVER)), Some(Invariant::Invented));
        let gone = Entry { body: Body::Register(None), ..Entry::new(REGISTERS.family) };
        assert_eq!(check(&[set(1, NEVER)], gone.clone()), Some(Invariant::History));
        let evicted = Licence { stamps: BTreeSet::from([stamp(1)]), ..Licence::default() };
        assert_eq!(found(&key, &[set(1, NEVER)], &gone, &evicted), None);
        assert_eq!(found(&key, &[set(1, NEVER), set(2, NEVER)], &gone, &evicted), Some(Invariant::History));
    }

    #[test]
    fn an_invalidation_clears_what_it_matches_and_is_older() {
        let key = key(REGISTERS, 0);
        let set = Event::Set { value: value(1), tags: vec![Bytes::from_static(b"t")], deadline: NEVER };
        for (selector, clears) in [
            (crate::store::Selector::All, true),
            (crate::store::Selector::Tag("t".to_owned()), true),
            (crate::store::Selector::Tag("u".to_owned()), false),
            (crate::store::Selector::Prefix("a".to_owned()), true),
            (crate::store::Selector::Prefix("b".to_owned()), false),
        ] {
            let events = [set.clone(), Event::Invalidate { selector: selector.clone() }];
            let shows = found(&key, &events, &register(1, NEVER), &Licence::default());
            assert_eq!(shows, clears.then_some(Invariant::Resurrection), "{selector:?}");
            let later =
                [Event::Invalidate { selector }, Event::Set { value: value(2), tags: Vec::new(), deadline: NEVER }];
            assert_eq!(found(&key, &later, &register(2, NEVER), &Licence::default()), None);
        }
    }

    fn field() -> Path {
        Path::Field(Bytes::from_static(b"f"))
    }

    fn map(elems: &[(u64, u64)], part: Option<Contribution>) -> Entry {
        let mut entry = Entry::new(MAPS.family);
        let Body::Tree(tree) = &mut entry.body else { return entry };
        for (seq, deadline) in elems {
            tree.put(field(), Elem { dot: dot(*seq), stamp: stamp(*seq), deadline: *deadline, value: value(*seq) });
        }
        if let Some(part) = part {
            tree.counter_mut(&Bytes::from_static(b"c")).0.insert(ME, part);
        }
        entry
    }

    #[test]
    fn a_map_shows_the_puts_nobody_has_seen_and_replaced() {
        let key = key(MAPS, 0);
        let put = |n| Event::Put { path: field(), value: value(n), stamp: stamp(n), deadline: NEVER };
        let check =
            |events: &[Event], elems: &[(u64, u64)]| found(&key, events, &map(elems, None), &Licence::default());
        assert_eq!(check(&[put(1), put(2)], &[(2, NEVER)]), None);
        assert_eq!(check(&[put(1), put(2)], &[(1, NEVER)]), Some(Invariant::Resurrection));
        assert_eq!(check(&[put(1), Event::Clear { lives: Vec::new() }], &[(1, NEVER)]), Some(Invariant::Resurrection));
        assert_eq!(check(&[put(1)], &[(1, 900)]), Some(Invariant::Expiry));
        assert_eq!(check(&[put(1)], &[]), Some(Invariant::History));
        assert_eq!(check(&[put(7)], &[(1, NEVER)]), Some(Invariant::Invented));
    }

    #[test]
    fn a_hole_needs_a_licence_and_still_may_not_show_another_value() {
        let key = key(MAPS, 0);
        let put = |n| Event::Put { path: field(), value: value(n), stamp: stamp(n), deadline: NEVER };
        let mut hole = map(&[], None);
        if let Body::Tree(tree) = &mut hole.body {
            tree.evict();
        }
        let licence = Licence { hole: true, ..Licence::default() };
        assert_eq!(found(&key, &[put(1)], &hole, &Licence::default()), Some(Invariant::History));
        assert_eq!(found(&key, &[put(1)], &hole, &licence), None);
        if let Body::Tree(tree) = &mut hole.body {
            tree.put(field(), Elem { dot: dot(1), stamp: stamp(1), deadline: NEVER, value: value(1) });
        }
        assert_eq!(found(&key, &[put(1)], &hole, &licence), None);
        assert_eq!(found(&key, &[put(1), put(2)], &hole, &licence), Some(Invariant::Resurrection));
    }

    #[test]
    fn a_counter_adds_up_what_no_reset_has_seen() {
        let key = key(MAPS, 0);
        let life = Life { origin: ME, birth: 1, deadline: NEVER };
        let name = || Bytes::from_static(b"c");
        let add = Event::Increment { name: name(), by: 3, life };
        let reset = Event::Reset { name: name(), lives: vec![life] };
        let part = |p, p_floor, deadline| {
            let reset = (p_floor > 0).then_some(Reset { p: p_floor, n: 0, by: Dot { replica: ReplicaId(1), seq: 1 } });
            Contribution { p, reset, ..Contribution::born(1, deadline) }
        };
        let check = |events: &[Event], part| found(&key, events, &map(&[], Some(part)), &Licence::default());
        assert_eq!(check(&[add.clone(), add.clone()], part(6, 0, NEVER)), None);
        assert_eq!(check(&[add.clone(), add.clone()], part(3, 0, NEVER)), Some(Invariant::History));
        assert_eq!(check(&[add.clone(), reset.clone()], part(3, 3, NEVER)), None);
        assert_eq!(check(&[add.clone(), reset], part(3, 0, NEVER)), Some(Invariant::Resurrection));
        assert_eq!(check(&[add], part(3, 0, 900)), Some(Invariant::Expiry));
    }

    #[test]
    fn a_custom_entry_holds_every_item_of_its_last_life() {
        let key = key(CUSTOMS, 0);
        let note = |item| Event::Note { generation: stamp(1), item, deadline: NEVER };
        let state = |items: &[u64], deadline| {
            let mut notes = Notes::new();
            items.iter().for_each(|item| crdts::CmRDT::apply(&mut notes, *item));
            let custom = Custom::new(stamp(1), dot(1), Payload::Value(encode(&notes).unwrap()), deadline);
            Entry { body: Body::Custom(Box::new(Some(custom))), ..Entry::new(CUSTOMS.family) }
        };
        let check = |events: &[Event], entry| found(&key, events, &entry, &Licence::default());
        assert_eq!(check(&[note(1), note(2)], state(&[1, 2], NEVER)), None);
        assert_eq!(check(&[note(1), note(2)], state(&[1], NEVER)), Some(Invariant::History));
        assert_eq!(check(&[note(1)], state(&[1, 2], NEVER)), Some(Invariant::Invented));
        assert_eq!(check(&[note(1)], state(&[1], 900)), Some(Invariant::Expiry));
        assert_eq!(check(&[note(1), Event::DeleteCustom], state(&[1], NEVER)), Some(Invariant::Resurrection));
    }
}
