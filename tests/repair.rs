//! Stories of copies that lost something silently, and of what comparing them costs.
//!
//! Each side's messages go through the wire's encoder and decoder, as between two processes.

#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a message that is not expected fails the test, whichever it is")]

#[path = "repair/asked.rs"]
mod asked;
#[path = "support/replica.rs"]
mod replica;
#[path = "support/simulated.rs"]
mod simulated;

use driftless::clock::{Hlc, Mono};
use driftless::id::ReplicaId;
use driftless::repair::session::{At, OPEN_MAX};
use driftless::repair::{Found, Session};
use driftless::sim::{Profile, run_checked};
use driftless::store::{Around, Batch, Budget, Family, Gate, Intent, KeyRef, Keyspace, Selector, Store, StoreConfig};
use driftless::wire::{Control, Decoder, Encoder, Frame, Limits, Part, Repair, Restore};
use replica::{FOREVER, PART, Replica, b, field, later, member, replicas, residue, sync_all};

const ALL: Budget = Budget { fragments: usize::MAX, bytes: usize::MAX };

/// Two replicas that compare their copies.
struct Pair<'a> {
    sides: [&'a Replica; 2],
    sessions: [Session; 2],
    now: Mono,
    found: Vec<Found>,
    /// Messages one after the other that waited for each other.
    trips: u32,
    overhead: usize,
    restored: u64,
}

impl<'a> Pair<'a> {
    fn new(a: &'a Replica, x: &'a Replica) -> Self {
        let sessions = [Session::default(), Session::default()];
        Self { sides: [a, x], sessions, now: Mono(0), found: Vec::new(), trips: 0, overhead: 0, restored: 0 }
    }

    fn at(&self, side: usize) -> At<'a> {
        let replica = self.sides[side];
        let visible_ms = replica.store.clock().visible_ms(replica.clock_ms);
        At { mono: self.now, visible_ms, store: &replica.store }
    }

    /// Compares until nobody has anything to say; returns what was found.
    fn compare(&mut self, salt: u64) -> Vec<Found> {
        let at = self.at(0);
        let mut said: Vec<(usize, Repair)> =
            self.sessions[0].verify(at, salt).into_iter().map(|message| (1, message)).collect();
        loop {
            let mut replies = Vec::new();
            for (to, message) in said {
                let message = self.carried(message);
                let at = self.at(to);
                let step = self.sessions[to].on(at, message);
                for (id, compared) in step.compared {
                    let mut partition = self.sides[to].store.lock(id).unwrap();
                    partition.note_compared(self.sides[1 - to].id, compared);
                }
                self.found.extend(step.found);
                replies.extend(step.send.into_iter().map(|message| (1 - to, message)));
            }
            let given = self.give();
            self.trips += u32::from(!replies.is_empty() || given);
            if replies.is_empty() && !given {
                return std::mem::take(&mut self.found);
            }
            said = replies;
        }
    }

    fn carried(&mut self, message: Repair) -> Repair {
        let bytes = Encoder::default().encode_control(&Control::Repair(message)).unwrap();
        self.overhead += bytes.len();
        match Decoder::default().decode_control(&bytes, &Limits::default()).unwrap() {
            Control::Repair(message) => message,
            other => panic!("{other:?} is no repair message"),
        }
    }

    fn give(&mut self) -> bool {
        let mut any = false;
        for from in [0, 1] {
            while let Some(gift) = self.sessions[from].next_gift(&self.sides[from].store) {
                any = true;
                let answers = self.take(1 - from, gift);
                self.take(from, answers);
            }
        }
        any
    }

    fn take(&mut self, to: usize, gift: Restore) -> Restore {
        let (from, replica) = (self.sides[1 - to], self.sides[to]);
        let hlc = Hlc(u64::MAX >> 8);
        let frame = Frame { from: from.id, hlc, parts: vec![Part::Restore(gift)] };
        let bytes = Encoder::default().encode_frame(&frame, from.store.spaces()).unwrap();
        let frame = Decoder::default().decode_frame(&bytes, replica.store.spaces(), &Limits::default()).unwrap();
        let Some(Part::Restore(gift)) = frame.parts.into_iter().next() else { panic!("a gift stays one") };
        let frozen = self.sessions[to].frozen(PART).unwrap();
        let around = Around { spaces: replica.store.spaces(), collect_before_ms: 0 };
        let restored = replica.store.lock(PART).unwrap().restore(frozen, &gift.fragments, &around);
        self.restored += restored.keys;
        Restore {
            partition: PART,
            is_answer: true,
            fragments: if gift.is_answer { Vec::new() } else { restored.answers },
        }
    }

    /// Compares until both are verified; returns how many keys differed.
    fn mend(&mut self) -> u64 {
        let differed: u64 =
            self.compare(1).iter().map(|f| if let Found::Differs(_, keys) = f { *keys } else { 0 }).sum();
        assert_eq!(self.verified(), 2, "both sides know that the copies are equal");
        assert_eq!(self.sides[0].entries(), self.sides[1].entries());
        differed
    }

    fn verified(&mut self) -> usize {
        self.compare(2).iter().filter(|found| matches!(found, Found::Verified(_))).count()
    }
}

