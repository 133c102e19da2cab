//! Multi-head attention with a causal mask (Vaswani et al. 2017).
//!
//! For each head, `scores = q k^T / sqrt(D)`, with the head's width D, minus infinity where a key comes later than its query, then
//! softmax, dropout, and `out = weights v`. Rows are processed in tiles, so that the T x T matrix of weights is never
//! complete in memory. Backward recomputes a tile's weights from two numbers a row that forward kept.

mod rows;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod vectors;

use super::dropout::Mask;
use super::softmax::{exponentials, mask_after};
use super::{count_rows, rows_mut};
use crate::error::{Error, exact_length};
use crate::matmul::{Causal, Matrix, Queries, Size, Start, causal, causal_trusted, scratch_on};
use crate::simd::{self, InstructionSet, LANES, processor, vectorized};
use crate::target::Target;

pub(crate) use rows::attend;

/// The query rows of a tile. Their number affects memory only: the next tile continues the same sums.
const TILE: usize = tile_rows(Target::HERE);

const fn tile_rows(target: Target) -> usize {
    match target {
        Target::Vectors => causal::QUERIES,
        Target::Portable => 8,
    }
}

/// The distance between rows of a tile, in elements: whole vectors.
const fn tile_stride(target: Target, columns: usize) -> usize {
    match target {
        Target::Vectors => columns.div_ceil(LANES).saturating_mul(LANES),
        Target::Portable => columns,
    }
}

/// The scratch of one head, in elements: two tiles, the copies of operands on targets with vectors, and a product's
/// scratch.
pub(crate) const fn worker_scratch(target: Target, length: usize, head_width: usize) -> usize {
    let longest = if length > head_width { length } else { head_width };
    let heads = match target {
        Target::Vectors => vector_scratch(length, head_width),
        Target::Portable => {
            let (most, mut rows) = (tile_rows(target), length);
            if rows > most {
                rows = most;
            }
            tile_stride(target, length).saturating_mul(2 * rows)
        }
    };
    let products = scratch_on(target, longest, longest);
    let least = causal::scratch(length, head_width);
    heads.saturating_add(if matches!(target, Target::Vectors) && products < least { least } else { products })
}

/// The scratch of two tiles and the operands of their products on targets with vectors, in elements.
const fn vector_scratch(length: usize, head_width: usize) -> usize {
    let tile = tile_rows(Target::Vectors);
    let keys = length.div_ceil(LANES).saturating_mul(LANES);
    let gathered = if length < WORTH_GATHERING { 0 } else { length.saturating_mul(head_width) };
    keys.saturating_mul(tile).saturating_add(gathered).saturating_mul(2)
}

/// From this many rows on, keys or values are copied into contiguous memory: each tile of queries reads all of them,
/// and in place they are pages apart.
const WORTH_GATHERING: usize = 96;

/// The scratch that [`forward`] and [`backward`] need, in elements.
pub const fn scratch(length: usize, width: usize) -> usize {
    worker_scratch(Target::HERE, length, width)
}

/// One sequence's sizes, and its dropout.
///
/// Rows of `qkv` hold the queries of all heads, then the keys and then the values of the key/value heads: C + 2 K D columns.
#[derive(Clone, Copy)]
pub struct Attention {
    /// H, the number of query heads; divides the width.
    pub heads: usize,
    /// K, the number of key/value heads; divides H. Each serves H / K neighbouring query heads (Ainslie et al. 2023). Equal
    /// to H in GPT-2.
    pub kv_heads: usize,
    /// C = H D, the width of all queries and of the output.
    pub width: usize,
    /// Dropout of the weights; `None` outside of training.
    pub mask: Option<Mask>,
    /// The sequence's number in the step, which selects its mask.
    pub sequence: u64,
}

/// One head's queries, keys and values, as parts of the rows of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub query: Matrix<'a>,
    pub key: Matrix<'a>,
    pub value: Matrix<'a>,
}

impl Attention {
    fn head_width(&self) -> usize {
        self.width.checked_div(self.heads).unwrap_or(0)
    }

    /// The columns of `qkv`.
    fn row(&self) -> usize {
        self.width + 2 * self.kv_heads * self.head_width()
    }

    /// T, from `qkv` of a checked length.
    fn length(&self, qkv: &[f32]) -> usize {
        qkv.len().checked_div(self.row()).unwrap_or(0)
    }

    /// The key/value head of a query head.
    pub(crate) fn shared(&self, head: usize) -> usize {
        (head * self.kv_heads).checked_div(self.heads).unwrap_or(0)
    }

