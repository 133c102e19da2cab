//! A buffer that workers go through one behind the other, each adding to what those before it have left there.

use core::array;
use core::hint;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Compute, Parallel, PerUnit, Share, Shared, Units};

/// How many workers can go one behind the other.
pub(crate) const MOST_LEGS: usize = 64;

/// How often a worker looks whether it may go on before it lets other threads run: longer than a part takes.
const SPINS: usize = 20_000;

/// How far a worker has come. Alone in its cache lines, which some processors fetch in pairs.
#[repr(align(128))]
struct Progress {
    /// Elements of the buffer that it has not done with.
    left: AtomicUsize,
    /// Columns that it has done with of the matrix that these end with, and how many that has.
    done: AtomicUsize,
    columns: AtomicUsize,
}

/// One worker's way through the buffer, from its end to its beginning.
pub(crate) struct Leg<'a> {
    buffer: Shared,
    left: usize,
    own: &'a Progress,
    /// Of the worker before, if there is one.
    before: Option<&'a Progress>,
    parallel: &'a dyn Parallel,
}

impl Leg<'_> {
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
        // SAFETY: of the buffer, borrowed for as long as all legs, whose length `left` began with. Workers before have done
        // with what is behind `first`, since each says so after the one before it, and never comes back; those behind wait
        // for this one.
        task(unsafe { core::slice::from_raw_parts_mut(self.buffer.pointer().add(first), self.left - first) });
        self.leave(first);
    }

    /// Calls `task` with a matrix `[rows, columns]`, the last of what is left, and some columns, `at_once` at most, that are
    /// its own: with one range after the other, when the worker before has done with it. Nothing happens where so much isn't
    /// left.
    pub fn last_by_columns(
        &mut self,
        [rows, columns]: [usize; 2],
        at_once: usize,
        mut task: impl FnMut(*mut f32, Range<usize>),
    ) {
        let Some(first) = rows.checked_mul(columns).and_then(|len| self.left.checked_sub(len)) else {
            return;
        };
        self.own.columns.store(columns, Ordering::Relaxed);
        let mut done = 0;
        while done < columns {
            let end = columns.min(done + at_once.max(1));
            self.wait(|before| {
                // In this order: a worker that begins with a matrix has done with none of its columns.
                let left = before.left.load(Ordering::Acquire);
                let done = before.done.load(Ordering::Acquire);
                let same = left == self.left && before.columns.load(Ordering::Relaxed) == columns;
                left <= first || same && done >= end
            });
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

impl Drop for Leg<'_> {
    /// Leaves the rest as it is.
    fn drop(&mut self) {
        self.wait(|before| before.left.load(Ordering::Acquire) == 0);
        self.leave(0);
    }
}

impl Compute<'_> {
    /// As [`Compute::split`], on so many workers: each has a way through the whole of `buffer`, too. At most [`MOST_LEGS`], and as
    /// many as have scratch.
    pub(crate) fn relay<const N: usize>(
        &self,
        workers: usize,
        buffers: &[Units<'_>; N],
        scratch: PerUnit<'_>,
        buffer: &mut [f32],
        task: impl Fn(Share, [&mut [f32]; N], &mut [f32], Leg<'_>) + Sync,
    ) {
        let progress = |_| Progress {
            left: AtomicUsize::new(buffer.len()),
            done: AtomicUsize::new(0),
            columns: AtomicUsize::new(0),
        };
        let progress: [Progress; MOST_LEGS] = array::from_fn(progress);
        let (begun, left, buffer) = (AtomicUsize::new(0), buffer.len(), Shared(buffer.as_mut_ptr()));
        self.run_on(workers.min(MOST_LEGS), buffers, scratch, &|share: Share, scratch: &mut [f32]| {
            // In the order in which they begin, so that none waits for one that hasn't.
            let worker = begun.fetch_add(1, Ordering::Relaxed);
            let Some(own) = progress.get(worker).filter(|_| worker < share.workers) else { return };
            let before = worker.checked_sub(1).and_then(|before| progress.get(before));
            let leg = Leg { buffer, left, own, before, parallel: self.parallel };
            let share = Share { worker, ..share };
            #[expect(unsafe_code, reason = "workers touch disjoint parts")]
            // SAFETY: no two have the same `worker`; the buffers are borrowed, and `run` has checked their lengths.
            task(share, buffers.each_ref().map(|buffer| unsafe { buffer.part(share) }), scratch, leg);
        });
    }
}
