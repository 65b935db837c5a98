//! One node of the demo as a process of its own: a replica, a router, and a loop that answers the demo.
//!
//! # Invariants
//! * The process ends when its standard input does, so none outlives the demo that began it.
//! * A request is not served after its client has given up, so no write of a client overtakes its next one.
//! * Every change of the cluster is told with the moment at which the library told it here.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use driftless::config::IdentityConfig;
use driftless::crdt::Ctx;
use driftless::id::RegionId;
use driftless::routing::{Client, RouterConfig};
use driftless::{Cache, Config, Event, Level, Reach, Receipt, Registers, Router, Token, Ttl, WatchError};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::counters::Repaired;
use crate::marks::has_all;
use crate::protocol::{Answer, Asked, Dump, Question, Report, Request, Saw, Served, View, What};
use crate::support::protocol::{Context, Contexts, Dot, Stamp};
use crate::support::wall_ms;
use crate::world;

/// How long a node waits for what a client's token names: longer than most paths, shorter than a client's patience.
const COVERED_WITHIN: Duration = Duration::from_millis(100);
/// How often an awaited context is looked at: finer than the delays it is compared with.
const LOOK: Duration = Duration::from_millis(5);
/// How often the process looks whether it stood still, and where its router sends clients.
const PULSE: Duration = Duration::from_millis(20);
/// A process that stood still for longer says so: half a beat. What takes less delays nobody's verdict by much.
const PAUSE: Duration = Duration::from_millis(50);
/// Questions served at once; far more than there are clients. One beyond is refused.
const QUESTIONS_MAX: usize = 512;
/// Writes whose way to a quorum is followed at once: ten seconds of the demo's traffic in one region. One beyond is not
/// followed and counts as not acknowledged.
const FOLLOWED_MAX: usize = 4_096;
/// Longer than any event; a write that has not reached a quorum by then is not followed any more.
const FOLLOWED_FOR: Duration = Duration::from_secs(60);

/// How a node is started.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct NodeArgs {
    #[arg(long)]
    region: String,
    #[arg(long)]
    listen: SocketAddr,
    /// The address of another node; one for each.
    #[arg(long = "peer", value_name = "ADDR")]
    peers: Vec<SocketAddr>,
    /// A directory with `node.pem`, `node.key` and `ca.pem`.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// How long a region must be well again before its clients are sent back.
    #[arg(long, value_name = "MS")]
    stable_ms: u64,
}

/// Runs a node until it is told to stop.
pub(crate) fn run(args: &NodeArgs) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(serve(args));
            // A thread may still be waiting for a line of standard input; there is nothing to wait for.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed there is nobody left to tell.
            drop(writeln!(std::io::stderr(), "{}: {error}", args.region));
            ExitCode::FAILURE
        }
    }
}

fn say(report: &Report) -> Result<(), Box<dyn Error>> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()?;
    Ok(())
}

async fn serve(args: &NodeArgs) -> Result<(), Box<dyn Error>> {
    let mut config = Config::wan(&args.region, &args.listen.to_string())
        .identity(IdentityConfig::in_dir(&args.identity))
        .peers(args.peers.iter().map(SocketAddr::to_string))
        // Each pair has a path of its own through the relay; nobody may find another beside it.
        .advertise(Vec::<String>::new());
    // The demo's relay is nobody else's: a dedicated link, on which a lost packet is bad luck and no sign of congestion.
    config.replication.loss_tolerant = true;
    let opened = Cache::open(config).await;
    let cache = match opened {
        Ok(cache) => Arc::new(cache),
        Err(error) => {
            say(&Report::Answer { id: 0, answer: Answer::Failed { reason: error.to_string() } })?;
            return Err(error.into());
        }
    };
    let stable_for = Duration::from_millis(args.stable_ms);
    // A region that was cut off for seconds has writes that are seconds old; here that alone keeps no client away.
    let lag_max = Duration::from_secs(60);
    let config = RouterConfig { regions: world::profiles(), stable_for, lag_max, ..RouterConfig::default() };
    let router = cache.router(config);
    let node = Node { entries: cache.registers("shop")?, cache, router };
    say(&Report::Answer { id: 0, answer: Answer::Ready { replica: node.cache.replica().0 } })?;
    node.answer_all().await
}

