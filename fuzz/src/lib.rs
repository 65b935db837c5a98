//! What the fuzz targets share: what is made of a fuzzer's bytes, and the models the results are held against.
//!
//! A target in `fuzz_targets` says what must hold; everything it takes to say so in few lines is here.
//!
//! # Invariants
//! * Any bytes are an input: numbers are taken modulo what there is, so no input is wasted.
//! * The same bytes do the same thing, whatever was tried before.

pub mod allocations;
pub mod blocks;
pub mod config;
pub mod messages;
pub mod replica;
pub mod schedule;
pub mod siege;
pub mod spaces;
pub mod world;
