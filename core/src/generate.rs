//! Generation: the model in use, token by token, with a cache of keys and values. Gives the logits of the full
//! forward pass, bit for bit. Knows nothing of training.

use core::cell::Cell;

use crate::error::{Error, exact_length};
use crate::layout::{Cut, Half, Norm, Parameters, Plan};
use crate::matmul::{Machine, Matrix, Size, Start, matmul_trusted};
use crate::ops::attention::{self, Queries};
use crate::ops::{self, dropout, embedding, gelu, layer_norm, linear};
use crate::rng::{self, Stream};
use crate::sampling::{Sampling, sample};
use crate::simd::InstructionSet;

/// Positions that a prompt is taken in at once: few where memory is dear.
pub(crate) const fn chunk(machine: Machine) -> usize {
    match machine {
        Machine::Large => 16,
        Machine::Small => 4,
    }
}

const CHUNK: usize = chunk(Machine::HERE);

/// A model in use, on the caller's memory.
///
/// Text longer than the context goes on with a sliding window: the model then looks at the last `context`
/// tokens, as nanoGPT's does. Since positions are learned, each further token moves all others, and the
/// window is computed anew.
pub struct Generator<'a> {
    plan: &'a Plan,
    simd: InstructionSet,
    parameters: Parameters<'a>,
    /// For each layer and position, its key and its value: `[L, context, 2C]`.
    cache: &'a mut [f32],
    rows: Rows<'a>,
    /// The tokens that the model looks at; the first `filled` are there.
    window: &'a mut [i32],
    filled: usize,
}

/// Intermediate results of up to [`CHUNK`] positions.
struct Rows<'a> {
    x: &'a mut [f32],        // [CHUNK, C]
    normed: &'a mut [f32],   // [CHUNK, C]
    qkv: &'a mut [f32],      // [CHUNK, 3C]
    attended: &'a mut [f32], // [CHUNK, C]
    branch: &'a mut [f32],   // [CHUNK, C]
    hidden: &'a mut [f32],   // [CHUNK, F]
    active: &'a mut [f32],   // [CHUNK, F]
    mean: &'a mut [f32],     // [CHUNK]
    rstd: &'a mut [f32],     // [CHUNK]
    stats: &'a mut [f32],    // [CHUNK, 2]
    logits: &'a mut [f32],   // [V]
    scratch: &'a mut [f32],
}

/// The first rows of a buffer.
fn first(x: &mut [f32], count: usize) -> &mut [f32] {
    debug_assert!(count <= x.len());
    x.get_mut(..count).unwrap_or_default()
}

impl<'a> Generator<'a> {
    /// Begins with an empty window.
    ///
    /// `parameters` and `frozen`: exactly [`Plan::parameters`] and [`Plan::frozen`] elements; `memory`: exactly [`Plan::generation`];
    /// `window`: exactly as many as the context.
    pub fn new(
        plan: &'a Plan,
        simd: InstructionSet,
        parameters: &'a [f32],
        frozen: &'a [f32],
        memory: &'a mut [f32],
        window: &'a mut [i32],
    ) -> Result<Generator<'a>, Error> {
        let config = &plan.config;
        exact_length("parameters", parameters.len(), plan.parameters)?;
        exact_length("frozen parameters", frozen.len(), plan.frozen)?;
        exact_length("generation memory", memory.len(), plan.generation)?;
        exact_length("window", window.len(), config.context)?;
        let (c, f, mut memory) = (config.width, config.hidden, memory);
        let cache = memory.cut(config.layers * config.context * 2 * c);
        let mut rows = |width: usize| memory.cut(CHUNK * width);
        let rows = Rows {
            x: rows(c),
            normed: rows(c),
            qkv: rows(3 * c),
            attended: rows(c),
            branch: rows(c),
            hidden: rows(f),
            active: rows(f),
            mean: rows(1),
            rstd: rows(1),
            stats: rows(2),
            logits: memory.cut(config.vocab),
            scratch: memory,
        };
        let parameters = Parameters::new(parameters, frozen, plan);
        Ok(Generator { plan, simd, parameters, cache, rows, window, filled: 0 })
    }

    /// Appends tokens to the text and returns the logits `[V]` of the next; the caller may change them.
    ///
    /// Errors: [`Error::Token`] for one outside the vocabulary, [`Error::Zero`] for none; the text stays as it
    /// was.
    pub fn feed(&mut self, tokens: &[i32]) -> Result<&mut [f32], Error> {
        let config = &self.plan.config;
        embedding::check_tokens(tokens, config.vocab)?;
        if tokens.is_empty() {
            return Err(Error::Zero { what: "number of tokens" });
        }
        let fresh = tokens.len().min(config.context);
        let kept = self.filled.min(config.context - fresh);
        let mut computed = self.filled;
        if kept < self.filled || fresh < tokens.len() {
            // The window slides: what stays moves to other positions.
            let window = Cell::from_mut(&mut *self.window).as_slice_of_cells();
            for (place, token) in window.iter().zip(window.iter().skip(self.filled - kept)).take(kept) {
                place.set(token.get());
            }
            computed = 0;
        }
        let tokens = tokens.iter().skip(tokens.len() - fresh);
        for (place, token) in self.window.iter_mut().skip(kept).zip(tokens) {
            *place = *token;
        }
        self.filled = kept + fresh;
        while computed < self.filled {
            let count = CHUNK.min(self.filled - computed);
            self.positions(computed, count);
            computed += count;
        }
        Ok(self.rows.logits)
    }

    /// Draws the next token by the last [`Generator::feed`]'s logits, which it overwrites. Doesn't feed it.
    ///
    /// `order`: scratch of exactly V elements. `number` counts the tokens drawn with this seed: the same
    /// number draws the same.
    pub fn draw(
        &mut self,
        sampling: &Sampling,
        order: &mut [u32],
        seed: u64,
        number: u64,
    ) -> Result<i32, Error> {
        if self.filled == 0 {
            return Err(Error::Zero { what: "number of tokens" });
        }
        let mut rng = rng::generator(seed, Stream::Sampling, number, 0);
        sample(self.simd, sampling, self.rows.logits, order, &mut rng).map(|token| token as i32)
    }

    /// Forgets the text.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// How many tokens the window holds.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Goes on where another generator stopped, whose memory and window these are, with so many tokens in it.
    /// More than the context are taken as the context.
    pub fn resume(&mut self, filled: usize) {
        self.filled = filled.min(self.plan.config.context);
    }

    /// Computes positions `start..start + count` of the window, and the logits after the last.
    fn positions(&mut self, start: usize, count: usize) {
        let config = &self.plan.config;
        let (c, simd) = (config.width, self.simd);
        let x = first(self.rows.x, count * c);
        let tokens = self.window.get(start..start + count).unwrap_or_default();
        let (of_tokens, positions) = self.parameters.embeddings();
        let positions = positions.get(start * c..).unwrap_or_default();
        embedding::add_embeddings(simd, x, tokens, of_tokens, positions, c);
        let caches = ops::rows_mut(self.cache, config.context * 2 * c);
        for (layer, cache) in caches.enumerate() {
            block_rows(
                self.plan,
                simd,
                self.parameters.attention(layer),
                self.parameters.mlp(layer),
                &mut self.rows,
                cache,
                start,
                count,
            );
        }
        let (last_norm, head) = self.parameters.head();
        let Rows { x, normed, mean, rstd, logits, scratch, .. } = &mut self.rows;
        let x = x.get((count - 1) * c..count * c).unwrap_or_default();
        norm(self.plan, simd, &last_norm, first(normed, c), mean, rstd, x, 1);
        let head = Matrix::new(head, c).transposed();
        let size = Size { m: 1, n: config.vocab, k: c };
        matmul_trusted(
            simd,
            size,
            (logits, config.vocab),
            Start::Zero,
            Matrix::new(normed, c),
            head,
            scratch,
        );
    }
}

