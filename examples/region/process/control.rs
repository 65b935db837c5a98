//! A region driven by the demo: commands come in, reports and records go out.
//!
//! One loop owns the replica and does everything in turn: the next operation when it is due, a
//! command when one came, an acknowledgement when one arrived.
//!
//! # Invariants
//! * A write's record is flushed before the next operation is issued.
//! * A turn issues at most [`BURST`] operations, so commands are answered while a replay is behind.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{Instant, sleep_until};

use super::replica::{Applied, Replica, Setup};
use crate::support::protocol::{Command, Contexts, Dump, Report, Stats};
use crate::support::wall_ms;
use crate::support::workload::Op;

/// Operations issued in one turn when a replay has fallen behind.
const BURST: usize = 64;

/// How often an awaited context is looked at: finer than the delays it is compared with.
const LOOK: Duration = Duration::from_millis(5);

/// Starts the replica and tells the demo how that went.
pub(crate) async fn start(setup: Setup) -> Result<Replica, Box<dyn Error>> {
    let region = setup.region.clone();
    match Replica::start(setup).await {
        Ok(replica) => {
            say(&Report::Ready { region, replica: replica.id(), listen: replica.listen().to_string() })?;
            Ok(replica)
        }
        Err(error) => {
            say(&Report::Failed { reason: error.to_string() })?;
            Err(error)
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

/// Which region this is and whose turn it takes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) region: String,
    pub(crate) turn: (usize, usize),
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stay {
    Yes,
    No,
}

/// A replay under way.
#[derive(Debug)]
struct Run {
    next: usize,
    to: usize,
    pause: Duration,
    due: Instant,
}

/// The loop.
#[derive(Debug)]
pub(crate) struct Control {
    replica: Replica,
    ops: Arc<[Op]>,
    place: Place,
    tally: Stats,
    run: Option<Run>,
    target: Option<(u64, Contexts)>,
    /// Whether reports go to standard output; a replay without the demo keeps them to itself.
    told: bool,
}

impl Control {
    pub(crate) fn new(replica: Replica, ops: Arc<[Op]>, place: Place) -> Self {
        Self { replica, ops, place, tally: Stats::default(), run: None, target: None, told: true }
    }

    /// Serves the demo until it says `quit` or goes away.
    pub(crate) async fn serve(mut self) -> Result<(), Box<dyn Error>> {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        loop {
            let due = self.run.as_ref().map(|run| run.due);
            let look = self.target.as_ref().map(|_| Instant::now() + LOOK);
            tokio::select! {
                line = lines.next_line() => match line? {
                    Some(line) => if self.answer(serde_json::from_str(&line)?).await? == Stay::No {
                        break;
                    },
                    None => break,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.issue_due()?,
                () = sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => {}
                dot = self.replica.acked() => say(&Report::Acked { dot })?,
            }
            self.look_for_target()?;
        }
        self.replica.shutdown().await;
        Ok(())
    }

    /// Replays the whole share once, shows what it came to, and serves peers until interrupted.
    pub(crate) async fn replay(mut self, rate: f64) -> Result<(), Box<dyn Error>> {
        self.told = false;
        self.begin(0, self.ops.len(), rate);
        while let Some(due) = self.run.as_ref().map(|run| run.due) {
            tokio::select! {
                () = sleep_until(due) => self.issue_due()?,
                _ = self.replica.acked() => {}
                stopped = tokio::signal::ctrl_c() => {
                    stopped?;
                    self.replica.shutdown().await;
                    return Ok(());
                }
            }
        }
        let Stats { reads, hits, writes, refused, .. } = self.tally;
        let name = &self.place.region;
        writeln!(std::io::stdout(), "{name}: {writes} writes, {reads} reads, {hits} hits, {refused} refused; serving")?;
        tokio::signal::ctrl_c().await?;
        self.replica.shutdown().await;
        Ok(())
    }

    async fn answer(&mut self, command: Command) -> Result<Stay, Box<dyn Error>> {
        match command {
            Command::Run { from, to, rate } => self.begin(from, to, rate),
            Command::Mark => {
                self.replica.mark().await;
                say(&Report::Marked)?;
            }
            Command::Stats => {
                let mut stats = self.tally.clone();
                self.replica.measure(&mut stats).await;
                say(&Report::Stats(Box::new(stats)))?;
            }
            Command::Dump => say(&Report::Dump(Box::new(self.dump()?)))?,
            Command::Digest => say(&Report::Digest { digest: digest(&self.replica.contexts())? })?,
            Command::Contexts => say(&Report::Contexts(Box::new(self.replica.contexts())))?,
            Command::Reach { id, target } => self.target = Some((id, target)),
            Command::Quit => return Ok(Stay::No),
        }
        Ok(Stay::Yes)
    }

    fn dump(&mut self) -> Result<Dump, Box<dyn Error>> {
        let from_ms = wall_ms();
        let cells = self.replica.dump()?;
        let contexts = self.replica.contexts();
        Ok(Dump { region: self.place.region.clone(), from_ms, to_ms: wall_ms(), contexts, cells })
    }

    fn begin(&mut self, from: usize, to: usize, rate: f64) {
        // Slower than one an hour is not a rate, and no rate at all is as fast as it goes.
        let pause = Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::ZERO).min(Duration::from_secs(3_600));
        self.run = Some(Run { next: from, to: to.min(self.ops.len()), pause, due: Instant::now() });
    }

    fn issue_due(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(mut run) = self.run.take() else { return Ok(()) };
        let ops = Arc::clone(&self.ops);
        for _ in 0..BURST {
            let mine = |index: &usize| {
                ops.get(*index).is_some_and(|op| op.is_for(*index, &self.place.region, self.place.turn))
            };
            let Some(index) = (run.next..run.to).find(mine) else {
                return self.tell(&Report::RunDone { to: run.to });
            };
            if run.due > Instant::now() {
                break;
            }
            if let Some(op) = ops.get(index) {
                self.issue(index, op)?;
            }
            run.next = index.saturating_add(1);
            run.due += run.pause;
        }
        self.run = Some(run);
        Ok(())
    }

    fn issue(&mut self, index: usize, op: &Op) -> Result<(), Box<dyn Error>> {
        match self.replica.apply(index, op) {
            Ok(Applied::Written(record)) => {
                self.tally.writes += 1;
                self.tell(&Report::Wrote(record))
            }
            Ok(Applied::Read(value)) => {
                self.tally.reads += 1;
                self.tally.hits += u64::from(value.is_some());
                Ok(())
            }
            Ok(Applied::NoEffect) => self.tell(&Report::NoEffect { index }),
            Err(error) => {
                self.tally.refused += 1;
                self.tell(&Report::Refused { index, reason: error.to_string() })
            }
        }
    }

    fn look_for_target(&mut self) -> Result<(), Box<dyn Error>> {
        match &self.target {
            Some((id, target)) if self.replica.contexts().includes(target) => {
                let id = *id;
                self.target = None;
                say(&Report::Reached { id })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn tell(&self, report: &Report) -> Result<(), Box<dyn Error>> {
        if self.told { say(report) } else { Ok(()) }
    }
}

fn digest(contexts: &Contexts) -> Result<String, Box<dyn Error>> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(contexts)?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
