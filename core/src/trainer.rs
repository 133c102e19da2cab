//! Training: batch, loss, gradients, update, gradient accumulation, evaluation. It decides when things happen;
//! `model` and `optimizer` do them.

mod float_mode;
mod poll;
mod spikes;

pub use poll::Pieces;
pub use spikes::SpikeGuard;

use core::ops::Range;

use crate::data::Tokens;
use crate::error::{Error, exact_length};
use crate::fault::Watch;
use crate::layout::{Plan, Shape};
use crate::model::{DropoutKey, Inputs, Loss, Pass, TrainingPass};
use crate::ops::rows_mut;
use crate::optimizer::{Optimizer, clip_factor, gradient_norm};
use crate::parallel::Compute;
use crate::schedule::Schedule;

/// The caller's memory for training. Each slice has exactly the length in the [`Plan`]'s field of the same name.
#[derive(Debug)]
pub struct Buffers<'a> {
    /// The model's parameters; see [`crate::initialization::initialize`].
    pub parameters: &'a mut [f32],
    /// The frozen parameters.
    pub frozen: &'a [f32],
    /// The gradients, or room for some of them; need not be cleared.
    pub gradients: &'a mut [f32],
    /// The optimiser's state; zero before the first step.
    pub optimizer: &'a mut [f32],
    /// Activations and scratch ([`Plan::workspace`]); need not be cleared.
    pub workspace: &'a mut [f32],
    /// Tokens and targets of a micro-batch; need not be cleared.
    pub batch: &'a mut [i32],
}

/// The settings of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// The rule by which gradients change parameters.
    pub optimizer: Optimizer,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// The largest global norm of the gradient; a larger gradient is scaled down to it.
    pub clip: Option<f32>,
    /// Gradient accumulation: the number of micro-batches per step. It changes only memory and time, not the result.
    pub accumulate: usize,
    /// The seed of batches and dropout.
    pub seed: u64,
}

impl Recipe {
    /// Refuses numbers out of range, and names them.
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

    /// Refuses numbers out of range, and settings that the plan has no memory for.
    pub fn validate_for(&self, plan: &Plan) -> Result<(), Error> {
        self.validate()?;
        if self.optimizer.state() != plan.options.optimizer {
            return Err(Error::Plan { what: "this optimizer's state" });
        }
        if plan.options.fused && self.clip.is_some() {
            return Err(Error::Fused { what: "clip" });
        }
        if plan.options.fused && self.accumulate > 1 {
            return Err(Error::Fused { what: "accumulate" });
        }
        Ok(())
    }
}

/// The results of one step.
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
    plan: &'a Plan,
    recipe: &'a Recipe,
    buffers: Buffers<'a>,
    compute: Compute<'a>,
    step: u64,
    /// The sequences of the current step that the gradients contain.
    accumulated: u64,
    /// The progress of [`Trainer::poll`] in the current step.
    pieces: Pieces,
    guard: Option<SpikeGuard>,
}

