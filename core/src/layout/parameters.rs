//! Cuts the parameters, or what has their layout, into named pieces.

use super::Plan;
use crate::config::Config;

/// A slice from whose front pieces are taken.
pub trait Cut: Sized {
    /// Takes `len` elements off the front; an empty piece where there are not so many.
    fn cut(&mut self, len: usize) -> Self;
}

impl Cut for &[f32] {
    #[inline(never)]
    fn cut(&mut self, len: usize) -> Self {
        debug_assert!(self.len() >= len);
        self.split_off(..len).unwrap_or_default()
    }
}

impl Cut for &mut [f32] {
    #[inline(never)]
    fn cut(&mut self, len: usize) -> Self {
        debug_assert!(self.len() >= len);
        self.split_off_mut(..len).unwrap_or_default()
    }
}

/// A norm's parameters, each `[C]`; the bias is empty where the model has none.
pub struct Norm<S> {
    /// The factor of each column.
    pub weight: S,
    /// The summand of each column.
    pub bias: S,
}

/// A product's parameters: weight `[in, out]`, bias `[out]` or empty.
pub struct Linear<S> {
    /// Row-major, `[in, out]` as in Hugging Face GPT-2's `Conv1D`.
    pub weight: S,
    /// Empty where the model has none.
    pub bias: S,
}

impl<'a> Linear<&'a [f32]> {
    /// Weight and bias.
    pub(crate) fn parts(&self) -> (&'a [f32], &'a [f32]) {
        (self.weight, self.bias)
    }
}

/// One block's parameters or gradients, by name.
pub struct Block<S> {
    /// Norm before attention.
    pub ln_1: Norm<S>,
    /// Query, key and value at once: `[C, 3C]`.
    pub c_attn: Linear<S>,
    /// The attention's projection: `[C, C]`.
    pub attention_projection: Linear<S>,
    /// Norm before the MLP.
    pub ln_2: Norm<S>,
    /// Into the hidden width: `[C, F]`.
    pub c_fc: Linear<S>,
    /// Back to the residual stream: `[F, C]`.
    pub mlp_projection: Linear<S>,
}

impl<S: Cut> Block<S> {
    /// Cuts one block's region.
    pub fn new(mut region: S, config: &Config) -> Block<S> {
        let (c, f) = (config.width, config.hidden);
        let biases = |n: usize| if config.bias { n } else { 0 };
        let norm = |s: &mut S| Norm { weight: s.cut(c), bias: s.cut(biases(c)) };
        let linear = |s: &mut S, n: usize, m: usize| Linear { weight: s.cut(n * m), bias: s.cut(biases(m)) };
        Block {
            ln_1: norm(&mut region),
            c_attn: linear(&mut region, c, 3 * c),
            attention_projection: linear(&mut region, c, c),
            ln_2: norm(&mut region),
            c_fc: linear(&mut region, c, f),
            mlp_projection: linear(&mut region, f, c),
        }
    }
}

/// All parameters (or all gradients) of a model, by name.
pub struct Parameters<S> {
    /// `wte`: `[V, C]`.
    pub token_embedding: S,
    /// `wpe`: `[context, C]`.
    pub position_embedding: S,
    /// L blocks, one behind the other; [`Block::new`] cuts one.
    pub blocks: S,
    /// Norm before the head.
    pub final_norm: Norm<S>,
    /// `[V, C]`; empty where tied to the token embedding.
    pub head: S,
}

impl<S: Cut> Parameters<S> {
    /// Cuts a slice of exactly [`Plan::parameters`] elements.
    pub(crate) fn new(mut region: S, plan: &Plan) -> Parameters<S> {
        let config = &plan.config;
        let c = config.width;
        Parameters {
            token_embedding: region.cut(config.vocab * c),
            position_embedding: region.cut(config.context * c),
            blocks: region.cut(plan.block() * config.layers),
            final_norm: Norm { weight: region.cut(c), bias: region.cut(if config.bias { c } else { 0 }) },
            head: region.cut(if config.tied { 0 } else { config.vocab * c }),
        }
    }
}

impl Parameters<&[f32]> {
    /// The head's matrix, tied or not: `[V, C]`.
    pub fn head_matrix(&self) -> &[f32] {
        if self.head.is_empty() { self.token_embedding } else { self.head }
    }
}
