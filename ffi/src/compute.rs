//! The instruction set, and the threads that the caller lends.

#[cfg(feature = "hosted")]
extern crate std;

use core::ffi::c_void;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use jostle::{Compute, Error, InstructionSet, Parallel, Serial};

use core::mem::offset_of;

use crate::border::{self, Structure};
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_error, jostle_status};

/// Which vector instructions to use. All give the same bits.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_instruction_set {
    /// The fastest that this processor has.
    JOSTLE_FASTEST = 0,
    /// None: portable code.
    JOSTLE_PORTABLE = 1,
    /// x86-64 with AVX2 and FMA.
    JOSTLE_AVX2 = 2,
    /// x86-64 with AVX-512 F and DQ.
    JOSTLE_AVX512 = 3,
    /// 64-bit Arm.
    JOSTLE_NEON = 4,
}

/// Does the part `index` of some work.
pub type jostle_task = unsafe extern "C" fn(argument: *mut c_void, index: usize);

/// Lends threads: calls `task(argument, index)` once for each index in 0..count, in any order and on any threads, and
/// returns when all these calls have returned. A call may wait for calls that have begun before it, and only for those.
/// jostle_pool_run is such a function.
///
/// The library counts the calls. Indices that were not called run on the caller's thread, and other calls do nothing. So
/// the results are right, but the function that needed the threads returns JOSTLE_RUN. A call of `task` after the return
/// is undefined behaviour.
pub type jostle_run = Option<
    unsafe extern "C" fn(context: *mut c_void, count: usize, task: jostle_task, argument: *mut c_void),
>;

/// The instruction set and the threads to compute with. jostle_compute_init fills in the fastest instruction set on the
/// caller's thread alone. NULL means the same wherever a function takes a `const jostle_compute *`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_compute {
    /// sizeof(jostle_compute).
    pub struct_size: u32,
    /// A jostle_instruction_set.
    pub instruction_set: u32,
    /// How many calls of a task `run` makes at once; at least 1. At most 1024 of them are used, and 32 on bare metal.
    pub threads: u32,
    /// 0.
    pub reserved: u32,
    /// Lends threads; may be NULL if `threads` is 1.
    pub run: jostle_run,
    /// Passed to `run`; may be NULL.
    pub context: *mut c_void,
}

// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_compute {
    const FIRST_SIZE: usize = offset_of!(jostle_compute, context) + size_of::<*mut c_void>();
}

/// Fills in the fastest instruction set on the caller's thread alone.
///
/// # Safety
/// `compute` is writable for `struct_size` bytes, which is sizeof(jostle_compute) in the caller's header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_compute_init(
    compute: *mut jostle_compute,
    struct_size: usize,
) -> jostle_status {
    let value = jostle_compute {
        struct_size: size_of::<jostle_compute>() as u32,
        instruction_set: jostle_instruction_set::JOSTLE_FASTEST as u32,
        threads: 1,
        reserved: 0,
        run: None,
        context: core::ptr::null_mut(),
    };
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe { crate::config::fill("compute", compute, struct_size, &value) }
}

/// Refuses an instruction set that this processor or this build does not have.
///
/// # Safety
/// `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_instruction_set_check(
    instruction_set: u32,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe { call(error, |call| self::instruction_set(call, instruction_set).map(|_| ())) }
}

fn instruction_set(call: &Call, given: u32) -> Result<InstructionSet, Refused> {
    use jostle_instruction_set::*;
    let named = |name| InstructionSet::named(name).or_refuse(call);
    match given {
        given if given == JOSTLE_FASTEST as u32 => Ok(InstructionSet::detect()),
        given if given == JOSTLE_PORTABLE as u32 => Ok(InstructionSet::PORTABLE),
        given if given == JOSTLE_AVX2 as u32 => named("avx2"),
        given if given == JOSTLE_AVX512 as u32 => named("avx512"),
        given if given == JOSTLE_NEON as u32 => named("neon"),
        given => Err(call.refuse(Refusal::Choice { what: "instruction_set", given })),
    }
}

/// A checked [`jostle_compute`].
#[derive(Clone, Copy)]
pub(crate) struct Means {
    simd: InstructionSet,
    lent: Option<Lent>,
}

/// The caller's threads.
#[derive(Clone, Copy)]
struct Lent {
    threads: usize,
    run: unsafe extern "C" fn(*mut c_void, usize, jostle_task, *mut c_void),
    context: *mut c_void,
}

impl Means {
    /// # Safety
    /// A pointer other than NULL is readable for as many bytes as its `struct_size` says.
    pub unsafe fn new(call: &Call, compute: *const jostle_compute) -> Result<Means, Refused> {
        if compute.is_null() {
            return Ok(Means { simd: InstructionSet::detect(), lent: None });
        }
        // SAFETY: the caller's promise is the same.
        let compute = unsafe { border::structure(call, "compute", compute)? };
        let simd = instruction_set(call, compute.instruction_set)?;
        let lent = match (compute.threads, compute.run) {
            (0, _) => return Err(call.refuse_as_core(&Error::Zero { what: "threads" })),
            (1, _) => None,
            (_, None) => return Err(call.refuse(Refusal::Null("run"))),
            (threads, Some(run)) => Some(Lent { threads: threads as usize, run, context: compute.context }),
        };
        Ok(Means { simd, lent })
    }

