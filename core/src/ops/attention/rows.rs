//! Attention query by query: vector lanes are keys, or there is only one lane. Used on portable targets, and on all
//! targets for few queries and many keys, as in generation. Tiles of scores and weights are `[queries, keys]`.

use super::{Attention, Head, TILE, head_scale, starting_at, tile_stride};
use crate::matmul::{Causal, Matrix, Queries, Size, Start, causal_trusted, scratch_on};
use crate::ops::dropout::Mask;
use crate::ops::softmax::exponentials;
use crate::ops::{rows, rows_mut};
use crate::simd::math::exp_of_negative;
use crate::simd::tile::SIDE;
use crate::simd::{self, InstructionSet, Loop, Portable, Vector, vectorized};
use crate::target::Target;

/// The number of queries in a tile: more than [`TILE`] if that is little work and the scratch has room.
fn queries_at_once(scratch: &[f32], length: usize, head_width: usize) -> usize {
    let Target::Portable = Target::HERE else { return TILE };
    let products = scratch_on(Target::HERE, length, length.max(head_width));
    let room = scratch.len().saturating_sub(products);
    let rows = room.checked_div(2 * tile_stride(Target::HERE, length)).unwrap_or(TILE);
    TILE.max(rows - rows % SIDE)
}

/// `tile[query, key] = a[query] . b[key]`, for keys not after the query.
fn scores(
    queries: Queries,
    simd: InstructionSet,
    (tile, stride): (&mut [f32], usize),
    a: Matrix<'_>,
    b: Matrix<'_>,
    scratch: &mut [f32],
) {
    let size = Size { m: queries.count, n: queries.keys, k: queries.head_width };
    let after = Causal::Columns { first: queries.first };
    causal_trusted(simd, size, (tile, stride), Start::Zero, a, b.transposed(), after, scratch);
}

pub(super) fn forward(
    simd: InstructionSet,
    out: &mut [f32],
    stats: &mut [f32],
    qkv: &[f32],
    attention: Attention,
    scratch: &mut [f32],
) {
    let (width, head_width) = (attention.width, attention.head_width());
    let length = attention.length(qkv);
    let at_once = queries_at_once(scratch, length, head_width);
    for (h, stats) in rows_mut(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        for queries in Queries::tiles(length, at_once, head_width) {
            let Queries { first, keys, .. } = queries;
            let out = (starting_at(out, first * width + h * head_width), width);
            let stats = stats.get_mut(2 * first..2 * keys).unwrap_or_default();
            let head = Head { query: head.query.from(first, 0), ..head };
            attend(simd, out, stats, queries, head, mask, scratch);
        }
    }
}

/// Writes the outputs and statistics of some queries of one head. The head's rows of queries begin with the first of
/// them.
pub(crate) fn attend(
    simd: InstructionSet,
    out: (&mut [f32], usize),
    stats: &mut [f32],
    queries: Queries,
    head: Head<'_>,
    mask: Option<Mask>,
    scratch: &mut [f32],
) {
    let stride = tile_stride(Target::HERE, queries.keys);
    let Some((tile, scratch)) = scratch.split_at_mut_checked(queries.count * stride) else { return };
    scores(queries, simd, (&mut *tile, stride), head.query, head.key, scratch);
    softmax(simd, tile, stats, stride, queries.first, head_scale(queries.head_width), mask);
    queries.over_keys(simd, out, Matrix::new(tile, stride), head.value, scratch);
}

#[allow(clippy::too_many_arguments)]
pub(super) fn backward(
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
    let length = attention.length(qkv);
    let at_once = queries_at_once(scratch, length, head_width);
    if at_once < length {
        simd::clear(simd, d_qkv);
    }
    for (h, stats) in rows(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        let onto = attention.onto(h, at_once >= length);
        let ([query_at, key_at, value_at], row) = (attention.columns(h), attention.row());
        for queries in Queries::tiles(length, at_once, head_width) {
            let Queries { first, count, keys, .. } = queries;
            let of_tile = |x| Matrix::new(x, width).from(first, h * head_width);
            let (query, d_out, out) = (head.query.from(first, 0), of_tile(d_out), of_tile(out));
            let stride = tile_stride(Target::HERE, keys);
            let Some((weights, rest)) = scratch.split_at_mut_checked(count * stride) else { return };
            let Some((d_scores, rest)) = rest.split_at_mut_checked(count * stride) else { return };
            scores(queries, simd, (&mut *weights, stride), query, head.key, rest);
            scores(queries, simd, (&mut *d_scores, stride), d_out, head.value, rest);
            let stats = stats.get(2 * first..2 * keys).unwrap_or_default();
            gradient((weights, d_scores, stride), stats, [d_out, out], queries, mask);

            let (weights, d_scores) = (Matrix::new(weights, stride), Matrix::new(d_scores, stride));
            queries.over_keys(
                simd,
                (starting_at(d_qkv, first * row + query_at), row),
                d_scores,
                head.key,
                rest,
            );
            queries.over_queries(simd, (starting_at(d_qkv, key_at), row), onto, d_scores, query, rest);
            queries.over_queries(simd, (starting_at(d_qkv, value_at), row), onto, weights, d_out, rest);
        }
    }
}

