//! Invalidation as a CRDT: one stamped epoch instead of a deletion per key.
//!
//! An epoch says of every register of its keyspace that a selector matches: whatever was written
//! before me is gone. It is stored as a tombstone of a companion keyspace, once per partition, so
//! it replicates, is joined and is collected by the rules every register follows; a region that
//! was cut off clears its own entries when the epoch arrives, and a write made after the epoch
//! lives on.
//!
//! # Invariants
//! * An entry whose stamp is below a matching epoch is dropped as soon as both are here, so no
//!   fragment carries it on.
//! * An epoch stays until it is stable and old (R-AGE), so an older write still on its way meets it.
//! * An effect never travels without its dot: what goes out of a stub that an epoch may have made takes the epoch along.
//!   Whoever was told that an entry is gone must know why, or those who were not told would keep it for ever.
//!
//! Maps, sets and counters have no epochs: a counter's contributions carry no stamp. Clear them.

use bytes::Bytes;

use super::entry::{Body, Entry, Unstable};
use super::keyspace::{Family, Keyspace, Keyspaces};
use super::partition::{KeyRef, Partition};
use super::write::{Tick, Written};
use crate::clock::Stamp;
use crate::crdt::{Cell, Ctx, Payload, Scope};
use crate::id::KeyspaceId;
use crate::probe::sometimes;

/// Which entries of a keyspace an epoch clears.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Selector {
    /// All of them.
    All,
    /// Those whose key is a text that begins so.
    Prefix(String),
    /// Those set with this tag.
    Tag(String),
}

impl Selector {
    /// Returns the key an epoch of this selector is stored under.
    #[must_use]
    pub fn to_key(&self) -> Bytes {
        let tagged = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat().into();
        match self {
            Self::All => Bytes::from_static(&[0]),
            Self::Prefix(text) => tagged(1, text),
            Self::Tag(text) => tagged(2, text),
        }
    }

    /// Returns the selector of a key; `None` for bytes no version so far writes.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let (kind, text) = key.split_first()?;
        let text = std::str::from_utf8(text).ok()?.to_owned();
        match kind {
            0 if text.is_empty() => Some(Self::All),
            1 => Some(Self::Prefix(text)),
            2 => Some(Self::Tag(text)),
            _ => None,
        }
    }

    fn selects(&self, key: &[u8], cell: &Cell) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => text_of(key).is_some_and(|text| text.starts_with(prefix.as_bytes())),
            Self::Tag(tag) => cell.tags().iter().any(|t| t.as_ref() == tag.as_bytes()),
        }
    }
}

/// Returns the text of a key that is one MessagePack string.
fn text_of(key: &[u8]) -> Option<&[u8]> {
    match key {
        [0xa0..=0xbf, text @ ..] | [0xd9, _, text @ ..] | [0xda, _, _, text @ ..] => Some(text),
        _ => None,
    }
}

/// Most epochs one keyspace has per partition before further invalidations made *here* are refused:
/// each is searched for every register that arrives while it waits to be stable and old.
pub(super) const EPOCHS_MAX: usize = 1_024;

/// One epoch.
#[derive(Debug)]
struct Epoch {
    target: KeyspaceId,
    selector: Selector,
    stamp: Stamp,
    /// The slot of its entry.
    slot: u32,
}

impl Epoch {
    fn is(&self, target: KeyspaceId, selector: &Selector) -> bool {
        self.target == target && self.selector == *selector
    }
}

/// The epochs of a partition.
#[derive(Debug, Default)]
pub(super) struct Epochs(Vec<Epoch>);

impl Epochs {
    fn set(&mut self, epoch: Epoch) {
        match self.0.iter_mut().find(|known| known.is(epoch.target, &epoch.selector)) {
            Some(known) => {
                known.stamp = known.stamp.max(epoch.stamp);
                known.slot = epoch.slot;
            }
            None => self.0.push(epoch),
        }
    }

    /// Tells whether another selector may be added.
    pub(super) fn has_room(&self, target: KeyspaceId, selector: &Selector) -> bool {
        let own = || self.0.iter().filter(|epoch| epoch.target == target);
        own().any(|epoch| epoch.selector == *selector) || own().count() < EPOCHS_MAX
    }

    fn drop(&mut self, target: KeyspaceId, selector: &Selector) {
        self.0.retain(|epoch| !epoch.is(target, selector));
    }

