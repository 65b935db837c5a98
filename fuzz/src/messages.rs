//! Messages of every kind, made of a fuzzer's bytes: whatever a store or node could send.
//!
//! # Invariants
//! * No stamp lies above its frame's clock, collections are in the one form a store keeps them in, and sequence numbers
//!   are those a message may carry: what is made here is to come back from the wire as it was.
//! * Few replicas, short names and small numbers, so that values meet; now and then the largest there is.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Result as Made, Unstructured};
use bytes::Bytes;
use driftless::clock::{Hlc, Stamp};
use driftless::crdt::tree::Branch;
use driftless::crdt::{
    Cell, Contribution, Ctx, Custom, Dot, Elem, Member, MemberSet, NEVER, Path, Payload, Profile, Reset, Scope, Seen,
};
use driftless::id::{NodeId, PartitionId, RegionId, ReplicaId, Role};
use driftless::store::{Batch, Family, Fragment, Keyspaces};
use driftless::wire::limits::SEQ_MAX;
use driftless::wire::{
    Answer, Beat, Control, Decoder, Encoder, Frame, FullChunk, Hello, Limits, Part, Repair, Restore, Snapshot,
    Unsendable,
};

use crate::spaces::keyspace;

/// A message of any channel.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// Of a log stream.
    Frame(Frame),
    /// Of the control stream.
    Control(Control),
    /// A datagram.
    Beat(Beat),
}

impl Message {
    /// Encodes it for its channel.
    ///
    /// # Errors
    /// As the encoder says.
    pub fn encode(&self, encoder: &mut Encoder, spaces: &Keyspaces) -> Result<Bytes, Unsendable> {
        match self {
            Self::Frame(frame) => encoder.encode_frame(frame, spaces),
            Self::Control(control) => encoder.encode_control(control),
            Self::Beat(beat) => Ok(encoder.encode_beat(beat)),
        }
    }

    /// Decodes a message of the channel its envelope names.
    #[must_use]
    pub fn decode(decoder: &mut Decoder, bytes: &[u8], spaces: &Keyspaces) -> Option<Self> {
        let limits = Limits::default();
        match bytes.get(1)? >> 6 {
            0 => decoder.decode_frame(bytes, spaces, &limits).ok().map(Self::Frame),
            1 => decoder.decode_control(bytes, &limits).ok().map(Self::Control),
            _ => decoder.decode_beat(bytes, &limits).ok().map(Self::Beat),
        }
    }
}

impl<'a> Arbitrary<'a> for Message {
    fn arbitrary(u: &mut Unstructured<'a>) -> Made<Self> {
        Ok(match u.int_in_range(0..=7)? {
            0..=3 => Self::Frame(frame(u)?),
            4..=6 => Self::Control(control(u)?),
            _ => Self::Beat(beat(u)?),
        })
    }
}

/// The clock of every frame.
pub const CLOCK: Hlc = Hlc(1_750_000_000_000 << 16 | 40);

/// Makes up to `max` of something; a byte says how many.
fn some<'a, T>(
    u: &mut Unstructured<'a>,
    max: u8,
    mut make: impl FnMut(&mut Unstructured<'a>) -> Made<T>,
) -> Made<Vec<T>> {
    let count = u.int_in_range(0..=max)?;
    (0..count).map(|_| make(u)).collect()
}

fn name(u: &mut Unstructured<'_>) -> Made<Bytes> {
    let len = u.int_in_range(0..=6)?;
    Ok(Bytes::copy_from_slice(u.bytes(usize::min(len, u.len()))?))
}

fn value(u: &mut Unstructured<'_>) -> Made<Bytes> {
    let (len, times) = (u.int_in_range(0..=12)?, u.int_in_range(0..=40)?);
    Ok(u.bytes(usize::min(len, u.len()))?.repeat(times).into())
}

fn text(u: &mut Unstructured<'_>) -> Made<String> {
    Ok(u.arbitrary::<&str>()?.chars().take(60).collect())
}

/// One of three replicas, or one with a large id.
pub fn replica(u: &mut Unstructured<'_>) -> Made<ReplicaId> {
    // Some of one tag, in order.
    let of_tag = |n: u64| 7 << 43 | n;
    Ok(ReplicaId(*u.choose(&[1, 2, 3, of_tag(1), of_tag(2), of_tag(9), u64::MAX - 5])?))
}

fn seq(u: &mut Unstructured<'_>) -> Made<u64> {
    let small = u64::from(u8::arbitrary(u)?);
    Ok(match small {
        0 => SEQ_MAX,
        1 => u64::arbitrary(u)?.clamp(1, SEQ_MAX),
        _ => small,
    })
}

