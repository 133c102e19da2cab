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
/// the task it has, and those that wait for it. A `run` within a task, or while another thread's `run` is under way, does all its tasks
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
///
/// Each part has cache lines of its own: with all in one, which waiting threads keep asking for, a round of a fork and a
/// join took twice as long.
struct Shared {
    round: CacheAligned<Round>,
    /// Tasks that workers have done in all rounds, modulo its range.
    done: CacheAligned<AtomicUsize>,
    caller: CacheAligned<Caller>,
    /// The pool is being dropped.
    ended: AtomicBool,
}

/// What workers wait for.
struct Round {
    /// The round's. Written by the thread that holds `busy`, while no task is under way; read by threads that have claimed
    /// a task and not finished it.
    task: UnsafeCell<Option<*const Task>>,
    /// Tasks of the round that no thread has claimed.
    unclaimed: AtomicUsize,
}

/// What workers have to do with seldom.
struct Caller {
    /// A round is under way.
    busy: AtomicBool,
    /// The round's caller sleeps until it is woken. It doesn't park: for a thread that isn't Rust's own,
    /// `thread::current` allocates what nobody frees.
    sleeps: AtomicBool,
    falls_asleep: Mutex<()>,
    wake: Condvar,
    /// The first panic of the round.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Alone in its cache lines, which some processors fetch in pairs.
#[repr(align(128))]
struct CacheAligned<T>(T);

// SAFETY: `task` is written and read by turns only, as its comment says, and may be called from any
// thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Pool {
    /// So many threads, of which the caller's is one; 0 is taken as 1. An error where the system refuses one.
    pub fn new(threads: usize) -> io::Result<Pool> {
        let shared = Arc::new(Shared {
            round: CacheAligned(Round { task: UnsafeCell::new(None), unclaimed: AtomicUsize::new(0) }),
            done: CacheAligned(AtomicUsize::new(0)),
            caller: CacheAligned(Caller {
                busy: AtomicBool::new(false),
                sleeps: AtomicBool::new(false),
                falls_asleep: Mutex::new(()),
                wake: Condvar::new(),
                panic: Mutex::new(None),
            }),
            ended: AtomicBool::new(false),
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

// SAFETY: the caller keeps the last task, and others are claimed by taking one off `unclaimed`, so no two threads have the
// same; `run` returns when all are done.
unsafe impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        let CacheAligned(caller) = &shared.caller;
        if tasks < 2 || self.workers.is_empty() || caller.busy.swap(true, Ordering::Acquire) {
            return (0..tasks).for_each(task);
        }
        let done_before = shared.done.0.load(Ordering::Relaxed);
        // SAFETY: only the lifetime changes. The pointer is followed by threads that have claimed a task and
        // not finished it, and this function returns when there are none.
        let pointer = unsafe { mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task) };
        // SAFETY: this thread set `busy`, and no task is under way: no other thread writes or reads.
        unsafe { *shared.round.0.task.get() = Some(pointer) };
        // Publishes the line above to whoever claims a task.
        shared.round.0.unclaimed.store(tasks - 1, Ordering::Release);
        for worker in self.workers.iter().take(tasks - 1) {
            worker.thread().unpark();
        }
        shared.call(task, tasks - 1);
        let mut own = 1;
        while shared.claim_and_call() {
            own += 1;
        }
        shared.wait_for_workers(done_before.wrapping_add(tasks - own));
        let panic = caller.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        caller.busy.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn give_way(&self) {
        thread::yield_now();
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self) {
        let ended = || self.ended.load(Ordering::Acquire);
        while !ended() {
            while self.claim_and_call() {
                self.done.0.fetch_add(1, Ordering::SeqCst);
                // Waking costs a call of the system, which a caller that spins doesn't need. One that is about to sleep
                // looks at `done` after it has said so, in the one order that all threads see.
                let CacheAligned(caller) = &self.caller;
                if caller.sleeps.load(Ordering::SeqCst) {
                    drop(caller.falls_asleep.lock());
                    caller.wake.notify_one();
                }
            }
            let news = || self.round.0.unclaimed.load(Ordering::Relaxed) > 0 || ended();
            // Whoever has news calls `unpark` after making it, so that a thread which has just looked in vain
            // doesn't sleep on.
            while !spin(news) {
                thread::park();
            }
        }
    }

    /// Returns when workers have done so many tasks.
    fn wait_for_workers(&self, tasks: usize) {
        let finished = || self.done.0.load(Ordering::SeqCst) == tasks;
        if spin(finished) {
            return;
        }
        let CacheAligned(caller) = &self.caller;
        let mut asleep = caller.falls_asleep.lock().unwrap_or_else(PoisonError::into_inner);
        caller.sleeps.store(true, Ordering::SeqCst);
        while !finished() {
            asleep = caller.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        caller.sleeps.store(false, Ordering::Relaxed);
    }

    /// Claims a task and calls it; `false` where all are claimed.
    fn claim_and_call(&self) -> bool {
        let claim = |unclaimed: usize| unclaimed.checked_sub(1);
        let Ok(unclaimed) = self.round.0.unclaimed.fetch_update(Ordering::Acquire, Ordering::Relaxed, claim)
        else {
            return false;
        };
        // SAFETY: until this thread says that its task is done, the round isn't over and nobody writes; `unclaimed` was
        // stored after the task, and acquired here.
        let Some(task) = (unsafe { *self.round.0.task.get() }) else { return false };
        // SAFETY: as above, the call of `run` that lent the task hasn't returned.
        self.call(unsafe { &*task }, unclaimed - 1);
        true
    }

    /// Calls a task, and keeps its panic.
    fn call(&self, task: &(dyn Fn(usize) + Sync), index: usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(index))) {
            self.caller.0.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
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
