//! The product on portable targets: strips of tiles of four rows by four columns. Four rows of A may be copied
//! together for all tiles of a strip. B is read in place. Fewer rows are computed one by one.

use core::ops::Range;

use super::{Causal, Matrix, Size, Start};
use crate::simd::processor::{BLOCK, code, compute, mul_add, row, stay_rolled};
use crate::simd::tile::{Form, Next, PACKED, SIDE, Strips};

/// The scratch of a product: four rows of A.
pub(super) const fn scratch(k: usize) -> usize {
    SIDE * if k < PACKED { k } else { PACKED }
}

/// An operand of tiles. Its lines are the rows of A or the columns of B.
#[derive(Clone, Copy)]
struct Side {
    data: *const f32,
    form: Form,
    /// The distance between lines.
    stride: usize,
    step: usize,
    count: usize,
}

impl Side {
    /// `None` if neither direction is contiguous.
    #[inline(always)]
    fn new(data: &[f32], stride: usize, step: usize, count: usize) -> Option<Side> {
        let form = match (step, stride) {
            (1, _) => Form::Along,
            (_, 1) => Form::Across,
            _ => return None,
        };
        Some(Side { data: data.as_ptr(), form, stride, step, count })
    }

    /// The first of the four lines of the tile for `line`. At the end, the tile reaches back.
    #[inline(always)]
    fn first(self, line: usize) -> usize {
        line.min(self.count.saturating_sub(SIDE))
    }

    /// The place of a line's step.
    #[inline(always)]
    fn at(self, line: usize, step: usize) -> *const f32 {
        self.data.wrapping_add(line * self.stride + step * self.step)
    }
}

/// `C = start + A B`.
///
/// # Safety
/// - Every index that `size` and the strides imply must be within the matrices, C and the bias.
/// - C must be writable, and nobody else may use it meanwhile.
/// - `space` must hold [`scratch`] elements.
#[allow(clippy::too_many_arguments)]
#[inline(never)]
pub(super) unsafe fn product(
    size: Size,
    c: *mut f32,
    c_row: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    causal: Causal,
    space: &mut [f32],
) {
    let Size { m, n, k } = size;
    let rows = Side::new(a.data, a.row_stride, a.column_stride, m);
    let columns = Side::new(b.data, b.column_stride, b.row_stride, n);
    // SAFETY: the caller's promise.
    unsafe {
        match (rows, columns) {
            (Some(rows), Some(columns)) if n >= SIDE && m >= SIDE => {
                let (start, packed) = (Starts::new(start, c, c_row), space.as_mut_ptr());
                Tiles { k, start, c, c_row, rows, columns, causal, packed }.compute();
            }
            (Some(Side { form: Form::Along, .. }), Some(columns)) if n >= SIDE => {
                let start = Starts::new(start, c, c_row);
                for row in 0..m {
                    let a = a.data.as_ptr().wrapping_add(row * a.row_stride);
                    single(k, start.row(row), c.wrapping_add(row * c_row), a, columns, causal.from(row));
                }
            }
            _ => elements(size, (c, c_row), start, a, b),
        }
    }
}

/// The start of the chains.
#[derive(Clone, Copy)]
struct Starts {
    first: *const f32,
    row: usize,
    column: usize,
    /// Whether C is not read, so that elements may be computed twice.
    fresh: bool,
}

impl Starts {
    fn new(start: Start<'_>, c: *const f32, c_row: usize) -> Starts {
        static ZEROS: [f32; SIDE * SIDE] = [0.0; SIDE * SIDE];
        match start {
            Start::Zero => Starts { first: ZEROS.as_ptr(), row: 0, column: 0, fresh: true },
            Start::Bias(bias) => Starts { first: bias.as_ptr(), row: 0, column: 1, fresh: true },
            Start::Accumulate => Starts { first: c, row: c_row, column: 1, fresh: false },
        }
    }

    /// The start of a row's first column.
    fn row(self, row: usize) -> Self {
        Starts { first: self.first.wrapping_add(row * self.row), ..self }
    }
}

