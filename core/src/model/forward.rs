//! From tokens to logits.

use core::ops::Range;

use super::{Pass, part, with_columns};
use crate::layout::{Cut, Norm, Workspace, attention_scratch};
use crate::matmul::{Matrix, Size, Start, matmul_trusted};
use crate::ops::dropout::Mask;
use crate::ops::{attention, dropout, embedding, gelu, layer_norm, linear, rows, rows_mut};
use crate::parallel::Units;
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
        self.by_sequence(&mut [Units::rows(x, c)], self.rows() * c, |range, [x]| {
            let tokens = self.tokens.get(self.row_range(&range)).unwrap_or_default();
            let mut tokens = rows(tokens, self.shape.length);
            let (wte, wpe) = self.parameters().embeddings();
            self.each_masked(range, x, mask, &mut |x, mask| {
                embedding::add_embeddings(simd, x, tokens.next().unwrap_or_default(), wte, wpe, c);
                dropout::in_place(simd, x, c, mask);
            });
        });
    }

    /// middle = x + dropout(projection(attention(norm(x)))), out = middle + dropout(mlp(norm(middle))).
    #[inline(never)]
    pub(super) fn block(&self, layer: usize, workspace: &mut Workspace<'_>, extent: Extent) {
        let config = &self.plan.config;
        let (c, f, h) = (config.width, config.hidden, config.heads);
        let mut activations = workspace.layers.of(layer, config, self.rows());
        let (x, middle, out) = workspace.residual.of(layer);
        let at_once = self.plan.hidden_columns();
        let (normed, activated) = workspace.intermediate.block();
        let mut buffers = [
            Units::rows(middle, c),
            Units::rows(out, c),
            Units::rows(normed, c),
            Units::rows(activated, at_once),
            Units::rows(activations.ln_1_mean, 1),
            Units::rows(activations.ln_1_rstd, 1),
            Units::rows(activations.qkv, 3 * c),
            Units::rows(activations.attention_stats, 2 * h),
            Units::rows(activations.attended, c),
            Units::rows(activations.ln_2_mean, 1),
            Units::rows(activations.ln_2_rstd, 1),
            Units::rows(activations.wide.cut(self.rows() * f), f),
        ];
        let work = self.rows() * c * (4 * c + 2 * f);
        self.by_sequence_with(workspace.workers, &mut buffers, work, |range, mut buffers, scratch| {
            self.attention_half(layer, range.clone(), x, &mut buffers, scratch);
            self.mlp_half(layer, range, extent, &mut buffers, scratch);
        });
    }

    /// Some sequences of `middle`, with [`Pass::block`]'s buffers.
    #[inline(never)]
    fn attention_half(
        &self,
        layer: usize,
        range: Range<usize>,
        x: &[f32],
        buffers: &mut [&mut [f32]; 12],
        scratch: &mut [f32],
    ) {
        let [middle, _, normed, activated, mean, rstd, qkv, stats, attended, ..] = buffers;
        let (simd, t) = (self.compute.simd, self.shape.length);
        let (c, h) = (self.plan.config.width, self.plan.config.heads);
        let half = self.parameters().attention(layer);
        let mask = self.mask(Stream::AttentionDropout, layer);
        let x = part(x, &range, t * c);
        let product = |n, k| Size { m: range.len() * t, n, k };
        norm_forward(self, &half.norm, normed, mean, rstd, x);
        linear::forward_trusted(simd, qkv, normed, half.first.parts(), product(3 * c, c), scratch);
        let sequences = rows_mut(attended, t * c).zip(rows_mut(stats, 2 * t * h)).zip(rows(qkv, 3 * t * c));
        let space = attention_scratch(&mut *scratch, activated);
        for (sequence, ((attended, stats), qkv)) in range.clone().zip(sequences) {
            let attention = self.attention(mask, sequence);
            attention::forward_sequence(simd, attended, stats, qkv, attention, space);
        }
        linear::forward_trusted(simd, middle, attended, half.second.parts(), product(c, c), scratch);
        self.add_residual(range, middle, x, self.mask(Stream::AttentionProjectionDropout, layer));
    }

    /// Some sequences of `out`, likewise.
    #[inline(never)]
    fn mlp_half(
        &self,
        layer: usize,
        range: Range<usize>,
        extent: Extent,
        buffers: &mut [&mut [f32]; 12],
        scratch: &mut [f32],
    ) {
        let [middle, out, normed, activated, .., mean, rstd, hidden] = buffers;
        let config = &self.plan.config;
        let (simd, t) = (self.compute.simd, self.shape.length);
        let (c, f) = (config.width, config.hidden);
        let half = self.parameters().mlp(layer);
        let product = |n, k| Size { m: range.len() * t, n, k };
        norm_forward(self, &half.norm, normed, mean, rstd, middle);
        linear::forward_trusted(simd, hidden, normed, half.first.parts(), product(f, c), scratch);
        if extent == Extent::Activations {
            return;
        }
        let (weight, bias) = half.second.parts();
        let mut start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let mut first = 0;
        while first < f {
            let columns = first..f.min(first + self.plan.hidden_columns());
            with_columns(hidden, f, &columns, activated, |hidden, activated| {
                if self.keeps_activated(layer) {
                    // The slope times one.
                    activated.fill(1.0);
                    gelu::exchange(simd, hidden, activated, config.activation);
                } else {
                    gelu::activate(simd, activated, hidden, config.activation);
                }
            });
            let (activated, weight) = (Matrix::new(activated, columns.len()), Matrix::new(weight, c));
            let size = product(c, columns.len());
            matmul_trusted(simd, size, (&mut **out, c), start, activated, weight.from(first, 0), scratch);
            (first, start) = (columns.end, Start::Accumulate);
        }
        self.add_residual(range, out, middle, self.mask(Stream::MlpProjectionDropout, layer));
    }

    /// `branch = x + dropout(branch)`: what leaves a residual branch.
    #[inline(never)]
    fn add_residual(&self, range: Range<usize>, branch: &mut [f32], x: &[f32], mask: Option<Mask>) {
        let (t, c) = (self.shape.length, self.plan.config.width);
        let mut x = rows(x, t * c);
        self.each_masked(range, branch, mask, &mut |branch, mask| {
            dropout::add_residual(self.compute.simd, branch, x.next().unwrap_or_default(), c, mask);
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
        let mut buffers = [
            Units::rows(workspace.final_mean, 1),
            Units::rows(workspace.final_rstd, 1),
            Units::rows(final_normed, c),
        ];
        self.by_sequence(&mut buffers, rows * c, |range, [mean, rstd, normed]| {
            norm_forward(self, &norm, normed, mean, rstd, part(x, &range, c * self.shape.length));
        });
        let head = Matrix::new(head, c).transposed();
        let logits = (logits, config.vocab);
        let size = Size { m: rows, n: config.vocab, k: c };
        let normed = Matrix::new(final_normed, c);
        self.product(logits, size, Start::Zero, normed, head, workspace.workers);
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
