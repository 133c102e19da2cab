//! A training pass as a sequence of stages. Between two stages all results are in the workspace and the gradients, so
//! that a pass can stop after any stage and continue later.

use super::fused::NotFinite;
use super::{Backward, Beginning, DropoutKey, Forward, Gradients, Loss, Pass, Workers, rows_in, rows_of};
use crate::compact::soft_f64::SoftF64;
use crate::error::Error;
use crate::fault::Watch;
use crate::layout::{Head, InUse, Plan, Shape, Workspace};
use crate::ops::cross_entropy::{self, SOFTMAX};
use crate::optimizer::{Optimizer, Rules};
use crate::parallel::{Compute, PerUnit};

/// A part of a training pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A stage of forward.
    Forward(Forward),
    /// The loss. The logits become their gradient.
    Loss,
    /// A stage of backward.
    Backward(Backward),
}

impl Stage {
    /// The stages of the plan's training pass in order, down to the first trained tensor.
    pub fn all(plan: &Plan) -> impl Iterator<Item = Stage> {
        (0..).map_while(|number| Stage::at(plan, number))
    }

    /// The stage with this number in a whole training pass.
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

    /// The number of stages of a training pass.
    pub fn count(plan: &Plan) -> usize {
        Stage::all(plan).count()
    }
}

/// A pass but for its parameters, which a fused step changes on the way.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub compute: Compute<'a>,
    pub plan: &'a Plan,
    pub frozen: &'a [f32],
    pub tokens: &'a [i32],
    pub shape: Shape,
    pub dropout: DropoutKey,
}

