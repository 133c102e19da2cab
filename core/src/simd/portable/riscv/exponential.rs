//! Exponentials, and GELU.

use crate::simd::math::{DENSITY, EXP, LN_2, NORMAL, NORMAL_LEAST, NORMAL_SCALE, ROUND};

/// The constants of the exponential's loop: in fa2 to fa7, then in ft0 to ft4.
pub(super) static EXPONENTIAL: [f32; 11] = [
    core::f32::consts::LOG2_E,
    ROUND,
    LN_2[0],
    LN_2[1],
    EXP[0],
    EXP[1],
    EXP[2],
    EXP[3],
    EXP[4],
    1.0,
    // From here on, no result is denormal.
    -87.0,
];

/// The constants of GELU's loops: in fs0 to fs11, then in ft5 to ft11, then in fa6 and fa7. Signs are for |x| instead
/// of -|x|.
pub(super) static GELU: [f32; 21] = [
    ROUND + 127.0,
    core::f32::consts::LOG2_E,
    LN_2[0],
    LN_2[1],
    EXP[0],
    EXP[1],
    EXP[2],
    EXP[3],
    EXP[4],
    1.0,
    0.5,
    NORMAL_SCALE,
    NORMAL[0],
    -NORMAL[1],
    NORMAL[2],
    -NORMAL[3],
    NORMAL[4],
    -NORMAL[5],
    NORMAL[6],
    -NORMAL_LEAST,
    DENSITY,
];

/// The exponential's polynomial of r. Arguments are registers for the square and two sums, and the registers of the
/// coefficients and of 1.
macro_rules! polynomial {
    (
        $r:literal $square:literal $low:literal $high:literal,
        $p0:literal $p1:literal $p2:literal $p3:literal $p4:literal $one:literal
    ) => {
        concat!(
            instructions!("fmul.s" $square $r $r),
            fused!(
                "fmadd.s" $low $r $p1 $p0,
                "fmadd.s" $high $r $p3 $p2,
                "fmadd.s" $high $square $p4 $high,
                "fmadd.s" $low $square $high $low,
                "fmadd.s" $low $r $low $one,
                "fmadd.s" $r $r $low $one
            )
        )
    };
}

/// Instructions of three registers.
macro_rules! instructions {
    ($($op:literal $to:literal $a:literal $b:literal),*) => {
        concat!($($op, " ", $to, ", ", $a, ", ", $b, "\n"),*)
    };
}

/// Instructions of four registers.
macro_rules! fused {
    ($($op:literal $to:literal $a:literal $b:literal $c:literal),*) => {
        concat!($($op, " ", $to, ", ", $a, ", ", $b, ", ", $c, "\n"),*)
    };
}

// `simd::math::exp_of_negative`, with the same operations. It stops at an element whose exponential may be denormal,
// or whose argument is NaN, and returns the number of remaining elements. Registers: fa0 is the scale, fa1 the
// maximum. A result is a factor with n added to its exponent.
function!(
    "jostle_exp",
    memory!("flw" "a2", "0" "fa2", "4" "fa3", "8" "fa4", "12" "fa5", "16" "fa6", "20" "fa7", "24" "ft0", "28" "ft1"),
    memory!("flw" "a2", "32" "ft2", "36" "ft3", "40" "ft4"),
    "beqz a1, 2f",
    "1:",
    "flw ft5, 0(a0)",
    instructions!("fmul.s" "ft5" "ft5" "fa0", "fsub.s" "ft5" "ft5" "fa1"),
    "fle.s t0, ft4, ft5",
    "beqz t0, 2f",
    fused!("fmadd.s" "ft6" "ft5" "fa2" "fa3"),
    instructions!("fsub.s" "ft7" "ft6" "fa3"),
    fused!("fnmsub.s" "ft5" "ft7" "fa4" "ft5", "fnmsub.s" "ft5" "ft7" "fa5" "ft5"),
    polynomial!("ft5" "ft7" "ft8" "ft9", "fa6" "fa7" "ft0" "ft1" "ft2" "ft3"),
    "fmv.x.w t0, ft6",
    "fmv.x.w t1, ft5",
    "slli t0, t0, 23",
    "add t0, t0, t1",
    "sw t0, 0(a0)",
    "addi a0, a0, 4",
    "addi a1, a1, -1",
    "bnez a1, 1b",
    "2:",
    "mv a0, a1",
    "ret",
);