/// What every question needs; clones share it.
#[derive(Clone)]
struct Node {
    cache: Arc<Cache>,
    router: Router,
    entries: Registers<String, u64>,
}

impl Node {
    /// The loop.
    async fn answer_all(self) -> Result<(), Box<dyn Error>> {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let (mut events, mut open) = (self.cache.events(), JoinSet::new());
        let mut followed: JoinSet<Option<Dot>> = JoinSet::new();
        let (mut pulse, mut last, mut sent) = (interval(PULSE), Instant::now(), vec![None; world::COUNT]);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                line = lines.next_line() => {
                    let Some(line) = line? else { break };
                    let Asked { id, question } = serde_json::from_str(&line)?;
                    if question == Question::Quit {
                        break;
                    }
                    if open.len() >= QUESTIONS_MAX {
                        say(&Report::Answer { id, answer: Answer::Refused { reason: "overloaded".to_owned() } })?;
                    } else {
                        let node = self.clone();
                        open.spawn(async move { (id, node.answer(question).await) });
                    }
                }
                Some(done) = open.join_next() => {
                    let (id, (answer, receipt)) = done?;
                    say(&Report::Answer { id, answer })?;
                    if let Some(receipt) = receipt && followed.len() < FOLLOWED_MAX {
                        followed.spawn(follow(receipt));
                    }
                }
                Some(done) = followed.join_next() => if let Some(dot) = done? {
                    say(&Report::Acked { dot })?;
                },
                event = events.recv() => match event {
                    Ok(event) => if let Some(saw) = saw(&event) {
                        say(&Report::Saw(saw))?;
                    },
                    // What was missed would be missing from the report, and the run could not be judged.
                    Err(error @ (WatchError::Lagged { .. } | WatchError::Undecodable)) => return Err(error.into()),
                    Err(_closed) => break,
                },
                now = pulse.tick() => {
                    let pause = now.max(Instant::now()).duration_since(last).saturating_sub(PULSE);
                    if pause >= PAUSE {
                        let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                        say(&Report::Paused { ms, at_ms: wall_ms() })?;
                    }
                    last = Instant::now();
                    self.tell_where_clients_go(&mut sent)?;
                }
            }
        }
        self.cache.shutdown().await;
        Ok(())
    }

    /// Tells of each region to which its clients are sent from here now, if that has changed.
    fn tell_where_clients_go(&self, sent: &mut [Option<RegionId>]) -> Result<(), Box<dyn Error>> {
        for (region, before) in sent.iter_mut().enumerate() {
            let home = world::name(region);
            let first = self.router.ranking(&Client::in_region(home)).into_iter().next();
            if first != *before {
                let to = first.as_ref().map(ToString::to_string);
                say(&Report::Sends { home: home.to_owned(), to, at_ms: wall_ms() })?;
                *before = first;
            }
        }
        Ok(())
    }

    async fn answer(&self, question: Question) -> (Answer, Option<Receipt>) {
        let answer = match question {
            Question::Serve(request) => match self.serve(&request).await {
                Ok((served, receipt)) => return (Answer::Served(Box::new(served)), Some(receipt)),
                Err(error) => Answer::Refused { reason: error.to_string() },
            },
            Question::Avoid { region, avoid } => {
                self.router.drain(&RegionId::new(&region), avoid);
                Answer::Done
            }
            Question::Praise { region } => {
                self.router.report(&RegionId::new(&region), true);
                Answer::Done
            }
            Question::Drain { within_ms } => match self.cache.drain(Duration::from_millis(within_ms)).await {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Failed { reason: error.to_string() },
            },
            Question::Compare { within_ms } => match self.cache.repair(Duration::from_millis(within_ms)).await {
                Some(report) => Answer::Compared { verified: report.verified, of: report.of },
                None => Answer::Failed { reason: "shut down".to_owned() },
            },
            Question::Contexts => Answer::Contexts(Box::new(contexts(&self.cache))),
            Question::Reach { target } => {
                while !has_all(&contexts(&self.cache), &target) {
                    sleep(LOOK).await;
                }
                Answer::Done
            }
            Question::View => Answer::View(self.view().await),
            Question::Dump => match self.entries.entries() {
                Ok(cells) => Answer::Dump(Box::new(Dump { digest: self.cache.digest(), cells })),
                Err(error) => Answer::Failed { reason: error.to_string() },
            },
            Question::Quit => Answer::Done,
        };
        (answer, None)
    }

    async fn serve(&self, request: &Request) -> Result<(Served, Receipt), Box<dyn Error + Send + Sync>> {
        if let Some(failed) = &request.failed {
            self.router.report(&RegionId::new(failed), false);
        }
        let covered = self.cache.caught_up(&request.token, COVERED_WITHIN).await;
        let session = self.entries.get(&request.session)?;
        if wall_ms() >= request.until_ms {
            return Err("too late".into());
        }
        let receipt = match &request.value {
            Some(value) => self.entries.set(&request.key, value, Ttl::NEVER)?,
            None => self.entries.delete(&request.key)?,
        };
        let mut token = if covered { request.token.clone() } else { Token::new() };
        token.merge(&self.entries.token(&request.session)?);
        self.router.report(self.cache.region(), true);
        let route = self.router.route(&Client::in_region(&request.home));
        let route = route.map(|route| std::iter::once(route.region).chain(route.fallbacks).collect());
        let route: Vec<RegionId> = route.unwrap_or_default();
        let stamp = receipt.stamp();
        let served = Served {
            covered,
            session,
            dot: dot(&receipt),
            stamp: Stamp { hlc: stamp.hlc.0, replica: stamp.replica.0 },
            token,
            route: route.iter().map(ToString::to_string).collect(),
        };
        Ok((served, receipt))
    }

    async fn view(&self) -> View {
        let stats = self.cache.stats().await.node;
        let members = &stats.cluster.members;
        let up = members.iter().filter(|member| member.reach == Reach::Up).count();
        View { members: members.len(), up, repaired: repaired(&stats) }
    }
}

