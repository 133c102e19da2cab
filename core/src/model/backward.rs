//! Backward: from the logits' gradient to the gradients of all activations. `gradients.rs` computes the gradients of
//! parameters from them.

use core::ops::Range;

use super::forward::Extent;
use super::{Pass, Workers, rows_in, rows_of};
use crate::config::Module;
use crate::layout::{
    Affine, AttentionActivations, BlockActivations, BlockBackward, Group, GroupParameters, Head, InUse,
    MlpActivations, NormedHeads, Plan, Site, Workspace, attention_scratch,
};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::dropout::Mask;
use crate::ops::{self, attention, dropout, layer_norm, rms_norm, rows_mut};
use crate::rng::Stream;
use crate::simd;

/// The stages of backward in order. Only the workspace and the gradients carry results from one stage to the next.
/// The loss has replaced the logits by their gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backward {
    /// The head, unless it is tied, and the final norm.
    Logits,
    /// Recomputes a block's activations, if the plan does so and forward has not kept them.
    Recompute {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The MLP branch of a block.
    Mlp {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The attention branch of a block.
    Attention {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The embeddings, and the head if it is tied.
    Embedding,
}

impl Backward {
    /// The stage with this number in a whole backward pass, which ends at the first trained tensor.
    pub(super) fn at(number: usize, plan: &Plan) -> Option<Backward> {
        let Some(number) = number.checked_sub(1) else { return Some(Backward::Logits) };
        // Forward has kept the last block's activations.
        let (per_block, number) = if plan.options.recompute { (3, number + 1) } else { (2, number) };
        let (block, to_come) = (number / per_block, per_block - number % per_block);
        let (stage, group) = match plan.config.layers.checked_sub(block + 1) {
            Some(layer) if to_come == 3 => (Backward::Recompute { layer }, Group::Mlp { layer }),
            Some(layer) if to_come == 2 => (Backward::Mlp { layer }, Group::Mlp { layer }),
            Some(layer) => (Backward::Attention { layer }, Group::Attention { layer }),
            None if to_come == per_block => (Backward::Embedding, Group::Embedding),
            None => return None,
        };
        plan.reaches(group).then_some(stage)
    }
}

impl Pass<'_> {
    /// Computes the gradients of a stage's activations. The gradients of its parameters depend on them.
    #[inline(never)]
    pub(super) fn backward_stage(&self, stage: Backward, workspace: &mut Workspace<'_>) {
        match stage {
            Backward::Logits => {
                self.logits_backward(workspace);
                self.final_norm_backward(workspace);
            }
            Backward::Recompute { layer } => self.block(layer, workspace, Extent::Activations),
            Backward::Mlp { layer } => {
                self.mlp_backward_residual(layer, workspace);
                self.mlp_backward_columns(layer, &(0..self.plan.config.hidden), workspace);
                self.mlp_backward_input(layer, workspace);
            }
            Backward::Attention { layer } => self.attention_backward(layer, workspace),
            Backward::Embedding => self.embedding_backward(workspace),
        }
    }

    /// The backward pass of the head's product. The loss has done it for a chunked head.
    #[inline(never)]
    pub(super) fn logits_backward(&self, workspace: &mut Workspace<'_>) {
        if self.plan.options.chunks_head() {
            return;
        }
        let mut workers = self.workers(workspace.worker_scratch);
        let head = workspace.regions.head(InUse::Activated);
        self.head_backward(self.d_input(head.d_residual, head.d_normed), head.logits, &mut workers);
    }

    /// The memory for the gradient of the head's input. A fused step still needs the input, which may share memory with the
    /// gradient's usual place.
    pub(super) fn d_input<'w>(&self, d_residual: &'w mut [f32], d_normed: &'w mut [f32]) -> &'w mut [f32] {
        if self.plan.options.fused { d_residual } else { d_normed }
    }

    /// `d_input = d_logits W^T`.
    pub(super) fn head_backward(&self, d_input: &mut [f32], d_logits: &[f32], workers: &mut Workers<'_>) {
        let [c, v] = [self.plan.config.width, self.plan.config.vocab];
        let [_, head] = self.parameters().head();
        workers.linear_backward(d_input, Start::Zero, Matrix::new(d_logits, v), head, [c, v]);
    }

    /// The backward pass of the final norm.
    #[inline(never)]
    pub(super) fn final_norm_backward(&self, workspace: &mut Workspace<'_>) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        let Head { x, mean, rstd, d_normed, d_residual, .. } = workspace.regions.head(InUse::Normed);
        let [norm, _] = self.parameters().head();
        simd::clear(simd, d_residual);
        let (mean, rstd, d_normed) = (&*mean, &*rstd, &*d_normed);
        self.workers(workspace.worker_scratch).by_row(x.len(), [(d_residual, c)], |rows, [d_residual]| {
            let (mean, rstd) = (rows_of(mean, &rows, 1), rows_of(rstd, &rows, 1));
            let (x, d_normed) = (rows_of(x, &rows, c), rows_of(d_normed, &rows, c));
            self.norm_backward_input(d_residual, d_normed, x, [mean, rstd], norm.weight);
        });
    }

    /// The gradient that enters the MLP branch.
    pub(super) fn mlp_backward_residual(&self, layer: usize, workspace: &mut Workspace<'_>) {
        let BlockBackward { d_branch, d_residual, .. } =
            workspace.regions.block_backward(layer, InUse::Activated);
        let mask = self.mask(Stream::MlpProjectionDropout, layer);
        self.drop_gradient(&mut self.workers(workspace.worker_scratch), d_branch, d_residual, mask);
    }

    /// The backward pass of the MLP's last product and of the activation function, for some columns of the hidden width. The
    /// inputs of the activation become their gradients, and `activated` its recomputed output.
    #[inline(never)]
    pub(super) fn mlp_backward_columns(
        &self,
        layer: usize,
        columns: &Range<usize>,
        workspace: &mut Workspace<'_>,
    ) {
        let (config, simd, m) = (&self.plan.config, self.compute.simd, self.rows());
        let (c, f, inputs) = (config.width, config.hidden, config.activation_inputs());
        let BlockBackward { kept, d_branch, d_normed, activated, .. } =
            workspace.regions.block_backward(layer, InUse::Activated);
        let hidden = rows_in(kept.mlp.hidden, m, inputs);
        let parameters = self.parameters().of(Group::Mlp { layer });
        let output = parameters.affine(Site::MlpOut);
        let transposed = output.matrix([f, c]).transposed();
        let mut workers = self.workers(workspace.worker_scratch);
        // If forward has kept the output, with the slopes in `hidden`, only the product remains. It processes C
        // columns at a time, in the memory of the gradient of the norm's output, which is still unused.
        let keeps = self.keeps_activated(layer);
        let (d_activated, most) = if keeps { (d_normed, c) } else { (&mut *activated, columns.len()) };
        let (adapter, low_rank) = (self.adapter(Module::MlpOut, layer, &parameters), kept.mlp.low_rank);
        if let Some(adapter) = &adapter {
            self.adapter_backward(&mut workers, adapter, Matrix::new(d_branch, c), low_rank);
        }
        let mut first = columns.start;
        while first < columns.end {
            let columns = first..columns.end.min(first + most);
            let count = columns.len();
            let d_activated = rows_in(d_activated, m, count);
            let size = Size { m, n: count, k: c };
            let weight = transposed.from(0, first);
            workers.product((&mut *d_activated, count), size, Start::Zero, Matrix::new(d_branch, c), weight);
            if let Some(adapter) = &adapter {
                let columns = columns.clone();
                self.adapter_backward_input(&mut workers, adapter, d_activated, columns, low_rank);
            }
            let buffers = [(&mut *hidden, inputs), (d_activated, count)];
            workers.by_row(m * count, buffers, |_, [hidden, d_activated]| {
                self.with_columns(hidden, &columns, d_activated, |gate, hidden, d_activated| match keeps {
                    true => {
                        if !gate.is_empty() {
                            simd::multiply(simd, gate, d_activated);
                        }
                        simd::multiply(simd, hidden, d_activated);
                    }
                    false => self.exchange(gate, hidden, d_activated),
                });
            });
            first = columns.end;
        }
        // A recomputation ends before the input of the last product.
        if let Some(adapter) = adapter.filter(|_| self.plan.options.recompute) {
            self.adapter_input(&mut workers, &adapter, activated, low_rank);
        }
    }

    /// The backward pass of the MLP's first product and its norm.
    #[inline(never)]
    pub(super) fn mlp_backward_input(&self, layer: usize, workspace: &mut Workspace<'_>) {
        let config = &self.plan.config;
        let (c, inputs) = (config.width, config.activation_inputs());
        let BlockBackward { middle, kept, d_residual, d_normed, normed, .. } =
            workspace.regions.block_backward(layer, InUse::Normed);
        let MlpActivations { mean, rstd, hidden, low_rank } = kept.mlp;
        let d_hidden = &*rows_in(hidden, self.rows(), inputs);
        let parameters = self.parameters().of(Group::Mlp { layer });
        let mut workers = self.workers(workspace.worker_scratch);
        workers.project_backward(d_normed, (d_hidden, inputs), &parameters, Site::mlp_in(config), c);
        let (sites, d_y) = (Site::mlp_in(config), (d_hidden, inputs));
        self.adapt_backward(&mut workers, layer, &parameters, sites, d_normed, d_y, low_rank);
        let (norm, statistics) = (parameters.affine(Site::MlpNorm), [&*mean, &*rstd]);
        self.norm_backward(&mut workers, &norm, [normed, d_residual], d_normed, middle, statistics);
    }

    #[inline(never)]
    fn attention_backward(&self, layer: usize, workspace: &mut Workspace<'_>) {
        let (config, simd, t) = (&self.plan.config, self.compute.simd, self.shape.length);
        let (c, a, h, qkv_width) = (config.width, config.attended(), config.heads, config.qkv());
        let parameters = self.parameters().of(Group::Attention { layer });
        let mask = self.mask(Stream::AttentionDropout, layer);
        let BlockBackward { x, kept, d_branch, d_residual, d_normed, normed, .. } =
            workspace.regions.block_backward(layer, InUse::Normed);
        let BlockActivations { attention, mlp: MlpActivations { hidden: d_qkv, .. } } = kept;
        let AttentionActivations { mean, rstd, qkv, stats, attended, low_rank, heads } = attention;
        let (qkv, stats, attended) = (&*qkv, &*stats, &*attended);
        let d_qkv = d_qkv.get_mut(..qkv.len()).unwrap_or_default();
        let mut workers = self.workers(workspace.worker_scratch);

        let projection_mask = self.mask(Stream::AttentionProjectionDropout, layer);
        self.drop_gradient(&mut workers, d_branch, d_residual, projection_mask);
        let d_attended = &mut *d_normed;
        let d_out = Matrix::new(d_branch, c);
        workers.linear_backward(
            d_attended,
            Start::Zero,
            d_out,
            parameters.affine(Site::AttentionOut),
            [a, c],
        );
        let (sites, d_y) = (&[Site::AttentionOut], (&*d_branch, c));
        self.adapt_backward(&mut workers, layer, &parameters, sites, d_attended, d_y, low_rank);
        let d_attended = &*d_attended;
        let buffers = [(&mut *d_qkv, qkv_width), (&mut *normed, c)];
        workers.by_sequence(x.len(), buffers, |sequences, [d_qkv, normed], scratch| {
            // The norm's output is recomputed only after this.
            let space = attention_scratch(scratch, normed);
            for (sequence, d_qkv) in sequences.zip(rows_mut(d_qkv, t * qkv_width)) {
                let this = sequence..sequence + 1;
                let (qkv, d_attended) =
                    (rows_of(qkv, &this, t * qkv_width), rows_of(d_attended, &this, t * a));
                let attended = rows_of(attended, &this, t * a);
                let stats = rows_of(stats, &this, 2 * t * h);
                let attention = self.attention(mask, sequence);
                attention::backward_sequence(simd, d_qkv, d_attended, qkv, attended, stats, attention, space);
            }
        });
        self.rotate(&mut workers, d_qkv, workspace.rotation, -1.0);
        if config.has_qk_norm() {
            self.norm_heads_backward(&mut workers, d_qkv, heads, &parameters);
        }
        workers.project_backward(d_normed, (d_qkv, qkv_width), &parameters, Site::qkv(config), c);
        let (sites, d_y) = (Site::qkv(config), (&*d_qkv, qkv_width));
        self.adapt_backward(&mut workers, layer, &parameters, sites, d_normed, d_y, low_rank);
        let (norm, statistics) = (parameters.affine(Site::AttentionNorm), [&*mean, &*rstd]);
        self.norm_backward(&mut workers, &norm, [normed, d_residual], d_normed, x, statistics);
    }

    /// The backward pass of the norms of queries and keys: their gradients become those before the norm. What is kept becomes
    /// the terms of the gradients of the norms' weights.
    #[inline(never)]
    fn norm_heads_backward(
        &self,
        workers: &mut Workers<'_>,
        d_qkv: &mut [f32],
        heads: &mut [f32],
        parameters: &GroupParameters<'_>,
    ) {
        let (simd, config) = (self.compute.simd, &self.plan.config);
        let (a, width) = (config.attended(), config.qkv());
        let NormedHeads { queries, keys, query_rstd, key_rstd } = self.normed_heads(heads);
        let parts = [
            (Site::QueryNorm, 0, queries, &*query_rstd, config.heads),
            (Site::KeyNorm, a, keys, &*key_rstd, config.kv_heads()),
        ];
        for (site, first, x, rstd, heads) in parts {
            let weight = parameters.affine(site).weight;
            let columns = heads * weight.len();
            let buffers = [(&mut *d_qkv, width), (x, columns)];
            workers.by_row(self.rows() * columns, buffers, |range, [d_qkv, x]| {
                let rows = rows_mut(d_qkv, width).zip(rows_mut(x, columns));
                for ((d_qkv, x), rstd) in rows.zip(ops::rows(rows_of(rstd, &range, heads), heads)) {
                    let d_qkv = d_qkv.get_mut(first..first + columns).unwrap_or_default();
                    rms_norm::exchange(simd, d_qkv, x, rstd, weight);
                }
            });
        }
    }

    /// The backward pass of a branch's norm of x `[R, C]`: recomputes its output, and adds the gradient of x to
    /// `d_x`.
    #[inline(never)]
    fn norm_backward(
        &self,
        workers: &mut Workers<'_>,
        norm: &Affine<'_>,
        [normed, d_x]: [&mut [f32]; 2],
        d_normed: &[f32],
        x: &[f32],
        [mean, rstd]: [&[f32]; 2],
    ) {
        let c = self.plan.config.width;
        workers.by_row(x.len(), [(normed, c), (d_x, c)], |rows, [normed, d_x]| {
            let (x, d_normed) = (rows_of(x, &rows, c), rows_of(d_normed, &rows, c));
            let (mean, rstd) = (rows_of(mean, &rows, 1), rows_of(rstd, &rows, 1));
            self.apply_norm(normed, x, [mean, rstd], norm);
            self.norm_backward_input(d_x, d_normed, x, [mean, rstd], norm.weight);
        });
    }

    /// Adds the gradient of a norm's input x to `d_x`.
    fn norm_backward_input(
        &self,
        d_x: &mut [f32],
        d_normed: &[f32],
        x: &[f32],
        [mean, rstd]: [&[f32]; 2],
        weight: &[f32],
    ) {
        let simd = self.compute.simd;
        if self.plan.config.is_rms() {
            rms_norm::backward_input(simd, d_x, d_normed, x, rstd, weight);
        } else {
            layer_norm::backward_input(simd, d_x, d_normed, x, mean, rstd, weight);
        }
    }

    fn embedding_backward(&self, workspace: &mut Workspace<'_>) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        let mask = self.mask(Stream::EmbeddingDropout, 0);
        let d_x = workspace.regions.d_residual();
        self.workers(workspace.worker_scratch).by_row(self.rows() * c, [(d_x, c)], |rows, [d_x]| {
            self.each_masked(rows.start, (d_x, c), mask, &mut |d_x, mask, _| {
                dropout::in_place(simd, d_x, c, mask);
            });
        });
    }

    /// `d_branch = dropout(d_residual)`: the gradient that enters a residual branch.
    #[inline(never)]
    fn drop_gradient(
        &self,
        workers: &mut Workers<'_>,
        d_branch: &mut [f32],
        d_residual: &[f32],
        mask: Option<Mask>,
    ) {
        let c = self.plan.config.width;
        workers.by_row(d_branch.len(), [(d_branch, c)], |rows, [d_branch]| {
            let mut d_residual = rows_of(d_residual, &rows, c);
            self.each_masked(rows.start, (d_branch, c), mask, &mut |d_branch, mask, _| {
                let d_residual = d_residual.split_off(..d_branch.len()).unwrap_or_default();
                dropout::write(self.compute.simd, d_branch, d_residual, c, mask);
            });
        });
    }
}
