//! What happens, in order: join, steady traffic, one incident after the other with heal and convergence, a last comparison.
//!
//! # Invariants
//! * Clients never stop: they make requests through every incident, every heal and every restart.
//! * An incident begins only when the one before has left nothing behind: all nodes see each other, all have caught up,
//!   and clients are back home.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::client::Client;
use crate::fleet::Fleet;
use crate::incident::{Incident, Kind};
use crate::ledger::{Ledger, Pause};
use crate::protocol::{Answer, Question};
use crate::report::{Figures, Outcome};
use crate::support::protocol::{Contexts, Dot};
use crate::support::wall_ms;
use crate::timeline::Timeline;
use crate::world::{self, World};
use crate::{DemoArgs, Program};

/// Clients near each region.
const CLIENTS: usize = 3;
/// How often it is looked what has been noticed.
const LOOK: Duration = Duration::from_millis(50);
/// How often the demo looks whether it stood still itself.
const PULSE: Duration = Duration::from_millis(20);
/// A pause of the demo that counts: three beats of the nodes.
const PAUSE: Duration = Duration::from_millis(300);
/// A slow region stands still for so long, again and again, and runs for so long in between: slower than a client waits
/// for, and half of the silence that makes a node suspected.
const STOPPED_S: f64 = 0.25;
const RUNNING_S: f64 = 0.15;

/// How the seconds are divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Undisturbed, at the beginning and at the end.
    pub(crate) steady: Duration,
    /// From the beginning of an incident to its heal.
    pub(crate) hold: Duration,
    /// How long a region must be well before its clients are sent back.
    pub(crate) stable: Duration,
    /// Undisturbed, with all clients back home.
    pub(crate) rest: Duration,
}

