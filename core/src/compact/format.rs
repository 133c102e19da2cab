//! Numbers as text: whole numbers, and floats as the shortest decimal that reads back to the same bits, as Rust
//! displays them. The arithmetic is exact.
//!
//! The language's own conversions are exact too, but take 25 KB of code and tables, and can panic. Its formatting
//! takes another 1 KB.

use core::cmp::Ordering;
use core::fmt::{self, Write};

use crate::simd::processor;

/// A destination of text. If it cannot take more, it keeps the error and ignores the rest.
pub trait Sink {
    /// Takes the next piece.
    fn put(&mut self, text: &[u8]);
}

/// A value that can be written as text.
pub trait Written {
    /// Writes it.
    fn write(&self, out: &mut dyn Sink);
}

impl Written for &str {
    fn write(&self, out: &mut dyn Sink) {
        out.put(self.as_bytes());
    }
}

/// Displays ASCII text that was written.
pub(crate) fn display(text: &dyn Written, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    struct Display<'a, 'f>(&'a mut fmt::Formatter<'f>, fmt::Result);
    impl Sink for Display<'_, '_> {
        fn put(&mut self, text: &[u8]) {
            let mut text = text.iter().map(|byte| char::from(*byte));
            self.1 = self.1.and_then(|()| text.try_for_each(|char| self.0.write_char(char)));
        }
    }
    let mut display = Display(f, Ok(()));
    text.write(&mut display);
    display.1
}

/// A whole number.
pub struct Number(pub u64);

impl Written for Number {
    #[inline(never)]
    fn write(&self, out: &mut dyn Sink) {
        let (digits, first) = digits(self.0);
        out.put(digits.get(first..).unwrap_or_default());
    }
}

/// All digits of a whole number, and the index of the first significant one.
fn digits(number: u64) -> ([u8; 20], usize) {
    let (mut digits, mut first) = ([b'0'; 20], 19);
    // Divides sixteen bits at a time: with 32-bit registers a 64-bit division takes half a kilobyte.
    let mut limbs = [48, 32, 16, 0].map(|shift| (number >> shift) as u32 & 0xffff);
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        let mut rest = 0;
        for limb in &mut limbs {
            processor::stay_rolled();
            let part = rest << 16 | *limb;
            (*limb, rest) = (part / 10, part % 10);
        }
        if rest > 0 {
            *digit += rest as u8;
            first = place;
        }
    }
    (digits, first)
}

/// The whole number of some digits.
#[inline(never)]
pub(crate) fn whole(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.checked_sub(b'0').filter(|digit| *digit < 10).map(u64::from);
    let number =
        text.iter().try_fold(0_u64, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?));
    number.filter(|_| !text.is_empty())
}

/// The last hexadecimal digits of a number.
pub struct Hex(pub u32, pub u32);

impl Written for Hex {
    #[inline(never)]
    fn write(&self, out: &mut dyn Sink) {
        for place in (0..self.1).rev() {
            let digit = (self.0 >> (4 * place) & 15) as u8;
            out.put(&[if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }]);
        }
    }
}

/// A finite float.
pub(crate) struct Float(pub f32);

/// The number of digits that distinguishes every float from its neighbours.
const DIGITS: u32 = 9;

impl Written for Float {
    fn write(&self, out: &mut dyn Sink) {
        if self.0.is_sign_negative() {
            out.put(b"-");
        }
        let (number, exponent) = shortest(self.0.to_bits() & 0x7fff_ffff);
        let (digits, first) = digits(u64::from(number));
        // Places are counted from the ones. The place of the last digit is the exponent.
        let before_ones = (digits.len() - first) as i32 + exponent;
        for place in (exponent.min(0)..before_ones.max(1)).rev() {
            if place == -1 {
                out.put(b".");
            }
            let from_end = usize::try_from(place.saturating_sub(exponent)).ok();
            let digit = from_end.and_then(|from_end| digits.iter().rev().nth(from_end)).unwrap_or(&b'0');
            out.put(&[*digit]);
        }
    }
}

/// A float with seven digits, and with an exponent if it is very small or large. It may be infinite or NaN.
pub struct Rounded(pub f32);

