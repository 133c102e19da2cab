//! Products under a causal mask on targets with vectors, for some queries and all keys up to the last query. They are
//! small and many. The preparations in [`super::packed`], before the first multiply-add and from tile to tile, would
//! take half as long as the multiply-adds.
//!
//! Scores and weights are `[keys, queries]`, rows [`QUERIES`] apart. No register tile extends beyond a multiple of
//! sixteen keys or queries, so that elements beyond the diagonal's squares of sixteen are neither read nor written.

use core::ops::Range;

use super::packed::{
    COLUMNS, CONTIGUOUS_COLUMNS, CONTIGUOUS_ROWS, First, Tile, aligned, pack_panel, tile, tile_rows,
};
use super::{Matrix, PerUnit, Queries, Start};
use crate::fault;
use crate::simd::{InstructionSet, WideVector, vectorized};

/// The most queries in a product, and the distance between rows of scores or weights.
pub(crate) const QUERIES: usize = 2 * COLUMNS;

/// The most rows of a register tile. Lower tiles skip more of the masked elements. Eight rows by two panels give
/// sixteen chains of multiply-adds, which is enough. With one panel, the chains of the next tile follow closely.
const TILE_ROWS: usize = 8;

/// The scratch in elements: panels for all queries, or one partial panel.
pub(crate) const fn scratch(length: usize, head_width: usize) -> usize {
    let panels = if length > COLUMNS { 2 } else { 1 };
    let (queries, rest) = (head_width.saturating_mul(panels * COLUMNS), length.saturating_mul(COLUMNS));
    // Panels begin at a cache line.
    (if queries > rest { queries } else { rest }).saturating_add(15)
}

/// A number of rows and columns, and the distance between rows.
struct Strided<'a>(&'a [f32], usize, usize, usize);

/// Whether the numbers of queries and keys are valid, the scratch is long enough, and the slices hold their rows.
#[inline(always)]
fn fit(queries: Queries, space: &[f32], operands: [Strided<'_>; 3]) -> bool {
    let Queries { first, count, keys, head_width } = queries;
    let sound = count <= QUERIES && first.checked_add(count) == Some(keys);
    let hold = |Strided(elements, rows, columns, distance): Strided<'_>| {
        rows.saturating_sub(1).saturating_mul(distance).saturating_add(columns) <= elements.len()
    };
    let fit = sound && space.len() >= scratch(keys, head_width) && operands.into_iter().all(hold);
    if !fit {
        fault::report(&"attention's products");
    }
    fit
}

/// `scores[key, query] = a[key] . b[query]`, for queries not before the key. Rows of both are contiguous.
pub(crate) fn scores(
    simd: InstructionSet,
    queries: Queries,
    scores: &mut [f32],
    a: Matrix<'_>,
    b: Matrix<'_>,
    space: &mut [f32],
) {
    let Queries { count, keys, head_width, .. } = queries;
    let a_rows = Strided(a.data, keys, head_width, a.row_stride);
    let b_rows = Strided(b.data, count, head_width, b.row_stride);
    if fit(queries, space, [Strided(scores, keys, QUERIES, QUERIES), a_rows, b_rows]) {
        // SAFETY: just checked.
        unsafe { scores_trusted(simd, queries, scores.as_mut_ptr(), a, b, space.as_mut_ptr()) }
    }
}

/// `out[query] = sum over keys of weights[key, query] x[key]`. Rows of x are contiguous.
pub(crate) fn over_keys(
    simd: InstructionSet,
    queries: Queries,
    (out, stride): PerUnit<'_>,
    weights: &[f32],
    x: Matrix<'_>,
    space: &mut [f32],
) {
    let Queries { count, keys, head_width, .. } = queries;
    let out_rows = Strided(out, count, head_width, stride);
    let x_rows = Strided(x.data, keys, head_width, x.row_stride);
    if fit(queries, space, [out_rows, Strided(weights, keys, QUERIES, QUERIES), x_rows]) {
        // SAFETY: just checked.
        unsafe { over_keys_trusted(simd, queries, out.as_mut_ptr(), stride, weights, x, space.as_mut_ptr()) }
    }
}

