//! Work-sharing passes: all workers take part in every operation, and share its rows, or the columns of a product.
//! The model is written once, for one worker and for several.

use core::ops::Range;

use crate::fault;
use crate::layout::{Affine, Order, Shape};
use crate::matmul::{Matrix, Size, Start, matmul_parallel, matmul_trusted};
use crate::parallel::{Compute, ELEMENTWISE, PerUnit, Units};
use crate::target::Target;

/// The workers of a pass over rows of this shape. In a product each computes some columns, so that it packs only a
/// part of a weight.
pub(crate) struct Workers<'a> {
    pub compute: Compute<'a>,
    pub shape: Shape,
    /// Each worker's scratch.
    pub scratch: PerUnit<'a>,
}

impl Workers<'_> {
    fn is_one(&self) -> bool {
        matches!(Target::HERE, Target::Portable) || self.compute.parallel.threads() == 1
    }

    /// An operation on `elements` elements, divided by row. `task` gets some rows, and their part of each buffer,
    /// which is given with its number of columns.
    pub fn by_row<const N: usize>(
        &mut self,
        elements: usize,
        buffers: [(&mut [f32], usize); N],
        task: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync,
    ) {
        self.cut((self.shape.rows(), 1), elements, buffers, |rows, buffers, _| task(rows, buffers));
    }

    /// The same, divided by sequence, and with the worker's scratch.
    pub fn by_sequence<const N: usize>(
        &mut self,
        elements: usize,
        buffers: [(&mut [f32], usize); N],
        task: impl Fn(Range<usize>, [&mut [f32]; N], &mut [f32]) + Sync,
    ) {
        self.cut((self.shape.sequences, self.shape.length), elements, buffers, task);
    }

    #[inline]
    fn cut<const N: usize>(
        &mut self,
        (units, rows): (usize, usize),
        elements: usize,
        buffers: [(&mut [f32], usize); N],
        task: impl Fn(Range<usize>, [&mut [f32]; N], &mut [f32]) + Sync,
    ) {
        let is_one = self.is_one();
        let (scratch, each) = &mut self.scratch;
        if is_one {
            return task(0..units, buffers.map(|(buffer, _)| buffer), scratch);
        }
        let mut buffers = buffers.map(|(buffer, columns)| Units::rows(buffer, columns));
        Units::cut_rows(&mut buffers, units, rows);
        let work = elements.saturating_mul(ELEMENTWISE);
        self.compute.split(work, &buffers, (scratch, *each), |share, buffers, scratch| {
            task(share.of(units), buffers, scratch);
        });
    }

    /// A product of all rows.
    pub fn product(&mut self, c: PerUnit<'_>, size: Size, start: Start<'_>, a: Matrix<'_>, b: Matrix<'_>) {
        let is_one = self.is_one();
        let (scratch, each) = &mut self.scratch;
        if is_one {
            return matmul_trusted(self.compute.simd, size, c, start, a, b, scratch);
        }
        let result = matmul_parallel(self.compute, size, c, start, a, b, (scratch, *each));
        if result.is_err() {
            fault::report(&"matmul of several workers");
        }
    }

    /// `y = x W + b`, with `x [R, k]` and `y [R, n]`.
    pub fn linear(&mut self, y: &mut [f32], x: &[f32], affine: Affine<'_>, [k, n]: [usize; 2]) {
        let Affine { bias, .. } = affine;
        let start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let size = Size { m: self.shape.rows(), n, k };
        self.product((y, n), size, start, Matrix::new(x, k), matrix(affine, [k, n]));
    }

    /// `d_x = d_y W^T`, with `d_y [R, n]` and `d_x [R, k]`.
    pub fn linear_backward(&mut self, d_x: &mut [f32], d_y: &[f32], affine: Affine<'_>, [k, n]: [usize; 2]) {
        let size = Size { m: self.shape.rows(), n: k, k: n };
        let transposed = matrix(affine, [k, n]).transposed();
        self.product((d_x, k), size, Start::Zero, Matrix::new(d_y, n), transposed);
    }
}

/// W `[k, n]`, in its order.
fn matrix(affine: Affine<'_>, [k, n]: [usize; 2]) -> Matrix<'_> {
    match affine.order {
        Order::InOut => Matrix::new(affine.weight, n),
        Order::OutIn => Matrix::new(affine.weight, k).transposed(),
    }
}
