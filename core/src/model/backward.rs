//! From the logits' gradient to those of all activations; `gradients.rs` makes the parameters' from them.

use core::ops::Range;

use super::forward::Extent;
use super::{Pass, Workers, part, with_columns};
use crate::layout::{Cut, Group, LayerActivations, Norm, Plan, Workspace, attention_scratch};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::dropout::Mask;
use crate::ops::{attention, dropout, gelu, layer_norm, rows_mut};
use crate::rng::Stream;
use crate::simd;

/// The stages of backward, in their order. Nothing but the workspace and the gradients is carried from one to the
/// next; the loss has left the logits' gradient where the logits were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backward {
    /// The head, unless it is tied, and the last norm.
    Head,
    /// A block's activations again, where the plan recomputes and they are not there still.
    Recompute {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The MLP half of a block.
    Mlp {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The attention half of a block.
    Attention {
        /// The block's number, from 0.
        layer: usize,
    },
    /// The embeddings, and the head where it is tied.
    Embedding,
}

impl Backward {
    /// The stage of that number in a whole backward pass, as the plan has it: to the first tensor that is trained.
    pub(super) fn at(number: usize, plan: &Plan) -> Option<Backward> {
        let Some(number) = number.checked_sub(1) else { return Some(Backward::Head) };
        // Forward has left the last block's activations.
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

/// A part of a stage of backward of a plan that is fused, after those before it: gradients that are made after each part
/// leave their place to the next. The MLP half of a block goes by columns of the hidden width, of which there are no others
/// activated, and the head comes before its norm.
#[derive(Clone)]
pub(crate) struct Part {
    pub columns: Range<usize>,
    /// Whether it is the last, which does all else.
    pub last: bool,
}

impl Part {
    /// All of a stage.
    pub fn whole(plan: &Plan) -> Part {
        Part { columns: 0..plan.config.hidden, last: true }
    }

    /// The first part of a stage.
    pub fn first(plan: &Plan, stage: Backward) -> Part {
        let whole = Part::whole(plan);
        match stage {
            Backward::Mlp { .. } => Part { columns: 0..plan.hidden_columns(), last: false },
            Backward::Head => Part { last: false, ..whole },
            _ => whole,
        }
    }

    /// The part after this one.
    pub fn next(self, plan: &Plan) -> Option<Part> {
        let (hidden, first) = (plan.config.hidden, self.columns.end);
        let end = hidden.min(first + self.columns.len());
        (!self.last).then_some(Part { columns: first..end, last: first == hidden })
    }
}

impl Pass<'_> {
    /// The gradients of activations, and all else that those of the stage's parameters are made of: of those of a part, where
    /// the plan is fused and [`Pass::gradients_by_rows`] comes next.
    #[inline(never)]
    pub(crate) fn backward_stage(&self, stage: Backward, part: &Part, workspace: &mut Workspace<'_>) {
        match stage {
            Backward::Head => self.head_backward(part, workspace),
            Backward::Recompute { layer } => self.block(layer, workspace, Extent::Activations),
            Backward::Mlp { layer } => self.mlp_backward(layer, part, workspace),
            Backward::Attention { layer } => self.attention_backward(layer, workspace),
            Backward::Embedding => self.embedding_backward(workspace),
        }
    }

    #[inline(never)]
    fn head_backward(&self, this: &Part, workspace: &mut Workspace<'_>) {
        let config = &self.plan.config;
        let (simd, rows, c, v) = (self.compute.simd, self.rows(), config.width, config.vocab);
        let Workspace { residual, d_residual, d_normed, intermediate, workers, .. } = workspace;
        let (norm, head) = self.parameters().head();
        let fused = d_normed.is_empty();
        if !fused || !this.last {
            let (_, d_logits) = intermediate.head();
            let (d_logits, head) = (Matrix::new(d_logits, v), Matrix::new(head, c));
            // The head's gradient is made of the norm's output, which has the place of its gradient.
            let to = if fused { &mut **d_residual } else { &mut **d_normed };
            self.team(workers).product((to, c), Size { m: rows, n: c, k: v }, Start::Zero, d_logits, head);
        }
        if !this.last {
            return;
        }
        let (_, d_normed, _) = intermediate.backward(d_normed, true);
        if let Some(d_normed) = d_normed.get_mut(..d_residual.len()).filter(|_| fused) {
            d_normed.copy_from_slice(d_residual);
        }
        let x = residual.last();
        let statistics = (&*workspace.final_mean, &*workspace.final_rstd);
        simd::clear(simd, d_residual);
        let d_normed = &*d_normed;
        self.team(workers).by_row(rows * c, [(d_residual, c)], |rows, [d_residual]| {
            let (mean, rstd) = (part(statistics.0, &rows, 1), part(statistics.1, &rows, 1));
            let (x, d_normed) = (part(x, &rows, c), part(d_normed, &rows, c));
            layer_norm::backward_input(simd, d_residual, d_normed, x, mean, rstd, norm.weight);
        });
    }

    #[inline(never)]
    fn mlp_backward(&self, layer: usize, this: &Part, workspace: &mut Workspace<'_>) {
        let (config, simd, m) = (&self.plan.config, self.compute.simd, self.rows());
        let (c, f) = (config.width, config.hidden);
        let half = self.parameters().mlp(layer);
        let Part { columns, last } = this;
        let count = columns.len();
        let Workspace { residual, layers, d_residual, d_normed, intermediate, workers, .. } = workspace;
        let LayerActivations { ln_2_mean, ln_2_rstd, mut wide, .. } = layers.of(layer, config, m);
        let hidden = wide.cut(m * f);
        let (_, middle, d_branch) = residual.backward(layer);
        let (normed, d_normed, activated) = intermediate.backward(d_normed, *last);
        let mut team = self.team(workers);

        if columns.start == 0 {
            let mask = self.mask(Stream::MlpProjectionDropout, layer);
            self.drop_gradient(&mut team, d_branch, d_residual, mask);
        }
        if self.keeps_activated(layer) {
            // As many columns at a time as what has this place afterwards.
            let mut first = 0;
            while first < f {
                let columns = first..f.min(first + c);
                let d_columns = d_normed.get_mut(..m * columns.len()).unwrap_or_default();
                let weight = part(half.second.weight, &columns, c);
                team.linear_backward(d_columns, d_branch, weight, [columns.len(), c]);
                let buffers = [(&mut *hidden, f), (d_columns, columns.len())];
                team.by_row(m * columns.len(), buffers, |_, [hidden, d_columns]| {
                    with_columns(hidden, f, &columns, d_columns, |slope, d_columns| {
                        simd::multiply(simd, slope, d_columns);
                    });
                });
                first = columns.end;
            }
        } else if count > 0 {
            let weight = part(half.second.weight, columns, c);
            let activated = activated.get_mut(..m * count).unwrap_or_default();
            team.linear_backward(activated, d_branch, weight, [count, c]);
            let buffers = [(&mut *hidden, f), (activated, count)];
            team.by_row(m * count, buffers, |_, [hidden, activated]| {
                with_columns(hidden, f, columns, activated, |hidden, activated| {
                    gelu::exchange(simd, hidden, activated, config.activation);
                });
            });
        }
        if !last {
            return;
        }
        team.linear_backward(d_normed, hidden, half.first.weight, [c, f]);
        let statistics = (&*ln_2_mean, &*ln_2_rstd);
        self.branch_backward(&mut team, &half.norm, [normed, d_residual], d_normed, middle, statistics);
    }

    #[inline(never)]
    fn attention_backward(&self, layer: usize, workspace: &mut Workspace<'_>) {
        let (config, simd, t) = (&self.plan.config, self.compute.simd, self.shape.length);
        let (c, h) = (config.width, config.heads);
        let half = self.parameters().attention(layer);
        let mask = self.mask(Stream::AttentionDropout, layer);
        let Workspace { residual, layers, d_residual, d_normed, intermediate, workers, .. } = workspace;
        let LayerActivations { ln_1_mean, ln_1_rstd, qkv, attention_stats, attended, mut wide, .. } =
            layers.of(layer, config, self.rows());
        let d_qkv = wide.cut(self.rows() * 3 * c);
        let (qkv, attention_stats, attended) = (&*qkv, &*attention_stats, &*attended);
        let (x, _, d_branch) = residual.backward(layer);
        let (normed, d_normed, _) = intermediate.backward(d_normed, true);
        let mut team = self.team(workers);

        let projection_mask = self.mask(Stream::AttentionProjectionDropout, layer);
        self.drop_gradient(&mut team, d_branch, d_residual, projection_mask);
        let d_attended = &mut *d_normed;
        team.linear_backward(d_attended, d_branch, half.second.weight, [c, c]);
        let d_attended = &*d_attended;
        // Nothing is there yet.
        let buffers = [(&mut *d_qkv, 3 * c), (&mut *normed, c)];
        team.by_sequence(x.len(), buffers, |sequences, [d_qkv, normed], scratch| {
            let space = attention_scratch(scratch, normed);
            for (sequence, d_qkv) in sequences.zip(rows_mut(d_qkv, 3 * t * c)) {
                let this = sequence..sequence + 1;
                let (qkv, d_attended) = (part(qkv, &this, 3 * t * c), part(d_attended, &this, t * c));
                let attended = part(attended, &this, t * c);
                let stats = part(attention_stats, &this, 2 * t * h);
                let attention = self.attention(mask, sequence);
                attention::backward_sequence(simd, d_qkv, d_attended, qkv, attended, stats, attention, space);
            }
        });
        team.linear_backward(d_normed, d_qkv, half.first.weight, [c, 3 * c]);
        let statistics = (&*ln_1_mean, &*ln_1_rstd);
        self.branch_backward(&mut team, &half.norm, [normed, d_residual], d_normed, x, statistics);
    }

    /// Back through the norm that a residual branch begins with, of x `[R, C]` with its means and reciprocal deviations:
    /// its output again, and `d_x` with what comes through it.
    #[inline(never)]
    fn branch_backward(
        &self,
        team: &mut Workers<'_>,
        norm: &Norm<'_>,
        [normed, d_x]: [&mut [f32]; 2],
        d_normed: &[f32],
        x: &[f32],
        (mean, rstd): (&[f32], &[f32]),
    ) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        team.by_row(x.len(), [(normed, c), (d_x, c)], |rows, [normed, d_x]| {
            let (x, d_normed) = (part(x, &rows, c), part(d_normed, &rows, c));
            let (mean, rstd) = (part(mean, &rows, 1), part(rstd, &rows, 1));
            layer_norm::apply(simd, normed, x, mean, rstd, norm.weight, norm.bias);
            layer_norm::backward_input(simd, d_x, d_normed, x, mean, rstd, norm.weight);
        });
    }

    fn embedding_backward(&self, workspace: &mut Workspace<'_>) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        let mask = self.mask(Stream::EmbeddingDropout, 0);
        let d_x = &mut *workspace.d_residual;
        self.team(workspace.workers).by_row(self.rows() * c, [(d_x, c)], |rows, [d_x]| {
            self.each_masked(rows.start, d_x, mask, &mut |d_x, mask, _| {
                dropout::in_place(simd, d_x, c, mask);
            });
        });
    }

    /// `d_branch = dropout(d_residual)`: the gradient that enters a residual branch.
    #[inline(never)]
    fn drop_gradient(
        &self,
        team: &mut Workers<'_>,
        d_branch: &mut [f32],
        d_residual: &[f32],
        mask: Option<Mask>,
    ) {
        let c = self.plan.config.width;
        team.by_row(d_branch.len(), [(d_branch, c)], |rows, [d_branch]| {
            let mut d_residual = part(d_residual, &rows, c);
            self.each_masked(rows.start, d_branch, mask, &mut |d_branch, mask, _| {
                let d_residual = d_residual.split_off(..d_branch.len()).unwrap_or_default();
                dropout::write(self.compute.simd, d_branch, d_residual, c, mask);
            });
        });
    }
}
