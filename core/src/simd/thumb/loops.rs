//! Loops over slices: four elements at a time and the rest one by one, or sums of sixteen at a time. `vmla` and its like
//! round the product as well as the sum.

use core::arch::global_asm;

use super::super::loops::{AdamW, Loop, Reduction, Row};
use super::super::math::{DENSITY, EXP, LN_2, NORMAL, NORMAL_LEAST, NORMAL_SCALE, ROUND, exp_of};

unsafe extern "C" {
    fn jostle_add(x: *mut f32, y: *const f32, count: usize);
    fn jostle_copy(y: *mut f32, x: *const f32, count: usize);
    fn jostle_add_columns(sums: *mut f32, x: *const f32, rows: usize, width: usize, count: usize);
    fn jostle_multiply(x: *mut f32, y: *const f32, count: usize);
    fn jostle_adamw(
        x: *mut f32,
        m: *mut f32,
        v: *mut f32,
        gradient: *const f32,
        count: usize,
        numbers: &AdamW,
    );
    fn jostle_norm(
        y: *mut f32,
        x: *const f32,
        weight: *const f32,
        bias: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
    );
    fn jostle_norm_input(
        d_x: *mut f32,
        d_y: *const f32,
        weight: *const f32,
        x: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
        d_mean: f32,
        d_scale: f32,
    );
    fn jostle_norm_weight(
        d_weight: *mut f32,
        d_y: *const f32,
        x: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
    );
    fn jostle_subtract_scaled(x: *mut f32, y: *const f32, count: usize, factor: f32);
    fn jostle_clear(x: *mut f32, count: usize);
    fn jostle_exp(x: *mut f32, count: usize, numbers: &Exp, scale: f32, maximum: f32) -> usize;
    fn jostle_gelu(y: *mut f32, x: *const f32, pairs: usize, numbers: &Gelu);
    fn jostle_gelu_exchange(x: *mut f32, d_y: *mut f32, pairs: usize, numbers: &Gelu);
    fn jostle_sum(x: *const f32, count: usize) -> f32;
    fn jostle_squares(x: *const f32, count: usize, centre: f32) -> f32;
    fn jostle_dot(x: *const f32, y: *const f32, count: usize) -> f32;
    fn jostle_norm_dot(
        d_y: *const f32,
        weight: *const f32,
        x: *const f32,
        count: usize,
        mean: f32,
        rstd: f32,
    ) -> f32;
}

/// How many elements all have.
#[inline(always)]
fn count<const N: usize>(slices: [&[f32]; N]) -> usize {
    let first = slices.first().map_or(0, |slice| slice.len());
    debug_assert!(slices.iter().all(|slice| slice.len() == first), "slices of different lengths");
    slices.iter().fold(first, |least, slice| least.min(slice.len()))
}

