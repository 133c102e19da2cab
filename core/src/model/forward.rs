//! From tokens to logits.

use super::{Pass, Workers, part, with_columns};
use crate::layout::{Cut, LayerActivations, Norm, Workspace, attention_scratch};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::dropout::Mask;
use crate::ops::{attention, dropout, embedding, gelu, layer_norm, rows_mut};
use crate::rng::Stream;

/// The stages of forward, in their order. Nothing but the workspace is carried from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The residual stream's beginning.
    Embedding,
    /// One block: attention, then the MLP.
    Block {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The last norm and the logits.
    Head,
}

impl Forward {
    /// The stage of that number in a pass over so many layers.
    pub(super) fn at(number: usize, layers: usize) -> Option<Forward> {
        match number.checked_sub(1) {
            None => Some(Forward::Embedding),
            Some(layer) if layer < layers => Some(Forward::Block { layer }),
            Some(layer) => (layer == layers).then_some(Forward::Head),
        }
    }
}

/// How much of a block is computed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// All.
    Whole,
    /// What its backward needs: not the MLP's second product, and x after the block stays as it is.
    Activations,
}

impl Pass<'_> {
    pub(super) fn forward_trusted(&self, workspace: &mut Workspace<'_>) {
        for stage in (0..).map_while(|number| Forward::at(number, self.plan.config.layers)) {
            self.forward_stage(stage, workspace);
        }
    }

    pub(super) fn forward_stage(&self, stage: Forward, workspace: &mut Workspace<'_>) {
        match stage {
            Forward::Embedding => self.embedding(workspace),
            Forward::Block { layer } => self.block(layer, workspace, Extent::Whole),
            Forward::Head => self.head(workspace),
        }
    }

    /// x = dropout(token embedding + position embedding).
    #[inline(never)]
    fn embedding(&self, workspace: &mut Workspace<'_>) {
        let (c, simd) = (self.plan.config.width, self.compute.simd);
        let x = workspace.residual.first_mut();
        let mask = self.mask(Stream::EmbeddingDropout, 0);
        let (wte, wpe) = self.parameters().embeddings();
        self.team(workspace.workers).by_row(self.rows() * c, [(x, c)], |range, [x]| {
            let mut tokens = self.tokens.get(range.clone()).unwrap_or_default();
            self.each_masked(range.start, x, mask, &mut |x, mask, position| {
                let tokens = tokens.split_off(..x.len() / c.max(1)).unwrap_or_default();
                let wpe = wpe.get(position * c..).unwrap_or_default();
                embedding::add_embeddings(simd, x, tokens, wte, wpe, c);
                dropout::in_place(simd, x, c, mask);
            });
        });
    }

    /// middle = x + dropout(projection(attention(norm(x)))), out = middle + dropout(mlp(norm(middle))).
    #[inline(never)]
    pub(super) fn block(&self, layer: usize, workspace: &mut Workspace<'_>, extent: Extent) {
        self.attention_half(layer, workspace);
        self.mlp_half(layer, extent, workspace);
    }

    #[inline(never)]
    fn attention_half(&self, layer: usize, workspace: &mut Workspace<'_>) {
        let (config, simd, t) = (&self.plan.config, self.compute.simd, self.shape.length);
        let (c, h) = (config.width, config.heads);
        let half = self.parameters().attention(layer);
        let mask = self.mask(Stream::AttentionDropout, layer);
        let LayerActivations { ln_1_mean, ln_1_rstd, qkv, attention_stats, attended, .. } =
            workspace.layers.of(layer, config, self.rows());
        let (x, middle, _) = workspace.residual.of(layer);
        let (normed, activated) = workspace.intermediate.block();
        let mut team = self.team(workspace.workers);

        let buffers = [(&mut *normed, c), (ln_1_mean, 1), (ln_1_rstd, 1)];
        team.by_row(x.len(), buffers, |rows, [normed, mean, rstd]| {
            norm_forward(self, &half.norm, normed, mean, rstd, part(x, &rows, c));
        });
        team.linear(qkv, normed, half.first.parts(), [c, 3 * c]);
        let qkv = &*qkv;
        let buffers =
            [(&mut *attended, c), (attention_stats, 2 * h), (activated, self.plan.hidden_columns())];
        team.by_sequence(x.len(), buffers, |range, [attended, stats, activated], scratch| {
            let space = attention_scratch(scratch, activated);
            let sequences = rows_mut(attended, t * c).zip(rows_mut(stats, 2 * t * h));
            for (sequence, (attended, stats)) in range.zip(sequences) {
                let qkv = part(qkv, &(sequence..sequence + 1), 3 * t * c);
                let attention = self.attention(mask, sequence);
                attention::forward_sequence(simd, attended, stats, qkv, attention, space);
            }
        });
        team.linear(middle, attended, half.second.parts(), [c, c]);
        self.add_residual(&mut team, middle, x, self.mask(Stream::AttentionProjectionDropout, layer));
    }

    #[inline(never)]
    fn mlp_half(&self, layer: usize, extent: Extent, workspace: &mut Workspace<'_>) {
        let (config, simd, m) = (&self.plan.config, self.compute.simd, self.rows());
        let (c, f) = (config.width, config.hidden);
        let half = self.parameters().mlp(layer);
        let LayerActivations { ln_2_mean, ln_2_rstd, mut wide, .. } = workspace.layers.of(layer, config, m);
        let hidden = wide.cut(m * f);
        let (_, middle, out) = workspace.residual.of(layer);
        let middle = &*middle;
        let (normed, activated) = workspace.intermediate.block();
        let mut team = self.team(workspace.workers);

        let buffers = [(&mut *normed, c), (ln_2_mean, 1), (ln_2_rstd, 1)];
        team.by_row(middle.len(), buffers, |rows, [normed, mean, rstd]| {
            norm_forward(self, &half.norm, normed, mean, rstd, part(middle, &rows, c));
        });
        team.linear(hidden, normed, half.first.parts(), [c, f]);
        if extent == Extent::Activations {
            return;
        }
        let (weight, bias) = half.second.parts();
        let mut start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let mut first = 0;
        while first < f {
            let columns = first..f.min(first + self.plan.hidden_columns());
            let buffers = [(&mut *hidden, f), (&mut *activated, columns.len())];
            team.by_row(m * columns.len(), buffers, |_, [hidden, activated]| {
                with_columns(hidden, f, &columns, activated, |hidden, activated| {
                    if self.keeps_activated(layer) {
                        // The slope times one.
                        activated.fill(1.0);
                        gelu::exchange(simd, hidden, activated, config.activation);
                    } else {
                        gelu::activate(simd, activated, hidden, config.activation);
                    }
                });
            });
            let (activated, weight) = (Matrix::new(activated, columns.len()), Matrix::new(weight, c));
            let size = Size { m, n: c, k: columns.len() };
            team.product((&mut *out, c), size, start, activated, weight.from(first, 0));
            (first, start) = (columns.end, Start::Accumulate);
        }
        self.add_residual(&mut team, out, middle, self.mask(Stream::MlpProjectionDropout, layer));
    }

    /// `branch = x + dropout(branch)`: what leaves a residual branch.
    #[inline(never)]
    fn add_residual(&self, team: &mut Workers<'_>, branch: &mut [f32], x: &[f32], mask: Option<Mask>) {
        let c = self.plan.config.width;
        team.by_row(branch.len(), [(branch, c)], |range, [branch]| {
            let mut x = part(x, &range, c);
            self.each_masked(range.start, branch, mask, &mut |branch, mask, _| {
                let x = x.split_off(..branch.len()).unwrap_or_default();
                dropout::add_residual(self.compute.simd, branch, x, c, mask);
            });
        });
    }

    /// logits = norm(x) head^T.
    #[inline(never)]
    fn head(&self, workspace: &mut Workspace<'_>) {
        let config = &self.plan.config;
        let (rows, c) = (self.rows(), config.width);
        let (norm, head) = self.parameters().head();
        let x = workspace.residual.last();
        let (final_normed, logits) = workspace.intermediate.head();
        let mut team = self.team(workspace.workers);
        let buffers = [(&mut *workspace.final_mean, 1), (workspace.final_rstd, 1), (&mut *final_normed, c)];
        team.by_row(rows * c, buffers, |rows, [mean, rstd, normed]| {
            norm_forward(self, &norm, normed, mean, rstd, part(x, &rows, c));
        });
        let head = Matrix::new(head, c).transposed();
        let size = Size { m: rows, n: config.vocab, k: c };
        team.product((logits, config.vocab), size, Start::Zero, Matrix::new(final_normed, c), head);
    }
}

fn norm_forward(
    pass: &Pass<'_>,
    norm: &Norm<'_>,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
) {
    let config = &pass.plan.config;
    layer_norm::statistics(pass.compute.simd, mean, rstd, x, config.width, config.norm_epsilon);
    layer_norm::apply(pass.compute.simd, y, x, mean, rstd, norm.weight, norm.bias);
}
