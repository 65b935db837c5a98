//! Keyspaces: named groups of keys with one family of types and one budget.
//!
//! # Invariants
//! * A keyspace never changes its family, so there are no type conflicts inside one.
//! * Numbers ([`KeyspaceId`]) are dense, never reused and never leave the process.
//! * A keyspace first heard of from a peer is kept and relayed like any other; opening it here
//!   later with another family is refused.

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::crdt::custom::MergeState;
use crate::error::OpenError;
use crate::id::KeyspaceId;
use crate::store::tally::Tally;
use crate::sync::{AtomicBool, AtomicU64, Ordering, RwLock};

/// Most custom keyspaces a process may declare: a hello names them all, and whoever reads one reserves for each.
pub const CUSTOM_KEYSPACES_MAX: usize = 512;

/// Most keyspaces one process keeps: each costs a few hundred bytes and a name in every frame
/// that touches it, and a peer may name new ones.
pub const KEYSPACES_MAX: usize = 1_024;
/// Longest keyspace name in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// What the name of a companion keyspace begins with: no other name may.
const EPOCHS: char = '\0';

/// The family of types a keyspace holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// Last-writer-wins registers.
    Register,
    /// Observed-remove maps.
    Map,
    /// Counters: maps with the one counter of the empty name.
    Counter,
    /// Sets: maps with the one set of the empty name.
    Set,
    /// A custom type.
    Custom,
    /// The invalidation epochs of a register keyspace.
    Epoch,
}

impl Family {
    /// Returns the number frames carry.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Register => 0,
            Self::Map => 1,
            Self::Counter => 2,
            Self::Set => 3,
            Self::Custom => 4,
            Self::Epoch => 5,
        }
    }

    /// Returns the family of a number frames carry.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        let all = [Self::Register, Self::Map, Self::Counter, Self::Set, Self::Custom, Self::Epoch];
        all.into_iter().find(|f| f.code() == code)
    }

    /// Returns what a person calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "registers",
            Self::Map => "maps",
            Self::Counter => "counters",
            Self::Set => "sets",
            Self::Custom => "custom entries",
            Self::Epoch => "epochs",
        }
    }
}

/// One keyspace.
#[derive(Debug)]
pub struct Keyspace {
    id: KeyspaceId,
    name: Box<str>,
    family: Family,
    hasher: SipHasher13,
    target: Option<KeyspaceId>,
    merge: Option<Arc<dyn MergeState>>,
    budget: AtomicU64,
    used: AtomicU64,
    watched: AtomicBool,
    tally: Tally,
}

impl Keyspace {
    /// Returns the number of this keyspace in this process.
    #[must_use]
    pub fn id(&self) -> KeyspaceId {
        self.id
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the family of types it holds.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Returns the keyspace whose registers these epochs clear.
    #[must_use]
    pub fn target(&self) -> Option<KeyspaceId> {
        self.target
    }

    /// Returns the keyed hash that places a key; equal in every process of the cluster.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher;
        hasher.write(key);
        hasher.finish()
    }

    /// Returns how two states of its custom type merge.
    #[must_use]
    pub fn merge(&self) -> Option<&dyn MergeState> {
        self.merge.as_deref()
    }

    /// Returns the bytes its entries take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the budget in bytes.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// Sets the budget in bytes. A write that finds it exceeded is refused, so it is exceeded by at most one value of
    /// every thread that writes at that moment.
    pub fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    /// Tells whether somebody wants to hear of changes.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Says that somebody wants to hear of changes from now on.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Returns the counters of local reads and writes.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn account(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(widen(after - before), Ordering::Relaxed);
        } else {
            self.used.fetch_sub(widen(before - after), Ordering::Relaxed);
        }
    }
}