impl<'a> Inputs<'a> {
    /// The pass with the current parameters.
    #[inline(never)]
    pub fn pass(&self, parameters: &'a [f32]) -> Pass<'a> {
        let Inputs { compute, plan, frozen, tokens, shape, dropout } = *self;
        Pass { compute, plan, parameters, frozen, tokens, shape, dropout: Some(dropout) }
    }
}

/// A training pass, with the buffers that it changes besides the workspace.
pub(crate) struct TrainingPass<'a> {
    pub inputs: Inputs<'a>,
    pub targets: &'a [i32],
    /// The targets that count in all micro-batches of the step.
    pub counted: usize,
    pub parameters: &'a mut [f32],
    /// Exactly [`Plan::gradients`] elements.
    pub gradients: &'a mut [f32],
    pub optimizer: &'a mut [f32],
    /// The update rules and the learning rate of a fused step.
    pub update: Option<(&'a Optimizer, f32)>,
    /// The sum of the gradients' squares so far, in a fused step.
    pub squares: &'a mut f64,
}

impl TrainingPass<'_> {
    pub(super) fn pass(&self) -> Pass<'_> {
        self.inputs.pass(self.parameters)
    }

    /// The whole pass: makes the loss and the gradients or, in a fused step, changes the parameters.
    pub fn whole(&mut self, workspace: &mut [f32]) -> Result<Loss, Error> {
        let rules = self.rules();
        if rules.is_none() {
            let pass = self.inputs.pass(self.parameters);
            return pass.backward(self.gradients, self.mode(), workspace, self.targets, self.counted);
        }
        *self.squares = 0.0;
        let mut loss = Loss { sum: 0.0, counted: self.pass().check_targets(self.targets)? };
        let mut workspace = self.pass().check(workspace, Beginning::Begins);
        let workspace = workspace.as_mut().map_err(|error| *error)?;
        for stage in Stage::all(self.inputs.plan) {
            let sum = self.one(stage, rules.as_ref(), workspace).inspect_err(|_| *self.squares = 0.0)?;
            loss = loss.plus(Loss { sum, counted: 0 });
        }
        Ok(loss)
    }

    /// Runs the stage with this number, after the stages before it. Returns the sum of the losses for the loss stage,
    /// otherwise 0.
    pub fn stage(&mut self, number: usize, workspace: &mut [f32]) -> Result<f64, Error> {
        self.pass().check_targets(self.targets)?;
        let beginning = if number == 0 { Beginning::Begins } else { Beginning::Continues };
        let mut workspace = self.pass().check(workspace, beginning);
        let workspace = workspace.as_mut().map_err(|error| *error)?;
        let Some(stage) = Stage::at(self.inputs.plan, number) else { return Ok(0.0) };
        self.one(stage, self.rules().as_ref(), workspace)
    }

    #[inline(never)]
    fn one(
        &mut self,
        stage: Stage,
        rules: Option<&Rules>,
        workspace: &mut Workspace<'_>,
    ) -> Result<f64, Error> {
        let watch = Watch::begin();
        let sum = match (stage, rules) {
            (Stage::Backward(stage), Some(rules)) => {
                let done = self.backward_and_update(stage, rules, workspace);
                done.map(|()| 0.0).map_err(|NotFinite { tensor }| Error::PartlyUpdated { tensor })
            }
            _ => {
                let (pass, mode) = (self.inputs.pass(self.parameters), self.mode());
                pass.stage(stage, self.gradients, mode, workspace, self.targets, self.counted)
            }
        };
        watch.end()?;
        sum
    }

    fn rules(&self) -> Option<Rules> {
        self.update.map(|(optimizer, rate)| optimizer.rules(self.inputs.dropout.step, rate, 1.0))
    }

    /// The first micro-batch of a step overwrites the gradients.
    fn mode(&self) -> Gradients {
        if self.inputs.dropout.first_sequence == 0 { Gradients::Overwrite } else { Gradients::Add }
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
        let mut workspace = self.check(workspace, Beginning::Begins);
        let workspace = workspace.as_mut().map_err(|error| *error)?;
        let mut sum = SoftF64::ZERO;
        for stage in Stage::all(self.plan) {
            sum = sum + SoftF64::new(self.stage(stage, gradients, mode, workspace, targets, counted)?);
        }
        Ok(sum.get())
    }

    /// Runs a stage, after the stages before it, of a plan that is not fused. Returns the sum of the losses for the
    /// loss stage, otherwise 0. Results are at the same place for any number of workers.
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

    /// The sum of the losses, or an error if training cannot continue with it.
    pub(super) fn finite_loss(
        &self,
        workspace: &mut Workspace<'_>,
        targets: &[i32],
        counted: usize,
    ) -> Result<f64, Error> {
        finite(self.losses(workspace, targets, counted, true))
    }

    /// The sum of the losses, added in the order of the rows whatever the number of workers. The logits become the
    /// gradient of the sum divided by `counted`. Evaluation does not need the gradient, but a single function is
    /// smaller. A chunked head makes the logits here and, for training, the gradient of the head's input.
    #[inline(never)]
    pub(super) fn losses(
        &self,
        workspace: &mut Workspace<'_>,
        targets: &[i32],
        counted: usize,
        training: bool,
    ) -> f64 {
        let Head { input, logits, losses, softmax, d_residual, d_normed, .. } =
            workspace.regions.head(InUse::Activated);
        let workers = &mut self.workers(workspace.worker_scratch);
        if !self.plan.options.chunks_head() {
            self.losses_of_rows(losses, logits, (softmax, 0), targets, counted, workers);
            return SoftF64::sum_of(losses.iter().copied()).get();
        }
        let [c, vocab] = [self.plan.config.width, self.plan.config.vocab];
        let d_input = self.d_input(d_residual, d_normed);
        let (mut first, most) = (0, self.plan.head_rows());
        while first < losses.len() {
            let rows = first..losses.len().min(first + most);
            first = rows.end;
            workers.shape = Shape { sequences: 1, length: rows.len() };
            let logits = rows_in(logits, rows.len(), vocab);
            self.logits(rows_of(input, &rows, c), logits, workers);
            let [softmax, losses] = [(&mut *softmax, SOFTMAX), (&mut *losses, 1)]
                .map(|(all, width)| all.get_mut(rows.start * width..rows.end * width).unwrap_or_default());
            let targets = targets.get(rows.clone()).unwrap_or_default();
            self.losses_of_rows(losses, logits, (softmax, SOFTMAX), targets, counted, workers);
            if training {
                let d_input = d_input.get_mut(rows.start * c..rows.end * c).unwrap_or_default();
                self.head_backward(d_input, logits, workers);
            }
        }
        SoftF64::sum_of(losses.iter().copied()).get()
    }

    /// The losses of rows. Their logits become the gradient, which `softmax` can make again.
    fn losses_of_rows(
        &self,
        losses: &mut [f32],
        logits: &mut [f32],
        (softmax, numbers): PerUnit<'_>,
        targets: &[i32],
        counted: usize,
        workers: &mut Workers<'_>,
    ) {
        let (simd, vocab) = (self.compute.simd, self.plan.config.vocab);
        let buffers = [(losses, 1), (&mut *logits, vocab), (softmax, numbers)];
        let work = workers.shape.rows() * vocab;
        workers.by_row(work, buffers, |rows, [losses, logits, softmax]| {
            let targets = targets.get(rows).unwrap_or_default();
            cross_entropy::gradients_of_rows(simd, losses, logits, softmax, targets, vocab, counted);
        });
    }
}

/// Refuses a sum of losses that is not finite.
pub(super) fn finite(sum: f64) -> Result<f64, Error> {
    if !sum.is_finite() {
        return Err(Error::NotFinite { what: "loss", value: SoftF64::new(sum).single() });
    }
    Ok(sum)
}
