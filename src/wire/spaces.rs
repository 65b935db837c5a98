//! Keyspaces in a frame: name and family where one is first used, an index from then on.
//!
//! # Invariants
//! * Numbers of keyspaces never leave the process; frames carry names.
//! * A keyspace a peer names is opened here only when the family is the same, and a custom one only
//!   when it was declared here; and none by a frame that is refused for what follows.

use std::collections::BTreeMap;

use super::limits::Unsendable;
use super::pack::{Pen, Reader, malformed, width};
use crate::error::{OpenError, PeerFault};
use crate::id::KeyspaceId;
use crate::store::{Family, KEYSPACES_MAX, Keyspaces};

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

/// The keyspaces a frame being read has used. Those nobody here has heard of have numbers from the top until the whole
/// frame is read: one that turns out to be bad changes nothing.
#[derive(Debug)]
pub(super) struct SpacesIn<'a> {
    spaces: &'a Keyspaces,
    used: Vec<(KeyspaceId, Family)>,
    unheard_of: Vec<(String, Family)>,
}

impl<'a> SpacesIn<'a> {
    pub(super) fn new(spaces: &'a Keyspaces) -> Self {
        Self { spaces, used: Vec::new(), unheard_of: Vec::new() }
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
        let used = (self.find(name, family)?, family);
        self.used.push(used);
        Ok(used)
    }

    fn find(&mut self, name: &str, family: Family) -> Result<KeyspaceId, PeerFault> {
        match self.spaces.lookup(name, family).map_err(|refused| fault(name, family, &refused))? {
            Some(space) => return Ok(space.id()),
            None if family == Family::Custom => return Err(differs(name, family, "not declared")),
            None => {}
        }
        if self.unheard_of.iter().any(|(other, _)| other == name) {
            return Err(malformed("a keyspace is named twice"));
        }
        let id = u16::try_from(self.unheard_of.len()).ok().filter(|n| usize::from(*n) < KEYSPACES_MAX);
        let id = id.ok_or_else(|| fault(name, family, &OpenError::TooMany { max: KEYSPACES_MAX }))?;
        self.unheard_of.push((name.to_owned(), family));
        Ok(KeyspaceId(u16::MAX - id))
    }

    /// Opens what nobody here had heard of; returns the number of each by the one it has had so far.
    pub(super) fn open(&self) -> Result<BTreeMap<KeyspaceId, KeyspaceId>, PeerFault> {
        let numbered = (0..=u16::MAX).rev().zip(&self.unheard_of);
        let opened = numbered.map(|(number, (name, family))| {
            let space = self.spaces.open(name, *family).map_err(|refused| fault(name, *family, &refused))?;
            Ok((KeyspaceId(number), space.id()))
        });
        opened.collect()
    }
}

fn fault(name: &str, family: Family, refused: &OpenError) -> PeerFault {
    match refused {
        OpenError::OtherFamily { existing, .. } => differs(name, family, existing),
        OpenError::UndeclaredCustom { .. } => differs(name, family, "not declared"),
        OpenError::BadName { .. } => malformed("a keyspace's name is empty or too long"),
        OpenError::TooMany { max } => {
            let max = width(*max);
            PeerFault::OverLimit { what: "number of keyspaces", len: max.saturating_add(1), max }
        }
    }
}

fn differs(name: &str, theirs: Family, ours: &str) -> PeerFault {
    let (theirs, ours) = (format!("{} in {name:?}", theirs.name()), ours.to_owned());
    PeerFault::Incompatible { what: "keyspace", theirs, ours }
}
