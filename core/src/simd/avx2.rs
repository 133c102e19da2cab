//! Sixteen lanes in two 256-bit registers: AVX2 and FMA (x86-64, 2013 on).
#![allow(unsafe_code)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "one comment speaks for all of them")]

use core::arch::x86_64::*;

use super::{LANES, Vector, WideVector};

// Every `unsafe` in this file calls an intrinsic that needs AVX2 or FMA. SAFETY (of all of them): the type is only
// used if `is_available` was true (`super::InstructionSet`), and loads and stores use references to whole arrays.

#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// Whether the processor and the operating system offer AVX2 and FMA.
pub(crate) fn is_available() -> bool {
    const OSXSAVE_AVX_FMA: u32 = 1 << 27 | 1 << 28 | 1 << 12;
    const YMM_STATE: u64 = 0b110;
    const AVX2: u32 = 1 << 5;
    identification(0).eax >= 7
        && identification(1).ecx & OSXSAVE_AVX_FMA == OSXSAVE_AVX_FMA
        && enabled_state() & YMM_STATE == YMM_STATE
        && identification(7).ebx & AVX2 != 0
}

/// What the processor says of itself.
#[allow(unused_unsafe, reason = "the oldest compiler takes the instruction for unsafe")]
pub(super) fn identification(leaf: u32) -> CpuidResult {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { __cpuid_count(leaf, 0) }
}

/// The register state that the operating system saves (XCR0).
pub(super) fn enabled_state() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: register 0 always exists.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: only called if the OSXSAVE bit is set.
    unsafe { read() }
}

macro_rules! lanewise {
    ($($name:ident($($arg:ident),*) = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self),*) -> Self {
            unsafe { Avx2($intrinsic(self.0, $($arg.0),*), $intrinsic(self.1, $($arg.1),*)) }
        }
    )*};
}

macro_rules! bitwise {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(a: Self::Bits, b: Self::Bits) -> Self::Bits {
            unsafe { ($intrinsic(a.0, b.0), $intrinsic(a.1, b.1)) }
        }
    )*};
}

impl Vector for Avx2 {
    type Array = [f32; LANES];
    type Bits = (__m256i, __m256i);
    type Mask = (__m256, __m256);

    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Avx2(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        unsafe { Avx2(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        }
    }
    lanewise! {
        add(other) = _mm256_add_ps;
        sub(other) = _mm256_sub_ps;
        mul(other) = _mm256_mul_ps;
        div(other) = _mm256_div_ps;
        mul_add(factor, summand) = _mm256_fmadd_ps;
        max(other) = _mm256_max_ps;
        sqrt() = _mm256_sqrt_ps;
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        unsafe {
            (_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0), _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, other.1))
        }
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        unsafe { Avx2(_mm256_blendv_ps(no.0, yes.0, mask.0), _mm256_blendv_ps(no.1, yes.1, mask.1)) }
    }
    #[inline(always)]
    fn total([sum, ..]: [Self; LANES]) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(sum.0, sum.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn to_bits(self) -> Self::Bits {
        unsafe { (_mm256_castps_si256(self.0), _mm256_castps_si256(self.1)) }
    }
    #[inline(always)]
    fn from_bits(bits: Self::Bits) -> Self {
        unsafe { Avx2(_mm256_castsi256_ps(bits.0), _mm256_castsi256_ps(bits.1)) }
    }
    #[inline(always)]
    fn splat_bits(value: u32) -> Self::Bits {
        unsafe { (_mm256_set1_epi32(value as i32), _mm256_set1_epi32(value as i32)) }
    }
    #[inline(always)]
    fn lane_numbers() -> Self::Bits {
        unsafe {
            (_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))
        }
    }
    bitwise! {
        add_bits = _mm256_add_epi32;
        mul_bits = _mm256_mullo_epi32;
        and_bits = _mm256_and_si256;
        xor_bits = _mm256_xor_si256;
    }
    #[inline(always)]
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits {
        unsafe { (_mm256_slli_epi32::<N>(a.0), _mm256_slli_epi32::<N>(a.1)) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits {
        unsafe { (_mm256_srli_epi32::<N>(a.0), _mm256_srli_epi32::<N>(a.1)) }
    }
    #[inline(always)]
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask {
        unsafe {
            (
                _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.0, a.0)),
                _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.1, a.1)),
            )
        }
    }
    #[inline(always)]
    fn from_signed(a: Self::Bits) -> Self {
        unsafe { Avx2(_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
    }
    #[inline(always)]
    fn load_partial(from: &[f32]) -> Self {
        let from_upper = from.as_ptr().wrapping_add(8);
        let (lower, upper) = first_lanes(from.len());
        // Masked lanes are neither read nor written.
        unsafe { Avx2(_mm256_maskload_ps(from.as_ptr(), lower), _mm256_maskload_ps(from_upper, upper)) }
    }
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        let to_upper = to.as_mut_ptr().wrapping_add(8);
        let (lower, upper) = first_lanes(to.len());
        unsafe {
            _mm256_maskstore_ps(to.as_mut_ptr(), lower, self.0);
            _mm256_maskstore_ps(to_upper, upper, self.1);
        }
    }
}

