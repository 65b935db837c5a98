//! Stories of what is forgotten: expiry and eviction.
//!
//! Each test is one history; its name says what must hold. A replica shows the agreed value or a
//! miss, never another value, and a memory given back here takes nothing away elsewhere.

#[path = "support/replica.rs"]
mod replica;

use driftless::crdt::{Ctx, Path};
use replica::{FOREVER, LONG, PART, Replica, b, field, later, replicas, residue, settle, sync, sync_all};

// ---- time to live

#[test]
fn an_expired_winner_uncovers_its_live_loser_before_and_after_the_sweep() {
    let [mut a, mut x] = replicas([1, 2]);
    a.put("m", field("f"), &b("loser"), FOREVER);
    x.clock_ms += 5;
    x.put("m", field("f"), &b("winner"), 1_100);
    sync_all(&mut [&mut a, &mut x], 2);
    assert_eq!(a.read("m", &field("f"), 1_099), Some(b("winner")));
    assert_eq!(a.read("m", &field("f"), 1_100), Some(b("loser")));
    settle(&mut [&mut a, &mut x]);
    assert!([&a, &x].iter().all(|r| r.read("m", &field("f"), 1_100) == Some(b("loser"))));
}

#[test]
fn keys_that_come_and_go_with_long_lives_leave_no_deadlines_behind() {
    const KEPT: usize = 9;
    let mut a = Replica::new(1, &[1]);
    (0..KEPT).for_each(|n| _ = a.set(&n.to_string(), &b("v"), a.clock_ms + 1_000_000_000));
    let queued = |a: &Replica| a.store.read(PART).unwrap().queued_deadlines();
    let mut most = 0;
    for _ in 0..2_000 {
        a.set("k", &b("v"), a.clock_ms + 1_000_000_000);
        most = most.max(queued(&a));
        a.delete("k");
        later(&mut [&mut a], LONG);
        assert_eq!(residue(&a), None);
    }
    assert_eq!(most, 2 * (KEPT + 1) + 64, "each takes memory until it has passed, or they are the most");
    a.set("k", &b("v"), a.clock_ms + 50);
    a.clock_ms += 60;
    a.expire();
    assert!(a.cell("k").unwrap().is_grave(), "what is due is still found");
}

#[test]
fn each_of_several_deadlines_of_a_map_is_kept() {
    let mut a = Replica::new(1, &[1]);
    for (name, deadline) in [("f", 1_100), ("g", 1_200), ("h", 1_300)] {
        a.put("m", field(name), &b("v"), deadline);
    }
    let held = |a: &Replica| ["f", "g", "h"].map(|name| a.tree("m").siblings(&field(name)).len());
    for (now, left) in [(1_150, [0, 1, 1]), (1_250, [0, 0, 1]), (1_350, [0, 0, 0])] {
        a.clock_ms = now;
        a.expire();
        assert_eq!(held(&a), left, "at {now}");
    }
}

#[test]
fn what_is_not_visible_any_more_cannot_be_touched_or_inherited_from() {
    let mut a = Replica::new(1, &[1]);
    a.clock_ms = 1_000;
    a.set("expired", &b("v"), 1_100);
    a.set("deleted", &b("v"), FOREVER);
    a.delete("deleted");
    a.put("m", field("f"), &b("v"), FOREVER);
    a.expire_key("m", 1_100);
    a.clock_ms = 1_100;
    assert_eq!(["expired", "deleted", "unknown"].map(|key| a.touch(key, FOREVER)), [None, None, None]);
    a.put("m", field("g"), &b("v"), FOREVER);
    assert_eq!(a.read("m", &field("g"), 5_000), Some(b("v")), "the key's deadline has passed");
}

#[test]
fn a_touch_concurrent_with_a_set_never_revives_the_old_value() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("old"), 2_000);
    sync(&a, &mut x);
    x.touch("k", FOREVER).unwrap();
    a.clock_ms += 1;
    a.set("k", &b("new"), 1_500);
    sync_all(&mut [&mut a, &mut x], 2);
    for r in [&a, &x] {
        assert_eq!((r.get("k", 1_499), r.get("k", 1_500)), (Some(b("new")), None));
    }
    settle(&mut [&mut a, &mut x]);
}

#[test]
fn of_two_concurrent_touches_the_later_deadline_holds() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("v"), 1_100);
    sync(&a, &mut x);
    a.touch("k", 3_000).unwrap();
    x.touch("k", 2_000).unwrap();
    sync_all(&mut [&mut a, &mut x], 2);
    assert!([&a, &x].iter().all(|r| r.get("k", 2_999) == Some(b("v")) && r.get("k", 3_000).is_none()));
    assert_eq!(a.entries(), x.entries());
}

#[test]
fn a_touch_that_moves_nothing_leaves_equal_states_everywhere() {
    let [mut a, mut x] = replicas([1, 2]);
    x.set("k", &b("v"), FOREVER);
    sync(&x, &mut a);
    a.touch("k", FOREVER).unwrap();
    a.touch("k", 2_000).unwrap();
    sync(&a, &mut x);
    settle(&mut [&mut a, &mut x]);
    assert_eq!(a.entries(), x.entries());
}

