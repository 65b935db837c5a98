//! Opening waits for an event that comes once.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::broadcast;

use crate::cache::joined;
use crate::config::Config;
use crate::id::ReplicaId;
use crate::node::Event;
use crate::store::{Gate, Store};

/// What opening says once so many events happened; `None` while it waits.
fn opened(gate: Gate, happened: usize) -> Option<bool> {
    let store = Store::new(ReplicaId(1), Config::dev("here", "unused:0").store());
    store.set_gate(gate);
    let events = broadcast::Sender::new(2);
    let mut opening = pin!(joined(events.subscribe(), &store));
    assert!((0..happened).all(|_| events.send(Event::ClockAccepted).is_ok()));
    match opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(opened) => Some(opened.is_ok()),
        Poll::Pending => None,
    }
}

#[test]
fn a_node_that_joined_among_more_events_than_are_kept_is_open() {
    assert_eq!(opened(Gate::Open, 3), Some(true));
    assert_eq!(opened(Gate::ClockRefused, 3), Some(true));
    assert_eq!(opened(Gate::Joining, 3), None);
    assert_eq!(opened(Gate::Open, 2), None, "nothing was missed, so it is still to come");
}
