//! One thing that happens to a region, and what is made of it: who noticed, who agreed, where clients went.
//!
//! # Invariants
//! * Everything here is computed from the ledger; nothing is measured twice.
//! * Times are from the moment from which on there was something to be noticed, or from the beginning.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;

use crate::ledger::{SentTo, ServedAt};
use crate::protocol::{Saw, What};
use crate::world::{self, World};

/// A slow region stands still for so long, again and again, and runs for so long in between, in milliseconds: slower than a
/// client waits for, and half of the silence that makes a node suspected.
pub(crate) const STOPPED_MS: u64 = 250;
pub(crate) const RUNNING_MS: u64 = 150;

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A region is cut off from all others and from its clients.
    Cut,
    /// All processes of a region get SIGKILL.
    Kill,
    /// What one region sends to one other is lost.
    OneWayCut,
    /// The processes of a region stand still for most of the time: slow, not dead.
    SlowRegion,
    /// One node hears nobody; its clients still reach it.
    Isolation,
    /// A region is drained and started again, as for an upgrade.
    Restart,
    /// A second process runs with the identity of a node.
    ClonedIdentity,
}

impl Kind {
    /// Returns the name by which it is asked for and reported.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Kill => "kill",
            Self::OneWayCut => "one_way_cut",
            Self::SlowRegion => "slow_region",
            Self::Isolation => "isolation",
            Self::Restart => "restart",
            Self::ClonedIdentity => "cloned_identity",
        }
    }

    /// Returns the region it happens to in a run with seed 1, and for the one-way cut the one that hears nothing.
    fn regions(self) -> (usize, Option<usize>) {
        match self {
            Self::Cut | Self::SlowRegion => (3, None),
            Self::Kill => (2, None),
            Self::OneWayCut => (1, Some(4)),
            Self::Isolation => (1, None),
            Self::Restart => (0, None),
            Self::ClonedIdentity => (2, None),
        }
    }

    /// Returns the region it happens to, and for the one-way cut the one that hears nothing. Another seed, other regions.
    pub(crate) fn happens_to(self, seed: u64) -> (usize, Option<usize>) {
        let turn = usize::try_from(seed.wrapping_sub(1) % 5).unwrap_or(0);
        let (region, other) = self.regions();
        let turned = |region: usize| (region + turn) % world::COUNT;
        (turned(region), other.map(turned))
    }

    /// Tells whether all whom it concerns must come to a verdict while it lasts. A slow region is to be called nothing, and
    /// a restart may be over before anybody has missed the region.
    pub(crate) fn is_to_be_noticed(self) -> bool {
        match self {
            Self::Cut | Self::Kill | Self::OneWayCut | Self::Isolation | Self::ClonedIdentity => true,
            Self::SlowRegion | Self::Restart => false,
        }
    }

    /// Tells whether it cuts off whom it happens to from all others.
    pub(crate) fn cuts_off(self) -> bool {
        match self {
            Self::Cut | Self::Isolation => true,
            Self::Kill | Self::OneWayCut | Self::SlowRegion | Self::Restart | Self::ClonedIdentity => false,
        }
    }

    /// Tells whether every router must name other regions to the region's clients while it lasts.
    pub(crate) fn is_to_be_routed_around(self) -> bool {
        match self {
            Self::Cut | Self::Kill | Self::Restart => true,
            Self::OneWayCut | Self::SlowRegion | Self::Isolation | Self::ClonedIdentity => false,
        }
    }

    /// Returns how soon all whom it concerns must agree, and routers must have turned away, in milliseconds; nothing where
    /// nobody need agree, or it may begin long before there is anything to notice.
    pub(crate) fn in_time_ms(self) -> Option<u64> {
        match self {
            Self::Cut | Self::Kill | Self::Isolation => Some(1_000),
            // Twice the silence that makes a node suspected, and as much again as all others have for what comes after one.
            Self::OneWayCut => Some(1_500),
            // The process has to start and to join before there are two.
            Self::ClonedIdentity => Some(2_000),
            Self::SlowRegion | Self::Restart => None,
        }
    }

    /// Tells whether clients of the region may be served elsewhere for it.
    pub(crate) fn moves_clients(self) -> bool {
        match self {
            Self::Cut | Self::Kill | Self::SlowRegion | Self::Restart | Self::ClonedIdentity => true,
            Self::OneWayCut | Self::Isolation => false,
        }
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) struct Incident {
    pub(crate) kind: Kind,
    pub(crate) region: usize,
    /// The processes it happens to.
    pub(crate) targets: BTreeSet<usize>,
    /// A process that it brings about: the clone.
    pub(crate) newcomer: Option<usize>,
    /// The processes that hear nothing of the targets: all others, but for the one-way cut.
    pub(crate) witnesses: BTreeSet<usize>,
    /// The running copies at the targets when it began.
    pub(crate) replicas: BTreeSet<u64>,
    /// Which site each identity belongs to.
    pub(crate) sites: BTreeMap<String, usize>,
    pub(crate) from_ms: u64,
    /// From here on there is something to be noticed: its beginning, but for a restart, which is announced.
    pub(crate) quiet_ms: u64,
    /// From here on it is being undone.
    pub(crate) healing_ms: u64,
    /// From here on nothing of it is left.
    pub(crate) until_ms: u64,
}