/// A tile's row up to and including column `last`. The masked columns after it are cleared.
#[inline(always)]
fn up_to_mask<V: Vector>(row: &mut [f32], last: usize) -> &mut [f32] {
    let (row, masked) = row.split_at_mut_checked(last + 1).unwrap_or_default();
    if !V::run(Loop::Clear { x: &mut *masked }) {
        masked.fill(0.0);
    }
    row
}

vectorized! {
    /// Scores to weights after dropout, row by row, zero where masked; stores each row's maximum and reciprocal sum.
    fn softmax<V>(
        tile: &mut [f32],
        stats: &mut [f32],
        stride: usize,
        first: usize,
        scale: f32,
        mask: Option<Mask>,
    ) {
        let (stats, _) = stats.as_chunks_mut::<2>();
        for ((row, stats), last) in rows_mut(tile, stride).zip(stats).zip(first..) {
            let row = up_to_mask::<V>(row, last);
            let (maximum, reciprocal) = exponentials::<V>(row, scale);
            *stats = [maximum, reciprocal];
            if mask.is_none() && V::run(Loop::Scale { x: &mut *row, factor: reciprocal }) {
                continue;
            }
            let mask = mask.map(|mask| mask.row(last));
            simd::update(row, [], |block, e: V, []| {
                let weight = e.mul(V::splat(reciprocal));
                mask.map_or(weight, |mask| mask.apply(block, weight))
            });
        }
    }
}

/// `weights` holds raw scores and becomes the weights after dropout; `d_scores` holds the gradient of the weights
/// after dropout and becomes the gradient of the raw scores.
///
/// The sum over a row of weight times its gradient equals the sum of `out` times `d_out` (Dao et al. 2022, appendix
/// B), with dropout as without.
fn gradient(
    (weights, d_scores, stride): (&mut [f32], &mut [f32], usize),
    stats: &[f32],
    outs: [Matrix<'_>; 2],
    queries: Queries,
    mask: Option<Mask>,
) {
    let Queries { first, head_width, .. } = queries;
    let scale = head_scale(head_width);
    let (stats, _) = stats.as_chunks::<2>();
    let tile = rows_mut(weights, stride).zip(rows_mut(d_scores, stride));
    for (i, ((weights, d_scores), [maximum, reciprocal])) in tile.zip(stats).enumerate() {
        let [d_out, out] = outs.map(|x| x.from(i, 0).data.get(..head_width).unwrap_or_default());
        let dot = simd::dot::<Portable>(d_out, out);
        let last = first + i;
        let e = up_to_mask::<Portable>(weights, last);
        let d_y = up_to_mask::<Portable>(d_scores, last);
        let (maximum, reciprocal) = (*maximum, *reciprocal);
        let are_exponentials = Portable::run(Loop::Exp { x: &mut *e, scale, maximum });
        if mask.is_none()
            && Portable::run(Loop::SoftmaxGradient { e: &mut *e, d_y: &mut *d_y, reciprocal, dot, scale })
        {
            continue;
        }
        let splat = Portable::splat;
        let mask = mask.map(|mask| mask.row(last));
        simd::update_all([e, d_y], [], |column, [x, d_weight]: [Portable; 2], []| {
            let e =
                if are_exponentials { x } else { exp_of_negative(x.mul(splat(scale)).sub(splat(maximum))) };
            let weight = e.mul(splat(reciprocal));
            let (dropped, d_weight) = match mask {
                None => (weight, d_weight),
                Some(mask) => mask.apply_to_both(column, weight, d_weight),
            };
            [dropped, weight.mul(d_weight.sub(splat(dot))).mul(splat(scale))]
        });
    }
}
