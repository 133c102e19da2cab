//! A model's configuration and its validation. This module knows nothing of memory or computing.

use crate::error::Error;

/// The largest value of a size in a [`Config`]. `layout` checks products of sizes.
pub(crate) const LARGEST: usize = 1 << 30;

/// Whether the Llama family is built in: the feature `llama`. Without it, all switches but GPT-2's are settled at build time.
pub(crate) const LLAMA: bool = cfg!(feature = "llama");

/// Whether adapters are built in: the feature `lora`.
pub(crate) const LORA: bool = cfg!(feature = "lora");

/// One of a few named values, for code that treats all such fields alike.
#[doc(hidden)]
pub trait Choice {
    /// The names of all values, in the order of their numbers.
    fn names(&self) -> &'static [&'static str];
    /// The value's number, which C uses.
    fn number(&self) -> usize;
    /// Takes the value with this number, if there is one.
    fn choose(&mut self, number: usize) -> Option<()>;
}

/// Makes an enum whose values have names and numbers.
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        enum $name:ident {
            $($(#[$of_value:meta])* $value:ident $text:literal,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of_value])* $value,)*
        }

        impl $name {
            /// Each value and its name in checkpoints, in Python and on command lines.
            #[doc(hidden)]
            pub const NAMES: &'static [($name, &'static str)] = &[$(($name::$value, $text)),*];

            /// The name in checkpoints, in Python and on command lines.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$value => $text,)*
                }
            }

            /// The value of a name.
            pub fn named(name: &str) -> Option<$name> {
                Self::NAMES.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
            }
        }

        impl Choice for $name {
            fn names(&self) -> &'static [&'static str] {
                &[$($text),*]
            }

            fn number(&self) -> usize {
                *self as usize
            }

            fn choose(&mut self, number: usize) -> Option<()> {
                *self = Self::NAMES.get(number)?.0;
                Some(())
            }
        }
    )*};
}

choices! {
    /// The activation between the products of the MLP.
    enum Activation {
        /// `x * (1 + erf(x / sqrt 2)) / 2`: PyTorch's `GELU()` (Hendrycks & Gimpel 2016, exact form).
        Gelu "gelu",
        /// The tanh approximation that GPT-2 was trained with: PyTorch's `GELU(approximate="tanh")`.
        GeluTanh "gelu_tanh",
        /// `silu(gate) * up`, of two products (Shazeer 2020): Llama's gated MLP.
        SwiGlu "swiglu",
    }

    /// The normalisation before each branch and before the head.
    enum Norm {
        /// Mean zero and variance one (Ba et al. 2016): GPT-2's.
        Layer "layer",
        /// Root mean square one (Zhang & Sennrich 2019): Llama's.
        Rms "rms",
    }

    /// How a model knows the positions of tokens.
    enum Positions {
        /// A learned vector for each position, added to the token's: GPT-2's.
        Learned "learned",
        /// Queries and keys are rotated by angles that grow with the position (Su et al. 2021): Llama's.
        Rotary "rotary",
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

/// The angles of rotary positions. Pair i of position p turns by `p / theta^(2 i / D)`, with the head's width D.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The base of the wavelengths; at least 1.
    pub theta: f32,
    /// Llama 3's scaling, for contexts longer than the first training's: slow rotations become slower by this factor.
    /// At least 1; 1 scales nothing.
    pub factor: f32,
    /// Rotations with fewer turns than this in the original context are slowed down by the whole factor.
    pub low_freq_factor: f32,
    /// Rotations with more turns than this keep their frequency; more than `low_freq_factor`.
    pub high_freq_factor: f32,
    /// The context of the first training, in positions.
    pub original_context: usize,
}

impl Rope {
    /// The longest context with rotary positions.
    pub const MOST_POSITIONS: usize = 1 << 20;

    /// Llama 2's: theta 10,000, without scaling.
    pub const USUAL: Rope = Rope {
        theta: 10_000.0,
        factor: 1.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
}

/// The adapter of one matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRank {
    /// r: at most each side of the matrix; 0 for no adapter.
    pub rank: usize,
    /// The adapter's part is multiplied by this, divided by r ([`Lora::rslora`]: by the root of r).
    pub alpha: f32,
}

impl LowRank {
    /// No adapter.
    pub const NONE: LowRank = LowRank { rank: 0, alpha: 16.0 };

    /// An adapter of this rank.
    pub const fn new(rank: usize, alpha: f32) -> LowRank {
        LowRank { rank, alpha }
    }
}

/// Low-rank adapters of a block's matrices (Hu et al. 2021). A product `y = x W` becomes `y = x W + s (x A^T) B^T`, with
/// A `[r, in]`, B `[out, r]` and `s = alpha / r`. A and B are tensors of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lora {
    /// A GPT-2's `c_attn`.
    pub qkv: LowRank,
    /// Llama's `q_proj`.
    pub q: LowRank,
    /// Llama's `k_proj`.
    pub k: LowRank,
    /// Llama's `v_proj`.
    pub v: LowRank,
    /// `o_proj`, a GPT-2's `attn.c_proj`.
    pub o: LowRank,
    /// `gate_proj` of a gated MLP.
    pub gate: LowRank,
    /// `up_proj`, a GPT-2's `c_fc`.
    pub up: LowRank,
    /// `down_proj`, a GPT-2's `mlp.c_proj`.
    pub down: LowRank,
    /// Whether alpha is divided by the root of r instead of r (Kalajdzievski 2023).
    pub rslora: bool,
    /// The rate of dropout on the input of A, in `[0, 1)`. The input of W keeps all its elements.
    pub dropout: f32,
}

