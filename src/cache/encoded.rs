//! How keys, fields and values become bytes: MessagePack by `rmp-serde`.
//!
//! Keys, fields and members take the *array* form, in which a struct is the list of its fields:
//! the shortest, and the same bytes for the same value as long as the type's own form is (a hash
//! map in a key is not). Values take the *named* form, in which a struct is a map from field names:
//! during a rolling upgrade an old process skips the fields a new one added, and `#[serde(default)]`
//! fills in what an old one does not send.
//!
//! # Invariants
//! * Nothing is allocated for what fits [`INLINE`] bytes.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ReadError, WriteError};

/// Most keys and small values: encoded on the stack.
const INLINE: usize = 256;

/// A part that has no MessagePack form, for instance a map of unknown length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unencodable(&'static str);

impl From<Unencodable> for WriteError {
    fn from(Unencodable(what): Unencodable) -> Self {
        Self::Unencodable { what }
    }
}

impl From<Unencodable> for ReadError {
    fn from(Unencodable(what): Unencodable) -> Self {
        Self::Unencodable { what }
    }
}

/// Encoded bytes, on the stack while they are few.
#[derive(Debug)]
pub(super) struct Encoded {
    inline: [u8; INLINE],
    len: usize,
    /// Everything, once it is more than fits.
    spilled: Vec<u8>,
}

impl Encoded {
    fn empty() -> Self {
        Self { inline: [0; INLINE], len: 0, spilled: Vec::new() }
    }

    /// Encodes a key, field or member.
    pub(super) fn name<T: Serialize + ?Sized>(what: &'static str, name: &T) -> Result<Self, Unencodable> {
        let mut out = Self::empty();
        rmp_serde::encode::write(&mut out, name).map_err(|_why| Unencodable(what))?;
        Ok(out)
    }

    /// Encodes a value.
    pub(super) fn value<T: Serialize + ?Sized>(value: &T) -> Result<Self, Unencodable> {
        let mut out = Self::empty();
        rmp_serde::encode::write_named(&mut out, value).map_err(|_why| Unencodable("value"))?;
        Ok(out)
    }

    /// Returns the bytes.
    pub(super) fn as_slice(&self) -> &[u8] {
        if self.spilled.is_empty() { self.inline.get(..self.len).unwrap_or_default() } else { &self.spilled }
    }

    /// Returns the bytes in an allocation of exactly their length.
    pub(super) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_slice())
    }

    /// Returns how many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }
}

impl io::Write for Encoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.len + bytes.len();
        if self.spilled.is_empty() {
            if let Some(place) = self.inline.get_mut(self.len..end) {
                place.copy_from_slice(bytes);
                self.len = end;
                return Ok(bytes.len());
            }
            self.spilled.reserve(end.max(INLINE * 2));
            self.spilled.extend_from_slice(self.inline.get(..self.len).unwrap_or_default());
        }
        self.spilled.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes a part.
pub(super) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, ReadError> {
    rmp_serde::from_slice(bytes).map_err(|_why| ReadError::Undecodable { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[test]
    fn what_does_not_fit_the_stack_is_the_same_bytes() {
        for len in [0, 1, 250, 252, 253, 254, 255, 256, 257, 5_000] {
            let text = "x".repeat(len);
            let encoded = Encoded::name("key", &text).unwrap();
            assert_eq!(encoded.as_slice(), rmp_serde::to_vec(&text).unwrap(), "{len}");
            assert_eq!(decode::<String>("key", &encoded.to_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn a_borrowed_key_is_the_same_bytes_as_an_owned_one() {
        let (owned, borrowed) = (Encoded::name("key", &"k".to_owned()).unwrap(), Encoded::name("key", "k").unwrap());
        assert_eq!(owned.as_slice(), borrowed.as_slice());
    }

    #[test]
    fn an_old_reader_skips_the_fields_of_a_new_writer_and_fills_in_its_own() {
        #[derive(Serialize)]
        struct New {
            user: u32,
            theme: &'static str,
        }
        #[derive(Deserialize, PartialEq, Debug)]
        struct Old {
            user: u32,
            #[serde(default)]
            visits: u64,
        }
        let bytes = Encoded::value(&New { user: 7, theme: "dark" }).unwrap();
        assert_eq!(decode::<Old>("value", bytes.as_slice()), Ok(Old { user: 7, visits: 0 }));
    }
}
