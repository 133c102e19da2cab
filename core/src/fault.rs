//! Mismatched sizes inside the engine. They are bugs of jostle itself, and must not pass in silence.
//!
//! Functions that trust their caller's sizes check them all the same, because their unsafe code relies on them. After
//! a mismatch such a function does not change its outputs, and reports a fault. On hosts every pass, every update and
//! every call of a generator watches for faults, and returns [`Error::Internal`]. Bare metal has no room for that: a
//! faulty function only leaves its outputs unchanged.

use crate::error::Error;

#[cfg(not(target_os = "none"))]
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The number of faults so far, in all threads.
#[cfg(not(target_os = "none"))]
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The operation of the last fault.
#[cfg(not(target_os = "none"))]
static LAST: AtomicPtr<&'static str> = AtomicPtr::new(core::ptr::null_mut());

/// Reports that an operation got mismatched sizes.
#[cfg(not(target_os = "none"))]
#[cold]
#[inline(never)]
pub(crate) fn report(operation: &'static &'static str) {
    LAST.store(core::ptr::from_ref(operation).cast_mut(), Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Release);
}

/// Does nothing.
#[cfg(target_os = "none")]
#[inline(always)]
pub(crate) fn report(_: &'static &'static str) {}

/// The number of faults when a call began. A faulty call always returns the error; calls of other threads at the same
/// time may return it too.
pub(crate) struct Watch {
    #[cfg(not(target_os = "none"))]
    before: usize,
}

impl Watch {
    #[inline(always)]
    pub fn begin() -> Watch {
        Watch {
            #[cfg(not(target_os = "none"))]
            before: COUNT.load(Ordering::Relaxed),
        }
    }

    /// An error, if there was a fault since the beginning.
    #[cfg(not(target_os = "none"))]
    pub fn end(self) -> Result<(), Error> {
        if COUNT.load(Ordering::Acquire) == self.before {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "a reference that passes through an atomic")]
        // SAFETY: null or a `&'static &'static str` that `report` has stored.
        let operation = unsafe { LAST.load(Ordering::Relaxed).as_ref() };
        Err(Error::Internal { operation: operation.copied().unwrap_or("an operation") })
    }

    #[cfg(target_os = "none")]
    #[inline(always)]
    pub fn end(self) -> Result<(), Error> {
        Ok(())
    }
}