/// Defines a function over `a2` elements, with x at `$x`. It is `simd::math::normal_tail`, with the same operations
/// except for signs. At its end, x is in ft0, |x| in ft1, the bell in ft2, q in ft3, and zero in fa5.
macro_rules! gelu {
    ($name:literal, x: $x:literal, end: [$($end:expr),* $(,)?]) => {
        function!(
            $name,
            "addi sp, sp, -48",
            memory!("fsw" "sp", "0" "fs0", "4" "fs1", "8" "fs2", "12" "fs3", "16" "fs4", "20" "fs5"),
            memory!("fsw" "sp", "24" "fs6", "28" "fs7", "32" "fs8", "36" "fs9", "40" "fs10", "44" "fs11"),
            memory!("flw" "a3", "0" "fs0", "4" "fs1", "8" "fs2", "12" "fs3", "16" "fs4", "20" "fs5", "24" "fs6"),
            memory!("flw" "a3", "28" "fs7", "32" "fs8", "36" "fs9", "40" "fs10", "44" "fs11", "48" "ft5", "52" "ft6"),
            memory!("flw" "a3", "56" "ft7", "60" "ft8", "64" "ft9", "68" "ft10", "72" "ft11", "76" "fa6", "80" "fa7"),
            "fmv.w.x fa5, zero",
            "beqz a2, 5f",
            "1:",
            concat!("flw ft0, 0(", $x, ")"),
            "fabs.s ft1, ft0",
            "flt.s t0, fa6, ft1",
            "bnez t0, 4f",
            "2:",
            // w, interleaved with the bell.
            instructions!(
                "fadd.s" "fa0" "fs11" "ft1",
                "fdiv.s" "fa0" "ft1" "fa0",
                "fmul.s" "ft2" "ft1" "ft1",
                "fmul.s" "ft2" "ft2" "fs10"
            ),
            fused!("fnmsub.s" "ft3" "ft2" "fs1" "fs0"),
            instructions!("fsub.s" "ft4" "ft3" "fs0"),
            fused!("fnmadd.s" "ft2" "ft4" "fs2" "ft2", "fnmsub.s" "ft2" "ft4" "fs3" "ft2"),
            polynomial!("ft2" "ft4" "fa3" "fa4", "fs4" "fs5" "fs6" "fs7" "fs8" "fs9"),
            "fmv.x.w t0, ft3",
            "slli t0, t0, 23",
            "fmv.w.x ft3, t0",
            instructions!("fmul.s" "ft2" "ft2" "ft3", "fmul.s" "fa2" "fa0" "fa0"),
            fused!(
                "fmadd.s" "ft3" "fa0" "ft6" "ft5",
                "fmadd.s" "ft4" "fa0" "ft8" "ft7",
                "fmadd.s" "fa3" "fa0" "ft10" "ft9",
                "fmadd.s" "ft3" "fa2" "ft4" "ft3",
                "fmadd.s" "fa3" "fa2" "ft11" "fa3"
            ),
            instructions!("fmul.s" "fa2" "fa2" "fa2"),
            fused!("fmadd.s" "ft3" "fa2" "fa3" "ft3", "fnmsub.s" "ft3" "fa0" "ft3" "fs10"),
            $($end,)*
            "addi a0, a0, 4",
            "addi a1, a1, 4",
            "addi a2, a2, -1",
            "bnez a2, 1b",
            "5:",
            memory!("flw" "sp", "0" "fs0", "4" "fs1", "8" "fs2", "12" "fs3", "16" "fs4", "20" "fs5"),
            memory!("flw" "sp", "24" "fs6", "28" "fs7", "32" "fs8", "36" "fs9", "40" "fs10", "44" "fs11"),
            "addi sp, sp, 48",
            "ret",
            // Bounded where the exponential becomes zero.
            "4:",
            "fmv.s ft1, fa6",
            "j 2b",
        );
    };
}

gelu!(
    "jostle_gelu",
    x: "a1",
    end: [
        instructions!("fmul.s" "ft3" "ft2" "ft3", "fmax.s" "ft0" "ft0" "fa5"),
        fused!("fnmsub.s" "ft0" "ft1" "ft3" "ft0"),
        "fsw ft0, 0(a0)",
    ]
);

gelu!(
    "jostle_gelu_exchange",
    x: "a0",
    end: [
        "flw fa0, 0(a1)",
        instructions!("fmul.s" "ft4" "ft2" "ft3"),
        fused!("fnmsub.s" "ft3" "ft1" "fa7" "ft3"),
        // Both sides have the same slope at zero.
        "fmv.x.w t0, ft0",
        instructions!("fmul.s" "ft3" "ft2" "ft3", "fmax.s" "ft0" "ft0" "fa5"),
        "bltz t0, 3f",
        "fsub.s ft3, fs9, ft3",
        "3:",
        instructions!("fmul.s" "ft3" "fa0" "ft3"),
        fused!("fnmsub.s" "ft0" "ft1" "ft4" "ft0"),
        "fsw ft3, 0(a0)",
        "fsw ft0, 0(a1)",
    ]
);
