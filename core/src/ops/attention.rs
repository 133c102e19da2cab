//! Multi-head attention with the causal mask inside (Vaswani et al. 2017).
//!
//! For each head, `scores = q k^T / sqrt(C / H)`, minus infinity where a key comes later than its query, then
//! softmax, dropout, and `out = weights v`. Rows go through in tiles; the T x T matrix of weights is never
//! whole in memory. Backward makes a tile's weights again from two numbers a row that forward left.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod vectors;

use super::dropout::Mask;
use super::softmax::{exponentials, mask_after};
use super::{count_rows, rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::matmul::{Causal, Machine, Matrix, Size, Start, causal_trusted, scratch_on};
use crate::simd::math::exp;
use crate::simd::tile::SIDE;
use crate::simd::{self, InstructionSet, LANES, Lanes, Loop, Portable, Sum, Vector, scalar, vectorized};

/// Query rows of a tile. Their number shows in memory only: the next tile goes on from the same sums.
const TILE: usize = tile_rows(Machine::HERE);

const fn tile_rows(machine: Machine) -> usize {
    match machine {
        Machine::Large => 32,
        Machine::Small => 8,
    }
}

/// How many rows go through at a time: more than [`TILE`] where one tile is little work and the scratch has room.
fn rows_at_once(scratch: &[f32], length: usize, head_width: usize) -> usize {
    let Machine::Small = Machine::HERE else { return TILE };
    let products = scratch_on(Machine::HERE, length, length.max(head_width));
    let room = scratch.len().saturating_sub(products);
    let rows = room.checked_div(2 * tile_stride(Machine::HERE, length)).unwrap_or(TILE);
    TILE.max(rows - rows % SIDE)
}

/// Elements from one row of a tile to the next: whole vectors.
const fn tile_stride(machine: Machine, columns: usize) -> usize {
    match machine {
        Machine::Large => columns.div_ceil(LANES).saturating_mul(LANES),
        Machine::Small => columns,
    }
}

/// Elements that the work on one head takes: two tiles, what operands are copied to where there are vectors, and what a
/// product takes besides.
pub(crate) const fn worker_scratch(machine: Machine, length: usize, head_width: usize) -> usize {
    let longest = if length > head_width { length } else { head_width };
    let heads = match machine {
        Machine::Large => vector_scratch(length, head_width),
        Machine::Small => {
            let (most, mut rows) = (tile_rows(machine), length);
            if rows > most {
                rows = most;
            }
            tile_stride(machine, length).saturating_mul(2 * rows)
        }
    };
    heads.saturating_add(scratch_on(machine, longest, longest))
}

/// Elements that two tiles and the operands of their products take where there are vectors.
const fn vector_scratch(length: usize, head_width: usize) -> usize {
    let tile = tile_rows(Machine::Large);
    let keys = length.div_ceil(LANES).saturating_mul(LANES);
    let gathered = if length < WORTH_GATHERING { 0 } else { length.saturating_mul(head_width) };
    keys.saturating_mul(tile).saturating_add(gathered).saturating_mul(2)
}

/// So many rows of keys or values are copied together: each tile of queries reads them all, and where they lie they are
/// pages apart.
const WORTH_GATHERING: usize = 96;

/// The scratch that [`forward`] and [`backward`] need, in elements.
pub const fn scratch(length: usize, width: usize) -> usize {
    worker_scratch(Machine::HERE, length, width)
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
        let keys = head.key.transposed();
        let size = Size { m: length, n: length, k: head.width };
        causal_trusted(simd, size, (weights, length), Start::Zero, head.query, keys, Causal::Whole, scratch);
        for (i, row) in rows_mut(weights, length).enumerate() {
            normalise(simd, row, i, head_scale(head.width));
        }
    }
    Ok(())
}

/// One over the square root of the head's width.
pub(crate) fn head_scale(width: usize) -> f32 {
    1.0 / scalar::sqrt(width as f32)
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
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if simd.has_vectors() {
        return vectors::forward(simd, out, stats, qkv, attention, scratch);
    }
    let (width, head_width) = (attention.width, attention.head_width());
    let length = qkv.len().checked_div(3 * width).unwrap_or(0);
    for (h, stats) in rows_mut(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        let (keys, values) = (head.key.transposed(), head.value);
        let at_once = rows_at_once(scratch, length, head_width);
        let mut first = 0;
        while first < length {
            let count = at_once.min(length - first);
            let tile_out = out.get_mut(first * width + h * head_width..).unwrap_or_default();
            let stats = stats.get_mut(2 * first..2 * (first + count)).unwrap_or_default();
            let queries = Queries { query: head.query.from(first, 0), width: head_width, first, count };
            attend(simd, (tile_out, width), stats, queries, (keys, values), mask, scratch);
            first += count;
        }
    }
}

/// Rows `first..first + count` of one head.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    pub query: Matrix<'a>,
    /// C / H.
    pub width: usize,
    pub first: usize,
    pub count: usize,
}

