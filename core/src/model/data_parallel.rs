//! Data-parallel passes: each worker runs the whole pass on some of the sequences, in its own part of the workspace.
//! Workers synchronise at the loss. They add to the gradients in their order, like micro-batches, in a relay.

use core::{array, mem};

use super::gradients::{GradientRows, Source, shape};
use super::{Backward, Beginning, DropoutKey, Gradients, Pass, Stage, rows_of};
use crate::compact::soft_f64::SoftF64;
use crate::error::Error;
use crate::layout::{Group, InUse, Order, Plan, Shape, SiteTensors, Workspace, WorkspaceParts};
use crate::matmul::{self, Matrix, Size, matmul_in_turn};
use crate::parallel::{Compute, MOST_TURNS, Serial, Share, Turn, Units};

/// With more rows than this, it hardly matters that each worker packs far weights for itself.
const ROWS_WORTH_ONE_PACKING: usize = 512;
/// Multiply-adds of a piece of a gradient that are worth a turn of their own.
const LEAST_PIECE: usize = 1 << 18;
/// Pieces have whole register tiles.
const ROUND_ROWS: usize = 24;
const ROUND_COLUMNS: usize = 32;

impl Plan {
    /// Whether workers share the work of each operation instead of running the pass on their own sequences. They do
    /// if too many workers would have no sequence, or if packing the same weights in each worker costs more than
    /// frequent synchronisation.
    // Hidden: the measurements of products alone divide the work as a step does.
    #[doc(hidden)]
    pub fn shares_work(&self, Shape { sequences, length }: Shape, threads: usize) -> bool {
        let threads = threads.min(self.options.threads).max(1);
        let each = sequences.div_ceil(threads);
        let places = threads.saturating_mul(each);
        let idle = places.saturating_sub(sequences);
        let far = self.config.width * self.config.hidden > matmul::CLOSE;
        let few = each.saturating_mul(length) <= ROWS_WORTH_ONE_PACKING;
        threads > 1 && (far && few || idle.saturating_mul(5) > places)
    }
}

