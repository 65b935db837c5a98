//! Control messages and heartbeats.
//!
//! ```text
//! control = kind fields          (a hello's fields are a map, see the neighbouring file)
//! beat    = replica seq clock sent wall [echo held] suspects gives_up
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::context::{put_changed, put_ctxs, take_changed, take_ctxs, take_partition};
use super::hello::{put_hello, take_hello};
use super::limits::{ADDRESSES_MAX, Counted, Limits, Unsendable, within};
use super::message::{Beat, Control, LOAD_MAX, SUSPECTS_MAX};
use super::pack::{Pen, Reader, malformed, width};
use super::repair::{put_repair, take_repair};
use crate::clock::Hlc;
use crate::crdt::{Member, MemberSet, Profile};
use crate::error::PeerFault;
use crate::id::{NodeId, RegionId, ReplicaId, Role, Tag};

const HELLO: u64 = 0;
const READY: u64 = 1;
const JOIN: u64 = 2;
const JOIN_DONE: u64 = 3;
const REPORT: u64 = 4;
const REPORT_NOW: u64 = 5;
const NEED_FULL: u64 = 6;
const GOODBYE: u64 = 7;
const REPAIR: u64 = 8;
const FETCH: u64 = 9;
const MISSING: u64 = 10;
const TWIN: u64 = 11;
const TOLD: u64 = 12;
const ASK: u64 = 13;

const ACTIVE: u64 = 0;
const STANDBY: u64 = 1;
const DRAINING: u64 = 2;
const EDGE: u64 = 3;
const DRAINING_EDGE: u64 = 4;
const LEFT: u64 = 5;
const LEFT_EDGE: u64 = 6;

pub(super) fn put_control(out: &mut Vec<u8>, control: &Control, limits: Limits) -> Result<(), Unsendable> {
    let mut pen = Pen::new(out, limits);
    match control {
        Control::Hello(hello) => {
            pen.uint(HELLO);
            put_hello(&mut pen, hello)?;
        }
        Control::Ready { members, ctxs } => {
            pen.uint(READY);
            put_members(&mut pen, members)?;
            put_ctxs(&mut pen, ctxs)?;
        }
        Control::Join { ctxs } => {
            pen.uint(JOIN);
            put_ctxs(&mut pen, ctxs)?;
        }
        Control::JoinDone { hlc, resumed } => {
            pen.uint(JOIN_DONE);
            pen.uint(hlc.0);
            put_ctxs(&mut pen, resumed)?;
        }
        Control::Report { hlc, changed, members } => {
            pen.uint(REPORT);
            pen.uint(hlc.0);
            put_changed(&mut pen, changed)?;
            pen.flag(members.is_some());
            if let Some(members) = members {
                put_members(&mut pen, members)?;
            }
        }
        Control::Told { digest } => {
            pen.uint(TOLD);
            pen.uint(*digest);
        }
        Control::ReportNow => pen.uint(REPORT_NOW),
        Control::NeedFull { partition } => {
            pen.uint(NEED_FULL);
            pen.uint(u64::from(partition.0));
        }
        Control::Goodbye => pen.uint(GOODBYE),
        Control::Repair(repair) => {
            pen.uint(REPAIR);
            put_repair(&mut pen, repair)?;
        }
        Control::Fetch { keyspace, key } => put_place(&mut pen, FETCH, keyspace, key)?,
        Control::Missing { keyspace, key } => put_place(&mut pen, MISSING, keyspace, key)?,
        Control::Ask { question, keyspace, key } => {
            put_place(&mut pen, ASK, keyspace, key)?;
            pen.uint(*question);
        }
        Control::Twin { replica } => {
            pen.uint(TWIN);
            pen.replica(*replica)?;
        }
    }
    Ok(())
}

fn put_place(pen: &mut Pen<'_>, kind: u64, keyspace: &str, key: &[u8]) -> Result<(), Unsendable> {
    pen.uint(kind);
    pen.text(keyspace)?;
    pen.name(key)
}

