//! Planted faults: each must be found, and a healthy run must be found healthy.

use super::*;
use crate::support::protocol::{Context, Kind, Stamp};

const NAMES: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];

/// Three regions whose messages are delivered by hand.
struct World {
    evidence: Evidence,
    seen: [Contexts; 3],
    clock_ms: u64,
}

impl World {
    fn new() -> Self {
        Self { evidence: Evidence::default(), seen: Default::default(), clock_ms: 1_000 }
    }

    /// One write in region `at`, a millisecond after the last.
    fn write(&mut self, at: usize, kind: Kind, place: (&str, &str, Option<&str>)) -> &mut Record {
        self.clock_ms += 1;
        let replica = u64::try_from(at).unwrap() + 1;
        let before = self.seen[at].0.get(&0).cloned().unwrap_or_default();
        let seq = before.0.get(&replica).map_or(0, |ranges| ranges[0].1) + 1;
        self.seen[at].0.entry(0).or_default().add(replica, (seq, seq));
        self.evidence.records.push(Record {
            index: self.evidence.records.len(),
            region: NAMES[at].to_owned(),
            keyspace: place.0.to_owned(),
            key: place.1.to_owned(),
            path: place.2.map(str::to_owned),
            kind,
            value: None,
            by: 0,
            dot: Dot { partition: 0, replica, seq },
            stamp: Stamp { hlc: self.clock_ms << 16, replica },
            ttl_ms: None,
            deadline_ms: None,
            before,
            after: None,
            issued_ms: self.clock_ms,
        });
        self.evidence.records.last_mut().unwrap()
    }

    fn set(&mut self, at: usize, key: &str, value: i64) -> &mut Record {
        let record = self.write(at, Kind::Set, ("sessions", key, None));
        record.value = Some(value.into());
        record
    }

    fn put(&mut self, at: usize, field: &str, value: i64) -> &mut Record {
        let record = self.write(at, Kind::Put, ("carts", "u", Some(field)));
        record.value = Some(value.into());
        record
    }

    fn incr(&mut self, at: usize, by: i64) -> &mut Record {
        let record = self.write(at, Kind::Incr, ("limits", "ip", None));
        record.by = by;
        record
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let theirs = self.seen[from].clone();
        self.seen[to].join(&theirs);
    }

    fn deliver_all(&mut self) {
        for _ in 0..2 {
            for from in 0..3 {
                (0..3).for_each(|to| self.deliver(from, to));
            }
        }
    }

    /// Lets every region show `cells`.
    fn show(&mut self, cells: &[Cell]) {
        let dump = |at: usize| Dump {
            region: NAMES[at].to_owned(),
            from_ms: self.clock_ms,
            to_ms: self.clock_ms,
            contexts: self.seen[at].clone(),
            cells: cells.to_vec(),
        };
        self.evidence.dumps = (0..3).map(dump).collect();
    }

    fn verdict(&mut self, cells: &[Cell]) -> Findings {
        self.deliver_all();
        self.show(cells);
        judge(&self.evidence)
    }
}

fn cell(place: (&str, &str, Option<&str>), value: i64) -> Cell {
    let (keyspace, key, path) = place;
    Cell { keyspace: keyspace.into(), key: key.into(), path: path.map(str::to_owned), value: value.into() }
}

fn session(key: &str, value: i64) -> Cell {
    cell(("sessions", key, None), value)
}

fn item(field: &str, value: i64) -> Cell {
    cell(("carts", "u", Some(field)), value)
}

fn hits(value: i64) -> Cell {
    cell(("limits", "ip", None), value)
}

#[test]
fn a_healthy_run_has_converged_and_its_conflicts_are_counted() {
    let mut world = World::new();
    world.set(0, "a", 1);
    world.set(1, "a", 2);
    world.put(0, "x", 3);
    world.put(2, "y", 4);
    world.incr(0, 5);
    world.incr(2, -2);
    let findings = world.verdict(&[session("a", 2), item("x", 3), item("y", 4), hits(3)]);
    assert_eq!(findings.verdict(), "converged");
    assert_eq!(findings.conflicts, BTreeMap::from([("us-east".to_owned(), 1), ("eu-central".to_owned(), 1)]));
}

