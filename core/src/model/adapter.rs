//! Low-rank adapters: after a product `y = x W`, `y += t B^T` with `t = scale (dropout(x) A^T)`. A worker applies dropout to
//! some rows at a time, in its scratch, so that neither masks nor dropped inputs are kept.

use core::ops::Range;

use super::gradients::{Source, Sources};
use super::{Gradients, Pass, Workers, rows_in, rows_of};
use crate::config::{LowRank, Module};
use crate::layout::{Cut, GroupParameters, Order, Site, dropped_rows};
use crate::matmul::{Matrix, Size, Start, matmul_trusted};
use crate::ops::dropout::{self, Mask};
use crate::parallel::PerUnit;
use crate::rng::Stream;
use crate::simd::{self, processor};
use crate::target::Target;

/// A function of some rows, their mask, and their memory and other scratch.
type OnDropped<'f> = dyn FnMut(Range<usize>, Mask, &mut [f32], &mut [f32]) + 'f;

/// The adapter of a matrix `[in, out]` in one block.
#[derive(Clone, Copy)]
pub(super) struct Adapter<'a> {
    module: Module,
    layer: usize,
    /// A `[r, in]` and B `[out, r]`.
    matrices: [&'a [f32]; 2],
    rank: usize,
    sides: [usize; 2],
}

impl<'a> Adapter<'a> {
    /// A `[r, in]`, as the right factor of a product.
    fn a(&self) -> Matrix<'a> {
        Matrix::new(self.matrices[0], self.sides[0])
    }

    /// B `[out, r]`, as the right factor of a product.
    fn b(&self) -> Matrix<'a> {
        Matrix::new(self.matrices[1], self.rank)
    }
}

