//! The primitives of threads. The test of the pool's interleavings takes loom's instead.

#[cfg(all(loom, test))]
pub use loom::{
    cell::UnsafeCell,
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    sync::{Arc, Condvar, Mutex},
    thread::{Builder, JoinHandle, park, yield_now},
};
#[cfg(not(all(loom, test)))]
pub use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    sync::{Arc, Condvar, Mutex},
    thread::{Builder, JoinHandle, park, yield_now},
};

/// As loom's, which notices when two threads use the contents at once.
#[cfg(not(all(loom, test)))]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(all(loom, test)))]
impl<T> UnsafeCell<T> {
    pub fn new(contents: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(contents))
    }

    pub fn with<R>(&self, use_it: impl FnOnce(*const T) -> R) -> R {
        use_it(self.0.get())
    }

    pub fn with_mut<R>(&self, use_it: impl FnOnce(*mut T) -> R) -> R {
        use_it(self.0.get())
    }
}

/// Stands between two sequentially consistent operations whose order matters to all threads: loom takes them as acquire and
/// release, but knows this fence.
pub fn order_for_loom() {
    #[cfg(all(loom, test))]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// Stands between publishing work and waking threads: loom does not interrupt a thread there by itself, but it does where
/// `published` is read.
pub fn preempt_for_loom(published: &AtomicUsize) {
    #[cfg(all(loom, test))]
    published.load(Ordering::Relaxed);
    #[cfg(not(all(loom, test)))]
    let _ = published;
}
