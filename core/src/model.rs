//! The whole model, forward and backward: a listing of operations that reads like the figure of GPT-2.
//! Knows the order of things, not where they lie (`layout`), how they are computed (`ops`), or what happens to
//! the gradients (`optimizer`).
//!
//! Forward and the backward of activations go by sequence, each worker taking a share of the batch through a
//! whole layer; gradients of parameters go by parts of the parameter.

use core::ops::Range;

use crate::error::{Error, exact_length};
use crate::layout::{Block, Cut, LayerActivations, Linear, Norm, Parameters, Plan, Shape, Workspace};
use crate::matmul::{Matrix, Size, Start, matmul_parallel, matmul_trusted};
use crate::ops::attention::Attention;
use crate::ops::dropout::Mask;
use crate::ops::{attention, cross_entropy, dropout, embedding, gelu, layer_norm, linear, rows, rows_mut};
use crate::parallel::{Compute, PerUnit};
use crate::rng::Stream;

/// Which dropout masks a training pass uses. Evaluation and generation have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Training {
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
        if self.counted == 0 { 0.0 } else { (self.sum / self.counted as f64) as f32 }
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

impl Gradients {
    const fn start(self) -> Start<'static> {
        match self {
            Gradients::Add => Start::Accumulate,
            Gradients::Overwrite => Start::Zero,
        }
    }

    fn clear(self, gradient: &mut [f32]) {
        if self == Gradients::Overwrite {
            gradient.fill(0.0);
        }
    }
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
    /// B rows of T tokens, each in `0..vocab`.
    pub tokens: &'a [i32],
    /// B and T; at most the plan's batch and the context.
    pub shape: Shape,
    /// Dropout masks, in training; `None` in use.
    pub training: Option<Training>,
}

/// One block's dropout.
#[derive(Clone, Copy)]
struct Masks {
    attention: Option<Mask>,
    attention_projection: Option<Mask>,
    mlp_projection: Option<Mask>,
}

/// The elements of `units`, of `per` elements each.
fn part<'a>(x: &'a [f32], units: &Range<usize>, per: usize) -> &'a [f32] {
    x.get(units.start * per..units.end * per).unwrap_or_default()
}

