//! A training pass as a sequence of stages. Between two of them everything lies in the workspace and the gradients,
//! so that a pass may stop after any of them and go on later.

use core::ops::Range;

use super::{Backward, Forward, Gradients, Loss, Part, Pass};
use crate::compact::soft_f64::SoftF64;
use crate::config::Config;
use crate::error::Error;
use crate::layout::{Frozen, Group, Plan, Workspace};
use crate::ops::cross_entropy;

/// A part of a training pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Towards the logits.
    Forward(Forward),
    /// The loss, and the logits' gradient in their place.
    Loss,
    /// Towards the gradients of parameters.
    Backward(Backward),
}

impl Stage {
    /// A whole training pass, as the plan has it, in its order: to the first tensor that is trained.
    pub fn all(plan: &Plan) -> impl Iterator<Item = Stage> {
        (0..).map_while(|number| Stage::at(plan, number))
    }

    /// The stage of that number, of a whole training pass.
    #[inline(never)]
    pub(crate) fn at(plan: &Plan, number: usize) -> Option<Stage> {
        let layers = plan.config.layers;
        if let Some(stage) = Forward::at(number, layers) {
            return Some(Stage::Forward(stage));
        }
        match number.checked_sub(layers + 3) {
            None => Some(Stage::Loss),
            Some(number) => Backward::at(number, plan).map(Stage::Backward),
        }
    }

    /// How many stages a training pass has.
    pub fn count(plan: &Plan) -> usize {
        Stage::all(plan).count()
    }
}

impl Plan {
    /// The multiply-adds of the largest stage of a pass over a full batch, R = B T rows: the greatest of
    /// R (4 C^2 + 2 C F + 2 T C) for a block forward, R (8 C^2 + 5 T C) and 4 R C F for its halves backward, and
    /// R V C for the head (2 R V C backward where it is not tied).
    pub const fn largest_stage(&self) -> usize {
        let config = &self.config;
        let (t, c, f, v) = (config.context, config.width, config.hidden, config.vocab);
        let heads = if config.tied { v } else { v.saturating_mul(2) };
        let block =
            c.saturating_mul(4).saturating_add(f.saturating_mul(2)).saturating_add(t.saturating_mul(2));
        let attention = c.saturating_mul(8).saturating_add(t.saturating_mul(5));
        let halves = max(attention, f.saturating_mul(4));
        let per_row = max(max(block, halves), heads).saturating_mul(c);
        per_row.saturating_mul(t).saturating_mul(self.options.batch)
    }

    /// The multiply-adds of a training pass over a full batch: R L (12 C^2 + 6 C F + 7 T C) + 3 R V C, as in
    /// [`Plan::largest_stage`], and what [`Plan::recomputed`] adds. Where tensors are frozen, less by R for each
    /// element of a frozen weight of a product, and by R (4 C^2 + 5 T C) and 2 R C F for each half of a block that
    /// backward does not reach.
    pub fn multiply_adds(&self) -> usize {
        let Config { vocab: v, context: t, width: c, hidden: f, layers, tied, .. } = self.config;
        let block =
            c.saturating_mul(12).saturating_add(f.saturating_mul(6)).saturating_add(t.saturating_mul(7));
        let attention = c.saturating_mul(4).saturating_add(t.saturating_mul(5));
        let both = attention.saturating_add(f.saturating_mul(2));
        let not_reached = match self.first_trained() {
            Some(Group::Head) => both.saturating_mul(layers),
            Some(Group::Mlp { layer }) => both.saturating_mul(layer).saturating_add(attention),
            Some(Group::Attention { layer }) => both.saturating_mul(layer),
            Some(Group::Embedding) | None => 0,
        };
        // No others can be.
        let frozen =
            self.tensors().take(Frozen::MOST).filter(|tensor| tensor.frozen && tensor.is_weight(tied));
        let per_row = block.saturating_mul(layers).saturating_add(v.saturating_mul(3));
        let per_row = per_row.saturating_sub(not_reached).saturating_mul(c);
        let per_row = per_row.saturating_sub(frozen.map(|tensor| tensor.len()).sum());
        let pass = per_row.saturating_mul(t).saturating_mul(self.options.batch);
        pass.saturating_add(self.recomputed())
    }