impl<'a> Trainer<'a> {
    /// Starts at step 0 with the parameters in the buffer.
    ///
    /// # Errors
    /// As [`Recipe::validate_for`]; [`Error::Length`] for a buffer; [`Error::FloatingPoint`] if the processor flushes
    /// denormal numbers to zero or does not round to nearest. Programs linked with `-ffast-math` begin in such a mode.
    pub fn new(
        plan: &'a Plan,
        recipe: &'a Recipe,
        buffers: Buffers<'a>,
        compute: Compute<'a>,
    ) -> Result<Trainer<'a>, Error> {
        recipe.validate_for(plan)?;
        exact_length("parameters", buffers.parameters.len(), plan.parameters)?;
        exact_length("frozen parameters", buffers.frozen.len(), plan.frozen)?;
        exact_length("gradients", buffers.gradients.len(), plan.gradients)?;
        exact_length("optimizer state", buffers.optimizer.len(), plan.optimizer)?;
        exact_length("workspace", buffers.workspace.len(), plan.workspace())?;
        exact_length("batch", buffers.batch.len(), plan.batch)?;
        float_mode::check()?;
        let (step, accumulated, pieces, guard) = (0, 0, Pieces::default(), None);
        Ok(Trainer { plan, recipe, buffers, compute, step, accumulated, pieces, guard })
    }

    /// One step on random windows of a text: as many micro-batches as the recipe says, then the update.
    ///
    /// The windows depend on the seed and the step alone.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or the gradient norm is not finite, [`Error::Spike`] if a guard refuses the loss:
    /// the parameters and the step have not changed then. With [`crate::Options::fused`] that holds for the loss only;
    /// a gradient that is not finite causes [`Error::PartlyUpdated`].
    pub fn step<'t>(&mut self, text: impl Into<Tokens<'t>>) -> Result<Report, Error> {
        let text = text.into();
        self.between_steps()?;
        self.accumulated = 0;
        let mut total = Loss::default();
        for number in 0..self.recipe.accumulate {
            self.draw_windows(text, number)?;
            let (mut pass, workspace) = self.own_pass(number);
            let loss = pass.whole(workspace);
            total = total.plus(loss.map_err(|error| self.diverged(error))?);
        }
        self.update(total)
    }

    /// Fills the batch with the random windows of one of the step's micro-batches.
    fn draw_windows(&mut self, text: Tokens<'_>, number: usize) -> Result<(), Error> {
        let (recipe, step) = (self.recipe, self.step);
        let (shape, _) = self.shape_and_counted();
        let first_sequence = first_sequence(number, shape);
        let (tokens, targets) = batch_parts(self.buffers.batch);
        let windows = rows_mut(tokens, shape.length).zip(rows_mut(targets, shape.length));
        for (sequence, (tokens, targets)) in (first_sequence..).zip(windows) {
            let first = text.random_window(shape.length, recipe.seed, step, sequence)?;
            text.window(first, tokens, targets)?;
        }
        Ok(())
    }

    /// The shape of a micro-batch of [`Trainer::step`], and the targets that count in the whole step.
    fn shape_and_counted(&self) -> (Shape, usize) {
        let shape = Shape { sequences: self.plan.options.batch, length: self.plan.config.context };
        (shape, shape.rows().saturating_mul(self.recipe.accumulate))
    }

    /// A pass over one of the step's micro-batches, from the trainer's batch.
    fn own_pass(&mut self, number: usize) -> (TrainingPass<'_>, &mut [f32]) {
        let (shape, counted) = self.shape_and_counted();
        self.pass(None, shape, counted, first_sequence(number, shape))
    }

    /// A pass over tokens and targets of the caller's, or else over the trainer's batch; and the workspace.
    #[inline(never)]
    fn pass<'t>(
        &'t mut self,
        given: Option<[&'t [i32]; 2]>,
        shape: Shape,
        counted: usize,
        first_sequence: u64,
    ) -> (TrainingPass<'t>, &'t mut [f32]) {
        let Trainer { plan, recipe, buffers, compute, step, pieces, .. } = self;
        let Buffers { parameters, frozen, gradients, optimizer, workspace, batch } = buffers;
        let [tokens, targets] = given.unwrap_or_else(|| {
            let (tokens, targets) = batch_parts(batch);
            [tokens, targets]
        });
        let dropout = DropoutKey { seed: recipe.seed, step: *step, first_sequence };
        let inputs = Inputs { compute: *compute, plan, frozen, tokens, shape, dropout };
        let update = plan.options.fused.then(|| (&recipe.optimizer, recipe.schedule.rate(*step)));
        let squares = &mut pieces.squares;
        let pass =
            TrainingPass { inputs, targets, counted, parameters, gradients, optimizer, update, squares };
        (pass, workspace)
    }

    /// Forward and backward on the caller's tokens and targets, `[B, T]` each: a micro-batch of the current step.
    /// `counted` is the number of targets other than -1 in all micro-batches of the step.
    ///
    /// [`Trainer::update`] ends the step. With [`crate::Options::fused`] the step has one micro-batch, and this call
    /// changes the parameters.
    pub fn accumulate(
        &mut self,
        tokens: &[i32],
        targets: &[i32],
        shape: Shape,
        counted: usize,
    ) -> Result<Loss, Error> {
        self.between_steps()?;
        if self.plan.options.fused && self.accumulated > 0 {
            return Err(Error::Fused { what: "accumulate" });
        }
        let (mut pass, workspace) = self.pass(Some([tokens, targets]), shape, counted, self.accumulated);
        let loss = pass.whole(workspace);
        let loss = loss.map_err(|error| self.diverged(error))?;
        self.accumulated = self.accumulated.saturating_add(shape.sequences as u64);
        Ok(loss)
    }

    /// Ends a step: clips, and changes the parameters along the accumulated gradients.
    ///
    /// `loss` is the sum of the losses from [`Trainer::accumulate`].
    pub fn update(&mut self, loss: Loss) -> Result<Report, Error> {
        self.between_steps()?;
        self.accumulated = 0;
        let learning_rate = self.recipe.schedule.rate(self.step);
        if self.plan.options.fused {
            return Ok(self.finish(loss, learning_rate, self.norm()));
        }
        self.check_spike(loss)?;
        let norm = gradient_norm(self.compute, self.buffers.gradients);
        self.finite_norm(norm)?;
        self.update_part(learning_rate, norm, 0..self.plan.parameters)?;
        Ok(self.finish(loss, learning_rate, norm))
    }

    fn check_spike(&self, loss: Loss) -> Result<(), Error> {
        self.guard.map_or(Ok(()), |guard| guard.check(self.step, loss.mean()))
    }

    fn finite_norm(&self, norm: f32) -> Result<(), Error> {
        if norm.is_finite() {
            return Ok(());
        }
        let tensor = self.not_finite(self.buffers.gradients);
        Err(Error::Diverged { step: self.step, what: "gradient norm", value: norm, tensor })
    }

    /// Adds the step and the tensor to the error of a pass whose loss is not finite.
    #[cold]
    #[inline(never)]
    fn diverged(&self, error: Error) -> Error {
        let Error::NotFinite { what, value } = error else { return error };
        let tensor = self.not_finite(self.buffers.parameters);
        Error::Diverged { step: self.step, what, value, tensor }
    }

    /// The index of the first tensor whose values are not finite. Bare metal has no room for the search.
    fn not_finite(&self, values: &[f32]) -> Option<usize> {
        if cfg!(target_os = "none") {
            return None;
        }
        self.plan.tensors().position(|tensor| {
            let values = if tensor.frozen { self.buffers.frozen } else { values };
            let values = values.get(tensor.offset..).and_then(|values| values.get(..tensor.len()));
            values.is_some_and(|values| values.iter().any(|x| !x.is_finite()))
        })
    }

    fn update_part(&mut self, learning_rate: f32, norm: f32, part: Range<usize>) -> Result<(), Error> {
        let watch = Watch::begin();
        let Trainer { plan, recipe, buffers, compute, step, .. } = self;
        let Buffers { parameters, gradients, optimizer, .. } = buffers;
        let factor = recipe.clip.map_or(1.0, |clip| clip_factor(norm, clip));
        let rules = recipe.optimizer.rules(*step, learning_rate, factor);
        let gradients = gradients.get(part.clone()).unwrap_or_default();
        rules.update(*compute, plan, None, parameters, gradients, optimizer, part);
        watch.end()
    }

    /// Ends the step.
    fn finish(&mut self, loss: Loss, learning_rate: f32, gradient_norm: f32) -> Report {
        let report = Report { step: self.step, loss: loss.mean(), learning_rate, gradient_norm };
        if let Some(guard) = &mut self.guard {
            guard.add(report.loss);
        }
        self.step = self.step.saturating_add(1);
        self.pieces = Pieces::default();
        report
    }

    /// The loss on a whole text without dropout, in consecutive windows: every token except the first is predicted
    /// once.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it is NaN or infinite; [`Error::Data`], [`Error::Token`], [`Error::Unfinished`].
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
                plan: self.plan,
                parameters: self.buffers.parameters,
                frozen: self.buffers.frozen,
                tokens,
                shape,
                dropout: None,
            };
            let loss = pass.loss(self.buffers.workspace, targets)?;
            total = total.plus(loss);
            first += shape.rows();
        }
        Ok(total)
    }

    /// The number of steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Refuses the update of steps whose loss is a spike from now on ([`Error::Spike`]); `None`: of no steps.
    ///
    /// # Errors
    /// [`Error::Range`] for the limit; [`Error::Fused`], because a fused step updates before the loss is judged.
    pub fn set_guard(&mut self, guard: Option<SpikeGuard>) -> Result<(), Error> {
        if let Some(guard) = &guard {
            guard.validate()?;
            if self.plan.options.fused {
                return Err(Error::Fused { what: "guard" });
            }
        }
        self.guard = guard;
        Ok(())
    }

    /// The guard against loss spikes, with its mean and variance so far.
    pub fn guard(&self) -> Option<SpikeGuard> {
        self.guard
    }

    /// Leaves out the current step, for example after [`Error::Diverged`] or [`Error::Spike`]: the next step has other
    /// windows and other dropout. Gradients that were accumulated for it are discarded.
    pub fn skip(&mut self) {
        self.resume_at(self.step.saturating_add(1), 0);
    }

    /// The number of sequences of the current step in the gradients: 0 except between [`Trainer::accumulate`] and
    /// [`Trainer::update`].
    pub fn accumulated(&self) -> u64 {
        self.accumulated
    }

    /// Continues from another trainer. The buffers must hold its parameters and optimiser state, and its gradients
    /// unless `accumulated` is 0. With the same recipe, the bits are the same as without the interruption. The
    /// progress of [`Trainer::poll`] is discarded.
    pub fn resume_at(&mut self, step: u64, accumulated: u64) {
        self.step = step;
        self.accumulated = accumulated;
        self.pieces = Pieces::default();
    }

    /// The plan that the buffers follow.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// The recipe.
    pub fn recipe(&self) -> &'a Recipe {
        self.recipe
    }

    /// The caller's memory.
    pub fn buffers(&mut self) -> &mut Buffers<'a> {
        &mut self.buffers
    }
}

/// The number of a micro-batch's first sequence in the step.
fn first_sequence(number: usize, shape: Shape) -> u64 {
    (number as u64).wrapping_mul(shape.sequences as u64)
}

/// The tokens and the targets of a batch.
fn batch_parts(batch: &mut [i32]) -> (&mut [i32], &mut [i32]) {
    batch.split_at_mut_checked(batch.len() / 2).unwrap_or_default()
}
