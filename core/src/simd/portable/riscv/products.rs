//! Strips of tiles. Both operands are read in place: a load reads only one element, so copies of A would not help.

use core::mem::offset_of;

use super::super::tile::{Form, Next, Strips};

/// All steps of the inner index at once.
pub(crate) const BLOCK: usize = usize::MAX;

/// An address within `jostle_strips`. Only that function may jump there.
pub(crate) type Code = unsafe extern "C" fn();

pub(crate) fn code(a: Form, b: Form) -> Code {
    match (a, b) {
        (Form::Along, Form::Along) => jostle_strip_along_along,
        (Form::Along, Form::Across) => jostle_strip_along_across,
        (Form::Across, Form::Along) => jostle_strip_across_along,
        (Form::Across, Form::Across) => jostle_strip_across_across,
    }
}

/// Computes all strips. Afterwards the fields describe the last one.
///
/// # Safety
/// For every tile of every strip, sixteen elements of `start` and of C, and `k` steps of A and B, must be valid for
/// the pointers.
#[inline(always)]
pub(crate) unsafe fn compute(strips: &mut Strips) {
    // SAFETY: the caller's promise.
    unsafe { jostle_strips(strips) }
}

unsafe extern "C" {
    fn jostle_strips(strips: &mut Strips);
    fn jostle_strip_along_along();
    fn jostle_strip_along_across();
    fn jostle_strip_across_along();
    fn jostle_strip_across_across();
}

/// Loads or stores all sums, in rows `$apart` from `$first` on.
macro_rules! sums {
    ($instruction:literal, $first:literal $apart:literal) => {
        concat!(
            memory!($instruction $first, "0" "ft0", "4" "ft1", "8" "ft2", "12" "ft3"),
            "add t6, ", $first, ", ", $apart, "\n",
            memory!($instruction "t6", "0" "ft4", "4" "ft5", "8" "ft6", "12" "ft7"),
            "add t6, t6, ", $apart, "\n",
            memory!($instruction "t6", "0" "fa0", "4" "fa1", "8" "fa2", "12" "fa3"),
            "add t6, t6, ", $apart, "\n",
            memory!($instruction "t6", "0" "fa4", "4" "fa5", "8" "fa6", "12" "fa7")
        )
    };
}

/// Multiplies one element of A by four of B, and adds each product to its sum.
macro_rules! row {
    ($a:literal, $($sum:literal $b:literal),*) => {
        concat!($("fmadd.s ", $sum, ", ", $a, ", ", $b, ", ", $sum, "\n"),*)
    };
}

/// The registers of A: a pointer for each line, or one pointer and the distance between steps. The macro loads them
/// from the strips, loads a step at an offset, or advances to the next steps. It also tests whether there are four
/// steps, or four more, by the end of the first line or by a count.
macro_rules! a {
    (along lines) => {
        concat!(
            "lw s5, {rows}(a0)\n lw t1, {distance}(a0)\n slli t1, t1, 2\n",
            "add s6, s5, t1\n add s7, s6, t1\n add s8, s7, t1\n",
            "slli s10, s10, 2\n add s10, s10, s5"
        )
    };
    (across lines) => { "lw s5, {rows}(a0)\n lw s6, {distance}(a0)\n slli s6, s6, 2" };
    (along none $to:literal) => { concat!("beq a1, s10, ", $to) };
    (across none $to:literal) => { concat!("mv t1, s10\n beqz t1, ", $to) };
    (along more $to:literal) => { concat!("bne a1, s10, ", $to) };
    (across more $to:literal) => { concat!("addi t1, t1, -4\n bnez t1, ", $to) };
    (along $p:literal) => {
        concat!("flw fs0, ", $p, "(a1)\n flw fs1, ", $p, "(a2)\n flw fs2, ", $p, "(a3)\n flw fs3, ", $p, "(a4)\n")
    };
    (across $p:literal) => {
        concat!(memory!("flw" "a1", "0" "fs0", "4" "fs1", "8" "fs2", "12" "fs3"), "add a1, a1, a2\n")
    };
    (along next $p:literal) => {
        concat!("addi a1, a1, ", $p, "\n addi a2, a2, ", $p, "\n addi a3, a3, ", $p, "\n addi a4, a4, ", $p)
    };
    (across next $p:literal) => { "" };
}

