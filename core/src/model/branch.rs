//! The forward pass of a block's two residual branches and of the head, for training, recomputation and generation.

use super::{Pass, Workers, rows_of, with_columns};
use crate::layout::{Affine, AttentionActivations, Group, MlpActivations};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::dropout::{self, Mask};
use crate::ops::{gelu, layer_norm};
use crate::rng::Stream;

/// Attention itself: reads qkv `[R, 3C]` and writes the attended values `[R, C]` and the statistics of scores. In training
/// each sequence attends to itself, in generation to the KV cache.
pub(crate) type Attend<'f> = dyn FnMut(&mut Workers<'_>, &[f32], [&mut [f32]; 2]) + 'f;

impl Pass<'_> {
    /// `out = x + dropout(project(attend(norm(x) W)))`, all `[R, C]`, as `normed` is, the scratch of the norm's output.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    pub(crate) fn attention_branch(
        &self,
        layer: usize,
        x: &[f32],
        out: &mut [f32],
        kept: &mut AttentionActivations<'_>,
        normed: &mut [f32],
        workers: &mut Workers<'_>,
        attend: &mut Attend<'_>,
    ) {
        let AttentionActivations { mean, rstd, qkv, stats, attended } = kept;
        let [norm, input, output] = self.parameters().of(Group::Attention { layer });
        let c = self.plan.config.width;
        self.norm(workers, &norm, [normed, mean, rstd], x);
        workers.linear(qkv, normed, input, [c, 3 * c]);
        attend(workers, qkv, [attended, stats]);
        workers.linear(out, attended, output, [c, c]);
        self.add_residual(workers, out, x, self.mask(Stream::AttentionProjectionDropout, layer));
    }

    /// `out = x + dropout(activation(norm(x) W_in) W_out)`, all `[R, C]`. Without `out`, for recomputation, it ends
    /// with the input of the activation function.
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
        let MlpActivations { mean, rstd, hidden } = kept;
        let [norm, input, output] = self.parameters().of(Group::Mlp { layer });
        let (c, f) = (self.plan.config.width, self.plan.config.hidden);
        let rows = workers.shape.rows();
        let hidden = hidden.get_mut(..rows * f).unwrap_or_default();
        self.norm(workers, &norm, [normed, mean, rstd], x);
        workers.linear(hidden, normed, input, [c, f]);
        let Some(out) = out else { return };
        let Affine { weight, bias, .. } = output;
        let mut start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let mut first = 0;
        while first < f {
            let columns = first..f.min(first + self.plan.hidden_columns());
            let buffers = [(&mut *hidden, f), (&mut *activated, columns.len())];
            workers.by_row(rows * columns.len(), buffers, |_, [hidden, activated]| {
                with_columns(hidden, f, &columns, activated, |hidden, activated| {
                    self.activate(layer, hidden, activated);
                });
            });
            let (activated, weight) = (Matrix::new(activated, columns.len()), Matrix::new(weight, c));
            let size = Size { m: rows, n: c, k: columns.len() };
            workers.product((&mut *out, c), size, start, activated, weight.from(first, 0));
            (first, start) = (columns.end, Start::Accumulate);
        }
        self.add_residual(workers, out, x, self.mask(Stream::MlpProjectionDropout, layer));
    }

    /// The activation function. If the layer keeps its output, `hidden` becomes the slope.
    fn activate(&self, layer: usize, hidden: &mut [f32], activated: &mut [f32]) {
        let (simd, activation) = (self.compute.simd, self.plan.config.activation);
        if self.keeps_activated(layer) {
            // The slope times 1.
            activated.fill(1.0);
            gelu::exchange(simd, hidden, activated, activation);
        } else {
            gelu::activate(simd, activated, hidden, activation);
        }
    }

    /// `logits = norm(x) W` `[R, V]`, of x `[R, C]`.
    #[inline(never)]
    pub(crate) fn logits(
        &self,
        x: &[f32],
        [input, mean, rstd]: [&mut [f32]; 3],
        logits: &mut [f32],
        workers: &mut Workers<'_>,
    ) {
        let [norm, head] = self.parameters().head();
        self.norm(workers, &norm, [&mut *input, mean, rstd], x);
        workers.linear(logits, input, head, [self.plan.config.width, self.plan.config.vocab]);
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
            layer_norm::statistics(simd, mean, rstd, x, c, epsilon);
            layer_norm::apply(simd, normed, x, mean, rstd, norm.weight, norm.bias);
        });
    }

    /// `branch = x + dropout(branch)`.
    #[inline(never)]
    fn add_residual(&self, workers: &mut Workers<'_>, branch: &mut [f32], x: &[f32], mask: Option<Mask>) {
        let c = self.plan.config.width;
        workers.by_row(branch.len(), [(branch, c)], |range, [branch]| {
            let mut x = rows_of(x, &range, c);
            self.each_masked(range.start, branch, mask, &mut |branch, mask, _| {
                let x = x.split_off(..branch.len()).unwrap_or_default();
                dropout::add_residual(self.compute.simd, branch, x, c, mask);
            });
        });
    }
}
