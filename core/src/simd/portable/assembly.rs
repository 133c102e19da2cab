//! Shared by processors with loops in assembly.

use super::loops::{NormedRow, Reduction, count};
use crate::simd::math::exp_of;

unsafe extern "C" {
    fn jostle_sum(x: *const f32, count: usize) -> f32;
    fn jostle_squared_deviations(x: *const f32, count: usize, mean: f32) -> f32;
    fn jostle_squares(x: *const f32, count: usize) -> f32;
    fn jostle_dot(x: *const f32, y: *const f32, count: usize) -> f32;
    fn jostle_norm_dot(
        d_y: *const f32,
        weight: *const f32,
        x: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
    ) -> f32;
}

#[inline(always)]
pub(crate) fn reduce(one: Reduction<'_>) -> Option<f32> {
    // SAFETY: all slices have `count` elements.
    Some(unsafe {
        match one {
            Reduction::Sum { x } => jostle_sum(x.as_ptr(), x.len()),
            Reduction::SquaredDeviations { x, mean } => jostle_squared_deviations(x.as_ptr(), x.len(), mean),
            Reduction::Squares { x } => jostle_squares(x.as_ptr(), x.len()),
            Reduction::Dot { x, y } => jostle_dot(x.as_ptr(), y.as_ptr(), count([x, y])),
            Reduction::NormDot { d_y, weight, x, row: NormedRow { mean, rstd } } => {
                let count = count([d_y, weight, x]);
                jostle_norm_dot(d_y.as_ptr(), weight.as_ptr(), x.as_ptr(), count, mean, rstd)
            }
        }
    })
}

/// `x = exp(x scale - maximum)` by a loop over a pointer and a number of elements. It stops at an element that it
/// cannot handle, and returns the number of remaining elements.
///
/// # Safety
/// The loop must stay within its elements, and return at most their number.
#[inline(always)]
pub(super) unsafe fn exponentials(
    x: &mut [f32],
    scale: f32,
    maximum: f32,
    kernel: impl Fn(*mut f32, usize) -> usize,
) {
    // SAFETY: there are `left` elements before the end.
    unsafe {
        let (mut left, end) = (x.len(), x.as_mut_ptr().add(x.len()));
        loop {
            left = kernel(end.sub(left), left);
            if left == 0 {
                break;
            }
            let x = &mut *end.sub(left);
            *x = exp_of(*x * scale - maximum);
            left -= 1;
        }
    }
}
