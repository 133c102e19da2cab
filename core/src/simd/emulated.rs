//! A fused multiply-add for processors without one. The only file that emulates it.

pub(crate) use super::tile::kernel;

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    libm::fmaf(a, b, c)
}
