//! Forward: from tokens to logits, in stages.

use super::{Pass, Workers, rows_of};
use crate::layout::{BlockForward, Head, InUse, Workspace, attention_scratch};
use crate::ops::{attention, dropout, embedding, rows_mut};
use crate::rng::Stream;

/// The stages of forward in order. Only the workspace carries results from one stage to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The beginning of the residual stream.
    Embedding,
    /// One block: attention, then the MLP.
    Block {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The final norm and, unless the head is chunked, the logits.
    Logits,
}

impl Forward {
    /// The stage with this number in a pass over `layers` layers.
    pub(super) fn at(number: usize, layers: usize) -> Option<Forward> {
        match number.checked_sub(1) {
            None => Some(Forward::Embedding),
            Some(layer) if layer < layers => Some(Forward::Block { layer }),
            Some(layer) => (layer == layers).then_some(Forward::Logits),
        }
    }
}

/// The extent of a block's computation.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// The whole block.
    Whole,
    /// Only the activations that its backward needs. The residual stream after the block does not change.
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
            Forward::Logits => {
                let Head { x, mean, rstd, input, logits, .. } = workspace.regions.head(InUse::Activated);
                let workers = &mut self.workers(workspace.worker_scratch);
                self.head_input(x, [&mut *input, mean, rstd], workers);
                // The loss makes the logits of a chunked head.
                if !self.plan.options.chunks_head() {
                    self.logits(input, logits, workers);
                }
            }
        }
    }

    /// x = dropout(token embedding + position embedding), or without the latter if positions are rotary.
    #[inline(never)]
    fn embedding(&self, workspace: &mut Workspace<'_>) {
        let (c, simd) = (self.plan.config.width, self.compute.simd);
        let x = workspace.regions.first_x();
        let mask = self.mask(Stream::EmbeddingDropout, 0);
        let [wte, wpe] = self.parameters().embeddings();
        self.workers(workspace.worker_scratch).by_row(self.rows() * c, [(x, c)], |range, [x]| {
            let mut tokens = self.tokens.get(range.clone()).unwrap_or_default();
            self.each_masked(range.start, (x, c), mask, &mut |x, mask, position| {
                let tokens = tokens.split_off(..x.len() / c.max(1)).unwrap_or_default();
                let wpe = wpe.get(position * c..).unwrap_or_default();
                self.embed(x, tokens, [wte, wpe]);
                dropout::in_place(simd, x, c, mask);
            });
        });
    }

    /// Writes x `[R, C]`: each token's row of `wte` and, unless positions are rotary, the row of `wpe`.
    pub(crate) fn embed(&self, x: &mut [f32], tokens: &[i32], [wte, wpe]: [&[f32]; 2]) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        if self.plan.config.is_rotary() {
            embedding::copy_embeddings(x, tokens, wte, c);
        } else {
            embedding::add_embeddings(simd, x, tokens, wte, wpe, c);
        }
    }

    /// One block's forward pass, or the recomputation of its activations.
    #[inline(never)]
    pub(super) fn block(&self, layer: usize, workspace: &mut Workspace<'_>, extent: Extent) {
        let config = &self.plan.config;
        let (simd, t, a, h) = (self.compute.simd, self.shape.length, config.attended(), config.heads);
        let qkv_width = config.qkv();
        let BlockForward { x, middle, after, mut kept, normed, activated } =
            workspace.regions.block_forward(layer);
        let workers = &mut self.workers(workspace.worker_scratch);
        let mask = self.mask(Stream::AttentionDropout, layer);
        let mut attend = |workers: &mut Workers<'_>, qkv: &[f32], [attended, stats]: [&mut [f32]; 2]| {
            let columns = self.plan.hidden_columns();
            let buffers = [(attended, a), (stats, 2 * h), (&mut *activated, columns)];
            workers.by_sequence(x.len(), buffers, |range, [attended, stats, activated], scratch| {
                let space = attention_scratch(scratch, activated);
                let sequences = rows_mut(attended, t * a).zip(rows_mut(stats, 2 * t * h));
                for (sequence, (attended, stats)) in range.zip(sequences) {
                    let qkv = rows_of(qkv, &(sequence..sequence + 1), t * qkv_width);
                    let attention = self.attention(mask, sequence);
                    attention::forward_sequence(simd, attended, stats, qkv, attention, space);
                }
            });
        };
        let (attention, rotation) = (&mut kept.attention, workspace.rotation);
        self.attention_branch(layer, x, middle, attention, normed, rotation, workers, &mut attend);
        let out = (extent == Extent::Whole).then_some(after);
        self.mlp_branch(layer, middle, out, &mut kept.mlp, [normed, activated], workers);
    }
}