impl Written for Rounded {
    fn write(&self, out: &mut dyn Sink) {
        let bits = self.0.to_bits() & 0x7fff_ffff;
        if self.0.is_nan() {
            return out.put(b"NaN");
        }
        if self.0.is_sign_negative() {
            out.put(b"-");
        }
        if bits == f32::INFINITY.to_bits() {
            return out.put(b"infinity");
        }
        let (number, place) = leading(bits);
        // Rounds nine digits to seven, as 0.000000 to 9.999999 times a power of ten.
        let number = (number + 50) / 100;
        let (digits, first) = digits(u64::from(number));
        let mut exponent = place + (digits.len() - first) as i32 + 1;
        if bits == 0 {
            exponent = 0;
        }
        let digits = digits.get(first..).unwrap_or_default();
        let last = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0) as i32;

        let plain = (-5..7).contains(&exponent);
        let ones = if plain { exponent } else { 0 };
        for place in ones.min(0)..=last.max(ones) {
            if place == ones + 1 {
                out.put(b".");
            }
            let digit = usize::try_from(place).ok().and_then(|place| digits.get(place));
            out.put(&[*digit.unwrap_or(&b'0')]);
        }
        if !plain {
            out.put(if exponent < 0 { b"e-" } else { b"e" });
            Number(exponent.unsigned_abs().into()).write(out);
        }
    }
}

/// The float of a decimal without an exponent, with at most nine digits apart from leading and trailing zeros.
pub(crate) fn parse(text: &[u8]) -> Option<f32> {
    let positive = text.strip_prefix(b"-");
    let (negative, text) = (positive.is_some(), positive.unwrap_or(text));
    let (mut number, mut zeros, mut point) = (0_u32, 0, None);
    for (place, byte) in text.iter().enumerate() {
        zeros += 1;
        match byte {
            b'.' if point.is_none() => {
                point = Some(place);
                zeros -= 1;
            }
            b'0' => {}
            b'1'..=b'9' => {
                let shift = if number == 0 { 1 } else { 10_u32.checked_pow(zeros)? };
                number = number.checked_mul(shift)?.checked_add(u32::from(byte - b'0'))?;
                zeros = 0;
            }
            _ => return None,
        }
    }
    let whole = point.unwrap_or(text.len());
    let fraction = text.len().saturating_sub(whole + 1);
    if whole == 0 || whole > 40 || fraction > 60 {
        return None;
    }
    let all = (0, f32::INFINITY.to_bits());
    let x = f32::from_bits(nearest((number, zeros as i32 - fraction as i32), all));
    x.is_finite().then_some(if negative { -x } else { x })
}

/// The bits of the float nearest to a decimal, ties to even, from one float to another.
#[inline(never)]
fn nearest(decimal: (u32, i32), (mut below, mut above): (u32, u32)) -> u32 {
    // Finds the greatest float that is not above the decimal.
    while above - below > 1 {
        processor::stay_rolled();
        let middle = below + (above - below) / 2;
        if compare(decimal, binary(middle)) == Ordering::Less { above = middle } else { below = middle }
    }
    let (mantissa, exponent) = binary(below);
    match compare(decimal, (2 * mantissa + 1, exponent - 1)) {
        Ordering::Less => below,
        Ordering::Equal => below + (below & 1),
        Ordering::Greater => above,
    }
}

/// The first nine digits of a positive float, and the place of the last.
#[inline(never)]
fn leading(bits: u32) -> (u32, i32) {
    let float = binary(bits);
    let mut place = -53;
    while compare((10_u32.pow(DIGITS), place), float) != Ordering::Greater {
        place += 1;
    }
    let (mut digits, mut above) = (0, 10_u32.pow(DIGITS));
    while above - digits > 1 {
        processor::stay_rolled();
        let middle = digits + (above - digits) / 2;
        if compare((middle, place), float) == Ordering::Greater { above = middle } else { digits = middle }
    }
    (digits, place)
}

