//! Root mean square normalisation, forward and backward.

use jostle::ops::rms_norm;

use super::area;
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// Root mean square normalisation (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + epsilon) * weight, row by row.
/// Writes `y` [rows, width] and `rstd` [rows] (one over the root mean square) from `x` and `weight` [width].
///
/// # Safety
/// `compute` is NULL or readable; `y` and `rstd` are writable, `x` and `weight` readable for the given number of bytes;
/// `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_rms_norm_forward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    epsilon: f32,
    y: *mut f32,
    y_size: usize,
    rstd: *mut f32,
    rstd_size: usize,
    x: *const f32,
    x_size: usize,
    weight: *const f32,
    weight_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let elements = area(call, rows, width)?;
            let y = buffers.write("y", y, y_size, elements)?;
            let rstd = buffers.write("rstd", rstd, rstd_size, rows)?;
            let x = buffers.read("x", x, x_size, elements)?;
            let weight = buffers.read("weight", weight, weight_size, width)?;
            rms_norm::forward(simd, y, rstd, x, weight, epsilon).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Adds the gradient of the input to `d_x` [rows, width], from `d_y`, `x` and what jostle_rms_norm_forward left.
///
/// # Safety
/// As for jostle_rms_norm_forward; `d_x` is writable, `d_y` and `rstd` readable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_rms_norm_backward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    rstd: *const f32,
    rstd_size: usize,
    weight: *const f32,
    weight_size: usize,
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
            let x = buffers.read("x", x, x_size, elements)?;
            let rstd = buffers.read("rstd", rstd, rstd_size, rows)?;
            let weight = buffers.read("weight", weight, weight_size, width)?;
            rms_norm::backward(simd, d_x, d_y, x, rstd, weight).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Adds the gradient of the weight to `d_weight` [width], row after row.
///
/// # Safety
/// As for jostle_rms_norm_backward; `d_weight` is writable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_rms_norm_backward_parameters(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_weight: *mut f32,
    d_weight_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    rstd: *const f32,
    rstd_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let elements = area(call, rows, width)?;
            let d_weight = buffers.write("d_weight", d_weight, d_weight_size, width)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, elements)?;
            let x = buffers.read("x", x, x_size, elements)?;
            let rstd = buffers.read("rstd", rstd, rstd_size, rows)?;
            rms_norm::backward_parameters(simd, d_weight, d_y, x, rstd).or_refuse(call)?;
            Ok(())
        })
    }
}