#[test]
fn a_touch_concurrent_with_expiry_and_collection_brings_the_value_back() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("v"), 1_100);
    a.put("m", field("f"), &b("w"), 1_100);
    a.increment("m", "n", 3, 1_100);
    a.note("x", 7, 1_100);
    sync_all(&mut [&mut a, &mut x], 2);
    x.clock_ms = 1_099;
    x.touch("k", FOREVER).unwrap();
    x.touch_path("m", &field("f"), FOREVER).unwrap();
    x.touch_counter("m", "n", FOREVER).unwrap();
    x.note("x", 8, FOREVER);
    a.clock_ms = 1_200;
    a.expire();
    later(&mut [&mut a], LONG);
    a.expire();
    assert!(a.entries().is_empty(), "it is over and collected at A");
    settle(&mut [&mut a, &mut x]);
    for r in [&a, &x] {
        assert_eq!((r.get("k", 9_999), r.read("m", &field("f"), 9_999)), (Some(b("v")), Some(b("w"))));
        assert_eq!((r.count("m", "n", 9_999), r.noted("x", 9_999)), (3, Some([7, 8].into())));
    }
}

#[test]
fn a_reset_survives_expiry_when_a_member_that_missed_it_touches_the_counter() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.increment("m", "n", 5, 1_100);
    sync_all(&mut [&mut a, &mut x, &mut c], 2);
    x.reset("m", "n").unwrap();
    sync(&x, &mut a);
    c.touch_counter("m", "n", FOREVER).unwrap();
    a.clock_ms = 1_200;
    a.expire();
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.count("m", "n", 0) == 0));
}

#[test]
fn an_update_made_before_a_custom_entry_expired_elsewhere_is_never_claimed_and_missing() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.note("x", 1, 1_100);
    sync_all(&mut [&mut a, &mut x, &mut c], 2);
    a.note("x", 2, 1_100);
    sync(&a, &mut c);
    a.clock_ms = 1_200;
    a.expire();
    x.clock_ms = 1_090;
    x.note("x", 3, FOREVER);
    // X hears of A's update only after A's copy is over.
    sync(&a, &mut x);
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.noted("x", 9_999) == Some([1, 2, 3].into())));
}

#[test]
fn a_key_deadline_is_inherited_by_later_puts_and_reset_by_clear() {
    let [mut a, mut x] = replicas([1, 2]);
    a.put("m", field("f"), &b("1"), FOREVER);
    a.increment("m", "n", 1, 1_100);
    a.expire_key("m", 2_000);
    sync(&a, &mut x);
    x.put("m", field("g"), &b("2"), FOREVER);
    sync(&x, &mut a);
    for r in [&a, &x] {
        let seen = |t| (r.read("m", &field("f"), t), r.read("m", &field("g"), t), r.count("m", "n", t));
        assert_eq!(seen(1_999), (Some(b("1")), Some(b("2")), 1));
        assert_eq!(seen(2_000), (None, None, 0));
    }
    x.clear("m").unwrap();
    x.put("m", field("h"), &b("3"), FOREVER);
    settle(&mut [&mut a, &mut x]);
    assert!([&a, &x].iter().all(|r| r.read("m", &field("h"), 9_999) == Some(b("3"))));
    assert!(a.tree("m").siblings(&Path::Ttl).is_empty());
}

#[test]
fn a_swept_entry_that_has_to_stay_is_dropped_when_it_settles() {
    let [mut a, mut x] = replicas([1, 2]);
    a.increment("m", "n", 4, 1_100);
    a.note("x", 1, 1_100);
    a.clock_ms = 1_200;
    a.expire();
    assert!(a.tree("m").counter(b"n").is_some() && a.noted("x", 1_099).is_some());
    settle(&mut [&mut a, &mut x]);
    assert!(a.entries().is_empty() && x.entries().is_empty());
}

// ---- eviction

#[test]
fn after_an_eviction_an_older_fragment_in_flight_does_not_appear() {
    let [mut a, x] = replicas([1, 2]);
    x.set("k", &b("older"), FOREVER);
    let in_flight = x.batch(&Ctx::default());
    a.clock_ms += 1;
    a.set("k", &b("newer"), FOREVER);
    assert!(a.evict(&a.regs, "k"));
    a.deliver(&in_flight);
    assert_eq!(a.get("k", 0), None, "the agreed value or a miss");
}

#[test]
fn an_evicted_register_is_refilled_by_a_duplicate_and_taken_from_nobody() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("v"), FOREVER);
    sync_all(&mut [&mut a, &mut x], 2);
    assert!(a.evict(&a.regs, "k"));
    sync_all(&mut [&mut a, &mut x], 2);
    assert_eq!((a.get("k", 0), x.get("k", 0)), (None, Some(b("v"))));
    let again = x.batch(&Ctx::default());
    a.deliver(&again);
    assert_eq!(a.get("k", 0), Some(b("v")));
}

