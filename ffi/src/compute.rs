//! The instruction set, and the threads that the caller lends.

#[cfg(feature = "hosted")]
extern crate std;

use core::ffi::c_void;

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
/// returns when all these calls have returned. A call may wait for calls that have begun before it, never for one that has
/// not begun. jostle_pool_run is such a function.
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
    /// How many calls of a task `run` makes at once; at least 1.
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
pub(crate) struct Workers {
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

impl Workers {
    /// # Safety
    /// A pointer other than NULL is readable for as many bytes as its `struct_size` says.
    pub unsafe fn new(call: &Call, compute: *const jostle_compute) -> Result<Workers, Refused> {
        if compute.is_null() {
            return Ok(Workers { simd: InstructionSet::detect(), lent: None });
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
        Ok(Workers { simd, lent })
    }

    pub fn simd(&self) -> InstructionSet {
        self.simd
    }

    pub fn compute(&self) -> Compute<'_> {
        match &self.lent {
            Some(lent) => Compute { simd: self.simd, parallel: lent },
            None => Compute { simd: self.simd, parallel: &Serial },
        }
    }
}

// SAFETY: the header asks for a `run` that any thread may call.
unsafe impl Sync for Lent {}

// SAFETY: the header asks for a `run` that keeps the contract of the trait.
unsafe impl Parallel for Lent {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        type Task<'a> = &'a (dyn Fn(usize) + Sync);
        unsafe extern "C" fn one(argument: *mut c_void, index: usize) {
            // SAFETY: `argument` is the reference below, which lives until `run` has returned.
            let task = unsafe { *argument.cast::<Task<'_>>() };
            task(index);
        }
        let mut task: Task<'_> = task;
        // SAFETY: `one` gets its own argument, and `run` returns before `task` goes out of scope.
        unsafe { (self.run)(self.context, tasks, one, (&raw mut task).cast()) };
    }

    #[cfg(feature = "hosted")]
    fn give_way(&self) {
        std::thread::yield_now();
    }
}
