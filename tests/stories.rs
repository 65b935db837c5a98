//! Stories that random schedules reach too rarely: removal, deletion, membership and time.
//!
//! Each test is one history, told with as few replicas as it needs; its name says what must hold.
//! Expiry and eviction have their own file, `stories_of_memory.rs`; dropped logs and full synchronisation theirs,
//! `stories_of_synchronisation.rs`. Those of membership are in `stories/members.rs`.

#[path = "stories/members.rs"]
mod members;
#[path = "support/replica.rs"]
mod replica;

use bytes::Bytes;
use driftless::clock::Hlc;
use driftless::crdt::{Ctx, Payload};
use driftless::id::ReplicaId;
use driftless::store::{Batch, Budget, KeyRef, Refused, Selector};
use replica::{ALL, FOREVER, LONG, PART, Replica, b, field, later, replicas, residue, sync, sync_all};

const ONE: Budget = Budget { fragments: 1, bytes: 1 };

/// Everybody exchanges everything, collects much later, and nothing is left to collect.
fn settle(all: &mut [&mut Replica]) {
    sync_all(all, 3);
    later(all, LONG);
    sync_all(all, 2);
    later(all, LONG);
    for r in all {
        assert_eq!(residue(r), None, "at {}", r.id);
    }
}

#[test]
fn a_remove_seen_before_the_put_it_removes_leaves_nothing() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.put("m", field("f"), &b("v"), FOREVER);
    let put = a.batch(&Ctx::default());
    x.deliver(&put);
    x.remove("m", &field("f")).unwrap();
    c.deliver(&x.own_batch(&Ctx::default(), ALL));
    c.deliver(&put);
    assert_eq!(c.read("m", &field("f"), 0), None);
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.entries().is_empty()));
}

#[test]
fn of_two_concurrent_puts_a_remove_takes_only_the_one_it_saw() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.put("m", field("f"), &b("seen"), FOREVER);
    sync(&a, &mut c);
    x.put("m", field("f"), &b("unseen"), FOREVER);
    c.remove("m", &field("f")).unwrap();
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.read("m", &field("f"), 0) == Some(b("unseen"))));
}

#[test]
fn a_clear_spares_a_concurrent_put() {
    let [mut a, mut x] = replicas([1, 2]);
    a.put("m", field("old"), &b("1"), FOREVER);
    a.increment("m", "n", 5, FOREVER);
    sync(&a, &mut x);
    x.clear("m").unwrap();
    a.put("m", field("new"), &b("2"), FOREVER);
    a.increment("m", "n", 2, FOREVER);
    settle(&mut [&mut a, &mut x]);
    for r in [&a, &x] {
        assert_eq!((r.read("m", &field("old"), 0), r.read("m", &field("new"), 0)), (None, Some(b("2"))));
        assert_eq!(r.count("m", "n", 0), 2);
    }
}

#[test]
fn a_field_put_again_after_a_clear_is_there() {
    let [mut a, mut x] = replicas([1, 2]);
    a.put("m", field("f"), &b("1"), FOREVER);
    sync(&a, &mut x);
    x.clear("m").unwrap();
    x.put("m", field("f"), &b("2"), FOREVER);
    settle(&mut [&mut a, &mut x]);
    assert!([&a, &x].iter().all(|r| r.read("m", &field("f"), 0) == Some(b("2"))));
}

#[test]
fn a_loser_unseen_by_the_remover_of_the_winner_survives() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.put("m", field("f"), &b("loser"), FOREVER);
    x.clock_ms += 10;
    x.put("m", field("f"), &b("winner"), FOREVER);
    sync(&x, &mut a);
    assert_eq!(a.read("m", &field("f"), 0), Some(b("winner")));
    c.deliver(&x.own_batch(&Ctx::default(), ALL));
    c.remove("m", &field("f")).unwrap();
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.read("m", &field("f"), 0) == Some(b("loser"))));
}

