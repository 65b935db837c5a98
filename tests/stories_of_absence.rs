//! Stories of R-ABSENCE: what a full synchronisation takes away because its sender has seen it and has it no more.
//!
//! J copied everything from E, which died at once. D and X, who never heard of J, delete and forget. Then J is
//! synchronised by D: what D has seen and lacks goes, what D has stays as it is, what D has not seen stays too.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "support/replica.rs"]
mod replica;

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless::store::Keyspace;
use replica::{COLLECT_AFTER_MS, FOREVER, Mail, Replica, b, dot, field, later, member, sync_all};

const LONG: u64 = 10 * COLLECT_AFTER_MS;

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