    /// Tells whether an epoch has cleared this state.
    pub(super) fn clears(&self, target: KeyspaceId, key: &[u8], cell: &Cell) -> bool {
        self.above(target, cell).any(|epoch| epoch.selector.selects(key, cell))
    }

    fn above(&self, target: KeyspaceId, cell: &Cell) -> impl Iterator<Item = &Epoch> {
        let stamp = cell.stamp();
        self.0.iter().filter(move |epoch| epoch.target == target && stamp < epoch.stamp)
    }
}

impl Partition {
    /// Returns how many invalidations are kept for writes that are still on their way.
    #[must_use]
    pub fn epoch_count(&self) -> usize {
        self.epochs.0.len()
    }

    /// Clears every older entry of a register keyspace that the selector matches. Returns the keys
    /// cleared here, if the keyspace is watched.
    pub fn invalidate(
        &mut self,
        epochs: &KeyRef<'_>,
        spaces: &Keyspaces,
        tick: &Tick<'_>,
    ) -> (Written, Vec<(KeyspaceId, Bytes)>) {
        let written = self.delete(epochs, tick);
        (written, self.on_epoch(epochs.space, epochs.key, spaces, 0))
    }

    /// An epoch was written or has arrived: notes it and drops what it clears. Returns the keys,
    /// if the keyspace is watched.
    pub(super) fn on_epoch(
        &mut self,
        space: &Keyspace,
        key: &[u8],
        spaces: &Keyspaces,
        collect_before_ms: u64,
    ) -> Vec<(KeyspaceId, Bytes)> {
        let Some((target, selector)) = space.target().zip(Selector::of_key(key)) else { return Vec::new() };
        let slot = self.find(&KeyRef::new(space, key));
        let stamp = slot.and_then(|slot| cell_of(&self.slot(slot)?.entry)).map(Cell::stamp);
        let (Some((slot, stamp)), Some(target)) = (slot.zip(stamp), spaces.get(target)) else { return Vec::new() };
        sometimes!(EpochSparedYounger, if self.entries().any(|(id, key, entry)| {
            id == target.id() && cell_of(entry).is_some_and(|c| c.stamp() > stamp && selector.selects(key, c))
        }));
        self.epochs.set(Epoch { target: target.id(), selector, stamp, slot });
        let slots = 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let cleared = slots.filter_map(|slot| self.enforce_epochs(slot, &target, collect_before_ms));
        cleared.filter(|_| target.is_watched()).map(|key| (target.id(), key)).collect()
    }

    /// Drops an entry's value if an epoch has cleared it, and returns its key then.
    pub(super) fn enforce_epochs(&mut self, slot: u32, space: &Keyspace, collect_before_ms: u64) -> Option<Bytes> {
        let s = self.slot(slot).filter(|s| s.keyspace == space.id())?;
        let cell = cell_of(&s.entry).filter(|c| !c.is_grave() && self.epochs.clears(space.id(), &s.key, c));
        let key = cell.map(|_| s.key.clone())?;
        self.change(slot, space, Some(&Scope::Key), |entry| {
            if let Body::Register(Some(cell)) = &mut entry.body {
                cell.forget();
            }
        });
        self.settle(slot, space, collect_before_ms);
        Some(key)
    }

    /// Returns the slots of the epochs that may have made a stub of an entry and that some member may lack: whoever is
    /// sent the stub must get them too, or it misses a value whose invalidation it has never heard of.
    pub(super) fn epochs_behind(&self, slot: u32) -> Vec<u32> {
        self.epochs_above(slot).into_iter().filter(|slot| self.is_unstable(*slot)).collect()
    }

    /// Returns the slots of the epochs of a keyspace that a member which has seen what is `known` may lack.
    pub(super) fn epochs_lacked(&self, target: KeyspaceId, known: &Ctx) -> impl Iterator<Item = u32> {
        let all = self.epochs.0.iter().filter(move |epoch| epoch.target == target).map(|epoch| epoch.slot);
        all.filter(|slot| self.slot(*slot).is_some_and(|s| s.entry.is_beyond(known)))
    }

    fn is_unstable(&self, slot: u32) -> bool {
        self.slot(slot).is_some_and(|s| !matches!(s.entry.unstable, Unstable::None))
    }

