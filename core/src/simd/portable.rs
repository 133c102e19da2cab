//! Sixteen lanes in plain Rust, for processors without vector instructions, and the reference for the
//! others.

use super::{LANES, Vector, reduce_lanes, scalar};

#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

#[inline(always)]
fn zip<A: Copy, B: Copy, C: Copy + Default>(
    a: [A; LANES],
    b: [B; LANES],
    f: impl Fn(A, B) -> C,
) -> [C; LANES] {
    let mut out = [C::default(); LANES];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(a, b);
    }
    out
}

impl Vector for Portable {
    type Bits = [u32; LANES];
    type Mask = [bool; LANES];
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Portable([value; LANES])
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Portable(*from)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Portable(zip(self.0, other.0, |a, b| a + b))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Portable(zip(self.0, other.0, |a, b| a - b))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Portable(zip(self.0, other.0, |a, b| a * b))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Portable(zip(self.0, other.0, |a, b| a / b))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Portable(self.0.map(scalar::sqrt))
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        let factors = zip(self.0, factor.0, |a, b| (a, b));
        Portable(zip(factors, summand.0, |(a, b), c| scalar::mul_add(a, b, c)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Portable(zip(self.0, other.0, |a, b| if a > b { a } else { b }))
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        zip(self.0, other.0, |a, b| a < b)
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        let choices = zip(yes.0, no.0, |a, b| (a, b));
        Portable(zip(mask, choices, |m, (a, b)| if m { a } else { b }))
    }
    #[inline(always)]
    fn reduce_add(self) -> f32 {
        reduce_lanes(self.0, |a, b| a + b)
    }
    #[inline(always)]
    fn to_bits(self) -> Self::Bits {
        self.0.map(f32::to_bits)
    }
    #[inline(always)]
    fn from_bits(bits: Self::Bits) -> Self {
        Portable(bits.map(f32::from_bits))
    }
    #[inline(always)]
    fn splat_bits(value: u32) -> Self::Bits {
        [value; LANES]
    }
    #[inline(always)]
    fn lane_numbers() -> Self::Bits {
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    }
    #[inline(always)]
    fn add_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        zip(a, b, u32::wrapping_add)
    }
    #[inline(always)]
    fn sub_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        zip(a, b, u32::wrapping_sub)
    }
    #[inline(always)]
    fn mul_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        zip(a, b, u32::wrapping_mul)
    }
    #[inline(always)]
    fn and_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn xor_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        zip(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits {
        a.map(|a| a << N)
    }
    #[inline(always)]
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits {
        a.map(|a| a >> N)
    }
    #[inline(always)]
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask {
        zip(a, b, |a, b| (a as i32) < (b as i32))
    }
    #[inline(always)]
    fn from_signed(a: Self::Bits) -> Self {
        Portable(a.map(|a| a as i32 as f32))
    }
}
