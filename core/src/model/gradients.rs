//! The gradients of a stage's parameters, from its activations and their gradients.

use core::ops::Range;

use super::{Backward, Gradients, Pass, rows_in, rows_of};
use crate::config::{Config, LLAMA, LORA, Module};
use crate::fault;
use crate::layout::{
    AttentionActivations, BlockActivations, BlockBackward, Group, Head, InUse, MlpActivations, NormedHeads,
    Order, Plan, RowRegions, Site, Tensor, Workspace,
};
use crate::matmul::{Matrix, Size, Start, matmul_trusted};
use crate::ops::cross_entropy::{self, SOFTMAX};
use crate::ops::{embedding, layer_norm, linear, rms_norm};
use crate::parallel::Units;
use crate::target::Target;

/// The pairs of tensors whose gradients one fork computes: all of a stage of a GPT-2 and of most Llamas. Their number takes
/// stack.
const AT_ONCE: usize = match Target::HERE {
    Target::Vectors => 5,
    Target::Portable => 3,
};

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

/// The inputs of the gradients of a site's parameters, with R rows. The rows of a gradient can be computed in any
/// order.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    None,
    /// A product of x `[R, from]` and d_y `[R, to]`, the columns from `first` on of rows of `width`. The weight's gradient
    /// is x^T d_y or its transpose, in the weight's order. The bias's gradient is the column sums of d_y.
    Product {
        x: &'a [f32],
        from: usize,
        d_y: &'a [f32],
        first: usize,
        width: usize,
        to: usize,
        order: Order,
    },
    /// The first matrix of an adapter with dropout: of dropout(x), with x `[R, from]`, and d_y `[R, to]`. The gradient is
    /// `[to, from]`.
    Dropped {
        x: &'a [f32],
        from: usize,
        d_y: &'a [f32],
        to: usize,
        module: Module,
        layer: usize,
    },
    /// A norm of heads. The weight's gradient is the column sums of the terms `[R, heads, D]`.
    Sums {
        terms: &'a [f32],
    },
    /// A norm. The weight's gradient is the column sums of d_y times the normed x, each `[R, C]`. The bias's gradient
    /// is the column sums of d_y. Mean and rstd are the statistics of x's rows.
    Norm {
        x: &'a [f32],
        d_y: &'a [f32],
        mean: &'a [f32],
        rstd: &'a [f32],
    },
    /// The token embedding: the rows of d_x `[R, C]`, after the product of a tied head.
    Tokens {
        d_x: &'a [f32],
        head: Option<HeadProduct<'a>>,
    },
    /// A chunked head of its own.
    Head(HeadProduct<'a>),
    /// The position embedding: the rows of d_x `[R, C]`.
    Positions {
        d_x: &'a [f32],
    },
}

