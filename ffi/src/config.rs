//! The structs that the caller fills in: model, options, recipe, sampling. This module turns C's numbers into the core's
//! values; the core says which values are valid.

use jostle::fields::{Choice, Field, Value};
use jostle::{
    Activation, Config, Decay, Error, Frozen, LowRank, Optimizer, OptimizerState, Options, Recipe, Rope,
    Sampling, Schedule,
};

use core::ffi::c_char;
use core::mem::offset_of;

use crate::border::{self, Structure};
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_status};

/// The activation between the two products of the MLP.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_activation {
    /// x (1 + erf(x / sqrt 2)) / 2, PyTorch's GELU().
    JOSTLE_GELU = 0,
    /// The approximation by tanh, PyTorch's GELU(approximate="tanh"). Models in Hugging Face's GPT-2 format were trained
    /// with it ("gelu_new").
    JOSTLE_GELU_TANH = 1,
    /// silu(gate) * up, of two products (Shazeer 2020): Llama's gated MLP.
    JOSTLE_SWIGLU = 2,
}

/// The normalisation before each branch and before the head.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_norm {
    /// Mean zero and variance one (Ba et al. 2016): GPT-2's.
    JOSTLE_NORM_LAYER = 0,
    /// Root mean square one (Zhang & Sennrich 2019): Llama's.
    JOSTLE_NORM_RMS = 1,
}

/// How a model knows the positions of tokens.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_positions {
    /// A learned vector for each position, added to the token's: GPT-2's.
    JOSTLE_POSITIONS_LEARNED = 0,
    /// Queries and keys are rotated by angles that grow with the position (Su et al. 2021): Llama's.
    JOSTLE_POSITIONS_ROTARY = 1,
}

/// The optimiser's state for each parameter between steps.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_optimizer_state {
    /// Nothing: SGD.
    JOSTLE_STATE_NONE = 0,
    /// One number: SGD with momentum.
    JOSTLE_STATE_MOMENTUM = 1,
    /// Two numbers: AdamW.
    JOSTLE_STATE_ADAMW = 2,
}

/// How gradients change parameters.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_optimizer {
    /// Stochastic gradient descent, with momentum where that is not 0; PyTorch's SGD.
    JOSTLE_SGD = 0,
    /// Adam with decoupled weight decay of matrices (Loshchilov & Hutter 2019); PyTorch's AdamW.
    JOSTLE_ADAMW = 1,
}

/// How the learning rate falls after warm-up.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_decay {
    /// It stays constant.
    JOSTLE_CONSTANT = 0,
    /// In a straight line down to final_learning_rate at step `steps`.
    JOSTLE_LINEAR = 1,
    /// Along half a cosine, as in nanoGPT.
    JOSTLE_COSINE = 2,
    /// Constant until decay_steps before `steps`, then in a straight line.
    JOSTLE_WARMUP_STABLE_DECAY = 3,
}

