//! An allocator that counts, while it is asked to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// The system's allocator, counted between [`start`] and [`stop`]; one load more otherwise, so
/// that what is timed is hardly slowed, ours or theirs.
pub(crate) struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

/// What was allocated while it was counted, by all threads.
pub(crate) struct Counted {
    /// Calls that gave memory, growing in place included.
    pub(crate) calls: u64,
    /// The most bytes that were live at once, over those at the start.
    pub(crate) peak: i64,
}

/// Begins to count.
pub(crate) fn start() {
    CALLS.store(0, Relaxed);
    LIVE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    ON.store(true, Relaxed);
}

/// Ends counting.
pub(crate) fn stop() -> Counted {
    ON.store(false, Relaxed);
    Counted {
        calls: CALLS.load(Relaxed),
        peak: PEAK.load(Relaxed),
    }
}

fn bytes(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn took(size: usize) {
    if ON.load(Relaxed) {
        CALLS.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(bytes(size), Relaxed) + bytes(size);
        PEAK.fetch_max(live, Relaxed);
    }
}

fn gave(size: usize) {
    if ON.load(Relaxed) {
        LIVE.fetch_sub(bytes(size), Relaxed);
    }
}

#[expect(
    unsafe_code,
    reason = "there is no other way to count; each call goes to the system's allocator as it came"
)]
// SAFETY: every method forwards its arguments to `System` and returns what that returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are `System`'s conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        gave(layout.size());
        took(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
