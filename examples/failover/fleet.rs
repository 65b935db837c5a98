//! All nodes together: started, cut off, stopped, killed, cloned, and asked what they have.
//!
//! # Invariants
//! * A node keeps its port and its identity when it is started again; its replica id is new.
//! * Whatever is asked of all nodes is asked of all at once.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftless::id::NodeId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::child::{Child, Door};
use crate::counters::{Counters, Repaired};
use crate::identity::{Identities, fresh_node};
use crate::ledger::Ledger;
use crate::marks::without_marks;
use crate::protocol::{Answer, Dump, Question, View};
use crate::support::protocol::Contexts;
use crate::wan::{Wan, Weather};
use crate::world::{self, World};
use crate::{DemoArgs, Program};

/// Up to this much is added to each delay.
const JITTER: Duration = Duration::from_millis(4);

/// How clients find nodes, and which regions they cannot reach.
#[derive(Debug)]
pub(crate) struct Access {
    world: World,
    doors: Mutex<BTreeMap<usize, Door>>,
    cut: [AtomicBool; world::COUNT],
}

impl Access {
    fn doors(&self) -> MutexGuard<'_, BTreeMap<usize, Door>> {
        // A door is put in or taken out in one call, so a poisoned map is whole.
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the process of a region that a client talks to.
    pub(crate) fn door(&self, region: usize, client: usize) -> Option<Door> {
        let doors = self.doors();
        let open: Vec<&Door> =
            doors.iter().filter(|(site, _)| self.world.region_of(**site) == region).map(|(_, door)| door).collect();
        open.get(client.checked_rem(open.len())?).copied().cloned()
    }

    /// Tells whether clients cannot reach a region.
    pub(crate) fn is_cut(&self, region: usize) -> bool {
        self.cut.get(region).is_some_and(|cut| cut.load(Ordering::Acquire))
    }

    /// Says whether clients can reach a region.
    pub(crate) fn cut(&self, region: usize, cut: bool) {
        if let Some(flag) = self.cut.get(region) {
            flag.store(cut, Ordering::Release);
        }
    }
}

/// All nodes of a run.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) world: World,
    pub(crate) wan: Wan,
    pub(crate) access: Arc<Access>,
    pub(crate) ledger: Ledger,
    children: BTreeMap<usize, Child>,
    counters: Counters,
    replicas: BTreeMap<usize, u64>,
    nodes: BTreeMap<usize, NodeId>,
    addresses: Vec<SocketAddr>,
    identities: Identities,
    program: Program,
    stable_ms: u64,
    patience: Duration,
}

impl Fleet {
    /// Starts the network and all nodes but the clone, and waits until all have joined.
    pub(crate) async fn start(
        args: &DemoArgs,
        program: Program,
        world: World,
        ledger: Ledger,
    ) -> Result<Self, Box<dyn Error>> {
        let wan = Wan::start(world.sites(), args.seed, |from, to| {
            let delay = world.delay(from, to);
            // Inside a building nothing is lost.
            let is_far = world.region_of(from) != world.region_of(to);
            let (jitter, loss) = if is_far { (JITTER, args.loss / 100.0) } else { (Duration::ZERO, 0.0) };
            Weather { delay, jitter, loss }
        })
        .await?;
        let nodes: BTreeMap<usize, NodeId> = (0..world.clone_site()).map(|site| (site, fresh_node())).collect();
        let named: Vec<_> = nodes
            .iter()
            .map(|(site, node)| (world.name_of(*site), world::name(world.region_of(*site)), *node))
            .collect();
        let identities = Identities::issue("failover", &named)?;
        // Held until just before the nodes bind them, so that nobody else is given the ports.
        let held = (0..world.sites()).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let addresses = held.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
        let access = Arc::new(Access { world, doors: Mutex::default(), cut: Default::default() });
        let mut fleet = Self {
            world,
            wan,
            access,
            ledger,
            children: BTreeMap::new(),
            counters: Counters::default(),
            replicas: BTreeMap::new(),
            nodes,
            addresses,
            identities,
            program,
            stable_ms: args.plan().stable_ms(),
            patience: args.timeout(),
        };
        drop(held);
        for site in 0..world.clone_site() {
            fleet.spawn(site)?;
        }
        for site in 0..world.clone_site() {
            fleet.joined(site).await?;
        }
        Ok(fleet)
    }

