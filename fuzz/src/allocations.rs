//! How much memory some work takes: an allocator that counts what is held and the most that was.
//!
//! # Invariants
//! * What C code allocates for itself is not counted. That is zstd's context: one per decoder, of fixed size, reused.
//! * The fuzzers have one thread, so what is counted between two moments is what the work between them did.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let held = HELD.load(Ordering::Relaxed).wrapping_add(bytes);
    HELD.store(held, Ordering::Relaxed);
    if held > MOST.load(Ordering::Relaxed) {
        MOST.store(held, Ordering::Relaxed);
    }
}

fn shrink(bytes: usize) {
    HELD.store(HELD.load(Ordering::Relaxed).wrapping_sub(bytes), Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrink(layout.size());
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new are both there while the bytes are copied.
        grow(size);
        shrink(layout.size());
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Does some work; returns its result and the most bytes that were held during it beyond what was held before.
pub fn most_held<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = work();
    (result, MOST.load(Ordering::Relaxed).saturating_sub(before))
}
