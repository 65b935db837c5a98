//! What a write costs on the wire, in bytes and in time.
//!
//! Registers with a time to live of half an hour, one partition, three replicas in the context: keys
//! of 16 bytes with 100 incompressible bytes, and keys of 16 bytes with JSON sessions of about 200.
//! The table of bytes comes first; the timings are per frame.
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use driftless::clock::Hlc;
use driftless::crdt::{Cell, Ctx, Dot, Path, Payload, Scope};
use driftless::id::{PartitionId, ReplicaId};
use driftless::store::{Batch, Family, Fragment, Keyspaces};
use driftless::wire::{Decoder, Encoder, Frame, Limits, Part};

const SIZES: [usize; 3] = [1, 16, 256];
const ME: ReplicaId = ReplicaId(0xfeed_beef_0000_0001);
const MS: u64 = 1_750_000_000_000;

fn main() {
    println!("bytes per write on the wire (frame bytes / deltas)");
    println!("{:<34}{:>10}{:>10}{:>10}", "deltas per frame", SIZES[0], SIZES[1], SIZES[2]);
    for (name, kind) in [("16 B key + 100 B incompressible", Kind::Noise), ("16 B key + JSON session", Kind::Json)] {
        let per_write = SIZES.map(|n| {
            let frame = frame(kind, n);
            let bytes = Encoder::default().encode_frame(&frame, &spaces()).unwrap().len();
            format!("{:.1}", ratio(bytes, n))
        });
        println!("{name:<34}{:>10}{:>10}{:>10}", per_write[0], per_write[1], per_write[2]);
        let payload = SIZES.map(|n| format!("{:.1}", ratio(payload_bytes(&frame(kind, n)), n)));
        println!("{:<34}{:>10}{:>10}{:>10}", "  of which key and value are", payload[0], payload[1], payload[2]);
    }
    println!();
    divan::main();
}

fn ratio(bytes: usize, n: usize) -> f64 {
    f64::from(u32::try_from(bytes).unwrap()) / f64::from(u32::try_from(n).unwrap())
}

#[derive(Clone, Copy)]
enum Kind {
    Noise,
    Json,
}

fn spaces() -> Keyspaces {
    let spaces = Keyspaces::new(1 << 30, [7; 16]);
    spaces.open("sessions", Family::Register).unwrap();
    spaces
}

fn value(kind: Kind, rng: &mut fastrand::Rng) -> Bytes {
    match kind {
        Kind::Noise => (0..100).map(|_| rng.u8(..)).collect(),
        Kind::Json => Bytes::from(format!(
            r#"{{"user":"u{:07}","roles":["customer","beta"],"cart":[{},{},{}],"csrf":"{:016x}","locale":"de-DE","created":17500{:08},"last_seen":17500{:08},"theme":"dark","ab":{{"checkout":{}}}}}"#,
            rng.u32(..10_000_000),
            rng.u16(..),
            rng.u16(..),
            rng.u16(..),
            rng.u64(..),
            rng.u32(..100_000_000),
            rng.u32(..100_000_000),
            rng.u8(..4),
        )),
    }
}

/// A frame as a busy node sends it: consecutive events of the last two milliseconds in slot order.
fn frame(kind: Kind, deltas: usize) -> Frame {
    let mut rng = fastrand::Rng::with_seed(3);
    let (n, mut ctx) = (u64::try_from(deltas).unwrap(), Ctx::default());
    ctx.add_range(ME, 1, 123_456 + n);
    ctx.add_range(ReplicaId(0x1234_5678_9abc_def0), 1, 120_000);
    ctx.add_range(ReplicaId(0xabcd_abcd_abcd_abcd), 1, 98_765);
    let mut order: Vec<u64> = (0..n).collect();
    rng.shuffle(&mut order);
    let fragments = order
        .into_iter()
        .map(|at| {
            let dot = Dot { replica: ME, seq: 123_457 + at };
            let hlc = Hlc(Hlc::from_ms(MS + at * 2 / n).0 + at % (n / 2 + 1));
            let key = match kind {
                Kind::Noise => (0..16).map(|_| rng.u8(..)).collect(),
                Kind::Json => Bytes::from(format!("sess:{:011x}", rng.u64(..1 << 44))),
            };
            let scope = Scope::Path(Path::Register);
            let mut fragment = Fragment::empty(spaces_id(), key, scope.clone());
            fragment.cell = Some(Cell::new(Payload::Value(value(kind, &mut rng)), hlc, dot, hlc.ms() + 1_800_000));
            fragment.covers = vec![(dot, scope)];
            fragment
        })
        .collect();
    let batch = Batch { partition: PartitionId(9), ctx, fragments };
    Frame { from: ME, hlc: Hlc::from_ms(MS + 2), parts: vec![Part::Batch(batch)] }
}

fn spaces_id() -> driftless::id::KeyspaceId {
    driftless::id::KeyspaceId(0)
}

fn payload_bytes(frame: &Frame) -> usize {
    let value = |f: &Fragment| match f.cell.as_ref().map(Cell::payload) {
        Some(Payload::Value(value)) => value.len(),
        Some(Payload::Tombstone | Payload::Absent) | None => 0,
    };
    frame.parts.iter().flat_map(Part::fragments).map(|f| f.key.len() + value(f)).sum()
}

fn bench_encode(bencher: Bencher<'_, '_>, kind: Kind, deltas: usize) {
    let (frame, spaces, mut encoder) = (frame(kind, deltas), spaces(), Encoder::default());
    bencher.counter(ItemsCount::new(deltas)).bench_local(|| encoder.encode_frame(&frame, &spaces).unwrap());
}

fn bench_decode(bencher: Bencher<'_, '_>, kind: Kind, deltas: usize) {
    let (spaces, mut decoder, limits) = (spaces(), Decoder::default(), Limits::default());
    let bytes = Encoder::default().encode_frame(&frame(kind, deltas), &spaces).unwrap();
    bencher.counter(ItemsCount::new(deltas)).bench_local(|| decoder.decode_frame(&bytes, &spaces, &limits).unwrap());
}

#[divan::bench(args = SIZES)]
fn encode_incompressible(bencher: Bencher<'_, '_>, deltas: usize) {
    bench_encode(bencher, Kind::Noise, deltas);
}

#[divan::bench(args = SIZES)]
fn encode_json_sessions(bencher: Bencher<'_, '_>, deltas: usize) {
    bench_encode(bencher, Kind::Json, deltas);
}

#[divan::bench(args = SIZES)]
fn decode_incompressible(bencher: Bencher<'_, '_>, deltas: usize) {
    bench_decode(bencher, Kind::Noise, deltas);
}

#[divan::bench(args = SIZES)]
fn decode_json_sessions(bencher: Bencher<'_, '_>, deltas: usize) {
    bench_decode(bencher, Kind::Json, deltas);
}

/// Compression alone, of the bytes a frame has before it.
#[divan::bench(args = SIZES)]
fn compress_json_sessions(bencher: Bencher<'_, '_>, deltas: usize) {
    let plain: Vec<u8> = frame(Kind::Json, deltas)
        .parts
        .iter()
        .flat_map(Part::fragments)
        .filter_map(|f| match f.cell.as_ref().map(Cell::payload) {
            Some(Payload::Value(value)) => Some([f.key.as_ref(), value.as_ref()].concat()),
            Some(Payload::Tombstone | Payload::Absent) | None => None,
        })
        .flatten()
        .collect();
    let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
    bencher.counter(ItemsCount::new(deltas)).bench_local(|| zstd.compress(&plain).unwrap());
}
