//! The workspace of a pass: its regions, cut for some rows, and the views of them that each stage of the pass uses.

use super::regions::{
    Activations, Angles, AttentionActivations, Generation, HeadRows, MlpActivations, Scratch, Sizes,
};
use super::{Count, Cut, Options, Plan, Shape};
use crate::config::{Config, LORA, Module};
use crate::error::{Error, exact_length};
use crate::matmul;
use crate::ops::attention;
use crate::target::Target;

/// The workspace, cut for one pass of R rows.
pub(crate) struct Workspace<'a> {
    pub regions: RowRegions<'a>,
    pub rotation: Rotation<'a>,
    /// `[threads, worker_scratch]`.
    pub worker_scratch: &'a mut [f32],
}

/// The regions that belong to rows.
pub(crate) struct RowRegions<'a> {
    /// `[R]`.
    pub losses: &'a mut [f32],
    activations: Activations<'a>,
    scratch: Scratch<'a>,
    /// `[head_rows, V]`.
    some_logits: &'a mut [f32],
    sizes: Sizes,
    rows: usize,
}

/// The cosines and sines of the positions of some rows, each `[rows, D / 2]`; empty if positions are not rotary.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rotation<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

/// The parts of the workspace that belong to rows, and to workers. Rows can be divided between sequences.
pub(crate) struct WorkspaceParts<'a> {
    /// `[R]`.
    pub losses: &'a mut [f32],
    /// At least `[R, per_row]`: [`Activations`], then [`Scratch`].
    pub rows: &'a mut [f32],
    /// The angles of all positions.
    pub rotation: Rotation<'a>,
    /// The logits of some rows, if the head is chunked.
    pub some_logits: &'a mut [f32],
    /// `[threads, worker_scratch]`.
    pub worker_scratch: &'a mut [f32],
}

impl<'a> WorkspaceParts<'a> {
    /// Cuts a slice of exactly [`Plan::workspace`] elements. `prepare` may write the angles.
    pub fn new(
        mut memory: &'a mut [f32],
        plan: &Plan,
        shape: Shape,
        prepare: impl FnOnce(&mut Angles<'_>),
    ) -> Result<WorkspaceParts<'a>, Error> {
        exact_length("workspace", memory.len(), plan.workspace())?;
        plan.check(shape)?;
        let sizes = plan.sizes();
        let scratch = Scratch::per_row(&sizes).times(plan.rows()).get();
        let of_rows = plan.activations.saturating_add(scratch);
        let losses = memory.cut(shape.rows());
        let rows = memory.cut(of_rows.saturating_sub(losses.len()));
        let mut angles = Angles::cut(&mut memory, &sizes, plan.config.context);
        prepare(&mut angles);
        let rotation = Rotation { cos: angles.cos, sin: angles.sin };
        let some_logits = if plan.options.chunks_head() {
            HeadRows::cut(&mut memory, &sizes, plan.head_rows()).logits
        } else {
            &mut []
        };
        Ok(WorkspaceParts { losses, rows, rotation, some_logits, worker_scratch: memory })
    }
}

/// The view for a block's forward pass.
pub(crate) struct BlockForward<'w> {
    /// The residual stream before the block, between its branches, and after it.
    pub x: &'w [f32],
    pub middle: &'w mut [f32],
    pub after: &'w mut [f32],
    pub kept: BlockActivations<'w>,
    pub normed: &'w mut [f32],
    pub activated: &'w mut [f32],
}

/// The view for a block's backward pass.
pub(crate) struct BlockBackward<'w> {
    pub x: &'w [f32],
    pub middle: &'w [f32],
    pub kept: BlockActivations<'w>,
    pub d_branch: &'w mut [f32],
    pub d_residual: &'w mut [f32],
    pub d_normed: &'w mut [f32],
    pub normed: &'w mut [f32],
    pub activated: &'w mut [f32],
}

/// In a fused step some regions of a view share memory. The regions in use have elements, and the others are empty.
#[derive(Clone, Copy)]
pub(crate) enum InUse {
    /// The activation function's output, and the head's input.
    Activated,
    /// A norm's recomputed output, and its gradient.
    Normed,
}

