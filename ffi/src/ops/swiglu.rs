//! SwiGLU, forward and backward.

use jostle::ops::swiglu;

use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// y = silu(gate) up, `count` elements, with silu(x) = x / (1 + e^-x) (Shazeer 2020).
///
/// # Safety
/// `compute` is NULL or readable; `y` is writable, `gate` and `up` readable for the given number of bytes; `error` is NULL
/// or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_swiglu_forward(
    compute: *const jostle_compute,
    count: usize,
    y: *mut f32,
    y_size: usize,
    gate: *const f32,
    gate_size: usize,
    up: *const f32,
    up_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let y = buffers.write("y", y, y_size, count)?;
            let gate = buffers.read("gate", gate, gate_size, count)?;
            let up = buffers.read("up", up, up_size, count)?;
            swiglu::forward(simd, y, gate, up).or_refuse(call)?;
            Ok(())
        })
    }
}

/// d_gate = d_y up silu'(gate) and d_up = d_y silu(gate), `count` elements.
///
/// # Safety
/// As for jostle_swiglu_forward; `d_gate` and `d_up` are writable, `d_y` readable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_swiglu_backward(
    compute: *const jostle_compute,
    count: usize,
    d_gate: *mut f32,
    d_gate_size: usize,
    d_up: *mut f32,
    d_up_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    gate: *const f32,
    gate_size: usize,
    up: *const f32,
    up_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let d_gate = buffers.write("d_gate", d_gate, d_gate_size, count)?;
            let d_up = buffers.write("d_up", d_up, d_up_size, count)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, count)?;
            let gate = buffers.read("gate", gate, gate_size, count)?;
            let up = buffers.read("up", up, up_size, count)?;
            swiglu::backward(simd, d_gate, d_up, d_y, gate, up).or_refuse(call)?;
            Ok(())
        })
    }
}
