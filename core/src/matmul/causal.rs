//! Products under a causal mask on machines with vectors: of some queries and all keys up to the last of them. They are
//! small and many: what [`super::packed`] does before its first multiply-add, and from tile to tile, would take half as
//! long again as theirs.
//!
//! Scores and weights are `[keys, queries]`, rows [`QUERIES`] apart. No register tile goes beyond a multiple of sixteen
//! keys or queries, so that what lies beyond the diagonal's squares of sixteen is neither read nor written.

use core::ops::Range;

use super::packed::{
    COLUMNS, CONTIGUOUS_COLUMNS, CONTIGUOUS_ROWS, First, Tile, aligned, pack_panel, tile, tile_rows,
};
use super::{Matrix, PerUnit, Queries, Start};
use crate::simd::{InstructionSet, WideVector, vectorized};

/// The most queries that go through together, and the distance from one row of scores or weights to the next.
pub(crate) const QUERIES: usize = 2 * COLUMNS;

/// The most rows of a register tile. More would leave out less of what is masked, and sixteen chains of multiply-adds, eight
/// by two panels, are enough; with one panel, those of the next tile follow closely.
const TILE_ROWS: usize = 8;

/// The scratch that these products need, in elements: panels of all queries, or one of columns that don't fill it.
pub(crate) const fn scratch(length: usize, head_width: usize) -> usize {
    let panels = if length > COLUMNS { 2 } else { 1 };
    let (queries, rest) = (head_width.saturating_mul(panels * COLUMNS), length.saturating_mul(COLUMNS));
    // Panels begin with a cache line.
    (if queries > rest { queries } else { rest }).saturating_add(15)
}

/// Some rows of so many columns, and the distance from one to the next.
struct Rows<'a>(&'a [f32], usize, usize, usize);

/// Whether the numbers of queries and keys are sound, the scratch is long enough, and the elements hold their rows.
#[inline(always)]
fn fit(queries: Queries, space: &[f32], operands: [Rows<'_>; 3]) -> bool {
    let Queries { first, count, keys, head_width } = queries;
    let sound = count <= QUERIES && first.checked_add(count) == Some(keys);
    let hold = |Rows(elements, rows, columns, distance): Rows<'_>| {
        rows.saturating_sub(1).saturating_mul(distance).saturating_add(columns) <= elements.len()
    };
    let fit = sound && space.len() >= scratch(keys, head_width) && operands.into_iter().all(hold);
    debug_assert!(fit, "sizes that the layout guarantees");
    fit
}

/// `scores[key, query] = a[key] . b[query]`, of queries not before the key. Rows of both are contiguous.
pub(crate) fn scores(
    simd: InstructionSet,
    queries: Queries,
    scores: &mut [f32],
    a: Matrix<'_>,
    b: Matrix<'_>,
    space: &mut [f32],
) {
    let Queries { count, keys, head_width, .. } = queries;
    let a_rows = Rows(a.data, keys, head_width, a.row_stride);
    let b_rows = Rows(b.data, count, head_width, b.row_stride);
    if fit(queries, space, [Rows(scores, keys, QUERIES, QUERIES), a_rows, b_rows]) {
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
    let out_rows = Rows(out, count, head_width, stride);
    let x_rows = Rows(x.data, keys, head_width, x.row_stride);
    if fit(queries, space, [out_rows, Rows(weights, keys, QUERIES, QUERIES), x_rows]) {
        // SAFETY: just checked.
        unsafe { over_keys_trusted(simd, queries, out.as_mut_ptr(), stride, weights, x, space.as_mut_ptr()) }
    }
}

/// `out[key] = start + sum over queries of weights[key, query] x[query]`. Rows of x are contiguous; the start is no bias.
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
    let out_rows = Rows(out, keys, head_width, stride);
    let x_rows = Rows(x.data, count, head_width, x.row_stride);
    if fit(queries, space, [out_rows, Rows(weights, keys, QUERIES, QUERIES), x_rows]) {
        let first = if let Start::Zero = start { First::Zero } else { First::C };
        let (out, space) = (out.as_mut_ptr(), space.as_mut_ptr());
        // SAFETY: just checked.
        unsafe { over_queries_trusted(simd, queries, out, stride, first, weights, x, space) }
    }
}

vectorized! {
    /// # Safety
    /// Sizes must be those that [`scores`] checks.
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
        // SAFETY: the space has a panel for each sixteen queries, the first of which see no keys from `first + COLUMNS` on;
        // all else is the caller's promise.
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
    /// Sizes must be those that [`over_keys`] checks.
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
        // SAFETY: passed on from the caller; a query's keys end with its own.
        unsafe { sums::<V, CONTIGUOUS_COLUMNS>(count, |rows| 0..first + rows.end, tile, space) }
    } portable {}
}

vectorized! {
    /// # Safety
    /// Sizes must be those that [`over_queries`] checks.
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
        // SAFETY: passed on from the caller; a key's queries begin with its own.
        unsafe { sums::<V, CONTIGUOUS_ROWS>(keys, |rows| rows.start.saturating_sub(first)..count, tile, space) }
    } portable {}
}

/// Sums over keys or queries: all columns of C.
///
/// # Safety
/// As for [`tile`], of all `rows` and the `steps` of them; the space must hold a panel of `k` steps.
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

/// Rows of C, by one panel of columns or two: register tiles one below the other, each of the steps that its rows take.
///
/// # Safety
/// As for [`tile`], of all `rows` and the `steps` of them.
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
