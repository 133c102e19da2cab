//! Layer normalisation, forward and backward.

use jostle::ops::layer_norm;

use super::area;
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// Layer normalisation (Ba, Kiros & Hinton 2016): y = (x - mean) / sqrt(variance + epsilon) * weight + bias, row by
/// row. Writes `y` [rows, width], `mean` [rows] and `rstd` [rows] (one over the standard deviation) from `x`,
/// `weight` [width] and `bias` [width] (or NULL).
///
/// # Safety
/// `compute` is NULL or readable; `y`, `mean` and `rstd` are writable, `x`, `weight` and `bias` readable for the given
/// bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_layer_norm_forward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    epsilon: f32,
    y: *mut f32,
    y_size: usize,
    mean: *mut f32,
    mean_size: usize,
    rstd: *mut f32,
    rstd_size: usize,
    x: *const f32,
    x_size: usize,
    weight: *const f32,
    weight_size: usize,
    bias: *const f32,
    bias_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let elements = area(call, rows, width)?;
            let y = buffers.write("y", y, y_size, elements)?;
            let mean = buffers.write("mean", mean, mean_size, rows)?;
            let rstd = buffers.write("rstd", rstd, rstd_size, rows)?;
            let x = buffers.read("x", x, x_size, elements)?;
            let weight = buffers.read("weight", weight, weight_size, width)?;
            let bias = buffers.read_optional("bias", bias, bias_size, width)?;
            layer_norm::forward(simd, y, mean, rstd, x, weight, bias, epsilon).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Adds the gradient of the input to `d_x` [rows, width], from `d_y`, `x` and what jostle_layer_norm_forward left.
///
/// # Safety
/// As for jostle_layer_norm_forward; `d_x` is writable, `d_y`, `mean` and `rstd` readable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_layer_norm_backward(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    mean: *const f32,
    mean_size: usize,
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
            let mean = buffers.read("mean", mean, mean_size, rows)?;
            let rstd = buffers.read("rstd", rstd, rstd_size, rows)?;
            let weight = buffers.read("weight", weight, weight_size, width)?;
            layer_norm::backward(simd, d_x, d_y, x, mean, rstd, weight).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Adds the gradients of the parameters to `d_weight` [width] and `d_bias` [width] (or NULL), row after row.
///
/// # Safety
/// As for jostle_layer_norm_backward; `d_weight` and `d_bias` are writable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_layer_norm_backward_parameters(
    compute: *const jostle_compute,
    rows: usize,
    width: usize,
    d_weight: *mut f32,
    d_weight_size: usize,
    d_bias: *mut f32,
    d_bias_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    mean: *const f32,
    mean_size: usize,
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
            let d_bias = buffers.write_optional("d_bias", d_bias, d_bias_size, width)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, elements)?;
            let x = buffers.read("x", x, x_size, elements)?;
            let mean = buffers.read("mean", mean, mean_size, rows)?;
            let rstd = buffers.read("rstd", rstd, rstd_size, rows)?;
            layer_norm::backward_parameters(simd, d_weight, d_bias, d_y, x, mean, rstd).or_refuse(call)?;
            Ok(())
        })
    }
}
