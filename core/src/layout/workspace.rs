//! Cuts the workspace into activations and scratch, and sizes it. The sizes and the cuts of a piece stand
//! together, since they must agree.

use super::parameters::Cut;
use super::{Count, Options, Plan, Shape, checked};
use crate::config::Config;
use crate::error::{Error, exact_length};
use crate::generate;
use crate::matmul;
use crate::ops::attention;
use crate::target::Target;

/// What one block's forward leaves for its backward, besides the residual stream. R rows.
pub(crate) struct LayerActivations<'a> {
    pub ln_1_mean: &'a mut [f32],       // [R]
    pub ln_1_rstd: &'a mut [f32],       // [R]
    pub qkv: &'a mut [f32],             // [R, 3C]
    pub attention_stats: &'a mut [f32], // [B, H, T, 2]: row maximum, reciprocal of the row's sum
    pub attended: &'a mut [f32],        // [R, C]
    pub ln_2_mean: &'a mut [f32],       // [R]
    pub ln_2_rstd: &'a mut [f32],       // [R]
    pub wide: &'a mut [f32], // [R, F], before the activation; after the MLP's backward [R, 3C], the gradient of qkv
}

const fn layer_elements_per_row(config: &Config) -> Count {
    checked(config.width).times(4).add(checked(4)).add(checked(2 * config.heads)).add(checked(wide(config)))
}

/// The hidden width, or that of what has its place after the MLP's backward.
const fn wide(config: &Config) -> usize {
    max(config.hidden, 3 * config.width)
}

impl<'a> LayerActivations<'a> {
    pub fn new(mut region: &'a mut [f32], config: &Config, rows: usize) -> LayerActivations<'a> {
        let c = config.width;
        LayerActivations {
            ln_1_mean: region.cut(rows),
            ln_1_rstd: region.cut(rows),
            qkv: region.cut(rows * 3 * c),
            attention_stats: region.cut(rows * 2 * config.heads),
            attended: region.cut(rows * c),
            ln_2_mean: region.cut(rows),
            ln_2_rstd: region.cut(rows),
            wide: region.cut(rows * wide(config)),
        }
    }
}

/// For how many blocks activations are kept: for all that backward goes through, or for the one that forward or backward
/// is at. They are the last ones; those before share the first's place.
const fn kept_layers(config: &Config, options: &Options) -> usize {
    let backward = options.frozen.backward_layers(config);
    if options.recompute || backward == 0 { 1 } else { backward }
}

/// The activations of the last blocks, and a place for the others.
pub(crate) struct Layers<'a> {
    region: &'a mut [f32],
    kept: usize,
}

impl<'a> Layers<'a> {
    /// The place of block `layer`'s activations.
    pub fn of(&mut self, layer: usize, config: &Config, rows: usize) -> LayerActivations<'_> {
        let per_layer = self.region.len().checked_div(self.kept).unwrap_or(0);
        let first = layer.saturating_sub(config.layers.saturating_sub(self.kept)) * per_layer;
        let region = self.region.get_mut(first..first + per_layer).unwrap_or_default();
        LayerActivations::new(region, config, rows)
    }

    /// Block `layer`'s activations, if a whole forward pass leaves them.
    pub fn into_kept(self, layer: usize, config: &Config, rows: usize) -> Option<LayerActivations<'a>> {
        let per_layer = self.region.len().checked_div(self.kept)?;
        let place = layer.checked_sub(config.layers.checked_sub(self.kept)?)?;
        let region = self.region.chunks_exact_mut(per_layer.max(1)).nth(place)?;
        Some(LayerActivations::new(region, config, rows))
    }
}

/// x before each block and after the last, and x between the halves of the last blocks. The last x has the place
/// of what enters a residual branch backward: nothing looks at it any more when backward comes to the blocks.
pub(crate) struct Residual<'a> {
    x: &'a mut [f32],      // [L][R, C]
    middle: &'a mut [f32], // [kept][R, C]
    branch: &'a mut [f32], // [R, C]: the last x, then d_branch
    skipped: usize,        // L - kept
    len: usize,            // R * C
}