/// A matrix that can have an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    Qkv,
    Query,
    Key,
    Value,
    AttentionOut,
    Gate,
    MlpIn,
    MlpOut,
}

#[cfg(feature = "lora")]
impl Module {
    const ALL: [Module; 8] = [
        Module::Qkv,
        Module::Query,
        Module::Key,
        Module::Value,
        Module::AttentionOut,
        Module::Gate,
        Module::MlpIn,
        Module::MlpOut,
    ];

    /// The name of its rank in errors.
    const fn rank_name(self) -> &'static str {
        match self {
            Module::Qkv => Field::LoraQkvRank.name(),
            Module::Query => Field::LoraQRank.name(),
            Module::Key => Field::LoraKRank.name(),
            Module::Value => Field::LoraVRank.name(),
            Module::AttentionOut => Field::LoraORank.name(),
            Module::Gate => Field::LoraGateRank.name(),
            Module::MlpIn => Field::LoraUpRank.name(),
            Module::MlpOut => Field::LoraDownRank.name(),
        }
    }
}

impl Lora {
    /// No adapters.
    pub const NONE: Lora = Lora {
        qkv: LowRank::NONE,
        q: LowRank::NONE,
        k: LowRank::NONE,
        v: LowRank::NONE,
        o: LowRank::NONE,
        gate: LowRank::NONE,
        up: LowRank::NONE,
        down: LowRank::NONE,
        rslora: false,
        dropout: 0.0,
    };

    /// Whether no matrix has an adapter.
    pub const fn is_none(&self) -> bool {
        let [attention, mlp] = self.ranks();
        !LORA || attention == 0 && mlp == 0
    }

    pub(crate) const fn of(&self, module: Module) -> LowRank {
        match module {
            Module::Qkv => self.qkv,
            Module::Query => self.q,
            Module::Key => self.k,
            Module::Value => self.v,
            Module::AttentionOut => self.o,
            Module::Gate => self.gate,
            Module::MlpIn => self.up,
            Module::MlpOut => self.down,
        }
    }

    pub(crate) const fn rank(&self, module: Module) -> usize {
        if LORA { self.of(module).rank } else { 0 }
    }

