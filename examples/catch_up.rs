//! Measures how soon a node has what it missed, over real QUIC on loopback.
//!
//! Two nodes in this process, with a relay between them that can cut the path. One writes while the other is cut off; the
//! time counts from the instant the writer has a link again until the other one has seen every write. Beside it: how long a
//! node without anything takes to join with as much.
//!
//! # Invariants
//! * Every write that is waited for was made while the path was cut, to a key of its own.

#[path = "support/dev_ca.rs"]
#[expect(dead_code, reason = "the demos write certificates to files")]
mod dev_ca;
#[path = "support/wan/mod.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the demos count what passes"))]
mod wan;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use driftless::config::{IdentityConfig, Pem};
use driftless::id::{NodeId, RegionId};
use driftless::runtime::uri_of;
use driftless::{Cache, Config, Event, Level, Token, Ttl};
use serde_bytes::ByteBuf;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use dev_ca::{DevCa, Leaf};
use wan::{Wan, Weather};

/// Measures how soon a node that was cut off has what it missed, and how soon a new one has everything.
#[derive(Parser, Debug)]
#[command(name = "catch_up")]
struct Cli {
    /// Writes missed, each to a key of its own.
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    writes: u32,
    /// Bytes of a value, all random.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value: usize,
    /// How often.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Writes the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// A path that only passes on.
const CLEAR: Weather = Weather { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0 };

#[tokio::main]
async fn main() -> ExitCode {
    let result = run(&Cli::parse()).await;
    if let Err(error) = &result {
        drop(writeln!(std::io::stderr(), "{error}"));
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let (mut missed, mut joined) = (Vec::new(), Vec::new());
    for _ in 0..cli.rounds.max(1) {
        let (one, other) = round(cli).await?;
        missed.push(one);
        joined.push(other);
    }
    missed.sort_unstable();
    joined.sort_unstable();
    let of = |all: &[Duration]| {
        let ms = |at: Option<&Duration>| at.map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
        (ms(all.get(all.len() / 2)), ms(all.last()))
    };
    let (missed, joined) = (of(&missed), of(&joined));
    if let Some(file) = &cli.json {
        let figures = json!({
            "writes": cli.writes,
            "value_bytes": cli.value,
            "caught_up_ms": { "p50": missed.0, "max": missed.1 },
            "joined_ms": { "p50": joined.0, "max": joined.1 },
        });
        std::fs::write(file, figures.to_string())?;
    }
    Ok(write!(
        std::io::stdout(),
        "{} writes of {} B, {} rounds           median     longest\n  missed while cut off, until seen  {:>8.0} ms {:>8.0} ms\n  joining with as much              {:>8.0} ms {:>8.0} ms\n",
        cli.writes,
        cli.value,
        cli.rounds.max(1),
        missed.0,
        missed.1,
        joined.0,
        joined.1,
    )?)
}

/// Returns how long what was missed took, and how long a third node took to join.
async fn round(cli: &Cli) -> Result<(Duration, Duration), Box<dyn Error>> {
    let ca = DevCa::new()?;
    let wan = Wan::start(2, 1, |_, _| CLEAR).await?;
    let writer = Cache::open(config(&ca, 0, &[])?).await?;
    wan.set_target(0, writer.local_addr());
    let behind = Cache::open(config(&ca, 1, &[wan.entrance(1, 0)?.to_string()])?).await?;
    let keys = writer.registers::<u32, ByteBuf>("keys")?;
    keys.set(&0, &ByteBuf::new(), Ttl::NEVER)?.reached(Level::All).within(PATIENCE).await;

    let mut events = writer.events();
    wan.cut(1);
    until(&mut events, |event| matches!(event, Event::Unreachable { .. })).await?;
    let mut token = Token::new();
    for key in 0..cli.writes {
        let value = ByteBuf::from(std::iter::repeat_with(|| fastrand::u8(..)).take(cli.value).collect::<Vec<u8>>());
        token.observe(&keys.set(&key, &value, Ttl::NEVER)?);
    }
    wan.heal(1);
    until(&mut events, |event| matches!(event, Event::Up { .. })).await?;
    let began = Instant::now();
    if !behind.caught_up(&token, PATIENCE).await {
        return Err("the node that was cut off never caught up".into());
    }
    let missed = began.elapsed();

    let began = Instant::now();
    let newcomer = Cache::open(config(&ca, 2, &[writer.local_addr().to_string()])?).await?;
    if !newcomer.caught_up(&token, PATIENCE).await {
        return Err("the new node never joined".into());
    }
    let joined = began.elapsed();
    for cache in [newcomer, behind, writer] {
        cache.shutdown().await;
    }
    Ok((missed, joined))
}

fn config(ca: &DevCa, at: u128, peers: &[String]) -> Result<Config, Box<dyn Error>> {
    let region = ["writer", "behind", "newcomer"].get(usize::try_from(at)?).copied().unwrap_or_default();
    let pem = ca.issue(&Leaf::new(uri_of(&RegionId::new(region), NodeId(Uuid::from_u128(at + 1)))))?;
    let text = |pem: String| Pem::Text(pem.into_bytes());
    let identity = IdentityConfig { certificate: text(pem.certificate), key: text(pem.key), authorities: text(pem.ca) };
    Ok(Config::dev(region, "127.0.0.1:0")
        .identity(identity)
        .peers(peers.iter().cloned())
        .advertise(Vec::<String>::new()))
}

async fn until(events: &mut driftless::Events, is: impl Fn(&Event) -> bool) -> Result<(), Box<dyn Error>> {
    let found = async { while events.recv().await.is_ok_and(|event| !is(&event)) {} };
    Ok(tokio::time::timeout(PATIENCE, found).await?)
}
