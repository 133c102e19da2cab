//! Threads that a host lends, and the division of work and buffers among them. Knows nothing of models, and creates
//! no thread.

#[cfg(not(target_os = "none"))]
mod relay;
#[cfg(not(target_os = "none"))]
mod sync;

use core::hint;
use core::marker::PhantomData;
use core::ops::Range;

use crate::fault;
use crate::simd::InstructionSet;
#[cfg(not(target_os = "none"))]
pub(crate) use relay::{MOST_TURNS, Turn};

/// The threads of a host: fork, index, join.
///
/// # Safety
/// [`Parallel::run`] calls the task at most once for each index, and never with an index outside `0..tasks`. All
/// calls have ended when it returns. Each index stands for a part of a buffer that belongs to it alone.
#[expect(unsafe_code, reason = "the trait is a promise")]
pub unsafe trait Parallel: Sync {
    /// The number of calls of a task that may run at once; at least 1.
    fn threads(&self) -> usize;

    /// Calls `task(i)` once for every `i` in `0..tasks`, in any order and on any threads, and returns when all calls
    /// have ended. A call may wait for calls that have begun before it, and only for those.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));

    /// Lets other threads run. A task calls it when it has waited for another task for long: there may be fewer
    /// processors than threads. Hosts whose threads don't take turns by themselves (fibers, unequal real-time
    /// priorities) must implement it.
    fn give_way(&self) {
        hint::spin_loop();
    }
}

/// No other threads: the caller's thread does everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

// SAFETY: one call for each index, one after the other.
#[expect(unsafe_code, reason = "the trait is a promise")]
unsafe impl Parallel for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        for i in 0..tasks {
            task(i);
        }
    }
}

/// Multiply-adds (or as much other work) below which a fork costs more than it gains.
const WORTH_A_FORK: usize = 50_000;

/// The most workers, so that the square of their number does not overflow in [`share`].
const MOST_WORKERS: usize = 1 << 15;

/// The number of multiply-adds that take as long as an operation on one element: an exponential, or a division and a
/// root.
pub(crate) const ELEMENTWISE: usize = 16;

/// The means of computing: the instruction set and the threads.
#[derive(Clone, Copy)]
pub struct Compute<'a> {
    /// The vector instructions to use.
    pub simd: InstructionSet,
    /// The threads to use.
    pub parallel: &'a dyn Parallel,
}

impl Compute<'static> {
    /// The best instruction set of this processor, on the caller's thread alone.
    pub fn serial() -> Compute<'static> {
        Compute { simd: InstructionSet::detect(), parallel: &Serial }
    }
}

/// A buffer, and the number of its elements in one unit of work.
pub(crate) type PerUnit<'a> = (&'a mut [f32], usize);

/// A pointer that workers share, because each touches a part of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub *mut f32);
#[expect(unsafe_code, reason = "workers touch disjoint parts")]
// SAFETY: every use derives ranges from distinct worker indices, so no two threads touch one element.
unsafe impl Sync for Shared {}
#[expect(unsafe_code, reason = "workers touch disjoint parts")]
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    pub fn pointer(self) -> *mut f32 {
        self.0
    }
}

