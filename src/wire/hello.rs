//! The hello: the one message that names its fields, because it is read before a version is agreed.
//!
//! # Invariants
//! * A field that is not known here is skipped, so later versions may add some; one that is
//!   required and missing is a fault that names it.
//! * Members and contexts are one packed field each, with tables of their own.
//! * What its lists take in memory, empty names and all, is a few times what they take in the message and 64 KiB.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::Bytes;

use super::context::{put_ctxs, take_ctxs};
use super::control::{node_of, put_members, take_members};
use super::limits::{Unsendable, within};
use super::message::Hello;
use super::pack::{Pen, Reader, malformed, width};
use crate::clock::Hlc;
use crate::error::PeerFault;
use crate::id::{RegionId, ReplicaId};

/// Most custom keyspaces in a hello.
const CUSTOM_MAX: usize = crate::store::keyspace::CUSTOM_KEYSPACES_MAX;
/// Most compressions in a hello: there is one.
const COMPRESSIONS_MAX: usize = 16;

/// The hello as MessagePack has it. Every field is optional here so that its absence is ours to name.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Fields<'a> {
    version: Option<u16>,
    min_version: Option<u16>,
    #[serde(borrow)]
    cluster: Option<&'a str>,
    #[serde(borrow)]
    node: Option<&'a Bytes>,
    #[serde(borrow)]
    region: Option<&'a str>,
    replica: Option<u64>,
    wall_ms: Option<u64>,
    hlc: Option<u64>,
    joined: Option<bool>,
    partitions: Option<u32>,
    hash_check: Option<u64>,
    custom: Option<Few<(String, String), CUSTOM_MAX>>,
    #[serde(borrow)]
    members: Option<&'a Bytes>,
    #[serde(borrow)]
    ctxs: Option<&'a Bytes>,
    #[serde(borrow)]
    compression: Option<Few<&'a str, COMPRESSIONS_MAX>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<bool>,
}

/// A short list that grows as its elements arrive, whatever length it declares.
#[derive(Serialize)]
#[serde(transparent)]
struct Few<T, const MAX: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FewVisitor(std::marker::PhantomData))
    }
}

struct FewVisitor<T, const MAX: usize>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for FewVisitor<T, MAX> {
    type Value = Few<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(next) = seq.next_element()? {
            if all.len() == MAX {
                return Err(serde::de::Error::invalid_length(all.len(), &self));
            }
            all.push(next);
        }
        Ok(Few(all))
    }
}

pub(super) fn put_hello(pen: &mut Pen<'_>, hello: &Hello) -> Result<(), Unsendable> {
    let limits = pen.tally.limits;
    let (mut members, mut ctxs) = (Vec::new(), Vec::new());
    put_members(&mut Pen::new(&mut members, limits), &hello.members)?;
    put_ctxs(&mut Pen::new(&mut ctxs, limits), &hello.ctxs)?;
    let pairs = hello.custom.iter().flat_map(|(name, kind)| [name.as_str(), kind.as_str()]);
    let texts = pairs.chain(hello.compression.iter().map(String::as_str));
    for text in texts.chain([hello.cluster.as_str(), hello.region.as_str()]) {
        within("length of a name", width(text.len()), limits.name_bytes)?;
    }
    within("number of custom keyspaces", width(hello.custom.len()), width(CUSTOM_MAX))?;
    within("number of compressions", width(hello.compression.len()), width(COMPRESSIONS_MAX))?;
    pen.map(&Fields {
        version: Some(hello.version),
        min_version: Some(hello.min_version),
        cluster: Some(&hello.cluster),
        node: Some(Bytes::new(hello.node.0.as_bytes())),
        region: Some(hello.region.as_str()),
        replica: Some(hello.replica.0),
        wall_ms: Some(hello.wall_ms),
        hlc: Some(hello.hlc.0),
        joined: Some(hello.joined),
        partitions: Some(hello.partitions),
        hash_check: Some(hello.hash_check),
        custom: Some(Few(hello.custom.clone())),
        members: Some(Bytes::new(&members)),
        ctxs: Some(Bytes::new(&ctxs)),
        compression: Some(Few(hello.compression.iter().map(String::as_str).collect())),
        edge: hello.edge.then_some(true),
    });
    Ok(())
}

pub(super) fn take_hello(reader: &mut Reader<'_>) -> Result<Hello, PeerFault> {
    let limits = reader.tally.limits;
    let fields: Fields<'_> = reader.take()?;
    let short = |text: &str| within("length of a name", width(text.len()), limits.name_bytes);
    let text = |text: &str| -> Result<String, PeerFault> {
        short(text)?;
        Ok(text.to_owned())
    };
    let mut members = Reader::new(fields.members.ok_or(malformed("a hello lacks its members"))?, limits);
    let mut ctxs = Reader::new(fields.ctxs.ok_or(malformed("a hello lacks its ctxs"))?, limits);
    let custom = fields.custom.ok_or(malformed("a hello lacks its custom types"))?.0;
    custom.iter().flat_map(|(name, kind)| [name, kind]).try_for_each(|name| short(name))?;
    let compression = fields.compression.ok_or(malformed("a hello lacks its compression"))?.0;
    let hello = Hello {
        version: fields.version.ok_or(malformed("a hello lacks its version"))?,
        min_version: fields.min_version.ok_or(malformed("a hello lacks its min_version"))?,
        cluster: text(fields.cluster.ok_or(malformed("a hello lacks its cluster"))?)?,
        node: node_of(fields.node.ok_or(malformed("a hello lacks its node"))?)?,
        region: RegionId::new(&text(fields.region.ok_or(malformed("a hello lacks its region"))?)?),
        replica: ReplicaId(fields.replica.ok_or(malformed("a hello lacks its replica"))?),
        wall_ms: fields.wall_ms.ok_or(malformed("a hello lacks its wall_ms"))?,
        hlc: Hlc(fields.hlc.ok_or(malformed("a hello lacks its hlc"))?),
        joined: fields.joined.ok_or(malformed("a hello lacks its joined"))?,
        partitions: fields.partitions.ok_or(malformed("a hello lacks its partitions"))?,
        hash_check: fields.hash_check.ok_or(malformed("a hello lacks its hash_check"))?,
        custom,
        members: take_members(&mut members)?,
        ctxs: take_ctxs(&mut ctxs)?,
        compression: compression.into_iter().map(text).collect::<Result<_, _>>()?,
        edge: fields.edge.unwrap_or(false),
    };
    members.end()?;
    ctxs.end()?;
    Ok(hello)
}
