//! From the logits' gradient to those of all activations; `gradients.rs` makes the parameters' from them.

use core::ops::Range;

use super::forward::Extent;
use super::{Pass, part, with_columns};
use crate::layout::{Cut, Group, LayerActivations, Norm, Plan, Workspace, attention_scratch};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::dropout::Mask;
use crate::ops::{attention, dropout, gelu, layer_norm, linear, rows, rows_mut};
use crate::parallel::Units;
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
            self.product((to, c), Size { m: rows, n: c, k: v }, Start::Zero, d_logits, head, workers);
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
        self.by_sequence(&mut [Units::rows(d_residual, c)], rows * c, |range, [d_residual]| {
            let t = self.shape.length;
            let d_normed = part(d_normed, &range, t * c);
            let statistics = (part(statistics.0, &range, t), part(statistics.1, &range, t));
            norm_backward(self, &norm, d_residual, d_normed, part(x, &range, t * c), statistics);
        });
    }

    /// Back through the MLP half of a block, by sequence.
    #[inline(never)]
    fn mlp_backward(&self, layer: usize, this: &Part, workspace: &mut Workspace<'_>) {
        let config = &self.plan.config;
        let (simd, t, rows_all) = (self.compute.simd, self.shape.length, self.rows());
        let (c, f) = (config.width, config.hidden);
        let Workspace { residual, layers, d_residual, d_normed, intermediate, workers, .. } = workspace;
        let mut activations = layers.of(layer, config, rows_all);
        let (_, middle, d_branch) = residual.backward(layer);

        let Part { columns, last } = this;
        let (normed, d_normed, mut activated) = intermediate.backward(d_normed, *last);
        let activated = activated.cut(rows_all * columns.len());
        let statistics = (&*activations.ln_2_mean, &*activations.ln_2_rstd);
        let mut buffers = [
            Units::rows(d_residual, c),
            Units::rows(d_branch, c),
            Units::rows(normed, c),
            Units::rows(d_normed, c),
            Units::rows(activated, columns.len()),
            Units::rows(activations.wide.cut(rows_all * f), f),
        ];
        let work = rows_all * c * if *last { f + columns.len() } else { columns.len() };
        self.by_sequence_with(workers, &mut buffers, work, |range, buffers, scratch| {
            let [d_residual, d_branch, normed, d_normed, activated, hidden] = buffers;
            let half = self.parameters().mlp(layer);
            let m = range.len() * t;
            let product = |n, k| Size { m, n, k };
            let statistics = (part(statistics.0, &range, t), part(statistics.1, &range, t));
            let middle = part(middle, &range, t * c);
            if columns.start == 0 {
                let mask = self.mask(Stream::MlpProjectionDropout, layer);
                self.drop_gradient(range, d_branch, d_residual, mask);
            }
            let mut d_activated = |d_activated: &mut [f32], columns: &Range<usize>| {
                let (weight, size) = (part(half.second.weight, columns, c), product(c, columns.len()));
                linear::backward_trusted(simd, d_activated, d_branch, weight, size, scratch);
            };
            if self.keeps_activated(layer) {
                // As many columns at a time as what has this place afterwards.
                for first in (0..f).step_by(c.max(1)) {
                    let columns = first..f.min(first + c);
                    let d_columns = d_normed.get_mut(..m * columns.len()).unwrap_or_default();
                    d_activated(d_columns, &columns);
                    with_columns(hidden, f, &columns, d_columns, |slope, d_columns| {
                        simd::multiply(simd, slope, d_columns);
                    });
                }
            } else if !columns.is_empty() {
                d_activated(activated, columns);
                with_columns(hidden, f, columns, activated, |hidden, activated| {
                    gelu::exchange(simd, hidden, activated, config.activation);
                });
            }
            if !last {
                return;
            }
            linear::backward_trusted(simd, d_normed, hidden, half.first.weight, product(f, c), scratch);
            let norm = &half.norm;
            layer_norm::apply(simd, normed, middle, statistics.0, statistics.1, norm.weight, norm.bias);
            norm_backward(self, norm, d_residual, d_normed, middle, statistics);
        });
    }

    /// Back through the attention half of a block, likewise.
    #[inline(never)]
    fn attention_backward(&self, layer: usize, workspace: &mut Workspace<'_>) {
        let config = &self.plan.config;
        let (simd, t, rows_all) = (self.compute.simd, self.shape.length, self.rows());
        let (c, h) = (config.width, config.heads);
        let Workspace { residual, layers, d_residual, d_normed, intermediate, workers, .. } = workspace;
        let activations = layers.of(layer, config, rows_all);
        let (x, _, d_branch) = residual.backward(layer);

        let (normed, d_normed, _) = intermediate.backward(d_normed, true);
        let statistics = (&*activations.ln_1_mean, &*activations.ln_1_rstd);
        let LayerActivations { qkv, attention_stats, attended, mut wide, .. } = activations;
        let (qkv, attention_stats, attended) = (&*qkv, &*attention_stats, &*attended);
        let mut buffers = [
            Units::rows(d_residual, c),
            Units::rows(d_branch, c),
            Units::rows(normed, c),
            Units::rows(d_normed, c),
            Units::rows(wide.cut(rows_all * 3 * c), 3 * c),
        ];
        self.by_sequence_with(workers, &mut buffers, rows_all * 4 * c * c, |range, buffers, scratch| {
            let [d_residual, d_branch, normed, d_normed, d_qkv] = buffers;
            let half = self.parameters().attention(layer);
            let mask = self.mask(Stream::AttentionDropout, layer);
            let m = range.len() * t;
            let product = |n, k| Size { m, n, k };
            let statistics = (part(statistics.0, &range, t), part(statistics.1, &range, t));
            let x = part(x, &range, t * c);
            let projection_mask = self.mask(Stream::AttentionProjectionDropout, layer);
            self.drop_gradient(range.clone(), d_branch, d_residual, projection_mask);
            let projection = half.second.weight;
            let d_attended = &mut *d_normed;
            linear::backward_trusted(simd, d_attended, d_branch, projection, product(c, c), scratch);
            // Nothing is there yet.
            let space = attention_scratch(&mut *scratch, normed);
            let sequences = range.zip(rows_mut(d_qkv, 3 * t * c)).zip(rows(d_attended, t * c));
            for ((sequence, d_qkv), d_attended) in sequences {
                let this = sequence..sequence + 1;
                let qkv = part(qkv, &this, 3 * t * c);
                let attended = part(attended, &this, t * c);
                let stats = part(attention_stats, &this, 2 * t * h);
                let attention = self.attention(mask, sequence);
                attention::backward_sequence(simd, d_qkv, d_attended, qkv, attended, stats, attention, space);
            }
            linear::backward_trusted(simd, d_normed, d_qkv, half.first.weight, product(3 * c, c), scratch);
            let norm = &half.norm;
            layer_norm::apply(simd, normed, x, statistics.0, statistics.1, norm.weight, norm.bias);
            norm_backward(self, norm, d_residual, d_normed, x, statistics);
        });
    }

    fn embedding_backward(&self, workspace: &mut Workspace<'_>) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        let mask = self.mask(Stream::EmbeddingDropout, 0);
        self.by_sequence(&mut [Units::rows(workspace.d_residual, c)], self.rows() * c, |range, [d_x]| {
            self.each_masked(range, d_x, mask, &mut |d_x, mask| {
                dropout::in_place(simd, d_x, c, mask);
            });
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
        self.each_masked(range, d_branch, mask, &mut |d_branch, mask| {
            dropout::write(self.compute.simd, d_branch, d_residual.next().unwrap_or_default(), c, mask);
        });
    }
}

fn norm_backward(
    pass: &Pass<'_>,
    norm: &Norm<'_>,
    d_x: &mut [f32],
    d_y: &[f32],
    x: &[f32],
    (mean, rstd): (&[f32], &[f32]),
) {
    layer_norm::backward_input(pass.compute.simd, d_x, d_y, x, mean, rstd, norm.weight);
}
