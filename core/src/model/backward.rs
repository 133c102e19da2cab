//! From the logits' gradient to that of every parameter.

use core::ops::Range;

use super::{Gradients, Masks, Pass, part};
use crate::layout::{Block, LayerActivations, Linear, Norm, Parameters, Workspace};
use crate::matmul::{Matrix, Size, Start, matmul_trusted};
use crate::ops::dropout::Mask;
use crate::ops::{attention, dropout, embedding, gelu, layer_norm, linear, rows, rows_mut};

impl Pass<'_> {
    pub(super) fn backward_trusted(
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

/// The gradient of the residual stream, and scratch that a block's backward overwrites.
struct BackwardScratch<'a> {
    d_residual: &'a mut [f32],
    d_branch: &'a mut [f32],
    normed: &'a mut [f32],
    d_normed: &'a mut [f32],
    wide: &'a mut [f32],
    workers: &'a mut [f32],
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
