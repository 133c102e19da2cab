//! One small vocabulary of vector operations ([`Vector`]), one file per instruction set, and the one place
//! that chooses between them. Knows nothing of what is computed.
//!
//! A vector is always sixteen f32 lanes, whatever the registers' width: reductions then have the same order
//! on every processor. Add, multiply, divide and square root are IEEE and never contracted; only
//! [`Vector::mul_add`] is fused.

use crate::error::Error;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
/// What processors without vectors compute products with.
#[cfg_attr(not(any(fused = "riscv", fused = "thumb")), path = "emulated.rs")]
#[cfg_attr(fused = "riscv", path = "riscv.rs")]
#[cfg_attr(fused = "thumb", path = "thumb.rs")]
pub(crate) mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

/// Lanes of a [`Vector`].
pub(crate) const LANES: usize = 16;

/// Sixteen f32 lanes.
pub(crate) trait Vector: Copy {
    /// Sixteen u32 lanes.
    type Bits: Copy;
    /// Sixteen truth values.
    type Mask: Copy;
    /// Rows of a product's register tile: as many accumulators as the registers hold beside the operands.
    const TILE_ROWS: usize;

    fn splat(value: f32) -> Self;
    fn load(from: &[f32; LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `self * factor + summand` with one rounding.
    fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// `if self > other { self } else { other }`, lane by lane.
    fn max(self, other: Self) -> Self;
    fn lt(self, other: Self) -> Self::Mask;
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Lanes `j` and `j + 8`, then `j + 4`, `j + 2`, `j + 1`: the fixed tree of every sum.
    fn reduce_add(self) -> f32;

    fn to_bits(self) -> Self::Bits;
    fn from_bits(bits: Self::Bits) -> Self;
    fn splat_bits(value: u32) -> Self::Bits;
    /// 0, 1, ..., 15.
    fn lane_numbers() -> Self::Bits;
    fn add_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn sub_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn mul_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn and_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn xor_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits;
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits;
    /// Signed less-than.
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask;
    /// The lanes as signed integers, converted; exact below 2^24.
    fn from_signed(a: Self::Bits) -> Self;

    /// `to[16 * p + j] = from[j * stride + p]` for `j` in `0..16` and `p` in `0..count`.
    ///
    /// # Safety
    /// `to` must be writable for `16 * count` elements and `from` readable at every index named.
    #[inline(always)]
    unsafe fn transpose(to: *mut f32, from: *const f32, stride: usize, count: usize) {
        for p in 0..count {
            for j in 0..LANES {
                // SAFETY: the caller vouches for both indices.
                unsafe { *to.add(LANES * p + j) = *from.add(j * stride + p) };
            }
        }
    }

    /// The chains `sum[j] + a[0] * b[j, 0] + a[1] * b[j, 1] + ...` of `count` multiply-adds, a multiple of
    /// sixteen, where element `p` of A is `a.0[p * a.1]` and element `[j, p]` of B is `b.0[j * b.1 + p]`.
    ///
    /// # Safety
    /// Both must be readable at every index named.
    #[inline(always)]
    unsafe fn mul_add_transposed(
        a: (*const f32, usize),
        b: (*const f32, usize),
        count: usize,
        mut sum: Self,
    ) -> Self {
        let mut block = [[0.0; LANES]; LANES];
        for first in (0..count).step_by(LANES) {
            // SAFETY: passed on from the caller.
            unsafe {
                Self::transpose(block.as_mut_ptr().cast(), b.0.add(first), b.1, LANES);
                for (p, row) in (first..).zip(&block) {
                    sum = Self::splat(*a.0.add(p * a.1)).mul_add(Self::load(row), sum);
                }
            }
        }
        sum
    }

    /// Asks for the cache line of an address, which need not be readable. Changes no result.
    #[inline(always)]
    fn prefetch(_: *const f32) {}

    /// The first lanes from a slice of fewer than sixteen, the rest zero.
    #[inline(always)]
    fn load_partial(from: &[f32]) -> Self {
        let mut lanes = [0.0; LANES];
        for (lane, value) in lanes.iter_mut().zip(from) {
            *lane = *value;
        }
        Self::load(&lanes)
    }

    /// The first lanes into a slice of fewer than sixteen.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        for (value, lane) in to.iter_mut().zip(lanes) {
            *value = lane;
        }
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// The greatest lane, by the same tree as [`Vector::reduce_add`].
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        reduce_lanes(lanes, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::from_bits(Self::and_bits(self.to_bits(), Self::splat_bits(0x7fff_ffff)))
    }
}

/// The tree of [`Vector::reduce_add`] over lanes in memory.
#[inline(always)]
fn reduce_lanes(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high) {
            *a = join(*a, *b);
        }
        half /= 2;
    }
    lanes[0]
}

