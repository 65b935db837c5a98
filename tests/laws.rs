//! The laws: what every join, context, fragment and clock must obey, whatever the history.
//!
//! States are built by random operations of random replicas, never by filling in fields at will:
//! a lattice law need only hold for states that can come to be. The types' laws are here and run on
//! the types; the store's are in `laws/partitions.rs` and run on real partitions. The `crdts` crate
//! is the reference where it has one: `laws/reference.rs`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a law stops where an assumption of its own fails, and its numbers are small"
)]

#[path = "laws/partitions.rs"]
mod partitions;
#[path = "laws/reference.rs"]
mod reference;
#[path = "support/replica.rs"]
mod replica;
#[path = "support/script.rs"]
mod script;

use std::collections::BTreeSet;

use crdts::{CmRDT, CvRDT, PNCounter, ResetRemove};
use driftless::clock::{Hlc, HlcClock, Stamp};
use driftless::crdt::custom::{Erased, decode, encode};
use driftless::crdt::{
    Cell, Counter, Ctx, Custom, Dot, Elem, Member, MemberSet, OrMap, Path, Payload, Profile, Scope, Seen, Tree,
};
use driftless::id::{NodeId, ReplicaId, Role};
use proptest::prelude::*;
use replica::{FOREVER, b, dot, field, member};

// ---- the types

fn ctxs() -> impl Strategy<Value = Ctx> {
    prop::collection::vec((1..4_u64, 1..12_u64, 0..3_u64), 0..8).prop_map(|ranges| {
        let mut ctx = Ctx::default();
        ranges.into_iter().for_each(|(r, from, len)| ctx.add_range(ReplicaId(r), from, from + len));
        ctx
    })
}

fn dots(ctx: &Ctx) -> BTreeSet<Dot> {
    (1..4).flat_map(|r| (1..16).map(move |seq| dot(r, seq))).filter(|d| ctx.has(*d)).collect()
}

/// Cells of one register: a stamp has one value, which some replicas hold only a stub of.
fn cells() -> impl Strategy<Value = Cell> {
    (1..4_u64, 1..3_u64, 1..4_u64, 1..4_u64, any::<bool>()).prop_map(|(ms, r, deadline, touch, stub)| {
        let tombstone = ms == 2;
        let payload = if tombstone { Payload::Tombstone } else { Payload::Value(b(&format!("{ms}.{r}"))) };
        let mut cell = Cell::new(payload, Hlc::from_ms(ms), dot(r, ms), 1);
        if touch > 1 && !tombstone {
            cell.extend(dot(touch, 9), deadline);
        }
        if stub {
            cell.forget();
        }
        cell
    })
}

/// Counters as random increments and resets of three origins leave them.
fn counters() -> impl Strategy<Value = Counter> {
    prop::collection::vec((1..4_u64, -3..5_i64, 0..4_u64), 0..8).prop_map(|steps| {
        let mut counter = Counter::default();
        for (seq, (origin, by, now)) in (1..).zip(steps) {
            if by == 0 {
                counter.reset(Dot { replica: ReplicaId(origin), seq });
            } else {
                counter.add(ReplicaId(origin), seq, by, now + 2, now);
            }
        }
        counter
    })
}

/// Custom states: origin `o`'s event number `n` adds one to its own side of a counter.
fn customs() -> impl Strategy<Value = Custom> {
    (1..3_u64, prop::collection::btree_map(1..4_u64, 1..4_u64, 1..4), 1..4_u64, any::<bool>()).prop_map(
        |(generation, merged, deadline, stub)| {
            let mut state = PNCounter::<u64>::new();
            for (origin, seq) in &merged {
                state.apply(state.inc_many(*origin, *seq));
            }
            let stamp = Stamp { hlc: Hlc::from_ms(generation), replica: ReplicaId(1) };
            let payload = Payload::Value(encode(&state).unwrap());
            let mut custom = Custom::new(stamp, dot(1, 1), payload, deadline);
            custom.merged = merged.into_iter().map(|(origin, seq)| (ReplicaId(origin), seq)).collect();
            if stub {
                custom.forget();
            }
            custom
        },
    )
}

