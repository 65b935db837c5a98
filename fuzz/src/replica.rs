//! A replica without a network: one store of one partition, and just enough around it to exchange what a node would.
//!
//! # Invariants
//! * What is sent goes over the wire's own bytes, so that whatever a store can hold is also encoded and decoded.
//! * An incremental batch goes only to a peer whose context has the floor (R-TRUNC).

use std::sync::Arc;

use driftless::clock::{Hlc, Mono, Stamp};
use driftless::crdt::Ctx;
use driftless::crdt::custom::Erased;
use driftless::error::WriteError;
use driftless::id::{KeyspaceId, PartitionId, ReplicaId};
use driftless::node::link::{Staged, Staging};
use driftless::sim::oracle::{Key, Notes, Site};
use driftless::sim::workload::{REGISTERS, SPACES};
use driftless::store::{
    Applied, Around, Batch, Body, Budget, Cleared, Entry, Family, Full, Gate, Intent, KeyRef, Keyspace, Partition,
    Refused, Selector, Store, StoreConfig, Tick,
};
use driftless::wire::{Decoder, Encoder, Frame, FullChunk, Limits, Part};

/// A grave is collected only when it is older than this: more than twice the clocks' skew.
pub const COLLECT_AFTER_MS: u64 = 140;
/// The only partition.
pub const PART: PartitionId = PartitionId(0);
/// No limit on what one capture takes.
pub const ALL: Budget = Budget { fragments: usize::MAX, bytes: usize::MAX };

/// Everything a replica holds, in an order that does not depend on slots.
pub type State = (Ctx, Vec<(KeyspaceId, bytes::Bytes, Entry)>);

/// What replicas send each other: frames, to be taken in one after the other.
#[derive(Clone, Debug)]
pub struct Mail {
    from: ReplicaId,
    hlc: Hlc,
    frames: Vec<bytes::Bytes>,
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    id: ReplicaId,
    /// Its store.
    pub store: Store,
    /// Its wall clock.
    pub clock_ms: u64,
    others: Vec<ReplicaId>,
}

impl Replica {
    /// Builds an empty replica `id`, which knows `members`.
    ///
    /// # Panics
    /// Never: the workload's keyspaces can be opened.
    #[must_use]
    pub fn new(id: u64, members: &[u64]) -> Self {
        let config = StoreConfig {
            partitions: 1,
            hash_key: [7; 16],
            log_records_max: 1 << 20,
            keyspace_bytes: 1 << 30,
            key_bytes_max: 1_024,
            value_bytes_max: 1 << 20,
            is_edge: false,
        };
        let store = Store::new(ReplicaId(id), config);
        store.set_gate(Gate::Open);
        for space in SPACES {
            let opened = match space.family {
                Family::Custom => store.spaces().open_custom(space.name, Arc::new(Erased::<Notes>::default())),
                family => store.spaces().open(space.name, family),
            };
            assert!(opened.is_ok(), "names and families are constant");
        }
        let registers = store.spaces().find(REGISTERS.name).expect("it is open");
        assert!(store.spaces().open_epochs(&registers).is_ok());
        let others = members.iter().filter(|m| **m != id).map(|m| ReplicaId(*m)).collect();
        Self { id: ReplicaId(id), store, clock_ms: 0, others }
    }

    fn partition<R>(&self, look: impl FnOnce(&Partition) -> R) -> R {
        look(&self.store.read(PART).expect("it is the only one"))
    }

    fn change<R>(&self, f: impl FnOnce(&mut Partition) -> R) -> R {
        f(&mut self.store.lock(PART).expect("it is the only one"))
    }

    /// Returns what was seen.
    #[must_use]
    pub fn ctx(&self) -> Ctx {
        self.partition(|p| p.ctx().clone())
    }

    /// Returns what is held.
    #[must_use]
    pub fn state(&self) -> State {
        self.partition(|p| {
            let mut all: Vec<_> = p.entries().map(|(id, key, e)| (id, key.clone(), e.clone())).collect();
            all.sort_by(|a, b| (a.0.0, &a.1).cmp(&(b.0.0, &b.1)));
            (p.ctx().clone(), all)
        })
    }

