//! The product in register tiles of [`Vector::TILE_ROWS`] by [`COLUMNS`], over packed panels.
//!
//! The five loops of Goto & van de Geijn (2008), outermost first: blocks of columns (5), of the inner index
//! (4), of rows (3), panels of columns (2), tiles of rows (1). B is packed into panels of sixteen columns, a
//! block of which stays in the second-level cache; A is read where it lies when its rows are contiguous, and
//! packed into rows of tiles otherwise.

use super::{Matrix, Size, Start};
use crate::simd::{LANES, Vector, vectorized};

/// Columns of a panel.
pub(super) const COLUMNS: usize = LANES;

/// Whether the target has caches and vector units that packing pays for.
const LARGE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
/// Blocks of the inner index: one panel of B (16 KiB) stays in the first-level cache.
const BLOCK_K: usize = 256;
/// Blocks of columns: a packed block of B (256 KiB) stays in the second-level cache.
const BLOCK_N: usize = if LARGE { 256 } else { COLUMNS };
/// Blocks of rows: a block of A beside it. A multiple of every `TILE_ROWS`.
const BLOCK_M: usize = if LARGE { 84 } else { 0 };
/// Fewer rows than this don't repay packing a B whose rows are contiguous.
const ROWS_WORTH_PACKING: usize = if LARGE { 16 } else { usize::MAX };

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// The elements of scratch that a product of this size, or smaller in every direction, needs at most.
pub const fn scratch(m: usize, n: usize, k: usize) -> usize {
    let k = min(k, BLOCK_K);
    let b = min(n.div_ceil(COLUMNS).saturating_mul(COLUMNS), BLOCK_N) * k;
    let a = min(m.div_ceil(BLOCK_M_UNIT).saturating_mul(BLOCK_M_UNIT), BLOCK_M) * k;
    a + b
}

/// Rows of A are padded to a multiple of this when packed: the least common multiple of all `TILE_ROWS`.
const BLOCK_M_UNIT: usize = 84;

vectorized! {
    /// `C = start + A B`.
    ///
    /// # Safety
    /// Every index that `size` and the strides imply must be within the matrices, C and the bias; C must be
    /// writable and nobody else's; `space` must hold [`scratch`] elements.
    pub(super) fn product_checked<V>(
        size: Size, c: *mut f32, c_stride: usize, start: Start<'_>, a: Matrix<'_>, b: Matrix<'_>, space: &mut [f32],
    ) {
        // SAFETY: passed on from the caller.
        unsafe { blocks::<V>(size, c, c_stride, start, a, b, space) }
    }
}

/// `C = start + A B`.
///
/// # Safety
/// - Every index that `size` and the strides imply must be within the matrices, C and the bias.
/// - C must be writable and nobody else's meanwhile.
/// - `space` must hold [`scratch`] elements.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn product(
    simd: crate::simd::InstructionSet,
    size: Size,
    c: *mut f32,
    c_stride: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    space: &mut [f32],
) {
    product_checked(simd, size, c, c_stride, start, a, b, space);
}

/// Where a tile's accumulators start.
#[derive(Clone, Copy)]
enum First {
    Zero,
    Bias(*const f32),
    C,
}

/// A tile's operands: pointers to its first element, and distances between elements.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    a: *const f32,
    a_row: usize,
    a_column: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    /// Columns of C to write, 1 to 16; where fewer than 16, B is packed or `b_padded` is false.
    columns: usize,
    /// Whether B holds sixteen columns even where C has fewer.
    b_padded: bool,
    first: First,
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn blocks<V: Vector>(
    Size { m, n, k }: Size,
    c: *mut f32,
    c_stride: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    space: &mut [f32],
) {
    let pack_b = b.column_stride != 1 || m >= ROWS_WORTH_PACKING;
    let pack_a = LARGE && a.column_stride != 1 && m > V::TILE_ROWS && n > COLUMNS;
    let (block_n, block_m) = (if pack_b { BLOCK_N } else { n }, if pack_a { BLOCK_M } else { m });
    let bias = match start {
        Start::Bias(bias) => Some(bias.as_ptr()),
        Start::Zero | Start::Accumulate => None,
    };
    let space_b = space.as_mut_ptr();
    // SAFETY: all offsets below stay within what the caller vouches for: rows below `m`, columns below `n`,
    // inner indices below `k`; the packed B takes at most `BLOCK_N * BLOCK_K` elements of the space (rounded
    // up to panels), the packed A the rest. Without a packed B there are no blocks of columns, and the packed A
    // has the space to itself.
    unsafe {
        let mut j = 0;
        loop {
            let columns = min(block_n, n - j);
            let mut p = 0;
            loop {
                let inner = min(BLOCK_K, k - p);
                let b_block = b.data.as_ptr().wrapping_add(p * b.row_stride + j * b.column_stride);
                let panels = columns.div_ceil(COLUMNS);
                if pack_b {
                    for panel in 0..panels {
                        let width = min(COLUMNS, columns - panel * COLUMNS);
                        let from = b_block.wrapping_add(panel * COLUMNS * b.column_stride);
                        pack_panel::<V>(space_b.add(panel * COLUMNS * inner), from, b, inner, width);
                    }
                }
                let first = |column: usize| match (p, start, bias) {
                    (0, Start::Zero, _) => First::Zero,
                    (0, Start::Bias(_), Some(bias)) => First::Bias(bias.add(column)),
                    _ => First::C,
                };
                let mut i = 0;
                while i < m {
                    let rows = min(block_m, m - i);
                    let a_block = a.data.as_ptr().wrapping_add(i * a.row_stride + p * a.column_stride);
                    let space_a = space_b.wrapping_add(if pack_b { panels * COLUMNS * inner } else { 0 });
                    if pack_a {
                        pack_rows::<V>(space_a, a_block, a, rows, inner);
                    }
                    for panel in 0..panels {
                        let column = panel * COLUMNS;
                        let mut row = 0;
                        while row < rows {
                            let tile_rows = min(V::TILE_ROWS, rows - row);
                            let (tile_a, a_row, a_column) = if pack_a {
                                (space_a.add(row * inner).cast_const(), 1, tile_rows)
                            } else {
                                (a_block.wrapping_add(row * a.row_stride), a.row_stride, a.column_stride)
                            };
                            let (tile_b, b_row) = if pack_b {
                                (space_b.add(column * inner).cast_const(), COLUMNS)
                            } else {
                                (b_block.wrapping_add(column), b.row_stride)
                            };
                            let tile = Tile {
                                k: inner,
                                a: tile_a,
                                a_row,
                                a_column,
                                b: tile_b,
                                b_row,
                                c: c.add((i + row) * c_stride + j + column),
                                c_row: c_stride,
                                columns: min(COLUMNS, columns - column),
                                b_padded: pack_b,
                                first: first(j + column),
                            };
                            tile_of::<V>(tile_rows, tile);
                            row += tile_rows;
                        }
                    }
                    i += rows;
                }
                p += inner;
                if p >= k {
                    break;
                }
            }
            j += columns;
            if j >= n {
                break;
            }
        }
    }
}

