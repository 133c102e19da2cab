//! A training pass as a sequence of stages. Between two of them everything lies in the workspace and the gradients,
//! so that a pass may stop after any of them and go on later.

use super::{Backward, Forward, Gradients, Pass};
use crate::compact::soft_f64::SoftF64;
use crate::error::Error;
use crate::layout::{Head, Plan, Workspace};
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

impl Pass<'_> {
    /// A whole training pass of a plan that is not fused.
    pub(super) fn whole(
        &self,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut [f32],
        targets: &[i32],
        counted: usize,
    ) -> Result<f64, Error> {
        #[cfg(not(target_os = "none"))]
        if let Some(workers) = self.data_parallel_workers() {
            let sum = self.data_parallel(workers, Some((gradients, mode)), workspace, targets, counted)?;
            return finite(sum);
        }
        let mut workspace = self.check(workspace);
        let workspace = workspace.as_mut().map_err(|error| *error)?;
        let mut sum = SoftF64::ZERO;
        for stage in Stage::all(self.plan) {
            sum = sum + SoftF64::new(self.stage(stage, gradients, mode, workspace, targets, counted)?);
        }
        Ok(sum.get())
    }

    /// A stage, after those before it, of a plan that is not fused: the sum of the losses where it is the loss, 0
    /// otherwise. Between two stages everything lies where any number of workers finds it.
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
            Stage::Loss => return self.finite_loss(workspace, targets, counted),
            Stage::Backward(stage) => {
                self.backward_stage(stage, workspace);
                self.gradients(stage, gradients, mode, workspace);
            }
        }
        Ok(0.0)
    }

    /// The sum of the losses, or an error where training cannot continue with it.
    pub(super) fn finite_loss(
        &self,
        workspace: &mut Workspace<'_>,
        targets: &[i32],
        counted: usize,
    ) -> Result<f64, Error> {
        finite(self.losses(workspace, targets, counted))
    }

    /// The sum of the losses, added in the order of the rows whatever the number of workers. The logits become the gradient
    /// of the sum divided by `counted`. Evaluation does not need that, but one function for both is smaller.
    #[inline(never)]
    pub(super) fn losses(&self, workspace: &mut Workspace<'_>, targets: &[i32], counted: usize) -> f64 {
        let vocab = self.plan.config.vocab;
        let Head { logits, losses, .. } = workspace.regions.head();
        let buffers = [(&mut *losses, 1), (logits, vocab)];
        self.workers(workspace.worker_scratch).by_row(
            self.rows() * vocab,
            buffers,
            |rows, [losses, logits]| {
                let targets = targets.get(rows).unwrap_or_default();
                cross_entropy::gradients_of_rows(self.compute.simd, losses, logits, targets, vocab, counted);
            },
        );
        SoftF64::sum_of(losses.iter().copied()).get()
    }
}

/// Refuses a sum of losses that is not finite.
fn finite(sum: f64) -> Result<f64, Error> {
    if !sum.is_finite() {
        return Err(Error::NotFinite { what: "loss", value: SoftF64::new(sum).single() });
    }
    Ok(sum)
}
