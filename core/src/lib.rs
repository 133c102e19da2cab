//! Trains small transformer language models without a heap or an operating system. The caller hands over the buffers, and
//! the same seed gives the same bits on every processor.
//!
//! ```
//! use jostle::*;
//!
//! // The configuration of the model. The plan says how long each buffer must be.
//! let config = Config::new(256, 16, 1, 2, 16);
//! let plan = Plan::new(&config, &Options::new(4))?;
//!
//! // All memory is yours: vectors here, static arrays on a device.
//! let mut parameters = vec![0.0; plan.parameters()];
//! let mut gradients = vec![0.0; plan.gradients()];
//! let mut optimizer = vec![0.0; plan.optimizer()];
//! let mut workspace = vec![0.0; plan.workspace()];
//! let mut batch = vec![0; plan.batch()];
//! let compute = Compute::serial();
//! initialize(compute.simd, &plan, &mut parameters, 1337)?;
//!
//! let recipe = Recipe {
//!     optimizer: Optimizer::ADAMW,
//!     schedule: Schedule::constant(1e-2),
//!     clip: Some(1.0),
//!     accumulate: 1,
//!     seed: 1337,
//! };
//! let buffers = Buffers {
//!     parameters: &mut parameters,
//!     frozen: &[],
//!     gradients: &mut gradients,
//!     optimizer: &mut optimizer,
//!     workspace: &mut workspace,
//!     batch: &mut batch,
//! };
//! let text = "I like to ski when it snows. ".repeat(10);
//! let mut trainer = Trainer::new(&plan, &recipe, buffers, compute)?;
//! for _ in 0..60 {
//!     trainer.step(text.as_bytes())?;
//! }
//! assert!(trainer.evaluate(text.as_bytes())?.mean() < 2.0);
//! # Ok::<(), Error>(())
//! ```
//!
//! A [`Generator`] writes text with the trained parameters, [`checkpoint`] saves them, and [`ops`] has each operation
//! by itself, for models of your own. The folder `examples` has a short program for each topic.
//!
//! Letters in shapes: **B** sequences in a batch, **T** their length, **R** = B T rows.
//! **C** is the width of the model, **F** the hidden width of its MLPs, **V** the vocabulary.
//! There are **L** layers and **H** heads. Matrices are row-major.
//!
//! The modules, in the order of the folder:
//!
//! * `checkpoint`: saves and resumes, bit for bit, to and from the caller's bytes.
//! * `compact`: small stand-ins for parts of the language, for devices whose flash is short.
//! * `config`: the configuration of a model, and its validation.
//! * `data`: token streams and the windows of training.
//! * `error`: errors that name the given and the wanted value.
//! * `fault`: mismatched sizes inside the engine, which must not pass in silence.
//! * `generate`: generation with a KV cache.
//! * `initialization`: random initial parameters.
//! * `layout`: names, shapes and offsets of tensors, and every size.
//! * `llama2c`: the files of llama2.c.
//! * `matmul`: the contract of matrix products, a reference, and the kernels.
//! * `model`: forward and backward of the whole model.
//! * `ops`: one file per operation, forward and backward side by side.
//! * `optimizer`: AdamW, SGD, and the norm of the gradients.
//! * `parallel`: the threads that a host lends.
//! * `rng`: named random streams.
//! * `sampling`: draws a token from logits.
//! * `schedule`: the learning rate of each step.
//! * `simd`: vector operations, one file per instruction set.
//! * `target`: the two kinds of processors.
//! * `tokenizer`: text to tokens and back, for bytes or a table of characters.
//! * `trainer`: training steps and evaluation.
#![no_std]
#![deny(unsafe_code)]

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Programs that must not compile are tests.
#[cfg(doctest)]
#[doc = include_str!("../tests/misuse.md")]
struct Misuse;

#[cfg(test)]
extern crate self as jostle;
#[cfg(test)]
extern crate std;

pub mod checkpoint;
// Hidden: the C interface formats its messages with it.
#[doc(hidden)]
pub mod compact;
mod config;
mod data;
mod error;
mod fault;
mod generate;
mod initialization;
mod layout;
pub mod llama2c;
#[allow(unsafe_code)]
pub mod matmul;
mod model;
pub mod ops;
mod optimizer;
mod parallel;
pub mod rng;
mod sampling;
mod schedule;
#[allow(unsafe_code)]
#[cfg_attr(feature = "matrixmultiply", allow(dead_code, reason = "products use some of it"))]
mod simd;
mod target;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
#[allow(unsafe_code)]
mod test_common;
mod tokenizer;
mod trainer;

pub use config::{Activation, Config, Dropout, Lora, LowRank, Norm, Positions, Rope};
pub use data::Tokens;
pub use error::{CheckpointError, Error, Llama2cError};
pub use generate::Generator;
pub use initialization::initialize;
pub use layout::{Frozen, OptimizerState, Options, Plan, Role, Shape, Tensor, TensorName, Tensors};
// Hidden: tests compare the stages of a pass with the figure of GPT-2.
#[doc(hidden)]
pub use model::{Backward, Forward, Stage};
pub use model::{DropoutKey, Gradients, Loss, Pass};
pub use optimizer::{Optimizer, clip_factor, gradient_norm};
pub use parallel::{Compute, Parallel, Serial};
pub use sampling::{Sampling, sample};
pub use schedule::{Decay, Schedule};
pub use simd::InstructionSet;
pub use target::Target;
pub use tokenizer::{ByteTokenizer, CharTable};
pub use trainer::{Buffers, Pieces, Recipe, Report, SpikeGuard, Trainer};

/// The list of a configuration's fields. Hidden: checkpoints and the other interfaces take their lists from it.
#[doc(hidden)]
pub mod fields {
    pub use crate::config::{Choice, Field, Value};
}
