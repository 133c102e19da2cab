//! What training takes of f64 beside sums and products: quotients, roots, whole powers and half a turn of the cosine, with
//! the same bits on every processor. The `libm` crate's are nearer by an ulp or two, which does not show in an f32, and
//! take 6 KB more of flash where f64 is emulated; the emulated division takes 0.8 KB where this one takes a third of it.

use crate::simd::scalar;

/// The mantissa of 1.
const ONE: u64 = 1 << 52;

/// The quotient by a positive normal number, correctly rounded, or 0 where that is less than the least normal number; it
/// must not exceed the greatest. A dividend that is zero, infinite, NaN or subnormal as it is.
///
/// In whole numbers, nine digits at a time, estimated from below by a quotient of 32 bits. No quotient lies in the middle
/// of two numbers.
#[inline(never)]
pub(crate) fn quotient(x: f64, divisor: f64) -> f64 {
    if !x.is_normal() {
        return x;
    }
    let parts = |x: f64| ((x.to_bits() >> 52) as u32 & 0x7FF, x.to_bits() & (ONE - 1) | ONE);
    let ((exponent, mut rest), (less, mut divisor)) = (parts(x), parts(divisor));
    let mut biased = exponent + 1022;
    if rest >= divisor {
        divisor *= 2;
        biased += 1;
    }
    // To a digit more than the quotient has, to round it: six times nine, the first of which is 1.
    let mut digits = 0;
    while digits < 2 * ONE {
        scalar::stay_rolled();
        rest <<= 9;
        let mut nine = (rest >> 32) as u32 / ((divisor >> 32) as u32 + 1);
        rest -= u64::from(nine) * divisor;
        while rest >= divisor {
            scalar::stay_rolled();
            rest -= divisor;
            nine += 1;
        }
        digits = digits << 9 | u64::from(nine);
    }
    let biased = u64::from(biased.saturating_sub(less));
    if biased == 0 {
        return 0.0;
    }
    f64::from_bits(((digits + 1) >> 1) - ONE + (biased << 52)).copysign(x)
}

/// The root of a normal number, correctly rounded; zero, infinity, NaN, and what else has no sound root, as they are.
///
/// Digit by digit, in whole numbers: x is m 4^n, with m in 1..4, and its root sqrt(m) 2^n.
#[inline(never)]
pub(crate) fn sqrt(x: f64) -> f64 {
    let bits = x.to_bits();
    if !(ONE..f64::INFINITY.to_bits()).contains(&bits) {
        return x;
    }
    // The exponent's bias is odd: with one more, its half is n and half the bias.
    let biased = (bits >> 52) + 1;
    let mantissa = (bits & (ONE - 1) | ONE) << (biased & 1);
    // Twice the rest, which stays below 2^56, and a digit more than the root has, to round it.
    let (mut rest, mut root, mut digit) = (2 * mantissa, 0, 2 * ONE);
    while digit > 0 {
        scalar::stay_rolled();
        let next = 2 * root + digit;
        if rest >= next {
            rest -= next;
            root += digit;
        }
        rest *= 2;
        digit >>= 1;
    }
    f64::from_bits(((root + 1) >> 1) + ((biased / 2 + 510) << 52))
}

/// `x` to a whole power, by squaring.
#[inline(never)]
pub(crate) fn power(mut x: f64, mut exponent: u64) -> f64 {
    let mut power = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            power *= x;
        }
        x *= x;
        exponent >>= 1;
    }
    power
}

/// The cosine of an angle from 0 to pi.
pub(crate) fn cos_of_half_turn(angle: f64) -> f64 {
    /// What is lost of pi as an f64.
    const REST_OF_PI: f64 = 1.224_646_799_147_353_2e-16;
    if angle > core::f64::consts::FRAC_PI_2 {
        -cosine(core::f64::consts::PI - angle + REST_OF_PI)
    } else {
        cosine(angle)
    }
}

