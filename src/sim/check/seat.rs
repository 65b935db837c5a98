//! What was last seen at each host, and what must hold between two looks.
//!
//! # Invariants
//! * Frontier within floor within context, and none of them ever shrinks while a process runs.
//! * A context names only events that somebody made.
//! * What a replica calls stable every member it knew all the while has seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation};
use crate::crdt::{Ctx, Dot};
use crate::id::{PartitionId, ReplicaId};
use crate::node::Node;
use crate::sim::oracle::History;
use crate::store::Partition;

/// A process at the last look.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Seat {
    pub(in crate::sim) replica: ReplicaId,
    /// The largest wall clock it ever had.
    pub(in crate::sim) wall_ms_max: u64,
    /// What it had seen of each partition, with the events its marks stand for.
    pub(in crate::sim) contexts: Vec<Ctx>,
    /// The same as it is written down.
    raw: Vec<Ctx>,
    dropped: Vec<Dropped>,
    /// The members it knew.
    members: BTreeSet<ReplicaId>,
    /// The latest that it knew of what each of them says of itself.
    profiles: BTreeMap<ReplicaId, u64>,
}

/// What it had dropped from the log of a partition.
#[derive(Clone, Debug, Default)]
struct Dropped {
    frontier: Ctx,
    floor: Ctx,
}

/// What happened at a host since the last look.
#[derive(Debug, Default)]
pub(in crate::sim) struct News {
    /// Events it had not seen before.
    pub(in crate::sim) dots: Vec<(PartitionId, Dot)>,
    /// Events it newly calls stable, and every member it knew all the while.
    pub(in crate::sim) stable: Vec<(PartitionId, Dot)>,
    /// Those it calls so because they are folded elsewhere: who is about to join is given them by its donor.
    folded: Vec<(PartitionId, Dot)>,
    pub(in crate::sim) witnesses: BTreeSet<ReplicaId>,
}

impl News {
    /// Tells whether anything is newly called stable.
    pub(in crate::sim) fn has_stable(&self) -> bool {
        !(self.stable.is_empty() && self.folded.is_empty())
    }
}

impl Seat {
    pub(in crate::sim) fn new(node: &Node, wall_ms: u64) -> Self {
        let partitions = node.store().partition_count();
        let (contexts, dropped) = (vec![Ctx::default(); partitions], vec![Dropped::default(); partitions]);
        Self {
            replica: node.me().replica,
            wall_ms_max: wall_ms,
            raw: contexts.clone(),
            contexts,
            dropped,
            members: BTreeSet::new(),
            profiles: profiles(node),
        }
    }

    /// Looks again.
    pub(in crate::sim) fn look(&mut self, node: &Node, wall_ms: u64, history: &History) -> Result<News, Violation> {
        self.wall_ms_max = self.wall_ms_max.max(wall_ms);
        let mut news = News::default();
        let store = node.store();
        for id in store.partition_ids() {
            let (Some(ctx), Some(raw)) = (self.contexts.get_mut(id.index()), self.raw.get_mut(id.index())) else {
                continue;
            };
            let (Some(dropped), Some(p)) = (self.dropped.get_mut(id.index()), store.read(id)) else { continue };
            if *raw != *p.ctx() {
                raw.clone_from(p.ctx());
                seen(ctx, (id, &history.resolved(id, p.ctx())), history, &mut news)?;
            }
            dropped.look(&p, history, &mut news)?;
        }
        if news.has_stable() {
            news.witnesses = self.members.clone();
        }
        let known = members(node);
        news.witnesses.retain(|replica| known.contains(replica) && *replica != self.replica);
        self.members = known;
        self.hear(node)?;
        Ok(news)
    }
}

impl Seat {
    /// What a process knows of a member is never older than what it knew, as long as that is a member. Who joins puts aside
    /// what it knew when its donor goes away.
    fn hear(&mut self, node: &Node) -> Result<(), Violation> {
        let known = profiles(node);
        if !node.stats().joined {
            self.profiles.clear();
            return Ok(());
        }
        let older = |(replica, version): &(&ReplicaId, &u64)| known.get(*replica).is_some_and(|now| now < *version);
        if let Some((replica, version)) = self.profiles.iter().find(older) {
            let what = format!("word {version} of {replica} was replaced by word {:?}", known.get(replica));
            return Err(Violation::new(Invariant::Membership, what));
        }
        self.profiles = known;
        Ok(())
    }
}

fn profiles(node: &Node) -> BTreeMap<ReplicaId, u64> {
    node.members().live().map(|(replica, member)| (replica, member.profile.version)).collect()
}