/// Writes the outputs and statistics of some rows of one head, from its keys (transposed) and values.
pub(crate) fn attend(
    simd: InstructionSet,
    out: (&mut [f32], usize),
    stats: &mut [f32],
    queries: Queries<'_>,
    (keys, values): (Matrix<'_>, Matrix<'_>),
    mask: Option<Mask>,
    scratch: &mut [f32],
) {
    let Queries { query, width, first, count } = queries;
    let columns = first + count;
    let stride = tile_stride(Machine::HERE, columns);
    let Some((tile, scratch)) = scratch.split_at_mut_checked(count * stride) else { return };
    let size = Size { m: count, n: columns, k: width };
    let after = Causal::Columns { first };
    causal_trusted(simd, size, (&mut *tile, stride), Start::Zero, query, keys, after, scratch);
    softmax_tile(simd, tile, stats, stride, first, head_scale(width), mask);
    let size = Size { m: count, n: width, k: columns };
    let (tile, after) = (Matrix::new(tile, stride), Causal::Inner { first });
    causal_trusted(simd, size, out, Start::Zero, tile, values, after, scratch);
}

#[inline(always)]
fn vectors<V: Vector>(row: &mut [f32]) -> &mut [V::Array] {
    V::Array::cut_mut(row).0
}

/// The whole vectors of a tile's row up to and including column `last`. Those after, which the mask leaves nothing of,
/// are cleared.
#[inline(always)]
fn up_to_mask<V: Vector>(row: &mut [f32], last: usize) -> &mut [f32] {
    let whole = (last / V::LANES + 1) * V::LANES;
    let (row, masked) = row.split_at_mut_checked(whole).unwrap_or_default();
    if !V::run(Loop::Clear { x: &mut *masked }) {
        vectors::<V>(masked).fill(V::Array::ZERO);
    }
    row
}

/// Which lanes of vector `block` stand at or before column `last`.
#[inline(always)]
fn unmasked<V: Vector>(block: usize, last: usize) -> V::Mask {
    // A vector of one lane is there for what is left only.
    V::first_lanes(if V::LANES == 1 { 1 } else { last.wrapping_add(1).wrapping_sub(block * V::LANES) })
}