impl Pass<'_> {
    /// The adapter of a module, if it has one.
    pub(super) fn adapter<'a>(
        &self,
        module: Module,
        layer: usize,
        parameters: &GroupParameters<'a>,
    ) -> Option<Adapter<'a>> {
        let config = &self.plan.config;
        let rank = config.lora().rank(module);
        if rank == 0 {
            return None;
        }
        let (matrices, sides) = (parameters.adapter(module), config.sides(module));
        Some(Adapter { module, layer, matrices, rank, sides })
    }

    /// The places of an adapter's t and of the gradient of `x A^T`, each `[R, r]`, in the region of its branch.
    fn low_rank(&self, module: Module) -> [Range<usize>; 2] {
        let lora = self.plan.config.lora();
        let (first, len) = (2 * self.rows() * lora.ranks_before(module), self.rows() * lora.rank(module));
        [first..first + len, first + len..first + 2 * len]
    }

    /// Calls `f` with the adapters of sites whose outputs lie side by side, and the first column of each.
    fn each_adapter(
        &self,
        sites: &[Site],
        layer: usize,
        parameters: &GroupParameters<'_>,
        f: &mut dyn FnMut(&Adapter<'_>, usize),
    ) {
        if self.plan.config.lora().is_none() {
            return;
        }
        let mut first = 0;
        for module in sites.iter().filter_map(|site| site.module()) {
            if let Some(adapter) = self.adapter(module, layer, parameters) {
                f(&adapter, first);
            }
            let [_, outputs] = self.plan.config.sides(module);
            first += outputs;
        }
    }

    /// Adds the adapters of sites to their outputs, side by side in y `[R, width]`. Keeps t of each in `low_rank`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn adapt(
        &self,
        workers: &mut Workers<'_>,
        layer: usize,
        parameters: &GroupParameters<'_>,
        sites: &[Site],
        (y, width): PerUnit<'_>,
        x: &[f32],
        low_rank: &mut [f32],
    ) {
        self.each_adapter(sites, layer, parameters, &mut |adapter, first| {
            let t = self.adapter_input(workers, adapter, x, low_rank);
            let (size, y) =
                (Size { m: self.rows(), n: adapter.sides[1], k: adapter.rank }, y.get_mut(first..));
            let b = adapter.b().transposed();
            workers.product((y.unwrap_or_default(), width), size, Start::Accumulate, t, b);
        });
    }

    /// `t = scale (dropout(x) A^T)`, from x `[R, in]`.
    pub(super) fn adapter_input<'t>(
        &self,
        workers: &mut Workers<'_>,
        adapter: &Adapter<'_>,
        x: &[f32],
        low_rank: &'t mut [f32],
    ) -> Matrix<'t> {
        let ([k, _], r, simd) = (adapter.sides, adapter.rank, self.compute.simd);
        let ([here, _], a) = (self.low_rank(adapter.module), adapter.a().transposed());
        let t = low_rank.get_mut(here).unwrap_or_default();
        match self.adapter_mask(adapter.module, adapter.layer) {
            None => {
                let size = Size { m: self.rows(), n: r, k };
                workers.product((&mut *t, r), size, Start::Zero, Matrix::new(x, k), a);
            }
            Some(mask) => workers.cut((self.rows(), 1), x.len(), [(&mut *t, r)], |rows, [mut t], scratch| {
                self.each_dropped(rows, k, mask, scratch, &mut |rows, mask, dropped, scratch| {
                    dropout::write(simd, dropped, rows_of(x, &rows, k), k, Some(mask));
                    let t = (t.cut(rows.len() * r), r);
                    let size = Size { m: rows.len(), n: r, k };
                    matmul_trusted(simd, size, t, Start::Zero, Matrix::new(dropped, k), a, scratch);
                });
            }),
        }
        self.scale_adapter(workers, adapter.module, t);
        Matrix::new(t, r)
    }

    /// Multiplies `[R, r]` by an adapter's scale.
    fn scale_adapter(&self, workers: &mut Workers<'_>, module: Module, x: &mut [f32]) {
        let lora = self.plan.config.lora();
        let LowRank { rank, alpha } = lora.of(module);
        let divisor = if lora.rslora { processor::sqrt(rank as f32) } else { rank as f32 };
        workers.by_row(x.len(), [(x, rank)], |_, [x]| simd::scale(self.compute.simd, x, alpha / divisor));
    }

    /// The backward pass of [`Pass::adapt`]: adds to d_x `[R, in]`, from d_y `[R, width]`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn adapt_backward(
        &self,
        workers: &mut Workers<'_>,
        layer: usize,
        parameters: &GroupParameters<'_>,
        sites: &[Site],
        d_x: &mut [f32],
        (d_y, width): (&[f32], usize),
        low_rank: &mut [f32],
    ) {
        self.each_adapter(sites, layer, parameters, &mut |adapter, first| {
            self.adapter_backward(workers, adapter, Matrix::new(d_y, width).from(0, first), low_rank);
            self.adapter_backward_input(workers, adapter, d_x, 0..adapter.sides[0], low_rank);
        });
    }

    /// The gradient of `x A^T`: `d = scale (d_y B)`.
    pub(super) fn adapter_backward(
        &self,
        workers: &mut Workers<'_>,
        adapter: &Adapter<'_>,
        d_y: Matrix<'_>,
        low_rank: &mut [f32],
    ) {
        let [_, here] = self.low_rank(adapter.module);
        let d = low_rank.get_mut(here).unwrap_or_default();
        let size = Size { m: self.rows(), n: adapter.rank, k: adapter.sides[1] };
        workers.product((&mut *d, adapter.rank), size, Start::Zero, d_y, adapter.b());
        self.scale_adapter(workers, adapter.module, d);
    }

    /// Adds `dropout(d A)` to some columns of the input's gradient, which d_x `[R, columns]` holds. With dropout they are all
    /// columns.
    pub(super) fn adapter_backward_input(
        &self,
        workers: &mut Workers<'_>,
        adapter: &Adapter<'_>,
        d_x: &mut [f32],
        columns: Range<usize>,
        low_rank: &[f32],
    ) {
        let ([_, here], r, simd) = (self.low_rank(adapter.module), adapter.rank, self.compute.simd);
        let (d, n) = (Matrix::new(low_rank.get(here).unwrap_or_default(), r), columns.len());
        let a = adapter.a().from(0, columns.start);
        let Some(mask) = self.adapter_mask(adapter.module, adapter.layer) else {
            let size = Size { m: self.rows(), n, k: r };
            return workers.product((d_x, n), size, Start::Accumulate, d, a);
        };
        workers.cut((self.rows(), 1), self.rows() * n, [(d_x, n)], |rows, [mut d_x], scratch| {
            self.each_dropped(rows, n, mask, scratch, &mut |rows, mask, product, scratch| {
                let (size, d) = (Size { m: rows.len(), n, k: r }, d.from(rows.start, 0));
                matmul_trusted(simd, size, (&mut *product, n), Start::Zero, d, a, scratch);
                dropout::add(simd, d_x.cut(product.len()), product, n, mask);
            });
        });
    }

    /// The source of the gradient of an adapter's matrix, from the source of the gradient of W.
    pub(super) fn adapter_source<'a>(&self, sources: &Sources<'a>, site: Site) -> Source<'a> {
        let (Site::A(module) | Site::B(module)) = site else { return Source::None };
        let Source::Product { x, from, d_y, first, width, to, .. } = sources.of(Site::of(module)) else {
            return Source::None;
        };
        let (low_rank, layer) = sources.adapters();
        let [t, d] = self.low_rank(module).map(|here| low_rank.get(here).unwrap_or_default());
        let (r, order) = (self.plan.config.lora().rank(module), Order::OutIn);
        match site {
            Site::B(_) => Source::Product { x: t, from: r, d_y, first, width, to, order },
            _ if self.adapter_drops(module) => Source::Dropped { x, from, d_y: d, to: r, module, layer },
            _ => Source::Product { x, from, d_y: d, first: 0, width: r, to: r, order },
        }
    }

    /// Some rows of the gradient of A: `d^T dropout(x)`, from x `[R, in]` and d `[R, r]`.
    pub(super) fn dropped_gradient(
        &self,
        (weight, of_weight): (&mut [f32], Range<usize>),
        mode: Gradients,
        (x, n): (&[f32], usize),
        d: Matrix<'_>,
        mask: Option<Mask>,
        scratch: &mut [f32],
    ) {
        let (simd, left, m) = (self.compute.simd, d.from(0, of_weight.start), of_weight.len());
        let mut product = |rows: Range<usize>, x: &[f32], start, scratch: &mut [f32]| {
            let (size, left) = (Size { m, n, k: rows.len() }, left.from(rows.start, 0).transposed());
            matmul_trusted(simd, size, (&mut *weight, n), start, left, Matrix::new(x, n), scratch);
        };
        let Some(mask) = mask else { return product(0..self.rows(), x, mode.start(), scratch) };
        let mut start = mode.start();
        self.each_dropped(0..self.rows(), n, mask, scratch, &mut |rows, mask, dropped, scratch| {
            dropout::write(simd, dropped, rows_of(x, &rows, n), n, Some(mask));
            product(rows, dropped, start, scratch);
            start = Start::Accumulate;
        });
    }

    /// The mask of the input of an adapter's A.
    pub(super) fn adapter_mask(&self, module: Module, layer: usize) -> Option<Mask> {
        let key = self.dropout.filter(|_| self.adapter_drops(module))?;
        let (rate, place) = (self.plan.config.lora().dropout, layer as u64 * 8 + module as u64);
        Mask::new(rate, key.seed, Stream::AdapterDropout, key.step, place).unwrap_or_default()
    }

    /// Calls `f` with some rows of one sequence at a time, their mask, as many rows of `columns` elements in the scratch, and
    /// the rest of the scratch.
    fn each_dropped(
        &self,
        rows: Range<usize>,
        columns: usize,
        mask: Mask,
        scratch: &mut [f32],
        f: &mut OnDropped<'_>,
    ) {
        let most = dropped_rows(Target::HERE);
        let (dropped, scratch) = scratch.split_at_mut_checked(most * columns).unwrap_or_default();
        let (length, mut row) = (self.shape.length, rows.start);
        while row < rows.end
            && let (Some(sequence), Some(position)) = (row.checked_div(length), row.checked_rem(length))
        {
            let count = most.min(length - position).min(rows.end - row);
            let (mask, dropped) =
                (mask.at(self.sequence(sequence)).from(position), rows_in(dropped, count, columns));
            f(row..row + count, mask, dropped, scratch);
            row += count;
        }
    }
}
