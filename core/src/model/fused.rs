//! The fused optimizer step: backward updates parameters as soon as it has their gradients, which then need memory
//! for some rows of one tensor only. All differences of a fused step are in this file and in the list of regions.
//!
//! A stage of backward first computes the gradients of activations, which needs the stage's parameters. Then it
//! computes the gradients of the parameters, some rows at a time. These depend on activations alone, so each may
//! change its tensor at once. The MLP's branch iterates over columns of the hidden width, because only some of them
//! exist at a time. Each part updates its rows of the second weight. The head updates its matrix before the final
//! norm's backward pass.

use core::ops::Range;

use super::gradients::{GradientRows, Source, trained};
use super::{Backward, Gradients, Inputs, Pass, TrainingPass};
use crate::compact::soft_f64::SoftF64;
use crate::config::Module;
use crate::layout::{InUse, Site, Tensor, Workspace};
use crate::optimizer::{Rules, squares_of_rows};
use crate::parallel::Units;
use crate::simd::tile::SIDE;

/// A tensor, by its number, whose gradient is not finite.
pub(super) struct NotFinite {
    pub tensor: usize,
}

impl TrainingPass<'_> {
    /// A stage of backward, after those before it, with the update of its parameters.
    #[inline(never)]
    pub(super) fn backward_and_update(
        &mut self,
        stage: Backward,
        rules: &Rules,
        workspace: &mut Workspace<'_>,
    ) -> Result<(), NotFinite> {
        match stage {
            Backward::Logits => {
                self.pass().logits_backward(workspace);
                self.update(stage, InUse::Activated, 0..self.inputs.plan.config.vocab, rules, workspace)?;
                // The norm's output is not needed any more, so its gradient may now use the same memory.
                let view = workspace.regions.head(InUse::Normed);
                if let Some(d_normed) = view.d_normed.get_mut(..view.d_residual.len()) {
                    d_normed.copy_from_slice(view.d_residual);
                }
                self.pass().final_norm_backward(workspace);
            }
            Backward::Mlp { layer } => {
                self.pass().mlp_backward_residual(layer, workspace);
                let (hidden, at_once) =
                    (self.inputs.plan.config.hidden, self.inputs.plan.hidden_columns().max(1));
                let mut first = 0;
                while first < hidden {
                    let columns = first..hidden.min(first + at_once);
                    first = columns.end;
                    self.pass().mlp_backward_columns(layer, &columns, workspace);
                    self.update(stage, InUse::Activated, columns, rules, workspace)?;
                }
                self.pass().mlp_backward_input(layer, workspace);
            }
            _ => self.pass().backward_stage(stage, workspace),
        }
        self.update(stage, InUse::Normed, 0..0, rules, workspace)
    }

    /// Updates the parameters of a stage whose gradients depend on the region in use. `Activated`: the rows `early`
    /// of the MLP's second weight or of the head. `Normed`: all other parameters.
    #[inline(never)]
    fn update(
        &mut self,
        stage: Backward,
        in_use: InUse,
        early: Range<usize>,
        rules: &Rules,
        workspace: &mut Workspace<'_>,
    ) -> Result<(), NotFinite> {
        let plan = self.inputs.plan;
        let Some(group) = stage.group() else { return Ok(()) };
        let sources = self.pass().sources(stage, in_use, early.len(), &mut workspace.regions);
        let scratch = &mut *workspace.worker_scratch;
        for tensors in plan.pairs(group) {
            let source = &self.pass().source(&sources, tensors.site);
            let is_early = matches!(
                tensors.site,
                Site::MlpOut | Site::Logits | Site::A(Module::MlpOut) | Site::B(Module::MlpOut)
            );
            let is_last = matches!(in_use, InUse::Normed);
            if is_early != is_last
                && let Some(weight) = trained(&tensors.weight)
            {
                // The rows of a GPT-2's MlpOut are those of the columns that are ready.
                let is_part = matches!(tensors.site, Site::MlpOut if plan.config.is_gpt2())
                    || tensors.site == Site::Logits;
                let rows = if is_part { early.clone() } else { 0..weight.shape[0] };
                self.update_tensor(weight, false, rows, source, rules, scratch)?;
            }
            if is_last && let Some(bias) = trained(&tensors.bias) {
                self.update_tensor(bias, true, 0..bias.shape[0], source, rules, scratch)?;
            }
        }
        Ok(())
    }

    /// Computes a tensor's gradient and updates the tensor, as many rows at a time as the tile holds. It covers all
    /// rows, or the rows of the source.
    #[inline(never)]
    fn update_tensor(
        &mut self,
        tensor: &Tensor,
        is_bias: bool,
        rows: Range<usize>,
        source: &Source<'_>,
        rules: &Rules,
        worker_scratch: &mut [f32],
    ) -> Result<(), NotFinite> {
        let TrainingPass { inputs, parameters, gradients: tile, optimizer, squares, .. } = self;
        let Inputs { compute, plan, .. } = *inputs;
        let columns = tensor.shape[1];
        let most = tile.len().checked_div(columns).unwrap_or(0).max(1);
        // Whole register tiles, which matters on portable targets, where parts are that small.
        let whole = most - most % SIDE;
        let most = if whole > 0 { whole } else { most };
        let mut first = rows.start;
        while first < rows.end {
            let count = most.min(rows.end - first);
            let gradient = tile.get_mut(..count * columns).unwrap_or_default();
            let before = first - rows.start;
            inputs.pass(parameters).gradient_tile(
                source,
                gradient,
                is_bias,
                before..before + count,
                worker_scratch,
            );
            let of_tile = squares_of_rows(compute.simd, gradient, tensor.row_len());
            **squares = (SoftF64::new(**squares) + of_tile).get();
            if !squares.is_finite() {
                let number = plan.tensors().position(|other| other.name == tensor.name).unwrap_or(0);
                return Err(NotFinite { tensor: number });
            }
            let place = tensor.offset + first * columns;
            let elements = place..place + count * columns;
            rules.update(compute, plan, Some(tensor), parameters, gradient, optimizer, elements);
            first += count;
        }
        Ok(())
    }
}

impl Pass<'_> {
    /// Some rows of the gradient of a site's weight or bias, shared among the workers.
    fn gradient_tile(
        &self,
        source: &Source<'_>,
        gradient: &mut [f32],
        is_bias: bool,
        rows: Range<usize>,
        worker_scratch: &mut [f32],
    ) {
        let count = rows.len();
        let columns = gradient.len().checked_div(count).unwrap_or(0);
        let (work, buffer) = (self.work(source, [count, columns]), Units::new(gradient, count, columns));
        self.compute.split(work, &[buffer], self.scratch(worker_scratch), |share, [gradient], scratch| {
            let share = share.of(count);
            let range = rows.start + share.start..rows.start + share.end;
            let rows = match is_bias {
                false => GradientRows { weight: gradient, of_weight: range, bias: &mut [], of_bias: 0..0 },
                true => GradientRows { weight: &mut [], of_weight: 0..0, bias: gradient, of_bias: range },
            };
            self.gradient_rows(source, rows, Gradients::Overwrite, scratch);
        });
    }
}
