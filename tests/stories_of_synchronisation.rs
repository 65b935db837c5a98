//! Stories of full synchronisation: of logs that dropped what a peer lacks, and of R-ABSENCE, what a full synchronisation
//! takes away because its sender has seen it and has it no more.
//!
//! Each test is one history; its name says what must hold.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/replica.rs"]
mod replica;

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless::crdt::Ctx;
use driftless::store::Keyspace;
use driftless::wire::{Encoder, Frame, Part};
use replica::{FOREVER, LONG, Mail, PART, Replica, b, dot, field, later, member, replicas, settle, sync, sync_all};

// ---- dropped logs and full synchronisation

#[test]
fn a_key_written_very_often_while_a_member_is_away_can_still_be_sent() {
    let [mut a, mut x, mut away] = replicas([1, 2, 3]);
    let often = 140_000;
    for n in 1..=often {
        a.increment("m", "n", 1, FOREVER);
        // The one who is there keeps up.
        if n % 20_000 == 0 {
            sync(&a, &mut x);
            sync(&x, &mut a);
            a.collect();
        }
    }
    for mail in [a.batch(&Ctx::default()), a.full()] {
        let (Mail::Batch(head, batch) | Mail::Full(head, driftless::store::Full { batch, .. })) = mail;
        let frame = Frame { from: a.id, hlc: head.hlc, parts: vec![Part::Batch(batch)] };
        let sent = Encoder::default().encode_frame(&frame, a.store.spaces()).map(|bytes| bytes.len());
        assert!(sent.is_ok_and(|len| len < 1_000), "{sent:?}");
    }
    sync(&a, &mut away);
    assert_eq!(away.count("m", "n", 0), often);
    settle(&mut [&mut a, &mut x, &mut away]);
    assert!([&a, &x, &away].iter().all(|r| r.count("m", "n", 0) == often));
}

#[test]
fn a_peer_behind_a_truncated_log_is_synchronised_in_full() {
    let [mut a, mut x] = replicas([1, 2]);
    a.put("m", field("f"), &b("1"), FOREVER);
    sync(&a, &mut x);
    a.remove("m", &field("f")).unwrap();
    a.set("k", &b("v"), FOREVER);
    a.delete("gone");
    a.drop_log(usize::MAX);
    assert_eq!(a.log_len(), 0);
    assert!(!a.can_increment(&x.ctx()));
    settle(&mut [&mut a, &mut x]);
    assert_eq!((x.read("m", &field("f"), 0), x.get("k", 0)), (None, Some(b("v"))));
    assert_eq!((a.entries(), a.ctx()), (x.entries(), x.ctx()));
}

#[test]
fn the_log_never_exceeds_its_limit_and_a_peer_still_gets_everything() {
    let mut a = Replica::with_log(1, &[1, 2], 16);
    let mut x = Replica::with_log(2, &[1, 2], 16);
    for i in 0..100 {
        a.set(&format!("k{i}"), &b("v"), FOREVER);
        assert!(a.log_len() <= 16);
    }
    settle(&mut [&mut a, &mut x]);
    assert_eq!((x.entries(), x.log_len()), (a.entries(), 0));
}

#[test]
fn a_tombstone_whose_log_record_was_dropped_stays_until_every_member_has_it() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("k", &b("v"), FOREVER);
    sync(&a, &mut x);
    a.delete("k");
    a.drop_log(usize::MAX);
    later(&mut [&mut a], LONG);
    assert!(a.cell("k").is_some_and(|c| c.is_grave()));
    settle(&mut [&mut a, &mut x]);
    assert!(a.entries().is_empty() && x.entries().is_empty());
}

