//! The product on machines without vectors: tiles of four rows by four columns, sixteen chains of multiply-adds in
//! as many registers. Nothing is packed: a tile reads both operands where they lie, in pairs of steps.

use core::ops::Range;

use super::{Causal, Matrix, Size, Start};
use crate::simd::scalar::{kernel, mul_add};
use crate::simd::tile::{Form, Kernel, Lines, SIDE, Tile};

/// The ways in which the lines of an operand lie, four of which begin at `first` or, of fewer, end with it again.
#[derive(Clone, Copy)]
struct Side {
    data: *const f32,
    form: Form,
    /// From one line to the next.
    stride: usize,
    step: usize,
    count: usize,
}

impl Side {
    /// `None` where neither way is contiguous, or four elements across would reach beyond the operand.
    #[inline(always)]
    fn new(data: &[f32], stride: usize, step: usize, count: usize) -> Option<Side> {
        let form = if step == 1 {
            Form::Along
        } else if stride == 1 && count >= SIDE {
            Form::Across
        } else {
            return None;
        };
        Some(Side { data: data.as_ptr(), form, stride, step, count })
    }

    /// The first of the four lines that a tile computes for the lines from `line` on: at the end it reaches back.
    #[inline(always)]
    fn first(self, line: usize) -> usize {
        line.min(self.count.saturating_sub(SIDE))
    }

    #[inline(always)]
    fn lines(self, first: usize, skip: usize) -> Lines {
        let at = |line: usize| {
            let line = (first + line).min(self.count - 1);
            self.data.wrapping_add(line * self.stride + skip * self.step)
        };
        match self.form {
            Form::Along => Lines { line: [at(0), at(1), at(2), at(3)], step: 1 },
            Form::Across => Lines { line: [at(0); SIDE], step: self.step },
        }
    }
}

/// `C = start + A B`.
///
/// # Safety
/// - Every index that `size` and the strides imply must be within the matrices, C and the bias.
/// - C must be writable and nobody else's meanwhile.
#[inline(never)]
pub(super) unsafe fn product(
    size: Size,
    c: *mut f32,
    c_stride: usize,
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    causal: Causal,
) {
    let Size { m, n, k } = size;
    if m == 0 || n == 0 {
        return;
    }
    let rows = Side::new(a.data, a.row_stride, a.column_stride, m);
    let columns = Side::new(b.data, b.column_stride, b.row_stride, n);
    // SAFETY: passed on from the caller.
    unsafe {
        if let (Some(rows), Some(columns)) = (rows, columns)
            && let Some(kernel) = kernel(rows.form, columns.form)
        {
            tiles(kernel, k, (c, c_stride), start, rows, columns, causal);
        } else {
            elements(size, (c, c_stride), start, a, b);
        }
    }
}

const ZEROS: [f32; SIDE] = [0.0; SIDE];

/// Where the chains of a row of C start, at the given column, and how far the next row's starts are.
///
/// # Safety
/// The column must be within C and the bias.
#[inline(always)]
unsafe fn starts(start: Start<'_>, c: (*mut f32, usize), column: usize) -> (*const f32, usize) {
    match start {
        Start::Zero => (ZEROS.as_ptr(), 0),
        // SAFETY: see above.
        Start::Bias(bias) => (unsafe { bias.as_ptr().add(column) }, 0),
        Start::Accumulate => (c.0.cast_const(), c.1),
    }
}

/// # Safety
/// As for [`product`], whose operands `rows` and `columns` are.
unsafe fn tiles(
    kernel: Kernel,
    k: usize,
    (c, c_stride): (*mut f32, usize),
    start: Start<'_>,
    rows: Side,
    columns: Side,
    causal: Causal,
) {
    for row in (0..rows.count).step_by(SIDE) {
        let below = rows.count.min(row + SIDE);
        let first_row = rows.first(row);
        let mut lines = rows.lines(first_row, 0);
        let mut skipped = 0;
        for column in (0..columns.count).step_by(SIDE) {
            let after = columns.count.min(column + SIDE);
            let Some(steps) = causal.steps(row..below, column, 0..k) else { break };
            if steps.start != skipped {
                skipped = steps.start;
                lines = rows.lines(first_row, skipped);
            }
            let first_column = columns.first(column);
            let whole = below - row == SIDE && after - column == SIDE;
            // SAFETY: the element is within C, and the tile within C where it is whole.
            unsafe {
                let to = c.add(row * c_stride + column);
                let (from, from_row) = starts(start, (to, c_stride), column);
                let mut tile = Tile {
                    start: from,
                    start_row: from_row,
                    c: to,
                    c_row: c_stride,
                    k: steps.end - steps.start,
                    a: lines,
                    b: columns.lines(first_column, steps.start),
                };
                if whole {
                    kernel(&tile);
                } else {
                    edge(
                        kernel,
                        &mut tile,
                        row - first_row..below - first_row,
                        column - first_column..after - first_column,
                    );
                }
            }
        }
    }
}

