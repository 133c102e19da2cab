//! Attention on targets with vectors: vector lanes are queries.
//!
//! Tiles of scores and weights are transposed, `[keys, queries]`: a softmax then processes sixteen queries at once,
//! without a sum or maximum across lanes. Of the operands of products, only queries and gradients of outputs are
//! transposed; keys and values are read in place.

use super::{Attention, TILE, WORTH_GATHERING, head_scale, starting_at};
use crate::matmul::causal::{over_keys, over_queries, scores};
use crate::matmul::{Matrix, Queries};
use crate::ops::dropout::Mask;
use crate::ops::{rows, rows_mut};
use crate::simd::math::exp_of_negative;
use crate::simd::{self, InstructionSet, LANES, vectorized};

/// The rows of a matrix, copied into contiguous memory if there are many, and the rest of the space.
fn gather<'a>(
    x: Matrix<'a>,
    length: usize,
    columns: usize,
    space: &'a mut [f32],
) -> (Matrix<'a>, &'a mut [f32]) {
    if length < WORTH_GATHERING {
        return (x, space);
    }
    let (to, rest) = space.split_at_mut_checked(length * columns).unwrap_or_default();
    for (i, row) in rows_mut(to, columns).enumerate() {
        for (to, from) in row.iter_mut().zip(x.from(i, 0).data) {
            *to = *from;
        }
    }
    (Matrix::new(to, columns), rest)
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
    for (h, stats) in rows_mut(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        let (key, rest) = gather(head.key, length, head_width, &mut *scratch);
        let (value, rest) = gather(head.value, length, head_width, rest);
        for queries in Queries::tiles(length, TILE, head_width) {
            let Queries { first, keys, .. } = queries;
            let Some((tile, rest)) = rest.split_at_mut_checked(keys * TILE) else { return };
            scores(simd, queries, tile, key, head.query.from(first, 0), rest);
            let stats = stats.get_mut(2 * first..2 * keys).unwrap_or_default();
            softmax(simd, tile, stats, first, head_scale(head_width), mask);
            let out = (starting_at(out, first * width + h * head_width), width);
            over_keys(simd, queries, out, tile, value, rest);
        }
    }
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
    if length > TILE {
        simd::clear(simd, d_qkv);
    }
    for (h, stats) in rows(stats, 2 * length).enumerate() {
        let head = attention.head(qkv, h);
        let mask = attention.head_mask(h);
        let onto = attention.onto(h, length <= TILE);
        let ([query_at, key_at, value_at], row) = (attention.columns(h), attention.row());
        let (key, rest) = gather(head.key, length, head_width, &mut *scratch);
        let (value, rest) = gather(head.value, length, head_width, rest);
        for queries in Queries::tiles(length, TILE, head_width) {
            let Queries { first, keys, .. } = queries;
            let of_tile = |x| Matrix::new(x, width).from(first, h * head_width);
            let (query, d_out, out) = (head.query.from(first, 0), of_tile(d_out), of_tile(out));
            let Some((weights, rest)) = rest.split_at_mut_checked(keys * TILE) else { return };
            let Some((d_scores, rest)) = rest.split_at_mut_checked(keys * TILE) else { return };
            scores(simd, queries, weights, key, query, rest);
            scores(simd, queries, d_scores, value, d_out, rest);
            let stats = stats.get(2 * first..2 * keys).unwrap_or_default();
            gradient(simd, weights, d_scores, stats, [d_out, out], head_width, first, mask);

            over_keys(simd, queries, (starting_at(d_qkv, first * row + query_at), row), d_scores, key, rest);
            over_queries(simd, queries, (starting_at(d_qkv, key_at), row), onto, d_scores, query, rest);
            over_queries(simd, queries, (starting_at(d_qkv, value_at), row), onto, weights, d_out, rest);
        }
    }
}

