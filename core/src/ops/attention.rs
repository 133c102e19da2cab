//! Multi-head attention with the causal mask inside (Vaswani et al. 2017).
//!
//! For each head, `scores = q k^T / sqrt(C / H)`, minus infinity where a key comes later than its query, then
//! softmax, dropout, and `out = weights v`. Rows go through in tiles; the T x T matrix of weights is never
//! whole in memory. Backward makes a tile's weights again from two numbers a row that forward left.

use super::dropout::Mask;
use super::softmax::{exponentials, mask_after};
use super::{count_rows, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::matmul::{Matrix, Size, Start, matmul_trusted, scratch as product_scratch};
use crate::simd::math::exp;
use crate::simd::{self, InstructionSet, vectorized};

/// Query rows of a tile.
const TILE: usize = 32;

/// Elements of the two tiles that backward works on, for sequences of `length`.
pub(crate) const fn tile_scratch(length: usize) -> usize {
    length.saturating_mul(2 * TILE)
}

/// The scratch that [`forward`] and [`backward`] need, in elements.
pub const fn scratch(length: usize, width: usize) -> usize {
    let longest = if length > width { length } else { width };
    tile_scratch(length).saturating_add(product_scratch(longest, longest, longest))
}

/// One sequence's sizes, and its dropout.
#[derive(Clone, Copy)]
pub struct Attention {
    /// H; divides the width.
    pub heads: usize,
    /// C.
    pub width: usize,
    /// Dropout of the weights; `None` in use.
    pub mask: Option<Mask>,
    /// Which sequence of the step it is: tells its mask apart from the others'.
    pub sequence: u64,
}

/// Where one head's queries, keys or values lie in rows of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub query: Matrix<'a>,
    pub key: Matrix<'a>,
    pub value: Matrix<'a>,
    /// C / H.
    pub width: usize,
}

impl Attention {
    fn head_width(&self) -> usize {
        self.width.checked_div(self.heads).unwrap_or(0)
    }

    /// One head's part of `qkv [T, 3C]`.
    fn head<'a>(&self, qkv: &'a [f32], head: usize) -> Head<'a> {
        let part = |which: usize| Matrix {
            data: qkv.get(which * self.width + head * self.head_width()..).unwrap_or_default(),
            row_stride: 3 * self.width,
            column_stride: 1,
        };
        Head { query: part(0), key: part(1), value: part(2), width: self.head_width() }
    }

    fn head_mask(&self, head: usize) -> Option<Mask> {
        self.mask.map(|mask| mask.at(self.sequence.wrapping_mul(self.heads as u64).wrapping_add(head as u64)))
    }

    /// Refuses sizes that do not fit; returns T.
    fn check_qkv(&self, qkv: &[f32], scratch_length: usize) -> Result<usize, Error> {
        if self.heads == 0 {
            return Err(Error::Zero { what: "heads" });
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::Heads { width: self.width, heads: self.heads });
        }
        let length = count_rows("qkv", qkv, self.width.saturating_mul(3))?;
        let wanted = scratch(length, self.width);
        if scratch_length < wanted {
            return Err(Error::Length { what: "scratch", given: scratch_length, wanted });
        }
        Ok(length)
    }

    fn check(&self, qkv: &[f32], out: &[f32], stats: &[f32], scratch_length: usize) -> Result<(), Error> {
        let length = self.check_qkv(qkv, scratch_length)?;
        exact_length("out", out.len(), length.saturating_mul(self.width))?;
        exact_length("stats", stats.len(), length.saturating_mul(self.heads).saturating_mul(2))
    }
}

/// Writes `out [T, C]` and `stats [H, T, 2]` from `qkv [T, 3C]` of one sequence.
///
/// `stats` holds each row's maximal score and one over the sum of its exponentials, for [`backward`].
/// `scratch` has at least [`scratch`]`(T, C)` elements.
pub fn forward(
    simd: InstructionSet,
    out: &mut [f32],
    stats: &mut [f32],
    qkv: &[f32],
    attention: Attention,
    scratch: &mut [f32],
) -> Result<(), Error> {
    attention.check(qkv, out, stats, scratch.len())?;
    forward_sequence(simd, out, stats, qkv, attention, scratch);
    Ok(())
}