/// The view for the head, the final norm and the loss, forward and backward.
pub(crate) struct Head<'w> {
    /// The residual stream after the last block.
    pub x: &'w [f32],
    pub mean: &'w mut [f32],
    pub rstd: &'w mut [f32],
    /// The final norm's output `[R, C]`.
    pub input: &'w mut [f32],
    /// `[R, V]`: the logits, and after the loss their gradient; in a chunked head `[head_rows, V]`.
    pub logits: &'w mut [f32],
    /// `[R, SOFTMAX]`, if the head is chunked.
    pub softmax: &'w mut [f32],
    pub losses: &'w mut [f32],
    pub d_residual: &'w mut [f32],
    pub d_normed: &'w mut [f32],
}

impl<'a> Workspace<'a> {
    /// Cuts a slice of exactly [`Plan::workspace`] elements.
    pub fn new(memory: &'a mut [f32], plan: &Plan, shape: Shape) -> Result<Workspace<'a>, Error> {
        Ok(Workspace::cut(WorkspaceParts::new(memory, plan, shape, |_| {})?, plan, shape))
    }

    /// Cuts parts that have at least the rows of the shape.
    pub fn cut(parts: WorkspaceParts<'a>, plan: &Plan, shape: Shape) -> Workspace<'a> {
        let WorkspaceParts { losses, rows: mut memory, rotation, some_logits, worker_scratch } = parts;
        let (sizes, rows) = (plan.sizes(), shape.rows());
        let activations = Activations::cut(&mut memory, &sizes, rows);
        let scratch = Scratch::cut(&mut memory, &sizes, rows);
        Workspace {
            regions: RowRegions { losses, activations, scratch, some_logits, sizes, rows },
            rotation,
            worker_scratch,
        }
    }
}

impl<'a> RowRegions<'a> {
    /// The residual stream before the first block.
    pub fn first_x(&mut self) -> &mut [f32] {
        let len = self.width();
        self.activations.x.get_mut(..len).unwrap_or_default()
    }

    /// The gradient of the residual stream.
    pub fn d_residual(&mut self) -> &mut [f32] {
        self.scratch.d_residual
    }

    pub fn block_forward(&mut self, layer: usize) -> BlockForward<'_> {
        let (len, place) = (self.width(), self.sizes.kept_place(layer));
        let Activations { x, middle, blocks, .. } = &mut self.activations;
        let Scratch { last_x, normed, activated, .. } = &mut self.scratch;
        let mut x = x.get_mut(layer * len..).unwrap_or_default();
        let before = x.cut(len);
        BlockForward {
            x: before,
            middle: middle.get_mut(place * len..(place + 1) * len).unwrap_or_default(),
            after: if x.is_empty() { last_x } else { x.cut(len) },
            kept: BlockActivations::at(blocks, place, &self.sizes, self.rows),
            normed,
            activated,
        }
    }

    pub fn block_backward(&mut self, layer: usize, in_use: InUse) -> BlockBackward<'_> {
        let (len, place) = (self.width(), self.sizes.kept_place(layer));
        let Activations { x, middle, blocks, .. } = &mut self.activations;
        let Scratch { last_x: d_branch, d_residual, d_normed, normed, activated } = &mut self.scratch;
        let (d_normed, normed, activated): (&mut [f32], &mut [f32], &mut [f32]) =
            match (self.sizes.fused, in_use) {
                (false, _) => (d_normed, normed, activated),
                (true, InUse::Activated) => (normed, &mut [], activated),
                (true, InUse::Normed) => (normed, activated, &mut []),
            };
        BlockBackward {
            x: x.get(layer * len..(layer + 1) * len).unwrap_or_default(),
            middle: middle.get(place * len..(place + 1) * len).unwrap_or_default(),
            kept: BlockActivations::at(blocks, place, &self.sizes, self.rows),
            d_branch,
            d_residual,
            d_normed,
            normed,
            activated,
        }
    }