pub(super) fn take_control(input: &[u8], limits: Limits) -> Result<Control, PeerFault> {
    let mut reader = Reader::new(input, limits);
    let control = match reader.uint()? {
        HELLO => Control::Hello(take_hello(&mut reader)?),
        READY => Control::Ready { members: take_members(&mut reader)?, ctxs: take_ctxs(&mut reader)? },
        JOIN => Control::Join { ctxs: take_ctxs(&mut reader)? },
        JOIN_DONE => Control::JoinDone { hlc: Hlc(reader.uint()?), resumed: take_ctxs(&mut reader)? },
        REPORT => Control::Report {
            hlc: Hlc(reader.uint()?),
            changed: take_changed(&mut reader)?,
            members: if reader.flag()? { Some(take_members(&mut reader)?) } else { None },
        },
        TOLD => Control::Told { digest: reader.uint()? },
        REPORT_NOW => Control::ReportNow,
        NEED_FULL => Control::NeedFull { partition: take_partition(&mut reader)? },
        GOODBYE => Control::Goodbye,
        REPAIR => Control::Repair(take_repair(&mut reader)?),
        TWIN => Control::Twin { replica: reader.replica()? },
        FETCH => Control::Fetch { keyspace: reader.text()?.to_owned(), key: reader.name()? },
        MISSING => Control::Missing { keyspace: reader.text()?.to_owned(), key: reader.name()? },
        ASK => {
            let (keyspace, key) = (reader.text()?.to_owned(), reader.name()?);
            Control::Ask { question: reader.uint()?, keyspace, key }
        }
        _ => return Err(malformed("a control message is of no known kind")),
    };
    reader.end()?;
    Ok(control)
}

pub(super) fn put_members(pen: &mut Pen<'_>, set: &MemberSet) -> Result<(), Unsendable> {
    pen.count(set.members.len());
    for (replica, member) in &set.members {
        pen.replica(*replica)?;
        pen.bytes("length of a node id", member.node.0.as_bytes(), 16)?;
        pen.text(member.region.as_str())?;
        pen.uint(member.since_ms);
        pen.flag(member.sponsor.is_some());
        member.sponsor.map_or(Ok(()), |sponsor| pen.replica(sponsor))?;
        put_profile(pen, &member.profile)?;
    }
    put_ids(pen, &set.removed)?;
    put_ids(pen, &set.orphans)?;
    put_ids(pen, &set.expelled)?;
    put_ids(pen, &set.floors.values().copied().collect())
}

fn put_profile(pen: &mut Pen<'_>, profile: &Profile) -> Result<(), Unsendable> {
    pen.uint(profile.version);
    pen.uint(match profile.role {
        Role::Active => ACTIVE,
        Role::Edge => EDGE,
        Role::Standby => STANDBY,
        Role::Draining => match (profile.left, profile.is_edge) {
            (false, false) => DRAINING,
            (false, true) => DRAINING_EDGE,
            (true, false) => LEFT,
            (true, true) => LEFT_EDGE,
        },
    });
    within("number of addresses", width(profile.addresses.len()), ADDRESSES_MAX)?;
    pen.count(profile.addresses.len());
    profile.addresses.iter().try_for_each(|address| pen.text(address))
}

fn take_profile(reader: &mut Reader<'_>) -> Result<Profile, PeerFault> {
    let version = reader.uint()?;
    let (role, is_edge, left) = match reader.uint()? {
        ACTIVE => (Role::Active, false, false),
        STANDBY => (Role::Standby, false, false),
        DRAINING => (Role::Draining, false, false),
        LEFT => (Role::Draining, false, true),
        EDGE => (Role::Edge, true, false),
        DRAINING_EDGE => (Role::Draining, true, false),
        LEFT_EDGE => (Role::Draining, true, true),
        _ => return Err(malformed("a member's role is none that is known")),
    };
    let count = reader.uint()?;
    within("number of addresses", count, ADDRESSES_MAX)?;
    let addresses = (0..count).map(|_| reader.text().map(str::to_owned)).collect::<Result<_, _>>()?;
    Ok(Profile { version, addresses, role, is_edge, left })
}

fn put_ids(pen: &mut Pen<'_>, ids: &BTreeSet<ReplicaId>) -> Result<(), Unsendable> {
    pen.count(ids.len());
    ids.iter().try_for_each(|replica| pen.replica(*replica))
}

pub(super) fn take_members(reader: &mut Reader<'_>) -> Result<MemberSet, PeerFault> {
    let mut set = MemberSet::default();
    for _ in 0..reader.uint()? {
        reader.tally.add(Counted::Seen, 1)?;
        let replica = reader.replica()?;
        let (node, region, since_ms) = (take_node(reader)?, RegionId::new(reader.text()?), reader.uint()?);
        let sponsor = if reader.flag()? { Some(reader.replica()?) } else { None };
        let member = Member { profile: take_profile(reader)?, ..Member::new(node, region, since_ms, sponsor) };
        if set.members.last_key_value().is_some_and(|(last, _)| *last >= replica) {
            return Err(malformed("the members do not ascend"));
        }
        set.members.insert(replica, member);
    }
    set.removed = take_ids(reader, "the removed members do not ascend")?;
    set.orphans = take_ids(reader, "the orphans do not ascend")?;
    set.expelled = take_ids(reader, "the expelled members do not ascend")?;
    set.floors = take_floors(reader)?;
    let named = set.members.keys().chain(&set.removed).chain(&set.orphans);
    let orders: Vec<Tag> = set.expelled.iter().filter(|r| set.is_folded(**r)).map(|r| r.tag()).collect();
    let twice = orders.iter().zip(orders.iter().skip(1)).any(|(one, next)| one == next);
    if twice || named.copied().any(|replica| set.is_folded(replica)) {
        return Err(malformed("a replica is named that is below its floor"));
    }
    Ok(set)
}