/// Writes `d_qkv [T, 3C]` from `d_out [T, C]` and what [`forward`] read and wrote.
///
/// `scratch` as for [`forward`].
#[allow(clippy::too_many_arguments)]
pub fn backward(
    simd: InstructionSet,
    d_qkv: &mut [f32],
    d_out: &[f32],
    qkv: &[f32],
    out: &[f32],
    stats: &[f32],
    attention: Attention,
    scratch: &mut [f32],
) -> Result<(), Error> {
    attention.check(qkv, out, stats, scratch.len())?;
    exact_length("d_qkv", d_qkv.len(), qkv.len())?;
    exact_length("d_out", d_out.len(), out.len())?;
    backward_sequence(simd, d_qkv, d_out, qkv, out, stats, attention, scratch);
    Ok(())
}

/// Writes the weights `[H, T, T]` that [`forward`] used, before dropout: for looking at.
///
/// `scratch` as for [`forward`].
pub fn weights(
    simd: InstructionSet,
    weights: &mut [f32],
    qkv: &[f32],
    attention: Attention,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let length = attention.check_qkv(qkv, scratch.len())?;
    exact_length("weights", weights.len(), attention.heads.saturating_mul(length).saturating_mul(length))?;
    for (h, weights) in rows_mut(weights, length.saturating_mul(length)).enumerate() {
        let head = attention.head(qkv, h);
        scores(simd, weights, length, head, length, scratch);
        for (i, row) in rows_mut(weights, length).enumerate() {
            normalise(simd, row, i, head_scale(head.width));
        }
    }
    Ok(())
}

/// One over the square root of the head's width.
pub(crate) fn head_scale(width: usize) -> f32 {
    1.0 / libm::sqrtf(width as f32)
}

/// The tile's raw scores: `[m, columns]` from `m` queries and the first `columns` keys.
fn scores(
    simd: InstructionSet,
    tile: &mut [f32],
    m: usize,
    head: Head<'_>,
    columns: usize,
    scratch: &mut [f32],
) {
    let size = Size { m, n: columns, k: head.width };
    matmul_trusted(simd, size, (tile, columns), Start::Zero, head.query, head.key.transposed(), scratch);
}

/// [`forward`] for sizes that the layout guarantees.
pub(crate) fn forward_sequence(
    simd: InstructionSet,
    out: &mut [f32],
    stats: &mut [f32],
    qkv: &[f32],
    attention: Attention,
    scratch: &mut [f32],
) {
    let (width, head_width) = (attention.width, attention.head_width());
    let length = qkv.len().checked_div(3 * width).unwrap_or(0);
    for (h, stats) in rows_mut(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        let mut first = 0;
        while first < length {
            let count = TILE.min(length - first);
            let tile_out = out.get_mut(first * width + h * head_width..).unwrap_or_default();
            let stats = stats.get_mut(2 * first..2 * (first + count)).unwrap_or_default();
            let queries = Head { query: head.query.from(first, 0), ..head };
            attend(simd, (tile_out, width), stats, queries, first, count, mask, scratch);
            first += count;
        }
    }
}

/// Rows `first..first + count` of one head: writes their outputs and statistics.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attend(
    simd: InstructionSet,
    out: (&mut [f32], usize),
    stats: &mut [f32],
    head: Head<'_>,
    first: usize,
    count: usize,
    mask: Option<Mask>,
    scratch: &mut [f32],
) {
    let columns = first + count;
    let Some((tile, scratch)) = scratch.split_at_mut_checked(count * columns) else { return };
    scores(simd, tile, count, head, columns, scratch);
    softmax_tile(simd, tile, stats, columns, first, head_scale(head.width), mask);
    let size = Size { m: count, n: head.width, k: columns };
    matmul_trusted(simd, size, out, Start::Zero, Matrix::new(tile, columns), head.value, scratch);
}

vectorized! {
    /// Scores to weights after dropout, row by row; leaves each row's maximum and reciprocal sum.
    fn softmax_tile<V>(
        tile: &mut [f32],
        stats: &mut [f32],
        columns: usize,
        first: usize,
        scale: f32,
        mask: Option<Mask>,
    ) {
        let (stats, _) = stats.as_chunks_mut::<2>();
        for (i, (row, stats)) in rows_mut(tile, columns).zip(stats).enumerate() {
            mask_after(row, first + i);
            let (maximum, reciprocal) = exponentials::<V>(row, scale);
            *stats = [maximum, reciprocal];
            let reciprocal = V::splat(reciprocal);
            match mask.map(|mask| mask.row(first + i)) {
                None => simd::update(row, [], |_, e: V, []| e.mul(reciprocal)),
                Some(mask) => simd::update(row, [], |block, e: V, []| mask.apply(block, e.mul(reciprocal))),
            }
        }
    }
}

vectorized! {
    /// One row of scores to weights.
    fn normalise<V>(row: &mut [f32], last: usize, scale: f32) {
        mask_after(row, last);
        let (_, reciprocal) = exponentials::<V>(row, scale);
        simd::update(row, [], |_, e: V, []| e.mul(V::splat(reciprocal)));
    }
}