/// A model's configuration. jostle_config_init fills in GPT-2's choices, but for the activation, and jostle_config_init_llama
/// Llama's. The tensors of a GPT-2 have the names, shapes and order of Hugging Face's GPT-2, those of all other
/// configurations Llama's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_config {
    /// sizeof(jostle_config).
    pub struct_size: u32,
    /// V: the number of different tokens.
    pub vocab: u32,
    /// The longest sequence that the model can look at.
    pub context: u32,
    /// L: the number of blocks.
    pub layers: u32,
    /// H: the number of attention heads.
    pub heads: u32,
    /// C: the width of the residual stream.
    pub width: u32,
    /// F: the width of the MLP between its products; 4C in GPT-2.
    pub hidden: u32,
    /// A jostle_activation.
    pub activation: u32,
    /// 1 if products and norms have biases, else 0.
    pub bias: u32,
    /// 1 if the output matrix is the token embedding, else 0.
    pub tied: u32,
    /// Added to the variance in every norm; more than 0.
    pub norm_epsilon: f32,
    /// Rate of dropout on the sum of the embeddings, in [0, 1). All rates act in training only.
    pub embedding_dropout: f32,
    /// Rate of dropout on the attention weights, after the softmax.
    pub attention_dropout: f32,
    /// Rate of dropout on the output of the attention's projection.
    pub attention_projection_dropout: f32,
    /// Rate of dropout on the output of the MLP's projection.
    pub mlp_projection_dropout: f32,
    /// K: the number of heads of keys and values, each shared by H / K neighbouring query heads (Ainslie et al. 2023); 0 means
    /// H.
    pub kv_heads: u32,
    /// D: the width of a head; 0 means C / H, which must be whole.
    pub head_width: u32,
    /// A jostle_norm.
    pub norm: u32,
    /// A jostle_positions.
    pub positions: u32,
    /// Rotary positions: the base of the wavelengths; at least 1.
    pub rope_theta: f32,
    /// Llama 3's scaling of rotary positions: slow rotations become slower by this factor; at least 1, which scales nothing.
    pub rope_factor: f32,
    /// Rotations with fewer turns than this in the original context are slowed down by the whole factor.
    pub rope_low_freq_factor: f32,
    /// Rotations with more turns than this keep their frequency; more than rope_low_freq_factor.
    pub rope_high_freq_factor: f32,
    /// The context of the first training, in positions.
    pub rope_original_context: u32,
    /// 1 if queries, keys and values have biases, even if no other product has (Qwen2), else 0.
    pub qkv_bias: u32,
    /// 1 if each head's queries and keys are normalised by their root mean square, before the rotation (Qwen3), else 0.
    pub qk_norm: u32,
    /// The standard deviation of matrices before training; more than 0.
    pub initial_std: f32,
    /// The rank of the adapter of c_attn of a GPT-2 (Hu et al. 2021), at most each side of the matrix; 0 for none.
    pub lora_qkv_rank: u32,
    /// The same for q_proj.
    pub lora_q_rank: u32,
    /// The same for k_proj.
    pub lora_k_rank: u32,
    /// The same for v_proj.
    pub lora_v_rank: u32,
    /// The same for o_proj (GPT-2: attn.c_proj).
    pub lora_o_rank: u32,
    /// The same for gate_proj.
    pub lora_gate_rank: u32,
    /// The same for up_proj (GPT-2: c_fc).
    pub lora_up_rank: u32,
    /// The same for down_proj (GPT-2: mlp.c_proj).
    pub lora_down_rank: u32,
    /// The adapter of c_attn of a GPT-2 is multiplied by this, divided by its rank; more than 0.
    pub lora_qkv_alpha: f32,
    /// The same for q_proj.
    pub lora_q_alpha: f32,
    /// The same for k_proj.
    pub lora_k_alpha: f32,
    /// The same for v_proj.
    pub lora_v_alpha: f32,
    /// The same for o_proj (GPT-2: attn.c_proj).
    pub lora_o_alpha: f32,
    /// The same for gate_proj.
    pub lora_gate_alpha: f32,
    /// The same for up_proj (GPT-2: c_fc).
    pub lora_up_alpha: f32,
    /// The same for down_proj (GPT-2: mlp.c_proj).
    pub lora_down_alpha: f32,
    /// 1 if alpha is divided by the root of the rank (Kalajdzievski 2023), else 0.
    pub lora_rslora: u32,
    /// Rate of dropout on the inputs of adapters, in [0, 1).
    pub lora_dropout: f32,
}

