//! The product in register tiles of [`WideVector::TILE_ROWS`] by one or two panels of [`COLUMNS`].
//!
//! The five loops follow Goto & van de Geijn (2008) in another order. From the outermost to the innermost:
//! blocks of the inner index, blocks of columns, passes of rows, panels of columns, tiles of rows. B is packed into
//! panels of sixteen columns, and a packed block stays in the second-level cache. A B that is in that cache anyway
//! need not be packed. A is read in place.

use core::ops::Range;

use super::{Causal, Matrix, Size, Start, row};
use crate::simd::{LANES, WideVector, vectorized};
use crate::target::Target;

/// Columns of a panel.
pub(super) const COLUMNS: usize = LANES;

/// The longest block of the inner index. A panel of B (48 KiB) comes from the second-level cache, at half of its
/// bandwidth. Longer blocks need fewer passes over C.
const BLOCK_K: usize = 768;
/// The widest block of columns: a packed block of B (384 KiB) stays in the second-level cache.
const BLOCK_N: usize = 128;
/// The rows of a pass, which uses all panels of a block. Their part of A (at most 252 KiB) stays in the cache beside
/// the block. A multiple of every `TILE_ROWS`.
const BLOCK_M: usize = 84;
/// With fewer rows than this, packing does not pay for a B with contiguous rows that comes from memory.
const ROWS_WORTH_PACKING: usize = 16;
/// With fewer rows than this, packing does not pay for a B in the second-level cache: tiles read it as fast as
/// panels.
const ROWS_WORTH_PACKING_CLOSE: usize = 257;

/// A B with at most this many contiguous rows is read in place: its panels stay in the first-level cache.
const INNER_WORTH_PACKING_B: usize = 64;

/// The longest block of the inner index for a transposed A. A tile reads a part of one or two cache lines of each
/// column, and these lines stay in the first-level cache.
const TRANSPOSED_K: usize = 256;

/// The distance of prefetching in rows of B. Weights of large models come from memory, and processors do not predict
/// the jump from one row to the next.
const ROWS_AHEAD: usize = 8;
/// The most elements of an operand that stays in the second-level cache, so that prefetching does not pay.
pub(crate) const CLOSE: usize = 1 << 19;
/// With fewer steps than this, prefetching the next tile's C does not pay.
const WORTH_PREFETCHING: usize = 64;

/// The steps of the inner index between two computations of row addresses.
const UNROLL: usize = 4;

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// The scratch that is enough for a product of this size, or of smaller sides, in elements.
pub const fn scratch(size: Size) -> usize {
    scratch_on(Target::HERE, size.n, size.k)
}

/// [`scratch`] on any target. It does not depend on the number of rows, since only a block of B, or some rows of A,
/// are copied.
pub(crate) const fn scratch_on(target: Target, n: usize, k: usize) -> usize {
    if matches!(target, Target::Portable) {
        return super::portable::scratch(k);
    }
    let k = min(k, BLOCK_K);
    let b = min(n.div_ceil(COLUMNS).saturating_mul(COLUMNS), BLOCK_N) * k;
    // Panels begin at a cache line.
    b + 15
}

vectorized! {
    /// `C = start + A B`.
    ///
    /// # Safety
    /// As for [`super::product`].
    pub(super) unsafe fn product<V>(
        size: Size,
        c: *mut f32,
        c_stride: usize,
        start: Start<'_>,
        a: Matrix<'_>,
        b: Matrix<'_>,
        causal: Causal,
        space: &mut [f32],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if row::serves(size, b) {
                row::row::<V>(size, c, start, a, b);
            } else {
                blocks::<V>(size, c, c_stride, start, a, b, causal, space);
            }
        }
    } portable {}
}

/// The start of a tile's accumulators.
#[derive(Clone, Copy)]
pub(super) enum First {
    Zero,
    Bias(*const f32),
    C,
}