fn members(node: &Node) -> BTreeSet<ReplicaId> {
    node.members().live().map(|(replica, _)| replica).collect()
}

/// A context grew.
fn seen(before: &mut Ctx, (id, ctx): (PartitionId, &Ctx), history: &History, news: &mut News) -> Result<(), Violation> {
    grows(id, "context", before, ctx)?;
    invented(id, ctx, history)?;
    news.dots.extend(beyond(before, ctx).map(|dot| (id, dot)));
    before.clone_from(ctx);
    Ok(())
}

impl Dropped {
    fn look(&mut self, p: &Partition, history: &History, news: &mut News) -> Result<(), Violation> {
        if self.floor != *p.floor() {
            grows(p.id(), "floor", &self.floor, p.floor())?;
            self.floor.clone_from(p.floor());
            nested(p)?;
        }
        if self.frontier != *p.frontier() {
            grows(p.id(), "frontier", &self.frontier, p.frontier())?;
            nested(p)?;
            // What a donor called stable was stable among the members the donor knew.
            if p.binding_floor().is_none() {
                let resolved = |ctx| history.resolved(p.id(), ctx);
                let (before, after) = (resolved(&self.frontier), resolved(p.frontier()));
                let all = beyond(&before, &after).map(|dot| (p.id(), dot));
                let (stable, folded): (Vec<_>, Vec<_>) = all.partition(|(_, dot)| p.ctx().names(*dot));
                news.stable.extend(stable);
                news.folded.extend(folded);
            }
            self.frontier.clone_from(p.frontier());
        }
        Ok(())
    }
}

fn nested(p: &Partition) -> Result<(), Violation> {
    let broken = if !p.ctx().includes(p.floor()) {
        Some(("floor", p.floor(), "context", p.ctx()))
    } else if !p.floor().includes(p.frontier()) {
        Some(("frontier", p.frontier(), "floor", p.floor()))
    } else {
        None
    };
    broken.map_or(Ok(()), |(inner, small, outer, large)| {
        let what = format!("{}: the {inner} {small:?} is not within the {outer} {large:?}", p.id());
        Err(Violation::new(Invariant::Nesting, what))
    })
}

fn grows(id: PartitionId, what: &str, before: &Ctx, after: &Ctx) -> Result<(), Violation> {
    if after.includes(before) {
        return Ok(());
    }
    Err(Violation::new(Invariant::Nesting, format!("{id}: the {what} shrank from {before:?} to {after:?}")))
}

/// A replica numbers its events from one without gaps, so whoever is named beyond its last event names nothing.
fn invented(id: PartitionId, ctx: &Ctx, history: &History) -> Result<(), Violation> {
    for (replica, seen) in ctx.iter() {
        let made = history.made(id, replica);
        if seen.max() > made {
            let what = format!("{id}: event {} of {replica} was seen, which made {made}", seen.max());
            return Err(Violation::new(Invariant::Invented, what));
        }
    }
    Ok(())
}

/// Iterates over the dots of `after` that `before` lacks.
fn beyond<'a>(before: &'a Ctx, after: &'a Ctx) -> impl Iterator<Item = Dot> + 'a {
    after.iter().flat_map(move |(replica, seen)| {
        let known = before.of(replica);
        let from = known.map_or(0, crate::crdt::Seen::base).saturating_add(1);
        let new = move |seq: &u64| seen.has(*seq) && !known.is_some_and(|known| known.has(*seq));
        (from..=seen.max()).filter(new).map(move |seq| Dot { replica, seq })
    })
}

/// Checks that what is called stable was seen by every member: by `contexts` of those that run, or of those that ended
/// as they were then. Those of `joining` run and have not joined.
pub(in crate::sim) fn stable_everywhere(
    news: &News,
    contexts: &BTreeMap<ReplicaId, &[Ctx]>,
    joining: &BTreeSet<ReplicaId>,
) -> Result<(), Violation> {
    for (replica, parts) in contexts.iter().filter(|(replica, _)| news.witnesses.contains(replica)) {
        let lacks = |(id, dot): &&(PartitionId, Dot)| parts.get(id.index()).is_some_and(|ctx| !ctx.has(*dot));
        let folded = news.folded.iter().filter(|_| !joining.contains(replica));
        if let Some((id, dot)) = news.stable.iter().chain(folded).find(lacks) {
            let what = format!("{id}: {dot:?} is called stable, and the member {replica} has not seen it");
            return Err(Violation::new(Invariant::Stability, what));
        }
    }
    Ok(())
}