impl Plan {
    /// Returns how long a region must be well before its clients are sent back, in milliseconds.
    pub(crate) fn stable_ms(self) -> u64 {
        u64::try_from(self.stable.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A region that was restarted.
#[derive(Clone, Copy, Debug)]
struct Restarted {
    /// When its old processes were told to end, in Unix milliseconds.
    quiet_ms: u64,
    /// When its new ones were started.
    started: Instant,
}

/// A run under way.
struct Play<'a> {
    plan: Plan,
    seed: u64,
    fleet: Fleet,
    ledger: Ledger,
    timeline: Timeline,
    figures: &'a mut Figures,
    /// All that every node had seen at some moment.
    seen: Contexts,
    /// Until when losses have been counted.
    judged_ms: u64,
}

/// Plays everything and judges it.
pub(crate) async fn play(
    args: &DemoArgs,
    program: Program,
    figures: &mut Figures,
    ledger: &Ledger,
) -> Result<(), Box<dyn Error>> {
    let plan = args.plan();
    let timeline = Timeline::new(args.events.len() + 2);
    timeline.now("starting all nodes");
    let mut background = JoinSet::new();
    background.spawn(pulse(ledger.clone()));
    let begun = Instant::now();
    figures.began_ms = wall_ms();
    let fleet = Fleet::start(args, program, args.world(), ledger.clone()).await?;
    if !fleet.whole().await? {
        return Err("the nodes joined but do not see each other".into());
    }
    figures.join = Some(begun.elapsed());
    figures.sites = fleet.site_of_each_node();
    timeline.say("joined", &format!("{} nodes in {} regions see each other", fleet.sites().len(), world::COUNT));
    let (seen, judged_ms) = (Contexts::default(), wall_ms());
    let ledger = ledger.clone();
    let mut play = Play { plan, seed: args.seed, fleet, ledger, timeline, figures, seen, judged_ms };
    let closed = Arc::new(AtomicBool::new(false));
    let mut clients = play.open_shop(&closed);
    play.figures.opened_ms = wall_ms();
    play.steady().await?;
    for kind in &args.events {
        play.happen(*kind).await?;
    }
    play.timeline.now("undisturbed");
    sleep(plan.steady).await;
    closed.store(true, Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    play.figures.closed_ms = Some(wall_ms());
    play.compare().await?;
    play.timeline.finish();
    play.fleet.quit_all().await
}

/// Notes when the demo itself stands still: nothing passes the paths then.
async fn pulse(ledger: Ledger) {
    let (mut pulse, mut last) = (interval(PULSE), Instant::now());
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        let pause = last.elapsed().saturating_sub(PULSE);
        if pause >= PAUSE {
            let (ms, to_ms) = (u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), wall_ms());
            ledger.open().pauses.push(Pause { site: None, from_ms: to_ms.saturating_sub(ms), to_ms });
        }
        last = Instant::now();
    }
}

impl Play<'_> {
    fn open_shop(&self, closed: &Arc<AtomicBool>) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let mut seeds = fastrand::Rng::with_seed(self.seed);
        for number in 0..CLIENTS * world::COUNT {
            let who = (number, number % world::COUNT);
            let client = Client::new(who, Arc::clone(&self.fleet.access), self.ledger.clone(), seeds.u64(..));
            clients.spawn(client.run(Arc::clone(closed)));
        }
        clients
    }

    async fn steady(&mut self) -> Result<(), Box<dyn Error>> {
        self.timeline.now("undisturbed");
        let text = format!("{} clients make requests, {CLIENTS} near each region", CLIENTS * world::COUNT);
        self.timeline.say("steady", &text);
        sleep(self.plan.steady).await;
        let target = self.fleet.union(&self.fleet.sites()).await?;
        if !self.fleet.reach(&target).await {
            return Err("the nodes joined but never converged; nothing was judged".into());
        }
        self.timeline.step();
        Ok(())
    }

    /// Lets something happen, heals it, and waits until nothing of it is left.
    async fn happen(&mut self, kind: Kind) -> Result<(), Box<dyn Error>> {
        let repaired = self.repaired().await?;
        let mut incident = self.incident(kind);
        self.timeline.now(kind.name());
        self.timeline.say(kind.name(), &incident.text(self.fleet.world));
        incident.from_ms = wall_ms();
        incident.quiet_ms = incident.from_ms;
        let mut told = Told::default();
        self.figures.incidents.push(incident.clone());
        let (judged_ms, restarted) = self.begin(&incident, &mut told).await?;
        if let Some(restarted) = &restarted {
            incident.quiet_ms = restarted.quiet_ms;
        }
        let sites = self.whose_writes_count(&incident);
        let target = self.fleet.union(&sites).await?;
        let healing = Instant::now();
        self.heal(&incident).await?;
        let healed = if kind == Kind::Restart { "runs again" } else { "healed" };
        self.timeline.say(kind.name(), healed);
        let healed_ms = wall_ms();
        let reached = self.fleet.reach(&target).await;
        let converge = restarted.map_or(healing, |restarted| restarted.started).elapsed();
        if reached {
            self.timeline.say("", &format!("all nodes have caught up, {:.2} s later", converge.as_secs_f64()));
        }
        let whole = self.fleet.whole().await?;
        self.follow(&incident, &mut told);
        incident.until_ms = wall_ms();
        self.seen.join(&target);
        let mut outcome = Outcome::new(&incident, &self.ledger.open(), (healed_ms, reached.then_some(converge)));
        outcome.lost = self.ledger.open().lost((self.judged_ms, judged_ms), &self.seen);
        self.judged_ms = judged_ms;
        let after = self.repaired().await?;
        (outcome.repaired, outcome.repair_bytes) =
            (after.0.saturating_sub(repaired.0), after.1.saturating_sub(repaired.1));
        self.figures.complain_unless(reached, &format!("did not converge after {}", kind.name()));
        self.figures.complain_unless(whole, &format!("not all nodes saw each other after {}", kind.name()));
        let noticed = outcome.agree_ms.is_some() || !kind.is_to_be_noticed();
        self.figures.complain_unless(noticed, &format!("not all whom it concerned noticed {}", kind.name()));
        self.figures.outcomes.push(outcome);
        self.figures.incidents.pop();
        self.figures.incidents.push(incident.clone());
        self.back_home(&incident).await;
        self.timeline.step();
        Ok(())
    }

    fn incident(&self, kind: Kind) -> Incident {
        let (region, other) = kind.happens_to(self.seed);
        let world = self.fleet.world;
        let targets: BTreeSet<usize> = match kind {
            Kind::Isolation | Kind::ClonedIdentity => world.sites_of(region).take(1).collect(),
            Kind::Cut | Kind::Kill | Kind::OneWayCut | Kind::SlowRegion | Kind::Restart => {
                world.sites_of(region).collect()
            }
        };
        let witnesses = match other {
            Some(other) => world.sites_of(other).collect(),
            None => self.fleet.sites().into_iter().filter(|site| !targets.contains(site)).collect(),
        };
        let newcomer = (kind == Kind::ClonedIdentity).then(|| world.clone_site());
        let replicas = targets.iter().filter_map(|site| self.fleet.replica_of(*site)).collect();
        let sites = self.figures.sites.clone();
        Incident {
            kind,
            region,
            targets,
            newcomer,
            witnesses,
            replicas,
            sites,
            from_ms: 0,
            quiet_ms: 0,
            until_ms: u64::MAX,
        }
    }

    /// Whose writes must survive. What only the older of two twins has is lost with it.
    fn whose_writes_count(&self, incident: &Incident) -> Vec<usize> {
        let twin = |site: &usize| incident.kind == Kind::ClonedIdentity && incident.targets.contains(site);
        self.fleet.sites().into_iter().filter(|site| !twin(site)).collect()
    }

    /// Begins it and waits for as long as it lasts. Returns until when the writes count as made in it.
    async fn begin(
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
        self.hold(incident, told).await;
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

    async fn hold(&self, incident: &Incident, told: &mut Told) {
        let until = Instant::now() + self.plan.hold;
        while Instant::now() < until {
            self.follow(incident, told);
            sleep(LOOK).await;
        }
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

    async fn heal(&mut self, incident: &Incident) -> Result<(), Box<dyn Error>> {
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

    /// Waits until the region's clients are served at home again, then a little longer.
    async fn back_home(&self, incident: &Incident) {
        let deadline = Instant::now() + self.plan.stable * 2 + self.fleet.patience();
        self.timeline.now("clients go home");
        while Instant::now() < deadline {
            let away = {
                let pages = self.ledger.open();
                let last: BTreeMap<usize, usize> = pages.served.iter().map(|one| (one.client, one.by)).collect();
                last.iter().any(|(client, by)| client % world::COUNT == incident.region && *by != incident.region)
            };
            if !away {
                break;
            }
            sleep(LOOK).await;
        }
        sleep(self.plan.rest).await;
    }

    async fn repaired(&self) -> Result<(u64, u64), Box<dyn Error>> {
        let views = self.fleet.views().await?;
        Ok(views.iter().fold((0, 0), |sum, view| (sum.0 + view.repaired, sum.1 + view.repair_bytes)))
    }

    /// Tells what has been noticed since the last look.
    fn follow(&self, incident: &Incident, told: &mut Told) {
        let (detected, agreed, rerouted, twins) = {
            let pages = self.ledger.open();
            let since = pages.served.partition_point(|one| one.at_ms < incident.from_ms);
            let rerouted = incident.rerouted(pages.served.get(since..).unwrap_or_default()).first().copied();
            let saws = &pages.saws;
            (incident.detected(saws), incident.agreed(saws), rerouted, incident.twins_told(saws))
        };
        if let Some((ms, site)) = detected.filter(|_| !std::mem::replace(&mut told.detected, true)) {
            self.tell_at(ms, &format!("first noticed, by {}", self.fleet.world.name_of(site)));
        }
        if let Some(ms) = twins.0.filter(|_| !std::mem::replace(&mut told.older, true)) {
            self.tell_at(ms, "the older process was told and refuses writes");
        }
        if let Some(ms) = twins.1.filter(|_| !std::mem::replace(&mut told.newer, true)) {
            self.tell_at(ms, "the newer process was told that it replaces another");
        }
        if let Some(ms) = agreed.filter(|_| !std::mem::replace(&mut told.agreed, true)) {
            self.tell_at(ms, "all whom it concerns agree");
        }
        if let Some(ms) = rerouted.filter(|_| !std::mem::replace(&mut told.rerouted, true)) {
            self.tell_at(ms, "the first of its clients is served elsewhere");
        }
    }

    fn tell_at(&self, ms: u64, what: &str) {
        self.timeline.say(&format!("{:>14}", format!("+ {ms} ms")), what);
    }

    /// Compares what all nodes show, when the last messages have arrived.
    async fn compare(&mut self) -> Result<(), Box<dyn Error>> {
        self.timeline.now("comparing all that is visible everywhere");
        let until_ms = wall_ms();
        let target = self.fleet.union(&self.fleet.sites()).await?;
        let reached = self.fleet.reach(&target).await;
        self.figures.complain_unless(reached, "did not converge in the end");
        self.seen.join(&target);
        let dumps = self.fleet.dumps().await?;
        let digests: BTreeSet<u64> = dumps.iter().map(|dump| dump.digest).collect();
        self.figures.complain_unless(digests.len() == 1, "not all nodes have seen the same");
        let shown: Vec<BTreeMap<String, u64>> =
            dumps.into_iter().map(|dump| dump.cells.into_iter().collect()).collect();
        let pages = self.ledger.open();
        self.figures.lost_after = pages.lost((self.judged_ms, until_ms), &self.seen);
        let lost: BTreeSet<Dot> = pages.writes.iter().map(|w| w.dot).filter(|dot| !self.seen.has(*dot)).collect();
        self.figures.findings = Some(pages.judge(&shown, &lost));
        drop(pages);
        self.timeline.say("compared", "what every node shows, with what it must show");
        self.timeline.step();
        Ok(())
    }
}

/// What the timeline has told of an incident.
#[derive(Debug, Default)]
struct Told {
    detected: bool,
    agreed: bool,
    rerouted: bool,
    older: bool,
    newer: bool,
}

fn crosses(world: World, region: usize, from: usize, to: usize) -> bool {
    let (from, to) = (world.region_of(from), world.region_of(to));
    from != to && (from == region || to == region)
}

/// Stops and continues a process by turns for about as long as said. The last turn continues it, and when the process has
/// ended there are no more turns, so whatever becomes of the demo, nothing is left that stands still.
fn stutter(pid: u32, hold: Duration) -> Result<tokio::process::Child, Box<dyn Error>> {
    let turns = (hold.as_secs_f64() / (STOPPED_S + RUNNING_S)).ceil();
    let script = format!(
        "n=0; while [ $n -lt {turns} ] && kill -STOP {pid}; do sleep {STOPPED_S}; kill -CONT {pid}; sleep {RUNNING_S}; \
         n=$((n + 1)); done"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
    Ok(shell.spawn().map_err(|e| format!("a slow region needs `sh`: {e}"))?)
}
