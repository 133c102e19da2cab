//! From the logits' gradient to that of every parameter.

use core::iter::once;
use core::ops::Range;

use super::forward::Extent;
use super::{Gradients, Masks, Pass, part, part_mut};
use crate::layout::{Block, LayerActivations, Linear, Norm, Parameters, Plan, Workspace};
use crate::matmul::{Matrix, Size, Start, matmul_trusted};
use crate::ops::dropout::Mask;
use crate::ops::{attention, dropout, embedding, gelu, layer_norm, linear, rows, rows_mut};
use crate::parallel::Share;

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
    /// A whole pass, as the plan has it.
    pub fn all(plan: &Plan) -> impl Iterator<Item = Backward> + use<> {
        let (layers, recompute) = (plan.config.layers, plan.options.recompute);
        let blocks = (0..layers).rev().flat_map(move |layer| {
            // Forward has left the last block's.
            let again = (recompute && layer + 1 < layers).then_some(Backward::Recompute { layer });
            again.into_iter().chain([Backward::Mlp { layer }, Backward::Attention { layer }])
        });
        once(Backward::Head).chain(blocks).chain(once(Backward::Embedding))
    }
}

impl Pass<'_> {
    pub(super) fn backward_stage(
        &self,
        stage: Backward,
        gradients: &mut Parameters<&mut [f32]>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        let parameters = Parameters::new(self.parameters, self.plan);
        match stage {
            Backward::Head => self.head_backward(&parameters, gradients, mode, workspace),
            Backward::Recompute { layer } => self.block(layer, &parameters, workspace, Extent::Activations),
            Backward::Mlp { layer } => self.mlp_backward(layer, &parameters, gradients, mode, workspace),
            Backward::Attention { layer } => {
                self.attention_backward(layer, &parameters, gradients, mode, workspace);
            }
            Backward::Embedding => self.embedding_backward(gradients, mode, workspace),
        }
    }

    fn head_backward(
        &self,
        parameters: &Parameters<&[f32]>,
        gradients: &mut Parameters<&mut [f32]>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        let config = &self.plan.config;
        let (rows, c, v) = (self.rows(), config.width, config.vocab);
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
        let x = workspace.residual.x(config.layers);
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
        let no_scratch = (&mut [][..], 0);
        let normed = Normed { x, d_y: workspace.d_normed, statistics };
        let buffers = norm_buffers(&mut gradients.final_norm);
        self.compute.split_each(rows * c, buffers, no_scratch, |share, gradient, _| {
            self.norm_gradient(gradient, mode, share, normed);
        });
    }

    /// Back through the MLP half of a block: the gradients of activations first, by sequence, then those of
    /// parameters.
    fn mlp_backward(
        &self,
        layer: usize,
        parameters: &Parameters<&[f32]>,
        gradients: &mut Parameters<&mut [f32]>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        let config = &self.plan.config;
        let (simd, t, rows_all) = (self.compute.simd, self.shape.length, self.rows());
        let (c, f) = (config.width, config.hidden);
        let (block, mut d_block, masks) = self.block_and_gradient(layer, parameters, gradients);
        let Workspace { residual, layers, d_residual, d_branch, normed, d_normed, wide, workers, .. } =
            workspace;
        let activations = layers.of(layer, config, rows_all);
        let middle = residual.middle(layer);

        let activated = wide.get_mut(..rows_all * f).unwrap_or_default();
        let statistics = (&*activations.ln_2_mean, &*activations.ln_2_rstd);
        let buffers = [
            (&mut **d_residual, c),
            (&mut **d_branch, c),
            (&mut **normed, c),
            (&mut **d_normed, c),
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
        self.half_block_gradients(
            mode,
            [
                (&mut d_block.mlp_projection, Affine { x: activated, d_y: d_branch, from: f, to: c }),
                (&mut d_block.c_fc, Affine { x: normed, d_y: activations.hidden, from: c, to: f }),
            ],
            (&mut d_block.ln_2, Normed { x: middle, d_y: d_normed, statistics }),
            workers,
        );
    }

    /// Back through the attention half of a block, likewise.
    fn attention_backward(
        &self,
        layer: usize,
        parameters: &Parameters<&[f32]>,
        gradients: &mut Parameters<&mut [f32]>,
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        let config = &self.plan.config;
        let (simd, t, rows_all) = (self.compute.simd, self.shape.length, self.rows());
        let (c, h) = (config.width, config.heads);
        let (block, mut d_block, masks) = self.block_and_gradient(layer, parameters, gradients);
        let Workspace { residual, layers, d_residual, d_branch, normed, d_normed, wide, workers, .. } =
            workspace;
        let activations = layers.of(layer, config, rows_all);
        let x = residual.x(layer);

        let d_qkv = wide.get_mut(..rows_all * 3 * c).unwrap_or_default();
        let statistics = (&*activations.ln_1_mean, &*activations.ln_1_rstd);
        let LayerActivations { qkv, attention_stats, attended, .. } = activations;
        let (qkv, attention_stats, attended) = (&*qkv, &*attention_stats, &*attended);
        let buffers = [
            (&mut **d_residual, c),
            (&mut **d_branch, c),
            (&mut **normed, c),
            (&mut **d_normed, c),
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
        self.half_block_gradients(
            mode,
            [
                (&mut d_block.attention_projection, Affine { x: attended, d_y: d_branch, from: c, to: c }),
                (&mut d_block.c_attn, Affine { x: normed, d_y: d_qkv, from: c, to: 3 * c }),
            ],
            (&mut d_block.ln_1, Normed { x, d_y: d_normed, statistics }),
            workers,
        );
    }

    /// A block's parameters, their gradients and its dropout.
    fn block_and_gradient<'p, 'g>(
        &self,
        layer: usize,
        parameters: &Parameters<&'p [f32]>,
        gradients: &'g mut Parameters<&mut [f32]>,
    ) -> (Block<&'p [f32]>, Block<&'g mut [f32]>, Masks) {
        let (config, size) = (&self.plan.config, self.plan.block());
        let block = Block::new(part(parameters.blocks, &(layer..layer + 1), size), config);
        let d_block = Block::new(part_mut(gradients.blocks, layer..layer + 1, size), config);
        (block, d_block, self.masks(layer))
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
                let sequences = rows(d_x, t * c).zip(rows(self.tokens, t));
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

    /// The gradients of half a block's parameters: two affine maps and the norm before them. All workers meet once,
    /// each with its share of every gradient.
    fn half_block_gradients(
        &self,
        mode: Gradients,
        [(d_second, second), (d_first, first)]: [(&mut Linear<&mut [f32]>, Affine<'_>); 2],
        (d_norm, normed): (&mut Norm<&mut [f32]>, Normed<'_>),
        workers: &mut [f32],
    ) {
        let [a, b] = linear_buffers(d_second, &second);
        let [c, d] = linear_buffers(d_first, &first);
        let [e, f] = norm_buffers(d_norm);
        let work = self.rows() * (first.from * first.to + second.from * second.to);
        let scratch = (workers, self.plan.worker_scratch());
        self.compute.split_each(work, [a, b, c, d, e, f], scratch, |share, [a, b, c, d, e, f], scratch| {
            self.linear_gradient([a, b], mode, share, second, scratch);
            self.linear_gradient([c, d], mode, share, first, scratch);
            self.norm_gradient([e, f], mode, share, normed);
        });
    }

    /// One worker's share of `d_weight += x^T d_y` and of `d_bias += column sums of d_y`.
    fn linear_gradient(
        &self,
        [d_weight, d_bias]: [&mut [f32]; 2],
        mode: Gradients,
        share: Share,
        Affine { x, d_y, from, to }: Affine<'_>,
        scratch: &mut [f32],
    ) {
        let simd = self.compute.simd;
        let rows = share.of(from);
        let x = Matrix::new(x, from).transposed().from(rows.start, 0);
        let size = Size { m: rows.len(), n: to, k: self.rows() };
        matmul_trusted(simd, size, (d_weight, to), mode.start(), x, Matrix::new(d_y, to), scratch);
        mode.clear(d_bias);
        linear::bias_gradient(simd, d_bias, share.of(to).start, to, d_y);
    }

    /// One worker's share of a norm's gradients.
    fn norm_gradient(
        &self,
        [d_weight, d_bias]: [&mut [f32]; 2],
        mode: Gradients,
        share: Share,
        Normed { x, d_y, statistics: (mean, rstd) }: Normed<'_>,
    ) {
        let (c, simd) = (self.plan.config.width, self.compute.simd);
        mode.clear(d_weight);
        mode.clear(d_bias);
        layer_norm::parameter_gradients(simd, d_weight, d_bias, share.of(c).start, c, d_y, x, mean, rstd);
    }
}

/// What the gradients of an affine map's parameters follow from: its input `[R, from]`, and the gradient of its
/// output `[R, to]`.
#[derive(Clone, Copy)]
struct Affine<'a> {
    x: &'a [f32],
    d_y: &'a [f32],
    from: usize,
    to: usize,
}

/// What the gradients of a norm's parameters follow from; `statistics` are the mean and rstd of each row.
#[derive(Clone, Copy)]
struct Normed<'a> {
    x: &'a [f32],
    d_y: &'a [f32],
    statistics: (&'a [f32], &'a [f32]),
}

/// A buffer to cut, its units, and the elements of each.
type Buffer<'a> = (&'a mut [f32], usize, usize);

/// The weight's rows and the bias's elements.
fn linear_buffers<'a>(gradient: &'a mut Linear<&mut [f32]>, affine: &Affine<'_>) -> [Buffer<'a>; 2] {
    let biases = gradient.bias.len();
    [(&mut *gradient.weight, affine.from, affine.to), (&mut *gradient.bias, biases, 1)]
}

/// The elements of the weight and of the bias.
fn norm_buffers<'a>(gradient: &'a mut Norm<&mut [f32]>) -> [Buffer<'a>; 2] {
    let (weights, biases) = (gradient.weight.len(), gradient.bias.len());
    [(&mut *gradient.weight, weights, 1), (&mut *gradient.bias, biases, 1)]
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