/// The same for B. It also advances to the next tile.
macro_rules! b {
    (along lines) => { memory!("lw" "a0", "{b}" "a5", "{b} + 4" "a6", "{b} + 8" "a7", "{b} + 12" "t0") };
    (across lines) => { "lw a5, {b}(a0)\n lw a6, {b_step}(a0)\n slli a6, a6, 2" };
    (along $p:literal) => {
        concat!("flw ft8, ", $p, "(a5)\n flw ft9, ", $p, "(a6)\n flw ft10, ", $p, "(a7)\n flw ft11, ", $p, "(t0)\n")
    };
    (across $p:literal) => {
        concat!(memory!("flw" "a5", "0" "ft8", "4" "ft9", "8" "ft10", "12" "ft11"), "add a5, a5, a6\n")
    };
    (along next $p:literal) => {
        concat!("addi a5, a5, ", $p, "\n addi a6, a6, ", $p, "\n addi a7, a7, ", $p, "\n addi t0, t0, ", $p)
    };
    (across next $p:literal) => { "" };
    (along tile) => { "add a5, a5, s3\n add a6, a6, s3\n add a7, a7, s3\n add t0, t0, s3" };
    (across tile) => { "add a5, a5, s3" };
}

/// A step at an offset: four elements of A by four of B.
macro_rules! step {
    ($a:tt $b:tt $p:literal) => {
        concat!(
            b!($b $p),
            a!($a $p),
            row!("fs0", "ft0" "ft8", "ft1" "ft9", "ft2" "ft10", "ft3" "ft11"),
            row!("fs1", "ft4" "ft8", "ft5" "ft9", "ft6" "ft10", "ft7" "ft11"),
            row!("fs2", "fa0" "ft8", "fa1" "ft9", "fa2" "ft10", "fa3" "ft11"),
            row!("fs3", "fa4" "ft8", "fa5" "ft9", "fa6" "ft10", "fa7" "ft11")
        )
    };
}

/// The part of the function below that does a tile's steps: four in each iteration, and the rest one by one. It
/// begins with the setup that all tiles of a strip share.
macro_rules! strip {
    ($name:literal, $a:tt $b:tt) => {
        concat!(
            ".type ", $name, ",@function\n.globl ", $name, "\n.hidden ", $name, "\n", $name, ":\n",
            a!($a lines), "\n", b!($b lines), "\n",
            "lla s9, 5f\n",
            "j 2b\n",
            "5:\n",
            a!($a none "7f"), "\n",
            "6:\n",
            step!($a $b "0"), step!($a $b "4"), step!($a $b "8"), step!($a $b "12"),
            a!($a next "16"), "\n", b!($b next "16"), "\n",
            a!($a more "6b"), "\n",
            "7:\n",
            "beqz s4, 9f\n",
            "mv t1, s4\n",
            "8:\n",
            step!($a $b "0"),
            a!($a next "4"), "\n", b!($b next "4"), "\n",
            "addi t1, t1, -1\n",
            "bnez t1, 8b\n",
            "9:\n",
            b!($b tile), "\n",
            "j 3b\n",
        )
    };
}

/// Advances a field to the next strip.
macro_rules! next {
    ($field:literal) => {
        concat!(
            "lw t1, {",
            $field,
            "}(a0)\n lw t2, {next_",
            $field,
            "}(a0)\n add t1, t1, t2\n sw t1, {",
            $field,
            "}(a0)"
        )
    };
    (bytes $field:literal) => {
        concat!(
            "lw t1, {",
            $field,
            "}(a0)\n lw t2, {next_",
            $field,
            "}(a0)\n slli t2, t2, 2\n add t1, t1, t2\n sw t1, {",
            $field,
            "}(a0)"
        )
    };
}

