//! What a bad peer costs the callers of the others: three nodes in this process over QUIC, one of them behind a relay. In
//! turn nothing is wrong, and then the relay carries a thousandth of what it is given, or nothing at all; the peer floods the
//! others with writes; or it sends what cannot be merged here. Latencies of local writes and reads, the ratios of their 99th
//! percentiles, lag at the healthy peer, and memory.
//!
//! `cargo bench --bench bulkheads`: medians of several rounds of each kind.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a benchmark reads the clock and prints"
)]

#[path = "../examples/support/dev_ca.rs"]
#[expect(dead_code, reason = "nothing is written to files here")]
mod dev_ca;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crdts::GSet;
use dev_ca::{DevCa, Leaf};
use driftless::cache::CacheStats;
use driftless::config::{IdentityConfig, Pem};
use driftless::crdt::custom::{BadState, Erased, MergeState};
use driftless::id::{NodeId, RegionId};
use driftless::node::PeerStats;
use driftless::runtime::uri_of;
use driftless::{Cache, Config, Registers, Ttl};
use tokio::net::UdpSocket;

const ROUNDS: usize = 7;
const KEYS: u64 = 2_000;
/// Keys whose states cannot be merged.
const POISONED: u64 = 100;
/// Writes and as many reads in one round.
const OPS: u64 = 100_000;
/// One write in so long, so that the network has something to carry and the machine is not full.
const PACE: Duration = Duration::from_micros(50);
/// Bytes per tick of a path that is not slow.
const FAST: usize = 1 << 20;
const TICK: Duration = Duration::from_millis(1);

/// A path that carries so many bytes per tick each way, and drops what is more.
async fn relay(front: UdpSocket, to: std::net::SocketAddr, budget: Arc<AtomicUsize>) -> std::io::Result<()> {
    let back = UdpSocket::bind("127.0.0.1:0").await?;
    let (mut there, mut here, mut dialler) = (vec![0; 65_536], vec![0; 65_536], None);
    let (mut left, mut ticks) = (0, tokio::time::interval(TICK));
    loop {
        let max = budget.load(Ordering::Relaxed);
        tokio::select! {
            _ = ticks.tick() => left = (left + max).min(max.max(1_500)),
            got = front.recv_from(&mut there) => {
                let (len, from) = got?;
                dialler = Some(from);
                if let (Some(rest), Some(bytes)) = (left.checked_sub(len), there.get(..len)) {
                    left = rest;
                    back.send_to(bytes, to).await?;
                }
            }
            got = back.recv_from(&mut here) => {
                let (len, _) = got?;
                if let (Some(dialler), Some(rest), Some(bytes)) = (dialler, left.checked_sub(len), here.get(..len)) {
                    left = rest;
                    front.send_to(bytes, dialler).await?;
                }
            }
        }
    }
}

async fn open(
    ca: &DevCa,
    at: u128,
    region: &str,
    peers: &[std::net::SocketAddr],
    merge: Arc<dyn MergeState>,
) -> Result<Cache, Failed> {
    let node = NodeId(uuid::Uuid::from_u128(at));
    let pem = ca.issue(&Leaf::new(uri_of(&RegionId::new(region), node)))?;
    let text = |pem: String| Pem::Text(pem.into_bytes());
    let identity = IdentityConfig { certificate: text(pem.certificate), key: text(pem.key), authorities: text(pem.ca) };
    let config = Config::dev(region, "127.0.0.1:0").identity(identity).peers(peers.iter().map(ToString::to_string));
    Ok(Cache::open(config.custom("notes", "notes/1", merge)).await?)
}

/// The 99th percentiles of a round's writes and reads, in nanoseconds.
fn round(numbers: &Registers<u64, Vec<u8>>, seed: u64) -> Result<(u64, u64), Failed> {
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    let value = vec![7_u8; 200];
    let mut due = Instant::now();
    for n in 0..OPS {
        let key = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed) % KEYS;
        let at = Instant::now();
        drop(numbers.set(&key, &value, Ttl::NEVER)?);
        writes.push(at.elapsed().as_nanos() as u64);
        let at = Instant::now();
        black_box(numbers.get(&key)?);
        reads.push(at.elapsed().as_nanos() as u64);
        due += PACE;
        while Instant::now() < due {
            std::hint::spin_loop();
        }
    }
    Ok((p99(&mut writes), p99(&mut reads)))
}

fn p99(all: &mut [u64]) -> u64 {
    all.sort_unstable();
    all.get(all.len() * 99 / 100).copied().unwrap_or(0)
}

fn median(all: &mut [u64]) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// Resident memory in MiB, where the system tells.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
    pages.map_or(f64::NAN, |pages| pages * 4_096.0 / 1_048_576.0)
}

/// What is wrong with the third node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Burden {
    /// Nothing.
    None,
    /// It takes in a thousandth of what the others do.
    Slow,
    /// It is behind and falls further behind: the path is cut.
    Behind,
    /// It writes as fast as a thread can.
    Flood,
    /// It writes states that the measured node cannot merge.
    Poison,
}

