//! Generation, token by token, with a KV cache. It gives the logits of the full forward pass, bit for bit. Knows
//! nothing of training.

use core::cell::Cell;

use crate::config::Config;
use crate::error::{Error, exact_length};
use crate::fault::Watch;
use crate::layout::{
    AttentionActivations, ChunkRows, Generation, MlpActivations, Parameters, Plan, Rotation, Shape,
};
use crate::matmul::{Matrix, Queries};
use crate::model::{Pass, Workers};
use crate::ops::attention::{self, Head};
use crate::ops::{self, embedding, rotary, rows_mut};
use crate::parallel::{Compute, Serial};
use crate::rng::{self, Stream};
use crate::sampling::{Sampling, sample};
use crate::simd::InstructionSet;

/// A generator, on the caller's memory.
///
/// A text longer than the context continues with a sliding window: the model then sees the last `context` tokens, as
/// nanoGPT's does. Because positions are learned, each further token moves all others, and the window is computed
/// anew.
pub struct Generator<'a> {
    plan: &'a Plan,
    simd: InstructionSet,
    parameters: &'a [f32],
    frozen: &'a [f32],
    memory: Generation<'a>,
    /// The tokens that the model sees. The first `filled` are valid.
    window: &'a mut [i32],
    filled: usize,
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
        let mut memory = memory;
        let memory = Generation::cut(&mut memory, &plan.sizes(), 1);
        Ok(Generator { plan, simd, parameters, frozen, memory, window, filled: 0 })
    }

    /// Appends tokens to the text. Returns the logits `[V]` of the next token, which the caller may change.
    ///
    /// Errors: [`Error::Token`] for a token outside the vocabulary, [`Error::Zero`] without tokens. The text does not
    /// change then.
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
            // The window slides: the remaining tokens move to other positions.
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
        let (watch, most) = (Watch::begin(), self.plan.sizes().chunk);
        while computed < self.filled {
            let count = most.min(self.filled - computed);
            self.positions(computed, count);
            computed += count;
        }
        watch.end()?;
        Ok(self.memory.logits)
    }

    /// Draws the next token from the logits of the last [`Generator::feed`], which it overwrites. Does not feed it.
    ///
    /// `order`: scratch of exactly V elements. `number` counts the tokens drawn with this seed. The same number and
    /// logits give the same token.
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
        sample(self.simd, sampling, self.memory.logits, order, &mut rng).map(|token| token as i32)
    }

    /// Forgets the text.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// The number of tokens in the window.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Continues from another generator, whose memory and window these are, with `filled` tokens in the window, at
    /// most the context.
    pub fn resume(&mut self, filled: usize) {
        self.filled = filled.min(self.plan.config.context);
    }

    /// Computes positions `start..start + count` of the window, and the logits after the last.
    fn positions(&mut self, start: usize, count: usize) {
        let Generator { plan, simd, parameters, frozen, .. } = *self;
        let Config { width: c, context, heads, ref rope, .. } = plan.config;
        let (a, qkv_width, keys_width) = (plan.config.attended(), plan.config.qkv(), plan.config.kv_width());
        let Generation { cache, logits, chunk } = &mut self.memory;
        let mut chunk = &mut **chunk;
        let rows = ChunkRows::cut(&mut chunk, &plan.sizes(), count);
        let ChunkRows {
            x,
            normed,
            qkv,
            attended,
            heads: normed_heads,
            low_rank,
            middle,
            hidden,
            activated,
            ..
        } = rows;
        let ChunkRows { mean, rstd, attention_stats, cos, sin, .. } = rows;
        let tokens = self.window.get(start..start + count).unwrap_or_default();
        let compute = Compute { simd, parallel: &Serial };
        let shape = Shape { sequences: 1, length: count };
        let pass = Pass { compute, plan, parameters, frozen, tokens, shape, dropout: None };
        let each = chunk.len();
        let mut workers = Workers { compute, shape, scratch: (chunk, each) };

        let [wte, wpe] = Parameters::new(parameters, frozen, plan).embeddings();
        pass.embed(x, tokens, [wte, wpe.get(start * c..).unwrap_or_default()]);
        let head_width = plan.config.head_width();
        if plan.config.is_rotary() {
            rotary::angles(cos, sin, start, head_width, rope);
        }
        let rotation = Rotation { cos, sin };
        let of_heads = pass.attention(None, 0);
        let of_chunk = Queries { first: start, count, keys: start + count, head_width };
        for (layer, cache) in rows_mut(cache, context * 2 * keys_width).enumerate() {
            let mut kept = AttentionActivations {
                mean: &mut *mean,
                rstd: &mut *rstd,
                qkv: &mut *qkv,
                stats: &mut *attention_stats,
                attended: &mut *attended,
                low_rank: &mut *low_rank,
                heads: &mut *normed_heads,
            };
            let mut attend = |workers: &mut Workers<'_>, qkv: &[f32], [attended, stats]: [&mut [f32]; 2]| {
                let row = 2 * keys_width;
                let places = rows_mut(cache.get_mut(start * row..).unwrap_or_default(), row);
                for (place, qkv) in places.zip(ops::rows(qkv, qkv_width)) {
                    for (place, value) in place.iter_mut().zip(qkv.iter().skip(a)) {
                        *place = *value;
                    }
                }
                let (scratch, _) = &mut workers.scratch;
                for head in 0..heads {
                    let query = Matrix::new(qkv, qkv_width).from(0, head * head_width);
                    let key = Matrix::new(cache, row).from(0, of_heads.shared(head) * head_width);
                    let out = (attended.get_mut(head * head_width..).unwrap_or_default(), a);
                    let head = Head { query, key, value: key.from(0, keys_width) };
                    attention::attend(simd, out, stats, of_chunk, head, None, scratch);
                }
            };
            pass.attention_branch(layer, x, middle, &mut kept, normed, rotation, &mut workers, &mut attend);
            let mut kept = MlpActivations {
                mean: &mut *mean,
                rstd: &mut *rstd,
                hidden: &mut *hidden,
                low_rank: &mut *low_rank,
            };
            pass.mlp_branch(layer, middle, Some(&mut *x), &mut kept, [normed, activated], &mut workers);
        }
        // Only the last row's logits are needed.
        let last = x.get((count - 1) * c..).unwrap_or_default();
        workers.shape.length = 1;
        pass.head_input(last, [&mut *normed, mean, rstd], &mut workers);
        pass.logits(normed, logits, &mut workers);
    }
}
