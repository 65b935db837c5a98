//! The three regions together: started, driven, cut off, killed, and asked what they show.
//!
//! # Invariants
//! * A region keeps its port and its identity when it is started again; its replica id is new.
//! * Whatever is asked of all regions is asked of all at once, and waited for afterwards.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::identity::{Identities, fresh_node};
use crate::oracle::{Key, Killed};
use crate::process::Transport;
use crate::progress::Progress;
use crate::region_process::{RegionProcess, SharedJournal};
use crate::support::protocol::{Command, Contexts, Dump, Report, Stats};
use crate::support::topology::{REGIONS, one_way};
use crate::support::wall_ms;
use crate::support::workload::{self, Op};
use crate::wan::{Wan, Weather};
use crate::{DemoArgs, Network};

/// Up to this much is added to each delay.
const JITTER: Duration = Duration::from_millis(4);

/// All regions of a run.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) journal: SharedJournal,
    pub(crate) progress: Progress,
    pub(crate) wan: Option<Wan>,
    pub(crate) killed: Vec<Killed>,
    pub(crate) ops: Vec<Op>,
    regions: BTreeMap<usize, RegionProcess>,
    replicas: BTreeMap<usize, u64>,
    addresses: Vec<SocketAddr>,
    identities: Identities,
    workload: PathBuf,
    transport: Vec<String>,
    patience: Duration,
    questions: u64,
}

impl Fleet {
    /// Starts the network and all regions, and waits until all have joined.
    pub(crate) async fn start(args: &DemoArgs, ops: Vec<Op>) -> Result<Self, Box<dyn Error>> {
        let wan = match args.wan {
            Network::None => None,
            Network::Relay => Some(
                Wan::start(REGIONS.len(), args.seed, |from, to| {
                    let name = |site: usize| REGIONS.get(site).copied().unwrap_or_default();
                    Weather { delay: one_way(name(from), name(to)), jitter: JITTER, loss: args.loss / 100.0 }
                })
                .await?,
            ),
        };
        let nodes = REGIONS.map(|region| (region.to_owned(), region, fresh_node()));
        let identities = Identities::issue("three-regions", &nodes)?;
        // The regions read the same operations the demo judges, whatever happens to the file.
        let workload = identities.file("workload.jsonl");
        let lines = ops.iter().map(workload::render).collect::<Result<Vec<_>, _>>()?;
        std::fs::write(&workload, lines.join("\n"))?;
        // Held until just before the regions bind them, so that nobody else is given the ports.
        let held = REGIONS.iter().map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let addresses = held.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
        let writes = ops.iter().filter(|op| !op.action.is_read()).map(|_| 1).sum();
        let mut fleet = Self {
            journal: SharedJournal::default(),
            progress: Progress::new(writes),
            wan,
            killed: Vec::new(),
            ops,
            regions: BTreeMap::new(),
            replicas: BTreeMap::new(),
            addresses,
            identities,
            workload,
            transport: arguments_of(args.transport),
            patience: args.timeout(),
            questions: 0,
        };
        drop(held);
        for site in fleet.sites() {
            fleet.spawn(site)?;
        }
        for site in fleet.sites() {
            fleet.joined(site).await?;
        }
        Ok(fleet)
    }

    /// Returns the regions by number.
    pub(crate) fn sites(&self) -> std::ops::Range<usize> {
        0..REGIONS.len()
    }

    /// Returns the bytes a region has sent into its links; nothing without the relay.
    pub(crate) fn sent_by(&self, site: usize) -> Option<u64> {
        let wan = self.wan.as_ref()?;
        Some(self.sites().map(|to| wan.traffic(site, to).bytes).sum())
    }