fn dot(u: &mut Unstructured<'_>) -> Made<Dot> {
    Ok(Dot { replica: replica(u)?, seq: seq(u)? })
}

fn dots(u: &mut Unstructured<'_>) -> Made<BTreeSet<Dot>> {
    let mut all = BTreeSet::new();
    for (first, more) in some(u, 3, |u| Ok((dot(u)?, u.int_in_range(0..=5)?)))? {
        all.extend((first.seq..=first.seq + more).filter(|s| *s <= SEQ_MAX).map(|seq| Dot { seq, ..first }));
    }
    Ok(all)
}

fn hlc(u: &mut Unstructured<'_>) -> Made<Hlc> {
    let below = u64::from(u32::arbitrary(u)?);
    Ok(if below == 0 { Hlc(u64::arbitrary(u)? % CLOCK.0) } else { Hlc(CLOCK.0 - below) })
}

fn stamp(u: &mut Unstructured<'_>) -> Made<Stamp> {
    Ok(Stamp { hlc: hlc(u)?, replica: replica(u)? })
}

fn deadline(u: &mut Unstructured<'_>) -> Made<u64> {
    Ok(match u.int_in_range(0..=3)? {
        0 => NEVER,
        1 => CLOCK.ms() + 1_800_000,
        2 => CLOCK.ms() + u64::from(u16::arbitrary(u)?),
        _ => u64::arbitrary(u)?,
    })
}

fn payload(u: &mut Unstructured<'_>) -> Made<Payload> {
    Ok(match u.int_in_range(0..=3)? {
        0 => Payload::Tombstone,
        1 => Payload::Absent,
        _ => Payload::Value(value(u)?),
    })
}

fn cell(u: &mut Unstructured<'_>) -> Made<Cell> {
    let (payload, tags) = (payload(u)?, some(u, 2, name)?);
    let tags = if matches!(payload, Payload::Value(_)) { tags } else { Vec::new() };
    let mut cell = Cell::new(payload, hlc(u)?, dot(u)?, deadline(u)?).with_tags(tags);
    if bool::arbitrary(u)? {
        cell.touch = dot(u)?;
    }
    Ok(cell)
}

fn elem(u: &mut Unstructured<'_>) -> Made<Elem> {
    let (dot, stamp, own) = (dot(u)?, stamp(u)?, bool::arbitrary(u)?);
    let replica = if own { dot.replica } else { stamp.replica };
    Ok(Elem { dot, stamp: Stamp { replica, ..stamp }, deadline: deadline(u)?, value: value(u)? })
}

fn siblings(u: &mut Unstructured<'_>) -> Made<Vec<Elem>> {
    let mut all = some(u, 2, elem)?;
    all.push(elem(u)?);
    all.sort_by_key(|e| e.dot);
    all.dedup_by_key(|e| e.dot);
    Ok(all)
}

fn elem_path(u: &mut Unstructured<'_>) -> Made<Path> {
    Ok(match u.int_in_range(0..=3)? {
        0 => Path::Ttl,
        1 => Path::Member(name(u)?, name(u)?),
        _ => Path::Field(name(u)?),
    })
}

fn path(u: &mut Unstructured<'_>) -> Made<Path> {
    if bool::arbitrary(u)? { elem_path(u) } else { Ok(Path::Counter(name(u)?)) }
}

fn contributions(u: &mut Unstructured<'_>) -> Made<Vec<(ReplicaId, Contribution)>> {
    let mut all = BTreeMap::new();
    for _ in 0..u.int_in_range(1..=3)? {
        let (seq, [p, n]) = (seq(u)?, <[u64; 2]>::arbitrary(u)?);
        let reset = if bool::arbitrary(u)? { Some(Reset { p: seq, n: p, by: dot(u)? }) } else { None };
        let touch = if bool::arbitrary(u)? { Some(dot(u)?) } else { None };
        let birth = seq.saturating_sub(u64::from(u8::arbitrary(u)?)).max(1);
        let life = Contribution { birth, seq, p, n, reset, deadline: deadline(u)?, touch };
        all.insert(replica(u)?, life);
    }
    Ok(all.into_iter().collect())
}

fn custom(u: &mut Unstructured<'_>) -> Made<Custom> {
    let mut merged: BTreeMap<ReplicaId, u64> = some(u, 2, |u| Ok((replica(u)?, seq(u)?)))?.into_iter().collect();
    merged.insert(replica(u)?, seq(u)?);
    Ok(Custom { generation: stamp(u)?, merged, deadline: deadline(u)?, state: payload(u)? })
}

