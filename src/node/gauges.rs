//! How large everything is that could grow, and how large it may become.
//!
//! A bound that nobody measures is a wish: simulation compares each of these after every step.

use crate::node::Node;
use crate::node::fetch::FETCHES_MAX;
use crate::node::levels::WAITS_MAX;
use crate::node::link::{EARLY_BYTES_MAX, Link, STAGED_BYTES_MAX};
use crate::node::pen::PEN_BYTES_MAX;
use crate::node::quarantine::QUARANTINE_MAX;
use crate::node::read::{ASKING_MAX, READS_MAX};

/// One size and its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gauge {
    /// What it is the size of, and its unit.
    pub name: &'static str,
    /// How large it is; of something every link has, the largest.
    pub size: u64,
    /// How large it may become.
    pub max: u64,
}

/// Every size of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gauges(Vec<Gauge>);

impl Gauges {
    /// Iterates over all of them, always in the same order.
    pub fn iter(&self) -> impl Iterator<Item = &Gauge> {
        self.0.iter()
    }

    /// Returns the gauge of a name.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Gauge> {
        self.iter().copied().find(|gauge| gauge.name == name)
    }

    /// Returns the first size that is over its bound.
    #[must_use]
    pub fn over(&self) -> Option<Gauge> {
        self.iter().copied().find(|gauge| gauge.size > gauge.max)
    }

    /// Takes the larger size of each.
    pub fn raise(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.iter()) {
            mine.size = mine.size.max(theirs.size);
        }
    }
}

impl Node {
    /// Returns the sizes of everything here that could grow.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        let gauge = |name, size: usize, max: usize| Gauge { name, size: count(size), max: count(max) };
        let largest = |of: &dyn Fn(&Link) -> usize| self.links.values().map(of).max().unwrap_or(0);
        let session =
            |of: &dyn Fn(&crate::node::Session) -> usize| largest(&|link| link.session.as_deref().map_or(0, of));
        let records = self.store.partition_ids().filter_map(|id| self.store.read(id)).map(|p| p.log_len()).sum();
        let partitions = self.store.partition_count();
        let records_max = (self.store.config().log_records_max / partitions).max(16) * partitions;
        let window = self.config.replication.link_window_bytes;
        let frame = usize::try_from(self.limits.frame_bytes).unwrap_or(usize::MAX);
        let places = self.config.node.peers.len() + usize::try_from(self.limits.replicas).unwrap_or(usize::MAX);
        Gauges(vec![
            gauge("bytes in the pen of a link", self.pen.largest(), PEN_BYTES_MAX),
            gauge("bytes that overtook a hello", largest(&|link| link.early.bytes()), EARLY_BYTES_MAX),
            gauge("staged bytes of a link", session(&|s| s.staging.bytes()), STAGED_BYTES_MAX),
            gauge("queued bytes of a link", session(&|s| s.peer.in_flight()), window.saturating_add(frame)),
            gauge("states in quarantine", self.quarantine.len(), QUARANTINE_MAX),
            gauge("waits", self.waits.len(), WAITS_MAX),
            gauge("fetches", self.fetches.len(), FETCHES_MAX),
            gauge("reads at a level", self.reads.len(), READS_MAX),
            gauge("questions of a link", session(&|s| s.questions.asked()), ASKING_MAX),
            gauge("requests of a link", session(&|s| s.asked_for.len()), FETCHES_MAX),
            gauge("dirty partitions", self.outbox.dirty().count(), partitions),
            gauge("log records", records, records_max),
            gauge("places to dial", self.slots.len(), places),
            gauge("pending outputs", self.out.len(), 0),
        ])
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