/// The inputs of the gradients of a stage's parameters. Fields that the stage does not have are empty.
pub(super) struct Sources<'a> {
    /// C, F, and the widths of all queries and of all keys.
    sizes: [usize; 4],
    /// The order of the block's matrices.
    order: Order,
    tied: bool,
    /// The norm's input, or the gradient of the embeddings' sum.
    x: &'a [f32],
    mean: &'a [f32],
    rstd: &'a [f32],
    d_normed: &'a [f32],
    /// The input of the first product.
    input: &'a [f32],
    /// The gradient of the first product's outputs, and its columns.
    d_columns: (&'a [f32], usize),
    /// The input of the second product, and its columns.
    output: (&'a [f32], usize),
    /// The gradient of the second product's output.
    d_out: &'a [f32],
    /// The terms of the gradients of the norms of queries and keys.
    heads: [&'a [f32]; 2],
    /// Of a chunked head: what makes the gradients of its logits again.
    softmax: &'a [f32],
    /// The adapters' inputs of B, and their gradients.
    #[cfg(feature = "lora")]
    low_rank: &'a [f32],
    /// The number of the block.
    #[cfg(feature = "lora")]
    layer: usize,
}

impl<'a> Sources<'a> {
    /// Takes the regions of a block's adapters.
    #[allow(unused_variables, reason = "without the feature lora")]
    fn set_adapters(&mut self, low_rank: &'a [f32], layer: usize) {
        #[cfg(feature = "lora")]
        {
            (self.low_rank, self.layer) = (low_rank, layer);
        }
    }

    /// The inputs of B of a block's adapters, their gradients, and the block's number.
    pub fn adapters(&self) -> (&'a [f32], usize) {
        #[cfg(feature = "lora")]
        return (self.low_rank, self.layer);
        #[cfg(not(feature = "lora"))]
        return (&[], 0);
    }

    /// The source of a site's gradients, unless it belongs to an adapter.
    #[inline(never)]
    pub fn of(&self, site: Site) -> Source<'a> {
        let Sources { sizes: [c, f, a, k], tied, x, mean, rstd, d_normed, input, .. } = *self;
        let Sources { d_columns: (d_y, width), output, d_out, heads, softmax, .. } = *self;
        let head = HeadProduct { d_logits: d_y, input, softmax };
        let order = if site == Site::Logits { Order::OutIn } else { self.order };
        // The product of the columns from `first` on.
        let columns = |first, to| Source::Product { x: input, from: c, d_y, first, width, to, order };
        match site {
            Site::AttentionNorm | Site::MlpNorm | Site::FinalNorm => {
                Source::Norm { x, d_y: d_normed, mean, rstd }
            }
            Site::Logits if cfg!(feature = "head-rows") && !softmax.is_empty() => Source::Head(head),
            Site::Qkv | Site::Logits => columns(0, width),
            Site::MlpIn => columns(width.saturating_sub(f), f),
            Site::AttentionOut | Site::MlpOut => {
                let (x, from) = output;
                Source::Product { x, from, d_y: d_out, first: 0, width: c, to: c, order }
            }
            Site::Tokens => Source::Tokens { d_x: x, head: tied.then_some(head) },
            Site::Positions => Source::Positions { d_x: x },
            _ if !LLAMA => Source::None,
            Site::Gate => columns(0, f),
            Site::Query => columns(0, a),
            Site::Key => columns(a, k),
            Site::Value => columns(a + k, k),
            Site::A(_) | Site::B(_) => Source::None,
            Site::QueryNorm => Source::Sums { terms: heads[0] },
            Site::KeyNorm => Source::Sums { terms: heads[1] },
        }
    }
}

/// The gradient of the logits `[R, V]`, and the head's input `[R, C]`. A chunked head makes the gradient again from `softmax`
/// `[R, SOFTMAX]`; otherwise that is empty.
#[derive(Clone, Copy)]
pub(super) struct HeadProduct<'a> {
    d_logits: &'a [f32],
    input: &'a [f32],
    softmax: &'a [f32],
}

/// Some rows of the gradient of a site's weight, and of its bias.
pub(super) struct GradientRows<'g> {
    pub weight: &'g mut [f32],
    pub of_weight: Range<usize>,
    pub bias: &'g mut [f32],
    pub of_bias: Range<usize>,
}

impl Plan {
    /// The number of rows of a tied matrix whose gradient stays in the cache during its computation.
    // Hidden: the measurements of products alone take the same blocks.
    #[doc(hidden)]
    pub const VOCABULARY_BLOCK: usize = 192;
}

impl Backward {
    /// The sites whose gradients the stage computes.
    pub(super) fn group(self) -> Option<Group> {
        match self {
            Backward::Logits => Some(Group::Logits),
            Backward::Recompute { .. } => None,
            Backward::Mlp { layer } => Some(Group::Mlp { layer }),
            Backward::Attention { layer } => Some(Group::Attention { layer }),
            Backward::Embedding => Some(Group::Embedding),
        }
    }
}

/// A tensor, if its gradient is wanted.
pub(super) fn trained(tensor: &Option<Tensor>) -> Option<&Tensor> {
    tensor.as_ref().filter(|tensor| !tensor.frozen)
}

/// The shape of a gradient; without rows if it is not needed.
#[inline(never)]
pub(super) fn shape(tensor: &Option<Tensor>) -> [usize; 2] {
    trained(tensor).map_or([0, 0], |tensor| tensor.shape)
}