impl Residual<'_> {
    /// x before the first block.
    pub fn first_mut(&mut self) -> &mut [f32] {
        self.x.get_mut(..self.len).unwrap_or_default()
    }

    /// x after the last block, in forward and in the head's backward.
    pub fn last(&self) -> &[f32] {
        self.branch
    }

    fn middle_at(&self, layer: usize) -> usize {
        layer.saturating_sub(self.skipped) * self.len
    }

    /// Before block `layer`, between its halves, and after it.
    pub fn of(&mut self, layer: usize) -> (&[f32], &mut [f32], &mut [f32]) {
        let first = self.middle_at(layer);
        let middle = self.middle.get_mut(first..first + self.len).unwrap_or_default();
        let mut x = self.x.get_mut(layer * self.len..).unwrap_or_default();
        let before = x.cut(self.len);
        (before, middle, if x.is_empty() { self.branch } else { x.cut(self.len) })
    }

    /// Before block `layer`, between its halves, and d_branch.
    pub fn backward(&mut self, layer: usize) -> (&[f32], &[f32], &mut [f32]) {
        let first = self.middle_at(layer);
        let middle = self.middle.get(first..first + self.len).unwrap_or_default();
        let x = self.x.get(layer * self.len..(layer + 1) * self.len).unwrap_or_default();
        (x, middle, self.branch)
    }
}

const fn residual_elements_per_row(config: &Config, options: &Options) -> Count {
    checked(config.width).times(config.layers + kept_layers(config, options))
}

/// The last norm's output and the logits stay to the end where the head is tied, and have the place of a block's
/// intermediate results where it is not.
const fn tail_elements_per_row(config: &Config) -> Count {
    let head = if config.tied { checked(config.width).add(checked(config.vocab)) } else { Count::ZERO };
    checked(3).add(head)
}

/// All that forward leaves for backward of a row, its loss among it.
pub(super) const fn activations_per_row(config: &Config, options: &Options) -> Count {
    let layers = layer_elements_per_row(config).times(kept_layers(config, options));
    layers.add(residual_elements_per_row(config, options)).add(tail_elements_per_row(config))
}

pub(super) const fn scratch_elements_per_row(
    config: &Config,
    options: &Options,
    hidden_columns: usize,
) -> Count {
    let of_width = if options.fused { 3 } else { 4 };
    checked(config.width).times(of_width).add(checked(activated(config, options, hidden_columns)))
}

/// How many columns of the activated hidden width there are at a time: all, or as many as a fused update makes rows of the
/// next weight's gradient, which it can then do without.
pub(super) const fn hidden_columns(config: &Config, options: &Options, gradients: usize) -> usize {
    match gradients.checked_div(config.width) {
        Some(rows) if options.fused && rows < config.hidden => rows,
        _ => config.hidden,
    }
}

/// The columns of what the MLP activates, or of the logits or of the norm's output that have its place.
const fn activated(config: &Config, options: &Options, hidden_columns: usize) -> usize {
    let columns = if config.tied { hidden_columns } else { max(hidden_columns, config.vocab) };
    if options.fused { max(columns, config.width) } else { columns }
}

/// What the head is made of and makes, and what the halves of blocks hold in between: in one place where the head is not
/// tied, since nothing of it is looked at then once its own backward is done.
pub(crate) struct Intermediate<'a> {
    head: &'a mut [f32], // [R, C] and [R, V], or empty
    normed: &'a mut [f32],
    activated: &'a mut [f32],
    logits: usize, // R * V
}

impl<'a> Intermediate<'a> {
    /// [`Intermediate::head`]'s logits.
    pub fn into_logits(self) -> &'a mut [f32] {
        let Intermediate { mut head, normed, mut activated, logits } = self;
        head.cut(normed.len().min(head.len()));
        if head.is_empty() { activated.cut(logits) } else { head.cut(logits) }
    }

    /// The last norm's output `[R, C]`, and the logits `[R, V]`; their gradient after the loss.
    pub fn head(&mut self) -> (&mut [f32], &mut [f32]) {
        let Intermediate { head, normed, activated, logits } = self;
        let mut head = &mut **head;
        if head.is_empty() {
            (normed, activated.get_mut(..*logits).unwrap_or_default())
        } else {
            (head.cut(normed.len()), head.cut(*logits))
        }
    }

    /// For the last part of a stage of backward, or another: the norm's output and its gradient, `[R, C]` each, and the place
    /// of what the MLP activates. Where the update is fused, and `d_normed` empty, the gradient has the place of the norm's
    /// output in forward, and the output, which the last part alone makes again, that of what earlier ones activate.
    pub fn backward<'b>(
        &'b mut self,
        d_normed: &'b mut [f32],
        last: bool,
    ) -> (&'b mut [f32], &'b mut [f32], &'b mut [f32]) {
        match (d_normed.is_empty(), last) {
            (false, _) => (self.normed, d_normed, self.activated),
            (true, true) => (self.activated, self.normed, &mut []),
            (true, false) => (&mut [], self.normed, self.activated),
        }
    }

    /// For half a block: the norm's output `[R, C]`, and the place of what the MLP activates.
    pub fn block(&mut self) -> (&mut [f32], &mut [f32]) {
        (self.normed, self.activated)
    }
}