impl Burden {
    const ALL: [Self; 5] = [Self::None, Self::Slow, Self::Behind, Self::Flood, Self::Poison];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Slow => "1/1000 of the speed",
            Self::Behind => "behind, and cut off",
            Self::Flood => "floods",
            Self::Poison => "sends poison",
        }
    }

    fn bytes_per_tick(self) -> usize {
        match self {
            Self::None | Self::Flood | Self::Poison => FAST,
            Self::Slow => FAST / 1_000,
            Self::Behind => 0,
        }
    }
}

type Failed = Box<dyn Error + Send + Sync>;

/// Merges nothing.
#[derive(Debug)]
struct Refuses;

impl MergeState for Refuses {
    fn merge(&self, _: &[u8], _: &[u8]) -> Result<Bytes, BadState> {
        Err(BadState)
    }
}

/// What the bad node writes in the meantime, from a thread of its own, until told that the round is over.
fn misbehave(bad: &Cache, burden: Burden, over: &AtomicBool) -> Result<(), Failed> {
    let numbers = bad.registers::<u64, Vec<u8>>("flood")?;
    let mut written = 0_u64;
    while !over.load(Ordering::Relaxed) {
        match burden {
            Burden::Flood => drop(numbers.set(&(written % KEYS), &vec![7; 200], Ttl::NEVER)?),
            Burden::Poison => {
                note(bad, written % POISONED, written)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Burden::None | Burden::Slow | Burden::Behind => std::thread::sleep(Duration::from_millis(1)),
        }
        written += 1;
    }
    Ok(())
}

/// Adds an item to one of the states that cannot be merged.
fn note(cache: &Cache, key: u64, item: u64) -> Result<(), Failed> {
    let notes = cache.custom::<u64, GSet<u64>>("notes")?;
    notes.update(&key, Ttl::NEVER, |state, _| state.insert(item))?;
    Ok(())
}

/// What was measured under one burden.
#[derive(Default)]
struct Found {
    writes: Vec<u64>,
    reads: Vec<u64>,
    lag_ms: u64,
    mib: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let ca = DevCa::new()?;
    let merges = || Arc::new(Erased::<GSet<u64>>::default());
    let us = open(&ca, 1, "us", &[], Arc::new(Refuses)).await?;
    let good = open(&ca, 2, "good", &[us.local_addr()], merges()).await?;
    let front = UdpSocket::bind("127.0.0.1:0").await?;
    let (path, budget) = (front.local_addr()?, Arc::new(AtomicUsize::new(FAST)));
    let relayed = tokio::spawn(relay(front, us.local_addr(), Arc::clone(&budget)));
    let bad = open(&ca, 3, "bad", &[path], merges()).await?;
    let numbers = us.registers::<u64, Vec<u8>>("numbers")?;
    round(&numbers, 1)?;
    let mut found = Burden::ALL.map(|_| Found::default());
    // What was poisoned stays so: those rounds come last.
    let (poison, others) = Burden::ALL.split_last().ok_or("there is no burden")?;
    let turns = others.iter().cycle().take(others.len() * ROUNDS).chain(std::iter::repeat_n(poison, ROUNDS));
    for (n, burden) in turns.enumerate() {
        let Some(found) = Burden::ALL.iter().position(|known| known == burden).and_then(|at| found.get_mut(at)) else {
            continue;
        };
        if *burden == Burden::Poison {
            (0..POISONED).try_for_each(|key| note(&us, key, n as u64))?;
        }
        budget.store(burden.bytes_per_tick(), Ordering::Relaxed);
        good.reset_lag().await;
        let over = AtomicBool::new(false);
        let (write, read) = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| misbehave(&bad, *burden, &over));
                let found = round(&numbers, n as u64);
                over.store(true, Ordering::Relaxed);
                other.join().map_err(|_panicked| "the bad node panicked")??;
                found
            })
        })?;
        budget.store(FAST, Ordering::Relaxed);
        found.writes.push(write);
        found.reads.push(read);
        let of_us = |peer: &&PeerStats| peer.replica == us.replica();
        let lag = good.stats().await.node.peers.iter().find(of_us).and_then(|peer| peer.lag.quantile(0.99));
        found.lag_ms = found.lag_ms.max(lag.unwrap_or(0));
        found.mib = found.mib.max(resident());
    }
    show(found, &us.stats().await);
    relayed.abort();
    for cache in [us, good, bad] {
        cache.shutdown().await;
    }
    Ok(())
}

fn show(found: [Found; 5], stats: &CacheStats) {
    let mut without = (1.0, 1.0);
    println!("the third node         set p99        x   get p99        x   lag p99   resident");
    for (burden, mut found) in Burden::ALL.into_iter().zip(found) {
        let (write, read) = (median(&mut found.writes), median(&mut found.reads));
        if burden == Burden::None {
            without = (write as f64, read as f64);
        }
        println!(
            "{:<20} {write:>7} ns {:>8.2} {read:>6} ns {:>8.2} {:>6} ms {:>6.0} MiB",
            burden.name(),
            write as f64 / without.0,
            read as f64 / without.1,
            found.lag_ms,
            found.mib
        );
    }
    println!("quarantined at the measured node: {}, {} of them open", stats.node.quarantined, stats.node.poisons.len());
}
