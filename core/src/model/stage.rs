//! A training pass as a sequence of stages. Between two of them everything lies in the workspace and the gradients,
//! so that a pass may stop after any of them and go on later.

use core::iter::once;

use super::{Backward, Forward, Gradients, Loss, Pass};
use crate::error::Error;
use crate::layout::{Parameters, Workspace};
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
    /// A whole training pass over so many layers, in its order.
    pub fn all(layers: usize) -> impl Iterator<Item = Stage> {
        let forward = Forward::all(layers).map(Stage::Forward);
        forward.chain(once(Stage::Loss)).chain(Backward::all(layers).map(Stage::Backward))
    }
}

impl Pass<'_> {
    /// One stage, after those before it. That of the loss writes `loss`, which must be finite.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn stage(
        &self,
        stage: Stage,
        gradients: &mut Parameters<&mut [f32]>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
        targets: &[i32],
        counted: usize,
        loss: &mut f64,
    ) -> Result<(), Error> {
        match stage {
            Stage::Forward(stage) => self.forward_stage(stage, workspace),
            Stage::Loss => *loss = self.loss_gradient(workspace, targets, counted)?,
            Stage::Backward(stage) => self.backward_stage(stage, gradients, mode, workspace),
        }
        Ok(())
    }

    fn loss_gradient(
        &self,
        workspace: &mut Workspace<'_>,
        targets: &[i32],
        counted: usize,
    ) -> Result<f64, Error> {
        let vocab = self.plan.config.vocab;
        let buffers = [(&mut *workspace.losses, 1), (&mut *workspace.logits, vocab)];
        self.by_sequence(buffers, self.rows() * vocab, |range, [losses, logits]| {
            let targets = targets.get(self.row_range(&range)).unwrap_or_default();
            cross_entropy::gradients_of_rows(self.compute.simd, losses, logits, targets, vocab, counted);
        });
        let Loss { sum, .. } = Loss::of(workspace.losses, counted);
        if !sum.is_finite() {
            return Err(Error::NotFinite { what: "loss", value: sum as f32 });
        }
        Ok(sum)
    }
}