/// `out[i] = f(i / 16, in[i]...)` in vectors, the rest of the last one padded with zeros.
#[inline(always)]
pub(crate) fn map<V: Vector, const N: usize>(
    out: &mut [f32],
    inputs: [&[f32]; N],
    mut f: impl FnMut(usize, [V; N]) -> V,
) {
    let full = out.len() / LANES;
    debug_assert!(inputs.iter().all(|input| input.len() == out.len()));
    let (blocks, tail) = out.as_chunks_mut::<LANES>();
    let inputs = inputs.map(|input| input.as_chunks::<LANES>());
    for (i, block) in blocks.iter_mut().enumerate() {
        let mut values = [V::zero(); N];
        for (value, (input, _)) in values.iter_mut().zip(&inputs) {
            if let Some(input) = input.get(i) {
                *value = V::load(input);
            }
        }
        f(i, values).store(block);
    }
    if !tail.is_empty() {
        let values = inputs.map(|(_, tail)| V::load_partial(tail));
        f(full, values).store_partial(tail);
    }
}

/// `x[i] = f(i / 16, x[i], in[i]...)` in vectors, in place.
#[inline(always)]
pub(crate) fn update<V: Vector, const N: usize>(
    x: &mut [f32],
    inputs: [&[f32]; N],
    mut f: impl FnMut(usize, V, [V; N]) -> V,
) {
    let full = x.len() / LANES;
    debug_assert!(inputs.iter().all(|input| input.len() == x.len()));
    let (blocks, tail) = x.as_chunks_mut::<LANES>();
    let inputs = inputs.map(|input| input.as_chunks::<LANES>());
    for (i, block) in blocks.iter_mut().enumerate() {
        let mut values = [V::zero(); N];
        for (value, (input, _)) in values.iter_mut().zip(&inputs) {
            if let Some(input) = input.get(i) {
                *value = V::load(input);
            }
        }
        f(i, V::load(block), values).store(block);
    }
    if !tail.is_empty() {
        let values = inputs.map(|(_, tail)| V::load_partial(tail));
        f(full, V::load_partial(tail), values).store_partial(tail);
    }
}

/// The sum of `f(in[i]...)` in sixteen lanes and the fixed tree. Where a last vector is not full, lanes
/// beyond it count as zero, whatever `f` makes of zeros.
#[inline(always)]
pub(crate) fn sum<V: Vector, const N: usize>(inputs: [&[f32]; N], mut f: impl FnMut([V; N]) -> V) -> f32 {
    let length = inputs.first().map_or(0, |input| input.len());
    debug_assert!(inputs.iter().all(|input| input.len() == length));
    let inputs = inputs.map(|input| input.as_chunks::<LANES>());
    let mut total = V::zero();
    for i in 0..length / LANES {
        let mut values = [V::zero(); N];
        for (value, (input, _)) in values.iter_mut().zip(&inputs) {
            if let Some(input) = input.get(i) {
                *value = V::load(input);
            }
        }
        total = total.add(f(values));
    }
    let rest = length % LANES;
    if rest > 0 {
        let values = f(inputs.map(|(_, tail)| V::load_partial(tail)));
        let mut lanes = [0.0; LANES];
        values.store(&mut lanes);
        for lane in lanes.iter_mut().skip(rest) {
            *lane = 0.0;
        }
        total = total.add(V::load(&lanes));
    }
    total.reduce_add()
}

