//! What happens, in order: join, steady traffic, one incident after the other with heal, convergence and a comparison of all
//! copies, and a last comparison of all that is shown.
//!
//! # Invariants
//! * Clients never stop: they make requests through every incident, every heal and every restart.
//! * An incident begins only when the one before has left nothing behind: all nodes see each other, all have caught up,
//!   their copies were compared, and clients are back home.
//! * What repair counts is counted towards the incident in which it does, up to that comparison; nothing is left out.

mod strike;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::client::Client;
use crate::counters::Repaired;
use crate::fleet::Fleet;
use crate::incident::{Incident, Kind};
use crate::ledger::{Ledger, Pause};
use crate::report::{Figures, Outcome};
use crate::support::protocol::{Contexts, Dot};
use crate::support::wall_ms;
use crate::timeline::Timeline;
use crate::world;
use crate::{DemoArgs, Program};

/// Clients near each region.
const CLIENTS: usize = 3;
/// How often it is looked what has been noticed.
const LOOK: Duration = Duration::from_millis(50);
/// How often the demo looks whether it stood still itself.
const PULSE: Duration = Duration::from_millis(20);
/// A pause of the demo that counts: half a beat of the nodes.
const PAUSE: Duration = Duration::from_millis(50);
/// How long copies may take to be found equal after an incident, while clients go on writing.
const COMPARED_WITHIN: Duration = Duration::from_secs(10);
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
    /// What the others had seen of the older of two twins, until it was folded away.
    named: Contexts,
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
    let (seen, named, judged_ms) = (Contexts::default(), Contexts::default(), wall_ms());
    let ledger = ledger.clone();
    let mut play = Play { plan, seed: args.seed, fleet, ledger, timeline, figures, seen, named, judged_ms };
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
        let before = self.count().await?;
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
        let mut target = self.fleet.union(&sites).await?;
        target.join(&std::mem::take(&mut self.named));
        self.count().await?;
        let healing = Instant::now();
        incident.healing_ms = wall_ms();
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
        self.figures.complain_unless(whole, &format!("not all nodes saw each other after {}", kind.name()));
        self.figures.incidents.pop();
        self.figures.incidents.push(incident.clone());
        let ((), compared) = tokio::join!(self.back_home(&incident), self.fleet.compare(COMPARED_WITHIN));
        outcome.compared = Some(compared?);
        outcome.repaired = self.count().await? - before;
        self.figures.note(&incident, outcome, &self.ledger.open());
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
            healing_ms: u64::MAX,
            until_ms: u64::MAX,
        }
    }

    /// Whose writes must survive. What only the older of two twins has is lost with it.
    fn whose_writes_count(&self, incident: &Incident) -> Vec<usize> {
        let twin = |site: &usize| incident.kind == Kind::ClonedIdentity && incident.targets.contains(site);
        self.fleet.sites().into_iter().filter(|site| !twin(site)).collect()
    }

    async fn hold(&mut self, incident: &Incident, told: &mut Told) -> Result<(), Box<dyn Error>> {
        let until = Instant::now() + self.plan.hold;
        while Instant::now() < until {
            self.follow(incident, told);
            if incident.kind == Kind::ClonedIdentity {
                let named = self.fleet.union(&self.whose_writes_count(incident)).await?;
                self.named.join(&named);
            }
            sleep(LOOK).await;
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

    /// Reads what repair has counted everywhere until now.
    async fn count(&mut self) -> Result<Repaired, Box<dyn Error>> {
        self.figures.repaired = self.fleet.count(&self.fleet.sites()).await?;
        Ok(self.figures.repaired)
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
        let (equal, of) = self.fleet.compare(self.fleet.patience()).await?;
        self.figures.complain_unless(of > 0 && equal == of, "not all copies were found equal in the end");
        self.count().await?;
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
