//! Stories of who comes, goes and comes back: joiners, successors, removed members, lost disks, halves apart.

use driftless::crdt::Ctx;
use driftless::id::ReplicaId;

use crate::replica::{self, FOREVER, LONG, PART, Replica, b, field, later, replicas, sync, sync_all};
use crate::settle;

#[test]
fn a_joiner_that_writes_at_once_is_seen_by_everybody() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("before"), FOREVER);
    let mut j = a.joined_by(3);
    j.set("k", &b("joiner"), FOREVER);
    j.put("m", field("f"), &b("1"), FOREVER);
    settle(&mut [&mut a, &mut x, &mut j]);
    for r in [&a, &x, &j] {
        assert_eq!((r.get("k", 0), r.read("m", &field("f"), 0)), (Some(b("joiner")), Some(b("1"))));
    }
}

#[test]
fn a_removed_member_with_an_unsent_write_is_refused_and_returns_under_a_new_id() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    c.clock_ms = 900;
    c.set("k", &b("unsent"), FOREVER);
    a.delete("k");
    sync_all(&mut [&mut a, &mut x], 2);
    a.remove_member(3);
    x.remove_member(3);
    later(&mut [&mut a], LONG);
    assert!(a.entries().is_empty(), "A has collected, X has not");
    for r in [&mut a, &mut x] {
        assert_eq!(r.deliver(&c.batch(&Ctx::default())), None, "fenced");
        assert_eq!(r.deliver(&c.full()), None, "fenced");
    }
    // It is empty under its new id; the unsent write is issued again with a new dot and stamp.
    let mut back = a.joined_by(4);
    back.set("k", &b("unsent"), FOREVER);
    settle(&mut [&mut a, &mut x, &mut back]);
    assert!([&a, &x, &back].iter().all(|r| r.get("k", 0) == Some(b("unsent"))));
}

#[test]
fn what_a_removed_member_told_one_survivor_reaches_the_others() {
    let [mut a, mut x, c] = replicas([1, 2, 3]);
    c.set("k", &b("told"), FOREVER);
    sync(&c, &mut a);
    a.remove_member(3);
    assert_eq!(a.deliver(&c.batch(&Ctx::default())), None);
    settle(&mut [&mut a, &mut x]);
    assert_eq!(x.get("k", 0), Some(b("told")));
}

#[test]
fn after_losing_its_disk_a_node_loses_no_write_because_its_id_is_new() {
    let [mut a, mut c] = replicas([1, 2]);
    for _ in 0..5 {
        c.put("m", field("f"), &b("1"), FOREVER);
    }
    sync_all(&mut [&mut a, &mut c], 2);
    let mut again = a.succeeded_by(2, 3);
    again.put("m", field("g"), &b("2"), FOREVER);
    settle(&mut [&mut a, &mut again]);
    assert_eq!(a.read("m", &field("g"), 0), Some(b("2")));
}

#[test]
fn under_its_old_id_a_node_without_its_disk_would_write_into_the_void() {
    let [mut a, c] = replicas([1, 2]);
    for _ in 0..5 {
        c.put("m", field("f"), &b("1"), FOREVER);
    }
    sync(&c, &mut a);
    let mut again = Replica::new(2, &[1, 2]);
    let written = again.put("m", field("g"), &b("2"), FOREVER);
    assert!(a.ctx().has(written.dot), "the dot was spent long ago: this is why the id must be new");
    sync_all(&mut [&mut a, &mut again], 2);
    assert_eq!(a.read("m", &field("g"), 0), None);
}

#[test]
fn one_id_in_use_twice_raises_the_alarm_and_changes_nothing() {
    let [mut a, c] = replicas([1, 2]);
    let mut clone = Replica::new(2, &[1, 2]);
    clone.clock_ms = 1_000;
    c.set("k", &b("one"), FOREVER);
    clone.set("k", &b("two"), FOREVER);
    sync(&c, &mut a);
    let replica::Mail::Batch(head, batch) = clone.batch(&Ctx::default()) else { unreachable!() };
    let applied = a.store.lock(PART).unwrap().apply(head.from, &batch, &a.around()).unwrap();
    assert_eq!(applied.duplicates, [ReplicaId(2)]);
    assert_eq!(a.get("k", 0), Some(b("one")));
}

