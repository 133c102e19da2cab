//! Training: batch, loss, gradients, update; accumulation over micro-batches; evaluation. Knows when things
//! happen; `model` and `optimizer` know what.

mod poll;

pub use poll::Pieces;

use crate::data::Tokens;
use crate::error::{Error, exact_length};
use crate::layout::{Plan, Shape};
use crate::model::{Gradients, Loss, Pass, Training};
use crate::ops::rows_mut;
use crate::optimizer::{Optimizer, clip_factor, gradient_norm};
use crate::parallel::Compute;
use crate::schedule::Schedule;

/// The caller's memory for training, each slice exactly as long as the [`Plan`]'s field of that name says.
#[derive(Debug)]
pub struct Buffers<'a> {
    /// The model's parameters; see [`crate::initialization::initialize`].
    pub parameters: &'a mut [f32],
    /// Their gradients; need not be cleared.
    pub gradients: &'a mut [f32],
    /// What the optimiser keeps; zero before the first step.
    pub optimizer: &'a mut [f32],
    /// Activations and scratch ([`Plan::workspace`]); need not be cleared.
    pub workspace: &'a mut [f32],
    /// Tokens and targets of a micro-batch; need not be cleared.
    pub batch: &'a mut [i32],
}

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// How gradients change parameters.
    pub optimizer: Optimizer,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// The gradient's largest global norm; a larger one is scaled down to it.
    pub clip: Option<f32>,
    /// Micro-batches per step. Their number does not show in the result: only in memory and time.
    pub accumulate: usize,
    /// The seed of batches and dropout.
    pub seed: u64,
}

impl Recipe {
    /// Refuses numbers out of range, naming them.
    pub fn validate(&self) -> Result<(), Error> {
        self.optimizer.validate()?;
        self.schedule.validate()?;
        if let Some(clip) = self.clip
            && !(clip > 0.0)
        {
            return Err(Error::Range { what: "clip", given: clip, wanted: "more than 0" });
        }
        if self.accumulate == 0 {
            return Err(Error::Zero { what: "accumulate" });
        }
        Ok(())
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// The step's number, from 0.
    pub step: u64,
    /// The mean loss before the update, dropout included.
    pub loss: f32,
    /// The learning rate that was used.
    pub learning_rate: f32,
    /// The global norm of the gradient, before clipping.
    pub gradient_norm: f32,
}

/// A model in training, on the caller's memory.
pub struct Trainer<'a> {
    plan: Plan,
    recipe: Recipe,
    buffers: Buffers<'a>,
    compute: Compute<'a>,
    step: u64,
    /// Sequences that the gradients hold of the current step.
    accumulated: u64,
    /// What [`Trainer::poll`] has done of the current step.
    pieces: Pieces,
}

