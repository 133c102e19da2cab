//! What the measurements share. Yardsticks take turns with jostle, so that a busy machine slows all of them
//! alike: in one process where they are Rust's, else as processes that `compare/steps.py` starts and asks.
//!
//! | module | what it is |
//! |---|---|
//! | [`product`] | the shapes of matrix products, and three libraries that compute them |
//! | [`operations`] | how many floating-point operations a step takes |
//! | [`peak`] | the processor's fused multiply-adds a second |
//! | [`reference`](mod@reference) | a file that says what a model computes |
//! | [`rounds`] | timing in turns, medians |
//! | [`session`] | a model ready to train |
//! | [`turns`] | steps on request, for processes that take turns |

pub mod operations;
pub mod peak;
pub mod product;
pub mod reference;
pub mod rounds;
pub mod session;
pub mod turns;