fn widen(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The keyspaces of this process, by number and by name.
#[derive(Debug)]
pub struct Keyspaces {
    all: RwLock<Vec<Arc<Keyspace>>>,
    default_budget: u64,
    hash_key: [u8; 16],
}

impl Keyspaces {
    /// Builds an empty table; `default_budget` is in bytes per keyspace, `hash_key` is the
    /// cluster's and places keys.
    #[must_use]
    pub fn new(default_budget: u64, hash_key: [u8; 16]) -> Self {
        Self { all: RwLock::new(Vec::new()), default_budget, hash_key }
    }

    /// Returns the keyspace of this name and family, made now if nobody has opened it yet.
    ///
    /// # Errors
    /// [`OpenError`] when the name is bad, the family differs or there are too many. Nothing is
    /// opened then.
    pub fn open(&self, name: &str, family: Family) -> Result<Arc<Keyspace>, OpenError> {
        if let Some(found) = self.lookup(name, family)? {
            return Ok(found);
        }
        let target = name.strip_prefix(EPOCHS).map(|target| self.open(target, Family::Register)).transpose()?;
        self.open_with(name, family, None, target.map(|space| space.id()))
    }

    /// Returns the keyspace that [`Keyspaces::open`] would find, or none if it would make one; makes nothing.
    ///
    /// # Errors
    /// As [`Keyspaces::open`], but for the number of keyspaces.
    pub fn lookup(&self, name: &str, family: Family) -> Result<Option<Arc<Keyspace>>, OpenError> {
        let target = name.strip_prefix(EPOCHS);
        let len = target.unwrap_or(name).len();
        if len == 0 || len > NAME_BYTES_MAX || target.is_some() != (family == Family::Epoch) {
            return Err(OpenError::BadName { len: name.len(), max: NAME_BYTES_MAX });
        }
        if let Some(target) = target {
            self.lookup(target, Family::Register)?;
        }
        self.find(name).map(|found| of_family(found, family)).transpose()
    }

    /// Returns the companion keyspace that holds the epochs of a register keyspace.
    ///
    /// # Errors
    /// As [`Keyspaces::open`].
    pub fn open_epochs(&self, target: &Keyspace) -> Result<Arc<Keyspace>, OpenError> {
        self.open(&format!("{EPOCHS}{}", target.name()), Family::Epoch)
    }

    /// Like [`Keyspaces::open`] for a custom type, with its way to merge.
    ///
    /// # Errors
    /// As [`Keyspaces::open`].
    pub fn open_custom(&self, name: &str, merge: Arc<dyn MergeState>) -> Result<Arc<Keyspace>, OpenError> {
        self.open_with(name, Family::Custom, Some(merge), None)
    }

    fn open_with(
        &self,
        name: &str,
        family: Family,
        merge: Option<Arc<dyn MergeState>>,
        target: Option<KeyspaceId>,
    ) -> Result<Arc<Keyspace>, OpenError> {
        let len_max = NAME_BYTES_MAX + if target.is_some() { EPOCHS.len_utf8() } else { 0 };
        if name.is_empty() || name.len() > len_max {
            return Err(OpenError::BadName { len: name.len(), max: NAME_BYTES_MAX });
        }
        let mut all = self.all.write();
        if let Some(found) = all.iter().find(|k| k.name() == name) {
            return of_family(Arc::clone(found), family);
        }
        let next = u16::try_from(all.len()).ok().filter(|_| all.len() < KEYSPACES_MAX);
        let id = KeyspaceId(next.ok_or(OpenError::TooMany { max: KEYSPACES_MAX })?);
        let (budget, used) = (AtomicU64::new(self.default_budget), AtomicU64::new(0));
        let watched = AtomicBool::new(false);
        let hasher = self.hasher(name);
        let (name, tally) = (Box::from(name), Tally::default());
        let made = Arc::new(Keyspace { id, name, family, hasher, target, merge, budget, used, watched, tally });
        all.push(Arc::clone(&made));
        Ok(made)
    }

    /// Returns a hasher that has taken in the name, so that equal keys of two keyspaces differ.
    fn hasher(&self, name: &str) -> SipHasher13 {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write(name.as_bytes());
        hasher.write_u8(0xff);
        hasher
    }

    /// Returns the keyed hash that places a key of a keyspace of this name, whether anybody here has heard of it or not.
    #[must_use]
    pub fn hash(&self, name: &str, key: &[u8]) -> u64 {
        let mut hasher = self.hasher(name);
        hasher.write(key);
        hasher.finish()
    }

    /// Returns the keyspace of this name, if it was ever opened or heard of.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Keyspace>> {
        self.all.read().iter().find(|k| k.name() == name).map(Arc::clone)
    }

    /// Returns the keyspace of this number.
    #[must_use]
    pub fn get(&self, id: KeyspaceId) -> Option<Arc<Keyspace>> {
        self.all.read().get(id.index()).map(Arc::clone)
    }

    /// Returns all keyspaces, in order of number.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Arc<Keyspace>> {
        self.all.read().clone()
    }
}

