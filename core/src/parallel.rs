//! How a host lends threads, and how work and buffers are cut for them. Knows nothing of models; creates
//! no thread.

use core::ops::Range;

use crate::simd::InstructionSet;

/// A host's threads: fork, index, join.
pub trait Parallel: Sync {
    /// How many calls of a task may run at once; at least 1.
    fn threads(&self) -> usize;

    /// Calls `task(i)` once for every `i` in `0..tasks`, in any order and on any threads, and returns when
    /// all of them have.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// No other threads: the caller's own does everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Parallel for Serial {
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

/// What computes: the instruction set, and the threads.
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

/// A buffer to cut, and how many of its elements belong to one unit of work.
pub(crate) type PerUnit<'a> = (&'a mut [f32], usize);

/// A pointer that workers share because each touches a part of its own.
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
    /// Workers for so many units with so much work in all, given scratch for at most `most`.
    pub(crate) fn workers(&self, units: usize, work: usize, most: usize) -> usize {
        if work < WORTH_A_FORK { 1 } else { self.parallel.threads().min(units).min(most).max(1) }
    }

    /// Cuts `units` of work, every buffer along with them, and the scratch into one part per worker, and
    /// runs `task(units of this part, buffers, scratch)` for each.
    ///
    /// `work` is the sum of multiply-adds; `worker_scratch` the scratch that one worker needs.
    pub(crate) fn split<const N: usize>(
        &self,
        units: usize,
        work: usize,
        buffers: [PerUnit<'_>; N],
        (scratch, worker_scratch): PerUnit<'_>,
        task: impl Fn(Range<usize>, [&mut [f32]; N], &mut [f32]) + Sync,
    ) {
        let most = scratch.len().checked_div(worker_scratch).unwrap_or(usize::MAX);
        let workers = self.workers(units, work, most);
        if workers == 1 {
            return task(0..units, buffers.map(|(buffer, _)| buffer), scratch);
        }
        if buffers.iter().any(|(buffer, per)| buffer.len() < units.saturating_mul(*per)) {
            debug_assert!(false, "a buffer is shorter than its units");
            return;
        }
        let buffers = buffers.map(|(buffer, per)| (Shared(buffer.as_mut_ptr()), per));
        let scratch = Shared(scratch.as_mut_ptr());
        self.parallel.run(workers, &|worker| {
            let range = share(units, workers, worker);
            #[expect(unsafe_code, reason = "workers touch disjoint parts")]
            // SAFETY: shares of distinct workers are disjoint, lie within `units`, and every buffer was
            // checked to hold `units * per` elements; `run` calls each index once and returns before the
            // borrows end. The scratch holds `most >= workers` parts.
            let (parts, scratch) = unsafe {
                (
                    buffers.map(|(start, per)| {
                        let first = start.pointer().add(range.start * per);
                        core::slice::from_raw_parts_mut(first, (range.end - range.start) * per)
                    }),
                    core::slice::from_raw_parts_mut(
                        scratch.pointer().add(worker * worker_scratch),
                        worker_scratch,
                    ),
                )
            };
            task(range, parts, scratch);
        });
    }
}

/// The part of `0..units` that falls to one of `workers`; the parts differ by at most one unit.
pub(crate) fn share(units: usize, workers: usize, worker: usize) -> Range<usize> {
    let bound = |w: usize| {
        let (w, units, workers) = (w.min(workers) as u64, units as u64, workers.max(1) as u64);
        (units * w).checked_div(workers).unwrap_or(0) as usize
    };
    bound(worker)..bound(worker.saturating_add(1))
}