/// The shortest decimal that identifies the float, and among these the nearest.
fn shortest(bits: u32) -> (u32, i32) {
    if bits == 0 {
        return (0, 0);
    }
    let float = binary(bits);
    let (digits, place) = leading(bits);
    let mut unit = 10_u32.pow(DIGITS - 1);
    let mut exponent_10 = place + DIGITS as i32 - 1;
    loop {
        let lower = digits / unit;
        let upper = lower + 1;
        let middle = compare((2 * lower + 1, exponent_10), (2 * float.0, float.1));
        let order = if middle == Ordering::Greater { [lower, upper] } else { [upper, lower] };
        let is_nearest = |number: &u32| nearest((*number, exponent_10), (bits - 1, bits + 1)) == bits;
        if let Some(found) = order.into_iter().find(is_nearest) {
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

/// A whole number of 384 bits, the lowest first: enough for 2^30 10^40 2^151.
struct Whole([u32; 12]);

impl Whole {
    fn new(number: u32) -> Whole {
        let mut limbs = [0; 12];
        limbs[0] = number;
        Whole(limbs)
    }

    /// Multiplies by `factor`, `count` times; never for a negative count.
    #[inline(never)]
    fn times(mut self, factor: u32, count: i32) -> Whole {
        for _ in 0..count {
            let mut carry = 0;
            for limb in &mut self.0 {
                processor::stay_rolled();
                let product = u64::from(*limb) * u64::from(factor) + carry;
                (*limb, carry) = (product as u32, product >> 32);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Float, Hex, Number, Rounded, Sink, Written, parse, whole};
    use crate::test_common::Random;
    use std::string::{String, ToString};

    impl Sink for String {
        fn put(&mut self, text: &[u8]) {
            self.extend(text.iter().map(|byte| char::from(*byte)));
        }
    }

    fn text(x: impl Written) -> String {
        let mut text = String::new();
        x.write(&mut text);
        text
    }

    /// Compares with the language.
    #[track_caller]
    fn check(x: f32) {
        let wanted = x.to_string();
        assert_eq!(text(Float(x)), wanted, "{x:e}");
        assert_eq!(parse(wanted.as_bytes()).map(f32::to_bits), Some(x.to_bits()), "{wanted}");
    }

    #[test]
    fn whole_numbers() {
        let mut random = Random::new(60);
        for number in [0, 1, 9, 10, 99, 100, u64::MAX].into_iter().chain((0..1000).map(|_| random.bits())) {
            assert_eq!(text(Number(number)), number.to_string());
            assert_eq!(whole(number.to_string().as_bytes()), Some(number));
            assert_eq!(text(Hex(number as u32, 8)), std::format!("{:08x}", number as u32));
        }
        assert_eq!(text(Hex(0x1f, 4)), "001f");
        for text in ["", "-1", "+1", "x", "1x", "18446744073709551616"] {
            assert_eq!(whole(text.as_bytes()), None, "{text}");
        }
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
    fn seven_digits() {
        for (x, wanted) in [
            (0.0, "0"),
            (-0.25, "-0.25"),
            (1e-5, "0.00001"),
            (1e-8, "1e-8"),
            (1_500_000.0, "1500000"),
            (9_999_999.5, "1e7"),
            (7_744_072.5, "7744073"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "-infinity"),
        ] {
            assert_eq!(text(Rounded(x)), wanted);
        }
        // Compares with the language, which rounds ties to even.
        let mut random = Random::new(63);
        for x in (0..3000).map(|_| random.any()).filter(|x| x.is_finite()) {
            let exact = std::format!("{x:.130e}");
            let (digits, exponent) = exact.trim_start_matches('-').split_once('e').unwrap();
            if digits[8..].trim_end_matches('0') == "5" {
                continue;
            }
            let wanted = std::format!("{x:.6e}").parse::<f64>().unwrap();
            let wanted = if (-5..7).contains(&exponent.parse().unwrap()) && wanted.abs() < 1e7 {
                wanted.to_string()
            } else {
                std::format!("{wanted:e}")
            };
            assert_eq!(text(Rounded(x)), wanted, "{x:e}");
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
                assert_eq!(parse(text.as_bytes()).map(f32::to_bits), wanted.map(f32::to_bits), "{text}");
            }
        }
        // Halfway between two.
        for text in ["16777217", "16777219", "33554434", "33554438"] {
            assert_eq!(parse(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        let long = "9".repeat(41);
        for text in [
            "",
            "-",
            ".5",
            "+1",
            "1e3",
            "inf",
            "NaN",
            "0x1",
            "1.2.3",
            "1 ",
            "1..2",
            "-.",
            "1234567891234",
            &long,
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(std::format!("4{}", "0".repeat(38)).as_bytes()), None);
    }
}
