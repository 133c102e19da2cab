//! Shared by the measurements. Yardsticks take turns with jostle, so that a busy machine slows all of them alike. Those
//! in Rust run in one process. Others are processes that `compare/steps.py` starts.
//!
//! * `product`: the shapes of matrix products, and three libraries that compute them.
//! * [`peak`]: the processor's fused multiply-adds a second.
//! * [`bandwidth`]: how fast one thread reads and updates memory.
//! * [`reference`](mod@reference): a file that says what a model computes.
//! * [`rounds`]: timing in turns, medians.
//! * [`floats`]: buffers that begin with a cache line.
//! * [`session`]: a model ready to train.
//! * [`operations`]: how many floating-point operations a step takes.
//! * [`turns`]: steps on request, for processes that take turns.

pub mod bandwidth;
pub mod floats;
pub mod operations;
pub mod peak;
#[cfg(feature = "products")]
pub mod product;
pub mod reference;
pub mod rounds;
pub mod session;
pub mod turns;