/// Memory fails.
fn lose(r: &Replica, space: &Keyspace, key: &str) {
    let at = KeyRef::new(space, key.as_bytes());
    r.store.lock(PART).unwrap().lose(at.hash, r.store.spaces());
}

/// Everything `from` has of its own goes to `to`, whose memory loses the values on the way: the context advances.
fn sync_losing_state(from: &Replica, to: &Replica) {
    let mut batch: Batch = from.store.read(PART).unwrap().capture_lacking(&to.ctx(), ALL).batch;
    for fragment in &mut batch.fragments {
        fragment.cell = None;
        fragment.custom = None;
    }
    let around = Around { spaces: to.store.spaces(), collect_before_ms: 0 };
    to.store.lock(PART).unwrap().apply(from.id, &batch, &around).unwrap();
}

fn written() -> [Replica; 2] {
    let [mut a, mut x] = replicas([1, 2]);
    for n in 0..40 {
        a.set(&format!("k{n}"), &b("v"), FOREVER);
        x.put(&format!("m{n}"), field("f"), &b("v"), FOREVER);
    }
    a.put("m0", member("s"), &b(""), FOREVER);
    a.increment("m1", "n", 5, FOREVER);
    x.increment("m1", "n", -2, FOREVER);
    x.note("c", 7, FOREVER);
    sync_all(&mut [&mut a, &mut x], 2);
    [a, x]
}

#[test]
fn copies_that_are_equal_are_verified_by_both_in_one_round_trip_and_nine_bytes() {
    let [a, x] = written();
    let mut pair = Pair::new(&a, &x);
    assert_eq!(pair.compare(1), [Found::Verified(PART), Found::Verified(PART)]);
    assert_eq!((pair.trips, pair.restored), (1, 0));
    assert!(pair.overhead <= 48, "{} bytes", pair.overhead);
}

#[test]
fn of_very_many_partitions_that_differ_so_many_are_told_of_at_a_time() {
    let stores = [1, 2].map(|id| {
        let config = StoreConfig { partitions: 2 * OPEN_MAX, ..Replica::new(id, &[]).store.config().clone() };
        Store::new(ReplicaId(id), config)
    });
    stores[0].set_gate(Gate::Open);
    let space = stores[0].spaces().open("regs", Family::Register).unwrap();
    for n in 0..4_000 {
        let key = format!("k{n}");
        let (at, intent) = (KeyRef::new(&space, key.as_bytes()), Intent { wall_ms: 0, value_len: None });
        stores[0].write(&at, intent, |p, tick| p.set(&at, b("v"), FOREVER, tick)).unwrap();
    }
    let at = |side: usize| At { mono: Mono(0), visible_ms: stores[side].clock().visible_ms(0), store: &stores[side] };
    let mut sessions = [Session::default(), Session::default()];
    let questions = sessions[0].verify(at(0), 1);
    let said: Vec<Repair> = questions.into_iter().flat_map(|asked| sessions[1].on(at(1), asked).send).collect();
    let snapshots = said.iter().filter(|message| matches!(message, Repair::Snapshot(_))).count();
    let equal = |message: &Repair| if let Repair::Answer { equal, .. } = message { equal.clone() } else { Vec::new() };
    let equal: Vec<bool> = said.iter().flat_map(equal).collect();
    assert_eq!((snapshots, equal), (OPEN_MAX, vec![false; 2 * OPEN_MAX]));
}

