//! One fused multiply-add, by the processor's instruction where it has one. The only file that emulates it.

/// `a * b + c` with one rounding.
#[cfg(not(any(fused = "thumb", fused = "riscv")))]
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    libm::fmaf(a, b, c)
}

/// `a * b + c` with one rounding.
#[cfg(fused = "riscv")]
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

/// `a * b + c` with one rounding.
#[cfg(fused = "thumb")]
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    // SAFETY: below; the ABI of these targets hands floats over in s0, s1, s2.
    unsafe { jostle_mul_add(a, b, c) }
}

#[cfg(fused = "thumb")]
unsafe extern "C" {
    fn jostle_mul_add(a: f32, b: f32, c: f32) -> f32;
}

// Inline assembly has no class for single-precision registers here.
#[cfg(fused = "thumb")]
core::arch::global_asm!(
    ".fpu fpv4-sp-d16",
    ".section .text.jostle_mul_add,\"ax\",%progbits",
    ".p2align 2",
    ".thumb_func",
    ".type jostle_mul_add,%function",
    "jostle_mul_add:",
    "vfma.f32 s2, s0, s1",
    "vmov.f32 s0, s2",
    "bx lr",
    ".size jostle_mul_add, . - jostle_mul_add",
    ".text",
);