impl<'a> Pass<'a> {
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
        let mut workspace = self.check(workspace)?;
        self.forward_trusted(&mut workspace);
        let vocab = self.plan.config.vocab;
        let Workspace { losses, logits, .. } = workspace;
        self.by_sequence([(losses, 1), (logits, vocab)], self.rows() * vocab, |range, [losses, logits]| {
            let targets = targets.get(self.row_range(&range)).unwrap_or_default();
            cross_entropy::losses_of_rows(self.compute.simd, losses, logits, targets, vocab);
        });
        Ok(Loss { sum: losses.iter().map(|loss| f64::from(*loss)).sum(), counted })
    }

    /// Forward, loss and backward: the gradient of the sum of losses on `targets [R]` divided by `counted`
    /// (all targets of the step that count, so that micro-batches add up to a mean).
    ///
    /// `gradients`: exactly [`Plan::gradients`] elements, untouched where the loss is not finite.
    pub fn backward(
        &self,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut [f32],
        targets: &[i32],
        counted: usize,
    ) -> Result<Loss, Error> {
        exact_length("gradients", gradients.len(), self.plan.gradients)?;
        let counted_here = self.check_targets(targets)?;
        let mut workspace = self.check(workspace)?;
        self.forward_trusted(&mut workspace);
        let vocab = self.plan.config.vocab;
        let losses = (&mut *workspace.losses, 1);
        let logits = (&mut *workspace.logits, vocab);
        self.by_sequence([losses, logits], self.rows() * vocab, |range, [losses, logits]| {
            let targets = targets.get(self.row_range(&range)).unwrap_or_default();
            cross_entropy::gradients_of_rows(self.compute.simd, losses, logits, targets, vocab, counted);
        });
        let loss =
            Loss { sum: workspace.losses.iter().map(|loss| f64::from(*loss)).sum(), counted: counted_here };
        if !loss.sum.is_finite() {
            return Err(Error::NotFinite { what: "loss", value: loss.sum as f32 });
        }
        self.backward_trusted(Parameters::new(gradients, self.plan), mode, workspace);
        Ok(loss)
    }

    fn check<'w>(&self, workspace: &'w mut [f32]) -> Result<Workspace<'w>, Error> {
        exact_length("parameters", self.parameters.len(), self.plan.parameters)?;
        let workspace = Workspace::new(workspace, self.plan, self.shape)?;
        exact_length("tokens", self.tokens.len(), self.rows())?;
        embedding::check_tokens(self.tokens, self.plan.config.vocab)?;
        Ok(workspace)
    }

    fn check_targets(&self, targets: &[i32]) -> Result<usize, Error> {
        exact_length("targets", targets.len(), self.rows())?;
        cross_entropy::count_targets(targets, self.plan.config.vocab)
    }

    fn rows(&self) -> usize {
        self.shape.rows()
    }

    fn row_range(&self, sequences: &Range<usize>) -> Range<usize> {
        sequences.start * self.shape.length..sequences.end * self.shape.length
    }

    /// Cuts buffers of so many elements per row by sequence, among the workers.
    fn by_sequence<const N: usize>(
        &self,
        buffers: [PerUnit<'_>; N],
        work: usize,
        task: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync,
    ) {
        let buffers = buffers.map(|(buffer, per_row)| (buffer, per_row * self.shape.length));
        let no_scratch = (&mut [][..], 0);
        self.compute.split(self.shape.sequences, work, buffers, no_scratch, |range, buffers, _| {
            task(range, buffers);
        });
    }

    /// As [`Pass::by_sequence`], with scratch for products and attention.
    fn by_sequence_with<const N: usize>(
        &self,
        workers: &mut [f32],
        buffers: [PerUnit<'_>; N],
        work: usize,
        task: impl Fn(Range<usize>, [&mut [f32]; N], &mut [f32]) + Sync,
    ) {
        let buffers = buffers.map(|(buffer, per_row)| (buffer, per_row * self.shape.length));
        let scratch = (workers, self.plan.worker_scratch());
        self.compute.split(self.shape.sequences, work, buffers, scratch, task);
    }

    fn mask(&self, rate: f32, stream: Stream, layer: usize) -> Option<Mask> {
        let Training { seed, step, .. } = self.training?;
        Mask::new(rate, seed, stream, step, layer as u64).unwrap_or_default()
    }

    fn masks(&self, layer: usize) -> Masks {
        let rates = &self.plan.config.dropout;
        Masks {
            attention: self.mask(rates.attention, Stream::AttentionDropout, layer),
            attention_projection: self.mask(
                rates.attention_projection,
                Stream::AttentionProjectionDropout,
                layer,
            ),
            mlp_projection: self.mask(rates.mlp_projection, Stream::MlpProjectionDropout, layer),
        }
    }

    /// A sequence's number in the step.
    fn sequence(&self, in_pass: usize) -> u64 {
        self.training.map_or(0, |training| training.first_sequence).wrapping_add(in_pass as u64)
    }

    fn embedding_mask(&self) -> Option<Mask> {
        self.mask(self.plan.config.dropout.embedding, Stream::EmbeddingDropout, 0)
    }

    fn attention(&self, masks: &Masks, sequence: usize) -> Attention {
        Attention {
            heads: self.plan.config.heads,
            width: self.plan.config.width,
            mask: masks.attention,
            sequence: self.sequence(sequence),
        }
    }

    /// Applies `f` to each sequence of `C` columns with its mask.
    fn each_masked<'x>(
        &self,
        range: Range<usize>,
        x: impl Iterator<Item = &'x mut [f32]>,
        mask: Option<Mask>,
        mut f: impl FnMut(&mut [f32], Option<Mask>),
    ) {
        for (sequence, x) in range.zip(x) {
            f(x, mask.map(|mask| mask.at(self.sequence(sequence))));
        }
    }

    fn forward_trusted(&self, workspace: &mut Workspace<'_>) {
        let config = &self.plan.config;
        let (rows, c) = (self.rows(), config.width);
        let parameters = Parameters::new(self.parameters, self.plan);
        let mut residual = &mut *workspace.residual;

        let mut x = residual.cut(rows * c);
        self.embed(x, &parameters);
        let blocks = parameters.blocks.chunks_exact(self.plan.block().max(1));
        let layers = workspace.layers.chunks_exact_mut(workspace.layer.max(1));
        for (layer, (block, activations)) in blocks.zip(layers).enumerate() {
            let block = Block::new(block, config);
            let activations = LayerActivations::new(activations, config, rows);
            let (middle, out) = (residual.cut(rows * c), residual.cut(rows * c));
            let scratch =
                Scratch { normed: workspace.normed, wide: workspace.wide, workers: workspace.workers };
            self.block_forward(&block, self.masks(layer), activations, x, middle, out, scratch);
            x = out;
        }

        let norm = &parameters.final_norm;
        let statistics = [(&mut *workspace.final_mean, 1), (&mut *workspace.final_rstd, 1)];
        let [mean, rstd] = statistics;
        self.by_sequence(
            [mean, rstd, (workspace.final_normed, c)],
            rows * c,
            |range, [mean, rstd, normed]| {
                norm_forward(self, norm, normed, mean, rstd, part(x, &range, c * self.shape.length));
            },
        );
        let head = Matrix::new(parameters.head_matrix(), c).transposed();
        let logits = (&mut *workspace.logits, config.vocab);
        let size = Size { m: rows, n: config.vocab, k: c };
        self.product(
            logits,
            size,
            Start::Zero,
            Matrix::new(workspace.final_normed, c),
            head,
            workspace.workers,
        );
    }

    /// x = dropout(token embedding + position embedding).
    fn embed(&self, x: &mut [f32], parameters: &Parameters<&[f32]>) {
        let (c, simd) = (self.plan.config.width, self.compute.simd);
        let mask = self.embedding_mask();
        self.by_sequence([(x, c)], self.rows() * c, |range, [x]| {
            let tokens = self.tokens.get(self.row_range(&range)).unwrap_or_default();
            let mut tokens = tokens.chunks_exact(self.shape.length.max(1));
            let (wte, wpe) = (parameters.token_embedding, parameters.position_embedding);
            self.each_masked(range, rows_mut(x, self.shape.length * c), mask, |x, mask| {
                embedding::add_embeddings(simd, x, tokens.next().unwrap_or_default(), wte, wpe, c);
                dropout::in_place(simd, x, c, mask);
            });
        });
    }

    /// middle = x + dropout(projection(attention(norm(x)))), out = middle + dropout(mlp(norm(middle))).
    #[allow(clippy::too_many_arguments)]
    fn block_forward(
        &self,
        block: &Block<&[f32]>,
        masks: Masks,
        activations: LayerActivations<'_>,
        x: &[f32],
        middle: &mut [f32],
        out: &mut [f32],
        scratch: Scratch<'_>,
    ) {
        let config = &self.plan.config;
        let (simd, t) = (self.compute.simd, self.shape.length);
        let (c, f, h) = (config.width, config.hidden, config.heads);
        let buffers = [
            (middle, c),
            (out, c),
            (scratch.normed, c),
            (scratch.wide, f.max(3 * c)),
            (activations.ln_1_mean, 1),
            (activations.ln_1_rstd, 1),
            (activations.qkv, 3 * c),
            (activations.attention_stats, 2 * h),
            (activations.attended, c),
            (activations.ln_2_mean, 1),
            (activations.ln_2_rstd, 1),
            (activations.hidden, f),
        ];
        let work = self.rows() * c * (4 * c + 2 * f);
        self.by_sequence_with(scratch.workers, buffers, work, |range, buffers, scratch| {
            let [middle, out, normed, wide, mean_1, rstd_1, qkv, stats, attended, mean_2, rstd_2, hidden] =
                buffers;
            let x = part(x, &range, t * c);
            let m = range.len() * t;
            let product = |n, k| Size { m, n, k };

            norm_forward(self, &block.ln_1, normed, mean_1, rstd_1, x);
            linear::forward_trusted(simd, qkv, normed, pair(&block.c_attn), product(3 * c, c), scratch);
            let sequences =
                rows_mut(attended, t * c).zip(rows_mut(stats, 2 * t * h)).zip(rows(qkv, 3 * t * c));
            for (sequence, ((attended, stats), qkv)) in range.clone().zip(sequences) {
                let attention = self.attention(&masks, sequence);
                attention::forward_sequence(simd, attended, stats, qkv, attention, scratch);
            }
            let projection = pair(&block.attention_projection);
            linear::forward_trusted(simd, middle, attended, projection, product(c, c), scratch);
            let mut residual = rows(x, t * c);
            let mask = masks.attention_projection;
            self.each_masked(range.clone(), rows_mut(middle, t * c), mask, |middle, mask| {
                dropout::add_residual(simd, middle, residual.next().unwrap_or_default(), c, mask);
            });

            norm_forward(self, &block.ln_2, normed, mean_2, rstd_2, middle);
            linear::forward_trusted(simd, hidden, normed, pair(&block.c_fc), product(f, c), scratch);
            let activated = wide.get_mut(..m * f).unwrap_or_default();
            gelu::activate(simd, activated, hidden, config.activation);
            linear::forward_trusted(
                simd,
                out,
                activated,
                pair(&block.mlp_projection),
                product(c, f),
                scratch,
            );
            let mut residual = rows(middle, t * c);
            self.each_masked(range, rows_mut(out, t * c), masks.mlp_projection, |out, mask| {
                dropout::add_residual(simd, out, residual.next().unwrap_or_default(), c, mask);
            });
        });
    }

    fn backward_trusted(
        &self,
        mut gradients: Parameters<&mut [f32]>,
        mode: Gradients,
        mut workspace: Workspace<'_>,
    ) {
        let config = &self.plan.config;
        let (rows, c, v) = (self.rows(), config.width, config.vocab);
        let parameters = Parameters::new(self.parameters, self.plan);

        // Head and final norm. `logits` holds its own gradient by now.
        let d_logits = Matrix::new(workspace.logits, v);
        let head = Matrix::new(parameters.head_matrix(), c);
        let d_normed = (&mut *workspace.d_normed, c);
        self.product(d_normed, Size { m: rows, n: c, k: v }, Start::Zero, d_logits, head, workspace.workers);
        if !config.tied {
            let size = Size { m: v, n: c, k: rows };
            let normed = Matrix::new(workspace.final_normed, c);
            let d_head = (&mut *gradients.head, c);
            self.product(d_head, size, mode.start(), d_logits.transposed(), normed, workspace.workers);
        }
        let x = part(workspace.residual, &(2 * config.layers..2 * config.layers + 1), rows * c);
        let statistics = (&*workspace.final_mean, &*workspace.final_rstd);
        workspace.d_residual.fill(0.0);
        let d_residual = (&mut *workspace.d_residual, c);
        self.by_sequence([d_residual], rows * c, |range, [d_residual]| {
            let t = self.shape.length;
            let d_normed = part(workspace.d_normed, &range, t * c);
            let statistics = (part(statistics.0, &range, t), part(statistics.1, &range, t));
            norm_backward(
                self,
                &parameters.final_norm,
                d_residual,
                d_normed,
                part(x, &range, t * c),
                statistics,
            );
        });
        self.norm_gradient(&mut gradients.final_norm, mode, workspace.d_normed, x, statistics);

        let size = self.plan.block().max(1);
        let blocks = parameters.blocks.chunks_exact(size).zip(gradients.blocks.chunks_exact_mut(size));
        let layers = workspace.layers.chunks_exact_mut(workspace.layer.max(1));
        for (layer, ((block, d_block), activations)) in blocks.zip(layers).enumerate().rev() {
            let scratch = BackwardScratch {
                d_residual: workspace.d_residual,
                d_branch: workspace.d_branch,
                normed: workspace.normed,
                d_normed: workspace.d_normed,
                wide: workspace.wide,
                workers: workspace.workers,
            };
            let x = part(workspace.residual, &(2 * layer..2 * layer + 1), rows * c);
            let middle = part(workspace.residual, &(2 * layer + 1..2 * layer + 2), rows * c);
            let activations = LayerActivations::new(activations, config, rows);
            let (block, d_block) = (Block::new(block, config), Block::new(d_block, config));
            self.block_backward(&block, d_block, mode, self.masks(layer), activations, (x, middle), scratch);
        }
        self.embedding_backward(&mut gradients, mode, &mut workspace);
    }

    /// Back through the MLP half of a block, then its attention half. In each, the gradients of activations
    /// first, by sequence, then those of parameters.
    #[allow(clippy::too_many_arguments)]
    fn block_backward(
        &self,
        block: &Block<&[f32]>,
        mut d_block: Block<&mut [f32]>,
        mode: Gradients,
        masks: Masks,
        activations: LayerActivations<'_>,
        (x, middle): (&[f32], &[f32]),
        scratch: BackwardScratch<'_>,
    ) {
        let config = &self.plan.config;
        let (simd, t, rows_all) = (self.compute.simd, self.shape.length, self.rows());
        let (c, f, h) = (config.width, config.hidden, config.heads);
        let BackwardScratch { d_residual, d_branch, normed, d_normed, wide, workers } = scratch;

        let activated = wide.get_mut(..rows_all * f).unwrap_or_default();
        let statistics = (&*activations.ln_2_mean, &*activations.ln_2_rstd);
        let buffers = [
            (&mut *d_residual, c),
            (&mut *d_branch, c),
            (&mut *normed, c),
            (&mut *d_normed, c),
            (&mut *activated, f),
            (&mut *activations.hidden, f),
        ];
        self.by_sequence_with(workers, buffers, rows_all * 2 * c * f, |range, buffers, scratch| {
            let [d_residual, d_branch, normed, d_normed, activated, hidden] = buffers;
            let m = range.len() * t;
            let product = |n, k| Size { m, n, k };
            let statistics = (part(statistics.0, &range, t), part(statistics.1, &range, t));
            let middle = part(middle, &range, t * c);
            self.drop_gradient(range, d_branch, d_residual, masks.mlp_projection);
            linear::backward_trusted(
                simd,
                activated,
                d_branch,
                block.mlp_projection.weight,
                product(c, f),
                scratch,
            );
            gelu::exchange(simd, hidden, activated, config.activation);
            linear::backward_trusted(simd, d_normed, hidden, block.c_fc.weight, product(f, c), scratch);
            let norm = &block.ln_2;
            layer_norm::apply(simd, normed, middle, statistics.0, statistics.1, norm.weight, norm.bias);
            norm_backward(self, norm, d_residual, d_normed, middle, statistics);
        });
        let d_hidden = &*activations.hidden;
        self.linear_gradient(&mut d_block.mlp_projection, mode, activated, d_branch, (f, c), workers);
        self.linear_gradient(&mut d_block.c_fc, mode, normed, d_hidden, (c, f), workers);
        self.norm_gradient(&mut d_block.ln_2, mode, d_normed, middle, statistics);

        let d_qkv = wide.get_mut(..rows_all * 3 * c).unwrap_or_default();
        let statistics = (&*activations.ln_1_mean, &*activations.ln_1_rstd);
        let LayerActivations { qkv, attention_stats, attended, .. } = activations;
        let (qkv, attention_stats, attended) = (&*qkv, &*attention_stats, &*attended);
        let buffers = [
            (&mut *d_residual, c),
            (&mut *d_branch, c),
            (&mut *normed, c),
            (&mut *d_normed, c),
            (&mut *d_qkv, 3 * c),
        ];
        self.by_sequence_with(workers, buffers, rows_all * 4 * c * c, |range, buffers, scratch| {
            let [d_residual, d_branch, normed, d_normed, d_qkv] = buffers;
            let m = range.len() * t;
            let product = |n, k| Size { m, n, k };
            let statistics = (part(statistics.0, &range, t), part(statistics.1, &range, t));
            let x = part(x, &range, t * c);
            self.drop_gradient(range.clone(), d_branch, d_residual, masks.attention_projection);
            let projection = block.attention_projection.weight;
            let d_attended = &mut *d_normed;
            linear::backward_trusted(simd, d_attended, d_branch, projection, product(c, c), scratch);
            let sequences = range.zip(rows_mut(d_qkv, 3 * t * c)).zip(rows(d_attended, t * c));
            for ((sequence, d_qkv), d_attended) in sequences {
                let this = sequence..sequence + 1;
                let qkv = part(qkv, &this, 3 * t * c);
                let attended = part(attended, &this, t * c);
                let stats = part(attention_stats, &this, 2 * t * h);
                let attention = self.attention(&masks, sequence);
                attention::backward_sequence(
                    simd, d_qkv, d_attended, qkv, attended, stats, attention, scratch,
                );
            }
            linear::backward_trusted(simd, d_normed, d_qkv, block.c_attn.weight, product(3 * c, c), scratch);
            let norm = &block.ln_1;
            layer_norm::apply(simd, normed, x, statistics.0, statistics.1, norm.weight, norm.bias);
            norm_backward(self, norm, d_residual, d_normed, x, statistics);
        });
        self.linear_gradient(&mut d_block.attention_projection, mode, attended, d_branch, (c, c), workers);
        self.linear_gradient(&mut d_block.c_attn, mode, normed, d_qkv, (c, 3 * c), workers);
        self.norm_gradient(&mut d_block.ln_1, mode, d_normed, x, statistics);
    }

    /// The embeddings' gradients, and the head's where it is tied.
    ///
    /// A tied matrix takes, sequence after sequence, the head's product and then the rows of that sequence's
    /// tokens: an order that does not depend on how the sequences are cut into micro-batches. Rows of the
    /// vocabulary are taken in blocks, so that a block stays in cache through all sequences.
    fn embedding_backward(
        &self,
        gradients: &mut Parameters<&mut [f32]>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        const BLOCK: usize = 64;
        let config = &self.plan.config;
        let (simd, t, c, v) = (self.compute.simd, self.shape.length, config.width, config.vocab);
        let mask = self.embedding_mask();
        self.by_sequence([(workspace.d_residual, c)], self.rows() * c, |range, [d_x]| {
            self.each_masked(range, rows_mut(d_x, t * c), mask, |d_x, mask| {
                dropout::in_place(simd, d_x, c, mask);
            });
        });
        let d_x = &*workspace.d_residual;
        let (logits, normed) = (&*workspace.logits, &*workspace.final_normed);

        let d_wpe = &mut *gradients.position_embedding;
        mode.clear(d_wpe);
        let no_scratch = (&mut [][..], 0);
        self.compute.split(config.context, self.rows() * c, [(d_wpe, c)], no_scratch, |range, [d_wpe], _| {
            embedding::position_gradients(simd, d_wpe, range.start, d_x, c, t);
        });

        let d_wte = &mut *gradients.token_embedding;
        let work = if config.tied { self.rows() * c * v } else { self.rows() * c };
        let scratch = (&mut *workspace.workers, self.plan.worker_scratch());
        self.compute.split(v, work, [(d_wte, c)], scratch, |range, [d_wte], scratch| {
            for (block, d_wte) in d_wte.chunks_mut((BLOCK * c).max(1)).enumerate() {
                let first = range.start + block * BLOCK;
                let vocabulary = first..range.end.min(first + BLOCK);
                if !config.tied {
                    mode.clear(d_wte);
                }
                let sequences = rows(d_x, t * c).zip(self.tokens.chunks_exact(t.max(1)));
                for (sequence, (d_x, tokens)) in sequences.enumerate() {
                    if config.tied {
                        let size = Size { m: vocabulary.len(), n: c, k: t };
                        let start = if sequence == 0 { mode.start() } else { Start::Accumulate };
                        let d_logits = Matrix::new(logits, v).from(sequence * t, first).transposed();
                        let normed = Matrix::new(part(normed, &(sequence..sequence + 1), t * c), c);
                        matmul_trusted(simd, size, (&mut *d_wte, c), start, d_logits, normed, scratch);
                    }
                    embedding::token_gradients(simd, d_wte, vocabulary.clone(), d_x, tokens, c);
                }
            }
        });
    }

    /// `d_branch = dropout(d_residual)`: the gradient that enters a residual branch.
    fn drop_gradient(
        &self,
        range: Range<usize>,
        d_branch: &mut [f32],
        d_residual: &[f32],
        mask: Option<Mask>,
    ) {
        let (t, c) = (self.shape.length, self.plan.config.width);
        let mut d_residual = rows(d_residual, t * c);
        self.each_masked(range, rows_mut(d_branch, t * c), mask, |d_branch, mask| {
            dropout::write(self.compute.simd, d_branch, d_residual.next().unwrap_or_default(), c, mask);
        });
    }

    /// A product on all threads.
    fn product(
        &self,
        c: PerUnit<'_>,
        size: Size,
        start: Start<'_>,
        a: Matrix<'_>,
        b: Matrix<'_>,
        workers: &mut [f32],
    ) {
        let scratch = (workers, self.plan.worker_scratch());
        let result = matmul_parallel(self.compute, size, c, start, a, b, scratch);
        debug_assert_eq!(result, Ok(()));
    }

    /// `d_weight += x^T d_y`, `d_bias += column sums of d_y`.
    fn linear_gradient(
        &self,
        gradient: &mut Linear<&mut [f32]>,
        mode: Gradients,
        x: &[f32],
        d_y: &[f32],
        (from, to): (usize, usize),
        workers: &mut [f32],
    ) {
        let rows = self.rows();
        let (x, d_y_matrix) = (Matrix::new(x, from).transposed(), Matrix::new(d_y, to));
        let size = Size { m: from, n: to, k: rows };
        self.product((&mut *gradient.weight, to), size, mode.start(), x, d_y_matrix, workers);
        mode.clear(gradient.bias);
        if !gradient.bias.is_empty() {
            let no_scratch = (&mut [][..], 0);
            self.compute.split(
                to,
                rows * to,
                [(&mut *gradient.bias, 1)],
                no_scratch,
                |range, [d_bias], _| {
                    linear::bias_gradient(self.compute.simd, d_bias, range.start, to, d_y);
                },
            );
        }
    }

    fn norm_gradient(
        &self,
        gradient: &mut Norm<&mut [f32]>,
        mode: Gradients,
        d_y: &[f32],
        x: &[f32],
        (mean, rstd): (&[f32], &[f32]),
    ) {
        let (c, simd) = (self.plan.config.width, self.compute.simd);
        mode.clear(gradient.weight);
        mode.clear(gradient.bias);
        let has_bias = usize::from(!gradient.bias.is_empty());
        let buffers = [(&mut *gradient.weight, 1), (&mut *gradient.bias, has_bias)];
        let no_scratch = (&mut [][..], 0);
        self.compute.split(c, self.rows() * c, buffers, no_scratch, |range, [d_weight, d_bias], _| {
            layer_norm::parameter_gradients(simd, d_weight, d_bias, range.start, c, d_y, x, mean, rstd);
        });
    }
}

