//! Which version two peers speak with each other.
//!
//! The *format* byte in front of every message changes only when the envelope itself does, so that
//! a hello is readable across all protocol versions; the *protocol* version is negotiated there.
//!
//! # Invariants
//! * Both sides come to the same version or both refuse.

use crate::error::PeerFault;

/// The first byte of every message.
pub const FORMAT: u8 = 1;
/// The newest protocol version spoken here.
pub const VERSION: u16 = 1;
/// The oldest protocol version spoken here.
pub const MIN_VERSION: u16 = 1;

/// The protocol versions one side speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The newest.
    pub version: u16,
    /// The oldest.
    pub min_version: u16,
}

/// What this build speaks.
pub const OURS: Versions = Versions { version: VERSION, min_version: MIN_VERSION };

/// Returns the newest version both sides speak.
///
/// # Errors
/// [`PeerFault::Incompatible`] when there is none; the link should be closed.
pub fn negotiate(ours: Versions, theirs: Versions) -> Result<u16, PeerFault> {
    let newest = ours.version.min(theirs.version);
    if newest >= ours.min_version && newest >= theirs.min_version {
        return Ok(newest);
    }
    let text = |v: Versions| format!("{} to {}", v.min_version, v.version);
    Err(PeerFault::Incompatible { what: "protocol version", theirs: text(theirs), ours: text(ours) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaks(min_version: u16, version: u16) -> Versions {
        Versions { version, min_version }
    }

    #[test]
    fn both_sides_come_to_the_same_version_or_both_refuse() {
        for (a, b, agreed) in [
            (speaks(1, 1), speaks(1, 1), Some(1)),
            (speaks(1, 2), speaks(2, 3), Some(2)),
            (speaks(1, 1), speaks(2, 3), None),
            (speaks(4, 9), speaks(1, 3), None),
            (speaks(5, 2), speaks(1, 3), None),
        ] {
            assert_eq!(negotiate(a, b).ok(), agreed);
            assert_eq!(negotiate(b, a).ok(), agreed);
        }
    }

    #[test]
    fn a_refusal_names_both_ranges() {
        let refused = negotiate(speaks(1, 1), speaks(2, 3)).unwrap_err();
        let (theirs, ours) = ("2 to 3".to_owned(), "1 to 1".to_owned());
        assert_eq!(refused, PeerFault::Incompatible { what: "protocol version", theirs, ours });
    }
}