/// E hands J a snapshot and dies before anybody hears of J. Then a key J holds is deleted, a
/// counter reset, a custom entry deleted, and all of it is collected.
#[test]
fn when_the_donor_dies_at_once_a_key_deleted_meanwhile_is_a_miss_at_the_joiner() {
    let [mut d, mut x, mut e] = replicas([1, 2, 3]);
    d.set("k", &b("v"), FOREVER);
    d.increment("m", "n", 3, FOREVER);
    d.note("x", 1, FOREVER);
    sync_all(&mut [&mut d, &mut x, &mut e], 3);
    later(&mut [&mut d, &mut x, &mut e], 1);
    let mut j = e.joined_by(4);
    drop(e);
    d.delete("k");
    d.reset("m", "n").unwrap();
    d.delete_custom("x");
    d.remove_member(3);
    x.remove_member(3);
    sync_all(&mut [&mut d, &mut x], 3);
    later(&mut [&mut d, &mut x, &mut j], LONG);
    assert!(d.entries().is_empty(), "D collected before it ever heard of J");
    settle(&mut [&mut d, &mut x, &mut j]);
    assert_eq!((j.get("k", 0), j.count("m", "n", 0), j.noted("x", 0)), (None, 0, None));
    assert_eq!(j.ctx(), d.ctx());
}

/// The same J, its clock slow within the allowed skew, writes a key while the others delete it.
#[test]
fn a_writer_nobody_had_heard_of_is_not_half_erased_by_a_tombstone_one_member_collected() {
    let [mut d, mut x, mut e] = replicas([1, 2, 3]);
    e.clock_ms = 940;
    sync_all(&mut [&mut d, &mut x, &mut e], 2);
    let mut j = e.joined_by(4);
    drop(e);
    j.set("k", &b("j"), FOREVER);
    j.note("x", 9, FOREVER);
    d.delete("k");
    d.delete_custom("x");
    d.remove_member(3);
    x.remove_member(3);
    sync_all(&mut [&mut d, &mut x], 3);
    d.collect(); // D is free to collect by stability alone, X has not got round to it.
    settle(&mut [&mut d, &mut x, &mut j]);
    for r in [&x, &j] {
        assert_eq!((r.get("k", 0), r.noted("x", 0)), (d.get("k", 0), d.noted("x", 0)));
    }
}

/// B restarts while C is cut off: its new id succeeds the old one in one report.
#[test]
fn a_successor_writes_at_once_and_nothing_blocks_collection_after_the_heal() {
    let [mut a, mut old, mut c] = replicas([1, 2, 3]);
    old.set("k", &b("old"), FOREVER);
    old.increment("m", "n", 2, FOREVER);
    sync_all(&mut [&mut a, &mut old, &mut c], 2);
    c.put("m", field("cut"), &b("off"), FOREVER);
    drop(old);
    let mut new = a.succeeded_by(2, 4);
    new.set("k", &b("new"), FOREVER);
    new.increment("m", "n", 5, FOREVER);
    a.delete("gone");
    sync_all(&mut [&mut a, &mut new], 2);
    later(&mut [&mut a, &mut new], LONG);
    assert!(a.log_len() > 0, "C has not seen it: nothing is stable");
    c.clock_ms = a.clock_ms;
    sync_all(&mut [&mut a, &mut new, &mut c], 2);
    assert_eq!(c.others(), [ReplicaId(1), ReplicaId(4)], "the removal and the new member came together");
    settle(&mut [&mut a, &mut new, &mut c]);
    for r in [&a, &new, &c] {
        assert_eq!((r.get("k", 0), r.count("m", "n", 0)), (Some(b("new")), 7));
        assert_eq!(r.read("m", &field("cut"), 0), Some(b("off")));
    }
}

#[test]
fn a_crashed_origin_that_leaves_a_gap_for_ever_blocks_nothing() {
    let [mut a, mut x, c] = replicas([1, 2, 3]);
    c.set("k1", &b("lost"), FOREVER);
    c.set("k2", &b("kept"), FOREVER);
    let mut first = Ctx::default();
    first.add(replica::dot(3, 1));
    a.deliver(&c.batch(&first));
    drop(c);
    a.remove_member(3);
    x.remove_member(3);
    settle(&mut [&mut a, &mut x]);
    assert!([&a, &x].iter().all(|r| r.get("k2", 0) == Some(b("kept")) && r.ctx() == a.ctx()));
    assert!(!a.ctx().has(replica::dot(3, 1)));
}

#[test]
fn two_halves_apart_for_hours_collect_nothing_and_then_agree() {
    let [mut a, mut x, mut c, mut d] = replicas([1, 2, 3, 4]);
    a.set("k", &b("v"), FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut c, &mut d], 2);
    a.delete("k");
    c.touch("k", FOREVER);
    c.put("m", field("f"), &b("1"), FOREVER);
    for half in [[&mut a, &mut x], [&mut c, &mut d]] {
        let mut half = half;
        sync_all(&mut half, 3);
        later(&mut half, 6 * 3_600_000);
        assert!(half.iter().all(|r| r.log_len() > 0));
    }
    settle(&mut [&mut a, &mut x, &mut c, &mut d]);
    for r in [&a, &x, &c, &d] {
        assert_eq!((r.get("k", 0), r.read("m", &field("f"), 0)), (None, Some(b("1"))));
    }
}
