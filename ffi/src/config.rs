//! The structs that say what is wanted: the model, how it is trained, how tokens are drawn. Knows how C's
//! numbers become the core's values; the core says which values are right.

use jostle::{
    Activation, Config, Decay, Dropout, Frozen, Optimizer, OptimizerState, Options, Recipe, Sampling,
    Schedule,
};

use core::ffi::c_char;
use core::mem::{MaybeUninit, offset_of};

use crate::border::{self, Structure};
use crate::status::{Call, OrRefuse, Refusal, Refused, call, jostle_status};

/// The activation between the two products of the MLP.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum jostle_activation {
    /// x (1 + erf(x / sqrt 2)) / 2, PyTorch's GELU().
    JOSTLE_GELU = 0,
    /// GPT-2's approximation by tanh, PyTorch's GELU(approximate="tanh").
    JOSTLE_GELU_TANH = 1,
}

/// What an optimiser keeps for each parameter between steps.
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
    /// Not at all.
    JOSTLE_CONSTANT = 0,
    /// In a straight line down to final_learning_rate at step `steps`.
    JOSTLE_LINEAR = 1,
    /// Along half a cosine, as nanoGPT's.
    JOSTLE_COSINE = 2,
    /// Not until decay_steps before `steps`, then in a straight line.
    JOSTLE_WARMUP_STABLE_DECAY = 3,
}

/// What the model is. jostle_config_init fills in GPT-2's choices.
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
    /// H: the number of attention heads; divides the width.
    pub heads: u32,
    /// C: the width of the residual stream.
    pub width: u32,
    /// F: the width of the MLP between its products; 4C in GPT-2.
    pub hidden: u32,
    /// A jostle_activation.
    pub activation: u32,
    /// 1 where products and norms have biases, else 0.
    pub bias: u32,
    /// 1 where the head's matrix is the token embedding, else 0.
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
}

/// How the model is trained, as far as memory depends on it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_options {
    /// sizeof(jostle_options).
    pub struct_size: u32,
    /// B: the largest number of sequences that one pass takes.
    pub batch: u32,
    /// How many threads may work at once; each has scratch of its own.
    pub threads: u32,
    /// A jostle_optimizer_state.
    pub optimizer: u32,
    /// 1: the backward pass makes each block's activations again, in one block's memory; the same bits for fewer
    /// activations and more work. 0: all are kept.
    pub recompute: u32,
    /// 1: the backward pass updates parameters as soon as it has made their gradients, which then need memory for some
    /// rows of one tensor only; the same bits, in one pass a step and without clipping (JOSTLE_FUSED). 0: after it.
    pub fused: u32,
    /// The names of tensors that are not trained, as jostle_tensor tells them; NULL for none. Read by jostle_plan_init and
    /// jostle_plan_fit alone.
    pub frozen: *const *const c_char,
    /// How many these are.
    pub frozen_count: usize,
}

/// How to train. jostle_recipe_init fills in nanoGPT's choices for small models.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_recipe {
    /// sizeof(jostle_recipe).
    pub struct_size: u32,
    /// A jostle_optimizer.
    pub optimizer: u32,
    /// SGD: the velocity's memory, in [0, 1).
    pub momentum: f32,
    /// AdamW: the first moment's memory, in [0, 1).
    pub beta1: f32,
    /// AdamW: the second moment's memory, in [0, 1).
    pub beta2: f32,
    /// AdamW: added to the root of the second moment.
    pub epsilon: f32,
    /// AdamW: the share, times the learning rate, by which matrices shrink at each step.
    pub weight_decay: f32,
    /// The gradient's largest global norm, to which a larger one is scaled down; 0 for none.
    pub clip: f32,
    /// The greatest learning rate.
    pub learning_rate: f32,
    /// The rate that the decay ends at; at most learning_rate.
    pub final_learning_rate: f32,
    /// A jostle_decay.
    pub decay: u32,
    /// Micro-batches per step of jostle_trainer_step; at least 1.
    pub accumulate: u32,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// The step at which the decay has reached its end. JOSTLE_CONSTANT doesn't look at it.
    pub steps: u64,
    /// JOSTLE_WARMUP_STABLE_DECAY: how many steps before the last the fall begins.
    pub decay_steps: u64,
    /// The seed of batches and dropout.
    pub seed: u64,
}

/// How a token is drawn. jostle_sampling_init gives the softmax without filters.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct jostle_sampling {
    /// sizeof(jostle_sampling).
    pub struct_size: u32,
    /// Divides the logits; 0 takes the token of the greatest logit.
    pub temperature: f32,
    /// Keep so many of the greatest logits; 0 keeps all.
    pub top_k: u32,
    /// Keep the fewest tokens with so much probability; in (0, 1], 1 keeps all (Holtzman et al. 2020).
    pub top_p: f32,
    /// Keep the tokens with this share of the greatest probability; in [0, 1], 0 keeps all (Nguyen et al. 2024).
    pub min_p: f32,
}

// SAFETY: numbers, the first of which is `struct_size`.
unsafe impl Structure for jostle_config {}
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
    };
}

// SAFETY: numbers and a pointer, the first of which is `struct_size`.
unsafe impl Structure for jostle_options {
    const FIRST_SIZE: usize = offset_of!(jostle_options, recompute);
    const DEFAULTS: MaybeUninit<jostle_options> = MaybeUninit::new(jostle_options::USUAL);
}
// SAFETY: as above.
unsafe impl Structure for jostle_recipe {}
// SAFETY: as above.
unsafe impl Structure for jostle_sampling {}