    /// Returns how long a node may take to answer, to join or to catch up.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Returns the sites at which a process runs.
    pub(crate) fn sites(&self) -> Vec<usize> {
        self.children.keys().copied().collect()
    }

    /// Returns which site each node's identity belongs to. The clone has that of the first node of its region.
    pub(crate) fn site_of_each_node(&self) -> BTreeMap<String, usize> {
        self.nodes.iter().map(|(site, node)| (node.to_string(), *site)).collect()
    }

    /// Returns the replica that runs, or ran last, at a site.
    pub(crate) fn replica_of(&self, site: usize) -> Option<u64> {
        self.replicas.get(&site).copied()
    }

    /// Returns the number of a site's process in the operating system.
    pub(crate) fn pid(&self, site: usize) -> Option<u32> {
        self.children.get(&site)?.pid()
    }

    fn original(&self, site: usize) -> usize {
        if site == self.world.clone_site() { self.world.sites_of(self.world.cloned).start } else { site }
    }

    /// Starts a site's process. It is of use only once it has [joined](Self::joined).
    pub(crate) fn spawn(&mut self, site: usize) -> Result<(), Box<dyn Error>> {
        let listen = *self.addresses.get(site).ok_or("no such site")?;
        self.wan.set_target(site, listen);
        let region = world::name(self.world.region_of(site));
        let identity = self.identities.of(&self.world.name_of(self.original(site)));
        let mut args = vec!["node".to_owned(), "--region".to_owned(), region.to_owned()];
        args.extend(["--listen".to_owned(), listen.to_string()]);
        args.extend(["--identity".to_owned(), identity.display().to_string()]);
        args.extend(["--stable-ms".to_owned(), self.stable_ms.to_string()]);
        for peer in (0..self.world.clone_site()).filter(|peer| *peer != site && *peer != self.original(site)) {
            args.extend(["--peer".to_owned(), self.wan.entrance(site, peer)?.to_string()]);
        }
        let name = self.world.name_of(site);
        self.counters.begin(site);
        self.children.insert(site, Child::spawn((site, name), &self.program.0, &args, self.ledger.clone())?);
        Ok(())
    }

    /// Waits until a site's process has joined, and lets clients in.
    pub(crate) async fn joined(&mut self, site: usize) -> Result<(), Box<dyn Error>> {
        let child = self.children.get_mut(&site).ok_or("nothing runs there")?;
        let replica = child.joined(self.patience).await?;
        self.access.doors().insert(site, child.door());
        self.replicas.insert(site, replica);
        Ok(())
    }

    /// Kills a site's process (SIGKILL).
    pub(crate) async fn kill(&mut self, site: usize) -> Result<(), Box<dyn Error>> {
        let child = self.children.remove(&site).ok_or("nothing runs there")?;
        self.access.doors().remove(&site);
        child.kill().await
    }

    /// Lets a site's process end in an orderly way.
    pub(crate) async fn quit(&mut self, site: usize) -> Result<(), Box<dyn Error>> {
        self.count(&[site]).await?;
        let child = self.children.remove(&site).ok_or("nothing runs there")?;
        self.access.doors().remove(&site);
        child.quit(self.patience).await
    }