/// The settings of training that memory depends on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_options {
    /// sizeof(jostle_options).
    pub struct_size: u32,
    /// B: the most sequences in one pass.
    pub batch: u32,
    /// The most threads that work at once; each has its own scratch.
    pub threads: u32,
    /// A jostle_optimizer_state.
    pub optimizer: u32,
    /// 1: the backward pass recomputes each block's activations, in the memory of one block (activation recomputation). The
    /// bits are the same, memory is less, work is more. 0: all activations are kept.
    pub recompute: u32,
    /// 1: the backward pass updates parameters as soon as their gradients are complete (fused optimizer step). Gradients then
    /// need memory for some rows of one tensor only. The bits are the same, but a step is one pass without clipping
    /// (JOSTLE_FUSED). 0: the update follows the backward pass.
    pub fused: u32,
    /// The names of tensors that are not trained, as in jostle_tensor; NULL for none. Only jostle_plan_init and
    /// jostle_plan_fit read them.
    pub frozen: *const *const c_char,
    /// The number of names in `frozen`.
    pub frozen_count: usize,
    /// The rows of logits that exist at a time (a chunk of the head); 0 for all rows of a pass. In chunks the bits are the same,
    /// memory is less, and work is more if the head's matrix is trained.
    /// jostle_model_logits then refuses the plan (JOSTLE_PLAN).
    pub head_rows: usize,
    /// 1: all tensors except adapters are frozen, and `frozen` need not name them. 0: `frozen` names all frozen tensors. Only
    /// jostle_plan_init and jostle_plan_fit read it.
    pub freeze_base: u32,
    /// 0.
    pub reserved: u32,
}

/// The settings of a training run. jostle_recipe_init fills in nanoGPT's choices for small models.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_recipe {
    /// sizeof(jostle_recipe).
    pub struct_size: u32,
    /// A jostle_optimizer.
    pub optimizer: u32,
    /// SGD: the decay rate of the velocity, in [0, 1).
    pub momentum: f32,
    /// AdamW: the decay rate of the first moment, in [0, 1).
    pub beta1: f32,
    /// AdamW: the decay rate of the second moment, in [0, 1).
    pub beta2: f32,
    /// AdamW: added to the root of the second moment.
    pub epsilon: f32,
    /// AdamW: at each step, matrices shrink by this times the learning rate.
    pub weight_decay: f32,
    /// Gradients with a larger global norm are scaled down to it; 0 for no clipping.
    pub clip: f32,
    /// The peak learning rate.
    pub learning_rate: f32,
    /// The learning rate at the end of the decay; at most learning_rate.
    pub final_learning_rate: f32,
    /// A jostle_decay.
    pub decay: u32,
    /// Micro-batches per step of jostle_trainer_step; at least 1.
    pub accumulate: u32,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The step at which the decay ends. JOSTLE_CONSTANT ignores it.
    pub steps: u64,
    /// JOSTLE_WARMUP_STABLE_DECAY: the number of steps of the decay.
    pub decay_steps: u64,
    /// The seed of batches and dropout.
    pub seed: u64,
}

/// The settings for drawing a token. jostle_sampling_init fills in the softmax without filters.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_sampling {
    /// sizeof(jostle_sampling).
    pub struct_size: u32,
    /// Divides the logits; 0 takes the token with the largest logit.
    pub temperature: f32,
    /// The number of largest logits to keep; 0 keeps all.
    pub top_k: u32,
    /// Keep the fewest tokens whose probabilities add up to this; in (0, 1], 1 keeps all (Holtzman et al. 2020).
    pub top_p: f32,
    /// Keep the tokens with at least this share of the largest probability; in [0, 1], 0 keeps all (Nguyen et al. 2024).
    pub min_p: f32,
}

// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_config {
    const FIRST_SIZE: usize = offset_of!(jostle_config, kv_heads);
    const DEFAULTS: Option<jostle_config> = Some(jostle_config::USUAL);
}
impl jostle_options {
    const USUAL: jostle_options = jostle_options {
        struct_size: size_of::<jostle_options>() as u32,
        batch: 1,
        threads: 1,
        optimizer: jostle_optimizer_state::JOSTLE_STATE_ADAMW as u32,
        recompute: 0,
        fused: 0,
        frozen: core::ptr::null(),
        frozen_count: 0,
        head_rows: 0,
        freeze_base: 0,
        reserved: 0,
    };
}

// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_options {
    const FIRST_SIZE: usize = offset_of!(jostle_options, recompute);
    const DEFAULTS: Option<jostle_options> = Some(jostle_options::USUAL);
}
// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_recipe {
    const FIRST_SIZE: usize = offset_of!(jostle_recipe, seed) + size_of::<u64>();
}
// SAFETY: numbers and pointers without padding; `struct_size` comes first.
unsafe impl Structure for jostle_sampling {
    const FIRST_SIZE: usize = offset_of!(jostle_sampling, min_p) + size_of::<f32>();
}

pub(crate) fn flag(call: &Call, what: &'static str, given: u32) -> Result<bool, Refused> {
    match given {
        0 => Ok(false),
        1 => Ok(true),
        given => Err(call.refuse(Refusal::Choice { what, given })),
    }
}

/// The value of a choice that C's number names.
pub(crate) fn choose(
    call: &Call,
    what: &'static str,
    given: u32,
    choice: &mut dyn Choice,
) -> Result<(), Refused> {
    choice.choose(given as usize).ok_or_else(|| call.refuse(Refusal::Choice { what, given }))
}

pub(crate) fn activation(call: &Call, given: u32) -> Result<Activation, Refused> {
    let mut activation = Activation::Gelu;
    choose(call, "activation", given, &mut activation)?;
    Ok(activation)
}

/// A [`jostle_config`] as `struct_size` and the values of all fields, each of four bytes, in the order of [`Field::ALL`]. Fields
/// that are not built in are last.
type Words = [u32; size_of::<jostle_config>() / 4];

/// The fields of adapters.
const OF_ADAPTERS: usize = 18;

const _: () = {
    let missing = size_of::<Words>() / 4 - 1 - Field::ALL.len();
    assert!(missing == 0 || missing == OF_ADAPTERS);
};

impl jostle_config {
    /// The values of the fields that a struct of an earlier version lacks. The values of its own fields are not read.
    const USUAL: jostle_config = jostle_config {
        struct_size: size_of::<jostle_config>() as u32,
        vocab: 0,
        context: 0,
        layers: 0,
        heads: 0,
        width: 0,
        hidden: 0,
        activation: jostle_activation::JOSTLE_GELU as u32,
        bias: 1,
        tied: 1,
        norm_epsilon: 1e-5,
        embedding_dropout: 0.0,
        attention_dropout: 0.0,
        attention_projection_dropout: 0.0,
        mlp_projection_dropout: 0.0,
        kv_heads: 0,
        head_width: 0,
        norm: jostle_norm::JOSTLE_NORM_LAYER as u32,
        positions: jostle_positions::JOSTLE_POSITIONS_LEARNED as u32,
        rope_theta: Rope::USUAL.theta,
        rope_factor: Rope::USUAL.factor,
        rope_low_freq_factor: Rope::USUAL.low_freq_factor,
        rope_high_freq_factor: Rope::USUAL.high_freq_factor,
        rope_original_context: Rope::USUAL.original_context as u32,
        qkv_bias: 0,
        qk_norm: 0,
        initial_std: 0.02,
        lora_qkv_rank: 0,
        lora_q_rank: 0,
        lora_k_rank: 0,
        lora_v_rank: 0,
        lora_o_rank: 0,
        lora_gate_rank: 0,
        lora_up_rank: 0,
        lora_down_rank: 0,
        lora_qkv_alpha: LowRank::NONE.alpha,
        lora_q_alpha: LowRank::NONE.alpha,
        lora_k_alpha: LowRank::NONE.alpha,
        lora_v_alpha: LowRank::NONE.alpha,
        lora_o_alpha: LowRank::NONE.alpha,
        lora_gate_alpha: LowRank::NONE.alpha,
        lora_up_alpha: LowRank::NONE.alpha,
        lora_down_alpha: LowRank::NONE.alpha,
        lora_rslora: 0,
        lora_dropout: 0.0,
    };

