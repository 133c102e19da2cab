//! The fused multiply-add and the tiles of Arm's Cortex-M with a floating-point unit: `vfma.f32`.
//!
//! Sixteen sums in s0 to s15; A in s16 to s23 and B in s24 to s31, two steps of the inner index at a time, read by
//! one instruction for each line (along) or each step (across). Written outside of functions, because inline
//! assembly has no class for single-precision registers on these targets.

use core::arch::global_asm;
use core::mem::offset_of;

use super::tile::{Form, Kernel, Tile};

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    // SAFETY: below; the ABI of these targets hands floats over in s0, s1, s2.
    unsafe { jostle_mul_add(a, b, c) }
}

unsafe extern "C" {
    fn jostle_mul_add(a: f32, b: f32, c: f32) -> f32;
}

global_asm!(
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

pub(crate) fn kernel(a: Form, b: Form) -> Option<Kernel> {
    match (a, b) {
        (Form::Along, Form::Along) => Some(jostle_tile_along_along),
        (Form::Along, Form::Across) => Some(jostle_tile_along_across),
        (Form::Across, Form::Across) => Some(jostle_tile_across_across),
        (Form::Across, Form::Along) => None,
    }
}

unsafe extern "C" {
    fn jostle_tile_along_along(t: &Tile);
    fn jostle_tile_along_across(t: &Tile);
    fn jostle_tile_across_across(t: &Tile);
}

/// One element of A by four of B, each product onto its sum.
macro_rules! row {
    ($a:literal, $($sum:literal $b:literal),*) => {
        concat!($("vfma.f32 ", $sum, ", ", $a, ", ", $b, "\n"),*)
    };
}

/// One step: four elements of A by four of B.
macro_rules! step {
    ($a:literal $b:literal $c:literal $d:literal, $w:literal $x:literal $y:literal $z:literal) => {
        concat!(
            row!($a, "s0" $w, "s1" $x, "s2" $y, "s3" $z),
            row!($b, "s4" $w, "s5" $x, "s6" $y, "s7" $z),
            row!($c, "s8" $w, "s9" $x, "s10" $y, "s11" $z),
            row!($d, "s12" $w, "s13" $x, "s14" $y, "s15" $z)
        )
    };
}

/// A function: sums from their starts, pairs of steps, one step where `k` is odd, sums to C. Keeps `r0`, the tile,
/// and counts in `r9`.
macro_rules! tile {
    ($name:literal, operands: [$($operands:expr),* $(,)?], two: [$($two:expr),* $(,)?], one: [$($one:expr),* $(,)?]) => {
        global_asm!(
            ".fpu fpv4-sp-d16",
            concat!(".section .text.", $name, ",\"ax\",%progbits"),
            ".p2align 2",
            ".thumb_func",
            concat!(".type ", $name, ",%function"),
            concat!($name, ":"),
            "push {{r4-r9, lr}}",
            "vpush {{s16-s31}}",
            "ldr r1, [r0, #{start}]",
            "ldr r2, [r0, #{start_row}]",
            "ldr r9, [r0, #{k}]",
            "lsls r2, r2, #2",
            "vldmia r1, {{s0-s3}}",
            "add r1, r2",
            "vldmia r1, {{s4-s7}}",
            "add r1, r2",
            "vldmia r1, {{s8-s11}}",
            "add r1, r2",
            "vldmia r1, {{s12-s15}}",
            $($operands,)*
            "subs r9, #2",
            "blt 2f",
            "1:",
            $($two,)*
            "subs r9, #2",
            "bge 1b",
            "2:",
            "adds r9, #1",
            "bne 3f",
            $($one,)*
            "3:",
            "ldr r1, [r0, #{c}]",
            "ldr r2, [r0, #{c_row}]",
            "lsls r2, r2, #2",
            "vstmia r1, {{s0-s3}}",
            "add r1, r2",
            "vstmia r1, {{s4-s7}}",
            "add r1, r2",
            "vstmia r1, {{s8-s11}}",
            "add r1, r2",
            "vstmia r1, {{s12-s15}}",
            "vpop {{s16-s31}}",
            "pop {{r4-r9, pc}}",
            concat!(".size ", $name, ", . - ", $name),
            ".text",
            start = const offset_of!(Tile, start),
            start_row = const offset_of!(Tile, start_row),
            c = const offset_of!(Tile, c),
            c_row = const offset_of!(Tile, c_row),
            k = const offset_of!(Tile, k),
            a = const offset_of!(Tile, a),
            b = const offset_of!(Tile, b),
        );
    };
}

tile! {
    "jostle_tile_along_along",
    operands: [
        "add r1, r0, #{a}",
        "ldmia r1, {{r1-r4}}",
        "add r5, r0, #{b}",
        "ldmia r5, {{r5-r8}}",
    ],
    two: [
        "vldmia r1!, {{s16-s17}}",
        "vldmia r2!, {{s18-s19}}",
        "vldmia r3!, {{s20-s21}}",
        "vldmia r4!, {{s22-s23}}",
        "vldmia r5!, {{s24-s25}}",
        "vldmia r6!, {{s26-s27}}",
        "vldmia r7!, {{s28-s29}}",
        "vldmia r8!, {{s30-s31}}",
        step!("s16" "s18" "s20" "s22", "s24" "s26" "s28" "s30"),
        step!("s17" "s19" "s21" "s23", "s25" "s27" "s29" "s31"),
    ],
    one: [
        "vldr s16, [r1]",
        "vldr s18, [r2]",
        "vldr s20, [r3]",
        "vldr s22, [r4]",
        "vldr s24, [r5]",
        "vldr s26, [r6]",
        "vldr s28, [r7]",
        "vldr s30, [r8]",
        step!("s16" "s18" "s20" "s22", "s24" "s26" "s28" "s30"),
    ]
}

tile! {
    "jostle_tile_along_across",
    operands: [
        "add r1, r0, #{a}",
        "ldmia r1, {{r1-r4}}",
        "add r5, r0, #{b}",
        "ldr r6, [r5, #16]",
        "ldr r5, [r5]",
        "lsls r6, r6, #2",
    ],
    two: [
        "vldmia r1!, {{s16-s17}}",
        "vldmia r2!, {{s18-s19}}",
        "vldmia r3!, {{s20-s21}}",
        "vldmia r4!, {{s22-s23}}",
        "vldmia r5, {{s24-s27}}",
        "add r5, r6",
        "vldmia r5, {{s28-s31}}",
        "add r5, r6",
        step!("s16" "s18" "s20" "s22", "s24" "s25" "s26" "s27"),
        step!("s17" "s19" "s21" "s23", "s28" "s29" "s30" "s31"),
    ],
    one: [
        "vldr s16, [r1]",
        "vldr s18, [r2]",
        "vldr s20, [r3]",
        "vldr s22, [r4]",
        "vldmia r5, {{s24-s27}}",
        step!("s16" "s18" "s20" "s22", "s24" "s25" "s26" "s27"),
    ]
}

tile! {
    "jostle_tile_across_across",
    operands: [
        "add r1, r0, #{a}",
        "ldr r2, [r1, #16]",
        "ldr r1, [r1]",
        "lsls r2, r2, #2",
        "add r5, r0, #{b}",
        "ldr r6, [r5, #16]",
        "ldr r5, [r5]",
        "lsls r6, r6, #2",
    ],
    two: [
        "vldmia r1, {{s16-s19}}",
        "add r1, r2",
        "vldmia r1, {{s20-s23}}",
        "add r1, r2",
        "vldmia r5, {{s24-s27}}",
        "add r5, r6",
        "vldmia r5, {{s28-s31}}",
        "add r5, r6",
        step!("s16" "s17" "s18" "s19", "s24" "s25" "s26" "s27"),
        step!("s20" "s21" "s22" "s23", "s28" "s29" "s30" "s31"),
    ],
    one: [
        "vldmia r1, {{s16-s19}}",
        "vldmia r5, {{s24-s27}}",
        step!("s16" "s17" "s18" "s19", "s24" "s25" "s26" "s27"),
    ]
}
