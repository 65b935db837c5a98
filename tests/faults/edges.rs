//! What an edge asks of others, and whom it believes.

use bytes::Bytes;
use driftless::Config;
use driftless::clock::Hlc;
use driftless::config::EdgeConfig;
use driftless::crdt::Ctx;
use driftless::node::{FetchId, Input, LinkEnd, Output};
use driftless::store::Family;
use driftless::wire::{Control, Decoder, Hello, Limits};

use crate::bench::{BAD, Bench, WALL_MS, seen};
use crate::joining::full;

/// An edge that has copied everything from one member, of which all is stable.
fn edge(stable: &Ctx) -> Bench {
    let mut config = Config::wan("us-east", "unused:0").peers(["a:1", "b:1"]);
    config.node.edge = Some(EdgeConfig::default());
    let mut bench = Bench::joining(config);
    let hello = Hello { joined: true, edge: false, ..bench.hello() };
    bench.control(BAD, &Control::Hello(hello));
    bench.store.partition_ids().for_each(|id| bench.frame(BAD, 30, vec![full(id, stable)]));
    bench.control(BAD, &Control::JoinDone { hlc: Hlc::from_ms(WALL_MS), resumed: Vec::new() });
    assert!(bench.node.stats().joined);
    bench
}

/// Wants a register, and returns the request it makes.
fn fetch(bench: &mut Bench, id: u64, key: &str) -> Option<Control> {
    let keyspace = bench.store.spaces().open("r", Family::Register).unwrap().id();
    let outputs = bench.handle(Input::Fetch { id: FetchId(id), keyspace, key: Bytes::from(key.to_owned()) });
    outputs.iter().find_map(|output| {
        let Output::Control { bytes, .. } = output else { return None };
        let control = Decoder::default().decode_control(bytes, &Limits::default()).unwrap();
        Some(control).filter(|control| matches!(control, Control::Fetch { .. }))
    })
}

fn has_ended(outputs: &[Output], fetch: u64) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Fetched { id, end: Ok(()) } if *id == FetchId(fetch)))
}

/// A link ends when too much waits for it, and with it everything else it carries.
#[test]
fn of_one_peer_no_more_is_asked_at_a_time_than_its_link_takes() {
    let mut bench = edge(&Ctx::default());
    let asked = (0..300).filter(|n| fetch(&mut bench, *n, &format!("key {n}")).is_some()).count();
    assert_eq!(asked, 128);
    let missing = Control::Missing { keyspace: "r".to_owned(), key: Bytes::from_static(b"key 0") };
    assert!(has_ended(&bench.control(BAD, &missing), 0));
    assert!(fetch(&mut bench, 300, "one more").is_some(), "there is room again");
}

/// Who lacks what is stable here may never have heard of the register.
#[test]
fn that_there_is_nothing_is_believed_only_of_who_has_what_is_stable_here() {
    for (has, ends) in [(Ctx::default(), false), (seen(30, 4), true)] {
        let mut bench = edge(&seen(30, 4));
        bench.handle(Input::LinkDown { link: BAD, reason: LinkEnd::TimedOut });
        let ctxs = bench.store.partition_ids().map(|id| (id, has.clone())).collect();
        let hello = Hello { joined: true, edge: false, ctxs, ..bench.hello() };
        bench.control(BAD, &Control::Hello(hello));
        assert!(fetch(&mut bench, 7, "key").is_some());
        let missing = Control::Missing { keyspace: "r".to_owned(), key: Bytes::from_static(b"key") };
        assert_eq!(has_ended(&bench.control(BAD, &missing), 7), ends);
    }
}
