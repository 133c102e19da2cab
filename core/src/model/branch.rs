//! The forward pass of a block's two residual branches and of the head, for training, recomputation and generation.

use super::{Pass, Workers, rows_in, rows_of};
use crate::layout::{
    Affine, AttentionActivations, Group, GroupParameters, MlpActivations, NormedHeads, Rotation, Site,
};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::dropout::{self, Mask};
use crate::ops::{gelu, layer_norm, rms_norm, rotary, rows_mut, swiglu};
use crate::rng::Stream;

/// Attention itself: reads qkv `[R, H D + 2 K D]` and writes the attended values `[R, H D]` and the statistics of scores. In
/// training each sequence attends to itself, in generation to the KV cache.
pub(crate) type Attend<'f> = dyn FnMut(&mut Workers<'_>, &[f32], [&mut [f32]; 2]) + 'f;

impl Pass<'_> {
    /// `out = x + dropout(project(attend(norm(x) W)))`, all `[R, C]`, as `normed` is, the scratch of the norm's output.
    /// `rotation` has the angles of the positions of a sequence.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    pub(crate) fn attention_branch(
        &self,
        layer: usize,
        x: &[f32],
        out: &mut [f32],
        kept: &mut AttentionActivations<'_>,
        normed: &mut [f32],
        rotation: Rotation<'_>,
        workers: &mut Workers<'_>,
        attend: &mut Attend<'_>,
    ) {
        let (config, parameters) = (&self.plan.config, self.parameters().of(Group::Attention { layer }));
        let (c, a, qkv_width) = (config.width, config.attended(), config.qkv());
        let AttentionActivations { mean, rstd, .. } = kept;
        self.norm(workers, &parameters.affine(Site::AttentionNorm), [normed, mean, rstd], x);
        workers.project((kept.qkv, qkv_width), normed, &parameters, Site::qkv(config), c);
        let (sites, y) = (Site::qkv(config), (&mut *kept.qkv, qkv_width));
        self.adapt(workers, layer, &parameters, sites, y, normed, kept.low_rank);
        if config.has_qk_norm() {
            self.norm_heads(workers, kept, &parameters);
        }
        self.rotate(workers, kept.qkv, rotation, 1.0);
        let AttentionActivations { qkv, stats, attended, low_rank, .. } = kept;
        attend(workers, qkv, [attended, stats]);
        workers.linear((&mut *out, c), attended, parameters.affine(Site::AttentionOut), [a, c]);
        let (sites, y) = (&[Site::AttentionOut], (&mut *out, c));
        self.adapt(workers, layer, &parameters, sites, y, attended, low_rank);
        self.add_residual(workers, out, x, self.mask(Stream::AttentionProjectionDropout, layer));
    }

    /// Normalises each head's queries and keys by their root mean square, and keeps what they were.
    #[inline(never)]
    fn norm_heads(
        &self,
        workers: &mut Workers<'_>,
        kept: &mut AttentionActivations<'_>,
        parameters: &GroupParameters<'_>,
    ) {
        let (simd, config) = (self.compute.simd, &self.plan.config);
        let width = config.qkv();
        let AttentionActivations { qkv, heads, .. } = kept;
        let NormedHeads { queries, keys, query_rstd, key_rstd } = self.normed_heads(heads);
        let parts = [
            (Site::QueryNorm, 0, queries, query_rstd, config.heads),
            (Site::KeyNorm, config.attended(), keys, key_rstd, config.kv_heads()),
        ];
        for (site, first, x, rstd, heads) in parts {
            let weight = parameters.affine(site).weight;
            let columns = heads * weight.len();
            let buffers = [(&mut **qkv, width), (x, columns), (rstd, heads)];
            workers.by_row(self.rows() * columns, buffers, |_, [qkv, x, rstd]| {
                let rows = rows_mut(qkv, width).zip(rows_mut(x, columns)).zip(rows_mut(rstd, heads));
                for ((qkv, x), rstd) in rows {
                    let qkv = qkv.get_mut(first..first + columns).unwrap_or_default();
                    for (x, value) in x.iter_mut().zip(&*qkv) {
                        *x = *value;
                    }
                    rms_norm::statistics(simd, rstd, x, weight.len(), config.norm_epsilon);
                    rms_norm::apply(simd, qkv, x, rstd, weight);
                }
            });
        }
    }

    /// The regions of the norms of queries and keys.
    pub(super) fn normed_heads<'h>(&self, mut heads: &'h mut [f32]) -> NormedHeads<'h> {
        NormedHeads::cut(&mut heads, &self.plan.sizes(), self.rows())
    }

    /// Rotates queries and keys in rows of qkv, or their gradients back, by `direction` times the angles of their positions:
    /// 1 or -1.
    #[inline(never)]
    pub(super) fn rotate(
        &self,
        workers: &mut Workers<'_>,
        qkv: &mut [f32],
        Rotation { cos, sin }: Rotation<'_>,
        direction: f32,
    ) {
        let config = &self.plan.config;
        if !config.is_rotary() {
            return;
        }
        let (width, columns) = (config.qkv(), config.attended() + config.kv_width());
        let half = config.head_width() / 2;
        workers.by_row(self.rows() * columns, [(qkv, width)], |range, [qkv]| {
            self.each_masked(range.start, (qkv, width), None, &mut |qkv, _, position| {
                let [cos, sin] = [cos, sin].map(|angles| angles.get(position * half..).unwrap_or_default());
                rotary::rotate(self.compute.simd, qkv, width, columns, cos, sin, half, direction);
            });
        });
    }

    /// `out = x + dropout(activation(norm(x) W_in) W_out)`, all `[R, C]`. Without `out`, for recomputation, it ends
    /// with the inputs of the activation function.
    #[inline(never)]
    pub(crate) fn mlp_branch(
        &self,
        layer: usize,
        x: &[f32],
        out: Option<&mut [f32]>,
        kept: &mut MlpActivations<'_>,
        [normed, activated]: [&mut [f32]; 2],
        workers: &mut Workers<'_>,
    ) {
        let MlpActivations { mean, rstd, hidden, low_rank } = kept;
        let (config, parameters) = (&self.plan.config, self.parameters().of(Group::Mlp { layer }));
        let (c, f, inputs) = (config.width, config.hidden, config.activation_inputs());
        let rows = workers.shape.rows();
        let hidden = rows_in(hidden, rows, inputs);
        self.norm(workers, &parameters.affine(Site::MlpNorm), [normed, mean, rstd], x);
        workers.project((&mut *hidden, inputs), normed, &parameters, Site::mlp_in(config), c);
        let (sites, y) = (Site::mlp_in(config), (&mut *hidden, inputs));
        self.adapt(workers, layer, &parameters, sites, y, normed, low_rank);
        let Some(out) = out else { return };
        let output = parameters.affine(Site::MlpOut);
        let (weight, bias) = (output.matrix([f, c]), output.bias);
        let mut start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let mut first = 0;
        while first < f {
            let columns = first..f.min(first + self.plan.hidden_columns());
            let buffers = [(&mut *hidden, inputs), (&mut *activated, columns.len())];
            workers.by_row(rows * columns.len(), buffers, |_, [hidden, activated]| {
                self.with_columns(hidden, &columns, activated, |gate, hidden, activated| {
                    self.activate(layer, gate, hidden, activated);
                });
            });
            let activated = Matrix::new(activated, columns.len());
            let size = Size { m: rows, n: c, k: columns.len() };
            workers.product((&mut *out, c), size, start, activated, weight.from(first, 0));
            (first, start) = (columns.end, Start::Accumulate);
        }
        let (sites, y) = (&[Site::MlpOut], (&mut *out, c));
        self.adapt(workers, layer, &parameters, sites, y, activated, low_rank);
        self.add_residual(workers, out, x, self.mask(Stream::MlpProjectionDropout, layer));
    }

    /// The activation function of `hidden`, and of the gate where there is one. If the layer keeps its output, the inputs
    /// become its slopes.
    fn activate(&self, layer: usize, gate: &mut [f32], hidden: &mut [f32], activated: &mut [f32]) {
        let (simd, config) = (self.compute.simd, &self.plan.config);
        if self.keeps_activated(layer) {
            // The slopes times 1.
            activated.fill(1.0);
            self.exchange(gate, hidden, activated);
        } else if config.is_gated() {
            swiglu::activate(simd, activated, gate, hidden);
        } else {
            gelu::activate(simd, activated, hidden, config.activation);
        }
    }

    /// The activation's backward pass: its inputs become their gradients, and the gradient of its output becomes the output.
    pub(super) fn exchange(&self, gate: &mut [f32], hidden: &mut [f32], d_activated: &mut [f32]) {
        let (simd, config) = (self.compute.simd, &self.plan.config);
        if config.is_gated() {
            swiglu::exchange(simd, gate, hidden, d_activated);
        } else {
            gelu::exchange(simd, hidden, d_activated, config.activation);
        }
    }

    /// The final norm of x `[R, C]`.
    #[inline(never)]
    pub(crate) fn head_input(&self, x: &[f32], outputs: [&mut [f32]; 3], workers: &mut Workers<'_>) {
        let [norm, _] = self.parameters().head();
        self.norm(workers, &norm, outputs, x);
    }

    /// `logits = input W` `[R, V]`, of the final norm's output.
    #[inline(never)]
    pub(crate) fn logits(&self, input: &[f32], logits: &mut [f32], workers: &mut Workers<'_>) {
        let [_, head] = self.parameters().head();
        let [c, v] = [self.plan.config.width, self.plan.config.vocab];
        workers.linear((logits, v), input, head, [c, v]);
    }

    /// A norm of x `[R, C]`, with the mean `[R]` and reciprocal deviation `[R]` of each row.
    fn norm(
        &self,
        workers: &mut Workers<'_>,
        norm: &Affine<'_>,
        [normed, mean, rstd]: [&mut [f32]; 3],
        x: &[f32],
    ) {
        let (simd, c, epsilon) = (self.compute.simd, self.plan.config.width, self.plan.config.norm_epsilon);
        workers.by_row(x.len(), [(normed, c), (mean, 1), (rstd, 1)], |rows, [normed, mean, rstd]| {
            let x = rows_of(x, &rows, c);
            if self.plan.config.is_rms() {
                // The gradients of the weight are a layer norm's on portable targets.
                mean.fill(0.0);
                rms_norm::statistics(simd, rstd, x, c, epsilon);
            } else {
                layer_norm::statistics(simd, mean, rstd, x, c, epsilon);
            }
            self.apply_norm(normed, x, [mean, rstd], norm);
        });
    }

    /// A norm's output, from the statistics of its input x.
    pub(super) fn apply_norm(
        &self,
        normed: &mut [f32],
        x: &[f32],
        [mean, rstd]: [&[f32]; 2],
        norm: &Affine<'_>,
    ) {
        let simd = self.compute.simd;
        if self.plan.config.is_rms() {
            rms_norm::apply(simd, normed, x, rstd, norm.weight);
        } else {
            layer_norm::apply(simd, normed, x, mean, rstd, norm.weight, norm.bias);
        }
    }

    /// `branch = x + dropout(branch)`.
    #[inline(never)]
    fn add_residual(&self, workers: &mut Workers<'_>, branch: &mut [f32], x: &[f32], mask: Option<Mask>) {
        let c = self.plan.config.width;
        workers.by_row(branch.len(), [(branch, c)], |range, [branch]| {
            let mut x = rows_of(x, &range, c);
            self.each_masked(range.start, (branch, c), mask, &mut |branch, mask, _| {
                let x = x.split_off(..branch.len()).unwrap_or_default();
                dropout::add_residual(self.compute.simd, branch, x, c, mask);
            });
        });
    }
}
