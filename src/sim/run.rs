//! One run of a plan: what happens, the heal, convergence within a stated time, rest.
//!
//! # Invariants
//! * A run is a function of its plan: the same plan gives the same [`Report`], trace included.
//! * A panic inside a run is a failure of that run and of nothing else.
//! * After the heal every bound is in virtual time and computed from the configuration: see [`converges_within`] and
//!   [`rests_within`]. Nothing is awaited "eventually".

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::check::{Invariant, Violation};
use super::cluster::SimCluster;
use super::limit::Limit;
use super::plan::{Ack, Action, Op, OpKind, Plan, Step};
use super::setting::Setting;
use super::tale::Tale;
use super::watcher::Watcher;
use crate::config::Config;
use crate::probe::{self, Hits};

/// What was found wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The stable name of what must hold.
    pub invariant: String,
    /// What was seen instead.
    pub detail: String,
}

impl Failure {
    /// Builds a failure of an invariant of your own. Of a long detail the beginning and the end are kept: values of a
    /// quarter of a megabyte are no help to a reader.
    pub fn new(invariant: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { invariant: invariant.into(), detail: shortened(detail.into()) }
    }
}

/// Characters kept of each end of a long detail.
const DETAIL_END: usize = 800;

fn shortened(text: String) -> String {
    let length = text.chars().count();
    if length <= DETAIL_END * 2 {
        return text;
    }
    let head: String = text.chars().take(DETAIL_END).collect();
    let tail: String = text.chars().skip(length - DETAIL_END).collect();
    format!("{head} [{} characters left out] {tail}", length - DETAIL_END * 2)
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::new(violation.invariant.name(), violation.detail)
    }
}

/// The invariant, then the detail.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

impl std::error::Error for Failure {}

/// A check of your own. Every method has a default that finds nothing.
pub trait Checker {
    /// Looks before an action of the plan is done: a crash is about to lose what only its host has.
    ///
    /// # Errors
    /// What does not hold; the run ends with it.
    fn before(&mut self, _cluster: &SimCluster, _action: &Action) -> Result<(), Failure> {
        Ok(())
    }

    /// Checks what must hold always.
    ///
    /// # Errors
    /// What does not hold; the run ends with it.
    fn after_step(&mut self, _cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes note that every fault has ended: from here on nothing may get lost.
    ///
    /// # Errors
    /// What does not hold; the run ends with it.
    fn healed(&mut self, _cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(())
    }

    /// Tells whether the nodes agree, beyond having seen the same events.
    fn has_converged(&self, _cluster: &SimCluster) -> bool {
        true
    }

    /// Checks what all nodes must agree on once they have converged.
    ///
    /// # Errors
    /// What does not hold; the run ends with it.
    fn converged(&mut self, _cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(())
    }

    /// Checks what must be left, or not, when nothing has happened for long.
    ///
    /// # Errors
    /// What does not hold; the run ends with it.
    fn at_rest(&mut self, _cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(())
    }
}

/// Traffic of your own, with its own checks, in place of the built-in one.
pub trait Workload: Checker {
    /// Does a write of the plan at a host; what `op` means is yours.
    ///
    /// # Errors
    /// What does not hold; the run ends with it. A refused write is no failure.
    fn write(&mut self, cluster: &mut SimCluster, at: usize, op: Op, ack: Option<Ack>) -> Result<(), Failure>;

    /// Does a read of the plan. Reads nothing by default.
    ///
    /// # Errors
    /// What does not hold; the run ends with it.
    fn read(&mut self, _cluster: &mut SimCluster, _client: u8, _at: usize, _key: u8) -> Result<(), Failure> {
        Ok(())
    }
}

/// The built-in traffic and its history oracle.
struct Watched(Watcher);

impl Checker for Watched {
    fn before(&mut self, cluster: &SimCluster, action: &Action) -> Result<(), Failure> {
        Ok(self.0.before(cluster, action)?)
    }

    fn healed(&mut self, cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(self.0.healed(cluster)?)
    }

    fn after_step(&mut self, cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(self.0.after_step(cluster)?)
    }

    fn has_converged(&self, cluster: &SimCluster) -> bool {
        self.0.has_converged(cluster)
    }

    fn converged(&mut self, cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(self.0.converged(cluster)?)
    }

    fn at_rest(&mut self, cluster: &mut SimCluster) -> Result<(), Failure> {
        Ok(self.0.at_rest(cluster)?)
    }
}

impl Workload for Watched {
    fn write(&mut self, cluster: &mut SimCluster, at: usize, op: Op, ack: Option<Ack>) -> Result<(), Failure> {
        Ok(self.0.write(cluster, at, op, ack)?)
    }

