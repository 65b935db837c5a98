//! What travels between replicas.

pub mod message;

pub use message::{Beat, Control, Frame, FullChunk, Hello, Part};