fn repaired(stats: &driftless::node::Stats) -> Repaired {
    let repair = &stats.repair;
    let bytes = repair.overhead_bytes + repair.payload_bytes;
    Repaired { differences: repair.differences, keys: repair.restored, bytes }
}

async fn follow(receipt: Receipt) -> Option<Dot> {
    receipt.reached(Level::Quorum).within(FOLLOWED_FOR).await.reached.then(|| dot(&receipt))
}

fn dot(receipt: &Receipt) -> Dot {
    let dot = receipt.dot();
    Dot { partition: receipt.partition().0, replica: dot.replica.0, seq: dot.seq }
}

fn contexts(cache: &Cache) -> Contexts {
    Contexts(cache.contexts().iter().map(|(id, ctx)| (id.0, context(ctx))).collect())
}

fn context(ctx: &Ctx) -> Context {
    let ranges = |seen: &driftless::crdt::Seen| {
        let contiguous = (seen.base() > 0).then(|| (1, seen.base()));
        contiguous.into_iter().chain(seen.above().iter().copied()).collect()
    };
    Context(ctx.iter().map(|(replica, seen)| (replica.0, ranges(seen))).collect())
}

/// Returns an event as the demo hears it, if it is about who is there.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not about who is there is for the log")]
fn saw(event: &Event) -> Option<Saw> {
    let (what, node, replica) = match event {
        Event::Up { node, replica, .. } => (What::Up, Some(node), Some(replica)),
        Event::Suspect { node, replica, .. } => (What::Suspect, Some(node), Some(replica)),
        Event::Unreachable { node, replica, .. } => (What::Unreachable, Some(node), Some(replica)),
        Event::LinkDown { node, replica, .. } => (What::LinkDown, Some(node), Some(replica)),
        Event::Isolated => (What::Isolated, None, None),
        Event::NotIsolated => (What::NotIsolated, None, None),
        Event::MemberJoined { node, replica, .. } => (What::MemberJoined, Some(node), Some(replica)),
        Event::MemberRemoved { node, replica, .. } => (What::MemberRemoved, Some(node), Some(replica)),
        Event::Removed => (What::Fenced, None, None),
        Event::Twin { replica } => (What::Twin, None, Some(replica)),
        _ => return None,
    };
    Some(Saw { what, node: node.map(ToString::to_string), replica: replica.map(|r| r.0), at_ms: wall_ms() })
}