    pub(crate) fn core(&self, call: &Call) -> Result<Config, Refused> {
        // SAFETY: both have the same size, and any bits are a valid number.
        let [_, words @ ..] = unsafe { core::mem::transmute::<jostle_config, Words>(*self) };
        // SAFETY: the same.
        let usual = unsafe { core::mem::transmute::<jostle_config, Words>(jostle_config::USUAL) };
        let built_in = Field::ALL.len();
        if words.iter().skip(built_in).ne(usual.iter().skip(1 + built_in)) {
            return Err(
                call.refuse_as_core(&Error::Unsupported { what: "an adapter, without the feature lora" })
            );
        }
        let mut config = Config::new(1, 1, 1, 1, 1);
        for (field, word) in Field::ALL.iter().zip(words) {
            match config.value(*field) {
                Value::Size(x) | Value::DerivedSize(x) => *x = word as usize,
                Value::Rate(x) | Value::Fraction(x) | Value::Positive(x) => *x = f32::from_bits(word),
                Value::Flag(x) => *x = flag(call, field.name(), word)?,
                Value::Choice(choice) => choose(call, field.name(), word, choice)?,
            }
        }
        Ok(config)
    }

    pub(crate) fn from_core(config: &Config) -> jostle_config {
        // SAFETY: as in `core`.
        let mut words = unsafe { core::mem::transmute::<jostle_config, Words>(jostle_config::USUAL) };
        let mut config = *config;
        for (field, word) in Field::ALL.iter().zip(words.iter_mut().skip(1)) {
            *word = match config.value(*field) {
                Value::Size(x) | Value::DerivedSize(x) => u32::try_from(*x).unwrap_or(u32::MAX),
                Value::Rate(x) | Value::Fraction(x) | Value::Positive(x) => x.to_bits(),
                Value::Flag(x) => u32::from(*x),
                Value::Choice(choice) => choice.number() as u32,
            };
        }
        // SAFETY: as in `core`.
        unsafe { core::mem::transmute::<Words, jostle_config>(words) }
    }
}

impl jostle_options {
    /// # Safety
    /// `frozen` is NULL or holds `frozen_count` zero-terminated strings.
    pub(crate) unsafe fn core(&self, call: &Call, config: &Config) -> Result<Options, Refused> {
        let optimizer = match self.optimizer {
            given if given == jostle_optimizer_state::JOSTLE_STATE_NONE as u32 => OptimizerState::None,
            given if given == jostle_optimizer_state::JOSTLE_STATE_MOMENTUM as u32 => {
                OptimizerState::Momentum
            }
            given if given == jostle_optimizer_state::JOSTLE_STATE_ADAMW as u32 => OptimizerState::AdamW,
            given => return Err(call.refuse(Refusal::Choice { what: "optimizer", given })),
        };
        Ok(Options {
            batch: self.batch as usize,
            threads: self.threads as usize,
            optimizer,
            recompute: flag(call, "recompute", self.recompute)?,
            fused: flag(call, "fused", self.fused)?,
            head_rows: self.head_rows,
            // SAFETY: the caller's promise is the same.
            frozen: unsafe { self.frozen(call, config)? },
        })
    }
}