impl Pass<'_> {
    /// The gradients of all parameters of a stage, after [`Pass::backward_stage`]. A fork gives each worker its share of
    /// several tensors.
    #[inline(never)]
    pub(super) fn gradients(
        &self,
        stage: Backward,
        gradients: &mut [f32],
        mode: Gradients,
        workspace: &mut Workspace<'_>,
    ) {
        let Some(group) = stage.group() else { return };
        let (mut pairs, columns) = (self.plan.pairs(group), self.plan.config.hidden);
        let all = self.sources(stage, InUse::Activated, columns, &mut workspace.regions);
        loop {
            let (mut shapes, mut sources, mut first) =
                ([[[0; 2]; 2]; AT_ONCE], [Source::None; AT_ONCE], None);
            let mut count = 0;
            for ((shapes, source), pair) in shapes.iter_mut().zip(&mut sources).zip(pairs.by_ref()) {
                *shapes = [shape(&pair.weight), shape(&pair.bias)];
                *source = self.source(&all, pair.site);
                first = first.or([&pair.weight, &pair.bias].into_iter().find_map(trained).map(|x| x.offset));
                count += 1;
            }
            if count == 0 {
                return;
            }
            let rest = gradients.get_mut(first.unwrap_or(0)..).unwrap_or_default();
            self.gradients_of(&shapes, &sources, rest, mode, workspace.worker_scratch);
        }
    }

    /// The gradients of some adjacent pairs of tensors, by their shapes and sources.
    #[inline(never)]
    fn gradients_of(
        &self,
        shapes: &[[[usize; 2]; 2]; AT_ONCE],
        sources: &[Source<'_>; AT_ONCE],
        mut rest: &mut [f32],
        mode: Gradients,
        scratch: &mut [f32],
    ) {
        let units = shapes.map(|pair| pair.map(|[rows, _]| rows));
        let work = shapes
            .iter()
            .zip(sources)
            .map(|([[rows, columns], [of_bias, _]], source)| self.work(source, [rows + of_bias, *columns]))
            .sum();
        let buffers = shapes.map(|pair| {
            pair.map(|[rows, columns]| {
                Units::new(rest.split_off_mut(..rows * columns).unwrap_or_default(), rows, columns)
            })
        });
        let scratch = self.scratch(scratch);
        self.compute.split_pairs(work, &buffers, scratch, |share, buffers, scratch| {
            for ((source, [weight, bias]), units) in sources.iter().zip(buffers).zip(units) {
                let [of_weight, of_bias] = units.map(|rows| share.of(rows));
                self.gradient_rows(source, GradientRows { weight, of_weight, bias, of_bias }, mode, scratch);
            }
        });
    }

    /// The inputs of the gradients of a stage's parameters. In a fused step some regions share memory, and only regions in use
    /// have elements. `columns` is the number of columns of the activation function's output.
    #[inline(never)]
    pub(super) fn sources<'w>(
        &self,
        stage: Backward,
        in_use: InUse,
        columns: usize,
        regions: &'w mut RowRegions<'_>,
    ) -> Sources<'w> {
        let (config, rows) = (&self.plan.config, self.rows());
        let (none, empty): (_, &[f32]) = ((&[][..], 0), &[]);
        let [x, mean, rstd, d_normed, input, d_out] = [empty; 6];
        let (d_columns, output, heads, softmax) = (none, none, [empty; 2], empty);
        let sizes = [config.width, config.hidden, config.attended(), config.kv_width()];
        let (order, tied) = (Site::MlpOut.order(config), config.tied);
        let mut sources = Sources {
            sizes,
            order,
            tied,
            x,
            mean,
            rstd,
            d_normed,
            input,
            d_columns,
            output,
            d_out,
            heads,
            softmax,
            #[cfg(feature = "lora")]
            low_rank: empty,
            #[cfg(feature = "lora")]
            layer: 0,
        };
        let all = &mut sources;
        match stage {
            Backward::Logits => {
                let Head { x, mean, rstd, d_normed, input, logits, softmax, .. } = regions.head(in_use);
                all.softmax = softmax;
                (all.x, all.mean, all.rstd, all.d_normed) = (x, &*mean, &*rstd, &*d_normed);
                (all.input, all.d_columns) = (&*input, (&*logits, config.vocab));
            }
            Backward::Mlp { layer } => {
                let BlockBackward { middle, kept, d_branch, d_normed, normed, activated, .. } =
                    regions.block_backward(layer, in_use);
                let MlpActivations { mean, rstd, hidden, low_rank } = kept.mlp;
                all.set_adapters(low_rank, layer);
                let inputs = config.activation_inputs();
                (all.x, all.mean, all.rstd, all.d_normed) = (middle, &*mean, &*rstd, &*d_normed);
                (all.input, all.d_columns) = (&*normed, (&*rows_in(hidden, rows, inputs), inputs));
                (all.output, all.d_out) = ((&*activated, columns), &*d_branch);
            }
            Backward::Attention { layer } => {
                let BlockBackward { x, kept, d_branch, d_normed, normed, .. } =
                    regions.block_backward(layer, InUse::Normed);
                let BlockActivations {
                    attention: AttentionActivations { mean, rstd, attended, low_rank, heads, .. },
                    mlp: MlpActivations { hidden: d_qkv, .. },
                } = kept;
                all.set_adapters(low_rank, layer);
                let width = config.qkv();
                (all.x, all.mean, all.rstd, all.d_normed) = (x, &*mean, &*rstd, &*d_normed);
                (all.input, all.d_columns) = (&*normed, (&*rows_in(d_qkv, rows, width), width));
                (all.output, all.d_out) = ((&*attended, config.attended()), &*d_branch);
                if config.has_qk_norm() {
                    let NormedHeads { queries, keys, .. } = self.normed_heads(heads);
                    all.heads = [&*queries, &*keys];
                }
            }
            Backward::Embedding => {
                let Head { d_residual, input, logits, softmax, .. } = regions.head(InUse::Activated);
                all.softmax = softmax;
                (all.x, all.input, all.d_columns) = (&*d_residual, &*input, (&*logits, config.vocab));
            }
            Backward::Recompute { .. } => {}
        }
        // The memory of the gradient may be longer than its rows. It is empty where it is not in use.
        sources.d_normed = sources.d_normed.get(..sources.x.len()).unwrap_or_default();
        sources
    }

    /// The source of a site's gradients.
    pub(super) fn source<'s>(&self, sources: &Sources<'s>, site: Site) -> Source<'s> {
        match site {
            Site::A(_) | Site::B(_) if LORA => self.adapter_source(sources, site),
            _ => sources.of(site),
        }
    }

    /// An upper bound of the multiply-adds for this many rows of gradients.
    pub(super) fn work(&self, source: &Source<'_>, [rows, columns]: [usize; 2]) -> usize {
        let c = self.plan.config.width;
        let per_row = match *source {
            Source::None => 0,
            Source::Product { .. } | Source::Dropped { .. } => columns,
            Source::Norm { .. } => 1,
            Source::Sums { .. } => self.plan.config.heads,
            Source::Tokens { head: Some(_), .. } | Source::Head(_) => c,
            // All rows of the gradient together use each row of d_x once.
            Source::Tokens { head: None, .. } | Source::Positions { .. } => return self.rows() * c,
        };
        self.rows().saturating_mul(per_row).saturating_mul(rows)
    }

    /// Some rows of the gradients of a site's weight and bias, or of one of them.
    #[inline(never)]
    pub(super) fn gradient_rows(
        &self,
        source: &Source<'_>,
        rows: GradientRows<'_>,
        mode: Gradients,
        scratch: &mut [f32],
    ) {
        let GradientRows { weight, of_weight, bias, of_bias } = rows;
        let (simd, c) = (self.compute.simd, self.plan.config.width);
        match *source {
            Source::Dropped { x, from, d_y, to, module, layer } if LORA => {
                let (weight, mask) = ((weight, of_weight), self.adapter_mask(module, layer));
                self.dropped_gradient(weight, mode, (x, from), Matrix::new(d_y, to), mask, scratch);
            }
            Source::None | Source::Dropped { .. } => {}
            Source::Product { x, from, d_y, first, width, to, order } => {
                if !weight.is_empty() {
                    let (x, d_y) = (Matrix::new(x, from), Matrix::new(d_y, width).from(0, first));
                    let (left, right, n) = match order {
                        Order::InOut => (x, d_y, to),
                        Order::OutIn => (d_y, x, from),
                    };
                    let (size, left) = (Size { m: of_weight.len(), n, k: self.rows() }, left.transposed());
                    let left = left.from(of_weight.start, 0);
                    matmul_trusted(simd, size, (weight, n), mode.start(), left, right, scratch);
                }
                mode.clear(bias);
                linear::bias_gradient(simd, bias, first + of_bias.start, width, d_y);
            }
            Source::Sums { terms } => {
                mode.clear(weight);
                let head_width = self.plan.config.head_width();
                linear::bias_gradient(simd, weight, of_weight.start, head_width, terms);
            }
            Source::Norm { d_y, .. } if weight.is_empty() => {
                mode.clear(bias);
                linear::bias_gradient(simd, bias, of_bias.start, c, d_y);
            }
            Source::Norm { x, d_y, mean, rstd } => {
                if !bias.is_empty() && of_weight != of_bias {
                    fault::report(&"gradients of a norm");
                }
                mode.clear(weight);
                mode.clear(bias);
                // Elsewhere the means are zero, which changes no bit and saves flash.
                if self.plan.config.is_rms() && matches!(Target::HERE, Target::Vectors) {
                    return rms_norm::parameter_gradients(simd, weight, of_weight.start, c, d_y, x, rstd);
                }
                layer_norm::parameter_gradients(simd, weight, bias, of_weight.start, c, d_y, x, mean, rstd);
            }
            Source::Head(_) if !self.plan.options.chunks_head() => {}
            Source::Head(head) => {
                let blocks = weight.chunks_mut((Plan::VOCABULARY_BLOCK * c).max(1));
                for (weight, first) in blocks.zip((of_weight.start..).step_by(Plan::VOCABULARY_BLOCK)) {
                    self.head_gradient(weight, first, 0..self.rows(), mode.start(), head, scratch);
                }
            }
            Source::Tokens { d_x, head } => self.token_gradient(weight, of_weight, mode, d_x, head, scratch),
            Source::Positions { d_x } => {
                if !weight.is_empty() {
                    mode.clear(weight);
                    let length = self.shape.length;
                    embedding::position_gradients(simd, weight, of_weight.start, d_x, c, length);
                }
            }
        }
    }

    /// Some rows of the token embedding's gradient, including the gradient of a tied head.
    ///
    /// For each sequence, a tied matrix first gets the head's product, and then the rows of that sequence's tokens.
    /// This order does not depend on the division into micro-batches. The vocabulary is processed in blocks, so that
    /// a block stays in the cache for all sequences. In a large vocabulary, few blocks have tokens of a given
    /// sequence.
    #[inline(never)]
    fn token_gradient(
        &self,
        d_wte: &mut [f32],
        range: Range<usize>,
        mode: Gradients,
        d_x: &[f32],
        head: Option<HeadProduct<'_>>,
        scratch: &mut [f32],
    ) {
        const BLOCK: usize = Plan::VOCABULARY_BLOCK;
        let (simd, t, c) = (self.compute.simd, self.shape.length, self.plan.config.width);
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
                // The product continues over sequences without a token in this block.
                let tokens = self.tokens.get(done..).unwrap_or_default();
                let before = tokens.iter().position(is_here).unwrap_or(tokens.len()) / t.max(1) * t;
                let tokens = tokens.get(..before + t).unwrap_or(tokens);
                let rows = done..done + tokens.len();
                if let Some(head) = head {
                    let start = if done == 0 { mode.start() } else { Start::Accumulate };
                    self.head_gradient(d_wte, first, rows.clone(), start, head, scratch);
                }
                embedding::token_gradients(
                    simd,
                    d_wte,
                    vocabulary.clone(),
                    rows_of(d_x, &rows, c),
                    tokens,
                    c,
                );
                done = rows.end;
            }
        }
    }

    /// Some rows of the gradient of the head's matrix, from `first` on: `d_W = start + d_logits^T input`, for these rows of the
    /// pass. A chunked head makes the logits of the block again, as many rows at a time as the plan says.
    #[inline(never)]
    fn head_gradient(
        &self,
        d_weight: &mut [f32],
        first: usize,
        mut rows: Range<usize>,
        mut start: Start<'_>,
        head: HeadProduct<'_>,
        scratch: &mut [f32],
    ) {
        let HeadProduct { d_logits, input, softmax } = head;
        let Config { width: c, vocab, .. } = self.plan.config;
        let (simd, n) = (self.compute.simd, d_weight.len().checked_div(c).unwrap_or(0));
        if !self.plan.options.chunks_head() {
            let size = Size { m: n, n: c, k: rows.len() };
            let d_logits = Matrix::new(d_logits, vocab).from(rows.start, first).transposed();
            let input = Matrix::new(rows_of(input, &rows, c), c);
            return matmul_trusted(simd, size, (d_weight, c), start, d_logits, input, scratch);
        }
        let [_, head] = self.parameters().head();
        let weight = head.matrix([c, vocab]).from(0, first);
        let most = self.plan.head_rows().max(1);
        let (block, scratch) = scratch.split_at_mut_checked(most * n).unwrap_or_default();
        while !rows.is_empty() {
            let here = rows.start..rows.end.min(rows.start + most);
            let (input, k) = (Matrix::new(rows_of(input, &here, c), c), here.len());
            let block = rows_in(block, k, n);
            matmul_trusted(
                simd,
                Size { m: k, n, k: c },
                (&mut *block, n),
                Start::Zero,
                input,
                weight,
                scratch,
            );
            cross_entropy::gradients_again(simd, block, n, first, rows_of(softmax, &here, SOFTMAX));
            let (size, d_logits) = (Size { m: n, n: c, k }, Matrix::new(block, n).transposed());
            matmul_trusted(simd, size, (&mut *d_weight, c), start, d_logits, input, scratch);
            (rows.start, start) = (here.end, Start::Accumulate);
        }
    }
}
