//! Softmax, and the causal mask before it.

use jostle::ops::softmax;

use super::area;
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// Replaces each row of `x` [rows, width] by its softmax.
///
/// # Safety
/// `compute` is NULL or readable, `x` writable for `x_size` bytes, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_softmax_forward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    x: *mut f32,
    x_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let simd = Workers::new(call, compute)?.simd();
            let x = Buffers::new(call).write("x", x, x_size, area(call, rows, width)?)?;
            softmax::forward(simd, x, width).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Writes the gradient of the scores, d_x = y (d_y - sum(d_y y)) row by row; all [rows, width].
///
/// # Safety
/// `compute` is NULL or readable; `d_x` is writable, `d_y` and `y` readable for the given number of bytes; `error` is NULL or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_softmax_backward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    y: *const f32,
    y_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let elements = area(call, rows, width)?;
            let d_x = buffers.write("d_x", d_x, d_x_size, elements)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, elements)?;
            let y = buffers.read("y", y, y_size, elements)?;
            softmax::backward(simd, d_x, d_y, y, width).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Sets row i of `scores` [rows, width] to minus infinity after column i + `offset`: the causal mask.
///
/// # Safety
/// `scores` is writable for `scores_size` bytes, `error` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_causal_mask(
    rows: usize,
    width: usize,
    offset: usize,
    scores: *mut f32,
    scores_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let scores = Buffers::new(call).write("scores", scores, scores_size, area(call, rows, width)?)?;
            softmax::causal_mask(scores, width, offset).or_refuse(call)?;
            Ok(())
        })
    }
}