    fn read(&mut self, cluster: &mut SimCluster, client: u8, at: usize, key: u8) -> Result<(), Failure> {
        Ok(self.0.read(cluster, client, at, key)?)
    }
}

/// How a run ended.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// What was found wrong, if anything was.
    pub failure: Option<Failure>,
    /// What was found wrong and is not promised to hold; the run ended there.
    pub excused: Option<(Limit, Failure)>,
    /// The hash of everything that was delivered.
    pub trace: u64,
    /// Rare events, and how often each happened.
    pub hits: Hits,
    /// Virtual time from the start to the end.
    pub virtual_time: Duration,
    /// Steps done; the others made no sense where they stood.
    pub steps: usize,
    /// How long after the heal the nodes agreed.
    pub converged_in: Option<Duration>,
    /// The last lines of what happened, as many as [`Run::lines`] asked for.
    pub lines: Vec<String>,
}

/// A plan about to be run.
///
/// The built-in traffic writes all types and is checked against history. A service that wants to know whether *its* use
/// of the cache stands a bad network puts its own in: a [`Workload`] is what clients do, a [`Checker`] looks on.
///
/// ```
/// use driftless::sim::{Ack, Checker, Failure, Op, Profile, Run, SimCluster, Workload};
/// use driftless::store::{Body, Family, KeyRef};
/// use driftless::crdt::NEVER;
///
/// /// Counts visits, and wants none to get lost.
/// #[derive(Default)]
/// struct Visits {
///     counted: i64,
/// }
///
/// impl Visits {
///     fn shown(cluster: &SimCluster, at: usize) -> Option<i64> {
///         let store = cluster.store(at)?;
///         let space = store.spaces().open("visits", Family::Map).ok()?;
///         let now_ms = cluster.now(at).wall_ms;
///         store.with_entry(&KeyRef::new(&space, b"page"), |entry| match &entry?.body {
///             Body::Tree(tree) => Some(tree.counters().map(|(_, counter)| counter.value(now_ms)).sum()),
///             Body::Register(_) | Body::Custom(_) => None,
///         })
///     }
/// }
///
/// impl Workload for Visits {
///     fn write(&mut self, cluster: &mut SimCluster, at: usize, _: Op, _: Option<Ack>) -> Result<(), Failure> {
///         let Some(store) = cluster.store(at) else { return Ok(()) };
///         let space = store.spaces().open("visits", Family::Map).expect("it is a map");
///         let (key, counter) = (KeyRef::new(&space, b"page"), bytes::Bytes::from_static(b"n"));
///         let done = cluster.write(at, &key, Some(8), |p, tick| p.increment(&key, &counter, 1, NEVER, tick));
///         self.counted += i64::from(done.is_ok());
///         Ok(())
///     }
/// }
///
/// impl Checker for Visits {
///     fn converged(&mut self, cluster: &mut SimCluster) -> Result<(), Failure> {
///         for at in cluster.honest().collect::<Vec<_>>() {
///             let shown = Self::shown(cluster, at).unwrap_or(0);
///             if shown != self.counted {
///                 return Err(Failure::new("visits", format!("node {at} shows {shown} of {}", self.counted)));
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let plan = Profile::named("calm").expect("it exists").plan(1);
/// let report = Run::new(&plan).workload(Visits::default()).go();
/// assert_eq!(report.failure, None);
/// ```
pub struct Run<'a> {
    plan: Plan,
    workload: Box<dyn Workload + 'a>,
    checkers: Vec<Box<dyn Checker + 'a>>,
    lines_max: usize,
}

