//! The library's own threads, for callers who have none to lend. This is the only part that needs an operating system and
//! the only part that allocates: the pool and its threads, when it starts.

extern crate std;

use core::ffi::c_void;
use std::boxed::Box;

use ::jostle_pool::Pool;
use jostle::Parallel;

use crate::border::Output;
use crate::compute::{MOST_THREADS, jostle_task};
use crate::status::{Refusal, call, jostle_error, jostle_status};

/// Threads that wait for work. Only in the hosted library.
pub struct jostle_pool(Pool);

/// Starts a pool of `threads` threads, including the caller's, at most 1024. To use it, set a jostle_compute's `threads`, its `run` to
/// jostle_pool_run and its `context` to the pool.
///
/// # Safety
/// `pool` is writable, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_pool_start(
    threads: u32,
    pool: *mut *mut jostle_pool,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let output = Output::new(call, "pool", pool)?;
            if threads == 0 {
                return Err(call.refuse_as_core(&jostle::Error::Zero { what: "threads" }));
            }
            let threads = threads as usize;
            let refuse = || call.refuse(Refusal::Threads { given: threads });
            if threads > MOST_THREADS {
                return Err(refuse());
            }
            let pool = Pool::new(threads).map_err(|_| refuse())?;
            output.write(Box::into_raw(Box::new(jostle_pool(pool))));
            Ok(())
        })
    }
}

/// Lends a pool's threads: a jostle_run, whose `context` is the pool.
///
/// # Safety
/// `pool` was made by jostle_pool_start and not stopped; `task` may be called with `argument` on any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_pool_run(
    pool: *mut c_void,
    count: usize,
    task: jostle_task,
    argument: *mut c_void,
) {
    /// An argument that the task takes on any thread.
    struct Shared(*mut c_void);
    // SAFETY: the caller vouches that the task may take it on any thread.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn get(&self) -> *mut c_void {
            self.0
        }
    }
    let argument = Shared(argument);
    // SAFETY: the caller keeps to `# Safety` above.
    let pool = unsafe { pool.cast::<jostle_pool>().as_ref() };
    let Some(jostle_pool(pool)) = pool else { return };
    pool.run(count, &|index| {
        // SAFETY: the caller vouches that any thread may call `task` with `argument`.
        unsafe { task(argument.get(), index) };
    });
}

/// Ends a pool's threads and frees the pool. NULL does nothing.
///
/// # Safety
/// `pool` was made by jostle_pool_start, is not in use, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_pool_stop(pool: *mut jostle_pool) {
    if !pool.is_null() {
        // SAFETY: made by `Box::into_raw`, and given back once.
        drop(unsafe { Box::from_raw(pool) });
    }
}
