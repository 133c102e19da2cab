//! The affine map, forward and backward.

use jostle::matmul::{self, Size};
use jostle::ops::linear;

use super::area;
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// y = x W + b, with y [rows, out], x [rows, in], W [in, out] and b [out] or NULL.
///
/// `scratch`: jostle_matmul_scratch_size(rows, out, in) bytes.
///
/// # Safety
/// `compute` is NULL or readable; `y` and `scratch` are writable, `x`, `weight` and `bias` readable for the given
/// bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_linear_forward(
    compute: *const jostle_compute,
    rows: usize,
    inputs: usize,
    outputs: usize,
    y: *mut f32,
    y_size: usize,
    x: *const f32,
    x_size: usize,
    weight: *const f32,
    weight_size: usize,
    bias: *const f32,
    bias_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let y = buffers.write("y", y, y_size, area(call, rows, outputs)?)?;
            let x = buffers.read("x", x, x_size, area(call, rows, inputs)?)?;
            let weight = buffers.read("weight", weight, weight_size, area(call, inputs, outputs)?)?;
            let bias = buffers.read_optional("bias", bias, bias_size, outputs)?;
            let wanted = matmul::scratch(Size { m: rows, n: outputs, k: inputs });
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            linear::forward(simd, y, x, weight, bias, inputs, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Writes d_x [rows, in] from d_y [rows, out] and W [in, out].
///
/// `scratch`: jostle_matmul_scratch_size(rows, in, out) bytes.
///
/// # Safety
/// As for jostle_linear_forward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_linear_backward(
    compute: *const jostle_compute,
    rows: usize,
    inputs: usize,
    outputs: usize,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    weight: *const f32,
    weight_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let d_x = buffers.write("d_x", d_x, d_x_size, area(call, rows, inputs)?)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, area(call, rows, outputs)?)?;
            let weight = buffers.read("weight", weight, weight_size, area(call, inputs, outputs)?)?;
            let wanted = matmul::scratch(Size { m: rows, n: inputs, k: outputs });
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            linear::backward(simd, d_x, d_y, weight, inputs, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}

/// Adds the gradients of the parameters to d_weight [in, out] and d_bias [out] (or NULL), from x [rows, in] and
/// d_y [rows, out].
///
/// `scratch`: jostle_matmul_scratch_size(in, out, rows) bytes.
///
/// # Safety
/// As for jostle_linear_forward; `d_weight` and `d_bias` are writable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_linear_backward_parameters(
    compute: *const jostle_compute,
    rows: usize,
    inputs: usize,
    outputs: usize,
    d_weight: *mut f32,
    d_weight_size: usize,
    d_bias: *mut f32,
    d_bias_size: usize,
    x: *const f32,
    x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    scratch: *mut f32,
    scratch_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let d_weight =
                buffers.write("d_weight", d_weight, d_weight_size, area(call, inputs, outputs)?)?;
            let d_bias = buffers.write_optional("d_bias", d_bias, d_bias_size, outputs)?;
            let x = buffers.read("x", x, x_size, area(call, rows, inputs)?)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, area(call, rows, outputs)?)?;
            let wanted = matmul::scratch(Size { m: inputs, n: outputs, k: rows });
            let scratch = buffers.write("scratch", scratch, scratch_size, wanted)?;
            linear::backward_parameters(simd, d_weight, d_bias, x, d_y, inputs, scratch).or_refuse(call)?;
            Ok(())
        })
    }
}