    /// The multiply-adds that [`crate::Options::recompute`] adds to a pass over a full batch: R (4 C^2 + C F + 2 T C)
    /// for each block of backward but the last; 0 without it.
    pub const fn recomputed(&self) -> usize {
        let Config { context: t, width: c, hidden: f, .. } = self.config;
        if !self.options.recompute {
            return 0;
        }
        let block = c.saturating_mul(4).saturating_add(f).saturating_add(t.saturating_mul(2));
        let pass = block.saturating_mul(c).saturating_mul(t).saturating_mul(self.options.batch);
        pass.saturating_mul(self.backward_layers().saturating_sub(1))
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

impl Pass<'_> {
    /// Some stages of a training pass, after those before them, of a plan that is not fused.
    pub(crate) fn stages(
        &self,
        stages: Range<usize>,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut [f32],
        targets: &[i32],
        counted: usize,
    ) -> Result<Loss, Error> {
        let mut loss = Loss { sum: 0.0, counted: self.check_targets(targets)? };
        // Between two calls everything lies where any number of workers finds it.
        if stages == (0..usize::MAX)
            && let Some(sum) = self.data_parallel(Some((gradients, mode)), workspace, targets, counted)?
        {
            loss.sum = finite(sum)?;
            return Ok(loss);
        }
        let mut workspace = self.check(workspace);
        let workspace = workspace.as_mut().map_err(|error| *error)?;
        for stage in stages.map_while(|number| Stage::at(self.plan, number)) {
            let sum = self.stage(stage, gradients, mode, workspace, targets, counted)?;
            loss = loss.plus(Loss { sum, counted: 0 });
        }
        Ok(loss)
    }

    /// A stage, after those before it, of a plan that is not fused where it is one of backward: the sum of the losses
    /// where it is the loss, 0 otherwise.
    #[inline(never)]
    pub(crate) fn stage(
        &self,
        stage: Stage,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut Workspace<'_>,
        targets: &[i32],
        counted: usize,
    ) -> Result<f64, Error> {
        match stage {
            Stage::Forward(stage) => self.forward_stage(stage, workspace),
            Stage::Loss => return finite(self.losses(workspace, targets, counted)),
            Stage::Backward(stage) => {
                self.backward_stage(stage, &Part::whole(self.plan), workspace);
                self.gradients(stage, gradients, mode, workspace);
            }
        }
        Ok(0.0)
    }

    /// The sum of losses, in the order of the rows, so that nothing else shows. The logits become the gradient of their
    /// sum divided by `counted`: evaluation has no use for it, and one function serves both.
    #[inline(never)]
    pub(super) fn losses(&self, workspace: &mut Workspace<'_>, targets: &[i32], counted: usize) -> f64 {
        let vocab = self.plan.config.vocab;
        let (_, logits) = workspace.intermediate.head();
        let buffers = [(&mut *workspace.losses, 1), (logits, vocab)];
        self.team(workspace.workers).by_row(self.rows() * vocab, buffers, |rows, [losses, logits]| {
            let targets = targets.get(rows).unwrap_or_default();
            cross_entropy::gradients_of_rows(self.compute.simd, losses, logits, targets, vocab, counted);
        });
        SoftF64::sum_of(workspace.losses.iter().copied()).get()
    }
}

/// Refuses a sum of losses with which training can't go on.
fn finite(sum: f64) -> Result<f64, Error> {
    if !sum.is_finite() {
        return Err(Error::NotFinite { what: "loss", value: SoftF64::new(sum).single() });
    }
    Ok(sum)
}