impl Compute<'_> {
    /// The number of workers for `units` units with this much work in all, given scratch for at most `most`.
    pub(crate) fn workers(&self, units: usize, work: usize, most: usize) -> usize {
        if work < WORTH_A_FORK {
            return 1;
        }
        self.parallel.threads().min(units).min(most).clamp(1, MOST_WORKERS)
    }

    /// Divides the units of every buffer, and the scratch, into one part per worker. Runs `task(share, buffers,
    /// scratch)` for each.
    ///
    /// `work` is the sum of multiply-adds, `worker_scratch` the scratch that one worker needs.
    pub(crate) fn split<const N: usize>(
        &self,
        work: usize,
        buffers: &[Units<'_>; N],
        (scratch, worker_scratch): PerUnit<'_>,
        task: impl Fn(Share, [&mut [f32]; N], &mut [f32]) + Sync,
    ) {
        self.run(work, buffers, (scratch, worker_scratch), &|share: Share, scratch: &mut [f32]| {
            #[expect(unsafe_code, reason = "workers touch disjoint parts")]
            // SAFETY: each share is used once, while the buffers are borrowed. Their lengths were checked.
            task(share, buffers.each_ref().map(|buffer| unsafe { buffer.part(share) }), scratch);
        });
    }

    /// As [`Compute::split`], for buffers in pairs.
    pub(crate) fn split_pairs<const N: usize>(
        &self,
        work: usize,
        buffers: &[[Units<'_>; 2]; N],
        (scratch, worker_scratch): PerUnit<'_>,
        task: impl Fn(Share, [[&mut [f32]; 2]; N], &mut [f32]) + Sync,
    ) {
        let all = buffers.as_flattened();
        self.run(work, all, (scratch, worker_scratch), &|share: Share, scratch: &mut [f32]| {
            let parts = buffers.each_ref().map(|pair| {
                #[expect(unsafe_code, reason = "workers touch disjoint parts")]
                // SAFETY: each share is used once, while the buffers are borrowed. Their lengths were checked.
                pair.each_ref().map(|buffer| unsafe { buffer.part(share) })
            });
            task(share, parts, scratch);
        });
    }

    /// Runs a task on as many workers as the work is worth.
    #[inline(never)]
    fn run(
        &self,
        work: usize,
        buffers: &[Units<'_>],
        (scratch, worker_scratch): PerUnit<'_>,
        task: &dyn Task,
    ) {
        let units = buffers.iter().map(|buffer| buffer.units).max().unwrap_or(0);
        let most = scratch.len().checked_div(worker_scratch).unwrap_or(usize::MAX);
        self.run_on(self.workers(units, work, most), buffers, (scratch, worker_scratch), task);
    }

    /// Runs a task for each worker, with its part of the scratch. Does nothing if a buffer is shorter than its units,
    /// or the scratch too short. This is the only function that forks.
    fn run_on(
        &self,
        workers: usize,
        buffers: &[Units<'_>],
        (scratch, worker_scratch): PerUnit<'_>,
        task: &dyn Task,
    ) {
        let short = |buffer: &Units<'_>| buffer.len < buffer.units.saturating_mul(buffer.per);
        if buffers.iter().any(short) || workers > 1 && scratch.len() / workers < worker_scratch {
            fault::report(&"buffers of workers");
            return;
        }
        if workers <= 1 {
            return task.run(Share { worker: 0, workers: 1 }, scratch);
        }
        let scratch = Shared(scratch.as_mut_ptr());
        self.parallel.run(workers, &|worker| {
            #[expect(unsafe_code, reason = "workers touch disjoint parts")]
            // SAFETY: the scratch has a part for each worker. `run` calls each index once and returns before the
            // borrow ends.
            let scratch = unsafe {
                core::slice::from_raw_parts_mut(
                    scratch.pointer().add(worker * worker_scratch),
                    worker_scratch,
                )
            };
            task.run(Share { worker, workers }, scratch);
        });
    }
}

/// The work of each worker. It is a trait of its own, because a `dyn Fn` adds two copies of the function that nobody
/// calls.
trait Task: Sync {
    fn run(&self, share: Share, scratch: &mut [f32]);
}

impl<F: Fn(Share, &mut [f32]) + Sync> Task for F {
    fn run(&self, share: Share, scratch: &mut [f32]) {
        self(share, scratch);
    }
}

/// A buffer to divide, with the number of its units and their length. It is made once and passed by reference,
/// because the largest arrays of them have hundreds of bytes.
pub(crate) struct Units<'a> {
    start: Shared,
    len: usize,
    units: usize,
    per: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

impl<'a> Units<'a> {
    pub fn new(buffer: &'a mut [f32], units: usize, per: usize) -> Units<'a> {
        Units { start: Shared(buffer.as_mut_ptr()), len: buffer.len(), units, per, buffer: PhantomData }
    }

    /// Rows of `columns` elements, to be cut by [`Units::cut_rows`].
    pub fn rows(buffer: &'a mut [f32], columns: usize) -> Units<'a> {
        Units::new(buffer, 0, columns)
    }

    /// Makes units of `rows` rows each. They are empty if the buffer is.
    #[inline(never)]
    pub fn cut_rows(buffers: &mut [Units<'_>], units: usize, rows: usize) {
        for buffer in buffers {
            let per = if buffer.len == 0 { 0 } else { buffer.per * rows };
            (buffer.units, buffer.per) = (units, per);
        }
    }

    /// The part of a share. A single worker gets the whole buffer, which may be longer than its units.
    ///
    /// # Safety
    /// The buffer must hold its units and be borrowed for as long as the part. No share may be requested twice.
    #[expect(unsafe_code, reason = "workers touch disjoint parts")]
    #[inline(never)]
    unsafe fn part(&self, share: Share) -> &'a mut [f32] {
        let range = share.of(self.units);
        let (first, len) = match share.workers {
            1 => (0, self.len),
            _ => (range.start * self.per, (range.end - range.start) * self.per),
        };
        // SAFETY: shares of distinct workers are disjoint and lie within `units`.
        unsafe { core::slice::from_raw_parts_mut(self.start.pointer().add(first), len) }
    }
}

/// One worker's share of any number of units.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    worker: usize,
    workers: usize,
}

impl Share {
    /// The part of `0..units`.
    pub(crate) fn of(self, units: usize) -> Range<usize> {
        share(units, self.workers, self.worker)
    }
}

/// The part of `0..units` that falls to one of `workers`; the parts differ by at most one unit.
#[inline(never)]
pub(crate) fn share(units: usize, workers: usize, worker: usize) -> Range<usize> {
    let workers = workers.max(1);
    let (whole, rest) = (units / workers, units % workers);
    let bound = |w: usize| whole * w.min(workers) + rest * w.min(workers) / workers;
    bound(worker)..bound(worker.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::test_common::{Random, Threads};

    #[test]
    fn shares_are_disjoint_even_and_cover_everything() {
        let mut random = Random::new(51);
        let mut cases = vec![(0, 1), (1, 1), (1, 5), (5, 1), (usize::MAX >> 8, 64)];
        cases.extend((0..200).flat_map(|units| (1..20).map(move |workers| (units, workers))));
        cases.extend((0..1000).map(|_| (random.size(0, usize::MAX >> 24), random.size(1, 1000))));
        for (units, workers) in cases {
            let mut end = 0;
            for worker in 0..workers {
                let range = share(units, workers, worker);
                assert_eq!(range.start, end, "{units} {workers} {worker}");
                assert!(range.end >= range.start);
                let length = range.end - range.start;
                assert!(length == units / workers || length == units / workers + 1);
                end = range.end;
            }
            assert_eq!(end, units);
            assert!(share(units, workers, workers).is_empty());
        }
    }

    #[test]
    fn no_more_workers_than_threads_units_or_scratch_and_one_for_little_work() {
        let threads = Threads(4);
        let compute = Compute { simd: InstructionSet::PORTABLE, parallel: &threads };
        let much = WORTH_A_FORK;
        for (units, work, most, wanted) in [
            (100, much, 100, 4),
            (3, much, 100, 3),
            (100, much, 2, 2),
            (100, much - 1, 100, 1),
            (0, much, 100, 1),
            (100, much, 0, 1),
        ] {
            assert_eq!(compute.workers(units, work, most), wanted);
        }
    }

    #[test]
    fn split_gives_each_unit_its_parts_once() {
        for (threads, units, work) in
            [(1, 10, WORTH_A_FORK), (3, 10, WORTH_A_FORK), (5, 3, WORTH_A_FORK), (4, 7, 1)]
        {
            let pool = Threads(threads);
            let compute = Compute { simd: InstructionSet::PORTABLE, parallel: &pool };
            // A unit has two elements of one buffer and three of another. Both buffers are longer than needed.
            let (mut two, mut three) = (vec![0.0; 2 * units + 1], vec![0.0; 3 * units + 2]);
            let mut scratch = vec![0.0; 4 * threads];
            let buffers = [Units::new(&mut two, units, 2), Units::new(&mut three, units, 3)];
            compute.split(work, &buffers, (&mut scratch, 4), |share, [two, three], scratch| {
                assert!(scratch.len() >= 4);
                scratch.iter_mut().for_each(|x| *x += 1.0);
                for (i, unit) in share.of(units).enumerate() {
                    two[2 * i..2 * i + 2].iter_mut().for_each(|x| *x += unit as f32 + 1.0);
                    three[3 * i..3 * i + 3].iter_mut().for_each(|x| *x += unit as f32 + 1.0);
                }
            });
            for (buffer, per) in [(&two, 2), (&three, 3)] {
                for (i, x) in buffer.iter().enumerate() {
                    let wanted = if i / per < units { (i / per) as f32 + 1.0 } else { 0.0 };
                    assert_eq!(*x, wanted, "{threads} threads, element {i}");
                }
            }
            assert!(scratch.iter().all(|x| *x <= 1.0));
        }
    }
}
