//! The wire as a function: what goes in comes out, whatever else comes in is refused.
#![expect(clippy::unwrap_used, reason = "test helpers")]

#[path = "support/gen.rs"]
mod arb;

use bytes::Bytes;
use driftless::clock::Hlc;
use driftless::crdt::{Cell, Ctx, Dot, Payload};
use driftless::error::PeerFault;
use driftless::id::{PartitionId, ReplicaId};
use driftless::store::{Batch, Family, Fragment, Keyspaces};
use driftless::wire::{Beat, Control, Decoder, Encoder, Frame, Limits, Part, SUSPECTS_MAX, Unsendable};
use proptest::prelude::*;

fn encode(frame: &Frame) -> Bytes {
    Encoder::default().encode_frame(frame, &arb::spaces()).unwrap()
}

fn decode(bytes: &[u8]) -> Result<Frame, PeerFault> {
    Decoder::default().decode_frame(bytes, &arb::spaces(), &Limits::default())
}

fn decode_control(bytes: &[u8]) -> Result<Control, PeerFault> {
    Decoder::default().decode_control(bytes, &Limits::default())
}

fn is_malformed<T>(result: &Result<T, PeerFault>) -> bool {
    matches!(result, Err(PeerFault::Malformed { .. }))
}

fn is_over<T>(result: &Result<T, PeerFault>) -> bool {
    matches!(result, Err(PeerFault::OverLimit { .. }))
}

fn register(key: &[u8], value: Bytes) -> Fragment {
    let dot = Dot { replica: ReplicaId(1), seq: 1 };
    let scope = driftless::crdt::Scope::Path(driftless::crdt::Path::Register);
    let mut fragment = Fragment::empty(arb::keyspace(Family::Register), Bytes::copy_from_slice(key), scope.clone());
    fragment.cell = Some(Cell::new(Payload::Value(value), arb::CLOCK, dot, u64::MAX));
    fragment.covers = vec![(dot, scope)];
    fragment
}

