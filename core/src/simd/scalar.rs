//! One fused multiply-add and one square root, by the processor's instructions where it has them and the language
//! does not know. The only file that emulates them.

pub(crate) use self::here::{mul_add, sqrt};

#[cfg(not(any(fused = "thumb", fused = "riscv")))]
mod here {
    /// `a * b + c` with one rounding.
    #[inline(always)]
    pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        libm::fmaf(a, b, c)
    }

    #[inline(always)]
    pub(crate) fn sqrt(x: f32) -> f32 {
        libm::sqrtf(x)
    }
}

#[cfg(fused = "riscv")]
mod here {
    use core::arch::asm;

    /// `a * b + c` with one rounding.
    #[inline(always)]
    pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        let sum;
        // SAFETY: targets whose names have an F have this instruction, which changes nothing but its result.
        unsafe {
            asm!(
                "fmadd.s {sum}, {a}, {b}, {c}",
                sum = out(freg) sum, a = in(freg) a, b = in(freg) b, c = in(freg) c,
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
                "fsqrt.s {root}, {x}",
                root = out(freg) root, x = in(freg) x, options(pure, nomem, nostack)
            );
        }
        root
    }
}

#[cfg(fused = "thumb")]
mod here {
    use core::arch::global_asm;

    /// `a * b + c` with one rounding.
    #[inline(always)]
    pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        // SAFETY: below; the ABI of these targets hands floats over in s0, s1, s2.
        unsafe { jostle_mul_add(a, b, c) }
    }

    #[inline(always)]
    pub(crate) fn sqrt(x: f32) -> f32 {
        // SAFETY: as above.
        unsafe { jostle_sqrt(x) }
    }

    unsafe extern "C" {
        fn jostle_mul_add(a: f32, b: f32, c: f32) -> f32;
        fn jostle_sqrt(x: f32) -> f32;
    }

    // Inline assembly has no class for single-precision registers here.
    macro_rules! function {
        ($name:literal, $($instruction:literal),*) => {
            global_asm!(
                ".fpu fpv4-sp-d16",
                concat!(".section .text.", $name, ",\"ax\",%progbits"),
                ".p2align 2",
                ".thumb_func",
                concat!(".type ", $name, ",%function"),
                concat!($name, ":"),
                $($instruction,)*
                "bx lr",
                concat!(".size ", $name, ", . - ", $name),
                ".text",
            );
        };
    }
    function!("jostle_mul_add", "vfma.f32 s2, s0, s1", "vmov.f32 s0, s2");
    function!("jostle_sqrt", "vsqrt.f32 s0, s0");
}