#[test]
fn a_map_with_unstable_dots_is_not_evicted() {
    let [a, _x] = replicas([1, 2]);
    a.put("m", field("f"), &b("1"), FOREVER);
    assert!(!a.evict(&a.maps, "m"));
    assert_eq!(a.read("m", &field("f"), 0), Some(b("1")));
}

/// A and X hold `m` with two fields; A evicts it.
fn evicted() -> [Replica; 2] {
    let [mut a, mut x] = replicas([1, 2]);
    a.put("m", field("f"), &b("1"), FOREVER);
    a.put("m", field("g"), &b("2"), FOREVER);
    sync_all(&mut [&mut a, &mut x], 2);
    later(&mut [&mut a, &mut x], LONG);
    assert!(a.evict(&a.maps, "m") && a.is_hole("m"));
    [a, x]
}

#[test]
fn an_evicted_map_learns_the_field_a_peer_puts_and_stays_a_hole() {
    let [mut a, mut x] = evicted();
    x.put("m", field("f"), &b("3"), FOREVER);
    sync(&x, &mut a);
    assert_eq!((a.read("m", &field("f"), 0), a.is_hole("m")), (Some(b("3")), true));
    assert_eq!(a.read("m", &field("g"), 0), None, "a miss, and the whole map is one: it is a hole");
    settle(&mut [&mut a, &mut x]);
    assert_eq!(x.read("m", &field("g"), 0), Some(b("2")));
}

#[test]
fn an_evicted_map_never_says_that_its_elements_were_removed() {
    let [a, mut x] = evicted();
    a.put("m", field("h"), &b("3"), FOREVER);
    sync(&a, &mut x);
    x.deliver(&a.full());
    for (name, value) in [("f", "1"), ("g", "2"), ("h", "3")] {
        assert_eq!(x.read("m", &field(name), 0), Some(b(value)));
    }
}

#[test]
fn a_clear_fills_a_hole_with_nothing() {
    let [mut a, mut x] = evicted();
    a.clear("m").unwrap();
    assert!(!a.is_hole("m"));
    settle(&mut [&mut a, &mut x]);
    assert!(a.entries().is_empty() && x.entries().is_empty());
}

#[test]
fn a_whole_key_fragment_fills_a_hole() {
    let [mut a, x] = evicted();
    a.deliver(&x.full());
    assert_eq!((a.is_hole("m"), a.tree("m")), (false, x.tree("m")));
}

#[test]
fn a_joiner_of_a_donor_with_a_hole_has_the_hole_and_takes_nothing_from_anybody() {
    let [mut a, mut x] = evicted();
    a.put("m", field("h"), &b("3"), FOREVER);
    let mut j = a.joined_by(3);
    assert!(j.is_hole("m"), "or it would show a part of the map as the whole");
    assert_eq!(j.read("m", &field("h"), 0), Some(b("3")), "what the donor knows again the joiner knows");
    j.put("m", field("i"), &b("4"), FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut j], 3);
    x.deliver(&j.full());
    for (name, value) in [("f", "1"), ("g", "2"), ("h", "3"), ("i", "4")] {
        assert_eq!(x.read("m", &field(name), 0), Some(b(value)), "{name}");
    }
    settle(&mut [&mut a, &mut x, &mut j]);
}

#[test]
fn who_inherits_a_hole_over_an_own_write_shows_neither_and_takes_the_other_from_nobody() {
    let [mut a, mut x] = evicted();
    let mut apart = Replica::new(3, &[3]);
    apart.clock_ms = 1;
    apart.put("m", field("f"), &b("older"), FOREVER);
    apart.deliver(&a.full()).unwrap().unwrap();
    assert_eq!(apart.read("m", &field("f"), 0), None, "what A evicted may have been younger");
    let mut taught = Replica::new(4, &[4]);
    taught.clock_ms = a.clock_ms + 1;
    taught.put("m", field("f"), &b("youngest"), FOREVER);
    for donor in [&a, &x] {
        taught.deliver(&donor.full()).unwrap().unwrap();
    }
    assert_eq!(taught.read("m", &field("f"), 0), Some(b("youngest")), "X knows the whole map");
    assert_eq!(taught.tree("m").siblings(&field("f")).len(), 2);
    for mail in [apart.mail_for(&x.ctx()), apart.full()] {
        x.deliver(&mail);
        assert_eq!(x.read("m", &field("f"), 0), Some(b("1")), "and it is");
        assert_eq!(x.tree("m").siblings(&field("f")).len(), 2, "the own write is passed on");
        a.deliver(&mail);
        assert_eq!(a.read("m", &field("f"), 0), None);
    }
    apart.deliver(&x.full()).unwrap().unwrap();
    assert_eq!((apart.is_hole("m"), apart.tree("m")), (false, x.tree("m")));
    a.remove("m", &field("f")).unwrap();
    sync(&a, &mut x);
    assert_eq!(x.read("m", &field("f"), 0), None, "A held the own write and had evicted the other: both are removed");
}
