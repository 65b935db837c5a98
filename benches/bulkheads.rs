//! What a slow peer costs the callers of the others: three nodes in this process over QUIC, one of them behind a relay that
//! carries all it is given or a thousandth of that, in turn. Latencies of local writes and reads, the ratio of their 99th
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dev_ca::{DevCa, Leaf};
use driftless::config::{IdentityConfig, Pem};
use driftless::id::{NodeId, RegionId};
use driftless::runtime::uri_of;
use driftless::{Cache, Config, Registers, Ttl};
use tokio::net::UdpSocket;

const ROUNDS: usize = 7;
const KEYS: u64 = 2_000;
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

async fn open(ca: &DevCa, at: u128, region: &str, peers: &[std::net::SocketAddr]) -> Result<Cache, Box<dyn Error>> {
    let node = NodeId(uuid::Uuid::from_u128(at));
    let pem = ca.issue(&Leaf::new(uri_of(&RegionId::new(region), node)))?;
    let text = |pem: String| Pem::Text(pem.into_bytes());
    let identity = IdentityConfig { certificate: text(pem.certificate), key: text(pem.key), authorities: text(pem.ca) };
    let config = Config::dev(region, "127.0.0.1:0").identity(identity).peers(peers.iter().map(ToString::to_string));
    Ok(Cache::open(config).await?)
}

/// The 99th percentiles of a round's writes and reads, in nanoseconds.
fn round(numbers: &Registers<u64, Vec<u8>>, seed: u64) -> Result<(u64, u64), Box<dyn Error>> {
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let ca = DevCa::new()?;
    let us = open(&ca, 1, "us", &[]).await?;
    let good = open(&ca, 2, "good", &[us.local_addr()]).await?;
    let front = UdpSocket::bind("127.0.0.1:0").await?;
    let (path, budget) = (front.local_addr()?, Arc::new(AtomicUsize::new(FAST)));
    let relayed = tokio::spawn(relay(front, us.local_addr(), Arc::clone(&budget)));
    let slow = open(&ca, 3, "slow", &[path]).await?;
    let numbers = us.registers::<u64, Vec<u8>>("numbers")?;
    round(&numbers, 1)?;
    let mut found = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    let (mut lags, mut memory) = ([0, 0], [0.0, 0.0]);
    for n in 0..ROUNDS * 2 {
        let bad = n % 2;
        budget.store(if bad == 1 { FAST / 1_000 } else { FAST }, Ordering::Relaxed);
        good.reset_lag().await;
        let (write, read) = tokio::task::block_in_place(|| round(&numbers, n as u64))?;
        if let (Some((writes, reads)), Some(lag), Some(mib)) =
            (found.get_mut(bad), lags.get_mut(bad), memory.get_mut(bad))
        {
            writes.push(write);
            reads.push(read);
            let peers = good.stats().await.node.peers;
            *lag = peers.iter().filter_map(|peer| peer.lag.quantile(0.99)).max().unwrap_or(0).max(*lag);
            *mib = resident().max(*mib);
        }
    }
    let [(mut w0, mut r0), (mut w1, mut r1)] = found;
    let rows = [("set", median(&mut w0), median(&mut w1)), ("get", median(&mut r0), median(&mut r1))];
    for (name, without, with) in rows {
        println!(
            "{name} p99: {without} ns, with a peer at 1/1000 of the speed {with} ns: x {:.2}",
            with as f64 / without as f64
        );
    }
    println!("lag p99 at the healthy peer: {} ms, with {} ms (the worst round)", lags[0], lags[1]);
    println!("resident: {:.0} MiB, with {:.0} MiB (the largest)", memory[0], memory[1]);
    relayed.abort();
    for cache in [us, good, slow] {
        cache.shutdown().await;
    }
    Ok(())
}