    /// Starts a region's process. It is of use only once it has [joined](Self::joined).
    pub(crate) fn spawn(&mut self, site: usize) -> Result<(), Box<dyn Error>> {
        let name = *REGIONS.get(site).ok_or("no such region")?;
        let listen = *self.addresses.get(site).ok_or("no such region")?;
        if let Some(wan) = &self.wan {
            wan.set_target(site, listen);
        }
        let identity = self.identities.of(name);
        let mut args = vec!["region".to_owned(), "--control".to_owned()];
        args.extend(["--region".to_owned(), name.to_owned(), "--listen".to_owned(), listen.to_string()]);
        args.extend(["--identity".to_owned(), identity.display().to_string()]);
        args.extend(["--workload".to_owned(), self.workload.display().to_string()]);
        args.extend(["--share".to_owned(), format!("{site}/{}", REGIONS.len())]);
        args.extend(self.transport.iter().cloned());
        for peer in self.sites().filter(|peer| *peer != site) {
            args.extend(["--peer".to_owned(), self.address_of(peer, site)?.to_string()]);
        }
        let telling = (self.journal.clone(), self.progress.clone());
        let program = std::env::current_exe()?;
        self.regions.insert(site, RegionProcess::spawn(name, &program, &args, self.patience, telling)?);
        Ok(())
    }

    fn address_of(&self, peer: usize, seen_from: usize) -> Result<SocketAddr, Box<dyn Error>> {
        match &self.wan {
            Some(wan) => Ok(wan.entrance(seen_from, peer)?),
            None => self.addresses.get(peer).copied().ok_or_else(|| "no such region".into()),
        }
    }

    /// Waits until a region has joined.
    pub(crate) async fn joined(&mut self, site: usize) -> Result<(), Box<dyn Error>> {
        let patience = self.patience;
        let ready = |report: &Report| if let Report::Ready { replica, .. } = report { Some(*replica) } else { None };
        let replica = self.region(site)?.wait("sign of having joined", patience, ready).await?;
        self.replicas.insert(site, replica);
        Ok(())
    }

