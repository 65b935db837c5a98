//! A mutation does what its author's view calls for, no more and no less.
//!
//! The oracle notes some of what an event did from its author's own state: which element was put again, which deadline
//! was inherited, which contributions were known. Here that is held against what the author had to see just before.
//!
//! # Invariants
//! * Between the author's own clock and the latest any clock has shown, what ends may be gone already or still be there;
//!   everything else is certain.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Invariant, Violation};
use crate::crdt::{NEVER, Path};
use crate::id::ReplicaId;
use crate::sim::oracle::{Event, KeyView, Life, Live, Mutation, Part, Record};

/// What the author of a mutation had to see.
#[derive(Debug)]
pub(in crate::sim) struct Author<'a> {
    /// By its own clock.
    pub(in crate::sim) now: KeyView<'a>,
    /// By the latest any clock has shown.
    pub(in crate::sim) late: KeyView<'a>,
    /// Part of the value may have been given back.
    pub(in crate::sim) holed: bool,
    /// The register's value may have been given back.
    pub(in crate::sim) evicted: bool,
    pub(in crate::sim) replica: ReplicaId,
}

impl Author<'_> {
    /// Judges what a mutation did.
    pub(in crate::sim) fn judge(&self, mutation: &Mutation, records: &[&Record]) -> Result<(), Violation> {
        let wrong = match mutation {
            Mutation::Set { .. } | Mutation::Delete | Mutation::DeleteCustom => once(records),
            Mutation::Touch { .. } => self.touch(records),
            Mutation::Put { path, deadline, .. } => once(records).or_else(|| self.put(path, *deadline, records)),
            Mutation::Remove { path } => self.remove(path, records),
            Mutation::TouchPath { path, deadline } => self.touch_path(path, *deadline, records),
            Mutation::ExpireKey { deadline } => self.expire(*deadline, records),
            Mutation::Clear => self.clear(records),
            Mutation::Increment { name, deadline, .. } => {
                once(records).or_else(|| self.increment(name, *deadline, records))
            }
            Mutation::TouchCounter { name, .. } | Mutation::Reset { name } => self.whole_counter(name, records),
            Mutation::Note { .. } => once(records).or_else(|| self.note(records)),
            Mutation::Invalidate { .. } => None,
        };
        let Some(wrong) = wrong else { return Ok(()) };
        let key = self.now.key();
        let events: Vec<&Event> = records.iter().map(|r| &r.event).collect();
        let what = format!("{} {:?}: {mutation:?} {wrong}: {events:?}", key.space.name, key.name);
        Err(Violation::new(Invariant::Effect, what))
    }

    fn touch(&self, records: &[&Record]) -> Option<&'static str> {
        let Some(record) = records.first() else {
            return (self.late.register().is_some() && !self.evicted).then_some("found nothing to touch");
        };
        let base = self.now.register().map(|live| live.stamp);
        let touched = if let Event::Touch { base, .. } = record.event { Some(base) } else { None };
        (base.is_none() || base != touched).then_some("touched what does not show")
    }

    /// Returns the deadlines of its own that a map may have, as its author knew: certain, or one of several.
    fn inherited(&self) -> BTreeSet<u64> {
        let deadlines = |view: &KeyView<'_>| view.siblings(&Path::Ttl).iter().map(|live| live.deadline).collect();
        let (certain, possible): (BTreeSet<u64>, BTreeSet<u64>) = (deadlines(&self.late), deadlines(&self.now));
        match certain.last() {
            Some(last) if !self.holed => BTreeSet::from([*last]),
            _ => possible.into_iter().chain([NEVER]).collect(),
        }
    }

    fn put(&self, path: &Path, deadline: u64, records: &[&Record]) -> Option<&'static str> {
        let record = records.first()?;
        let Event::Put { path: at, stamp, deadline: got, .. } = &record.event else { return Some("put nothing") };
        let fits = self.inherited().iter().any(|inherited| *got == deadline.min(*inherited));
        (at != path || *stamp != record.stamp || !fits).then_some("put with another deadline or stamp")
    }

    fn remove(&self, path: &Path, records: &[&Record]) -> Option<&'static str> {
        if records.is_empty() {
            let there = self.late.winner(path).is_some() && !self.holed;
            return there.then_some("found nothing to remove");
        }
        (!self.now.holds_anything(path) && !self.holed).then_some("removed what is not there")
    }

    /// Returns the siblings a read may show, and whether it may show none.
    fn winners(&self, path: &Path) -> (Vec<Live>, bool) {
        let certain = self.late.siblings(path);
        let mut possible = self.now.siblings(path);
        possible.sort_by_key(|live| (live.stamp, live.deadline, live.dot));
        let mut winners = Vec::new();
        while let Some(live) = possible.pop() {
            let last = certain.contains(&live);
            winners.push(live);
            if last {
                return (winners, self.holed);
            }
        }
        (winners, true)
    }

    fn put_again(&self, path: &Path, record: &Record, deadline: impl Fn(&Live) -> u64) -> Option<&'static str> {
        let Event::Put { path: at, value, stamp, deadline: got } = &record.event else { return Some("put nothing") };
        let same = |live: &Live| live.stamp == *stamp && live.value == *value && deadline(live) == *got;
        let (winners, _) = self.winners(path);
        (at != path || !winners.iter().any(same)).then_some("put again what does not show, or with another deadline")
    }

    fn touch_path(&self, path: &Path, deadline: u64, records: &[&Record]) -> Option<&'static str> {
        match records.first() {
            Some(record) => self.put_again(path, record, |live| live.deadline.max(deadline)),
            None => (!self.winners(path).1).then_some("found nothing to touch"),
        }
    }

    fn expire(&self, deadline: u64, records: &[&Record]) -> Option<&'static str> {
        let mut put: BTreeSet<&Path> = BTreeSet::new();
        let mut extended: BTreeSet<&Bytes> = BTreeSet::new();
        for record in records {
            if let Event::Extend { name, lives } = &record.event {
                if !self.knows(name, lives) {
                    return Some("did not extend a contribution");
                }
                extended.insert(name);
                continue;
            }
            let Event::Put { path, deadline: got, .. } = &record.event else { return Some("did something else") };
            let own = *path == Path::Ttl;
            let wrong = if own { None } else { self.put_again(path, record, |_| deadline) };
            if wrong.is_some() || *got != deadline {
                return wrong.or(Some("put another deadline"));
            }
            put.insert(path);
        }
        let shows = |path: &&Path| **path != Path::Ttl && !self.winners(path).1;
        let forgot = self.late.paths().filter(shows).any(|path| !put.contains(path))
            || self.late.counters().any(|name| !self.late.parts(name).is_empty() && !extended.contains(name));
        let alone = !records.is_empty() && !put.contains(&Path::Ttl);
        (forgot || alone).then_some("left something out")
    }

    fn clear(&self, records: &[&Record]) -> Option<&'static str> {
        let Some(record) = records.first() else {
            let there = !self.holed && self.late.paths().any(|path| self.late.winner(path).is_some());
            let counted = self.late.counters().any(|name| !self.late.parts(name).is_empty());
            return (there || counted).then_some("found nothing to clear");
        };
        let Event::Clear { lives } = &record.event else { return Some("did something else") };
        let of = |name: &Bytes| -> Vec<Life> { lives.iter().filter(|(at, _)| at == name).map(|(_, l)| *l).collect() };
        self.late.counters().any(|name| !self.knows(name, &of(name))).then_some("did not erase a contribution")
    }

    fn increment(&self, name: &Bytes, deadline: u64, records: &[&Record]) -> Option<&'static str> {
        let record = records.first()?;
        let Event::Increment { life, .. } = &record.event else { return Some("counted nothing") };
        let fits = match self.late.parts(name).get(&self.replica) {
            Some(Part { birth, deadline, .. }) => (life.birth, life.deadline) == (*birth, *deadline),
            None if life.birth == record.dot.seq => {
                self.inherited().iter().any(|inherited| life.deadline == deadline.min(*inherited))
            }
            None => life.birth < record.dot.seq,
        };
        (!fits || life.origin != self.replica).then_some("counted in another life, or with another deadline")
    }

    fn whole_counter(&self, name: &Bytes, records: &[&Record]) -> Option<&'static str> {
        let Some(record) = records.first() else {
            return (!self.late.parts(name).is_empty()).then_some("found nothing counted");
        };
        let (Event::Extend { lives, .. } | Event::Reset { lives, .. }) = &record.event else {
            return Some("did something else");
        };
        (!self.knows(name, lives)).then_some("left out a contribution")
    }

    /// Tells whether these are all contributions that certainly count.
    fn knows(&self, name: &Bytes, lives: &[Life]) -> bool {
        let known = |(origin, part): (&ReplicaId, &Part)| {
            lives.iter().any(|life| life.origin == *origin && life.birth == part.birth)
        };
        self.late.parts(name).iter().all(known)
    }

    fn note(&self, records: &[&Record]) -> Option<&'static str> {
        let record = records.first()?;
        let Event::Note { generation, .. } = record.event else { return Some("noted nothing") };
        let (certain, possible) = (self.late.noted(), self.now.noted());
        let goes_on = possible.is_some_and(|noted| noted.generation == generation);
        let begins = certain.is_none() && generation == record.stamp;
        (!goes_on && !begins).then_some("belongs to another life")
    }
}

