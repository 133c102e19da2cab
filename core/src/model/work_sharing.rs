//! Work-sharing passes: all workers take part in every operation, and share its rows, or the columns of a product.
//! The model is written once, for one worker and for several.

use core::ops::Range;

use crate::fault;
use crate::layout::{Affine, GroupParameters, Order, Part, Shape, Site};
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

    /// The same, divided into `units` of `rows` rows each.
    #[inline]
    pub(super) fn cut<const N: usize>(
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

    /// `y = x W + b`, with `x [R, k]` and `y [R, n]`, whose rows may be parts of longer ones.
    pub fn linear(&mut self, y: PerUnit<'_>, x: &[f32], affine: Affine<'_>, [k, n]: [usize; 2]) {
        let Affine { bias, .. } = affine;
        let start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let size = Size { m: self.shape.rows(), n, k };
        self.product(y, size, start, Matrix::new(x, k), affine.matrix([k, n]));
    }

    /// `d_x = start + d_y W^T`, with `d_y [R, n]` and `d_x [R, k]`.
    pub fn linear_backward(
        &mut self,
        d_x: &mut [f32],
        start: Start<'_>,
        d_y: Matrix<'_>,
        affine: Affine<'_>,
        [k, n]: [usize; 2],
    ) {
        let size = Size { m: self.shape.rows(), n: k, k: n };
        self.product((d_x, k), size, start, d_y, affine.matrix([k, n]).transposed());
    }

    /// `y = x W + b`, with `x [R, k]` and `y [R, width]`, whose columns several sites write side by side.
    pub fn project(
        &mut self,
        (y, width): PerUnit<'_>,
        x: &[f32],
        parameters: &GroupParameters<'_>,
        mut sites: &[Site],
        k: usize,
    ) {
        let mut first = 0;
        while let Some(Part { affine, columns }) = parameters.part(&mut sites, first) {
            let y = y.get_mut(first..).unwrap_or_default();
            self.linear((y, width), x, affine, [k, columns.len()]);
            first = columns.end;
        }
    }

    /// `d_x = d_y W^T`, with `d_y [R, width]` and `d_x [R, k]`, of [`Workers::project`].
    pub fn project_backward(
        &mut self,
        d_x: &mut [f32],
        (d_y, width): (&[f32], usize),
        parameters: &GroupParameters<'_>,
        mut sites: &[Site],
        k: usize,
    ) {
        let mut first = 0;
        while let Some(Part { affine, columns }) = parameters.part(&mut sites, first) {
            let start = if first == 0 { Start::Zero } else { Start::Accumulate };
            let d_y = Matrix::new(d_y, width).from(0, first);
            self.linear_backward(d_x, start, d_y, affine, [k, columns.len()]);
            first = columns.end;
        }
    }
}

impl<'a> Affine<'a> {
    /// W `[k, n]`, in its order.
    pub fn matrix(&self, [k, n]: [usize; 2]) -> Matrix<'a> {
        match self.order {
            Order::InOut => Matrix::new(self.weight, n),
            Order::OutIn => Matrix::new(self.weight, k).transposed(),
        }
    }
}