impl Incident {
    /// Says what happens.
    pub(crate) fn text(&self, world: World) -> String {
        let region = world::name(self.region);
        let deaf = self.witnesses.first().map_or(region, |site| world::name(world.region_of(*site)));
        match self.kind {
            Kind::Cut => format!("{region} is cut off, from its clients as well"),
            Kind::Kill => format!("{region} gets SIGKILL"),
            Kind::OneWayCut => format!("{deaf} hears nothing of {region}"),
            Kind::SlowRegion => format!("{region} stands still again and again"),
            Kind::Isolation => format!("{region} hears nobody; its clients reach it"),
            Kind::Restart => format!("{region} is drained and started again"),
            Kind::ClonedIdentity => format!("a second process starts as {region}"),
        }
    }

    /// Returns whom a verdict is about.
    pub(crate) fn about(&self, saw: &Saw) -> Option<usize> {
        self.sites.get(saw.node.as_ref()?).copied()
    }

    /// Tells whether it happens to one process only, which has nobody to ask when it hears none of the others.
    pub(crate) fn is_alone(&self) -> bool {
        self.targets.len() == 1
    }

    fn is_removal(&self, (site, saw): &(usize, Saw)) -> bool {
        match saw.what {
            What::MemberRemoved => saw.replica.is_some_and(|replica| self.replicas.contains(&replica)),
            What::Fenced => self.targets.contains(site),
            What::Up
            | What::Suspect
            | What::Unreachable
            | What::LinkDown
            | What::Isolated
            | What::NotIsolated
            | What::Twin
            | What::MemberJoined => false,
        }
    }

    fn is_first_sign(&self, heard: &(usize, Saw)) -> bool {
        let (site, saw) = heard;
        let of_target = || self.about(saw).is_some_and(|about| self.targets.contains(&about));
        match (self.kind, saw.what) {
            (Kind::ClonedIdentity, _) => self.is_removal(heard),
            (_, What::Suspect | What::Unreachable | What::LinkDown) => self.witnesses.contains(site) && of_target(),
            (_, What::Isolated) => self.targets.contains(site),
            (
                _,
                What::Up | What::NotIsolated | What::MemberJoined | What::MemberRemoved | What::Fenced | What::Twin,
            ) => false,
        }
    }

    fn is_verdict(&self, heard: &(usize, Saw)) -> Option<(usize, usize)> {
        let (site, saw) = heard;
        let about = match (self.kind, saw.what) {
            (Kind::ClonedIdentity, What::MemberRemoved | What::Fenced) if self.is_removal(heard) => {
                // There is one target; whoever tells of its removal tells of it.
                self.targets.first().copied()
            }
            (Kind::OneWayCut, What::LinkDown) | (_, What::Unreachable) => self.about(saw),
            (_, _) => None,
        };
        Some((*site, about.filter(|about| self.targets.contains(about))?))
    }

