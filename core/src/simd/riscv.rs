//! The fused multiply-add of RISC-V.

pub(crate) use super::tile::kernel;

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    let sum;
    // SAFETY: targets whose names have an F have this instruction, which changes nothing but its result.
    unsafe {
        core::arch::asm!(
            "fmadd.s {sum}, {a}, {b}, {c}",
            sum = out(freg) sum, a = in(freg) a, b = in(freg) b, c = in(freg) c,
            options(pure, nomem, nostack)
        );
    }
    sum
}