/// What it has seen and is stable it has, or has seen it go.
#[test]
fn a_member_behind_a_truncated_log_is_given_what_has_changed_since_and_nothing_else() {
    let [mut a, mut x, mut away] = replicas([1, 2, 3]);
    for n in 0..100 {
        a.set(&format!("k{n}"), &b("v"), FOREVER);
    }
    a.put("m", field("f"), &b("1"), FOREVER);
    a.put("n", field("f"), &b("1"), FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut away], 3);
    a.collect();
    a.clock_ms += 1;
    a.set("k7", &b("w"), FOREVER);
    a.delete("k8");
    a.remove("m", &field("f")).unwrap();
    sync_all(&mut [&mut a, &mut x], 2);
    a.drop_log(usize::MAX);
    assert!(!a.can_increment(&away.ctx()));
    let Mail::Full(_, full) = a.full_for(&away.ctx()) else { unreachable!("it was asked for") };
    let given: BTreeSet<&[u8]> = full.batch.fragments.iter().map(|f| f.key.as_ref()).collect();
    assert_eq!((full.is_rest, given), (true, [&b"k7"[..], b"k8", b"m"].into()));
    assert!(away.deliver(&a.full_for(&away.ctx())).unwrap().is_ok());
    assert_eq!((away.get("k7", 0), away.get("k8", 0), away.get("k9", 0)), (Some(b("w")), None, Some(b("v"))));
    assert_eq!((away.read("m", &field("f"), 0), away.read("n", &field("f"), 0)), (None, Some(b("1"))));
    let Mail::Full(_, full) = away.full_for(&x.ctx()) else { unreachable!("it was asked for") };
    assert!(!full.is_rest, "of what was taken in with a floor it cannot tell");
    let Mail::Full(_, full) = a.full_for(&Ctx::default()) else { unreachable!("it was asked for") };
    assert!(!full.is_rest && full.batch.fragments.len() >= 102, "who has nothing is given everything");
    settle(&mut [&mut a, &mut x, &mut away]);
    assert_eq!(a.entries(), away.entries());
}

#[test]
fn a_full_synchronisation_hands_over_the_floor() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.put("m", field("f"), &b("1"), FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut c], 1);
    a.remove("m", &field("f")).unwrap();
    a.drop_log(usize::MAX);
    sync(&a, &mut x);
    assert!(x.ctx().has(dot(1, 2)) && x.log_len() == 1, "X has the removal, but no record of it");
    assert!(!x.can_increment(&c.ctx()), "so X may not send C increments either");
    drop(a);
    x.put("m", field("g"), &b("2"), FOREVER);
    sync(&x, &mut c);
    assert_eq!((c.read("m", &field("f"), 0), c.read("m", &field("g"), 0)), (None, Some(b("2"))));
}

#[test]
fn a_full_synchronisation_hands_over_what_was_found_stable_and_drains_the_log() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.set("k", &b("v"), FOREVER);
    let old = a.batch(&Ctx::default());
    sync_all(&mut [&mut a, &mut x, &mut c], 2);
    a.clock_ms += 1;
    a.delete("k");
    sync_all(&mut [&mut a, &mut x], 2);
    sync(&a, &mut c);
    sync(&c, &mut a);
    a.collect();
    assert!(a.frontier().has(dot(1, 2)) && !x.frontier().has(dot(1, 2)));
    x.deliver(&a.full());
    sync(&c, &mut x);
    assert!(x.frontier().has(dot(1, 2)) && x.log_len() > 0);
    x.collect();
    assert_eq!(x.log_len(), 0, "it is stable already, and goes all the same");
    assert!(x.deliver(&old).unwrap().is_err(), "what predates it is stale here too");
    settle(&mut [&mut a, &mut x, &mut c]);
}

#[test]
fn a_full_synchronisation_collects_nothing_before_it_has_inherited_the_floor() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    c.set("k", &b("v"), FOREVER);
    c.increment("m", "n", 6, FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut c], 2);
    later(&mut [&mut a, &mut x, &mut c], 1);
    let old = c.full();
    a.delete("k");
    a.reset("m", "n").unwrap();
    a.drop_log(usize::MAX);
    x.clock_ms += LONG;
    x.deliver(&a.full());
    // C has seen neither; what it says must meet the tombstone and the floors at X.
    x.deliver(&old);
    assert_eq!((x.get("k", 0), x.count("m", "n", 0)), (None, 0));
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!(a.entries().is_empty() && x.entries().is_empty() && c.entries().is_empty());
}

