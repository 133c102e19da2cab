use std::boxed::Box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, mpsc};
use std::time::Duration;
use std::vec::Vec;
use std::{panic, thread, thread_local, vec};

use super::*;
use crate::simd::InstructionSet;
use crate::test_common::Random;

/// A thread for each index, started at random moments.
struct Hurried(usize);

// SAFETY: a thread for each index, joined before `run` returns.
#[expect(unsafe_code)]
unsafe impl Parallel for Hurried {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        thread::scope(|scope| (0..tasks).for_each(|i| _ = scope.spawn(move || task(i))));
    }

    fn give_way(&self) {
        thread::yield_now();
    }
}

/// Only the caller's thread, which calls these indices.
struct Alone(Vec<usize>);

// SAFETY: one call after the other. Wrong indices are part of the test.
#[expect(unsafe_code)]
unsafe impl Parallel for Alone {
    fn threads(&self) -> usize {
        self.0.len()
    }

    fn run(&self, _: usize, task: &(dyn Fn(usize) + Sync)) {
        self.0.iter().for_each(|i| task(*i));
    }
}

/// One processor. A thread keeps it until it ends or gives way to the next.
struct OneProcessor {
    threads: usize,
    /// The thread that has the processor, and the threads that have ended.
    turn: Mutex<(usize, Vec<bool>)>,
    passed: Condvar,
}

impl OneProcessor {
    fn new(threads: usize) -> OneProcessor {
        OneProcessor { threads, turn: Mutex::new((0, vec![false; threads])), passed: Condvar::new() }
    }

    fn pass(&self, own: usize, ends: bool) {
        let mut turn = self.turn.lock().unwrap();
        turn.1[own] = ends;
        let next = (1..=self.threads).map(|i| (own + i) % self.threads).find(|next| !turn.1[*next]);
        turn.0 = next.unwrap_or(own);
        self.passed.notify_all();
        if !ends {
            drop(self.passed.wait_while(turn, |turn| turn.0 != own).unwrap());
        }
    }
}

thread_local! {
    static OWN: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

// SAFETY: a thread for each index, joined before `run` returns.
#[expect(unsafe_code)]
unsafe impl Parallel for OneProcessor {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        assert_eq!(tasks, self.threads);
        thread::scope(|scope| {
            for i in 0..tasks {
                scope.spawn(move || {
                    OWN.set(i);
                    drop(self.passed.wait_while(self.turn.lock().unwrap(), |turn| turn.0 != i).unwrap());
                    task(i);
                    self.pass(i, true);
                });
            }
        });
    }

    fn give_way(&self) {
        self.pass(OWN.get(), false);
    }
}

/// A worker's actions in its turn, before it drops it.
#[derive(Clone, Debug)]
enum Call {
    Last(usize),
    ByColumns([usize; 2], usize),
    /// Panics within `last`, or within a matrix after a number of columns.
    Panic(Option<usize>),
}

/// An element after a worker has changed it. The function is exact and not commutative.
fn after(x: f32, worker: usize) -> f32 {
    ((x as u32 * 7 + worker as u32 + 1) % 8191) as f32
}

/// The buffer after the workers, one after the other.
fn one_by_one(buffer: &mut [f32], calls: &[Vec<Call>]) {
    for (worker, calls) in calls.iter().enumerate() {
        let mut left = buffer.len();
        for call in calls {
            let first = match *call {
                Call::Last(len) => left.saturating_sub(len),
                Call::ByColumns([rows, columns], _) => left.checked_sub(rows * columns).unwrap_or(left),
                Call::Panic(None) => break,
                Call::Panic(Some(done)) => {
                    for row in buffer[..left].chunks_mut(COLUMNS) {
                        row[..done].iter_mut().for_each(|x| *x = after(*x, worker));
                    }
                    break;
                }
            };
            buffer[first..left].iter_mut().for_each(|x| *x = after(*x, worker));
            left = first;
        }
    }
}

/// The matrix after a worker panics in it.
const COLUMNS: usize = 8;

