//! Keyspaces in a frame: name and family where one is first used, an index from then on.
//!
//! # Invariants
//! * Numbers of keyspaces never leave the process; frames carry names.
//! * A keyspace a peer names is opened here only when the family is the same, and a custom one only
//!   when it was declared here.

use std::collections::BTreeMap;

use super::limits::Unsendable;
use super::pack::{Pen, Reader, malformed, width};
use crate::error::{OpenError, PeerFault};
use crate::id::KeyspaceId;
use crate::store::{Family, Keyspaces};

/// The keyspaces a frame being written has used.
#[derive(Debug)]
pub(super) struct SpacesOut<'a> {
    spaces: &'a Keyspaces,
    used: BTreeMap<KeyspaceId, (u64, Family)>,
}

impl<'a> SpacesOut<'a> {
    pub(super) fn new(spaces: &'a Keyspaces) -> Self {
        Self { spaces, used: BTreeMap::new() }
    }

    /// Returns the family of a keyspace.
    pub(super) fn family(&self, id: KeyspaceId) -> Result<Family, Unsendable> {
        match self.used.get(&id) {
            Some((_, family)) => Ok(*family),
            None => self.spaces.get(id).map(|space| space.family()).ok_or(Unsendable::UnknownKeyspace { id }),
        }
    }

    pub(super) fn put(&mut self, pen: &mut Pen<'_>, id: KeyspaceId) -> Result<(), Unsendable> {
        if let Some((index, _)) = self.used.get(&id) {
            pen.uint(*index);
            return Ok(());
        }
        let space = self.spaces.get(id).ok_or(Unsendable::UnknownKeyspace { id })?;
        let index = width(self.used.len());
        self.used.insert(id, (index, space.family()));
        pen.uint(index);
        pen.text(space.name())?;
        pen.uint(u64::from(space.family().code()));
        Ok(())
    }
}

/// The keyspaces a frame being read has used.
#[derive(Debug)]
pub(super) struct SpacesIn<'a> {
    spaces: &'a Keyspaces,
    used: Vec<(KeyspaceId, Family)>,
}

impl<'a> SpacesIn<'a> {
    pub(super) fn new(spaces: &'a Keyspaces) -> Self {
        Self { spaces, used: Vec::new() }
    }

    pub(super) fn take(&mut self, reader: &mut Reader<'_>) -> Result<(KeyspaceId, Family), PeerFault> {
        let index = reader.uint()?;
        let known = usize::try_from(index).ok().and_then(|at| self.used.get(at));
        if let Some(&known) = known {
            return Ok(known);
        }
        if index != width(self.used.len()) {
            return Err(malformed("a keyspace has a number that was not given out"));
        }
        let name = reader.text()?;
        let code = u8::try_from(reader.uint()?).ok();
        let family = code.and_then(Family::from_code).ok_or(malformed("a keyspace is of no known family"))?;
        let used = (open(self.spaces, name, family)?, family);
        self.used.push(used);
        Ok(used)
    }
}

fn open(spaces: &Keyspaces, name: &str, family: Family) -> Result<KeyspaceId, PeerFault> {
    if family == Family::Custom && spaces.find(name).is_none() {
        return Err(differs(name, family, "not declared"));
    }
    match spaces.open(name, family) {
        Ok(space) => Ok(space.id()),
        Err(OpenError::OtherFamily { existing, .. }) => Err(differs(name, family, existing)),
        Err(OpenError::UndeclaredCustom { .. }) => Err(differs(name, family, "not declared")),
        Err(OpenError::BadName { .. }) => Err(malformed("a keyspace's name is empty or too long")),
        Err(OpenError::TooMany { max }) => {
            let max = width(max);
            Err(PeerFault::OverLimit { what: "number of keyspaces", len: max.saturating_add(1), max })
        }
    }
}

fn differs(name: &str, theirs: Family, ours: &str) -> PeerFault {
    let (theirs, ours) = (format!("{} in {name:?}", theirs.name()), ours.to_owned());
    PeerFault::Incompatible { what: "keyspace", theirs, ours }
}