#[allow(clippy::too_many_arguments)]
fn norm(
    plan: &Plan,
    simd: InstructionSet,
    norm: &Norm<'_>,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    count: usize,
) {
    let (mean, rstd) = (first(mean, count), first(rstd, count));
    layer_norm::statistics(simd, mean, rstd, x, plan.config.width, plan.config.norm_epsilon);
    layer_norm::apply(simd, y, x, mean, rstd, norm.weight, norm.bias);
}

/// One block for positions `start..start + count`: the forward pass of `model`, with keys and values of
/// earlier positions from the cache `[context, 2C]`.
#[allow(clippy::too_many_arguments)]
fn block_rows(
    plan: &Plan,
    simd: InstructionSet,
    of_attention: Half<'_>,
    of_mlp: Half<'_>,
    rows: &mut Rows<'_>,
    cache: &mut [f32],
    start: usize,
    count: usize,
) {
    let config = &plan.config;
    let (c, f) = (config.width, config.hidden);
    let product = |n, k| Size { m: count, n, k };
    let scratch = &mut *rows.scratch;
    let x = first(rows.x, count * c);
    let normed = first(rows.normed, count * c);
    let qkv = first(rows.qkv, count * 3 * c);
    let attended = first(rows.attended, count * c);
    let branch = first(rows.branch, count * c);
    let hidden = first(rows.hidden, count * f);
    let active = first(rows.active, count * f);

    norm(plan, simd, &of_attention.norm, normed, rows.mean, rows.rstd, x, count);
    linear::forward_trusted(simd, qkv, normed, of_attention.first.parts(), product(3 * c, c), scratch);
    let places = ops::rows_mut(cache, 2 * c).skip(start);
    for (place, qkv) in places.zip(ops::rows(qkv, 3 * c)) {
        for (place, value) in place.iter_mut().zip(qkv.iter().skip(c)) {
            *place = *value;
        }
    }
    let head_width = config.head_width();
    for h in 0..config.heads {
        let column = h * head_width;
        let query = Matrix::new(qkv, 3 * c).from(0, column);
        let key = Matrix::new(cache, 2 * c).from(0, column).transposed();
        let value = Matrix::new(cache, 2 * c).from(0, c + column);
        let out = (attended.get_mut(column..).unwrap_or_default(), c);
        let queries = Queries { query, width: head_width, first: start, count };
        let cached = (key, value);
        attention::attend(simd, out, first(rows.stats, 2 * count), queries, cached, None, scratch);
    }
    let projection = &of_attention.second;
    linear::forward_trusted(simd, branch, attended, projection.parts(), product(c, c), scratch);
    dropout::add_residual(simd, branch, x, c, None);

    norm(plan, simd, &of_mlp.norm, normed, rows.mean, rows.rstd, branch, count);
    linear::forward_trusted(simd, hidden, normed, of_mlp.first.parts(), product(f, c), scratch);
    gelu::activate(simd, active, hidden, config.activation);
    let projection = &of_mlp.second;
    linear::forward_trusted(simd, x, active, projection.parts(), product(c, f), scratch);
    dropout::add_residual(simd, x, branch, c, None);
}