/// The same by the relay, with random delays.
fn relayed(host: &dyn Parallel, buffer: &mut [f32], calls: &[Vec<Call>], seed: u64) {
    let (workers, len) = (calls.len(), buffer.len());
    let (mut units, mut scratch) = (vec![0.0; 3 * workers], vec![0.0; workers]);
    let compute = Compute { simd: InstructionSet::PORTABLE, parallel: host };
    let buffers = [Units::new(&mut units, workers, 3)];
    compute.relay(workers, &buffers, (&mut scratch, 1), buffer, |share, [unit], scratch, mut turn| {
        let worker = share.worker;
        unit.iter_mut().chain(scratch).for_each(|x| *x += 1.0);
        assert_eq!(turn.is_first(), worker == 0);
        let random = Mutex::new(Random::new(seed + 1000 * worker as u64));
        let dawdle = || {
            let pauses = random.lock().unwrap().size(0, 5).saturating_sub(3);
            (0..pauses).for_each(|_| host.give_way());
        };
        let all = |part: &mut [f32]| {
            for part in part.chunks_mut(part.len().div_ceil(2).max(1)) {
                dawdle();
                part.iter_mut().for_each(|x| *x = after(*x, worker));
            }
        };
        // The columns up to the end of the matrix.
        let some = |first: *mut f32, rows: usize, width: usize, columns: Range<usize>| {
            for row in 0..rows {
                if row == rows / 2 {
                    dawdle();
                }
                let start = row * width + columns.start;
                #[expect(unsafe_code)]
                // SAFETY: the elements are within the matrix. The test checks that nobody else uses them meanwhile.
                let row = unsafe { core::slice::from_raw_parts_mut(first.add(start), columns.len()) };
                row.iter_mut().for_each(|x| *x = after(*x, worker));
            }
        };
        let mut left = len;
        for call in &calls[worker] {
            dawdle();
            match *call {
                Call::Last(len) => {
                    turn.last(len, all);
                    left = left.saturating_sub(len);
                }
                Call::ByColumns([rows, width], at_once) => {
                    let mut next = 0;
                    turn.last_by_columns([rows, width], at_once, |first, columns| {
                        assert!(columns.start == next && columns.len() <= at_once.max(1));
                        next = columns.end;
                        some(first, rows, width, columns);
                    });
                    let fits = rows * width > 0 && rows * width <= left;
                    assert_eq!(next, if fits { width } else { 0 });
                    left -= if fits { rows * width } else { 0 };
                }
                Call::Panic(None) => turn.last(left, |_| panic!("within a part")),
                Call::Panic(Some(done)) => {
                    let rows = left / COLUMNS;
                    turn.last_by_columns([rows, COLUMNS], 1, |first, columns| {
                        assert!(columns.start < done, "within a matrix");
                        some(first, rows, COLUMNS, columns);
                    });
                }
            }
        }
    });
    assert!(units.iter().chain(&scratch).all(|x| *x == 1.0), "{units:?} {scratch:?}");
}

fn check(host: &dyn Parallel, len: usize, calls: &[Vec<Call>], seed: u64) {
    let mut expected = (0..len).map(|i| i as f32).collect::<Vec<_>>();
    let mut found = expected.clone();
    one_by_one(&mut expected, calls);
    relayed(host, &mut found, calls, seed);
    assert_eq!(found, expected, "{calls:?}");
}

/// Actions for a buffer of this length, sometimes not down to its beginning.
fn any_calls(random: &mut Random, len: usize) -> Vec<Call> {
    let (mut calls, mut left) = (Vec::new(), len);
    while left > 0 && random.size(0, 40) > 0 {
        // Few widths and heights, so that the matrices of two workers often differ in only one of them.
        let (width, rows) = ([4, 8, 16][random.size(0, 2)], random.size(0, 4));
        let call = match random.size(0, 2) {
            0 => Call::Last([0, 16, 24, 64][random.size(0, 3)]),
            _ => Call::ByColumns([rows, width], [0, 1, 3, 4, usize::MAX][random.size(0, 4)]),
        };
        left = match call {
            Call::ByColumns(..) => left.checked_sub(rows * width).unwrap_or(left),
            Call::Last(len) => left.saturating_sub(len),
            Call::Panic(_) => left,
        };
        calls.push(call);
    }
    calls
}

/// Fails instead of waiting for ever.
fn in_time<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || _ = sender.send(panic::catch_unwind(panic::AssertUnwindSafe(task))));
    match receiver.recv_timeout(Duration::from_secs(200)) {
        Ok(result) => {
            thread.join().unwrap();
            result.unwrap_or_else(|panic| panic::resume_unwind(panic))
        }
        Err(error) => panic!("workers wait for ever: {error}"),
    }
}

#[test]
fn workers_who_cut_alike_go_one_behind_the_other() {
    in_time(|| {
        let mut random = Random::new(1);
        for round in 0..20 {
            let workers = random.size(1, 8);
            let calls = vec![any_calls(&mut random, 400); workers];
            check(&Hurried(workers), 400, &calls, round);
        }
    });
}

/// Workers need equal actions only for speed: the order is kept with different ones too.
#[test]
fn workers_who_cut_differently_go_one_behind_the_other() {
    in_time(|| {
        let mut random = Random::new(2);
        for round in 0..100 {
            let workers = random.size(2, 8);
            let calls: Vec<_> = (0..workers).map(|_| any_calls(&mut random, 200)).collect();
            check(&Hurried(workers), 200, &calls, round);
        }
        // Actions that differ in one detail.
        let by_columns =
            |shapes: &[[usize; 2]]| shapes.iter().map(|shape| Call::ByColumns(*shape, 4)).collect();
        for (one, other) in [
            (by_columns(&[[2, 16], [2, 16]]), by_columns(&[[4, 16]])),
            (by_columns(&[[4, 16]]), by_columns(&[[2, 16], [2, 16]])),
            (by_columns(&[[4, 16]]), by_columns(&[[8, 8]])),
            (vec![Call::Last(16), Call::ByColumns([3, 16], 4)], by_columns(&[[4, 16]])),
            (by_columns(&[[0, 16], [4, 16]]), by_columns(&[[4, 16]])),
            (by_columns(&[[4, 16]]), vec![Call::Last(64)]),
        ] {
            for round in 0..20 {
                check(&Hurried(3), 64, &[one.clone(), other.clone(), one.clone()], round);
            }
        }
    });
}

