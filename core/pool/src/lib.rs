//! Threads for `jostle`, which creates none itself: a pool that waits spinning while steps follow each other,
//! and asleep when they do not. Knows nothing of models.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::{hint, io, mem, process};

use jostle::Parallel;

/// How often a thread looks for news before it sleeps: longer than what lies between two forks of a step,
/// and some hundred microseconds at most.
const SPINS: usize = 5_000;

/// The thread that calls [`Parallel::run`], and so many others that there are as many as asked for.
///
/// Tasks are taken one by one by whichever thread is free, so a thread that the system holds up delays only
/// the task it has. A `run` within a task, or while another thread's `run` is under way, does all its tasks
/// itself. A panic in a task is resumed in the thread that called `run`, after the other tasks.
///
/// A process that was forked off has the calling thread alone, which then does all tasks.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// The process that the workers run in.
    process: u32,
}

type Task = dyn Fn(usize) + Sync;

/// What the threads have in common. A round is one call of `run`.
struct Shared {
    /// The round's. Written by the thread that holds `busy`, while `unfinished` is 0; read by threads that have
    /// claimed a task and not finished it.
    task: UnsafeCell<Option<*const Task>>,
    /// Tasks of the round that no thread has claimed.
    unclaimed: AtomicUsize,
    /// Tasks of the round that have not returned.
    unfinished: AtomicUsize,
    /// The round's caller sleeps until it is woken. It doesn't park: for a thread that isn't Rust's own,
    /// `thread::current` allocates what nobody frees.
    caller_sleeps: Mutex<bool>,
    wake_caller: Condvar,
    /// A round is under way.
    busy: AtomicBool,
    /// The pool is being dropped.
    ended: AtomicBool,
    /// The first panic of the round.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `task` is written and read by turns only, as its comment says, and may be called from any
// thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Pool {
    /// So many threads, of which the caller's is one; 0 is taken as 1. An error where the system refuses one.
    pub fn new(threads: usize) -> io::Result<Pool> {
        let shared = Arc::new(Shared {
            task: UnsafeCell::new(None),
            unclaimed: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            caller_sleeps: Mutex::new(false),
            wake_caller: Condvar::new(),
            busy: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { shared, workers: Vec::new(), process: process::id() };
        for _ in 1..threads {
            let shared = Arc::clone(&pool.shared);
            pool.workers.push(thread::Builder::new().spawn(move || shared.work())?);
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.process != process::id() {
            // A forked child: the workers are not here to be joined, and never end.
            return mem::forget(mem::take(&mut self.workers));
        }
        self.shared.ended.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its tasks' panics.
            let _ = worker.join();
        }
    }
}

// SAFETY: a task is claimed by taking one off `unclaimed`, so no two threads have the same; `run` returns when
// none is unfinished.
unsafe impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if tasks < 2 || self.workers.is_empty() || shared.busy.swap(true, Ordering::Acquire) {
            return (0..tasks).for_each(task);
        }
        // SAFETY: only the lifetime changes. The pointer is followed by threads that have claimed a task and
        // not finished it, and this function returns when there are none.
        let task = unsafe { mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task) };
        // SAFETY: this thread set `busy`, and `unfinished` is 0: no other thread writes or reads.
        unsafe { *shared.task.get() = Some(task) };
        shared.unfinished.store(tasks, Ordering::Relaxed);
        // Publishes the two lines above to whoever claims a task.
        shared.unclaimed.store(tasks, Ordering::Release);
        for worker in self.workers.iter().take(tasks - 1) {
            worker.thread().unpark();
        }
        while shared.run_one() {}
        shared.wait_for_the_last();
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.busy.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self) {
        let ended = || self.ended.load(Ordering::Acquire);
        while !ended() {
            while self.run_one() {}
            let news = || self.unclaimed.load(Ordering::Relaxed) > 0 || ended();
            // Whoever has news calls `unpark` after making it, so that a thread which has just looked in vain
            // doesn't sleep on.
            while !spin(news) {
                thread::park();
            }
        }
    }

    /// Returns when no task of the round is unfinished.
    fn wait_for_the_last(&self) {
        let finished = || self.unfinished.load(Ordering::Acquire) == 0;
        if spin(finished) {
            return;
        }
        let mut sleeps = self.caller_sleeps.lock().unwrap_or_else(PoisonError::into_inner);
        *sleeps = true;
        while !finished() {
            sleeps = self.wake_caller.wait(sleeps).unwrap_or_else(PoisonError::into_inner);
        }
        *sleeps = false;
    }

    /// Claims a task and runs it; `false` where all are claimed.
    fn run_one(&self) -> bool {
        let claim = |unclaimed: usize| unclaimed.checked_sub(1);
        let Ok(unclaimed) = self.unclaimed.fetch_update(Ordering::Acquire, Ordering::Relaxed, claim) else {
            return false;
        };
        // SAFETY: until this thread counts its task as finished below, the round isn't over and nobody
        // writes; `unclaimed` was stored after the round, and acquired here.
        let Some(task) = (unsafe { *self.task.get() }) else { return false };
        // SAFETY: as above, the call of `run` that lent the task hasn't returned.
        let task = unsafe { &*task };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(unclaimed - 1))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Waking costs a call of the system, which a caller that spins doesn't need.
            if *self.caller_sleeps.lock().unwrap_or_else(PoisonError::into_inner) {
                self.wake_caller.notify_one();
            }
        }
        true
    }
}

/// Looks for a while whether the condition holds.
fn spin(condition: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if condition() {
            return true;
        }
        hint::spin_loop();
    }
    condition()
}
