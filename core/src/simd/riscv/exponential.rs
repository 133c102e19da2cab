//! Exponentials, and GELU. `n ln 2` in the exponential's argument is exact but for its last term, so that subtracting it with
//! one rounding is as good as with two.

use super::super::math::{DENSITY, EXP, LN_2, NORMAL, NORMAL_LEAST, NORMAL_SCALE, ROUND};

/// What the exponential's loop reads: in fa2 to fa7, then in ft0 to ft4.
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

/// What GELU's loops read: in fs0 to fs11, then in ft5 to ft11, then in fa6 and fa7.
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
    NORMAL[1],
    NORMAL[2],
    NORMAL[3],
    NORMAL[4],
    NORMAL[5],
    NORMAL[6],
    -NORMAL_LEAST,
    DENSITY,
];

/// From r to its exponential's polynomial, with registers for its square and three sums, and those of the coefficients and
/// of 1.
macro_rules! polynomial {
    (
        $r:literal $square:literal $low:literal $high:literal $highest:literal,
        $e0:literal $e1:literal $e2:literal $e3:literal $e4:literal $one:literal
    ) => {
        instructions!(
            "fmul.s" $square $r $r,
            "fmul.s" $low $r $e1,
            "fmul.s" $high $r $e3,
            "fadd.s" $low $low $e0,
            "fmul.s" $highest $square $e4,
            "fadd.s" $high $high $e2,
            "fadd.s" $high $highest $high,
            "fmul.s" $high $square $high,
            "fadd.s" $low $high $low,
            "fmul.s" $low $square $low,
            "fadd.s" $r $low $r,
            "fadd.s" $r $r $one
        )
    };
}

/// Instructions of three registers.
macro_rules! instructions {
    ($($op:literal $to:literal $a:literal $b:literal),*) => {
        concat!($($op, " ", $to, ", ", $a, ", ", $b, "\n"),*)
    };
}

// Returns how many elements are left: none, or those from one on whose exponential may be denormal, or is of no number.
// `simd::math::exp`, with the same operations otherwise; fa0 is the scale, fa1 the maximum. A result is a factor with n
// added to its exponent.
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
    instructions!(
        "fmul.s" "ft6" "ft5" "fa2",
        "fadd.s" "ft6" "ft6" "fa3",
        "fsub.s" "ft7" "ft6" "fa3"
    ),
    "fnmsub.s ft5, ft7, fa4, ft5",
    instructions!("fmul.s" "ft7" "ft7" "fa5", "fsub.s" "ft5" "ft5" "ft7"),
    polynomial!("ft5" "ft7" "ft8" "ft9" "ft10", "fa6" "fa7" "ft0" "ft1" "ft2" "ft3"),
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

/// A function that goes through `a2` elements, with x at `$x`. `simd::math::normal`, with the same operations but for signs.
/// At its end, x is in ft0, |x| in ft1, the exponential of minus half its square in ft2, and the cumulative function in ft3.
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
            "beqz a2, 5f",
            "1:",
            concat!("flw ft0, 0(", $x, ")"),
            "fabs.s ft1, ft0",
            "flt.s t0, fa6, ft1",
            "bnez t0, 4f",
            "2:",
            // t, and meanwhile the exponential.
            instructions!(
                "fadd.s" "fa0" "fs11" "ft1",
                "fdiv.s" "fa0" "fs11" "fa0",
                "fmul.s" "ft2" "ft1" "ft1",
                "fmul.s" "ft2" "ft2" "fs10",
                "fmul.s" "ft3" "ft2" "fs1",
                "fsub.s" "ft3" "fs0" "ft3",
                "fsub.s" "ft4" "ft3" "fs0"
            ),
            "fnmadd.s ft2, ft4, fs2, ft2",
            instructions!("fmul.s" "ft4" "ft4" "fs3", "fsub.s" "ft2" "ft2" "ft4"),
            polynomial!("ft2" "ft4" "fa3" "fa4" "fa5", "fs4" "fs5" "fs6" "fs7" "fs8" "fs9"),
            "fmv.x.w t0, ft3",
            "slli t0, t0, 23",
            "fmv.w.x ft3, t0",
            instructions!(
                "fsub.s" "fa1" "fa0" "fs10",
                "fmul.s" "ft2" "ft2" "ft3",
                "fmul.s" "fa2" "fa1" "fa1",
                "fmul.s" "ft3" "fa1" "ft6",
                "fmul.s" "ft4" "fa1" "ft8",
                "fmul.s" "fa3" "fa1" "ft10",
                "fadd.s" "ft3" "ft3" "ft5",
                "fadd.s" "ft4" "ft4" "ft7",
                "fadd.s" "fa3" "fa3" "ft9",
                "fmul.s" "fa4" "fa2" "ft11",
                "fmul.s" "ft4" "fa2" "ft4",
                "fmul.s" "fa2" "fa2" "fa2",
                "fadd.s" "fa3" "fa4" "fa3",
                "fadd.s" "ft3" "ft4" "ft3",
                "fmul.s" "fa3" "fa2" "fa3",
                "fmul.s" "fa0" "ft1" "fa0",
                "fadd.s" "ft3" "fa3" "ft3",
                "fmul.s" "ft3" "fa0" "ft3",
                "fsub.s" "ft3" "fs10" "ft3",
                "fmul.s" "ft3" "ft2" "ft3"
            ),
            // Both sides are the same at zero.
            "fmv.x.w t0, ft0",
            "bltz t0, 3f",
            "fsub.s ft3, fs9, ft3",
            "3:",
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
            // Down to where the exponential is zero.
            "4:",
            "fmv.s ft1, fa6",
            "j 2b",
        );
    };
}

gelu!("jostle_gelu", x: "a1", end: ["fmul.s ft0, ft0, ft3", "fsw ft0, 0(a0)"]);

gelu!(
    "jostle_gelu_exchange",
    x: "a0",
    end: [
        "flw fa0, 0(a1)",
        // x times the density.
        instructions!(
            "fmul.s" "fa1" "ft1" "fa7",
            "fmul.s" "fa1" "fa1" "ft2",
            "fsgnjx.s" "fa1" "fa1" "ft0",
            "fmul.s" "ft0" "ft0" "ft3",
            "fadd.s" "fa1" "ft3" "fa1",
            "fmul.s" "fa1" "fa0" "fa1"
        ),
        "fsw fa1, 0(a0)",
        "fsw ft0, 0(a1)",
    ]
);
