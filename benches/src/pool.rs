//! Threads for [`jostle::Parallel`]: they wait for work by spinning a moment, because the next fork of a step is
//! mostly microseconds away, and sleep after that.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use jostle::Parallel;

/// Looks for work before a thread sleeps or yields: some tens of microseconds.
const SPINS: usize = 2_000;

/// What a fork runs. Only [`Pool::run`] makes one, and takes it back before it returns.
#[derive(Clone, Copy)]
struct Job {
    task: &'static (dyn Fn(usize) + Sync),
    tasks: usize,
}

#[derive(Default)]
struct State {
    /// The fork under way. A worker takes part only if it finds one here, and is counted in `active` before
    /// the lock is released.
    job: Mutex<Option<Job>>,
    /// Workers inside the fork under way.
    active: AtomicUsize,
    /// The next index to run.
    next: AtomicUsize,
    /// Counts forks, so that waiting threads see a new one without the lock.
    forks: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

impl State {
    fn job(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs indices until none is left.
    fn take_part(&self, job: Job) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= job.tasks {
                return;
            }
            (job.task)(i);
        }
    }

    /// The fork under way, and the proof of having entered it.
    fn enter(&self) -> Option<(Job, Leave<'_>)> {
        let job = self.job();
        let entered = (*job)?;
        self.active.fetch_add(1, Ordering::Relaxed);
        Some((entered, Leave(self)))
    }

    fn work(&self) {
        let mut seen = 0;
        while !self.stop.load(Ordering::Acquire) {
            let mut spins = 0;
            while self.forks.load(Ordering::Acquire) == seen && !self.stop.load(Ordering::Acquire) {
                spins += 1;
                if spins < SPINS { spin_loop() } else { thread::park() }
            }
            seen = self.forks.load(Ordering::Acquire);
            if let Some((job, _inside)) = self.enter() {
                self.take_part(job);
            }
        }
    }
}

/// Counts a worker out of a fork, after a panic too.
struct Leave<'a>(&'a State);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.panicked.store(true, Ordering::Relaxed);
        }
        self.0.active.fetch_sub(1, Ordering::Release);
    }
}

/// Ends a fork, after a panic too: no worker can enter any more, and all inside have left.
struct Join<'a>(&'a State);

impl Drop for Join<'_> {
    fn drop(&mut self) {
        *self.0.job() = None;
        let mut spins = 0;
        while self.0.active.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS { spin_loop() } else { thread::yield_now() }
        }
    }
}

/// A number of threads, the caller's own among them.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a fork. A fork inside a fork, or from a second thread, runs serially instead.
    forking: Mutex<()>,
}

impl Pool {
    /// Starts `threads - 1` threads.
    pub fn new(threads: usize) -> Pool {
        let state = Arc::new(State::default());
        let workers = (1..threads)
            .map(|_| {
                let state = Arc::clone(&state);
                thread::spawn(move || state.work())
            })
            .collect();
        Pool { state, workers, forking: Mutex::new(()) }
    }
}

impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let guard = self.forking.try_lock();
        if tasks < 2 || self.workers.is_empty() || guard.is_err() {
            return (0..tasks).for_each(task);
        }
        // SAFETY: the reference is used by this thread and by workers inside the fork. `Join` is dropped before
        // this function returns or unwinds; it takes the job away and waits until no worker is inside, and a
        // worker that comes later finds no job.
        let task =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        let job = Job { task, tasks };
        let state = &*self.state;
        state.next.store(0, Ordering::Relaxed);
        *state.job() = Some(job);
        let join = Join(state);
        state.forks.fetch_add(1, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        state.take_part(job);
        drop(join);
        assert!(!state.panicked.load(Ordering::Relaxed), "a task panicked on another thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panic was reported by the fork in which it happened.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_runs_once_in_every_fork() {
        let pool = Pool::new(3);
        for tasks in 0..40 {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                    pool.run(2, &|_| {});
                });
            }
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 50));
        }
    }
}
