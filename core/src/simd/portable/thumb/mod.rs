//! The fused multiply-add, the square root, the tiles and the loops of Arm's Cortex-M with a floating-point unit.
//!
//! Written outside of functions, because inline assembly has no class for single-precision registers on these targets.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

pub(crate) use super::assembly::reduce;
pub(crate) use super::tile::PACKED as BLOCK;
use super::tile::{Form, Next, SIDE, Strips};
pub(crate) use loops::run;

/// `a * b + c` with one rounding.
#[inline(always)]
pub(crate) fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    // SAFETY: defined below. Their ABI passes floats in s0, s1, s2.
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

/// Four steps of two lines: the two elements of each step go to a pair of registers.
macro_rules! lines {
    ($one:literal $two:literal, $a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "ldmia ",
            $one,
            "!, {{r4-r7}}\n",
            "ldmia ",
            $two,
            "!, {{r8-r11}}\n",
            "vmov ",
            $a,
            ", r4, r8\n",
            "vmov ",
            $b,
            ", r5, r9\n",
            "vmov ",
            $c,
            ", r6, r10\n",
            "vmov ",
            $d,
            ", r7, r11\n"
        )
    };
}

/// Defines a global function, because the crate may be compiled in several units, and each may call it.
macro_rules! function {
    ($name:literal, $($instruction:expr),* $(,)? $(; $($operand:ident = $value:expr),* $(,)?)?) => {
        global_asm!(
            ".fpu fpv4-sp-d16",
            concat!(".section .text.", $name, ",\"ax\",%progbits"),
            ".p2align 2",
            ".thumb_func",
            concat!(".type ", $name, ",%function"),
            concat!(".globl ", $name, "\n.hidden ", $name),
            concat!($name, ":"),
            $($instruction,)*
            concat!(".size ", $name, ", . - ", $name),
            ".text",
            $($($operand = const $value,)*)?
        );
    };
}

function!("jostle_mul_add", "vfma.f32 s2, s0, s1", "vmov.f32 s0, s2", "bx lr");
function!("jostle_sqrt", "vsqrt.f32 s0, s0", "bx lr");

mod elementwise;
mod exponential;
mod loops;
mod sums;

/// Keeps a compiler from unrolling the loop around it.
#[inline(always)]
pub(crate) fn stay_rolled() {
    // SAFETY: it contains no instruction.
    unsafe { asm!("", options(nomem, nostack, preserves_flags)) };
}

/// The function that copies four lines of A, and an address within `jostle_strips`. Only that function may jump
/// there.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Code {
    pack: unsafe extern "C" fn(to: *mut f32, distance: usize, from: *const f32, k: usize),
    kernel: unsafe extern "C" fn(&Strips),
}

#[inline(always)]
pub(crate) fn code(a: Form, b: Form) -> Code {
    Code {
        pack: match a {
            Form::Along => jostle_pack_along,
            Form::Across => jostle_pack_across,
        },
        kernel: match b {
            Form::Along => jostle_strip_along,
            Form::Across => jostle_strip_across,
        },
    }
}

/// Computes all strips.
///
/// # Safety
/// As for `tile::compute`. The kernel and the packing function must come from this file.
#[inline(always)]
pub(crate) unsafe fn compute(strips: &mut Strips) {
    // SAFETY: the caller's promise.
    unsafe { jostle_strips(strips) }
}

unsafe extern "C" {
    fn jostle_strips(strips: &mut Strips);
    fn jostle_strip_along(strips: &Strips);
    fn jostle_strip_across(strips: &Strips);
    fn jostle_pack_along(to: *mut f32, distance: usize, from: *const f32, k: usize);
    fn jostle_pack_across(to: *mut f32, distance: usize, from: *const f32, k: usize);
}

// Four elements of two lines at a time are loaded into the core's registers. From there, pairs of one step are stored
// together.
function!(
    "jostle_pack_along",
    "push {{lr}}",
    "add r12, r2, r1, lsl #2",
    "add lr, r12, r1, lsl #2",
    "add r1, lr, r1, lsl #2",
    "subs r3, #4",
    "blt 2f",
    "1:",
    lines!("r2" "r12", "s0, s1" "s4, s5" "s8, s9" "s12, s13"),
    lines!("lr" "r1", "s2, s3" "s6, s7" "s10, s11" "s14, s15"),
    "vstmia r0!, {{s0-s15}}",
    "subs r3, #4",
    "bge 1b",
    "2:",
    "adds r3, #4",
    "beq 4f",
    "3:",
    "vldmia r2!, {{s0}}",
    "vldmia r12!, {{s1}}",
    "vldmia lr!, {{s2}}",
    "vldmia r1!, {{s3}}",
    "vstmia r0!, {{s0-s3}}",
    "subs r3, #1",
    "bne 3b",
    "4:",
    "pop {{pc}}",
);

