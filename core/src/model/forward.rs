//! From tokens to logits.

use super::{Masks, Pass, part};
use crate::layout::{Block, Cut, LayerActivations, Norm, Parameters, Workspace};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::{attention, dropout, embedding, gelu, layer_norm, linear, rows, rows_mut};

impl Pass<'_> {
    pub(super) fn forward_trusted(&self, workspace: &mut Workspace<'_>) {
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
            linear::forward_trusted(simd, qkv, normed, block.c_attn.parts(), product(3 * c, c), scratch);
            let sequences =
                rows_mut(attended, t * c).zip(rows_mut(stats, 2 * t * h)).zip(rows(qkv, 3 * t * c));
            for (sequence, ((attended, stats), qkv)) in range.clone().zip(sequences) {
                let attention = self.attention(&masks, sequence);
                attention::forward_sequence(simd, attended, stats, qkv, attention, scratch);
            }
            let projection = block.attention_projection.parts();
            linear::forward_trusted(simd, middle, attended, projection, product(c, c), scratch);
            let mut residual = rows(x, t * c);
            let mask = masks.attention_projection;
            self.each_masked(range.clone(), rows_mut(middle, t * c), mask, |middle, mask| {
                dropout::add_residual(simd, middle, residual.next().unwrap_or_default(), c, mask);
            });

            norm_forward(self, &block.ln_2, normed, mean_2, rstd_2, middle);
            linear::forward_trusted(simd, hidden, normed, block.c_fc.parts(), product(f, c), scratch);
            let activated = wide.get_mut(..m * f).unwrap_or_default();
            gelu::activate(simd, activated, hidden, config.activation);
            linear::forward_trusted(
                simd,
                out,
                activated,
                block.mlp_projection.parts(),
                product(c, f),
                scratch,
            );
            let mut residual = rows(middle, t * c);
            self.each_masked(range, rows_mut(out, t * c), masks.mlp_projection, |out, mask| {
                dropout::add_residual(simd, out, residual.next().unwrap_or_default(), c, mask);
            });
        });
    }
}

/// Scratch that a block's forward overwrites.
struct Scratch<'a> {
    normed: &'a mut [f32],
    wide: &'a mut [f32],
    workers: &'a mut [f32],
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
