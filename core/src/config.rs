//! The configuration of a model. This is the only place that validates one. Knows nothing of memory or computing.

use crate::error::Error;

/// The largest value of any single size in a [`Config`]; products are checked one by one in [`crate::layout`].
pub const LARGEST: usize = 1 << 30;

/// The activation between the two products of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * (1 + erf(x / sqrt 2)) / 2`: PyTorch's `GELU()` (Hendrycks & Gimpel 2016, exact form).
    Gelu,
    /// The tanh approximation that GPT-2 was trained with: PyTorch's `GELU(approximate="tanh")`.
    GeluTanh,
}

/// Rates of dropout, each in `[0, 1)`: the probability that an element is zeroed during training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// On the sum of token and position embeddings.
    pub embedding: f32,
    /// On the attention weights, after the softmax.
    pub attention: f32,
    /// On the output of the attention's projection, before the residual sum.
    pub attention_projection: f32,
    /// On the output of the MLP's projection, before the residual sum.
    pub mlp_projection: f32,
}

impl Dropout {
    /// No dropout anywhere.
    pub const NONE: Dropout = Dropout::all(0.0);

    /// The same rate in all four places.
    pub const fn all(rate: f32) -> Dropout {
        Dropout { embedding: rate, attention: rate, attention_projection: rate, mlp_projection: rate }
    }
}

/// A GPT-2 as nanoGPT trains it: pre-norm blocks, fused QKV, learned positions.
///
/// ```
/// use jostle::{Config, Dropout};
/// let config = Config { dropout: Dropout::all(0.1), ..Config::new(65, 64, 4, 4, 128) };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// V: the number of different tokens.
    pub vocab: usize,
    /// The longest sequence that the model can attend to: the number of learned positions.
    pub context: usize,
    /// L: the number of blocks.
    pub layers: usize,
    /// H: the number of attention heads; divides the width.
    pub heads: usize,
    /// C: the width of the residual stream.
    pub width: usize,
    /// F: the hidden width of the MLP; 4C in GPT-2.
    pub hidden: usize,
    /// Dropout rates, used in training only.
    pub dropout: Dropout,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether products and norms have biases (nanoGPT's `bias`).
    pub bias: bool,
    /// Whether the head's matrix is the token embedding.
    pub tied: bool,
    /// Added to the variance in every norm; positive.
    pub norm_epsilon: f32,
}

impl Config {
    /// GPT-2's choices for the given sizes: hidden 4C, exact GELU, biases, tied head, epsilon 1e-5, no dropout.
    pub const fn new(vocab: usize, context: usize, layers: usize, heads: usize, width: usize) -> Config {
        Config {
            vocab,
            context,
            layers,
            heads,
            width,
            hidden: width.saturating_mul(4),
            dropout: Dropout::NONE,
            activation: Activation::Gelu,
            bias: true,
            tied: true,
            norm_epsilon: 1e-5,
        }
    }

    /// Refuses a configuration that does not describe a model, and names the value.
    pub const fn validate(&self) -> Result<(), Error> {
        const SIZES: [&str; 6] = ["vocab", "context", "layers", "heads", "width", "hidden"];
        let sizes = [self.vocab, self.context, self.layers, self.heads, self.width, self.hidden];
        let mut i = 0;
        while i < SIZES.len() {
            let (what, size) = (SIZES[i], sizes[i]);
            if size == 0 {
                return Err(Error::Zero { what });
            }
            if size > LARGEST {
                return Err(Error::TooLarge { what });
            }
            i += 1;
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::Heads { width: self.width, heads: self.heads });
        }
        const RATES: [&str; 4] = [
            "dropout.embedding",
            "dropout.attention",
            "dropout.attention_projection",
            "dropout.mlp_projection",
        ];
        let Dropout { embedding, attention, attention_projection, mlp_projection } = self.dropout;
        let rates = [embedding, attention, attention_projection, mlp_projection];
        let mut i = 0;
        while i < RATES.len() {
            let (what, given) = (RATES[i], rates[i]);
            if !(given >= 0.0 && given < 1.0) {
                return Err(Error::Range { what, given, wanted: "at least 0 and less than 1" });
            }
            i += 1;
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            let given = self.norm_epsilon;
            return Err(Error::Range { what: "norm_epsilon", given, wanted: "more than 0 and less than 1" });
        }
        Ok(())
    }

    /// The width of one head, C / H.
    pub const fn head_width(&self) -> usize {
        match self.width.checked_div(self.heads) {
            Some(width) => width,
            None => 0,
        }
    }
}
