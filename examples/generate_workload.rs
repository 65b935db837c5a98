//! Makes a workload file: sessions, carts and rate limits of a shop with customers on three
//! continents.
//!
//! Customers are drawn by a Zipf law (the n-th most active is n times rarer than the first). Most
//! stay in their home region; two in five roam, so that two regions work on the same session and
//! cart at about the same time, which is where conflicts come from. A customer signs in, looks
//! around, fills and empties a cart, checks out, signs out; guests have sessions of seconds, so
//! that expiry happens while the file is replayed. Every request counts against a rate limit, and
//! those name no region: any region counts any address.
//!
//! # Invariants
//! * Equal arguments make equal files: the generator is `SplitMix64` (Steele et al., OOPSLA 2014),
//!   written out here so that no dependency's update can change a file.
//! * `examples/data/workload.jsonl` is what the defaults make; a test holds it to that.

#[path = "support/workload.rs"]
#[expect(dead_code, reason = "a generator issues nothing")]
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Value, json};

use workload::{Action, Op};

/// Writes a workload of sessions, carts and rate limits as JSON lines.
#[derive(Parser, Debug)]
#[command(name = "generate_workload")]
struct Cli {
    /// Equal seeds make equal files.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// How many operations.
    #[arg(long, default_value_t = OPS)]
    ops: usize,
    /// The file to write.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/workload.jsonl"))]
    out: PathBuf,
}

const SEED: u64 = 7;
const OPS: usize = 24_000;

/// Customers; with a Zipf law the first ten make a third of the traffic.
const CUSTOMERS: usize = 2_000;
const ADDRESSES: usize = 300;
const PRODUCTS: u64 = 400;
const HOMES: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];

const MINUTE_MS: u64 = 60_000;
/// A guest's session: expires several times while the file is replayed.
const GUEST_MS: u64 = 3_000;
/// An item reserved in a cart.
const RESERVED_MS: u64 = 4_000;
/// The window of a rate limit.
const WINDOW_MS: u64 = 5_000;

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let text = generate(cli.seed, cli.ops)?;
    workload::parse(&text)?;
    std::fs::write(&cli.out, text).map_err(|e| format!("{}: {e}", cli.out.display()))?;
    Ok(())
}

fn generate(seed: u64, ops: usize) -> Result<String, serde_json::Error> {
    let mut shop = Shop::new(seed);
    let mut text = String::new();
    for _ in 0..ops {
        text.push_str(&workload::render(&shop.next())?);
        text.push('\n');
    }
    Ok(text)
}

/// `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.below(u64::try_from(of.len()).unwrap_or(1))).unwrap_or(0);
        of.get(at).copied().unwrap_or_default()
    }
}

/// A Zipf law with exponent 1, in whole numbers, so that every machine draws the same.
struct Zipf {
    sums: Vec<u64>,
}

impl Zipf {
    fn new(n: usize) -> Self {
        let weights = (1_u64..).take(n).map(|rank| 1_000_000_000 / rank);
        let sums = weights.scan(0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self { sums: sums.collect() }
    }

    fn draw(&self, dice: &mut Dice) -> usize {
        let at = dice.below(self.sums.last().copied().unwrap_or(1));
        self.sums.partition_point(|sum| *sum <= at)
    }
}

/// What the generator remembers of the customers.
struct Shop {
    dice: Dice,
    customers: Zipf,
    addresses: Zipf,
    /// Page views of those who are signed in.
    signed_in: BTreeMap<usize, u64>,
    carts: BTreeMap<usize, BTreeSet<String>>,
}

impl Shop {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            customers: Zipf::new(CUSTOMERS),
            addresses: Zipf::new(ADDRESSES),
            signed_in: BTreeMap::new(),
            carts: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> Op {
        match self.dice.below(100) {
            0..55 => self.session(),
            55..78 => self.cart(),
            _ => self.limit(),
        }
    }

    /// The home of a customer, or for those who roam wherever they happen to be.
    fn region(&mut self, customer: usize) -> Option<String> {
        let roams = customer % 5 < 2;
        let home = HOMES.get(customer % 3).copied().unwrap_or_default();
        Some(if roams { self.dice.pick(&HOMES) } else { home }.to_owned())
    }

    fn session(&mut self) -> Op {
        let customer = self.customers.draw(&mut self.dice);
        let guest = customer % 10 == 9;
        let ttl_ms = if guest { GUEST_MS } else { 30 * MINUTE_MS };
        let views = self.signed_in.get(&customer).copied();
        let action = match (views, self.dice.below(100)) {
            (None, 0..30) => Action::Get,
            (None, _) => {
                self.signed_in.insert(customer, 1);
                Action::Set { value: self.profile(customer, 1), ttl_ms: Some(ttl_ms) }
            }
            (Some(_), 0..50) => Action::Get,
            (Some(views), 50..82) => {
                self.signed_in.insert(customer, views + 1);
                Action::Set { value: self.profile(customer, views + 1), ttl_ms: Some(ttl_ms) }
            }
            (Some(_), 82..95) => Action::Touch { ttl_ms },
            (Some(_), _) => {
                self.signed_in.remove(&customer);
                Action::Delete
            }
        };
        self.op("sessions", format!("s:{customer:04}"), action, customer)
    }