function!(
    "jostle_pack_across",
    "subs r3, #4",
    "blt 2f",
    "1:",
    "vldmia r2, {{s0-s3}}",
    "add r2, r2, r1, lsl #2",
    "vldmia r2, {{s4-s7}}",
    "add r2, r2, r1, lsl #2",
    "vldmia r2, {{s8-s11}}",
    "add r2, r2, r1, lsl #2",
    "vldmia r2, {{s12-s15}}",
    "add r2, r2, r1, lsl #2",
    "vstmia r0!, {{s0-s15}}",
    "subs r3, #4",
    "bge 1b",
    "2:",
    "adds r3, #4",
    "beq 4f",
    "3:",
    "vldmia r2, {{s0-s3}}",
    "add r2, r2, r1, lsl #2",
    "vstmia r0!, {{s0-s3}}",
    "subs r3, #1",
    "bne 3b",
    "4:",
    "bx lr",
);

/// Multiplies one element of A by four of B, and adds each product to its sum.
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

/// The bytes of the instructions of two steps. Each instruction has four bytes.
const TWO_STEPS: usize = 4 * (5 + 32);

/// The part of the function below that does the steps of a strip's tiles. `lines` loads the registers of B, `one` and
/// `two` advance by one or two steps, and `next` advances to the next tile's B. If the number of steps is odd, a
/// single step comes first. The loop has eight steps, two at a time. It is entered at the point from which the
/// remaining number is a multiple of eight.
macro_rules! strip {
    (
        $name:literal,
        lines: [$($lines:expr),* $(,)?],
        two: [$($two:expr),* $(,)?],
        one: [$($one:expr),* $(,)?],
        next: [$($next:expr),* $(,)?] $(,)?
    ) => {
        concat!(
            ".thumb_func\n.type ", $name, ",%function\n.globl ", $name, "\n.hidden ", $name, "\n", $name, ":\n",
            $($lines, "\n",)*
            "adr.w r1, 9f + 1\n",
            "adr.w r2, 7f + 1\n",
            "b 2b\n",
            "7:\n",
            $($one, "\n",)*
            "ldr pc, [sp, #4]\n",
            "8:\n",
            $($two, "\n",)*
            $($two, "\n",)*
            $($two, "\n",)*
            $($two, "\n",)*
            "9:\n",
            "cmp r1, r3\n",
            "bne.w 8b\n",
            "vstmia r9!, {{s0-s3}}\n",
            "vstmia r10!, {{s4-s7}}\n",
            "vstmia r11!, {{s8-s11}}\n",
            "vstmia r12!, {{s12-s15}}\n",
            $($next, "\n",)*
            "subs lr, #1\n",
            "bne.w 3b\n",
            "b.w 10f\n",
        )
    };
}

