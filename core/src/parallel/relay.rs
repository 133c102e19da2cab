//! A buffer that workers go through one behind the other, each adding to what those before it have left there.

use core::array;
use core::hint;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Compute, Parallel, PerUnit, Share, Shared, Units};

/// How many workers can go one behind the other.
pub(crate) const MOST_TURNS: usize = 64;

/// How often a worker looks whether it may go on before it lets other threads run: some hundred microseconds.
const SPINS: usize = 20_000;

/// How far a worker has come. Alone in its cache lines, which some processors fetch in pairs.
#[repr(align(128))]
struct Progress {
    /// Elements of the buffer that it has not done with.
    left: AtomicUsize,
    /// Of the matrix that these end with: where it begins, its columns, and how many of them are done with.
    first: AtomicUsize,
    columns: AtomicUsize,
    done: AtomicUsize,
}

impl Progress {
    fn of(left: usize) -> Progress {
        let [left, first, columns, done] = [left, usize::MAX, 0, 0].map(AtomicUsize::new);
        Progress { left, first, columns, done }
    }

    /// Whether it has done with that many columns of a matrix which begins at `first`.
    fn has_done(&self, done: usize, columns: usize, first: usize) -> bool {
        // In this order. Only one matrix begins at `first`, and none of its columns were done with before it: if some are, it
        // is that one, or that one is done with. Where it ends doesn't matter: what is behind its end is done with.
        self.left.load(Ordering::Acquire) <= first
            || self.first.load(Ordering::Acquire) == first
                && self.done.load(Ordering::Acquire) >= done
                && self.columns.load(Ordering::Acquire) == columns
    }
}

/// One worker's way through the buffer, from its end to its beginning.
pub(crate) struct Turn<'a> {
    buffer: Shared,
    left: usize,
    own: &'a Progress,
    /// Of the worker before, if there is one.
    before: Option<&'a Progress>,
    parallel: &'a dyn Parallel,
}

impl Turn<'_> {
    /// Whether no worker goes before.
    pub fn is_first(&self) -> bool {
        self.before.is_none()
    }

    /// Calls `task` with the last `len` elements of what is left (with all of it, if it is less), when the worker before has
    /// done with them.
    pub fn last(&mut self, len: usize, task: impl FnOnce(&mut [f32])) {
        let first = self.left.saturating_sub(len);
        self.wait(|before| before.left.load(Ordering::Acquire) <= first);
        #[expect(unsafe_code, reason = "workers touch parts of one buffer by turns")]
        // SAFETY: of the buffer, borrowed for as long as all turns, whose length `left` began with. Workers before have done
        // with what is behind `first`, since each says so after the one before it, and never comes back; those behind wait
        // for this one.
        task(unsafe { core::slice::from_raw_parts_mut(self.buffer.pointer().add(first), self.left - first) });
        self.leave(first);
    }

    /// Calls `task` with a matrix `[rows, columns]`, the last of what is left, and some columns, `at_once` at most, that are
    /// its own: with one range after the other, when the worker before has done with it. Nothing happens where so much isn't
    /// left, or the matrix is empty.
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

    /// What is behind `first` is done with.
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
                hint::spin_loop();
            } else {
                self.parallel.give_way();
            }
        }
    }
}

impl Drop for Turn<'_> {
    /// Leaves the rest as it is.
    fn drop(&mut self) {
        self.wait(|before| before.left.load(Ordering::Acquire) == 0);
        self.leave(0);
    }
}

impl Compute<'_> {
    /// As [`Compute::split`], on so many workers: each has a way through the whole of `buffer`, too. At most [`MOST_TURNS`], and as
    /// many as have scratch.
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
            // In the order in which they begin, so that none waits for one that hasn't.
            let worker = begun.fetch_add(1, Ordering::Relaxed);
            let Some(own) = progress.get(worker).filter(|_| worker < share.workers) else { return };
            let before = worker.checked_sub(1).and_then(|before| progress.get(before));
            let turn = Turn { buffer, left, own, before, parallel: self.parallel };
            let share = Share { worker, ..share };
            #[expect(unsafe_code, reason = "workers touch disjoint parts")]
            // SAFETY: no two have the same `worker`; the buffers are borrowed, and `run` has checked their lengths.
            task(share, buffers.each_ref().map(|buffer| unsafe { buffer.part(share) }), scratch, turn);
        });
    }
}

#[cfg(test)]
mod tests;