/// The greatest element; minus infinity for none.
#[inline(always)]
pub(crate) fn maximum<V: Vector>(x: &[f32]) -> f32 {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let mut most = V::splat(f32::NEG_INFINITY);
    for block in blocks {
        most = V::load(block).max(most);
    }
    tail.iter().fold(most.reduce_max(), |a, b| if *b > a { *b } else { a })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// A set of vector instructions that this processor has. All give the same bits; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionSet(Kind);

impl InstructionSet {
    /// No vector instructions: there on every processor, and the reference for the others.
    pub const PORTABLE: InstructionSet = InstructionSet(Kind::Portable);

    /// Every name that [`InstructionSet::named`] knows on some processor.
    pub const NAMES: [&'static str; 4] = ["portable", "neon", "avx2", "avx512"];

    /// The fastest that this processor has.
    pub fn detect() -> InstructionSet {
        #[cfg(target_arch = "x86_64")]
        return InstructionSet(x86_64_detect());
        #[cfg(target_arch = "aarch64")]
        return InstructionSet(Kind::Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return Self::PORTABLE;
    }

    /// The set of that name, for tests and measurements; [`Error::InstructionSet`] where it is absent.
    pub fn named(name: &str) -> Result<InstructionSet, Error> {
        match name {
            "portable" => Ok(Self::PORTABLE),
            #[cfg(target_arch = "x86_64")]
            "avx2" if avx2::is_available() => Ok(InstructionSet(Kind::Avx2)),
            #[cfg(target_arch = "x86_64")]
            "avx512" if avx512::is_available() => Ok(InstructionSet(Kind::Avx512)),
            #[cfg(target_arch = "aarch64")]
            "neon" => Ok(InstructionSet(Kind::Neon)),
            _ => Err(Error::InstructionSet),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    pub(crate) const fn kind(self) -> Kind {
        self.0
    }
}

/// Asks the processor once: under a hypervisor, asking takes many microseconds.
#[cfg(target_arch = "x86_64")]
fn x86_64_detect() -> Kind {
    use core::sync::atomic::{AtomicU8, Ordering};

    /// One more than the number of sets found, each of which includes the one before; 0 before asking.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    if KNOWN.load(Ordering::Relaxed) == 0 {
        let found = u8::from(avx2::is_available()) + u8::from(avx512::is_available());
        KNOWN.store(1 + found, Ordering::Relaxed);
    }
    match KNOWN.load(Ordering::Relaxed) {
        3 => Kind::Avx512,
        2 => Kind::Avx2,
        _ => Kind::Portable,
    }
}

/// Writes a function once, for every instruction set: the body is compiled for each with its vectors as
/// `V`, and the function takes the [`InstructionSet`] to use as its first argument. With `unsafe fn`, the
/// caller's promises hold for the body as well.
///
/// The body stands in functions that have the instructions enabled, so that closures in it have them too.
/// What it calls is `#[inline(always)]` and keeps vector operations out of closures of its own: those are
/// compiled without the instructions, and each operation in them can become a call.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis unsafe fn $($rest:tt)*) => {
        $crate::simd::vectorized! { @ [$(#[$meta])* $vis] [unsafe] $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::simd::vectorized! { @ [$(#[$meta])* $vis] [] $($rest)* }
    };
    (
        @ [$($front:tt)*] [$($unsafe:tt)?]
        $name:ident<$V:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        #[allow(clippy::too_many_arguments)]
        $($front)* $($unsafe)? fn $name(simd: $crate::simd::InstructionSet, $($arg: $type),*) $(-> $ret)? {
            #[allow(unused_imports)]
            use $crate::simd::{Kind, Vector};

            #[inline(always)]
            $($unsafe)? fn portable($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Portable;
                $body
            }

            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            $($unsafe)? fn neon($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Neon;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            $($unsafe)? fn avx2($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Avx2;
                $body
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
            $($unsafe)? fn avx512($($arg: $type),*) $(-> $ret)? {
                #[allow(dead_code)]
                type $V = $crate::simd::Avx512;
                $body
            }

            #[allow(unsafe_code, unused_unsafe)]
            // SAFETY: an `InstructionSet` is only made where the processor has it; what an unsafe function
            // asks for, its caller has promised.
            unsafe {
                match simd.kind() {
                    Kind::Portable => portable($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Kind::Neon => neon($($arg),*),
                }
            }
        }
    };
}
pub(crate) use vectorized;