/// The plan.
impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl<'a> Run<'a> {
    /// Prepares a run with the built-in traffic and checks. Numbers out of bounds are brought within them.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let plan = plan.bounded();
        let workload = Box::new(Watched(Watcher::new(&plan.setting)));
        Self { plan, workload, checkers: Vec::new(), lines_max: 0 }
    }

    /// Puts traffic of your own in place of the built-in one and its checks.
    #[must_use]
    pub fn workload(mut self, workload: impl Workload + 'a) -> Self {
        self.workload = Box::new(workload);
        self
    }

    /// Adds a check of your own.
    #[must_use]
    pub fn checker(mut self, checker: impl Checker + 'a) -> Self {
        self.checkers.push(Box::new(checker));
        self
    }

    /// Keeps the last so many lines of what happens.
    #[must_use]
    pub fn lines(mut self, max: usize) -> Self {
        self.lines_max = max;
        self
    }

    /// Runs.
    #[must_use]
    pub fn go(mut self) -> Report {
        drop(probe::take());
        let mut tale = Tale::new(self.lines_max);
        let mut cluster = None;
        let ended = catch_unwind(AssertUnwindSafe(|| self.drive(&mut cluster, &mut tale)));
        let failure = match ended {
            Ok(result) => result.err(),
            Err(payload) => Some(Failure::new(Invariant::Panic.name(), said(payload.as_ref()))),
        };
        if let Some(cluster) = cluster.as_mut() {
            tale.catch_up(cluster);
        }
        if let Some(failure) = &failure {
            tale.say(cluster.as_ref(), &format!("FAILED {failure}"));
        }
        let (excused, failure) = match (failure, cluster.as_ref().and_then(SimCluster::limit)) {
            (Some(failure), Some(limit)) if limit.excuses(&failure.invariant) => (Some((limit, failure)), None),
            (failure, _) => (None, failure),
        };
        Report {
            failure,
            excused,
            trace: cluster.as_ref().map_or(0, SimCluster::trace),
            virtual_time: cluster.as_ref().map_or(Duration::ZERO, SimCluster::elapsed),
            hits: probe::take(),
            steps: tale.steps,
            converged_in: tale.converged_in,
            lines: tale.into_lines(),
        }
    }

    fn drive(&mut self, slot: &mut Option<SimCluster>, tale: &mut Tale) -> Result<(), Failure> {
        let built = SimCluster::from_setting(self.plan.seed, &self.plan.setting);
        let cluster = slot.insert(built.map_err(|e| Failure::new(SETTING, e.to_string()))?);
        for step in self.plan.steps.clone() {
            tale.pass(cluster, Duration::from_millis(step.after_ms.into()));
            self.step(cluster, step, tale)?;
            self.each(cluster, |checker, cluster| checker.after_step(cluster))?;
        }
        for at in cluster.doomed() {
            let end = Action::Crash { at: u8::try_from(at).unwrap_or(u8::MAX) };
            self.each(cluster, |checker, cluster| checker.before(cluster, &end))?;
        }
        cluster.heal_everything();
        tale.say(Some(cluster), "every fault ends");
        self.each(cluster, |checker, cluster| checker.healed(cluster))?;
        tale.converged_in = Some(self.converge(cluster, tale)?);
        self.everybody_writes(cluster)?;
        self.converge(cluster, tale)?;
        tale.pass(cluster, rests_within(&self.plan.setting));
        tale.say(Some(cluster), "nothing has happened for long");
        self.each(cluster, |checker, cluster| checker.after_step(cluster))?;
        self.each(cluster, |checker, cluster| checker.converged(cluster))?;
        self.each(cluster, |checker, cluster| checker.at_rest(cluster))
    }

    fn step(&mut self, cluster: &mut SimCluster, step: Step, tale: &mut Tale) -> Result<(), Failure> {
        // Clients of a host that does not run, or stands still, do nothing.
        let client_at =
            |at: u8| Some(cluster.place(at)).filter(|at| cluster.is_running(*at) && !cluster.is_paused(*at));
        if let Action::Write { at, op, ack } = step.action {
            let at = client_at(at);
            tale.step(cluster, &step, at.is_some());
            return at.map_or(Ok(()), |at| self.workload.write(cluster, at, op, ack));
        }
        if let Action::Read { client, at, key } = step.action {
            let at = client_at(at);
            tale.step(cluster, &step, at.is_some());
            return at.map_or(Ok(()), |at| self.workload.read(cluster, client, at, key));
        }
        let rests = step.action == Action::Rest;
        if !rests {
            self.each(cluster, |checker, cluster| checker.before(cluster, &step.action))?;
        }
        let done = rests || cluster.perform(step.action);
        tale.step(cluster, &step, done);
        Ok(())
    }

    fn converge(&mut self, cluster: &mut SimCluster, tale: &mut Tale) -> Result<Duration, Failure> {
        let within = converges_within(&self.plan.setting);
        let agree = |cluster: &SimCluster| {
            have_seen_the_same(cluster)
                && self.workload.has_converged(cluster)
                && self.checkers.iter().all(|checker| checker.has_converged(cluster))
        };
        let took = cluster.run_until(within, agree);
        tale.catch_up(cluster);
        let Some(took) = took else {
            let apart = differences(cluster);
            let why = self.each(cluster, |checker, cluster| checker.converged(cluster)).err();
            let why = why.map_or_else(String::new, |failure| failure.to_string());
            let detail = format!("not within {within:?}: {apart}{why}");
            return Err(Failure::new(Invariant::Convergence.name(), detail));
        };
        tale.say(Some(cluster), &format!("all agree after {took:?}"));
        self.each(cluster, |checker, cluster| checker.after_step(cluster))?;
        self.each(cluster, |checker, cluster| checker.converged(cluster))?;
        Ok(took)
    }

    /// A cluster that healed is one that works: what each node writes now reaches all others.
    fn everybody_writes(&mut self, cluster: &mut SimCluster) -> Result<(), Failure> {
        for at in cluster.honest().collect::<Vec<_>>() {
            let key = u8::try_from(at).unwrap_or(u8::MAX);
            self.workload.write(cluster, at, Op { kind: OpKind::Set, key, name: 0, ttl: 0 }, None)?;
        }
        Ok(())
    }

    fn each(
        &mut self,
        cluster: &mut SimCluster,
        check: impl Fn(&mut dyn Checker, &mut SimCluster) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        check(&mut *self.workload, cluster)?;
        self.checkers.iter_mut().try_for_each(|checker| check(&mut **checker, cluster))
    }
}

