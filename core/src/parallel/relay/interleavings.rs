//! All interleavings of the relay's workers, by loom (scripts/test/interleavings.sh). Each model has a bound on
//! preemptions: the number of times that a thread is interrupted where it need not wait.

use std::boxed::Box;
use std::vec::Vec;

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;
use crate::simd::InstructionSet;

/// A thread of loom's for each task but the last, which the caller does.
struct Loomed(usize);

// SAFETY: a thread for each index, joined before `run` returns.
#[expect(unsafe_code)]
unsafe impl Parallel for Loomed {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes; the threads are joined below.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { core::mem::transmute(task) };
        let threads: Vec<_> = (1..tasks).map(|i| thread::spawn(move || task(i))).collect();
        task(0);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn give_way(&self) {
        thread::yield_now();
    }
}

/// Stands for the elements of the buffer. Loom fails if two workers use one cell without an order between them.
struct Track(Box<[UnsafeCell<usize>]>);

// SAFETY: loom notices uses at once.
#[expect(unsafe_code)]
unsafe impl Sync for Track {}

impl Track {
    /// The workers pass each element in their order.
    fn pass(&self, i: usize, worker: usize) {
        #[expect(unsafe_code)]
        // SAFETY: as above.
        self.0[i].with_mut(|passed| unsafe {
            assert_eq!(*passed, worker, "element {i}");
            *passed += 1;
        });
    }
}

/// A relay of workers. `run` passes its two elements.
fn relay(workers: usize, preemptions: usize, run: fn(&mut Turn<'_>, &dyn Fn(usize))) {
    relay_without(workers, workers, preemptions, run);
}

/// A relay in which the `idle` worker passes nothing.
fn relay_without(idle: usize, workers: usize, preemptions: usize, run: fn(&mut Turn<'_>, &dyn Fn(usize))) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let threads = Loomed(workers);
        let compute = Compute { simd: InstructionSet::PORTABLE, parallel: &threads };
        let track = Track((0..2).map(|_| UnsafeCell::new(0)).collect());
        let mut buffer = [0.0; 2];
        compute.relay(workers, &[], (&mut [], 0), &mut buffer, |share, [], _, mut turn| {
            if share.worker != idle {
                run(&mut turn, &|i| track.pass(i, share.worker - usize::from(share.worker > idle)));
            }
        });
        (0..2).for_each(|i| track.pass(i, workers - usize::from(workers > idle)));
    });
}

fn piece_by_piece(turn: &mut Turn<'_>, pass: &dyn Fn(usize)) {
    turn.last(1, |_| pass(1));
    turn.last(1, |_| pass(0));
}

fn column_by_column(turn: &mut Turn<'_>, pass: &dyn Fn(usize)) {
    turn.last_by_columns([1, 2], 1, |_, columns| columns.for_each(pass));
}

#[test]
fn two_workers_pass_piece_by_piece() {
    relay(2, 3, piece_by_piece);
}

#[test]
fn three_workers_pass_piece_by_piece() {
    relay(3, 2, piece_by_piece);
}

#[test]
fn two_workers_pass_column_by_column() {
    relay(2, 3, column_by_column);
}

#[test]
fn three_workers_pass_column_by_column() {
    relay(3, 1, column_by_column);
}

#[test]
fn matrices_of_another_width_wait_for_the_end_of_the_matrix_before() {
    relay(2, 3, |turn, pass| {
        if turn.is_first() {
            turn.last_by_columns([1, 2], 1, |_, columns| columns.for_each(pass));
        } else {
            turn.last(2, |_| (0..2).for_each(pass));
        }
    });
}

#[test]
fn a_worker_that_passes_nothing_waits_all_the_same() {
    relay_without(1, 3, 2, piece_by_piece);
}

#[test]
fn the_columns_of_each_matrix_are_counted_anew() {
    relay(2, 3, |turn, pass| {
        turn.last_by_columns([1, 1], 1, |_, _| pass(1));
        turn.last_by_columns([1, 1], 1, |_, _| pass(0));
    });
}
