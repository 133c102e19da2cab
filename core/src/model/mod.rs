//! The whole model, forward and backward: a listing of operations that reads like the figure of GPT-2. It knows the
//! order of operations. It does not know offsets (`layout`), how operations compute (`ops`), or the use of the
//! gradients (`optimizer`).
//!
//! * `branch.rs`: the forward pass of a block's branches and of the head, for training, recomputation and generation.
//! * `forward.rs`, `backward.rs`: the stages of a training pass.
//! * `adapter.rs`: low-rank adapters of products, forward and backward.
//! * `gradients.rs`: the gradients of parameters, after each stage of backward.
//! * `fused.rs`: the fused optimizer step.
//! * `stage.rs`: the order of the stages, and the loss.
//! * `data_parallel.rs`: each worker runs the pass on its own sequences.
//! * `work_sharing.rs`: all workers share the work of each operation.

mod adapter;
mod backward;
pub(crate) mod branch;
// Bare metal has no data-parallel passes: it needs the flash and the stack for the model.
#[cfg(not(target_os = "none"))]
mod data_parallel;
mod forward;
mod fused;
mod gradients;
mod stage;
mod work_sharing;

use core::ops::Range;

pub use backward::Backward;
pub use forward::Forward;
pub use stage::Stage;
pub(crate) use stage::{Inputs, TrainingPass};
pub(crate) use work_sharing::Workers;

use crate::compact::soft_f64::{self, SoftF64};
use crate::config::{LORA, Module};
use crate::error::{Error, exact_length};
use crate::fault::{self, Watch};
use crate::layout::{Angles, Parameters, Plan, Shape, Workspace, WorkspaceParts};
use crate::ops::attention::Attention;
use crate::ops::dropout::Mask;
use crate::ops::{cross_entropy, embedding, rotary, rows_mut};
use crate::parallel::{Compute, PerUnit};
use crate::rng::Stream;

/// The key of a training pass's dropout masks. Evaluation and generation have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// The step, counted from 0.
    pub step: u64,
    /// The number of the pass's first sequence in the step, so that micro-batches have the masks of one large batch.
    pub first_sequence: u64,
}

/// The loss of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// The sum over targets that count.
    pub sum: f64,
    /// The number of targets that count (are not -1).
    pub counted: usize,
}

impl Loss {
    /// The mean over targets that count; 0 if none does.
    pub fn mean(self) -> f32 {
        if self.counted == 0 {
            0.0
        } else {
            soft_f64::quotient(SoftF64::new(self.sum), (self.counted as u64).into()).single()
        }
    }

    /// The loss of both together.
    pub fn plus(self, other: Loss) -> Loss {
        let sum = (SoftF64::new(self.sum) + SoftF64::new(other.sum)).get();
        Loss { sum, counted: self.counted + other.counted }
    }
}

/// Backward's treatment of the previous contents of the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// Adds to them, for a further micro-batch.
    Add,
    /// Overwrites them, for the first micro-batch of a step.
    Overwrite,
}

/// One pass of a model over tokens `[B, T]`.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// The means of computing.
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
    /// The dropout masks, in training; otherwise `None`.
    pub dropout: Option<DropoutKey>,
}

/// The function that [`Pass::each_masked`] calls with rows, their mask, and the position of the first row.
type OnRows<'f> = dyn FnMut(&mut [f32], Option<Mask>, usize) + 'f;

/// Whether a pass begins, or continues in the workspace of the stages before.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Beginning {
    Begins,
    Continues,
}

/// Some rows of a matrix with `columns` columns.
#[inline(never)]
fn rows_of<'a, T>(x: &'a [T], rows: &Range<usize>, columns: usize) -> &'a [T] {
    x.get(rows.start * columns..rows.end * columns).unwrap_or_else(|| {
        fault::report(&"rows of a matrix");
        &[]
    })
}

/// The first rows of a matrix with `columns` columns.
fn rows_in(x: &mut [f32], rows: usize, columns: usize) -> &mut [f32] {
    x.get_mut(..rows * columns).unwrap_or_default()
}