impl<'a> Trainer<'a> {
    /// Begins at step 0 with the parameters that the buffer holds.
    pub fn new(
        plan: &Plan,
        recipe: &Recipe,
        buffers: Buffers<'a>,
        compute: Compute<'a>,
    ) -> Result<Trainer<'a>, Error> {
        recipe.validate()?;
        if recipe.optimizer.state() != plan.options.optimizer {
            return Err(Error::Plan { what: "this optimizer's state" });
        }
        exact_length("parameters", buffers.parameters.len(), plan.parameters)?;
        exact_length("gradients", buffers.gradients.len(), plan.gradients)?;
        exact_length("optimizer state", buffers.optimizer.len(), plan.optimizer)?;
        exact_length("workspace", buffers.workspace.len(), plan.workspace())?;
        exact_length("batch", buffers.batch.len(), plan.batch)?;
        let (plan, recipe, pieces) = (*plan, *recipe, Pieces::default());
        Ok(Trainer { plan, recipe, buffers, compute, step: 0, accumulated: 0, pieces })
    }

    /// One step on random windows of a text: as many micro-batches as the recipe says, then the update.
    ///
    /// Which windows depends on the seed and the step alone. Where the loss or the gradient norm is not
    /// finite, the parameters and the step stay as they were.
    pub fn step<'t>(&mut self, text: impl Into<Tokens<'t>>) -> Result<Report, Error> {
        let text = text.into();
        self.between_steps()?;
        let (shape, counted) = self.micro_batch();
        let mut total = Loss::default();
        self.accumulated = 0;
        for _ in 0..self.recipe.accumulate {
            let batch = core::mem::take(&mut self.buffers.batch);
            let loss = self
                .random_windows(text, shape, self.accumulated, batch)
                .and_then(|(tokens, targets)| self.accumulate(tokens, targets, shape, counted));
            self.buffers.batch = batch;
            let loss = loss?;
            total = Loss { sum: total.sum + loss.sum, counted: total.counted + loss.counted };
        }
        self.update(total)
    }

    /// The shape of a micro-batch of [`Trainer::step`], and the targets that count in the whole step.
    fn micro_batch(&self) -> (Shape, usize) {
        let shape = Shape { sequences: self.plan.options.batch, length: self.plan.config.context };
        (shape, shape.rows().saturating_mul(self.recipe.accumulate))
    }

    /// Fills a micro-batch of the current step; returns its tokens and targets.
    fn random_windows<'b>(
        &self,
        text: Tokens<'_>,
        shape: Shape,
        first_sequence: u64,
        batch: &'b mut [i32],
    ) -> Result<(&'b [i32], &'b [i32]), Error> {
        let (tokens, targets) = batch_parts(batch);
        let windows = rows_mut(tokens, shape.length).zip(rows_mut(targets, shape.length));
        for (sequence, (tokens, targets)) in (first_sequence..).zip(windows) {
            let first = text.random_window(shape.length, self.recipe.seed, self.step, sequence)?;
            text.window(first, tokens, targets)?;
        }
        Ok((tokens, targets))
    }

    /// Forward and backward on tokens and targets of the caller's, `[B, T]` each: a micro-batch of the current
    /// step. `counted` is the number of targets other than -1 in all micro-batches of the step.
    ///
    /// [`Trainer::update`] ends the step.
    pub fn accumulate(
        &mut self,
        tokens: &[i32],
        targets: &[i32],
        shape: Shape,
        counted: usize,
    ) -> Result<Loss, Error> {
        self.between_steps()?;
        let Trainer { plan, recipe, buffers, compute, step, accumulated, .. } = self;
        let first_sequence = *accumulated;
        let pass = Pass {
            compute: *compute,
            plan,
            parameters: buffers.parameters,
            tokens,
            shape,
            training: Some(Training { seed: recipe.seed, step: *step, first_sequence }),
        };
        let mode = if first_sequence == 0 { Gradients::Overwrite } else { Gradients::Add };
        let loss = pass.backward(buffers.gradients, mode, buffers.workspace, targets, counted)?;
        *accumulated = first_sequence.saturating_add(shape.sequences as u64);
        Ok(loss)
    }

    /// Ends a step: clips, changes the parameters along the accumulated gradients, and goes on to the next.
    ///
    /// `loss` is the sum of what [`Trainer::accumulate`] returned.
    pub fn update(&mut self, loss: Loss) -> Result<Report, Error> {
        self.between_steps()?;
        let norm = gradient_norm(self.compute, self.buffers.gradients);
        self.accumulated = 0;
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "gradient norm", value: norm });
        }
        let (learning_rate, factor) = self.rate_and_factor(norm);
        self.recipe.optimizer.update(
            self.compute,
            &self.plan,
            self.buffers.parameters,
            self.buffers.gradients,
            self.buffers.optimizer,
            self.step,
            learning_rate,
            factor,
        )?;
        let report = Report { step: self.step, loss: loss.mean(), learning_rate, gradient_norm: norm };
        self.step = self.step.saturating_add(1);
        Ok(report)
    }

    /// The learning rate of this step, and the factor of its gradients.
    fn rate_and_factor(&self, norm: f32) -> (f32, f32) {
        let factor = self.recipe.clip.map_or(1.0, |clip| clip_factor(norm, clip));
        (self.recipe.schedule.rate(self.step), factor)
    }

    /// The loss on a whole text without dropout: windows one behind the other, so that every token but the
    /// first is predicted once.
    pub fn evaluate<'t>(&mut self, text: impl Into<Tokens<'t>>) -> Result<Loss, Error> {
        let text = text.into();
        self.between_steps()?;
        let Plan { config, options, .. } = self.plan;
        let Some(predicted) = text.len().checked_sub(1).filter(|n| *n > 0) else {
            return Err(Error::Data { given: text.len(), wanted: 2 });
        };
        let mut total = Loss::default();
        let mut first = 0;
        while first < predicted {
            let rest = predicted - first;
            let length = config.context.min(rest);
            let sequences = rest.checked_div(length).unwrap_or(1).min(options.batch);
            let shape = Shape { sequences, length };
            let (tokens, targets) = batch_parts(self.buffers.batch);
            let tokens = tokens.get_mut(..shape.rows()).unwrap_or_default();
            let targets = targets.get_mut(..shape.rows()).unwrap_or_default();
            text.window(first, tokens, targets)?;
            let pass = Pass {
                compute: self.compute,
                plan: &self.plan,
                parameters: self.buffers.parameters,
                tokens,
                shape,
                training: None,
            };
            let loss = pass.loss(self.buffers.workspace, targets)?;
            total = Loss { sum: total.sum + loss.sum, counted: total.counted + loss.counted };
            first += shape.rows();
        }
        Ok(total)
    }

    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Sequences of the current step that the gradients hold already: 0 except between
    /// [`Trainer::accumulate`] and [`Trainer::update`].
    pub fn accumulated(&self) -> u64 {
        self.accumulated
    }

    /// Goes on where another trainer stopped, whose parameters and optimiser state the buffers hold, and whose
    /// gradients too unless `accumulated` is 0: with the same recipe, the same bits as if training had never
    /// stopped. What [`Trainer::poll`] has done of a step is forgotten.
    pub fn resume_at(&mut self, step: u64, accumulated: u64) {
        self.step = step;
        self.accumulated = accumulated;
        self.pieces = Pieces::default();
    }

    /// The plan that the buffers follow.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The caller's memory.
    pub fn buffers(&mut self) -> &mut Buffers<'a> {
        &mut self.buffers
    }
}

/// The tokens' half of a batch, and the targets'.
fn batch_parts(batch: &mut [i32]) -> (&mut [i32], &mut [i32]) {
    batch.split_at_mut_checked(batch.len() / 2).unwrap_or_default()
}