#[inline(always)]
pub(crate) fn run(one: Loop<'_>) -> bool {
    // SAFETY: all slices hold `count` elements.
    unsafe {
        match one {
            Loop::Copy { y, x } => jostle_copy(y.as_mut_ptr(), x.as_ptr(), count([&*y, x])),
            Loop::Add { x, y } => jostle_add(x.as_mut_ptr(), y.as_ptr(), count([x, y])),
            Loop::AddColumns { sums, column, width, x } => {
                let rows = x.len().checked_div(width).unwrap_or(0);
                debug_assert!(column + sums.len() <= width, "columns that are not there");
                let count = sums.len().min(width.saturating_sub(column));
                if rows > 0 {
                    jostle_add_columns(sums.as_mut_ptr(), x.as_ptr().add(column), rows, width, count);
                }
            }
            Loop::Multiply { x, y } => jostle_multiply(x.as_mut_ptr(), y.as_ptr(), count([x, y])),
            Loop::SubtractScaled { x, y, factor } => {
                jostle_subtract_scaled(x.as_mut_ptr(), y.as_ptr(), count([x, y]), factor);
            }
            Loop::Clear { x } => jostle_clear(x.as_mut_ptr(), x.len()),
            Loop::Exp { x, scale, maximum } => {
                let (mut left, end) = (x.len(), x.as_mut_ptr().add(x.len()));
                loop {
                    left = jostle_exp(end.sub(left), left, &EXPONENTIAL, scale, maximum);
                    if left == 0 {
                        break;
                    }
                    let x = &mut *end.sub(left);
                    *x = exp_of(*x * scale - maximum);
                    left -= 1;
                }
            }
            Loop::Gelu { y, x } => {
                let count = count([&*y, x]);
                jostle_gelu(y.as_mut_ptr(), x.as_ptr(), count / 2, &GELU);
                if count % 2 > 0 {
                    let (y, mut last) = (y.as_mut_ptr().add(count - 1), [*x.as_ptr().add(count - 1); 2]);
                    jostle_gelu(last.as_mut_ptr(), last.as_ptr(), 1, &GELU);
                    *y = last[0];
                }
            }
            Loop::GeluExchange { x, d_y } => {
                let count = count([&*x, &*d_y]);
                jostle_gelu_exchange(x.as_mut_ptr(), d_y.as_mut_ptr(), count / 2, &GELU);
                if count % 2 > 0 {
                    let last = [&mut *x, &mut *d_y].map(|slice| slice.as_mut_ptr().add(count - 1));
                    let mut pairs = last.map(|last| [*last; 2]);
                    let [of_x, of_d_y] = &mut pairs;
                    jostle_gelu_exchange(of_x.as_mut_ptr(), of_d_y.as_mut_ptr(), 1, &GELU);
                    for (last, [value, _]) in last.into_iter().zip(pairs) {
                        *last = value;
                    }
                }
            }
            Loop::AdamW { changed: [x, m, v], gradient, numbers } => {
                let count = count([&*x, &*m, &*v, gradient]);
                let (x, m, v) = (x.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
                jostle_adamw(x, m, v, gradient.as_ptr(), count, numbers);
            }
            Loop::Norm { y, x, weight, bias: [], row: Row { mean, rstd } } => {
                // A sum that starts with it is what it would be without.
                y.fill(-0.0);
                let count = count([&*y, x, weight]);
                jostle_norm_weight(y.as_mut_ptr(), weight.as_ptr(), x.as_ptr(), count, mean, rstd);
            }
            Loop::Norm { y, x, weight, bias, row: Row { mean, rstd } } => {
                let count = count([&*y, x, weight, bias]);
                jostle_norm(y.as_mut_ptr(), x.as_ptr(), weight.as_ptr(), bias.as_ptr(), count, mean, rstd);
            }
            Loop::NormInput { d_x, d_y, weight, x, row: Row { mean, rstd }, means: [d_mean, d_scale] } => {
                let count = count([&*d_x, d_y, weight, x]);
                let (d_x, d_y, weight, x) = (d_x.as_mut_ptr(), d_y.as_ptr(), weight.as_ptr(), x.as_ptr());
                jostle_norm_input(d_x, d_y, weight, x, count, mean, rstd, d_mean, d_scale);
            }
            Loop::NormWeight { d_weight, column, width, d_y, x, mean, rstd } => {
                let all = d_y.chunks_exact(width.max(1)).zip(x.chunks_exact(width.max(1)));
                for (((d_y, x), mean), rstd) in all.zip(mean).zip(rstd) {
                    let [d_y, x] = [d_y, x].map(|row| row.get(column..).unwrap_or_default());
                    let count = d_weight.len().min(d_y.len()).min(x.len());
                    jostle_norm_weight(d_weight.as_mut_ptr(), d_y.as_ptr(), x.as_ptr(), count, *mean, *rstd);
                }
            }
        }
    }
    true
}

#[inline(always)]
pub(crate) fn reduce(one: Reduction<'_>) -> Option<f32> {
    // SAFETY: as above.
    Some(unsafe {
        match one {
            Reduction::Sum { x } => jostle_sum(x.as_ptr(), x.len()),
            Reduction::Squares { x, centre } => jostle_squares(x.as_ptr(), x.len(), centre),
            Reduction::Dot { x, y } => jostle_dot(x.as_ptr(), y.as_ptr(), count([x, y])),
            Reduction::NormDot { d_y, weight, x, row: Row { mean, rstd } } => {
                let count = count([d_y, weight, x]);
                jostle_norm_dot(d_y.as_ptr(), weight.as_ptr(), x.as_ptr(), count, mean, rstd)
            }
        }
    })
}

/// A function that goes through `r12` elements of the slices to which pointers are given: those that are read, those that
/// are changed, and those that are only written. Four elements of each are in s0 to s3, s4 to s7, s8 to s11 and s12 to
/// s15; constants are in those from s20 on.
macro_rules! each {
    (
        $name:literal,
        enter: [$($enter:literal),*],
        read: [$($read:literal $read_four:literal $read_one:literal),*],
        change: [$($change:literal $change_four:literal $change_one:literal),*],
        write: [$($write:literal $write_four:literal $write_one:literal),*],
        body: $body:ident,
        leave: [$($leave:literal),*] $(,)?
    ) => {
        function!(
            $name,
            $($enter,)*
            "subs r12, #4",
            "blt 2f",
            "1:",
            $(concat!("vldmia ", $read, "!, {{", $read_four, "}}"),)*
            $(concat!("vldmia ", $change, ", {{", $change_four, "}}"),)*
            $body!(
                ("s0" "s4" "s8" "s12")
                ("s1" "s5" "s9" "s13")
                ("s2" "s6" "s10" "s14")
                ("s3" "s7" "s11" "s15")
            ),
            $(concat!("vstmia ", $change, "!, {{", $change_four, "}}"),)*
            $(concat!("vstmia ", $write, "!, {{", $write_four, "}}"),)*
            "subs r12, #4",
            "bge 1b",
            "2:",
            "adds r12, #4",
            "beq 4f",
            "3:",
            $(concat!("vldmia ", $read, "!, {{", $read_one, "}}"),)*
            $(concat!("vldmia ", $change, ", {{", $change_one, "}}"),)*
            $body!(("s0" "s4" "s8" "s12")),
            $(concat!("vstmia ", $change, "!, {{", $change_one, "}}"),)*
            $(concat!("vstmia ", $write, "!, {{", $write_one, "}}"),)*
            "subs r12, #1",
            "bne 3b",
            "4:",
            $($leave,)*
            "bx lr",
        );
    };
}

macro_rules! nothing {
    ($($lane:tt)*) => {
        ""
    };
}

each! {
    "jostle_clear",
    enter: ["mov r12, r1", "mov r3, #0", "vmov d0, r3, r3", "vmov d1, r3, r3"],
    read: [],
    change: [],
    write: ["r0" "s0-s3" "s0"],
    body: nothing,
    leave: [],
}

each! {
    "jostle_copy",
    enter: ["mov r12, r2"],
    read: ["r1" "s0-s3" "s0"],
    change: [],
    write: ["r0" "s0-s3" "s0"],
    body: nothing,
    leave: [],
}

macro_rules! add {
    ($(($x:literal $y:literal $c:literal $d:literal))*) => {
        concat!($("vadd.f32 ", $x, ", ", $x, ", ", $y, "\n",)*)
    };
}

/// Terms onto sums.
macro_rules! terms {
    (sum: $($sum:literal $x:literal),*) => {
        concat!($("vadd.f32 ", $sum, ", ", $sum, ", ", $x, "\n",)*)
    };
    (square: $($sum:literal $x:literal),*) => {
        concat!(
            $("vsub.f32 ", $x, ", ", $x, ", s30\n",)*
            $("vmla.f32 ", $sum, ", ", $x, ", ", $x, "\n",)*
        )
    };
    (product: $($sum:literal $x:literal $y:literal),*) => {
        concat!($("vmla.f32 ", $sum, ", ", $x, ", ", $y, "\n",)*)
    };
    (norm: $($sum:literal $d_y:literal $weight:literal $x:literal),*) => {
        concat!(
            $("vmul.f32 ", $d_y, ", ", $d_y, ", ", $weight, "\n",)*
            $("vsub.f32 ", $x, ", ", $x, ", s30\n",)*
            $("vmul.f32 ", $x, ", ", $x, ", s31\n",)*
            $("vmla.f32 ", $sum, ", ", $d_y, ", ", $x, "\n",)*
        )
    };
}

// Sixteen columns at a time through all rows, and the rest one by one.
function!(
    "jostle_add_columns",
    "push {{r4, r5, lr}}",
    "ldr r12, [sp, #12]",
    "vpush {{s16-s31}}",
    "subs r12, #16",
    "blt 3f",
    "1:",
    "vldmia r0, {{s0-s15}}",
    "mov r4, r1",
    "mov r5, r2",
    "2:",
    "vldmia r4, {{s16-s31}}",
    "add r4, r4, r3, lsl #2",
    terms!(sum: "s0" "s16", "s1" "s17", "s2" "s18", "s3" "s19", "s4" "s20", "s5" "s21", "s6" "s22", "s7" "s23"),
    terms!(sum: "s8" "s24", "s9" "s25", "s10" "s26", "s11" "s27", "s12" "s28", "s13" "s29", "s14" "s30", "s15" "s31"),
    "subs r5, #1",
    "bne 2b",
    "vstmia r0!, {{s0-s15}}",
    "add r1, #64",
    "subs r12, #16",
    "bge 1b",
    "3:",
    "adds r12, #16",
    "beq 6f",
    "4:",
    "vldr s0, [r0]",
    "mov r4, r1",
    "mov r5, r2",
    "5:",
    "vldr s16, [r4]",
    "add r4, r4, r3, lsl #2",
    terms!(sum: "s0" "s16"),
    "subs r5, #1",
    "bne 5b",
    "vstmia r0!, {{s0}}",
    "add r1, #4",
    "subs r12, #1",
    "bne 4b",
    "6:",
    "vpop {{s16-s31}}",
    "pop {{r4, r5, pc}}",
);

macro_rules! multiply {
    ($(($x:literal $y:literal $c:literal $d:literal))*) => {
        concat!($("vmul.f32 ", $x, ", ", $x, ", ", $y, "\n",)*)
    };
}

each! {
    "jostle_multiply",
    enter: ["mov r12, r2"],
    read: ["r1" "s4-s7" "s4"],
    change: ["r0" "s0-s3" "s0"],
    write: [],
    body: multiply,
    leave: [],
}

each! {
    "jostle_add",
    enter: ["mov r12, r2"],
    read: ["r1" "s4-s7" "s4"],
    change: ["r0" "s0-s3" "s0"],
    write: [],
    body: add,
    leave: [],
}

macro_rules! subtract_scaled {
    ($(($x:literal $y:literal $c:literal $d:literal))*) => {
        concat!($("vmls.f32 ", $x, ", ", $y, ", s20\n",)*)
    };
}

each! {
    "jostle_subtract_scaled",
    enter: ["mov r12, r2", "vpush {{s20-s21}}", "vmov.f32 s20, s0"],
    read: ["r1" "s4-s7" "s4"],
    change: ["r0" "s0-s3" "s0"],
    write: [],
    body: subtract_scaled,
    leave: ["vpop {{s20-s21}}"],
}

/// Elements of m, v and the gradient, of which there are `$m`, `$v` and `$g` in all; the gradient's registers then hold
/// `r4`'s epsilons, and at last x.
macro_rules! adamw {
    ($m:literal $v:literal $g:literal, $(($one_m:literal $one_v:literal $one_g:literal))*) => {
        concat!(
            "vldmia r3!, {{", $g, "}}\n",
            "vldmia r1, {{", $m, "}}\n",
            "vldmia r2, {{", $v, "}}\n",
            $("vmul.f32 ", $one_g, ", ", $one_g, ", s25\n",)*
            $("vmul.f32 ", $one_m, ", ", $one_m, ", s26\n",)*
            $("vmul.f32 ", $one_v, ", ", $one_v, ", s28\n",)*
            $("vmla.f32 ", $one_m, ", ", $one_g, ", s27\n",)*
            $("vmul.f32 ", $one_g, ", ", $one_g, ", ", $one_g, "\n",)*
            $("vmla.f32 ", $one_v, ", ", $one_g, ", s29\n",)*
            "vstmia r1!, {{", $m, "}}\n",
            "vstmia r2!, {{", $v, "}}\n",
            $("vsqrt.f32 ", $one_v, ", ", $one_v, "\n",)*
            "vldmia r4, {{", $g, "}}\n",
            $("vmla.f32 ", $one_g, ", ", $one_v, ", s31\n",)*
            $("vdiv.f32 ", $one_m, ", ", $one_m, ", ", $one_g, "\n",)*
            "vldmia r0, {{", $g, "}}\n",
            $("vmul.f32 ", $one_g, ", ", $one_g, ", s24\n",)*
            $("vmls.f32 ", $one_g, ", ", $one_m, ", s30\n",)*
            "vstmia r0!, {{", $g, "}}\n",
        )
    };
}

// Eight elements at a time: the numbers are in s24 to s31 but for epsilon, of which as many copies are on the stack.
function!(
    "jostle_adamw",
    "push {{r4, lr}}",
    "ldrd r12, r4, [sp, #8]",
    "vpush {{s16-s31}}",
    "vldmia r4!, {{s24-s31}}",
    "ldr r4, [r4]",
    "vmov d0, r4, r4",
    "vmov d1, r4, r4",
    "vmov d2, r4, r4",
    "vmov d3, r4, r4",
    "vpush {{s0-s7}}",
    "mov r4, sp",
    "subs r12, #8",
    "blt 2f",
    "1:",
    adamw!(
        "s0-s7" "s8-s15" "s16-s23",
        ("s0" "s8" "s16") ("s1" "s9" "s17") ("s2" "s10" "s18") ("s3" "s11" "s19")
        ("s4" "s12" "s20") ("s5" "s13" "s21") ("s6" "s14" "s22") ("s7" "s15" "s23")
    ),
    "subs r12, #8",
    "bge 1b",
    "2:",
    "adds r12, #8",
    "beq 4f",
    "3:",
    adamw!("s0" "s8" "s16", ("s0" "s8" "s16")),
    "subs r12, #1",
    "bne 3b",
    "4:",
    "add sp, #32",
    "vpop {{s16-s31}}",
    "pop {{r4, pc}}",
);

/// From x, weight and bias, of which the last is made y.
macro_rules! norm {
    ($(($x:literal $weight:literal $bias:literal $d:literal))*) => {
        concat!(
            $("vsub.f32 ", $x, ", ", $x, ", s20\n",)*
            $("vmul.f32 ", $x, ", ", $x, ", s21\n",)*
            $("vmla.f32 ", $bias, ", ", $x, ", ", $weight, "\n",)*
        )
    };
}

each! {
    "jostle_norm",
    enter: ["ldr r12, [sp]", "vpush {{s20-s21}}", "vmov.f32 s20, s0", "vmov.f32 s21, s1"],
    read: ["r1" "s0-s3" "s0", "r2" "s4-s7" "s4", "r3" "s8-s11" "s8"],
    change: [],
    write: ["r0" "s8-s11" "s8"],
    body: norm,
    leave: ["vpop {{s20-s21}}"],
}

/// From d_x, d_y, weight and x.
macro_rules! norm_input {
    ($(($d_x:literal $d_y:literal $weight:literal $x:literal))*) => {
        concat!(
            $("vmul.f32 ", $d_y, ", ", $d_y, ", ", $weight, "\n",)*
            $("vsub.f32 ", $x, ", ", $x, ", s20\n",)*
            $("vsub.f32 ", $d_y, ", ", $d_y, ", s22\n",)*
            $("vmul.f32 ", $x, ", ", $x, ", s21\n",)*
            $("vmls.f32 ", $d_y, ", ", $x, ", s23\n",)*
            $("vmla.f32 ", $d_x, ", ", $d_y, ", s21\n",)*
        )
    };
}

each! {
    "jostle_norm_input",
    enter: [
        "ldr r12, [sp]", "vpush {{s20-s23}}", "vmov.f32 s20, s0", "vmov.f32 s21, s1", "vmov.f32 s22, s2",
        "vmov.f32 s23, s3"
    ],
    read: ["r1" "s4-s7" "s4", "r2" "s8-s11" "s8", "r3" "s12-s15" "s12"],
    change: ["r0" "s0-s3" "s0"],
    write: [],
    body: norm_input,
    leave: ["vpop {{s20-s23}}"],
}

/// From d_weight, d_y and x.
macro_rules! norm_weight {
    ($(($d_weight:literal $d_y:literal $x:literal $d:literal))*) => {
        concat!(
            $("vsub.f32 ", $x, ", ", $x, ", s20\n",)*
            $("vmul.f32 ", $x, ", ", $x, ", s21\n",)*
            $("vmla.f32 ", $d_weight, ", ", $d_y, ", ", $x, "\n",)*
        )
    };
}

each! {
    "jostle_norm_weight",
    enter: ["mov r12, r3", "vpush {{s20-s21}}", "vmov.f32 s20, s0", "vmov.f32 s21, s1"],
    read: ["r1" "s4-s7" "s4", "r2" "s8-s11" "s8"],
    change: ["r0" "s0-s3" "s0"],
    write: [],
    body: norm_weight,
    leave: ["vpop {{s20-s21}}"],
}

/// The next level of a sum's tree.
macro_rules! half {
    ($($a:literal $b:literal),*) => {
        concat!($("vadd.f32 ", $a, ", ", $a, ", ", $b, "\n",)*)
    };
}

// What sums begin with.
global_asm!(
    ".section .rodata.jostle_no_sums,\"a\",%progbits",
    ".p2align 2",
    "jostle_no_sums:",
    ".zero 64",
    ".text"
);

// What they end with.
function!(
    "jostle_tree",
    half!("s0" "s8", "s1" "s9", "s2" "s10", "s3" "s11", "s4" "s12", "s5" "s13", "s6" "s14", "s7" "s15"),
    half!("s0" "s4", "s1" "s5", "s2" "s6", "s3" "s7"),
    half!("s0" "s2", "s1" "s3"),
    half!("s0" "s1"),
    "vpop {{s16-s31}}",
    "bx lr",
);

/// A function that sums `r3` terms. The partial sums are in s0 to s15, operands in those after, and the function's numbers
/// in s30 and s31, unless it has none. A block of sixteen takes them all; the rest go through memory one by one, onto s0.
macro_rules! sum {
    ($name:literal, count: $count:literal, block: [$($block:expr),* $(,)?], one: [$($one:expr),* $(,)?]) => {
        function!(
            $name,
            concat!("mov r3, ", $count),
            "vpush {{s16-s31}}",
            "vmov.f32 s30, s0",
            "vmov.f32 s31, s1",
            "movw r12, :lower16:jostle_no_sums",
            "movt r12, :upper16:jostle_no_sums",
            "vldmia r12, {{s0-s15}}",
            "subs r3, #16",
            "blt 2f",
            "1:",
            $($block,)*
            "subs r3, #16",
            "bge 1b",
            "2:",
            "adds r3, #16",
            "beq 4f",
            "vpush {{s0-s15}}",
            "mov r12, sp",
            "3:",
            "vldr s0, [r12]",
            $($one,)*
            "vstmia r12!, {{s0}}",
            "subs r3, #1",
            "bne 3b",
            "vpop {{s0-s15}}",
            "4:",
            "b jostle_tree",
        );
    };
}

sum! {
    "jostle_sum",
    count: "r1",
    block: [
        "vldmia r0!, {{s16-s31}}",
        terms!(sum: "s0" "s16", "s1" "s17", "s2" "s18", "s3" "s19", "s4" "s20", "s5" "s21", "s6" "s22", "s7" "s23"),
        terms!(sum: "s8" "s24", "s9" "s25", "s10" "s26", "s11" "s27", "s12" "s28", "s13" "s29", "s14" "s30", "s15" "s31"),
    ],
    one: ["vldmia r0!, {{s16}}", terms!(sum: "s0" "s16")]
}

sum! {
    "jostle_squares",
    count: "r1",
    block: [
        "vldmia r0!, {{s16-s23}}",
        terms!(square: "s0" "s16", "s1" "s17", "s2" "s18", "s3" "s19", "s4" "s20", "s5" "s21", "s6" "s22", "s7" "s23"),
        "vldmia r0!, {{s16-s23}}",
        terms!(square: "s8" "s16", "s9" "s17", "s10" "s18", "s11" "s19", "s12" "s20", "s13" "s21", "s14" "s22", "s15" "s23"),
    ],
    one: ["vldmia r0!, {{s16}}", terms!(square: "s0" "s16")]
}

sum! {
    "jostle_dot",
    count: "r2",
    block: [
        "vldmia r0!, {{s16-s23}}",
        "vldmia r1!, {{s24-s31}}",
        terms!(product: "s0" "s16" "s24", "s1" "s17" "s25", "s2" "s18" "s26", "s3" "s19" "s27"),
        terms!(product: "s4" "s20" "s28", "s5" "s21" "s29", "s6" "s22" "s30", "s7" "s23" "s31"),
        "vldmia r0!, {{s16-s23}}",
        "vldmia r1!, {{s24-s31}}",
        terms!(product: "s8" "s16" "s24", "s9" "s17" "s25", "s10" "s18" "s26", "s11" "s19" "s27"),
        terms!(product: "s12" "s20" "s28", "s13" "s21" "s29", "s14" "s22" "s30", "s15" "s23" "s31"),
    ],
    one: ["vldmia r0!, {{s16}}", "vldmia r1!, {{s24}}", terms!(product: "s0" "s16" "s24")]
}

/// Four columns of d_y, weight and x onto their sums.
macro_rules! norm_dot {
    ($a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "vldmia r0!, {{s16-s19}}\n",
            "vldmia r1!, {{s20-s23}}\n",
            "vldmia r2!, {{s24-s27}}\n",
            terms!(norm: $a "s16" "s20" "s24", $b "s17" "s21" "s25", $c "s18" "s22" "s26", $d "s19" "s23" "s27")
        )
    };
}