#[test]
fn an_effect_never_travels_without_its_dot() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.put("m", field("f"), &b("1"), FOREVER);
    sync(&a, &mut x);
    a.put("m", field("g"), &b("2"), FOREVER);
    a.clear("m").unwrap();
    // The budget ends before the clear does: what C gets of the field must bring the clear along.
    c.deliver(&a.batch_within(&Ctx::default(), ONE));
    a.clock_ms += 1;
    for r in [&mut x, &mut c] {
        r.remove_member(1);
    }
    settle(&mut [&mut x, &mut c]);
    assert_eq!(x.read("m", &field("f"), 0), c.read("m", &field("f"), 0));
}

#[test]
fn the_effect_of_an_invalidation_never_travels_without_its_dot() {
    let [mut a, mut w, mut x, mut c] = replicas([1, 2, 3, 4]);
    a.set("k", &b("v"), FOREVER);
    sync(&a, &mut w);
    sync(&a, &mut x);
    w.clock_ms += 1;
    w.invalidate(&Selector::All);
    assert_eq!(w.store.read(PART).unwrap().epoch_count(), 1);
    sync(&w, &mut a);
    // A sends C what it wrote itself: the value it no longer shows, and why.
    c.deliver(&a.own_batch(&c.ctx(), ALL));
    for r in [&mut x, &mut c] {
        r.remove_member(1);
        r.remove_member(2);
    }
    settle(&mut [&mut x, &mut c]);
    assert_eq!(x.get("k", 0), c.get("k", 0));
}

#[test]
fn what_an_invalidation_cleared_never_travels_without_the_invalidation() {
    for tagged in [false, true] {
        let [mut a, mut x, mut c] = replicas([1, 2, 3]);
        for r in [&a, &x, &c] {
            r.store.spaces().open_epochs(&r.regs).unwrap();
        }
        let (value, tags) = (b("1"), vec![b("t")]);
        a.write(&a.regs, "r", |p, at, t| p.set_tagged(at, (value.clone(), tags.clone()), FOREVER, t));
        sync(&a, &mut x);
        let selector = if tagged { Selector::Tag("t".to_owned()) } else { Selector::All };
        a.store.invalidate(&a.regs, &selector, a.clock_ms).unwrap();
        // The budget ends before the invalidation does: what C gets of the register must bring it along.
        c.deliver(&a.batch_within(&Ctx::default(), ONE));
        a.clock_ms += 1;
        for r in [&mut x, &mut c] {
            r.remove_member(1);
        }
        settle(&mut [&mut x, &mut c]);
        assert_eq!(x.get("r", 0), c.get("r", 0), "{selector:?}");
    }
}

#[test]
fn a_member_added_again_while_a_peer_has_not_collected_stays() {
    let [mut a, mut x] = replicas([1, 2]);
    a.put("m", field("f"), &b("1"), FOREVER);
    sync(&a, &mut x);
    sync(&x, &mut a);
    a.remove("m", &field("f")).unwrap();
    a.put("m", field("f"), &b("2"), FOREVER);
    let late = x.batch(&Ctx::default());
    sync(&a, &mut x);
    sync(&x, &mut a);
    a.collect();
    a.deliver(&late);
    settle(&mut [&mut a, &mut x]);
    assert!([&a, &x].iter().all(|r| r.read("m", &field("f"), 0) == Some(b("2"))));
}

#[test]
fn a_delete_of_an_unknown_key_beats_the_older_set_that_arrives_later() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("older"), FOREVER);
    x.clock_ms += 10;
    x.delete("k");
    settle(&mut [&mut a, &mut x]);
    assert!([&a, &x].iter().all(|r| r.get("k", 0).is_none()));
}

#[test]
fn an_old_duplicate_changes_nothing_after_the_tombstone_was_collected() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("v"), FOREVER);
    let old = a.batch(&Ctx::default());
    x.deliver(&old);
    x.clock_ms += 1;
    x.delete("k");
    settle(&mut [&mut a, &mut x]);
    assert_eq!(x.deliver(&old), Some(Err(Refused::Stale)));
    assert!(x.entries().is_empty() && x.get("k", 0).is_none());
}

#[test]
fn an_old_duplicate_changes_nothing_after_the_counter_was_collected() {
    let [mut a, mut x] = replicas([1, 2]);
    a.increment("m", "n", 7, FOREVER);
    let old = a.batch(&Ctx::default());
    x.deliver(&old);
    x.reset("m", "n").unwrap();
    settle(&mut [&mut a, &mut x]);
    assert_eq!(x.deliver(&old), Some(Err(Refused::Stale)));
    assert!(x.entries().is_empty() && x.count("m", "n", 0) == 0);
}

