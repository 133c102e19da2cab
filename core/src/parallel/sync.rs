//! The primitives of the relay. The test of its interleavings takes loom's instead.

#[cfg(not(all(loom, test)))]
pub(super) use core::{
    hint::spin_loop,
    sync::atomic::{AtomicUsize, Ordering},
};

#[cfg(all(loom, test))]
pub(super) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicUsize, Ordering},
};
