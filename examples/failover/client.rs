//! The clients: each is near one region, holds a session, and is served by whichever region the routers name.
//!
//! A client sends its request to the first region of the route it was last given; if that fails it goes to the next one at
//! once, as `Router::call` does, and tells whoever serves it. What it writes and sees is in its token, which it shows with
//! each request: a region that lacks some of it says so.
//!
//! # Invariants
//! * One request of a client is under way at a time, and no two of them write the same value.
//! * A client that a region has not told it is behind must find in its session what it wrote there last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::child::Silent;
use crate::fleet::Access;
use crate::ledger::{FailedAt, Ledger, ServedAt, Written};
use crate::protocol::{Answer, Question, Request, Served};
use crate::support::wall_ms;
use crate::world;

/// How long a client waits for an answer, beyond the way there and back.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between an answer and the next request: from this to twice as much.
const THINK: Duration = Duration::from_millis(40);
/// Keys that all clients write.
const SHARED_KEYS: u64 = 16;
/// Cart entries of one client.
const CART_KEYS: u64 = 6;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    home: usize,
    access: Arc<Access>,
    ledger: Ledger,
    rng: fastrand::Rng,
    token: driftless::Token,
    /// What its session must hold at least; nothing while it has no session.
    session: Option<u64>,
    /// Regions to try, in order.
    route: Vec<usize>,
    /// The region whose router named them, if one did.
    routed_by: Option<usize>,
    /// The region that failed it last.
    failed: Option<usize>,
    /// Requests sent so far.
    sent: u64,
}

/// What became of a request at one region.
enum Attempt {
    Served(Box<Served>),
    /// Nothing was written.
    Refused,
    /// Written or not; nobody said.
    Unanswered,
}

impl Client {
    pub(crate) fn new((number, home): (usize, usize), access: Arc<Access>, ledger: Ledger, seed: u64) -> Self {
        Self {
            number,
            home,
            access,
            ledger,
            rng: fastrand::Rng::with_seed(seed),
            token: driftless::Token::new(),
            session: None,
            route: world::by_distance(home),
            routed_by: None,
            failed: None,
            sent: 0,
        }
    }

    /// Makes requests until the shop is closed.
    pub(crate) async fn run(mut self, closed: Arc<AtomicBool>) {
        self.ledger.open().came.insert(self.number, wall_ms());
        while !closed.load(Ordering::Relaxed) {
            self.request().await;
            sleep(THINK + THINK.mul_f64(self.rng.f64())).await;
        }
    }

    /// Makes one request, at one region after the other until one serves it.
    async fn request(&mut self) {
        let route = std::mem::take(&mut self.route);
        for (tried, region) in route.iter().copied().enumerate() {
            let request = self.next();
            let (session, key, value) = (request.session.clone(), request.key.clone(), request.value);
            match self.attempt(region, request).await {
                Attempt::Served(served) => {
                    let (client, home, by, at_ms) = (self.number, self.home, region, wall_ms());
                    self.ledger.open().served.push(ServedAt { at_ms, client, home, by });
                    self.on_served(*served, session, (key, value));
                    return self.praise(region).await;
                }
                Attempt::Refused => {}
                Attempt::Unanswered => {
                    self.ledger.open().unanswered.insert((key, value));
                }
            }
            let for_good = tried + 1 == route.len();
            self.ledger.open().failed.push(FailedAt { at_ms: wall_ms(), home: self.home, for_good });
            self.failed = Some(region);
        }
        (self.route, self.routed_by) = (world::by_distance(self.home), None);
    }

    /// Tells the router that named a region that it was right; it may not be sure of it yet. Then that region's counts.
    async fn praise(&mut self, region: usize) {
        let by = self.routed_by.replace(region).filter(|by| *by != region);
        if let Some(door) = by.and_then(|by| self.access.door(by, self.number)) {
            // Who does not answer has other worries.
            drop(door.ask(Question::Praise { region: world::name(region).to_owned() }, PATIENCE).await);
        }
    }

    /// Returns the next thing to do: half of all requests write the session, the others the cart or what all share.
    fn next(&mut self) -> Request {
        self.sent += 1;
        let session = format!("session:{}", self.number);
        let own = u64::try_from(self.number).unwrap_or(u64::MAX) << 32;
        let value = own | self.sent;
        let (key, value) = match self.sent % 4 {
            0 | 1 => (session.clone(), Some(value)),
            2 => {
                let (item, deletes) = (self.rng.u64(..CART_KEYS), self.rng.bool());
                (format!("cart:{}:{item}", self.number), (!deletes).then_some(value))
            }
            _ => (format!("shared:{}", self.rng.u64(..SHARED_KEYS)), (!self.rng.bool()).then_some(value)),
        };
        let failed = self.failed.map(|region| world::name(region).to_owned());
        let home = world::name(self.home).to_owned();
        Request { home, session, token: self.token.clone(), key, value, failed, until_ms: 0 }
    }

    /// Makes a request at one region, over the path there and back.
    async fn attempt(&self, region: usize, mut request: Request) -> Attempt {
        let path = world::from_client(self.home, region);
        let patience = path * 2 + PATIENCE;
        let deadline = Instant::now() + patience;
        request.until_ms = wall_ms() + u64::try_from((patience - path).as_millis()).unwrap_or(0);
        sleep(path).await;
        let door = self.access.door(region, self.number);
        let answer = match door.filter(|_| !self.access.is_cut(region)) {
            Some(door) => {
                let left = deadline.saturating_duration_since(Instant::now());
                door.ask(Question::Serve(Box::new(request)), left).await
            }
            None => Err(Silent::Gone),
        };
        sleep(path).await;
        if self.access.is_cut(region) || answer == Err(Silent::Late) {
            sleep_until(deadline).await;
            return Attempt::Unanswered;
        }
        match answer {
            Ok(Answer::Served(served)) => Attempt::Served(served),
            Ok(_) => Attempt::Refused,
            Err(Silent::Gone | Silent::Late) => Attempt::Unanswered,
        }
    }

    fn on_served(&mut self, served: Served, session: String, (key, value): (String, Option<u64>)) {
        let mut pages = self.ledger.open();
        let Served { covered, dot, stamp, .. } = served;
        if !covered {
            pages.behind.push(wall_ms());
            self.session = None;
        }
        if let Some(owed) = self.session {
            let shown = served.session;
            let may_be = shown.is_some_and(|n| n >= owed) || pages.unanswered.contains(&(session.clone(), shown));
            if !may_be {
                pages.forgotten.push(format!("{session} must hold {owed:x} and holds {shown:x?}"));
            }
        }
        if key == session {
            self.session = value;
        }
        pages.writes.push(Written { at_ms: wall_ms(), key, value, dot, stamp });
        drop(pages);
        self.token = served.token;
        self.failed = None;
        self.route = served.route.iter().filter_map(|name| world::region(name)).collect();
        if self.route.is_empty() {
            self.route = world::by_distance(self.home);
        }
    }
}