// For each tile: loads the sums from their starts, does the steps, stores the sums to C. The sixteen sums are in s0
// to s15. A is in s16 to s23 and B in s24 to s31, two steps of the inner index at a time.
//
// `r1` runs over A, from `r2` to `r3`. `r0` points to the starts, `r9` to `r12` to the rows of C. `r4` is the
// distance to the next tile's B, and `lr` counts tiles. The stack holds three addresses: after the start of a tile,
// after the single first step of an odd number, and at the next tile.
function!(
    "jostle_strips",
    "push {{r0, r4-r11, lr}}",
    "vpush {{s16-s31}}",
    "1:",
    "ldr r12, [r0, #{pack}]",
    "ldmia r0, {{r0-r3}}",
    "blx r12",
    "ldr r0, [sp, #64]",
    "ldr r12, [r0, #{kernel}]",
    "bx r12",
    // `r1` is the loop's end, `r2` the one step.
    "2:",
    "ldr r3, [r0, #{k}]",
    "and r9, r3, #6",
    "mov r10, #({two} / 2)",
    "mul r9, r9, r10",
    "sub r10, r1, r9",
    "lsls r9, r3, #31",
    "ite eq",
    "moveq r9, r10",
    "movne r9, r2",
    "ldrd r1, r2, [r0, #{start_row}]",
    "adr.w r11, 4f + 1",
    "cbnz r1, 3f",
    "adr.w r11, 5f + 1",
    "cbnz r2, 3f",
    "adr.w r11, 6f + 1",
    "3:",
    "push {{r9-r11}}",
    "ldr r2, [r0, #{a}]",
    "add r3, r2, r3, lsl #4",
    "ldr r4, [r0, #{b_next}]",
    "ldr lr, [r0, #{tiles}]",
    "ldr r9, [r0, #{c}]",
    "ldr r12, [r0, #{c_row}]",
    "add r10, r9, r12, lsl #2",
    "add r11, r10, r12, lsl #2",
    "add r12, r11, r12, lsl #2",
    "ldr r0, [r0, #{start}]",
    "3:",
    "mov r1, r2",
    "ldr pc, [sp, #8]",
    // Starts at C.
    "4:",
    "vldmia r9, {{s0-s3}}",
    "vldmia r10, {{s4-s7}}",
    "vldmia r11, {{s8-s11}}",
    "vldmia r12, {{s12-s15}}",
    "ldr pc, [sp]",
    // The same starts for all rows.
    "5:",
    "vldmia r0, {{s0-s3}}",
    "vldmia r0, {{s4-s7}}",
    "vldmia r0, {{s8-s11}}",
    "vldmia r0!, {{s12-s15}}",
    "ldr pc, [sp]",
    // Starts at zero.
    "6:",
    "vldmia r0, {{s0-s15}}",
    "ldr pc, [sp]",
    strip!(
        "jostle_strip_along",
        lines: [
            "add r5, r0, #{b}",
            "ldmia r5, {{r5-r8}}",
        ],
        two: [
            "vldmia r1!, {{s16-s23}}",
            "vldmia r5!, {{s24-s25}}",
            "vldmia r6!, {{s26-s27}}",
            "vldmia r7!, {{s28-s29}}",
            "vldmia r8!, {{s30-s31}}",
            step!("s16" "s17" "s18" "s19", "s24" "s26" "s28" "s30"),
            step!("s20" "s21" "s22" "s23", "s25" "s27" "s29" "s31"),
        ],
        one: [
            "vldmia r1!, {{s16-s19}}",
            "vldmia r5!, {{s24}}",
            "vldmia r6!, {{s26}}",
            "vldmia r7!, {{s28}}",
            "vldmia r8!, {{s30}}",
            step!("s16" "s17" "s18" "s19", "s24" "s26" "s28" "s30"),
        ],
        next: [
            "add r5, r5, r4, lsl #2",
            "add r6, r6, r4, lsl #2",
            "add r7, r7, r4, lsl #2",
            "add r8, r8, r4, lsl #2",
        ],
    ),
    strip!(
        "jostle_strip_across",
        lines: [
            "ldr r5, [r0, #{b}]",
            "ldr r6, [r0, #{b_step}]",
        ],
        two: [
            "vldmia r1!, {{s16-s23}}",
            "vldmia r5, {{s24-s27}}",
            "add r5, r5, r6, lsl #2",
            "vldmia r5, {{s28-s31}}",
            "add r5, r5, r6, lsl #2",
            step!("s16" "s17" "s18" "s19", "s24" "s25" "s26" "s27"),
            step!("s20" "s21" "s22" "s23", "s28" "s29" "s30" "s31"),
        ],
        one: [
            "vldmia r1!, {{s16-s19}}",
            "vldmia r5, {{s24-s27}}",
            "add r5, r5, r6, lsl #2",
            step!("s16" "s17" "s18" "s19", "s24" "s25" "s26" "s27"),
        ],
        next: [
            "add r5, r5, r4, lsl #2",
        ],
    ),
    // The next strip.
    "10:",
    "add sp, #12",
    "ldr r0, [sp, #64]",
    "ldr r1, [r0, #{count}]",
    "subs r1, #1",
    "beq 11f",
    "str r1, [r0, #{count}]",
    "add r1, r0, #{rows}",
    "ldmia r1, {{r2-r7}}",
    "add r8, r0, #{next}",
    "ldmia r8, {{r8-r12, lr}}",
    "add r2, r2, r8, lsl #2",
    "add r3, r9",
    "add r4, r10",
    "add r5, r11",
    "add r6, r6, r12, lsl #2",
    "add r7, r7, lr, lsl #2",
    "stmia r1!, {{r2-r7}}",
    "ldr r6, [r0, #{next_b}]",
    "cmp r6, #0",
    "beq.w 1b",
    "ldmia r1, {{r2-r5}}",
    "add r2, r2, r6, lsl #2",
    "add r3, r3, r6, lsl #2",
    "add r4, r4, r6, lsl #2",
    "add r5, r5, r6, lsl #2",
    "stmia r1, {{r2-r5}}",
    "b.w 1b",
    "11:",
    "vpop {{s16-s31}}",
    "pop {{r0, r4-r11, pc}}";
    two = TWO_STEPS,
    a = offset_of!(Strips, a),
    rows = offset_of!(Strips, rows),
    k = offset_of!(Strips, k),
    b_next = offset_of!(Strips, b_next),
    tiles = offset_of!(Strips, tiles),
    start = offset_of!(Strips, start),
    c = offset_of!(Strips, c),
    b = offset_of!(Strips, b),
    b_step = offset_of!(Strips, b_step),
    start_row = offset_of!(Strips, start_row),
    c_row = offset_of!(Strips, c_row),
    pack = offset_of!(Strips, code) + offset_of!(Code, pack),
    kernel = offset_of!(Strips, code) + offset_of!(Code, kernel),
    next = offset_of!(Strips, next),
    next_b = offset_of!(Strips, next) + offset_of!(Next, b),
    count = offset_of!(Strips, count),
);

