//! What the handle promises where its tasks and threads meet; everything else is in `tests/cluster.rs`.

#[cfg(not(shuttle))]
mod opening;
#[cfg(shuttle)]
mod threads;