#[test]
fn hosts_may_call_in_any_order_and_on_one_thread() {
    in_time(|| {
        let mut random = Random::new(3);
        for workers in 1..10 {
            let calls: Vec<_> = (0..workers).map(|_| any_calls(&mut random, 200)).collect();
            check(&Alone((0..workers).collect()), 200, &calls, 1);
            check(&Alone((0..workers).rev().collect()), 200, &calls, 2);
        }
    });
}

/// The second call gets nothing.
#[test]
fn more_calls_than_workers_have_no_effect() {
    in_time(|| {
        let mut units = [0.0; 3];
        let mut buffer = [0.0; 8];
        let host = Alone(vec![0, 1, 2, 2, 1, 0]);
        let compute = Compute { simd: InstructionSet::PORTABLE, parallel: &host };
        let seen = Mutex::new(Vec::new());
        compute.relay(
            3,
            &[Units::new(&mut units, 3, 1)],
            (&mut [], 0),
            &mut buffer,
            |share, [unit], _, mut turn| {
                seen.lock().unwrap().push(share.worker);
                unit.iter_mut().for_each(|x| *x += 1.0);
                turn.last(8, |buffer| buffer.iter_mut().for_each(|x| *x += 1.0));
            },
        );
        assert_eq!((seen.into_inner().unwrap(), units, buffer), (vec![0, 1, 2], [1.0; 3], [3.0; 8]));
    });
}

/// Workers behind still wait for the workers before them.
#[test]
fn a_leg_may_be_dropped_early() {
    in_time(|| {
        for round in 0..10 {
            let all = vec![Call::ByColumns([4, 16], 4), Call::Last(64)];
            for early in [vec![], vec![Call::Last(10)], vec![Call::ByColumns([4, 16], 4)]] {
                let slow = AtomicBool::new(true);
                let calls = [all.clone(), early, all.clone()];
                let mut expected = vec![0.0; 128];
                one_by_one(&mut expected, &calls);
                let mut found = vec![0.0; 128];
                let compute = Compute { simd: InstructionSet::PORTABLE, parallel: &Hurried(3) };
                let mut units = [0.0; 3];
                let buffers = [Units::new(&mut units, 3, 1)];
                compute.relay(3, &buffers, (&mut [], 0), &mut found, |share, _, _, mut turn| {
                    if turn.is_first() && slow.swap(false, Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(2 * round));
                    }
                    for call in &calls[share.worker] {
                        let len = match *call {
                            Call::ByColumns([rows, columns], _) => rows * columns,
                            Call::Last(len) => len,
                            Call::Panic(_) => 0,
                        };
                        turn.last(len, |part| part.iter_mut().for_each(|x| *x = after(*x, share.worker)));
                    }
                });
                assert_eq!(found, expected);
            }
        }
    });
}

/// The rest does not change, and the panic reaches the caller.
#[test]
fn a_panic_holds_nobody_up() {
    in_time(|| {
        let mut random = Random::new(4);
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let results: Vec<_> = (0..20)
            .map(|round| {
                let workers = random.size(2, 6);
                let mut calls: Vec<_> = (0..workers).map(|_| any_calls(&mut random, 200)).collect();
                let place = random.size(0, workers - 1);
                calls[place] = vec![Call::Last(40), Call::Panic([None, Some(0), Some(5)][random.size(0, 2)])];
                let (mut expected, mut found) = (vec![0.0; 200], vec![0.0; 200]);
                one_by_one(&mut expected, &calls);
                let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                    relayed(&Hurried(workers), &mut found, &calls, round);
                }));
                (result.is_err(), found == expected)
            })
            .collect();
        panic::set_hook(hook);
        assert!(results.iter().all(|result| *result == (true, true)), "{results:?}");
    });
}

/// With a single processor, a waiting thread must let others run.
#[test]
fn who_waits_gives_way() {
    in_time(|| {
        let mut random = Random::new(5);
        for workers in [2, 5, 16] {
            let calls: Vec<_> = (0..workers).map(|_| any_calls(&mut random, 100)).collect();
            check(&OneProcessor::new(workers), 100, &calls, 1);
        }
    });
}

#[test]
fn many_more_threads_than_processors_come_to_an_end() {
    in_time(|| {
        let mut random = Random::new(6);
        for round in 0..8 {
            let calls = vec![any_calls(&mut random, 400); 16];
            check(&Hurried(16), 400, &calls, round);
        }
        // Not more than the most workers.
        let calls = vec![vec![Call::Last(5); 3]; MOST_TURNS];
        check(&Hurried(MOST_TURNS), 10, &calls, 0);
    });
}