/// The cosine of an angle up to a right one, by its series.
#[inline(never)]
fn cosine(angle: f64) -> f64 {
    /// One over the products of neighbouring numbers, 2n (2n - 1), the greatest first: the factors of the series' terms.
    const FACTORS: [f64; 11] = {
        let (mut factors, mut i) = ([0.0; 11], 0);
        while i < factors.len() {
            let n = 2 * (factors.len() - i);
            factors[i] = 1.0 / (n * (n - 1)) as f64;
            i += 1;
        }
        factors
    };
    let square = angle * angle;
    FACTORS.iter().fold(1.0, |sum, factor| {
        scalar::stay_rolled();
        1.0 - sum * (square * factor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_common::Random;

    #[test]
    fn quotients_are_correctly_rounded() {
        let mut random = Random::new(72);
        let wide = (0..200_000).map(|_| [(); 2].map(|()| f64::from_bits(random.bits() & !(1 << 63))));
        let mut random = Random::new(73);
        let mut near_one = || f64::from_bits((1.0_f64.to_bits() - 200) + random.bits() % 400);
        let near_one = (0..200_000).map(|_| [near_one(), near_one()]);
        let whole = (1..400).flat_map(|a| (1..400).map(move |b| [f64::from(a), f64::from(b)]));
        for [x, divisor] in
            wide.chain(near_one).chain(whole).filter(|pair| pair.iter().all(|x| x.is_normal()))
        {
            let wanted = x / divisor;
            if !wanted.is_infinite() {
                let wanted = if wanted.is_normal() { wanted } else { 0.0 };
                assert_eq!(quotient(x, divisor).to_bits(), wanted.to_bits(), "{x:e} / {divisor:e}");
                assert_eq!(quotient(-x, divisor), -wanted, "-{x:e} / {divisor:e}");
            }
        }
        for x in [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(quotient(x, 3.0).to_bits(), x.to_bits());
        }
        assert!(quotient(f64::NAN, 3.0).is_nan());
    }

    #[test]
    fn roots_are_correctly_rounded() {
        let mut random = Random::new(71);
        let normal = (0..200_000).map(|_| f64::from_bits(random.bits() >> 1)).filter(|x| x.is_normal());
        let near_one = (0..200_000).map(|i| f64::from_bits(1.0_f64.to_bits() - 100_000 + i));
        let edges = [0.0, 1.0, 2.0, 3.0, 4.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY];
        for x in normal.chain(near_one).chain(edges) {
            assert_eq!(sqrt(x).to_bits(), x.sqrt().to_bits(), "{x:e}");
        }
        assert!(sqrt(f64::NAN).is_nan());
    }

    #[test]
    fn powers_give_the_same_corrections_as_libm() {
        for beta in [0.0_f32, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999] {
            for step in (1..3000).chain((3000..300_000).step_by(97)).chain([1 << 40, u64::MAX]) {
                let (beta, rate) = (f64::from(beta), f64::from(1e-3_f32));
                let [found, wanted] = [power(beta, step), libm::pow(beta, step as f64)].map(|power| {
                    let correction = 1.0 - power;
                    [rate / correction, 1.0 / correction.sqrt()].map(|x| x as f32)
                });
                assert_eq!(found, wanted, "{beta} to {step}");
            }
        }
    }

    #[test]
    fn cosines_give_the_same_rates_as_libm() {
        for steps in [1, 2, 10, 200, 5000, 99_991] {
            for step in 0..steps {
                let angle = core::f64::consts::PI * (f64::from(step) / f64::from(steps));
                let (found, wanted) = (cos_of_half_turn(angle), libm::cos(angle));
                assert!((found - wanted).abs() < 4e-16, "{step} of {steps}: {found} {wanted}");
                for last in [0.0_f32, 1e-4] {
                    let rate =
                        |cosine| (f64::from(last) + 0.5 * (1.0 + cosine) * f64::from(1e-3 - last)) as f32;
                    assert_eq!(rate(found), rate(wanted), "{step} of {steps}");
                }
            }
        }
        assert_eq!(cos_of_half_turn(core::f64::consts::PI), -1.0);
    }
}
