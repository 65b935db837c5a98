//! What it costs to find and to repair differences between two copies of a million keys: bytes beyond the entries, round
//! trips, and the time each side computes.
//!
//! `cargo bench --bench repair`. The copies are two stores of one process; every message goes through the wire's encoder
//! and decoder.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark reads the clock and prints"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use driftless::clock::{Hlc, Mono};
use driftless::config::Config;
use driftless::id::ReplicaId;
use driftless::repair::session::At;
use driftless::repair::{Found, Session};
use driftless::store::{Around, Budget, Family, Fragment, Gate, Intent, KeyRef, Keyspace, Store};
use driftless::wire::{Control, Decoder, Encoder, Frame, Limits, Part, Repair, Restore};

const KEYS: u64 = 1_000_000;
const WALL_MS: u64 = 1_700_000_000_000;

fn store(id: u64) -> Store {
    let mut config = Config::dev("r", "127.0.0.1:0").store();
    config.log_records_max = 4 << 20;
    let store = Store::new(ReplicaId(id), config);
    store.set_gate(Gate::Open);
    store.spaces().open("keys", Family::Register).unwrap();
    store
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("user:session:{n:08}"))
}

fn write(store: &Store, space: &Keyspace, n: u64) {
    let key = key(n);
    let at = KeyRef::new(space, &key);
    let intent = Intent { wall_ms: WALL_MS, value_len: None };
    let value = Bytes::from(vec![7_u8; 100]);
    store.write(&at, intent, |p, tick| p.set(&at, value, u64::MAX, tick)).unwrap();
}

/// The teller's copy of what `from` has, but for the values of some keys, of which it has only noted the events.
fn copied(from: &Store, lost: &BTreeSet<Bytes>) -> Store {
    let to = store(2);
    let around = Around { spaces: to.spaces(), collect_before_ms: 0 };
    for id in from.partition_ids() {
        let budget = Budget { fragments: usize::MAX, bytes: usize::MAX };
        let mut batch = from.read(id).unwrap().capture_own(0, budget).batch;
        batch.fragments.iter_mut().filter(|f| lost.contains(&f.key)).for_each(|f| f.cell = None);
        to.lock(id).unwrap().apply(from.me(), &batch, &around).unwrap();
    }
    to
}

struct Pair<'a> {
    stores: [&'a Store; 2],
    sessions: [Session; 2],
    spent: [Duration; 2],
    overhead: usize,
    payload: usize,
    messages: u32,
    found: u64,
    verified: usize,
}

impl<'a> Pair<'a> {
    fn at(&self, side: usize) -> At<'a> {
        At { mono: Mono(0), visible_ms: WALL_MS, store: self.stores[side] }
    }

    fn compare(&mut self, salt: u64) {
        let start = Instant::now();
        let at = self.at(0);
        let mut said: Vec<(usize, Repair)> = self.sessions[0].verify(at, salt).into_iter().map(|m| (1, m)).collect();
        self.spent[0] += start.elapsed();
        while !said.is_empty() {
            self.messages += 1;
            let mut replies = Vec::new();
            for (to, message) in said {
                let bytes = Encoder::default().encode_control(&Control::Repair(message)).unwrap();
                self.overhead += bytes.len();
                let Ok(Control::Repair(message)) = Decoder::default().decode_control(&bytes, &Limits::default()) else {
                    continue;
                };
                let (at, start) = (self.at(to), Instant::now());
                let step = self.sessions[to].on(at, message);
                self.spent[to] += start.elapsed();
                step.found.into_iter().for_each(|found| self.note(found));
                replies.extend(step.send.into_iter().map(|message| (1 - to, message)));
            }
            self.give();
            said = replies;
        }
    }

    fn note(&mut self, found: Found) {
        match found {
            Found::Verified(_) => self.verified += 1,
            Found::Differs(_, keys) => self.found += keys,
            Found::Spared(_) | Found::Lagging(_) | Found::Elusive(_) => {}
        }
    }

    fn give(&mut self) {
        for from in [0, 1] {
            loop {
                let start = Instant::now();
                let Some(gift) = self.sessions[from].next_gift(self.stores[from]) else { break };
                self.spent[from] += start.elapsed();
                let (id, to) = (gift.partition, 1 - from);
                let hlc = Hlc(u64::MAX >> 8);
                let frame = Frame { from: self.stores[from].me(), hlc, parts: vec![Part::Restore(gift)] };
                self.payload += Encoder::default().encode_frame(&frame, self.stores[from].spaces()).unwrap().len();
                let Some(Part::Restore(Restore { fragments, .. })) = frame.parts.into_iter().next() else { break };
                self.restore(to, id, &fragments);
            }
        }
    }

    fn restore(&mut self, to: usize, id: driftless::id::PartitionId, fragments: &[Fragment]) {
        let start = Instant::now();
        let frozen = self.sessions[to].frozen(id).unwrap();
        let around = Around { spaces: self.stores[to].spaces(), collect_before_ms: 0 };
        let restored = self.stores[to].lock(id).unwrap().restore(frozen, fragments, &around);
        self.spent[to] += start.elapsed();
        assert!(restored.answers.is_empty(), "nobody has more here");
    }
}

fn main() {
    let full = store(1);
    let space = full.spaces().find("keys").unwrap();
    (0..KEYS).for_each(|n| write(&full, &space, n));
    let mut rng = fastrand::Rng::with_seed(5);
    let random = |count: usize, rng: &mut fastrand::Rng| -> BTreeSet<Bytes> {
        let mut all = BTreeSet::new();
        while all.len() < count {
            all.insert(key(rng.u64(..KEYS)));
        }
        all
    };
    println!(
        "{:>24} {:>7} {:>10} {:>8} {:>6} {:>10} {:>9} {:>9}",
        "lost", "found", "overhead", "B each", "trips", "payload", "asker", "teller"
    );
    let cases = [
        ("nothing", BTreeSet::new()),
        ("1 at random", random(1, &mut rng)),
        ("10 at random", random(10, &mut rng)),
        ("1,000 at random", random(1_000, &mut rng)),
        ("1,000 one after another", (500_000..501_000).map(key).collect()),
        ("10,000 at random", random(10_000, &mut rng)),
    ];
    for (name, lost) in cases {
        let other = copied(&full, &lost);
        let mut pair = Pair {
            stores: [&full, &other],
            sessions: [Session::default(), Session::default()],
            spent: [Duration::ZERO; 2],
            overhead: 0,
            payload: 0,
            messages: 0,
            found: 0,
            verified: 0,
        };
        pair.compare(1);
        let (found, overhead, payload) = (pair.found, pair.overhead, pair.payload);
        let trips = f64::from(pair.messages) / 2.0;
        let each = if lost.is_empty() { 0.0 } else { overhead as f64 / lost.len() as f64 };
        let [asker, teller] = pair.spent.map(|spent| spent.as_secs_f64() * 1e3);
        pair.verified = 0;
        pair.compare(2);
        println!(
            "{name:>24} {found:>7} {overhead:>10} {each:>8.1} {trips:>6.1} {payload:>10} {asker:>6.1} ms {teller:>6.1} ms; then {} of {} verified",
            pair.verified,
            2 * full.partition_count(),
        );
    }
}