/// A tile's operands: pointers to its first element, and distances between elements.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub k: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub a_column: usize,
    pub b: *const f32,
    pub b_row: usize,
    /// The distance from the first panel of B to the second.
    pub b_panel: usize,
    pub c: *mut f32,
    pub c_row: usize,
    /// The columns of C to write, in one or two panels. B has whole panels in any case.
    pub columns: usize,
    pub first: First,
}

/// The space from its first cache line on.
#[inline(always)]
pub(super) fn aligned(space: *mut f32) -> *mut f32 {
    space.wrapping_add((space as usize).wrapping_neg() / 4 % 16)
}

/// The size of blocks that divide `total` into the fewest blocks of at most `most`, of nearly equal size.
#[inline(always)]
fn even(total: usize, most: usize, unit: usize) -> usize {
    let blocks = total.div_ceil(most.max(1)).max(1);
    min(total.div_ceil(blocks).div_ceil(unit) * unit, most)
}

/// The rows of the next tile. No tile has so few rows that its chains of multiply-adds leave the units idle.
#[inline(always)]
pub(super) fn tile_rows(rows: usize, most: usize) -> usize {
    if rows >= 2 * most {
        most
    } else if rows > most {
        rows.div_ceil(2)
    } else {
        rows
    }
}

/// The two loops over blocks of the inner index and of columns.
///
/// # Safety
/// As for [`super::product`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn blocks<V: WideVector>(
    Size { m, n, k }: Size,
    c: *mut f32,
    c_stride: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    causal: Causal,
    space: &mut [f32],
) {
    let rows_worth_packing =
        if k.saturating_mul(n) > CLOSE { ROWS_WORTH_PACKING } else { ROWS_WORTH_PACKING_CLOSE };
    let pack_b = b.column_stride != 1 || m >= rows_worth_packing && k > INNER_WORTH_PACKING_B;
    // A matrix with few columns may have any stride.
    let next_panel = COLUMNS.wrapping_mul(b.column_stride);
    let block_n = match pack_b {
        // Each panel is used only once: from the first-level cache, before the next panel is packed.
        true if m <= V::TILE_ROWS => V::TILE_PANELS * COLUMNS,
        true => even(n, BLOCK_N, COLUMNS),
        false => n,
    };
    let block_k = even(k, if a.column_stride == 1 { BLOCK_K } else { TRANSPOSED_K }, 1);
    let space = space.as_mut_ptr();
    let space_b = aligned(space);
    let far = a.column_stride == 1 && m.saturating_mul(k) > CLOSE;
    // SAFETY: all offsets below are within the caller's promise: columns below `n`, inner indices below `k`. The
    // space holds a block of B, or one panel of it ([`scratch_on`]).
    unsafe {
        let mut p = 0;
        loop {
            let inner = min(block_k, k - p);
            let a_block = a.data.as_ptr().wrapping_add(p * a.column_stride);
            let block_a = BlockA { a: a_block, row: a.row_stride, column: a.column_stride, far };
            let mut j = 0;
            loop {
                let columns = min(block_n, n - j);
                let b_block = b.data.as_ptr().wrapping_add(p * b.row_stride + j / COLUMNS * next_panel);
                let mut block_b = BlockB { panels: b_block, row: b.row_stride, next_panel, copied: None };
                if pack_b {
                    pack_panels::<V>(space_b, b_block, b, inner, columns);
                    let next_panel = COLUMNS * inner;
                    block_b = BlockB { panels: space_b, row: COLUMNS, next_panel, copied: None };
                } else if !columns.is_multiple_of(COLUMNS) {
                    let from = b_block.wrapping_add(columns / COLUMNS * next_panel);
                    pack_panel::<V>(space_b, from, b, inner, columns % COLUMNS);
                    block_b.copied = Some(space_b);
                }
                let first = match (p, start) {
                    (0, Start::Zero) => First::Zero,
                    (0, Start::Bias(bias)) => First::Bias(bias.as_ptr().add(j)),
                    _ => First::C,
                };
                let place = Place { column: j, inner: p..p + inner, all_columns: n, causal };
                tiles::<V>((m, columns), (c.add(j), c_stride), first, block_a, block_b, place);
                j += columns;
                if j >= n {
                    break;
                }
            }
            p += inner;
            if p >= k {
                break;
            }
        }
    }
}