/// Runs a plan with the built-in traffic and checks; with `twice`, runs it again and wants the same trace.
#[must_use]
pub fn run_checked(plan: &Plan, twice: bool) -> Report {
    let mut report = Run::new(plan).go();
    if twice && report.failure.is_none() {
        let again = Run::new(plan).go();
        if again.trace != report.trace || again.hits != report.hits {
            let detail = format!("trace {:016x}, and when it was run again {:016x}", report.trace, again.trace);
            report.failure = Some(Failure::new(Invariant::Determinism.name(), detail));
        }
    }
    report
}

/// A setting no node takes.
const SETTING: &str = "Setting";

/// One-way trips from a dead link to equal states: dial and answer, two hellos, join, state, its end, readiness, a frame,
/// its report, a request to repeat, the repetition.
const TRIPS: u32 = 12;
/// A trip whose packet is lost costs this many.
const LOST_TRIP: u32 = 3;
/// What the nodes' own timers add: waiting for the other side to dial (3 s), looking at addresses again (1 s), a dial
/// nobody answers (1 s) and its longest back-off (0.25 s), two looks at what was sent and never reported (5 s each), two
/// rounds of relaying (1 s each).
const TIMERS: Duration = Duration::from_millis(3_000 + 1_000 + 1_000 + 250 + 2 * 5_000 + 2 * 1_000);

/// Returns the virtual time within which all honest nodes must agree after every fault has ended: links that died in
/// silence are given up, dialled and opened again, hosts that restart look for a cluster and join it, everything missing
/// is found missing, sent and, where a clock was ahead by what is allowed, let in.
#[must_use]
pub fn converges_within(setting: &Setting) -> Duration {
    let m = Config::wan("r0", "sim:0").membership;
    // An edge that makes way waits as long as a founder, and comes back.
    let makes_way = m.solo_after * if setting.edges == 0 { 0 } else { 2 };
    m.give_up_after + m.solo_after + makes_way + m.max_drift + TIMERS + trips(setting)
}

/// Returns the virtual time after which nothing may be left of what was deleted or has expired: the longest deadline has
/// passed, tombstones have the age for collection, everybody has reported, and collection has looked twice.
#[must_use]
pub fn rests_within(setting: &Setting) -> Duration {
    let config = Config::wan("r0", "sim:0");
    let looks = Duration::from_secs(2);
    let expiry = Duration::from_millis(setting.ttl_ms_max);
    expiry + config.replication.collect_after + config.membership.max_drift + looks + trips(setting)
}

fn trips(setting: &Setting) -> Duration {
    setting.weather.delay_max * TRIPS * if setting.weather.loss > 0.0 { LOST_TRIP } else { 1 }
}

/// Tells whether all honest nodes have joined and have seen the same events.
fn have_seen_the_same(cluster: &SimCluster) -> bool {
    differences(cluster).is_empty()
}

/// Says which honest nodes have not joined, and in which partitions they have seen different events.
fn differences(cluster: &SimCluster) -> String {
    let honest: Vec<usize> = cluster.honest().collect();
    let mut found = cluster.absentees();
    for at in &honest {
        if !cluster.node(*at).is_some_and(|node| node.stats().joined) {
            found += &format!("r{at} has not joined; ");
        }
    }
    for pair in honest.windows(2) {
        let [a, b] = pair else { continue };
        let (Some(x), Some(y)) = (cluster.store(*a), cluster.store(*b)) else { continue };
        for id in x.partition_ids() {
            let same = match (x.read(id), y.read(id)) {
                (Some(p), Some(q)) => p.ctx() == q.ctx(),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !same {
                found += &format!("r{a} and r{b} differ in partition {}; ", id.0);
            }
        }
    }
    found
}

fn said(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_owned())
}