fn branch(u: &mut Unstructured<'_>) -> Made<Branch> {
    let elems: BTreeMap<Path, Vec<Elem>> = some(u, 3, |u| Ok((elem_path(u)?, siblings(u)?)))?.into_iter().collect();
    let counters: BTreeMap<Bytes, _> = some(u, 2, |u| Ok((name(u)?, contributions(u)?)))?.into_iter().collect();
    let hole = u.ratio(1, 8)?;
    Ok(Branch { elems: elems.into_iter().collect(), counters: counters.into_iter().collect(), hole })
}

fn fragment(u: &mut Unstructured<'_>) -> Made<Fragment> {
    let key = name(u)?;
    match u.int_in_range(0..=7)? {
        0..=2 => flat(u, Family::Register, key, Path::Register),
        3 => flat(u, Family::Epoch, key, Path::Register),
        4 => flat(u, Family::Custom, key, Path::Custom),
        5 => whole(u, key),
        _ => one_path(u, key),
    }
}

/// A fragment of a family without paths.
fn flat(u: &mut Unstructured<'_>, family: Family, key: Bytes, path: Path) -> Made<Fragment> {
    let path = Scope::Path(path);
    let scope = if bool::arbitrary(u)? { Scope::Key } else { path.clone() };
    let mut fragment = Fragment::empty(keyspace(family), key, scope);
    let mut own = BTreeSet::new();
    if u.ratio(7, 8)? {
        if family == Family::Custom {
            let custom = custom(u)?;
            own.extend(custom.merged.iter().map(|(&replica, &seq)| Dot { replica, seq }));
            fragment.custom = Some(custom);
        } else {
            let cell = cell(u)?;
            own.extend([cell.dot(), cell.touch]);
            fragment.cell = Some(cell);
        }
    }
    let covered = if bool::arbitrary(u)? { own } else { dots(u)? };
    fragment.covers = covered.into_iter().map(|dot| (dot, path.clone())).collect();
    Ok(fragment)
}

/// A fragment of a whole map, with events of the map and of its parts.
fn whole(u: &mut Unstructured<'_>, key: Bytes) -> Made<Fragment> {
    let mut fragment = Fragment::empty(keyspace(Family::Map), key, Scope::Key);
    fragment.branch = branch(u)?;
    let mut covers: BTreeMap<Dot, Scope> = dots(u)?.into_iter().map(|dot| (dot, Scope::Key)).collect();
    if bool::arbitrary(u)? {
        let own = fragment.branch.elems.iter().flat_map(|(path, siblings)| siblings.iter().map(move |e| (e.dot, path)));
        covers.extend(own.map(|(dot, path)| (dot, Scope::Path(path.clone()))));
        covers.extend(some(u, 3, |u| Ok((dot(u)?, Scope::Path(path(u)?))))?);
    }
    fragment.covers = covers.into_iter().collect();
    Ok(fragment)
}

/// A fragment of one path of a map, set or counter; empty when what was there is gone.
fn one_path(u: &mut Unstructured<'_>, key: Bytes) -> Made<Fragment> {
    let (path, covered) = (path(u)?, dots(u)?);
    let family = *u.choose(&[Family::Map, Family::Set, Family::Counter])?;
    let mut fragment = Fragment::empty(keyspace(family), key, Scope::Path(path.clone()));
    fragment.covers = covered.into_iter().map(|dot| (dot, fragment.scope.clone())).collect();
    if bool::arbitrary(u)? {
        match path {
            Path::Counter(name) => fragment.branch.counters.push((name, contributions(u)?)),
            Path::Ttl | Path::Field(_) | Path::Member(..) => {
                fragment.branch.hole = u.ratio(1, 8)?;
                fragment.branch.elems.push((path, siblings(u)?));
            }
            Path::Register | Path::Custom => {}
        }
    }
    Ok(fragment)
}

/// What is seen of one replica, with gaps.
pub fn seen(u: &mut Unstructured<'_>) -> Made<Seen> {
    let ranges = some(u, 3, |u| Ok((seq(u)?, u64::from(u8::arbitrary(u)?))))?;
    let ranges: Vec<(u64, u64)> = ranges.into_iter().map(|(from, more)| (from, (from + more).min(SEQ_MAX))).collect();
    Ok(Seen::new(seq(u)? - 1, &ranges))
}

