//! Sums of sixteen elements, or columns, at a time.

use core::arch::global_asm;

/// Adds terms to sums.
macro_rules! terms {
    (sum: $($sum:literal $x:literal),*) => {
        concat!($("vadd.f32 ", $sum, ", ", $sum, ", ", $x, "\n",)*)
    };
    (deviation: $($sum:literal $x:literal),*) => {
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

/// Adds s16 to s31 to the sums.
macro_rules! add_sixteen {
    () => {
        concat!(
            terms!(sum: "s0" "s16", "s1" "s17", "s2" "s18", "s3" "s19", "s4" "s20", "s5" "s21", "s6" "s22", "s7" "s23"),
            terms!(sum: "s8" "s24", "s9" "s25", "s10" "s26", "s11" "s27", "s12" "s28", "s13" "s29", "s14" "s30", "s15" "s31")
        )
    };
}

// Sixteen columns at a time over all rows, and the rest one by one.
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
    add_sixteen!(),
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

/// The next level of a sum's tree.
macro_rules! half {
    ($($a:literal $b:literal),*) => {
        concat!($("vadd.f32 ", $a, ", ", $a, ", ", $b, "\n",)*)
    };
}

// The beginning of a sum.
global_asm!(
    ".section .rodata.jostle_no_sums,\"a\",%progbits",
    ".p2align 2",
    ".globl jostle_no_sums",
    ".hidden jostle_no_sums",
    "jostle_no_sums:",
    ".zero 64",
    ".text"
);

// The end of a sum.
function!(
    "jostle_tree",
    half!("s0" "s8", "s1" "s9", "s2" "s10", "s3" "s11", "s4" "s12", "s5" "s13", "s6" "s14", "s7" "s15"),
    half!("s0" "s4", "s1" "s5", "s2" "s6", "s3" "s7"),
    half!("s0" "s2", "s1" "s3"),
    half!("s0" "s1"),
    "vpop {{s16-s31}}",
    "bx lr",
);

/// Defines a function that sums `r3` terms. The partial sums are in s0 to s15, operands in the registers after them,
/// and any constants in s30 and s31. A block adds one term to each of the sixteen sums. The remaining terms are added
/// one by one to s0, with the sums in memory.
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
        add_sixteen!(),
    ],
    one: ["vldmia r0!, {{s16}}", terms!(sum: "s0" "s16")]
}

sum! {
    "jostle_squared_deviations",
    count: "r1",
    block: [
        "vldmia r0!, {{s16-s23}}",
        terms!(deviation: "s0" "s16", "s1" "s17", "s2" "s18", "s3" "s19", "s4" "s20", "s5" "s21", "s6" "s22", "s7" "s23"),
        "vldmia r0!, {{s16-s23}}",
        terms!(deviation: "s8" "s16", "s9" "s17", "s10" "s18", "s11" "s19", "s12" "s20", "s13" "s21", "s14" "s22", "s15" "s23"),
    ],
    one: ["vldmia r0!, {{s16}}", terms!(deviation: "s0" "s16")]
}

/// Adds the squares of sixteen elements to their sums.
macro_rules! squares {
    ($($sum:literal $x:literal),*) => {
        terms!(product: $($sum $x $x),*)
    };
}

sum! {
    "jostle_squares",
    count: "r1",
    block: [
        "vldmia r0!, {{s16-s31}}",
        squares!("s0" "s16", "s1" "s17", "s2" "s18", "s3" "s19", "s4" "s20", "s5" "s21", "s6" "s22", "s7" "s23"),
        squares!("s8" "s24", "s9" "s25", "s10" "s26", "s11" "s27", "s12" "s28", "s13" "s29", "s14" "s30", "s15" "s31"),
    ],
    one: ["vldmia r0!, {{s16}}", squares!("s0" "s16")]
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

/// Adds four columns of d_y, weight and x to their sums.
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