fn frame_of(fragments: Vec<Fragment>) -> Frame {
    let mut ctx = Ctx::default();
    ctx.add_range(ReplicaId(1), 1, 9);
    let batch = Batch { partition: PartitionId(3), ctx, fragments };
    Frame { from: ReplicaId(1), hlc: arb::CLOCK, parts: vec![Part::Batch(batch)] }
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_was(frame in arb::frame()) {
        let bytes = encode(&frame);
        prop_assert_eq!(decode(&bytes), Ok(frame));
    }

    #[test]
    fn equal_frames_have_equal_bytes_whatever_was_encoded_before(a in arb::frame(), b in arb::frame()) {
        let (spaces, mut used) = (arb::spaces(), Encoder::default());
        used.encode_frame(&b, &spaces).unwrap();
        prop_assert_eq!(used.encode_frame(&a, &spaces).unwrap(), encode(&a.clone()));
    }

    #[test]
    fn a_control_message_comes_back_as_it_was(control in arb::control()) {
        let bytes = Encoder::default().encode_control(&control).unwrap();
        prop_assert_eq!(decode_control(&bytes), Ok(control));
    }

    #[test]
    fn a_heartbeat_comes_back_as_it_was_and_fits_in_a_datagram(beat in arb::beat()) {
        let bytes = Encoder::default().encode_beat(&beat);
        prop_assert!(bytes.len() < 100);
        prop_assert_eq!(Decoder::default().decode_beat(&bytes, &Limits::default()), Ok(beat));
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0..3_u8, compressed in 0..2_u8, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let message = [&[1, kind << 6 | compressed][..], &bytes].concat();
        let spaces = arb::spaces();
        let _: [bool; 3] = [
            Decoder::default().decode_frame(&message, &spaces, &Limits::default()).is_ok(),
            decode_control(&message).is_ok(),
            Decoder::default().decode_beat(&message, &Limits::default()).is_ok(),
        ];
    }

    #[test]
    fn a_damaged_frame_is_refused_or_means_something_that_can_be_sent(
        frame in arb::frame(), at in any::<proptest::sample::Index>(), with in any::<u8>(),
    ) {
        let mut bytes = encode(&frame).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let spaces = arb::spaces();
        if let Ok(other) = Decoder::default().decode_frame(&bytes, &spaces, &Limits::default()) {
            let again = Encoder::default().encode_frame(&other, &spaces).unwrap();
            prop_assert_eq!(Decoder::default().decode_frame(&again, &spaces, &Limits::default()), Ok(other));
        }
    }

    #[test]
    fn trailing_bytes_are_malformed(frame in arb::frame(), extra in proptest::collection::vec(any::<u8>(), 1..9)) {
        let bytes = [encode(&frame).as_ref(), &extra].concat();
        prop_assert!(is_malformed(&decode(&bytes)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_frame_cut_at_any_byte_is_refused(frame in arb::frame()) {
        let bytes = encode(&frame);
        for len in 0..bytes.len() {
            let cut = decode(&bytes[..len]);
            prop_assert!(is_malformed(&cut) || is_over(&cut), "cut at {}", len);
        }
    }

    #[test]
    fn a_control_message_cut_at_any_byte_is_refused(control in arb::control()) {
        let bytes = Encoder::default().encode_control(&control).unwrap();
        for len in 0..bytes.len() {
            let cut = decode_control(&bytes[..len]);
            prop_assert!(is_malformed(&cut) || is_over(&cut), "cut at {}", len);
        }
    }
}

#[test]
fn a_frame_too_large_is_refused_by_its_size_alone() {
    let max = Limits::default().frame_bytes;
    let frame = vec![1; usize::try_from(max).unwrap() + 1];
    let fault = decode(&frame).unwrap_err();
    assert_eq!(fault, PeerFault::OverLimit { what: "frame size", len: max + 1, max });
    let fault = decode_control(&vec![1; (256 << 10) + 1]).unwrap_err();
    assert_eq!(fault, PeerFault::OverLimit { what: "control message size", len: (256 << 10) + 1, max: 256 << 10 });
}

#[test]
fn a_frame_no_receiver_would_take_is_not_sent() {
    let fragments = (0..9_u8).map(|n| register(&[n], Bytes::from(noise(n, 500 << 10)))).collect();
    let refused =
        Encoder::default().encode_frame(&frame_of(fragments), &arb::spaces()).map(|sent| sent.len()).unwrap_err();
    assert!(matches!(refused, Unsendable::OverLimit { what: "payload size", .. }), "{refused}");
    let large = frame_of(vec![register(b"k", Bytes::from(noise(0, (512 << 10) + 1)))]);
    let refused = Encoder::default().encode_frame(&large, &arb::spaces()).map(|sent| sent.len()).unwrap_err();
    assert!(matches!(refused, Unsendable::OverLimit { what: "length of a value", .. }), "{refused}");
}

#[test]
fn another_format_version_is_incompatible() {
    let mut bytes = encode(&frame_of(Vec::new())).to_vec();
    bytes[0] = 2;
    let (theirs, ours) = ("2".to_owned(), "1".to_owned());
    assert_eq!(decode(&bytes), Err(PeerFault::Incompatible { what: "message format", theirs, ours }));
}

#[test]
fn a_flag_of_a_later_version_is_incompatible() {
    let mut bytes = encode(&frame_of(Vec::new())).to_vec();
    bytes[1] |= 2;
    assert!(matches!(decode(&bytes), Err(PeerFault::Incompatible { what: "message flags", .. })));
}

#[test]
fn a_message_of_another_channel_is_malformed() {
    let beat = Encoder::default().encode_control(&Control::Join { ctxs: Vec::new() }).unwrap();
    assert!(is_malformed(&decode(&beat)));
}

/// Wraps a compressed block that claims to hold `length` bytes.
fn packed(length: u32, block: &[u8]) -> Vec<u8> {
    [&[1, 1][..], &length.to_be_bytes(), block].concat()
}

#[test]
fn a_decompression_bomb_is_refused_before_anything_is_decompressed() {
    let plain = vec![0; 128 << 20];
    let block = zstd::bulk::compress(&plain, 19).unwrap();
    assert!(plain.len() / block.len() > 30_000, "{} : 1", plain.len() / block.len());
    let honest = u32::try_from(plain.len()).unwrap();
    assert!(is_over(&decode(&packed(honest, &block))), "the size it admits is over the limit");
    assert!(is_over(&decode(&packed(4 << 20, &block))), "the size it pretends is over the ratio");
    let small = u32::try_from(block.len()).unwrap();
    assert!(is_malformed(&decode(&packed(small, &block))), "the size it pretends is not zstd's");
}

#[test]
fn a_block_over_the_ratio_or_with_a_second_block_is_refused() {
    let plain = vec![7; 64 << 10];
    let block = zstd::bulk::compress(&plain, 1).unwrap();
    assert!(is_over(&decode(&packed(64 << 10, &block))));
    let noise = noise(0, 4_096);
    let block = zstd::bulk::compress(&noise, 1).unwrap();
    assert!(is_malformed(&decode(&packed(4_096, &[block.clone(), block].concat()))));
}

#[test]
fn a_compression_window_over_the_limit_is_refused() {
    use std::io::Write as _;
    let plain = noise(0, 3 << 20);
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.window_log(21).unwrap();
    zstd.set_pledged_src_size(Some(3 << 20)).unwrap();
    zstd.write_all(&plain).unwrap();
    let limits = Limits { frame_bytes: 4 << 20, ..Limits::default() };
    let message = packed(3 << 20, &zstd.finish().unwrap());
    let fault = Decoder::default().decode_frame(&message, &arb::spaces(), &limits).unwrap_err();
    assert_eq!(fault, PeerFault::OverLimit { what: "compression window", len: 21, max: 20 });
}

/// Bytes that do not compress.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(u64::from(seed));
    (0..len).map(|_| rng.u8(..)).collect()
}

#[test]
fn lying_lengths_are_refused_when_the_input_ends() {
    let head = [&[1, 0, 0, 1, 0xcf][..], &arb::CLOCK.0.to_be_bytes()].concat();
    let huge: [&[u8]; 4] = [
        &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255],
        &[1, 0, 0xce, 255, 255, 255, 255],
        &[1, 0, 0, 0xce, 255, 255, 255, 255],
        &[1, 0, 0, 1, 1, 0, 0xa1, b'r', 0, 0xc6, 255, 255, 255, 255, 1, 2, 3],
    ];
    for lie in huge {
        let result = decode(&[&head, lie].concat());
        assert!(result.is_err(), "{lie:?}");
    }
    let gaps = [&head[..], &[1, 0, 1, 0, 1, 0xce, 255, 255, 255, 255]].concat();
    assert!(is_over(&decode(&gaps)), "more gaps than a context may have");
}

#[test]
fn a_run_of_covered_dots_is_not_expanded_beyond_the_limit() {
    let mut fragment = register(b"k", Bytes::from_static(b"v"));
    let scope = fragment.covers[0].1.clone();
    fragment.covers = (1..=200_000).map(|seq| (Dot { replica: ReplicaId(1), seq }, scope.clone())).collect();
    let (frame, spaces) = (frame_of(vec![fragment]), arb::spaces());
    assert!(Encoder::default().encode_frame(&frame, &spaces).is_err());
    let roomy = Limits { covers: 1 << 20, ..Limits::default() };
    let bytes = Encoder::new(roomy).encode_frame(&frame, &spaces).unwrap();
    assert!(bytes.len() < 100, "a run is a few bytes");
    let fault = decode(&bytes).unwrap_err();
    assert_eq!(fault, PeerFault::OverLimit { what: "number of covered dots", len: 200_000, max: 131_072 });
}

#[test]
fn a_stamp_above_the_frames_clock_is_malformed() {
    let mut early = frame_of(vec![register(b"k", Bytes::from_static(b"v"))]);
    early.hlc = Hlc(arb::CLOCK.0 + 5);
    let bytes = encode(&early).to_vec();
    let at = bytes.windows(8).position(|w| w == early.hlc.0.to_be_bytes()).unwrap();
    let mut late = bytes;
    late[at..at + 8].copy_from_slice(&(arb::CLOCK.0 - 1).to_be_bytes());
    assert_eq!(decode(&late), Err(PeerFault::Malformed { why: "a stamp lies above the frame's clock" }));
}

#[test]
fn a_keyspace_of_another_family_is_incompatible_and_an_unknown_one_is_opened() {
    let bytes = encode(&frame_of(vec![register(b"k", Bytes::from_static(b"v"))]));
    let elsewhere = Keyspaces::new(1, [0; 16]);
    let mut decoder = Decoder::default();
    assert!(decoder.decode_frame(&bytes, &elsewhere, &Limits::default()).is_ok());
    assert_eq!(elsewhere.find("sessions").map(|space| space.family()), Some(Family::Register));
    let differs = Keyspaces::new(1, [0; 16]);
    differs.open("sessions", Family::Set).unwrap();
    let fault = decoder.decode_frame(&bytes, &differs, &Limits::default()).unwrap_err();
    let (theirs, ours) = ("registers in \"sessions\"".to_owned(), "sets".to_owned());
    assert_eq!(fault, PeerFault::Incompatible { what: "keyspace", theirs, ours });
}

#[test]
fn a_frame_that_is_refused_for_what_follows_opens_no_keyspace() {
    let bytes = encode(&frame_of(vec![register(b"k", Bytes::from_static(b"v"))]));
    let here = Keyspaces::new(1, [0; 16]);
    for len in 0..bytes.len() {
        assert!(Decoder::default().decode_frame(&bytes[..len], &here, &Limits::default()).is_err());
    }
    assert!(here.find("sessions").is_none());
    let frame = Decoder::default().decode_frame(&bytes, &here, &Limits::default()).unwrap();
    let Part::Batch(batch) = &frame.parts[0] else { panic!("{frame:?}") };
    assert_eq!(batch.fragments[0].keyspace, here.find("sessions").unwrap().id());
}

#[test]
fn a_custom_keyspace_that_is_not_declared_is_incompatible() {
    let custom = Fragment::empty(
        arb::keyspace(Family::Custom),
        Bytes::from_static(b"k"),
        driftless::crdt::Scope::Path(driftless::crdt::Path::Custom),
    );
    let bytes = encode(&frame_of(vec![custom]));
    let here = Keyspaces::new(1, [0; 16]);
    let fault = Decoder::default().decode_frame(&bytes, &here, &Limits::default()).unwrap_err();
    assert!(matches!(fault, PeerFault::Incompatible { .. }), "{fault}");
    assert!(here.find("docs").is_none(), "it was not opened");
}

#[test]
fn more_keyspaces_than_the_limit_are_refused() {
    let bytes = encode(&frame_of(vec![register(b"k", Bytes::from_static(b"v"))]));
    let full = Keyspaces::new(1, [0; 16]);
    for n in 0..1_024 {
        full.open(&format!("k{n}"), Family::Map).unwrap();
    }
    assert!(is_over(&Decoder::default().decode_frame(&bytes, &full, &Limits::default())));
}

/// One byte says how many follow, and ids below 128 take a byte each.
#[test]
fn a_beat_names_so_many_silent_members_and_in_order() {
    let suspects: std::collections::BTreeSet<ReplicaId> = (1..100).map(ReplicaId).collect();
    let (replica, hlc) = (ReplicaId(7), arb::CLOCK);
    let gives_up = [ReplicaId(9)].into();
    let beat = Beat { replica, seq: 1, hlc, sent_ns: 2, echo: None, wall_ms: 3, load: Some(100), suspects, gives_up };
    let bytes = Encoder::default().encode_beat(&beat).to_vec();
    let decode = |bytes: &[u8]| Decoder::default().decode_beat(bytes, &Limits::default());
    let some = (1..=u64::try_from(SUSPECTS_MAX).unwrap()).map(ReplicaId).collect();
    assert_eq!(decode(&bytes), Ok(Beat { suspects: some, ..beat }));
    let count = bytes.len() - SUSPECTS_MAX - 3;
    let changed = |at: usize, value: u8| {
        let mut changed = bytes.clone();
        changed[at] = value;
        changed
    };
    assert!(is_over(&decode(&changed(count, 33))));
    assert!(is_malformed(&decode(&changed(count + 2, 1))), "twice the same");
    assert!(is_malformed(&decode(&changed(count, 31))), "bytes follow");
    assert!(is_malformed(&decode(&changed(count - 1, 102))), "busier than wholly");
    assert!(is_over(&decode(&changed(bytes.len() - 2, 33))));
}

/// A hello as a map of the given fields, with the envelope and kind of a control message.
fn hello_with(edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Vec<u8> {
    let empty = serde_json::json!({
        "version": 1, "min_version": 1, "cluster": "shop", "replica": 7, "region": "eu", "wall_ms": 5, "hlc": 9,
        "joined": true, "partitions": 64, "hash_check": 3, "custom": [["docs", "t:1"]], "compression": ["zstd"],
    });
    let serde_json::Value::Object(mut fields) = empty else { return Vec::new() };
    edit(&mut fields);
    let mut bytes = vec![1, 1 << 6, 0, 0xde];
    bytes.extend(u16::try_from(fields.len() + 3).unwrap().to_be_bytes());
    for (name, value) in &fields {
        bytes.extend(rmp_serde::to_vec(name).unwrap());
        bytes.extend(rmp_serde::to_vec(value).unwrap());
    }
    for (name, value) in [("node", &[9_u8; 16][..]), ("members", &[0, 0, 0, 0, 0]), ("ctxs", &[0])] {
        bytes.extend(rmp_serde::to_vec(name).unwrap());
        bytes.extend(rmp_serde::to_vec(serde_bytes::Bytes::new(value)).unwrap());
    }
    bytes
}

#[test]
fn a_hello_with_a_field_of_a_later_version_is_understood() {
    let plain = decode_control(&hello_with(|_| ())).unwrap();
    let later = decode_control(&hello_with(|fields| {
        fields.insert("dictionaries".to_owned(), serde_json::json!([[1, "a"], {"deep": [2]}]));
    }));
    assert_eq!(later, Ok(plain));
}

#[test]
fn a_hello_without_a_required_field_is_a_fault_that_names_it() {
    let result = decode_control(&hello_with(|fields| {
        fields.remove("replica");
    }));
    assert_eq!(result, Err(PeerFault::Malformed { why: "a hello lacks its replica" }));
}

#[test]
fn a_hello_with_longer_lists_than_anybody_has_is_refused() {
    let with = |field: &'static str, entry: serde_json::Value, count: usize| {
        decode_control(&hello_with(|fields| {
            fields.insert(field.to_owned(), serde_json::Value::Array(vec![entry; count]));
        }))
    };
    let (pair, name) = (serde_json::json!(["", ""]), serde_json::json!(""));
    assert!(with("custom", pair.clone(), 512).is_ok() && with("compression", name.clone(), 16).is_ok());
    assert!(is_malformed(&with("custom", pair, 513)));
    assert!(is_malformed(&with("compression", name, 17)));
}

#[test]
fn what_a_configuration_allows_is_what_a_message_carries() {
    let (limits, wide) = (Limits::default(), |n: usize| u64::try_from(n).unwrap());
    assert_eq!(limits.name_bytes, wide(driftless::config::NAME_BYTES_MAX));
    assert_eq!(limits.key_bytes, wide(driftless::config::KEY_BYTES_MAX));
    assert_eq!(limits.value_bytes, wide(driftless::config::VALUE_BYTES_MAX));
    assert!(limits.covers >= 2 * wide(driftless::store::entry::UNSTABLE_MAX), "of one key, and of others beside it");
}

#[test]
fn a_hello_nested_too_deep_is_refused() {
    let deep = |levels: usize| {
        let value = (0..levels).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        hello_with(|fields| {
            fields.insert("later".to_owned(), value);
        })
    };
    assert!(decode_control(&deep(8)).is_ok());
    for levels in [16, 100] {
        let fault = decode_control(&deep(levels)).unwrap_err();
        assert_eq!(fault, PeerFault::OverLimit { what: "nesting depth", len: 17, max: 16 });
    }
}

#[test]
fn nesting_in_a_frame_is_malformed_at_once() {
    let bytes = [&[1, 0][..], &[0x91; 100_000]].concat();
    assert!(is_malformed(&decode(&bytes)));
}

#[test]
fn what_one_frame_can_make_a_receiver_hold_is_bounded_by_the_counts() {
    let limits = Limits::default();
    let held = |size: usize, count: u64| u64::try_from(size).unwrap() * count;
    let worst = held(size_of::<Fragment>(), limits.fragments)
        + held(size_of::<(Bytes, Vec<u8>, driftless::crdt::Elem)>(), limits.elems)
        + held(size_of::<(Dot, driftless::crdt::Scope)>(), limits.covers)
        + held(size_of::<(ReplicaId, driftless::crdt::Seen)>(), limits.seen)
        + held(size_of::<Part>(), limits.parts)
        + limits.plain_bytes;
    assert!(worst < 64 << 20, "{worst} bytes");
}