pub(crate) fn flag(call: &Call, what: &'static str, given: u32) -> Result<bool, Refused> {
    match given {
        0 => Ok(false),
        1 => Ok(true),
        given => Err(call.refuse(Refusal::Choice { what, given })),
    }
}

pub(crate) fn activation(call: &Call, given: u32) -> Result<Activation, Refused> {
    match given {
        given if given == jostle_activation::JOSTLE_GELU as u32 => Ok(Activation::Gelu),
        given if given == jostle_activation::JOSTLE_GELU_TANH as u32 => Ok(Activation::GeluTanh),
        given => Err(call.refuse(Refusal::Choice { what: "activation", given })),
    }
}

impl jostle_config {
    pub(crate) fn core(&self, call: &Call) -> Result<Config, Refused> {
        Ok(Config {
            vocab: self.vocab as usize,
            context: self.context as usize,
            layers: self.layers as usize,
            heads: self.heads as usize,
            width: self.width as usize,
            hidden: self.hidden as usize,
            dropout: Dropout {
                embedding: self.embedding_dropout,
                attention: self.attention_dropout,
                attention_projection: self.attention_projection_dropout,
                mlp_projection: self.mlp_projection_dropout,
            },
            activation: activation(call, self.activation)?,
            bias: flag(call, "bias", self.bias)?,
            tied: flag(call, "tied", self.tied)?,
            norm_epsilon: self.norm_epsilon,
        })
    }

    pub(crate) fn from_core(config: &Config) -> jostle_config {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        jostle_config {
            struct_size: size_of::<jostle_config>() as u32,
            vocab: size(config.vocab),
            context: size(config.context),
            layers: size(config.layers),
            heads: size(config.heads),
            width: size(config.width),
            hidden: size(config.hidden),
            activation: match config.activation {
                Activation::Gelu => jostle_activation::JOSTLE_GELU as u32,
                Activation::GeluTanh => jostle_activation::JOSTLE_GELU_TANH as u32,
            },
            bias: u32::from(config.bias),
            tied: u32::from(config.tied),
            embedding_dropout: config.dropout.embedding,
            attention_dropout: config.dropout.attention,
            attention_projection_dropout: config.dropout.attention_projection,
            mlp_projection_dropout: config.dropout.mlp_projection,
            norm_epsilon: config.norm_epsilon,
        }
    }
}

impl jostle_options {
    /// # Safety
    /// `frozen` is NULL or holds so many zero-terminated strings.
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
            // SAFETY: the caller's promise.
            frozen: unsafe { self.frozen(call, config)? },
        })
    }
}

impl jostle_options {
    /// # Safety
    /// As for [`jostle_options::core`].
    unsafe fn frozen(&self, call: &Call, config: &Config) -> Result<Frozen, Refused> {
        let mut frozen = Frozen::NONE;
        if self.frozen_count == 0 {
            return Ok(frozen);
        }
        // Names are those of a model: what cannot be one is told first.
        config.validate().or_refuse(call)?;
        // SAFETY: the caller's promise.
        unsafe { border::input(call, "frozen", self.frozen)? };
        for index in 0..self.frozen_count {
            // SAFETY: the caller's promise.
            let name = unsafe { border::string(call, "frozen", *self.frozen.add(index))? };
            let number = Frozen::number(config, name).ok_or(Refusal::NotFound { what: "frozen", index });
            frozen.add(number.or_refuse(call)?).or_refuse(call)?;
        }
        Ok(frozen)
    }
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
    // SAFETY: there is no error to write; the caller vouches for `place`.
    unsafe { call(core::ptr::null_mut(), |call| border::fill(call, what, place, size, value)) }
}

/// Fills in a configuration of these sizes with GPT-2's choices: hidden 4C, exact GELU, biases, tied head, epsilon
/// 1e-5, no dropout. jostle_plan_init says whether it can be a model.
///
/// # Safety
/// `config` is writable for `struct_size` bytes, which is sizeof(jostle_config).
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
    // SAFETY: the caller's promise.
    unsafe { fill("config", config, struct_size, &value) }
}

/// Fills in options: `batch` sequences a pass, one thread, AdamW.
///
/// # Safety
/// `options` is writable for `struct_size` bytes, which is sizeof(jostle_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_options_init(
    options: *mut jostle_options,
    struct_size: usize,
    batch: u32,
) -> jostle_status {
    let value = jostle_options { batch, ..jostle_options::USUAL };
    // SAFETY: the caller's promise.
    unsafe { fill("options", options, struct_size, &value) }
}

/// Fills in a recipe: AdamW with betas 0.9 and 0.99, epsilon 1e-8 and weight decay 0.1; the norm clipped at 1; a
/// constant learning rate of 1e-3 without warm-up; one micro-batch a step; seed 0.
///
/// # Safety
/// `recipe` is writable for `struct_size` bytes, which is sizeof(jostle_recipe).
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
    // SAFETY: the caller's promise.
    unsafe { fill("recipe", recipe, struct_size, &value) }
}

/// Fills in sampling at temperature 1 without filters.
///
/// # Safety
/// `sampling` is writable for `struct_size` bytes, which is sizeof(jostle_sampling).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jostle_sampling_init(
    sampling: *mut jostle_sampling,
    struct_size: usize,
) -> jostle_status {
    let struct_size_here = size_of::<jostle_sampling>() as u32;
    let value =
        jostle_sampling { struct_size: struct_size_here, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };
    // SAFETY: the caller's promise.
    unsafe { fill("sampling", sampling, struct_size, &value) }
}