#[test]
fn a_counter_collected_at_its_origin_and_counted_on_beats_what_a_peer_still_holds() {
    let [mut a, mut x] = replicas([1, 2]);
    a.increment("m", "n", 100, FOREVER);
    sync(&a, &mut x);
    x.reset("m", "n").unwrap();
    sync(&x, &mut a);
    a.collect();
    assert_eq!(a.tree("m").counter(b"n"), None, "A collected, X did not");
    a.increment("m", "n", 1, FOREVER);
    sync_all(&mut [&mut a, &mut x], 2);
    assert_eq!((a.count("m", "n", 0), x.count("m", "n", 0)), (1, 1));
    settle(&mut [&mut a, &mut x]);
}

#[test]
fn two_concurrent_resets_erase_exactly_what_either_saw() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.increment("m", "n", 5, FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut c], 1);
    a.increment("m", "n", 10, FOREVER);
    x.increment("m", "n", 20, FOREVER);
    a.reset("m", "n").unwrap();
    x.reset("m", "n").unwrap();
    c.increment("m", "n", 3, FOREVER);
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.count("m", "n", 0) == 3));
}

#[test]
fn an_increment_concurrent_with_a_reset_and_a_clear_counts_alone() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.increment("m", "n", 5, FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut c], 1);
    a.increment("m", "n", 4, FOREVER);
    x.reset("m", "n").unwrap();
    c.clear("m").unwrap();
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.count("m", "n", 0) == 4));
}

#[test]
fn a_custom_state_nobody_can_read_is_skipped_and_what_it_carries_stays_missing() {
    let [mut a, mut c] = replicas([1, 2]);
    a.note("k", 1, FOREVER);
    sync(&a, &mut c);
    a.note("k", 2, FOREVER);
    let written = c.note("k", 3, FOREVER);
    let garble = |batch: &mut Batch| {
        for custom in batch.fragments.iter_mut().filter_map(|f| f.custom.as_mut()) {
            custom.state = Payload::Value(Bytes::from_static(b"\xc1"));
        }
    };
    let replica::Mail::Batch(head, mut batch) = c.batch(&Ctx::default()) else { unreachable!() };
    garble(&mut batch);
    let applied = a.store.lock(PART).unwrap().apply(head.from, &batch, &a.around()).unwrap();
    assert_eq!((applied.quarantined, a.ctx().has(written.dot)), (1, false));
    let replica::Mail::Full(head, mut full) = c.full() else { unreachable!() };
    garble(&mut full.batch);
    let applied = a.store.lock(PART).unwrap().apply_full(head.from, &full, &a.around()).unwrap();
    assert_eq!((applied.quarantined, a.ctx().has(written.dot)), (1, false));
    assert_eq!(a.noted("k", 0), Some([1, 2].into()));
    sync(&c, &mut a);
    assert_eq!(a.noted("k", 0), Some([1, 2, 3].into()), "what can be read comes again and is taken");
}

#[test]
fn more_writes_than_the_counter_holds_in_one_millisecond_stay_in_order_everywhere() {
    let [mut a, mut x] = replicas([1, 2]);
    let first = a.set("k", &b("first"), FOREVER).stamp;
    let last = (0..70_000).map(|_| a.set("k", &b("v"), FOREVER).stamp).last().unwrap();
    assert!(last > first && last.hlc > Hlc::from_ms(1_001));
    a.set("k", &b("last"), FOREVER);
    sync(&a, &mut x);
    // X's wall clock is behind A's stamps now, and it still writes above them.
    x.set("k", &b("after"), FOREVER);
    sync_all(&mut [&mut a, &mut x], 1);
    assert!([&a, &x].iter().all(|r| r.get("k", 0) == Some(b("after"))));
}

#[test]
fn a_clock_that_steps_back_still_writes_above_what_it_wrote() {
    let [mut a, mut x] = replicas([1, 2]);
    a.clock_ms = 3_600_000;
    a.set("k", &b("1"), FOREVER);
    a.clock_ms = 1_000;
    a.set("k", &b("2"), FOREVER);
    sync(&a, &mut x);
    x.delete("k");
    sync(&x, &mut a);
    assert_eq!(a.get("k", 0), None);
}

