//! Generation: the model in use, token by token, with a cache of keys and values. Gives the logits of the full
//! forward pass, bit for bit. Knows nothing of training.

use core::cell::Cell;

use crate::config::Config;
use crate::error::{Error, exact_length};
use crate::layout::{Cut, Half, Norm, Parameters, Plan};
use crate::matmul::{Matrix, Queries, Size, Start, matmul_trusted};
use crate::ops::attention::{self, Head};
use crate::ops::{self, dropout, embedding, gelu, layer_norm, linear};
use crate::rng::{self, Stream};
use crate::sampling::{Sampling, sample};
use crate::simd::InstructionSet;
use crate::target::Target;

/// Positions that a prompt is taken in at once: few where memory is dear.
pub(crate) const fn chunk(target: Target) -> usize {
    match target {
        Target::Vectors => 16,
        Target::Portable => 4,
    }
}

const CHUNK: usize = chunk(Target::HERE);

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
    logits: &'a mut [f32], // [V]
    /// For [`Rows`], of up to [`CHUNK`] positions.
    rest: &'a mut [f32],
    /// The tokens that the model looks at; the first `filled` are there.
    window: &'a mut [i32],
    filled: usize,
}

/// Intermediate results of R positions.
struct Rows<'a> {
    x: &'a mut [f32],        // [R, C]
    normed: &'a mut [f32],   // [R, C]
    qkv: &'a mut [f32],      // [R, 3C]
    attended: &'a mut [f32], // [R, C]
    branch: &'a mut [f32],   // [R, C]
    hidden: &'a mut [f32],   // [R, F]
    active: &'a mut [f32],   // [R, F]
    mean: &'a mut [f32],     // [R]
    rstd: &'a mut [f32],     // [R]
    stats: &'a mut [f32],    // [R, 2]
    scratch: &'a mut [f32],
}

impl<'a> Rows<'a> {
    fn new(count: usize, config: &Config, memory: &'a mut [f32]) -> Rows<'a> {
        let (c, f, mut scratch) = (config.width, config.hidden, memory);
        let mut rows = |width: usize| scratch.cut(count * width);
        Rows {
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
            scratch,
        }
    }
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
        let mut rest = memory;
        let cache = rest.cut(config.layers * config.context * 2 * config.width);
        let logits = rest.cut(config.vocab);
        let parameters = Parameters::new(parameters, frozen, plan);
        Ok(Generator { plan, simd, parameters, cache, logits, rest, window, filled: 0 })
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
        Ok(self.logits)
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
        sample(self.simd, sampling, self.logits, order, &mut rng).map(|token| token as i32)
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
        let (plan, simd) = (self.plan, self.simd);
        let Config { width: c, vocab, context, .. } = plan.config;
        let mut rows = Rows::new(count, &plan.config, self.rest);
        let tokens = self.window.get(start..start + count).unwrap_or_default();
        let (of_tokens, positions) = self.parameters.embeddings();
        let positions = positions.get(start * c..).unwrap_or_default();
        embedding::add_embeddings(simd, rows.x, tokens, of_tokens, positions, c);
        for (layer, cache) in ops::rows_mut(self.cache, context * 2 * c).enumerate() {
            let halves = (self.parameters.attention(layer), self.parameters.mlp(layer));
            block(plan, simd, halves, &mut rows, cache, start);
        }
        // All rows but the last are of no more use.
        let (last_norm, head) = self.parameters.head();
        norm(plan, simd, &last_norm, rows.normed, rows.mean, rows.rstd, rows.x);
        let normed = Matrix::new(rows.normed, c).from(count - 1, 0);
        let (size, logits) = (Size { m: 1, n: vocab, k: c }, (&mut *self.logits, vocab));
        let head = Matrix::new(head, c).transposed();
        matmul_trusted(simd, size, logits, Start::Zero, normed, head, rows.scratch);
    }
}

fn norm(
    plan: &Plan,
    simd: InstructionSet,
    norm: &Norm<'_>,
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
) {
    layer_norm::statistics(simd, mean, rstd, x, plan.config.width, plan.config.norm_epsilon);
    layer_norm::apply(simd, y, x, mean, rstd, norm.weight, norm.bias);
}

/// One block for positions from `start` on: the forward pass of `model`, with keys and values of earlier positions from
/// the cache `[context, 2C]`.
fn block(
    plan: &Plan,
    simd: InstructionSet,
    (of_attention, of_mlp): (Half<'_>, Half<'_>),
    rows: &mut Rows<'_>,
    cache: &mut [f32],
    start: usize,
) {
    let Config { width: c, hidden: f, heads, activation, .. } = plan.config;
    let Rows { x, normed, qkv, attended, branch, hidden, active, mean, rstd, stats, scratch } = rows;
    let count = mean.len();
    let product = |n, k| Size { m: count, n, k };

    norm(plan, simd, &of_attention.norm, normed, mean, rstd, x);
    linear::forward_trusted(simd, qkv, normed, of_attention.first.parts(), product(3 * c, c), scratch);
    let places = ops::rows_mut(cache.get_mut(start * 2 * c..).unwrap_or_default(), 2 * c);
    for (place, qkv) in places.zip(ops::rows(qkv, 3 * c)) {
        for (place, value) in place.iter_mut().zip(qkv.iter().skip(c)) {
            *place = *value;
        }
    }
    let head_width = plan.config.head_width();
    let queries = Queries { first: start, count, keys: start + count, head_width };
    for column in (0..heads).map(|head| head * head_width) {
        let query = Matrix::new(qkv, 3 * c).from(0, column);
        let key = Matrix::new(cache, 2 * c).from(0, column);
        let value = key.from(0, c);
        let out = (attended.get_mut(column..).unwrap_or_default(), c);
        attention::attend(simd, out, stats, queries, Head { query, key, value }, None, scratch);
    }
    linear::forward_trusted(simd, branch, attended, of_attention.second.parts(), product(c, c), scratch);
    dropout::add_residual(simd, branch, x, c, None);

    norm(plan, simd, &of_mlp.norm, normed, mean, rstd, branch);
    linear::forward_trusted(simd, hidden, normed, of_mlp.first.parts(), product(f, c), scratch);
    gelu::activate(simd, active, hidden, activation);
    linear::forward_trusted(simd, x, active, of_mlp.second.parts(), product(c, f), scratch);
    dropout::add_residual(simd, x, branch, c, None);
}
