//! Rotary positions (Su et al. 2021), in the layout of Hugging Face's Llama. Element i of a head is rotated together with
//! element i + D/2, by an angle that grows with the position.

use super::{count_rows, rows, rows_mut};
use crate::compact::turns::{MOST_ANGLE, cosine_and_sine, root};
use crate::config::Rope;
use crate::error::{Error, exact_length};
use crate::simd::{self, InstructionSet, vectorized};

/// Llama 3's scaling of the frequencies, for contexts that are longer than the first training's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// By how much slow rotations are slowed down; at least 1.
    pub factor: f32,
    /// Rotations with fewer turns than this in the original context are slowed down by the whole factor.
    pub low: f32,
    /// Rotations with more turns than this keep their frequency; more than `low`.
    pub high: f32,
    /// The original context, in positions.
    pub original: usize,
}

const _: () = assert!(Rope::MOST_POSITIONS == MOST_ANGLE);

impl Scaling {
    /// Scales nothing.
    const NONE: Scaling = Scaling { factor: 1.0, low: 1.0, high: 2.0, original: 1 };

    fn check(&self) -> Result<(), Error> {
        let range = |what, given, wanted| Err(Error::Range { what, given, wanted });
        let finite = |x: f32| x < f32::INFINITY;
        if !(self.factor >= 1.0 && finite(self.factor)) {
            return range("factor", self.factor, "finite and at least 1");
        }
        if !(self.low > 0.0 && finite(self.low)) {
            return range("low", self.low, "finite and more than 0");
        }
        if !(self.high > self.low && finite(self.high)) {
            return range("high", self.high, "finite and more than low");
        }
        if self.original == 0 { Err(Error::Zero { what: "original" }) } else { Ok(()) }
    }
}

/// Half of a head's width D, which must be even.
fn pairs(head_width: usize) -> Result<usize, Error> {
    match head_width {
        0 => Err(Error::Zero { what: "head_width" }),
        odd if !odd.is_multiple_of(2) => {
            Err(Error::Range { what: "head_width", given: odd as f32, wanted: "an even number" })
        }
        even => Ok(even / 2),
    }
}

/// Writes the cosines and sines `[T, D/2]` of positions 0 to T - 1. `theta` is the wavelengths' base, at least 1.
pub fn table(
    cos: &mut [f32],
    sin: &mut [f32],
    head_width: usize,
    theta: f32,
    scaling: Option<Scaling>,
) -> Result<(), Error> {
    let half = pairs(head_width)?;
    let length = count_rows("cos", cos, half)?;
    exact_length("sin", sin.len(), cos.len())?;
    if !(1.0..f32::INFINITY).contains(&theta) {
        return Err(Error::Range { what: "theta", given: theta, wanted: "finite and at least 1" });
    }
    if length > MOST_ANGLE {
        return Err(Error::Context { length, context: MOST_ANGLE });
    }
    if let Some(scaling) = scaling {
        scaling.check()?;
    }
    let Scaling { factor, low, high, original } = scaling.unwrap_or(Scaling::NONE);
    let rope =
        Rope { theta, factor, low_freq_factor: low, high_freq_factor: high, original_context: original };
    angles(cos, sin, 0, head_width, &rope);
    Ok(())
}

/// Writes the cosines and sines `[rows, D/2]` of positions from `first` on, for a valid configuration.
#[inline(never)]
pub(crate) fn angles(cos: &mut [f32], sin: &mut [f32], first: usize, head_width: usize, rope: &Rope) {
    let half = head_width / 2;
    for i in 0..half {
        let mut frequency = 1.0 / root(rope.theta, i as f32 / half as f32);
        if rope.factor != 1.0 {
            frequency = scaled(frequency, rope);
        }
        let column = |x| rows_mut(x, half).filter_map(move |row: &mut [f32]| row.get_mut(i));
        for (row, (cos, sin)) in column(cos).zip(column(sin)).enumerate() {
            [*cos, *sin] = cosine_and_sine((first + row) as f32 * frequency);
        }
    }
}

/// The scaled frequency, in the order of Transformers.
fn scaled(frequency: f32, rope: &Rope) -> f32 {
    let Rope { factor, low_freq_factor: low, high_freq_factor: high, .. } = *rope;
    let original = rope.original_context as f32;
    let wavelength = (1.0 / frequency) * core::f32::consts::TAU;
    if wavelength > original / low {
        frequency / factor
    } else if wavelength < original / high {
        frequency
    } else {
        let kept = ((1.0 / wavelength) * original - low) / (high - low);
        (1.0 - kept) * frequency / factor + kept * frequency
    }
}

/// Rotates `x [R, H, D]` in place. Row r has the angles of row r of the table: `cos [R, D/2]` and `sin [R, D/2]`.
pub fn forward(
    simd: InstructionSet,
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    heads: usize,
    head_width: usize,
) -> Result<(), Error> {
    let (half, width) = check("x", x, cos, sin, heads, head_width)?;
    rotate(simd, x, width, width, cos, sin, half, 1.0);
    Ok(())
}

/// Turns the gradient of the output into the gradient of the input, `d_x [R, H, D]`, in place: the rotation back.
pub fn backward(
    simd: InstructionSet,
    d_x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    heads: usize,
    head_width: usize,
) -> Result<(), Error> {
    let (half, width) = check("d_x", d_x, cos, sin, heads, head_width)?;
    rotate(simd, d_x, width, width, cos, sin, half, -1.0);
    Ok(())
}

/// Refuses sizes that do not match. Returns D/2 and the length of a row.
fn check(
    what: &'static str,
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    heads: usize,
    head_width: usize,
) -> Result<(usize, usize), Error> {
    if heads == 0 {
        return Err(Error::Zero { what: "heads" });
    }
    let half = pairs(head_width)?;
    let width = heads.checked_mul(head_width).ok_or(Error::TooLarge { what: "heads and head_width" })?;
    let entries = count_rows(what, x, width)? * half;
    exact_length("cos", cos.len(), entries)?;
    exact_length("sin", sin.len(), entries)?;
    Ok((half, width))
}

vectorized! {
    /// Rotates the heads in the first `columns` of each row of `width`, by `direction` times the angle: 1 or -1.
    #[inline(never)]
    pub(crate) fn rotate<V>(
        x: &mut [f32],
        width: usize,
        columns: usize,
        cos: &[f32],
        sin: &[f32],
        half: usize,
        direction: f32,
    ) {
        let (forth, back) = (V::splat(direction), V::splat(-direction));
        for ((row, cos), sin) in rows_mut(x, width).zip(rows(cos, half)).zip(rows(sin, half)) {
            for head in rows_mut(row.get_mut(..columns).unwrap_or_default(), 2 * half) {
                let Some((a, b)) = head.split_at_mut_checked(half) else { continue };
                simd::update_all([a, b], [cos, sin], |_, [a, b]: [V; 2], [cos, sin]| {
                    [a.mul_add(cos, b.mul(sin.mul(back))), b.mul_add(cos, a.mul(sin.mul(forth)))]
                });
            }
        }
    }
}