/// Contexts of the replicas two nodes were, some of them folded.
fn folded_ctxs() -> impl Strategy<Value = Ctx> {
    let replica = || (1..3_u64, 1..6_u64).prop_map(|(tag, incarnation)| ReplicaId(tag << 41 | incarnation));
    let seen = prop::collection::vec((replica(), 1..4_u64), 0..6);
    (seen, prop::collection::vec(replica(), 0..3)).prop_map(|(seen, floors)| {
        let mut ctx = Ctx::default();
        seen.into_iter().for_each(|(replica, upto)| ctx.add_range(replica, 1, upto));
        floors.into_iter().for_each(|floor| ctx.fold(floor));
        ctx
    })
}

/// What may be known of the replicas three nodes were, one of them with ids made by hand and one an edge.
fn member_sets() -> impl Strategy<Value = MemberSet> {
    let replica = || (0..3_u64, 1..7_u64).prop_map(|(tag, incarnation)| ReplicaId(tag << 43 | incarnation));
    let ids = move || prop::collection::btree_set(replica(), 0..4);
    (ids(), ids(), ids(), ids(), ids(), 0..3_u64).prop_map(|(members, removed, orphans, expelled, floors, version)| {
        let mut set = MemberSet { orphans, expelled, ..MemberSet::default() };
        for replica in members {
            let is_edge = replica.0 >> 43 == 2;
            // Nothing follows the last word.
            let left = version == 2;
            let role = match (left, is_edge) {
                (true, _) => Role::Draining,
                (false, true) => Role::Edge,
                (false, false) => Role::Active,
            };
            let profile = Profile { version, role, is_edge, left, ..Profile::default() };
            set.add(replica, &Member { profile, ..Member::new(NodeId(uuid::Uuid::nil()), "eu".into(), 1, None) });
        }
        removed.into_iter().for_each(|replica| {
            set.remove(replica);
        });
        let floors = floors.into_iter().filter(|floor| floor.tag().is_ordered()).map(|floor| (floor.tag(), floor));
        set.join(&MemberSet { floors: floors.collect(), ..MemberSet::default() });
        set
    })
}

fn merged<T: CvRDT + Clone>(a: &T, b: &T) -> T {
    let mut joined = a.clone();
    joined.merge(b.clone());
    joined
}

fn semilattice<T: Clone + PartialEq + std::fmt::Debug>(join: impl Fn(&T, &T) -> T, a: &T, b: &T, c: &T) {
    assert_eq!(join(a, a), *a, "idempotent");
    assert_eq!(join(a, b), join(b, a), "commutative");
    assert_eq!(join(&join(a, b), c), join(a, &join(b, c)), "associative");
}

