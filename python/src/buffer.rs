//! Memory that NumPy arrays view. It lives as long as any of the arrays.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;
use jostle::Error;
use numpy::PyArray1;
use numpy::ndarray::ArrayView1;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

use crate::config::optimizer_state;
use crate::engine::Engine;

/// A vector of zeros, or an error if the system has no memory for it. Memory that nothing has written takes none of the
/// machine's: a model that only generates pays for no gradients.
pub fn zeros<T: Zeroable>(what: &'static str, length: usize) -> Result<Vec<T>, Error> {
    try_zeroed_vec(length).map_err(|()| Error::TooLarge { what })
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// float32 numbers, initially zero. They begin with a cache line: vectors that straddle two lines take twice as long, which
/// is 3 % of a training step.
#[pyclass(frozen, module = "jostle._native")]
pub struct Buffer {
    memory: UnsafeCell<Box<[f32]>>,
    /// The range of the numbers in `memory`.
    range: Range<usize>,
}

// SAFETY: Rust only writes the numbers while an engine's lock is held (`Buffer::slice`). Python writes them through arrays,
// which promise no more about threads than other NumPy arrays do.
unsafe impl Sync for Buffer {}

#[pymethods]
impl Buffer {
    /// A buffer of zeros.
    #[new]
    pub fn new(length: usize) -> PyResult<Buffer> {
        let bytes = length.saturating_mul(4);
        let memory: Vec<f32> = zeros("buffer", length.saturating_add(LINE / size_of::<f32>()))
            .map_err(|_| PyMemoryError::new_err(format!("{bytes} bytes of memory are not available")))?;
        let memory = memory.into_boxed_slice();
        let first = memory.as_ptr().align_offset(LINE);
        Ok(Buffer { memory: UnsafeCell::new(memory), range: first..first + length })
    }

    fn __len__(&self) -> usize {
        self.range.len()
    }

    /// A writable array that views all numbers.
    fn array<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyArray1<f32>> {
        // SAFETY: the array keeps the buffer alive, and the buffer's memory neither moves nor shrinks.
        unsafe {
            let Buffer { memory, range } = slf.get();
            let numbers = &(&*memory.get())[range.clone()];
            PyArray1::borrow_from_array(&ArrayView1::from(numbers), slf.clone().into_any())
        }
    }
}

impl Buffer {
    /// The numbers, writable.
    ///
    /// # Safety
    /// The lock of the buffer's engine is held as long as the slice is used.
    #[expect(clippy::mut_from_ref, reason = "the engine's lock makes it exclusive")]
    pub unsafe fn slice(&self) -> &mut [f32] {
        // SAFETY: the caller holds the lock. Python may read or write the arrays meanwhile, with the races of any array that
        // two threads use.
        unsafe { &mut (&mut *self.memory.get())[self.range.clone()] }
    }
}

/// An optimiser's state between steps: its numbers and its number of steps. They change together, whenever Ctrl-C comes.
#[pyclass(frozen, module = "jostle._native")]
pub struct State {
    numbers: Py<Buffer>,
    steps: AtomicU64,
}

#[pymethods]
impl State {
    /// The state of a kind of optimiser for an engine, before the first step: zeros.
    #[new]
    fn new(py: Python<'_>, engine: &Bound<'_, Engine>, kind: &str) -> PyResult<State> {
        let length = engine.get().plan(1, optimizer_state(kind)?)?.optimizer();
        Ok(State { numbers: Py::new(py, Buffer::new(length)?)?, steps: AtomicU64::new(0) })
    }

    #[getter]
    fn numbers(&self, py: Python<'_>) -> Py<Buffer> {
        self.numbers.clone_ref(py)
    }

    /// The number of steps done.
    #[getter]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    #[setter]
    pub fn set_steps(&self, steps: u64) {
        self.steps.store(steps, Ordering::Relaxed);
    }
}

impl State {
    /// The numbers, writable.
    ///
    /// # Safety
    /// As for [`Buffer::slice`].
    #[expect(clippy::mut_from_ref, reason = "the engine's lock makes it exclusive")]
    pub unsafe fn slice(&self) -> &mut [f32] {
        // SAFETY: the caller holds the lock.
        unsafe { self.numbers.get().slice() }
    }
}
