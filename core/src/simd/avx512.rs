//! Sixteen lanes in one 512-bit register: AVX-512 F and DQ (x86-64, 2017 on).
#![allow(unsafe_code)]
#![allow(clippy::undocumented_unsafe_blocks, reason = "one comment speaks for all of them")]

use core::arch::x86_64::*;

use super::{LANES, Vector, WideVector, avx2};

// Every `unsafe` in this file calls an intrinsic that needs AVX-512. SAFETY (of all of them): the type is only used
// if `is_available` was true (`super::InstructionSet`), and loads and stores use references to whole arrays.

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// Whether the processor and the operating system offer AVX-512 F and DQ, AVX2 and FMA.
pub(crate) fn is_available() -> bool {
    const F_DQ: u32 = 1 << 16 | 1 << 17;
    const ZMM_STATE: u64 = 0b1110_0110;
    avx2::is_available()
        && avx2::enabled_state() & ZMM_STATE == ZMM_STATE
        && avx2::identification(7).ebx & F_DQ == F_DQ
}

macro_rules! lanewise {
    ($($name:ident($($arg:ident),*) = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self),*) -> Self {
            unsafe { Avx512($intrinsic(self.0, $($arg.0),*)) }
        }
    )*};
}

macro_rules! bitwise {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(a: Self::Bits, b: Self::Bits) -> Self::Bits {
            unsafe { $intrinsic(a, b) }
        }
    )*};
}

impl Vector for Avx512 {
    type Array = [f32; LANES];
    type Bits = __m512i;
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        unsafe { Avx512(_mm512_set1_ps(value)) }
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        unsafe { Avx512(_mm512_loadu_ps(from.as_ptr())) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }
    lanewise! {
        add(other) = _mm512_add_ps;
        sub(other) = _mm512_sub_ps;
        mul(other) = _mm512_mul_ps;
        div(other) = _mm512_div_ps;
        mul_add(factor, summand) = _mm512_fmadd_ps;
        max(other) = _mm512_max_ps;
        sqrt() = _mm512_sqrt_ps;
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        unsafe { Avx512(_mm512_mask_blend_ps(mask, no.0, yes.0)) }
    }
    #[inline(always)]
    fn total([sum, ..]: [Self; LANES]) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(sum.0), _mm512_extractf32x8_ps::<1>(sum.0));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn to_bits(self) -> Self::Bits {
        unsafe { _mm512_castps_si512(self.0) }
    }
    #[inline(always)]
    fn from_bits(bits: Self::Bits) -> Self {
        unsafe { Avx512(_mm512_castsi512_ps(bits)) }
    }
    #[inline(always)]
    fn splat_bits(value: u32) -> Self::Bits {
        unsafe { _mm512_set1_epi32(value as i32) }
    }
    #[inline(always)]
    fn lane_numbers() -> Self::Bits {
        unsafe { _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }
    }
    bitwise! {
        add_bits = _mm512_add_epi32;
        mul_bits = _mm512_mullo_epi32;
        and_bits = _mm512_and_si512;
        xor_bits = _mm512_xor_si512;
    }
    #[inline(always)]
    fn shift_left<const N: i32>(a: Self::Bits) -> Self::Bits {
        // The intrinsic needs an unsigned constant, which `N` cannot become here, so the count is in a register.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(a: Self::Bits) -> Self::Bits {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn lt_bits(a: Self::Bits, b: Self::Bits) -> Self::Mask {
        unsafe { _mm512_cmplt_epi32_mask(a, b) }
    }
    #[inline(always)]
    fn from_signed(a: Self::Bits) -> Self {
        unsafe { Avx512(_mm512_cvtepi32_ps(a)) }
    }
    #[inline(always)]
    fn load_partial(from: &[f32]) -> Self {
        // Masked lanes are neither read nor written.
        unsafe { Avx512(_mm512_maskz_loadu_ps(first_lanes(from.len()), from.as_ptr())) }
    }
    #[inline(always)]
    fn store_partial(self, to: &mut [f32]) {
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first_lanes(to.len()), self.0) }
    }
}

impl WideVector for Avx512 {
    const TILE_ROWS: usize = 12;
    const TILE_PANELS: usize = 2;

    #[inline(always)]
    fn prefetch(address: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(to: *mut f32, from: *const f32, stride: usize, count: usize) {
        // SAFETY: the caller promises every index. AVX-512 includes AVX2.
        unsafe {
            let whole = count - count % LANES;
            let mut p = 0;
            while p < whole {
                // Prefetches the next columns: weights of large models come from memory.
                for j in 0..LANES {
                    Self::prefetch(from.wrapping_add(j * stride + p + LANES));
                }
                transpose_block(to.add(LANES * p), from.add(p), stride);
                p += LANES;
            }
            avx2::transpose(to.add(LANES * whole), from.add(whole), stride, count - whole);
        }
    }
    #[inline(always)]
    unsafe fn mul_add_transposed(
        a: (*const f32, usize),
        b: (*const f32, usize),
        count: usize,
        sum: Self,
    ) -> Self {
        // SAFETY: as above.
        unsafe {
            let lower = avx2::mul_add_eight(a, b, count, _mm512_castps512_ps256(sum.0));
            let upper = _mm512_extractf32x8_ps::<1>(sum.0);
            let upper = avx2::mul_add_eight(a, (b.0.add(8 * b.1), b.1), count, upper);
            Avx512(_mm512_insertf32x8::<1>(_mm512_castps256_ps512(lower), upper))
        }
    }
}

/// [`WideVector::transpose`] of sixteen columns: pairs of rows interleaved, then pairs of pairs, then quarters of
/// registers exchanged twice.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn transpose_block(to: *mut f32, from: *const f32, stride: usize) {
    unsafe {
        let mut rows = [_mm512_setzero_ps(); LANES];
        for (j, row) in rows.iter_mut().enumerate() {
            *row = _mm512_loadu_ps(from.add(j * stride));
        }
        // Column 4 q + c of four rows is the quarter q of the vector c of their group.
        let mut groups = [[_mm512_setzero_ps(); 4]; 4];
        for (group, four) in groups.iter_mut().zip(rows.as_chunks::<4>().0) {
            let [a, b, c, d] = *four;
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            *group = [
                _mm512_shuffle_ps::<0x44>(ab_low, cd_low),
                _mm512_shuffle_ps::<0xEE>(ab_low, cd_low),
                _mm512_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm512_shuffle_ps::<0xEE>(ab_high, cd_high),
            ];
        }
        let [first, second, third, fourth] = groups;
        for c in 0..4 {
            let (a, b, d, e) = (first[c], second[c], third[c], fourth[c]);
            let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
            let (de_even, de_odd) = (_mm512_shuffle_f32x4::<0x88>(d, e), _mm512_shuffle_f32x4::<0xDD>(d, e));
            let columns = [
                _mm512_shuffle_f32x4::<0x88>(ab_even, de_even),
                _mm512_shuffle_f32x4::<0x88>(ab_odd, de_odd),
                _mm512_shuffle_f32x4::<0xDD>(ab_even, de_even),
                _mm512_shuffle_f32x4::<0xDD>(ab_odd, de_odd),
            ];
            for (q, column) in columns.into_iter().enumerate() {
                _mm512_storeu_ps(to.add(LANES * (4 * q + c)), column);
            }
        }
    }
}

/// The mask of the first `count` lanes, at most sixteen.
#[inline(always)]
fn first_lanes(count: usize) -> __mmask16 {
    if count < LANES { (1 << count) - 1 } else { __mmask16::MAX }
}