/// A block of A, in place.
#[derive(Clone, Copy)]
struct BlockA {
    a: *const f32,
    /// The distance between rows.
    row: usize,
    /// The distance between columns.
    column: usize,
    /// Whether rows come from the third-level cache or memory.
    far: bool,
}

/// A block of B, in panels.
#[derive(Clone, Copy)]
struct BlockB {
    panels: *const f32,
    /// The distance between rows of a panel.
    row: usize,
    next_panel: usize,
    /// The last panel, if B is read in place and that panel is not full.
    copied: Option<*const f32>,
}

/// The place of a block in the product.
#[derive(Clone)]
struct Place {
    column: usize,
    inner: Range<usize>,
    /// The columns of the whole C.
    all_columns: usize,
    causal: Causal,
}

/// The three loops within a block: passes of rows, few enough that their part of A stays in the cache; panels of
/// columns; tiles of rows.
///
/// # Safety
/// A must be readable for `rows` and the place's inner indices, and B for these and `columns`. C is as in [`tile`].
#[inline(always)]
unsafe fn tiles<V: WideVector>(
    (rows, columns): (usize, usize),
    (c, c_row): (*mut f32, usize),
    first: First,
    a: BlockA,
    b: BlockB,
    place: Place,
) {
    let inner = place.inner.end - place.inner.start;
    let mut low = 0;
    while low < rows {
        let high = min(low + BLOCK_M, rows);
        let mut reached = high;
        let mut column = 0;
        while column < columns {
            let rest = columns - column;
            let (tile_b, b_row) = match b.copied {
                Some(copied) if rest < COLUMNS => (copied, COLUMNS),
                _ => (b.panels.wrapping_add(column / COLUMNS * b.next_panel), b.row),
            };
            // A copied panel is not adjacent to the panel before it.
            let second = if b.copied.is_some() { COLUMNS } else { 1 };
            let panels = if V::TILE_PANELS == 2 && rest >= COLUMNS + second { 2 } else { 1 };
            let width = min(panels * COLUMNS, rest);
            let first = match first {
                First::Bias(bias) => First::Bias(bias.wrapping_add(column)),
                other => other,
            };
            let mut row = low;
            // The last tiles share the remaining rows.
            while row < high {
                let tile_rows = tile_rows(rows - row, V::TILE_ROWS);
                let tile_a = a.a.wrapping_add(row * a.row);
                if a.far && rows - row > BLOCK_M {
                    // Each panel's tiles prefetch a part of the rows of the next pass.
                    let steps = inner * column / columns..inner * (column + width) / columns;
                    ask_ahead::<V>(tile_a.wrapping_add(BLOCK_M * a.row), a.row, tile_rows, steps);
                }
                let rows_of_c = row..row + tile_rows;
                let column_of_c = place.column + column;
                let wanted = place.causal.columns(rows_of_c.end, place.all_columns) > column_of_c + COLUMNS;
                let end = if wanted { width } else { min(width, COLUMNS) };
                if let Some(steps) = place.causal.steps(rows_of_c, column_of_c, place.inner.clone()) {
                    let tile = Tile {
                        k: steps.end - steps.start,
                        a: tile_a.wrapping_add(steps.start * a.column),
                        a_row: a.row,
                        a_column: a.column,
                        b: tile_b.wrapping_add(steps.start * b_row),
                        b_row,
                        b_panel: b.next_panel,
                        c: c.wrapping_add(row * c_row + column),
                        c_row,
                        columns: end,
                        first,
                    };
                    // SAFETY: see above.
                    unsafe { tile_of::<V>(tile_rows, tile) };
                }
                row += tile_rows;
            }
            column += panels * COLUMNS;
            reached = row;
        }
        low = reached;
    }
}