/// A context of few replicas.
pub fn ctx(u: &mut Unstructured<'_>) -> Made<Ctx> {
    let mut ctx = Ctx::default();
    some(u, 3, |u| Ok((replica(u)?, seen(u)?)))?.iter().for_each(|(replica, seen)| ctx.add_seen(*replica, seen));
    Ok(ctx)
}

fn partition(u: &mut Unstructured<'_>) -> Made<PartitionId> {
    let byte = u8::arbitrary(u)?;
    Ok(PartitionId(if byte < 250 { u16::from(byte % 4) } else { u16::arbitrary(u)? }))
}

/// A frame with anything in it.
pub fn frame(u: &mut Unstructured<'_>) -> Made<Frame> {
    Ok(Frame { from: replica(u)?, hlc: CLOCK, parts: some(u, 3, part)? })
}

fn part(u: &mut Unstructured<'_>) -> Made<Part> {
    let (partition, fragments) = (partition(u)?, some(u, 5, fragment)?);
    if u.ratio(1, 8)? {
        return Ok(Part::Restore(Restore { partition, is_answer: u.arbitrary()?, fragments }));
    }
    if u.ratio(2, 3)? {
        let batch = Batch { partition, ctx: ctx(u)?, fragments };
        return Ok(if u.ratio(1, 4)? {
            Part::Answer(Answer { question: u.arbitrary()?, batch })
        } else {
            Part::Batch(batch)
        });
    }
    let (session, index, last) = (u.arbitrary()?, if bool::arbitrary(u)? { 0 } else { u.arbitrary()? }, u.arbitrary()?);
    let [ctx, frontier, floor] = if index == 0 { [ctx(u)?, ctx(u)?, ctx(u)?] } else { <[Ctx; 3]>::default() };
    let (forgotten, is_rest) = if index == 0 { (Hlc(u.arbitrary()?), u.arbitrary()?) } else { (Hlc(0), false) };
    Ok(Part::FullChunk(FullChunk {
        partition,
        session,
        index,
        last,
        ctx,
        frontier,
        floor,
        forgotten,
        is_rest,
        fragments,
    }))
}

fn members(u: &mut Unstructured<'_>) -> Made<MemberSet> {
    let member = |u: &mut Unstructured<'_>| {
        let region = RegionId::new(u.choose(&["us-east", "eu-central", ""])?);
        let sponsor = if bool::arbitrary(u)? { Some(replica(u)?) } else { None };
        let whole = [Role::Active, Role::Standby, Role::Draining].map(|role| (role, false));
        let edges = [Role::Edge, Role::Draining].map(|role| (role, true));
        let (role, is_edge) = *u.choose(&[&whole[..], &edges[..]].concat())?;
        let addresses = some(u, 4, |u| Ok(format!("host:{}", u16::arbitrary(u)?)))?;
        let left = role == Role::Draining && bool::arbitrary(u)?;
        let profile = Profile { version: u.arbitrary()?, addresses, role, is_edge, left };
        Ok(Member { profile, ..Member::new(node(u)?, region, u.arbitrary()?, sponsor) })
    };
    let members = some(u, 3, |u| Ok((replica(u)?, member(u)?)))?.into_iter().collect();
    let mut ids = || Ok(some(u, 2, replica)?.into_iter().collect());
    let mut set = MemberSet { members, removed: ids()?, orphans: ids()?, expelled: ids()?, ..MemberSet::default() };
    let floors = ids()?.into_iter().map(|floor| (floor.tag(), floor)).collect();
    set.join(&MemberSet { floors, ..MemberSet::default() });
    Ok(set)
}

/// One of few nodes.
pub fn node(u: &mut Unstructured<'_>) -> Made<NodeId> {
    Ok(NodeId(uuid::Uuid::from_u128(u.int_in_range(1..=4)?)))
}

fn ctxs(u: &mut Unstructured<'_>) -> Made<Vec<(PartitionId, Ctx)>> {
    some(u, 4, |u| Ok((partition(u)?, ctx(u)?)))
}

fn hello(u: &mut Unstructured<'_>) -> Made<Hello> {
    Ok(Hello {
        version: u.arbitrary()?,
        min_version: u.arbitrary()?,
        cluster: text(u)?,
        node: node(u)?,
        region: RegionId::new(&text(u)?),
        replica: replica(u)?,
        wall_ms: u.arbitrary()?,
        hlc: Hlc(u.arbitrary()?),
        joined: u.arbitrary()?,
        partitions: u.arbitrary()?,
        hash_check: u.arbitrary()?,
        custom: some(u, 2, |u| Ok((text(u)?, text(u)?)))?,
        members: members(u)?,
        ctxs: ctxs(u)?,
        compression: some(u, 2, text)?,
        edge: u.arbitrary()?,
    })
}