sum! {
    "jostle_norm_dot",
    count: "r3",
    block: [
        norm_dot!("s0" "s1" "s2" "s3"),
        norm_dot!("s4" "s5" "s6" "s7"),
        norm_dot!("s8" "s9" "s10" "s11"),
        norm_dot!("s12" "s13" "s14" "s15"),
    ],
    one: [
        "vldmia r0!, {{s16}}",
        "vldmia r1!, {{s20}}",
        "vldmia r2!, {{s24}}",
        terms!(norm: "s0" "s16" "s20" "s24"),
    ]
}

/// What the exponential's loop reads, in the order of its registers.
#[repr(C)]
struct Exp {
    /// In s12 to s19.
    constant: [f32; 8],
    /// What sums begin with, once for each element of a pair.
    start: [[f32; 2]; 3],
}

static EXPONENTIAL: Exp = Exp {
    constant: [core::f32::consts::LOG2_E, ROUND, LN_2[0], LN_2[1], EXP[1], EXP[3], EXP[4], 1.0],
    start: [[ROUND; 2], [EXP[0]; 2], [EXP[2]; 2]],
};

/// What GELU's loops read, in the order of their registers.
#[repr(C)]
struct Gelu {
    /// In s17 to s31.
    constant: [f32; 15],
    /// What sums begin with, once for each element of a pair: in s4 to s9, then in s10 to s15.
    exp: [[f32; 2]; 3],
    normal: [[f32; 2]; 3],
    most: f32,
}

