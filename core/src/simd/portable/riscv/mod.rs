//! The fused multiply-add, the square root, the tiles and the loops of RISC-V with a floating-point unit.

use core::arch::asm;

pub(crate) use super::assembly::reduce;
pub(crate) use super::tile::row;
pub(crate) use loops::run;
pub(crate) use products::{BLOCK, Code, code, compute};

/// Defines a global function, because the crate may be compiled in several units, and each may call it. Outside of
/// functions, the assembler does not know the target's extensions.
macro_rules! function {
    ($name:literal, $($instruction:expr),* $(,)? $(; $($operand:ident = $value:expr),* $(,)?)?) => {
        core::arch::global_asm!(
            ".option push",
            ".option arch, +f, +m",
            concat!(".section .text.", $name, ",\"ax\",@progbits"),
            ".p2align 2",
            concat!(".type ", $name, ",@function"),
            concat!(".globl ", $name, "\n.hidden ", $name),
            concat!($name, ":"),
            $($instruction,)*
            concat!(".size ", $name, ", . - ", $name),
            ".text",
            ".option pop",
            $($($operand = const $value,)*)?
        );
    };
}

/// Loads or stores registers, one after the other.
macro_rules! memory {
    ($instruction:literal $address:literal, $($at:literal $register:literal),*) => {
        concat!($($instruction, " ", $register, ", ", $at, "(", $address, ")\n"),*)
    };
}

mod elementwise;
mod exponential;
mod loops;
mod products;
mod sums;

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    let mut sum = c;
    // SAFETY: targets with an F in their name have this instruction, which changes only its result.
    unsafe {
        asm!(
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
        asm!(
            "fsqrt.s {root}, {x}",
            root = lateout(freg) root, x = in(freg) x,
            options(pure, nomem, nostack)
        );
    }
    root
}

/// Keeps a compiler from unrolling the loop around it.
#[inline(always)]
pub(crate) fn stay_rolled() {
    // SAFETY: it contains no instruction.
    unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
}
