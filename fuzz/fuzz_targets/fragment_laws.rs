//! The states of three replicas join like a lattice, and the fragments of a state are the state.
//!
//! The first six bytes choose orders, four bytes each after them are an action of what made the states.

#![no_main]

use driftless::store::Budget;
use driftless_fuzz::replica::{ALL, Mail, Replica, State};
use driftless_fuzz::world::{May, World};
use libfuzzer_sys::fuzz_target;

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn joined<'a>(mails: impl IntoIterator<Item = &'a Mail>) -> State {
    let mut replica = Replica::new(9, &[1, 2, 3, 9]);
    mails.into_iter().for_each(|mail| drop(replica.deliver(mail).expect("nothing is stable here")));
    replica.state()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[one, two, again, shift, first, second], story)) = input.split_first_chunk::<6>() else { return };
    let mut world = World::new(3, May { collect: false, forget: false });
    world.play(story);
    let (whole, single): (Vec<Mail>, Vec<Vec<Mail>>) = world.replicas.iter().map(Replica::batch).unzip();
    let order = |n: u8| ORDERS[usize::from(n % 6)].map(|at| &whole[at]);
    let state = joined(order(one));
    assert_eq!(joined(order(two)), state, "associative and commutative");
    assert_eq!(joined(order(two).into_iter().chain(order(again))), state, "idempotent");

    let fragments: Vec<&Mail> = single.iter().flatten().collect();
    let count = fragments.len() + usize::from(again % 8);
    let turned: Vec<&Mail> = fragments.iter().copied().cycle().skip(usize::from(shift)).take(count).collect();
    assert_eq!(joined(turned.into_iter().rev()), state, "in any order and number the fragments are the state");

    let mut slow = Replica::new(9, &[1, 2, 3, 9]);
    for _ in 0..fragments.len() {
        for replica in &world.replicas {
            let budget = Budget { fragments: 1, ..ALL };
            slow.deliver(&replica.mail_for(&slow.ctx(), budget)).expect("nothing is stable here");
        }
    }
    assert_eq!(slow.state(), state, "event by event");

    let [a, b] = [usize::from(first % 3), usize::from(second % 3)];
    let (before, mail) = (world.replicas[a].state(), &whole[b]);
    let had = world.replicas[a].ctx().includes(&world.replicas[b].ctx());
    let news = world.replicas[a].deliver(mail).expect("nothing is stable here").news;
    assert!(!had || (news == 0 && world.replicas[a].state() == before), "what is known changes nothing");
    world.judge(a);
});