/// A tile of which only some rows and columns are wanted, and within C.
///
/// # Safety
/// As for [`product`]: `start` and C of the tile are at the first element wanted.
#[inline(never)]
unsafe fn edge(kernel: Kernel, tile: &mut Tile, rows: Range<usize>, columns: Range<usize>) {
    let mut sums = [[0.0; SIDE]; SIDE];
    let (c, c_row) = (tile.c, tile.c_row);
    let wanted = |sums: &mut [[f32; SIDE]; SIDE], each: &mut dyn FnMut(&mut f32, usize, usize)| {
        for (i, row) in sums.iter_mut().take(rows.end).skip(rows.start).enumerate() {
            for (j, sum) in row.iter_mut().take(columns.end).skip(columns.start).enumerate() {
                each(sum, i, j);
            }
        }
    };
    // SAFETY: the elements are those that the caller vouches for; the kernel's are those of `sums`.
    unsafe {
        wanted(&mut sums, &mut |sum, i, j| *sum = *tile.start.add(i * tile.start_row + j));
        let all = sums.as_mut_ptr().cast::<f32>();
        (tile.start, tile.start_row, tile.c, tile.c_row) = (all, SIDE, all, SIDE);
        kernel(tile);
        wanted(&mut sums, &mut |sum, i, j| *c.add(i * c_row + j) = *sum);
    }
}

/// Element by element, however the operands lie.
///
/// # Safety
/// As for [`product`].
#[inline(never)]
unsafe fn elements(
    Size { m, n, k }: Size,
    (c, c_stride): (*mut f32, usize),
    start: Start<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    for row in 0..m {
        for column in 0..n {
            // SAFETY: rows stay below `m`, columns below `n` and inner indices below `k`.
            unsafe {
                let to = c.add(row * c_stride + column);
                let mut sum = *starts(start, (to, c_stride), column).0;
                let (mut x, mut y) = (
                    a.data.as_ptr().wrapping_add(row * a.row_stride),
                    b.data.as_ptr().wrapping_add(column * b.column_stride),
                );
                for _ in 0..k {
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
    use std::vec::Vec;

    use super::*;
    use crate::matmul::reference;

    /// Edges of tiles in every direction, however the operands lie; C is longer than its rows.
    #[test]
    fn tiles_have_the_references_bits() {
        let numbers = |seed: u32| (1_u32..1000).map(move |i| ((i * seed) % 977) as f32 / 31.0 - 15.0);
        let (a, b): (Vec<f32>, Vec<f32>) = (numbers(331).collect(), numbers(577).collect());
        let ways = |data, rows, columns| {
            [
                Matrix::new(data, columns),
                Matrix::new(data, rows + 1).transposed(),
                Matrix { data, row_stride: 2 * columns, column_stride: 2 },
            ]
        };
        let sides = [1, 3, 4, 6, 9];
        let sizes = sides.map(|m| sides.map(|n| [0, 1, 2, 5, 8].map(|k| Size { m, n, k })));
        for size in sizes.as_flattened().as_flattened() {
            for (i, a) in ways(&a, size.m, size.k).into_iter().enumerate() {
                for (j, b) in ways(&b, size.k, size.n).into_iter().enumerate() {
                    for start in [Start::Zero, Start::Bias(b.data), Start::Accumulate] {
                        let stride = size.n + 2;
                        let mut c: Vec<f32> = numbers(7).take(size.m * stride).collect();
                        let mut wanted = c.clone();
                        reference(*size, (&mut wanted, stride), start, a, b).unwrap();
                        // SAFETY: the reference has checked the same sizes.
                        unsafe {
                            product(*size, c.as_mut_ptr(), stride, start, a, b, Causal::Whole);
                        }
                        assert_eq!(c, wanted, "{size:?}, A in way {i}, B in way {j}");
                    }
                }
            }
        }
    }

    /// What the mask leaves is right, whatever stands elsewhere.
    #[test]
    fn causal_products_have_the_references_bits() {
        const T: usize = 11;
        let numbers: Vec<f32> = (1_u32..=121).map(|i| ((i * 331) % 97) as f32 / 31.0 - 1.5).collect();
        let mut weights = numbers.clone();
        for (i, row) in weights.chunks_mut(T).enumerate() {
            row[i + 1..].fill(0.0);
        }
        let (x, weights) = (Matrix::new(&numbers, T), Matrix::new(&weights, T));
        let cases = [
            (x, x.transposed(), Causal::Columns { first: 0 }),
            (weights, x, Causal::Inner { first: 0 }),
            (weights.transposed(), x, Causal::InnerTransposed { first: 0 }),
        ];
        for (a, b, causal) in cases {
            let size = Size { m: T, n: T, k: T };
            let (mut c, mut wanted) = ([0.0; T * T], [0.0; T * T]);
            reference(size, (&mut wanted, T), Start::Zero, a, b).unwrap();
            // SAFETY: the reference has checked the same sizes.
            unsafe {
                product(size, c.as_mut_ptr(), T, Start::Zero, a, b, causal);
            }
            for (i, (c, wanted)) in c.chunks(T).zip(wanted.chunks(T)).enumerate() {
                let columns = if let Causal::Columns { .. } = causal { i + 1 } else { T };
                assert_eq!(c[..columns], wanted[..columns], "row {i}");
            }
        }
    }
}