/// A product of tiles.
#[derive(Clone, Copy)]
struct Tiles {
    k: usize,
    start: Starts,
    c: *mut f32,
    c_row: usize,
    rows: Side,
    columns: Side,
    causal: Causal,
    /// Space for four rows of A.
    packed: *mut f32,
}

impl Tiles {
    /// # Safety
    /// As for [`product`], with `rows` and `columns` as operands.
    #[inline(never)]
    unsafe fn compute(&self) {
        let Tiles { k, mut start, c, c_row, .. } = *self;
        let mut step = 0;
        loop {
            let end = k.min(step + BLOCK);
            // SAFETY: the caller's promise.
            unsafe { self.strips(step..end, start) };
            if end == k {
                break;
            }
            (step, start) = (end, Starts { first: c, row: c_row, column: 1, fresh: false });
        }
    }

    /// Some steps of all strips. Tiles at the edges reach back over computed elements. If C is read, they keep those
    /// elements.
    ///
    /// # Safety
    /// As for [`Tiles::compute`].
    #[inline(always)]
    unsafe fn strips(&self, inner: Range<usize>, start: Starts) {
        let Tiles { rows, columns, packed, causal, .. } = *self;
        let mut row = 0;
        while row < rows.count {
            let (first, end) = (rows.first(row), rows.count.min(row + SIDE));
            let steps = causal.steps(first..end, 0, inner.clone()).unwrap_or_default();
            let width = causal.columns(end, columns.count);
            let (from, k) = (inner.start + steps.start, steps.end - steps.start);
            let tiles = width.div_ceil(SIDE).min(columns.count / SIDE);
            let one = columns.at(0, from);
            let two = one.wrapping_add(columns.stride);
            let three = two.wrapping_add(columns.stride);
            let mut strips = Strips {
                a: packed,
                distance: if rows.form == Form::Along { rows.stride } else { rows.step },
                rows: rows.at(first, from),
                k,
                b_next: (SIDE * columns.stride).wrapping_sub(k * columns.step),
                tiles,
                start: start.first.wrapping_add(first * start.row),
                c: self.c.wrapping_add(first * self.c_row),
                b: [one, two, three, three.wrapping_add(columns.stride)],
                b_step: columns.step,
                start_row: start.row,
                start_next: SIDE * start.column,
                c_row: self.c_row,
                code: code(rows.form, columns.form),
                next: Next {
                    rows: SIDE * rows.stride,
                    k: 0,
                    b_next: 0,
                    tiles: 0,
                    start: SIDE * start.row,
                    c: SIDE * self.c_row,
                    b: 0,
                },
                count: 1,
            };
            self.alike(&mut strips, row, &inner);
            let count = strips.count;
            // SAFETY: the strips' rows and columns are within C, or needed by an edge. A block fits.
            unsafe {
                if !start.fresh && first < row {
                    edges(columns, &strips, false, row - first..SIDE, 0..width);
                } else {
                    compute(&mut strips);
                    if tiles * SIDE < width {
                        edges(columns, &strips, start.fresh, 0..end - first, tiles * SIDE..width);
                    }
                }
            }
            row += count * SIDE;
        }
    }

    /// Finds the number of strips from a row on that have no edges and differ by the same amount each. Returns that
    /// amount too, apart from rows, starts and C.
    #[inline(never)]
    fn alike(&self, strips: &mut Strips, row: usize, inner: &Range<usize>) {
        let Tiles { k, rows, columns, .. } = *self;
        let next = &mut strips.next;
        let (steps, all) = (SIDE * columns.step, *inner == (0..k));
        let end = match self.causal {
            Causal::Columns { first } if first.is_multiple_of(SIDE) => {
                next.tiles = 1;
                columns.count.saturating_sub(first)
            }
            _ if !columns.count.is_multiple_of(SIDE) => 0,
            Causal::Whole => rows.count,
            Causal::Inner { first } if all => {
                (next.k, next.b_next) = (SIDE, steps.wrapping_neg());
                k.saturating_sub(first)
            }
            Causal::InnerTransposed { first } if all && row < first => first,
            Causal::InnerTransposed { first } if all => {
                next.rows += SIDE * rows.step;
                (next.k, next.b_next, next.b) = (SIDE.wrapping_neg(), steps, steps);
                k.saturating_add(first)
            }
            _ => 0,
        };
        let count = end.min(rows.count).saturating_sub(row) / SIDE;
        strips.count = count.max(1);
    }
}