#[test]
fn a_report_that_overtakes_the_data_makes_nothing_in_flight_come_back() {
    let [mut a, mut x] = replicas([1, 2]);
    x.clock_ms = 990;
    x.set("k", &b("older"), FOREVER);
    let in_flight = x.batch(&Ctx::default());
    a.delete("k");
    sync(&a, &mut x);
    a.store.lock(PART).unwrap().report(ReplicaId(2), &x.ctx());
    later(&mut [&mut a], LONG);
    assert!(a.entries().is_empty(), "X has the deletion, so A may collect it");
    assert_eq!(a.deliver(&in_flight), Some(Err(Refused::Stale)));
    settle(&mut [&mut a, &mut x]);
    assert!([&a, &x].iter().all(|r| r.get("k", 0).is_none()));
}

#[test]
fn a_batch_cut_anywhere_is_completed_by_the_rest_in_any_order() {
    let [a, mut x] = replicas([1, 2]);
    for name in ["f", "g", "h"] {
        a.put("m", field(name), &b(name), FOREVER);
    }
    let mut cuts: Vec<_> = (0..3)
        .map(|skip| {
            let mut known = Ctx::default();
            (1..=skip).for_each(|seq| known.add(replica::dot(1, seq)));
            a.batch_within(&known, ONE)
        })
        .collect();
    cuts.reverse();
    cuts.iter().for_each(|cut| drop(x.deliver(cut)));
    assert_eq!((x.ctx(), x.entries()), (a.ctx(), a.entries()));
}

#[test]
fn clearing_a_map_of_a_thousand_fields_is_one_fragment_and_leaves_nothing() {
    let [mut a, mut x] = replicas([1, 2]);
    for i in 0..1_000 {
        a.put("m", field(&i.to_string()), &b("v"), FOREVER);
    }
    sync(&a, &mut x);
    let known = a.ctx();
    a.clear("m").unwrap();
    let replica::Mail::Batch(_, batch) = a.batch(&known) else { unreachable!() };
    assert_eq!(batch.fragments.len(), 1);
    settle(&mut [&mut a, &mut x]);
    assert!(a.entries().is_empty() && x.entries().is_empty());
}

#[test]
fn a_hundred_writers_of_one_field_agree_on_the_last_and_keep_one() {
    let ids: [u64; 100] = (1..=100).collect::<Vec<_>>().try_into().unwrap();
    let mut writers = replicas(ids);
    for w in &writers {
        w.put("m", field("f"), &b(&w.id.0.to_string()), FOREVER);
    }
    let (hub, rest) = writers.split_first_mut().unwrap();
    rest.iter().for_each(|w| sync(w, hub));
    assert_eq!(hub.tree("m").siblings(&field("f")).len(), 100);
    assert_eq!(hub.read("m", &field("f"), 0), Some(b("100")), "equal clocks: the larger id wins");
    hub.put("m", field("f"), &b("last"), FOREVER);
    for w in rest {
        sync(hub, w);
        assert_eq!((w.tree("m"), w.ctx()), (hub.tree("m"), hub.ctx()));
    }
    assert_eq!(hub.tree("m").siblings(&field("f")).len(), 1);
}

#[test]
fn an_answer_says_what_may_have_cleared_a_register_that_is_not_there() {
    let [a, x] = replicas([1, 2]);
    x.set("k", &b("v"), FOREVER);
    a.store.clock().observe(x.store.clock().last());
    a.invalidate(&Selector::Prefix(String::new()));
    a.invalidate(&Selector::All);
    let at = KeyRef::new(&a.regs, b"k");
    let answer = a.store.read(PART).unwrap().capture_answer(&at, &Ctx::default());
    assert!(a.cell("k").is_none() && answer.fragments.len() == 2, "{answer:?}");
    let applied = x.store.lock(PART).unwrap().apply(a.id, &answer, &x.around()).unwrap();
    assert!(applied.is_whole() && x.get("k", 0).is_none());
    assert!(x.ctx().includes(&a.ctx()), "it knows why");
}
