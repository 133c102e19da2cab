//! Exponentials and GELU of two elements at a time.

use core::arch::global_asm;

use crate::simd::math::{DENSITY, EXP, LN_2, NORMAL, NORMAL_LEAST, NORMAL_SCALE, ROUND};

/// The constants of the exponential's loop, in the order of its registers.
#[repr(C)]
pub(super) struct Exp {
    /// In s14 to s20.
    constant: [f32; 7],
    /// The starts of sums, once for each element of a pair.
    start: [[f32; 2]; 5],
}

pub(super) static EXPONENTIAL: Exp = Exp {
    constant: [core::f32::consts::LOG2_E, ROUND, LN_2[0], LN_2[1], EXP[1], EXP[3], EXP[4]],
    start: [[ROUND; 2], [EXP[0]; 2], [EXP[2]; 2], [1.0; 2], [1.0; 2]],
};

/// The constants of GELU's loops, in the order of their registers.
#[repr(C)]
pub(super) struct Gelu {
    /// In s17 to s31.
    constant: [f32; 15],
    /// The starts of sums, once for each element of a pair: in s4 to s13, then in s6 to s13.
    exp: [[f32; 2]; 5],
    normal: [[f32; 2]; 4],
    most: f32,
}

// The signs are for |x| instead of -|x|.
pub(super) static GELU: Gelu = {
    const BIASED: f32 = ROUND + 127.0;
    Gelu {
        constant: [
            BIASED,
            core::f32::consts::LOG2_E,
            LN_2[0],
            LN_2[1],
            EXP[1],
            EXP[3],
            EXP[4],
            -0.5,
            NORMAL_SCALE,
            -NORMAL[1],
            -NORMAL[3],
            -NORMAL[5],
            NORMAL[6],
            DENSITY,
            1.0,
        ],
        exp: [[BIASED; 2], [EXP[0]; 2], [EXP[2]; 2], [1.0; 2], [1.0; 2]],
        normal: [[NORMAL[0]; 2], [NORMAL[2]; 2], [NORMAL[4]; 2], [0.5; 2]],
        most: -NORMAL_LEAST,
    }
};

/// The same instruction for both elements of a pair: a mnemonic and registers.
macro_rules! pair {
    ($($op:literal $a:literal $b:literal, $c:literal $d:literal, $e:literal $f:literal;)*) => {
        concat!($(
            $op, " ", $a, ", ", $c, ", ", $e, "\n",
            $op, " ", $b, ", ", $d, ", ", $f, "\n",
        )*)
    };
}

/// The exponential's polynomial in s12 and s13, of r in s2 and s3. Arguments are registers for the square, and the
/// registers of the coefficients. s6 to s13 hold the starts of sums.
macro_rules! polynomial {
    ($square0:literal $square1:literal, $one:literal $three:literal $four:literal) => {
        pair!(
            "vmul.f32" $square0 $square1, "s2" "s3", "s2" "s3";
            "vfma.f32" "s6" "s7", "s2" "s3", $one $one;
            "vfma.f32" "s8" "s9", "s2" "s3", $three $three;
            "vfma.f32" "s8" "s9", $square0 $square1, $four $four;
            "vfma.f32" "s6" "s7", $square0 $square1, "s8" "s9";
            "vfma.f32" "s10" "s11", "s2" "s3", "s6" "s7";
            "vfma.f32" "s12" "s13", "s2" "s3", "s10" "s11";
        )
    };
}

// `simd::math::exp_of_negative`, with the same operations. It stops at a pair whose exponentials may be too small for
// adding n to the exponents, and returns the number of remaining elements. Registers: s21 is the scale, `r2` points
// to the starts of sums, and `r1` is the number of elements after the pair. The last element of an odd number is
// processed as a pair on the stack.
function!(
    "jostle_exp",
    "push {{r4-r6, lr}}",
    "vpush {{s16-s21}}",
    "vmov.f32 s21, s0",
    "vmov.f32 s0, s1",
    "vldmia r2!, {{s14-s20}}",
    "vldmia r2, {{s2-s11}}",
    "vpush {{s0-s11}}",
    "mov r2, sp",
    "movw r3, #0",
    "movt r3, #0xc2ac", // -86.0
    "subs r1, #2",
    "blt 3f",
    "1:",
    "vldmia r0, {{s0-s1}}",
    "2:",
    "vldmia r2, {{s2-s13}}",
    pair!("vnmls.f32" "s2" "s3", "s0" "s1", "s21" "s21";),
    // Neither is above zero, so their sum is a lower bound of both.
    "vadd.f32 s0, s2, s3",
    "vmov r4, s0",
    "cmp r4, r3",
    "bhi 6f",
    pair!(
        "vfma.f32" "s4" "s5", "s2" "s3", "s14" "s14";
        "vsub.f32" "s0" "s1", "s4" "s5", "s15" "s15";
        "vfms.f32" "s2" "s3", "s0" "s1", "s16" "s16";
        "vfms.f32" "s2" "s3", "s0" "s1", "s17" "s17";
    ),
    polynomial!("s0" "s1", "s18" "s19" "s20"),
    // Added to the exponents.
    "vmov r4, r5, s12, s13",
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
    "add sp, #48",
    "vpop {{s16-s21}}",
    "mov r0, r1",
    "pop {{r4-r6, pc}}",
    "6:",
    "adds r1, #2",
    "b 5b",
);