proptest! {
    #[test]
    fn contexts_are_a_semilattice_and_agree_with_plain_sets(a in ctxs(), o in ctxs(), c in ctxs()) {
        semilattice(merged, &a, &o, &c);
        let joined = merged(&a, &o);
        prop_assert_eq!(dots(&joined), dots(&a).union(&dots(&o)).copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(a.includes(&o), dots(&a).is_superset(&dots(&o)));
        let rebuilt = dots(&a).into_iter().rev().fold(Ctx::default(), |mut ctx, d| { ctx.add(d); ctx });
        prop_assert_eq!(&rebuilt, &a, "equal sets are equal values");
        for (replica, seen) in a.iter() {
            prop_assert_eq!(&Seen::new(seen.base(), seen.above()), seen);
            prop_assert_eq!(a.to_vclock().get(&replica), seen.base());
        }
    }

    #[test]
    fn folded_contexts_are_a_semilattice(a in folded_ctxs(), o in folded_ctxs(), c in folded_ctxs()) {
        semilattice(merged, &a, &o, &c);
        let joined = merged(&a, &o);
        for tag in 1..3 {
            for (n, seq) in (0..7).flat_map(|n| (1..5).map(move |seq| (n, seq))) {
                let at = Dot { replica: ReplicaId(tag << 41 | n), seq };
                prop_assert_eq!(joined.has(at), a.has(at) || o.has(at), "{:?}", at);
            }
        }
        prop_assert!(joined.includes(&a) && joined.includes(&o));
        for (replica, seen) in joined.iter() {
            prop_assert_eq!(joined.of(replica), Some(seen));
            let below = joined.iter().filter(|(other, _)| other.tag() == replica.tag() && *other < replica).count();
            prop_assert!(!seen.is_mark() || below == 0, "{:?}", joined);
        }
    }

    #[test]
    fn a_context_reset_by_a_clock_keeps_what_is_beyond_it(a in ctxs(), o in ctxs()) {
        let mut reset = a.clone();
        reset.reset_remove(&o.to_vclock());
        prop_assert!(a.includes(&reset));
        for (replica, seen) in a.iter() {
            prop_assert_eq!(reset.of(replica).is_some(), seen.max() > o.to_vclock().get(&replica));
        }
    }

    #[test]
    fn registers_are_a_semilattice(a in cells(), o in cells(), c in cells()) {
        prop_assert_eq!(a.validate_merge(&o), Ok(()));
        semilattice(merged, &a, &o, &c);
        let mut applied = a.clone();
        applied.apply(o.clone());
        prop_assert_eq!(applied, merged(&a, &o), "an operation is a state");
    }

    #[test]
    fn a_touch_is_its_own_delta(a in cells(), at in 1..6_u64, deadline in 1..6_u64) {
        let mut touched = a.clone();
        touched.extend(dot(at, 10), deadline);
        prop_assert_eq!(merged(&a, &touched), touched);
    }

    #[test]
    fn member_sets_are_a_semilattice_that_tells_what_is_news(a in member_sets(), o in member_sets(), c in member_sets()) {
        let join = |a: &MemberSet, b: &MemberSet| {
            let mut joined = a.clone();
            let changed = joined.join(b);
            assert_eq!(changed, joined != *a, "news is what changed");
            joined
        };
        semilattice(join, &a, &o, &c);
        let joined = join(&a, &o);
        let all = || (0..3_u64).flat_map(|tag| (1..7_u64).map(move |n| ReplicaId(tag << 43 | n)));
        for replica in all() {
            prop_assert_eq!(joined.is_removed(replica), a.is_removed(replica) || o.is_removed(replica), "{}", replica);
            prop_assert_eq!(joined.knows(replica), a.knows(replica) || o.knows(replica), "{}", replica);
        }
        let mut raised = joined.clone();
        raised.raise_floors();
        for replica in all() {
            prop_assert!(raised.get(replica) == joined.get(replica) && (raised.is_removed(replica) || !joined.is_removed(replica)));
        }
        prop_assert_eq!(join(&raised, &joined), raised, "what was folded is no news");
    }

    #[test]
    fn counters_are_a_semilattice(a in counters(), o in counters(), c in counters()) {
        semilattice(merged, &a, &o, &c);
    }

    #[test]
    fn custom_states_are_a_semilattice(a in customs(), o in customs(), c in customs()) {
        let merge = Erased::<PNCounter<u64>>::default();
        let join = |x: &Custom, y: &Custom| {
            let mut joined = x.clone();
            joined.join(y, Some(&merge)).unwrap();
            joined
        };
        semilattice(join, &a, &o, &c);
        let joined = join(&a, &o);
        if let Payload::Value(bytes) = &joined.state {
            let state: PNCounter<u64> = decode(bytes).unwrap();
            let claimed: u64 = joined.merged.values().sum();
            prop_assert_eq!(state.read(), claimed.into(), "the state holds exactly what `merged` names");
        }
    }

    #[test]
    fn clocks_only_go_up(steps in prop::collection::vec((0..2_usize, any::<bool>(), 0..9_u64), 1..60)) {
        let clocks = [HlcClock::default(), HlcClock::default()];
        let mut wall_max = 0;
        for (at, hears, wall_ms) in steps {
            wall_max = wall_max.max(wall_ms);
            if hears {
                let heard = clocks[1 - at].last();
                clocks[at].observe(heard);
                prop_assert!(clocks[at].tick(wall_ms) > heard, "what was heard lies before what follows");
            } else {
                let before = clocks[at].last();
                prop_assert!(clocks[at].tick(wall_ms) > before);
            }
            prop_assert!(clocks[at].last().ms() <= wall_max, "never ahead of every wall clock");
            prop_assert!(clocks[at].visible_ms(wall_ms) >= wall_ms);
        }
    }
}

#[test]
fn equal_times_of_two_replicas_are_ordered_by_replica() {
    let at = |replica| Stamp { hlc: Hlc::from_ms(5), replica: ReplicaId(replica) };
    assert!(at(1) < at(2) && Stamp { hlc: Hlc::from_ms(6), replica: ReplicaId(1) } > at(2));
}

// ---- the map and its deltas

/// Plays random operations on three maps; returns them and every delta.
fn maps(steps: &[(usize, u8, u8)]) -> ([OrMap; 3], Vec<OrMap>) {
    let (mut maps, mut deltas): ([OrMap; 3], _) = (Default::default(), Vec::new());
    let (mut seqs, names) = ([0_u64; 3], [field("a"), field("b"), member("a")]);
    for (now, (at, op, arg)) in (1..).zip(steps.iter().copied()) {
        if op == 0 {
            let from = maps[usize::from(arg) % 3].clone();
            maps[at].merge(from);
            continue;
        }
        seqs[at] += 1;
        let event = dot(at as u64 + 1, seqs[at]);
        let path = names[usize::from(arg) % 3].clone();
        let stamp = Stamp { hlc: Hlc::from_ms(now), replica: event.replica };
        let mut copy = maps[at].clone();
        let delta = match op {
            1..=4 => copy.put(path, Elem { dot: event, stamp, deadline: FOREVER, value: b(&now.to_string()) }),
            5..=6 => copy.remove(&path, event),
            7 => copy.clear(event),
            8..=9 => copy.increment(&b("n"), event, i64::from(arg) - 3, FOREVER),
            _ => copy.reset(&b("n"), event),
        };
        maps[at].apply(delta.clone());
        assert_eq!(maps[at], copy, "the mutated state is the state joined with the delta");
        deltas.push(delta);
    }
    (maps, deltas)
}

fn map_steps() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    prop::collection::vec((0..3_usize, 0..11_u8, 0..8_u8), 0..40)
}

