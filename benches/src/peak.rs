//! The peak of one core in floating-point operations: independent fused multiply-adds on registers.

/// The fused multiply-adds of one call of [`run`], counted as two operations each; zero if unknown.
pub fn operations() -> u64 {
    2 * (CHAINS * STEPS * lanes()) as u64
}

/// Enough chains to fill every pipeline: two units times four or five cycles.
const CHAINS: usize = 12;
const STEPS: usize = 10_000;

/// Lanes of the widest registers; zero for processors without a loop.
fn lanes() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return 16;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return 8;
        }
    }
    if cfg!(target_arch = "aarch64") { 4 } else { 0 }
}

macro_rules! chains {
    ($name:ident, $set:ident, $multiply_add:ident, $($feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        fn $name() {
            let factor = std::hint::black_box($set(0.999));
            let mut sums = [factor; CHAINS];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = $multiply_add(*sum, factor, factor);
                }
            }
            std::hint::black_box(sums);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{CHAINS, STEPS};
    use std::arch::x86_64::*;

    chains!(eight, _mm256_set1_ps, _mm256_fmadd_ps, "avx2,fma");
    chains!(sixteen, _mm512_set1_ps, _mm512_fmadd_ps, "avx512f");

    pub fn run() {
        match super::lanes() {
            // SAFETY: `lanes` has looked for the instructions.
            16 => unsafe { sixteen() },
            // SAFETY: as above.
            8 => unsafe { eight() },
            _ => {}
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{CHAINS, STEPS};
    use std::arch::aarch64::*;

    chains!(four, vdupq_n_f32, vfmaq_f32, "neon");

    pub fn run() {
        // SAFETY: NEON is part of the baseline.
        unsafe { four() }
    }
}

/// Does [`operations`] operations.
pub fn run() {
    #[cfg(target_arch = "x86_64")]
    x86_64::run();
    #[cfg(target_arch = "aarch64")]
    aarch64::run();
}
