//! A step in bounded pieces, for callers with a watchdog. Its progress is three numbers; everything else is in the
//! caller's buffers.

use core::task::Poll;

use super::{Report, Trainer};
use crate::compact::soft_f64::{self, SoftF64};
use crate::data::Tokens;
use crate::error::Error;
use crate::model::{Loss, Stage};
use crate::optimizer::{part_of, parts, squares_of_part};

/// The progress of [`Trainer::poll`], or of [`Trainer::accumulate`] with a fused update, in the current step. Hosts
/// that hold no Rust value between calls keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pieces {
    /// The number of pieces done; 0 between steps.
    pub done: u64,
    /// The sum of the losses so far.
    pub loss: f64,
    /// The sum of the gradients' squares so far.
    pub squares: f64,
}

impl Trainer<'_> {
    /// Does one piece of a step. After the last piece, returns the step's report. [`Trainer::pieces_per_step`] calls
    /// with the same text have the bits of [`Trainer::step`].
    ///
    /// A piece is one [`Stage`] of one micro-batch, with at most [`crate::Plan::largest_stage`] multiply-adds. Or it
    /// is a 64th of the gradient's norm or of the update, but at least 4096 parameters. A batch of 1 has the smallest
    /// stages, and [`crate::Recipe::accumulate`] then makes a larger batch, with the same bits.
    ///
    /// Until the step is done, gradients, workspace and batch must not change, and other calls that train or evaluate
    /// return [`Error::Unfinished`].
    ///
    /// [`Trainer::resume_at`] abandons the step. Once the update has begun (the last pieces, at most 64), some
    /// parameters have then changed and others have not. An error also abandons the step, with the parameters as
    /// before the step, except for [`Error::PartlyUpdated`]. With [`crate::Options::fused`] the update begins with
    /// the first stage of backward.
    pub fn poll<'t>(&mut self, text: impl Into<Tokens<'t>>) -> Result<Poll<Report>, Error> {
        let result = self.piece(text.into());
        match result {
            Ok(Poll::Pending) => self.pieces.done = self.pieces.done.saturating_add(1),
            Ok(Poll::Ready(_)) | Err(_) => self.pieces = Pieces::default(),
        }
        result
    }

    /// The number of calls of [`Trainer::poll`] in a step.
    pub fn pieces_per_step(&self) -> u64 {
        let stages = Stage::count(self.plan) as u64;
        let parts = if self.plan.options.fused { 0 } else { parts(self.plan.parameters) as u64 };
        stages.saturating_mul(self.recipe.accumulate as u64).saturating_add(2 * parts)
    }

    /// The progress of [`Trainer::poll`] in the current step.
    pub fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// Continues within a step, after [`Trainer::resume_at`]. `pieces` comes from [`Trainer::pieces`], and all
    /// buffers must be as they were then.
    pub fn resume_pieces(&mut self, pieces: Pieces) {
        self.pieces = pieces;
    }

    pub(super) fn between_steps(&self) -> Result<(), Error> {
        if self.pieces.done == 0 { Ok(()) } else { Err(Error::Unfinished) }
    }

    fn piece(&mut self, text: Tokens<'_>) -> Result<Poll<Report>, Error> {
        let done = usize::try_from(self.pieces.done).unwrap_or(usize::MAX);
        let last = self.pieces.done.saturating_add(1) >= self.pieces_per_step();
        let stages = Stage::count(self.plan);
        let passes = stages.saturating_mul(self.recipe.accumulate);
        let parts = parts(self.plan.parameters);
        let (recipe, step) = (self.recipe, self.step);
        let learning_rate = || recipe.schedule.rate(step);
        match done.checked_sub(passes) {
            None => {
                let micro_batch = done.checked_div(stages).unwrap_or(0);
                let stage = done.saturating_sub(micro_batch * stages);
                self.accumulated = 0;
                if stage == 0 {
                    self.pieces.squares = 0.0;
                    self.draw_windows(text, micro_batch)?;
                }
                let (mut pass, workspace) = self.own_pass(micro_batch);
                let sum = pass.stage(stage, workspace);
                let sum = sum.map_err(|error| self.diverged(error))?;
                self.pieces.loss = (SoftF64::new(self.pieces.loss) + SoftF64::new(sum)).get();
            }
            Some(part) if part < parts => {
                if part == 0 {
                    self.check_spike(self.loss_of_pieces())?;
                }
                self.norm_piece(part, part + 1 == parts)?;
            }
            Some(part) => {
                self.update_part(learning_rate(), self.norm(), part_of(self.plan.parameters, part - parts))?;
            }
        }
        if !last {
            return Ok(Poll::Pending);
        }
        Ok(Poll::Ready(self.finish(self.loss_of_pieces(), learning_rate(), self.norm())))
    }

    fn loss_of_pieces(&self) -> Loss {
        let (_, counted) = self.shape_and_counted();
        Loss { sum: self.pieces.loss, counted }
    }

    fn norm_piece(&mut self, part: usize, last: bool) -> Result<(), Error> {
        let squares = squares_of_part(self.compute, self.buffers.gradients, part);
        self.pieces.squares = (SoftF64::new(self.pieces.squares) + squares.into()).get();
        if last { self.finite_norm(self.norm()) } else { Ok(()) }
    }

    pub(super) fn norm(&self) -> f32 {
        soft_f64::sqrt(SoftF64::new(self.pieces.squares)).single()
    }
}
