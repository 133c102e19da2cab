//! A fused multiply-add and a square root for processors that may have none. The only file that emulates them.

pub(crate) use super::loops::{reduce, run};
pub(crate) use super::tile::{compute, kernel, pack};

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    libm::fmaf(a, b, c)
}

#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

#[inline(always)]
pub(crate) fn stay_rolled() {}
