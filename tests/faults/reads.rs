//! What a node asks while it reads at a level, and which answers count.

use bytes::Bytes;
use driftless::Config;
use driftless::clock::{Hlc, Mono, Now};
use driftless::crdt::{Ctx, Member, MemberSet, Path, Scope};
use driftless::id::{PartitionId, RegionId, ReplicaId};
use driftless::node::read::{ASKING_MAX, READS_MAX};
use driftless::node::{Input, Level, LinkEnd, Output, WaitId};
use driftless::store::{Batch, Family, Fragment};
use driftless::wire::{Answer, Control, Decoder, Hello, Limits, Part};

use crate::bench::{BAD, Bench, GOOD, WALL_MS, identity, node_id, seen};
use crate::joining::full;

/// One of three that has copied everything from another, of which all is stable.
fn member(stable: &Ctx) -> Bench {
    let mut bench = Bench::joining(Config::wan("us-east", "unused:0").peers(["a:1", "b:1"]));
    let hello = bench.hello();
    meet(&mut bench, hello, stable);
    bench.store.partition_ids().for_each(|id| bench.frame(BAD, 30, vec![full(id, stable)]));
    bench.control(BAD, &Control::JoinDone { hlc: Hlc::from_ms(WALL_MS), resumed: Vec::new() });
    assert!(bench.node.stats().joined);
    bench
}

/// The peer says hello, and that it is a member.
fn meet(bench: &mut Bench, hello: Hello, has: &Ctx) {
    let ctxs = bench.store.partition_ids().map(|id| (id, has.clone())).collect();
    let them = Member::new(node_id(3), RegionId::new("ap-southeast"), WALL_MS, None);
    let members = MemberSet { members: [(ReplicaId(30), them)].into_iter().collect(), ..MemberSet::default() };
    bench.control(BAD, &Control::Hello(Hello { joined: true, ctxs, members, ..hello }));
}

/// Begins a read; returns the questions it makes, and whether it has ended.
fn read(bench: &mut Bench, id: u64, key: &str) -> (Vec<(u64, Bytes)>, Option<bool>) {
    let keyspace = bench.store.spaces().open("r", Family::Register).unwrap().id();
    let key = Bytes::from(key.to_owned());
    let outputs = bench.handle(Input::Read { id: WaitId(id), keyspace, key, level: Level::Quorum, deadline: None });
    (questions(&outputs), end(&outputs, id))
}

fn questions(outputs: &[Output]) -> Vec<(u64, Bytes)> {
    let question = |output: &Output| {
        let Output::Control { bytes, .. } = output else { return None };
        let control = Decoder::default().decode_control(bytes, &Limits::default()).unwrap();
        if let Control::Ask { question, key, .. } = control { Some((question, key)) } else { None }
    };
    outputs.iter().filter_map(question).collect()
}

fn end(outputs: &[Output], read: u64) -> Option<bool> {
    outputs.iter().find_map(|output| {
        let Output::Resolved { id, outcome } = output else { return None };
        (*id == WaitId(read)).then_some(outcome.reached)
    })
}

/// Answers that there is nothing, from what was seen.
fn answer(bench: &mut Bench, question: u64, key: &str, ctx: &Ctx) -> Vec<Output> {
    let space = bench.store.spaces().find("r").unwrap();
    let partition = bench.store.place(space.hash(key.as_bytes()));
    answer_of(bench, question, partition, ctx)
}

fn answer_of(bench: &mut Bench, question: u64, partition: PartitionId, ctx: &Ctx) -> Vec<Output> {
    let batch = Batch { partition, ctx: ctx.clone(), fragments: Vec::new() };
    bench.says(BAD, 30, vec![Part::Answer(Answer { question, batch })])
}

#[test]
fn of_one_peer_no_more_is_asked_at_a_time_than_its_link_takes_and_no_more_is_read_than_is_kept() {
    let mut bench = member(&Ctx::default());
    let asked: usize = (0..).take(READS_MAX).map(|n| read(&mut bench, n, &format!("key {n}")).0.len()).sum();
    assert_eq!(asked, ASKING_MAX);
    assert_eq!(read(&mut bench, 5_000, "one more"), (Vec::new(), Some(false)), "it ends at once");
    let outputs = answer(&mut bench, 0, "key 0", &Ctx::default());
    assert_eq!(end(&outputs, 0), Some(true));
    assert_eq!(questions(&outputs).len(), 1, "there is room for the next one");
    bench.handle(Input::CancelWait { id: WaitId(1) });
    let sizes = |bench: &Bench, name| usize::try_from(bench.node.gauges().of(name).unwrap().size).unwrap();
    assert_eq!(sizes(&bench, "reads at a level"), READS_MAX - 2);
    assert_eq!(sizes(&bench, "questions of a link"), ASKING_MAX - 1);
    bench.handle(Input::LinkDown { link: BAD, reason: LinkEnd::TimedOut });
    assert_eq!(sizes(&bench, "questions of a link"), 0);
    bench.handle(Input::Shutdown);
    assert_eq!(sizes(&bench, "reads at a level"), 0);
}