/// As [`super::tile::row`].
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn row(
    sums: &mut [f32; SIDE],
    a: *const f32,
    b: *const f32,
    column: usize,
    step: usize,
    k: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if step == 1 {
            jostle_row_along(sums, a, b, column, k)
        } else {
            jostle_row_across(sums, a, b, step, k)
        }
    }
}

unsafe extern "C" {
    fn jostle_row_along(sums: &mut [f32; SIDE], a: *const f32, b: *const f32, distance: usize, k: usize);
    fn jostle_row_across(sums: &mut [f32; SIDE], a: *const f32, b: *const f32, distance: usize, k: usize);
}

// The sums are in s0 to s3. Four steps at a time: A is in s4 to s7, and a column of B in each four registers from s8 on.
function!(
    "jostle_row_along",
    "push {{r4-r6, lr}}",
    "vpush {{s16-s23}}",
    "ldr r12, [sp, #48]",
    "add r4, r2, r3, lsl #2",
    "add r5, r4, r3, lsl #2",
    "add r6, r5, r3, lsl #2",
    "vldmia r0, {{s0-s3}}",
    "subs r12, #4",
    "blt 2f",
    "1:",
    "vldmia r1!, {{s4-s7}}",
    "vldmia r2!, {{s8-s11}}",
    "vldmia r4!, {{s12-s15}}",
    "vldmia r5!, {{s16-s19}}",
    "vldmia r6!, {{s20-s23}}",
    row!("s4", "s0" "s8", "s1" "s12", "s2" "s16", "s3" "s20"),
    row!("s5", "s0" "s9", "s1" "s13", "s2" "s17", "s3" "s21"),
    row!("s6", "s0" "s10", "s1" "s14", "s2" "s18", "s3" "s22"),
    row!("s7", "s0" "s11", "s1" "s15", "s2" "s19", "s3" "s23"),
    "subs r12, #4",
    "bge 1b",
    "2:",
    "adds r12, #4",
    "beq 4f",
    "3:",
    "vldmia r1!, {{s4}}",
    "vldmia r2!, {{s8}}",
    "vldmia r4!, {{s12}}",
    "vldmia r5!, {{s16}}",
    "vldmia r6!, {{s20}}",
    row!("s4", "s0" "s8", "s1" "s12", "s2" "s16", "s3" "s20"),
    "subs r12, #1",
    "bne 3b",
    "4:",
    "vstmia r0, {{s0-s3}}",
    "vpop {{s16-s23}}",
    "pop {{r4-r6, pc}}",
);

// Two steps at a time.
function!(
    "jostle_row_across",
    "ldr r12, [sp]",
    "vldmia r0, {{s0-s3}}",
    "subs r12, #2",
    "blt 2f",
    "1:",
    "vldmia r1!, {{s4-s5}}",
    "vldmia r2, {{s8-s11}}",
    "add r2, r2, r3, lsl #2",
    "vldmia r2, {{s12-s15}}",
    "add r2, r2, r3, lsl #2",
    row!("s4", "s0" "s8", "s1" "s9", "s2" "s10", "s3" "s11"),
    row!("s5", "s0" "s12", "s1" "s13", "s2" "s14", "s3" "s15"),
    "subs r12, #2",
    "bge 1b",
    "2:",
    "adds r12, #2",
    "beq 3f",
    "vldmia r1, {{s4}}",
    "vldmia r2, {{s8-s11}}",
    row!("s4", "s0" "s8", "s1" "s9", "s2" "s10", "s3" "s11"),
    "3:",
    "vstmia r0, {{s0-s3}}",
    "bx lr",
);
