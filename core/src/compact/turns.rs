//! The functions behind rotary positions, with the same bits on every processor: a power, and the sine and cosine of any
//! angle. Computed in [`SoftF64`] and rounded once to f32, which in all but about one case in a million is the nearest f32.
//! The `libm` crate's functions would take 6 KB more of flash where f64 is emulated.

use super::soft_f64::{SoftF64, cosine, quotient};
use crate::simd::processor;

/// Adding and subtracting 2^52 rounds to a whole number, which in between is the mantissa.
const ROUND: SoftF64 = SoftF64::new(4_503_599_627_370_496.0);

/// The nearest whole number to a number from 0 to 2^51, as both kinds of number.
fn nearest_whole(x: SoftF64) -> (u64, SoftF64) {
    let shifted = x + ROUND;
    (shifted.get().to_bits() & ((1 << 52) - 1), shifted - ROUND)
}

/// A series in Horner's scheme, the highest coefficient first.
fn series(x: SoftF64, coefficients: &[f64]) -> SoftF64 {
    coefficients.iter().fold(SoftF64::ZERO, |sum, coefficient| {
        processor::stay_rolled();
        sum * x + SoftF64::new(*coefficient)
    })
}

/// The greatest angle that [`cosine_and_sine`] accepts.
pub(crate) const MOST_ANGLE: usize = 1 << 20;

/// `base` to a power from 0 to 1. The base is finite and at least 1.
#[inline(never)]
pub(crate) fn root(base: f32, exponent: f32) -> f32 {
    /// 2 / ((2n + 1) ln 2): the logarithm to base 2 of (1 + z) / (1 - z), divided by z.
    const LOGARITHM: [f64; 12] = {
        let (mut terms, mut i) = ([0.0; 12], 0);
        while i < terms.len() {
            terms[i] = 2.0 * core::f64::consts::LOG2_E / (2 * (terms.len() - i) - 1) as f64;
            i += 1;
        }
        terms
    };
    /// 1 / n!
    const EXPONENTIAL: [f64; 15] = {
        let (mut terms, mut i) = ([1.0; 15], 14);
        while i > 0 {
            terms[i - 1] = terms[i] / (15 - i) as f64;
            i -= 1;
        }
        terms
    };
    // base = 2^whole m, with m from sqrt(1/2) to sqrt(2).
    let bits = base.to_bits();
    let (mut whole, mut mantissa) = ((bits >> 23).saturating_sub(127), bits & 0x7F_FFFF | 127 << 23);
    if mantissa > core::f32::consts::SQRT_2.to_bits() {
        (whole, mantissa) = (whole + 1, mantissa - (1 << 23));
    }
    let m = SoftF64::from(f32::from_bits(mantissa));
    let z = quotient(m - SoftF64::ONE, m + SoftF64::ONE);
    let logarithm = z * series(z * z, &LOGARITHM) + u64::from(whole).into();
    // base^exponent = 2^whole e^rest, with a rest of at most ln(2) / 2.
    let power = logarithm * exponent.into();
    let (whole, rounded) = nearest_whole(power);
    let rest = (power - rounded) * SoftF64::new(core::f64::consts::LN_2);
    (series(rest, &EXPONENTIAL) * SoftF64::new(f64::from_bits((1023 + whole) << 52))).single()
}

/// The cosine and the sine of an angle from 0 to [`MOST_ANGLE`].
///
/// Whole quarter turns are subtracted first, with a quarter turn in three parts. The first two have 33 bits, so that their
/// products with 20 bits are exact.
#[inline(never)]
pub(crate) fn cosine_and_sine(angle: f32) -> [f32; 2] {
    const QUARTER: [SoftF64; 3] = [
        SoftF64::new(1.570_796_326_734_125_6),
        SoftF64::new(6.077_100_506_303_966e-11),
        SoftF64::new(2.022_266_248_795_950_6e-21),
    ];
    let angle = SoftF64::from(angle);
    let (quarters, number) = nearest_whole(angle * SoftF64::new(core::f64::consts::FRAC_2_PI));
    let rest = QUARTER.iter().fold(angle, |rest, part| rest - number * *part);
    let (cosine, sine) = (cosine(rest), sine(rest));
    let turned = match quarters % 4 {
        0 => [cosine, sine],
        1 => [-sine, cosine],
        2 => [-cosine, -sine],
        _ => [sine, -cosine],
    };
    turned.map(SoftF64::single)
}

/// The sine of an angle up to pi / 4, by its series.
fn sine(angle: SoftF64) -> SoftF64 {
    /// 1 / (2n (2n + 1)), the greatest n first: the factors between the series' terms.
    const FACTORS: [f64; 9] = {
        let (mut factors, mut i) = ([0.0; 9], 0);
        while i < factors.len() {
            let n = 2 * (factors.len() - i);
            factors[i] = 1.0 / (n * (n + 1)) as f64;
            i += 1;
        }
        factors
    };
    let square = angle * angle;
    let series = FACTORS.iter().fold(SoftF64::ONE, |sum, factor| {
        processor::stay_rolled();
        SoftF64::ONE - sum * (square * SoftF64::new(*factor))
    });
    angle * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_nearest(found: f32, wanted: f64, what: core::fmt::Arguments<'_>) {
        assert_eq!(found, wanted as f32, "{what}: {wanted}");
    }

    #[test]
    fn sines_and_cosines_are_libms_rounded_to_f32() {
        let most = MOST_ANGLE as f32;
        let whole = (0..=20_000_u16).map(f32::from);
        let spread = (0..most.to_bits()).step_by(1009).map(f32::from_bits);
        // The floats around multiples of a quarter turn, where a difference cancels most.
        let quarters = (1..600_000).map(|n| (f64::from(n) * core::f64::consts::FRAC_PI_2) as f32);
        let near = quarters.flat_map(|x| [x.next_down(), x, x.next_up()]);
        for angle in whole.chain(spread).chain(near).chain([most]) {
            let [cosine, sine] = cosine_and_sine(angle);
            assert_nearest(cosine, libm::cos(angle.into()), format_args!("cosine of {angle}"));
            assert_nearest(sine, libm::sin(angle.into()), format_args!("sine of {angle}"));
        }
        assert_eq!(cosine_and_sine(0.0).map(f32::to_bits), [1.0_f32, 0.0].map(f32::to_bits));
    }

    #[test]
    fn roots_are_libms_rounded_to_f32() {
        for base in [1.0, 1.5, 2.0, 10.0, 1e4, 1e5, 5e5, 1e6, 12_345.678, 1e30, f32::MAX] {
            for exponent in (0..=1000_u16).map(|n| f32::from(n) / 1000.0) {
                let wanted = libm::pow(base.into(), exponent.into());
                assert_nearest(root(base, exponent), wanted, format_args!("{base} to {exponent}"));
            }
            assert_eq!((root(base, 0.0), root(base, 1.0)), (1.0, base));
        }
    }
}
