//! Dropout (Srivastava et al. 2014), inverted: training scales the survivors, so that inference needs no change.
//!
//! Whether an element is dropped depends on (seed, stream, step, layer, place, row, column) alone. Backward computes
//! the mask of forward again, so that no mask is stored.

use super::{count_rows, rows, rows_mut};
use crate::compact::soft_f64;
use crate::error::{Error, exact_length};
use crate::rng::{self, Stream};
use crate::simd::{self, InstructionSet, Loop, Vector, vectorized};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::simd::{LANES, WideVector};

/// The dropped elements of a tensor in one step: a function of row and column, drawn on demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    key: u64,
    first_row: usize,
    bound: i32,
    scale: f32,
}

impl Mask {
    /// The mask of one layer at one step; `None` for rate 0.
    ///
    /// The rate is rounded down to a multiple of 2^-31. Survivors are multiplied by one over the probability to
    /// survive, so that the expected value does not change (rate 0.5: by 2).
    pub fn new(rate: f32, seed: u64, stream: Stream, step: u64, layer: u64) -> Result<Option<Mask>, Error> {
        if !(0.0..1.0).contains(&rate) {
            return Err(Error::Range {
                what: "dropout rate",
                given: rate,
                wanted: "at least 0 and less than 1",
            });
        }
        const UNIT: u32 = 1 << 31;
        let threshold = (rate * UNIT as f32) as u32;
        if threshold == 0 {
            return Ok(None);
        }
        let scale = soft_f64::quotient(u64::from(UNIT).into(), u64::from(UNIT - threshold).into()).single();
        // The elements whose draw is in this share of all i32, the smallest ones, are dropped.
        let bound = (2 * threshold).wrapping_add(i32::MIN as u32) as i32;
        Ok(Some(Mask { key: rng::key(seed, stream, step, layer), first_row: 0, bound, scale }))
    }

    /// The factor of survivors.
    pub const fn scale(&self) -> f32 {
        self.scale
    }

    /// The mask of one place in the batch: a sequence, or a head of a sequence.
    #[inline]
    pub(crate) fn at(self, place: u64) -> Mask {
        Mask { key: rng::mix(self.key, place), ..self }
    }

    /// The mask of the rows from `row` on.
    #[inline]
    pub(crate) fn from(self, first_row: usize) -> Mask {
        Mask { first_row, ..self }
    }

    #[inline]
    pub(crate) fn row(self, row: usize) -> RowMask {
        let key = rng::mix(self.key, (self.first_row + row) as u64);
        RowMask { low: key as u32, high: (key >> 32) as u32, bound: self.bound, scale: self.scale }
    }

    /// Sixteen rows, one for each lane.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    pub(crate) fn rows<V: WideVector>(self, first: usize) -> SixteenRowMasks<V> {
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        for (i, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
            let row = self.row(first + i);
            (*low, *high) = (f32::from_bits(row.low), f32::from_bits(row.high));
        }
        let (low, high) = (V::load(&low).to_bits(), V::load(&high).to_bits());
        SixteenRowMasks { low, high, bound: self.bound, scale: self.scale }
    }
}

/// One row of a mask.
#[derive(Clone, Copy)]
pub(crate) struct RowMask {
    low: u32,
    high: u32,
    bound: i32,
    scale: f32,
}

impl RowMask {
    /// Drops and scales a vector of elements that begins in column `LANES * block`.
    #[inline(always)]
    pub(crate) fn apply<V: Vector>(self, block: usize, x: V) -> V {
        V::select(self.dropped::<V>(block), V::zero(), x.mul(V::splat(self.scale)))
    }

    /// [`RowMask::apply`] to the same elements of two matrices.
    #[inline(always)]
    pub(crate) fn apply_to_both<V: Vector>(self, block: usize, x: V, y: V) -> (V, V) {
        let (dropped, scale) = (self.dropped::<V>(block), V::splat(self.scale));
        (V::select(dropped, V::zero(), x.mul(scale)), V::select(dropped, V::zero(), y.mul(scale)))
    }

    /// The draw mixes the column number with the row's key by Wellons' `lowbias32`.
    #[inline(always)]
    fn dropped<V: Vector>(self, block: usize) -> V::Mask {
        let first = V::splat_bits((block as u32).wrapping_mul(V::LANES as u32));
        let column = V::add_bits(V::lane_numbers(), first);
        let keys = [V::splat_bits(self.low), V::splat_bits(self.high)];
        dropped::<V>(V::mul_bits(column, V::splat_bits(SPREAD)), keys, self.bound)
    }
}