/// Any message of the control stream.
pub fn control(u: &mut Unstructured<'_>) -> Made<Control> {
    Ok(match u.int_in_range(0..=16)? {
        13 => Control::Missing { keyspace: text(u)?, key: Bytes::from(text(u)?) },
        12 => Control::Fetch { keyspace: text(u)?, key: Bytes::from(text(u)?) },
        10..=11 => Control::Repair(repair(u)?),
        0..=1 => Control::Hello(hello(u)?),
        2 => Control::Ready { members: members(u)?, ctxs: ctxs(u)? },
        3 => Control::Join { ctxs: ctxs(u)? },
        4 => Control::JoinDone { hlc: Hlc(u.arbitrary()?), resumed: ctxs(u)? },
        5 => Control::ReportNow,
        6 => Control::NeedFull { partition: partition(u)? },
        7 => Control::Goodbye,
        14 => Control::Twin { replica: replica(u)? },
        15 => Control::Told { digest: u.arbitrary()? },
        16 => Control::Ask { question: u.arbitrary()?, keyspace: text(u)?, key: Bytes::from(text(u)?) },
        _ => {
            let said = |u: &mut Unstructured<'_>| {
                let seen = Some(seen(u)?).filter(|seen| seen.max() > 0);
                Ok((replica(u)?, seen.unwrap_or_else(|| Seen::new(1, &[]))))
            };
            let changed = some(u, 3, |u| Ok((partition(u)?, some(u, 3, said)?)))?;
            let members = if bool::arbitrary(u)? { Some(members(u)?) } else { None };
            Control::Report { hlc: hlc(u)?, changed, members }
        }
    })
}

fn repair(u: &mut Unstructured<'_>) -> Made<Repair> {
    let partition = partition(u)?;
    let leaves = 1 << u.int_in_range(0..=16)?;
    let few = |u: &mut Unstructured<'_>| some(u, 5, |u| u.int_in_range(0..=(1_u32 << 16) - 1));
    Ok(match u.int_in_range(0..=7)? {
        0 => Repair::Verify {
            horizon_ms: u.arbitrary()?,
            salt: u.arbitrary()?,
            first: partition,
            sums: some(u, 9, |u| u.arbitrary())?,
        },
        1 => Repair::Answer { salt: u.arbitrary()?, first: partition, equal: some(u, 9, |u| u.arbitrary())? },
        2 => Repair::Snapshot(Snapshot {
            partition,
            horizon_ms: u.arbitrary()?,
            ctx: ctx(u)?,
            leaves,
            without: few(u)?.into_iter().collect(),
            root: u.arbitrary()?,
            buckets: some(u, 32, |u| u.arbitrary())?,
        }),
        3 => Repair::Ask { partition, leaves, without: few(u)?.into_iter().collect(), detail: u.arbitrary()? },
        4 => Repair::Leaves {
            partition,
            leaves,
            buckets: some(u, 32, |u| u.arbitrary())?,
            sums: some(u, 32, |u| u.arbitrary())?,
        },
        5 => {
            let named: std::collections::BTreeSet<u32> = few(u)?.into_iter().collect();
            let list = |leaf| Ok((leaf, some(u, 5, |u| u.arbitrary())?));
            Repair::List { partition, leaves, listed: named.into_iter().map(list).collect::<Made<Vec<_>>>()? }
        }
        6 => Repair::Done { partition, leaves, without: few(u)?.into_iter().collect() },
        _ => Repair::Want { partition, ids: some(u, 32, |u| u.arbitrary())? },
    })
}

/// Any heartbeat.
pub fn beat(u: &mut Unstructured<'_>) -> Made<Beat> {
    let (replica, hlc) = (ReplicaId(u.arbitrary()?), Hlc(u.arbitrary()?));
    Ok(Beat {
        replica,
        seq: u.arbitrary()?,
        hlc,
        sent_ns: u.arbitrary()?,
        echo: u.arbitrary()?,
        wall_ms: u.arbitrary()?,
        load: u.arbitrary::<Option<u8>>()?.map(|percent| percent % 101),
        suspects: some(u, 3, self::replica)?.into_iter().collect(),
        gives_up: some(u, 3, self::replica)?.into_iter().collect(),
    })
}