/// A mutation that always happens, and once.
fn once(records: &[&Record]) -> Option<&'static str> {
    (records.len() != 1).then_some("is not one event")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Hlc, Stamp};
    use crate::crdt::{Ctx, Dot};
    use crate::id::PartitionId;
    use crate::sim::oracle::{History, Key};
    use crate::sim::workload::{CUSTOMS, MAPS, REGISTERS, key};

    const ME: ReplicaId = ReplicaId(1);
    const ONLY: PartitionId = PartitionId(0);
    /// The author's own clock, and the latest of all.
    const NOW: (u64, u64) = (100, 200);

    fn stamp(seq: u64) -> Stamp {
        Stamp { hlc: Hlc::from_ms(seq), replica: ME }
    }

    fn seen(seq: u64) -> Ctx {
        let mut ctx = Ctx::default();
        ctx.add_range(ME, 1, seq);
        ctx
    }

    fn record(key: &Key, seq: u64, event: Event) -> Record {
        let (dot, past) = (Dot { replica: ME, seq }, seen(seq - 1));
        Record { partition: ONLY, dot, stamp: stamp(seq), past, key: key.clone(), event }
    }

    /// Tells whether a mutation may do this after these events of the same author.
    fn may(key: &Key, before: &[Event], mutation: &Mutation, done: &[Event]) -> bool {
        let mut history = History::default();
        let records = (1..).zip(before.iter().chain(done)).map(|(seq, event)| record(key, seq, event.clone()));
        let records: Vec<Record> = records.collect();
        records.iter().for_each(|r| assert!(history.add(r.clone())));
        let past = seen(u64::try_from(before.len()).unwrap());
        let author = Author {
            now: history.view(ONLY, &past, NOW.0).of(key),
            late: history.view(ONLY, &past, NOW.1).of(key),
            holed: false,
            evicted: false,
            replica: ME,
        };
        let done: Vec<&Record> = records.iter().skip(before.len()).collect();
        author.judge(mutation, &done).is_ok()
    }

    fn set(deadline: u64) -> Event {
        Event::Set { value: Bytes::new(), tags: Vec::new(), deadline }
    }

    fn field() -> Path {
        Path::Field(Bytes::from_static(b"f"))
    }

    fn put(path: Path, of: u64, deadline: u64) -> Event {
        Event::Put { path, value: Bytes::new(), stamp: stamp(of), deadline }
    }

    fn name() -> Bytes {
        Bytes::from_static(b"c")
    }

    fn life(birth: u64, deadline: u64) -> Life {
        Life { origin: ME, birth, deadline }
    }

    fn count(birth: u64, deadline: u64) -> Event {
        Event::Increment { name: name(), by: 3, life: life(birth, deadline) }
    }

    #[test]
    fn a_touch_finds_what_shows_and_nothing_else() {
        let (key, touch) = (key(REGISTERS, 0), Mutation::Touch { deadline: 900 });
        let touched = |of| Event::Touch { base: stamp(of), deadline: 900 };
        assert!(may(&key, &[set(NEVER)], &touch, &[touched(1)]) && may(&key, &[], &touch, &[]));
        assert!(!may(&key, &[set(NEVER)], &touch, &[]), "it shows");
        assert!(!may(&key, &[set(NEVER), set(NEVER)], &touch, &[touched(1)]), "it was overwritten");
        assert!(!may(&key, &[set(NEVER), Event::Delete], &touch, &[touched(1)]), "it was deleted");
        assert!(may(&key, &[set(150)], &touch, &[]) && may(&key, &[set(150)], &touch, &[touched(1)]), "either");
        assert!(!may(&key, &[set(50)], &touch, &[touched(1)]), "it is over by the author's own clock");
    }

    #[test]
    fn a_put_inherits_the_deadline_of_its_map() {
        let (key, mutation) = (key(MAPS, 0), Mutation::Put { path: field(), value: Bytes::new(), deadline: 900 });
        assert!(may(&key, &[], &mutation, &[put(field(), 1, 900)]));
        assert!(!may(&key, &[], &mutation, &[put(field(), 1, 800)]));
        assert!(!may(&key, &[], &mutation, &[]) && !may(&key, &[], &mutation, &[put(Path::Ttl, 1, 900)]));
        let ttl = [put(Path::Ttl, 1, 400)];
        assert!(may(&key, &ttl, &mutation, &[put(field(), 2, 400)]));
        assert!(!may(&key, &ttl, &mutation, &[put(field(), 2, 900)]));
        assert!(!may(&key, &[], &mutation, &[put(field(), 7, 900)]), "a new value has the event's own stamp");
    }

    #[test]
    fn what_is_put_again_keeps_its_stamp_and_takes_the_later_deadline() {
        let (key, touch) = (key(MAPS, 0), Mutation::TouchPath { path: field(), deadline: 900 });
        let before = [put(field(), 1, 400)];
        assert!(may(&key, &before, &touch, &[put(field(), 1, 900)]));
        assert!(!may(&key, &before, &touch, &[put(field(), 2, 900)]), "restamped");
        assert!(!may(&key, &before, &touch, &[put(field(), 1, 400)]), "not extended");
        assert!(!may(&key, &before, &touch, &[]) && !may(&key, &[], &touch, &[put(field(), 1, 900)]));
    }

    #[test]
    fn a_removal_needs_something_to_remove() {
        let (key, remove) = (key(MAPS, 0), Mutation::Remove { path: field() });
        let removed = [Event::Remove { path: field() }];
        assert!(may(&key, &[put(field(), 1, NEVER)], &remove, &removed) && may(&key, &[], &remove, &[]));
        assert!(!may(&key, &[put(field(), 1, NEVER)], &remove, &[]) && !may(&key, &[], &remove, &removed));
    }

    #[test]
    fn a_map_expires_and_is_cleared_as_a_whole() {
        let key = key(MAPS, 0);
        let before = [put(field(), 1, NEVER), count(2, NEVER)];
        let expire = Mutation::ExpireKey { deadline: 900 };
        let extend = Event::Extend { name: name(), lives: vec![life(2, 900)] };
        let all = [put(field(), 1, 900), extend, put(Path::Ttl, 5, 900)];
        assert!(may(&key, &before, &expire, &all) && may(&key, &[], &expire, &[]));
        for missing in 0..3 {
            let mut some = all.to_vec();
            some.remove(missing);
            assert!(!may(&key, &before, &expire, &some), "without {missing}");
        }
        let clear = |lives: &[(Bytes, Life)]| Event::Clear { lives: lives.to_vec() };
        assert!(may(&key, &before, &Mutation::Clear, &[clear(&[(name(), life(2, NEVER))])]));
        assert!(!may(&key, &before, &Mutation::Clear, &[clear(&[])]), "what counts is erased");
        assert!(!may(&key, &before, &Mutation::Clear, &[]) && may(&key, &[], &Mutation::Clear, &[]));
    }

    #[test]
    fn an_increment_goes_on_with_a_life_that_counts() {
        let (key, more) = (key(MAPS, 0), Mutation::Increment { name: name(), by: 3, deadline: 900 });
        assert!(may(&key, &[], &more, &[count(1, 900)]) && !may(&key, &[], &more, &[count(1, 800)]));
        assert!(may(&key, &[count(1, 400)], &more, &[count(1, 400)]));
        assert!(!may(&key, &[count(1, 400)], &more, &[count(2, 900)]), "the first life still counts");
        assert!(!may(&key, &[count(1, 400)], &more, &[count(1, 900)]), "adding extends nothing");
        assert!(may(&key, &[count(1, 50)], &more, &[count(2, 900)]), "the first life is over");
        let (reset, touch) = (Mutation::Reset { name: name() }, Mutation::TouchCounter { name: name(), deadline: 9 });
        let erase = |lives: Vec<Life>| Event::Reset { name: name(), lives };
        assert!(may(&key, &[count(1, 400)], &reset, &[erase(vec![life(1, 400)])]));
        assert!(
            !may(&key, &[count(1, 400)], &reset, &[erase(Vec::new())]) && !may(&key, &[count(1, 400)], &touch, &[])
        );
    }

    #[test]
    fn a_note_belongs_to_the_life_that_shows() {
        let (key, mutation) = (key(CUSTOMS, 0), Mutation::Note { item: 7, deadline: NEVER });
        let note = |life| Event::Note { generation: stamp(life), item: 7, deadline: NEVER };
        assert!(may(&key, &[], &mutation, &[note(1)]) && may(&key, &[note(1)], &mutation, &[note(1)]));
        assert!(!may(&key, &[note(1)], &mutation, &[note(2)]), "a life that shows goes on");
        assert!(!may(&key, &[note(1), Event::DeleteCustom], &mutation, &[note(1)]), "it was deleted");
        assert!(may(&key, &[note(1), Event::DeleteCustom], &mutation, &[note(3)]));
    }
}
