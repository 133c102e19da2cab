//! exp, log and the normal distribution, with the same bits on every processor. They use only addition,
//! multiplication, division, and fused multiply-add where `mul_add` is written. Arguments of exp are at most zero.
//! exp and log are within 1 ulp of the exact value; the tests check all floats. Knows nothing of their use.
#![allow(clippy::excessive_precision, reason = "coefficients as their authors give them")]

use super::{Portable, Vector};

/// Adding and subtracting 1.5 * 2^23 rounds to an integer; in between, its low bits are in the mantissa.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Two parts of ln 2. The first has so few digits that its product with any n is exact.
pub(super) const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// (e^r - 1 - r) / r^2 near zero, the lowest coefficient first: fitted for the least relative error of e^r (3.2e-9).
pub(super) const EXP: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_266, 0.008_368_678, 0.001_382_076];
/// p of [`normal_tail`], the lowest coefficient first.
pub(super) const NORMAL: [f32; 7] = [
    1.196_828_72,
    1.053_252_7,
    0.288_450_301,
    -0.147_988_006,
    -0.019_222_023,
    0.108_268_641,
    0.047_578_327_4,
];
/// k of [`normal_tail`].
pub(super) const NORMAL_SCALE: f32 = 3.0;
/// The least argument of [`normal_tail`] whose tail is not zero.
pub(super) const NORMAL_LEAST: f32 = -13.27;
/// 1 / sqrt(2 pi).
pub(super) const DENSITY: f32 = 0.398_942_3;

/// Horner's scheme, the highest coefficient first.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(x: V, highest: f32, coefficients: [f32; N]) -> V {
    let mut sum = V::splat(highest);
    for coefficient in coefficients {
        sum = sum.mul_add(x, V::splat(coefficient));
    }
    sum
}

/// e^x for x from -88 to 0. It is zero below -87.68, where e^x is denormal.
///
/// n = round(x / ln 2), then e^(x - n ln 2) by a polynomial, times 2^n. Estrin's scheme has half the chain of
/// Horner's; the last terms use Horner's scheme, whose error is smaller.
#[inline(always)]
pub(crate) fn exp_bounded<V: Vector>(x: V) -> V {
    // With the exponent's bias, the field is zero for n = -127, and so is the float.
    let (one, round) = (V::splat(1.0), V::splat(ROUND + 127.0));
    let shifted = x.mul_add(V::splat(core::f32::consts::LOG2_E), round);
    let n = shifted.sub(round);
    let r = n.mul_add(V::splat(-LN_2[1]), n.mul_add(V::splat(-LN_2[0]), x));
    let square = r.mul(r);
    let low = r.mul_add(V::splat(EXP[1]), V::splat(EXP[0]));
    let high = r.mul_add(V::splat(EXP[3]), V::splat(EXP[2]));
    let high = square.mul_add(V::splat(EXP[4]), high);
    let p = square.mul_add(high, low);
    let factor = r.mul_add(r.mul_add(p, one), one);
    factor.mul(V::from_bits(V::shift_left::<23>(shifted.to_bits())))
}

/// e^x for any x up to 0: [`exp_bounded`], or zero below its range.
#[inline(always)]
pub(crate) fn exp_of_negative<V: Vector>(x: V) -> V {
    exp_bounded(V::splat(-88.0).max(x))
}

/// [`exp_of_negative`] for one number.
#[allow(dead_code, reason = "for processors that take most exponentials by a loop of their own")]
#[inline(never)]
pub(super) fn exp_of(x: f32) -> f32 {
    exp_of_negative(Portable::splat(x)).first()
}

/// The natural logarithm: minus infinity at zero, NaN below.
#[inline(always)]
pub(crate) fn log<V: Vector>(x: V) -> V {
    if V::LANES == 1 { V::splat(log_of(x.first())) } else { log_of_lanes(x) }
}

