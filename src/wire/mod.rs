//! What travels between replicas, and how it becomes bytes.
//!
//! [`message`] is what the node works with, [`codec`] turns it into bytes and back. Below: the
//! `envelope` with its version and compression, the layouts of `frame`s and their `fragment`s
//! and of `control` messages, and single values in `pack`.
//!
//! # Invariants
//! * A changed byte is a reviewed decision: `tests/golden` pins the bytes of every version.
//! * A message is trusted for nothing: sizes are checked before allocation, meaning afterwards.
//!
//! What is *not* here: streams and their length prefixes (the shell's), and what a message does
//! (the node's).

pub mod codec;
mod compress;
mod context;
mod control;
mod envelope;
mod fragment;
mod frame;
mod hello;
pub mod limits;
mod mark;
pub mod message;
mod pack;
mod repair;
mod scope;
mod spaces;
pub mod version;

pub use codec::{Decoder, Encoder};
pub use limits::{Limits, Unsendable};
pub use message::{
    Answer, Beat, Control, Frame, FullChunk, Hello, LOAD_MAX, Part, Repair, Restore, SUSPECTS_MAX, Snapshot,
};
pub use version::{MIN_VERSION, VERSION, negotiate};
