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
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate self as jostle;
#[cfg(test)]
extern crate std;

pub mod config;
pub mod error;
pub mod layout;
#[allow(unsafe_code)]
pub mod matmul;
pub mod ops;
pub mod parallel;
pub mod rng;
#[allow(unsafe_code)]
mod simd;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod test_common;

pub use config::{Activation, Config, Dropout};
pub use error::{CheckpointError, Error};
pub use layout::{OptimizerState, Options, Plan, Shape};
pub use parallel::{Compute, Parallel, Serial};
pub use simd::InstructionSet;