/// [`log()`] for one number.
#[inline(never)]
pub(crate) fn log_of(x: f32) -> f32 {
    log_of_lanes(Portable::splat(x)).first()
}

/// x = 2^n m with m in [sqrt(1/2), sqrt(2)), then log m by Cephes' polynomial (Moshier, `logf`).
#[inline(always)]
fn log_of_lanes<V: Vector>(x: V) -> V {
    // Denormals are first scaled to normal numbers, exactly.
    let denormal = x.lt(V::splat(f32::MIN_POSITIVE));
    let scaled = V::select(denormal, x.mul(V::splat(8_388_608.0)), x);
    let bias = V::select(denormal, V::splat(150.0), V::splat(127.0));
    // After subtracting the bits of sqrt(1/2), the exponent field is n, rounded down.
    let offset = V::add_bits(scaled.to_bits(), V::splat_bits(0x3f80_0000_u32.wrapping_sub(0x3f35_04f3)));
    let n = V::from_signed(V::shift_right::<23>(offset)).sub(bias);
    let mantissa = V::and_bits(offset, V::splat_bits(0x007f_ffff));
    let m = V::from_bits(V::add_bits(mantissa, V::splat_bits(0x3f35_04f3)));
    let z = m.sub(V::splat(1.0));
    let p = polynomial(
        z,
        7.037_683_6e-2,
        [
            -1.151_461e-1,
            1.167_699_87e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333_1e-1,
            -0.5,
        ],
    );
    let tail = z.mul(z).mul_add(p, n.mul(V::splat(LN_2[1])));
    let result = n.mul_add(V::splat(LN_2[0]), z.add(tail));
    // NaN and infinity are returned unchanged.
    let result = V::select(x.lt(V::splat(f32::INFINITY)), result, x);
    let below = V::select(x.lt(V::zero()), V::splat(f32::NAN), V::splat(f32::NEG_INFINITY));
    V::select(x.lt(V::splat(f32::from_bits(1))), below, result)
}

/// -|x|, but no less than `least`.
#[inline(always)]
pub(crate) fn below_zero<V: Vector>(x: V, least: f32) -> V {
    let sign = V::splat_bits(0x8000_0000);
    V::splat(least).max(V::from_bits(V::xor_bits(x.abs().to_bits(), sign)))
}

/// The lower tail of the standard normal distribution. Returns -|x|, bounded where the tail becomes zero; the
/// cumulative function there; and the derivative of x times that function.
///
/// The tail is e^(-x^2 / 2) q, with q = erfcx(|x| / sqrt 2) / 2 as a function of w = -|x| / (k + |x|). This is the
/// form of Abramowitz & Stegun 7.1.26, but with q = 1/2 + w p(w), which keeps the errors small near zero, where the
/// tail is largest. For k = 3, p was fitted for the least relative error (3.0e-8 (1 + x^2)). The tail is within 2.84
/// (1 + x^2) ulp, and one minus it within 1.72 ulp; it is zero below -13.25.
#[inline(always)]
pub(crate) fn normal_tail<V: Vector>(x: V) -> (V, V, V) {
    let below = below_zero(x, NORMAL_LEAST);
    let bell = exp_bounded(below.mul(below).mul(V::splat(-0.5)));
    let w = below.div(V::splat(NORMAL_SCALE).sub(below));
    let square = w.mul(w);
    let low = w.mul_add(V::splat(NORMAL[1]), V::splat(NORMAL[0]));
    let middle = w.mul_add(V::splat(NORMAL[3]), V::splat(NORMAL[2]));
    let high = w.mul_add(V::splat(NORMAL[5]), V::splat(NORMAL[4]));
    let low = square.mul_add(middle, low);
    let high = square.mul_add(V::splat(NORMAL[6]), high);
    let p = square.mul(square).mul_add(high, low);
    let q = w.mul_add(p, V::splat(0.5));
    (below, bell.mul(q), bell.mul(below.mul_add(V::splat(DENSITY), q)))
}

#[cfg(test)]
mod tests;
