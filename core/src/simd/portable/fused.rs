//! The fused multiply-add and the square root of processors that have them as instructions, but for which there are no
//! vectors here. Stable Rust has no function for the former without its standard library.

use core::arch::asm;

macro_rules! instructions {
    ($register:ident, $mul_add:literal, $sqrt:literal) => {
        /// `a * b + c` with one rounding.
        #[inline(always)]
        pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
            let mut sum = c;
            // SAFETY: build.rs has found that the target has this instruction, which changes only its result.
            unsafe {
                asm!(
                    $mul_add,
                    sum = inout($register) sum, a = in($register) a, b = in($register) b,
                    options(pure, nomem, nostack)
                );
            }
            sum
        }

        #[inline(always)]
        pub(crate) fn sqrt(x: f32) -> f32 {
            let root;
            // SAFETY: as above.
            unsafe {
                asm!(
                    $sqrt,
                    root = lateout($register) root, x = in($register) x,
                    options(pure, nomem, nostack)
                );
            }
            root
        }
    };
}

#[cfg(any(target_arch = "riscv64", target_arch = "loongarch64"))]
instructions!(freg, "fmadd.s {sum}, {a}, {b}, {sum}", "fsqrt.s {root}, {x}");

#[cfg(target_arch = "powerpc64")]
instructions!(freg, "fmadds {sum}, {a}, {b}, {sum}", "fsqrts {root}, {x}");

#[cfg(target_arch = "s390x")]
instructions!(freg, "maebr {sum}, {a}, {b}", "sqebr {root}, {x}");

#[cfg(target_arch = "arm")]
instructions!(sreg, "vfma.f32 {sum}, {a}, {b}", "vsqrt.f32 {root}, {x}");
