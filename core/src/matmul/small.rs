//! The product on machines without vectors: strips of tiles, four rows by four columns each. Nothing is packed: a
//! tile reads both operands where they lie.

use core::ops::Range;

use super::{Causal, Matrix, Size, Start};
use crate::simd::scalar::{kernel, mul_add};
use crate::simd::tile::{Form, Kernel, Lines, SIDE, Strip};

/// One operand of tiles: the rows of A or the columns of B, its lines.
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
    /// `None` where neither way is contiguous.
    #[inline(always)]
    fn new(data: &[f32], stride: usize, step: usize, count: usize) -> Option<Side> {
        let form = match (step, stride) {
            (1, _) => Form::Along,
            (_, 1) => Form::Across,
            _ => return None,
        };
        Some(Side { data: data.as_ptr(), form, stride, step, count })
    }

    /// The first of the four lines that a tile computes for the lines from `line` on: at the end it reaches back.
    #[inline(always)]
    fn first(self, line: usize) -> usize {
        line.min(self.count.saturating_sub(SIDE))
    }

    /// The four lines from `first` on, without the first `skip` steps.
    #[inline(always)]
    fn lines(self, first: usize, skip: usize) -> Lines {
        let one = self.data.wrapping_add(first * self.stride + skip * self.step);
        let two = one.wrapping_add(self.stride);
        let three = two.wrapping_add(self.stride);
        Lines { line: [one, two, three, three.wrapping_add(self.stride)], step: self.step }
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
            && n >= SIDE
            && (m >= SIDE || rows.form == Form::Along)
        {
            let again = !matches!(start, Start::Accumulate);
            let (start, start_row, start_next) = match start {
                Start::Zero => (ZEROS.as_ptr(), 0, 0),
                Start::Bias(bias) => (bias.as_ptr(), 0, SIDE),
                Start::Accumulate => (c.cast_const(), c_stride, SIDE),
            };
            let tiles = Tiles {
                kernel,
                k,
                start,
                start_row,
                start_next,
                again,
                c,
                c_row: c_stride,
                rows,
                columns,
                causal,
            };
            if m >= SIDE {
                tiles.compute();
            } else {
                for row in 0..m {
                    tiles.row(row).compute();
                }
            }
        } else {
            elements(size, (c, c_stride), start, a, b);
        }
    }
}

const ZEROS: [f32; SIDE] = [0.0; SIDE];

/// A product of tiles.
#[derive(Clone, Copy)]
struct Tiles {
    kernel: Kernel,
    k: usize,
    start: *const f32,
    start_row: usize,
    start_next: usize,
    /// Whether elements of C may be computed twice: it is not accumulated onto.
    again: bool,
    c: *mut f32,
    c_row: usize,
    rows: Side,
    columns: Side,
    causal: Causal,
}

impl Tiles {
    /// One row as a product of its own, which goes through as four times itself.
    fn row(self, row: usize) -> Self {
        Tiles {
            start: self.start.wrapping_add(row * self.start_row),
            start_row: 0,
            c: self.c.wrapping_add(row * self.c_row),
            c_row: 0,
            rows: Side {
                data: self.rows.data.wrapping_add(row * self.rows.stride),
                stride: 0,
                count: 1,
                ..self.rows
            },
            causal: self.causal.from(row),
            ..self
        }
    }