// For each tile: loads the sums from their starts, does the steps, stores the sums to C. The sixteen sums are in ft0
// to ft7 and fa0 to fa7, A in fs0 to fs3, and B in ft8 to ft11.
//
// `a0` points to the strips, `a1` to `a4` to A, `a5` to `t0` to B, `t2` to the starts, `t3` to C. `t1` counts steps,
// `t4` tiles.
//
// Distances in bytes: `s0` between rows of starts, `s1` between tiles of starts, `s2` between rows of C, `s3` to the
// next tile's B. `s4` is the number of steps after the groups of four. `s5` to `s8` are the beginnings of A, `s9` the
// address of a tile's steps, and `s10` the end of the groups of four.
function!(
    "jostle_strips",
    "addi sp, sp, -64",
    memory!("sw" "sp", "0" "s0", "4" "s1", "8" "s2", "12" "s3", "16" "s4", "20" "s5", "24" "s6", "28" "s7", "32" "s8"),
    memory!("sw" "sp", "36" "s9", "40" "s10"),
    memory!("fsw" "sp", "44" "fs0", "48" "fs1", "52" "fs2", "56" "fs3"),
    "1:",
    memory!("lw" "a0", "{start}" "t2", "{c}" "t3", "{tiles}" "t4", "{start_row}" "s0", "{start_next}" "s1", "{c_row}" "s2"),
    memory!("lw" "a0", "{b_next}" "s3", "{k}" "s4", "{code}" "t1"),
    "slli s0, s0, 2\n slli s1, s1, 2\n slli s2, s2, 2\n slli s3, s3, 2",
    "andi s10, s4, -4",
    "andi s4, s4, 3",
    "jr t1",
    "2:",
    sums!("flw", "t2" "s0"),
    "add t2, t2, s1",
    "mv a1, s5\n mv a2, s6\n mv a3, s7\n mv a4, s8",
    "jr s9",
    "3:",
    sums!("fsw", "t3" "s2"),
    "addi t3, t3, 16",
    "addi t4, t4, -1",
    "bnez t4, 2b",
    // The next strip.
    "lw t1, {count}(a0)",
    "addi t1, t1, -1",
    "beqz t1, 4f",
    "sw t1, {count}(a0)",
    next!(bytes "rows"),
    next!("k"),
    next!("b_next"),
    next!("tiles"),
    next!(bytes "start"),
    next!(bytes "c"),
    "lw t2, {next_b}(a0)",
    "beqz t2, 1b",
    "slli t2, t2, 2",
    memory!("lw" "a0", "{b}" "a5", "{b} + 4" "a6", "{b} + 8" "a7", "{b} + 12" "t0"),
    "add a5, a5, t2\n add a6, a6, t2\n add a7, a7, t2\n add t0, t0, t2",
    memory!("sw" "a0", "{b}" "a5", "{b} + 4" "a6", "{b} + 8" "a7", "{b} + 12" "t0"),
    "j 1b",
    "4:",
    memory!("lw" "sp", "0" "s0", "4" "s1", "8" "s2", "12" "s3", "16" "s4", "20" "s5", "24" "s6", "28" "s7", "32" "s8"),
    memory!("lw" "sp", "36" "s9", "40" "s10"),
    memory!("flw" "sp", "44" "fs0", "48" "fs1", "52" "fs2", "56" "fs3"),
    "addi sp, sp, 64",
    "ret",
    strip!("jostle_strip_along_along", along along),
    strip!("jostle_strip_along_across", along across),
    strip!("jostle_strip_across_along", across along),
    strip!("jostle_strip_across_across", across across);
    rows = offset_of!(Strips, rows),
    distance = offset_of!(Strips, distance),
    k = offset_of!(Strips, k),
    b_next = offset_of!(Strips, b_next),
    tiles = offset_of!(Strips, tiles),
    start = offset_of!(Strips, start),
    c = offset_of!(Strips, c),
    b = offset_of!(Strips, b),
    b_step = offset_of!(Strips, b_step),
    start_row = offset_of!(Strips, start_row),
    start_next = offset_of!(Strips, start_next),
    c_row = offset_of!(Strips, c_row),
    code = offset_of!(Strips, code),
    next_rows = offset_of!(Strips, next) + offset_of!(Next, rows),
    next_k = offset_of!(Strips, next) + offset_of!(Next, k),
    next_b_next = offset_of!(Strips, next) + offset_of!(Next, b_next),
    next_tiles = offset_of!(Strips, next) + offset_of!(Next, tiles),
    next_start = offset_of!(Strips, next) + offset_of!(Next, start),
    next_c = offset_of!(Strips, next) + offset_of!(Next, c),
    next_b = offset_of!(Strips, next) + offset_of!(Next, b),
    count = offset_of!(Strips, count),
);
