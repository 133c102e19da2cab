//! Numbers as text: whole ones, and floats as the shortest decimal that reads back to the same bits, as Rust displays
//! them, in exact arithmetic. The language's own conversions are exact too, but take 25 KB of code and tables, and can
//! panic.

use core::cmp::Ordering;
use core::fmt::{self, Write};

/// A whole number, to be displayed.
pub(crate) struct Number(pub u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut text, mut rest) = ([b'0'; 20], self.0);
        let mut count = 0;
        for digit in text.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        text.iter().rev().take(count).rev().try_for_each(|digit| f.write_char(char::from(*digit)))
    }
}

/// The last so many hexadecimal digits, to be displayed.
pub(crate) struct Hex(pub u32, pub u32);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.1).rev().try_for_each(|place| {
            f.write_char(char::from_digit(self.0 >> (4 * place) & 15, 16).unwrap_or_default())
        })
    }
}

/// A float, to be displayed. Not infinite, nor NaN.
pub(crate) struct Float(pub f32);

/// Digits that tell every float from its neighbours.
const DIGITS: u32 = 9;

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_sign_negative() {
            f.write_str("-")?;
        }
        let (number, exponent) = shortest(self.0.to_bits() & 0x7fff_ffff);
        let mut text = [b'0'; DIGITS as usize + 1];
        let (mut rest, mut count) = (number, 0_i32);
        for digit in text.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        let digit = |place: i32| {
            // Places count from that of the ones; the last digit's is the exponent.
            let from_end = usize::try_from(place.saturating_sub(exponent)).ok();
            let digit = from_end.and_then(|from_end| text.iter().rev().nth(from_end)).unwrap_or(&b'0');
            char::from(*digit)
        };
        for place in (0..(count + exponent).max(1)).rev() {
            f.write_char(digit(place))?;
        }
        if exponent < 0 {
            f.write_str(".")?;
        }
        for place in (exponent..0).rev() {
            f.write_char(digit(place))?;
        }
        Ok(())
    }
}

/// The float that a decimal without an exponent means, of at most nine digits beside zeros before and after.
pub(crate) fn parse(text: &str) -> Option<f32> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || whole.len() > 40 || fraction.len() > 60 {
        return None;
    }
    let (mut number, mut zeros) = (0_u32, 0);
    for byte in whole.bytes().chain(fraction.bytes()) {
        zeros += 1;
        match byte {
            b'0' => {}
            b'1'..=b'9' => {
                let shift = if number == 0 { 1 } else { 10_u32.checked_pow(zeros)? };
                number = number.checked_mul(shift)?.checked_add(u32::from(byte - b'0'))?;
                zeros = 0;
            }
            _ => return None,
        }
    }
    let decimal = (number, zeros as i32 - fraction.len() as i32);
    // The greatest float that is not above the decimal.
    let (mut below, mut above) = (0, f32::INFINITY.to_bits());
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if compare(decimal, binary(middle)) == Ordering::Less { above = middle } else { below = middle }
    }
    let (mantissa, exponent) = binary(below);
    let nearest = match compare(decimal, (2 * mantissa + 1, exponent - 1)) {
        Ordering::Less => below,
        Ordering::Equal => below + (below & 1),
        Ordering::Greater => above,
    };
    let x = f32::from_bits(nearest);
    x.is_finite().then_some(if negative { -x } else { x })
}

/// The shortest decimal between the middles to both neighbours, and among these the nearest.
fn shortest(bits: u32) -> (u32, i32) {
    if bits == 0 {
        return (0, 0);
    }
    let float = binary(bits);
    let mut place = -53;
    while compare((10_u32.pow(DIGITS), place), float) != Ordering::Greater {
        place += 1;
    }
    // The float's first digits.
    let (mut digits, mut above) = (0, 10_u32.pow(DIGITS));
    while above - digits > 1 {
        let middle = digits + (above - digits) / 2;
        if compare((middle, place), float) == Ordering::Greater { above = middle } else { digits = middle }
    }
    let (mantissa, exponent) = float;
    // Below a power of two, floats are twice as near.
    let (lowest, low_exponent) = if mantissa == 1 << 23 && exponent > -149 {
        (4 * mantissa - 1, exponent - 2)
    } else {
        (2 * mantissa - 1, exponent - 1)
    };
    let within = |decimal| {
        let low = compare(decimal, (lowest, low_exponent));
        let high = compare(decimal, (2 * mantissa + 1, exponent - 1));
        // Middles are rounded to the even one.
        let even = mantissa.is_multiple_of(2);
        (low == Ordering::Greater || even && low == Ordering::Equal)
            && (high == Ordering::Less || even && high == Ordering::Equal)
    };
    let mut unit = 10_u32.pow(DIGITS - 1);
    let mut exponent_10 = place + DIGITS as i32 - 1;
    loop {
        let lower = digits / unit;
        let upper = lower + 1;
        let nearer = compare((2 * lower + 1, exponent_10), (2 * mantissa, exponent));
        let order = if nearer == Ordering::Greater { [lower, upper] } else { [upper, lower] };
        if let Some(found) = order.into_iter().find(|number| within((*number, exponent_10))) {
            // The upper one of 9 is 10.
            return if found == 10 { (1, exponent_10 + 1) } else { (found, exponent_10) };
        }
        if unit == 1 {
            return (lower, exponent_10);
        }
        unit /= 10;
        exponent_10 -= 1;
    }
}