/// The workspace, cut for one pass of R rows.
pub(crate) struct Workspace<'a> {
    pub residual: Residual<'a>,
    pub layers: Layers<'a>,
    pub final_mean: &'a mut [f32], // [R]
    pub final_rstd: &'a mut [f32], // [R]
    pub losses: &'a mut [f32],     // [R]
    pub d_residual: &'a mut [f32], // [R, C]
    /// `[R, C]`; empty where the update is fused: see [`Intermediate::backward`].
    pub d_normed: &'a mut [f32],
    pub intermediate: Intermediate<'a>,
    pub workers: &'a mut [f32], // [threads, worker_scratch]
}

/// The parts of the workspace that belong to rows, and to workers. Rows' can be cut where a sequence begins.
pub(crate) struct Regions<'a> {
    pub losses: &'a mut [f32],  // [R]
    pub rows: &'a mut [f32],    // at least [R, per_row]
    pub scratch: &'a mut [f32], // [threads, worker_scratch]
}

impl<'a> Regions<'a> {
    /// Of a slice of exactly [`Plan::workspace`] elements.
    pub fn new(mut region: &'a mut [f32], plan: &Plan, shape: Shape) -> Result<Regions<'a>, Error> {
        exact_length("workspace", region.len(), plan.workspace())?;
        plan.check(shape)?;
        let of_rows = plan.per_row().saturating_add(1).saturating_mul(plan.rows());
        let losses = region.cut(shape.rows());
        let rows = region.cut(of_rows.saturating_sub(losses.len()));
        Ok(Regions { losses, rows, scratch: region })
    }
}

impl Plan {
    /// R of a full batch.
    const fn rows(&self) -> usize {
        Shape { sequences: self.options.batch, length: self.config.context }.rows()
    }

