//! The types of numbers in files, and their exact conversion to f32.

/// A type whose every value is an f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    F32,
    F16,
    Bf16,
}

impl Numbers {
    /// The type with a name that [`super::header`] knows.
    pub fn named(name: &str) -> Option<Numbers> {
        // Few bytes of code: the first letters differ.
        match name.as_bytes() {
            [b'F', b'3', ..] => Some(Numbers::F32),
            [b'F', b'1', ..] => Some(Numbers::F16),
            [b'B', ..] => Some(Numbers::Bf16),
            _ => None,
        }
    }

    /// The bytes of a number.
    pub fn size(self) -> usize {
        if self == Numbers::F32 { 4 } else { 2 }
    }

    /// Reads numbers from bytes, as many as both have.
    #[inline(never)]
    pub fn read(self, bytes: &[u8], numbers: &mut [f32]) {
        for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(self.size())) {
            *number = self.number(bytes);
        }
    }

    /// The value of a number. For devices, a function of its own keeps the loop around it small.
    #[cfg_attr(target_os = "none", inline(never))]
    fn number(self, bytes: &[u8]) -> f32 {
        match *bytes {
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b] if self == Numbers::F16 => half(u16::from_le_bytes([a, b]).into()),
            [a, b] => f32::from_le_bytes([0, 0, a, b]),
            _ => 0.0,
        }
    }
}

/// The value of sixteen bits of IEEE 754. A NaN keeps its bits.
fn half(bits: u32) -> f32 {
    let sign = (bits & 0x8000) << 16;
    // Exponent and fraction, where f32 has them.
    let rest = (bits & 0x7FFF) << 13;
    let magnitude = match bits & 0x7C00 {
        // Below the normal numbers: a multiple of 2^-24, which is a normal f32.
        0 => ((bits & 0x03FF) as f32 * (1.0 / (1 << 24) as f32)).to_bits(),
        0x7C00 => rest | 0x7F80_0000,
        _ => rest + ((127 - 15) << 23),
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::{Numbers, half};

    #[test]
    fn halves_are_sign_times_fraction_times_a_power_of_two() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let magnitude = match exponent {
                0 => fraction * 2_f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
            };
            let wanted = magnitude.copysign(if bits >> 15 == 0 { 1.0 } else { -1.0 });
            let given = half(bits.into());
            assert_eq!(given.is_sign_negative(), wanted.is_sign_negative(), "{bits:04x}");
            assert!(f64::from(given) == wanted || given.is_nan() && wanted.is_nan(), "{bits:04x}: {given}");
        }
    }

    #[test]
    fn brain_floats_are_the_upper_half_of_an_f32() {
        for bits in 0..=u16::MAX {
            let mut number = [0.0];
            Numbers::Bf16.read(&bits.to_le_bytes(), &mut number);
            assert_eq!(number[0].to_bits(), u32::from(bits) << 16);
        }
    }
}
