//! The whole model, forward and backward: a listing of operations that reads like the figure of GPT-2.
//! Knows the order of things, not where they lie (`layout`), how they are computed (`ops`), or what happens to
//! the gradients (`optimizer`).
//!
//! Workers go apart through a whole pass, each with some of its sequences (`data_parallel.rs`), or share out every operation
//! (`work_sharing.rs`).

mod backward;
#[cfg(not(target_os = "none"))]
mod data_parallel;
#[cfg(target_os = "none")]
#[path = "never_data_parallel.rs"]
mod data_parallel;
mod forward;
mod gradients;
mod stage;
mod work_sharing;

use core::ops::Range;

pub use backward::Backward;
pub(crate) use backward::Part;
pub use forward::Forward;
pub use stage::Stage;
use work_sharing::Workers;

use crate::compact::soft_f64::{self, SoftF64};
use crate::error::{Error, exact_length};
use crate::layout::{Parameters, Plan, Regions, Shape, Workspace};
use crate::matmul;
use crate::ops::attention::Attention;
use crate::ops::dropout::Mask;
use crate::ops::{cross_entropy, embedding, rows_mut};
use crate::parallel::{Compute, PerUnit};
use crate::rng::Stream;

/// Which dropout masks a training pass uses. Evaluation and generation have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// The step, counted from 0.
    pub step: u64,
    /// The number of the pass's first sequence among all of the step: micro-batches together then have the
    /// masks of one large batch.
    pub first_sequence: u64,
}

/// The loss of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// The sum over targets that count.
    pub sum: f64,
    /// How many targets count (are not -1).
    pub counted: usize,
}

impl Loss {
    /// The mean over targets that count; 0 where none does.
    pub fn mean(self) -> f32 {
        if self.counted == 0 {
            0.0
        } else {
            soft_f64::quotient(SoftF64::new(self.sum), (self.counted as u64).into()).single()
        }
    }

    /// Of both together.
    pub(crate) fn plus(self, other: Loss) -> Loss {
        let sum = (SoftF64::new(self.sum) + SoftF64::new(other.sum)).get();
        Loss { sum, counted: self.counted + other.counted }
    }
}

/// What backward does with what the gradients hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// Add to it: a further micro-batch.
    Add,
    /// Overwrite it: the first micro-batch of a step.
    Overwrite,
}

/// One pass of a model over tokens `[B, T]`.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// What computes.
    pub compute: Compute<'a>,
    /// The model and its sizes.
    pub plan: &'a Plan,
    /// Exactly [`Plan::parameters`] elements.
    pub parameters: &'a [f32],
    /// Exactly [`Plan::frozen`] elements.
    pub frozen: &'a [f32],
    /// B rows of T tokens, each in `0..vocab`.
    pub tokens: &'a [i32],
    /// B and T; at most the plan's batch and the context.
    pub shape: Shape,
    /// Which dropout masks apply, in training; `None` in use.
    pub dropout: Option<DropoutKey>,
}

/// With more rows than this, it hardly matters that each worker packs far weights for its own.
const ROWS_WORTH_ONE_PACKING: usize = 512;

/// What [`Pass::each_masked`] calls with rows, their mask, and the position of the first.
type OnRows<'f> = dyn FnMut(&mut [f32], Option<Mask>, usize) + 'f;

/// The elements of `units`, of `per` elements each.
#[inline(never)]
fn part<'a, T>(x: &'a [T], units: &Range<usize>, per: usize) -> &'a [T] {
    x.get(units.start * per..units.end * per).unwrap_or_default()
}

/// Calls `f` with some columns of the rows of `x`, which has `width` of them, and with the rows of `y`, which has no
/// others; with all rows at once where that is all there is.
fn with_columns(
    x: &mut [f32],
    width: usize,
    columns: &Range<usize>,
    y: &mut [f32],
    mut f: impl FnMut(&mut [f32], &mut [f32]),
) {
    let whole = columns.len() == width;
    let (width, columns) = if whole { (x.len(), 0..x.len()) } else { (width, columns.clone()) };
    for (x, y) in rows_mut(x, width).zip(rows_mut(y, columns.len())) {
        f(x.get_mut(columns.clone()).unwrap_or_default(), y);
    }
}

impl Plan {
    /// Whether all threads go through a pass together, one operation after the other: where too many would have no sequence
    /// to take, or packing the same weights each would take more of the time than meeting more often.
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
    /// Whether a block's forward leaves the slope of the activation, and what it activates: the last block's, where nothing
    /// else has the place of that before its backward. Others make both again from what enters the activation.
    fn keeps_activated(&self, layer: usize) -> bool {
        let crate::Config { layers, tied, .. } = self.plan.config;
        tied && layer + 1 == layers && !self.plan.options.fused
    }

    /// Computes the logits `[R, V]`, which [`logits`] then finds in the workspace.
    ///
    /// `workspace`: exactly [`Plan::workspace`] elements.
    pub fn forward(&self, workspace: &mut [f32]) -> Result<(), Error> {
        let mut workspace = self.check(workspace)?;
        self.forward_trusted(&mut workspace);
        Ok(())
    }

    /// The loss on `targets [R]`, each in `0..vocab` or -1 (ignored). Overwrites the workspace.
    pub fn loss(&self, workspace: &mut [f32], targets: &[i32]) -> Result<Loss, Error> {
        let counted = self.check_targets(targets)?;
        let sum = match self.data_parallel(None, workspace, targets, counted)? {
            Some(sum) => sum,
            None => {
                let workspace = &mut self.check(workspace)?;
                self.forward_trusted(workspace);
                self.losses(workspace, targets, counted)
            }
        };
        Ok(Loss { sum, counted })
    }

