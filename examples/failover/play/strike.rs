//! What is done to processes and paths, and undone.
//!
//! # Invariants
//! * Whatever is done here ends with the demo: a path is whole or gone with it, a stopped process is continued, and a
//!   started one ends by itself.

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{LOOK, Play, Told};
use crate::incident::{Incident, Kind, RUNNING_MS, STOPPED_MS};
use crate::protocol::{Answer, Question};
use crate::support::wall_ms;
use crate::world::{self, World};

/// A region that was restarted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restarted {
    /// When its old processes were told to end, in Unix milliseconds.
    pub(super) quiet_ms: u64,
    /// When its new ones were started.
    pub(super) started: Instant,
}

impl Play<'_> {
    /// Begins it and waits for as long as it lasts. Returns until when the writes count as made in it.
    pub(super) async fn begin(
        &mut self,
        incident: &Incident,
        told: &mut Told,
    ) -> Result<(u64, Option<Restarted>), Box<dyn Error>> {
        let world = self.fleet.world;
        let mut slow = Vec::new();
        match incident.kind {
            Kind::Cut => {
                self.fleet.access.cut(incident.region, true);
                self.fleet.wan.switch(|from, to| crosses(world, incident.region, from, to), true);
            }
            Kind::Kill => {
                for site in &incident.targets {
                    self.fleet.kill(*site).await?;
                }
            }
            Kind::OneWayCut => self.switch_one_way(incident, true),
            Kind::SlowRegion => {
                for site in &incident.targets {
                    slow.extend(self.fleet.pid(*site).map(|pid| stutter(pid, self.plan.hold)).transpose()?);
                }
            }
            Kind::Isolation => incident.targets.iter().for_each(|site| self.fleet.wan.cut(*site)),
            Kind::Restart => return self.restart(incident, told).await,
            Kind::ClonedIdentity => {
                let clone = world.clone_site();
                self.fleet.spawn(clone)?;
                self.fleet.joined(clone).await?;
            }
        }
        self.hold(incident, told).await?;
        for mut slow in slow {
            slow.wait().await?;
        }
        let mut until = wall_ms();
        if incident.kind == Kind::ClonedIdentity {
            let clone = world.clone_site();
            self.drain(&[clone]).await?;
            until = wall_ms();
            self.fleet.quit(clone).await?;
        }
        Ok((until, None))
    }

    fn switch_one_way(&self, incident: &Incident, severed: bool) {
        let lost = |from: usize, to: usize| incident.targets.contains(&from) && incident.witnesses.contains(&to);
        self.fleet.wan.switch(lost, severed);
    }

    /// As for an upgrade: clients are sent elsewhere, the region hands over, ends, and is started again.
    async fn restart(
        &mut self,
        incident: &Incident,
        told: &mut Told,
    ) -> Result<(u64, Option<Restarted>), Box<dyn Error>> {
        let region = world::name(incident.region).to_owned();
        let avoid = |avoid| Question::Avoid { region: region.clone(), avoid };
        let patience = self.fleet.patience();
        self.fleet.ask(&self.fleet.sites(), &avoid(true), patience).await?;
        let until = Instant::now() + self.plan.hold / 2;
        while Instant::now() < until {
            self.follow(incident, told);
            sleep(LOOK).await;
        }
        let targets: Vec<usize> = incident.targets.iter().copied().collect();
        self.drain(&targets).await?;
        let quiet_ms = wall_ms();
        for site in &targets {
            self.fleet.quit(*site).await?;
        }
        let (until, started) = (wall_ms(), Instant::now());
        let target = self.fleet.union(&self.fleet.sites()).await?;
        self.start_again(&targets).await?;
        self.seen.join(&target);
        self.fleet.ask(&self.fleet.sites(), &avoid(false), patience).await?;
        Ok((until, Some(Restarted { quiet_ms, started })))
    }

    async fn drain(&self, sites: &[usize]) -> Result<(), Box<dyn Error>> {
        let patience = self.fleet.patience();
        let within_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        for answer in self.fleet.ask(sites, &Question::Drain { within_ms }, patience * 2).await? {
            if let Answer::Failed { reason } = answer {
                return Err(reason.into());
            }
        }
        Ok(())
    }

    async fn start_again(&mut self, sites: &[usize]) -> Result<(), Box<dyn Error>> {
        for site in sites {
            self.fleet.spawn(*site)?;
        }
        for site in sites {
            self.fleet.joined(*site).await?;
        }
        Ok(())
    }

    pub(super) async fn heal(&mut self, incident: &Incident) -> Result<(), Box<dyn Error>> {
        let world = self.fleet.world;
        let targets: Vec<usize> = incident.targets.iter().copied().collect();
        match incident.kind {
            Kind::Cut => {
                self.fleet.wan.switch(|from, to| crosses(world, incident.region, from, to), false);
                self.fleet.access.cut(incident.region, false);
            }
            Kind::Kill => self.start_again(&targets).await?,
            Kind::OneWayCut => self.switch_one_way(incident, false),
            Kind::Isolation => targets.iter().for_each(|site| self.fleet.wan.heal(*site)),
            Kind::SlowRegion | Kind::Restart => {}
            Kind::ClonedIdentity => {
                for site in &targets {
                    self.fleet.kill(*site).await?;
                }
                self.start_again(&targets).await?;
            }
        }
        Ok(())
    }
}

fn crosses(world: World, region: usize, from: usize, to: usize) -> bool {
    let (from, to) = (world.region_of(from), world.region_of(to));
    from != to && (from == region || to == region)
}

/// Stops and continues a process by turns for about as long as said. The last turn continues it, and when the process has
/// ended there are no more turns, so whatever becomes of the demo, nothing is left that stands still.
fn stutter(pid: u32, hold: Duration) -> Result<tokio::process::Child, Box<dyn Error>> {
    let turns = hold.as_millis().div_ceil(u128::from(STOPPED_MS + RUNNING_MS));
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    let (stopped, running) = (seconds(STOPPED_MS), seconds(RUNNING_MS));
    let script = format!(
        "n=0; while [ $n -lt {turns} ] && kill -STOP {pid}; do sleep {stopped}; kill -CONT {pid}; sleep {running}; \
         n=$((n + 1)); done"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
    Ok(shell.spawn().map_err(|e| format!("a slow region needs `sh`: {e}"))?)
}