/// `out[key] = start + sum over queries of weights[key, query] x[query]`. Rows of x are contiguous. The start must
/// not be a bias.
pub(crate) fn over_queries(
    simd: InstructionSet,
    queries: Queries,
    (out, stride): PerUnit<'_>,
    start: Start<'_>,
    weights: &[f32],
    x: Matrix<'_>,
    space: &mut [f32],
) {
    let Queries { count, keys, head_width, .. } = queries;
    let out_rows = Strided(out, keys, head_width, stride);
    let x_rows = Strided(x.data, count, head_width, x.row_stride);
    if fit(queries, space, [out_rows, Strided(weights, keys, QUERIES, QUERIES), x_rows]) {
        let first = if let Start::Zero = start { First::Zero } else { First::C };
        let (out, space) = (out.as_mut_ptr(), space.as_mut_ptr());
        // SAFETY: just checked.
        unsafe { over_queries_trusted(simd, queries, out, stride, first, weights, x, space) }
    }
}

vectorized! {
    /// # Safety
    /// Sizes must pass the checks of [`scores`].
    unsafe fn scores_trusted<V>(
        queries: Queries,
        scores: *mut f32,
        a: Matrix<'_>,
        b: Matrix<'_>,
        space: *mut f32,
    ) {
        let Queries { first, count, keys, head_width: k } = queries;
        let (packed, b_panel) = (aligned(space), COLUMNS * k);
        let both = count > COLUMNS;
        // SAFETY: the space has a panel for each sixteen queries. The first sixteen do not see keys from `first +
        // COLUMNS` on. The rest is the caller's promise.
        unsafe {
            pack_panel::<V>(packed, b.data.as_ptr(), b.transposed(), k, count.min(COLUMNS));
            if both {
                let from = b.data.as_ptr().add(COLUMNS * b.row_stride);
                pack_panel::<V>(packed.add(b_panel), from, b.transposed(), k, count - COLUMNS);
            }
            let one = Tile {
                k,
                a: a.data.as_ptr(),
                a_row: a.row_stride,
                a_column: 1,
                b: packed,
                b_row: COLUMNS,
                b_panel,
                c: scores,
                c_row: QUERIES,
                columns: COLUMNS,
                first: First::Zero,
            };
            let other = Tile { b: packed.wrapping_add(b_panel), c: scores.wrapping_add(COLUMNS), ..one };
            let seen = keys.min(first + COLUMNS);
            let all = |_: Range<usize>| 0..k;
            if both && V::TILE_PANELS == 2 {
                strip::<V, CONTIGUOUS_ROWS, 2>(0..seen, all, Tile { columns: 2 * COLUMNS, ..one });
                strip::<V, CONTIGUOUS_ROWS, 1>(seen..keys, all, other);
            } else {
                strip::<V, CONTIGUOUS_ROWS, 1>(0..seen, all, one);
                strip::<V, CONTIGUOUS_ROWS, 1>(0..if both { keys } else { 0 }, all, other);
            }
        }
    } portable {}
}

vectorized! {
    /// # Safety
    /// Sizes must pass the checks of [`over_keys`].
    unsafe fn over_keys_trusted<V>(
        queries: Queries,
        out: *mut f32,
        stride: usize,
        weights: &[f32],
        x: Matrix<'_>,
        space: *mut f32,
    ) {
        let Queries { first, count, keys, head_width } = queries;
        let tile = Tile {
            k: keys,
            a: weights.as_ptr(),
            a_row: 1,
            a_column: QUERIES,
            b: x.data.as_ptr(),
            b_row: x.row_stride,
            b_panel: COLUMNS,
            c: out,
            c_row: stride,
            columns: head_width,
            first: First::Zero,
        };
        // SAFETY: the caller's promise. A query's keys end with its own position.
        unsafe { sums::<V, CONTIGUOUS_COLUMNS>(count, |rows| 0..first + rows.end, tile, space) }
    } portable {}
}