    /// The sums of the ranks of a block's attention branch, and of its MLP branch.
    pub(crate) const fn ranks(&self) -> [usize; 2] {
        if !LORA {
            return [0, 0];
        }
        let Lora { qkv, q, k, v, o, gate, up, down, .. } = self;
        let joined = qkv.rank.saturating_add(q.rank).saturating_add(k.rank).saturating_add(v.rank);
        let mlp = gate.rank.saturating_add(up.rank).saturating_add(down.rank);
        [joined.saturating_add(o.rank), mlp]
    }

    /// The sum of the ranks of the matrices that come before one in its branch.
    pub(crate) const fn ranks_before(&self, module: Module) -> usize {
        let Lora { qkv, q, k, v, gate, up, .. } = self;
        match module {
            Module::Qkv | Module::Gate => 0,
            Module::Query => qkv.rank,
            Module::Key => qkv.rank + q.rank,
            Module::Value => qkv.rank + q.rank + k.rank,
            Module::AttentionOut => qkv.rank + q.rank + k.rank + v.rank,
            Module::MlpIn => gate.rank,
            Module::MlpOut => gate.rank + up.rank,
        }
    }
}

/// A transformer of pre-norm blocks with causal attention. [`Config::new`] makes a GPT-2 as nanoGPT trains it,
/// [`Config::llama`] a member of the Llama family. The switches of both can be combined.
///
/// A GPT-2 has the tensors of Hugging Face's GPT-2: their names, shapes and order. All other configurations have the tensors of
/// its Llama.
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
    /// The longest sequence of the model.
    pub context: usize,
    /// L: the number of blocks.
    pub layers: usize,
    /// H: the number of attention heads.
    pub heads: usize,
    /// K: the number of heads of keys and values, each shared by H / K neighbouring query heads (Ainslie et al. 2023).
    /// Divides H; 0 means H.
    pub kv_heads: usize,
    /// C: the width of the residual stream.
    pub width: usize,
    /// D: the width of a head; 0 means C / H, which must be whole.
    pub head_width: usize,
    /// F: the hidden width of the MLP; 4C in GPT-2.
    pub hidden: usize,
    /// Dropout rates, used in training only.
    pub dropout: Dropout,
    /// The norm before each branch and before the head.
    pub norm: Norm,
    /// How the model knows the positions of tokens.
    pub positions: Positions,
    /// The angles of rotary positions; learned ones have none.
    pub rope: Rope,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether products and norms have biases (nanoGPT's `bias`).
    pub bias: bool,
    /// Whether queries, keys and values have biases, even if no other product has (Qwen2).
    pub qkv_bias: bool,
    /// Whether each head's queries and keys are normalised by their root mean square, before the rotation (Qwen3).
    pub qk_norm: bool,
    /// Whether the output matrix is the token embedding.
    pub tied: bool,
    /// Added to the variance in every norm; positive.
    pub norm_epsilon: f32,
    /// The standard deviation of matrices before training.
    pub initial_std: f32,
    /// Adapters of the blocks' matrices.
    #[cfg(feature = "lora")]
    pub lora: Lora,
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
            kv_heads: 0,
            width,
            head_width: 0,
            hidden: width.saturating_mul(4),
            dropout: Dropout::NONE,
            norm: Norm::Layer,
            positions: Positions::Learned,
            rope: Rope::USUAL,
            activation: Activation::Gelu,
            bias: true,
            qkv_bias: false,
            qk_norm: false,
            tied: true,
            norm_epsilon: 1e-5,
            initial_std: 0.02,
            #[cfg(feature = "lora")]
            lora: Lora::NONE,
        }
    }

    /// Llama's choices for the given sizes: RMS norm, rotary positions, grouped queries, SwiGLU, no biases, tied output
    /// matrix, epsilon 1e-5, no dropout.
    #[cfg(feature = "llama")]
    pub const fn llama(
        vocab: usize,
        context: usize,
        layers: usize,
        heads: usize,
        kv_heads: usize,
        width: usize,
        hidden: usize,
    ) -> Config {
        Config {
            kv_heads,
            hidden,
            norm: Norm::Rms,
            positions: Positions::Rotary,
            activation: Activation::SwiGlu,
            bias: false,
            ..Config::new(vocab, context, layers, heads, width)
        }
    }

    /// Refuses an invalid configuration, with the name of the field.
    pub const fn validate(&self) -> Result<(), Error> {
        if let Err(error) = self.validate_fields() {
            return Err(error);
        }
        if (!LLAMA || self.head_width == 0) && !self.width.is_multiple_of(self.heads) {
            return Err(Error::Heads { width: self.width, heads: self.heads });
        }
        if LLAMA {
            if let Err(error) = self.validate_llama() {
                return Err(error);
            }
        } else if self.differs_from_gpt2() {
            return Err(Error::Unsupported { what: "a model unlike GPT-2, without the feature llama" });
        }
        #[cfg(feature = "lora")]
        if let Err(error) = self.validate_lora() {
            return Err(error);
        }
        Ok(())
    }

    #[cfg(feature = "lora")]
    const fn validate_lora(&self) -> Result<(), Error> {
        let mut i = 0;
        while i < Module::ALL.len() {
            let (module, rank) = (Module::ALL[i], self.lora.rank(Module::ALL[i]));
            let [inputs, outputs] = self.sides(module);
            if rank > inputs || rank > outputs {
                let (what, wanted) = (module.rank_name(), "at most each side of its matrix, 0 without one");
                return Err(Error::Range { what, given: rank as f32, wanted });
            }
            i += 1;
        }
        Ok(())
    }

    /// The columns of a matrix's input and of its output; 0 if the model has no such matrix.
    pub(crate) const fn sides(&self, module: Module) -> [usize; 2] {
        let (gpt2, gated) = (self.is_gpt2(), self.is_gated());
        match module {
            Module::Qkv if gpt2 => [self.width, self.qkv()],
            Module::Query if !gpt2 => [self.width, self.attended()],
            Module::Key | Module::Value if !gpt2 => [self.width, self.kv_width()],
            Module::AttentionOut => [self.attended(), self.width],
            Module::Gate if !gated => [0, 0],
            Module::Gate | Module::MlpIn => [self.width, self.hidden],
            Module::MlpOut => [self.hidden, self.width],
            Module::Qkv | Module::Query | Module::Key | Module::Value => [0, 0],
        }
    }

    /// The adapters.
    pub(crate) const fn lora(&self) -> &Lora {
        #[cfg(feature = "lora")]
        return &self.lora;
        #[cfg(not(feature = "lora"))]
        return &Lora::NONE;
    }

    const fn validate_llama(&self) -> Result<(), Error> {
        let Config { heads, context, rope, .. } = *self;
        let (kv_heads, head_width) = (self.kv_heads(), self.head_width());
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::KvHeads { heads, kv_heads });
        }
        if self.attended() > LARGEST {
            return Err(Error::TooLarge { what: "heads times head_width" });
        }
        if !self.is_rotary() {
            return Ok(());
        }
        if !head_width.is_multiple_of(2) {
            let wanted = "an even number for rotary positions";
            return Err(Error::Range { what: "head_width", given: head_width as f32, wanted });
        }
        if context > Rope::MOST_POSITIONS {
            return Err(Error::Context { length: context, context: Rope::MOST_POSITIONS });
        }
        if rope.theta < 1.0 {
            return Err(Error::Range {
                what: "rope_theta",
                given: rope.theta,
                wanted: "finite and at least 1",
            });
        }
        if rope.factor < 1.0 {
            return Err(Error::Range {
                what: "rope_factor",
                given: rope.factor,
                wanted: "finite and at least 1",
            });
        }
        if rope.high_freq_factor <= rope.low_freq_factor {
            let (what, wanted) = ("rope_high_freq_factor", "more than rope_low_freq_factor");
            return Err(Error::Range { what, given: rope.high_freq_factor, wanted });
        }
        Ok(())
    }

    /// D: the width of a head, also if the field is 0.
    pub const fn head_width(&self) -> usize {
        match self.width.checked_div(self.heads) {
            Some(width) if !LLAMA || self.head_width == 0 => width,
            _ => self.head_width,
        }
    }

    /// K: the number of heads of keys and values, also if the field is 0.
    pub const fn kv_heads(&self) -> usize {
        if !LLAMA || self.kv_heads == 0 { self.heads } else { self.kv_heads }
    }

    /// The same configuration, with the sizes that follow from other fields.
    #[doc(hidden)]
    pub const fn derived(self) -> Config {
        Config { kv_heads: self.kv_heads(), head_width: self.head_width(), ..self }
    }

    /// H D: the width of all heads of queries together.
    pub(crate) const fn attended(&self) -> usize {
        if LLAMA { self.heads.saturating_mul(self.head_width()) } else { self.width }
    }

    /// K D: the width of all heads of keys, or of values.
    pub(crate) const fn kv_width(&self) -> usize {
        if LLAMA { self.kv_heads().saturating_mul(self.head_width()) } else { self.width }
    }

    /// The width of queries, keys and values, side by side.
    pub(crate) const fn qkv(&self) -> usize {
        self.attended().saturating_add(self.kv_width().saturating_mul(2))
    }

    /// The width of what enters the activation function: the gate and the hidden width, side by side.
    pub(crate) const fn activation_inputs(&self) -> usize {
        if self.is_gated() { self.hidden.saturating_mul(2) } else { self.hidden }
    }

    pub(crate) const fn is_rms(&self) -> bool {
        LLAMA && matches!(self.norm, Norm::Rms)
    }

    pub(crate) const fn is_rotary(&self) -> bool {
        LLAMA && matches!(self.positions, Positions::Rotary)
    }

    pub(crate) const fn is_gated(&self) -> bool {
        LLAMA && matches!(self.activation, Activation::SwiGlu)
    }

    pub(crate) const fn has_qk_norm(&self) -> bool {
        LLAMA && self.qk_norm
    }

    pub(crate) const fn has_qkv_bias(&self) -> bool {
        self.bias || LLAMA && self.qkv_bias
    }

    /// Whether the tensors have the names, shapes and order of Hugging Face's GPT-2. Otherwise they have Llama's.
    pub const fn is_gpt2(&self) -> bool {
        !LLAMA || !self.differs_from_gpt2()
    }

    const fn differs_from_gpt2(&self) -> bool {
        let grouped = self.kv_heads != 0 && self.kv_heads != self.heads;
        let free = self.head_width != 0 && self.head_width.saturating_mul(self.heads) != self.width;
        let named = matches!(self.norm, Norm::Rms)
            || matches!(self.positions, Positions::Rotary)
            || matches!(self.activation, Activation::SwiGlu);
        grouped || free || named || self.qk_norm || self.qkv_bias && !self.bias
    }
}