static GELU: Gelu = {
    const BIASED: f32 = ROUND + 127.0;
    const LOG2_E: f32 = core::f32::consts::LOG2_E;
    const K: f32 = NORMAL_SCALE;
    Gelu {
        constant: [
            BIASED, LOG2_E, LN_2[0], LN_2[1], EXP[1], EXP[3], EXP[4], 1.0, 0.5, K, NORMAL[1], NORMAL[3],
            NORMAL[5], NORMAL[6], DENSITY,
        ],
        exp: [[BIASED; 2], [EXP[0]; 2], [EXP[2]; 2]],
        normal: [[NORMAL[0]; 2], [NORMAL[2]; 2], [NORMAL[4]; 2]],
        most: -NORMAL_LEAST,
    }
};

/// The same for both elements of a pair: a mnemonic and registers.
macro_rules! pair {
    ($($op:literal $a:literal $b:literal, $c:literal $d:literal, $e:literal $f:literal;)*) => {
        concat!($(
            $op, " ", $a, ", ", $c, ", ", $e, "\n",
            $op, " ", $b, ", ", $d, ", ", $f, "\n",
        )*)
    };
}

// Returns how many elements are left: none, or those from a pair on whose exponentials may be too small to take their
// powers of two at once. `simd::math::exp`, with the same operations otherwise. s20 is the scale; `r2` points to what sums
// begin with; `r1` is how many elements follow the pair. The last one of an odd number goes through as a pair on the stack.
function!(
    "jostle_exp",
    "push {{r4-r6, lr}}",
    "vpush {{s16-s20}}",
    "vmov.f32 s20, s0",
    "vmov.f32 s0, s1",
    "vldmia r2!, {{s12-s19}}",
    "vldmia r2, {{s2-s7}}",
    "vpush {{s0-s7}}",
    "mov r2, sp",
    "movw r3, #0",
    "movt r3, #0xc2ac", // -86.0
    "subs r1, #2",
    "blt 3f",
    "1:",
    "vldmia r0, {{s0-s1}}",
    "2:",
    "vldmia r2, {{s2-s9}}",
    pair!("vnmls.f32" "s2" "s3", "s0" "s1", "s20" "s20";),
    // Neither is above zero, so that none of two is below their sum.
    "vadd.f32 s0, s2, s3",
    "vmov r4, s0",
    "cmp r4, r3",
    "bhi 6f",
    pair!(
        "vmla.f32" "s4" "s5", "s2" "s3", "s12" "s12";
        "vsub.f32" "s10" "s11", "s4" "s5", "s13" "s13";
        "vmls.f32" "s2" "s3", "s10" "s11", "s14" "s14";
        "vmls.f32" "s2" "s3", "s10" "s11", "s15" "s15";
        "vmul.f32" "s10" "s11", "s2" "s3", "s2" "s3";
        "vmla.f32" "s6" "s7", "s2" "s3", "s16" "s16";
        "vmla.f32" "s8" "s9", "s2" "s3", "s17" "s17";
        "vmla.f32" "s8" "s9", "s10" "s11", "s18" "s18";
        "vmla.f32" "s6" "s7", "s10" "s11", "s8" "s9";
        "vmla.f32" "s2" "s3", "s10" "s11", "s6" "s7";
        "vadd.f32" "s2" "s3", "s2" "s3", "s19" "s19";
    ),
    // Onto the exponents.
    "vmov r4, r5, s2, s3",
    "vmov r6, r12, s4, s5",
    "add r4, r4, r6, lsl #23",
    "add r5, r5, r12, lsl #23",
    "stmia r0!, {{r4, r5}}",
    "subs r1, #2",
    "bge 1b",
    "3:",
    "adds r1, #2",
    "beq 5f",
    "bmi 4f",
    "ldr r4, [r0]",
    "mov lr, r0",
    "push {{r4, r5}}",
    "mov r0, sp",
    "vmov s0, s1, r4, r4",
    "mov r1, #-1",
    "b 2b",
    "4:",
    "str r4, [lr]",
    "movs r1, #0",
    "5:",
    "mov sp, r2",
    "add sp, #32",
    "vpop {{s16-s20}}",
    "mov r0, r1",
    "pop {{r4-r6, pc}}",
    "6:",
    "adds r1, #2",
    "b 5b",
);

