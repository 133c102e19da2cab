//! From the gradients of activations to those of parameters: of all the tensors that a stage of backward has come to
//! at once, or, where the update is fused into backward, of some rows of one of them at a time.

use core::ops::Range;

use super::{Backward, Gradients, Part, Pass, part};
use crate::error::Error;
use crate::layout::{Cut, Group, LayerActivations, Plan, Tensor, Workspace};
use crate::matmul::{Matrix, Size, Start, matmul_trusted};
use crate::ops::{embedding, layer_norm, linear};
use crate::parallel::Units;
use crate::simd::tile::SIDE;

impl Gradients {
    pub(super) const fn start(self) -> Start<'static> {
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

/// The place, among the MLP's tensors, of the weight whose gradient is made of activated columns.
const ACTIVATED: usize = 4;

/// The place of the head among its norm's tensors.
const HEAD: usize = 2;

/// What the gradients of two tensors are made of, in R rows. The tensors' own rows can be made apart from each other.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// There are none.
    None,
    /// Of weight and bias: x^T d_y of x `[R, from]` and d_y `[R, to]`, and the column sums of d_y.
    Affine { x: &'a [f32], from: usize, d_y: &'a [f32], to: usize },
    /// Of a norm's weight and bias: the column sums of d_y times the normed x, each `[R, C]`, and those of d_y. Mean and
    /// rstd are those of x's rows.
    Norm { x: &'a [f32], d_y: &'a [f32], mean: &'a [f32], rstd: &'a [f32] },
    /// Of tokens, after the product that a head leaves which is tied, and of positions: the rows of d_x `[R, C]`.
    Embeddings { d_x: &'a [f32], head: Option<Head<'a>> },
}

/// The gradient of the logits `[R, V]` and what they were made of, `[R, C]`.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    d_logits: &'a [f32],
    normed: &'a [f32],
}

impl Plan {
    /// Rows of a tied matrix whose gradient stays in cache while it is made.
    #[doc(hidden)]
    pub const VOCABULARY_BLOCK: usize = 192;
}