/// Scratch that a block's forward overwrites.
struct Scratch<'a> {
    normed: &'a mut [f32],
    wide: &'a mut [f32],
    workers: &'a mut [f32],
}

/// The gradient of the residual stream, and scratch that a block's backward overwrites.
struct BackwardScratch<'a> {
    d_residual: &'a mut [f32],
    d_branch: &'a mut [f32],
    normed: &'a mut [f32],
    d_normed: &'a mut [f32],
    wide: &'a mut [f32],
    workers: &'a mut [f32],
}

fn pair<'a>(linear: &Linear<&'a [f32]>) -> (&'a [f32], &'a [f32]) {
    (linear.weight, linear.bias)
}

fn norm_forward(
    pass: &Pass<'_>,
    norm: &Norm<&[f32]>,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
) {
    let config = &pass.plan.config;
    layer_norm::statistics(pass.compute.simd, mean, rstd, x, config.width, config.norm_epsilon);
    layer_norm::apply(pass.compute.simd, y, x, mean, rstd, norm.weight, norm.bias);
}

fn norm_backward(
    pass: &Pass<'_>,
    norm: &Norm<&[f32]>,
    d_x: &mut [f32],
    d_y: &[f32],
    x: &[f32],
    (mean, rstd): (&[f32], &[f32]),
) {
    layer_norm::backward_input(pass.compute.simd, d_x, d_y, x, mean, rstd, norm.weight);
}

/// The logits `[R, V]` that [`Pass::forward`] left in the workspace.
pub fn logits<'w>(plan: &Plan, workspace: &'w mut [f32], shape: Shape) -> Result<&'w [f32], Error> {
    Ok(Workspace::new(workspace, plan, shape)?.logits)
}
