//! All interleavings of the pool's threads, by loom (scripts/test/interleavings.sh). Each model has a bound on
//! preemptions: the number of times that a thread is interrupted where it need not wait.

use super::*;

/// What each task touches. Loom fails if two threads use one cell without an order between them.
fn cells(count: usize) -> Vec<UnsafeCell<u32>> {
    (0..count).map(|_| UnsafeCell::new(0)).collect()
}

/// Runs this many rounds of tasks, and sees each task done once in each.
fn rounds(threads: usize, rounds: u32, tasks: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let pool = Pool::new(threads).unwrap();
        let cells = Cells(cells(tasks));
        for round in 1..=rounds {
            pool.run(tasks, &|i| cells.add(i));
            for cell in &cells.0 {
                // SAFETY: all tasks have ended.
                assert_eq!(cell.with(|count| unsafe { *count }), round);
            }
        }
    });
}

struct Cells(Vec<UnsafeCell<u32>>);

// SAFETY: loom notices uses at once.
unsafe impl Sync for Cells {}

impl Cells {
    fn add(&self, i: usize) {
        // SAFETY: as above.
        self.0[i].with_mut(|count| unsafe { *count += 1 });
    }
}

#[test]
fn two_threads_do_two_rounds() {
    rounds(2, 2, 2);
}

#[test]
fn three_threads_do_three_tasks() {
    rounds(3, 1, 3);
}

#[test]
fn two_threads_share_three_tasks() {
    rounds(2, 1, 3);
}

#[test]
fn a_pool_without_work_ends() {
    loom::model(|| drop(Pool::new(3)));
}
