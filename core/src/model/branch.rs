//! The forward pass of a block's two residual branches and of the head, for training, recomputing and generating alike.

use super::{Pass, Workers, rows_of, with_columns};
use crate::layout::{Linear, Norm};
use crate::matmul::{Matrix, Size, Start};
use crate::ops::dropout::{self, Mask};
use crate::ops::{gelu, layer_norm};
use crate::rng::Stream;

/// Where the attention branch of R rows writes.
pub(crate) struct AttentionForward<'a> {
    pub normed: &'a mut [f32],   // [R, C]
    pub mean: &'a mut [f32],     // [R]
    pub rstd: &'a mut [f32],     // [R]
    pub qkv: &'a mut [f32],      // [R, 3C]
    pub attended: &'a mut [f32], // [R, C]
}

/// Where the MLP branch of R rows writes.
pub(crate) struct MlpForward<'a> {
    pub normed: &'a mut [f32],    // [R, C]
    pub mean: &'a mut [f32],      // [R]
    pub rstd: &'a mut [f32],      // [R]
    pub hidden: &'a mut [f32],    // [R, F]
    pub activated: &'a mut [f32], // [R, columns]
}

/// Attention itself: reads qkv `[R, 3C]` and writes the attended values `[R, C]`. In training each sequence attends to
/// itself, in generation to the KV cache.
pub(crate) type Attend<'f> = dyn FnMut(&mut Workers<'_>, &mut [f32], &mut [f32]) + 'f;

impl Pass<'_> {
    /// `out = x + dropout(project(attend(norm(x) W)))`, all `[R, C]`.
    #[inline(never)]
    pub(crate) fn attention_branch(
        &self,
        layer: usize,
        x: &[f32],
        out: &mut [f32],
        memory: AttentionForward<'_>,
        workers: &mut Workers<'_>,
        attend: &mut Attend<'_>,
    ) {
        let AttentionForward { normed, mean, rstd, qkv, attended } = memory;
        let branch = self.parameters().attention(layer);
        let c = self.plan.config.width;
        self.norm(workers, &branch.norm, [normed, mean, rstd], x);
        workers.linear(qkv, normed, branch.input, [c, 3 * c]);
        attend(workers, qkv, attended);
        workers.linear(out, attended, branch.output, [c, c]);
        self.add_residual(workers, out, x, self.mask(Stream::AttentionProjectionDropout, layer));
    }

    /// `out = x + dropout(activation(norm(x) W_in) W_out)`, all `[R, C]`. Without `out`, as in recomputing, it ends with the
    /// input of the activation function.
    #[inline(never)]
    pub(crate) fn mlp_branch(
        &self,
        layer: usize,
        x: &[f32],
        out: Option<&mut [f32]>,
        memory: MlpForward<'_>,
        workers: &mut Workers<'_>,
    ) {
        let MlpForward { normed, mean, rstd, hidden, activated } = memory;
        let branch = self.parameters().mlp(layer);
        let (c, f) = (self.plan.config.width, self.plan.config.hidden);
        self.norm(workers, &branch.norm, [normed, mean, rstd], x);
        workers.linear(hidden, normed, branch.input, [c, f]);
        let Some(out) = out else { return };
        let Linear { weight, bias, .. } = branch.output;
        let mut start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
        let (rows, mut first) = (workers.shape.rows(), 0);
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

    /// The activation function; where the layer keeps it, `hidden` becomes the slope.
    fn activate(&self, layer: usize, hidden: &mut [f32], activated: &mut [f32]) {
        let (simd, activation) = (self.compute.simd, self.plan.config.activation);
        if self.keeps_activated(layer) {
            // The slope times one.
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
        let (norm, head) = self.parameters().head();
        self.norm(workers, &norm, [&mut *input, mean, rstd], x);
        workers.linear(logits, input, head, [self.plan.config.width, self.plan.config.vocab]);
    }

    /// A norm of x `[R, C]`, with the mean `[R]` and reciprocal deviation `[R]` of each row.
    fn norm(
        &self,
        workers: &mut Workers<'_>,
        norm: &Norm<'_>,
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