    /// For one call, which learns what the caller's `run` did wrong.
    pub fn workers<'a>(&self, call: &'a Call) -> Workers<'a> {
        Workers { simd: self.simd, counted: self.lent.map(|lent| Counted { lent, call }) }
    }
}

/// The instruction set and the caller's threads during one call.
pub(crate) struct Workers<'a> {
    simd: InstructionSet,
    counted: Option<Counted<'a>>,
}

impl<'a> Workers<'a> {
    /// # Safety
    /// As for [`Means::new`].
    pub unsafe fn new(call: &'a Call, compute: *const jostle_compute) -> Result<Workers<'a>, Refused> {
        // SAFETY: the caller's promise is the same.
        Ok(unsafe { Means::new(call, compute)? }.workers(call))
    }

    pub fn simd(&self) -> InstructionSet {
        self.simd
    }

    pub fn compute(&self) -> Compute<'_> {
        match &self.counted {
            Some(counted) => Compute { simd: self.simd, parallel: counted },
            None => Compute { simd: self.simd, parallel: &Serial },
        }
    }
}

/// The caller's threads, whose calls are counted.
struct Counted<'a> {
    lent: Lent,
    call: &'a Call,
}

// SAFETY: the header asks for a `run` that any thread may call. Only the thread that made the call uses `call`.
unsafe impl Sync for Counted<'_> {}

/// The most of the caller's threads that work at once. A fork keeps a state for each on the stack.
pub(crate) const MOST_THREADS: usize = if cfg!(feature = "hosted") { 1024 } else { 32 };

/// The states of an index: not called, called, returned.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ENDED: u8 = 2;

/// One use of the caller's `run`. Each index runs once, whatever `run` does.
struct Fork<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    states: &'a [AtomicU8],
    /// An index that `run` called although it was called before or is outside of the count; or [`usize::MAX`].
    excess: AtomicUsize,
}

impl Fork<'_> {
    /// Runs an index that has not begun. Returns whether it did.
    fn run(&self, index: usize) -> bool {
        let Some(state) = self.states.get(index).filter(|state| begin(state)) else { return false };
        (self.task)(index);
        state.store(ENDED, Ordering::Release);
        true
    }

    /// Runs the indices that `run` left out, and waits for the calls that have begun. Tells what `run` did wrong.
    fn finish(&self, give_way: impl Fn()) -> Result<(), Refusal> {
        let mut left_out = None;
        for (index, state) in self.states.iter().enumerate() {
            if self.run(index) {
                left_out = left_out.or(Some(index));
            }
            while state.load(Ordering::Acquire) != ENDED {
                give_way();
            }
        }
        let count = self.states.len();
        match (left_out, self.excess.load(Ordering::Relaxed)) {
            (Some(index), _) => Err(Refusal::Run { what: "it left out", index, count }),
            (None, usize::MAX) => Ok(()),
            (None, index) => Err(Refusal::Run { what: "it also called", index, count }),
        }
    }
}

/// Marks an index as begun, unless it was.
fn begin(state: &AtomicU8) -> bool {
    #[cfg(target_has_atomic = "8")]
    return state.compare_exchange(WAITING, BEGUN, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    // Such processors have one core, and their threads take turns.
    #[cfg(not(target_has_atomic = "8"))]
    {
        let waits = state.load(Ordering::Relaxed) == WAITING;
        if waits {
            state.store(BEGUN, Ordering::Relaxed);
        }
        waits
    }
}

// SAFETY: `Fork` runs each index once, and waits until all have ended.
unsafe impl Parallel for Counted<'_> {
    fn threads(&self) -> usize {
        self.lent.threads.min(MOST_THREADS)
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        unsafe extern "C" fn one(argument: *mut c_void, index: usize) {
            // SAFETY: `argument` is the fork below, which lives until `run` has returned.
            let fork = unsafe { &*argument.cast::<Fork<'_>>() };
            if !fork.run(index) {
                fork.excess.store(index, Ordering::Relaxed);
            }
        }
        let states = [const { AtomicU8::new(WAITING) }; MOST_THREADS];
        let states = states.get(..tasks).unwrap_or_default();
        let fork = Fork { task, states, excess: AtomicUsize::new(usize::MAX) };
        let Lent { run, context, .. } = self.lent;
        // SAFETY: `one` gets its own argument, and the header forbids calls of it after the return.
        unsafe { run(context, tasks, one, (&raw const fork).cast_mut().cast()) };
        if let Err(refusal) = fork.finish(|| self.give_way()) {
            self.call.refuse(refusal);
        }
    }

    #[cfg(feature = "hosted")]
    fn give_way(&self) {
        std::thread::yield_now();
    }
}
