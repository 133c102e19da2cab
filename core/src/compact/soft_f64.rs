//! The f64 arithmetic that training and sampling need, with the same bits on every processor: sums over a model, and
//! a few numbers of each step.
//!
//! On targets that emulate f64, all of it is done here with whole numbers, and one function rounds. That saves 2 KB
//! of flash compared with the compiler's emulation, which has a function with all cases of IEEE 754 for each
//! operation. It saves another 6 KB compared with powers, roots and cosines of the `libm` crate. Those are more
//! accurate by an ulp or two, which does not show in an f32.
//!
//! Cases that cannot occur here are left out: results beyond the greatest number, subnormal results, which become
//! zero, and the sign of zero.

use core::ops::{Add, Mul, Neg, Sub};

use crate::simd::processor;
use crate::target::Target;

/// An f64, as its bits: targets that emulate f64 calculate in integer registers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SoftF64(u64);

/// The mantissa of 1.
const MANTISSA: u64 = 1 << 52;
const SIGN: u64 = 1 << 63;
/// The stored exponent of infinity and NaN.
const NOT_FINITE: u32 = 0x7FF;

impl SoftF64 {
    pub const ZERO: SoftF64 = SoftF64::new(0.0);
    pub const ONE: SoftF64 = SoftF64::new(1.0);

    pub const fn new(x: f64) -> SoftF64 {
        SoftF64(x.to_bits())
    }

    pub const fn get(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// Whether it is greater than another. Neither may be negative or NaN.
    pub fn exceeds(self, other: SoftF64) -> bool {
        self.0 > other.0
    }

    /// The nearest f32, ties to even.
    pub fn single(self) -> f32 {
        match Target::HERE {
            Target::Vectors => self.get() as f32,
            Target::Portable => to_single(self),
        }
    }

    /// The sum of some numbers, in their order.
    pub fn sum_of(numbers: impl Iterator<Item = f32>) -> SoftF64 {
        numbers.fold(SoftF64::ZERO, |sum, x| sum + x.into())
    }

    fn stored_exponent(self) -> u32 {
        (self.0 >> 52) as u32 & NOT_FINITE
    }

    /// The mantissa and the exponent of a finite number, without its sign: `mantissa * 2^exponent`.
    fn parts(self) -> (u64, i32) {
        let exponent = self.stored_exponent();
        let mantissa = if exponent == 0 { 0 } else { self.0 & (MANTISSA - 1) | MANTISSA };
        (mantissa, exponent as i32 - 1075)
    }
}

impl From<f32> for SoftF64 {
    fn from(x: f32) -> SoftF64 {
        match Target::HERE {
            Target::Vectors => SoftF64::new(x.into()),
            Target::Portable => of_single(x),
        }
    }
}

impl From<u64> for SoftF64 {
    #[inline(never)]
    fn from(number: u64) -> SoftF64 {
        nearest(0, number, 0)
    }
}

impl Add for SoftF64 {
    type Output = SoftF64;

    fn add(self, other: SoftF64) -> SoftF64 {
        match Target::HERE {
            Target::Vectors => SoftF64::new(self.get() + other.get()),
            Target::Portable => sum(self, other),
        }
    }
}

impl Sub for SoftF64 {
    type Output = SoftF64;

    fn sub(self, other: SoftF64) -> SoftF64 {
        self + -other
    }
}

impl Neg for SoftF64 {
    type Output = SoftF64;

    fn neg(self) -> SoftF64 {
        SoftF64(self.0 ^ SIGN)
    }
}

impl Mul for SoftF64 {
    type Output = SoftF64;