/// Returns a keyspace that was found if it is of the family that is wanted.
fn of_family(found: Arc<Keyspace>, wanted: Family) -> Result<Arc<Keyspace>, OpenError> {
    if found.family == wanted {
        return Ok(found);
    }
    let (name, existing) = (found.name().to_owned(), found.family.name());
    Err(OpenError::OtherFamily { name, existing, wanted: wanted.name() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: [Family; 6] =
        [Family::Register, Family::Map, Family::Counter, Family::Set, Family::Custom, Family::Epoch];

    fn table() -> Keyspaces {
        Keyspaces::new(1_000, [7; 16])
    }

    #[test]
    fn a_family_has_a_number_and_a_name_of_its_own() {
        for (code, family) in (0..).zip(FAMILIES) {
            assert_eq!((family.code(), Family::from_code(code)), (code, Some(family)), "frames carry it");
            assert_eq!(FAMILIES.iter().filter(|f| f.name() == family.name()).count(), 1, "{}", family.name());
            assert!(!family.name().is_empty());
        }
        assert_eq!(Family::from_code(6), None);
    }

    /// Nodes of all versions must place a key in the same partition.
    #[test]
    fn a_key_is_placed_by_the_cluster_s_key_its_keyspace_s_name_and_its_bytes() {
        let hash = |spaces: &Keyspaces, name, key: &[u8]| spaces.open(name, Family::Register).unwrap().hash(key);
        let other = Keyspaces::new(5, [8; 16]);
        let there = table();
        there.open("first", Family::Map).unwrap();
        assert_eq!(hash(&table(), "r", b"key"), 676_516_118_856_006_739, "SipHash-1-3 of r, 0xff, key");
        assert_eq!(hash(&there, "r", b"key"), hash(&table(), "r", b"key"), "whatever its number");
        let mut hashes = vec![hash(&table(), "r", b"key"), hash(&table(), "r", b"kez"), hash(&table(), "s", b"key")];
        hashes.push(hash(&other, "r", b"key"));
        hashes.push(hash(&table(), "rk", b"ey"));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 5);
    }

    #[test]
    fn a_name_is_opened_once_and_found_by_name_and_number() {
        let spaces = table();
        let maps = spaces.open("m", Family::Map).unwrap();
        let again = spaces.open("m", Family::Map).unwrap();
        assert!(Arc::ptr_eq(&maps, &again));
        assert_eq!((maps.name(), maps.family(), maps.id(), maps.budget()), ("m", Family::Map, KeyspaceId(0), 1_000));
        let refused = spaces.open("m", Family::Set).unwrap_err();
        assert_eq!(refused, OpenError::OtherFamily { name: "m".to_owned(), existing: "maps", wanted: "sets" });
        let sets = spaces.open("s", Family::Set).unwrap();
        assert_eq!(spaces.find("s").map(|k| k.id()), Some(sets.id()));
        assert_eq!(spaces.get(KeyspaceId(1)).map(|k| k.name().to_owned()), Some("s".to_owned()));
        assert!(spaces.find("t").is_none() && spaces.get(KeyspaceId(2)).is_none());
        assert_eq!(spaces.snapshot().iter().map(|k| k.name().to_owned()).collect::<Vec<_>>(), ["m", "s"]);
    }

    #[test]
    fn names_keep_to_their_length_and_only_epochs_have_the_prefix() {
        let spaces = table();
        let longest = "n".repeat(NAME_BYTES_MAX);
        let regs = spaces.open(&longest, Family::Register).unwrap();
        let epochs = spaces.open_epochs(&regs).unwrap();
        assert_eq!((epochs.family(), epochs.target(), regs.target()), (Family::Epoch, Some(regs.id()), None));
        for (name, family) in [
            ("", Family::Register),
            (format!("{longest}n").as_str(), Family::Register),
            (format!("{EPOCHS}{longest}n").as_str(), Family::Epoch),
            ("no-prefix", Family::Epoch),
            ("\0r", Family::Register),
            ("\0", Family::Epoch),
        ] {
            let refused = spaces.open(name, family).map(|k| k.id());
            assert!(matches!(refused, Err(OpenError::BadName { max: NAME_BYTES_MAX, .. })), "{name:?}");
        }
        for name in ["", format!("{longest}n").as_str()] {
            let merge = Arc::new(crate::crdt::custom::Erased::<crdts::GSet<u64>>::default());
            assert!(matches!(spaces.open_custom(name, merge), Err(OpenError::BadName { .. })), "{name:?}");
            assert!(matches!(spaces.lookup(name, Family::Register), Err(OpenError::BadName { .. })), "{name:?}");
        }
        assert_eq!(spaces.snapshot().len(), 2, "what is refused leaves nothing");
        assert_eq!(spaces.open("\0r", Family::Epoch).unwrap().target(), spaces.find("r").map(|k| k.id()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it is long, and does nothing its neighbours do not")]
    fn there_are_only_so_many_keyspaces_and_those_there_are_still_open() {
        let spaces = table();
        for n in 0..KEYSPACES_MAX {
            assert!(spaces.open(&n.to_string(), Family::Register).is_ok());
        }
        let full = OpenError::TooMany { max: KEYSPACES_MAX };
        assert_eq!(spaces.open("one more", Family::Register).unwrap_err(), full);
        assert!(spaces.open("7", Family::Register).is_ok());
    }

    #[test]
    fn reads_and_writes_of_a_keyspace_are_counted_in_one_place() {
        let space = table().open("r", Family::Register).unwrap();
        space.tally().read(1, true);
        space.tally().read(2, false);
        (0..3).for_each(|hash| space.tally().wrote(hash));
        let sum = space.tally().sum();
        assert_eq!((sum.hits, sum.misses, sum.writes), (1, 1, 3));
    }

    #[test]
    fn what_entries_take_is_summed_and_given_back() {
        let space = table().open("r", Family::Register).unwrap();
        space.account(0, 300);
        space.account(300, 120);
        space.account(40, 40);
        assert_eq!(space.used(), 120);
        assert!(!space.is_watched());
        space.watch();
        assert!(space.is_watched());
        assert!(space.merge().is_none());
    }
}