    /// Forward, loss and backward: the gradient of the sum of losses on `targets [R]` divided by `counted`
    /// (all targets of the step that count, so that micro-batches add up to a mean).
    ///
    /// `gradients`: exactly [`Plan::gradients`] elements, untouched where the loss is not finite.
    ///
    /// # Errors
    /// [`Error::Fused`] where the plan has room for the gradients of some rows only.
    pub fn backward(
        &self,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut [f32],
        targets: &[i32],
        counted: usize,
    ) -> Result<Loss, Error> {
        if self.plan.options.fused {
            return Err(Error::Fused { what: "backward" });
        }
        exact_length("gradients", gradients.len(), self.plan.gradients)?;
        self.stages(0..usize::MAX, gradients, mode, workspace, targets, counted)
    }

    pub(crate) fn check<'w>(&self, workspace: &'w mut [f32]) -> Result<Workspace<'w>, Error> {
        Ok(Workspace::cut(self.regions(workspace)?, self.plan, self.shape))
    }

    /// Refuses what does not fit together.
    fn regions<'w>(&self, workspace: &'w mut [f32]) -> Result<Regions<'w>, Error> {
        exact_length("parameters", self.parameters.len(), self.plan.parameters)?;
        exact_length("frozen parameters", self.frozen.len(), self.plan.frozen)?;
        let regions = Regions::new(workspace, self.plan, self.shape)?;
        exact_length("tokens", self.tokens.len(), self.rows())?;
        embedding::check_tokens(self.tokens, self.plan.config.vocab)?;
        Ok(regions)
    }

    pub(crate) fn check_targets(&self, targets: &[i32]) -> Result<usize, Error> {
        exact_length("targets", targets.len(), self.rows())?;
        cross_entropy::count_targets(targets, self.plan.config.vocab)
    }

    #[inline(never)]
    fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// The workers' scratch, with the length of each one's.
    fn scratch<'w>(&self, workers: &'w mut [f32]) -> PerUnit<'w> {
        let each = workers.len().checked_div(self.plan.options.threads).unwrap_or(0);
        (workers, each)
    }

    /// All workers, with all sequences.
    fn team<'t>(&'t self, workers: &'t mut [f32]) -> Workers<'t> {
        Workers { compute: self.compute, shape: self.shape, scratch: self.scratch(workers) }
    }

    fn parameters(&self) -> Parameters<'_> {
        Parameters::new(self.parameters, self.frozen, self.plan)
    }

    /// A layer's dropout of that stream, if it has any.
    #[inline(never)]
    fn mask(&self, stream: Stream, layer: usize) -> Option<Mask> {
        let DropoutKey { seed, step, .. } = self.dropout?;
        let rates = &self.plan.config.dropout;
        let rate = match stream {
            Stream::EmbeddingDropout => rates.embedding,
            Stream::AttentionDropout => rates.attention,
            Stream::AttentionProjectionDropout => rates.attention_projection,
            Stream::MlpProjectionDropout => rates.mlp_projection,
            _ => return None,
        };
        Mask::new(rate, seed, stream, step, layer as u64).unwrap_or_default()
    }

    /// A sequence's number in the step.
    fn sequence(&self, in_pass: usize) -> u64 {
        self.dropout.map_or(0, |key| key.first_sequence).wrapping_add(in_pass as u64)
    }

    fn attention(&self, mask: Option<Mask>, sequence: usize) -> Attention {
        Attention {
            heads: self.plan.config.heads,
            width: self.plan.config.width,
            mask,
            sequence: self.sequence(sequence),
        }
    }

    /// Applies `f` to rows of `C` columns, the first of which is that row of the pass: to those of each sequence with the
    /// mask that they have, and the position of the first.
    #[inline(never)]
    fn each_masked(&self, first: usize, mut x: &mut [f32], mask: Option<Mask>, f: &mut OnRows<'_>) {
        let (t, c) = (self.shape.length, self.plan.config.width);
        let mut row = first;
        while let (Some(sequence), Some(position)) = (row.checked_div(t), row.checked_rem(t)) {
            let here = (t - position).min(x.len().checked_div(c).unwrap_or(0));
            let Some(rows) = x.split_off_mut(..here * c).filter(|rows| !rows.is_empty()) else { return };
            f(rows, mask.map(|mask| mask.at(self.sequence(sequence)).from(position)), position);
            row += here;
        }
    }
}

/// The logits `[R, V]` that [`Pass::forward`] left in the workspace.
pub fn logits<'w>(plan: &Plan, workspace: &'w mut [f32], shape: Shape) -> Result<&'w [f32], Error> {
    Ok(Workspace::new(workspace, plan, shape)?.intermediate.into_logits())
}

/// The queries, keys and values `[R, 3C]` of one block that [`Pass::forward`] left in the workspace: for each
/// sequence, what [`crate::ops::attention`] takes. A plan that recomputes has those of the last block only.
pub fn qkv<'w>(
    plan: &Plan,
    workspace: &'w mut [f32],
    shape: Shape,
    layer: usize,
) -> Result<&'w [f32], Error> {
    let Workspace { layers, .. } = Workspace::new(workspace, plan, shape)?;
    let activations = layers.into_kept(layer, &plan.config, shape.rows());
    Ok(activations.ok_or(Error::Plan { what: "that block's activations" })?.qkv)
}