/// Sixteen rows of a mask, one for each lane.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy)]
pub(crate) struct SixteenRowMasks<V: WideVector> {
    low: V::Bits,
    high: V::Bits,
    bound: i32,
    scale: f32,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<V: WideVector> SixteenRowMasks<V> {
    /// [`RowMask::apply`] for a column.
    #[inline(always)]
    pub(crate) fn apply(self, column: usize, x: V) -> V {
        V::select(self.dropped(column), V::zero(), x.mul(V::splat(self.scale)))
    }

    /// [`RowMask::apply_to_both`] for a column.
    #[inline(always)]
    pub(crate) fn apply_to_both(self, column: usize, x: V, y: V) -> (V, V) {
        let (dropped, scale) = (self.dropped(column), V::splat(self.scale));
        (V::select(dropped, V::zero(), x.mul(scale)), V::select(dropped, V::zero(), y.mul(scale)))
    }

    #[inline(always)]
    fn dropped(self, column: usize) -> V::Mask {
        let column = V::splat_bits((column as u32).wrapping_mul(SPREAD));
        dropped::<V>(column, [self.low, self.high], self.bound)
    }
}

/// The odd multiplier that spreads column numbers.
const SPREAD: u32 = 0x9E37_79B9;

/// Whether elements of spread columns are dropped, from their rows' keys. It is Wellons' `lowbias32` mixer without
/// its last step, which improves the lower half of the bits; a comparison hardly depends on them.
#[inline(always)]
fn dropped<V: Vector>(spread: V::Bits, [low, high]: [V::Bits; 2], bound: i32) -> V::Mask {
    let h = V::xor_bits(spread, low);
    let h = V::xor_bits(h, V::shift_right::<16>(h));
    let h = V::xor_bits(V::mul_bits(h, V::splat_bits(0x7FEB_352D)), high);
    let h = V::xor_bits(h, V::shift_right::<15>(h));
    V::lt_bits(V::mul_bits(h, V::splat_bits(0x846C_A68B)), V::splat_bits(bound as u32))
}

/// Writes `y = dropout(x)`, both `[R, width]`. Backward applies the same function to gradients.
///
/// `place` distinguishes tensors with the same layer and step, for example by the sequence in the batch.
pub fn forward(
    simd: InstructionSet,
    y: &mut [f32],
    x: &[f32],
    width: usize,
    mask: Option<Mask>,
    place: u64,
) -> Result<(), Error> {
    count_rows("x", x, width)?;
    exact_length("y", y.len(), x.len())?;
    write(simd, y, x, width, mask.map(|mask| mask.at(place)));
    Ok(())
}

/// Writes `d_x = dropout(d_y)` with the mask of [`forward`], both `[R, width]`.
pub fn backward(
    simd: InstructionSet,
    d_x: &mut [f32],
    d_y: &[f32],
    width: usize,
    mask: Option<Mask>,
    place: u64,
) -> Result<(), Error> {
    forward(simd, d_x, d_y, width, mask, place)
}

vectorized! {
    /// `y = dropout(x)` for one place.
    pub(crate) fn write<V>(y: &mut [f32], x: &[f32], width: usize, mask: Option<Mask>) {
        let Some(mask) = mask else {
            if !V::run(Loop::Copy { y: &mut *y, x }) {
                simd::map(y, [x], |_, [x]: [V; 1]| x);
            }
            return;
        };
        for (i, (y, x)) in rows_mut(y, width).zip(rows(x, width)).enumerate() {
            let row = mask.row(i);
            simd::map(y, [x], |block, [x]: [V; 1]| row.apply(block, x));
        }
    }
}

vectorized! {
    /// `x = dropout(x)` for one place.
    pub(crate) fn in_place<V>(x: &mut [f32], width: usize, mask: Option<Mask>) {
        let Some(mask) = mask else { return };
        for (i, x) in rows_mut(x, width).enumerate() {
            let row = mask.row(i);
            simd::update(x, [], |block, x: V, []| row.apply(block, x));
        }
    }
}

vectorized! {
    /// `x += dropout(y)` for one place.
    pub(crate) fn add<V>(x: &mut [f32], y: &[f32], width: usize, mask: Mask) {
        for (i, (x, y)) in rows_mut(x, width).zip(rows(y, width)).enumerate() {
            let row = mask.row(i);
            simd::update(x, [y], |block, x: V, [y]: [V; 1]| x.add(row.apply(block, y)));
        }
    }
}

vectorized! {
    /// `y = x + dropout(y)` for one place: a residual sum.
    pub(crate) fn add_residual<V>(y: &mut [f32], x: &[f32], width: usize, mask: Option<Mask>) {
        let Some(mask) = mask else {
            return simd::add::<V>(y, x);
        };
        for (i, (y, x)) in rows_mut(y, width).zip(rows(x, width)).enumerate() {
            let row = mask.row(i);
            simd::update(y, [x], |block, y, [x]: [V; 1]| x.add(row.apply(block, y)));
        }
    }
}