/// A's map was emptied and its log dropped, then one field came back and became stable.
#[test]
fn a_map_with_dropped_unstable_records_is_not_evicted_even_if_it_was_empty_meanwhile() {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    c.put("m", field("f"), &b("1"), FOREVER);
    sync_all(&mut [&mut a, &mut x, &mut c], 2);
    a.remove("m", &field("f")).unwrap();
    a.drop_log(usize::MAX);
    let again = c.batch(&Ctx::default());
    a.deliver(&again);
    let put = c.put("m", field("g"), &b("2"), FOREVER);
    a.deliver(&c.own_batch(&Ctx::default(), replica::ALL));
    for member in [&x, &c] {
        let mut seen = member.ctx();
        seen.add(put.dot);
        a.store.lock(PART).unwrap().report(member.id, &seen);
    }
    later(&mut [&mut a], LONG);
    assert!(!a.evict(&a.maps, "m"), "a hole would not tell X and C that the field was removed");
    sync(&a, &mut x);
    assert_eq!(x.read("m", &field("f"), 0), None);
}

/// A sees the end of a counter that `touch` has extended where A has not heard of it, and gives C all it has.
fn survives_who_saw_it_end(touch: impl FnOnce(&mut Replica, &mut Replica)) {
    let [mut a, mut x, mut c] = replicas([1, 2, 3]);
    a.increment("m", "n", 4, 1_100);
    sync_all(&mut [&mut a, &mut x, &mut c], 2);
    touch(&mut x, &mut c);
    a.clock_ms = 1_200;
    a.collect();
    a.expire();
    later(&mut [&mut a], LONG);
    a.expire();
    assert_eq!(a.tree("m").counter(b"n"), None);
    c.deliver(&a.full());
    settle(&mut [&mut a, &mut x, &mut c]);
    assert!([&a, &x, &c].iter().all(|r| r.count("m", "n", 9_999) == 4));
}

#[test]
fn a_touched_counter_the_sender_has_not_seen_touched_survives_its_full_synchronisation() {
    survives_who_saw_it_end(|x, c| {
        x.touch_counter("m", "n", FOREVER).unwrap();
        sync(x, c);
    });
}

#[test]
fn a_touched_counter_survives_a_full_synchronisation_also_when_the_record_of_the_touch_was_dropped() {
    survives_who_saw_it_end(|_, c| {
        c.touch_counter("m", "n", FOREVER).unwrap();
        c.drop_log(usize::MAX);
    });
}

// ---- absence
//
// J copied everything from E, which died at once. D and X, who never heard of J, delete and forget. Then J is synchronised
// by D: what D has seen and lacks goes, what D has stays as it is, what D has not seen stays too.

/// Returns D and J as they are when D has forgotten what `forgets` deletes.
fn donor_and_joiner(writes: impl Fn(&mut Replica, &mut Replica), forgets: impl Fn(&Replica)) -> (Replica, Replica) {
    let [mut d, mut x, mut e] = [1, 2, 3].map(|id| Replica::new(id, &[1, 2, 3]));
    writes(&mut d, &mut x);
    sync_all(&mut [&mut d, &mut x, &mut e], 3);
    let mut j = e.joined_by(4);
    drop(e);
    forgets(&d);
    d.remove_member(3);
    x.remove_member(3);
    sync_all(&mut [&mut d, &mut x], 3);
    later(&mut [&mut d, &mut x, &mut j], LONG);
    d.expire();
    d.collect();
    (d, j)
}

/// The keys of a keyspace that somebody who watches it is told of.
fn told(at: &mut Replica, mail: &Mail, space: fn(&Replica) -> &Keyspace) -> BTreeSet<Bytes> {
    space(at).watch();
    let changed = at.deliver(mail).unwrap().unwrap().changed;
    changed.into_iter().filter(|(id, _)| *id == space(at).id()).map(|(_, key)| key).collect()
}