/// A positive float as `mantissa * 2^exponent`.
fn binary(bits: u32) -> (u32, i32) {
    let (exponent, fraction) = (bits >> 23, bits & 0x7f_ffff);
    if exponent == 0 { (fraction, -149) } else { (fraction | 1 << 23, exponent as i32 - 150) }
}

/// Compares `a * 10^i` with `b * 2^j`.
#[inline(never)]
fn compare((a, i): (u32, i32), (b, j): (u32, i32)) -> Ordering {
    let left = Whole::new(a).times(10, i).times(2, j.saturating_neg());
    let right = Whole::new(b).times(2, j).times(10, i.saturating_neg());
    left.0.iter().rev().cmp(right.0.iter().rev())
}

/// A whole number in 384 bits, the lowest first: enough for 2^30 10^40 2^151.
struct Whole([u32; 12]);

impl Whole {
    fn new(number: u32) -> Whole {
        let mut limbs = [0; 12];
        limbs[0] = number;
        Whole(limbs)
    }

    /// Times `factor` as often; not at all for a negative count.
    #[inline(never)]
    fn times(mut self, factor: u32, count: i32) -> Whole {
        for _ in 0..count {
            let mut carry = 0;
            for limb in &mut self.0 {
                let product = u64::from(*limb) * u64::from(factor) + carry;
                (*limb, carry) = (product as u32, product >> 32);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Float, Hex, Number, parse};
    use crate::test_common::Random;
    use std::string::ToString;

    /// Against the language.
    #[track_caller]
    fn check(x: f32) {
        let text = x.to_string();
        assert_eq!(Float(x).to_string(), text, "{x:e}");
        assert_eq!(parse(&text).map(f32::to_bits), Some(x.to_bits()), "{text}");
    }

    #[test]
    fn whole_numbers() {
        let mut random = Random::new(60);
        for number in [0, 1, 9, 10, 99, 100, u64::MAX].into_iter().chain((0..1000).map(|_| random.bits())) {
            assert_eq!(Number(number).to_string(), number.to_string());
            assert_eq!(Hex(number as u32, 8).to_string(), std::format!("{:08x}", number as u32));
        }
        assert_eq!(Hex(0x1f, 4).to_string(), "001f");
    }

    #[test]
    fn every_kind_of_float() {
        for bits in [0, 1, 2, 3, 0x7f_ffff, 0x80_0000, 0x80_0001, f32::MAX.to_bits()] {
            check(f32::from_bits(bits));
            check(-f32::from_bits(bits));
        }
        for exponent in 0..255_u32 {
            for fraction in [0, 1, 2, 0x40_0000, 0x7f_fffe, 0x7f_ffff] {
                check(f32::from_bits(exponent << 23 | fraction));
            }
        }
        for x in [1.0, 10.0, 0.1, 1e-5, 1e-8, 1e-12, 0.3, 100.0, 123456.7, 1e10, 3e38, 9.5e-3, 16_777_216.0] {
            check(x);
        }
        let mut random = Random::new(61);
        for _ in 0..3000 {
            let x = random.any();
            if x.is_finite() {
                check(x);
            }
        }
    }

    #[test]
    fn decimals_between_floats_are_rounded() {
        let mut random = Random::new(62);
        for _ in 0..3000 {
            let (digits, shift) = (random.size(1, 999_999_999), random.size(0, 40));
            let zeros = "0".repeat(shift.saturating_sub(digits.to_string().len()));
            for text in [std::format!("0.{zeros}{digits}"), std::format!("{digits}{zeros}")] {
                let wanted = text.parse().ok().filter(|x: &f32| x.is_finite());
                assert_eq!(parse(&text).map(f32::to_bits), wanted.map(f32::to_bits), "{text}");
            }
        }
        // Halfway between two.
        for text in ["16777217", "16777219", "33554434", "33554438"] {
            assert_eq!(parse(text), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        let long = "9".repeat(41);
        for text in ["", "-", ".5", "+1", "1e3", "inf", "NaN", "0x1", "1.2.3", "1 ", "1234567891234", &long] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&std::format!("4{}", "0".repeat(38))), None);
    }
}
