//! A model's configuration and its validation. This module knows nothing of memory or computing.

use crate::error::Error;

/// The largest value of a size in a [`Config`]. `layout` checks products of sizes.
pub(crate) const LARGEST: usize = 1 << 30;

/// The activation between the two products of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * (1 + erf(x / sqrt 2)) / 2`: PyTorch's `GELU()` (Hendrycks & Gimpel 2016, exact form).
    Gelu,
    /// The tanh approximation that GPT-2 was trained with: PyTorch's `GELU(approximate="tanh")`.
    GeluTanh,
}

impl Activation {
    /// Each activation and its name in checkpoints, in Python and on command lines.
    #[doc(hidden)]
    pub const NAMES: [(Activation, &'static str); 2] =
        [(Activation::Gelu, "gelu"), (Activation::GeluTanh, "gelu_tanh")];

    /// The name in checkpoints, in Python and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::Gelu => Self::NAMES[0].1,
            Activation::GeluTanh => Self::NAMES[1].1,
        }
    }

    /// The activation of a name.
    pub fn named(name: &str) -> Option<Activation> {
        Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(activation, _)| activation)
    }
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
    /// The longest sequence of the model: the number of learned positions.
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
    /// Whether the output matrix is the token embedding.
    pub tied: bool,
    /// Added to the variance in every norm; positive.
    pub norm_epsilon: f32,
}

impl Config {
    /// The largest value of a size; products of sizes are checked when a plan is made.
    pub const LARGEST: usize = LARGEST;

    /// GPT-2's choices for the given sizes: hidden width 4C, exact GELU, biases, tied output matrix, epsilon 1e-5, no dropout.
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

    /// Refuses an invalid configuration, with the name of the field.
    pub const fn validate(&self) -> Result<(), Error> {
        if let Err(error) = self.validate_fields() {
            return Err(error);
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::Heads { width: self.width, heads: self.heads });
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

/// A field's value, in its place in a [`Config`].
#[doc(hidden)]
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    /// At least 1 and at most [`Config::LARGEST`].
    Size(&'a mut usize),
    /// In `[0, 1)`.
    Rate(&'a mut f32),
    /// In `(0, 1)`.
    Fraction(&'a mut f32),
    Flag(&'a mut bool),
    Activation(&'a mut Activation),
}

/// Refuses a value outside the range of a kind of field.
macro_rules! check {
    (Size $what:expr, $given:expr) => {
        if $given == 0 {
            return Err(Error::Zero { what: $what });
        }
        if $given > LARGEST {
            return Err(Error::TooLarge { what: $what });
        }
    };
    (Fraction $what:expr, $given:expr) => {
        if !($given > 0.0 && $given < 1.0) {
            let wanted = "more than 0 and less than 1";
            return Err(Error::Range { what: $what, given: $given, wanted });
        }
    };
    (Rate $what:expr, $given:expr) => {
        if !($given >= 0.0 && $given < 1.0) {
            let wanted = "at least 0 and less than 1";
            return Err(Error::Range { what: $what, given: $given, wanted });
        }
    };
    ($valid:ident $what:expr, $given:expr) => {
        let _ = ($what, $given);
    };
}

/// The list of a configuration's fields, by their kinds. Validation, checkpoints and the faces read it. A row has the
/// field's variant, its name, its key in a checkpoint, and its place in [`Config`].
macro_rules! fields {
    ($($kind:ident { $($field:ident $name:literal $key:literal $($place:ident).+,)* })*) => {
        /// A field of a [`Config`].
        #[doc(hidden)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $($($field,)*)*
        }

        impl Field {
            /// All fields, in the order of a checkpoint's metadata and of the C struct.
            pub const ALL: &'static [Field] = &[$($(Field::$field,)*)*];

            /// The name in errors, in C and in Python.
            pub const fn name(self) -> &'static str {
                match self {
                    $($(Field::$field => $name,)*)*
                }
            }

            /// The key in a checkpoint's metadata.
            pub const fn key(self) -> &'static str {
                match self {
                    $($(Field::$field => $key,)*)*
                }
            }
        }

        impl Config {
            /// The value of a field, in its place.
            #[doc(hidden)]
            pub const fn value(&mut self, field: Field) -> Value<'_> {
                match field {
                    $($(Field::$field => Value::$kind(&mut self.$($place).+),)*)*
                }
            }

            // A loop for each kind: one loop over all fields takes 200 bytes more of flash.
            const fn validate_fields(&self) -> Result<(), Error> {
                $({
                    const NAMES: &[&str] = &[$($name,)*];
                    let given = [$(self.$($place).+,)*];
                    let mut i = 0;
                    while i < NAMES.len() {
                        check!($kind NAMES[i], given[i]);
                        i += 1;
                    }
                })*
                Ok(())
            }
        }
    };
}

fields! {
    Size {
        Vocab "vocab" "jostle.vocab" vocab,
        Context "context" "jostle.context" context,
        Layers "layers" "jostle.layers" layers,
        Heads "heads" "jostle.heads" heads,
        Width "width" "jostle.width" width,
        Hidden "hidden" "jostle.hidden" hidden,
    }
    Activation {
        Activation "activation" "jostle.activation" activation,
    }
    Flag {
        Bias "bias" "jostle.bias" bias,
        Tied "tied" "jostle.tied" tied,
    }
    Fraction {
        NormEpsilon "norm_epsilon" "jostle.norm_epsilon" norm_epsilon,
    }
    Rate {
        EmbeddingDropout "embedding_dropout" "jostle.dropout.embedding" dropout.embedding,
        AttentionDropout "attention_dropout" "jostle.dropout.attention" dropout.attention,
        AttentionProjectionDropout "attention_projection_dropout" "jostle.dropout.attention_projection"
            dropout.attention_projection,
        MlpProjectionDropout "mlp_projection_dropout" "jostle.dropout.mlp_projection" dropout.mlp_projection,
    }
}

impl Field {
    /// Whether a checkpoint's parameters fit only a model with the same value. The other fields only matter in training.
    pub const fn shapes_model(self) -> bool {
        !matches!(
            self,
            Field::EmbeddingDropout
                | Field::AttentionDropout
                | Field::AttentionProjectionDropout
                | Field::MlpProjectionDropout
        )
    }
}
