//! exp, log, erf and tanh, the same bits on every processor: add, multiply and divide only, never
//! contracted. Each is within 2 ulp of the exact value (the tests check all floats).
//! Knows nothing of what they are for.
#![allow(clippy::excessive_precision, reason = "coefficients as their authors give them")]

use super::Vector;

/// Adding and subtracting 1.5 * 2^23 rounds to an integer, whose low bits then stand in the mantissa.
const ROUND: f32 = 12_582_912.0;

/// Horner's scheme, the highest coefficient first.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(x: V, highest: f32, coefficients: [f32; N]) -> V {
    let mut sum = V::splat(highest);
    for coefficient in coefficients {
        sum = sum.mul(x).add(V::splat(coefficient));
    }
    sum
}

/// 2^(half - 192), as the bits of a float.
#[inline(always)]
fn power<V: Vector>(half: V::Bits) -> V {
    V::from_bits(V::shift_left::<23>(V::add_bits(half, V::splat_bits(127_u32.wrapping_sub(192)))))
}

/// e^x. Zero below -104, infinity above 88.73; denormal results are rounded twice.
///
/// n = round(x / ln 2), then e^(x - n ln 2) by Cephes' polynomial (Moshier, `expf`), then times 2^n in two
/// factors, so that neither overflows before the result does.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    let clamped = V::splat(-104.0).max(x);
    let clamped = V::select(V::splat(89.0).lt(clamped), V::splat(89.0), clamped);
    let shifted = clamped.mul(V::splat(core::f32::consts::LOG2_E)).add(V::splat(ROUND));
    let n = shifted.sub(V::splat(ROUND));
    // 0.693359375 has so few digits that n times it is exact.
    let r = clamped.sub(n.mul(V::splat(0.693_359_4))).sub(n.mul(V::splat(-2.121_944_4e-4)));
    let p = polynomial(
        r,
        1.987_569_1e-4,
        [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1],
    );
    let e = p.mul(r.mul(r)).add(r).add(V::splat(1.0));
    // The integer n stands in the low bits of `shifted`; n + 384 is positive and even halves stay exact.
    let n = V::add_bits(shifted.to_bits(), V::splat_bits(384_u32.wrapping_sub(ROUND.to_bits())));
    let first = V::shift_right::<1>(n);
    let second = V::sub_bits(n, first);
    let result = e.mul(power::<V>(first)).mul(power::<V>(second));
    // NaN and infinity stay what they are.
    V::select(x.lt(V::splat(f32::INFINITY)), result, x)
}

/// The natural logarithm: minus infinity at zero, NaN below.
///
/// x = 2^n m with m in [sqrt(1/2), sqrt(2)), then log m by Cephes' polynomial (Moshier, `logf`).
#[inline(always)]
pub(crate) fn log<V: Vector>(x: V) -> V {
    // Denormals are made normal first, exactly.
    let denormal = x.lt(V::splat(f32::MIN_POSITIVE));
    let scaled = V::select(denormal, x.mul(V::splat(8_388_608.0)), x);
    let bias = V::select(denormal, V::splat(150.0), V::splat(127.0));
    // Subtracting the bits of sqrt(1/2) makes the exponent field n, rounded down.
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
        ],
    );
    let square = z.mul(z);
    let tail = z.mul(square).mul(p).add(n.mul(V::splat(-2.121_944_4e-4))).sub(square.mul(V::splat(0.5)));
    let result = z.add(tail).add(n.mul(V::splat(0.693_359_4)));
    // NaN and infinity stay what they are.
    let result = V::select(x.lt(V::splat(f32::INFINITY)), result, x);
    let below = V::select(x.lt(V::zero()), V::splat(f32::NAN), V::splat(f32::NEG_INFINITY));
    V::select(x.lt(V::splat(f32::from_bits(1))), below, result)
}

/// The error function (after Juffa's polynomials for `erff`).
#[inline(always)]
pub(crate) fn erf<V: Vector>(x: V) -> V {
    let t = x.abs();
    let square = x.mul(x);
    let near = polynomial(
        square,
        -5.967_617e-4,
        [4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1],
    );
    let near = near.mul(x).add(x);
    let far = polynomial(
        t,
        -1.728_534_7e-5,
        [3.831_972e-4, -3.883_964_4e-3, 2.425_462_2e-2, -1.067_778_8e-1, -6.348_466_9e-1, -1.287_175_1e-1],
    );
    let far = far.mul(t).sub(t);
    let far = V::splat(1.0).sub(exp(far));
    let sign = V::and_bits(x.to_bits(), V::splat_bits(0x8000_0000));
    let far = V::from_bits(V::xor_bits(far.to_bits(), sign));
    V::select(V::splat(0.927_734_4).lt(t), far, near)
}

/// The hyperbolic tangent (Cephes, `tanhf`).
#[inline(always)]
pub(crate) fn tanh<V: Vector>(x: V) -> V {
    let t = x.abs();
    let square = x.mul(x);
    let near = polynomial(
        square,
        -5.704_988_7e-3,
        [2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1],
    );
    let near = near.mul(square).mul(t).add(t);
    let far = V::splat(1.0).sub(V::splat(2.0).div(exp(t.add(t)).add(V::splat(1.0))));
    let result = V::select(V::splat(0.625).lt(t), far, near);
    let sign = V::and_bits(x.to_bits(), V::splat_bits(0x8000_0000));
    V::from_bits(V::xor_bits(result.to_bits(), sign))
}

#[cfg(test)]
mod tests;
