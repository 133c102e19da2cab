//! Memory that arrays are views on: it lives as long as any of them.

use std::cell::UnsafeCell;

use numpy::PyArray1;
use numpy::ndarray::ArrayView1;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

/// So many float32 numbers, zero at first.
#[pyclass(frozen, module = "jostle._native")]
pub struct Buffer(UnsafeCell<Box<[f32]>>);

// SAFETY: the numbers are written by Rust only while an engine's lock is held (`Buffer::slice`), and by Python
// through arrays, which promise no more about threads than NumPy's own.
unsafe impl Sync for Buffer {}

#[pymethods]
impl Buffer {
    /// A buffer of zeros.
    #[new]
    pub fn new(length: usize) -> PyResult<Buffer> {
        let mut numbers = Vec::new();
        let bytes = length.saturating_mul(4);
        numbers
            .try_reserve_exact(length)
            .map_err(|_| PyMemoryError::new_err(format!("{bytes} bytes of memory can't be had")))?;
        numbers.resize(length, 0.0);
        Ok(Buffer(UnsafeCell::new(numbers.into_boxed_slice())))
    }

    fn __len__(&self) -> usize {
        // SAFETY: the box itself is never changed.
        unsafe { (&*self.0.get()).len() }
    }

    /// A writable array of all numbers, without a copy.
    fn array<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyArray1<f32>> {
        // SAFETY: the array keeps the buffer alive, whose box neither moves nor shrinks.
        unsafe {
            let numbers = &*slf.get().0.get();
            PyArray1::borrow_from_array(&ArrayView1::from(&numbers[..]), slf.clone().into_any())
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
        unsafe { &mut *self.0.get() }
    }
}
