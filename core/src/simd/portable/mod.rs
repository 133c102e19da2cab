//! One lane, for processors without vector instructions, and the reference for the others.
//!
//! `processor` is one of three modules, chosen for the target. It has the fused multiply-add, the square root,
//! register tiles, and any loops of its own (`loops.rs` lists them).

#[cfg(any(processor = "riscv", processor = "thumb"))]
mod assembly;
#[cfg(fused)]
mod fused;
mod loops;
#[cfg_attr(not(any(processor = "riscv", processor = "thumb")), path = "generic.rs")]
#[cfg_attr(processor = "riscv", path = "riscv/mod.rs")]
#[cfg_attr(processor = "thumb", path = "thumb/mod.rs")]
pub(crate) mod processor;
pub(crate) mod tile;

use core::hint::black_box;

use super::{LANES, Vector, tree};
pub(crate) use loops::{AdamW, Loop, NormedRow, Reduction};

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Portable(f32);

impl Vector for Portable {
    type Array = [f32; 1];
    type Bits = u32;
    type Mask = bool;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Portable(value)
    }
    #[inline(always)]
    fn load(from: &[f32; 1]) -> Self {
        Portable(from[0])
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; 1]) {
        to[0] = self.0;
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Portable(self.0 + other.0)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Portable(self.0 - other.0)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Portable(self.0 * other.0)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Portable(self.0 / other.0)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        Portable(processor::mul_add(self.0, factor.0, summand.0))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Portable(processor::sqrt(self.0))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self::select(other.lt(self), self, other)
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        self.0 < other.0
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        if mask { yes } else { no }
    }
    #[inline(never)]
    fn no_sums() -> [Self; LANES] {
        // If compilers know the value, they call `memset`, whose loop takes five times as long on microcontrollers.
        let zero = black_box(Self::zero());
        core::array::from_fn(|_| zero)
    }
    #[inline(never)]
    fn total(partial: [Self; LANES]) -> f32 {
        tree(partial).0
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        self.0
    }
    #[inline(always)]
    fn stay_rolled() {
        processor::stay_rolled();
    }
    #[inline(always)]
    fn run(one: Loop<'_>) -> bool {
        processor::run(one)
    }
    #[inline(always)]
    fn reduce(one: Reduction<'_>) -> Option<f32> {
        processor::reduce(one)
    }
    #[inline(always)]
    fn to_bits(self) -> Self::Bits {
        self.0.to_bits()
    }
    #[inline(always)]
    fn from_bits(bits: Self::Bits) -> Self {
        Portable(f32::from_bits(bits))
    }
    #[inline(always)]
    fn splat_bits(value: u32) -> Self::Bits {
        value
    }
    #[inline(always)]
    fn lane_numbers() -> Self::Bits {
        0
    }
    #[inline(always)]
    fn add_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn mul_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        a.wrapping_mul(b)
    }
    #[inline(always)]
    fn and_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        a & b
    }
    #[inline(always)]
    fn xor_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits {
        a ^ b
    }
    #[inline(always)]
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits {
        a << N
    }
    #[inline(always)]
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits {
        a >> N
    }
    #[inline(always)]
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask {
        (a as i32) < b as i32
    }
    #[inline(always)]
    fn from_signed(a: Self::Bits) -> Self {
        Portable(a as i32 as f32)
    }
}
