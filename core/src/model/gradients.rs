//! From the gradients of activations to those of parameters: of all the tensors that a stage of backward has come to
//! at once, or, where the update is fused into backward, of some rows of one of them at a time.

use core::ops::Range;

use super::{Backward, Gradients, Pass, Stage, part};
use crate::error::Error;
use crate::layout::{Group, Tensor, Workspace};
use crate::matmul::{Matrix, Size, Start, matmul_trusted};
use crate::ops::{embedding, layer_norm, linear, rows};

impl Gradients {
    const fn start(self) -> Start<'static> {
        match self {
            Gradients::Add => Start::Accumulate,
            Gradients::Overwrite => Start::Zero,
        }
    }

    fn clear(self, gradient: &mut [f32]) {
        if self == Gradients::Overwrite {
            gradient.fill(0.0);
        }
    }
}

/// What the gradient of a tensor is made of, in R rows. The tensor's own rows can be made apart from each other.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The tensor is not there.
    None,
    /// x^T d_y of x `[R, from]` and d_y `[R, to]`: a weight's.
    Product { x: &'a [f32], from: usize, d_y: &'a [f32], to: usize },
    /// The column sums of d_y `[R, to]`: a bias's.
    Sums { d_y: &'a [f32], to: usize },
    /// Those of d_y times the normed x, each `[R, C]`: the weight's of a norm. Mean and rstd are those of x's rows.
    Normed { x: &'a [f32], d_y: &'a [f32], mean: &'a [f32], rstd: &'a [f32] },
    /// The rows of d_x `[R, C]`, each with its token, after the product that a head leaves which is tied.
    Tokens { d_x: &'a [f32], head: Option<Head<'a>> },
    /// The rows of d_x `[R, C]`, each with its position.
    Positions { d_x: &'a [f32] },
}

/// The gradient of the logits `[R, V]` and what they were made of, `[R, C]`.
#[derive(Clone, Copy)]
struct Head<'a> {
    d_logits: &'a [f32],
    normed: &'a [f32],
}

impl Backward {
    /// The tensors whose gradients the stage makes ready.
    fn group(self) -> Option<Group> {
        match self {
            Backward::Head => Some(Group::Head),
            Backward::Recompute { .. } => None,
            Backward::Mlp { layer } => Some(Group::Mlp { layer }),
            Backward::Attention { layer } => Some(Group::Attention { layer }),
            Backward::Embedding => Some(Group::Embedding),
        }
    }
}