#[test]
fn an_answer_to_an_earlier_question_says_nothing_of_what_came_since() {
    let [a, x] = written();
    let mut pair = Pair::new(&a, &x);
    let at = pair.at(0);
    let mut asked = |salt| pair.sessions[0].verify(at, salt).into_iter().next().unwrap();
    let (first, second) = (asked(1), asked(2));
    for (question, counts) in [(first, false), (second, true)] {
        let answer = pair.sessions[1].on(pair.at(1), question).send.into_iter().next().unwrap();
        let step = pair.sessions[0].on(at, answer);
        assert_eq!((step.found == [Found::Verified(PART)], step.compared.is_empty()), (counts, !counts));
    }
}

#[test]
fn what_one_copy_lost_is_given_back_whatever_it_was_and_whoever_asks() {
    for (by, other) in [(0, 1), (1, 0)] {
        let all = written();
        let (loser, whole) = (&all[by], &all[other]);
        let before = whole.entries();
        lose(loser, &loser.regs, "k7");
        lose(loser, &loser.maps, "m0");
        lose(loser, &loser.maps, "m1");
        lose(loser, &loser.customs, "c");
        let mut pair = Pair::new(&all[0], &all[1]);
        assert_eq!((pair.mend(), pair.restored), (4, 4));
        assert_eq!(whole.entries(), before, "nothing was taken from the whole copy");
        assert_eq!(loser.get("k7", 1), Some(b("v")));
        assert_eq!(loser.count("m1", "n", 1), 3);
    }
}

#[test]
fn a_write_that_was_lost_while_its_event_was_noted_is_made_up_for_by_the_newer_version() {
    let [mut a, x] = written();
    a.clock_ms += 5;
    a.set("k3", &b("new"), FOREVER);
    sync_losing_state(&a, &x);
    assert_eq!((a.ctx() == x.ctx(), x.get("k3", 1)), (true, Some(b("v"))));
    let mut pair = Pair::new(&a, &x);
    assert_eq!(pair.mend(), 1);
    assert_eq!(x.get("k3", 1), Some(b("new")));
}

#[test]
fn a_deletion_that_was_lost_is_made_up_for_by_its_tombstone() {
    for turned in [false, true] {
        let [mut a, x] = written();
        a.clock_ms += 5;
        a.delete("k3");
        sync_losing_state(&a, &x);
        let mut pair = if turned { Pair::new(&x, &a) } else { Pair::new(&a, &x) };
        assert_eq!(pair.mend(), 1);
        assert_eq!((a.get("k3", 1), x.get("k3", 1)), (None, None));
    }
}

/// Everything reported, and older than graves need to be.
fn much_later(a: &mut Replica, x: &mut Replica) {
    sync_all(&mut [a, x], 2);
    later(&mut [a, x], 60_000);
}

#[test]
fn a_tombstone_stays_until_a_comparison_has_shown_that_nobody_lost_it() {
    for awaits in [false, true] {
        let [mut a, mut x] = written();
        if awaits {
            [&a, &x].into_iter().for_each(|r| r.store.wait_for_comparisons());
        }
        a.clock_ms += 5;
        a.delete("k3");
        sync_losing_state(&a, &x);
        much_later(&mut a, &mut x);
        let waiting = a.store.read(PART).unwrap().graves_waiting();
        Pair::new(&a, &x).compare(1);
        let shown = [a.get("k3", 1), x.get("k3", 1)];
        if awaits {
            assert_eq!((waiting, shown), (1, [None, None]), "the tombstone was there to prove it");
            assert_eq!(Pair::new(&x, &a).verified(), 2);
            much_later(&mut a, &mut x);
            assert_eq!((residue(&a), residue(&x)), (None, None));
        } else {
            assert_eq!((waiting, shown), (0, [Some(b("v")), Some(b("v"))]), "without it the copy that is left wins");
        }
    }
}