    /// Elements of the workspace that belong to a row, besides its loss.
    pub(crate) const fn per_row(&self) -> usize {
        let Plan { config, options, .. } = self;
        let scratch = scratch_elements_per_row(config, options, self.hidden_columns());
        activations_per_row(config, options).add(scratch).0 - 1
    }
}

impl<'a> Workspace<'a> {
    /// The whole of [`Regions::new`].
    pub fn new(region: &'a mut [f32], plan: &Plan, shape: Shape) -> Result<Workspace<'a>, Error> {
        Ok(Workspace::cut(Regions::new(region, plan, shape)?, plan, shape))
    }

    /// Of rows of that shape, at least so many.
    pub fn cut(regions: Regions<'a>, plan: &Plan, shape: Shape) -> Workspace<'a> {
        let Regions { losses, rows: mut region, scratch } = regions;
        let config = &plan.config;
        let (rows, c) = (shape.rows(), config.width);
        let layer = layer_elements_per_row(config).times(rows).0;
        let kept = kept_layers(config, &plan.options);
        Workspace {
            residual: Residual {
                x: region.cut(config.layers * rows * c),
                middle: region.cut(kept * rows * c),
                branch: region.cut(rows * c),
                skipped: config.layers.saturating_sub(kept),
                len: rows * c,
            },
            layers: Layers { region: region.cut(kept * layer), kept },
            final_mean: region.cut(rows),
            final_rstd: region.cut(rows),
            losses,
            d_residual: region.cut(rows * c),
            d_normed: region.cut(if plan.options.fused { 0 } else { rows * c }),
            intermediate: Intermediate {
                head: region.cut(if config.tied { rows * (c + config.vocab) } else { 0 }),
                normed: region.cut(rows * c),
                // All that is left, however few rows the pass has: attention may be there.
                activated: region,
                logits: rows * config.vocab,
            },
            workers: scratch,
        }
    }
}

/// The scratch of one worker's products and of its tiles of attention, unless these find `elsewhere` elements.
pub(super) const fn worker_scratch(config: &Config, rows: usize, elsewhere: usize, target: Target) -> usize {
    let (c, f, v) = (config.width, config.hidden, config.vocab);
    // Each side of each product is one of these; rows are the inner index of the gradients of weights.
    let longest = max(max(max(3 * c, f), v), max(rows, config.context));
    let products = matmul::scratch_on(target, longest, longest);
    let attention = attention::worker_scratch(target, config.context, config.head_width());
    // A row of the residual stream, too.
    max(max(products, c), if attention <= elsewhere { 0 } else { attention })
}

/// The scratch of attention: that of the worker, or the place of what the MLP activates. Where only one of them is long
/// enough, it is the longer.
pub(crate) fn attention_scratch<'a>(scratch: &'a mut [f32], activated: &'a mut [f32]) -> &'a mut [f32] {
    let elsewhere = matches!(Target::HERE, Target::Portable) && activated.len() > scratch.len();
    if elsewhere { activated } else { scratch }
}

/// How many elements of what the MLP activates a worker's attention may use meanwhile: all of them, where the update is
/// fused, and one worker does everything and has no vectors.
pub(super) const fn attention_elsewhere(
    config: &Config,
    options: &Options,
    hidden_columns: usize,
    target: Target,
) -> usize {
    if !options.fused || options.threads > 1 || matches!(target, Target::Vectors) {
        return 0;
    }
    activated(config, options, hidden_columns).saturating_mul(options.batch).saturating_mul(config.context)
}

/// What a fused update makes of a gradient at a time: so many rows of the widest weight, or all of the largest.
pub(super) const fn fused_gradient(config: &Config, target: Target) -> usize {
    let (c, f) = (config.width, config.hidden);
    let widest = max(c.saturating_mul(3), f);
    let largest = max(max(config.vocab, config.context), widest).saturating_mul(c);
    let rows = widest.saturating_mul(matmul::rows_enough(target));
    if rows < largest { rows } else { largest }
}

/// Keys and values of the whole context, a chunk of rows, the logits, and a worker's scratch.
pub(super) const fn generation(config: &Config, target: Target) -> Count {
    let cache = checked(2).times(config.layers).times(config.context).times(config.width);
    let per_row = checked(config.width).times(7).add(checked(config.hidden).times(2)).add(checked(4));
    let chunk = generate::chunk(target);
    let rows = per_row.times(chunk);
    cache.add(rows).add(checked(config.vocab)).add(checked(worker_scratch(config, chunk, 0, target)))
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    /// Whether attention's scratch is among what the MLP activates or the worker's, and however short the sequences are.
    #[test]
    fn attention_finds_its_scratch_on_small_machines() {
        let (mut among_activated, mut apart) = (0, 0);
        for (context, width, hidden) in [(64, 64, 256), (12, 32, 128), (16, 16, 64), (40, 8, 8)] {
            for (vocab, fused, batch) in [(18, true, 1), (18, false, 2), (27, true, 1), (5, true, 2)] {
                let config = Config { hidden, tied: false, ..Config::new(vocab, context, 1, 1, width) };
                let options = Options { fused, ..Options::new(batch) };
                let plan = Plan::on(Target::Portable, &config, &options).unwrap();
                let mut memory = vec![0.0; plan.workspace()];
                for length in 1..=context {
                    let shape = Shape { sequences: 1, length };
                    let Workspace { workers, mut intermediate, .. } =
                        Workspace::new(&mut memory, &plan, shape).unwrap();
                    let (_, activated) = intermediate.block();
                    let wanted = attention::worker_scratch(Target::Portable, length, width);
                    assert!(workers.len().max(activated.len()) >= wanted, "{config:?} {length}");
                    *if activated.len() > workers.len() { &mut among_activated } else { &mut apart } += 1;
                }
            }
        }
        assert!(among_activated > 0 && apart > 0);
    }
}