    /// Returns how long a region may take to answer.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    fn region(&mut self, site: usize) -> Result<&mut RegionProcess, Box<dyn Error>> {
        self.regions.get_mut(&site).ok_or_else(|| "this region is not running".into())
    }

    /// Lets regions replay their shares of `from..to` within about `seconds`.
    pub(crate) async fn run(
        &mut self,
        sites: &[usize],
        range: (usize, usize),
        seconds: f64,
    ) -> Result<(), Box<dyn Error>> {
        for site in sites {
            let share = self.share(*site, range).count();
            let share = u32::try_from(share).map_or(f64::MAX, f64::from);
            let rate = share / seconds.max(0.001);
            self.region(*site)?.tell(&Command::Run { from: range.0, to: range.1, rate }).await?;
        }
        Ok(())
    }

    /// Returns the operations of `range` that a region issues.
    fn share(&self, site: usize, range: (usize, usize)) -> impl Iterator<Item = (usize, &Op)> {
        let name = REGIONS.get(site).copied().unwrap_or_default();
        let numbered = self.ops.iter().enumerate().skip(range.0).take(range.1.saturating_sub(range.0));
        numbered.filter(move |(index, op)| op.is_for(*index, name, (site, REGIONS.len())))
    }

    /// Waits until regions are through with what they replay up to `to`.
    pub(crate) async fn finish_run(
        &mut self,
        sites: &[usize],
        to: usize,
        within: Duration,
    ) -> Result<(), Box<dyn Error>> {
        let done = |report: &Report| matches!(report, Report::RunDone { to: done } if *done == to).then_some(());
        for site in sites {
            self.region(*site)?.wait("end of the replay", within, done).await?;
        }
        Ok(())
    }

    /// Begins a phase: every region forgets the lag it has measured.
    pub(crate) async fn mark(&mut self) -> Result<(), Box<dyn Error>> {
        for region in self.regions.values_mut() {
            region.ask(&Command::Mark, |report| matches!(report, Report::Marked).then_some(())).await?;
        }
        Ok(())
    }

    /// Returns what a region has counted.
    pub(crate) async fn stats(&mut self, site: usize) -> Result<Stats, Box<dyn Error>> {
        let pick = |report: &Report| if let Report::Stats(stats) = report { Some((**stats).clone()) } else { None };
        self.region(site)?.ask(&Command::Stats, pick).await
    }

    /// Returns everything the running regions have seen between them.
    pub(crate) async fn union(&mut self) -> Result<Contexts, Box<dyn Error>> {
        let mut union = Contexts::default();
        for region in self.regions.values_mut() {
            let pick = |report: &Report| {
                if let Report::Contexts(contexts) = report { Some((**contexts).clone()) } else { None }
            };
            union.join(&region.ask(&Command::Contexts, pick).await?);
        }
        Ok(union)
    }

    /// Waits until regions have seen `target`; returns how long that took, or nothing if it took
    /// longer than the demo is ready to wait.
    pub(crate) async fn reach(
        &mut self,
        sites: &[usize],
        target: &Contexts,
    ) -> Result<Option<Duration>, Box<dyn Error>> {
        let begun = Instant::now();
        // An answer that came too late for an earlier question must not answer this one.
        self.questions += 1;
        let id = self.questions;
        for site in sites {
            self.region(*site)?.tell(&Command::Reach { id, target: target.clone() }).await?;
        }
        let deadline = begun + self.patience;
        for site in sites {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let reached = |report: &Report| matches!(report, Report::Reached { id: to } if *to == id).then_some(());
            let waited = self.region(*site)?.wait("convergence", left, reached).await;
            match waited {
                Ok(()) => {}
                Err(_) if Instant::now() >= deadline => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(begun.elapsed()))
    }

    /// Tells whether all regions have seen exactly the same events.
    pub(crate) async fn agree(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut digests = Vec::new();
        for region in self.regions.values_mut() {
            let pick =
                |report: &Report| if let Report::Digest { digest } = report { Some(digest.clone()) } else { None };
            digests.push(region.ask(&Command::Digest, pick).await?);
        }
        digests.dedup();
        Ok(digests.len() <= 1)
    }

    /// Returns what every region shows.
    pub(crate) async fn dumps(&mut self) -> Result<Vec<Dump>, Box<dyn Error>> {
        for region in self.regions.values_mut() {
            region.tell(&Command::Dump).await?;
        }
        let mut dumps = Vec::new();
        for region in self.regions.values_mut() {
            let pick = |report: &Report| if let Report::Dump(dump) = report { Some((**dump).clone()) } else { None };
            dumps.push(region.wait("dump", self.patience, pick).await?);
        }
        Ok(dumps)
    }

    /// Kills a region while it replays up to `to`; returns the first operation it never began.
    pub(crate) async fn kill(&mut self, site: usize, to: usize) -> Result<usize, Box<dyn Error>> {
        let region = self.regions.remove(&site).ok_or("this region is not running")?;
        let at_ms = wall_ms();
        region.kill().await?;
        let name = REGIONS.get(site).copied().unwrap_or_default();
        let last = self.journal.open().last.get(name).copied();
        let from = last.map_or(0, |last| last.saturating_add(1));
        let next = self.share(site, (from, to)).find(|(_, op)| !op.action.is_read());
        let in_flight = next.map(|(_, op)| Key { keyspace: op.keyspace.clone(), key: op.key.clone() });
        let resume = next.map_or(to, |(index, _)| index.saturating_add(1));
        let replica = self.replicas.get(&site).copied().unwrap_or_default();
        self.killed.push(Killed { replica, at_ms, in_flight });
        Ok(resume)
    }

    /// Lets every region say goodbye and end.
    pub(crate) async fn quit(self) -> Result<(), Box<dyn Error>> {
        self.progress.finish();
        for region in self.regions.into_values() {
            region.quit().await?;
        }
        Ok(())
    }
}

/// Returns the arguments that say the same to a region.
fn arguments_of(transport: Transport) -> Vec<String> {
    let all = [
        (transport.no_express, "--no-express"),
        (transport.no_loss_tolerance, "--no-loss-tolerance"),
        (transport.no_compression, "--no-compression"),
    ];
    all.iter().filter(|(given, _)| *given).map(|(_, name)| (*name).to_owned()).collect()
}