/// Prefetches some steps of rows of A that are `distance` apart.
#[inline(always)]
fn ask_ahead<V: WideVector>(a: *const f32, distance: usize, rows: usize, steps: Range<usize>) {
    for row in 0..rows {
        for step in steps.clone().step_by(LANES) {
            V::prefetch(a.wrapping_add(row * distance + step));
        }
    }
}

/// Copies a block of B into panels. If its rows are contiguous, all panels are filled together, row by row: memory is
/// faster in order than a row apart.
///
/// # Safety
/// `from` must be readable at `inner` rows and `columns` columns with B's strides, `to` writable for the panels of
/// `16 * inner`.
#[inline(always)]
unsafe fn pack_panels<V: WideVector>(
    to: *mut f32,
    from: *const f32,
    b: Matrix<'_>,
    inner: usize,
    columns: usize,
) {
    let whole = if b.column_stride == 1 { columns / COLUMNS } else { 0 };
    // SAFETY: see above.
    unsafe {
        for p in 0..if whole > 0 { inner } else { 0 } {
            let (to, from) = (to.add(p * COLUMNS), from.add(p * b.row_stride));
            for panel in 0..whole {
                V::prefetch(from.wrapping_add(ROWS_AHEAD * b.row_stride + panel * COLUMNS));
                let row = V::load(&*from.add(panel * COLUMNS).cast());
                row.store(&mut *to.add(panel * COLUMNS * inner).cast());
            }
        }
        for panel in whole..columns.div_ceil(COLUMNS) {
            let from = from.wrapping_add(panel * COLUMNS * b.column_stride);
            let width = min(COLUMNS, columns - panel * COLUMNS);
            pack_panel::<V>(to.add(panel * COLUMNS * inner), from, b, inner, width);
        }
    }
}

/// Copies sixteen columns of a block of B, `[inner, 16]`, padding with zeros.
///
/// # Safety
/// `from` must be readable at `inner` rows and `width` columns with B's strides, `to` writable for `16 * inner`.
#[inline(always)]
pub(super) unsafe fn pack_panel<V: WideVector>(
    to: *mut f32,
    from: *const f32,
    b: Matrix<'_>,
    inner: usize,
    width: usize,
) {
    // SAFETY: see above.
    unsafe {
        if width == COLUMNS && b.row_stride == 1 {
            V::transpose(to, from, b.column_stride, inner);
        } else {
            for p in 0..inner {
                for column in 0..COLUMNS {
                    let value = if column < width {
                        *from.add(p * b.row_stride + column * b.column_stride)
                    } else {
                        0.0
                    };
                    *to.add(p * COLUMNS + column) = value;
                }
            }
        }
    }
}

/// The way in which a tile reads A: one of its two distances is one, and a constant in the code.
pub(super) const CONTIGUOUS_ROWS: u8 = 0;
pub(super) const CONTIGUOUS_COLUMNS: u8 = 1;
const STRIDED: u8 = 2;

/// One register tile, with its number of rows and its way of reading A as constants.
///
/// # Safety
/// As for [`tile`]; `rows` must be 1 to [`WideVector::TILE_ROWS`].
#[inline(always)]
unsafe fn tile_of<V: WideVector>(rows: usize, t: Tile) {
    macro_rules! dispatch {
        ($form:ident, $panels:literal: $($rows:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($rows if $rows <= V::TILE_ROWS => unsafe { tile::<V, $form, $rows, $panels>(t) },)*
                _ => {}
            }
        };
        ($form:ident) => {
            if V::TILE_PANELS == 2 && t.columns > COLUMNS {
                dispatch!($form, 2: 1 2 3 4 5 6 7 8 9 10 11 12)
            } else {
                dispatch!($form, 1: 1 2 3 4 5 6 7 8 9 10 11 12)
            }
        };
    }
    if t.a_column == 1 {
        dispatch!(CONTIGUOUS_ROWS);
    } else if t.a_row == 1 {
        dispatch!(CONTIGUOUS_COLUMNS);
    } else {
        dispatch!(STRIDED);
    }
}