impl Backward {
    /// The tensors whose gradients the stage makes ready.
    pub(super) fn group(self) -> Option<Group> {
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
    #[inline(never)]
    pub(super) fn gradients(
        &self,
        stage: Backward,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        let Some(group) = stage.group() else { return };
        let tensors = self.plan.group(group).map(|tensor| tensor.filter(|tensor| !tensor.frozen));
        let (sources, workers) = self.sources(stage, &Part::whole(self.plan), workspace);
        let first = tensors.iter().flatten().next().map_or(0, |tensor| tensor.offset);
        let mut rest = gradients.get_mut(first..).unwrap_or_default();
        let buffers = tensors.map(|tensor| {
            let [rows, columns] = tensor.map_or([0, 0], |tensor| tensor.shape);
            Units::new(rest.split_off_mut(..rows * columns).unwrap_or_default(), rows, columns)
        });
        let units = tensors.map(|tensor| tensor.map_or(0, |tensor| tensor.shape[0]));
        let work =
            units.chunks(2).zip(&sources).map(|(units, source)| self.work(source, units.iter().sum())).sum();
        let scratch = self.scratch(workers);
        self.compute.split(work, &buffers, scratch, |share, [a, b, c, d, e, f], scratch| {
            let [of_a, of_b, of_c, of_d, of_e, of_f] = units.map(|rows| share.of(rows));
            let [first, second, third] = sources;
            self.gradient_rows(first, [a, b], [of_a, of_b], mode, scratch);
            self.gradient_rows(second, [c, d], [of_c, of_d], mode, scratch);
            self.gradient_rows(third, [e, f], [of_e, of_f], mode, scratch);
        });
    }

    /// The gradients of parameters that a part of a stage makes ready, as many rows of a tensor at a time as `tile` holds,
    /// each handed to `update` with the tensor and the place among all parameters.
    #[inline(never)]
    pub(crate) fn gradients_by_rows(
        &self,
        stage: Backward,
        part: &Part,
        tile: &mut [f32],
        workspace: &mut Workspace<'_>,
        mut update: impl FnMut(&Tensor, Range<usize>, &[f32]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(group) = stage.group() else { return Ok(()) };
        let (sources, workers) = self.sources(stage, part, workspace);
        for (place, tensor) in self.plan.group(group).iter().enumerate() {
            let (Some(tensor), Some(source)) = (tensor, sources.get(place / 2)) else { continue };
            if tensor.frozen {
                continue;
            }
            let is_second = place % 2 == 1;
            let [rows, columns] = tensor.shape;
            let most = tile.len().checked_div(columns).unwrap_or(0).max(1);
            // Whole tiles of products on machines without vectors, where alone parts are as small.
            let whole = most - most % SIDE;
            let most = if whole > 0 { whole } else { most };
            let wanted = match (stage, place) {
                (Backward::Mlp { .. }, ACTIVATED) => part.columns.clone(),
                _ if part.last != matches!((stage, place), (Backward::Head, HEAD)) => 0..rows,
                _ => continue,
            };
            let mut first = wanted.start;
            while first < wanted.end {
                let count = most.min(wanted.end - first);
                let gradient = tile.get_mut(..count * columns).unwrap_or_default();
                let scratch = self.scratch(workers);
                let (work, buffer) = (self.work(source, count), Units::new(gradient, count, columns));
                self.compute.split(work, &[buffer], scratch, |share, [gradient], scratch| {
                    let range = share.of(count);
                    let before = first - wanted.start;
                    let range = before + range.start..before + range.end;
                    let (mut pair, mut ranges) = ([gradient, &mut []], [range, 0..0]);
                    if is_second {
                        pair.reverse();
                        ranges.reverse();
                    }
                    self.gradient_rows(*source, pair, ranges, Gradients::Overwrite, scratch);
                });
                let place = tensor.offset + first * columns;
                update(tensor, place..place + count * columns, gradient)?;
                first += count;
            }
        }
        Ok(())
    }

    /// What the gradients of a stage's tensors are made of, for each two, and the workers' scratch; of the MLP's activated
    /// columns, those of the part are there.
    pub(super) fn sources<'w>(
        &self,
        stage: Backward,
        part: &Part,
        workspace: &'w mut Workspace<'_>,
    ) -> ([Source<'w>; Group::MOST / 2], &'w mut [f32]) {
        let config = &self.plan.config;
        let (c, f, v, all) = (config.width, config.hidden, config.vocab, self.rows());
        let Workspace { residual, layers, d_residual, d_normed, intermediate, workers, .. } = workspace;
        let Workspace { final_mean, final_rstd, .. } = workspace;
        let norm = |x, d_y, mean, rstd| Source::Norm { x, d_y, mean, rstd };
        let affine = |x, from, d_y, to| Source::Affine { x, from, d_y, to };
        let none = Source::None;
        let sources = match stage {
            Backward::Head if part.last && d_normed.is_empty() => {
                let (_, d_normed, _) = intermediate.backward(d_normed, true);
                [norm(residual.last(), d_normed, final_mean, final_rstd), none, none]
            }
            Backward::Head => {
                let (final_normed, logits) = intermediate.head();
                let norm = norm(residual.last(), d_normed, final_mean, final_rstd);
                [norm, affine(logits, v, final_normed, c), none]
            }
            Backward::Mlp { layer } => {
                let LayerActivations { ln_2_mean, ln_2_rstd, mut wide, .. } = layers.of(layer, config, all);
                let (_, middle, d_branch) = residual.backward(layer);
                let (normed, d_normed, activated) = intermediate.backward(d_normed, part.last);
                let ln_2 = norm(middle, d_normed, ln_2_mean, ln_2_rstd);
                let activated = affine(activated, part.columns.len(), d_branch, c);
                [ln_2, affine(normed, c, wide.cut(all * f), f), activated]
            }
            Backward::Attention { layer } => {
                let LayerActivations { ln_1_mean, ln_1_rstd, attended, mut wide, .. } =
                    layers.of(layer, config, all);
                let (x, _, d_branch) = residual.backward(layer);
                let (normed, d_normed, _) = intermediate.backward(d_normed, true);
                let ln_1 = norm(x, d_normed, ln_1_mean, ln_1_rstd);
                [ln_1, affine(normed, c, wide.cut(all * 3 * c), 3 * c), affine(attended, c, d_branch, c)]
            }
            Backward::Embedding => {
                let head = config.tied.then(|| {
                    let (normed, d_logits) = intermediate.head();
                    Head { d_logits, normed }
                });
                [Source::Embeddings { d_x: d_residual, head }, none, none]
            }
            Backward::Recompute { .. } => [none; 3],
        };
        (sources, workers)
    }

    /// The multiply-adds of so many rows of gradients, at most.
    fn work(&self, source: &Source<'_>, rows: usize) -> usize {
        let c = self.plan.config.width;
        let per_row = match source {
            Source::None => 0,
            Source::Affine { to, .. } => *to,
            Source::Norm { .. } => 1,
            Source::Embeddings { head: Some(_), .. } => c,
            // All rows together take each row of d_x once.
            Source::Embeddings { head: None, .. } => return self.rows() * c,
        };
        self.rows().saturating_mul(per_row).saturating_mul(rows)
    }

    /// Some rows of two tensors' gradients, or of one's, where there are none of the other.
    #[inline(never)]
    pub(super) fn gradient_rows(
        &self,
        source: Source<'_>,
        [first, second]: [&mut [f32]; 2],
        [of_first, of_second]: [Range<usize>; 2],
        mode: Gradients,
        scratch: &mut [f32],
    ) {
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        match source {
            Source::None => {}
            Source::Affine { x, from, d_y, to } => {
                if !first.is_empty() {
                    let x = Matrix::new(x, from).transposed().from(of_first.start, 0);
                    let (size, start) = (Size { m: of_first.len(), n: to, k: self.rows() }, mode.start());
                    matmul_trusted(simd, size, (first, to), start, x, Matrix::new(d_y, to), scratch);
                }
                mode.clear(second);
                linear::bias_gradient(simd, second, of_second.start, to, d_y);
            }
            Source::Norm { d_y, .. } if first.is_empty() => {
                mode.clear(second);
                linear::bias_gradient(simd, second, of_second.start, c, d_y);
            }
            Source::Norm { x, d_y, mean, rstd } => {
                debug_assert!(second.is_empty() || of_first == of_second, "the same rows of both");
                mode.clear(first);
                mode.clear(second);
                layer_norm::parameter_gradients(simd, first, second, of_first.start, c, d_y, x, mean, rstd);
            }
            Source::Embeddings { d_x, head } => {
                if !first.is_empty() {
                    self.token_gradient(first, of_first, mode, d_x, head, scratch);
                }
                if !second.is_empty() {
                    mode.clear(second);
                    let length = self.shape.length;
                    embedding::position_gradients(simd, second, of_second.start, d_x, c, length);
                }
            }
        }
    }

    /// Some rows of the token embedding's gradient, and of the head's where it is tied.
    ///
    /// A tied matrix takes, sequence after sequence, the head's product and then the rows of that sequence's
    /// tokens: an order that does not depend on how the sequences are cut into micro-batches. Rows of the
    /// vocabulary are taken in blocks, so that a block stays in cache through all sequences, and few blocks of a large
    /// vocabulary have tokens in a sequence.
    #[inline(never)]
    fn token_gradient(
        &self,
        d_wte: &mut [f32],
        range: Range<usize>,
        mode: Gradients,
        d_x: &[f32],
        head: Option<Head<'_>>,
        scratch: &mut [f32],
    ) {
        const BLOCK: usize = Plan::VOCABULARY_BLOCK;
        let config = &self.plan.config;
        let (simd, t, c) = (self.compute.simd, self.shape.length, config.width);
        for (block, d_wte) in d_wte.chunks_mut((BLOCK * c).max(1)).enumerate() {
            let first = range.start + block * BLOCK;
            let vocabulary = first..range.end.min(first + BLOCK);
            let is_here =
                |token: &i32| usize::try_from(*token).is_ok_and(|token| vocabulary.contains(&token));
            if head.is_none() {
                mode.clear(d_wte);
            }
            let mut done = 0;
            while done < self.tokens.len() {
                // The product goes on through sequences of which no token is here.
                let tokens = self.tokens.get(done..).unwrap_or_default();
                let before = tokens.iter().position(is_here).unwrap_or(tokens.len()) / t.max(1) * t;
                let tokens = tokens.get(..before + t).unwrap_or(tokens);
                let rows = done..done + tokens.len();
                if let Some(Head { d_logits, normed }) = head {
                    let size = Size { m: vocabulary.len(), n: c, k: rows.len() };
                    let start = if done == 0 { mode.start() } else { Start::Accumulate };
                    let d_logits = Matrix::new(d_logits, config.vocab).from(done, first).transposed();
                    let normed = Matrix::new(part(normed, &rows, c), c);
                    matmul_trusted(simd, size, (&mut *d_wte, c), start, d_logits, normed, scratch);
                }
                embedding::token_gradients(simd, d_wte, vocabulary.clone(), part(d_x, &rows, c), tokens, c);
                done = rows.end;
            }
        }
    }
}