#[test]
fn graves_wait_for_every_member_and_only_comparisons_that_have_seen_them_count() {
    let [mut a, mut x] = written();
    a.store.wait_for_comparisons();
    assert_eq!(Pair::new(&a, &x).verified(), 2);
    a.clock_ms += 5;
    a.delete("k3");
    much_later(&mut a, &mut x);
    assert_eq!(a.store.read(PART).unwrap().graves_waiting(), 1, "the comparison was before it");
    a.members.insert(ReplicaId(3));
    assert_eq!(Pair::new(&a, &x).verified(), 2);
    a.collect();
    assert_eq!(a.store.read(PART).unwrap().graves_waiting(), 1, "another member has not been asked");
    a.remove_member(3);
    a.members.remove(&ReplicaId(3));
    a.collect();
    assert_eq!(Pair::new(&a, &x).verified(), 2);
    a.collect();
    assert_eq!(residue(&a), None);
}

#[test]
fn an_invalidation_that_was_lost_is_made_up_for_by_its_epoch() {
    let [mut a, x] = written();
    a.clock_ms += 5;
    a.invalidate(&Selector::All);
    sync_losing_state(&a, &x);
    assert!(x.get("k3", 1).is_some());
    let mut pair = Pair::new(&x, &a);
    pair.compare(1);
    assert!((0..40).all(|n| x.get(&format!("k{n}"), 1).is_none() && a.get(&format!("k{n}"), 1).is_none()));
    assert_eq!(pair.verified(), 2);
}

#[test]
fn what_is_still_on_its_way_is_undone_and_what_one_has_not_seen_is_waited_for() {
    let [a, x] = written();
    a.set("k1", &b("later"), FOREVER);
    a.remove("m2", &field("f"));
    let mut pair = Pair::new(&a, &x);
    assert_eq!(pair.compare(1), [Found::Verified(PART)], "the asker has seen more and undoes it");
    let mut other = Pair::new(&x, &a);
    assert_eq!(other.compare(1), [], "the asker has seen less and waits");
    let batch = a.store.read(PART).unwrap().capture_lacking(&x.ctx(), ALL).batch;
    let around = Around { spaces: x.store.spaces(), collect_before_ms: 0 };
    x.store.lock(PART).unwrap().apply(a.id, &batch, &around).unwrap();
    let at = other.at(0);
    assert_eq!(other.sessions[0].tick(at).found, [Found::Verified(PART)]);
    assert_eq!(pair.restored + other.restored, 0);
}

#[test]
fn a_loss_shows_among_writes_that_are_on_their_way() {
    let [a, x] = written();
    lose(&x, &x.regs, "k9");
    a.set("k1", &b("later"), FOREVER);
    let mut pair = Pair::new(&a, &x);
    assert!(pair.compare(1).contains(&Found::Differs(PART, 1)));
    assert_eq!((pair.restored, x.get("k9", 1)), (1, Some(b("v"))));
    assert_eq!(x.get("k1", 1), Some(b("v")), "what is on its way is left to go it");
}

#[test]
fn what_ends_soon_does_not_count_whoever_has_swept_it() {
    let [mut a, mut x] = replicas([1, 2]);
    a.set("short", &b("v"), 50);
    a.set("long", &b("v"), 1_000_000);
    sync_all(&mut [&mut a, &mut x], 2);
    a.clock_ms += 100;
    a.expire();
    let mut pair = Pair::new(&a, &x);
    assert_eq!(pair.compare(1), [Found::Verified(PART), Found::Verified(PART)]);
}

#[test]
fn a_table_that_has_grown_on_one_side_only_is_compared_with_the_smaller_one() {
    let [a, x] = written();
    // Keys that come and go make one table larger.
    (0..400).for_each(|n| _ = x.put(&format!("t{n}"), field("f"), &b("v"), FOREVER));
    (0..400).for_each(|n| _ = x.remove(&format!("t{n}"), &field("f")));
    let mut all = [a, x];
    {
        let [a, x] = &mut all;
        sync_all(&mut [a, x], 2);
    }
    let [a, x] = all;
    lose(&a, &a.regs, "k5");
    for (from, to) in [(&a, &x), (&x, &a)] {
        let mut pair = Pair::new(from, to);
        pair.mend();
        lose(&x, &x.regs, "k6");
    }
}

#[test]
fn a_host_that_loses_part_of_what_it_holds_has_it_back_in_every_run() {
    let profile = Profile::named("damage").unwrap();
    for seed in 0..30 {
        let report = run_checked(&profile.plan(seed), false);
        assert_eq!(report.failure, None, "seed {seed}");
    }
}
