//! GELU, forward and backward.

use jostle::ops::gelu;

use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{OrRefuse, call, jostle_error, jostle_status};

/// y = gelu(x), `count` elements (Hendrycks & Gimpel 2016). `activation`: a jostle_activation.
///
/// # Safety
/// `compute` is NULL or readable; `y` is writable, `x` readable for the given number of bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_gelu_forward(
    compute: *const jostle_compute,
    count: usize,
    activation: u32,
    y: *mut f32,
    y_size: usize,
    x: *const f32,
    x_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let y = buffers.write("y", y, y_size, count)?;
            let x = buffers.read("x", x, x_size, count)?;
            gelu::forward(simd, y, x, crate::config::activation(call, activation)?).or_refuse(call)?;
            Ok(())
        })
    }
}

/// d_x = d_y gelu'(x), `count` elements.
///
/// # Safety
/// As for jostle_gelu_forward; `d_x` is writable, `d_y` readable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_gelu_backward(
    compute: *const jostle_compute,
    count: usize,
    activation: u32,
    d_x: *mut f32,
    d_x_size: usize,
    d_y: *const f32,
    d_y_size: usize,
    x: *const f32,
    x_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let simd = Workers::new(call, compute)?.simd();
            let d_x = buffers.write("d_x", d_x, d_x_size, count)?;
            let d_y = buffers.read("d_y", d_y, d_y_size, count)?;
            let x = buffers.read("x", x, x_size, count)?;
            gelu::backward(simd, d_x, d_y, x, crate::config::activation(call, activation)?)
                .or_refuse(call)?;
            Ok(())
        })
    }
}