    /// Returns the slots of the epochs that may have made a stub of an entry.
    pub(super) fn epochs_above(&self, slot: u32) -> Vec<u32> {
        let Some(s) = self.slot(slot).filter(|_| !self.epochs.0.is_empty()) else { return Vec::new() };
        let Some(cell) = cell_of(&s.entry).filter(|c| matches!(c.payload(), Payload::Absent)) else {
            return Vec::new();
        };
        self.epochs.above(s.keyspace, cell).map(|epoch| epoch.slot).collect()
    }

    /// An epoch was collected: every member has it, nothing older can arrive any more.
    pub(super) fn drop_epoch(&mut self, space: &Keyspace, key: &[u8]) {
        if space.family() == Family::Epoch
            && let Some((target, selector)) = space.target().zip(Selector::of_key(key))
        {
            sometimes!(EpochCollected);
            self.epochs.drop(target, &selector);
        }
    }
}

fn cell_of(entry: &Entry) -> Option<&Cell> {
    match &entry.body {
        Body::Register(cell) => cell.as_ref(),
        Body::Tree(_) | Body::Custom(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::crdt::{Dot, NEVER};
    use crate::id::ReplicaId;

    #[test]
    fn a_selector_survives_its_key() {
        for selector in [Selector::All, Selector::Prefix("user:".to_owned()), Selector::Tag("t".to_owned())] {
            assert_eq!(Selector::of_key(&selector.to_key()), Some(selector));
        }
        assert_eq!(Selector::of_key(&[9, 1]), None);
        assert_eq!(Selector::of_key(&[0, b'x']), None, "all of them need no text");
        assert_eq!(Selector::of_key(&[]), None);
    }

    fn value(hlc: u64, tags: &[&'static str]) -> Cell {
        let dot = Dot { replica: ReplicaId(1), seq: hlc };
        let tags = tags.iter().map(|tag| Bytes::from_static(tag.as_bytes())).collect();
        Cell::new(Payload::Value(Bytes::new()), Hlc(hlc), dot, NEVER).with_tags(tags)
    }

    #[test]
    fn a_selector_selects_what_it_names_and_nothing_else() {
        let key = |text: &str| rmp_serde::to_vec(text).unwrap();
        let selects = |selector: Selector| {
            let cells = [("user:1", value(1, &["t"])), ("user:2", value(1, &["u"])), ("x", value(1, &[]))];
            cells.map(|(text, cell)| selector.selects(&key(text), &cell))
        };
        assert_eq!(selects(Selector::All), [true, true, true]);
        assert_eq!(selects(Selector::Prefix("user:".to_owned())), [true, true, false]);
        assert_eq!(selects(Selector::Tag("t".to_owned())), [true, false, false]);
    }

    #[test]
    fn an_epoch_clears_older_values_of_its_keyspace_until_it_is_dropped() {
        let stamp = |hlc| Stamp { hlc: Hlc(hlc), replica: ReplicaId(1) };
        let (here, there) = (KeyspaceId(0), KeyspaceId(1));
        let tag = |t: &str| Selector::Tag(t.to_owned());
        let mut epochs = Epochs::default();
        let epoch = |target, selector, hlc| Epoch { target, selector, stamp: stamp(hlc), slot: 0 };
        epochs.set(epoch(here, tag("t"), 5));
        epochs.set(epoch(here, tag("u"), 6));
        epochs.set(epoch(here, tag("t"), 4));
        assert_eq!(epochs.0.iter().map(|e| e.stamp).collect::<Vec<_>>(), [stamp(5), stamp(6)], "the latest of each");
        let clears = |epochs: &Epochs, target, hlc, t| epochs.clears(target, b"k", &value(hlc, &[t]));
        assert!(clears(&epochs, here, 4, "t") && clears(&epochs, here, 5, "u"));
        assert!(!clears(&epochs, here, 5, "t"), "what it was made with");
        assert!(!clears(&epochs, there, 4, "t"), "of another keyspace");
        epochs.drop(there, &tag("t"));
        assert!(clears(&epochs, here, 4, "t"));
        epochs.drop(here, &tag("t"));
        assert!(!clears(&epochs, here, 4, "t") && clears(&epochs, here, 5, "u"));
    }

    #[test]
    fn a_prefix_is_one_of_the_text_and_not_of_its_encoding() {
        let long = format!("{}{}", "user:", "x".repeat(300));
        for text in ["user:7", long.as_str()] {
            let key = rmp_serde::to_vec(text).unwrap();
            assert_eq!(text_of(&key), Some(text.as_bytes()));
        }
        assert_eq!(text_of(&rmp_serde::to_vec(&7_u32).unwrap()), None);
    }
}
