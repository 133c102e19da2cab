//! Rotary positions: the table of angles, and the rotation forward and backward.

use jostle::ops::rotary::{self, Scaling};
use jostle::{Error, InstructionSet};

use super::area;
use crate::border::Buffers;
use crate::compute::{Workers, jostle_compute};
use crate::status::{Call, OrRefuse, Refused, call, jostle_error, jostle_status};

/// Writes the cosines and sines [length, head_width / 2] of rotary positions (Su et al. 2021). Pair i of position p has the
/// angle p / theta^(2 i / head_width). `theta` is at least 1; `head_width` is even.
///
/// `original` is 0, or the original context of Llama 3's scaling, which uses `factor`, `low` and `high`. Frequencies with fewer
/// than `low` turns in the original context are divided by `factor`. Those with more than `high` turns stay.
///
/// # Safety
/// `cos` and `sin` are writable for the given number of bytes; `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_rotary_table(
    length: usize,
    head_width: usize,
    theta: f32,
    factor: f32,
    low: f32,
    high: f32,
    original: usize,
    cos: *mut f32,
    cos_size: usize,
    sin: *mut f32,
    sin_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let mut buffers = Buffers::new(call);
            let entries = area(call, length, head_width / 2)?;
            let scaling = (original > 0).then_some(Scaling { factor, low, high, original });
            let cos = buffers.write("cos", cos, cos_size, entries)?;
            let sin = buffers.write("sin", sin, sin_size, entries)?;
            rotary::table(cos, sin, head_width, theta, scaling).or_refuse(call)?;
            Ok(())
        })
    }
}

/// A rotation of the core's, forward or backward.
type Rotation = fn(InstructionSet, &mut [f32], &[f32], &[f32], usize, usize) -> Result<(), Error>;

/// # Safety
/// The pointers are as the functions below say.
unsafe fn rotate(
    call: &Call,
    compute: *const jostle_compute,
    [rows, heads, head_width]: [usize; 3],
    (what, x, x_size): (&'static str, *mut f32, usize),
    (cos, cos_size): (*const f32, usize),
    (sin, sin_size): (*const f32, usize),
    rotation: Rotation,
) -> Result<(), Refused> {
    let mut buffers = Buffers::new(call);
    // SAFETY: the caller's promise is the same.
    unsafe {
        let simd = Workers::new(call, compute)?.simd();
        let elements = area(call, rows, area(call, heads, head_width)?)?;
        let entries = area(call, rows, head_width / 2)?;
        let x = buffers.write(what, x, x_size, elements)?;
        let cos = buffers.read("cos", cos, cos_size, entries)?;
        let sin = buffers.read("sin", sin, sin_size, entries)?;
        rotation(simd, x, cos, sin, heads, head_width).or_refuse(call)
    }
}

/// Rotates `x` [rows, heads, head_width] in place: in each head, element i together with element i + head_width / 2. Row r has
/// the angles of row r of the table, `cos` and `sin` [rows, head_width / 2].
///
/// # Safety
/// `compute` is NULL or readable; `x` is readable and writable, `cos` and `sin` readable for the given number of bytes;
/// `error` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_rotary_forward(
    compute: *const jostle_compute,
    rows: usize,
    heads: usize,
    head_width: usize,
    x: *mut f32,
    x_size: usize,
    cos: *const f32,
    cos_size: usize,
    sin: *const f32,
    sin_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let shape = [rows, heads, head_width];
            rotate(call, compute, shape, ("x", x, x_size), (cos, cos_size), (sin, sin_size), rotary::forward)
        })
    }
}

/// Turns the gradient of the output into the gradient of the input, `d_x` [rows, heads, head_width], in place.
///
/// # Safety
/// As for jostle_rotary_forward; `d_x` is readable and writable for the given number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_rotary_backward(
    compute: *const jostle_compute,
    rows: usize,
    heads: usize,
    head_width: usize,
    d_x: *mut f32,
    d_x_size: usize,
    cos: *const f32,
    cos_size: usize,
    sin: *const f32,
    sin_size: usize,
    error: *mut jostle_error,
) -> jostle_status {
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe {
        call(error, |call| {
            let shape = [rows, heads, head_width];
            rotate(
                call,
                compute,
                shape,
                ("d_x", d_x, d_x_size),
                (cos, cos_size),
                (sin, sin_size),
                rotary::backward,
            )
        })
    }
}
