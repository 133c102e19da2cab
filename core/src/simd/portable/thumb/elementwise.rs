//! Loops over slices: four elements at a time, or eight, and the rest one by one.

use core::arch::global_asm;

/// Defines a function over `r12` elements of some slices, given as pointers: read slices, changed slices, and written
/// slices. Four elements of each are in s0 to s3, s4 to s7, s8 to s11 and s12 to s15. Constants are in s20 and after.
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

macro_rules! scale {
    ($(($x:literal $y:literal $c:literal $d:literal))*) => {
        concat!($("vmul.f32 ", $x, ", ", $x, ", s20\n",)*)
    };
}

each! {
    "jostle_scale",
    enter: ["mov r12, r1", "vpush {{s20-s21}}", "vmov.f32 s20, s0"],
    read: [],
    change: ["r0" "s0-s3" "s0"],
    write: [],
    body: scale,
    leave: ["vpop {{s20-s21}}"],
}

/// From a softmax's exponentials and the gradient of its weights.
macro_rules! softmax_gradient {
    ($(($e:literal $d_y:literal $c:literal $d:literal))*) => {
        concat!(
            $("vmul.f32 ", $e, ", ", $e, ", s20\n",)*
            $("vsub.f32 ", $d_y, ", ", $d_y, ", s21\n",)*
            $("vmul.f32 ", $d_y, ", ", $e, ", ", $d_y, "\n",)*
            $("vmul.f32 ", $d_y, ", ", $d_y, ", s22\n",)*
        )
    };
}

each! {
    "jostle_softmax_gradient",
    enter: ["mov r12, r2", "vpush {{s20-s23}}", "vmov.f32 s20, s0", "vmov.f32 s21, s1", "vmov.f32 s22, s2"],
    read: [],
    change: ["r0" "s0-s3" "s0", "r1" "s4-s7" "s4"],
    write: [],
    body: softmax_gradient,
    leave: ["vpop {{s20-s23}}"],
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

/// Updates elements in the registers `$m`, `$v` and `$g` of m, v and the gradient. The gradient's registers are then
/// reused for the copies of epsilon at `r4`, and last for x.
macro_rules! adamw {
    ($m:literal $v:literal $g:literal, $(($one_m:literal $one_v:literal $one_g:literal))*) => {
        concat!(
            "vldmia r3!, {{", $g, "}}\n",
            "vldmia r1, {{", $m, "}}\n",
            "vldmia r2, {{", $v, "}}\n",
            "cbz r5, 5f\n",
            $("vmul.f32 ", $one_g, ", ", $one_g, ", s25\n",)*
            "5:\n",
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

// Eight elements at a time. The constants are in s24 to s31, except for epsilon: eight copies of it are on the stack.
// `r5` is zero if the factor is one.
function!(
    "jostle_adamw",
    "push {{r4, r5, lr}}",
    "ldrd r12, r4, [sp, #12]",
    "vpush {{s16-s31}}",
    "vldmia r4!, {{s24-s31}}",
    "vmov r5, s25",
    "sub r5, r5, #0x3f800000",
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
    "pop {{r4, r5, pc}}",
);

/// From x, weight and bias. The bias's registers become y.
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