impl Pass<'_> {
    /// The number of workers of a data-parallel pass; `None` if one worker or work-sharing is faster, or the plan
    /// needs it.
    pub(super) fn data_parallel_workers(&self) -> Option<usize> {
        let threads = self.compute.parallel.threads();
        if self.plan.options.fused
            || self.plan.options.chunks_head()
            || self.plan.shares_work(self.shape, threads)
        {
            return None;
        }
        let work = self.rows().saturating_mul(self.plan.parameters + self.plan.frozen);
        let most = self.plan.options.threads.min(MOST_TURNS);
        Some(self.compute.workers(self.shape.sequences, work, most)).filter(|workers| *workers > 1)
    }

    /// Forward and the sum of the losses. Then backward, if the sum is finite and gradients are requested.
    pub(super) fn data_parallel(
        &self,
        workers: usize,
        gradients: Option<(&mut [f32], Gradients)>,
        workspace: &mut [f32],
        targets: &[i32],
        counted: usize,
    ) -> Result<f64, Error> {
        let mut parts = self.parts(workspace, Beginning::Begins)?;
        self.each_worker(workers, &mut parts, &mut [], |pass, share, workspace, _| {
            pass.forward_trusted(workspace);
            let targets = rows_of(targets, &share.of(self.shape.sequences), self.shape.length);
            pass.losses(workspace, targets, counted, false);
        });
        let sum = SoftF64::sum_of(parts.losses.iter().copied()).get();
        let Some((gradients, mode)) = gradients.filter(|_| sum.is_finite()) else { return Ok(sum) };
        self.each_worker(workers, &mut parts, gradients, |pass, _, workspace, mut turn| {
            let mode = if turn.is_first() { mode } else { Gradients::Add };
            for stage in Stage::all(self.plan) {
                if let Stage::Backward(stage) = stage {
                    pass.backward_stage(stage, workspace);
                    pass.gradients_in_turn(stage, &mut turn, mode, workspace, workers);
                }
            }
        });
        Ok(sum)
    }

    /// Calls `task` for each worker, with a pass over its sequences and their workspace.
    fn each_worker(
        &self,
        workers: usize,
        WorkspaceParts { losses, rows, rotation, worker_scratch, .. }: &mut WorkspaceParts<'_>,
        gradients: &mut [f32],
        task: impl Fn(&Pass<'_>, Share, &mut Workspace<'_>, Turn<'_>) + Sync,
    ) {
        let Shape { sequences, length } = self.shape;
        let per_row = self.plan.per_row();
        let buffers = [Units::new(losses, sequences, length), Units::new(rows, sequences, length * per_row)];
        let (rotation, scratch) = (*rotation, self.scratch(worker_scratch));
        self.compute.relay(
            workers,
            &buffers,
            scratch,
            gradients,
            |share, [losses, rows], worker_scratch, turn| {
                let own = share.of(sequences);
                let first_sequence = self.sequence(own.start);
                let pass = Pass {
                    compute: Compute { simd: self.compute.simd, parallel: &Serial },
                    tokens: rows_of(self.tokens, &own, length),
                    shape: Shape { sequences: own.len(), length },
                    dropout: self.dropout.map(|key| DropoutKey { first_sequence, ..key }),
                    ..*self
                };
                let parts = WorkspaceParts { losses, rows, rotation, some_logits: &mut [], worker_scratch };
                task(&pass, share, &mut Workspace::cut(parts, self.plan, pass.shape), turn);
            },
        );
    }

    /// As [`Pass::gradients`], for one of several workers: adds to the gradients of the workers before it, the last
    /// tensors first. Large weights are divided into pieces, because the next worker waits for each piece.
    fn gradients_in_turn(
        &self,
        stage: Backward,
        turn: &mut Turn<'_>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
        workers: usize,
    ) {
        let Some(group) = stage.group() else { return };
        let (columns, mut pairs) = (self.plan.config.hidden, self.plan.pairs(group));
        let pairs: [Option<SiteTensors>; Group::MOST_TENSORS] = array::from_fn(|_| pairs.next());
        let sources = self.sources(stage, InUse::Activated, columns, &mut workspace.regions);
        let scratch = &mut *workspace.worker_scratch;
        for tensors in pairs.iter().rev().flatten() {
            let source = &self.source(&sources, tensors.site);
            let ([rows, columns], [of_bias, _]) = (shape(&tensors.weight), shape(&tensors.bias));
            let work = self.rows().saturating_mul(rows).saturating_mul(columns);
            let most = match *source {
                Source::Norm { .. } | Source::Sums { .. } | Source::Positions { .. } => 1,
                _ => 2 * workers,
            };
            let pieces = (work / LEAST_PIECE).min(most).max(1);
            if let Source::Product { x, from, d_y, first, width, to, order: Order::InOut } = *source
                && rows < columns
            {
                turn.last(of_bias, |bias| {
                    let rows = GradientRows { weight: &mut [], of_weight: 0..0, bias, of_bias: 0..of_bias };
                    self.gradient_rows(source, rows, mode, scratch);
                });
                let (x, d_y) = (Matrix::new(x, from).transposed(), Matrix::new(d_y, width).from(0, first));
                let size = Size { m: rows, n: to, k: self.rows() };
                let at_once = to.div_ceil(pieces).next_multiple_of(ROUND_COLUMNS);
                matmul_in_turn(self.compute.simd, size, turn, at_once, mode.start(), x, d_y, scratch);
                continue;
            }
            let most = rows.div_ceil(pieces).next_multiple_of(ROUND_ROWS);
            let (mut weight_rows, mut bias_rows) = (0..rows, 0..of_bias);
            while !(weight_rows.is_empty() && bias_rows.is_empty()) {
                let of_weight = weight_rows.end.saturating_sub(most)..weight_rows.end;
                let of_bias = mem::take(&mut bias_rows);
                weight_rows.end = of_weight.start;
                let of_weight_len = of_weight.len() * columns;
                turn.last(of_weight_len + of_bias.len(), |gradient| {
                    let (weight, bias) = gradient.split_at_mut_checked(of_weight_len).unwrap_or_default();
                    let rows = GradientRows { weight, of_weight, bias, of_bias };
                    self.gradient_rows(source, rows, mode, scratch);
                });
            }
        }
    }
}