/// A function that goes through `r2` pairs, which `load` leaves in r4 and r5 and `end` consumes. `simd::math::normal`, with
/// the same operations but for signs: s0 and s1 hold |x|, s2 and s3 become the cumulative function; where `r4` and `r5`
/// are negative that is the tail.
macro_rules! gelu {
    (
        $name:literal,
        load: $load:literal,
        density: [$($density:expr),*],
        side: [$($side:literal),*],
        end: [$($end:expr),* $(,)?]
    ) => {
        function!(
            $name,
            "push {{r4-r8, lr}}",
            "vpush {{s16-s31}}",
            "vldmia r3!, {{s17-s31}}",
            "add r12, r3, #24",
            "ldr r7, [r3, #48]",
            "cmp r2, #0",
            "beq.w 3f",
            "1:",
            $load,
            "vmov s0, s1, r4, r5",
            "vabs.f32 s0, s0",
            "vabs.f32 s1, s1",
            // Seldom: at least one is large, or not a number.
            "vadd.f32 s2, s0, s1",
            "vmov r6, s2",
            "cmp r6, r7",
            "bhi 4f",
            "2:",
            "vldmia r3, {{s4-s9}}",
            // The exponential of minus half the square.
            pair!(
                "vmul.f32" "s2" "s3", "s0" "s1", "s0" "s1";
                "vmul.f32" "s2" "s3", "s2" "s3", "s25" "s25";
                "vmls.f32" "s4" "s5", "s2" "s3", "s18" "s18";
                "vsub.f32" "s10" "s11", "s4" "s5", "s17" "s17";
                "vnmla.f32" "s2" "s3", "s10" "s11", "s19" "s19";
                "vmls.f32" "s2" "s3", "s10" "s11", "s20" "s20";
                "vmul.f32" "s10" "s11", "s2" "s3", "s2" "s3";
                "vmla.f32" "s6" "s7", "s2" "s3", "s21" "s21";
                "vmla.f32" "s8" "s9", "s2" "s3", "s22" "s22";
                "vmla.f32" "s8" "s9", "s10" "s11", "s23" "s23";
                "vmla.f32" "s6" "s7", "s10" "s11", "s8" "s9";
                "vmla.f32" "s2" "s3", "s10" "s11", "s6" "s7";
                "vadd.f32" "s2" "s3", "s2" "s3", "s24" "s24";
            ),
            "vmov r6, r8, s4, s5",
            "lsl r6, r6, #23",
            "lsl r8, r8, #23",
            "vmov s4, s5, r6, r8",
            // And q.
            pair!(
                "vmul.f32" "s2" "s3", "s2" "s3", "s4" "s5";
                "vadd.f32" "s4" "s5", "s0" "s1", "s26" "s26";
                "vdiv.f32" "s4" "s5", "s26" "s26", "s4" "s5";
                "vsub.f32" "s6" "s7", "s4" "s5", "s25" "s25";
                "vmul.f32" "s4" "s5", "s4" "s5", "s0" "s1";
                "vmul.f32" "s8" "s9", "s6" "s7", "s6" "s7";
            ),
            $($density,)*
            "vldmia r12, {{s10-s15}}",
            pair!(
                "vmla.f32" "s10" "s11", "s6" "s7", "s27" "s27";
                "vmla.f32" "s12" "s13", "s6" "s7", "s28" "s28";
                "vmla.f32" "s14" "s15", "s6" "s7", "s29" "s29";
                "vmla.f32" "s10" "s11", "s8" "s9", "s12" "s13";
                "vmla.f32" "s14" "s15", "s8" "s9", "s30" "s30";
                "vmul.f32" "s8" "s9", "s8" "s9", "s8" "s9";
                "vmla.f32" "s10" "s11", "s8" "s9", "s14" "s15";
            ),
            "vmov.f32 s6, s25",
            "vmov.f32 s7, s25",
            pair!(
                "vmls.f32" "s6" "s7", "s4" "s5", "s10" "s11";
                "vmul.f32" "s2" "s3", "s2" "s3", "s6" "s7";
            ),
            "vmov s4, s5, r4, r5",
            $($side,)*
            $($end,)*
            "subs r2, #1",
            "bne 1b",
            "3:",
            "vpop {{s16-s31}}",
            "pop {{r4-r8, pc}}",
            "4:",
            "vmov s2, r7",
            "vcmp.f32 s0, s2",
            "vmrs APSR_nzcv, fpscr",
            "it gt",
            "vmovgt.f32 s0, s2",
            "vcmp.f32 s1, s2",
            "vmrs APSR_nzcv, fpscr",
            "it gt",
            "vmovgt.f32 s1, s2",
            "b 2b",
        );
    };
}

