//! The sans-IO node: what goes in ([`Input`]) and what comes out ([`Output`]).

pub mod input;
pub mod output;

pub use input::{Input, LinkId, PeerIdentity, PeerSlot};
pub use output::{CloseCode, DialError, LinkEnd, Output, Party, TlsFault};
