//! What must hold of the replicas of a schedule: meanwhile, at its end, and much later.

use std::collections::BTreeSet;

use bytes::Bytes;
use driftless::crdt::Ctx;
use driftless::sim::check::{Licence, agree};
use driftless::store::{Frozen, KeyRef, Keyspace};

use super::replica::{COLLECT_AFTER_MS, PART, Replica, field, member, residue};
use super::world::World;
use super::{COUNTER, CUSTOM, MAPS, NAMES, REGS, SKEW_MS};

impl World {
    /// Everybody has seen the same and shows what the history says.
    pub(super) fn judge(&self, last: &[u64]) -> Result<(), String> {
        let ctx = self.replicas[&last[0]].ctx();
        // Later than every local clock that decided what to drop.
        let t = self.now + SKEW_MS;
        for i in last {
            let r = &self.replicas[i];
            if r.ctx() != ctx {
                return Err(format!("context of {i}: {:?} but {:?}", r.ctx(), ctx));
            }
            if !ctx.includes(&r.floor()) || !r.floor().includes(&r.frontier()) {
                return Err(format!("frontier, floor and context of {i} are not nested"));
            }
            self.judge_one(r, &ctx, t).map_err(|why| format!("at {i}: {why}"))?;
        }
        Ok(())
    }

    /// At any moment every replica shows what history says of what it has seen.
    pub(super) fn judge_everybody(&self) -> Result<(), String> {
        self.live().into_iter().try_for_each(|i| {
            let r = &self.replicas[&i];
            self.judge_one(r, &r.ctx(), self.now + SKEW_MS).map_err(|why| format!("meanwhile at {i}: {why}"))
        })
    }

    /// The sums are those of the entries, and of two copies of which one has seen all that the other has, they are the
    /// same at that context.
    pub(super) fn compare_at_the_meets(&self) -> Result<(), String> {
        let horizon_ms = self.now + 2 * SKEW_MS;
        for (i, first) in self.live().into_iter().map(|i| (i, &self.replicas[&i])) {
            let mine = first.store.read(PART).unwrap();
            if *mine.table() != mine.summed_up() {
                return Err(format!("the sums of {i} are not those of its entries"));
            }
            let Ok(frozen) = mine.freeze(&first.ctx(), horizon_ms) else { return Err(format!("{i} cannot freeze")) };
            for j in self.live().into_iter().filter(|j| *j != i) {
                let theirs = self.replicas[&j].store.read(PART).unwrap();
                let Ok(there) = theirs.freeze(&first.ctx(), horizon_ms) else { continue };
                let (mut here, mut there) = (fold(frozen.clone()), fold(there));
                let without: BTreeSet<u32> = here.without.union(&there.without).copied().collect();
                for leaves in [&mut here.leaves, &mut there.leaves] {
                    without.iter().for_each(|leaf| leaves[usize::try_from(*leaf).unwrap()] = 0);
                }
                if here.leaves != there.leaves {
                    return Err(format!("{i} and {j} differ at the context of {i}"));
                }
            }
        }
        Ok(())
    }

    fn judge_one(&self, r: &Replica, ctx: &Ctx, t: u64) -> Result<(), String> {
        let (view, licence) = (self.history.view(PART, ctx, t), self.licence());
        for key in self.history.keys() {
            let space = r.store.spaces().find(key.space.name).unwrap();
            let judge = |entry: Option<&_>| agree(&view.of(key), entry, t, &licence);
            r.store.with_entry(&KeyRef::new(&space, &key.name), judge).map_err(|found| found.to_string())?;
        }
        let known = |space: &Keyspace, name: &Bytes| {
            self.history.keys().any(|key| key.space.name == space.name() && key.name == name)
        };
        for (id, name, entry) in r.entries() {
            let space = r.store.spaces().get(id).unwrap();
            if space.target().is_none() && !known(&space, &name) {
                return Err(format!("{name:?} of {} was never written: {entry:?}", space.name()));
            }
        }
        Ok(())
    }

    /// What a replica may miss where memory is given back.
    fn licence(&self) -> Licence {
        Licence { hole: self.setting.evict, stamps: self.evicted.clone(), misses: false }
    }

    /// Returns everything a replica shows at `t`.
    fn view(&self, i: u64, t: u64) -> impl PartialEq + std::fmt::Debug + use<> {
        let r = &self.replicas[&i];
        let regs = REGS.map(|k| r.get(k, t));
        let fields: Vec<Option<Bytes>> = MAPS
            .into_iter()
            .flat_map(|k| NAMES.map(|n| (k, n)))
            .flat_map(|(k, n)| [r.read(k, &field(n), t), r.read(k, &member(n), t)])
            .collect();
        (regs, fields, MAPS.map(|k| r.count(k, COUNTER, t)), r.noted(CUSTOM, t))
    }

    /// Much later nothing is left to collect, and nobody has changed their mind.
    pub(super) fn nothing_is_left(&mut self, last: &[u64]) -> Result<(), String> {
        let t = self.now + COLLECT_AFTER_MS + 200;
        let before: Vec<_> = last.iter().map(|i| self.view(*i, t)).collect();
        self.now += COLLECT_AFTER_MS + SKEW_MS;
        for i in last {
            self.set_clock(*i);
            self.expire(*i);
            self.replicas[i].collect();
        }
        for (i, before) in last.iter().zip(before) {
            let after = self.view(*i, t);
            if after != before {
                return Err(format!("collection changed what {i} shows: {before:?} -> {after:?}"));
            }
            if let Some(left) = residue(&self.replicas[i]) {
                return Err(format!("left at {i}: {left}"));
            }
            let (mine, first) = (self.replicas[i].entries(), self.replicas[&last[0]].entries());
            if mine != first && !self.setting.evict {
                return Err(format!("{i} and {} show the same and hold {mine:?} and {first:?}", last[0]));
            }
        }
        Ok(())
    }
}

/// Sums of the smallest size a table has.
fn fold(mut frozen: Frozen) -> Frozen {
    let mut leaves = vec![0_u64; 16];
    frozen.leaves.iter().enumerate().for_each(|(at, sum)| leaves[at % 16] = leaves[at % 16].wrapping_add(*sum));
    frozen.without = frozen.without.iter().map(|leaf| leaf % 16).collect();
    frozen.leaves = leaves;
    frozen
}
