//! The threads that examples, tests and benches lend to the core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use jostle::Parallel;
use jostle_pool::Pool;

/// Runs tasks that write to the caller's stack, and counts the calls of each.
fn check(pool: &Pool, tasks: usize) {
    let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    pool.run(tasks, &|i| {
        counts[i].fetch_add(1, Ordering::Relaxed);
    });
    assert!(counts.into_iter().all(|count| count.into_inner() == 1));
}

#[test]
fn every_task_runs_once_and_before_run_returns() {
    for threads in [0, 1, 2, 3, 8] {
        let pool = Pool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads.max(1));
        for round in 0..20_000 {
            check(&pool, round % 11);
        }
        check(&pool, 10_000);
    }
}

#[test]
fn sleeping_threads_wake() {
    let pool = Pool::new(3).unwrap();
    for tasks in 0..20 {
        thread::sleep(Duration::from_millis(5));
        check(&pool, tasks);
    }
}

#[test]
fn tasks_really_run_at_once() {
    let pool = Pool::new(2).unwrap();
    for _ in 0..100 {
        // Each task waits for the other.
        let there = [AtomicBool::new(false), AtomicBool::new(false)];
        pool.run(2, &|i| {
            there[i].store(true, Ordering::Release);
            while !there[1 - i].load(Ordering::Acquire) {
                thread::yield_now();
            }
        });
    }
}

#[test]
fn a_late_task_is_waited_for() {
    let pool = Pool::new(2).unwrap();
    for late in [0, 1] {
        let done = AtomicUsize::new(0);
        pool.run(2, &|i| {
            if i == late {
                thread::sleep(Duration::from_millis(50));
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 2);
    }
}

#[test]
fn a_panic_is_resumed_after_the_other_tasks() {
    let pool = Pool::new(3).unwrap();
    for bad in 0..9 {
        let done = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(9, &|i| {
                assert!(i != bad, "task {i}");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }));
        let panic = result.unwrap_err();
        assert_eq!(panic.downcast_ref::<String>(), Some(&format!("task {bad}")));
        assert_eq!(done.into_inner(), 8);
        check(&pool, 9);
    }
}

#[test]
fn runs_within_tasks_and_from_several_threads_end() {
    let pool = Pool::new(3).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    pool.run(4, &|_| check(&pool, 3));
                }
            });
        }
    });
}

#[test]
fn a_pool_can_be_dropped_at_any_time() {
    for round in 0..200 {
        let pool = Pool::new(4).unwrap();
        if round % 3 > 0 {
            check(&pool, 5);
        }
        if round % 50 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