/// A field's value, in its place in a [`Config`].
#[doc(hidden)]
pub enum Value<'a> {
    /// At least 1 and at most [`Config::LARGEST`].
    Size(&'a mut usize),
    /// At most [`Config::LARGEST`]; 0 means that it follows from other fields.
    DerivedSize(&'a mut usize),
    /// More than 0 and finite.
    Positive(&'a mut f32),
    /// In `[0, 1)`.
    Rate(&'a mut f32),
    /// In `(0, 1)`.
    Fraction(&'a mut f32),
    Flag(&'a mut bool),
    Choice(&'a mut dyn Choice),
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
    (DerivedSize $what:expr, $given:expr) => {
        if $given > LARGEST {
            return Err(Error::TooLarge { what: $what });
        }
    };
    (Positive $what:expr, $given:expr) => {
        if !($given > 0.0 && $given < f32::INFINITY) {
            let wanted = "finite and more than 0";
            return Err(Error::Range { what: $what, given: $given, wanted });
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

/// The list of a configuration's fields, by their kinds. Validation, checkpoints and the faces read it. Fields of the Llama
/// family are not validated where that is not built in. A row has the field's variant, its name, its key in a checkpoint,
/// and its place in [`Config`].
macro_rules! fields {
    ($(
        $(#[$cfg:meta])?
        $kind:ident $(if $built:ident)? {
            $($(#[$only:meta])? $field:ident $name:literal $key:literal $($place:ident).+,)*
        }
    )*) => {
        /// A field of a [`Config`].
        #[doc(hidden)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $($($(#[$only])? $field,)*)*
        }

        impl Field {
            /// All fields that are built in, in the order of a checkpoint's metadata and of the C struct.
            pub const ALL: &'static [Field] = {
                let all: &[Field] = &[$($($(#[$only])? Field::$field,)*)*];
                if LLAMA || LORA { all } else { all.split_at(Field::FIRST_OPTIONAL).0 }
            };

            /// The name in errors, in C and in Python.
            pub const fn name(self) -> &'static str {
                match self {
                    $($($(#[$only])? Field::$field => $name,)*)*
                }
            }

            /// The key in a checkpoint's metadata.
            pub const fn key(self) -> &'static str {
                match self {
                    $($($(#[$only])? Field::$field => $key,)*)*
                }
            }
        }

        impl Config {
            /// The value of a field, in its place.
            #[doc(hidden)]
            pub const fn value(&mut self, field: Field) -> Value<'_> {
                match field {
                    $($($(#[$only])? Field::$field => Value::$kind(&mut self.$($place).+),)*)*
                }
            }

            // A loop for each kind: one loop over all fields takes 200 bytes more of flash.
            const fn validate_fields(&self) -> Result<(), Error> {
                $($(#[$cfg])? if true $(&& $built)? {
                    const NAMES: &[&str] = &[$($(#[$only])? $name,)*];
                    let given = [$($(#[$only])? self.$($place).+,)*];
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
    Choice {
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
    DerivedSize if LLAMA {
        KvHeads "kv_heads" "jostle.kv_heads" kv_heads,
        HeadWidth "head_width" "jostle.head_width" head_width,
    }
    Choice if LLAMA {
        Norm "norm" "jostle.norm" norm,
    }
    Choice if LLAMA {
        Positions "positions" "jostle.positions" positions,
    }
    Positive if LLAMA {
        RopeTheta "rope_theta" "jostle.rope_theta" rope.theta,
        RopeFactor "rope_factor" "jostle.rope_factor" rope.factor,
        RopeLowFreqFactor "rope_low_freq_factor" "jostle.rope_low_freq_factor" rope.low_freq_factor,
        RopeHighFreqFactor "rope_high_freq_factor" "jostle.rope_high_freq_factor" rope.high_freq_factor,
    }
    Size if LLAMA {
        RopeOriginalContext "rope_original_context" "jostle.rope_original_context" rope.original_context,
    }
    Flag if LLAMA {
        QkvBias "qkv_bias" "jostle.qkv_bias" qkv_bias,
        QkNorm "qk_norm" "jostle.qk_norm" qk_norm,
    }
    Positive {
        InitialStd "initial_std" "jostle.initial_std" initial_std,
    }
    #[cfg(feature = "lora")]
    DerivedSize {
        #[cfg(feature = "lora")]
        LoraQkvRank "lora_qkv_rank" "jostle.lora.qkv_rank" lora.qkv.rank,
        #[cfg(feature = "lora")]
        LoraQRank "lora_q_rank" "jostle.lora.q_rank" lora.q.rank,
        #[cfg(feature = "lora")]
        LoraKRank "lora_k_rank" "jostle.lora.k_rank" lora.k.rank,
        #[cfg(feature = "lora")]
        LoraVRank "lora_v_rank" "jostle.lora.v_rank" lora.v.rank,
        #[cfg(feature = "lora")]
        LoraORank "lora_o_rank" "jostle.lora.o_rank" lora.o.rank,
        #[cfg(feature = "lora")]
        LoraGateRank "lora_gate_rank" "jostle.lora.gate_rank" lora.gate.rank,
        #[cfg(feature = "lora")]
        LoraUpRank "lora_up_rank" "jostle.lora.up_rank" lora.up.rank,
        #[cfg(feature = "lora")]
        LoraDownRank "lora_down_rank" "jostle.lora.down_rank" lora.down.rank,
    }
    #[cfg(feature = "lora")]
    Positive {
        #[cfg(feature = "lora")]
        LoraQkvAlpha "lora_qkv_alpha" "jostle.lora.qkv_alpha" lora.qkv.alpha,
        #[cfg(feature = "lora")]
        LoraQAlpha "lora_q_alpha" "jostle.lora.q_alpha" lora.q.alpha,
        #[cfg(feature = "lora")]
        LoraKAlpha "lora_k_alpha" "jostle.lora.k_alpha" lora.k.alpha,
        #[cfg(feature = "lora")]
        LoraVAlpha "lora_v_alpha" "jostle.lora.v_alpha" lora.v.alpha,
        #[cfg(feature = "lora")]
        LoraOAlpha "lora_o_alpha" "jostle.lora.o_alpha" lora.o.alpha,
        #[cfg(feature = "lora")]
        LoraGateAlpha "lora_gate_alpha" "jostle.lora.gate_alpha" lora.gate.alpha,
        #[cfg(feature = "lora")]
        LoraUpAlpha "lora_up_alpha" "jostle.lora.up_alpha" lora.up.alpha,
        #[cfg(feature = "lora")]
        LoraDownAlpha "lora_down_alpha" "jostle.lora.down_alpha" lora.down.alpha,
    }
    #[cfg(feature = "lora")]
    Flag {
        #[cfg(feature = "lora")]
        LoraRslora "lora_rslora" "jostle.lora.rslora" lora.rslora,
    }
    #[cfg(feature = "lora")]
    Rate {
        #[cfg(feature = "lora")]
        LoraDropout "lora_dropout" "jostle.lora.dropout" lora.dropout,
    }
}

impl Value<'_> {
    /// A number that is the same for equal values of a field.
    pub fn bits(&self) -> u64 {
        match self {
            Value::Size(size) | Value::DerivedSize(size) => **size as u64,
            Value::Rate(x) | Value::Fraction(x) | Value::Positive(x) => u64::from(x.to_bits()),
            Value::Flag(flag) => u64::from(**flag),
            Value::Choice(choice) => choice.number() as u64,
        }
    }
}

impl Field {
    const FIRST_OPTIONAL: usize = Field::KvHeads as usize;

    /// Whether checkpoints have the field only if it differs from GPT-2's, as all those did that were written before it
    /// existed.
    pub const fn is_optional(self) -> bool {
        (LLAMA || LORA) && self as usize >= Field::FIRST_OPTIONAL
    }

    /// Whether a configuration has the value that an absent key means.
    pub fn is_usual(self, config: &Config) -> bool {
        let (mut usual, mut given) = (Config::new(1, 1, 1, 1, 1), config.derived());
        let usual = match self {
            Field::KvHeads => config.heads as u64,
            Field::HeadWidth => config.width.checked_div(config.heads).unwrap_or(0) as u64,
            field => usual.value(field).bits(),
        };
        given.value(self).bits() == usual
    }

    const fn is_adapter_dropout(self) -> bool {
        #[cfg(feature = "lora")]
        return matches!(self, Field::LoraDropout);
        #[cfg(not(feature = "lora"))]
        return false;
    }

    /// Whether a checkpoint's parameters fit only a model with the same value. The other fields only matter in training.
    pub const fn shapes_model(self) -> bool {
        !matches!(
            self,
            Field::EmbeddingDropout
                | Field::AttentionDropout
                | Field::AttentionProjectionDropout
                | Field::MlpProjectionDropout
                | Field::InitialStd
        ) && !self.is_adapter_dropout()
    }
}