    /// Reads an entry.
    pub fn entry<R>(&self, key: &Key, look: impl FnOnce(Option<&Entry>) -> R) -> R {
        let space = self.store.spaces().find(key.space.name).expect("it is open");
        self.store.with_entry(&KeyRef::new(&space, &key.name), look)
    }

    /// Tells whether frontier, floor and context lie within each other.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.partition(|p| p.ctx().includes(p.floor()) && p.floor().includes(p.frontier()))
    }

    /// Returns what another has reported.
    #[must_use]
    pub fn reported_by(&self, other: &Self) -> Ctx {
        self.partition(|p| p.report_of(other.id).cloned().unwrap_or_default())
    }

    // ---- mail

    fn mail(&self, parts: Vec<Part>) -> Mail {
        let (hlc, mut encoder) = (self.store.clock().last(), Encoder::default().without_compression());
        let frame = |part| Frame { from: self.id, hlc, parts: vec![part] };
        let mut encode = |part| encoder.encode_frame(&frame(part), self.store.spaces()).expect("it is small");
        Mail { from: self.id, hlc, frames: parts.into_iter().map(&mut encode).collect() }
    }

    /// Captures what a peer with this context lacks: increments, or everything if some records are gone.
    #[must_use]
    pub fn mail_for(&self, known: &Ctx, budget: Budget) -> Mail {
        if self.partition(|p| known.includes(p.floor())) {
            self.mail(vec![Part::Batch(self.partition(|p| p.capture_lacking(known, budget).batch))])
        } else {
            self.cut(self.partition(|p| p.capture_full_for(known)), &[])
        }
    }

    /// Captures a batch of everything, and returns it whole and as one mail for each of its fragments.
    #[must_use]
    pub fn batch(&self) -> (Mail, Vec<Mail>) {
        let batch = self.partition(|p| p.capture_lacking(&Ctx::default(), ALL).batch);
        let one = |fragment| Part::Batch(Batch { fragments: vec![fragment], ..batch.clone() });
        let single = batch.fragments.iter().cloned().map(|fragment| self.mail(vec![one(fragment)])).collect();
        (self.mail(vec![Part::Batch(batch)]), single)
    }

    /// Captures everything as a full synchronisation, in pieces of these many fragments, and then one for the rest.
    #[must_use]
    pub fn full(&self, cuts: &[u8]) -> Mail {
        self.cut(self.partition(Partition::capture_full), cuts)
    }

    fn cut(&self, full: Full, cuts: &[u8]) -> Mail {
        let Full { batch, frontier, floor, forgotten, is_rest, .. } = full;
        let mut fragments = batch.fragments.into_iter();
        let mut pieces: Vec<Vec<_>> = cuts.iter().map(|n| fragments.by_ref().take(usize::from(*n)).collect()).collect();
        pieces.push(fragments.collect());
        let (ctxs, none) = ([batch.ctx, frontier, floor], <[Ctx; 3]>::default());
        let count = pieces.len();
        let chunk = |(at, fragments)| {
            let [ctx, frontier, floor] = if at == 0 { ctxs.clone() } else { none.clone() };
            let (index, last) = (u32::try_from(at).expect("few"), at + 1 == count);
            let forgotten = if at == 0 { forgotten } else { Hlc::default() };
            let partition = PART;
            Part::FullChunk(FullChunk {
                partition,
                session: 9,
                index,
                last,
                ctx,
                frontier,
                floor,
                forgotten,
                is_rest: is_rest && at == 0,
                fragments,
            })
        };
        self.mail(pieces.into_iter().enumerate().map(chunk).collect())
    }

    /// Takes mail in, through the wire and the staging a node has.
    ///
    /// # Errors
    /// As the partition says.
    ///
    /// # Panics
    /// If what a store sent does not decode, cannot be joined, or is not whole.
    pub fn deliver(&mut self, mail: &Mail) -> Result<Applied, Refused> {
        let (mut staging, mut applied) = (Staging::default(), Applied::default());
        for bytes in &mail.frames {
            let frame = Decoder::default().decode_frame(bytes, self.store.spaces(), &Limits::default());
            for part in frame.expect("a store made it").parts {
                applied.add(self.take(mail.from, part, &mut staging)?);
            }
        }
        assert!(applied.duplicates.is_empty() && applied.quarantined == 0, "nothing is malformed here: {applied:?}");
        self.store.clock().observe(mail.hlc);
        Ok(applied)
    }

    fn take(&mut self, from: ReplicaId, part: Part, staging: &mut Staging) -> Result<Applied, Refused> {
        let around = Around { spaces: self.store.spaces(), collect_before_ms: self.collect_before_ms() };
        match part {
            Part::Batch(batch) => self.change(|p| p.apply(from, &batch, &around)),
            Part::FullChunk(chunk) => match staging.add(Mono(0), chunk) {
                Staged::Waiting => Ok(Applied::default()),
                Staged::Whole(full) => self.change(|p| p.apply_full(from, &full, &around)),
                Staged::Broken | Staged::Full => panic!("every piece came, in order"),
            },
            Part::Restore(_) | Part::Answer(_) => Ok(Applied::default()),
        }
    }

    // ---- housekeeping

    fn collect_before_ms(&self) -> u64 {
        self.clock_ms.saturating_sub(COLLECT_AFTER_MS)
    }

    /// Collects what every member has.
    pub fn collect(&self) {
        self.change(|p| p.collect(&self.others, self.store.spaces(), self.collect_before_ms()));
    }

    /// Drops what expired.
    ///
    /// # Panics
    /// If it never ends.
    pub fn expire(&self) {
        let now_ms = self.store.clock().visible_ms(self.clock_ms);
        let more = |_: &usize| self.change(|p| p.sweep(now_ms, self.store.spaces(), self.collect_before_ms()));
        assert!((0..1_000).take_while(more).count() < 1_000, "a sweep that always has more to do");
    }

    /// Gives a key's memory back; returns the stamp of the value that went.
    pub fn evict(&self, key: &Key) -> Option<Stamp> {
        let space = self.store.spaces().find(key.space.name).expect("it is open");
        let stamp = self.entry(key, |entry| match entry.map(|e| &e.body) {
            Some(Body::Register(Some(cell))) => Some(cell.stamp()),
            Some(Body::Register(None) | Body::Tree(_) | Body::Custom(_)) | None => None,
        });
        let evicted = self.change(|p| p.evict(&KeyRef::new(&space, &key.name), self.collect_before_ms()));
        stamp.filter(|_| evicted)
    }

    /// Drops the oldest of the log's records.
    pub fn truncate(&self, records: usize) {
        self.change(|p| p.shrink_log(p.log_len().saturating_sub(records)));
    }

    /// Returns something that is still here although nothing keeps it.
    #[must_use]
    pub fn residue(&self) -> Option<String> {
        let dead = |entry: &Entry| match &entry.body {
            Body::Register(cell) => cell.as_ref().is_none_or(driftless::crdt::Cell::is_grave),
            Body::Custom(custom) => custom.as_ref().as_ref().is_none_or(driftless::crdt::Custom::is_grave),
            Body::Tree(tree) => {
                tree.elems().next().is_none() && !tree.is_hole() && tree.counters().all(|(_, c)| !c.is_live())
            }
        };
        let (records, (_, entries)) = (self.partition(Partition::log_len), self.state());
        let spaces = self.store.spaces();
        let epochs = |id: KeyspaceId| spaces.get(id).is_some_and(|space| space.family() == Family::Epoch);
        let left = entries.into_iter().find(|(id, _, e)| dead(e) || !e.is_settled() || epochs(*id));
        left.map(|left| format!("{left:?}")).or((records > 0).then(|| format!("{records} log records")))
    }
}

impl Site for Replica {
    fn store(&self) -> Option<&Store> {
        Some(&self.store)
    }

    fn write<R>(
        &mut self,
        at: &KeyRef<'_>,
        value_len: Option<usize>,
        f: impl FnOnce(&mut Partition, &Tick<'_>) -> R,
    ) -> Result<R, WriteError> {
        self.store.write(at, Intent { wall_ms: self.clock_ms, value_len }, f).map(|(result, _)| result)
    }

    fn invalidate(&mut self, space: &Keyspace, selector: &Selector) -> Result<Vec<Cleared>, WriteError> {
        self.store.invalidate(space, selector, self.clock_ms).map(|(cleared, _)| cleared)
    }
}