/// Copies sixteen columns of a block of B, `[inner, 16]`, padding with zeros.
///
/// # Safety
/// `from` readable at `inner` rows and `width` columns of B's strides, `to` writable for `16 * inner`.
#[inline(always)]
unsafe fn pack_panel<V: Vector>(to: *mut f32, from: *const f32, b: Matrix<'_>, inner: usize, width: usize) {
    // SAFETY: see above.
    unsafe {
        if width == COLUMNS && b.column_stride == 1 {
            for p in 0..inner {
                let row = V::load(&*from.add(p * b.row_stride).cast());
                row.store(&mut *to.add(p * COLUMNS).cast());
            }
        } else if width == COLUMNS && b.row_stride == 1 {
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

/// Copies a block of A into tiles, each `[inner, rows of the tile]`.
///
/// # Safety
/// `from` readable at `rows` rows and `inner` columns of A's strides, `to` writable for `rows * inner`.
#[inline(always)]
unsafe fn pack_rows<V: Vector>(to: *mut f32, from: *const f32, a: Matrix<'_>, rows: usize, inner: usize) {
    let mut row = 0;
    while row < rows {
        let tile_rows = min(V::TILE_ROWS, rows - row);
        // SAFETY: see above.
        unsafe {
            let (to, from) = (to.add(row * inner), from.add(row * a.row_stride));
            if tile_rows == V::TILE_ROWS {
                for p in 0..inner {
                    for r in 0..V::TILE_ROWS {
                        *to.add(p * V::TILE_ROWS + r) = *from.add(r * a.row_stride + p * a.column_stride);
                    }
                }
            } else {
                for p in 0..inner {
                    for r in 0..tile_rows {
                        *to.add(p * tile_rows + r) = *from.add(r * a.row_stride + p * a.column_stride);
                    }
                }
            }
        }
        row += tile_rows;
    }
}

/// One register tile, with its number of rows made constant.
///
/// # Safety
/// As for [`tile`]; `rows` must be 1 to [`Vector::TILE_ROWS`].
#[inline(always)]
unsafe fn tile_of<V: Vector>(rows: usize, t: Tile) {
    macro_rules! dispatch {
        ($($rows:literal)*) => {
            match rows {
                // SAFETY: passed on from the caller.
                $($rows if $rows <= V::TILE_ROWS => unsafe { tile::<V, $rows>(t) },)*
                _ => {}
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// `M` rows of C by sixteen columns, accumulated in registers.
///
/// # Safety
/// A readable for `M` rows and `k` columns, B for `k` rows of sixteen (or of `columns`), C readable where
/// accumulated onto and writable for `M` rows of `columns`, a bias for `columns`.
#[inline(always)]
unsafe fn tile<V: Vector, const M: usize>(t: Tile) {
    let whole = t.columns == COLUMNS;
    // SAFETY: see above.
    unsafe {
        let read = |from: *const f32| {
            if whole {
                V::load(&*from.cast())
            } else {
                V::load_partial(core::slice::from_raw_parts(from, t.columns))
            }
        };
        let mut sums = [V::zero(); M];
        match t.first {
            First::Zero => {}
            First::Bias(bias) => sums = [read(bias); M],
            First::C => {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = read(t.c.add(i * t.c_row));
                }
            }
        }
        let (mut a, mut b) = (t.a, t.b);
        if whole || t.b_padded {
            for _ in 0..t.k {
                let row = V::load(&*b.cast());
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = V::splat(*a.add(i * t.a_row)).mul_add(row, *sum);
                }
                a = a.wrapping_add(t.a_column);
                b = b.wrapping_add(t.b_row);
            }
        } else {
            for _ in 0..t.k {
                let row = read(b);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = V::splat(*a.add(i * t.a_row)).mul_add(row, *sum);
                }
                a = a.wrapping_add(t.a_column);
                b = b.wrapping_add(t.b_row);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            let to = t.c.add(i * t.c_row);
            if whole {
                sum.store(&mut *to.cast());
            } else {
                sum.store_partial(core::slice::from_raw_parts_mut(to, t.columns));
            }
        }
    }
}