fn take_floors(reader: &mut Reader<'_>) -> Result<BTreeMap<Tag, ReplicaId>, PeerFault> {
    let ids = take_ids(reader, "the floors do not ascend")?;
    let floors: BTreeMap<Tag, ReplicaId> = ids.iter().map(|floor| (floor.tag(), *floor)).collect();
    if floors.len() < ids.len() || floors.keys().any(|tag| !tag.is_ordered()) {
        return Err(malformed("a floor is of no node, or two are of one"));
    }
    Ok(floors)
}

fn take_ids(reader: &mut Reader<'_>, why: &'static str) -> Result<BTreeSet<ReplicaId>, PeerFault> {
    let mut ids = BTreeSet::new();
    for _ in 0..reader.uint()? {
        let replica: ReplicaId = reader.replica()?;
        if ids.last().is_some_and(|last| *last >= replica) {
            return Err(malformed(why));
        }
        ids.insert(replica);
    }
    Ok(ids)
}

fn take_node(reader: &mut Reader<'_>) -> Result<NodeId, PeerFault> {
    node_of(reader.bytes("length of a node id", 16)?)
}

pub(super) fn node_of(bytes: &[u8]) -> Result<NodeId, PeerFault> {
    let id = uuid::Uuid::from_slice(bytes).map_err(|_short| malformed("a node id has not 16 bytes"))?;
    Ok(NodeId(id))
}

pub(super) fn put_beat(out: &mut Vec<u8>, beat: &Beat, limits: Limits) {
    let mut pen = Pen::new(out, limits);
    pen.uint(beat.replica.0);
    pen.uint(beat.seq);
    pen.uint(beat.hlc.0);
    pen.uint(beat.sent_ns);
    pen.uint(beat.wall_ms);
    pen.flag(beat.echo.is_some());
    if let Some((sent_ns, held_ns)) = beat.echo {
        pen.uint(sent_ns);
        pen.uint(held_ns);
    }
    // Zero says nothing.
    pen.uint(beat.load.map_or(0, |percent| u64::from(percent) + 1));
    for named in [&beat.suspects, &beat.gives_up] {
        pen.count(named.len().min(SUSPECTS_MAX));
        named.iter().take(SUSPECTS_MAX).for_each(|replica| pen.uint(replica.0));
    }
}

pub(super) fn take_beat(input: &[u8], limits: Limits) -> Result<Beat, PeerFault> {
    let mut reader = Reader::new(input, limits);
    let beat = Beat {
        replica: ReplicaId(reader.uint()?),
        seq: reader.uint()?,
        hlc: Hlc(reader.uint()?),
        sent_ns: reader.uint()?,
        wall_ms: reader.uint()?,
        echo: if reader.flag()? { Some((reader.uint()?, reader.uint()?)) } else { None },
        load: take_load(&mut reader)?,
        suspects: take_silent(&mut reader)?,
        gives_up: take_silent(&mut reader)?,
    };
    reader.end()?;
    Ok(beat)
}

fn take_load(reader: &mut Reader<'_>) -> Result<Option<u8>, PeerFault> {
    let Some(percent) = reader.uint()?.checked_sub(1) else { return Ok(None) };
    let percent = u8::try_from(percent).ok().filter(|percent| *percent <= LOAD_MAX);
    percent.map_or_else(|| Err(malformed("a load is more than all")), |percent| Ok(Some(percent)))
}

fn take_silent(reader: &mut Reader<'_>) -> Result<BTreeSet<ReplicaId>, PeerFault> {
    let (len, max) = (reader.uint()?, u64::try_from(SUSPECTS_MAX).unwrap_or(u64::MAX));
    if len > max {
        return Err(PeerFault::OverLimit { what: "number of silent members", len, max });
    }
    let mut silent = BTreeSet::new();
    for _ in 0..len {
        let replica = ReplicaId(reader.uint()?);
        if silent.last().is_some_and(|last| *last >= replica) {
            return Err(malformed("the silent members do not ascend"));
        }
        silent.insert(replica);
    }
    Ok(silent)
}
