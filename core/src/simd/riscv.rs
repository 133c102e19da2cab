//! The fused multiply-add and the square root of RISC-V.

use super::tile::{self, Form, Kernel};

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    let mut sum = c;
    // SAFETY: targets whose names have an F have this instruction, which changes nothing but its result.
    unsafe {
        core::arch::asm!(
            "fmadd.s {sum}, {a}, {b}, {sum}",
            sum = inout(freg) sum, a = in(freg) a, b = in(freg) b,
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
        core::arch::asm!(
            "fsqrt.s {root}, {x}",
            root = lateout(freg) root, x = in(freg) x,
            options(pure, nomem, nostack)
        );
    }
    root
}

/// Keeps a compiler from unrolling the loop that it stands in.
#[inline(always)]
pub(crate) fn stay_rolled() {
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}

pub(crate) fn kernel(a: Form, b: Form) -> Option<Kernel> {
    tile::kernel::<true>(a, b)
}
