//! The softmax of rows, and a causal mask for it. The mask sets later columns to minus infinity, so that their
//! weights are zero and the others sum to 1 (Vaswani et al. 2017, section 3.2.3).

use super::{count_rows, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::simd::math::exp_of_negative;
use crate::simd::{self, InstructionSet, Loop, Sum, Vector, vectorized};

/// Replaces each row of `x [R, width]` by its softmax.
pub fn forward(simd: InstructionSet, x: &mut [f32], width: usize) -> Result<(), Error> {
    count_rows("x", x, width)?;
    softmax_rows(simd, x, width);
    Ok(())
}

/// Sets row i of `scores [T, width]` to minus infinity after column i + `offset`.
pub fn causal_mask(scores: &mut [f32], width: usize, offset: usize) -> Result<(), Error> {
    count_rows("scores", scores, width)?;
    for (i, row) in rows_mut(scores, width).enumerate() {
        mask_after(row, i.saturating_add(offset));
    }
    Ok(())
}

/// Writes the gradient of the scores, `d_x = y (d_y - sum(d_y y))` row by row; all `[R, width]`.
pub fn backward(
    simd: InstructionSet,
    d_x: &mut [f32],
    d_y: &[f32],
    y: &[f32],
    width: usize,
) -> Result<(), Error> {
    count_rows("y", y, width)?;
    exact_length("d_y", d_y.len(), y.len())?;
    exact_length("d_x", d_x.len(), y.len())?;
    gradient_rows(simd, d_x, d_y, y, width);
    Ok(())
}

/// Minus infinity after column `last`.
#[inline(always)]
pub(crate) fn mask_after(row: &mut [f32], last: usize) {
    row.iter_mut().skip(last.saturating_add(1)).for_each(|score| *score = f32::NEG_INFINITY);
}

/// Replaces a row by `exp(x * scale - maximum)`; returns the maximum (of `x * scale`, for a positive `scale`) and one
/// over the sum.
#[inline(always)]
pub(crate) fn exponentials<V: Vector>(row: &mut [f32], scale: f32) -> (f32, f32) {
    let maximum = simd::maximum::<V>(row) * scale;
    (maximum, 1.0 / exp_of_scaled::<V>(row, scale, maximum))
}

/// `x = exp(x * scale - maximum)`, where `maximum` is the greatest `x * scale`. Returns the sum.
#[inline(always)]
pub(crate) fn exp_of_scaled<V: Vector>(x: &mut [f32], scale: f32, maximum: f32) -> f32 {
    if V::run(Loop::Exp { x: &mut *x, scale, maximum }) {
        return simd::total::<V>(x);
    }
    // Sum the exponentials in registers: a vector that was just written in parts cannot be read before it has reached
    // the cache.
    let (mut sum, length) = (Sum::new(), x.len());
    simd::update(
        x,
        [],
        #[inline(always)]
        |block, x: V, []| {
            let e = exp_of_negative(x.mul(V::splat(scale)).sub(V::splat(maximum)));
            let left = length.wrapping_sub(block * V::LANES);
            sum.add(block, V::select(V::first_lanes(left), e, V::zero()));
            e
        },
    );
    sum.total()
}

vectorized! {
    fn softmax_rows<V>(x: &mut [f32], width: usize) {
        for row in rows_mut(x, width) {
            let (_, reciprocal) = exponentials::<V>(row, 1.0);
            simd::update(row, [], |_, e: V, []| e.mul(V::splat(reciprocal)));
        }
    }
}

vectorized! {
    fn gradient_rows<V>(d_x: &mut [f32], d_y: &[f32], y: &[f32], width: usize) {
        for ((d_x, d_y), y) in rows_mut(d_x, width).zip(rows(d_y, width)).zip(rows(y, width)) {
            let dot = V::splat(simd::dot::<V>(d_y, y));
            simd::map(d_x, [d_y, y], |_, [d_y, y]: [V; 2]| y.mul(d_y.sub(dot)));
        }
    }
}