    #[inline(never)]
    pub fn head(&mut self, in_use: InUse) -> Head<'_> {
        let Sizes { tied, fused, chunked_head, .. } = self.sizes;
        let logits_len = self.rows * self.sizes.vocab.get();
        let Activations { final_mean: mean, final_rstd: rstd, tied_head_input, tied_logits, softmax, .. } =
            &mut self.activations;
        let Scratch { last_x: x, d_residual, d_normed, normed, activated } = &mut self.scratch;
        let (normed, d_normed): (&mut [f32], &mut [f32]) = match (fused, in_use) {
            (false, _) => (normed, d_normed),
            (true, InUse::Activated) => (normed, &mut []),
            (true, InUse::Normed) => (&mut [], normed),
        };
        let (input, all_logits): (&mut [f32], &mut [f32]) = match tied {
            true => (tied_head_input, tied_logits),
            false => (normed, activated.get_mut(..logits_len).unwrap_or_default()),
        };
        let logits =
            if cfg!(feature = "head-rows") && chunked_head { &mut *self.some_logits } else { all_logits };
        Head { x, mean, rstd, input, logits, softmax, losses: self.losses, d_residual, d_normed }
    }

    /// A block's activations, if forward has not reused their memory for another block.
    pub fn into_kept(self, layer: usize) -> Option<BlockActivations<'a>> {
        let Sizes { kept, layers, .. } = self.sizes;
        let place = (layer + kept).checked_sub(layers)?;
        (layer < layers).then(|| BlockActivations::at(self.activations.blocks, place, &self.sizes, self.rows))
    }

    /// The logits `[R, V]`.
    pub fn into_logits(mut self) -> &'a [f32] {
        match self.sizes.tied {
            true => self.activations.tied_logits,
            false => self.scratch.activated.cut(self.rows * self.sizes.vocab.get()),
        }
    }

    /// `R C`.
    fn width(&self) -> usize {
        self.sizes.width.get() * self.rows
    }
}

impl Sizes {
    /// The place of a block's activations among the kept ones. The last blocks have places of their own. The blocks
    /// before them share the first place.
    fn kept_place(&self, layer: usize) -> usize {
        (layer + self.kept).saturating_sub(self.layers)
    }
}

/// What one block's forward leaves for its backward besides the residual stream.
pub(crate) struct BlockActivations<'a> {
    pub attention: AttentionActivations<'a>,
    pub mlp: MlpActivations<'a>,
}

impl<'a> BlockActivations<'a> {
    /// The activations at a place among the kept ones.
    fn at(blocks: &'a mut [f32], place: usize, sizes: &Sizes, rows: usize) -> BlockActivations<'a> {
        let per_row = AttentionActivations::per_row(sizes).add(MlpActivations::per_row(sizes));
        let mut memory = blocks.get_mut(place * per_row.get() * rows..).unwrap_or_default();
        BlockActivations {
            attention: AttentionActivations::cut(&mut memory, sizes, rows),
            mlp: MlpActivations::cut(&mut memory, sizes, rows),
        }
    }
}

impl Plan {
    pub(crate) const fn sizes(&self) -> Sizes {
        Sizes::new(&self.config, &self.options, self.hidden_columns(), Target::HERE)
    }

    /// R of a full batch.
    const fn rows(&self) -> usize {
        Shape { sequences: self.options.batch, length: self.config.context }.rows()
    }

    /// The rows of logits that exist at a time, if the head is chunked; otherwise 0.
    pub(crate) const fn head_rows(&self) -> usize {
        head_rows(&self.options, self.rows())
    }

    /// The elements of the workspace for one row, besides its loss.
    #[cfg(not(target_os = "none"))]
    pub(crate) const fn per_row(&self) -> usize {
        let sizes = self.sizes();
        Activations::per_row(&sizes).add(Scratch::per_row(&sizes)).get()
    }

