//! Stands in for the watcher until that exists.

use super::SimCluster;
use super::plan::{Ack, Action, Op, OpKind, Setting};
use crate::crdt::{NEVER, Path};
use crate::store::{Family, KeyRef};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub detail: String,
}
#[derive(Debug, Clone, Copy)]
pub enum Invariant {
    Convergence,
}
impl Invariant {
    pub fn name(self) -> &'static str {
        "Convergence"
    }
}

#[derive(Debug, Default)]
pub struct Watcher {
    n: u64,
}

impl Watcher {
    pub fn new(_: &Setting) -> Self {
        Self::default()
    }
    pub fn write(&mut self, cluster: &mut SimCluster, at: usize, op: Op, _: Option<Ack>) -> Result<(), Violation> {
        self.n += 1;
        let Some(store) = cluster.store(at) else { return Ok(()) };
        let name = format!("k{}", op.key);
        let value = Bytes::from(format!("{}", self.n));
        let Ok(regs) = store.spaces().open("registers", Family::Register) else { return Ok(()) };
        let Ok(maps) = store.spaces().open("maps", Family::Map) else { return Ok(()) };
        let (reg, map) = (KeyRef::new(&regs, name.as_bytes()), KeyRef::new(&maps, name.as_bytes()));
        let field = Path::Field(Bytes::from(format!("f{}", op.name)));
        match op.kind {
            OpKind::Set | OpKind::SetTagged => {
                drop(cluster.write(at, &reg, Some(4), |p, t| p.set(&reg, value, NEVER, t).dot))
            }
            OpKind::Delete => drop(cluster.write(at, &reg, None, |p, t| {
                p.delete(&reg, t);
            })),
            OpKind::Put | OpKind::AddMember => drop(cluster.write(at, &map, Some(4), |p, t| {
                p.put(&map, field, value, NEVER, t);
            })),
            OpKind::Remove | OpKind::RemoveMember => drop(cluster.write(at, &map, None, |p, t| {
                p.remove(&map, &field, t);
            })),
            OpKind::Clear => drop(cluster.write(at, &map, None, |p, t| {
                p.clear(&map, t);
            })),
            _ => {}
        }
        drop(Arc::clone(&store));
        Ok(())
    }
    pub fn read(&mut self, _: &mut SimCluster, _: u8, _: usize, _: u8) -> Result<(), Violation> {
        Ok(())
    }
    pub fn before(&mut self, _: &SimCluster, _: &Action) {}
    pub fn after_step(&mut self, _: &mut SimCluster) -> Result<(), Violation> {
        Ok(())
    }
    pub fn has_converged(&self, _: &SimCluster) -> bool {
        true
    }
    pub fn converged(&mut self, _: &mut SimCluster) -> Result<(), Violation> {
        Ok(())
    }
    pub fn at_rest(&mut self, _: &mut SimCluster) -> Result<(), Violation> {
        Ok(())
    }
}