gelu! {
    "jostle_gelu",
    load: "ldmia r1!, {{r4, r5}}",
    density: [],
    side: [
        "cmp r4, #0", "it pl", "vsubpl.f32 s2, s24, s2",
        "cmp r5, #0", "it pl", "vsubpl.f32 s3, s24, s3"
    ],
    end: [
        pair!("vmul.f32" "s2" "s3", "s2" "s3", "s4" "s5";),
        "vstmia r0!, {{s2-s3}}",
    ]
}

gelu! {
    "jostle_gelu_exchange",
    load: "ldmia r0, {{r4, r5}}",
    density: [
        pair!(
            "vmul.f32" "s0" "s1", "s0" "s1", "s31" "s31";
            "vmul.f32" "s0" "s1", "s0" "s1", "s2" "s3";
        )
    ],
    side: [
        "cmp r4, #0", "ite pl", "vsubpl.f32 s2, s24, s2", "vnegmi.f32 s0, s0",
        "cmp r5, #0", "ite pl", "vsubpl.f32 s3, s24, s3", "vnegmi.f32 s1, s1"
    ],
    end: [
        "vldmia r1, {{s6-s7}}",
        pair!(
            "vadd.f32" "s0" "s1", "s2" "s3", "s0" "s1";
            "vmul.f32" "s0" "s1", "s0" "s1", "s6" "s7";
            "vmul.f32" "s2" "s3", "s2" "s3", "s4" "s5";
        ),
        "vstmia r0!, {{s0-s1}}",
        "vstmia r1!, {{s2-s3}}",
    ]
}