vectorized! {
    /// Scores to weights after dropout, zero where masked; stores each query's maximum and reciprocal sum.
    fn softmax<V>(tile: &mut [f32], stats: &mut [f32], first: usize, scale: f32, mask: Option<Mask>) {
        let (vectors, _) = tile.as_chunks_mut::<LANES>();
        let (tile, _) = vectors.as_chunks_mut::<{ TILE / LANES }>();
        let (stats, _) = stats.as_chunks_mut::<2>();
        let scale = V::splat(scale);
        for (half, stats) in stats.chunks_mut(LANES).enumerate() {
            let first = first + half * LANES;
            let Some(seen) = tile.get_mut(..first + stats.len()) else { return };
            let mut maximum = V::splat(f32::NEG_INFINITY);
            for (key, row) in seen.iter().enumerate() {
                let Some(x) = row.get(half) else { return };
                let score = V::load(x).mul(scale);
                let before = V::first_lanes(key.saturating_sub(first));
                maximum = V::select(before, V::splat(f32::NEG_INFINITY), score).max(maximum);
            }
            let exponential = |x: &[f32; LANES]| exp_of_negative(V::load(x).mul(scale).sub(maximum));
            let mut rows = seen.iter_mut();
            for row in rows.by_ref().take(first) {
                let Some(x) = row.get_mut(half) else { return };
                exponential(x).store(x);
            }
            for (later, row) in rows.enumerate() {
                let Some(x) = row.get_mut(half) else { return };
                V::select(V::first_lanes(later), V::zero(), exponential(x)).store(x);
            }
            let mut partial = [V::zero(); LANES];
            for (j, partial) in partial.iter_mut().enumerate() {
                for row in seen.iter().skip(j).step_by(LANES) {
                    let Some(x) = row.get(half) else { return };
                    *partial = partial.add(V::load(x));
                }
            }
            let reciprocal = V::splat(1.0).div(simd::tree(partial));
            let (mut maxima, mut reciprocals) = ([0.0; LANES], [0.0; LANES]);
            maximum.store(&mut maxima);
            reciprocal.store(&mut reciprocals);
            for (stats, (maximum, reciprocal)) in stats.iter_mut().zip(maxima.into_iter().zip(reciprocals)) {
                *stats = [maximum, reciprocal];
            }
            let mask = mask.map(|mask| mask.rows::<V>(first));
            for (key, row) in seen.iter_mut().enumerate() {
                let Some(x) = row.get_mut(half) else { return };
                let weight = V::load(x).mul(reciprocal);
                mask.map_or(weight, |mask| mask.apply(key, weight)).store(x);
            }
        }
    } portable {}
}

vectorized! {
    /// `weights` holds raw scores and becomes the weights after dropout; `d_scores` holds the gradient of the weights
    /// after dropout and becomes the gradient of the raw scores.
    ///
    /// The sum over a row of weight times its gradient equals the sum of `out` times `d_out` (Dao et al. 2022,
    /// appendix B), with dropout as without.
    fn gradient<V>(
        weights: &mut [f32],
        d_scores: &mut [f32],
        stats: &[f32],
        outs: [Matrix<'_>; 2],
        head_width: usize,
        first: usize,
        mask: Option<Mask>,
    ) {
        let (weights, _) = weights.as_chunks_mut::<LANES>();
        let (weights, _) = weights.as_chunks_mut::<{ TILE / LANES }>();
        let (d_scores, _) = d_scores.as_chunks_mut::<LANES>();
        let (d_scores, _) = d_scores.as_chunks_mut::<{ TILE / LANES }>();
        let (stats, _) = stats.as_chunks::<2>();
        let scale = V::splat(head_scale(head_width));
        for (half, stats) in stats.chunks(LANES).enumerate() {
            let (mut maxima, mut reciprocals, mut dots) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
            let numbers = maxima.iter_mut().zip(&mut reciprocals).zip(&mut dots);
            for (i, ([of_maximum, of_reciprocal], ((maximum, reciprocal), dot))) in stats.iter().zip(numbers).enumerate() {
                (*maximum, *reciprocal) = (*of_maximum, *of_reciprocal);
                let row = (half * LANES + i) * outs[0].row_stride;
                let row = row..row + head_width;
                let (Some(d_out), Some(out)) = (outs[0].data.get(row.clone()), outs[1].data.get(row)) else { return };
                *dot = simd::dot::<V>(d_out, out);
            }
            let (maximum, reciprocal, dot) = (V::load(&maxima), V::load(&reciprocals), V::load(&dots));
            let first = first + half * LANES;
            let mask = mask.map(|mask| mask.rows::<V>(first));
            let of_key = |key: usize, before: Option<<V as Vector>::Mask>, weight_out: &mut [f32; LANES], d_score: &mut [f32; LANES]| {
                let visible = |x: V| before.map_or(x, |before| V::select(before, V::zero(), x));
                let weight = exp_of_negative(V::load(weight_out).mul(scale).sub(maximum)).mul(reciprocal);
                let weight = visible(weight);
                let d_weight = V::load(d_score);
                let (dropped, d_weight) = match mask {
                    None => (weight, d_weight),
                    Some(mask) => mask.apply_to_both(key, weight, d_weight),
                };
                let gradient = weight.mul(d_weight.sub(dot)).mul(scale);
                visible(gradient).store(d_score);
                dropped.store(weight_out);
            };
            let mut rows = weights.iter_mut().zip(&mut *d_scores);
            for (key, (weights, d_scores)) in rows.by_ref().take(first).enumerate() {
                let (Some(weight), Some(d_score)) = (weights.get_mut(half), d_scores.get_mut(half)) else { return };
                of_key(key, None, weight, d_score);
            }
            for (later, (weights, d_scores)) in rows.take(stats.len()).enumerate() {
                let (Some(weight), Some(d_score)) = (weights.get_mut(half), d_scores.get_mut(half)) else { return };
                of_key(first + later, Some(V::first_lanes(later)), weight, d_score);
            }
        }
    } portable {}
}