impl jostle_options {
    /// # Safety
    /// As for [`jostle_options::core`].
    unsafe fn frozen(&self, call: &Call, config: &Config) -> Result<Frozen, Refused> {
        let mut frozen = Frozen::NONE;
        let base = flag(call, "freeze_base", self.freeze_base)?;
        if self.frozen_count == 0 && !base {
            return Ok(frozen);
        }
        // Names are looked up in the model's tensors, so the configuration must be valid first.
        config.validate().or_refuse(call)?;
        if base {
            frozen = base_of(config).or_refuse(call)?;
        }
        if self.frozen_count == 0 {
            return Ok(frozen);
        }
        // SAFETY: the caller vouches for at least one name.
        unsafe { border::input(call, "frozen", self.frozen)? };
        for index in 0..self.frozen_count {
            // SAFETY: the caller vouches for `frozen_count` names.
            let name = unsafe { border::string(call, "frozen", *self.frozen.add(index))? };
            let number = Frozen::number(config, name).ok_or_else(|| call.refuse_name(&name))?;
            frozen.add(number).or_refuse(call)?;
        }
        Ok(frozen)
    }
}

#[cfg(feature = "lora")]
fn base_of(config: &Config) -> Result<Frozen, Error> {
    Frozen::base(config, [])
}

#[cfg(not(feature = "lora"))]
fn base_of(_: &Config) -> Result<Frozen, Error> {
    Err(Error::Unsupported { what: "freeze_base, without the feature lora" })
}

impl jostle_recipe {
    pub(crate) fn optimizer(&self, call: &Call) -> Result<Optimizer, Refused> {
        match self.optimizer {
            given if given == jostle_optimizer::JOSTLE_SGD as u32 => {
                Ok(Optimizer::Sgd { momentum: self.momentum })
            }
            given if given == jostle_optimizer::JOSTLE_ADAMW as u32 => Ok(Optimizer::AdamW {
                beta1: self.beta1,
                beta2: self.beta2,
                epsilon: self.epsilon,
                weight_decay: self.weight_decay,
            }),
            given => Err(call.refuse(Refusal::Choice { what: "optimizer", given })),
        }
    }

    #[inline(never)]
    pub(crate) fn core(&self, call: &Call) -> Result<Recipe, Refused> {
        let last = self.final_learning_rate;
        let decay = match self.decay {
            given if given == jostle_decay::JOSTLE_CONSTANT as u32 => Decay::Constant,
            given if given == jostle_decay::JOSTLE_LINEAR as u32 => Decay::Linear { last },
            given if given == jostle_decay::JOSTLE_COSINE as u32 => Decay::Cosine { last },
            given if given == jostle_decay::JOSTLE_WARMUP_STABLE_DECAY as u32 => {
                Decay::WarmupStableDecay { decay_steps: self.decay_steps, last }
            }
            given => return Err(call.refuse(Refusal::Choice { what: "decay", given })),
        };
        Ok(Recipe {
            optimizer: self.optimizer(call)?,
            schedule: Schedule { peak: self.learning_rate, warmup: self.warmup, steps: self.steps, decay },
            clip: (self.clip != 0.0).then_some(self.clip),
            accumulate: self.accumulate as usize,
            seed: self.seed,
        })
    }
}

impl jostle_sampling {
    pub(crate) fn core(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: (self.top_k != 0).then_some(self.top_k as usize),
            top_p: (self.top_p != 1.0).then_some(self.top_p),
            min_p: (self.min_p != 0.0).then_some(self.min_p),
        }
    }
}

/// Fills in a struct for an init function.
///
/// # Safety
/// A pointer other than NULL is writable for `size` bytes.
pub(crate) unsafe fn fill<T: Structure>(
    what: &'static str,
    place: *mut T,
    size: usize,
    value: &T,
) -> jostle_status {
    // SAFETY: `error` is NULL; the caller vouches for `place`.
    unsafe { call(core::ptr::null_mut(), |call| border::fill(call, what, place, size, value)) }
}

