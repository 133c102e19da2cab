//! Tests of the pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use jostle::{Compute, Config, Gradients, InstructionSet, Options, Parallel, Pass, Plan, Shape, initialize};
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

/// Each task follows the task that began before it, like workers that pass gradients on. With many more threads than
/// processors, a thread that waited without giving way would use up its time slice: millions of checks instead of
/// thousands.
#[test]
fn tasks_may_wait_for_others_that_have_begun() {
    const TASKS: usize = 64;
    let pool = Pool::new(TASKS).unwrap();
    let checks = AtomicUsize::new(0);
    for _ in 0..4 {
        let begun = AtomicUsize::new(0);
        let come = [(); TASKS].map(|()| AtomicUsize::new(0));
        pool.run(TASKS, &|_| {
            let place = begun.fetch_add(1, Ordering::Relaxed);
            for step in 1..=20 {
                while place > 0 && come[place - 1].load(Ordering::Acquire) < step {
                    checks.fetch_add(1, Ordering::Relaxed);
                    pool.give_way();
                }
                (0..1000).for_each(|_| std::hint::spin_loop());
                come[place].store(step, Ordering::Release);
            }
        });
        assert!(come.into_iter().all(|come| come.into_inner() == 20));
    }
    let checks = checks.into_inner();
    if thread::available_parallelism().is_ok_and(|processors| processors.get() <= TASKS / 16) {
        assert!(checks < 1_000_000, "{checks} checks");
    }
}

/// Panics when a worker has waited for long for the first time.
struct Impatient {
    pool: Pool,
    patient: AtomicBool,
}

// SAFETY: as for the pool.
unsafe impl Parallel for Impatient {
    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool.run(tasks, task);
    }

    fn give_way(&self) {
        assert!(self.patient.swap(true, Ordering::Relaxed), "impatient");
        self.pool.give_way();
    }
}

/// The panic reaches the caller, and the workers behind don't wait for ever. Afterwards everything works as before.
/// The gradients of a data-parallel pass.
fn gradients(config: &Config, shape: Shape, threads: usize, parallel: &dyn Parallel) -> Vec<f32> {
    let plan = Plan::new(config, &Options { threads, ..Options::new(shape.sequences) }).unwrap();
    assert!(!plan.shares_work(shape, parallel.threads()));
    let (mut parameters, mut workspace) = (vec![0.0; plan.parameters()], vec![0.0; plan.workspace()]);
    let simd = InstructionSet::detect();
    initialize(simd, &plan, &mut parameters, 1).unwrap();
    let (mut gradients, tokens) = (vec![0.0; plan.gradients()], vec![7; shape.rows()]);
    let (compute, parameters) = (Compute { simd, parallel }, &parameters);
    let pass = Pass { compute, plan: &plan, parameters, frozen: &[], tokens: &tokens, shape, dropout: None };
    pass.backward(&mut gradients, Gradients::Overwrite, &mut workspace, &tokens, shape.rows()).unwrap();
    gradients
}

#[test]
fn two_threads_have_the_gradients_of_one() {
    let (config, shape) = (Config::new(64, 32, 2, 2, 32), Shape { sequences: 4, length: 32 });
    let [one, two] =
        [&jostle::Serial as &dyn Parallel, &Pool::new(2).unwrap()].map(|p| gradients(&config, shape, 2, p));
    assert!(one == two);
}

#[test]
fn a_panic_within_a_pass_is_resumed() {
    // The third worker has one sequence, and waits for the second worker, which has two.
    let (shape, threads) = (Shape { sequences: 8, length: 320 }, 5);
    let config = Config::new(64, shape.length, 1, 4, 128);
    let host = Impatient { pool: Pool::new(threads).unwrap(), patient: AtomicBool::new(true) };
    let gradients = |parallel: &dyn Parallel| gradients(&config, shape, threads, parallel);
    let expected = gradients(&jostle::Serial);
    // It is not always the same worker.
    let panics = (0..20).filter_map(|_| {
        host.patient.store(false, Ordering::Relaxed);
        catch_unwind(AssertUnwindSafe(|| gradients(&host))).err()
    });
    let panics: Vec<_> = panics.collect();
    assert!(!panics.is_empty(), "nobody waits");
    assert!(panics.iter().all(|panic| panic.downcast_ref::<&str>() == Some(&"impatient")));
    host.patient.store(true, Ordering::Relaxed);
    assert!(gradients(&host) == expected);
}
