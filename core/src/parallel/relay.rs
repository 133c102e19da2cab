//! A relay: workers process one buffer one behind the other, as in a relay race, and each adds to the sums of the
//! workers before it.
//!
//! The buffer is the track, which workers run from its end to its beginning. A worker adds to a piece as soon as the
//! worker before it has passed that piece. So every element receives the workers' contributions in the order of the
//! workers, while all of them run at once.

use core::array;
use core::ops::Range;

use super::sync::{AtomicUsize, Ordering, spin_loop};
use super::{Compute, Parallel, PerUnit, Share, Shared, Units};

/// The most workers in a relay.
pub(crate) const MOST_TURNS: usize = if cfg!(loom) { 4 } else { 64 };

/// The number of times that a worker checks whether it may continue before it lets other threads run: some hundred
/// microseconds.
const SPINS: usize = if cfg!(loom) { 0 } else { 20_000 };

/// A worker's progress. It has its own pair of cache lines, because some processors fetch lines in pairs.
#[repr(align(128))]
struct Progress {
    /// The elements of the buffer, from its beginning, that the worker has not passed.
    left: AtomicUsize,
    /// The matrix at their end: its beginning, its columns, and the number of finished columns.
    first: AtomicUsize,
    columns: AtomicUsize,
    done: AtomicUsize,
}

impl Progress {
    fn of(left: usize) -> Progress {
        let [left, first, columns, done] = [left, usize::MAX, 0, 0].map(AtomicUsize::new);
        Progress { left, first, columns, done }
    }

    /// Whether the worker has finished that many columns of the matrix that begins at `first`.
    fn has_done(&self, done: usize, columns: usize, first: usize) -> bool {
        // The reads must be in this order. Only one matrix begins at `first`, and `done` is 0 again before `first` is
        // stored. So `done` counts columns of that matrix, or of a later one if that matrix is already finished. The
        // end of the matrix does not matter: everything behind it is finished.
        self.left.load(Ordering::Acquire) <= first
            || self.first.load(Ordering::Acquire) == first
                && self.done.load(Ordering::Acquire) >= done
                && self.columns.load(Ordering::Acquire) == columns
    }
}

/// One worker's turn: its way through the buffer, from the end to the beginning.
pub(crate) struct Turn<'a> {
    buffer: Shared,
    left: usize,
    own: &'a Progress,
    /// The progress of the worker before, if there is one.
    before: Option<&'a Progress>,
    parallel: &'a dyn Parallel,
}

impl Turn<'_> {
    /// Whether this is the first worker.
    pub fn is_first(&self) -> bool {
        self.before.is_none()
    }

    /// Calls `task` with the last `len` of the remaining elements (or all of them, if they are fewer), as soon as the
    /// worker before has passed them.
    pub fn last(&mut self, len: usize, task: impl FnOnce(&mut [f32])) {
        let first = self.left.saturating_sub(len);
        self.wait(|before| before.left.load(Ordering::Acquire) <= first);
        #[expect(unsafe_code, reason = "workers touch parts of one buffer by turns")]
        // SAFETY: the elements are within the buffer, which is borrowed for as long as all turns, because `left`
        // began with its length. All workers before have passed `first` and never return: each reports that after the
        // one before it. The workers behind wait for this one.
        task(unsafe { core::slice::from_raw_parts_mut(self.buffer.pointer().add(first), self.left - first) });
        self.leave(first);
    }

    /// Calls `task` with the matrix `[rows, columns]` at the end of the remaining elements, and with a range of at
    /// most `at_once` columns. Each range follows the one before it, as soon as the worker before has finished it.
    /// Nothing happens if fewer elements remain, or if the matrix is empty.
    pub fn last_by_columns(
        &mut self,
        [rows, columns]: [usize; 2],
        at_once: usize,
        mut task: impl FnMut(*mut f32, Range<usize>),
    ) {
        let len = rows.checked_mul(columns).filter(|len| *len > 0);
        let Some(first) = len.and_then(|len| self.left.checked_sub(len)) else { return };
        self.own.first.store(first, Ordering::Release);
        self.own.columns.store(columns, Ordering::Release);
        let mut done = 0;
        while done < columns {
            let end = columns.min(done + at_once.max(1));
            self.wait(|before| before.has_done(end, columns, first));
            task(self.buffer.pointer().wrapping_add(first), done..end);
            self.own.done.store(end, Ordering::Release);
            done = end;
        }
        self.leave(first);
    }

    /// Reports that the worker has passed `first`.
    fn leave(&mut self, first: usize) {
        self.left = first;
        self.own.done.store(0, Ordering::Relaxed);
        self.own.left.store(first, Ordering::Release);
    }

    fn wait(&self, until: impl Fn(&Progress) -> bool) {
        let Some(before) = self.before else { return };
        let mut spins = 0;
        while !until(before) {
            if spins < SPINS {
                spins += 1;
                spin_loop();
            } else {
                self.parallel.give_way();
            }
        }
    }
}

impl Drop for Turn<'_> {
    /// Passes the rest without changing it.
    fn drop(&mut self) {
        self.wait(|before| before.left.load(Ordering::Acquire) == 0);
        self.leave(0);
    }
}

impl Compute<'_> {
    /// As [`Compute::split`], on this many workers, and each also gets a turn through the whole of `buffer`. There
    /// are at most [`MOST_TURNS`] workers, and only as many as have scratch.
    pub(crate) fn relay<const N: usize>(
        &self,
        workers: usize,
        buffers: &[Units<'_>; N],
        scratch: PerUnit<'_>,
        buffer: &mut [f32],
        task: impl Fn(Share, [&mut [f32]; N], &mut [f32], Turn<'_>) + Sync,
    ) {
        let progress: [Progress; MOST_TURNS] = array::from_fn(|_| Progress::of(buffer.len()));
        let (begun, left, buffer) = (AtomicUsize::new(0), buffer.len(), Shared(buffer.as_mut_ptr()));
        self.run_on(workers.min(MOST_TURNS), buffers, scratch, &|share: Share, scratch: &mut [f32]| {
            // Turns are numbered in the order in which tasks begin, so that none waits for a task that has not begun.
            let worker = begun.fetch_add(1, Ordering::Relaxed);
            let Some(own) = progress.get(worker).filter(|_| worker < share.workers) else { return };
            let before = worker.checked_sub(1).and_then(|before| progress.get(before));
            let turn = Turn { buffer, left, own, before, parallel: self.parallel };
            let share = Share { worker, ..share };
            #[expect(unsafe_code, reason = "workers touch disjoint parts")]
            // SAFETY: no two tasks have the same `worker`. The buffers are borrowed, and `run` has checked their
            // lengths.
            task(share, buffers.each_ref().map(|buffer| unsafe { buffer.part(share) }), scratch, turn);
        });
    }
}

#[cfg(all(loom, test))]
mod interleavings;
#[cfg(all(not(loom), test))]
mod tests;