    /// What is left beside whole tiles is computed by tiles that reach back; accumulated onto, they keep of C what
    /// they reach back over.
    ///
    /// # Safety
    /// As for [`product`], whose operands `rows` and `columns` are.
    unsafe fn compute(self) {
        let Tiles { kernel, again, rows, columns, .. } = self;
        for row in (0..rows.count).step_by(SIDE) {
            let (first_row, below) = (rows.first(row), rows.count.min(row + SIDE));
            let steps = self.causal.steps(first_row..below, 0, 0..self.k).unwrap_or_default();
            let width = self.causal.columns(below, columns.count);
            let whole =
                if again || first_row == row { width.div_ceil(SIDE).min(columns.count / SIDE) } else { 0 };
            // SAFETY: the strip's rows and columns are within C, or those that an edge wants.
            unsafe {
                if whole > 0 {
                    kernel(&self.strip(first_row, 0, &steps, whole));
                }
                for column in (whole * SIDE..width).step_by(SIDE) {
                    let first_column = columns.first(column);
                    let mut tile = self.strip(first_row, first_column, &steps, 1);
                    if again {
                        kernel(&tile);
                    } else {
                        let after = columns.count.min(column + SIDE);
                        let wanted = column - first_column..after - first_column;
                        edge(kernel, &mut tile, row - first_row..below - first_row, wanted);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn strip(&self, row: usize, column: usize, steps: &Range<usize>, tiles: usize) -> Strip {
        let k = steps.end - steps.start;
        let b = self.columns.lines(column, steps.start);
        Strip {
            a: self.rows.lines(row, steps.start),
            b_next: (SIDE * self.columns.stride).wrapping_sub(k * b.step),
            b,
            k,
            start: self.start.wrapping_add(row * self.start_row + column * (self.start_next / SIDE)),
            start_row: self.start_row,
            start_next: self.start_next,
            c: self.c.wrapping_add(row * self.c_row + column),
            c_row: self.c_row,
            tiles,
        }
    }
}

/// One tile, of which some rows and columns are wanted, and perhaps no others within C.
///
/// # Safety
/// As for [`product`].
#[inline(never)]
unsafe fn edge(kernel: Kernel, tile: &mut Strip, rows: Range<usize>, columns: Range<usize>) {
    let mut sums = [[0.0; SIDE]; SIDE];
    let (c, c_row) = (tile.c, tile.c_row);
    // SAFETY: the elements are those that the caller vouches for; the kernel's are those of `sums`.
    unsafe {
        for (i, row) in sums.iter_mut().enumerate().take(rows.end).skip(rows.start) {
            for (j, sum) in row.iter_mut().enumerate().take(columns.end).skip(columns.start) {
                *sum = *tile.start.add(i * tile.start_row + j);
            }
        }
        let all = sums.as_mut_ptr().cast::<f32>();
        (tile.start, tile.start_row, tile.c, tile.c_row) = (all, SIDE, all, SIDE);
        kernel(tile);
        for (i, row) in sums.iter().enumerate().take(rows.end).skip(rows.start) {
            for (j, sum) in row.iter().enumerate().take(columns.end).skip(columns.start) {
                *c.add(i * c_row + j) = *sum;
            }
        }
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
        for count in [1, 2, 3, 5, T] {
            let first = T - count;
            let (rows, weights) = (x.from(first, 0), weights.from(first, 0));
            let size = Size { m: count, n: T, k: T };
            let cases = [
                (size, rows, x.transposed(), Causal::Columns { first }),
                (size, weights, x, Causal::Inner { first }),
                (Size { m: T, n: T, k: count }, weights.transposed(), x, Causal::InnerTransposed { first }),
            ];
            for (size, a, b, causal) in cases {
                for start in [Start::Zero, Start::Accumulate] {
                    let (mut c, mut wanted) = ([0.5; T * T], [0.5; T * T]);
                    reference(size, (&mut wanted, T), start, a, b).unwrap();
                    // SAFETY: the reference has checked the same sizes.
                    unsafe { product(size, c.as_mut_ptr(), T, start, a, b, causal) };
                    for (i, (c, wanted)) in c.chunks(T).zip(wanted.chunks(T)).enumerate() {
                        let columns =
                            if let Causal::Columns { .. } = causal { T.min(first + i + 1) } else { T };
                        assert_eq!(c[..columns], wanted[..columns], "{count} rows, row {i}");
                    }
                }
            }
        }
    }
}