/// The columns of a strip's rows from one on, tile by tile. If C is read, only `rows` are needed.
///
/// # Safety
/// As for [`product`].
#[inline(never)]
unsafe fn edges(side: Side, strips: &Strips, fresh: bool, rows: Range<usize>, columns: Range<usize>) {
    let mut column = columns.start;
    while column < columns.end {
        let first = side.first(column);
        let mut tile = Strips {
            b: strips.b.map(|b| b.wrapping_add(first * side.stride)),
            start: strips.start.wrapping_add(first * strips.start_next / SIDE),
            c: strips.c.wrapping_add(first),
            tiles: 1,
            count: 1,
            ..*strips
        };
        // SAFETY: the caller's promise.
        unsafe {
            if fresh {
                compute(&mut tile);
            } else {
                let wanted = column - first..side.count.min(column + SIDE) - first;
                edge(&mut tile, rows.clone(), wanted);
            }
        }
        column += SIDE;
    }
}

/// One tile with some needed rows and columns. The others may be outside of C.
///
/// # Safety
/// As for [`product`].
unsafe fn edge(tile: &mut Strips, rows: Range<usize>, columns: Range<usize>) {
    let mut sums = [[0.0; SIDE]; SIDE];
    let (c, c_row) = (tile.c, tile.c_row);
    // SAFETY: the caller promises the elements. The kernel writes only to `sums`.
    unsafe {
        for (i, row) in sums.iter_mut().enumerate().take(rows.end).skip(rows.start) {
            for (j, sum) in row.iter_mut().enumerate().take(columns.end).skip(columns.start) {
                stay_rolled();
                *sum = *tile.start.add(i * tile.start_row + j);
            }
        }
        let all = sums.as_mut_ptr().cast::<f32>();
        (tile.start, tile.start_row, tile.c, tile.c_row) = (all, SIDE, all, SIDE);
        compute(tile);
        for (i, row) in sums.iter().enumerate().take(rows.end).skip(rows.start) {
            for (j, sum) in row.iter().enumerate().take(columns.end).skip(columns.start) {
                stay_rolled();
                *c.add(i * c_row + j) = *sum;
            }
        }
    }
}

/// One row of C, as in generation: four columns at a time.
///
/// # Safety
/// As for [`product`], with the row's part of its operands.
#[inline(never)]
unsafe fn single(k: usize, start: Starts, c: *mut f32, a: *const f32, columns: Side, causal: Causal) {
    let steps = causal.steps(0..1, 0, 0..k).unwrap_or_default();
    let (a, width) = (a.wrapping_add(steps.start), causal.columns(1, columns.count));
    for column in (0..width).step_by(SIDE) {
        let first = columns.first(column);
        let (from, to) = (start.first.wrapping_add(first * start.column), c.wrapping_add(first));
        // SAFETY: the caller promises all columns.
        unsafe {
            let mut sums: [f32; SIDE] = *from.cast();
            row(&mut sums, a, columns.at(first, steps.start), columns.stride, columns.step, steps.len());
            for (i, sum) in sums.iter().enumerate().take(width - first).skip(column - first) {
                stay_rolled();
                *to.add(i) = *sum;
            }
        }
    }
}