    fn mul(self, other: SoftF64) -> SoftF64 {
        match Target::HERE {
            Target::Vectors => SoftF64::new(self.get() * other.get()),
            Target::Portable => product(self, other),
        }
    }
}

/// The number nearest to `mantissa * 2^exponent`, ties to even. In a mantissa of more than 54 bits, the last bit may
/// be a sticky bit.
#[inline(never)]
fn nearest(sign: u64, mut mantissa: u64, exponent: i32) -> SoftF64 {
    // The stored exponent of the first bit, without that bit, which is not stored. Callers pass mantissas of nearly
    // the right size, so shifting bit by bit is the fastest.
    let mut stored = exponent + 1085;
    while mantissa < 1 << 63 {
        processor::stay_rolled();
        if mantissa == 0 {
            return SoftF64::ZERO;
        }
        mantissa <<= 1;
        stored -= 1;
    }
    if stored < 0 {
        return SoftF64::ZERO;
    }
    let (kept, rest) = (mantissa >> 11, mantissa & 0x7FF);
    let up = u64::from(rest + (kept & 1) > 0x400);
    SoftF64((sign | (stored as u64) << 52) + kept + up)
}

/// For numbers that are not both infinite.
#[inline(never)]
fn sum(x: SoftF64, y: SoftF64) -> SoftF64 {
    let (x, y) = if x.0 << 1 < y.0 << 1 { (y, x) } else { (x, y) };
    if x.stored_exponent() == NOT_FINITE {
        return x;
    }
    // With ten more bits for rounding. The last of them is a sticky bit for the bits that are shifted out.
    let ((mantissa, exponent), (addend, least)) = (x.parts(), y.parts());
    let mut addend = addend << 10;
    let shift = (exponent - least).min(63);
    let left = addend >> shift;
    addend = left | u64::from(left << shift != addend);
    if (x.0 ^ y.0) & SIGN != 0 {
        addend = addend.wrapping_neg();
    }
    nearest(x.0 & SIGN, (mantissa << 10).wrapping_add(addend), exponent - 10)
}

/// For finite numbers.
#[inline(never)]
fn product(x: SoftF64, y: SoftF64) -> SoftF64 {
    let ((a, i), (b, j)) = (x.parts(), y.parts());
    let times = |a: u64, b: u64| u64::from(a as u32) * u64::from(b as u32);
    let low = times(a, b);
    let middle = times(a >> 32, b) + times(a, b >> 32) + (low >> 32);
    // All but the last 42 bits.
    let high = (times(a >> 32, b >> 32) << 22) + (middle >> 10);
    let rest = middle as u32 & 0x3FF | low as u32;
    nearest((x.0 ^ y.0) & SIGN, high | u64::from(rest != 0), i + j + 42)
}

#[inline(never)]
fn of_single(x: f32) -> SoftF64 {
    let bits = x.to_bits();
    let (sign, stored, mantissa) = (u64::from(bits >> 31) << 63, bits >> 23 & 0xFF, bits & 0x7F_FFFF);
    let (mantissa, exponent) = match stored {
        0xFF => return SoftF64(sign | u64::from(NOT_FINITE) << 52 | u64::from(mantissa) << 29),
        0 => (mantissa, -149),
        _ => (mantissa | 1 << 23, stored as i32 - 150),
    };
    // Nearly the size that [`nearest`] needs.
    nearest(sign, u64::from(mantissa) << 39, exponent - 39)
}

#[inline(never)]
fn to_single(x: SoftF64) -> f32 {
    let magnitude = SoftF64(x.0 & !SIGN);
    let bits = match x.stored_exponent() {
        NOT_FINITE if magnitude.0 << 12 != 0 => f32::NAN.to_bits(),
        1151.. => f32::INFINITY.to_bits(),
        stored => {
            // Adding a number of the right size leaves the f32's last bit as the last bit of the sum.
            let least = stored.max(897) + 29;
            let rounded = sum(SoftF64(u64::from(least) << 52), magnitude).0 as u32;
            ((least - 926) << 23) + rounded
        }
    };
    f32::from_bits((x.0 >> 32) as u32 & 1 << 31 | bits)
}

/// The quotient by a positive normal number, correctly rounded. A dividend that is zero, infinite, NaN or subnormal
/// is returned unchanged.
///
/// Long division with whole numbers, nine bits at a time, each estimated from below by a 32-bit quotient.
#[inline(never)]
pub(crate) fn quotient(x: SoftF64, divisor: SoftF64) -> SoftF64 {
    if !x.get().is_normal() {
        return x;
    }
    let ((mut rest, exponent), (divisor, less)) = (x.parts(), divisor.parts());
    let (mut digits, mut exponent) = (0, exponent - less);
    if rest >= divisor {
        (digits, rest) = (1, rest - divisor);
    }
    // Computes two more digits than the quotient has, for rounding.
    while digits < 4 * MANTISSA {
        processor::stay_rolled();
        rest <<= 9;
        let mut nine = (rest >> 32) as u32 / ((divisor >> 32) as u32).saturating_add(1);
        rest -= u64::from(nine) * divisor;
        while rest >= divisor {
            processor::stay_rolled();
            rest -= divisor;
            nine += 1;
        }
        digits = digits << 9 | u64::from(nine);
        exponent -= 9;
    }
    nearest(x.0 & SIGN, digits | u64::from(rest != 0), exponent)
}

/// The square root of a positive normal number, correctly rounded. Zero, infinity, NaN and all others are returned
/// unchanged.
///
/// Digit by digit, in whole numbers: x is m 4^n, and its root sqrt(m) 2^n.
#[inline(never)]
pub(crate) fn sqrt(x: SoftF64) -> SoftF64 {
    if !(MANTISSA..f64::INFINITY.to_bits()).contains(&x.0) {
        return x;
    }
    let (mantissa, exponent) = x.parts();
    let odd = exponent & 1;
    // Twice the remainder, which stays below 2^56. One more digit than the root has is computed for rounding; no
    // exact root ends with it.
    let (mut rest, mut root, mut digit) = (2 * (mantissa << odd), 0, 2 * MANTISSA);
    while digit > 0 {
        processor::stay_rolled();
        let next = 2 * root + digit;
        if rest >= next {
            rest -= next;
            root += digit;
        }
        rest *= 2;
        digit >>= 1;
    }
    nearest(0, 2 * root + 1, (exponent - odd) / 2 - 28)
}

/// `x` to a whole power, by squaring.
#[inline(never)]
pub(crate) fn power(mut x: SoftF64, mut exponent: u64) -> SoftF64 {
    let mut power = SoftF64::ONE;
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power * x;
        }
        x = x * x;
        exponent >>= 1;
    }
    power
}