/// [`backward`] for sizes that the layout guarantees.
#[allow(clippy::too_many_arguments)]
pub(crate) fn backward_sequence(
    simd: InstructionSet,
    d_qkv: &mut [f32],
    d_out: &[f32],
    qkv: &[f32],
    out: &[f32],
    stats: &[f32],
    attention: Attention,
    scratch: &mut [f32],
) {
    let (width, head_width) = (attention.width, attention.head_width());
    let length = qkv.len().checked_div(3 * width).unwrap_or(0);
    d_qkv.fill(0.0);
    for (h, stats) in rows(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        let mut first = 0;
        while first < length {
            let count = TILE.min(length - first);
            let columns = first + count;
            let stats = stats.get(2 * first..2 * columns).unwrap_or_default();
            let Some((weights, rest)) = scratch.split_at_mut_checked(count * columns) else { return };
            let Some((d_scores, rest)) = rest.split_at_mut_checked(count * columns) else { return };
            let query = head.query.from(first, 0);
            let of_tile = |x| Matrix::new(x, width).from(first, h * head_width);
            let (d_out, out) = (of_tile(d_out), of_tile(out));
            scores(simd, weights, count, Head { query, ..head }, columns, rest);
            let size = Size { m: count, n: columns, k: head_width };
            let d_weights = (&mut *d_scores, columns);
            matmul_trusted(simd, size, d_weights, Start::Zero, d_out, head.value.transposed(), rest);
            let place = TilePlace { columns, first, head_width, scale: head_scale(head_width) };
            gradient_tile(simd, weights, d_scores, stats, d_out, out, place, mask);
            let mut product = |which: usize, row: usize, start, a: Matrix<'_>, b, (m, k)| {
                let c = d_qkv.get_mut(row * 3 * width + which * width + h * head_width..).unwrap_or_default();
                matmul_trusted(simd, Size { m, n: head_width, k }, (c, 3 * width), start, a, b, rest);
            };
            let (weights, d_scores) = (Matrix::new(weights, columns), Matrix::new(d_scores, columns));
            product(0, first, Start::Zero, d_scores, head.key, (count, columns));
            product(1, 0, Start::Accumulate, d_scores.transposed(), query, (columns, count));
            product(2, 0, Start::Accumulate, weights.transposed(), d_out, (columns, count));
            first += count;
        }
    }
}

/// Where a tile of scores stands in its head.
#[derive(Clone, Copy)]
struct TilePlace {
    columns: usize,
    first: usize,
    head_width: usize,
    scale: f32,
}

vectorized! {
    /// `weights` holds raw scores and becomes the weights after dropout; `d_scores` holds the gradient of the
    /// weights after dropout and becomes that of the raw scores.
    ///
    /// The sum over a row of weight times its gradient equals that of `out` times `d_out` (Dao et al. 2022,
    /// appendix B), with dropout as without.
    fn gradient_tile<V>(
        weights: &mut [f32],
        d_scores: &mut [f32],
        stats: &[f32],
        d_out: Matrix<'_>,
        out: Matrix<'_>,
        place: TilePlace,
        mask: Option<Mask>,
    ) {
        let TilePlace { columns, first, head_width, scale } = place;
        let (stats, _) = stats.as_chunks::<2>();
        let tile = rows_mut(weights, columns).zip(rows_mut(d_scores, columns));
        for (i, ((weights, d_scores), [maximum, reciprocal])) in tile.zip(stats).enumerate() {
            let row = i * d_out.row_stride..i * d_out.row_stride + head_width;
            let (Some(d_out), Some(out)) = (d_out.data.get(row.clone()), out.data.get(row)) else { return };
            let dot = V::splat(simd::sum([d_out, out], |[d_out, out]: [V; 2]| d_out.mul(out)));
            mask_after(weights, first + i);
            let (maximum, reciprocal) = (V::splat(*maximum), V::splat(*reciprocal));
            let scale = V::splat(scale);
            let mask = mask.map(|mask| mask.row(first + i));
            let drop = |block, x| match mask {
                None => x,
                Some(mask) => mask.apply(block, x),
            };
            simd::update(weights, [], |_, score: V, []| exp(score.mul(scale).sub(maximum)).mul(reciprocal));
            simd::update(d_scores, [weights], |block, d_weight, [weight]: [V; 1]| {
                weight.mul(drop(block, d_weight).sub(dot)).mul(scale)
            });
            if mask.is_some() {
                simd::update(weights, [], |block, weight: V, []| drop(block, weight));
            }
        }
    }
}
