//! Workers that go through a whole pass apart from each other: each takes some of the sequences, in a part of the workspace
//! of its own, as if they were all. They meet at the loss, and add to the gradients one behind the other, as micro-batches
//! do.

use core::mem;

use super::gradients::Source;
use super::{Backward, DropoutKey, Gradients, Part, Pass, Stage, part};
use crate::compact::soft_f64::SoftF64;
use crate::error::Error;
use crate::layout::{Regions, Shape, Workspace};
use crate::matmul::{Matrix, Size, matmul_in_turn};
use crate::parallel::{Compute, MOST_TURNS, Serial, Share, Turn, Units};

impl Pass<'_> {
    /// Forward, the sum of the losses, and backward where there are gradients to be made: unless all workers go together, and
    /// nothing is done.
    pub(super) fn data_parallel(
        &self,
        gradients: Option<(&mut [f32], Gradients)>,
        workspace: &mut [f32],
        targets: &[i32],
        counted: usize,
    ) -> Result<Option<f64>, Error> {
        let workers = self.data_parallel_workers();
        if workers == 1 {
            return Ok(None);
        }
        let mut regions = self.regions(workspace)?;
        self.each_worker(workers, &mut regions, &mut [], |pass, share, workspace, _| {
            pass.forward_trusted(workspace);
            let targets = part(targets, &share.of(self.shape.sequences), self.shape.length);
            pass.losses(workspace, targets, counted);
        });
        let sum = SoftF64::sum_of(regions.losses.iter().copied()).get();
        let Some((gradients, mode)) = gradients.filter(|_| sum.is_finite()) else { return Ok(Some(sum)) };
        self.each_worker(workers, &mut regions, gradients, |pass, _, workspace, mut turn| {
            let mode = if turn.is_first() { mode } else { Gradients::Add };
            for stage in Stage::all(self.plan) {
                if let Stage::Backward(stage) = stage {
                    pass.backward_stage(stage, &Part::whole(self.plan), workspace);
                    pass.gradients_in_turn(stage, &mut turn, mode, workspace, workers);
                }
            }
        });
        Ok(Some(sum))
    }

    fn data_parallel_workers(&self) -> usize {
        let threads = self.compute.parallel.threads();
        if self.plan.options.fused || self.plan.shares_work(self.shape, threads) {
            return 1;
        }
        let work = self.rows().saturating_mul(self.plan.parameters + self.plan.frozen);
        self.compute.workers(self.shape.sequences, work, self.plan.options.threads.min(MOST_TURNS))
    }

    /// Calls `task` for each worker, with a pass of its sequences and their workspace.
    fn each_worker(
        &self,
        workers: usize,
        Regions { losses, rows, scratch }: &mut Regions<'_>,
        gradients: &mut [f32],
        task: impl Fn(&Pass<'_>, Share, &mut Workspace<'_>, Turn<'_>) + Sync,
    ) {
        let Shape { sequences, length } = self.shape;
        let per_row = self.plan.per_row();
        let buffers = [Units::new(losses, sequences, length), Units::new(rows, sequences, length * per_row)];
        let scratch = self.scratch(scratch);
        self.compute.relay(workers, &buffers, scratch, gradients, |share, [losses, rows], scratch, turn| {
            let own = share.of(sequences);
            let first_sequence = self.sequence(own.start);
            let pass = Pass {
                compute: Compute { simd: self.compute.simd, parallel: &Serial },
                tokens: part(self.tokens, &own, length),
                shape: Shape { sequences: own.len(), length },
                dropout: self.dropout.map(|key| DropoutKey { first_sequence, ..key }),
                ..*self
            };
            let mut workspace = Workspace::cut(Regions { losses, rows, scratch }, self.plan, pass.shape);
            task(&pass, share, &mut workspace, turn);
        });
    }

    /// As [`Pass::gradients`], for a worker that goes apart from others: added to what those before it have left, the last
    /// tensors first. Weights go in pieces, since the worker behind is late by the largest.
    fn gradients_in_turn(
        &self,
        stage: Backward,
        turn: &mut Turn<'_>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
        workers: usize,
    ) {
        let Some(group) = stage.group() else { return };
        let tensors = self.plan.group(group).map(|tensor| tensor.filter(|tensor| !tensor.frozen));
        let (sources, scratch) = self.sources(stage, &Part::whole(self.plan), workspace);
        let shape =
            |place: usize| tensors.get(place).copied().flatten().map_or([0, 0], |tensor| tensor.shape);
        for place in [4, 2, 0] {
            let Some(source) = sources.get(place / 2) else { continue };
            let ([rows, columns], [of_second, per_second]) = (shape(place), shape(place + 1));
            let work = self.rows().saturating_mul(rows).saturating_mul(columns);
            let most = if let Source::Norm { .. } = source { 1 } else { 2 * workers };
            let pieces = (work / LEAST_PIECE).min(most).max(1);
            match *source {
                Source::Affine { x, from, d_y, to } if rows < columns => {
                    turn.last(of_second * per_second, |bias| {
                        self.gradient_rows(*source, [&mut [], bias], [0..0, 0..of_second], mode, scratch);
                    });
                    let (x, d_y) = (Matrix::new(x, from).transposed(), Matrix::new(d_y, to));
                    let size = Size { m: rows, n: to, k: self.rows() };
                    let at_once = to.div_ceil(pieces).next_multiple_of(ROUND_COLUMNS);
                    matmul_in_turn(self.compute.simd, size, turn, at_once, mode.start(), x, d_y, scratch);
                }
                _ => {
                    let most = rows.div_ceil(pieces).next_multiple_of(ROUND_ROWS);
                    let (mut first, mut second) = (0..rows, 0..of_second);
                    while !(first.is_empty() && second.is_empty()) {
                        let of_first = first.end.saturating_sub(most)..first.end;
                        let of_second = mem::take(&mut second);
                        first.end = of_first.start;
                        let first_len = of_first.len() * columns;
                        turn.last(first_len + of_second.len() * per_second, |gradient| {
                            let pair = gradient.split_at_mut_checked(first_len).unwrap_or_default();
                            self.gradient_rows(*source, pair.into(), [of_first, of_second], mode, scratch);
                        });
                    }
                }
            }
        }
    }
}

/// Multiply-adds of a piece of a gradient that are worth a turn of their own.
const LEAST_PIECE: usize = 1 << 18;
/// Pieces have whole tiles.
const ROUND_ROWS: usize = 24;
const ROUND_COLUMNS: usize = 32;
