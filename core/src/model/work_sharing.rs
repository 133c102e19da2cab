//! Who takes rows through an operation. The model is written once, for a worker alone as for all together.

use core::ops::Range;

use crate::layout::Shape;
use crate::matmul::{Matrix, Size, Start, matmul_parallel, matmul_trusted};
use crate::parallel::{Compute, ELEMENTWISE, PerUnit, Units};
use crate::target::Target;

/// One worker, or all of them, who meet at every operation: they share out its rows, or, in a product, its columns, so that
/// each packs a part of a weight only.
pub(super) struct Workers<'a> {
    pub compute: Compute<'a>,
    pub shape: Shape,
    /// Each worker's scratch.
    pub scratch: PerUnit<'a>,
}

impl Workers<'_> {
    fn is_one(&self) -> bool {
        matches!(Target::HERE, Target::Portable) || self.compute.parallel.threads() == 1
    }

    /// An operation on so many elements, cut by row: `task` has some rows, and their part of each buffer, which has so many
    /// columns.
    pub fn by_row<const N: usize>(
        &mut self,
        elements: usize,
        buffers: [(&mut [f32], usize); N],
        task: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync,
    ) {
        self.cut((self.shape.rows(), 1), elements, buffers, |rows, buffers, _| task(rows, buffers));
    }

    /// An operation cut by sequence, likewise, with the worker's scratch.
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
        debug_assert_eq!(result, Ok(()));
    }

    /// `y = x W + b`, with W `[k, n]`.
    pub fn linear(&mut self, y: &mut [f32], x: &[f32], (weight, bias): (&[f32], &[f32]), [k, n]: [usize; 2]) {
        let start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let size = Size { m: self.shape.rows(), n, k };
        self.product((y, n), size, start, Matrix::new(x, k), Matrix::new(weight, n));
    }

    /// `d_x = d_y W^T`, likewise.
    pub fn linear_backward(&mut self, d_x: &mut [f32], d_y: &[f32], weight: &[f32], [k, n]: [usize; 2]) {
        let size = Size { m: self.shape.rows(), n: k, k: n };
        self.product((d_x, k), size, Start::Zero, Matrix::new(d_y, n), Matrix::new(weight, n).transposed());
    }
}