/// Fills in a configuration with these sizes and usual choices: hidden width 4C, exact GELU, biases, tied output matrix,
/// epsilon 1e-5, no dropout. It checks nothing; jostle_plan_init does. For the parameters of Hugging Face's GPT-2, set
/// `activation` to JOSTLE_GELU_TANH: with the exact GELU they give slightly other numbers.
///
/// # Safety
/// `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in the caller's header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_config_init(
    config: *mut jostle_config,
    struct_size: usize,
    vocab: u32,
    context: u32,
    layers: u32,
    heads: u32,
    width: u32,
) -> jostle_status {
    let sizes = [vocab, context, layers, heads, width].map(|size| size as usize);
    let [vocab, context, layers, heads, width] = sizes;
    let value = jostle_config::from_core(&Config::new(vocab, context, layers, heads, width));
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe { fill("config", config, struct_size, &value) }
}

/// Fills in a configuration with these sizes and Llama's choices: RMS norm, rotary positions with theta 10000, SwiGLU, no
/// biases, tied output matrix, epsilon 1e-5, no dropout. `kv_heads` may be 0 for one key/value head for each head. It checks
/// nothing; jostle_plan_init does.
///
/// # Safety
/// `config` is writable for `struct_size` bytes, which is sizeof(jostle_config) in the caller's header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_config_init_llama(
    config: *mut jostle_config,
    struct_size: usize,
    vocab: u32,
    context: u32,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    width: u32,
    hidden: u32,
) -> jostle_status {
    let sizes = [vocab, context, layers, heads, kv_heads, width, hidden].map(|size| size as usize);
    let [vocab, context, layers, heads, kv_heads, width, hidden] = sizes;
    let value = Config::llama(vocab, context, layers, heads, kv_heads, width, hidden);
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe { fill("config", config, struct_size, &jostle_config::from_core(&value)) }
}

/// Fills in options: `batch` sequences a pass, one thread, AdamW.
///
/// # Safety
/// `options` is writable for `struct_size` bytes, which is sizeof(jostle_options) in the caller's header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_options_init(
    options: *mut jostle_options,
    struct_size: usize,
    batch: u32,
) -> jostle_status {
    let value = jostle_options { batch, ..jostle_options::USUAL };
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe { fill("options", options, struct_size, &value) }
}

/// Fills in a recipe: AdamW with betas 0.9 and 0.99, epsilon 1e-8 and weight decay 0.1; the norm clipped at 1; a
/// constant learning rate of 1e-3 without warm-up; one micro-batch a step; seed 0.
///
/// # Safety
/// `recipe` is writable for `struct_size` bytes, which is sizeof(jostle_recipe) in the caller's header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_recipe_init(recipe: *mut jostle_recipe, struct_size: usize) -> jostle_status {
    let (beta1, beta2, epsilon, weight_decay) = match Optimizer::ADAMW {
        Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => (beta1, beta2, epsilon, weight_decay),
        Optimizer::Sgd { .. } => (0.0, 0.0, 0.0, 0.0),
    };
    let value = jostle_recipe {
        struct_size: size_of::<jostle_recipe>() as u32,
        optimizer: jostle_optimizer::JOSTLE_ADAMW as u32,
        momentum: 0.0,
        beta1,
        beta2,
        epsilon,
        weight_decay,
        clip: 1.0,
        learning_rate: 1e-3,
        final_learning_rate: 0.0,
        decay: jostle_decay::JOSTLE_CONSTANT as u32,
        accumulate: 1,
        warmup: 0,
        steps: 0,
        decay_steps: 0,
        seed: 0,
    };
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe { fill("recipe", recipe, struct_size, &value) }
}

/// Fills in sampling at temperature 1 without filters.
///
/// # Safety
/// `sampling` is writable for `struct_size` bytes, which is sizeof(jostle_sampling) in the caller's header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_sampling_init(
    sampling: *mut jostle_sampling,
    struct_size: usize,
) -> jostle_status {
    let struct_size_here = size_of::<jostle_sampling>() as u32;
    let value =
        jostle_sampling { struct_size: struct_size_here, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };
    // SAFETY: the caller keeps to `# Safety` above.
    unsafe { fill("sampling", sampling, struct_size, &value) }
}