vectorized! {
    /// Scores to weights after dropout, row by row, zero where masked; leaves each row's maximum and reciprocal sum.
    fn softmax_tile<V>(
        tile: &mut [f32],
        stats: &mut [f32],
        stride: usize,
        first: usize,
        scale: f32,
        mask: Option<Mask>,
    ) {
        let (stats, _) = stats.as_chunks_mut::<2>();
        for (i, (row, stats)) in rows_mut(tile, stride).zip(stats).enumerate() {
            let last = first + i;
            let row = up_to_mask::<V>(row, last);
            let mut maximum = V::splat(f32::NEG_INFINITY);
            for (block, x) in vectors::<V>(row).iter().enumerate() {
                let score = V::load(x).mul(V::splat(scale));
                maximum = V::select(unmasked::<V>(block, last), score, V::splat(f32::NEG_INFINITY)).max(maximum);
            }
            let maximum = maximum.reduce_max();
            let left = row.get_mut(..=last).unwrap_or_default();
            let sum = if V::run(Loop::Exp { x: &mut *left, scale, maximum }) {
                simd::total::<V>(left)
            } else {
                let mut sum = Sum::new();
                for (block, x) in vectors::<V>(row).iter_mut().enumerate() {
                    // The exponential of minus infinity, which is zero, takes processors long: it underflows on the way.
                    let e = exp(V::load(x).mul(V::splat(scale)).sub(V::splat(maximum)));
                    let e = V::select(unmasked::<V>(block, last), e, V::zero());
                    sum.add(block, e);
                    e.store(x);
                }
                sum.total()
            };
            let reciprocal = 1.0 / sum;
            *stats = [maximum, reciprocal];
            if mask.is_none() && V::run(Loop::Scale { x: &mut *row, factor: reciprocal }) {
                continue;
            }
            let mask = mask.map(|mask| mask.row(last));
            for (block, x) in vectors::<V>(row).iter_mut().enumerate() {
                let weight = V::load(x).mul(V::splat(reciprocal));
                mask.map_or(weight, |mask| mask.apply(block, weight)).store(x);
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
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if simd.has_vectors() {
        return vectors::backward(simd, d_qkv, d_out, qkv, out, stats, attention, scratch);
    }
    let (width, head_width) = (attention.width, attention.head_width());
    let length = qkv.len().checked_div(3 * width).unwrap_or(0);
    for (h, stats) in rows(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        let mut first = 0;
        let (keys, values) = (head.key.transposed(), head.value.transposed());
        let at_once = rows_at_once(scratch, length, head_width);
        let onto = if at_once < length { Start::Accumulate } else { Start::Zero };
        if h == 0 && at_once < length {
            simd::clear(simd, d_qkv);
        }
        while first < length {
            let count = at_once.min(length - first);
            let columns = first + count;
            let stride = tile_stride(Machine::HERE, columns);
            let stats = stats.get(2 * first..2 * columns).unwrap_or_default();
            let Some((weights, rest)) = scratch.split_at_mut_checked(count * stride) else { return };
            let Some((d_scores, rest)) = rest.split_at_mut_checked(count * stride) else { return };
            let query = head.query.from(first, 0);
            let of_tile = |x| Matrix::new(x, width).from(first, h * head_width);
            let (d_out, out) = (of_tile(d_out), of_tile(out));

            let mut square = |tile: &mut [f32], rows, columns_of| {
                let (size, after) = (Size { m: count, n: columns, k: head_width }, Causal::Columns { first });
                causal_trusted(simd, size, (tile, stride), Start::Zero, rows, columns_of, after, rest);
            };
            square(weights, query, keys);
            square(d_scores, d_out, values);
            let place = TilePlace { stride, first, head_width, scale: head_scale(head_width) };
            gradient_tile::<Portable>(weights, d_scores, stats, d_out, out, place, mask);

            let mut product = |which: usize, row: usize, start, a: Matrix<'_>, b, (m, k), causal| {
                let c = d_qkv.get_mut(row * 3 * width + which * width + h * head_width..).unwrap_or_default();
                causal_trusted(simd, Size { m, n: head_width, k }, (c, 3 * width), start, a, b, causal, rest);
            };
            let (weights, d_scores) = (Matrix::new(weights, stride), Matrix::new(d_scores, stride));
            let (along, across) = (Causal::Inner { first }, Causal::InnerTransposed { first });
            product(0, first, Start::Zero, d_scores, head.key, (count, columns), along);
            product(1, 0, onto, d_scores.transposed(), query, (columns, count), across);
            product(2, 0, onto, weights.transposed(), d_out, (columns, count), across);
            first += count;
        }
    }
}

/// Where a tile of scores stands in its head.
#[derive(Clone, Copy)]
struct TilePlace {
    stride: usize,
    first: usize,
    head_width: usize,
    scale: f32,
}

/// `weights` holds raw scores and becomes the weights after dropout; `d_scores` holds the gradient of the
/// weights after dropout and becomes that of the raw scores.
///
/// The sum over a row of weight times its gradient equals that of `out` times `d_out` (Dao et al. 2022,
/// appendix B), with dropout as without.
fn gradient_tile<V: Vector>(
    weights: &mut [f32],
    d_scores: &mut [f32],
    stats: &[f32],
    d_out: Matrix<'_>,
    out: Matrix<'_>,
    place: TilePlace,
    mask: Option<Mask>,
) {
    let TilePlace { stride, first, head_width, scale } = place;
    let (stats, _) = stats.as_chunks::<2>();
    let tile = rows_mut(weights, stride).zip(rows_mut(d_scores, stride));
    for (i, ((weights, d_scores), [maximum, reciprocal])) in tile.zip(stats).enumerate() {
        let row = i * d_out.row_stride..i * d_out.row_stride + head_width;
        let (Some(d_out), Some(out)) = (d_out.data.get(row.clone()), out.data.get(row)) else { return };
        let dot = simd::dot::<V>(d_out, out);
        let last = first + i;
        let (weights, d_scores) = (up_to_mask::<V>(weights, last), up_to_mask::<V>(d_scores, last));
        let left = weights.get_mut(..=last).unwrap_or_default();
        let are_exponentials = V::run(Loop::Exp { x: left, scale, maximum: *maximum });
        let (e, d_y, reciprocal) = (&mut *weights, &mut *d_scores, *reciprocal);
        if mask.is_none() && V::run(Loop::SoftmaxGradient { e, d_y, reciprocal, dot, scale }) {
            continue;
        }
        let (maximum, reciprocal, dot) = (V::splat(*maximum), V::splat(reciprocal), V::splat(dot));
        let scale = V::splat(scale);
        let mask = mask.map(|mask| mask.row(last));
        let (weights, d_scores) = (vectors::<V>(weights), vectors::<V>(d_scores));
        for (block, (weight_out, d_score)) in weights.iter_mut().zip(d_scores).enumerate() {
            let unmasked = unmasked::<V>(block, last);
            let weight = V::load(weight_out);
            let weight = if are_exponentials { weight } else { exp(weight.mul(scale).sub(maximum)) };
            let weight = weight.mul(reciprocal);
            let weight = V::select(unmasked, weight, V::zero());
            let d_weight = V::load(d_score);
            let (dropped, d_weight) = match mask {
                None => (weight, d_weight),
                Some(mask) => mask.apply_to_both(block, weight, d_weight),
            };
            let gradient = weight.mul(d_weight.sub(dot)).mul(scale);
            V::select(unmasked, gradient, V::zero()).store(d_score);
            dropped.store(weight_out);
        }
    }
}