/// Element by element, for operands with any strides.
///
/// # Safety
/// As for [`product`].
#[inline(never)]
unsafe fn elements(
    Size { m, n, k }: Size,
    (c, c_row): (*mut f32, usize),
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    for row in 0..m {
        for column in 0..n {
            stay_rolled();
            // SAFETY: rows stay below `m`, columns below `n` and inner indices below `k`.
            unsafe {
                let to = c.add(row * c_row + column);
                let mut sum = match start {
                    Start::Zero => 0.0,
                    Start::Bias(bias) => *bias.as_ptr().add(column),
                    Start::Accumulate => *to,
                };
                let (mut x, mut y) = (
                    a.data.as_ptr().wrapping_add(row * a.row_stride),
                    b.data.as_ptr().wrapping_add(column * b.column_stride),
                );
                for _ in 0..k {
                    stay_rolled();
                    sum = mul_add(*x, *y, sum);
                    x = x.wrapping_add(a.column_stride);
                    y = y.wrapping_add(b.row_stride);
                }
                *to = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::matmul::reference;

    /// Edges of tiles in every direction, for operands with any strides. Rows of C have gaps between them.
    #[test]
    fn tiles_have_the_references_bits() {
        let numbers = |seed: u32| (1_u32..2000).map(move |i| ((i * seed) % 977) as f32 / 31.0 - 15.0);
        let (a, b): (Vec<f32>, Vec<f32>) = (numbers(331).collect(), numbers(577).collect());
        let ways = |data, rows, columns| {
            [
                Matrix::new(data, columns),
                Matrix::new(data, rows + 1).transposed(),
                Matrix { data, row_stride: 2 * columns, column_stride: 2 },
            ]
        };
        let sides = [1, 3, 4, 6, 9];
        let sizes = sides.map(|m| sides.map(|n| [0, 1, 2, 5, 8, PACKED + 6].map(|k| Size { m, n, k })));
        for size in sizes.as_flattened().as_flattened() {
            for (i, a) in ways(&a, size.m, size.k).into_iter().enumerate() {
                for (j, b) in ways(&b, size.k, size.n).into_iter().enumerate() {
                    for start in [Start::Zero, Start::Bias(b.data), Start::Accumulate] {
                        let stride = size.n + 2;
                        let mut c: Vec<f32> = numbers(7).take(size.m * stride).collect();
                        let (mut wanted, mut space) = (c.clone(), vec![0.0; scratch(size.k)]);
                        reference(*size, (&mut wanted, stride), start, a, b).unwrap();
                        // SAFETY: the reference has checked the same sizes.
                        unsafe {
                            product(*size, c.as_mut_ptr(), stride, start, a, b, Causal::Whole, &mut space);
                        }
                        assert_eq!(c, wanted, "{size:?}, A in way {i}, B in way {j}");
                    }
                }
            }
        }
    }

    /// The unmasked elements are right, whatever the others contain, with one block of the inner index and with
    /// several.
    #[test]
    fn causal_products_have_the_references_bits() {
        for t in [11, 16, PACKED + 5] {
            let numbers: Vec<f32> =
                (1_u32..).take(t * t).map(|i| ((i * 331) % 97) as f32 / 31.0 - 1.5).collect();
            let mut weights = numbers.clone();
            for (i, row) in weights.chunks_mut(t).enumerate() {
                row[i + 1..].fill(0.0);
            }
            let (x, weights) = (Matrix::new(&numbers, t), Matrix::new(&weights, t));
            for count in [1, 2, 3, 5, 8, t] {
                let first = t - count;
                let (rows, weights) = (x.from(first, 0), weights.from(first, 0));
                let size = Size { m: count, n: t, k: t };
                let cases = [
                    (size, rows, x.transposed(), Causal::Columns { first }),
                    (size, weights, x, Causal::Inner { first }),
                    (
                        Size { m: t, n: t, k: count },
                        weights.transposed(),
                        x,
                        Causal::InnerTransposed { first },
                    ),
                ];
                for (size, a, b, causal) in cases {
                    for start in [Start::Zero, Start::Accumulate] {
                        let (mut c, mut wanted) = (vec![0.5; t * t], vec![0.5; t * t]);
                        reference(size, (&mut wanted, t), start, a, b).unwrap();
                        let mut space = vec![0.0; scratch(t)];
                        // SAFETY: the reference has checked the same sizes.
                        unsafe { product(size, c.as_mut_ptr(), t, start, a, b, causal, &mut space) };
                        for (i, (c, wanted)) in c.chunks(t).zip(wanted.chunks(t)).enumerate() {
                            let columns =
                                if let Causal::Columns { .. } = causal { t.min(first + i + 1) } else { t };
                            assert_eq!(c[..columns], wanted[..columns], "{count} rows of {t}, row {i}");
                        }
                    }
                }
            }
        }
    }
}