impl Pass<'_> {
    /// The gradients of all the stage's parameters, after [`Pass::backward_stage`]. All workers meet once, each with
    /// its share of every tensor.
    pub(super) fn gradients(
        &self,
        stage: Backward,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        let Some(group) = stage.group() else { return };
        let tensors = self.plan.group(group);
        let (sources, workers) = self.sources(stage, workspace);
        let first = tensors.iter().flatten().next().map_or(0, |tensor| tensor.offset);
        let mut rest = gradients.get_mut(first..).unwrap_or_default();
        let buffers = tensors.map(|tensor| {
            let [rows, columns] = tensor.map_or([0, 0], |tensor| tensor.shape);
            (rest.split_off_mut(..rows * columns).unwrap_or_default(), rows, columns)
        });
        let units = buffers.each_ref().map(|(_, rows, _)| *rows);
        let work = sources.iter().zip(units).map(|(source, rows)| self.work(source, rows)).sum();
        let scratch = (workers, self.plan.worker_scratch());
        self.compute.split_each(work, buffers, scratch, |share, buffers, scratch| {
            for ((source, rows), gradient) in sources.into_iter().zip(units).zip(buffers) {
                self.gradient_rows(source, gradient, share.of(rows), mode, scratch);
            }
        });
    }

    /// The gradients of the stage's parameters, as many rows of a tensor at a time as `tile` holds, each handed to
    /// `update` with the tensor and the place among all parameters.
    pub(crate) fn gradients_by_rows(
        &self,
        stage: Stage,
        tile: &mut [f32],
        workspace: &mut [f32],
        mut update: impl FnMut(&Tensor, Range<usize>, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Stage::Backward(stage) = stage else { return Ok(()) };
        let Some(group) = stage.group() else { return Ok(()) };
        let mut workspace = Workspace::new(workspace, self.plan, self.shape)?;
        let (sources, workers) = self.sources(stage, &mut workspace);
        for (tensor, source) in self.plan.group(group).iter().zip(sources) {
            let Some(tensor) = tensor else { continue };
            let [rows, columns] = tensor.shape;
            let most = tile.len().checked_div(columns).unwrap_or(0).max(1);
            let mut first = 0;
            while first < rows {
                let count = most.min(rows - first);
                let gradient = tile.get_mut(..count * columns).unwrap_or_default();
                let scratch = (&mut *workers, self.plan.worker_scratch());
                let work = self.work(&source, count);
                self.compute.split(
                    count,
                    work,
                    [(&mut *gradient, columns)],
                    scratch,
                    |range, [gradient], scratch| {
                        let range = first + range.start..first + range.end;
                        self.gradient_rows(source, gradient, range, Gradients::Overwrite, scratch);
                    },
                );
                let place = tensor.offset + first * columns;
                update(tensor, place..place + count * columns, gradient)?;
                first += count;
            }
        }
        Ok(())
    }

    /// What the gradients of a stage's tensors are made of, in their order, and the workers' scratch.
    fn sources<'w>(
        &self,
        stage: Backward,
        workspace: &'w mut Workspace<'_>,
    ) -> ([Source<'w>; Group::MOST], &'w mut [f32]) {
        let config = &self.plan.config;
        let (c, f, v, all) = (config.width, config.hidden, config.vocab, self.rows());
        let Workspace { residual, layers, d_residual, d_branch, normed, d_normed, wide, workers, .. } =
            workspace;
        let Workspace { final_mean, final_rstd, final_normed, logits, .. } = workspace;
        let (d_branch, normed, d_normed, logits) = (&**d_branch, &**normed, &**d_normed, &**logits);
        let half = |x, d_y, (mean, rstd), [first, second]: [(&'w [f32], usize, &'w [f32], usize); 2]| {
            let pair = |(x, from, d_y, to)| [Source::Product { x, from, d_y, to }, Source::Sums { d_y, to }];
            let ([a, b], [c_, d]) = (pair(first), pair(second));
            [Source::Normed { x, d_y, mean, rstd }, Source::Sums { d_y, to: c }, a, b, c_, d]
        };
        let none = Source::None;
        let sources = match stage {
            Backward::Head => {
                let (x, d_y) = (residual.x(config.layers), d_normed);
                let norm = Source::Normed { x, d_y, mean: final_mean, rstd: final_rstd };
                let head = Source::Product { x: logits, from: v, d_y: final_normed, to: c };
                [norm, Source::Sums { d_y, to: c }, head, none, none, none]
            }
            Backward::Mlp { layer } => {
                let activations = layers.of(layer, config, all);
                let statistics = (&*activations.ln_2_mean, &*activations.ln_2_rstd);
                let activated = wide.get(..all * f).unwrap_or_default();
                let first = (normed, c, &*activations.hidden, f);
                half(residual.middle(layer), d_normed, statistics, [first, (activated, f, d_branch, c)])
            }
            Backward::Attention { layer } => {
                let activations = layers.of(layer, config, all);
                let statistics = (&*activations.ln_1_mean, &*activations.ln_1_rstd);
                let d_qkv = wide.get(..all * 3 * c).unwrap_or_default();
                let second = (&*activations.attended, c, d_branch, c);
                half(residual.x(layer), d_normed, statistics, [(normed, c, d_qkv, 3 * c), second])
            }
            Backward::Embedding => {
                let d_x = &**d_residual;
                let head = config.tied.then_some(Head { d_logits: logits, normed: final_normed });
                [Source::Tokens { d_x, head }, Source::Positions { d_x }, none, none, none, none]
            }
            Backward::Recompute { .. } => [none; Group::MOST],
        };
        (sources, workers)
    }

    /// The multiply-adds of so many rows of a gradient, at most.
    fn work(&self, source: &Source<'_>, rows: usize) -> usize {
        let c = self.plan.config.width;
        let per_row = match source {
            Source::None => 0,
            Source::Product { to, .. } => *to,
            Source::Sums { .. } | Source::Normed { .. } => 1,
            Source::Tokens { head: Some(_), .. } => c,
            // All rows together take each row of d_x once.
            Source::Tokens { head: None, .. } | Source::Positions { .. } => return self.rows() * c,
        };
        self.rows().saturating_mul(per_row).saturating_mul(rows)
    }

    /// Some rows of a tensor's gradient.
    fn gradient_rows(
        &self,
        source: Source<'_>,
        gradient: &mut [f32],
        range: Range<usize>,
        mode: Gradients,
        scratch: &mut [f32],
    ) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        match source {
            Source::None => {}
            Source::Product { x, from, d_y, to } => {
                let x = Matrix::new(x, from).transposed().from(range.start, 0);
                let size = Size { m: range.len(), n: to, k: self.rows() };
                matmul_trusted(simd, size, (gradient, to), mode.start(), x, Matrix::new(d_y, to), scratch);
            }
            Source::Sums { d_y, to } => {
                mode.clear(gradient);
                linear::bias_gradient(simd, gradient, range.start, to, d_y);
            }
            Source::Normed { x, d_y, mean, rstd } => {
                mode.clear(gradient);
                layer_norm::parameter_gradients(simd, gradient, &mut [], range.start, c, d_y, x, mean, rstd);
            }
            Source::Tokens { d_x, head } => self.token_gradient(gradient, range, mode, d_x, head, scratch),
            Source::Positions { d_x } => {
                mode.clear(gradient);
                embedding::position_gradients(simd, gradient, range.start, d_x, c, self.shape.length);
            }
        }
    }

    /// Some rows of the token embedding's gradient, and of the head's where it is tied.
    ///
    /// A tied matrix takes, sequence after sequence, the head's product and then the rows of that sequence's
    /// tokens: an order that does not depend on how the sequences are cut into micro-batches. Rows of the
    /// vocabulary are taken in blocks, so that a block stays in cache through all sequences.
    fn token_gradient(
        &self,
        d_wte: &mut [f32],
        range: Range<usize>,
        mode: Gradients,
        d_x: &[f32],
        head: Option<Head<'_>>,
        scratch: &mut [f32],
    ) {
        const BLOCK: usize = 64;
        let config = &self.plan.config;
        let (simd, t, c) = (self.compute.simd, self.shape.length, config.width);
        for (block, d_wte) in d_wte.chunks_mut((BLOCK * c).max(1)).enumerate() {
            let first = range.start + block * BLOCK;
            let vocabulary = first..range.end.min(first + BLOCK);
            if head.is_none() {
                mode.clear(d_wte);
            }
            let sequences = rows(d_x, t * c).zip(self.tokens.chunks_exact(t.max(1)));
            for (sequence, (d_x, tokens)) in sequences.enumerate() {
                if let Some(Head { d_logits, normed }) = head {
                    let size = Size { m: vocabulary.len(), n: c, k: t };
                    let start = if sequence == 0 { mode.start() } else { Start::Accumulate };
                    let d_logits = Matrix::new(d_logits, config.vocab).from(sequence * t, first).transposed();
                    let normed = Matrix::new(part(normed, &(sequence..sequence + 1), t * c), c);
                    matmul_trusted(simd, size, (&mut *d_wte, c), start, d_logits, normed, scratch);
                }
                embedding::token_gradients(simd, d_wte, vocabulary.clone(), d_x, tokens, c);
            }
        }
    }
}