    /// The first columns of a head's queries, keys and values in a row of `qkv`.
    fn columns(&self, head: usize) -> [usize; 3] {
        let key = self.heads + self.shared(head);
        [head, key, key + self.kv_heads].map(|part| part * self.head_width())
    }

    /// One head's part of `qkv`.
    fn head<'a>(&self, qkv: &'a [f32], head: usize) -> Head<'a> {
        let [query, key, value] = self.columns(head).map(|column| Matrix {
            data: qkv.get(column..).unwrap_or_default(),
            row_stride: self.row(),
            column_stride: 1,
        });
        Head { query, key, value }
    }

    /// How a head's gradients of keys and values begin, if backward takes all its queries at once: the first of a group
    /// overwrites.
    fn onto(&self, head: usize, at_once: bool) -> Start<'static> {
        let is_first = self.shared(head) * self.heads == head * self.kv_heads;
        if at_once && is_first { Start::Zero } else { Start::Accumulate }
    }

    fn head_mask(&self, head: usize) -> Option<Mask> {
        self.mask.map(|mask| mask.at(self.sequence.wrapping_mul(self.heads as u64).wrapping_add(head as u64)))
    }

    /// Refuses sizes that do not match. Returns T.
    fn check_qkv(&self, qkv: &[f32], scratch_length: usize) -> Result<usize, Error> {
        if self.heads == 0 {
            return Err(Error::Zero { what: "heads" });
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::Heads { width: self.width, heads: self.heads });
        }
        if self.kv_heads == 0 {
            return Err(Error::Zero { what: "kv_heads" });
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::KvHeads { heads: self.heads, kv_heads: self.kv_heads });
        }
        if self.width > usize::MAX / 3 {
            return Err(Error::TooLarge { what: "width" });
        }
        let length = count_rows("qkv", qkv, self.row())?;
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

/// Writes `out [T, C]` and `stats [H, T, 2]` from `qkv [T, C + 2 K D]` of one sequence.
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

/// Writes `d_qkv [T, C + 2 K D]` from `d_out [T, C]`, and from the input and outputs of [`forward`].
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

/// Writes the weights `[H, T, T]` that [`forward`] used, before dropout, for inspection.
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
        let size = Size { m: length, n: length, k: attention.head_width() };
        causal_trusted(simd, size, (weights, length), Start::Zero, head.query, keys, Causal::Whole, scratch);
        for (i, row) in rows_mut(weights, length).enumerate() {
            normalise(simd, row, i, head_scale(attention.head_width()));
        }
    }
    Ok(())
}

vectorized! {
    /// One row of scores to weights.
    fn normalise<V>(row: &mut [f32], last: usize, scale: f32) {
        mask_after(row, last);
        let (_, reciprocal) = exponentials::<V>(row, scale);
        simd::update(row, [], |_, e: V, []| e.mul(V::splat(reciprocal)));
    }
}

/// One over the square root of the head's width.
pub(crate) fn head_scale(width: usize) -> f32 {
    1.0 / processor::sqrt(width as f32)
}

impl Queries {
    /// All queries, `at_once` at a time.
    fn tiles(length: usize, at_once: usize, head_width: usize) -> impl Iterator<Item = Queries> {
        (0..length).step_by(at_once).map(move |first| {
            let count = at_once.min(length - first);
            Queries { first, count, keys: first + count, head_width }
        })
    }

    /// `out[query] = sum over keys of weights[query, key] x[key]`.
    fn over_keys(
        self,
        simd: InstructionSet,
        out: (&mut [f32], usize),
        weights: Matrix<'_>,
        x: Matrix<'_>,
        scratch: &mut [f32],
    ) {
        let size = Size { m: self.count, n: self.head_width, k: self.keys };
        let after = Causal::Inner { first: self.first };
        causal_trusted(simd, size, out, Start::Zero, weights, x, after, scratch);
    }

    /// `out[key] = start + sum over queries of weights[query, key] x[query]`.
    fn over_queries(
        self,
        simd: InstructionSet,
        out: (&mut [f32], usize),
        start: Start<'_>,
        weights: Matrix<'_>,
        x: Matrix<'_>,
        scratch: &mut [f32],
    ) {
        let size = Size { m: self.keys, n: self.head_width, k: self.count };
        let before = Causal::InnerTransposed { first: self.first };
        causal_trusted(simd, size, out, start, weights.transposed(), x, before, scratch);
    }
}

/// The part that begins at an element.
fn starting_at(x: &mut [f32], first: usize) -> &mut [f32] {
    x.get_mut(first..).unwrap_or_default()
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
    rows::forward(simd, out, stats, qkv, attention, scratch);
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
    rows::backward(simd, d_qkv, d_out, qkv, out, stats, attention, scratch);
}
