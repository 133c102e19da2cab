//! The vocabulary of vector operations that every instruction set implements.

use super::{Loop, Reduction};

/// The lanes of a [`WideVector`], and the partial sums of every [`Sum`].
pub(crate) const LANES: usize = 16;

/// A vector's lanes in memory.
pub(crate) trait Lanes: Copy + AsMut<[f32]> {
    const COUNT: usize;
    const ZERO: Self;
    /// The whole vectors of a slice, and the rest.
    fn cut(x: &[f32]) -> (&[Self], &[f32]);
    fn cut_mut(x: &mut [f32]) -> (&mut [Self], &mut [f32]);
}

impl<const N: usize> Lanes for [f32; N] {
    const COUNT: usize = N;
    const ZERO: Self = [0.0; N];

    #[inline(always)]
    fn cut(x: &[f32]) -> (&[Self], &[f32]) {
        x.as_chunks()
    }
    #[inline(always)]
    fn cut_mut(x: &mut [f32]) -> (&mut [Self], &mut [f32]) {
        x.as_chunks_mut()
    }
}

/// f32 lanes: sixteen, or one.
pub(crate) trait Vector: Copy {
    /// The lanes in memory.
    type Array: Lanes;
    /// The same number of u32 lanes.
    type Bits: Copy;
    /// The same number of truth values.
    type Mask: Copy;
    /// The number of lanes.
    const LANES: usize = Self::Array::COUNT;

    fn splat(value: f32) -> Self;
    fn load(from: &Self::Array) -> Self;
    fn store(self, to: &mut Self::Array);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// `self * factor + summand` with one rounding.
    fn mul_add(self, factor: Self, summand: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `if self > other { self } else { other }`, lane by lane.
    fn max(self, other: Self) -> Self;
    fn lt(self, other: Self) -> Self::Mask;
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Empty partial sums.
    #[inline(always)]
    fn no_sums() -> [Self; LANES] {
        [Self::zero(); LANES]
    }

    /// The fixed tree of every sum over its sixteen partial sums, which are the lanes of the first vectors: `j` and
    /// `j + 8`, then `j + 4`, `j + 2`, `j + 1`.
    fn total(partial: [Self; LANES]) -> f32;
    /// The greatest lane.
    fn reduce_max(self) -> f32;

    /// Keeps a compiler from unrolling a loop on targets where that takes more flash than it saves time.
    #[inline(always)]
    fn stay_rolled() {}

    /// Runs the instruction set's own loop. Returns whether it has one.
    #[inline(always)]
    fn run(_: Loop<'_>) -> bool {
        false
    }

    /// The sum by the instruction set's own loop, if it has one.
    #[inline(always)]
    fn reduce(_: Reduction<'_>) -> Option<f32> {
        None
    }

    fn to_bits(self) -> Self::Bits;
    fn from_bits(bits: Self::Bits) -> Self;
    fn splat_bits(value: u32) -> Self::Bits;
    /// 0, 1, ..., `LANES - 1`.
    fn lane_numbers() -> Self::Bits;
    fn add_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn mul_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn and_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn xor_bits(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits;
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits;
    /// Signed less-than.
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask;
    /// The lanes as signed integers, converted; exact below 2^24.
    fn from_signed(a: Self::Bits) -> Self;

    /// The lanes before lane `count`.
    #[inline(always)]
    fn first_lanes(count: usize) -> Self::Mask {
        Self::lt_bits(Self::lane_numbers(), Self::splat_bits(count as u32))
    }

    /// The first lanes from a slice of fewer, the rest zero.
    #[inline(always)]
    fn load_partial(from: &[f32]) -> Self {
        let mut lanes = Self::Array::ZERO;
        for (lane, value) in lanes.as_mut().iter_mut().zip(from) {
            *lane = *value;
        }
        Self::load(&lanes)
    }

    /// The first lanes into a slice of fewer.
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let mut lanes = Self::Array::ZERO;
        self.store(&mut lanes);
        for (value, lane) in to.iter_mut().zip(lanes.as_mut()) {
            *value = *lane;
        }
    }

    /// The first lane.
    #[inline(always)]
    fn first(self) -> f32 {
        let mut lane = [0.0];
        self.store_partial(&mut lane);
        lane[0]
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::from_bits(Self::and_bits(self.to_bits(), Self::splat_bits(0x7fff_ffff)))
    }
}

/// Sixteen f32 lanes, with further operations for products.
pub(crate) trait WideVector: Vector<Array = [f32; LANES]> {
    /// The rows of a product's register tile: as many accumulators as fit into the registers beside the operands.
    const TILE_ROWS: usize;
    /// Its panels of sixteen columns: two if one register holds sixteen lanes. An element of A then serves two
    /// multiply-adds, which would otherwise wait for loads.
    const TILE_PANELS: usize;

    /// `to[16 * p + j] = from[j * stride + p]` for `j` in `0..16` and `p` in `0..count`.
    ///
    /// # Safety
    /// `to` must be writable for `16 * count` elements, and `from` readable at every index above.
    #[inline(always)]
    unsafe fn transpose(to: *mut f32, from: *const f32, stride: usize, count: usize) {
        for p in 0..count {
            for j in 0..LANES {
                // SAFETY: the caller promises both indices.
                unsafe { *to.add(LANES * p + j) = *from.add(j * stride + p) };
            }
        }
    }

    /// The chains `sum[j] + a[0] * b[j, 0] + a[1] * b[j, 1] + ...` of `count` multiply-adds, a multiple of sixteen.
    /// Element `p` of A is `a.0[p * a.1]`, and element `[j, p]` of B is `b.0[j * b.1 + p]`.
    ///
    /// # Safety
    /// Both must be readable at every index above.
    #[inline(always)]
    unsafe fn mul_add_transposed(
        a: (*const f32, usize),
        b: (*const f32, usize),
        count: usize,
        mut sum: Self,
    ) -> Self {
        let mut block = [[0.0; LANES]; LANES];
        for first in (0..count).step_by(LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                Self::transpose(block.as_mut_ptr().cast(), b.0.add(first), b.1, LANES);
                for (p, row) in (first..).zip(&block) {
                    sum = Self::splat(*a.0.add(p * a.1)).mul_add(Self::load(row), sum);
                }
            }
        }
        sum
    }

    /// Prefetches the cache line of an address, which need not be readable. Does not change results.
    #[inline(always)]
    fn prefetch(_: *const f32) {}
}
