//! The keyspaces that decoders look names up in: one of each family, as in `tests/golden`.

use std::cell::RefCell;
use std::sync::Arc;

use driftless::crdt::custom::Erased;
use driftless::id::KeyspaceId;
use driftless::store::{Family, Keyspaces};

/// Returns fresh keyspaces, numbered in the order of [`Family::code`].
///
/// # Panics
/// Never: the names are good.
#[must_use]
pub fn spaces() -> Keyspaces {
    let spaces = Keyspaces::new(1 << 30, [7; 16]);
    let plain =
        [("sessions", Family::Register), ("carts", Family::Map), ("hits", Family::Counter), ("tags", Family::Set)];
    for (name, family) in plain {
        assert!(spaces.open(name, family).is_ok());
    }
    assert!(spaces.open_custom("docs", Arc::new(Erased::<crdts::PNCounter<u64>>::default())).is_ok());
    let epochs = spaces.find("sessions").map(|sessions| spaces.open_epochs(&sessions));
    assert!(matches!(epochs, Some(Ok(_))));
    spaces
}

thread_local! {
    static UNTOUCHED: RefCell<Option<Keyspaces>> = const { RefCell::new(None) };
}

/// Does some work with keyspaces as [`spaces`] returns them, which are made anew only after a message has added to them.
pub fn with_spaces<R>(work: impl FnOnce(&Keyspaces) -> R) -> R {
    let spaces = UNTOUCHED.take().unwrap_or_else(spaces);
    let result = work(&spaces);
    if spaces.snapshot().len() == COUNT {
        UNTOUCHED.set(Some(spaces));
    }
    result
}

/// Returns the number of the keyspace of a family.
#[must_use]
pub fn keyspace(family: Family) -> KeyspaceId {
    KeyspaceId(u16::from(family.code()))
}

/// How many there are before a frame names others.
pub const COUNT: usize = 6;
