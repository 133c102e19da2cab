//! Memory that arrays are views on: it lives as long as any of them.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use jostle::Error;
use numpy::PyArray1;
use numpy::ndarray::ArrayView1;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

use crate::config::optimizer_state;
use crate::engine::Engine;

/// So many zeros, or an error where the system has no memory for them.
pub fn zeros<T: Clone + Default>(what: &'static str, length: usize) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    all.try_reserve_exact(length).map_err(|_| Error::TooLarge { what })?;
    all.resize(length, T::default());
    Ok(all)
}

/// Bytes from one cache line to the next.
const LINE: usize = 64;

/// So many float32 numbers, zero at first. They begin with a cache line: vectors that straddle two take processors twice
/// as long, which is 3 % of a training step.
#[pyclass(frozen, module = "jostle._native")]
pub struct Buffer {
    memory: UnsafeCell<Box<[f32]>>,
    /// Where in memory they are.
    range: Range<usize>,
}

// SAFETY: the numbers are written by Rust only while an engine's lock is held (`Buffer::slice`), and by Python
// through arrays, which promise no more about threads than NumPy's own.
unsafe impl Sync for Buffer {}

#[pymethods]
impl Buffer {
    /// A buffer of zeros.
    #[new]
    pub fn new(length: usize) -> PyResult<Buffer> {
        let bytes = length.saturating_mul(4);
        let memory: Vec<f32> = zeros("buffer", length.saturating_add(LINE / size_of::<f32>()))
            .map_err(|_| PyMemoryError::new_err(format!("{bytes} bytes of memory can't be had")))?;
        let memory = memory.into_boxed_slice();
        let first = memory.as_ptr().align_offset(LINE);
        Ok(Buffer { memory: UnsafeCell::new(memory), range: first..first + length })
    }

    fn __len__(&self) -> usize {
        self.range.len()
    }

    /// A writable array of all numbers, without a copy.
    fn array<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyArray1<f32>> {
        // SAFETY: the array keeps the buffer alive, whose memory neither moves nor shrinks.
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
    /// The lock of the engine that the buffer belongs to is held as long as the slice is used.
    #[expect(clippy::mut_from_ref, reason = "the engine's lock makes it exclusive")]
    pub unsafe fn slice(&self) -> &mut [f32] {
        // SAFETY: the caller holds the lock. Arrays that Python reads or writes meanwhile may see or leave
        // numbers of either moment, as with any array that two threads use.
        unsafe { &mut (&mut *self.memory.get())[self.range.clone()] }
    }
}

/// What an optimiser keeps from step to step: its numbers, and how many steps it has taken. They change together,
/// whenever Ctrl-C comes.
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
        let length = engine.get().plan(1, optimizer_state(kind)?)?.optimizer;
        Ok(State { numbers: Py::new(py, Buffer::new(length)?)?, steps: AtomicU64::new(0) })
    }

    #[getter]
    fn numbers(&self, py: Python<'_>) -> Py<Buffer> {
        self.numbers.clone_ref(py)
    }

    /// Steps taken.
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
