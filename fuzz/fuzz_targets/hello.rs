//! Any configuration is refused with an error that names what is wrong with it, or gives a node that starts, founds,
//! takes a write, and says a hello that others can read.

#![no_main]

fn main() {}