/// The cosine of an angle from 0 to pi.
pub(crate) fn cos_of_half_turn(angle: SoftF64) -> SoftF64 {
    /// The difference between pi and its f64.
    const REST_OF_PI: SoftF64 = SoftF64::new(1.224_646_799_147_353_2e-16);
    if angle.exceeds(SoftF64::new(core::f64::consts::FRAC_PI_2)) {
        -cosine(SoftF64::new(core::f64::consts::PI) - angle + REST_OF_PI)
    } else {
        cosine(angle)
    }
}

/// The cosine of an angle up to pi / 2, by its series.
#[inline(never)]
pub(crate) fn cosine(angle: SoftF64) -> SoftF64 {
    /// 1 / (2n (2n - 1)), the greatest n first: the factors between the series' terms.
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
    FACTORS.iter().fold(SoftF64::ONE, |sum, factor| {
        processor::stay_rolled();
        SoftF64::ONE - sum * (square * SoftF64::new(*factor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_common::Random;

    /// Numbers of all magnitudes, numbers near each other, and sums of few bits, whose halves are ties.
    fn pairs() -> impl Iterator<Item = [f64; 2]> {
        let mut random = Random::new(74);
        let mut number = move |spread: u64| {
            let (bits, few) = (random.bits(), random.bits().is_multiple_of(3));
            let mantissa = if few {
                bits & (MANTISSA - 1) & !((MANTISSA - 1) >> 6) | bits & 1
            } else {
                bits & (MANTISSA - 1)
            };
            f64::from_bits(bits & SIGN | (1023 - spread / 2 + random.bits() % spread) << 52 | mantissa)
        };
        let near = [1_u64, 3, 8, 60, 120, 800].map(|spread| (0..100_000).map(move |_| spread));
        near.into_iter().flatten().map(move |spread| [number(spread), number(spread)])
    }

    #[test]
    fn whole_numbers_give_the_sums_and_products_of_the_processor() {
        let edges = [0.0, 1.0, -1.0, 1.5, f64::INFINITY, f64::NAN, 1e300, f64::MIN_POSITIVE];
        let edges = edges.into_iter().flat_map(|x| edges.map(|y| [x, y]));
        for [x, y] in pairs().chain(edges) {
            let wanted = x + y;
            let found = sum(SoftF64::new(x), SoftF64::new(y)).get();
            assert!(
                found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan(),
                "{x:e} + {y:e}"
            );
            if (x * y).is_normal() && x.is_finite() && y.is_finite() {
                assert_eq!(
                    product(SoftF64::new(x), SoftF64::new(y)).get().to_bits(),
                    (x * y).to_bits(),
                    "{x:e} * {y:e}"
                );
            }
        }
        let [three, tiny] = [3.0, 1e-200].map(SoftF64::new);
        let zeros = [product(SoftF64::ZERO, three), product(tiny, tiny), sum(three, -three)];
        assert_eq!(zeros, [SoftF64::ZERO; 3]);
    }

    #[test]
    fn whole_numbers_give_the_conversions_of_the_processor() {
        let mut random = Random::new(75);
        for bits in (0..300_000).map(|_| random.bits()).chain([0, 1, 1 << 53, (1 << 53) + 1, u64::MAX]) {
            let x = f32::from_bits(bits as u32);
            let (found, wanted) = (of_single(x).get(), f64::from(x));
            assert!(found.to_bits() == wanted.to_bits() || x.is_nan() && found.is_nan() || x == 0.0, "{x:e}");
            for whole in [bits, bits >> 9, bits >> 12, bits >> 40] {
                assert_eq!(SoftF64::from(whole).get(), whole as f64, "{whole}");
            }
        }
        let mut random = Random::new(76);
        let halves = |x: f32| f64::midpoint(x.into(), f32::from_bits(x.to_bits() + 1).into());
        let ties = (0..300_000).map(|_| halves(f32::from_bits(random.bits() as u32 & 0x7F7F_FFFE)));
        let mut random = Random::new(77);
        let any = (0..300_000).map(|_| f64::from_bits(random.bits() & !(0x600 << 52) | 0x300 << 52));
        let wide = [0.0, 1e-46, 1e-45, 3.4e38, 3.5e38, 1e300, f64::INFINITY, f64::NAN, f32::MAX.into()];
        for x in ties.chain(any).chain(pairs().flatten()).chain(wide) {
            for x in [x, -x] {
                let (found, wanted) = (to_single(SoftF64::new(x)), x as f32);
                assert!(
                    found.to_bits() == wanted.to_bits() || x.is_nan() && found.is_nan(),
                    "{x:e}: {found:e}"
                );
            }
        }
    }

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
                let found = quotient(SoftF64::new(x), SoftF64::new(divisor)).get();
                assert_eq!(found.to_bits(), wanted.to_bits(), "{x:e} / {divisor:e}");
                assert_eq!(
                    quotient(-SoftF64::new(x), SoftF64::new(divisor)).get(),
                    -wanted,
                    "-{x:e} / {divisor:e}"
                );
            }
        }
        for x in [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(quotient(SoftF64::new(x), SoftF64::new(3.0)).get().to_bits(), x.to_bits());
        }
        assert!(quotient(SoftF64::new(f64::NAN), SoftF64::new(3.0)).get().is_nan());
    }

    #[test]
    fn roots_are_correctly_rounded() {
        let mut random = Random::new(71);
        let normal = (0..200_000).map(|_| f64::from_bits(random.bits() >> 1)).filter(|x| x.is_normal());
        let near_one = (0..200_000).map(|i| f64::from_bits(1.0_f64.to_bits() - 100_000 + i));
        let edges = [0.0, 1.0, 2.0, 3.0, 4.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY];
        for x in normal.chain(near_one).chain(edges) {
            assert_eq!(sqrt(SoftF64::new(x)).get().to_bits(), x.sqrt().to_bits(), "{x:e}");
        }
        assert!(sqrt(SoftF64::new(f64::NAN)).get().is_nan());
    }

    #[test]
    fn powers_give_the_same_corrections_as_libm() {
        for beta in [0.0_f32, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999] {
            for step in (1..3000).chain((3000..300_000).step_by(97)).chain([1 << 40, u64::MAX]) {
                let (beta, rate) = (f64::from(beta), f64::from(1e-3_f32));
                let [found, wanted] = [power(SoftF64::new(beta), step).get(), libm::pow(beta, step as f64)]
                    .map(|power| {
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
                let (found, wanted) = (cos_of_half_turn(SoftF64::new(angle)).get(), libm::cos(angle));
                assert!((found - wanted).abs() < 4e-16, "{step} of {steps}: {found} {wanted}");
                for last in [0.0_f32, 1e-4] {
                    let rate =
                        |cosine| (f64::from(last) + 0.5 * (1.0 + cosine) * f64::from(1e-3 - last)) as f32;
                    assert_eq!(rate(found), rate(wanted), "{step} of {steps}");
                }
            }
        }
        assert_eq!(cos_of_half_turn(SoftF64::new(core::f64::consts::PI)), SoftF64::new(-1.0));
    }
}