    /// The columns of the activation function's output that exist at a time.
    #[inline(never)]
    pub(crate) const fn hidden_columns(&self) -> usize {
        hidden_columns(&self.config, &self.options, self.gradients)
    }
}

/// The columns of the hidden width: all, or in a fused step of a GPT-2 as many as `gradients` has room for rows of the next
/// weight's gradient. A matrix of Llama's, or of an adapter, has a row for each output instead.
pub(super) const fn hidden_columns(config: &Config, options: &Options, gradients: usize) -> usize {
    match gradients.checked_div(config.width) {
        _ if LORA && config.lora().rank(Module::MlpOut) > 0 => config.hidden,
        Some(rows) if options.fused && rows < config.hidden && config.is_gpt2() => rows,
        _ => config.hidden,
    }
}

/// The elements of a row's activations, including its loss, and the elements of its scratch.
pub(super) const fn per_row(sizes: &Sizes) -> [Count; 2] {
    [Activations::per_row(sizes).add(Count::of(1)), Scratch::per_row(sizes)]
}

/// As [`Plan::head_rows`], of a pass with at most so many rows.
pub(super) const fn head_rows(options: &Options, rows: usize) -> usize {
    if options.chunks_head() { min(options.head_rows, rows) } else { 0 }
}

/// The scratch of one worker: for products, for attention's tiles unless `activated` elements are enough for them, and for
/// logits that backward computes again.
pub(super) const fn worker_scratch(
    config: &Config,
    rows: usize,
    head_rows: usize,
    activated: usize,
    target: Target,
) -> usize {
    let (c, v) = (config.width, config.vocab);
    // The sides of all products; rows are the inner index of weights' gradients.
    let widest = max(max(config.qkv(), config.activation_inputs()), max(c, v));
    let longest = max(widest, max(rows, config.context));
    let products =
        matmul::scratch_on(target, longest, longest).saturating_add(dropped_inputs(config, target));
    let attention = attention::worker_scratch(target, config.context, config.head_width());
    // It must also hold a row of the residual stream.
    let all = max(max(products, c), if attention <= activated { 0 } else { attention });
    let logits = head_rows.saturating_mul(min(Plan::VOCABULARY_BLOCK, v));
    max(all, products.saturating_add(logits))
}

/// The number of rows of an adapter's input that a worker drops elements of at a time, in its scratch.
pub(crate) const fn dropped_rows(target: Target) -> usize {
    match target {
        Target::Vectors => 32,
        Target::Portable => 4,
    }
}

/// The elements of as many rows of the widest input.
const fn dropped_inputs(config: &Config, target: Target) -> usize {
    if !LORA || config.lora().is_none() || config.lora().dropout == 0.0 {
        return 0;
    }
    let widest = max(max(config.width, config.attended()), config.hidden);
    widest.saturating_mul(dropped_rows(target))
}

/// Memory for attention's tiles: the worker's scratch, or a region that is unused meanwhile. If only one of them is
/// long enough, it is the longer one.
pub(crate) fn attention_scratch<'a>(scratch: &'a mut [f32], unused: &'a mut [f32]) -> &'a mut [f32] {
    let is_longer = matches!(Target::HERE, Target::Portable) && unused.len() > scratch.len();
    if is_longer { unused } else { scratch }
}

/// The elements of [`Scratch::activated`] that attention's tiles may use: all of them in a fused step with one worker
/// on a portable target, otherwise none.
pub(super) const fn attention_in_activated(
    sizes: &Sizes,
    options: &Options,
    rows: usize,
    target: Target,
) -> usize {
    if !options.fused || options.threads > 1 || matches!(target, Target::Vectors) {
        return 0;
    }
    Scratch::last_per_row(sizes).times(rows).get()
}

/// The gradients that a fused step holds at a time: some rows of the widest weight, or all of the largest tensor.
pub(super) const fn fused_gradient(config: &Config, target: Target) -> usize {
    let (c, f) = (config.width, config.hidden);
    // The longest row of a matrix. In Llama's order a row has the length of the input.
    let widest = if config.is_gpt2() { max(config.qkv(), f) } else { max(max(config.attended(), f), c) };
    let largest =
        max(max(config.vocab, config.context), max(max(config.attended(), f), widest)).saturating_mul(c);
    let rows = widest.saturating_mul(matmul::rows_enough(target));
    if rows < largest { rows } else { largest }
}

/// A generator's memory, with the scratch of the one worker.
pub(super) const fn generation(config: &Config, sizes: &Sizes, target: Target) -> Count {
    Generation::per_row(sizes).add(Count::of(worker_scratch(config, sizes.chunk, 0, 0, target)))
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests;