/// Defines a function over `r2` pairs. `load` puts a pair into r4 and r5, and `end` consumes it. It is
/// `simd::math::normal_tail`, with the same operations except for signs. s0 and s1 hold |x|, s2 and s3 become the
/// bell, s12 and s13 become q.
macro_rules! gelu {
    ($name:literal, load: $load:literal, end: [$($end:expr),* $(,)?]) => {
        function!(
            $name,
            "push {{r4-r8, lr}}",
            "vpush {{s16-s31}}",
            "vldmia r3!, {{s17-s31}}",
            "add r12, r3, #40",
            "ldr r7, [r3, #72]",
            "cmp r2, #0",
            "beq.w 3f",
            "1:",
            $load,
            "vmov s0, s1, r4, r5",
            "vabs.f32 s0, s0",
            "vabs.f32 s1, s1",
            // Rare: at least one is large, or NaN.
            "vadd.f32 s2, s0, s1",
            "vmov r6, s2",
            "cmp r6, r7",
            "bhi 4f",
            "2:",
            "vldmia r3, {{s4-s13}}",
            pair!(
                "vmul.f32" "s2" "s3", "s0" "s1", "s0" "s1";
                "vmul.f32" "s2" "s3", "s2" "s3", "s24" "s24";
                "vfma.f32" "s4" "s5", "s2" "s3", "s18" "s18";
                "vsub.f32" "s14" "s15", "s4" "s5", "s17" "s17";
                "vfms.f32" "s2" "s3", "s14" "s15", "s19" "s19";
                "vfms.f32" "s2" "s3", "s14" "s15", "s20" "s20";
            ),
            polynomial!("s14" "s15", "s21" "s22" "s23"),
            "vmov r6, r8, s4, s5",
            "lsl r6, r6, #23",
            "lsl r8, r8, #23",
            "vmov s4, s5, r6, r8",
            pair!(
                "vmul.f32" "s2" "s3", "s12" "s13", "s4" "s5";
                "vadd.f32" "s4" "s5", "s0" "s1", "s25" "s25";
                "vdiv.f32" "s4" "s5", "s0" "s1", "s4" "s5";
                "vmul.f32" "s14" "s15", "s4" "s5", "s4" "s5";
            ),
            "vldmia r12, {{s6-s13}}",
            pair!(
                "vfma.f32" "s6" "s7", "s4" "s5", "s26" "s26";
                "vfma.f32" "s8" "s9", "s4" "s5", "s27" "s27";
                "vfma.f32" "s10" "s11", "s4" "s5", "s28" "s28";
                "vfma.f32" "s6" "s7", "s14" "s15", "s8" "s9";
                "vfma.f32" "s10" "s11", "s14" "s15", "s29" "s29";
                "vmul.f32" "s14" "s15", "s14" "s15", "s14" "s15";
                "vfma.f32" "s6" "s7", "s14" "s15", "s10" "s11";
                "vfms.f32" "s12" "s13", "s4" "s5", "s6" "s7";
            ),
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
    end: [
        // Negative values become zero.
        "bic r4, r4, r4, asr #31",
        "bic r5, r5, r5, asr #31",
        "vmov s4, s5, r4, r5",
        pair!(
            "vmul.f32" "s2" "s3", "s2" "s3", "s12" "s13";
            "vfms.f32" "s4" "s5", "s0" "s1", "s2" "s3";
        ),
        "vstmia r0!, {{s4-s5}}",
    ]
}

gelu! {
    "jostle_gelu_exchange",
    load: "ldmia r0, {{r4, r5}}",
    end: [
        pair!(
            "vmul.f32" "s4" "s5", "s2" "s3", "s12" "s13";
            "vfms.f32" "s12" "s13", "s0" "s1", "s30" "s30";
            "vmul.f32" "s2" "s3", "s2" "s3", "s12" "s13";
        ),
        // As above; both sides have the same slope at zero.
        "bics r4, r4, r4, asr #31",
        "it ne",
        "vsubne.f32 s2, s31, s2",
        "bics r5, r5, r5, asr #31",
        "it ne",
        "vsubne.f32 s3, s31, s3",
        "vmov s6, s7, r4, r5",
        "vldmia r1, {{s8-s9}}",
        pair!(
            "vmul.f32" "s2" "s3", "s2" "s3", "s8" "s9";
            "vfms.f32" "s6" "s7", "s0" "s1", "s4" "s5";
        ),
        "vstmia r0!, {{s2-s3}}",
        "vstmia r1!, {{s6-s7}}",
    ]
}
