//! Threads for `jostle`, which creates none itself. The pool's threads spin while steps follow each other, and sleep
//! when they do not. Knows nothing of models.

#[cfg(all(loom, test))]
mod interleavings;
mod sync;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::{io, mem, process};

use jostle::Parallel;

use sync::{
    Arc, AtomicBool, AtomicUsize, Builder, Condvar, JoinHandle, Mutex, Ordering, UnsafeCell, park, spin_loop,
    yield_now,
};

/// The number of times that a thread checks for work before it sleeps. That is longer than the time between two forks
/// of a step, and at most some hundred microseconds.
const SPINS: usize = if cfg!(loom) { 0 } else { 5_000 };

/// The thread that calls [`Parallel::run`], and the other threads of the pool.
///
/// Free threads take tasks one by one. A thread that the system holds up therefore delays only its own task, and
/// tasks that wait for it. A `run` within a task, or during another thread's `run`, does all its tasks itself. A
/// panic in a task is resumed in the thread that called `run`, after the other tasks.
///
/// After `fork`, the child process has only the calling thread, which then does all tasks.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// The process in which the workers run.
    process: u32,
}

type Task = dyn Fn(usize) + Sync;

/// The state that the threads share. A round is one call of `run`.
///
/// Each part has cache lines of its own. Waiting threads keep reading them: with all parts in one line, a round of a
/// fork and a join took twice as long.
struct Shared {
    round: CacheAligned<Round>,
    /// The number of tasks that workers have done in all rounds; it wraps around.
    done: CacheAligned<AtomicUsize>,
    caller: CacheAligned<Caller>,
    /// Whether the pool is being dropped.
    ended: AtomicBool,
}

/// The part that workers wait for.
struct Round {
    /// The round's task. The thread that holds `busy` writes it while no task is running. Threads read it between
    /// claiming a task and finishing it.
    task: UnsafeCell<Option<*const Task>>,
    /// The number of tasks of the round that no thread has claimed.
    unclaimed: AtomicUsize,
}

/// The part that workers seldom use.
struct Caller {
    /// Whether a round is running.
    busy: AtomicBool,
    /// Whether the round's caller sleeps until it is woken. It doesn't park, because `thread::current` allocates
    /// memory that is never freed if the thread is not Rust's own.
    sleeps: AtomicBool,
    falls_asleep: Mutex<()>,
    wake: Condvar,
    /// The first panic of the round.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A value with its own pair of cache lines, because some processors fetch lines in pairs.
#[repr(align(128))]
struct CacheAligned<T>(T);

// SAFETY: `task` is never written and read at once, as its comment says, and may be called from any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Pool {
    /// A pool of this many threads, including the caller's; 0 means 1. Fails if the system refuses a thread.
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
            pool.workers.push(Builder::new().spawn(move || shared.work())?);
        }
        Ok(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.process != process::id() {
            // In a forked child the workers do not exist, so they cannot be joined.
            return mem::forget(mem::take(&mut self.workers));
        }
        self.shared.ended.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Cannot fail: a worker catches its tasks' panics.
            let _ = worker.join();
        }
    }
}

// SAFETY: the caller does the last task. Others are claimed by decrementing `unclaimed`, so that no two threads have
// the same. `run` returns when all are done.
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
        // SAFETY: only the lifetime changes. Threads use the pointer only between claiming a task and finishing it,
        // and this function returns after that.
        let pointer = unsafe { mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task) };
        // SAFETY: this thread set `busy` and no task is running, so no other thread writes or reads.
        shared.round.0.task.with_mut(|task| unsafe { *task = Some(pointer) });
        // Publishes the line above to threads that claim a task.
        shared.round.0.unclaimed.store(tasks - 1, Ordering::Release);
        sync::preempt_for_loom(&shared.round.0.unclaimed);
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
        yield_now();
    }
}

impl Shared {
    /// The loop of a worker.
    fn work(&self) {
        let ended = || self.ended.load(Ordering::Acquire);
        while !ended() {
            while self.claim_and_call() {
                self.done.0.fetch_add(1, Ordering::SeqCst);
                // Waking is a system call, which a spinning caller doesn't need. A caller sets `sleeps` before it
                // checks `done` for the last time, and sequential consistency orders the two for all threads.
                let CacheAligned(caller) = &self.caller;
                sync::order_for_loom();
                if caller.sleeps.load(Ordering::SeqCst) {
                    drop(caller.falls_asleep.lock());
                    caller.wake.notify_one();
                }
            }
            let news = || self.round.0.unclaimed.load(Ordering::Relaxed) > 0 || ended();
            // The thread that publishes work calls `unpark` afterwards, so that a thread that has just found nothing
            // does not sleep on.
            while !spin(news) {
                park();
            }
        }
    }

    /// Returns when workers have done this many tasks.
    fn wait_for_workers(&self, tasks: usize) {
        let finished = || self.done.0.load(Ordering::SeqCst) == tasks;
        if spin(finished) {
            return;
        }
        let CacheAligned(caller) = &self.caller;
        let mut asleep = caller.falls_asleep.lock().unwrap_or_else(PoisonError::into_inner);
        caller.sleeps.store(true, Ordering::SeqCst);
        sync::order_for_loom();
        while !finished() {
            asleep = caller.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        caller.sleeps.store(false, Ordering::Relaxed);
    }

    /// Claims a task and calls it. Returns `false` if all are claimed.
    fn claim_and_call(&self) -> bool {
        let claim = |unclaimed: usize| unclaimed.checked_sub(1);
        let Ok(unclaimed) = self.round.0.unclaimed.fetch_update(Ordering::Acquire, Ordering::Relaxed, claim)
        else {
            return false;
        };
        // SAFETY: until this thread reports its task as done, the round isn't over and nobody writes. `unclaimed` was
        // stored after the task, and acquired here.
        let Some(task) = self.round.0.task.with(|task| unsafe { *task }) else { return false };
        // SAFETY: as above, the call of `run` that lent the task has not returned.
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

/// Checks the condition for a while. Returns whether it became true.
fn spin(condition: impl Fn() -> bool) -> bool {
    for _ in 0..SPINS {
        if condition() {
            return true;
        }
        spin_loop();
    }
    condition()
}