impl WideVector for Avx2 {
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;

    #[inline(always)]
    fn prefetch(address: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(to: *mut f32, from: *const f32, stride: usize, count: usize) {
        // SAFETY: the caller promises every index.
        unsafe { transpose(to, from, stride, count) }
    }
    #[inline(always)]
    unsafe fn mul_add_transposed(
        a: (*const f32, usize),
        b: (*const f32, usize),
        count: usize,
        sum: Self,
    ) -> Self {
        // SAFETY: the caller promises every index.
        unsafe {
            let lower = mul_add_eight(a, b, count, sum.0);
            Avx2(lower, mul_add_eight(a, (b.0.add(8 * b.1), b.1), count, sum.1))
        }
    }
}

/// Masks of the first `count` lanes.
#[inline(always)]
fn first_lanes(count: usize) -> (__m256i, __m256i) {
    let (lower, upper) = Avx2::lane_numbers();
    unsafe {
        let count = _mm256_set1_epi32(count as i32);
        (_mm256_cmpgt_epi32(count, lower), _mm256_cmpgt_epi32(count, upper))
    }
}

/// [`Vector::transpose`] in blocks of eight by eight.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn transpose(to: *mut f32, from: *const f32, stride: usize, count: usize) {
    unsafe {
        let whole = count - count % 8;
        for half in 0..2 {
            let (to, from) = (to.add(8 * half), from.add(8 * half * stride));
            let mut p = 0;
            while p < whole {
                // Prefetches a cache line of each of the next rows: weights of large models come from memory.
                if p.is_multiple_of(LANES) {
                    for j in 8..16 {
                        Avx2::prefetch(from.wrapping_add(j * stride + p));
                    }
                }
                transpose_eight(to.add(LANES * p), from.add(p), stride);
                p += 8;
            }
            while p < count {
                for j in 0..8 {
                    *to.add(LANES * p + j) = *from.add(j * stride + p);
                }
                p += 1;
            }
        }
    }
}

/// `to[16 * p + j] = from[j * stride + p]` for both below eight: pairs of rows interleaved, then pairs of
/// pairs, then halves exchanged.
#[inline(always)]
unsafe fn transpose_eight(to: *mut f32, from: *const f32, stride: usize) {
    unsafe {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (j, row) in rows.iter_mut().enumerate() {
            *row = _mm256_loadu_ps(from.add(j * stride));
        }
        let [a, b, c, d, e, f, g, h] = rows;
        let (low, high) = (transpose_quads(a, b, c, d), transpose_quads(e, f, g, h));
        for (p, (low, high)) in low.into_iter().zip(high).enumerate() {
            _mm256_storeu_ps(to.add(LANES * p), _mm256_permute2f128_ps::<0x20>(low, high));
            _mm256_storeu_ps(to.add(LANES * (p + 4)), _mm256_permute2f128_ps::<0x31>(low, high));
        }
    }
}

/// [`Vector::mul_add_transposed`] for eight of the lanes. The processor can prefetch eight rows of B as streams.
/// Their current cache lines fit into one set of the first-level cache, if all map to the same set.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn mul_add_eight(
    (a, a_stride): (*const f32, usize),
    (b, b_stride): (*const f32, usize),
    count: usize,
    mut sum: __m256,
) -> __m256 {
    // If rows are whole pages apart, prefetching the next ones would evict these from the cache.
    let prefetch_next = !b_stride.is_multiple_of(1024);
    for first in (0..count).step_by(LANES) {
        if prefetch_next {
            for j in 8..16 {
                Avx2::prefetch(b.wrapping_add(j * b_stride + first));
            }
        }
        for p in (first..first + LANES).step_by(4) {
            unsafe {
                let mut rows = [_mm256_setzero_ps(); 4];
                for (j, row) in rows.iter_mut().enumerate() {
                    let lower = _mm256_castps128_ps256(_mm_loadu_ps(b.add(j * b_stride + p)));
                    *row = _mm256_insertf128_ps::<1>(lower, _mm_loadu_ps(b.add((j + 4) * b_stride + p)));
                }
                let [r, s, t, u] = rows;
                for (q, column) in transpose_quads(r, s, t, u).into_iter().enumerate() {
                    sum = _mm256_fmadd_ps(_mm256_broadcast_ss(&*a.add((p + q) * a_stride)), column, sum);
                }
            }
        }
    }
    sum
}

/// Columns of four rows: columns p and p + 4 in the halves of vector p.
#[inline(always)]
unsafe fn transpose_quads(a: __m256, b: __m256, c: __m256, d: __m256) -> [__m256; 4] {
    unsafe {
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
            _mm256_shuffle_ps::<0xEE>(ab_low, cd_low),
            _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm256_shuffle_ps::<0xEE>(ab_high, cd_high),
        ]
    }
}