#[test]
fn a_planted_divergence_is_found_in_values_and_in_contexts() {
    let mut world = World::new();
    world.set(0, "a", 1);
    world.set(1, "b", 2);
    world.verdict(&[session("a", 1), session("b", 2)]);
    world.evidence.dumps[2].cells[0].value = 9.into();
    let findings = judge(&world.evidence);
    assert_eq!(findings.diverged.iter().map(|k| k.key.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(findings.verdict().contains("1 keys diverged"), "{}", findings.verdict());

    world.show(&[session("a", 1), session("b", 2)]);
    world.evidence.dumps[1].contexts.0.entry(7).or_default().add(1, (1, 1));
    let findings = judge(&world.evidence);
    assert!(findings.diverged.is_empty() && findings.contexts_differ);
    assert_ne!(findings.verdict(), "converged");
}

#[test]
fn a_lost_write_is_found_when_all_regions_agree_on_the_loss() {
    let mut world = World::new();
    world.set(0, "a", 1);
    world.set(0, "a", 2);
    assert_eq!(world.verdict(&[session("a", 1)]).lost.len(), 3, "each region shows the older value");
    assert_eq!(world.verdict(&[]).lost.len(), 3, "each region shows nothing");
    assert_eq!(world.verdict(&[session("a", 2)]).verdict(), "converged");
}

#[test]
fn an_event_nobody_has_seen_is_lost_unless_its_writer_was_killed_before_it_was_acknowledged() {
    let mut world = World::new();
    world.set(1, "a", 1);
    world.deliver_all();
    let unsent = world.set(0, "a", 2).clone();
    world.seen[0] = world.seen[1].clone();
    world.clock_ms += 30;
    world.show(&[session("a", 1)]);
    assert_eq!(judge(&world.evidence).lost.len(), 1);

    world.evidence.killed = vec![Killed { replica: 1, at_ms: world.clock_ms, in_flight: None }];
    let findings = judge(&world.evidence);
    assert_eq!((findings.verdict().as_str(), findings.lost_local, findings.lost_local_oldest_ms), ("converged", 1, 30));

    world.evidence.acked.insert(unsent.dot);
    assert_eq!(judge(&world.evidence).lost.len(), 1, "a quorum had it");
}

#[test]
fn an_untold_write_of_a_killed_region_leaves_its_key_unjudged_and_no_other() {
    let mut world = World::new();
    world.set(0, "a", 1);
    world.set(1, "b", 1);
    world.seen[0].0.entry(0).or_default().add(1, (2, 2));
    let in_flight = Some(Key { keyspace: "sessions".into(), key: "a".into() });
    world.evidence.killed = vec![Killed { replica: 1, at_ms: world.clock_ms, in_flight }];
    assert_eq!(world.verdict(&[session("a", 77), session("b", 1)]).verdict(), "converged");
    assert_ne!(world.verdict(&[session("a", 77), session("b", 77)]).verdict(), "converged");
}

#[test]
fn whatever_comes_back_after_it_was_taken_away_is_resurrected() {
    let mut world = World::new();
    world.set(0, "a", 1);
    world.write(0, Kind::Delete, ("sessions", "a", None));
    world.set(0, "short", 1).ttl_ms = Some(5);
    world.put(0, "x", 3);
    world.write(0, Kind::Remove, ("carts", "u", Some("x")));
    world.incr(0, 5);
    world.write(0, Kind::Reset, ("limits", "ip", None));
    world.clock_ms += 10;
    assert_eq!(world.verdict(&[]).verdict(), "converged");
    let back = [session("a", 1), session("short", 1), item("x", 3), hits(5), session("never", 1)];
    let findings = world.verdict(&back);
    assert_eq!((findings.resurrected.len(), findings.lost.len()), (5, 0));
}

#[test]
fn a_remove_takes_only_what_it_had_seen() {
    let mut world = World::new();
    world.put(0, "x", 1);
    world.deliver_all();
    world.write(0, Kind::Remove, ("carts", "u", Some("x")));
    world.put(1, "x", 2);
    assert_eq!(world.verdict(&[item("x", 2)]).verdict(), "converged");
    assert_eq!(world.verdict(&[]).lost.len(), 3);
    world.write(2, Kind::Clear, ("carts", "u", None));
    assert_eq!(world.verdict(&[]).verdict(), "converged");
}

#[test]
fn an_expired_winner_gives_way_to_a_living_sibling() {
    let mut world = World::new();
    world.put(0, "x", 1);
    world.put(1, "x", 2).ttl_ms = Some(50);
    assert_eq!(world.verdict(&[item("x", 2)]).verdict(), "converged");
    world.clock_ms += 100;
    assert_eq!(world.verdict(&[item("x", 1)]).verdict(), "converged");
}

#[test]
fn a_touch_prolongs_the_value_it_saw_and_no_other() {
    let mut world = World::new();
    world.set(0, "a", 1).ttl_ms = Some(20);
    world.deliver_all();
    world.write(1, Kind::Touch, ("sessions", "a", None)).ttl_ms = Some(500);
    world.clock_ms += 100;
    assert_eq!(world.verdict(&[session("a", 1)]).verdict(), "converged");

    let mut world = World::new();
    world.set(0, "a", 1).ttl_ms = Some(20);
    world.deliver_all();
    world.write(1, Kind::Touch, ("sessions", "a", None)).ttl_ms = Some(500);
    world.set(0, "a", 2).ttl_ms = Some(20);
    world.clock_ms += 100;
    assert_eq!(world.verdict(&[]).verdict(), "converged", "the touch never saw the second value");
}

#[test]
fn a_counter_lives_as_long_as_the_increment_that_began_its_life_says() {
    let mut world = World::new();
    world.incr(0, 1).ttl_ms = Some(50);
    world.clock_ms += 20;
    world.incr(0, 2).ttl_ms = Some(500);
    world.incr(1, 10).ttl_ms = Some(500);
    assert_eq!(world.verdict(&[hits(13)]).verdict(), "converged");
    world.clock_ms += 60;
    assert_eq!(world.verdict(&[hits(10)]).verdict(), "converged");
    world.incr(0, 4).ttl_ms = Some(500);
    assert_eq!(world.verdict(&[hits(14)]).verdict(), "converged");
}

#[test]
fn an_order_the_records_leave_open_accepts_both_outcomes_and_nothing_else() {
    let mut world = World::new();
    let put = world.put(0, "x", 1).dot;
    let incr = world.incr(0, 5).dot;
    let mut after = Context::default();
    after.add(put.replica, (1, incr.seq));
    world.write(1, Kind::Remove, ("carts", "u", Some("x"))).after = Some(after.clone());
    world.write(1, Kind::Reset, ("limits", "ip", None)).after = Some(after);
    for cells in [vec![], vec![item("x", 1)], vec![hits(5)], vec![item("x", 1), hits(5)]] {
        let findings = world.verdict(&cells);
        assert_eq!((findings.verdict().as_str(), findings.ambiguous), ("converged", 2));
    }
    assert_ne!(world.verdict(&[item("x", 2)]).verdict(), "converged");
    assert_ne!(world.verdict(&[hits(4)]).verdict(), "converged");
}

#[test]
fn a_doubtful_touch_accepts_the_value_and_its_absence() {
    let mut world = World::new();
    world.set(0, "a", 1).ttl_ms = Some(20);
    let mut after = Context::default();
    after.add(1, (1, 1));
    let touch = world.write(1, Kind::Touch, ("sessions", "a", None));
    (touch.ttl_ms, touch.after) = (Some(500), Some(after));
    world.clock_ms += 100;
    assert_eq!(world.verdict(&[]).verdict(), "converged");
    assert_eq!(world.verdict(&[session("a", 1)]).verdict(), "converged");
    assert_ne!(world.verdict(&[session("a", 3)]).verdict(), "converged");
}

#[test]
fn deadlines_are_listed_once_and_in_order() {
    let mut world = World::new();
    world.set(0, "a", 1).ttl_ms = Some(50);
    world.set(0, "b", 1).ttl_ms = Some(20);
    world.set(0, "c", 1);
    world.incr(0, 1).deadline_ms = Some(1_051);
    assert_eq!(deadlines(&world.evidence.records), [1_022, 1_051]);
}