proptest! {
    #[test]
    fn maps_are_a_semilattice(steps in map_steps()) {
        let ([a, o, c], _) = maps(&steps);
        semilattice(merged, &a, &o, &c);
    }

    #[test]
    fn deltas_in_any_order_and_number_are_the_state(
        steps in map_steps(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let ([a, o, c], deltas) = maps(&steps);
        let whole = merged(&merged(&a, &o), &c);
        let mut rebuilt = OrMap::default();
        if !deltas.is_empty() {
            order.iter().for_each(|i| rebuilt.apply(i.get(&deltas).clone()));
        }
        deltas.iter().rev().for_each(|d| rebuilt.apply(d.clone()));
        prop_assert_eq!(rebuilt, whole);
    }

    #[test]
    fn restriction_commutes_with_join(steps in map_steps()) {
        let ([a, o, _], _) = maps(&steps);
        let whole = merged(&a, &o);
        let paths = [field("a"), field("b"), member("a"), Path::Counter(b("n"))];
        for scope in paths.into_iter().map(Scope::Path).chain([Scope::Key]) {
            let mut part = Tree::default();
            part.join(&a.tree().restrict(&scope), &scope, &Ctx::default(), a.ctx());
            part.join(&o.tree().restrict(&scope), &scope, a.ctx(), o.ctx());
            prop_assert_eq!(part.restrict(&Scope::Key), whole.tree().restrict(&scope));
        }
    }

    #[test]
    fn a_map_reset_by_what_it_has_seen_without_gaps_is_empty(steps in map_steps()) {
        let ([a, o, c], _) = maps(&steps);
        let mut whole = merged(&merged(&a, &o), &c);
        whole.reset_remove(&whole.ctx().to_vclock());
        prop_assert!(whole.ctx().is_empty() && whole.tree().is_empty());
    }
}