    fn since<'a>(&self, saws: &'a [(usize, Saw)]) -> impl Iterator<Item = &'a (usize, Saw)> {
        let (from, until) = (self.quiet_ms, self.until_ms);
        saws.iter().filter(move |(_, saw)| (from..=until).contains(&saw.at_ms))
    }

    /// Returns when somebody first noticed, in milliseconds, and who.
    pub(crate) fn detected(&self, saws: &[(usize, Saw)]) -> Option<(u64, usize)> {
        let signs = self.since(saws).filter(|heard| self.is_first_sign(heard));
        signs.map(|(site, saw)| (saw.at_ms - self.quiet_ms, *site)).min()
    }

    /// Returns when the last witness had its verdict on the last target, in milliseconds from the beginning; nothing
    /// while one has none. Of a slow region nobody may have one.
    pub(crate) fn agreed(&self, saws: &[(usize, Saw)]) -> Option<u64> {
        let told = if self.kind == Kind::ClonedIdentity { self.targets.clone() } else { BTreeSet::new() };
        let pairs = self.witnesses.iter().chain(&told).flat_map(|w| self.targets.iter().map(move |t| (*w, *t)));
        self.last_of(pairs, saws, |heard| self.is_verdict(heard))
    }

    /// Returns when the last one that was cut off had said so, in milliseconds: one that hears nobody that it is isolated,
    /// one that hears its companions that each of the others is unreachable. Nothing while one has not, and of what cuts
    /// off nobody.
    pub(crate) fn cut_off(&self, saws: &[(usize, Saw)]) -> Option<u64> {
        if !self.kind.cuts_off() {
            return None;
        }
        if self.is_alone() {
            let isolated = |(site, saw): &(usize, Saw)| (saw.what == What::Isolated).then_some((*site, *site));
            return self.last_of(self.targets.iter().map(|target| (*target, *target)), saws, isolated);
        }
        let unreachable = |(site, saw): &(usize, Saw)| {
            let about = self.about(saw).filter(|_| saw.what == What::Unreachable)?;
            Some((*site, about))
        };
        let pairs = self.targets.iter().flat_map(|t| self.witnesses.iter().map(move |w| (*t, *w)));
        self.last_of(pairs, saws, unreachable)
    }

    /// Returns when the last of some pairs of who says and whom it is about was heard for the first time, in milliseconds;
    /// nothing while one was not.
    fn last_of(
        &self,
        pairs: impl Iterator<Item = (usize, usize)>,
        saws: &[(usize, Saw)],
        says: impl Fn(&(usize, Saw)) -> Option<(usize, usize)>,
    ) -> Option<u64> {
        let mut first: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for heard in self.since(saws) {
            if let Some(pair) = says(heard) {
                let at = first.entry(pair).or_insert(heard.1.at_ms);
                *at = heard.1.at_ms.min(*at);
            }
        }
        let all: Option<Vec<u64>> = pairs.map(|pair| first.get(&pair).copied()).collect();
        Some(all?.into_iter().max()? - self.quiet_ms)
    }

    /// Returns when each of two twins was told, in milliseconds from the beginning: the older one that it is fenced, the newer
    /// one that there is another process.
    pub(crate) fn twins_told(&self, saws: &[(usize, Saw)]) -> (Option<u64>, Option<u64>) {
        let told = |site: &dyn Fn(usize) -> bool, what: What| {
            let first = self.since(saws).find(|(at, saw)| site(*at) && saw.what == what);
            first.map(|(_, saw)| saw.at_ms - self.quiet_ms).filter(|_| self.newcomer.is_some())
        };
        let older = told(&|site| self.targets.contains(&site), What::Fenced);
        (older, told(&|site| Some(site) == self.newcomer, What::Twin))
    }

    /// Returns for each client of the region when another region first served it, in milliseconds from the beginning.
    pub(crate) fn rerouted(&self, served: &[ServedAt]) -> Vec<u64> {
        let mut first: BTreeMap<usize, u64> = BTreeMap::new();
        let in_time = |at_ms: u64| (self.from_ms..=self.until_ms).contains(&at_ms);
        let moved = |one: &&ServedAt| one.home == self.region && one.by != self.region && in_time(one.at_ms);
        for one in served.iter().filter(moved).filter(|_| self.kind.moves_clients()) {
            first.entry(one.client).or_insert(one.at_ms - self.from_ms);
        }
        let mut all: Vec<u64> = first.into_values().collect();
        all.sort_unstable();
        all
    }

    /// Returns when the last witness' router had stopped sending the region's clients there, in milliseconds from the
    /// beginning; nothing while one still sends them, and of what leaves the region in service.
    pub(crate) fn routed_around(&self, sent: &[SentTo]) -> Option<u64> {
        let in_time = |at_ms: u64| (self.from_ms..=self.until_ms).contains(&at_ms);
        let away = |one: &&SentTo| one.home == self.region && one.to != Some(self.region) && in_time(one.at_ms);
        let first = |witness: &usize| {
            let mut of_witness = sent.iter().filter(away).filter(|one| one.site == *witness);
            of_witness.next().map(|one| one.at_ms - self.from_ms)
        };
        let all: Option<Vec<u64>> = self.witnesses.iter().map(first).collect();
        all.filter(|_| self.kind.is_to_be_routed_around())?.into_iter().max()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn saw(site: usize, what: What, about: Option<usize>, at_ms: u64) -> (usize, Saw) {
        (site, Saw { what, node: about.map(|site| site.to_string()), replica: about.map(|_| 7), at_ms })
    }

    pub(crate) fn incident(kind: Kind, targets: &[usize], witnesses: &[usize]) -> Incident {
        Incident {
            kind,
            region: 3,
            targets: targets.iter().copied().collect(),
            newcomer: None,
            witnesses: witnesses.iter().copied().collect(),
            replicas: BTreeSet::from([7]),
            sites: (0..5).map(|site| (site.to_string(), site)).collect(),
            from_ms: 1_000,
            quiet_ms: 1_000,
            healing_ms: 6_000,
            until_ms: 9_000,
        }
    }

    #[test]
    fn all_agree_when_the_last_survivor_has_its_verdict() {
        let cut = incident(Kind::Cut, &[3], &[0, 1, 2]);
        let mut saws = vec![
            saw(0, What::Suspect, Some(3), 900),
            saw(1, What::Suspect, Some(2), 1_100),
            saw(2, What::Suspect, Some(3), 1_510),
            saw(3, What::Isolated, None, 1_520),
            saw(0, What::Unreachable, Some(3), 1_600),
            saw(1, What::Unreachable, Some(3), 1_640),
        ];
        assert_eq!((cut.detected(&saws), cut.agreed(&saws)), (Some((510, 2)), None));
        saws.push(saw(2, What::Unreachable, Some(3), 1_620));
        assert_eq!(cut.agreed(&saws), Some(640));
    }

    #[test]
    fn who_is_cut_off_says_so_alone_by_being_isolated_and_in_company_by_missing_all_others() {
        let saws = [
            saw(3, What::Isolated, None, 1_520),
            saw(3, What::Unreachable, Some(0), 1_600),
            saw(3, What::Unreachable, Some(1), 1_700),
            saw(4, What::Unreachable, Some(0), 1_650),
        ];
        assert_eq!(incident(Kind::Isolation, &[3], &[0, 1]).cut_off(&saws), Some(520));
        assert_eq!(incident(Kind::Cut, &[2], &[0, 1]).cut_off(&saws), None, "it was another one that said so");
        let region = incident(Kind::Cut, &[3, 4], &[0, 1]);
        assert_eq!(region.cut_off(&saws), None);
        let last = [&saws[..], &[saw(4, What::Unreachable, Some(1), 1_800)]].concat();
        assert_eq!((region.cut_off(&last), incident(Kind::Kill, &[3, 4], &[0, 1]).cut_off(&last)), (Some(800), None));
    }

    #[test]
    fn of_a_one_way_cut_the_verdict_is_that_the_link_is_down() {
        let cut = incident(Kind::OneWayCut, &[3], &[1]);
        let saws = [saw(1, What::Suspect, Some(3), 1_500), saw(1, What::LinkDown, Some(3), 2_000)];
        assert_eq!((cut.detected(&saws), cut.agreed(&saws)), (Some((500, 1)), Some(1_000)));
    }

    #[test]
    fn a_clone_is_agreed_on_when_the_older_process_was_told_too() {
        let clone = incident(Kind::ClonedIdentity, &[3], &[0, 1]);
        let removed = |site, at| {
            let (site, saw) = saw(site, What::MemberRemoved, None, at);
            (site, Saw { replica: Some(7), ..saw })
        };
        let mut saws = vec![removed(0, 1_100), removed(1, 1_200)];
        assert_eq!((clone.detected(&saws), clone.agreed(&saws)), (Some((100, 0)), None));
        saws.push(saw(3, What::Fenced, None, 1_300));
        assert_eq!(clone.agreed(&saws), Some(300));
    }

    #[test]
    fn a_client_is_rerouted_when_another_region_has_served_it() {
        let cut = incident(Kind::Cut, &[3], &[0]);
        let served = |client, at_ms, home, by| ServedAt { at_ms, client, home, by };
        let all = [served(1, 1_100, 3, 3), served(1, 1_300, 3, 0), served(2, 1_310, 3, 0), served(9, 1_200, 0, 0)];
        assert_eq!(cut.rerouted(&all), vec![300, 310]);
        assert!(incident(Kind::Isolation, &[3], &[0]).rerouted(&all).is_empty());
    }

    #[test]
    fn a_region_is_routed_around_when_the_last_router_sends_its_clients_elsewhere() {
        let cut = incident(Kind::Cut, &[3], &[0, 1]);
        let sent = |site, home, to, at_ms| SentTo { site, home, to: Some(to), at_ms };
        let mut all = vec![sent(0, 3, 1, 500), sent(0, 3, 3, 600), sent(0, 3, 1, 1_510), sent(1, 2, 0, 1_400)];
        assert_eq!(cut.routed_around(&all), None);
        all.push(sent(1, 3, 0, 1_620));
        assert_eq!(cut.routed_around(&all), Some(620));
    }
}