vectorized! {
    /// # Safety
    /// Sizes must pass the checks of [`over_queries`].
    unsafe fn over_queries_trusted<V>(
        queries: Queries,
        out: *mut f32,
        stride: usize,
        start: First,
        weights: &[f32],
        x: Matrix<'_>,
        space: *mut f32,
    ) {
        let Queries { first, count, keys, head_width } = queries;
        let tile = Tile {
            k: count,
            a: weights.as_ptr(),
            a_row: QUERIES,
            a_column: 1,
            b: x.data.as_ptr(),
            b_row: x.row_stride,
            b_panel: COLUMNS,
            c: out,
            c_row: stride,
            columns: head_width,
            first: start,
        };
        // SAFETY: the caller's promise. A key's queries begin with its own position.
        unsafe { sums::<V, CONTIGUOUS_ROWS>(keys, |rows| rows.start.saturating_sub(first)..count, tile, space) }
    } portable {}
}

/// Sums over keys or queries, for all columns of C.
///
/// # Safety
/// As for [`tile`], for all `rows` and their `steps`. The space must hold a panel of `k` steps.
#[inline(always)]
unsafe fn sums<V: WideVector, const FORM: u8>(
    rows: usize,
    steps: impl Fn(Range<usize>) -> Range<usize> + Copy,
    t: Tile,
    space: *mut f32,
) {
    let rest = t.columns % COLUMNS;
    let whole = t.columns - rest;
    let mut column = 0;
    // SAFETY: see above.
    unsafe {
        while column < whole {
            let t = Tile { b: t.b.wrapping_add(column), c: t.c.wrapping_add(column), ..t };
            if V::TILE_PANELS == 2 && whole - column > COLUMNS {
                strip::<V, FORM, 2>(0..rows, steps, Tile { columns: 2 * COLUMNS, ..t });
                column += 2 * COLUMNS;
            } else {
                strip::<V, FORM, 1>(0..rows, steps, Tile { columns: COLUMNS, ..t });
                column += COLUMNS;
            }
        }
        if rest > 0 {
            let packed = aligned(space);
            let b = Matrix { data: &[], row_stride: t.b_row, column_stride: 1 };
            pack_panel::<V>(packed, t.b.wrapping_add(whole), b, t.k, rest);
            let c = t.c.wrapping_add(whole);
            strip::<V, FORM, 1>(0..rows, steps, Tile { b: packed, b_row: COLUMNS, c, columns: rest, ..t });
        }
    }
}

/// Rows of C by one or two panels of columns: register tiles one below the other, each with the steps that its rows
/// need.
///
/// # Safety
/// As for [`tile`], for all `rows` and their `steps`.
#[inline(always)]
unsafe fn strip<V: WideVector, const FORM: u8, const P: usize>(
    rows: Range<usize>,
    steps: impl Fn(Range<usize>) -> Range<usize>,
    t: Tile,
) {
    let mut row = rows.start;
    while row < rows.end {
        let to_sixteen = (rows.end - row).min(COLUMNS - row % COLUMNS);
        let height = tile_rows(to_sixteen, V::TILE_ROWS.min(TILE_ROWS));
        let steps = steps(row..row + height);
        let t = Tile {
            k: steps.end - steps.start,
            a: t.a.wrapping_add(row * t.a_row + steps.start * t.a_column),
            b: t.b.wrapping_add(steps.start * t.b_row),
            c: t.c.wrapping_add(row * t.c_row),
            ..t
        };
        macro_rules! dispatch {
            ($($height:literal)*) => {
                match height {
                    // SAFETY: see above.
                    $($height if $height <= V::TILE_ROWS => unsafe { tile::<V, FORM, $height, P>(t) },)*
                    _ => {}
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8);
        row += height;
    }
}
