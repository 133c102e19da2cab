//! The fused multiply-add, the square root and the tiles of RISC-V with a floating-point unit.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

pub(crate) use super::loops::{reduce, run};
use super::tile::{Form, Kernel, Strips};
pub(crate) use super::tile::{compute, pack};

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    let mut sum = c;
    // SAFETY: targets whose names have an F have this instruction, which changes nothing but its result.
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

/// Keeps a compiler from unrolling the loop that it stands in.
#[inline(always)]
pub(crate) fn stay_rolled() {
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
}

pub(crate) fn kernel(b: Form) -> Kernel {
    match b {
        Form::Along => jostle_strip_along,
        Form::Across => jostle_strip_across,
    }
}

unsafe extern "C" {
    fn jostle_strip_along(t: &Strips);
    fn jostle_strip_across(t: &Strips);
}

/// Four registers from or to memory.
macro_rules! four {
    ($instruction:literal $a:literal $b:literal $c:literal $d:literal, $address:literal) => {
        concat!(
            $instruction,
            $a,
            ", 0(",
            $address,
            ")\n",
            $instruction,
            $b,
            ", 4(",
            $address,
            ")\n",
            $instruction,
            $c,
            ", 8(",
            $address,
            ")\n",
            $instruction,
            $d,
            ", 12(",
            $address,
            ")\n"
        )
    };
}

/// All sums from or to memory, rows `t5` apart from `$first` on.
macro_rules! sums {
    ($instruction:literal, $first:literal) => {
        concat!(
            "slli t5, t5, 2\n",
            four!($instruction "ft0" "ft1" "ft2" "ft3", $first),
            "add t6, ", $first, ", t5\n",
            four!($instruction "ft4" "ft5" "ft6" "ft7", "t6"),
            "add t6, t6, t5\n",
            four!($instruction "fa0" "fa1" "fa2" "fa3", "t6"),
            "add t6, t6, t5\n",
            four!($instruction "fa4" "fa5" "fa6" "fa7", "t6")
        )
    };
}

/// One element of A by four of B, each product onto its sum.
macro_rules! row {
    ($a:literal, $($sum:literal $b:literal),*) => {
        concat!($("fmadd.s ", $sum, ", ", $a, ", ", $b, ", ", $sum, "\n"),*)
    };
}

/// One step: four elements of A, at an offset, by four of B.
macro_rules! step {
    ($offset:literal) => {
        concat!(
            "flw fs0, ", $offset, "(a1)\n flw fs1, ", $offset, " + 4(a1)\n",
            "flw fs2, ", $offset, " + 8(a1)\n flw fs3, ", $offset, " + 12(a1)\n",
            row!("fs0", "ft0" "ft8", "ft1" "ft9", "ft2" "ft10", "ft3" "ft11"),
            row!("fs1", "ft4" "ft8", "ft5" "ft9", "ft6" "ft10", "ft7" "ft11"),
            row!("fs2", "fa0" "ft8", "fa1" "ft9", "fa2" "ft10", "fa3" "ft11"),
            row!("fs3", "fa4" "ft8", "fa5" "ft9", "fa6" "ft10", "fa7" "ft11")
        )
    };
}

/// The registers of B, a pointer for each line or one and the distance between steps: how they come from the strip, a
/// step at some offset, on to the next steps, and to the next tile.
macro_rules! b {
    (along lines) => { "lw a5, {b}(a0)\n lw a6, {b} + 4(a0)\n lw a7, {b} + 8(a0)\n lw t0, {b} + 12(a0)" };
    (across lines) => { "lw a5, {b}(a0)\n lw a6, {b} + 16(a0)\n slli a6, a6, 2" };
    (along $p:literal) => {
        concat!(
            "flw ft8, ", $p, "(a5)\n flw ft9, ", $p, "(a6)\n flw ft10, ", $p, "(a7)\n flw ft11, ", $p, "(t0)"
        )
    };
    (across $p:literal) => { concat!(four!("flw " "ft8" "ft9" "ft10" "ft11", "a5"), "add a5, a5, a6") };
    (along next $p:literal) => {
        concat!(
            "addi a5, a5, ", $p, "\n addi a6, a6, ", $p, "\n addi a7, a7, ", $p, "\n addi t0, t0, ", $p
        )
    };
    (across next $p:literal) => { "" };
    (along tile) => { "add a5, a5, t5\n add a6, a6, t5\n add a7, a7, t5\n add t0, t0, t5" };
    (across tile) => { "add a5, a5, t5" };
}

/// A function. For each tile: sums from their starts, steps by four and by one, sums to C. `a0` is the strip; `t1`
/// counts steps, `t4` tiles; `t2` and `t3` go through the starts and C.
macro_rules! strip {
    ($name:literal, $b:tt) => {
        global_asm!(
            // Outside of functions, the assembler does not know what the target has.
            ".option push",
            ".option arch, +f",
            concat!(".section .text.", $name, ",\"ax\",@progbits"),
            ".p2align 2",
            concat!(".type ", $name, ",@function"),
            // For other units of the crate.
            concat!(".globl ", $name, "\n.hidden ", $name),
            concat!($name, ":"),
            "addi sp, sp, -16",
            four!("fsw " "fs0" "fs1" "fs2" "fs3", "sp"),
            b!($b lines),
            "lw t2, {start}(a0)",
            "lw t3, {c}(a0)",
            "lw t4, {tiles}(a0)",
            "1:",
            "lw t5, {start_row}(a0)",
            sums!("flw ", "t2"),
            "lw t5, {start_next}(a0)",
            "slli t5, t5, 2",
            "add t2, t2, t5",
            "lw a1, {a}(a0)",
            "lw t1, {k}(a0)",
            "addi t1, t1, -4",
            "bltz t1, 3f",
            "2:",
            b!($b "0"), step!("0"),
            b!($b "4"), step!("16"),
            b!($b "8"), step!("32"),
            b!($b "12"), step!("48"),
            "addi a1, a1, 64",
            b!($b next "16"),
            "addi t1, t1, -4",
            "bgez t1, 2b",
            "3:",
            "addi t1, t1, 4",
            "beqz t1, 5f",
            "4:",
            b!($b "0"), step!("0"),
            "addi a1, a1, 16",
            b!($b next "4"),
            "addi t1, t1, -1",
            "bnez t1, 4b",
            "5:",
            "lw t5, {c_row}(a0)",
            sums!("fsw ", "t3"),
            "addi t3, t3, 16",
            "lw t5, {b_next}(a0)",
            "slli t5, t5, 2",
            b!($b tile),
            "addi t4, t4, -1",
            "bnez t4, 1b",
            four!("flw " "fs0" "fs1" "fs2" "fs3", "sp"),
            "addi sp, sp, 16",
            "ret",
            concat!(".size ", $name, ", . - ", $name),
            ".text",
            ".option pop",
            a = const offset_of!(Strips, a),
            b = const offset_of!(Strips, b),
            b_next = const offset_of!(Strips, b_next),
            k = const offset_of!(Strips, k),
            start = const offset_of!(Strips, start),
            start_row = const offset_of!(Strips, start_row),
            start_next = const offset_of!(Strips, start_next),
            c = const offset_of!(Strips, c),
            c_row = const offset_of!(Strips, c_row),
            tiles = const offset_of!(Strips, tiles),
        );
    };
}

strip!("jostle_strip_along", along);
strip!("jostle_strip_across", across);
