//! Sixteen lanes in four 128-bit registers: NEON, which every 64-bit Arm processor has.
#![allow(unsafe_code)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "one comment speaks for all of them")]

use core::arch::aarch64::*;

use super::{LANES, Vector, WideVector};

// Every `unsafe` in this file calls a NEON intrinsic. SAFETY (of all of them): NEON is part of the aarch64 baseline
// that the file is compiled for, and loads and stores use references to whole arrays.

#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 4]);

#[inline(always)]
fn each<A: Copy, B>(a: [A; 4], f: impl Fn(A) -> B) -> [B; 4] {
    let [a0, a1, a2, a3] = a;
    [f(a0), f(a1), f(a2), f(a3)]
}

#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: [A; 4], b: [B; 4], f: impl Fn(A, B) -> C) -> [C; 4] {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a, b);
    [f(a0, b0), f(a1, b1), f(a2, b2), f(a3, b3)]
}

impl Vector for Neon {
    type Array = [f32; LANES];
    type Bits = [uint32x4_t; 4];
    type Mask = [uint32x4_t; 4];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Neon([vdupq_n_f32(value); 4]) }
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        unsafe { Neon(each([0, 4, 8, 12], |i| vld1q_f32(from.as_ptr().add(i)))) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        let to = to.as_mut_ptr();
        unsafe {
            both([0, 4, 8, 12], self.0, |i, v| vst1q_f32(to.add(i), v));
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Neon(both(self.0, other.0, |a, b| vaddq_f32(a, b))) }
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { Neon(both(self.0, other.0, |a, b| vsubq_f32(a, b))) }
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Neon(both(self.0, other.0, |a, b| vmulq_f32(a, b))) }
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        unsafe { Neon(both(self.0, other.0, |a, b| vdivq_f32(a, b))) }
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        let factors = both(self.0, factor.0, |a, b| (a, b));
        unsafe { Neon(both(factors, summand.0, |(a, b), c| vfmaq_f32(c, a, b))) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { Neon(each(self.0, |a| vsqrtq_f32(a))) }
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self::select(other.lt(self), self, other)
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        unsafe { both(self.0, other.0, |a, b| vcltq_f32(a, b)) }
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        let choices = both(yes.0, no.0, |a, b| (a, b));
        unsafe { Neon(both(mask, choices, |m, (a, b)| vbslq_f32(m, a, b))) }
    }
    #[inline(always)]
    fn total([sum, ..]: [Self; LANES]) -> f32 {
        unsafe {
            let [a, b, c, d] = sum.0;
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn to_bits(self) -> Self::Bits {
        unsafe { each(self.0, |a| vreinterpretq_u32_f32(a)) }
    }
    #[inline(always)]
    fn from_bits(bits: Self::Bits) -> Self {
        unsafe { Neon(each(bits, |a| vreinterpretq_f32_u32(a))) }
    }
    #[inline(always)]
    fn splat_bits(value: u32) -> Self::Bits {
        unsafe { [vdupq_n_u32(value); 4] }
    }
    #[inline(always)]
    fn lane_numbers() -> Self::Bits {
        const NUMBERS: [u32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        unsafe { each([0, 4, 8, 12], |i| vld1q_u32(NUMBERS.as_ptr().add(i))) }
    }
    #[inline(always)]
    fn add_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        unsafe { both(a, b, |a, b| vaddq_u32(a, b)) }
    }
    #[inline(always)]
    fn mul_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        unsafe { both(a, b, |a, b| vmulq_u32(a, b)) }
    }
    #[inline(always)]
    fn and_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        unsafe { both(a, b, |a, b| vandq_u32(a, b)) }
    }
    #[inline(always)]
    fn xor_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        unsafe { both(a, b, |a, b| veorq_u32(a, b)) }
    }
    #[inline(always)]
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits {
        unsafe { each(a, |a| vshlq_n_u32::<N>(a)) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits {
        unsafe { each(a, |a| vshrq_n_u32::<N>(a)) }
    }
    #[inline(always)]
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask {
        unsafe { both(a, b, |a, b| vcltq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b))) }
    }
    #[inline(always)]
    fn from_signed(a: Self::Bits) -> Self {
        unsafe { Neon(each(a, |a| vcvtq_f32_s32(vreinterpretq_s32_u32(a)))) }
    }
}

impl WideVector for Neon {
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
}
