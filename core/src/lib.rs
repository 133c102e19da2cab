//! Trains small transformer language models without a heap, an operating system, or a choice of processor:
//! the caller hands over the buffers, and the same seed gives the same bits everywhere.
//!
//! The legend of all shapes: **B** sequences in a batch, **T** their length, **R** = B T rows,
//! **C** the width of the model, **F** the hidden width of its MLPs, **V** the vocabulary, **L** layers,
//! **H** heads. Matrices are row-major.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | what the model is; the one place that validates |
//! | [`layout`] | where everything lies: names, shapes, offsets, every size |
//! | [`rng`] | named random streams |
//! | [`parallel`] | how a host lends threads |
//! | [`matmul`] | the contract of matrix products, a reference, and the packed kernels |
//! | [`ops`] | one file per operation, forward and backward side by side |
//! | [`model`] | forward and backward of the whole model |
//! | [`initialization`] | random initial parameters |
//! | [`optimizer`] | AdamW, SGD, the gradient's norm |
//! | [`data`] | token streams and windows |
//! | [`trainer`] | training steps and evaluation |
//! | [`generate`] | the model in use, with a cache |
//! | [`schedule`] | the learning rate at each step |
//! | [`sampling`] | drawing a token from logits |
//! | [`tokenizer`] | text to tokens and back: bytes, or a table of characters |
//! | [`checkpoint`] | save and resume, bit for bit, from and to the caller's bytes |
#![no_std]
#![deny(unsafe_code)]

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(test)]
extern crate self as jostle;
#[cfg(test)]
extern crate std;

pub mod checkpoint;
#[doc(hidden)]
pub mod compact;
pub mod config;
pub mod data;
pub mod error;
pub mod generate;
pub mod initialization;
pub mod layout;
#[allow(unsafe_code)]
pub mod matmul;
pub mod model;
pub mod ops;
pub mod optimizer;
pub mod parallel;
pub mod rng;
pub mod sampling;
pub mod schedule;
#[allow(unsafe_code)]
#[cfg_attr(feature = "matrixmultiply", allow(dead_code, reason = "products use some of it"))]
mod simd;
mod target;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
#[allow(unsafe_code)]
mod test_common;
pub mod tokenizer;
pub mod trainer;

pub use config::{Activation, Config, Dropout};
pub use data::Tokens;
pub use error::{CheckpointError, Error};
pub use generate::Generator;
pub use layout::{Frozen, OptimizerState, Options, Plan, Shape};
pub use model::{DropoutKey, Gradients, Loss, Pass};
pub use optimizer::Optimizer;
pub use parallel::{Compute, Parallel, Serial};
pub use sampling::Sampling;
pub use schedule::{Decay, Schedule};
pub use simd::InstructionSet;
pub use target::Target;
pub use tokenizer::{ByteTokenizer, CharTable};
pub use trainer::{Buffers, Pieces, Recipe, Report, Trainer};