    /// Lets every process end.
    pub(crate) async fn quit_all(&mut self) -> Result<(), Box<dyn Error>> {
        self.access.doors().clear();
        let mut ended = JoinSet::new();
        for child in std::mem::take(&mut self.children).into_values() {
            let patience = self.patience;
            ended.spawn(async move { child.quit(patience).await.map_err(|e| e.to_string()) });
        }
        while let Some(done) = ended.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Asks some sites the same at once; returns each answer, in order of the sites.
    pub(crate) async fn ask(
        &self,
        sites: &[usize],
        question: &Question,
        within: Duration,
    ) -> Result<Vec<Answer>, Box<dyn Error>> {
        let mut asked = JoinSet::new();
        for site in sites.iter().copied() {
            let door = self.children.get(&site).ok_or("nothing runs there")?.door();
            let (question, name) = (question.clone(), self.world.name_of(site));
            asked.spawn(async move { (site, name, door.ask(question, within).await) });
        }
        let mut answers = BTreeMap::new();
        while let Some(done) = asked.join_next().await {
            let (site, name, answer) = done?;
            let answer = answer.map_err(|silent| format!("{name} gave no answer: {silent:?}"))?;
            answers.insert(site, answer);
        }
        Ok(answers.into_values().collect())
    }

    /// Returns everything that some sites name as seen between them.
    pub(crate) async fn union(&self, sites: &[usize]) -> Result<Contexts, Box<dyn Error>> {
        let mut union = Contexts::default();
        for answer in self.ask(sites, &Question::Contexts, self.patience).await? {
            if let Answer::Contexts(contexts) = answer {
                union.join(&without_marks(&contexts));
            }
        }
        Ok(union)
    }

    /// Waits until all sites have seen `target`; tells whether they have.
    pub(crate) async fn reach(&self, target: &Contexts) -> bool {
        let question = Question::Reach { target: target.clone() };
        self.ask(&self.sites(), &question, self.patience).await.is_ok()
    }

    /// Reads what repair has counted at some sites; returns what it has counted in all, there and elsewhere. What a process
    /// counts between the last reading and its end is in no sum.
    pub(crate) async fn count(&mut self, sites: &[usize]) -> Result<Repaired, Box<dyn Error>> {
        for (site, view) in sites.iter().zip(self.views(sites).await?) {
            self.counters.read(*site, view.repaired);
        }
        Ok(self.counters.sum())
    }

    /// Lets one node after the other compare all its copies with those of all others, until they are equal or `within` has
    /// passed, so that each pair is compared; the last one has been by then. Returns how many were found equal, and of how
    /// many.
    pub(crate) async fn compare(&self, within: Duration) -> Result<(usize, usize), Box<dyn Error>> {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let (sites, question, mut sum) = (self.sites(), Question::Compare { within_ms }, (0, 0));
        for site in sites.iter().take(sites.len().saturating_sub(1)) {
            for answer in self.ask(&[*site], &question, within + self.patience).await? {
                let Answer::Compared { verified, of } = answer else {
                    return Err(format!("a comparison was answered by {answer:?}").into());
                };
                sum = (sum.0 + verified, sum.1 + of);
            }
        }
        Ok(sum)
    }

    /// Returns how the cluster looks from some sites.
    async fn views(&self, sites: &[usize]) -> Result<Vec<View>, Box<dyn Error>> {
        let answers = self.ask(sites, &Question::View, self.patience).await?;
        Ok(answers.iter().filter_map(|a| if let Answer::View(view) = a { Some(*view) } else { None }).collect())
    }

    /// Waits until every node sees every other one, and nobody else.
    pub(crate) async fn whole(&self) -> Result<bool, Box<dyn Error>> {
        let deadline = Instant::now() + self.patience;
        let all = self.sites().len();
        while Instant::now() < deadline {
            if self.views(&self.sites()).await?.iter().all(|view| view.members == all && view.up == all) {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(false)
    }

    /// Returns what every node shows.
    pub(crate) async fn dumps(&self) -> Result<Vec<Dump>, Box<dyn Error>> {
        let answers = self.ask(&self.sites(), &Question::Dump, self.patience).await?;
        Ok(answers.into_iter().filter_map(|a| if let Answer::Dump(dump) = a { Some(*dump) } else { None }).collect())
    }
}