/// `M` rows of C by `P` panels of columns, accumulated in registers.
///
/// # Safety
/// A must be readable for `M` rows and `k` columns, B for `k` rows of `P` panels, and a bias for `columns`. C must be
/// writable for `M` rows of `columns`, and readable if it is accumulated onto.
#[inline(always)]
pub(super) unsafe fn tile<V: WideVector, const FORM: u8, const M: usize, const P: usize>(t: Tile) {
    let a_row = if FORM == CONTIGUOUS_COLUMNS { 1 } else { t.a_row };
    let a_column = if FORM == CONTIGUOUS_ROWS { 1 } else { t.a_column };
    let width = |panel: usize| min(COLUMNS, t.columns - panel * COLUMNS);
    // SAFETY: see above.
    unsafe {
        let mut sums = [[V::zero(); P]; M];
        match t.first {
            First::Zero => {}
            First::Bias(bias) => {
                let mut row = [V::zero(); P];
                for (panel, start) in row.iter_mut().enumerate() {
                    *start = load(bias.add(panel * COLUMNS), width(panel));
                }
                sums = [row; M];
            }
            First::C => {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (panel, sum) in sums.iter_mut().enumerate() {
                        *sum = load(t.c.add(i * t.c_row + panel * COLUMNS), width(panel));
                    }
                }
            }
        }
        // With few steps, prefetching comes too late.
        for i in 0..if t.k < WORTH_PREFETCHING { 0 } else { M } {
            for panel in 0..P {
                V::prefetch(t.c.wrapping_add((M + i) * t.c_row + panel * COLUMNS).cast_const());
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        let unroll = if P == 1 { UNROLL } else { 1 };
        for _ in 0..t.k / unroll {
            for p in 0..unroll {
                let (a, b) = (a.wrapping_add(p * a_column), b.wrapping_add(p * t.b_row));
                step(&mut sums, a, a_row, b, t.b_panel);
            }
            a = a.wrapping_add(unroll * a_column);
            b = b.wrapping_add(unroll * t.b_row);
        }
        for _ in 0..t.k % unroll {
            step(&mut sums, a, a_row, b, t.b_panel);
            a = a.wrapping_add(a_column);
            b = b.wrapping_add(t.b_row);
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (panel, sum) in sums.into_iter().enumerate() {
                store(sum, t.c.add(i * t.c_row + panel * COLUMNS), width(panel));
            }
        }
    }
}

/// One multiply-add onto each accumulator: a column of A times a row of B.
///
/// # Safety
/// `a` must be readable for `M` elements `a_row` apart, and `b` for `P` times sixteen elements, `b_panel` apart.
#[inline(always)]
unsafe fn step<V: WideVector, const M: usize, const P: usize>(
    sums: &mut [[V; P]; M],
    a: *const f32,
    a_row: usize,
    b: *const f32,
    b_panel: usize,
) {
    // SAFETY: see above.
    unsafe {
        let mut row = [V::zero(); P];
        for (panel, b_of_panel) in row.iter_mut().enumerate() {
            *b_of_panel = V::load(&*b.add(panel * b_panel).cast());
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let a = V::splat(*a.add(i * a_row));
            for (sum, b) in sums.iter_mut().zip(row) {
                *sum = a.mul_add(b, *sum);
            }
        }
    }
}

/// The first `columns` of sixteen columns.
///
/// # Safety
/// `from` must be readable for these.
#[inline(always)]
pub(super) unsafe fn load<V: WideVector>(from: *const f32, columns: usize) -> V {
    // SAFETY: see above.
    unsafe {
        if columns == COLUMNS {
            V::load(&*from.cast())
        } else {
            V::load_partial(core::slice::from_raw_parts(from, columns))
        }
    }
}

/// The first `columns` of sixteen columns.
///
/// # Safety
/// `to` must be writable for these.
#[inline(always)]
pub(super) unsafe fn store<V: WideVector>(vector: V, to: *mut f32, columns: usize) {
    // SAFETY: see above.
    unsafe {
        if columns == COLUMNS {
            vector.store(&mut *to.cast());
        } else {
            vector.store_partial(core::slice::from_raw_parts_mut(to, columns));
        }
    }
}
