//! The memory behind arrays. It lives as long as any array that views it.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use jostle::Error;
use numpy::PyArray1;
use numpy::ndarray::ArrayView1;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

/// `length` zeros, or an error if the system has no memory for them.
pub fn zeros<T: Clone + Default>(what: &'static str, length: usize) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    all.try_reserve_exact(length).map_err(|_| Error::TooLarge { what })?;
    all.resize(length, T::default());
    Ok(all)
}

/// The bytes of a cache line.
const LINE: usize = 64;

/// A number of float32 values, zero at first. They begin at a cache line, because a vector that straddles two takes twice
/// as long (`docs/performance.md`).
#[pyclass(frozen, module = "jostle._native")]
pub struct Buffer {
    memory: UnsafeCell<Box<[f32]>>,
    /// Their address.
    range: Range<usize>,
}

// SAFETY: Rust writes the numbers only while an engine's lock is held (`Buffer::slice`). Python writes them through
// arrays, which promise as little about threads as any NumPy array.
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

    /// A writable array of all numbers, without a copy.
    fn array<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyArray1<f32>> {
        // SAFETY: the array keeps the buffer alive, and its memory neither moves nor shrinks.
        unsafe {
            let Buffer { memory, range } = slf.get();
            let numbers = &(&*memory.get())[range.clone()];
            PyArray1::borrow_from_array(&ArrayView1::from(numbers), slf.clone().into_any())
        }
    }
}

impl Buffer {
    /// The numbers, to be written.
    ///
    /// # Safety
    /// The caller holds the lock of the buffer's engine as long as it uses the slice.
    #[expect(clippy::mut_from_ref, reason = "the engine's lock makes it exclusive")]
    pub unsafe fn slice(&self) -> &mut [f32] {
        // SAFETY: the caller holds the lock. An array that Python uses meanwhile may see old or new numbers, as any
        // array that two threads use.
        unsafe { &mut (&mut *self.memory.get())[self.range.clone()] }
    }
}

/// An optimiser's state: its numbers, and the number of steps it has taken. They change together, even when Ctrl-C
/// interrupts.
#[pyclass(frozen, module = "jostle._native")]
pub struct State {
    numbers: Py<Buffer>,
    steps: AtomicU64,
}

#[pymethods]
impl State {
    /// The state before the first step: zeros.
    #[new]
    fn new(py: Python<'_>, length: usize) -> PyResult<State> {
        Ok(State { numbers: Py::new(py, Buffer::new(length)?)?, steps: AtomicU64::new(0) })
    }

    #[getter]
    fn numbers(&self, py: Python<'_>) -> Py<Buffer> {
        self.numbers.clone_ref(py)
    }

    /// The number of steps taken.
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
    /// The numbers, to be written.
    ///
    /// # Safety
    /// As [`Buffer::slice`].
    #[expect(clippy::mut_from_ref, reason = "the engine's lock makes it exclusive")]
    pub unsafe fn slice(&self) -> &mut [f32] {
        // SAFETY: the caller holds the lock.
        unsafe { self.numbers.get().slice() }
    }
}
