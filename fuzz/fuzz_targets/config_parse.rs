//! Any configuration is refused with an error that names what is wrong with it, or gives a node that starts, founds,
//! takes a write, and says a hello that others can read.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Unstructured;
use driftless::clock::{Mono, Now};
use driftless::crdt::NEVER;
use driftless::id::{NodeId, ReplicaId};
use driftless::node::{Input, LinkId, Me, Node, Output, PeerIdentity};
use driftless::store::{Family, Intent, KeyRef, Store};
use driftless::wire::{Control, Decoder, Limits};
use driftless_fuzz::config::{config, is_bad};
use libfuzzer_sys::fuzz_target;

/// Timers a node is followed through.
const TIMERS: usize = 12;

fn id(n: u128) -> NodeId {
    NodeId(uuid::Uuid::from_u128(n))
}

fuzz_target!(|input: &[u8]| {
    let Ok(config) = config(&mut Unstructured::new(input)) else { return };
    if let Err(refused) = config.check() {
        assert!(is_bad(&config, &refused), "{refused} in {config:?}");
        return;
    }
    let me = Me { node: id(1), region: config.node.region.clone(), replica: ReplicaId(7) };
    let store = Arc::new(Store::new(me.replica, config.store()));
    // As the shell does; it refuses these itself.
    if config.custom.iter().any(|c| store.spaces().open_custom(&c.keyspace, Arc::clone(&c.merge)).is_err()) {
        return;
    }
    let mut node = Node::new(me, config.clone(), Arc::clone(&store), 1).expect("it was checked");
    let mut now = Now { mono: Mono(1), wall_ms: 1_750_000_000_000 };
    let peer = PeerIdentity { node: id(2), region: config.node.region.clone(), expires_ms: NEVER };
    node.handle(now, Input::LinkUp { link: LinkId(1), peer, dialled: None, after: Duration::ZERO });
    let first = std::iter::from_fn(|| node.poll())
        .find_map(|o| if let Output::Control { bytes, .. } = o { Some(bytes) } else { None });
    let hello = Decoder::default().decode_control(&first.expect("it says hello"), &Limits::default());
    assert!(matches!(hello, Ok(Control::Hello(hello)) if hello.cluster == config.node.cluster));
    for _ in 0..TIMERS {
        let due = node.next_deadline().expect("it always has something to do");
        now.mono = due.max(now.mono.plus(Duration::from_millis(1)));
        now.wall_ms = 1_750_000_000_000 + now.mono.0 / 1_000_000;
        node.handle(now, Input::Deadline);
        while node.poll().is_some() {}
    }
    let Ok(registers) = store.spaces().open("registers", Family::Register) else { return };
    let (at, intent) = (KeyRef::new(&registers, b"k"), Intent { wall_ms: now.wall_ms, value_len: Some(1) });
    let written = store.write(&at, intent, |p, tick| p.set(&at, "v".into(), NEVER, tick));
    assert_eq!(written.is_ok(), node.stats().joined, "who has joined writes: {written:?}");
    node.handle(now, Input::Written);
    node.handle(now, Input::Shutdown);
});