#[test]
fn registers_the_donor_deleted_and_forgot_go_and_no_others() {
    let writes = |d: &mut Replica, _: &mut Replica| {
        ["gone", "kept", "touched"].iter().for_each(|key| _ = d.set(key, &b("v"), FOREVER));
    };
    let (d, mut j) = donor_and_joiner(writes, |d| _ = d.delete("gone"));
    assert!(d.cell("gone").is_none(), "nothing is left of it at D");
    j.set("unseen", &b("v"), FOREVER);
    j.touch("touched", FOREVER).unwrap();
    assert_eq!(told(&mut j, &d.full(), |r| &r.regs), BTreeSet::from([b("gone")]));
    let shown = ["gone", "kept", "touched", "unseen"].map(|key| j.get(key, 0).is_some());
    assert_eq!(shown, [false, true, true, true]);
}

#[test]
fn a_register_the_donor_has_not_seen_touched_stays() {
    let (d, mut j) = donor_and_joiner(|d, _| _ = d.set("k", &b("v"), FOREVER), |d| _ = d.delete("k"));
    j.touch("k", FOREVER).unwrap();
    assert!(told(&mut j, &d.full(), |r| &r.regs).is_empty());
    assert_eq!(j.get("k", 0), Some(b("v")));
}

#[test]
fn custom_states_the_donor_deleted_and_forgot_go_and_no_others() {
    let writes = |d: &mut Replica, _: &mut Replica| {
        ["gone", "kept", "added", "deleted"].iter().for_each(|key| _ = d.note(key, 1, FOREVER));
        d.delete_custom("deleted");
    };
    let (d, mut j) = donor_and_joiner(writes, |d| ["gone", "added"].iter().for_each(|key| _ = d.delete_custom(key)));
    assert!(d.custom("gone").is_none() && d.custom("deleted").is_none());
    assert!(j.custom("deleted").is_some_and(|c| c.is_grave()), "J still keeps what D no longer needs");
    j.note("added", 2, FOREVER);
    j.note("unseen", 2, FOREVER);
    assert_eq!(told(&mut j, &d.full(), |r| &r.customs), BTreeSet::from([b("gone")]));
    let held = ["gone", "kept", "added", "unseen"].map(|key| j.noted(key, 0).map(|items| items.len()));
    assert_eq!(held, [None, Some(1), Some(2), Some(1)]);
}

#[test]
fn a_map_the_donor_cleared_and_forgot_goes_but_for_what_the_donor_has_not_seen() {
    let writes = |d: &mut Replica, x: &mut Replica| {
        d.put("gone", field("f"), &b("1"), FOREVER);
        d.put("part", field("f"), &b("1"), FOREVER);
        x.put("gone", member("m"), &b(""), FOREVER);
    };
    let (d, mut j) = donor_and_joiner(writes, |d| ["gone", "part"].iter().for_each(|key| _ = d.clear(key)));
    assert!(d.entries().is_empty());
    j.put("part", field("g"), &b("2"), FOREVER);
    assert_eq!(told(&mut j, &d.full(), |r| &r.maps), BTreeSet::from([b("gone"), b("part")]));
    assert_eq!((j.read("gone", &field("f"), 0), j.read("gone", &member("m"), 0)), (None, None));
    assert_eq!((j.read("part", &field("f"), 0), j.read("part", &field("g"), 0)), (None, Some(b("2"))));
}

/// Of one counter, what one replica had counted, expired; another counter of the same map is as it was.
#[test]
fn of_a_counter_goes_what_the_donor_forgot_of_the_one_origin_and_nothing_else() {
    let writes = |d: &mut Replica, x: &mut Replica| {
        d.increment("m", "n", 3, 50);
        d.increment("m", "other", 5, FOREVER);
        x.increment("m", "n", 4, FOREVER);
    };
    let (d, mut j) = donor_and_joiner(writes, |_| ());
    assert_eq!((d.count("m", "n", 0), j.count("m", "n", 0)), (4, 7), "D swept what expired");
    assert_eq!(told(&mut j, &d.full(), |r| &r.maps), BTreeSet::from([b("m")]));
    assert_eq!((j.count("m", "n", 0), j.count("m", "other", 0)), (4, 5));
    assert!(j.ctx().has(dot(1, 1)));
}
