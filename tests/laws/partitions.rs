//! The laws of partitions: batches, fragments, full synchronisation, collection and expiry, on real stores.

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless::crdt::{Ctx, Path};
use driftless::id::ReplicaId;
use driftless::store::{Batch, Fragment};
use driftless::wire::{Decoder, Encoder, Frame, Limits, Part};
use proptest::prelude::*;

use crate::replica::{self, ALL, FOREVER, Mail, Replica, b, field, member, sync};
use crate::script::{Step, play, step};

fn scripts() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..40)
}

/// Equal states give equal fragments, and those equal bytes, which decode to what was encoded.
fn same_fragments(a: &Replica, o: &Replica) {
    let by_key = |r: &Replica| {
        let Mail::Full(_, full) = r.full() else { unreachable!("full() gives a full") };
        let mut batch = full.batch;
        batch.fragments.sort_by(|x, y| (x.keyspace.0, &x.key, &x.scope).cmp(&(y.keyspace.0, &y.key, &y.scope)));
        (full.floor, batch)
    };
    let (mine, theirs) = (by_key(a), by_key(o));
    assert_eq!(mine, theirs);
    let hlc = a.store.clock().last().max(o.store.clock().last());
    let frame = Frame { from: ReplicaId(0), hlc, parts: vec![Part::Batch(mine.1)] };
    let encode = |r: &Replica| Encoder::default().encode_frame(&frame, r.store.spaces()).unwrap();
    let bytes = encode(a);
    assert_eq!(bytes, encode(o));
    let decoded = Decoder::default().decode_frame(&bytes, o.store.spaces(), &Limits::default());
    assert_eq!(decoded, Ok(frame));
}

fn fresh() -> Replica {
    Replica::new(9, &[1, 2, 3, 9])
}

fn fragments_of(mail: &Mail) -> Vec<Fragment> {
    let (Mail::Batch(_, batch) | Mail::Full(_, driftless::store::Full { batch, .. })) = mail;
    batch.fragments.clone()
}

fn with_fragments(mail: &Mail, fragments: Vec<Fragment>) -> Mail {
    let Mail::Batch(head, batch) = mail else { unreachable!("only batches are cut") };
    Mail::Batch(head.clone(), Batch { fragments, ..batch.clone() })
}

fn assert_same(a: &Replica, o: &Replica) {
    assert_eq!((a.ctx(), a.entries()), (o.ctx(), o.entries()));
    same_fragments(a, o);
}

type View = (Vec<Option<Bytes>>, Vec<Option<Bytes>>, i64, Option<BTreeSet<u64>>);

fn view(r: &Replica, t: u64) -> View {
    let regs = ["r0", "r1"].map(|k| r.get(k, t)).to_vec();
    let paths = [field("a"), field("b"), member("a"), Path::Ttl];
    (regs, paths.iter().map(|p| r.read("m", p, t)).collect(), r.count("m", "n", t), r.noted("x", t))
}

proptest! {
    #[test]
    fn batches_in_either_order_and_repeated_give_one_state(steps in scripts()) {
        let world = play(&steps);
        let mails: Vec<Mail> = world.iter().map(|r| r.batch(&Ctx::default())).collect();
        let (mut one, mut two) = (fresh(), fresh());
        mails.iter().for_each(|m| drop(one.deliver(m)));
        mails.iter().chain(&mails).rev().for_each(|m| drop(two.deliver(m)));
        assert_same(&one, &two);
    }

    #[test]
    fn fragments_in_any_order_and_number_are_the_batch(
        steps in scripts(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let world = play(&steps);
        let mail = world[0].batch(&Ctx::default());
        let (mut whole, mut parts, all) = (fresh(), fresh(), fragments_of(&mail));
        whole.deliver(&mail);
        let some = order.iter().filter(|_| !all.is_empty()).map(|i| i.get(&all).clone());
        for fragment in some.chain(all.iter().rev().cloned()) {
            parts.deliver(&with_fragments(&mail, vec![fragment]));
        }
        assert_same(&whole, &parts);
    }

    #[test]
    fn a_coalesced_batch_is_its_single_events(steps in scripts()) {
        let world = play(&steps);
        let (mut whole, mut singles) = (fresh(), fresh());
        whole.deliver(&world[0].batch(&Ctx::default()));
        for _ in 0..200 {
            let one = driftless::store::Budget { fragments: 1, bytes: 1 };
            singles.deliver(&world[0].batch_within(&singles.ctx(), one));
        }
        assert_same(&whole, &singles);
    }

    #[test]
    fn a_full_synchronisation_is_all_fragments(steps in scripts()) {
        let world = play(&steps);
        let (mut full, mut batch) = (fresh(), fresh());
        full.deliver(&world[0].full());
        batch.deliver(&world[0].batch(&Ctx::default()));
        assert_same(&full, &batch);
    }

    #[test]
    fn equal_contexts_mean_equal_states_and_equal_fragments(steps in scripts()) {
        let mut world = play(&steps);
        let [a, o, c] = &mut world;
        replica::sync_all(&mut [a, o, c], 2);
        prop_assert_eq!(world[0].ctx(), world[1].ctx());
        assert_same(&world[0], &world[1]);
        assert_same(&world[1], &world[2]);
    }

    #[test]
    fn a_known_batch_changes_nothing(steps in scripts()) {
        let mut world = play(&steps);
        let [a, o, _] = &mut world;
        sync(o, a);
        let before = (a.ctx(), a.entries());
        let again = o.batch(&Ctx::default());
        let applied = a.deliver(&again).unwrap().unwrap();
        prop_assert_eq!((applied.news, (a.ctx(), a.entries())), (0, before));
    }

    #[test]
    fn collection_and_expiry_change_nothing_visible(steps in scripts()) {
        let mut world = play(&steps);
        let [a, o, c] = &mut world;
        replica::sync_all(&mut [a, o, c], 1);
        for r in &mut world {
            for ms in [0, 20, 5_000] {
                r.clock_ms += ms;
                let t = r.store.clock().visible_ms(r.clock_ms);
                let before = view(r, t);
                r.expire();
                prop_assert_eq!(view(r, t), before.clone());
                let frontier = r.frontier();
                r.collect();
                prop_assert_eq!(view(r, t), before);
                prop_assert!(r.frontier().includes(&frontier) && r.floor().includes(&r.frontier()));
                prop_assert!(r.ctx().includes(&r.floor()));
            }
        }
    }

    #[test]
    fn the_frontier_is_in_everybody_s_context(steps in scripts()) {
        let mut world = play(&steps);
        let [a, o, c] = &mut world;
        replica::sync_all(&mut [a, o, c], 1);
        world.iter().for_each(Replica::collect);
        for r in &world {
            prop_assert!(world.iter().all(|peer| peer.ctx().includes(&r.frontier())));
        }
    }
}

/// `ALL` is what "no budget" means everywhere above.
#[test]
fn an_unlimited_budget_leaves_nothing_behind() {
    let a = Replica::new(1, &[1]);
    for i in 0..2_000 {
        a.set(&i.to_string(), &b("v"), FOREVER);
    }
    let captured = a.store.read(replica::PART).map(|p| p.capture_own(0, ALL));
    assert!(captured.is_some_and(|c| !c.more && c.upto == 2_000 && c.batch.fragments.len() == 2_000));
}