    /// About 200 bytes of JSON.
    fn profile(&mut self, customer: usize, views: u64) -> Value {
        let dice = &mut self.dice;
        let first = dice.pick(&["Ada", "Grace", "Edsger", "Barbara", "Leslie", "Radia", "Tony", "Frances"]);
        let page = dice.pick(&["/", "/search", "/product", "/cart", "/checkout", "/account", "/help"]);
        let agent = dice.pick(&["Firefox/138.0", "Chrome/136.0", "Safari/18.4", "Edge/136.0"]);
        json!({
            "role": "customer",
            "theme": dice.pick(&["dark", "light"]),
            "user": format!("u{customer:04}"),
            "name": first,
            "mail": format!("{}{customer}@example.com", first.to_lowercase()),
            "lang": dice.pick(&["en-US", "de-DE", "ja-JP", "fr-FR"]),
            "agent": agent,
            "ip": format!("203.0.113.{}", dice.below(256)),
            "csrf": format!("{:016x}", dice.next()),
            "page": page,
            "views": views,
        })
    }

    fn cart(&mut self) -> Op {
        let customer = self.customers.draw(&mut self.dice);
        let held = self.carts.entry(customer).or_default();
        let nth = usize::try_from(self.dice.below(u64::try_from(held.len()).unwrap_or(1))).unwrap_or(0);
        let one = held.iter().nth(nth).cloned();
        let action = match (one, self.dice.below(100)) {
            (Some(field), 0..32) => Action::GetField { field },
            (Some(field), 32..46) => {
                held.remove(&field);
                Action::Remove { field }
            }
            (Some(_), 46..50) => {
                held.clear();
                Action::Clear
            }
            (None, 0..10) => Action::GetField { field: format!("sku-{:03}", self.dice.below(PRODUCTS)) },
            (one, roll) => {
                // Half of the time the amount of something already there changes.
                let fresh = format!("sku-{:03}", self.dice.below(PRODUCTS));
                let field = if roll % 2 == 0 { one.unwrap_or(fresh) } else { fresh };
                held.insert(field.clone());
                let ttl_ms = if self.dice.one_in(12) { RESERVED_MS } else { 24 * 60 * MINUTE_MS };
                Action::Put { field, value: json!(1 + self.dice.below(5)), ttl_ms: Some(ttl_ms) }
            }
        };
        self.op("carts", format!("c:{customer:04}"), action, customer)
    }

    fn limit(&mut self) -> Op {
        let address = self.addresses.draw(&mut self.dice);
        let key = format!("ip:{address:03}");
        let action = match self.dice.below(100) {
            0..68 => Action::Incr { by: 1, ttl_ms: Some(WINDOW_MS) },
            68..98 => Action::Count,
            _ => Action::Reset,
        };
        Op { keyspace: "limits".to_owned(), key, action, region: None }
    }

    fn op(&mut self, keyspace: &str, key: String, action: Action, customer: usize) -> Op {
        Op { keyspace: keyspace.to_owned(), key, action, region: self.region(customer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_file_is_what_the_defaults_make() {
        let committed = include_str!("data/workload.jsonl");
        assert_eq!(generate(SEED, OPS).unwrap(), committed);
        assert!(committed.len() < 4 << 20, "{} bytes", committed.len());
    }

    #[test]
    fn it_is_large_enough_has_every_operation_and_regions_meet_at_keys() {
        let ops = workload::parse(&generate(SEED, OPS).unwrap()).unwrap();
        assert!(ops.len() >= 20_000);
        let kinds: BTreeSet<_> =
            ops.iter().map(|op| std::mem::discriminant(&op.action)).map(|d| format!("{d:?}")).collect();
        assert_eq!(kinds.len(), 11);
        let mut regions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for op in &ops {
            if let (Action::Set { .. }, Some(region)) = (&op.action, &op.region) {
                regions.entry(&op.key).or_default().insert(region);
            }
        }
        let shared = regions.values().filter(|r| r.len() > 1).count();
        assert!(shared > 50, "{shared} sessions are written in more than one region");
    }

    #[test]
    fn a_session_is_about_200_bytes() {
        let mut shop = Shop::new(1);
        let bytes: Vec<usize> = (0..1_000).map(|n| shop.profile(n, 3).to_string().len()).collect();
        let mean = bytes.iter().sum::<usize>() / bytes.len();
        assert!((180..220).contains(&mean), "{mean}");
    }
}