impl Pass<'_> {
    /// Whether a block's forward keeps the output and the slope of the activation function. The last block's does, if
    /// their memory is not reused before its backward. Other blocks recompute both.
    fn keeps_activated(&self, layer: usize) -> bool {
        let crate::Config { layers, tied, .. } = self.plan.config;
        tied && layer + 1 == layers && !self.plan.options.fused && !self.adapter_drops(Module::MlpOut)
    }

    /// Whether a matrix has an adapter with dropout. Backward then needs all columns of its input at once.
    fn adapter_drops(&self, module: Module) -> bool {
        let lora = self.plan.config.lora();
        LORA && lora.rank(module) > 0 && lora.dropout > 0.0
    }

    /// Calls `f` with some columns of the hidden width, row by row. Its arguments are the gate's part of a row of `x`, which
    /// is empty without a gate, the other factor's part, and the row of `y`. If the rows have no other columns, it is one call
    /// with all rows.
    fn with_columns(
        &self,
        x: &mut [f32],
        columns: &Range<usize>,
        y: &mut [f32],
        mut f: impl FnMut(&mut [f32], &mut [f32], &mut [f32]),
    ) {
        let (hidden, width) = (self.plan.config.hidden, self.plan.config.activation_inputs());
        let of_gate = width - hidden;
        let whole = columns.len() == width;
        let (width, columns) = if whole { (x.len(), 0..x.len()) } else { (width, columns.clone()) };
        for (x, y) in rows_mut(x, width).zip(rows_mut(y, columns.len())) {
            if of_gate == 0 {
                f(&mut [], x.get_mut(columns.clone()).unwrap_or_default(), y);
            } else if let Some((gate, x)) = x.split_at_mut_checked(of_gate) {
                let [gate, x] = [gate, x].map(|x| x.get_mut(columns.clone()).unwrap_or_default());
                f(gate, x, y);
            }
        }
    }

    /// Computes the logits `[R, V]`, which [`Plan::logits`] then finds in the workspace.
    ///
    /// `workspace`: exactly [`Plan::workspace`] elements.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan's head is chunked ([`crate::Options::head_rows`]).
    pub fn forward(&self, workspace: &mut [f32]) -> Result<(), Error> {
        self.plan.check_logits()?;
        let watch = Watch::begin();
        let mut workspace = self.check(workspace, Beginning::Begins)?;
        self.forward_trusted(&mut workspace);
        watch.end()
    }

    /// The loss on `targets [R]`, each in `0..vocab` or -1 (ignored). Overwrites the workspace.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it is NaN or infinite.
    pub fn loss(&self, workspace: &mut [f32], targets: &[i32]) -> Result<Loss, Error> {
        let (watch, counted) = (Watch::begin(), self.check_targets(targets)?);
        #[cfg(not(target_os = "none"))]
        if let Some(workers) = self.data_parallel_workers() {
            let sum = self.data_parallel(workers, None, workspace, targets, counted)?;
            watch.end()?;
            return Ok(Loss { sum: stage::finite(sum)?, counted });
        }
        let workspace = &mut self.check(workspace, Beginning::Begins)?;
        self.forward_trusted(workspace);
        let sum = self.losses(workspace, targets, counted, false);
        watch.end()?;
        Ok(Loss { sum: stage::finite(sum)?, counted })
    }

    /// Forward, loss and backward: computes the gradient of the sum of losses on `targets [R]` divided by `counted`.
    /// `counted` is the number of targets that count in the whole step, so that micro-batches add up to a mean.
    ///
    /// `gradients`: exactly [`Plan::gradients`] elements, unchanged if the loss is not finite.
    ///
    /// # Errors
    /// [`Error::Fused`] if the plan has room for the gradients of some rows only.
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
        let (watch, on_targets) = (Watch::begin(), self.check_targets(targets)?);
        let sum = self.whole(gradients, mode, workspace, targets, counted);
        // A fault may be the reason why the loss is not finite.
        watch.end()?;
        Ok(Loss { sum: sum?, counted: on_targets })
    }

    pub(crate) fn check<'w>(
        &self,
        workspace: &'w mut [f32],
        beginning: Beginning,
    ) -> Result<Workspace<'w>, Error> {
        Ok(Workspace::cut(self.parts(workspace, beginning)?, self.plan, self.shape))
    }

    /// Refuses buffers and shapes that do not match. A pass that begins writes the angles of its positions.
    fn parts<'w>(&self, workspace: &'w mut [f32], beginning: Beginning) -> Result<WorkspaceParts<'w>, Error> {
        exact_length("parameters", self.parameters.len(), self.plan.parameters)?;
        exact_length("frozen parameters", self.frozen.len(), self.plan.frozen)?;
        let config = &self.plan.config;
        let parts = WorkspaceParts::new(workspace, self.plan, self.shape, |Angles { cos, sin }| {
            if config.is_rotary() && beginning == Beginning::Begins {
                let [cos, sin] = [cos, sin].map(|x| rows_in(x, self.shape.length, config.head_width() / 2));
                rotary::angles(cos, sin, 0, config.head_width(), &config.rope);
            }
        })?;
        exact_length("tokens", self.tokens.len(), self.rows())?;
        embedding::check_tokens(self.tokens, config.vocab)?;
        Ok(parts)
    }

    pub(crate) fn check_targets(&self, targets: &[i32]) -> Result<usize, Error> {
        exact_length("targets", targets.len(), self.rows())?;
        cross_entropy::count_targets(targets, self.plan.config.vocab)
    }

    #[inline(never)]
    fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// The workers' scratch, with the length of one worker's part.
    fn scratch<'w>(&self, worker_scratch: &'w mut [f32]) -> PerUnit<'w> {
        let each = worker_scratch.len().checked_div(self.plan.options.threads).unwrap_or(0);
        (worker_scratch, each)
    }

    fn workers<'t>(&'t self, worker_scratch: &'t mut [f32]) -> Workers<'t> {
        Workers { compute: self.compute, shape: self.shape, scratch: self.scratch(worker_scratch) }
    }

    fn parameters(&self) -> Parameters<'_> {
        Parameters::new(self.parameters, self.frozen, self.plan)
    }

    /// A layer's dropout mask for this stream, if any.
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

    pub(crate) fn attention(&self, mask: Option<Mask>, sequence: usize) -> Attention {
        Attention {
            heads: self.plan.config.heads,
            kv_heads: self.plan.config.kv_heads(),
            width: self.plan.config.attended(),
            mask,
            sequence: self.sequence(sequence),
        }
    }

    /// Applies `f` to rows of `width` columns, which begin at row `first` of the pass. It is called for the rows of each
    /// sequence, with their mask, and the position of the first row.
    #[inline(never)]
    fn each_masked(
        &self,
        first: usize,
        (mut x, width): (&mut [f32], usize),
        mask: Option<Mask>,
        f: &mut OnRows<'_>,
    ) {
        let t = self.shape.length;
        let mut row = first;
        while let (Some(sequence), Some(position)) = (row.checked_div(t), row.checked_rem(t)) {
            let here = (t - position).min(x.len().checked_div(width).unwrap_or(0));
            let Some(rows) = x.split_off_mut(..here * width).filter(|rows| !rows.is_empty()) else { return };
            f(rows, mask.map(|mask| mask.at(self.sequence(sequence)).from(position)), position);
            row += here;
        }
    }
}

/// The logits `[R, V]` of [`Pass::forward`], in the workspace.
impl Plan {
    /// The logits `[R, V]` of [`Pass::forward`], in the workspace.
    pub fn logits<'w>(&self, workspace: &'w mut [f32], shape: Shape) -> Result<&'w [f32], Error> {
        self.check_logits()?;
        Ok(Workspace::new(workspace, self, shape)?.regions.into_logits())
    }

    /// Refuses a plan whose logits never exist all at once.
    fn check_logits(&self) -> Result<(), Error> {
        if self.options.chunks_head() { Err(Error::Plan { what: "the logits of all rows" }) } else { Ok(()) }
    }

    /// The queries, keys and values `[R, H D + 2 K D]` of one block after [`Pass::forward`], in the workspace: for each
    /// sequence, the input of [`crate::ops::attention`]. With recomputation only the last block has them.
    pub fn qkv<'w>(&self, workspace: &'w mut [f32], shape: Shape, layer: usize) -> Result<&'w [f32], Error> {
        let kept = Workspace::new(workspace, self, shape)?.regions.into_kept(layer);
        Ok(kept.ok_or(Error::Plan { what: "that block's activations" })?.attention.qkv)
    }
}