#[test]
fn who_does_not_answer_is_asked_again_and_may_answer_the_first_question() {
    let mut bench = member(&Ctx::default());
    assert_eq!(read(&mut bench, 7, "key").0.len(), 1);
    let mut at = |ms: u64| {
        let now = Now { mono: Mono(1_000 + ms * 1_000_000), wall_ms: WALL_MS + ms };
        let bytes = bench.encoder.encode_control(&Control::ReportNow).unwrap();
        bench.node.handle(now, Input::Control { link: BAD, bytes });
        let outputs: Vec<Output> = std::iter::from_fn(|| bench.node.poll()).collect();
        questions(&outputs).len()
    };
    assert_eq!((at(150), at(300), at(450)), (0, 0, 0));
    assert_eq!((at(620), at(720)), (1, 0), "it is heard of");
    assert_eq!(end(&answer(&mut bench, 7, "key", &Ctx::default()), 7), Some(true));
}

#[test]
fn only_an_answer_to_what_was_asked_from_who_has_what_is_stable_here_counts() {
    let stable = seen(30, 4);
    let mut bench = member(&stable);
    assert_eq!(read(&mut bench, 7, "key").0.len(), 1);
    let space = bench.store.spaces().find("r").unwrap();
    let at = bench.store.place(space.hash(b"key"));
    let elsewhere = bench.store.partition_ids().find(|id| *id != at).unwrap();
    for (question, partition, ctx) in [(8, at, &stable), (7, elsewhere, &stable), (7, at, &Ctx::default())] {
        assert_eq!(end(&answer_of(&mut bench, question, partition, ctx), 7), None, "{question} {partition:?} {ctx:?}");
    }
    assert_eq!(end(&answer_of(&mut bench, 7, at, &stable), 7), Some(true));
}

/// What was on its way when it was asked for may be older than what its sender has reported since.
#[test]
fn a_batch_of_the_register_that_is_no_answer_ends_no_read() {
    let mut bench = member(&Ctx::default());
    assert_eq!(read(&mut bench, 7, "key").0.len(), 1);
    let space = bench.store.spaces().find("r").unwrap();
    let partition = bench.store.place(space.hash(b"key"));
    let fragment = Fragment::empty(space.id(), Bytes::from_static(b"key"), Scope::Path(Path::Register));
    let batch = Batch { partition, ctx: Ctx::default(), fragments: vec![fragment] };
    assert_eq!(end(&bench.says(BAD, 30, vec![Part::Batch(batch.clone())]), 7), None);
    assert_eq!(end(&bench.says(BAD, 30, vec![Part::Answer(Answer { question: 7, batch })]), 7), Some(true));
}

/// Who lacks what is stable here may never have heard of the register.
#[test]
fn nobody_is_answered_who_lacks_what_is_stable_here() {
    for (has, answers) in [(Ctx::default(), 0), (seen(30, 4), 1)] {
        let mut bench = member(&seen(30, 4));
        bench.handle(Input::LinkDown { link: BAD, reason: LinkEnd::TimedOut });
        let outputs = bench.link_up(GOOD, identity(2, "eu-central"));
        let bytes = outputs.iter().find_map(|o| if let Output::Control { bytes, .. } = o { Some(bytes) } else { None });
        let ours = Decoder::default().decode_control(bytes.unwrap(), &Limits::default()).unwrap();
        let Control::Hello(ours) = ours else { panic!("the first message is a hello") };
        let ctxs = bench.store.partition_ids().map(|id| (id, has.clone())).collect();
        let (node, region, replica) = (node_id(2), RegionId::new("eu-central"), ReplicaId(20));
        bench.control(GOOD, &Control::Hello(Hello { node, region, replica, ctxs, ..ours }));
        let ask = Control::Ask { question: 9, keyspace: "r".to_owned(), key: Bytes::from_static(b"key") };
        let outputs = bench.control(GOOD, &ask);
        let spaces = bench.store.spaces();
        let frames = outputs.iter().filter_map(|o| if let Output::Log { bytes, .. } = o { Some(bytes) } else { None });
        let decoded = frames.map(|bytes| Decoder::default().decode_frame(bytes, spaces, &Limits::default()).unwrap());
        let parts: Vec<Part> = decoded.flat_map(|frame| frame.parts).collect();
        let count = parts.iter().filter(|part| matches!(part, Part::Answer(Answer { question: 9, .. }))).count();
        assert_eq!(count, answers);
    }
}

/// What a certificate lets somebody in for does not let them speak for others.
#[test]
fn an_answer_that_was_never_asked_for_is_a_batch_and_nothing_else() {
    let mut bench = member(&Ctx::default());
    bench.store.spaces().open("r", Family::Register).unwrap();
    assert!(answer(&mut bench, 7, "key", &Ctx::default()).iter().all(|o| !matches!(o, Output::Resolved { .. })));
    assert_eq!(bench.node.stats().peers.len(), 1, "its link stays");
}
