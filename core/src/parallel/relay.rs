//! A buffer that workers go through one behind the other, each adding to what those before it have left there.

use core::array;
use core::hint;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Compute, Parallel, PerUnit, Share, Shared, Units};

/// How many workers can go one behind the other.
pub(crate) const MOST_LEGS: usize = 64;

/// How often a worker looks whether it may go on before it lets other threads run: longer than a part takes.
const SPINS: usize = 20_000;

/// How many elements of the buffer a worker has not come to. Alone in its cache lines, which some processors fetch in pairs.
#[repr(align(128))]
struct Left(AtomicUsize);

/// One worker's way through the buffer, from its end to its beginning.
pub(crate) struct Leg<'a> {
    buffer: Shared,
    left: usize,
    own: &'a Left,
    /// Of the worker before, if there is one.
    before: Option<&'a Left>,
    parallel: &'a dyn Parallel,
}

impl Leg<'_> {
    /// Whether no worker goes before.
    pub fn is_first(&self) -> bool {
        self.before.is_none()
    }

    /// Calls `task` with the last `len` elements of what is left (with all of it, if it is less), when the worker before has
    /// done so.
    pub fn last(&mut self, len: usize, task: impl FnOnce(&mut [f32])) {
        let first = self.left.saturating_sub(len);
        self.wait(first);
        #[expect(unsafe_code, reason = "workers touch parts of one buffer by turns")]
        // SAFETY: of the buffer, borrowed for as long as all legs, whose length `left` began with. Workers before have done
        // with what is behind `first`, since each says so after the one before it, and never comes back; those behind wait
        // for this one.
        task(unsafe { core::slice::from_raw_parts_mut(self.buffer.pointer().add(first), self.left - first) });
        self.left = first;
        self.own.0.store(first, Ordering::Release);
    }

    /// Until the worker before has no more than so many elements left.
    fn wait(&self, first: usize) {
        let Some(Left(before)) = self.before else { return };
        let mut spins = 0;
        while before.load(Ordering::Acquire) > first {
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
        self.wait(0);
        self.own.0.store(0, Ordering::Release);
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
        let lefts: [Left; MOST_LEGS] = array::from_fn(|_| Left(AtomicUsize::new(buffer.len())));
        let (begun, left, buffer) = (AtomicUsize::new(0), buffer.len(), Shared(buffer.as_mut_ptr()));
        self.run_on(workers.min(MOST_LEGS), buffers, scratch, &|share: Share, scratch: &mut [f32]| {
            // In the order in which they begin, so that none waits for one that hasn't.
            let worker = begun.fetch_add(1, Ordering::Relaxed);
            let Some(own) = lefts.get(worker).filter(|_| worker < share.workers) else { return };
            let before = worker.checked_sub(1).and_then(|before| lefts.get(before));
            let leg = Leg { buffer, left, own, before, parallel: self.parallel };
            let share = Share { worker, ..share };
            #[expect(unsafe_code, reason = "workers touch disjoint parts")]
            // SAFETY: no two have the same `worker`; the buffers are borrowed, and `run` has checked their lengths.
            task(share, buffers.each_ref().map(|buffer| unsafe { buffer.part(share) }), scratch, leg);
        });
    }
}
